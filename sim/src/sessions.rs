//! What clients do with leases over time: sessions that are renewed and end, locks and elections, by the recipe of
//! etcd's client library and by the members' own services.
//!
//! A member that serves a lock makes and deletes its key by transactions of its own. They are noted as calls without an
//! answer: what they did has to be explained like all else.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use bytes::Bytes;
use kontiki::wire::{
    RawKeyValue,
    etcdserverpb::{
        self as pb, compare::TargetUnion, request_op::Request as OpRequest,
        response_op::Response as OpResponse,
    },
    v3electionpb as electionpb, v3lockpb as lockpb,
};

use crate::{
    check::kv::Kv,
    client::Client,
    history::{self, Call, Held, HeldKind, Outcome, Reply},
    host::{Host, Micros, Process},
    plan::{SessionsStep, TurnStep},
    rng::Rng,
    workload::{Worker, key},
    world::World,
};

/// How many times a lock is asked for before its client gives up.
const LOCK_TRIES_MAX: usize = 20;

/// How often a key that stands before ours is looked at.
const LOCK_PAUSE: Micros = 200_000;

/// How long a client waits for its turn.
const TURN_PATIENCE: Micros = 20_000_000;

const SECOND: Micros = 1_000_000;

/// How often leases that are about to be revoked are renewed once more.
const LATE_RENEWALS: usize = 12;

/// The longest pause between two such renewals.
const LATE_PAUSE_MAX: Micros = 16_000;

/// The name that locks, or elections, go by.
fn name(election: bool, number: u8) -> Bytes {
    let kind = if election { "elect" } else { "lock" };
    format!("{kind}{number}").into_bytes().into()
}

/// The question who leads an election.
pub(crate) fn lead_request(number: u8) -> Call {
    electionpb::LeaderRequest { name: name(true, number) }.into()
}

fn put_once(key: &Bytes, value: Bytes, lease: i64) -> Call {
    guarded(
        key,
        0,
        OpRequest::RequestPut(pb::PutRequest { key: key.clone(), value, lease, ..Default::default() }),
    )
}

/// An operation that is done while its key is the one that was created then; 0 for while there is none.
fn guarded(key: &Bytes, created: i64, op: OpRequest) -> Call {
    let compare = pb::Compare {
        result: pb::compare::CompareResult::Equal as i32,
        target: pb::compare::CompareTarget::Create as i32,
        key: key.clone(),
        range_end: Bytes::new(),
        target_union: Some(TargetUnion::CreateRevision(created)),
    };
    let success = vec![pb::RequestOp { request: Some(op) }];
    pb::TxnRequest { compare: vec![compare], success, failure: Vec::new() }.into()
}

fn deleted(key: &Bytes) -> pb::DeleteRangeRequest {
    pb::DeleteRangeRequest { key: key.clone(), ..Default::default() }
}

/// A place in line that is held.
struct Place {
    key: Bytes,
    lease: i64,
    /// The revision that made the key; 0 if it is not known.
    created: i64,
    leader: Option<electionpb::LeaderKey>,
}

impl<H: Host> Worker<H> {
    /// Waits for a turn by a member's own service, holds it, and gives it back, or is gone.
    pub(crate) async fn take_turn(&mut self, step: &TurnStep) {
        let asked = self.world.time();
        let Outcome::Ok(Reply::LeaseGrant(granted)) =
            self.call(pb::LeaseGrantRequest { ttl: step.ttl, id: 0 }).await
        else {
            return;
        };
        let (lease, ttl) = (granted.id, granted.ttl as u64 * SECOND);
        let renewing = step.renew.then(|| self.renew(vec![lease], ttl / 3, usize::MAX));
        let place = self.wait_for_turn(step, lease).await;
        // Without renewals the session ends, for its client, when the lease may have run out.
        let expires = if step.renew { Micros::MAX } else { asked.0 + ttl };
        if let Some(place) = place {
            self.hold(step, &place, expires).await;
        }
        if let Some(renewing) = renewing {
            renewing.store(true, Relaxed);
        }
        if step.revoke {
            self.call(pb::LeaseRevokeRequest { id: lease }).await;
        }
    }

