//! The machine: entries in, a batch and what came of them out.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    AlarmKind, Alarms, Applied, Command, ConfChange, LeaseChange, MARK_EVERY, Reply, Request,
    meta::{self, Meta},
};
use crate::{
    auth::{self, Need, Who},
    error::{Fault, Refusal},
    lease::Book,
    membership::{Change, Configuration, Roster},
    mvcc::{self, Op, Store, TxnRequest, Writer},
    raft::{Entry, Payload, StateMark},
    table::{Batch, Tables},
    types::{Index, LeaseId, Term},
};

/// How a machine is run. All but the store's limits must be the same on each member.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// How many learners the cluster may have.
    pub learners_max: usize,
    /// The store's limits.
    pub store: mvcc::Config,
}

impl Default for Config {
    fn default() -> Self {
        Self { learners_max: 1, store: mvcc::Config::default() }
    }
}

/// The replicated state: see the module's page. The store is shared with readers; the rest is the applier's,
/// who shows others what they need of it.
pub struct Machine<T: Tables> {
    tables: Arc<T>,
    store: Arc<Store<Arc<T>>>,
    core: Core,
}

/// All but the store.
struct Core {
    config: Config,
    leases: Book,
    roster: Roster,
    alarms: Alarms,
    auth: Arc<auth::Store>,
    meta: Meta,
}

impl Core {
    fn load<T: Tables>(tables: &Arc<T>, store: &Store<Arc<T>>, config: Config) -> Result<Self, Fault> {
        let mut leases = Book::load(tables)?;
        store.leased(&mut |lease, key| leases.bind(lease, key));
        Ok(Self {
            config,
            leases,
            roster: Roster::load(tables)?,
            alarms: Alarms::load(tables)?,
            auth: Arc::new(auth::Store::load(tables)?),
            meta: Meta::load(tables)?,
        })
    }
}

impl<T: Tables> Machine<T> {
    /// The state that the tables hold.
    pub fn open(tables: T, config: Config) -> Result<Self, Fault> {
        Ok(Self::open_from(tables, config, None)?.0)
    }

    /// The same with the help of a checkpoint of the index; see [`Store::open_from`].
    pub fn open_from(
        tables: T,
        config: Config,
        checkpoint: Option<&mut dyn Iterator<Item = Result<Bytes, Fault>>>,
    ) -> Result<(Self, Option<mvcc::Unusable>), Fault> {
        let tables = Arc::new(tables);
        let (store, unusable) = Store::open_from(tables.clone(), config.store, checkpoint)?;
        let store = Arc::new(store);
        let core = Core::load(&tables, &store, config)?;
        Ok((Self { tables, store, core }, unusable))
    }

    /// Reads all again, after a snapshot replaced the tables. Readers of the store see the new state at once.
    pub fn reload(&mut self) -> Result<(), Fault> {
        self.store.reload()?;
        self.core = Core::load(&self.tables, &self.store, self.core.config)?;
        Ok(())
    }

    /// Applies committed entries, which follow what is applied; those that are applied already are skipped.
    ///
    /// The batch must be written, and [`Machine::publish`] called, before the next run. After a fault the
    /// machine is of no more use: the node stops.
    pub fn apply(
        &mut self,
        entries: &[Entry],
        decode: &dyn Fn(&Bytes) -> Result<Request, Fault>,
    ) -> Result<(Batch, Applied), Fault> {
        self.apply_run(entries, decode, &|_| false)
    }

