//! A cluster under random faults, then healed: safety all the way (the oracles are in `cluster`), then progress.

use kontiki::{
    membership::{Change, ChangeKind, ChangeStep, Transition},
    raft::{Body, Input, Payload, RoleKind},
    types::{Index, NodeId},
};

use super::{
    cluster::{Cluster, Stored},
    show::show_raft,
};

/// Where choices come from: a seed, or bytes, one a choice, which a fuzzer can change one by one.
enum Random {
    Seed(u64),
    Bytes(std::collections::VecDeque<u8>),
}

impl Random {
    fn next(&mut self) -> u64 {
        match self {
            Self::Seed(state) => {
                *state ^= *state << 13;
                *state ^= *state >> 7;
                *state ^= *state << 17;
                state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
            }
            Self::Bytes(bytes) => bytes.pop_front().unwrap_or(0).into(),
        }
    }

    /// Whether all bytes are used up.
    fn spent(&self) -> bool {
        match self {
            Self::Seed(_) => false,
            Self::Bytes(bytes) => bytes.is_empty(),
        }
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }
}

/// How likely is what, drawn anew for each seed, so that each seed is another kind of storm.
struct Swarm {
    drop: u64,
    duplicate: u64,
    crash: u64,
    cut: u64,
    hold: u64,
    change: u64,
    compact: u64,
    transfer: u64,
    tick: u64,
}

struct Storm {
    random: Random,
    swarm: Swarm,
    cluster: Cluster,
    proposed: u64,
    pre_vote: bool,
    members: u64,
}

impl Storm {
    fn new(seed: u64) -> Self {
        let mut random = Random::Seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        random.next();
        Self::of(random, seed)
    }

    fn of(mut random: Random, seed: u64) -> Self {
        let mut up_to = |max: usize| random.below(max + 1) as u64;
        let swarm = Swarm {
            drop: up_to(20),
            duplicate: up_to(15),
            crash: up_to(4),
            cut: up_to(4),
            hold: up_to(10),
            change: up_to(6),
            compact: up_to(6),
            transfer: up_to(2),
            tick: 30 + up_to(60),
        };
        let pre_vote = random.chance(70);
        let members = 1 + random.below(5) as u64;
        let learners = random.below(2) as u64;
        let shape = shape(seed, pre_vote);
        let cluster = Cluster::new(members, learners, shape);
        Self { random, swarm, cluster, proposed: 0, pre_vote, members: members + learners }
    }

    fn anyone(&mut self) -> NodeId {
        let ids: Vec<NodeId> = self.cluster.nodes.keys().copied().collect();
        ids[self.random.below(ids.len())]
    }

    fn step(&mut self) {
        let id = self.anyone();
        let roll = |random: &mut Random, percent: u64| random.next() % 1000 < percent * 10;
        if roll(&mut self.random, self.swarm.tick) {
            let _ = self.cluster.input(id, Input::Tick);
        }
        for _ in 0..self.random.below(6) {
            self.carry();
        }
        if self.random.chance(20) {
            self.cluster.persist(id);
        }
        if self.random.chance(10) {
            self.propose(id);
        }
        if self.random.chance(12) && self.cluster.raft(id).is_some() {
            let _ = self.cluster.read(id);
        }
        if roll(&mut self.random, self.swarm.hold) {
            let held = self.random.chance(50);
            self.cluster.node(id).held = held;
            if !held {
                while self.cluster.persist(id) {}
            }
        }
        if self.random.next() % 1000 < self.swarm.crash * 2 {
            self.crash(id);
        }
        if self.cluster.raft(id).is_none() && self.random.chance(30) {
            self.cluster.start(id);
        }
        if self.random.next() % 1000 < self.swarm.cut {
            self.cut();
        }
        if self.random.next() % 1000 < self.swarm.change * 5 {
            self.change(id);
        }
        if self.random.next() % 1000 < self.swarm.compact * 5 {
            self.compact(id);
        }
        if self.random.next() % 1000 < self.swarm.transfer * 5 {
            let target = self.anyone();
            let _ = self.cluster.input(id, Input::Transfer(target));
        }
    }

