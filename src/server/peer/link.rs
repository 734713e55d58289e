//! One peer: its URLs, the queues towards it, and which of its streams are up.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use hyper::body::{Body as HttpBody, Frame};
use prometheus::IntCounter;
use tokio::{
    sync::mpsc,
    task::AbortHandle,
    time::{Interval, MissedTickBehavior},
};

use super::{Shared, StreamKind, frames::FrameWriter, post, receive, renew};
use crate::{
    raft::{Body, Entry, Message, Payload},
    runtime::PeerEvent,
    types::{Instant, NodeId},
};

/// The most messages that wait for one stream.
const STREAM_QUEUE_MAX: usize = 4096;
/// The most messages that wait for POSTs.
const POST_QUEUE_MAX: usize = 64;
/// The most bytes that wait for one peer, over all its queues.
const QUEUE_BYTES_MAX: usize = 64 << 20;
/// A write takes what has queued up, until it has so many bytes.
const WRITE_BYTES_MAX: usize = 1 << 20;
/// A silent stream says so often that it lives: a third of the other end's patience.
const HEARTBEAT_PERIOD: Duration = Duration::from_nanos(5_000_000_000 / 3);

/// A message that waits, and what it weighs.
pub(super) struct Parcel {
    message: Message,
    size: usize,
    queued: Arc<AtomicUsize>,
}

impl Parcel {
    pub(super) fn message(&self) -> &Message {
        &self.message
    }
}

impl Drop for Parcel {
    fn drop(&mut self) {
        self.queued.fetch_sub(self.size, Ordering::Relaxed);
    }
}

/// Roughly the bytes that a message holds.
fn weight(message: &Message) -> usize {
    let payload = |payload: &Payload| match payload {
        Payload::Command(data) => data.len() + 32,
        Payload::Empty | Payload::Change(_) => 256,
    };
    let entries = |entries: &[Entry]| entries.iter().map(|entry| payload(&entry.payload)).sum::<usize>();
    match &message.body {
        Body::Append { entries: list, .. } => 128 + entries(list),
        Body::Propose { payloads } => 128 + payloads.iter().map(payload).sum::<usize>(),
        Body::Snapshot(snapshot) => 256 + snapshot.data.len(),
        Body::AppendAccepted { .. }
        | Body::AppendRejected { .. }
        | Body::Vote { .. }
        | Body::VoteReply { .. }
        | Body::Heartbeat { .. }
        | Body::HeartbeatReply { .. }
        | Body::TransferLeader { .. }
        | Body::TimeoutNow
        | Body::ReadIndex { .. }
        | Body::ReadIndexReply { .. } => 128,
    }
}

/// This peer's children of the families of counters.
pub(super) struct Counters {
    pub(super) sent_bytes: IntCounter,
    pub(super) received_bytes: IntCounter,
    pub(super) sent_failures: IntCounter,
    pub(super) received_failures: IntCounter,
}

/// The peer's URLs, and the one in use.
struct Urls {
    list: Vec<String>,
    picked: usize,
}

/// What is attached to it.
struct State {
    urls: Urls,
    /// The queues into the streams that it dialled, with the number of the stream.
    lanes: [Option<(u64, mpsc::Sender<Parcel>)>; 2],
    streams: u64,
    /// Which of the streams that we dialled are up, and since when both are.
    incoming: [bool; 2],
    since: Option<Instant>,
    tasks: Vec<AbortHandle>,
}

/// One peer.
pub(super) struct Peer {
    pub(super) id: NodeId,
    state: Mutex<State>,
    post: mpsc::Sender<Parcel>,
    /// Leases that it is to renew, as the leader.
    pub(super) renewals: mpsc::Sender<renew::Renewal>,
    queued: Arc<AtomicUsize>,
    kontiki: AtomicBool,
    pub(super) counters: Counters,
}

