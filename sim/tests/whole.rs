//! The whole server on madsim, through gRPC: seeds of the standard swarm, each twice.
#![cfg(madsim)]

use std::process::Command;

#[test]
fn seeds_are_clean_and_give_the_same_run_again() {
    let mut sim = Command::new(env!("CARGO_BIN_EXE_sim"));
    sim.args(["run", "--driver", "whole", "--seeds", "0..10", "--steps", "400", "--twice", "--json"]);
    let output = sim.output().expect("the simulator starts");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let result: serde_json::Value = serde_json::from_str(&text).expect("a result");
    assert_eq!(result["runs"], 10);
    assert!(
        result["outcomes"]["Put ok"].as_u64().is_some_and(|puts| puts > 0),
        "nothing was written: {text}"
    );
}
