//! A [`Disk`] in memory that forgets as a real one may: for tests and the simulator.
//!
//! What was written and not synced is lost by [`MemDisk::crash`] in any order: of each 512-byte sector one of the
//! versions since the last sync survives, or a torn mixture of two; of a file's lengths since then, any; of a
//! directory's changes, any. All choices come from the caller, in an order that depends on nothing but the
//! operations before, so a run is a function of its seed.
//!
//! ```text
//! write_at ─▶ live bytes ─ sync ─▶ durable bytes ─┐
//!                └─ versions since the sync ──────┴─ crash(choose) ─▶ live = durable = one of them
//! ```
//!
//! Operations that change or sync something are counted; [`MemDisk::crash_at`] and [`MemDisk::fail_at`] name one of
//! them by its number. Handles from before a crash are dead: their calls fail, like all calls between the moment
//! the power goes and [`MemDisk::crash`], which is also when it comes back.
//!
//! Left out: renames from one directory to another are two changes that may be lost apart.

mod node;

use std::{
    collections::BTreeMap,
    io,
    path::{Component, Path},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{Disk, DiskFile, OpenMode};
use node::{DirNode, FileNode};

/// What a disk writes whole or, at worst, torn once.
pub const SECTOR: u64 = 512;

type NodeNumber = u64;

const ROOT: NodeNumber = 0;

#[derive(Clone, Debug)]
enum Node {
    File(FileNode),
    Dir(DirNode),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Power {
    On,
    Off,
}

#[derive(Debug)]
struct Inner {
    nodes: BTreeMap<NodeNumber, Node>,
    next_node: NodeNumber,
    next_handle: u64,
    epoch: u64,
    power: Power,
    operations: u64,
    crash_at: Option<u64>,
    fail_at: BTreeMap<u64, i32>,
}

/// The disk; clones are the same one.
#[derive(Clone, Debug)]
pub struct MemDisk(Arc<Mutex<Inner>>);

/// An open file of it.
#[derive(Debug)]
pub struct MemFile {
    disk: MemDisk,
    node: NodeNumber,
    handle: u64,
    epoch: u64,
    writable: bool,
}

/// The number of Linux's I/O error, for [`MemDisk::fail_at`].
pub const EIO: i32 = 5;
/// The number of Linux's "no space left on device".
pub const ENOSPC: i32 = 28;

impl Default for MemDisk {
    fn default() -> Self {
        Self::new()
    }
}

impl MemDisk {
    /// An empty disk.
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(Inner {
            nodes: BTreeMap::from([(ROOT, Node::Dir(DirNode::default()))]),
            next_node: ROOT + 1,
            next_handle: 0,
            epoch: 0,
            power: Power::On,
            operations: 0,
            crash_at: None,
            fail_at: BTreeMap::new(),
        })))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // A panic elsewhere leaves no half-done change that a test would mind.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many operations were counted since the last crash, from 0.
    pub fn operations(&self) -> u64 {
        self.inner().operations
    }

    /// Lets the power go in operation number `n` (counted from 0): its change may or may not survive, a sync does
    /// not finish, and every call fails until [`MemDisk::crash`].
    pub fn crash_at(&self, n: u64) {
        self.inner().crash_at = Some(n);
    }

    /// Lets operation number `n` fail with a system error such as [`EIO`]. A write or change then does nothing; a
    /// sync loses what it should have made durable for good, as Linux does: reads still see it, no later sync
    /// writes it.
    pub fn fail_at(&self, n: u64, errno: i32) {
        self.inner().fail_at.insert(n, errno);
    }

    /// Takes back what [`MemDisk::crash_at`] and [`MemDisk::fail_at`] have announced and has not come yet.
    pub fn heal(&self) {
        let mut inner = self.inner();
        inner.crash_at = None;
        inner.fail_at.clear();
    }

    /// Whether the power is gone.
    pub fn is_off(&self) -> bool {
        self.inner().power == Power::Off
    }

    /// The power goes and comes back. `choose(n)` picks one of `n` (at least 2) outcomes, 0 being the durable one
    /// and `n - 1` the newest; locks are gone, counters start anew.
    pub fn crash(&self, mut choose: impl FnMut(u64) -> u64) {
        let mut inner = self.inner();
        let inner = &mut *inner;
        for node in inner.nodes.values_mut() {
            match node {
                Node::File(file) => file.crash(&mut choose),
                Node::Dir(dir) => dir.crash(&mut choose),
            }
        }
        let reachable = inner.reachable();
        inner.nodes.retain(|number, _| reachable.contains_key(number));
        inner.epoch += 1;
        inner.power = Power::On;
        inner.operations = 0;
        inner.crash_at = None;
        inner.fail_at.clear();
    }

    /// A copy that shares nothing with this one, in the same state: to try several crashes of one moment.
    pub fn fork(&self) -> Self {
        let inner = self.inner();
        Self(Arc::new(Mutex::new(Inner {
            nodes: inner.nodes.clone(),
            fail_at: inner.fail_at.clone(),
            ..*inner
        })))
    }

    /// Flips the bits of `mask` in one byte, durably: rot. What was not synced is durable then; a crash comes before.
    pub fn rot(&self, path: &Path, offset: u64, mask: u8) -> io::Result<()> {
        let mut inner = self.inner();
        let number = inner.find(path)?;
        let file = inner.file(number)?;
        let mut byte = [0];
        file.read(offset, &mut byte);
        file.damage(offset, &[byte[0] ^ mask]);
        Ok(())
    }

    /// Sectors, each the number of one in a file: what was written to `from` went to `to` instead. There it is now,
    /// durably, and where it should be there are zeros.
    pub fn misdirect(&self, from: (&Path, u64), to: (&Path, u64)) -> io::Result<()> {
        let mut inner = self.inner();
        let (source, victim) = (inner.find(from.0)?, inner.find(to.0)?);
        let mut sector = [0; SECTOR as usize];
        let file = inner.file(source)?;
        file.read(from.1 * SECTOR, &mut sector);
        file.damage(from.1 * SECTOR, &[0; SECTOR as usize]);
        inner.file(victim)?.damage(to.1 * SECTOR, &sector);
        Ok(())
    }

    /// How many of a file's first bytes were durable before its newest write, which came behind them: whoever
    /// wrote that knew that they were there.
    pub fn vouched(&self, path: &Path) -> io::Result<u64> {
        let mut inner = self.inner();
        let number = inner.find(path)?;
        Ok(inner.file(number)?.vouched)
    }

    /// The bytes of a file.
    pub fn contents(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut inner = self.inner();
        let number = inner.find(path)?;
        let file = inner.file(number)?;
        let mut bytes = vec![0; file.len as usize];
        file.read(0, &mut bytes);
        Ok(bytes)
    }

    /// Puts a file there with its directories, all of it durable.
    pub fn put(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let parent = path.parent().unwrap_or(Path::new(""));
        self.create_dir_all(parent)?;
        let mut file = self.open(path, OpenMode::Truncate)?;
        file.write_at(0, bytes)?;
        file.sync()?;
        self.sync_dir(parent)
    }
}

