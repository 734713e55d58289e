//! Draws a plan from a seed.
//!
//! **Swarm testing**: each run has its own mix. Of all kinds of faults, steps and options a run takes a drawn few, with
//! drawn rates, since much that is rare shows only where something else is missing or frequent.

use crate::{
    host::Micros,
    net::{Address, Link},
    plan::{
        Action, CompareStep, Fault, Knobs, OpStep, Plan, PutStep, RangeStep, Rev, Span, Step, Timed, TxnStep,
        WatchStep, Who,
    },
    rng::Rng,
};

const MS: Micros = 1_000;
const SECOND: Micros = 1_000_000;

/// What a swarm's runs have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Swarm {
    /// How long faults go on, at most.
    pub stormy: Micros,
    /// Steps of all clients together, at most.
    pub steps_max: u64,
    /// Members; 0 for a drawn number.
    pub members: u32,
    /// Without faults: for measures of speed.
    pub fair_weather: bool,
}

impl Default for Swarm {
    fn default() -> Self {
        Self { stormy: 40 * SECOND, steps_max: 1_000, members: 0, fair_weather: false }
    }
}

impl Swarm {
    /// The plan of a seed.
    pub fn plan(&self, seed: u64) -> Plan {
        let rng = Rng::of(seed, "plan");
        let knobs = knobs(&rng, self.members);
        let calm_from = rng.between(self.stormy / 4, self.stormy);
        let faults = if self.fair_weather { Vec::new() } else { faults(&rng, &knobs, calm_from) };
        let clients = clients(&rng, &knobs, calm_from, self.steps_max);
        Plan { seed, knobs, faults, clients, calm_from }
    }
}

fn knobs(rng: &Rng, members: u32) -> Knobs {
    let tick_ms = *rng.pick(&[10, 50, 100, 100]);
    Knobs {
        members: if members > 0 { members } else { *rng.pick(&[1, 3, 3, 3, 3, 5, 5, 7]) },
        tick_ms,
        election_ticks: rng.between(5, 12),
        pre_vote: rng.chance(850_000),
        strict_reconfig_check: rng.chance(800_000),
        snapshot_entries: rng.log_between(5, 5_000),
        catchup_entries: rng.log_between(1, 2_000),
        segment_bytes: rng.log_between(2_048, 1 << 20),
        wals_max: rng.between(1, 5) as usize,
        snapshots_max: rng.between(1, 5) as usize,
        compaction_batch: rng.log_between(1, 1_000) as usize,
        watch_progress_ms: rng.log_between(200, 60_000),
        request_bytes_max: 1_572_864,
        lease_ttl_min: 1,
        lease_checkpoint_ms: rng.log_between(500, 300_000),
        sync: (rng.log_between(50, 1_000), rng.log_between(1_000, 20_000)),
        link: Link {
            delay: (rng.log_between(50, 1_000), rng.log_between(1_000, 1_000 * tick_ms / 4)),
            ..Link::default()
        },
        drawn_order: rng.chance(700_000),
        drift_ppm: *rng.pick(&[0, 0, 1_000, 20_000, 100_000, 400_000]),
    }
}

fn faults(rng: &Rng, knobs: &Knobs, calm_from: Micros) -> Vec<Timed<Fault>> {
    // Kinds by weight; each run leaves some out.
    let kinds: Vec<u64> = (0..KINDS).filter(|_| rng.chance(550_000)).collect();
    let mut faults = Vec::new();
    if kinds.is_empty() {
        return faults;
    }
    let pause = rng.log_between(200 * MS, 8 * SECOND);
    // A cluster starts in peace, sometimes.
    let mut at = if rng.chance(700_000) { 2 * SECOND } else { 0 };
    loop {
        at += rng.between(pause / 4, pause * 2);
        if at >= calm_from {
            return faults;
        }
        faults.push(Timed { at, what: fault(rng, knobs, *rng.pick(&kinds)) });
    }
}

const KINDS: u64 = 18;

fn who(rng: &Rng, knobs: &Knobs) -> Who {
    match rng.below(10) {
        0..4 => Who::Leader,
        4..6 => Who::Follower,
        _ => Who::At(rng.between(1, u64::from(knobs.members)) as Address),
    }
}

