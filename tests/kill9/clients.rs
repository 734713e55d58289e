//! Clients: they write, keep leases and watch, through members that come and go.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use kontiki::wire::etcdserverpb::{self as pb, request_op::Request as Op, watch_request::RequestUnion};
use prost::Message;
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::{sync::watch, time::timeout};
use tonic::Status;

use super::{
    cluster::{Contact, PATIENCE},
    record::{Caller, Recorder},
    seen::{Abandoned, Record, Seen, Writes},
};
use crate::history::{Call, Reply};

/// How long a client waits for an answer.
const CALL: Duration = Duration::from_secs(8);

/// How long a client that was refused by a living member holds back; there is no event to wait for.
const HOLD_BACK: Duration = Duration::from_millis(20);

/// Clients that don't write, by number.
const ABANDONS: u32 = 100;
const KEEPS: u32 = 101;
const WATCHES: u32 = 102;
const PERSISTS: u32 = 103;

/// A client by its number.
pub fn caller(record: &Record, number: u32) -> Caller {
    Caller { recorder: record.recorder.clone(), number, patience: CALL }
}

/// Calls until it is answered: for what must work some time after the last fault.
pub async fn persist<Q, A, F>(record: &Record, contact: &Contact, request: Q, call: impl Fn(Q) -> F) -> A
where
    Q: Into<Call> + Clone,
    A: Into<Reply> + Clone + Message,
    F: Future<Output = Result<tonic::Response<A>, Status>>,
{
    let caller = caller(record, PERSISTS);
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = caller.call(contact, request.clone(), call(request.clone())).await {
            return answer;
        }
        assert!(Instant::now() < until, "{} does not answer", contact.name);
        tokio::time::sleep(HOLD_BACK).await;
    }
}

fn put(key: &str, value: &str) -> pb::PutRequest {
    pb::PutRequest { key: key.to_owned().into(), value: value.to_owned().into(), ..Default::default() }
}

fn delete(key: &str) -> pb::DeleteRangeRequest {
    pb::DeleteRangeRequest { key: key.to_owned().into(), ..Default::default() }
}

/// Writes until `stop`, to keys of its own and some that all share; each value is there once.
pub async fn write(
    id: usize,
    seed: u64,
    contacts: Vec<Contact>,
    record: Arc<Record>,
    stop: watch::Receiver<bool>,
) {
    let mut rng = StdRng::seed_from_u64(seed);
    let home = &contacts[id % contacts.len()];
    let caller = caller(&record, id as u32);
    let mut last: Option<String> = None;
    let mut number = 0;
    while !*stop.borrow() {
        home.ready().await;
        number += 1;
        let value = format!("value-{id}-{number}-{}", "x".repeat(rng.random_range(0..200)));
        let key = format!("own/{id}/{number}");
        let (writes, revision) = match rng.random_range(0..10) {
            0 => write_two(&caller, home, &format!("shared/{}", rng.random_range(0..5)), &key, &value).await,
            1 | 2 => write_one(&caller, home, &format!("shared/{}", rng.random_range(0..5)), &value).await,
            3 if last.is_some() => delete_one(&caller, home, &last.take().expect("just looked")).await,
            _ => {
                last = Some(key.clone());
                write_one(&caller, home, &key, &value).await
            }
        };
        let Some(revision) = revision else {
            last = None;
            record.failed.send_modify(|n| *n += 1);
            tokio::time::sleep(HOLD_BACK).await;
            continue;
        };
        let written = writes.first().cloned();
        record.acknowledge(revision, writes);
        if let (Some((key, Some(_))), 0) = (written, rng.random_range(0..4)) {
            let elsewhere = &contacts[rng.random_range(0..contacts.len())];
            read_back(&caller, elsewhere, &key, revision, &record).await;
        }
    }
}

async fn write_one(caller: &Caller, home: &Contact, key: &str, value: &str) -> (Writes, Option<i64>) {
    let request = put(key, value);
    let answer = caller.call(home, request.clone(), home.kv().put(request)).await;
    let revision = answer.map(|a| a.header.expect("an answer has a header").revision);
    (vec![(key.to_owned(), Some(value.to_owned()))], revision)
}

async fn write_two(
    caller: &Caller,
    home: &Contact,
    first: &str,
    second: &str,
    value: &str,
) -> (Writes, Option<i64>) {
    let op = |key: &str| pb::RequestOp { request: Some(Op::RequestPut(put(key, value))) };
    let txn = pb::TxnRequest { success: vec![op(first), op(second)], ..Default::default() };
    let answer = caller.call(home, txn.clone(), home.kv().txn(txn)).await;
    let revision = answer.map(|a| a.header.expect("an answer has a header").revision);
    (vec![(first.to_owned(), Some(value.to_owned())), (second.to_owned(), Some(value.to_owned()))], revision)
}

async fn delete_one(caller: &Caller, home: &Contact, key: &str) -> (Writes, Option<i64>) {
    let request = delete(key);
    let answer = caller.call(home, request.clone(), home.kv().delete_range(request)).await;
    if let Some(answer) = &answer {
        assert_eq!(answer.deleted, 1, "an acknowledged write of {key} is not there to be deleted");
    }
    let revision = answer.map(|a| a.header.expect("an answer has a header").revision);
    (vec![(key.to_owned(), None)], revision)
}

