//! Real time against revisions: what had been seen when.

use crate::history::{History, Micros, Op};

/// The newest revision that anyone had seen at each time. A revision that someone saw is committed, so nothing that
/// starts later may be before it.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// By time, each with a higher revision than those before, and the call or watch that saw it.
    steps: Vec<(Micros, i64, By)>,
}

/// Who saw a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// A call, by its id.
    Op(u64),
    /// A watch, by its id.
    Watch(u64),
}

impl Seen {
    /// From all answers and all watches' responses.
    pub fn of(history: &History) -> Self {
        let mut all: Vec<(Micros, i64, By)> = Vec::with_capacity(history.ops.len());
        for op in &history.ops {
            if let (Some(end), Some(revision)) = (op.end, revision_of(op)) {
                all.push((end, revision, By::Op(op.id)));
            }
        }
        for watch in &history.watches {
            for (at, response) in &watch.responses {
                if let Some(header) = &response.header {
                    all.push((*at, header.revision, By::Watch(watch.id)));
                }
            }
        }
        all.sort_by_key(|(at, revision, _)| (*at, *revision));
        let mut steps: Vec<(Micros, i64, By)> = Vec::new();
        for step in all {
            if steps.last().is_none_or(|last| last.1 < step.1) {
                steps.push(step);
            }
        }
        Self { steps }
    }

    /// The newest revision that anyone saw before `at`, and who did; none if nobody had seen any.
    pub fn before(&self, at: Micros) -> Option<(i64, By)> {
        let end = self.steps.partition_point(|step| step.0 < at);
        self.steps[..end].last().map(|(_, revision, by)| (*revision, *by))
    }

    /// The newest revision that anyone saw before `at`, or 0.
    pub fn floor(&self, at: Micros) -> i64 {
        self.before(at).map_or(0, |(revision, _)| revision)
    }

    /// When `revision`, or one after it, was first seen; none if it never was.
    pub fn first(&self, revision: i64) -> Option<Micros> {
        let at = self.steps.partition_point(|step| step.1 < revision);
        self.steps.get(at).map(|step| step.0)
    }

    /// The newest revision that anyone ever saw, or 0.
    pub fn last(&self) -> i64 {
        self.steps.last().map_or(0, |step| step.1)
    }
}

/// The revision in an answer's header; none for answers without one.
pub fn revision_of(op: &Op) -> Option<i64> {
    let header = op.outcome.reply()?.header()?;
    (header.revision > 0).then_some(header.revision)
}
