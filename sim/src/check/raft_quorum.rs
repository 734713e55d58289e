//! What is applied, enough voters had said to hold: enough by which configuration?
//!
//! A change of the members counts from its application on, as in etcd, not from when it is in the log, as in the thesis.
//! So there are two that a leader may commit an entry by: the newest one in front of the entry, and the one before that,
//! as long as the leader has not applied the newest.
//!
//! ```text
//! index        5            6        7        8
//! log of 1     promote 2    put      put      put
//! 1 applies                                5        by {1} it may commit up to 7, by {1, 2} what follows
//! ```
//!
//! **Why the older one does no harm.** Say `C` is followed by `C'` by a change at index `k`, and a leader `L` commits `i`,
//! behind `k`, by a quorum `Q` of `C`; `k` is the last change in front of `i`.
//!
//! 1. A leader proposes a change only when it has applied the one before, and a new leader none before it has applied all
//!    that its log had when it was elected. Whoever knows of a committed change that it has not applied does not
//!    campaign; and whoever holds a change knows that the one before is committed, since the append that brought it said
//!    so, and since a restart concludes it. So only the last change in its log can be one that a leader has not applied:
//!    `C` and `C'` are all that `L` can count by. What is older is an error.
//! 2. `C` and `C'` differ by one voter, so each quorum of the one meets each of the other. Whoever is elected later by
//!    `C` or `C'` needs a vote from `Q`, and votes go to logs that are no older: it has `i`.
//! 3. Whoever counts by what follows `C'` has applied the change that made it, and with it all in front of that. That
//!    change is behind `i`, for `k` is the last in front of `i`. So it has `i`.
//! 4. Whoever still counts by what came before `C` has not applied the change that made `C`, and does not hold `k`, or it
//!    would know the former to be committed and not campaign. It needs a vote from a quorum that meets each of `C`, and
//!    in `Q` all hold `k` and more.
//!
//! With one voter and a learner that is promoted, `Q` is the leader alone, and both are needed afterwards: nobody is
//! elected without it.
//!
//! How far a member had committed when it took to a configuration is recorded by the simulator; where it is not
//! ([`Config::committed`]), either configuration may count.

use std::collections::BTreeMap;

use super::raft::{Found, leads};
use crate::history::{Applied, Boot, Config, Fact, History, MessageFact, Micros};

/// Whoever led, from when on, by term.
type Leaders = BTreeMap<u64, (Micros, u64)>;

fn is_same(one: &Config, other: &Config) -> bool {
    (&one.voters, &one.outgoing, &one.learners) == (&other.voters, &other.outgoing, &other.learners)
}

/// Who may count by what.
struct InForce<'a> {
    /// The configuration that is due from an index on.
    configs: BTreeMap<u64, &'a Config>,
    /// When each member took to which.
    taken: BTreeMap<u64, Vec<&'a Config>>,
    boots: BTreeMap<u64, Vec<&'a Boot>>,
    leaders: Leaders,
}

impl<'a> InForce<'a> {
    fn of(history: &'a History) -> Self {
        let (mut configs, mut taken) = (BTreeMap::new(), BTreeMap::<u64, Vec<&Config>>::new());
        for config in &history.configs {
            configs.entry(config.index).or_insert(config);
            taken.entry(config.node).or_default().push(config);
        }
        let mut last: Option<&Config> = None;
        // Members apply a change together with more or less of what follows, and note it as of the last of that.
        configs.retain(|_, config: &mut &Config| {
            !last.replace(config).is_some_and(|last| is_same(last, config))
        });
        let mut boots: BTreeMap<u64, Vec<&Boot>> = BTreeMap::new();
        for boot in &history.boots {
            boots.entry(boot.node).or_default().push(boot);
        }
        let mut leaders = Leaders::new();
        for message in history.messages.iter().filter(|message| leads(&message.fact)) {
            leaders.entry(message.term).or_insert((message.at, message.from));
        }
        Self { configs, taken, boots, leaders }
    }