    /// The same, but as an entry that changes users and roles makes a run by itself: entries are left, for the
    /// next call, from the first on that is one, or behind it if it is the first that is due. Readers who look at
    /// users and roles before and after they have looked at the keys then know which were in force.
    pub fn apply_until_auth(
        &mut self,
        entries: &[Entry],
        decode: &dyn Fn(&Bytes) -> Result<Request, Fault>,
    ) -> Result<(Batch, Applied), Fault> {
        self.apply_run(entries, decode, &|command| match command {
            Command::Auth(action) => action.changes(),
            Command::Range(_)
            | Command::Put(_)
            | Command::Delete(_)
            | Command::Txn(_)
            | Command::Compact { .. }
            | Command::LeaseGrant { .. }
            | Command::LeaseRevoke { .. }
            | Command::LeaseCheckpoint(_)
            | Command::Alarm { .. }
            | Command::SetClusterVersion(_)
            | Command::SetMemberAttributes { .. }
            | Command::SetDowngrade { .. }
            | Command::Nothing => false,
        })
    }

    fn apply_run(
        &mut self,
        entries: &[Entry],
        decode: &dyn Fn(&Bytes) -> Result<Request, Fault>,
        alone: &dyn Fn(&Command) -> bool,
    ) -> Result<(Batch, Applied), Fault> {
        let mut batch = Batch::default();
        let mut applied = Applied::default();
        let mut writer = self.store.writer();
        let before = self.core.meta.applied;
        for entry in entries {
            if entry.index <= self.core.meta.applied {
                continue;
            }
            let due = self.core.meta.applied.next();
            assert!(entry.index == due, "entry {} is applied where {due} is due", entry.index);
            let task = Task::of(entry, decode)?;
            let alone = matches!(&task, Task::Request(request) if alone(&request.command));
            if alone && self.core.meta.applied > before {
                break;
            }
            let first = batch.writes.len();
            self.core.apply_entry(entry.index, task, &mut writer, &mut batch, &mut applied)?;
            self.core.meta.extend(entry.index, entry.term, &batch.writes[first..]);
            if entry.index.0.is_multiple_of(MARK_EVERY) {
                applied.marks.extend(self.mark());
            }
            if alone {
                break;
            }
        }
        let meta = &self.core.meta;
        if meta.applied > before {
            meta.store(!applied.changes.is_empty(), &mut batch);
        }
        applied.index = meta.applied;
        applied.term = meta.term;
        applied.revision = writer.revision();
        applied.mark = self.mark();
        Ok((batch, applied))
    }

    /// Shows readers of the store what has been applied; its batch has been written.
    pub fn publish(&self) {
        self.store.publish();
    }

    /// The keys and values, for readers.
    pub fn store(&self) -> &Arc<Store<Arc<T>>> {
        &self.store
    }

    /// The leases.
    pub fn leases(&self) -> &Book {
        &self.core.leases
    }

    /// The members.
    pub fn roster(&self) -> &Roster {
        &self.core.roster
    }

    /// The alarms.
    pub fn alarms(&self) -> &Alarms {
        &self.core.alarms
    }

    /// The users and roles.
    pub fn auth(&self) -> &Arc<auth::Store> {
        &self.core.auth
    }

    /// The configuration as of the applied index, as raft has it.
    pub fn configuration(&self) -> &Configuration {
        &self.core.meta.config
    }

    /// The last applied entry.
    pub fn applied(&self) -> Index {
        self.core.meta.applied
    }

    /// Its term.
    pub fn term(&self) -> Term {
        self.core.meta.term
    }

    /// The state hash there.
    pub fn mark(&self) -> Option<StateMark> {
        let meta = &self.core.meta;
        meta.hash.map(|hash| StateMark { index: meta.applied, hash })
    }
}

/// What an entry asks for.
enum Task<'a> {
    Nothing,
    Change(&'a Change),
    Request(Request),
}

impl<'a> Task<'a> {
    fn of(entry: &'a Entry, decode: &dyn Fn(&Bytes) -> Result<Request, Fault>) -> Result<Self, Fault> {
        Ok(match &entry.payload {
            Payload::Empty => Self::Nothing,
            Payload::Change(change) => Self::Change(change),
            Payload::Command(bytes) => Self::Request(decode(bytes).map_err(|fault| at(entry.index, fault))?),
        })
    }
}

