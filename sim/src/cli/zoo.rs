//! `zoo`.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use clap::Args;

use super::source;
use crate::zoo::{Catch, End, Patch, Row, Scratch, score};

/// Plants historic bugs, one after the other, and counts how many the simulator catches with its standard settings.
#[derive(Debug, Args)]
pub struct Zoo {
    /// Only these rows.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Processor seconds to spend on each row.
    #[arg(long, default_value_t = 600)]
    budget: u64,
    /// Processor seconds for the run without a patch; 0 for none.
    #[arg(long, default_value_t = 600)]
    control: u64,
    /// Runs at once.
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    seeds: u64,
    /// Write the table to sim/zoo/SCORE.md too; rows that are not run now stay there as they are.
    #[arg(long)]
    write: bool,
    /// Where the scratch copy and its builds are; $KONTIKI_CACHE/zoo or ~/.cache/kontiki/zoo by default.
    #[arg(long)]
    scratch: Option<PathBuf>,
}

/// The id of the run without a patch.
const CONTROL: &str = "control";

impl Zoo {
    /// Does it.
    pub fn execute(self) -> anyhow::Result<ExitCode> {
        let scratch = Scratch::new(self.scratch.clone().map_or_else(cache, Ok)?)?;
        let control = scratch.build_control()?;
        let patches = scratch.patches()?;
        let names: Vec<&str> = patches.iter().map(|(name, _)| name.as_str()).collect();
        let mut table = self.write.then(|| Table::read(scratch.score_file(), &names));
        let mut rows = Vec::new();
        for (name, patch) in patches.clone() {
            if !self.only.is_empty() && !self.only.contains(&name) {
                continue;
            }
            let row = match patch {
                Ok(patch) => self.row(&scratch, &patch, &control)?,
                Err(why) => {
                    Row { id: name, tier: String::new(), oracle: String::new(), end: End::Broken(why) }
                }
            };
            println!("{}", row.line());
            if let End::Broken(why) = &row.end {
                eprintln!("{}: {why}", row.id);
            }
            table.as_mut().map_or(Ok(()), |table| table.put(row.clone()))?;
            rows.push(row);
        }
        let control = if self.control > 0 { Some(self.control(&scratch, &control)?) } else { None };
        println!("\n{}", score(&rows, control.as_ref()));
        if let (Some(table), Some(control)) = (&mut table, &control) {
            table.put(control.clone())?;
        }
        let caught = |row: &Row| matches!(&row.end, End::Ran(catch) if catch.failed.is_some());
        let clean = control.is_none_or(|row| matches!(row.end, End::Ran(_)) && !caught(&row));
        Ok(if clean && rows.iter().all(caught) { ExitCode::SUCCESS } else { ExitCode::from(1) })
    }

    /// One bug. The scratch copy is as it was afterwards.
    fn row(&self, scratch: &Scratch, patch: &Patch, control: &Path) -> anyhow::Result<Row> {
        let ran = scratch.plant(patch).and_then(|()| scratch.build());
        let ran = ran.and_then(|program| self.hunt(scratch, &program, control));
        scratch.restore()?;
        let end = ran.map_or_else(|why| End::Broken(format!("{why:#}")), End::Ran);
        let Patch { id, tier, oracle, .. } = patch.clone();
        Ok(Row { id, tier, oracle, end })
    }

    /// Runs seeds until one fails that does not fail without the bug: a false alarm is no catch.
    fn hunt(&self, scratch: &Scratch, program: &Path, control: &Path) -> anyhow::Result<Catch> {
        let mut all = Catch::default();
        let mut from = self.seeds;
        loop {
            let left = self.budget.saturating_sub(all.cpu_seconds as u64);
            let catch = scratch.run(program, from, left, self.jobs)?;
            all.runs += catch.runs;
            all.cpu_seconds += catch.cpu_seconds;
            match catch.failed {
                Some((seed, _)) if scratch.fails(control, seed)? => from = seed + 1,
                failed => return Ok(Catch { failed, ..all }),
            }
        }
    }

    fn control(&self, scratch: &Scratch, program: &Path) -> anyhow::Result<Row> {
        let catch = scratch.run(program, self.seeds, self.control, self.jobs)?;
        Ok(Row { id: CONTROL.into(), tier: "–".into(), oracle: "none".into(), end: End::Ran(catch) })
    }
}

fn cache() -> anyhow::Result<PathBuf> {
    let own = std::env::var_os("KONTIKI_CACHE").map(PathBuf::from);
    let cache = own.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/kontiki")));
    Ok(cache.context("neither KONTIKI_CACHE nor HOME says where builds are kept")?.join("zoo"))
}

/// The table in sim/zoo/SCORE.md, which is written anew after each row: a pass takes long.
struct Table {
    rows: BTreeMap<String, Row>,
    file: PathBuf,
}

impl Table {
    /// What is there of these rows, and of the control run.
    fn read(file: PathBuf, names: &[&str]) -> Self {
        let rows = source::read(&file).unwrap_or_default();
        let rows = rows.lines().filter_map(Row::parse).map(|row| (row.id.clone(), row));
        Self { rows: rows.filter(|(id, _)| id == CONTROL || names.contains(&id.as_str())).collect(), file }
    }

    fn put(&mut self, row: Row) -> anyhow::Result<()> {
        self.rows.insert(row.id.clone(), row);
        let rows: Vec<Row> = self.rows.values().filter(|row| row.id != CONTROL).cloned().collect();
        let about = "# The zoo's score\n\nWritten by `sim zoo`: standard settings. A row that survived was given about as \
                     many CPU seconds as it has.\n\n";
        source::write(&self.file, &(about.to_owned() + &score(&rows, self.rows.get(CONTROL))))
    }
}
