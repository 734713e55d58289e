//! The log on a disk that loses what was not synced: crashes at every operation, rot, failed syncs.

mod wal_model;
mod wal_starts;

use std::path::Path;

use kontiki::{
    error::Fault,
    storage::{
        Disk, EIO, ENOSPC, MemDisk, SECTOR,
        wal::{self, Options, Recovered, Wal},
    },
    types::Index,
};
use proptest::prelude::*;
use wal_model::{IDENTITY, Model, Op, choices, dir, entry, hard, meta, operation, options, run, used};

/// Every kind of batch, several cuts, an overwritten tail, marks of own and received snapshots, purges.
fn script() -> Vec<Op> {
    let mut ops = vec![
        Op::Append(vec![entry(1, 1, 90), entry(1, 2, 0)], Some(hard(1, 0)), true),
        Op::Append(vec![], Some(hard(1, 2)), false),
        Op::Append((3..8).map(|i| entry(1, i, 200)).collect(), None, true),
        Op::Append(vec![entry(1, 8, 40)], None, false),
        Op::Append(vec![entry(1, 9, 700)], Some(hard(1, 7)), false),
        Op::Sync,
        Op::Mark(meta(1, 5), None),
        Op::Append(vec![entry(2, 8, 30), entry(2, 9, 30)], Some(hard(2, 7)), true),
        Op::Purge(5),
        Op::Append((10..16).map(|i| entry(2, i, 300)).collect(), Some(hard(2, 9)), true),
        Op::Mark(meta(2, 12), Some(hard(2, 12))),
        Op::Purge(12),
        Op::Append(vec![entry(2, 16, 1600)], Some(hard(2, 15)), true),
        Op::Append(vec![entry(3, 17, 10)], Some(hard(3, 15)), true),
        // Received: the log behind it is another leader's.
        Op::Mark(meta(4, 17), Some(hard(4, 17))),
        Op::Append(vec![entry(4, 18, 100)], None, true),
    ];
    ops.extend((19..24).map(|i| Op::Append(vec![entry(4, i, 60)], Some(hard(4, i - 1)), i % 2 == 0)));
    ops
}

/// Runs the script until the power goes.
fn play(disk: &MemDisk, ops: &[Op]) -> (Model, bool) {
    let mut model = Model::default();
    let Ok(mut wal) = Wal::create(disk.clone(), &dir(), IDENTITY, options()) else {
        return (model, false);
    };
    for op in ops {
        model.begin(op);
        if run(&mut wal, op).is_err() {
            return (model, true);
        }
        model.end(op);
    }
    (model, true)
}

fn open(disk: &MemDisk) -> Result<(Wal<MemDisk>, Recovered), Fault> {
    Wal::open(disk.clone(), &dir(), options())
}

/// Wherever reading begins, what the log holds is the same but for older marks. How often not all was read.
fn check_beginnings(disk: &MemDisk, context: &str) -> usize {
    let whole = open(&disk.fork()).unwrap_or_else(|fault| panic!("{context}: {fault}")).1;
    let mut shorter = 0;
    for from in (0..=25).map(Index) {
        let options = Options { from, ..options() };
        let (_, found) = Wal::open(disk.fork(), &dir(), options)
            .unwrap_or_else(|fault| panic!("{context}, from {from}: {fault}"));
        assert!(whole.marks.ends_with(&found.marks), "{context}, from {from}: {found:?}");
        shorter += usize::from(found.marks.len() < whole.marks.len());
        assert_eq!(Recovered { marks: whole.marks.clone(), ..found }, whole, "{context}, from {from}");
    }
    shorter
}

