//! When a lane looks at its empty ring for a while before it sleeps, so that neither side needs a system call to go on.
//!
//! It pays where the next request comes soon from a driver on another processor. A lane that has slept for less than it may poll
//! polls from then on; when it finds nothing it stops, so that an idle lane sleeps. Where the driver, or anybody else, waits for the
//! lane's own processor, polling only delays them, and yet every sleep is short: so a lane that has polled in vain, or was taken off
//! the processor meanwhile, tries again after more and more short sleeps.

use std::time::{Duration, Instant};

/// Short sleeps at most before polling is tried again.
const PATIENCE_MOST: u32 = 1024;

/// What polling came to so far.
#[derive(Debug)]
pub(crate) struct Polling {
    most: Duration,
    on: bool,
    /// Short sleeps until it is tried again.
    left: u32,
    /// How many there will be if it is in vain again.
    patience: u32,
}

impl Polling {
    /// Polls for up to `most`; zero: never.
    pub(crate) fn new(most: Duration) -> Polling {
        Polling {
            most,
            on: false,
            left: 0,
            patience: 1,
        }
    }

    pub(crate) fn is_on(&self) -> bool {
        self.on
    }

    /// When a sleep begins, if it is worth knowing.
    pub(crate) fn sleep(&self) -> Option<Instant> {
        (!self.most.is_zero()).then(Instant::now)
    }

    /// A request has ended a sleep of so long.
    pub(crate) fn slept(&mut self, time: Duration) {
        if time > self.most {
            return;
        }
        self.left = self.left.saturating_sub(1);
        self.on = self.left == 0;
    }

    /// Looks until `found`, the end of the time, or `stop`. Whether to look at the ring for good, and not to sleep.
    pub(crate) fn run(&mut self, found: impl Fn() -> bool, stop: impl Fn() -> bool) -> bool {
        self.look(found, stop, Instant::now)
    }

    fn look(&mut self, found: impl Fn() -> bool, stop: impl Fn() -> bool, mut now: impl FnMut() -> Instant) -> bool {
        let start = now();
        let mut looked = start;
        while !stop() {
            let found = found();
            let time = now();
            // Two looks so far apart: another thread ran here in between.
            if time - looked >= self.most || (!found && time - start >= self.most) {
                self.on = false;
                self.left = self.patience;
                self.patience = (2 * self.patience).min(PATIENCE_MOST);
                return found;
            }
            if found {
                self.patience = 1;
                return true;
            }
            looked = time;
            std::hint::spin_loop();
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Duration = Duration::from_micros(50);
    const NEVER: fn() -> bool = || false;
    const ALWAYS: fn() -> bool = || true;

    /// A clock that goes on by `step` with each look at it.
    fn clock(step: Duration) -> impl FnMut() -> Instant {
        let mut now = Instant::now();
        move || {
            now += step;
            now
        }
    }

    /// Looks undisturbed.
    fn run(polling: &mut Polling, found: fn() -> bool, stop: fn() -> bool) -> bool {
        polling.look(found, stop, clock(Duration::from_micros(1)))
    }

    /// Short sleeps until it polls.
    fn sleeps(polling: &mut Polling) -> usize {
        (1..)
            .find(|_| {
                polling.slept(MOST);
                polling.is_on()
            })
            .expect("it is tried again some time")
    }

    #[test]
    fn it_begins_with_a_short_sleep_and_ends_in_vain() {
        let mut polling = Polling::new(MOST);
        assert!(!polling.is_on(), "nothing is known of the driver");
        polling.slept(MOST + Duration::from_nanos(1));
        assert!(!polling.is_on(), "it would have been in vain");
        assert_eq!(sleeps(&mut polling), 1);
        assert!(run(&mut polling, ALWAYS, NEVER));
        assert!(polling.is_on(), "it was worth it");
        assert!(!run(&mut polling, NEVER, NEVER));
        assert!(!polling.is_on());
    }

    #[test]
    fn in_vain_again_and_again_it_is_tried_less_and_less() {
        let mut polling = Polling::new(MOST);
        for expected in [1, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 1024] {
            assert_eq!(sleeps(&mut polling), expected);
            assert!(!run(&mut polling, NEVER, NEVER));
        }
        sleeps(&mut polling);
        assert!(run(&mut polling, ALWAYS, NEVER));
        assert!(!run(&mut polling, NEVER, NEVER));
        assert_eq!(sleeps(&mut polling), 1, "it was worth it once");
    }

    #[test]
    fn a_command_ends_it_and_proves_nothing() {
        let mut polling = Polling::new(Duration::MAX);
        sleeps(&mut polling);
        assert!(!run(&mut polling, NEVER, ALWAYS));
        assert!(polling.is_on());
    }

    #[test]
    fn without_time_it_is_never_on() {
        let polling = Polling::new(Duration::ZERO);
        assert!(polling.sleep().is_none(), "no sleep is measured");
        assert!(!polling.is_on());
    }

    #[test]
    fn whoever_else_wants_the_processor_gets_it() {
        let mut polling = Polling::new(MOST);
        sleeps(&mut polling);
        assert!(
            polling.look(ALWAYS, NEVER, clock(MOST)),
            "what came meanwhile is served"
        );
        assert!(!polling.is_on());
        sleeps(&mut polling);
        assert!(!polling.look(NEVER, NEVER, clock(MOST)));
        assert_eq!(sleeps(&mut polling), 2, "it is tried less");
    }
}
