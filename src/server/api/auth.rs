//! Users and roles. All of it goes through the log, as in etcd, also what is only asked: who may ask is decided where
//! the answer is made.

use tonic::{Request, Response, Status};

use super::{
    Api, Member,
    client::{Client, OnLearner},
    convert, error,
};
use crate::{
    auth::{Action, Need, Outcome, Password, Who},
    error::Refusal,
    state::{Command, Reply},
    wire::{
        auth as messages,
        etcdserverpb::{self as pb, ResponseHeader, auth_server::Auth},
    },
};

type Answer<T> = Result<Response<T>, Status>;

impl<M: Member> Api<M> {
    /// Takes an action through the log.
    async fn act(
        &self,
        client: &Client<'_, M>,
        action: Action,
    ) -> Result<(Option<ResponseHeader>, Outcome), Status> {
        match client.propose(Command::Auth(action)).await? {
            (Reply::Auth(outcome), header) => Ok((Some(convert::full(header)), outcome)),
            _ => Err(error::internal(error::OTHER_REPLY)),
        }
    }

    /// The same of one that answers nothing but a header.
    async fn change<T>(
        &self,
        request: &Request<T>,
        action: Action,
    ) -> Result<Option<ResponseHeader>, Status> {
        let client = Client::admit(&self.member, request, OnLearner::Refuse)?;
        match self.act(&client, action).await? {
            (header, Outcome::Done) => Ok(header),
            _ => Err(error::internal(error::OTHER_REPLY)),
        }
    }

    /// A password, ready to be proposed: the log never has it as it is. None is hashed for a user without one.
    async fn hashed(&self, password: &str, no_password: bool) -> Result<Password, Refusal> {
        if no_password {
            return Ok(Password::default());
        }
        Ok(Password::hashed(&self.member.hash_password(password.to_owned()).await?))
    }

    /// Whether a password is a user's; the authorization revision at which it was.
    async fn check_password(&self, user: &str, password: &str) -> Result<u64, Refusal> {
        let users = self.member.users().await;
        if !users.enabled() {
            return Err(Refusal::AuthNotEnabled);
        }
        let found = users.user(user).ok_or(Refusal::AuthFailed)?;
        if found.no_password == Some(true) {
            return Err(Refusal::NoPasswordUser);
        }
        match self.member.compare_password(password.to_owned(), found.password.clone()).await? {
            true => Ok(users.revision()),
            false => Err(Refusal::AuthFailed),
        }
    }
}

#[tonic::async_trait]
impl<M: Member> Auth for Api<M> {
    async fn auth_enable(&self, request: Request<pb::AuthEnableRequest>) -> Answer<pb::AuthEnableResponse> {
        let header = self.change(&request, Action::Enable).await?;
        Ok(Response::new(pb::AuthEnableResponse { header }))
    }

    async fn auth_disable(
        &self,
        request: Request<pb::AuthDisableRequest>,
    ) -> Answer<pb::AuthDisableResponse> {
        let header = self.change(&request, Action::Disable).await?;
        Ok(Response::new(pb::AuthDisableResponse { header }))
    }

    async fn auth_status(&self, request: Request<pb::AuthStatusRequest>) -> Answer<pb::AuthStatusResponse> {
        let client = Client::admit(&self.member, &request, OnLearner::Refuse)?;
        match self.act(&client, Action::Status).await? {
            (header, Outcome::Status { enabled, revision: auth_revision }) => {
                Ok(Response::new(pb::AuthStatusResponse { header, enabled, auth_revision }))
            }
            _ => Err(error::internal(error::OTHER_REPLY)),
        }
    }

    async fn authenticate(
        &self,
        request: Request<pb::AuthenticateRequest>,
    ) -> Answer<pb::AuthenticateResponse> {
        let client = Client::admit(&self.member, &request, OnLearner::Refuse)?;
        let pb::AuthenticateRequest { name, password } = request.into_inner();
        client.member.read_barrier().await?;
        loop {
            let checked = self.check_password(&name, &password).await?;
            let action = Action::Authenticate { user: name.clone(), nonce: self.member.new_nonce() };
            // Whatever token came with it: the password says who it is.
            let (reply, header) = self.member.propose(Who::default(), Command::Auth(action)).await?;
            let Reply::Auth(Outcome::Authenticated { token, revision }) = reply else {
                return Err(error::internal(error::OTHER_REPLY));
            };
            // Between the look at the password and the entry's place in the log, it may have been changed.
            if revision == checked {
                let header = Some(convert::full(header));
                let token = self.member.token(token, &name, revision)?;
                return Ok(Response::new(pb::AuthenticateResponse { header, token }));
            }
        }
    }

    async fn user_add(&self, request: Request<pb::AuthUserAddRequest>) -> Answer<pb::AuthUserAddResponse> {
        // Before the work that a hash is.
        Client::admit(&self.member, &request, OnLearner::Refuse)?.need(&[Need::Root]).await?;
        let asked = request.get_ref();
        let no_password = asked.options.as_ref().map(|options| options.no_password);
        let password = self.hashed(&asked.password, no_password == Some(true)).await?;
        let action = Action::UserAdd { user: asked.name.clone(), password, no_password };
        let header = self.change(&request, action).await?;
        Ok(Response::new(pb::AuthUserAddResponse { header }))
    }

