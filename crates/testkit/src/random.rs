//! A small generator of numbers, so that a seed gives the same test again.

/// Is xorshift64 (Marsaglia, 2003); good enough to choose what is killed when.
pub struct Random(u64);

impl Random {
    /// Begins at a seed, which may be any number.
    pub fn new(seed: u64) -> Self {
        Self(seed.max(1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// Gives a number below `limit`, which is not 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    /// Gives one of some things, or nothing of none.
    pub fn choose<'a, T>(&mut self, all: &'a [T]) -> Option<&'a T> {
        let count = u64::try_from(all.len()).expect("small");
        (count > 0).then(|| &all[usize::try_from(self.below(count)).expect("small")])
    }
}

/// Gives the seed that the environment names, or one of the clock's.
pub fn seed(variable: &str) -> u64 {
    let clock = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970");
    number(variable, clock.as_secs())
}

/// Gives the number that the environment names, or the default.
pub fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}
