//! One client's stream: its watches, what waits to be sent, and how much of it the client takes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{Config, Frame, WatchId, index::Span};
use crate::{mvcc::Event, types::Revision};

/// A watch that is alive.
#[derive(Debug)]
pub(super) struct Watch {
    pub span: Span,
    /// It has been sent, or has queued, all events that it wants below this revision. While it is synced this
    /// may lag behind the hub's revision.
    pub next: Revision,
    /// Whether it is read from history; else it is in the index of synced watches.
    pub behind: bool,
    pub no_put: bool,
    pub no_delete: bool,
    pub prev_kv: bool,
    pub fragment: bool,
}

impl Watch {
    pub fn wants(&self, deleted: bool) -> bool {
        if deleted { !self.no_delete } else { !self.no_put }
    }
}

/// What an id stands for.
#[derive(Debug)]
pub(super) enum Slot {
    Live(Watch),
    /// Ended by compaction: the id stays taken until the client cancels it, as etcd has it.
    Compacted,
}

/// What waits to be sent.
#[derive(Debug)]
pub(super) enum Queued {
    /// An answer, or the end of a watch; never lost.
    Control(Frame),
    /// A revision's events of one watch.
    Events { id: WatchId, revision: Revision, events: Vec<Event> },
    /// How far one watch, or the stream (id -1), is.
    Progress { id: WatchId, revision: Revision },
}

impl Queued {
    fn bytes(&self) -> usize {
        match self {
            Self::Control(_) | Self::Progress { .. } => 0,
            Self::Events { events, .. } => bytes_of(events),
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Stream {
    pub slots: BTreeMap<WatchId, Slot>,
    pub next_id: i64,
    pub queue: VecDeque<Queued>,
    /// Bytes of events in `queue`.
    pub queued_bytes: usize,
    /// Frames handed out and not drained.
    pub in_flight: usize,
    /// The watches that are behind.
    pub behind: BTreeSet<WatchId>,
    /// The last one of them that was served.
    pub turn: WatchId,
    /// Watches that start in the future, by their start; those reached are dropped when it is looked at.
    pub starts: BTreeSet<(Revision, WatchId)>,
    /// The client waits for progress, at this revision at least.
    pub progress_wanted: Option<Revision>,
}

impl Stream {
    pub fn watch(&self, id: WatchId) -> Option<&Watch> {
        match self.slots.get(&id)? {
            Slot::Live(watch) => Some(watch),
            Slot::Compacted => None,
        }
    }

    pub fn watch_mut(&mut self, id: WatchId) -> Option<&mut Watch> {
        match self.slots.get_mut(&id)? {
            Slot::Live(watch) => Some(watch),
            Slot::Compacted => None,
        }
    }

    /// The id of a new watch: the one asked for, or the next that is free; None if it is taken.
    pub fn assign(&mut self, asked: WatchId) -> Option<WatchId> {
        if asked != WatchId(0) {
            return (!self.slots.contains_key(&asked)).then_some(asked);
        }
        while self.slots.contains_key(&WatchId(self.next_id)) {
            self.next_id = self.next_id.wrapping_add(1);
        }
        let id = WatchId(self.next_id);
        self.next_id = self.next_id.wrapping_add(1);
        Some(id)
    }

    /// Whether the client takes more.
    pub fn has_credit(&self, config: &Config) -> bool {
        self.in_flight < config.stream_queue_max
    }

    /// Whether events of `bytes` bytes may wait; the first ones always may.
    pub fn has_room(&self, bytes: usize, config: &Config) -> bool {
        self.queue.is_empty()
            || (self.queue.len() < config.stream_queue_max
                && self.queued_bytes + bytes <= config.stream_bytes_max)
    }

    pub fn pop(&mut self) -> Option<Queued> {
        let queued = self.queue.pop_front()?;
        self.queued_bytes -= queued.bytes();
        Some(queued)
    }

    /// Drops what waits for a watch that ends: its id may be taken again. Progress of the whole stream would then
    /// be ahead of what the client has, until it hears of the end: it is wanted again.
    pub fn forget(&mut self, ended: WatchId) {
        let before = self.queue.len();
        self.queue.retain(|queued| match queued {
            Queued::Control(_) => true,
            Queued::Events { id, .. } => *id != ended,
            Queued::Progress { id, .. } => *id == WatchId::NONE || *id != ended,
        });
        if self.queue.len() < before {
            let wanted = &mut self.progress_wanted;
            self.queue.retain(|queued| match queued {
                Queued::Progress { id: WatchId::NONE, revision } => {
                    *wanted = (*wanted).max(Some(*revision));
                    false
                }
                Queued::Control(_) | Queued::Events { .. } | Queued::Progress { .. } => true,
            });
        }
        self.queued_bytes = self.queue.iter().map(Queued::bytes).sum();
    }

    /// Takes all events and progress out of the queue: the watches that lose events, with the first revision
    /// that each loses. Progress that the client asked for is wanted again.
    pub fn lose(&mut self) -> BTreeMap<WatchId, Revision> {
        let mut lost = BTreeMap::new();
        for queued in std::mem::take(&mut self.queue) {
            match queued {
                Queued::Control(_) => self.queue.push_back(queued),
                Queued::Events { id, revision, .. } => {
                    lost.entry(id).or_insert(revision);
                }
                Queued::Progress { id: WatchId::NONE, revision } => {
                    self.progress_wanted = self.progress_wanted.max(Some(revision));
                }
                Queued::Progress { .. } => {}
            }
        }
        self.queued_bytes = 0;
        lost
    }
}

/// Bytes of the events' key-values.
pub(super) fn bytes_of(events: &[Event]) -> usize {
    events.iter().map(|event| event.kv.0.len()).sum()
}
