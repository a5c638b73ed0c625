//! Follows traced threads from stop to stop, and keeps their failed calls.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::failures::Failures;
use super::report::Report;
use super::sys::{self, Place, Stop, Syscall};
use super::thread_calls::{End, ThreadCalls};
use super::watch::Watch;
use super::{arguments, rights};
use crate::observe::context::Context;
use crate::observe::failure::{AUDIT_X86_64, Failure, Outcome};
use crate::observe::kernel_log::KernelLog;
use crate::observe::proc;
use crate::words::syscall_name;

/// Calls by which shells and execvp() look for a program, and how many failures before its start may be of those.
const SEARCHING: [&str; 6] = ["execve", "stat", "newfstatat", "access", "faccessat", "faccessat2"];
const SEARCHED: usize = 64;

pub(super) struct Tracer<'w, W> {
    pub(super) watch: &'w mut W,
    /// The threads that are traced, and perhaps some that are no more.
    pub(super) traced: BTreeSet<i32>,
    /// Those of them that have not stopped yet: in the middle of a call, as it may be, of which nobody saw the beginning.
    pub(super) busy: BTreeSet<i32>,
    /// Who started each of those that were born while traced.
    parents: BTreeMap<i32, i32>,
    calls: BTreeMap<i32, ThreadCalls>,
    /// None where it may not be read.
    log: Option<KernelLog>,
    failures: Failures,
    withheld: BTreeSet<String>,
}

impl<'w, W: Watch> Tracer<'w, W> {
    pub(super) fn new(watch: &'w mut W) -> Self {
        Self {
            watch,
            traced: BTreeSet::new(),
            busy: BTreeSet::new(),
            parents: BTreeMap::new(),
            calls: BTreeMap::new(),
            log: KernelLog::open(),
            failures: Failures::default(),
            withheld: BTreeSet::new(),
        }
    }

    pub(super) fn report(self, status: u8) -> Report {
        let (failures, dropped) = self.failures.finish();
        Report {
            failures,
            dropped,
            status,
            not_run: None,
            withheld: self.withheld.into_iter().collect(),
        }
    }

    pub(super) fn until_end_of(&mut self, leader: i32) -> io::Result<u8> {
        loop {
            let (thread, stop) = sys::wait()?;
            if let Some(status) = self.stopped(thread, stop, leader) {
                return Ok(status);
            }
        }
    }

    /// Takes note of a stop and lets the thread go on; gives the exit status once the leader has ended.
    pub(super) fn stopped(&mut self, thread: i32, stop: Stop, leader: i32) -> Option<u8> {
        self.traced.insert(thread);
        if self.busy.remove(&thread) && !matches!(stop, Stop::Ended(_)) {
            // The call that kept it is over.
            self.watch.started(&[thread]);
        }
        match stop {
            Stop::Ended(status) => {
                self.forget(thread);
                return (thread == leader).then_some(status);
            }
            Stop::Syscall => {
                self.syscall(thread);
                sys::resume(thread, 0);
            }
            Stop::Signal(signal) => {
                if signal == libc::SIGSYS {
                    self.sigsys(thread);
                }
                sys::resume(thread, signal);
            }
            // The thread stays stopped, as the one who stopped it wants, until SIGCONT.
            Stop::Group => sys::listen(thread),
            Stop::Born(child) => {
                self.traced.insert(child);
                self.parents.insert(child, thread);
                sys::resume(thread, 0);
            }
            Stop::Executed(former) => {
                if former != thread {
                    // It has taken the place of the leader, which is no more, nor are the other threads.
                    let calls = self.calls.remove(&former);
                    self.forget(former);
                    self.calls.remove(&thread);
                    self.calls.extend(calls.map(|calls| (thread, calls)));
                }
                self.calls.entry(thread).or_default().executed();
                self.found(thread);
                self.withheld.extend(rights::withheld(thread));
                sys::resume(thread, 0);
            }
            Stop::Ending(signal) => {
                // So ends as well who was sent it, and all other threads of a process that a filter ends.
                if signal == libc::SIGSYS
                    && proc::ended_by_filter(thread)
                    && let Some(call) = self.calls.get(&thread).and_then(ThreadCalls::deadly)
                {
                    self.keep(thread, call, Outcome::Sigsys, true);
                }
                sys::resume(thread, 0);
            }
            Stop::Event => sys::resume(thread, 0),
        }
        None
    }

