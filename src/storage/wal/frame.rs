//! One record of a segment: its frame, its two checksums, and what may be wrong with it.
//!
//! ```text
//! length u64 LE │ Record { type 1, crc 2, data 3, durable 100, check 101 } │ zeros up to a multiple of 8
//! ```
//!
//! `crc` is etcd's: CRC-32C over the data of all records so far. It covers neither the type nor the place nor the
//! mark, and after damage it says nothing about what follows. So each of our records also has a `check` of its own
//! over all of these, by which a mark can be trusted wherever it is found. etcd's readers skip both fields.

use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, encode_varint, skip_field};

/// What a record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Metadata = 1,
    Entry = 2,
    State = 3,
    Crc = 4,
    Snapshot = 5,
}

impl Kind {
    fn from_number(number: u64) -> Option<Self> {
        match number {
            1 => Some(Self::Metadata),
            2 => Some(Self::Entry),
            3 => Some(Self::State),
            4 => Some(Self::Crc),
            5 => Some(Self::Snapshot),
            _ => None,
        }
    }
}

const TAG_TYPE: u8 = 1 << 3;
const TAG_CRC: u8 = 2 << 3;
const TAG_DATA: u8 = 3 << 3 | 2;
const FIELD_DURABLE: u32 = 100;
const FIELD_CHECK: u32 = 101;
const TAG_DURABLE: u64 = (FIELD_DURABLE as u64) << 3;
const TAG_CHECK: u64 = (FIELD_CHECK as u64) << 3 | 5;

/// A record, its data in the segment's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub kind: Kind,
    pub crc: u32,
    pub data: Option<&'a [u8]>,
    /// How many bytes of the segment were durable when this was written; only with a valid check.
    pub durable: Option<u64>,
    /// Whether we wrote it: its check is there, and valid.
    pub ours: bool,
}

/// What is wrong with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Damage {
    /// The file ends inside it.
    Cut,
    /// Its bytes are wrong, and a 512-byte sector of it is all zero, so it may never have been written.
    Hole,
    /// Its bytes are wrong.
    Garbage(&'static str),
}

impl Damage {
    pub fn text(self) -> &'static str {
        match self {
            Self::Cut => "the file ends inside a record",
            Self::Hole => "a sector of a record is empty",
            Self::Garbage(what) => what,
        }
    }
}

/// The crc chain with `data` added.
pub(super) fn extend(chain: u32, data: &[u8]) -> u32 {
    crc32c::crc32c_append(chain, data)
}

/// The check of one record at its place.
fn check(seq: u64, offset: u64, kind: Kind, crc: u32, durable: Option<u64>) -> u32 {
    let mut bytes = [0; 36];
    bytes[..8].copy_from_slice(&seq.to_le_bytes());
    bytes[8..16].copy_from_slice(&offset.to_le_bytes());
    bytes[16..24].copy_from_slice(&(kind as u64).to_le_bytes());
    bytes[24..28].copy_from_slice(&crc.to_le_bytes());
    bytes[28..].copy_from_slice(&durable.unwrap_or(u64::MAX).to_le_bytes());
    crc32c::crc32c(&bytes)
}

/// Fills a segment's next bytes with records.
#[derive(Clone, Debug)]
pub(super) struct Encoder {
    pub seq: u64,
    /// Where the first of `out`'s bytes goes.
    pub start: u64,
    pub chain: u32,
    pub out: Vec<u8>,
    /// Whether records get our fields; etcd's bytes have none.
    pub stamped: bool,
}

impl Encoder {
    pub fn new(seq: u64, start: u64, chain: u32) -> Self {
        Self { seq, start, chain, out: Vec::new(), stamped: true }
    }

    /// Where the next record goes.
    pub fn end(&self) -> u64 {
        self.start + self.out.len() as u64
    }

    /// Adds a record; `durable` makes it carry the mark.
    pub fn push(&mut self, kind: Kind, data: Option<&[u8]>, durable: Option<u64>) {
        let offset = self.end();
        self.chain = extend(self.chain, data.unwrap_or_default());
        let head = self.out.len();
        self.out.extend_from_slice(&[0; 8]);
        self.out.extend_from_slice(&[TAG_TYPE, kind as u8, TAG_CRC]);
        encode_varint(u64::from(self.chain), &mut self.out);
        if let Some(data) = data {
            self.out.push(TAG_DATA);
            encode_varint(data.len() as u64, &mut self.out);
            self.out.extend_from_slice(data);
        }
        if self.stamped {
            if let Some(durable) = durable {
                encode_varint(TAG_DURABLE, &mut self.out);
                encode_varint(durable, &mut self.out);
            }
            encode_varint(TAG_CHECK, &mut self.out);
            let check = check(self.seq, offset, kind, self.chain, durable);
            self.out.extend_from_slice(&check.to_le_bytes());
        }
        let len = self.out.len() - head - 8;
        let pad = padding(len as u64);
        let flag = if pad == 0 { 0 } else { 0x80 | pad };
        self.out[head..head + 8].copy_from_slice(&(len as u64 | flag << 56).to_le_bytes());
        self.out.resize(self.out.len() + pad as usize, 0);
    }
}

fn padding(len: u64) -> u64 {
    (8 - len % 8) % 8
}

