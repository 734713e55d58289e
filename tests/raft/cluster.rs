//! Members, their disks and the network between them, in one place and one thread, with the oracles that watch
//! them: every invariant of Raft's figure 3, and that nothing is said, applied or read before it may be.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use kontiki::{
    membership::Change,
    raft::{
        Body, ConfState, Config, Entry, HardState, Input, LogId, Message, Payload, PersistId, Raft, ReadId,
        Ready, Restored, RoleKind, Snapshot, SnapshotMeta, StepError,
    },
    types::{Index, NodeId, Term},
};

use super::show::{Shown, show_ready};

/// A write that the disk has got but not synced.
#[derive(Clone, Debug)]
pub struct Write {
    pub id: Option<PersistId>,
    pub hard: Option<HardState>,
    pub snapshot: Option<Snapshot>,
    pub entries: Vec<Entry>,
}

/// What survives a crash.
#[derive(Clone, Debug, Default)]
pub struct Stored {
    pub hard: HardState,
    pub snapshot: SnapshotMeta,
    pub entries: Vec<Entry>,
}

impl Stored {
    pub fn last(&self) -> LogId {
        self.entries.last().map_or(self.snapshot.last, |e| LogId { term: e.term, index: e.index })
    }

    fn write(&mut self, write: Write) {
        if let Some(snapshot) = write.snapshot {
            self.snapshot = snapshot.meta;
            self.entries.clear();
        }
        if let Some(first) = write.entries.first() {
            self.entries.retain(|entry| entry.index < first.index);
            assert_eq!(self.last().index.next(), first.index, "entries are written without a gap");
        }
        self.entries.extend(write.entries);
        if let Some(hard) = write.hard {
            assert!(hard.commit <= self.last().index, "a commit index is written behind its entries");
            assert!(hard.term >= self.hard.term && hard.commit >= self.hard.commit, "hard state goes up");
            assert!(
                hard.term > self.hard.term || self.hard.vote.is_none() || hard.vote == self.hard.vote,
                "a vote is not changed"
            );
            self.hard = hard;
        }
    }
}

/// A member, running or crashed.
pub struct Node {
    pub raft: Option<Raft>,
    pub config: Config,
    pub stored: Stored,
    /// Writes under way; acknowledged at once unless `held`.
    pub writes: VecDeque<Write>,
    pub held: bool,
    /// Whether snapshots are built as soon as they are asked for.
    pub builds: bool,
    pub asked: Vec<NodeId>,
    /// How far its state machine is, and the configurations that it has been through.
    pub applied: Index,
    pub configs: BTreeMap<Index, ConfState>,
    /// Reads under way, each with the commit index that it must at least see.
    pub reads: BTreeMap<ReadId, Index>,
    pub incarnation: u64,
}

/// All of it.
#[derive(Default)]
pub struct Cluster {
    pub nodes: BTreeMap<NodeId, Node>,
    pub net: Vec<Message>,
    /// Pairs that can't reach each other, in this direction.
    pub cut: BTreeSet<(NodeId, NodeId)>,
    pub trace: Vec<String>,
    pub tracing: bool,
    pub reads: u64,
    /// How many reads were answered.
    pub answered: u64,
    /// What anybody has been given to apply, ever.
    pub committed: BTreeMap<Index, Entry>,
    leaders: BTreeMap<Term, NodeId>,
}

impl Cluster {
    /// Members 1 to n, the last of them learners, whose logs begin with a snapshot at index 1.
    pub fn new(voters: u64, learners: u64, shape: impl Fn(&mut Config)) -> Self {
        let mut cluster = Self::default();
        let config = ConfState {
            voters: (1..=voters).map(NodeId).collect(),
            learners: (voters + 1..=voters + learners).map(NodeId).collect(),
            ..ConfState::default()
        };
        let last = LogId { term: Term(1), index: Index(1) };
        for id in 1..=voters + learners {
            let stored = Stored {
                hard: HardState { term: Term(1), vote: None, commit: Index(1) },
                snapshot: SnapshotMeta { last, config: config.clone() },
                entries: Vec::new(),
            };
            cluster.add(NodeId(id), stored, &shape);
        }
        cluster
    }

    /// A member that starts with this.
    pub fn add(&mut self, id: NodeId, stored: Stored, shape: impl Fn(&mut Config)) {
        let mut config = Config::new(id, 0);
        shape(&mut config);
        let (applied, conf) = (stored.snapshot.last.index, stored.snapshot.config.clone());
        let node = Node {
            raft: None,
            config,
            stored,
            writes: VecDeque::new(),
            held: false,
            builds: true,
            asked: Vec::new(),
            applied,
            configs: BTreeMap::from([(applied, conf)]),
            reads: BTreeMap::new(),
            incarnation: 0,
        };
        self.nodes.insert(id, node);
        self.start(id);
    }

    pub fn node(&mut self, id: NodeId) -> &mut Node {
        self.nodes.get_mut(&id).expect("the member exists")
    }

    pub fn raft(&self, id: NodeId) -> Option<&Raft> {
        self.nodes.get(&id).and_then(|node| node.raft.as_ref())
    }

