//! What the workers count: plain atomics, and listeners for durations.
//!
//! It is fed under every runtime; whoever shows it (`feed` in production) reads the counts when asked and
//! listens to the durations. Where nobody listens, a duration costs one load.

use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use crate::{
    mvcc::{Event, OpResponse, TxnResponse},
    runtime::Clock,
    state::{LeaseChange, Reply},
};

/// A number that goes up, or is set.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    pub fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// One more for as long as this lives.
pub(super) struct During<'a>(&'a Count);

impl<'a> During<'a> {
    pub fn of(count: &'a Count) -> Self {
        count.add(1);
        Self(count)
    }
}

impl Drop for During<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Relaxed);
    }
}

/// Who hears of each observation.
type Listener = Box<dyn Fn(f64) + Send + Sync>;

/// Observations of one kind, durations in microseconds among them.
#[derive(Default)]
pub(super) struct Observed(OnceLock<Listener>);

impl Observed {
    /// From now on `listener` hears; the first one stays.
    pub fn listen(&self, listener: impl Fn(f64) + Send + Sync + 'static) {
        drop(self.0.set(Box::new(listener)));
    }

    pub fn tell(&self, value: f64) {
        if let Some(listener) = self.0.get() {
            listener(value);
        }
    }

    /// Does `work` and tells how long it took, in microseconds.
    pub fn time<T>(&self, clock: &impl Clock, work: impl FnOnce() -> T) -> T {
        let start = clock.micros();
        let done = work();
        self.tell(clock.micros().saturating_sub(start) as f64);
        done
    }
}

/// All that is counted. A `_time` is in microseconds.
#[derive(Default)]
pub(super) struct Stats {
    pub leader_changes: Count,
    pub heartbeat_failures: Count,
    pub proposals_pending: Count,
    pub proposals_failed: Count,
    pub slow_reads: Count,
    pub failed_reads: Count,
    pub promotions: Count,
    pub snapshot_applies: Count,
    pub wal_bytes: Count,
    pub wal_fsync_time: Observed,
    pub commit_time: Observed,
    pub backend_snapshot_time: Observed,
    pub defrag_time: Observed,
    pub defrags: Count,
    pub snap_save_time: Observed,
    pub ranges: Count,
    pub puts: Count,
    pub deletes: Count,
    pub txns: Count,
    pub put_bytes: Count,
    pub keys: Count,
    pub hash_time: Observed,
    pub hash_kv_time: Observed,
    pub compaction_keys: Count,
    pub compaction_last: Count,
    pub compaction_pause_time: Observed,
    pub compaction_total_time: Observed,
    pub events_sent: Count,
    pub watch_streams: Count,
    pub watchers: Count,
    pub slow_watchers: Count,
    pub leases_granted: Count,
    pub leases_renewed: Count,
    pub leases_revoked: Count,
    pub leases_expired: Count,
    /// Seconds.
    pub lease_ttl: Observed,
}

