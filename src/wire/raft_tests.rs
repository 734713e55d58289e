//! Against what etcd sent (`tests/fixtures/disk`), and there and back for every kind of message.

#![allow(clippy::disallowed_methods, reason = "fixtures are read from the repository")]

use std::collections::BTreeSet;

use super::*;

fn fixture(name: &str) -> Vec<u8> {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/disk");
    std::fs::read(dir.join(name)).expect(name)
}

/// What etcd 3.5 writes for no snapshot.
const NO_SNAPSHOT: &[u8] = &[0x4a, 0x0a, 0x12, 0x08, 0x0a, 0x02, 0x28, 0x00, 0x10, 0x00, 0x18, 0x00];

fn without_snapshot(bytes: &[u8]) -> Vec<u8> {
    let at =
        bytes.windows(NO_SNAPSHOT.len()).position(|part| part == NO_SNAPSHOT).expect("an empty snapshot");
    [&bytes[..at], &bytes[at + NO_SNAPSHOT.len()..]].concat()
}

#[test]
fn etcds_messages_decode_and_come_out_the_same_but_for_the_empty_snapshot() {
    let heartbeat = fixture("post-raft-body.bin");
    let message = decode_message(&heartbeat[..]).expect("a heartbeat");
    assert_eq!(
        (message.from, message.to, message.term),
        (NodeId(0x3745_45c2_18c3_619f), NodeId(0x67e3_df23_a87b_4c18), Term(2))
    );
    assert!(matches!(&message.body, Body::Heartbeat { context, state: None, .. } if context.len() == 8));
    assert_eq!(encode_message(&message), without_snapshot(&heartbeat));

    let stream = fixture("stream-message.bin");
    let mut rest = &stream[..];
    let mut kinds = Vec::new();
    while let Some((len, body)) = rest.split_first_chunk::<8>() {
        let (body, more) = body.split_at(u64::from_be_bytes(*len) as usize);
        let message = decode_message(body).expect("a message");
        assert_eq!(encode_message(&message), without_snapshot(body));
        kinds.push(message.body);
        rest = more;
    }
    let last = LogId { term: Term(2), index: Index(5606) };
    assert_eq!(kinds[2..], [true, false].map(|pre| Body::Vote { pre, last, transfer: false }));

    let stream = fixture("stream-msgapp.bin");
    // Two link heartbeats, then a full message behind its type.
    let (len, body) = stream[3..].split_first_chunk::<8>().expect("a frame");
    let body = &body[..u64::from_be_bytes(*len) as usize];
    let message = decode_message(body).expect("an append");
    assert!(matches!(&message.body, Body::Append { prev, entries, commit: Index(5606) }
        if *prev == last && entries.len() == 1 && entries[0].payload == Payload::Empty));
    assert_eq!(encode_message(&message), without_snapshot(body));
}

fn bodies() -> Vec<Body> {
    let at = LogId { term: Term(3), index: Index(7) };
    let step = |kind| ChangeStep { kind, node: NodeId(9) };
    let entry = |index, payload| Entry { term: Term(3), index: Index(index), payload };
    let single =
        Change::Single { id: 4, step: step(ChangeKind::AddLearner), context: Bytes::from_static(b"{}") };
    let joint = Change::Joint {
        transition: Transition::JointExplicit,
        steps: vec![step(ChangeKind::AddVoter), step(ChangeKind::Remove), step(ChangeKind::Update)],
        context: Bytes::new(),
    };
    let leave = Change::Joint { transition: Transition::Auto, steps: vec![], context: Bytes::new() };
    let id = Bytes::from_static(b"12345678");
    let config = ConfState {
        voters: BTreeSet::from([NodeId(1), NodeId(u64::MAX)]),
        learners: BTreeSet::from([NodeId(3)]),
        voters_outgoing: BTreeSet::from([NodeId(4)]),
        learners_next: BTreeSet::from([NodeId(5)]),
        auto_leave: true,
    };
    let snapshot = Snapshot { meta: SnapshotMeta { last: at, config }, data: Bytes::from_static(b"json") };
    let state = Some(StateMark { index: Index(6), hash: u64::MAX });
    let mut bodies = vec![
        Body::Propose { payloads: vec![Payload::Command(id.clone()), Payload::Change(single.clone())] },
        Body::Append {
            prev: at,
            entries: vec![
                entry(8, Payload::Empty),
                entry(9, Payload::Change(single)),
                entry(10, Payload::Change(joint)),
                entry(11, Payload::Change(leave)),
            ],
            commit: Index(5),
        },
        Body::AppendAccepted { matched: Index(7) },
        Body::AppendRejected { prev: Index(9), hint: at },
        Body::Snapshot(snapshot),
        Body::Heartbeat { commit: Index(5), context: id.clone(), state },
        Body::Heartbeat { commit: Index(0), context: Bytes::new(), state: None },
        Body::HeartbeatReply { context: id.clone(), state },
        Body::TimeoutNow,
        Body::ReadIndex { context: id.clone() },
        Body::ReadIndexReply { index: Index(5), context: id },
    ];
    for flag in [false, true] {
        bodies.push(Body::Vote { pre: flag, last: at, transfer: !flag });
        bodies.push(Body::VoteReply { pre: flag, granted: flag });
    }
    bodies
}

#[test]
fn every_message_comes_back() {
    for body in bodies() {
        let message = Message { from: NodeId(1), to: NodeId(2), term: Term(3), body };
        assert_eq!(decode_message(&encode_message(&message)[..]), Ok(message));
    }
    let transfer = Body::TransferLeader { target: NodeId(7) };
    let message = Message { from: NodeId(1), to: NodeId(2), term: Term(3), body: transfer };
    let back = decode_message(&encode_message(&message)[..]).expect("a message");
    assert_eq!(back, Message { from: NodeId(7), ..message });
}

#[test]
fn what_raft_can_not_work_with_is_refused() {
    let wire = |kind| raftpb::Message { r#type: kind, ..Default::default() };
    for local in [0, 1, 10, 11, 12, 19, 22] {
        assert_eq!(Message::try_from(wire(local)), Err(WireError::Local(local)));
    }
    for value in [23, u64::MAX] {
        assert_eq!(Message::try_from(wire(value)), Err(WireError::Unknown { what: "message type", value }));
    }
    assert_eq!(Message::try_from(wire(7)), Err(WireError::Missing("the snapshot")));
    let big = raftpb::Message { index: u64::MAX, ..wire(3) };
    assert_eq!(Message::try_from(big), Err(WireError::OutOfRange { what: "index", value: u64::MAX }));
    let gap = raftpb::Message { entries: vec![raftpb::Entry { index: 2, ..Default::default() }], ..wire(3) };
    assert_eq!(Message::try_from(gap), Err(WireError::Gap { expected: Index(1), found: Index(2) }));
    assert!(matches!(decode_message(&[0xff][..]), Err(WireError::Malformed(_))));
    let entry = raftpb::Entry { r#type: 3, ..Default::default() };
    assert_eq!(Entry::try_from(entry), Err(WireError::Unknown { what: "entry type", value: 3 }));
}
