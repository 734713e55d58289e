//! Production: listeners, links, signals around a running member.

use std::{pin::pin, sync::Arc, time::Duration};

use axum::Router;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinSet,
};
use tower::Service;

use super::{
    api::{Grpc, Limits},
    config::{AutoCompaction, Config, InitialState},
    exit::Exit,
    http::{self, Access, Endpoints},
    jwt,
    listen::{self, ServeOptions},
    options::Options,
    paths::Paths,
    peer,
    run::{self, Running},
    sessions::Bcrypt,
};
use crate::{
    error::Fault,
    membership::urls::Url,
    node::Retention,
    runtime::{Production, Runtime as _},
    storage::wal,
};

/// How long a member that was asked to stop waits for its requests.
const GRACE: Duration = Duration::from_secs(5);
/// How long it may take to leave what makes the next start quick.
const CLOSE_MAX: Duration = Duration::from_secs(30);

/// Serves until a signal, a removal or a fault ends it.
pub async fn serve(config: Config) -> Ended {
    match Server::start(&config).await {
        Ok(server) => server.run().await,
        Err(fault) => Ended::Exit(Exit::Fault(fault)),
    }
}

/// What ended the server.
#[derive(Debug)]
pub enum Ended {
    /// The member itself.
    Exit(Exit),
    /// A signal, by its number.
    Signal(i32),
}

struct Server {
    running: Running<Production>,
    listeners: JoinSet<()>,
    stop: watch::Sender<bool>,
    /// Starts to serve clients, once the member is ready.
    clients: Option<ServeClients>,
}

type ServeClients = Box<dyn FnOnce(&mut Server) + Send>;

impl Server {
    async fn start(config: &Config) -> Result<Self, Fault> {
        for warning in config.warnings() {
            tracing::warn!("{warning}");
        }
        // Ports first: one in use is noticed before anything is written.
        let peer_listeners = bind_all(&config.listen_peer).await?;
        let client_listeners = bind_all(&config.listen_client).await?;
        let http_listeners = bind_all(&config.listen_client_http).await?;
        let metrics_listeners = bind_all(&config.listen_metrics).await?;

        let runtime = Production::new(Duration::from_millis(config.election_ms), config.extensive_metrics);
        let options = options(config)?;
        let paths = Paths::new(&options.data_dir, options.wal_dir.as_deref());
        if !wal::exists(&runtime.disk(), &paths.wal)? {
            // Before anything is written: once there is a log, these flags no longer count.
            config.initial_roster().map_err(|e| Fault::Refused(e.to_string()))?;
        }
        let running = run::start(runtime.clone(), options).await?;
        let (stop, stopped) = watch::channel(false);
        let mut server = Self { running, listeners: JoinSet::new(), stop, clients: None };
        let handle = server.running.handle.clone();
        handle.feed_metrics();

        let peers = peer::peer_router(handle.peers(), Arc::new(handle.clone()));
        server.listen(
            peer_listeners,
            peers,
            ServeOptions { write_timeout: Some(Duration::from_secs(5)), ..peer_options() },
            &stopped,
        );

        let endpoints = |metrics_only| {
            Arc::new(Endpoints {
                service: Arc::new(handle.clone()),
                metrics: handle.metrics(),
                access: Access {
                    cors: config.cors.clone(),
                    hosts: config.host_whitelist.clone(),
                    tls: false,
                },
                gateway: None,
                metrics_only,
            })
        };
        let grpc = Grpc::new(handle.clone());
        let options = client_options(config);
        let all = http::client_router(grpc, endpoints(false));
        server.listen(metrics_listeners, http::http_router::<Router>(endpoints(true)), options, &stopped);
        // As in etcd: clients that come early wait in the listener's queue.
        let http_only = http::http_router::<Router>(endpoints(false));
        server.clients = Some(Box::new(move |server| {
            server.listen(client_listeners, all, options, &stopped);
            server.listen(http_listeners, http_only, options, &stopped);
        }));
        Ok(server)
    }

    fn listen<S, B>(
        &mut self,
        listeners: Vec<TcpListener>,
        service: S,
        options: ServeOptions,
        stopped: &watch::Receiver<bool>,
    ) where
        S: Service<axum::http::Request<hyper::body::Incoming>, Response = axum::http::Response<B>>
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
        S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
        B: hyper::body::Body<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        for listener in listeners {
            self.listeners.spawn(listen::serve(listener, service.clone(), options, until(stopped.clone())));
        }
    }

    async fn run(mut self) -> Ended {
        let handle = self.running.handle.clone();
        // One for all rounds: what came between two of them would be heard by neither.
        let mut signals = pin!(signals());
        let ended = loop {
            tokio::select! {
                biased;
                exit = self.running.exit() => break Ended::Exit(exit),
                signal = &mut signals => break Ended::Signal(signal),
                () = handle.ready(), if self.clients.is_some() => {
                    if let Some(start) = self.clients.take() {
                        start(&mut self);
                    }
                    tracing::info!("ready to serve client requests");
                    // Without a service manager there is nobody to tell.
                    let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Ready]);
                }
            }
        };
        let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Stopping]);
        if matches!(ended, Ended::Signal(_)) {
            self.running.handle.hand_over().await;
        }
        self.stop.send_replace(true);
        let closed = async { while self.listeners.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(GRACE, closed).await;
        let handle = self.running.handle.clone();
        self.running.stop().await;
        if matches!(ended, Ended::Signal(_)) {
            let _ = tokio::time::timeout(CLOSE_MAX, handle.close()).await;
        }
        ended
    }
}

