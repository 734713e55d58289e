//! What faults are called, how long they last, and whom they hit.

use super::{Fault, Who};
use crate::host::Micros;

impl Fault {
    /// Its name, for reports.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Crash { power: false, .. } => "kill",
            Self::Crash { power: true, .. } => "power loss",
            Self::CrashInDisk { .. } => "power loss in a disk operation",
            Self::CrashAll { .. } => "all crash",
            Self::Pause { .. } => "pause",
            Self::Isolate { inbound: true, outbound: true, .. } => "isolation",
            Self::Isolate { .. } => "one-way isolation",
            Self::Split { .. } => "partition",
            Self::Seesaw { .. } => "leaders cut off in turn",
            Self::CutLink { .. } => "link cut",
            Self::Weather { .. } => "bad network",
            Self::Lag { .. } => "bad links",
            Self::Stall { .. } => "stalled disk",
            Self::DiskError { .. } => "disk error",
            Self::SlowDisk { .. } => "slow disk",
            Self::Rot { .. } => "rot",
            Self::Misdirect { .. } => "misdirected write",
            Self::ClockRate { .. } => "clock rate",
            Self::WallJump { .. } => "wall clock jump",
            Self::MoveLeader { .. } => "leader moved",
            Self::Replace { .. } => "member replaced",
            Self::Join { .. } => "member joined",
            Self::Leave { .. } => "member left",
            Self::Update { .. } => "member updated",
            Self::Hold { .. } => "messages held",
            Self::Rush { .. } => "rush of clients",
            Self::Trap { .. } => "fault at a moment",
        }
    }

    /// How long it lasts; 0 for what is done at once.
    pub const fn span(&self) -> Micros {
        match self {
            Self::Crash { down, .. }
            | Self::CrashInDisk { down, .. }
            | Self::CrashAll { down, .. }
            | Self::DiskError { down, .. }
            | Self::Rot { down, .. }
            | Self::Misdirect { down, .. }
            | Self::Replace { down, .. } => *down,
            Self::Pause { span, .. }
            | Self::Isolate { span, .. }
            | Self::Split { span, .. }
            | Self::CutLink { span, .. }
            | Self::Weather { span, .. }
            | Self::Lag { span, .. }
            | Self::Stall { span, .. }
            | Self::SlowDisk { span, .. }
            | Self::Hold { span, .. }
            | Self::Rush { span, .. }
            | Self::ClockRate { span, .. } => *span,
            Self::Seesaw { rounds, span, .. } => *span * *rounds as Micros,
            Self::WallJump { .. }
            | Self::MoveLeader { .. }
            | Self::Join { .. }
            | Self::Leave { .. }
            | Self::Update { .. }
            | Self::Trap { .. } => 0,
        }
    }

    /// The one member that it hits; none if it is not one member's.
    pub const fn who(&self) -> Option<Who> {
        match self {
            Self::Crash { who, .. }
            | Self::CrashInDisk { who, .. }
            | Self::Pause { who, .. }
            | Self::Isolate { who, .. }
            | Self::Hold { who, .. }
            | Self::Lag { who, .. }
            | Self::Stall { who, .. }
            | Self::DiskError { who, .. }
            | Self::SlowDisk { who, .. }
            | Self::Rot { who, .. }
            | Self::Misdirect { who, .. }
            | Self::ClockRate { who, .. }
            | Self::WallJump { who, .. }
            | Self::Replace { who, .. }
            | Self::Leave { who, .. }
            | Self::Update { who }
            | Self::Rush { who, .. } => Some(*who),
            Self::CrashAll { .. }
            | Self::Split { .. }
            | Self::Seesaw { .. }
            | Self::CutLink { .. }
            | Self::Weather { .. }
            | Self::MoveLeader { .. }
            | Self::Join { .. }
            | Self::Trap { .. } => None,
        }
    }
}