impl Core {
    fn apply_entry<T: Tables>(
        &mut self,
        index: Index,
        task: Task<'_>,
        writer: &mut Writer<'_, T>,
        batch: &mut Batch,
        applied: &mut Applied,
    ) -> Result<(), Fault> {
        let (id, reply) = match task {
            Task::Nothing => return Ok(()),
            Task::Change(change) => {
                let id = match change {
                    Change::Single { id, .. } => *id,
                    Change::Joint { .. } => 0,
                };
                (id, self.apply_change(index, change, batch, applied))
            }
            Task::Request(Request { id, user, auth_revision, command }) => {
                let who = Who { user, revision: auth_revision };
                let reply = match self.check(&who, &command) {
                    Ok(()) => self
                        .apply_command(index, &command, writer, batch, applied)
                        .map_err(|fault| at(index, fault))?,
                    Err(refusal) => Err(refusal),
                };
                (id, reply)
            }
        };
        if id != 0 {
            applied.replies.push((id, reply));
        }
        Ok(())
    }

    fn apply_change(
        &mut self,
        index: Index,
        change: &Change,
        batch: &mut Batch,
        applied: &mut Applied,
    ) -> Result<Reply, Refusal> {
        let (members, change) = self.roster.apply_change(change, self.config.learners_max, batch);
        // Raft takes no change that is illegal from where it is, nor does this copy of its configuration.
        if let Ok(config) = self.meta.config.apply(&change) {
            self.meta.config = config;
        }
        applied.members_changed |= members.is_ok();
        applied.changes.push(ConfChange { index, change });
        members.map(Reply::Members)
    }

    /// The outer error stops the node, the inner one is the reply.
    fn apply_command<T: Tables>(
        &mut self,
        index: Index,
        command: &Command,
        writer: &mut Writer<'_, T>,
        batch: &mut Batch,
        applied: &mut Applied,
    ) -> Result<Result<Reply, Refusal>, Fault> {
        let (leases, events) = (&mut self.leases, &mut applied.events);
        let reply = match command {
            Command::Range(request) => writer.range(request).map(Reply::Range),
            Command::Put(request) => writer.put(request, leases, batch, events).map(Reply::Put),
            Command::Delete(request) => writer.delete(request, leases, batch, events).map(Reply::Delete),
            Command::Txn(request) => writer.txn(request, leases, batch, events).map(Reply::Txn),
            Command::Compact { revision } => match writer.compact(*revision, batch) {
                Ok(()) => {
                    applied.compacted = Some(*revision);
                    Ok(Reply::Compact)
                }
                Err(refusal) => Err(refusal.into()),
            },
            Command::LeaseGrant { id, ttl } => match leases.grant(*id, *ttl, batch) {
                Ok(ttl) => {
                    applied.leases.push(LeaseChange::Granted(*id, ttl));
                    Ok(Reply::LeaseGrant { id: *id, ttl })
                }
                Err(refusal) => Err(refusal.into()),
            },
            Command::LeaseRevoke { id } => self.revoke(*id, writer, batch, applied),
            Command::LeaseCheckpoint(checkpoints) => {
                for (id, remaining) in checkpoints {
                    if leases.checkpoint(*id, *remaining, batch) {
                        applied.leases.push(LeaseChange::Checkpointed(*id, *remaining));
                    }
                }
                Ok(Reply::LeaseCheckpoint)
            }
            Command::Alarm { action, alarm } => {
                let (alarms, changed) = self.alarms.act(*action, *alarm, batch);
                applied.alarms_changed |= changed;
                Ok(Reply::Alarms(alarms))
            }
            Command::SetClusterVersion(version) => {
                self.roster.set_version(version, batch);
                applied.members_changed = true;
                Ok(Reply::Done)
            }
            Command::SetMemberAttributes { id, name, client_urls } => {
                applied.members_changed |= self.roster.set_attributes(*id, name, client_urls, batch);
                Ok(Reply::Done)
            }
            Command::SetDowngrade { enabled, version } => {
                meta::put_downgrade(version, *enabled, batch);
                Ok(Reply::Done)
            }
            Command::Auth(action) => {
                let done = auth::Store::act(&mut self.auth, action, index, batch);
                applied.auth_changed |= done.is_ok() && action.changes();
                let done = done.map(|(outcome, session)| {
                    applied.sessions.extend(session);
                    Reply::Auth(outcome)
                });
                done.map_err(Into::into)
            }
            Command::Nothing => Ok(Reply::Done),
        };
        mvcc::Error::split(reply)
    }

