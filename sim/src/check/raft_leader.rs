//! What a leader may commit, count and propose, from what it said to the others.

use std::collections::{BTreeMap, BTreeSet};

use super::raft::{Found, entries, leads};
use crate::history::{Applied, Boot, Config, Fact, History, LogFact, MessageFact, Micros};

/// How far is known to be committed, by what was said, applied and found at starts.
struct Known<'a> {
    applied: std::iter::Peekable<std::slice::Iter<'a, Applied>>,
    boots: std::iter::Peekable<std::slice::Iter<'a, Boot>>,
    /// Changes of the members, with the terms of their entries.
    changes: BTreeMap<u64, u64>,
    committed: u64,
}

impl<'a> Known<'a> {
    fn of(history: &'a History) -> Self {
        Self {
            applied: history.applied.iter().peekable(),
            boots: history.boots.iter().peekable(),
            changes: BTreeMap::new(),
            committed: 0,
        }
    }

    /// What was applied and found until a moment.
    fn until(&mut self, at: Micros) {
        while let Some(applied) = self.applied.next_if(|applied| applied.at <= at) {
            self.committed = self.committed.max(applied.index);
        }
        while let Some(boot) = self.boots.next_if(|boot| boot.at <= at) {
            let implied = self.implied(boot);
            self.committed = self.committed.max(boot.commit).max(boot.applied).max(implied.unwrap_or(0));
        }
    }

    /// Of the changes in a log beyond what it says to be committed, the last but one: it was applied before the last was
    /// proposed.
    fn implied(&self, boot: &Boot) -> Option<u64> {
        let from = boot.commit.max(boot.applied) + 1;
        let own = self.changes.range(from..).filter(|(i, term)| boot.term_at(**i) == Some(**term));
        let own: Vec<u64> = own.map(|(index, _)| *index).collect();
        Some(own[own.len().checked_sub(2)?])
    }

    fn hears(&mut self, message: &MessageFact) {
        if let Fact::Append { prev, entries: sent, .. } = &message.fact {
            let changes = entries(*prev, sent).zip(sent).filter(|(_, entry)| entry.change);
            self.changes.extend(changes.map(|((_, this, _), _)| (this.index, this.term)));
        }
        self.committed = self.committed.max(commit(&message.fact));
    }
}

/// How far a leader says that it has committed.
const fn commit(fact: &Fact) -> u64 {
    match fact {
        Fact::Append { commit, .. } | Fact::Heartbeat { commit, .. } => *commit,
        Fact::Snapshot { last, .. } => last.index,
        Fact::AppendAccepted { .. }
        | Fact::AppendRejected { .. }
        | Fact::Vote { .. }
        | Fact::VoteReply { .. }
        | Fact::HeartbeatReply { .. }
        | Fact::ReadIndexReply { .. } => 0,
    }
}

/// A term: what was known to be committed when it began, its first entry, and the first index beyond that its leader
/// said to be committed, and when.
type Begun = (u64, Option<u64>, Option<(u64, Micros)>);

/// A leader's commit index grows only to entries of its own term; below them it is what was known when it was elected.
pub(super) fn own_term(history: &History, found: &mut Found) {
    let mut known = Known::of(history);
    let mut terms: BTreeMap<u64, Begun> = BTreeMap::new();
    for message in history.messages.iter().filter(|message| leads(&message.fact)) {
        known.until(message.at);
        let (began, first, said) = terms.entry(message.term).or_insert((known.committed, None, None));
        if let Fact::Append { prev, entries: sent, .. } = &message.fact {
            let begins = |(before, this, _): &(LogFact, LogFact, u64)| {
                before.term < message.term && this.term == message.term
            };
            *first = first.or(entries(*prev, sent).find(begins).map(|(_, this, _)| this.index));
        }
        let commit = commit(&message.fact);
        // With an entry of its own all before it is committed, and may be said to be so one by one, by snapshots.
        if first.is_some_and(|first| commit >= first) {
            *began = (*began).max(commit);
        }
        // Heartbeats and snapshots say less than the leader knows: no more than the peer holds, or than was applied.
        let all = matches!(message.fact, Fact::Append { .. });
        if all && commit > *began && said.is_none_or(|(least, _)| commit < least) {
            *said = Some((commit, message.at));
        }
        // Where it begins may be heard of later: a leader that votes alone commits first.
        if let (Some(first), Some((commit, at))) = (*first, *said)
            && commit < first
        {
            let text = format!(
                "{:x} says as leader of term {} that {commit} is committed; before that term {began} was, and its own \
                 entries begin at {first}",
                message.from, message.term
            );
            found.tell("raft/own-term", at, text);
        }
        known.hears(message);
    }
}

