//! The whole server on madsim: it elects, writes, loses members and loses nothing.
//!
//! `MADSIM_TEST_SEED` and `MADSIM_TEST_NUM` choose the seeds.
#![cfg(madsim)]

use std::time::Duration;

use kontiki::{
    auth::Who,
    mvcc::{PutRequest, RangeRequest},
    server::api::Member as _,
    state::{Alarm, AlarmKind, Command, Reply},
    types::{KeyRange, RangeEnd},
};
use madsim::{Config, net::NetSim, runtime::Runtime};
use sim::whole::Cluster;

async fn put(cluster: &Cluster, member: usize, key: &str, value: &str) -> bool {
    let request =
        PutRequest { key: key.to_owned().into(), value: value.to_owned().into(), ..PutRequest::default() };
    let reply = cluster.handle(member).propose(Who::default(), Command::Put(request)).await;
    matches!(reply, Ok((Reply::Put(_), _)))
}

async fn keys(cluster: &Cluster, member: usize) -> i64 {
    let handle = cluster.handle(member);
    handle.read_barrier().await.expect("a healed cluster confirms reads");
    let all = KeyRange { start: vec![0].into(), end: RangeEnd::Unbounded };
    let request = RangeRequest { count_only: true, ..RangeRequest::of(all) };
    handle.range(&request).await.expect("a range of everything is legal").count
}

async fn elected(cluster: &Cluster, member: usize) {
    let mut leader = cluster.handle(member).leader().clone();
    leader.wait_for(Option::is_some).await.expect("the member lives");
}

#[madsim::test]
async fn one_member_elects_itself_and_writes() {
    let cluster = Cluster::start(1).await;
    elected(&cluster, 1).await;
    assert!(put(&cluster, 1, "a", "1").await);
    assert_eq!(keys(&cluster, 1).await, 1);
}

#[madsim::test]
async fn three_members_agree_on_what_each_of_them_writes() {
    let cluster = Cluster::start(3).await;
    for member in cluster.numbers() {
        elected(&cluster, member).await;
        assert!(put(&cluster, member, &format!("k{member}"), "v").await);
    }
    for member in cluster.numbers() {
        assert_eq!(keys(&cluster, member).await, 3, "member {member}");
    }
}

/// Members crash one after the other while clients write to all of them. Gives how many writes were acknowledged;
/// all are still there.
async fn crash_in_turn(cluster: &mut Cluster) -> i64 {
    let mut written = 0;
    for round in 0..6 {
        let victim = round % 3 + 1;
        for n in 0..40 {
            let member = (round + n) % 3 + 1;
            elected(cluster, member).await;
            if put(cluster, member, &format!("k{round}-{n}"), "v").await {
                written += 1;
            }
        }
        cluster.crash(victim);
        madsim::time::sleep(Duration::from_millis(300)).await;
        cluster.restart(victim).await;
    }
    for member in cluster.numbers() {
        elected(cluster, member).await;
        assert_eq!(cluster.exited(member), None, "member {member}");
        assert!(keys(cluster, member).await >= written, "member {member} of {written}");
    }
    written
}

#[madsim::test]
async fn no_acknowledged_write_is_lost_when_members_crash_in_turn() {
    let written = crash_in_turn(&mut Cluster::start(3).await).await;
    assert!(written > 200, "only {written} writes were acknowledged");
}

#[madsim::test]
async fn nor_when_the_network_loses_messages() {
    let mut cluster = Cluster::start(3).await;
    NetSim::current().update_config(|config| config.packet_loss_rate = 0.05);
    let written = crash_in_turn(&mut cluster).await;
    assert!(written > 100, "only {written} writes were acknowledged");
}

/// A member whose tables lost a row on the disk is found by its state hash as soon as that makes a difference.
#[madsim::test]
async fn a_member_with_another_state_gets_the_alarm() {
    let mut cluster = Cluster::start(3).await;
    elected(&cluster, 1).await;
    // More than a checkpoint's worth, so that the row is in the tables and its entry is not applied again.
    for n in 0..60 {
        assert!(put(&cluster, 1, &format!("k{n:02}"), "v").await);
    }
    madsim::time::sleep(Duration::from_secs(2)).await;
    cluster.crash(3);
    cluster.spoil(3);
    cluster.restart(3).await;
    elected(&cluster, 3).await;
    // The others count a second version of it, that member a first.
    assert!(put(&cluster, 1, "k00", "w").await);
    madsim::time::sleep(Duration::from_secs(5)).await;
    for member in cluster.numbers() {
        let alarm = Alarm { member: cluster.handle(3).header().member, kind: AlarmKind::Corrupt };
        assert_eq!(cluster.handle(member).status().alarms, [alarm], "as member {member} sees it");
        assert!(!put(&cluster, member, "k01", "w").await, "nothing is written while states differ");
    }
}

/// What a run came to: the time it took, and where each member ended up.
async fn outcome() -> Vec<u64> {
    let mut cluster = Cluster::start(3).await;
    let mut out = vec![crash_in_turn(&mut cluster).await as u64];
    for member in cluster.numbers() {
        let handle = cluster.handle(member);
        let hash = handle.hash().await.expect("a member that runs");
        let (status, header) = (handle.status(), handle.header());
        out.extend([status.applied.0, status.term.0, header.revision.0 as u64, u64::from(hash)]);
    }
    out.push(madsim::time::TimeHandle::current().elapsed().as_nanos() as u64);
    out
}

const SEED: &str = "KONTIKI_SIM_SEED";

/// Prints what a seed comes to, in a process of its own: tokio draws the order in which those who watch a value
/// are woken from a generator that counts the threads of a process.
#[test]
#[ignore = "a_seed_gives_the_same_run_each_time starts it"]
fn outcome_of_a_seed() {
    let seed = std::env::var(SEED).ok().and_then(|seed| seed.parse().ok()).unwrap_or(7);
    println!("outcome {:?}", Runtime::with_seed_and_config(seed, Config::default()).block_on(outcome()));
}

#[test]
fn a_seed_gives_the_same_run_each_time() {
    let run = |seed: u64| {
        let own = std::env::current_exe().expect("a test knows its program");
        let mut child = std::process::Command::new(own);
        child.args(["--exact", "--ignored", "--nocapture", "outcome_of_a_seed"]).env(SEED, seed.to_string());
        let output = child.output().expect("the same program starts again");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let at = text.find("outcome [").unwrap_or_else(|| panic!("seed {seed} fails: {text}"));
        text[at..].lines().next().map(str::to_owned)
    };
    let first = run(7);
    assert_eq!(first, run(7));
    assert_ne!(first, run(8), "the outcome does not tell runs apart");
}
