//! Reads that wait for their index (thesis section 6.4).
//!
//! A leader collects reads, opens a *round* for all of them, and sends its id with the heartbeats; once a quorum
//! has answered this round or a later one, the commit index of the round's opening is the reads' index. A reply
//! to round 7 proves that the leader led after round 7 was opened, so it counts for rounds 1 to 7. Round ids
//! never come again: (term, counter), and a term has one leader.
//!
//! A follower sends one question at a time for all its reads; more wait for the next. A question that is not
//! answered in time is put again under a new id, for the reads that have come in since as well. Whichever answer comes
//! counts for the reads that were there when its question was put: where an answer takes longer than the time that is
//! given to it, reads are late, and still are answered.

use std::collections::VecDeque;

use bytes::{BufMut, Bytes, BytesMut};

use super::ReadId;
use crate::types::{Index, NodeId, Term};

/// Who wants to know.
#[derive(Debug)]
pub(super) enum Asker {
    Here(ReadId),
    Peer { from: NodeId, context: Bytes },
}

#[derive(Debug)]
pub(super) struct Round {
    pub id: u64,
    pub index: Index,
    pub askers: Vec<Asker>,
}

/// A leader's reads.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    /// For the next round.
    pub waiting: Vec<Asker>,
    /// Under way, oldest first.
    open: VecDeque<Round>,
    last: u64,
    count: usize,
}

impl Rounds {
    pub fn count(&self) -> usize {
        self.count
    }

    pub fn push(&mut self, asker: Asker) {
        self.count += 1;
        self.waiting.push(asker);
    }

    pub fn idle(&self) -> bool {
        self.open.is_empty()
    }

    /// Opens a round for all that wait, with an index that covers all that was committed until now.
    pub fn open(&mut self, index: Index) {
        self.last += 1;
        let askers = std::mem::take(&mut self.waiting);
        self.open.push_back(Round { id: self.last, index, askers });
    }

    /// What heartbeats carry: the newest open round.
    pub fn context(&self, term: Term) -> Bytes {
        self.open.back().map_or_else(Bytes::new, |round| context(term.0, round.id))
    }

    /// The round that a reply names, if it is one of this leader's.
    pub fn of_reply(&self, term: Term, reply: &[u8]) -> Option<u64> {
        let (of, id) = parse_context(reply)?;
        (of == term.0 && id <= self.last).then_some(id)
    }

    /// Takes the rounds up to `confirmed`.
    pub fn take(&mut self, confirmed: u64) -> Vec<Round> {
        let mut done = Vec::new();
        while let Some(round) = self.open.pop_front_if(|round| round.id <= confirmed) {
            self.count -= round.askers.len();
            done.push(round);
        }
        done
    }

    /// The reads of this member's own clients, when the leader is one no more.
    pub fn into_own(self) -> impl Iterator<Item = ReadId> {
        let open = self.open.into_iter().flat_map(|round| round.askers);
        open.chain(self.waiting).filter_map(|asker| match asker {
            Asker::Here(id) => Some(id),
            Asker::Peer { .. } => None,
        })
    }
}

/// A follower's reads.
#[derive(Debug, Default)]
pub(super) struct Questions {
    /// For the next question.
    waiting: Vec<ReadId>,
    /// Under way, oldest first: each with the reads that came in since the one before it.
    asked: VecDeque<Question>,
    /// Ticks since the newest question, which is due again when they are too many.
    ticks: u64,
    overdue: bool,
}

#[derive(Debug)]
struct Question {
    context: Bytes,
    ids: Vec<ReadId>,
}

/// Questions under way to which an answer still counts.
const QUESTIONS_MAX: usize = 16;

impl Questions {
    pub fn count(&self) -> usize {
        self.waiting.len() + self.asked.iter().map(|question| question.ids.len()).sum::<usize>()
    }

    pub fn push(&mut self, id: ReadId) {
        self.waiting.push(id);
    }

    /// Whether a question is due.
    pub fn due(&self) -> bool {
        self.overdue || self.asked.is_empty() && !self.waiting.is_empty()
    }

    /// The reads that wait go out under this id, and all earlier ones with them.
    pub fn ask(&mut self, context: Bytes) {
        let ids = std::mem::take(&mut self.waiting);
        self.asked.push_back(Question { context, ids });
        (self.ticks, self.overdue) = (0, false);
        if self.asked.len() > QUESTIONS_MAX
            && let Some(oldest) = self.asked.pop_front()
            && let Some(next) = self.asked.front_mut()
        {
            next.ids.splice(0..0, oldest.ids);
        }
    }

    /// After `ticks_max` ticks without an answer another question is due.
    pub fn tick(&mut self, ticks_max: u64) {
        if !self.asked.is_empty() {
            self.ticks += 1;
            self.overdue = self.ticks >= ticks_max;
        }
    }

    /// The reads that an answer is for: those of its question, and of the earlier ones.
    pub fn answered(&mut self, context: &Bytes) -> Vec<ReadId> {
        let Some(at) = self.asked.iter().position(|question| question.context == *context) else {
            return Vec::new();
        };
        let ids = self.asked.drain(..=at).flat_map(|question| question.ids).collect();
        if self.asked.iter().all(|question| question.ids.is_empty()) {
            self.asked.clear();
        }
        self.overdue &= !self.asked.is_empty();
        ids
    }

    pub fn into_all(self) -> impl Iterator<Item = ReadId> {
        self.asked.into_iter().flat_map(|question| question.ids).chain(self.waiting)
    }
}

/// Two numbers as an opaque id.
pub(super) fn context(high: u64, low: u64) -> Bytes {
    let mut bytes = BytesMut::with_capacity(16);
    bytes.put_u64(high);
    bytes.put_u64(low);
    bytes.freeze()
}

fn parse_context(bytes: &[u8]) -> Option<(u64, u64)> {
    let bytes: [u8; 16] = bytes.try_into().ok()?;
    let number = u128::from_be_bytes(bytes);
    Some(((number >> 64) as u64, number as u64))
}
