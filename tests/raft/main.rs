//! Tests of the Raft core: golden scripts of its rules (`UPDATE_GOLDENFILES=1` writes what they now give), storms
//! of random faults (`KONTIKI_STORMS=0..1000` runs these seeds), and quorums against naive models.

mod cluster;
mod messages;
mod quorum;
mod script;
mod show;
mod storm;

#[test]
fn scripts() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/raft/scripts");
    let mut paths: Vec<_> = std::fs::read_dir(dir)
        .expect("the scripts are there")
        .map(|entry| entry.expect("readable").path())
        .collect();
    paths.sort();
    assert!(paths.len() > 20, "most scripts are missing");
    let mut failed = Vec::new();
    for path in paths {
        let run = || goldenscript::run(&mut script::Runner::default(), &path).expect("the script runs");
        if std::panic::catch_unwind(run).is_err() {
            failed.push(path);
        }
    }
    assert!(failed.is_empty(), "these scripts fail: {failed:#?}");
}

#[test]
fn storms() {
    let seeds = std::env::var("KONTIKI_STORMS").ok().and_then(|seeds| {
        let (from, to) = seeds.split_once("..")?;
        Some(from.parse().ok()?..to.parse().ok()?)
    });
    let (mut committed, mut answered) = (0, 0);
    for seed in seeds.unwrap_or(0..60) {
        let result = std::panic::catch_unwind(|| storm::run(seed, 3000));
        let (entries, reads) =
            result.unwrap_or_else(|_| panic!("seed {seed} fails: KONTIKI_STORMS={seed}..{}", seed + 1));
        committed += entries;
        answered += reads;
    }
    println!("{committed} entries committed, {answered} reads answered");
    assert!(committed > 1000 && answered > 100, "the storms were too strong to show anything");
}

mod restore {
    use kontiki::{
        membership::{Change, ChangeKind, ChangeStep, Transition},
        raft::{Config, Entry, HardState, LogId, Payload, Raft, RestoreError, Restored},
        types::{Index, NodeId, Term},
    };

    fn joint(steps: Vec<ChangeStep>) -> Payload {
        Payload::Change(Change::Joint { transition: Transition::Auto, steps, context: Default::default() })
    }

    fn restored(payloads: Vec<Payload>) -> Restored {
        let id = |index| Index(index as u64 + 2);
        let entry = |(index, payload)| Entry { term: Term(2), index: id(index), payload };
        let mut restored = Restored::default();
        restored.snapshot.last = LogId { term: Term(1), index: Index(1) };
        restored.config.voters = [NodeId(1), NodeId(2)].into();
        restored.applied = Index(1);
        restored.hard = HardState { term: Term(2), vote: None, commit: Index(1) };
        restored.entries = payloads.into_iter().enumerate().map(entry).collect();
        restored
    }

    fn start(restored: Restored) -> Result<Raft, RestoreError> {
        Raft::new(Config::new(NodeId(1), 0), restored)
    }

    /// Two changes in a log say that the first is committed, even if the crash took the write that said so.
    #[test]
    fn changes_before_the_last_are_committed() {
        let enter = joint(vec![
            ChangeStep { kind: ChangeKind::AddVoter, node: NodeId(3) },
            ChangeStep { kind: ChangeKind::Remove, node: NodeId(2) },
        ]);
        let one = start(restored(vec![Payload::Empty, enter.clone()])).expect("sound");
        assert_eq!(one.commit(), Index(1));
        let two =
            start(restored(vec![Payload::Empty, enter, Payload::Empty, joint(Vec::new())])).expect("sound");
        assert_eq!(two.commit(), Index(3));
    }

    /// A write cut off between entries and hard state leaves entries of a term that the hard state does not know.
    #[test]
    fn the_term_is_at_least_that_of_the_log() {
        let mut cut_off = restored(vec![Payload::Empty]);
        cut_off.hard = HardState { term: Term(1), vote: Some(NodeId(2)), commit: Index(1) };
        let raft = start(cut_off).expect("sound");
        assert_eq!(raft.hard_state(), HardState { term: Term(2), vote: None, commit: Index(1) });
    }

    /// A log that lacks what it should have may not vote, so nothing starts from it.
    #[test]
    fn a_short_or_broken_log_is_refused() {
        let mut short = restored(vec![Payload::Empty]);
        short.hard.commit = Index(3);
        assert!(matches!(start(short), Err(RestoreError::Short { last: Index(2), index: Index(3), .. })));
        let mut outrun = restored(Vec::new());
        outrun.applied = Index(2);
        assert!(matches!(start(outrun), Err(RestoreError::Short { last: Index(1), index: Index(2), .. })));
        let mut behind = restored(Vec::new());
        behind.applied = Index(0);
        assert!(matches!(start(behind), Err(RestoreError::Gap { applied: Index(0), base: Index(1) })));
        let mut gap = restored(vec![Payload::Empty, Payload::Empty]);
        gap.entries.remove(0);
        assert!(matches!(start(gap), Err(RestoreError::Log(Index(3)))));
        let mut nonsense = restored(Vec::new());
        nonsense.config.learners = [NodeId(2)].into();
        assert!(matches!(start(nonsense), Err(RestoreError::Configuration(_))));
    }
}
