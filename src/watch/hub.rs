//! The hub: what comes in, and how it changes streams. What goes out is in `catch_up`.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use bytes::Bytes;

use super::{
    Config, Create, Frame, StreamId, WatchId, WatchRequest,
    index::{Index, Span, WatchKey, scramble},
    stream::{Queued, Slot, Stream, Watch, bytes_of},
};
use crate::{
    error::Refusal,
    mvcc::Event,
    types::{Instant, KeyRange, Revision},
};

const DUPLICATE_ID: &str = "mvcc: duplicate watch ID provided on the WatchStream";
const EMPTY_RANGE: &str = "mvcc: watcher range is empty";

/// When a watch that asked for progress gets some.
#[derive(Clone, Copy, Debug)]
struct Idle {
    due: Instant,
    last_event: Instant,
}

/// All watches of one member; see the module's page.
#[derive(Debug)]
pub struct Hub {
    pub(super) config: Config,
    /// All events up to here have been published to the hub.
    pub(super) revision: Revision,
    pub(super) compacted: Revision,
    now: Instant,
    made: u64,
    pub(super) streams: BTreeMap<StreamId, Stream>,
    /// Watches that hear of events as they are published.
    pub(super) synced: Index,
    /// Streams with something queued and credit for it.
    pub(super) ready: BTreeSet<StreamId>,
    /// Streams with watches behind, credit, and nothing queued.
    pub(super) lagging: BTreeSet<StreamId>,
    /// Watches that are behind, by the next revision that they need.
    pub(super) behind: BTreeSet<(Revision, WatchKey)>,
    /// The streams that were served last, from the queue and from history.
    pub(super) turn: (StreamId, StreamId),
    /// Streams whose client waits for progress.
    waiting: BTreeSet<StreamId>,
    idle: BTreeMap<WatchKey, Idle>,
    idle_due: BTreeSet<(Instant, WatchKey)>,
}

impl Hub {
    /// A hub whose store is at `revision`.
    pub fn new(config: Config, revision: Revision) -> Self {
        Self {
            config,
            revision,
            compacted: Revision(0),
            now: Instant(0),
            made: 0,
            streams: BTreeMap::new(),
            synced: Index::default(),
            ready: BTreeSet::new(),
            lagging: BTreeSet::new(),
            behind: BTreeSet::new(),
            turn: (StreamId(0), StreamId(0)),
            waiting: BTreeSet::new(),
            idle: BTreeMap::new(),
            idle_due: BTreeSet::new(),
        }
    }

    /// The revision up to which events have been published to it.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// How many streams there are.
    pub fn streams(&self) -> usize {
        self.streams.len()
    }

    /// How many live watches there are, and how many of them are behind.
    pub fn watches(&self) -> (usize, usize) {
        let live =
            |stream: &Stream| stream.slots.values().filter(|slot| matches!(slot, Slot::Live(_))).count();
        (self.streams.values().map(live).sum(), self.behind.len())
    }

    /// A new stream.
    pub fn open_stream(&mut self) -> StreamId {
        self.made += 1;
        let id = StreamId(self.made);
        self.streams.insert(id, Stream::default());
        id
    }

    /// The end of a stream and of all its watches.
    pub fn close_stream(&mut self, id: StreamId) {
        let ids: Vec<WatchId> = match self.streams.get(&id) {
            Some(stream) => stream.slots.keys().copied().collect(),
            None => return,
        };
        for watch in ids {
            self.end_watch(WatchKey { stream: id, id: watch });
        }
        self.streams.remove(&id);
        self.ready.remove(&id);
        self.lagging.remove(&id);
        self.waiting.remove(&id);
    }

    /// Whether the stream takes requests: when its answers pile up, its client is to wait.
    pub fn accepts(&self, id: StreamId) -> bool {
        self.streams.get(&id).is_some_and(|stream| stream.queue.len() < 2 * self.config.stream_queue_max)
    }

