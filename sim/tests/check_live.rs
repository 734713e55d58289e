//! The rules that are judged while a run goes, or by its end alone: what they object to, and what they leave alone.

use sim::{
    check::{liveness, members, state_hash},
    client::Client,
    history::{Call, History, Micros, Op, Outcome, Reply},
    rng::Rng,
    storm::{Executor, Order},
    swarm::Swarm,
    world::World,
};

mod support;

use kontiki::{error::Refusal, wire::etcdserverpb as pb};
use support::*;

#[test]
fn who_is_apart_is_accused_alone() {
    assert_eq!(state_hash::blame(3, &[3]), None);
    for others in [vec![], vec![2], vec![2, 3], vec![3, 3]] {
        let wrong = state_hash::blame(3, &others).expect("it is another that is accused, or nobody");
        assert!(wrong.starts_with("state/blame: member 3 has another state"), "{wrong}");
    }
}

#[test]
fn nobody_goes_on_behind_what_it_does_not_know() {
    assert_eq!(state_hash::behind_the_unknown(&[true, false, true]), None);
    let wrong = state_hash::behind_the_unknown(&[true, true, true]).expect("all went on");
    assert!(wrong.starts_with("state/unknown-operation: "), "{wrong}");
}

#[test]
fn members_come_to_rest() {
    assert_eq!(liveness::rest(2_000_000), None);
    let wrong = liveness::rest(2_000_001).expect("it is too many");
    assert_eq!(wrong, "liveness/rest: members have sent 2000001 messages and go on");
}

#[test]
fn who_is_counted_on_answers() {
    let since = Micros::from_secs(30);
    assert_eq!(liveness::serves(2, &Outcome::Ok(Reply::Put(done_put(2))), since), None);
    for outcome in [Outcome::Unknown("time-out".to_owned()), Outcome::from_refusal(Refusal::NoSpace)] {
        let wrong = liveness::serves(2, &outcome, since).expect("it did not serve");
        assert!(wrong.starts_with("liveness: 30 s after the last fault member 2 answers "), "{wrong}");
    }
}

#[test]
fn who_stops_as_removed_was_to_be_removed() {
    let asked = |id| {
        let (call, outcome) =
            (Call::MemberRemove(pb::MemberRemoveRequest { id }), Outcome::Unknown(String::new()));
        let op = Op { id: 1, client: 0, member: 0, user: None, start: Micros(1), end: None, call, outcome };
        History { ops: vec![op], ..History::default() }
    };
    // An answer is not waited for.
    assert_eq!(members::removed(&asked(9), 3, 9), None);
    for history in [asked(8), History::default()] {
        let wrong = members::removed(&history, 3, 9).expect("nobody asked");
        assert_eq!(wrong, "member 3 stopped as removed, and nobody had removed it");
    }
}

#[test]
fn what_can_go_on_ends_and_what_can_not_is_told() {
    let rng = Rng::of(1, "order");
    for order in [Order::Turn, Order::Drawn] {
        assert_eq!(Executor::new().run(&rng, order, async { 7 }), Some(7));
        assert_eq!(Executor::new().run(&rng, order, std::future::pending::<u32>()), None);
    }
}

/// What is said of a member of one whose disk fails under it.
fn with_a_failed_disk(excuse: bool) -> Vec<String> {
    let mut knobs = Swarm::default().plan(1).knobs;
    knobs.members = 1;
    let executor = Executor::new();
    let world = World::new(executor.clone(), knobs, 1, false);
    let running = world.clone();
    let run = async move {
        running.start(1);
        running.until(30_000_000).await;
        let disk = running.disk(1).expect("it has one");
        if excuse {
            running.excuse(1);
        }
        disk.fail_at(disk.operations() + 1, 5);
        let client = Client::new(running.clone(), 1, 1_000_000);
        client.call(1, put("a", "")).await;
    };
    assert_eq!(executor.run(&Rng::of(1, "order"), Order::Turn, run), Some(()));
    assert!(!world.runs(1));
    let failures = world.failures();
    world.end();
    executor.clear();
    failures
}

#[test]
fn a_member_ends_by_itself_only_where_its_disk_was_faulty() {
    let said = with_a_failed_disk(false);
    assert!(said.len() == 1 && said[0].starts_with("member 1 ended by itself: "), "{said:?}");
    let said = with_a_failed_disk(true);
    assert!(said.is_empty(), "{said:?}");
}
