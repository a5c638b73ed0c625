//! Polling: when a lane polls its empty ring before it sleeps, so that neither side needs a system call to continue.
//!
//! Polling pays off if the next request comes soon. A lane that slept for less than its polling time polls from then
//! on. It stops after a poll that finds nothing, so that an idle lane sleeps. Between two polls it yields its
//! processor to other threads, which the driver may be waiting for. Because the lane polls with kicks off, it misses
//! requests while another thread keeps the processor. A lane that was kept off its processor, or polled in vain,
//! therefore retries after more and more short sleeps.

use std::time::{Duration, Instant};

/// Maximum number of short sleeps before polling is retried.
const PATIENCE_MOST: u32 = 1024;

/// The decision to poll, from the results of earlier polling.
#[derive(Debug)]
pub struct Polling {
    most: Duration,
    on: bool,
    /// Short sleeps until polling is retried.
    left: u32,
    /// Number of short sleeps after the next poll in vain.
    patience: u32,
    /// Successful polls since `patience` changed.
    worth: u32,
}

impl Polling {
    /// Polls for up to `most`; never if that is zero.
    #[must_use]
    pub fn new(most: Duration) -> Polling {
        Polling {
            most,
            on: false,
            left: 0,
            patience: 1,
            worth: 0,
        }
    }

    /// Whether to poll before the next sleep.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.on
    }

    /// The start time of a sleep, if it needs to be measured.
    #[must_use]
    pub fn sleep(&self) -> Option<Instant> {
        (!self.most.is_zero()).then(Instant::now)
    }

    /// Records the length of a sleep that a request ended.
    pub fn slept(&mut self, time: Duration) {
        if time > self.most {
            return;
        }
        self.left = self.left.saturating_sub(1);
        self.on = self.left == 0;
    }

    /// Polls until `found`, the end of the time, or `stop`. Returns whether to serve the ring instead of sleeping.
    pub fn run(&mut self, found: impl FnMut() -> bool, stop: impl Fn() -> bool) -> bool {
        self.look(found, stop, Instant::now)
    }

    fn look(
        &mut self,
        mut found: impl FnMut() -> bool,
        stop: impl Fn() -> bool,
        mut now: impl FnMut() -> Instant,
    ) -> bool {
        let start = now();
        let mut looked = start;
        while !stop() {
            // Before the look, which may be work: `innkeeper mount` hands on what it finds.
            let away = now() - looked;
            let found = found();
            if away >= self.most {
                self.in_vain(away);
                return found;
            }
            if found {
                self.was_worth_it();
                return true;
            }
            looked = now();
            if looked - start >= self.most {
                self.in_vain(self.most);
                return false;
            }
            std::thread::yield_now();
        }
        false
    }

    /// Delays the next attempt in proportion to the cost of this one.
    fn in_vain(&mut self, cost: Duration) {
        let times = cost.as_nanos() / self.most.as_nanos().max(1);
        self.on = false;
        self.left = self
            .patience
            .max(u32::try_from(times).unwrap_or(u32::MAX))
            .min(PATIENCE_MOST);
        self.patience = (2 * self.left).min(PATIENCE_MOST);
        self.worth = 0;
    }

    fn was_worth_it(&mut self) {
        self.worth += 1;
        if self.worth >= self.patience {
            self.patience = (self.patience / 2).max(1);
            self.worth = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

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
        for _ in 0..2 * 1024 {
            assert!(run(&mut polling, ALWAYS, NEVER));
        }
        assert!(!run(&mut polling, NEVER, NEVER));
        assert_eq!(sleeps(&mut polling), 1, "it was worth it many times");
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
    fn what_is_done_with_what_was_found_is_not_being_kept_away() {
        let mut polling = Polling::new(MOST);
        sleeps(&mut polling);
        let time = Cell::new(Instant::now());
        let works = || {
            time.set(time.get() + 10 * MOST);
            true
        };
        assert!(polling.look(works, NEVER, || time.get()));
        assert!(polling.is_on(), "it was worth it");
    }

    #[test]
    fn a_lane_that_was_kept_away_polls_less_the_longer_it_was() {
        let mut polling = Polling::new(MOST);
        sleeps(&mut polling);
        assert!(
            polling.look(ALWAYS, NEVER, clock(60 * MOST)),
            "what came meanwhile is served"
        );
        assert!(!polling.is_on());
        assert_eq!(sleeps(&mut polling), 60);
        assert!(!polling.look(NEVER, NEVER, clock(MOST)));
        assert_eq!(sleeps(&mut polling), 120, "less and less");
    }
}
