//! What comes from peers: messages, frames of streams, members' JSON, the peer port.

use std::{cell::RefCell, sync::Arc, time::Duration};

use arbitrary::Result;
use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, Method, Request, StatusCode},
};
use bytes::{Bytes, BytesMut};
use kontiki::{
    error::Refusal,
    membership::{Change, ChangeKind, ChangeStep, Member, Roster},
    raft::Message,
    server::{
        LeaseInfo,
        http::Versions,
        metrics::Metrics,
        peer::{
            Frame, FrameReader, FrameWriter, HashKv, HttpPeers, Local, PeerService, StreamKind, peer_router,
        },
    },
    table::Batch,
    types::{ClusterId, Instant, LeaseId, NodeId, Revision},
    wire::{
        raft::{NUMBER_MAX, decode_entry, decode_message, encode_change, encode_entry, encode_message},
        raftpb,
    },
};
use prost::Message as _;
use tokio::sync::mpsc;
use tower::ServiceExt as _;

use super::arb::{self, Source, list, one, upto};

const FROM: NodeId = NodeId(0x11);
const TO: NodeId = NodeId(0x22);
const CLUSTER: ClusterId = ClusterId(0xc1);

/// Any bytes as a message or an entry: what is read is written and read again as the same.
pub fn raft_wire(u: &mut Source<'_>) -> Result<()> {
    if u.arbitrary()? {
        let message = arb::message(u, FROM, TO, NUMBER_MAX)?;
        assert_eq!(decode_message(&encode_message(&message)[..]), Ok(message));
        return Ok(());
    }
    let bytes = u.bytes(u.len())?;
    if let Ok(message) = decode_message(bytes) {
        assert_eq!(decode_message(&encode_message(&message)[..]), Ok(message));
    }
    if let Ok(entry) = decode_entry(bytes) {
        assert_eq!(decode_entry(&encode_entry(&entry)[..]), Ok(entry));
    }
    Ok(())
}

/// All that a reader makes of bytes that come in pieces, to the first error.
fn frames(kind: StreamKind, bytes: &[u8], piece: usize) -> (Vec<Frame>, bool) {
    let mut reader = FrameReader::new(kind, FROM, TO);
    let mut frames = Vec::new();
    for piece in bytes.chunks(piece.max(1)) {
        reader.feed(piece);
        loop {
            match reader.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(_) => return (frames, true),
            }
        }
    }
    (frames, false)
}

/// A stream of any bytes: the pieces that it comes in make no difference.
pub fn frames_bytes(u: &mut Source<'_>) -> Result<()> {
    let kind = one(u, &StreamKind::ALL)?;
    let piece = 1 + upto(u, 20)? as usize;
    let mut bytes = Vec::new();
    while !u.is_empty() {
        match upto(u, 5)? {
            0 => bytes.push(upto(u, 3)? as u8),
            1 => bytes.extend(upto(u, 40)?.to_be_bytes()),
            2 => bytes.extend(arb::bytes(u, 30)?),
            3 => bytes.extend(u.arbitrary::<u64>()?.to_be_bytes()),
            _ => {
                let message = encode_message(&arb::message(u, FROM, TO, NUMBER_MAX)?);
                if kind == StreamKind::Append {
                    bytes.push(2);
                }
                bytes.extend((message.len() as u64).to_be_bytes());
                bytes.extend(message);
            }
        }
    }
    assert_eq!(frames(kind, &bytes, piece), frames(kind, &bytes, usize::MAX));
    Ok(())
}

/// What one end writes, the other reads.
pub fn frames_round(u: &mut Source<'_>) -> Result<()> {
    let kind = one(u, &StreamKind::ALL)?;
    let piece = 1 + upto(u, 60)? as usize;
    let (mut writer, mut out, mut sent) = (FrameWriter::new(kind), BytesMut::new(), Vec::<Frame>::new());
    while !u.is_empty() && sent.len() < 20 {
        let mut message = arb::message(u, FROM, TO, NUMBER_MAX)?;
        match upto(u, 9)? {
            0 => {
                writer.heartbeat(&mut out);
                sent.push(Frame::Heartbeat);
                continue;
            }
            // One that goes on where the last one ended, so that its head is left out.
            1..=6 => {
                let last = sent.iter().rev().find_map(|frame| match frame {
                    Frame::Message(Message {
                        term,
                        body: kontiki::raft::Body::Append { prev, entries, .. },
                        ..
                    }) => Some((*term, prev.index.0 + entries.len() as u64)),
                    _ => None,
                });
                if let Some((term, index)) = last.filter(|(term, index)| term.0.max(*index) < NUMBER_MAX - 40)
                {
                    let prev = kontiki::raft::LogId { term, index: kontiki::types::Index(index) };
                    let entries = arb::entries(u, prev)?;
                    let commit = kontiki::types::Index(upto(u, 9)?);
                    let body = kontiki::raft::Body::Append { prev, entries, commit };
                    message = Message { from: FROM, to: TO, term, body };
                }
            }
            _ => {}
        }
        writer.message(&message, &mut out);
        sent.push(Frame::Message(message));
    }
    assert_eq!(frames(kind, &out, piece), (sent, false));
    Ok(())
}

