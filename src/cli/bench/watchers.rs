//! Watches of one key, and the client that writes to it. A value starts with the time when its write was due, so
//! each event tells how long it took to arrive.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::time::Instant;
use tonic::{Status, transport::Channel};

use super::{clients::Shared, report::Tally};
use crate::wire::etcdserverpb::{
    self as pb, kv_client::KvClient, watch_client::WatchClient, watch_request::RequestUnion,
};

/// How long watches wait for events after the last write.
const LAST_EVENT: Duration = Duration::from_secs(10);

/// The key that is written and watched.
fn watched(shared: &Shared) -> Bytes {
    shared.keys.get(0)
}

/// Writes to the watched key; each value starts with when it was due. Returns how many writes went well.
pub async fn write_watched(shared: Arc<Shared>, channel: Channel) -> (u64, Tally) {
    let mut client = KvClient::new(channel);
    let mut tally = Tally::new();
    let mut written = 0;
    while let Some(due) = shared.ticket().await {
        let mut value = BytesMut::with_capacity(shared.value.len().max(8));
        value.put_u64(due.duration_since(shared.start).as_nanos() as u64);
        value.put_slice(shared.value.get(8..).unwrap_or_default());
        let request = pb::PutRequest { key: watched(&shared), value: value.freeze(), ..Default::default() };
        match client.put(request).await {
            Ok(_) => written += 1,
            Err(status) => tally.failed(status.message().to_string()),
        }
        shared.ended.fetch_add(1, Ordering::Relaxed);
    }
    (written, tally)
}

/// A watch that stands, before the first write.
pub type Standing = tonic::Streaming<pb::WatchResponse>;

/// Opens a watch and waits until it stands.
pub async fn open_watch(shared: &Shared, channel: Channel) -> Result<Standing, Status> {
    let create = pb::WatchCreateRequest { key: watched(shared), ..Default::default() };
    let request = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    // The stream lives as long as its requests, so they never end.
    let requests = tokio_stream::StreamExt::chain(tokio_stream::once(request), tokio_stream::pending());
    let mut client = WatchClient::new(channel).max_decoding_message_size(usize::MAX);
    let mut stream = client.watch(requests).await?.into_inner();
    match stream.message().await? {
        Some(response) if response.created && !response.canceled => Ok(stream),
        _ => Err(Status::unavailable("the watch was not created")),
    }
}

/// Counts events until `expect` of them came, which is known only once the writer is done.
pub async fn count_events(
    shared: Arc<Shared>,
    mut stream: Standing,
    mut expect: tokio::sync::watch::Receiver<Option<u64>>,
) -> Tally {
    let mut tally = Tally::new();
    let mut seen = 0;
    let mut deadline = None;
    loop {
        let wanted = *expect.borrow_and_update();
        if wanted.is_some_and(|wanted| seen >= wanted) {
            return tally;
        }
        if wanted.is_some() && deadline.is_none() {
            deadline = Some(Instant::now() + LAST_EVENT);
        }
        let late = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        let message = tokio::select! {
            biased;
            message = stream.message() => message,
            Ok(()) = expect.changed() => continue,
            () = late => {
                tally.failed("events did not arrive".into());
                return tally;
            }
        };
        match message {
            Ok(Some(response)) => {
                for event in &response.events {
                    seen += 1;
                    let kv = event.kv.as_ref().and_then(|raw| raw.decode_kv().ok()).unwrap_or_default();
                    let sent = (&kv.value[..]).try_get_u64().unwrap_or(0);
                    let due = shared.start + Duration::from_nanos(sent);
                    tally.done("event", due.elapsed());
                }
            }
            Ok(None) => tally.failed("the watch ended".into()),
            Err(status) => tally.failed(status.message().to_string()),
        }
        if !tally.errors.is_empty() {
            return tally;
        }
    }
}
