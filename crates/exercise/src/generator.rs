//! Random numbers that depend only on the seed, so that a failing run can be repeated.

/// SplitMix64: one word of state, good enough to choose offsets and to fill buffers.
#[derive(Debug, Clone)]
pub(crate) struct Generator {
    state: u64,
}

impl Generator {
    /// The generator of a seed; equal seeds give equal numbers.
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// Any number.
    pub(crate) fn number(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`, or 0 if that is 0.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        // The high half of the product: no division, and the bias of 2^-64 * limit does not matter here.
        ((u128::from(self.number()) * u128::from(limit)) >> 64) as u64
    }

    /// True once in `count` times.
    pub(crate) fn once_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    /// A length from 1 to `2^bits`, short ones as often as long ones.
    pub(crate) fn length(&mut self, bits: u64) -> u64 {
        let scale = self.below(bits + 1);
        1 + self.below(1 << scale)
    }

    /// Fills a buffer.
    pub(crate) fn fill(&mut self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            let word = self.number().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Generator;

    #[test]
    fn numbers_are_those_of_splitmix64() {
        let mut random = Generator::new(0);
        let numbers = [random.number(), random.number(), random.number()];
        assert_eq!(
            numbers,
            [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4, 0x06c4_5d18_8009_454f]
        );
    }

    #[test]
    fn limits_hold_and_both_ends_come() {
        let mut random = Generator::new(1);
        let mut seen = [false; 3];
        for _ in 0..1000 {
            seen[random.below(3) as usize] = true;
            assert!((1..=16).contains(&random.length(4)));
        }
        assert_eq!(seen, [true; 3]);
        assert_eq!(random.below(0), 0);
    }
}
