//! What a request is refused with: etcd's texts and gRPC codes, in one closed enum.
//!
//! A [`Refusal`] is deterministic: each replica that applies the same entry gives the same one, so it is a
//! reply. What is not deterministic (I/O, corruption, a broken invariant) is a [`Fault`]: it stops the node.

use thiserror::Error;

/// The gRPC code of a refusal, by its number on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Code {
    Canceled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    DataLoss = 15,
    Unauthenticated = 16,
}

macro_rules! refusals {
    ($($name:ident, $code:ident, $text:literal;)*) => {
        /// Why a request was refused, with etcd's text (`contract/errors.md`).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
        #[allow(missing_docs)]
        pub enum Refusal {
            $(#[error($text)] $name,)*
        }

        impl Refusal {
            /// The gRPC code that etcd sends with it.
            pub const fn code(self) -> Code {
                match self {
                    $(Self::$name => Code::$code,)*
                }
            }
        }
    };
}

refusals! {
    EmptyKey, InvalidArgument, "etcdserver: key is not provided";
    KeyNotFound, InvalidArgument, "etcdserver: key not found";
    ValueProvided, InvalidArgument, "etcdserver: value is provided";
    LeaseProvided, InvalidArgument, "etcdserver: lease is provided";
    TooManyOps, InvalidArgument, "etcdserver: too many operations in txn request";
    DuplicateKey, InvalidArgument, "etcdserver: duplicate key given in txn request";
    InvalidSortOption, InvalidArgument, "etcdserver: invalid sort option";
    InvalidClientApiVersion, InvalidArgument, "etcdserver: invalid client api version";
    Compacted, OutOfRange, "etcdserver: mvcc: required revision has been compacted";
    FutureRevision, OutOfRange, "etcdserver: mvcc: required revision is a future revision";
    NoSpace, ResourceExhausted, "etcdserver: mvcc: database space exceeded";
    LeaseNotFound, NotFound, "etcdserver: requested lease not found";
    LeaseExists, FailedPrecondition, "etcdserver: lease already exists";
    LeaseTtlTooLarge, OutOfRange, "etcdserver: too large lease TTL";
    WatchCanceled, Canceled, "etcdserver: watch canceled";
    MemberExists, FailedPrecondition, "etcdserver: member ID already exist";
    PeerUrlExists, FailedPrecondition, "etcdserver: Peer URLs already exists";
    NotEnoughStartedMembers, Unknown, "etcdserver: re-configuration failed due to not enough started members";
    BadMemberUrls, InvalidArgument, "etcdserver: given member URLs are invalid";
    MemberNotFound, NotFound, "etcdserver: member not found";
    MemberNotLearner, FailedPrecondition, "etcdserver: can only promote a learner member";
    LearnerNotReady, FailedPrecondition, "etcdserver: can only promote a learner member which is in sync with leader";
    TooManyLearners, FailedPrecondition, "etcdserver: too many learner members in cluster";
    ClusterIdMismatch, FailedPrecondition, "etcdserver: cluster ID mismatch";
    RequestTooLarge, InvalidArgument, "etcdserver: request is too large";
    TooManyRequests, Unknown, "etcdserver: too many requests";
    NoLeader, Unavailable, "etcdserver: no leader";
    NotLeader, FailedPrecondition, "etcdserver: not leader";
    LeaderChanged, Unavailable, "etcdserver: leader changed";
    NotCapable, Unavailable, "etcdserver: not capable";
    Stopped, Unavailable, "etcdserver: server stopped";
    Timeout, Unavailable, "etcdserver: request timed out";
    TimeoutLeaderLost, Unavailable, "etcdserver: request timed out, possibly due to previous leader failure";
    TimeoutConnectionLost, Unavailable, "etcdserver: request timed out, possibly due to connection lost";
    TimeoutApply, Unavailable, "etcdserver: request timed out, waiting for the applied index took too long";
    LeaderTransferTimeout, Unknown, "etcdserver: request timed out, leader transfer took too long";
    DeadlineExceeded, Unknown, "context deadline exceeded";
    Unhealthy, Unavailable, "etcdserver: unhealthy cluster";
    Corrupt, DataLoss, "etcdserver: corrupt cluster";
    NotSupportedForLearner, Unavailable, "etcdserver: rpc not supported for learner";
    BadLeaderTransferee, FailedPrecondition, "etcdserver: bad leader transferee";
    ClusterVersionUnavailable, Unavailable, "etcdserver: cluster version not found during downgrade";
    WrongDowngradeFormat, InvalidArgument, "etcdserver: wrong downgrade target version format";
    InvalidDowngradeTarget, InvalidArgument, "etcdserver: invalid downgrade target version";
    DowngradeInProgress, FailedPrecondition, "etcdserver: cluster has a downgrade job in progress";
    NoDowngrade, FailedPrecondition, "etcdserver: no inflight downgrade job";
    SessionExpired, Unknown, "mutex: session is expired";
    NobodyElected, Unknown, "election: no leader";
    NotElected, Unknown, "election: not leader";
    LeaderKeyMissing, Unknown, "\"leader\" field must be provided";
    UnknownMethod, Unknown, "etcdserver: unknown method";
    RootUserMissing, FailedPrecondition, "etcdserver: root user does not exist";
    RootRoleMissing, FailedPrecondition, "etcdserver: root user does not have root role";
    UserExists, FailedPrecondition, "etcdserver: user name already exists";
    UserEmpty, InvalidArgument, "etcdserver: user name is empty";
    UserNotFound, FailedPrecondition, "etcdserver: user name not found";
    RoleExists, FailedPrecondition, "etcdserver: role name already exists";
    RoleNotFound, FailedPrecondition, "etcdserver: role name not found";
    RoleEmpty, InvalidArgument, "etcdserver: role name is empty";
    AuthFailed, InvalidArgument, "etcdserver: authentication failed, invalid user ID or password";
    PermissionNotGiven, InvalidArgument, "etcdserver: permission not given";
    PermissionDenied, PermissionDenied, "etcdserver: permission denied";
    RoleNotGranted, FailedPrecondition, "etcdserver: role is not granted to the user";
    PermissionNotGranted, FailedPrecondition, "etcdserver: permission is not granted to the role";
    AuthNotEnabled, FailedPrecondition, "etcdserver: authentication is not enabled";
    InvalidAuthToken, Unauthenticated, "etcdserver: invalid auth token";
    InvalidAuthManagement, InvalidArgument, "etcdserver: invalid auth management";
    AuthOldRevision, InvalidArgument, "etcdserver: revision of auth store is old";
    VerifyOnly, Unknown, "auth: token signing attempted with verify-only key";
    NoPasswordUser, Unknown, "auth: authentication failed, password was given for no password user";
}

/// What stops the node: it can't be turned into a reply, since another replica would not give it.
#[derive(Debug, Error)]
pub enum Fault {
    /// A disk or file operation failed; never retried.
    #[error("{what}: {source}")]
    Io {
        /// What was being done, to which file.
        what: String,
        /// The system's error.
        source: std::io::Error,
    },
    /// Stored bytes are not what was written. The text says where, and what to do.
    #[error("{0}")]
    Corrupt(String),
    /// The operator asked for something that can't be done. The text says what, and what to do.
    #[error("{0}")]
    Refused(String),
}

impl Fault {
    /// An I/O fault with its context.
    pub fn io(what: impl Into<String>, source: std::io::Error) -> Self {
        Self::Io { what: what.into(), source }
    }

    /// A corruption fault.
    pub fn corrupt(text: impl Into<String>) -> Self {
        Self::Corrupt(text.into())
    }
}
