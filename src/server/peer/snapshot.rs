//! Snapshots with their bodies: one POST each, a connection of its own, a file at both ends.
//!
//! The body is a length, the message, then the file to its end. The receiver writes a `tmp` file as the bytes
//! come, syncs it, gives it its name, syncs the directory, and only then reports it and answers 204. A body
//! that breaks off leaves nothing behind.
#![allow(clippy::disallowed_methods)] // production's transport: the simulator's has its own way to move a body

use std::{
    io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use axum::body::Body;
use bytes::{Buf, Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::{HeaderMap, Method, StatusCode};
use prost::Message as _;
use tokio::{
    fs::File,
    io::AsyncReadExt,
    sync::{mpsc, oneshot},
    time::Instant,
};

use super::{
    FRAME_BYTES_MAX, Shared,
    dial::{self, Connection},
    frames::put_framed,
    receive::body_text,
};
use crate::{
    raft::{Body as RaftBody, Message, Snapshot},
    runtime::PeerEvent,
    server::Paths,
    storage::{OsDisk, StagedFile},
    types::{NodeId, Term},
    wire::raftpb,
};

/// A body is read and written in pieces of so many bytes.
const CHUNK_BYTES: usize = 64 * 1024;
/// Pieces that wait for the disk.
const CHUNKS_MAX: usize = 8;
/// How long the receiver may take from the body's end to its answer: it syncs the whole file.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);

/// Sends a snapshot and its body; true once the receiver has said that it has it.
pub(super) async fn send(shared: &Shared, to: NodeId, message: Message, body: PathBuf) -> bool {
    let label = to.to_string();
    let network = &shared.metrics.network;
    let under_way = network.snapshot_sends.with_label_values(&[&label]);
    under_way.inc();
    let started = Instant::now();
    let result = try_send(shared, to, message, &body).await;
    under_way.dec();
    match result {
        Ok(()) => {
            network.snapshot_send_success.with_label_values(&[&label]).inc();
            let seconds = started.elapsed().as_secs_f64();
            network.snapshot_send_seconds.with_label_values(&[&label]).observe(seconds);
            tracing::info!(%to, seconds, "a snapshot was sent");
            true
        }
        Err(error) => {
            network.snapshot_send_failures.with_label_values(&[&label]).inc();
            tracing::warn!(%to, %error, "a snapshot was not sent");
            false
        }
    }
}

async fn try_send(shared: &Shared, to: NodeId, message: Message, body: &Path) -> io::Result<()> {
    let peer = shared.target(to).ok_or_else(|| io::Error::other("it is no peer"))?;
    if !peer.is_kontiki() {
        return Err(io::Error::other("the peer does not say that it takes Kontiki's snapshots"));
    }
    let mut head = BytesMut::new();
    put_framed(&raftpb::Message::from(&message), &mut head);
    let mut file = File::open(body).await?;
    let size = file.metadata().await?.len();
    let (pieces, mut queue) = mpsc::channel::<io::Result<Bytes>>(CHUNKS_MAX);
    let reading = async move {
        let mut rest = size;
        while rest > 0 {
            let mut piece = vec![0; CHUNK_BYTES.min(usize::try_from(rest).unwrap_or(CHUNK_BYTES))];
            let read = file.read_exact(&mut piece).await.map(|_| Bytes::from(piece));
            let failed = read.is_err();
            rest = rest.saturating_sub(CHUNK_BYTES as u64);
            if pieces.send(read).await.is_err() || failed {
                return;
            }
        }
    };
    let body = async_stream::stream! {
        yield Ok(head.freeze());
        while let Some(piece) = queue.recv().await {
            yield piece;
        }
    };
    let url = peer.url();
    let sending = async {
        let mut connection = Connection::open(&url, &shared.local).await?;
        let headers = dial::own_headers(&shared.local);
        let kind = Some("application/octet-stream");
        let request = dial::request(Method::POST, "/raft/snapshot", headers, kind, Body::from_stream(body));
        // While the body goes out, the connection's own limit on a write is what times it out.
        let limit = ANSWER_TIMEOUT + Duration::from_secs(size >> 20);
        let response = connection.send(request, limit).await?;
        let status = response.status();
        let text = body_text(response.into_body(), shared.local.link_timeout).await;
        if status == StatusCode::NO_CONTENT {
            return Ok(());
        }
        Err(io::Error::other(format!("{status}: {}", text.trim_end())))
    };
    let (result, ()) = tokio::join!(sending, reading);
    if result.is_err() {
        peer.url_failed(&url);
    } else {
        peer.counters.sent_bytes.inc_by(size);
    }
    result
}

/// Why a snapshot was not taken: the status and the text of the answer.
pub(super) type Refused = (StatusCode, String);

/// Takes a snapshot's POST. The caller has checked the cluster and counts.
pub(super) async fn receive(shared: &Shared, headers: &HeaderMap, mut body: Body) -> Result<(), Refused> {
    let kontiki = headers.contains_key(dial::KONTIKI);
    let failed = |what: String| (StatusCode::BAD_REQUEST, what);
    let mut buffer = BytesMut::new();
    let message = loop {
        if let Some(message) = take_message(&mut buffer).map_err(failed)? {
            break message;
        }
        let more = next_piece(&mut body, shared.local.link_timeout).await;
        let more = more.map_err(|error| failed(decode_text(&error)))?;
        buffer.extend_from_slice(&more.ok_or_else(|| failed(decode_text("unexpected EOF")))?);
    };
    let Message { from, to, term, body: RaftBody::Snapshot(snapshot) } = message else {
        return Err(failed("wrong raft message type".into()));
    };
    if to != shared.local.id {
        return Err((StatusCode::PRECONDITION_FAILED, "to field mismatch".into()));
    }
    if shared.is_removed(from) {
        return Err((StatusCode::FORBIDDEN, "removed member".into()));
    }
    if !kontiki && !shared.local.takes_etcd_snapshots {
        return Err((StatusCode::INTERNAL_SERVER_ERROR, "etcd's snapshot bodies are not taken".into()));
    }
    let _room = shared
        .receives
        .try_acquire()
        .map_err(|_| (StatusCode::INTERNAL_SERVER_ERROR, "other snapshots are being received".to_owned()))?;
    let index = snapshot.meta.last.index;
    let name = if kontiki { Paths::received_name(index) } else { format!("{:016x}.snap.db", index.0) };
    let label = from.to_string();
    let network = &shared.metrics.network;
    let under_way = network.snapshot_receives.with_label_values(&[&label]);
    under_way.inc();
    let started = Instant::now();
    let kept = keep(shared, &name, buffer.freeze(), body).await;
    under_way.dec();
    let path = match kept {
        Ok(path) => path,
        Err(error) => {
            network.snapshot_receive_failures.with_label_values(&[&label]).inc();
            tracing::warn!(%from, %error, "a snapshot's body was not received");
            let text = format!("failed to save KV snapshot ({error})");
            return Err((StatusCode::INTERNAL_SERVER_ERROR, text));
        }
    };
    network.snapshot_receive_success.with_label_values(&[&label]).inc();
    network.snapshot_receive_seconds.with_label_values(&[&label]).observe(started.elapsed().as_secs_f64());
    accept(shared, from, term, snapshot, path).await
}

async fn accept(
    shared: &Shared,
    from: NodeId,
    term: Term,
    snapshot: Snapshot,
    body: PathBuf,
) -> Result<(), Refused> {
    let event = PeerEvent::SnapshotReceived { from, term, snapshot, body };
    let stopping = |_| (StatusCode::INTERNAL_SERVER_ERROR, "error processing raft message".to_owned());
    shared.events.send(event).await.map_err(stopping)
}

fn decode_text(error: &str) -> String {
    format!("failed to decode raft message ({error})")
}

/// The message in front, once it is whole; what follows it stays.
fn take_message(buffer: &mut BytesMut) -> Result<Option<Message>, String> {
    let Some(len) = buffer.get(..8).and_then(|len| len.try_into().ok()).map(u64::from_be_bytes) else {
        return Ok(None);
    };
    let len = usize::try_from(len).ok().filter(|len| *len <= FRAME_BYTES_MAX);
    let len = len.ok_or_else(|| decode_text("the message is too long"))?;
    if buffer.len() < 8 + len {
        return Ok(None);
    }
    buffer.advance(8);
    let wire = raftpb::Message::decode(buffer.split_to(len).freeze());
    let wire = wire.map_err(|error| decode_text(&error.to_string()))?;
    Message::try_from(wire).map(Some).map_err(|error| decode_text(&error.to_string()))
}

/// The next bytes; None at a body's proper end. One that breaks off or stands still is an error.
async fn next_piece(body: &mut Body, timeout: Duration) -> Result<Option<Bytes>, String> {
    loop {
        let frame = tokio::time::timeout(timeout, body.frame()).await;
        match frame.map_err(|_| "the sender stands still".to_owned())? {
            None => return Ok(None),
            Some(Err(error)) => return Err(error.to_string()),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

/// Writes the body to a file of the snapshot directory, durably.
async fn keep(shared: &Shared, name: &str, first: Bytes, mut body: Body) -> Result<PathBuf, String> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let dir = shared.local.snapshot_dir.clone();
    let name = name.to_owned();
    let (pieces, queue) = mpsc::channel::<Bytes>(CHUNKS_MAX);
    let (whole, is_whole) = oneshot::channel::<()>();
    let fsync_seconds = shared.metrics.disk.snap_db_fsync.clone();
    let started = Instant::now();
    let writing = tokio::task::spawn_blocking(move || {
        let file = StagedFile::create(OsDisk, &dir, &name, number)?;
        write_file(file, queue, is_whole, |seconds| fsync_seconds.observe(seconds))
    });
    let reading = async {
        let mut piece = Some(first);
        while let Some(bytes) = piece {
            if pieces.send(bytes).await.is_err() {
                break;
            }
            piece = next_piece(&mut body, shared.local.link_timeout).await?;
        }
        drop(pieces);
        // Only now may the file get its name.
        let _ = whole.send(());
        Ok::<_, String>(())
    };
    let read = reading.await;
    let written = writing.await.map_err(|error| error.to_string())?;
    read?;
    let target = written.map_err(|error| error.to_string())?;
    shared.metrics.disk.snap_db_save.observe(started.elapsed().as_secs_f64());
    Ok(target)
}

/// Blocks: for a thread that may.
fn write_file(
    mut file: StagedFile<OsDisk>,
    mut queue: mpsc::Receiver<Bytes>,
    whole: oneshot::Receiver<()>,
    synced: impl Fn(f64),
) -> io::Result<PathBuf> {
    while let Some(piece) = queue.blocking_recv() {
        file.write(&piece)?;
    }
    if whole.blocking_recv().is_err() {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
    }
    let started = Instant::now();
    file.sync()?;
    synced(started.elapsed().as_secs_f64());
    file.keep()
}
