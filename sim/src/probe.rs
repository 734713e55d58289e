//! What a run shows: a rolling hash of all that happens, and the trace of it when somebody wants to read it.

use std::{
    collections::BTreeMap,
    hash::Hasher,
    sync::{Arc, Mutex, MutexGuard},
};

use kontiki::{
    raft::{Body, Message},
    wire::etcdserverpb as pb,
};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use crate::{history::Outcome, host::Micros, lock::lock, net::Address};

/// What happened, for a reader: the report draws it, `replay` prints it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Event {
    /// A member's process starts.
    Start {
        /// Where.
        member: Address,
    },
    /// It serves.
    Up {
        /// Where.
        member: Address,
        /// Its id.
        id: String,
    },
    /// It ended by itself, or could not start.
    Exit {
        /// Where.
        member: Address,
        /// Why.
        why: String,
    },
    /// It was ended.
    Crash {
        /// Where.
        member: Address,
        /// How.
        how: String,
    },
    /// A fault begins or ends.
    Fault {
        /// Of a member; 0 for one of the network.
        member: Address,
        /// Which.
        text: String,
    },
    /// A message goes out.
    Send {
        /// Its number.
        number: u64,
        /// From where.
        from: Address,
        /// To where.
        to: Address,
        /// What kind it is.
        kind: String,
        /// The sender's term.
        term: u64,
        /// What else it says.
        detail: String,
    },
    /// It comes in.
    Deliver {
        /// Its number.
        number: u64,
    },
    /// It never does.
    Lose {
        /// Its number.
        number: u64,
    },
    /// Tables took a batch.
    Applied {
        /// Where.
        member: Address,
        /// The applied index.
        index: u64,
        /// The term of its entry.
        term: u64,
        /// The state hash there.
        hash: u64,
    },
    /// Who leads, as a member sees it.
    Lead {
        /// Who sees it.
        member: Address,
        /// The term.
        term: u64,
        /// Whether it is the member itself.
        leads: bool,
    },
    /// A client's call begins.
    Call {
        /// Its number in the history.
        op: u64,
        /// Whose.
        client: u32,
        /// To which member.
        member: Address,
        /// What it asks.
        text: String,
    },
    /// It ends.
    Return {
        /// Its number in the history.
        op: u64,
        /// What came of it.
        text: String,
    },
    /// A watch hears something.
    Watch {
        /// Whose.
        client: u32,
        /// What.
        text: String,
    },
    /// The run enters a phase.
    Phase {
        /// Which.
        name: String,
    },
}

/// An event and its moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traced {
    /// When.
    pub at: Micros,
    /// What.
    #[serde(flatten)]
    pub event: Event,
}

/// Sees everything. Clones are the same one.
#[derive(Clone)]
pub struct Probe(Arc<Mutex<Seen>>);

struct Seen {
    hash: Xxh3,
    now: Box<dyn Fn() -> Micros + Send>,
    messages: u64,
    kept: Option<Vec<Traced>>,
    counts: BTreeMap<&'static str, u64>,
    outcomes: BTreeMap<(&'static str, &'static str), u64>,
    cells: BTreeMap<(&'static str, &'static str), u64>,
}

impl Seen {
    fn fold_numbers(&mut self, kind: u8, numbers: &[u64]) {
        let now = (self.now)();
        self.hash.write_u8(kind);
        self.hash.write_u64(now);
        for &number in numbers {
            self.hash.write_u64(number);
        }
    }
}

impl Probe {
    /// A probe that takes the time from `now`, and keeps the trace if `keep`.
    pub fn new(now: impl Fn() -> Micros + Send + 'static, keep: bool) -> Self {
        let seen = Seen {
            hash: Xxh3::new(),
            now: Box::new(now),
            messages: 0,
            kept: keep.then(Vec::new),
            counts: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            cells: BTreeMap::new(),
        };
        Self(Arc::new(Mutex::new(seen)))
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        lock(&self.0)
    }

    /// The hash of all that has happened.
    pub fn hash(&self) -> u64 {
        self.lock().hash.digest()
    }

    /// The trace, if it was kept.
    pub fn take_trace(&self) -> Vec<Traced> {
        self.lock().kept.take().unwrap_or_default()
    }