/// A linearizable read anywhere sees what was acknowledged before.
async fn read_back(caller: &Caller, from: &Contact, key: &str, revision: i64, record: &Record) {
    let request = pb::RangeRequest { key: key.to_owned().into(), ..Default::default() };
    let answer = caller.call(from, request.clone(), from.kv().range(request)).await;
    let Some(answer) = answer else { return };
    let seen = answer.kvs.first().map(|kv| kv.decode_kv().expect("a key-value decodes").modified.0);
    assert!(seen >= Some(revision), "{key} was written at {revision}; {} has {seen:?}", from.name);
    record.reads.send_modify(|n| *n += 1);
}

/// Until `stop`: grants leases with a key each, and leaves them alone.
pub async fn abandon(contacts: Vec<Contact>, record: Arc<Record>, mut stop: watch::Receiver<bool>) {
    const SECONDS: u64 = 3;
    const PACE: Duration = Duration::from_millis(1_500);
    let caller = caller(&record, ABANDONS);
    for number in 0_usize.. {
        let home = &contacts[number % contacts.len()];
        home.ready().await;
        let (asked, key) = (Instant::now(), format!("leased/{number}"));
        let grant = pb::LeaseGrantRequest { ttl: SECONDS as i64, id: 0 };
        if let Some(lease) = caller.call(home, grant, home.lease().lease_grant(grant)).await {
            let request = pb::PutRequest { lease: lease.id, ..put(&key, &format!("leased-{number}")) };
            if caller.call(home, request.clone(), home.kv().put(request)).await.is_some() {
                let abandoned = Abandoned { key, seconds: SECONDS, asked };
                record.abandoned.lock().expect("no client panics with it").push(abandoned);
            }
        }
        if timeout(PACE, stop.wait_for(|stop| *stop)).await.is_ok() {
            return;
        }
    }
}

/// Until `stop`: keeps a lease alive, through whoever answers.
pub async fn keep_alive(
    lease: i64,
    contacts: Vec<Contact>,
    record: Arc<Record>,
    mut stop: watch::Receiver<bool>,
) {
    const PACE: Duration = Duration::from_millis(500);
    let caller = caller(&record, KEEPS);
    for number in 0_usize.. {
        let request = pb::LeaseKeepAliveRequest { id: lease };
        let home = &contacts[number % contacts.len()];
        if let Some(answer) = caller.call(home, request, renew(home, lease)).await {
            assert!(answer.ttl > 0, "a lease that was kept alive has ended");
        }
        if timeout(PACE, stop.wait_for(|stop| *stop)).await.is_ok() {
            return;
        }
    }
}

/// A stream of one renewal.
pub async fn renew(home: &Contact, id: i64) -> Result<tonic::Response<pb::LeaseKeepAliveResponse>, Status> {
    let request = tokio_stream::iter([pb::LeaseKeepAliveRequest { id }]);
    let stream = home.lease().lease_keep_alive(request).await?;
    let answer = stream.into_inner().message().await?;
    answer.map(tonic::Response::new).ok_or_else(|| Status::unavailable("no answer"))
}

/// Watches all keys from the first revision on at one member, resuming after each loss, until the key `until` comes.
/// Panics if an event comes twice or out of order.
pub async fn watch_all(home: Contact, recorder: Arc<Recorder>, until: &'static str) -> Vec<Seen> {
    let mut seen: Vec<Seen> = Vec::new();
    let mut last = None;
    loop {
        home.ready().await;
        let next = seen.last().map_or(1, |s| s.revision() + 1);
        let create = pb::WatchCreateRequest {
            key: Bytes::from_static(b"\0"),
            range_end: Bytes::from_static(b"\0"),
            start_revision: next,
            prev_kv: true,
            ..Default::default()
        };
        let watch = recorder.watching(WATCHES, &home, &create, last);
        last = Some(watch);
        let request = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        // The requests' stream stays open, or the watch would end with it.
        let requests = futures_util::StreamExt::chain(
            tokio_stream::iter([request]),
            tokio_stream::pending::<pb::WatchRequest>(),
        );
        let mut client = home.watch();
        if let Ok(Ok(stream)) = timeout(CALL, client.watch(requests)).await {
            let mut stream = stream.into_inner();
            while let Ok(Some(response)) = stream.message().await {
                recorder.told(watch, &response);
                assert!(!response.canceled, "{}: {response:?}", home.name);
                take(&home.name, &mut seen, response.events, next);
                if seen.last().is_some_and(|s| s.kv.key == until) {
                    return seen;
                }
            }
        }
        recorder.watched(watch);
        tokio::time::sleep(HOLD_BACK).await;
    }
}

/// One response: whole revisions, each after those before.
fn take(name: &str, seen: &mut Vec<Seen>, events: Vec<kontiki::wire::mvccpb::Event>, next: i64) {
    let at = Instant::now();
    let before = seen.last().map_or(0, |s| s.revision());
    for event in events {
        let event = Seen::new(event, at);
        let revision = event.revision();
        assert!(revision > before && revision >= next, "{name}: {revision} came after {before}");
        let last = seen.last().map_or(0, |s| s.revision());
        assert!(revision >= last, "{name}: {revision} came after {last}");
        seen.push(event);
    }
}
