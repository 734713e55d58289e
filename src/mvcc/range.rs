//! Ranges: which keys, which of them, in which order, a chunk at a time.
//!
//! A range by key streams: a chunk of the index is looked through under its lock, values that are not in
//! memory are fetched after it. Any other order needs all that match first; their values stay shared.

use std::{cmp::Reverse, collections::VecDeque, sync::Arc};

use bytes::Bytes;

use super::{
    Error, Store,
    index::{Entry, Seen, past_end},
    request::{KvBytes, RangeRequest, RangeResponse, SortOrder, SortTarget},
    store::{View, decode},
    values::KvRef,
};
use crate::{
    error::{Fault, Refusal},
    table::Tables,
    types::{KeyRange, RangeEnd, Revision, SubRevision},
};

/// Part of a range's result.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeChunk {
    /// The next key-values, encoded.
    pub kvs: Vec<KvBytes>,
    /// What comes with the last chunk.
    pub tail: Option<RangeTail>,
}

/// What is known when a range has been read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RangeTail {
    /// The store's revision when the range began.
    pub revision: Revision,
    /// Whether the limit cut it short.
    pub more: bool,
    /// How many keys the range holds.
    pub count: i64,
}

/// A range that is read chunk by chunk, all of one moment. Physical compaction waits for it.
pub struct RangeCursor<T: Tables> {
    store: Arc<Store<T>>,
    view: View<'static>,
    run: Run,
}

impl<T: Tables> RangeCursor<T> {
    /// The next chunk; none after the one with the tail. Refused if a snapshot replaced the tables meanwhile.
    pub fn next_chunk(&mut self) -> Result<Option<RangeChunk>, Error> {
        self.run.next_chunk(&self.store, &self.view)
    }
}

impl<T: Tables> Drop for RangeCursor<T> {
    fn drop(&mut self) {
        self.store.unpin(self.run.revision);
    }
}

impl<T: Tables> Store<T> {
    /// Reads a range at the published revision, or an older one that is asked for.
    pub fn range(&self, request: &RangeRequest) -> Result<RangeResponse, Error> {
        self.range_within(request, &mut |_| Ok(()))
    }

    /// The same, asking before each next chunk whether there is room for the bytes of the last one.
    pub fn range_within(
        &self,
        request: &RangeRequest,
        room: &mut dyn FnMut(usize) -> Result<(), Refusal>,
    ) -> Result<RangeResponse, Error> {
        let (view, _pin) = {
            let index = self.index();
            let view = Self::published_view(&index);
            let revision = view.resolve(request.revision)?;
            if let (RangeEnd::Single, false) = (&request.range.end, filters(request)) {
                let seen = index.get(&request.range.start).and_then(|entry| entry.seen(revision));
                if let Some(response) = in_memory(request, seen, view.now) {
                    return Ok(response);
                }
            }
            (view, self.pin(&index, revision))
        };
        self.gathered(request, &view, room)
    }

    /// The same in chunks, for streams and whatever must not hold all of it.
    pub fn range_cursor(self: &Arc<Self>, request: &RangeRequest) -> Result<RangeCursor<T>, Error> {
        let index = self.index();
        let view = Self::published_view(&index);
        let run = Run::new(request, &view)?;
        self.pin_owned(&index, run.revision);
        Ok(RangeCursor { store: Arc::clone(self), view, run })
    }

    /// Reads a range in `view`, whose revisions are pinned or the writer's own.
    pub(super) fn range_in(&self, request: &RangeRequest, view: &View<'_>) -> Result<RangeResponse, Error> {
        self.gathered(request, view, &mut |_| Ok(()))
    }

    fn gathered(
        &self,
        request: &RangeRequest,
        view: &View<'_>,
        room: &mut dyn FnMut(usize) -> Result<(), Refusal>,
    ) -> Result<RangeResponse, Error> {
        let mut run = Run::new(request, view)?;
        let mut response = RangeResponse { revision: view.now, ..RangeResponse::default() };
        while let Some(mut chunk) = run.next_chunk(self, view)? {
            room(chunk.kvs.iter().map(|kv| kv.0.len()).sum())?;
            if response.kvs.is_empty() {
                response.kvs = chunk.kvs;
            } else {
                response.kvs.append(&mut chunk.kvs);
            }
            if let Some(tail) = chunk.tail {
                (response.more, response.count) = (tail.more, tail.count);
            }
        }
        Ok(response)
    }
}

/// The answer to a read of one key, if it needs no table.
fn in_memory(request: &RangeRequest, seen: Option<Seen<'_>>, now: Revision) -> Option<RangeResponse> {
    let mut response = RangeResponse { revision: now, ..RangeResponse::default() };
    let Some(seen) = seen else { return Some(response) };
    response.count = 1;
    if request.count_only {
        return Some(response);
    }
    let Seen::Head(head) = seen else { return None };
    head.touch();
    let kv = if request.keys_only { without_value(head) } else { KvBytes(head.bytes()?.clone()) };
    response.kvs.push(kv);
    Some(response)
}

