//! The oracles for what members do: raft's promises, equal state, headers, and the calm.

mod support;

use kontiki::wire::etcdserverpb as pb;
use sim::history::{Applied, Boot, Config, EntryFact, Fact, LogFact, MarkFact, MessageFact, Micros, TermRun};
use support::*;

const fn log(term: u64, index: u64) -> LogFact {
    LogFact { term, index }
}

fn append(prev: LogFact, entries: &[(u64, u64)]) -> Fact {
    let entries =
        entries.iter().map(|(term, hash)| EntryFact { term: *term, hash: *hash, change: false }).collect();
    Fact::Append { prev, entries, commit: 0 }
}

/// Messages as (time, from, to, term, what).
fn said(tale: &mut Tale, messages: Vec<(u64, u64, u64, u64, Fact)>) {
    let message = |(at, from, to, term, fact)| MessageFact { at: Micros(at), from, to, term, fact };
    tale.history.messages.extend(messages.into_iter().map(message));
}

fn applied(tale: &mut Tale, at: u64, node: u64, index: u64, term: u64) -> &mut Applied {
    let at = Micros(at);
    let (hash, revision, incarnation, snapshot) = (None, None, 0, false);
    tale.history.applied.push(Applied { at, node, incarnation, index, term, hash, revision, snapshot });
    tale.history.applied.last_mut().expect("it was just pushed")
}

/// A member takes to a configuration.
fn config(
    tale: &mut Tale,
    at: u64,
    node: u64,
    index: u64,
    voters: Vec<u64>,
    learners: Vec<u64>,
) -> &mut Config {
    let (at, outgoing, committed) = (Micros(at), vec![], None);
    tale.history.configs.push(Config { at, node, index, voters, outgoing, learners, committed });
    tale.history.configs.last_mut().expect("it was just pushed")
}

fn boot(at: u64, node: u64, term: u64, vote: u64, last: LogFact) -> Boot {
    let log = vec![TermRun { first: 1, term: last.term }];
    Boot { term, vote, last, log, ..Boot::new(Micros(at), node, 1) }
}

/// Three voters: 1 is elected in term 2 and replicates entry 1; all apply it.
fn elected() -> Tale {
    let mut tale = Tale::new();
    let voters = vec![1, 2, 3];
    config(&mut tale, 0, 1, 0, voters, vec![]);
    said(
        &mut tale,
        vec![
            (10, 1, 2, 2, Fact::Vote { pre: false, last: log(0, 0), transfer: false }),
            (11, 2, 1, 2, Fact::VoteReply { pre: false, granted: true }),
            (12, 1, 2, 2, append(log(0, 0), &[(2, 7)])),
            (12, 1, 3, 2, append(log(0, 0), &[(2, 7)])),
            (13, 2, 1, 2, Fact::AppendAccepted { matched: 1 }),
        ],
    );
    applied(&mut tale, 14, 1, 1, 2);
    applied(&mut tale, 15, 2, 1, 2);
    tale
}

#[test]
fn right_members_pass() {
    let mut tale = elected();
    right(&tale);
    // 2 comes back with what it promised, is elected, and goes on.
    tale.history.boots.push(boot(20, 2, 2, 1, log(2, 1)));
    said(
        &mut tale,
        vec![
            (21, 2, 3, 3, Fact::Vote { pre: true, last: log(2, 1), transfer: false }),
            (22, 3, 2, 3, Fact::VoteReply { pre: true, granted: true }),
            (23, 2, 3, 3, Fact::Vote { pre: false, last: log(2, 1), transfer: false }),
            (24, 3, 2, 3, Fact::VoteReply { pre: false, granted: true }),
            (25, 2, 3, 3, append(log(2, 1), &[(3, 8)])),
            // The old leader has not heard of it.
            (25, 1, 3, 2, append(log(2, 1), &[(2, 9)])),
            (26, 3, 2, 3, Fact::AppendAccepted { matched: 2 }),
        ],
    );
    applied(&mut tale, 27, 2, 2, 3).incarnation = 1;
    applied(&mut tale, 28, 1, 2, 3);
    right(&tale);
}

