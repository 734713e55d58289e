//! The house rules, as far as a program can see them: it reads the source as rustfmt leaves it.
//!
//! What a rule is for stands beside it. A new file at a seam is added to [`MADSIM_FILES`]; for all else, the code
//! changes and not the rule.
#![cfg(not(madsim))]
#![allow(clippy::disallowed_methods, reason = "reads the repository")]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// What is longer knows two things.
const FILE_LINES_MAX: usize = 600;

/// What is longer does not fit on a screen.
const FUNCTION_LINES_MAX: usize = 75;

/// These decide; the same input must give the same output, in production and in the simulator.
const PURE: [&str; 8] = ["raft", "membership", "node", "mvcc", "watch", "lease", "auth", "state"];

/// What pure modules don't name: I/O, clocks, threads, randomness, hash order.
const IMPURE: [&str; 15] = [
    "tokio",
    "tonic",
    "tracing",
    "axum",
    "hyper",
    "madsim",
    "rand",
    "rocksdb",
    "std::fs",
    "std::net",
    "std::time",
    "std::thread",
    "HashMap",
    "HashSet",
    "SystemTime",
];

/// Where production and the simulator part: everything else is the same code in both.
const MADSIM_FILES: [&str; 12] = [
    "sim/src/cli/run.rs",
    "sim/src/lib.rs",
    "sim/src/run.rs",
    "sim/src/zoo/scratch.rs",
    "src/cli/mod.rs",
    "src/lib.rs",
    "src/main.rs",
    "src/runtime/mod.rs",
    "src/server/api/mod.rs",
    "src/server/mod.rs",
    "src/storage/mod.rs",
    "src/wire/mod.rs",
];

/// A file of the repository: its path from the root, and its text.
struct Source {
    path: String,
    text: String,
}

