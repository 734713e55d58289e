//! Disks that do not give back what was written: members say so and are replaced, and the cluster keeps everything.

use std::collections::BTreeMap;

use sim::{
    plan::{Fault, Timed, Who},
    run,
    swarm::Swarm,
};

/// Three members in fair weather, with small segments, whose disks are damaged one after the other.
fn damaged(seed: u64, fault: impl Fn(u64) -> Fault) -> BTreeMap<String, u64> {
    let mut plan =
        Swarm { members: 3, fair_weather: true, steps_max: 200, ..Swarm::default() }.plan(1_000 + seed);
    plan.calm_from = 30_000_000;
    plan.knobs.segment_bytes = 8 << 10;
    plan.knobs.snapshot_entries = 50;
    plan.faults = (0..4).map(|n| Timed { at: 3_000_000 + n * 6_000_000, what: fault(seed + n) }).collect();
    let verdict = run::storm(&plan, false);
    assert!(verdict.is_clean(), "seed {seed}: {:?}", verdict.violations);
    verdict.counts
}

fn total(seeds: u64, fault: impl Fn(u64) -> Fault + Copy) -> BTreeMap<String, u64> {
    let mut all: BTreeMap<String, u64> = BTreeMap::new();
    for seed in 0..seeds {
        for (what, count) in damaged(seed, fault) {
            *all.entry(what).or_default() += count;
        }
    }
    all
}

const DOWN: u64 = 100_000;

#[test]
fn rot_stops_a_member_and_costs_the_cluster_nothing() {
    let all = total(6, |n| Fault::Rot {
        who: Who::At(1 + (n % 3) as u32),
        file: n,
        offset: n * 977,
        mask: 1 << (n % 8),
        down: DOWN,
    });
    for what in
        ["damage in the log", "damage behind the log", "member stopped by damage", "damaged member replaced"]
    {
        assert!(all.get(what).is_some_and(|count| *count > 0), "{what}: {all:?}");
    }
}

#[test]
fn a_misdirected_write_is_noticed_at_both_ends() {
    let all = total(4, |n| Fault::Misdirect {
        who: Who::At(1 + (n % 3) as u32),
        from: n * 31,
        to: n * 17 + 1,
        down: DOWN,
    });
    let stopped = all.get("member stopped by damage").copied().unwrap_or(0);
    assert!(stopped > 4 && all.get("damage in the log").is_some_and(|count| *count >= stopped), "{all:?}");
}
