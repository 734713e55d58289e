//! The peer port's answers, byte by byte, and the client's side of what members ask each other.

use std::time::Duration;

use bytes::Bytes;
use kontiki::{
    error::Refusal,
    raft::{Body, Message},
    runtime::{PeerAnswer, PeerNet, Question},
    server::peer::{ClientError, Renewer, cluster_members, lease_info_on, promote_on, version_of},
    types::{Index, LeaseId, NodeId, Term},
};

use crate::support::{CLUSTER, Node, raw, raw_bytes};

const LIMIT: Duration = Duration::from_secs(5);

/// A member of the cluster's headers, with one replaced.
fn headers<'a>(name: &'a str, value: &'a str) -> Vec<(&'a str, &'a str)> {
    let all = [
        ("X-Server-From", "2"),
        ("X-Server-Version", "3.5.1"),
        ("X-Min-Cluster-Version", "3.0.0"),
        ("X-Etcd-Cluster-ID", "c1"),
        ("X-Raft-To", "1"),
    ];
    let kept = all.into_iter().filter(|(header, _)| *header != name);
    kept.chain([(name, value)]).filter(|(_, value)| !value.is_empty()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_have_etcds_statuses_and_texts() {
    let dir = tempfile::tempdir().expect("a directory");
    let one = Node::start(1, CLUSTER, 0, dir.path()).await;
    one.peers.add_peer(NodeId(2), vec!["http://127.0.0.1:9".into()]);
    one.peers.set_removed([NodeId(7)]);
    let good = ("X-Raft-To", "1");
    let stream = "GET /raft/stream/message/2";
    let cases: &[(&str, (&str, &str), u16, &str)] = &[
        ("GET /raft/stream/", ("X-Server-Version", ""), 412, "incompatible version"),
        (stream, ("X-Server-Version", "2.3.0"), 412, "incompatible version"),
        (stream, ("X-Min-Cluster-Version", "3.6.0"), 412, "incompatible version"),
        (stream, ("X-Etcd-Cluster-ID", "c2"), 412, "cluster ID mismatch"),
        (stream, ("X-Raft-To", "3"), 412, "to field mismatch"),
        ("GET /raft/stream", good, 404, "invalid path"),
        ("GET /raft/stream/message", good, 404, "invalid path"),
        ("GET /raft/stream/message/2/3", good, 404, "invalid path"),
        ("GET /raft/stream/nonsense/2", good, 404, "invalid path"),
        ("GET /raft/stream/message/", good, 404, "invalid from"),
        ("GET /raft/stream/message/xyz", good, 404, "invalid from"),
        ("GET /raft/stream/message/5", good, 404, "error sender not found"),
        ("GET /raft/stream/msgapp/7", good, 410, "removed member"),
        ("POST /raft/stream/message/2", good, 405, "Method Not Allowed"),
        ("GET /raft", good, 405, "Method Not Allowed"),
        ("GET /raft/snapshot", good, 405, "Method Not Allowed"),
        ("POST /raft", ("X-Etcd-Cluster-ID", "c2"), 412, "cluster ID mismatch"),
        ("POST /raft", good, 400, "error unmarshalling raft message"),
        ("POST /raft/snapshot", good, 400, "failed to decode raft message (unexpected EOF)"),
        ("POST /members/promote/", good, 404, "member  not found in cluster"),
        ("POST /members/promote/abc", good, 404, "member abc not found in cluster"),
        ("POST /members/promote/5000", good, 404, "membership: ID not found"),
        ("GET /raft/", good, 404, "404 page not found"),
        ("GET /leases/x", good, 404, "404 page not found"),
        ("GET /leases", good, 405, "Method Not Allowed"),
        ("GET /leases/internal", good, 405, "Method Not Allowed"),
        ("GET /members/promote/1", good, 405, "Method Not Allowed"),
        ("GET /members/hashkv", good, 400, "error unmarshalling request"),
        ("GET /health", good, 404, "404 page not found"),
        ("GET /metrics", good, 404, "404 page not found"),
    ];
    for (start, (name, value), status, text) in cases {
        let body =
            if *start == "POST /raft" || start.starts_with("POST /raft/stream") { "rubbish" } else { "" };
        let answer = raw(one.address, start, &headers(name, value), body).await;
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (*status, format!("{text}\n").as_str()),
            "{start} {name}"
        );
        assert!(answer.has("X-Content-Type-Options: nosniff"), "{}", answer.head);
        assert!(answer.has("Content-Type: text/plain; charset=utf-8"), "{}", answer.head);
        if start.contains("/raft/stream/") && *status != 405 {
            assert!(
                answer.has("X-Etcd-Cluster-Id: c1") && answer.has("X-Server-Version: 3.5.1"),
                "{}",
                answer.head
            );
        }
        let allow = match *start {
            "POST /raft/stream/message/2" => Some("Allow: GET"),
            "GET /raft" | "GET /raft/snapshot" | "GET /members/promote/1" => Some("Allow: POST"),
            _ => None,
        };
        assert_eq!(answer.head.contains("Allow: "), allow.is_some(), "{start}: {}", answer.head);
        assert!(allow.is_none_or(|allow| answer.has(allow)), "{start}: {}", answer.head);
    }
    one.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_members_tell_each_other_is_read_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let one = Node::start(1, CLUSTER, 0, dir.path()).await;
    let version = raw(one.address, "GET /version", &[], "").await;
    assert_eq!(version.body, r#"{"etcdserver":"3.5.1","etcdcluster":"3.5.0"}"#);
    assert!(version.has("Content-Type: application/json"));
    let members = raw(one.address, "GET /members", &[], "").await;
    assert!(members.has("X-Etcd-Cluster-Id: c1") && members.has("Content-Type: application/json"));
    let probe = raw(one.address, "GET /raft/probing", &[], "").await;
    assert!(
        probe.body.starts_with("{\"OK\":true,\"Now\":\"20") && probe.body.ends_with("Z\"}\n"),
        "{}",
        probe.body
    );
    let downgrade = raw(one.address, "GET /downgrade/enabled", &[], "").await;
    assert_eq!((downgrade.status, downgrade.body.as_str()), (200, "false"));
    let hash = raw(one.address, "GET /members/hashkv", &[], r#"{"revision":5}"#).await;
    assert_eq!(hash.body, r#"{"header":{"revision":7},"hash":12,"compact_revision":5}"#);
    let hash = raw(one.address, "GET /members/hashkv", &[], "{}").await;
    assert_eq!(hash.body, r#"{"header":{"revision":7},"hash":12}"#);
    let hash = raw(one.address, "GET /members/hashkv", &[], r#"{"revision":9}"#).await;
    assert_eq!((hash.status, hash.body.as_str()), (400, "mvcc: required revision is a future revision\n"));

    // The first URL leads nowhere.
    let urls = ["http://127.0.0.1:9".to_owned(), one.url()];
    let view = cluster_members(&urls, LIMIT).await.expect("it answers");
    assert_eq!(view.cluster, CLUSTER);
    let ids: Vec<_> = view.members.iter().map(|member| (member.id.0, member.learner)).collect();
    assert_eq!(ids, [(4, false), (9, true)], "sorted by id");
    let versions = version_of(&urls, LIMIT).await.expect("it answers");
    assert_eq!((versions.server.as_str(), versions.cluster.as_deref()), ("3.5.1", Some("3.5.0")));

    assert_eq!(promote_on(&urls, NodeId(9), LIMIT).await.expect("it is promoted").len(), 2);
    for (id, expected) in
        [(4, Refusal::MemberNotLearner), (5, Refusal::LearnerNotReady), (8, Refusal::MemberNotFound)]
    {
        let refused = promote_on(&urls, NodeId(id), LIMIT).await;
        assert!(matches!(refused, Err(ClientError::Refused(refusal)) if refusal == expected), "{refused:?}");
    }
    assert!(matches!(promote_on(&urls, NodeId(6), LIMIT).await, Err(ClientError::Unreachable { .. })));

    let lease = LeaseId(-5);
    let info = lease_info_on(&urls, lease, true, LIMIT).await.expect("it is there");
    assert_eq!((info.ttl, info.granted, info.keys.len()), (3, 10, 1));
    let refused = lease_info_on(&urls, LeaseId(1), false, LIMIT).await;
    assert!(matches!(refused, Err(ClientError::Refused(Refusal::LeaseNotFound))));
    one.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_are_renewed_one_by_one_and_together() {
    let dir = tempfile::tempdir().expect("a directory");
    let one = Node::start(1, CLUSTER, 0, dir.path()).await;
    let mut renewer = Renewer::default();
    let (url, lease) = (one.url(), LeaseId);
    // All but the first over the same connection.
    for (ids, expected) in [
        (vec![lease(-5)], vec![Some(77)]),
        (vec![lease(1)], vec![None]),
        (vec![lease(-5), lease(1), lease(-7)], vec![Some(77), None, Some(79)]),
    ] {
        assert_eq!(renewer.renew(&url, &ids, LIMIT).await.expect("an answer"), expected);
    }
    let refused = renewer.renew(&url, &[lease(6)], LIMIT).await;
    assert!(matches!(refused, Err(ClientError::Refused(Refusal::Timeout))), "{refused:?}");
    let nobody = renewer.renew("http://127.0.0.1:9", &[lease(-5)], LIMIT).await;
    assert!(matches!(nobody, Err(ClientError::Unreachable { .. })));

    // As a follower asks: who waits gets the answer for its own lease.
    let two = Node::start(2, CLUSTER, 0, dir.path()).await;
    two.peers.add_peer(NodeId(1), vec![one.url()]);
    let ask = |id| two.peers.ask(NodeId(1), Question::RenewLease(lease(id)));
    let answers = futures_util::future::join_all((-100..100).map(ask)).await;
    for (id, answer) in (-100..100).zip(answers) {
        // One question among the many meets the lease that nobody answers for, and those in it share its fate.
        let seconds = (id < 0).then_some(72 - id);
        let timeout = Some(Err(Refusal::Timeout));
        assert!(answer == Some(Ok(PeerAnswer::Renewed(seconds))) || answer == timeout, "{id}: {answer:?}");
    }
    assert_eq!(ask(-9).await, Some(Ok(PeerAnswer::Renewed(Some(81)))), "after its connection broke");
    two.end().await;
    one.end().await;
}

/// A body that etcd 3.5.1 posted: a heartbeat to 67e3df23a87b4c18.
const ETCD_POST: &[u8] = b"\x08\x08\x10\x98\x98\xed\xc3\xba\xe4\xf7\xf1\x67\x18\x9f\xc3\x8d\xc6\xa1\xb8\xd1\xa2\x37\x20\x02\x28\x00\x30\x00\x40\
    \x00\x4a\x0a\x12\x08\x0a\x02\x28\x00\x10\x00\x18\x00\x50\x00\x58\x00\x62\x08\x61\x9f\xa1\xfb\xa9\x90\x54\x05";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_etcd_posts_is_taken() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut node = Node::start(0x67e3_df23_a87b_4c18, CLUSTER, 0, dir.path()).await;
    let answer = raw_bytes(node.address, "POST /raft", &headers("X-Raft-To", ""), ETCD_POST).await;
    assert_eq!((answer.status, answer.body.as_str()), (204, ""));
    assert!(answer.has("X-Etcd-Cluster-Id: c1"));
    let message = node.message().await;
    let context = Bytes::from_static(b"\x61\x9f\xa1\xfb\xa9\x90\x54\x05");
    let body = Body::Heartbeat { commit: Index(0), context, state: None };
    let from = NodeId(0x3745_45c2_18c3_619f);
    assert_eq!(message, Message { from, to: NodeId(0x67e3_df23_a87b_4c18), term: Term(2), body });

    // The same, to a member that is not the one it is for.
    let mut other = Node::start(1, CLUSTER, 0, dir.path()).await;
    let answer = raw_bytes(other.address, "POST /raft", &headers("X-Raft-To", ""), ETCD_POST).await;
    assert_eq!((answer.status, answer.body.as_str()), (412, "to field mismatch\n"));
    assert!(other.events.try_recv().is_err());
    // And from one that was removed.
    other.peers.set_removed([from]);
    let answer = raw_bytes(other.address, "POST /raft", &headers("X-Raft-To", ""), ETCD_POST).await;
    assert_eq!(answer.status, 403);
    node.end().await;
    other.end().await;
}
