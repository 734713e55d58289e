//! What runs reached: pairs of what was done and how things stood, and which pairs nothing ever reached.
//!
//! A simulator's blind spot is its generator, so each table knows all its rows and columns beforehand; an empty cell
//! is a combination that no seed tried. It is read from a run's history, and has no part in its hash.

use std::collections::{BTreeMap, BTreeSet};

use kontiki::{error::Refusal, wire::etcdserverpb as pb};
use serde::{Deserialize, Serialize};

use crate::{
    history::{Call, History, Op, Outcome, WatchLog},
    plan::Plan,
};

/// A table's rows and columns.
struct Table {
    name: &'static str,
    rows: &'static [&'static str],
    columns: &'static [&'static str],
    /// Cells that can't be.
    never: &'static [(&'static str, &'static str)],
}

const CALLS: [&str; 12] = [
    "Range",
    "Put",
    "DeleteRange",
    "Txn",
    "Compact",
    "LeaseGrant",
    "LeaseRevoke",
    "LeaseKeepAlive",
    "LeaseTimeToLive",
    "LeaseLeases",
    "HashKv",
    "Defragment",
];

/// Calls about users and roles, and to the lock and election services, which fail without a code.
const OTHER_CALLS: [&str; 23] = [
    "AuthEnable",
    "AuthDisable",
    "AuthStatus",
    "Authenticate",
    "UserAdd",
    "UserGet",
    "UserList",
    "UserDelete",
    "UserChangePassword",
    "UserGrantRole",
    "UserRevokeRole",
    "RoleAdd",
    "RoleGet",
    "RoleList",
    "RoleDelete",
    "RoleGrantPermission",
    "RoleRevokePermission",
    "Lock",
    "Unlock",
    "Campaign",
    "Proclaim",
    "Leader",
    "Resign",
];

const FAULTS: [&str; 27] = [
    "kill",
    "power loss",
    "power loss in a disk operation",
    "all crash",
    "pause",
    "isolation",
    "one-way isolation",
    "partition",
    "leaders cut off in turn",
    "link cut",
    "bad network",
    "bad links",
    "stalled disk",
    "disk error",
    "slow disk",
    "rot",
    "misdirected write",
    "clock rate",
    "wall clock jump",
    "leader moved",
    "member replaced",
    "member joined",
    "member left",
    "member updated",
    "messages held",
    "rush of clients",
    "fault at a moment",
];

/// Those of one member.
const TARGETED: [&str; 19] = [
    "kill",
    "power loss",
    "power loss in a disk operation",
    "pause",
    "isolation",
    "one-way isolation",
    "stalled disk",
    "disk error",
    "slow disk",
    "rot",
    "misdirected write",
    "clock rate",
    "wall clock jump",
    "member replaced",
    "member left",
    "member updated",
    "messages held",
    "bad links",
    "rush of clients",
];

const TABLES: [Table; 8] = [
    Table {
        name: "ranges by option and outcome",
        rows: &[
            "one key",
            "interval",
            "from a key",
            "everything",
            "now",
            "past",
            "future",
            "limit",
            "sorted",
            "serializable",
            "keys only",
            "count only",
            "mod bounds",
            "create bounds",
        ],
        columns: &["ok", "refused", "unknown"],
        // That it lies ahead is known from the refusal.
        never: &[("future", "ok"), ("future", "unknown")],
    },
    Table {
        name: "writes by option and outcome",
        rows: &[
            "put",
            "put on a lease",
            "put prev_kv",
            "put ignore_value",
            "put ignore_lease",
            "put of 10 kB",
            "delete one key",
            "delete interval",
            "delete prev_kv",
            "txn without guards",
            "txn guards held",
            "txn guards failed",
            "txn of ranges only",
            "txn with puts",
            "txn with deletes",
            "txn nested",
            "compact",
            "compact physical",
        ],
        columns: &["ok", "refused", "unknown"],
        never: &[
            ("txn guards held", "refused"),
            ("txn guards held", "unknown"),
            ("txn guards failed", "refused"),
            ("txn guards failed", "unknown"),
        ],
    },
    Table {
        name: "calls by outcome",
        rows: &CALLS,
        columns: &["ok", "refused", "unknown"],
        never: &[("LeaseLeases", "refused"), ("Defragment", "refused")],
    },
    Table { name: "calls while a fault lasts", rows: &CALLS, columns: &FAULTS, never: &[] },
    Table {
        name: "watches by start and what came",
        rows: &[
            "from now",
            "from the past",
            "from the future",
            "prev_kv",
            "fragment",
            "filtered",
            "progress",
            "resumed",
            "own id",
            "beside others",
        ],
        columns: &[
            "events",
            "progress",
            "fragments",
            "compacted",
            "refused",
            "canceled by its client",
            "stream lost",
        ],
        never: &[],
    },
    Table {
        name: "faults by what they hit",
        rows: &TARGETED,
        columns: &["leader", "follower", "learner", "starting", "down"],
        never: &[],
    },
    Table {
        name: "users and turns by outcome",
        rows: &OTHER_CALLS,
        columns: &["ok", "refused", "unknown"],
        never: &[
            ("Lock", "refused"),
            ("Unlock", "refused"),
            ("Campaign", "refused"),
            ("Proclaim", "refused"),
            ("Leader", "refused"),
            ("Resign", "refused"),
        ],
    },
    Table {
        name: "who asked, and what was said",
        rows: &["root", "a user", "nobody"],
        columns: &["ok", "permission denied", "no user", "invalid token", "old revision"],
        never: &[("nobody", "permission denied"), ("nobody", "invalid token"), ("nobody", "old revision")],
    },
];

