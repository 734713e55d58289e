//! Cuts a failing plan down to the few events that matter: delta debugging over faults, clients and steps.
//!
//! A plan names what only the run can know, so whatever is left out of one leaves a plan. A cut is kept if the same
//! rule is still broken; whether by the same cause is for the reader to see, and rarely is it not.
//!
//! ```text
//!  calm sooner ─▶ fewer clients ─▶ fewer faults ─▶ fewer steps ─▶ plain knobs ─▶ plain steps ─┐
//!       ▲                                                                                     │
//!       └──────────────────────────── as long as something goes ◀─────────────────────────────┘
//! ```
//!
//! Left out: other seeds for the draws of a run (the order of tasks, delays). A plan's own seed stays.

mod ddmin;
mod plain;

use crate::{host::Micros, plan::Plan, plan::Step};

pub use self::ddmin::ddmin;

/// How many events a plan has: faults, and steps of clients.
pub fn events(plan: &Plan) -> usize {
    plan.faults.len() + plan.clients.iter().map(Vec::len).sum::<usize>()
}

/// What a plan has become, for who waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress<'a> {
    /// Which cuts are tried.
    pub pass: &'a str,
    /// Runs so far.
    pub runs: u64,
    /// Faults left.
    pub faults: usize,
    /// Steps left.
    pub steps: usize,
}

/// Shrinks one plan.
pub struct Shrinker<'a> {
    plan: Plan,
    /// Whether a plan still breaks the rule; none if there is no time left to try.
    fails: &'a mut dyn FnMut(&Plan) -> Option<bool>,
    tell: &'a mut dyn FnMut(Progress<'_>),
    runs: u64,
    out_of_time: bool,
}

/// The smallest plan found that still fails. `fails` runs a plan and gives none when the time is over; `tell` hears of
/// each step.
pub fn shrink(
    plan: Plan,
    fails: &mut dyn FnMut(&Plan) -> Option<bool>,
    tell: &mut dyn FnMut(Progress<'_>),
) -> Plan {
    let mut shrinker = Shrinker { plan, fails, tell, runs: 0, out_of_time: false };
    loop {
        let before = shrinker.plan.clone();
        shrinker.calm_sooner();
        shrinker.fewer_clients();
        shrinker.fewer_faults();
        shrinker.fewer_steps();
        shrinker.plain_knobs();
        if shrinker.out_of_time || shrinker.plan == before {
            break;
        }
    }
    shrinker.plain_events();
    shrinker.plan
}

impl Shrinker<'_> {
    /// Whether this plan fails too; it is kept then.
    fn take(&mut self, pass: &str, plan: Plan) -> Option<bool> {
        if self.out_of_time {
            return None;
        }
        self.runs += 1;
        let verdict = (self.fails)(&plan);
        match verdict {
            Some(true) => self.plan = plan,
            Some(false) => {}
            None => self.out_of_time = true,
        }
        let faults = self.plan.faults.len();
        let steps = events(&self.plan) - faults;
        (self.tell)(Progress { pass, runs: self.runs, faults, steps });
        verdict
    }

    /// The storm ends sooner, and with it what would have come after.
    fn calm_sooner(&mut self) {
        let mut low = 0;
        while let Some(calm_from) = middle(low, self.plan.calm_from) {
            match self.take("calm sooner", ends_at(&self.plan, calm_from)) {
                Some(true) => {}
                Some(false) => low = calm_from,
                None => return,
            }
        }
    }

    /// Clients keep their numbers, on which their draws depend: one that is left out does nothing.
    fn fewer_clients(&mut self) {
        let busy: Vec<usize> =
            (0..self.plan.clients.len()).filter(|n| !self.plan.clients[*n].is_empty()).collect();
        let plan = self.plan.clone();
        ddmin(busy, |kept| {
            let mut fewer = plan.clone();
            for (number, steps) in fewer.clients.iter_mut().enumerate() {
                if !kept.contains(&number) {
                    steps.clear();
                }
            }
            self.take("fewer clients", fewer)
        });
        let mut plan = self.plan.clone();
        while plan.clients.last().is_some_and(Vec::is_empty) {
            plan.clients.pop();
        }
        if plan != self.plan {
            self.take("fewer clients", plan);
        }
    }

    fn fewer_faults(&mut self) {
        let plan = self.plan.clone();
        ddmin(plan.faults.clone(), |kept| {
            self.take("fewer faults", Plan { faults: kept.to_vec(), ..plan.clone() })
        });
    }

    fn fewer_steps(&mut self) {
        let plan = self.plan.clone();
        let places = plan.clients.iter().enumerate();
        let all: Vec<(usize, usize)> =
            places.flat_map(|(client, steps)| (0..steps.len()).map(move |step| (client, step))).collect();
        ddmin(all, |kept| self.take("fewer steps", with_steps(&plan, kept)));
    }

    fn plain_knobs(&mut self) {
        for (name, change) in plain::CHANGES {
            let mut plan = self.plan.clone();
            change(&mut plan.knobs);
            if plan != self.plan {
                self.take(name, plan);
            }
        }
    }

    /// Options of faults and steps go, where it does without them.
    fn plain_events(&mut self) {
        for at in 0..self.plan.faults.len() {
            self.plainer(|plan| &mut plan.faults[at]);
        }
        for client in 0..self.plan.clients.len() {
            for at in 0..self.plan.clients[client].len() {
                self.plainer(|plan| &mut plan.clients[client][at]);
            }
        }
    }

    fn plainer<T>(&mut self, place: impl Fn(&mut Plan) -> &mut T)
    where
        T: serde::Serialize + serde::de::DeserializeOwned + PartialEq,
    {
        loop {
            let mut plan = self.plan.clone();
            let tries = plain::simpler(place(&mut plan));
            let mut changed = false;
            for simple in tries {
                let mut plan = self.plan.clone();
                *place(&mut plan) = simple;
                match self.take("plain events", plan) {
                    Some(true) => changed = true,
                    Some(false) => continue,
                    None => return,
                }
                break;
            }
            if !changed {
                return;
            }
        }
    }
}

