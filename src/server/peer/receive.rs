//! The streams that this member dials: what a peer has to say comes down them.

use std::{io, sync::Arc, time::Duration};

use axum::body::Body;
use http_body_util::BodyExt;
use hyper::{Method, StatusCode, body::Incoming, header::HeaderValue};
use tokio::time::Instant;

use super::{
    Shared, StreamKind,
    dial::{self, Connection},
    frames::{Frame, FrameReader},
    link::Peer,
};
use crate::runtime::PeerEvent;

/// A stream is dialled at most so often.
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);

/// A peer is asked for life so often, for the round trip's metric.
const PROBE_PERIOD: Duration = Duration::from_secs(4);

/// Why a stream ended.
enum End {
    /// The link broke, or was refused.
    Broken(io::Error),
    /// The peer says that this member was removed.
    Removed,
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

/// Dials one kind of stream to a peer, again and again, until it is aborted.
pub(super) async fn run(shared: Arc<Shared>, peer: Arc<Peer>, kind: StreamKind) {
    // The same trouble is told once, not ten times a second.
    let mut told = String::new();
    loop {
        let next = Instant::now() + RECONNECT_PAUSE;
        let url = peer.url();
        let end = stream(&shared, &peer, kind, &url, &mut told).await;
        peer.set_incoming(&shared, kind, false);
        match end {
            Ok(never) => match never {},
            Err(End::Removed) => {
                shared.deliver(PeerEvent::Removed).await;
                return;
            }
            Err(End::Broken(error)) => {
                peer.url_failed(&url);
                peer.counters.received_failures.inc();
                let text = error.to_string();
                if text != told {
                    tracing::warn!(peer = %peer.id, stream = kind.name(), url, error = text, "no stream");
                    told = text;
                }
            }
        }
        tokio::time::sleep_until(next).await;
    }
}

/// What never comes.
pub(super) enum Never {}

async fn stream(
    shared: &Shared,
    peer: &Peer,
    kind: StreamKind,
    url: &str,
    told: &mut String,
) -> Result<Never, End> {
    let local = &shared.local;
    let mut connection = Connection::open(url, local).await?;
    let mut headers = dial::own_headers(local);
    if let Ok(to) = HeaderValue::from_str(&peer.id.to_string()) {
        headers.insert(dial::TO, to);
    }
    let path = format!("/raft/stream/{}/{}", kind.name(), local.id);
    let request = dial::request(Method::GET, &path, headers, None, Body::empty());
    let response = connection.send(request, local.link_timeout).await?;
    match response.status() {
        StatusCode::OK => {}
        StatusCode::GONE => return Err(End::Removed),
        status => {
            let body = body_text(response.into_body(), local.link_timeout).await;
            return Err(io::Error::other(format!("{status}: {}", body.trim_end())).into());
        }
    }
    let cluster = dial::text(response.headers(), dial::CLUSTER);
    if cluster.is_some_and(|id| id != local.cluster.to_string()) {
        return Err(io::Error::other("the other end is of another cluster").into());
    }
    peer.set_kontiki(response.headers().contains_key(dial::KONTIKI));
    peer.set_incoming(shared, kind, true);
    told.clear();
    read(shared, peer, kind, response.into_body()).await
}

/// Reads frames until the stream breaks; a silent one is broken.
async fn read(shared: &Shared, peer: &Peer, kind: StreamKind, mut body: Incoming) -> Result<Never, End> {
    let mut reader = FrameReader::new(kind, peer.id, shared.local.id);
    loop {
        let chunk =
            tokio::time::timeout(shared.local.link_timeout, body.frame()).await.map_err(io::Error::from)?;
        let chunk = chunk.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        let chunk = chunk.map_err(io::Error::other)?;
        let Some(bytes) = chunk.data_ref() else { continue };
        peer.counters.received_bytes.inc_by(bytes.len() as u64);
        reader.feed(bytes);
        while let Some(frame) = reader.next_frame().map_err(io::Error::other)? {
            match frame {
                Frame::Message(message) if message.to == shared.local.id => {
                    shared.deliver(PeerEvent::Message(message)).await;
                }
                // A message for someone else went astray; raft sends again what matters.
                Frame::Message(_) | Frame::Heartbeat | Frame::Ignored => {}
            }
        }
    }
}

/// The start of an answer that is no success, for a log line.
pub(super) async fn body_text(mut body: Incoming, timeout: Duration) -> String {
    let mut text = Vec::new();
    while let Ok(Some(Ok(frame))) = tokio::time::timeout(timeout, body.frame()).await {
        text.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
        if text.len() > 4096 {
            break;
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// Measures the round trip to a peer, until it is aborted.
pub(super) async fn probe(shared: Arc<Shared>, peer: Arc<Peer>) {
    let mut period = tokio::time::interval(PROBE_PERIOD);
    let seconds = shared.metrics.network.peer_round_trip.with_label_values(&[&peer.id.to_string()]);
    let mut kept: Option<Connection> = None;
    loop {
        period.tick().await;
        let connection = match kept.take() {
            Some(connection) => Ok(connection),
            None => Connection::open(&peer.url(), &shared.local).await,
        };
        let Ok(mut connection) = connection else { continue };
        let request = dial::request(Method::GET, "/raft/probing", Default::default(), None, Body::empty());
        let started = Instant::now();
        let Ok(response) = connection.send(request, shared.local.link_timeout).await else { continue };
        seconds.observe(started.elapsed().as_secs_f64());
        if response.status() == StatusCode::OK {
            body_text(response.into_body(), shared.local.link_timeout).await;
            kept = Some(connection);
        }
    }
}