/// Members as JSON: etcd's snapshots of its v2 store, and what changes carry.
pub fn members_json(u: &mut Source<'_>) -> Result<()> {
    let mut roster = Roster::default();
    for _ in 0..upto(u, 5)? {
        let id = NodeId(upto(u, 5)?);
        let member = Member {
            id,
            name: arb::text(u, 6)?,
            peer_urls: list(u, 2, |u| arb::text(u, 6))?,
            client_urls: list(u, 2, |u| arb::text(u, 6))?,
            learner: u.arbitrary()?,
        };
        let mut batch = Batch::default();
        let (taken, raft) = roster.apply_change(&member.to_add(1), 2, &mut batch);
        if taken.is_ok() {
            assert_eq!(raft, member.to_add(1), "a change that is taken goes to raft as it is");
            roster.set_attributes(id, &member.name, &member.client_urls, &mut batch);
            assert_eq!(roster.member(id).filter(|_| id.0 != 0), Some(&member).filter(|_| id.0 != 0));
        } else {
            assert!(batch.is_empty(), "a change that is refused writes nothing");
        }
        if upto(u, 5)? == 5 {
            let removal = kontiki::membership::removal(2, id);
            let _ = roster.apply_change(&removal, 2, &mut batch);
        }
    }
    assert_eq!(Roster::from_snapshot(&roster.to_snapshot()), Ok(roster.clone()));

    let mut bytes = roster.to_snapshot();
    let kinds = [ChangeKind::AddVoter, ChangeKind::AddLearner, ChangeKind::Remove, ChangeKind::Update];
    let step = ChangeStep { kind: one(u, &kinds)?, node: NodeId(upto(u, 5)?) };
    if u.arbitrary()? {
        for _ in 0..upto(u, 4)? {
            let at = upto(u, bytes.len() as u64 - 1)? as usize;
            bytes[at] = one(u, b"{}[]:,\"\\u0eE-nt/\x80")?;
        }
    } else {
        bytes = u.bytes(u.len())?.to_vec();
    }
    if let Ok(roster) = Roster::from_snapshot(&bytes) {
        assert_eq!(Roster::from_snapshot(&roster.to_snapshot()), Ok(roster));
    }
    let change = Change::Single { id: 3, step, context: bytes.into() };
    let _ = roster.apply_change(&change, 1, &mut Batch::default());
    let (kind, data) = encode_change(&change);
    assert_eq!(kontiki::wire::raft::decode_change(kind, data), Ok(change));
    Ok(())
}

/// What members ask each other, answered from constants.
struct Answers;

#[tonic::async_trait]
impl PeerService for Answers {
    fn versions(&self) -> Versions {
        Versions { server: "3.5.1".into(), cluster: None, storage: None }
    }

    fn members(&self) -> Vec<Member> {
        vec![Member { id: FROM, name: "\u{2028}<&>".into(), ..Member::default() }]
    }

    async fn promote(&self, id: NodeId) -> std::result::Result<Vec<Member>, Refusal> {
        if id.0 == 1 { Ok(self.members()) } else { Err(Refusal::MemberNotFound) }
    }

    async fn renew_leases(&self, ids: Vec<LeaseId>) -> std::result::Result<Vec<Option<i64>>, Refusal> {
        Ok(ids.into_iter().map(|id| (id.0 == 1).then_some(77)).collect())
    }

    async fn lease_info(&self, id: LeaseId, _: bool) -> std::result::Result<LeaseInfo, Refusal> {
        Ok(LeaseInfo { ttl: id.0, granted: 10, keys: vec!["a".into()] })
    }

