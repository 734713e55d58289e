//! Carries values between the node and the world: it decides nothing.
//!
//! Clients and peers come through the driver's task, which takes all that has come in as one batch. A worker's
//! small report goes straight on: its thread takes the node, and what comes of the report is on its way without
//! another hand-over. A client that waits alone is answered sooner so.
//!
//! ```text
//!   requests, peers, time ──▶ task ──┐ one at a time
//!                                    ├──▶ Core: node, and where its effects go
//!   log, applier ──▶ reports ────────┘
//! ```

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak},
    task::{Context, Poll},
    time::Duration,
};

use tokio::sync::{Notify, mpsc, oneshot};

use super::{applier::ApplyJob, exit::Exit, hub::HubJob, keeper::KeepJob, log::LogJob, shared::Shared};
use crate::{
    auth::Who,
    error::{Fault, Refusal},
    node::{Answer, Effect, Event, Node, Request},
    runtime::{Clock, PeerEvent, PeerNet, Runtime},
    state::{Alarm, AlarmAction, AlarmKind, Command},
    types::{Index, Instant, LeaseId, NodeId, Term},
};

/// Who waits for an answer.
pub(super) type Waiter = oneshot::Sender<Result<Answer, Refusal>>;

/// How many events are taken before their effects are carried out.
const EVENTS_MAX: usize = 4096;

/// The node, and everything that is carried to from there.
pub(super) struct Core<R: Runtime> {
    node: Node<Waiter>,
    clock: R::Clock,
    tick_ms: u64,
    next_tick: Instant,
    peers: R::PeerNet,
    log: mpsc::UnboundedSender<LogJob>,
    shared: Arc<Shared<R>>,
}

/// The core, and what the workers have to report to it.
pub(super) struct Driver<R: Runtime> {
    core: Mutex<Core<R>>,
    /// In order; taken by whoever has the core.
    reports: Mutex<Vec<Event<Waiter>>>,
    /// There are reports for the task.
    reported: Notify,
}

/// A worker's way to the driver, which may be gone, on the way down.
pub(super) struct Reports<R: Runtime>(Weak<Driver<R>>);

/// How a report gets to the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// On the worker's thread, for few effects.
    Straight,
    /// By the driver's task, which wakes many others at less cost, and leaves the worker to its work.
    Task,
}

impl Way {
    /// The way of a report on so many entries.
    pub fn of(entries: usize) -> Self {
        const FEW: usize = 4;
        if entries <= FEW { Self::Straight } else { Self::Task }
    }
}

impl<R: Runtime> Reports<R> {
    pub fn tell(&self, event: Event<Waiter>, way: Way) {
        let Some(driver) = self.0.upgrade() else { return };
        driver.reports().push(event);
        match way {
            Way::Straight => driver.turn(),
            Way::Task => driver.reported.notify_one(),
        }
    }
}

/// Lets all other tasks that can run go first: a task that wakes itself goes behind them.
async fn behind_others() {
    let mut yielded = false;
    let turn = |context: &mut Context<'_>| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    };
    std::future::poll_fn(turn).await;
}

impl<R: Runtime> Driver<R> {
    pub fn new(core: Core<R>) -> Arc<Self> {
        let core = Mutex::new(core);
        Arc::new(Self { core, reports: Mutex::default(), reported: Notify::new() })
    }

    pub fn way_in(self: &Arc<Self>) -> Reports<R> {
        Reports(Arc::downgrade(self))
    }

    fn reports(&self) -> MutexGuard<'_, Vec<Event<Waiter>>> {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the reports to the node, unless somebody has it, who then takes them too.
    fn turn(&self) {
        loop {
            match self.core.try_lock() {
                Ok(mut core) => core.round([], std::mem::take(&mut *self.reports())),
                Err(TryLockError::WouldBlock | TryLockError::Poisoned(_)) => return,
            }
            // Looked at after the core was let go: what came before that may have been left to us.
            if self.reports().is_empty() {
                return;
            }
        }
    }

