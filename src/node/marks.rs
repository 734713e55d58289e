//! Whose state differs: the members' state hashes at the same index, compared by the leader.
//!
//! A hash chains all that was applied before it, so two members that agree at an index have agreed ever since
//! their last snapshot, and two that differ stay so. Members' runs of entries end anywhere; their marks meet at
//! multiples of [`MARK_EVERY`](crate::state::MARK_EVERY), and at the last index while nothing is written.

use std::collections::BTreeMap;

use crate::{
    membership::{Configuration, VoteResult},
    raft::StateMark,
    types::{Index, NodeId},
};

/// Own marks, and what peers say of theirs.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// This member's, where others' can meet them.
    own: BTreeMap<Index, u64>,
    /// Its newest, and whether a tick has passed since.
    last: Option<StateMark>,
    rested: bool,
    /// The newest that each peer has told this leader of, and what came of the last comparison.
    heard: BTreeMap<NodeId, (StateMark, Option<Verdict>)>,
    /// How often in a row some differed, and who was not heard of since would have decided who is right.
    undecided: u64,
}

/// So often the word of those is waited for who were not heard of since some differ: they may be down.
const UNDECIDED_MAX: u64 = 20;

#[derive(Clone, Copy, Debug)]
enum Verdict {
    /// It was as the own one at this index.
    Agrees(Index),
    /// It is not, from this index on.
    Differs(Index),
}

impl Marks {
    /// Entries were applied: marks at the indices where members' marks meet, and the one at the end. Gives the
    /// one that peers are to be told.
    pub fn applied(
        &mut self,
        meeting: &[StateMark],
        last: Option<StateMark>,
        max: usize,
    ) -> Option<StateMark> {
        self.last = last;
        self.rested = false;
        for mark in meeting {
            self.keep(*mark, max);
        }
        meeting.last().copied()
    }

    /// All state was replaced.
    pub fn replaced(&mut self) {
        *self = Self::default();
    }

    /// A tick has passed. Gives the mark that peers are to be told if nothing was applied since the last one.
    pub fn tick(&mut self, max: usize) -> Option<StateMark> {
        let rested = std::mem::replace(&mut self.rested, true);
        let last = self.last.filter(|mark| rested && !self.own.contains_key(&mark.index))?;
        self.keep(last, max);
        Some(last)
    }

    fn keep(&mut self, mark: StateMark, max: usize) {
        self.own.insert(mark.index, mark.hash);
        while self.own.len() > max {
            self.own.pop_first();
        }
    }

    /// What was heard was heard as another term's leader.
    pub fn forget_peers(&mut self) {
        self.heard.clear();
    }

    /// A peer told of its mark.
    pub fn heard(&mut self, from: NodeId, mark: StateMark) {
        let verdict = match self.heard.get(&from) {
            // Heartbeats may come out of order.
            Some((newer, _)) if newer.index > mark.index => return,
            Some((_, verdict)) => *verdict,
            None => None,
        };
        self.heard.insert(from, (mark, verdict));
    }

    /// Whose state differs from a quorum's, as far as is known: peers, or `me`.
    pub fn differing(&mut self, me: NodeId, config: &Configuration) -> Vec<NodeId> {
        self.heard.retain(|id, _| config.contains(*id));
        for (mark, verdict) in self.heard.values_mut() {
            // Where there is no own mark (yet), what the last comparison said stands.
            if let Some(hash) = self.own.get(&mark.index) {
                *verdict = Some(match verdict {
                    _ if *hash == mark.hash => Verdict::Agrees(mark.index),
                    Some(Verdict::Differs(first)) => Verdict::Differs(*first),
                    Some(Verdict::Agrees(_)) | None => Verdict::Differs(mark.index),
                });
            }
        }
        let mut first = Index(u64::MAX);
        let mut differing: Vec<(NodeId, StateMark)> = Vec::new();
        for (id, (mark, verdict)) in &self.heard {
            if let Some(Verdict::Differs(since)) = verdict {
                first = first.min(*since);
                differing.push((*id, *mark));
            }
        }
        if differing.is_empty() {
            self.undecided = 0;
            return Vec::new();
        }
        let quorum = config.quorum();
        // To have agreed before the first difference says nothing of who is right since.
        let agrees = |id| match self.heard.get(&id) {
            _ if id == me => Some(true),
            Some((_, Some(Verdict::Agrees(at)))) if *at >= first => Some(true),
            Some((_, Some(Verdict::Differs(_)))) => Some(false),
            Some((_, Some(Verdict::Agrees(_)) | None)) | None => None,
        };
        match quorum.vote_result(agrees) {
            VoteResult::Won => return differing.into_iter().map(|(id, _)| id).collect(),
            VoteResult::Pending => return Vec::new(),
            VoteResult::Lost => {}
        }
        let has_quorum = |mark: StateMark| {
            quorum.vote_result(|id| Some(differing.contains(&(id, mark)))) == VoteResult::Won
        };
        if differing.iter().any(|(_, mark)| has_quorum(*mark)) {
            return vec![me];
        }
        let may_have_quorum = |mark: StateMark| {
            let has_it = |id| agrees(id).map(|agrees| !agrees && differing.contains(&(id, mark)));
            quorum.vote_result(has_it) != VoteResult::Lost
        };
        if self.undecided < UNDECIDED_MAX && differing.iter().any(|(_, mark)| may_have_quorum(*mark)) {
            self.undecided += 1;
            return Vec::new();
        }
        // No state has a quorum. What was heard of different indices may yet turn out to be one state; of one
        // index it is not, and then the leader's word stands, as in etcd: better stop all than go on like that.
        let mut indices = differing.iter().filter(|(id, _)| config.is_voter(*id)).map(|(_, mark)| mark.index);
        let first = indices.next();
        if indices.all(|index| Some(index) == first) {
            return differing.into_iter().map(|(id, _)| id).collect();
        }
        Vec::new()
    }
}
