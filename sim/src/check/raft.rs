//! Raft's promises, from the messages that members sent, what they applied, and what they found when they came back.
//!
//! - `one-leader`: in one term, one member sends as leader (Raft section 5.2).
//! - `one-vote`: in one term, a member votes for one candidate, also across restarts.
//! - `log-matching`: entries of one index and term are the same entry behind the same entry (section 5.3).
//! - `committed`: what is applied at an index is the same entry everywhere and for ever (section 5.4.3).
//! - `leader-completeness`: a leader of a later term sends no other entry for an index that was applied before.
//! - `quorum`: an entry is applied only after voters enough had said that they hold it, under a configuration known
//!   (`raft_quorum` says which may count).
//! - `monotonic`: a member's term and applied index never go back, but for what a restart replays.
//! - `durable`: what a member acknowledged or voted before its process ended, it finds when it comes back, unless a later
//!   leader may have cut it off.
//! - `own-term`: a leader commits nothing by counting before an entry of its own term (section 5.4.2).
//! - `keeps`: what a member has acknowledged to a leader it does not refuse that leader later.
//! - `told`: a heartbeat tells nobody of more than it has acknowledged to that leader.
//! - `one-change`: a leader proposes a change of the members only when the one before it is applied.
//! - `left-config`: nobody campaigns who knows by its log that the members have changed, and has not applied it.
//! - `config`: members at one index have one configuration, and snapshots name it.
//!
//! Members are named by raft ids. Each rule is silent about facts that were not recorded.

use std::collections::{BTreeMap, BTreeSet};

use super::{Violation, linear::LISTED_MAX, raft_leader, raft_quorum};
use crate::history::{Applied, Boot, EntryFact, Fact, History, LogFact, MessageFact, Micros};

/// What was found, some of each rule.
#[derive(Default)]
pub(super) struct Found(Vec<Violation>);

impl Found {
    pub(super) fn tell(&mut self, rule: &'static str, at: Micros, text: String) {
        if self.0.iter().filter(|violation| violation.rule == rule).count() < LISTED_MAX {
            self.0.push(Violation { rule, text, ops: Vec::new(), watches: Vec::new(), at });
        }
    }
}

/// Whether the message is one that only a leader sends.
pub(super) const fn leads(fact: &Fact) -> bool {
    matches!(fact, Fact::Append { .. } | Fact::Heartbeat { .. } | Fact::Snapshot { .. })
}

fn one_leader(history: &History, found: &mut Found) {
    let mut leaders: BTreeMap<u64, u64> = BTreeMap::new();
    for message in history.messages.iter().filter(|message| leads(&message.fact)) {
        let leader = *leaders.entry(message.term).or_insert(message.from);
        if leader != message.from {
            let text =
                format!("{leader:x} and {:x} both sent as leader of term {}", message.from, message.term);
            found.tell("raft/one-leader", message.at, text);
        }
    }
}

fn one_vote(history: &History, found: &mut Found) {
    let mut votes: BTreeMap<(u64, u64), u64> = BTreeMap::new();
    let forgets: BTreeSet<u64> =
        history.boots.iter().filter(|boot| boot.forgets).map(|boot| boot.node).collect();
    for message in &history.messages {
        let candidate = match message.fact {
            Fact::VoteReply { pre: false, granted: true } => message.to,
            Fact::Vote { pre: false, .. } => message.from,
            _ => continue,
        };
        let voted = *votes.entry((message.from, message.term)).or_insert(candidate);
        if voted != candidate && !forgets.contains(&message.from) {
            let text = format!(
                "{:x} voted for {voted:x} and for {candidate:x} in term {}",
                message.from, message.term
            );
            found.tell("raft/one-vote", message.at, text);
        }
    }
}

/// The entries of an append with what is before each.
pub(super) fn entries(prev: LogFact, entries: &[EntryFact]) -> impl Iterator<Item = (LogFact, LogFact, u64)> {
    let mut before = prev;
    entries.iter().map(move |entry| {
        let this = LogFact { term: entry.term, index: before.index + 1 };
        (std::mem::replace(&mut before, this), this, entry.hash)
    })
}

