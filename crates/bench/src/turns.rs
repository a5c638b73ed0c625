//! The rounds of a workload, which the contenders take in turns.

use std::time::Duration;

use process::interrupt::Interrupt;

use crate::error::Error;
use crate::machine::other_work::Reading;
use crate::machine::syscalls::Syscalls;
use crate::measure::{Rounds, Taken};
use crate::progress::progress;
use crate::ring::workload::Workload;
use crate::scratch::Scratch;
use crate::side::{Runner, Side};

/// Not counted, before the rounds of each workload.
const WARM_UP: Duration = Duration::from_millis(50);
/// Of the round in which system calls are counted, at most.
const COUNTED: Duration = Duration::from_millis(100);

/// How many rounds there are, and how long each is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turns {
    pub(crate) rounds: u32,
    pub(crate) time: Duration,
}

impl Turns {
    /// All rounds of one workload by all contenders, in their order.
    pub(crate) fn take(
        self,
        workload: Workload,
        sides: &mut [Side],
        scratch: &Scratch,
        syscalls: Option<&Syscalls>,
        interrupt: &Interrupt,
    ) -> Result<Taken, Error> {
        let mut runners = sides
            .iter_mut()
            .map(|side| side.prepare(workload, scratch))
            .collect::<Result<Vec<_>, Error>>()?;
        let mut all = vec![Rounds::default(); runners.len()];
        for runner in &mut runners {
            runner.round(WARM_UP.min(self.time), &interrupt.flag)?;
        }
        let before = Reading::now(running(&runners))?;
        for number in 1..=self.rounds {
            for (runner, rounds) in runners.iter_mut().zip(&mut all) {
                progress(&format!(
                    "{workload}: round {number} of {}, {}",
                    self.rounds,
                    runner.name()
                ));
                rounds.all.push(runner.round(self.time, &interrupt.flag)?);
                interrupt.check()?;
            }
        }
        let other_work = before.until(&Reading::now(running(&runners))?);
        // Afterwards: what counts them makes each a little slower.
        if let Some(syscalls) = syscalls {
            for (runner, rounds) in runners.iter_mut().zip(&mut all) {
                let limit = COUNTED.min(self.time);
                rounds.syscalls = Some(runner.count(syscalls, limit, &interrupt.flag)?);
            }
        }
        progress("");
        Ok(Taken {
            rounds: all,
            other_work,
        })
    }
}

/// CPU time of all daemons: those whose turn it is not have no work, but may do some.
fn running(runners: &[Runner<'_>]) -> Duration {
    runners.iter().map(Runner::daemon_cpu_time).sum()
}
