//! Tables in RocksDB, one column family each.
//!
//! Its own write-ahead log is off: raft's log already is one. With atomic flush, what a crash leaves is a
//! prefix of the batches across all column families, which `tests/backend_crash.rs` proves with a killed
//! process. Tuned for appends in order of revision: files of the revision table do not overlap, so compaction
//! mostly moves them.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use bytes::Bytes;
use rocksdb::{
    BlockBasedOptions, BottommostLevelCompaction, Cache, ColumnFamily, ColumnFamilyDescriptor,
    CompactOptions, DBCompressionType, DBRawIterator, DBWithThreadMode, ErrorKind, FlushOptions, LogLevel,
    Options, ReadOptions, SingleThreaded, SnapshotWithThreadMode, WriteBatch, WriteOptions, properties,
};

use super::Backend;
use crate::{
    error::Fault,
    table::{Batch, Scan, Table, Tables, Write},
};

type Db = DBWithThreadMode<SingleThreaded>;

/// How much memory and how many threads RocksDB may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RocksOptions {
    /// Bytes of the cache of blocks, all tables together.
    pub block_cache_max: usize,
    /// Bytes of a memtable of the revision table; up to three are held while they are flushed.
    pub write_buffer_max: usize,
    /// Flushes and compactions at a time.
    pub background_jobs_max: i32,
    /// Files held open.
    pub open_files_max: i32,
}

impl Default for RocksOptions {
    fn default() -> Self {
        Self {
            block_cache_max: 64 << 20,
            write_buffer_max: 32 << 20,
            background_jobs_max: 2,
            open_files_max: 512,
        }
    }
}

/// Written bytes after which [`Backend::size`] measures anew; until then it adds them to the last measure.
const SIZE_MEASURE_BYTES: u64 = 1 << 20;

/// Tables in a directory of RocksDB. Clones share it; it is closed when the last one is dropped.
#[derive(Clone)]
pub struct RocksBackend {
    inner: Arc<Inner>,
}

struct Inner {
    db: Db,
    path: PathBuf,
    size: SizeCache,
    /// Whether a defragmentation is under way.
    defragmenting: AtomicBool,
}

/// Measuring takes the database's lock for each table, and the quota asks before every write.
#[derive(Default)]
struct SizeCache {
    measured: AtomicU64,
    written: AtomicU64,
    stale: AtomicBool,
}

impl RocksBackend {
    /// Opens the tables in `path`, which is made if it is not there.
    ///
    /// A directory that another process has open is [`Fault::Refused`], damaged files are [`Fault::Corrupt`].
    pub fn open(path: &Path, options: &RocksOptions) -> Result<Self, Fault> {
        let cache = Cache::new_lru_cache(options.block_cache_max);
        let families = Table::ALL
            .map(|table| ColumnFamilyDescriptor::new(table.name(), family_options(table, options, &cache)));
        let db = Db::open_cf_descriptors(&db_options(options), path, families)
            .map_err(|error| fault("open", path, error))?;
        let size = SizeCache { stale: AtomicBool::new(true), ..SizeCache::default() };
        let inner = Inner { db, path: path.to_owned(), size, defragmenting: AtomicBool::new(false) };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Empties all tables, durably, and gives back their space.
    fn clear(&self) -> Result<(), Fault> {
        let inner = &*self.inner;
        let mut batch = WriteBatch::default();
        for table in Table::ALL {
            if let Some(end) = inner.past_last_key(table)? {
                batch.delete_range_cf(inner.family(table), Vec::new(), end);
            }
        }
        if batch.is_empty() {
            return Ok(());
        }
        inner.write(batch)?;
        inner.flush()?;
        for table in Table::ALL {
            inner.db.compact_range_cf(inner.family(table), None::<&[u8]>, None::<&[u8]>);
        }
        Ok(())
    }
}

fn db_options(options: &RocksOptions) -> Options {
    let mut db = Options::default();
    db.create_if_missing(true);
    db.create_missing_column_families(true);
    db.set_atomic_flush(true);
    db.set_max_background_jobs(options.background_jobs_max);
    db.set_max_open_files(options.open_files_max);
    db.set_paranoid_checks(true);
    // Smooths write-back, so that a flush's fsync does not stall the log's on the same disk.
    db.set_bytes_per_sync(1 << 20);
    db.set_keep_log_file_num(2);
    db.set_max_log_file_size(4 << 20);
    db.set_log_level(LogLevel::Warn);
    db.set_stats_dump_period_sec(0);
    db.set_stats_persist_period_sec(0);
    db.set_skip_stats_update_on_db_open(true);
    db
}

fn family_options(table: Table, options: &RocksOptions, cache: &Cache) -> Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(cache);
    blocks.set_block_size(16 << 10);
    blocks.set_format_version(5);
    // Index blocks count against the cache's budget instead of growing beside it.
    blocks.set_cache_index_and_filter_blocks(true);
    blocks.set_cache_index_and_filter_blocks_with_high_priority(true);
    blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
    // No filters: the index in memory asks only for revisions that are there.
    let mut family = Options::default();
    family.set_block_based_table_factory(&blocks);
    family.set_compression_type(DBCompressionType::Lz4);
    family.set_level_compaction_dynamic_level_bytes(true);
    match table {
        Table::Rev => {
            family.set_write_buffer_size(options.write_buffer_max);
            family.set_max_write_buffer_number(3);
            family.set_target_file_size_base(64 << 20);
            family.set_max_bytes_for_level_base(256 << 20);
        }
        Table::Alarm
        | Table::Auth
        | Table::AuthRoles
        | Table::AuthUsers
        | Table::Cluster
        | Table::Lease
        | Table::Members
        | Table::MembersRemoved
        | Table::Meta => {
            // Small tables, flushed together with the revisions and rarely by themselves.
            family.set_write_buffer_size(8 << 20);
            family.set_max_write_buffer_number(3);
            family.set_arena_block_size(64 << 10);
        }
    }
    family
}