/// Opens after a crash, checks against the model, appends, and opens again.
fn check_recovery(disk: &MemDisk, model: &Model, context: &str) {
    let surveyed = wal::survey(disk, &dir()).unwrap_or_else(|fault| panic!("{context}: {fault}"));
    let (wal, found) = open(disk).unwrap_or_else(|fault| panic!("{context}: {fault}"));
    assert_eq!(found.identity, IDENTITY);
    assert_eq!((&surveyed.marks, &surveyed.torn), (&found.marks, &found.repaired), "{context}");
    let mut models = model.survivors(&found);
    assert!(!models.is_empty(), "{context}: {found:?}\nis no prefix of {model:?}");
    drop(wal);
    let (mut wal, again) = open(disk).unwrap_or_else(|fault| panic!("{context}: opened twice: {fault}"));
    assert_eq!(again, Recovered { repaired: None, ..found }, "{context}: opened twice");
    let last = wal.last_index().0;
    let more =
        Op::Append(vec![entry(9, last + 1, 20), entry(9, last + 2, 600)], Some(hard(9, last + 1)), true);
    run(&mut wal, &more).unwrap_or_else(|fault| panic!("{context}: appending: {fault}"));
    for model in &mut models {
        model.begin(&more);
        model.end(&more);
    }
    drop(wal);
    disk.crash(choices(2));
    let (_, found) = open(disk).unwrap_or_else(|fault| panic!("{context}: after appending: {fault}"));
    assert!(models.iter().any(|model| !model.survivors(&found).is_empty()), "{context}: {found:?}");
}

#[test]
fn a_crash_in_any_operation_loses_nothing_acknowledged_and_invents_nothing() {
    let ops = script();
    let disk = MemDisk::new();
    let (model, _) = play(&disk, &ops);
    let total = disk.operations();
    assert_eq!(disk.list(&dir()).expect("list").iter().filter(|name| name.ends_with(".wal")).count(), 3);
    check_recovery(&disk, &model, "no crash");
    assert!(check_beginnings(&disk, "no crash") > 0, "it has marks in several segments");
    let (mut torn, mut crashes) = (0, 0);
    for at in 0..total {
        let disk = MemDisk::new();
        disk.crash_at(at);
        let (model, created) = play(&disk, &ops);
        assert!(disk.is_off());
        for seed in 0..12 {
            let disk = disk.fork();
            disk.crash(choices(seed));
            let context = format!("crash in operation {at}, seed {seed}");
            if !wal::exists(&disk, &dir()).expect("exists") {
                assert!(!created, "{context}: the log is gone");
                Wal::create(disk.clone(), &dir(), IDENTITY, options()).expect("made anew");
                continue;
            }
            crashes += 1;
            crash_in_recovery(&disk, &model, &context, seed);
            torn += u64::from(wal::survey(&disk, &dir()).is_ok_and(|survey| survey.torn.is_some()));
            if seed == 0 {
                check_beginnings(&disk, &context);
            }
            check_recovery(&disk, &model, &context);
        }
    }
    // The disk does what this test is about.
    assert!(torn > crashes / 20, "{torn} torn ends of {crashes}");
}

fn crash_in_recovery(disk: &MemDisk, model: &Model, context: &str, seed: u64) {
    let probe = disk.fork();
    _ = open(&probe).unwrap_or_else(|fault| panic!("{context}: {fault}"));
    for at in 0..probe.operations() {
        let disk = disk.fork();
        disk.crash_at(at);
        assert!(open(&disk).is_err());
        disk.crash(choices(seed + at));
        let context = format!("{context}, then in recovery's operation {at}");
        let (_, found) = open(&disk).unwrap_or_else(|fault| panic!("{context}: {fault}"));
        assert!(!model.survivors(&found).is_empty(), "{context}: {found:?}\nis no prefix of {model:?}");
    }
}

