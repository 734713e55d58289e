//! What a follower does: it takes the leader's entries, votes, and forwards what only a leader can do.

use bytes::Bytes;

use super::{
    Body, Dropped, Entry, LogId, Payload, Raft, ReadId, Snapshot, StepError,
    core::Role,
    reads::{Asker, Questions, context},
};
use crate::{
    membership::Configuration,
    types::{Index, NodeId, Term},
};

#[derive(Debug, Default)]
pub(super) struct Follower {
    pub leader: Option<NodeId>,
    pub reads: Questions,
}

impl Raft {
    /// A message of this term's leader came: follow it.
    pub(super) fn hear_leader(&mut self, from: NodeId) -> Result<(), StepError> {
        let second = StepError::Malformed { from, what: "it leads in a term that another member leads in" };
        match &mut self.role {
            Role::Leader(_) => return Err(second),
            Role::Follower(Follower { leader: Some(leader), .. }) if *leader != from => return Err(second),
            Role::Follower(Follower { leader: Some(_), .. }) => self.elapsed = 0,
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => {
                self.follow(self.term, Some(from));
            }
        }
        Ok(())
    }

    pub(super) fn receive_append(
        &mut self,
        from: NodeId,
        prev: LogId,
        entries: Vec<Entry>,
        commit: Index,
    ) -> Result<(), StepError> {
        let own = self.log.term_at(prev.index);
        if own != Some(prev.term) && prev.index >= self.log.base().index {
            if prev.index <= self.log.commit() {
                return Err(StepError::Diverged { from, index: prev.index });
            }
            let hint = self.log.agree_at_most(prev.index, prev.term);
            self.send(from, Body::AppendRejected { prev: prev.index, hint });
            return Ok(());
        }
        let last = entries.last().map_or(prev.index, |entry| entry.index);
        self.log.merge(entries).map_err(|index| StepError::Diverged { from, index })?;
        self.verified = self.verified.max(last);
        self.log.commit_to(commit.min(last));
        // What is committed here is in the leader's log, whatever this append reaches.
        let matched = last.max(self.log.commit());
        self.send_when_durable(from, matched, Body::AppendAccepted { matched });
        Ok(())
    }

    pub(super) fn receive_heartbeat(&mut self, from: NodeId, commit: Index, context: Bytes) {
        // Entries of this term can only be from its one leader, and so can all before them (log matching).
        let last = self.log.last();
        let verified = if last.term == self.term { last.index } else { self.verified };
        self.log.commit_to(commit.min(verified));
        self.send(from, Body::HeartbeatReply { context, state: self.mark });
    }

    pub(super) fn receive_snapshot(&mut self, from: NodeId, snapshot: Snapshot) -> Result<(), StepError> {
        let last = snapshot.meta.last;
        let members = Configuration::try_from(&snapshot.meta.config)
            .map_err(|_| StepError::Malformed { from, what: "its snapshot's configuration is not one" })?;
        // One at a time: the sender counts a snapshot as lost in time, and probes anyway.
        if self.log.installing() {
            return Ok(());
        }
        let useless = last.index <= self.log.commit() || !members.contains(self.config.id);
        if useless {
            let matched = self.log.commit();
            self.send_when_durable(from, matched, Body::AppendAccepted { matched });
            return Ok(());
        }
        self.verified = self.verified.max(last.index);
        if self.log.term_at(last.index) == Some(last.term) {
            // The log has all that the snapshot covers; so it is committed.
            self.log.commit_to(last.index);
        } else {
            self.log.restore(snapshot);
            self.restore_members(last.index, members);
        }
        self.send_when_durable(from, last.index, Body::AppendAccepted { matched: last.index });
        Ok(())
    }

    /// Answers a candidate (Raft sections 5.2 and 5.4.1), or one that asks whether to become one.
    pub(super) fn receive_vote(&mut self, from: NodeId, term: Term, pre: bool, last: LogId) {
        let free = self.vote.is_none() && self.leader().is_none();
        let may = self.vote == Some(from) || free || (pre && term > self.term);
        if !may || last < self.log_to_match(from) {
            return self.send(from, Body::VoteReply { pre, granted: false });
        }
        if pre {
            return self.send_in(term, from, Body::VoteReply { pre, granted: true });
        }
        self.vote = Some(from);
        self.elapsed = 0;
        self.send_when_durable(from, Index(0), Body::VoteReply { pre, granted: true });
    }