impl Peer {
    /// Starts its links. One that is not of the roster gets no streams.
    pub(super) fn start(shared: &Arc<Shared>, id: NodeId, urls: Vec<String>, streams: bool) -> Arc<Self> {
        let (post, posts) = mpsc::channel(POST_QUEUE_MAX);
        let (renewals, asked) = mpsc::channel(renew::QUEUE_MAX);
        let network = &shared.metrics.network;
        let label = id.to_string();
        let labels = [label.as_str()];
        let state = State {
            urls: Urls { list: urls, picked: 0 },
            lanes: [None, None],
            streams: 0,
            incoming: [false; 2],
            since: None,
            tasks: Vec::new(),
        };
        let peer = Arc::new(Self {
            id,
            state: Mutex::new(state),
            post,
            renewals,
            queued: Arc::default(),
            kontiki: AtomicBool::new(false),
            counters: Counters {
                sent_bytes: network.peer_sent_bytes.with_label_values(&labels),
                received_bytes: network.peer_received_bytes.with_label_values(&labels),
                sent_failures: network.peer_sent_failures.with_label_values(&labels),
                received_failures: network.peer_received_failures.with_label_values(&labels),
            },
        });
        let mut tasks = post::start(shared, &peer, posts);
        tasks.extend(renew::start(shared, &peer, asked));
        if streams {
            for kind in StreamKind::ALL {
                let task = receive::run(Arc::clone(shared), Arc::clone(&peer), kind);
                tasks.push(shared.runtime.spawn(task).abort_handle());
            }
            tasks.push(
                shared.runtime.spawn(receive::probe(Arc::clone(shared), Arc::clone(&peer))).abort_handle(),
            );
            let local = shared.local.id.to_string();
            network.known_peers.with_label_values(&[&local, &label]).set(1);
        }
        peer.lock().tasks = tasks;
        peer
    }