    async fn user_get(&self, request: Request<pb::AuthUserGetRequest>) -> Answer<pb::AuthUserGetResponse> {
        let client = Client::admit(&self.member, &request, OnLearner::Refuse)?;
        match self.act(&client, Action::UserGet { user: request.into_inner().name }).await? {
            (header, Outcome::User(roles)) => Ok(Response::new(pb::AuthUserGetResponse { header, roles })),
            _ => Err(error::internal(error::OTHER_REPLY)),
        }
    }

    async fn user_list(&self, request: Request<pb::AuthUserListRequest>) -> Answer<pb::AuthUserListResponse> {
        let client = Client::admit(&self.member, &request, OnLearner::Refuse)?;
        match self.act(&client, Action::UserList).await? {
            (header, Outcome::Users(users)) => Ok(Response::new(pb::AuthUserListResponse { header, users })),
            _ => Err(error::internal(error::OTHER_REPLY)),
        }
    }

    async fn user_delete(
        &self,
        request: Request<pb::AuthUserDeleteRequest>,
    ) -> Answer<pb::AuthUserDeleteResponse> {
        let user = request.get_ref().name.clone();
        let header = self.change(&request, Action::UserDelete { user }).await?;
        Ok(Response::new(pb::AuthUserDeleteResponse { header }))
    }

    async fn user_change_password(
        &self,
        request: Request<pb::AuthUserChangePasswordRequest>,
    ) -> Answer<pb::AuthUserChangePasswordResponse> {
        Client::admit(&self.member, &request, OnLearner::Refuse)?.need(&[Need::Root]).await?;
        let asked = request.get_ref();
        let password = self.hashed(&asked.password, false).await?;
        let action = Action::UserChangePassword { user: asked.name.clone(), password };
        let header = self.change(&request, action).await?;
        Ok(Response::new(pb::AuthUserChangePasswordResponse { header }))
    }

    async fn user_grant_role(
        &self,
        request: Request<pb::AuthUserGrantRoleRequest>,
    ) -> Answer<pb::AuthUserGrantRoleResponse> {
        let pb::AuthUserGrantRoleRequest { user, role } = request.get_ref().clone();
        let header = self.change(&request, Action::UserGrantRole { user, role }).await?;
        Ok(Response::new(pb::AuthUserGrantRoleResponse { header }))
    }

    async fn user_revoke_role(
        &self,
        request: Request<pb::AuthUserRevokeRoleRequest>,
    ) -> Answer<pb::AuthUserRevokeRoleResponse> {
        let pb::AuthUserRevokeRoleRequest { name: user, role } = request.get_ref().clone();
        let header = self.change(&request, Action::UserRevokeRole { user, role }).await?;
        Ok(Response::new(pb::AuthUserRevokeRoleResponse { header }))
    }

    async fn role_add(&self, request: Request<pb::AuthRoleAddRequest>) -> Answer<pb::AuthRoleAddResponse> {
        let role = request.get_ref().name.clone();
        let header = self.change(&request, Action::RoleAdd { role }).await?;
        Ok(Response::new(pb::AuthRoleAddResponse { header }))
    }

    async fn role_get(&self, request: Request<pb::AuthRoleGetRequest>) -> Answer<pb::AuthRoleGetResponse> {
        let client = Client::admit(&self.member, &request, OnLearner::Refuse)?;
        match self.act(&client, Action::RoleGet { role: request.into_inner().role }).await? {
            (header, Outcome::Role(permissions)) => {
                let perm = permissions.into_iter().map(messages::permission_to_wire).collect();
                Ok(Response::new(pb::AuthRoleGetResponse { header, perm }))
            }
            _ => Err(error::internal(error::OTHER_REPLY)),
        }
    }

    async fn role_list(&self, request: Request<pb::AuthRoleListRequest>) -> Answer<pb::AuthRoleListResponse> {
        let client = Client::admit(&self.member, &request, OnLearner::Refuse)?;
        match self.act(&client, Action::RoleList).await? {
            (header, Outcome::Roles(roles)) => Ok(Response::new(pb::AuthRoleListResponse { header, roles })),
            _ => Err(error::internal(error::OTHER_REPLY)),
        }
    }

    async fn role_delete(
        &self,
        request: Request<pb::AuthRoleDeleteRequest>,
    ) -> Answer<pb::AuthRoleDeleteResponse> {
        let role = request.get_ref().role.clone();
        let header = self.change(&request, Action::RoleDelete { role }).await?;
        Ok(Response::new(pb::AuthRoleDeleteResponse { header }))
    }

    async fn role_grant_permission(
        &self,
        request: Request<pb::AuthRoleGrantPermissionRequest>,
    ) -> Answer<pb::AuthRoleGrantPermissionResponse> {
        let pb::AuthRoleGrantPermissionRequest { name: role, perm } = request.get_ref().clone();
        let permission = perm.map(messages::permission);
        let header = self.change(&request, Action::RoleGrant { role, permission }).await?;
        Ok(Response::new(pb::AuthRoleGrantPermissionResponse { header }))
    }

    async fn role_revoke_permission(
        &self,
        request: Request<pb::AuthRoleRevokePermissionRequest>,
    ) -> Answer<pb::AuthRoleRevokePermissionResponse> {
        let pb::AuthRoleRevokePermissionRequest { role, key, range_end } = request.get_ref().clone();
        let header = self.change(&request, Action::RoleRevoke { role, key, range_end }).await?;
        Ok(Response::new(pb::AuthRoleRevokePermissionResponse { header }))
    }
}
