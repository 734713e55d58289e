//! The member itself: what is common to all roles, and the way in and out.

use std::collections::BTreeMap;

use super::{
    Body, ConfState, Config, HardState, Input, LogId, Message, PeerStatuses, Ready, RestoreError, Restored,
    RoleKind, Standing, StateMark, StepError,
    candidate::{Candidate, PreCandidate},
    check::{check_log, defect},
    follower::Follower,
    leader::Leader,
    log::Log,
};
use crate::{
    membership::{Change, Configuration},
    types::{Index, NodeId, Term},
};

/// What a member is, with what only that role has.
#[derive(Debug)]
pub(super) enum Role {
    Follower(Follower),
    PreCandidate(PreCandidate),
    Candidate(Candidate),
    Leader(Leader),
}

/// A message that promises what is not durable yet.
#[derive(Debug)]
struct Withheld {
    /// The log must be durable up to here, besides term and vote.
    log: Index,
    message: Message,
}

/// A member of a raft cluster. See the module for how it is driven.
#[derive(Debug)]
pub struct Raft {
    pub(super) config: Config,
    pub(super) term: Term,
    pub(super) vote: Option<NodeId>,
    pub(super) log: Log,
    pub(super) members: Configuration,
    /// The entry or snapshot that `members` is of.
    members_index: Index,
    pub(super) role: Role,
    /// Ticks since the leader was heard of or the campaign began, and when that is too many.
    pub(super) elapsed: u64,
    timeout: u64,
    random: u64,
    /// How far the log is known to be that of this term's leader.
    pub(super) verified: Index,
    pub(super) questions: u64,
    pub(super) nonce: u64,
    pub(super) mark: Option<StateMark>,
    withheld: Vec<Withheld>,
    /// What the next [`Ready`] holds already.
    pub(super) out: Ready,
    reported: Standing,
}

impl Raft {
    /// A follower with what its disk holds. A new cluster's first entries (its members, as changes at term 1) go
    /// into `restored` too, committed, once they are on the disk.
    pub fn new(config: Config, restored: Restored) -> Result<Self, RestoreError> {
        assert!(config.id != NodeId(0), "a member has an id");
        assert!(config.heartbeat_ticks > 0 && config.heartbeat_ticks < config.election_ticks);
        let members = Configuration::try_from(&restored.config)?;
        let Restored { mut hard, snapshot, entries, applied, config: _ } = restored;
        let base = snapshot.last;
        let last = check_log(base, &entries)?;
        if applied < base.index {
            return Err(RestoreError::Gap { applied, base: base.index });
        }
        for (what, index) in [("the hard state's commit index", hard.commit), ("the state machine", applied)]
        {
            if index > last.index {
                return Err(RestoreError::Short { last: last.index, what, index });
            }
        }
        // An entry of a newer term than the hard state's is from a write that was cut off between the two. A vote
        // given in that term would have been durable before it was sent, so there was none.
        if hard.term < last.term {
            hard = HardState { term: last.term, vote: None, commit: hard.commit };
        }
        let commit = hard.commit.max(applied);
        let mut log = Log::new(base, entries, hard, commit, applied);
        // A leader proposes a change only after it has applied the one before. So what lies before a change is
        // committed up to the last change there, even if the write that said so is lost; a member that did not
        // know could win an election in a configuration that the cluster has left.
        if let [.., before_last, _] = log.changes(commit, last.index)[..] {
            log.commit_to(before_last);
        }
        // Mixed before the id goes in: members whose seeds differ just as their ids do would otherwise share their
        // jitter, and split every vote for ever.
        let mut random = config.seed;
        random = next_random(&mut random) ^ config.id.0;
        let nonce = next_random(&mut random);
        let role = Role::Follower(Follower::default());
        let reported = Standing { term: hard.term, role: RoleKind::Follower, leader: None };
        let mut raft = Self {
            term: hard.term,
            vote: hard.vote,
            log,
            members,
            members_index: applied,
            role,
            elapsed: 0,
            timeout: 0,
            random,
            verified: Index(0),
            questions: 0,
            nonce,
            mark: None,
            withheld: Vec::new(),
            out: Ready::default(),
            reported,
            config,
        };
        raft.restart_timer();
        Ok(raft)
    }