impl Source {
    /// The lines with their numbers; neither comments nor what a line has behind `//`.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate();
        lines.map(|(n, line)| (n + 1, line.split("//").next().unwrap_or(line)))
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    for entry in entries {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn sources(folders: &[&str]) -> Vec<Source> {
    let mut paths = Vec::new();
    for folder in folders {
        collect(&root().join(folder), &mut paths);
    }
    paths.sort();
    let read = |path: PathBuf| Source {
        path: path.strip_prefix(root()).expect("it is below the root").display().to_string(),
        text: fs::read_to_string(&path).expect("source is text"),
    };
    paths.into_iter().map(read).collect()
}

/// Product and simulator, without tests.
fn product() -> Vec<Source> {
    sources(&["src", "sim/src"])
}

#[track_caller]
fn none(rule: &str, broken: Vec<String>) {
    assert!(broken.is_empty(), "{rule}:\n  {}", broken.join("\n  "));
}

/// Whether `line` has `word`, with no other letter, digit or underscore at its ends.
fn names(line: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word)
        .any(|(at, _)| !line[..at].ends_with(part) && !line[at + word.len()..].starts_with(part))
}

/// Whether a line begins a function.
fn begins_function(line: &str) -> bool {
    let mut words = line.split_whitespace().skip_while(|word| {
        word.starts_with("pub") || matches!(*word, "in" | "const" | "async" | "unsafe" | "default")
    });
    words.next() == Some("fn")
}

/// Functions with the lines on which they begin, their names and their lengths. rustfmt puts a function's last
/// brace under its first letter.
fn functions(text: &str) -> Vec<(usize, &str, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (begin, line) in lines.iter().enumerate() {
        if !begins_function(line) {
            continue;
        }
        let indent = &line[..line.len() - line.trim_start().len()];
        let closes = |line: &&str| line.strip_prefix(indent).is_some_and(|rest| rest == "}");
        let declared = |line: &&str| {
            line.strip_prefix(indent).is_some_and(|rest| !rest.starts_with(' ') && rest.ends_with(';'))
        };
        let one_line = line.ends_with(['}', ';']);
        let end = lines[begin..].iter().position(|line| closes(line) || declared(line));
        found.push((begin + 1, line.trim(), if one_line { 1 } else { end.map_or(1, |end| end + 1) }));
    }
    found
}

#[test]
fn functions_are_measured() {
    let text = "fn a() {\n    1;\n}\npub(crate) async fn b(\n    c: u8,\n) -> u8 {\n    c\n}\nfn d();\nfn e() {}\n\
                impl F {\n    const fn g() {\n    }\n}\ntrait H {\n    fn i(\n        j: u8,\n    );\n}\n";
    let lengths: Vec<_> = functions(text).iter().map(|(begin, _, lines)| (*begin, *lines)).collect();
    assert_eq!(lengths, [(1, 3), (4, 5), (9, 1), (10, 1), (12, 2), (16, 3)]);
    assert!(names("use rand::Rng;", "rand") && !names("operand()", "rand") && !names("rand_core", "rand"));
}

#[test]
fn files_and_functions_are_short() {
    let mut broken = Vec::new();
    for source in product() {
        let lines = source.text.lines().count();
        if lines > FILE_LINES_MAX {
            broken.push(format!("{}: {lines} lines", source.path));
        }
        for (begin, name, lines) in functions(&source.text) {
            if lines > FUNCTION_LINES_MAX {
                broken.push(format!("{}:{begin}: {lines} lines: {name}", source.path));
            }
        }
    }
    none("too long: split it by what it knows", broken);
}

#[test]
fn pure_modules_decide_and_do_no_io() {
    let mut broken = Vec::new();
    for module in PURE {
        let files = sources(&[&format!("src/{module}")]);
        assert!(!files.is_empty(), "src/{module} is empty");
        for source in files {
            // Their tests compare with prost's encoding.
            let stored = ["src/lease/codec.rs", "src/auth/codec.rs"].contains(&source.path.as_str());
            for (line, code) in source.code() {
                let impure =
                    IMPURE.iter().chain((!stored).then_some(&"prost")).find(|word| names(code, word));
                // A brace after `std::` may hold any of them.
                let grouped = code.contains("use std::{")
                    && ["fs", "net", "thread"].iter().any(|word| names(code, word));
                if let Some(word) = impure {
                    broken.push(format!("{}:{line}: {word}", source.path));
                } else if grouped || code.contains("Instant::now") {
                    broken.push(format!("{}:{line}: {}", source.path, code.trim()));
                }
                if code.contains("#![allow") || code.contains("allow(clippy::disallowed") {
                    broken.push(format!("{}:{line}: a lint is off", source.path));
                }
            }
        }
    }
    none("a pure module names what is not pure", broken);
}

#[test]
fn the_simulator_shows_only_at_the_seams() {
    let knows =
        |source: &Source| source.code().any(|(_, code)| code.contains("cfg") && names(code, "madsim"));
    let found: Vec<_> = product().into_iter().filter(knows).map(|source| source.path).collect();
    assert_eq!(found, MADSIM_FILES);
}

#[test]
fn nothing_is_left_for_later() {
    // In two halves, or this file would break its own rule.
    let marks = [("TO", "DO"), ("FIX", "ME"), ("XX", "X"), ("todo", "!("), ("unimplemented", "!(")];
    let marks = marks.map(|(a, b)| format!("{a}{b}"));
    let mut broken = Vec::new();
    for source in sources(&["src", "sim", "tests"]) {
        for (n, line) in source.text.lines().enumerate() {
            if marks.iter().any(|mark| line.contains(mark.as_str())) {
                broken.push(format!("{}:{}: {}", source.path, n + 1, line.trim()));
            }
        }
    }
    none("an issue is the place for what is left", broken);
}

#[test]
fn modules_say_what_they_are() {
    let mut broken = Vec::new();
    for source in sources(&["src", "sim", "tests"]) {
        if !source.text.starts_with("//!") {
            broken.push(source.path);
        }
    }
    none("a file begins with what it is, after `//!`", broken);
}

#[test]
fn selects_are_biased() {
    let mut broken = Vec::new();
    for source in product() {
        let lines: Vec<_> = source.code().collect();
        for pair in lines.windows(2) {
            let Some((_, behind)) = pair[0].1.split_once("select! {") else { continue };
            let first = if behind.trim().is_empty() { pair[1].1 } else { behind };
            if !first.trim_start().starts_with("biased;") {
                broken.push(format!("{}:{}", source.path, pair[0].0));
            }
        }
    }
    none("a select! without `biased;` draws lots that no seed knows", broken);
}
