//! What raft does not take at its word: stored logs and peers' messages.

use super::{Body, Entry, LogId, RestoreError};
use crate::types::{Index, Term};

/// Above any term or index that a cluster can reach; a message with more is malformed, and adding to one with
/// less never overflows.
const NUMBER_MAX: u64 = u64::MAX / 4;

/// The end of a log of these entries, if it is one log.
pub(super) fn check_log(base: LogId, entries: &[Entry]) -> Result<LogId, RestoreError> {
    entries.iter().try_fold(base, |last, entry| {
        if entry.index != last.index.next() || entry.term < last.term {
            return Err(RestoreError::Log(entry.index));
        }
        Ok(LogId { term: entry.term, index: entry.index })
    })
}

/// What no correct member would send, whatever its state.
pub(super) fn defect(term: Term, body: &Body) -> Option<&'static str> {
    if term.0 > NUMBER_MAX {
        return Some("its term is out of range");
    }
    match body {
        Body::Append { prev, entries, commit: _ } => {
            let mut last = *prev;
            if last.index.0 > NUMBER_MAX {
                return Some("its index is out of range");
            }
            for entry in entries {
                if entry.index != last.index.next() || entry.term < last.term || entry.term > term {
                    return Some("its entries are not one log");
                }
                last = LogId { term: entry.term, index: entry.index };
            }
        }
        Body::Snapshot(snapshot) => {
            let last = snapshot.meta.last;
            if last.index.0 > NUMBER_MAX || last.term > term || last.index == Index(0) {
                return Some("its snapshot's index or term is out of range");
            }
        }
        Body::Propose { payloads: _ }
        | Body::ReadIndex { context: _ }
        | Body::TransferLeader { target: _ } => {
            return None;
        }
        Body::AppendAccepted { matched: Index(number) }
        | Body::AppendRejected { prev: Index(number), hint: _ }
        | Body::ReadIndexReply { index: Index(number), context: _ } => {
            if *number > NUMBER_MAX {
                return Some("its index is out of range");
            }
        }
        Body::Vote { .. }
        | Body::VoteReply { .. }
        | Body::Heartbeat { .. }
        | Body::HeartbeatReply { .. }
        | Body::TimeoutNow => {}
    }
    (term == Term(0)).then_some("it has no term")
}
