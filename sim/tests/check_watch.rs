//! The oracles for watches and compaction.

mod support;

use kontiki::{
    error::Refusal,
    wire::{
        etcdserverpb::{self as pb, request_op::Request, watch_create_request::FilterType},
        mvccpb,
    },
};
use sim::history::Micros;
use support::*;

/// a=1@2, b=1@3, a=2@4, a deleted@5, b=2@6.
fn tale() -> Tale {
    let mut tale = Tale::new();
    tale.ok((0, 10), put("a", "1"), done_put(2))
        .ok((20, 30), put("b", "1"), done_put(3))
        .ok((40, 50), put("a", "2"), done_put(4))
        .ok((60, 70), delete("a"), done_delete(5, 1))
        .ok((80, 90), put("b", "2"), done_put(6));
    tale
}

fn a1() -> pb::WatchResponse {
    events(2, vec![put_event(kv("a", "1", (2, 2, 1)), None)])
}

fn b1() -> pb::WatchResponse {
    events(3, vec![put_event(kv("b", "1", (3, 3, 1)), None)])
}

fn a2() -> pb::WatchResponse {
    events(4, vec![put_event(kv("a", "2", (2, 4, 2)), Some(kv("a", "1", (2, 2, 1))))])
}

fn gone() -> pb::WatchResponse {
    events(5, vec![delete_event("a", 5, Some(kv("a", "2", (2, 4, 2))))])
}

fn b2() -> pb::WatchResponse {
    events(6, vec![put_event(kv("b", "2", (3, 6, 2)), Some(kv("b", "1", (3, 3, 1))))])
}

fn create(start_revision: i64) -> pb::WatchCreateRequest {
    pb::WatchCreateRequest { prev_kv: true, ..watch_all(start_revision) }
}

fn progress(revision: i64) -> pb::WatchResponse {
    events(revision, vec![])
}

/// The tale with one watch that got these responses, one each ten microseconds from 100 on.
fn seen(create: pb::WatchCreateRequest, responses: Vec<pb::WatchResponse>) -> Tale {
    let mut tale = tale();
    let responses = (10..).map(|n| n * 10).zip(responses).collect();
    tale.watch(95, create, responses);
    tale
}

#[test]
fn right_watches_pass() {
    right(&seen(create(0), vec![created(1), a1(), b1(), a2(), gone(), b2()]));
    right(&seen(create(0), vec![created(3), a2(), progress(4), gone(), b2(), progress(6)]));
    right(&seen(create(3), vec![created(6), b1(), a2(), gone(), b2()]));
    right(&seen(create(9), vec![created(6), progress(6)]));
    right(&seen(create(-1), vec![created(6)]));
    // From the past all in one.
    let whole = [a1(), b1(), a2(), gone(), b2()].into_iter().flat_map(|r| r.events).collect();
    right(&seen(create(1), vec![created(6), events(6, whole)]));
    let one = pb::WatchCreateRequest { key: bytes("b"), range_end: bytes(""), ..create(1) };
    right(&seen(one, vec![created(6), b1(), b2(), progress(6)]));
    let filtered = pb::WatchCreateRequest { filters: vec![FilterType::Noput.into()], ..create(1) };
    right(&seen(filtered, vec![created(6), gone(), progress(6)]));
    let mut bare = a2();
    bare.events[0].prev_kv = None;
    right(&seen(watch_all(4), vec![created(6), bare]));
}

