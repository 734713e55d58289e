//! One member, and messages that are hard to bring about with several: what a correct leader may send, and what no
//! correct member sends.

use kontiki::{
    membership::{Change, ChangeKind, ChangeStep, Transition},
    raft::{
        Body, Config, Dropped, Entry, HardState, Input, LogId, Message, Payload, Raft, ReadId, Ready,
        Restored, RoleKind, Snapshot, SnapshotMeta, StepError,
    },
    types::{Index, NodeId, Term},
};

fn id(term: u64, index: u64) -> LogId {
    LogId { term: Term(term), index: Index(index) }
}

fn entry(term: u64, index: u64) -> Entry {
    Entry { term: Term(term), index: Index(index), payload: Payload::Empty }
}

/// Member 1 of 1, 2 and 3, with 2.2, 2.3 and 2.4, of which 2.2 is committed.
fn follower() -> Raft {
    follower_with(|_| {})
}

fn follower_with(change: impl FnOnce(&mut Config)) -> Raft {
    let mut config = Config::new(NodeId(1), 0);
    change(&mut config);
    let mut restored = Restored::default();
    restored.snapshot.last = id(1, 1);
    restored.config.voters = [1, 2, 3].map(NodeId).into();
    restored.applied = Index(1);
    restored.hard = HardState { term: Term(2), vote: None, commit: Index(2) };
    restored.entries = vec![entry(2, 2), entry(2, 3), entry(2, 4)];
    Raft::new(config, restored).expect("sound")
}

fn receive(raft: &mut Raft, term: u64, body: Body) -> Result<Vec<Body>, StepError> {
    receive_from(2, raft, term, body)
}

fn receive_from(from: u64, raft: &mut Raft, term: u64, body: Body) -> Result<Vec<Body>, StepError> {
    raft.step(Input::Receive(Message { from: NodeId(from), to: NodeId(1), term: Term(term), body }))?;
    Ok(settle(raft))
}

/// Does what is to be done, and gives what is said.
fn settle(raft: &mut Raft) -> Vec<Body> {
    let mut said = Vec::new();
    while let Some(Ready { messages, persist, .. }) = raft.poll_ready() {
        assert!(said.len() < 1000, "it does not come to rest");
        said.extend(messages.into_iter().map(|message| message.body));
        if let Some(id) = persist {
            raft.step(Input::Persisted(id)).expect("it was asked for");
        }
    }
    said
}

/// The same member as a leader in term 3; 3.5 is its first entry, and committed, and 2.4 is applied.
fn leader() -> Raft {
    leader_with(|_| {})
}

fn leader_with(change: impl FnOnce(&mut Config)) -> Raft {
    let mut raft = follower_with(change);
    raft.step(Input::Campaign).expect("taken");
    let yes = |pre| Body::VoteReply { pre, granted: true };
    receive(&mut raft, 3, yes(true)).expect("taken");
    receive(&mut raft, 3, yes(false)).expect("taken");
    receive(&mut raft, 3, Body::AppendAccepted { matched: Index(5) }).expect("taken");
    raft.step(Input::Applied(Index(4))).expect("handed out");
    assert_eq!((raft.role(), raft.commit()), (RoleKind::Leader, Index(5)));
    raft
}

fn append(prev: LogId, entries: Vec<Entry>, commit: u64) -> Body {
    Body::Append { prev, entries, commit: Index(commit) }
}

/// Zoo R09: the append says that index 4 is committed, and shows that 3 is the leader's; of the follower's own 4 it
/// says nothing (the leader's may be another). R05: nor does it take it away.
#[test]
fn an_append_commits_what_it_verifies() {
    let mut raft = follower();
    let said = receive(&mut raft, 3, append(id(2, 2), vec![entry(2, 3)], 4));
    assert_eq!(said, Ok(vec![Body::AppendAccepted { matched: Index(3) }]));
    assert_eq!((raft.commit(), raft.last()), (Index(3), id(2, 4)));
    let said = receive(&mut raft, 3, append(id(2, 3), Vec::new(), 4));
    assert_eq!(said, Ok(vec![Body::AppendAccepted { matched: Index(3) }]));
    assert_eq!((raft.commit(), raft.last()), (Index(3), id(2, 4)));
}

