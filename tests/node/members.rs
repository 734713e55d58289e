//! Nodes with the disks, appliers and links that they drive, in one thread. The state machine is a toy: it counts,
//! and knows leases.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use kontiki::{
    error::Refusal,
    membership::{Change, Configuration},
    node::{Answer, Config, Effect, Event, Node, Persist, Report, Request, Start},
    raft::{
        Body, ConfState, Entry, HardState, LogId, Message, Payload, Restored, Snapshot, SnapshotMeta,
        StateMark,
    },
    state::{LeaseChange, MARK_EVERY, Reply},
    types::{Index, Instant, LeaseId, NodeId, Term},
};

use super::show::Shown;

pub const TICK_MS: u64 = 100;

/// What the applier is to do.
enum Job {
    Apply(Vec<Entry>),
    Install(Snapshot),
}

/// What the toy state machine holds.
#[derive(Clone, Default)]
pub struct State {
    last: LogId,
    config: Configuration,
    leases: BTreeMap<LeaseId, (i64, i64)>,
    /// Its hash is not what it should be, if this is not 0: those of one number are alike.
    pub spoiled: u64,
}

impl State {
    fn mark(&self) -> StateMark {
        StateMark { index: self.last.index, hash: self.last.index.0 * 100 + self.spoiled }
    }

    fn apply(&mut self, entries: &[Entry]) -> Report {
        let mut report = Report::default();
        for entry in entries {
            assert_eq!(entry.index, self.last.index.next(), "entries are applied in order");
            self.last = LogId { term: entry.term, index: entry.index };
            match &entry.payload {
                Payload::Empty => {}
                Payload::Command(bytes) => self.command(&String::from_utf8_lossy(bytes), &mut report),
                Payload::Change(change) => {
                    self.config = self.config.apply(change).expect("raft lets no illegal change in");
                    report.changes.push((entry.index, change.clone()));
                    if let Change::Single { id, .. } = change {
                        report.replies.push((*id, Ok(Reply::Members(Vec::new()))));
                    }
                }
            }
            if entry.index.0.is_multiple_of(MARK_EVERY) {
                report.marks.push(self.mark());
            }
        }
        report.index = self.last.index;
        report.mark = Some(self.mark());
        report
    }

    /// `ID grant LEASE TTL`, `ID revoke LEASE`, `ID checkpoint LEASE=SECONDS...`, or `ID` and anything.
    fn command(&mut self, text: &str, report: &mut Report) {
        let words: Vec<&str> = text.split(' ').collect();
        let number = |at: usize| words.get(at).and_then(|word| word.parse::<i64>().ok()).unwrap_or_default();
        let lease = LeaseId(number(2));
        let reply = match words.get(1) {
            Some(&"grant") => {
                self.leases.insert(lease, (number(3), 0));
                report.leases.push(LeaseChange::Granted(lease, number(3)));
                Ok(Reply::LeaseGrant { id: lease, ttl: number(3) })
            }
            Some(&"revoke") => match self.leases.remove(&lease) {
                Some(_) => {
                    report.leases.push(LeaseChange::Revoked(lease));
                    Ok(Reply::LeaseRevoke)
                }
                None => Err(Refusal::LeaseNotFound),
            },
            Some(&"checkpoint") => {
                for word in &words[2..] {
                    let (id, left) = word.split_once('=').expect("it is ID=SECONDS");
                    let (id, left) =
                        (LeaseId(id.parse().expect("a number")), left.parse().expect("a number"));
                    if let Some(lease) = self.leases.get_mut(&id) {
                        lease.1 = left;
                        report.leases.push(LeaseChange::Checkpointed(id, left));
                    }
                }
                Ok(Reply::LeaseCheckpoint)
            }
            _ => Ok(Reply::Done),
        };
        report.replies.push((number(0) as u64, reply));
    }
}

/// A member.
pub struct Member {
    pub node: Node<u64>,
    config: Config,
    hard: HardState,
    entries: Vec<Entry>,
    writes: VecDeque<Persist>,
    jobs: VecDeque<Job>,
    pub state: State,
    /// Snapshots that came in and are not known to be whole.
    arrived: VecDeque<(NodeId, Term, Snapshot)>,
    pub disk_held: bool,
    pub applier_held: bool,
    /// Checkpoints are left unanswered, snapshots unbuilt, and those that come in unread.
    pub keeper_held: bool,
}

/// All of them.
#[derive(Default)]
pub struct Members {
    pub all: BTreeMap<NodeId, Member>,
    pub net: Vec<Message>,
    pub cut: BTreeSet<NodeId>,
    pub now: Instant,
    pub trace: Vec<String>,
    /// The states that snapshots on their way hold.
    bodies: BTreeMap<Index, State>,
    asked: BTreeSet<u64>,
    answered: BTreeSet<u64>,
    own: u64,
}

