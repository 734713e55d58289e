//! Watches: who hears of which change, and in what order.
//!
//! [`Hub`] is pure. The driver tells it of streams, of what their clients ask, of published events and of
//! time; [`Hub::poll`] says which frames go to which stream. What is older than a watch's next revision it
//! reads through [`History`].
//!
//! ```text
//!   request ──► Stream { queue, credit } ◄── events (matched through the index of synced watches)
//!                 │            ▲
//!          poll ──┘            └── history (one chunk serves all watches behind that are in it)
//! ```
//!
//! What a client may rely on, per watch (etcd's API guarantees):
//!
//! - **Ordered**: events come by revision, and within one revision by the order of its operations.
//! - **Unique**: no event comes twice.
//! - **Reliable**: none is left out, but by its filters; a watch that can't go on says so (`compact_revision`).
//! - **Atomic**: a revision's events come in one frame, or in one run of frames marked `fragment`.
//! - **Resumable**: a start at or above the compacted revision gets all from there.
//! - **Bookmarkable**: a frame without events (progress) at revision R comes after all events up to R, of that
//!   watch, or of every watch of its stream if its id is -1.
//!
//! How: a watch is either *synced* (all events up to the hub's revision are in its stream's queue, and the
//! index of synced watches finds it), or *behind* (the next revision that it must get is `next`, and it is
//! read from history when its stream's queue is empty and has credit). A stream whose queue is full loses the
//! events in it: its watches fall behind to the first lost revision. So a slow stream costs itself: a bounded
//! queue, then reads of history at its own pace, shared with those who read the same chunk.
//!
//! Where etcd 3.5.1 and later versions differ:
//!
//! - A negative start is refused (created and canceled, id -1), as since 3.5.24; 3.5.1 creates a dead watch.
//! - A refused create answers with id -1, as since late 3.5.x; 3.5.1 answers with the id asked for.
//! - A progress request is answered once all watches of the stream are synced and have reached their start
//!   (3.5.1 answers at once, perhaps ahead of events). Versions since 3.5.8 drop the request otherwise; here
//!   it waits, and several that wait are answered once. A stream without watches is answered at once.
//! - A progress notification needs the same of its watch.
//! - A start that the store has not reached gets nothing below it even across a restore from a snapshot.
//!
//! Left out: permission (the API asks before it creates a watch, see [`Hub::refuse`]), the wire's encoding
//! (`wire::kv`), and the loss of the leader (the API cuts the stream).

mod catch_up;
mod hub;
mod index;
mod stream;

use std::borrow::Cow;

use bytes::Bytes;

pub use hub::Hub;

use crate::{
    error::{Fault, Refusal},
    mvcc::{self, Event, KvBytes, Store},
    table::Tables,
    types::{KeyRange, Revision},
};

/// The hub's limits and intervals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// How long a watch that asked for progress is idle before it gets some, in milliseconds, and up to a
    /// tenth more, which spreads streams.
    pub progress_interval_ms: u64,
    /// Frames of watches that asked for fragments are split when larger, in bytes.
    pub fragment_bytes_max: usize,
    /// How many revisions' events one frame of history holds at most.
    pub batch_revisions_max: usize,
    /// How many bytes of events one read of history stops after, so that old, large values go out in pieces.
    pub batch_bytes_max: usize,
    /// How many frames a stream may have waiting in the hub, and how many more handed out and not drained.
    pub stream_queue_max: usize,
    /// How many bytes of events a stream may have waiting; one frame may be larger.
    pub stream_bytes_max: usize,
    /// How many watches a stream may have.
    pub stream_watches_max: usize,
    /// How many frames one poll hands out (the last stream may go over by one response's fragments).
    pub poll_frames_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            progress_interval_ms: 600_000,
            fragment_bytes_max: 1_572_864 + 512 * 1024,
            batch_revisions_max: 1000,
            batch_bytes_max: 8 << 20,
            stream_queue_max: 256,
            stream_bytes_max: 16 << 20,
            stream_watches_max: 1 << 20,
            poll_frames_max: 1024,
        }
    }
}

/// A client's stream of watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamId(pub u64);

/// A watch within its stream, as the client knows it. In answers, -1 is "no watch" or "all of them".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct WatchId(pub i64);