/// Zoo R10: even if a leader did not limit a heartbeat's commit index to what the follower is known to hold.
#[test]
fn a_heartbeat_commits_what_was_verified() {
    let mut raft = follower();
    let beat = |commit| Body::Heartbeat { commit: Index(commit), context: Default::default(), state: None };
    receive(&mut raft, 3, beat(4)).expect("taken");
    assert_eq!(raft.commit(), Index(2));
    receive(&mut raft, 3, append(id(2, 4), vec![entry(3, 5)], 2)).expect("taken");
    receive(&mut raft, 3, beat(9)).expect("taken");
    assert_eq!(raft.commit(), Index(5));
}

#[test]
fn what_is_committed_is_never_replaced() {
    let diverged = Err(StepError::Diverged { from: NodeId(2), index: Index(2) });
    let mut raft = follower();
    assert_eq!(receive(&mut raft, 3, append(id(1, 1), vec![entry(3, 2)], 2)), diverged);
    assert_eq!(receive(&mut raft, 3, append(id(3, 2), Vec::new(), 2)), diverged);
    let at_the_base = Err(StepError::Diverged { from: NodeId(2), index: Index(1) });
    assert_eq!(receive(&mut raft, 3, append(id(0, 0), vec![entry(3, 1)], 2)), at_the_base);
    assert_eq!((raft.commit(), raft.last()), (Index(2), id(2, 4)));
}

#[test]
fn nonsense_is_refused_and_changes_nothing() {
    let nonsense = [
        (0, append(id(2, 2), Vec::new(), 2)),
        (u64::MAX, append(id(2, 2), Vec::new(), 2)),
        (3, append(id(2, u64::MAX), vec![entry(2, 0)], 2)),
        (3, append(id(2, 2), vec![entry(2, 4)], 2)),
        (3, append(id(2, 2), vec![entry(1, 3)], 2)),
        (3, append(id(2, 2), vec![entry(4, 3)], 2)),
        (3, Body::Snapshot(Snapshot::default())),
        (3, Body::AppendAccepted { matched: Index(u64::MAX) }),
        (3, Body::ReadIndexReply { index: Index(u64::MAX), context: Default::default() }),
        (0, Body::TimeoutNow),
    ];
    for (term, body) in nonsense {
        let mut raft = follower();
        let refused = receive(&mut raft, term, body.clone());
        assert!(matches!(refused, Err(StepError::Malformed { .. })), "{body:?} gave {refused:?}");
        assert_eq!((raft.term(), raft.commit(), raft.last()), (Term(2), Index(2), id(2, 4)));
    }
}

/// Terms and indices beyond all that a cluster can reach are refused, and none that are less.
#[test]
fn numbers_are_in_range() {
    const MAX: u64 = u64::MAX / 4;
    let snapshot = |last| {
        let meta = SnapshotMeta { last, config: follower().conf_state() };
        Body::Snapshot(Snapshot { meta, data: Default::default() })
    };
    let accepted = |index| Body::AppendAccepted { matched: Index(index) };
    for (at_most, term, body) in [
        (true, MAX, append(id(2, 4), Vec::new(), 2)),
        (false, MAX + 1, append(id(2, 4), Vec::new(), 2)),
        (true, 3, append(id(2, MAX), Vec::new(), 2)),
        (false, 3, append(id(2, MAX + 1), Vec::new(), 2)),
        (true, 3, snapshot(id(3, MAX))),
        (false, 3, snapshot(id(3, MAX + 1))),
        (false, 3, snapshot(id(4, 9))),
        (false, 3, snapshot(id(0, 0))),
        (true, 3, accepted(MAX)),
        (false, 3, accepted(MAX + 1)),
    ] {
        let taken = receive(&mut follower(), term, body.clone());
        assert_eq!(taken.is_ok(), at_most, "{body:?} in term {term} gave {taken:?}");
    }
}

