//! Random requests to the store and to its model.

mod mvcc_pair;
mod mvcc_tables;

use bytes::Bytes;
use kontiki::{
    mvcc::{
        Compare, CompareResult, CompareTarget, Config, DeleteRequest, Op, PutRequest, RangeRequest,
        SortOrder, SortTarget, TxnRequest,
    },
    types::{KeyRange, LeaseId, Revision},
};
use mvcc_pair::{Action, Pair};
use proptest::{collection::vec, option, prelude::*};

fn key() -> impl Strategy<Value = Bytes> {
    (0..8_u8).prop_map(|n| Bytes::from(vec![b'a' + n]))
}

fn range() -> impl Strategy<Value = KeyRange> {
    let end = prop_oneof![Just(Bytes::new()), Just(Bytes::from_static(b"\0")), key()];
    (key(), end).prop_map(|(key, end)| KeyRange::from_wire(key, end))
}

fn put() -> impl Strategy<Value = PutRequest> {
    let lease = prop_oneof![4 => Just(0), 2 => 1..3_i64, 1 => Just(9)];
    (key(), 0..5_u8, lease, any::<bool>(), 0..8_u8).prop_map(|(key, value, lease, prev_kv, ignore)| {
        PutRequest {
            key,
            value: if ignore == 1 {
                Bytes::new()
            } else {
                Bytes::from(vec![b'0' + value; usize::from(value)])
            },
            lease: LeaseId(if ignore == 2 { 0 } else { lease }),
            prev_kv,
            ignore_value: ignore == 1,
            ignore_lease: ignore == 2,
        }
    })
}

fn delete() -> impl Strategy<Value = DeleteRequest> {
    (range(), any::<bool>()).prop_map(|(range, prev_kv)| DeleteRequest { range, prev_kv })
}

fn read() -> impl Strategy<Value = RangeRequest> {
    let order = prop_oneof![Just(SortOrder::None), Just(SortOrder::Ascend), Just(SortOrder::Descend)];
    let target = prop_oneof![
        3 => Just(SortTarget::Key),
        1 => Just(SortTarget::Version),
        1 => Just(SortTarget::Create),
        1 => Just(SortTarget::Mod),
        1 => Just(SortTarget::Value),
        1 => Just(SortTarget::Unknown)
    ];
    let bound = || option::weighted(0.15, 1..20_i64);
    let revision = prop_oneof![2 => Just(0), 2 => -2..25_i64];
    let whole = (range(), -1..5_i64, revision, order, target, any::<bool>(), prop::bool::weighted(0.1));
    (whole, [bound(), bound(), bound(), bound()]).prop_map(
        |((range, limit, revision, sort_order, sort_target, keys_only, count_only), bounds)| {
            let bound = |n: usize| Revision(bounds[n].unwrap_or(0));
            RangeRequest {
                limit,
                revision: Revision(revision),
                sort_order,
                sort_target,
                keys_only,
                count_only,
                min_mod_revision: bound(0),
                max_mod_revision: bound(1),
                min_create_revision: bound(2),
                max_create_revision: bound(3),
                ..RangeRequest::of(range)
            }
        },
    )
}

fn compare() -> impl Strategy<Value = Compare> {
    let result = prop_oneof![
        Just(CompareResult::Equal),
        Just(CompareResult::Greater),
        Just(CompareResult::Less),
        Just(CompareResult::NotEqual),
        Just(CompareResult::Unknown)
    ];
    let target = prop_oneof![
        (0..3_i64).prop_map(CompareTarget::Version),
        (0..12_i64).prop_map(|n| CompareTarget::Create(Revision(n))),
        (0..12_i64).prop_map(|n| CompareTarget::Mod(Revision(n))),
        (0..3_u8).prop_map(|n| CompareTarget::Value(Bytes::from(vec![b'0' + n; usize::from(n)]))),
        (0..3_i64).prop_map(|n| CompareTarget::Lease(LeaseId(n))),
        Just(CompareTarget::Unknown)
    ];
    (range(), target, result).prop_map(|(range, target, result)| Compare { range, target, result })
}

fn txn() -> impl Strategy<Value = TxnRequest> {
    let op = prop_oneof![put().prop_map(Op::Put), delete().prop_map(Op::Delete), read().prop_map(Op::Range)];
    let of = |op: BoxedStrategy<Op>| {
        (vec(compare(), 0..2), vec(op.clone(), 0..4), vec(op, 0..3))
            .prop_map(|(compare, success, failure)| TxnRequest { compare, success, failure })
    };
    let op = op.boxed();
    let nested = prop_oneof![3 => op.clone(), 1 => of(op.clone()).prop_map(Op::Txn)].boxed();
    of(prop_oneof![3 => op, 2 => of(nested).prop_map(Op::Txn)].boxed())
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        8 => put().prop_map(Action::Put),
        3 => delete().prop_map(Action::Delete),
        6 => txn().prop_map(Action::Txn),
        8 => read().prop_map(Action::Read),
        2 => (-1..4_i64).prop_map(Action::Compact),
        6 => Just(Action::Publish),
        4 => (1..4_usize).prop_map(Action::Step),
        1 => Just(Action::Reopen),
        2 => (0..20_i64, 1..4_usize).prop_map(|(from, max)| Action::History(from, max)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn the_store_is_its_model(
        actions in vec(action(), 1..80),
        cache_bytes_max in prop_oneof![Just(0), Just(60), Just(1 << 20)],
        chunk_keys_max in 1..5_usize,
        chunk_bytes_max in prop_oneof![Just(1), Just(1 << 20)],
    ) {
        let unread_bytes_max = cache_bytes_max / 2;
        let mut pair =
            Pair::new(Config { cache_bytes_max, unread_bytes_max, chunk_keys_max, chunk_bytes_max });
        for action in &actions {
            pair.act(action);
        }
        pair.settle();
    }
}