fn not_found(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("{}: no such file or directory", path.display()))
}

fn power_off() -> io::Error {
    io::Error::other("the power is off")
}

/// The parts of a path; the root and the working directory are the same here.
fn parts(path: &Path) -> io::Result<Vec<String>> {
    let mut parts = Vec::new();
    for component in path.components() {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(part) => parts.push(part.to_string_lossy().into_owned()),
            Component::ParentDir | Component::Prefix(_) => {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "a path with `..`"));
            }
        }
    }
    Ok(parts)
}

/// Whether a counted operation takes place.
enum Gate {
    Go,
    /// It takes place, then the power is off.
    Last,
}

impl Inner {
    /// Counts an operation.
    fn gate(&mut self) -> Result<Gate, (io::Error, bool)> {
        if self.power == Power::Off {
            return Err((power_off(), false));
        }
        let n = self.operations;
        self.operations += 1;
        if self.crash_at == Some(n) {
            self.power = Power::Off;
            return Ok(Gate::Last);
        }
        match self.fail_at.get(&n) {
            Some(errno) => Err((io::Error::from_raw_os_error(*errno), true)),
            None => Ok(Gate::Go),
        }
    }

    /// Runs a counted change; the one in which the power goes is made and reported as failed.
    fn change<T>(&mut self, change: impl FnOnce(&mut Self) -> io::Result<T>) -> io::Result<T> {
        let gate = self.gate().map_err(|(error, _)| error)?;
        let result = change(self);
        match gate {
            Gate::Go => result,
            Gate::Last => Err(power_off()),
        }
    }

