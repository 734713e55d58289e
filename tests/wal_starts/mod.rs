//! What a start makes of a log that was written in full: where it begins, what it drops, what it leaves on the disk.

use std::path::Path;

use kontiki::{
    error::Fault,
    raft::{HardState, LogId},
    storage::{
        Disk, MemDisk,
        wal::{Options, Recovered, Wal},
    },
    types::Index,
};

use super::{
    open, play,
    wal_model::{IDENTITY, Op, choices, dir, entry, hard, meta, options, used},
};

/// The log that these make, read as far as they are.
fn after(ops: &[Op]) -> Result<Recovered, Fault> {
    let disk = MemDisk::new();
    play(&disk, ops);
    open(&disk).map(|(_, found)| found)
}

/// A received snapshot replaces the log, unless its place is there with its term.
#[test]
fn what_a_mark_replaced_is_gone() {
    let entries = |term, from, to| (from..=to).map(|index| entry(term, index, 20)).collect::<Vec<_>>();
    let begin = Op::Append(entries(1, 1, 6), Some(hard(1, 2)), true);
    let received = Op::Mark(meta(2, 4), Some(hard(2, 4)));
    let found = after(&[begin.clone(), received.clone()]).expect("sound");
    assert_eq!((found.start, found.entries), (meta(2, 4), vec![]));
    // What came after it stays, and so does what follows its own place.
    let more = Op::Append(entries(2, 5, 5), None, true);
    let found = after(&[begin.clone(), received, more]).expect("sound");
    assert_eq!(found.entries, entries(2, 5, 5));
    let found = after(&[begin.clone(), Op::Mark(meta(1, 4), None)]).expect("sound");
    assert_eq!(found.entries, entries(1, 5, 6));
    // Another leader's entries had taken the place of those at the mark and behind it.
    let overwritten = Op::Append(entries(2, 3, 5), Some(hard(2, 4)), true);
    let found = after(&[begin.clone(), overwritten, Op::Mark(meta(2, 4), None)]).expect("sound");
    assert_eq!(found.entries, entries(2, 5, 5));
    let overwritten = Op::Append(entries(2, 4, 4), Some(hard(2, 4)), true);
    let found = after(&[begin.clone(), overwritten, Op::Mark(meta(2, 4), None)]).expect("sound");
    assert_eq!(found.entries, []);
    let both = after(&[begin, Op::Mark(meta(1, 4), None), Op::Mark(meta(2, 4), None)]);
    assert!(matches!(both, Err(Fault::Corrupt(what)) if what.contains("at 4 of term 1 instead of 2")));
}

/// Each segment begins with the checksum of all before it.
#[test]
fn a_segment_of_another_log_is_corrupt() {
    let [one, other] = [20, 21].map(|len| {
        let disk = MemDisk::new();
        let ops: Vec<_> = (1..30).map(|index| Op::Append(vec![entry(1, index, 200)], None, true)).collect();
        play(&disk, &[&[Op::Append(vec![entry(1, 1, len)], Some(hard(1, 0)), true)], &ops[1..]].concat());
        disk.crash(choices(1));
        disk
    });
    assert!(open(&one.fork()).is_ok() && open(&other.fork()).is_ok());
    let names: Vec<_> =
        one.list(&dir()).expect("list").into_iter().filter(|name| name.ends_with(".wal")).collect();
    assert_eq!(names, other.list(&dir()).expect("list"));
    for name in &names[1..] {
        let disk = one.fork();
        disk.put(&dir().join(name), &other.contents(&dir().join(name)).expect("contents")).expect("put");
        assert!(
            matches!(open(&disk), Err(Fault::Corrupt(what)) if what.contains("checksum is wrong")),
            "{name}"
        );
    }
}

