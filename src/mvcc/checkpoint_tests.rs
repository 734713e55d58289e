//! An index from a checkpoint is the index from the tables, whatever came while it was made and after it.

use std::collections::BTreeSet;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::{
    mvcc::{Config, DeleteRequest, Leases, PutRequest},
    storage::{Backend, MemBackend},
    types::{KeyRange, LeaseId},
};

#[derive(Clone, Debug)]
enum Step {
    /// A revision, which takes effect but is not published.
    Put(u8, u8),
    /// Deletes the keys of a range.
    Delete(u8, u8),
    /// To so many tenths of the newest revision.
    Compact(u8),
    /// Writes the batch and publishes.
    Publish,
    /// A step of a compaction, or the writing of the last one's batch.
    Remove(u8),
    /// The next piece of a checkpoint, or the first of one; a whole one is named in the tables.
    Piece,
    /// A snapshot replaces the tables by what they are, compacted as they are.
    Replace,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..12_u8, 0..3_u8).prop_map(|(key, lease)| Step::Put(key, lease)),
        3 => (0..12_u8, 1..4_u8).prop_map(|(key, width)| Step::Delete(key, width)),
        1 => (3..=10_u8).prop_map(Step::Compact),
        6 => Just(Step::Publish),
        3 => (1..4_u8).prop_map(Step::Remove),
        12 => Just(Step::Piece),
        1 => prop::bool::weighted(0.2).prop_map(|replace| if replace { Step::Replace } else { Step::Piece }),
    ];
    prop::collection::vec(step, 1..150)
}

struct AllLeases;

impl Leases for AllLeases {
    fn exists(&self, _: LeaseId) -> bool {
        true
    }

    fn attach(&mut self, _: LeaseId, _: &Bytes) {}

    fn detach(&mut self, _: LeaseId, _: &Bytes) {}
}

const CONFIG: Config =
    Config { cache_bytes_max: 40, unread_bytes_max: 20, chunk_keys_max: 2, chunk_bytes_max: 1 };

struct Member {
    tables: MemBackend,
    store: Store<MemBackend>,
    batch: Batch,
    removal: Option<Batch>,
    cut: Option<(Cut, Vec<Bytes>)>,
    /// The pieces of the checkpoint that the tables name.
    named: Option<Vec<Bytes>>,
    used: usize,
}

impl Member {
    fn new() -> Self {
        Self::with(CONFIG)
    }

    fn with(config: Config) -> Self {
        let tables = MemBackend::new();
        let store = Store::open(tables.clone(), config).expect("it is empty");
        Self { tables, store, batch: Batch::default(), removal: None, cut: None, named: None, used: 0 }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Put(key, lease) => {
                let key = Bytes::from(format!("key{key:02}"));
                let request = PutRequest {
                    value: key.clone(),
                    key,
                    lease: LeaseId(lease.into()),
                    ..PutRequest::default()
                };
                let mut writer = self.store.writer();
                writer
                    .put(&request, &mut AllLeases, &mut self.batch, &mut Vec::new())
                    .expect("nothing refuses it");
            }
            Step::Delete(key, width) => {
                let [start, end] = [key, key + width].map(|key| Bytes::from(format!("key{key:02}")));
                let request = DeleteRequest { range: KeyRange::from_wire(start, end), prev_kv: false };
                let mut writer = self.store.writer();
                writer
                    .delete(&request, &mut AllLeases, &mut self.batch, &mut Vec::new())
                    .expect("nothing refuses it");
            }
            Step::Compact(tenths) => {
                let newest = self.store.writer().revision().0;
                // It may be compacted further already.
                _ = self.store.writer().compact(Revision(newest * i64::from(tenths) / 10), &mut self.batch);
            }
            Step::Publish => self.publish(),
            Step::Remove(max) => match self.removal.take() {
                Some(batch) => self.tables.write(batch).expect("memory has no faults"),
                None => self.removal = self.store.compact_step(max.into()).expect("memory has no faults"),
            },
            Step::Piece => self.piece(),
            Step::Replace => {
                self.publish();
                self.removal = None;
                self.store.reload().expect("memory has no faults");
            }
        }
    }

    fn publish(&mut self) {
        self.tables.write(std::mem::take(&mut self.batch)).expect("memory has no faults");
        self.store.publish();
    }

    fn piece(&mut self) {
        let Some((cut, pieces)) = &mut self.cut else {
            self.cut = self.store.cut().expect("memory has no faults").map(|cut| (cut, Vec::new()));
            return;
        };
        match cut.piece(&self.store) {
            Ok(Some(piece)) => pieces.push(piece),
            Ok(None) => {
                let name = CheckpointName { at: cut.at(), checksum: 7 };
                assert_eq!(head_of(pieces), (name.at, Revision(cut.compacted.0 + 1)));
                self.tables.write(name.batch()).expect("memory has no faults");
                assert_eq!(CheckpointName::load(&self.tables).expect("memory has no faults"), Some(name));
                self.named = self.cut.take().map(|(_, pieces)| pieces);
            }
            Err(Overtaken) => self.cut = None,
        }
    }

    /// What a start would find now, with the checkpoint and without.
    fn check(&mut self) {
        let Some(pieces) = &self.named else { return };
        let (mut scanned, finished) = load(&self.tables, 0).expect("the tables are whole");
        match load_from(&self.tables, &mut pieces.iter().cloned().map(Ok), 0) {
            Ok((mut loaded, loaded_finished)) => {
                self.used += 1;
                // What a compaction under way has removed may be there still; what it has not must be.
                let all: BTreeSet<_> = revisions(&loaded).collect();
                assert!(revisions(&scanned).all(|row| all.contains(&row)));
                if finished < scanned.compacted {
                    compact(&mut loaded, scanned.compacted);
                    compact(&mut scanned, loaded.compacted);
                }
                assert_eq!(dump(&loaded), dump(&scanned));
                let marks = |index: &Index| (index.published, index.compacted);
                assert_eq!((marks(&loaded), loaded_finished), (marks(&scanned), finished));
            }
            Err(unusable) => {
                let (at, ..) = head_of(pieces);
                assert!(self.store.compacted() > at, "{unusable}");
            }
        }
    }
}

