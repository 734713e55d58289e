//! Files of snapshots: etcd's `.snap`, and the bodies that Kontiki's members send each other.
//!
//! A `.snap` (`TERM-INDEX.snap`, 16 hex digits each) holds raft's part of a snapshot: the configuration and etcd's
//! JSON of the members. It counts only if the log has a mark for it, and is written before the mark.
//!
//! A body holds the tables. It is a stream of chunks, under a chain of checksums from its first byte to its last, so
//! that a torn, cut, rotten or misordered one never passes:
//!
//! ```text
//! "KONTIKI1" term u64 index u64 crc │ len u32, crc u32, rows… │ len, crc, rows… │ 0 u32, crc u32, rows u64
//! rows: table u8, varint key length, key, varint value length, value
//! ```
//!
//! Numbers are little endian; each crc continues the one before with the chunk's bytes; the last covers the count of
//! rows. Files get their names only when they are durable; what has not got so far begins with `tmp`, which etcd,
//! too, removes at start.

use std::{
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use prost::Message as _;

use super::{Disk, DiskFile, OpenMode, read_all, wal::hex};
use crate::{
    error::Fault,
    raft::{LogId, Snapshot, SnapshotMeta},
    table::{Batch, Table},
    types::{Index, Term},
    wire::{raftpb, walpb},
};

/// The name of a snapshot's file.
pub fn snapshot_name(at: LogId) -> String {
    format!("{:016x}-{:016x}.snap", at.term.0, at.index.0)
}

fn parse_name(name: &str) -> Option<LogId> {
    let (term, index) = name.strip_suffix(".snap")?.split_once('-')?;
    Some(LogId { term: Term(hex(term)?), index: Index(hex(index)?) })
}

/// The snapshots in a directory, by their names, the newest first. A missing directory has none.
pub fn list_snapshots<D: Disk>(disk: &D, dir: &Path) -> Result<Vec<LogId>, Fault> {
    let names = match disk.list(dir) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Fault::io(format!("listing {}", dir.display()), error)),
    };
    let mut ids: Vec<LogId> = names.iter().filter_map(|name| parse_name(name)).collect();
    ids.sort();
    ids.reverse();
    Ok(ids)
}

/// Writes a snapshot's file; durable on return. The log's mark comes after.
pub fn write_snapshot<D: Disk>(disk: &D, dir: &Path, snapshot: &Snapshot) -> Result<PathBuf, Fault> {
    let data = raftpb::Snapshot::from(snapshot).encode_to_vec();
    let file = walpb::SnapshotFile { crc: crc32c::crc32c(&data), data: Some(data.into()) };
    let name = snapshot_name(snapshot.meta.last);
    let path = dir.join(&name);
    let fault = |error| Fault::io(format!("writing {}", path.display()), error);
    disk.create_dir_all(dir).map_err(fault)?;
    let staging = dir.join(format!("tmp-{name}"));
    let mut out = disk.open(&staging, OpenMode::Truncate).map_err(fault)?;
    out.write_at(0, &file.encode_to_vec()).map_err(fault)?;
    out.sync().map_err(fault)?;
    disk.rename(&staging, &path).map_err(fault)?;
    disk.sync_dir(dir).map_err(fault)?;
    Ok(path)
}

/// Reads a snapshot's file.
///
/// # Errors
/// [`Fault::Corrupt`] if it is not what was written.
pub fn read_snapshot<D: Disk>(disk: &D, path: &Path) -> Result<Snapshot, Fault> {
    let fault = |error| Fault::io(format!("reading {}", path.display()), error);
    let file = disk.open(path, OpenMode::Read).map_err(fault)?;
    let bytes = read_all(&file).map_err(fault)?;
    decode_snapshot(bytes.into())
        .map_err(|what| Fault::corrupt(format!("the snapshot {} is corrupt: {what}", path.display())))
}

fn decode_snapshot(bytes: Bytes) -> Result<Snapshot, String> {
    let file = walpb::SnapshotFile::decode(bytes).map_err(|error| error.to_string())?;
    let data = file.data.unwrap_or_default();
    if data.is_empty() || file.crc == 0 {
        return Err("it is empty".to_owned());
    }
    if crc32c::crc32c(&data) != file.crc {
        return Err("its checksum is wrong".to_owned());
    }
    let wire = raftpb::Snapshot::decode(data).map_err(|error| error.to_string())?;
    Snapshot::try_from(wire).map_err(|error| error.to_string())
}

