//! What a leader knows of one peer, and what that lets it send.

use std::collections::VecDeque;

use super::{Config, PeerState, PeerStatus};
use crate::types::Index;

/// How appends go to a peer.
#[derive(Debug)]
pub(super) enum Pace {
    /// One append, then silence until it is answered or a heartbeat is.
    Probe {
        /// Whether the append is under way.
        waiting: bool,
    },
    /// A pipeline; `next` runs ahead of what is acknowledged.
    Replicate {
        /// The last index and the size of each append with entries that is under way.
        inflight: VecDeque<(Index, usize)>,
        bytes: usize,
    },
    /// Nothing. The snapshot's index, once it has been built.
    Snapshot { sent: Option<Index>, ticks: u64 },
}

#[derive(Debug)]
pub(super) struct Progress {
    pub matched: Index,
    pub next: Index,
    pub pace: Pace,
    pub recent_active: bool,
    /// The commit index in the last append.
    pub sent_commit: Index,
    /// Whether an append is due even without entries, to see whether any got lost.
    pub poke: bool,
    /// The newest read round that the peer confirmed.
    pub round: u64,
}

impl Progress {
    pub fn new(next: Index, recent_active: bool) -> Self {
        Self {
            matched: Index(0),
            next,
            pace: Pace::Probe { waiting: false },
            recent_active,
            sent_commit: Index(0),
            poke: false,
            round: 0,
        }
    }

    pub fn probe(&mut self, waiting: bool) {
        let sent = match self.pace {
            Pace::Snapshot { sent, ticks: _ } => sent.unwrap_or_default(),
            Pace::Probe { .. } | Pace::Replicate { .. } => Index(0),
        };
        self.next = self.matched.max(sent).next();
        self.sent_commit = Index(0);
        self.pace = Pace::Probe { waiting };
    }

    fn replicate(&mut self) {
        self.next = self.matched.next();
        self.pace = Pace::Replicate { inflight: VecDeque::new(), bytes: 0 };
    }

    pub fn await_snapshot(&mut self) {
        self.pace = Pace::Snapshot { sent: None, ticks: 0 };
    }

    /// An append was accepted up to `matched`. `base` is where this leader's log begins.
    pub fn accepted(&mut self, matched: Index, base: Index) {
        let news = matched > self.matched;
        // An empty probe's answer brings no news but that the place was right.
        let probed = matched.next() == self.next;
        self.matched = self.matched.max(matched);
        self.next = self.next.max(self.matched.next());
        match &mut self.pace {
            Pace::Probe { .. } if news || probed => self.replicate(),
            Pace::Snapshot { .. } if news && self.matched >= base => self.replicate(),
            Pace::Probe { .. } | Pace::Snapshot { .. } => {}
            Pace::Replicate { inflight, bytes } => {
                while let Some((_, size)) = inflight.pop_front_if(|(last, _)| *last <= matched) {
                    *bytes -= size;
                }
            }
        }
    }

    /// The append behind `prev` was rejected; the logs agree at most at `agree`.
    pub fn rejected(&mut self, prev: Index, agree: Index) {
        match self.pace {
            Pace::Replicate { .. } if prev > self.matched => self.probe(false),
            Pace::Probe { .. } if prev.next() == self.next => {
                self.next = prev.min(agree.next()).max(self.matched.next());
                self.pace = Pace::Probe { waiting: false };
            }
            // A late answer, to an append before the ones that count.
            Pace::Replicate { .. } | Pace::Probe { .. } | Pace::Snapshot { .. } => {}
        }
    }

    /// The peer answered a heartbeat: it is there, and what was sent before has arrived or is lost.
    pub fn alive(&mut self, last: Index) {
        self.recent_active = true;
        match &mut self.pace {
            Pace::Probe { waiting } => *waiting = false,
            Pace::Replicate { .. } => self.poke = self.matched < last,
            Pace::Snapshot { .. } => {}
        }
    }

    /// Whether the pipeline takes no more entries.
    pub fn is_full(&self, config: &Config) -> bool {
        match &self.pace {
            Pace::Replicate { inflight, bytes } => {
                inflight.len() >= config.inflight_max || *bytes >= config.inflight_bytes_max
            }
            Pace::Probe { .. } | Pace::Snapshot { .. } => false,
        }
    }

    /// Entries up to `last` are on their way.
    pub fn sent(&mut self, last: Index, size: usize) {
        match &mut self.pace {
            Pace::Probe { waiting } => *waiting = true,
            Pace::Replicate { inflight, bytes } => {
                if size > 0 {
                    inflight.push_back((last, size));
                    *bytes += size;
                }
                self.next = last.next();
            }
            Pace::Snapshot { .. } => {}
        }
    }

    pub fn status(&self) -> PeerStatus {
        let (state, inflight) = match &self.pace {
            Pace::Probe { .. } => (PeerState::Probe, 0),
            Pace::Replicate { inflight, bytes: _ } => (PeerState::Replicate, inflight.len()),
            Pace::Snapshot { .. } => (PeerState::Snapshot, 0),
        };
        PeerStatus {
            matched: self.matched,
            next: self.next,
            state,
            recent_active: self.recent_active,
            inflight,
        }
    }
}
