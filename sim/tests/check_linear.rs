//! The oracle for keys and transactions: silent about right histories, and not about wrong ones.

mod support;

use kontiki::{
    error::Refusal,
    wire::etcdserverpb::{self as pb, compare::CompareTarget, request_op::Request, response_op::Response},
};
use support::*;

/// Two puts, one unanswered, and reads.
fn tale() -> Tale {
    let mut tale = Tale::new();
    tale.ok((0, 10), put("a", "1"), done_put(2))
        .open(20, put("a", "2"))
        .ok((30, 40), get("a"), found(3, vec![kv("a", "2", (2, 3, 2))]))
        .ok((50, 60), put("b", "x"), done_put(4))
        .ok((70, 80), all(), found(4, vec![kv("a", "2", (2, 3, 2)), kv("b", "x", (4, 4, 1))]));
    tale
}

#[test]
fn right_histories_pass() {
    right(&Tale::new());
    right(&tale());
    let mut later = tale();
    // An old state for a serializable read, an old revision for any, a deletion of nothing.
    let serializable = pb::RangeRequest { serializable: true, ..get("a") };
    let old = pb::RangeRequest { revision: 2, ..all() };
    later
        .ok((90, 95), serializable, found(2, vec![kv("a", "1", (2, 2, 1))]))
        .ok((90, 95), old, found(4, vec![kv("a", "1", (2, 2, 1))]))
        .ok((90, 95), delete("c"), done_delete(4, 0))
        .ok((90, 95), delete("a"), done_delete(5, 1))
        .ok((100, 110), put("a", "3"), done_put(6))
        .ok((120, 130), get("a"), found(6, vec![kv("a", "3", (6, 6, 1))]))
        .refused((120, 130), pb::PutRequest { ignore_value: true, ..put("c", "") }, Refusal::KeyNotFound)
        .refused((120, 130), put("", ""), Refusal::EmptyKey);
    right(&later);
}

#[test]
fn a_stale_read_is_seen() {
    let mut stale = tale();
    stale.ok((90, 95), get("a"), found(2, vec![kv("a", "1", (2, 2, 1))]));
    wrong(&stale, "linear/stale", "saw revision 2, though call 4 had seen revision 4 before it started");
    let mut overlapping = tale();
    overlapping.ok((35, 95), get("a"), found(2, vec![kv("a", "1", (2, 2, 1))]));
    right(&overlapping);
    let mut watched = tale();
    watched.watch(0, watch_all(0), vec![(5, created(1)), (46, events(4, vec![]))]);
    watched.ok((48, 95), get("a"), found(3, vec![kv("a", "2", (2, 3, 2))]));
    wrong(&watched, "linear/stale", "watch 100 had seen revision 4");
}

#[test]
fn a_lost_write_is_seen() {
    let mut lost = tale();
    lost.ok((90, 95), put("b", "y"), done_put(4));
    wrong(&lost, "linear/one-write-a-revision", "both answered as the write of revision 4");
    wrong(&lost, "linear/write-in-the-past", "was answered as the write of revision 4");
    let mut unread = tale();
    unread.ok((90, 95), get("b"), found(4, vec![]));
    wrong(&unread, "linear/read", "the count is 0, not 1");
}

#[test]
fn wrong_answers_are_seen() {
    let cases: [(pb::RangeResponse, &str); 6] = [
        (found(4, vec![kv("a", "1", (2, 3, 2))]), "\"a\"=\"1\""),
        (found(4, vec![kv("a", "2", (3, 3, 2))]), "created 3"),
        (found(4, vec![kv("a", "2", (2, 3, 1))]), "version 1"),
        (found(4, vec![kv("a", "2", (2, 4, 2))]), "mod 4"),
        (pb::RangeResponse { more: true, ..found(4, vec![kv("a", "2", (2, 3, 2))]) }, "more is true"),
        (pb::RangeResponse { count: 2, ..found(4, vec![kv("a", "2", (2, 3, 2))]) }, "the count is 2, not 1"),
    ];
    for (answer, words) in cases {
        let mut tale = tale();
        tale.ok((90, 95), get("a"), answer);
        wrong(&tale, "linear/read", words);
    }
    let mut before = tale();
    let answer = pb::PutResponse { header: header(5), prev_kv: Some(kv("b", "x", (4, 4, 2))) };
    before.ok((90, 95), pb::PutRequest { prev_kv: true, ..put("b", "z") }, answer);
    wrong(&before, "linear/write", "what was there before");
    let mut nothing = tale();
    nothing.ok((90, 95), delete("c"), done_delete(5, 1));
    wrong(&nothing, "linear/write", "there was nothing for it to change");
    let mut future = tale();
    future.ok((90, 95), pb::RangeRequest { revision: 9, ..get("c") }, found(4, vec![]));
    wrong(&future, "linear/read", "should have been refused");
    let mut mixed = tale();
    let serializable = pb::RangeRequest { serializable: true, ..all() };
    mixed.ok((90, 95), serializable, found(3, vec![kv("a", "1", (2, 2, 1))]));
    wrong(&mixed, "linear/serializable", "\"a\"=\"1\"");
}

