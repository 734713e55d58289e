//! The same log on several replicas: in runs of other lengths, with restarts and crashes, with physical
//! compaction here and not there. They must be one: replies, events, rows, state hash.

use bytes::Bytes;
use kontiki::{
    auth::{Access, Action, Password, Permission, Session, Who},
    error::{Fault, Refusal},
    framed::{self, Broken, Frames},
    membership::{Member, promotion, removal},
    mvcc::{
        Compare, CompareResult, CompareTarget, DeleteRequest, Event, Op, PutRequest, RangeRequest, TxnRequest,
    },
    raft::{Entry, Payload},
    state::{Alarm, AlarmAction, AlarmKind, Command, LeaseChange, Reply, Rows, SNAPSHOT_MAGIC},
    state::{decode_rows, encode_rows},
    storage::{Backend, MemBackend},
    table::Table,
    types::{Index, KeyRange, LeaseId, NodeId, RangeEnd, Revision, Term},
};
use proptest::prelude::*;

use super::support::{Replica, change_entry, command_entry, entry_of, rows};

fn key() -> impl Strategy<Value = Bytes> {
    (0u8..6).prop_map(|key| Bytes::copy_from_slice(&[b'a' + key]))
}

fn range() -> impl Strategy<Value = KeyRange> {
    (key(), prop::option::of(key()))
        .prop_map(|(start, end)| KeyRange { start, end: end.map_or(RangeEnd::Single, RangeEnd::Before) })
}

fn put() -> impl Strategy<Value = PutRequest> {
    (key(), 0u8..4, 0i64..4, any::<bool>()).prop_map(|(key, value, lease, prev_kv)| PutRequest {
        key,
        value: Bytes::copy_from_slice(&[value]),
        lease: LeaseId(lease),
        prev_kv,
        ..PutRequest::default()
    })
}

fn txn() -> impl Strategy<Value = TxnRequest> {
    let op = prop_oneof![
        put().prop_map(Op::Put),
        range().prop_map(|range| Op::Delete(DeleteRequest { range, prev_kv: true })),
        range().prop_map(|range| Op::Range(RangeRequest::of(range))),
    ];
    let compare = (range(), 0i64..4).prop_map(|(range, version)| Compare {
        range,
        target: CompareTarget::Version(version),
        result: CompareResult::Less,
    });
    // At most one operation that writes: the API refuses transactions that change a key twice.
    (prop::collection::vec(compare, 0..3), op.clone(), op).prop_map(|(compare, success, failure)| {
        TxnRequest { compare, success: vec![success], failure: vec![failure] }
    })
}

fn alarm() -> impl Strategy<Value = Command> {
    let kind = prop::sample::select(vec![AlarmKind::None, AlarmKind::NoSpace, AlarmKind::Corrupt]);
    let action = prop::sample::select(vec![
        AlarmAction::Get,
        AlarmAction::Activate,
        AlarmAction::Deactivate,
        AlarmAction::Deactivate,
    ]);
    (kind, action, 0u64..3).prop_map(|(kind, action, member)| Command::Alarm {
        action,
        alarm: Alarm { member: NodeId(member), kind },
    })
}

fn command() -> impl Strategy<Value = Command> {
    let lease = || (0i64..4).prop_map(LeaseId);
    prop_oneof![
        10 => put().prop_map(Command::Put),
        3 => (range(), any::<bool>()).prop_map(|(range, prev_kv)| Command::Delete(DeleteRequest { range, prev_kv })),
        5 => txn().prop_map(Command::Txn),
        1 => range().prop_map(|range| Command::Range(RangeRequest::of(range))),
        2 => (0i64..40).prop_map(|revision| Command::Compact { revision: Revision(revision) }),
        4 => (lease(), prop::sample::select(vec![0, 5, 60, i64::MAX]))
            .prop_map(|(id, ttl)| Command::LeaseGrant { id, ttl }),
        2 => lease().prop_map(|id| Command::LeaseRevoke { id }),
        1 => (lease(), 0i64..70).prop_map(|(id, left)| Command::LeaseCheckpoint(vec![(id, left)])),
        2 => alarm(),
        1 => Just(Command::SetClusterVersion("3.5.0".into())),
        1 => (1u64..4).prop_map(|id| Command::SetMemberAttributes {
            id: NodeId(id), name: format!("n{id}"), client_urls: vec![format!("http://c{id}")],
        }),
        4 => action().prop_map(Command::Auth),
        1 => any::<bool>().prop_map(|enabled| Command::SetDowngrade { enabled, version: "3.5.0".into() }),
        1 => Just(Command::Nothing),
    ]
}

