//! The pure machines, driven by bytes: clusters by schedules, single ones by whatever comes.

use std::collections::{BTreeSet, VecDeque};

use arbitrary::Result;
use bytes::Bytes;
use kontiki::{
    lease::ExpirerConfig,
    membership::{Change, ChangeKind, ChangeStep, Member, promotion, removal},
    mvcc,
    node::{self, Effect, Event, Node, Report, Start},
    raft::{
        self, ConfState, Entry, HardState, Input, LogId, Payload, PersistId, Raft, Restored, RoleKind,
        SnapshotMeta, StepError,
    },
    state::{Command, Request},
    types::{Index, Instant, LeaseId, NodeId, Term},
    wire::command,
};

use super::{
    arb::{self, Source, list, one, upto},
    lease_model::{self, Step as LeaseStep},
    mvcc_pair::{Action, Pair},
    node_members::{Members, TICK_MS},
    raft_storm,
    replica::{Replica, rows},
    watch_books::{Step as WatchStep, Storm},
};

/// A cluster of rafts under a schedule of deliveries, losses, crashes, changes; then healed.
pub fn raft_cluster(data: &[u8]) {
    // Longer ones tell nothing more and take long.
    raft_storm::run_bytes(&data[..data.len().min(1500)]);
}

fn shape(id: NodeId) -> raft::Config {
    raft::Config {
        append_bytes_max: 80,
        inflight_max: 3,
        committed_bytes_max: 100,
        uncommitted_bytes_max: 4000,
        reads_max: 8,
        snapshot_ticks_max: 20,
        ..raft::Config::new(id, 7)
    }
}

fn restored() -> Restored {
    let last = LogId { term: Term(1), index: Index(1) };
    let config = ConfState { voters: [1, 2, 3].map(NodeId).into(), ..ConfState::default() };
    Restored {
        hard: HardState { term: Term(1), vote: None, commit: Index(1) },
        snapshot: SnapshotMeta { last, config: config.clone() },
        entries: Vec::new(),
        applied: Index(1),
        config,
    }
}

/// One raft that others tell anything: it goes on, and keeps what it promised itself.
struct Alone {
    raft: Raft,
    writes: VecDeque<Option<PersistId>>,
    hard: HardState,
    /// What it handed out as committed, and what of that was applied.
    committed: Vec<Entry>,
    applied: usize,
    installed: Index,
    reads: BTreeSet<raft::ReadId>,
    read: u64,
    asked: Vec<NodeId>,
}

impl Alone {
    fn step(&mut self, input: Input) -> bool {
        let diverged = matches!(self.raft.step(input), Err(StepError::Diverged { .. }));
        while let Some(ready) = self.raft.poll_ready() {
            if let Some(hard) = ready.hard {
                let old = self.hard;
                assert!(hard.term >= old.term && hard.commit >= old.commit, "{hard:?} after {old:?}");
                let kept = hard.term > old.term || old.vote.is_none() || hard.vote == old.vote;
                assert!(kept, "a vote is changed: {hard:?} after {old:?}");
                self.hard = hard;
            }
            if let Some(snapshot) = ready.snapshot {
                assert!(snapshot.meta.last.index > self.last(), "a snapshot replaces nothing committed");
                self.installed = snapshot.meta.last.index;
                self.committed.clear();
                self.applied = 0;
            }
            self.writes.extend(ready.persist.map(Some));
            for entry in ready.committed {
                assert_eq!(entry.index, self.last().next(), "committed entries come in order");
                assert!(entry.index <= self.hard.commit.max(self.raft.commit()));
                self.committed.push(entry);
            }
            for read in ready.reads.iter().map(|(read, _)| read).chain(&ready.reads_dropped) {
                assert!(self.reads.remove(read), "a read is answered once");
            }
            for message in ready.messages {
                assert_eq!(
                    message.from,
                    if message_names_target(&message) { message.from } else { self.raft.id() }
                );
            }
            self.asked.extend(ready.need_snapshot);
        }
        !diverged
    }

    fn last(&self) -> Index {
        self.committed.last().map_or(self.installed, |entry| entry.index)
    }

    fn apply(&mut self) -> bool {
        let Some(entry) = self.committed.get(self.applied).cloned() else {
            return self.step(Input::Applied(self.last()));
        };
        self.applied += 1;
        let index = entry.index;
        if let Payload::Change(change) = entry.payload {
            let _ = self.raft.step(Input::ApplyChange { index, change });
        }
        self.step(Input::Applied(index))
    }

