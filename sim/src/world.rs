//! The simulated world: members with their disks, tables and clocks, the network between them, and what they do to
//! be observed.
//!
//! A member is a slot at an address. Its disk, tables and clock outlive its processes; each process is one
//! incarnation of the shipped server, started by `server::start` on the seams of [`crate::runtime`].

mod disks;
mod notes;
mod secrets;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use kontiki::{
    membership::Member,
    raft::Message,
    runtime::Question,
    server::{
        self, Exit, Handle, Options,
        api::{Api, Limits, Member as _},
    },
    storage::{MemBackend, MemDisk},
    types::{ClusterId, NodeId},
};

use secrets::{PlainSigner, Remembering};

use crate::{
    backend::SimBackend,
    check,
    client::CLIENTS,
    clock::{SimClock, TRUE_RATE},
    history::{self, History, MessageFact},
    host::{Host, Micros, Process},
    lock::lock,
    moments::Moments,
    net::{Address, Answering, Net, Served, address_of, peer_url},
    plan::{Knobs, Moment},
    probe::{Event, Probe},
    rng::Rng,
    runtime::{Pace, SimRuntime},
};

/// A running member, as the world holds it.
pub type SimHandle<H> = Handle<SimRuntime<H>>;

const DATA: &str = "/data";

/// The world. Clones are the same one.
#[derive(Clone)]
pub struct World<H: Host> {
    /// What runs the tasks.
    pub host: H,
    /// The network.
    pub net: Net<H>,
    /// What faults wait for.
    pub moments: Moments,
    /// What is seen.
    pub probe: Probe,
    /// Draws that the world makes.
    pub rng: Rng,
    /// The cluster's knobs.
    pub knobs: Arc<Knobs>,
    seed: u64,
    hasher: Arc<Remembering>,
    state: Arc<Mutex<State<H>>>,
}

struct State<H: Host> {
    slots: BTreeMap<Address, Slot<H>>,
    history: History,
    /// What should never be, found while the run goes.
    failures: Vec<String>,
    /// Why nobody can demand that the cluster lives on, if so.
    doomed: bool,
}

struct Slot<H: Host> {
    disk: MemDisk,
    tables: MemBackend,
    clock: SimClock<H>,
    pace: Pace,
    /// `--initial-cluster`, and whether the cluster is there already.
    cluster: BTreeMap<String, Vec<String>>,
    existing: bool,
    /// Known after the first start.
    id: Option<NodeId>,
    /// How often the member of this id was started.
    incarnation: u32,
    process: Option<Process>,
    up: Option<SimHandle<H>>,
    /// A fault of its disk was injected: it may stop by itself, and refuse to start.
    excused: bool,
    /// It may start without what it had promised.
    forgets: bool,
    /// Out of the cluster, or beyond repair.
    given_up: bool,
    /// Why its last process ended by itself, if it did.
    last_words: Option<String>,
}

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The process alone: what it wrote is there.
    Kill,
    /// Its machine: what was not synced is lost in part.
    Power,
}

/// How a member's name is made from its address.
pub fn name(address: Address) -> String {
    format!("m{address}")
}

struct Peer<H: Host>(SimHandle<H>);

impl<H: Host> Served for Peer<H> {
    fn answer(&self, question: Question) -> Answering {
        let handle = self.0.clone();
        Box::pin(async move { handle.answer_as_leader(&question).await })
    }

    fn cluster(&self) -> (ClusterId, Vec<Member>) {
        (self.0.header().cluster, self.0.members())
    }

    fn is_removed(&self, id: NodeId) -> bool {
        self.0.is_removed(id)
    }
}