fn log_matching(history: &History, found: &mut Found) {
    let mut known: BTreeMap<LogFact, (u64, u64)> = BTreeMap::new();
    for message in &history.messages {
        let Fact::Append { prev, entries: sent, .. } = &message.fact else { continue };
        for (before, this, hash) in entries(*prev, sent) {
            let first = *known.entry(this).or_insert((before.term, hash));
            if first != (before.term, hash) {
                let what = if first.1 == hash {
                    "behind entries of different terms"
                } else {
                    "with different contents"
                };
                let text = format!(
                    "entry {} of term {} was sent {what}, last by {:x}",
                    this.index, this.term, message.from
                );
                found.tell("raft/log-matching", message.at, text);
            }
        }
    }
}

/// What each index was applied with first, by whom and when.
fn applied_entries<'a>(history: &'a History, found: &mut Found) -> BTreeMap<u64, &'a Applied> {
    let mut first: BTreeMap<u64, &Applied> = BTreeMap::new();
    for applied in &history.applied {
        let known = *first.entry(applied.index).or_insert(applied);
        if known.term != applied.term {
            let text = format!(
                "index {} was applied with an entry of term {} by {:x} and with one of term {} by {:x}",
                applied.index, known.term, known.node, applied.term, applied.node
            );
            found.tell("raft/committed", applied.at, text);
        }
    }
    first
}

/// The newest term that any member had sent in, by time.
fn terms_by_time(history: &History) -> Vec<(Micros, u64)> {
    let mut steps: Vec<(Micros, u64)> = Vec::new();
    for message in &history.messages {
        let asks = matches!(message.fact, Fact::Vote { pre: true, .. } | Fact::VoteReply { pre: true, .. });
        if !asks && steps.last().is_none_or(|last| last.1 < message.term) {
            steps.push((message.at, message.term));
        }
    }
    steps
}

/// An entry that is applied was committed in a term that had begun; a leader of a later one has it.
fn leader_completeness(history: &History, applied: &BTreeMap<u64, &Applied>, found: &mut Found) {
    let terms = terms_by_time(history);
    let begun = |at: Micros| {
        let end = terms.partition_point(|step| step.0 <= at);
        terms[..end].last().map_or(0, |step| step.1)
    };
    for message in &history.messages {
        let Fact::Append { prev, entries: sent, .. } = &message.fact else { continue };
        let own = entries(*prev, sent).map(|(_, this, _)| this);
        for entry in std::iter::once(*prev).chain(own) {
            let Some(known) = applied.get(&entry.index) else { continue };
            if known.term != entry.term && known.at <= message.at && message.term > begun(known.at) {
                let text = format!(
                    "{:x} sent an entry of term {} for index {} as leader of term {}, and {:x} had applied one of \
                     term {} there in a term before",
                    message.from, entry.term, entry.index, message.term, known.node, known.term,
                );
                found.tell("raft/leader-completeness", message.at, text);
            }
        }
    }
}

fn monotonic(history: &History, found: &mut Found) {
    let mut last: BTreeMap<(u64, u32), (u64, u64)> = BTreeMap::new();
    for applied in &history.applied {
        let now = (applied.index, applied.term);
        let before = last.insert((applied.node, applied.incarnation), now).unwrap_or_default();
        if now.0 < before.0 || now.1 < before.1 {
            let text = format!(
                "{:x} applied index {} of term {} after index {} of term {}",
                applied.node, now.0, now.1, before.0, before.1
            );
            found.tell("raft/monotonic", applied.at, text);
        }
    }
    // The term that a message stands for; a pre-vote's is not its sender's yet.
    let mut terms: BTreeMap<u64, u64> = BTreeMap::new();
    // A restart may forget a term in which nothing was promised.
    let mut boots = history.boots.iter().peekable();
    for message in &history.messages {
        while let Some(boot) = boots.next_if(|boot| boot.at <= message.at) {
            terms.remove(&boot.node);
        }
        if matches!(message.fact, Fact::Vote { pre: true, .. } | Fact::VoteReply { pre: true, .. })
            || message.term == 0
        {
            continue;
        }
        let newest = terms.entry(message.from).or_default();
        if message.term < *newest {
            let text = format!("{:x} sent in term {} after term {newest}", message.from, message.term);
            found.tell("raft/monotonic", message.at, text);
        }
        *newest = (*newest).max(message.term);
    }
}

/// What a member has promised so far.
#[derive(Default)]
struct Promise {
    term: u64,
    /// Whom it voted for in that term.
    vote: u64,
    /// The newest index that it acknowledged in that term.
    matched: u64,
    /// The newest index that it acknowledged at all and that was applied by someone since.
    applied: u64,
}

