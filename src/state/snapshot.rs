//! The tables as a stream of bytes, for a member that is too far behind for entries.
//!
//! ```text
//!   stream  frames (`framed`), each of a payload:
//!   payload (table u8 | key length u32 | key | value length u32 | value)…        numbers little endian
//! ```
//!
//! The applied index comes last: tables that lack it were not loaded whole.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::meta::{INDEX_KEY, Meta};
use crate::{
    error::Fault,
    framed,
    mvcc::CHECKPOINT_KEY,
    raft::{LogId, SnapshotMeta},
    table::{Batch, Scan, Table, Tables, Write},
    types::Index,
};

/// What such a stream begins with.
pub const SNAPSHOT_MAGIC: &[u8; framed::MAGIC_BYTES] = b"kontiki1";

/// How far the tables are: the last applied entry, and the configuration there.
pub fn position(tables: &impl Tables) -> Result<SnapshotMeta, Fault> {
    let meta = Meta::load(tables)?;
    let last = LogId { term: meta.term, index: meta.applied };
    Ok(SnapshotMeta { last, config: (&meta.config).into() })
}

/// The applied index that a batch of [`Rows`] puts; the last one does.
pub fn index_in(batch: &Batch) -> Option<Index> {
    batch.writes.iter().find_map(|write| match write {
        Write::Put(Table::Meta, key, value) if key == INDEX_KEY => {
            Some(Index(u64::from_be_bytes(value.as_ref().try_into().ok()?)))
        }
        Write::Put(..) | Write::Delete(..) | Write::DeleteRange(..) => None,
    })
}

/// The rows of all tables but the member's own, in batches of puts: what [`Backend::replace`](crate::storage::Backend::replace)
/// takes. `tables` must be a view of one moment.
pub struct Rows<'t, T: Tables> {
    tables: &'t T,
    batch_bytes_max: usize,
    /// Where to go on: a place in [`Table::ALL`], and the first key.
    next: Option<(usize, Vec<u8>)>,
}

impl<'t, T: Tables> Rows<'t, T> {
    /// Reads `tables` in batches of about `batch_bytes_max` bytes; one row may be larger.
    pub fn new(tables: &'t T, batch_bytes_max: usize) -> Self {
        Self { tables, batch_bytes_max, next: Some((0, Vec::new())) }
    }

    fn fill(&mut self, at: usize, start: &[u8], batch: &mut Batch) -> Result<(), Fault> {
        let Some(table) = Table::ALL.get(at).copied() else {
            if let Some(index) = self.tables.get(Table::Meta, INDEX_KEY)? {
                batch.put(Table::Meta, INDEX_KEY, index);
            }
            return Ok(());
        };
        let mut bytes = 0;
        let mut rest = None;
        self.tables.scan(table, start, None, &mut |key, value| {
            if bytes >= self.batch_bytes_max {
                rest = Some(key.to_vec());
                return Scan::Stop;
            }
            if table != Table::Meta || ![INDEX_KEY, CHECKPOINT_KEY].contains(&key) {
                bytes += key.len() + value.len();
                batch.put(table, Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
            }
            Scan::Continue
        })?;
        self.next = Some(match rest {
            Some(key) => (at, key),
            None => (at + 1, Vec::new()),
        });
        Ok(())
    }
}

impl<T: Tables> Iterator for Rows<'_, T> {
    type Item = Result<Batch, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut batch = Batch::default();
        while batch.is_empty() {
            let (at, start) = self.next.take()?;
            if let Err(fault) = self.fill(at, &start, &mut batch) {
                self.next = None;
                return Some(Err(fault));
            }
        }
        Some(Ok(batch))
    }
}

/// What a row takes besides its key and its value: the table, and both lengths.
const ROW_BYTES: usize = 9;

/// Writes a batch of [`Rows`] as a payload.
pub fn encode_rows(batch: &Batch, out: &mut BytesMut) {
    let size = |write: &Write| match write {
        Write::Put(_, key, value) => ROW_BYTES + key.len() + value.len(),
        _ => 0,
    };
    out.reserve(batch.writes.iter().map(size).sum());
    for write in &batch.writes {
        let Write::Put(table, key, value) = write else { unreachable!("rows are put") };
        out.put_u8(*table as u8);
        put_bytes(out, key);
        put_bytes(out, value);
    }
}

/// The batch in a payload.
pub fn decode_rows(payload: Bytes) -> Result<Batch, Fault> {
    take_rows(payload).ok_or_else(|| Fault::corrupt("the rows of a snapshot can't be read"))
}

fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    out.put_u32_le(u32::try_from(bytes.len()).expect("keys and values are far below 4 GiB"));
    out.put_slice(bytes);
}

fn take_rows(mut payload: Bytes) -> Option<Batch> {
    let mut batch = Batch::default();
    while payload.has_remaining() {
        let table = *Table::ALL.get(usize::from(payload.get_u8()))?;
        let key = take_bytes(&mut payload)?;
        let value = take_bytes(&mut payload)?;
        batch.put(table, key, value);
    }
    Some(batch)
}

fn take_bytes(payload: &mut Bytes) -> Option<Bytes> {
    let length = payload.try_get_u32_le().ok()? as usize;
    (length <= payload.len()).then(|| payload.split_to(length))
}