/// What a member's process tells of itself; holds no lock of the world while the member's code runs.
impl<H: Host> World<H> {
    /// A world with `knobs.members` slots, none of which is up.
    pub fn new(host: H, knobs: Knobs, seed: u64, keep_trace: bool) -> Self {
        let rng = Rng::of(seed, "world");
        let clock = host.clone();
        let probe = Probe::new(move || clock.now(), keep_trace);
        let state = State {
            slots: BTreeMap::new(),
            history: History::default(),
            failures: Vec::new(),
            doomed: false,
        };
        let state = Arc::new(Mutex::new(state));
        let (seen, clock) = (state.clone(), host.clone());
        let on_message = move |message: &Message| {
            if let Some(fact) = MessageFact::of(history::Micros(clock.now()), message) {
                lock(&seen).history.messages.push(fact);
            }
        };
        let draws = Rng::of(seed, "network");
        let moments = Moments::default();
        let net =
            Net::new(host.clone(), draws, probe.clone(), knobs.link, Arc::new(on_message), moments.clone());
        let world = Self {
            host,
            net,
            moments,
            probe,
            rng,
            knobs: Arc::new(knobs),
            seed,
            hasher: Arc::default(),
            state,
        };
        let cluster: BTreeMap<_, _> =
            (1..=world.knobs.members).map(|n| (name(n), vec![peer_url(n)])).collect();
        for address in 1..=world.knobs.members {
            world.add_slot(address, cluster.clone(), false);
        }
        world
    }

