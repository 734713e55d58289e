//! The store: the index, what the writer has not published yet, and who still reads what.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicI64, Ordering},
    },
};

use bytes::Bytes;

use super::{
    Error, Unusable, Writer,
    checkpoint::load_best,
    index::{Head, Index, Seen},
    request::KvBytes,
    values::KvRef,
};
use crate::{
    error::{Fault, Refusal},
    table::{Scan, Table, Tables},
    types::{LeaseId, Revision, SubRevision},
};

/// The meta key of the compaction that was accepted last.
pub(super) const SCHEDULED: &[u8] = b"scheduledCompactRev";
/// The meta key of the compaction that was finished last.
pub(super) const FINISHED: &[u8] = b"finishedCompactRev";
/// Entries that one sweep for cold values looks at while the index is locked.
const COOL_VISITS_MAX: usize = 4096;
/// Values read from the tables that wait to be put beside their heads.
const WARM_MAX: usize = 64;

/// How much a store holds and hands out at once.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Bytes of current values kept in memory; the rest are read from the tables.
    pub cache_bytes_max: usize,
    /// Up to how many bytes in all those are kept, too, that nobody has read.
    pub unread_bytes_max: usize,
    /// Keys that are visited while the index is locked.
    pub chunk_keys_max: usize,
    /// Bytes after which a chunk of a range ends; one key-value may pass it.
    pub chunk_bytes_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            cache_bytes_max: 256 << 20,
            unread_bytes_max: 32 << 20,
            chunk_keys_max: 1024,
            chunk_bytes_max: 1 << 20,
        }
    }
}

/// Keys and values by revision, over `T`. Share it in an [`Arc`].
pub struct Store<T: Tables> {
    pub(super) tables: T,
    pub(super) config: Config,
    index: RwLock<Index>,
    writing: Mutex<Writing>,
    // Locked only while the index is, or alone: never the index inside it.
    pins: Mutex<BTreeMap<Revision, usize>>,
    pub(super) compaction: Mutex<Compaction>,
    warm: Mutex<Vec<(Bytes, SubRevision, Bytes)>>,
    published: AtomicI64,
    compacted: AtomicI64,
}

/// What the writer has done beyond what is published.
pub(super) struct Writing {
    pub(super) revision: Revision,
    pub(super) compacted: Revision,
    /// Stored bytes that may not be in the tables yet.
    pub(super) pending: BTreeMap<SubRevision, Bytes>,
}

/// How far the physical compaction is.
pub(super) struct Compaction {
    /// The last one of which all batches were handed out.
    pub(super) finished: Revision,
    /// The one under way.
    pub(super) target: Revision,
    /// The key where it goes on.
    pub(super) next: Box<[u8]>,
}

/// The moment that a read is of.
#[derive(Clone, Copy)]
pub(super) struct View<'p> {
    /// The newest revision it sees.
    pub(super) now: Revision,
    /// Below this, revisions are gone.
    pub(super) compacted: Revision,
    /// Which index it belongs to.
    pub(super) generation: u64,
    /// What is not in the tables yet, for the writer.
    pub(super) pending: Option<&'p BTreeMap<SubRevision, Bytes>>,
}

impl View<'_> {
    /// The revision that a request's `revision` means.
    pub(super) fn resolve(&self, revision: Revision) -> Result<Revision, Refusal> {
        if revision > self.now {
            return Err(Refusal::FutureRevision);
        }
        if revision.0 <= 0 {
            return Ok(self.now);
        }
        if revision < self.compacted { Err(Refusal::Compacted) } else { Ok(revision) }
    }
}

/// One key as a view sees it.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) at: SubRevision,
    pub(super) created: Revision,
    pub(super) version: i64,
    pub(super) lease: LeaseId,
    pub(super) bytes: Option<Bytes>,
}

/// Keeps physical compaction from going above a revision while it lives.
pub(super) struct Pin<'s> {
    pins: &'s Mutex<BTreeMap<Revision, usize>>,
    revision: Revision,
}

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        unpin(self.pins, self.revision);
    }
}

fn unpin(pins: &Mutex<BTreeMap<Revision, usize>>, revision: Revision) {
    let mut pins = lock(pins);
    if let Some(readers) = pins.get_mut(&revision) {
        *readers -= 1;
        if *readers == 0 {
            pins.remove(&revision);
        }
    }
}

