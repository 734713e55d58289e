//! `run` and `replay`.
#![allow(clippy::disallowed_types, reason = "a person waits: a run itself never looks at this clock")]

use std::{
    collections::BTreeMap,
    process::{Command, ExitCode, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
        mpsc,
    },
    time::{Duration, Instant},
};

use anyhow::Context;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::{
    source::{Driver, Source, SwarmArguments},
    text,
};
use crate::{
    coverage::{self, Coverage},
    lock::{lock, unlock},
    plan::Plan,
    rng::mix,
    rule,
    run::Verdict,
};

/// How many kinds of faults the progress line has.
const FAULTS_SHOWN_MAX: usize = 4;

/// Runs seeds and judges them.
#[derive(Debug, Args)]
pub struct Run {
    /// One seed.
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Seeds from A on and before B, as A..B; without an end, as A.., until it is stopped.
    #[arg(long, value_parser = seeds, default_value = "0..100")]
    seeds: (u64, u64),
    /// How many at once.
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// Go on after a violation.
    #[arg(long)]
    keep_going: bool,
    /// Run each seed twice and compare all that happened.
    #[arg(long)]
    twice: bool,
    /// Print the result as JSON, and nothing else.
    #[arg(long)]
    json: bool,
    /// Say which combinations were reached, and which never were.
    #[arg(long)]
    coverage: bool,
    /// End when the runs have taken so many seconds of processors.
    #[arg(long)]
    cpu_seconds: Option<u64>,
    #[command(flatten)]
    swarm: SwarmArguments,
}

/// Runs one seed and prints what happened.
#[derive(Debug, Args)]
pub struct Replay {
    #[command(flatten)]
    source: Source,
    /// Only what has to do with this member.
    #[arg(long)]
    member: Option<u32>,
    /// Without messages between members.
    #[arg(long)]
    quiet: bool,
}

fn seeds(text: &str) -> Result<(u64, u64), String> {
    let wrong = || format!("{text:?} is no range of seeds: write A..B");
    let (from, to) = text.split_once("..").ok_or_else(wrong)?;
    let from = from.parse().map_err(|_| wrong())?;
    let to = if to.is_empty() { u64::MAX } else { to.parse().map_err(|_| wrong())? };
    if from < to { Ok((from, to)) } else { Err(format!("{text:?} is empty")) }
}

/// Runs a plan on a thread of its own, so that nothing of an earlier run is left in it.
///
/// # Errors
/// If the thread can't be started.
#[allow(clippy::disallowed_methods)]
pub fn alone(driver: Driver, plan: &Plan, keep_trace: bool) -> anyhow::Result<Verdict> {
    #[cfg(not(madsim))]
    anyhow::ensure!(
        driver == Driver::Storm,
        "this simulator was built without madsim: set RUSTFLAGS=\"--cfg madsim\" for --driver whole"
    );
    let plan = plan.clone();
    let run = std::thread::Builder::new()
        .name(format!("seed {}", plan.seed))
        .stack_size(16 << 20)
        .spawn(move || match driver {
            Driver::Storm => crate::run::storm(&plan, keep_trace),
            #[cfg(madsim)]
            Driver::Whole => crate::run::whole(&plan, keep_trace),
            #[cfg(not(madsim))]
            Driver::Whole => Verdict::default(),
        })
        .context("start a thread")?;
    run.join().map_err(|_| anyhow::anyhow!("the run's thread panicked outside the run"))
}

/// Runs a plan, such that it gives the same again wherever it is run.
///
/// # Errors
/// If the run's thread or process can't be started.
pub fn once(driver: Driver, plan: &Plan) -> anyhow::Result<Verdict> {
    match driver {
        Driver::Storm => alone(driver, plan, false),
        Driver::Whole => elsewhere(plan),
    }
}

/// Runs a plan on madsim in a process of its own, as `replay` does: tokio draws the order in which it wakes those who
/// watch a value from a generator that counts the threads of the process.
fn elsewhere(plan: &Plan) -> anyhow::Result<Verdict> {
    let own = std::env::current_exe().context("find the own program")?;
    let mut child = Command::new(own)
        .args(["one"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("start a process for the run")?;
    let input = child.stdin.take().context("the process takes no plan")?;
    serde_json::to_writer(input, plan)?;
    let output = child.wait_with_output()?;
    serde_json::from_slice(&output.stdout)
        .with_context(|| format!("seed {}: the run's process gave no verdict", plan.seed))
}

/// Runs the plan that comes in, on madsim, and prints the verdict; both as JSON.
#[derive(Debug, Args)]
pub struct One {}

impl One {
    /// Does it.
    pub fn execute(&self) -> anyhow::Result<ExitCode> {
        let plan = serde_json::from_reader(std::io::stdin()).context("what comes in is no plan")?;
        println!("{}", serde_json::to_string(&alone(Driver::Whole, &plan, false)?)?);
        Ok(ExitCode::SUCCESS)
    }
}

/// Judges a recorded history: one of a real cluster, say.
#[derive(Debug, Args)]
pub struct Check {
    /// The file, in the format of `sim::history::jsonl`.
    file: std::path::PathBuf,
}

impl Check {
    /// Does it.
    pub fn execute(&self) -> anyhow::Result<ExitCode> {
        let report = crate::check::check_file(&self.file)?;
        for violation in &report.violations {
            println!("VIOLATION {violation}");
        }
        for open in &report.undecided {
            println!("undecided: {open}");
        }
        println!("{} calls, responses and facts: {} violations", report.looked_at, report.violations.len());
        Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::from(1) })
    }
}

