//! Sessions about keys and values.

use bytes::Bytes;
use kontiki::wire::etcdserverpb::{
    CompactionRequest, Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
    compare::{CompareResult, CompareTarget, TargetUnion},
    range_request::{SortOrder, SortTarget},
    request_op::Request,
};

use crate::{
    call::{Ask, Call},
    replay,
};

pub fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

pub fn range(key: &str, end: &str) -> RangeRequest {
    RangeRequest { key: bytes(key), range_end: bytes(end), ..Default::default() }
}

pub fn get(key: &str) -> Ask {
    Ask::Range(range(key, ""))
}

fn get_at(key: &str, revision: i64) -> Ask {
    Ask::Range(RangeRequest { revision, ..range(key, "") })
}

pub fn put_of(key: &str, value: &str) -> PutRequest {
    PutRequest { key: bytes(key), value: bytes(value), ..Default::default() }
}

pub fn put(key: &str, value: &str) -> Ask {
    Ask::Put(put_of(key, value))
}

pub fn delete_of(key: &str, end: &str) -> DeleteRangeRequest {
    DeleteRangeRequest { key: bytes(key), range_end: bytes(end), prev_kv: false }
}

pub fn delete(key: &str, end: &str) -> Ask {
    Ask::Delete(delete_of(key, end))
}

pub fn compact(revision: i64, physical: bool) -> Ask {
    Ask::Compact(CompactionRequest { revision, physical })
}