/// A panic elsewhere stops the node; until then what it left is as good as before.
pub(super) fn lock<V>(mutex: &Mutex<V>) -> MutexGuard<'_, V> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T: Tables> Store<T> {
    /// Reads the index from the tables. A compaction that was accepted but not finished goes on with
    /// [`Store::compact_step`].
    pub fn open(tables: T, config: Config) -> Result<Self, Fault> {
        Ok(Self::open_from(tables, config, None)?.0)
    }

    /// The same with the help of a checkpoint of the index: its pieces as [`Cut::piece`](super::Cut::piece) gave them
    /// out. If it is of no use, why: all has then been read from the tables.
    pub fn open_from(
        tables: T,
        config: Config,
        checkpoint: Option<&mut dyn Iterator<Item = Result<Bytes, Fault>>>,
    ) -> Result<(Self, Option<Unusable>), Fault> {
        let ((index, finished), unusable) = load_best(&tables, checkpoint, config.unread_bytes_max)?;
        let (published, compacted) = (index.published, index.compacted);
        let store = Self {
            tables,
            config,
            index: RwLock::new(index),
            writing: Mutex::new(Writing { revision: published, compacted, pending: BTreeMap::new() }),
            pins: Mutex::default(),
            compaction: Mutex::new(Compaction { finished, target: finished, next: Box::default() }),
            warm: Mutex::default(),
            published: AtomicI64::new(published.0),
            compacted: AtomicI64::new(compacted.0),
        };
        Ok((store, unusable))
    }

    /// Reads the index again, after a snapshot replaced the tables. Reads under way are refused.
    pub fn reload(&self) -> Result<(), Fault> {
        let mut writing = lock(&self.writing);
        let mut compaction = lock(&self.compaction);
        let (mut index, finished) = load(&self.tables, self.config.unread_bytes_max)?;
        *writing =
            Writing { revision: index.published, compacted: index.compacted, pending: BTreeMap::new() };
        *compaction = Compaction { finished, target: finished, next: Box::default() };
        let mut shown = self.index_mut();
        index.generation = shown.generation + 1;
        self.published.store(index.published.0, Ordering::Release);
        self.compacted.store(index.compacted.0, Ordering::Release);
        *shown = index;
        Ok(())
    }

    /// The newest published revision.
    pub fn revision(&self) -> Revision {
        Revision(self.published.load(Ordering::Acquire))
    }

    /// The revision compacted to, as published; -1 for never.
    pub fn compacted(&self) -> Revision {
        Revision(self.compacted.load(Ordering::Acquire))
    }

    /// Calls `each` with every published key that is attached to a lease, in key order.
    pub fn leased(&self, each: &mut dyn FnMut(LeaseId, Bytes)) {
        let index = self.index();
        for entry in index.from(b"") {
            if let Some(Seen::Head(head)) = entry.seen(index.published)
                && head.lease().0 != 0
            {
                each(head.lease(), Bytes::copy_from_slice(head.key()));
            }
        }
    }

    /// The single writer.
    pub fn writer(&self) -> Writer<'_, T> {
        Writer { store: self }
    }

    /// Shows readers all that the writer has done; its batches have been written to the tables.
    pub fn publish(&self) {
        let mut writing = lock(&self.writing);
        let warm = std::mem::take(&mut *lock(&self.warm));
        let mut index = self.index_mut();
        index.published = writing.revision;
        index.compacted = writing.compacted;
        self.published.store(writing.revision.0, Ordering::Release);
        self.compacted.store(writing.compacted.0, Ordering::Release);
        for (key, at, bytes) in warm {
            index.warm(&key, at, bytes);
        }
        writing.pending.clear();
        // Two rounds at most: the first may find that all were read lately.
        while index.cool(self.config.cache_bytes_max, COOL_VISITS_MAX) {
            drop(index);
            index = self.index_mut();
        }
    }

    pub(super) fn index(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn index_mut(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn writing(&self) -> MutexGuard<'_, Writing> {
        lock(&self.writing)
    }

    /// The moment that readers see now, with `index` locked.
    pub(super) fn published_view(index: &Index) -> View<'static> {
        View { now: index.published, compacted: index.compacted, generation: index.generation, pending: None }
    }

    /// Keeps what a reader at `revision` needs. `_index` is locked, so no compaction has passed since the
    /// reader's moment was taken.
    pub(super) fn pin(&self, _index: &Index, revision: Revision) -> Pin<'_> {
        *lock(&self.pins).entry(revision).or_default() += 1;
        Pin { pins: &self.pins, revision }
    }

    /// The same for a reader that owns the store; it calls [`Store::unpin`] itself.
    pub(super) fn pin_owned(self: &Arc<Self>, index: &Index, revision: Revision) {
        std::mem::forget(self.pin(index, revision));
    }

    pub(super) fn unpin(&self, revision: Revision) {
        unpin(&self.pins, revision);
    }

    /// The lowest revision that a reader holds.
    pub(super) fn lowest_pin(&self) -> Option<Revision> {
        lock(&self.pins).keys().next().copied()
    }

    /// The stored bytes of a revision that is known to be there.
    pub(super) fn load(&self, at: SubRevision, view: &View<'_>) -> Result<Bytes, Error> {
        if let Some(bytes) = view.pending.and_then(|pending| pending.get(&at)) {
            return Ok(bytes.clone());
        }
        if let Some(bytes) = self.tables.get(Table::Rev, &at.to_key(false))? {
            return Ok(bytes);
        }
        if self.index().generation != view.generation {
            return Err(Refusal::LeaderChanged.into());
        }
        Err(Fault::corrupt(format!(
            "revision {}.{} is in the index but not in the tables; restore this member from a snapshot or \
             remove its data and let it join again",
            at.main, at.sub
        ))
        .into())
    }

    /// `key` at `revision`; bytes come along if they are in memory.
    pub(super) fn find(
        &self,
        key: &[u8],
        revision: Revision,
        view: &View<'_>,
    ) -> Result<Option<Found>, Error> {
        let at = {
            let index = self.index();
            if index.generation != view.generation {
                return Err(Refusal::LeaderChanged.into());
            }
            match index.get(key).and_then(|entry| entry.seen(revision)) {
                None => return Ok(None),
                Some(Seen::Head(head)) => {
                    head.touch();
                    return Ok(Some(Found {
                        at: head.at(),
                        created: head.created(),
                        version: head.version(),
                        lease: head.lease(),
                        bytes: head.bytes().cloned(),
                    }));
                }
                Some(Seen::Older(at)) => at,
            }
        };
        let bytes = self.load(at, view)?;
        let kv = decode(&bytes, at)?;
        let (created, version, lease) = (kv.created, kv.version, kv.lease);
        Ok(Some(Found { at, created, version, lease, bytes: Some(bytes) }))
    }

    /// The stored bytes of what was found.
    pub(super) fn bytes_of(&self, found: &Found, view: &View<'_>) -> Result<KvBytes, Error> {
        match &found.bytes {
            Some(bytes) => Ok(KvBytes(bytes.clone())),
            None => self.load(found.at, view).map(KvBytes),
        }
    }

    /// Remembers a value that a point read had to fetch; the next publication puts it beside its head.
    pub(super) fn remember(&self, key: &Bytes, at: SubRevision, bytes: &Bytes) {
        let Ok(mut warm) = self.warm.try_lock() else { return };
        if warm.len() < WARM_MAX {
            warm.push((Bytes::copy_from_slice(key), at, bytes.clone()));
            return;
        }
        // Nothing is being written: take the moment if no other reader is in the way.
        if let Ok(mut index) = self.index.try_write() {
            for (key, at, bytes) in warm.drain(..) {
                index.warm(&key, at, bytes);
            }
            index.cool(self.config.cache_bytes_max, COOL_VISITS_MAX);
        }
    }
}