    async fn hash_kv(&self, revision: Revision) -> std::result::Result<HashKv, Refusal> {
        Ok(HashKv { hash: 12, revision, compact_revision: revision })
    }

    async fn downgrade_enabled(&self) -> std::result::Result<bool, Refusal> {
        Ok(false)
    }
}

fn local() -> Local {
    Local {
        id: TO,
        cluster: CLUSTER,
        peer_urls: vec!["http://127.0.0.1:1".into()],
        server_version: "3.5.1".into(),
        dial_timeout: Duration::from_secs(1),
        link_timeout: Duration::from_secs(1),
        // It is not there: what comes is read, and refused when it is to be kept.
        snapshot_dir: "/nonexistent/kontiki".into(),
        takes_etcd_snapshots: true,
        now: Arc::new(|| Instant(1)),
    }
}

fn request(u: &mut Source<'_>) -> Result<Option<Request<Body>>> {
    const PATHS: &[&str] = &[
        "/raft",
        "/raft/probing",
        "/raft/snapshot",
        "/raft/stream/message/11",
        "/raft/stream/msgapp/11",
        "/raft/stream/",
        "/members",
        "/members/promote/",
        "/members/hashkv",
        "/downgrade/enabled",
        "/leases",
        "/leases/internal",
        "/version",
    ];
    let mut path = one(u, PATHS)?.to_owned();
    let methods = [Method::GET, Method::POST, Method::PUT];
    let method = one(u, &methods)?;
    if upto(u, 3)? == 3 {
        path.extend(arb::text(u, 5)?.chars().filter(char::is_ascii_alphanumeric));
    }
    let mut request = Request::builder().method(method).uri(path);
    let names = [
        "x-server-from",
        "x-server-version",
        "x-min-cluster-version",
        "x-etcd-cluster-id",
        "x-peerurls",
        "x-raft-to",
        "x-kontiki-snapshot",
    ];
    let sound = ["11", "3.5.1", "3.0.0", "c1", "http://127.0.0.1:1", "22", "1"];
    for (name, sound) in names.into_iter().zip(sound) {
        let value = match upto(u, 9)? {
            0 => continue,
            1 => arb::text(u, 6)?.into_bytes(),
            2 => arb::bytes(u, 12)?.to_vec(),
            _ => sound.as_bytes().to_vec(),
        };
        if let Ok(value) = HeaderValue::from_bytes(&value) {
            request = request.header(HeaderName::from_static(name), value);
        }
    }
    let body: Bytes = match upto(u, 3)? {
        0 => encode_message(&arb::message(u, FROM, TO, NUMBER_MAX)?).into(),
        1 => {
            let message = raftpb::Message::from(&arb::message(u, FROM, TO, NUMBER_MAX)?).encode_to_vec();
            let len = if upto(u, 9)? == 9 { u.arbitrary()? } else { message.len() as u64 };
            [&len.to_be_bytes()[..], &message, &arb::bytes(u, 30)?].concat().into()
        }
        _ => Bytes::copy_from_slice(u.bytes(u.len())?),
    };
    Ok(request.body(Body::from(body)).ok())
}

thread_local! {
    static RUNTIME: RefCell<Option<(tokio::runtime::Runtime, Arc<Metrics>)>> = const { RefCell::new(None) };
}

/// Any request to the peer port is answered, never with "internal error" but where the disk is at fault.
pub fn peer_port(u: &mut Source<'_>) -> Result<()> {
    let Some(request) = request(u)? else { return Ok(()) };
    let snapshot = request.uri().path() == "/raft/snapshot";
    RUNTIME.with_borrow_mut(|kept| {
        let (runtime, metrics) = kept.get_or_insert_with(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            (runtime.expect("a runtime of one thread"), Arc::new(Metrics::new(TO, "3.5.1", false)))
        });
        let status = runtime.block_on(async {
            let (sender, _events) = mpsc::channel(16);
            let peers = HttpPeers::new(local(), sender, metrics.clone());
            peers.set_removed([NodeId(0x99)]);
            let answered = peer_router(&peers, Arc::new(Answers)).oneshot(request).await;
            let response = answered.unwrap_or_else(|never| match never {});
            let status = response.status();
            axum::body::to_bytes(response.into_body(), 1 << 20).await.expect("an answer has an end");
            peers.stop();
            status
        });
        assert!(snapshot || status != StatusCode::INTERNAL_SERVER_ERROR, "{status}");
    });
    Ok(())
}
