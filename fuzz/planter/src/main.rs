//! Tries mutants without building the crate once for each: all are planted into its source at once, each behind a
//! switch that a test is run with, as in `(if !on(7) { a < b } else { a <= b })`. So a mutant costs as much as the
//! tests that come by it, and they run optimized.
//!
//! ```text
//! cargo mutants --list --json ─► plant ─► compile ─► judge ─► survivors
//!                                  ▲         │ what does not compile
//!                                  └─────────┘
//! ```
//!
//! Usage: `planter [--again] CRATE REPORT [ARGUMENTS OF cargo test]...`, with the list of mutants on standard input. It
//! changes the crate's source, so that must be a copy. A line of the report is a mutant's name and what became of it. With
//! `--again`, what is planted stays, and those that survived by the report are shown to the tests as they are now.
//!
//! Left out: mutants of constants and of constant functions, where nothing can be switched at run time, and of functions
//! that return an `impl Trait`. They are reported as `left`; cargo-mutants itself can try them.

mod compile;
mod judge;
mod plant;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    fs::{self, OpenOptions},
    io::Write as _,
    path::Path,
};

use anyhow::{Context as _, bail};
use plant::Mutant;

/// What becomes of a mutant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    /// A test failed: which.
    Caught(String),
    /// All tests that come by it pass: how many.
    Survives(usize),
    /// A test did not end.
    TimedOut(String),
    /// It does not compile.
    Unviable,
    /// It can't be planted.
    Left,
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Caught(test) => write!(f, "caught by {test}"),
            Self::Survives(0) => write!(f, "SURVIVES, no test comes by"),
            Self::Survives(tests) => write!(f, "SURVIVES, {tests} tests come by"),
            Self::TimedOut(test) => write!(f, "timed out in {test}"),
            Self::Unviable => write!(f, "unviable"),
            Self::Left => write!(f, "left"),
        }
    }
}

/// Writes the source with all mutants that have no fate yet; gives where each of them stands in which file.
fn write_planted(
    folder: &Path,
    sources: &BTreeMap<String, String>,
    mutants: &[Mutant],
    fates: &mut BTreeMap<usize, Fate>,
) -> anyhow::Result<compile::Places> {
    let mut places = compile::Places::default();
    for (file, source) in sources {
        let here = |(_, mutant): &(usize, &Mutant)| mutant.file == *file;
        let of_file: Vec<_> = mutants.iter().enumerate().filter(here).collect();
        let alive: BTreeSet<usize> =
            of_file.iter().map(|(n, _)| *n).filter(|n| !fates.contains_key(n)).collect();
        let planted = plant::plant(source, &of_file, &alive).with_context(|| file.clone())?;
        fates.extend(planted.refused.into_iter().map(|n| (n, Fate::Unviable)));
        fates.extend(planted.homeless.into_iter().map(|n| (n, Fate::Left)));
        fs::write(folder.join(file), planted.text)?;
        places.insert(file.clone(), planted.places);
    }
    Ok(places)
}

/// What is known of mutants that need no other look: those that are not planted, and those that did not survive by the
/// last report, if there is one.
fn known(folder: &Path, report: &str, mutants: &[Mutant]) -> anyhow::Result<BTreeMap<usize, Fate>> {
    let mut fates = BTreeMap::new();
    let mut texts: BTreeMap<&str, String> = BTreeMap::new();
    for (n, mutant) in mutants.iter().enumerate() {
        if !texts.contains_key(mutant.file.as_str()) {
            texts.insert(&mutant.file, fs::read_to_string(folder.join(&mutant.file))?);
        }
        if !texts[mutant.file.as_str()].contains(&plant::on(n)) {
            fates.insert(n, if mutant.is_hidden() { Fate::Left } else { Fate::Unviable });
        }
    }
    let numbers: BTreeMap<&str, usize> =
        mutants.iter().enumerate().map(|(n, m)| (m.name.as_str(), n)).collect();
    for line in report.lines() {
        let by = |how: &str| line.split_once(how).map(|(name, by)| (name, by.to_owned()));
        let caught = by(": caught by ").map(|(name, test)| (name, Fate::Caught(test)));
        let known = caught.or_else(|| by(": timed out in ").map(|(name, test)| (name, Fate::TimedOut(test))));
        if let Some((name, fate)) = known {
            fates.insert(
                *numbers.get(name).with_context(|| format!("the report knows another mutant, {name}"))?,
                fate,
            );
        }
    }
    Ok(fates)
}

