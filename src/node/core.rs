//! The node itself.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{
    effect::{Answer, Effect, Lead, Persist},
    event::{Event, Report, Request},
    leases::{Leases, Outcome},
    limits::Config,
    marks::Marks,
    policy::LogPolicy,
    waiters::{Proposals, Purpose, Reader, Reads, Transfer},
};
use crate::{
    error::Refusal,
    lease::{Expirer, ExpirerConfig},
    raft::{
        Body, Entry, HardState, Input, LogId, Message, Payload, PersistId, Raft, Ready, RestoreError,
        Restored, RoleKind, Snapshot, StepError,
    },
    types::{Index, Instant, LeaseId, NodeId, Term},
};

/// A member's decisions. See the module.
pub struct Node<W> {
    config: Config,
    raft: Raft,
    now: Instant,
    applied: Index,
    lead: Lead,
    /// Since when that leader is known.
    led_since: Option<Instant>,
    /// Waits for a leader, or for the change before it.
    unproposed: VecDeque<(u64, Payload)>,
    unproposed_changes: VecDeque<(u64, Payload)>,
    proposals: Proposals<W>,
    reads: Reads<W>,
    transfer: Option<Transfer<W>>,
    leases: Leases<W>,
    /// A hard state with nothing but a new commit index, which is not worth a write of its own: it goes with the
    /// next one, or at the next tick.
    unsaved: Option<HardState>,
    /// A snapshot that the log is to name before it is installed.
    installing: Option<(PersistId, Snapshot)>,
    log: LogPolicy,
    marks: Marks,
    /// This leader's own state is not the quorum's: it goes on to hand over.
    unfit: bool,
    /// When members whose state differs were last told of.
    accused: BTreeMap<NodeId, Instant>,
    /// Peers whose snapshots are being built. Raft asks again and again until one is there, which may take long: once
    /// is enough.
    building: BTreeSet<NodeId>,
    /// Snapshots that came in, of which it is not known yet whether they are whole.
    looked_at: usize,
    effects: Vec<Effect<W>>,
}

/// What a node starts from besides raft's own state.
#[derive(Debug, Default)]
pub struct Start {
    /// The time.
    pub now: Instant,
    /// All leases, with seconds granted and remaining.
    pub leases: Vec<(LeaseId, i64, i64)>,
    /// The newest checkpoint.
    pub checkpointed: Index,
}

impl<W> Node<W> {
    /// A node that goes on from what its disk holds.
    pub fn new(config: Config, restored: Restored, start: Start) -> Result<Self, RestoreError> {
        let applied = restored.applied;
        let raft = Raft::new(config.raft, restored)?;
        Ok(Self {
            log: LogPolicy::new(start.checkpointed),
            leases: Leases::new(start.leases),
            config,
            raft,
            now: start.now,
            applied,
            lead: Lead::default(),
            led_since: None,
            unproposed: VecDeque::new(),
            unproposed_changes: VecDeque::new(),
            proposals: Proposals::default(),
            reads: Reads::default(),
            transfer: None,
            unsaved: None,
            installing: None,
            marks: Marks::default(),
            unfit: false,
            accused: BTreeMap::new(),
            building: BTreeSet::new(),
            looked_at: 0,
            effects: Vec::new(),
        })
    }

    /// Raft's state, to look at.
    pub fn raft(&self) -> &Raft {
        &self.raft
    }

    /// The last index that has been applied.
    pub fn applied(&self) -> Index {
        self.applied
    }

    /// Takes an event. What comes of it is handed out by [`Node::poll`]; many events may come before it.
    pub fn step(&mut self, event: Event<W>) {
        match event {
            Event::Tick(now) => self.tick(now),
            Event::Message(message) => self.message(message),
            Event::Unreachable(peer) => self.input(Input::Unreachable(peer)),
            Event::SnapshotSent { to, ok } => self.input(Input::SnapshotSent { to, ok }),
            Event::SnapshotArrived => self.looked_at += 1,
            Event::SnapshotUnfit => self.looked_at = self.looked_at.saturating_sub(1),
            Event::SnapshotReceived { from, term, snapshot } => {
                self.looked_at = self.looked_at.saturating_sub(1);
                self.snapshot_received(from, term, snapshot);
            }
            Event::SnapshotBuilt { to, snapshot } => {
                self.building.remove(&to);
                self.input(match snapshot {
                    Some(snapshot) => Input::SnapshotBuilt { to, snapshot },
                    None => Input::SnapshotSent { to, ok: false },
                });
            }
            Event::Persisted(id) => self.persisted(id),
            Event::Applied(report) => self.report(report),
            Event::Request(request) => self.request(request),
        }
    }

