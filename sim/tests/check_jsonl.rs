//! Histories as files.

use bytes::Bytes;
use kontiki::wire::{RawKeyValue, etcdserverpb as pb, mvccpb};
use sim::history::{
    Applied, Boot, Call, Config, Crash, Fact, Held, HeldKind, History, LogFact, MessageFact, Micros, Op,
    Outcome, Up, WatchLog, jsonl,
};

fn header(revision: i64) -> Option<pb::ResponseHeader> {
    Some(pb::ResponseHeader { revision, cluster_id: 7, member_id: u64::MAX, raft_term: 3 })
}

fn op(id: u64, call: impl Into<Call>, end: Option<u64>, outcome: Outcome) -> Op {
    let end = end.map(Micros);
    Op { id, client: 1, member: 2, user: None, start: Micros(10), end, call: call.into(), outcome }
}

fn history() -> History {
    let kv = kontiki::types::KeyValue {
        key: Bytes::from_static(b"k\xff"),
        value: Bytes::from_static(b"v"),
        ..Default::default()
    };
    let range =
        pb::RangeResponse { header: header(2), kvs: vec![RawKeyValue::encode(&kv)], more: true, count: 9 };
    let event = mvccpb::Event { r#type: 0, kv: Some(RawKeyValue::encode(&kv)), prev_kv: None };
    let response = pb::WatchResponse { header: header(5), events: vec![event], ..Default::default() };
    let put = pb::PutRequest { key: Bytes::from_static(b"k"), lease: -4, ..Default::default() };
    let mut history = History {
        ops: vec![
            op(1, pb::RangeRequest::default(), Some(20), Outcome::Ok(range.into())),
            op(2, put.clone(), Some(11), Outcome::Refused { code: 5, message: "no \"lease\"".to_owned() }),
            op(3, put, None, Outcome::Unknown("time-out".to_owned())),
        ],
        watches: vec![WatchLog {
            id: 4,
            client: 0,
            member: 1,
            user: Some("u".to_owned()),
            stream: 2,
            create: pb::WatchCreateRequest { start_revision: -3, filters: vec![1, 0], ..Default::default() },
            start: Micros(3),
            responses: vec![(Micros(8), response.clone()), (Micros(9), response)],
            asked: vec![Micros(7), Micros(9)],
            cancel: Some(Micros(10)),
            ended: None,
            resumes: Some(3),
        }],
        ..History::default()
    };
    history.settings.calm_from = Some(Micros::from_secs(3));
    history.held.push(Held {
        kind: HeldKind::Lock,
        name: "l/".to_owned(),
        key: "l/1".to_owned(),
        created: 4,
        lease: -1,
        client: 3,
        from: Micros(1),
        until: None,
    });
    let fact = Fact::Append { prev: LogFact { term: 1, index: 2 }, entries: vec![], commit: 2 };
    history.messages.push(MessageFact { at: Micros(1), from: u64::MAX, to: 2, term: 3, fact });
    history.applied.push(Applied {
        at: Micros(1),
        node: 1,
        incarnation: 0,
        index: 1,
        term: 1,
        hash: Some(u64::MAX),
        revision: None,
        snapshot: false,
    });
    history.boots.push(Boot::new(Micros(0), 1, 0));
    history.ups.push(Up { at: Micros(0), member: 0, node: 1 });
    history.crashes.push(Crash { at: Micros(4), node: 1, incarnation: 0 });
    history.configs.push(Config {
        at: Micros(0),
        node: 1,
        index: 0,
        voters: vec![1],
        outgoing: vec![],
        learners: vec![],
        committed: None,
    });
    history
}

#[test]
fn what_is_written_is_read() {
    let history = history();
    let mut lines = Vec::new();
    jsonl::write(&history, &mut lines).expect("memory takes it");
    let read = jsonl::read(lines.as_slice()).expect("it was just written");
    assert_eq!(read, history);
}

#[test]
fn bad_lines_are_named() {
    for (line, why) in [
        ("{", "line 1"),
        (
            r#"{"op":{"id":1,"client":0,"member":0,"start":5,"end":6,"call":"Got","request":"","unknown":""}}"#,
            "no method Got",
        ),
        (
            r#"{"op":{"id":1,"client":0,"member":0,"start":5,"end":6,"call":"Put","request":"?","unknown":""}}"#,
            "not base64",
        ),
        (
            r#"{"op":{"id":1,"client":0,"member":0,"start":5,"end":6,"call":"Put","request":"CgF","unknown":""}}"#,
            "not base64",
        ),
        (
            r#"{"op":{"id":1,"client":0,"member":0,"start":5,"end":6,"call":"Put","request":"/w==","unknown":""}}"#,
            "request",
        ),
        (
            r#"{"op":{"id":1,"client":0,"member":0,"start":5,"end":6,"call":"Put","request":""}}"#,
            "without an outcome",
        ),
        (
            r#"{"op":{"id":1,"client":0,"member":0,"start":5,"end":4,"call":"Put","request":"","unknown":""}}"#,
            "before it started",
        ),
        (
            r#"{"op":{"id":1,"client":0,"member":0,"start":5,"call":"Put","request":"","ok":""}}"#,
            "did not end",
        ),
        (r#"{"response":{"watch":1,"at":0,"bytes":""}}"#, "no watch 1"),
        (r#"{"verdict":{}}"#, "unknown variant"),
    ] {
        let error = jsonl::read(line.as_bytes()).expect_err(line);
        assert!(format!("{error:#}").contains(why), "{line}: {error:#}");
    }
}

const RECORDED: &str = include_str!("fixtures/history.jsonl");

#[test]
fn a_recorded_file_is_judged() {
    let history = jsonl::read(RECORDED.as_bytes()).expect("the fixture reads");
    assert_eq!((history.ops.len(), history.watches.len(), history.watches[0].responses.len()), (4, 1, 3));
    let report = sim::check::all(&history);
    assert!(report.is_clean() && report.undecided.is_empty(), "{report:?}");
    let mut lost = history.clone();
    lost.ops.retain(|op| op.id != 2);
    let report = sim::check::all(&lost);
    let rules: Vec<_> = report.violations.iter().map(|violation| violation.rule).collect();
    assert!(rules.contains(&"linear/unexplained-revision"), "{rules:?}");
}

#[test]
fn a_file_is_judged() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/history.jsonl");
    assert!(sim::check::check_file(&path).expect("the fixture is there").is_clean());
    let none = sim::check::check_file(std::path::Path::new("none.jsonl")).expect_err("there is none");
    assert!(none.to_string().contains("none.jsonl"));
}
