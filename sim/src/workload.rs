//! What clients do: plans' steps made into calls, with what only the run can know.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use kontiki::wire::{
    RawKeyValue,
    etcdserverpb::{
        self as pb, compare::TargetUnion, request_op::Request as OpRequest,
        response_op::Response as OpResponse,
    },
};

use crate::{
    check::kv::Kv,
    client::Client,
    history::{Call, Held, HeldKind, Outcome, Reply},
    host::{Host, Micros, Process},
    net::Address,
    plan::{Action, CompareStep, OpStep, PutStep, RangeStep, Rev, Span, Step, TxnStep, WatchStep},
    rng::Rng,
    world::World,
};

/// Lease ids of the run's slots begin here.
const LEASES: i64 = 1_000;

/// How many times a lock is asked for before its client gives up.
const LOCK_TRIES_MAX: usize = 20;

/// How often a key that stands before ours is looked at.
const LOCK_PAUSE: Micros = 200_000;

/// One client at its work.
pub struct Worker<H: Host> {
    world: World<H>,
    client: Client<H>,
    rng: Rng,
    /// Whom it talks to.
    member: Address,
    /// The newest revision it has seen.
    seen: i64,
    /// Makes its values unlike all others.
    written: u64,
    shared: Arc<Shared>,
}

/// What the clients of a run share.
#[derive(Debug, Default)]
pub struct Shared {
    /// How often each lease slot was granted: each grant has an id of its own.
    leases: Mutex<BTreeMap<u8, i64>>,
}

impl Shared {
    fn leases(&self) -> MutexGuard<'_, BTreeMap<u8, i64>> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lease(&self, slot: u8) -> i64 {
        let turn = self.leases().get(&slot).copied().unwrap_or(0);
        LEASES * (i64::from(slot) + 1) + turn
    }

    fn next_lease(&self, slot: u8) -> i64 {
        *self.leases().entry(slot).or_insert(0) += 1;
        self.lease(slot)
    }
}

/// A key of the universe.
pub fn key(number: u8) -> Bytes {
    format!("k{number:03}").into_bytes().into()
}

fn bounds(span: Span) -> (Bytes, Bytes) {
    match span {
        Span::Key(number) => (key(number), Bytes::new()),
        Span::Between(from, to) => (key(from), key(to)),
        Span::From(from) => (key(from), Bytes::from_static(b"\0")),
        Span::All => (Bytes::from_static(b"\0"), Bytes::from_static(b"\0")),
    }
}

impl<H: Host> Worker<H> {
    /// The client `number` of a run.
    pub fn new(world: World<H>, seed: u64, number: u32, patience: Micros, shared: Arc<Shared>) -> Self {
        let rng = Rng::of(seed, &format!("client {number}"));
        let member = *rng.pick(&world.addresses());
        let client = Client::new(world.clone(), number, patience);
        Self { world, client, rng, member, seen: 1, written: 0, shared }
    }

    /// Does all steps, or as many as there is time for.
    pub async fn work(mut self, steps: Vec<Step>, until: Micros) {
        for step in steps {
            self.world.host.sleep(step.wait).await;
            if self.world.host.now() >= until {
                return;
            }
            self.step(step.action, until).await;
        }
    }

