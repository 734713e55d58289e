//! The inputs that fuzzing kept (`fuzz/corpus/`), and those that once broke something, through their targets.
//!
//! `fuzz/run` fuzzes on; this only makes sure that nothing comes back.
#![cfg(not(madsim))]
#![allow(clippy::disallowed_methods, reason = "reads the repository")]

#[path = "../fuzz/src/lib.rs"]
mod fuzz;

use std::{fs, path::Path};

#[test]
fn the_corpus_breaks_nothing() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for target in fuzz::TARGETS {
        let mut inputs: Vec<_> = fs::read_dir(corpus.join(target))
            .unwrap_or_else(|error| panic!("{target}: {error}"))
            .map(|entry| entry.expect("readable").path())
            .collect();
        inputs.sort();
        assert!(!inputs.is_empty(), "{target} has no corpus");
        for input in inputs {
            let data = fs::read(&input).expect("readable");
            let run = std::panic::catch_unwind(|| fuzz::run(target, &data));
            assert!(run.is_ok(), "{} breaks it", input.display());
        }
    }
}
