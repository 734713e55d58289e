//! What each fuzz target does with its bytes.
//!
//! A target is a function that panics where an invariant is broken; what the bytes mean is its own affair, mostly
//! [`arbitrary`]'s. `fuzz_targets/` hands libFuzzer's inputs to them, `tests/fuzz_corpus.rs` those that are kept in
//! `corpus/`. Models and drivers are those of `tests/`.
#![allow(clippy::unwrap_used, clippy::disallowed_types, dead_code)]

mod arb;
mod bbolt;
mod clients;
mod log;
mod machines;
mod peers;
mod snapshots;

#[path = "../../tests/raft/cluster.rs"]
mod cluster;
#[path = "../../tests/lease_model/mod.rs"]
mod lease_model;
#[path = "../../tests/watch/model.rs"]
mod model;
#[path = "../../tests/mvcc_pair/mod.rs"]
mod mvcc_pair;
#[path = "../../tests/mvcc_tables/mod.rs"]
mod mvcc_tables;
#[path = "../../tests/node/members.rs"]
mod node_members;
#[path = "../../tests/raft/storm.rs"]
mod raft_storm;
#[path = "../../tests/state/support.rs"]
mod replica;
#[path = "../../tests/raft/show.rs"]
mod show;
#[path = "../../tests/wal_model/mod.rs"]
mod wal_model;
#[path = "../../tests/watch/books.rs"]
mod watch_books;

use model as watch_model;

/// All targets. Bytes that run out end one.
pub const TARGETS: [&str; 21] = [
    "authority",
    "bbolt",
    "frames_bytes",
    "frames_round",
    "lease",
    "members_json",
    "mvcc",
    "node_alone",
    "node_cluster",
    "options",
    "peer_port",
    "raft_alone",
    "raft_cluster",
    "raft_wire",
    "requests",
    "snap_file",
    "snap_stream",
    "state",
    "wal_bytes",
    "wal_mutated",
    "watch",
];

/// Gives `data` to a target.
pub fn run(target: &str, data: &[u8]) {
    let mut u = arb::Source::new(data);
    // An error says only that there were not enough bytes.
    let _ = match target {
        "authority" => clients::authority(&mut u),
        "bbolt" => bbolt::bbolt(&mut u),
        "frames_bytes" => peers::frames_bytes(&mut u),
        "frames_round" => peers::frames_round(&mut u),
        "lease" => machines::lease(&mut u),
        "members_json" => peers::members_json(&mut u),
        "mvcc" => machines::mvcc(&mut u),
        "node_alone" => machines::node_alone(&mut u),
        "node_cluster" => machines::node_cluster(&mut u),
        "options" => clients::options(&mut u),
        "peer_port" => peers::peer_port(&mut u),
        "raft_alone" => machines::raft_alone(&mut u),
        "raft_cluster" => {
            machines::raft_cluster(data);
            Ok(())
        }
        "raft_wire" => peers::raft_wire(&mut u),
        "requests" => clients::requests(&mut u),
        "snap_file" => snapshots::snap_file(&mut u),
        "snap_stream" => snapshots::snap_stream(&mut u),
        "state" => machines::state(&mut u),
        "wal_bytes" => log::wal_bytes(&mut u),
        "wal_mutated" => log::wal_mutated(&mut u),
        "watch" => machines::watch(&mut u),
        unknown => panic!("there is no target {unknown}"),
    };
}
