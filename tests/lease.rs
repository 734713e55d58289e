//! The leader's clock of leases: never early, at a pace, again until it is done.
#![allow(clippy::unwrap_used)]

mod lease_model;
#[allow(dead_code, reason = "its leases are for the store's tests")]
mod mvcc_tables;

use std::collections::{BTreeMap, BTreeSet};

use kontiki::{
    error::{Fault, Refusal},
    lease::{Book, Expirer, ExpirerConfig, Renewal, TTL_MAX, ttl_min},
    mvcc::Leases,
    state::LeaseChange,
    table::{Batch, Table},
    types::{Instant, LeaseId},
};
use lease_model::Step;
use mvcc_tables::MapTables;
use proptest::prelude::*;

fn book(leases: &[(i64, i64)]) -> Book {
    let mut book = Book::default();
    for (id, ttl) in leases {
        book.grant(LeaseId(*id), *ttl, &mut Batch::default()).unwrap();
    }
    book
}

fn ids(leases: Vec<LeaseId>) -> Vec<i64> {
    leases.into_iter().map(|id| id.0).collect()
}

fn plain(book: &Book, now: u64) -> Expirer {
    Expirer::new(ExpirerConfig::default(), book.seconds(), 1000, Instant(now))
}

#[test]
fn the_least_ttl_is_one_and_a_half_election_timeouts() {
    for (timeout, ttl) in [(1000, 2), (100, 1), (666, 1), (667, 2), (1334, 3), (5000, 8)] {
        assert_eq!(ttl_min(timeout), ttl, "{timeout} ms");
    }
}

#[test]
fn a_new_leader_adds_an_election_timeout() {
    let mut expirer = plain(&book(&[(1, 5), (2, 10)]), 100);
    assert_eq!(expirer.next_wake(), Some(Instant(6100)));
    assert_eq!(expirer.due(Instant(6099), 9), vec![]);
    assert_eq!(ids(expirer.due(Instant(6100), 9)), [1]);
    assert_eq!(ids(expirer.due(Instant(11_100), 9)), [1, 2]);
}

#[test]
fn what_is_checkpointed_is_left_to_the_next_leader() {
    let mut book = book(&[(1, 100), (2, 100)]);
    assert!(book.checkpoint(LeaseId(1), 7, &mut Batch::default()));
    let mut expirer = plain(&book, 0);
    assert_eq!(expirer.remaining(LeaseId(1), Instant(0)), Some(8));
    assert_eq!(ids(expirer.by_remaining()), [1, 2]);
    // A renewal is worth nothing to the next leader until the checkpoint is gone.
    assert_eq!(expirer.renew(LeaseId(1), Instant(0)), Renewal::AfterCheckpoint(100));
    expirer.applied(LeaseChange::Checkpointed(LeaseId(1), 0), Instant(0));
    assert_eq!(expirer.renew(LeaseId(1), Instant(0)), Renewal::Renewed(100));
    assert_eq!(expirer.renew(LeaseId(2), Instant(0)), Renewal::Renewed(100));
}

#[test]
fn a_renewal_gives_the_whole_ttl_unless_it_is_over() {
    let mut expirer = plain(&Book::default(), 0);
    assert_eq!(expirer.renew(LeaseId(1), Instant(0)), Renewal::NotFound);
    expirer.applied(LeaseChange::Granted(LeaseId(1), 2), Instant(0));
    assert_eq!(expirer.remaining(LeaseId(1), Instant(1)), Some(1));
    assert_eq!(expirer.renew(LeaseId(1), Instant(1999)), Renewal::Renewed(2));
    assert_eq!(expirer.due(Instant(3998), 9), vec![]);
    // Over, though nobody has asked for what is due.
    assert_eq!(expirer.renew(LeaseId(1), Instant(3999)), Renewal::Ending);
    assert_eq!(ids(expirer.due(Instant(3999), 9)), [1]);
    assert_eq!(expirer.renew(LeaseId(1), Instant(4000)), Renewal::Ending);
    assert_eq!(expirer.remaining(LeaseId(1), Instant(9000)), Some(0));
    expirer.applied(LeaseChange::Revoked(LeaseId(1)), Instant(4000));
    assert_eq!(expirer.renew(LeaseId(1), Instant(4000)), Renewal::NotFound);
    assert_eq!((expirer.next_wake(), expirer.remaining(LeaseId(1), Instant(4000))), (None, None));
}