    /// How often what was counted happened.
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.lock().counts.clone()
    }

    /// Counts something for the coverage report.
    pub fn count(&self, what: &'static str) {
        *self.lock().counts.entry(what).or_default() += 1;
    }

    /// How often this was asked for the same thing before.
    pub fn turn(&self, what: &'static str) -> u32 {
        let mut seen = self.lock();
        let turns = seen.counts.entry(what).or_default();
        *turns += 1;
        *turns as u32 - 1
    }

    /// Counts a fault by the state of the member that it hits.
    pub fn hit(&self, fault: &'static str, state: &'static str) {
        *self.lock().cells.entry((fault, state)).or_default() += 1;
    }

    /// How often each fault hit a member in each state.
    pub fn hits(&self) -> BTreeMap<(&'static str, &'static str), u64> {
        self.lock().cells.clone()
    }

    /// Makes bytes part of the hash.
    pub fn fold(&self, bytes: &[u8]) {
        let mut seen = self.lock();
        let now = (seen.now)();
        seen.hash.write_u64(now);
        seen.hash.update(bytes);
    }

    /// Keeps an event, which is made only if there is a trace.
    pub fn event(&self, event: impl FnOnce() -> Event) {
        let mut seen = self.lock();
        if seen.kept.is_some() {
            let traced = Traced { at: (seen.now)(), event: event() };
            seen.kept.as_mut().expect("it was looked at just now").push(traced);
        }
    }

    fn fold_numbers(&self, kind: u8, numbers: &[u64]) {
        self.lock().fold_numbers(kind, numbers);
    }

    /// A message goes out; gives its number.
    pub fn sent(&self, from: Address, to: Address, message: &Message) -> u64 {
        let number = {
            let mut seen = self.lock();
            seen.messages += 1;
            seen.messages
        };
        self.event(|| {
            let (kind, detail) = describe(&message.body);
            Event::Send { number, from, to, kind: kind.to_owned(), term: message.term.0, detail }
        });
        number
    }

    /// It comes in.
    pub fn delivered(&self, number: u64, to: Address, bytes: &[u8]) {
        {
            let mut seen = self.lock();
            seen.fold_numbers(1, &[number, u64::from(to)]);
            seen.hash.update(bytes);
        }
        self.event(|| Event::Deliver { number });
    }

    /// It never does.
    pub fn lost(&self, number: u64) {
        self.fold_numbers(2, &[number]);
        self.count("message lost");
        self.event(|| Event::Lose { number });
    }

    /// A client's call ended so.
    pub fn outcome(&self, call: &'static str, outcome: &Outcome) {
        let how = match outcome {
            Outcome::Ok(_) => "ok",
            Outcome::Refused { .. } => "refused",
            Outcome::Unknown(_) => "unknown",
        };
        *self.lock().outcomes.entry((call, how)).or_default() += 1;
    }

    /// How calls ended.
    pub fn outcomes(&self) -> BTreeMap<(&'static str, &'static str), u64> {
        self.lock().outcomes.clone()
    }

    /// A watch hears something.
    pub fn watch(&self, response: &pb::WatchResponse) {
        self.count(match response {
            r if r.created => "watch created",
            r if r.canceled && r.compact_revision > 0 => "watch canceled by compaction",
            r if r.canceled => "watch canceled",
            r if r.fragment => "watch fragment",
            r if r.events.is_empty() => "watch progress",
            _ => "watch events",
        });
    }

    /// Tables took a batch.
    pub fn applied(&self, member: Address, index: u64, term: u64, hash: u64) {
        self.fold_numbers(3, &[u64::from(member), index, term, hash]);
        self.event(|| Event::Applied { member, index, term, hash });
    }
}

/// A message's kind and what it says, for a reader.
fn describe(body: &Body) -> (&'static str, String) {
    let none = String::new;
    match body {
        Body::Propose { payloads } => ("Propose", format!("{} entries", payloads.len())),
        Body::Append { prev, entries, commit } => {
            let last = entries.last().map_or(prev.index, |entry| entry.index);
            ("Append", format!("behind {}/{} up to {last}, commit {commit}", prev.term, prev.index))
        }
        Body::AppendAccepted { matched } => ("Accepted", format!("up to {matched}")),
        Body::AppendRejected { prev, hint } => {
            ("Rejected", format!("behind {prev}, try {}/{}", hint.term, hint.index))
        }
        Body::Vote { pre, last, transfer } => {
            let how = if *transfer { ", by transfer" } else { "" };
            (if *pre { "PreVote" } else { "Vote" }, format!("last {}/{}{how}", last.term, last.index))
        }
        Body::VoteReply { pre, granted } => {
            let kind = if *pre { "PreVoteReply" } else { "VoteReply" };
            (kind, (if *granted { "granted" } else { "refused" }).to_owned())
        }
        Body::Snapshot(snapshot) => ("Snapshot", format!("at {}", snapshot.meta.last.index)),
        Body::Heartbeat { commit, .. } => ("Heartbeat", format!("commit {commit}")),
        Body::HeartbeatReply { .. } => ("HeartbeatReply", none()),
        Body::TransferLeader { target } => ("TransferLeader", format!("to {target}")),
        Body::TimeoutNow => ("TimeoutNow", none()),
        Body::ReadIndex { .. } => ("ReadIndex", none()),
        Body::ReadIndexReply { index, .. } => ("ReadIndexReply", format!("index {index}")),
    }
}