/// Two leaders in a term: the second is not listened to.
#[test]
fn a_term_has_one_leader() {
    let mut raft = follower();
    receive(&mut raft, 3, append(id(2, 4), Vec::new(), 2)).expect("taken");
    let body = append(id(2, 4), Vec::new(), 4);
    let second = Message { from: NodeId(3), to: NodeId(1), term: Term(3), body };
    assert!(matches!(raft.step(Input::Receive(second)), Err(StepError::Malformed { from: NodeId(3), .. })));
    assert_eq!(raft.commit(), Index(2));
}

/// An answer counts if it is to the question that was asked: a pre-vote's is neither a vote nor a refusal of one, and
/// is for one term.
#[test]
fn answers_to_other_questions_do_not_count() {
    let reply = |pre, granted| Body::VoteReply { pre, granted };
    let asking = || {
        let mut raft = follower();
        raft.step(Input::Campaign).expect("taken");
        assert_eq!((raft.role(), raft.term()), (RoleKind::PreCandidate, Term(2)));
        raft
    };
    for (pre, granted, term, becomes) in [
        (true, true, 3, RoleKind::Leader),
        (true, false, 2, RoleKind::Follower),
        // Of a campaign in term 2, which came to nothing, and of the question before it.
        (false, true, 2, RoleKind::PreCandidate),
        (false, false, 2, RoleKind::PreCandidate),
        (true, true, 2, RoleKind::PreCandidate),
    ] {
        let mut raft = asking();
        for from in [2, 3] {
            let _ = receive_from(from, &mut raft, term, reply(pre, granted));
        }
        if raft.role() == RoleKind::Candidate {
            receive(&mut raft, 3, reply(true, true)).expect("taken");
            assert_eq!(raft.role(), RoleKind::Candidate, "a pre-vote counts as a vote");
            receive(&mut raft, 3, reply(false, true)).expect("taken");
        }
        assert_eq!(raft.role(), becomes, "after pre={pre} granted={granted} term={term}");
    }
}

/// Who has got a snapshot knows its own configuration only once the snapshot is durable and installed.
#[test]
fn nobody_campaigns_from_a_snapshot_on_its_way() {
    let meta = SnapshotMeta { last: id(3, 9), config: follower().conf_state() };
    let snapshot = Body::Snapshot(Snapshot { meta, data: Default::default() });
    for installed_first in [true, false] {
        let mut raft = follower();
        let message = Message { from: NodeId(2), to: NodeId(1), term: Term(3), body: snapshot.clone() };
        raft.step(Input::Receive(message)).expect("taken");
        let id = raft.poll_ready().and_then(|ready| ready.persist).expect("it is written");
        let mut steps = [Input::Applied(Index(9)), Input::Persisted(id)];
        if !installed_first {
            steps.reverse();
        }
        for step in steps {
            raft.step(Input::Campaign).expect("taken");
            assert_eq!(raft.role(), RoleKind::Follower);
            raft.step(step).expect("in order");
        }
        raft.step(Input::Campaign).expect("taken");
        assert_eq!(raft.role(), RoleKind::PreCandidate);
    }
}

/// A proposal is passed on, but not back to where it comes from.
#[test]
fn proposals_do_not_go_back_and_forth() {
    let mut raft = follower();
    receive(&mut raft, 3, append(id(2, 4), Vec::new(), 2)).expect("taken");
    let proposal = Body::Propose { payloads: vec![Payload::Empty] };
    assert_eq!(receive_from(3, &mut raft, 0, proposal.clone()), Ok(vec![proposal.clone()]));
    let dropped = Err(StepError::ProposalDropped(Dropped::NoLeader));
    assert_eq!(receive_from(2, &mut raft, 0, proposal), dropped);
}