    /// Hands out what is to be done, in order.
    pub fn poll(&mut self) -> Vec<Effect<W>> {
        if self.is_alone() {
            self.input(Input::Campaign);
        }
        self.propose_queued();
        if let Some(id) = self.reads.ask(self.now, self.config.read_retry_ms)
            && self.raft.step(Input::Read(id)).is_err()
        {
            // Asked again when there is a leader, or after the retry time.
            self.reads.refused(id);
        }
        while let Some(ready) = self.raft.poll_ready() {
            self.ready(ready);
        }
        self.answer_reads();
        self.keep_log_short();
        std::mem::take(&mut self.effects)
    }

    /// Whether it follows nobody and nobody else could ever lead: there is no timeout to wait for.
    fn is_alone(&self) -> bool {
        let follows_nobody = self.raft.role() == RoleKind::Follower && self.raft.leader().is_none();
        follows_nobody && self.raft.configuration().voters().into_iter().eq([self.raft.id()])
    }

    fn leads(&self) -> bool {
        self.raft.role() == RoleKind::Leader
    }

    fn input(&mut self, input: Input) {
        // What else raft has no use for changes nothing.
        if let Err(diverged @ StepError::Diverged { .. }) = self.raft.step(input) {
            self.effects.push(Effect::Diverged(diverged));
        }
    }

    fn message(&mut self, message: Message) {
        if let Body::HeartbeatReply { state: Some(mark), .. } = message.body
            && message.term == self.raft.term()
            && self.leads()
        {
            self.marks.heard(message.from, mark);
        }
        self.input(Input::Receive(message));
    }

    fn tick(&mut self, now: Instant) {
        self.now = now;
        if let Some(mark) = self.marks.tick(self.config.marks_max) {
            self.input(Input::Mark(mark));
        }
        if let Some(hard) = self.unsaved.take() {
            self.effects.push(Effect::Persist(Persist { hard: Some(hard), ..Persist::default() }));
        }
        self.input(Input::Tick);
        self.compare_marks();
        self.expire_proposals();
        for reader in self.reads.expire(now) {
            self.effects.push(Effect::Answer(reader.waiter, Err(Refusal::Timeout)));
        }
        if self.transfer.as_ref().is_some_and(|t| t.deadline <= now)
            && let Some(transfer) = self.transfer.take()
        {
            self.effects.push(Effect::Answer(transfer.waiter, Err(Refusal::LeaderTransferTimeout)));
        }
        for waiter in self.leases.expire(now) {
            self.effects.push(Effect::Answer(waiter, Err(Refusal::Timeout)));
        }
        self.look_at_leases();
    }

    fn look_at_leases(&mut self) {
        // A leader that has just stepped down knows no more when leases end: its successor extends them.
        let term = self.raft.term();
        let Some(expirer) = self.leases.expirer().filter(|_| self.raft.role() == RoleKind::Leader) else {
            return;
        };
        let (due, left) = (expirer.due(self.now, usize::MAX), expirer.checkpoint(self.now));
        if !due.is_empty() {
            self.effects.push(Effect::RevokeLeases(term, due));
        }
        if !left.is_empty() {
            self.effects.push(Effect::CheckpointLeases(term, left));
        }
    }

    fn expire_proposals(&mut self) {
        let expired = self.proposals.expire(self.now);
        if expired.is_empty() {
            return;
        }
        let queued = self.unproposed.iter().chain(&self.unproposed_changes);
        let unproposed: BTreeSet<u64> = queued.map(|(id, _)| *id).collect();
        for (id, waiter, since) in expired {
            // etcd's texts: nobody could take it; the leader that took it may have gone with it; or nobody knows.
            let refusal = if unproposed.contains(&id) {
                Refusal::DeadlineExceeded
            } else if self.leader_lost_about(since) {
                Refusal::TimeoutLeaderLost
            } else {
                Refusal::Timeout
            };
            self.effects.push(Effect::Answer(waiter, Err(refusal)));
        }
        self.forget_expired();
    }

    /// etcd's measure: within two election timeouts before this leader came to be known.
    fn leader_lost_about(&self, then: Instant) -> bool {
        self.led_since.is_some_and(|since| then < since && since.since(then) < 2 * self.config.election_ms())
    }

