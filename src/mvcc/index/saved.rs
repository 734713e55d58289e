//! Entries as bytes, for the checkpoint of the index.
//!
//! An entry is saved as it was at a revision, which may be an older one than its newest:
//!
//! ```text
//!   entry   bytes shared with the key before | length of the rest | the rest
//!           how many older | older…
//!           0, if the newest of the older ones was the head then; its details are in its row
//!           or 1 | place | created | version | lease
//!   place   revision less the one before in this entry | sub-revision << 1 | whether a tombstone
//! ```
//!
//! All numbers are varints.

use bytes::{BufMut, BytesMut};

use super::{Entry, Head, Index, LEAF_MAX, LEAF_STEP, Older, Past};
use crate::{
    mvcc::values::{Malformed, put_varint, take, take_varint},
    types::{LeaseId, Revision},
};

const HEADLESS: u64 = 0;
const WITH_HEAD: u64 = 1;

impl Entry {
    /// Saves what it was at `at`; nothing if the key had no revision yet. `before` is the key saved before.
    pub(in crate::mvcc) fn save(&self, at: Revision, before: &[u8], out: &mut BytesMut) -> bool {
        let older = self.past.as_ref().map_or(&[][..], |past| &past.0);
        let older = &older[..older.partition_point(|old| old.main <= at.0)];
        let with_head = self.main <= at.0;
        if older.is_empty() && !with_head {
            return false;
        }
        let shared = self.key.iter().zip(before).take_while(|(a, b)| a == b).count();
        put_varint(out, shared as u64);
        put_varint(out, (self.key.len() - shared) as u64);
        out.put_slice(&self.key[shared..]);
        put_varint(out, older.len() as u64);
        let mut last = 0;
        for old in older {
            put_place(out, &mut last, *old);
        }
        if with_head {
            put_varint(out, WITH_HEAD);
            put_place(out, &mut last, Older { main: self.main, sub: self.sub, tombstone: self.tombstone });
            for number in [self.created, self.version, self.lease] {
                put_varint(out, number as u64);
            }
        } else {
            put_varint(out, HEADLESS);
        }
        true
    }
}

fn put_place(out: &mut BytesMut, last: &mut i64, place: Older) {
    put_varint(out, (place.main - *last) as u64);
    put_varint(out, u64::from(place.sub) << 1 | u64::from(place.tombstone));
    *last = place.main;
}

/// A place behind `last`, which it becomes.
fn take_place(buf: &mut &[u8], last: &mut Option<(i64, u32)>) -> Result<Older, Malformed> {
    let (main, _) = last.unwrap_or_default();
    let step = i64::try_from(take_varint(buf)?).map_err(|_| Malformed)?;
    let main = main.checked_add(step).ok_or(Malformed)?;
    let flagged = take_varint(buf)?;
    let sub = u32::try_from(flagged >> 1).map_err(|_| Malformed)?;
    if last.is_some_and(|last| last >= (main, sub)) {
        return Err(Malformed);
    }
    *last = Some((main, sub));
    Ok(Older { main, sub, tombstone: flagged & 1 == 1 })
}

/// Reads what [`Entry::save`] wrote, entry by entry.
pub(in crate::mvcc) struct Loader<D> {
    index: Builder,
    /// No revision is above this one.
    at: Revision,
    /// What a head that was not saved is, from its row.
    details: D,
}

impl<D, E> Loader<D>
where
    D: FnMut(Revision, u32, bool) -> Result<Head, E>,
    E: From<Malformed>,
{
    pub(in crate::mvcc) fn new(at: Revision, details: D) -> Self {
        Self { index: Builder::default(), at, details }
    }

    /// Takes the entries of a piece, which starts with a whole key.
    pub(in crate::mvcc) fn piece(&mut self, mut buf: &[u8]) -> Result<(), E> {
        let mut key = Vec::new();
        while !buf.is_empty() {
            let entry = self.entry(&mut buf, &mut key)?;
            self.index.push(entry).map_err(|_| Malformed)?;
        }
        Ok(())
    }

    fn entry(&mut self, buf: &mut &[u8], key: &mut Vec<u8>) -> Result<Entry, E> {
        let shared = length(buf)?;
        let rest = length(buf)?;
        if shared > key.len() {
            return Err(Malformed.into());
        }
        key.truncate(shared);
        key.extend_from_slice(take(buf, rest)?);
        let count = length(buf)?;
        let mut last = None;
        // A place takes two bytes at least: a count above that is refused before anything is reserved.
        if count > buf.len() / 2 {
            return Err(Malformed.into());
        }
        let mut older = Vec::with_capacity(count);
        for _ in 0..count {
            older.push(take_place(buf, &mut last)?);
        }
        let head = match take_varint(buf)? {
            HEADLESS => {
                let Older { main, sub, tombstone } = older.pop().ok_or(Malformed)?;
                (self.details)(Revision(main), sub, tombstone)?
            }
            WITH_HEAD => {
                let Older { main, sub, tombstone } = take_place(buf, &mut last)?;
                let [created, version, lease] =
                    [take_varint(buf)? as i64, take_varint(buf)? as i64, take_varint(buf)? as i64];
                Head {
                    main: Revision(main),
                    sub,
                    tombstone,
                    created: Revision(created),
                    version,
                    lease: LeaseId(lease),
                    bytes: None,
                }
            }
            _ => return Err(Malformed.into()),
        };
        if head.main > self.at {
            return Err(Malformed.into());
        }
        let mut entry = Entry::new(key, head);
        entry.past = (!older.is_empty()).then(|| Box::new(Past(older)));
        Ok(entry)
    }

    /// The index, which is to hold as much of what nobody reads.
    pub(in crate::mvcc) fn finish(self, unread_max: usize) -> Index {
        self.index.finish(unread_max)
    }
}

/// An index out of entries that come in order.
#[derive(Default)]
struct Builder {
    leaves: Vec<(Box<[u8]>, Vec<Entry>)>,
}

/// An entry that is not behind the one before it.
struct OutOfOrder;

impl Builder {
    fn push(&mut self, entry: Entry) -> Result<(), OutOfOrder> {
        match self.leaves.last_mut() {
            Some((_, leaf)) if leaf.last().is_some_and(|last| last.key >= entry.key) => Err(OutOfOrder),
            // A leaf that keys are likely to be put into has some room.
            Some((_, leaf)) if leaf.len() < LEAF_MAX - LEAF_STEP => {
                leaf.push(entry);
                Ok(())
            }
            last => {
                let first = if last.is_some() { entry.key.clone() } else { Box::default() };
                let mut leaf = Vec::with_capacity(LEAF_MAX - LEAF_STEP);
                leaf.push(entry);
                self.leaves.push((first, leaf));
                Ok(())
            }
        }
    }

    fn finish(self, unread_max: usize) -> Index {
        let mut index = Index::new(unread_max);
        if !self.leaves.is_empty() {
            index.leaves = self.leaves.into_iter().collect();
        }
        index
    }
}

fn length(buf: &mut &[u8]) -> Result<usize, Malformed> {
    usize::try_from(take_varint(buf)?).map_err(|_| Malformed)
}
