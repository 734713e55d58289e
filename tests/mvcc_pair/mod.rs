//! The store beside a naive model of it: full states by revision, in a list.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use kontiki::{
    error::Refusal,
    mvcc::{
        Compare, CompareResult, CompareTarget, Config, DeleteRequest, DeleteResponse, Error, Event, KvBytes,
        Op, OpResponse, PutRequest, PutResponse, RangeRequest, RangeResponse, SortOrder, SortTarget, Store,
        TxnRequest, TxnResponse, check_txn,
    },
    table::{Batch, Table},
    types::{KeyRange, KeyValue, LeaseId, Revision, SubRevision},
};

use super::mvcc_tables::{Granted, MapTables};

type State = BTreeMap<Bytes, KeyValue>;

/// Each revision's full state and changes, from revision 0 on.
#[derive(Clone)]
struct Model {
    states: Vec<State>,
    events: Vec<Vec<Event>>,
    compacted: i64,
}

/// A request under way.
struct Pending {
    state: State,
    events: Vec<Event>,
}

impl Model {
    fn new() -> Self {
        Self { states: vec![State::new(); 2], events: vec![Vec::new(); 2], compacted: -1 }
    }

    fn revision(&self) -> i64 {
        self.states.len() as i64 - 1
    }

    fn begin(&self) -> Pending {
        Pending { state: self.states.last().expect("never empty").clone(), events: Vec::new() }
    }

    fn commit(&mut self, pending: Pending) {
        if !pending.events.is_empty() {
            self.states.push(pending.state);
            self.events.push(pending.events);
        }
    }

    fn now(&self, pending: &Pending) -> i64 {
        self.revision() + i64::from(!pending.events.is_empty())
    }

    fn range(&self, request: &RangeRequest, pending: &Pending, now: i64) -> Result<RangeResponse, Refusal> {
        let at = request.revision.0;
        if at > now {
            return Err(Refusal::FutureRevision);
        }
        if at > 0 && at < self.compacted {
            return Err(Refusal::Compacted);
        }
        let state = if at <= 0 || at > self.revision() { &pending.state } else { &self.states[at as usize] };
        let mut kvs: Vec<KeyValue> =
            state.values().filter(|kv| request.range.contains(&kv.key)).cloned().collect();
        let mut response =
            RangeResponse { revision: Revision(now), count: kvs.len() as i64, ..RangeResponse::default() };
        if request.count_only {
            return Ok(response);
        }
        let bounds = [
            request.min_mod_revision.0,
            request.max_mod_revision.0,
            request.min_create_revision.0,
            request.max_create_revision.0,
        ];
        let limit = if request.limit > 0 { request.limit as usize } else { usize::MAX };
        if bounds == [0; 4] && request.sort_order == SortOrder::None {
            kvs.truncate(limit.saturating_add(1));
        }
        kvs.retain(|kv| {
            (bounds[0] == 0 || kv.modified.0 >= bounds[0])
                && (bounds[1] == 0 || kv.modified.0 <= bounds[1])
                && (bounds[2] == 0 || kv.created.0 >= bounds[2])
                && (bounds[3] == 0 || kv.created.0 <= bounds[3])
        });
        let compare = |a: &KeyValue, b: &KeyValue| match request.sort_target {
            SortTarget::Key | SortTarget::Unknown => a.key.cmp(&b.key),
            SortTarget::Version => a.version.cmp(&b.version),
            SortTarget::Create => a.created.cmp(&b.created),
            SortTarget::Mod => a.modified.cmp(&b.modified),
            SortTarget::Value => a.value.cmp(&b.value),
        };
        match request.sort_order {
            SortOrder::None | SortOrder::Ascend => kvs.sort_by(compare),
            SortOrder::Descend => kvs.sort_by(|a, b| compare(b, a)),
        }
        response.more = kvs.len() > limit;
        kvs.truncate(limit);
        for mut kv in kvs {
            if request.keys_only {
                kv.value = Bytes::new();
            }
            response.kvs.push(KvBytes::encode(&kv));
        }
        Ok(response)
    }

    fn put(&self, request: &PutRequest, pending: &mut Pending) -> PutResponse {
        let main = Revision(self.revision() + 1);
        let before = pending.state.get(&request.key).cloned();
        let mut kv = KeyValue {
            key: request.key.clone(),
            created: main,
            modified: main,
            version: 1,
            value: request.value.clone(),
            lease: request.lease,
        };
        if let Some(before) = &before {
            (kv.created, kv.version) = (before.created, before.version + 1);
        }
        if request.ignore_value {
            kv.value = before.as_ref().map_or(Bytes::new(), |before| before.value.clone());
        }
        if request.ignore_lease {
            kv.lease = before.as_ref().map_or(LeaseId(0), |before| before.lease);
        }
        self.note(&kv, false, pending);
        pending.state.insert(kv.key.clone(), kv);
        PutResponse {
            revision: main,
            prev_kv: before.filter(|_| request.prev_kv).map(|kv| KvBytes::encode(&kv)),
        }
    }