    fn act(&mut self, u: &mut Source<'_>) -> Result<bool> {
        let peer = NodeId(upto(u, 4)?);
        Ok(match upto(u, 15)? {
            0 | 1 => self.step(Input::Tick),
            2..=7 => {
                let message = arb::message(u, peer, NodeId(1), 0)?;
                self.step(Input::Receive(message))
            }
            8 | 9 => match self.writes.pop_front().flatten() {
                Some(id) => self.step(Input::Persisted(id)),
                None => true,
            },
            10 => self.apply(),
            11 => self.step(Input::Propose(vec![match u.arbitrary()? {
                true => Payload::Command("p".into()),
                false => Payload::Change(arb::change(u)?),
            }])),
            12 => {
                self.read += 1;
                let read = raft::ReadId(self.read);
                self.reads.insert(read);
                let refused = self.raft.step(Input::Read(read)).is_err();
                if refused {
                    self.reads.remove(&read);
                }
                self.step(Input::Campaign)
            }
            13 => self.step(Input::Transfer(peer)),
            14 => {
                let ok = self.step(Input::Unreachable(peer));
                ok && self.step(Input::SnapshotSent { to: peer, ok: u.arbitrary()? })
            }
            _ => {
                let last =
                    LogId { term: self.raft.term_at(self.last()).unwrap_or_default(), index: self.last() };
                let config = self.raft.conf_state();
                let snapshot = raft::Snapshot { meta: SnapshotMeta { last, config }, data: Bytes::new() };
                match self.asked.pop() {
                    Some(to) => self.step(Input::SnapshotBuilt { to, snapshot }),
                    None => self.step(Input::Compact(self.raft.applied())),
                }
            }
        })
    }
}

/// A request to hand over leadership travels with its target as the sender.
fn message_names_target(message: &raft::Message) -> bool {
    matches!(message.body, raft::Body::TransferLeader { .. })
}

/// A single raft fed whatever peers may say.
pub fn raft_alone(u: &mut Source<'_>) -> Result<()> {
    let raft = Raft::new(shape(NodeId(1)), restored()).expect("a sound start");
    let hard = raft.hard_state();
    let mut alone = Alone {
        raft,
        writes: VecDeque::new(),
        hard,
        committed: Vec::new(),
        applied: 0,
        installed: Index(1),
        reads: BTreeSet::new(),
        read: 0,
        asked: Vec::new(),
    };
    for _ in 0..200 {
        if u.is_empty() || !alone.act(u)? {
            break;
        }
    }
    Ok(())
}

fn node_config(id: NodeId) -> node::Config {
    node::Config {
        raft: shape(id),
        tick_ms: TICK_MS,
        request_timeout_ms: 3_000,
        read_retry_ms: 500,
        apply_lag_max: 12,
        proposals_max: 6,
        reads_max: 6,
        snapshot_entries: 9,
        snapshot_bytes: 400,
        catchup_entries: 6,
        catchup_bytes: 200,
        marks_max: 4,
        expirer: ExpirerConfig { checkpoint_ms: Some(2_000), ..ExpirerConfig::default() },
    }
}

/// A single node fed whatever peers may say, with a disk and an applier that do what they are told.
pub fn node_alone(u: &mut Source<'_>) -> Result<()> {
    let start = Start { now: Instant(0), leases: vec![(LeaseId(1), 2, 0)], checkpointed: Index(1) };
    let mut node: Node<u64> = Node::new(node_config(NodeId(1)), restored(), start).expect("a sound start");
    let (mut now, mut waiter, mut waiting) = (0, 0, BTreeSet::new());
    let mut applied = Index(1);
    for _ in 0..200 {
        if u.is_empty() {
            break;
        }
        waiter += 1;
        let mut ask = |request: fn(u64) -> node::Request<u64>| {
            waiting.insert(waiter);
            Event::Request(request(waiter))
        };
        let from = NodeId(1 + upto(u, 3)?);
        node.step(match upto(u, 13)? {
            0..=2 => {
                now += TICK_MS;
                Event::Tick(Instant(now))
            }
            3..=6 => match arb::message(u, from, NodeId(1), 0)? {
                raft::Message { from, term, body: raft::Body::Snapshot(snapshot), .. } => {
                    Event::SnapshotReceived { from, term, snapshot }
                }
                message => Event::Message(message),
            },
            7 => ask(|waiter| node::Request::Propose { id: waiter, payload: "p".into(), waiter }),
            8 => ask(|waiter| node::Request::Read { waiter }),
            9 => ask(|waiter| node::Request::RenewLeases { leases: vec![LeaseId(1), LeaseId(2)], waiter }),
            10 => ask(|waiter| node::Request::Progress { waiter }),
            11 => ask(|waiter| node::Request::Transfer { to: NodeId(2), waiter }),
            12 => Event::Unreachable(from),
            _ => Event::SnapshotSent { to: from, ok: u.arbitrary()? },
        });
        if !carry_out(&mut node, &mut waiting, &mut applied, u.arbitrary()?) {
            return Ok(());
        }
    }
    // Everyone gets an answer, at the latest when time is up.
    for _ in 0..60 {
        now += TICK_MS;
        node.step(Event::Tick(Instant(now)));
        if !carry_out(&mut node, &mut waiting, &mut applied, true) {
            return Ok(());
        }
    }
    assert!(waiting.is_empty(), "{waiting:?} never got an answer");
    Ok(())
}

