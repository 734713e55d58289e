//! What `/metrics` shows after the same calls: the same families, of the same types, with the same labels, and
//! where it is decided by the calls, with the same values.

use std::collections::{BTreeMap, BTreeSet};

use kontiki::wire::etcdserverpb::{
    LeaseGrantRequest, WatchCreateRequest, WatchRequest, watch_client::WatchClient,
    watch_request::RequestUnion,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_stream::StreamExt;

use crate::{
    call::{self, Ask},
    kv::{compact, delete, get, p, put, range, then},
    server::{Pair, Server},
};

/// What only Go, bbolt, the v2 store or etcd's proxy has.
const LEFT_OUT: [&str; 6] = [
    "go_",
    "promhttp_",
    "etcd_server_go_version",
    "etcd_grpc_proxy_",
    "etcd_debugging_store_",
    "etcd_debugging_disk_backend_commit_",
];

/// Not filled here yet; each shows nothing where etcd shows a child.
const UNFILLED: [&str; 1] = ["etcd_server_apply_duration_seconds"];

/// Values that the calls decide.
const EQUAL: [&str; 24] = [
    "etcd_cluster_version",
    "etcd_debugging_auth_revision",
    "etcd_debugging_lease_granted_total",
    "etcd_debugging_lease_revoked_total",
    "etcd_debugging_lease_ttl_total_count",
    "etcd_debugging_lease_ttl_total_sum",
    "etcd_debugging_mvcc_compact_revision",
    "etcd_debugging_mvcc_current_revision",
    "etcd_debugging_mvcc_db_compaction_keys_total",
    "etcd_debugging_mvcc_events_total",
    "etcd_debugging_mvcc_keys_total",
    "etcd_debugging_mvcc_slow_watcher_total",
    "etcd_debugging_mvcc_total_put_size_in_bytes",
    "etcd_debugging_mvcc_watch_stream_total",
    "etcd_debugging_mvcc_watcher_total",
    "etcd_disk_defrag_inflight",
    "etcd_mvcc_delete_total",
    "etcd_mvcc_put_total",
    "etcd_mvcc_txn_total",
    "etcd_server_has_leader",
    "etcd_server_is_leader",
    "etcd_server_is_learner",
    "etcd_server_leader_changes_seen_total",
    "etcd_server_proposals_pending",
];

/// What the calls make more than 0, without deciding how much.
const POSITIVE: [&str; 16] = [
    "etcd_debugging_lease_renewed_total",
    "etcd_debugging_mvcc_db_compaction_last",
    "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds_count",
    "etcd_debugging_mvcc_range_total",
    "etcd_debugging_server_lease_expired_total",
    "etcd_disk_backend_commit_duration_seconds_count",
    "etcd_disk_backend_defrag_duration_seconds_count",
    "etcd_disk_backend_snapshot_duration_seconds_count",
    "etcd_disk_wal_fsync_duration_seconds_count",
    "etcd_disk_wal_fsync_duration_seconds_sum",
    "etcd_disk_wal_write_bytes_total",
    "etcd_mvcc_db_total_size_in_bytes",
    "etcd_mvcc_hash_rev_duration_seconds_count",
    "etcd_mvcc_range_total",
    "etcd_server_proposals_applied_total",
    "etcd_server_quota_backend_bytes",
];

/// A page of metrics.
struct Page {
    /// Types by family.
    types: BTreeMap<String, String>,
    /// Values by sample, labels included.
    values: BTreeMap<String, f64>,
}

impl Page {
    async fn of(server: &Server) -> Self {
        let host = server.client_url.strip_prefix("http://").expect("a URL of ours");
        let mut stream = tokio::net::TcpStream::connect(host).await.expect("it serves");
        let request = format!("GET /metrics HTTP/1.0\r\nHost: {host}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("it takes the request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("it answers text");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        assert!(head.contains("text/plain; version=0.0.4; charset=utf-8"), "{head}");
        let mut page = Self { types: BTreeMap::new(), values: BTreeMap::new() };
        for line in body.lines() {
            if let Some(family) = line.strip_prefix("# TYPE ") {
                let (name, kind) = family.split_once(' ').expect("a type");
                page.types.insert(name.to_owned(), kind.to_owned());
            } else if let Some((sample, value)) = line.rsplit_once(' ').filter(|_| !line.starts_with('#')) {
                page.values.insert(sample.to_owned(), value.parse().expect("a number"));
            }
        }
        page
    }

    /// The value of a sample, whatever its labels.
    fn value(&self, name: &str) -> Option<f64> {
        let named = |sample: &&String| sample.split('{').next() == Some(name);
        self.values.keys().find(named).map(|sample| self.values[sample])
    }

    /// The names of the labels of each sample.
    fn labels(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        let mut labels = BTreeMap::<_, BTreeSet<_>>::new();
        for sample in self.values.keys() {
            let (name, rest) = sample.split_once('{').unwrap_or((sample, ""));
            let named = rest.split(',').filter_map(|label| Some(label.split_once("=\"")?.0));
            labels.entry(name).or_default().extend(named);
        }
        labels
    }
}

fn shown(family: &str) -> bool {
    let listed = |list: &[&str]| list.iter().any(|prefix| family.starts_with(prefix));
    !listed(&LEFT_OUT) && !listed(&UNFILLED)
}

/// Opens a watch of `w` and waits until it is there.
async fn watch(server: &Server) -> tonic::Streaming<kontiki::wire::etcdserverpb::WatchResponse> {
    let create = WatchCreateRequest { key: "w".into(), ..Default::default() };
    let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    let requests = tokio_stream::once(request).chain(tokio_stream::pending());
    let mut client = WatchClient::new(server.channel.clone());
    let mut frames = client.watch(requests).await.expect("watched").into_inner();
    assert!(frames.message().await.expect("a frame").expect("a frame").created);
    frames
}

async fn used(server: &mut Server) -> Page {
    let mut frames = watch(server).await;
    let grant = |id, ttl| Ask::Grant(LeaseGrantRequest { id, ttl });
    for ask in [
        put("a", "1"),
        put("a", "2"),
        put("b", "1"),
        put("w", "seen"),
        then(vec![p("c", "33"), p("d", "44")]),
        then(vec![p("e", "5")]),
        Ask::Range(range("a", "z")),
        get("a"),
        delete("a", "c"),
        delete("none", ""),
        put("a", "again"),
        grant(7, 100),
        grant(8, 2),
        Ask::Grant(LeaseGrantRequest { id: 9, ttl: 50 }),
        Ask::KeepAlive(vec![7, 7]),
        Ask::Revoke(9),
        Ask::Put(kontiki::wire::etcdserverpb::PutRequest { lease: 8, ..crate::kv::put_of("short", "lived") }),
        Ask::Expired("short"),
        compact(5, true),
        Ask::HashKv(0),
        Ask::Snapshot,
        Ask::Defragment,
    ] {
        let answer = call::run(server, &ask).await;
        assert!(answer.starts_with("OK"), "{ask:?}: {answer}");
    }
    let frame = frames.message().await.expect("a frame").expect("a frame");
    assert_eq!(frame.events.len(), 1);
    // Counts of watches, and of what etcd does beside a call, come a little later.
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    let page = Page::of(server).await;
    drop(frames);
    page
}

#[tokio::test]
#[ignore = "needs a real etcd to compare with: set ETCD_BIN"]
async fn metrics() {
    let Pair { mut etcd, mut kontiki, .. } = Pair::start(17).await;
    let (etcd, ours) = tokio::join!(used(&mut etcd), used(&mut kontiki));
    let mut differences = Vec::new();
    for (family, kind) in etcd.types.iter().filter(|(family, _)| shown(family)) {
        match ours.types.get(family) {
            Some(own) if own == kind => {}
            own => differences.push(format!("{family} is a {kind}, not {own:?}")),
        }
    }
    let own_labels = ours.labels();
    for (sample, labels) in etcd.labels().into_iter().filter(|(sample, _)| shown(sample)) {
        match own_labels.get(sample) {
            Some(own) if *own == labels => {}
            own => differences.push(format!("{sample} has the labels {labels:?}, not {own:?}")),
        }
    }
    for name in EQUAL {
        let (etcd, ours) = (etcd.value(name), ours.value(name));
        if etcd != ours {
            differences.push(format!("{name} is {etcd:?}, not {ours:?}"));
        }
    }
    for name in POSITIVE {
        let (etcd, ours) = (etcd.value(name), ours.value(name));
        if etcd.is_none_or(|n| n <= 0.0) || ours.is_none_or(|n| n <= 0.0) {
            differences.push(format!("{name} is {etcd:?} and {ours:?}: both were to count"));
        }
    }
    assert!(differences.is_empty(), "\n{}\n", differences.join("\n"));
}
