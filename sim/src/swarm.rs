//! Draws a plan from a seed.
//!
//! **Swarm testing**: each run has its own mix. Of all kinds of faults, steps and options a run takes a drawn few, with
//! drawn rates, since much that is rare shows only where something else is missing or frequent.

use crate::{
    host::Micros,
    mood::clients,
    net::{Address, Link},
    plan::{Fault, Knobs, Plan, Timed, Who},
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
        compaction_pause_ms: *rng.pick(&[0, 10, 10, 100, 1_000]),
        watch_progress_ms: rng.log_between(200, if rng.chance(500_000) { 800 } else { 60_000 }),
        watch_queue_max: *rng.pick(&[256, 256, 64, 16]),
        request_bytes_max: *rng.pick(&[1_572_864, 1_572_864, 100_000]),
        lease_ttl_min: 1,
        lease_checkpoint_ms: rng.log_between(500, 300_000),
        auth: rng.chance(300_000),
        signed_tokens: rng.chance(250_000),
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
