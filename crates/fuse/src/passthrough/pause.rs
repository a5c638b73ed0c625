//! A hook with which tests widen the gap between two system calls on one inode, so that another request gets in
//! between. The program compiles it to nothing.

/// Between two looks at an inode, or between a look at it and its opening.
#[cfg(not(test))]
#[inline(always)]
pub(super) fn between_steps() {}

#[cfg(test)]
pub(super) use self::test::{between_steps, set};

#[cfg(test)]
mod test {
    use std::cell::Cell;
    use std::hint::spin_loop;
    use std::thread;
    use std::time::{Duration, Instant};

    thread_local! {
        /// State of the thread's own random numbers; 0: no pauses.
        static PAUSES: Cell<u64> = const { Cell::new(0) };
    }

    /// Has this thread pause now and then, by random numbers that start with `seed`.
    pub(in crate::passthrough) fn set(seed: u64) {
        PAUSES.set(seed | 1);
    }

    pub(in crate::passthrough) fn between_steps() {
        let mut state = PAUSES.get();
        if state == 0 {
            return;
        }
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        PAUSES.set(state);
        match state >> 32 & 63 {
            0 => thread::sleep(Duration::from_micros(100)),
            1..8 => thread::yield_now(),
            8..24 => {
                let until = Instant::now() + Duration::from_micros(20);
                while Instant::now() < until {
                    spin_loop();
                }
            }
            _ => {}
        }
    }
}
