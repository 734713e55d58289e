//! The watch hub's worker: feeds the pure hub and hands its frames to the streams.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst, fence},
    },
};

use tokio::sync::{mpsc, oneshot};

use crate::{
    error::Fault,
    mvcc::{Event, Store},
    runtime::Runtime,
    types::{Instant, Revision},
    watch::{Frame, Hub, StreamId},
};

use super::{
    api::WatchInput,
    exit::{Exit, Exits},
    stats::Stats,
};

/// What the hub is told.
#[derive(Debug)]
pub(super) enum HubJob {
    /// A client opens a stream: its number is answered, its frames go to the sender.
    Open(oneshot::Sender<StreamId>, mpsc::UnboundedSender<Frame>),
    /// What a stream's handler says.
    Input(WatchInput),
    /// These changes were published, up to the revision.
    Events(Vec<Event>, Revision),
    /// What is older was compacted.
    Compacted(Revision),
    /// A snapshot replaced the store.
    Restored,
    /// Time has passed.
    Tick(Instant),
    /// There is more to hand out.
    Poll,
}

/// How often the watches are counted, which looks at each of them.
const COUNT_MS: u64 = 2_000;

/// Whether there is any stream: while there is none, nobody wakes the hub for what is applied.
///
/// The applier publishes a revision and then looks here; the hub says that a stream is there and then looks at the
/// revision. A fence between the two on either side sees to it that no event falls between: either the applier
/// tells the hub of it, or the hub's revision is not before it.
#[derive(Debug, Default)]
pub(super) struct Audience(AtomicBool);

impl Audience {
    fn set(&self, there: bool) {
        self.0.store(there, SeqCst);
        fence(SeqCst);
    }

    pub fn is_there(&self) -> bool {
        fence(SeqCst);
        self.0.load(SeqCst)
    }
}

/// Frames for streams, in order.
pub(super) type Outgoing = Vec<(mpsc::UnboundedSender<Frame>, Frame)>;

/// Hands frames to their streams' tasks. It is a task itself: to wake a task from a thread that is not the
/// runtime's costs a call of the system, which is so made once a round and not once a stream.
pub(super) async fn distribute(mut rounds: mpsc::UnboundedReceiver<Outgoing>) {
    while let Some(round) = rounds.recv().await {
        for (stream, frame) in round {
            // Its end may be on its way to the hub.
            let _ = stream.send(frame);
        }
    }
}

/// The hub and where its frames go.
pub(super) struct HubWorker<R: Runtime> {
    pub hub: Hub,
    pub store: Arc<Store<Arc<R::Backend>>>,
    pub streams: BTreeMap<StreamId, mpsc::UnboundedSender<Frame>>,
    pub now: Instant,
    /// When the watches were last counted.
    pub counted: Instant,
    pub stats: Arc<Stats>,
    pub out: mpsc::UnboundedSender<Outgoing>,
    pub audience: Arc<Audience>,
    pub again: mpsc::WeakUnboundedSender<HubJob>,
    pub exits: Exits,
}

impl<R: Runtime> HubWorker<R> {
    pub fn work(&mut self, jobs: Vec<HubJob>) {
        for job in jobs {
            self.job(job);
        }
        if let Err(fault) = self.hand_out() {
            self.exits.tell(Exit::Fault(fault));
        }
    }

    fn job(&mut self, job: HubJob) {
        match job {
            HubJob::Open(reply, frames) => {
                if self.hub.streams() == 0 {
                    self.audience.set(true);
                    // What was published while nobody listened is history.
                    self.hub.events(&[], self.store.revision());
                }
                let stream = self.hub.open_stream();
                self.streams.insert(stream, frames);
                if reply.send(stream).is_err() {
                    self.close(stream);
                }
            }
            HubJob::Input(WatchInput::Asked { stream, request, taken: _ }) => {
                self.hub.request(stream, request, self.store.revision(), self.now);
            }
            HubJob::Input(WatchInput::Drained(stream, frames)) => self.hub.drained(stream, frames),
            HubJob::Input(WatchInput::Closed(stream)) => self.close(stream),
            HubJob::Events(events, revision) => self.hub.events(&events, revision),
            HubJob::Compacted(revision) => self.hub.compacted(revision),
            HubJob::Restored => self.hub.restored(self.store.revision()),
            HubJob::Tick(now) => {
                self.now = now;
                self.hub.tick(now);
                if now.since(self.counted) >= COUNT_MS {
                    self.counted = now;
                    self.count();
                }
            }
            HubJob::Poll => {}
        }
    }

    fn count(&self) {
        let (watches, behind) = self.hub.watches();
        self.stats.watchers.set(watches as u64);
        self.stats.slow_watchers.set(behind as u64);
    }

    fn close(&mut self, stream: StreamId) {
        self.hub.close_stream(stream);
        self.streams.remove(&stream);
        if self.hub.streams() == 0 {
            self.audience.set(false);
        }
    }

    /// One bounded round; what is left comes after the jobs that have come in meanwhile.
    fn hand_out(&mut self) -> Result<(), Fault> {
        let frames = self.hub.poll(&*self.store)?;
        if !frames.is_empty()
            && let Some(again) = self.again.upgrade()
        {
            let _ = again.send(HubJob::Poll);
        }
        self.stats.watch_streams.set(self.hub.streams() as u64);
        self.stats.events_sent.add(frames.iter().map(|(_, frame)| frame.events.len() as u64).sum());
        // A stream that is gone says so itself.
        let to = |stream: StreamId| self.streams.get(&stream).cloned();
        let addressed = frames.into_iter().filter_map(|(stream, frame)| Some((to(stream)?, frame)));
        let out: Outgoing = addressed.collect();
        if !out.is_empty() {
            let _ = self.out.send(out);
        }
        Ok(())
    }
}
