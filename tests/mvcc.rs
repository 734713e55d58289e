//! The store does what etcd 3.5.1 was recorded to do: hashes, refusals and odd corners.

mod mvcc_tables;

use bytes::Bytes;
use kontiki::{
    error::Refusal,
    mvcc::{
        Config, DeleteRequest, Error, Op, PutRequest, RangeRequest, SortTarget, Store, TxnRequest,
        TxnResponse, check_range, check_txn,
    },
    table::{Batch, Table},
    types::{KeyRange, LeaseId, Revision, SubRevision},
};
use mvcc_tables::{Granted, MapTables};

struct Member {
    store: Store<MapTables>,
    tables: MapTables,
    leases: Granted,
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn put(key: &str, value: &str) -> Op {
    Op::Put(PutRequest { key: bytes(key), value: bytes(value), ..PutRequest::default() })
}

fn delete(key: &str, end: &str) -> Op {
    Op::Delete(DeleteRequest { range: KeyRange::from_wire(bytes(key), bytes(end)), prev_kv: false })
}

fn range(key: &str, end: &str) -> RangeRequest {
    RangeRequest::of(KeyRange::from_wire(bytes(key), bytes(end)))
}

fn nested(ops: Vec<Op>) -> Op {
    Op::Txn(all(ops))
}

fn all(ops: Vec<Op>) -> TxnRequest {
    TxnRequest { success: ops, ..TxnRequest::default() }
}

impl Member {
    fn new() -> Self {
        let tables = MapTables::default();
        let store = Store::open(tables.clone(), Config::default()).expect("empty tables open");
        Self { store, tables, leases: Granted::default() }
    }

    /// Checks a transaction, runs it and publishes what it did.
    fn txn(&mut self, ops: Vec<Op>) -> Result<TxnResponse, Refusal> {
        let request = all(ops);
        check_txn(&request, 128)?;
        let (mut batch, mut events) = (Batch::default(), Vec::new());
        let result = self.store.writer().txn(&request, &mut self.leases, &mut batch, &mut events);
        self.tables.write(batch);
        self.store.publish();
        Error::split(result).expect("no fault")
    }

    fn put(&mut self, key: &str, value: &str) -> Revision {
        self.txn(vec![put(key, value)]).expect("a put is taken").revision
    }

    fn compact(&mut self, revision: i64) -> Result<(), Refusal> {
        let mut batch = Batch::default();
        let result = self.store.writer().compact(Revision(revision), &mut batch);
        self.tables.write(batch);
        self.store.publish();
        result
    }

    fn clean(&mut self) {
        while let Some(batch) = self.store.compact_step(3).expect("no fault") {
            self.tables.write(batch);
        }
    }

    fn hash(&self, revision: i64) -> Result<(u32, i64), Refusal> {
        let hash = Error::split(self.store.hash_kv(Revision(revision))).expect("no fault");
        hash.map(|hash| (hash.hash, hash.compacted.0))
    }

