//! Which processors the driving threads and the daemons may use.

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::arguments::Placement;
use super::error::Error;

/// Processors for this process and for the daemons.
#[derive(Clone, Copy, Debug)]
pub(super) struct Processors {
    allowed: usize,
    daemons: CpuSet,
}

impl Processors {
    /// Binds the calling thread, and with it all that it starts from now on. `queues` threads are going to drive.
    pub(super) fn bind(placement: Placement, queues: u16) -> Result<Self, Error> {
        let allowed = sched_getaffinity(None).map_err(Error::system("read which processors may be used"))?;
        let numbers = (0..CpuSet::MAX_CPU).filter(|&number| allowed.is_set(number));
        let numbers: Vec<usize> = numbers.collect();
        let driving = match placement {
            Placement::Free => numbers.len(),
            Placement::Together => 1,
            // Half of them at most: the daemons need some too.
            Placement::Apart => usize::from(queues).min(numbers.len() / 2).max(1),
        };
        let (first, others) = numbers.split_at(driving.min(numbers.len()));
        let daemons = if placement == Placement::Apart && !others.is_empty() {
            others
        } else {
            first
        };
        sched_setaffinity(None, &set(first)).map_err(Error::system("bind the driving thread to its processors"))?;
        Ok(Self {
            allowed: numbers.len(),
            daemons: set(daemons),
        })
    }

    /// How many processors there were before anything was bound.
    pub(super) fn allowed(&self) -> usize {
        self.allowed
    }

    /// Binds a daemon that has just been started, before it has a second thread.
    pub(super) fn bind_daemon(&self, process: Pid) -> Result<(), Error> {
        sched_setaffinity(Some(process), &self.daemons).map_err(Error::system("bind the daemon to its processors"))
    }
}

fn set(numbers: &[usize]) -> CpuSet {
    let mut set = CpuSet::new();
    for &number in numbers {
        set.set(number);
    }
    set
}
