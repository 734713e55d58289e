//! The entries of a log that etcd 3.5.1 wrote: each is read as what it was, and written again byte for byte.
#![allow(clippy::disallowed_methods, reason = "fixtures are read from the repository")]

use std::{fmt::Write as _, path::Path};

use bytes::Bytes;
use kontiki::{
    auth::password,
    raft::{Entry, Payload},
    state::Command,
    wire::{command, raft, walpb::Record},
};
use prost::Message as _;

use super::support::Replica;

/// The entries of a segment, by its framing: a length with the padding's in its top byte, a record, padding.
fn entries(segment: &[u8]) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut rest = segment;
    while let Some((head, tail)) = rest.split_first_chunk::<8>() {
        let length = (u64::from_le_bytes(*head) & 0x00ff_ffff_ffff_ffff) as usize;
        if length == 0 {
            break;
        }
        let padding = usize::from(head[7] & 7);
        let record = Record::decode(&tail[..length]).unwrap();
        if record.r#type == 2 {
            entries.push(raft::decode_entry(record.data.unwrap()).unwrap());
        }
        rest = &tail[length + padding..];
    }
    entries
}

fn log() -> Vec<Entry> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/disk/wal-0.wal");
    entries(&std::fs::read(path).unwrap())
}

#[test]
fn etcds_entries_are_read_and_written() {
    let mut out = String::new();
    for entry in log() {
        let bytes: Bytes = match entry.payload {
            Payload::Command(bytes) => bytes,
            Payload::Empty | Payload::Change(_) => continue,
        };
        let request = command::decode(&bytes).unwrap();
        let user = if request.user.is_empty() { String::new() } else { format!(" by {}", request.user) };
        writeln!(out, "{}{user}: {:?}", entry.index, request.command).unwrap();
        // The v2 forms are written as 3.6 does; what is not known, and what etcd only reads, is not written.
        let same = command::encode(&request) == bytes;
        let other = match request.command {
            Command::SetClusterVersion(_) | Command::SetMemberAttributes { .. } | Command::Nothing => true,
            Command::Range(_)
            | Command::Put(_)
            | Command::Delete(_)
            | Command::Txn(_)
            | Command::Compact { .. }
            | Command::LeaseGrant { .. }
            | Command::LeaseRevoke { .. }
            | Command::LeaseCheckpoint(_)
            | Command::Alarm { .. }
            | Command::SetDowngrade { .. }
            | Command::Auth(_) => false,
        };
        assert!(same || other, "{:?} is {bytes:?}", request.command);
    }
    let wanted = include_str!("etcd_log.txt");
    assert_eq!(out, wanted, "{out}");
}

#[test]
fn etcds_entries_are_applied() {
    let mut replica = Replica::new();
    let applied = replica.apply(&log()).unwrap();
    let refused: Vec<_> = applied.replies.iter().filter(|(_, reply)| reply.is_err()).collect();
    // The last write of the log but one has been taken out of it, which leaves its index to nobody.
    assert_eq!(format!("{refused:?}"), "[]");
    let tokens: Vec<_> = applied.sessions.iter().map(|session| format!("{session:?}")).collect();
    assert_eq!(tokens.len(), 3, "{tokens:?}");
    let users = replica.machine.auth();
    assert!(!users.enabled());
    assert_eq!(users.revision(), 6);
    let root = users.user("root").unwrap();
    assert_eq!(root.roles, ["root"]);
    assert!(password::matches("pw", &root.password), "{:?}", root.password);
}
