//! The inputs that fuzzing kept (`fuzz/corpus/`), and those that once broke something, through their targets; then a
//! short slice of fuzzing proper: the corpora mutated from a seed.
//!
//! Input `N` of a target depends on the seed and `N` alone; time only says how many there are. `KONTIKI_FUZZ_SEED` is
//! another seed, `KONTIKI_FUZZ_MILLIS` the time for each target. Nothing measures coverage here, that is `fuzz/run`'s.
#![cfg(not(madsim))]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "reads the repository and a clock")]

#[path = "../fuzz/src/lib.rs"]
mod fuzz;

use std::{
    env, fs,
    panic::catch_unwind,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};

/// Longer inputs only take longer.
const INPUT_MAX: usize = 2_048;

/// The paths of a target's corpus with the bytes, in order.
fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let mut inputs: Vec<_> = fs::read_dir(corpus.join(target))
        .unwrap_or_else(|error| panic!("{target}: {error}"))
        .map(|entry| entry.expect("readable").path())
        .collect();
    inputs.sort();
    assert!(!inputs.is_empty(), "{target} has no corpus");
    let read = |path: PathBuf| {
        let data = fs::read(&path).expect("readable");
        (path, data)
    };
    inputs.into_iter().map(read).collect()
}

#[test]
fn the_corpus_breaks_nothing() {
    for target in fuzz::TARGETS {
        for (path, data) in corpus(target) {
            let run = catch_unwind(|| fuzz::run(target, &data));
            assert!(run.is_ok(), "{} breaks it", path.display());
        }
    }
}

fn number(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// An input made from others: the `n`th of a seed.
fn mutated(corpus: &[(PathBuf, Vec<u8>)], target: usize, seed: u64, n: u64) -> Vec<u8> {
    let mut rng = StdRng::seed_from_u64(seed.wrapping_mul(1 << 40) ^ ((target as u64) << 32) ^ n);
    let pick = |rng: &mut StdRng| corpus.choose(rng).map(|(_, data)| data.clone()).unwrap_or_default();
    let mut data = pick(&mut rng);
    for _ in 0..rng.random_range(1..6) {
        let at = rng.random_range(0..=data.len());
        let end = rng.random_range(at..=data.len().min(at + 32));
        match rng.random_range(0..8) {
            0 => data.truncate(at),
            1 => drop(data.drain(at..end)),
            2 => data[at..end].fill_with(|| rng.random()),
            3 => {
                let new: Vec<u8> = (0..rng.random_range(1..16)).map(|_| rng.random()).collect();
                data.splice(at..at, new);
            }
            4 => {
                let again = data[at..end].to_vec();
                data.splice(at..at, again);
            }
            5 => {
                // The head of one and the tail of another.
                let other = pick(&mut rng);
                data.truncate(at);
                data.extend_from_slice(&other[at.min(other.len())..]);
            }
            _ if at < data.len() => {
                let odd = [
                    0,
                    1,
                    0x7f,
                    0x80,
                    0xff,
                    data[at] ^ (1 << rng.random_range(0..8)),
                    data[at] - data[at] % 2,
                ];
                data[at] = *odd.choose(&mut rng).expect("there are some");
            }
            _ => data.push(rng.random()),
        }
    }
    data.truncate(INPUT_MAX);
    data
}

/// Fuzzes one target for a while; how many inputs it took.
fn slice(at: usize, seed: u64, span: Duration) -> u64 {
    let target = fuzz::TARGETS[at];
    let corpus = corpus(target);
    let until = Instant::now() + span;
    let mut n = 0;
    while Instant::now() < until {
        let data = mutated(&corpus, at, seed, n);
        if catch_unwind(|| fuzz::run(target, &data)).is_err() {
            let kept = env::temp_dir().join(format!("kontiki-{target}-{seed}-{n}"));
            fs::write(&kept, &data).expect("the input can be kept");
            panic!("{target} breaks on input {n} of seed {seed}, kept as {}", kept.display());
        }
        n += 1;
    }
    n
}

#[test]
fn mutations_of_the_corpus_break_nothing() {
    let (seed, span) =
        (number("KONTIKI_FUZZ_SEED", 1), Duration::from_millis(number("KONTIKI_FUZZ_MILLIS", 1_000)));
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(target) = fuzz::TARGETS.get(at) else { return };
                    let inputs = slice(at, seed, span);
                    assert!(inputs > 0, "{target} took no input");
                    println!("{target}: {inputs} inputs");
                }
            });
        }
    });
}

#[test]
fn a_seed_gives_the_same_inputs() {
    let corpus = corpus("mvcc");
    let inputs = |seed| (0..50).map(|n| mutated(&corpus, 6, seed, n)).collect::<Vec<_>>();
    assert_eq!(inputs(1), inputs(1));
    assert_ne!(inputs(1), inputs(2));
    let known = |data: &Vec<u8>| corpus.iter().any(|(_, known)| known == data);
    assert!(inputs(1).iter().filter(|data| !known(data)).count() > 40, "hardly anything is new");
}