#[test]
fn rot_before_the_last_mark_is_corrupt_and_names_its_place_behind_it_torn() {
    let disk = MemDisk::new();
    let (model, _) = play(&disk, &script());
    disk.crash(choices(1));
    let whole = model.after(model.records.len());
    let names = disk.list(&dir()).expect("list");
    let (mut corrupt, mut torn, mut harmless) = (0, 0, 0);
    for name in names.iter().filter(|name| name.ends_with(".wal")) {
        let path = dir().join(name);
        let bytes = disk.contents(&path).expect("contents");
        let last = names.last() == Some(name);
        for offset in 0..used(&bytes) {
            let disk = disk.fork();
            disk.rot(&path, offset, 1 << (offset % 8)).expect("rot");
            match open(&disk) {
                Err(Fault::Corrupt(text)) => {
                    assert!(
                        text.contains("offset") && text.contains("index") && text.contains(".wal"),
                        "{text}"
                    );
                    corrupt += 1;
                }
                Err(fault) => panic!("{name} at {offset}: {fault}"),
                Ok((_, found)) if found.repaired.is_some() => {
                    assert!(last, "{name} at {offset}: only the last segment can be torn");
                    // The last batch's mark says that all before it was durable: nothing of that may go.
                    let kept = found.entries.last().map_or(Index(0), |entry| entry.index);
                    let commit = found.hard_state.commit;
                    assert!(
                        kept >= Index(22) && commit >= Index(21),
                        "{name} at {offset}: cut behind {kept}"
                    );
                    assert!(kept < Index(23) || commit < Index(22), "{name} at {offset}: nothing was cut");
                    torn += 1;
                }
                // A tag of a field that etcd skips, or padding.
                Ok((_, found)) => {
                    assert_eq!(
                        (found.hard_state, found.start.last, found.entries),
                        whole,
                        "{name} at {offset}"
                    );
                    harmless += 1;
                }
            }
        }
    }
    assert!(corrupt > torn && torn > 50 && harmless < (corrupt + torn) / 4, "{corrupt} {torn} {harmless}");
}

/// The simulator damages disks as far as this goes: a log must know such damage from what a crash leaves, whenever
/// the power went before, and however often it was opened since.
#[test]
fn what_the_disk_knows_to_be_vouched_for_is_never_cut_as_torn() {
    let ops = script();
    let disk = MemDisk::new();
    play(&disk, &ops);
    let (mut corrupt, mut harmless) = (0, 0);
    for at in 0..disk.operations() {
        let disk = MemDisk::new();
        disk.crash_at(at);
        play(&disk, &ops);
        disk.crash(choices(at));
        if at % 3 == 0 && open(&disk).is_ok() {
            disk.crash(choices(at + 1));
        }
        let Ok((_, whole)) = open(&disk.fork()) else { continue };
        let mut names = disk.list(&dir()).expect("list").into_iter().filter(|name| name.ends_with(".wal"));
        let Some(tail) = names.next_back().map(|name| dir().join(name)) else { continue };
        let vouched = disk.vouched(&tail).expect("it is there");
        let mut judge = |disk: &MemDisk, what: &str| match open(disk) {
            Err(Fault::Corrupt(_)) => corrupt += 1,
            Err(fault) => panic!("operation {at}, {what}: {fault}"),
            Ok((_, found)) => {
                assert_eq!(found, whole, "operation {at}, {what}");
                harmless += 1;
            }
        };
        for offset in (at % 7..vouched).step_by(7) {
            let disk = disk.fork();
            disk.rot(&tail, offset, 1 << (offset % 8)).expect("rot");
            judge(&disk, &format!("rot at {offset}"));
        }
        for (from, to) in [(0, 1), (1, 0), (1, 2)] {
            if from.max(to) < vouched / SECTOR {
                let disk = disk.fork();
                disk.misdirect((&tail, from), (&tail, to)).expect("both are there");
                judge(&disk, &format!("sector {from} over {to}"));
            }
        }
    }
    assert!(corrupt > 1_000 && harmless < corrupt / 4, "{corrupt} {harmless}");
}

/// Whatever the last record's padding, and the zeros that its checksum may end in.
#[test]
fn the_mark_of_a_batch_of_one_record_counts() {
    for len in 0..400 {
        let disk = MemDisk::new();
        let batches = [1, 2].map(|index| Op::Append(vec![entry(1, index, len)], None, true));
        play(&disk, &batches);
        disk.crash(choices(1));
        let name = disk.list(&dir()).expect("list").remove(0);
        // In the first entry: the head before it has 88 bytes.
        disk.rot(&dir().join(name), 88 + 12, 1).expect("rot");
        assert!(matches!(open(&disk), Err(Fault::Corrupt(_))), "{len} bytes");
    }
}

