//! The processors for the driving threads and the daemons.

use clap::ValueEnum;
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::error::Error;

/// Processors of the threads. The scheduler moves threads together and apart, and waking a sleeping processor costs more than
/// many requests do: without placement, rounds differ by more than daemons do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Placement {
    /// Drivers, or a tool and its mount, on the first; daemons on the others, as for a virtual machine with its own
    Apart,
    /// All on the first: no wake-ups of other processors, so this compares the work itself
    Together,
    /// As the kernel chooses
    Free,
}

/// Processors for this process and for the daemons.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Processors {
    allowed: usize,
    daemons: CpuSet,
}

impl Processors {
    /// Binds the calling thread, and with it all that it starts from now on. `queues` threads are going to drive.
    pub(crate) fn bind(placement: Placement, queues: u16) -> Result<Self, Error> {
        let allowed = sched_getaffinity(None).map_err(Error::system("read the allowed processors"))?;
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
    pub(crate) fn allowed(&self) -> usize {
        self.allowed
    }

    /// Binds a daemon that has just been started, before it has a second thread.
    pub(crate) fn bind_daemon(&self, process: Pid) -> Result<(), Error> {
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
