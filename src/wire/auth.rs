//! Requests about users and roles, as entries hold them.

use super::{authpb, etcdserverpb as pb, internalpb};
use crate::auth::{Access, Action, Password, Permission};

/// Puts an action into the request of an entry.
pub(super) fn to_wire(action: &Action, wire: &mut internalpb::InternalRaftRequest) {
    match action.clone() {
        Action::Enable => wire.auth_enable = Some(pb::AuthEnableRequest {}),
        Action::Disable => wire.auth_disable = Some(pb::AuthDisableRequest {}),
        Action::Status => wire.auth_status = Some(pb::AuthStatusRequest {}),
        Action::Authenticate { user: name, nonce } => {
            let request =
                internalpb::InternalAuthenticateRequest { name, simple_token: nonce, ..Default::default() };
            wire.authenticate = Some(request);
        }
        Action::UserAdd { user: name, password: Password { plain: password, hashed }, no_password } => {
            let options = no_password.map(|no_password| authpb::UserAddOptions { no_password });
            wire.auth_user_add =
                Some(pb::AuthUserAddRequest { name, password, options, hashed_password: hashed });
        }
        Action::UserGet { user: name } => wire.auth_user_get = Some(pb::AuthUserGetRequest { name }),
        Action::UserDelete { user: name } => wire.auth_user_delete = Some(pb::AuthUserDeleteRequest { name }),
        Action::UserChangePassword { user: name, password: Password { plain: password, hashed } } => {
            wire.auth_user_change_password =
                Some(pb::AuthUserChangePasswordRequest { name, password, hashed_password: hashed });
        }
        Action::UserGrantRole { user, role } => {
            wire.auth_user_grant_role = Some(pb::AuthUserGrantRoleRequest { user, role });
        }
        Action::UserRevokeRole { user: name, role } => {
            wire.auth_user_revoke_role = Some(pb::AuthUserRevokeRoleRequest { name, role });
        }
        Action::UserList => wire.auth_user_list = Some(pb::AuthUserListRequest {}),
        Action::RoleAdd { role: name } => wire.auth_role_add = Some(pb::AuthRoleAddRequest { name }),
        Action::RoleGet { role } => wire.auth_role_get = Some(pb::AuthRoleGetRequest { role }),
        Action::RoleDelete { role } => wire.auth_role_delete = Some(pb::AuthRoleDeleteRequest { role }),
        Action::RoleGrant { role: name, permission } => {
            let perm = permission.map(permission_to_wire);
            wire.auth_role_grant_permission = Some(pb::AuthRoleGrantPermissionRequest { name, perm });
        }
        Action::RoleRevoke { role, key, range_end } => {
            wire.auth_role_revoke_permission =
                Some(pb::AuthRoleRevokePermissionRequest { role, key, range_end });
        }
        Action::RoleList => wire.auth_role_list = Some(pb::AuthRoleListRequest {}),
    }
}

/// The action in the request of an entry, if there is one.
pub(super) fn from_wire(wire: internalpb::InternalRaftRequest) -> Option<Action> {
    Some(if wire.auth_enable.is_some() {
        Action::Enable
    } else if wire.auth_disable.is_some() {
        Action::Disable
    } else if wire.auth_status.is_some() {
        Action::Status
    } else if let Some(request) = wire.authenticate {
        Action::Authenticate { user: request.name, nonce: request.simple_token }
    } else if let Some(request) = wire.auth_user_add {
        Action::UserAdd {
            user: request.name,
            password: Password { plain: request.password, hashed: request.hashed_password },
            no_password: request.options.map(|options| options.no_password),
        }
    } else if let Some(request) = wire.auth_user_delete {
        Action::UserDelete { user: request.name }
    } else if let Some(request) = wire.auth_user_get {
        Action::UserGet { user: request.name }
    } else if let Some(request) = wire.auth_user_change_password {
        let password = Password { plain: request.password, hashed: request.hashed_password };
        Action::UserChangePassword { user: request.name, password }
    } else if let Some(request) = wire.auth_user_grant_role {
        Action::UserGrantRole { user: request.user, role: request.role }
    } else if let Some(request) = wire.auth_user_revoke_role {
        Action::UserRevokeRole { user: request.name, role: request.role }
    } else if wire.auth_user_list.is_some() {
        Action::UserList
    } else if wire.auth_role_list.is_some() {
        Action::RoleList
    } else if let Some(request) = wire.auth_role_add {
        Action::RoleAdd { role: request.name }
    } else if let Some(request) = wire.auth_role_delete {
        Action::RoleDelete { role: request.role }
    } else if let Some(request) = wire.auth_role_get {
        Action::RoleGet { role: request.role }
    } else if let Some(request) = wire.auth_role_grant_permission {
        Action::RoleGrant { role: request.name, permission: request.perm.map(permission) }
    } else if let Some(request) = wire.auth_role_revoke_permission {
        Action::RoleRevoke { role: request.role, key: request.key, range_end: request.range_end }
    } else {
        return None;
    })
}

/// A permission as a message.
pub fn permission_to_wire(permission: Permission) -> authpb::Permission {
    let Permission { access, key, range_end } = permission;
    authpb::Permission { perm_type: access.number(), key, range_end }
}

/// A message's permission.
pub fn permission(wire: authpb::Permission) -> Permission {
    Permission { access: Access::from_number(wire.perm_type), key: wire.key, range_end: wire.range_end }
}
