//! Figures that are not measured in rounds of operations: start, idleness, memory.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use vhost_user::frontend::Frontend;

use crate::daemon::contender::Contender;
use crate::daemon::start::Start;
use crate::error::Error;
use crate::measure::Spread;
use crate::ring::session::Session;

/// How long daemons are left alone.
const IDLE: Duration = Duration::from_secs(2);
/// For the answer to the first request.
const ANSWER: Duration = Duration::from_secs(20);
/// What a daemon that was killed leaves may still be given back meanwhile.
const PAUSE: Duration = Duration::from_millis(20);

/// One figure of all daemons, in their order.
#[derive(Debug)]
pub(crate) struct Values {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) values: Vec<Option<Spread>>,
}

/// Milliseconds from the start of each daemon to its answer to GET_FEATURES.
pub(crate) fn ready(start: Start<'_>, rounds: u32) -> Result<Values, Error> {
    let mut times = vec![Vec::new(); start.recipes.len()];
    for _ in 0..rounds {
        for (recipe, times) in start.recipes.iter().zip(&mut times) {
            let began = Instant::now();
            let (contender, stream) = start.daemon(recipe)?;
            Frontend::new(stream, Some(ANSWER))
                .features()
                .map_err(|error| contender.blame(driver::Error::from(error).into()))?;
            times.push(began.elapsed().as_secs_f64() * 1000.0);
            drop(contender);
            thread::sleep(PAUSE);
        }
    }
    Ok(Values {
        name: "ready to serve",
        unit: "ms",
        values: times.into_iter().map(Spread::of).collect(),
    })
}

/// Bytes of private memory and descriptors of each daemon for each file that a guest has looked up.
pub(crate) fn memory(start: Start<'_>) -> Result<Vec<Values>, Error> {
    let known = f64::from(start.scratch.sizes.known);
    let (mut bytes, mut descriptors, mut rates) = (Vec::new(), Vec::new(), Vec::new());
    for (index, recipe) in start.recipes.iter().enumerate() {
        let (contender, stream) = start.daemon(recipe)?;
        let blame = |error| contender.blame(error);
        let mut session = Session::mount(stream, start.connection, start.scratch.sizes, index).map_err(blame)?;
        let before = (private_memory(&contender), open_descriptors(&contender));
        let began = Instant::now();
        session.look_up_known(start.scratch.sizes, start.stop).map_err(blame)?;
        let seconds = began.elapsed().as_secs_f64();
        let after = (private_memory(&contender), open_descriptors(&contender));
        bytes.push(Spread::of([(after.0 as f64 - before.0 as f64) / known]));
        descriptors.push(Spread::of([(after.1 as f64 - before.1 as f64) / known]));
        rates.push(Spread::of([known / seconds]));
    }
    let values = |name, unit, values| Values { name, unit, values };
    Ok(vec![
        values("memory a known file", "bytes", bytes),
        values("descriptors a known file", "", descriptors),
        values("first lookups a second", "1/s", rates),
    ])
}

/// CPU time that running daemons use while nobody asks for anything.
pub(crate) fn idle(contenders: &[&Contender]) -> Values {
    // What they do after the last request is not idleness yet.
    thread::sleep(IDLE / 4);
    let before: Vec<_> = contenders.iter().map(|contender| contender.cpu_time()).collect();
    thread::sleep(IDLE);
    let used = contenders.iter().zip(before).map(|(contender, before)| {
        let used = contender.cpu_time().saturating_sub(before);
        Spread::of([used.as_secs_f64() * 1000.0])
    });
    Values {
        name: "CPU time in 2 s of idleness",
        unit: "ms",
        values: used.collect(),
    }
}

/// Bytes of memory that are the daemon's own; the guest's is not.
fn private_memory(contender: &Contender) -> u64 {
    let of_process = |process| {
        let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    };
    let kibibytes: u64 = contender.processes().into_iter().filter_map(of_process).sum();
    kibibytes << 10
}

fn open_descriptors(contender: &Contender) -> usize {
    let of_process = |process| fs::read_dir(format!("/proc/{process}/fd")).map_or(0, Iterator::count);
    contender.processes().into_iter().map(of_process).sum()
}