    async fn wait_for_turn(&mut self, step: &TurnStep, lease: i64) -> Option<Place> {
        let name = name(step.election, step.name);
        let key: Bytes = [&name[..], format!("/{lease:x}").as_bytes()].concat().into();
        let value = if step.election { format!("{lease}").into_bytes().into() } else { Bytes::new() };
        let call: Call = if step.election {
            electionpb::CampaignRequest { name, lease, value: value.clone() }.into()
        } else {
            lockpb::LockRequest { name, lease }.into()
        };
        for _ in 0..2 {
            self.client.note_done_for(self.member, put_once(&key, value.clone(), lease));
            // Without its turn it gives its place up, and may do so long before the client hears of that.
            let given_up = self.client.note_done_for(self.member, deleted(&key).into());
            let outcome = self.client.patient(TURN_PATIENCE).call_once(self.member, call.clone()).await;
            if outcome.reply().is_some() {
                self.client.note_undone(given_up);
            }
            match outcome {
                Outcome::Ok(Reply::Lock(_)) => {
                    return Some(Place { key, lease, created: 0, leader: None });
                }
                Outcome::Ok(Reply::Campaign(reply)) => {
                    let created = reply.leader.as_ref().map_or(0, |leader| leader.rev);
                    return Some(Place { key, lease, created, leader: reply.leader });
                }
                _ => {}
            }
            if !self.client.would_pass(self.member, &outcome).await {
                break;
            }
        }
        None
    }

    async fn hold(&mut self, step: &TurnStep, place: &Place, expires: Micros) {
        let from = self.world.time();
        let end = (from.0 + step.hold).min(expires).max(from.0);
        if let Some(leader) = place.leader.clone().filter(|_| step.proclaim) {
            self.world.host.sleep_until(from.0 + (end - from.0) / 2).await;
            let value: Bytes = format!("{} again", place.lease).into_bytes().into();
            let put = pb::PutRequest {
                key: place.key.clone(),
                value: value.clone(),
                lease: place.lease,
                ..Default::default()
            };
            let done = guarded(&place.key, leader.rev, OpRequest::RequestPut(put));
            self.client.note_done_for(self.member, done);
            self.client
                .call_once(self.member, electionpb::ProclaimRequest { leader: Some(leader), value }.into())
                .await;
        }
        self.world.host.sleep_until(end).await;
        let until = self.world.time();
        if from.0 < expires && place.created > 0 {
            self.note_held(step.election, step.name, place, (from, until));
        }
        if !step.leave {
            return;
        }
        match place.leader.clone() {
            Some(leader) => {
                let delete = OpRequest::RequestDeleteRange(deleted(&place.key));
                self.client.note_done_for(self.member, guarded(&place.key, leader.rev, delete));
                self.client
                    .call_once(self.member, electionpb::ResignRequest { leader: Some(leader) }.into())
                    .await;
            }
            None => {
                self.client.note_done_for(self.member, deleted(&place.key).into());
                self.client
                    .call_once(self.member, lockpb::UnlockRequest { key: place.key.clone() }.into())
                    .await;
            }
        }
    }

    fn note_held(
        &self,
        election: bool,
        number: u8,
        place: &Place,
        (from, until): (history::Micros, history::Micros),
    ) {
        let name = format!("{}/", String::from_utf8_lossy(&name(election, number)));
        let held = Held {
            kind: if election { HeldKind::Election } else { HeldKind::Lock },
            name,
            key: String::from_utf8_lossy(&place.key).into_owned(),
            created: place.created,
            lease: place.lease,
            client: self.client.number,
            from,
            until: Some(until),
        };
        self.world.record(|history| history.held.push(held));
    }

    /// Renews leases beside what follows, wherever somebody answers, so often, or until it is told to stop.
    fn renew(&self, leases: Vec<i64>, pause: Micros, times: usize) -> Arc<AtomicBool> {
        let stop: Arc<AtomicBool> = Arc::default();
        let (world, client, rng) = (self.world.clone(), self.client.clone(), self.rng.clone());
        let (stopped, until) = (stop.clone(), self.until);
        let member = self.member;
        let work = async move {
            let client = client.patient(pause.max(SECOND));
            let mut member = member;
            for _ in 0..times {
                world.host.sleep(pause).await;
                for id in &leases {
                    if stopped.load(Relaxed) || world.host.now() >= until {
                        return;
                    }
                    // As clients do: what does not answer is left for another.
                    if client.call(member, pb::LeaseKeepAliveRequest { id: *id }).await.is_unknown() {
                        let Some(other) = world.anywhere(&rng) else { return };
                        member = other;
                    }
                }
            }
        };
        self.world.host.spawn(Process::WORLD, Box::pin(work));
        stop
    }

