//! Sessions about leases.

use kontiki::wire::etcdserverpb::{LeaseGrantRequest, LeaseTimeToLiveRequest, PutRequest};

use crate::{
    call::{Ask, Call},
    kv::{delete, get, put, put_of, range},
    replay,
};

fn grant(id: i64, ttl: i64) -> Ask {
    Ask::Grant(LeaseGrantRequest { id, ttl })
}

fn left(id: i64, keys: bool) -> Ask {
    Ask::TimeToLive(LeaseTimeToLiveRequest { id, keys })
}

fn put_with(key: &str, lease: i64) -> Ask {
    Ask::Put(PutRequest { lease, ..put_of(key, "v") })
}

#[tokio::test]
#[ignore = "needs a real etcd to compare with: set ETCD_BIN"]
async fn leases() {
    let calls: Vec<Call> = vec![
        grant(1, 100).into(),
        grant(1, 10).note("an id in use"),
        grant(0, 50).note("the server picks"),
        grant(2, 0).note("the least"),
        grant(3, -1).into(),
        grant(4, 1).into(),
        grant(5, 9_000_000_000).note("the most"),
        grant(6, 9_000_000_001).into(),
        grant(i64::MIN, 70).note("negative ids are ids"),
        Ask::Revoke(2).into(),
        Ask::Revoke(3).into(),
        Ask::Revoke(4).into(),
        Ask::Leases.note("the soonest first"),
        left(5, false).into(),
        left(404, false).into(),
        left(404, true).into(),
        left(0, false).into(),
        Ask::Revoke(404).into(),
        Ask::Revoke(0).into(),
        put_with("x", 5).into(),
        put_with("y", 5).into(),
        left(5, true).into(),
        put("x", "2").note("without a lease detaches"),
        left(5, true).into(),
        put_with("y", 1).note("moves"),
        left(5, true).into(),
        left(1, true).into(),
        get("y").into(),
        Ask::Put(PutRequest { ignore_lease: true, ..put_of("y", "kept") }).into(),
        get("y").into(),
        delete("y", "").note("detaches"),
        left(1, true).into(),
        Ask::Revoke(1).note("without keys"),
        put_with("k2", 5).into(),
        put_with("k1", 5).into(),
        Ask::Revoke(5).note("with keys"),
        Ask::Range(range("k", "l")).into(),
        Ask::HashKv(0).into(),
    ];
    replay(5, calls).await;
}

#[tokio::test]
#[ignore = "needs a real etcd to compare with: set ETCD_BIN"]
async fn keep_alives() {
    let calls: Vec<Call> = vec![
        grant(30, 20).into(),
        grant(-7, 10).into(),
        Ask::KeepAlive(vec![30]).into(),
        Ask::KeepAlive(vec![30, 404, 30]).note("an unknown one in the middle"),
        Ask::KeepAlive(vec![0]).into(),
        Ask::KeepAlive(vec![-7]).into(),
        Ask::KeepAlive(vec![]).into(),
        Ask::KeepAlive((0..200).map(|i| if i % 3 == 0 { 30 } else { i }).collect()).note("many at once"),
        grant(31, 2).into(),
        put_with("exp", 31).into(),
        Ask::Expired("exp").into(),
        Ask::KeepAlive(vec![31]).note("an expired one"),
        left(31, true).into(),
        put_with("exp", 31).into(),
    ];
    replay(6, calls).await;
}
