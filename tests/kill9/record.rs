//! Writes down what clients see, as the simulator's own [`History`], and has the simulator's oracles judge it.
//!
//! History and oracles are the simulator's source (`sim/src/history`, `sim/src/check`), compiled into this test as the
//! fuzz targets are into theirs: `sim` as a dependency would have every test of the server built again with each change
//! of the simulator. A file that is written here is what `sim check FILE` reads.

use std::{
    collections::BTreeMap,
    env,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use kontiki::wire::etcdserverpb as pb;
use prost::Message;
use tokio::time::timeout;
use tonic::{Response, Status};

use super::cluster::Contact;
use crate::{
    check::{self, Report},
    history::{Boot, Call, Crash, Held, History, Micros, Op, Outcome, Reply, Settings, WatchLog},
};

/// All that was seen so far. Its clock is this process's monotonic one, so what ended before something else began did
/// so in earnest.
pub struct Recorder {
    history: Mutex<History>,
    began: Instant,
    /// Where it goes in the end, also after a panic.
    file: Option<PathBuf>,
}

impl Default for Recorder {
    /// Without a file.
    fn default() -> Self {
        Self { history: Mutex::default(), began: Instant::now(), file: None }
    }
}

impl Recorder {
    /// Writes to `PREFIX-NAME.jsonl` if the environment's `variable` is a prefix.
    pub fn from_env(variable: &str, name: &str) -> Self {
        let file = env::var(variable).ok().map(|prefix| PathBuf::from(format!("{prefix}-{name}.jsonl")));
        Self { history: Mutex::default(), began: Instant::now(), file }
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn now(&self) -> Micros {
        Micros(u64::try_from(self.began.elapsed().as_micros()).expect("a run ends within ages"))
    }

    /// A call that begins; it stays without an answer until [`Recorder::answered`].
    pub fn asked(&self, client: u32, contact: &Contact, call: Call) -> usize {
        let mut history = self.history();
        let (place, start) = (history.ops.len(), self.now());
        history.ops.push(Op {
            id: place as u64,
            client,
            member: contact.number(),
            user: None,
            start,
            end: None,
            call,
            outcome: Outcome::Unknown("the recording ended".to_owned()),
        });
        place
    }

    /// What came of a call, just now.
    pub fn answered(&self, place: usize, outcome: Outcome) {
        let mut history = self.history();
        let end = Some(self.now());
        let op = &mut history.ops[place];
        (op.end, op.outcome) = (end, outcome);
    }

    /// A watch that is about to be asked for, on a stream of its own.
    pub fn watching(
        &self,
        client: u32,
        contact: &Contact,
        create: &pb::WatchCreateRequest,
        resumes: Option<u64>,
    ) -> u64 {
        let mut history = self.history();
        let (id, start) = (history.watches.len() as u64, self.now());
        let log = WatchLog::new(id, client, contact.number(), create.clone(), start);
        history.watches.push(WatchLog { resumes, ..log });
        id
    }

    fn watch(&self, watch: u64, edit: impl FnOnce(&mut WatchLog, Micros)) {
        let mut history = self.history();
        let now = self.now();
        edit(&mut history.watches[watch as usize], now);
    }

    /// A response of a watch, just now.
    pub fn told(&self, watch: u64, response: &pb::WatchResponse) {
        self.watch(watch, |log, now| log.responses.push((now, response.clone())));
    }

    /// A watch's stream is over.
    pub fn watched(&self, watch: u64) {
        self.watch(watch, |log, now| log.ended = Some(now));
    }

    /// A lock was held.
    pub fn held(&self, held: Held) {
        self.history().held.push(held);
    }

    /// A member's process starts, for the `incarnation`th time from 0. What its disk holds is not looked at.
    pub fn booted(&self, member: u32, incarnation: u32) {
        let mut history = self.history();
        let boot = Boot { forgets: true, ..Boot::new(self.now(), member.into(), incarnation) };
        history.boots.push(boot);
    }

    /// A member's process is gone.
    pub fn crashed(&self, member: u32, incarnation: u32) {
        let mut history = self.history();
        let crash = Crash { at: self.now(), node: member.into(), incarnation };
        history.crashes.push(crash);
    }

    /// Ends the recording: what was seen, with `settings`, in the file if one is wanted.
    pub fn finish(&self, settings: Settings) -> History {
        let mut history = std::mem::take(&mut *self.history());
        history.settings = Settings { ended: self.now(), ..settings };
        name_nodes(&mut history);
        self.save(&history);
        history
    }

    fn save(&self, history: &History) {
        if let Some(file) = &self.file {
            history.save(file).expect("the history's file can be written");
            println!("history: {}", file.display());
        }
    }
}

/// Starts and ends are recorded by members' numbers; the oracles know members by the ids in their answers.
fn name_nodes(history: &mut History) {
    let mut ids: BTreeMap<u64, u64> = BTreeMap::new();
    for op in history.ops.iter().filter(|op| matches!(op.call, Call::Put(_) | Call::Range(_))) {
        if let Some(header) = op.outcome.reply().and_then(Reply::header) {
            ids.entry(op.member.into()).or_insert(header.member_id);
        }
    }
    let named = |member: &mut u64| ids.get(member).map(|id| *member = *id).is_some();
    history.boots.retain_mut(|boot| named(&mut boot.node));
    history.crashes.retain_mut(|crash| named(&mut crash.node));
}

impl Drop for Recorder {
    /// A run that ended in a panic is worth a look.
    fn drop(&mut self) {
        let history = std::mem::take(&mut *self.history());
        if !history.ops.is_empty() {
            self.save(&history);
        }
    }
}

/// What real members on one machine keep to. Their clocks are one, and a lease that ends early is no matter of ticks:
/// its time is counted from after it was asked for.
pub fn settings() -> Settings {
    Settings { lease_late_max: Micros::from_secs(20), ..Settings::default() }
}

/// A client that has its calls written down.
#[derive(Clone)]
pub struct Caller {
    pub recorder: Arc<Recorder>,
    pub number: u32,
    /// How long it waits for an answer.
    pub patience: Duration,
}

impl Caller {
    /// Calls a member; none if there was no answer, or it was refused.
    pub async fn call<Q, A>(
        &self,
        contact: &Contact,
        request: Q,
        answer: impl Future<Output = Result<Response<A>, Status>>,
    ) -> Option<A>
    where
        Q: Into<Call>,
        A: Into<Reply> + Clone + Message,
    {
        let place = self.recorder.asked(self.number, contact, request.into());
        let (outcome, answer) = match timeout(self.patience, answer).await {
            Ok(Ok(answer)) => {
                let answer = answer.into_inner();
                (Outcome::Ok(answer.clone().into()), Some(answer))
            }
            Ok(Err(status)) => (Outcome::from_status(status.code() as i32, status.message()), None),
            Err(_) => (Outcome::Unknown("no answer in time".to_owned()), None),
        };
        self.recorder.answered(place, outcome);
        answer
    }
}

/// Panics if an oracle objects.
pub fn judge(history: &History) -> Report {
    let began = Instant::now();
    let report = check::all(history);
    let list: Vec<String> = report.violations.iter().map(ToString::to_string).collect();
    assert!(report.is_clean(), "the oracles object:\n{}", list.join("\n"));
    println!(
        "{} calls, {} watches: {} things looked at in {:.1?}, {} undecided",
        history.ops.len(),
        history.watches.len(),
        report.looked_at,
        began.elapsed(),
        report.undecided.len()
    );
    report
}