    fn keys(&self, request: &RangeRequest) -> Vec<Bytes> {
        let response = self.store.range(request).expect("the range is read");
        response.kvs.iter().map(|kv| kv.decode().expect("stored bytes decode").key).collect()
    }
}

/// The writes of `contract/grpc-outputs/kv.txt` up to kv.149.
fn recorded() -> Member {
    let mut member = Member::new();
    for (key, value) in [("a", "1"), ("a", "2"), ("b", "1")] {
        member.put(key, value);
    }
    member.txn(vec![delete("a", "")]).expect("taken");
    let puts =
        [("a", "3"), ("r/a", "a"), ("r/b", "b"), ("r/c", "c"), ("r/d", "d"), ("r/b", "zz"), ("a", "4")];
    for (key, value) in puts {
        member.put(key, value);
    }
    member.put("new1", "x");
    let keep = PutRequest { key: bytes("a"), ignore_value: true, ..PutRequest::default() };
    member.txn(vec![Op::Put(keep)]).expect("taken");
    let keep = PutRequest { key: bytes("a"), value: bytes("q"), ignore_lease: true, ..PutRequest::default() };
    member.txn(vec![Op::Put(keep)]).expect("taken");
    member.put("a", "");
    member.put("\0", "zero");
    member.txn(vec![delete("r/c", "r0")]).expect("taken");
    member.txn(vec![put("t1", "1"), put("t2", "2"), delete("a", ""), delete("nosuch", "")]).expect("taken");
    member.put("d", "v");
    member.put("n1", "v");
    member.txn(vec![put("ne", "1"), nested(vec![put("res", "else")])]).expect("taken");
    for (key, value) in [("deep", "1"), ("w1", "1"), ("pk", "1")] {
        member.put(key, value);
    }
    let many = (0..127).map(|n| put(&format!("kk{n}"), "v")).collect();
    assert_eq!(member.txn(vec![nested(many)]).expect("127 fit").revision, Revision(26));
    member
}

#[test]
fn the_recorded_hash_comes_out() {
    let mut member = recorded();
    assert_eq!(member.compact(0), Ok(()));
    assert_eq!(member.compact(27), Err(Refusal::FutureRevision));
    assert_eq!(member.compact(24), Ok(()));
    assert_eq!(member.compact(24), Err(Refusal::Compacted));
    let old = |revision| RangeRequest { revision: Revision(revision), ..range("t1", "") };
    assert_eq!(member.keys(&old(24)), ["t1"]);
    assert!(matches!(member.store.range(&old(23)), Err(Error::Refused(Refusal::Compacted))));
    assert_eq!(member.compact(26), Ok(()));
    assert!(matches!(member.txn(vec![Op::Range(old(25))]), Err(Refusal::Compacted)));
    assert_eq!(member.hash(0), Ok((2_179_250_240, 26)));
    member.clean();
    assert_eq!(member.hash(0), Ok((2_179_250_240, 26)));
    assert_eq!(member.hash(26), Err(Refusal::Compacted));
    assert_eq!(member.hash(25), Err(Refusal::Compacted));
    assert_eq!(member.hash(35), Err(Refusal::FutureRevision));
}

/// Run against etcd 3.5.1 by hand, whose `endpoint hashkv` said 2986785052 and, compacted, 611342098.
#[test]
fn odd_transactions_are_etcds() {
    let mut member = Member::new();
    for (key, value) in [("c", "1"), ("b", "2"), ("a", "3"), ("d", "4")] {
        member.put(key, value);
    }
    let by_mod = RangeRequest { sort_target: SortTarget::Mod, limit: 2, ..range("a", "z") };
    assert_eq!(member.keys(&by_mod), ["c", "b"], "three by key, sorted, cut to two");
    let at = |revision| Op::Range(RangeRequest { revision: Revision(revision), ..range("a", "") });
    assert_eq!(member.txn(vec![put("x", "v"), at(-5)]), Err(Refusal::Compacted));
    assert_eq!(member.txn(vec![put("x", "v"), at(-1)]).map(|done| done.revision), Ok(Revision(6)));
    for ops in [
        vec![delete("b", "\0"), put("c", "v")],
        vec![delete("b", "\0"), put("b", "v")],
        vec![delete("m", "b"), put("m", "v")],
        vec![delete("m", "b"), put("c", "v")],
        vec![nested(vec![put("q", "v")]), nested(vec![delete("q", "")])],
        vec![nested(vec![delete("b", "\0")]), put("c", "v")],
    ] {
        member.txn(ops).expect("etcd takes it");
    }
    assert_eq!(member.store.revision(), Revision(12));
    assert_eq!(member.keys(&range("\0", "\0")), ["a", "c"]);
    assert_eq!(member.hash(0), Ok((2_986_785_052, -1)));
    assert_eq!(member.compact(5), Ok(()));
    assert_eq!(member.hash(0), Ok((611_342_098, 5)));
    member.clean();
    assert_eq!(member.hash(0), Ok((611_342_098, 5)));
}

/// Numbers of etcd 3.5.1: what a later write replaced is left out once it is at or below the compaction.
#[test]
fn hashes_of_compacted_stores_are_etcds() {
    let mut member = Member::new();
    for (key, value) in [("d", "1"), ("d", "2"), ("e", "3")] {
        member.put(key, value);
    }
    member.txn(vec![delete("d", "")]).expect("taken");
    member.put("e", "5");
    assert_eq!(member.hash(0), Ok((3_021_718_335, -1)));
    for (revision, hash) in [(2, 3_564_592_097), (3, 548_422_482), (4, 2_632_541_723), (5, 1_757_906_179)] {
        assert_eq!(member.compact(revision), Ok(()));
        assert_eq!(member.hash(0), Ok((hash, revision)));
        member.clean();
        assert_eq!(member.hash(0), Ok((hash, revision)));
    }
    // With no key left, nothing is left out but what the compaction removes.
    let mut member = Member::new();
    member.put("d", "1");
    member.put("d", "2");
    member.txn(vec![delete("d", "")]).expect("taken");
    for (revision, hash) in [(3, 2_282_463_989), (4, 1_084_519_789)] {
        assert_eq!(member.compact(revision), Ok(()));
        assert_eq!(member.hash(0), Ok((hash, revision)));
        member.clean();
        assert_eq!(member.hash(0), Ok((hash, revision)));
    }
}

/// As etcd 3.5.1 leaves it when the newest change was a deletion: its tombstone is gone.
#[test]
fn revisions_do_not_go_back_behind_a_compaction() {
    for (scheduled, finished) in [(7, 7), (7, 3), (7, -1)] {
        let tables = MapTables::default();
        let mut batch = Batch::default();
        for (key, main) in [("scheduledCompactRev", scheduled), ("finishedCompactRev", finished)] {
            if main >= 0 {
                let mark = SubRevision { main: Revision(main), sub: 0 }.to_key(false);
                batch.put(Table::Meta, key.as_bytes(), mark);
            }
        }
        tables.write(batch);
        let store = Store::open(tables.clone(), Config::default()).expect("it opens");
        assert_eq!((store.revision(), store.compacted()), (Revision(7), Revision(7)));
        assert_eq!(store.compaction_finished(), Revision(finished));
        assert_eq!(store.compact_step(10).expect("no fault").is_some(), finished < scheduled, "it goes on");
        assert_eq!(store.compaction_finished(), Revision(7));
    }
}

#[test]
fn no_key_is_written_twice() {
    let both = |a: Op, b: Op| check_txn(&all(vec![a, b]), 128);
    let twice = Err(Refusal::DuplicateKey);
    let d = || put("d", "v");
    assert_eq!(both(d(), d()), twice);
    assert_eq!(both(d(), delete("d", "")), twice);
    assert_eq!(both(delete("d", ""), d()), twice);
    assert_eq!(both(delete("d", ""), delete("d", "")), Ok(()));
    assert_eq!(both(put("d1", "v"), delete("d", "e")), twice);
    assert_eq!(both(nested(vec![d()]), d()), twice);
    assert_eq!(both(nested(vec![d()]), nested(vec![d()])), twice);
    assert_eq!(both(nested(vec![d()]), delete("d", "")), twice);
    assert_eq!(both(nested(vec![delete("d", "")]), nested(vec![d()])), twice);
    let other = TxnRequest { failure: vec![delete("d", "")], ..TxnRequest::default() };
    assert_eq!(both(d(), Op::Txn(other)), twice);
    let either = TxnRequest { success: vec![d()], failure: vec![d()], ..TxnRequest::default() };
    assert_eq!(check_txn(&all(vec![Op::Txn(either.clone())]), 128), Ok(()));
    assert_eq!(check_txn(&either, 128), Ok(()));
}

#[test]
fn what_etcd_lets_pass_passes() {
    let both = |a: Op, b: Op| check_txn(&all(vec![a, b]), 128);
    assert_eq!(both(put("q", "v"), delete("a", "\0")), Ok(()));
    assert_eq!(both(put("q", "v"), delete("z", "a")), Ok(()));
    assert_eq!(both(put("q", "v"), delete("q", "q")), Ok(()));
    assert_eq!(both(nested(vec![put("w", "v")]), nested(vec![delete("w", "")])), Ok(()));
    let cleared =
        TxnRequest { success: vec![put("n", "v")], failure: vec![delete("n", "")], ..TxnRequest::default() };
    assert_eq!(check_txn(&all(vec![Op::Txn(cleared)]), 128), Ok(()));
}

#[test]
fn a_sort_target_has_to_exist() {
    let by = |sort_target| RangeRequest { sort_target, ..RangeRequest::of(KeyRange::single("k".into())) };
    assert_eq!(check_range(&by(SortTarget::Value)), Ok(()));
    assert_eq!(check_range(&by(SortTarget::Unknown)), Err(Refusal::InvalidSortOption));
}

#[test]
fn a_transaction_has_so_many_operations() {
    let many = |n| all((0..n).map(|n| put(&format!("k{n}"), "v")).collect());
    assert_eq!(check_txn(&many(128), 128), Ok(()));
    assert_eq!(check_txn(&many(129), 128), Err(Refusal::TooManyOps));
    assert_eq!(check_txn(&all(vec![Op::Txn(many(127))]), 128), Ok(()));
    assert_eq!(check_txn(&all(vec![Op::Txn(many(128))]), 128), Err(Refusal::TooManyOps));
    assert_eq!(check_txn(&all(vec![Op::Missing]), 128), Err(Refusal::KeyNotFound));
    assert_eq!(check_txn(&all(vec![put("", "v")]), 128), Err(Refusal::EmptyKey));
}

#[test]
fn a_cursor_keeps_its_moment_and_holds_compaction_back() {
    let mut member = Member::new();
    let config = Config { chunk_keys_max: 2, chunk_bytes_max: 1, cache_bytes_max: 0, unread_bytes_max: 0 };
    member.store = Store::open(member.tables.clone(), config).expect("empty tables open");
    for key in ["a", "b", "c", "d"] {
        member.put(key, "old");
    }
    let Member { store, tables, mut leases } = member;
    let store = std::sync::Arc::new(store);
    let mut cursor = store.range_cursor(&range("a", "z")).expect("the range is read");
    let first = cursor.next_chunk().expect("no fault").expect("there is more");
    assert_eq!((first.kvs.len(), first.tail), (1, None));
    let (mut batch, mut events) = (Batch::default(), Vec::new());
    let change = all(vec![delete("b", ""), put("c", "new"), put("cc", "new")]);
    store.writer().txn(&change, &mut leases, &mut batch, &mut events).expect("taken");
    store.writer().compact(Revision(6), &mut batch).expect("taken");
    tables.write(batch);
    store.publish();
    assert_eq!(store.compact_step(100).expect("no fault"), None, "the cursor still needs what would go");
    let mut rest = Vec::new();
    let tail = loop {
        let chunk = cursor.next_chunk().expect("no fault").expect("the tail is still to come");
        rest.extend(chunk.kvs.iter().map(|kv| kv.decode().expect("stored bytes decode")));
        if let Some(tail) = chunk.tail {
            break tail;
        }
    };
    assert_eq!(rest.iter().map(|kv| kv.key.clone()).collect::<Vec<_>>(), ["b", "c", "d"]);
    assert!(rest.iter().all(|kv| kv.value == "old" && kv.lease == LeaseId(0)));
    assert_eq!((tail.revision, tail.more, tail.count), (Revision(5), false, 4));
    drop(cursor);
    // The old b and c go; the tombstone at the compacted revision stays for watches from there.
    let batch = store.compact_step(100).expect("no fault").expect("there is something to do");
    assert_eq!(batch.writes.len(), 3);
    assert_eq!(store.compaction_finished(), Revision(6));
    tables.write(batch);
    let history = store.events(Revision(6), Revision(6), 10, 1 << 20).expect("it is not compacted");
    assert_eq!(history.events, events);
}

#[test]
fn a_deletion_names_a_key() {
    assert_eq!(check_txn(&all(vec![delete("", "")]), 128), Err(Refusal::EmptyKey));
}

#[test]
fn the_newest_revision_has_a_hash() {
    let mut member = Member::new();
    let newest = member.put("d", "1");
    assert_eq!(member.hash(newest.0), member.hash(0));
}

/// The second compaction begins at the first key again; a reader of the revision compacted to is in nobody's way.
#[test]
fn what_is_compacted_goes_wherever_the_last_compaction_ended() {
    let mut member = Member::new();
    let config = Config { chunk_keys_max: 1, ..Config::default() };
    member.store = Store::open(member.tables.clone(), config).expect("empty tables open");
    for round in 0..3 {
        let newest = ["a", "b", "c", "d"].map(|key| member.put(key, "v"))[3];
        assert_eq!(member.compact(newest.0), Ok(()));
        assert_eq!(member.store.writer().compacted(), newest);
        member.clean();
        assert_eq!(member.tables.rows(Table::Rev), 4, "round {round}");
    }
    let newest = member.put("a", "v");
    let store = std::sync::Arc::new(member.store);
    let cursor = store.range_cursor(&range("a", "z")).expect("it is read");
    let mut batch = Batch::default();
    store.writer().compact(newest, &mut batch).expect("taken");
    store.publish();
    assert!(store.compact_step(100).expect("no fault").is_some());
    drop(cursor);
}

#[test]
fn history_comes_in_whole_revisions() {
    let mut member = Member::new();
    member.txn(vec![put("a", "1"), put("b", "1"), put("c", "1")]).expect("taken");
    member.put("a", "2");
    member.put("b", "3");
    let all = member.store.events(Revision(2), Revision(4), 9, 1 << 20).expect("read").events;
    let bytes = all[..3].iter().map(|event| event.kv.0.len()).sum();
    for (revisions_max, bytes_max, events, next) in [
        (9, 1 << 20, 5, 5),
        (2, 1 << 20, 4, 4),
        (1, 1 << 20, 3, 3),
        (0, 1 << 20, 3, 3),
        (9, 0, 3, 3),
        (9, bytes, 3, 3),
        (9, bytes + 1, 4, 4),
    ] {
        let history = member.store.events(Revision(2), Revision(9), revisions_max, bytes_max).expect("read");
        let got = (history.events.len(), history.next.0);
        assert_eq!(got, (events, next), "{revisions_max} revisions, {bytes_max} bytes");
    }
}

#[test]
fn a_transaction_that_reads_sees_what_is_published() {
    let mut member = Member::new();
    member.put("a", "1");
    member.put("b", "2");
    let there = kontiki::mvcc::Compare {
        range: KeyRange::single(bytes("a")),
        target: kontiki::mvcc::CompareTarget::Version(0),
        result: kontiki::mvcc::CompareResult::Greater,
    };
    let read = || Op::Range(range("a", "c"));
    let request =
        TxnRequest { compare: vec![there], success: vec![read(), nested(vec![read()])], failure: vec![] };
    let done = member.store.txn_readonly(&request).expect("it is read");
    let by_the_writer = {
        let (mut batch, mut events) = (Batch::default(), Vec::new());
        let Member { store, leases, .. } = &mut member;
        store.writer().txn(&request, leases, &mut batch, &mut events).expect("it is read")
    };
    assert_eq!(done, by_the_writer);
    assert_eq!((done.revision, done.succeeded, done.responses.len()), (Revision(3), true, 2));
    let kontiki::mvcc::OpResponse::Range(found) = &done.responses[0] else { panic!("{done:?}") };
    assert_eq!((found.count, found.kvs.len()), (2, 2));
    // What is not published yet is not seen, and nothing is written.
    let (mut batch, mut events) = (Batch::default(), Vec::new());
    member
        .store
        .writer()
        .txn(&all(vec![put("c", "3")]), &mut member.leases, &mut batch, &mut events)
        .expect("taken");
    assert_eq!(member.store.txn_readonly(&request).expect("it is read"), done);
    assert!(matches!(member.store.txn_readonly(&all(vec![put("a", "9")])), Err(Error::Fault(_))));

    assert!(all(vec![read(), read()]).is_read_only());
    for ops in [vec![put("a", "1")], vec![read(), delete("a", "")], vec![nested(vec![read()])]] {
        assert!(!TxnRequest { failure: ops, ..TxnRequest::default() }.is_read_only());
    }
}

#[test]
fn the_keys_of_a_lease_are_counted() {
    let mut member = Member::new();
    member.put("a", "1");
    member.put("b", "1");
    let (mut batch, mut events) = (Batch::default(), Vec::new());
    let keys = [bytes("a"), bytes("b"), bytes("nosuch")];
    let deleted = member.store.writer().delete_keys(&keys, &mut member.leases, &mut batch, &mut events);
    assert_eq!((deleted.expect("no fault"), events.len()), (2, 2));
}

/// Its leases, revisions and bytes are another store's then.
#[test]
fn who_reads_while_the_tables_are_replaced_is_refused() {
    let mut member = Member::new();
    member.put("a", "1");
    let store = std::sync::Arc::new(member.store);
    for _ in 0..2 {
        let mut cursor = store.range_cursor(&range("a", "z")).expect("it is read");
        store.reload().expect("the tables are sound");
        assert!(matches!(cursor.next_chunk(), Err(Error::Refused(Refusal::LeaderChanged))));
    }
}

/// As in etcd, a sort target without an order sorts what the limit lets in, and one key more.
#[test]
fn a_limit_takes_one_key_more_where_no_order_is_asked_for() {
    let mut member = Member::new();
    for (key, value) in [("a", "3"), ("b", "2"), ("c", "1")] {
        member.put(key, value);
    }
    for (limit, first) in [(1, "b"), (2, "c")] {
        let request = RangeRequest { limit, sort_target: SortTarget::Value, ..range("a", "z") };
        assert_eq!(member.keys(&request)[0], first, "{limit}");
    }
}

/// A chunk ends when it has so many bytes, and the tail comes with the last key.
#[test]
fn chunks_are_filled() {
    let mut member = Member::new();
    for key in ["a", "b", "c"] {
        member.put(key, "1");
    }
    let size = member.store.range(&range("a", "")).expect("it is read").kvs[0].0.len();
    for (bytes, sizes) in [(1, &[1, 1, 1][..]), (size, &[1, 1, 1]), (size + 1, &[2, 1]), (3 * size, &[3])] {
        let config = Config { chunk_bytes_max: bytes, ..Config::default() };
        let store = std::sync::Arc::new(Store::open(member.tables.clone(), config).expect("sound"));
        let mut cursor = store.range_cursor(&range("a", "z")).expect("it is read");
        let mut found = Vec::new();
        while let Some(chunk) = cursor.next_chunk().expect("no fault") {
            found.push(chunk.kvs.len());
            assert_eq!(chunk.tail.is_some(), found.len() == sizes.len(), "{found:?}");
        }
        assert_eq!(found, sizes);
    }
}

/// A row that the index knows and the tables lack: either they were replaced since, or they are broken.
#[test]
fn a_row_that_is_gone_is_corruption_unless_the_tables_were_replaced() {
    for replaced in [true, false] {
        let config = Config { cache_bytes_max: 0, chunk_bytes_max: 1, ..Config::default() };
        let mut member = Member::new();
        member.store = Store::open(member.tables.clone(), config).expect("empty tables open");
        member.put("a", "1");
        let gone = SubRevision { main: member.put("b", "1"), sub: 0 };
        let store = std::sync::Arc::new(member.store);
        let mut cursor = store.range_cursor(&range("a", "z")).expect("it is read");
        assert_eq!(cursor.next_chunk().expect("no fault").expect("a").kvs.len(), 1);
        let mut batch = Batch::default();
        batch.delete(Table::Rev, gone.to_key(false));
        member.tables.write(batch);
        if replaced {
            store.reload().expect("the tables are sound");
            assert!(matches!(cursor.next_chunk(), Err(Error::Refused(Refusal::LeaderChanged))));
        } else {
            let Err(Error::Fault(fault)) = cursor.next_chunk() else { panic!("it is read") };
            assert!(fault.to_string().contains("is in the index but not in the tables"), "{fault}");
        }
    }
}

/// A value that a reader of an older moment fetched does not take the place of a newer one.
#[test]
fn a_value_is_kept_beside_its_own_revision() {
    let mut member = Member::new();
    let config =
        Config { cache_bytes_max: 100, unread_bytes_max: 0, chunk_bytes_max: 1, ..Config::default() };
    member.store = Store::open(member.tables.clone(), config).expect("empty tables open");
    // More than is kept: none of them is in memory then.
    let large = "x".repeat(200);
    for (key, value) in [("a", "old"), ("b", "old"), ("big", &large[..])] {
        member.put(key, value);
    }
    let Member { store, tables, mut leases } = member;
    let store = std::sync::Arc::new(store);
    let write = |key: &str, value: &str, leases: &mut Granted| {
        let (mut batch, mut events) = (Batch::default(), Vec::new());
        store.writer().txn(&all(vec![put(key, value)]), leases, &mut batch, &mut events).expect("taken");
        tables.write(batch);
        store.publish();
    };
    let value = |key: &str| {
        let found = store.range(&range(key, "")).expect("it is read");
        found.kvs[0].decode().expect("stored bytes decode").value
    };
    let mut cursor = store.range_cursor(&range("a", "c")).expect("it is read");
    assert_eq!(cursor.next_chunk().expect("no fault").expect("a").kvs.len(), 1);
    // Nor is the new b.
    write("b", &large, &mut leases);
    let old =
        cursor.next_chunk().expect("no fault").expect("b").kvs[0].decode().expect("stored bytes decode");
    assert_eq!(old.value, "old");
    write("z", "new", &mut leases);
    assert_eq!(value("b"), large);
}

#[test]
fn numbers_of_any_size_are_read_back() {
    for number in [0, 1, 127, 128, 129, 16_383, 16_384, 1 << 56, i64::MAX, -1, i64::MIN] {
        let kv = kontiki::types::KeyValue {
            key: bytes(&"k".repeat(128)),
            value: bytes(&"v".repeat(16_384)),
            created: Revision(number),
            modified: Revision(number),
            version: number,
            lease: LeaseId(number),
        };
        assert_eq!(kontiki::mvcc::KvBytes::encode(&kv).decode(), Ok(kv), "{number}");
    }
    // More than 64 bits.
    let wide = [0x10, 255, 255, 255, 255, 255, 255, 255, 255, 255, 2];
    assert!(kontiki::mvcc::KvBytes(Bytes::copy_from_slice(&wide)).decode().is_err());
}

#[test]
fn a_compare_sees_the_lease_of_a_key() {
    let mut member = Member::new();
    let leased = PutRequest { key: bytes("a"), lease: LeaseId(1), ..PutRequest::default() };
    member.txn(vec![Op::Put(leased)]).expect("taken");
    for (lease, succeeded) in [(0, false), (1, true), (2, false)] {
        let compare = kontiki::mvcc::Compare {
            range: KeyRange::single(bytes("a")),
            target: kontiki::mvcc::CompareTarget::Lease(LeaseId(lease)),
            result: kontiki::mvcc::CompareResult::Equal,
        };
        let request = TxnRequest { compare: vec![compare], ..TxnRequest::default() };
        assert_eq!(member.store.txn_readonly(&request).expect("it is read").succeeded, succeeded, "{lease}");
    }
}