/// The round that a heartbeat's answer names is (term, counter), one that this leader opened.
#[test]
fn answers_to_rounds_of_others_confirm_nothing() {
    let mut raft = leader();
    raft.step(Input::Read(ReadId(1))).expect("taken");
    let asked = |body: &Body| match body {
        Body::Heartbeat { context, .. } => Some(context.clone()),
        _ => None,
    };
    let own = settle(&mut raft).iter().find_map(asked).expect("a round is opened");
    let (mut other_term, mut other_round) = (own.to_vec(), own.to_vec());
    other_term[7] -= 1;
    other_round[15] += 1;
    for (context, confirms) in
        [(other_term.into(), false), (other_round.into(), false), (Default::default(), false), (own, true)]
    {
        let body = Body::HeartbeatReply { context, state: None };
        let message = Message { from: NodeId(2), to: NodeId(1), term: Term(3), body };
        raft.step(Input::Receive(message)).expect("taken");
        let reads = raft.poll_ready().map_or(Vec::new(), |ready| ready.reads);
        assert_eq!(!reads.is_empty(), confirms);
    }
}

/// A snapshot that was built too late, or of what is not committed, goes to nobody.
#[test]
fn a_snapshot_continues_in_the_log() {
    let mut raft = leader();
    raft.step(Input::Compact(Index(4))).expect("applied");
    let built = |term, index| Input::SnapshotBuilt {
        to: NodeId(3),
        snapshot: Snapshot {
            meta: SnapshotMeta { last: id(term, index), config: follower().conf_state() },
            data: Default::default(),
        },
    };
    assert!(matches!(raft.step(built(2, 3)), Err(StepError::OutOfOrder(_))));
    assert!(matches!(raft.step(built(3, 6)), Err(StepError::OutOfOrder(_))));
    assert_eq!(raft.step(built(2, 4)), Ok(()));
    assert_eq!(raft.step(built(3, 5)), Ok(()));
}

/// A wish to hand over that travels without a term is heard in any; with one, the terms count as ever.
#[test]
fn a_wish_to_transfer_is_heard_with_and_without_a_term() {
    let wish = Body::TransferLeader { target: NodeId(2) };
    for (term, transferee, role) in [
        (0, Some(NodeId(2)), RoleKind::Leader),
        (2, None, RoleKind::Leader),
        (3, Some(NodeId(2)), RoleKind::Leader),
        (4, None, RoleKind::Follower),
    ] {
        let mut raft = leader();
        assert!(raft.configuration().is_voter(NodeId(2)));
        let _ = receive(&mut raft, term, wish.clone());
        assert_eq!((raft.transferee(), raft.role()), (transferee, role), "with term {term}");
    }
}

/// Thesis section 4.2.3: a candidate is ignored for an election timeout after the leader was heard of, not longer.
#[test]
fn stickiness_lasts_for_an_election_timeout() {
    for (ticks, answers) in [(9, false), (10, true)] {
        let mut raft = follower();
        receive(&mut raft, 3, append(id(2, 4), Vec::new(), 2)).expect("taken");
        for _ in 0..ticks {
            raft.step(Input::Tick).expect("taken");
        }
        assert_eq!((raft.role(), raft.leader()), (RoleKind::Follower, Some(NodeId(2))));
        let vote = Body::Vote { pre: true, last: id(3, 9), transfer: false };
        let said = receive_from(3, &mut raft, 4, vote).expect("taken");
        assert_eq!(!said.is_empty(), answers, "after {ticks} ticks: {said:?}");
    }
}

/// Raft section 5.2: only a vote that is given makes a follower wait anew.
#[test]
fn candidates_that_can_not_win_keep_nobody_from_campaigning() {
    for (last, campaigns) in [(id(2, 3), true), (id(2, 4), false)] {
        let (mut raft, mut campaigned) = (follower(), false);
        for term in 3..7 {
            let vote = Body::Vote { pre: false, last, transfer: false };
            receive(&mut raft, term, vote).expect("taken");
            for _ in 0..5 {
                raft.step(Input::Tick).expect("taken");
                campaigned |= raft.role() != RoleKind::Follower;
            }
        }
        assert_eq!(campaigned, campaigns, "asked with {last:?}");
    }
}

/// One write makes two acceptances true, and the later says all of the earlier.
#[test]
fn acceptances_of_one_write_are_one_message() {
    let mut raft = follower();
    for (prev, next) in [(id(2, 4), entry(3, 5)), (id(3, 5), entry(3, 6))] {
        let body = append(prev, vec![next], 2);
        let message = Message { from: NodeId(2), to: NodeId(1), term: Term(3), body };
        raft.step(Input::Receive(message)).expect("taken");
    }
    assert_eq!(settle(&mut raft), vec![Body::AppendAccepted { matched: Index(6) }]);
}

