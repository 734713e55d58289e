//! One run: the storm, then the calm, then the oracles.
//!
//! **Safety first**: until `calm_from` anything may fail. **Then liveness**: all faults end, whoever is down starts,
//! and within the bounds of [`Settings`] every member has to serve and to agree.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use kontiki::{
    raft::{Body, Message, Payload},
    types::Term,
    wire::etcdserverpb as pb,
};
use serde::{Deserialize, Serialize};

use crate::{
    check,
    client::{Client, Passwords},
    coverage::Coverage,
    history::{Call, History, Micros as Time, Outcome, Reply, Settings},
    host::{Host, Micros, Process},
    nemesis::{Nemesis, OPERATOR_MAX},
    net::{Address, Link},
    plan::Plan,
    probe::{Event, Traced},
    rng::Rng,
    storm::{Executor, Order},
    stream::{Reading, Wanted, keep_watching},
    workload::{Shared, Worker},
    world::{End, World},
};

/// From the end of the faults on, so long nothing is demanded.
pub const SETTLE: Micros = 30_000_000;

/// How long the calm goes on after that.
pub const CALM: Micros = 5_000_000;

/// From the end of the faults on, so long later leases are granted that then end.
const LEASES_AFTER: Micros = 16_000_000;

/// How long those wait for an answer who prove that members are alive.
const PATIENCE: Micros = 7_000_000;

/// How much sooner than its TTL a lease may end by what ticks are coarse.
const LEASE_EARLY_MAX: Micros = 1_000_000;

/// How late a lease may end in the calm: the leader notices, proposes, and commits.
const LEASE_LATE_MAX: Micros = 5_000_000;

/// How often a leader proposes to end some leases more.
const REVOKED_EVERY: Micros = 500_000;

/// Within what time a member that was stopped in the calm is back.
const RESTART_MAX: Micros = 3_000_000;

/// How often messages are counted.
const REST_LOOKED_AT: Micros = 50_000;

/// Checkpoints of leases that are rarer than this are not waited for.
const CHECKPOINT_SHOWN_MAX: Micros = 3_000_000;

/// How long a lease lasts that is to outlive its leader, in seconds.
const OUTLIVING_TTL: i64 = 300;

/// What came of a run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Verdict {
    /// What should never be, and was; the likely cause first.
    pub violations: Vec<String>,
    /// What the oracles could not decide.
    pub undecided: Vec<String>,
    /// The hash of all that happened.
    pub hash: u64,
    /// How long it took the members, in virtual time.
    pub simulated: Duration,
    /// Processor time that the run took, and the oracles after it.
    pub took: (Duration, Duration),
    /// What happened how often.
    pub counts: BTreeMap<String, u64>,
    /// How calls ended: by method and end.
    pub outcomes: BTreeMap<String, u64>,
    /// Which combinations it reached.
    pub coverage: Coverage,
    /// The trace, if it was asked for.
    #[serde(skip)]
    pub trace: Vec<Traced>,
    /// The history, if the trace was asked for.
    #[serde(skip)]
    pub history: History,
}

impl Verdict {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.violations.is_empty()
    }
}

/// Runs a plan on the event loop. A panic of the member's code is a violation.
pub fn storm(plan: &Plan, keep_trace: bool) -> Verdict {
    let began = cpu_time();
    let executor = Executor::new();
    let world = World::new(executor.clone(), plan.knobs.clone(), plan.seed, keep_trace);
    let order = if plan.knobs.drawn_order { Order::Drawn } else { Order::Turn };
    let rng = Rng::of(plan.seed, "order");
    let (running, main_plan) = (world.clone(), plan.clone());
    let panicked = crate::panics::caught(|| {
        let done = executor.run(&rng, order, async move {
            tokio::select! {
                biased;
                () = drive(&running, &main_plan) => {}
                () = without_rest(&running) => {}
            }
        });
        if done.is_none() {
            world.fail("nothing was left that could ever happen".into());
        }
    });
    if let Some(panic) = panicked {
        world.fail(panic);
    }
    let verdict = judge(&world, plan, began, keep_trace);
    world.end();
    executor.clear();
    verdict
}

