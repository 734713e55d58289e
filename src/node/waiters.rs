//! Who waits for what: proposals by id, reads by round and by index.

use std::collections::BTreeMap;

use crate::{
    raft::ReadId,
    types::{Index, Instant, LeaseId, NodeId, Term},
};

/// Proposals that wait for their reply.
#[derive(Debug)]
pub(super) struct Proposals<W> {
    /// Each with when it came.
    by_id: BTreeMap<u64, (W, Instant)>,
    // Ids in the order of their deadlines: all wait equally long, so a queue is enough.
    deadlines: std::collections::VecDeque<(Instant, u64)>,
}

impl<W> Default for Proposals<W> {
    fn default() -> Self {
        Self { by_id: BTreeMap::new(), deadlines: Default::default() }
    }
}

impl<W> Proposals<W> {
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Waits for `id` until `deadline`, which never goes back. The one that waited under the same id, if any, is
    /// handed back.
    #[must_use]
    pub fn insert(&mut self, id: u64, waiter: W, now: Instant, deadline: Instant) -> Option<W> {
        self.deadlines.push_back((deadline, id));
        self.by_id.insert(id, (waiter, now)).map(|(older, _)| older)
    }

    pub fn waits(&self, id: u64) -> bool {
        self.by_id.contains_key(&id)
    }

    pub fn take(&mut self, id: u64) -> Option<W> {
        self.by_id.remove(&id).map(|(waiter, _)| waiter)
    }

    /// Takes those whose time is up, with their ids and when they came.
    pub fn expire(&mut self, now: Instant) -> Vec<(u64, W, Instant)> {
        let mut out = Vec::new();
        while let Some(&(deadline, id)) = self.deadlines.front() {
            // What was answered long ago goes too, so that the queue is not longer than what waits for long.
            if deadline > now && self.by_id.contains_key(&id) {
                break;
            }
            self.deadlines.pop_front();
            if deadline <= now {
                out.extend(self.by_id.remove(&id).map(|(waiter, since)| (id, waiter, since)));
            }
        }
        out
    }
}

/// What a read is for, once it is known to be fresh.
#[derive(Debug)]
pub(super) enum Purpose {
    /// The client reads by itself.
    Read,
    /// Renew the leases, if this member still leads in the term.
    Renew(Vec<LeaseId>, Term),
    /// Tell the lease's remaining time, likewise.
    Remaining(LeaseId, Term),
}

#[derive(Debug)]
pub(super) struct Reader<W> {
    pub waiter: W,
    pub purpose: Purpose,
    pub deadline: Instant,
}

/// Reads: those that came in while a round is under way form the next round.
#[derive(Debug)]
pub(super) struct Reads<W> {
    /// Came in after the newest round had started.
    next: Vec<Reader<W>>,
    /// The round under way, with when it was last asked.
    round: Option<Round<W>>,
    /// Confirmed; wait for the applied index.
    confirmed: BTreeMap<Index, Vec<Reader<W>>>,
    count: usize,
    ids: u64,
}

#[derive(Debug)]
struct Round<W> {
    /// All ids under which it was asked: any answer serves, each was asked after the readers had come.
    ids: Vec<ReadId>,
    /// None to ask at once.
    asked: Option<Instant>,
    readers: Vec<Reader<W>>,
}

impl<W> Default for Reads<W> {
    fn default() -> Self {
        Self { next: Vec::new(), round: None, confirmed: BTreeMap::new(), count: 0, ids: 0 }
    }
}

impl<W> Reads<W> {
    pub fn len(&self) -> usize {
        self.count
    }

    pub fn push(&mut self, reader: Reader<W>) {
        self.count += 1;
        self.next.push(reader);
    }

