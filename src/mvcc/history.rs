//! Past changes, for watches that start behind.

use super::{
    Error, Store,
    request::{Event, KvBytes},
    store::decode,
    write::{buried, size},
};
use crate::{
    error::{Fault, Refusal},
    table::{Scan, Table, Tables},
    types::{Revision, SubRevision},
};
use bytes::Bytes;

/// A run of past changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// The changes, in order; a revision is in it whole or not at all.
    pub events: Vec<Event>,
    /// The first revision that was not read: where to go on.
    pub next: Revision,
}

impl<T: Tables> Store<T> {
    /// The changes of `[from, to]`, as far as published, in whole revisions: at most `revisions_max` of them,
    /// and none is begun once `bytes_max` bytes are there. The revision compacted to can still be read.
    pub fn events(
        &self,
        from: Revision,
        to: Revision,
        revisions_max: usize,
        bytes_max: usize,
    ) -> Result<History, Error> {
        let to = to.min(self.revision());
        if from < self.compacted() {
            return Err(Refusal::Compacted.into());
        }
        let mut history = History { events: Vec::new(), next: from.max(to.next()) };
        if from > to {
            history.next = from;
            return Ok(history);
        }
        let (mut revisions, mut bytes, mut last) = (0, 0, None);
        let mut fault = None;
        let start = SubRevision { main: from, sub: 0 }.to_key(false);
        let end = SubRevision { main: to.next(), sub: 0 }.to_key(false);
        self.tables.scan(Table::Rev, &start, Some(&end), &mut |row, stored| {
            let event = match event_of(row, stored) {
                Ok(event) => event,
                Err(error) => {
                    fault = Some(error);
                    return Scan::Stop;
                }
            };
            if last != Some(event.at.main) {
                if revisions == revisions_max.max(1) || (revisions > 0 && bytes >= bytes_max) {
                    history.next = event.at.main;
                    return Scan::Stop;
                }
                revisions += 1;
                last = Some(event.at.main);
            }
            bytes += size(&event);
            history.events.push(event);
            Scan::Continue
        })?;
        if let Some(fault) = fault {
            return Err(fault.into());
        }
        // Physical compaction follows what is published, so if this still holds nothing was missing.
        if from < self.compacted() {
            return Err(Refusal::Compacted.into());
        }
        Ok(history)
    }
}

fn event_of(row: &[u8], stored: &[u8]) -> Result<Event, Fault> {
    let strange = || Fault::corrupt(format!("the revision table has a key that is no revision: {row:02x?}"));
    let (at, tombstone) = SubRevision::from_key(row).ok_or_else(strange)?;
    let kv = decode(stored, at)?;
    if tombstone {
        return Ok(buried(at, kv.key));
    }
    let bytes = Bytes::copy_from_slice(stored);
    let key = bytes.slice_ref(decode(&bytes, at)?.key);
    Ok(Event { key, deleted: false, at, kv: KvBytes(bytes) })
}
