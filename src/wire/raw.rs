//! A key-value that stays encoded: stored bytes are copied into responses, never decoded and encoded again.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::{
    DecodeError, Message,
    encoding::{DecodeContext, WireType, decode_varint, encode_key, encode_varint, encoded_len_varint},
};

use crate::types::{KeyValue, LeaseId, Revision};

/// A `mvccpb.KeyValue` in its encoded form. As a message it encodes to just its bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct RawKeyValue(pub Bytes);

const KEY: u32 = 1;
const CREATED: u32 = 2;
const MODIFIED: u32 = 3;
const VERSION: u32 = 4;
const VALUE: u32 = 5;
const LEASE: u32 = 6;

impl RawKeyValue {
    /// Encodes `kv` as etcd does: fields in order, zero ones left out.
    pub fn encode(kv: &KeyValue) -> Self {
        let mut out = BytesMut::with_capacity(kv.key.len() + kv.value.len() + 48);
        let bytes = |out: &mut BytesMut, tag, value: &Bytes| {
            if !value.is_empty() {
                encode_key(tag, WireType::LengthDelimited, out);
                encode_varint(value.len() as u64, out);
                out.put_slice(value);
            }
        };
        let int = |out: &mut BytesMut, tag, value: i64| {
            if value != 0 {
                encode_key(tag, WireType::Varint, out);
                encode_varint(value as u64, out);
            }
        };
        bytes(&mut out, KEY, &kv.key);
        int(&mut out, CREATED, kv.created.0);
        int(&mut out, MODIFIED, kv.modified.0);
        int(&mut out, VERSION, kv.version);
        bytes(&mut out, VALUE, &kv.value);
        int(&mut out, LEASE, kv.lease.0);
        Self(out.freeze())
    }

    /// Decodes it; keys and values share the buffer.
    pub fn decode_kv(&self) -> Result<KeyValue, DecodeError> {
        let mut buf = self.0.clone();
        let mut kv = KeyValue::default();
        while buf.has_remaining() {
            let (tag, wire) = prost::encoding::decode_key(&mut buf)?;
            match (tag, wire) {
                (KEY, WireType::LengthDelimited) => kv.key = take(&mut buf)?,
                (CREATED, WireType::Varint) => kv.created = Revision(decode_varint(&mut buf)? as i64),
                (MODIFIED, WireType::Varint) => kv.modified = Revision(decode_varint(&mut buf)? as i64),
                (VERSION, WireType::Varint) => kv.version = decode_varint(&mut buf)? as i64,
                (VALUE, WireType::LengthDelimited) => kv.value = take(&mut buf)?,
                (LEASE, WireType::Varint) => kv.lease = LeaseId(decode_varint(&mut buf)? as i64),
                _ => prost::encoding::skip_field(wire, tag, &mut buf, DecodeContext::default())?,
            }
        }
        Ok(kv)
    }
}

/// Takes one length-delimited value off `buf`, as a slice of it.
fn take(buf: &mut Bytes) -> Result<Bytes, DecodeError> {
    let len = decode_varint(buf)?;
    if len > buf.remaining() as u64 {
        // Through prost, which has no public way to make the error itself.
        return Err(decode_varint(&mut Bytes::new()).expect_err("an empty buffer holds no varint"));
    }
    Ok(buf.split_to(len as usize))
}

impl Message for RawKeyValue {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        buf.put_slice(&self.0);
    }

    // Fields are put together again as they come, so that what was read is what is held.
    fn merge_field(
        &mut self,
        tag: u32,
        wire: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        let mut out = BytesMut::from(self.0.as_ref());
        match wire {
            WireType::Varint => {
                let value = decode_varint(buf)?;
                encode_key(tag, wire, &mut out);
                encode_varint(value, &mut out);
            }
            WireType::LengthDelimited => {
                let mut value = Bytes::new();
                prost::encoding::bytes::merge(wire, &mut value, buf, ctx)?;
                out.reserve(value.len() + 2 + encoded_len_varint(value.len() as u64));
                encode_key(tag, wire, &mut out);
                encode_varint(value.len() as u64, &mut out);
                out.put_slice(&value);
            }
            WireType::ThirtyTwoBit | WireType::SixtyFourBit | WireType::StartGroup | WireType::EndGroup => {
                prost::encoding::skip_field(wire, tag, buf, ctx)?;
            }
        }
        self.0 = out.freeze();
        Ok(())
    }

    fn encoded_len(&self) -> usize {
        self.0.len()
    }

    fn clear(&mut self) {
        self.0 = Bytes::new();
    }
}