/// Does what a node wants done, but for what a slow disk leaves undone; false once it has stopped.
fn carry_out(node: &mut Node<u64>, waiting: &mut BTreeSet<u64>, applied: &mut Index, disk: bool) -> bool {
    loop {
        let effects = node.poll();
        if effects.is_empty() {
            return true;
        }
        for effect in effects {
            match effect {
                Effect::Persist(persist) => {
                    if let Some(id) = persist.id.filter(|_| disk) {
                        node.step(Event::Persisted(id));
                    }
                }
                Effect::Apply(entries) => {
                    let mut report = Report::default();
                    for entry in entries {
                        assert_eq!(entry.index, applied.next(), "entries are applied in order");
                        *applied = entry.index;
                        if let Payload::Change(change) = entry.payload {
                            report.changes.push((entry.index, change));
                        }
                    }
                    report.index = *applied;
                    node.step(Event::Applied(report));
                }
                Effect::Install(snapshot) => {
                    assert!(snapshot.meta.last.index > *applied, "a snapshot takes nothing back");
                    *applied = snapshot.meta.last.index;
                    let leases = Some(vec![(LeaseId(2), 3, 0)]);
                    let report = Report { index: *applied, leases_replaced: leases, ..Report::default() };
                    node.step(Event::Applied(report));
                }
                Effect::Answer(waiter, _) => assert!(waiting.remove(&waiter), "{waiter} is answered twice"),
                Effect::BuildSnapshot(to) => node.step(Event::SnapshotBuilt { to, snapshot: None }),
                Effect::Checkpoint => {
                    node.step(Event::Applied(Report { flushed: Some(*applied), ..Report::default() }));
                }
                Effect::Diverged(_) => return false,
                Effect::Discard(_)
                | Effect::Send(_)
                | Effect::SendSnapshot(_)
                | Effect::RevokeLeases(..)
                | Effect::CheckpointLeases(..)
                | Effect::Lead(_)
                | Effect::Corrupt(..) => {}
            }
        }
    }
}

fn change_step(u: &mut Source<'_>) -> Result<ChangeStep> {
    let kinds = [ChangeKind::AddVoter, ChangeKind::AddLearner, ChangeKind::Update];
    Ok(ChangeStep { kind: one(u, &kinds)?, node: NodeId(1 + upto(u, 2)?) })
}