/// A torn end is kept beside the log, and in the log there are zeros then, as far as it reserves room.
#[test]
fn a_torn_end_is_cut_and_kept_beside() {
    for segment_bytes in [1500, 4000] {
        let disk = MemDisk::new();
        play(&disk, &[1, 2].map(|index| Op::Append(vec![entry(1, index, 100)], None, true)));
        disk.crash(choices(1));
        let path = dir().join(disk.list(&dir()).expect("list").remove(0));
        let whole = disk.contents(&path).expect("contents");
        assert_eq!(whole.len(), 1500);
        disk.rot(&path, used(&whole) - 30, 1).expect("rot");
        let torn = disk.contents(&path).expect("contents");
        let options = Options { segment_bytes, ..options() };
        let (wal, found) = Wal::open(disk.clone(), &dir(), options).expect("it is torn");
        assert!(found.repaired.is_some());
        let now = disk.contents(&path).expect("contents");
        assert_eq!(now.len() as u64, segment_bytes);
        assert!(used(&now) < used(&torn) && torn.starts_with(&now[..used(&now) as usize]));
        let mut copy = path.clone().into_os_string();
        copy.push(".broken");
        let copy = disk.contents(Path::new(&copy)).expect("it is kept");
        assert_eq!(copy, torn[..used(&torn) as usize]);
        drop(wal);
        // It is nobody's log.
        disk.crash(choices(1));
        assert!(open(&disk).is_ok_and(|(_, found)| found.repaired.is_none()));
    }
}

/// A log whose room was cut off has it again.
#[test]
fn room_is_reserved_at_a_start() {
    let disk = MemDisk::new();
    play(&disk, &[Op::Append(vec![entry(1, 1, 100)], None, true)]);
    disk.crash(choices(1));
    let path = dir().join(disk.list(&dir()).expect("list").remove(0));
    let bytes = disk.contents(&path).expect("contents");
    disk.put(&path, &bytes[..used(&bytes) as usize]).expect("put");
    let (_, found) = open(&disk).expect("sound");
    assert_eq!((found.repaired, found.entries.len()), (None, 1));
    assert_eq!(disk.contents(&path).expect("contents"), bytes);
}

/// The segments, oldest first.
fn segments(disk: &MemDisk) -> Vec<String> {
    disk.list(&dir()).expect("list").into_iter().filter(|name| name.ends_with(".wal")).collect()
}

/// One entry a batch, from 1, with this state in the first.
fn entries(to: u64, state: HardState) -> Vec<Op> {
    let hard = |index| (index == 1).then_some(state);
    (1..=to).map(|index| Op::Append(vec![entry(1, index, 200)], hard(index), true)).collect()
}

/// Segments before the one with a snapshot's place are read only if there is no mark behind them.
#[test]
fn a_start_reads_from_the_mark_that_should_be_there() {
    let disk = MemDisk::new();
    let mark = Op::Mark(meta(1, 28), Some(hard(1, 28)));
    play(&disk, &[&entries(30, hard(1, 0))[..], &[mark]].concat());
    disk.crash(choices(1));
    for (from, marks) in [(28, &[28][..]), (27, &[28]), (29, &[0, 28]), (0, &[0, 28])] {
        let options = Options { from: Index(from), ..options() };
        let (_, found) = Wal::open(disk.fork(), &dir(), options).expect("sound");
        let indices: Vec<u64> = found.marks.iter().map(|mark| mark.last.index.0).collect();
        assert_eq!(indices, marks, "from {from}");
        assert_eq!((found.start.last.index, found.entries.len()), (Index(28), 2));
    }
}

#[test]
fn a_start_begins_at_the_mark_that_is_asked_for() {
    let disk = MemDisk::new();
    let marks = [Op::Mark(meta(1, 2), Some(hard(1, 4))), Op::Mark(meta(1, 4), None)];
    play(&disk, &[&entries(6, hard(1, 0))[..], &marks].concat());
    disk.crash(choices(1));
    let from = |index| {
        let start = Some(LogId { index: Index(index), ..meta(1, 0).last });
        Wal::open(disk.fork(), &dir(), Options { start, ..options() }).map(|(_, found)| found)
    };
    for index in [2, 4] {
        let found = from(index).expect("it is marked");
        assert_eq!((found.start, found.entries.len() as u64), (meta(1, index), 6 - index));
    }
    assert!(matches!(from(3), Err(Fault::Corrupt(what)) if what.contains("no mark for the snapshot at 3")));
}

