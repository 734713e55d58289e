//! The index: every key that has a revision, in order, with its newest state.
//!
//! Keys lie in sorted leaves of at most [`LEAF_MAX`] entries, and an ordered map leads to a leaf by its first
//! possible key. That costs about a hundred bytes a key besides the key itself, where one tree node per few
//! keys would cost half as much again; a new key moves a few kilobytes at most.
//!
//! ```text
//!  "" ──► [a, b, c]      "d" ──► [d, f]      "k" ──► [k …]
//!             │
//!             └─ head 7.0: created 4, version 3, lease 0, bytes     older: 4.0, 6.1
//! ```
//!
//! The writer changes heads in place, ahead of what is published: a reader looks for the newest revision that
//! is not above its own.

mod saved;

use std::{
    collections::BTreeMap,
    ops::Bound::{Excluded, Included, Unbounded},
    sync::atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;

use crate::types::{KeyRange, LeaseId, RangeEnd, Revision, SubRevision};

pub(super) use saved::Loader;

/// Entries in a leaf.
const LEAF_MAX: usize = 64;
/// A leaf that shrinks below this is joined with the one before it, if they fit.
const LEAF_MIN: usize = LEAF_MAX / 4;
/// How many entries a leaf grows by, so that little of it lies idle.
const LEAF_STEP: usize = 8;

/// A revision of a key that is not its newest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Older {
    main: i64,
    sub: u32,
    tombstone: bool,
}

/// Boxed as a whole, so that a key without history pays one pointer.
#[derive(Debug, Default, PartialEq, Eq)]
struct Past(Vec<Older>);

/// A key and its newest state.
#[derive(Debug)]
pub(super) struct Entry {
    key: Box<[u8]>,
    bytes: Option<Bytes>,
    created: i64,
    main: i64,
    version: i64,
    lease: i64,
    past: Option<Box<Past>>,
    sub: u32,
    tombstone: bool,
    // Set by readers, cleared by the sweep that looks for values to let go.
    hot: AtomicBool,
}

/// What becomes of a key.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub main: Revision,
    pub sub: u32,
    pub tombstone: bool,
    pub created: Revision,
    pub version: i64,
    pub lease: LeaseId,
    /// The stored bytes, if they are to be kept here.
    pub bytes: Option<Bytes>,
}

/// What a reader sees of a key.
#[derive(Clone, Copy, Debug)]
pub(super) enum Seen<'a> {
    /// Its newest state.
    Head(&'a Entry),
    /// An older one, whose bytes are in the tables.
    Older(SubRevision),
}

impl Seen<'_> {
    /// The revision seen.
    pub(super) fn at(&self) -> SubRevision {
        match self {
            Self::Head(entry) => entry.at(),
            Self::Older(at) => *at,
        }
    }
}

impl Entry {
    pub(super) fn key(&self) -> &[u8] {
        &self.key
    }

    pub(super) fn at(&self) -> SubRevision {
        SubRevision { main: Revision(self.main), sub: i64::from(self.sub) }
    }

    pub(super) fn created(&self) -> Revision {
        Revision(self.created)
    }

    pub(super) fn version(&self) -> i64 {
        self.version
    }

    pub(super) fn lease(&self) -> LeaseId {
        LeaseId(self.lease)
    }

    /// The stored bytes, if they are here.
    pub(super) fn bytes(&self) -> Option<&Bytes> {
        self.bytes.as_ref()
    }

    /// Marks its value as one to keep.
    pub(super) fn touch(&self) {
        // Without the look first, readers of one key would fight for its cache line.
        if !self.hot.load(Ordering::Relaxed) {
            self.hot.store(true, Ordering::Relaxed);
        }
    }

