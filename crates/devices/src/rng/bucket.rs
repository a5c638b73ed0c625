//! Token bucket that limits bytes per second. It reads no clock: the caller passes the time in.

use std::time::{Duration, Instant};

const NANOS: u128 = 1_000_000_000;

/// Bytes that may be handed out: `rate` more each second, and never more than one second's worth.
///
/// Over any time of t seconds at most `rate * t + rate` bytes go out, if no more is spent than [`allowance`](Self::allowance) grants.
#[derive(Debug)]
pub(super) struct Bucket {
    /// Bytes per second, at least 1.
    rate: u64,
    /// What is in it, in billionths of a byte, so that nothing is lost to rounding.
    level: u128,
    /// When `level` was true.
    at: Instant,
}

impl Bucket {
    pub(super) fn full(rate: u64, now: Instant) -> Self {
        Self {
            rate,
            level: u128::from(rate) * NANOS,
            at: now,
        }
    }

    /// How many of `wanted` bytes may be handed out: all, or one second's worth if they are more. `Err`: the time until then.
    ///
    /// A request for many bytes thus waits once, and not once for each byte.
    pub(super) fn allowance(&mut self, wanted: usize, now: Instant) -> Result<usize, Duration> {
        self.refill(now);
        let granted = wanted.min(usize::try_from(self.rate).unwrap_or(usize::MAX));
        let missing = (granted as u128 * NANOS).saturating_sub(self.level);
        if missing == 0 {
            return Ok(granted);
        }
        let nanos = missing.div_ceil(u128::from(self.rate));
        Err(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
    }

    /// Takes out what was handed out.
    pub(super) fn spend(&mut self, bytes: usize) {
        self.level = self.level.saturating_sub(bytes as u128 * NANOS);
    }

    fn refill(&mut self, now: Instant) {
        let rate = u128::from(self.rate);
        let gained = now.saturating_duration_since(self.at).as_nanos().saturating_mul(rate);
        self.level = self.level.saturating_add(gained).min(rate * NANOS);
        self.at = self.at.max(now);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// In any time, whatever is asked for and whatever part of it the source gives.
        #[test]
        fn never_more_than_the_rate_and_one_second_of_it_goes_out(
            rate in prop_oneof![1..50_u64, any::<u64>().prop_map(|rate| rate.max(1))],
            steps in prop::collection::vec((0..3_000_000_000_u64, 1..100_000_usize, 0..=100_usize), 1..60),
        ) {
            let start = Instant::now();
            let mut now = start;
            let mut bucket = Bucket::full(rate, now);
            let mut history = Vec::new();
            for (nanos, wanted, percent) in steps {
                now += Duration::from_nanos(nanos);
                if let Ok(granted) = bucket.allowance(wanted, now) {
                    prop_assert!(granted > 0 && granted <= wanted);
                    let given = (granted * percent / 100).max(1);
                    bucket.spend(given);
                    history.push((now, given as u128));
                }
            }
            for first in 0..history.len() {
                let mut total = 0;
                for (at, given) in &history[first..] {
                    total += given;
                    let elapsed = at.duration_since(history[first].0).as_nanos();
                    prop_assert!(total * NANOS <= u128::from(rate) * (elapsed + NANOS));
                }
            }
        }

        /// So that the lane sleeps once, and not many times for next to nothing.
        #[test]
        fn after_the_time_it_names_the_bytes_are_there_and_not_before(
            rate in prop_oneof![1..50_u64, 1..=u64::MAX],
            spent in 1..100_000_usize,
            wanted in 1..100_000_usize,
        ) {
            let now = Instant::now();
            let mut bucket = Bucket::full(rate, now);
            bucket.spend(spent);
            if let Err(time) = bucket.allowance(wanted, now) {
                prop_assert!(time > Duration::ZERO && time <= Duration::from_secs(1));
                let just_before = now + (time - Duration::from_nanos(1));
                prop_assert!(bucket.allowance(wanted, just_before).is_err());
                prop_assert!(bucket.allowance(wanted, now + time).is_ok());
            }
        }
    }

    #[test]
    fn idle_time_saves_up_one_second_and_no_more() {
        let now = Instant::now();
        let mut bucket = Bucket::full(10, now);
        assert_eq!(bucket.allowance(100, now), Ok(10));
        bucket.spend(10);
        assert_eq!(bucket.allowance(1, now), Err(Duration::from_millis(100)));
        let later = now + Duration::from_secs(3600);
        assert_eq!(bucket.allowance(100, later), Ok(10));
        bucket.spend(10);
        assert_eq!(bucket.allowance(100, later), Err(Duration::from_secs(1)));
    }

    #[test]
    fn a_clock_that_stands_still_or_goes_back_gives_nothing() {
        let now = Instant::now() + Duration::from_secs(10);
        let mut bucket = Bucket::full(10, now);
        bucket.spend(10);
        let tenth = Err(Duration::from_millis(100));
        assert_eq!(bucket.allowance(1, now - Duration::from_secs(5)), tenth);
        assert_eq!(bucket.allowance(1, now), tenth);
    }
}
