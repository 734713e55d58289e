//! Configurations and quorums against naive models.

use std::collections::{BTreeMap, BTreeSet};

use kontiki::{
    membership::{
        Change, ChangeKind, ChangeStep, ConfigError, Configuration, JointQuorum, Transition, VoteResult,
    },
    raft::ConfState,
    types::{Index, NodeId},
};
use proptest::prelude::*;

fn members() -> impl Strategy<Value = BTreeSet<NodeId>> {
    proptest::collection::btree_set((1..8u64).prop_map(NodeId), 0..6)
}

fn steps() -> impl Strategy<Value = Vec<ChangeStep>> {
    let kinds = [ChangeKind::AddVoter, ChangeKind::Remove, ChangeKind::Update, ChangeKind::AddLearner];
    let step =
        (0..4usize, 0..7u64).prop_map(move |(kind, id)| ChangeStep { kind: kinds[kind], node: NodeId(id) });
    proptest::collection::vec(step, 0..5)
}

/// All quorums of a configuration, by trying every set of members.
fn quorums(incoming: &BTreeSet<NodeId>, outgoing: &BTreeSet<NodeId>) -> Vec<BTreeSet<NodeId>> {
    let all: Vec<NodeId> = incoming.union(outgoing).copied().collect();
    let subset = |bits: u32| {
        let chosen = all.iter().enumerate().filter(move |(at, _)| bits & (1 << at) != 0);
        chosen.map(|(_, id)| *id).collect::<BTreeSet<NodeId>>()
    };
    let majority = |half: &BTreeSet<NodeId>, set: &BTreeSet<NodeId>| {
        half.is_empty() || 2 * half.intersection(set).count() > half.len()
    };
    (0..1u32 << all.len())
        .map(subset)
        .filter(|set| majority(incoming, set) && majority(outgoing, set))
        .collect()
}