    /// A thread executes a program now. It, or the shell that started it, looked for that in other directories of PATH before.
    fn found(&mut self, thread: i32) {
        let name = proc::program(thread).unwrap_or_default();
        let parent = self.parents.get(&thread);
        for failure in self.failures.latest().take(SEARCHED) {
            let looks = (failure.thread == thread || Some(&failure.thread) == parent)
                && SEARCHING.contains(&failure.call.as_str())
                // One that was there, and could not be executed, is news.
                && failure.context.interpreter.is_none()
                && failure.outcome == Outcome::Errno(libc::ENOENT)
                && failure
                    .arguments
                    .iter()
                    .any(|path| arguments::names_command(path, &name));
            failure.searching |= looks;
        }
    }

    /// A thread is no more.
    fn forget(&mut self, thread: i32) {
        self.traced.remove(&thread);
        self.calls.remove(&thread);
        self.parents.remove(&thread);
        if let Some(log) = &mut self.log {
            log.ended(thread);
        }
        self.watch.ended(thread);
    }

    fn syscall(&mut self, thread: i32) {
        match sys::syscall_info(thread) {
            Some(sys::Info::Entry(call)) => {
                self.calls.entry(thread).or_default().entered(call);
                if let Some(log) = &mut self.log {
                    log.entered(thread);
                }
                self.watch.entered(thread, call.number);
            }
            Some(sys::Info::Exit(exit)) => {
                let end = self.calls.entry(thread).or_default().left(&exit);
                self.watch.left(thread, matches!(end, End::Failed(..)));
                match end {
                    End::Failed(Some(call), errno) => self.keep(thread, call, Outcome::Errno(errno), false),
                    End::Interrupted(call) => self.keep(thread, call, Outcome::Errno(libc::EINTR), true),
                    End::Failed(None, _) | End::Other => {}
                }
            }
            None => {}
        }
    }

    fn sigsys(&mut self, thread: i32) {
        let last = self.calls.entry(thread).or_default().take_last();
        let Some((number, architecture)) = sys::refused_call(thread) else {
            return;
        };
        // Processes send such signals to themselves as well.
        if !proc::filtered(thread) {
            return;
        }
        match last {
            Some(last) if last.is_refused() && last.call.number == number => {
                self.keep(thread, last.call, Outcome::Sigsys, false);
            }
            Some(_) => {}
            None => {
                let call = Syscall {
                    architecture,
                    number,
                    arguments: [0; 6],
                    place: Place::default(),
                };
                self.keep(thread, call, Outcome::Sigsys, true);
            }
        }
    }

    fn keep(&mut self, thread: i32, call: Syscall, outcome: Outcome, inferred: bool) {
        let name = (call.architecture == AUDIT_X86_64)
            .then(|| syscall_name(call.number))
            .flatten();
        let errno = match outcome {
            Outcome::Errno(errno) => errno,
            Outcome::Sigsys => libc::ENOSYS,
        };
        let objects = arguments::objects(thread, name, call.arguments);
        self.failures.push(Failure {
            thread,
            number: call.number,
            architecture: call.architecture,
            program: proc::program(thread),
            arguments: arguments::decode(thread, name, call.arguments),
            call: name.map_or_else(
                || format!("system call {} of {:#x}", call.number, call.architecture),
                str::to_owned,
            ),
            outcome,
            filtered: proc::filtered(thread),
            inferred,
            dropped_before: 0,
            searching: false,
            context: Context::of(thread, name.unwrap_or_default(), errno, &objects),
            log: self.log.as_mut().map_or_else(Vec::new, |log| log.since(thread)),
        });
    }
}
