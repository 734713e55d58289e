//! What the operator asked for, checked: etcd's options, their defaults, and its sentences where they make
//! no sense together.
//!
//! `cli::server` fills a [`Config`] from flags and environment; an embedding program fills one by hand. Either
//! calls [`Config::check`] before anything is started. What a new cluster is made of is checked only when there
//! is no data yet ([`Config::initial_roster`]): a member that has data ignores it, as etcd does.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
    time::Duration,
};

use thiserror::Error;

use super::go_duration::parse_go_duration;
use crate::membership::{
    BootstrapError, Roster,
    urls::{Url, UrlError},
};

/// The version of etcd that clients and peers are told.
pub const COMPAT_VERSION: &str = "3.5.33";
/// The version of etcd's cluster that comes of it.
pub const COMPAT_CLUSTER_VERSION: &str = "3.5.0";
/// Kontiki's own version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// etcd's quota when none is asked for.
const QUOTA_DEFAULT: u64 = 2 << 30;
/// Above it etcd warns.
const QUOTA_WARNED: i64 = 8 << 30;
const REQUEST_BYTES_WARNED: u64 = 10 << 20;
const ELECTION_MS_MAX: u64 = 50_000;
const NAME_DEFAULT: &str = "default";
const LOG_LEVELS: [&str; 7] = ["debug", "info", "warn", "error", "dpanic", "panic", "fatal"];

/// Whether a member without data makes a new cluster or joins one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InitialState {
    /// It is one of the first.
    #[default]
    New,
    /// It was added to a running cluster.
    Existing,
}

/// What is compacted by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AutoCompaction {
    /// Nothing.
    #[default]
    Off,
    /// What is older.
    Periodic(Duration),
    /// What is so many revisions behind.
    Revisions(i64),
}

/// Pings between client and server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// A client that pings more often is cut off.
    pub min_time: Duration,
    /// How often the server pings; zero for never.
    pub interval: Duration,
    /// How long it then waits.
    pub timeout: Duration,
}

/// Where the log of events goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logging {
    /// `zap`: etcd's only one, so its only name here.
    pub logger: String,
    /// From which level on: `debug`, `info`, `warn`, `error`, `panic`, `fatal`.
    pub level: String,
    /// `default` (stderr), `stderr`, `stdout` or paths of files.
    pub outputs: Vec<String>,
    /// `json` or `console`.
    pub format: String,
}

