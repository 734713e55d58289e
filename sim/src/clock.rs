//! A member's own clock: it may run slower or faster than the world's, and its wall clock may jump.

use std::{
    future::Future,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use kontiki::{runtime::Clock, types::Instant};

use crate::{
    host::{Host, Micros},
    lock::lock,
};

/// The wall clock's time when a run begins, in milliseconds since 1970.
const BEGAN_UNIX_MS: i64 = 1_700_000_000_000;

/// A rate of one second a second.
pub const TRUE_RATE: u64 = 1_000_000;

/// A member's clock. Clones are the same one.
#[derive(Clone, Debug)]
pub struct SimClock<H> {
    host: H,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    /// The member's time at `since`, in microseconds.
    base: Micros,
    since: Micros,
    /// The member's microseconds in a second of the world.
    rate: u64,
    wall_offset_ms: i64,
}

impl State {
    fn at(&self, world: Micros) -> Micros {
        let passed = world.saturating_sub(self.since);
        // Most clocks are right, and this is asked for all the time.
        if self.rate == TRUE_RATE {
            return self.base + passed;
        }
        self.base + (u128::from(passed) * u128::from(self.rate) / u128::from(TRUE_RATE)) as u64
    }
}

impl<H: Host> SimClock<H> {
    /// A clock that starts now, at any time, and runs at `rate`.
    pub fn new(host: H, base: Micros, rate: u64) -> Self {
        let state = State { base, since: host.now(), rate, wall_offset_ms: 0 };
        Self { host, state: Arc::new(Mutex::new(state)) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Runs at another rate from now on.
    pub fn set_rate(&self, rate: u64) {
        let now = self.host.now();
        let mut state = self.lock();
        state.base = state.at(now);
        state.since = now;
        state.rate = rate.max(1);
    }

    /// Sets the wall clock off by so much more.
    pub fn jump_wall(&self, by_ms: i64) {
        self.lock().wall_offset_ms += by_ms;
    }

    /// What the clock showed, or will show, at a moment of the world.
    pub fn at(&self, world: Micros) -> Instant {
        Instant(self.lock().at(world) / 1000)
    }
}

impl<H: Host> Clock for SimClock<H> {
    fn now(&self) -> Instant {
        self.at(self.host.now())
    }

    fn unix_millis(&self) -> u64 {
        let offset = BEGAN_UNIX_MS + self.lock().wall_offset_ms;
        (self.host.now() / 1000).saturating_add_signed(offset)
    }

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send {
        let own = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX / 2);
        let rate = self.lock().rate;
        let world = match rate {
            TRUE_RATE => own,
            rate => (u128::from(own) * u128::from(TRUE_RATE) / u128::from(rate)) as u64,
        };
        let at = self.host.now().saturating_add(world);
        self.host.sleep_until(at)
    }
}
