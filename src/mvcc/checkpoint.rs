//! The index on disk, so that a start need not read every revision.
//!
//! ```text
//!   running    cut ──► piece, piece, … ──► a file ──► the file's name in the tables
//!   starting   the tables name a file ──► its pieces, then the revisions behind it
//! ```
//!
//! A checkpoint is the index as it was at one published revision, while no compaction was under way. It goes out in
//! pieces, each made with the index locked for one chunk; writers go on meanwhile. Its file gets its name in the tables
//! ([`CHECKPOINT_KEY`]) when it is durable: since tables survive as a prefix of what was written to them, those that
//! have the name have the revisions, and the compaction, that the checkpoint is of.
//!
//! What the tables have beyond it is read from them. Only a compaction to a revision above the checkpoint's makes it
//! useless: that may have removed a key's last revision together with the tombstone that tells of it.
//!
//! A checkpoint that can't be used costs time, never an answer: the index is then read from the tables.

use bytes::{Bytes, BytesMut};

use super::{
    Store,
    index::{Head, Index, Loader},
    store::{FINISHED, SCHEDULED, decode, load, mark, scan},
    values::{Malformed, put_varint, take_varint},
};
use crate::{
    error::Fault,
    table::{Batch, Table, Tables},
    types::{LeaseId, Revision, SubRevision},
};

/// The row of [`Table::Meta`] that names the checkpoint. It is this member's own and goes into no snapshot.
pub const CHECKPOINT_KEY: &[u8] = b"kontiki_index";

/// Which checkpoint the tables name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointName {
    /// The revision that it is of.
    pub at: Revision,
    /// The checksum of its stream.
    pub checksum: u32,
}

impl CheckpointName {
    /// The name in `tables`; none if they have none, or one of another kind.
    pub fn load(tables: &impl Tables) -> Result<Option<Self>, Fault> {
        let Some(row) = tables.get(Table::Meta, CHECKPOINT_KEY)? else { return Ok(None) };
        let Some((at, checksum)) = row.split_first_chunk() else { return Ok(None) };
        let Ok(checksum) = checksum.try_into() else { return Ok(None) };
        let (at, checksum) = (Revision(i64::from_be_bytes(*at)), u32::from_be_bytes(checksum));
        Ok(Some(Self { at, checksum }))
    }

    /// The batch that takes the name out of the tables.
    pub fn forget() -> Batch {
        let mut batch = Batch::default();
        batch.delete(Table::Meta, CHECKPOINT_KEY);
        batch
    }

    /// The batch that puts the name into the tables, once the file is durable.
    pub fn batch(self) -> Batch {
        let mut batch = Batch::default();
        let row = [self.at.0.to_be_bytes().as_slice(), &self.checksum.to_be_bytes()].concat();
        batch.put(Table::Meta, CHECKPOINT_KEY, row);
        batch
    }
}

/// Why a checkpoint is of no use.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unusable(String);

impl From<Malformed> for Unusable {
    fn from(_: Malformed) -> Self {
        Self("its bytes mean nothing".into())
    }
}

impl From<Fault> for Unusable {
    fn from(fault: Fault) -> Self {
        Self(fault.to_string())
    }
}

/// A checkpoint that is being made.
#[derive(Debug)]
pub struct Cut {
    at: Revision,
    compacted: Revision,
    generation: u64,
    started: bool,
    /// The key to go on with; none at the end.
    next: Option<Box<[u8]>>,
}

/// A compaction or a snapshot came in between: the checkpoint is of no moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overtaken;

impl Cut {
    /// The revision that it is of.
    pub fn at(&self) -> Revision {
        self.at
    }

    /// Whether no snapshot has replaced the tables since.
    pub fn is_of<T: Tables>(&self, store: &Store<T>) -> bool {
        store.index().generation == self.generation
    }

    /// The next piece; none at the end.
    pub fn piece<T: Tables>(&mut self, store: &Store<T>) -> Result<Option<Bytes>, Overtaken> {
        let mut out = BytesMut::new();
        if !std::mem::replace(&mut self.started, true) {
            put_varint(&mut out, self.at.0 as u64);
            put_varint(&mut out, (self.compacted.0 + 1) as u64);
            return Ok(Some(out.freeze()));
        }
        let mut before: Vec<u8> = Vec::new();
        let bytes_max = store.config.chunk_bytes_max;
        while out.len() < bytes_max
            && let Some(start) = self.next.take()
        {
            let index = store.index();
            if index.generation != self.generation || index.compacted != self.compacted {
                return Err(Overtaken);
            }
            for (visited, entry) in index.from(&start).enumerate() {
                if visited == store.config.chunk_keys_max || out.len() >= bytes_max {
                    self.next = Some(entry.key().into());
                    break;
                }
                if entry.save(self.at, &before, &mut out) {
                    before.clear();
                    before.extend_from_slice(entry.key());
                }
            }
        }
        Ok((!out.is_empty()).then(|| out.freeze()))
    }
}

