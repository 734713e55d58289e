//! Sessions about alarms, status, hashes, backups, downgrades.

use kontiki::wire::etcdserverpb::{AlarmRequest, DowngradeRequest, LeaseGrantRequest};

use crate::{
    call::{Ask, Call, SELF},
    kv::{compact, d, delete, p, put, then},
    replay,
};

const GET: i32 = 0;
const ACTIVATE: i32 = 1;
const DEACTIVATE: i32 = 2;
const NONE: i32 = 0;
const NOSPACE: i32 = 1;
const CORRUPT: i32 = 2;

fn alarm(action: i32, member_id: u64, alarm: i32) -> Ask {
    Ask::Alarm(AlarmRequest { action, member_id, alarm })
}

#[tokio::test]
#[ignore = "needs a real etcd to compare with: set ETCD_BIN"]
async fn alarms() {
    let calls: Vec<Call> = vec![
        put("x", "1").into(),
        put("x", "2").into(),
        alarm(GET, 0, NONE).into(),
        alarm(ACTIVATE, SELF, NOSPACE).into(),
        alarm(ACTIVATE, SELF, NOSPACE).note("again"),
        alarm(ACTIVATE, 77, NOSPACE).note("any member"),
        alarm(GET, 0, NONE).into(),
        alarm(GET, 77, NONE).note("the member does not count"),
        alarm(GET, 0, CORRUPT).into(),
        Ask::Status.into(),
        put("a", "b").into(),
        delete("x", "").into(),
        then(vec![p("q", "1")]).into(),
        then(vec![d("q", "")]).into(),
        Ask::Grant(LeaseGrantRequest { id: 9, ttl: 5 }).into(),
        compact(3, false).into(),
        alarm(DEACTIVATE, SELF, NOSPACE).into(),
        put("a", "b").note("the other's is still up"),
        alarm(DEACTIVATE, 77, NOSPACE).into(),
        put("a", "b").into(),
        alarm(DEACTIVATE, 77, NOSPACE).note("not active"),
        alarm(ACTIVATE, 77, NONE).into(),
        alarm(ACTIVATE, 77, CORRUPT).into(),
        put("a", "c").into(),
        delete("a", "").into(),
        then(vec![p("q", "1")]).into(),
        compact(4, false).into(),
        Ask::Grant(LeaseGrantRequest { id: 9, ttl: 5 }).into(),
        Ask::Revoke(9).into(),
        Ask::Status.into(),
        alarm(DEACTIVATE, 77, CORRUPT).into(),
        put("a", "d").into(),
    ];
    replay(8, calls).await;
}

#[tokio::test]
#[ignore = "needs a real etcd to compare with: set ETCD_BIN"]
async fn upkeep() {
    let downgrade =
        |action, version: &str| Ask::Downgrade(DowngradeRequest { action, version: version.into() });
    let calls: Vec<Call> = vec![
        put("x", "1").into(),
        Ask::Status.into(),
        Ask::Hash.into(),
        Ask::HashKv(0).into(),
        Ask::Defragment.into(),
        Ask::Snapshot.into(),
        Ask::MoveLeader(SELF).into(),
        Ask::MoveLeader(0).into(),
        Ask::MoveLeader(5).into(),
        downgrade(0, "3.4").into(),
        downgrade(0, "3.4.0").into(),
        downgrade(0, "3.4.9").into(),
        downgrade(0, "").into(),
        downgrade(0, "x").into(),
        downgrade(0, "3.5").into(),
        downgrade(1, "3.3").into(),
        downgrade(2, "").into(),
        downgrade(9, "3.4").into(),
        Ask::Status.into(),
    ];
    replay(9, calls).await;
}
