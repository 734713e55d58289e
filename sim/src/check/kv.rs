//! Key-values and ranges as the oracles see them: decoded by prost alone, so that nothing of the store under test
//! stands between the bytes and the judgement.

use bytes::Bytes;
use kontiki::wire::RawKeyValue;
use prost::Message;

/// `mvccpb.KeyValue`. A deletion has its key and `mod_revision` alone.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Kv {
    /// The key.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// The revision that made it after it was absent.
    #[prost(int64, tag = "2")]
    pub create_revision: i64,
    /// The revision of this change.
    #[prost(int64, tag = "3")]
    pub mod_revision: i64,
    /// Puts since it was made, from 1.
    #[prost(int64, tag = "4")]
    pub version: i64,
    /// The value.
    #[prost(bytes = "bytes", tag = "5")]
    pub value: Bytes,
    /// Its lease; 0 for none.
    #[prost(int64, tag = "6")]
    pub lease: i64,
}

impl Kv {
    /// As responses carry it.
    pub fn to_raw(&self) -> RawKeyValue {
        RawKeyValue(self.encode_to_vec().into())
    }

    /// From a response; none if the bytes are no key-value.
    pub fn from_raw(raw: &RawKeyValue) -> Option<Self> {
        Self::decode(raw.0.clone()).ok()
    }

    /// Whether it stands for the key's absence.
    pub const fn is_deletion(&self) -> bool {
        self.version == 0
    }
}

/// Bytes for a reader: text as it is, and not too long.
pub fn show(bytes: &[u8]) -> String {
    const LONG: usize = 60;
    let text = bytes.escape_ascii().to_string();
    match text.char_indices().nth(LONG) {
        Some((end, _)) => format!("\"{}…\" ({} bytes)", &text[..end], bytes.len()),
        None => format!("\"{text}\""),
    }
}

/// A key-value for a reader.
pub fn show_kv(kv: &Kv) -> String {
    let lease = if kv.lease == 0 { String::new() } else { format!(" lease {:x}", kv.lease) };
    let Kv { key, value, create_revision, mod_revision, version, .. } = kv;
    if kv.is_deletion() {
        return format!("{} deleted at {mod_revision}", show(key));
    }
    format!(
        "{}={} (created {create_revision}, mod {mod_revision}, version {version}{lease})",
        show(key),
        show(value)
    )
}

/// A range of keys as etcd's `key` and `range_end` name one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first key.
    pub key: Bytes,
    /// Empty for the one key, a zero byte for all from `key` on, else the key that it ends before.
    pub end: Bytes,
}

impl Span {
    /// As a request names it.
    pub fn new(key: &Bytes, range_end: &Bytes) -> Self {
        Self { key: key.clone(), end: range_end.clone() }
    }

    /// The one key.
    pub fn one(key: &Bytes) -> Self {
        Self { key: key.clone(), end: Bytes::new() }
    }

    /// A watch's: an empty key stands for the least.
    pub fn of_watch(key: &Bytes, range_end: &Bytes) -> Self {
        let least = || Bytes::from_static(&[0]);
        Self { key: if key.is_empty() { least() } else { key.clone() }, end: range_end.clone() }
    }

    /// Whether it has no upper end.
    pub fn is_open(&self) -> bool {
        self.end.as_ref() == [0]
    }

    /// Whether it is of one key.
    pub fn is_one(&self) -> bool {
        self.end.is_empty()
    }

    /// Whether `key` is in it.
    pub fn contains(&self, key: &[u8]) -> bool {
        match self.end.as_ref() {
            [] => key == self.key,
            [0] => key >= self.key.as_ref(),
            end => key >= self.key.as_ref() && key < end,
        }
    }

    /// Whether a key could be in both.
    pub fn meets(&self, other: &Self) -> bool {
        if self.is_one() {
            return other.contains(&self.key);
        }
        if other.is_one() {
            return self.contains(&other.key);
        }
        let below = |a: &Self, b: &Self| !a.is_open() && a.end <= b.key;
        !below(self, other) && !below(other, self)
    }
}