    /// The id to ask raft under now, if there is something to ask: a new round, or an old one unanswered for
    /// `retry_ms`.
    pub fn ask(&mut self, now: Instant, retry_ms: u64) -> Option<ReadId> {
        let due = match &self.round {
            None => !self.next.is_empty(),
            Some(round) => round.asked.is_none_or(|asked| now.since(asked) >= retry_ms),
        };
        if !due {
            return None;
        }
        self.ids += 1;
        let id = ReadId(self.ids);
        match &mut self.round {
            None => {
                let readers = std::mem::take(&mut self.next);
                self.round = Some(Round { ids: vec![id], asked: Some(now), readers });
            }
            Some(round) => {
                round.ids.push(id);
                round.asked = Some(now);
            }
        }
        Some(id)
    }

    /// Raft lost the question, with its leader: it is asked anew at once.
    pub fn dropped(&mut self, id: ReadId) {
        if let Some(round) = self.round.as_mut().filter(|r| r.ids.last() == Some(&id)) {
            round.asked = None;
        }
    }

    /// Raft did not take the question: it is asked anew after the retry time.
    pub fn refused(&mut self, id: ReadId) {
        if let Some(round) = &mut self.round {
            round.ids.retain(|asked| *asked != id);
        }
    }

    /// There is another leader: what is under way is asked anew at once.
    pub fn ask_again(&mut self) {
        if let Some(round) = &mut self.round {
            round.asked = None;
        }
    }

    /// The leader confirmed the round `id`, which may be read from `index` on.
    pub fn confirm(&mut self, id: ReadId, index: Index) {
        if self.round.as_ref().is_some_and(|r| r.ids.contains(&id))
            && let Some(round) = self.round.take()
        {
            self.confirmed.entry(index).or_default().extend(round.readers);
        }
    }

    /// Takes the readers that `applied` suffices for.
    pub fn ready(&mut self, applied: Index) -> Vec<Reader<W>> {
        let mut out = Vec::new();
        while let Some(entry) = self.confirmed.first_entry() {
            if *entry.key() > applied {
                break;
            }
            out.extend(entry.remove());
        }
        self.count -= out.len();
        out
    }

    /// Takes those whose time is up.
    pub fn expire(&mut self, now: Instant) -> Vec<Reader<W>> {
        let mut out = Vec::new();
        let mut sift = |readers: &mut Vec<Reader<W>>| {
            out.extend(readers.extract_if(.., |r| r.deadline <= now));
        };
        sift(&mut self.next);
        if let Some(round) = &mut self.round {
            sift(&mut round.readers);
            if round.readers.is_empty() {
                self.round = None;
            }
        }
        for readers in self.confirmed.values_mut() {
            sift(readers);
        }
        self.confirmed.retain(|_, readers| !readers.is_empty());
        self.count -= out.len();
        out
    }
}

/// A hand-over of leadership that somebody waits for.
#[derive(Debug)]
pub(super) struct Transfer<W> {
    pub to: NodeId,
    pub waiter: W,
    pub deadline: Instant,
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETRY_MS: u64 = 500;

    fn push(reads: &mut Reads<char>, waiter: char, deadline: u64) {
        reads.push(Reader { waiter, purpose: Purpose::Read, deadline: Instant(deadline) });
    }

    fn ask(reads: &mut Reads<char>, now: u64) -> Option<ReadId> {
        reads.ask(Instant(now), RETRY_MS)
    }

    fn waiters(readers: Vec<Reader<char>>) -> Vec<char> {
        readers.into_iter().map(|reader| reader.waiter).collect()
    }

    fn ready(reads: &mut Reads<char>, applied: u64) -> Vec<char> {
        waiters(reads.ready(Index(applied)))
    }

