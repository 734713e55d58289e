//! The server's flags: etcd's names, and where their values go.
//!
//! A flag of etcd that has no effect here is either one that tunes what we do not have, and is ignored, or one
//! whose effect an operator relies on, and is refused: never taken and silently left undone.

use std::path::PathBuf;

use super::flags::{
    Flag,
    Shape::{self, Anything, Bool, Duration, Int, Text, Uint},
    Value,
};
use crate::server::config::{Config, InitialState};

type F = Flag<Config>;

const fn flag(name: &'static str, value: Value<Config>, help: &'static str) -> F {
    Flag { name, value, help }
}

const fn ignored(name: &'static str, shape: Shape) -> F {
    Flag { name, value: Value::Ignored(shape), help: "" }
}

const fn unsupported(name: &'static str, shape: Shape, harmless: &'static [&'static str]) -> F {
    Flag { name, value: Value::Unsupported(shape, harmless), help: "" }
}

fn limit(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// etcd's "0 is the default" of a tunable.
fn or_default(value: i64, default: usize) -> usize {
    usize::try_from(value).ok().filter(|value| *value > 0).unwrap_or(default)
}

fn path(text: &str) -> Option<PathBuf> {
    (!text.is_empty()).then(|| text.into())
}

/// All flags of etcd 3.5 and 3.6, by section.
pub static FLAGS: &[&[F]] = &[MEMBER, CLUSTERING, SERVING, MISC, EXPERIMENTAL, UNSUPPORTED, IGNORED];

static MEMBER: &[F] = &[
    flag("name", Value::Text(|c, v| v.clone_into(&mut c.name)), "this member's name"),
    flag("data-dir", Value::Text(|c, v| c.data_dir = v.into()), "where data is kept; NAME.etcd by default"),
    flag(
        "wal-dir",
        Value::Text(|c, v| c.wal_dir = path(v)),
        "where the log is kept, if not in the data directory",
    ),
    flag("snapshot-count", Value::Uint(|c, v| c.snapshot_count = v), "applied entries between snapshots"),
    flag("experimental-snapshot-catchup-entries", Value::Uint(|c, v| c.snapshot_catchup_entries = v), ""),
    flag(
        "snapshot-catchup-entries",
        Value::Uint(|c, v| c.snapshot_catchup_entries = v),
        "entries kept in the log behind a snapshot",
    ),
    flag("max-snapshots", Value::Uint(|c, v| c.snapshots_max = v), "snapshot files kept; 0 for all"),
    flag("max-wals", Value::Uint(|c, v| c.wals_max = v), "log files kept; 0 for all"),
    flag("heartbeat-interval", Value::Uint(|c, v| c.heartbeat_ms = v), "milliseconds between heartbeats"),
    flag(
        "election-timeout",
        Value::Uint(|c, v| c.election_ms = v),
        "milliseconds without a leader before an election",
    ),
    flag(
        "initial-election-tick-advance",
        Value::Bool(|c, v| c.initial_election_tick_advance = v),
        "wait less for the first election after a start",
    ),
    flag("pre-vote", Value::Bool(|c, v| c.pre_vote = v), "ask before raising the term"),
    flag("listen-peer-urls", Value::Urls(|c, v| c.listen_peer = v), "where peers are served"),
    flag("listen-client-urls", Value::Urls(|c, v| c.listen_client = v), "where clients are served"),
    flag(
        "listen-client-http-urls",
        Value::Urls(|c, v| c.listen_client_http = v),
        "where clients are served HTTP alone",
    ),
    flag(
        "listen-metrics-urls",
        Value::Urls(|c, v| c.listen_metrics = v),
        "where metrics and health are served, too",
    ),
    flag("unsafe-no-fsync", Value::Bool(|c, v| c.unsafe_no_fsync = v), "never fsync: a crash loses data"),
    flag(
        "force-new-cluster",
        Value::Bool(|c, v| c.force_new_cluster = v),
        "start over with the data, as a cluster of this one member",
    ),
];

static CLUSTERING: &[F] = &[
    flag(
        "initial-advertise-peer-urls",
        Value::Urls(|c, v| c.advertise_peer = v),
        "where peers are told to connect",
    ),
    flag(
        "advertise-client-urls",
        Value::Urls(|c, v| c.advertise_client = v),
        "where clients are told to connect",
    ),
    flag(
        "initial-cluster",
        Value::Text(|c, v| v.clone_into(&mut c.initial_cluster)),
        "the first members: NAME=PEER-URL,...",
    ),
    flag(
        "initial-cluster-state",
        Value::Choice(&["new", "existing"], |c, v| {
            c.initial_state = if v == "new" { InitialState::New } else { InitialState::Existing };
        }),
        "new, or existing to join a running cluster",
    ),
    flag(
        "initial-cluster-token",
        Value::Text(|c, v| v.clone_into(&mut c.initial_cluster_token)),
        "tells clusters with the same URLs apart",
    ),
    flag(
        "strict-reconfig-check",
        Value::Bool(|c, v| c.strict_reconfig_check = v),
        "refuse membership changes that endanger the quorum",
    ),
    flag(
        "max-learners",
        Value::Int(|c, v| c.learners_max = usize::try_from(v).unwrap_or(0)),
        "learners at a time",
    ),
    flag(
        "auto-compaction-mode",
        Value::Text(|c, v| v.clone_into(&mut c.auto_compaction_mode)),
        "periodic or revision",
    ),
    flag(
        "auto-compaction-retention",
        Value::Text(|c, v| v.clone_into(&mut c.auto_compaction_retention)),
        "hours, a duration, or revisions that are kept; 0 for all",
    ),
];

static SERVING: &[F] = &[
    flag(
        "quota-backend-bytes",
        Value::Int(|c, v| c.quota_backend_bytes = v),
        "bytes that the store may take; 0 for 2 GiB, negative for no limit",
    ),
    flag(
        "max-txn-ops",
        Value::Uint(|c, v| c.txn_ops_max = limit(v)),
        "operations in one list of a transaction",
    ),
    flag("max-request-bytes", Value::Uint(|c, v| c.request_bytes_max = v), "bytes of a request"),
    flag(
        "max-concurrent-streams",
        Value::Uint(|c, v| c.concurrent_streams_max = u32::try_from(v).unwrap_or(u32::MAX)),
        "streams of one client connection",
    ),
    flag(
        "grpc-keepalive-min-time",
        Value::Duration(|c, v| c.keepalive.min_time = v),
        "the least time between a client's pings",
    ),
    flag(
        "grpc-keepalive-interval",
        Value::Duration(|c, v| c.keepalive.interval = v),
        "time between the server's pings; 0 for none",
    ),
    flag(
        "grpc-keepalive-timeout",
        Value::Duration(|c, v| c.keepalive.timeout = v),
        "how long the server waits then",
    ),
    flag("socket-reuse-port", Value::Bool(|c, v| c.reuse_port = v), "set SO_REUSEPORT"),
    flag("socket-reuse-address", Value::Bool(|c, v| c.reuse_address = v), "set SO_REUSEADDR"),
    flag("host-whitelist", Value::List(|c, v| c.host_whitelist = v), "allowed Host headers; * for any"),
    flag("cors", Value::Origins(|c, v| c.cors = v), "allowed origins; * for any"),
    flag("enable-grpc-gateway", Value::Bool(|c, v| c.enable_grpc_gateway = v), "serve JSON beside gRPC"),
    flag("bcrypt-cost", Value::Uint(|c, v| c.bcrypt_cost = v), "cost of a password's hash"),
    flag(
        "auth-token",
        Value::Text(|c, v| v.clone_into(&mut c.auth_token)),
        "kind of tokens: simple, or jwt,pub-key=FILE,priv-key=FILE,sign-method=NAME,ttl=DURATION",
    ),
    flag(
        "auth-token-ttl",
        Value::Uint(|c, v| c.auth_token_ttl = std::time::Duration::from_secs(v)),
        "seconds that an idle token lives",
    ),
];

static MISC: &[F] = &[
    flag("enable-pprof", Value::Bool(|c, v| c.enable_pprof = v), "serve profiles"),
    flag("metrics", Value::Text(|c, v| c.extensive_metrics = v == "extensive"), "basic or extensive"),
    flag("logger", Value::Text(|c, v| v.clone_into(&mut c.logging.logger)), "zap, and nothing else"),
    flag(
        "log-level",
        Value::Text(|c, v| v.clone_into(&mut c.logging.level)),
        "debug, info, warn, error, panic or fatal",
    ),
    flag("log-outputs", Value::List(|c, v| c.logging.outputs = v), "default, stderr, stdout or paths"),
    flag("log-format", Value::Text(|c, v| v.clone_into(&mut c.logging.format)), "json or console"),
];

static EXPERIMENTAL: &[F] = &[
    flag("experimental-initial-corrupt-check", Value::Bool(|c, v| c.initial_corrupt_check = v), ""),
    flag("experimental-corrupt-check-time", Value::Duration(|c, v| c.corrupt_check_interval = v), ""),
    flag(
        "corrupt-check-time",
        Value::Duration(|c, v| c.corrupt_check_interval = v),
        "time between comparisons of hashes; 0 for none",
    ),
    flag("experimental-enable-lease-checkpoint", Value::Bool(|c, v| c.lease_checkpoint = v), ""),
    flag(
        "experimental-enable-lease-checkpoint-persist",
        Value::Bool(|c, v| c.lease_checkpoint_persist = v),
        "",
    ),
    flag(
        "experimental-compaction-batch-limit",
        Value::Int(|c, v| c.compaction_batch = or_default(v, 1_000)),
        "",
    ),
    flag(
        "compaction-batch-limit",
        Value::Int(|c, v| c.compaction_batch = or_default(v, 1_000)),
        "revisions that a compaction removes at once",
    ),
    flag("experimental-compaction-sleep-interval", Value::Duration(|c, v| c.compaction_sleep = v), ""),
    flag(
        "compaction-sleep-interval",
        Value::Duration(|c, v| c.compaction_sleep = v),
        "how long a compaction rests in between",
    ),
    flag(
        "experimental-watch-progress-notify-interval",
        Value::Duration(|c, v| c.watch_progress_interval = v),
        "",
    ),
    flag(
        "watch-progress-notify-interval",
        Value::Duration(|c, v| c.watch_progress_interval = v),
        "how often idle watches hear of the revision",
    ),
    flag("experimental-warning-apply-duration", Value::Duration(|c, v| c.warn_apply = v), ""),
    flag(
        "warning-apply-duration",
        Value::Duration(|c, v| c.warn_apply = v),
        "applies that take longer are logged",
    ),
    flag("experimental-warning-unary-request-duration", Value::Duration(|c, v| c.warn_unary = v), ""),
    flag(
        "warning-unary-request-duration",
        Value::Duration(|c, v| c.warn_unary = v),
        "requests that take longer are logged",
    ),
];

static UNSUPPORTED: &[F] = &[
    unsupported("config-file", Text, &[""]),
    unsupported("discovery", Text, &[""]),
    unsupported("discovery-srv", Text, &[""]),
    unsupported("discovery-srv-name", Text, &[""]),
    unsupported("discovery-proxy", Text, &[""]),
    unsupported("discovery-endpoints", Text, &[""]),
    unsupported("discovery-token", Text, &[""]),
    unsupported("discovery-cert", Text, &[""]),
    unsupported("discovery-key", Text, &[""]),
    unsupported("discovery-cacert", Text, &[""]),
    unsupported("discovery-user", Text, &[""]),
    unsupported("discovery-password", Text, &[""]),
    unsupported("enable-v2", Bool, &[]),
    unsupported("experimental-enable-v2v3", Text, &[""]),
    unsupported("proxy", Text, &["off"]),
    unsupported("cert-file", Text, &[""]),
    unsupported("key-file", Text, &[""]),
    unsupported("client-cert-file", Text, &[""]),
    unsupported("client-key-file", Text, &[""]),
    unsupported("client-cert-auth", Bool, &[]),
    unsupported("client-crl-file", Text, &[""]),
    unsupported("client-cert-allowed-hostname", Text, &[""]),
    unsupported("trusted-ca-file", Text, &[""]),
    unsupported("auto-tls", Bool, &[]),
    unsupported("peer-cert-file", Text, &[""]),
    unsupported("peer-key-file", Text, &[""]),
    unsupported("peer-client-cert-file", Text, &[""]),
    unsupported("peer-client-key-file", Text, &[""]),
    unsupported("peer-client-cert-auth", Bool, &[]),
    unsupported("peer-trusted-ca-file", Text, &[""]),
    unsupported("peer-cert-allowed-cn", Text, &[""]),
    unsupported("peer-cert-allowed-hostname", Text, &[""]),
    unsupported("peer-auto-tls", Bool, &[]),
    unsupported("peer-crl-file", Text, &[""]),
    unsupported("cipher-suites", Text, &[""]),
    unsupported("experimental-peer-skip-client-san-verification", Bool, &[]),
    unsupported("peer-skip-client-san-verification", Bool, &[]),
    unsupported("enable-log-rotation", Bool, &[]),
    unsupported("experimental-compact-hash-check-enabled", Bool, &[]),
    unsupported("experimental-memory-mlock", Bool, &[]),
    unsupported("memory-mlock", Bool, &[]),
    unsupported("experimental-stop-grpc-service-on-defrag", Bool, &[]),
    unsupported("experimental-enable-distributed-tracing", Bool, &[]),
    unsupported("enable-distributed-tracing", Bool, &[]),
    unsupported("feature-gates", Text, &[""]),
];

static IGNORED: &[F] = &[
    ignored("backend-bbolt-freelist-type", Text),
    ignored("backend-batch-interval", Duration),
    ignored("backend-batch-limit", Int),
    ignored("raft-read-timeout", Duration),
    ignored("raft-write-timeout", Duration),
    ignored("discovery-fallback", Text),
    ignored("discovery-dial-timeout", Duration),
    ignored("discovery-request-timeout", Duration),
    ignored("discovery-keepalive-time", Duration),
    ignored("discovery-keepalive-timeout", Duration),
    ignored("discovery-insecure-transport", Bool),
    ignored("discovery-insecure-skip-tls-verify", Bool),
    ignored("v2-deprecation", Text),
    ignored("proxy-failure-wait", Uint),
    ignored("proxy-refresh-interval", Uint),
    ignored("proxy-dial-timeout", Uint),
    ignored("proxy-write-timeout", Uint),
    ignored("proxy-read-timeout", Uint),
    ignored("self-signed-cert-validity", Uint),
    ignored("tls-min-version", Text),
    ignored("tls-max-version", Text),
    ignored("log-rotation-config-json", Text),
    ignored("experimental-compact-hash-check-time", Duration),
    ignored("compact-hash-check-time", Duration),
    ignored("experimental-downgrade-check-time", Duration),
    ignored("downgrade-check-time", Duration),
    ignored("experimental-txn-mode-write-with-shared-buffer", Bool),
    ignored("experimental-bootstrap-defrag-threshold-megabytes", Uint),
    ignored("bootstrap-defrag-threshold-megabytes", Uint),
    ignored("experimental-distributed-tracing-address", Text),
    ignored("distributed-tracing-address", Text),
    ignored("experimental-distributed-tracing-service-name", Text),
    ignored("distributed-tracing-service-name", Text),
    ignored("experimental-distributed-tracing-instance-id", Text),
    ignored("distributed-tracing-instance-id", Text),
    ignored("experimental-distributed-tracing-sampling-rate", Int),
    ignored("distributed-tracing-sampling-rate", Int),
    ignored("test.coverprofile", Anything),
    ignored("test.outputdir", Anything),
    // What even etcd ignores, from its own past.
    ignored("cluster-active-size", Anything),
    ignored("cluster-remove-delay", Anything),
    ignored("cluster-sync-interval", Anything),
    ignored("config", Anything),
    ignored("force", Anything),
    ignored("max-result-buffer", Anything),
    ignored("max-retry-attempts", Anything),
    ignored("peer-heartbeat-interval", Anything),
    ignored("peer-election-timeout", Anything),
    ignored("retry-interval", Anything),
    ignored("snapshot", Anything),
    ignored("v", Anything),
    ignored("vv", Anything),
];
