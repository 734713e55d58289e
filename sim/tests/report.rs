//! The report page: what it holds, and that a browser shows it.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "writes a page and opens it")]

use std::{path::Path, process::Command};

use sim::{
    host::Micros,
    plan::{Action, Fault, Plan, PutStep, RangeStep, Rev, Span, Step, Timed, Who},
    report::{self, EVENTS_MAX},
    run,
    swarm::Swarm,
};

/// Three members, two clients, one crash of the leader.
fn plan() -> Plan {
    let mut plan = Swarm { members: 3, ..Swarm::default() }.plan(1);
    let step = |wait: Micros, action| Step { wait, action };
    let put =
        PutStep { key: 1, size: 3, lease: None, prev_kv: false, ignore_value: false, ignore_lease: false };
    let get = RangeStep {
        span: Span::Key(1),
        rev: Rev::Now,
        limit: 0,
        sort: (0, 0),
        serializable: false,
        keys_only: false,
        count_only: false,
        bounds: [None; 4],
    };
    plan.faults =
        vec![Timed { at: 3_500_000, what: Fault::Crash { who: Who::Leader, power: true, down: 500_000 } }];
    plan.clients = vec![
        vec![step(3_000_000, Action::Put(put.clone())), step(1_000_000, Action::Put(put))],
        vec![step(3_100_000, Action::Range(get.clone())), step(2_000_000, Action::Range(get))],
    ];
    plan.calm_from = 6_000_000;
    plan
}

/// The page of the plan, with a made-up violation of the first call.
fn page() -> String {
    let mut verdict = run::storm(&plan(), true);
    verdict
        .violations
        .insert(0, "liveness: 30 s after the last fault member 2 answers </script> nothing".into());
    report::page(&plan(), &verdict, "--plan x.json", EVENTS_MAX).expect("it can be written")
}

#[test]
fn a_page_holds_the_run_and_its_rule() {
    let page = page();
    assert!(page.starts_with("<!doctype html>"));
    assert!(page.contains("\"rule\":\"liveness\"") && page.contains("sim replay --plan x.json"));
    assert!(page.contains("\"name\":\"power loss\""), "the fault is there");
    assert!(!page.contains("</script> nothing"), "data can't end the script");
}

#[test]
fn a_page_has_a_limit_and_says_what_is_missing() {
    let verdict = run::storm(&plan(), true);
    let whole = report::page(&plan(), &verdict, "1", EVENTS_MAX).expect("it can be written");
    let small = report::page(&plan(), &verdict, "1", 300).expect("it can be written");
    assert!(whole.contains("\"left_out\":[]"));
    assert!(small.contains("heartbeats and their answers") && small.len() < whole.len() / 2);
}

#[test]
fn a_browser_shows_it() {
    let Some(browser) = ["chromium", "chromium-browser"]
        .into_iter()
        .find(|name| Command::new(name).arg("--version").output().is_ok_and(|done| done.status.success()))
    else {
        eprintln!("not tried: there is no Chromium here");
        return;
    };
    let folder = std::env::temp_dir().join(format!("kontiki-report-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let file = folder.join("page.html");
    std::fs::write(&file, page()).expect("the page is written");
    let dom = dom(browser, &folder, &file);
    let count = |mark: &str| dom.matches(mark).count();
    assert!(count("data-ready=\"yes\"") == 1, "the page was not drawn to its end");
    assert!(count("data-error") == 0, "a script failed");
    assert!(count("class=\"lane\"") == 3, "{} lanes", count("class=\"lane\""));
    assert!(count("class=\"message ") > 10, "{} arrows", count("class=\"message "));
    assert!(dom.contains("Broken: liveness") && dom.contains("id=\"moment\""));
    assert!(dom.contains("<li class=\"is-fault\">"), "the crash is told of");
    let _ = std::fs::remove_dir_all(&folder);
}

fn dom(browser: &str, folder: &Path, file: &Path) -> String {
    let done = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .arg(format!("--user-data-dir={}", folder.join("profile").display()))
        .args(["--window-size=1400,1000", "--dump-dom"])
        .arg(format!("file://{}", file.display()))
        .output()
        .expect("the browser runs");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8_lossy(&done.stdout).into_owned()
}
