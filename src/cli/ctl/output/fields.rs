//! `"Name" : value` lines, header first; for those who grep.

use std::fmt::Write;

use super::{Format, Printed, Printer, Reply, Unsupported, alarm_name, is_delete, kv};
use crate::{
    cli::ctl::go,
    wire::{RawKeyValue, etcdserverpb as pb},
};

/// See the module.
pub struct Fields;

impl Printer for Fields {
    fn format(&self) -> Format {
        Format::Fields
    }

    fn print(&self, reply: &Reply) -> Result<Printed, Unsupported> {
        let mut out = String::new();
        match reply {
            Reply::Get { response, .. } => range(response, &mut out),
            Reply::Put(response) => put(response, &mut out),
            Reply::Del(response) => del(response, &mut out),
            Reply::Txn(response) => txn(response, &mut out),
            Reply::Watch(response) => watch(response, &mut out),
            Reply::Grant(r) => lease(&r.header, r.id, r.ttl, &mut out),
            Reply::KeepAlive(r) => lease(&r.header, r.id, r.ttl, &mut out),
            Reply::Revoke(_, response) => header(&response.header, &mut out),
            Reply::TimeToLive(response, _) => {
                lease(&response.header, response.id, response.ttl, &mut out);
                field("GrantedTTL", response.granted_ttl, &mut out);
                response.keys.iter().for_each(|key| quoted("Key", key, &mut out));
            }
            Reply::Leases(response) => {
                header(&response.header, &mut out);
                response.leases.iter().for_each(|lease| field("ID", lease.id, &mut out));
            }
            Reply::MemberList(response) => {
                header(&response.header, &mut out);
                response.members.iter().for_each(|one| member(one, &mut out));
            }
            Reply::Status(list) => list.iter().for_each(|(endpoint, one)| status(endpoint, one, &mut out)),
            Reply::Health(list) => {
                for one in list {
                    quoted("Endpoint", one.endpoint.as_bytes(), &mut out);
                    field("Health", one.error.is_none(), &mut out);
                    field("Took", go::format_duration(one.took), &mut out);
                    field("Error", one.error.as_deref().unwrap_or_default(), &mut out);
                    out.push('\n');
                }
            }
            Reply::HashKv(list) => {
                for (endpoint, one) in list {
                    header(&one.header, &mut out);
                    quoted("Endpoint", endpoint.as_bytes(), &mut out);
                    field("Hash", one.hash, &mut out);
                    out.push('\n');
                }
            }
            Reply::Alarms(response) => {
                // etcdctl crashes here after `alarm disarm`, which has no header of its own to print.
                if response.header.is_some() {
                    header(&response.header, &mut out);
                }
                for alarm in &response.alarms {
                    field("MemberID", alarm.member_id, &mut out);
                    field("AlarmType", alarm_name(alarm.alarm), &mut out);
                    out.push('\n');
                }
            }
            Reply::Changed(_, response) => header(response, &mut out),
            Reply::RoleGet(_, response) => role(response, &mut out),
            Reply::RoleList(response) => roles(response, &mut out),
            Reply::AuthStatus(_) | Reply::UserGet(..) | Reply::UserList(_) => {
                return Err(Unsupported::format("fields"));
            }
            Reply::MemberAdd(_)
            | Reply::MemberRemove(..)
            | Reply::MemberUpdate(..)
            | Reply::MemberPromote(..)
            | Reply::MoveLeader(..) => return Err(Unsupported::format("fields")),
        }
        Ok(out.into())
    }
}

fn role(response: &pb::AuthRoleGetResponse, out: &mut String) {
    header(&response.header, out);
    for permission in &response.perm {
        // etcdctl's second space, too.
        field("PermType", format!(" {}", access_name(permission.perm_type)), out);
        quoted("Key", &permission.key, out);
        quoted("RangeEnd", &permission.range_end, out);
    }
}

fn roles(response: &pb::AuthRoleListResponse, out: &mut String) {
    header(&response.header, out);
    let roles: String =
        response.roles.iter().map(|role| format!(" {}", go::quote(role.as_bytes()))).collect();
    let _ = writeln!(out, "\"Roles\" :{roles}");
}

