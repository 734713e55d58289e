//! placeholder
use super::*;
use crate::{
    membership::Configuration,
    types::{Index, NodeId, Term},
};

/// A member of a raft cluster.
#[derive(Debug)]
pub struct Raft {}

#[allow(missing_docs, unused_variables)]
impl Raft {
    pub fn new(config: Config, restored: Restored) -> Result<Self, RestoreError> {
        unimplemented!()
    }
    pub fn step(&mut self, input: Input) -> Result<(), StepError> {
        unimplemented!()
    }
    pub fn poll_ready(&mut self) -> Option<Ready> {
        unimplemented!()
    }
    pub fn id(&self) -> NodeId {
        unimplemented!()
    }
    pub fn standing(&self) -> Standing {
        unimplemented!()
    }
    pub fn term(&self) -> Term {
        unimplemented!()
    }
    pub fn role(&self) -> RoleKind {
        unimplemented!()
    }
    pub fn leader(&self) -> Option<NodeId> {
        unimplemented!()
    }
    pub fn hard_state(&self) -> HardState {
        unimplemented!()
    }
    /// The newest index known committed.
    pub fn commit(&self) -> Index {
        unimplemented!()
    }
    pub fn applied(&self) -> Index {
        unimplemented!()
    }
    /// The newest index durable here.
    pub fn durable(&self) -> Index {
        unimplemented!()
    }
    pub fn first_index(&self) -> Index {
        unimplemented!()
    }
    pub fn last(&self) -> LogId {
        unimplemented!()
    }
    /// The term of the entry at `index`, if it is in memory or the log's base.
    pub fn term_at(&self, index: Index) -> Option<Term> {
        unimplemented!()
    }
    /// Bytes of entries in memory.
    pub fn log_bytes(&self) -> usize {
        unimplemented!()
    }
    pub fn configuration(&self) -> &Configuration {
        unimplemented!()
    }
    /// Empty unless leader.
    pub fn peers(&self) -> PeerStatuses {
        unimplemented!()
    }
    pub fn transferee(&self) -> Option<NodeId> {
        unimplemented!()
    }
}
