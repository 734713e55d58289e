//! What the member counts, under etcd's names (`contract/metrics.md`), so that dashboards and alerts stay.
//!
//! Counting is one atomic addition: the fields are handles into the registry, and a label's child is looked
//! up once and kept (`with_label_values` is for rare events). What is cheap to ask and changes all the time
//! (indices, sizes) need not be pushed: [`Metrics::on_scrape`] takes a closure that sets it when a page is
//! asked for.
//!
//! ```text
//! let metrics = Metrics::new(id, "3.5.21", false);
//! metrics.disk.wal_fsync.observe(0.0007);
//! metrics.raft.has_leader.set(1);
//! let page = metrics.render();
//! ```
//!
//! Left out: what only Go or bbolt has (`go_*`, rebalance, spill) and the v2 store's families.

mod grpc;
mod process;

use std::sync::{Mutex, PoisonError};

pub use grpc::{Counted, GrpcMetrics};
use process::Process;
pub(crate) use process::file_descriptor_limit;
use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder, core::Collector,
};

use crate::types::NodeId;

/// The media type of a page of metrics.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Registers families. Names are unique and well formed by this file's text, which the tests register.
pub(crate) struct Builder<'a>(&'a Registry);

impl Builder<'_> {
    fn add<C: Collector + Clone + 'static>(&self, made: prometheus::Result<C>) -> C {
        let collector = made.expect("names and buckets in this file are well formed");
        self.0.register(Box::new(collector.clone())).expect("each name in this file stands once");
        collector
    }

    fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.add(IntCounter::new(name, help))
    }

    fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.add(IntGauge::new(name, help))
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.add(IntCounterVec::new(Opts::new(name, help), labels))
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.add(IntGaugeVec::new(Opts::new(name, help), labels))
    }

    fn histogram(&self, name: &str, help: &str, buckets: Vec<f64>) -> Histogram {
        self.add(Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets)))
    }

    fn histograms(&self, name: &str, help: &str, labels: &[&str], buckets: Vec<f64>) -> HistogramVec {
        self.add(HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets), labels))
    }
}

/// `count` bounds from `start`, each twice the one before.
fn doubling(start: f64, count: usize) -> Vec<f64> {
    std::iter::successors(Some(start), |bound| Some(bound * 2.0)).take(count).collect()
}

