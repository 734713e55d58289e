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
    collections::{BTreeMap, BTreeSet},
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
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
pub struct Executor {
    core: Arc<Mutex<Core>>,
    ready: Arc<Mutex<Vec<TaskNumber>>>,
}

struct Core {
    now: Micros,
    tasks: BTreeMap<TaskNumber, Task>,
    next_task: TaskNumber,
    timers: BTreeMap<(Micros, u64), Timer>,
    next_timer: u64,
    next_process: u32,
    ended: BTreeSet<Process>,
    paused: BTreeMap<Process, Vec<TaskNumber>>,
    polls: u64,
}

struct Task {
    process: Process,
    /// None while it is polled.
    work: Option<Work>,
    waker: Arc<TaskWaker>,
}

enum Timer {
    Wake(Waker),
    Act(Box<dyn FnOnce() + Send>),
}

struct TaskWaker {
    task: TaskNumber,
    queued: AtomicBool,
    ready: Arc<Mutex<Vec<TaskNumber>>>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Relaxed) {
            lock(&self.ready).push(self.task);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic ends the run; what is left is dropped as it is.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
            now: 0,
            tasks: BTreeMap::new(),
            next_task: 0,
            timers: BTreeMap::new(),
            next_timer: 0,
            next_process: 1,
            ended: BTreeSet::new(),
            paused: BTreeMap::new(),
            polls: 0,
        };
        Self { core: Arc::new(Mutex::new(core)), ready: Arc::default() }
    }

    /// How many times a task has been polled.
    pub fn polls(&self) -> u64 {
        lock(&self.core).polls
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
        let mut turn = Vec::new();
        loop {
            if let Some(result) = lock(&done).take() {
                return Some(result);
            }
            if turn.is_empty() {
                std::mem::swap(&mut turn, &mut *lock(&self.ready));
                // In which order tokio's watch channels wake depends on randomness of their own. Taken from the end.
                turn.sort_unstable_by(|a, b| b.cmp(a));
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
            let mut core = lock(&self.core);
            (std::mem::take(&mut core.tasks), std::mem::take(&mut core.timers))
        };
        drop((tasks, timers));
    }

    /// Goes to the next moment at which something happens; false if there is none.
    fn advance(&self) -> bool {
        let mut due = Vec::new();
        {
            let mut core = lock(&self.core);
            let Some((&(at, _), _)) = core.timers.first_key_value() else { return false };
            core.now = core.now.max(at);
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

    fn poll(&self, number: TaskNumber) {
        let (mut work, waker) = {
            let mut core = lock(&self.core);
            let core = &mut *core;
            let Some(task) = core.tasks.get_mut(&number) else { return };
            if let Some(held) = core.paused.get_mut(&task.process) {
                held.push(number);
                return;
            }
            core.polls += 1;
            let Some(work) = task.work.take() else { return };
            (work, task.waker.clone())
        };
        waker.queued.store(false, Relaxed);
        let waker = Waker::from(waker);
        let polled = work.as_mut().poll(&mut Context::from_waker(&waker));
        let mut core = lock(&self.core);
        match (polled, core.tasks.get_mut(&number)) {
            (Poll::Pending, Some(task)) => {
                task.work = Some(work);
                return;
            }
            (Poll::Ready(()), Some(_)) => drop(core.tasks.remove(&number)),
            // It was killed by what it did.
            (_, None) => {}
        }
        // Destructors may spawn and wake.
        drop(core);
        drop(work);
    }

    fn timer(&self, at: Micros, timer: Timer) -> (Micros, u64) {
        let mut core = lock(&self.core);
        let key = (at, core.next_timer);
        core.next_timer += 1;
        core.timers.insert(key, timer);
        key
    }
}

impl Host for Executor {
    fn now(&self) -> Micros {
        lock(&self.core).now
    }

    fn sleep_until(&self, at: Micros) -> impl Future<Output = ()> + Send + 'static {
        Sleep { executor: self.clone(), at, timer: None }
    }

    fn at(&self, at: Micros, act: Box<dyn FnOnce() + Send>) {
        self.timer(at, Timer::Act(act));
    }

    fn start(&self, _address: Address) -> Process {
        let mut core = lock(&self.core);
        let process = Process(core.next_process);
        core.next_process += 1;
        process
    }

    fn spawn(&self, process: Process, work: Work) {
        let mut core = lock(&self.core);
        if core.ended.contains(&process) {
            drop(core);
            return drop(work);
        }
        let number = core.next_task;
        core.next_task += 1;
        let waker =
            Arc::new(TaskWaker { task: number, queued: AtomicBool::new(true), ready: self.ready.clone() });
        core.tasks.insert(number, Task { process, work: Some(work), waker });
        lock(&self.ready).push(number);
    }

    fn kill(&self, process: Process) {
        let mut dropped = Vec::new();
        {
            let mut core = lock(&self.core);
            core.ended.insert(process);
            core.paused.remove(&process);
            let of = core.tasks.iter().filter(|(_, task)| task.process == process);
            let numbers: Vec<TaskNumber> = of.map(|(number, _)| *number).collect();
            for number in numbers {
                dropped.extend(core.tasks.remove(&number));
            }
        }
        drop(dropped);
    }

    fn pause(&self, process: Process, paused: bool) {
        let mut core = lock(&self.core);
        if paused {
            core.paused.entry(process).or_default();
        } else if let Some(held) = core.paused.remove(&process) {
            lock(&self.ready).extend(held);
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
        let mut core = lock(&self.executor.core);
        if core.now >= self.at {
            return Poll::Ready(());
        }
        match self.timer.and_then(|key| core.timers.get_mut(&key)) {
            Some(timer) => *timer = Timer::Wake(context.waker().clone()),
            None => {
                drop(core);
                let key = self.executor.timer(self.at, Timer::Wake(context.waker().clone()));
                self.timer = Some(key);
            }
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.timer {
            let timer = lock(&self.executor.core).timers.remove(&key);
            drop(timer);
        }
    }
}
