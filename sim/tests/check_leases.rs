//! The oracles for leases, locks and elections.

mod support;

use kontiki::{
    error::Refusal,
    wire::{etcdserverpb as pb, v3electionpb as electionpb, v3lockpb as lockpb},
};
use sim::{
    check::{
        lease,
        linear::{self, Timeline},
        locks,
    },
    history::{Fact, Held, HeldKind, MessageFact, Micros},
};
use support::*;

const SECOND: u64 = 1_000_000;

fn grant(id: i64, ttl: i64) -> pb::LeaseGrantRequest {
    pb::LeaseGrantRequest { id, ttl }
}

fn granted(id: i64, ttl: i64) -> pb::LeaseGrantResponse {
    pb::LeaseGrantResponse { header: header(1), id, ttl, error: String::new() }
}

fn renew(id: i64) -> pb::LeaseKeepAliveRequest {
    pb::LeaseKeepAliveRequest { id }
}

fn renewed(id: i64, ttl: i64) -> pb::LeaseKeepAliveResponse {
    pb::LeaseKeepAliveResponse { header: header(2), id, ttl }
}

fn revoke(id: i64) -> pb::LeaseRevokeRequest {
    pb::LeaseRevokeRequest { id }
}

fn revoked(revision: i64) -> pb::LeaseRevokeResponse {
    pb::LeaseRevokeResponse { header: header(revision) }
}

/// Lease 7 of 10 s from 0 on, with a key; renewed at 5 s.
fn tale() -> Tale {
    let mut tale = Tale::new();
    tale.ok((0, 10), grant(7, 10), granted(7, 10)).ok((20, 30), leased("a", "1", 7), done_put(2)).ok(
        (5 * SECOND, 5 * SECOND + 10),
        renew(7),
        renewed(7, 10),
    );
    tale
}

/// The key is seen to be gone at `at`.
fn gone(tale: &mut Tale, at: u64) {
    tale.ok((at, at + 10), get("a"), found(3, vec![]));
}

#[test]
fn right_leases_pass() {
    right(&tale());
    let mut ended = tale();
    gone(&mut ended, 15 * SECOND);
    ended
        .ok((16 * SECOND, 16 * SECOND + 1), renew(7), renewed(7, 0))
        .refused((16 * SECOND, 16 * SECOND + 1), leased("a", "2", 7), Refusal::LeaseNotFound)
        .refused((16 * SECOND, 16 * SECOND + 1), revoke(7), Refusal::LeaseNotFound)
        .ok(
            (17 * SECOND, 17 * SECOND + 1),
            grant(7, 10),
            pb::LeaseGrantResponse { header: header(3), ..granted(7, 10) },
        )
        .ok((18 * SECOND, 18 * SECOND + 1), leased("a", "2", 7), done_put(4));
    right(&ended);
    let mut by_hand = tale();
    by_hand.ok((6 * SECOND, 6 * SECOND + 1), revoke(7), revoked(3));
    gone(&mut by_hand, 7 * SECOND);
    right(&by_hand);
    let mut perhaps = tale();
    perhaps.open(6 * SECOND, revoke(7));
    gone(&mut perhaps, 7 * SECOND);
    right(&perhaps);
    let mut moved = tale();
    moved
        .ok((6 * SECOND, 6 * SECOND + 1), put("a", "2"), done_put(3))
        .ok((6 * SECOND + 2, 6 * SECOND + 3), revoke(7), revoked(3))
        .ok((7 * SECOND, 7 * SECOND + 1), get("a"), found(3, vec![kv("a", "2", (2, 3, 2))]));
    right(&moved);
}