/// All options of a server. [`Config::default`] has etcd's defaults, before [`Config::check`].
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// This member's name.
    pub name: String,
    /// Where it keeps its data; empty for `<name>.etcd`, which the check fills in.
    pub data_dir: PathBuf,
    /// Where it keeps its log, if not in `<data_dir>/member/wal`.
    pub wal_dir: Option<PathBuf>,

    /// Applied entries between snapshots.
    pub snapshot_count: u64,
    /// Entries that stay in the log behind a snapshot, for slow followers.
    pub snapshot_catchup_entries: u64,
    /// `.snap` files kept; 0 for all.
    pub snapshots_max: u64,
    /// Log files kept; 0 for all.
    pub wals_max: u64,
    /// Milliseconds between a leader's heartbeats: raft's tick.
    pub heartbeat_ms: u64,
    /// Milliseconds without a leader after which an election starts.
    pub election_ms: u64,
    /// Whether a starting member waits less for its first election.
    pub initial_election_tick_advance: bool,
    /// Whether candidates ask before they raise the term.
    pub pre_vote: bool,
    /// Whether membership changes that endanger the quorum are refused.
    pub strict_reconfig_check: bool,
    /// Learners at a time; the same on all members.
    pub learners_max: usize,
    /// Whether the log is written without fsync. Loses data.
    pub unsafe_no_fsync: bool,
    /// Whether existing data start over as a cluster of this one member.
    pub force_new_cluster: bool,

    /// Where peers are served.
    pub listen_peer: Vec<Url>,
    /// Where clients are served.
    pub listen_client: Vec<Url>,
    /// Where clients are served HTTP alone; if any, `listen_client` serves gRPC alone.
    pub listen_client_http: Vec<Url>,
    /// Where metrics and health are served besides.
    pub listen_metrics: Vec<Url>,
    /// Where peers are told to connect.
    pub advertise_peer: Vec<Url>,
    /// Where clients are told to connect.
    pub advertise_client: Vec<Url>,
    /// Whether `SO_REUSEPORT` is set.
    pub reuse_port: bool,
    /// Whether `SO_REUSEADDR` is set.
    pub reuse_address: bool,

    /// The first members, `name=url,…`; empty for this one alone, which the check fills in.
    pub initial_cluster: String,
    /// Whether a cluster is made or joined.
    pub initial_state: InitialState,
    /// Goes into the ids of members and cluster.
    pub initial_cluster_token: String,

    /// Bytes that the store may take, as etcd has it: 0 for 2 GiB, negative for no limit.
    pub quota_backend_bytes: i64,
    /// Bytes of an encoded request.
    pub request_bytes_max: u64,
    /// Operations in one list of a transaction.
    pub txn_ops_max: usize,
    /// HTTP/2 streams of one client connection.
    pub concurrent_streams_max: u32,
    /// Pings.
    pub keepalive: Keepalive,
    /// `periodic` or `revision`; what `auto_compaction_retention` means.
    pub auto_compaction_mode: String,
    /// A number (hours, revisions) or a duration; `0` for none.
    pub auto_compaction_retention: String,
    /// Revisions that a compaction removes at once.
    pub compaction_batch: usize,
    /// How long it rests then.
    pub compaction_sleep: Duration,
    /// How often idle watches hear of the revision.
    pub watch_progress_interval: Duration,
    /// Whether leases' remaining seconds are replicated.
    pub lease_checkpoint: bool,
    /// Whether they are stored.
    pub lease_checkpoint_persist: bool,
    /// Whether hashes are compared with the peers' before serving.
    pub initial_corrupt_check: bool,
    /// How often hashes are compared; zero for never.
    pub corrupt_check_interval: Duration,

    /// Allowed `Host` headers of HTTP requests; `*` or nothing for any.
    pub host_whitelist: Vec<String>,
    /// Allowed origins; `*` for any.
    pub cors: Vec<String>,
    /// Whether the JSON gateway is served.
    pub enable_grpc_gateway: bool,
    /// Whether profiles are served.
    pub enable_pprof: bool,
    /// Whether metrics hold histograms of each RPC's time.
    pub extensive_metrics: bool,
    /// The cost of a password's hash.
    pub bcrypt_cost: u64,
    /// What kind of tokens users get: `simple`, or `jwt,` and its options.
    pub auth_token: String,
    /// How long an idle token lives.
    pub auth_token_ttl: Duration,
    /// Applies that take longer are logged.
    pub warn_apply: Duration,
    /// Requests that take longer are logged.
    pub warn_unary: Duration,
    /// The log of events.
    pub logging: Logging,

    /// Which options were asked for, by flag name; the others have their defaults.
    pub given: BTreeSet<&'static str>,
}

impl Default for Config {
    fn default() -> Self {
        let urls = |text: &str| Url::parse_list(text).expect("our own defaults are URLs");
        let (peer, client) = ("http://localhost:2380", "http://localhost:2379");
        Self {
            name: NAME_DEFAULT.into(),
            data_dir: PathBuf::new(),
            wal_dir: None,
            snapshot_count: 100_000,
            snapshot_catchup_entries: 5_000,
            snapshots_max: 5,
            wals_max: 5,
            heartbeat_ms: 100,
            election_ms: 1_000,
            initial_election_tick_advance: true,
            pre_vote: true,
            strict_reconfig_check: true,
            learners_max: 1,
            unsafe_no_fsync: false,
            force_new_cluster: false,
            listen_peer: urls(peer),
            listen_client: urls(client),
            listen_client_http: Vec::new(),
            listen_metrics: Vec::new(),
            advertise_peer: urls(peer),
            advertise_client: urls(client),
            reuse_port: false,
            reuse_address: false,
            initial_cluster: String::new(),
            initial_state: InitialState::New,
            initial_cluster_token: "etcd-cluster".into(),
            quota_backend_bytes: 0,
            request_bytes_max: 1_572_864,
            txn_ops_max: 128,
            concurrent_streams_max: u32::MAX,
            keepalive: Keepalive {
                min_time: Duration::from_secs(5),
                interval: Duration::from_secs(7_200),
                timeout: Duration::from_secs(20),
            },
            auto_compaction_mode: "periodic".into(),
            auto_compaction_retention: "0".into(),
            compaction_batch: 1_000,
            compaction_sleep: Duration::from_millis(10),
            watch_progress_interval: Duration::from_secs(600),
            lease_checkpoint: false,
            lease_checkpoint_persist: false,
            initial_corrupt_check: false,
            corrupt_check_interval: Duration::ZERO,
            host_whitelist: vec!["*".into()],
            cors: vec!["*".into()],
            enable_grpc_gateway: true,
            enable_pprof: false,
            extensive_metrics: false,
            bcrypt_cost: 10,
            auth_token: "simple".into(),
            auth_token_ttl: Duration::from_secs(300),
            warn_apply: Duration::from_millis(100),
            warn_unary: Duration::from_millis(300),
            logging: Logging {
                logger: "zap".into(),
                level: "info".into(),
                outputs: vec!["default".into()],
                format: "json".into(),
            },
            given: BTreeSet::new(),
        }
    }
}

