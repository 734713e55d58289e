//! What committed requests do to users and roles: etcd's rules, in its order.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    ROOT,
    action::{Action, Outcome, Password, Permission, Role, User},
    store::Store,
};
use crate::{
    error::Refusal,
    table::{Batch, Table},
    types::Index,
};

/// What becomes of tokens, on each member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Session {
    /// A user was given one.
    Issued {
        /// The token.
        token: String,
        /// Whose.
        user: String,
    },
    /// Those of a user are void.
    Ended(String),
    /// All are.
    AllEnded,
}

impl Store {
    /// Does what a committed entry at `index` asks for. What is refused changes nothing.
    pub fn act(
        this: &mut Arc<Self>,
        action: &Action,
        index: Index,
        batch: &mut Batch,
    ) -> Result<(Outcome, Option<Session>), Refusal> {
        match action {
            Action::Authenticate { user, nonce } => this.authenticate(user, nonce, index),
            Action::Status => Ok((Outcome::Status { enabled: this.enabled, revision: this.revision }, None)),
            Action::UserGet { user } => {
                let user = this.users.get(user).ok_or(Refusal::UserNotFound)?;
                Ok((Outcome::User(user.roles.clone()), None))
            }
            Action::UserList => Ok((Outcome::Users(this.users.keys().cloned().collect()), None)),
            Action::RoleGet { role } => {
                let role = this.roles.get(role).ok_or(Refusal::RoleNotFound)?;
                Ok((Outcome::Role(role.permissions.clone()), None))
            }
            Action::RoleList => Ok((Outcome::Roles(this.roles.keys().cloned().collect()), None)),
            Action::Enable
            | Action::Disable
            | Action::UserAdd { .. }
            | Action::UserDelete { .. }
            | Action::UserChangePassword { .. }
            | Action::UserGrantRole { .. }
            | Action::UserRevokeRole { .. }
            | Action::RoleAdd { .. }
            | Action::RoleDelete { .. }
            | Action::RoleGrant { .. }
            | Action::RoleRevoke { .. } => {
                let session = Arc::make_mut(this).change(action, index, batch)?;
                Ok((Outcome::Done, session))
            }
        }
    }

    fn authenticate(
        &self,
        user: &str,
        nonce: &str,
        index: Index,
    ) -> Result<(Outcome, Option<Session>), Refusal> {
        if !self.enabled {
            return Err(Refusal::AuthNotEnabled);
        }
        // The password was compared before, but the user may have changed since.
        match self.users.get(user) {
            Some(found) if found.no_password != Some(true) => {}
            Some(_) | None => return Err(Refusal::AuthFailed),
        }
        // Whose tokens are signed asks for no letters, and has nothing to remember.
        if nonce.is_empty() {
            return Ok((Outcome::Authenticated { token: String::new(), revision: self.revision }, None));
        }
        let token = format!("{nonce}.{index}");
        let session = Session::Issued { token: token.clone(), user: user.into() };
        Ok((Outcome::Authenticated { token, revision: self.revision }, Some(session)))
    }

    fn change(
        &mut self,
        action: &Action,
        index: Index,
        batch: &mut Batch,
    ) -> Result<Option<Session>, Refusal> {
        match action {
            Action::Enable => self.enable(batch).map(|()| None),
            Action::Disable => Ok(self.disable(batch)),
            Action::UserAdd { user, password, no_password } => {
                self.user_add(user, password, *no_password, index, batch).map(|()| None)
            }
            Action::UserDelete { user } => self.user_delete(user, batch).map(Some),
            Action::UserChangePassword { user, password } => {
                self.user_change_password(user, password, index, batch).map(Some)
            }
            Action::UserGrantRole { user, role } => self.user_grant(user, role, batch).map(|()| None),
            Action::UserRevokeRole { user, role } => self.user_revoke(user, role, batch).map(|()| None),
            Action::RoleAdd { role } => self.role_add(role, batch).map(|()| None),
            Action::RoleDelete { role } => self.role_delete(role, batch).map(|()| None),
            Action::RoleGrant { role, permission } => {
                self.role_grant(role, permission.as_ref(), batch).map(|()| None)
            }
            Action::RoleRevoke { role, key, range_end } => {
                self.role_revoke(role, key, range_end, batch).map(|()| None)
            }
            Action::Authenticate { .. }
            | Action::Status
            | Action::UserGet { .. }
            | Action::UserList
            | Action::RoleGet { .. }
            | Action::RoleList => Ok(None),
        }
    }

    /// It is no change of users or roles: the revision stays.
    fn enable(&mut self, batch: &mut Batch) -> Result<(), Refusal> {
        if self.enabled {
            return Ok(());
        }
        let root = self.users.get(ROOT).ok_or(Refusal::RootUserMissing)?;
        if !root.roles.iter().any(|role| role == ROOT) {
            return Err(Refusal::RootRoleMissing);
        }
        self.set_enabled(true, batch);
        Ok(())
    }

    fn disable(&mut self, batch: &mut Batch) -> Option<Session> {
        if !self.enabled {
            return None;
        }
        self.set_enabled(false, batch);
        self.advance(batch);
        Some(Session::AllEnded)
    }

