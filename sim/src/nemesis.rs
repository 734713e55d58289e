//! Carries out a plan's faults. Each is a task of its own that begins, waits, and mends what it broke.
//!
//! **Fault atlas.** A fault that may cost what a member promised (rot, a wiped disk) is carried out only while the
//! rest of the cluster holds every committed byte: such members are replaced, or stay down, and are always fewer than
//! half of the voters. Where a disk may rot is in `nemesis/rot`. All other faults may come together as the plan has them.

mod atlas;
mod operators;
mod rot;

use std::{
    collections::BTreeSet,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
};

use kontiki::{types::NodeId, wire::etcdserverpb as pb};

use crate::{
    client::{CLIENTS, Client},
    clock::TRUE_RATE,
    host::{Host, Micros, Process},
    net::{Address, Link},
    plan::{Fault, Moment, Plan, Who},
    probe::Event,
    rng::Rng,
    rush::{self, Rush},
    world::{End, World},
};

/// How long after the last fault operators go on with what they have begun.
pub const OPERATOR_MAX: Micros = 7_000_000;

/// How long an operator waits for an answer.
const PATIENCE: Micros = 3_000_000;

/// Carries out faults.
#[derive(Clone)]
pub struct Nemesis<H: Host> {
    world: World<H>,
    operator: Client<H>,
    rng: Rng,
    /// No fault goes on beyond this.
    calm_from: Micros,
    /// The members that somebody is adding, replacing or removing: operators do one such thing at a time, or at least
    /// not two with the same member.
    changing: Arc<Mutex<BTreeSet<Address>>>,
    /// Whom somebody has asked to be removed: they may be out at any time.
    leaving: Arc<Mutex<BTreeSet<NodeId>>>,
    /// Learners whose promotion was asked for, and may be done at any time.
    promoting: Arc<Mutex<BTreeSet<NodeId>>>,
    /// The follower that was picked last, and when: faults that come together mean the same one.
    picked: Arc<Mutex<(Micros, Address)>>,
    /// Where the moment came that was waited for.
    struck: Option<Address>,
}

impl<H: Host> Nemesis<H> {
    /// For one run.
    pub fn new(world: World<H>, plan: &Plan) -> Self {
        let operator = Client::new(world.clone(), u32::MAX, PATIENCE).as_root();
        let rng = Rng::of(plan.seed, "nemesis");
        Self {
            operator,
            rng,
            calm_from: plan.calm_from,
            world,
            changing: Arc::default(),
            leaving: Arc::default(),
            promoting: Arc::default(),
            picked: Arc::default(),
            struck: None,
        }
    }

    /// Sets all faults of a plan to go.
    pub fn unleash(&self, plan: &Plan) {
        for fault in &plan.faults {
            let (nemesis, fault) = (self.clone(), fault.clone());
            let host = self.world.host.clone();
            let work = async move {
                host.sleep_until(fault.at).await;
                if host.now() < nemesis.calm_from {
                    nemesis.carry_out(fault.what).await;
                }
            };
            self.world.host.spawn(Process::WORLD, Box::pin(work));
        }
    }

    fn whose(&self, who: Who) -> Option<Address> {
        let living = self.world.living();
        let leader = self.world.leader();
        match who {
            Who::At(address) => living.contains(&address).then_some(address),
            Who::Struck => self.struck.filter(|address| living.contains(address)),
            Who::Leader => leader.or_else(|| living.first().copied()),
            // Addresses are given in turn.
            Who::Newest => living.last().copied(),
            Who::Follower => {
                let followers: Vec<Address> = living.into_iter().filter(|a| Some(*a) != leader).collect();
                let mut picked = self.picked.lock().unwrap_or_else(PoisonError::into_inner);
                let now = self.world.host.now();
                if !followers.is_empty() && (now > picked.0 + 1 || !followers.contains(&picked.1)) {
                    *picked = (now, *self.rng.pick(&followers));
                }
                (!followers.is_empty()).then_some(picked.1)
            }
        }
    }

