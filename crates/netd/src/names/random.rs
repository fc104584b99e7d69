//! Random numbers that nobody can foretell, fetched from the kernel by the block.

use rustix::rand::{GetRandomFlags, getrandom};

/// A supply of random bytes.
#[derive(Debug)]
pub struct Random {
    block: [u8; 256],
    used: usize,
}

impl Default for Random {
    fn default() -> Self {
        Self {
            block: [0; 256],
            used: 256,
        }
    }
}

impl Random {
    /// Returns 16 random bits.
    pub fn u16(&mut self) -> u16 {
        if self.used + 2 > self.block.len() {
            // Blocks of up to 256 bytes come whole, at the latest once the kernel has been up for some seconds.
            let mut filled = 0;
            while filled < self.block.len() {
                filled +=
                    getrandom(&mut self.block[filled..], GetRandomFlags::empty()).unwrap_or(0);
            }
            self.used = 0;
        }
        let value = u16::from_ne_bytes([self.block[self.used], self.block[self.used + 1]]);
        self.used += 2;
        value
    }

    /// Puts things into any order.
    pub fn shuffle<T>(&mut self, things: &mut [T]) {
        for last in (1..things.len()).rev() {
            let other = usize::from(self.u16()) % (last + 1);
            things.swap(last, other);
        }
    }
}
