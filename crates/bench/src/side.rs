//! The compared sides: daemons, each with a session, and the host.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::daemon::contender::Contender;
use crate::daemon::recipe::Recipe;
use crate::daemon::start::Start;
use crate::error::Error;
use crate::host;
use crate::machine::syscalls::Syscalls;
use crate::measure::Round;
use crate::ring::drive;
use crate::ring::session::Session;
use crate::ring::workload::Workload;
use crate::scratch::{Scratch, own_directory};
use crate::show::report::Description;
use crate::tally::Tally;

/// What is compared.
#[derive(Debug)]
pub(crate) enum Side {
    Daemon {
        contender: Contender,
        session: Box<Session>,
    },
    Host {
        index: usize,
        queues: u16,
    },
}

/// A side, ready for the rounds of one workload.
pub(crate) enum Runner<'a> {
    Daemon {
        contender: &'a Contender,
        session: &'a mut Session,
        seats: drive::Seats,
    },
    Host(Vec<host::Worker>),
}

impl Side {
    pub(crate) fn daemon(recipe: &Recipe, index: usize, start: Start<'_>) -> Result<Self, Error> {
        let (contender, stream) = start.daemon(recipe)?;
        let session = Session::mount(stream, start.connection, start.scratch.sizes, index)
            .map_err(|error| contender.blame(error))?;
        Ok(Self::Daemon {
            contender,
            session: Box::new(session),
        })
    }

    pub(crate) fn contender(&self) -> Option<&Contender> {
        match self {
            Self::Daemon { contender, .. } => Some(contender),
            Self::Host { .. } => None,
        }
    }

    pub(crate) fn describe(&self, recipe: &Recipe, queues: u16) -> Description {
        let (ring, served) = match self {
            Self::Daemon { session, .. } if session.packed => (Some("packed"), session.lanes.len() as u16),
            Self::Daemon { session, .. } => (Some("split"), session.lanes.len() as u16),
            Self::Host { .. } => (None, queues),
        };
        Description {
            name: recipe.name.clone(),
            command: Some(recipe.describe(queues)),
            ring,
            queues: served,
        }
    }

    pub(crate) fn prepare(&mut self, workload: Workload, scratch: &Scratch) -> Result<Runner<'_>, Error> {
        match self {
            Self::Daemon { contender, session } => Ok(Runner::Daemon {
                seats: drive::seats(session, workload, scratch)?,
                contender,
                session,
            }),
            Self::Host { index, queues } => {
                let share = scratch.share();
                let own = share.join(own_directory(*index));
                host::workers(&share, &own, scratch.sizes, workload, *queues).map(Runner::Host)
            }
        }
    }
}

impl Runner<'_> {
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Daemon { contender, .. } => &contender.name,
            Self::Host(_) => "host",
        }
    }

    pub(crate) fn round(&mut self, limit: Duration, stop: &AtomicBool) -> Result<Round, Error> {
        let before = self.cpu_time();
        let tally = self.drive(limit, stop)?;
        Ok(Round::new(&tally, self.cpu_time().saturating_sub(before)))
    }

    /// System calls an operation.
    pub(crate) fn count(&mut self, syscalls: &Syscalls, limit: Duration, stop: &AtomicBool) -> Result<f64, Error> {
        let failed = Error::system::<std::io::Error>;
        let threads = match self {
            Self::Daemon { contender, .. } => contender.threads(),
            Self::Host(_) => vec![0],
        };
        let counter = syscalls.count(&threads).map_err(failed("count system calls"))?;
        let tally = self.drive(limit, stop)?;
        let count = counter.end().map_err(failed("read how many system calls there were"))?;
        Ok(count as f64 / tally.operations.max(1) as f64)
    }

    /// Zero for the host.
    pub(crate) fn daemon_cpu_time(&self) -> Duration {
        match self {
            Self::Daemon { contender, .. } => contender.cpu_time(),
            Self::Host(_) => Duration::ZERO,
        }
    }

    fn cpu_time(&self) -> Duration {
        match self {
            Self::Daemon { contender, .. } => contender.cpu_time(),
            Self::Host(_) => own_cpu_time(),
        }
    }

    fn drive(&mut self, limit: Duration, stop: &AtomicBool) -> Result<Tally, Error> {
        match self {
            Self::Daemon {
                contender,
                session,
                seats,
            } => drive::drive(session, seats, limit, stop).map_err(|error| contender.blame(error)),
            Self::Host(workers) => host::run(workers, limit, stop),
        }
    }
}

fn own_cpu_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default()
}