    fn delete(&self, request: &DeleteRequest, pending: &mut Pending) -> DeleteResponse {
        let gone: Vec<KeyValue> =
            pending.state.values().filter(|kv| request.range.contains(&kv.key)).cloned().collect();
        for kv in &gone {
            pending.state.remove(&kv.key);
            let modified = Revision(self.revision() + 1);
            self.note(&KeyValue { key: kv.key.clone(), modified, ..KeyValue::default() }, true, pending);
        }
        DeleteResponse {
            revision: Revision(self.now(pending)),
            deleted: gone.len() as i64,
            prev_kvs: gone.iter().filter(|_| request.prev_kv).map(KvBytes::encode).collect(),
        }
    }

    fn note(&self, kv: &KeyValue, deleted: bool, pending: &mut Pending) {
        let at = SubRevision { main: Revision(self.revision() + 1), sub: pending.events.len() as i64 };
        pending.events.push(Event { key: kv.key.clone(), deleted, at, kv: KvBytes::encode(kv) });
    }

    fn check_put(&self, put: &PutRequest) -> Result<(), Refusal> {
        let state = self.states.last().expect("never empty");
        if (put.ignore_value || put.ignore_lease) && !state.contains_key(&put.key) {
            return Err(Refusal::KeyNotFound);
        }
        if put.lease.0 != 0 && !Granted::has(put.lease) { Err(Refusal::LeaseNotFound) } else { Ok(()) }
    }

    fn holds(&self, compare: &Compare) -> bool {
        let state = self.states.last().expect("never empty");
        let mut kvs: Vec<KeyValue> =
            state.values().filter(|kv| compare.range.contains(&kv.key)).cloned().collect();
        if kvs.is_empty() {
            if matches!(compare.target, CompareTarget::Value(_)) {
                return false;
            }
            kvs.push(KeyValue::default());
        }
        kvs.iter().all(|kv| {
            let ordering = match &compare.target {
                CompareTarget::Version(n) => kv.version.cmp(n),
                CompareTarget::Create(n) => kv.created.cmp(n),
                CompareTarget::Mod(n) => kv.modified.cmp(n),
                CompareTarget::Value(v) => kv.value.cmp(v),
                CompareTarget::Lease(l) => kv.lease.cmp(l),
                CompareTarget::Unknown => 0.cmp(&0),
            };
            match compare.result {
                CompareResult::Equal => ordering.is_eq(),
                CompareResult::Greater => ordering.is_gt(),
                CompareResult::Less => ordering.is_lt(),
                CompareResult::NotEqual => ordering.is_ne(),
                CompareResult::Unknown => true,
            }
        })
    }

    /// The operations taken, compares all made first.
    fn plan(&self, txn: &TxnRequest) -> (bool, Vec<Step>) {
        let succeeded = txn.compare.iter().all(|compare| self.holds(compare));
        let ops = if succeeded { &txn.success } else { &txn.failure };
        let steps = ops.iter().map(|op| match op {
            Op::Txn(nested) => {
                let (succeeded, steps) = self.plan(nested);
                Step::Txn(succeeded, steps)
            }
            op => Step::Op(op.clone()),
        });
        (succeeded, steps.collect())
    }

    fn check(&self, steps: &[Step], puts: bool) -> Result<(), Refusal> {
        for step in steps {
            match step {
                Step::Txn(_, steps) => self.check(steps, puts)?,
                Step::Op(Op::Put(put)) if puts => self.check_put(put)?,
                Step::Op(Op::Range(range)) if !puts && range.revision.0 != 0 => {
                    if range.revision.0 > self.revision() {
                        return Err(Refusal::FutureRevision);
                    }
                    if range.revision.0 < self.compacted {
                        return Err(Refusal::Compacted);
                    }
                }
                Step::Op(_) => {}
            }
        }
        Ok(())
    }

    fn run(&self, succeeded: bool, steps: &[Step], pending: &mut Pending) -> TxnResponse {
        let responses = steps.iter().map(|step| match step {
            Step::Txn(succeeded, steps) => OpResponse::Txn(self.run(*succeeded, steps, pending)),
            Step::Op(Op::Range(range)) => {
                let now = self.now(pending);
                OpResponse::Range(self.range(range, pending, now).expect("it was checked"))
            }
            Step::Op(Op::Put(put)) => OpResponse::Put(self.put(put, pending)),
            Step::Op(Op::Delete(delete)) => OpResponse::Delete(self.delete(delete, pending)),
            Step::Op(Op::Txn(_) | Op::Missing) => unreachable!("not planned"),
        });
        let responses = responses.collect();
        TxnResponse { revision: Revision(self.now(pending)), succeeded, responses }
    }

