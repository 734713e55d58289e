//! Which mutant is alive: the one whose number is in `MUTANT`. With `record` there none is, and the numbers of those
//! that are come by are appended to the file named in `MUTANTS_SEEN`.
#![allow(clippy::all, missing_docs)]

use std::{
    collections::BTreeSet,
    fs::{File, OpenOptions},
    io::Write,
    sync::{LazyLock, Mutex},
};

const RECORD: u32 = u32::MAX;

static ALIVE: LazyLock<u32> = LazyLock::new(|| match std::env::var("MUTANT") {
    Ok(text) if text == "record" => RECORD,
    Ok(text) => text.parse().expect("MUTANT is a number or `record`"),
    Err(_) => RECORD - 1,
});

static SEEN: LazyLock<Mutex<(BTreeSet<u32>, File)>> = LazyLock::new(|| {
    let path = std::env::var("MUTANTS_SEEN").expect("MUTANTS_SEEN says where");
    let file = OpenOptions::new().create(true).append(true).open(path).expect("it can be written");
    Mutex::new((BTreeSet::new(), file))
});

#[inline]
pub fn on(mutant: u32) -> bool {
    let alive = *ALIVE;
    if alive == RECORD {
        record(mutant);
    }
    alive == mutant
}

#[cold]
fn record(mutant: u32) {
    let mut seen = SEEN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if seen.0.insert(mutant) {
        writeln!(seen.1, "{mutant}").expect("it can be written");
    }
}
