//! The leader's clock of leases.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    state::LeaseChange,
    types::{Instant, LeaseId},
};

/// The pace of expiry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpirerConfig {
    /// How long [`Expirer::due`]'s windows are, in milliseconds; the caller asks about once in each.
    pub window_ms: u64,
    /// How many revocations a window proposes at most.
    pub window_revokes_max: usize,
    /// When a revocation that has not been applied is proposed again, in milliseconds.
    pub retry_ms: u64,
    /// With at least [`ExpirerConfig::spread_leases_min`] leases, a new leader lets at most so many expire in
    /// any second.
    pub spread_per_second_max: usize,
    /// How many leases make a new leader spread them.
    pub spread_leases_min: usize,
    /// How often the remaining TTLs of long leases are to be checkpointed, in milliseconds; None for never.
    pub checkpoint_ms: Option<u64>,
    /// How many leases one checkpoint holds at most.
    pub checkpoint_leases_max: usize,
    /// How long ago `now` may have been when something is told, in milliseconds: as much longer does a lease last,
    /// since it must not end before its time.
    pub slack_ms: u64,
}

impl Default for ExpirerConfig {
    /// etcd's: 500 revocations each half second, retried after 3 s, 750 a second spread from 1000 leases on.
    fn default() -> Self {
        Self {
            window_ms: 500,
            window_revokes_max: 500,
            retry_ms: 3000,
            spread_per_second_max: 750,
            spread_leases_min: 1000,
            checkpoint_ms: None,
            checkpoint_leases_max: 1000,
            slack_ms: 0,
        }
    }
}

/// What becomes of a renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// It has its whole TTL again, in seconds.
    Renewed(i64),
    /// The same, but the log holds a checkpoint of less: answer when a checkpoint of 0 has been applied, or the
    /// next leader would end the lease too early.
    AfterCheckpoint(i64),
    /// It is over and its revocation is under way: answer when that has been applied, with "not found".
    Ending,
    /// There is no such lease.
    NotFound,
}

#[derive(Clone, Copy, Debug)]
struct Clock {
    ttl: i64,
    expiry: Instant,
    /// When it is looked at: at its expiry, or when its revocation is to be proposed again.
    wake: Instant,
    /// Whether its revocation has been proposed.
    ending: bool,
    /// Whether the log holds a checkpoint of it.
    checkpointed: bool,
    /// When it is to be checkpointed next.
    checkpoint: Option<Instant>,
}

impl Clock {
    fn new(ttl: i64, expiry: Instant, checkpointed: bool) -> Self {
        Self { ttl, expiry, wake: expiry, ending: false, checkpointed, checkpoint: None }
    }
}

/// When each lease is over, on one leader in one term. A member that is not leader has none.
#[derive(Clone, Debug)]
pub struct Expirer {
    config: ExpirerConfig,
    clocks: BTreeMap<LeaseId, Clock>,
    wakes: BTreeSet<(Instant, LeaseId)>,
    window: Instant,
    window_revokes: usize,
    /// When leases are to be checkpointed next.
    checkpoints: BTreeSet<(Instant, LeaseId)>,
}

impl Expirer {
    /// A new leader's, of all leases with the seconds granted and those left at the last checkpoint (0 for none):
    /// each lasts as long as it has left, and `extend_ms` (the election timeout) more.
    /// Many leases that would end together are spread.
    pub fn new(
        config: ExpirerConfig,
        leases: impl Iterator<Item = (LeaseId, i64, i64)>,
        extend_ms: u64,
        now: Instant,
    ) -> Self {
        let mut expirer = Self {
            config,
            clocks: BTreeMap::new(),
            wakes: BTreeSet::new(),
            window: now,
            window_revokes: 0,
            checkpoints: BTreeSet::new(),
        };
        let mut leases: Vec<_> = leases
            .map(|(id, ttl, remaining)| {
                let left = if remaining > 0 { remaining } else { ttl };
                (after_seconds(now, left).after(extend_ms), id, ttl, remaining > 0)
            })
            .collect();
        leases.sort_unstable();
        if leases.len() >= config.spread_leases_min {
            // No lease ends earlier than a second after the one so many places before it.
            for at in config.spread_per_second_max..leases.len() {
                let earliest = leases[at - config.spread_per_second_max].0.after(1000);
                leases[at].0 = leases[at].0.max(earliest);
            }
        }
        for (expiry, id, ttl, checkpointed) in leases {
            expirer.set(id, Clock::new(ttl, expiry, checkpointed));
            expirer.plan_checkpoint(id, now);
        }
        expirer
    }

    /// What has been applied.
    pub fn applied(&mut self, change: LeaseChange, now: Instant) {
        match change {
            LeaseChange::Granted(id, ttl) => {
                self.set(id, Clock::new(ttl, self.expiry(now, ttl), false));
                self.plan_checkpoint(id, now);
            }
            LeaseChange::Revoked(id) => {
                if let Some(clock) = self.clocks.remove(&id) {
                    self.wakes.remove(&(clock.wake, id));
                    clock.checkpoint.map(|at| self.checkpoints.remove(&(at, id)));
                }
            }
            LeaseChange::Checkpointed(id, remaining) => {
                if let Some(clock) = self.clocks.get_mut(&id) {
                    clock.checkpointed = remaining > 0;
                }
            }
        }
    }