/// Totals over many runs.
#[derive(Debug, Default)]
struct Totals {
    runs: u64,
    simulated: Duration,
    ran: Duration,
    judged: Duration,
    counts: BTreeMap<String, u64>,
    outcomes: BTreeMap<String, u64>,
    undecided: u64,
    coverage: Coverage,
    /// Of all that happened in all of them, in whatever order they ended.
    hash: u64,
    failed: Vec<(u64, Verdict)>,
}

impl Totals {
    fn add(&mut self, seed: u64, verdict: Verdict) {
        self.runs += 1;
        self.simulated += verdict.simulated;
        self.ran += verdict.took.0;
        self.judged += verdict.took.1;
        self.undecided += verdict.undecided.len() as u64;
        self.coverage.merge(&verdict.coverage);
        self.hash = self.hash.wrapping_add(mix(seed ^ verdict.hash));
        for (what, count) in &verdict.counts {
            *self.counts.entry(what.clone()).or_default() += count;
        }
        for (what, count) in &verdict.outcomes {
            *self.outcomes.entry(what.clone()).or_default() += count;
        }
        if !verdict.is_clean() {
            self.failed.push((seed, verdict));
        }
    }

    fn cpu(&self) -> Duration {
        self.ran + self.judged
    }

    /// Simulated seconds for each second of a processor.
    fn speed(&self) -> f64 {
        self.simulated.as_secs_f64() / self.ran.as_secs_f64().max(1e-9)
    }

    /// For who waits: how fast it goes, and which faults there were.
    fn line(&self) -> String {
        let mut faults: Vec<(&String, &u64)> =
            self.counts.iter().filter(|(name, _)| coverage::is_fault(name)).collect();
        faults.sort_by(|a, b| b.1.cmp(a.1));
        let faults: Vec<String> =
            faults.iter().take(FAULTS_SHOWN_MAX).map(|(name, count)| format!("{count} {name}")).collect();
        let failed = self.failed.len();
        format!("{:.0} × real time, {failed} failed; {}", self.speed(), faults.join(", "))
    }
}

/// Shows how far it is; without an end, how far it has come.
fn bar(from: u64, to: u64) -> anyhow::Result<ProgressBar> {
    let template = "{pos} seeds, {per_sec}, {elapsed}: {msg}";
    if to == u64::MAX {
        let style =
            ProgressStyle::with_template(&format!("{{spinner}} {template}")).context("the template")?;
        return Ok(ProgressBar::new_spinner().with_style(style));
    }
    let template = format!("{{bar:20}} {}", template.replacen("{pos}", "{pos}/{len}", 1));
    Ok(ProgressBar::new(to - from)
        .with_style(ProgressStyle::with_template(&template).context("the template")?))
}

