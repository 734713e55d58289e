//! What a leader does: it replicates, commits, confirms reads, hands over, and steps down when it must.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{
    Body, Dropped, Entry, LogId, Payload, PeerStatus, PeerStatuses, Raft, Snapshot, StepError,
    core::Role,
    log::Log,
    progress::{Pace, Progress},
    reads::{Asker, Rounds},
};
use crate::{
    membership::{Change, Transition, VoteResult},
    types::{Index, NodeId},
};

/// Who is to lead next.
#[derive(Debug)]
struct Transfer {
    target: NodeId,
    ticks: u64,
}

#[derive(Debug)]
pub(super) struct Leader {
    /// The other members.
    peers: BTreeMap<NodeId, Progress>,
    pub rounds: Rounds,
    transfer: Option<Transfer>,
    /// No change of the configuration is proposed before this entry is applied: the last change, or what the
    /// log ended with when this member was elected, as there may be changes in it.
    last_change: Index,
    /// If it votes no more: its last entry.
    farewell: Option<Index>,
    since_heartbeat: u64,
    since_quorum: u64,
}

impl Leader {
    pub fn transferee(&self) -> Option<NodeId> {
        self.transfer.as_ref().map(|transfer| transfer.target)
    }
}

/// What the next append to a peer is.
enum Plan {
    Nothing,
    Snapshot,
    /// Entries from `next` on, or none.
    Append {
        entries: bool,
    },
}

impl Raft {
    pub(super) fn become_leader(&mut self) {
        assert!(self.vote == Some(self.config.id), "a leader has its own vote");
        let last = self.log.last().index;
        let others = self.members.members().filter(|id| *id != self.config.id);
        let peers = others.map(|id| (id, Progress::new(last.next(), false))).collect();
        self.become_role(Role::Leader(Leader {
            peers,
            rounds: Rounds::default(),
            transfer: None,
            last_change: last,
            farewell: None,
            since_heartbeat: 0,
            since_quorum: 0,
        }));
        // Entries of older terms commit only behind one of this term (Raft section 5.4.2).
        self.append_own(Payload::Empty);
    }

    fn append_own(&mut self, payload: Payload) {
        let index = self.log.last().index.next();
        if let (Role::Leader(leader), Payload::Change(_)) = (&mut self.role, &payload) {
            leader.last_change = index;
        }
        self.log.append(Entry { term: self.term, index, payload });
    }

    pub(super) fn tick_leader(&mut self) {
        if self.disk_is_stuck() {
            // Whoever can't write must not lead: nobody else would be elected while it sends heartbeats. And who
            // has the most of the log need not wait until the silence is long enough.
            if let Some(heir) = self.heir() {
                self.send(heir, Body::TimeoutNow);
            }
            return self.follow(self.term, None);
        }
        let Role::Leader(leader) = &mut self.role else { return };
        leader.since_heartbeat += 1;
        leader.since_quorum += 1;
        if leader.since_quorum >= self.config.election_ticks {
            leader.since_quorum = 0;
            let own = self.config.id;
            let heard = |id| Some(id == own || leader.peers.get(&id).is_some_and(|peer| peer.recent_active));
            if self.config.check_quorum && self.members.quorum().vote_result(heard) != VoteResult::Won {
                return self.follow(self.term, None);
            }
            leader.peers.values_mut().for_each(|peer| peer.recent_active = false);
        }
        if let Some(transfer) = &mut leader.transfer {
            transfer.ticks += 1;
            if transfer.ticks >= self.config.election_ticks {
                leader.transfer = None;
            }
        }
        self.tick_snapshots();
        self.tick_heartbeat();
        self.leave_joint_if_due();
    }

    fn tick_heartbeat(&mut self) {
        let Role::Leader(leader) = &mut self.role else { return };
        if leader.since_heartbeat < self.config.heartbeat_ticks {
            return;
        }
        // Rounds that are under way may have lost their heartbeats; what waits does not wait for them.
        let read_due = !leader.rounds.waiting.is_empty();
        if read_due && self.committed_in_term() {
            self.open_round();
        }
        self.send_heartbeats();
        self.hand_over_if_ready();
    }

    /// Asks again for snapshots that are neither built nor refused, and gives up on those not reported.
    fn tick_snapshots(&mut self) {
        let Role::Leader(leader) = &mut self.role else { return };
        for (id, peer) in &mut leader.peers {
            if let Pace::Snapshot { sent, ticks } = &mut peer.pace {
                *ticks += 1;
                let asked = sent.is_none();
                if *ticks >= self.config.snapshot_ticks_max {
                    peer.probe(false);
                } else if asked && (*ticks).is_multiple_of(self.config.election_ticks) {
                    self.out.need_snapshot.push(*id);
                }
            }
        }
    }