/// The head of a segment was synced before that got its name: its checksum and whose it is are never torn. The state
/// behind them says again what the segments before say.
#[test]
fn the_head_of_a_new_segment_is_not_cut() {
    const STATE_AT: u64 = 64;
    let disk = MemDisk::new();
    play(&disk, &[Op::Append(vec![entry(1, 1, 1500)], Some(hard(1, 1)), true)]);
    disk.crash(choices(1));
    let (_, whole) = open(&disk.fork()).expect("sound");
    let names = segments(&disk);
    assert_eq!(names.len(), 2);
    let path = dir().join(&names[1]);
    for offset in 0..used(&disk.contents(&path).expect("contents")) {
        let disk = disk.fork();
        disk.rot(&path, offset, 1 << (offset % 8)).expect("rot");
        match open(&disk) {
            Err(Fault::Corrupt(_)) => {}
            Err(fault) => panic!("{offset}: {fault}"),
            Ok((_, found)) => {
                // Besides, there are tags of fields that etcd skips.
                assert!(offset >= STATE_AT || found.repaired.is_none(), "{offset}: {found:?}");
                assert_eq!(Recovered { repaired: None, ..found }, whole, "{offset}");
            }
        }
    }
}

/// A segment is full at its size, and the next begins with the state, so that those before it may go.
#[test]
fn a_segment_begins_with_what_those_before_it_said() {
    let one = Op::Append(vec![entry(1, 1, 400)], Some(hard(1, 1)), true);
    let disk = MemDisk::new();
    play(&disk, std::slice::from_ref(&one));
    let bytes = disk.contents(&dir().join(&segments(&disk)[0])).expect("contents");
    // Records end at multiples of 8.
    let full = used(&bytes).next_multiple_of(8);
    for (segment_bytes, count) in [(full, 2), (full + 8, 1)] {
        let disk = MemDisk::new();
        let options = Options { segment_bytes, ..options() };
        let mut wal = Wal::create(disk.clone(), &dir(), IDENTITY, options).expect("create");
        wal.append(&[entry(1, 1, 400)], Some(hard(1, 1)), true).expect("append");
        assert_eq!(segments(&disk).len(), count, "{segment_bytes}");
    }

    let disk = MemDisk::new();
    let mut wal = Wal::create(disk.clone(), &dir(), IDENTITY, options()).expect("create");
    let first: Vec<_> = (1..=6).map(|index| entry(1, index, 20)).collect();
    wal.append(&first, Some(hard(1, 5)), true).expect("append");
    for index in 7..20 {
        wal.append(&[entry(1, index, 200)], None, true).expect("append");
    }
    wal.save_snapshot_mark(&meta(1, 5), None).expect("marked");
    let before = segments(&disk);
    assert!(before.len() > 2);
    // Nothing is given up, so nothing goes, and nothing is synced.
    let operations = disk.operations();
    assert_eq!((wal.purge().expect("purge"), disk.operations()), (0, operations));
    wal.release_to(Index(19));
    let gone = wal.purge().expect("purge");
    assert!(gone > 1 && segments(&disk) == before[gone..], "{gone} of {before:?}");
    drop(wal);
    // That they went is durable.
    disk.crash(|_| 0);
    assert_eq!(segments(&disk), before[gone..]);
    let found = open(&disk);
    assert!(found.is_err(), "the mark's place went with them");
    let surveyed = kontiki::storage::wal::survey(&disk, &dir()).expect("it is read");
    assert_eq!((surveyed.hard_state, surveyed.marks), (hard(1, 5), vec![meta(1, 5)]));
}