/// Plants, and takes out what does not compile, until the rest does. Gives the test binaries.
fn build(
    folder: &Path,
    arguments: &[String],
    mutants: &[Mutant],
    fates: &mut BTreeMap<usize, Fate>,
) -> anyhow::Result<Vec<compile::Binary>> {
    let mut sources = BTreeMap::new();
    for mutant in mutants {
        if !sources.contains_key(&mutant.file) {
            sources.insert(mutant.file.clone(), fs::read_to_string(folder.join(&mutant.file))?);
        }
    }
    let root = folder.join("src/lib.rs");
    fs::write(folder.join("src/mutants.rs"), include_str!("switch.rs"))?;
    let with_switch = fs::read_to_string(&root)? + "pub mod mutants;\n";
    fs::write(root, with_switch)?;
    loop {
        let places = write_planted(folder, &sources, mutants, fates)?;
        match compile::compile(folder, arguments, &places)? {
            compile::Outcome::Built(binaries) => return Ok(binaries),
            compile::Outcome::Refused(refused) => {
                eprintln!("{} mutants do not compile", refused.len());
                for (n, constant) in refused {
                    fates.insert(n, if constant { Fate::Left } else { Fate::Unviable });
                }
            }
        }
    }
}

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1).peekable();
    let again = arguments.next_if(|argument| argument == "--again").is_some();
    let (Some(folder), Some(report)) = (arguments.next(), arguments.next()) else {
        bail!("usage: planter [--again] CRATE REPORT [ARGUMENTS OF cargo test]... <MUTANTS");
    };
    let arguments: Vec<String> = arguments.collect();
    let folder = Path::new(&folder);
    let mutants: Vec<Mutant> = serde_json::from_reader(std::io::stdin().lock())?;
    let (mut fates, binaries);
    if again {
        fates = known(folder, &fs::read_to_string(&report).unwrap_or_default(), &mutants)?;
        binaries = match compile::compile(folder, &arguments, &BTreeMap::new())? {
            compile::Outcome::Built(binaries) => binaries,
            compile::Outcome::Refused(_) => bail!("no mutant is planted"),
        };
    } else {
        let _ = fs::remove_file(&report);
        fates = BTreeMap::new();
        binaries = build(folder, &arguments, &mutants, &mut fates)?;
    }
    let mut out = OpenOptions::new().create(true).append(true).open(&report)?;
    judge::judge(folder, &binaries, &mutants, &mut fates, &mut |mutant, fate| {
        writeln!(out, "{}: {fate}", mutant.name)
    })?;

    let mut out = fs::File::create(report)?;
    let mut table: BTreeMap<&str, [usize; 5]> = BTreeMap::new();
    for (n, mutant) in mutants.iter().enumerate() {
        let fate = &fates[&n];
        writeln!(out, "{}: {fate}", mutant.name)?;
        let column = match fate {
            Fate::Caught(_) => 0,
            Fate::Survives(_) => 1,
            Fate::TimedOut(_) => 2,
            Fate::Unviable => 3,
            Fate::Left => 4,
        };
        table.entry(&mutant.file).or_default()[column] += 1;
        if matches!(fate, Fate::Survives(_) | Fate::Left) {
            println!("{}: {fate}", mutant.name);
        }
    }
    for (file, [caught, survive, timed_out, unviable, left]) in &table {
        let all = caught + survive + timed_out + unviable + left;
        println!(
            "{file}: {all} mutants, {caught} caught, {survive} survive, {timed_out} timed out, {unviable} unviable, \
             {left} left"
        );
    }
    if fates.values().any(|fate| matches!(fate, Fate::Survives(_))) {
        std::process::exit(1);
    }
    Ok(())
}