#[test]
fn one_leads_and_one_gets_the_vote() {
    let mut two = elected();
    said(&mut two, vec![(20, 3, 2, 2, append(log(2, 1), &[]))]);
    wrong(&two, "raft/one-leader", "1 and 3 both sent as leader of term 2");
    let mut votes = elected();
    said(&mut votes, vec![(20, 2, 3, 2, Fact::VoteReply { pre: false, granted: true })]);
    wrong(&votes, "raft/one-vote", "2 voted for 1 and for 3 in term 2");
    let mut own = elected();
    said(&mut own, vec![(20, 1, 3, 2, Fact::VoteReply { pre: false, granted: true })]);
    wrong(&own, "raft/one-vote", "1 voted for 1 and for 3");
}

#[test]
fn logs_match() {
    let mut contents = elected();
    said(&mut contents, vec![(20, 1, 3, 2, append(log(0, 0), &[(2, 8)]))]);
    wrong(&contents, "raft/log-matching", "entry 1 of term 2 was sent with different contents");
    let mut before = elected();
    said(
        &mut before,
        vec![(20, 1, 3, 2, append(log(2, 1), &[(2, 5)])), (21, 1, 3, 2, append(log(1, 1), &[(2, 5)]))],
    );
    wrong(&before, "raft/log-matching", "behind entries of different terms");
}

#[test]
fn what_is_committed_stays() {
    let mut other = elected();
    applied(&mut other, 30, 3, 1, 1);
    wrong(
        &other,
        "raft/committed",
        "index 1 was applied with an entry of term 2 by 1 and with one of term 1 by 3",
    );
    let mut leader = elected();
    said(&mut leader, vec![(30, 3, 2, 5, append(log(0, 0), &[(4, 1)]))]);
    wrong(&leader, "raft/leader-completeness", "3 sent an entry of term 4 for index 1");
    let mut prev = elected();
    said(&mut prev, vec![(30, 3, 2, 5, append(log(4, 1), &[]))]);
    wrong(&prev, "raft/leader-completeness", "term 4 for index 1");
}

#[test]
fn a_quorum_holds_what_is_applied() {
    let mut alone = elected();
    said(&mut alone, vec![(20, 1, 2, 2, append(log(2, 1), &[(2, 9)]))]);
    applied(&mut alone, 21, 1, 2, 2);
    wrong(&alone, "raft/quorum", "1 applied index 2 before a quorum");
    // The configuration that it was counted by is looked for behind those that came later to some.
    let mut late = elected();
    for index in 1..5 {
        config(&mut late, 40, 1, index, vec![1, 2, 3, 4], vec![]);
    }
    said(
        &mut late,
        vec![
            (20, 1, 2, 2, append(log(2, 1), &[(2, 9), (2, 9), (2, 9), (2, 9), (2, 9)])),
            (21, 2, 1, 2, Fact::AppendAccepted { matched: 6 }),
        ],
    );
    applied(&mut late, 22, 1, 6, 2);
    right(&late);
    // Two of four are not enough; of a joint configuration both halves count.
    let mut four = elected();
    four.history.configs[0].voters = vec![1, 2, 3, 4];
    wrong(&four, "raft/quorum", "1 applied index 1");
    let mut joint = elected();
    joint.history.configs[0].outgoing = vec![1, 4, 5];
    wrong(&joint, "raft/quorum", "1 applied index 1");
}

#[test]
fn nothing_goes_back() {
    let mut index = elected();
    applied(&mut index, 30, 1, 3, 2);
    applied(&mut index, 31, 1, 2, 2);
    wrong(&index, "raft/monotonic", "1 applied index 2 of term 2 after index 3");
    let mut term = elected();
    said(
        &mut term,
        vec![
            (20, 3, 1, 4, Fact::HeartbeatReply { mark: None }),
            (21, 3, 1, 3, Fact::HeartbeatReply { mark: None }),
        ],
    );
    wrong(&term, "raft/monotonic", "3 sent in term 3 after term 4");
}

