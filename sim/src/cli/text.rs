//! Runs as text.

use super::source::program;
use crate::{
    probe::{Event, Traced},
    run::Verdict,
};

/// How many violations of one run are shown.
const SHOWN_MAX: usize = 5;

/// Tells of a failing seed; `again` are the arguments that its swarm needs besides.
pub fn failure(seed: u64, again: &str, verdict: &Verdict) {
    println!("seed {seed} fails:");
    for violation in verdict.violations.iter().take(SHOWN_MAX) {
        println!("  {violation}");
    }
    if verdict.violations.len() > SHOWN_MAX {
        println!("  and {} more", verdict.violations.len() - SHOWN_MAX);
    }
    println!("  replay: {} replay {seed}{again}", program());
    what_next(&format!("{seed}{again}"));
}

/// What else can be done with a failing run.
pub fn what_next(source: &str) {
    println!("  shrink: {} shrink {source}", program());
    println!("  report: {} report {source}", program());
}

/// Counts in columns.
pub fn table(title: &str, rows: impl Iterator<Item = (String, u64)>) {
    println!("{title}:");
    for (what, count) in rows {
        println!("  {count:>10}  {what}");
    }
}

/// Whether an event is shown.
pub fn concerns(traced: &Traced, only: Option<u32>, quiet: bool) -> bool {
    match &traced.event {
        Event::Send { from, to, .. } => !quiet && only.is_none_or(|m| m == *from || m == *to),
        Event::Deliver { .. } | Event::Lose { .. } => !quiet && only.is_none(),
        Event::Start { member }
        | Event::Up { member, .. }
        | Event::Exit { member, .. }
        | Event::Crash { member, .. }
        | Event::Applied { member, .. }
        | Event::Lead { member, .. }
        | Event::Call { member, .. } => only.is_none_or(|m| m == *member),
        Event::Fault { member, .. } => only.is_none_or(|m| m == *member || *member == 0),
        Event::Return { .. } | Event::Watch { .. } | Event::Phase { .. } => only.is_none(),
    }
}

/// One event as a line.
pub fn line(traced: &Traced) -> String {
    let at = format!("{:>6}.{:06}", traced.at / 1_000_000, traced.at % 1_000_000);
    let what = match &traced.event {
        Event::Start { member } => format!("m{member} starts"),
        Event::Up { member, id } => format!("m{member} is up as {id}"),
        Event::Exit { member, why } => format!("m{member} ends: {why}"),
        Event::Crash { member, how } => format!("m{member} crashes: {how}"),
        Event::Fault { member: 0, text } => format!("fault {text}"),
        Event::Fault { member, text } => format!("m{member} fault {text}"),
        Event::Send { number, from, to, kind, term, detail } => {
            format!("m{from} -> m{to} #{number} {kind} term {term} {detail}")
        }
        Event::Deliver { number } => format!("#{number} arrives"),
        Event::Lose { number } => format!("#{number} is lost"),
        Event::Applied { member, index, term, hash } => {
            format!("m{member} applied {term}/{index} state {hash:016x}")
        }
        Event::Lead { member, term, leads: true } => format!("m{member} leads term {term}"),
        Event::Lead { member, term, leads: false } => format!("m{member} follows in term {term}"),
        Event::Call { op, client, member, text } => format!("c{client} -> m{member} call {op} {text}"),
        Event::Return { op, text } => format!("call {op} ends: {text}"),
        Event::Watch { client, text } => format!("c{client} watch {text}"),
        Event::Phase { name } => format!("=== {name}"),
    };
    format!("{at} {what}")
}
