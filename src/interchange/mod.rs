//! etcd's database files, out: what `snapshot save` hands to etcd's own tools.
//!
//! A backup is a bbolt file with etcd's buckets, made from the tables of one moment. [`bbolt::Writer`] knows the
//! file format, [`write_database`] which tables become which buckets.
//!
//! Invariants: keys of a bucket are ascending and unique; a page holds whole elements; both meta pages are valid.
//!
//! Left out, so far: reading such files.

pub mod bbolt;

use std::io;

use crate::{
    error::Fault,
    storage::DiskFile,
    table::{Scan, Table, Tables},
};

/// Keys of the meta table that are Kontiki's own start so; they stay out of backups.
pub const OWN_META_PREFIX: &[u8] = b"kontiki_";

/// Writes `view` into `file` as etcd's database; returns its length in bytes.
pub fn write_database<F: DiskFile>(file: F, view: &impl Tables) -> Result<u64, Fault> {
    let fault = |error: io::Error| Fault::io("write the backup", error);
    let mut writer = bbolt::Writer::new(file).map_err(fault)?;
    for table in Table::ALL {
        writer.begin_bucket(table.name());
        let mut failed = None;
        view.scan(table, b"", None, &mut |key, value| {
            if table == Table::Meta && key.starts_with(OWN_META_PREFIX) {
                return Scan::Continue;
            }
            match writer.put(key, value) {
                Ok(()) => Scan::Continue,
                Err(error) => {
                    failed = Some(error);
                    Scan::Stop
                }
            }
        })?;
        if let Some(error) = failed {
            return Err(fault(error));
        }
        writer.end_bucket().map_err(fault)?;
    }
    writer.finish().map_err(fault)
}