fn access_name(number: i32) -> String {
    use crate::wire::authpb::permission::Type;
    Type::try_from(number).map_or_else(|_| number.to_string(), |access| access.as_str_name().into())
}

fn field(name: &str, value: impl std::fmt::Display, out: &mut String) {
    let _ = writeln!(out, "\"{name}\" : {value}");
}

fn quoted(name: &str, value: &[u8], out: &mut String) {
    field(name, go::quote(value), out);
}

fn header(header: &Option<pb::ResponseHeader>, out: &mut String) {
    let header = header.unwrap_or_default();
    field("ClusterID", header.cluster_id, out);
    field("MemberID", header.member_id, out);
    field("Revision", header.revision, out);
    field("RaftTerm", header.raft_term, out);
}

fn key_value(prefix: &str, raw: &RawKeyValue, out: &mut String) {
    let kv = kv(raw);
    quoted(&format!("{prefix}Key"), &kv.key, out);
    field(&format!("{prefix}CreateRevision"), kv.created.0, out);
    field(&format!("{prefix}ModRevision"), kv.modified.0, out);
    field(&format!("{prefix}Version"), kv.version, out);
    quoted(&format!("{prefix}Value"), &kv.value, out);
    field(&format!("{prefix}Lease"), kv.lease.0, out);
}

fn range(response: &pb::RangeResponse, out: &mut String) {
    header(&response.header, out);
    response.kvs.iter().for_each(|raw| key_value("", raw, out));
    field("More", response.more, out);
    field("Count", response.count, out);
}

fn put(response: &pb::PutResponse, out: &mut String) {
    header(&response.header, out);
    response.prev_kv.iter().for_each(|raw| key_value("Prev", raw, out));
}

fn del(response: &pb::DeleteRangeResponse, out: &mut String) {
    header(&response.header, out);
    field("Deleted", response.deleted, out);
    response.prev_kvs.iter().for_each(|raw| key_value("Prev", raw, out));
}

fn txn(response: &pb::TxnResponse, out: &mut String) {
    use pb::response_op::Response;
    header(&response.header, out);
    field("Succeeded", response.succeeded, out);
    for op in &response.responses {
        match &op.response {
            Some(Response::ResponseRange(one)) => range(one, out),
            Some(Response::ResponsePut(one)) => put(one, out),
            Some(Response::ResponseDeleteRange(one)) => del(one, out),
            Some(Response::ResponseTxn(one)) => txn(one, out),
            None => {}
        }
    }
}

fn watch(response: &pb::WatchResponse, out: &mut String) {
    header(&response.header, out);
    for event in &response.events {
        field("Type", if is_delete(event) { "DELETE" } else { "PUT" }, out);
        event.prev_kv.iter().for_each(|raw| key_value("Prev", raw, out));
        event.kv.iter().for_each(|raw| key_value("", raw, out));
    }
}

fn lease(head: &Option<pb::ResponseHeader>, id: i64, ttl: i64, out: &mut String) {
    header(head, out);
    field("ID", id, out);
    field("TTL", ttl, out);
}

fn member(member: &pb::Member, out: &mut String) {
    field("ID", member.id, out);
    quoted("Name", member.name.as_bytes(), out);
    member.peer_ur_ls.iter().for_each(|url| quoted("PeerURL", url.as_bytes(), out));
    member.client_ur_ls.iter().for_each(|url| quoted("ClientURL", url.as_bytes(), out));
    field("IsLearner", member.is_learner, out);
    out.push('\n');
}

fn status(endpoint: &str, status: &pb::StatusResponse, out: &mut String) {
    header(&status.header, out);
    quoted("Version", status.version.as_bytes(), out);
    field("DBSize", status.db_size, out);
    field("Leader", status.leader, out);
    field("IsLearner", status.is_learner, out);
    field("RaftIndex", status.raft_index, out);
    field("RaftTerm", status.raft_term, out);
    field("RaftAppliedIndex", status.raft_applied_index, out);
    field("Errors", format!("[{}]", status.errors.join(" ")), out);
    quoted("Endpoint", endpoint.as_bytes(), out);
    out.push('\n');
}