async fn until(mut stopped: watch::Receiver<bool>) {
    // A sender that is gone has stopped, too.
    let _ = stopped.wait_for(|stop| *stop).await;
}

/// Ends at the first signal that asks to stop, of those that come from this call on.
fn signals() -> impl Future<Output = i32> {
    let heard = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    async move {
        let (Ok(mut terminate), Ok(mut interrupt)) = heard else {
            return std::future::pending().await;
        };
        let (number, name) = tokio::select! {
            biased;
            _ = terminate.recv() => (SignalKind::terminate().as_raw_value(), "terminated"),
            _ = interrupt.recv() => (SignalKind::interrupt().as_raw_value(), "interrupt"),
        };
        tracing::info!(signal = name, "received signal; shutting down");
        number
    }
}

async fn bind_all(urls: &[Url]) -> Result<Vec<TcpListener>, Fault> {
    let mut listeners = Vec::new();
    for url in urls {
        let address = url.host_port().replace("localhost", "127.0.0.1");
        let listener = TcpListener::bind(&address).await.map_err(|error| {
            let why = if error.kind() == std::io::ErrorKind::AddrInUse {
                "bind: address already in use".to_owned()
            } else {
                error.to_string()
            };
            Fault::Refused(format!("listen tcp {address}: {why}"))
        })?;
        listeners.push(listener);
    }
    Ok(listeners)
}

fn peer_options() -> ServeOptions {
    ServeOptions { grace: Duration::from_millis(100), ..ServeOptions::default() }
}

fn client_options(config: &Config) -> ServeOptions {
    ServeOptions {
        concurrent_streams_max: config.concurrent_streams_max,
        keepalive_interval: (!config.keepalive.interval.is_zero()).then_some(config.keepalive.interval),
        keepalive_timeout: config.keepalive.timeout,
        ..ServeOptions::default()
    }
}

/// What the flags say, for the member.
fn options(config: &Config) -> Result<Options, Fault> {
    let texts = |urls: &[Url]| urls.iter().map(ToString::to_string).collect::<Vec<_>>();
    let cluster = config.initial_members().map_err(|e| Fault::Refused(e.to_string()))?;
    let retention = match config.auto_compaction().map_err(|e| Fault::Refused(e.to_string()))? {
        AutoCompaction::Off => Retention::All,
        AutoCompaction::Periodic(period) => Retention::Period(period),
        AutoCompaction::Revisions(revisions) => Retention::Revisions(revisions),
    };
    let quota = match config.quota_backend_bytes {
        0 => Limits::default().quota_bytes_max,
        bytes => u64::try_from(bytes).unwrap_or(u64::MAX),
    };
    let limits = Limits {
        request_bytes_max: config.request_bytes_max as usize,
        txn_ops_max: config.txn_ops_max,
        quota_bytes_max: quota,
        lease_ttl_min: crate::lease::ttl_min(config.election_ms),
        leaderless_max: Duration::from_millis(3 * config.election_ms),
        ..Limits::default()
    };
    let defaults = Options::new(&config.name, config.data_dir.clone());
    Ok(Options {
        wal_dir: config.wal_dir.clone(),
        peer_urls: texts(&config.advertise_peer),
        client_urls: texts(&config.advertise_client),
        cluster,
        token: config.initial_cluster_token.clone(),
        existing: config.initial_state == InitialState::Existing,
        force_new_cluster: config.force_new_cluster,
        tick_ms: config.heartbeat_ms,
        election_ticks: config.election_ms / config.heartbeat_ms,
        pre_vote: config.pre_vote,
        snapshot_entries: config.snapshot_count,
        catchup_entries: config.snapshot_catchup_entries,
        limits,
        strict_reconfig_check: config.strict_reconfig_check,
        learners_max: config.learners_max,
        retention,
        watch_progress: config.watch_progress_interval,
        compaction_batch: config.compaction_batch,
        compaction_pause: config.compaction_sleep,
        wals_max: config.wals_max as usize,
        snapshots_max: config.snapshots_max as usize,
        token_signer: jwt::of_flag(&config.auth_token)?,
        token_ttl: config.auth_token_ttl,
        password_hasher: Arc::new(Bcrypt(u32::try_from(config.bcrypt_cost).unwrap_or(u32::MAX))),
        ..defaults
    })
}
