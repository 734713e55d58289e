//! What commands print: one [`Reply`] for all that a server can answer, one [`Printer`] for each format.
//!
//! Printers are pure: a reply goes in, the bytes for standard output and error come out. What a format has no
//! form for is [`Unsupported`], which etcdctl finds out only after the call was made, and so do we.
//!
//! ```text
//! Reply::Put ── simple ──▶ OK
//!            ── json ────▶ {"header":{"cluster_id":…}}
//!            ── table ───▶ Unsupported
//! ```

mod fields;
pub mod json;
mod protobuf;
mod simple;
mod table;

use std::time::Duration;

use crate::{
    types::KeyValue,
    wire::{RawKeyValue, etcdserverpb as pb},
};

/// The answer of a command, whatever it will look like.
#[derive(Clone, Debug)]
pub enum Reply {
    /// `get`; `value_only` leaves the keys out of the simple format.
    Get {
        /// The server's answer.
        response: pb::RangeResponse,
        /// From `--print-value-only`.
        value_only: bool,
    },
    /// `put`.
    Put(pb::PutResponse),
    /// `del`.
    Del(pb::DeleteRangeResponse),
    /// `txn`.
    Txn(pb::TxnResponse),
    /// One message of `watch`.
    Watch(pb::WatchResponse),
    /// `lease grant`.
    Grant(pb::LeaseGrantResponse),
    /// `lease revoke`, with the lease it was about.
    Revoke(i64, pb::LeaseRevokeResponse),
    /// `lease timetolive`; true if keys were asked for.
    TimeToLive(pb::LeaseTimeToLiveResponse, bool),
    /// `lease list`.
    Leases(pb::LeaseLeasesResponse),
    /// One renewal of `lease keep-alive`.
    KeepAlive(pb::LeaseKeepAliveResponse),
    /// `member list`.
    MemberList(pb::MemberListResponse),
    /// `member add`.
    MemberAdd(pb::MemberAddResponse),
    /// `member remove`, with the member it was about.
    MemberRemove(u64, pb::MemberRemoveResponse),
    /// `member update`, with the member it was about.
    MemberUpdate(u64, pb::MemberUpdateResponse),
    /// `member promote`, with the member it was about.
    MemberPromote(u64, pb::MemberPromoteResponse),
    /// `endpoint status`: endpoints with their answers.
    Status(Vec<(String, pb::StatusResponse)>),
    /// `endpoint health`.
    Health(Vec<Health>),
    /// `endpoint hashkv`: endpoints with their answers.
    HashKv(Vec<(String, pb::HashKvResponse)>),
    /// `alarm list` and `alarm disarm`.
    Alarms(pb::AlarmResponse),
    /// `move-leader`: from, to.
    MoveLeader(u64, u64, pb::MoveLeaderResponse),
    /// What changed users or roles: its sentence, and the answer's header, which is all of it.
    Changed(String, Option<pb::ResponseHeader>),
    /// `auth status`.
    AuthStatus(pb::AuthStatusResponse),
    /// `user get`, with the user's name.
    UserGet(String, pb::AuthUserGetResponse),
    /// `user list`.
    UserList(pb::AuthUserListResponse),
    /// `role get`, with the role's name.
    RoleGet(String, pb::AuthRoleGetResponse),
    /// `role list`.
    RoleList(pb::AuthRoleListResponse),
}

/// One endpoint's health.
#[derive(Clone, Debug)]
pub struct Health {
    /// As given.
    pub endpoint: String,
    /// How long the linearizable read took.
    pub took: Duration,
    /// What is wrong, or nothing.
    pub error: Option<String>,
}

/// What goes to standard output, and what to standard error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Printed {
    /// Standard output.
    pub out: Vec<u8>,
    /// Standard error.
    pub err: String,
}

impl From<Vec<u8>> for Printed {
    fn from(out: Vec<u8>) -> Self {
        Self { out, err: String::new() }
    }
}

impl From<String> for Printed {
    fn from(out: String) -> Self {
        out.into_bytes().into()
    }
}

/// The format has no form for the reply; holds the sentence to print.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsupported(pub String);

impl Unsupported {
    fn format(name: &str) -> Self {
        Self(format!("{name} not supported as output format"))
    }
}

/// An output format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Simple,
    /// Go's JSON of the answer, in one line.
    Json,
    /// `"Name" : value` lines.
    Fields,
    /// The answer's bytes.
    Protobuf,
    /// Boxes.
    Table,
}

impl Format {
    /// The format by its name.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "simple" => Some(Self::Simple),
            "json" => Some(Self::Json),
            "fields" => Some(Self::Fields),
            "protobuf" => Some(Self::Protobuf),
            "table" => Some(Self::Table),
            _ => None,
        }
    }
}

/// Turns replies into bytes.
pub trait Printer: Send + Sync {
    /// Which format this is.
    fn format(&self) -> Format;

    /// The reply's form.
    fn print(&self, reply: &Reply) -> Result<Printed, Unsupported>;
}

/// The printer of a format; `hex` is etcdctl's `--hex`.
pub fn printer(format: Format, hex: bool) -> Box<dyn Printer> {
    match format {
        Format::Simple => Box::new(simple::Simple { hex }),
        Format::Json => Box::new(json::Json { hex }),
        Format::Fields => Box::new(fields::Fields),
        Format::Protobuf => Box::new(protobuf::Protobuf),
        Format::Table => Box::new(table::Table),
    }
}

/// A stored key-value; what can't be decoded is shown as empty, since a client can't do more about it.
fn kv(raw: &RawKeyValue) -> KeyValue {
    raw.decode_kv().unwrap_or_default()
}

/// True if an event is a deletion.
fn is_delete(event: &crate::wire::mvccpb::Event) -> bool {
    event.r#type == crate::wire::mvccpb::event::EventType::Delete as i32
}

/// The text of an alarm: decimal member id, type, and etcd's space at the end.
pub fn alarm_text(alarm: &pb::AlarmMember) -> String {
    format!("memberID:{} alarm:{} ", alarm.member_id, alarm_name(alarm.alarm))
}

/// The name of an alarm's type.
fn alarm_name(alarm: i32) -> String {
    match pb::AlarmType::try_from(alarm) {
        Ok(pb::AlarmType::None) => "NONE".into(),
        Ok(pb::AlarmType::Nospace) => "NOSPACE".into(),
        Ok(pb::AlarmType::Corrupt) => "CORRUPT".into(),
        Err(_) => alarm.to_string(),
    }
}

#[cfg(test)]
mod tests;
