//! What a member needs to know to start, whoever parsed it.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use super::{
    api::Limits,
    sessions::{Bcrypt, PasswordHasher, TokenSigner},
    tuning::Tuning,
};
use crate::{auth::password::COST_DEFAULT, node::Retention, storage::wal, watch};

/// How a member starts and behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its name, which `cluster` has too.
    pub name: String,
    /// Where everything lies.
    pub data_dir: PathBuf,
    /// Where the log lies, if elsewhere.
    pub wal_dir: Option<PathBuf>,
    /// Where peers are told to reach it.
    pub peer_urls: Vec<String>,
    /// Where clients are told to reach it.
    pub client_urls: Vec<String>,
    /// The members to start with: peer URLs by name. Only a first start looks at it.
    pub cluster: BTreeMap<String, Vec<String>>,
    /// What makes this cluster's ids differ from another's with the same URLs.
    pub token: String,
    /// Whether the cluster is there already and has this member in it.
    pub existing: bool,
    /// Make a cluster of this member alone out of what its disk holds.
    pub force_new_cluster: bool,
    /// A tick: how often a leader is heard (`--heartbeat-interval`), in milliseconds.
    pub tick_ms: u64,
    /// Ticks without a leader before a campaign (`--election-timeout` in ticks).
    pub election_ticks: u64,
    /// Whether campaigns ask first.
    pub pre_vote: bool,
    /// Entries between checkpoints.
    pub snapshot_entries: u64,
    /// Entries kept in memory for members that lag.
    pub catchup_entries: u64,
    /// The API's limits.
    pub limits: Limits,
    /// Refuse changes of the members that could cost the quorum.
    pub strict_reconfig_check: bool,
    /// How many learners there may be.
    pub learners_max: usize,
    /// How often an idle watch that asked for it hears how far it is.
    pub watch_progress: Duration,
    /// How often the log is told how long leases still last, so that the next leader knows.
    pub lease_checkpoint: Duration,
    /// How many responses of a stream of watches may wait before its watches fall behind.
    pub watch_queue_max: usize,
    /// What history is kept without anybody asking.
    pub retention: Retention,
    /// How many revisions a step of compaction drops.
    pub compaction_batch: usize,
    /// The pause after each step.
    pub compaction_pause: Duration,
    /// How large a segment of the log grows, and what is reserved for it, in bytes.
    pub segment_bytes: u64,
    /// How many segments of the log are kept (`--max-wals`); 0 for all.
    pub wals_max: usize,
    /// How many snapshot files are kept (`--max-snapshots`); 0 for all.
    pub snapshots_max: usize,
    /// How long a simple token lives when it is not used (`--auth-token-ttl`).
    pub token_ttl: Duration,
    /// Who signs tokens (`--auth-token jwt`); None for simple ones.
    pub token_signer: Option<Arc<dyn TokenSigner>>,
    /// How passwords are hashed (`--bcrypt-cost`).
    pub password_hasher: Arc<dyn PasswordHasher>,
    /// What no flag sets.
    pub tuning: Tuning,
}

impl Options {
    /// etcd's defaults for a member alone.
    pub fn new(name: &str, data_dir: PathBuf) -> Self {
        let peer_urls = vec!["http://localhost:2380".to_owned()];
        Self {
            name: name.to_owned(),
            data_dir,
            wal_dir: None,
            cluster: BTreeMap::from([(name.to_owned(), peer_urls.clone())]),
            peer_urls,
            client_urls: vec!["http://localhost:2379".to_owned()],
            token: "etcd-cluster".to_owned(),
            existing: false,
            force_new_cluster: false,
            tick_ms: 100,
            election_ticks: 10,
            pre_vote: true,
            snapshot_entries: 100_000,
            catchup_entries: 5_000,
            limits: Limits::default(),
            strict_reconfig_check: true,
            learners_max: 1,
            watch_progress: Duration::from_secs(600),
            lease_checkpoint: Duration::from_secs(300),
            watch_queue_max: watch::Config::default().stream_queue_max,
            retention: Retention::All,
            compaction_batch: 1_000,
            compaction_pause: Duration::from_millis(10),
            segment_bytes: wal::Options::default().segment_bytes,
            wals_max: 5,
            snapshots_max: 5,
            token_ttl: Duration::from_secs(300),
            token_signer: None,
            password_hasher: Arc::new(Bcrypt(COST_DEFAULT)),
            tuning: Tuning::default(),
        }
    }

    /// How long a request may wait: etcd's 5 s and two election timeouts.
    pub fn request_timeout_ms(&self) -> u64 {
        5_000 + 2 * self.tick_ms * self.election_ticks
    }
}