/// Runs a plan on madsim.
#[cfg(madsim)]
pub fn whole(plan: &Plan, keep_trace: bool) -> Verdict {
    let began = cpu_time();
    let plan = plan.clone();
    let verdict = std::sync::Mutex::new(Verdict::default());
    let panicked = crate::panics::caught(|| {
        let run = async {
            let host = crate::whole::MadsimHost::new();
            let world = World::new(host, plan.knobs.clone(), plan.seed, keep_trace);
            // On the clients' node: the runtime's own has no address to call from.
            let (done, ended) = tokio::sync::oneshot::channel();
            let (driven, own_plan) = (world.clone(), plan.clone());
            world.host.spawn(
                Process::WORLD,
                Box::pin(async move {
                    drive(&driven, &own_plan).await;
                    let _ = done.send(());
                }),
            );
            if ended.await.is_err() {
                world.fail("the run's own task was dropped".into());
            }
            let judged = judge(&world, &plan, began, keep_trace);
            world.end();
            judged
        };
        let judged = crate::whole::run(plan.seed, run);
        *crate::lock::lock(&verdict) = judged;
    });
    let mut verdict = crate::lock::unlock(verdict);
    verdict.violations.extend(panicked);
    verdict
}

/// The run itself, on any host.
pub async fn drive<H: Host>(world: &World<H>, plan: &Plan) {
    let phase = |name: &str| world.probe.event(|| Event::Phase { name: name.to_owned() });
    phase("storm");
    for address in world.addresses() {
        world.start(address);
    }
    let mut end = plan.calm_from + SETTLE + CALM;
    Nemesis::new(world.clone(), plan).unleash(plan);
    // Still open when the run ends.
    witness(world, plan, end + SETTLE);
    let (shared, passwords) = (Arc::new(Shared::default()), Passwords::default());
    for (steps, number) in plan.clients.iter().zip(1..) {
        let client = Client::new(world.clone(), number, plan.knobs.patience).knowing(passwords.clone());
        let worker = Worker::new(world.clone(), client, plan, shared.clone());
        let work = worker.work(steps.clone());
        world.host.spawn(Process::WORLD, Box::pin(work));
    }
    let lost = Lost::draw(plan);
    let all: Vec<Address> = (1..=plan.knobs.members).collect();
    world.until(lost.from).await;
    let gone = if lost.from < plan.calm_from { lost.go(world, &all) } else { Vec::new() };
    world.until(plan.calm_from).await;
    phase("calm");
    world.net.heal(Link { late: 0, twice: 0, echoes: 0, ..plan.knobs.link });
    // What a fault has just let go of is done before it is judged.
    world.until(plan.calm_from + 1_000).await;
    gone.iter().for_each(|member| world.lose(*member, lost.how));
    // Who votes is known for sure if nobody changed it, or else when the last change is over.
    if !plan.changes_members() && gone.is_empty() {
        lost.go(world, &all);
    }
    for address in world.living() {
        if let Some(disk) = world.disk(address) {
            disk.heal();
        }
        if let Some(process) = world.process(address) {
            world.host.pause(process, false);
        }
        world.start(address);
    }
    if plan.changes_members() {
        world.until(plan.calm_from + 2 * OPERATOR_MAX).await;
        lost.go(world, &world.voters());
    }
    world.until(plan.calm_from + LEASES_AFTER).await;
    leases_in_the_calm(world, plan);
    world.until(plan.calm_from + SETTLE - PATIENCE).await;
    stir(world);
    world.until(plan.calm_from + SETTLE).await;
    phase("judged");
    if !plan.knobs.one_operator && !has_quorum(world) {
        world.doom();
    }
    if let Some(member) = votes_and_serves(world).pop() {
        let client = Client::new(world.clone(), 901, PATIENCE).as_root();
        client.call(member, pb::LeaseLeasesRequest {}).await;
    }
    if !world.is_doomed() {
        prove_alive(world, plan).await;
        lead_in_turn(world, plan).await;
        outlive_a_leader(world, plan).await;
    }
    end = end.max(world.host.now() + CALM);
    census(world).await;
    world.until(end).await;
    settings(world, plan, end);
    if !world.is_doomed() {
        match Rng::of(plan.seed, "newer").below(20) {
            0 => from_a_newer_version(world).await,
            1 => one_is_apart(world, plan).await,
            _ => {}
        }
    }
}

