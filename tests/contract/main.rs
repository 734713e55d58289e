//! The contract: each call is made on a real etcd and on kontiki, and what they answer is compared field by
//! field and byte by byte.
//!
//! The calls are those of recorded sessions with etcd 3.5.1, and of what was found since. Each test starts a
//! fresh single member of both on loopback ports and replays one session on both. What can't be equal is made
//! so first (`call.rs`): cluster and member ids, terms, ports, sizes, ids that a server picks. Where we follow
//! a later version than 3.5.1, a session says what it expects instead.
//!
//! ```text
//! ETCD_BIN=/path/to/etcd cargo test --test contract -- --ignored
//! ```
//!
//! `KONTIKI_BIN` takes another binary than the one of this build: with `KONTIKI_BIN=$ETCD_BIN` the harness
//! checks itself. `CONTRACT_PORTS` is the first port used (25100); a test takes two for each side.
//! Left out: what takes 3.5.1 down (unknown sort targets and alarm actions); clusters of several members.

#![cfg(not(madsim))]
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "real members, real time, real files"
)]

mod auth;
mod call;
mod cluster;
mod kv;
mod lease;
mod lock;
mod maintenance;
mod metrics;
mod protocol;
mod server;
mod watch;

use call::Call;
use server::Pair;

/// Replays `calls` on both sides and fails with all differences at once.
async fn replay(test: u16, calls: Vec<Call>) {
    let mut pair = Pair::start(test).await;
    let mut differences = Vec::new();
    for (i, call) in calls.iter().enumerate() {
        let etcd = call::run(&mut pair.etcd, &call.ask).await;
        let ours = call::run(&mut pair.kontiki, &call.ask).await;
        let wanted = call.late.unwrap_or(&etcd);
        if ours != wanted && !(pair.self_check && ours == etcd) {
            differences.push(format!(
                "#{i} {}\n   asked   {}\n   etcd    {}\n   kontiki {}",
                call.note,
                call::short(&format!("{:?}", call.ask)),
                call::short(&etcd),
                call::short(&ours),
            ));
        }
    }
    println!("{} calls compared, {} differ", calls.len(), differences.len());
    assert!(differences.is_empty(), "\n{}\n", differences.join("\n"));
}
