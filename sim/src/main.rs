//! The simulator's command: `run`, `replay`, and what a failing seed needs.

use std::process::ExitCode;

use clap::Parser;
use sim::cli::Command;

/// Kontiki's simulator: the shipped server under seeded faults.
#[derive(Debug, Parser)]
#[command(name = "sim", version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    match Arguments::parse().command.execute() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("sim: {error:#}");
            ExitCode::from(2)
        }
    }
}
