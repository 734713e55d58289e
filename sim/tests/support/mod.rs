//! Histories in a few words, for the oracles' tests.
#![allow(dead_code, reason = "each test uses its part")]

use bytes::Bytes;
use kontiki::wire::{RawKeyValue, etcdserverpb as pb, mvccpb};
use sim::{
    check::{self, Violation, kv::Kv},
    history::{Call, History, Micros, Op, Outcome, Reply, WatchLog},
};

/// A history under way.
#[derive(Clone, Default)]
pub struct Tale {
    pub history: History,
}

pub fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

pub fn header(revision: i64) -> Option<pb::ResponseHeader> {
    Some(pb::ResponseHeader { cluster_id: 9, member_id: 1, revision, raft_term: 2 })
}

/// A key-value, created, modified, version.
pub fn kv(key: &str, value: &str, numbers: (i64, i64, i64)) -> RawKeyValue {
    kv_of(key, value, numbers).to_raw()
}

pub fn kv_of(key: &str, value: &str, (create_revision, mod_revision, version): (i64, i64, i64)) -> Kv {
    Kv { key: bytes(key), create_revision, mod_revision, version, value: bytes(value), lease: 0 }
}

pub fn put(key: &str, value: &str) -> pb::PutRequest {
    pb::PutRequest { key: bytes(key), value: bytes(value), ..Default::default() }
}

pub fn leased(key: &str, value: &str, lease: i64) -> pb::PutRequest {
    pb::PutRequest { lease, ..put(key, value) }
}

pub fn done_put(revision: i64) -> pb::PutResponse {
    pb::PutResponse { header: header(revision), prev_kv: None }
}

pub fn delete(key: &str) -> pb::DeleteRangeRequest {
    pb::DeleteRangeRequest { key: bytes(key), ..Default::default() }
}

pub fn done_delete(revision: i64, deleted: i64) -> pb::DeleteRangeResponse {
    pb::DeleteRangeResponse { header: header(revision), deleted, prev_kvs: vec![] }
}

pub fn get(key: &str) -> pb::RangeRequest {
    pb::RangeRequest { key: bytes(key), ..Default::default() }
}

pub fn all() -> pb::RangeRequest {
    pb::RangeRequest { key: bytes("\0"), range_end: bytes("\0"), ..Default::default() }
}

pub fn found(revision: i64, kvs: Vec<RawKeyValue>) -> pb::RangeResponse {
    let count = kvs.len() as i64;
    pb::RangeResponse { header: header(revision), kvs, more: false, count }
}

pub fn put_event(kv: RawKeyValue, prev_kv: Option<RawKeyValue>) -> mvccpb::Event {
    mvccpb::Event { r#type: 0, kv: Some(kv), prev_kv }
}

pub fn delete_event(key: &str, revision: i64, prev_kv: Option<RawKeyValue>) -> mvccpb::Event {
    mvccpb::Event { r#type: 1, kv: Some(kv(key, "", (0, revision, 0))), prev_kv }
}

pub fn events(revision: i64, events: Vec<mvccpb::Event>) -> pb::WatchResponse {
    pb::WatchResponse { header: header(revision), events, ..Default::default() }
}

pub fn created(revision: i64) -> pb::WatchResponse {
    pb::WatchResponse { header: header(revision), created: true, ..Default::default() }
}

pub fn watch_all(start_revision: i64) -> pb::WatchCreateRequest {
    pb::WatchCreateRequest { key: bytes("\0"), range_end: bytes("\0"), start_revision, ..Default::default() }
}

impl Tale {
    pub fn new() -> Self {
        Self::default()
    }

    fn op(&mut self, span: (u64, Option<u64>), call: Call, outcome: Outcome) -> u64 {
        let id = self.history.ops.len() as u64 + 1;
        let (start, end) = (Micros(span.0), span.1.map(Micros));
        let ended = &mut self.history.settings.ended;
        *ended = (*ended).max(end.unwrap_or(start));
        self.history.ops.push(Op { id, client: 0, member: 0, user: None, start, end, call, outcome });
        id
    }

    /// A call that was answered.
    pub fn ok(&mut self, span: (u64, u64), call: impl Into<Call>, reply: impl Into<Reply>) -> &mut Self {
        self.op((span.0, Some(span.1)), call.into(), Outcome::Ok(reply.into()));
        self
    }

    /// A call that was refused.
    pub fn refused(
        &mut self,
        span: (u64, u64),
        call: impl Into<Call>,
        why: kontiki::error::Refusal,
    ) -> &mut Self {
        self.op((span.0, Some(span.1)), call.into(), Outcome::from_refusal(why));
        self
    }

    /// A call without an answer.
    pub fn open(&mut self, start: u64, call: impl Into<Call>) -> &mut Self {
        self.op((start, None), call.into(), Outcome::Unknown("time-out".to_owned()));
        self
    }

    /// A watch of its own stream.
    pub fn watch(
        &mut self,
        start: u64,
        create: pb::WatchCreateRequest,
        responses: Vec<(u64, pb::WatchResponse)>,
    ) -> &mut Self {
        let id = 100 + self.history.watches.len() as u64;
        let responses = responses.into_iter().map(|(at, response)| (Micros(at), response)).collect();
        let log = WatchLog::new(id, 0, 0, create, Micros(start));
        self.history.watches.push(WatchLog { responses, ..log });
        self
    }
}

/// Nobody objects.
#[track_caller]
pub fn right(tale: &Tale) {
    let report = check::all(&tale.history);
    assert!(report.is_clean() && report.undecided.is_empty(), "{}", text(&report.violations));
}

pub fn text(violations: &[Violation]) -> String {
    violations.iter().map(|violation| format!("{violation}\n")).collect()
}

/// Someone objects by this rule, first, and with these words.
#[track_caller]
pub fn wrong(tale: &Tale, rule: &str, words: &str) {
    let report = check::all(&tale.history);
    let said = text(&report.violations);
    let fits = |violation: &Violation| violation.rule == rule && violation.to_string().contains(words);
    assert!(
        report.violations.iter().any(fits),
        "no {rule} with {words:?}, but:\n{said}{:?}",
        report.undecided
    );
}
