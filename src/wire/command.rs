//! The payloads of the log's entries: etcd's `InternalRaftRequest`, and the older form that etcd 3.5 logs for
//! members' attributes and the cluster's version.
//!
//! What is written is what etcd 3.5 and later apply: the operation, and a header with the request's id, its user
//! and the authorization revision. Attributes and version are written as 3.6 does it, which 3.5 applies too.
//!
//! Reading follows etcd's rule: what does not parse as an `InternalRaftRequest` is a bare request of the v2 API.
//! The method's text never is a legal part of the former.

use bytes::Bytes;
use prost::Message as _;
use serde::Deserialize;

use super::{auth, etcdserverpb as pb, internalpb, kv};
use crate::{
    error::Fault,
    state::{Alarm, AlarmAction, AlarmKind, Command, Request},
    types::{LeaseId, NodeId, Revision},
};

const MEMBERS_PREFIX: &str = "/0/members/";
const ATTRIBUTES_SUFFIX: &str = "/attributes";
const VERSION_PATH: &str = "/0/version";
/// Where the v2 API keeps its keys. Nothing of the v3 API's sees them.
const V2_KEYS_PREFIX: &str = "/1";

/// Encodes a request.
pub fn encode(request: &Request) -> Bytes {
    let mut wire = internalpb::InternalRaftRequest {
        header: Some(internalpb::RequestHeader {
            id: request.id,
            username: request.user.clone(),
            auth_revision: request.auth_revision,
        }),
        ..Default::default()
    };
    match &request.command {
        Command::Range(range) => wire.range = Some(kv::range_to_wire(range)),
        Command::Put(put) => wire.put = Some(kv::put_to_wire(put)),
        Command::Delete(delete) => wire.delete_range = Some(kv::delete_to_wire(delete)),
        Command::Txn(txn) => wire.txn = Some(kv::txn_to_wire(txn)),
        Command::Compact { revision } => {
            wire.compaction = Some(pb::CompactionRequest { revision: revision.0, physical: false });
        }
        Command::LeaseGrant { id, ttl } => {
            wire.lease_grant = Some(pb::LeaseGrantRequest { ttl: *ttl, id: id.0 });
        }
        Command::LeaseRevoke { id } => wire.lease_revoke = Some(pb::LeaseRevokeRequest { id: id.0 }),
        Command::LeaseCheckpoint(checkpoints) => {
            let checkpoints = checkpoints.iter();
            let checkpoints = checkpoints
                .map(|(id, remaining)| internalpb::LeaseCheckpoint { id: id.0, remaining_ttl: *remaining })
                .collect();
            wire.lease_checkpoint = Some(internalpb::LeaseCheckpointRequest { checkpoints });
        }
        Command::Alarm { action, alarm } => wire.alarm = Some(alarm_to_wire(*action, *alarm)),
        Command::SetClusterVersion(version) => {
            wire.cluster_version_set = Some(internalpb::ClusterVersionSetRequest { ver: version.clone() });
        }
        Command::SetMemberAttributes { id, name, client_urls } => {
            wire.cluster_member_attr_set = Some(internalpb::ClusterMemberAttrSetRequest {
                member_id: id.0,
                member_attributes: Some(internalpb::Attributes {
                    name: name.clone(),
                    client_urls: client_urls.clone(),
                }),
            });
        }
        Command::SetDowngrade { enabled, version } => {
            wire.downgrade_info_set =
                Some(internalpb::DowngradeInfoSetRequest { enabled: *enabled, ver: version.clone() });
        }
        Command::Auth(action) => auth::to_wire(action, &mut wire),
        // Upkeep of a v2 API in which there is nothing.
        Command::Nothing => {
            let sync =
                internalpb::LegacyRequest { id: request.id, method: "SYNC".into(), ..Default::default() };
            wire.v2 = Some(sync);
        }
    }
    wire.encode_to_vec().into()
}

/// Decodes the payload of an entry. What no etcd of a known version writes is a fault.
pub fn decode(bytes: &Bytes) -> Result<Request, Fault> {
    let Ok(wire) = internalpb::InternalRaftRequest::decode(bytes.clone()) else {
        let legacy = internalpb::LegacyRequest::decode(bytes.clone())
            .map_err(|error| Fault::corrupt(format!("{} bytes that are no request: {error}", bytes.len())))?;
        return legacy_request(legacy);
    };
    let header = wire.header.clone().unwrap_or_default();
    let id = if wire.id != 0 { wire.id } else { header.id };
    if let Some(legacy) = wire.v2 {
        let request = legacy_request(legacy)?;
        return Ok(Request { user: header.username, auth_revision: header.auth_revision, ..request });
    }
    let command = match operation(wire)? {
        Some(command) => command,
        None => return Err(Fault::corrupt(no_operation(bytes))),
    };
    Ok(Request { id, user: header.username, auth_revision: header.auth_revision, command })
}