/// Takes stored bytes apart; a fault says where they are broken.
pub(super) fn decode(bytes: &[u8], at: SubRevision) -> Result<KvRef<'_>, Fault> {
    KvRef::decode(bytes).map_err(|error| {
        Fault::corrupt(format!(
            "revision {}.{}: {error}; restore this member from a snapshot or remove its data and let it join again",
            at.main, at.sub
        ))
    })
}

/// The 17 bytes of a compaction mark; -1 if there is none.
pub(super) fn mark<T: Tables>(tables: &T, key: &[u8]) -> Result<Revision, Fault> {
    let Some(bytes) = tables.get(Table::Meta, key)? else { return Ok(Revision(-1)) };
    match SubRevision::from_key(&bytes) {
        Some((at, false)) => Ok(at.main),
        Some((_, true)) | None => {
            Err(Fault::corrupt(format!("the mark {} is no revision", String::from_utf8_lossy(key))))
        }
    }
}

/// Builds the index from the revisions, and tells which compaction was finished.
pub(super) fn load<T: Tables>(tables: &T, unread_max: usize) -> Result<(Index, Revision), Fault> {
    let (scheduled, finished) = (mark(tables, SCHEDULED)?, mark(tables, FINISHED)?);
    let mut index = Index::new(unread_max);
    scan(tables, &[], &mut index)?;
    index.compacted = scheduled.max(finished);
    // What the newest revisions were may be compacted away; the count of revisions never goes back.
    index.published = index.published.max(index.compacted);
    Ok((index, finished))
}

/// Adds the revisions from the row `start` on.
pub(super) fn scan<T: Tables>(tables: &T, start: &[u8], index: &mut Index) -> Result<(), Fault> {
    let mut fault = None;
    tables.scan(Table::Rev, start, None, &mut |row, bytes| match add(index, row, bytes) {
        Ok(()) => Scan::Continue,
        Err(error) => {
            fault = Some(error);
            Scan::Stop
        }
    })?;
    fault.map_or(Ok(()), Err)
}

fn add(index: &mut Index, row: &[u8], bytes: &[u8]) -> Result<(), Fault> {
    let strange = || Fault::corrupt(format!("the revision table has a key that is no revision: {row:02x?}"));
    let (at, tombstone) = SubRevision::from_key(row).ok_or_else(strange)?;
    let sub = u32::try_from(at.sub).map_err(|_| strange())?;
    let kv = decode(bytes, at)?;
    index.published = index.published.max(at.main);
    let keep = !tombstone && index.has_room(bytes.len());
    let head = Head {
        main: at.main,
        sub,
        tombstone,
        created: kv.created,
        version: kv.version,
        lease: kv.lease,
        bytes: keep.then(|| Bytes::copy_from_slice(bytes)),
    };
    index.push(kv.key, head);
    Ok(())
}