    fn user_add(
        &mut self,
        name: &str,
        password: &Password,
        no_password: Option<bool>,
        index: Index,
        batch: &mut Batch,
    ) -> Result<(), Refusal> {
        if name.is_empty() {
            return Err(Refusal::UserEmpty);
        }
        if self.users.contains_key(name) {
            return Err(Refusal::UserExists);
        }
        let no_password = no_password.unwrap_or(false);
        let password = stored(no_password, password, index)?;
        // etcd notes what was not said, too.
        let user = User { password, roles: Vec::new(), no_password: Some(no_password) };
        self.put_user(name, user, batch);
        self.advance(batch);
        Ok(())
    }

    fn user_delete(&mut self, name: &str, batch: &mut Batch) -> Result<Session, Refusal> {
        if self.enabled && name == ROOT {
            return Err(Refusal::InvalidAuthManagement);
        }
        self.users.remove(name).ok_or(Refusal::UserNotFound)?;
        batch.delete(Table::AuthUsers, name.as_bytes().to_vec());
        self.refresh(name);
        self.advance(batch);
        Ok(Session::Ended(name.into()))
    }

    fn user_change_password(
        &mut self,
        name: &str,
        password: &Password,
        index: Index,
        batch: &mut Batch,
    ) -> Result<Session, Refusal> {
        let mut user = self.users.get(name).ok_or(Refusal::UserNotFound)?.clone();
        user.password = stored(user.no_password == Some(true), password, index)?;
        self.put_user(name, user, batch);
        self.advance(batch);
        Ok(Session::Ended(name.into()))
    }

    fn user_grant(&mut self, name: &str, role: &str, batch: &mut Batch) -> Result<(), Refusal> {
        let mut user = self.users.get(name).ok_or(Refusal::UserNotFound)?.clone();
        if role != ROOT && !self.roles.contains_key(role) {
            return Err(Refusal::RoleNotFound);
        }
        if user.roles.iter().any(|has| has == role) {
            return Ok(());
        }
        user.roles.push(role.into());
        user.roles.sort();
        self.put_user(name, user, batch);
        self.advance(batch);
        Ok(())
    }

    fn user_revoke(&mut self, name: &str, role: &str, batch: &mut Batch) -> Result<(), Refusal> {
        if self.enabled && name == ROOT && role == ROOT {
            return Err(Refusal::InvalidAuthManagement);
        }
        let mut user = self.users.get(name).ok_or(Refusal::UserNotFound)?.clone();
        let before = user.roles.len();
        user.roles.retain(|has| has != role);
        if user.roles.len() == before {
            return Err(Refusal::RoleNotGranted);
        }
        self.put_user(name, user, batch);
        self.advance(batch);
        Ok(())
    }

    fn role_add(&mut self, name: &str, batch: &mut Batch) -> Result<(), Refusal> {
        if name.is_empty() {
            return Err(Refusal::RoleEmpty);
        }
        if self.roles.contains_key(name) {
            return Err(Refusal::RoleExists);
        }
        self.put_role(name, Role::default(), batch);
        self.advance(batch);
        Ok(())
    }

    fn role_delete(&mut self, name: &str, batch: &mut Batch) -> Result<(), Refusal> {
        if self.enabled && name == ROOT {
            return Err(Refusal::InvalidAuthManagement);
        }
        self.roles.remove(name).ok_or(Refusal::RoleNotFound)?;
        batch.delete(Table::AuthRoles, name.as_bytes().to_vec());
        for holder in self.users_with(name) {
            if let Some(mut user) = self.users.get(&holder).cloned() {
                user.roles.retain(|has| has != name);
                self.put_user(&holder, user, batch);
            }
        }
        self.advance(batch);
        Ok(())
    }

    fn role_grant(
        &mut self,
        name: &str,
        permission: Option<&Permission>,
        batch: &mut Batch,
    ) -> Result<(), Refusal> {
        let permission = permission.ok_or(Refusal::PermissionNotGiven)?;
        if permission.keys().is_none() {
            return Err(Refusal::InvalidAuthManagement);
        }
        let mut role = self.roles.get(name).ok_or(Refusal::RoleNotFound)?.clone();
        // As in etcd, only the first permission from a key on is looked at: another, of the same key and the same
        // end, stays beside the new one.
        let at = role.permissions.partition_point(|has| has.key < permission.key);
        match role.permissions.get_mut(at) {
            Some(has) if has.key == permission.key && has.range_end == permission.range_end => {
                has.access = permission.access;
            }
            Some(_) | None => {
                role.permissions.push(permission.clone());
                role.permissions.sort_by(|a, b| a.key.cmp(&b.key));
            }
        }
        self.put_role(name, role, batch);
        self.advance(batch);
        Ok(())
    }

    fn role_revoke(
        &mut self,
        name: &str,
        key: &Bytes,
        range_end: &Bytes,
        batch: &mut Batch,
    ) -> Result<(), Refusal> {
        let mut role = self.roles.get(name).ok_or(Refusal::RoleNotFound)?.clone();
        let before = role.permissions.len();
        role.permissions.retain(|has| has.key != *key || has.range_end != *range_end);
        if role.permissions.len() == before {
            return Err(Refusal::PermissionNotGranted);
        }
        self.put_role(name, role, batch);
        self.advance(batch);
        Ok(())
    }
}

/// What is kept of a password. A plain one, of an old log, is hashed with a salt that its place in the log gives, so
/// that each member has the same hash.
fn stored(no_password: bool, password: &Password, index: Index) -> Result<Bytes, Refusal> {
    if no_password {
        return Ok(Bytes::new());
    }
    let mut salt = [0; 16];
    salt[..8].copy_from_slice(&index.0.to_be_bytes());
    password.stored(salt).map(Bytes::from).ok_or(Refusal::NoPasswordUser)
}