#[test]
fn a_lost_sector_or_a_missing_segment_is_not_a_shorter_log() {
    let disk = MemDisk::new();
    play(&disk, &script());
    let names = disk.list(&dir()).expect("list");
    let segments: Vec<_> = names.iter().filter(|name| name.ends_with(".wal")).collect();
    let tail = dir().join(segments[2]);
    let bytes = disk.contents(&tail).expect("contents");
    // All of the first two records after the head read as if nothing had been written there.
    let holed = disk.fork();
    holed.crash(choices(1));
    let mut hole = bytes.clone();
    hole[200..400].fill(0);
    holed.put(&tail, &hole).expect("put");
    assert!(matches!(open(&holed), Err(Fault::Corrupt(_))));
    let empty = disk.fork();
    empty.crash(choices(1));
    empty.put(&tail, &[]).expect("put");
    assert!(matches!(open(&empty), Err(Fault::Corrupt(_))));
    let disk = MemDisk::new();
    let entries: Vec<_> =
        (1..40).map(|i| Op::Append(vec![entry(1, i, 200)], Some(hard(1, i - 1)), true)).collect();
    play(&disk, &entries);
    let names = disk.list(&dir()).expect("list");
    let segments: Vec<_> = names.iter().filter(|name| name.ends_with(".wal")).collect();
    assert!(segments.len() > 4);
    for gone in &segments[..segments.len() - 1] {
        let missing = disk.fork();
        missing.crash(choices(1));
        missing.remove_file(&dir().join(gone)).expect("remove");
        assert!(matches!(open(&missing), Err(Fault::Corrupt(text)) if text.contains("missing")));
    }
}

#[test]
fn an_entry_is_below_the_limit() {
    let disk = MemDisk::new();
    let mut wal = Wal::create(disk, &dir(), IDENTITY, Options::default()).expect("create");
    // Beside its payload an entry takes some bytes.
    let of = |len: u64| entry(1, 1, len as usize);
    let beside = 11;
    let most = wal::RECORD_MAX - 64 - beside;
    let refused = wal.append(&[of(most + 1)], None, true);
    assert!(matches!(refused, Err(Fault::Refused(what)) if what.contains("entry 1 has")));
    wal.append(&[of(most)], None, true).expect("it is taken");
}

#[test]
fn a_failed_write_or_sync_closes_the_log_for_good() {
    for errno in [EIO, ENOSPC] {
        for operation in 0..2 {
            let disk = MemDisk::new();
            let mut wal = Wal::create(disk.clone(), &dir(), IDENTITY, options()).expect("create");
            wal.append(&[entry(1, 1, 10)], Some(hard(1, 1)), true).expect("append");
            disk.fail_at(disk.operations() + operation, errno);
            let batch = [entry(1, 2, 10)];
            assert!(matches!(wal.append(&batch, None, true), Err(Fault::Io { .. })));
            assert!(wal.append(&batch, None, true).is_err());
            assert!(wal.sync().is_err());
            assert!(wal.save_snapshot_mark(&meta(1, 1), None).is_err());
            drop(wal);
            disk.crash(choices(1));
            let (_, found) = open(&disk).expect("open");
            assert_eq!(found.entries, [entry(1, 1, 10)]);
        }
    }
}

