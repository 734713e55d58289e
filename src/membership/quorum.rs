//! Majorities of one configuration and of joint ones.
//!
//! An empty half has no say: it commits anything and wins any vote, so that a configuration that is not joint
//! needs no case of its own. Both halves empty therefore means "no objection"; raft lets nobody campaign there.

use std::collections::BTreeSet;

use crate::types::{Index, NodeId};

/// How a vote stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VoteResult {
    /// A quorum agreed.
    Won,
    /// No quorum can agree any more.
    Lost,
    /// It is open.
    Pending,
}

/// The quorums of a configuration: a majority of each half.
#[derive(Clone, Copy, Debug)]
pub struct JointQuorum<'a> {
    /// The voters, of the half to come while joint.
    pub incoming: &'a BTreeSet<NodeId>,
    /// The voters of the half to be left; empty unless joint.
    pub outgoing: &'a BTreeSet<NodeId>,
}

impl JointQuorum<'_> {
    /// The largest value that a quorum has reached, where `reached` says how far each voter is.
    pub fn committed_index(&self, reached: impl Fn(NodeId) -> Index) -> Index {
        self.reached_by_quorum(|id| reached(id).0).map_or(Index(u64::MAX), Index)
    }

    /// As [`Self::committed_index`], for any ordered measure; None if there are no voters at all.
    pub fn reached_by_quorum<T: Ord + Copy>(&self, reached: impl Fn(NodeId) -> T) -> Option<T> {
        match (majority_reached(self.incoming, &reached), majority_reached(self.outgoing, &reached)) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (one, None) | (None, one) => one,
        }
    }

    /// How a vote stands, where `vote` gives what each voter said, if anything.
    pub fn vote_result(&self, vote: impl Fn(NodeId) -> Option<bool>) -> VoteResult {
        match (majority_vote(self.incoming, &vote), majority_vote(self.outgoing, &vote)) {
            (VoteResult::Lost, _) | (_, VoteResult::Lost) => VoteResult::Lost,
            (VoteResult::Pending, _) | (_, VoteResult::Pending) => VoteResult::Pending,
            (VoteResult::Won, VoteResult::Won) => VoteResult::Won,
        }
    }
}

fn majority_reached<T: Ord + Copy>(voters: &BTreeSet<NodeId>, reached: &impl Fn(NodeId) -> T) -> Option<T> {
    let mut values: Vec<T> = voters.iter().map(|id| reached(*id)).collect();
    values.sort_unstable();
    // Of n ascending values the one at (n - 1) / 2 is reached by n / 2 + 1 voters.
    values.get(values.len().saturating_sub(1) / 2).copied()
}

fn majority_vote(voters: &BTreeSet<NodeId>, vote: &impl Fn(NodeId) -> Option<bool>) -> VoteResult {
    if voters.is_empty() {
        return VoteResult::Won;
    }
    let majority = voters.len() / 2 + 1;
    let said = |what| voters.iter().filter(|id| vote(**id) == Some(what)).count();
    if said(true) >= majority {
        VoteResult::Won
    } else if voters.len() - said(false) < majority {
        VoteResult::Lost
    } else {
        VoteResult::Pending
    }
}
