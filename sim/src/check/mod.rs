//! The oracles: each reads a [`History`] and says what in it can't be.
//!
//! An oracle knows one promise of the API or of the algorithm, from etcd's documents and the Raft paper, and nothing of
//! how Kontiki keeps it. It has to be silent about right histories whatever faults were injected, so it judges what
//! was seen, and takes the weaker reading where a call's outcome is open.
//!
//! | oracle | promise |
//! |---|---|
//! | [`raft`] | one leader a term, logs match, what is committed stays, what is acknowledged is durable |
//! | [`members`] | members are what was asked for, and the list of them is what raft counts by |
//! | [`state_hash`] | what has applied the same is the same |
//! | [`linear`] | keys and transactions are linearizable; serializable reads are of some moment; nothing is done twice |
//! | [`compaction`] | what is gone is refused, what is not gone is served |
//! | [`watch`] | ordered, unique, atomic, reliable, bookmarkable, true |
//! | [`lease`] | leases end, not early, and stay ended |
//! | [`locks`] | one holds at a time, in turn |
//! | [`authz`] | what is answered was permitted, and what is denied was not |
//! | [`revision`] | headers name one cluster, and never go back |
//! | [`liveness`] | in the calm, calls are answered and members come to the same state |
//!
//! [`linear`] replays the history's revisions through the [`model`]; the oracles for watches, leases, locks, compaction
//! and authorization judge by that replay, as far as it is certain.
//!
//! What no history tells, such as who was made to differ, is judged while the run goes, by functions beside the oracle
//! whose rule it is ([`state_hash::blame`], [`liveness::rest`]).

pub mod authz;
pub mod compaction;
mod compare;
mod cover;
mod evidence;
pub mod kv;
pub mod lease;
pub mod linear;
pub mod liveness;
pub mod locks;
pub mod members;
pub mod model;
mod needed;
pub mod order;
pub mod raft;
mod raft_leader;
mod raft_quorum;
mod replay;
pub mod request;
pub mod revision;
mod rights;
pub mod state_hash;
pub mod watch;

use std::{fmt, path::Path};

use crate::history::{History, Micros};

/// A promise that a history breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The rule's name: `oracle/rule`.
    pub rule: &'static str,
    /// One sentence: what was seen, and what should have been.
    pub text: String,
    /// The ids of the calls involved.
    pub ops: Vec<u64>,
    /// The ids of the watches involved.
    pub watches: Vec<u64>,
    /// When it could first be seen.
    pub at: Micros,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}: {}", self.rule, self.at, self.text)?;
        let list = |ids: &[u64]| ids.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
        if !self.ops.is_empty() {
            write!(f, " [calls {}]", list(&self.ops))?;
        }
        if !self.watches.is_empty() {
            write!(f, " [watches {}]", list(&self.watches))?;
        }
        Ok(())
    }
}

/// What the oracles found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What can't be, the likely cause first.
    pub violations: Vec<Violation>,
    /// What could not be decided within the search's budget, one sentence each; no violation.
    pub undecided: Vec<String>,
    /// How many calls, watch responses and facts were looked at.
    pub looked_at: usize,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.violations.is_empty()
    }
}

/// Has every oracle look at `history`.
pub fn all(history: &History) -> Report {
    let responses: usize = history.watches.iter().map(|watch| watch.responses.len()).sum();
    let looked_at = history.ops.len() + responses + history.messages.len() + history.applied.len();
    let timeline = linear::timeline(history);
    // What members do wrong shows to clients; not the other way round.
    let mut violations = raft::check(history);
    violations.extend(members::check(history));
    violations.extend(state_hash::check(history));
    violations.extend(timeline.violations.iter().cloned());
    violations.extend(compaction::check_with(history, &timeline));
    violations.extend(watch::check_with(history, &timeline));
    violations.extend(lease::check_with(history, &timeline));
    violations.extend(locks::check_with(history, &timeline));
    violations.extend(authz::check_with(history, &timeline));
    violations.extend(revision::check(history));
    violations.extend(liveness::check(history));
    Report { violations, undecided: timeline.undecided, looked_at }
}

/// Has every oracle look at a recorded file (`history::jsonl` has the format).
pub fn check_file(path: &Path) -> anyhow::Result<Report> {
    Ok(all(&History::load(path)?))
}