/// Found by the simulator (`sim replay 102`): the next process trusted the page cache.
#[test]
fn what_a_failed_sync_left_in_the_page_cache_is_written_again_at_the_next_start() {
    let disk = MemDisk::new();
    let mut wal = Wal::create(disk.clone(), &dir(), IDENTITY, options()).expect("create");
    wal.append(&[entry(1, 1, 20)], Some(hard(1, 0)), true).expect("append");
    // The write comes first, then its sync.
    disk.fail_at(disk.operations() + 1, EIO);
    assert!(wal.append(&[entry(1, 2, 600)], None, true).is_err());
    drop(wal);
    let (mut wal, recovered) = open(&disk).expect("open");
    assert_eq!(recovered.entries.len(), 2, "it reads as if it were there");
    wal.append(&[entry(1, 3, 20)], None, true).expect("append");
    drop(wal);
    disk.crash(|_| 0);
    let (_, recovered) = open(&disk).expect("open");
    assert_eq!(recovered.entries, [entry(1, 1, 20), entry(1, 2, 600), entry(1, 3, 20)]);
}

/// How much of the log's only segment is in use.
fn used_in(disk: &MemDisk) -> u64 {
    let name = disk.list(&dir()).expect("list").remove(0);
    used(&disk.contents(&dir().join(name)).expect("contents"))
}

#[test]
fn a_batch_is_one_sync_and_a_commit_none() {
    let disk = MemDisk::new();
    let mut wal = Wal::create(disk.clone(), &dir(), IDENTITY, Options::default()).expect("create");
    let before = disk.operations();
    let batch: Vec<_> = (1..1000).map(|i| entry(1, i, 100)).collect();
    let head = used_in(&disk);
    wal.append(&batch, Some(hard(1, 0)), true).expect("append");
    assert_eq!(disk.operations() - before, 2, "one write, one sync");
    assert!(wal.is_synced());
    // Up to the zeros that records may end in.
    assert!(wal.written().abs_diff(used_in(&disk) - head) < 16, "{} bytes", wal.written());
    wal.append(&[], Some(hard(1, 9)), false).expect("append");
    assert_eq!(disk.operations() - before, 3);
    assert!(!wal.is_synced());
    assert_eq!((wal.hard_state(), wal.last_index()), (hard(1, 9), Index(999)));
}

#[test]
fn one_process_at_a_time_and_no_second_log() {
    let disk = MemDisk::new();
    let wal = Wal::create(disk.clone(), &dir(), IDENTITY, options()).expect("create");
    assert!(matches!(open(&disk), Err(Fault::Refused(text)) if text.contains("another process")));
    drop(wal);
    assert!(matches!(Wal::create(disk.clone(), &dir(), IDENTITY, options()), Err(Fault::Refused(_))));
    assert!(open(&disk).is_ok());
    assert!(!wal::exists(&disk, Path::new("data/other")).expect("exists"));
    assert!(wal::exists(&disk, &dir()).expect("exists"));
    // A disk that does not answer does not say that there is none.
    disk.crash_at(disk.operations());
    assert!(open(&disk).is_err() && disk.is_off());
    assert!(wal::exists(&disk, &dir()).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_operations_and_crashes_agree_with_the_model(
        steps in prop::collection::vec((any::<u8>(), any::<u8>(), any::<u16>(), 0_u8..12), 1..60),
    ) {
        let disk = MemDisk::new();
        let mut wal = Wal::create(disk.clone(), &dir(), IDENTITY, options()).expect("create");
        let mut models = vec![Model::default()];
        for (kind, a, b, crash) in steps {
            let op = operation(&models[0], wal.last_index().0, (kind, a, b));
            models.iter_mut().for_each(|model| model.begin(&op));
            if crash == 0 {
                disk.crash_at(disk.operations() + u64::from(a % 4));
            }
            match run(&mut wal, &op) {
                Ok(()) => models.iter_mut().for_each(|model| model.end(&op)),
                Err(fault) => prop_assert!(disk.is_off(), "{}", fault),
            }
            if crash <= 1 {
                drop(wal);
                disk.crash(choices(u64::from(b)));
                let (opened, found) = open(&disk).expect("open");
                let left: Vec<_> = models.iter().flat_map(|model| model.survivors(&found)).collect();
                prop_assert!(!left.is_empty(), "{:?}\nis no prefix of {:?}", found, models);
                models = left;
                wal = opened;
            }
        }
    }
}
