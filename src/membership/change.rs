//! Changes of the configuration, as entries of the log carry them.

use bytes::Bytes;

use crate::types::NodeId;

/// What one step of a change does to one member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// Makes it a voter.
    AddVoter,
    /// Takes it out.
    Remove,
    /// Leaves the configuration as it is: the roster's data of the member change.
    Update,
    /// Makes it a learner.
    AddLearner,
}

/// One step of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChangeStep {
    /// What it does.
    pub kind: ChangeKind,
    /// To whom; node 0 makes the step a no-op.
    pub node: NodeId,
}

/// How a change of several steps goes through a joint configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transition {
    /// Joint only if there is more than one step; left by itself.
    #[default]
    Auto,
    /// Joint, left by itself.
    JointImplicit,
    /// Joint, left by an explicit (empty) change.
    JointExplicit,
}

/// A change of the configuration. In the log, `Single` is etcd's `ConfChange` and `Joint` its `ConfChangeV2`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// One step; what etcd's servers write.
    Single {
        /// The proposer's id of the request; 0 for bootstrap entries.
        id: u64,
        /// The step.
        step: ChangeStep,
        /// The roster's part, opaque to raft: etcd's JSON.
        context: Bytes,
    },
    /// Any number of steps; none at all leaves a joint configuration.
    Joint {
        /// How it goes.
        transition: Transition,
        /// The steps.
        steps: Vec<ChangeStep>,
        /// The roster's part, opaque to raft.
        context: Bytes,
    },
}