    /// What a client asks. `current` is the store's revision, which may be ahead of what has been published to
    /// the hub. Ignored if the stream is gone.
    pub fn request(&mut self, stream: StreamId, request: WatchRequest, current: Revision, now: Instant) {
        self.now = self.now.max(now);
        if !self.streams.contains_key(&stream) {
            return;
        }
        let current = current.max(self.revision);
        match request {
            WatchRequest::Create(create) => self.create(stream, create, current),
            WatchRequest::Cancel { id } => {
                let key = WatchKey { stream, id };
                if self.end_watch(key) {
                    let frame = Frame { watch_id: id, revision: current, canceled: true, ..Frame::default() };
                    self.push(stream, Queued::Control(frame));
                    self.answer_progress(stream);
                }
            }
            WatchRequest::Progress => {
                if let Some(stream) = self.streams.get_mut(&stream) {
                    stream.progress_wanted = stream.progress_wanted.max(Some(current));
                }
                self.answer_progress(stream);
            }
        }
    }

    /// Answers a create that may not be: permission is asked before the hub is.
    pub fn refuse(&mut self, stream: StreamId, reason: impl Into<Cow<'static, str>>, current: Revision) {
        let frame = Frame {
            watch_id: WatchId::NONE,
            revision: current.max(self.revision),
            created: true,
            canceled: true,
            cancel_reason: reason.into(),
            ..Frame::default()
        };
        self.push(stream, Queued::Control(frame));
    }

    fn create(&mut self, id: StreamId, mut create: Create, current: Revision) {
        if create.range.start.is_empty() {
            create.range = KeyRange { start: Bytes::from_static(&[0]), end: create.range.end };
        }
        if create.start < Revision(0) {
            return self.refuse(id, Refusal::Compacted.to_string(), current);
        }
        if create.range.is_empty() {
            return self.refuse(id, EMPTY_RANGE, current);
        }
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.slots.len() >= self.config.stream_watches_max {
            return self.refuse(id, Refusal::TooManyRequests.to_string(), current);
        }
        let Some(watch_id) = stream.assign(create.watch_id) else {
            return self.refuse(id, DUPLICATE_ID, current);
        };
        let key = WatchKey { stream: id, id: watch_id };
        let next = if create.start == Revision(0) { current.next() } else { create.start };
        let watch = Watch {
            span: Span::of(&create.range),
            next,
            behind: next <= self.revision,
            no_put: create.no_put,
            no_delete: create.no_delete,
            prev_kv: create.prev_kv,
            fragment: create.fragment,
        };
        if watch.behind {
            stream.behind.insert(watch_id);
            self.behind.insert((next, key));
        } else {
            self.synced.insert(&watch.span, key);
            if next > self.revision.next() {
                stream.starts.insert((next, watch_id));
            }
        }
        stream.slots.insert(watch_id, Slot::Live(watch));
        if create.progress_notify {
            let due = self.now.after(self.interval(id));
            self.idle.insert(key, Idle { due, last_event: self.now });
            self.idle_due.insert((due, key));
        }
        let frame = Frame { watch_id, revision: current, created: true, ..Frame::default() };
        self.push(id, Queued::Control(frame));
    }

    /// The progress interval of a stream: up to a tenth longer, so that streams do not all come at once.
    fn interval(&self, stream: StreamId) -> u64 {
        let interval = self.config.progress_interval_ms.max(1);
        interval + scramble(stream.0) % (interval / 10 + 1)
    }

    /// Frees an id; whether it stood for anything.
    fn end_watch(&mut self, key: WatchKey) -> bool {
        let Some(stream) = self.streams.get_mut(&key.stream) else { return false };
        let slot = stream.slots.remove(&key.id);
        stream.forget(key.id);
        match slot {
            None => return false,
            Some(Slot::Compacted) => return true,
            Some(Slot::Live(watch)) if watch.behind => {
                stream.behind.remove(&key.id);
                self.behind.remove(&(watch.next, key));
            }
            Some(Slot::Live(watch)) => self.synced.remove(&watch.span, key),
        }
        self.forget_idle(key);
        self.reschedule(key.stream);
        true
    }

    fn forget_idle(&mut self, key: WatchKey) {
        if let Some(idle) = self.idle.remove(&key) {
            self.idle_due.remove(&(idle.due, key));
        }
    }