fn action() -> impl Strategy<Value = Action> {
    let user = || prop::sample::select(vec!["root", "u", "v"]).prop_map(str::to_owned);
    let role = || prop::sample::select(vec!["root", "r"]).prop_map(str::to_owned);
    let permission = (0i32..3, key(), prop::option::of(key())).prop_map(|(access, key, end)| Permission {
        access: Access::from_number(access),
        key,
        range_end: end.unwrap_or_default(),
    });
    prop_oneof![
        Just(Action::Enable),
        Just(Action::Disable),
        Just(Action::Status),
        user().prop_map(|user| Action::Authenticate { user, nonce: "abc".into() }),
        user().prop_map(|user| Action::UserAdd {
            user,
            password: Password::hashed("hash"),
            no_password: None
        }),
        user().prop_map(|user| Action::UserDelete { user }),
        (user(), role()).prop_map(|(user, role)| Action::UserGrantRole { user, role }),
        (user(), role()).prop_map(|(user, role)| Action::UserRevokeRole { user, role }),
        role().prop_map(|role| Action::RoleAdd { role }),
        role().prop_map(|role| Action::RoleDelete { role }),
        permission
            .prop_map(|permission| Action::RoleGrant { role: "r".into(), permission: Some(permission) }),
        (key(), key()).prop_map(|(key, range_end)| Action::RoleRevoke { role: "r".into(), key, range_end }),
    ]
}

/// Users, and authorization turned on.
fn users() -> Vec<Step> {
    let add = |user: &str| Action::UserAdd {
        user: user.into(),
        password: Password::hashed("hash"),
        no_password: None,
    };
    let grant = |user: &str, role: &str| Action::UserGrantRole { user: user.into(), role: role.into() };
    let permission = Permission { access: Access::ReadWrite, key: "a".into(), range_end: "d".into() };
    let actions = [
        add("root"),
        grant("root", "root"),
        add("u"),
        Action::RoleAdd { role: "r".into() },
        grant("u", "r"),
        Action::RoleGrant { role: "r".into(), permission: Some(permission) },
        Action::Enable,
    ];
    actions.into_iter().map(|action| Step::Command(Who::default(), Command::Auth(action))).collect()
}

fn who() -> impl Strategy<Value = Who> {
    prop_oneof![
        3 => Just(Who::member()),
        1 => Just(Who::default()),
        4 => (prop::sample::select(vec!["u", "v"]), 6u64..14)
            .prop_map(|(user, revision)| Who { user: user.into(), revision }),
    ]
}

#[derive(Clone, Debug)]
enum Step {
    Command(Who, Command),
    Empty,
    Add(u64, bool),
    Remove(u64),
    Promote(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => (who(), command()).prop_map(|(who, command)| Step::Command(who, command)),
        1 => Just(Step::Empty),
        2 => (1u64..5, any::<bool>()).prop_map(|(id, learner)| Step::Add(id, learner)),
        1 => (1u64..5).prop_map(Step::Remove),
        1 => (1u64..5).prop_map(Step::Promote),
    ]
}

fn entry(index: u64, step: Step) -> Entry {
    match step {
        Step::Command(who, command) => entry_of(index, who, command),
        Step::Empty => Entry { term: Term(2), index: Index(index), payload: Payload::Empty },
        Step::Add(id, learner) => {
            let peer_urls = vec![format!("http://p{id}:1")];
            let member = Member { id: NodeId(id), peer_urls, learner, ..Member::default() };
            change_entry(index, member.to_add(index))
        }
        Step::Remove(id) => change_entry(index, removal(index, NodeId(id))),
        Step::Promote(id) => change_entry(index, promotion(index, NodeId(id))),
    }
}

/// What came of a log.
#[derive(Debug, Default, PartialEq)]
struct Outcome {
    replies: Vec<(u64, Result<Reply, Refusal>)>,
    events: Vec<Event>,
    leases: Vec<LeaseChange>,
    changes: Vec<kontiki::state::ConfChange>,
    sessions: Vec<Session>,
}

/// How a replica goes through the log.
#[derive(Clone, Debug)]
enum Way {
    /// A run of so many entries.
    Run(usize),
    Restart,
    /// The last batches are lost, and the entries come again.
    Crash(usize),
    Flush,
    Compact,
}

fn way() -> impl Strategy<Value = Way> {
    prop_oneof![
        6 => (1usize..8).prop_map(Way::Run),
        1 => Just(Way::Restart),
        1 => (0usize..4).prop_map(Way::Crash),
        1 => Just(Way::Flush),
        1 => Just(Way::Compact),
    ]
}

