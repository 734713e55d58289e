//! Voters, learners and joint configurations, and the legal ways from one to the next.

use std::collections::BTreeSet;

use thiserror::Error;

use super::{Change, ChangeKind, ChangeStep, JointQuorum, Transition};
use crate::types::NodeId;

/// Why a change can't be made to a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// Only a configuration that is not joint can be changed.
    #[error("the configuration is joint; it must be left first")]
    Joint,
    /// There is no joint configuration to leave.
    #[error("the configuration is not joint")]
    NotJoint,
    /// More than one voter would change without a joint configuration in between.
    #[error("more than one voter would change at once without a joint configuration")]
    TooManyVoters,
    /// Nobody could decide anything any more.
    #[error("no voter would be left")]
    NoVoters,
    /// A member is listed in parts that exclude each other, or a part is there that needs another.
    #[error("the configuration contradicts itself at member {0}")]
    Contradiction(NodeId),
}

/// Who votes and who learns. While `outgoing` holds anybody it is joint: elections and commits need a majority
/// of `incoming` and one of `outgoing` (Raft section 6).
///
/// Invariants: a learner is no voter of either half; those of `learners_next` are voters of `outgoing` and not
/// of `incoming`; without `outgoing` there are no `learners_next` and no `auto_leave`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configuration {
    incoming: BTreeSet<NodeId>,
    outgoing: BTreeSet<NodeId>,
    learners: BTreeSet<NodeId>,
    learners_next: BTreeSet<NodeId>,
    auto_leave: bool,
}

impl Configuration {
    /// A configuration of these parts, if they agree with each other. All parts may be empty: a member that
    /// joins knows nobody.
    pub fn new(
        incoming: BTreeSet<NodeId>,
        outgoing: BTreeSet<NodeId>,
        learners: BTreeSet<NodeId>,
        learners_next: BTreeSet<NodeId>,
        auto_leave: bool,
    ) -> Result<Self, ConfigError> {
        let config = Self { incoming, outgoing, learners, learners_next, auto_leave };
        config.check()?;
        Ok(config)
    }

    /// A configuration of voters alone.
    pub fn of_voters(voters: impl IntoIterator<Item = NodeId>) -> Self {
        Self { incoming: voters.into_iter().collect(), ..Self::default() }
    }

    fn check(&self) -> Result<(), ConfigError> {
        let nobody = NodeId(0);
        let mut all = self.members();
        if all.any(|id| id == nobody) {
            return Err(ConfigError::Contradiction(nobody));
        }
        for &id in &self.learners {
            if self.incoming.contains(&id) || self.outgoing.contains(&id) || self.learners_next.contains(&id)
            {
                return Err(ConfigError::Contradiction(id));
            }
        }
        for &id in &self.learners_next {
            if self.incoming.contains(&id) || !self.outgoing.contains(&id) {
                return Err(ConfigError::Contradiction(id));
            }
        }
        if self.outgoing.is_empty() && self.auto_leave {
            return Err(ConfigError::NotJoint);
        }
        if self.incoming.is_empty() && !self.outgoing.is_empty() {
            return Err(ConfigError::NoVoters);
        }
        Ok(())
    }

    /// The voters; of the half to come while it is joint.
    pub fn incoming(&self) -> &BTreeSet<NodeId> {
        &self.incoming
    }

    /// The voters of the half to be left; empty unless joint.
    pub fn outgoing(&self) -> &BTreeSet<NodeId> {
        &self.outgoing
    }

    /// The learners.
    pub fn learners(&self) -> &BTreeSet<NodeId> {
        &self.learners
    }

    /// Who becomes a learner when the joint configuration is left.
    pub fn learners_next(&self) -> &BTreeSet<NodeId> {
        &self.learners_next
    }

    /// Whether the leader leaves the joint configuration by itself.
    pub fn auto_leave(&self) -> bool {
        self.auto_leave
    }

    /// Whether it is joint.
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Whether `id` votes in either half.
    pub fn is_voter(&self, id: NodeId) -> bool {
        self.incoming.contains(&id) || self.outgoing.contains(&id)
    }