/// The last thing that happens: all hashes say that one member's state is another than that of the others, who are a
/// quorum. It is this one that is accused, also if it leads.
async fn one_is_apart<H: Host>(world: &World<H>, plan: &Plan) {
    let serve: Vec<Address> =
        votes_and_serves(world).into_iter().filter(|member| world.handle(*member).is_some()).collect();
    if serve.len() - serve.len().min(1) <= world.voters().len() / 2 {
        return;
    }
    let rng = Rng::of(plan.seed, "apart");
    let leader = world.leader().filter(|leader| serve.contains(leader) && rng.chance(500_000));
    let apart = leader.unwrap_or_else(|| *rng.pick(&serve));
    world.probe.count("member with another state");
    world.probe.event(|| Event::Fault { member: apart, text: "its state counts as another".into() });
    world.addresses().into_iter().for_each(|member| world.excuse(member));
    // What is accused stops to apply.
    let beyond = world.record(|history| {
        history.settings.calm_nodes.clear();
        history.applied.iter().map(|applied| applied.index).max().unwrap_or(0)
    });
    world.net.set_apart(apart, beyond);
    let client = Client::new(world.clone(), 905, PATIENCE).as_root();
    let put = pb::PutRequest { key: "apart".into(), ..Default::default() };
    client.call(serve[0], put).await;
    world.until(world.host.now() + CALM).await;
    for member in serve {
        let Outcome::Ok(Reply::Alarm(told)) = client.call(member, pb::AlarmRequest::default()).await else {
            continue;
        };
        let corrupt = told.alarms.iter().filter(|alarm| alarm.alarm == pb::AlarmType::Corrupt as i32);
        let accused: Vec<u64> = corrupt.map(|alarm| alarm.member_id).collect();
        return world.fail_if(world.id(apart).and_then(|id| check::state_hash::blame(id.0, &accused)));
    }
}

/// The last thing that happens: a member of a version that is yet to come has its leader write what this version does
/// not know. Whoever would go on from there would be in another state than that one.
async fn from_a_newer_version<H: Host>(world: &World<H>) {
    const OPERATION: &[u8] = b"\x08\x07\xc2\xb2\x04\x04what";
    let serve: Vec<Address> =
        votes_and_serves(world).into_iter().filter(|member| world.handle(*member).is_some()).collect();
    let Some((leader, to)) = world.leader().and_then(|leader| Some((leader, world.id(leader)?))) else {
        return;
    };
    let newer = serve.iter().filter(|member| **member != leader).find_map(|member| world.id(*member));
    let Some(from) = newer.filter(|_| serve.contains(&leader)) else { return };
    world.probe.count("entry of a newer version");
    world.addresses().into_iter().for_each(|member| world.excuse(member));
    let payloads = vec![Payload::Command(Bytes::from_static(OPERATION))];
    world.net.bring(leader, Message { from, to, term: Term(0), body: Body::Propose { payloads } });
    world.until(world.host.now() + CALM).await;
    let run: Vec<bool> = serve.iter().map(|member| world.runs(*member)).collect();
    world.fail_if(check::state_hash::behind_the_unknown(&run));
}

/// Ends when there are more messages than a run can have whose members come to rest, and says so.
async fn without_rest<H: Host>(world: &World<H>) {
    loop {
        world.host.sleep(REST_LOOKED_AT).await;
        let messages = world.record(|history| history.messages.len());
        if let Some(wrong) = check::liveness::rest(messages) {
            return world.fail(wrong);
        }
    }
}