/// A struct of families: a field's help is its documentation.
macro_rules! families {
    ($(#[$doc:meta])* $group:ident {
        $($field:ident: $kind:ident = $make:ident($name:literal, $help:literal $(, $more:expr)*);)*
    }) => {
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $group {
            $(#[doc = $help] pub $field: $kind,)*
        }

        impl $group {
            fn new(builder: &Builder<'_>) -> Self {
                Self { $($field: builder.$make($name, $help $(, $more)*),)* }
            }
        }
    };
}
pub(crate) use families;

families! {
    /// The member and its part in the cluster.
    RaftMetrics {
        has_leader: IntGauge = gauge("etcd_server_has_leader", "Whether a leader is known: 1 or 0.");
        is_leader: IntGauge = gauge("etcd_server_is_leader", "Whether this member leads: 1 or 0.");
        is_learner: IntGauge = gauge("etcd_server_is_learner", "Whether this member is a learner: 1 or 0.");
        leader_changes: IntCounter = counter("etcd_server_leader_changes_seen_total", "Changes of leader seen.");
        heartbeat_failures: IntCounter =
            counter("etcd_server_heartbeat_send_failures_total", "Heartbeats that the leader sent too late.");
        proposals_committed: IntGauge = gauge("etcd_server_proposals_committed_total", "The commit index.");
        proposals_applied: IntGauge = gauge("etcd_server_proposals_applied_total", "The applied index.");
        proposals_pending: IntGauge = gauge("etcd_server_proposals_pending", "Proposals that wait for a result.");
        proposals_failed: IntCounter = counter("etcd_server_proposals_failed_total", "Proposals that failed.");
        slow_read_indexes: IntCounter = counter(
            "etcd_server_slow_read_indexes_total", "Linearizable reads whose confirmation was late once.");
        read_indexes_failed: IntCounter =
            counter("etcd_server_read_indexes_failed_total", "Linearizable reads that got no confirmation.");
        learner_promote_failures: IntCounterVec = counters(
            "etcd_server_learner_promote_failures", "Learners that were not promoted, by reason.", &["Reason"]);
        learner_promote_successes: IntCounter =
            counter("etcd_server_learner_promote_successes", "Learners promoted.");
    }
}

families! {
    /// The server around it.
    ServerMetrics {
        id: IntGaugeVec = gauges("etcd_server_id", "1 for this member's id.", &["server_id"]);
        version: IntGaugeVec = gauges("etcd_server_version", "1 for the server's version.", &["server_version"]);
        cluster_version: IntGaugeVec = gauges(
            "etcd_cluster_version", "1 for the cluster's version, MAJOR.MINOR.", &["cluster_version"]);
        health_success: IntCounter = counter("etcd_server_health_success", "Good answers of /health.");
        health_failures: IntCounter = counter("etcd_server_health_failures", "Bad answers of /health.");
        healthcheck: IntGaugeVec = gauges(
            "etcd_server_healthcheck", "The newest result of a check of livez or readyz: 1 or 0.",
            &["type", "name"]);
        healthchecks: IntCounterVec = counters(
            "etcd_server_healthchecks_total", "Results of the checks of livez and readyz.",
            &["type", "name", "status"]);
        quota_bytes: IntGauge = gauge("etcd_server_quota_backend_bytes", "The quota of the store in bytes.");
        slow_applies: IntCounter =
            counter("etcd_server_slow_apply_total", "Entries that took longer to apply than the warning limit.");
        apply_seconds: HistogramVec = histograms(
            "etcd_server_apply_duration_seconds", "Time to apply an entry.", &["version", "op", "success"],
            doubling(0.0001, 20));
        snapshot_apply_in_progress: IntGauge = gauge(
            "etcd_server_snapshot_apply_in_progress_total", "1 while a received snapshot is taken over.");
        range_seconds: HistogramVec = histograms(
            "etcd_server_range_duration_seconds", "Time of a range.", &["success"], doubling(0.0001, 20));
        alarms: IntGaugeVec = gauges(
            "etcd_debugging_server_alarms", "1 for each active alarm.", &["server_id", "alarm_type"]);
        auth_revision: IntGauge = gauge("etcd_debugging_auth_revision", "The revision of users and roles.");
    }
}

families! {
    /// Log, tables and snapshots on the disk.
    DiskMetrics {
        wal_fsync: Histogram = histogram(
            "etcd_disk_wal_fsync_duration_seconds", "Time of a sync of the log.", doubling(0.001, 14));
        wal_write: Histogram = histogram(
            "etcd_disk_wal_write_duration_seconds", "Time of a write to the log.", doubling(0.001, 14));
        wal_write_bytes: IntGauge = gauge("etcd_disk_wal_write_bytes_total", "Bytes written to the log.");
        backend_commit: Histogram = histogram(
            "etcd_disk_backend_commit_duration_seconds", "Time of a commit of the tables.", doubling(0.001, 14));
        backend_snapshot: Histogram = histogram(
            "etcd_disk_backend_snapshot_duration_seconds", "Time that a snapshot of the tables was held.",
            doubling(0.01, 17));
        backend_defrag: Histogram = histogram(
            "etcd_disk_backend_defrag_duration_seconds", "Time of a defragmentation.", doubling(0.1, 13));
        defrag_inflight: IntGauge = gauge("etcd_disk_defrag_inflight", "1 while defragmenting.");
        snap_fsync: Histogram = histogram(
            "etcd_snap_fsync_duration_seconds", "Time of a sync of a snapshot file.", doubling(0.001, 14));
        snap_db_fsync: Histogram = histogram(
            "etcd_snap_db_fsync_duration_seconds", "Time of a sync of a received snapshot's body.",
            doubling(0.001, 14));
        snap_db_save: Histogram = histogram(
            "etcd_snap_db_save_total_duration_seconds", "Time to receive and keep a snapshot's body.",
            doubling(0.1, 10));
        snap_save: Histogram = histogram(
            "etcd_debugging_snap_save_total_duration_seconds", "Time to write a snapshot file.",
            doubling(0.001, 14));
        snap_marshal: Histogram = histogram(
            "etcd_debugging_snap_save_marshalling_duration_seconds", "Time to encode a snapshot file.",
            doubling(0.001, 14));
    }
}

families! {
    /// The links to clients' and other members' machines.
    NetworkMetrics {
        active_peers: IntGaugeVec = gauges(
            "etcd_network_active_peers", "1 for each peer that is connected.", &["Local", "Remote"]);
        known_peers: IntGaugeVec = gauges(
            "etcd_network_known_peers", "1 for each peer of the configuration.", &["Local", "Remote"]);
        disconnected_peers: IntCounterVec = counters(
            "etcd_network_disconnected_peers_total", "Links to peers that broke.", &["Local", "Remote"]);
        peer_sent_bytes: IntCounterVec =
            counters("etcd_network_peer_sent_bytes_total", "Bytes sent to a peer.", &["To"]);
        peer_received_bytes: IntCounterVec =
            counters("etcd_network_peer_received_bytes_total", "Bytes received from a peer.", &["From"]);
        peer_sent_failures: IntCounterVec = counters(
            "etcd_network_peer_sent_failures_total", "Messages to a peer that were dropped.", &["To"]);
        peer_received_failures: IntCounterVec = counters(
            "etcd_network_peer_received_failures_total", "Receptions from a peer that failed.", &["From"]);
        peer_round_trip: HistogramVec = histograms(
            "etcd_network_peer_round_trip_time_seconds", "Round trip to a peer.", &["To"], doubling(0.0001, 16));
        snapshot_sends: IntGaugeVec = gauges(
            "etcd_network_snapshot_send_inflights_total", "Snapshots being sent.", &["To"]);
        snapshot_send_success: IntCounterVec =
            counters("etcd_network_snapshot_send_success", "Snapshots sent.", &["To"]);
        snapshot_send_failures: IntCounterVec =
            counters("etcd_network_snapshot_send_failures", "Snapshots that could not be sent.", &["To"]);
        snapshot_send_seconds: HistogramVec = histograms(
            "etcd_network_snapshot_send_total_duration_seconds", "Time to send a snapshot.", &["To"],
            doubling(0.1, 10));
        snapshot_receives: IntGaugeVec = gauges(
            "etcd_network_snapshot_receive_inflights_total", "Snapshots being received.", &["From"]);
        snapshot_receive_success: IntCounterVec =
            counters("etcd_network_snapshot_receive_success", "Snapshots received.", &["From"]);
        snapshot_receive_failures: IntCounterVec =
            counters("etcd_network_snapshot_receive_failures", "Snapshots that did not come whole.", &["From"]);
        snapshot_receive_seconds: HistogramVec = histograms(
            "etcd_network_snapshot_receive_total_duration_seconds", "Time to receive a snapshot.", &["From"],
            doubling(0.1, 10));
        stream_failures: IntCounterVec = counters(
            "etcd_network_server_stream_failures_total", "Clients' streams that broke.", &["Type", "API"]);
    }
}

families! {
    /// The store of keys.
    MvccMetrics {
        range: IntCounter = counter("etcd_mvcc_range_total", "Ranges.");
        put: IntCounter = counter("etcd_mvcc_put_total", "Puts.");
        delete: IntCounter = counter("etcd_mvcc_delete_total", "Deletions of ranges.");
        txn: IntCounter = counter("etcd_mvcc_txn_total", "Transactions of more than one operation.");
        range_debugging: IntCounter = counter("etcd_debugging_mvcc_range_total", "Ranges, by the older name.");
        db_size: IntGauge = gauge("etcd_mvcc_db_total_size_in_bytes", "Bytes that the store takes.");
        db_size_in_use: IntGauge = gauge("etcd_mvcc_db_total_size_in_use_in_bytes", "Bytes in use of them.");
        open_reads: IntGauge = gauge("etcd_mvcc_db_open_read_transactions", "Reads under way.");
        hash_seconds: Histogram =
            histogram("etcd_mvcc_hash_duration_seconds", "Time of Hash.", doubling(0.01, 15));
        hash_rev_seconds: Histogram =
            histogram("etcd_mvcc_hash_rev_duration_seconds", "Time of HashKV.", doubling(0.01, 15));
        keys: IntGauge = gauge("etcd_debugging_mvcc_keys_total", "Keys.");
        current_revision: IntGauge = gauge("etcd_debugging_mvcc_current_revision", "The newest revision.");
        compact_revision: IntGauge = gauge("etcd_debugging_mvcc_compact_revision", "The compacted revision.");
        put_bytes: IntGauge = gauge(
            "etcd_debugging_mvcc_total_put_size_in_bytes", "Bytes of keys and values that were put.");
        compaction_keys: IntCounter = counter(
            "etcd_debugging_mvcc_db_compaction_keys_total", "Revisions that compactions dropped.");
        compaction_last: IntGauge = gauge(
            "etcd_debugging_mvcc_db_compaction_last", "When the newest compaction ended, seconds since 1970.");
        compaction_pause_ms: Histogram = histogram(
            "etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds", "Time of one step of a compaction.",
            doubling(1.0, 13));
        compaction_total_ms: Histogram = histogram(
            "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds", "Time of a compaction.",
            doubling(100.0, 14));
        index_compaction_pause_ms: Histogram = histogram(
            "etcd_debugging_mvcc_index_compaction_pause_duration_milliseconds",
            "Time that a compaction held the index.", doubling(0.5, 14));
        events: IntCounter = counter("etcd_debugging_mvcc_events_total", "Events sent to watchers.");
        pending_events: IntGauge = gauge("etcd_debugging_mvcc_pending_events_total", "Events not yet sent.");
        watch_streams: IntGauge = gauge("etcd_debugging_mvcc_watch_stream_total", "Open streams of watches.");
        watchers: IntGauge = gauge("etcd_debugging_mvcc_watcher_total", "Watchers.");
        slow_watchers: IntGauge = gauge("etcd_debugging_mvcc_slow_watcher_total", "Watchers that are behind.");
    }
}

families! {
    /// Leases.
    LeaseMetrics {
        granted: IntCounter = counter("etcd_debugging_lease_granted_total", "Leases granted.");
        renewed: IntCounter = counter("etcd_debugging_lease_renewed_total", "Renewals that the leader handled.");
        revoked: IntCounter = counter("etcd_debugging_lease_revoked_total", "Leases revoked.");
        expired: IntCounter = counter("etcd_debugging_server_lease_expired_total", "Leases that expired.");
        ttl: Histogram =
            histogram("etcd_debugging_lease_ttl_total", "Seconds granted.", doubling(1.0, 24));
    }
}

/// All that this member counts.
pub struct Metrics {
    registry: Registry,
    /// The member and its part in the cluster.
    pub raft: RaftMetrics,
    /// The server around it.
    pub server: ServerMetrics,
    /// Log, tables and snapshots on the disk.
    pub disk: DiskMetrics,
    /// The links.
    pub network: NetworkMetrics,
    /// The store of keys.
    pub mvcc: MvccMetrics,
    /// Leases.
    pub lease: LeaseMetrics,
    /// The RPCs.
    pub grpc: GrpcMetrics,
    process: Process,
    hooks: Mutex<Vec<Box<dyn Fn() + Send>>>,
}

impl Metrics {
    /// A fresh set for a member. `extensive` is etcd's `--metrics=extensive`: a histogram of time per RPC.
    pub fn new(id: NodeId, server_version: &str, extensive: bool) -> Self {
        let registry = Registry::new();
        let builder = Builder(&registry);
        let server = ServerMetrics::new(&builder);
        server.id.with_label_values(&[&id.to_string()]).set(1);
        server.version.with_label_values(&[server_version]).set(1);
        Self {
            raft: RaftMetrics::new(&builder),
            server,
            disk: DiskMetrics::new(&builder),
            network: NetworkMetrics::new(&builder),
            mvcc: MvccMetrics::new(&builder),
            lease: LeaseMetrics::new(&builder),
            grpc: GrpcMetrics::new(&builder, extensive),
            process: Process::new(&builder),
            hooks: Mutex::new(Vec::new()),
            registry,
        }
    }

    /// Sets the cluster's version, given as `3.5.0`; its label is `3.5`.
    pub fn set_cluster_version(&self, version: &str) {
        let short = match version.match_indices('.').nth(1) {
            Some((end, _)) => &version[..end],
            None => version,
        };
        self.server.cluster_version.reset();
        self.server.cluster_version.with_label_values(&[short]).set(1);
    }

    /// Has `hook` run before each page is rendered: it sets gauges from what it holds, and must not block.
    pub fn on_scrape(&self, hook: impl Fn() + Send + 'static) {
        self.hooks.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(hook));
    }

    /// The page, in Prometheus' text format 0.0.4, families sorted by name. Vectors without a child are absent.
    pub fn render(&self) -> Vec<u8> {
        self.process.refresh();
        for hook in self.hooks.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            hook();
        }
        let mut page = Vec::with_capacity(128 * 1024);
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut page) {
            tracing::warn!(%error, "metrics can't be rendered");
        }
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The families that etcd's own scrape of a plain server has and this one may lack, by prefix.
    const LEFT_OUT: [&str; 6] = [
        "go_",
        "promhttp_",
        "etcd_server_go_version",
        "etcd_grpc_proxy_",
        "etcd_debugging_store_",
        "etcd_debugging_disk_backend_commit_",
    ];

    fn page(metrics: &Metrics) -> String {
        String::from_utf8(metrics.render()).expect("metrics are text")
    }

    #[test]
    fn a_fresh_page_has_etcds_families_of_a_running_server() {
        let metrics = Metrics::new(NodeId(0x7ea7), "3.5.1", false);
        metrics.set_cluster_version("3.5.0");
        let page = page(&metrics);
        // Families without labels, and those that are filled from the start, as etcd 3.5.1 shows them.
        for line in [
            "# TYPE etcd_server_has_leader gauge",
            "# TYPE etcd_disk_wal_fsync_duration_seconds histogram",
            "# TYPE etcd_disk_wal_write_bytes_total gauge",
            "# TYPE etcd_mvcc_put_total counter",
            "# TYPE process_cpu_seconds_total counter",
            "# TYPE os_fd_used gauge",
            "etcd_server_id{server_id=\"7ea7\"} 1",
            "etcd_server_version{server_version=\"3.5.1\"} 1",
            "etcd_cluster_version{cluster_version=\"3.5\"} 1",
            "etcd_disk_wal_fsync_duration_seconds_bucket{le=\"8.192\"} 0",
            "etcd_debugging_lease_ttl_total_bucket{le=\"8388608\"} 0",
            "grpc_server_handled_total{grpc_code=\"OK\",grpc_method=\"Range\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"} 0",
        ] {
            assert!(page.lines().any(|l| l == line), "{line} is not in\n{page}");
        }
        assert!(!page.contains("etcd_network_active_peers"), "a vector without a child is absent");
        for prefix in LEFT_OUT {
            assert!(!page.contains(&format!("# TYPE {prefix}")), "{prefix}");
        }
    }

    #[test]
    fn a_new_cluster_version_replaces_the_old() {
        let metrics = Metrics::new(NodeId(1), "3.5.1", false);
        metrics.set_cluster_version("3.4.0");
        metrics.set_cluster_version("3.5.0");
        let page = page(&metrics);
        assert!(page.contains("cluster_version=\"3.5\"") && !page.contains("cluster_version=\"3.4\""));
    }

    #[test]
    fn hooks_run_before_each_page() {
        let metrics = Metrics::new(NodeId(1), "3.5.1", false);
        let keys = metrics.mvcc.keys.clone();
        metrics.on_scrape(move || keys.set(42));
        assert!(page(&metrics).contains("etcd_debugging_mvcc_keys_total 42"));
    }
}