/// The newest whole snapshot that `marks` names, with the names of those that were broken: they are renamed to
/// `….broken` and the next older one is tried.
pub fn load_newest_snapshot<D: Disk>(
    disk: &D,
    dir: &Path,
    marks: &[SnapshotMeta],
) -> Result<(Option<Snapshot>, Vec<String>), Fault> {
    let mut broken = Vec::new();
    for id in list_snapshots(disk, dir)? {
        if !marks.iter().any(|mark| mark.last == id) {
            continue;
        }
        let name = snapshot_name(id);
        let path = dir.join(&name);
        match read_snapshot(disk, &path) {
            Ok(snapshot) if snapshot.meta.last == id => return Ok((Some(snapshot), broken)),
            Ok(_) | Err(Fault::Corrupt(_)) => {
                let aside = dir.join(format!("{name}.broken"));
                disk.rename(&path, &aside)
                    .map_err(|error| Fault::io(format!("renaming {}", path.display()), error))?;
                broken.push(name);
            }
            Err(fault @ (Fault::Io { .. } | Fault::Refused(_))) => return Err(fault),
        }
    }
    Ok((None, broken))
}

/// Removes all but the newest `snapshots_max` snapshots (0 keeps all).
pub fn purge_snapshots<D: Disk>(disk: &D, dir: &Path, snapshots_max: usize) -> Result<(), Fault> {
    let remove = |name: &str| {
        let path = dir.join(name);
        disk.remove_file(&path).map_err(|error| Fault::io(format!("removing {}", path.display()), error))
    };
    if snapshots_max > 0 {
        for id in list_snapshots(disk, dir)?.into_iter().skip(snapshots_max) {
            remove(&snapshot_name(id))?;
        }
    }
    Ok(())
}

/// Removes what was left half-written under `dir`; for the start, before anything is written there.
pub fn remove_leftovers<D: Disk>(disk: &D, dir: &Path) -> Result<(), Fault> {
    let names = match disk.list(dir) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Fault::io(format!("listing {}", dir.display()), error)),
    };
    for name in names.iter().filter(|name| name.starts_with("tmp")) {
        let path = dir.join(name);
        disk.remove_file(&path).map_err(|error| Fault::io(format!("removing {}", path.display()), error))?;
    }
    Ok(())
}

const MAGIC: &[u8; 8] = b"KONTIKI1";
/// A chunk is written out when its rows have reached this.
const CHUNK_BYTES: usize = 256 * 1024;
/// A chunk that claims to be larger is refused; one row may make a chunk this large.
pub const CHUNK_MAX: usize = 256 * 1024 * 1024;

/// Encodes a body into any writer.
#[derive(Debug)]
pub struct BodyEncoder<W: Write> {
    out: W,
    crc: u32,
    rows: u64,
    chunk: Vec<u8>,
}

impl<W: Write> BodyEncoder<W> {
    /// Starts a body of the state at `at`.
    pub fn new(mut out: W, at: LogId) -> io::Result<Self> {
        let mut head = MAGIC.to_vec();
        head.extend_from_slice(&at.term.0.to_le_bytes());
        head.extend_from_slice(&at.index.0.to_le_bytes());
        let crc = crc32c::crc32c(&head);
        head.extend_from_slice(&crc.to_le_bytes());
        out.write_all(&head)?;
        Ok(Self { out, crc, rows: 0, chunk: Vec::with_capacity(CHUNK_BYTES + 1024) })
    }

    /// Adds a row.
    pub fn push(&mut self, table: Table, key: &[u8], value: &[u8]) -> io::Result<()> {
        let number = Table::ALL.iter().position(|other| *other == table).unwrap_or_default();
        self.chunk.push(number as u8);
        for bytes in [key, value] {
            prost::encoding::encode_varint(bytes.len() as u64, &mut self.chunk);
            self.chunk.extend_from_slice(bytes);
        }
        self.rows += 1;
        if self.chunk.len() >= CHUNK_BYTES { self.flush_chunk() } else { Ok(()) }
    }

    fn flush_chunk(&mut self) -> io::Result<()> {
        if self.chunk.len() > CHUNK_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a row is too large"));
        }
        self.crc = crc32c::crc32c_append(self.crc, &self.chunk);
        self.out.write_all(&(self.chunk.len() as u32).to_le_bytes())?;
        self.out.write_all(&self.crc.to_le_bytes())?;
        self.out.write_all(&self.chunk)?;
        self.chunk.clear();
        Ok(())
    }

    /// Ends the body. Without this it does not count as whole.
    pub fn finish(mut self) -> io::Result<W> {
        if !self.chunk.is_empty() {
            self.flush_chunk()?;
        }
        let rows = self.rows.to_le_bytes();
        let crc = crc32c::crc32c_append(self.crc, &rows);
        self.out.write_all(&0_u32.to_le_bytes())?;
        self.out.write_all(&crc.to_le_bytes())?;
        self.out.write_all(&rows)?;
        self.out.flush()?;
        Ok(self.out)
    }
}

