//! The whole server on madsim: it elects, writes, loses members and loses nothing.
#![cfg(madsim)]

use std::time::Duration;

use kontiki::{
    mvcc::{PutRequest, RangeRequest},
    server::api::Member as _,
    state::{Command, Reply},
    types::{KeyRange, RangeEnd},
};
use sim::whole::Cluster;

async fn put(cluster: &Cluster, member: usize, key: &str, value: &str) -> bool {
    let request =
        PutRequest { key: key.to_owned().into(), value: value.to_owned().into(), ..PutRequest::default() };
    let reply = cluster.handle(member).propose(Command::Put(request)).await;
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

#[madsim::test]
async fn no_acknowledged_write_is_lost_when_members_crash_in_turn() {
    let mut cluster = Cluster::start(3).await;
    let mut written = 0;
    for round in 0..6 {
        let victim = round % 3 + 1;
        for n in 0..40 {
            let member = (round + n) % 3 + 1;
            elected(&cluster, member).await;
            if put(&cluster, member, &format!("k{round}-{n}"), "v").await {
                written += 1;
            }
        }
        cluster.crash(victim);
        madsim::time::sleep(Duration::from_millis(300)).await;
        cluster.restart(victim).await;
    }
    for member in cluster.numbers() {
        elected(&cluster, member).await;
        assert_eq!(cluster.exited(member), None, "member {member}");
        assert!(keys(&cluster, member).await >= written, "member {member} of {written}");
    }
    assert!(written > 200, "only {written} writes were acknowledged");
}
