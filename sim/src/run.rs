//! One run: the storm, then the calm, then the oracles.
//!
//! **Safety first**: until `calm_from` anything may fail. **Then liveness**: all faults end, whoever is down starts,
//! and within the bounds of [`Settings`] every member has to serve and to agree.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use kontiki::wire::etcdserverpb as pb;
use serde::{Deserialize, Serialize};

use crate::{
    check,
    client::{Client, Passwords},
    coverage::Coverage,
    history::{History, Micros as Time, Outcome, Reply, Settings},
    host::{Host, Micros, Process},
    nemesis::Nemesis,
    plan::Plan,
    probe::{Event, Traced},
    rng::Rng,
    storm::{Executor, Order},
    stream::{Reading, Wanted, keep_watching},
    workload::{Shared, Worker},
    world::World,
};

/// From the end of the faults on, so long nothing is demanded.
pub const SETTLE: Micros = 30_000_000;

/// How long the calm goes on after that.
pub const CALM: Micros = 5_000_000;

/// How long a client waits for an answer.
const PATIENCE: Micros = 7_000_000;

/// How much sooner than its TTL a lease may end by what ticks are coarse.
const LEASE_EARLY_MAX: Micros = 1_000_000;

/// How late a lease may end in the calm: the leader notices, proposes, and commits.
const LEASE_LATE_MAX: Micros = 5_000_000;

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
        let done = executor.run(&rng, order, async move { drive(&running, &main_plan).await });
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
        *verdict.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = judged;
    });
    let mut verdict = verdict.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
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
    let end = plan.calm_from + SETTLE + CALM;
    Nemesis::new(world.clone(), plan).unleash(plan);
    // Still open when the run ends.
    witness(world, plan, end + 1_000_000);
    let (shared, passwords) = (Arc::new(Shared::default()), Passwords::default());
    for (steps, number) in plan.clients.iter().zip(1..) {
        let client = Client::new(world.clone(), number, PATIENCE).knowing(passwords.clone());
        let worker = Worker::new(world.clone(), client, plan, shared.clone());
        let work = worker.work(steps.clone());
        world.host.spawn(Process::WORLD, Box::pin(work));
    }
    world.until(plan.calm_from).await;
    phase("calm");
    world.net.heal(plan.knobs.link);
    // What a fault has just let go of is done before it is judged.
    world.until(plan.calm_from + 1_000).await;
    for address in world.living() {
        if let Some(disk) = world.disk(address) {
            disk.heal();
        }
        if let Some(process) = world.process(address) {
            world.host.pause(process, false);
        }
        world.start(address);
    }
    world.until(plan.calm_from + SETTLE).await;
    phase("judged");
    prove_alive(world, plan).await;
    world.until(end - 1_000_000).await;
    census(world).await;
    world.until(end).await;
    settings(world, plan, end);
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

/// In the calm each member that is counted on answers a write and a read.
async fn prove_alive<H: Host>(world: &World<H>, plan: &Plan) {
    let client = Client::new(world.clone(), 900, PATIENCE).as_root();
    for member in world.living() {
        // One that never came to join was an operator's: it was told of members that had changed since.
        if world.excused().contains(&member) && !world.runs(member) || world.id(member).is_none() {
            continue;
        }
        let learner = world.handle(member).is_some_and(|h| kontiki::server::api::Member::is_learner(&h));
        if learner {
            continue;
        }
        let put = pb::PutRequest {
            key: format!("alive{member}").into(),
            value: vec![b'1'].into(),
            ..Default::default()
        };
        let get = pb::RangeRequest { key: put.key.clone(), ..Default::default() };
        for outcome in [client.call(member, put).await, client.call(member, get).await] {
            if !matches!(outcome, Outcome::Ok(_)) {
                world.fail(format!(
                    "liveness: {} s after the last fault member {member} answers {outcome:?}",
                    (world.host.now() - plan.calm_from) / 1_000_000
                ));
            }
        }
    }
}

/// At the end each member is asked for what should be the same everywhere, and which leases are left.
async fn census<H: Host>(world: &World<H>) {
    let client = Client::new(world.clone(), 901, PATIENCE).as_root();
    let excused = world.excused();
    let mut revision = 0;
    for member in world.living().into_iter().filter(|member| !excused.contains(member)) {
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
    let settings = Settings {
        clock_drift_ppm: 2 * plan.knobs.drift_ppm,
        lease_early_max: Time(LEASE_EARLY_MAX),
        lease_late_max: Time(LEASE_LATE_MAX + 4 * election),
        calm_from: Some(Time(plan.calm_from)),
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
    if violations.iter().all(|violation| !violation.starts_with("panic")) {
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
