//! Generated histories: of a store that is right, with calls that overlap and get lost. Then with one thing wrong.
mod support;

use std::time::Duration;

use kontiki::wire::etcdserverpb::{self as pb, compare::CompareTarget, request_op::Request};
use sim::{
    check::{self, model::Model},
    history::{Call, History, Micros, Op, Outcome, Reply, WatchLog},
};
use support::*;

/// A generator of numbers from a seed (splitmix).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % below
    }
}

struct Storm {
    ops: usize,
    keys: u64,
    clients: u64,
    /// Of a hundred calls, so many are not answered.
    lost: u64,
    watched: bool,
}

fn key(dice: &mut Dice, storm: &Storm) -> String {
    format!("k{}", dice.roll(storm.keys))
}

fn call(dice: &mut Dice, storm: &Storm, number: usize) -> Call {
    let name = key(dice, storm);
    let value = format!("v{number}");
    let end = format!("{name}5");
    match dice.roll(20) {
        0 => Call::DeleteRange(pb::DeleteRangeRequest { prev_kv: dice.roll(2) == 0, ..delete(&name) }),
        1 => Call::DeleteRange(pb::DeleteRangeRequest { range_end: bytes(&end), ..delete(&name) }),
        2..=8 => Call::Put(pb::PutRequest { prev_kv: dice.roll(2) == 0, ..put(&name, &value) }),
        9 => {
            let compare = pb::Compare {
                key: bytes(&name),
                target: CompareTarget::Version.into(),
                result: dice.roll(4) as i32,
                target_union: Some(pb::compare::TargetUnion::Version(dice.roll(3) as i64)),
                ..Default::default()
            };
            let op = |request| pb::RequestOp { request: Some(request) };
            let success =
                vec![op(Request::RequestRange(get(&name))), op(Request::RequestPut(put(&name, &value)))];
            let failure = vec![op(Request::RequestDeleteRange(delete(&name)))];
            Call::Txn(pb::TxnRequest { compare: vec![compare], success, failure })
        }
        10 => Call::Range(pb::RangeRequest {
            range_end: bytes(&end),
            limit: dice.roll(4) as i64,
            sort_order: dice.roll(3) as i32,
            sort_target: dice.roll(5) as i32,
            keys_only: dice.roll(2) == 0,
            count_only: dice.roll(4) == 0,
            ..get(&name)
        }),
        _ => Call::Range(get(&name)),
    }
}

fn execute(model: &mut Model, call: &Call) -> Reply {
    let fine = "the generator makes no requests that are refused";
    match call {
        Call::Put(request) => {
            let done = model.put(request).expect(fine);
            pb::PutResponse { header: header(model.revision()), ..done }.into()
        }
        Call::DeleteRange(request) => {
            let done = model.delete(request);
            pb::DeleteRangeResponse { header: header(model.revision()), ..done }.into()
        }
        Call::Txn(request) => {
            let done = model.txn(request).expect(fine);
            pb::TxnResponse { header: header(model.revision()), ..done }.into()
        }
        Call::Range(request) => {
            let found = model.range(request, model.revision());
            pb::RangeResponse { header: header(model.revision()), ..found }.into()
        }
        _ => unreachable!("the generator makes no others"),
    }
}