/// How often each cell was reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Vec<Cell>", from = "Vec<Cell>")]
pub struct Coverage(BTreeMap<(&'static str, &'static str, &'static str), u64>);

/// A cell with its count, as one process tells it to another: table, row, column.
type Cell = (String, String, String, u64);

impl From<Coverage> for Vec<Cell> {
    fn from(coverage: Coverage) -> Self {
        let cells = coverage.0.into_iter();
        cells.map(|((table, row, column), count)| (table.into(), row.into(), column.into(), count)).collect()
    }
}

impl From<Vec<Cell>> for Coverage {
    /// Cells that no table has are not counted by anybody.
    fn from(cells: Vec<Cell>) -> Self {
        let known = |names: &[&'static str], name: &str| names.iter().find(|known| **known == name).copied();
        let mut coverage = Self::default();
        for (table, row, column, count) in &cells {
            if let Some(table) = TABLES.iter().find(|known| known.name == table)
                && let (Some(row), Some(column)) = (known(table.rows, row), known(table.columns, column))
            {
                coverage.0.insert((table.name, row, column), *count);
            }
        }
        coverage
    }
}

impl Coverage {
    /// What one run reached.
    pub fn of(plan: &Plan, history: &History, hits: &BTreeMap<(&'static str, &'static str), u64>) -> Self {
        let mut coverage = Self::default();
        for op in &history.ops {
            coverage.take_call(op, plan);
        }
        for watch in &history.watches {
            coverage.take_watch(watch);
        }
        for ((fault, state), count) in hits {
            *coverage.0.entry((TABLES[5].name, fault, state)).or_default() += count;
        }
        coverage
    }

    /// Takes in what another run reached.
    pub fn merge(&mut self, other: &Self) {
        for (cell, count) in &other.0 {
            *self.0.entry(*cell).or_default() += count;
        }
    }

    fn reach(&mut self, table: usize, row: &'static str, column: &'static str) {
        *self.0.entry((TABLES[table].name, row, column)).or_default() += 1;
    }

    fn take_call(&mut self, op: &Op, plan: &Plan) {
        let how = match &op.outcome {
            Outcome::Ok(_) => "ok",
            Outcome::Refused { .. } => "refused",
            Outcome::Unknown(_) => "unknown",
        };
        let name = op.call.name();
        if CALLS.contains(&name) {
            self.reach(2, name, how);
        } else if OTHER_CALLS.contains(&name) {
            self.reach(6, name, how);
        }
        if plan.knobs.auth {
            self.take_user(op);
        }
        let mut said = BTreeSet::new();
        let table = match &op.call {
            Call::Range(range) => {
                let future = Refusal::FutureRevision.to_string();
                let is_future = matches!(&op.outcome, Outcome::Refused { message, .. } if *message == future);
                of_range(range, is_future, &mut said);
                0
            }
            Call::Put(put) => {
                of_put(put, &mut said);
                1
            }
            Call::DeleteRange(delete) => {
                of_delete(delete, &mut said);
                1
            }
            Call::Txn(txn) => {
                of_txn(txn, op, &mut said);
                1
            }
            Call::Compact(compact) => {
                said.insert(if compact.physical { "compact physical" } else { "compact" });
                1
            }
            _ => 1,
        };
        for option in said {
            self.reach(table, option, how);
        }
        let end = op.end.map_or(u64::MAX, |end| end.0);
        for fault in &plan.faults {
            let until = (fault.at + fault.what.span()).min(plan.calm_from);
            if CALLS.contains(&name) && fault.at <= end && op.start.0 <= until {
                self.reach(3, op.call.name(), fault.what.name());
            }
        }
    }

    fn take_user(&mut self, op: &Op) {
        let who = match op.user.as_deref() {
            Some("root") => "root",
            Some(_) => "a user",
            None => "nobody",
        };
        let said = |message: &str| {
            let texts = [
                (Refusal::PermissionDenied, "permission denied"),
                (Refusal::UserEmpty, "no user"),
                (Refusal::InvalidAuthToken, "invalid token"),
                (Refusal::AuthOldRevision, "old revision"),
            ];
            texts.into_iter().find(|(refusal, _)| refusal.to_string() == message).map(|(_, name)| name)
        };
        let how = match &op.outcome {
            Outcome::Ok(_) => Some("ok"),
            Outcome::Refused { message, .. } => said(message),
            Outcome::Unknown(_) => None,
        };
        if let Some(how) = how {
            self.reach(7, who, how);
        }
    }

    fn take_watch(&mut self, watch: &WatchLog) {
        let create = &watch.create;
        let mut rows = vec![];
        let began = watch.responses.first().and_then(|(_, r)| r.header.as_ref()).map_or(0, |h| h.revision);
        rows.push(match create.start_revision {
            0 => "from now",
            from if from > began => "from the future",
            _ => "from the past",
        });
        let options = [
            (create.prev_kv, "prev_kv"),
            (create.fragment, "fragment"),
            (!create.filters.is_empty(), "filtered"),
            (create.progress_notify, "progress"),
            (watch.resumes.is_some(), "resumed"),
            (create.watch_id != 0, "own id"),
            (watch.stream != watch.id, "beside others"),
        ];
        rows.extend(options.iter().filter(|(set, _)| *set).map(|(_, row)| row));
        let mut columns = BTreeSet::new();
        for (_, response) in &watch.responses {
            columns.extend(match response {
                r if r.canceled && r.compact_revision > 0 => Some("compacted"),
                r if r.canceled && watch.cancel.is_some() => Some("canceled by its client"),
                r if r.canceled => Some("refused"),
                r if r.created => None,
                r if r.fragment => Some("fragments"),
                r if r.events.is_empty() => Some("progress"),
                _ => Some("events"),
            });
        }
        let canceled = watch.responses.iter().any(|(_, response)| response.canceled);
        if watch.ended.is_some() && !canceled {
            columns.insert("stream lost");
        }
        for row in rows {
            for column in &columns {
                self.reach(4, row, column);
            }
        }
    }

    /// How many cells there are, and how many of them were reached, by table.
    pub fn totals(&self) -> Vec<(&'static str, usize, usize)> {
        TABLES
            .iter()
            .map(|table| {
                let missing = self.missing_of(table).len();
                let all = table.rows.len() * table.columns.len() - table.never.len();
                (table.name, all - missing, all)
            })
            .collect()
    }

    /// Cells that nothing reached, by table, row and column.
    pub fn missing(&self) -> Vec<(&'static str, &'static str, &'static str)> {
        TABLES.iter().flat_map(|table| self.missing_of(table)).collect()
    }

    fn missing_of(&self, table: &Table) -> Vec<(&'static str, &'static str, &'static str)> {
        let cells = table.rows.iter().flat_map(|row| table.columns.iter().map(move |column| (*row, *column)));
        let missing = cells.filter(|cell| !table.never.contains(cell));
        let missing = missing.map(|(row, column)| (table.name, row, column));
        missing.filter(|cell| !self.0.contains_key(cell)).collect()
    }

    /// Tells what was reached, and lists what was not.
    pub fn print(&self) {
        println!("coverage:");
        for (name, reached, all) in self.totals() {
            println!("  {reached:>4} of {all:>3} cells  {name}");
        }
        let mut last = ("", "");
        for (table, row, column) in self.missing() {
            if (table, row) == last {
                print!(", {column}");
            } else {
                let begin = if last.0.is_empty() { "never reached:\n" } else { "\n" };
                print!("{begin}  {table}: {row}: {column}");
            }
            last = (table, row);
        }
        if !last.0.is_empty() {
            println!();
        }
    }
}

fn of_range(range: &pb::RangeRequest, is_future: bool, said: &mut BTreeSet<&'static str>) {
    said.insert(match &range.range_end[..] {
        b"" => "one key",
        b"\0" if range.key[..] == b"\0"[..] => "everything",
        b"\0" => "from a key",
        _ => "interval",
    });
    said.insert(match range.revision {
        0 => "now",
        _ if is_future => "future",
        _ => "past",
    });
    let options = [
        (range.limit > 0, "limit"),
        (range.sort_order != 0 || range.sort_target != 0, "sorted"),
        (range.serializable, "serializable"),
        (range.keys_only, "keys only"),
        (range.count_only, "count only"),
        (range.min_mod_revision != 0 || range.max_mod_revision != 0, "mod bounds"),
        (range.min_create_revision != 0 || range.max_create_revision != 0, "create bounds"),
    ];
    said.extend(options.iter().filter(|(set, _)| *set).map(|(_, name)| name));
}

fn of_put(put: &pb::PutRequest, said: &mut BTreeSet<&'static str>) {
    said.insert("put");
    let options = [
        (put.lease != 0, "put on a lease"),
        (put.prev_kv, "put prev_kv"),
        (put.ignore_value, "put ignore_value"),
        (put.ignore_lease, "put ignore_lease"),
        (put.value.len() > 10_000, "put of 10 kB"),
    ];
    said.extend(options.iter().filter(|(set, _)| *set).map(|(_, name)| name));
}

fn of_delete(delete: &pb::DeleteRangeRequest, said: &mut BTreeSet<&'static str>) {
    said.insert(if delete.range_end.is_empty() { "delete one key" } else { "delete interval" });
    if delete.prev_kv {
        said.insert("delete prev_kv");
    }
}

fn of_txn(txn: &pb::TxnRequest, op: &Op, said: &mut BTreeSet<&'static str>) {
    use pb::request_op::Request;
    let held = match &op.outcome {
        Outcome::Ok(crate::history::Reply::Txn(done)) => Some(done.succeeded),
        _ => None,
    };
    match (txn.compare.is_empty(), held) {
        (true, _) => drop(said.insert("txn without guards")),
        (false, Some(true)) => drop(said.insert("txn guards held")),
        (false, Some(false)) => drop(said.insert("txn guards failed")),
        (false, None) => {}
    }
    let ops = || txn.success.iter().chain(&txn.failure).filter_map(|op| op.request.as_ref());
    let options = [
        (ops().all(|op| matches!(op, Request::RequestRange(_))), "txn of ranges only"),
        (ops().any(|op| matches!(op, Request::RequestPut(_))), "txn with puts"),
        (ops().any(|op| matches!(op, Request::RequestDeleteRange(_))), "txn with deletes"),
        (ops().any(|op| matches!(op, Request::RequestTxn(_))), "txn nested"),
    ];
    said.extend(options.iter().filter(|(set, _)| *set).map(|(_, name)| name));
}

/// Whether a name counted in a run is a fault's.
pub fn is_fault(name: &str) -> bool {
    FAULTS.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{plan::Fault, swarm::Swarm};

    #[test]
    fn every_fault_that_is_drawn_has_its_row() {
        let faults: Vec<Fault> =
            (0..200).flat_map(|seed| Swarm::default().plan(seed).faults).map(|fault| fault.what).collect();
        for fault in &faults {
            assert!(is_fault(fault.name()), "{}", fault.name());
            assert_eq!(TARGETED.contains(&fault.name()), fault.who().is_some(), "{}", fault.name());
        }
    }

    #[test]
    fn what_was_reached_is_not_missing() {
        let hits = BTreeMap::from([(("kill", "leader"), 2)]);
        let plan = Swarm::default().plan(0);
        let mut coverage = Coverage::of(&plan, &History::default(), &hits);
        assert!(!coverage.missing().contains(&(TABLES[5].name, "kill", "leader")));
        assert!(coverage.missing().contains(&(TABLES[5].name, "kill", "learner")));
        let before = coverage.missing().len();
        let more = BTreeMap::from([(("kill", "learner"), 1)]);
        coverage.merge(&Coverage::of(&plan, &History::default(), &more));
        assert_eq!(coverage.missing().len(), before - 1);
        assert_eq!(coverage.totals()[5].1, 2);
        let told: Vec<Cell> = coverage.clone().into();
        assert_eq!(Coverage::from(told), coverage);
    }
}