/// The middle between two times, until they are close.
fn middle(low: Micros, high: Micros) -> Option<Micros> {
    (high > low + 200_000 && high > low + high / 16).then(|| low + (high - low) / 2)
}

/// The plan with its storm ending at a time: what would have begun later is left out.
fn ends_at(plan: &Plan, calm_from: Micros) -> Plan {
    let mut plan = Plan { calm_from, ..plan.clone() };
    plan.faults.retain(|fault| fault.at < calm_from);
    for steps in &mut plan.clients {
        // Waits alone take as long; calls take longer still.
        let mut at = 0;
        steps.retain(|step| {
            at += step.wait;
            at < calm_from
        });
    }
    plan
}

/// The plan with these steps of its clients alone. What stays begins as late as before: it waits for those before it.
fn with_steps(plan: &Plan, kept: &[(usize, usize)]) -> Plan {
    let mut plan = plan.clone();
    for (client, steps) in plan.clients.iter_mut().enumerate() {
        let mut waits = 0;
        let mut rest = Vec::new();
        for (at, step) in steps.drain(..).enumerate() {
            waits += step.wait;
            if kept.contains(&(client, at)) {
                rest.push(Step { wait: waits, ..step });
                waits = 0;
            }
        }
        *steps = rest;
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        plan::{Action, Fault, Who},
        swarm::Swarm,
    };

    /// A bug that needs a crash, a later compaction and a put by another client, and at least three members.
    fn buggy(plan: &Plan) -> bool {
        let crash = plan.faults.iter().find(|fault| matches!(fault.what, Fault::Crash { .. }));
        let starts = |steps: &[Step], wanted: fn(&Action) -> bool| {
            let mut at = 0;
            steps
                .iter()
                .filter_map(move |step| {
                    at += step.wait;
                    wanted(&step.action).then_some(at)
                })
                .collect::<Vec<_>>()
        };
        let after = |at: Micros| {
            let compacts: Vec<usize> = (0..plan.clients.len())
                .filter(|n| {
                    starts(&plan.clients[*n], |a| matches!(a, Action::Compact { .. })).iter().any(|t| *t > at)
                })
                .collect();
            let puts = |n: &usize| {
                (0..plan.clients.len()).any(|other| {
                    other != *n && !starts(&plan.clients[other], |a| matches!(a, Action::Put(_))).is_empty()
                })
            };
            compacts.iter().any(puts)
        };
        plan.knobs.members >= 3 && crash.is_some_and(|crash| after(crash.at))
    }

    fn failing() -> Plan {
        (0..)
            .map(|seed| Swarm::default().plan(seed))
            .find(|plan| buggy(plan) && events(plan) > 200)
            .expect("one of many")
    }

    #[test]
    fn only_what_matters_is_left() {
        let plan = failing();
        let before = events(&plan);
        let mut told = 0;
        let small = shrink(plan, &mut |plan| Some(buggy(plan)), &mut |_| told += 1);
        assert!(buggy(&small));
        assert_eq!(events(&small), 3, "of {before}: {small:?}");
        assert_eq!(small.knobs.members, 3);
        assert_eq!((small.knobs.drift_ppm, small.knobs.drawn_order), (0, false));
        assert!(matches!(
            small.faults[0].what,
            Fault::Crash { power: false, who: Who::At(_) | Who::Leader | Who::Follower | Who::Newest, .. }
        ));
        assert!(told > 10);
    }

    #[test]
    fn without_time_what_was_found_stays() {
        let plan = failing();
        let mut tries = 20;
        let small = shrink(
            plan.clone(),
            &mut |plan| {
                tries -= 1;
                (tries > 0).then(|| buggy(plan))
            },
            &mut |_| {},
        );
        assert!(buggy(&small) && events(&small) < events(&plan));
    }

    #[test]
    fn steps_that_stay_begin_when_they_did() {
        let plan = failing();
        let client = plan.clients.iter().position(|steps| steps.len() > 3).expect("a busy one");
        let fewer = with_steps(&plan, &[(client, 1), (client, 3)]);
        let waits = |steps: &[Step]| steps.iter().map(|step| step.wait).sum::<u64>();
        assert_eq!(fewer.clients[client].len(), 2);
        assert_eq!(waits(&fewer.clients[client]), waits(&plan.clients[client][..=3]));
    }
}