#[test]
fn wrong_watches_do_not() {
    let cases = [
        (vec![a1()], "watch/created-first"),
        (vec![created(1), created(1)], "watch/created-first"),
        (vec![created(1), a1(), a2()], "watch/reliable"),
        (vec![created(1), progress(2)], "watch/reliable"),
        (vec![created(1), b1(), a1()], "watch/ordered"),
        (vec![created(1), a1(), a1()], "watch/unique"),
        (vec![created(1), a1(), progress(3), b1()], "watch/bookmark"),
        (vec![created(2), a1()], "watch/start"),
        (vec![created(1), pb::WatchResponse { header: header(1), ..a1() }], "watch/header"),
        (vec![created(1), pb::WatchResponse { fragment: true, ..a1() }], "watch/fragment"),
        (vec![created(1), events(2, vec![put_event(kv("a", "x", (2, 2, 1)), None)])], "watch/events"),
        (vec![created(1), events(2, vec![put_event(kv("c", "1", (2, 2, 1)), None)])], "watch/events"),
        (vec![created(1), events(2, vec![delete_event("a", 2, None)])], "watch/events"),
        (vec![created(1), events(2, vec![mvccpb::Event { kv: None, ..Default::default() }])], "watch/event"),
        (vec![created(3), events(4, vec![put_event(kv("a", "2", (2, 4, 2)), None)])], "watch/prev-kv"),
        (
            vec![
                created(3),
                events(4, vec![put_event(kv("a", "2", (2, 4, 2)), Some(kv("a", "2", (2, 4, 2))))]),
            ],
            "watch/prev-kv",
        ),
        (vec![created(1), pb::WatchResponse { canceled: true, ..progress(2) }], "watch/canceled"),
        (
            vec![created(1), pb::WatchResponse { canceled: true, compact_revision: 4, ..progress(0) }],
            "watch/compacted",
        ),
        (
            vec![
                created(1),
                pb::WatchResponse { canceled: true, cancel_reason: "x".to_owned(), ..progress(2) },
                a1(),
            ],
            "watch/after-cancel",
        ),
    ];
    for (responses, rule) in cases {
        wrong(&seen(create(0), responses), rule, "watch 100");
    }
    let unasked = seen(watch_all(4), vec![created(6), a2()]);
    wrong(&unasked, "watch/prev-kv", "not nothing");
    let negative = seen(create(-1), vec![created(6), a1()]);
    wrong(&negative, "watch/start", "got revision 2");
    let refusal = pb::WatchResponse { canceled: true, ..created(1) };
    wrong(&seen(create(0), vec![refusal.clone()]), "watch/canceled", "refused without a reason");
    right(&seen(create(0), vec![pb::WatchResponse { cancel_reason: "x".to_owned(), ..refusal }]));
    let cut = pb::WatchResponse { fragment: true, ..a1() };
    let fragments = pb::WatchCreateRequest { fragment: true, ..create(0) };
    wrong(
        &seen(fragments, vec![created(1), cut, progress(2)]),
        "watch/fragment",
        "in the middle of a response",
    );
    let id = seen(pb::WatchCreateRequest { watch_id: 4, ..create(0) }, vec![created(6)]);
    wrong(&id, "watch/id", "had asked for 4");
}

#[test]
fn revisions_come_whole() {
    let two = pb::DeleteRangeRequest { range_end: bytes("c"), ..delete("a") };
    let mut both = Tale::new();
    both.ok((0, 10), put("a", "1"), done_put(2)).ok((20, 30), put("b", "1"), done_put(3)).ok(
        (40, 50),
        two,
        done_delete(4, 2),
    );
    let split = |more: bool| {
        let mut tale = both.clone();
        let half = |key| pb::WatchResponse {
            fragment: more && key == "a",
            ..events(4, vec![delete_event(key, 4, None)])
        };
        let create = pb::WatchCreateRequest { fragment: more, ..watch_all(4) };
        tale.watch(60, create, vec![(61, created(3)), (62, half("a")), (63, half("b"))]);
        tale
    };
    right(&split(true));
    wrong(&split(false), "watch/atomic", "revision 4 in two responses");
    let mut order = both.clone();
    let events = events(4, vec![delete_event("b", 4, None), delete_event("a", 4, None)]);
    order.watch(60, watch_all(4), vec![(61, created(3)), (62, events)]);
    wrong(&order, "watch/events", "revision 4");
}

#[test]
fn ids_are_a_streams_own() {
    let mut tale = seen(create(0), vec![created(6)]);
    tale.watch(200, create(0), vec![(201, created(6))]);
    right(&tale);
    tale.history.watches[1].stream = tale.history.watches[0].stream;
    wrong(&tale, "watch/id", "both have the id 0");
}

