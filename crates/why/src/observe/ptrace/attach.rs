//! Attaches to a running process, and detaches without changing it.

use std::collections::BTreeSet;
use std::io;
use std::time::{Duration, Instant};

use super::error::{Error, system};
use super::refusal::{Refusal, leader, refusal};
use super::report::Report;
use super::sys::{self, Stop};
use super::tracer::Tracer;
use super::wake::Wake;
use super::watch::Watch;
use crate::observe::proc::{Status, threads};

/// Threads that wait for a disk do not stop before it answers: that long is waited for those.
const STOPPING: Duration = Duration::from_millis(300);
/// That long is waited for threads to stop so that they can be let go; the others are when this process ends.
const LETTING_GO: Duration = Duration::from_secs(2);
/// A process to attach to.
pub struct Process<'b> {
    /// Its number, or that of one of its threads.
    pub number: i32,
    /// How long to stay; to its end if there is none.
    pub time: Option<Duration>,
    /// Is told how many threads there are, once they are traced.
    pub begun: &'b mut dyn FnMut(usize),
}

/// Attaches to a process and reports which calls of its threads and new children failed, until it ends, the time is up
/// or this process gets SIGINT, SIGTERM or SIGHUP. Then the process goes on as before. It does so as well if this process is
/// killed.
///
/// # Errors
/// The process is not there or may not be traced; all its threads then are as they were.
pub fn attach(process: Process<'_>, watch: &mut impl Watch) -> Result<Report, Error> {
    let leader = leader(process.number)?;
    let mut wake = Wake::new().map_err(system("wait with a timeout"))?;
    let mut trace = Tracer::new(watch);
    let seized = trace.seize(leader).inspect_err(|_| trace.let_go(&mut wake))?;
    let begun = trace.hold(&seized, &mut wake).map_err(system("stop the threads"));
    let held = begun.inspect_err(|_| trace.let_go(&mut wake))?;
    let alive = held.iter().filter(|(_, stop)| !matches!(stop, Stop::Ended(_)));
    let alive: Vec<i32> = alive.map(|(thread, _)| *thread).collect();
    trace.busy = trace
        .traced
        .iter()
        .copied()
        .filter(|thread| !alive.contains(thread))
        .collect();
    trace.watch.started(&alive);
    (process.begun)(trace.traced.len());
    let until = process.time.and_then(|time| Instant::now().checked_add(time));
    let mut status = held.into_iter().fold(None, |status, (thread, stop)| {
        trace.stopped(thread, stop, leader).or(status)
    });
    while status.is_none() && !trace.traced.is_empty() && !Wake::asked() {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            break;
        }
        match sys::wait_now() {
            Ok(Some((thread, stop))) => status = trace.stopped(thread, stop, leader),
            Ok(None) => wake.wait(left).map_err(system("wait for the process"))?,
            Err(error) => {
                trace.let_go(&mut wake);
                return Err(system("wait for the process")(error));
            }
        }
    }
    trace.let_go(&mut wake);
    Ok(trace.report(status.unwrap_or(0)))
}

impl<W: Watch> Tracer<'_, W> {
    /// Seizes all threads and has them stop; those that come meanwhile are seized at their birth.
    fn seize(&mut self, process: i32) -> Result<Vec<i32>, Error> {
        let mut seized = Vec::new();
        loop {
            let threads = threads(process).into_iter();
            let new: Vec<i32> = threads.filter(|thread| !self.traced.contains(thread)).collect();
            let before = seized.len();
            for thread in new {
                match sys::seize(thread) {
                    Ok(()) => {}
                    Err(_) if Status::of(thread).is_none_or(|status| status.is_zombie()) => continue,
                    // It was born of one that is traced.
                    Err(_) if Status::of(thread).is_some_and(|status| status.is_ours()) => {}
                    Err(source) => return Err(refusal(process, thread, source).into()),
                }
                self.traced.insert(thread);
                seized.push(thread);
                sys::interrupt(thread);
            }
            if seized.len() == before {
                return if seized.is_empty() {
                    Err(Refusal::Missing(process).into())
                } else {
                    Ok(seized)
                };
            }
        }
    }

    /// Waits for the threads to stop, and keeps them so: whoever is to be told of them sees each of their calls.
    fn hold(&mut self, seized: &[i32], wake: &mut Wake) -> io::Result<Vec<(i32, Stop)>> {
        let until = Instant::now() + STOPPING;
        let mut waited: BTreeSet<i32> = seized.iter().copied().collect();
        let mut held = Vec::new();
        while !waited.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            match sys::wait_now()? {
                Some((thread, stop)) => {
                    waited.remove(&thread);
                    if !matches!(stop, Stop::Ended(_)) {
                        self.traced.insert(thread);
                    }
                    held.push((thread, stop));
                }
                None if left.is_zero() => break,
                None => wake.wait(Some(left))?,
            }
        }
        Ok(held)
    }

    /// Lets all threads go on untraced; those that were stopped by somebody else stay so.
    pub(super) fn let_go(&mut self, wake: &mut Wake) {
        // One that a call of execve() ended is not told of.
        self.traced.retain(|thread| sys::interrupt(*thread));
        let until = Instant::now() + LETTING_GO;
        while !self.traced.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            match sys::wait_now() {
                Ok(Some((thread, stop))) => {
                    self.traced.remove(&thread);
                    let signal = match stop {
                        Stop::Ended(_) => continue,
                        Stop::Signal(signal) => signal,
                        Stop::Born(child) => {
                            self.traced.insert(child);
                            0
                        }
                        Stop::Syscall | Stop::Group | Stop::Executed(_) | Stop::Ending(_) | Stop::Event => 0,
                    };
                    sys::detach(thread, signal);
                }
                Ok(None) if !left.is_zero() => {
                    if wake.wait(Some(left)).is_err() {
                        return;
                    }
                }
                Ok(None) | Err(_) => return,
            }
        }
    }
}
