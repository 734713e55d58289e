//! Draws a plan from a seed.
//!
//! **Swarm testing**: each run has its own mix. Of all kinds of faults, steps and options a run takes a drawn few, with
//! drawn rates, since much that is rare shows only where something else is missing or frequent.

mod faults;
mod tuning;

use kontiki::server::Tuning;

use crate::{
    host::Micros,
    mood::clients,
    net::Link,
    plan::{Knobs, Plan},
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
        let mut knobs = knobs(&rng, self.members);
        if !self.fair_weather {
            knobs.tuning = tuning::tuning(&Rng::of(seed, "tuning"));
        }
        let calm_from = rng.between(self.stormy / 4, self.stormy);
        let faults = if self.fair_weather { Vec::new() } else { faults::faults(&rng, &knobs, calm_from) };
        let clients = clients(&rng, &knobs, calm_from, self.steps_max);
        Plan { seed, knobs, faults, clients, calm_from }
    }
}

fn knobs(rng: &Rng, members: u32) -> Knobs {
    let tick_ms = *rng.pick(&[10, 50, 100, 100]);
    let sync = (rng.log_between(50, 1_000), rng.log_between(1_000, 20_000));
    // Some logs are short: whoever lags a little needs a snapshot.
    let short = rng.chance(300_000);
    // Some links are slow for the election timeout, as between distant places.
    let delay_max = if rng.chance(250_000) { tick_ms * 1_500 } else { tick_ms * 250 };
    let election_ticks = rng.between(5, 12);
    Knobs {
        members: if members > 0 {
            members
        } else {
            *rng.pick(&[1, 1, 2, 2, 2, 3, 3, 3, 3, 3, 3, 4, 5, 5, 5, 7])
        },
        tick_ms,
        election_ticks,
        pre_vote: rng.chance(850_000),
        strict_reconfig_check: rng.chance(400_000),
        snapshot_entries: rng.log_between(5, if short { 50 } else { 5_000 }),
        catchup_entries: rng.log_between(1, if short { 20 } else { 2_000 }),
        segment_bytes: rng.log_between(2_048, 1 << 20),
        wals_max: rng.between(1, 5) as usize,
        snapshots_max: rng.between(1, 5) as usize,
        compaction_batch: rng.log_between(1, *rng.pick(&[16, 1_000])) as usize,
        compaction_pause_ms: *rng.pick(&[0, 10, 10, 100, 1_000]),
        watch_progress_ms: rng.log_between(200, if rng.chance(500_000) { 800 } else { 60_000 }),
        watch_queue_max: *rng.pick(&[256, 256, 64, 16]),
        request_bytes_max: *rng.pick(&[1_572_864, 1_572_864, 100_000]),
        lease_ttl_min: 1,
        lease_checkpoint_ms: rng.log_between(500, 300_000),
        auth: rng.chance(300_000),
        signed_tokens: rng.chance(250_000),
        sync,
        link: Link {
            delay: (rng.log_between(50, 1_000), rng.log_between(1_000, delay_max)),
            // Some networks are never good, until the calm.
            late: if rng.chance(200_000) { rng.log_between(1_000, 100_000) as u32 } else { 0 },
            twice: if rng.chance(200_000) { rng.log_between(1_000, 100_000) as u32 } else { 0 },
            echoes: if rng.chance(200_000) { rng.log_between(1_000, 300_000) as u32 } else { 0 },
            echo_after: echo_after(rng, tick_ms * election_ticks * MS),
            ..Link::default()
        },
        drawn_order: rng.chance(700_000),
        drift_ppm: *rng.pick(&[0, 0, 1_000, 20_000, 100_000, 400_000]),
        keeper: if rng.chance(700_000) { sync } else { (sync.0, rng.log_between(MS, SECOND)) },
        lag: if rng.chance(600_000) { (0, 0) } else { (0, rng.log_between(100, 50 * MS)) },
        patience: rng.log_between(300 * MS, 30 * SECOND),
        one_operator: rng.chance(600_000),
        tuning: Tuning::default(),
    }
}

/// How long after their messages echoes come in: from much less than an election timeout to many.
fn echo_after(rng: &Rng, election: Micros) -> (Micros, Micros) {
    (rng.log_between(MS, election), rng.log_between(election, 30 * election))
}