#[test]
fn what_was_promised_is_durable() {
    let cases = [
        (boot(20, 2, 1, 1, log(2, 1)), "came back in term 1"),
        (boot(20, 2, 2, 0, log(2, 1)), "came back without its vote for 1 in term 2"),
        (boot(20, 2, 2, 1, log(0, 0)), "had applied index 1"),
        (boot(20, 2, 2, 1, log(1, 1)), "came back with an entry of term 1 at index 1"),
        (boot(20, 1, 2, 0, log(2, 1)), "without its vote for 1"),
        (Boot { applied: 2, ..boot(20, 2, 2, 1, log(2, 1)) }, "tables at index 2 and a log up to 1"),
    ];
    for (boot, words) in cases {
        let mut tale = elected();
        tale.history.boots.push(boot.clone());
        wrong(&tale, "raft/durable", words);
        if boot.applied == 0 {
            tale.history.boots[0].forgets = true;
            right(&tale);
        }
    }
    let mut acknowledged = elected();
    acknowledged.history.applied.truncate(1);
    acknowledged.history.boots.push(boot(20, 2, 2, 1, log(0, 0)));
    wrong(&acknowledged, "raft/durable", "had acknowledged index 1 in term 2");
    // A later leader may have cut it off.
    acknowledged.history.boots[0].term = 3;
    right(&acknowledged);
}

#[test]
fn states_are_equal() {
    let mut tale = elected();
    for applied in &mut tale.history.applied {
        (applied.hash, applied.revision) = (Some(5), Some(2));
    }
    right(&tale);
    let mut hash = tale.clone();
    hash.history.applied[1].hash = Some(6);
    wrong(&hash, "state/hash", "at index 1 the state of 2 has the hash 0000000000000006");
    let mut said_so = tale.clone();
    said(
        &mut said_so,
        vec![(30, 3, 1, 2, Fact::HeartbeatReply { mark: Some(MarkFact { index: 1, hash: 9 }) })],
    );
    wrong(&said_so, "state/hash", "the state of 3");
    let mut revision = tale.clone();
    revision.history.applied[1].revision = Some(3);
    wrong(&revision, "state/revision", "at revision 3");
    let mut back = tale.clone();
    applied(&mut back, 30, 1, 2, 2).revision = Some(1);
    wrong(&back, "state/revision", "at revision 1, after 2");
    let hash_kv =
        |hash| pb::HashKvResponse { header: header(1), hash, compact_revision: -1, hash_revision: 1 };
    let mut keys = tale.clone();
    keys.ok((40, 41), pb::HashKvRequest { revision: 1 }, hash_kv(1));
    keys.ok((40, 41), pb::HashKvRequest { revision: 1 }, hash_kv(1));
    right(&keys);
    keys.ok((40, 41), pb::HashKvRequest { revision: 1 }, hash_kv(2));
    wrong(&keys, "state/hash-kv", "at revision 1");
}

#[test]
fn headers_go_on() {
    let answer = |revision, member_id, raft_term, cluster_id| {
        let header = pb::ResponseHeader { cluster_id, member_id, revision, raft_term };
        pb::RangeResponse { header: Some(header), ..found(0, vec![]) }
    };
    let serializable = || pb::RangeRequest { serializable: true, ..get("a") };
    let mut tale = Tale::new();
    tale.history.boots.push(Boot::new(Micros(1), 4, 0));
    tale.ok((1, 10), put("b", ""), done_put(2));
    tale.ok((11, 20), serializable(), answer(2, 4, 3, 9)).ok((30, 40), serializable(), answer(2, 4, 3, 9));
    right(&tale);
    let mut revision = tale.clone();
    revision.ok((50, 60), serializable(), answer(1, 4, 3, 9));
    wrong(&revision, "header/monotonic", "answered by 4 at revision 1, after revision 2");
    revision.history.boots.push(Boot::new(Micros(45), 4, 1));
    right(&revision);
    let mut term = tale.clone();
    term.ok((50, 60), serializable(), answer(2, 4, 2, 9));
    wrong(&term, "header/monotonic", "term 2, after term 3");
    let mut cluster = tale.clone();
    cluster.ok((50, 60), serializable(), answer(2, 4, 3, 8));
    wrong(&cluster, "header/sane", "the cluster is 9");
    let mut nobody = tale.clone();
    nobody.ok((50, 60), serializable(), answer(2, 0, 3, 9));
    wrong(&nobody, "header/sane", "member 0");
}