    /// Whether `id` is a learner now.
    pub fn is_learner(&self, id: NodeId) -> bool {
        self.learners.contains(&id)
    }

    /// Whether `id` is in it at all.
    pub fn contains(&self, id: NodeId) -> bool {
        self.is_voter(id) || self.is_learner(id)
    }

    /// Everybody in it, ascending, each once.
    pub fn members(&self) -> impl Iterator<Item = NodeId> + use<> {
        let mut all = self.voters();
        all.extend(&self.learners);
        all.extend(&self.learners_next);
        all.into_iter()
    }

    /// The voters of both halves, each once.
    pub fn voters(&self) -> BTreeSet<NodeId> {
        self.incoming.union(&self.outgoing).copied().collect()
    }

    /// What counts as a quorum of it.
    pub fn quorum(&self) -> JointQuorum<'_> {
        JointQuorum { incoming: &self.incoming, outgoing: &self.outgoing }
    }

    /// The configuration after `change`, as every member works it out when it applies the entry.
    pub fn apply(&self, change: &Change) -> Result<Self, ConfigError> {
        match change {
            Change::Single { id: _, step, context: _ } => self.simple(&[*step]),
            Change::Joint { transition, steps, context: _ } => match transition {
                Transition::Auto if steps.is_empty() => self.leave_joint(),
                Transition::Auto if steps.len() == 1 => self.simple(steps),
                Transition::Auto | Transition::JointImplicit => self.enter_joint(true, steps),
                Transition::JointExplicit => self.enter_joint(false, steps),
            },
        }
    }

    /// Changes at most one voter, and any number of learners, in one go: any two majorities of before and
    /// after overlap (thesis section 4.1).
    pub fn simple(&self, steps: &[ChangeStep]) -> Result<Self, ConfigError> {
        if self.is_joint() {
            return Err(ConfigError::Joint);
        }
        let mut next = self.clone();
        steps.iter().for_each(|step| next.step(*step));
        if self.incoming.symmetric_difference(&next.incoming).count() > 1 {
            return Err(ConfigError::TooManyVoters);
        }
        // Steps that name nobody change nothing, also where there is nobody yet.
        if next.incoming.is_empty() && next != *self {
            return Err(ConfigError::NoVoters);
        }
        next.check()?;
        Ok(next)
    }

    /// Goes to the joint configuration between this one and the one after `steps`.
    pub fn enter_joint(&self, auto_leave: bool, steps: &[ChangeStep]) -> Result<Self, ConfigError> {
        if self.is_joint() {
            return Err(ConfigError::Joint);
        }
        if self.incoming.is_empty() {
            return Err(ConfigError::NoVoters);
        }
        let mut next = Self { outgoing: self.incoming.clone(), auto_leave, ..self.clone() };
        steps.iter().for_each(|step| next.step(*step));
        next.check()?;
        Ok(next)
    }

    /// Drops the outgoing half.
    pub fn leave_joint(&self) -> Result<Self, ConfigError> {
        if !self.is_joint() {
            return Err(ConfigError::NotJoint);
        }
        let mut next = self.clone();
        next.outgoing.clear();
        next.auto_leave = false;
        next.learners.append(&mut next.learners_next);
        next.check()?;
        Ok(next)
    }

    fn step(&mut self, step: ChangeStep) {
        let id = step.node;
        if id == NodeId(0) {
            return;
        }
        match step.kind {
            ChangeKind::AddVoter => {
                self.forget(id);
                self.incoming.insert(id);
            }
            ChangeKind::AddLearner => {
                self.forget(id);
                // One that still votes in the outgoing half can't be a learner before that half is left.
                if self.outgoing.contains(&id) {
                    self.learners_next.insert(id);
                } else {
                    self.learners.insert(id);
                }
            }
            ChangeKind::Remove => self.forget(id),
            ChangeKind::Update => {}
        }
    }

    fn forget(&mut self, id: NodeId) {
        self.incoming.remove(&id);
        self.learners.remove(&id);
        self.learners_next.remove(&id);
    }
}