/// Why options make no sense; etcd's sentences.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[allow(missing_docs)]
pub enum ConfigError {
    #[error("unknown logger option {0:?}")]
    Logger(String),
    #[error("unrecognized level: {0:?}")]
    LogLevel(String),
    #[error("unknown log format {0:?}")]
    LogFormat(String),
    #[error("log output {0:?} is not supported yet: use default, stderr, stdout or a file's path")]
    LogOutput(String),
    #[error("expected IP in URL for binding ({0})")]
    BindHost(Url),
    #[error("--{flag} {url:?} must be \"host:port\" (unexpected empty host ({url}))", url = url.to_string())]
    AdvertiseHost { flag: &'static str, url: Url },
    #[error("cannot listen on TLS for {0}: KeyFile and CertFile are not presented")]
    Tls(String),
    #[error("unix sockets are not supported yet ({0})")]
    UnixSocket(Url),
    #[error("--heartbeat-interval must be >0 (set to {0}ms)")]
    Heartbeat(u64),
    #[error("--election-timeout must be >0 (set to {0}ms)")]
    Election(u64),
    #[error(
        "--election-timeout[{election}ms] should be at least as 5 times as --heartbeat-interval[{heartbeat}ms]"
    )]
    ElectionTooShort { election: u64, heartbeat: u64 },
    #[error("--election-timeout[{0}ms] is too long, and should be set less than {ELECTION_MS_MAX}ms")]
    ElectionTooLong(u64),
    #[error("--advertise-client-urls is required when --listen-client-urls is set explicitly")]
    AdvertiseMissing,
    #[error("unknown auto-compaction-mode {0:?}")]
    AutoCompactionMode(String),
    #[error("error parsing CompactionRetention: time: invalid duration {0:?}")]
    AutoCompactionRetention(String),
    #[error(
        "setting experimental-enable-lease-checkpoint-persist requires experimental-enable-lease-checkpoint"
    )]
    LeaseCheckpoint,
    #[error("error setting up initial cluster: {0}")]
    InitialCluster(UrlError),
    #[error("couldn't find local name {0:?} in the initial cluster configuration")]
    LocalName(String),
    #[error("initial cluster {0} has duplicate url")]
    DuplicateUrl(String),
    #[error(
        "--initial-cluster has {missing} but missing from --initial-advertise-peer-urls={advertised} ({why})"
    )]
    NotAdvertised { missing: String, advertised: String, why: String },
    #[error("--initial-advertise-peer-urls has {missing} but missing from --initial-cluster={cluster}")]
    NotInCluster { missing: String, cluster: String },
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
}

impl Config {
    /// Checks that the options make sense together, and fills in those that follow from others.
    pub fn check(&mut self) -> Result<(), ConfigError> {
        self.check_logging()?;
        let listen = [&self.listen_peer, &self.listen_client, &self.listen_client_http, &self.listen_metrics];
        for url in listen.into_iter().flatten() {
            check_bind(url)?;
        }
        check_advertised("initial-advertise-peer-urls", &self.advertise_peer)?;
        let given = |flag: &str| self.given.contains(flag);
        let advertise_client = given("advertise-client-urls") || !given("listen-client-urls");
        if advertise_client {
            check_advertised("advertise-client-urls", &self.advertise_client)?;
        }
        self.check_timing()?;
        if !advertise_client {
            return Err(ConfigError::AdvertiseMissing);
        }
        self.auto_compaction()?;
        if self.lease_checkpoint_persist && !self.lease_checkpoint {
            return Err(ConfigError::LeaseCheckpoint);
        }
        self.check_plain()?;
        if self.data_dir.as_os_str().is_empty() {
            self.data_dir = format!("{}.etcd", self.name).into();
        }
        self.default_initial_cluster();
        Ok(())
    }