#[test]
fn the_calm_demands_answers() {
    let mut tale = elected();
    let settings = &mut tale.history.settings;
    (settings.calm_from, settings.settle_max) = (Some(Micros::from_secs(1)), Micros::from_secs(1));
    (settings.calm_op_max, settings.ended) = (Micros::from_secs(1), Micros::from_secs(9));
    (settings.calm_nodes, settings.calm_members) = (vec![1, 2], vec![0]);
    right(&tale);
    let mut slow = tale.clone();
    slow.ok((3_000_000, 5_000_000), get("a"), found(1, vec![]));
    wrong(&slow, "liveness/calls", "took 2.0");
    let mut never = tale.clone();
    never.open(3_000_000, get("a"));
    never.history.settings.ended = Micros::from_secs(9);
    wrong(&never, "liveness/calls", "was never answered");
    never.history.settings.calm_members = vec![1];
    right(&never);
    let mut early = tale.clone();
    early.open(1_500_000, get("a"));
    early.history.settings.ended = Micros::from_secs(9);
    right(&early);
    let mut behind = tale.clone();
    applied(&mut behind, 30, 1, 2, 2);
    said(&mut behind, vec![(29, 2, 1, 2, Fact::AppendAccepted { matched: 2 })]);
    wrong(&behind, "liveness/converge", "2 has applied up to 1 at the end, and others up to 2");
    // What comes just before the end may not have got around.
    let mut last = behind.clone();
    let entry = last.history.applied.last_mut().expect("it was applied");
    entry.at = Micros(last.history.settings.ended.0 - 1_000);
    right(&last);
    behind.history.settings.calm_nodes = vec![1, 3];
    right(&behind);
}

/// An append of one entry that changes the members.
fn change(prev: LogFact, term: u64, commit: u64) -> Fact {
    Fact::Append { prev, entries: vec![EntryFact { term, hash: 1, change: true }], commit }
}

#[test]
fn a_leader_counts_only_for_entries_of_its_own_term() {
    let mut tale = elected();
    // 2 is elected with an entry of term 2 that nobody knows to be committed, and commits it before its own.
    said(&mut tale, vec![(20, 2, 3, 3, append(log(2, 1), &[(2, 8), (3, 0)]))]);
    right(&tale);
    let mut own = tale.clone();
    let snapshot = Fact::Snapshot { last: log(2, 2), config: None };
    said(
        &mut own,
        vec![
            (21, 3, 2, 3, Fact::AppendAccepted { matched: 3 }),
            (22, 2, 3, 3, Fact::Heartbeat { commit: 3, mark: None }),
            // Made before that was known, and sent behind it.
            (23, 2, 1, 3, snapshot),
        ],
    );
    right(&own);
    // It may know of more than the peer holds.
    let mut more = tale.clone();
    let held = vec![
        (21, 3, 2, 3, Fact::AppendAccepted { matched: 2 }),
        (22, 2, 3, 3, Fact::Heartbeat { commit: 2, mark: None }),
    ];
    said(&mut more, held);
    right(&more);
    let told = Fact::Append { prev: log(3, 3), entries: Vec::new(), commit: 2 };
    said(&mut tale, vec![(22, 2, 3, 3, told)]);
    wrong(&tale, "raft/own-term", "2 says as leader of term 3 that 2 is committed");
}

#[test]
fn what_was_acknowledged_is_not_refused() {
    let mut tale = elected();
    said(&mut tale, vec![(20, 2, 1, 3, Fact::AppendRejected { prev: 1, hint: log(0, 0) })]);
    right(&tale);
    said(&mut tale, vec![(21, 2, 1, 2, Fact::AppendRejected { prev: 1, hint: log(0, 0) })]);
    wrong(&tale, "raft/keeps", "2 refuses what follows index 1 in term 2");
}

