//! What clients do: plans' steps made into calls, with what only the run can know.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use bytes::Bytes;
use kontiki::wire::{
    authpb,
    etcdserverpb::{self as pb, compare::TargetUnion, request_op::Request as OpRequest},
};

use crate::{
    client::{Client, ROOT},
    history::{Call, Outcome},
    host::{Host, Micros, Process},
    lock::lock,
    net::Address,
    plan::{
        Action, AuthStep, CompareStep, OpStep, Plan, PutStep, RangeStep, Rev, Span, Step, StreamStep,
        TxnStep, WatchStep,
    },
    rng::Rng,
    sessions::lead_request,
    stream::{Reading, Wanted, keep_watching},
    world::World,
};

/// Lease ids of the run's slots begin here.
const LEASES: i64 = 1_000;

/// One client at its work.
pub struct Worker<H: Host> {
    pub(crate) world: World<H>,
    pub(crate) client: Client<H>,
    pub(crate) rng: Rng,
    /// Whom it talks to.
    pub(crate) member: Address,
    /// The newest revision it has seen.
    seen: i64,
    /// Makes its values unlike all others.
    written: u64,
    shared: Arc<Shared>,
    /// When it stops.
    pub(crate) until: Micros,
}

/// What the clients of a run share.
#[derive(Debug, Default)]
pub struct Shared {
    /// How often each lease slot was granted: each grant has an id of its own.
    leases: Mutex<BTreeMap<u8, i64>>,
}