    /// Runs until all who hold the inbox are gone, or `stop` is told.
    pub async fn run(
        self: Arc<Self>,
        clock: R::Clock,
        mut inbox: mpsc::UnboundedReceiver<Event<Waiter>>,
        mut peer_events: mpsc::Receiver<PeerEvent>,
        mut stop: oneshot::Receiver<()>,
    ) {
        let mut events = Vec::with_capacity(EVENTS_MAX);
        let mut heard = Vec::with_capacity(EVENTS_MAX);
        let mut next_tick = clock.now();
        loop {
            let until_tick = Duration::from_millis(next_tick.since(clock.now()));
            tokio::select! {
                biased;
                _ = &mut stop => break,
                n = peer_events.recv_many(&mut heard, EVENTS_MAX) => if n == 0 { return },
                n = inbox.recv_many(&mut events, EVENTS_MAX) => if n == 0 { return },
                () = self.reported.notified() => {}
                () = clock.sleep(until_tick) => {}
            }
            // The one that woke it is rarely alone: those whose tasks can run now come into the same batch. And
            // whichever woke it, both are heard: neither peers nor clients can keep the other waiting.
            behind_others().await;
            while heard.len() < EVENTS_MAX
                && let Ok(event) = peer_events.try_recv()
            {
                heard.push(event);
            }
            while events.len() < EVENTS_MAX
                && let Ok(event) = inbox.try_recv()
            {
                events.push(event);
            }
            // A worker that panicked while it had the node has left it in the middle of something.
            let Ok(mut core) = self.core.lock() else { return };
            let reports = std::mem::take(&mut *self.reports());
            core.round(heard.drain(..), reports.into_iter().chain(events.drain(..)));
            next_tick = core.next_tick;
            drop(core);
            self.turn();
        }
        // What only waits for a tick goes to the log.
        if let Ok(mut core) = self.core.lock() {
            let now = core.clock.now();
            core.node.step(Event::Tick(now));
            core.flush();
        }
    }
}

impl<R: Runtime> Core<R> {
    pub fn new(
        node: Node<Waiter>,
        tick_ms: u64,
        log: mpsc::UnboundedSender<LogJob>,
        shared: Arc<Shared<R>>,
    ) -> Self {
        let clock = shared.runtime.clock();
        let next_tick = clock.now().after(tick_ms);
        Self { node, next_tick, clock, tick_ms, peers: shared.peers.clone(), log, shared }
    }

    /// Takes events to the node, and carries out what comes of them.
    fn round(
        &mut self,
        heard: impl IntoIterator<Item = PeerEvent>,
        events: impl IntoIterator<Item = Event<Waiter>>,
    ) {
        // Looked at in each round, so that a full inbox does not hold up time; and first, so that after a pause
        // of the process no lease is renewed at a time long gone.
        self.next_tick = self.ticks(self.next_tick);
        for event in heard {
            self.peer_event(event);
        }
        for event in events {
            self.node.step(event);
        }
        self.flush();
    }

    fn ticks(&mut self, next: Instant) -> Instant {
        let now = self.clock.now();
        if now < next {
            return next;
        }
        if now.since(next) >= self.tick_ms && self.leads() {
            self.shared.stats.heartbeat_failures.add(1);
        }
        self.node.step(Event::Tick(now));
        drop(self.shared.hub.send(HubJob::Tick(now)));
        // Ticks that a stopped process has missed are not made up for.
        next.after(self.tick_ms).max(now)
    }