/// Applies all of `log` in the ways given, then in one run.
fn replay(log: &[Entry], ways: &[Way]) -> (Replica, Outcome) {
    let (mut replica, mut outcome) = (Replica::new(), Outcome::default());
    let mut seen = 0;
    let mut run = |replica: &mut Replica, entries: &[Entry]| {
        let applied = replica.apply(entries).unwrap();
        let last = entries.last().map_or(0, |entry| entry.index.0);
        // What is done again after a crash comes of it again; it counts once.
        if last > seen {
            let old: Vec<u64> = (1..=seen).collect();
            outcome.replies.extend(applied.replies.into_iter().filter(|(id, _)| !old.contains(id)));
            outcome.events.extend(applied.events);
            outcome.leases.extend(applied.leases);
            outcome.sessions.extend(applied.sessions);
            outcome.changes.extend(applied.changes.into_iter().filter(|change| change.index.0 > seen));
            seen = last;
        }
    };
    for way in ways {
        let at = replica.machine.applied().0 as usize;
        match way {
            // The run begins before what is applied: those are to be skipped.
            Way::Run(length) => {
                run(&mut replica, &log[at.saturating_sub(2)..(at + length).min(log.len())]);
            }
            Way::Restart => replica.restart(),
            Way::Crash(keep) => {
                replica.crash(*keep);
                // Up to where it was, so that a run never goes over what was seen and what was not.
                let back = replica.machine.applied().0 as usize;
                run(&mut replica, &log[back..at]);
            }
            Way::Flush => replica.tables.flush().unwrap(),
            Way::Compact => replica.compact(),
        }
    }
    let at = replica.machine.applied().0 as usize;
    run(&mut replica, &log[at..]);
    replica.compact();
    (replica, outcome)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn replicas_of_one_log_are_one(
        steps in prop::collection::vec(step(), 1..80),
        ways in prop::collection::vec(way(), 0..30),
        with_users: bool,
    ) {
        let users = if with_users { users() } else { Vec::new() };
        let log: Vec<Entry> = users.into_iter().chain(steps).zip(1..).map(|(step, index)| entry(index, step)).collect();
        let (one, outcome) = replay(&log, &[]);
        let (other, same) = replay(&log, &ways);
        prop_assert_eq!(outcome, same);
        prop_assert_eq!(one.machine.mark(), other.machine.mark());
        prop_assert!(one.machine.mark().is_some());
        prop_assert_eq!(one.machine.leases(), other.machine.leases());
        prop_assert_eq!(one.machine.roster(), other.machine.roster());
        prop_assert_eq!(one.machine.configuration(), other.machine.configuration());
        prop_assert_eq!(one.machine.alarms(), other.machine.alarms());
        prop_assert_eq!(one.machine.auth(), other.machine.auth());
        prop_assert_eq!(rows(&one.tables), rows(&other.tables));

        // And so is one that opens the tables, and one that gets them as a snapshot.
        let opened = Replica::open(one.tables.clone());
        prop_assert_eq!(opened.machine.leases(), one.machine.leases());
        prop_assert_eq!(opened.machine.auth(), one.machine.auth());
        prop_assert_eq!(opened.machine.mark(), one.machine.mark());
        let mut taker = Replica::new();
        taker.apply(&[entry(1, Step::Command(Who::default(), Command::LeaseGrant { id: LeaseId(9), ttl: 9 }))]).unwrap();
        let mut batches = received(&sent(&one.tables, 64), 7);
        taker.tables.replace(&mut batches).unwrap();
        taker.machine.reload().unwrap();
        prop_assert_eq!(rows(&taker.tables), rows(&one.tables));
        prop_assert_eq!(taker.machine.mark(), one.machine.mark());
        prop_assert_eq!(taker.machine.leases(), one.machine.leases());
        prop_assert_eq!(taker.machine.auth(), one.machine.auth());
        prop_assert_eq!(taker.machine.store().revision(), one.machine.store().revision());
    }

    #[test]
    fn a_difference_shows(steps in prop::collection::vec(step(), 1..20), at in any::<prop::sample::Index>()) {
        let mut log: Vec<Entry> = steps.into_iter().zip(1..).map(|(step, index)| entry(index, step)).collect();
        let (one, _) = replay(&log, &[]);
        let at = at.index(log.len());
        log[at] = command_entry(at as u64 + 1, Command::SetClusterVersion("9.9.0".into()));
        let (other, _) = replay(&log, &[]);
        prop_assert_ne!(one.machine.mark(), other.machine.mark());
    }

    #[test]
    fn committed_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 1..60)) {
        let mut replica = Replica::new();
        let payload = Payload::Command(bytes.into());
        // Random bytes may be a request; what matters is that there is an answer.
        let _ = replica.apply(&[Entry { term: Term(1), index: Index(1), payload }]);
    }
}

