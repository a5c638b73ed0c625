//! Interrupt moderation: when a driver is interrupted before the batch is done (see `Queue::serve_early`).
//!
//! A driver with its own processor handles completions while the lane continues. A driver on the lane's processor
//! preempts the lane: both are switched once per interrupt instead of once per batch, which costs up to half of all
//! throughput. Therefore the lane measures the effect of its interrupts on itself. Where they preempt it, it delays
//! them for a while.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// How long a batch delays a driver's interrupt. With less, interrupts would cost more than they gain; waking a
/// processor takes some microseconds at best.
const PATIENCE: Duration = Duration::from_micros(10);
/// The delay where an interrupt costs the lane its processor: two switches take little time in comparison.
const LONG_PATIENCE: Duration = Duration::from_micros(300);

/// Number of batches with long patience after the first interrupt that cost the lane its processor; [`PAUSE_MOST`] is
/// the maximum.
const PAUSE: u32 = 16;
const PAUSE_MOST: u32 = 2048;

/// Time off the processor from which on another thread has run, not only an interrupt handler of the host.
const SWITCHED: Duration = Duration::from_micros(2);

/// Decides how soon the lane interrupts its driver, by the effect of earlier interrupts on the lane.
#[derive(Debug)]
pub(crate) struct Moderation {
    /// Remaining batches with long patience.
    left: u32,
    /// Number of such batches after the next switch.
    pause: u32,
    /// The next interrupt is measured, as the first of each batch is.
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

    /// Returns how long the next batch may delay its driver's interrupt.
    pub(crate) fn patience(&mut self) -> Duration {
        if self.left > 0 {
            self.left -= 1;
            self.watch = false;
            return LONG_PATIENCE;
        }
        self.watch = true;
        PATIENCE
    }

    /// Sends an early interrupt, and measures its effect.
    pub(crate) fn watch(&mut self, interrupt: impl FnOnce()) {
        if !std::mem::take(&mut self.watch) {
            return interrupt();
        }
        let (start, ran) = (Instant::now(), run_time());
        interrupt();
        let ran = run_time().saturating_sub(ran);
        self.learn(start.elapsed().saturating_sub(ran) >= SWITCHED);
    }

    /// Records whether another thread ran in this thread's place while the interrupt was sent.
    fn learn(&mut self, switched: bool) {
        if switched {
            self.left = self.pause;
            self.pause = (2 * self.pause).min(PAUSE_MOST);
        } else {
            self.pause = PAUSE;
        }
    }
}

/// Processor time of this thread.
fn run_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Number of batches before the next with short patience.
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
