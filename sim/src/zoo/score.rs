//! The score as a table.

use std::{collections::BTreeMap, fmt::Write};

use super::Catch;

/// How a row ended.
#[derive(Clone, Debug, PartialEq)]
pub enum End {
    /// The simulator was built and run.
    Ran(Catch),
    /// It was not, and why.
    Broken(String),
}

/// A planted bug and what came of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Its id; `control` for the run without a patch.
    pub id: String,
    /// Its tier.
    pub tier: String,
    /// The oracle that should see it.
    pub oracle: String,
    /// What came of it.
    pub end: End,
}

impl Row {
    /// One line of the table.
    pub fn line(&self) -> String {
        let Self { id, tier, oracle, end } = self;
        match end {
            End::Ran(Catch { runs, cpu_seconds, failed: Some((seed, rules)) }) => {
                let rule = rules.first().map_or("", String::as_str);
                format!("| {id} | {tier} | caught | {runs} | {cpu_seconds:.1} | {rule} | {oracle} | {seed} |")
            }
            End::Ran(Catch { runs, cpu_seconds, failed: None }) => {
                format!("| {id} | {tier} | survived | {runs} | {cpu_seconds:.1} | | {oracle} | |")
            }
            End::Broken(why) => {
                let why = why.lines().next().unwrap_or_default().replace('|', "/");
                format!("| {id} | {tier} | error: {why} | | | | {oracle} | |")
            }
        }
    }

    /// Reads what [`Row::line`] wrote; none if it is no such line.
    pub fn parse(line: &str) -> Option<Self> {
        let cells: Vec<&str> =
            line.strip_prefix("| ")?.strip_suffix(" |")?.split('|').map(str::trim).collect();
        let [id, tier, how, runs, cpu, rule, oracle, seed] = cells[..] else { return None };
        let catch = |failed| Some(Catch { runs: runs.parse().ok()?, cpu_seconds: cpu.parse().ok()?, failed });
        let end = match how {
            "caught" => End::Ran(catch(Some((seed.parse().ok()?, vec![rule.to_owned()])))?),
            "survived" => End::Ran(catch(None)?),
            broken => End::Broken(broken.strip_prefix("error: ")?.to_owned()),
        };
        Some(Self { id: id.into(), tier: tier.into(), oracle: oracle.into(), end })
    }

    fn cpu_if_caught(&self) -> Option<f64> {
        match &self.end {
            End::Ran(catch) if catch.failed.is_some() => Some(catch.cpu_seconds),
            End::Ran(_) | End::Broken(_) => None,
        }
    }
}

/// The table of all rows, the control run, and the score by tier.
pub fn score(rows: &[Row], control: Option<&Row>) -> String {
    let mut text = String::from(
        "| Id | Tier | | Seeds | CPU s | Rule that fired | Oracle meant | Seed |\n| --- | --- | --- | ---: | ---: | --- | --- | ---: |\n",
    );
    for row in rows.iter().chain(control) {
        let _ = writeln!(text, "{}", row.line());
    }
    let mut tiers: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    let mut times = Vec::new();
    for row in rows {
        let tier = tiers.entry(&row.tier).or_default();
        tier.1 += 1;
        if let Some(cpu) = row.cpu_if_caught() {
            tier.0 += 1;
            times.push(cpu);
        }
    }
    let _ = writeln!(text, "\nCaught: {} of {}", times.len(), rows.len());
    for (tier, (caught, all)) in tiers {
        let _ = writeln!(text, "- {tier}: {caught} of {all}");
    }
    times.sort_by(f64::total_cmp);
    if let Some(median) = times.get(times.len() / 2) {
        let _ = writeln!(text, "\nMedian time to catch: {median:.1} CPU seconds");
    }
    let survived: Vec<&str> =
        rows.iter().filter(|row| row.cpu_if_caught().is_none()).map(|row| row.id.as_str()).collect();
    if !survived.is_empty() {
        let _ = writeln!(text, "\nNot caught: {}", survived.join(", "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: &str, tier: &str, end: End) -> Row {
        Row { id: id.into(), tier: tier.into(), oracle: "raft".into(), end }
    }

    #[test]
    fn a_row_is_read_as_it_was_written() {
        let ends = [
            End::Ran(Catch { runs: 3, cpu_seconds: 2.5, failed: Some((7, vec!["raft/quorum".into()])) }),
            End::Ran(Catch { runs: 99, cpu_seconds: 60.0, failed: None }),
            End::Broken("the patch does not apply: x".into()),
        ];
        for end in ends {
            let row = row("R01", "T1", end);
            assert_eq!(Row::parse(&row.line()), Some(row));
        }
        for other in
            ["", "| Id | Tier | | Seeds | CPU s | Rule that fired | Oracle meant | Seed |", "- T1: 1 of 2"]
        {
            assert_eq!(Row::parse(other), None, "{other:?}");
        }
    }

    #[test]
    fn a_score_counts_by_tier_and_names_survivors() {
        let caught = |cpu_seconds| {
            End::Ran(Catch { runs: 3, cpu_seconds, failed: Some((7, vec!["raft/quorum".into()])) })
        };
        let rows = [
            row("R01", "T1", caught(2.0)),
            row("R02", "T1", End::Ran(Catch { runs: 99, cpu_seconds: 60.0, failed: None })),
            row("R03", "T2", caught(8.0)),
            row("R04", "T2", caught(4.0)),
            row("R05", "T2", End::Broken("the patch does not apply: x".into())),
        ];
        let text = score(&rows, Some(&row("control", "–", End::Ran(Catch::default()))));
        for due in [
            "| R01 | T1 | caught | 3 | 2.0 | raft/quorum | raft | 7 |",
            "| R02 | T1 | survived | 99 | 60.0 | | raft | |",
            "| R05 | T2 | error: the patch does not apply: x |",
            "| control |",
            "Caught: 3 of 5",
            "- T1: 1 of 2",
            "- T2: 2 of 3",
            "Median time to catch: 4.0",
            "Not caught: R02, R05",
        ] {
            assert!(text.contains(due), "{due:?} is not in\n{text}");
        }
    }
}