impl WatchId {
    /// What refusals and stream-wide progress carry.
    pub const NONE: Self = Self(-1);
}

/// What a client asks of its stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchRequest {
    /// A new watch.
    Create(Create),
    /// The end of a watch. One that the stream does not have is ignored.
    Cancel {
        /// Which.
        id: WatchId,
    },
    /// How far the stream is.
    Progress,
}

/// A new watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Create {
    /// The keys. An empty start means the key of one zero byte.
    pub range: KeyRange,
    /// The first revision to hear of; 0 for what comes after now; a negative one is refused.
    pub start: Revision,
    /// Whether to send progress when idle.
    pub progress_notify: bool,
    /// Leave out puts.
    pub no_put: bool,
    /// Leave out deletions.
    pub no_delete: bool,
    /// Whether to send what each key was before.
    pub prev_kv: bool,
    /// The id that the client wants; 0 for any.
    pub watch_id: WatchId,
    /// Whether large frames may be split.
    pub fragment: bool,
}

impl Create {
    /// A plain watch of `range` from `start` on.
    pub fn of(range: KeyRange, start: Revision) -> Self {
        Self {
            range,
            start,
            progress_notify: false,
            no_put: false,
            no_delete: false,
            prev_kv: false,
            watch_id: WatchId(0),
            fragment: false,
        }
    }
}

/// One event as a watch gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchEvent {
    /// Whether the key was deleted.
    pub deleted: bool,
    /// The key-value, encoded as stored.
    pub kv: KvBytes,
    /// What was there before, if asked for, if anything was, and if it is not compacted.
    pub prev_kv: Option<KvBytes>,
}

/// What goes to a stream: a `WatchResponse` without the header's ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// Whose; -1 for none or all.
    pub watch_id: WatchId,
    /// The header's revision; 0 where a compaction cancels.
    pub revision: Revision,
    /// Whether it answers a create.
    pub created: bool,
    /// Whether the watch has ended.
    pub canceled: bool,
    /// Where history begins, if the watch needed older; else 0.
    pub compact_revision: Revision,
    /// Why it was canceled, if there is a text for it.
    pub cancel_reason: Cow<'static, str>,
    /// Whether more frames of the same response follow.
    pub fragment: bool,
    /// The events, in order.
    pub events: Vec<WatchEvent>,
}

/// A run of history: all events of revisions up to `through`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// The events in order, whole revisions only.
    pub events: Vec<Event>,
    /// The last revision that was looked at.
    pub through: Revision,
}

/// What the hub reads of the store.
pub trait History {
    /// The newest revision below which history may be gone; 0 or less for none. It rises before anything goes.
    fn compacted(&self) -> Revision;

    /// The events of revisions `from ..= to` in order: whole revisions, at most `revisions_max` of them, and no
    /// further revision once the events take `bytes_max` bytes. A revision below [`History::compacted`] may
    /// lack events. None if `from` has just been compacted.
    fn events(
        &self,
        from: Revision,
        to: Revision,
        revisions_max: usize,
        bytes_max: usize,
    ) -> Result<Option<Chunk>, Fault>;

    /// What `key` held just before revision `before`; None if nothing, or if that is compacted.
    fn prev_kv(&self, key: &Bytes, before: Revision) -> Result<Option<KvBytes>, Fault>;
}

impl<T: Tables> History for Store<T> {
    fn compacted(&self) -> Revision {
        self.compacted()
    }

    fn events(
        &self,
        from: Revision,
        to: Revision,
        revisions_max: usize,
        bytes_max: usize,
    ) -> Result<Option<Chunk>, Fault> {
        match mvcc::Error::split(self.events(from, to, revisions_max, bytes_max))? {
            Ok(history) => Ok(Some(Chunk { events: history.events, through: Revision(history.next.0 - 1) })),
            Err(Refusal::Compacted) => Ok(None),
            Err(refusal) => Err(Fault::corrupt(format!("history of {from}..={to} is refused: {refusal}"))),
        }
    }

    fn prev_kv(&self, key: &Bytes, before: Revision) -> Result<Option<KvBytes>, Fault> {
        self.prev_kv(key, before)
    }
}
