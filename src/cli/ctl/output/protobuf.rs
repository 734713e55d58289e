//! The answer's bytes as they were on the wire, for programs.

use prost::Message;

use super::{Format, Printed, Printer, Reply, Unsupported};
use crate::wire::etcdserverpb as pb;

/// See the module.
pub struct Protobuf;

impl Printer for Protobuf {
    fn format(&self) -> Format {
        Format::Protobuf
    }

    fn print(&self, reply: &Reply) -> Result<Printed, Unsupported> {
        // etcdctl's lease answers are no messages of their own, only their headers are.
        let header = |header: &Option<pb::ResponseHeader>| header.unwrap_or_default().encode_to_vec();
        let bytes = match reply {
            Reply::Get { response, .. } => response.encode_to_vec(),
            Reply::Put(response) => response.encode_to_vec(),
            Reply::Del(response) => response.encode_to_vec(),
            Reply::Txn(response) => response.encode_to_vec(),
            Reply::Watch(response) => response.encode_to_vec(),
            Reply::Grant(response) => header(&response.header),
            Reply::TimeToLive(response, _) => header(&response.header),
            Reply::Leases(response) => header(&response.header),
            Reply::KeepAlive(response) => header(&response.header),
            Reply::MemberList(response) => response.encode_to_vec(),
            Reply::MemberAdd(response) => response.encode_to_vec(),
            Reply::MemberRemove(_, response) => response.encode_to_vec(),
            Reply::MemberUpdate(_, response) => response.encode_to_vec(),
            Reply::MemberPromote(_, response) => response.encode_to_vec(),
            Reply::Alarms(response) => response.encode_to_vec(),
            Reply::MoveLeader(_, _, response) => response.encode_to_vec(),
            // All of these answers have their header in the same place.
            Reply::Changed(_, header) => pb::AuthRoleAddResponse { header: *header }.encode_to_vec(),
            Reply::AuthStatus(response) => response.encode_to_vec(),
            Reply::UserGet(_, response) => response.encode_to_vec(),
            Reply::UserList(response) => response.encode_to_vec(),
            Reply::RoleGet(_, response) => response.encode_to_vec(),
            Reply::RoleList(response) => response.encode_to_vec(),
            Reply::Revoke(_, response) => return Err(no_form(&response.header.unwrap_or_default())),
            Reply::Status(_) | Reply::Health(_) | Reply::HashKv(_) => {
                return Err(Unsupported::format("protobuf"));
            }
        };
        Ok(bytes.into())
    }
}

/// etcdctl's sentence for the one answer that it can't encode.
fn no_form(header: &pb::ResponseHeader) -> Unsupported {
    let pb::ResponseHeader { cluster_id, member_id, revision, raft_term } = header;
    let pairs = [
        ("cluster_id", i128::from(*cluster_id)),
        ("member_id", i128::from(*member_id)),
        ("revision", i128::from(*revision)),
        ("raft_term", i128::from(*raft_term)),
    ];
    let text: String = pairs
        .iter()
        .filter(|(_, value)| *value != 0)
        .map(|(name, value)| format!("{name}:{value} "))
        .collect();
    Unsupported(format!("marshal unsupported for type clientv3.LeaseRevokeResponse ({{{text} {{}} [] 0}})"))
}