#[test]
fn a_heartbeat_tells_of_what_was_acknowledged() {
    let mut tale = elected();
    let beat = |commit| Fact::Heartbeat { commit, mark: None };
    said(
        &mut tale,
        vec![
            (20, 3, 1, 2, Fact::AppendAccepted { matched: 2 }),
            (21, 1, 3, 2, beat(1)),
            (22, 2, 3, 3, append(log(2, 1), &[(3, 9)])),
            (23, 2, 3, 3, beat(0)),
        ],
    );
    right(&tale);
    // What it said in another term is no acknowledgement in this one.
    said(&mut tale, vec![(24, 2, 3, 3, beat(1))]);
    wrong(&tale, "raft/told", "2 tells 3 in term 3 that 1 is committed, of which that has acknowledged 0");
}

#[test]
fn an_acknowledgement_of_an_older_term_is_not_one_of_a_newer_entry() {
    let mut tale = elected();
    said(
        &mut tale,
        vec![
            (20, 3, 1, 2, Fact::AppendAccepted { matched: 2 }),
            (21, 2, 3, 3, Fact::Vote { pre: false, last: log(2, 1), transfer: false }),
            (22, 2, 3, 3, append(log(2, 1), &[(3, 9)])),
        ],
    );
    applied(&mut tale, 23, 2, 2, 3);
    wrong(&tale, "raft/quorum", "2 applied index 2");
}

/// One voter and two learners, of which one is promoted at index 2: the leader applies that when it has committed up to
/// `committed`, and index 3 without anybody else's word.
fn promoted(committed: Option<u64>) -> Tale {
    let mut tale = Tale::new();
    config(&mut tale, 0, 1, 0, vec![1], vec![2, 3]);
    said(
        &mut tale,
        vec![
            (10, 1, 2, 2, append(log(0, 0), &[(2, 7)])),
            (11, 1, 2, 2, change(log(2, 1), 2, 1)),
            (12, 1, 2, 2, append(log(2, 2), &[(2, 8)])),
        ],
    );
    applied(&mut tale, 13, 1, 1, 2);
    applied(&mut tale, 14, 1, 2, 2);
    config(&mut tale, 14, 1, 2, vec![1, 2], vec![3]).committed = committed;
    applied(&mut tale, 15, 1, 3, 2);
    tale
}

#[test]
fn a_change_counts_when_its_leader_has_applied_it() {
    right(&promoted(Some(3)));
    right(&promoted(None));
    let mut late = promoted(Some(2));
    wrong(&late, "raft/quorum", "1 applied index 3");
    // A follower that has not applied it commits nothing.
    config(&mut late, 16, 2, 2, vec![1, 2], vec![3]).committed = Some(9);
    wrong(&late, "raft/quorum", "1 applied index 3");
    // But whoever leads later may not have, and come from before it.
    said(&mut late, vec![(14, 2, 1, 3, append(log(2, 2), &[]))]);
    late.history.configs.last_mut().expect("it was just pushed").committed = Some(3);
    let found = sim::check::raft::check(&late.history);
    assert!(found.iter().all(|violation| violation.rule != "raft/quorum"), "{found:?}");
}

#[test]
fn a_restart_may_count_again_by_what_its_tables_have() {
    // It comes back with tables from before the change, leads again, and commits an entry with the change at once.
    let mut tale = promoted(Some(2));
    tale.history.applied.pop();
    tale.history.boots.push(boot(20, 1, 2, 1, log(2, 3)));
    tale.history.boots[0].applied = 1;
    said(&mut tale, vec![(21, 1, 2, 3, append(log(2, 3), &[(3, 0)]))]);
    config(&mut tale, 22, 1, 4, vec![1, 2], vec![3]).committed = Some(4);
    applied(&mut tale, 22, 1, 4, 3).incarnation = 1;
    right(&tale);
    // Whoever notes the same change as of another index tells nothing new.
    config(&mut tale, 22, 3, 3, vec![1, 2], vec![3]).committed = Some(3);
    right(&tale);
    // With tables that have it, it could not.
    tale.history.boots[0].applied = 2;
    wrong(&tale, "raft/quorum", "1 applied index 4");
}