fn filters(request: &RangeRequest) -> bool {
    let bounds = [
        request.min_mod_revision,
        request.max_mod_revision,
        request.min_create_revision,
        request.max_create_revision,
    ];
    bounds.iter().any(|bound| bound.0 != 0)
}

fn within(revision: Revision, min: Revision, max: Revision) -> bool {
    (min.0 == 0 || revision >= min) && (max.0 == 0 || revision <= max)
}

fn without_value(head: &Entry) -> KvBytes {
    KvRef {
        key: head.key(),
        created: head.created(),
        modified: head.at().main,
        version: head.version(),
        value: &[],
        lease: head.lease(),
    }
    .encode()
}

/// A key that the range holds.
struct Row {
    at: SubRevision,
    /// Created and version, where the index knows them.
    born: Option<(Revision, i64)>,
    bytes: Option<Bytes>,
}

/// The state of a range that is being read.
pub(super) struct Run {
    request: RangeRequest,
    /// The revision it is read at.
    pub(super) revision: Revision,
    /// What it is sorted by and whether downwards; none for as stored.
    sort: Option<(SortTarget, bool)>,
    /// How many keys are taken from the index.
    fetch_max: usize,
    /// How many go out.
    limit: usize,
    /// Where the index is looked through next; none when it has been.
    next: Option<Vec<u8>>,
    rows: VecDeque<Row>,
    fetched: usize,
    emitted: usize,
    count: i64,
    more: bool,
    sorted: bool,
    ended: bool,
}

impl Run {
    pub(super) fn new(request: &RangeRequest, view: &View<'_>) -> Result<Self, Refusal> {
        let revision = view.resolve(request.revision)?;
        let limit = usize::try_from(request.limit).ok().filter(|limit| *limit > 0).unwrap_or(usize::MAX);
        // etcd takes one key more than the limit where it sees no need for all. It overlooks a target
        // without an order, whose result is then sorted within what was taken.
        let all = filters(request) || request.sort_order != SortOrder::None;
        let sort = match (request.sort_order, request.sort_target) {
            (SortOrder::None | SortOrder::Ascend, SortTarget::Key | SortTarget::Unknown) => None,
            (SortOrder::None | SortOrder::Ascend, target) => Some((target, false)),
            (SortOrder::Descend, target) => Some((target, true)),
        };
        Ok(Self {
            revision,
            sort,
            fetch_max: if all { usize::MAX } else { limit.saturating_add(1) },
            limit,
            next: (!request.range.is_empty()).then(|| request.range.start.to_vec()),
            request: request.clone(),
            rows: VecDeque::new(),
            fetched: 0,
            emitted: 0,
            count: 0,
            more: false,
            sorted: false,
            ended: false,
        })
    }

    pub(super) fn next_chunk<T: Tables>(
        &mut self,
        store: &Store<T>,
        view: &View<'_>,
    ) -> Result<Option<RangeChunk>, Error> {
        if self.ended {
            return Ok(None);
        }
        if self.sort.is_some() && !self.sorted {
            while self.next.is_some() {
                self.gather(store, view)?;
            }
            self.sort(store, view)?;
        }
        let mut kvs = Vec::with_capacity(self.rows.len().min(store.config.chunk_keys_max));
        let mut size = 0;
        loop {
            while let Some(row) = self.rows.pop_front() {
                let Some(row) = self.admit(row, store, view)? else { continue };
                if self.emitted == self.limit {
                    self.more = true;
                    self.rows.clear();
                    break;
                }
                let kv = self.emit(row, store, view)?;
                self.emitted += 1;
                size += kv.0.len();
                kvs.push(kv);
                if size >= store.config.chunk_bytes_max && !(self.rows.is_empty() && self.next.is_none()) {
                    return Ok(Some(RangeChunk { kvs, tail: None }));
                }
            }
            if self.next.is_none() {
                self.ended = true;
                let tail = RangeTail { revision: view.now, more: self.more, count: self.count };
                return Ok(Some(RangeChunk { kvs, tail: Some(tail) }));
            }
            self.gather(store, view)?;
        }
    }

    /// Looks through the next keys of the index.
    fn gather<T: Tables>(&mut self, store: &Store<T>, view: &View<'_>) -> Result<(), Error> {
        let Some(start) = self.next.take() else { return Ok(()) };
        let index = store.index();
        if index.generation != view.generation {
            return Err(Refusal::LeaderChanged.into());
        }
        if self.request.range.end == RangeEnd::Single {
            if let Some(seen) = index.get(&start).and_then(|entry| entry.seen(self.revision)) {
                self.take(seen);
            }
            return Ok(());
        }
        for (visited, entry) in index.from(&start).enumerate() {
            if past_end(&self.request.range, entry.key()) {
                return Ok(());
            }
            if visited == store.config.chunk_keys_max {
                self.next = Some(entry.key().to_vec());
                return Ok(());
            }
            if let Some(seen) = entry.seen(self.revision) {
                self.take(seen);
            }
        }
        Ok(())
    }