#[test]
fn a_lease_does_not_end_early() {
    let mut early = tale();
    gone(&mut early, 14 * SECOND);
    wrong(&early, "lease/early", "lease 7 ended at revision 3");
    early.history.settings.clock_drift_ppm = 200_000;
    right(&early);
    let mut unrenewed = tale();
    unrenewed.history.ops.pop();
    gone(&mut unrenewed, 10 * SECOND);
    right(&unrenewed);
    let mut asked = tale();
    asked.ok((14 * SECOND, 14 * SECOND + 10), renew(7), renewed(7, 0));
    wrong(&asked, "lease/early", "found no lease");
    let mut written = tale();
    written.refused((14 * SECOND, 14 * SECOND + 10), leased("b", "", 7), Refusal::LeaseNotFound);
    wrong(&written, "lease/early", "found no lease");
    let mut again = tale();
    let answer = pb::LeaseGrantResponse { header: header(2), ..granted(7, 10) };
    again.ok((14 * SECOND, 14 * SECOND + 10), grant(7, 10), answer);
    wrong(&again, "lease/early", "had given it");
}

#[test]
fn what_has_ended_stays_so() {
    let ended = || {
        let mut tale = tale();
        gone(&mut tale, 15 * SECOND);
        tale
    };
    let mut renewal = ended();
    renewal.ok((16 * SECOND, 16 * SECOND + 1), renew(7), renewed(7, 10));
    wrong(&renewal, "lease/renewed-after-end", "the lease had ended by 15.");
    // A deletion that nobody heard of again comes late. What it did is explained by the end of the lease, as it has been
    // taken for what the end of another one did.
    let mut late = Tale::new();
    late.ok((0, 10), grant(8, 1), granted(8, 1)).ok((12, 14), leased("a", "0", 8), done_put(2));
    late.open(20, delete("a")).ok((5 * SECOND, 5 * SECOND + 10), get("a"), found(3, vec![]));
    let answer = pb::LeaseGrantResponse { header: header(3), ..granted(7, 10) };
    late.ok((6 * SECOND, 6 * SECOND + 10), grant(7, 10), answer);
    late.ok((6 * SECOND + 12, 6 * SECOND + 14), leased("a", "1", 7), done_put(4));
    late.ok((7 * SECOND, 7 * SECOND + 10), get("a"), found(5, vec![]));
    late.ok((8 * SECOND, 8 * SECOND + 10), renew(7), renewed(7, 10));
    right(&late);
    let mut phantom = ended();
    phantom.ok((16 * SECOND, 16 * SECOND + 1), leased("a", "2", 7), done_put(4));
    wrong(&phantom, "lease/phantom", "which had ended by 15.");
    let mut never = tale();
    never.ok((6 * SECOND, 6 * SECOND + 1), leased("b", "1", 8), done_put(3));
    wrong(&never, "lease/phantom", "lease 8, which was never granted");
    let mut left = tale();
    left.ok((6 * SECOND, 6 * SECOND + 1), revoke(7), revoked(2));
    wrong(&left, "lease/revoked", "\"a\" is still on it at revision 2");
    // Detached by a put without it, and deleted with it all the same.
    let mut detached = tale();
    detached
        .ok((6 * SECOND, 6 * SECOND + 1), put("a", "2"), done_put(3))
        .ok((7 * SECOND, 7 * SECOND + 1), revoke(7), revoked(4))
        .ok((8 * SECOND, 8 * SECOND + 1), get("a"), found(4, vec![]));
    wrong(&detached, "linear/unexplained-revision", "revision 4 was passed");
}

#[test]
fn a_lease_does_end() {
    let mut tale = tale();
    let settings = &mut tale.history.settings;
    (settings.calm_from, settings.settle_max) = (Some(Micros(0)), Micros(0));
    settings.lease_late_max = Micros::from_secs(5);
    let left =
        pb::LeaseTimeToLiveResponse { header: header(2), id: 7, ttl: 1, granted_ttl: 10, keys: vec![] };
    let ask = pb::LeaseTimeToLiveRequest { id: 7, keys: false };
    let mut in_time = tale.clone();
    in_time.ok((19 * SECOND, 19 * SECOND + 1), ask, left.clone());
    right(&in_time);
    let mut late = tale.clone();
    late.ok((21 * SECOND, 21 * SECOND + 1), ask, left.clone());
    wrong(&late, "lease/immortal", "lease 7, which should have ended by 20.");
    let mut key = tale.clone();
    key.ok((21 * SECOND, 21 * SECOND + 1), get("a"), {
        let kv = sim::check::kv::Kv { lease: 7, ..kv_of("a", "1", (2, 2, 1)) };
        found(2, vec![kv.to_raw()])
    });
    wrong(&key, "lease/immortal", "finds lease 7");
    let mut renewing = tale.clone();
    renewing.ok((18 * SECOND, 18 * SECOND + 1), renew(7), renewed(7, 10)).ok(
        (21 * SECOND, 21 * SECOND + 1),
        ask,
        left,
    );
    right(&renewing);
}

