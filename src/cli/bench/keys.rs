//! Keys and values, laid out before the clock starts: an operation takes a slice and copies nothing.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::options::Common;

/// All keys in one buffer, in byte order.
#[derive(Debug)]
pub struct Keys {
    buffer: Bytes,
    size: usize,
    count: u64,
    /// The next key if they are taken in order.
    next: Option<AtomicU64>,
}

impl Keys {
    /// Lays the keys out: their number in decimal, zeros before it.
    pub fn new(common: &Common) -> Self {
        let (size, count) = (common.key_size, common.key_space_size);
        let mut buffer = Vec::with_capacity(size * count as usize);
        for number in 0..count {
            buffer.extend(format!("{number:0size$}").into_bytes());
        }
        Self { buffer: buffer.into(), size, count, next: common.sequential_keys.then(AtomicU64::default) }
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Key number `at`.
    pub fn get(&self, at: u64) -> Bytes {
        let start = (at % self.count) as usize * self.size;
        self.buffer.slice(start..start + self.size)
    }

    /// What comes right after key number `at`: the end of a range that has it as its last.
    pub fn after(&self, at: u64) -> Bytes {
        let mut end = self.get(at).to_vec();
        end.push(0);
        end.into()
    }

    /// The number of the next key, such that `group` keys follow from there.
    pub fn choose(&self, group: u64, random: &mut Random) -> u64 {
        let places = self.count - group + 1;
        match &self.next {
            Some(next) => next.fetch_add(group, Ordering::Relaxed) % places,
            None => random.below(places),
        }
    }
}

/// A small fast generator (xorshift64*), one for each client.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// A generator of its own for each seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `bound`, which is not zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let value = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d);
        ((u128::from(value) * u128::from(bound)) >> 64) as u64
    }
}

/// A value of `size` bytes that does not compress to nothing.
pub fn value(size: usize) -> Bytes {
    let mut random = Random::new(size as u64 + 1);
    (0..size).map(|_| random.below(256) as u8).collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::{super::options::Options, *};

    fn keys(flags: &str) -> Keys {
        let line = format!("put --key-size 4 --key-space-size 100 {flags}");
        Keys::new(&Options::try_parse_from(line.split_whitespace()).expect("options").common)
    }

    #[test]
    fn keys_are_numbers_in_order() {
        let keys = keys("");
        assert_eq!((keys.get(7), keys.get(107)), ("0007".into(), "0007".into()));
        assert_eq!(keys.after(9), &b"0009\0"[..]);
        let mut random = Random::new(1);
        assert!((0..1000).all(|_| keys.choose(30, &mut random) <= 70));
    }

    #[test]
    fn sequential_keys_follow_each_other() {
        let keys = keys("--sequential-keys");
        let mut random = Random::new(1);
        let chosen: Vec<u64> = (0..3).map(|_| keys.choose(1, &mut random)).collect();
        assert_eq!(chosen, [0, 1, 2]);
    }

    #[test]
    fn random_numbers_spread() {
        let mut random = Random::new(3);
        let mut counts = [0u32; 10];
        (0..10_000).for_each(|_| counts[random.below(10) as usize] += 1);
        assert!(counts.iter().all(|count| (800..1200).contains(count)), "{counts:?}");
    }
}
