//! Starts a member: boots it, then its workers, and hands out the handle.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::sync::{mpsc, oneshot};

use super::{
    api::Member as _,
    applier::Applier,
    boot::{self, Booted},
    driver::{Core, Driver},
    duties::{self, CompactionPace},
    exit::{Exit, Exits},
    hub::{self, HubJob, HubWorker},
    keeper::Keeper,
    log::{LogWorker, SnapshotFiles},
    member::Handle,
    options::Options,
    paths::Paths,
    sessions::Sessions,
    shared::{Facts, Shared, View},
    stats::Stats,
};
use crate::{
    error::Fault,
    lease::ExpirerConfig,
    node::{self, Node},
    raft,
    runtime::{Clock, Entropy, Local, PeerNet, Runtime, Task},
    state::AlarmKind,
    storage::wal::Wal,
    watch::{self, Hub},
};

/// A member that runs until it is stopped or stops by itself.
pub struct Running<R: Runtime> {
    /// For those who serve clients and peers.
    pub handle: Handle<R>,
    exits: mpsc::UnboundedReceiver<Exit>,
    /// Whether it was removed, and only stays until the others know.
    leaving: bool,
    stop: oneshot::Sender<()>,
    driver: Task,
    duties: Vec<Task>,
}

impl<R: Runtime> Running<R> {
    /// Waits until the member stops by itself. One that was removed stays for a little while, so that a leader can tell
    /// the others that it is out: they would need its vote until they know. May be dropped, and called again.
    pub async fn exit(&mut self) -> Exit {
        if !self.leaving {
            match self.exits.recv().await {
                Some(Exit::Removed) => self.leaving = true,
                other => return other.unwrap_or(Exit::Stopped),
            }
        }
        self.handle.sleep(LEAVING).await;
        Exit::Removed
    }

    /// Stops it: what is on its way to the log is written, nothing new is taken.
    pub async fn stop(self) {
        for duty in self.duties {
            duty.abort();
        }
        let _ = self.stop.send(());
        // The driver's end closes the workers' queues but for what the handle still holds.
        self.driver.ended().await;
    }
}

/// How long a member that was removed stays; etcd's.
const LEAVING: Duration = Duration::from_secs(1);

/// What has come in from peers and not been taken: past that their links wait.
const PEER_EVENTS_MAX: usize = 16 * 1024;

/// How many jobs a worker takes at once.
const LOG_BATCH_MAX: usize = 1024;
const APPLY_BATCH_MAX: usize = 1024;
const KEEP_BATCH_MAX: usize = 1;
const HUB_BATCH_MAX: usize = 4096;

/// Starts a member on `runtime`.
pub async fn start<R: Runtime>(runtime: R, options: Options) -> Result<Running<R>, Fault> {
    let paths = Paths::new(&options.data_dir, options.wal_dir.as_deref());
    let booted = boot::boot(&runtime, &options, &paths).await?;
    let (exits, exited) = Exits::new();
    let (driver_tx, driver_rx) = mpsc::unbounded_channel();
    let (peer_tx, peer_rx) = mpsc::channel(PEER_EVENTS_MAX);
    let (log_tx, log_rx) = mpsc::unbounded_channel();
    let (applier_tx, applier_rx) = mpsc::unbounded_channel();
    let (keeper_tx, keeper_rx) = mpsc::unbounded_channel();
    let (hub_tx, hub_rx) = mpsc::unbounded_channel();

    let Booted { me, cluster, wal, files, backend, machine, restored, start, remotes } = booted;
    let local = Local { id: me, cluster, peer_urls: options.peer_urls.clone(), snap_dir: paths.snap.clone() };
    let peers = runtime.open_peers(&local, peer_tx)?;
    let clock = runtime.clock();
    let view = View { roster: machine.roster().clone(), alarms: machine.alarms().get(AlarmKind::None) };
    for member in view.roster.members().chain(&remotes).filter(|m| m.id != me) {
        peers.add_peer(member.id, member.peer_urls.clone());
    }
    let node_config = node_config(&options, me, runtime.entropy().next_u64());
    let shared = Arc::new(Shared {
        paths,
        me,
        cluster,
        settings: (&options).into(),
        store: machine.store().clone(),
        backend,
        peers,
        driver: driver_tx,
        applier: applier_tx,
        keeper: keeper_tx,
        hub: hub_tx,
        audience: Arc::default(),
        exits,
        sessions: Sessions::new(&runtime, (&options).into(), machine.auth().clone()),
        facts: Facts::new(me, clock.unix_millis(), view, restored.applied),
        stats: Arc::new(Stats::default()),
        tables: Mutex::default(),
        runtime: runtime.clone(),
    });
    shared.stats.keys.set(shared.count_keys()?);
    let node = Node::new(node_config, restored, start).map_err(|e| {
        Fault::corrupt(format!("{e}: the log in {} can't be gone on from", shared.paths.wal.display()))
    })?;

    let driver = Driver::new(Core::new(node, options.tick_ms, log_tx.clone(), shared.clone()));
    let mut log = log_worker(&shared, wal, files, &driver);
    runtime.spawn_worker("log", log_rx, LOG_BATCH_MAX, move |jobs| log.work(jobs));
    let mut applier = Applier {
        machine,
        shared: shared.clone(),
        driver: driver.way_in(),
        run_entries_max: options.tuning.run_entries_max,
        failed: false,
    };
    runtime.spawn_worker("applier", applier_rx, APPLY_BATCH_MAX, move |jobs| applier.work(jobs));
    let mut keeper = Keeper {
        shared: shared.clone(),
        log: log_tx,
        frame_bytes_max: options.tuning.snapshot_frame_bytes_max,
        backups: 0,
    };
    runtime.spawn_worker("keeper", keeper_rx, KEEP_BATCH_MAX, move |jobs| keeper.work(jobs));
    let mut hub = hub_worker(&shared, &options);
    runtime.spawn_worker("watch", hub_rx, HUB_BATCH_MAX, move |jobs: Vec<HubJob>| hub.work(jobs));

    let (stop, stopped) = oneshot::channel();
    let driver = Task::start(&runtime, driver.run(clock, driver_rx, peer_rx, stopped));
    let handle = Handle { shared };
    let duties = start_duties(&handle, &options);
    Ok(Running { handle, exits: exited, leaving: false, stop, driver, duties })
}

