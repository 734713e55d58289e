//! The simulator's commands.
//!
//! Exit codes: 0 for nothing wrong, 1 for a violation, 2 for a command that could not be carried out.

mod report;
mod run;
mod shrink;
mod source;
mod text;
mod zoo;

use std::process::ExitCode;

use clap::Subcommand;

/// What the simulator can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs seeds and judges them.
    Run(run::Run),
    /// Runs one seed and prints what happened, line by line.
    Replay(run::Replay),
    /// Cuts a failing run down to the few events that matter.
    Shrink(shrink::Shrink),
    /// Writes one self-contained page that shows a run.
    Report(report::Report),
    /// Judges a recorded history.
    Check(run::Check),
    /// Runs one plan on madsim: what `run --driver whole` starts for each seed.
    #[command(hide = true)]
    One(run::One),
    /// Plants historic bugs, and counts how many are caught.
    Zoo(zoo::Zoo),
}

impl Command {
    /// Does it.
    pub fn execute(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Run(run) => run.execute(),
            Self::Replay(replay) => replay.execute(),
            Self::Shrink(shrink) => shrink.execute(),
            Self::Report(report) => report.execute(),
            Self::Check(check) => check.execute(),
            Self::One(one) => one.execute(),
            Self::Zoo(zoo) => zoo.execute(),
        }
    }
}