    fn send_heartbeats(&mut self) {
        let Role::Leader(leader) = &mut self.role else { return };
        leader.since_heartbeat = 0;
        let context = leader.rounds.context(self.term);
        let commit = self.log.commit();
        // No further than the peer is known to hold: it can't tell whether the rest is the leader's.
        let beats: Vec<_> = leader.peers.iter().map(|(id, peer)| (*id, peer.matched.min(commit))).collect();
        for (id, commit) in beats {
            self.send(id, Body::Heartbeat { commit, context: context.clone(), state: self.mark });
        }
    }

    pub(super) fn propose_here(&mut self, payloads: Vec<Payload>) -> Result<(), StepError> {
        let Role::Leader(leader) = &self.role else {
            return Err(StepError::ProposalDropped(Dropped::NoLeader));
        };
        if leader.transfer.is_some() {
            return Err(StepError::ProposalDropped(Dropped::Transferring));
        }
        let mut changes = payloads.iter().filter_map(as_change);
        if let Some(change) = changes.next() {
            self.check_change(change)?;
        }
        if changes.next().is_some() {
            return Err(StepError::ChangePending);
        }
        let size: usize = payloads.iter().map(Payload::size).sum();
        let on_its_way = self.log.uncommitted_bytes();
        if size > 0 && on_its_way > 0 && on_its_way + size > self.config.uncommitted_bytes_max {
            return Err(StepError::ProposalDropped(Dropped::Overload));
        }
        payloads.into_iter().for_each(|payload| self.append_own(payload));
        Ok(())
    }

    /// Whether `change` may enter the log now. One at a time, each after the one before was applied; and none
    /// before an entry of this term is committed, or two leaders might each commit one without the other's quorum
    /// (thesis section 4.1 as corrected).
    fn check_change(&self, change: &Change) -> Result<(), StepError> {
        let Role::Leader(leader) = &self.role else {
            return Err(StepError::ProposalDropped(Dropped::NoLeader));
        };
        if leader.last_change > self.log.applied() || !self.committed_in_term() {
            return Err(StepError::ChangePending);
        }
        self.members.apply(change)?;
        Ok(())
    }

    /// A peer's proposals with nothing in place of the changes that can't be made now: the peer hears no error,
    /// so it sees by the empty entry that it was not to be.
    pub(super) fn without_refused_changes(&self, mut payloads: Vec<Payload>) -> Vec<Payload> {
        let mut seen = false;
        for payload in &mut payloads {
            if let Some(change) = as_change(payload) {
                if seen || self.check_change(change).is_err() {
                    *payload = Payload::Empty;
                }
                seen = true;
            }
        }
        payloads
    }

    /// Every leader leaves a joint configuration that is to be left by itself, whoever brought it about.
    pub(super) fn leave_joint_if_due(&mut self) {
        let due = self.members.is_joint() && self.members.auto_leave();
        if !due || !matches!(&self.role, Role::Leader(leader) if leader.transfer.is_none()) {
            return;
        }
        let leave = Change::Joint { transition: Transition::Auto, steps: Vec::new(), context: Bytes::new() };
        if self.check_change(&leave).is_ok() {
            self.append_own(Payload::Change(leave));
        }
    }

    pub(super) fn configuration_changed(&mut self) {
        let own = self.config.id;
        let next = self.log.last().index.next();
        let Role::Leader(leader) = &mut self.role else {
            // Who campaigns may have won by it.
            return self.count_votes();
        };
        leader.peers.retain(|id, _| self.members.contains(*id));
        for id in self.members.members().filter(|id| *id != own) {
            // A new member counts as heard of, or the next check of the quorum might come before it can answer.
            leader.peers.entry(id).or_insert_with(|| Progress::new(next, true));
        }
        if leader.transfer.as_ref().is_some_and(|transfer| !self.members.is_voter(transfer.target)) {
            leader.transfer = None;
        }
        // A leader that votes no more leads on until a quorum of the new configuration holds an entry that it
        // appended only now (thesis section 4.2.2 has it step down at once, but there a change takes effect when
        // it is appended). With that entry comes the commit index: so each member that can win the next election
        // knows that the change is committed, and does not wait for the vote of one that may be switched off.
        let votes = self.members.is_voter(own);
        if votes {
            leader.farewell = None;
        } else if leader.farewell.is_none() {
            leader.farewell = Some(next);
            self.append_own(Payload::Empty);
        }
        // A smaller quorum may have been reached already.
        self.advance_commit();
    }

