//! What the tables hold, what is read from them, and what a machine shows and tells of what it applied.

use kontiki::{
    auth::{Action, Need, Outcome, Password, Store, Tokens, User, Who},
    error::{Fault, Refusal},
    lease::Book,
    membership::{Configuration, Member},
    raft::LogId,
    state::{Alarm, AlarmAction, AlarmKind, Applied, Command, Reply, Rows, index_in, position},
    storage::{Backend, MemBackend},
    table::{Batch, Table},
    types::{Index, Instant, LeaseId, NodeId, Term},
};

use super::support::{Replica, change_entry, command_entry, only, rows};

fn members(replica: &mut Replica) -> Applied {
    let member = Member { id: NodeId(7), peer_urls: vec!["http://a:1".into()], ..Member::default() };
    replica.apply(&[change_entry(1, member.to_add(1)), command_entry(2, Command::Nothing)]).unwrap()
}

#[test]
fn a_machine_tells_what_changed_and_shows_it() {
    let mut replica = Replica::new();
    // What comes behind a change in the same run takes nothing of it back.
    let applied = members(&mut replica);
    assert!(applied.members_changed && !applied.alarms_changed && !applied.auth_changed);
    let rename = |id, index| {
        let (name, client_urls) = ("n".to_owned(), Vec::new());
        command_entry(index, Command::SetMemberAttributes { id: NodeId(id), name, client_urls })
    };
    assert!(replica.apply(&[rename(7, 3), rename(9, 4)]).unwrap().members_changed);
    assert!(!replica.apply(&[rename(9, 5)]).unwrap().members_changed);
    let alarm = Alarm { member: NodeId(7), kind: AlarmKind::NoSpace };
    let raise = |index| command_entry(index, Command::Alarm { action: AlarmAction::Activate, alarm });
    assert!(replica.apply(&[raise(6), raise(7)]).unwrap().alarms_changed);
    assert!(!replica.apply(&[raise(8)]).unwrap().alarms_changed);
    let remove = kontiki::membership::removal(9, NodeId(9));
    assert!(!replica.apply(&[change_entry(9, remove)]).unwrap().members_changed, "there is no such member");

    let machine = &replica.machine;
    assert_eq!((machine.applied(), machine.term()), (Index(9), Term(1)));
    assert_eq!(machine.roster().member(NodeId(7)).unwrap().name, "n");
    assert!(machine.alarms().any(AlarmKind::NoSpace));
    assert_eq!(machine.configuration(), &Configuration::of_voters([NodeId(7)]));

    // What is applied already writes nothing at all.
    let old = [command_entry(1, Command::Nothing)];
    let (batch, applied) = replica.machine.apply(&old, &kontiki::wire::command::decode).unwrap();
    assert!(batch.is_empty() && applied.index == Index(9));
}

#[test]
fn the_tables_say_how_far_they_are() {
    let mut replica = Replica::new();
    members(&mut replica);
    let meta = position(&replica.tables).unwrap();
    assert_eq!(meta.last, LogId { term: Term(1), index: Index(2) });
    assert_eq!(meta.config.voters, [NodeId(7)].into());
    let view = replica.tables.snapshot().unwrap();
    for batch_bytes_max in [1, 60, 1 << 20] {
        let batches: Vec<Batch> = Rows::new(&view, batch_bytes_max).map(Result::unwrap).collect();
        let (last, others) = batches.split_last().unwrap();
        assert_eq!(index_in(last), Some(Index(2)));
        assert!(others.iter().all(|batch| index_in(batch).is_none()));
        for batch in others {
            let size = |write: &kontiki::table::Write| match write {
                kontiki::table::Write::Put(_, key, value) => key.len() + value.len(),
                _ => panic!("rows are put"),
            };
            let but_last: usize = batch.writes.split_last().unwrap().1.iter().map(size).sum();
            assert!(but_last < batch_bytes_max, "{batch:?}");
        }
    }
}

