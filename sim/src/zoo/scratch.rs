//! A copy of the checkout to plant bugs in, and what is built from it.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "files and programs of the checkout")]

use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, bail, ensure};
use serde::Deserialize;

use super::Patch;

/// How much of a failed build's words is kept.
const WORDS_MAX: usize = 1_500;

/// The copy.
#[derive(Debug)]
pub struct Scratch {
    checkout: PathBuf,
    /// Holds `tree` and `target`.
    root: PathBuf,
}

/// What a built simulator found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Catch {
    /// Seeds that were run.
    pub runs: u64,
    /// Processor seconds that they and the oracles took.
    pub cpu_seconds: f64,
    /// The seed that failed, if one did, and the rules that it broke.
    pub failed: Option<(u64, Vec<String>)>,
}

/// The part of `run --json` that is read.
#[derive(Deserialize)]
struct Result_ {
    runs: u64,
    cpu_seconds: Cpu,
    failed: Vec<Failed>,
}

#[derive(Deserialize)]
struct Cpu {
    runs: f64,
    oracles: f64,
}

#[derive(Deserialize)]
struct Failed {
    seed: u64,
    rules: Vec<String>,
}

impl Scratch {
    /// A copy below `root` of the checkout that the current folder is in.
    ///
    /// # Errors
    /// If there is no checkout here, or the copy can't be made.
    pub fn new(root: PathBuf) -> anyhow::Result<Self> {
        let top = Command::new("git").args(["rev-parse", "--show-toplevel"]).output().context("run git")?;
        ensure!(top.status.success(), "not in a checkout: {}", String::from_utf8_lossy(&top.stderr).trim());
        let checkout = PathBuf::from(String::from_utf8(top.stdout)?.trim());
        ensure!(!root.starts_with(&checkout), "{} is inside of the checkout", root.display());
        let scratch = Self { checkout, root };
        fs::create_dir_all(scratch.tree())?;
        scratch.restore()?;
        Ok(scratch)
    }

    fn tree(&self) -> PathBuf {
        self.root.join("tree")
    }