    fn txn(&mut self, txn: &TxnRequest) -> Result<TxnResponse, Refusal> {
        let (succeeded, steps) = self.plan(txn);
        self.check(&steps, true)?;
        self.check(&steps, false)?;
        let mut pending = self.begin();
        let response = self.run(succeeded, &steps, &mut pending);
        self.commit(pending);
        Ok(response)
    }
}

enum Step {
    Op(Op),
    Txn(bool, Vec<Step>),
}

/// What is done to both.
#[derive(Clone, Debug)]
pub enum Action {
    Put(PutRequest),
    Delete(DeleteRequest),
    Txn(TxnRequest),
    Read(RangeRequest),
    Compact(i64),
    Publish,
    Step(usize),
    Reopen,
    History(i64, usize),
}

/// The store beside its model, which knows what is published.
pub struct Pair {
    store: Arc<Store<MapTables>>,
    tables: MapTables,
    model: Model,
    published: Model,
    leases: Granted,
    batch: Batch,
    config: Config,
}

impl Pair {
    pub fn new(config: Config) -> Self {
        let tables = MapTables::default();
        let store = Arc::new(Store::open(tables.clone(), config).expect("empty tables open"));
        let (model, published) = (Model::new(), Model::new());
        Self { store, tables, model, published, leases: Granted::default(), batch: Batch::default(), config }
    }

    fn publish(&mut self) {
        self.tables.write(std::mem::take(&mut self.batch));
        self.store.publish();
        self.published = self.model.clone();
    }

    fn write(&mut self, action: &Action) {
        let mut events = Vec::new();
        let mut writer = self.store.writer();
        let before = self.model.revision();
        match action {
            Action::Put(put) => {
                let ours = writer.put(put, &mut self.leases, &mut self.batch, &mut events);
                let theirs = match put.lease.0 != 0 && !Granted::has(put.lease) {
                    true => Err(Refusal::LeaseNotFound),
                    false => self.model.check_put(put).map(|()| {
                        let mut pending = self.model.begin();
                        let response = self.model.put(put, &mut pending);
                        self.model.commit(pending);
                        response
                    }),
                };
                assert_eq!(Error::split(ours).expect("no fault"), theirs);
            }
            Action::Delete(delete) => {
                let ours = writer.delete(delete, &mut self.leases, &mut self.batch, &mut events);
                let mut pending = self.model.begin();
                let theirs = self.model.delete(delete, &mut pending);
                self.model.commit(pending);
                assert_eq!(Error::split(ours).expect("no fault"), Ok(theirs));
            }
            Action::Txn(txn) => {
                if check_txn(txn, 128).is_err() {
                    return;
                }
                let ours = writer.txn(txn, &mut self.leases, &mut self.batch, &mut events);
                assert_eq!(Error::split(ours).expect("no fault"), self.model.txn(txn));
            }
            _ => unreachable!("not a write"),
        }
        let noted: Vec<Event> = self.model.events[before as usize + 1..].concat();
        assert_eq!(events, noted);
        assert_eq!(self.store.writer().revision().0, self.model.revision());
    }

    fn read(&self, request: &RangeRequest) {
        let published = &self.published;
        let theirs = published.range(request, &published.begin(), published.revision());
        let ours = Error::split(self.store.range(request)).expect("no fault");
        assert_eq!(ours, theirs);
        let mut cursor = match Error::split(self.store.range_cursor(request)).expect("no fault") {
            Ok(cursor) => cursor,
            Err(refusal) => return assert_eq!(Err(refusal), theirs),
        };
        let mut whole = RangeResponse::default();
        while let Some(chunk) = cursor.next_chunk().expect("no fault") {
            whole.kvs.extend(chunk.kvs);
            if let Some(tail) = chunk.tail {
                (whole.revision, whole.more, whole.count) = (tail.revision, tail.more, tail.count);
            }
        }
        assert_eq!(Ok(whole), theirs);
        let writer = Error::split(self.store.writer().range(request)).expect("no fault");
        assert_eq!(writer, self.model.range(request, &self.model.begin(), self.model.revision()));
    }

