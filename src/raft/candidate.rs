//! Elections (Raft section 5.2), asked about beforehand (thesis section 9.6).
//!
//! A candidate sends its requests only after its own vote and its log are durable. If it crashed before, it might
//! come back with less log, campaign in the same term again, and win with votes that it got for the longer one.

use std::collections::BTreeMap;

use super::{Body, LogId, Raft, core::Role};
use crate::{
    membership::VoteResult,
    types::{NodeId, Term},
};

/// Asks whether it would win.
#[derive(Debug)]
pub(super) struct PreCandidate {
    votes: BTreeMap<NodeId, bool>,
}

/// Campaigns in a term of its own.
#[derive(Debug)]
pub(super) struct Candidate {
    votes: BTreeMap<NodeId, bool>,
    /// The log that it campaigns with.
    last: LogId,
    /// Whether the leader told it to.
    transfer: bool,
    /// Whether the requests are out, and its own vote counts.
    asked: bool,
}

impl Raft {
    /// Starts a campaign, if this member may; `transfer` if the leader hands over, which needs no asking.
    pub(super) fn campaign(&mut self, transfer: bool) {
        if matches!(self.role, Role::Leader(_)) || !self.may_campaign() {
            return;
        }
        if transfer || !self.config.pre_vote {
            return self.become_candidate(transfer);
        }
        let votes = BTreeMap::from([(self.config.id, true)]);
        self.become_role(Role::PreCandidate(PreCandidate { votes }));
        self.request_votes(next_term(self.term), true, self.log.last(), false);
        self.count_votes();
    }

    fn may_campaign(&self) -> bool {
        // A configuration that is committed but not applied yet may have other quorums than the one known.
        let unapplied_change = !self.log.changes(self.log.applied(), self.log.commit()).is_empty();
        let unapplied_snapshot = self.log.applied() < self.log.base().index || self.log.installing();
        let voter = self.members.is_voter(self.config.id);
        voter && !unapplied_change && !unapplied_snapshot && !self.disk_is_stuck()
    }

    fn become_candidate(&mut self, transfer: bool) {
        self.enter(next_term(self.term), Some(self.config.id));
        let last = self.log.last();
        self.become_role(Role::Candidate(Candidate { votes: BTreeMap::new(), last, transfer, asked: false }));
    }

    fn request_votes(&mut self, term: Term, pre: bool, last: LogId, transfer: bool) {
        for id in self.members.voters() {
            if id != self.config.id {
                self.send_in(term, id, Body::Vote { pre, last, transfer });
            }
        }
    }

    /// A candidate's own vote is durable, perhaps: then it counts, and the others are asked.
    pub(super) fn ask_for_votes_if_durable(&mut self) {
        let Role::Candidate(Candidate { last, transfer, asked: false, .. }) = self.role else { return };
        if !self.promises_kept(last.index) {
            return;
        }
        let own = self.config.id;
        if let Role::Candidate(candidate) = &mut self.role {
            candidate.asked = true;
            candidate.votes.insert(own, true);
        }
        self.request_votes(self.term, false, last, transfer);
        self.count_votes();
    }

    pub(super) fn receive_vote_reply(&mut self, from: NodeId, term: Term, pre: bool, granted: bool) {
        match &mut self.role {
            // A grant names the term that it is for; a refusal comes in the voter's own.
            Role::PreCandidate(candidate) if pre && (!granted || term == next_term(self.term)) => {
                candidate.votes.entry(from).or_insert(granted);
            }
            Role::Candidate(candidate) if !pre && term == self.term => {
                candidate.votes.entry(from).or_insert(granted);
            }
            Role::PreCandidate(_) | Role::Candidate(_) | Role::Follower(_) | Role::Leader(_) => return,
        }
        self.count_votes();
    }

    /// Ends the campaign if it is decided.
    pub(super) fn count_votes(&mut self) {
        let (votes, asking) = match &self.role {
            Role::PreCandidate(candidate) => (&candidate.votes, true),
            Role::Candidate(candidate) => (&candidate.votes, false),
            Role::Follower(_) | Role::Leader(_) => return,
        };
        match self.members.quorum().vote_result(|id| votes.get(&id).copied()) {
            VoteResult::Won if asking => self.become_candidate(false),
            VoteResult::Won => self.become_leader(),
            VoteResult::Lost => self.follow(self.term, None),
            VoteResult::Pending => {}
        }
    }
}

fn next_term(term: Term) -> Term {
    Term(term.0 + 1)
}