    fn check_logging(&self) -> Result<(), ConfigError> {
        let Logging { logger, level, outputs, format } = &self.logging;
        if logger != "zap" {
            return Err(ConfigError::Logger(logger.clone()));
        }
        if !LOG_LEVELS.contains(&level.as_str()) {
            return Err(ConfigError::LogLevel(level.clone()));
        }
        if !["json", "console"].contains(&format.as_str()) {
            return Err(ConfigError::LogFormat(format.clone()));
        }
        let journal = outputs.iter().find(|output| output.starts_with("systemd/"));
        journal.map_or(Ok(()), |output| Err(ConfigError::LogOutput(output.clone())))
    }

    fn check_timing(&self) -> Result<(), ConfigError> {
        let (heartbeat, election) = (self.heartbeat_ms, self.election_ms);
        if heartbeat == 0 {
            return Err(ConfigError::Heartbeat(heartbeat));
        }
        if election == 0 {
            return Err(ConfigError::Election(election));
        }
        if heartbeat.saturating_mul(5) > election {
            return Err(ConfigError::ElectionTooShort { election, heartbeat });
        }
        if election > ELECTION_MS_MAX {
            return Err(ConfigError::ElectionTooLong(election));
        }
        Ok(())
    }

    /// TLS is not there yet; without certificates etcd refuses such a listener, too.
    fn check_plain(&self) -> Result<(), ConfigError> {
        let listen = [&self.listen_peer, &self.listen_client, &self.listen_client_http, &self.listen_metrics];
        for url in listen.into_iter().flatten() {
            if url.scheme().is_unix() {
                return Err(ConfigError::UnixSocket(url.clone()));
            }
            if url.scheme().is_tls() {
                return Err(ConfigError::Tls(url.host_port().into()));
            }
        }
        Ok(())
    }

    /// As etcd does, the name alone makes a cluster of one at the advertised URLs, but for the default name.
    fn default_initial_cluster(&mut self) {
        if !self.initial_cluster.is_empty() {
            return;
        }
        if self.name == NAME_DEFAULT {
            self.initial_cluster = "default=http://localhost:2380".into();
        } else {
            let name = if self.name.is_empty() { NAME_DEFAULT } else { &self.name };
            self.initial_cluster = pairs(name, self.advertise_peer.iter().map(Url::to_string));
        }
    }

    /// The first members and their URLs, from `initial_cluster`.
    pub fn initial_members(&self) -> Result<BTreeMap<String, Vec<String>>, ConfigError> {
        let mut members: BTreeMap<String, Vec<Url>> = BTreeMap::new();
        for pair in self.initial_cluster.split(',').filter(|pair| !pair.is_empty()) {
            let (name, url) = pair.split_once('=').unwrap_or((pair, ""));
            let url = Url::parse(url).map_err(ConfigError::InitialCluster)?;
            members.entry(name.into()).or_default().push(url);
        }
        let texts = |mut urls: Vec<Url>| {
            urls.sort();
            urls.iter().map(Url::to_string).collect()
        };
        Ok(members.into_iter().map(|(name, urls)| (name, texts(urls))).collect())
    }

    /// The members that a member without data starts with. For a new cluster this one's URLs must be those
    /// that it advertises; names are compared as they are, not by their addresses.
    pub fn initial_roster(&self) -> Result<Roster, ConfigError> {
        let members = self.initial_members()?;
        let own = members.get(&self.name).ok_or_else(|| ConfigError::LocalName(self.name.clone()))?;
        if self.initial_state == InitialState::New {
            self.check_advertised_in_cluster(own)?;
        }
        let mut urls = BTreeSet::new();
        if members.values().flatten().any(|url| !urls.insert(url)) {
            let all = members.iter().map(|(name, urls)| pairs(name, urls.iter().cloned()));
            return Err(ConfigError::DuplicateUrl(all.collect::<Vec<_>>().join(",")));
        }
        Ok(Roster::initial(&members, &self.initial_cluster_token)?)
    }

    fn check_advertised_in_cluster(&self, own: &[String]) -> Result<(), ConfigError> {
        let mut advertised: Vec<String> = self.advertise_peer.iter().map(Url::to_string).collect();
        advertised.sort();
        if advertised == own {
            return Ok(());
        }
        let beyond = |these: &[String], those: &[String]| -> Vec<String> {
            these.iter().filter(|url| !those.contains(url)).cloned().collect()
        };
        let missing = beyond(own, &advertised);
        if !missing.is_empty() {
            return Err(ConfigError::NotAdvertised {
                missing: pairs(&self.name, missing.into_iter()),
                advertised: advertised.join(","),
                why: difference(&advertised, own),
            });
        }
        let missing = beyond(&advertised, own).join(",");
        Err(ConfigError::NotInCluster { missing, cluster: pairs(&self.name, advertised.into_iter()) })
    }

