//! Backups as bbolt files: what is written is read again by a reader of our own, after bbolt's description.

use std::{collections::BTreeMap, path::Path};

use arbitrary::Result;
use kontiki::{
    interchange::{OWN_META_PREFIX, bbolt::Writer, write_database},
    storage::{Backend, Disk, MemBackend, MemDisk, OpenMode},
    table::{Batch, Table, Tables as _},
};

use super::arb::{self, Source, one, upto};

const PAGE: usize = 4096;

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// A file's buckets. It panics on what is no sound file.
struct Reader<'a> {
    file: &'a [u8],
    /// Which pages have been seen.
    seen: Vec<bool>,
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> u64 {
    let mut out = [0; 8];
    out[..N].copy_from_slice(&bytes[at..at + N]);
    u64::from_le_bytes(out)
}

impl<'a> Reader<'a> {
    /// The root page of the newer meta.
    fn root(file: &[u8]) -> u64 {
        let metas = [0, 1].map(|page| {
            let meta = &file[page * PAGE + 16..][..64];
            assert_eq!(number::<4>(meta, 0), 0xED0C_DAED);
            assert_eq!((number::<4>(meta, 4), number::<4>(meta, 8)), (2, PAGE as u64));
            let sum = meta[..56].iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
            });
            assert_eq!(number::<8>(meta, 56), sum, "a meta's checksum");
            assert_eq!(number::<8>(meta, 40) as usize * PAGE, file.len(), "the high water mark is the end");
            (number::<8>(meta, 48), number::<8>(meta, 16))
        });
        assert_ne!(metas[0].0, metas[1].0);
        metas[0].max(metas[1]).1
    }

    /// A page's kind, count and bytes from its header on.
    fn page(&mut self, id: u64) -> (u64, usize, &'a [u8]) {
        let start = id as usize * PAGE;
        let head = &self.file[start..];
        assert_eq!(number::<8>(head, 0), id, "a page knows its number");
        let pages = 1 + number::<4>(head, 12) as usize;
        for page in id as usize..id as usize + pages {
            assert!(!std::mem::replace(&mut self.seen[page], true), "page {page} is in use twice");
        }
        (number::<2>(head, 8), number::<2>(head, 10) as usize, &head[16..pages * PAGE])
    }

    /// All elements below a page, with their flags.
    fn walk(&mut self, id: u64, out: &mut Vec<(u64, Vec<u8>, Vec<u8>)>) {
        let (kind, count, body) = self.page(id);
        for at in (0..count).map(|at| at * 16) {
            if kind == 1 {
                let (place, len) = (at + number::<4>(body, at) as usize, number::<4>(body, at + 4) as usize);
                let before = out.len();
                self.walk(number::<8>(body, at + 8), out);
                assert_eq!(out[before].1, body[place..place + len], "a branch names its child's first key");
            } else {
                assert_eq!(kind, 2, "a leaf");
                let (place, len) =
                    (at + number::<4>(body, at + 4) as usize, number::<4>(body, at + 8) as usize);
                let (key, rest) = body[place..].split_at(len);
                let value = &rest[..number::<4>(body, at + 12) as usize];
                out.push((number::<4>(body, at), key.to_vec(), value.to_vec()));
            }
        }
    }
}

fn read(file: &[u8]) -> BTreeMap<String, Pairs> {
    assert!(file.len().is_multiple_of(PAGE));
    let mut reader = Reader { file, seen: vec![false; file.len() / PAGE] };
    reader.seen[..2].fill(true);
    let (kind, free, _) = reader.page(2);
    assert_eq!((kind, free), (0x10, 0), "an empty list of free pages");
    let mut buckets = Vec::new();
    reader.walk(Reader::root(file), &mut buckets);
    let buckets = buckets.into_iter().map(|(flags, name, header)| {
        assert_eq!((flags, number::<8>(&header, 8)), (1, 0), "a bucket");
        let mut pairs = Vec::new();
        reader.walk(number::<8>(&header, 0), &mut pairs);
        assert!(pairs.is_sorted_by(|one, next| one.1 < next.1), "keys go up");
        let pairs = pairs.into_iter().map(|(flags, key, value)| {
            assert_eq!(flags, 0, "a pair");
            (key, value)
        });
        (String::from_utf8(name).expect("a name"), pairs.collect())
    });
    let buckets = buckets.collect();
    assert!(reader.seen.iter().all(|seen| *seen), "every page is in use");
    buckets
}

fn pair(u: &mut Source<'_>) -> Result<(Vec<u8>, Vec<u8>)> {
    let stretch = |u: &mut Source<'_>, bytes: bytes::Bytes| -> Result<Vec<u8>> {
        let times = one(u, &[1, 1, 1, 40, 700, 3000])?;
        Ok(bytes.iter().copied().chain(std::iter::repeat_n(7, times)).collect())
    };
    let (key, value) = (arb::bytes(u, 6)?, arb::bytes(u, 6)?);
    Ok((stretch(u, key)?, stretch(u, value)?))
}

/// Buckets of any pairs, and the tables as a backup.
pub fn bbolt(u: &mut Source<'_>) -> Result<()> {
    let disk = MemDisk::new();
    let open = |path: &str| disk.open(Path::new(path), OpenMode::Create).expect("the disk is on");
    let mut wanted = BTreeMap::new();
    let mut writer = Writer::new(open("any")).expect("the disk is on");
    for name in ["a", "b", "c"].into_iter().take(upto(u, 3)? as usize) {
        let mut pairs = BTreeMap::new();
        for _ in 0..upto(u, 120)? {
            pairs.extend([pair(u)?]);
        }
        writer.begin_bucket(name);
        for (key, value) in &pairs {
            writer.put(key, value).expect("the disk is on");
        }
        writer.end_bucket().expect("the disk is on");
        wanted.insert(name.to_owned(), pairs.into_iter().collect::<Pairs>());
    }
    let len = writer.finish().expect("the disk is on");
    let file = disk.contents(Path::new("any")).expect("it is there");
    assert_eq!(len, file.len() as u64);
    assert_eq!(read(&file), wanted);

    let tables = MemBackend::new();
    let mut batch = Batch::default();
    for _ in 0..upto(u, 8)? {
        let own = upto(u, 5)? == 5;
        let (key, value) = pair(u)?;
        let key = if own { [OWN_META_PREFIX, &key].concat() } else { key };
        batch.put(one(u, &Table::ALL)?, key, value);
    }
    tables.write(batch).expect("it is in memory");
    write_database(open("backup"), &tables).expect("the disk is on");
    let mut found = read(&disk.contents(Path::new("backup")).expect("it is there"));
    for table in Table::ALL {
        let mut rows = Pairs::new();
        let mut row = |key: &[u8], value: &[u8]| {
            if table != Table::Meta || !key.starts_with(OWN_META_PREFIX) {
                rows.push((key.to_vec(), value.to_vec()));
            }
            kontiki::table::Scan::Continue
        };
        tables.scan(table, b"", None, &mut row).expect("it is in memory");
        assert_eq!(found.remove(table.name()), Some(rows));
    }
    assert!(found.is_empty());
    Ok(())
}