impl Members {
    pub fn new(voters: u64, config: impl Fn(NodeId) -> Config) -> Self {
        let mut members = Self::default();
        let base = LogId { term: Term(1), index: Index(1) };
        let voters = Configuration::of_voters((1..=voters).map(NodeId));
        for id in voters.members() {
            let state = State { last: base, config: voters.clone(), ..State::default() };
            let hard = HardState { term: Term(1), vote: None, commit: Index(1) };
            members.add(id, config(id), state, hard);
        }
        members
    }

    /// A member whose log begins at its state.
    pub fn add(&mut self, id: NodeId, config: Config, state: State, hard: HardState) {
        let meta = SnapshotMeta { last: state.last, config: ConfState::from(&state.config) };
        let restored = Restored {
            hard,
            applied: meta.last.index,
            config: meta.config.clone(),
            snapshot: meta,
            entries: Vec::new(),
        };
        let start = Start { now: self.now, leases: Vec::new(), checkpointed: state.last.index };
        let node = Node::new(config.clone(), restored, start).expect("a sound start");
        let member = Member {
            node,
            config,
            hard,
            entries: Vec::new(),
            writes: VecDeque::new(),
            jobs: VecDeque::new(),
            state,
            arrived: VecDeque::new(),
            disk_held: false,
            applier_held: false,
            keeper_held: false,
        };
        self.all.insert(id, member);
        self.drain(id);
    }

    pub fn member(&mut self, id: NodeId) -> &mut Member {
        self.all.get_mut(&id).expect("the member exists")
    }

    /// A member that shares the first one's configuration and has nothing.
    pub fn join(&mut self, id: NodeId) {
        let mut config = self.all.values().next().expect("somebody is there").config.clone();
        config.raft.id = id;
        self.add(id, config, State::default(), HardState::default());
    }

    fn say(&mut self, id: NodeId, what: impl std::fmt::Display) {
        self.trace.push(format!("{id}: {what}"));
    }

    pub fn request(&mut self, id: NodeId, waiter: u64, request: Request<u64>) {
        assert!(self.asked.insert(waiter), "waiter {waiter} asks twice");
        self.event(id, Event::Request(request));
    }

    /// Who got no answer yet.
    pub fn waiting(&self) -> Vec<u64> {
        self.asked.difference(&self.answered).copied().collect()
    }

    pub fn event(&mut self, id: NodeId, event: Event<u64>) {
        self.member(id).node.step(event);
        self.drain(id);
    }

    /// Carries out all that a member wants done, and what comes of it there.
    pub fn drain(&mut self, id: NodeId) {
        for _ in 0..10_000 {
            let effects = self.member(id).node.poll();
            let mut idle = effects.is_empty();
            for effect in effects {
                self.carry_out(id, effect);
            }
            if !self.member(id).disk_held {
                idle &= !self.persist(id);
            }
            if !self.member(id).applier_held {
                idle &= !self.apply(id);
            }
            if idle {
                return;
            }
        }
        panic!("{id} does not come to rest");
    }

    fn carry_out(&mut self, id: NodeId, effect: Effect<u64>) {
        match effect {
            Effect::Persist(persist) => {
                if self.member(id).disk_held {
                    let number = persist.id.map_or("unsynced".to_owned(), |id| format!("#{}", id.0));
                    let snapshot = persist.snapshot.as_ref();
                    let what = snapshot.map_or(String::new(), |s| format!(" snapshot {}", s.meta.last.index));
                    let commit =
                        persist.hard.map_or(String::new(), |hard| format!(" commit {}", hard.commit));
                    self.say(id, format!("writes {number}{what}{commit} {}", Shown(&persist.entries)));
                }
                self.member(id).writes.push_back(persist);
            }
            Effect::Apply(entries) => {
                self.say(id, format!("applies {}", Shown(&entries)));
                self.member(id).jobs.push_back(Job::Apply(entries));
            }
            Effect::Install(snapshot) => {
                self.say(id, format!("installs {}", snapshot.meta.last.index));
                self.member(id).jobs.push_back(Job::Install(snapshot));
            }
            Effect::Discard(index) => self.say(id, format!("discards {index}")),
            Effect::Send(messages) => self.net.extend(messages),
            Effect::SendSnapshot(message) => {
                let to = message.to;
                self.say(id, format!("sends a snapshot to {to}"));
                self.net.push(message);
                self.member(id).node.step(Event::SnapshotSent { to, ok: true });
            }
            Effect::BuildSnapshot(to) if self.member(id).keeper_held => {
                self.say(id, format!("builds a snapshot for {to}"));
            }
            Effect::BuildSnapshot(to) => self.built(id, to, true),
            Effect::Checkpoint => self.checkpoint(id),
            Effect::RevokeLeases(term, leases) => {
                self.say(id, format!("revokes {leases:?}"));
                for lease in leases {
                    self.own += 1;
                    let payload = format!("{} revoke {}", 1_000_000 + self.own, lease.0).into();
                    let request = Request::AsLeader { term, payload };
                    self.member(id).node.step(Event::Request(request));
                }
            }
            Effect::CheckpointLeases(term, left) => {
                self.say(id, format!("checkpoints {left:?}"));
                self.own += 1;
                let left: Vec<String> = left.iter().map(|(id, left)| format!("{}={left}", id.0)).collect();
                let payload = format!("{} checkpoint {}", 1_000_000 + self.own, left.join(" ")).into();
                self.member(id).node.step(Event::Request(Request::AsLeader { term, payload }));
            }
            Effect::Corrupt(term, member) => self.say(id, format!("accuses {member} in term {term}")),
            Effect::Answer(waiter, answer) => {
                assert!(self.answered.insert(waiter), "waiter {waiter} is answered twice");
                let answer = match answer {
                    Ok(Answer::Applied(reply)) => format!("{reply:?}"),
                    Ok(answer) => format!("{answer:?}"),
                    Err(refusal) => format!("refused, {refusal:?}"),
                };
                self.say(id, format!("answers {waiter}: {answer}"));
            }
            Effect::Lead(lead) => {
                let leader = lead.leader.map_or("nobody".to_owned(), |id| id.to_string());
                self.say(id, format!("is led by {leader} in term {}", lead.term));
            }
            Effect::Diverged(how) => self.say(id, format!("stops: {how}")),
        }
    }