    /// What a reader at `revision` sees; none if the key was absent.
    pub(super) fn seen(&self, revision: Revision) -> Option<Seen<'_>> {
        if self.main <= revision.0 {
            return (!self.tombstone).then_some(Seen::Head(self));
        }
        let past = &self.past.as_ref()?.0;
        let older = past[..past.partition_point(|old| old.main <= revision.0)].last()?;
        let at = SubRevision { main: Revision(older.main), sub: i64::from(older.sub) };
        (!older.tombstone).then_some(Seen::Older(at))
    }

    fn push(&mut self, head: Head) {
        let older = Older { main: self.main, sub: self.sub, tombstone: self.tombstone };
        assert!((older.main, older.sub) < (head.main.0, head.sub), "revisions of a key only go up");
        let past = self.past.get_or_insert_default();
        if past.0.is_empty() {
            past.0.reserve_exact(1);
        }
        past.0.push(older);
        self.set(head);
    }

    fn set(&mut self, head: Head) {
        self.bytes = head.bytes;
        self.created = head.created.0;
        self.main = head.main.0;
        self.version = head.version;
        self.lease = head.lease.0;
        self.sub = head.sub;
        self.tombstone = head.tombstone;
    }

    fn new(key: &[u8], head: Head) -> Self {
        let mut entry = Self {
            key: key.into(),
            bytes: None,
            created: 0,
            main: 0,
            version: 0,
            lease: 0,
            past: None,
            sub: 0,
            tombstone: false,
            hot: AtomicBool::new(false),
        };
        entry.set(head);
        entry
    }

    /// Every place that it has, in order.
    #[cfg(test)]
    pub(super) fn places(&self) -> impl Iterator<Item = SubRevision> {
        let older = self.past.iter().flat_map(|past| &past.0);
        let place = |main, sub| SubRevision { main: Revision(main), sub: i64::from(sub) };
        older.map(move |old| place(old.main, old.sub)).chain([self.at()])
    }

    /// Drops what nobody who reads at `at` or later can see, at most `max` revisions, and names it.
    ///
    /// A tombstone below `at` goes last, so that a crash in between never brings back what it hides; one
    /// exactly at `at` stays, for a watch from there is told of it (etcd since 3.5.16).
    fn compact(&mut self, at: Revision, max: usize, gone: &mut Vec<(SubRevision, bool)>) -> Compacted {
        let older = self.past.as_ref().map_or(&[][..], |past| &past.0);
        let head_kept = self.main > at.0;
        let not_above =
            if head_kept { older.partition_point(|old| old.main <= at.0) } else { older.len() + 1 };
        let Some(newest) = not_above.checked_sub(1) else {
            return Compacted::Done;
        };
        let (main, tombstone) = if head_kept {
            (older[newest].main, older[newest].tombstone)
        } else {
            (self.main, self.tombstone)
        };
        let name =
            |old: &Older| (SubRevision { main: Revision(old.main), sub: i64::from(old.sub) }, old.tombstone);
        let mut left = max;
        if let Some(past) = &mut self.past {
            let hidden = newest.min(left);
            left -= hidden;
            gone.extend(past.0[newest - hidden..newest].iter().map(name));
            past.0.drain(newest - hidden..newest);
            if hidden < newest {
                return Compacted::Partly;
            }
        }
        if tombstone && main < at.0 {
            if left == 0 {
                return Compacted::Partly;
            }
            if !head_kept {
                gone.push((self.at(), true));
                return Compacted::Gone;
            }
            // All before it has been drained.
            if let Some(past) = &mut self.past {
                gone.push(name(&past.0.remove(0)));
            }
        }
        match &mut self.past {
            Some(past) if past.0.is_empty() => self.past = None,
            Some(past) if past.0.capacity() > 2 * past.0.len() => past.0.shrink_to_fit(),
            Some(_) | None => {}
        }
        Compacted::Done
    }
}

enum Compacted {
    Done,
    /// There is more of it to drop.
    Partly,
    /// The key has no revision left.
    Gone,
}

/// All keys. See the module.
#[derive(Debug)]
pub(super) struct Index {
    leaves: BTreeMap<Box<[u8]>, Vec<Entry>>,
    /// Bytes of values held.
    held: usize,
    /// Up to how many bytes in all values are held that nobody has read.
    unread_max: usize,
    /// The leaf where the sweep for cold values goes on.
    hand: Box<[u8]>,
    /// The newest revision that readers see.
    pub(super) published: Revision,
    /// The compaction that readers see; -1 for none.
    pub(super) compacted: Revision,
    /// Counts the reloads: what was seen before one is not there any more.
    pub(super) generation: u64,
}