    /// Takes one input. An error says that it had no effect; what is to be done is in [`Self::poll_ready`].
    pub fn step(&mut self, input: Input) -> Result<(), StepError> {
        match input {
            Input::Tick => self.tick(),
            Input::Receive(message) => return self.receive(message),
            Input::Propose(payloads) => return self.propose(payloads),
            Input::Read(id) => return self.read(id),
            Input::Persisted(id) => {
                if !self.log.persisted(id) {
                    return Err(StepError::OutOfOrder("a write was acknowledged that was not asked for"));
                }
                self.after_persist();
            }
            Input::Applied(index) => {
                if !self.log.applied_to(index) {
                    return Err(StepError::OutOfOrder("entries were applied that were not handed out"));
                }
                self.leave_joint_if_due();
            }
            Input::ApplyChange { index, change } => return self.apply_change(index, &change),
            Input::Campaign => self.campaign(false),
            Input::Transfer(target) => return self.transfer(target),
            Input::Unreachable(peer) => self.unreachable(peer),
            Input::SnapshotBuilt { to, snapshot } => return self.snapshot_built(to, snapshot),
            Input::SnapshotSent { to, ok } => self.snapshot_sent(to, ok),
            Input::Compact(index) => {
                if index > self.log.applied() {
                    return Err(StepError::OutOfOrder("entries were compacted that are not applied"));
                }
                self.log.compact(index);
            }
            Input::Mark(mark) => self.mark = Some(mark),
        }
        Ok(())
    }

    /// What is to be done now; None if nothing. To be asked after every input, or after a batch of them: what
    /// goes to a peer is made up here, so a batch makes fewer and larger messages.
    pub fn poll_ready(&mut self) -> Option<Ready> {
        self.ask_due_reads();
        self.open_due_round();
        self.send_appends();
        let batch = self.log.take_batch(self.term, self.vote);
        let mut ready = std::mem::take(&mut self.out);
        ready.must_sync = batch.persist.is_some();
        ready.hard = batch.hard;
        ready.snapshot = batch.snapshot;
        ready.entries = batch.entries;
        ready.persist = batch.persist;
        ready.committed = self.log.take_committed(self.config.committed_bytes_max);
        let standing = self.standing();
        if standing != self.reported {
            self.reported = standing;
            ready.standing = Some(standing);
        }
        (!ready.is_empty()).then_some(ready)
    }

    fn tick(&mut self) {
        self.log.tick();
        match &mut self.role {
            Role::Leader(_) => self.tick_leader(),
            Role::Follower(follower) => {
                follower.reads.tick((self.config.election_ticks / 2).max(1));
                self.tick_election();
            }
            Role::PreCandidate(_) | Role::Candidate(_) => self.tick_election(),
        }
    }

    fn tick_election(&mut self) {
        self.elapsed += 1;
        if self.elapsed >= self.timeout {
            self.campaign(false);
        }
    }

    /// Whether a log write is out for so long that this member must be taken for crashed.
    pub(super) fn disk_is_stuck(&self) -> bool {
        self.log.oldest_write() > self.config.persist_ticks_max
    }

    /// Starts the wait for the next campaign anew, with new jitter (Raft section 5.2).
    pub(super) fn restart_timer(&mut self) {
        self.elapsed = 0;
        self.timeout =
            self.config.election_ticks + next_random(&mut self.random) % self.config.election_ticks;
    }

    fn receive(&mut self, message: Message) -> Result<(), StepError> {
        let Message { from, to, term, body } = message;
        let malformed = |what| Err(StepError::Malformed { from, what });
        if to != self.config.id {
            return malformed("it is for another member");
        }
        if let Some(what) = defect(term, &body) {
            return malformed(what);
        }
        match body {
            Body::Propose { payloads } => return self.receive_proposal(from, payloads),
            Body::ReadIndex { context } => return self.receive_question(from, context),
            Body::TransferLeader { target } if term == Term(0) => return self.transfer(target),
            _ => {}
        }
        if term > self.term {
            if !self.enter_newer(from, term, &body) {
                return Ok(());
            }
        } else if term < self.term {
            self.answer_older(from, &body);
            return Ok(());
        }
        self.dispatch(from, term, body)
    }

