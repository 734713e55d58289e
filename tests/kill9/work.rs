//! What clients of a chaos run do: every kind of call, over all members, each written down.

use std::{collections::BTreeMap, ops::Range, time::Duration};

use bytes::Bytes;
use kontiki::wire::{
    RawKeyValue,
    etcdserverpb::{
        self as pb, compare::TargetUnion, request_op::Request as Op, response_op::Response as Done,
    },
};
use rand::{Rng, rngs::StdRng};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{clients, cluster::Contact, record::Caller};
use crate::history::{Held, HeldKind};

/// How many keys the writers share.
const KEYS: usize = 12;

/// A client at its work.
pub struct Worker {
    pub caller: Caller,
    pub contacts: Vec<Contact>,
    pub rng: StdRng,
    pub stop: watch::Receiver<bool>,
    /// Whom it talks to.
    at: usize,
    /// The newest revision it has seen.
    seen: i64,
    /// What makes its values unlike all others.
    written: u64,
    /// When its keys were last changed, as far as it knows; 0 for absent.
    known: BTreeMap<String, i64>,
}

fn key(number: usize) -> String {
    format!("k/{number:02}")
}

fn decoded(raw: &RawKeyValue) -> kontiki::types::KeyValue {
    raw.decode_kv().expect("a key-value decodes")
}

fn op(request: Op) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

/// All keys that begin with it.
pub fn prefix(text: &str) -> (Bytes, Bytes) {
    let mut end = text.as_bytes().to_vec();
    *end.last_mut().expect("it is not empty") += 1;
    (Bytes::copy_from_slice(text.as_bytes()), end.into())
}

fn equal(key: &str, revision: i64, target: pb::compare::CompareTarget) -> pb::Compare {
    let union = match target {
        pb::compare::CompareTarget::Create => TargetUnion::CreateRevision(revision),
        _ => TargetUnion::ModRevision(revision),
    };
    pb::Compare {
        result: pb::compare::CompareResult::Equal as i32,
        target: target as i32,
        key: key.to_owned().into(),
        range_end: Bytes::new(),
        target_union: Some(union),
    }
}

impl Worker {
    pub fn new(caller: Caller, contacts: Vec<Contact>, mut rng: StdRng, stop: watch::Receiver<bool>) -> Self {
        let at = rng.random_range(0..contacts.len());
        Self { caller, contacts, rng, stop, at, seen: 1, written: 0, known: BTreeMap::new() }
    }

    /// The member that it talks to: another one now and then, and never one that is known to be down.
    async fn contact(&mut self) -> Contact {
        if self.rng.random_bool(0.1) {
            self.elsewhere();
        }
        for _ in 0..self.contacts.len() {
            if self.contacts[self.at].is_ready() {
                return self.contacts[self.at].clone();
            }
            self.elsewhere();
        }
        let contact = self.contacts[self.at].clone();
        contact.ready().await;
        contact
    }

    fn elsewhere(&mut self) {
        self.at = self.rng.random_range(0..self.contacts.len());
    }

    /// Takes an answer in; without one, the next member is asked.
    fn heard(&mut self, header: Option<&pb::ResponseHeader>) {
        match header {
            Some(header) => self.seen = self.seen.max(header.revision),
            None => self.elsewhere(),
        }
    }

    async fn pause(&mut self, millis: Range<u64>) -> bool {
        let span = Duration::from_millis(self.rng.random_range(millis));
        timeout(span, self.stop.wait_for(|stop| *stop)).await.is_ok()
    }

    /// Reads and writes until it is told to stop.
    pub async fn work(mut self) {
        while !self.pause(5..40).await {
            match self.rng.random_range(0..100) {
                0..27 => self.put(0).await,
                27..47 => self.read(false).await,
                47..60 => self.read(true).await,
                60..67 => self.delete().await,
                67..88 => self.swap().await,
                88..99 => self.several().await,
                _ => self.compact().await,
            }
        }
    }

    /// Reads at one member until it is told to stop, and waits for its answers however long that takes: what a leader
    /// says first when it comes back must not be old.
    pub async fn stay(mut self, home: Contact) {
        while !self.pause(5..60).await {
            home.ready().await;
            let request = pb::RangeRequest { key: self.a_key().into(), ..Default::default() };
            self.caller.call(&home, request.clone(), home.kv().range(request)).await;
        }
    }

    fn value(&mut self) -> Bytes {
        self.written += 1;
        let long = "x".repeat(self.rng.random_range(0..100));
        format!("{}.{}.{long}", self.caller.number, self.written).into()
    }

    fn a_put(&mut self, key: String, lease: i64) -> pb::PutRequest {
        let (value, prev_kv) = (self.value(), self.rng.random_bool(0.2));
        pb::PutRequest { key: key.into(), value, lease, prev_kv, ..Default::default() }
    }