    fn revoke<T: Tables>(
        &mut self,
        id: LeaseId,
        writer: &mut Writer<'_, T>,
        batch: &mut Batch,
        applied: &mut Applied,
    ) -> Result<Reply, mvcc::Error> {
        let keys = self.leases.revoke(id, batch)?;
        writer.delete_keys(&keys, &mut self.leases, batch, &mut applied.events)?;
        applied.leases.push(LeaseChange::Revoked(id));
        Ok(Reply::LeaseRevoke)
    }

    /// Whether a command may be done at all: the alarms first, then who asks, as in etcd.
    fn check(&self, who: &Who, command: &Command) -> Result<(), Refusal> {
        self.check_alarms(command)?;
        if !self.auth.enabled() {
            return Ok(());
        }
        self.auth.permits(who, &needs_of(command), &self.leases)
    }

    /// Whether the alarms let a command through.
    fn check_alarms(&self, command: &Command) -> Result<(), Refusal> {
        // Whether it is refused while data differ, and while space is short.
        let (corrupt, no_space) = match command {
            Command::Put(_) | Command::LeaseGrant { .. } => (true, true),
            Command::Txn(request) => (true, puts(request)),
            Command::Range(_)
            | Command::Delete(_)
            | Command::Compact { .. }
            | Command::LeaseRevoke { .. } => (true, false),
            Command::LeaseCheckpoint(_)
            | Command::Alarm { .. }
            | Command::SetClusterVersion(_)
            | Command::SetMemberAttributes { .. }
            | Command::SetDowngrade { .. }
            | Command::Auth(_)
            | Command::Nothing => (false, false),
        };
        if corrupt && self.alarms.any(AlarmKind::Corrupt) {
            return Err(Refusal::Corrupt);
        }
        if no_space && self.alarms.any(AlarmKind::NoSpace) {
            return Err(Refusal::NoSpace);
        }
        Ok(())
    }
}

/// What whoever asks must be allowed to do. What has no need here is checked before it is proposed, if at all, as in
/// etcd: it must not be refused where etcd has applied it.
fn needs_of(command: &Command) -> Vec<Need> {
    match command {
        Command::Range(request) => Need::of_range(request),
        Command::Put(request) => Need::of_put(request),
        Command::Delete(request) => Need::of_delete(request),
        Command::Txn(request) => Need::of_txn(request),
        Command::LeaseRevoke { id } => vec![Need::WriteLeased(*id)],
        Command::Auth(action) => Need::of_action(action),
        Command::Compact { .. }
        | Command::LeaseGrant { .. }
        | Command::LeaseCheckpoint(_)
        | Command::Alarm { .. }
        | Command::SetClusterVersion(_)
        | Command::SetMemberAttributes { .. }
        | Command::SetDowngrade { .. }
        | Command::Nothing => Vec::new(),
    }
}

/// Whether a transaction puts anything in either branch. As in etcd, nested transactions are not looked into.
fn puts(request: &TxnRequest) -> bool {
    request.success.iter().chain(&request.failure).any(|op| match op {
        Op::Put(_) => true,
        Op::Range(_) | Op::Delete(_) | Op::Txn(_) | Op::Missing => false,
    })
}

fn at(index: Index, fault: Fault) -> Fault {
    match fault {
        Fault::Corrupt(text) => Fault::Corrupt(format!("the log's entry {index}: {text}")),
        Fault::Io { .. } | Fault::Refused(_) => fault,
    }
}
