//! The unary calls of etcd's API with their answers.

use bytes::Bytes;
use kontiki::wire::etcdserverpb as pb;
use prost::{DecodeError, Message};

macro_rules! calls {
    ($($name:ident($request:ident) -> $response:ident;)*) => {
        /// What was asked of a member.
        #[derive(Clone, Debug, PartialEq)]
        #[allow(missing_docs)]
        pub enum Call {
            $($name(pb::$request),)*
        }

        /// What it answered.
        #[derive(Clone, Debug, PartialEq)]
        #[allow(missing_docs)]
        pub enum Reply {
            $($name(pb::$response),)*
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
                    $(stringify!($name) => Some(pb::$request::decode(bytes).map(Self::$name)),)*
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
                    $(stringify!($name) => Some(pb::$response::decode(bytes).map(Self::$name)),)*
                    _ => None,
                }
            }
        }

        $(
            impl From<pb::$request> for Call {
                fn from(request: pb::$request) -> Self {
                    Self::$name(request)
                }
            }

            impl From<pb::$response> for Reply {
                fn from(response: pb::$response) -> Self {
                    Self::$name(response)
                }
            }
        )*
    };
}

calls! {
    Range(RangeRequest) -> RangeResponse;
    Put(PutRequest) -> PutResponse;
    DeleteRange(DeleteRangeRequest) -> DeleteRangeResponse;
    Txn(TxnRequest) -> TxnResponse;
    Compact(CompactionRequest) -> CompactionResponse;
    LeaseGrant(LeaseGrantRequest) -> LeaseGrantResponse;
    LeaseRevoke(LeaseRevokeRequest) -> LeaseRevokeResponse;
    LeaseKeepAlive(LeaseKeepAliveRequest) -> LeaseKeepAliveResponse;
    LeaseTimeToLive(LeaseTimeToLiveRequest) -> LeaseTimeToLiveResponse;
    LeaseLeases(LeaseLeasesRequest) -> LeaseLeasesResponse;
    MemberAdd(MemberAddRequest) -> MemberAddResponse;
    MemberRemove(MemberRemoveRequest) -> MemberRemoveResponse;
    MemberUpdate(MemberUpdateRequest) -> MemberUpdateResponse;
    MemberList(MemberListRequest) -> MemberListResponse;
    MemberPromote(MemberPromoteRequest) -> MemberPromoteResponse;
    Alarm(AlarmRequest) -> AlarmResponse;
    Status(StatusRequest) -> StatusResponse;
    Defragment(DefragmentRequest) -> DefragmentResponse;
    Hash(HashRequest) -> HashResponse;
    HashKv(HashKvRequest) -> HashKvResponse;
    MoveLeader(MoveLeaderRequest) -> MoveLeaderResponse;
    Downgrade(DowngradeRequest) -> DowngradeResponse;
    AuthEnable(AuthEnableRequest) -> AuthEnableResponse;
    AuthDisable(AuthDisableRequest) -> AuthDisableResponse;
    AuthStatus(AuthStatusRequest) -> AuthStatusResponse;
    Authenticate(AuthenticateRequest) -> AuthenticateResponse;
    UserAdd(AuthUserAddRequest) -> AuthUserAddResponse;
    UserGet(AuthUserGetRequest) -> AuthUserGetResponse;
    UserList(AuthUserListRequest) -> AuthUserListResponse;
    UserDelete(AuthUserDeleteRequest) -> AuthUserDeleteResponse;
    UserChangePassword(AuthUserChangePasswordRequest) -> AuthUserChangePasswordResponse;
    UserGrantRole(AuthUserGrantRoleRequest) -> AuthUserGrantRoleResponse;
    UserRevokeRole(AuthUserRevokeRoleRequest) -> AuthUserRevokeRoleResponse;
    RoleAdd(AuthRoleAddRequest) -> AuthRoleAddResponse;
    RoleGet(AuthRoleGetRequest) -> AuthRoleGetResponse;
    RoleList(AuthRoleListRequest) -> AuthRoleListResponse;
    RoleDelete(AuthRoleDeleteRequest) -> AuthRoleDeleteResponse;
    RoleGrantPermission(AuthRoleGrantPermissionRequest) -> AuthRoleGrantPermissionResponse;
    RoleRevokePermission(AuthRoleRevokePermissionRequest) -> AuthRoleRevokePermissionResponse;
}