    pub fn start(&mut self, id: NodeId) {
        let node = self.node(id);
        node.incarnation += 1;
        let config = Config { seed: node.config.seed + (node.incarnation << 32), ..node.config };
        let (_, conf) = node.configs.range(..=node.applied).next_back().expect("it began somewhere");
        let restored = Restored {
            hard: node.stored.hard,
            snapshot: node.stored.snapshot.clone(),
            entries: node.stored.entries.clone(),
            applied: node.applied,
            config: conf.clone(),
        };
        node.raft = Some(Raft::new(config, restored).expect("what was stored is sound"));
        self.drain(id);
    }

    /// Stops a member; of the writes under way the first `survive` are on the disk.
    pub fn crash(&mut self, id: NodeId, survive: usize, applied: Index) {
        let node = self.node(id);
        node.raft = None;
        let writes = std::mem::take(&mut node.writes);
        for write in writes.into_iter().take(survive) {
            node.stored.write(write);
        }
        node.applied = node.applied.min(applied.max(node.stored.snapshot.last.index));
        node.configs.split_off(&node.applied.next());
        // A snapshot that came through the log replaces what the state machine lacked.
        if node.applied < node.stored.snapshot.last.index {
            node.applied = node.stored.snapshot.last.index;
            node.configs.insert(node.applied, node.stored.snapshot.config.clone());
        }
        node.reads.clear();
        node.asked.clear();
    }

    pub fn input(&mut self, id: NodeId, input: Input) -> Result<(), StepError> {
        let Some(raft) = self.node(id).raft.as_mut() else { return Ok(()) };
        let result = raft.step(input);
        if let Err(StepError::Diverged { from, index }) = &result {
            panic!("{id} and {from} diverged at {index}");
        }
        self.drain(id);
        result
    }

    pub fn read(&mut self, id: NodeId) -> Result<(), StepError> {
        self.reads += 1;
        let read = ReadId(self.reads);
        let floor = self.committed.keys().next_back().copied().unwrap_or_default();
        self.node(id).reads.insert(read, floor);
        let result = self.input(id, Input::Read(read));
        if result.is_err() {
            self.node(id).reads.remove(&read);
        }
        result
    }

    /// Delivers message number `at` of the network.
    pub fn deliver(&mut self, at: usize) {
        let message = self.net.remove(at);
        let (from, to) = (message.from, message.to);
        if self.cut.contains(&(from, to)) || self.raft(to).is_none() {
            return;
        }
        self.say(format!("{to}: gets {}", Shown(&message)));
        let is_snapshot = matches!(message.body, Body::Snapshot(_));
        if let Err(error) = self.input(to, Input::Receive(message)) {
            self.say(format!("{to}: refuses: {error}"));
        }
        if is_snapshot && self.raft(from).is_some() {
            let _ = self.input(from, Input::SnapshotSent { to, ok: true });
        }
    }

    /// Acknowledges the oldest write under way.
    pub fn persist(&mut self, id: NodeId) -> bool {
        let node = self.node(id);
        let Some(write) = node.writes.pop_front() else { return false };
        let ack = write.id;
        node.stored.write(write);
        self.finish_install(id);
        if let Some(ack) = ack {
            self.input(id, Input::Persisted(ack)).expect("it was asked for");
        }
        true
    }

    /// Does all that a member wants done.
    pub fn drain(&mut self, id: NodeId) {
        let mut rounds = 0;
        while let Some(ready) = self.node(id).raft.as_mut().and_then(Raft::poll_ready) {
            rounds += 1;
            assert!(rounds < 10_000, "{id} does not come to rest");
            if self.tracing {
                self.trace.extend(show_ready(id, &ready));
            }
            self.take(id, ready);
            while !self.node(id).held && !self.node(id).writes.is_empty() {
                self.persist(id);
            }
        }
    }

    fn take(&mut self, id: NodeId, ready: Ready) {
        assert_eq!(ready.must_sync, ready.persist.is_some());
        if let Some(standing) = ready.standing
            && standing.role == RoleKind::Leader
        {
            let leader = *self.leaders.entry(standing.term).or_insert(id);
            assert_eq!(leader, id, "election safety: term {} has two leaders", standing.term);
            self.check_leader_completeness(id);
        }
        for message in ready.messages {
            self.check_promise(id, &message);
            self.net.push(message);
        }
        let write =
            Write { id: ready.persist, hard: ready.hard, snapshot: ready.snapshot, entries: ready.entries };
        let installs = write.snapshot.as_ref().map(|snapshot| snapshot.meta.last.index);
        if write.id.is_some() || write.hard.is_some() {
            self.node(id).writes.push_back(write);
        }
        for (read, index) in ready.reads {
            let floor = self.node(id).reads.remove(&read).expect("a read is answered once");
            assert!(index >= floor, "{id} would read at {index} what was at {floor} when it began");
            self.answered += 1;
        }
        for read in ready.reads_dropped {
            assert!(self.node(id).reads.remove(&read).is_some(), "a read is dropped once");
        }
        for entry in ready.committed {
            self.apply(id, entry);
        }
        self.node(id).asked.extend(ready.need_snapshot);
        if self.node(id).builds {
            self.build_snapshots(id);
        }
        if installs.is_some() {
            self.check_log_matching();
        }
    }