#[test]
fn a_revision_needs_an_owner() {
    let mut nobody = tale();
    nobody.ok((90, 95), get("c"), found(5, vec![]));
    wrong(&nobody, "linear/unexplained-revision", "revision 5 was passed");
    let mut refused = tale();
    refused.refused((82, 83), put("c", "v"), Refusal::NoSpace).ok(
        (90, 95),
        get("c"),
        found(5, vec![kv("c", "v", (5, 5, 1))]),
    );
    wrong(&refused, "linear/refused-but-done", "is there at revision 5");
    let mut twice = tale();
    twice.ok((90, 95), get("b"), found(5, vec![kv("b", "x", (4, 5, 2))]));
    wrong(&twice, "at_most_once/applied-twice", "was written again at 5");
    let mut open_twice = tale();
    open_twice.ok((90, 95), get("a"), found(5, vec![kv("a", "2", (2, 5, 3))]));
    wrong(&open_twice, "at_most_once/applied-twice", "revision 5 was seen with");
    let mut early = Tale::new();
    early.ok((0, 10), get("a"), found(2, vec![kv("a", "1", (2, 2, 1))])).open(20, put("a", "1"));
    wrong(&early, "at_most_once/applied-twice", "revision 2");
    let mut far = tale();
    far.ok((90, 95), get("c"), found(i64::MAX, vec![]));
    wrong(&far, "linear/unexplained-revision", "revision 5");
}

#[test]
fn the_search_finds_what_fits() {
    // Three open calls and one revision passed in the dark; only a later read tells which it was.
    let mut dark = Tale::new();
    dark.ok((0, 10), put("a", "1"), done_put(2))
        .open(11, put("b", "1"))
        .open(12, delete("a"))
        .open(13, put("c", "1"))
        .ok((20, 30), put("d", "1"), done_put(4))
        .ok((40, 50), get("d"), found(4, vec![kv("d", "1", (4, 4, 1))]))
        .ok((60, 70), get("b"), found(4, vec![]))
        .ok((60, 70), get("c"), found(4, vec![]))
        .ok((60, 70), get("a"), found(4, vec![]));
    right(&dark);
    let mut none = dark.clone();
    none.ok((80, 90), get("a"), found(4, vec![kv("a", "1", (2, 2, 1))]));
    let rules = sim::check::linear::check(&none.history);
    assert!(!rules.is_empty(), "nothing can have made revision 3");
    // A watch leaves nothing to search.
    let mut watched = dark.clone();
    let seen = vec![put_event(kv("a", "1", (2, 2, 1)), None), delete_event("a", 3, None)];
    watched.watch(0, watch_all(2), vec![(1, created(1)), (90, events(3, seen))]);
    right(&watched);
}

#[test]
fn a_lease_may_end_in_a_gap() {
    let mut tale = Tale::new();
    let grant = pb::LeaseGrantRequest { ttl: 0, id: 7 };
    let granted = pb::LeaseGrantResponse { header: header(1), id: 7, ttl: 2, error: String::new() };
    tale.ok((0, 5), grant, granted)
        .ok((10, 20), leased("a", "1", 7), done_put(2))
        .ok((20, 30), leased("b", "1", 7), done_put(3))
        .ok((9_000_000, 9_000_030), all(), found(4, vec![]));
    right(&tale);
    let mut half = tale.clone();
    half.ok((9_000_040, 9_000_050), all(), found(4, vec![kv("b", "1", (3, 3, 1))]));
    wrong(&half, "linear/read", "the count is 1, not 0");
}