    /// What is compacted by itself. In revision mode etcd takes a duration for its nanoseconds; so do we.
    pub fn auto_compaction(&self) -> Result<AutoCompaction, ConfigError> {
        let text = self.auto_compaction_retention.as_str();
        let wrong = || ConfigError::AutoCompactionRetention(text.into());
        let number = match text.parse::<i64>() {
            Ok(number) if number >= 0 => Some(number),
            Ok(_) | Err(_) => None,
        };
        let nanos = |text| parse_go_duration(text).ok_or_else(wrong);
        match self.auto_compaction_mode.as_str() {
            "periodic" | "" => {
                let period = match number {
                    Some(hours) => Duration::from_secs(hours.unsigned_abs().saturating_mul(3_600)),
                    None => Duration::from_nanos(nanos(text)?.max(0).unsigned_abs()),
                };
                Ok(if period.is_zero() { AutoCompaction::Off } else { AutoCompaction::Periodic(period) })
            }
            "revision" => {
                let revisions = number.map_or_else(|| nanos(text), Ok)?;
                Ok(if revisions <= 0 { AutoCompaction::Off } else { AutoCompaction::Revisions(revisions) })
            }
            other => Err(ConfigError::AutoCompactionMode(other.into())),
        }
    }

    /// Bytes that the store may take; None for no limit.
    pub fn quota_bytes(&self) -> Option<u64> {
        match self.quota_backend_bytes {
            0 => Some(QUOTA_DEFAULT),
            quota => u64::try_from(quota).ok(),
        }
    }

    /// Ticks of raft without a leader after which an election starts.
    pub fn election_ticks(&self) -> u64 {
        self.election_ms / self.heartbeat_ms.max(1)
    }

    /// How long a request may wait before its client is told that it timed out.
    pub fn request_timeout(&self) -> Duration {
        Duration::from_millis(5_000 + 2 * self.election_ms)
    }

    /// What is allowed but hardly meant, as sentences for the log.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.quota_backend_bytes > QUOTA_WARNED {
            let quota = self.quota_backend_bytes;
            warnings
                .push(format!("quota of {quota} bytes exceeds the recommended maximum of {QUOTA_WARNED}"));
        }
        if self.request_bytes_max > REQUEST_BYTES_WARNED {
            let bytes = self.request_bytes_max;
            warnings
                .push(format!("max request size of {bytes} exceeds the recommended {REQUEST_BYTES_WARNED}"));
        }
        if self.unsafe_no_fsync {
            warnings.push("--unsafe-no-fsync is not honoured: the log is synced all the same".into());
        }
        let unused = [
            ("initial-corrupt-check", self.initial_corrupt_check),
            ("corrupt-check-time", !self.corrupt_check_interval.is_zero()),
            ("enable-pprof", self.enable_pprof),
        ];
        for (flag, _) in unused.iter().filter(|(_, set)| *set) {
            warnings.push(format!("--{flag} (or its experimental form) has no effect yet"));
        }
        warnings
    }
}

/// Domain names may resolve differently when listening and when connecting, so etcd takes none but localhost.
fn check_bind(url: &Url) -> Result<(), ConfigError> {
    let host = url.host();
    if url.scheme().is_unix() || host == "localhost" || host.parse::<IpAddr>().is_ok() {
        return Ok(());
    }
    Err(ConfigError::BindHost(url.clone()))
}

fn check_advertised(flag: &'static str, urls: &[Url]) -> Result<(), ConfigError> {
    match urls.iter().find(|url| url.host().is_empty()) {
        Some(url) => Err(ConfigError::AdvertiseHost { flag, url: url.clone() }),
        None => Ok(()),
    }
}

/// `name=url,name=url`.
fn pairs(name: &str, urls: impl Iterator<Item = String>) -> String {
    urls.map(|url| format!("{name}={url}")).collect::<Vec<_>>().join(",")
}

/// The first difference of two lists of URLs, in etcd's words.
fn difference(advertised: &[String], own: &[String]) -> String {
    if advertised.len() != own.len() {
        let list = |urls: &[String]| urls.iter().map(|url| format!("{url:?}")).collect::<Vec<_>>().join(" ");
        return format!("len([{}]) != len([{}])", list(advertised), list(own));
    }
    let differ = advertised.iter().zip(own).find(|(a, b)| a != b);
    differ.map_or_else(String::new, |(a, b)| {
        format!("{a:?}(resolved from {a:?}) != {b:?}(resolved from {b:?})")
    })
}
