//! One member, and messages that are hard to bring about with several: what a correct leader may send, and what no
//! correct member sends.

use kontiki::{
    raft::{
        Body, Config, Entry, HardState, Input, LogId, Message, Payload, Raft, Ready, Restored, Snapshot,
        StepError,
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
    let mut restored = Restored::default();
    restored.snapshot.last = id(1, 1);
    restored.config.voters = [1, 2, 3].map(NodeId).into();
    restored.applied = Index(1);
    restored.hard = HardState { term: Term(2), vote: None, commit: Index(2) };
    restored.entries = vec![entry(2, 2), entry(2, 3), entry(2, 4)];
    Raft::new(Config::new(NodeId(1), 0), restored).expect("sound")
}

fn receive(raft: &mut Raft, term: u64, body: Body) -> Result<Vec<Body>, StepError> {
    raft.step(Input::Receive(Message { from: NodeId(2), to: NodeId(1), term: Term(term), body }))?;
    let mut said = Vec::new();
    while let Some(Ready { messages, persist, .. }) = raft.poll_ready() {
        said.extend(messages.into_iter().map(|message| message.body));
        if let Some(id) = persist {
            raft.step(Input::Persisted(id)).expect("it was asked for");
        }
    }
    Ok(said)
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
