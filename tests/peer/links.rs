//! Links between members: what goes in at one end comes out at the other, and what happens when it can't.

use std::path::Path;

use kontiki::{
    membership::{Change, ChangeKind, ChangeStep},
    raft::{Body, ConfState, Entry, LogId, Message, Payload, Snapshot, SnapshotMeta, StateMark},
    runtime::{PeerEvent, PeerNet},
    types::{ClusterId, Index, NodeId, Term},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{CLUSTER, Node, PATIENCE, eventually, listen};

fn message(from: u64, to: u64, term: u64, body: Body) -> Message {
    Message { from: NodeId(from), to: NodeId(to), term: Term(term), body }
}

fn append(from: u64, to: u64, prev: u64, sizes: &[usize]) -> Message {
    let entries = sizes.iter().zip(prev + 1..).map(|(size, index)| Entry {
        term: Term(3),
        index: Index(index),
        payload: if *size == 0 { Payload::Empty } else { Payload::Command(vec![b'x'; *size].into()) },
    });
    let prev = LogId { term: Term(3), index: Index(prev) };
    message(from, to, 3, Body::Append { prev, entries: entries.collect(), commit: Index(2) })
}

/// One of each kind, but for snapshots.
fn all_kinds(from: u64, to: u64) -> Vec<Message> {
    let at = LogId { term: Term(2), index: Index(9) };
    let state = Some(StateMark { index: Index(8), hash: 0xfeed });
    let step = ChangeStep { kind: ChangeKind::AddLearner, node: NodeId(77) };
    let change = Payload::Change(Change::Single { id: 5, step, context: "{}".into() });
    let mut list = vec![
        message(from, to, 0, Body::Propose { payloads: vec![Payload::Command("put".into()), change] }),
        message(from, to, 3, Body::AppendAccepted { matched: Index(9) }),
        message(from, to, 3, Body::AppendRejected { prev: Index(12), hint: at }),
        message(from, to, 3, Body::TimeoutNow),
        message(from, to, 3, Body::Heartbeat { commit: Index(4), context: "12345678".into(), state }),
        message(from, to, 3, Body::HeartbeatReply { context: "12345678".into(), state: None }),
        message(from, to, 0, Body::ReadIndex { context: "r".into() }),
        message(from, to, 3, Body::ReadIndexReply { index: Index(4), context: "r".into() }),
        message(from, to, 3, Body::TransferLeader { target: NodeId(from) }),
    ];
    for pre in [false, true] {
        list.push(message(from, to, 4, Body::Vote { pre, last: at, transfer: !pre }));
        list.push(message(from, to, 4, Body::VoteReply { pre, granted: pre }));
    }
    list
}

async fn linked(ids: &[u64], dir: &Path) -> Vec<Node> {
    let mut nodes = Vec::new();
    for id in ids {
        nodes.push(Node::start(*id, CLUSTER, 0, dir).await);
    }
    for (id, node) in ids.iter().zip(&nodes) {
        for (other, peer) in ids.iter().zip(&nodes).filter(|(other, _)| *other != id) {
            node.peers.add_peer(NodeId(*other), vec![peer.url()]);
        }
    }
    for (id, node) in ids.iter().zip(&nodes) {
        for other in ids.iter().filter(|other| *other != id) {
            node.connected(*other).await;
        }
    }
    nodes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_kinds_of_messages_arrive_among_three() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut nodes = linked(&[1, 2, 3], dir.path()).await;
    for (from, to) in [(1, 2), (2, 1), (3, 1), (1, 3), (2, 3)] {
        let sent = all_kinds(from, to);
        let appends =
            vec![append(from, to, 10, &[0, 5]), append(from, to, 12, &[]), append(from, to, 12, &[70_000])];
        let node = &nodes[from as usize - 1];
        node.peers.send(sent.iter().chain(&appends).cloned().collect());
        // Each stream keeps its order; between the streams there is none.
        let (mut got, mut got_appends) = (Vec::new(), Vec::new());
        for _ in 0..sent.len() + appends.len() {
            let message = nodes[to as usize - 1].message().await;
            let is_append = matches!(message.body, Body::Append { .. });
            if is_append { &mut got_appends } else { &mut got }.push(message);
        }
        assert_eq!(got, sent);
        assert_eq!(got_appends, appends);
    }
    for node in nodes {
        node.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_arrive_before_any_stream_is_up() {
    let dir = tempfile::tempdir().expect("a directory");
    let one = Node::start(1, CLUSTER, 0, dir.path()).await;
    let mut two = Node::start(2, CLUSTER, 0, dir.path()).await;
    // Two does not know One: One's streams get 404, its POST is taken, and the answer goes to the URL it shows.
    one.peers.add_peer(NodeId(2), vec![two.url()]);
    let vote = Body::Vote { pre: true, last: LogId::default(), transfer: false };
    one.peers.send(vec![message(1, 2, 1, vote.clone())]);
    assert_eq!(two.message().await, message(1, 2, 1, vote));
    let mut one = one;
    let reply = Body::VoteReply { pre: true, granted: true };
    two.peers.send(vec![message(2, 1, 1, reply.clone())]);
    assert_eq!(one.message().await, message(2, 1, 1, reply));
    assert_eq!(one.peers.active_since(NodeId(2)), None, "no stream is up");
    one.end().await;
    two.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_come_back_after_a_restart_and_to_new_urls() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut nodes = linked(&[1, 2], dir.path()).await;
    let (two, mut one) = (nodes.pop().expect("two"), nodes.pop().expect("one"));
    let (port, old) = (two.address.port(), one.url());
    let since = one.peers.active_since(NodeId(2)).expect("they are connected");
    two.end().await;
    eventually("disconnected", || one.peers.active_since(NodeId(2)).is_none()).await;
    let report = tokio::time::timeout(PATIENCE, one.events.recv()).await.expect("a report comes");
    assert_eq!(report, Some(PeerEvent::Unreachable(NodeId(2))), "the streams broke");
    one.peers.send(vec![message(1, 2, 3, Body::TimeoutNow)]);
    let failed = "etcd_network_peer_sent_failures_total{To=\"2\"} 1";
    let page = || String::from_utf8(one.metrics.render()).expect("text");
    eventually("given up", || page().lines().any(|line| line == failed)).await;

    let mut two = Node::start(2, CLUSTER, port, dir.path()).await;
    // The first URL leads nowhere: the links move on to the next.
    let dead = listen(0).await.local_addr().expect("it is bound");
    two.peers.add_peer(NodeId(1), vec![format!("http://{dead}"), old]);
    one.connected(2).await;
    two.connected(1).await;
    assert!(one.peers.active_since(NodeId(2)) > Some(since));
    let beat = message(2, 1, 3, Body::HeartbeatReply { context: Default::default(), state: None });
    two.peers.send(vec![beat.clone()]);
    assert_eq!(one.message().await, beat);
    one.peers.send(vec![append(1, 2, 4, &[1])]);
    assert_eq!(two.message().await, append(1, 2, 4, &[1]));

    // Moved to another port, the peer is found where its URLs say.
    two.end().await;
    let mut two = Node::start(2, CLUSTER, 0, dir.path()).await;
    two.peers.add_peer(NodeId(1), vec![one.url()]);
    one.peers.add_peer(NodeId(2), vec![two.url()]);
    one.connected(2).await;
    two.connected(1).await;
    one.peers.send(vec![append(1, 2, 4, &[1])]);
    assert_eq!(two.message().await, append(1, 2, 4, &[1]));
    one.end().await;
    two.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_drops_and_says_so() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut one = Node::start(1, CLUSTER, 0, dir.path()).await;
    // It accepts and never answers.
    let silent = listen(0).await;
    one.peers.add_peer(NodeId(2), vec![format!("http://{}", silent.local_addr().expect("it is bound"))]);
    one.peers.send((0..200).map(|_| message(1, 2, 3, Body::TimeoutNow)).collect());
    assert_eq!(one.events.try_recv(), Ok(PeerEvent::Unreachable(NodeId(2))), "told at once");
    let page = String::from_utf8(one.metrics.render()).expect("text");
    // 64 wait and up to 4 are on their way.
    let dropped =
        page.lines().find_map(|line| line.strip_prefix("etcd_network_peer_sent_failures_total{To=\"2\"} "));
    let dropped: u64 = dropped.expect("it is counted").parse().expect("a number");
    assert!((132..=136).contains(&dropped), "{dropped}");
    one.end().await;
}

/// Dials a stream by hand, as member 2, and reads its head.
async fn dial(node: &Node, kind: &str) -> TcpStream {
    let mut stream = TcpStream::connect(node.address).await.expect("it listens");
    let request = format!(
        "GET /raft/stream/{kind}/2 HTTP/1.1\r\nHost: x\r\nX-Server-From: 2\r\nX-Server-Version: 3.5.1\r\n\
         X-Min-Cluster-Version: 3.0.0\r\nX-Etcd-Cluster-ID: {CLUSTER}\r\nX-Raft-To: 1\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.expect("it reads");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("a head comes at once"));
    }
    assert!(head.starts_with(b"HTTP/1.1 200 OK\r\n"), "{}", String::from_utf8_lossy(&head));
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_heartbeat_does_not_wait_behind_entries_that_nobody_reads() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut one = Node::start(1, CLUSTER, 0, dir.path()).await;
    // It takes whatever is posted to it and never answers.
    let silent = listen(0).await;
    one.peers.add_peer(NodeId(2), vec![format!("http://{}", silent.local_addr().expect("it is bound"))]);
    let stuck = dial(&one, "msgapp").await;
    let mut alive = dial(&one, "message").await;
    for index in 0..120 {
        one.peers.send(vec![append(1, 2, index, &[1 << 20])]);
    }
    assert_eq!(
        one.events.try_recv(),
        Ok(PeerEvent::Unreachable(NodeId(2))),
        "64 MiB wait, the rest is dropped"
    );
    let context = "find me here";
    one.peers.send(vec![message(
        1,
        2,
        3,
        Body::Heartbeat { commit: Index(1), context: context.into(), state: None },
    )]);
    let mut seen = Vec::new();
    let reading = async {
        while !String::from_utf8_lossy(&seen).contains(context) {
            assert_ne!(alive.read_buf(&mut seen).await.expect("it goes on"), 0);
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("the heartbeat comes");
    drop(stuck);
    one.end().await;
}

fn snapshot(from: u64, to: u64, index: u64) -> (Message, Snapshot) {
    let config = ConfState { voters: [NodeId(1), NodeId(2)].into(), ..Default::default() };
    let last = LogId { term: Term(3), index: Index(index) };
    let snapshot = Snapshot { meta: SnapshotMeta { last, config }, data: "{\"members\":1}".into() };
    (message(from, to, 3, Body::Snapshot(snapshot.clone())), snapshot)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshots_body_arrives_whole_and_is_kept() {
    let (source, target) =
        (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let mut nodes = linked(&[1, 2], target.path()).await;
    let bytes: Vec<u8> = (0..3_000_001_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let file = source.path().join("body");
    std::fs::write(&file, &bytes).expect("room on the disk");
    let (sent, expected) = snapshot(1, 2, 0x2a);
    assert!(nodes[0].peers.takes_kontiki_snapshots(NodeId(2)));
    nodes[0].peers.send_snapshot(NodeId(2), sent, file);
    let PeerEvent::SnapshotReceived { from, term, snapshot: got, body } = nodes[1].event().await else {
        panic!("no snapshot came");
    };
    assert_eq!((from, term, got), (NodeId(1), Term(3), expected));
    assert_eq!(body, target.path().join("000000000000002a.snap.kontiki"));
    assert!(std::fs::read(&body).expect("it is there") == bytes, "the bytes are the same");
    assert_eq!(nodes[0].event().await, PeerEvent::SnapshotSent { to: NodeId(2), ok: true });
    // An empty body is one, too; a file that is not there is a failure.
    let empty = source.path().join("empty");
    std::fs::write(&empty, b"").expect("room on the disk");
    nodes[0].peers.send_snapshot(NodeId(2), snapshot(1, 2, 0x2b).0, empty);
    assert!(matches!(nodes[1].event().await, PeerEvent::SnapshotReceived { .. }));
    assert_eq!(nodes[0].event().await, PeerEvent::SnapshotSent { to: NodeId(2), ok: true });
    nodes[0].peers.send_snapshot(NodeId(2), snapshot(1, 2, 0x2c).0, source.path().join("missing"));
    assert_eq!(nodes[0].event().await, PeerEvent::SnapshotSent { to: NodeId(2), ok: false });
    let names: Vec<_> = std::fs::read_dir(target.path()).expect("it is there").collect();
    assert_eq!(names.len(), 2, "nothing temporary is left: {names:?}");
    for node in nodes {
        node.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sender_that_dies_half_way_leaves_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut two = Node::start(2, CLUSTER, 0, dir.path()).await;
    let wire = kontiki::wire::raft::encode_message(&snapshot(1, 2, 0x2a).0);
    let mut body = (wire.len() as u64).to_be_bytes().to_vec();
    body.extend_from_slice(&wire);
    body.extend_from_slice(&[7; 200_000]);
    let mut stream = TcpStream::connect(two.address).await.expect("it listens");
    let head = format!(
        "POST /raft/snapshot HTTP/1.1\r\nHost: x\r\nX-Server-From: 1\r\nX-Server-Version: 3.5.1\r\n\
         X-Min-Cluster-Version: 3.0.0\r\nX-Etcd-Cluster-ID: {CLUSTER}\r\nX-Kontiki-Snapshot: 1\r\n\
         Transfer-Encoding: chunked\r\n\r\n{:x}\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.expect("it reads");
    stream.write_all(&body).await.expect("it reads");
    stream.write_all(b"\r\n").await.expect("it reads");
    let names = || std::fs::read_dir(dir.path()).expect("it is there").count();
    eventually("being written", || names() == 1).await;
    drop(stream);
    eventually("cleaned up", || names() == 0).await;
    assert!(two.events.try_recv().is_err(), "nobody hears of it");
    let page = String::from_utf8(two.metrics.render()).expect("text");
    assert!(page.contains("etcd_network_snapshot_receive_failures{From=\"1\"} 1"));
    two.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_clusters_members_do_not_connect() {
    let dir = tempfile::tempdir().expect("a directory");
    let one = Node::start(1, CLUSTER, 0, dir.path()).await;
    let mut two = Node::start(2, ClusterId(0xc2), 0, dir.path()).await;
    one.peers.add_peer(NodeId(2), vec![two.url()]);
    two.peers.add_peer(NodeId(1), vec![one.url()]);
    one.peers.send(vec![message(1, 2, 3, Body::TimeoutNow)]);
    let mut one = one;
    let report = tokio::time::timeout(PATIENCE, one.events.recv()).await.expect("a report comes");
    assert_eq!(report, Some(PeerEvent::Unreachable(NodeId(2))));
    assert_eq!(one.peers.active_since(NodeId(2)), None);
    assert!(two.events.try_recv().is_err(), "nothing came through");
    one.end().await;
    two.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_member_is_told() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut nodes = linked(&[1, 2], dir.path()).await;
    nodes[0].peers.remove_peer(NodeId(2));
    assert_eq!(nodes[1].event().await, PeerEvent::Removed);
    for node in nodes {
        node.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_falls_silent_is_disconnected() {
    let dir = tempfile::tempdir().expect("a directory");
    let patience = std::time::Duration::from_millis(300);
    let one = Node::start_with(1, CLUSTER, 0, dir.path(), patience).await;
    // It takes both streams and then says nothing, as a machine without power does.
    let silent = listen(0).await;
    one.peers.add_peer(NodeId(2), vec![format!("http://{}", silent.local_addr().expect("it is bound"))]);
    let answering = tokio::spawn(async move {
        let mut held = Vec::new();
        loop {
            let (mut stream, _) = silent.accept().await.expect("it dials");
            let head = format!(
                "HTTP/1.1 200 OK\r\nX-Etcd-Cluster-Id: {CLUSTER}\r\nTransfer-Encoding: chunked\r\n\r\n"
            );
            stream.write_all(head.as_bytes()).await.expect("it reads");
            held.push(stream);
        }
    });
    one.connected(2).await;
    eventually("disconnected", || one.peers.active_since(NodeId(2)).is_none()).await;
    answering.abort();
    one.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_breaks_is_reported_and_one_that_is_replaced_is_not() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut one = Node::start(1, CLUSTER, 0, dir.path()).await;
    let silent = listen(0).await;
    one.peers.add_peer(NodeId(2), vec![format!("http://{}", silent.local_addr().expect("it is bound"))]);
    let mut first = dial(&one, "msgapp").await;
    let second = dial(&one, "msgapp").await;
    let mut rest = Vec::new();
    let ending = async {
        while !rest.ends_with(b"0\r\n\r\n") {
            rest.push(first.read_u8().await.expect("it ends in good order"));
        }
    };
    tokio::time::timeout(PATIENCE, ending).await.expect("its body ends");
    assert!(one.events.try_recv().is_err(), "its place is taken: nothing is lost");
    drop(second);
    let report = tokio::time::timeout(PATIENCE, one.events.recv()).await.expect("a report comes");
    assert_eq!(report, Some(PeerEvent::Unreachable(NodeId(2))));
    one.end().await;
}