/// The operation of a request; None if there is none that is known.
fn operation(wire: internalpb::InternalRaftRequest) -> Result<Option<Command>, Fault> {
    let found = if let Some(range) = wire.range {
        Some(Command::Range(kv::range(range)))
    } else if let Some(put) = wire.put {
        Some(Command::Put(kv::put(put)))
    } else if let Some(delete) = wire.delete_range {
        Some(Command::Delete(kv::delete(delete)))
    } else if let Some(txn) = wire.txn {
        Some(Command::Txn(kv::txn(txn)))
    } else if let Some(compaction) = wire.compaction {
        Some(Command::Compact { revision: Revision(compaction.revision) })
    } else if let Some(grant) = wire.lease_grant {
        Some(Command::LeaseGrant { id: LeaseId(grant.id), ttl: grant.ttl })
    } else if let Some(revoke) = wire.lease_revoke {
        Some(Command::LeaseRevoke { id: LeaseId(revoke.id) })
    } else if let Some(checkpoint) = wire.lease_checkpoint {
        let checkpoints = checkpoint.checkpoints.into_iter();
        Some(Command::LeaseCheckpoint(checkpoints.map(|one| (LeaseId(one.id), one.remaining_ttl)).collect()))
    } else if let Some(alarm) = wire.alarm {
        Some(alarm_from_wire(&alarm)?)
    } else if let Some(set) = wire.cluster_version_set {
        Some(Command::SetClusterVersion(set.ver))
    } else if let Some(set) = wire.cluster_member_attr_set {
        let attributes = set.member_attributes.unwrap_or_default();
        Some(Command::SetMemberAttributes {
            id: NodeId(set.member_id),
            name: attributes.name,
            client_urls: attributes.client_urls,
        })
    } else if let Some(set) = wire.downgrade_info_set {
        Some(Command::SetDowngrade { enabled: set.enabled, version: set.ver })
    } else {
        auth::from_wire(wire).map(Command::Auth)
    };
    Ok(found)
}

/// Says which fields a request without a known operation has.
fn no_operation(bytes: &Bytes) -> String {
    let mut buf = bytes.clone();
    let mut fields = Vec::new();
    while !buf.is_empty() {
        let Ok((tag, wire)) = prost::encoding::decode_key(&mut buf) else { break };
        if prost::encoding::skip_field(wire, tag, &mut buf, Default::default()).is_err() {
            break;
        }
        if tag != 1 && tag != 100 {
            fields.push(tag.to_string());
        }
    }
    match fields.is_empty() {
        true => "a request without an operation".into(),
        false => format!(
            "a request whose operation (field {}) is not known to this version; run one that knows it",
            fields.join(", ")
        ),
    }
}

fn alarm_to_wire(action: AlarmAction, alarm: Alarm) -> pb::AlarmRequest {
    let action = match action {
        AlarmAction::Get => pb::alarm_request::AlarmAction::Get,
        AlarmAction::Activate => pb::alarm_request::AlarmAction::Activate,
        AlarmAction::Deactivate => pb::alarm_request::AlarmAction::Deactivate,
    };
    let kind = match alarm.kind {
        AlarmKind::None => pb::AlarmType::None,
        AlarmKind::NoSpace => pb::AlarmType::Nospace,
        AlarmKind::Corrupt => pb::AlarmType::Corrupt,
    };
    pb::AlarmRequest { action: action.into(), member_id: alarm.member.0, alarm: kind.into() }
}

fn alarm_from_wire(wire: &pb::AlarmRequest) -> Result<Command, Fault> {
    let action = match pb::alarm_request::AlarmAction::try_from(wire.action) {
        Ok(pb::alarm_request::AlarmAction::Get) => AlarmAction::Get,
        Ok(pb::alarm_request::AlarmAction::Activate) => AlarmAction::Activate,
        Ok(pb::alarm_request::AlarmAction::Deactivate) => AlarmAction::Deactivate,
        Err(_) => return Err(Fault::corrupt(format!("the alarm action {} is not known", wire.action))),
    };
    let kind = match pb::AlarmType::try_from(wire.alarm) {
        Ok(pb::AlarmType::None) => AlarmKind::None,
        Ok(pb::AlarmType::Nospace) => AlarmKind::NoSpace,
        Ok(pb::AlarmType::Corrupt) => AlarmKind::Corrupt,
        Err(_) => return Err(Fault::corrupt(format!("the alarm type {} is not known", wire.alarm))),
    };
    Ok(Command::Alarm { action, alarm: Alarm { member: NodeId(wire.member_id), kind } })
}

/// A member's attributes, in the value of a v2 request.
#[derive(Deserialize)]
struct AttributesJson {
    #[serde(default)]
    name: String,
    #[serde(rename = "clientURLs", default)]
    client_urls: Option<Vec<String>>,
}

/// A request of the v2 API, as 3.5's servers log it for their own needs.
fn legacy_request(legacy: internalpb::LegacyRequest) -> Result<Request, Fault> {
    let (method, path) = (legacy.method.as_str(), legacy.path.as_str());
    let command = match method {
        "SYNC" | "QGET" | "GET" => Command::Nothing,
        "PUT" if path == VERSION_PATH => Command::SetClusterVersion(legacy.val),
        "PUT" if path.starts_with(MEMBERS_PREFIX) && path.ends_with(ATTRIBUTES_SUFFIX) => {
            attributes(path, &legacy.val)?
        }
        "PUT" | "POST" | "DELETE" if path.starts_with(V2_KEYS_PREFIX) => Command::Nothing,
        _ => return Err(Fault::corrupt(format!("the v2 request {method:?} of {path:?} is not known"))),
    };
    Ok(Request { id: legacy.id, user: String::new(), auth_revision: 0, command })
}

fn attributes(path: &str, json: &str) -> Result<Command, Fault> {
    let id = path.strip_prefix(MEMBERS_PREFIX).and_then(|rest| rest.strip_suffix(ATTRIBUTES_SUFFIX));
    let id = id.and_then(|hex| u64::from_str_radix(hex, 16).ok());
    let id = id.ok_or_else(|| Fault::corrupt(format!("the v2 path {path:?} names no member")))?;
    let attributes: AttributesJson = serde_json::from_str(json)
        .map_err(|error| Fault::corrupt(format!("the attributes of member {id:x} can't be read: {error}")))?;
    let client_urls = attributes.client_urls.unwrap_or_default();
    Ok(Command::SetMemberAttributes { id: NodeId(id), name: attributes.name, client_urls })
}