impl Index {
    pub(super) fn new(unread_max: usize) -> Self {
        Self {
            leaves: BTreeMap::from([(Box::default(), Vec::new())]),
            held: 0,
            unread_max,
            hand: Box::default(),
            published: Revision(1),
            compacted: Revision(-1),
            generation: 0,
        }
    }

    /// Whether a value of so many bytes that nobody has read would be held.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.held + bytes <= self.unread_max
    }

    fn leaf_of(&self, key: &[u8]) -> (&[u8], &[Entry]) {
        let (first, leaf) = self
            .leaves
            .range::<[u8], _>((Unbounded, Included(key)))
            .next_back()
            .expect("the leaf of \"\" stays");
        (first, leaf)
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<&Entry> {
        let (_, leaf) = self.leaf_of(key);
        leaf.binary_search_by(|entry| entry.key.as_ref().cmp(key)).ok().map(|at| &leaf[at])
    }

    /// The entries from `start` on, in order.
    pub(super) fn from(&self, start: &[u8]) -> impl Iterator<Item = &Entry> {
        let (first, leaf) = self.leaf_of(start);
        let at = leaf.partition_point(|entry| entry.key.as_ref() < start);
        leaf[at..]
            .iter()
            .chain(self.leaves.range::<[u8], _>((Excluded(first), Unbounded)).flat_map(|(_, leaf)| leaf))
    }

    /// Makes `head` the newest state of `key`. Its bytes are kept if there is room, or if the key has been read: who
    /// writes a lot that nobody reads does not pay for it in memory.
    pub(super) fn push(&mut self, key: &[u8], mut head: Head) {
        let bytes = head.bytes.as_ref().map_or(0, Bytes::len);
        let room = self.has_room(bytes);
        let (_, leaf) = self
            .leaves
            .range_mut::<[u8], _>((Unbounded, Included(key)))
            .next_back()
            .expect("the leaf of \"\" stays");
        let at = match leaf.binary_search_by(|entry| entry.key.as_ref().cmp(key)) {
            Ok(at) => {
                let entry = &mut leaf[at];
                self.held -= entry.bytes.as_ref().map_or(0, Bytes::len);
                if room || *entry.hot.get_mut() {
                    self.held += bytes;
                } else {
                    head.bytes = None;
                }
                entry.push(head);
                return;
            }
            Err(at) => at,
        };
        if room {
            self.held += bytes;
        } else {
            head.bytes = None;
        }
        if leaf.len() < LEAF_MAX {
            insert(leaf, at, Entry::new(key, head));
            return;
        }
        // Keys that come in order leave full leaves behind.
        let cut = if at == leaf.len() { at } else { leaf.len() / 2 };
        let mut right = leaf.split_off(cut);
        let entry = Entry::new(key, head);
        if at < cut {
            insert(leaf, at, entry)
        } else {
            insert(&mut right, at - cut, entry)
        }
        leaf.shrink_to(leaf.len() + LEAF_STEP);
        let first = right[0].key.clone();
        self.leaves.insert(first, right);
    }

    /// Puts a value that was read from the tables beside its head, if that is still its head.
    pub(super) fn warm(&mut self, key: &[u8], at: SubRevision, bytes: Bytes) {
        let leaf = self.leaves.range_mut::<[u8], _>((Unbounded, Included(key))).next_back();
        let Some(entry) = leaf.and_then(|(_, leaf)| {
            let at = leaf.binary_search_by(|entry| entry.key.as_ref().cmp(key)).ok()?;
            leaf.get_mut(at)
        }) else {
            return;
        };
        if entry.at() == at && entry.bytes.is_none() && !entry.tombstone {
            self.held += bytes.len();
            entry.hot = AtomicBool::new(true);
            entry.bytes = Some(bytes);
        }
    }

    /// Lets go of values that nobody has read since the last sweep, until `max` bytes are held or about
    /// `visits` entries were looked at. Whether it is still above.
    pub(super) fn cool(&mut self, max: usize, visits: usize) -> bool {
        let mut visited = 0;
        while self.held > max && visited < visits {
            let Some((_, leaf)) = self.leaves.range_mut::<[u8], _>((Included(&*self.hand), Unbounded)).next()
            else {
                self.hand = Box::default();
                visited += 1;
                continue;
            };
            visited += leaf.len().max(1);
            for entry in leaf.iter_mut().filter(|entry| entry.bytes.is_some()) {
                if self.held <= max {
                    break;
                }
                if !std::mem::take(entry.hot.get_mut()) {
                    self.held -= entry.bytes.take().map_or(0, |bytes| bytes.len());
                }
            }
            let next = self.leaves.range::<[u8], _>((Included(&*self.hand), Unbounded)).nth(1);
            self.hand = next.map_or_else(Box::default, |(first, _)| first.clone());
        }
        self.held > max
    }

    /// Drops, from the key `start` on, what a compaction to `at` hides: at most `max` revisions, looking at
    /// about `visits` keys. Returns where to go on, or none at the end.
    pub(super) fn compact(
        &mut self,
        start: &[u8],
        at: Revision,
        max: usize,
        visits: usize,
        gone: &mut Vec<(SubRevision, bool)>,
    ) -> Option<Box<[u8]>> {
        let mut next: Box<[u8]> = start.into();
        let mut visited = 0;
        loop {
            let first: Box<[u8]> = self.leaf_of(&next).0.into();
            let leaf = self.leaves.get_mut(&first).expect("it was just found");
            let mut stopped = None;
            let held = &mut self.held;
            leaf.retain_mut(|entry| {
                if stopped.is_some() || entry.key < next {
                    return true;
                }
                visited += 1;
                match entry.compact(at, max - gone.len(), gone) {
                    Compacted::Done => true,
                    Compacted::Partly => {
                        stopped = Some(entry.key.clone());
                        true
                    }
                    Compacted::Gone => {
                        *held -= entry.bytes.as_ref().map_or(0, Bytes::len);
                        false
                    }
                }
            });
            self.join(&first);
            if stopped.is_some() {
                return stopped;
            }
            next = self.leaves.range::<[u8], _>((Excluded(&*first), Unbounded)).next()?.0.clone();
            if visited >= visits || gone.len() >= max {
                return Some(next);
            }
        }
    }

    /// Removes an empty leaf, and moves a small one into the leaf before it.
    fn join(&mut self, first: &[u8]) {
        let len = self.leaves.get(first).map_or(0, Vec::len);
        if first.is_empty() || len >= LEAF_MIN {
            return;
        }
        let before = self.leaves.range::<[u8], _>((Unbounded, Excluded(first))).next_back();
        if before.is_none_or(|(_, before)| before.len() + len > LEAF_MAX * 3 / 4) {
            return;
        }
        let moved = self.leaves.remove(first).unwrap_or_default();
        if let Some((_, before)) = self.leaves.range_mut::<[u8], _>((Unbounded, Excluded(first))).next_back()
        {
            before.reserve_exact(moved.len());
            before.extend(moved);
        }
    }
}