    /// What was published: all events of the revisions after the hub's, up to `revision`, in order. Those that
    /// it has seen are skipped.
    pub fn events(&mut self, events: &[Event], revision: Revision) {
        let fresh = events.partition_point(|event| event.at.main <= self.revision);
        for events in events[fresh..].chunk_by(|a, b| a.at.main == b.at.main) {
            self.publish(events);
        }
        self.revision = self.revision.max(revision);
        let waiting: Vec<StreamId> = self.waiting.iter().copied().collect();
        for stream in waiting {
            self.answer_progress(stream);
        }
    }

    /// Hands one revision's events to the synced watches.
    fn publish(&mut self, events: &[Event]) {
        let revision = events[0].at.main;
        let mut frames: BTreeMap<WatchKey, Vec<Event>> = BTreeMap::new();
        for event in events {
            self.synced.matches(&event.key, |key| {
                let watch = self.streams.get(&key.stream).and_then(|stream| stream.watch(key.id));
                if watch.is_some_and(|watch| watch.next <= revision && watch.wants(event.deleted)) {
                    frames.entry(key).or_default().push(event.clone());
                }
            });
        }
        // Queued or lost, the revision is with the watch's stream before the next one is looked at.
        for (key, events) in frames {
            if let Some(idle) = self.idle.get_mut(&key) {
                idle.last_event = self.now;
            }
            self.push_events(key, revision, events);
        }
    }

    fn push_events(&mut self, key: WatchKey, revision: Revision, events: Vec<Event>) {
        let Some(stream) = self.streams.get_mut(&key.stream) else { return };
        let bytes = bytes_of(&events);
        // A watch may have fallen behind with an earlier event of this same call.
        if stream.watch(key.id).is_none_or(|watch| watch.behind) {
            return;
        }
        if stream.has_room(bytes, &self.config) {
            stream.queued_bytes += bytes;
            return self.push(key.stream, Queued::Events { id: key.id, revision, events });
        }
        let mut lost = stream.lose();
        lost.entry(key.id).or_insert(revision);
        if stream.progress_wanted.is_some() {
            self.waiting.insert(key.stream);
        }
        for (id, first) in lost {
            self.fall_behind(WatchKey { stream: key.stream, id }, first);
        }
        self.reschedule(key.stream);
    }

    /// Leaves a synced watch to history, from `next` on.
    fn fall_behind(&mut self, key: WatchKey, next: Revision) {
        let Some(stream) = self.streams.get_mut(&key.stream) else { return };
        let Some(watch) = stream.watch_mut(key.id) else { return };
        let old = std::mem::replace(&mut watch.next, next);
        if std::mem::replace(&mut watch.behind, true) {
            self.behind.remove(&(old, key));
        } else {
            self.synced.remove(&watch.span, key);
        }
        stream.behind.insert(key.id);
        self.behind.insert((next, key));
    }

    /// Back among the synced ones; all events below `next` are out.
    pub(super) fn catch_on(&mut self, key: WatchKey, next: Revision) {
        let Some(stream) = self.streams.get_mut(&key.stream) else { return };
        let Some(watch) = stream.watch_mut(key.id) else { return };
        assert!(watch.behind, "a synced watch has nothing to catch up with");
        let old = std::mem::replace(&mut watch.next, next);
        self.behind.remove(&(old, key));
        if next <= self.revision {
            self.behind.insert((next, key));
        } else {
            watch.behind = false;
            self.synced.insert(&watch.span, key);
            stream.behind.remove(&key.id);
            self.answer_progress(key.stream);
        }
        self.reschedule(key.stream);
    }

    /// History below `revision` is gone: watches that need it end.
    pub fn compacted(&mut self, revision: Revision) {
        self.compacted = self.compacted.max(revision);
        while let Some((next, key)) = self.behind.first().copied() {
            if next >= self.compacted {
                break;
            }
            self.behind.remove(&(next, key));
            if let Some(stream) = self.streams.get_mut(&key.stream) {
                stream.behind.remove(&key.id);
                stream.slots.insert(key.id, Slot::Compacted);
                stream.forget(key.id);
            }
            self.forget_idle(key);
            let frame = Frame {
                watch_id: key.id,
                canceled: true,
                compact_revision: self.compacted,
                ..Frame::default()
            };
            self.push(key.stream, Queued::Control(frame));
            self.answer_progress(key.stream);
        }
    }

