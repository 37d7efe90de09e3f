//! Bytes that follow from a seed and their place, known to the host and to the guest.

/// Fills `buf`, which lies `at` bytes from the beginning of a disk or stream. `at` is a multiple
/// of 8.
pub fn fill(buf: &mut [u8], seed: u64, at: u64) {
    for (word, position) in buf.chunks_mut(8).zip((at / 8)..) {
        let value = mix(seed ^ mix(position)).to_le_bytes();
        word.copy_from_slice(&value[..word.len()]);
    }
}

/// The output function of `SplitMix64`: spreads every input bit over the result
/// (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
#[must_use]
pub fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Repeatable random numbers.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// The sequence of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number from 0 to `bound - 1`; 0 when `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next_u64().checked_rem(bound).unwrap_or(0)
    }
}