impl Run {
    /// Does it.
    #[allow(clippy::disallowed_methods)]
    pub fn execute(self) -> anyhow::Result<ExitCode> {
        let (from, to) = self.seed.map_or(self.seeds, |seed| (seed, seed + 1));
        let bar = bar(from, to)?;
        let stop = Arc::new(AtomicBool::new(false));
        // A second Ctrl-C ends it at once, the first when the runs under way are over.
        signal_hook::flag::register_conditional_default(signal_hook::consts::SIGINT, stop.clone())?;
        signal_hook::flag::register(signal_hook::consts::SIGINT, stop.clone())?;
        let began = Instant::now();
        let next = AtomicU64::new(from);
        let totals = Mutex::new(Totals::default());
        let (errors, failures) = mpsc::channel();
        std::thread::scope(|scope| {
            for _ in 0..self.jobs.max(1) {
                let (errors, next, stop, totals, bar, run) =
                    (errors.clone(), &next, &stop, &totals, &bar, &self);
                scope.spawn(move || {
                    loop {
                        let seed = next.fetch_add(1, Relaxed);
                        if seed >= to || stop.load(Relaxed) {
                            return;
                        }
                        match run.one(seed) {
                            Ok(verdict) => {
                                bar.inc(1);
                                if !verdict.is_clean() {
                                    if !run.json {
                                        bar.suspend(|| text::failure(seed, &run.swarm.again(), &verdict));
                                    }
                                    stop.fetch_or(!run.keep_going, Relaxed);
                                }
                                let mut totals = lock(totals);
                                totals.add(seed, verdict);
                                bar.set_message(totals.line());
                                let spent =
                                    run.cpu_seconds.is_some_and(|most| totals.cpu().as_secs() >= most);
                                stop.fetch_or(spent, Relaxed);
                            }
                            Err(error) => {
                                stop.store(true, Relaxed);
                                let _ = errors.send(error);
                            }
                        }
                    }
                });
            }
        });
        drop(errors);
        bar.finish_and_clear();
        if let Ok(error) = failures.try_recv() {
            return Err(error);
        }
        let totals = unlock(totals);
        self.print(&totals, began.elapsed())?;
        Ok(if totals.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
    }

    fn one(&self, seed: u64) -> anyhow::Result<Verdict> {
        let plan = self.swarm.swarm().plan(seed);
        let run = || once(self.swarm.driver(), &plan);
        let mut verdict = run()?;
        if self.twice {
            verdict.violations.extend(differ(verdict.hash, run()?.hash));
        }
        Ok(verdict)
    }

    fn print(&self, totals: &Totals, took: Duration) -> anyhow::Result<()> {
        let per_second = totals.speed();
        if self.json {
            let failed: Vec<_> = totals
                .failed
                .iter()
                .map(|(seed, verdict)| {
                    let rules: Vec<String> = verdict.violations.iter().map(|text| rule::of(text)).collect();
                    serde_json::json!({"seed": seed, "rules": rules, "violations": verdict.violations})
                })
                .collect();
            let missing: Vec<String> = totals
                .coverage
                .missing()
                .iter()
                .map(|(table, row, column)| format!("{table}: {row}: {column}"))
                .collect();
            let result = serde_json::json!({
                "runs": totals.runs,
                "seconds": took.as_secs_f64(),
                "cpu_seconds": {"runs": totals.ran.as_secs_f64(), "oracles": totals.judged.as_secs_f64()},
                "simulated_seconds": totals.simulated.as_secs_f64(),
                "simulated_per_real": per_second,
                "undecided": totals.undecided,
                "hash": format!("{:016x}", totals.hash),
                "happened": totals.counts,
                "outcomes": totals.outcomes,
                "never_reached": if self.coverage { missing } else { Vec::new() },
                "failed": failed,
            });
            println!("{}", serde_json::to_string_pretty(&result)?);
            return Ok(());
        }
        println!(
            "{} runs, {} failed, in {:.1} s ({:.1} runs/s): {:.0} s simulated, {per_second:.0} for each second \
             of a processor; oracles took {:.1} s",
            totals.runs,
            totals.failed.len(),
            took.as_secs_f64(),
            totals.runs as f64 / took.as_secs_f64(),
            totals.simulated.as_secs_f64(),
            totals.judged.as_secs_f64(),
        );
        if totals.undecided > 0 {
            println!("undecided by the oracles: {}", totals.undecided);
        }
        if totals.runs > 1 {
            text::table("what happened", totals.counts.iter().map(|(what, n)| (what.clone(), *n)));
            text::table("calls", totals.outcomes.iter().map(|(what, n)| (what.clone(), *n)));
        }
        if self.coverage {
            totals.coverage.print();
        }
        Ok(())
    }
}

/// Two runs of a seed that are not the same, by their hashes.
fn differ(one: u64, other: u64) -> Option<String> {
    (one != other).then(|| format!("determinism: two runs differ: {one:016x} and {other:016x}"))
}

impl Replay {
    /// Does it.
    pub fn execute(self) -> anyhow::Result<ExitCode> {
        let plan = self.source.plan()?;
        let verdict = alone(self.source.driver(), &plan, true)?;
        println!("knobs {}", serde_json::to_string(&plan.knobs)?);
        for traced in &verdict.trace {
            if text::concerns(traced, self.member, self.quiet) {
                println!("{}", text::line(traced));
            }
        }
        println!("hash {:016x}", verdict.hash);
        for violation in &verdict.violations {
            println!("VIOLATION {violation}");
        }
        if !verdict.is_clean() {
            text::what_next(&self.source.again());
        }
        Ok(if verdict.is_clean() { ExitCode::SUCCESS } else { ExitCode::from(1) })
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn two_runs_are_the_same_by_their_hashes() {
        assert_eq!(super::differ(7, 7), None);
        let wrong = super::differ(7, 8).expect("they differ");
        assert_eq!(wrong, "determinism: two runs differ: 0000000000000007 and 0000000000000008");
    }
}
