//! Messages by POST, while the peer has no stream to us: its first votes, and answers to an unknown sender.

use std::{io, sync::Arc};

use hyper::{Method, StatusCode};
use prost::Message as _;
use tokio::{
    sync::{Mutex, mpsc},
    task::AbortHandle,
};

use super::{
    Shared,
    dial::{self, Connection},
    link::{Parcel, Peer},
    receive::body_text,
};
use crate::{runtime::PeerEvent, wire::raftpb};

/// POSTs at once to one peer.
const WORKERS: usize = 4;

/// Starts the workers, which end when they are aborted.
pub(super) fn start(
    shared: &Arc<Shared>,
    peer: &Arc<Peer>,
    parcels: mpsc::Receiver<Parcel>,
) -> Vec<AbortHandle> {
    let parcels = Arc::new(Mutex::new(parcels));
    let worker = || work(Arc::clone(shared), Arc::clone(peer), Arc::clone(&parcels));
    (0..WORKERS).map(|_| shared.runtime.spawn(worker()).abort_handle()).collect()
}

async fn work(shared: Arc<Shared>, peer: Arc<Peer>, parcels: Arc<Mutex<mpsc::Receiver<Parcel>>>) {
    let mut kept: Option<Connection> = None;
    loop {
        let Some(parcel) = parcels.lock().await.recv().await else { return };
        let body = raftpb::Message::from(parcel.message()).encode_to_vec();
        drop(parcel);
        let url = peer.url();
        let size = body.len();
        match post(&shared, &url, &mut kept, body).await {
            Ok(()) => peer.counters.sent_bytes.inc_by(size as u64),
            Err(error) => {
                tracing::debug!(peer = %peer.id, url, %error, "a POST failed");
                kept = None;
                peer.url_failed(&url);
                peer.counters.sent_failures.inc();
                shared.report(PeerEvent::Unreachable(peer.id));
            }
        }
    }
}

async fn post(shared: &Shared, url: &str, kept: &mut Option<Connection>, body: Vec<u8>) -> io::Result<()> {
    let mut connection = match kept.take() {
        Some(connection) => connection,
        None => Connection::open(url, &shared.local).await?,
    };
    let headers = dial::own_headers(&shared.local);
    let request = dial::request(Method::POST, "/raft", headers, Some("application/protobuf"), body.into());
    let response = connection.send(request, shared.local.link_timeout).await?;
    let status = response.status();
    let text = body_text(response.into_body(), shared.local.link_timeout).await;
    match status {
        StatusCode::NO_CONTENT | StatusCode::OK => {
            *kept = Some(connection);
            Ok(())
        }
        StatusCode::FORBIDDEN => {
            shared.deliver(PeerEvent::Removed).await;
            Err(io::Error::other("this member was removed"))
        }
        _ => Err(io::Error::other(format!("{status}: {}", text.trim_end()))),
    }
}