    /// Tells of members whose state is not the quorum's; a leader that is one of them hands over, once its alarm
    /// is on its way.
    fn compare_marks(&mut self) {
        if !self.leads() {
            return;
        }
        let me = self.raft.id();
        if std::mem::take(&mut self.unfit)
            && let Some(heir) = self.raft.configuration().quorum().incoming.iter().find(|id| **id != me)
        {
            self.input(Input::Transfer(*heir));
        }
        for member in self.marks.differing(me, self.raft.configuration()) {
            let told = self.accused.get(&member);
            if told.is_some_and(|then| self.now.since(*then) < self.config.request_timeout_ms) {
                continue;
            }
            self.accused.insert(member, self.now);
            self.unfit |= member == me;
            self.effects.push(Effect::Corrupt(self.raft.term(), member));
        }
    }

    fn request(&mut self, request: Request<W>) {
        match request {
            Request::Propose { id, payload, waiter } => {
                if let Some(waiter) = self.admit(waiter) {
                    self.await_proposal(id, waiter);
                    self.unproposed.push_back((id, Payload::Command(payload)));
                }
            }
            Request::AsLeader { term, payload } => {
                if self.leads() && self.raft.term() == term {
                    // What raft has no room for now is due again later.
                    let _ = self.raft.step(Input::Propose(vec![Payload::Command(payload)]));
                }
            }
            Request::Change { id, change, waiter } => {
                if let Some(waiter) = self.admit(waiter) {
                    self.await_proposal(id, waiter);
                    self.unproposed_changes.push_back((id, Payload::Change(change)));
                }
            }
            Request::Read { waiter } => self.read(waiter, Purpose::Read),
            Request::RenewLeases { leases, waiter } => {
                self.leader_read(waiter, Purpose::Renew(leases, self.raft.term()));
            }
            Request::LeaseRemaining { lease, waiter } => {
                self.leader_read(waiter, Purpose::Remaining(lease, self.raft.term()));
            }
            Request::LeaseOrder { waiter } => {
                let term = self.raft.term();
                let answer = self.leading_in(term).map(|e| Answer::LeaseOrder(e.by_remaining()));
                self.effects.push(Effect::Answer(waiter, answer));
            }
            Request::Progress { waiter } => {
                let peers = self.raft.peers().into_iter().map(|(id, peer)| (id, peer.matched)).collect();
                let answer = if self.leads() { Ok(Answer::Progress(peers)) } else { Err(Refusal::NotLeader) };
                self.effects.push(Effect::Answer(waiter, answer));
            }
            Request::Transfer { to, waiter } => self.transfer_to(to, waiter),
        }
    }

    /// Refuses a proposal if there is too much to do already.
    fn admit(&mut self, waiter: W) -> Option<W> {
        let lag = self.raft.commit().0.saturating_sub(self.applied.0);
        if lag > self.config.apply_lag_max || self.proposals.len() >= self.config.proposals_max {
            self.effects.push(Effect::Answer(waiter, Err(Refusal::TooManyRequests)));
            return None;
        }
        Some(waiter)
    }

    fn await_proposal(&mut self, id: u64, waiter: W) {
        let deadline = self.now.after(self.config.request_timeout_ms);
        if let Some(older) = self.proposals.insert(id, waiter, self.now, deadline) {
            self.effects.push(Effect::Answer(older, Err(Refusal::Stopped)));
        }
    }

    fn read(&mut self, waiter: W, purpose: Purpose) {
        if self.reads.len() >= self.config.reads_max {
            return self.effects.push(Effect::Answer(waiter, Err(Refusal::TooManyRequests)));
        }
        let deadline = self.now.after(self.config.request_timeout_ms);
        self.reads.push(Reader { waiter, purpose, deadline });
    }

    fn leader_read(&mut self, waiter: W, purpose: Purpose) {
        if self.leads() {
            self.read(waiter, purpose);
        } else {
            self.effects.push(Effect::Answer(waiter, Err(Refusal::NotLeader)));
        }
    }

    fn transfer_to(&mut self, to: NodeId, waiter: W) {
        let refusal = if !self.leads() {
            Some(Refusal::NotLeader)
        } else if !self.raft.configuration().is_voter(to) {
            Some(Refusal::BadLeaderTransferee)
        } else if self.transfer.is_some() {
            Some(Refusal::LeaderTransferTimeout)
        } else {
            None
        };
        if let Some(refusal) = refusal {
            return self.effects.push(Effect::Answer(waiter, Err(refusal)));
        }
        if to == self.raft.id() {
            return self.effects.push(Effect::Answer(waiter, Ok(Answer::Transferred)));
        }
        let deadline = self.now.after(self.config.request_timeout_ms);
        self.transfer = Some(Transfer { to, waiter, deadline });
        self.input(Input::Transfer(to));
    }