    /// Commits what a quorum holds durably, if it is of this term (Raft section 5.4.2, figure 8).
    pub(super) fn advance_commit(&mut self) {
        let Role::Leader(leader) = &self.role else { return };
        let own = self.config.id;
        let durable = self.log.durable();
        let index = self.members.quorum().committed_index(|id| match leader.peers.get(&id) {
            Some(peer) => peer.matched,
            None if id == own => durable,
            None => Index(0),
        });
        if index > self.log.commit() && self.log.term_at(index) == Some(self.term) {
            self.log.commit_to(index);
        }
        self.confirm_reads();
        if matches!(&self.role, Role::Leader(leader) if leader.farewell.is_some_and(|last| last <= index)) {
            self.send_appends();
            self.follow(self.term, None);
        }
    }

    /// Opens a round for the reads that wait, unless one is under way (the next heartbeat opens the next).
    pub(super) fn open_due_round(&mut self) {
        let due = |leader: &Leader| !leader.rounds.waiting.is_empty() && leader.rounds.idle();
        if matches!(&self.role, Role::Leader(leader) if due(leader)) && self.committed_in_term() {
            self.open_round();
            if matches!(&self.role, Role::Leader(leader) if !leader.rounds.idle()) {
                self.send_heartbeats();
            }
        }
    }

    fn open_round(&mut self) {
        let commit = self.log.commit();
        if let Role::Leader(leader) = &mut self.role {
            leader.rounds.open(commit);
        }
        // A single voter needs nobody's confirmation.
        self.confirm_reads();
    }

    fn confirm_reads(&mut self) {
        let Role::Leader(leader) = &mut self.role else { return };
        let own = self.config.id;
        let confirmed = self.members.quorum().reached_by_quorum(|id| match leader.peers.get(&id) {
            Some(peer) => peer.round,
            None if id == own => u64::MAX,
            None => 0,
        });
        for round in leader.rounds.take(confirmed.unwrap_or(0)) {
            let index = round.index;
            for asker in round.askers {
                match asker {
                    Asker::Here(id) => self.out.reads.push((id, index)),
                    Asker::Peer { from, context } => {
                        self.send(from, Body::ReadIndexReply { index, context });
                    }
                }
            }
        }
    }

    pub(super) fn receive_heartbeat_reply(&mut self, from: NodeId, context: &Bytes) {
        let last = self.log.last().index;
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(peer) = leader.peers.get_mut(&from) else { return };
        peer.alive(last);
        if let Some(round) = leader.rounds.of_reply(self.term, context) {
            peer.round = peer.round.max(round);
            self.confirm_reads();
        }
    }

    pub(super) fn receive_accepted(&mut self, from: NodeId, matched: Index) {
        let (base, last) = (self.log.base().index, self.log.last().index);
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(peer) = leader.peers.get_mut(&from) else { return };
        if matched > last {
            return;
        }
        peer.recent_active = true;
        peer.accepted(matched, base);
        self.advance_commit();
        self.hand_over_if_ready();
    }

    pub(super) fn receive_rejected(&mut self, from: NodeId, prev: Index, hint: LogId) {
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(peer) = leader.peers.get_mut(&from) else { return };
        peer.recent_active = true;
        // The follower skipped its entries of newer terms; this skips the leader's own that are newer than the
        // follower's, so that each round trip goes back by a term and not by an entry (Raft section 5.3).
        peer.rejected(prev, self.log.agree_at_most(hint.index, hint.term).index);
    }

    /// Sends to each peer what it lacks, as far as its pace allows.
    pub(super) fn send_appends(&mut self) {
        let Role::Leader(leader) = &mut self.role else { return };
        let (base, commit) = (self.log.base().index, self.log.commit());
        let mut bodies = Vec::new();
        for (&id, peer) in &mut leader.peers {
            loop {
                match plan(peer, &self.log, peer.is_full(&self.config)) {
                    Plan::Nothing => break,
                    Plan::Snapshot => {
                        assert!(peer.next <= base, "entries in the log are sent as entries");
                        peer.await_snapshot();
                        self.out.need_snapshot.push(id);
                        break;
                    }
                    Plan::Append { entries } => {
                        let prev = peer.next.prev();
                        let Some(term) = self.log.term_at(prev) else { break };
                        let prev = LogId { term, index: prev };
                        let (last, max) = (self.log.last().index, self.config.append_bytes_max);
                        let entries = if entries { self.log.slice(peer.next, last, max) } else { Vec::new() };
                        let sent = entries.last().map_or(prev.index, |entry| entry.index);
                        peer.sent(sent, entries.iter().map(Entry::size).sum());
                        peer.sent_commit = commit;
                        peer.poke = false;
                        bodies.push((id, Body::Append { prev, entries, commit }));
                    }
                }
            }
        }
        bodies.into_iter().for_each(|(id, body)| self.send(id, body));
    }

