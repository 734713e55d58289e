//! The alarms that members have raised.

use std::collections::BTreeSet;

use super::{Alarm, AlarmAction, AlarmKind};
use crate::{
    error::Fault,
    lease::codec::{put_varint, take_varint},
    table::{Batch, Scan, Table, Tables},
    types::NodeId,
};

/// All alarms. In the table they are keys without values: etcd's `AlarmMember` (member 1, alarm 2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Alarms {
    active: BTreeSet<Alarm>,
}

impl Alarms {
    /// The alarms of the tables.
    pub fn load(tables: &impl Tables) -> Result<Self, Fault> {
        let mut active = BTreeSet::new();
        let mut broken = None;
        tables.scan(Table::Alarm, b"", None, &mut |key, _| match decode(key) {
            Some(alarm) => {
                active.insert(alarm);
                Scan::Continue
            }
            None => {
                broken = Some(key.to_vec());
                Scan::Stop
            }
        })?;
        match broken {
            None => Ok(Self { active }),
            Some(key) => Err(Fault::corrupt(format!(
                "the table {} holds an alarm that can't be read: {key:?}",
                Table::Alarm.name()
            ))),
        }
    }

    /// Whether any member has raised one of this kind.
    pub fn any(&self, kind: AlarmKind) -> bool {
        self.active.iter().any(|alarm| alarm.kind == kind)
    }

    /// Those of a kind, or all.
    pub fn get(&self, kind: AlarmKind) -> Vec<Alarm> {
        self.active.iter().filter(|alarm| kind == AlarmKind::None || alarm.kind == kind).copied().collect()
    }

    /// Does what is asked; the alarms that it concerned, and whether any was raised or taken back.
    pub fn act(&mut self, action: AlarmAction, alarm: Alarm, batch: &mut Batch) -> (Vec<Alarm>, bool) {
        match action {
            AlarmAction::Get => (self.get(alarm.kind), false),
            AlarmAction::Activate if alarm.kind == AlarmKind::None => (Vec::new(), false),
            AlarmAction::Activate => {
                let raised = self.active.insert(alarm);
                if raised {
                    batch.put(Table::Alarm, encode(alarm), Vec::new());
                }
                (vec![alarm], raised)
            }
            AlarmAction::Deactivate => {
                let gone = self.active.remove(&alarm);
                if gone {
                    batch.delete(Table::Alarm, encode(alarm));
                }
                (if gone { vec![alarm] } else { Vec::new() }, gone)
            }
        }
    }
}

fn encode(alarm: Alarm) -> Vec<u8> {
    let mut out = Vec::with_capacity(13);
    if alarm.member != NodeId(0) {
        out.push(1 << 3);
        put_varint(&mut out, alarm.member.0);
    }
    let kind: u64 = match alarm.kind {
        AlarmKind::None => 0,
        AlarmKind::NoSpace => 1,
        AlarmKind::Corrupt => 2,
    };
    if kind != 0 {
        out.push(2 << 3);
        put_varint(&mut out, kind);
    }
    out
}

fn decode(mut bytes: &[u8]) -> Option<Alarm> {
    let mut alarm = Alarm { member: NodeId(0), kind: AlarmKind::None };
    while !bytes.is_empty() {
        match take_varint(&mut bytes)? {
            8 => alarm.member = NodeId(take_varint(&mut bytes)?),
            16 => {
                alarm.kind = match take_varint(&mut bytes)? {
                    1 => AlarmKind::NoSpace,
                    2 => AlarmKind::Corrupt,
                    _ => return None,
                }
            }
            _ => return None,
        }
    }
    Some(alarm)
}