impl<T: Tables> Store<T> {
    /// Begins a checkpoint of what is published; none while a compaction is under way.
    pub fn cut(&self) -> Result<Option<Cut>, Fault> {
        let (at, compacted, generation) = {
            let index = self.index();
            (index.published, index.compacted, index.generation)
        };
        // The index lacks what the last step removes before the tables do.
        let idle = mark(&self.tables, FINISHED)? == compacted;
        Ok(idle.then(|| Cut { at, compacted, generation, started: false, next: Some(Box::default()) }))
    }
}

/// Builds the index of `tables` from a checkpoint's pieces and the revisions behind it, and tells which compaction was
/// finished.
pub(super) fn load_from<T: Tables>(
    tables: &T,
    pieces: &mut dyn Iterator<Item = Result<Bytes, Fault>>,
    unread_max: usize,
) -> Result<(Index, Revision), Unusable> {
    let (scheduled, finished) = (mark(tables, SCHEDULED)?, mark(tables, FINISHED)?);
    let first = pieces.next().ok_or_else(|| Unusable("it is empty".into()))??;
    let mut first = &first[..];
    let at = Revision(i64::try_from(take_varint(&mut first)?).map_err(|_| Malformed)?);
    let compacted = Revision((take_varint(&mut first)? as i64).wrapping_sub(1));
    let newest = scheduled.max(finished);
    if !(compacted <= finished && newest <= at.max(compacted)) {
        return Err(Unusable(format!(
            "it is of revision {at} and of a compaction to {compacted}; the tables have been compacted to {newest} since"
        )));
    }
    let mut loader = Loader::new(at, |main, sub, tombstone| head(tables, main, sub, tombstone));
    for piece in pieces {
        loader.piece(&piece?)?;
    }
    let mut index = loader.finish(unread_max);
    index.published = at;
    let behind = SubRevision { main: Revision(at.0.saturating_add(1)), sub: 0 }.to_key(false);
    scan(tables, &behind, &mut index)?;
    if finished > compacted {
        compact(&mut index, finished);
    }
    index.compacted = newest;
    index.published = index.published.max(newest);
    Ok((index, finished))
}

/// Drops what a compaction hides; its rows are gone.
fn compact(index: &mut Index, to: Revision) {
    let mut next = Some(Box::default());
    while let Some(start) = next {
        next = index.compact(&start, to, usize::MAX, usize::MAX, &mut Vec::new());
    }
}

/// A head that had a newer one on it when the checkpoint was made.
fn head<T: Tables>(tables: &T, main: Revision, sub: u32, tombstone: bool) -> Result<Head, Unusable> {
    if tombstone {
        // A compaction may have removed the row since.
        let (created, version, lease) = (Revision(0), 0, LeaseId(0));
        return Ok(Head { main, sub, tombstone, created, version, lease, bytes: None });
    }
    let at = SubRevision { main, sub: i64::from(sub) };
    let row = tables.get(Table::Rev, &at.to_key(false))?;
    let row = row.ok_or_else(|| Unusable(format!("revision {main}.{sub} is not in the tables")))?;
    let kv = decode(&row, at)?;
    let (created, version, lease) = (kv.created, kv.version, kv.lease);
    Ok(Head { main, sub, tombstone, created, version, lease, bytes: None })
}

/// The index from a checkpoint if there is one that is of use, else from the tables; why the checkpoint was not.
pub(super) fn load_best<T: Tables>(
    tables: &T,
    checkpoint: Option<&mut dyn Iterator<Item = Result<Bytes, Fault>>>,
    unread_max: usize,
) -> Result<((Index, Revision), Option<Unusable>), Fault> {
    let unusable = match checkpoint.map(|pieces| load_from(tables, pieces, unread_max)) {
        Some(Ok(loaded)) => return Ok((loaded, None)),
        Some(Err(unusable)) => Some(unusable),
        None => None,
    };
    Ok((load(tables, unread_max)?, unusable))
}

#[cfg(test)]
#[path = "checkpoint_tests.rs"]
mod tests;
