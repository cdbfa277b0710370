//! Reproducible random numbers from a seed (SplitMix64).

pub(crate) struct Random(u64);

impl Random {
    /// Returns an independent sequence for `number`.
    pub(crate) fn fork(seed: u64, number: usize) -> Self {
        let mut mixer = Self(seed ^ (number as u64 + 1).wrapping_mul(0xd134_2543_de82_ef95));
        Self(mixer.next())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// True in `percent` of 100 cases.
    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }

    /// Picks one of them with a probability proportional to its weight.
    pub(crate) fn pick<T: Copy>(&mut self, weighted: &[(T, u64)]) -> T {
        let total: u64 = weighted.iter().map(|(_, weight)| weight).sum();
        let mut rest = self.next() % total;
        for (one, weight) in weighted {
            if rest < *weight {
                return *one;
            }
            rest -= weight;
        }
        weighted[0].0
    }
}