    fn on(&self) -> io::Result<()> {
        if self.power == Power::Off { Err(power_off()) } else { Ok(()) }
    }

    fn find(&self, path: &Path) -> io::Result<NodeNumber> {
        let mut at = ROOT;
        for part in parts(path)? {
            let next = match self.nodes.get(&at) {
                Some(Node::Dir(dir)) => dir.names.get(&part).copied(),
                Some(Node::File(_)) | None => None,
            };
            at = next.ok_or_else(|| not_found(path))?;
        }
        Ok(at)
    }

    fn file(&mut self, number: NodeNumber) -> io::Result<&mut FileNode> {
        match self.nodes.get_mut(&number) {
            Some(Node::File(file)) => Ok(file),
            Some(Node::Dir(_)) => Err(io::Error::new(io::ErrorKind::IsADirectory, "is a directory")),
            None => Err(io::Error::other("a dead handle")),
        }
    }

    fn dir(&mut self, number: NodeNumber) -> io::Result<&mut DirNode> {
        match self.nodes.get_mut(&number) {
            Some(Node::Dir(dir)) => Ok(dir),
            Some(Node::File(_)) | None => {
                Err(io::Error::new(io::ErrorKind::NotADirectory, "not a directory"))
            }
        }
    }

    /// The directory that holds `path`, and its name there.
    fn parent(&self, path: &Path) -> io::Result<(NodeNumber, String)> {
        let mut names = parts(path)?;
        let name = names.pop().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no name"))?;
        let parent = path.parent().unwrap_or(Path::new(""));
        Ok((self.find(parent)?, name))
    }

    fn add(&mut self, node: Node) -> NodeNumber {
        let number = self.next_node;
        self.next_node += 1;
        self.nodes.insert(number, node);
        number
    }

    fn reachable(&self) -> BTreeMap<NodeNumber, ()> {
        let mut seen = BTreeMap::new();
        let mut todo = vec![ROOT];
        while let Some(number) = todo.pop() {
            if seen.insert(number, ()).is_none()
                && let Some(Node::Dir(dir)) = self.nodes.get(&number)
            {
                todo.extend(dir.names.values());
            }
        }
        seen
    }

    fn make_dirs(&mut self, path: &Path) -> io::Result<()> {
        let mut at = ROOT;
        for part in parts(path)? {
            let there = self.dir(at)?.names.get(&part).copied();
            at = match there {
                Some(number) => number,
                None => {
                    let number = self.add(Node::Dir(DirNode::default()));
                    let dir = self.dir(at)?;
                    // Durable at once, as the trait asks.
                    dir.names.insert(part.clone(), number);
                    dir.durable.insert(part, number);
                    number
                }
            };
        }
        self.dir(at).map(|_| ())
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let node = self.find(from)?;
        let (from_dir, from_name) = self.parent(from)?;
        let (to_dir, to_name) = self.parent(to)?;
        if let Ok(old) = self.find(to)
            && let Some(Node::Dir(dir)) = self.nodes.get(&old)
            && !dir.names.is_empty()
        {
            return Err(io::Error::new(io::ErrorKind::DirectoryNotEmpty, "directory not empty"));
        }
        if from_dir == to_dir {
            self.dir(from_dir)?.change(vec![(from_name, None), (to_name, Some(node))]);
        } else {
            self.dir(to_dir)?.change(vec![(to_name, Some(node))]);
            self.dir(from_dir)?.change(vec![(from_name, None)]);
        }
        Ok(())
    }

    fn unlink(&mut self, path: &Path) -> io::Result<()> {
        self.find(path)?;
        let (dir, name) = self.parent(path)?;
        self.dir(dir)?.change(vec![(name, None)]);
        Ok(())
    }
}