fn head_of(pieces: &[Bytes]) -> (Revision, Revision) {
    let mut first = &pieces[0][..];
    let mut number = || Revision(take_varint(&mut first).expect("it was put") as i64);
    (number(), number())
}

/// Every revision of the index, with its key.
fn revisions(index: &Index) -> impl Iterator<Item = (Vec<u8>, SubRevision)> {
    index.from(b"").flat_map(|entry| entry.places().map(|at| (entry.key().to_vec(), at)))
}

fn dump(index: &Index) -> String {
    index.from(b"").map(|entry| format!("{entry:?}\n")).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn a_checkpoint_saves_reading_and_changes_nothing(steps in steps()) {
        let mut member = Member::new();
        for step in &steps {
            member.step(step);
            member.check();
        }
    }

    /// Bytes of anybody: they are refused, or they are an index.
    #[test]
    fn no_bytes_break_it(
        at in 0..9_u8,
        piece in prop::collection::vec(prop_oneof![0..6_u8, any::<u8>()], 0..60),
    ) {
        let pieces = [Bytes::from(vec![at, 0]), piece.into()];
        let index = load_from(&MemBackend::new(), &mut pieces.into_iter().map(Ok), 0);
        if let Ok((index, _)) = index {
            prop_assert!(index.from(b"").map(crate::mvcc::index::Entry::key).is_sorted());
        }
    }
}

#[test]
fn a_checkpoint_goes_on_behind_what_was_written_meanwhile() {
    let mut member = Member::new();
    let script = "ppPppPcPPddPcccpPcccccccccccccccccc";
    for step in script.chars() {
        member.step(&match step {
            'p' => Step::Put(member.store.writer().revision().0 as u8 % 5, 1),
            'd' => Step::Delete(member.store.writer().revision().0 as u8 % 5, 1),
            'c' => Step::Piece,
            _ => Step::Publish,
        });
        member.check();
    }
    assert!(member.used > 0, "it came to an end");
    // At one byte a piece each has one key, and the first has none.
    let keys = member.store.index().from(b"").count();
    assert_eq!(member.named.map(|pieces| pieces.len()), Some(keys + 1));
}

/// Who makes a checkpoint asks before it is named whether it is of these tables.
#[test]
fn a_checkpoint_is_of_the_tables_that_it_was_cut_of() {
    let mut member = Member::new();
    for step in [Step::Put(1, 0), Step::Put(2, 0), Step::Publish] {
        member.step(&step);
    }
    let cut = member.store.cut().expect("memory has no faults").expect("there is no compaction");
    assert_eq!(cut.at(), member.store.revision());
    for step in [Step::Put(3, 0), Step::Compact(5), Step::Publish, Step::Remove(3), Step::Remove(3)] {
        assert!(cut.is_of(&member.store));
        member.step(&step);
    }
    assert!(cut.is_of(&member.store));
    member.step(&Step::Replace);
    assert!(!cut.is_of(&member.store));
}

#[test]
fn a_name_is_taken_out_of_the_tables() {
    let tables = MemBackend::new();
    let name = CheckpointName { at: Revision(9), checksum: 7 };
    for (batch, left) in [(name.batch(), Some(name)), (CheckpointName::forget(), None)] {
        tables.write(batch).expect("memory has no faults");
        assert_eq!(CheckpointName::load(&tables).expect("memory has no faults"), left);
    }
}

/// The keys of a piece leave out what they share; a piece ends when it has so many bytes.
#[test]
fn a_piece_has_many_keys() {
    let mut counts = Vec::new();
    for bytes in [40, 1000] {
        let mut member = Member::with(Config { chunk_bytes_max: bytes, ..CONFIG });
        for key in 0..12 {
            member.step(&Step::Put(key, 1));
        }
        member.step(&Step::Publish);
        while member.named.is_none() {
            member.step(&Step::Piece);
        }
        member.check();
        assert_eq!(member.used, 1);
        let pieces = member.named.expect("it is named");
        let all: usize = pieces.iter().map(Bytes::len).sum();
        // A key whole takes 5 bytes more than one of which a digit is left.
        assert!(all < 12 * 13, "{all} bytes");
        counts.push(pieces.len());
    }
    assert!(counts[0] > 3 && counts[1] == 2, "{counts:?}");
}

#[test]
fn entries_come_in_order_and_once() {
    let mut member = Member::new();
    for key in 0..3 {
        member.step(&Step::Put(key, 0));
    }
    member.step(&Step::Publish);
    while member.named.is_none() {
        member.step(&Step::Piece);
    }
    let pieces = member.named.expect("it is named");
    let with = |order: &[usize]| {
        let pieces = order.iter().map(|at| Ok(pieces[*at].clone()));
        load_from(&member.tables, &mut pieces.into_iter(), 0).is_ok()
    };
    assert!(with(&[0, 1, 2, 3]));
    for wrong in [&[0, 2, 1, 3][..], &[0, 1, 1, 2, 3], &[0, 1, 2, 3, 3]] {
        assert!(!with(wrong), "{wrong:?}");
    }
}
