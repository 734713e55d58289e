//! `report`.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;

use super::{
    run::alone,
    source::{self, Source},
};
use crate::report;

/// Writes one self-contained page that shows a run.
#[derive(Debug, Args)]
pub struct Report {
    #[command(flatten)]
    source: Source,
    /// Where the page goes.
    #[arg(long)]
    out: Option<PathBuf>,
    /// How many messages, batches and watch responses the page holds at most.
    #[arg(long, default_value_t = report::EVENTS_MAX)]
    events_max: usize,
}

impl Report {
    /// Does it.
    pub fn execute(self) -> anyhow::Result<ExitCode> {
        let plan = self.source.plan()?;
        let verdict = alone(self.source.driver(), &plan, true)?;
        let page = report::page(&plan, &verdict, &self.source.again(), self.events_max)?;
        let out = self.out.unwrap_or_else(|| format!("seed-{}.html", plan.seed).into());
        source::write(&out, &page)?;
        println!("{} ({} kB): open it in a browser", out.display(), page.len() / 1024);
        match verdict.violations.first() {
            Some(violation) => println!("it shows: {violation}"),
            None => println!("nothing is wrong in this run"),
        }
        Ok(ExitCode::SUCCESS)
    }
}