    /// The configurations by which whoever committed an entry that was applied may have counted.
    fn at(&self, applied: &Applied) -> Vec<&'a Config> {
        let mut newest = self.configs.range(..applied.index).rev().map(|(_, config)| *config);
        let Some(due) = newest.next() else { return Vec::new() };
        let mut counted = vec![due];
        let Some(before) = newest.next() else { return counted };
        let has_led = self.leaders.range(applied.term..).filter(|(_, (since, _))| *since <= applied.at);
        let has_led = has_led.map(|(_, (_, node))| *node);
        // Who votes alone may lead in silence.
        let alone = before.voters.iter().copied().filter(|node| before.voters == [*node]);
        if has_led.chain(alone).any(|node| self.may_lag(node, due.index, applied)) {
            counted.push(before);
        }
        counted
    }

    /// Whether a member may have committed an entry before it took to the configuration of an index: in any of its lives,
    /// for a restart goes back to what its tables have.
    fn may_lag(&self, node: u64, due: u64, applied: &Applied) -> bool {
        let boots = self.boots.get(&node).into_iter().flatten().filter(|boot| boot.at <= applied.at);
        let lives: Vec<(Micros, u64)> =
            std::iter::once((Micros(0), 0)).chain(boots.map(|boot| (boot.at, boot.applied))).collect();
        lives.iter().enumerate().any(|(number, (from, had))| {
            let until = lives.get(number + 1).map_or(Micros(u64::MAX), |next| next.0);
            let own = self.taken.get(&node).into_iter().flatten();
            // What was applied with it at once is noted as of the last of that.
            let mut took = own.filter(|taken| (*from..until).contains(&taken.at) && taken.index >= due);
            let first = took.next().map(|taken| taken.committed);
            *had < due && first.flatten().is_none_or(|committed| committed >= applied.index)
        })
    }
}

/// How far each member's log is known to reach, by what it said and what it found at its starts. What a leader has
/// sent counts as its own.
///
/// By member and the term in which it was: what a member held in an older term than an entry's is not that entry.
#[derive(Default)]
struct Reach(BTreeMap<u64, BTreeMap<u64, u64>>);

impl Reach {
    fn raise(&mut self, node: u64, term: u64, index: u64) {
        let newest = self.0.entry(node).or_default().entry(term).or_default();
        *newest = (*newest).max(index);
    }

    fn holds(&self, node: u64, applied: &Applied) -> bool {
        let reached = self.0.get(&node).into_iter().flat_map(|terms| terms.range(applied.term..));
        reached.max_by_key(|(_, index)| **index).is_some_and(|(_, index)| *index >= applied.index)
    }

    fn message(&mut self, message: &MessageFact) {
        if let Fact::AppendAccepted { matched } = message.fact {
            self.raise(message.from, message.term, matched);
        } else if let Fact::Append { prev, entries, .. } = &message.fact {
            self.raise(message.from, message.term, prev.index + entries.len() as u64);
        }
    }

    fn majority(&self, voters: &[u64], applied: &Applied) -> bool {
        let holds = |node: &&u64| **node == applied.node || self.holds(**node, applied);
        voters.iter().filter(holds).count() > voters.len() / 2
    }
}

/// Each entry that was applied was held by enough.
pub(super) fn check(history: &History, applied: &BTreeMap<u64, &Applied>, found: &mut Found) {
    let in_force = InForce::of(history);
    // Before the first election, the entries that found a cluster are there without one.
    let mut reach = Reach::default();
    let mut messages = history.messages.iter().peekable();
    let mut boots = history.boots.iter().peekable();
    let judged = |applied: &&Applied| !applied.snapshot && in_force.leaders.contains_key(&applied.term);
    let mut by_time: Vec<&Applied> = applied.values().copied().filter(judged).collect();
    by_time.sort_by_key(|applied| applied.at);
    for applied in by_time {
        while let Some(message) = messages.next_if(|message| message.at <= applied.at) {
            reach.message(message);
        }
        while let Some(boot) = boots.next_if(|boot| boot.at <= applied.at) {
            reach.raise(boot.node, boot.last.term, boot.last.index);
        }
        let counted = in_force.at(applied);
        let enough = |config: &Config| {
            reach.majority(&config.voters, applied)
                && (config.outgoing.is_empty() || reach.majority(&config.outgoing, applied))
        };
        if !counted.is_empty() && !counted.iter().any(|config| enough(config)) {
            let text = format!(
                "{:x} applied index {} before a quorum had said that it holds it",
                applied.node, applied.index
            );
            found.tell("raft/quorum", applied.at, text);
        }
    }
}