    /// Gives raft what waits to be proposed. Without a leader it goes on waiting, until its time is up.
    fn propose_queued(&mut self) {
        if self.raft.leader().is_none() {
            return;
        }
        if !self.unproposed.is_empty() {
            let payloads = self.unproposed.iter().map(|(_, payload)| payload.clone()).collect();
            if self.raft.step(Input::Propose(payloads)).is_ok() {
                self.unproposed.clear();
            } else {
                self.forget_expired();
            }
        }
        while let Some((id, payload)) = self.unproposed_changes.front() {
            match self.raft.step(Input::Propose(vec![payload.clone()])) {
                Ok(()) => {}
                // It would be refused whenever it came: those behind it need not wait.
                Err(StepError::ChangeIllegal(_)) => {
                    if let Some(waiter) = self.proposals.take(*id) {
                        self.effects.push(Effect::Answer(waiter, Err(Refusal::NotEnoughStartedMembers)));
                    }
                }
                Err(_) => break,
            }
            self.unproposed_changes.pop_front();
        }
    }

    fn forget_expired(&mut self) {
        let proposals = &self.proposals;
        self.unproposed.retain(|(id, _)| proposals.waits(*id));
        self.unproposed_changes.retain(|(id, _)| proposals.waits(*id));
    }

    fn ready(&mut self, ready: Ready) {
        let Ready { persist, snapshot, entries, hard, must_sync, messages, committed, reads, .. } = ready;
        self.note_lead();
        if let (Some(id), Some(snapshot)) = (persist, &snapshot) {
            self.installing = Some((id, snapshot.clone()));
        }
        self.unsaved = hard.or(self.unsaved);
        if persist.is_some() {
            let hard = self.unsaved.take();
            let write = Persist { id: persist, snapshot, entries, hard, sync: must_sync };
            self.effects.push(Effect::Persist(write));
        }
        let (snapshots, mut messages): (Vec<_>, Vec<_>) =
            messages.into_iter().partition(|m| matches!(m.body, Body::Snapshot(_)));
        self.effects.extend(snapshots.into_iter().map(Effect::SendSnapshot));
        // What does not follow this member's log will, behind the snapshot. Told of it, the leader would build another.
        if self.looked_at > 0 {
            messages.retain(|m| !matches!(m.body, Body::AppendRejected { .. }));
        }
        if !messages.is_empty() {
            self.effects.push(Effect::Send(messages));
        }
        if let Some(last) = committed.last() {
            self.log.handed(last.index, committed.iter().map(entry_bytes).sum());
            self.effects.push(Effect::Apply(committed));
        }
        for (id, index) in reads {
            self.reads.confirm(id, index);
        }
        for id in ready.reads_dropped {
            self.reads.dropped(id);
        }
        let wanted = ready.need_snapshot.into_iter().filter(|to| self.building.insert(*to));
        self.effects.extend(wanted.map(Effect::BuildSnapshot));
    }

    /// Notices changes of leadership: a leader knows when leases end, a transfer may be over.
    fn note_lead(&mut self) {
        let lead = Lead { term: self.raft.term(), leader: self.raft.leader() };
        if lead == self.lead {
            return;
        }
        if lead.leader.is_some() {
            self.reads.ask_again();
            if lead.leader != self.lead.leader {
                self.led_since = Some(self.now);
            }
        }
        self.lead = lead;
        self.effects.push(Effect::Lead(lead));
        // A leader's term and leader stay as they are: if it leads, it does so from now on.
        for waiter in self.leases.follow() {
            self.effects.push(Effect::Answer(waiter, Err(Refusal::NotLeader)));
        }
        if self.leads() {
            self.marks.forget_peers();
            self.accused.clear();
            self.unfit = false;
        }
        if let Some(leader) = lead.leader
            && let Some(transfer) = self.transfer.take_if(|t| t.to == leader)
        {
            self.effects.push(Effect::Answer(transfer.waiter, Ok(Answer::Transferred)));
        }
    }

