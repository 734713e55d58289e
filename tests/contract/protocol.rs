//! What gRPC itself answers: unknown services and methods, bodies that are no message, health, metadata.

use bytes::{Buf, BufMut, Bytes};
use kontiki::wire::etcdserverpb::{RangeRequest, RangeResponse, kv_client::KvClient};
use prost::Message;
use tonic::{
    Request, Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::http::uri::PathAndQuery,
    metadata::MetadataValue,
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::server::{Pair, Server};

/// Bytes as they are.
#[derive(Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let len = from.remaining();
        Ok(Some(from.copy_to_bytes(len)))
    }
}

async fn raw(server: &Server, path: &'static str, body: &'static [u8]) -> String {
    let mut grpc = tonic::client::Grpc::new(server.channel.clone());
    grpc.ready().await.expect("the server is there");
    let request = Request::new(Bytes::from_static(body));
    match grpc.unary(request, PathAndQuery::from_static(path), Raw).await {
        Ok(answer) => match RangeResponse::decode(answer.into_inner()) {
            Ok(found) => format!("OK {:?} {}", found.header.map(|header| header.revision), found.count),
            Err(error) => format!("not a range: {error}"),
        },
        Err(status) => format!("ERR {:?} {:?}", status.code(), status.message()),
    }
}

async fn health(server: &Server, service: &str) -> String {
    let mut client = HealthClient::new(server.channel.clone());
    let request = HealthCheckRequest { service: service.to_owned() };
    let check = match client.check(request.clone()).await {
        Ok(answer) => format!("{:?}", answer.get_ref().status()),
        Err(status) => format!("ERR {:?} {:?}", status.code(), status.message()),
    };
    let watch = match client.watch(request).await {
        Ok(stream) => format!("{:?}", stream.into_inner().message().await.map(|m| m.map(|m| m.status))),
        Err(status) => format!("ERR {:?} {:?}", status.code(), status.message()),
    };
    format!("check {check}; watch {watch}")
}

async fn with_metadata(server: &Server, key: &'static str, value: &'static str) -> String {
    let mut request = Request::new(RangeRequest { key: "a".into(), ..Default::default() });
    request.metadata_mut().insert(key, MetadataValue::from_static(value));
    match KvClient::new(server.channel.clone()).range(request).await {
        Ok(answer) => format!("OK {}", answer.get_ref().count),
        Err(status) => format!("ERR {:?} {:?}", status.code(), status.message()),
    }
}

#[tokio::test]
#[ignore = "needs a real etcd to compare with: set ETCD_BIN"]
async fn protocol() {
    let pair = Pair::start(11).await;
    for path in [
        "/etcdserverpb.KV/Nope",
        "/nosuch.Svc/M",
        "/etcdserverpb.kv/Range",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    ] {
        assert_eq!(raw(&pair.kontiki, path, b"").await, raw(&pair.etcd, path, b"").await, "{path}");
    }
    // An empty body is a request without a key; an unknown field is skipped.
    for body in [&b""[..], &b"\x0a\x01a"[..], &b"\x0a\x01a\xf8\x07\x01"[..]] {
        let path = "/etcdserverpb.KV/Range";
        assert_eq!(raw(&pair.kontiki, path, body).await, raw(&pair.etcd, path, body).await, "{body:?}");
    }
    // The library's own words are behind the ones that are compared.
    let garbage = raw(&pair.kontiki, "/etcdserverpb.KV/Range", b"\x0a\x7f").await;
    assert!(garbage.starts_with("ERR Internal \"grpc: error unmarshalling request: "), "{garbage}");
    let garbage = raw(&pair.etcd, "/etcdserverpb.KV/Range", b"\x0a\x7f").await;
    assert!(garbage.starts_with("ERR Internal \"grpc: error unmarshalling request: "), "{garbage}");
    for service in ["", "etcdserverpb.KV"] {
        assert_eq!(health(&pair.kontiki, service).await, health(&pair.etcd, service).await, "{service}");
    }
    for (key, value) in [("hasleader", "true"), ("hasleader", "no"), ("client-api-version", "3.5")] {
        let (ours, etcd) =
            (with_metadata(&pair.kontiki, key, value).await, with_metadata(&pair.etcd, key, value).await);
        assert_eq!(ours, etcd, "{key}: {value}");
    }
    if !pair.self_check {
        // 3.5.1 refuses a token that it does not know even while authorization is off; 3.5.10 does not.
        assert_eq!(with_metadata(&pair.kontiki, "token", "no.token").await, "OK 0");
    }
}