    fn a_key(&mut self) -> String {
        key(self.rng.random_range(0..KEYS))
    }

    async fn put(&mut self, lease: i64) {
        let key = self.a_key();
        let request = self.a_put(key.clone(), lease);
        let contact = self.contact().await;
        let answer = self.caller.call(&contact, request.clone(), contact.kv().put(request)).await;
        self.heard(answer.as_ref().and_then(|a| a.header.as_ref()));
        if let Some(header) = answer.and_then(|a| a.header) {
            self.known.insert(key, header.revision);
        }
    }

    fn a_range(&mut self, serializable: bool) -> pb::RangeRequest {
        let (key, range_end) = match self.rng.random_range(0..10) {
            0..6 => (self.a_key().into(), Bytes::new()),
            6..8 => (self.a_key().into(), Bytes::from_static(b"k0")),
            _ => prefix("k/"),
        };
        let old = self.rng.random_bool(0.15);
        let revision = if old { (self.seen - self.rng.random_range(0..200)).max(1) } else { 0 };
        let limit = if self.rng.random_bool(0.2) { 3 } else { 0 };
        let count_only = self.rng.random_bool(0.05);
        pb::RangeRequest { key, range_end, limit, revision, serializable, count_only, ..Default::default() }
    }

    async fn read(&mut self, serializable: bool) {
        let request = self.a_range(serializable);
        let now = request.revision == 0 && request.range_end.is_empty();
        let contact = self.contact().await;
        let answer = self.caller.call(&contact, request.clone(), contact.kv().range(request.clone())).await;
        self.heard(answer.as_ref().and_then(|a| a.header.as_ref()));
        let Some(answer) = answer.filter(|_| now) else { return };
        let modified = answer.kvs.first().map_or(0, |kv| decoded(kv).modified.0);
        self.known.insert(String::from_utf8_lossy(&request.key).into_owned(), modified);
    }

    async fn delete(&mut self) {
        let number = self.rng.random_range(0..KEYS);
        let several = self.rng.random_bool(0.3);
        let range_end = if several { key(number + 2).into() } else { Bytes::new() };
        let prev_kv = self.rng.random_bool(0.3);
        let request = pb::DeleteRangeRequest { key: key(number).into(), range_end, prev_kv };
        let contact = self.contact().await;
        let answer = self.caller.call(&contact, request.clone(), contact.kv().delete_range(request)).await;
        self.heard(answer.and_then(|a| a.header).as_ref());
    }

    /// Writes a key if it is as it was last seen, and else looks at it.
    async fn swap(&mut self) {
        let key = self.a_key();
        let known = self.known.get(&key).copied().unwrap_or(0);
        let get = pb::RangeRequest { key: key.clone().into(), ..Default::default() };
        let request = pb::TxnRequest {
            compare: vec![equal(&key, known, pb::compare::CompareTarget::Mod)],
            success: vec![op(Op::RequestPut(self.a_put(key.clone(), 0)))],
            failure: vec![op(Op::RequestRange(get))],
        };
        let Some(answer) = self.txn(request).await else { return };
        let revision = answer.header.map_or(0, |header| header.revision);
        let modified = match answer.responses.first().and_then(|done| done.response.as_ref()) {
            Some(Done::ResponseRange(range)) => range.kvs.first().map_or(0, |kv| decoded(kv).modified.0),
            _ => revision,
        };
        self.known.insert(key, modified);
    }

    async fn txn(&mut self, request: pb::TxnRequest) -> Option<pb::TxnResponse> {
        let contact = self.contact().await;
        let answer = self.caller.call(&contact, request.clone(), contact.kv().txn(request)).await;
        self.heard(answer.as_ref().and_then(|a| a.header.as_ref()));
        answer
    }

    /// Several keys in one transaction.
    async fn several(&mut self) {
        let first = self.rng.random_range(0..KEYS);
        let others = [(first + 1) % KEYS, (first + 2) % KEYS].map(key);
        let range = self.a_range(false);
        let delete = pb::DeleteRangeRequest { key: others[1].clone().into(), ..Default::default() };
        let success = vec![
            op(Op::RequestRange(range)),
            op(Op::RequestPut(self.a_put(key(first), 0))),
            op(Op::RequestPut(self.a_put(others[0].clone(), 0))),
            op(Op::RequestDeleteRange(delete)),
        ];
        self.txn(pb::TxnRequest { success, ..Default::default() }).await;
    }

    /// Far enough behind that most watches don't mind.
    async fn compact(&mut self) {
        let revision = self.seen - 1_000;
        if revision < 1 || self.caller.number != 0 {
            return;
        }
        let contact = self.contact().await;
        let request = pb::CompactionRequest { revision, physical: false };
        let answer = self.caller.call(&contact, request, contact.kv().compact(request)).await;
        self.heard(answer.and_then(|a| a.header).as_ref());
    }