    pub(super) fn transfer(&mut self, target: NodeId) -> Result<(), StepError> {
        let own = self.config.id;
        let leader = match &mut self.role {
            Role::Leader(leader) => leader,
            Role::Follower(follower) => {
                let to = follower.leader.ok_or(StepError::ProposalDropped(Dropped::NoLeader))?;
                self.send(to, Body::TransferLeader { target });
                return Ok(());
            }
            Role::PreCandidate(_) | Role::Candidate(_) => {
                return Err(StepError::ProposalDropped(Dropped::NoLeader));
            }
        };
        if leader.transferee() == Some(target) {
            return Ok(());
        }
        // A new wish replaces the one before, and to stay leader is one.
        leader.transfer = None;
        if target == own {
            return Ok(());
        }
        if !self.members.is_voter(target) {
            return Err(StepError::BadTransferee(target));
        }
        leader.transfer = Some(Transfer { target, ticks: 0 });
        self.hand_over_if_ready();
        Ok(())
    }

    /// The voter that was heard of lately and has the most of the log.
    fn heir(&self) -> Option<NodeId> {
        let Role::Leader(leader) = &self.role else { return None };
        let voters =
            leader.peers.iter().filter(|(id, peer)| peer.recent_active && self.members.is_voter(**id));
        voters.max_by_key(|(_, peer)| peer.matched).map(|(id, _)| *id)
    }

    /// Tells the transferee to campaign once it has the whole log, and again should that get lost.
    fn hand_over_if_ready(&mut self) {
        let last = self.log.last().index;
        let Role::Leader(leader) = &self.role else { return };
        let Some(target) = leader.transferee() else { return };
        if leader.peers.get(&target).is_some_and(|peer| peer.matched == last) {
            self.send(target, Body::TimeoutNow);
        }
    }

    pub(super) fn unreachable(&mut self, id: NodeId) {
        let Role::Leader(leader) = &mut self.role else { return };
        if let Some(peer) = leader.peers.get_mut(&id)
            && matches!(peer.pace, Pace::Replicate { .. })
        {
            peer.probe(false);
        }
    }

    pub(super) fn snapshot_built(&mut self, to: NodeId, snapshot: Snapshot) -> Result<(), StepError> {
        let last = snapshot.meta.last.index;
        if last < self.log.base().index || last > self.log.commit() {
            return Err(StepError::OutOfOrder("a snapshot was built that the log does not continue"));
        }
        let Role::Leader(leader) = &mut self.role else { return Ok(()) };
        if let Some(peer) = leader.peers.get_mut(&to)
            && let Pace::Snapshot { sent: sent @ None, ticks } = &mut peer.pace
        {
            *sent = Some(last);
            *ticks = 0;
            self.send(to, Body::Snapshot(snapshot));
        }
        Ok(())
    }

    pub(super) fn snapshot_sent(&mut self, to: NodeId, ok: bool) {
        let Role::Leader(leader) = &mut self.role else { return };
        if let Some(peer) = leader.peers.get_mut(&to)
            && let Pace::Snapshot { sent, ticks: _ } = &mut peer.pace
        {
            if !ok {
                *sent = None;
            }
            // Its answer, or that to a heartbeat, is awaited before the next try.
            peer.probe(true);
        }
    }

    pub(super) fn peer_statuses(&self, leader: &Leader) -> PeerStatuses {
        let mut all: PeerStatuses = leader.peers.iter().map(|(id, peer)| (*id, peer.status())).collect();
        let own = PeerStatus {
            matched: self.log.durable(),
            next: self.log.last().index.next(),
            state: super::PeerState::Replicate,
            recent_active: true,
            inflight: 0,
        };
        if self.members.contains(self.config.id) {
            all.insert(self.config.id, own);
        }
        all
    }
}

fn plan(peer: &Progress, log: &Log, full: bool) -> Plan {
    let news = peer.next <= log.last().index;
    let behind = peer.next <= log.base().index;
    match &peer.pace {
        Pace::Snapshot { .. } | Pace::Probe { waiting: true } => Plan::Nothing,
        // One that is not there could not take a snapshot anyway.
        Pace::Probe { .. } | Pace::Replicate { .. } if behind && !peer.recent_active => Plan::Nothing,
        Pace::Probe { .. } | Pace::Replicate { .. } if behind => Plan::Snapshot,
        Pace::Probe { waiting: false } => Plan::Append { entries: news },
        Pace::Replicate { .. } if news && !full => Plan::Append { entries: true },
        // A full pipeline may be full of what got lost; an empty append behind it finds out.
        Pace::Replicate { .. } if peer.poke => Plan::Append { entries: false },
        Pace::Replicate { .. } if peer.sent_commit < log.commit() && !full => Plan::Append { entries: false },
        Pace::Replicate { .. } => Plan::Nothing,
    }
}

fn as_change(payload: &Payload) -> Option<&Change> {
    match payload {
        Payload::Change(change) => Some(change),
        Payload::Empty | Payload::Command(_) => None,
    }
}
