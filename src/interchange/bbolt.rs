//! bbolt's file format, written in one sweep from sorted keys.
//!
//! ```text
//! page 0, 1   meta: magic, version, page size, root bucket, free list, high water mark, txid, FNV-1a checksum
//! page 2      free list, empty
//! page 3 ...  each bucket: its leaves in order, then its branches, level by level; its root is the last one
//! last        the leaf of the root bucket: bucket names to their roots
//! ```
//!
//! A page is 4096 bytes; one with a large element goes over into the pages after it (`overflow`).

use std::io;

use crate::storage::DiskFile;

const PAGE: usize = 4096;
const PAGE_HEADER: usize = 16;
const ELEMENT: usize = 16;
const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;

const BRANCH: u16 = 0x01;
const LEAF: u16 = 0x02;
const META: u16 = 0x04;
const FREELIST: u16 = 0x10;

/// A leaf element whose value is a bucket's header.
const BUCKET_ELEMENT: u32 = 0x01;

/// Writes one bbolt file. Buckets come in the order of their names, their keys in ascending order.
pub struct Writer<F> {
    file: F,
    next_page: u64,
    bucket: Option<Bucket>,
    roots: Vec<(String, u64)>,
}

struct Bucket {
    name: String,
    leaf: Page,
    /// First key and number of each leaf written.
    leaves: Vec<(Vec<u8>, u64)>,
}

/// The elements of a page in the making.
#[derive(Default)]
struct Page {
    elements: Vec<Element>,
    bytes: usize,
}

struct Element {
    flags: u32,
    key: Vec<u8>,
    value: Vec<u8>,
    child: u64,
}

impl Page {
    fn push(&mut self, element: Element) {
        self.bytes += ELEMENT + element.key.len() + element.value.len();
        self.elements.push(element);
    }

    fn fits(&self, key: usize, value: usize) -> bool {
        self.elements.is_empty() || PAGE_HEADER + self.bytes + ELEMENT + key + value <= PAGE
    }

    fn encode(&self, id: u64, flags: u16) -> Vec<u8> {
        let len = PAGE_HEADER + self.bytes;
        let pages = len.div_ceil(PAGE).max(1);
        let mut out = Vec::with_capacity(pages * PAGE);
        page_header(&mut out, id, flags, self.elements.len() as u16, (pages - 1) as u32);
        let mut data = ELEMENT * self.elements.len();
        for (i, element) in self.elements.iter().enumerate() {
            // Positions count from the element's own start.
            let pos = (data - ELEMENT * i) as u32;
            if flags == BRANCH {
                out.extend(pos.to_le_bytes());
                out.extend((element.key.len() as u32).to_le_bytes());
                out.extend(element.child.to_le_bytes());
            } else {
                out.extend(element.flags.to_le_bytes());
                out.extend(pos.to_le_bytes());
                out.extend((element.key.len() as u32).to_le_bytes());
                out.extend((element.value.len() as u32).to_le_bytes());
            }
            data += element.key.len() + element.value.len();
        }
        for element in &self.elements {
            out.extend(&element.key);
            out.extend(&element.value);
        }
        out.resize(pages * PAGE, 0);
        out
    }
}

fn page_header(out: &mut Vec<u8>, id: u64, flags: u16, count: u16, overflow: u32) {
    out.extend(id.to_le_bytes());
    out.extend(flags.to_le_bytes());
    out.extend(count.to_le_bytes());
    out.extend(overflow.to_le_bytes());
}

impl<F: DiskFile> Writer<F> {
    /// Starts a file, which must be empty.
    pub fn new(file: F) -> io::Result<Self> {
        Ok(Self { file, next_page: 3, bucket: None, roots: Vec::new() })
    }

    /// Starts a bucket; its name comes after those before it.
    pub fn begin_bucket(&mut self, name: &str) {
        assert!(self.bucket.is_none(), "a bucket is still open");
        assert!(self.roots.last().is_none_or(|(last, _)| last.as_str() < name), "buckets come in order");
        self.bucket = Some(Bucket { name: name.to_owned(), leaf: Page::default(), leaves: Vec::new() });
    }