fn node_act(members: &mut Members, waiter: u64, u: &mut Source<'_>) -> Result<()> {
    let id = NodeId(1 + upto(u, 2)?);
    let lease = LeaseId(1 + upto(u, 2)? as i64);
    let propose = |text: String| node::Request::Propose { id: waiter, payload: text.into(), waiter };
    match upto(u, 19)? {
        0..=3 => {
            members.now = members.now.after(TICK_MS);
            members.event(id, Event::Tick(members.now));
        }
        4..=8 if !members.net.is_empty() => {
            let at = upto(u, members.net.len() as u64 - 1)? as usize;
            match upto(u, 9)? {
                0 => drop(members.net.remove(at)),
                1 => {
                    let copy = members.net[at].clone();
                    members.net.push(copy);
                }
                _ => members.deliver(at),
            }
        }
        4..=8 => {}
        9 => members.request(id, waiter, propose(format!("{waiter} p"))),
        10 => members.request(id, waiter, propose(format!("{waiter} grant {} 2", lease.0))),
        11 => members.request(id, waiter, node::Request::Read { waiter }),
        12 => members.request(id, waiter, node::Request::RenewLeases { leases: vec![lease], waiter }),
        13 => {
            let change = Change::Single { id: waiter, step: change_step(u)?, context: Bytes::new() };
            members.request(id, waiter, node::Request::Change { id: waiter, change, waiter });
        }
        14 => members.request(id, waiter, node::Request::Transfer { to: NodeId(lease.0 as u64), waiter }),
        15 => members.request(id, waiter, node::Request::LeaseRemaining { lease, waiter }),
        16 => members.member(id).disk_held ^= true,
        17 => members.member(id).applier_held ^= true,
        18 => {
            members.persist(id);
            members.apply(id);
            members.drain(id);
        }
        _ if members.cut.is_empty() => drop(members.cut.insert(id)),
        _ => members.cut.clear(),
    }
    // What piles up is lost.
    members.net.truncate(200);
    Ok(())
}

/// Three nodes under a schedule; then healed: one leads, and each waiter has had one answer.
pub fn node_cluster(u: &mut Source<'_>) -> Result<()> {
    let mut members = Members::new(3, node_config);
    let mut waiter = 0;
    while !u.is_empty() && waiter < 300 {
        waiter += 1;
        node_act(&mut members, waiter, u)?;
        let leads = |term: Term| {
            let leads = |raft: &Raft| raft.role() == RoleKind::Leader && raft.hard_state().term == term;
            members.all.values().filter(|member| leads(member.node.raft())).count()
        };
        let terms: BTreeSet<Term> =
            members.all.values().map(|member| member.node.raft().hard_state().term).collect();
        assert!(terms.into_iter().all(|term| leads(term) <= 1), "one leader a term");
    }
    members.cut.clear();
    let ids: Vec<NodeId> = members.all.keys().copied().collect();
    for id in &ids {
        members.member(*id).disk_held = false;
        members.member(*id).applier_held = false;
        members.drain(*id);
    }
    for _ in 0..120 {
        members.now = members.now.after(TICK_MS);
        for id in &ids {
            members.event(*id, Event::Tick(members.now));
        }
        members.settle();
    }
    let leads = |id: &&NodeId| members.all[id].node.raft().role() == RoleKind::Leader;
    assert_eq!(ids.iter().filter(leads).count(), 1, "one leads after all");
    assert_eq!(members.waiting(), [0_u64; 0], "each waiter has its answer");
    Ok(())
}

/// The store against its model.
pub fn mvcc(u: &mut Source<'_>) -> Result<()> {
    let cache_bytes_max = one(u, &[0, 60, 1 << 20])?;
    let config = mvcc::Config {
        cache_bytes_max,
        unread_bytes_max: cache_bytes_max / 2,
        chunk_keys_max: 1 + upto(u, 3)? as usize,
        chunk_bytes_max: one(u, &[1, 1 << 20])?,
    };
    let mut pair = Pair::new(config);
    for _ in 0..100 {
        if u.is_empty() {
            break;
        }
        pair.act(&match upto(u, 15)? {
            0..=3 => Action::Put(arb::put(u)?),
            4 => Action::Delete(arb::delete(u)?),
            5 | 6 => Action::Txn(arb::txn(u, 2)?),
            7..=9 => Action::Read(arb::read(u)?),
            10 => Action::Compact(upto(u, 4)? as i64 - 1),
            11 | 12 => Action::Publish,
            13 => Action::Step(1 + upto(u, 3)? as usize),
            14 => Action::History(upto(u, 19)? as i64, 1 + upto(u, 3)? as usize),
            _ => Action::Reopen,
        });
    }
    pair.settle();
    Ok(())
}