#[test]
fn the_calm_demands_events() {
    let mut tale = seen(create(0), vec![created(1), a1(), b1(), a2()]);
    tale.history.settings.calm_from = Some(Micros(200));
    tale.history.settings.ended = Micros::from_secs(60);
    wrong(&tale, "watch/late", "never told of \"a\" deleted at 5");
    let mut whole = seen(create(0), vec![created(1), a1(), b1(), a2(), gone(), b2()]);
    whole.history.settings = tale.history.settings.clone();
    right(&whole);
    whole.history.settings.progress_max = Some(Micros::from_secs(20));
    right(&whole);
    whole.history.watches[0].create.progress_notify = true;
    wrong(&whole, "watch/progress", "no progress notice");
}

fn compact(revision: i64) -> pb::CompactionRequest {
    pb::CompactionRequest { revision, physical: false }
}

fn compacted(revision: i64) -> pb::CompactionResponse {
    pb::CompactionResponse { header: header(revision) }
}

fn at(revision: i64) -> pb::RangeRequest {
    pb::RangeRequest { revision, ..get("a") }
}

#[test]
fn right_compactions_pass() {
    let mut tale = tale();
    tale.ok((100, 110), compact(4), compacted(6))
        .refused((120, 130), at(3), Refusal::Compacted)
        .ok((120, 130), at(4), found(6, vec![kv("a", "2", (2, 4, 2))]))
        .ok((105, 130), at(3), found(6, vec![kv("a", "1", (2, 2, 1))]))
        .ok(
            (120, 130),
            pb::RangeRequest { serializable: true, ..at(3) },
            found(6, vec![kv("a", "1", (2, 2, 1))]),
        )
        .refused((120, 130), compact(4), Refusal::Compacted)
        .refused((120, 130), compact(7), Refusal::FutureRevision)
        .refused((120, 130), at(7), Refusal::FutureRevision)
        .open(140, compact(5))
        .refused((150, 160), at(4), Refusal::Compacted)
        .ok((150, 160), at(4), found(6, vec![kv("a", "2", (2, 4, 2))]));
    // A watch from what is gone, and prev_kv that is.
    let canceled = pb::WatchResponse { canceled: true, compact_revision: 4, ..Default::default() };
    tale.watch(120, create(3), vec![(121, created(6)), (122, canceled)]);
    let mut bare = a2();
    bare.events[0].prev_kv = None;
    tale.watch(120, create(4), vec![(121, created(6)), (122, bare)]);
    right(&tale);
}

#[test]
fn wrong_compactions_do_not() {
    let after = |more: &dyn Fn(&mut Tale)| {
        let mut tale = tale();
        tale.ok((100, 110), compact(4), compacted(6));
        more(&mut tale);
        tale
    };
    let read = after(&|tale| {
        tale.ok((120, 130), at(3), found(6, vec![kv("a", "1", (2, 2, 1))]));
    });
    wrong(&read, "compaction/gone", "at revision 3");
    let refused = after(&|tale| {
        tale.refused((120, 130), at(4), Refusal::Compacted);
    });
    wrong(&refused, "compaction/refused", "nobody had asked");
    let early = after(&|tale| {
        tale.refused((80, 90), at(2), Refusal::Compacted);
    });
    wrong(&early, "compaction/refused", "nobody had asked");
    let future = after(&|tale| {
        tale.refused((120, 130), at(6), Refusal::FutureRevision);
    });
    wrong(&future, "compaction/future", "revision 6 had been seen");
    let twice = after(&|tale| {
        tale.ok((120, 130), compact(3), compacted(6));
    });
    wrong(&twice, "compaction/twice", "compaction to 3");
    let ahead = after(&|tale| {
        tale.ok((120, 130), compact(9), compacted(6));
    });
    wrong(&ahead, "compaction/future", "accepted at revision 6");
    let known = after(&|tale| {
        tale.refused((120, 130), compact(6), Refusal::FutureRevision);
    });
    wrong(&known, "compaction/future", "revision 6 had been seen");
    let none = after(&|tale| {
        tale.refused((120, 130), compact(5), Refusal::Compacted);
    });
    wrong(&none, "compaction/refused", "nobody had done it");
    let at_start = after(&|tale| {
        let canceled = pb::WatchResponse { canceled: true, compact_revision: 4, ..Default::default() };
        tale.watch(120, create(4), vec![(121, created(6)), (122, canceled)]);
    });
    wrong(&at_start, "watch/compacted", "wants only what is from 4 on");
}

