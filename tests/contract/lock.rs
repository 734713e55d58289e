//! Sessions about locks and elections.

use std::future::Future;

use kontiki::wire::{
    etcdserverpb::{self as pb, kv_client::KvClient},
    v3electionpb::{
        CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, ProclaimRequest, ResignRequest,
        election_client::ElectionClient,
    },
    v3lockpb::{LockRequest, LockResponse, UnlockRequest, lock_client::LockClient},
};
use tokio_stream::StreamExt;
use tonic::Status;

use crate::{
    call::{Ask, Call, PICKED, plain, told, unary},
    kv::{delete, get, put, range},
    replay,
    server::Server,
};

/// What is asked of the two services.
#[derive(Clone, Debug)]
pub enum Turns {
    Lock(&'static str, i64),
    Unlock(&'static str),
    /// Locks a name that is held, does the calls once it waits, and awaits the lock.
    LockBehind(&'static str, i64, Vec<Ask>),
    /// Locks a name that is held, leaves once it waits, and awaits that its key is gone.
    LockAndLeave(&'static str, i64),
    Campaign(&'static str, i64, &'static str),
    CampaignBehind(&'static str, i64, Vec<Ask>),
    Proclaim(Option<LeaderKey>, &'static str),
    Leader(&'static str),
    Resign(Option<LeaderKey>),
    /// Observes a name; each call comes once the one before is seen.
    Observe(&'static str, Vec<Ask>),
}

pub async fn run(server: &mut Server, ask: Turns) -> String {
    match ask {
        Turns::Lock(name, lease) => locked(server, lock(server, name, lease).await),
        Turns::Unlock(key) => {
            unary!(server, LockClient, unlock, UnlockRequest { key: key.into() })
        }
        Turns::LockBehind(name, lease, then) => {
            let waiting = tokio::spawn(lock(server, name, lease));
            let done = behind(server, name, lease, then).await;
            format!("{done}; {}", locked(server, waiting.await.expect("no panic")))
        }
        Turns::LockAndLeave(name, lease) => {
            let waiting = tokio::spawn(lock(server, name, lease));
            let key = format!("{name}/{lease:x}");
            until(server, &key, 1).await;
            waiting.abort();
            until(server, &key, 0).await;
            "left".to_owned()
        }
        Turns::Campaign(name, lease, value) => elected(server, campaign(server, name, lease, value).await),
        Turns::CampaignBehind(name, lease, then) => {
            let waiting = tokio::spawn(campaign(server, name, lease, "behind"));
            let done = behind(server, name, lease, then).await;
            format!("{done}; {}", elected(server, waiting.await.expect("no panic")))
        }
        Turns::Proclaim(leader, value) => {
            unary!(server, ElectionClient, proclaim, ProclaimRequest { leader, value: value.into() })
        }
        Turns::Leader(name) => {
            unary!(server, ElectionClient, leader, LeaderRequest { name: name.into() })
        }
        Turns::Resign(leader) => unary!(server, ElectionClient, resign, ResignRequest { leader }),
        Turns::Observe(name, calls) => observe(server, name, calls).await,
    }
}

fn lock(
    server: &Server,
    name: &'static str,
    lease: i64,
) -> impl Future<Output = Result<LockResponse, Status>> + Send + 'static {
    let mut client = LockClient::new(server.channel.clone());
    async move { Ok(client.lock(LockRequest { name: name.into(), lease }).await?.into_inner()) }
}

fn locked(server: &Server, answer: Result<LockResponse, Status>) -> String {
    told(answer.map(|mut lock| {
        plain(server, &mut lock.header);
        // A lease that the server picked: a long number in the key.
        if lock.key.len() > 16 {
            lock.key = lock.key.split(|&c| c == b'/').next().unwrap_or_default().to_vec().into();
        }
        lock
    }))
}

fn campaign(
    server: &Server,
    name: &'static str,
    lease: i64,
    value: &'static str,
) -> impl Future<Output = Result<CampaignResponse, Status>> + Send + 'static {
    let mut client = ElectionClient::new(server.channel.clone());
    let request = CampaignRequest { name: name.into(), lease, value: value.into() };
    async move { Ok(client.campaign(request).await?.into_inner()) }
}

fn elected(server: &Server, answer: Result<CampaignResponse, Status>) -> String {
    told(answer.map(|mut won| {
        plain(server, &mut won.header);
        if let Some(leader) = &mut won.leader
            && leader.lease > 1 << 40
        {
            (leader.lease, leader.key) = (PICKED, leader.name.clone());
        }
        won
    }))
}

/// Does the calls once the lease's key is under the name.
async fn behind(server: &mut Server, name: &str, lease: i64, then: Vec<Ask>) -> String {
    until(server, &format!("{name}/{lease:x}"), 1).await;
    let mut answers = Vec::new();
    for ask in &then {
        answers.push(Box::pin(crate::call::run(server, ask)).await);
    }
    answers.join("; ")
}

/// Waits until so many keys of that name are there.
async fn until(server: &Server, key: &str, count: i64) {
    let mut client = KvClient::new(server.channel.clone());
    let request = pb::RangeRequest { key: key.to_owned().into(), ..Default::default() };
    while client.range(request.clone()).await.expect("served").get_ref().count != count {
        // Another process, and a call that must not be seen by it: there is no event to wait for.
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

async fn observe(server: &mut Server, name: &'static str, calls: Vec<Ask>) -> String {
    let mut client = ElectionClient::new(server.channel.clone());
    // etcd sends nothing, not even headers, before there is a leader.
    let leaders = tokio::spawn(async move { client.observe(LeaderRequest { name: name.into() }).await });
    let mut leaders = Box::pin(async_stream::stream! {
        match leaders.await.expect("no panic") {
            Ok(leaders) => {
                let mut leaders = leaders.into_inner();
                while let Some(next) = leaders.next().await {
                    yield next;
                }
            }
            Err(status) => yield Err(status),
        }
    });
    let mut seen = Vec::new();
    for ask in &calls {
        seen.push(Box::pin(crate::call::run(server, ask)).await);
        let next = leaders.next().await.expect("it goes on");
        seen.push(told(next.map(|mut leader| {
            plain(server, &mut leader.header);
            leader
        })));
    }
    seen.join("; ")
}

fn grant(id: i64) -> Call {
    Ask::Grant(pb::LeaseGrantRequest { id, ttl: 100 }).into()
}

fn turn(ask: Turns) -> Ask {
    Ask::Turns(ask)
}

fn leader(rev: i64) -> Option<LeaderKey> {
    Some(LeaderKey { name: "e".into(), key: "e/64".into(), rev, lease: 100 })
}

#[tokio::test]
#[ignore = "needs a real etcd to compare with: set ETCD_BIN"]
async fn locks() {
    use Turns::{Lock, LockAndLeave, LockBehind, Unlock};
    let unlock = |key| turn(Unlock(key));
    let calls: Vec<Call> = vec![
        grant(100),
        grant(101),
        grant(102),
        grant(-7),
        turn(Lock("lock", 100)).into(),
        turn(Lock("lock", 100)).note("again by the holder"),
        turn(LockBehind("lock", 101, vec![unlock("lock/64")])).note("the holder lets go"),
        turn(LockBehind("lock", 100, vec![delete("lock/65", "")])).note("by hand"),
        turn(LockAndLeave("lock", 102)).note("its key goes"),
        turn(LockBehind("lock", 101, vec![Ask::Revoke(100)])).note("the holder's lease ends"),
        turn(LockBehind("lock", 102, vec![Ask::Revoke(102), unlock("lock/65")]))
            .note("the waiter's lease ends"),
        Ask::Range(range("lock", "locl")).into(),
        put("other/a", "").into(),
        turn(LockBehind("other", 101, vec![put("other/a", "2"), delete("other/a", "")]))
            .note("any older key holds it"),
        get("other/65").into(),
        turn(Lock("minus", -7)).note("Go's hex of a negative number"),
        turn(Lock("", 101)).note("the empty name"),
        turn(Lock("own", 0)).note("the server's own lease"),
        turn(Lock("lock", 999)).note("no such lease"),
        turn(Lock("lock", -1)).into(),
        unlock("nosuch").into(),
        unlock("").into(),
        unlock("minus/-7").into(),
        Ask::Range(range("lock", "o")).note("all that is left with a name of ours"),
    ];
    replay(15, calls).await;
}

#[tokio::test]
#[ignore = "needs a real etcd to compare with: set ETCD_BIN"]
async fn elections() {
    use Turns::{Campaign, CampaignBehind, Leader, Observe, Proclaim, Resign};
    let calls: Vec<Call> = vec![
        grant(100),
        grant(101),
        turn(Leader("e")).note("nobody"),
        turn(Campaign("e", 100, "v1")).into(),
        turn(Leader("e")).into(),
        turn(Campaign("e", 100, "v1")).note("again"),
        turn(Campaign("e", 100, "v2")).note("with another value"),
        get("e/64").into(),
        turn(Proclaim(leader(2), "v3")).into(),
        turn(Proclaim(leader(7), "v4")).note("of another time"),
        turn(Proclaim(None, "v4")).into(),
        turn(Proclaim(Some(LeaderKey::default()), "v4")).into(),
        turn(Resign(None)).into(),
        turn(Resign(Some(LeaderKey::default()))).into(),
        turn(Resign(leader(7))).note("of another time"),
        turn(Observe("e", vec![get("e/64"), turn(Proclaim(leader(2), "v5"))])).into(),
        turn(CampaignBehind("e", 101, vec![turn(Leader("e")), turn(Resign(leader(2)))])).into(),
        turn(Resign(leader(2))).note("twice"),
        turn(Proclaim(leader(2), "v6")).note("after it resigned"),
        turn(Observe(
            "e",
            vec![get("e/65"), Ask::Both(Box::new([delete("e/65", ""), turn(Campaign("e", 100, "w"))]))],
        ))
        .into(),
        turn(Observe("later", vec![turn(Campaign("later", 101, "w")), put("later/65", "x")]))
            .note("waits for the first"),
        turn(Campaign("e", 999, "v")).note("no such lease"),
        turn(Campaign("own", 0, "v")).into(),
        turn(Campaign("", 101, "v")).into(),
        turn(Leader("")).into(),
    ];
    replay(16, calls).await;
}