    /// Takes note of a newer term. False if the message is to be ignored.
    fn enter_newer(&mut self, from: NodeId, term: Term, body: &Body) -> bool {
        match body {
            Body::Vote { pre, last: _, transfer } => {
                if !transfer && self.hears_leader_other_than(from) {
                    return false;
                }
                if !pre {
                    self.make_way(term);
                }
            }
            // It has the term that this member would campaign in.
            Body::VoteReply { pre: true, granted: true } => {}
            Body::Append { .. } | Body::Heartbeat { .. } | Body::Snapshot(_) => self.follow(term, Some(from)),
            Body::VoteReply { .. }
            | Body::AppendAccepted { .. }
            | Body::AppendRejected { .. }
            | Body::HeartbeatReply { .. }
            | Body::Propose { .. }
            | Body::TransferLeader { .. }
            | Body::TimeoutNow
            | Body::ReadIndex { .. }
            | Body::ReadIndexReply { .. } => self.follow(term, None),
        }
        true
    }

    /// Goes to a candidate's term. Who waits to campaign waits on from where it was, unless it votes for the candidate
    /// (Raft section 5.2): else one with the newest log, and a slow clock, would wait for those that can't win for ever.
    fn make_way(&mut self, term: Term) {
        let waited = (self.elapsed, self.timeout);
        let leads = matches!(self.role, Role::Leader(_));
        self.follow(term, None);
        if !leads {
            (self.elapsed, self.timeout) = waited;
        }
    }

    /// Whether a leader was heard of within an election timeout, so that candidates are ignored. Not if the
    /// leader itself asks: then it leads no more, and waiting would only prolong that.
    fn hears_leader_other_than(&self, candidate: NodeId) -> bool {
        self.config.check_quorum
            && match &self.role {
                Role::Leader(_) => true,
                Role::Follower(follower) => {
                    follower.leader.is_some_and(|leader| leader != candidate)
                        && self.elapsed < self.config.election_ticks
                }
                Role::PreCandidate(_) | Role::Candidate(_) => false,
            }
    }

    /// Tells a member that is behind which term it is. Without that, a leader of an older term and a member that
    /// went ahead of it while it was cut off would never listen to each other again.
    fn answer_older(&mut self, from: NodeId, body: &Body) {
        match body {
            Body::Append { .. } | Body::Heartbeat { .. } | Body::Snapshot(_) => {
                self.send(from, Body::AppendAccepted { matched: Index(0) });
            }
            // A candidate with the longer log and the lower term can only win after it took over this term.
            Body::Vote { pre, last: _, transfer: _ } => {
                self.send(from, Body::VoteReply { pre: *pre, granted: false });
            }
            Body::VoteReply { .. }
            | Body::AppendAccepted { .. }
            | Body::AppendRejected { .. }
            | Body::HeartbeatReply { .. }
            | Body::Propose { .. }
            | Body::TransferLeader { .. }
            | Body::TimeoutNow
            | Body::ReadIndex { .. }
            | Body::ReadIndexReply { .. } => {}
        }
    }

