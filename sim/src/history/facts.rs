//! What was seen of the members themselves, and of locks.
//!
//! Here members go by their raft ids. Numbers are bare, as in the files.

use std::collections::BTreeSet;

use kontiki::{
    raft::{Body, Entry, HardState, LogId, Message, Payload, StateMark},
    types::{NodeId, Term},
};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::Micros;

/// What kind of thing is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeldKind {
    /// A lock.
    Lock,
    /// The leadership of an election.
    Election,
}

/// A lock or a leadership for as long as its holder, a client library, believed to have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Lock or election.
    pub kind: HeldKind,
    /// Its name: the prefix of the keys that wait for it.
    pub name: String,
    /// The holder's key.
    pub key: String,
    /// The revision that made that key.
    pub created: i64,
    /// The lease that the key is on.
    pub lease: i64,
    /// Who holds it.
    pub client: u32,
    /// When the answer came that said so.
    pub from: Micros,
    /// When it began to give it up, or saw its session's end; none if it held on to the end of the recording.
    pub until: Option<Micros>,
}

/// A batch that a member's backend took.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// When.
    pub at: Micros,
    /// Whose.
    pub node: u64,
    /// Which start of that member, from 0.
    pub incarnation: u32,
    /// The applied index that it brings the tables to.
    pub index: u64,
    /// The term of the entry there.
    pub term: u64,
    /// The state hash there, if it was read.
    pub hash: Option<u64>,
    /// The store's revision there, if it was read.
    pub revision: Option<i64>,
    /// Whether it replaced everything: a snapshot's.
    pub snapshot: bool,
}

/// The last entry of something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LogFact {
    /// Its term, which compares first.
    pub term: u64,
    /// Its index.
    pub index: u64,
}

impl From<LogId> for LogFact {
    fn from(id: LogId) -> Self {
        Self { term: id.term.0, index: id.index.0 }
    }
}

/// An entry: its index follows from its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryFact {
    /// Its term.
    pub term: u64,
    /// A hash of what it asks for.
    pub hash: u64,
    /// Whether it changes the members.
    #[serde(default)]
    pub change: bool,
}

impl From<&Entry> for EntryFact {
    fn from(entry: &Entry) -> Self {
        let hash = match &entry.payload {
            Payload::Empty => 0,
            Payload::Command(bytes) => xxh3_64(bytes),
            Payload::Change(change) => xxh3_64(format!("{change:?}").as_bytes()),
        };
        Self { term: entry.term.0, hash, change: matches!(entry.payload, Payload::Change(_)) }
    }
}

/// A state hash at an applied index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MarkFact {
    /// The applied index.
    pub index: u64,
    /// The hash there.
    pub hash: u64,
}

impl From<StateMark> for MarkFact {
    fn from(mark: StateMark) -> Self {
        Self { index: mark.index.0, hash: mark.hash }
    }
}

/// A message between members, as it was sent; it may never have arrived.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageFact {
    /// When it left its sender.
    pub at: Micros,
    /// Who sent it.
    pub from: u64,
    /// To whom.
    pub to: u64,
    /// The sender's term; a pre-vote's is the one it would campaign in.
    pub term: u64,
    /// What it says.
    pub fact: Fact,
}

/// What a message says, as far as an oracle wants to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Fact {
    /// Entries behind `prev`.
    Append { prev: LogFact, entries: Vec<EntryFact>, commit: u64 },
    /// The sender's log is the leader's up to `matched`, durably.
    AppendAccepted { matched: u64 },
    /// The sender's log does not hold `prev`.
    AppendRejected { prev: u64, hint: LogFact },
    /// Asks for a vote, or (`pre`) whether one would be given.
    Vote { pre: bool, last: LogFact, transfer: bool },
    /// The answer.
    VoteReply { pre: bool, granted: bool },
    /// A snapshot up to `last`.
    Snapshot {
        last: LogFact,
        /// The voters and learners that it names; none if that was not recorded.
        #[serde(default)]
        config: Option<(Vec<u64>, Vec<u64>)>,
    },
    /// The leader is there.
    Heartbeat { commit: u64, mark: Option<MarkFact> },
    /// The follower is there.
    HeartbeatReply { mark: Option<MarkFact> },
    /// The index that a follower's reads must wait for.
    ReadIndexReply { index: u64 },
}

