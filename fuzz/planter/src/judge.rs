//! The tests' verdict. Each test is first run alone, to hear which mutants it comes by; then each mutant is shown to
//! the tests that come by it, quick ones first, until one fails.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};

use crate::{Fate, compile::Binary, plant::Mutant};

/// A test that takes longer is worth a line: each survivor that it comes by waits for it.
const SLOW: Duration = Duration::from_secs(1);

struct Test<'b> {
    binary: &'b Binary,
    name: String,
    takes: Duration,
}

enum Verdict {
    Passed,
    Failed,
    TimedOut,
}

impl Test<'_> {
    fn run(&self, folder: &Path, alive: &str, seen: &Path, limit: Duration) -> anyhow::Result<Verdict> {
        let mut child = Command::new(&self.binary.path)
            .args(["--exact", &self.name, "--test-threads=1"])
            .current_dir(folder)
            .env("MUTANT", alive)
            .env("MUTANTS_SEEN", seen)
            // A failing input is not looked for any further, and not kept.
            .env("PROPTEST_MAX_SHRINK_ITERS", "0")
            .env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "1")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let begin = Instant::now();
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(if status.success() { Verdict::Passed } else { Verdict::Failed });
            }
            if begin.elapsed() > limit {
                child.kill()?;
                child.wait()?;
                return Ok(Verdict::TimedOut);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn full_name(&self) -> String {
        format!("{} {}", self.binary.name, self.name)
    }
}

/// The tests in a binary.
fn list(binary: &Binary) -> anyhow::Result<Vec<String>> {
    let output = Command::new(&binary.path).args(["--list", "--format", "terse"]).output()?;
    ensure!(output.status.success(), "{} lists no tests", binary.path.display());
    let text = String::from_utf8(output.stdout)?;
    Ok(text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
}

/// Gives each mutant that has none its fate, and tells of it.
pub fn judge(
    folder: &Path,
    binaries: &[Binary],
    mutants: &[Mutant],
    fates: &mut BTreeMap<usize, Fate>,
    tell: &mut dyn FnMut(&Mutant, &Fate) -> std::io::Result<()>,
) -> anyhow::Result<()> {
    let seen = folder.join("seen");
    let mut tests = Vec::new();
    let mut seen_by: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for binary in binaries {
        for name in list(binary)? {
            let mut test = Test { binary, name, takes: Duration::ZERO };
            let begin = Instant::now();
            fs::write(&seen, "")?;
            let verdict = test.run(folder, "record", &seen, Duration::from_secs(600))?;
            if !matches!(verdict, Verdict::Passed) {
                bail!("{} fails without a mutant", test.full_name());
            }
            test.takes = begin.elapsed();
            if test.takes > SLOW {
                eprintln!("{}: {:.1} s", test.full_name(), test.takes.as_secs_f64());
            }
            for line in fs::read_to_string(&seen)?.lines() {
                seen_by.entry(line.parse().context("a mutant's number")?).or_default().push(tests.len());
            }
            tests.push(test);
        }
    }
    let all: Duration = tests.iter().map(|test| test.takes).sum();
    eprintln!("{} tests, {:.1} s", tests.len(), all.as_secs_f64());
    for n in 0..mutants.len() {
        if fates.contains_key(&n) {
            continue;
        }
        let mut judges = seen_by.remove(&n).unwrap_or_default();
        judges.sort_by_key(|test| tests[*test].takes);
        let mut fate = Fate::Survives(judges.len());
        for test in judges.into_iter().map(|at| &tests[at]) {
            let limit = Duration::from_secs(5) + test.takes * 20;
            match test.run(folder, &n.to_string(), &seen, limit)? {
                Verdict::Passed => continue,
                Verdict::Failed => fate = Fate::Caught(test.full_name()),
                Verdict::TimedOut => fate = Fate::TimedOut(test.full_name()),
            }
            break;
        }
        if matches!(fate, Fate::Survives(_) | Fate::TimedOut(_)) {
            eprintln!("{n} of {}: {}: {fate}", mutants.len(), mutants[n].name);
        }
        tell(&mutants[n], &fate)?;
        fates.insert(n, fate);
    }
    Ok(())
}