fn overlap(a: &Configuration, b: &Configuration) -> bool {
    let of = |config: &Configuration| quorums(config.incoming(), config.outgoing());
    let others = of(b);
    of(a).iter().all(|one| others.iter().all(|other| !one.is_disjoint(other)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn committed_is_what_some_quorum_has(
        incoming in members(),
        outgoing in members(),
        reached in proptest::collection::btree_map((1..8u64).prop_map(NodeId), 0..20u64, 0..8),
    ) {
        let at = |id: NodeId| Index(reached.get(&id).copied().unwrap_or(0));
        let least = |set: &BTreeSet<NodeId>| set.iter().map(|id| at(*id).0).min().unwrap_or(u64::MAX);
        let naive = quorums(&incoming, &outgoing).iter().map(least).max().expect("all of them are a quorum");
        let quorum = JointQuorum { incoming: &incoming, outgoing: &outgoing };
        prop_assert_eq!(quorum.committed_index(at), Index(naive));
    }

    #[test]
    fn a_vote_is_won_when_a_quorum_agrees_and_lost_when_none_can(
        incoming in members(),
        outgoing in members(),
        votes in proptest::collection::btree_map((1..8u64).prop_map(NodeId), any::<bool>(), 0..8),
    ) {
        let votes: BTreeMap<NodeId, bool> = votes;
        let all = quorums(&incoming, &outgoing);
        let won = all.iter().any(|set| set.iter().all(|id| votes.get(id) == Some(&true)));
        let open = all.iter().any(|set| set.iter().all(|id| votes.get(id) != Some(&false)));
        let expected = match (won, open) {
            (true, _) => VoteResult::Won,
            (false, true) => VoteResult::Pending,
            (false, false) => VoteResult::Lost,
        };
        let quorum = JointQuorum { incoming: &incoming, outgoing: &outgoing };
        prop_assert_eq!(quorum.vote_result(|id| votes.get(&id).copied()), expected);
    }

    /// Whatever the changes, each configuration's quorums overlap those of the one before: no two can decide
    /// apart. And each is one that could be stored and read back.
    #[test]
    fn quorums_overlap_along_any_legal_way(
        start in members(),
        changes in proptest::collection::vec((0..4u8, steps()), 1..6),
    ) {
        let mut config = Configuration::of_voters(start.clone());
        for (how, steps) in changes {
            let next = match how {
                0 => config.simple(&steps),
                1 => config.enter_joint(true, &steps),
                2 => config.enter_joint(false, &steps),
                _ => config.leave_joint(),
            };
            let Ok(next) = next else { continue };
            if !config.incoming().is_empty() {
                prop_assert!(overlap(&config, &next), "{config:?} and {next:?}");
                prop_assert!(!next.incoming().is_empty());
            }
            let stored = ConfState::from(&next);
            prop_assert_eq!(Configuration::try_from(&stored), Ok(next.clone()));
            config = next;
        }
    }

    #[test]
    fn leaving_gives_what_the_steps_asked_for(start in members(), steps in steps()) {
        prop_assume!(!start.is_empty());
        let config = Configuration::of_voters(start.clone());
        let mut voters = start;
        let mut learners = BTreeSet::new();
        for step in steps.iter().filter(|step| step.node != NodeId(0) && step.kind != ChangeKind::Update) {
            voters.remove(&step.node);
            learners.remove(&step.node);
            match step.kind {
                ChangeKind::AddVoter => voters.insert(step.node),
                ChangeKind::AddLearner => learners.insert(step.node),
                ChangeKind::Remove | ChangeKind::Update => true,
            };
        }
        match config.enter_joint(true, &steps) {
            Err(error) => prop_assert!(voters.is_empty() && error == ConfigError::NoVoters),
            Ok(joint) => {
                prop_assert!(joint.is_joint() && joint.auto_leave());
                prop_assert_eq!(joint.enter_joint(true, &steps), Err(ConfigError::Joint));
                prop_assert_eq!(joint.simple(&steps), Err(ConfigError::Joint));
                let left = joint.leave_joint().expect("it is joint");
                prop_assert_eq!((left.incoming(), left.learners()), (&voters, &learners));
                prop_assert!(!left.is_joint() && left.learners_next().is_empty() && !left.auto_leave());
            }
        }
    }
}

#[test]
fn illegal_changes_are_refused() {
    let step = |kind, id| ChangeStep { kind, node: NodeId(id) };
    let two = Configuration::of_voters([NodeId(1), NodeId(2)]);
    let both = [step(ChangeKind::AddVoter, 3), step(ChangeKind::AddVoter, 4)];
    assert_eq!(two.simple(&both), Err(ConfigError::TooManyVoters));
    assert_eq!(two.leave_joint(), Err(ConfigError::NotJoint));
    let one = Configuration::of_voters([NodeId(1)]);
    assert_eq!(one.simple(&[step(ChangeKind::Remove, 1)]), Err(ConfigError::NoVoters));
    let nobody = Configuration::default();
    assert_eq!(nobody.enter_joint(true, &both), Err(ConfigError::NoVoters));
    assert_eq!(nobody.simple(&both[..1]).map(|config| config.voters().len()), Ok(1));
    let learner_and_voter =
        ConfState { voters: [NodeId(1)].into(), learners: [NodeId(1)].into(), ..ConfState::default() };
    assert_eq!(Configuration::try_from(&learner_and_voter), Err(ConfigError::Contradiction(NodeId(1))));
}

/// Each part may exclude a member from another: voters, voters that go, learners, learners to be.
#[test]
fn parts_that_exclude_each_other() {
    let set = |ids: &[u64]| ids.iter().copied().map(NodeId).collect::<BTreeSet<_>>();
    for (parts, sound) in [
        ([&[1, 2][..], &[2, 3], &[4], &[3]], true),
        ([&[1, 2], &[2, 3], &[4, 1], &[3]], false),
        ([&[1, 2], &[2, 3], &[4, 2], &[3]], false),
        ([&[1, 2], &[2, 3], &[4, 3], &[]], false),
        ([&[1, 2], &[2, 3], &[4, 3], &[3]], false),
        ([&[1, 2], &[2, 3], &[4], &[2, 3]], false),
        ([&[1, 2], &[2, 3], &[4], &[3, 4]], false),
        ([&[1, 2], &[2, 3], &[4], &[3, 5]], false),
        ([&[1, 2], &[2, 3], &[4], &[1, 3]], false),
        ([&[1, 0], &[2, 3], &[4], &[3]], false),
        ([&[], &[2, 3], &[4], &[3]], false),
        ([&[1, 2], &[], &[4], &[]], true),
        ([&[1, 2], &[], &[4], &[5]], false),
        ([&[], &[], &[], &[]], true),
    ] {
        let [incoming, outgoing, learners, next] = parts.map(set);
        let config = Configuration::new(incoming, outgoing, learners, next, false);
        assert_eq!(config.is_ok(), sound, "{parts:?}");
    }
}

/// Without a word about it, several steps go through a joint configuration, one does not, and none leaves it.
#[test]
fn changes_of_their_own_accord() {
    let voters = Configuration::of_voters([1, 2, 3].map(NodeId));
    let change = |steps: &[(ChangeKind, u64)]| {
        let steps = steps.iter().map(|&(kind, id)| ChangeStep { kind, node: NodeId(id) }).collect();
        Change::Joint { transition: Transition::Auto, steps, context: Default::default() }
    };
    let (add, remove) = ((ChangeKind::AddVoter, 4), (ChangeKind::Remove, 1));
    let after = |config: &Configuration, change: &Change| {
        config.apply(change).map(|config| (config.is_joint(), config.incoming().len()))
    };
    assert_eq!(after(&voters, &change(&[add])), Ok((false, 4)));
    assert_eq!(after(&voters, &change(&[add, remove])), Ok((true, 3)));
    assert_eq!(after(&voters, &change(&[])), Err(ConfigError::NotJoint));
    let joint = voters.apply(&change(&[add, remove])).expect("it is legal");
    assert_eq!(after(&joint, &change(&[])), Ok((false, 3)));
    assert_eq!(after(&joint, &change(&[remove])), Err(ConfigError::Joint));
}