impl MessageFact {
    /// What `message`, sent at `at`, says; none for kinds that promise nothing.
    pub fn of(at: Micros, message: &Message) -> Option<Self> {
        let fact = match &message.body {
            Body::Append { prev, entries, commit } => Fact::Append {
                prev: (*prev).into(),
                entries: entries.iter().map(EntryFact::from).collect(),
                commit: commit.0,
            },
            Body::AppendAccepted { matched } => Fact::AppendAccepted { matched: matched.0 },
            Body::AppendRejected { prev, hint } => {
                Fact::AppendRejected { prev: prev.0, hint: (*hint).into() }
            }
            Body::Vote { pre, last, transfer } => {
                Fact::Vote { pre: *pre, last: (*last).into(), transfer: *transfer }
            }
            Body::VoteReply { pre, granted } => Fact::VoteReply { pre: *pre, granted: *granted },
            Body::Snapshot(snapshot) => {
                let ids = |set: &BTreeSet<NodeId>| set.iter().map(|id| id.0).collect();
                let config = &snapshot.meta.config;
                Fact::Snapshot {
                    last: snapshot.meta.last.into(),
                    config: Some((ids(&config.voters), ids(&config.learners))),
                }
            }
            Body::Heartbeat { commit, state, .. } => {
                Fact::Heartbeat { commit: commit.0, mark: state.map(MarkFact::from) }
            }
            Body::HeartbeatReply { state, .. } => Fact::HeartbeatReply { mark: state.map(MarkFact::from) },
            Body::ReadIndexReply { index, .. } => Fact::ReadIndexReply { index: index.0 },
            Body::Propose { .. }
            | Body::TransferLeader { .. }
            | Body::TimeoutNow
            | Body::ReadIndex { .. } => return None,
        };
        let Term(term) = message.term;
        Some(Self { at, from: message.from.0, to: message.to.0, term, fact })
    }
}

/// A configuration that a member took to: from its entry's application on, as etcd does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// When.
    pub at: Micros,
    /// Who.
    pub node: u64,
    /// The index of its entry; 0 for the first.
    pub index: u64,
    /// Voters of the incoming half.
    pub voters: Vec<u64>,
    /// Voters of the outgoing half; empty unless joint.
    pub outgoing: Vec<u64>,
    /// Learners.
    pub learners: Vec<u64>,
    /// How far it had committed when it took to it; none if that was not recorded.
    #[serde(default)]
    pub committed: Option<u64>,
}

/// Log entries of one term, from `first` to the next run's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TermRun {
    /// The first index.
    pub first: u64,
    /// The term.
    pub term: u64,
}

/// A member's start, with what it found on its disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    /// When.
    pub at: Micros,
    /// Who.
    pub node: u64,
    /// Which start of that member, from 0.
    pub incarnation: u32,
    /// Whether it is known to come back without what it had made durable (a new or wiped disk, rot that was cut out):
    /// what it promised before does not bind it, and it is another member or has no vote.
    pub forgets: bool,
    /// The recovered hard state: term.
    pub term: u64,
    /// The recovered hard state: vote; 0 for none.
    pub vote: u64,
    /// The recovered hard state: commit.
    pub commit: u64,
    /// The base of the recovered log.
    pub base: LogFact,
    /// The last entry of the recovered log.
    pub last: LogFact,
    /// The terms of the entries behind the base.
    pub log: Vec<TermRun>,
    /// The applied index of the recovered tables.
    pub applied: u64,
}

impl Boot {
    /// A start without promises, to be filled in.
    pub fn new(at: Micros, node: u64, incarnation: u32) -> Self {
        Self {
            at,
            node,
            incarnation,
            forgets: false,
            term: 0,
            vote: 0,
            commit: 0,
            base: LogFact::default(),
            last: LogFact::default(),
            log: Vec::new(),
            applied: 0,
        }
    }

    /// Takes in what the log's recovery found.
    pub fn recovered(mut self, hard: &HardState, base: LogId, entries: &[Entry]) -> Self {
        self.term = hard.term.0;
        self.vote = hard.vote.map_or(0, |vote| vote.0);
        self.commit = hard.commit.0;
        self.base = base.into();
        self.last = self.base;
        for entry in entries {
            if self.log.last().is_none_or(|run| run.term != entry.term.0) {
                self.log.push(TermRun { first: entry.index.0, term: entry.term.0 });
            }
            self.last = LogFact { term: entry.term.0, index: entry.index.0 };
        }
        self
    }

    /// The term that the recovered log has at `index`; none if it does not reach there, or has it behind its base.
    pub fn term_at(&self, index: u64) -> Option<u64> {
        if index == self.base.index {
            return Some(self.base.term);
        }
        if index < self.base.index || index > self.last.index {
            return None;
        }
        self.log.iter().rev().find(|run| run.first <= index).map(|run| run.term)
    }
}

/// A member is up: calls to an address reach it from now on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Up {
    /// When.
    pub at: Micros,
    /// The address, as calls and watches name it.
    pub member: u32,
    /// Who serves there.
    pub node: u64,
}

/// The end of a member's process, wished or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Crash {
    /// When.
    pub at: Micros,
    /// Who.
    pub node: u64,
    /// Which start of that member ended.
    pub incarnation: u32,
}