    /// A durable snapshot is what the state machine goes on from.
    fn finish_install(&mut self, id: NodeId) {
        let node = self.node(id);
        let snapshot = node.stored.snapshot.clone();
        if snapshot.last.index > node.applied {
            node.applied = snapshot.last.index;
            node.configs.insert(snapshot.last.index, snapshot.config);
            if node.raft.is_some() {
                self.input(id, Input::Applied(snapshot.last.index)).expect("it was installed");
            }
        }
    }

    pub fn build_snapshots(&mut self, id: NodeId) {
        for to in std::mem::take(&mut self.node(id).asked) {
            let node = self.node(id);
            let Some(raft) = node.raft.as_ref() else { return };
            let index = node.applied;
            let Some(term) = raft.term_at(index) else { continue };
            let (_, config) = node.configs.range(..=index).next_back().expect("it began somewhere");
            let meta = SnapshotMeta { last: LogId { term, index }, config: config.clone() };
            let snapshot = Snapshot { meta, data: Default::default() };
            if let Some(raft) = node.raft.as_mut() {
                raft.step(Input::SnapshotBuilt { to, snapshot }).expect("it is of the applied state");
            }
        }
    }

    fn apply(&mut self, id: NodeId, entry: Entry) {
        let stored = &self.node(id).stored;
        let durable = stored.snapshot.last.index >= entry.index || stored.entries.contains(&entry);
        assert!(durable, "{id} applies {} before it is durable there", entry.index);
        let index = entry.index;
        let known = self.committed.entry(index).or_insert_with(|| entry.clone());
        assert_eq!(*known, entry, "state machine safety at {index}");
        if index <= self.node(id).applied {
            return;
        }
        assert_eq!(self.node(id).applied.next(), index, "entries are applied in order");
        if let Payload::Change(change) = entry.payload {
            self.apply_change(id, index, change);
        }
        self.node(id).applied = index;
        if let Some(raft) = self.node(id).raft.as_mut() {
            raft.step(Input::Applied(index)).expect("it was handed out");
        }
    }

    fn apply_change(&mut self, id: NodeId, index: Index, change: Change) {
        let Some(raft) = self.node(id).raft.as_mut() else { return };
        let result = raft.step(Input::ApplyChange { index, change });
        let config = raft.conf_state();
        self.node(id).configs.insert(index, config);
        if let Err(error) = result {
            self.say(format!("{id}: does not change: {error}"));
        }
    }

    fn say(&mut self, line: String) {
        if self.tracing {
            self.trace.push(line);
        }
    }

    /// Nothing is promised that would not survive a crash now.
    fn check_promise(&mut self, id: NodeId, message: &Message) {
        let stored = self.node(id).stored.clone();
        match &message.body {
            Body::AppendAccepted { matched } if *matched > Index(0) => {
                assert!(stored.last().index >= *matched, "{id} accepted what it had not stored");
                assert_eq!(stored.hard.term, message.term, "{id} accepted in a term that it had not stored");
            }
            Body::VoteReply { pre: false, granted: true } => {
                let given = (stored.hard.term, stored.hard.vote);
                assert_eq!(
                    given,
                    (message.term, Some(message.to)),
                    "{id} gave a vote that it had not stored"
                );
            }
            Body::Vote { pre: false, last, .. } => {
                let given = (stored.hard.term, stored.hard.vote);
                assert_eq!(
                    given,
                    (message.term, Some(id)),
                    "{id} campaigns with a vote that it had not stored"
                );
                assert_eq!(stored.last(), *last, "{id} campaigns with a log that it had not stored");
            }
            _ => {}
        }
    }

    fn check_leader_completeness(&self, id: NodeId) {
        let Some(raft) = self.raft(id) else { return };
        for (index, entry) in self.committed.range(raft.first_index()..) {
            assert_eq!(raft.term_at(*index), Some(entry.term), "leader {id} lacks committed entry {index}");
        }
    }

    /// Two logs that agree at an index agree at all before it.
    pub fn check_log_matching(&self) {
        let rafts: Vec<&Raft> = self.nodes.values().filter_map(|node| node.raft.as_ref()).collect();
        for (at, one) in rafts.iter().enumerate() {
            for other in &rafts[at + 1..] {
                let from = one.first_index().max(other.first_index()).0.saturating_sub(1);
                let to = one.last().index.min(other.last().index).0;
                let same = |index: u64| one.term_at(Index(index)) == other.term_at(Index(index));
                if let Some(agree) = (from..=to).rev().find(|index| same(*index)) {
                    for index in from..agree {
                        assert!(
                            same(index),
                            "{} and {} agree at {agree}, not at {index}",
                            one.id(),
                            other.id()
                        );
                    }
                }
            }
        }
    }
}