    fn lock(&self) -> MutexGuard<'_, State<H>> {
        lock(&self.state)
    }

    fn slot<T>(&self, address: Address, act: impl FnOnce(&mut Slot<H>) -> T) -> Option<T> {
        self.lock().slots.get_mut(&address).map(act)
    }

    /// Makes a place for a member that starts with this `--initial-cluster`, on an empty disk.
    pub fn add_slot(&self, address: Address, cluster: BTreeMap<String, Vec<String>>, existing: bool) {
        let drift = self.knobs.drift_ppm;
        let rate = TRUE_RATE - drift / 2 + self.rng.below(drift + 1);
        let slot = Slot {
            disk: MemDisk::new(),
            tables: MemBackend::new(),
            clock: SimClock::new(self.host.clone(), self.rng.below(1_000_000_000), rate),
            pace: Pace::new(&self.knobs),
            cluster,
            existing,
            id: None,
            incarnation: 0,
            process: None,
            up: None,
            excused: false,
            forgets: false,
            given_up: false,
            last_words: None,
        };
        self.lock().slots.insert(address, slot);
    }

    /// The addresses at which a member is or was.
    pub fn addresses(&self) -> Vec<Address> {
        self.lock().slots.keys().copied().collect()
    }

    /// Some address at which a member is or was; none when the run has ended and there is nobody left to ask.
    pub fn anywhere(&self, rng: &Rng) -> Option<Address> {
        let addresses = self.addresses();
        (!addresses.is_empty()).then(|| *rng.pick(&addresses))
    }

    /// The addresses whose members are part of the cluster.
    pub fn living(&self) -> Vec<Address> {
        let state = self.lock();
        state.slots.iter().filter(|(_, slot)| !slot.given_up).map(|(address, _)| *address).collect()
    }

    /// The addresses of the members that vote, as the leader knows them, or any other.
    pub fn voters(&self) -> Vec<Address> {
        let knows = self
            .leader()
            .or_else(|| self.living().into_iter().find(|address| self.handle(*address).is_some()));
        knows.map(|address| self.voters_known_to(address)).unwrap_or_default()
    }

    /// The addresses of the members that vote, as the one at an address knows them; none if it does not serve.
    pub fn voters_known_to(&self, address: Address) -> Vec<Address> {
        let members = self.handle(address).map(|handle| handle.members());
        let voters = members.unwrap_or_default().into_iter().filter(|member| !member.learner);
        voters.filter_map(|member| member.peer_urls.iter().find_map(|url| address_of(url))).collect()
    }

    /// An address where nobody has been.
    pub fn free_address(&self) -> Address {
        self.lock().slots.keys().next_back().map_or(1, |last| last + 1)
    }

    /// The member at an address, if it serves.
    pub fn handle(&self, address: Address) -> Option<SimHandle<H>> {
        self.slot(address, |slot| slot.up.clone()).flatten()
    }

    /// Whether the member at an address serves, and takes itself for a learner.
    pub fn learns(&self, address: Address) -> bool {
        self.handle(address).is_some_and(|handle| handle.is_learner())
    }

    /// Its services.
    pub fn api(&self, address: Address) -> Option<(Process, Api<SimHandle<H>>)> {
        self.slot(address, |slot| Some((slot.process?, Api::new(slot.up.clone()?)))).flatten()
    }

    /// Whether a process runs at an address, serving or not.
    pub fn runs(&self, address: Address) -> bool {
        self.slot(address, |slot| slot.process.is_some()).unwrap_or(false)
    }

    /// The id of the member at an address, once it has been up.
    pub fn id(&self, address: Address) -> Option<NodeId> {
        self.slot(address, |slot| slot.id).flatten()
    }

    /// The address of the member that leads, as far as members believe: the one of the newest term.
    pub fn leader(&self) -> Option<Address> {
        let ups: Vec<_> = {
            let state = self.lock();
            state.slots.iter().filter_map(|(address, slot)| Some((*address, slot.up.clone()?))).collect()
        };
        let leads =
            ups.iter().filter(|(_, handle)| *handle.leader().borrow() == Some(handle.header().member));
        leads.max_by_key(|(_, handle)| handle.header().term).map(|(address, _)| *address)
    }

    /// The disk at an address.
    pub fn disk(&self, address: Address) -> Option<MemDisk> {
        self.slot(address, |slot| slot.disk.clone())
    }

    /// The clock at an address.
    pub fn clock(&self, address: Address) -> Option<SimClock<H>> {
        self.slot(address, |slot| slot.clock.clone())
    }

    /// The disk's speed at an address.
    pub fn pace(&self, address: Address) -> Option<Pace> {
        self.slot(address, |slot| slot.pace.clone())
    }

    /// The process at an address.
    pub fn process(&self, address: Address) -> Option<Process> {
        self.slot(address, |slot| slot.process).flatten()
    }

    /// It is not counted on any more.
    pub fn give_up(&self, address: Address) {
        self.slot(address, |slot| slot.given_up = true);
    }

    /// It is lost for good, in one of four ways: it is down, cut off, stands still, or its disk never answers again.
    pub fn lose(&self, address: Address, how: u64) {
        self.probe.count("member lost for good");
        self.probe.event(|| Event::Fault { member: address, text: format!("lost for good, way {how}") });
        self.give_up(address);
        match how {
            0 => return self.crash(address, End::Power),
            1 => {}
            2 => self.process(address).into_iter().for_each(|process| self.host.pause(process, true)),
            _ => self.pace(address).into_iter().for_each(|pace| pace.stall(Micros::MAX / 2)),
        }
        for other in self.addresses().into_iter().filter(|other| *other != address).chain([CLIENTS]) {
            if how == 1 || other == CLIENTS {
                self.net.set_link(address, other, |link| link.cut = true);
                self.net.set_link(other, address, |link| link.cut = true);
            }
        }
    }

    /// It is counted on again.
    pub fn take_back(&self, address: Address) {
        self.slot(address, |slot| slot.given_up = false);
    }

    /// The cluster may be dead for good, as raft has it: of two voters one was removed, and may have been the only one
    /// to know that this is committed.
    pub fn doom(&self) {
        self.lock().doomed = true;
    }

    /// Whether it may be dead.
    pub fn is_doomed(&self) -> bool {
        self.lock().doomed
    }

    /// Notes what should never be.
    pub fn fail(&self, what: String) {
        self.probe.event(|| Event::Fault { member: 0, text: format!("FAILURE: {what}") });
        self.lock().failures.push(what);
    }

    /// Notes what should never be, if there is something.
    pub fn fail_if(&self, wrong: Option<String>) {
        wrong.into_iter().for_each(|wrong| self.fail(wrong));
    }

    /// What should never be and was.
    pub fn failures(&self) -> Vec<String> {
        self.lock().failures.clone()
    }

    /// Writes into the history.
    pub fn record<T>(&self, write: impl FnOnce(&mut History) -> T) -> T {
        write(&mut self.lock().history)
    }

    /// The history so far; it is empty afterwards.
    pub fn take_history(&self) -> History {
        std::mem::take(&mut self.lock().history)
    }

    /// The time, as histories have it.
    pub fn time(&self) -> history::Micros {
        history::Micros(self.host.now())
    }

    fn options(&self, address: Address, cluster: BTreeMap<String, Vec<String>>, existing: bool) -> Options {
        let knobs = &self.knobs;
        let election_ms = knobs.tick_ms * knobs.election_ticks;
        Options {
            peer_urls: vec![peer_url(address)],
            client_urls: vec![format!("http://10.0.0.{address}:2379")],
            cluster,
            existing,
            tick_ms: knobs.tick_ms,
            election_ticks: knobs.election_ticks,
            pre_vote: knobs.pre_vote,
            strict_reconfig_check: knobs.strict_reconfig_check,
            snapshot_entries: knobs.snapshot_entries,
            catchup_entries: knobs.catchup_entries,
            segment_bytes: knobs.segment_bytes,
            wals_max: knobs.wals_max,
            snapshots_max: knobs.snapshots_max,
            compaction_batch: knobs.compaction_batch,
            compaction_pause: Duration::from_millis(knobs.compaction_pause_ms),
            watch_progress: Duration::from_millis(knobs.watch_progress_ms),
            lease_checkpoint: Duration::from_millis(knobs.lease_checkpoint_ms),
            watch_queue_max: knobs.watch_queue_max,
            password_hasher: self.hasher.clone(),
            tuning: knobs.tuning,
            token_signer: if knobs.signed_tokens { Some(Arc::new(PlainSigner)) } else { None },
            limits: Limits {
                request_bytes_max: knobs.request_bytes_max,
                lease_ttl_min: knobs.lease_ttl_min,
                leaderless_max: Duration::from_millis(3 * election_ms),
                ..Limits::default()
            },
            ..Options::new(&name(address), PathBuf::from(DATA))
        }
    }

    /// Starts the member at an address, unless it runs. What becomes of it shows later.
    pub fn start(&self, address: Address) {
        let seed = Rng::of(self.seed ^ self.rng.bits(), "member");
        let started = self.slot(address, |slot| {
            if slot.process.is_some() {
                return None;
            }
            let process = self.host.start(address);
            slot.process = Some(process);
            slot.last_words = None;
            let backend = SimBackend::new(slot.tables.clone(), self.on_batch(address, slot.incarnation));
            let runtime = SimRuntime {
                host: self.host.clone(),
                process,
                address,
                disk: slot.disk.clone(),
                backend,
                clock: slot.clock.clone(),
                pace: slot.pace.clone(),
                net: self.net.clone(),
                rng: seed,
            };
            Some((runtime, self.options(address, slot.cluster.clone(), slot.existing)))
        });
        if let Some((runtime, options)) = started.flatten() {
            self.probe.event(|| Event::Start { member: address });
            self.note_boot(address);
            let (world, process) = (self.clone(), runtime.process);
            self.host.spawn(process, Box::pin(async move { world.live(address, runtime, options).await }));
        }
    }

    /// A member's life: it boots, serves, and may end by itself.
    async fn live(self, address: Address, runtime: SimRuntime<H>, options: Options) {
        let mut running = match server::start(runtime, options).await {
            Ok(running) => running,
            Err(fault) => return self.ended(address, format!("it can't start: {fault}")),
        };
        let handle = running.handle.clone();
        let id = handle.header().member;
        self.note_founders(address, &handle);
        self.net.serve(address, Arc::new(Peer(handle.clone())));
        self.slot(address, |slot| {
            slot.id = Some(id);
            slot.up = Some(handle.clone());
        });
        let at = self.time();
        self.record(|history| history.ups.push(history::Up { at, member: address, node: id.0 }));
        self.probe.event(|| Event::Up { member: address, id: id.to_string() });
        let watching = self.clone();
        let process = self.process(address).unwrap_or(Process::WORLD);
        self.host.serve(process, address, Api::new(handle.clone()));
        self.host.spawn(process, Box::pin(async move { watching.watch_leader(address, handle).await }));
        match running.exit().await {
            Exit::Removed => {
                let wrong = self.record(|history| check::members::removed(history, address, id.0));
                self.fail_if(wrong);
                self.probe.event(|| Event::Exit { member: address, why: "it was removed".into() });
                self.give_up(address);
                self.clear(address, None);
            }
            Exit::Fault(fault) => self.ended(address, fault.to_string()),
            Exit::Stopped => self.ended(address, "it stopped".into()),
        }
    }

    /// Shows whom a member takes for the leader.
    async fn watch_leader(&self, address: Address, handle: SimHandle<H>) {
        let mut leader = handle.leader().clone();
        loop {
            let now = *leader.borrow_and_update();
            let header = handle.header();
            let (term, leads) = (header.term.0, now == Some(header.member));
            self.probe.fold(&[address as u8, leads.into()]);
            if now.is_some() {
                self.probe.event(|| Event::Lead { member: address, term, leads });
            }
            if leads {
                self.moments.come(Moment::Leads, address);
                self.probe.count("leader elected");
            }
            if leader.changed().await.is_err() {
                return;
            }
        }
    }

    /// A process ended by itself.
    fn ended(&self, address: Address, why: String) {
        // One that has never been up was told of a cluster that is not so any more; its operator tries again.
        let excused =
            |slot: &mut Slot<H>| slot.excused || slot.disk.is_off() || slot.id.is_none() && slot.existing;
        let excused = self.slot(address, excused).unwrap_or(true);
        self.probe.event(|| Event::Exit { member: address, why: why.clone() });
        self.slot(address, |slot| slot.last_words = Some(why.clone()));
        if !excused {
            self.fail(format!("member {address} ended by itself: {why}"));
        }
        self.clear(address, None);
    }

    /// Ends the process at an address, from outside.
    pub fn crash(&self, address: Address, end: End) {
        if self.runs(address) {
            self.probe.event(|| Event::Crash { member: address, how: format!("{end:?}") });
            self.probe.fold(&[address as u8]);
        }
        self.clear(address, Some(end));
    }

    /// What is left of a member's process goes; its disk and tables forget what they may.
    fn clear(&self, address: Address, end: Option<End>) {
        let at = self.time();
        let process =
            self.slot(address, |slot| (slot.process.take(), slot.up.take(), slot.id, slot.incarnation));
        let Some((process, up, id, incarnation)) = process else { return };
        self.net.close(address);
        if let Some(process) = process {
            self.host.kill(process);
            if let Some(id) = id {
                self.record(|h| h.crashes.push(history::Crash { at, node: id.0, incarnation }));
            }
        }
        drop(up);
        let rng = &self.rng;
        self.slot(address, |slot| {
            // A process that dies alone leaves its writes to the system; without one the power decides.
            if end == Some(End::Power) || slot.disk.is_off() {
                slot.disk.crash(|choices| rng.below(choices));
            }
            let keep = rng.below(slot.tables.unflushed() as u64 + 1);
            if process.is_some() || end.is_some() {
                slot.tables = slot.tables.crash(keep as usize);
                slot.incarnation += 1;
            }
        });
    }

    /// Wipes the disk of a member that is down; whoever starts there next is a new member.
    pub fn wipe(&self, address: Address, cluster: BTreeMap<String, Vec<String>>) {
        self.slot(address, |slot| {
            slot.disk = MemDisk::new();
            slot.tables = MemBackend::new();
            slot.cluster = cluster;
            slot.existing = true;
            slot.id = None;
            slot.incarnation = 0;
            slot.excused = false;
            slot.forgets = false;
            slot.given_up = false;
        });
    }

    /// Ends all processes, and with them what they hold of each other.
    pub fn end(&self) {
        for address in self.addresses() {
            self.slot(address, |slot| slot.excused = true);
            self.clear(address, Some(End::Kill));
        }
        self.lock().slots.clear();
    }

    /// Moves on when a time has come.
    pub async fn until(&self, at: Micros) {
        self.host.sleep_until(at).await;
    }
}