    /// A leader knows when leases end once it has applied an entry of its term, and so all that came before: what an
    /// earlier leader told a client about a lease may rest on an entry that was not applied here yet.
    fn lead_leases(&mut self) {
        let knows_all = self.raft.term_at(self.applied) == Some(self.raft.term());
        if !self.leads() || !knows_all || self.leases.expirer().is_some() {
            return;
        }
        // Between two ticks the time is that of the first.
        let config = ExpirerConfig { slack_ms: self.config.tick_ms, ..self.config.expirer };
        self.leases.lead(config, self.config.election_ms(), self.now);
    }

    fn persisted(&mut self, id: PersistId) {
        if let Some((_, snapshot)) = self.installing.take_if(|(installing, _)| *installing <= id) {
            self.effects.push(Effect::Install(snapshot));
        }
        self.input(Input::Persisted(id));
    }

    fn snapshot_received(&mut self, from: NodeId, term: Term, snapshot: Snapshot) {
        let LogId { index, .. } = snapshot.meta.last;
        let to = self.raft.id();
        self.input(Input::Receive(Message { from, to, term, body: Body::Snapshot(snapshot) }));
        // Whether raft took it shows in its log, which then starts behind it.
        if self.raft.first_index() != index.next() || self.applied >= index {
            self.effects.push(Effect::Discard(index));
        }
    }

    fn report(&mut self, report: Report) {
        let Report { index, mark, marks, replies, leases, changes, leases_replaced, flushed } = report;
        for (index, change) in changes {
            self.input(Input::ApplyChange { index, change });
        }
        if index > self.applied {
            self.applied = index;
            self.input(Input::Applied(index));
        }
        if index > Index(0)
            && let Some(mark) = self.marks.applied(&marks, mark, self.config.marks_max)
        {
            self.input(Input::Mark(mark));
        }
        if let Some(all) = leases_replaced {
            self.marks.replaced();
            self.leases.replace(all);
            self.log.installed(index);
        }
        for change in leases {
            for (waiter, seconds) in self.leases.applied(change, self.now) {
                self.effects.push(Effect::Answer(waiter, Ok(Answer::Leases(seconds))));
            }
        }
        self.lead_leases();
        for (id, reply) in replies {
            if let Some(waiter) = self.proposals.take(id) {
                self.effects.push(Effect::Answer(waiter, reply.map(Answer::Applied)));
            }
        }
        if let Some(flushed) = flushed {
            self.log.checkpointed(flushed);
        }
    }

    fn answer_reads(&mut self) {
        for Reader { waiter, purpose, deadline } in self.reads.ready(self.applied) {
            let answer = match purpose {
                Purpose::Read => Ok(Answer::Fresh),
                Purpose::Renew(leases, term) if self.leading_in(term).is_ok() => {
                    self.renew(&leases, waiter, deadline);
                    continue;
                }
                Purpose::Renew(..) => Err(Refusal::NotLeader),
                Purpose::Remaining(lease, term) => {
                    // Part of this millisecond is over: fresh from its grant, a lease has less left than that.
                    let now = self.now.after(1);
                    self.leading_in(term).map(|e| Answer::Lease(e.remaining(lease, now)))
                }
            };
            self.effects.push(Effect::Answer(waiter, answer));
        }
    }

    fn renew(&mut self, leases: &[LeaseId], waiter: W, deadline: Instant) {
        let Outcome { answer, undo } = self.leases.renew(leases, waiter, deadline, self.now);
        if let Some((waiter, seconds)) = answer {
            self.effects.push(Effect::Answer(waiter, Ok(Answer::Leases(seconds))));
        }
        for some in undo.chunks(self.config.expirer.checkpoint_leases_max) {
            self.effects.push(Effect::CheckpointLeases(self.raft.term(), some.to_vec()));
        }
    }

    /// The leases' clock, if this member has led ever since `term`.
    fn leading_in(&mut self, term: Term) -> Result<&mut Expirer, Refusal> {
        let leads = self.leads() && self.raft.term() == term;
        self.leases.expirer().filter(|_| leads).ok_or(Refusal::NotLeader)
    }

    fn keep_log_short(&mut self) {
        if self.log.checkpoint_due(self.applied, &self.config) {
            self.effects.push(Effect::Checkpoint);
        }
        if let Some(index) = self.log.compact_to(self.applied, &self.config) {
            self.input(Input::Compact(index));
        }
    }
}

fn entry_bytes(entry: &Entry) -> u64 {
    match &entry.payload {
        Payload::Command(bytes) => bytes.len() as u64,
        Payload::Empty | Payload::Change(_) => 0,
    }
}