    /// A client keeps a lease alive.
    pub fn renew(&mut self, id: LeaseId, now: Instant) -> Renewal {
        let Some(clock) = self.clocks.get(&id).copied() else { return Renewal::NotFound };
        // Once it is over it stays so, whether or not its turn to be revoked has come.
        if clock.ending || clock.expiry <= now {
            return Renewal::Ending;
        }
        let expiry = self.expiry(now, clock.ttl).max(clock.expiry);
        self.set(id, Clock { expiry, wake: expiry, ..clock });
        if clock.checkpointed { Renewal::AfterCheckpoint(clock.ttl) } else { Renewal::Renewed(clock.ttl) }
    }

    /// The leases whose revocation is to be proposed now: at most `max`, and at most so many in a window as the
    /// configuration says. Those not revoked after a while come again.
    pub fn due(&mut self, now: Instant, max: usize) -> Vec<LeaseId> {
        if now.since(self.window) >= self.config.window_ms {
            self.window = now;
            self.window_revokes = 0;
        }
        let room = self.config.window_revokes_max.saturating_sub(self.window_revokes).min(max);
        let due: Vec<LeaseId> =
            self.wakes.iter().take(room).take_while(|(wake, _)| *wake <= now).map(|(_, id)| *id).collect();
        for id in &due {
            let clock = self.clocks[id];
            self.set(*id, Clock { wake: now.after(self.config.retry_ms), ending: true, ..clock });
        }
        self.window_revokes += due.len();
        due
    }

    /// When [`Expirer::due`] or [`Expirer::checkpoint`] may have something to say.
    pub fn next_wake(&self) -> Option<Instant> {
        let first = |set: &BTreeSet<(Instant, LeaseId)>| set.first().map(|(wake, _)| *wake);
        let due = first(&self.wakes).map(|wake| {
            let full = self.window_revokes >= self.config.window_revokes_max;
            if full { wake.max(self.window.after(self.config.window_ms)) } else { wake }
        });
        due.into_iter().chain(first(&self.checkpoints)).min()
    }

    /// The remaining seconds of leases that are to be checkpointed now, to be proposed.
    pub fn checkpoint(&mut self, now: Instant) -> Vec<(LeaseId, i64)> {
        let mut checkpoints = Vec::new();
        while let Some((at, id)) = self.checkpoints.first().copied() {
            if at > now || checkpoints.len() >= self.config.checkpoint_leases_max {
                break;
            }
            self.checkpoints.remove(&(at, id));
            let Some(clock) = self.clocks.get(&id) else { continue };
            // Rounded up: the next leader must not end it before its time.
            let remaining = clock.expiry.since(now).div_ceil(1000) as i64;
            if !clock.ending && remaining > 0 && remaining < clock.ttl {
                checkpoints.push((id, remaining));
                // From here on it may be in the log: a renewal that does not undo it could be forgotten.
                if let Some(clock) = self.clocks.get_mut(&id) {
                    clock.checkpointed = true;
                }
            }
            self.plan_checkpoint(id, now);
        }
        checkpoints
    }

    /// Only leases that outlast the interval are checkpointed.
    fn plan_checkpoint(&mut self, id: LeaseId, now: Instant) {
        let Some(interval) = self.config.checkpoint_ms else { return };
        let Some(clock) = self.clocks.get_mut(&id) else { return };
        if clock.ttl as u64 * 1000 > interval {
            let at = now.after(interval);
            clock.checkpoint = Some(at);
            self.checkpoints.insert((at, id));
        }
    }

    /// Whole seconds that a lease has left; 0 if it is over and not yet revoked; None if there is none.
    pub fn remaining(&self, id: LeaseId, now: Instant) -> Option<i64> {
        let clock = self.clocks.get(&id)?;
        Some((clock.expiry.since(now.after(self.config.slack_ms)) / 1000) as i64)
    }

    /// All leases, those that end first first.
    pub fn by_remaining(&self) -> Vec<LeaseId> {
        let mut leases: Vec<_> = self.clocks.iter().map(|(id, clock)| (clock.expiry, *id)).collect();
        leases.sort_unstable();
        leases.into_iter().map(|(_, id)| id).collect()
    }

    fn expiry(&self, now: Instant, ttl: i64) -> Instant {
        after_seconds(now, ttl).after(self.config.slack_ms)
    }

    fn set(&mut self, id: LeaseId, clock: Clock) {
        self.wakes.insert((clock.wake, id));
        if let Some(old) = self.clocks.insert(id, clock)
            && old.wake != clock.wake
        {
            self.wakes.remove(&(old.wake, id));
        }
    }
}

fn after_seconds(now: Instant, seconds: i64) -> Instant {
    now.after(seconds.max(0) as u64 * 1000)
}