    /// Grants leases, hangs keys on them, renews them for a while, and lets them go, beside what follows.
    pub(crate) fn hold_leases(&self, step: &SessionsStep) {
        let life = Life {
            world: self.world.clone(),
            client: self.client.clone(),
            rng: self.rng.clone(),
            member: self.member,
            until: self.until,
            step: step.clone(),
        };
        self.world.host.spawn(Process::WORLD, Box::pin(life.live()));
    }

    /// A lock as etcd's client library takes it: a key on a lease, the oldest key of the prefix holds the lock.
    pub(crate) async fn lock(&mut self, name: u8, ttl: i64, hold: Micros) {
        let prefix = format!("lock{name}/");
        let asked = self.world.time();
        let Outcome::Ok(Reply::LeaseGrant(granted)) = self.call(pb::LeaseGrantRequest { ttl, id: 0 }).await
        else {
            return;
        };
        let lease = granted.id;
        let own = format!("{prefix}{lease:x}");
        let Some(created) = self.queue_up(&own, lease).await else { return };
        // The session ends, for its client, when the lease may have run out.
        let expires = asked.0 + granted.ttl as u64 * 1_000_000;
        for _ in 0..LOCK_TRIES_MAX {
            if self.world.host.now() >= expires.min(self.until) {
                break;
            }
            let Some(first) = self.is_first(&prefix, created).await else { continue };
            if first {
                let from = self.world.time();
                let end = (from.0 + hold).min(expires);
                self.world.host.sleep_until(end.max(from.0)).await;
                let until = self.world.time();
                if from.0 < expires {
                    self.world.record(|history| {
                        history.held.push(Held {
                            kind: HeldKind::Lock,
                            name: prefix.clone(),
                            key: own.clone(),
                            created,
                            lease,
                            client: self.client.number,
                            from,
                            until: Some(until),
                        });
                    });
                }
                break;
            }
            self.world.host.sleep(LOCK_PAUSE).await;
        }
        self.call(pb::LeaseRevokeRequest { id: lease }).await;
    }

    /// Makes the own key, and gives the revision that made it.
    async fn queue_up(&mut self, own: &str, lease: i64) -> Option<i64> {
        let own = Bytes::copy_from_slice(own.as_bytes());
        let put = pb::PutRequest { key: own.clone(), lease, ..Default::default() };
        let absent = pb::Compare {
            result: pb::compare::CompareResult::Equal as i32,
            target: pb::compare::CompareTarget::Create as i32,
            key: own.clone(),
            range_end: Bytes::new(),
            target_union: Some(TargetUnion::CreateRevision(0)),
        };
        let get = pb::RangeRequest { key: own, ..Default::default() };
        let txn = pb::TxnRequest {
            compare: vec![absent],
            success: vec![pb::RequestOp { request: Some(OpRequest::RequestPut(put)) }],
            failure: vec![pb::RequestOp { request: Some(OpRequest::RequestRange(get)) }],
        };
        // A second try finds the key of a first one that was not answered.
        for _ in 0..3 {
            let Outcome::Ok(Reply::Txn(done)) = self.call(txn.clone()).await else { continue };
            if done.succeeded {
                return done.header.map(|header| header.revision);
            }
            let found = done.responses.into_iter().find_map(|op| match op.response {
                Some(OpResponse::ResponseRange(range)) => {
                    range.kvs.first().map(|kv| decoded(kv).create_revision)
                }
                _ => None,
            });
            return found;
        }
        None
    }