#[test]
fn a_snapshot_that_is_cut_or_rotten_or_goes_on_never_passes() {
    let mut replica = Replica::new();
    let puts = (1..8).map(|index| {
        let put = PutRequest { key: Bytes::from(vec![index as u8]), ..PutRequest::default() };
        command_entry(index, Command::Put(put))
    });
    replica.apply(&puts.collect::<Vec<_>>()).unwrap();
    let stream = sent(&replica.tables, 100);
    let refused = |stream: &[u8]| received(stream, 64).any(|batch| matches!(batch, Err(Fault::Corrupt(_))));
    assert!(!refused(&stream));
    for at in 0..stream.len() {
        assert!(refused(&stream[..at]), "cut at {at}");
        for bit in 0..8 {
            let mut rotten = stream.clone();
            rotten[at] ^= 1 << bit;
            assert!(refused(&rotten), "bit {bit} of {at}");
        }
    }
    assert!(refused(&[&stream[..], &[0]].concat()));
}

/// The tables as a stream.
fn sent(tables: &MemBackend, batch_bytes_max: usize) -> Vec<u8> {
    let view = tables.snapshot().unwrap();
    let (start, mut checksum) = framed::start(SNAPSHOT_MAGIC);
    let mut out = start.to_vec();
    for batch in Rows::new(&view, batch_bytes_max) {
        let batch = batch.unwrap();
        out.extend_from_slice(&framed::frame(&mut checksum, |out| encode_rows(&batch, out)));
    }
    out.extend_from_slice(&framed::end(checksum));
    out
}

/// The batches of a stream that comes in pieces; its end is an item if it is not the right one.
fn received(
    stream: &[u8],
    piece: usize,
) -> impl Iterator<Item = Result<kontiki::table::Batch, Fault>> + use<> {
    let broken = |Broken(why)| Fault::corrupt(why);
    let mut frames = Frames::new(SNAPSHOT_MAGIC);
    let mut batches = Vec::new();
    for piece in stream.chunks(piece) {
        frames.push(piece);
        while let Some(payload) = frames.next_frame().map_err(broken).transpose() {
            let batch = payload.and_then(decode_rows);
            let ends = batch.is_err();
            batches.push(batch);
            if ends {
                return batches.into_iter();
            }
        }
    }
    batches.extend(frames.finish().err().map(|why| Err(broken(why))));
    batches.into_iter()
}

#[test]
fn the_applied_index_comes_last() {
    let mut replica = Replica::new();
    replica.apply(&[command_entry(1, Command::Put(PutRequest::default()))]).unwrap();
    let view = replica.tables.snapshot().unwrap();
    let batches: Vec<_> = Rows::new(&view, 1).map(Result::unwrap).collect();
    let last = batches.last().unwrap();
    let kontiki::table::Write::Put(Table::Meta, key, _) = &last.writes[0] else { panic!("{last:?}") };
    assert_eq!((key.as_ref(), last.writes.len()), (b"consistent_index".as_slice(), 1));
    assert_eq!(batches.iter().map(|batch| batch.writes.len()).sum::<usize>(), rows(&replica.tables).len());
}

/// Who looks at the users before and after the keys knows which users were in force: no run has both, and no run has two
/// changes of users.
#[test]
fn a_change_of_users_makes_a_run_by_itself() {
    let put = || Command::Put(PutRequest { key: "a".into(), value: "1".into(), ..PutRequest::default() });
    let add = |user: &str| {
        let password = Password::hashed("hash");
        Command::Auth(Action::UserAdd { user: user.into(), password, no_password: None })
    };
    let get = || Command::Auth(Action::UserGet { user: "u".into() });
    let commands = [put(), get(), put(), add("u"), add("v"), add("u"), put(), get()];
    let entries: Vec<Entry> =
        commands.into_iter().zip(1..).map(|(command, index)| command_entry(index, command)).collect();
    let mut replica = Replica::new();
    let mut runs = Vec::new();
    while replica.machine.applied() < Index(8) {
        let (batch, applied) =
            replica.machine.apply_until_auth(&entries, &kontiki::wire::command::decode).unwrap();
        replica.tables.write(batch).unwrap();
        replica.machine.publish();
        runs.push((applied.index.0, applied.replies.len(), applied.auth_changed));
    }
    // The sixth is refused: there is such a user.
    assert_eq!(runs, [(3, 3, false), (4, 1, true), (5, 1, true), (6, 1, false), (8, 2, false)]);

    let mut whole = Replica::new();
    whole.apply(&entries).unwrap();
    assert_eq!(rows(&whole.tables), rows(&replica.tables));
}