    fn dispatch(&mut self, from: NodeId, term: Term, body: Body) -> Result<(), StepError> {
        match body {
            Body::Append { prev, entries, commit } => {
                self.hear_leader(from)?;
                return self.receive_append(from, prev, entries, commit);
            }
            Body::Heartbeat { commit, context, state: _ } => {
                self.hear_leader(from)?;
                self.receive_heartbeat(from, commit, context);
            }
            Body::Snapshot(snapshot) => {
                self.hear_leader(from)?;
                return self.receive_snapshot(from, snapshot);
            }
            Body::Vote { pre, last, transfer: _ } => self.receive_vote(from, term, pre, last),
            Body::VoteReply { pre, granted } => self.receive_vote_reply(from, term, pre, granted),
            Body::AppendAccepted { matched } => self.receive_accepted(from, matched),
            Body::AppendRejected { prev, hint } => self.receive_rejected(from, prev, hint),
            Body::HeartbeatReply { context, state: _ } => self.receive_heartbeat_reply(from, &context),
            Body::TimeoutNow => {
                if matches!(self.role, Role::Follower(_)) {
                    self.campaign(true);
                }
            }
            Body::ReadIndexReply { index, context } => self.receive_answer(index, &context),
            Body::TransferLeader { target } => return self.transfer(target),
            // These two have no term and never come here.
            Body::Propose { payloads: _ } | Body::ReadIndex { context: _ } => {}
        }
        Ok(())
    }

    /// Becomes a follower, or follows someone else; a newer term forgets the vote and all promises of the older.
    pub(super) fn follow(&mut self, term: Term, leader: Option<NodeId>) {
        assert!(term >= self.term, "terms never go down");
        self.enter(term, None);
        self.become_role(Role::Follower(Follower { leader, ..Follower::default() }));
    }

    /// Goes to a newer term, with this vote in it. Nothing happens in the same term.
    pub(super) fn enter(&mut self, term: Term, vote: Option<NodeId>) {
        if term > self.term {
            self.term = term;
            self.vote = vote;
            self.verified = Index(0);
            // Promises to the leaders and candidates of older terms; they may as well have been lost.
            self.withheld.clear();
        }
    }

    /// Takes a new role; reads that wait in the old one fail, as its leader was what they relied on.
    pub(super) fn become_role(&mut self, role: Role) {
        match std::mem::replace(&mut self.role, role) {
            Role::Follower(follower) => self.out.reads_dropped.extend(follower.reads.into_all()),
            Role::Leader(leader) => self.out.reads_dropped.extend(leader.rounds.into_own()),
            Role::PreCandidate(_) | Role::Candidate(_) => {}
        }
        self.restart_timer();
    }

    pub(super) fn send(&mut self, to: NodeId, body: Body) {
        self.send_in(self.term, to, body);
    }

    /// Sends with another term than this member's: 0, or that of a pre-vote.
    pub(super) fn send_in(&mut self, term: Term, to: NodeId, body: Body) {
        self.out.messages.push(Message { from: self.config.id, to, term, body });
    }

    /// Sends once term and vote are durable, and the log up to `log`.
    pub(super) fn send_when_durable(&mut self, to: NodeId, log: Index, body: Body) {
        let message = Message { from: self.config.id, to, term: self.term, body };
        if self.promises_kept(log) {
            self.send_latest(message);
        } else if self.withheld.last().is_none_or(|held| held.message != message) {
            // While a disk is stuck the leader's probes all have the same answer, which is kept once.
            self.withheld.push(Withheld { log, message });
        }
    }

    /// Sends, instead of what was to be sent just before if this says all of that: one write often makes many
    /// acceptances true at once.
    fn send_latest(&mut self, message: Message) {
        let accepted = |message: &Message| match message.body {
            Body::AppendAccepted { matched } => Some((message.to, message.term, matched)),
            _ => None,
        };
        let before = self.out.messages.last().and_then(accepted);
        if let (Some((to, term, earlier)), Some((same_to, same_term, matched))) = (before, accepted(&message))
            && (to, term) == (same_to, same_term)
            && earlier <= matched
        {
            self.out.messages.pop();
        }
        self.out.messages.push(message);
    }

    pub(super) fn promises_kept(&self, log: Index) -> bool {
        self.log.durable() >= log && self.log.vote_durable(self.term, self.vote)
    }

