//! A slice of the storm: some seeds of the standard swarm, some of them twice, and what the command does on a failure.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "runs the command")]

use std::process::{Command, Output};

use sim::{run, swarm::Swarm};

/// Seeds that must be clean.
const SEEDS: u64 = 60;

/// Seeds that are run twice.
const TWICE: u64 = 10;

fn sim(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sim")).args(arguments).output().expect("the simulator runs")
}

#[test]
fn seeds_are_clean() {
    let done = sim(&["run", "--keep-going", "--seeds", &format!("0..{SEEDS}")]);
    assert_eq!(done.status.code(), Some(0), "{}", String::from_utf8_lossy(&done.stdout));
}

#[test]
fn a_seed_is_the_same_run_every_time() {
    for seed in 0..TWICE {
        let plan = Swarm::default().plan(seed);
        // Beside it another run, so that anything shared between threads shows.
        let beside = std::thread::spawn(move || run::storm(&Swarm::default().plan(seed + 1), false).hash);
        let hashes = [run::storm(&plan, false).hash, run::storm(&plan, true).hash];
        assert_eq!(hashes[0], hashes[1], "seed {seed}");
        assert_ne!(beside.join().expect("it ends"), hashes[0]);
    }
}

#[test]
fn a_failure_ends_with_1_and_names_the_commands() {
    // Nobody can be alive where members need longer to elect a leader than they are given.
    let mut plan = Swarm { members: 3, fair_weather: true, ..Swarm::default() }.plan(0);
    plan.clients.clear();
    plan.calm_from = 1_000_000;
    plan.knobs.tick_ms = 100_000;
    let file = std::env::temp_dir().join(format!("kontiki-dead-{}.json", std::process::id()));
    std::fs::write(&file, serde_json::to_string(&plan).expect("a plan is JSON")).expect("it is written");
    let path = file.to_str().expect("a plain path");
    let done = sim(&["replay", "--quiet", "--plan", path]);
    let said = String::from_utf8_lossy(&done.stdout);
    assert_eq!(done.status.code(), Some(1), "{said}");
    assert!(said.contains("VIOLATION liveness"), "{said}");
    for command in ["shrink", "report"] {
        assert!(said.contains(&format!("{command} --plan {path}")), "{said}");
    }
    let _ = std::fs::remove_file(&file);
}

#[test]
fn a_clean_run_ends_with_0_and_tells_its_coverage() {
    let done = sim(&[
        "run",
        "--json",
        "--coverage",
        "--fair-weather",
        "--steps",
        "50",
        "--seeds",
        "3..",
        "--cpu-seconds",
        "0",
    ]);
    let said: serde_json::Value = serde_json::from_slice(&done.stdout).expect("nothing but JSON");
    assert_eq!(said["runs"], 1, "{said}");
    assert!(said["never_reached"].as_array().is_some_and(|cells| !cells.is_empty()));
}

#[test]
fn what_is_no_command_ends_with_2() {
    assert_eq!(sim(&["replay"]).status.code(), Some(2));
    assert_eq!(sim(&["replay", "--plan", "there/is/none.json"]).status.code(), Some(2));
    assert_eq!(sim(&["run", "--seeds", "9..3"]).status.code(), Some(2));
}
