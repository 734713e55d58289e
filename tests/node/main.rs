//! Golden scripts of the node's decisions (`UPDATE_GOLDENFILES=1` writes what they now give).

#[allow(dead_code)]
#[path = "../raft/show.rs"]
mod show;

mod members;
mod script;

#[test]
fn scripts() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/node/scripts");
    let mut paths: Vec<_> = std::fs::read_dir(dir)
        .expect("the scripts are there")
        .map(|entry| entry.expect("readable").path())
        .collect();
    paths.sort();
    assert!(paths.len() > 15, "most scripts are missing");
    let mut failed = Vec::new();
    for path in paths {
        let run = || goldenscript::run(&mut script::Runner::default(), &path).expect("the script runs");
        if std::panic::catch_unwind(run).is_err() {
            failed.push(path);
        }
    }
    assert!(failed.is_empty(), "these scripts fail: {failed:#?}");
}