/// The watch hub against its clients' books.
pub fn watch(u: &mut Source<'_>) -> Result<()> {
    let mut storm = Storm::new();
    storm.step(WatchStep::Open);
    for _ in 0..200 {
        if u.is_empty() {
            break;
        }
        let stream = upto(u, 3)? as usize;
        storm.step(match upto(u, 23)? {
            0 => WatchStep::Open,
            1 => WatchStep::Close(stream),
            2..=5 => {
                let range = (upto(u, 7)? as u8, upto(u, 9)? as u8);
                let start = if u.arbitrary()? { Some(upto(u, 11)? as i64) } else { None };
                let (flags, id) = (u.arbitrary()?, one(u, &[0, 0, 0, 5, -1])?);
                WatchStep::Create { stream, range, start, flags, id }
            }
            6 => WatchStep::Cancel { stream, pick: upto(u, 20)? as usize },
            7 => WatchStep::Progress(stream),
            8..=13 => {
                let mut changes = list(u, 2, |u| Ok((upto(u, 7)? as u8, u.arbitrary()?)))?;
                changes.push((upto(u, 7)? as u8, true));
                WatchStep::Write { changes, publish: upto(u, 4)? > 0 }
            }
            14 => WatchStep::Restore,
            15 => WatchStep::Compact(upto(u, 5)? as i64),
            16 => WatchStep::Tick(1 + upto(u, 599)?),
            17..=20 => WatchStep::Poll,
            _ => WatchStep::Drain(stream, 1 + upto(u, 3)? as usize),
        });
    }
    storm.settle();
    Ok(())
}

/// The leader's clock of leases against its clients'.
pub fn lease(u: &mut Source<'_>) -> Result<()> {
    let mut steps = Vec::new();
    while !u.is_empty() && steps.len() < 200 {
        let id = 1 + upto(u, 6)? as i64;
        steps.push(match upto(u, 7)? {
            0 | 1 => LeaseStep::Grant(id, 1 + upto(u, 4)? as i64),
            2 | 3 => LeaseStep::Renew(id),
            4 => LeaseStep::Revoke(id),
            5 => LeaseStep::Wait(upto(u, 2500)?),
            _ => LeaseStep::Due(upto(u, 3)? as usize),
        });
    }
    lease_model::check(steps);
    Ok(())
}

/// An entry as the log may hold it.
pub fn entry(u: &mut Source<'_>, index: u64) -> Result<Entry> {
    let id = NodeId(1 + upto(u, 3)?);
    let payload = match upto(u, 19)? {
        0 => Payload::Empty,
        1 => Payload::Change(arb::change(u)?),
        2 => {
            let peer_urls = vec![format!("http://p{id}:1")];
            let member = Member { id, peer_urls, learner: u.arbitrary()?, ..Member::default() };
            Payload::Change(member.to_add(index))
        }
        3 => Payload::Change(removal(index, id)),
        4 => Payload::Change(promotion(index, id)),
        5 => Payload::Command(arb::bytes(u, 30)?),
        _ => command_payload(index, arb::command(u)?),
    };
    Ok(Entry { term: Term(2), index: Index(index), payload })
}

fn command_payload(index: u64, command: Command) -> Payload {
    let request = Request { id: index, user: String::new(), auth_revision: 0, command };
    Payload::Command(command::encode(&request))
}

/// One log on two replicas, in other runs and with restarts and crashes: they are one, or both stop at the same
/// entry.
pub fn state(u: &mut Source<'_>) -> Result<()> {
    let (mut one, mut other) = (Replica::new(), Replica::new());
    let mut log: Vec<Entry> = Vec::new();
    for index in 1..=60 {
        if u.is_empty() {
            break;
        }
        log.push(entry(u, index)?);
        let stopped = one.apply(&log[index as usize - 1..]).is_err();
        let at = other.machine.applied().0 as usize;
        match upto(u, 7)? {
            0..=2 if !stopped => {}
            3 if !stopped => other.restart(),
            4 if !stopped => other.crash(upto(u, 3)? as usize),
            5 if !stopped => other.compact(),
            _ => {
                let result = other.apply(&log[at.min(log.len())..]);
                assert_eq!(result.is_err(), stopped, "a fault is the same everywhere: {result:?}");
            }
        }
        if stopped {
            return Ok(());
        }
    }
    other.apply(&log[other.machine.applied().0 as usize..]).expect("the other had no fault");
    one.compact();
    other.compact();
    assert_eq!(one.machine.mark(), other.machine.mark());
    assert_eq!(rows(&one.tables), rows(&other.tables));
    let opened = Replica::open(one.tables.clone());
    for (one, other) in [(&one, &other), (&one, &opened)] {
        assert_eq!(one.machine.leases(), other.machine.leases());
        assert_eq!(one.machine.roster(), other.machine.roster());
        assert_eq!(one.machine.alarms(), other.machine.alarms());
        assert_eq!(one.machine.configuration(), other.machine.configuration());
        assert_eq!(one.machine.store().revision(), other.machine.store().revision());
    }
    Ok(())
}