    /// Counts a key, and takes it if it may go out.
    fn take(&mut self, seen: Seen<'_>) {
        self.count += 1;
        let request = &self.request;
        if request.count_only || self.more || self.fetched >= self.fetch_max {
            return;
        }
        let at = seen.at();
        if !within(at.main, request.min_mod_revision, request.max_mod_revision) {
            return;
        }
        self.fetched += 1;
        let by_value = matches!(self.sort, Some((SortTarget::Value, _)));
        self.rows.push_back(match seen {
            Seen::Head(head) => {
                let born = Some((head.created(), head.version()));
                let bytes = if request.keys_only && !by_value {
                    Some(without_value(head).0)
                } else {
                    head.touch();
                    head.bytes().cloned()
                };
                Row { at, born, bytes }
            }
            Seen::Older(at) => Row { at, born: None, bytes: None },
        });
    }

    fn bytes<T: Tables>(row: &mut Row, store: &Store<T>, view: &View<'_>) -> Result<Bytes, Error> {
        if let Some(bytes) = &row.bytes {
            return Ok(bytes.clone());
        }
        let bytes = store.load(row.at, view)?;
        row.bytes = Some(bytes.clone());
        Ok(bytes)
    }

    fn born<T: Tables>(row: &mut Row, store: &Store<T>, view: &View<'_>) -> Result<(Revision, i64), Error> {
        if let Some(born) = row.born {
            return Ok(born);
        }
        let bytes = Self::bytes(row, store, view)?;
        let kv = decode(&bytes, row.at)?;
        row.born = Some((kv.created, kv.version));
        Ok((kv.created, kv.version))
    }

    /// Drops a row that was created outside the bounds.
    fn admit<T: Tables>(
        &self,
        mut row: Row,
        store: &Store<T>,
        view: &View<'_>,
    ) -> Result<Option<Row>, Error> {
        let (min, max) = (self.request.min_create_revision, self.request.max_create_revision);
        if (min, max) == (Revision(0), Revision(0)) {
            return Ok(Some(row));
        }
        let (created, _) = Self::born(&mut row, store, view)?;
        Ok(within(created, min, max).then_some(row))
    }

    fn emit<T: Tables>(&self, mut row: Row, store: &Store<T>, view: &View<'_>) -> Result<KvBytes, Error> {
        let held = row.bytes.is_some();
        let bytes = Self::bytes(&mut row, store, view)?;
        if self.request.keys_only {
            let kv = decode(&bytes, row.at)?;
            if !kv.value.is_empty() {
                return Ok(KvRef { value: &[], ..kv }.encode());
            }
        } else if !held && self.revision == view.now {
            let key = bytes.slice_ref(decode(&bytes, row.at)?.key);
            store.remember(&key, row.at, &bytes);
        }
        Ok(KvBytes(bytes))
    }

    /// Sorts all that was taken; rows that are equal stay in the order of their keys.
    fn sort<T: Tables>(&mut self, store: &Store<T>, view: &View<'_>) -> Result<(), Error> {
        self.sorted = true;
        let Some((target, down)) = self.sort else { return Ok(()) };
        let mut rows: Vec<Row> = std::mem::take(&mut self.rows).into();
        match target {
            SortTarget::Key | SortTarget::Unknown => {
                if down {
                    rows.reverse();
                }
            }
            SortTarget::Version | SortTarget::Create | SortTarget::Mod => {
                let mut keyed = Vec::with_capacity(rows.len());
                for mut row in rows {
                    let number = match target {
                        SortTarget::Version => Self::born(&mut row, store, view)?.1,
                        SortTarget::Create => Self::born(&mut row, store, view)?.0.0,
                        SortTarget::Mod | SortTarget::Key | SortTarget::Value | SortTarget::Unknown => {
                            row.at.main.0
                        }
                    };
                    keyed.push((number, row));
                }
                rows = in_order(keyed, down);
            }
            SortTarget::Value => {
                let mut keyed = Vec::with_capacity(rows.len());
                for mut row in rows {
                    let bytes = Self::bytes(&mut row, store, view)?;
                    keyed.push((bytes.slice_ref(decode(&bytes, row.at)?.value), row));
                }
                rows = in_order(keyed, down);
            }
        }
        self.rows = rows.into();
        Ok(())
    }
}

fn in_order<K: Ord>(mut keyed: Vec<(K, Row)>, down: bool) -> Vec<Row> {
    if down {
        keyed.sort_by(|a, b| Reverse(&a.0).cmp(&Reverse(&b.0)));
    } else {
        keyed.sort_by(|a, b| a.0.cmp(&b.0));
    }
    keyed.into_iter().map(|(_, row)| row).collect()
}

impl<T: Tables> Store<T> {
    /// What `key` was just before revision `before`; none if it was absent or that is compacted.
    pub fn prev_kv(&self, key: &[u8], before: Revision) -> Result<Option<KvBytes>, Fault> {
        let mut request = RangeRequest::of(KeyRange::single(Bytes::copy_from_slice(key)));
        request.revision = Revision(before.0.saturating_sub(1));
        if request.revision.0 <= 0 {
            return Ok(None);
        }
        match Error::split(self.range(&request))? {
            Ok(response) => Ok(response.kvs.into_iter().next()),
            Err(_) => Ok(None),
        }
    }
}