/// The terms that leaders sent, by their own term and the index.
type Sent = BTreeMap<(u64, u64), u64>;

fn promise(message: &MessageFact, promises: &mut BTreeMap<u64, Promise>, sent: &mut Sent) {
    if let Fact::Append { prev, entries: all, .. } = &message.fact {
        sent.insert((message.term, prev.index), prev.term);
        for (_, this, _) in entries(*prev, all) {
            sent.insert((message.term, this.index), this.term);
        }
    }
    let (vote, matched) = match message.fact {
        Fact::VoteReply { pre: false, granted: true } => (message.to, 0),
        // One of index 0 says nothing of a log: it tells a leader of an older term that there is a newer one.
        Fact::AppendAccepted { matched } if matched > 0 => (0, matched),
        Fact::Append { .. } | Fact::Heartbeat { .. } | Fact::Snapshot { .. } => (message.from, 0),
        _ => return,
    };
    let promise = promises.entry(message.from).or_default();
    if message.term > promise.term {
        *promise = Promise { term: message.term, applied: promise.applied, ..Promise::default() };
    }
    if message.term == promise.term {
        promise.matched = promise.matched.max(matched);
        if vote != 0 {
            promise.vote = vote;
        }
    }
}

fn keeps(boot: &Boot, promise: &Promise, sent: &Sent) -> Option<String> {
    let (node, term) = (boot.node, promise.term);
    if boot.term < term {
        return Some(format!(
            "{node:x} came back in term {}, and had promised something in term {term}",
            boot.term
        ));
    }
    if boot.last.index < promise.applied {
        return Some(format!(
            "{node:x} came back with a log up to {}, and had applied index {}",
            boot.last.index, promise.applied
        ));
    }
    if boot.term > term {
        // A later leader may have cut off what was not committed.
        return None;
    }
    if promise.vote != 0 && boot.vote != promise.vote {
        return Some(format!(
            "{node:x} came back without its vote for {:x} in term {term}: it has {:x}",
            promise.vote, boot.vote
        ));
    }
    if boot.last.index < promise.matched {
        return Some(format!(
            "{node:x} came back with a log up to {}, and had acknowledged index {} in term {term}",
            boot.last.index, promise.matched
        ));
    }
    let (wanted, has) = (sent.get(&(term, promise.matched)), boot.term_at(promise.matched));
    match (wanted, has) {
        (Some(wanted), Some(has)) if *wanted != has => Some(format!(
            "{node:x} came back with an entry of term {has} at index {}, and had acknowledged one of term {wanted}",
            promise.matched
        )),
        _ => None,
    }
}

fn durable(history: &History, found: &mut Found) {
    let mut promises: BTreeMap<u64, Promise> = BTreeMap::new();
    let mut sent = Sent::new();
    let mut messages = history.messages.iter().peekable();
    let mut applied = history.applied.iter().peekable();
    for boot in &history.boots {
        while let Some(message) = messages.next_if(|message| message.at <= boot.at) {
            promise(message, &mut promises, &mut sent);
        }
        while let Some(applied) = applied.next_if(|applied| applied.at <= boot.at) {
            let promise = promises.entry(applied.node).or_default();
            promise.applied = promise.applied.max(applied.index);
        }
        if boot.forgets {
            promises.remove(&boot.node);
            continue;
        }
        if let Some(text) = promises.get(&boot.node).and_then(|promise| keeps(boot, promise, &sent)) {
            found.tell("raft/durable", boot.at, text);
        }
        if boot.applied > boot.last.index {
            let text = format!(
                "{:x} came back with tables at index {} and a log up to {}",
                boot.node, boot.applied, boot.last.index
            );
            found.tell("raft/durable", boot.at, text);
        }
    }
}

/// Checks what members sent, applied and recovered.
pub fn check(history: &History) -> Vec<Violation> {
    let mut found = Found::default();
    one_leader(history, &mut found);
    one_vote(history, &mut found);
    log_matching(history, &mut found);
    let applied = applied_entries(history, &mut found);
    leader_completeness(history, &applied, &mut found);
    raft_quorum::check(history, &applied, &mut found);
    monotonic(history, &mut found);
    durable(history, &mut found);
    raft_leader::own_term(history, &mut found);
    raft_leader::keeps(history, &mut found);
    raft_leader::told(history, &mut found);
    raft_leader::campaigns(history, &mut found);
    raft_leader::one_change(history, &mut found);
    raft_leader::configs(history, &mut found);
    found.0
}
