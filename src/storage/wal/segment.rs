//! A segment's file: its name, its bytes, and where it stands in the directory.

use std::path::{Path, PathBuf};

use crate::{
    error::Fault,
    storage::{Disk, DiskFile, OpenMode},
    types::Index,
};

/// What a segment's name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    /// Counts segments from 0 without a gap.
    pub seq: u64,
    /// The first index that it can hold.
    pub index: Index,
}

impl Name {
    pub fn text(self) -> String {
        format!("{:016x}-{:016x}.wal", self.seq, self.index.0)
    }

    pub fn parse(name: &str) -> Option<Self> {
        let (seq, index) = name.strip_suffix(".wal")?.split_once('-')?;
        Some(Self { seq: hex(seq)?, index: Index(hex(index)?) })
    }

    pub fn path(self, dir: &Path) -> PathBuf {
        dir.join(self.text())
    }
}

/// 16 lowercase hex digits.
pub(in crate::storage) fn hex(text: &str) -> Option<u64> {
    let digits = text.len() == 16 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    digits.then(|| u64::from_str_radix(text, 16).ok()).flatten()
}

/// All segments of a directory, in order.
pub(super) fn list<D: Disk>(disk: &D, dir: &Path) -> Result<Vec<Name>, Fault> {
    let names = disk.list(dir).map_err(|error| Fault::io(format!("listing {}", dir.display()), error))?;
    let mut names: Vec<Name> = names.iter().filter_map(|name| Name::parse(name)).collect();
    names.sort();
    if let Some(pair) = names.windows(2).find(|pair| pair[0].seq == pair[1].seq) {
        return Err(Fault::corrupt(format!(
            "{} and {} in {} have the same number: one of them is no part of this log; move it away",
            pair[0].text(),
            pair[1].text(),
            dir.display()
        )));
    }
    Ok(names)
}

/// The longest run without a gap up to the newest: purging removes the oldest, and a crash may undo it in part.
pub(super) fn newest_run(names: &[Name]) -> &[Name] {
    let gap = names.windows(2).rposition(|pair| pair[0].seq + 1 != pair[1].seq);
    &names[gap.map_or(0, |at| at + 1)..]
}

/// Opens a segment and reads it whole.
pub(super) fn read<D: Disk>(disk: &D, path: &Path, mode: OpenMode) -> Result<(D::File, Vec<u8>), Fault> {
    let fault = |error| Fault::io(format!("reading {}", path.display()), error);
    let file = disk.open(path, mode).map_err(fault)?;
    let bytes = crate::storage::read_all(&file).map_err(fault)?;
    Ok((file, bytes))
}

/// How long the part of `bytes` without zeros at its end is.
pub(super) fn used(bytes: &[u8]) -> usize {
    // A segment is mostly zeros that were reserved: whole blocks of them are looked at together.
    const BLOCK: usize = 64;
    let zeros =
        bytes.rchunks_exact(BLOCK).take_while(|block| block.iter().fold(0, |all, byte| all | byte) == 0);
    let rest = &bytes[..bytes.len() - zeros.count() * BLOCK];
    rest.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1)
}

/// Takes a segment's lock.
pub(super) fn lock<F: DiskFile>(file: &mut F, path: &Path) -> Result<(), Fault> {
    let taken = file.try_lock().map_err(|error| Fault::io(format!("locking {}", path.display()), error))?;
    if taken {
        return Ok(());
    }
    Err(Fault::Refused(format!(
        "{} is locked: another process uses this data directory; stop it first",
        path.display()
    )))
}
