//! What goes out: queued frames, stream by stream in turn, and history for the watches that are behind.

use std::{collections::BTreeMap, ops::Bound};

use super::{
    Frame, History, Hub, StreamId, WatchEvent, WatchId,
    index::{Index, WatchKey},
    stream::Queued,
};
use crate::{error::Fault, mvcc::Event, types::Revision};

/// How many frames a stream gets before the next one has its turn.
const TURN_FRAMES_MAX: usize = 16;

impl Hub {
    /// Whether [`Hub::poll`] has something to do now.
    pub fn has_work(&self) -> bool {
        !self.ready.is_empty() || !self.lagging.is_empty()
    }

    /// The next frames, in the order in which each stream must send them. Bounded: one read of history, and
    /// about `poll_frames_max` frames. Call it until [`Hub::has_work`] says no.
    ///
    /// A fault of the store stops the node.
    pub fn poll(&mut self, history: &dyn History) -> Result<Vec<(StreamId, Frame)>, Fault> {
        self.compacted(history.compacted());
        let mut out = Vec::new();
        self.catch_up(history, &mut out)?;
        while out.len() < self.config.poll_frames_max {
            let Some(id) = after(&self.ready, self.turn.0) else { break };
            self.turn.0 = id;
            self.send_queued(id, history, &mut out)?;
        }
        Ok(out)
    }

    /// One stream's turn at the queue.
    fn send_queued(
        &mut self,
        id: StreamId,
        history: &dyn History,
        out: &mut Vec<(StreamId, Frame)>,
    ) -> Result<(), Fault> {
        for _ in 0..TURN_FRAMES_MAX {
            let Some(stream) = self.streams.get_mut(&id) else { break };
            if !stream.has_credit(&self.config) {
                break;
            }
            match stream.pop() {
                None => break,
                Some(Queued::Control(frame)) => self.send(id, frame, out),
                Some(Queued::Progress { id: watch_id, revision }) => {
                    self.send(id, Frame { watch_id, revision, ..Frame::default() }, out);
                }
                Some(Queued::Events { id: watch, revision, events }) => {
                    self.send_events(WatchKey { stream: id, id: watch }, revision, events, history, out)?;
                }
            }
        }
        self.answer_progress(id);
        self.reschedule(id);
        Ok(())
    }

