//! What all shells of a member hold together: facts to read at once, and the ways to the workers.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};

use super::{
    api::Limits,
    applier::ApplyJob,
    driver::Waiter,
    exit::Exits,
    handle::Header,
    hub::{Audience, HubJob},
    keeper::KeepJob,
    options::Options,
    paths::Paths,
    sessions::Sessions,
    stats::Stats,
};
use crate::{
    auth::Who,
    error::{Fault, Refusal},
    membership::Roster,
    mvcc::{self, RangeRequest, Store},
    node::{Answer, Event, Lead, Request},
    raft::Raft,
    runtime::Runtime,
    state::{self, Alarm, Command},
    types::{ClusterId, Index, KeyRange, NodeId, RangeEnd, Revision, Term},
    wire,
};

/// A member's shared part.
pub(super) struct Shared<R: Runtime> {
    pub runtime: R,
    pub paths: Paths,
    pub me: NodeId,
    pub cluster: ClusterId,
    pub settings: Settings,
    pub store: Arc<Store<Arc<R::Backend>>>,
    pub backend: R::Backend,
    pub peers: R::PeerNet,
    pub driver: mpsc::UnboundedSender<Event<Waiter>>,
    pub applier: mpsc::UnboundedSender<ApplyJob<R>>,
    pub keeper: mpsc::UnboundedSender<KeepJob<R>>,
    pub hub: mpsc::UnboundedSender<HubJob>,
    pub audience: Arc<Audience>,
    pub exits: Exits,
    pub sessions: Sessions,
    pub facts: Facts,
    pub stats: Arc<Stats>,
    /// Held while a snapshot replaces the tables and the index.
    pub tables: Mutex<()>,
}

/// What the operator chose, as far as the shells need it.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub limits: Limits,
    pub strict_reconfig_check: bool,
    pub learners_max: usize,
    pub request_timeout_ms: u64,
}

impl From<&Options> for Settings {
    fn from(options: &Options) -> Self {
        Self {
            limits: options.limits.clone(),
            strict_reconfig_check: options.strict_reconfig_check,
            learners_max: options.learners_max,
            request_timeout_ms: options.request_timeout_ms(),
        }
    }
}

/// What changes rarely and is read often: replaced as a whole by the applier.
#[derive(Clone, Debug, Default)]
pub(super) struct View {
    pub roster: Roster,
    pub alarms: Vec<Alarm>,
}

/// What the workers note for all to read.
pub(super) struct Facts {
    pub leader: watch::Sender<Option<NodeId>>,
    pub leader_seen: watch::Receiver<Option<NodeId>>,
    /// How far physical compaction has come.
    pub compacted: watch::Sender<Revision>,
    /// The compaction that has been asked for.
    pub compact: watch::Sender<Revision>,
    view: watch::Sender<Arc<View>>,
    term: AtomicU64,
    last: AtomicU64,
    commit: AtomicU64,
    applied: AtomicU64,
    requests: AtomicU64,
}

impl Facts {
    /// At a start. Request ids are etcd's: 16 bits of the member, 40 of the milliseconds, 8 to count from.
    pub fn new(me: NodeId, unix_millis: u64, view: View, applied: Index) -> Self {
        let (leader, leader_seen) = watch::channel(None);
        Self {
            leader,
            leader_seen,
            compacted: watch::Sender::new(Revision(0)),
            compact: watch::Sender::new(Revision(0)),
            view: watch::Sender::new(Arc::new(view)),
            term: AtomicU64::new(0),
            last: AtomicU64::new(0),
            commit: AtomicU64::new(0),
            applied: AtomicU64::new(applied.0),
            requests: AtomicU64::new((me.0 & 0xffff) << 48 | (unix_millis & 0xff_ffff_ffff) << 8),
        }
    }

    pub fn term(&self) -> Term {
        Term(self.term.load(Relaxed))
    }

    pub fn last_index(&self) -> Index {
        Index(self.last.load(Relaxed))
    }

    pub fn committed(&self) -> Index {
        Index(self.commit.load(Relaxed))
    }

    pub fn applied(&self) -> Index {
        Index(self.applied.load(Relaxed))
    }

    pub fn note_raft(&self, raft: &Raft) {
        self.term.store(raft.term().0, Relaxed);
        self.last.store(raft.last().index.0, Relaxed);
        self.commit.store(raft.commit().0, Relaxed);
    }

    pub fn note_lead(&self, lead: Lead) {
        self.term.store(lead.term.0, Relaxed);
        self.leader.send_if_modified(|leader| std::mem::replace(leader, lead.leader) != lead.leader);
    }

    pub fn note_applied(&self, index: Index) {
        self.applied.store(index.0, Relaxed);
    }

    pub fn view(&self) -> Arc<View> {
        self.view.borrow().clone()
    }

    /// The view as it changes.
    pub fn views(&self) -> watch::Receiver<Arc<View>> {
        self.view.subscribe()
    }

    pub fn set_view(&self, view: View) {
        self.view.send_replace(Arc::new(view));
    }

    /// A request id that no other member and no earlier start of this one has used.
    pub fn new_request_id(&self) -> u64 {
        self.requests.fetch_add(1, Relaxed) + 1
    }
}

impl<R: Runtime> Shared<R> {
    /// Keeps a snapshot from replacing the tables meanwhile.
    pub fn replacing(&self) -> MutexGuard<'_, ()> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a command of somebody an id and encodes it for the log.
    pub fn encode(&self, who: Who, command: Command) -> (u64, Bytes) {
        let id = self.facts.new_request_id();
        let request = state::Request { id, user: who.user, auth_revision: who.revision, command };
        (id, wire::command::encode(&request))
    }

    /// Asks the node, and waits for its answer.
    pub async fn ask(&self, request: impl FnOnce(Waiter) -> Request<Waiter>) -> Result<Answer, Refusal> {
        let (waiter, answer) = oneshot::channel();
        self.driver.send(Event::Request(request(waiter))).map_err(|_| Refusal::Stopped)?;
        // A driver that is gone drops its waiters.
        answer.await.map_err(|_| Refusal::Stopped)?
    }

    /// Asks the keeper, and waits for what it made.
    pub async fn keep<T>(&self, job: impl FnOnce(oneshot::Sender<T>) -> KeepJob<R>) -> Result<T, Refusal> {
        let (reply, made) = oneshot::channel();
        self.keeper.send(job(reply)).map_err(|_| Refusal::Stopped)?;
        made.await.map_err(|_| Refusal::Stopped)
    }

    /// How many keys the store holds.
    pub fn count_keys(&self) -> Result<u64, Fault> {
        let all = KeyRange { start: Bytes::new(), end: RangeEnd::Unbounded };
        let request = RangeRequest { count_only: true, ..RangeRequest::of(all) };
        let counted = mvcc::Error::split(self.store.range(&request))?;
        Ok(counted.map_or(0, |found| found.count as u64))
    }

    pub fn header(&self) -> Header {
        let facts = &self.facts;
        Header { cluster: self.cluster, member: self.me, revision: self.store.revision(), term: facts.term() }
    }

    pub fn is_learner(&self) -> bool {
        self.facts.view().roster.member(self.me).is_some_and(|m| m.learner)
    }
}
