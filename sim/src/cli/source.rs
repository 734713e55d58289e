//! Where a command's plan comes from: a seed of the swarm, or a file.

use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::{plan::Plan, swarm::Swarm};

/// What runs the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Driver {
    /// The event loop: fast.
    Storm,
    /// madsim, with gRPC: thorough.
    Whole,
}

/// What kind of runs.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct SwarmArguments {
    /// What runs the server.
    #[arg(long, value_enum, default_value_t = Driver::Storm)]
    driver: Driver,
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

impl Default for SwarmArguments {
    fn default() -> Self {
        Self { driver: Driver::Storm, stormy: 40, steps: 1_000, members: 0, fair_weather: false }
    }
}

impl SwarmArguments {
    /// What runs the server.
    pub const fn driver(&self) -> Driver {
        self.driver
    }

    /// The swarm that they ask for.
    pub fn swarm(&self) -> Swarm {
        Swarm {
            stormy: self.stormy * 1_000_000,
            steps_max: self.steps,
            members: self.members,
            fair_weather: self.fair_weather,
        }
    }

    /// What of them must be said again for the same plans, with a blank before each.
    pub fn again(&self) -> String {
        let usual = Self::default();
        let mut said = String::new();
        if self.driver == Driver::Whole {
            said.push_str(" --driver whole");
        }
        for (name, value, usual) in [
            ("stormy", self.stormy, usual.stormy),
            ("steps", self.steps, usual.steps),
            ("members", u64::from(self.members), u64::from(usual.members)),
        ] {
            if value != usual {
                said.push_str(&format!(" --{name} {value}"));
            }
        }
        if self.fair_weather {
            said.push_str(" --fair-weather");
        }
        said
    }
}

/// Which plan.
#[derive(Clone, Debug, clap::Args)]
pub struct Source {
    /// The seed.
    #[arg(required_unless_present = "plan", conflicts_with = "plan")]
    seed: Option<u64>,
    /// A plan from a file, instead of a seed's.
    #[arg(long)]
    plan: Option<PathBuf>,
    #[command(flatten)]
    swarm: SwarmArguments,
}

impl Source {
    /// The plan.
    ///
    /// # Errors
    /// If the file can't be read or holds no plan.
    pub fn plan(&self) -> anyhow::Result<Plan> {
        match &self.plan {
            Some(path) => serde_json::from_str(&read(path)?)
                .with_context(|| format!("{} holds no plan", path.display())),
            None => Ok(self.swarm.swarm().plan(self.seed.unwrap_or_default())),
        }
    }

    /// What runs the server.
    pub const fn driver(&self) -> Driver {
        self.swarm.driver()
    }

    /// The same source as arguments.
    pub fn again(&self) -> String {
        match &self.plan {
            Some(path) => self.with_plan(path),
            None => format!("{}{}", self.seed.unwrap_or_default(), self.swarm.again()),
        }
    }

    /// Another plan on the same driver, as arguments. What else swarms are told matters to seeds alone.
    pub fn with_plan(&self, path: &Path) -> String {
        let swarm = SwarmArguments { driver: self.driver(), ..SwarmArguments::default() };
        format!("--plan {}{}", path.display(), swarm.again())
    }
}

/// How this program was called, for commands that a reader can run again.
pub fn program() -> String {
    std::env::args().next().unwrap_or_else(|| "sim".into())
}

/// A file as text.
///
/// # Errors
/// If it can't be read.
#[allow(clippy::disallowed_methods)]
pub fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
}

/// Writes a file.
///
/// # Errors
/// If it can't be written.
#[allow(clippy::disallowed_methods)]
pub fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_stays_with_its_driver() {
        let swarm = SwarmArguments { driver: Driver::Whole, steps: 20, ..SwarmArguments::default() };
        let source = Source { seed: Some(7), plan: None, swarm };
        assert_eq!(source.again(), "7 --driver whole --steps 20");
        assert_eq!(source.with_plan(Path::new("small.json")), "--plan small.json --driver whole");
    }

    #[test]
    fn only_what_is_unusual_is_said_again() {
        assert_eq!(SwarmArguments::default().again(), "");
        let other = SwarmArguments { steps: 20, members: 3, fair_weather: true, ..SwarmArguments::default() };
        assert_eq!(other.again(), " --steps 20 --members 3 --fair-weather");
    }
}