impl Inner {
    fn family(&self, table: Table) -> &ColumnFamily {
        self.db.cf_handle(table.name()).expect("open makes a column family for each table")
    }

    fn fault(&self, doing: &str, error: rocksdb::Error) -> Fault {
        fault(doing, &self.path, error)
    }

    fn write(&self, batch: WriteBatch) -> Result<(), Fault> {
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        self.db.write_opt(batch, &options).map_err(|error| self.fault("write to", error))
    }

    fn flush(&self) -> Result<(), Fault> {
        let mut options = FlushOptions::default();
        options.set_wait(true);
        let families = Table::ALL.map(|table| self.family(table));
        self.db.flush_cfs_opt(&families, &options).map_err(|error| self.fault("flush", error))?;
        self.size.stale.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// The first key behind all keys of the table; None if it holds nothing.
    fn past_last_key(&self, table: Table) -> Result<Option<Vec<u8>>, Fault> {
        let mut rows = self.db.raw_iterator_cf(self.family(table));
        rows.seek_to_last();
        let end = rows.key().map(|key| [key, &[0]].concat());
        rows.status().map_err(|error| self.fault("read", error))?;
        Ok(end)
    }

    /// The sum of a number over all tables.
    fn sum(&self, property: &properties::PropName) -> Result<u64, Fault> {
        let mut sum = 0;
        for table in Table::ALL {
            let value = self.db.property_int_value_cf(self.family(table), property);
            sum += value.map_err(|error| self.fault("measure", error))?.unwrap_or(0);
        }
        Ok(sum)
    }

    fn memtables(&self) -> Result<u64, Fault> {
        self.sum(properties::CUR_SIZE_ALL_MEM_TABLES)
    }

    fn get(&self, table: Table, key: &[u8], options: &ReadOptions) -> Result<Option<Bytes>, Fault> {
        let value = self.db.get_pinned_cf_opt(self.family(table), key, options);
        let value = value.map_err(|error| self.fault("read", error))?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn scan(
        &self,
        table: Table,
        start: &[u8],
        end: Option<&[u8]>,
        mut options: ReadOptions,
        row: &mut dyn FnMut(&[u8], &[u8]) -> Scan,
    ) -> Result<(), Fault> {
        if end.is_some_and(|end| start >= end) {
            return Ok(());
        }
        if let Some(end) = end {
            options.set_iterate_upper_bound(end);
        }
        let mut rows: DBRawIterator<'_> = self.db.raw_iterator_cf_opt(self.family(table), options);
        rows.seek(start);
        while let Some((key, value)) = rows.item() {
            match row(key, value) {
                Scan::Continue => rows.next(),
                Scan::Stop => break,
            }
        }
        // An iterator ends at an error as it does at the end.
        rows.status().map_err(|error| self.fault("read", error))
    }
}

/// What an error of RocksDB means to the operator. Its texts name the file where there is one.
fn fault(doing: &str, path: &Path, error: rocksdb::Error) -> Fault {
    let dir = path.display();
    let text = error.to_string();
    match error.kind() {
        ErrorKind::Corruption => Fault::corrupt(format!(
            "{dir}: the tables are damaged ({text}). Stop this member, move the directory {dir} away and start \
             again: the tables are rebuilt from the member's log or from the other members."
        )),
        ErrorKind::IOError if is_locked(&text) => Fault::Refused(format!(
            "{dir} is in use by another process ({text}). Stop that process, or give this member a data directory \
             of its own."
        )),
        ErrorKind::NotFound
        | ErrorKind::NotSupported
        | ErrorKind::InvalidArgument
        | ErrorKind::IOError
        | ErrorKind::MergeInProgress
        | ErrorKind::Incomplete
        | ErrorKind::ShutdownInProgress
        | ErrorKind::TimedOut
        | ErrorKind::Aborted
        | ErrorKind::Busy
        | ErrorKind::Expired
        | ErrorKind::TryAgain
        | ErrorKind::CompactionTooLarge
        | ErrorKind::ColumnFamilyDropped
        | ErrorKind::Unknown => Fault::io(format!("{doing} {dir}"), io::Error::new(io_kind(&text), text)),
    }
}

/// RocksDB has no code for a lock that is held, only its sentences: one for this process, one for another.
fn is_locked(text: &str) -> bool {
    text.contains("lock hold by current process") || text.contains("While lock file")
}

fn io_kind(text: &str) -> io::ErrorKind {
    if text.contains("No space left on device") { io::ErrorKind::StorageFull } else { io::ErrorKind::Other }
}

/// RocksDB at one moment.
struct RocksSnapshot<'a> {
    inner: &'a Inner,
    snapshot: SnapshotWithThreadMode<'a, Db>,
}

impl RocksSnapshot<'_> {
    fn options(&self) -> ReadOptions {
        let mut options = ReadOptions::default();
        options.set_snapshot(&self.snapshot);
        // One long read must not push out what others read again and again.
        options.fill_cache(false);
        options
    }
}