/// One watch over everything, which tells the oracles what happened at each revision.
fn witness<H: Host>(world: &World<H>, plan: &Plan, until: Micros) {
    let client = Client::new(world.clone(), 0, PATIENCE).as_root();
    let create = pb::WatchCreateRequest {
        key: vec![0].into(),
        range_end: vec![0].into(),
        start_revision: 1,
        progress_notify: true,
        prev_kv: true,
        ..Default::default()
    };
    let rng = Rng::of(plan.seed, "witness");
    let reading = Reading { until, slow: 0, slow_until: 0, ask_progress: 1_000_000 };
    let watching = keep_watching(world.clone(), client, rng, 1, vec![Wanted::new(create)], reading);
    world.host.spawn(Process::WORLD, Box::pin(watching));
}

/// In the calm each voter that is counted on can lead, and what it leads makes progress.
async fn lead_in_turn<H: Host>(world: &World<H>, plan: &Plan) {
    if !Rng::of(plan.seed, "turns").chance(500_000) {
        return;
    }
    let client = Client::new(world.clone(), 903, PATIENCE).as_root();
    for member in votes_and_serves(world) {
        let (Some(leader), Some(id)) = (world.leader(), world.id(member)) else { continue };
        if leader != member {
            client.call(leader, pb::MoveLeaderRequest { target_id: id.0 }).await;
        }
        write_and_read(world, plan, &client, member).await;
    }
}

/// Whoever is not fit to lead may find out only when there is something to do.
fn stir<H: Host>(world: &World<H>) {
    for member in votes_and_serves(world) {
        let client = Client::new(world.clone(), 902, PATIENCE).as_root();
        let get =
            pb::PutRequest { key: "stir".into(), value: vec![member as u8].into(), ..Default::default() };
        world.host.spawn(Process::WORLD, Box::pin(async move { drop(client.call(member, get).await) }));
    }
}

/// Leases that nobody renews, and that end close to each other.
fn leases_in_the_calm<H: Host>(world: &World<H>, plan: &Plan) {
    let rng = Rng::of(plan.seed, "calm leases");
    let serve = votes_and_serves(world);
    if serve.is_empty() || !rng.chance(400_000) {
        return;
    }
    let member = *rng.pick(&serve);
    let (client, host) = (Client::new(world.clone(), 906, PATIENCE).as_root(), world.host.clone());
    let (count, ttl) = (rng.between(2, 8), rng.between(1, 2) as i64);
    for _ in 0..count {
        let (world, client, wait) = (world.clone(), client.clone(), rng.below(50_000));
        let work = async move {
            world.host.sleep(wait).await;
            client.call(member, pb::LeaseGrantRequest { ttl, id: 0 }).await;
        };
        host.spawn(Process::WORLD, Box::pin(work));
    }
}

/// In the calm a lease outlives its leader, and the next one knows how much of it is left.
async fn outlive_a_leader<H: Host>(world: &World<H>, plan: &Plan) {
    let interval = plan.knobs.lease_checkpoint_ms * 1_000;
    let rng = Rng::of(plan.seed, "outlives");
    if interval > CHECKPOINT_SHOWN_MAX || !rng.chance(500_000) {
        return;
    }
    let client = Client::new(world.clone(), 904, PATIENCE).as_root();
    let Some(leader) = world.leader() else { return };
    let grant = pb::LeaseGrantRequest { ttl: OUTLIVING_TTL, id: 0 };
    let Outcome::Ok(Reply::LeaseGrant(lease)) = client.call(leader, grant).await else { return };
    world.until(world.host.now() + 2 * interval + 10_000_000).await;
    let heirs = votes_and_serves(world).into_iter().filter(|member| !world.excused().contains(member));
    let heir = heirs.into_iter().find(|member| Some(*member) != world.leader());
    let Some((heir, id)) = heir.and_then(|heir| Some((heir, world.id(heir)?))) else { return };
    if rng.chance(500_000) {
        // What it knows it has from its disk.
        world.crash(heir, if rng.chance(500_000) { End::Power } else { End::Kill });
        world.start(heir);
        world.until(world.host.now() + RESTART_MAX).await;
    }
    if let Some(leader) = world.leader().filter(|leader| *leader != heir) {
        client.call(leader, pb::MoveLeaderRequest { target_id: id.0 }).await;
    }
    client.call(heir, pb::LeaseTimeToLiveRequest { id: lease.id, keys: false }).await;
    // What is told of it to the log would never end.
    client.call(heir, pb::LeaseRevokeRequest { id: lease.id }).await;
}