    fn after_persist(&mut self) {
        let (kept, withheld): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.withheld).into_iter().partition(|held| self.promises_kept(held.log));
        self.withheld = withheld;
        for held in kept {
            assert_eq!(held.message.term, self.term, "promises die with their term");
            self.send_latest(held.message);
        }
        self.ask_for_votes_if_durable();
        self.advance_commit();
    }

    fn apply_change(&mut self, index: Index, change: &Change) -> Result<(), StepError> {
        if index <= self.members_index {
            return Ok(());
        }
        if index > self.log.commit() {
            return Err(StepError::OutOfOrder("a change was applied that is not committed"));
        }
        self.members_index = index;
        // A change that is illegal here is so on every member, as all have the same configuration here.
        self.members = self.members.apply(change)?;
        self.configuration_changed();
        Ok(())
    }

    /// Takes over the configuration of a snapshot.
    pub(super) fn restore_members(&mut self, index: Index, members: Configuration) {
        self.members_index = index;
        self.members = members;
    }

    /// This member's id.
    pub fn id(&self) -> NodeId {
        self.config.id
    }

    /// Term, role and leader.
    pub fn standing(&self) -> Standing {
        Standing { term: self.term, role: self.role(), leader: self.leader() }
    }

    /// The newest term seen.
    pub fn term(&self) -> Term {
        self.term
    }

    /// What this member is.
    pub fn role(&self) -> RoleKind {
        match &self.role {
            Role::Follower(_) => RoleKind::Follower,
            Role::PreCandidate(_) => RoleKind::PreCandidate,
            Role::Candidate(_) => RoleKind::Candidate,
            Role::Leader(_) => RoleKind::Leader,
        }
    }

    /// Who leads, as far as is known.
    pub fn leader(&self) -> Option<NodeId> {
        match &self.role {
            Role::Follower(follower) => follower.leader,
            Role::PreCandidate(_) | Role::Candidate(_) => None,
            Role::Leader(_) => Some(self.config.id),
        }
    }

    /// The hard state as it is in memory.
    pub fn hard_state(&self) -> HardState {
        HardState { term: self.term, vote: self.vote, commit: self.log.commit() }
    }

    /// The newest index known committed.
    pub fn commit(&self) -> Index {
        self.log.commit()
    }

    /// The newest index that the state machine is known to have applied.
    pub fn applied(&self) -> Index {
        self.log.applied()
    }

    /// The newest index whose entry is durable here.
    pub fn durable(&self) -> Index {
        self.log.durable()
    }

    /// The index of the first entry in memory, or where it would be.
    pub fn first_index(&self) -> Index {
        self.log.base().index.next()
    }

    /// The last entry.
    pub fn last(&self) -> LogId {
        self.log.last()
    }

    /// The term of the entry at `index`; None if it is not in memory (nor the last one before).
    pub fn term_at(&self, index: Index) -> Option<Term> {
        self.log.term_at(index)
    }

    /// The size of the entries in memory.
    pub fn log_bytes(&self) -> usize {
        self.log.bytes()
    }

    /// The configuration, as of the newest change applied.
    pub fn configuration(&self) -> &Configuration {
        &self.members
    }

    /// The same, as snapshots carry it.
    pub fn conf_state(&self) -> ConfState {
        ConfState::from(&self.members)
    }

    /// Where the leader stands with each member, itself included; empty unless this is the leader.
    pub fn peers(&self) -> PeerStatuses {
        match &self.role {
            Role::Leader(leader) => self.peer_statuses(leader),
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => BTreeMap::new(),
        }
    }

    /// To whom this leader is handing over.
    pub fn transferee(&self) -> Option<NodeId> {
        match &self.role {
            Role::Leader(leader) => leader.transferee(),
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => None,
        }
    }

    /// Whether reads can be given an index: only after the leader has committed an entry of its term.
    pub fn committed_in_term(&self) -> bool {
        self.log.term_at(self.log.commit()) == Some(self.term)
    }
}

impl Ready {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        // A snapshot or entries are written with something to persist; a new commit index alone is not.
        let writes = self.hard.is_some() || self.persist.is_some();
        let tells = !self.messages.is_empty() || !self.need_snapshot.is_empty() || self.standing.is_some();
        let reads = !self.reads.is_empty() || !self.reads_dropped.is_empty();
        !(writes || tells || reads || !self.committed.is_empty())
    }
}

/// A step of splitmix64: even seeds that differ by one bit give unrelated numbers.
fn next_random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