    /// As [`Self::step`], but one thing alone happens, and nothing is unlikely.
    fn choose(&mut self) {
        let id = self.anyone();
        match self.random.below(20) {
            0..5 => drop(self.cluster.input(id, Input::Tick)),
            5..11 => self.carry(),
            11 => drop(self.cluster.persist(id)),
            12 => self.propose(id),
            13 if self.cluster.raft(id).is_some() => drop(self.cluster.read(id)),
            13 => {}
            14 => {
                let held = !self.cluster.node(id).held;
                self.cluster.node(id).held = held;
            }
            15 if self.cluster.raft(id).is_some() => self.crash(id),
            15 => self.cluster.start(id),
            16 => self.cut(),
            17 => self.change(id),
            18 => self.compact(id),
            _ => {
                let target = self.anyone();
                drop(self.cluster.input(id, Input::Transfer(target)));
            }
        }
    }

    /// One message arrives, or does not, or twice.
    fn carry(&mut self) {
        if self.cluster.net.is_empty() {
            return;
        }
        // Mostly the oldest of all, now and then any.
        let len = self.cluster.net.len();
        let at = if self.random.chance(70) { 0 } else { self.random.below(len) };
        if self.random.chance(self.swarm.drop) {
            let lost = self.cluster.net.remove(at);
            if matches!(lost.body, Body::Snapshot(_)) {
                let _ = self.cluster.input(lost.from, Input::SnapshotSent { to: lost.to, ok: false });
            }
            return;
        }
        if self.random.chance(self.swarm.duplicate) {
            let copy = self.cluster.net[at].clone();
            self.cluster.net.push(copy);
        }
        self.cluster.deliver(at);
    }

    fn propose(&mut self, id: NodeId) {
        self.proposed += 1;
        let text = format!("p{}", self.proposed);
        let _ = self.cluster.input(id, Input::Propose(vec![Payload::Command(text.into())]));
    }

    fn crash(&mut self, id: NodeId) {
        let survive = self.random.below(self.cluster.node(id).writes.len() + 1);
        let applied = Index(self.random.next() % (self.cluster.node(id).applied.0 + 1));
        self.cluster.crash(id, survive, applied);
    }

    fn cut(&mut self) {
        if self.random.chance(50) {
            self.cluster.cut.clear();
            return;
        }
        let ids: Vec<NodeId> = self.cluster.nodes.keys().copied().collect();
        let side: Vec<bool> = ids.iter().map(|_| self.random.chance(50)).collect();
        let both_ways = self.random.chance(60);
        for (a, from) in ids.iter().enumerate() {
            for (b, to) in ids.iter().enumerate() {
                if side[a] && !side[b] {
                    self.cluster.cut.insert((*from, *to));
                    if both_ways {
                        self.cluster.cut.insert((*to, *from));
                    }
                }
            }
        }
    }

    fn change(&mut self, id: NodeId) {
        let kinds = [ChangeKind::AddVoter, ChangeKind::AddLearner, ChangeKind::Remove, ChangeKind::AddVoter];
        let mut steps = Vec::new();
        for _ in 0..1 + self.random.below(3) {
            let kind = kinds[self.random.below(kinds.len())];
            let node = NodeId(1 + self.random.next() % 7);
            steps.push(ChangeStep { kind, node });
            if !self.cluster.nodes.contains_key(&node) {
                self.members = self.members.max(node.0);
                let shape = shape(node.0, self.pre_vote);
                self.cluster.add(node, Stored::default(), shape);
            }
        }
        let change = match self.random.below(3) {
            0 => Change::Single { id: 1, step: steps[0], context: Default::default() },
            1 => Change::Joint { transition: Transition::Auto, steps, context: Default::default() },
            _ => Change::Joint { transition: Transition::JointImplicit, steps, context: Default::default() },
        };
        let _ = self.cluster.input(id, Input::Propose(vec![Payload::Change(change)]));
    }

