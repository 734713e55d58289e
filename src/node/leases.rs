//! Leases as a member knows them, and a leader's renewals that wait for the log.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    lease::{Expirer, ExpirerConfig, Renewal},
    state::LeaseChange,
    types::{Instant, LeaseId},
};

/// The seconds of each lease of a renewal; None for one that is not there.
type Renewed = Vec<Option<i64>>;

/// See the module.
pub(super) struct Leases<W> {
    /// All: seconds granted, seconds left at the last checkpoint (0 for none).
    all: BTreeMap<LeaseId, (i64, i64)>,
    /// When they end; a leader's alone.
    expirer: Option<Expirer>,
    /// Renewals of leases of which the log still says that they have less left: were they answered, the next leader
    /// would end the lease before the time that the client was told.
    held: Vec<Held<W>>,
}

struct Held<W> {
    waiter: W,
    leases: Vec<(LeaseId, Option<i64>)>,
    /// Those whose checkpoint is not undone yet.
    awaited: BTreeSet<LeaseId>,
    deadline: Instant,
}

impl<W> Held<W> {
    fn answer(self) -> (W, Renewed) {
        (self.waiter, self.leases.into_iter().map(|(_, seconds)| seconds).collect())
    }
}

/// What comes of a renewal.
pub(super) struct Outcome<W> {
    /// Who gets an answer at once.
    pub answer: Option<(W, Renewed)>,
    /// Checkpoints to be undone: to be proposed as having 0 seconds left, which stands for all.
    pub undo: Vec<(LeaseId, i64)>,
}

impl<W> Leases<W> {
    /// All leases, with seconds granted and remaining.
    pub fn new(all: Vec<(LeaseId, i64, i64)>) -> Self {
        let all = all.into_iter().map(|(id, ttl, left)| (id, (ttl, left))).collect();
        Self { all, expirer: None, held: Vec::new() }
    }

    /// A snapshot brought other leases.
    pub fn replace(&mut self, all: Vec<(LeaseId, i64, i64)>) {
        self.all = Self::new(all).all;
    }

    /// This member leads from now on: each lease lasts as long as it has left, and `extend_ms` more.
    pub fn lead(&mut self, config: ExpirerConfig, extend_ms: u64, now: Instant) {
        let leases = self.all.iter().map(|(&id, &(ttl, left))| (id, ttl, left));
        self.expirer = Some(Expirer::new(config, leases, extend_ms, now));
    }

    /// It leads no more: who waited for a renewal.
    pub fn follow(&mut self) -> Vec<W> {
        self.expirer = None;
        std::mem::take(&mut self.held).into_iter().map(|held| held.waiter).collect()
    }

    /// The leader's clock.
    pub fn expirer(&mut self) -> Option<&mut Expirer> {
        self.expirer.as_mut()
    }

    /// What has been applied; the renewals that this answers.
    pub fn applied(&mut self, change: LeaseChange, now: Instant) -> Vec<(W, Renewed)> {
        match change {
            LeaseChange::Granted(id, ttl) => {
                self.all.insert(id, (ttl, 0));
            }
            LeaseChange::Revoked(id) => {
                self.all.remove(&id);
            }
            LeaseChange::Checkpointed(id, left) => {
                if let Some(lease) = self.all.get_mut(&id) {
                    lease.1 = left;
                }
            }
        }
        if let Some(expirer) = &mut self.expirer {
            expirer.applied(change, now);
        }
        match change {
            LeaseChange::Revoked(id) => self.settle(id, true),
            LeaseChange::Checkpointed(id, 0) => self.settle(id, false),
            LeaseChange::Granted(..) | LeaseChange::Checkpointed(..) => Vec::new(),
        }
    }

    /// Nothing of `lease` has to be undone any more.
    fn settle(&mut self, lease: LeaseId, gone: bool) -> Vec<(W, Renewed)> {
        for held in &mut self.held {
            held.awaited.remove(&lease);
            if gone {
                held.leases
                    .iter_mut()
                    .filter(|(id, _)| *id == lease)
                    .for_each(|(_, seconds)| *seconds = None);
            }
        }
        self.held.extract_if(.., |held| held.awaited.is_empty()).map(Held::answer).collect()
    }

    /// Renews leases, on a leader. One that is over stays so, though its revocation may not have been applied yet.
    pub fn renew(&mut self, leases: &[LeaseId], waiter: W, deadline: Instant, now: Instant) -> Outcome<W> {
        let mut awaited = BTreeSet::new();
        let mut renewed = Vec::with_capacity(leases.len());
        for &id in leases {
            let seconds = match self.expirer.as_mut().map_or(Renewal::NotFound, |e| e.renew(id, now)) {
                Renewal::Renewed(ttl) => Some(ttl),
                Renewal::AfterCheckpoint(ttl) => {
                    awaited.insert(id);
                    Some(ttl)
                }
                Renewal::Ending | Renewal::NotFound => None,
            };
            renewed.push((id, seconds));
        }
        let undo = awaited.iter().map(|&id| (id, 0)).collect();
        let held = Held { waiter, leases: renewed, awaited, deadline };
        if held.awaited.is_empty() {
            return Outcome { answer: Some(held.answer()), undo };
        }
        self.held.push(held);
        Outcome { answer: None, undo }
    }

    /// Takes the renewals whose time is up.
    pub fn expire(&mut self, now: Instant) -> Vec<W> {
        self.held.extract_if(.., |held| held.deadline <= now).map(|held| held.waiter).collect()
    }
}