#[test]
fn numbers_are_the_leases() {
    let mut short = Tale::new();
    short.ok((0, 10), grant(7, 10), granted(7, 9));
    wrong(&short, "lease/grant", "was answered with lease 7 for 9.0");
    let mut ttl = tale();
    ttl.ok((6 * SECOND, 6 * SECOND + 1), renew(7), renewed(7, 20));
    wrong(&ttl, "lease/ttl", "gave 20.");
    let ask = pb::LeaseTimeToLiveRequest { id: 7, keys: true };
    let answer = |ttl, granted_ttl, key: &str| {
        let keys = vec![bytes(key)];
        pb::LeaseTimeToLiveResponse { header: header(2), id: 7, ttl, granted_ttl, keys }
    };
    let mut fine = tale();
    fine.ok((6 * SECOND, 6 * SECOND + 1), ask, answer(9, 10, "a"));
    right(&fine);
    let mut other = tale();
    other.ok((6 * SECOND, 6 * SECOND + 1), ask, answer(9, 11, "a"));
    wrong(&other, "lease/ttl", "9 of 11 s");
    let mut stray = tale();
    stray.ok((6 * SECOND, 6 * SECOND + 1), ask, answer(9, 10, "z"));
    wrong(&stray, "lease/keys", "never were on it");
    // Nor may it be told by a replay that was given up.
    let lost = Timeline { whole: false, ..linear::timeline(&stray.history) };
    let told = lease::check_with(&stray.history, &lost);
    assert!(told.iter().all(|wrong| wrong.rule != "lease/keys"), "{told:?}");
    let mut twice = tale();
    let again = pb::LeaseTimeToLiveResponse { keys: vec![bytes("a"), bytes("a")], ..answer(9, 10, "a") };
    twice.ok((6 * SECOND, 6 * SECOND + 1), ask, again);
    wrong(&twice, "lease/keys", "one twice");
}

fn held(key: &str, lease: i64, created: i64, from: u64, until: Option<u64>) -> Held {
    Held {
        kind: HeldKind::Lock,
        name: "l/".to_owned(),
        key: key.to_owned(),
        created,
        lease,
        client: lease as u32,
        from: Micros(from),
        until: until.map(Micros),
    }
}

/// Two clients with leases of 10 s wait for one lock; the first lets go at 2 s.
fn locked() -> Tale {
    let mut tale = Tale::new();
    tale.ok((0, 10), grant(7, 10), granted(7, 10))
        .ok((0, 10), grant(8, 10), granted(8, 10))
        .ok((20, 30), leased("l/7", "", 7), done_put(2))
        .ok((40, 50), leased("l/8", "", 8), done_put(3))
        .ok((2 * SECOND, 2 * SECOND + 10), delete("l/7"), done_delete(4, 1));
    tale.history.held.push(held("l/7", 7, 2, 31, Some(2 * SECOND)));
    tale
}

#[test]
fn one_holds_at_a_time() {
    let mut tale = locked();
    tale.history.settings.ended = Micros(9 * SECOND);
    tale.history.held.push(held("l/8", 8, 3, 2 * SECOND + 20, None));
    right(&tale);
    let mut both = tale.clone();
    both.history.held[1].from = Micros(SECOND);
    wrong(&both, "locks/exclusive", "client 8 held it from 1.000000s");
    wrong(&both, "locks/in-turn", "\"l/7\" of revision 2 was there before it");
    // What a replay that was given up knew last says nothing.
    let all = linear::timeline(&both.history);
    let lost = Timeline { whole: false, owners: all.owners[..2].to_vec(), ..all };
    let told = locks::check_with(&both.history, &lost);
    assert!(told.iter().all(|wrong| wrong.rule != "locks/in-turn"), "{told:?}");
    // Once its lease may have ended, nobody is sure of it.
    let mut lost = locked();
    lost.history.ops.pop();
    lost.history.held[0].until = None;
    lost.ok((11 * SECOND, 11 * SECOND + 10), renew(8), renewed(8, 10));
    lost.ok((11 * SECOND, 11 * SECOND + 10), get("l/7"), found(4, vec![]));
    lost.history.held.push(held("l/8", 8, 3, 11 * SECOND, None));
    right(&lost);
    let mut named = tale.clone();
    named.history.held[1].from = Micros(SECOND);
    named.history.held[1].name = "m/".to_owned();
    right(&named);
}