fn op(request: Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

pub fn p(key: &str, value: &str) -> RequestOp {
    op(Request::RequestPut(put_of(key, value)))
}

fn r(key: &str) -> RequestOp {
    op(Request::RequestRange(range(key, "")))
}

pub fn d(key: &str, end: &str) -> RequestOp {
    op(Request::RequestDeleteRange(delete_of(key, end)))
}

fn t(compare: Vec<Compare>, success: Vec<RequestOp>, failure: Vec<RequestOp>) -> RequestOp {
    op(Request::RequestTxn(TxnRequest { compare, success, failure }))
}

fn txn(compare: Vec<Compare>, success: Vec<RequestOp>, failure: Vec<RequestOp>) -> Ask {
    Ask::Txn(TxnRequest { compare, success, failure })
}

pub fn then(success: Vec<RequestOp>) -> Ask {
    txn(vec![], success, vec![])
}

fn compare_range(
    key: &str,
    end: &str,
    target: CompareTarget,
    result: CompareResult,
    operand: Option<TargetUnion>,
) -> Compare {
    Compare {
        key: bytes(key),
        range_end: bytes(end),
        target: target as i32,
        result: result as i32,
        target_union: operand,
    }
}

fn if_(key: &str, target: CompareTarget, result: CompareResult, operand: Option<TargetUnion>) -> Ask {
    txn(vec![compare_range(key, "", target, result, operand)], vec![], vec![])
}

const ALL: [&str; 2] = ["\0", "\0"];

#[tokio::test]
#[ignore = "needs a real etcd to compare with: set ETCD_BIN"]
async fn reads() {
    let rr = |f: fn(&mut RangeRequest)| {
        let mut request = range("r/", "r0");
        f(&mut request);
        Ask::Range(request)
    };
    let sort = |order: SortOrder, target: SortTarget, limit| {
        let (sort_order, sort_target) = (order as i32, target as i32);
        Ask::Range(RangeRequest { sort_order, sort_target, limit, keys_only: true, ..range("r/", "r0") })
    };
    let mut calls: Vec<Call> = vec![get("a").note("a fresh store is at revision 1")];
    for (key, value) in [("a", "1"), ("a", "2"), ("b", "1")] {
        calls.push(put(key, value).into());
    }
    calls.push(delete("nosuch", "").note("a deletion of nothing keeps the revision"));
    calls.extend([delete("a", ""), put("a", "3"), get("a")].map(Call::from));
    for key in ["r/a", "r/b", "r/c", "r/d"] {
        calls.push(put(key, &key[2..]).into());
    }
    let count = |key, end| Ask::Range(RangeRequest { count_only: true, ..range(key, end) });
    calls.extend([
        count(ALL[0], ALL[1]).note("all keys"),
        count("r/b", "\0").note("from a key on"),
        Ask::Range(range("r/b", "r/b")).note("an empty range"),
        Ask::Range(range("r/c", "r/a")).note("an inverted range"),
        Ask::Range(range("", "\0")).note("an empty key"),
        Ask::Range(range("r/b", "\0\0")).note("an end of two zero bytes is an end"),
        get("\0").into(),
    ]);
    calls.extend(
        [1, 2, 3, 4, 5, 10, -1]
            .map(|limit| Ask::Range(RangeRequest { limit, ..range("r/", "r0") }).note("limits")),
    );
    calls.push(put("r/b", "zz").into());
    calls.push(rr(|r| r.keys_only = true).into());
    calls.push(Ask::Range(RangeRequest { limit: 1, count_only: true, ..range("r/", "r0") }).into());
    for order in [SortOrder::None, SortOrder::Ascend, SortOrder::Descend] {
        for target in
            [SortTarget::Key, SortTarget::Version, SortTarget::Create, SortTarget::Mod, SortTarget::Value]
        {
            calls.extend([0, 2].map(|limit| sort(order, target, limit).note("sorting")));
        }
    }
    calls.push(rr(|r| r.sort_order = 9).note("an unknown order is none"));
    calls.extend([
        rr(|r| r.min_mod_revision = 9).note("filters; the count is not filtered"),
        rr(|r| r.max_mod_revision = 9).into(),
        rr(|r| (r.min_mod_revision, r.max_mod_revision, r.limit) = (9, 9, 1)).into(),
        rr(|r| (r.min_create_revision, r.limit) = (9, 1)).note("more is of the filtered"),
        rr(|r| r.max_create_revision = 1).into(),
        rr(|r| (r.min_mod_revision, r.count_only) = (9, true)).into(),
        rr(|r| (r.keys_only, r.count_only) = (true, true)).into(),
        rr(|r| (r.min_mod_revision, r.sort_order, r.limit) = (8, 2, 2)).into(),
    ]);
    calls.extend([3, 9999, -5, 2, 0].map(|revision| get_at("a", revision).note("past revisions")));
    calls.push(get_at("nosuch", 2).into());
    calls.push(Ask::Range(RangeRequest { serializable: true, ..range("a", "") }).into());
    calls.extend([1, 7, 9, 10].map(|revision| {
        Ask::Range(RangeRequest { revision, ..range("r/", "r0") }).note("ranges in the past")
    }));
    replay(0, calls).await;
}

#[tokio::test]
#[ignore = "needs a real etcd to compare with: set ETCD_BIN"]
async fn writes() {
    let with = |key: &str, value: &str, f: fn(&mut PutRequest)| {
        let mut request = put_of(key, value);
        f(&mut request);
        Ask::Put(request)
    };
    let calls: Vec<Call> = vec![
        put("a", "1").into(),
        with("a", "4", |p| p.prev_kv = true).into(),
        with("new1", "x", |p| p.prev_kv = true).note("no previous value"),
        with("a", "", |p| p.ignore_value = true).into(),
        with("a", "x", |p| p.ignore_value = true).into(),
        with("nokey", "", |p| p.ignore_value = true).into(),
        with("a", "", |p| (p.lease, p.ignore_lease) = (5, true)).into(),
        with("a", "q", |p| p.ignore_lease = true).into(),
        with("nokey", "q", |p| p.ignore_lease = true).into(),
        with("a", "", |p| (p.ignore_lease, p.ignore_value) = (true, true)).into(),
        with("a", "v", |p| (p.lease, p.ignore_lease, p.ignore_value) = (5, true, true)).note("both wrong"),
        with("", "v", |p| p.ignore_value = true).note("the key comes first"),
        with("a", "", |p| p.lease = 77).into(),
        with("a", "x", |p| p.lease = -1).into(),
        with("nokey", "", |p| (p.lease, p.ignore_value) = (77, true)).note("lease before key"),
        put("", "x").into(),
        put("a", "").note("an empty value"),
        put("\0", "zero").into(),
        get("\0").into(),
        put("r/c", "c").into(),
        put("r/d", "d").into(),
        Ask::Delete(DeleteRangeRequest { prev_kv: true, ..delete_of("r/c", "r0") }).into(),
        Ask::Delete(DeleteRangeRequest { prev_kv: true, ..delete_of("r/c", "r0") }).note("nothing is left"),
        delete("r/z", "r/y").into(),
        delete("", "").into(),
        delete("", "\0").into(),
        delete("\0", "\0").note("all"),
        Ask::Range(range("\0", "\0")).into(),
    ];
    replay(1, calls).await;
}

#[tokio::test]
#[ignore = "needs a real etcd to compare with: set ETCD_BIN"]
async fn transactions() {
    let dup = |ops: Vec<RequestOp>| then(ops).note("keys written twice");
    let put_n = || vec![p("n1", "v")];
    let mut calls: Vec<Call> = vec![
        put("a", "1").into(),
        then(vec![r("t1"), p("t1", "1"), r("t1"), p("t2", "2"), d("a", ""), r("a"), d("nosuch", "")])
            .note("inner revisions"),
        Ask::Range(range("t", "u")).into(),
        then(vec![d("nosuch", ""), r("t1")]).note("without effect"),
        then(vec![]).note("empty"),
        then(vec![RequestOp { request: None }]).note("an empty operation"),
        then(vec![p("", "v")]).into(),
        txn(vec![Compare::default()], vec![], vec![]).note("a compare without a key"),
        dup(vec![p("d", "v"), p("d", "v")]),
        dup(vec![p("d", "v"), d("d", "")]),
        dup(vec![d("d", ""), p("d", "v")]),
        dup(vec![d("d", ""), d("d", "")]),
        dup(vec![p("d1", "v"), d("d", "e")]),
        txn(vec![], vec![p("d", "v")], vec![p("d", "v")]).into(),
        dup(vec![t(vec![], put_n(), put_n())]),
        dup(vec![t(vec![], put_n(), vec![]), p("n1", "v")]),
        dup(vec![t(vec![], put_n(), vec![]), t(vec![], put_n(), vec![])]),
        dup(vec![t(vec![], put_n(), vec![]), d("n1", "")]),
        dup(vec![p("n2", "v"), t(vec![], vec![d("n2", "")], vec![])]),
        dup(vec![p("n2", "v"), t(vec![], vec![], vec![d("n2", "")])]),
        dup(vec![t(vec![], vec![d("n3", "")], vec![]), t(vec![], vec![p("n3", "v")], vec![])]),
        dup(vec![t(vec![], put_n(), vec![p("q1", "v"), p("q1", "v")])]),
        dup(vec![t(vec![], vec![d("a", "c"), d("c", "e")], vec![]), t(vec![], vec![p("d", "v")], vec![])]),
        dup(vec![d("a", "c"), t(vec![], vec![d("b", "")], vec![]), t(vec![], vec![p("c", "v")], vec![])]),
    ];
    calls.extend(written_twice());
    calls.extend(nested());
    calls.extend(compares());
    calls.extend(failing());
    calls.extend(sizes());
    replay(2, calls).await;
}

/// What etcd lets a transaction do to one key, each followed by a look at what became of it.
fn written_twice() -> Vec<Call> {
    let one = |op| t(vec![], vec![op], vec![]);
    let mut calls = Vec::new();
    for ops in [
        vec![p("q1", "v"), d("q", "\0")],
        vec![d("q", "\0"), p("q1", "w")],
        vec![p("q1", "x"), d("\0", "\0")],
        vec![p("q1", "y"), d("z", "a"), d("q1", "q1")],
        vec![one(p("q1", "z")), one(d("q1", ""))],
        vec![d("q", "\0"), p("q1", "1"), r("q1"), d("q1", "\0"), r("q1")],
        vec![d("q", "\0"), p("q1", "2"), p("q2", "2"), r("q1")],
    ] {
        calls.push(then(ops).note("written and deleted"));
        calls.push(Ask::Range(range("q", "r")).into());
    }
    calls.push(put("q1", "again").into());
    calls.push(get("q1").into());
    calls.push(Ask::HashKv(0).note("the history is the same to the byte"));
    calls.extend([p("t1", "1"), p("t2", "2")].map(|op| then(vec![op]).into()));
    calls
}

fn nested() -> Vec<Call> {
    let value_is = |key, value: &str| {
        let operand = Some(TargetUnion::Value(bytes(value)));
        compare_range(key, "", CompareTarget::Value, CompareResult::Equal, operand)
    };
    let inner = t(vec![value_is("ne", "1")], vec![p("res", "then")], vec![p("res", "else")]);
    let deep = t(vec![], vec![t(vec![], vec![p("deep", "1")], vec![])], vec![]);
    vec![
        then(vec![p("ne", "1"), inner]).note("a nested compare sees what was before"),
        get("res").into(),
        then(vec![deep]).into(),
        then(vec![r("t1"), t(vec![], vec![r("t2")], vec![])]).note("reads alone, nested"),
    ]
}

fn compares() -> Vec<Call> {
    use CompareResult::{Equal, Greater, Less, NotEqual};
    let mut calls = Vec::new();
    for result in [Equal, Greater, Less, NotEqual] {
        for n in [-1, 0, 1, 2, 1_000] {
            for key in ["t1", "nk"] {
                let operands = [
                    (CompareTarget::Version, TargetUnion::Version(n)),
                    (CompareTarget::Create, TargetUnion::CreateRevision(n)),
                    (CompareTarget::Mod, TargetUnion::ModRevision(n)),
                    (CompareTarget::Lease, TargetUnion::Lease(n)),
                    (CompareTarget::Version, TargetUnion::ModRevision(n)),
                ];
                calls.extend(
                    operands
                        .map(|(target, operand)| if_(key, target, result, Some(operand)).note("compares")),
                );
            }
        }
        for key in ["t1", "nk"] {
            for value in ["", "0", "1", "10", "2"] {
                let operand = Some(TargetUnion::Value(bytes(value)));
                calls.push(if_(key, CompareTarget::Value, result, operand).note("values"));
            }
            calls.push(if_(key, CompareTarget::Version, result, None).note("no operand"));
            calls.push(if_(key, CompareTarget::Value, result, None).note("no operand"));
        }
    }
    for (key, end) in [("t", "u"), ("zz1", "zz9"), ("t1", "\0"), ("u", "t"), ("t1", "t1")] {
        for (result, n) in [(Equal, 0), (Greater, 0), (Greater, 1), (NotEqual, 1)] {
            let compare =
                compare_range(key, end, CompareTarget::Version, result, Some(TargetUnion::Version(n)));
            calls.push(txn(vec![compare], vec![], vec![]).note("ranges of keys"));
        }
    }
    let unknown_target = Compare { key: bytes("t1"), target: 9, ..Default::default() };
    let unknown_result = Compare {
        key: bytes("t1"),
        result: 9,
        target_union: Some(TargetUnion::Version(5)),
        ..Default::default()
    };
    calls.push(txn(vec![unknown_target.clone()], vec![], vec![]).note("an unknown target"));
    calls.push(txn(vec![Compare { result: 1, ..unknown_target }], vec![], vec![]).into());
    calls.push(txn(vec![unknown_result], vec![], vec![]).note("an unknown relation"));
    calls
}

fn failing() -> Vec<Call> {
    let reading = |f: fn(&mut RangeRequest)| {
        let mut request = range("t1", "u");
        f(&mut request);
        op(Request::RequestRange(request))
    };
    let putting = |f: fn(&mut PutRequest)| {
        let mut request = put_of("t1", "x");
        f(&mut request);
        op(Request::RequestPut(request))
    };
    let never =
        compare_range("t1", "", CompareTarget::Version, CompareResult::Equal, Some(TargetUnion::Version(77)));
    let prev = op(Request::RequestPut(PutRequest { prev_kv: true, ..put_of("pk", "1") }));
    vec![
        then(vec![reading(|r| (r.limit, r.sort_order) = (1, 2))]).note("options of a range"),
        then(vec![reading(|r| r.revision = 9999)]).into(),
        then(vec![p("t1", "1"), reading(|r| r.revision = 9999)]).note("nothing is written"),
        get("t1").into(),
        then(vec![putting(|p| p.ignore_value = true)]).into(),
        then(vec![putting(|p| (p.ignore_value, p.value, p.key) = (true, bytes(""), bytes("nok")))]).into(),
        then(vec![putting(|p| p.lease = 99)]).into(),
        txn(vec![never.clone()], vec![p("okk", "1")], vec![putting(|p| p.lease = 99)]).into(),
        txn(vec![never], vec![putting(|p| p.lease = 99)], vec![p("okk", "1")]).note("only the taken branch"),
        then(vec![p("w1", "1"), reading(|r| r.revision = 2)]).note("a past read while writing"),
        then(vec![prev.clone(), r("pk")]).into(),
        then(vec![prev]).note("with the previous"),
    ]
}

fn sizes() -> Vec<Call> {
    let puts = |n: usize, prefix: &str| (0..n).map(|i| p(&format!("{prefix}{i}"), "v")).collect::<Vec<_>>();
    vec![
        then(puts(129, "k")).note("one too many"),
        then(vec![t(vec![], puts(128, "k"), vec![])]).note("one too many, nested"),
        then(vec![t(vec![], puts(127, "kk"), vec![])]).into(),
        then(puts(128, "k")).into(),
        txn((0..129).map(|_| Compare { key: bytes("a"), ..Default::default() }).collect(), vec![], vec![])
            .into(),
    ]
}

#[tokio::test]
#[ignore = "needs a real etcd to compare with: set ETCD_BIN"]
async fn compactions() {
    let mut calls: Vec<Call> = Vec::new();
    for i in 2..=20 {
        calls.push(put("t1", &i.to_string()).into());
    }
    calls.push(put("gone", "x").into());
    calls.push(delete("gone", "").into());
    calls.extend([put("a", "1"), delete("a", ""), then(vec![p("t2", "1"), p("t3", "1")])].map(Call::from));
    calls.push(Ask::HashKv(0).note("the hash of all history"));
    calls.push(Ask::HashKv(10).note("the hash of some history"));
    calls.extend([
        compact(0, false).note("0 is taken once"),
        compact(0, false).into(),
        compact(26, false).note("of the future"),
        compact(-3, false).into(),
        compact(15, false).into(),
        get_at("t1", 15).note("at the compacted revision"),
        get_at("t1", 14).into(),
        get_at("nosuch", 14).into(),
        then(vec![op(Request::RequestRange(RangeRequest { revision: 14, ..range("t1", "") }))]).into(),
        compact(15, false).note("again"),
        compact(14, true).into(),
        compact(21, true).note("past a deletion"),
        get_at("gone", 21).into(),
        Ask::HashKv(0).note("the hash behind a compaction"),
        Ask::HashKv(22).into(),
        Ask::HashKv(20).note("the hash of what is compacted"),
        Ask::HashKv(99).note("the hash of the future"),
        compact(25, true).note("all"),
        get("t1").into(),
        get_at("t1", 25).into(),
        Ask::HashKv(0).into(),
        put("t1", "last").into(),
        Ask::HashKv(0).into(),
        Ask::Range(range("\0", "\0")).into(),
    ]);
    replay(3, calls).await;
}

#[tokio::test]
#[ignore = "needs a real etcd to compare with: set ETCD_BIN"]
async fn large_requests() {
    let big = |n: usize| put("big", &"x".repeat(n));
    let calls: Vec<Call> = vec![
        big(1_570_000).into(),
        big(1_572_864).note("over the limit once framed"),
        big(2_200_000).note("over what gRPC takes"),
        Ask::Range(RangeRequest { keys_only: true, ..range("big", "") }).into(),
        get("big").into(),
    ];
    replay(4, calls).await;
}