impl Shared {
    fn leases(&self) -> MutexGuard<'_, BTreeMap<u8, i64>> {
        lock(&self.leases)
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

fn user_name(user: u8) -> String {
    if user == 0 { ROOT.to_owned() } else { format!("u{user}") }
}

fn role_name(role: u8) -> String {
    if role == 0 { ROOT.to_owned() } else { format!("r{role}") }
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
    pub fn new(world: World<H>, client: Client<H>, plan: &Plan, shared: Arc<Shared>) -> Self {
        let rng = Rng::of(plan.seed, &format!("client {}", client.number));
        let member = world.anywhere(&rng).expect("a cluster has members when its clients begin");
        Self { world, client, rng, member, seen: 1, written: 0, shared, until: plan.calm_from }
    }

    /// Does all steps, or as many as there is time for.
    pub async fn work(mut self, steps: Vec<Step>) {
        for step in steps {
            self.world.host.sleep(step.wait).await;
            if self.world.host.now() >= self.until {
                return;
            }
            self.step(step.action).await;
        }
    }

    async fn step(&mut self, action: Action) {
        let call: Call = match action {
            Action::Range(step) => self.range(&step).into(),
            Action::Put(step) => self.put(&step).into(),
            Action::Delete { span, prev_kv } => delete(span, prev_kv).into(),
            Action::Txn(step) => self.txn(&step).into(),
            Action::Compact { rev, physical, hash } => {
                self.call(pb::CompactionRequest { revision: self.rev(rev), physical }).await;
                if hash {
                    self.hash_all(Rev::Back(0)).await;
                }
                return;
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
            Action::Lock { name, ttl, hold } => return self.lock(name, ttl, hold).await,
            Action::Turn(step) => return self.take_turn(&step).await,
            Action::Sessions(step) => return self.hold_leases(&step),
            Action::Leader { name } => lead_request(name),
            Action::HashAll { rev } => return self.hash_all(rev).await,
            Action::Auth(step) => return self.change_users(step).await,
            Action::Become { user } => return self.client.become_user(user.map(user_name)),
            Action::Move { to } => {
                self.member = to;
                return;
            }
        };
        self.call(call).await;
    }

    pub(crate) async fn call(&mut self, call: impl Into<Call>) -> Outcome {
        let outcome = self.client.call(self.member, call).await;
        match &outcome {
            Outcome::Ok(reply) => {
                self.seen = self.seen.max(reply.header().map_or(0, |header| header.revision));
            }
            Outcome::Refused { .. } => {}
            // As clients do: what does not answer is left for another.
            Outcome::Unknown(_) => self.member = self.world.anywhere(&self.rng).unwrap_or(self.member),
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
    fn watch(&self, step: &StreamStep) {
        let wanted = step.watches.iter().map(|watch| self.wanted(watch)).collect();
        let reading = Reading {
            // Beyond the end of any run, or after a while.
            until: step.span_micros.map_or(Micros::MAX, |span| self.world.host.now() + span),
            slow: step.slow,
            slow_until: self.until,
            ask_progress: step.ask_progress,
        };
        let (world, client) = (self.world.clone(), self.client.clone());
        let watching = keep_watching(world, client, self.rng.clone(), self.member, wanted, reading);
        self.world.host.spawn(Process::WORLD, Box::pin(watching));
    }

    fn wanted(&self, step: &WatchStep) -> Wanted {
        let (key, range_end) = bounds(step.span);
        let create = pb::WatchCreateRequest {
            key,
            range_end,
            start_revision: self.rev(step.rev),
            progress_notify: step.progress,
            filters: step.filters.clone(),
            prev_kv: step.prev_kv,
            watch_id: step.id,
            fragment: step.fragment,
        };
        Wanted::later(create, step.wait, step.cancel, step.again)
    }

    /// Asks all members for the hash at one revision, one after the other.
    async fn hash_all(&mut self, rev: Rev) {
        let revision = self.rev(rev);
        for member in self.world.living() {
            self.client.call(member, pb::HashKvRequest { revision }).await;
        }
    }

    /// A change of users or roles, or a question. Whoever changed them wants to know what came of it.
    async fn change_users(&mut self, step: AuthStep) {
        let asks = matches!(
            step,
            AuthStep::Status
                | AuthStep::UserGet { .. }
                | AuthStep::UserList
                | AuthStep::RoleGet { .. }
                | AuthStep::RoleList
        );
        let call = self.auth(step);
        if self.call(call).await.is_unknown() && !asks {
            self.call(pb::AuthStatusRequest {}).await;
        }
    }

    fn auth(&self, step: AuthStep) -> Call {
        match step {
            AuthStep::Enable => pb::AuthEnableRequest {}.into(),
            AuthStep::Disable => pb::AuthDisableRequest {}.into(),
            AuthStep::Status => pb::AuthStatusRequest {}.into(),
            AuthStep::UserAdd { user } => {
                let name = user_name(user);
                let password = self.client.new_password(&name);
                pb::AuthUserAddRequest { name, password, ..Default::default() }.into()
            }
            AuthStep::UserDelete { user } => pb::AuthUserDeleteRequest { name: user_name(user) }.into(),
            AuthStep::Password { user } => {
                let name = user_name(user);
                let password = self.client.new_password(&name);
                pb::AuthUserChangePasswordRequest { name, password, ..Default::default() }.into()
            }
            AuthStep::GrantRole { user, role } => {
                pb::AuthUserGrantRoleRequest { user: user_name(user), role: role_name(role) }.into()
            }
            AuthStep::RevokeRole { user, role } => {
                pb::AuthUserRevokeRoleRequest { name: user_name(user), role: role_name(role) }.into()
            }
            AuthStep::UserGet { user } => pb::AuthUserGetRequest { name: user_name(user) }.into(),
            AuthStep::UserList => pb::AuthUserListRequest {}.into(),
            AuthStep::RoleAdd { role } => pb::AuthRoleAddRequest { name: role_name(role) }.into(),
            AuthStep::RoleDelete { role } => pb::AuthRoleDeleteRequest { role: role_name(role) }.into(),
            AuthStep::Permit { role, span, access } => {
                let (key, range_end) = bounds(span);
                let perm = Some(authpb::Permission { perm_type: access, key, range_end });
                pb::AuthRoleGrantPermissionRequest { name: role_name(role), perm }.into()
            }
            AuthStep::Forbid { role, span } => {
                let (key, range_end) = bounds(span);
                pb::AuthRoleRevokePermissionRequest { role: role_name(role), key, range_end }.into()
            }
            AuthStep::RoleGet { role } => pb::AuthRoleGetRequest { role: role_name(role) }.into(),
            AuthStep::RoleList => pb::AuthRoleListRequest {}.into(),
        }
    }
}

fn delete(span: Span, prev_kv: bool) -> pb::DeleteRangeRequest {
    let (key, range_end) = bounds(span);
    pb::DeleteRangeRequest { key, range_end, prev_kv }
}