fn users(rows: &[(&str, &[u8])]) -> Result<Store, Fault> {
    let (tables, mut batch) = (MemBackend::new(), Batch::default());
    for (key, value) in rows {
        batch.put(Table::AuthUsers, key.as_bytes().to_vec(), value.to_vec());
    }
    tables.write(batch).unwrap();
    Store::load(&tables)
}

#[test]
fn users_of_later_versions_are_read() {
    let row = [&b"\n\x01u"[..], b"\x49\0\0\0\0\0\0\0\x0a", b"\x55\x0a\0\0\0", b"\x1a\x01r"].concat();
    assert_eq!(users(&[("u", &row)]).unwrap().user("u").unwrap().roles, ["r"]);
    assert!(matches!(users(&[("v", b"\n\x01u")]), Err(Fault::Corrupt(_))), "under another's name");
}

#[test]
fn a_plain_password_of_an_old_log_is_hashed() {
    let mut replica = Replica::new();
    let passwords = [("plain", ""), ("plain", "aGFzaA=="), ("", "aGFzaA==")];
    for (index, (plain, hashed)) in (1..).zip(passwords) {
        let password = Password { plain: plain.into(), hashed: hashed.into() };
        let action = Action::UserAdd { user: index.to_string(), password, no_password: None };
        let applied = replica.apply(&[command_entry(index, Command::Auth(action))]).unwrap();
        assert_eq!(only(&applied), &Ok(Reply::Auth(Outcome::Done)));
    }
    let password = |user: &str| replica.machine.auth().user(user).unwrap().password.clone();
    assert!(password("1").starts_with(b"$2a$10$") && password("1").len() == 60);
    assert_eq!((&password("2")[..], &password("3")[..]), (&b"hash"[..], &b"hash"[..]));
    assert_eq!(Password::hashed("hash"), Password { plain: String::new(), hashed: "aGFzaA==".into() });
    let user = User { password: "secret".into(), roles: vec!["r".into()], no_password: None };
    let shown = format!("{user:?}");
    assert!(shown.contains("\"r\"") && !shown.contains("secret") && !shown.contains("115"), "{shown}");
    assert!(rows(&replica.tables).keys().any(|(table, _)| *table == Table::AuthUsers));
}

#[test]
fn needs() {
    assert_eq!(Who::member(), Who { user: "root".into(), revision: u64::MAX });
    let leased = [Need::ReadLeased(LeaseId(1)), Need::WriteLeased(LeaseId(1)), Need::ReadAllLeased];
    assert!(leased.iter().all(Need::asks_leases));
    assert!(![Need::User, Need::Root, Need::OwnRole("r".into())].iter().any(Need::asks_leases));
    // A user is one who says so; which one does not matter.
    let mut store = std::sync::Arc::new(Store::default());
    let (mut batch, hashed) = (Batch::default(), Password::hashed("hash"));
    let root = || "root".to_owned();
    for action in [
        Action::UserAdd { user: root(), password: hashed, no_password: None },
        Action::UserGrantRole { user: root(), role: root() },
        Action::Enable,
    ] {
        Store::act(&mut store, &action, Index(1), &mut batch).unwrap();
    }
    let may = |user: &str| {
        let who = Who { user: user.into(), revision: 9 };
        store.permits(&who, &[Need::User], &Book::default())
    };
    assert_eq!((may("u"), may("")), (Ok(()), Err(Refusal::UserEmpty)));
}

#[test]
fn a_token_lives_to_the_end_of_its_time() {
    let mut tokens = Tokens::new(1_000);
    assert!(tokens.is_empty());
    tokens.note(kontiki::auth::Session::Issued { token: "a.1".into(), user: "u".into() }, Instant(0));
    assert!(!tokens.is_empty());
    assert_eq!(tokens.user_of("a.1", Instant(1_000)).as_deref(), Some("u"));
    assert_eq!(tokens.user_of("a.1", Instant(2_001)), None);
}
