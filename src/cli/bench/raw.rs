//! Ranges whose answers are counted, not decoded: the load generator only needs to know that the keys came.

use bytes::{Buf, Bytes};
use prost::{
    DecodeError, Message,
    encoding::{DecodeContext, decode_key, skip_field},
};
use tonic::{
    Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::http::uri::PathAndQuery,
    transport::Channel,
};

use crate::wire::etcdserverpb as pb;

/// Sends range requests; an answer is its number of key-values.
#[derive(Clone, Copy, Debug, Default)]
struct Skip;

impl Codec for Skip {
    type Encode = pb::RangeRequest;
    type Decode = usize;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Skip {
    type Item = pb::RangeRequest;
    type Error = Status;

    fn encode(&mut self, item: pb::RangeRequest, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        item.encode(out).map_err(|error| Status::internal(error.to_string()))
    }
}

impl Decoder for Skip {
    type Item = usize;
    type Error = Status;

    fn decode(&mut self, input: &mut DecodeBuf<'_>) -> Result<Option<usize>, Status> {
        let answer = input.copy_to_bytes(input.remaining());
        count(answer).map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}

/// The key-values of an encoded answer.
fn count(mut answer: Bytes) -> Result<usize, DecodeError> {
    /// Number of `RangeResponse.kvs`.
    const KVS: u32 = 2;
    let mut count = 0;
    while answer.has_remaining() {
        let (tag, wire) = decode_key(&mut answer)?;
        skip_field(wire, tag, &mut answer, DecodeContext::default())?;
        count += usize::from(tag == KVS);
    }
    Ok(count)
}

/// Reads a range; returns how many key-values came.
pub async fn range(channel: Channel, request: pb::RangeRequest) -> Result<usize, Status> {
    let mut client = Grpc::new(channel).max_decoding_message_size(usize::MAX);
    client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let path = PathAndQuery::from_static("/etcdserverpb.KV/Range");
    client.unary(Request::new(request), path, Skip).await.map(tonic::Response::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::RawKeyValue;

    #[test]
    fn answers_are_counted() {
        let kv = RawKeyValue(Bytes::from_static(b"\x0a\x01k\x2a\x01v"));
        let header = Some(pb::ResponseHeader { cluster_id: 1, member_id: 2, revision: 3, raft_term: 4 });
        let answer = pb::RangeResponse { header, kvs: vec![kv; 3], more: true, count: 9 };
        assert_eq!(count(answer.encode_to_vec().into()), Ok(3));
        assert_eq!(count(Bytes::new()), Ok(0));
        assert!(count(Bytes::from_static(b"\x12\x05k")).is_err());
    }
}