    async fn grant(&mut self, ttl: i64) -> Option<pb::LeaseGrantResponse> {
        let contact = self.contact().await;
        let request = pb::LeaseGrantRequest { ttl, id: 0 };
        let answer = self.caller.call(&contact, request, contact.lease().lease_grant(request)).await;
        self.heard(answer.as_ref().and_then(|a| a.header.as_ref()));
        answer
    }

    async fn revoke(&mut self, id: i64) {
        let contact = self.contact().await;
        let request = pb::LeaseRevokeRequest { id };
        let answer = self.caller.call(&contact, request, contact.lease().lease_revoke(request)).await;
        self.heard(answer.and_then(|a| a.header).as_ref());
    }

    /// Takes leases with keys, keeps them for a while, and revokes them or leaves them alone.
    pub async fn rent(mut self) {
        while !self.pause(50..500).await {
            let ttl = self.rng.random_range(1..4);
            let Some(granted) = self.grant(ttl).await else { continue };
            let id = granted.id;
            for number in 0..self.rng.random_range(1..3) {
                let request = self.a_put(format!("l/{id:x}/{number}"), id);
                let contact = self.contact().await;
                let answer = self.caller.call(&contact, request.clone(), contact.kv().put(request)).await;
                self.heard(answer.and_then(|a| a.header).as_ref());
            }
            for _ in 0..self.rng.random_range(0..16) {
                if self.pause(200..900).await || !self.renew(id).await {
                    break;
                }
            }
            if self.rng.random_bool(0.3) {
                self.revoke(id).await;
            }
        }
    }

    /// Keeps a lease, or asks for it; whether it is there still, as far as is known.
    async fn renew(&mut self, id: i64) -> bool {
        let contact = self.contact().await;
        if self.rng.random_bool(0.2) {
            let request = pb::LeaseTimeToLiveRequest { id, keys: true };
            let answer =
                self.caller.call(&contact, request, contact.lease().lease_time_to_live(request)).await;
            return answer.is_none_or(|answer| answer.ttl > 0);
        }
        let request = pb::LeaseKeepAliveRequest { id };
        let answer = self.caller.call(&contact, request, clients::renew(&contact, id)).await;
        if answer.is_none() {
            self.elsewhere();
        }
        answer.is_none_or(|answer| answer.ttl > 0)
    }

    /// Takes a lock as etcd's client library does, again and again: a key on a lease, and the oldest key of the prefix
    /// has the lock.
    pub async fn lock(mut self) {
        while !self.pause(20..200).await {
            let asked = Instant::now();
            let Some(granted) = self.grant(3).await else { continue };
            // For its holder a lock ends when its lease may have.
            let expires = asked + Duration::from_secs(granted.ttl.unsigned_abs());
            self.hold(granted.id, expires).await;
            self.revoke(granted.id).await;
        }
    }

    async fn hold(&mut self, lease: i64, expires: Instant) {
        let own = format!("lock/{lease:x}");
        let get = pb::RangeRequest { key: own.clone().into(), ..Default::default() };
        let request = pb::TxnRequest {
            compare: vec![equal(&own, 0, pb::compare::CompareTarget::Create)],
            success: vec![op(Op::RequestPut(self.a_put(own.clone(), lease)))],
            failure: vec![op(Op::RequestRange(get))],
        };
        let Some(answer) = self.txn(request).await else { return };
        let created = answer.header.map_or(0, |header| header.revision);
        let (start, range_end) = prefix("lock/");
        let oldest = pb::RangeRequest {
            key: start,
            range_end,
            sort_order: pb::range_request::SortOrder::Ascend as i32,
            sort_target: pb::range_request::SortTarget::Create as i32,
            limit: 1,
            ..Default::default()
        };
        while Instant::now() < expires {
            let contact = self.contact().await;
            let answer = self.caller.call(&contact, oldest.clone(), contact.kv().range(oldest.clone())).await;
            self.heard(answer.as_ref().and_then(|a| a.header.as_ref()));
            let first = answer.and_then(|answer| answer.kvs.first().map(decoded));
            if first.is_some_and(|kv| kv.key == own) && Instant::now() < expires {
                return self.held(own, created, lease, expires).await;
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn held(&mut self, key: String, created: i64, lease: i64, expires: Instant) {
        let from = self.caller.recorder.now();
        let span = Duration::from_millis(self.rng.random_range(10..1_500));
        sleep_until(expires.min(Instant::now() + span)).await;
        // As long as it surely was: the lease may be over by now, and the sleep was long.
        let until = Some(self.caller.recorder.now());
        let (kind, client) = (HeldKind::Lock, self.caller.number);
        let held = Held { kind, name: "lock/".to_owned(), key, created, lease, client, from, until };
        self.caller.recorder.held(held);
    }
}