    async fn step(&mut self, action: Action, until: Micros) {
        let call: Call = match action {
            Action::Range(step) => self.range(&step).into(),
            Action::Put(step) => self.put(&step).into(),
            Action::Delete { span, prev_kv } => delete(span, prev_kv).into(),
            Action::Txn(step) => self.txn(&step).into(),
            Action::Compact { rev, physical } => {
                pb::CompactionRequest { revision: self.rev(rev), physical }.into()
            }
            Action::Grant { lease, ttl } => {
                pb::LeaseGrantRequest { ttl, id: self.shared.next_lease(lease) }.into()
            }
            Action::Revoke { lease } => pb::LeaseRevokeRequest { id: self.shared.lease(lease) }.into(),
            Action::KeepAlive { lease } => pb::LeaseKeepAliveRequest { id: self.shared.lease(lease) }.into(),
            Action::TimeToLive { lease, keys } => {
                pb::LeaseTimeToLiveRequest { id: self.shared.lease(lease), keys }.into()
            }
            Action::Leases => pb::LeaseLeasesRequest {}.into(),
            Action::HashKv { rev } => pb::HashKvRequest { revision: self.rev(rev) }.into(),
            Action::Defragment => pb::DefragmentRequest {}.into(),
            Action::Status => pb::StatusRequest {}.into(),
            Action::Watch(step) => return self.watch(&step),
            Action::Lock { name, ttl, hold } => return self.lock(name, ttl, hold, until).await,
            Action::Move { to } => {
                self.member = to;
                return;
            }
        };
        self.call(call).await;
    }

    async fn call(&mut self, call: impl Into<Call>) -> Outcome {
        let outcome = self.client.call(self.member, call).await;
        match &outcome {
            Outcome::Ok(reply) => {
                self.seen = self.seen.max(reply.header().map_or(0, |header| header.revision));
            }
            Outcome::Refused { .. } => {}
            // As clients do: what does not answer is left for another.
            Outcome::Unknown(_) => self.member = *self.rng.pick(&self.world.addresses()),
        }
        outcome
    }

    fn rev(&self, rev: Rev) -> i64 {
        match rev {
            Rev::Now => 0,
            Rev::Back(by) => (self.seen - by).max(1),
            Rev::Ahead(by) => self.seen + by,
            Rev::Exactly(rev) => rev,
        }
    }

    fn range(&self, step: &RangeStep) -> pb::RangeRequest {
        let (key, range_end) = bounds(step.span);
        let bound = |n: usize| step.bounds[n].map_or(0, |rev| self.rev(rev));
        pb::RangeRequest {
            key,
            range_end,
            limit: step.limit,
            revision: self.rev(step.rev),
            sort_order: step.sort.0,
            sort_target: step.sort.1,
            serializable: step.serializable,
            keys_only: step.keys_only,
            count_only: step.count_only,
            min_mod_revision: bound(0),
            max_mod_revision: bound(1),
            min_create_revision: bound(2),
            max_create_revision: bound(3),
        }
    }

    fn put(&mut self, step: &PutStep) -> pb::PutRequest {
        self.written += 1;
        let mut value = format!("{}.{}", self.client.number, self.written).into_bytes();
        value.resize(value.len().max(step.size as usize), b'.');
        pb::PutRequest {
            key: key(step.key),
            value: if step.ignore_value { Bytes::new() } else { value.into() },
            lease: step.lease.filter(|_| !step.ignore_lease).map_or(0, |slot| self.shared.lease(slot)),
            prev_kv: step.prev_kv,
            ignore_value: step.ignore_value,
            ignore_lease: step.ignore_lease,
        }
    }

    fn txn(&mut self, step: &TxnStep) -> pb::TxnRequest {
        let compare = step.compares.iter().map(|compare| self.compare(compare)).collect();
        let success = step.success.iter().map(|op| self.op(op)).collect();
        let failure = step.failure.iter().map(|op| self.op(op)).collect();
        pb::TxnRequest { compare, success, failure }
    }

    fn op(&mut self, step: &OpStep) -> pb::RequestOp {
        let request = match step {
            OpStep::Range(range) => OpRequest::RequestRange(self.range(range)),
            OpStep::Put(put) => OpRequest::RequestPut(self.put(put)),
            OpStep::Delete { span, prev_kv } => OpRequest::RequestDeleteRange(delete(*span, *prev_kv)),
            OpStep::Txn(txn) => OpRequest::RequestTxn(self.txn(txn)),
        };
        pb::RequestOp { request: Some(request) }
    }