fn log_worker<R: Runtime>(
    shared: &Arc<Shared<R>>,
    wal: Wal<R::Disk>,
    files: SnapshotFiles<R::Disk>,
    driver: &Arc<Driver<R>>,
) -> LogWorker<R> {
    LogWorker {
        wal,
        files,
        driver: driver.way_in(),
        exits: shared.exits.clone(),
        clock: shared.runtime.clock(),
        stats: shared.stats.clone(),
        failed: false,
    }
}

fn hub_worker<R: Runtime>(shared: &Arc<Shared<R>>, options: &Options) -> HubWorker<R> {
    let tuning = &options.tuning;
    let config = watch::Config {
        progress_interval_ms: options.watch_progress.as_millis() as u64,
        stream_queue_max: options.watch_queue_max,
        fragment_bytes_max: options.limits.message_bytes_max().min(tuning.fragment_bytes_max),
        batch_revisions_max: tuning.history_revisions_max,
        batch_bytes_max: tuning.history_bytes_max,
        stream_bytes_max: tuning.stream_bytes_max,
        poll_frames_max: tuning.frames_max,
        ..watch::Config::default()
    };
    let (out, rounds) = mpsc::unbounded_channel();
    shared.runtime.spawn(hub::distribute(rounds));
    HubWorker {
        out,
        hub: Hub::new(config, shared.store.revision()),
        store: shared.store.clone(),
        streams: BTreeMap::new(),
        now: shared.runtime.clock().now(),
        counted: shared.runtime.clock().now(),
        stats: shared.stats.clone(),
        audience: shared.audience.clone(),
        again: shared.hub.downgrade(),
        exits: shared.exits.clone(),
    }
}

fn start_duties<R: Runtime>(handle: &Handle<R>, options: &Options) -> Vec<Task> {
    let pace = CompactionPace { revisions_max: options.compaction_batch, pause: options.compaction_pause };
    let runtime = &handle.shared.runtime;
    vec![
        Task::start(
            runtime,
            duties::publish(handle.clone(), options.name.clone(), options.client_urls.clone()),
        ),
        Task::start(runtime, duties::decide_version(handle.clone())),
        Task::start(runtime, duties::auto_compact(handle.clone(), options.retention)),
        Task::start(runtime, duties::compact(handle.shared.clone(), pace)),
    ]
}

fn node_config(options: &Options, me: crate::types::NodeId, seed: u64) -> node::Config {
    let tuning = &options.tuning;
    let raft = raft::Config {
        election_ticks: options.election_ticks,
        persist_ticks_max: options.election_ticks,
        pre_vote: options.pre_vote,
        append_bytes_max: tuning.append_bytes_max,
        inflight_max: tuning.inflight_max,
        inflight_bytes_max: tuning.inflight_bytes_max,
        committed_bytes_max: tuning.committed_bytes_max,
        ..raft::Config::new(me, seed)
    };
    node::Config {
        raft,
        tick_ms: options.tick_ms,
        request_timeout_ms: options.request_timeout_ms(),
        read_retry_ms: 500,
        apply_lag_max: tuning.apply_lag_max,
        proposals_max: 1 << 20,
        reads_max: 1 << 20,
        snapshot_entries: options.snapshot_entries,
        snapshot_bytes: 64 << 20,
        catchup_entries: options.catchup_entries,
        catchup_bytes: 64 << 20,
        marks_max: 1024,
        expirer: ExpirerConfig {
            window_revokes_max: tuning.revokes_max,
            checkpoint_ms: Some(options.lease_checkpoint.as_millis() as u64),
            ..ExpirerConfig::default()
        },
    }
}
