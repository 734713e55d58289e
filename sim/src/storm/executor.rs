//! A deterministic executor: one thread, virtual time, tasks in an order drawn from the seed.
//!
//! ```text
//!   wakers ─▶ ready ─▶ poll one, drawn or in turn ─┐     no task ready: the next timer's moment is now
//!     ▲                                            │
//!     └───────── timers (moment, number) ◀─────────┘
//! ```
//!
//! Invariants:
//! - what runs next depends on the seed and on what ran before, on nothing else;
//! - time moves only when no task is ready;
//! - a task of a process that was killed is never polled again, one of a paused process not before it goes on.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, Wake, Waker},
};

use kontiki::{
    server::api::{Api, Member},
    wire::etcdserverpb as pb,
};
use tokio::sync::mpsc;
use tonic::Status;

use super::handlers;
use crate::{
    history::{Call, Reply},
    host::{Host, Micros, Process, Work},
    lock::lock,
    net::Address,
    rng::Rng,
};

type TaskNumber = u64;

/// In which order tasks that are ready run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// In rounds: all that got ready in one run in the next, by number.
    Turn,
    /// As the seed has it.
    Drawn,
}

/// The executor. Clones are the same one.
#[derive(Clone)]
pub struct Executor(Arc<Shared>);

struct Shared {
    /// Beside the core: it is asked for more often than anything else.
    now: AtomicU64,
    core: Mutex<Core>,
    ready: Ready,
}

/// Tasks that somebody woke, in order.
type Ready = Arc<Mutex<Vec<Arc<Task>>>>;

struct Core {
    /// Those that are not done, to end them by.
    tasks: BTreeMap<TaskNumber, Arc<Task>>,
    next_task: TaskNumber,
    timers: BTreeMap<(Micros, u64), Timer>,
    next_timer: u64,
    next_process: u32,
    ended: BTreeSet<Process>,
    paused: BTreeMap<Process, Vec<Arc<Task>>>,
    polls: u64,
}

/// A task, and what wakes it.
struct Task {
    number: TaskNumber,
    process: Process,
    /// None while it is polled, and when it is over.
    work: Mutex<Option<Work>>,
    queued: AtomicBool,
    killed: AtomicBool,
    ready: Ready,
}

enum Timer {
    Wake(Waker),
    Act(Box<dyn FnOnce() + Send>),
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        if !self.queued.swap(true, Relaxed) {
            let ready = self.ready.clone();
            lock(&ready).push(self);
        }
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Relaxed) {
            lock(&self.ready).push(self.clone());
        }
    }
}

impl Default for Executor {
    fn default() -> Self {
        Self::new()
    }
}

impl Executor {
    /// An executor at time 0.
    pub fn new() -> Self {
        let core = Core {
            tasks: BTreeMap::new(),
            next_task: 0,
            timers: BTreeMap::new(),
            next_timer: 0,
            next_process: 1,
            ended: BTreeSet::new(),
            paused: BTreeMap::new(),
            polls: 0,
        };
        Self(Arc::new(Shared { now: AtomicU64::new(0), core: Mutex::new(core), ready: Ready::default() }))
    }

    fn core(&self) -> MutexGuard<'_, Core> {
        lock(&self.0.core)
    }

    /// How many times a task has been polled.
    pub fn polls(&self) -> u64 {
        self.core().polls
    }

    /// Runs until `main` is done, and gives what it gave. None if nothing is left that could wake it.
    pub fn run<T: Send + 'static>(
        &self,
        rng: &Rng,
        order: Order,
        main: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let done = Arc::new(Mutex::new(None));
        let result = done.clone();
        self.spawn(Process::WORLD, Box::pin(async move { *lock(&result) = Some(main.await) }));
        let mut turn: Vec<Arc<Task>> = Vec::new();
        loop {
            if let Some(result) = lock(&done).take() {
                return Some(result);
            }
            if turn.is_empty() {
                std::mem::swap(&mut turn, &mut *lock(&self.0.ready));
                // In which order tokio's watch channels wake depends on randomness of their own. Taken from the end.
                turn.sort_unstable_by_key(|task| Reverse(task.number));
            }
            match (turn.is_empty(), order) {
                (true, _) => {
                    if !self.advance() {
                        return None;
                    }
                }
                (false, Order::Turn) => {
                    if let Some(task) = turn.pop() {
                        self.poll(task);
                    }
                }
                (false, Order::Drawn) => {
                    let drawn = rng.below(turn.len() as u64) as usize;
                    self.poll(turn.swap_remove(drawn));
                }
            }
        }
    }

    /// Ends everything: tasks may hold each other, and the executor.
    pub fn clear(&self) {
        let (tasks, timers) = {
            let mut core = self.core();
            core.paused.clear();
            (std::mem::take(&mut core.tasks), std::mem::take(&mut core.timers))
        };
        drop(tasks.into_values().map(|task| task.end()).collect::<Vec<_>>());
        drop(timers);
        // What ended has woken others.
        drop(std::mem::take(&mut *lock(&self.0.ready)));
    }

    /// Goes to the next moment at which something happens; false if there is none.
    fn advance(&self) -> bool {
        let mut due = Vec::new();
        {
            let mut core = self.core();
            let Some((&(at, _), _)) = core.timers.first_key_value() else { return false };
            self.0.now.fetch_max(at, Relaxed);
            while let Some(entry) = core.timers.first_entry()
                && entry.key().0 <= at
            {
                due.push(entry.remove());
            }
        }
        for timer in due {
            match timer {
                Timer::Wake(waker) => waker.wake(),
                Timer::Act(act) => act(),
            }
        }
        true
    }

    fn poll(&self, task: Arc<Task>) {
        let Some(mut work) = lock(&task.work).take() else { return };
        {
            let mut core = self.core();
            if let Some(held) = core.paused.get_mut(&task.process) {
                *lock(&task.work) = Some(work);
                held.push(task);
                return;
            }
            core.polls += 1;
        }
        task.queued.store(false, Relaxed);
        let waker = Waker::from(task.clone());
        match work.as_mut().poll(&mut Context::from_waker(&waker)) {
            // It may have been killed by what it did.
            Poll::Pending if !task.killed.load(Relaxed) => *lock(&task.work) = Some(work),
            Poll::Pending => {}
            Poll::Ready(()) => drop(self.core().tasks.remove(&task.number)),
        }
    }

    fn timer(&self, at: Micros, timer: Timer) -> (Micros, u64) {
        let mut core = self.core();
        let key = (at, core.next_timer);
        core.next_timer += 1;
        core.timers.insert(key, timer);
        key
    }
}