/// One transaction puts x and deletes it, at revision 7, which is then compacted to.
fn put_and_deleted() -> Tale {
    let mut tale = tale();
    let nested = |request| {
        let txn = pb::TxnRequest { success: vec![op(request)], ..Default::default() };
        op(Request::RequestTxn(txn))
    };
    let (put, delete) = (Request::RequestPut(put("x", "1")), Request::RequestDeleteRange(delete("x")));
    let txn = pb::TxnRequest { success: vec![nested(put), nested(delete)], ..Default::default() };
    tale.open(91, txn);
    tale.ok((96, 97), compact(7), compacted(7));
    tale
}

fn op(request: Request) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

#[test]
fn a_compaction_leaves_the_last_change_of_its_revision() {
    // The whole of it was seen before the compaction.
    let x = put_event(kv("x", "1", (7, 7, 1)), None);
    let gone = delete_event("x", 7, None);
    let witness = vec![(94, created(6)), (95, events(7, vec![x.clone(), gone.clone()]))];
    let seen = |filters: Vec<i32>, responses: Vec<pb::WatchResponse>, compacted: bool| {
        let mut tale = put_and_deleted();
        if !compacted {
            tale.history.ops.pop();
        }
        tale.watch(92, watch_all(7), witness.clone());
        let create = pb::WatchCreateRequest { filters, ..watch_all(7) };
        tale.watch(98, create, (10..).map(|n| n * 10).zip(responses).collect());
        tale
    };
    let last = || events(7, vec![gone.clone()]);
    right(&seen(vec![], vec![created(7), last()], true));
    // Without deletions nothing is left of it.
    let no_deletes = vec![FilterType::Nodelete.into()];
    right(&seen(no_deletes.clone(), vec![created(7), progress(7)], true));
    wrong(&seen(no_deletes, vec![created(7), progress(7)], false), "watch/reliable", "never of \"x\"");
    // Two who saw the whole of it can't differ.
    wrong(&seen(vec![], vec![created(7), last()], false), "at_most_once/applied-twice", "revision 7");
    wrong(&seen(vec![], vec![created(7), progress(7)], true), "watch/reliable", "never of \"x\" deleted");
}

#[test]
fn the_calm_demands_answers() {
    let calm = |tale: &mut Tale| {
        tale.history.settings.calm_from = Some(Micros(200));
        tale.history.settings.settle_max = Micros(100);
        tale.history.settings.calm_op_max = Micros(50);
        tale.history.settings.ended = Micros(1_000);
    };
    let all = || vec![created(1), a1(), b1(), a2(), gone(), b2()];
    let mut asked = seen(create(0), all());
    calm(&mut asked);
    asked.history.watches[0].asked = vec![Micros(120), Micros(400), Micros(980)];
    wrong(&asked, "watch/progress", "asked for its progress at 0.000400s");
    asked.history.watches[0].responses.push((Micros(420), progress(6)));
    right(&asked);
    // It waits for one on the same stream that begins later.
    asked.history.watches[0].responses.pop();
    asked.watch(95, create(99), vec![(100, created(6))]);
    let stream = asked.history.watches[0].stream;
    asked.history.watches[1].stream = stream;
    asked.history.watches[1].responses[0].1.watch_id = 1;
    right(&asked);
    let mut left = seen(create(0), all());
    calm(&mut left);
    left.history.watches[0].cancel = Some(Micros(180));
    wrong(&left, "watch/canceled", "never told that it is");
    let end = pb::WatchResponse { canceled: true, ..events(6, vec![]) };
    left.history.watches[0].responses.push((Micros(190), end.clone()));
    right(&left);
    left.history.watches[0].responses.push((Micros(195), end.clone()));
    // A compaction may have ended it already, but nobody ends it three times.
    right(&left);
    left.history.watches[0].responses.push((Micros(196), end));
    wrong(&left, "watch/after-cancel", "after it had been canceled");
}