/// Of two changes of the members in a log the first is committed. Who comes back with them asks for no votes before it
/// has applied it: it could win in a configuration that the cluster has left.
pub(super) fn campaigns(history: &History, found: &mut Found) {
    let mut known = Known::of(history);
    let mut applied = history.applied.iter().peekable();
    // What each has to apply first.
    let mut due: BTreeMap<u64, u64> = BTreeMap::new();
    let mut boots = history.boots.iter().peekable();
    for message in &history.messages {
        while let Some(boot) = boots.next_if(|boot| boot.at <= message.at) {
            due.remove(&boot.node);
            due.extend(known.implied(boot).map(|index| (boot.node, index)));
        }
        while let Some(applied) = applied.next_if(|applied| applied.at <= message.at) {
            if due.get(&applied.node).is_some_and(|index| *index <= applied.index) {
                due.remove(&applied.node);
            }
        }
        if let (Fact::Vote { .. }, Some(index)) = (&message.fact, due.get(&message.from)) {
            let text = format!(
                "{:x} asks for votes and has not applied the change of the members at index {index}, which is committed \
                 as its log has another one behind it",
                message.from
            );
            found.tell("raft/left-config", message.at, text);
        }
        known.hears(message);
    }
}

/// In one term a leader's log only grows: whoever holds its entries up to an index goes on holding them.
pub(super) fn keeps(history: &History, found: &mut Found) {
    let mut matched: BTreeMap<(u64, u64), u64> = BTreeMap::new();
    let mut boots = history.boots.iter().peekable();
    for message in &history.messages {
        while let Some(boot) = boots.next_if(|boot| boot.at <= message.at) {
            if boot.forgets {
                matched.retain(|(node, _), _| *node != boot.node);
            }
        }
        let held = matched.entry((message.from, message.term)).or_default();
        if let Fact::AppendAccepted { matched } = message.fact {
            *held = (*held).max(matched);
        } else if let Fact::AppendRejected { prev, .. } = message.fact
            && (1..=*held).contains(&prev)
        {
            let text = format!(
                "{:x} refuses what follows index {prev} in term {}, and had acknowledged {held} in that term",
                message.from, message.term
            );
            found.tell("raft/keeps", message.at, text);
        }
    }
}

/// A heartbeat says only of what its receiver has acknowledged in that term that it is committed: of what else is in its
/// log, a member can't tell whether it is the leader's.
pub(super) fn told(history: &History, found: &mut Found) {
    let mut matched: BTreeMap<(u64, u64), u64> = BTreeMap::new();
    for message in &history.messages {
        if let Fact::AppendAccepted { matched: now } = message.fact {
            let held = matched.entry((message.from, message.term)).or_default();
            *held = (*held).max(now);
        } else if let Fact::Heartbeat { commit, .. } = message.fact {
            let held = matched.get(&(message.to, message.term)).copied().unwrap_or(0);
            if commit > held {
                let text = format!(
                    "{:x} tells {:x} in term {} that {commit} is committed, of which that has acknowledged {held}",
                    message.from, message.to, message.term
                );
                found.tell("raft/told", message.at, text);
            }
        }
    }
}

/// Two changes of one leader: somebody has applied the first before the second is sent.
pub(super) fn one_change(history: &History, found: &mut Found) {
    let mut applied = 0;
    let mut applieds = history.applied.iter().peekable();
    let mut seen: BTreeSet<(u64, u64)> = BTreeSet::new();
    for message in &history.messages {
        while let Some(next) = applieds.next_if(|applied| applied.at <= message.at) {
            applied = applied.max(next.index);
        }
        let Fact::Append { prev, entries: sent, .. } = &message.fact else { continue };
        let own = entries(*prev, sent).zip(sent).filter(|(_, entry)| entry.change);
        for ((_, this, _), _) in own.filter(|((_, this, _), _)| this.term == message.term) {
            if !seen.insert((this.term, this.index)) {
                continue;
            }
            let before = seen.range((this.term, 0)..(this.term, this.index)).next_back();
            if let Some((_, before)) = before.filter(|(_, before)| *before > applied) {
                let text = format!(
                    "{:x} proposes a change of the members at index {}, and nobody has applied the one at {before}",
                    message.from, this.index
                );
                found.tell("raft/one-change", message.at, text);
            }
        }
    }
}

/// At one index there is one configuration, and a snapshot up to there names it.
pub(super) fn configs(history: &History, found: &mut Found) {
    let mut due: BTreeMap<u64, &Config> = BTreeMap::new();
    let parts = |config: &Config| (config.voters.clone(), config.outgoing.clone(), config.learners.clone());
    for config in &history.configs {
        let first = *due.entry(config.index).or_insert(config);
        if parts(first) != parts(config) {
            let text = format!(
                "{:x} has the configuration {:x?} at index {}, and {:x} has {:x?}",
                config.node,
                parts(config),
                config.index,
                first.node,
                parts(first)
            );
            found.tell("raft/config", config.at, text);
        }
    }
    for message in &history.messages {
        let Fact::Snapshot { last, config: Some((voters, learners)) } = &message.fact else { continue };
        let Some((index, config)) = due.range(..=last.index).next_back() else { continue };
        if (&config.voters, &config.learners) != (voters, learners) {
            let text = format!(
                "{:x} sends a snapshot up to {} with voters {voters:x?} and learners {learners:x?}; since index {index} \
                 they are {:x?} and {:x?}",
                message.from, last.index, config.voters, config.learners
            );
            found.tell("raft/config", message.at, text);
        }
    }
}