impl Task {
    /// It is never polled again; what it was is handed out, for destructors may spawn and wake.
    fn end(&self) -> Option<Work> {
        self.killed.store(true, Relaxed);
        lock(&self.work).take()
    }
}

impl Host for Executor {
    fn now(&self) -> Micros {
        self.0.now.load(Relaxed)
    }

    fn sleep_until(&self, at: Micros) -> impl Future<Output = ()> + Send + 'static {
        Sleep { executor: self.clone(), at, timer: None }
    }

    fn at(&self, at: Micros, act: Box<dyn FnOnce() + Send>) {
        self.timer(at, Timer::Act(act));
    }

    fn start(&self, _address: Address) -> Process {
        let mut core = self.core();
        let process = Process(core.next_process);
        core.next_process += 1;
        process
    }

    fn spawn(&self, process: Process, work: Work) {
        let mut core = self.core();
        if core.ended.contains(&process) {
            drop(core);
            return drop(work);
        }
        let number = core.next_task;
        core.next_task += 1;
        let task = Arc::new(Task {
            number,
            process,
            work: Mutex::new(Some(work)),
            queued: AtomicBool::new(true),
            killed: AtomicBool::new(false),
            ready: self.0.ready.clone(),
        });
        core.tasks.insert(number, task.clone());
        lock(&self.0.ready).push(task);
    }

    fn kill(&self, process: Process) {
        let mut dropped = Vec::new();
        {
            let mut core = self.core();
            core.ended.insert(process);
            core.paused.remove(&process);
            core.tasks.retain(|_, task| {
                let stays = task.process != process;
                if !stays {
                    dropped.extend(task.end());
                }
                stays
            });
        }
        drop(dropped);
    }

    fn pause(&self, process: Process, paused: bool) {
        let mut core = self.core();
        if paused {
            core.paused.entry(process).or_default();
        } else if let Some(held) = core.paused.remove(&process) {
            lock(&self.0.ready).extend(held);
        }
    }

    // Handlers are called where they are.
    fn serve<M: Member>(&self, _process: Process, _address: Address, _api: Api<M>) {}

    fn call<M: Member>(
        &self,
        process: Process,
        _address: Address,
        api: Api<M>,
        call: Call,
        token: Option<String>,
    ) -> impl Future<Output = Result<Reply, Status>> + Send {
        handlers::call(self, process, api, call, token)
    }

    fn watch<M: Member>(
        &self,
        process: Process,
        _address: Address,
        api: Api<M>,
        token: Option<String>,
        requests: mpsc::UnboundedReceiver<pb::WatchRequest>,
        responses: mpsc::Sender<Result<pb::WatchResponse, Status>>,
    ) {
        self.spawn(process, Box::pin(handlers::serve_watch(api, token, requests, responses)));
    }
}

struct Sleep {
    executor: Executor,
    at: Micros,
    timer: Option<(Micros, u64)>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.executor.now() >= self.at {
            // All timers up to now have gone off.
            self.timer = None;
            return Poll::Ready(());
        }
        if let Some(key) = self.timer
            && let Some(timer) = self.executor.core().timers.get_mut(&key)
        {
            if !matches!(timer, Timer::Wake(waker) if waker.will_wake(context.waker())) {
                *timer = Timer::Wake(context.waker().clone());
            }
            return Poll::Pending;
        }
        let key = self.executor.timer(self.at, Timer::Wake(context.waker().clone()));
        self.timer = Some(key);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.timer {
            let timer = self.executor.core().timers.remove(&key);
            drop(timer);
        }
    }
}