    fn peer_event(&mut self, event: PeerEvent) {
        match event {
            PeerEvent::Message(message) => self.node.step(Event::Message(message)),
            PeerEvent::Unreachable(peer) => self.node.step(Event::Unreachable(peer)),
            PeerEvent::SnapshotSent { to, ok } => {
                drop(self.shared.keeper.send(KeepJob::Sent(to)));
                self.node.step(Event::SnapshotSent { to, ok });
            }
            PeerEvent::SnapshotReceived { from, term, snapshot, body: _ } => {
                self.node.step(Event::SnapshotArrived);
                drop(self.shared.keeper.send(KeepJob::Verify { from, term, snapshot }));
            }
            PeerEvent::Removed => self.shared.exits.tell(Exit::Removed),
        }
    }

    fn flush(&mut self) {
        // What is carried out may give the node more to do at once.
        loop {
            let effects = self.node.poll();
            if effects.is_empty() {
                break;
            }
            for effect in effects {
                self.carry_out(effect);
            }
        }
        self.shared.facts.note_raft(self.node.raft());
    }

    // A worker that is gone has told its fault: what would go to it is dropped.
    fn carry_out(&mut self, effect: Effect<Waiter>) {
        match effect {
            Effect::Persist(persist) => drop(self.log.send(LogJob::Append(persist))),
            Effect::Apply(entries) => drop(self.shared.applier.send(ApplyJob::Apply(entries))),
            Effect::Install(snapshot) => drop(self.shared.applier.send(ApplyJob::Install(snapshot))),
            Effect::Discard(index) => self.discard(index),
            Effect::Send(messages) => self.peers.send(messages),
            Effect::SendSnapshot(message) => {
                let body = self.shared.paths.body_of(&message);
                self.peers.send_snapshot(message.to, message, body);
            }
            Effect::BuildSnapshot(to) => drop(self.shared.keeper.send(KeepJob::BuildSnapshot(to))),
            Effect::Checkpoint => drop(self.shared.keeper.send(KeepJob::Checkpoint)),
            Effect::RevokeLeases(term, ids) => self.revoke(term, ids),
            Effect::CheckpointLeases(term, left) => self.propose_own(term, Command::LeaseCheckpoint(left)),
            Effect::Corrupt(term, member) => self.alarm(term, member),
            // A client that has gone needs no answer.
            Effect::Answer(waiter, answer) => drop(waiter.send(answer)),
            Effect::Diverged(how) => self.shared.exits.tell(Exit::Fault(Fault::corrupt(format!(
                "{how}: this member's log or that member's is not the cluster's; remove this member from the \
                 cluster and add it again with an empty data directory"
            )))),
            Effect::Lead(lead) => {
                let before = *self.shared.facts.leader.borrow();
                let changed = lead.leader.is_some() && lead.leader != before;
                self.shared.stats.leader_changes.add(changed.into());
                self.shared.facts.note_lead(lead);
            }
        }
    }

    fn leads(&self) -> bool {
        *self.shared.facts.leader.borrow() == Some(self.shared.me)
    }

    fn discard(&self, index: Index) {
        drop(self.shared.keeper.send(KeepJob::Discard(index)));
    }

    fn alarm(&mut self, term: Term, member: NodeId) {
        let alarm = Alarm { member, kind: AlarmKind::Corrupt };
        if self.shared.facts.view().alarms.contains(&alarm) {
            return;
        }
        tracing::error!(
            %member,
            "the member's data are not the quorum's: raising its CORRUPT alarm; remove the member from the \
             cluster, add it again with an empty data directory, then disarm the alarm"
        );
        self.propose_own(term, Command::Alarm { action: AlarmAction::Activate, alarm });
    }

    fn propose_own(&mut self, term: Term, command: Command) {
        // Nobody asked for it, so it is nobody's to refuse.
        let (_, payload) = self.shared.encode(Who::member(), command);
        self.node.step(Event::Request(Request::AsLeader { term, payload }));
    }

    fn revoke(&mut self, term: Term, ids: Vec<LeaseId>) {
        self.shared.stats.leases_expired.add(ids.len() as u64);
        for id in ids {
            self.propose_own(term, Command::LeaseRevoke { id });
        }
    }
}
