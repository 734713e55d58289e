//! The links to a real etcd. Needs its binary: `KONTIKI_ETCD=/path/to/etcd cargo test --test peer -- --ignored`.

use std::{
    process::{Child, Command, Stdio},
    time::Duration,
};

use kontiki::{
    membership::Member,
    raft::{Body, LogId, Message},
    runtime::PeerNet,
    server::peer::{cluster_members, version_of},
    types::{ClusterId, NodeId, Term},
};

use crate::support::{Node, PATIENCE};

/// Ends etcd with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

async fn free_port() -> u16 {
    crate::support::listen(0).await.local_addr().expect("it is bound").port()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd's binary in KONTIKI_ETCD"]
async fn etcd_takes_us_for_a_member_and_elects_itself_with_our_vote() {
    let binary = std::env::var("KONTIKI_ETCD").expect("KONTIKI_ETCD names etcd's binary");
    let dir = tempfile::tempdir().expect("a directory");
    let (peer, client, ours) = (free_port().await, free_port().await, free_port().await);
    let etcd_url = format!("http://127.0.0.1:{peer}");
    let client_url = format!("http://127.0.0.1:{client}");
    let our_url = format!("http://127.0.0.1:{ours}");
    let child = Command::new(binary)
        .args(["--name", "etcd", "--data-dir"])
        .arg(dir.path().join("data"))
        .args(["--listen-peer-urls", &etcd_url, "--initial-advertise-peer-urls", &etcd_url])
        .args(["--listen-client-urls", &client_url, "--advertise-client-urls", &client_url])
        .args(["--initial-cluster", &format!("etcd={etcd_url},ours={our_url}")])
        .args(["--initial-cluster-token", "links", "--logger", "zap"])
        .stderr(Stdio::from(std::fs::File::create(dir.path().join("log")).expect("room on the disk")))
        .stdout(Stdio::null())
        .spawn()
        .expect("it starts");
    let _running = Running(child);

    let urls = [etcd_url.clone()];
    let view = loop {
        match cluster_members(&urls, Duration::from_secs(2)).await {
            Ok(view) => break view,
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    };
    let find = |name: &str| view.members.iter().find(|member| member.peer_urls == [name.to_owned()]).cloned();
    let (etcd, we): (Member, Member) = (find(&etcd_url).expect("etcd"), find(&our_url).expect("ours"));
    assert_eq!(version_of(&urls, Duration::from_secs(2)).await.expect("it answers").cluster, None);

    let mut node = Node::start(we.id.0, ClusterId(view.cluster.0), ours, dir.path()).await;
    node.peers.add_peer(etcd.id, vec![etcd_url]);
    node.connected(etcd.id.0).await;
    elect(&mut node, &etcd, &we).await;
    let log = std::fs::read_to_string(dir.path().join("log")).expect("it is there");
    for line in ["established TCP streaming connection with remote peer", "became leader at term"] {
        assert!(log.contains(line), "etcd's log has no '{line}':\n{log}");
    }
    let streams = log.matches("established TCP streaming connection with remote peer").count();
    assert!(streams >= 4, "{streams} of the four streams were set up");
    assert!(!log.contains("\"level\":\"panic\"") && !log.contains("\"level\":\"fatal\""), "{log}");
    node.end().await;
}

/// Gives etcd our vote and acknowledges its heartbeats and appends, until each kind and some appends came.
async fn elect(node: &mut Node, etcd: &Member, we: &Member) {
    let mut seen: Vec<&str> = Vec::new();
    let reply = |term: Term, body| Message { from: NodeId(we.id.0), to: etcd.id, term, body };
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        assert!(tokio::time::Instant::now() < deadline, "only {seen:?} came in time");
        let message = node.message().await;
        assert_eq!((message.from, message.to), (etcd.id, we.id));
        let body = match message.body {
            Body::Vote { pre, last: LogId { .. }, .. } => {
                seen.push(if pre { "prevote" } else { "vote" });
                Body::VoteReply { pre, granted: true }
            }
            Body::Append { prev, entries, .. } => {
                seen.push("append");
                let matched = entries.last().map_or(prev.index, |entry| entry.index);
                Body::AppendAccepted { matched }
            }
            Body::Heartbeat { context, .. } => {
                seen.push("heartbeat");
                Body::HeartbeatReply { context, state: None }
            }
            other => panic!("{other:?} is not for a follower"),
        };
        node.peers.send(vec![reply(message.term, body)]);
        let all = ["prevote", "vote", "append", "heartbeat"].iter().all(|kind| seen.contains(kind));
        if all && seen.iter().filter(|kind| **kind == "append").count() > 3 {
            return;
        }
    }
}