fn op(request: Request) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

fn answer(response: Response) -> pb::ResponseOp {
    pb::ResponseOp { response: Some(response) }
}

fn inner(revision: i64) -> Option<pb::ResponseHeader> {
    Some(pb::ResponseHeader { revision, ..Default::default() })
}

/// If a's version is 2: nested (if b exists: delete b), get a at revision 2, put c.
fn txn() -> pb::TxnRequest {
    let guard = |key: &str, target: CompareTarget, union| pb::Compare {
        key: bytes(key),
        target: target.into(),
        target_union: Some(union),
        ..Default::default()
    };
    let nested = pb::TxnRequest {
        compare: vec![guard("b", CompareTarget::Create, pb::compare::TargetUnion::CreateRevision(4))],
        success: vec![op(Request::RequestDeleteRange(delete("b")))],
        failure: vec![],
    };
    pb::TxnRequest {
        compare: vec![guard("a", CompareTarget::Version, pb::compare::TargetUnion::Version(2))],
        success: vec![
            op(Request::RequestTxn(nested)),
            op(Request::RequestRange(pb::RangeRequest { revision: 2, ..get("a") })),
            op(Request::RequestPut(put("c", "t"))),
        ],
        failure: vec![],
    }
}

fn txn_done() -> pb::TxnResponse {
    let nested = pb::TxnResponse {
        header: inner(0),
        succeeded: true,
        responses: vec![answer(Response::ResponseDeleteRange(pb::DeleteRangeResponse {
            header: inner(5),
            ..done_delete(0, 1)
        }))],
    };
    let range = pb::RangeResponse { header: inner(5), ..found(0, vec![kv("a", "1", (2, 2, 1))]) };
    pb::TxnResponse {
        header: header(5),
        succeeded: true,
        responses: vec![
            answer(Response::ResponseTxn(nested)),
            answer(Response::ResponseRange(range)),
            answer(Response::ResponsePut(pb::PutResponse { header: inner(5), prev_kv: None })),
        ],
    }
}

#[test]
fn transactions_are_replayed() {
    let mut good = tale();
    good.ok((90, 95), txn(), txn_done()).ok(
        (100, 105),
        all(),
        found(5, vec![kv("a", "2", (2, 3, 2)), kv("c", "t", (5, 5, 1))]),
    );
    right(&good);
    let mut failed = tale();
    let answer = pb::TxnResponse { header: header(4), succeeded: false, responses: vec![] };
    failed.ok((90, 95), txn(), answer);
    wrong(&failed, "linear/read", "it should have changed something");
    let mut fewer = tale();
    let mut answer = txn_done();
    answer.responses.pop();
    fewer.ok((90, 95), txn(), answer);
    wrong(&fewer, "linear/write", "it has 2 answers, not 3");
    let mut inside = tale();
    let mut answer = txn_done();
    if let Some(Response::ResponsePut(put)) = &mut answer.responses[2].response {
        put.header = inner(4);
    }
    inside.ok((90, 95), txn(), answer);
    wrong(&inside, "linear/write", "in its operation 2, the revision in its header is 4, not 5");
}

#[test]
fn malformed_requests_are_refused() {
    let twice = pb::TxnRequest {
        success: vec![op(Request::RequestPut(put("a", "1"))), op(Request::RequestPut(put("a", "2")))],
        ..Default::default()
    };
    let mut fine = tale();
    fine.refused((90, 95), twice.clone(), Refusal::DuplicateKey);
    right(&fine);
    let mut taken = tale();
    let answers = vec![answer(Response::ResponsePut(pb::PutResponse { header: inner(5), prev_kv: None })); 2];
    taken.ok((90, 95), twice, pb::TxnResponse { header: header(5), succeeded: true, responses: answers });
    wrong(&taken, "linear/well-formed", "duplicate key given");
    let mut picky = tale();
    picky.refused((90, 95), put("a", "3"), Refusal::EmptyKey);
    wrong(&picky, "linear/well-formed", "which it is not");
    let mut there = tale();
    there.refused((90, 95), pb::PutRequest { ignore_value: true, ..put("a", "") }, Refusal::KeyNotFound);
    wrong(&there, "linear/refused", "its key is not there");
}