/// A lease granted or renewed 99 ms after the tick whose time is known must still last for all of its TTL.
#[test]
fn a_lease_outlasts_the_clock_s_coarseness() {
    let config = ExpirerConfig { slack_ms: 100, ..Default::default() };
    let mut expirer = Expirer::new(config, Book::default().seconds(), 0, Instant(0));
    expirer.applied(LeaseChange::Granted(LeaseId(1), 3), Instant(0));
    assert_eq!(expirer.remaining(LeaseId(1), Instant(0)), Some(3));
    assert!(expirer.due(Instant(3_000), usize::MAX).is_empty());
    assert_eq!(expirer.renew(LeaseId(1), Instant(3_000)), Renewal::Renewed(3));
    assert!(expirer.due(Instant(6_000), usize::MAX).is_empty());
    assert_eq!(expirer.remaining(LeaseId(1), Instant(6_000)), Some(0));
    assert_eq!(ids(expirer.due(Instant(6_100), usize::MAX)), [1]);
}

#[test]
fn a_revocation_comes_again_until_it_is_applied() {
    let mut expirer = plain(&Book::default(), 0);
    expirer.applied(LeaseChange::Granted(LeaseId(1), 1), Instant(0));
    assert_eq!(ids(expirer.due(Instant(1000), 9)), [1]);
    assert_eq!(expirer.due(Instant(3999), 9), vec![]);
    assert_eq!(ids(expirer.due(Instant(4000), 9)), [1]);
    expirer.applied(LeaseChange::Revoked(LeaseId(1)), Instant(4100));
    assert_eq!(expirer.due(Instant(99_000), 9), vec![]);
    // The same id may be granted again.
    expirer.applied(LeaseChange::Granted(LeaseId(1), 1), Instant(5000));
    assert_eq!(expirer.due(Instant(5999), 9), vec![]);
    assert_eq!(ids(expirer.due(Instant(6000), 9)), [1]);
}

#[test]
fn a_storm_of_expiries_is_paced() {
    let mut expirer = plain(&Book::default(), 0);
    for id in 1..=1200 {
        expirer.applied(LeaseChange::Granted(LeaseId(id), 1), Instant(0));
    }
    let mut revoked = Vec::new();
    for (now, count) in [(1000, 500), (1250, 0), (1500, 500), (2000, 200), (2500, 0)] {
        let due = expirer.due(Instant(now), 1000);
        assert_eq!(due.len(), count, "at {now}");
        revoked.extend(due);
    }
    assert_eq!(revoked.iter().collect::<BTreeSet<_>>().len(), 1200, "each once");
}

/// Whoever sleeps until then is not woken for nothing, nor too late.
#[test]
fn the_next_wake_is_when_a_window_has_room() {
    let mut expirer = plain(&Book::default(), 0);
    for id in 1..=700 {
        expirer.applied(LeaseChange::Granted(LeaseId(id), 1), Instant(0));
    }
    assert_eq!(expirer.next_wake(), Some(Instant(1000)));
    assert_eq!(expirer.due(Instant(1100), 499).len(), 499);
    assert_eq!(expirer.next_wake(), Some(Instant(1000)), "one more may end now");
    assert_eq!(expirer.due(Instant(1100), 1000).len(), 1);
    assert_eq!(expirer.next_wake(), Some(Instant(1600)), "the window is full");
}

/// Its revocation may be in the log already.
#[test]
fn a_clock_that_goes_back_does_not_revive_a_lease() {
    let mut expirer = plain(&Book::default(), 0);
    expirer.applied(LeaseChange::Granted(LeaseId(1), 1), Instant(0));
    assert_eq!(ids(expirer.due(Instant(1000), 9)), [1]);
    assert_eq!(expirer.renew(LeaseId(1), Instant(999)), Renewal::Ending);
}

