//! Go's JSON of an answer: snake_case keys, numbers, bytes in base64, zero fields left out, one line.

use std::fmt::{Display, Write};

use base64::{Engine, engine::general_purpose::STANDARD};

use super::{Format, Printed, Printer, Reply, Unsupported, is_delete, kv};
use crate::{
    cli::ctl::go,
    wire::{RawKeyValue, etcdserverpb as pb, mvccpb},
};

/// See the module.
pub struct Json {
    /// Ids of `member list` in hexadecimal; nothing else changes.
    pub hex: bool,
}

impl Printer for Json {
    fn format(&self) -> Format {
        Format::Json
    }

    fn print(&self, reply: &Reply) -> Result<Printed, Unsupported> {
        let text = match reply {
            Reply::Get { response, .. } => range(response),
            Reply::Put(response) => put(response),
            Reply::Del(response) => del(response),
            Reply::Txn(response) => txn(response),
            Reply::Watch(response) => watch(response),
            Reply::Grant(r) => flat(&r.header)
                .always("ID", r.id)
                .always("TTL", r.ttl)
                .always("Error", string(&r.error))
                .end(),
            Reply::Revoke(_, response) => Object::new().header(&response.header).end(),
            Reply::TimeToLive(response, keys) => time_to_live(response, *keys),
            Reply::Leases(response) => {
                let leases = array(&response.leases, |lease| Object::new().always("id", lease.id).end());
                flat(&response.header).always("leases", leases).end()
            }
            Reply::KeepAlive(r) => flat(&r.header).always("ID", r.id).always("TTL", r.ttl).end(),
            Reply::MemberList(response) if self.hex => hex_member_list(response),
            Reply::MemberList(response) => members(Object::new().header(&response.header), &response.members),
            Reply::MemberAdd(r) => {
                let object = Object::new().header(&r.header);
                let object = match &r.member {
                    Some(one) => object.always("member", member(one)),
                    None => object,
                };
                members(object, &r.members)
            }
            Reply::MemberRemove(_, r) => members(Object::new().header(&r.header), &r.members),
            Reply::MemberUpdate(_, r) => members(Object::new().header(&r.header), &r.members),
            Reply::MemberPromote(_, r) => members(Object::new().header(&r.header), &r.members),
            Reply::Status(list) => array(list, |(endpoint, one)| {
                Object::new().always("Endpoint", string(endpoint)).always("Status", status(one)).end()
            }),
            Reply::Health(list) => array(list, |one| {
                Object::new()
                    .always("endpoint", string(&one.endpoint))
                    .always("health", one.error.is_none())
                    .always("took", string(&go::format_duration(one.took)))
                    .text("error", one.error.as_deref().unwrap_or_default())
                    .end()
            }),
            Reply::HashKv(list) => array(list, |(endpoint, one)| {
                Object::new().always("Endpoint", string(endpoint)).always("HashKV", hash(one)).end()
            }),
            Reply::Alarms(response) => {
                let alarms = array(&response.alarms, |alarm| {
                    Object::new()
                        .number("memberID", alarm.member_id)
                        .number("alarm", u64::try_from(alarm.alarm).unwrap_or(0))
                        .end()
                });
                Object::new().header(&response.header).list("alarms", &response.alarms, alarms).end()
            }
            Reply::MoveLeader(_, _, response) => Object::new().header(&response.header).end(),
            Reply::Changed(_, header) => Object::new().header(header).end(),
            Reply::AuthStatus(r) => Object::new()
                .header(&r.header)
                .bool("enabled", r.enabled)
                .number("authRevision", r.auth_revision)
                .end(),
            Reply::UserGet(_, r) => Object::new().header(&r.header).texts("roles", &r.roles).end(),
            Reply::UserList(r) => Object::new().header(&r.header).texts("users", &r.users).end(),
            Reply::RoleGet(_, r) => role(r),
            Reply::RoleList(r) => Object::new().header(&r.header).texts("roles", &r.roles).end(),
        };
        Ok((text + "\n").into())
    }
}

