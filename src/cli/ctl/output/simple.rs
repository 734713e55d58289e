//! The format for people, and the one that scripts read most.

use std::fmt::Write;

use super::{Format, Health, Printed, Printer, Reply, Unsupported, alarm_text, is_delete, kv};
use crate::{
    cli::ctl::{go, kv::prefix_end},
    wire::{RawKeyValue, etcdserverpb as pb},
};

/// See the module.
pub struct Simple {
    /// Print each byte of keys and values as `\xNN`.
    pub hex: bool,
}

impl Printer for Simple {
    fn format(&self) -> Format {
        Format::Simple
    }

    fn print(&self, reply: &Reply) -> Result<Printed, Unsupported> {
        let member = |done: &str, id: u64, header: &Option<pb::ResponseHeader>| -> Printed {
            let cluster = header.as_ref().map_or(0, |header| header.cluster_id);
            format!("Member {id:16x} {done} cluster {cluster:16x}\n").into()
        };
        Ok(match reply {
            Reply::Get { response, value_only } => self.range(response, *value_only).into(),
            Reply::Put(response) => self.put(response).into(),
            Reply::Del(response) => self.del(response).into(),
            Reply::Txn(response) => self.txn(response).into(),
            Reply::Watch(response) => self.watch(response).into(),
            Reply::Grant(r) => format!("lease {:016x} granted with TTL({}s)\n", r.id, r.ttl).into(),
            Reply::Revoke(id, _) => format!("lease {id:016x} revoked\n").into(),
            Reply::TimeToLive(response, keys) => time_to_live(response, *keys).into(),
            Reply::Leases(response) => leases(response).into(),
            Reply::KeepAlive(r) => format!("lease {:016x} keepalived with TTL({})\n", r.id, r.ttl).into(),
            Reply::MemberList(response) => member_list(response).into(),
            Reply::MemberAdd(r) => member("added to", r.member.as_ref().map_or(0, |m| m.id), &r.header),
            Reply::MemberRemove(id, r) => member("removed from", *id, &r.header),
            Reply::MemberUpdate(id, r) => member("updated in", *id, &r.header),
            Reply::MemberPromote(id, r) => member("promoted in", *id, &r.header),
            Reply::Status(list) => list
                .iter()
                .map(|(ep, status)| status_row(ep, status).join(", ") + "\n")
                .collect::<String>()
                .into(),
            Reply::Health(list) => health(list),
            Reply::HashKv(list) => {
                list.iter().map(|(ep, hash)| format!("{ep}, {}\n", hash.hash)).collect::<String>().into()
            }
            Reply::Alarms(r) => {
                r.alarms.iter().map(|alarm| alarm_text(alarm) + "\n").collect::<String>().into()
            }
            Reply::MoveLeader(from, to, _) => {
                format!("Leadership transferred from {from:x} to {to:x}\n").into()
            }
            Reply::Changed(text, _) => format!("{text}\n").into(),
            Reply::AuthStatus(r) => {
                format!("Authentication Status: {}\nAuthRevision: {}\n", r.enabled, r.auth_revision).into()
            }
            Reply::UserGet(name, r) => {
                let roles: String = r.roles.iter().map(|role| format!(" {role}")).collect();
                format!("User: {name}\nRoles:{roles}\n").into()
            }
            Reply::UserList(r) => r.users.iter().map(|user| format!("{user}\n")).collect::<String>().into(),
            Reply::RoleGet(name, r) => role(name, r).into(),
            Reply::RoleList(r) => r.roles.iter().map(|role| format!("{role}\n")).collect::<String>().into(),
        })
    }
}

impl Simple {
    /// A key or value on a line of its own.
    fn line(&self, bytes: &[u8], out: &mut Vec<u8>) {
        if self.hex {
            out.extend(bytes.iter().flat_map(|byte| format!("\\x{byte:02x}").into_bytes()));
        } else {
            out.extend_from_slice(bytes);
        }
        out.push(b'\n');
    }

    fn pair(&self, raw: &RawKeyValue, value_only: bool, out: &mut Vec<u8>) {
        let kv = kv(raw);
        if !value_only {
            self.line(&kv.key, out);
        }
        self.line(&kv.value, out);
    }

    fn range(&self, response: &pb::RangeResponse, value_only: bool) -> Vec<u8> {
        let mut out = Vec::new();
        response.kvs.iter().for_each(|raw| self.pair(raw, value_only, &mut out));
        out
    }

    fn put(&self, response: &pb::PutResponse) -> Vec<u8> {
        let mut out = b"OK\n".to_vec();
        response.prev_kv.iter().for_each(|raw| self.pair(raw, false, &mut out));
        out
    }

    fn del(&self, response: &pb::DeleteRangeResponse) -> Vec<u8> {
        let mut out = format!("{}\n", response.deleted).into_bytes();
        response.prev_kvs.iter().for_each(|raw| self.pair(raw, false, &mut out));
        out
    }