fn fault(rng: &Rng, knobs: &Knobs, kind: u64) -> Fault {
    let who = who(rng, knobs);
    let election = knobs.tick_ms * knobs.election_ticks * MS;
    let span = rng.log_between(election / 8, election * 6);
    let down = rng.log_between(10 * MS, 6 * SECOND);
    let any = || rng.between(1, u64::from(knobs.members)) as Address;
    match kind {
        0 => Fault::Crash { who, power: false, down },
        1 | 2 => Fault::Crash { who, power: true, down },
        3 | 4 => Fault::CrashInDisk { who, operation: rng.log_between(1, 60), down: down.max(300 * MS) },
        5 => Fault::CrashAll { power: rng.chance(700_000), down },
        6 => Fault::Pause { who, span },
        7 => {
            let (inbound, outbound) = *rng.pick(&[(true, true), (true, false), (false, true)]);
            Fault::Isolate { who, inbound, outbound, span }
        }
        8 if rng.chance(400_000) => Fault::Seesaw { rounds: rng.between(2, 5) as u8, span },
        8 => Fault::Split { side: (1..=knobs.members).filter(|_| rng.chance(500_000)).collect(), span },
        9 => Fault::CutLink { from: any(), to: any(), span },
        10 => Fault::Weather { link: weather(rng, knobs), span: span * 2 },
        11 => Fault::Stall { who, span },
        12 => Fault::DiskError {
            who,
            operation: rng.log_between(1, 60),
            errno: *rng.pick(&[5, 28]),
            down: down.max(300 * MS),
        },
        13 => Fault::SlowDisk { who, sync: (5 * MS, rng.log_between(10 * MS, 2 * SECOND)), span },
        14 => match rng.below(4) {
            0 => Fault::WallJump { who, by_ms: rng.below(200_000) as i64 - 100_000 },
            _ => Fault::MoveLeader { to: any() },
        },
        15 => Fault::ClockRate {
            who,
            rate: rng.between(1_000_000 - knobs.drift_ppm / 2, 1_000_000 + knobs.drift_ppm / 2),
            span: span * 4,
        },
        16 => Fault::Replace { who, learner: rng.chance(500_000), down },
        _ => match rng.below(3) {
            0 => Fault::Leave { who },
            1 => Fault::Join { learner: true, promote: rng.chance(800_000) },
            _ => Fault::Join { learner: false, promote: false },
        },
    }
}

fn weather(rng: &Rng, knobs: &Knobs) -> Link {
    let rate = |odds: u32, max: u64| if rng.chance(odds) { rng.log_between(1_000, max) as u32 } else { 0 };
    Link {
        cut: false,
        loss: rate(500_000, 400_000),
        twice: rate(500_000, 500_000),
        delay: (50, rng.log_between(1_000, knobs.tick_ms * MS * 3)),
        late: rate(500_000, 200_000),
    }
}

/// How a run's clients are.
struct Mood {
    keys: u8,
    leases: u8,
    /// Kinds of steps, each as often as it is in here.
    kinds: Vec<u8>,
    values: u64,
    serializable: u32,
    nested: bool,
}

fn clients(rng: &Rng, knobs: &Knobs, calm_from: Micros, steps_max: u64) -> Vec<Vec<Step>> {
    let count = rng.log_between(1, 12);
    let kinds: Vec<u8> = (0..STEP_KINDS)
        .flat_map(|kind| {
            let weight = if rng.chance(700_000) { rng.log_between(1, 16) } else { 0 };
            std::iter::repeat_n(kind, weight as usize)
        })
        .collect();
    let mood = Mood {
        keys: rng.log_between(1, 24) as u8,
        leases: rng.log_between(1, 4) as u8,
        kinds: if kinds.is_empty() { vec![0, 1] } else { kinds },
        values: if rng.chance(100_000) { 40_000 } else { 64 },
        serializable: rng.below(500_000) as u32,
        nested: rng.chance(500_000),
    };
    let total = rng.log_between(steps_max / 8, steps_max);
    let each = (total / count).max(1);
    // The steps spread over the storm, whatever their number.
    let pause = (calm_from / each).max(MS);
    (0..count)
        .map(|_| {
            let mut steps = vec![];
            for _ in 0..each {
                let wait = rng.below(pause * 2);
                steps.push(Step { wait, action: action(rng, knobs, &mood) });
            }
            steps
        })
        .collect()
}

const STEP_KINDS: u8 = 18;

fn action(rng: &Rng, knobs: &Knobs, mood: &Mood) -> Action {
    let lease = rng.below(mood.leases.into()) as u8;
    match *rng.pick(&mood.kinds) {
        0 | 1 => Action::Put(put(rng, mood)),
        2 | 3 => Action::Range(range(rng, mood, true)),
        4 => Action::Delete { span: span(rng, mood), prev_kv: rng.chance(400_000) },
        5 | 6 => Action::Txn(txn(rng, mood, 0)),
        7 => Action::Compact { rev: revision(rng, 30_000), physical: rng.chance(300_000) },
        8 => Action::Grant { lease, ttl: rng.log_between(1, 12) as i64 },
        9 => Action::Revoke { lease },
        10 => Action::KeepAlive { lease },
        11 => Action::TimeToLive { lease, keys: rng.chance(700_000) },
        12 => Action::Leases,
        13 | 14 => Action::Watch(watch(rng, mood)),
        15 => Action::Lock {
            name: rng.below(2) as u8,
            ttl: rng.log_between(1, 12) as i64,
            hold: rng.log_between(MS, 3 * SECOND),
        },
        16 => match rng.below(4) {
            0 => Action::Defragment,
            1 => Action::Status,
            _ => Action::HashKv { rev: revision(rng, 300_000) },
        },
        _ => Action::Move { to: rng.between(1, knobs.members.into()) as Address },
    }
}