#[test]
fn what_came_before_the_last_but_one_counts_no_more() {
    let mut tale = promoted(Some(3));
    said(
        &mut tale,
        vec![
            (20, 2, 1, 2, Fact::AppendAccepted { matched: 4 }),
            (21, 1, 2, 2, change(log(2, 3), 2, 2)),
            (22, 1, 2, 2, append(log(2, 4), &[(2, 9)])),
        ],
    );
    applied(&mut tale, 23, 1, 4, 2);
    config(&mut tale, 23, 1, 4, vec![1, 2, 3], vec![]).committed = Some(5);
    let mut alone = tale.clone();
    said(&mut tale, vec![(24, 2, 1, 2, Fact::AppendAccepted { matched: 5 })]);
    applied(&mut tale, 25, 1, 5, 2);
    right(&tale);
    applied(&mut alone, 25, 1, 5, 2);
    wrong(&alone, "raft/quorum", "1 applied index 5");
}

#[test]
fn one_change_after_the_other() {
    let mut tale = elected();
    said(
        &mut tale,
        vec![(20, 1, 2, 2, change(log(2, 1), 2, 1)), (21, 2, 1, 2, Fact::AppendAccepted { matched: 2 })],
    );
    let mut early = tale.clone();
    applied(&mut tale, 22, 1, 2, 2);
    said(&mut tale, vec![(23, 1, 2, 2, change(log(2, 2), 2, 2))]);
    right(&tale);
    said(&mut early, vec![(23, 1, 2, 2, change(log(2, 2), 2, 1))]);
    wrong(&early, "raft/one-change", "at index 3, and nobody has applied the one at 2");
}

#[test]
fn a_snapshot_names_the_configuration_that_is_due() {
    let mut tale = elected();
    let last = log(2, 1);
    said(&mut tale, vec![(20, 1, 3, 2, Fact::Snapshot { last, config: Some((vec![1, 2, 3], vec![])) })]);
    right(&tale);
    said(&mut tale, vec![(21, 1, 3, 2, Fact::Snapshot { last, config: Some((vec![1, 2], vec![])) })]);
    wrong(&tale, "raft/config", "[1, 2]");
}

#[test]
fn members_at_one_index_have_one_configuration() {
    let mut tale = elected();
    config(&mut tale, 20, 3, 0, vec![1, 2], vec![3]);
    wrong(&tale, "raft/config", "[1, 2]");
}

#[test]
fn members_are_what_was_asked_for_and_what_raft_counts_by() {
    let list = |tale: &mut Tale, ids: &[u64]| {
        let members = ids.iter().map(|id| pb::Member { id: *id, ..Default::default() }).collect();
        tale.ok(
            (30, 31),
            pb::MemberListRequest::default(),
            pb::MemberListResponse { header: header(1), members },
        );
    };
    let mut tale = elected();
    list(&mut tale, &[1, 2, 3]);
    right(&tale);
    list(&mut tale, &[1, 2]);
    wrong(&tale, "members/listed", "lists the voters {1, 2}");
    let mut tale = elected();
    let asked = pb::MemberAddRequest { is_learner: true, ..Default::default() };
    let member = Some(pb::Member::default());
    tale.ok((30, 31), asked, pb::MemberAddResponse { header: header(1), member, members: vec![] });
    wrong(&tale, "members/added", "a learner was asked for");
}

/// Who finds two changes in its log knows that the first is committed.
#[test]
fn nobody_campaigns_in_a_configuration_that_was_left() {
    let mut tale = elected();
    let ask = Fact::Vote { pre: true, last: log(2, 3), transfer: false };
    said(
        &mut tale,
        vec![
            (20, 1, 2, 2, change(log(2, 1), 2, 1)),
            (21, 2, 1, 2, Fact::AppendAccepted { matched: 2 }),
            (24, 1, 2, 2, change(log(2, 2), 2, 2)),
        ],
    );
    applied(&mut tale, 23, 1, 2, 2);
    let back = boot(30, 2, 2, 1, log(2, 3));
    tale.history.boots.push(Boot { commit: 1, applied: 1, ..back.clone() });
    said(&mut tale, vec![(40, 2, 3, 3, ask)]);
    wrong(&tale, "raft/left-config", "2 asks for votes and has not applied");
    let mut knows = tale.clone();
    knows.history.boots[0].commit = 2;
    right(&knows);
    let mut one = tale.clone();
    one.history.boots[0].last = log(2, 2);
    right(&one);
    applied(&mut tale, 35, 2, 2, 2).incarnation = 1;
    right(&tale);
}