#[test]
fn a_new_leader_spreads_many_leases() {
    let leases: Vec<(i64, i64)> = (1..=3000).map(|id| (id, 10)).collect();
    let expirer = plain(&book(&leases), 0);
    let mut per_second = BTreeMap::new();
    for (id, _) in &leases {
        *per_second.entry(expirer.remaining(LeaseId(*id), Instant(0)).unwrap()).or_insert(0) += 1;
    }
    assert_eq!(per_second, BTreeMap::from([(11, 750), (12, 750), (13, 750), (14, 750)]));
    // Few are left as they are.
    let expirer = plain(&book(&leases[..999]), 0);
    assert!(leases[..999].iter().all(|(id, _)| expirer.remaining(LeaseId(*id), Instant(0)) == Some(11)));
}

#[test]
fn long_leases_are_checkpointed() {
    let config =
        ExpirerConfig { checkpoint_ms: Some(300_000), checkpoint_leases_max: 2, ..Default::default() };
    let mut expirer = Expirer::new(config, book(&[(1, 10)]).seconds(), 0, Instant(0));
    for id in 2..=4 {
        expirer.applied(LeaseChange::Granted(LeaseId(id), 1000), Instant(0));
    }
    expirer.applied(LeaseChange::Revoked(LeaseId(1)), Instant(0));
    assert_eq!(expirer.next_wake(), Some(Instant(300_000)));
    assert_eq!(expirer.checkpoint(Instant(299_999)), vec![]);
    assert_eq!(expirer.checkpoint(Instant(300_000)), [(LeaseId(2), 700), (LeaseId(3), 700)]);
    assert_eq!(expirer.checkpoint(Instant(300_000)), [(LeaseId(4), 700)]);
    // Not applied yet, but on its way: a renewal has to undo it.
    assert_eq!(expirer.renew(LeaseId(2), Instant(599_999)), Renewal::AfterCheckpoint(1000));
    expirer.applied(LeaseChange::Checkpointed(LeaseId(2), 700), Instant(599_999));
    assert_eq!(expirer.renew(LeaseId(2), Instant(599_999)), Renewal::AfterCheckpoint(1000));
    expirer.applied(LeaseChange::Checkpointed(LeaseId(2), 0), Instant(599_999));
    assert_eq!(expirer.renew(LeaseId(2), Instant(599_999)), Renewal::Renewed(1000));
    expirer.applied(LeaseChange::Revoked(LeaseId(4)), Instant(500_000));
    assert_eq!(expirer.checkpoint(Instant(600_000)), [(LeaseId(3), 400)]);
    assert_eq!(expirer.checkpoint(Instant(600_000)), vec![]);
}

#[test]
fn only_what_is_left_of_a_lease_is_checkpointed() {
    let config = ExpirerConfig { checkpoint_ms: Some(300_000), slack_ms: 100, ..Default::default() };
    let mut expirer = Expirer::new(config, Book::default().seconds(), 0, Instant(0));
    for (id, ttl) in [(1, 300), (2, 400)] {
        expirer.applied(LeaseChange::Granted(LeaseId(id), ttl), Instant(0));
    }
    // The first does not outlast the interval. The second has all left, then nothing.
    expirer.renew(LeaseId(2), Instant(300_000));
    assert_eq!(expirer.checkpoint(Instant(300_000)), vec![]);
    expirer.applied(LeaseChange::Revoked(LeaseId(1)), Instant(300_100));
    assert_eq!(expirer.next_wake(), Some(Instant(600_000)));
    assert_eq!(expirer.checkpoint(Instant(800_000)), vec![]);
    assert_eq!(expirer.renew(LeaseId(2), Instant(800_000)), Renewal::Ending);
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (1i64..8, 1i64..6).prop_map(|(id, ttl)| Step::Grant(id, ttl)),
        3 => (1i64..8).prop_map(Step::Renew),
        1 => (1i64..8).prop_map(Step::Revoke),
        4 => (0u64..2500).prop_map(Step::Wait),
        4 => (0usize..4).prop_map(Step::Due),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn leases_never_end_early_and_always_end(steps in prop::collection::vec(step(), 1..80)) {
        lease_model::check(steps);
    }
}

#[test]
fn the_largest_ttl_does_not_overflow() {
    let expirer = plain(&book(&[(1, TTL_MAX)]), 1 << 50);
    assert_eq!(expirer.remaining(LeaseId(1), Instant(1 << 50)), Some(TTL_MAX + 1));
}

