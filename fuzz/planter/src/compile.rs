//! The compiler's verdict: test binaries, or which mutants it refuses.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail};
use serde_json::Value;

/// The mutants of each file, with the bytes of the planted source that they take.
pub type Places = BTreeMap<String, Vec<(usize, Range<usize>)>>;

/// A test binary: its name and where it is.
pub struct Binary {
    pub name: String,
    pub path: PathBuf,
}

pub enum Outcome {
    Built(Vec<Binary>),
    /// Those that do not compile; true for one that stands where all must be constant.
    Refused(BTreeSet<(usize, bool)>),
}

/// The code of an error about what is not constant.
const NOT_CONSTANT: &str = "E0015";

/// Builds the tests that `cargo test ARGUMENTS` runs.
pub fn compile(folder: &Path, arguments: &[String], places: &Places) -> anyhow::Result<Outcome> {
    if places.is_empty() {
        return cargo(folder, &["test", "--no-run"], arguments, places);
    }
    // To check is cheaper than to build, and finds all.
    match cargo(folder, &["check", "--lib"], &[], places)? {
        Outcome::Built(_) => cargo(folder, &["test", "--no-run"], arguments, places),
        refused @ Outcome::Refused(_) => Ok(refused),
    }
}

fn cargo(folder: &Path, command: &[&str], more: &[String], places: &Places) -> anyhow::Result<Outcome> {
    let output = Command::new("cargo")
        .args(command)
        .arg("--message-format=json")
        .args(more)
        .current_dir(folder)
        .stderr(Stdio::null())
        .output()
        .context("cargo can't be run")?;
    let (mut binaries, mut refused, mut strange) = (Vec::new(), BTreeSet::new(), Vec::new());
    for line in output.stdout.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"{")) {
        let line: Value = serde_json::from_slice(line)?;
        if let (Some(path), Some(true)) = (line["executable"].as_str(), line["profile"]["test"].as_bool()) {
            let name = line["target"]["name"].as_str().unwrap_or_default().to_owned();
            binaries.push(Binary { name, path: path.into() });
        }
        let message = &line["message"];
        if line["reason"] != "compiler-message" || message["level"] != "error" {
            continue;
        }
        let constant = message["code"]["code"] == NOT_CONSTANT;
        match culprit(message, places) {
            Some(n) => drop(refused.insert((n, constant))),
            None => strange.push(message["rendered"].as_str().unwrap_or_default().to_owned()),
        }
    }
    if !refused.is_empty() {
        return Ok(Outcome::Refused(refused));
    }
    if !output.status.success() {
        bail!("the crate does not compile:\n{}", strange.join("\n"));
    }
    Ok(Outcome::Built(binaries))
}

/// The mutant that an error is about: the smallest that holds one of the places it names, the first ones before others.
fn culprit(message: &Value, places: &Places) -> Option<usize> {
    let mut spans = Vec::new();
    let notes = message["children"].as_array().into_iter().flatten();
    for message in std::iter::once(message).chain(notes) {
        let own = message["spans"].as_array().into_iter().flatten();
        let (primary, others): (Vec<_>, Vec<_>) = own.partition(|span| span["is_primary"] == true);
        spans.extend(primary);
        spans.extend(others);
    }
    spans.into_iter().find_map(|span| {
        let of_file = places.get(span["file_name"].as_str()?)?;
        let begin = usize::try_from(span["byte_start"].as_u64()?).ok()?;
        let end = usize::try_from(span["byte_end"].as_u64()?).ok()?;
        let holds = |place: &&(usize, Range<usize>)| place.1.start <= begin && end <= place.1.end;
        of_file.iter().filter(holds).min_by_key(|place| place.1.len()).map(|place| place.0)
    })
}