/// Decodes a body from any reader, chunk by chunk. Rows count only once the end has been reached: until then the
/// body may still turn out cut.
#[derive(Debug)]
pub struct BodyReader<R: Read> {
    from: R,
    crc: u32,
    rows: u64,
    at: LogId,
    done: bool,
}

impl<R: Read> BodyReader<R> {
    /// Reads the head.
    pub fn new(mut from: R) -> Result<Self, Fault> {
        let mut head = [0; 28];
        fill(&mut from, &mut head)?;
        let crc = crc32c::crc32c(&head[..24]);
        if &head[..8] != MAGIC || le32(&head[24..]) != crc {
            return Err(broken("it does not begin as one"));
        }
        let at = LogId { term: Term(le64(&head[8..])), index: Index(le64(&head[16..])) };
        Ok(Self { from, crc, rows: 0, at, done: false })
    }

    /// Where the state in it stands.
    pub fn at(&self) -> LogId {
        self.at
    }

    /// The next rows, as puts; None at the end of a whole body. Rows come in the order they were pushed.
    pub fn next_batch(&mut self) -> Result<Option<Batch>, Fault> {
        if self.done {
            return Ok(None);
        }
        let mut head = [0; 8];
        fill(&mut self.from, &mut head)?;
        let (len, crc) = (le32(&head) as usize, le32(&head[4..]));
        if len == 0 {
            return self.end(crc).map(|()| None);
        }
        if len > CHUNK_MAX {
            return Err(broken("a chunk is too large"));
        }
        // Grows with what really comes, so a wrong length reserves nothing.
        let mut chunk = Vec::new();
        let read = (&mut self.from).take(len as u64).read_to_end(&mut chunk).map_err(read_fault)?;
        if read < len {
            return Err(broken("it ends too early"));
        }
        self.crc = crc32c::crc32c_append(self.crc, &chunk);
        if self.crc != crc {
            return Err(broken("a checksum is wrong"));
        }
        let mut batch = Batch::default();
        let mut rest = Bytes::from(chunk);
        while !rest.is_empty() {
            let (table, key, value) = row(&mut rest).ok_or_else(|| broken("a row can't be parsed"))?;
            batch.put(table, key, value);
            self.rows += 1;
        }
        Ok(Some(batch))
    }

    fn end(&mut self, crc: u32) -> Result<(), Fault> {
        let mut rows = [0; 8];
        fill(&mut self.from, &mut rows)?;
        if crc32c::crc32c_append(self.crc, &rows) != crc || u64::from_le_bytes(rows) != self.rows {
            return Err(broken("its end is wrong"));
        }
        let mut more = [0];
        if self.from.read(&mut more).map_err(read_fault)? != 0 {
            return Err(broken("something follows its end"));
        }
        self.done = true;
        Ok(())
    }

    /// Reads to the end; how many rows there are.
    pub fn verify(mut self) -> Result<u64, Fault> {
        while self.next_batch()?.is_some() {}
        Ok(self.rows)
    }
}

fn row(rest: &mut Bytes) -> Option<(Table, Bytes, Bytes)> {
    let table = *Table::ALL.get(usize::from(*rest.first()?))?;
    bytes::Buf::advance(rest, 1);
    let mut field = || {
        let len = usize::try_from(prost::encoding::decode_varint(&mut *rest).ok()?).ok()?;
        (len <= rest.len()).then(|| rest.split_to(len))
    };
    Some((table, field()?, field()?))
}

fn broken(what: &str) -> Fault {
    Fault::corrupt(format!("the snapshot's body is broken: {what}; it has to be sent again"))
}

fn read_fault(error: io::Error) -> Fault {
    Fault::io("reading a snapshot's body", error)
}

fn fill(from: &mut impl Read, buf: &mut [u8]) -> Result<(), Fault> {
    from.read_exact(buf).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => broken("it ends too early"),
        _ => read_fault(error),
    })
}