    async fn is_first(&mut self, prefix: &str, created: i64) -> Option<bool> {
        let mut end = prefix.as_bytes().to_vec();
        if let Some(last) = end.last_mut() {
            *last += 1;
        }
        let request = pb::RangeRequest {
            key: Bytes::copy_from_slice(prefix.as_bytes()),
            range_end: end.into(),
            sort_order: pb::range_request::SortOrder::Ascend as i32,
            sort_target: pb::range_request::SortTarget::Create as i32,
            limit: 1,
            ..Default::default()
        };
        match self.call(request).await {
            Outcome::Ok(Reply::Range(found)) => Some(decoded(found.kvs.first()?).create_revision == created),
            _ => None,
        }
    }
}

/// Some leases of one client, from their grants to their ends.
struct Life<H: Host> {
    world: World<H>,
    client: Client<H>,
    rng: Rng,
    member: crate::net::Address,
    until: Micros,
    step: SessionsStep,
}

impl<H: Host> Life<H> {
    async fn call(&mut self, call: impl Into<Call>) -> Outcome {
        let outcome = self.client.call(self.member, call).await;
        if outcome.is_unknown() {
            self.member = self.world.anywhere(&self.rng).unwrap_or(self.member);
        }
        outcome
    }

    fn is_over(&self) -> bool {
        self.world.host.now() >= self.until
    }

    async fn live(mut self) {
        let mut leases = Vec::new();
        for number in 0..self.step.count {
            let grant = pb::LeaseGrantRequest { ttl: self.step.ttl, id: 0 };
            let Outcome::Ok(Reply::LeaseGrant(granted)) = self.call(grant).await else { continue };
            let key = key(self.step.key.wrapping_add(number));
            let value = format!("{:x}", granted.id).into_bytes().into();
            let put = pb::PutRequest { key, value, lease: granted.id, ..Default::default() };
            if self.step.renew_first {
                self.call(pb::LeaseKeepAliveRequest { id: granted.id }).await;
            }
            self.call(put).await;
            leases.push(granted.id);
        }
        // Shortly before they end, or well before.
        let pause = (self.step.ttl as u64 * SECOND / 100 * u64::from(self.step.renew_percent)).max(1_000);
        for _ in 0..self.step.renewals {
            self.world.host.sleep(pause).await;
            for id in leases.clone() {
                if self.is_over() {
                    return;
                }
                self.call(pb::LeaseKeepAliveRequest { id }).await;
            }
        }
        if self.step.late {
            self.world.host.sleep(self.step.ttl as u64 * SECOND).await;
            self.renew_late(&leases).await;
        }
        for id in leases {
            if self.is_over() {
                return;
            }
            if self.step.revoke {
                // Beside the revocation, somebody who does not know of it renews.
                let member = self.world.anywhere(&self.rng).unwrap_or(self.member);
                let client = self.client.clone();
                let renew = async move {
                    client.call(member, pb::LeaseKeepAliveRequest { id }).await;
                };
                self.world.host.spawn(Process::WORLD, Box::pin(renew));
                self.call(pb::LeaseRevokeRequest { id }).await;
                // Whoever is asked knows that it is gone.
                let (client, member) = (self.client.clone(), *self.rng.pick(&self.world.addresses()));
                let elsewhere = async move {
                    client.call(member, pb::LeaseKeepAliveRequest { id }).await;
                };
                self.world.host.spawn(Process::WORLD, Box::pin(elsewhere));
                self.call(pb::LeaseKeepAliveRequest { id }).await;
            }
            self.call(pb::LeaseTimeToLiveRequest { id, keys: true }).await;
        }
    }
}

impl<H: Host> Life<H> {
    /// Renews leases that may be over, time after time and wherever somebody answers, and waits for none of it: between
    /// the end of a lease and its revocation there is but a moment.
    async fn renew_late(&self, leases: &[i64]) {
        for _ in 0..LATE_RENEWALS {
            for &id in leases {
                let Some(member) = self.world.anywhere(&self.rng) else { return };
                let client = self.client.clone();
                let renew = async move {
                    client.call(member, pb::LeaseKeepAliveRequest { id }).await;
                };
                self.world.host.spawn(Process::WORLD, Box::pin(renew));
            }
            self.world.host.sleep(self.rng.log_between(500, LATE_PAUSE_MAX)).await;
            if self.is_over() {
                return;
            }
        }
    }
}

/// A key-value. Bytes that are none are the oracles' to object to.
fn decoded(raw: &RawKeyValue) -> Kv {
    Kv::from_raw(raw).unwrap_or_default()
}