/// Each client calls one after another; a call takes effect at a moment within it, or never, or after it was given up.
fn generate(storm: &Storm, seed: u64) -> History {
    let mut dice = Dice(seed);
    let mut history = History::default();
    // (when it takes effect, call); the calls in order of effect are the store's order.
    let mut effects = Vec::new();
    let mut clocks = vec![0; storm.clients as usize];
    for number in 0..storm.ops {
        let client = dice.roll(storm.clients) as usize;
        let start = clocks[client] + 1 + dice.roll(20);
        let effect = start + dice.roll(40);
        let end = effect + dice.roll(40);
        clocks[client] = end;
        let lost = dice.roll(100) < storm.lost;
        let call = call(&mut dice, storm, number);
        let outcome = Outcome::Unknown("lost".to_owned());
        let op = Op {
            id: number as u64,
            client: client as u32,
            member: 0,
            user: None,
            start: Micros(start),
            end: Some(Micros(end)),
            call,
            outcome,
        };
        history.ops.push(op);
        match (lost, dice.roll(3)) {
            (true, 0) => {}
            (true, 1) => effects.push((effect + 500, number, false)),
            _ => effects.push((effect, number, !lost)),
        }
    }
    effects.sort();
    let mut model = Model::new(1);
    let mut responses = vec![(Micros(0), created(1))];
    for (at, number, answered) in effects {
        let before = model.revision();
        let reply = execute(&mut model, &history.ops[number].call);
        if answered {
            history.ops[number].outcome = Outcome::Ok(reply);
        }
        if storm.watched && model.revision() > before {
            let event = |change: check::model::Change| {
                let prev = change.prev.as_ref().map(|kv| kv.to_raw());
                if change.kv.is_deletion() {
                    let mut event = delete_event("", 0, prev);
                    event.kv = Some(change.kv.to_raw());
                    event
                } else {
                    put_event(change.kv.to_raw(), prev)
                }
            };
            let changes = model.changes(model.revision()).into_iter().map(event).collect();
            responses.push((Micros(at), events(model.revision(), changes)));
        }
    }
    if storm.watched {
        let create = pb::WatchCreateRequest { prev_kv: true, ..watch_all(0) };
        history.watches.push(WatchLog { responses, ..WatchLog::new(1, 0, 0, create, Micros(0)) });
    }
    history.settings.ended = Micros(clocks.into_iter().max().unwrap_or(0));
    history
}

#[test]
fn right_storms_pass() {
    for seed in 0..200 {
        let watched = seed % 2 == 0;
        let lost = if watched { 30 } else { 6 };
        let storm = Storm { ops: 300, keys: 2 + seed % 20, clients: 1 + seed % 8, lost, watched };
        let report = check::all(&generate(&storm, seed));
        assert!(report.is_clean(), "seed {seed}:\n{}", text(&report.violations));
        assert!(report.undecided.is_empty(), "seed {seed}: {:?}", report.undecided);
    }
}

/// Makes one answer wrong; false if there is none to make wrong.
fn spoil(history: &mut History, dice: &mut Dice) -> bool {
    let from = dice.roll(history.ops.len() as u64) as usize;
    for op in history.ops.iter_mut().skip(from) {
        match &mut op.outcome {
            Outcome::Ok(Reply::Range(response)) => {
                match dice.roll(3) {
                    0 => response.count += 1,
                    1 => response.more = !response.more,
                    _ if !response.kvs.is_empty() => response.kvs[0] = kv("k1", "never", (1, 1, 1)),
                    _ => response.kvs.push(kv("k1", "never", (1, 1, 1))),
                }
                return true;
            }
            Outcome::Ok(Reply::Put(response)) => {
                match (&response.prev_kv, dice.roll(2)) {
                    (Some(_), 0) => response.prev_kv = None,
                    _ => response.header.as_mut().expect("it has one").revision += 1,
                }
                return true;
            }
            Outcome::Ok(Reply::DeleteRange(response)) => {
                response.deleted += 1;
                return true;
            }
            _ => {}
        }
    }
    false
}

#[test]
fn spoilt_storms_do_not() {
    let mut spoilt = 0;
    for seed in 0..200 {
        let watched = seed % 2 == 0;
        let storm = Storm { ops: 300, keys: 2 + seed % 20, clients: 1 + seed % 8, lost: 3, watched };
        let mut history = generate(&storm, seed);
        if !spoil(&mut history, &mut Dice(seed)) {
            continue;
        }
        spoilt += 1;
        let report = check::all(&history);
        assert!(!report.is_clean() || !report.undecided.is_empty(), "seed {seed} passed");
        assert!(report.undecided.is_empty(), "seed {seed}: {:?}", report.undecided);
    }
    assert!(spoilt > 150, "{spoilt}");
}

/// The processor time of this thread: others may share the machine. None where the system doesn't tell.
fn processor_time() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

#[test]
fn a_million_calls_take_seconds() {
    let storm = Storm { ops: 1_000_000, keys: 5_000, clients: 200, lost: 1, watched: true };
    let history = generate(&storm, 7);
    let began = processor_time();
    let report = check::all(&history);
    assert!(report.is_clean(), "{}", text(&report.violations));
    let (Some(began), Some(ended)) = (began, processor_time()) else { return };
    let took = ended - began;
    println!("{} calls in {took:?} of one processor, {} looked at", history.ops.len(), report.looked_at);
    assert!(took.as_secs() < 30, "{took:?}");
}