impl Disk for MemDisk {
    type File = MemFile;

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        inner.on()?;
        if let Ok(number) = inner.find(path) {
            return inner.dir(number).map(|_| ());
        }
        inner.change(|inner| inner.make_dirs(path))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut inner = self.inner();
        inner.on()?;
        let number = inner.find(path)?;
        Ok(inner.dir(number)?.names.keys().cloned().collect())
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<MemFile> {
        let mut inner = self.inner();
        inner.on()?;
        let found = inner.find(path);
        let node = match (found, mode) {
            (found, OpenMode::Read | OpenMode::Write) => found?,
            (Ok(node), OpenMode::Create) => node,
            (Ok(node), OpenMode::Truncate) => {
                if inner.file(node)?.len > 0 {
                    inner.change(|inner| inner.file(node).map(|file| file.set_len(0)))?;
                }
                node
            }
            (Err(_), OpenMode::Create | OpenMode::Truncate) => inner.change(|inner| {
                let (dir, name) = inner.parent(path)?;
                let node = inner.add(Node::File(FileNode::default()));
                inner.dir(dir)?.change(vec![(name, Some(node))]);
                Ok(node)
            })?,
        };
        inner.file(node)?;
        let handle = inner.next_handle;
        inner.next_handle += 1;
        let epoch = inner.epoch;
        Ok(MemFile { disk: self.clone(), node, handle, epoch, writable: mode != OpenMode::Read })
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let inner = self.inner();
        inner.on()?;
        Ok(inner.find(path).is_ok())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner().change(|inner| inner.rename(from, to))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.inner().change(|inner| {
            let number = inner.find(path)?;
            inner.file(number)?;
            inner.unlink(path)
        })
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.inner().change(|inner| {
            let number = inner.find(path)?;
            inner.dir(number)?;
            inner.unlink(path)
        })
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        inner.on()?;
        let number = inner.find(path)?;
        inner.dir(number)?;
        match inner.gate() {
            Ok(Gate::Go) => {
                inner.dir(number)?.sync();
                Ok(())
            }
            Ok(Gate::Last) => Err(power_off()),
            Err((error, _)) => Err(error),
        }
    }
}

impl MemFile {
    fn with<T>(&self, run: impl FnOnce(&mut Inner) -> io::Result<T>) -> io::Result<T> {
        let mut inner = self.disk.inner();
        inner.on()?;
        if inner.epoch != self.epoch {
            return Err(io::Error::other("a handle from before the crash"));
        }
        run(&mut inner)
    }

    fn change(&self, run: impl FnOnce(&mut FileNode)) -> io::Result<()> {
        if !self.writable {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "opened to read"));
        }
        self.with(|inner| inner.change(|inner| inner.file(self.node).map(run)))
    }
}

impl DiskFile for MemFile {
    fn len(&self) -> io::Result<u64> {
        self.with(|inner| Ok(inner.file(self.node)?.len))
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.with(|inner| Ok(inner.file(self.node)?.read(offset, buf)))
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.change(|file| file.write(offset, bytes))
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        self.change(|file| file.set_len(len))
    }

    fn allocate(&mut self, len: u64) -> io::Result<()> {
        self.change(|file| {
            if file.len < len {
                file.set_len(len);
            }
        })
    }

    fn sync(&mut self) -> io::Result<()> {
        self.with(|inner| match inner.gate() {
            Ok(Gate::Go) => {
                inner.file(self.node)?.sync();
                Ok(())
            }
            Ok(Gate::Last) => Err(power_off()),
            Err((error, failed)) => {
                if failed {
                    inner.file(self.node)?.fail_sync();
                }
                Err(error)
            }
        })
    }

    fn try_lock(&mut self) -> io::Result<bool> {
        let handle = self.handle;
        self.with(|inner| {
            let lock = &mut inner.file(self.node)?.lock;
            let free = lock.is_none_or(|holder| holder == handle);
            if free {
                *lock = Some(handle);
            }
            Ok(free)
        })
    }
}

impl Drop for MemFile {
    fn drop(&mut self) {
        let mut inner = self.disk.inner();
        let (handle, epoch) = (self.handle, self.epoch);
        if inner.epoch == epoch
            && let Ok(file) = inner.file(self.node)
            && file.lock == Some(handle)
        {
            file.lock = None;
        }
    }
}