    /// Adds a key, which comes after those before it, to the open bucket.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        let bucket = self.bucket.as_mut().expect("keys are put between begin_bucket and end_bucket");
        // Counts are 16 bits; a page of the smallest elements stays far below.
        if !bucket.leaf.fits(key.len(), value.len()) {
            self.flush_leaf()?;
        }
        let bucket = self.bucket.as_mut().expect("flushing keeps the bucket open");
        bucket.leaf.push(Element { flags: 0, key: key.to_vec(), value: value.to_vec(), child: 0 });
        Ok(())
    }

    fn flush_leaf(&mut self) -> io::Result<()> {
        let Some(bucket) = &mut self.bucket else { return Ok(()) };
        let page = std::mem::take(&mut bucket.leaf);
        let first = page.elements.first().map(|e| e.key.clone()).unwrap_or_default();
        let id = self.write_page(&page, LEAF)?;
        if let Some(bucket) = &mut self.bucket {
            bucket.leaves.push((first, id));
        }
        Ok(())
    }

    /// Ends the bucket: writes its last leaf and the branches above.
    pub fn end_bucket(&mut self) -> io::Result<()> {
        let open = self.bucket.as_ref().expect("a bucket is open");
        if !open.leaf.elements.is_empty() || open.leaves.is_empty() {
            self.flush_leaf()?;
        }
        let Some(bucket) = self.bucket.take() else { return Ok(()) };
        let mut level = bucket.leaves;
        while level.len() > 1 {
            level = self.write_branches(level)?;
        }
        let (_, root) = level.into_iter().next().expect("a bucket has at least one leaf");
        self.roots.push((bucket.name, root));
        Ok(())
    }

    fn write_branches(&mut self, children: Vec<(Vec<u8>, u64)>) -> io::Result<Vec<(Vec<u8>, u64)>> {
        let mut level = Vec::new();
        let mut page = Page::default();
        let mut first = Vec::new();
        for (key, child) in children {
            // A branch of one child would never shrink the level: two fit whatever their size.
            if page.elements.len() >= 2 && !page.fits(key.len(), 0) {
                level
                    .push((std::mem::take(&mut first), self.write_page(&std::mem::take(&mut page), BRANCH)?));
            }
            if page.elements.is_empty() {
                first.clone_from(&key);
            }
            page.push(Element { flags: 0, key, value: Vec::new(), child });
        }
        level.push((first, self.write_page(&page, BRANCH)?));
        Ok(level)
    }

    fn write_page(&mut self, page: &Page, flags: u16) -> io::Result<u64> {
        let id = self.next_page;
        let bytes = page.encode(id, flags);
        self.file.write_at(id * PAGE as u64, &bytes)?;
        self.next_page += (bytes.len() / PAGE) as u64;
        Ok(id)
    }

    /// Ends the file: the root bucket, the free list, both metas. Returns its length in bytes, synced.
    pub fn finish(mut self) -> io::Result<u64> {
        assert!(self.bucket.is_none(), "the last bucket is still open");
        let mut root = Page::default();
        for (name, page) in std::mem::take(&mut self.roots) {
            let mut header = page.to_le_bytes().to_vec();
            header.extend(0_u64.to_le_bytes());
            root.push(Element { flags: BUCKET_ELEMENT, key: name.into_bytes(), value: header, child: 0 });
        }
        let root = self.write_page(&root, LEAF)?;
        let mut freelist = Vec::with_capacity(PAGE);
        page_header(&mut freelist, 2, FREELIST, 0, 0);
        freelist.resize(PAGE, 0);
        self.file.write_at(2 * PAGE as u64, &freelist)?;
        for txid in 0..2 {
            let meta = meta_page(txid, root, self.next_page);
            self.file.write_at(txid * PAGE as u64, &meta)?;
        }
        self.file.sync()?;
        Ok(self.next_page * PAGE as u64)
    }
}

fn meta_page(txid: u64, root: u64, high_water: u64) -> Vec<u8> {
    let mut meta = Vec::with_capacity(64);
    for word in [MAGIC, VERSION, PAGE as u32, 0] {
        meta.extend(word.to_le_bytes());
    }
    for long in [root, 0, 2, high_water, txid] {
        meta.extend(long.to_le_bytes());
    }
    meta.extend(fnv1a(&meta).to_le_bytes());
    let mut page = Vec::with_capacity(PAGE);
    page_header(&mut page, txid, META, 0, 0);
    page.extend(meta);
    page.resize(PAGE, 0);
    page
}

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