fn told(key: &str, revision: i64) -> lockpb::LockResponse {
    lockpb::LockResponse { header: header(revision), key: bytes(key) }
}

fn leads(kv: kontiki::wire::RawKeyValue, revision: i64) -> electionpb::LeaderResponse {
    electionpb::LeaderResponse { header: header(revision), kv: Some(kv) }
}

/// Keys l/1 and l/2 wait for l; the first is deleted at revision 4.
fn line() -> Tale {
    let mut tale = Tale::new();
    tale.ok((0, 10), put("l/1", ""), done_put(2)).ok((20, 30), put("l/2", ""), done_put(3)).ok(
        (40, 50),
        delete("l/1"),
        done_delete(4, 1),
    );
    tale
}

#[test]
fn a_turn_comes_to_the_oldest_key() {
    let lock = || lockpb::LockRequest { name: bytes("l"), lease: 2 };
    let mut right_turn = line();
    right_turn.ok((5, 60), lock(), told("l/2", 4));
    right(&right_turn);
    let mut early = line();
    early.ok((5, 35), lock(), told("l/2", 3));
    wrong(&early, "locks/turn", "was never the oldest");
    let mut lost = line();
    lost.ok((60, 70), lock(), told("l/1", 4));
    wrong(&lost, "locks/turn", "\"l/1\" was never the oldest");
    let lead = || electionpb::LeaderRequest { name: bytes("l") };
    let mut leader = line();
    leader.ok((60, 70), lead(), leads(kv("l/2", "", (3, 3, 1)), 4));
    right(&leader);
    leader.ok((80, 90), lead(), leads(kv("l/1", "", (2, 2, 1)), 4));
    wrong(&leader, "locks/leader", "who did not lead at revision 4");
}

#[test]
fn the_next_leader_knows_how_long_a_lease_still_lasts() {
    let mut tale = Tale::new();
    let settings = &mut tale.history.settings;
    (settings.calm_from, settings.settle_max) = (Some(Micros(0)), Micros(0));
    settings.lease_checkpoint = Some(Micros::from_secs(1));
    tale.ok((0, 10), grant(7, 300), granted(7, 300));
    let led = |at, term| MessageFact {
        at: Micros(at),
        from: term,
        to: 9,
        term,
        fact: Fact::Heartbeat { commit: 0, mark: None },
    };
    tale.history.messages.extend([led(5, 1), led(29 * SECOND, 2)]);
    let says = |ttl| {
        let left =
            pb::LeaseTimeToLiveResponse { header: header(1), id: 7, ttl, granted_ttl: 300, keys: vec![] };
        let ask = pb::LeaseTimeToLiveRequest { id: 7, keys: false };
        let mut tale = tale.clone();
        tale.ok((30 * SECOND, 30 * SECOND + 1), ask, left);
        tale
    };
    right(&says(271));
    right(&says(276));
    wrong(&says(300), "lease/starts-anew", "at most 277 s are left of lease 7");
    // While one leads, nothing is added.
    let mut stays = says(276);
    stays.history.messages.pop();
    wrong(&stays, "lease/starts-anew", "at most 271 s are left");
    // Somebody renewed it.
    let mut renewing = says(300);
    let all = pb::LeaseKeepAliveResponse { header: header(1), ..renewed(7, 300) };
    renewing.ok((29 * SECOND, 29 * SECOND + 1), renew(7), all);
    right(&renewing);
}