    fn send(&mut self, id: StreamId, frame: Frame, out: &mut Vec<(StreamId, Frame)>) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.in_flight += 1;
            out.push((id, frame));
        }
    }

    /// Sends a watch's events, with what was there before and in fragments if it asked for them. A watch that
    /// has ended meanwhile gets nothing.
    fn send_events(
        &mut self,
        key: WatchKey,
        revision: Revision,
        events: Vec<Event>,
        history: &dyn History,
        out: &mut Vec<(StreamId, Frame)>,
    ) -> Result<(), Fault> {
        let Some(watch) = self.streams.get(&key.stream).and_then(|stream| stream.watch(key.id)) else {
            return Ok(());
        };
        let (prev_kv, fragment) = (watch.prev_kv, watch.fragment);
        let mut sent = Vec::with_capacity(events.len());
        for event in events {
            let prev_kv = if prev_kv { history.prev_kv(&event.key, event.at.main)? } else { None };
            sent.push(WatchEvent { deleted: event.deleted, kv: event.kv, prev_kv });
        }
        let limit = if fragment { self.config.fragment_bytes_max } else { usize::MAX };
        let mut parts = split(sent, limit).into_iter().peekable();
        while let Some(events) = parts.next() {
            let fragment = parts.peek().is_some();
            let frame = Frame { watch_id: key.id, revision, fragment, events, ..Frame::default() };
            self.send(key.stream, frame, out);
        }
        Ok(())
    }

    /// One read of history, for the next watch that is behind and all others that it serves.
    fn catch_up(&mut self, history: &dyn History, out: &mut Vec<(StreamId, Frame)>) -> Result<(), Fault> {
        let Some((leader, from)) = self.next_behind() else { return Ok(()) };
        let to = self.revision;
        let config = &self.config;
        let chunk = history.events(from, to, config.batch_revisions_max, config.batch_bytes_max)?;
        // What was compacted while it was read may have been read in part.
        self.compacted(history.compacted());
        let Some(chunk) = chunk else { return Ok(()) };
        if chunk.through < from || chunk.through > to {
            let through = chunk.through;
            return Err(Fault::corrupt(format!("history of {from}..={to} was read through {through}")));
        }
        let served = self.served(leader, from, chunk.through);
        let mut frames = self.sort_out(&served, &chunk.events);
        for key in served.into_keys() {
            if let Some(events) = frames.remove(&key) {
                self.send_events(key, to, events, history, out)?;
            }
            self.catch_on(key, chunk.through.next());
        }
        Ok(())
    }

    /// The watch whose turn it is to be read for, and from where.
    fn next_behind(&mut self) -> Option<(WatchKey, Revision)> {
        let id = after(&self.lagging, self.turn.1)?;
        self.turn.1 = id;
        let stream = self.streams.get_mut(&id)?;
        let watch = after(&stream.behind, stream.turn)?;
        stream.turn = watch;
        let from = stream.watch(watch)?.next;
        Some((WatchKey { stream: id, id: watch }, from))
    }

    /// The watches that a chunk serves, with their next revisions: the leader, and those whose next is in it.
    fn served(&self, leader: WatchKey, from: Revision, through: Revision) -> BTreeMap<WatchKey, Revision> {
        let max = self.config.poll_frames_max;
        let lowest = WatchKey { stream: StreamId(0), id: WatchId(i64::MIN) };
        let in_chunk = (Bound::Included((from, lowest)), Bound::Excluded((through.next(), lowest)));
        // Streams that take nothing are passed over, but not without limit.
        let others = self.behind.range(in_chunk).take(4 * max);
        let mut served: BTreeMap<WatchKey, Revision> = others
            .filter(|(_, key)| self.lagging.contains(&key.stream))
            .take(max)
            .map(|(next, key)| (*key, *next))
            .collect();
        if self.behind.contains(&(from, leader)) {
            served.insert(leader, from);
        }
        served
    }

    /// The events that each of the served watches wants.
    fn sort_out(
        &self,
        served: &BTreeMap<WatchKey, Revision>,
        events: &[Event],
    ) -> BTreeMap<WatchKey, Vec<Event>> {
        let mut index = Index::default();
        let live = |key: &WatchKey| self.streams.get(&key.stream).and_then(|stream| stream.watch(key.id));
        for key in served.keys() {
            if let Some(watch) = live(key) {
                index.insert(&watch.span, *key);
            }
        }
        let mut frames: BTreeMap<WatchKey, Vec<Event>> = BTreeMap::new();
        for event in events {
            index.matches(&event.key, |key| {
                let wants = live(&key).is_some_and(|watch| watch.wants(event.deleted));
                if wants && served.get(&key).is_some_and(|next| *next <= event.at.main) {
                    frames.entry(key).or_default().push(event.clone());
                }
            });
        }
        frames
    }
}

/// The first of `set` after `last`, around its end.
fn after<T: Copy + Ord>(set: &std::collections::BTreeSet<T>, last: T) -> Option<T> {
    set.range((Bound::Excluded(last), Bound::Unbounded)).next().or_else(|| set.first()).copied()
}

/// Cuts events into runs that stay below `limit` bytes on the wire, as etcd does: one event alone may be larger.
fn split(events: Vec<WatchEvent>, limit: usize) -> Vec<Vec<WatchEvent>> {
    let sizes: Vec<usize> = events.iter().map(wire_size).collect();
    if HEADER_BYTES + sizes.iter().sum::<usize>() < limit {
        return vec![events];
    }
    let mut parts: Vec<Vec<WatchEvent>> = Vec::new();
    let mut bytes = HEADER_BYTES;
    for (event, size) in events.into_iter().zip(sizes) {
        match parts.last_mut() {
            Some(part) if bytes + size < limit => part.push(event),
            _ => {
                parts.push(vec![event]);
                bytes = HEADER_BYTES;
            }
        }
        bytes += size;
    }
    parts
}

/// What a response takes besides its events, at most.
const HEADER_BYTES: usize = 64;

/// The bytes of an event in a response: itself, its key-values, and a tag and a length for each.
fn wire_size(event: &WatchEvent) -> usize {
    // A varint holds seven bits a byte.
    let varint = |len: usize| (usize::BITS - (len | 1).leading_zeros()).div_ceil(7) as usize;
    let framed = |len: usize| 1 + varint(len) + len;
    let prev = event.prev_kv.as_ref().map_or(0, |kv| framed(kv.0.len()));
    framed(if event.deleted { 2 } else { 0 } + framed(event.kv.0.len()) + prev)
}