    /// Ends its links.
    pub(super) fn stop(&self, shared: &Shared) {
        let mut state = self.lock();
        for task in state.tasks.drain(..) {
            task.abort();
        }
        state.lanes = [None, None];
        drop(state);
        for kind in StreamKind::ALL {
            self.set_incoming(shared, kind, false);
        }
        let labels = [&shared.local.id.to_string(), &self.id.to_string()];
        drop(shared.metrics.network.known_peers.remove_label_values(&labels));
        drop(shared.metrics.network.active_peers.remove_label_values(&labels));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The URL to try.
    pub(super) fn url(&self) -> String {
        let state = self.lock();
        state.urls.list.get(state.urls.picked).cloned().unwrap_or_default()
    }

    /// `url` did not work: the next one is in use, unless another task has moved on already.
    pub(super) fn url_failed(&self, url: &str) {
        let urls = &mut self.lock().urls;
        if urls.list.get(urls.picked).is_some_and(|picked| picked == url) {
            urls.picked = (urls.picked + 1) % urls.list.len();
        }
    }

    /// Where it is, the URL that answered last first.
    pub(super) fn urls(&self) -> Vec<String> {
        let urls = &self.lock().urls;
        let mut list = urls.list.clone();
        list.rotate_left(urls.picked);
        list
    }

    pub(super) fn set_urls(&self, list: Vec<String>) {
        let urls = &mut self.lock().urls;
        if urls.list != list {
            *urls = Urls { list, picked: 0 };
        }
    }

    /// Whether it says, newest, that it takes our snapshots.
    pub(super) fn set_kontiki(&self, kontiki: bool) {
        self.kontiki.store(kontiki, Ordering::Relaxed);
    }

    pub(super) fn is_kontiki(&self) -> bool {
        self.kontiki.load(Ordering::Relaxed)
    }

    /// Queues a message for the stream of its kind, or for a POST if there is none. False if it was dropped.
    pub(super) fn offer(&self, message: Message) -> bool {
        let kind = match &message.body {
            Body::Append { .. } => StreamKind::Append,
            // It needs its body beside it.
            Body::Snapshot(_) => return false,
            Body::Propose { .. }
            | Body::AppendAccepted { .. }
            | Body::AppendRejected { .. }
            | Body::Vote { .. }
            | Body::VoteReply { .. }
            | Body::Heartbeat { .. }
            | Body::HeartbeatReply { .. }
            | Body::TransferLeader { .. }
            | Body::TimeoutNow
            | Body::ReadIndex { .. }
            | Body::ReadIndexReply { .. } => StreamKind::Message,
        };
        let size = weight(&message);
        let queued = self.queued.fetch_add(size, Ordering::Relaxed);
        let parcel = Parcel { message, size, queued: Arc::clone(&self.queued) };
        // Entries fill the room; what keeps the cluster together always fits.
        if kind == StreamKind::Append && queued + size > QUEUE_BYTES_MAX {
            return false;
        }
        let state = self.lock();
        match &state.lanes[kind.slot()] {
            Some((_, lane)) => lane.try_send(parcel).is_ok(),
            None => self.post.try_send(parcel).is_ok(),
        }
    }

    /// Attaches a stream that the peer dialled; one of the same kind that was there ends.
    pub(super) fn attach(self: &Arc<Self>, shared: &Arc<Shared>, kind: StreamKind) -> StreamBody {
        let (lane, parcels) = mpsc::channel(STREAM_QUEUE_MAX);
        let mut state = self.lock();
        state.streams += 1;
        let number = state.streams;
        state.lanes[kind.slot()] = Some((number, lane));
        drop(state);
        let mut heartbeat = tokio::time::interval(HEARTBEAT_PERIOD);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        StreamBody {
            shared: Arc::clone(shared),
            peer: Arc::clone(self),
            kind,
            number,
            parcels,
            writer: FrameWriter::new(kind),
            heartbeat,
            wrote: false,
        }
    }

    /// A stream that we dialled came up or went down.
    pub(super) fn set_incoming(&self, shared: &Shared, kind: StreamKind, up: bool) {
        let mut state = self.lock();
        state.incoming[kind.slot()] = up;
        let active = state.incoming == [true; 2];
        if active == state.since.is_some() {
            return;
        }
        state.since = active.then(|| (shared.local.now)());
        drop(state);
        let labels = [&shared.local.id.to_string(), &self.id.to_string()];
        let network = &shared.metrics.network;
        network.active_peers.with_label_values(&labels).set(active.into());
        if active {
            tracing::info!(peer = %self.id, "connected");
        } else {
            network.disconnected_peers.with_label_values(&labels).inc();
            tracing::info!(peer = %self.id, "disconnected");
        }
    }

    pub(super) fn active_since(&self) -> Option<Instant> {
        self.lock().since
    }
}

/// The body of a response that is a stream: frames of what the lane brings, batched, and signs of life.
pub(super) struct StreamBody {
    shared: Arc<Shared>,
    peer: Arc<Peer>,
    kind: StreamKind,
    number: u64,
    parcels: mpsc::Receiver<Parcel>,
    writer: FrameWriter,
    heartbeat: Interval,
    /// Whether anything was written since the last tick.
    wrote: bool,
}

impl HttpBody for StreamBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        let mut out = BytesMut::new();
        while out.len() < WRITE_BYTES_MAX {
            match this.parcels.poll_recv(context) {
                Poll::Ready(Some(parcel)) => this.writer.message(parcel.message(), &mut out),
                // Another stream took this one's place.
                Poll::Ready(None) if out.is_empty() => return Poll::Ready(None),
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        while this.heartbeat.poll_tick(context).is_ready() {
            if out.is_empty() && !this.wrote {
                this.writer.heartbeat(&mut out);
            }
            this.wrote = false;
        }
        if out.is_empty() {
            return Poll::Pending;
        }
        this.wrote = true;
        this.peer.counters.sent_bytes.inc_by(out.len() as u64);
        Poll::Ready(Some(Ok(Frame::data(out.freeze()))))
    }
}

impl Drop for StreamBody {
    fn drop(&mut self) {
        let mut state = self.peer.lock();
        let lane = &mut state.lanes[self.kind.slot()];
        if lane.as_ref().is_some_and(|(number, _)| *number == self.number) {
            *lane = None;
            drop(state);
            // What was queued or on its way may be lost: raft is to ask where the peer's log stands.
            self.shared.report(PeerEvent::Unreachable(self.peer.id));
        }
    }
}