fn span(rng: &Rng, mood: &Mood) -> Span {
    let any = || rng.below(mood.keys.into()) as u8;
    match rng.below(10) {
        0..6 => Span::Key(any()),
        6 | 7 => {
            let (a, b) = (any(), any());
            Span::Between(a.min(b), a.max(b).saturating_add(1))
        }
        8 => Span::From(any()),
        _ => Span::All,
    }
}

/// Zero, one seen a while ago, or one that is not yet; `ahead` in a million of the last.
fn revision(rng: &Rng, ahead: u32) -> Rev {
    if rng.chance(ahead) {
        return Rev::Ahead(rng.log_between(1, 50) as i64);
    }
    match rng.below(20) {
        0 => Rev::Exactly(1),
        _ => Rev::Back(rng.log_between(1, 200) as i64 - 1),
    }
}

fn put(rng: &Rng, mood: &Mood) -> PutStep {
    let lease = rng.chance(250_000).then(|| rng.below(mood.leases.into()) as u8);
    PutStep {
        key: rng.below(mood.keys.into()) as u8,
        size: rng.log_between(1, mood.values) as u32,
        lease,
        prev_kv: rng.chance(300_000),
        ignore_value: rng.chance(50_000),
        ignore_lease: lease.is_none() && rng.chance(80_000),
    }
}

fn range(rng: &Rng, mood: &Mood, alone: bool) -> RangeStep {
    let bound = || rng.chance(60_000).then(|| revision(rng, 50_000));
    RangeStep {
        span: span(rng, mood),
        rev: if rng.chance(700_000) { Rev::Now } else { revision(rng, 50_000) },
        limit: if rng.chance(250_000) { rng.log_between(1, 8) as i64 } else { 0 },
        sort: if rng.chance(250_000) { (rng.below(3) as i32, rng.below(5) as i32) } else { (0, 0) },
        serializable: alone && rng.chance(mood.serializable),
        keys_only: rng.chance(80_000),
        count_only: rng.chance(80_000),
        bounds: [bound(), bound(), bound(), bound()],
    }
}

fn txn(rng: &Rng, mood: &Mood, depth: u32) -> TxnStep {
    let compares = (0..rng.below(3)).map(|_| compare(rng, mood)).collect();
    // No key may be put twice on one way through; what etcd refuses is worth asking for now and then.
    let ops = || {
        let count = rng.log_between(1, 5) - u64::from(rng.chance(200_000));
        (0..count)
            .map(|_| match rng.below(if depth < 2 && mood.nested { 8 } else { 7 }) {
                0..3 => OpStep::Put(put(rng, mood)),
                3..5 => OpStep::Range(range(rng, mood, false)),
                5 | 6 => OpStep::Delete { span: span(rng, mood), prev_kv: rng.chance(400_000) },
                _ => OpStep::Txn(txn(rng, mood, depth + 1)),
            })
            .collect()
    };
    TxnStep { compares, success: ops(), failure: ops() }
}

fn compare(rng: &Rng, mood: &Mood) -> CompareStep {
    let rev = if rng.chance(400_000) { Rev::Now } else { revision(rng, 50_000) };
    CompareStep {
        span: if rng.chance(800_000) {
            Span::Key(rng.below(mood.keys.into()) as u8)
        } else {
            span(rng, mood)
        },
        result: rng.below(4) as i32,
        target: rng.below(5) as i32,
        number: rng.below(4) as i64,
        rev,
    }
}

fn watch(rng: &Rng, mood: &Mood) -> WatchStep {
    let rev = match rng.below(10) {
        0..4 => Rev::Now,
        4..7 => revision(rng, 0),
        7 | 8 => Rev::Ahead(rng.log_between(1, 30) as i64),
        _ => Rev::Exactly(*rng.pick(&[1, 1, -1, 2])),
    };
    WatchStep {
        span: span(rng, mood),
        rev,
        prev_kv: rng.chance(500_000),
        progress: rng.chance(400_000),
        fragment: rng.chance(300_000),
        filters: if rng.chance(150_000) { vec![rng.below(2) as i32] } else { Vec::new() },
        span_micros: rng.log_between(SECOND, 40 * SECOND),
        slow: if rng.chance(250_000) { rng.log_between(MS, SECOND) } else { 0 },
        ask_progress: if rng.chance(250_000) { rng.log_between(20 * MS, 5 * SECOND) } else { 0 },
    }
}