/// The members that vote and are counted on.
fn votes_and_serves<H: Host>(world: &World<H>) -> Vec<Address> {
    // One that never came to join was an operator's: it was told of members that had changed since.
    let gone = |member: &Address| {
        world.excused().contains(member) && !world.runs(*member) || world.id(*member).is_none()
    };
    world.living().into_iter().filter(|member| !gone(member) && !world.learns(*member)).collect()
}

/// In the calm each member that is counted on answers a write and a read.
async fn prove_alive<H: Host>(world: &World<H>, plan: &Plan) {
    let client = Client::new(world.clone(), 900, PATIENCE).as_root();
    for member in votes_and_serves(world) {
        write_and_read(world, plan, &client, member).await;
    }
}

async fn write_and_read<H: Host>(world: &World<H>, plan: &Plan, client: &Client<H>, member: Address) {
    let key = format!("alive{member}");
    let put = pb::PutRequest { key: key.clone().into(), value: vec![b'1'].into(), ..Default::default() };
    let get = pb::RangeRequest { key: key.into(), ..Default::default() };
    for outcome in [client.call(member, put).await, client.call(member, get).await] {
        let since = Time(world.host.now() - plan.calm_from);
        world.fail_if(check::liveness::serves(member, &outcome, since));
    }
}

/// Who stays lost when all else is mended: a cluster has to live on with what is left of it.
struct Lost {
    rng: Rng,
    any: bool,
    how: u64,
    /// From when on: in the storm, while all others still have faults, or at its end.
    from: Micros,
}

impl Lost {
    fn draw(plan: &Plan) -> Self {
        let rng = Rng::of(plan.seed, "lost");
        let (any, how) = (rng.chance(400_000), rng.below(4));
        let early = !plan.changes_members() && rng.chance(500_000);
        let from = if early { rng.between(plan.calm_from / 3, plan.calm_from) } else { plan.calm_from };
        Self { rng, any, how, from }
    }

    /// Some members are lost for good, but never so many that the others could not go on. Gives them.
    fn go<H: Host>(&self, world: &World<H>, voters: &[Address]) -> Vec<Address> {
        let excused = world.excused();
        let sound = |member: &Address| {
            voters.contains(member) && !excused.contains(member) && world.process(*member).is_some()
        };
        let mut sound: Vec<Address> = world.living().into_iter().filter(sound).collect();
        let spare = sound.len().saturating_sub(voters.len() / 2 + 1);
        let mut gone = Vec::new();
        if !self.any || spare == 0 {
            return gone;
        }
        for _ in 0..self.rng.between(1, spare as u64) {
            let leader = world.leader().and_then(|leader| sound.iter().position(|member| *member == leader));
            let at = leader.filter(|_| self.rng.chance(500_000));
            let member = sound.remove(at.unwrap_or_else(|| self.rng.below(sound.len() as u64) as usize));
            world.lose(member, self.how);
            gone.push(member);
        }
        gone
    }
}

/// Whether so many of the voters run as make a quorum. Operators that do not wait for each other may add more voters
/// than then come up, for a member that joins is refused while the list that it was told is not the cluster's.
fn has_quorum<H: Host>(world: &World<H>) -> bool {
    let voters = world.voters();
    let run = voters.iter().filter(|member| world.handle(**member).is_some()).count();
    voters.is_empty() || run > voters.len() / 2
}