    fn history(&self, from: i64, revisions_max: usize) {
        let history = self.store.events(Revision(from), Revision(i64::MAX - 1), revisions_max, 1 << 20);
        let history = match Error::split(history).expect("no fault") {
            Ok(history) => history,
            Err(refusal) => {
                assert_eq!(refusal, Refusal::Compacted);
                return assert!(from < self.published.compacted);
            }
        };
        assert!(from >= self.published.compacted);
        let from = usize::try_from(from).expect("not negative");
        let to = usize::try_from(history.next.0).expect("not negative").min(self.published.events.len());
        let noted = self.published.events.get(from..to).map_or(Vec::new(), |events| events.concat());
        // Where a key changed twice in the revision compacted to, only its last change is left.
        let twice = |event: &&Event| {
            event.at.main.0 == self.published.compacted
                && noted.iter().any(|later| {
                    later.key == event.key && later.at.main == event.at.main && later.at > event.at
                })
        };
        let kept =
            |events: &[Event]| events.iter().filter(|event| !twice(event)).cloned().collect::<Vec<_>>();
        assert_eq!(kept(&history.events), kept(&noted));
        let covered = to - from.min(to);
        assert!(
            covered >= revisions_max.min(self.published.events.len().saturating_sub(from)) || covered > 0
        );
        for event in &history.events {
            let prev = self.store.prev_kv(&event.key, event.at.main).expect("no fault");
            let then = event.at.main.0 - 1;
            let known = then >= self.published.compacted;
            let state = &self.published.states[then as usize];
            assert_eq!(prev, state.get(&event.key).filter(|_| known).map(KvBytes::encode));
        }
    }

    fn hash(&self) -> u32 {
        self.store.hash_kv(Revision(0)).expect("the newest can be hashed").hash
    }

    fn step(&mut self, max: usize) -> bool {
        let step = self.store.compact_step(max).expect("no fault");
        let deletions = step.as_ref().map_or(0, |batch| batch.writes.len());
        assert!(deletions <= max + 1);
        let hash = self.hash();
        let more = step.is_some();
        step.into_iter().for_each(|batch| self.tables.write(batch));
        assert_eq!(self.hash(), hash, "compaction does not change the hash");
        more
    }

    fn reopen(&mut self) {
        self.publish();
        let hash = self.hash();
        self.store = Arc::new(Store::open(self.tables.clone(), self.config).expect("it opens again"));
        assert_eq!(self.store.revision().0, self.model.revision());
        assert_eq!(self.store.compacted().0, self.model.compacted);
        assert_eq!(self.hash(), hash);
        self.sweep();
    }

    /// Reads everything that can be read.
    fn sweep(&self) {
        for revision in self.published.compacted.max(1)..=self.published.revision() {
            let all = KeyRange::from_wire(Bytes::from_static(b"\0"), Bytes::from_static(b"\0"));
            self.read(&RangeRequest { revision: Revision(revision), ..RangeRequest::of(all) });
        }
        let mut leased = Vec::new();
        self.store.leased(&mut |lease, key| leased.push((key, lease)));
        let state = self.published.states.last().expect("never empty");
        let known = state.values().filter(|kv| kv.lease.0 != 0).map(|kv| (kv.key.clone(), kv.lease));
        assert_eq!(leased, known.collect::<Vec<_>>());
    }

    pub fn act(&mut self, action: &Action) {
        match action {
            Action::Put(_) | Action::Delete(_) | Action::Txn(_) => self.write(action),
            Action::Read(request) => self.read(request),
            Action::Compact(back) => {
                let at = self.model.revision() - back;
                let theirs = if at <= self.model.compacted {
                    Err(Refusal::Compacted)
                } else if at > self.model.revision() {
                    Err(Refusal::FutureRevision)
                } else {
                    self.model.compacted = at;
                    Ok(())
                };
                assert_eq!(self.store.writer().compact(Revision(at), &mut self.batch), theirs);
            }
            Action::Publish => self.publish(),
            Action::Step(max) => drop(self.step(*max)),
            Action::Reopen => self.reopen(),
            Action::History(from, max) => self.history(*from, *max),
        }
        assert_eq!(self.store.revision().0, self.published.revision());
        assert_eq!(self.store.compacted().0, self.published.compacted);
        let held: BTreeMap<Bytes, LeaseId> = self.model.states[self.model.revision() as usize]
            .values()
            .filter(|kv| kv.lease.0 != 0)
            .map(|kv| (kv.key.clone(), kv.lease))
            .collect();
        assert_eq!(self.leases.held, held);
    }

    /// Publishes, compacts to the end, reads everything, and opens it again.
    pub fn settle(mut self) {
        self.publish();
        while self.step(2) {}
        assert_eq!(self.store.compaction_finished().0, self.model.compacted);
        self.sweep();
        self.reopen();
        // Compacted to a last put, nothing is left but the keys that are there.
        self.act(&Action::Put(PutRequest { key: Bytes::from_static(b"z"), ..PutRequest::default() }));
        self.act(&Action::Compact(0));
        self.publish();
        while self.step(2) {}
        let live = self.model.states.last().map_or(0, |state| state.len());
        assert_eq!(self.tables.rows(Table::Rev), live);
    }
}