impl Tables for RocksSnapshot<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        self.inner.get(table, key, &self.options())
    }

    fn scan(
        &self,
        table: Table,
        start: &[u8],
        end: Option<&[u8]>,
        row: &mut dyn FnMut(&[u8], &[u8]) -> Scan,
    ) -> Result<(), Fault> {
        self.inner.scan(table, start, end, self.options(), row)
    }
}

impl Tables for RocksBackend {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        self.inner.get(table, key, &ReadOptions::default())
    }

    fn scan(
        &self,
        table: Table,
        start: &[u8],
        end: Option<&[u8]>,
        row: &mut dyn FnMut(&[u8], &[u8]) -> Scan,
    ) -> Result<(), Fault> {
        self.inner.scan(table, start, end, ReadOptions::default(), row)
    }
}

impl Backend for RocksBackend {
    fn write(&self, batch: Batch) -> Result<(), Fault> {
        let mut rocks = WriteBatch::default();
        for write in &batch.writes {
            match write {
                Write::Put(table, key, value) => rocks.put_cf(self.inner.family(*table), key, value),
                Write::Delete(table, key) => rocks.delete_cf(self.inner.family(*table), key),
                Write::DeleteRange(table, start, end) if start < end => {
                    rocks.delete_range_cf(self.inner.family(*table), start, end);
                }
                Write::DeleteRange(..) => {}
            }
        }
        let written = rocks.size_in_bytes() as u64;
        self.inner.write(rocks)?;
        self.inner.size.written.fetch_add(written, Ordering::Relaxed);
        Ok(())
    }

    fn flush(&self) -> Result<(), Fault> {
        self.inner.flush()
    }

    fn snapshot(&self) -> Result<impl Tables, Fault> {
        Ok(RocksSnapshot { inner: &self.inner, snapshot: self.inner.db.snapshot() })
    }

    fn replace(&self, batches: &mut dyn Iterator<Item = Result<Batch, Fault>>) -> Result<(), Fault> {
        self.clear()?;
        for batch in batches {
            self.write(batch?)?;
        }
        self.flush()
    }

    fn size(&self) -> Result<u64, Fault> {
        let cache = &self.inner.size;
        let written = cache.written.load(Ordering::Relaxed);
        if written < SIZE_MEASURE_BYTES && !cache.stale.swap(false, Ordering::Relaxed) {
            return Ok(cache.measured.load(Ordering::Relaxed) + written);
        }
        // Before measuring: what is written meanwhile may count twice, but never not at all.
        cache.written.store(0, Ordering::Relaxed);
        let measured = self.inner.sum(properties::LIVE_SST_FILES_SIZE)? + self.inner.memtables()?;
        cache.measured.store(measured, Ordering::Relaxed);
        Ok(measured)
    }

    fn size_in_use(&self) -> Result<u64, Fault> {
        let live = self.inner.sum(properties::ESTIMATE_LIVE_DATA_SIZE)? + self.inner.memtables()?;
        Ok(live.min(self.size()?))
    }

    fn defragment(&self) -> Result<(), Fault> {
        if self.inner.defragmenting.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let inner = Arc::clone(&self.inner);
        let compact = move || {
            let mut options = CompactOptions::default();
            options.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
            // Others may go on compacting meanwhile: this one is to be in nobody's way.
            options.set_exclusive_manual_compaction(false);
            for table in Table::ALL {
                inner.db.compact_range_cf_opt(inner.family(table), None::<&[u8]>, None::<&[u8]>, &options);
            }
            inner.size.stale.store(true, Ordering::Relaxed);
            inner.defragmenting.store(false, Ordering::Release);
        };
        let started = thread::Builder::new().name("defragment".into()).spawn(compact);
        if let Err(error) = started {
            self.inner.defragmenting.store(false, Ordering::Release);
            return Err(Fault::io("start the thread that compacts", error));
        }
        Ok(())
    }
}