#[test]
fn the_book_is_what_the_tables_hold() {
    let (mut book, mut batch) = (Book::default(), Batch::default());
    assert!(book.is_empty());
    for (id, ttl, granted) in [
        (1, 10, Ok(10)),
        (2, 0, Ok(1)),
        (3, TTL_MAX, Ok(TTL_MAX)),
        (-4, 7, Ok(7)),
        (0, 5, Err(Refusal::LeaseNotFound)),
        (5, TTL_MAX + 1, Err(Refusal::LeaseTtlTooLarge)),
        (1, 5, Err(Refusal::LeaseExists)),
    ] {
        assert_eq!(book.grant(LeaseId(id), ttl, &mut batch), granted, "{id} for {ttl} s");
    }
    for (id, remaining, there) in [(1, 4, true), (2, 99, true), (9, 4, false)] {
        assert_eq!(book.checkpoint(LeaseId(id), remaining, &mut batch), there);
    }
    assert_eq!(book.revoke(LeaseId(-4), &mut batch), Ok(vec![]));
    assert_eq!(book.revoke(LeaseId(-4), &mut batch), Err(Refusal::LeaseNotFound));
    let tables = MapTables::default();
    tables.write(batch);

    let mut book_again = Book::load(&tables).unwrap();
    assert_eq!(book_again, book);
    assert_eq!((book_again.len(), book_again.is_empty()), (3, false));
    let left: Vec<_> = book_again.iter().map(|(id, lease)| (id.0, lease.ttl, lease.left())).collect();
    assert_eq!(left, [(1, 10, 4), (2, 1, 1), (3, TTL_MAX, TTL_MAX)]);
    // Which keys it has is for the keys to say.
    for (id, key) in [(1, "b"), (9, "a"), (1, "a")] {
        book_again.bind(LeaseId(id), key.into());
    }
    book_again.attach(LeaseId(1), &"c".into());
    book_again.detach(LeaseId(1), &"b".into());
    book_again.detach(LeaseId(9), &"a".into());
    assert!(book_again.get(LeaseId(1)).unwrap().keys().eq(["a", "c"]));
    assert!(book_again.exists(LeaseId(1)) && !book_again.exists(LeaseId(9)));
    assert!(book_again.get(LeaseId(9)).is_none());
    assert_eq!(book_again.revoke(LeaseId(1), &mut Batch::default()), Ok(vec!["a".into(), "c".into()]));
}

#[test]
fn rows_that_are_no_leases_are_corrupt() {
    let row = [8, 1, 16, 5];
    for (key, value) in [
        (vec![0, 0, 0, 0, 0, 0, 0, 2], &row[..]),
        (vec![0, 0, 0, 0, 0, 0, 1], &row),
        (vec![0, 0, 0, 0, 0, 0, 0, 1], &[8]),
        (vec![0; 8], &[16, 5]),
        // A number of more than 64 bits; a field of no known kind.
        (i64::MAX.to_be_bytes().to_vec(), &[8, 255, 255, 255, 255, 255, 255, 255, 255, 255, 2, 16, 5]),
        (vec![0, 0, 0, 0, 0, 0, 0, 1], &[8, 1, 16, 5, 0x23]),
    ] {
        let (tables, mut batch) = (MapTables::default(), Batch::default());
        batch.put(Table::Lease, vec![0, 0, 0, 0, 0, 0, 0, 1], row.to_vec());
        batch.put(Table::Lease, key.clone(), value.to_vec());
        tables.write(batch);
        assert!(matches!(Book::load(&tables), Err(Fault::Corrupt(_))), "{key:?} leads to {value:?}");
    }
}

#[test]
fn fields_of_later_versions_are_skipped() {
    let (tables, mut batch) = (MapTables::default(), Batch::default());
    let row = [
        &[8, 1, 0x20, 9][..],
        &[0x29, 0, 0, 0, 0, 0, 0, 0, 8],
        &[0x32, 2, 8, 9],
        &[0x3d, 0, 0, 0, 8],
        &[16, 5],
    ];
    batch.put(Table::Lease, vec![0, 0, 0, 0, 0, 0, 0, 1], row.concat());
    tables.write(batch);
    let book = Book::load(&tables).unwrap();
    assert_eq!(book.seconds().collect::<Vec<_>>(), [(LeaseId(1), 5, 0)]);
}