#[test]
fn the_log_counts_its_bytes() {
    let change = |steps: usize, context: &'static [u8]| {
        let step = ChangeStep { kind: ChangeKind::AddVoter, node: NodeId(4) };
        let context = context.into();
        match steps {
            1 => Payload::Change(Change::Single { id: 1, step, context }),
            _ => Payload::Change(Change::Joint {
                transition: Transition::Auto,
                steps: vec![step; steps],
                context,
            }),
        }
    };
    assert_eq!(change(1, b"abcde").size(), change(1, b"").size() + 5);
    assert_eq!(change(2, b"abcde").size(), 2 * change(1, b"").size() + 5);
    let (empty, five) = (entry(1, 1).size(), Payload::Command(b"abcde".as_slice().into()));
    let mut raft = follower();
    assert_eq!(raft.log_bytes(), 3 * empty);
    let mut entries = vec![entry(3, 4), entry(3, 5)];
    entries[1].payload = five;
    receive(&mut raft, 3, append(id(2, 3), entries, 4)).expect("taken");
    assert_eq!(raft.log_bytes(), 4 * empty + 5);
    raft.step(Input::Applied(Index(4))).expect("handed out");
    raft.step(Input::Compact(Index(3))).expect("applied");
    assert_eq!(raft.log_bytes(), 2 * empty + 5);
}

/// Entries that another leader's replaced are not on their way any more.
#[test]
fn what_was_replaced_is_not_on_its_way() {
    let mut raft = follower_with(|config| config.uncommitted_bytes_max = 40);
    receive(&mut raft, 3, append(id(2, 2), vec![entry(3, 3)], 3)).expect("taken");
    assert_eq!((raft.last(), raft.commit()), (id(3, 3), Index(3)));
    raft.step(Input::Campaign).expect("taken");
    for pre in [true, false] {
        receive(&mut raft, 4, Body::VoteReply { pre, granted: true }).expect("taken");
    }
    receive(&mut raft, 4, Body::AppendAccepted { matched: Index(4) }).expect("taken");
    assert_eq!((raft.role(), raft.commit()), (RoleKind::Leader, Index(4)));
    let propose = |raft: &mut Raft| raft.step(Input::Propose(vec![Payload::Command(vec![0; 10].into())]));
    // With nothing on its way any size is taken, and 34 bytes and 10 are too many.
    assert_eq!(propose(&mut raft), Ok(()));
    assert_eq!(propose(&mut raft), Err(StepError::ProposalDropped(Dropped::Overload)));
}

/// An append has as many bytes as it may have, and the next has the rest.
#[test]
fn an_append_is_filled() {
    let mut raft = leader_with(|config| config.append_bytes_max = 2 * 25);
    receive(&mut raft, 3, Body::AppendAccepted { matched: Index(5) }).expect("taken");
    let one = || Payload::Command(b"a".as_slice().into());
    raft.step(Input::Propose(vec![one(), one(), one()])).expect("taken");
    let counts: Vec<usize> = settle(&mut raft)
        .iter()
        .filter_map(|body| if let Body::Append { entries, .. } = body { Some(entries.len()) } else { None })
        .collect();
    // To 2, and to 3, who has not answered yet.
    assert_eq!(counts, [2, 1]);
}

/// What is applied is what was handed out, in order; to hear it again is no harm.
#[test]
fn what_is_applied_was_handed_out() {
    let mut raft = leader();
    for (index, taken) in [(4, true), (3, false), (6, false), (5, true), (5, true), (4, false)] {
        assert_eq!(raft.step(Input::Applied(Index(index))).is_ok(), taken, "{index}");
    }
}

