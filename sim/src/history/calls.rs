//! The unary calls of etcd's API with their answers.

use bytes::Bytes;
use kontiki::wire::{etcdserverpb as pb, v3electionpb as electionpb, v3lockpb as lockpb};
use prost::{DecodeError, Message};

macro_rules! calls {
    ($($name:ident($request:ty) -> $response:ty;)*) => {
        /// What was asked of a member.
        #[derive(Clone, Debug, PartialEq)]
        #[allow(missing_docs)]
        pub enum Call {
            $($name($request),)*
        }

        /// What it answered.
        #[derive(Clone, Debug, PartialEq)]
        #[allow(missing_docs)]
        pub enum Reply {
            $($name($response),)*
        }

        impl Call {
            /// The method's name.
            pub const fn name(&self) -> &'static str {
                match self {
                    $(Self::$name(_) => stringify!($name),)*
                }
            }

            /// The request's bytes.
            pub fn encode(&self) -> Vec<u8> {
                match self {
                    $(Self::$name(request) => request.encode_to_vec(),)*
                }
            }

            /// Reads [`Call::encode`] back; none if there is no such method.
            pub fn decode(name: &str, bytes: Bytes) -> Option<Result<Self, DecodeError>> {
                match name {
                    $(stringify!($name) => Some(<$request>::decode(bytes).map(Self::$name)),)*
                    _ => None,
                }
            }
        }

        impl Reply {
            /// The method's name.
            pub const fn name(&self) -> &'static str {
                match self {
                    $(Self::$name(_) => stringify!($name),)*
                }
            }

            /// The header, which each has.
            pub const fn header(&self) -> Option<&pb::ResponseHeader> {
                match self {
                    $(Self::$name(response) => response.header.as_ref(),)*
                }
            }

            /// The response's bytes.
            pub fn encode(&self) -> Vec<u8> {
                match self {
                    $(Self::$name(response) => response.encode_to_vec(),)*
                }
            }

            /// Reads [`Reply::encode`] back; none if there is no such method.
            pub fn decode(name: &str, bytes: Bytes) -> Option<Result<Self, DecodeError>> {
                match name {
                    $(stringify!($name) => Some(<$response>::decode(bytes).map(Self::$name)),)*
                    _ => None,
                }
            }
        }

        $(
            impl From<$request> for Call {
                fn from(request: $request) -> Self {
                    Self::$name(request)
                }
            }

            impl From<$response> for Reply {
                fn from(response: $response) -> Self {
                    Self::$name(response)
                }
            }
        )*
    };
}

calls! {
    Range(pb::RangeRequest) -> pb::RangeResponse;
    Put(pb::PutRequest) -> pb::PutResponse;
    DeleteRange(pb::DeleteRangeRequest) -> pb::DeleteRangeResponse;
    Txn(pb::TxnRequest) -> pb::TxnResponse;
    Compact(pb::CompactionRequest) -> pb::CompactionResponse;
    LeaseGrant(pb::LeaseGrantRequest) -> pb::LeaseGrantResponse;
    LeaseRevoke(pb::LeaseRevokeRequest) -> pb::LeaseRevokeResponse;
    LeaseKeepAlive(pb::LeaseKeepAliveRequest) -> pb::LeaseKeepAliveResponse;
    LeaseTimeToLive(pb::LeaseTimeToLiveRequest) -> pb::LeaseTimeToLiveResponse;
    LeaseLeases(pb::LeaseLeasesRequest) -> pb::LeaseLeasesResponse;
    MemberAdd(pb::MemberAddRequest) -> pb::MemberAddResponse;
    MemberRemove(pb::MemberRemoveRequest) -> pb::MemberRemoveResponse;
    MemberUpdate(pb::MemberUpdateRequest) -> pb::MemberUpdateResponse;
    MemberList(pb::MemberListRequest) -> pb::MemberListResponse;
    MemberPromote(pb::MemberPromoteRequest) -> pb::MemberPromoteResponse;
    Alarm(pb::AlarmRequest) -> pb::AlarmResponse;
    Status(pb::StatusRequest) -> pb::StatusResponse;
    Defragment(pb::DefragmentRequest) -> pb::DefragmentResponse;
    Hash(pb::HashRequest) -> pb::HashResponse;
    HashKv(pb::HashKvRequest) -> pb::HashKvResponse;
    MoveLeader(pb::MoveLeaderRequest) -> pb::MoveLeaderResponse;
    Downgrade(pb::DowngradeRequest) -> pb::DowngradeResponse;
    AuthEnable(pb::AuthEnableRequest) -> pb::AuthEnableResponse;
    AuthDisable(pb::AuthDisableRequest) -> pb::AuthDisableResponse;
    AuthStatus(pb::AuthStatusRequest) -> pb::AuthStatusResponse;
    Authenticate(pb::AuthenticateRequest) -> pb::AuthenticateResponse;
    UserAdd(pb::AuthUserAddRequest) -> pb::AuthUserAddResponse;
    UserGet(pb::AuthUserGetRequest) -> pb::AuthUserGetResponse;
    UserList(pb::AuthUserListRequest) -> pb::AuthUserListResponse;
    UserDelete(pb::AuthUserDeleteRequest) -> pb::AuthUserDeleteResponse;
    UserChangePassword(pb::AuthUserChangePasswordRequest) -> pb::AuthUserChangePasswordResponse;
    UserGrantRole(pb::AuthUserGrantRoleRequest) -> pb::AuthUserGrantRoleResponse;
    UserRevokeRole(pb::AuthUserRevokeRoleRequest) -> pb::AuthUserRevokeRoleResponse;
    RoleAdd(pb::AuthRoleAddRequest) -> pb::AuthRoleAddResponse;
    RoleGet(pb::AuthRoleGetRequest) -> pb::AuthRoleGetResponse;
    RoleList(pb::AuthRoleListRequest) -> pb::AuthRoleListResponse;
    RoleDelete(pb::AuthRoleDeleteRequest) -> pb::AuthRoleDeleteResponse;
    RoleGrantPermission(pb::AuthRoleGrantPermissionRequest) -> pb::AuthRoleGrantPermissionResponse;
    RoleRevokePermission(pb::AuthRoleRevokePermissionRequest) -> pb::AuthRoleRevokePermissionResponse;
    Lock(lockpb::LockRequest) -> lockpb::LockResponse;
    Unlock(lockpb::UnlockRequest) -> lockpb::UnlockResponse;
    Campaign(electionpb::CampaignRequest) -> electionpb::CampaignResponse;
    Proclaim(electionpb::ProclaimRequest) -> electionpb::ProclaimResponse;
    Leader(electionpb::LeaderRequest) -> electionpb::LeaderResponse;
    Resign(electionpb::ResignRequest) -> electionpb::ResignResponse;
}