impl Stats {
    /// Counts what a run of commands did to the store, and the events that it made. The end of a lease deletes
    /// each of its keys.
    pub fn note_run<'r>(&self, replies: impl Iterator<Item = &'r Reply>, events: &[Event]) {
        let asked: u64 = replies.map(|reply| self.note_reply(reply)).sum();
        let deleted = self.note_events(events);
        self.deletes.add(deleted.saturating_sub(asked));
    }

    /// Counts a command; returns how many keys it was asked to delete and did.
    fn note_reply(&self, reply: &Reply) -> u64 {
        match reply {
            Reply::Range(_) => self.ranges.add(1),
            Reply::Put(_) => self.puts.add(1),
            Reply::Delete(done) => {
                self.deletes.add(1);
                return done.deleted as u64;
            }
            Reply::Txn(done) => return self.note_txn(done),
            Reply::Compact
            | Reply::LeaseGrant { .. }
            | Reply::LeaseRevoke
            | Reply::LeaseCheckpoint
            | Reply::Alarms(_)
            | Reply::Members(_)
            | Reply::Auth(_)
            | Reply::Done => {}
        }
        0
    }

    /// Counts each operation of a transaction, and itself if it has more than one; returns how many keys it deleted.
    pub fn note_txn(&self, done: &TxnResponse) -> u64 {
        let (ops, deleted) = self.note_ops(done);
        self.txns.add(u64::from(ops > 1));
        deleted
    }

    fn note_ops(&self, done: &TxnResponse) -> (u64, u64) {
        let (mut ops, mut deleted) = (0, 0);
        for response in &done.responses {
            ops += 1;
            match response {
                OpResponse::Range(_) => self.ranges.add(1),
                OpResponse::Put(_) => self.puts.add(1),
                OpResponse::Delete(done) => {
                    self.deletes.add(1);
                    deleted += done.deleted as u64;
                }
                OpResponse::Txn(nested) => {
                    let (inner, also_deleted) = self.note_ops(nested);
                    (ops, deleted) = (ops - 1 + inner, deleted + also_deleted);
                }
            }
        }
        (ops, deleted)
    }

    /// Counts changes of keys; returns how many were deleted.
    fn note_events(&self, events: &[Event]) -> u64 {
        let mut deleted = 0;
        for event in events {
            if event.deleted {
                deleted += 1;
                self.keys.0.fetch_sub(1, Relaxed);
            } else if let Ok(kv) = event.kv.decode() {
                self.put_bytes.add((kv.key.len() + kv.value.len()) as u64);
                self.keys.add(u64::from(kv.version == 1));
            }
        }
        deleted
    }

    /// Counts changes of leases.
    pub fn note_leases(&self, changes: &[LeaseChange]) {
        for change in changes {
            match change {
                LeaseChange::Granted(_, seconds) => {
                    self.leases_granted.add(1);
                    self.lease_ttl.tell(*seconds as f64);
                }
                LeaseChange::Revoked(_) => self.leases_revoked.add(1),
                LeaseChange::Checkpointed(..) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        mvcc::{DeleteResponse, KvBytes, PutResponse, RangeResponse},
        types::{KeyValue, LeaseId, SubRevision},
    };

    fn event(version: i64, deleted: bool) -> Event {
        let kv = KeyValue { key: "key".into(), value: "value".into(), version, ..KeyValue::default() };
        Event { key: "key".into(), deleted, at: SubRevision::default(), kv: KvBytes::encode(&kv) }
    }

    #[test]
    fn a_transaction_counts_its_operations_and_itself_if_they_are_many() {
        let stats = Stats::default();
        let counted = || (stats.ranges.get(), stats.puts.get(), stats.deletes.get(), stats.txns.get());
        let put = || OpResponse::Put(PutResponse::default());
        let txn = |responses| TxnResponse { responses, ..TxnResponse::default() };
        stats.note_reply(&Reply::Txn(txn(vec![put()])));
        assert_eq!(counted(), (0, 1, 0, 0));
        let nested = OpResponse::Txn(txn(vec![OpResponse::Range(RangeResponse::default())]));
        stats.note_reply(&Reply::Txn(txn(vec![put(), nested])));
        assert_eq!(counted(), (1, 2, 0, 1));
        stats.note_reply(&Reply::Txn(txn(vec![])));
        assert_eq!(counted(), (1, 2, 0, 1));
    }

    #[test]
    fn keys_are_counted_as_they_come_and_go() {
        let stats = Stats::default();
        let events = [event(1, false), event(2, false), event(0, true), event(1, false), event(0, true)];
        let asked = Reply::Delete(DeleteResponse { deleted: 1, ..DeleteResponse::default() });
        stats.note_run([asked, Reply::LeaseRevoke].iter(), &events);
        assert_eq!((stats.keys.get(), stats.put_bytes.get()), (0, 24));
        assert_eq!(stats.deletes.get(), 2, "the one that was asked for, and the one by a lease's end");
    }

    #[test]
    fn what_lasts_is_counted_while_it_does() {
        let stats = Stats::default();
        let pending = During::of(&stats.proposals_pending);
        assert_eq!(stats.proposals_pending.get(), 1);
        drop(pending);
        assert_eq!(stats.proposals_pending.get(), 0);
    }

    #[test]
    fn the_first_listener_hears() {
        let stats = Stats::default();
        let heard = std::sync::Arc::new(Count::default());
        stats.note_leases(&[LeaseChange::Granted(LeaseId(1), 5)]);
        for _ in 0..2 {
            let heard = heard.clone();
            stats.lease_ttl.listen(move |seconds| heard.add(seconds as u64));
        }
        stats.note_leases(&[LeaseChange::Granted(LeaseId(2), 7), LeaseChange::Revoked(LeaseId(1))]);
        assert_eq!((heard.get(), stats.leases_granted.get(), stats.leases_revoked.get()), (7, 2, 1));
    }
}
