//! What is asked about users and roles, and what is answered.

use std::fmt;

use bytes::Bytes;

use crate::types::KeyRange;

/// What a permission is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Access {
    Read,
    Write,
    ReadWrite,
    /// A number that etcd does not know: kept, but good for nothing.
    Other(i32),
}

impl Access {
    /// By its number on the wire.
    pub const fn from_number(number: i32) -> Self {
        match number {
            0 => Self::Read,
            1 => Self::Write,
            2 => Self::ReadWrite,
            other => Self::Other(other),
        }
    }

    /// Its number on the wire.
    pub const fn number(self) -> i32 {
        match self {
            Self::Read => 0,
            Self::Write => 1,
            Self::ReadWrite => 2,
            Self::Other(number) => number,
        }
    }
}

/// A permission, as it was granted: `key` and `range_end` follow the rules of [`KeyRange::from_wire`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Permission {
    pub access: Access,
    pub key: Bytes,
    pub range_end: Bytes,
}

impl Permission {
    /// The keys that it is for; None if there can be none.
    pub fn keys(&self) -> Option<KeyRange> {
        let range = KeyRange::from_wire(self.key.clone(), self.range_end.clone());
        (!self.key.is_empty() && !range.is_empty()).then_some(range)
    }
}

/// A user.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    /// The hash of the password, as bcrypt writes it; empty if there is none.
    pub password: Bytes,
    /// The names of the roles, sorted.
    pub roles: Vec<String>,
    /// Whether the user was made without a password; None if nothing was said about it, in etcd's bytes too.
    pub no_password: Option<bool>,
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { password: _, roles, no_password } = self;
        f.debug_struct("User").field("roles", roles).field("no_password", no_password).finish_non_exhaustive()
    }
}

/// A role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Role {
    /// What it permits, by key.
    pub permissions: Vec<Permission>,
}

/// A password on its way into the store.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Password {
    /// As it is: only etcd before 3.5 logs it.
    pub plain: String,
    /// Its bcrypt hash, in base64.
    pub hashed: String,
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.plain.is_empty(), self.hashed.is_empty()) {
            (_, false) => "hashed",
            (true, true) => "none",
            (false, true) => "plain",
        })
    }
}

/// A request about users and roles that goes through the log.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Action {
    Enable,
    Disable,
    Status,
    /// The password was right: give the user a token that begins with `nonce`; none if it is empty.
    Authenticate {
        user: String,
        nonce: String,
    },
    UserAdd {
        user: String,
        password: Password,
        no_password: Option<bool>,
    },
    UserGet {
        user: String,
    },
    UserDelete {
        user: String,
    },
    UserChangePassword {
        user: String,
        password: Password,
    },
    UserGrantRole {
        user: String,
        role: String,
    },
    UserRevokeRole {
        user: String,
        role: String,
    },
    UserList,
    RoleAdd {
        role: String,
    },
    RoleGet {
        role: String,
    },
    RoleDelete {
        role: String,
    },
    RoleGrant {
        role: String,
        permission: Option<Permission>,
    },
    RoleRevoke {
        role: String,
        key: Bytes,
        range_end: Bytes,
    },
    RoleList,
}

impl Action {
    /// Whether it can change users, roles, or whether authorization is on.
    pub const fn changes(&self) -> bool {
        match self {
            Self::Status
            | Self::Authenticate { .. }
            | Self::UserGet { .. }
            | Self::UserList
            | Self::RoleGet { .. }
            | Self::RoleList => false,
            Self::Enable
            | Self::Disable
            | Self::UserAdd { .. }
            | Self::UserDelete { .. }
            | Self::UserChangePassword { .. }
            | Self::UserGrantRole { .. }
            | Self::UserRevokeRole { .. }
            | Self::RoleAdd { .. }
            | Self::RoleDelete { .. }
            | Self::RoleGrant { .. }
            | Self::RoleRevoke { .. } => true,
        }
    }
}

/// What an action did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Outcome {
    Done,
    Status {
        enabled: bool,
        revision: u64,
    },
    /// The simple token of the user, if one was asked for, and the authorization revision at which it was given.
    Authenticated {
        token: String,
        revision: u64,
    },
    /// A user's roles.
    User(Vec<String>),
    Users(Vec<String>),
    /// A role's permissions.
    Role(Vec<Permission>),
    Roles(Vec<String>),
}