    /// A snapshot of what has been applied is there for `to`, or can't be made.
    pub fn built(&mut self, id: NodeId, to: NodeId, ok: bool) {
        let state = self.member(id).state.clone();
        let meta = SnapshotMeta { last: state.last, config: ConfState::from(&state.config) };
        self.bodies.insert(state.last.index, state);
        let snapshot = ok.then(|| Snapshot { meta, data: Default::default() });
        self.member(id).node.step(Event::SnapshotBuilt { to, snapshot });
    }

    /// The oldest snapshot that came in is whole, or of no use.
    pub fn checked(&mut self, id: NodeId, whole: bool) {
        let Some((from, term, snapshot)) = self.member(id).arrived.pop_front() else { return };
        let received = Event::SnapshotReceived { from, term, snapshot };
        self.event(id, if whole { received } else { Event::SnapshotUnfit });
    }

    fn checkpoint(&mut self, id: NodeId) {
        self.say(id, "checkpoints");
        let member = self.member(id);
        if !member.keeper_held {
            let report = Report { flushed: Some(member.state.last.index), ..Report::default() };
            member.node.step(Event::Applied(report));
        }
    }

    /// Makes the oldest write durable.
    pub fn persist(&mut self, id: NodeId) -> bool {
        let member = self.member(id);
        let Some(write) = member.writes.pop_front() else { return false };
        if write.snapshot.is_some() {
            member.entries.clear();
        }
        if let Some(first) = write.entries.first() {
            member.entries.retain(|entry| entry.index < first.index);
        }
        member.entries.extend(write.entries);
        member.hard = write.hard.unwrap_or(member.hard);
        if let Some(done) = write.id {
            member.node.step(Event::Persisted(done));
        }
        true
    }

    /// Does the applier's oldest job.
    pub fn apply(&mut self, id: NodeId) -> bool {
        let Self { all, bodies, .. } = self;
        let member = all.get_mut(&id).expect("the member exists");
        let report = match member.jobs.pop_front() {
            None => return false,
            Some(Job::Apply(entries)) => {
                let durable = member.entries.last().map_or(member.node.raft().first_index(), |e| e.index);
                assert!(entries.iter().all(|e| e.index <= durable), "the state outran the log");
                member.state.apply(&entries)
            }
            Some(Job::Install(snapshot)) => {
                let index = snapshot.meta.last.index;
                member.state = bodies.get(&index).expect("its body came with it").clone();
                let leases = member.state.leases.iter().map(|(id, (ttl, left))| (*id, *ttl, *left)).collect();
                Report { index, leases_replaced: Some(leases), ..Report::default() }
            }
        };
        member.node.step(Event::Applied(report));
        true
    }

    /// Delivers the message at this place of the net.
    pub fn deliver(&mut self, at: usize) {
        let message = self.net.remove(at);
        let apart = self.cut.contains(&message.from) != self.cut.contains(&message.to);
        if apart || !self.all.contains_key(&message.to) {
            return;
        }
        let Message { from, to, term, body } = message;
        match body {
            Body::Snapshot(snapshot) => {
                self.event(to, Event::SnapshotArrived);
                self.member(to).arrived.push_back((from, term, snapshot));
                if !self.member(to).keeper_held {
                    self.checked(to, true);
                }
            }
            body => self.event(to, Event::Message(Message { from, to, term, body })),
        }
    }

    pub fn settle(&mut self) {
        for _ in 0..10_000 {
            if self.net.is_empty() {
                return;
            }
            self.deliver(0);
        }
        panic!("messages without end");
    }
}