    fn compare(&self, step: &CompareStep) -> pb::Compare {
        let (key, range_end) = bounds(step.span);
        let target = step.target.rem_euclid(5);
        let union = match target {
            0 => TargetUnion::Version(step.number),
            1 => TargetUnion::CreateRevision(self.rev(step.rev)),
            2 => TargetUnion::ModRevision(self.rev(step.rev)),
            3 => TargetUnion::Value(format!("{}.{}", self.client.number, step.number).into_bytes().into()),
            _ => TargetUnion::Lease(if step.number == 0 { 0 } else { self.shared.lease(step.number as u8) }),
        };
        pb::Compare { result: step.result, target, key, range_end, target_union: Some(union) }
    }

    /// Watches beside what follows, from another member whenever its own is lost, from where it was.
    fn watch(&self, step: &WatchStep) {
        let (key, range_end) = bounds(step.span);
        let create = pb::WatchCreateRequest {
            key,
            range_end,
            start_revision: self.rev(step.rev),
            progress_notify: step.progress,
            filters: step.filters.clone(),
            prev_kv: step.prev_kv,
            watch_id: 0,
            fragment: step.fragment,
        };
        let until = self.world.host.now() + step.span_micros;
        let watching = keep_watching(
            self.world.clone(),
            self.client.clone(),
            self.rng.clone(),
            self.member,
            create,
            until,
            (step.slow, step.ask_progress),
        );
        self.world.host.spawn(Process::WORLD, Box::pin(watching));
    }

    /// A lock as etcd's client library takes it: a key on a lease, the oldest key of the prefix holds the lock.
    async fn lock(&mut self, name: u8, ttl: i64, hold: Micros, until: Micros) {
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
            if self.world.host.now() >= expires.min(until) {
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

/// A key-value. Bytes that are none are the oracles' to object to.
fn decoded(raw: &RawKeyValue) -> Kv {
    Kv::from_raw(raw).unwrap_or_default()
}

fn delete(span: Span, prev_kv: bool) -> pb::DeleteRangeRequest {
    let (key, range_end) = bounds(span);
    pb::DeleteRangeRequest { key, range_end, prev_kv }
}

/// Watches until a time, resuming where it was whenever its stream breaks.
pub async fn keep_watching<H: Host>(
    world: World<H>,
    client: Client<H>,
    rng: Rng,
    mut member: Address,
    mut create: pb::WatchCreateRequest,
    until: Micros,
    (slow, ask_progress): (Micros, Micros),
) {
    let mut resumes = None;
    while world.host.now() < until {
        let log = client.watch(member, create.clone(), until, slow, ask_progress, resumes).await;
        let seen = world.record(|history| {
            let log = history.watches.get(log as usize)?;
            let from_now = create.start_revision == 0;
            let next =
                log.responses.iter().filter_map(|(_, response)| next_revision(response, from_now)).max();
            Some((next, log.responses.iter().any(|(_, response)| response.canceled)))
        });
        let Some((next, canceled)) = seen else { return };
        if canceled {
            return;
        }
        if let Some(next) = next {
            create.start_revision = create.start_revision.max(next);
        }
        // A watch from now that has seen nothing starts anew: it is another one.
        resumes = (create.start_revision > 0).then_some(log);
        member = *rng.pick(&world.addresses());
        world.host.sleep(rng.between(10_000, 500_000)).await;
    }
}

/// Where a client that saw this response goes on.
fn next_revision(response: &pb::WatchResponse, from_now: bool) -> Option<i64> {
    let header = response.header.as_ref()?;
    if response.created || response.canceled {
        // A watch from now begins behind what its member had then.
        return (response.created && from_now).then_some(header.revision + 1);
    }
    match response.events.last() {
        // The rest of a revision that was cut may still be missing.
        Some(event) if response.fragment => event.kv.as_ref().map(|kv| decoded(kv).mod_revision),
        Some(event) => event.kv.as_ref().map(|kv| decoded(kv).mod_revision + 1),
        None => Some(header.revision + 1),
    }
}