    async fn wait(&self, span: Micros) {
        let at = self.world.host.now() + span;
        self.world.host.sleep_until(at.min(self.calm_from)).await;
    }

    fn note(&self, member: Address, fault: &Fault) {
        self.world.probe.count(fault.name());
        self.world.probe.hit(fault.name(), self.state_of(member));
        self.world.probe.event(|| Event::Fault { member, text: format!("{fault:?}") });
    }

    /// What a member is when a fault hits it, for the coverage report.
    fn state_of(&self, member: Address) -> &'static str {
        match self.world.handle(member) {
            _ if member == 0 => "all",
            None if self.world.runs(member) => "starting",
            None => "down",
            Some(_) if self.world.learns(member) => "learner",
            Some(_) if self.world.leader() == Some(member) => "leader",
            Some(_) => "follower",
        }
    }

    fn mended(&self, member: Address, fault: &Fault) {
        self.world.probe.event(|| Event::Fault { member, text: format!("end of {}", fault.name()) });
    }

    /// For faults within faults.
    fn boxed(self, fault: Fault) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move { self.carry_out(fault).await })
    }

    async fn carry_out(&self, fault: Fault) {
        let Some(who) = fault.who() else { return self.of_none(&fault).await };
        if let Some(member) = self.whose(who) {
            self.note(member, &fault);
            self.of_one(&fault, member).await;
            self.mended(member, &fault);
        }
    }

    /// Faults that are not one member's.
    async fn of_none(&self, fault: &Fault) {
        match fault {
            Fault::CrashAll { power, down } => self.crash_all(fault, *power, *down).await,
            Fault::Split { side, span } => self.split(fault, side, *span).await,
            Fault::Seesaw { rounds, span, back } => {
                for _ in 0..*rounds {
                    let led = self.world.leader();
                    self.split(fault, &self.minority_of_the_leader(), *span).await;
                    if *back {
                        self.give_back(led);
                        self.wait(*span / 2).await;
                    }
                }
            }
            Fault::CutLink { from, to, span } => {
                self.note(0, fault);
                self.world.net.set_link(*from, *to, |link| link.cut = true);
                self.wait(*span).await;
                self.world.net.set_link(*from, *to, |link| link.cut = false);
            }
            Fault::Trap { on, skip, after, what } => {
                self.wait_for(*on, *skip, *after, (**what).clone()).await
            }
            Fault::Weather { link, span } => self.weather(fault, *link, *span).await,
            Fault::MoveLeader { to } => self.move_leader(fault, *to).await,
            Fault::Join { learner, promote } => {
                let address = self.world.free_address();
                self.alone(address, self.join(fault, address, *learner, *promote)).await;
            }
            one => unreachable!("{one:?} is one member's"),
        }
    }

    /// Faults of one member.
    async fn of_one(&self, fault: &Fault, member: Address) {
        let world = &self.world;
        match fault {
            Fault::Crash { power, down, .. } => {
                // In the middle of a write, if there is one.
                if *power && self.rng.chance(400_000) {
                    if let Some(disk) = world.disk(member) {
                        disk.crash_at(disk.operations() + self.rng.below(3));
                    }
                    self.wait(self.rng.log_between(100, 20_000)).await;
                }
                world.crash(member, if *power { End::Power } else { End::Kill });
                self.wait(*down).await;
                world.start(member);
            }
            Fault::Pause { span, .. } => {
                if let Some(process) = world.process(member) {
                    world.host.pause(process, true);
                    self.wait(*span).await;
                    world.host.pause(process, false);
                }
            }
            Fault::Isolate { inbound, outbound, span, .. } => {
                self.isolate(member, *inbound, *outbound, true);
                self.wait(*span).await;
                self.isolate(member, *inbound, *outbound, false);
            }
            Fault::ClockRate { rate, span, .. } => {
                if let Some(clock) = world.clock(member) {
                    clock.set_rate(*rate);
                    self.wait(*span).await;
                    clock.set_rate(TRUE_RATE);
                }
            }
            Fault::WallJump { by_ms, .. } => {
                if let Some(clock) = world.clock(member) {
                    clock.jump_wall(*by_ms);
                }
            }
            Fault::Replace { learner, down, .. } => {
                self.alone(member, self.replace(member, *learner, *down)).await;
            }
            Fault::Leave { linger, .. } => self.alone(member, self.leave(member, *linger)).await,
            Fault::Update { .. } => self.update(member).await,
            Fault::Hold { inbound, outbound, span, bulk, spread, .. } => {
                let held = |link: &mut Link| (link.held, link.bulk, link.spread) = (true, *bulk, *spread);
                let ways = (*inbound, *outbound);
                self.set_links(member, ways, held);
                self.wait(*span).await;
                self.set_links(member, ways, |link| link.held = false);
                self.set_links(member, ways, |link| link.spread = 0);
            }
            Fault::Lag { inbound, outbound, link, span, .. } => {
                self.lag(member, (*inbound, *outbound), *link, *span).await;
            }
            Fault::Rush { pause, span, looks, leases, .. } => {
                let until = (world.host.now() + span).min(self.calm_from);
                let what = Rush { hit: member, looks: *looks, leases: *leases, pause: *pause, until };
                rush::rush(world.clone(), self.rng.clone(), what).await;
            }
            other => self.of_disk(other, member).await,
        }
    }

    /// Faults of one member's disk.
    async fn of_disk(&self, fault: &Fault, member: Address) {
        let world = &self.world;
        let (Some(disk), Some(pace)) = (world.disk(member), world.pace(member)) else { return };
        match fault {
            Fault::CrashInDisk { operation, down, .. } => {
                disk.crash_at(disk.operations() + operation);
                self.wait(*down).await;
                world.crash(member, End::Power);
                world.start(member);
            }
            Fault::Stall { span, .. } => pace.stall((world.host.now() + span).min(self.calm_from)),
            Fault::SlowDisk { sync, span, .. } => {
                pace.set_sync(*sync);
                self.wait(*span).await;
                pace.set_sync(world.knobs.sync);
            }
            Fault::DiskError { operation, errno, down, .. } if self.may_lose(member) => {
                world.excuse(member);
                disk.fail_at(disk.operations() + operation, *errno);
                self.wait(*down).await;
                world.crash(member, End::Kill);
                disk.heal();
                world.start(member);
            }
            Fault::Rot { file, offset, mask, down, .. } => {
                self.damage(member, rot::rot(*file, *offset, *mask), *down).await;
            }
            Fault::Misdirect { from, to, down, .. } => {
                self.damage(member, rot::misdirect(*from, *to), *down).await;
            }
            // Whoever has no copy of what it promised elsewhere keeps its disk.
            Fault::DiskError { .. } => {}
            other => unreachable!("{other:?} is not of a disk"),
        }
    }

    async fn crash_all(&self, fault: &Fault, power: bool, down: Micros) {
        self.note(0, fault);
        for member in self.world.living() {
            self.world.crash(member, if power { End::Power } else { End::Kill });
        }
        self.wait(down).await;
        for member in self.world.living() {
            self.world.start(member);
        }
    }

    fn isolate(&self, member: Address, inbound: bool, outbound: bool, cut: bool) {
        let others = self.world.addresses().into_iter().filter(|other| *other != member);
        for other in others.chain([CLIENTS]) {
            // A member that peers can't hear may well serve clients.
            if other == CLIENTS && !(inbound && outbound && self.rng.chance(500_000)) && cut {
                continue;
            }
            if inbound {
                self.world.net.set_link(other, member, |link| link.cut = cut);
            }
            if outbound {
                self.world.net.set_link(member, other, |link| link.cut = cut);
            }
        }
    }

    /// Changes the links that lead to a member, or away from it.
    fn set_links(&self, member: Address, (inbound, outbound): (bool, bool), change: impl Fn(&mut Link)) {
        for other in self.world.addresses().into_iter().filter(|other| *other != member) {
            if inbound {
                self.world.net.set_link(other, member, &change);
            }
            if outbound {
                self.world.net.set_link(member, other, &change);
            }
        }
    }

    async fn lag(&self, member: Address, ways: (bool, bool), worse: Link, span: Micros) {
        let to = |to: Link| move |link: &mut Link| *link = Link { cut: link.cut, ..to };
        self.set_links(member, ways, to(worse));
        self.wait(span).await;
        self.set_links(member, ways, to(self.world.net.usual()));
    }

    /// Carries out a fault right behind a moment, if one comes before the calm.
    async fn wait_for(&self, on: Moment, skip: u64, after: Micros, what: Fault) {
        let coming = self.world.moments.next(on, skip);
        let come = tokio::select! {
            biased;
            come = coming => come.ok(),
            () = self.world.host.sleep_until(self.calm_from) => None,
        };
        if let Some(member) = come {
            self.wait(after).await;
            if self.world.host.now() < self.calm_from {
                self.world.probe.count("fault at a moment");
                let here = Self { struck: Some(member), ..self.clone() };
                here.boxed(what).await;
            }
        }
    }

    async fn split(&self, fault: &Fault, side: &[Address], span: Micros) {
        self.note(0, fault);
        let set = |cut: bool| {
            let all = self.world.addresses();
            for &a in all.iter().filter(|a| side.contains(a)) {
                for &b in all.iter().filter(|b| !side.contains(b)) {
                    self.world.net.set_link(a, b, |link| link.cut = cut);
                    self.world.net.set_link(b, a, |link| link.cut = cut);
                }
            }
        };
        set(true);
        self.wait(span).await;
        set(false);
        self.mended(0, fault);
    }

    /// The leader with others, fewer than half of all; nobody while there is no leader.
    fn minority_of_the_leader(&self) -> Vec<Address> {
        let Some(leader) = self.world.leader() else { return Vec::new() };
        let mut side = vec![leader];
        for member in self.world.living().into_iter().filter(|member| *member != leader) {
            if (side.len() + 1) * 2 < self.world.living().len() && self.rng.chance(500_000) {
                side.push(member);
            }
        }
        side
    }

    /// Whoever leads is asked to hand over to the one that led before. Nobody waits for the answer.
    fn give_back(&self, led: Option<Address>) {
        let (Some(leader), Some(led)) = (self.world.leader(), led) else { return };
        let Some(NodeId(target_id)) = self.world.id(led).filter(|_| led != leader) else { return };
        let operator = self.operator.clone();
        let ask = async move { drop(operator.call(leader, pb::MoveLeaderRequest { target_id }).await) };
        self.world.host.spawn(Process::WORLD, Box::pin(ask));
    }

    async fn weather(&self, fault: &Fault, worse: Link, span: Micros) {
        self.note(0, fault);
        let ends: Vec<Address> = self.world.addresses().into_iter().chain([CLIENTS]).collect();
        let set = |to: Link| {
            for &from in &ends {
                for &other in ends.iter().filter(|other| **other != from) {
                    self.world.net.set_link(from, other, |link| *link = Link { cut: link.cut, ..to });
                }
            }
        };
        set(worse);
        self.wait(span).await;
        // In the calm, which has just come, they are better.
        set(self.world.net.usual());
        self.mended(0, fault);
    }

    async fn move_leader(&self, fault: &Fault, to: Address) {
        let Some(leader) = self.world.leader() else { return };
        // Not to itself.
        let others: Vec<Address> = self.world.living().into_iter().filter(|other| *other != leader).collect();
        let to = if to == leader && !others.is_empty() { *self.rng.pick(&others) } else { to };
        if let Some(NodeId(target_id)) = self.world.id(to) {
            self.note(leader, fault);
            self.operator.call(leader, pb::MoveLeaderRequest { target_id }).await;
        }
    }
}