    /// The log that a candidate's must not be behind.
    ///
    /// A voter's whole log may be what a commit rests on. That of a member that votes no more, and has no change
    /// in its log that could make it vote again, is not; beyond what it knows committed it may even hold entries
    /// that nobody else will ever see, from when it led. Asked it is only by a candidate that has the change in
    /// its log but does not know it committed, and may have to have this vote. To give it is safe: such a
    /// candidate is one configuration behind, and its quorum without this member still overlaps every quorum of
    /// the new configuration, as a change takes the vote from one member at most, or from members of an outgoing
    /// half.
    ///
    /// Nor does anything rest on the log of one that is to vote with a candidate that was the only voter before: until
    /// a second change, each quorum has the candidate in it. It may have lost what it had sent before it was durable
    /// there; if this member, which can't campaign before it knows the change committed, held that against it, there
    /// were never a leader again.
    fn log_to_match(&self, candidate: NodeId) -> LogId {
        let last = self.log.last();
        let commit = self.log.commit();
        let votes = self.members.is_voter(self.config.id) || self.members.members().next().is_none();
        let changes = self.log.changes(self.log.applied(), last.index).len();
        let may_come_to_vote = match changes {
            0 => false,
            1 => !self.members.voters().into_iter().eq([candidate]),
            _ => true,
        };
        if votes || may_come_to_vote {
            return last;
        }
        LogId { term: self.log.term_at(commit).unwrap_or(last.term), index: commit }
    }

    pub(super) fn propose(&mut self, payloads: Vec<Payload>) -> Result<(), StepError> {
        match &self.role {
            Role::Leader(_) => self.propose_here(payloads),
            Role::Follower(Follower { leader: Some(leader), .. }) => {
                self.send_in(Term(0), *leader, Body::Propose { payloads });
                Ok(())
            }
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => {
                Err(StepError::ProposalDropped(Dropped::NoLeader))
            }
        }
    }

    pub(super) fn receive_proposal(&mut self, from: NodeId, payloads: Vec<Payload>) -> Result<(), StepError> {
        match &self.role {
            Role::Leader(_) => {
                let payloads = self.without_refused_changes(payloads);
                self.propose_here(payloads)
            }
            // Passed on, unless to where it comes from: two members that take each other for the leader would
            // pass it back and forth.
            Role::Follower(Follower { leader: Some(leader), .. }) if *leader != from => {
                self.send_in(Term(0), *leader, Body::Propose { payloads });
                Ok(())
            }
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => {
                Err(StepError::ProposalDropped(Dropped::NoLeader))
            }
        }
    }

    pub(super) fn read(&mut self, id: ReadId) -> Result<(), StepError> {
        let reads_max = self.config.reads_max;
        match &mut self.role {
            Role::Leader(leader) if leader.rounds.count() < reads_max => leader.rounds.push(Asker::Here(id)),
            Role::Follower(Follower { leader: Some(_), reads }) if reads.count() < reads_max => {
                reads.push(id)
            }
            Role::Leader(_) | Role::Follower(Follower { leader: Some(_), .. }) => {
                return Err(StepError::ReadDropped(Dropped::Overload));
            }
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => {
                return Err(StepError::ReadDropped(Dropped::NoLeader));
            }
        }
        Ok(())
    }

    /// A peer asks for a read index. If this is no leader (any more) the peer will ask again.
    pub(super) fn receive_question(&mut self, from: NodeId, context: Bytes) -> Result<(), StepError> {
        let reads_max = self.config.reads_max;
        match &mut self.role {
            Role::Leader(leader) if leader.rounds.count() < reads_max => {
                leader.rounds.push(Asker::Peer { from, context });
                Ok(())
            }
            Role::Leader(_) => Err(StepError::ReadDropped(Dropped::Overload)),
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => {
                Err(StepError::ReadDropped(Dropped::NoLeader))
            }
        }
    }

    /// Puts the next question to the leader, if reads wait and none is under way.
    pub(super) fn ask_due_reads(&mut self) {
        if let Role::Follower(Follower { leader: Some(leader), reads }) = &mut self.role
            && reads.due()
        {
            self.questions += 1;
            let context = context(self.nonce, self.questions);
            reads.ask(context.clone());
            let leader = *leader;
            self.send_in(Term(0), leader, Body::ReadIndex { context });
        }
    }

    pub(super) fn receive_answer(&mut self, index: Index, context: &Bytes) {
        if let Role::Follower(follower) = &mut self.role {
            let ids = follower.reads.answered(context);
            self.out.reads.extend(ids.into_iter().map(|id| (id, index)));
        }
    }
}
