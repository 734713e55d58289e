//! Answers to ranges share a budget until their clients have taken them.

use std::time::Duration;

use bytes::{BufMut, BytesMut};
use kontiki::wire::etcdserverpb::{self as pb, kv_client::KvClient};
use prost::Message;
use tonic::{
    Code,
    body::Body,
    codegen::{Service, http},
};

use super::{LARGE, range_of, refused, serve};

/// A call whose answer's body is left where it is: the connection holds 64 KiB of it, the server the rest.
fn call(request: &pb::RangeRequest) -> http::Request<Body> {
    let mut message = BytesMut::new();
    message.put_u8(0);
    message.put_u32(request.encoded_len() as u32);
    request.encode(&mut message).expect("there is room");
    let body = http_body_util::Full::new(message.freeze());
    http::Request::post("/etcdserverpb.KV/Range")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Body::new(body))
        .expect("a request")
}

#[tokio::test]
async fn an_answer_that_nobody_takes_leaves_no_room_for_others() {
    let mut served = serve().await;
    let mut kv = KvClient::new(served.channel.clone());
    std::future::poll_fn(|cx| served.channel.poll_ready(cx)).await.expect("connected");
    let unread = served.channel.call(call(&range_of(LARGE))).await.expect("an answer");
    assert_eq!(unread.headers().get("grpc-status"), None, "it has a body");
    let too_many = (Code::Unknown, "etcdserver: too many requests".to_owned());
    assert_eq!(refused(kv.range(range_of("k")).await), too_many);
    drop(unread);
    // The server hears of it when it can, which nobody tells us of.
    let read = async {
        while kv.range(range_of("k")).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), read).await.expect("there is room again");
}
