//! Plans that once broke a promise, cut down to what it took: they mean the same whatever the swarm draws since.
#![allow(clippy::disallowed_methods, reason = "reads the fixtures")]

use std::path::Path;

use sim::{plan::Plan, run};

#[test]
fn what_was_mended_stays_so() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/pinned");
    let mut count = 0;
    for file in std::fs::read_dir(&dir).expect("the fixtures") {
        let path = file.expect("a fixture").path();
        let text = std::fs::read_to_string(&path).expect("a plan");
        let plan: Plan =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let verdict = run::storm(&plan, false);
        assert!(verdict.is_clean(), "{}: {:?}", path.display(), verdict.violations);
        count += 1;
    }
    assert!(count > 0, "there are plans in {}", dir.display());
}