    #[test]
    fn a_question_is_put_again_once_it_is_lost_or_late() {
        let mut reads = Reads::default();
        assert_eq!(ask(&mut reads, 0), None, "nobody wants to know");
        push(&mut reads, 'a', 9000);
        let first = ask(&mut reads, 0).expect("a new round");
        push(&mut reads, 'b', 9000);
        assert_eq!(ask(&mut reads, 499), None);
        let second = ask(&mut reads, 500).expect("late");
        assert_ne!(first, second);
        reads.dropped(first);
        assert_eq!(ask(&mut reads, 501), None, "the second is still under way");
        reads.dropped(second);
        let third = ask(&mut reads, 501).expect("lost");
        assert_eq!(ask(&mut reads, 502), None);
        reads.refused(third);
        assert_eq!(ask(&mut reads, 1000), None, "refused a moment ago");
        reads.ask_again();
        let fourth = ask(&mut reads, 1000).expect("another leader");
        assert_eq!(ask(&mut reads, 1499), None);
        // Any answer serves, but there is none to what was refused; who came later waits for the next round.
        reads.confirm(third, Index(3));
        assert_eq!(ready(&mut reads, 9), vec![]);
        reads.confirm(first, Index(3));
        assert_eq!(ready(&mut reads, 2), vec![]);
        assert_eq!(ready(&mut reads, 3), ['a']);
        assert_eq!(reads.len(), 1);
        let next = ask(&mut reads, 1001).expect("a new round");
        reads.confirm(fourth, Index(4));
        assert_eq!(ready(&mut reads, 9), vec![]);
        reads.confirm(next, Index(4));
        assert_eq!(ready(&mut reads, 9), ['b']);
        assert_eq!((reads.len(), ask(&mut reads, 9999)), (0, None));
    }

    #[test]
    fn time_is_up_wherever_a_read_waits() {
        let mut reads = Reads::default();
        push(&mut reads, 'a', 10);
        push(&mut reads, 'b', 20);
        let first = ask(&mut reads, 0).expect("a new round");
        reads.confirm(first, Index(5));
        push(&mut reads, 'c', 20);
        push(&mut reads, 'd', 30);
        ask(&mut reads, 0).expect("a new round");
        push(&mut reads, 'e', 20);
        push(&mut reads, 'f', 40);
        assert_eq!((waiters(reads.expire(Instant(9))), reads.len()), (vec![], 6));
        assert_eq!((waiters(reads.expire(Instant(10))), reads.len()), (vec!['a'], 5));
        assert_eq!((waiters(reads.expire(Instant(20))), reads.len()), (vec!['e', 'c', 'b'], 2));
        assert_eq!(ready(&mut reads, 9), vec![]);
        // A round without readers is over.
        assert_eq!(ask(&mut reads, 29), None);
        assert_eq!((waiters(reads.expire(Instant(30))), reads.len()), (vec!['d'], 1));
        let last = ask(&mut reads, 30).expect("a new round");
        reads.confirm(last, Index(7));
        assert_eq!((ready(&mut reads, 7), reads.len()), (vec!['f'], 0));
    }

    #[test]
    fn proposals_wait_until_they_are_answered_or_late() {
        let mut proposals = Proposals::default();
        for (id, since) in [(1, 0), (2, 5), (3, 5)] {
            assert_eq!(proposals.insert(id, "first", Instant(since), Instant(since + 10)), None);
        }
        assert_eq!(proposals.insert(3, "second", Instant(6), Instant(16)), Some("first"));
        assert_eq!((proposals.len(), proposals.waits(1), proposals.waits(4)), (3, true, false));
        assert_eq!(proposals.take(2), Some("first"));
        assert_eq!(proposals.take(2), None);
        assert_eq!(proposals.expire(Instant(9)), []);
        assert_eq!(proposals.expire(Instant(10)), [(1, "first", Instant(0))]);
        // At the time of the one that it replaced; both came from one client with one id.
        assert_eq!(proposals.expire(Instant(15)), [(3, "second", Instant(6))]);
        assert_eq!((proposals.len(), proposals.expire(Instant(99))), (0, vec![]));
        // What was answered leaves the queue although its time has not come.
        assert_eq!(proposals.insert(5, "answered", Instant(20), Instant(30)), None);
        assert_eq!(proposals.take(5), Some("answered"));
        assert_eq!((proposals.expire(Instant(20)), proposals.deadlines.len()), (vec![], 0));
    }
}
