//! A key-value that stays encoded: stored bytes are copied into responses, never decoded and encoded again.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::{
    DecodeError, Message,
    encoding::{DecodeContext, WireType, decode_varint, encode_key, encode_varint, encoded_len_varint},
};

use crate::{
    mvcc::{KvBytes, Malformed},
    types::KeyValue,
};

/// A `mvccpb.KeyValue` in its encoded form. As a message it encodes to just its bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct RawKeyValue(pub Bytes);

impl RawKeyValue {
    /// Encodes `kv` as etcd does: fields in order, zero ones left out.
    pub fn encode(kv: &KeyValue) -> Self {
        Self(KvBytes::encode(kv).0)
    }

    /// Decodes it; keys and values share the buffer.
    pub fn decode_kv(&self) -> Result<KeyValue, Malformed> {
        KvBytes(self.0.clone()).decode()
    }
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