    fn compact(&mut self, id: NodeId) {
        // As a node does it: what is dropped is in the state machine durably, and the stored log begins there.
        let node = self.cluster.node(id);
        let Some(raft) = node.raft.as_mut() else { return };
        let index = Index(raft.applied().0.saturating_sub(self.random.next() % 4));
        let Some(term) = raft.term_at(index) else { return };
        if !node.writes.is_empty() || index <= node.stored.snapshot.last.index {
            return;
        }
        let (_, config) = node.configs.range(..=index).next_back().expect("it began somewhere");
        node.stored.snapshot.config = config.clone();
        node.stored.snapshot.last.index = index;
        node.stored.snapshot.last.term = term;
        node.stored.entries.retain(|entry| entry.index > index);
        raft.step(Input::Compact(index)).expect("it is applied");
    }

    /// All faults end; somebody must lead, and a proposal must reach every member of the configuration.
    fn heal(&mut self) {
        self.cluster.cut.clear();
        let ids: Vec<NodeId> = self.cluster.nodes.keys().copied().collect();
        for id in &ids {
            self.cluster.node(*id).held = false;
            if self.cluster.raft(*id).is_none() {
                self.cluster.start(*id);
            }
            while self.cluster.persist(*id) {}
        }
        let mut target = None;
        for round in 0..1200 {
            for id in &ids {
                let _ = self.cluster.input(*id, Input::Tick);
            }
            for _ in 0..self.cluster.net.len() {
                self.cluster.deliver(0);
            }
            let leader = ids.iter().copied().find(|id| {
                self.cluster
                    .raft(*id)
                    .is_some_and(|raft| raft.role() == RoleKind::Leader && raft.committed_in_term())
            });
            if round % 100 == 50
                && let Some(leader) = leader
            {
                let payload = Payload::Command(format!("healed {round}").into());
                if self.cluster.input(leader, Input::Propose(vec![payload])).is_ok() {
                    target = self.cluster.raft(leader).map(|raft| raft.last().index);
                }
            }
            if let (Some(leader), Some(target)) = (leader, target)
                && self.converged(leader, target)
            {
                let before = self.cluster.answered;
                self.cluster.read(leader).expect("a leader reads");
                for _ in 0..4 {
                    for _ in 0..self.cluster.net.len() {
                        self.cluster.deliver(0);
                    }
                }
                assert!(self.cluster.answered > before, "the leader's read is not answered");
                return;
            }
        }
        let states: Vec<String> =
            ids.iter().filter_map(|id| self.cluster.raft(*id)).flat_map(show_raft).collect();
        panic!("no progress after the faults:\n{}", states.join("\n"));
    }

    fn converged(&self, leader: NodeId, target: Index) -> bool {
        let Some(raft) = self.cluster.raft(leader) else { return false };
        let config = raft.configuration();
        !(config.is_joint() && config.auto_leave())
            && config
                .members()
                .all(|id| self.cluster.nodes.get(&id).is_some_and(|node| node.applied >= target))
    }
}

fn shape(seed: u64, pre_vote: bool) -> impl Fn(&mut kontiki::raft::Config) {
    move |config| {
        config.seed = seed.wrapping_mul(31) & 0xffff_ffff;
        config.pre_vote = pre_vote;
        config.append_bytes_max = 80;
        config.inflight_max = 3;
        config.committed_bytes_max = 100;
        config.snapshot_ticks_max = 60;
    }
}

pub fn run(seed: u64, steps: usize) -> (u64, u64) {
    let mut storm = Storm::new(seed);
    for step in 0..steps {
        storm.step();
        if step % 16 == 0 {
            storm.cluster.check_log_matching();
        }
        // What piles up behind slow deliveries is lost.
        while storm.cluster.net.len() > 400 {
            let at = storm.random.below(storm.cluster.net.len());
            storm.cluster.net.remove(at);
        }
    }
    storm.heal();
    storm.cluster.check_log_matching();
    (storm.cluster.committed.len() as u64, storm.cluster.answered)
}

/// A storm that the bytes describe, a few of them an event.
#[allow(dead_code, reason = "fuzz/ calls it")]
pub fn run_bytes(bytes: &[u8]) {
    let random = Random::Bytes(bytes.iter().copied().collect());
    let mut storm = Storm::of(random, bytes.first().copied().unwrap_or(0).into());
    while !storm.random.spent() {
        storm.choose();
        storm.cluster.check_log_matching();
    }
    storm.heal();
    storm.cluster.check_log_matching();
}
