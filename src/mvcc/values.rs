//! The bytes of a stored key-value: etcd's encoding of `mvccpb.KeyValue`, written and read by hand.
//!
//! It is here and not in `wire` so that the pure store needs no protobuf library. Fields go out in order and
//! zero ones are left out, as etcd does it, so that equal states have equal bytes.

use bytes::{BufMut, Bytes, BytesMut};

use super::request::KvBytes;
use crate::types::{KeyValue, LeaseId, Revision};

const KEY: u64 = 1;
const CREATED: u64 = 2;
const MODIFIED: u64 = 3;
const VERSION: u64 = 4;
const VALUE: u64 = 5;
const LEASE: u64 = 6;

const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const LENGTH_DELIMITED: u64 = 2;
const FIXED32: u64 = 5;

/// The bytes are no encoded key-value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an encoded key-value")]
pub struct Malformed;

/// An encoded key-value, taken apart in place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KvRef<'a> {
    /// The key.
    pub key: &'a [u8],
    /// The revision that made the key.
    pub created: Revision,
    /// The revision of this change; 0 in a stored tombstone.
    pub modified: Revision,
    /// How many puts since `created`.
    pub version: i64,
    /// The value.
    pub value: &'a [u8],
    /// The lease; 0 for none.
    pub lease: LeaseId,
}

impl<'a> KvRef<'a> {
    /// Reads an encoded key-value; fields that it does not know are skipped.
    pub fn decode(mut buf: &'a [u8]) -> Result<Self, Malformed> {
        let mut kv = Self::default();
        while !buf.is_empty() {
            let tag = take_varint(&mut buf)?;
            match (tag >> 3, tag & 7) {
                (KEY, LENGTH_DELIMITED) => kv.key = take_bytes(&mut buf)?,
                (CREATED, VARINT) => kv.created = Revision(take_varint(&mut buf)? as i64),
                (MODIFIED, VARINT) => kv.modified = Revision(take_varint(&mut buf)? as i64),
                (VERSION, VARINT) => kv.version = take_varint(&mut buf)? as i64,
                (VALUE, LENGTH_DELIMITED) => kv.value = take_bytes(&mut buf)?,
                (LEASE, VARINT) => kv.lease = LeaseId(take_varint(&mut buf)? as i64),
                (0, _) => return Err(Malformed),
                (_, VARINT) => drop(take_varint(&mut buf)?),
                (_, FIXED64) => drop(take(&mut buf, 8)?),
                (_, LENGTH_DELIMITED) => drop(take_bytes(&mut buf)?),
                (_, FIXED32) => drop(take(&mut buf, 4)?),
                (_, _) => return Err(Malformed),
            }
        }
        Ok(kv)
    }

    /// Encodes it.
    pub fn encode(&self) -> KvBytes {
        let mut out = BytesMut::with_capacity(self.encoded_len());
        put_bytes(&mut out, KEY, self.key);
        put_int(&mut out, CREATED, self.created.0);
        put_int(&mut out, MODIFIED, self.modified.0);
        put_int(&mut out, VERSION, self.version);
        put_bytes(&mut out, VALUE, self.value);
        put_int(&mut out, LEASE, self.lease.0);
        KvBytes(out.freeze())
    }

    fn encoded_len(&self) -> usize {
        let bytes = |b: &[u8]| if b.is_empty() { 0 } else { 1 + varint_len(b.len() as u64) + b.len() };
        let int = |n: i64| if n == 0 { 0 } else { 1 + varint_len(n as u64) };
        bytes(self.key)
            + int(self.created.0)
            + int(self.modified.0)
            + int(self.version)
            + bytes(self.value)
            + int(self.lease.0)
    }
}

impl KvBytes {
    /// Encodes `kv` as etcd does.
    pub fn encode(kv: &KeyValue) -> Self {
        KvRef {
            key: &kv.key,
            created: kv.created,
            modified: kv.modified,
            version: kv.version,
            value: &kv.value,
            lease: kv.lease,
        }
        .encode()
    }

    /// Decodes it; key and value share its buffer.
    pub fn decode(&self) -> Result<KeyValue, Malformed> {
        let kv = KvRef::decode(&self.0)?;
        Ok(KeyValue {
            key: self.0.slice_ref(kv.key),
            created: kv.created,
            modified: kv.modified,
            version: kv.version,
            value: self.0.slice_ref(kv.value),
            lease: kv.lease,
        })
    }
}

/// What is stored for a tombstone: its key alone.
pub(super) fn tombstone(key: &[u8]) -> Bytes {
    KvRef { key, ..KvRef::default() }.encode().0
}

fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

pub(super) fn put_varint(out: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

fn put_bytes(out: &mut BytesMut, field: u64, value: &[u8]) {
    if !value.is_empty() {
        put_varint(out, field << 3 | LENGTH_DELIMITED);
        put_varint(out, value.len() as u64);
        out.put_slice(value);
    }
}

fn put_int(out: &mut BytesMut, field: u64, value: i64) {
    if value != 0 {
        put_varint(out, field << 3 | VARINT);
        put_varint(out, value as u64);
    }
}

pub(super) fn take_varint(buf: &mut &[u8]) -> Result<u64, Malformed> {
    let mut value = 0;
    for (at, &byte) in buf.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte < 0x80 {
            // The tenth byte holds the 64th bit alone.
            if at == 9 && byte > 1 {
                return Err(Malformed);
            }
            *buf = &buf[at + 1..];
            return Ok(value);
        }
    }
    Err(Malformed)
}

pub(super) fn take<'a>(buf: &mut &'a [u8], len: usize) -> Result<&'a [u8], Malformed> {
    if len > buf.len() {
        return Err(Malformed);
    }
    let (head, tail) = buf.split_at(len);
    *buf = tail;
    Ok(head)
}

fn take_bytes<'a>(buf: &mut &'a [u8]) -> Result<&'a [u8], Malformed> {
    let len = usize::try_from(take_varint(buf)?).map_err(|_| Malformed)?;
    take(buf, len)
}