    fn txn(&self, response: &pb::TxnResponse) -> Vec<u8> {
        use pb::response_op::Response;
        let mut out = if response.succeeded { b"SUCCESS\n".to_vec() } else { b"FAILURE\n".to_vec() };
        for op in &response.responses {
            out.push(b'\n');
            match &op.response {
                Some(Response::ResponseRange(range)) => out.extend(self.range(range, false)),
                Some(Response::ResponsePut(put)) => out.extend(self.put(put)),
                Some(Response::ResponseDeleteRange(del)) => out.extend(self.del(del)),
                Some(Response::ResponseTxn(txn)) => out.extend(self.txn(txn)),
                None => {}
            }
        }
        out
    }

    fn watch(&self, response: &pb::WatchResponse) -> Vec<u8> {
        let mut out = Vec::new();
        for event in &response.events {
            out.extend_from_slice(if is_delete(event) { b"DELETE\n" } else { b"PUT\n" });
            event.prev_kv.iter().chain(&event.kv).for_each(|raw| self.pair(raw, false, &mut out));
        }
        out
    }
}

/// A role's permissions, what may be read first.
fn role(name: &str, response: &pb::AuthRoleGetResponse) -> Vec<u8> {
    use crate::wire::authpb::permission::Type;
    let mut out = format!("Role {name}\n").into_bytes();
    for (title, access) in [("KV Read:\n", Type::Read), ("KV Write:\n", Type::Write)] {
        out.extend_from_slice(title.as_bytes());
        for permission in &response.perm {
            let has = Type::try_from(permission.perm_type);
            if has != Ok(access) && has != Ok(Type::Readwrite) {
                continue;
            }
            let (key, end) = (permission.key.as_ref(), permission.range_end.as_ref());
            out.push(b'\t');
            match end {
                b"" => out.extend_from_slice(key),
                b"\0" => out.extend([b"[", key, b", <open ended>"].concat()),
                end => out.extend([b"[", key, b", ", end, b")"].concat()),
            }
            if !end.is_empty() && prefix_end(key) == end {
                out.extend([b" (prefix ", key, b")"].concat());
            }
            out.push(b'\n');
        }
    }
    out
}

fn time_to_live(response: &pb::LeaseTimeToLiveResponse, keys: bool) -> Vec<u8> {
    let id = response.id;
    if response.granted_ttl == 0 && response.ttl == -1 {
        return format!("lease {id:016x} already expired\n").into_bytes();
    }
    let mut out =
        format!("lease {id:016x} granted with TTL({}s), remaining({}s)", response.granted_ttl, response.ttl)
            .into_bytes();
    if keys {
        out.extend_from_slice(b", attached keys([");
        out.extend(response.keys.join(&b' '));
        out.extend_from_slice(b"])");
    }
    out.push(b'\n');
    out
}

fn leases(response: &pb::LeaseLeasesResponse) -> String {
    let mut out = format!("found {} leases\n", response.leases.len());
    for lease in &response.leases {
        let _ = writeln!(out, "{:016x}", lease.id);
    }
    out
}

/// The columns of a member, for this format and the table.
pub fn member_row(member: &pb::Member) -> [String; 6] {
    [
        format!("{:x}", member.id),
        if member.name.is_empty() { "unstarted" } else { "started" }.into(),
        member.name.clone(),
        member.peer_ur_ls.join(","),
        member.client_ur_ls.join(","),
        member.is_learner.to_string(),
    ]
}

fn member_list(response: &pb::MemberListResponse) -> String {
    response.members.iter().map(|member| member_row(member).join(", ") + "\n").collect()
}

/// The columns of an endpoint's status, for this format and the table.
pub fn status_row(endpoint: &str, status: &pb::StatusResponse) -> [String; 10] {
    let id = status.header.as_ref().map_or(0, |header| header.member_id);
    [
        endpoint.into(),
        format!("{id:x}"),
        status.version.clone(),
        go::human_size(u64::try_from(status.db_size).unwrap_or(0)),
        (status.leader == id).to_string(),
        status.is_learner.to_string(),
        status.raft_term.to_string(),
        status.raft_index.to_string(),
        status.raft_applied_index.to_string(),
        status.errors.join(", "),
    ]
}

fn health(list: &[Health]) -> Printed {
    let mut printed = Printed::default();
    for Health { endpoint, took, error } in list {
        match error {
            None => {
                let took = go::format_duration(*took);
                let line = format!("{endpoint} is healthy: successfully committed proposal: took = {took}\n");
                printed.out.extend(line.into_bytes());
            }
            Some(error) => {
                let _ = writeln!(printed.err, "{endpoint} is unhealthy: failed to commit proposal: {error}");
            }
        }
    }
    printed
}
