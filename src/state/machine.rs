//! The machine: entries in, a batch and what came of them out.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    AlarmKind, Alarms, Applied, Command, ConfChange, LeaseChange, MARK_EVERY, Reply, Request,
    meta::{self, Meta},
};
use crate::{
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
            meta: Meta::load(tables)?,
        })
    }
}

impl<T: Tables> Machine<T> {
    /// The state that the tables hold.
    pub fn open(tables: T, config: Config) -> Result<Self, Fault> {
        let tables = Arc::new(tables);
        let store = Arc::new(Store::open(tables.clone(), config.store)?);
        let core = Core::load(&tables, &store, config)?;
        Ok(Self { tables, store, core })
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
            let first = batch.writes.len();
            self.core.apply_entry(entry, decode, &mut writer, &mut batch, &mut applied)?;
            self.core.meta.extend(entry.index, entry.term, &batch.writes[first..]);
            if entry.index.0.is_multiple_of(MARK_EVERY) {
                applied.marks.extend(self.mark());
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

impl Core {
    fn apply_entry<T: Tables>(
        &mut self,
        entry: &Entry,
        decode: &dyn Fn(&Bytes) -> Result<Request, Fault>,
        writer: &mut Writer<'_, T>,
        batch: &mut Batch,
        applied: &mut Applied,
    ) -> Result<(), Fault> {
        let (id, reply) = match &entry.payload {
            Payload::Empty => return Ok(()),
            Payload::Change(change) => {
                let id = match change {
                    Change::Single { id, .. } => *id,
                    Change::Joint { .. } => 0,
                };
                (id, self.apply_change(entry.index, change, batch, applied))
            }
            Payload::Command(bytes) => {
                let request = decode(bytes).map_err(|fault| at(entry.index, fault))?;
                let reply = self
                    .apply_command(&request.command, writer, batch, applied)
                    .map_err(|fault| at(entry.index, fault))?;
                (request.id, reply)
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
        command: &Command,
        writer: &mut Writer<'_, T>,
        batch: &mut Batch,
        applied: &mut Applied,
    ) -> Result<Result<Reply, Refusal>, Fault> {
        if let Err(refusal) = self.check_alarms(command) {
            return Ok(Err(refusal));
        }
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
            Command::Nothing => Ok(Reply::Done),
            Command::Unknown(what) => return Err(unknown(what)),
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
            | Command::Nothing
            | Command::Unknown(_) => (false, false),
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

fn unknown(what: &str) -> Fault {
    Fault::corrupt(format!(
        "the operation {what} is not known to this version; a member that applied it has another state. Run a \
         version that knows it"
    ))
}