fn insert(leaf: &mut Vec<Entry>, at: usize, entry: Entry) {
    if leaf.len() == leaf.capacity() {
        leaf.reserve_exact(LEAF_STEP);
    }
    leaf.insert(at, entry);
}

/// Whether `key`, which is not below the range's start, is past its end.
pub(super) fn past_end(range: &KeyRange, key: &[u8]) -> bool {
    match &range.end {
        RangeEnd::Single => key != range.start,
        RangeEnd::Before(end) => key >= end.as_ref(),
        RangeEnd::Unbounded => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(main: i64, bytes: Option<&'static [u8]>) -> Head {
        Head {
            main: Revision(main),
            sub: 0,
            tombstone: false,
            created: Revision(main),
            version: 1,
            lease: LeaseId(0),
            bytes: bytes.map(Bytes::from_static),
        }
    }

    fn bytes_per_key(index: &Index) -> usize {
        let entries: usize = index.leaves.values().map(Vec::capacity).sum();
        let keys: usize = index.leaves.values().map(Vec::len).sum();
        // A map's node holds up to 11 leaves and is half full at worst.
        (entries * size_of::<Entry>() + index.leaves.len() * 2 * (16 + 24 + 8)) / keys
    }

    #[test]
    fn a_key_costs_at_most_120_bytes() {
        assert_eq!(size_of::<Entry>(), 96);
        let mut ordered = Index::new(1 << 20);
        let mut scattered = Index::new(1 << 20);
        for n in 0..20_000_u32 {
            ordered.push(format!("{n:08}").as_bytes(), head(i64::from(n) + 2, None));
            let key = n.wrapping_mul(2_654_435_761);
            scattered.push(&key.to_be_bytes(), head(i64::from(n) + 2, None));
        }
        for index in [&ordered, &scattered] {
            assert!(bytes_per_key(index) <= 120, "{} bytes", bytes_per_key(index));
            assert!(index.from(b"").map(Entry::key).is_sorted());
            assert_eq!(index.from(b"").count(), 20_000);
        }
    }

    #[test]
    fn leaves_shrink_with_their_keys() {
        let mut index = Index::new(1 << 20);
        for n in 0..1000_i64 {
            let key = format!("{n:04}");
            index.push(key.as_bytes(), head(2 * n + 2, None));
            if n % 10 != 0 {
                index.push(key.as_bytes(), Head { tombstone: true, ..head(2 * n + 3, None) });
            }
        }
        let full = index.leaves.len();
        let (mut gone, mut next) = (Vec::new(), Some(Box::default()));
        while let Some(start) = next {
            let before = gone.len();
            next = index.compact(&start, Revision(3000), before + 7, 50, &mut gone);
            assert!(gone.len() - before <= 7);
        }
        assert_eq!(gone.len(), 1800);
        assert_eq!(index.from(b"").count(), 100);
        assert!(index.leaves.len() * 4 <= full, "{} leaves of {full}", index.leaves.len());
    }

    #[test]
    fn a_range_ends_where_it_says() {
        for (end, past) in [("", [false, true, true]), ("b", [false, true, true]), ("\0", [false; 3])] {
            let range = KeyRange::from_wire("a".into(), end.as_bytes().to_vec().into());
            assert_eq!(["a", "b", "c"].map(|key| past_end(&range, key.as_bytes())), past, "{end:?}");
        }
    }

    #[test]
    fn values_that_are_read_stay() {
        let mut index = Index::new(1 << 20);
        for n in 0..100_i64 {
            index.push(format!("{n:04}").as_bytes(), head(n + 2, Some(b"0123456789")));
        }
        assert_eq!(index.held, 1000);
        for n in 0..10 {
            index.get(format!("{n:04}").as_bytes()).expect("it was put").touch();
        }
        while index.cool(100, 30) {}
        let kept: Vec<_> = index.from(b"").filter(|entry| entry.bytes().is_some()).map(Entry::key).collect();
        assert_eq!((index.held, kept.len()), (100, 10));
        assert_eq!(kept[9], b"0009");
    }

    #[test]
    fn values_that_nobody_reads_are_held_up_to_a_limit() {
        let mut index = Index::new(25);
        let held = |index: &Index| -> Vec<String> {
            let held = index.from(b"").filter(|entry| entry.bytes().is_some());
            held.map(|entry| String::from_utf8_lossy(entry.key()).into_owned()).collect()
        };
        for (n, key) in ["a", "b", "c"].into_iter().enumerate() {
            index.push(key.as_bytes(), head(n as i64 + 2, Some(b"0123456789")));
        }
        assert_eq!(held(&index), ["a", "b"]);
        index.get(b"b").expect("it was put").touch();
        let older = SubRevision { main: Revision(3), sub: 0 };
        index.warm(b"c", older, Bytes::from_static(b"an older one"));
        assert_eq!(held(&index), ["a", "b"], "what was read is its newest no more");
        index.warm(b"c", index.get(b"c").expect("it was put").at(), Bytes::from_static(b"0123456789"));
        assert_eq!(held(&index), ["a", "b", "c"], "what is read is held beyond it");
        for (n, key) in ["a", "b", "c"].into_iter().enumerate() {
            index.push(key.as_bytes(), head(n as i64 + 7, Some(b"abcdefghij")));
        }
        assert_eq!((held(&index), index.held), (vec!["b".into(), "c".into()], 20), "what was read stays so");
    }
}