/// A JSON string as Go writes it: `<`, `>` and `&` escaped too.
pub fn string(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        let _ = match c {
            '"' => out.write_str("\\\""),
            '\\' => out.write_str("\\\\"),
            '\n' => out.write_str("\\n"),
            '\r' => out.write_str("\\r"),
            '\t' => out.write_str("\\t"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\x1f' => write!(out, "\\u{:04x}", c as u32),
            c => out.write_char(c),
        };
    }
    out.push('"');
    out
}

fn array<T>(items: &[T], one: impl Fn(&T) -> String) -> String {
    format!("[{}]", items.iter().map(one).collect::<Vec<_>>().join(","))
}

/// An object under construction. Zero values are left out, except by `always`.
struct Object(String);

impl Object {
    fn new() -> Self {
        Self("{".into())
    }

    fn always(mut self, name: &str, value: impl Display) -> Self {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        let _ = write!(self.0, "\"{name}\":{value}");
        self
    }

    fn number<N: Display + Default + PartialEq>(self, name: &str, value: N) -> Self {
        if value == N::default() { self } else { self.always(name, value) }
    }

    fn bool(self, name: &str, value: bool) -> Self {
        if value { self.always(name, true) } else { self }
    }

    fn text(self, name: &str, value: &str) -> Self {
        if value.is_empty() { self } else { self.always(name, string(value)) }
    }

    fn texts(self, name: &str, values: &[String]) -> Self {
        self.list(name, values, array(values, |value| string(value)))
    }

    fn bytes(self, name: &str, value: &[u8]) -> Self {
        if value.is_empty() { self } else { self.always(name, string(&STANDARD.encode(value))) }
    }

    /// `rendered`, unless there are no `items`.
    fn list<T>(self, name: &str, items: &[T], rendered: String) -> Self {
        if items.is_empty() { self } else { self.always(name, rendered) }
    }

    fn header(self, header: &Option<pb::ResponseHeader>) -> Self {
        match header {
            Some(_) => self.always("header", flat(header).end()),
            None => self,
        }
    }