/// The frame at `offset`: the record's bytes and where the next frame is. None where the length is zero or the
/// file ends: nothing was written here.
fn frame(bytes: &[u8], offset: usize) -> Result<Option<(&[u8], usize)>, Damage> {
    let rest = bytes.get(offset..).unwrap_or_default();
    if rest.is_empty() {
        return Ok(None);
    }
    let Some((head, rest)) = rest.split_first_chunk::<8>() else {
        return Err(Damage::Cut);
    };
    let head = u64::from_le_bytes(*head);
    if head == 0 {
        return Ok(None);
    }
    let (len, flag) = (head & ((1 << 56) - 1), head >> 56);
    let pad = padding(len);
    if len == 0 || flag != (if pad == 0 { 0 } else { 0x80 | pad }) {
        return Err(Damage::Garbage("a length field is wrong"));
    }
    let whole = len.saturating_add(pad);
    if whole > rest.len() as u64 {
        return Err(if whole >= super::RECORD_MAX {
            Damage::Garbage("a length field is wrong")
        } else {
            Damage::Cut
        });
    }
    Ok(Some((&rest[..len as usize], offset + 8 + whole as usize)))
}

/// A record as parsed, before its checksums are looked at.
#[derive(Default)]
struct Fields<'a> {
    kind: u64,
    crc: u64,
    data: Option<&'a [u8]>,
    durable: Option<u64>,
    check: Option<u32>,
}

fn parse(mut buf: &[u8]) -> Option<Fields<'_>> {
    let mut fields = Fields::default();
    while !buf.is_empty() {
        let (tag, wire) = decode_key(&mut buf).ok()?;
        match (tag, wire) {
            (1, WireType::Varint) => fields.kind = decode_varint(&mut buf).ok()?,
            (2, WireType::Varint) => fields.crc = decode_varint(&mut buf).ok()?,
            (3, WireType::LengthDelimited) => {
                let len = decode_varint(&mut buf).ok()?;
                let (data, rest) = buf.split_at_checked(usize::try_from(len).ok()?)?;
                fields.data = Some(data);
                buf = rest;
            }
            (1..=3, _) => return None,
            (FIELD_DURABLE, WireType::Varint) => fields.durable = Some(decode_varint(&mut buf).ok()?),
            (FIELD_CHECK, WireType::ThirtyTwoBit) => {
                let (check, rest) = buf.split_first_chunk::<4>()?;
                fields.check = Some(u32::from_le_bytes(*check));
                buf = rest;
            }
            (tag, wire) => skip_field(wire, tag, &mut buf, DecodeContext::default()).ok()?,
        }
    }
    Some(fields)
}

/// The record of `fields` at its place, if its own check, where it has one, is right.
fn checked(fields: Fields<'_>, seq: u64, offset: usize) -> Result<Record<'_>, &'static str> {
    let kind = Kind::from_number(fields.kind).ok_or("a record has an unknown type")?;
    let crc = u32::try_from(fields.crc).map_err(|_| "a record's checksum is too long")?;
    let ours = match fields.check {
        Some(found) if found == check(seq, offset as u64, kind, crc, fields.durable) => true,
        Some(_) => return Err("a record's own checksum is wrong"),
        None => false,
    };
    let durable = fields.durable.filter(|_| ours);
    Ok(Record { kind, crc, data: fields.data, durable, ours })
}

/// Reads a segment's records in order.
#[derive(Clone, Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    seq: u64,
    /// Where the next frame is: the end of the last valid one.
    pub offset: usize,
    /// The crc chain; None until a record has set it.
    pub chain: Option<u32>,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8], seq: u64, chain: Option<u32>) -> Self {
        Self { bytes, seq, offset: 0, chain }
    }

    /// The next record with its offset; None where nothing more was written.
    pub fn next(&mut self) -> Result<Option<(usize, Record<'a>)>, Damage> {
        let offset = self.offset;
        let Some((body, end)) = frame(self.bytes, offset)? else {
            return Ok(None);
        };
        let record = parse(body)
            .ok_or("a record can't be parsed")
            .and_then(|fields| checked(fields, self.seq, offset))
            .and_then(|record| self.verify(record))
            .map_err(
                |what| if self.has_hole(offset + 8, end) { Damage::Hole } else { Damage::Garbage(what) },
            )?;
        self.offset = end;
        Ok(Some((offset, record)))
    }

    fn verify(&mut self, record: Record<'a>) -> Result<Record<'a>, &'static str> {
        const WRONG: &str = "a record's checksum is wrong";
        let chain = match (record.kind, self.chain) {
            (Kind::Crc, Some(chain)) if chain != record.crc => return Err(WRONG),
            (Kind::Crc, _) => record.crc,
            // etcd takes a log without its first record, whose chain starts at 0.
            (_, chain) => extend(chain.unwrap_or(0), record.data.unwrap_or_default()),
        };
        if chain != record.crc {
            return Err(WRONG);
        }
        self.chain = Some(chain);
        Ok(record)
    }

    /// Whether a sector of the file is all zero as far as it lies in `[start, end)`.
    fn has_hole(&self, start: usize, end: usize) -> bool {
        let mut at = start;
        while at < end {
            let next = (at / 512 * 512 + 512).min(end);
            if self.bytes[at..next].iter().all(|byte| *byte == 0) {
                return true;
            }
            at = next;
        }
        false
    }
}

/// The furthest mark in any of our records at or behind `from`, whatever lies between.
pub(super) fn furthest_mark(bytes: &[u8], seq: u64, from: usize) -> Option<u64> {
    let mut furthest = None;
    let mut at = from.next_multiple_of(8);
    while at < bytes.len() {
        if let Ok(Some((body, _))) = frame(bytes, at)
            && body.first() == Some(&TAG_TYPE)
            && let Some(fields) = parse(body)
            && let Ok(record) = checked(fields, seq, at)
        {
            furthest = furthest.max(record.durable);
        }
        at += 8;
    }
    furthest
}