/// A disk is stuck when one write takes too long, however long the member has been up.
#[test]
fn a_write_is_under_way_since_it_was_asked_for() {
    let mut raft = leader_with(|config| (config.check_quorum, config.persist_ticks_max) = (false, 5));
    let tick =
        |raft: &mut Raft, ticks: usize| (0..ticks).for_each(|_| raft.step(Input::Tick).expect("taken"));
    tick(&mut raft, 20);
    settle(&mut raft);
    raft.step(Input::Propose(vec![Payload::Empty])).expect("taken");
    assert!(raft.poll_ready().is_some_and(|ready| ready.persist.is_some()));
    tick(&mut raft, 5);
    assert_eq!(raft.role(), RoleKind::Leader);
    tick(&mut raft, 1);
    assert_eq!(raft.role(), RoleKind::Follower);
}

/// The context of the question in what is said, if there is one.
fn question(said: &[Body]) -> Option<bytes::Bytes> {
    said.iter()
        .find_map(|body| if let Body::ReadIndex { context } = body { Some(context.clone()) } else { None })
}

/// Time goes by, and the leader is heard of.
fn wait_for_an_answer(raft: &mut Raft) {
    for _ in 0..5 {
        raft.step(Input::Tick).expect("taken");
    }
    let beat = Body::Heartbeat { commit: Index(2), context: Default::default(), state: None };
    let message = Message { from: NodeId(2), to: NodeId(1), term: Term(3), body: beat };
    raft.step(Input::Receive(message)).expect("taken");
}

/// Of the questions that nobody answers so many are known; the reads of one that is forgotten are those of the next.
#[test]
fn an_answer_counts_for_some_questions_back() {
    for (asked, of, counts) in [(16, 0, true), (17, 0, false), (17, 1, true)] {
        let mut raft = follower();
        receive(&mut raft, 3, append(id(2, 4), Vec::new(), 2)).expect("taken");
        raft.step(Input::Read(ReadId(1))).expect("taken");
        let mut questions = Vec::new();
        while questions.len() < asked {
            questions.push(question(&settle(&mut raft)).expect("a question is due"));
            wait_for_an_answer(&mut raft);
        }
        let body = Body::ReadIndexReply { index: Index(2), context: questions[of].clone() };
        let message = Message { from: NodeId(2), to: NodeId(1), term: Term(3), body };
        raft.step(Input::Receive(message)).expect("taken");
        let reads = raft.poll_ready().map_or(Vec::new(), |ready| ready.reads);
        assert_eq!(reads == [(ReadId(1), Index(2))], counts, "{asked} questions, the answer to {of}");
    }
}

/// An answer that comes when the question is due again is an answer.
#[test]
fn nothing_is_asked_for_no_read() {
    let mut raft = follower();
    receive(&mut raft, 3, append(id(2, 4), Vec::new(), 2)).expect("taken");
    raft.step(Input::Read(ReadId(1))).expect("taken");
    let context = question(&settle(&mut raft)).expect("it is asked for");
    wait_for_an_answer(&mut raft);
    let said = receive(&mut raft, 3, Body::ReadIndexReply { index: Index(2), context }).expect("taken");
    assert_eq!(question(&said), None);
}

/// A snapshot of what is committed here says nothing new; one whose configuration lacks this member is not for it.
#[test]
fn a_snapshot_that_is_old_or_for_others_is_not_installed() {
    let snapshot = |last, voters: [u64; 2]| {
        let mut meta = SnapshotMeta { last, config: follower().conf_state() };
        meta.config.voters = voters.map(NodeId).into();
        Body::Snapshot(Snapshot { meta, data: Default::default() })
    };
    let mut raft = follower();
    settle(&mut raft);
    raft.step(Input::Applied(Index(2))).expect("handed out");
    raft.step(Input::Compact(Index(2))).expect("applied");
    for body in [snapshot(id(1, 1), [1, 2]), snapshot(id(3, 9), [2, 3])] {
        assert_eq!(receive(&mut raft, 3, body), Ok(vec![Body::AppendAccepted { matched: Index(2) }]));
        assert_eq!((raft.first_index(), raft.last()), (Index(3), id(2, 4)));
    }
    let said = receive(&mut raft, 3, snapshot(id(3, 9), [1, 2]));
    assert_eq!(said, Ok(vec![Body::AppendAccepted { matched: Index(9) }]));
    assert_eq!((raft.first_index(), raft.last()), (Index(10), id(3, 9)));
}
