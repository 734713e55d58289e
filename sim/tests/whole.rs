//! The whole server on madsim, through gRPC: seeds of the standard swarm, each twice.
#![cfg(madsim)]
#![allow(clippy::disallowed_methods, reason = "looks at what the simulator wrote")]

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

/// The tools take the driver, too.
#[test]
fn a_run_is_drawn_and_its_coverage_told() {
    let folder = std::env::temp_dir().join(format!("kontiki-whole-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let page = folder.join("page.html");
    let whole = ["--driver", "whole", "--steps", "60", "--stormy", "10", "--members", "3"];
    let sim = |arguments: &[&str]| {
        let mut sim = Command::new(env!("CARGO_BIN_EXE_sim"));
        let output = sim.args(arguments).args(whole).output().expect("the simulator starts");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, said) = sim(&["report", "3", "--out", page.to_str().expect("a path is text")]);
    assert_eq!((code, said.contains("nothing is wrong")), (Some(0), true), "{said}");
    let drawn = std::fs::read_to_string(&page).expect("the page is there");
    assert!(drawn.contains("sim replay 3 --driver whole --stormy 10 --steps 60 --members 3"));
    for told in ["\"Append\"", "\"kind\":\"lead\"", "\"asks\":\"put of", "\"members\":[1,2,3"] {
        assert!(drawn.contains(told), "no {told}");
    }
    let (code, said) = sim(&["run", "--seeds", "0..2", "--coverage"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("cells  calls by outcome") && said.contains("never reached:"), "{said}");
    let (code, said) = sim(&["shrink", "3"]);
    assert_eq!((code, said.contains("nothing to shrink")), (Some(2), true), "{said}");
    std::fs::remove_dir_all(&folder).expect("it can go");
}