/// At the end each member is asked for what should be the same everywhere, and which leases are left. A learner
/// answers neither.
async fn census<H: Host>(world: &World<H>) {
    let client = Client::new(world.clone(), 901, PATIENCE).as_root();
    let excused = world.excused();
    let mut revision = 0;
    let answers = |member: &Address| !excused.contains(member) && !world.learns(*member);
    for member in world.living().into_iter().filter(answers) {
        let asked = client.call(member, pb::LeaseLeasesRequest {}).await;
        let newest = asked.reply().and_then(Reply::header).map_or(0, |header| header.revision);
        revision = revision.max(newest);
        client.call(member, pb::HashKvRequest { revision }).await;
    }
}

fn settings<H: Host>(world: &World<H>, plan: &Plan, end: Micros) {
    let excused = world.excused();
    let sound = |member: &u32| world.id(*member).is_some() && !excused.contains(member);
    let calm_members: Vec<u32> = world.living().into_iter().filter(sound).collect();
    let calm_nodes = calm_members.iter().filter_map(|member| world.id(*member)).map(|id| id.0).collect();
    let election = plan.knobs.tick_ms * plan.knobs.election_ticks * 1_000;
    // At worst all leases that there ever were end at once, and wait for their turn.
    let granted = world
        .record(|history| history.ops.iter().filter(|op| matches!(op.call, Call::LeaseGrant(_))).count());
    let turns = granted / plan.knobs.tuning.revokes_max;
    let settings = Settings {
        clock_drift_ppm: 2 * plan.knobs.drift_ppm,
        lease_early_max: Time(LEASE_EARLY_MAX),
        lease_late_max: Time(LEASE_LATE_MAX + 4 * election + turns as Micros * REVOKED_EVERY),
        lease_checkpoint: Some(Time(plan.knobs.lease_checkpoint_ms * 1_000)),
        calm_from: (!world.is_doomed()).then_some(Time(plan.calm_from)),
        settle_max: Time(SETTLE),
        calm_op_max: Time(5_000_000),
        lag_max: 0,
        calm_nodes,
        calm_members,
        // Told of when it has been idle for an interval, by a clock that may be slow.
        progress_max: Some(Time(3_000 * plan.knobs.watch_progress_ms + 2_000_000)),
        ended: Time(end),
        ..Settings::default()
    };
    world.record(|history| history.settings = settings);
}

/// What this thread has used of a processor: others who use it too do not count.
fn cpu_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32)
}

fn judge<H: Host>(world: &World<H>, plan: &Plan, began: Duration, keep_trace: bool) -> Verdict {
    let ran = cpu_time().saturating_sub(began);
    let simulated = Duration::from_micros(world.host.now());
    let history = world.take_history();
    let mut violations = world.failures();
    let mut undecided = Vec::new();
    // What a run that died left behind breaks more rules than it breaks.
    let died = |violation: &String| ["panic", "liveness/rest"].iter().any(|rule| violation.starts_with(rule));
    if !violations.iter().any(died) {
        let report = check::all(&history);
        violations.extend(report.violations.iter().map(ToString::to_string));
        undecided = report.undecided;
    }
    Verdict {
        violations,
        undecided,
        hash: world.probe.hash(),
        simulated,
        took: (ran, cpu_time().saturating_sub(began + ran)),
        counts: world.probe.counts().into_iter().map(|(what, count)| (what.to_owned(), count)).collect(),
        outcomes: world
            .probe
            .outcomes()
            .into_iter()
            .map(|((call, how), count)| (format!("{call} {how}"), count))
            .collect(),
        coverage: Coverage::of(plan, &history, &world.probe.hits()),
        trace: world.probe.take_trace(),
        history: if keep_trace { history } else { History::default() },
    }
}
