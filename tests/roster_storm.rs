//! Random changes of a roster: what never may be, whatever is proposed.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use bytes::Bytes;
use kontiki::{
    membership::{Change, ChangeKind, ChangeStep, Member, Roster},
    storage::{Backend, MemBackend},
    table::Batch,
    types::NodeId,
};
use proptest::prelude::*;

const LEARNERS_MAX: usize = 2;

fn any_change() -> impl Strategy<Value = Change> {
    let kind = prop_oneof![
        Just(ChangeKind::AddVoter),
        Just(ChangeKind::AddLearner),
        Just(ChangeKind::Remove),
        Just(ChangeKind::Update)
    ];
    let context =
        (0..9u8, prop::collection::vec(0..12u8, 0..3), any::<bool>()).prop_map(|(id, urls, promote)| {
            let urls: Vec<String> = urls.iter().map(|n| format!("\"http://{n}:1\"")).collect();
            let promote = if promote { ",\"isPromote\":true" } else { "" };
            format!("{{\"id\":{id},\"peerURLs\":[{}]{promote}}}", urls.join(","))
        });
    let context = prop_oneof![9 => context, 1 => "[a-z{}:\"]{0,9}"];
    (kind, 0..9u64, context, any::<bool>()).prop_map(|(kind, node, context, own_id)| {
        // Mostly the context is that of the node, or nearly all would be refused.
        let node =
            context.as_bytes().get(6).filter(|_| own_id).map_or(node, |digit| u64::from(digit % 16 % 9));
        Change::Single { id: 1, step: ChangeStep { kind, node: NodeId(node) }, context: Bytes::from(context) }
    })
}

fn is_sound(roster: &Roster) -> bool {
    let members: Vec<&Member> = roster.members().collect();
    let mut urls = BTreeSet::new();
    // One member may name a URL twice; etcd does not look.
    let distinct = members.iter().all(|member| {
        let own: BTreeSet<&String> = member.peer_urls.iter().collect();
        own.into_iter().all(|url| urls.insert(url))
    });
    distinct
        && members.iter().filter(|member| member.learner).count() <= LEARNERS_MAX
        && members.iter().all(|member| member.id != NodeId(0) && !roster.is_removed(member.id))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_kept_is_what_is_known(changes in prop::collection::vec(any_change(), 1..40)) {
        let (mut roster, tables) = (Roster::default(), MemBackend::new());
        for change in &changes {
            let before = roster.clone();
            let mut batch = Batch::default();
            let (result, to_raft) = roster.apply_change(change, LEARNERS_MAX, &mut batch);
            tables.write(batch).unwrap();
            match result {
                Ok(_) => prop_assert_eq!(&to_raft, change),
                Err(_) => {
                    prop_assert_eq!(&roster, &before);
                    prop_assert_ne!(&to_raft, change);
                }
            }
            prop_assert!(is_sound(&roster), "{:?}", roster);
            prop_assert_eq!(&Roster::load(&tables).unwrap(), &roster);
            prop_assert_eq!(&Roster::from_snapshot(&roster.to_snapshot()).unwrap(), &roster);
        }
    }

    #[test]
    fn a_damaged_snapshot_is_read_or_refused(at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>()) {
        let cluster = [("n1".to_owned(), vec!["http://a:1".to_owned()])].into();
        let mut bytes = Roster::initial(&cluster, "t").unwrap().to_snapshot();
        let at = at.index(bytes.len());
        if cut { bytes.truncate(at) } else { bytes[at] = byte }
        // Anything but a panic; what is read is a roster like any other.
        match Roster::from_snapshot(&bytes) {
            Ok(roster) => prop_assert_eq!(Roster::from_snapshot(&roster.to_snapshot()), Ok(roster)),
            Err(error) => prop_assert_ne!(error, ""),
        }
    }
}
