//! Why a member stops, told once from wherever it is noticed.

use tokio::sync::mpsc;

use crate::error::Fault;

/// Why a member stopped.
#[derive(Debug)]
pub enum Exit {
    /// It was asked to.
    Stopped,
    /// It was removed from its cluster.
    Removed,
    /// Something failed that can't be a reply.
    Fault(Fault),
}

/// Where to tell it. The first one counts.
#[derive(Clone, Debug)]
pub(super) struct Exits(mpsc::UnboundedSender<Exit>);

impl Exits {
    pub fn new() -> (Self, mpsc::UnboundedReceiver<Exit>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(sender), receiver)
    }

    pub fn tell(&self, exit: Exit) {
        // Nobody listens any more once the first one has been heard.
        let _ = self.0.send(exit);
    }

    /// Passes a value on, or tells the fault.
    pub fn check<T>(&self, result: Result<T, Fault>) -> Option<T> {
        result.map_err(|fault| self.tell(Exit::Fault(fault))).ok()
    }
}