    /// The store was replaced by a snapshot's, which is at `revision`: what lies between is read from history.
    pub fn restored(&mut self, revision: Revision) {
        if revision <= self.revision {
            return;
        }
        let from = self.revision.next();
        let synced: Vec<(WatchKey, Revision)> = self
            .streams
            .iter()
            .flat_map(|(id, stream)| stream.slots.iter().map(move |(watch, slot)| (*id, *watch, slot)))
            .filter_map(|(stream, id, slot)| match slot {
                Slot::Live(watch) if !watch.behind => Some((WatchKey { stream, id }, watch.next.max(from))),
                Slot::Live(_) | Slot::Compacted => None,
            })
            .filter(|(_, next)| *next <= revision)
            .collect();
        self.revision = revision;
        for (key, next) in synced {
            self.fall_behind(key, next);
            self.reschedule(key.stream);
        }
    }

    /// The client's end took `frames` frames.
    pub fn drained(&mut self, id: StreamId, frames: usize) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.in_flight = stream.in_flight.saturating_sub(frames);
            self.answer_progress(id);
            self.reschedule(id);
        }
    }

    /// Time has come to `now`: idle watches that asked for it get progress.
    pub fn tick(&mut self, now: Instant) {
        self.now = self.now.max(now);
        while let Some((due, key)) = self.idle_due.first().copied() {
            if due > self.now {
                break;
            }
            self.idle_due.remove(&(due, key));
            let interval = self.interval(key.stream);
            let Some(idle) = self.idle.get_mut(&key) else { continue };
            let quiet_until = idle.last_event.after(interval);
            idle.due = if quiet_until > self.now { quiet_until } else { self.now.after(interval) };
            self.idle_due.insert((idle.due, key));
            if quiet_until <= self.now {
                self.progress_of(key);
            }
        }
    }

    /// When [`Hub::tick`] has something to do.
    pub fn next_tick(&self) -> Option<Instant> {
        self.idle_due.first().map(|(due, _)| *due)
    }

    /// Queues a watch's progress, if it has all events up to the hub's revision and its stream has room.
    fn progress_of(&mut self, key: WatchKey) {
        let revision = self.revision;
        let Some(stream) = self.streams.get_mut(&key.stream) else { return };
        if key.id == WatchId::NONE {
            // A client takes this id for all watches.
            stream.progress_wanted = stream.progress_wanted.max(Some(revision));
            return self.answer_progress(key.stream);
        }
        let up_to_date =
            stream.watch(key.id).is_some_and(|watch| !watch.behind && watch.next <= revision.next());
        if up_to_date && stream.has_room(0, &self.config) {
            self.push(key.stream, Queued::Progress { id: key.id, revision });
        }
    }

    /// Queues the stream's progress, if it is waited for and all its watches are up to date.
    pub(super) fn answer_progress(&mut self, id: StreamId) {
        let revision = self.revision;
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let Some(wanted) = stream.progress_wanted else { return };
        while let Some((start, watch)) = stream.starts.first().copied() {
            if start > revision.next() && stream.watch(watch).is_some_and(|watch| watch.next == start) {
                break;
            }
            stream.starts.remove(&(start, watch));
        }
        if wanted > revision
            || !stream.behind.is_empty()
            || !stream.starts.is_empty()
            || !stream.has_room(0, &self.config)
        {
            self.waiting.insert(id);
            return;
        }
        stream.progress_wanted = None;
        self.waiting.remove(&id);
        self.push(id, Queued::Progress { id: WatchId::NONE, revision });
    }

    fn push(&mut self, id: StreamId, queued: Queued) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.queue.push_back(queued);
            self.reschedule(id);
        }
    }

    /// Puts a stream where `poll` finds it.
    pub(super) fn reschedule(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get(&id) else { return };
        let credit = stream.has_credit(&self.config);
        if credit && !stream.queue.is_empty() {
            self.ready.insert(id);
        } else {
            self.ready.remove(&id);
        }
        if credit && stream.queue.is_empty() && !stream.behind.is_empty() {
            self.lagging.insert(id);
        } else {
            self.lagging.remove(&id);
        }
    }
}