    /// The patches of the checkout, by name, with what can't be read of them.
    ///
    /// # Errors
    /// If the zoo can't be listed.
    pub fn patches(&self) -> anyhow::Result<Vec<(String, Result<Patch, String>)>> {
        let zoo = self.checkout.join("sim/zoo");
        let mut found = Vec::new();
        for entry in fs::read_dir(&zoo).with_context(|| format!("list {}", zoo.display()))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "patch") {
                let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                found.push((name, Patch::parse(&fs::read_to_string(&path)?)));
            }
        }
        found.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(found)
    }

    /// Where the score is written.
    pub fn score_file(&self) -> PathBuf {
        self.checkout.join("sim/zoo/SCORE.md")
    }

    /// Makes the copy what the checkout is. A file that is the same is not touched, so that cargo builds little.
    ///
    /// # Errors
    /// If a file can't be read or written.
    pub fn restore(&self) -> anyhow::Result<()> {
        let listed = Command::new("git").args(["ls-files", "-z"]).current_dir(&self.checkout).output()?;
        ensure!(listed.status.success(), "git ls-files failed");
        let names: BTreeSet<PathBuf> = String::from_utf8(listed.stdout)?
            .split('\0')
            .filter(|name| !name.is_empty())
            .map(PathBuf::from)
            .collect();
        for name in &names {
            let (from, to) = (self.checkout.join(name), self.tree().join(name));
            let Ok(wanted) = fs::read(&from) else { continue };
            if fs::read(&to).is_ok_and(|there| there == wanted) {
                continue;
            }
            fs::create_dir_all(to.parent().unwrap_or(&to))?;
            fs::write(&to, wanted).with_context(|| format!("write {}", to.display()))?;
        }
        self.remove_others(&self.tree(), &names)
    }

    /// What is not in the checkout goes: a patch may have made it.
    fn remove_others(&self, folder: &Path, names: &BTreeSet<PathBuf>) -> anyhow::Result<()> {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                self.remove_others(&path, names)?;
            } else if !names.contains(path.strip_prefix(self.tree())?) {
                fs::remove_file(&path)?;
            }
        }
        Ok(())
    }

    /// Plants a bug.
    ///
    /// # Errors
    /// If the patch does not apply.
    pub fn plant(&self, patch: &Patch) -> anyhow::Result<()> {
        let mut git = Command::new("git")
            .args(["apply", "-"])
            .current_dir(self.tree())
            // The copy is no checkout; one around it is none of its business.
            .env("GIT_CEILING_DIRECTORIES", &self.root)
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("run git")?;
        git.stdin.take().context("git's input")?.write_all(patch.text.as_bytes())?;
        let done = git.wait_with_output()?;
        ensure!(
            done.status.success(),
            "the patch does not apply: {}",
            String::from_utf8_lossy(&done.stderr).trim()
        );
        Ok(())
    }

    /// Builds the simulator from the copy as it is, and gives the program.
    ///
    /// # Errors
    /// If it does not compile.
    pub fn build(&self) -> anyhow::Result<PathBuf> {
        let target = self.root.join("target");
        let built = Command::new("cargo")
            .args(["build", "--quiet", "--locked", "--profile", "sim", "-p", "sim"])
            .current_dir(self.tree())
            .env("CARGO_TARGET_DIR", &target)
            .env("RUSTFLAGS", "--cfg madsim")
            // A patch changes few lines: in small units, most of what was compiled before it serves again. What is
            // built so runs nearly as fast, and is built in a fifth of the time.
            .env("CARGO_INCREMENTAL", "1")
            .env("CARGO_PROFILE_SIM_CODEGEN_UNITS", "256")
            .env("CARGO_PROFILE_SIM_DEBUG", "0")
            .output()
            .context("run cargo")?;
        if !built.status.success() {
            let words = String::from_utf8_lossy(&built.stderr);
            let from = words.find("error").unwrap_or(0);
            let said: String = words[from..].chars().take(WORDS_MAX).collect();
            bail!("it does not compile: {said}");
        }
        Ok(target.join("sim/sim"))
    }

    /// Builds the simulator from the checkout as it is, and gives the program, which stays as it is.
    ///
    /// # Errors
    /// If it does not compile.
    pub fn build_control(&self) -> anyhow::Result<PathBuf> {
        let control = self.root.join("control");
        fs::copy(self.build()?, &control).context("keep the program without a patch")?;
        Ok(control)
    }

    /// Whether one seed fails.
    ///
    /// # Errors
    /// If the simulator can't be run, or gives no result.
    pub fn fails(&self, program: &Path, seed: u64) -> anyhow::Result<bool> {
        Ok(self.ask(program, &["--seed", &seed.to_string()])?.failed.is_some())
    }

    /// Runs seeds from `from` on until one fails or the budget is spent.
    ///
    /// # Errors
    /// If the simulator can't be run, or gives no result.
    pub fn run(&self, program: &Path, from: u64, cpu_seconds: u64, jobs: usize) -> anyhow::Result<Catch> {
        let seeds = format!("{from}..");
        let (budget, jobs) = (cpu_seconds.to_string(), jobs.to_string());
        self.ask(program, &["--seeds", &seeds, "--cpu-seconds", &budget, "--jobs", &jobs])
    }

    fn ask(&self, program: &Path, which: &[&str]) -> anyhow::Result<Catch> {
        let run = Command::new(program)
            .args(["run", "--json"])
            .args(which)
            .current_dir(&self.root)
            .output()
            .context("run the simulator")?;
        let said = String::from_utf8_lossy(&run.stdout);
        let result: Result_ = serde_json::from_str(&said).with_context(|| {
            let words = String::from_utf8_lossy(&run.stderr);
            format!(
                "it ended with {} and said: {}",
                run.status,
                words.chars().take(WORDS_MAX).collect::<String>()
            )
        })?;
        Ok(Catch {
            runs: result.runs,
            cpu_seconds: result.cpu_seconds.runs + result.cpu_seconds.oracles,
            failed: result
                .failed
                .into_iter()
                .min_by_key(|failed| failed.seed)
                .map(|failed| (failed.seed, failed.rules)),
        })
    }
}
