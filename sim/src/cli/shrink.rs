//! `shrink`.
#![allow(clippy::disallowed_types, reason = "a person waits: a run itself never looks at this clock")]

use std::{
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::{
    run::once,
    source::{self, Source},
};
use crate::{plan::Plan, rule, shrink};

/// Cuts a failing run down to the few events that matter.
#[derive(Debug, Args)]
pub struct Shrink {
    #[command(flatten)]
    source: Source,
    /// Where the small plan goes.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Seconds to spend.
    #[arg(long, default_value_t = 300)]
    budget: u64,
}

impl Shrink {
    /// Does it.
    #[allow(clippy::disallowed_methods, reason = "a person waits")]
    pub fn execute(self) -> anyhow::Result<ExitCode> {
        let plan = self.source.plan()?;
        let first = once(self.source.driver(), &plan)?;
        let Some(violation) = first.violations.first() else {
            println!("nothing is wrong: there is nothing to shrink");
            return Ok(ExitCode::from(2));
        };
        let rule = rule::of(violation);
        println!("{} events break {rule}: {violation}", shrink::events(&plan));
        let (began, budget) = (Instant::now(), Duration::from_secs(self.budget));
        let bar =
            ProgressBar::new_spinner().with_style(ProgressStyle::with_template("{spinner} {elapsed} {msg}")?);
        let (mut runs, mut broken) = (0, None);
        let mut fails = |plan: &Plan| {
            if began.elapsed() >= budget {
                return None;
            }
            match once(self.source.driver(), plan) {
                Ok(verdict) => Some(rule::is_broken(&rule, &verdict.violations)),
                Err(error) => {
                    broken = Some(error);
                    None
                }
            }
        };
        let mut tell = |now: shrink::Progress<'_>| {
            runs = now.runs;
            bar.set_message(format!(
                "{} faults, {} steps; run {}: {}",
                now.faults, now.steps, now.runs, now.pass
            ));
            bar.tick();
        };
        let small = shrink::shrink(plan.clone(), &mut fails, &mut tell);
        bar.finish_and_clear();
        if let Some(error) = broken {
            return Err(error);
        }
        self.finish(&plan, &small, runs, began.elapsed())
    }

    fn finish(&self, plan: &Plan, small: &Plan, runs: u64, took: Duration) -> anyhow::Result<ExitCode> {
        let out = self.out.clone().unwrap_or_else(|| format!("seed-{}.small.json", plan.seed).into());
        source::write(&out, &serde_json::to_string_pretty(small)?)?;
        println!(
            "{} of {} events are left after {runs} runs in {:.0} s: {} faults, {} steps of {} clients, {} members",
            shrink::events(small),
            shrink::events(plan),
            took.as_secs_f64(),
            small.faults.len(),
            shrink::events(small) - small.faults.len(),
            small.clients.iter().filter(|steps| !steps.is_empty()).count(),
            small.knobs.members,
        );
        for violation in once(self.source.driver(), small)?.violations.iter().take(1) {
            println!("  {violation}");
        }
        let (program, plan) = (source::program(), self.source.with_plan(&out));
        println!("replay: {program} replay {plan}");
        println!("report: {program} report {plan}");
        Ok(ExitCode::SUCCESS)
    }
}