    fn end(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

/// An object that starts with the header's own fields, as lease answers do.
fn flat(header: &Option<pb::ResponseHeader>) -> Object {
    let header = header.unwrap_or_default();
    Object::new()
        .number("cluster_id", header.cluster_id)
        .number("member_id", header.member_id)
        .number("revision", header.revision)
        .number("raft_term", header.raft_term)
}

fn key_value(raw: &RawKeyValue) -> String {
    let kv = kv(raw);
    Object::new()
        .bytes("key", &kv.key)
        .number("create_revision", kv.created.0)
        .number("mod_revision", kv.modified.0)
        .number("version", kv.version)
        .bytes("value", &kv.value)
        .number("lease", kv.lease.0)
        .end()
}

fn range(response: &pb::RangeResponse) -> String {
    Object::new()
        .header(&response.header)
        .list("kvs", &response.kvs, array(&response.kvs, key_value))
        .bool("more", response.more)
        .number("count", response.count)
        .end()
}

fn put(response: &pb::PutResponse) -> String {
    let object = Object::new().header(&response.header);
    match &response.prev_kv {
        Some(raw) => object.always("prev_kv", key_value(raw)).end(),
        None => object.end(),
    }
}

fn del(response: &pb::DeleteRangeResponse) -> String {
    Object::new()
        .header(&response.header)
        .number("deleted", response.deleted)
        .list("prev_kvs", &response.prev_kvs, array(&response.prev_kvs, key_value))
        .end()
}

fn txn(response: &pb::TxnResponse) -> String {
    use pb::response_op::Response;
    let responses = array(&response.responses, |op| {
        let inner = match &op.response {
            Some(Response::ResponseRange(one)) => Object::new().always("response_range", range(one)).end(),
            Some(Response::ResponsePut(one)) => Object::new().always("response_put", put(one)).end(),
            Some(Response::ResponseDeleteRange(one)) => {
                Object::new().always("response_delete_range", del(one)).end()
            }
            Some(Response::ResponseTxn(one)) => Object::new().always("response_txn", txn(one)).end(),
            None => "null".into(),
        };
        Object::new().always("Response", inner).end()
    });
    Object::new()
        .header(&response.header)
        .bool("succeeded", response.succeeded)
        .list("responses", &response.responses, responses)
        .end()
}

fn event(event: &mvccpb::Event) -> String {
    let object = if is_delete(event) { Object::new().always("type", 1) } else { Object::new() };
    let object = match &event.kv {
        Some(raw) => object.always("kv", key_value(raw)),
        None => object,
    };
    match &event.prev_kv {
        Some(raw) => object.always("prev_kv", key_value(raw)).end(),
        None => object.end(),
    }
}

fn watch(response: &pb::WatchResponse) -> String {
    Object::new()
        .always("Header", flat(&response.header).end())
        .always("Events", array(&response.events, event))
        .always("CompactRevision", response.compact_revision)
        .always("Canceled", response.canceled)
        .always("Created", response.created)
        .end()
}

fn time_to_live(response: &pb::LeaseTimeToLiveResponse, keys: bool) -> String {
    let keys = match (keys, response.keys.as_slice()) {
        (false, _) | (true, []) => "null".into(),
        (true, keys) => array(keys, |key| string(&STANDARD.encode(key))),
    };
    flat(&response.header)
        .always("id", response.id)
        .always("ttl", response.ttl)
        .always("granted-ttl", response.granted_ttl)
        .always("keys", keys)
        .end()
}

fn role(response: &pb::AuthRoleGetResponse) -> String {
    let permissions = array(&response.perm, |permission| {
        Object::new()
            .number("permType", permission.perm_type)
            .bytes("key", &permission.key)
            .bytes("range_end", &permission.range_end)
            .end()
    });
    Object::new().header(&response.header).list("perm", &response.perm, permissions).end()
}

fn member(member: &pb::Member) -> String {
    Object::new()
        .number("ID", member.id)
        .text("name", &member.name)
        .texts("peerURLs", &member.peer_ur_ls)
        .texts("clientURLs", &member.client_ur_ls)
        .bool("isLearner", member.is_learner)
        .end()
}

fn members(object: Object, members: &[pb::Member]) -> String {
    object.list("members", members, array(members, member)).end()
}

/// `member list --hex` has a shape of its own, down to the spelling of `clientURLS`.
fn hex_member_list(response: &pb::MemberListResponse) -> String {
    let header = response.header.unwrap_or_default();
    let header = Object::new()
        .text("cluster_id", &format!("{:x}", header.cluster_id))
        .text("member_id", &format!("{:x}", header.member_id))
        .number("revision", header.revision)
        .number("raft_term", header.raft_term)
        .end();
    let members = array(&response.members, |member| {
        Object::new()
            .text("ID", &format!("{:x}", member.id))
            .text("name", &member.name)
            .texts("peerURLs", &member.peer_ur_ls)
            .texts("clientURLS", &member.client_ur_ls)
            .bool("isLearner", member.is_learner)
            .end()
    });
    Object::new().always("header", header).list("members", &response.members, members).end()
}

fn status(status: &pb::StatusResponse) -> String {
    Object::new()
        .header(&status.header)
        .text("version", &status.version)
        .number("dbSize", status.db_size)
        .number("leader", status.leader)
        .number("raftIndex", status.raft_index)
        .number("raftTerm", status.raft_term)
        .number("raftAppliedIndex", status.raft_applied_index)
        .texts("errors", &status.errors)
        .number("dbSizeInUse", status.db_size_in_use)
        .bool("isLearner", status.is_learner)
        .end()
}

fn hash(hash: &pb::HashKvResponse) -> String {
    Object::new()
        .header(&hash.header)
        .number("hash", hash.hash)
        .number("compact_revision", hash.compact_revision)
        .end()
}
