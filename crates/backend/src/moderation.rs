//! Interrupt moderation: when a driver is interrupted before the batch is done (see `Queue::serve_early`).
//!
//! A driver with its own processor handles completions while the lane continues. A driver on the lane's processor
//! preempts the lane: both are switched once per interrupt instead of once per batch, which costs up to half of all
//! throughput. Therefore the lane measures the effect of its interrupts on itself. Where they preempt it, it delays
//! them for a while.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// How long a batch keeps a driver waiting. Shorter, and interrupts cost more than they gain; a wake-up of a processor takes some
/// microseconds at best.
const PATIENCE: Duration = Duration::from_micros(10);
/// The same where an interrupt costs the lane its processor: two switches are little beside this.
const LONG_PATIENCE: Duration = Duration::from_micros(300);

/// Batches with long patience, after the first interrupt that cost the lane its processor, and at most.
const PAUSE: u32 = 16;
const PAUSE_MOST: u32 = 2048;

/// Off the processor for so long: no interrupt of the host's hardware, but another thread.
const SWITCHED: Duration = Duration::from_micros(2);

/// How soon the lane interrupts its driver, by what early interrupts have done to the lane so far.
#[derive(Debug)]
pub(crate) struct Moderation {
    /// Batches with long patience that are still to come.
    left: u32,
    /// How many there will be when it happens again.
    pause: u32,
    /// The next interrupt is watched: the first of each batch is.
    watch: bool,
}

impl Moderation {
    pub(crate) fn new() -> Moderation {
        Moderation {
            left: 0,
            pause: PAUSE,
            watch: true,
        }
    }

    /// How long the batch that begins may keep its driver waiting.
    pub(crate) fn patience(&mut self) -> Duration {
        if self.left > 0 {
            self.left -= 1;
            self.watch = false;
            return LONG_PATIENCE;
        }
        self.watch = true;
        PATIENCE
    }

    /// Sends an early interrupt, and learns from it.
    pub(crate) fn watch(&mut self, interrupt: impl FnOnce()) {
        if !std::mem::take(&mut self.watch) {
            return interrupt();
        }
        let (start, ran) = (Instant::now(), run_time());
        interrupt();
        let ran = run_time().saturating_sub(ran);
        self.learn(start.elapsed().saturating_sub(ran) >= SWITCHED);
    }

    /// Another thread ran in our place before the interrupt was sent, or not.
    fn learn(&mut self, switched: bool) {
        if switched {
            self.left = self.pause;
            self.pause = (2 * self.pause).min(PAUSE_MOST);
        } else {
            self.pause = PAUSE;
        }
    }
}

/// How long this thread has run.
fn run_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Batches before the next that is as prompt as can be.
    fn pause(moderation: &mut Moderation) -> u32 {
        (0..)
            .find(|_| moderation.patience() == PATIENCE)
            .expect("a pause has an end")
    }

    #[test]
    fn interrupts_that_cost_the_processor_are_put_off_longer_each_time() {
        let mut moderation = Moderation::new();
        assert_eq!(pause(&mut moderation), 0, "nothing is known at first");
        for expected in [16, 32, 64, 128, 256, 512, 1024, 2048, 2048] {
            moderation.learn(true);
            assert_eq!(pause(&mut moderation), expected);
        }
    }

    #[test]
    fn one_that_leaves_the_processor_alone_is_followed_by_others() {
        let mut moderation = Moderation::new();
        for _ in 0..5 {
            moderation.learn(true);
            pause(&mut moderation);
        }
        moderation.learn(false);
        assert_eq!(pause(&mut moderation), 0);
        moderation.learn(true);
        assert_eq!(pause(&mut moderation), PAUSE);
    }

    #[test]
    fn a_sleep_in_the_middle_of_an_interrupt_counts_as_a_switch() {
        let mut moderation = Moderation::new();
        moderation.watch(|| std::thread::sleep(Duration::from_millis(1)));
        assert_eq!(moderation.patience(), LONG_PATIENCE);
    }
}