fn le32(bytes: &[u8]) -> u32 {
    bytes.first_chunk::<4>().map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

fn le64(bytes: &[u8]) -> u64 {
    bytes.first_chunk::<8>().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// Writes a file from its start, or reads it from there.
#[derive(Debug)]
pub struct DiskStream<F: DiskFile> {
    file: F,
    offset: u64,
}

impl<F: DiskFile> Write for DiskStream<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_at(self.offset, bytes)?;
        self.offset += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<F: DiskFile> Read for DiskStream<F> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read_at(self.offset, buf)?;
        self.offset += n as u64;
        Ok(n)
    }
}

/// A file on its way: under a `tmp` name until it is whole and durable.
#[derive(Debug)]
struct Staged<D: Disk> {
    disk: D,
    dir: PathBuf,
    name: String,
}

impl<D: Disk> Staged<D> {
    fn open(disk: D, dir: &Path, name: &str) -> Result<(Self, DiskStream<D::File>), Fault> {
        let staged = Self { disk, dir: dir.to_owned(), name: name.to_owned() };
        staged.disk.create_dir_all(dir).map_err(|error| staged.fault(error))?;
        let opened = staged.disk.open(&staged.path(), OpenMode::Truncate);
        let file = opened.map_err(|error| staged.fault(error))?;
        Ok((staged, DiskStream { file, offset: 0 }))
    }

    fn path(&self) -> PathBuf {
        self.dir.join(format!("tmp-{}", self.name))
    }

    fn fault(&self, error: io::Error) -> Fault {
        Fault::io(format!("writing {}", self.dir.join(&self.name).display()), error)
    }

    fn commit(self, mut stream: DiskStream<D::File>) -> Result<PathBuf, Fault> {
        let path = self.dir.join(&self.name);
        stream.file.sync().map_err(|error| self.fault(error))?;
        self.disk.rename(&self.path(), &path).map_err(|error| self.fault(error))?;
        self.disk.sync_dir(&self.dir).map_err(|error| self.fault(error))?;
        Ok(path)
    }
}

/// Writes a body into a file, which has its name only when it is whole and durable.
#[derive(Debug)]
pub struct BodyWriter<D: Disk> {
    staged: Staged<D>,
    encoder: BodyEncoder<DiskStream<D::File>>,
}

impl<D: Disk> BodyWriter<D> {
    /// Starts the file `name` in `dir`.
    pub fn create(disk: D, dir: &Path, name: &str, at: LogId) -> Result<Self, Fault> {
        let (staged, stream) = Staged::open(disk, dir, name)?;
        let encoder = BodyEncoder::new(stream, at).map_err(|error| staged.fault(error))?;
        Ok(Self { staged, encoder })
    }

    /// Adds a row.
    pub fn push(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), Fault> {
        self.encoder.push(table, key, value).map_err(|error| self.staged.fault(error))
    }

    /// Ends it; durable on return, under its name.
    pub fn finish(self) -> Result<PathBuf, Fault> {
        let Self { staged, encoder } = self;
        let stream = encoder.finish().map_err(|error| staged.fault(error))?;
        staged.commit(stream)
    }
}

/// Takes a body's bytes as they come in from a peer, into a file that has its name only when it is whole.
#[derive(Debug)]
pub struct BodyReceiver<D: Disk> {
    staged: Staged<D>,
    stream: DiskStream<D::File>,
}

impl<D: Disk> BodyReceiver<D> {
    /// Starts the file `name` in `dir`.
    pub fn create(disk: D, dir: &Path, name: &str) -> Result<Self, Fault> {
        let (staged, stream) = Staged::open(disk, dir, name)?;
        Ok(Self { staged, stream })
    }

    /// Takes the next bytes.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.stream.write_all(bytes).map_err(|error| self.staged.fault(error))
    }

    /// Checks that the body is whole, and makes it durable under its name. A broken one leaves only a `tmp` file.
    pub fn finish(self) -> Result<PathBuf, Fault> {
        open_body(&self.staged.disk, &self.staged.path())?.verify()?;
        self.staged.commit(self.stream)
    }
}

/// Opens a body's file to read it.
pub fn open_body<D: Disk>(
    disk: &D,
    path: &Path,
) -> Result<BodyReader<io::BufReader<DiskStream<D::File>>>, Fault> {
    let file = disk
        .open(path, OpenMode::Read)
        .map_err(|error| Fault::io(format!("opening {}", path.display()), error))?;
    BodyReader::new(io::BufReader::with_capacity(CHUNK_BYTES, DiskStream { file, offset: 0 }))
}

#[cfg(test)]
#[path = "snapshot_file_tests.rs"]
mod tests;
