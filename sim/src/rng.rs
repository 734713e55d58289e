//! Randomness from one 64-bit seed.

use std::sync::{Arc, Mutex};

use rand::{Rng as _, RngCore, SeedableRng, rngs::SmallRng};

use crate::lock::lock;

/// A stream of random choices. Clones share it.
#[derive(Clone, Debug)]
pub struct Rng(Arc<Mutex<SmallRng>>);

impl Rng {
    /// The stream called `purpose` of a seed: streams of one seed have nothing to do with each other, so that more
    /// draws in one do not change what another gives.
    pub fn of(seed: u64, purpose: &str) -> Self {
        let mut state = seed;
        for &byte in purpose.as_bytes() {
            state = mix(state ^ u64::from(byte));
        }
        Self(Arc::new(Mutex::new(SmallRng::seed_from_u64(state))))
    }

    fn with<T>(&self, draw: impl FnOnce(&mut SmallRng) -> T) -> T {
        draw(&mut lock(&self.0))
    }

    /// 64 random bits.
    pub fn bits(&self) -> u64 {
        self.with(RngCore::next_u64)
    }

    /// A number below `n`; 0 if `n` is 0.
    pub fn below(&self, n: u64) -> u64 {
        if n < 2 { 0 } else { self.with(|rng| rng.random_range(0..n)) }
    }

    /// A number between two, both included.
    pub fn between(&self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// A number between two, both included, small ones more often: each order of magnitude is as likely.
    pub fn log_between(&self, low: u64, high: u64) -> u64 {
        let (low, high) = (low.max(1), high.max(1));
        let bits = self.between(u64::from(low.ilog2()), u64::from(high.ilog2()));
        self.between(1 << bits, (2 << bits) - 1).clamp(low, high)
    }

    /// Whether something that happens `per_million` times in a million happens now.
    pub fn chance(&self, per_million: u32) -> bool {
        per_million > 0 && self.below(1_000_000) < u64::from(per_million)
    }

    /// One of some.
    ///
    /// # Panics
    /// If there is none.
    #[track_caller]
    pub fn pick<'a, T>(&self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len() as u64) as usize]
    }
}

/// One round of splitmix64.
pub(crate) fn mix(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
