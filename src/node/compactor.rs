//! `--auto-compaction-mode` and `--auto-compaction-retention`: when to compact, and up to where.
//!
//! Every member keeps its samples; only a leader proposes, so that a new leader knows the past.

use std::{collections::VecDeque, time::Duration};

use crate::types::{Instant, Revision};

/// What history is kept without anybody asking.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Retention {
    /// All of it.
    #[default]
    All,
    /// What is younger.
    Period(Duration),
    /// So many revisions.
    Revisions(i64),
}

/// etcd looks that often at the number of revisions.
const REVISIONS_EVERY_MS: u64 = 5 * 60 * 1000;

/// History that is kept for longer than this is cut once in so long.
const PERIOD_MAX_MS: u64 = 60 * 60 * 1000;

/// How many samples are taken between two cuts.
const SAMPLES: u64 = 10;

/// Says when to compact.
#[derive(Debug)]
pub struct Compactor {
    retention: Retention,
    /// What the revision was when, oldest first.
    samples: VecDeque<(Instant, Revision)>,
    next_cut: Instant,
    cut: Revision,
}

impl Compactor {
    /// One that starts at `now`.
    pub fn new(retention: Retention, now: Instant) -> Self {
        let mut compactor = Self { retention, samples: VecDeque::new(), next_cut: now, cut: Revision(0) };
        compactor.next_cut = now.after(compactor.cut_every_ms().unwrap_or(0));
        compactor
    }

    fn cut_every_ms(&self) -> Option<u64> {
        match self.retention {
            Retention::All => None,
            Retention::Period(period) => Some((period.as_millis() as u64).clamp(SAMPLES, PERIOD_MAX_MS)),
            Retention::Revisions(_) => Some(REVISIONS_EVERY_MS),
        }
    }

    /// How often [`Compactor::look`] wants to be called; None for never.
    pub fn every(&self) -> Option<Duration> {
        self.cut_every_ms().map(|ms| Duration::from_millis(ms / SAMPLES))
    }

    /// Looks at the store's revision; the revision to compact to, if it is time and this member leads.
    pub fn look(&mut self, now: Instant, revision: Revision, leads: bool) -> Option<Revision> {
        let every = self.cut_every_ms()?;
        let target = match self.retention {
            Retention::All => return None,
            Retention::Revisions(kept) => Revision(revision.0 - kept),
            Retention::Period(period) => {
                self.samples.push_back((now, revision));
                let period = period.as_millis() as u64;
                // The newest sample that is old enough is what may go.
                while self.samples.get(1).is_some_and(|(then, _)| now.since(*then) >= period) {
                    self.samples.pop_front();
                }
                let (then, oldest) = *self.samples.front()?;
                if now.since(then) < period {
                    return None;
                }
                oldest
            }
        };
        if now < self.next_cut || !leads || target <= self.cut || target.0 <= 0 {
            return None;
        }
        self.next_cut = now.after(every);
        self.cut = target;
        Some(target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(compactor: &mut Compactor, minutes: u64, revision: i64) -> Option<i64> {
        compactor.look(Instant(minutes * 60_000), Revision(revision), true).map(|r| r.0)
    }

    #[test]
    fn a_period_keeps_what_is_younger() {
        let mut compactor = Compactor::new(Retention::Period(Duration::from_secs(600)), Instant(0));
        assert_eq!(compactor.every(), Some(Duration::from_secs(60)));
        let cuts: Vec<_> =
            (0..=30).filter_map(|m| at(&mut compactor, m, 100 + m as i64).map(|r| (m, r))).collect();
        assert_eq!(cuts, [(10, 100), (20, 110), (30, 120)]);
    }

    #[test]
    fn a_period_of_hours_is_cut_each_hour() {
        let mut compactor = Compactor::new(Retention::Period(Duration::from_secs(3 * 3600)), Instant(0));
        let looks = (0..=360).step_by(6);
        let cuts: Vec<_> =
            looks.filter_map(|m| at(&mut compactor, m, m as i64 + 1).map(|r| (m, r))).collect();
        assert_eq!(cuts, [(180, 1), (240, 61), (300, 121), (360, 181)]);
    }

    #[test]
    fn revisions_are_counted_every_five_minutes() {
        let mut compactor = Compactor::new(Retention::Revisions(10), Instant(0));
        assert_eq!(at(&mut compactor, 4, 500), None);
        assert_eq!(at(&mut compactor, 5, 500), Some(490));
        assert_eq!(at(&mut compactor, 6, 600), None);
        assert_eq!(at(&mut compactor, 10, 500), None, "nothing new");
    }

    #[test]
    fn a_follower_keeps_samples_and_cuts_nothing() {
        let mut compactor = Compactor::new(Retention::Period(Duration::from_secs(600)), Instant(0));
        for minute in 0..20 {
            assert_eq!(compactor.look(Instant(minute * 60_000), Revision(minute as i64 + 1), false), None);
        }
        assert_eq!(at(&mut compactor, 20, 21), Some(11));
    }

    #[test]
    fn all_is_kept_by_default() {
        let mut compactor = Compactor::new(Retention::All, Instant(0));
        assert_eq!(compactor.every(), None);
        assert_eq!(at(&mut compactor, 1000, 1000), None);
    }
}
