//! Shows in etcd's metrics what a member counts.

use std::sync::{Arc, Weak};

use prometheus::{Histogram, IntCounter};

use super::{
    member::Handle,
    metrics::Metrics,
    shared::Shared,
    stats::{Count, Observed},
};
use crate::{runtime::Production, state::AlarmKind, storage::Backend};

impl Handle<Production> {
    /// Has the member's metrics show what it counts, from now on.
    pub(super) fn feed_metrics(&self) {
        let metrics = self.metrics();
        self.listen(&metrics);
        let quota = self.shared.settings.limits.quota_bytes_max;
        metrics.server.quota_bytes.set(if quota == u64::MAX { 0 } else { gauge(quota) });
        // Weak, both: the member holds its metrics, and its metrics this.
        let (shared, shown) = (Arc::downgrade(&self.shared), Arc::downgrade(&metrics));
        metrics.on_scrape(move || refresh(&shared, &shown));
    }

    fn listen(&self, metrics: &Metrics) {
        let stats = &self.shared.stats;
        let seconds = |observed: &Observed, shown: &Histogram| listen(observed, shown, 1e6);
        seconds(&stats.wal_fsync_time, &metrics.disk.wal_fsync);
        seconds(&stats.commit_time, &metrics.disk.backend_commit);
        seconds(&stats.backend_snapshot_time, &metrics.disk.backend_snapshot);
        seconds(&stats.defrag_time, &metrics.disk.backend_defrag);
        // Writing such a small file is syncing it.
        let (save, fsync) = (metrics.disk.snap_save.clone(), metrics.disk.snap_fsync.clone());
        stats.snap_save_time.listen(move |micros| {
            save.observe(micros / 1e6);
            fsync.observe(micros / 1e6);
        });
        seconds(&stats.hash_time, &metrics.mvcc.hash_seconds);
        seconds(&stats.hash_kv_time, &metrics.mvcc.hash_rev_seconds);
        listen(&stats.compaction_pause_time, &metrics.mvcc.compaction_pause_ms, 1e3);
        listen(&stats.compaction_total_time, &metrics.mvcc.compaction_total_ms, 1e3);
        listen(&stats.lease_ttl, &metrics.lease.ttl, 1.0);
    }
}

/// Has a histogram show what is observed, in units of so many of the observed ones.
fn listen(observed: &Observed, shown: &Histogram, unit: f64) {
    let shown = shown.clone();
    observed.listen(move |value| shown.observe(value / unit));
}

/// A gauge's value; what is larger is shown as the largest.
fn gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Takes a counter to where the count is.
fn catch_up(shown: &IntCounter, count: &Count) {
    shown.inc_by(count.get().saturating_sub(shown.get()));
}

/// Takes all that is read when asked for to where it is now.
fn refresh(shared: &Weak<Shared<Production>>, metrics: &Weak<Metrics>) {
    let (Some(shared), Some(metrics)) = (shared.upgrade(), metrics.upgrade()) else { return };
    raft(&shared, &metrics);
    server(&shared, &metrics);
    mvcc(&shared, &metrics);
    let (stats, lease) = (&shared.stats, &metrics.lease);
    catch_up(&lease.granted, &stats.leases_granted);
    catch_up(&lease.renewed, &stats.leases_renewed);
    catch_up(&lease.revoked, &stats.leases_revoked);
    catch_up(&lease.expired, &stats.leases_expired);
}

fn raft(shared: &Shared<Production>, metrics: &Metrics) {
    let (facts, stats, raft) = (&shared.facts, &shared.stats, &metrics.raft);
    let leader = *facts.leader.borrow();
    raft.has_leader.set(leader.is_some().into());
    raft.is_leader.set((leader == Some(shared.me)).into());
    raft.is_learner.set(shared.is_learner().into());
    catch_up(&raft.leader_changes, &stats.leader_changes);
    catch_up(&raft.heartbeat_failures, &stats.heartbeat_failures);
    raft.proposals_committed.set(gauge(facts.committed().0));
    raft.proposals_applied.set(gauge(facts.applied().0));
    raft.proposals_pending.set(gauge(stats.proposals_pending.get()));
    catch_up(&raft.proposals_failed, &stats.proposals_failed);
    catch_up(&raft.slow_read_indexes, &stats.slow_reads);
    catch_up(&raft.read_indexes_failed, &stats.failed_reads);
    catch_up(&raft.learner_promote_successes, &stats.promotions);
}

fn server(shared: &Shared<Production>, metrics: &Metrics) {
    let (stats, server) = (&shared.stats, &metrics.server);
    let view = shared.facts.view();
    if let Some(version) = view.roster.version() {
        metrics.set_cluster_version(version);
    }
    server.alarms.reset();
    for alarm in &view.alarms {
        let kind = match alarm.kind {
            AlarmKind::None => "NONE",
            AlarmKind::NoSpace => "NOSPACE",
            AlarmKind::Corrupt => "CORRUPT",
        };
        server.alarms.with_label_values(&[alarm.member.to_string().as_str(), kind]).set(1);
    }
    server.auth_revision.set(gauge(shared.sessions.store().revision()));
    server.snapshot_apply_in_progress.set(gauge(stats.snapshot_applies.get()));
    metrics.disk.wal_write_bytes.set(gauge(stats.wal_bytes.get()));
    metrics.disk.defrag_inflight.set(gauge(stats.defrags.get()));
}

fn mvcc(shared: &Shared<Production>, metrics: &Metrics) {
    let (stats, mvcc) = (&shared.stats, &metrics.mvcc);
    catch_up(&mvcc.range, &stats.ranges);
    catch_up(&mvcc.range_debugging, &stats.ranges);
    catch_up(&mvcc.put, &stats.puts);
    catch_up(&mvcc.delete, &stats.deletes);
    catch_up(&mvcc.txn, &stats.txns);
    mvcc.put_bytes.set(gauge(stats.put_bytes.get()));
    mvcc.keys.set(gauge(stats.keys.get()));
    // A size that can't be read stops nothing here: the next write will.
    if let (Ok(size), Ok(used)) = (shared.backend.size(), shared.backend.size_in_use()) {
        mvcc.db_size.set(gauge(size));
        mvcc.db_size_in_use.set(gauge(used));
    }
    mvcc.current_revision.set(shared.store.revision().0);
    mvcc.compact_revision.set(shared.store.compacted().0);
    catch_up(&mvcc.compaction_keys, &stats.compaction_keys);
    mvcc.compaction_last.set(gauge(stats.compaction_last.get()));
    catch_up(&mvcc.events, &stats.events_sent);
    mvcc.watch_streams.set(gauge(stats.watch_streams.get()));
    mvcc.watchers.set(gauge(stats.watchers.get()));
    mvcc.slow_watchers.set(gauge(stats.slow_watchers.get()));
}
