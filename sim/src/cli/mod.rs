//! The simulator's commands.
//!
//! Exit codes: 0 for nothing wrong, 1 for a violation, 2 for a command that could not be carried out.

mod run;
mod text;

use std::process::ExitCode;

use clap::Subcommand;

use crate::swarm::Swarm;

/// What the simulator can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs seeds and judges them.
    Run(run::Run),
    /// Runs one seed and prints what happened, line by line.
    Replay(run::Replay),
}

impl Command {
    /// Does it.
    pub fn execute(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Run(run) => run.execute(),
            Self::Replay(replay) => replay.execute(),
        }
    }
}

/// What kind of runs.
#[derive(Clone, Debug, clap::Args)]
pub struct SwarmArguments {
    /// Virtual seconds with faults, at most.
    #[arg(long, default_value_t = 40)]
    stormy: u64,
    /// Steps of all clients together, at most.
    #[arg(long, default_value_t = 1_000)]
    steps: u64,
    /// How many members; 0 for a drawn number.
    #[arg(long, default_value_t = 0)]
    members: u32,
    /// Without faults.
    #[arg(long)]
    fair_weather: bool,
}

impl SwarmArguments {
    fn swarm(&self) -> Swarm {
        Swarm {
            stormy: self.stormy * 1_000_000,
            steps_max: self.steps,
            members: self.members,
            fair_weather: self.fair_weather,
        }
    }
}
