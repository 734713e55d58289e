//! Users and roles, while authorization is off and there are none: what etcd would answer then. What would
//! make the first user or role is not there yet and says so.

use tonic::{Request, Response, Status};

use super::{
    Api, Member,
    admit::{OnLearner, admit},
    convert, error,
};
use crate::{
    error::Refusal,
    wire::etcdserverpb::{self as pb, auth_server::Auth},
};

/// The revision of an authorization store in which nothing was ever changed.
const FRESH_AUTH_REVISION: u64 = 1;

const NO_USERS_YET: &str = "kontiki: users can't be added yet: authorization is not implemented";
const NO_ROLES_YET: &str = "kontiki: roles can't be added yet: authorization is not implemented";

/// Shuts the trait's boilerplate away: admit, then answer.
macro_rules! answer {
    ($self:ident, $request:ident, $outcome:expr) => {{
        admit(&$self.member, $request.metadata(), OnLearner::Refuse)?;
        $outcome
    }};
}

#[tonic::async_trait]
impl<M: Member> Auth for Api<M> {
    async fn auth_enable(
        &self,
        request: Request<pb::AuthEnableRequest>,
    ) -> Result<Response<pb::AuthEnableResponse>, Status> {
        answer!(self, request, Err(Refusal::RootUserMissing.into()))
    }

    async fn auth_disable(
        &self,
        request: Request<pb::AuthDisableRequest>,
    ) -> Result<Response<pb::AuthDisableResponse>, Status> {
        let header = convert::now(&self.member);
        answer!(self, request, Ok(Response::new(pb::AuthDisableResponse { header })))
    }

    async fn auth_status(
        &self,
        request: Request<pb::AuthStatusRequest>,
    ) -> Result<Response<pb::AuthStatusResponse>, Status> {
        let header = convert::now(&self.member);
        let status = pb::AuthStatusResponse { header, enabled: false, auth_revision: FRESH_AUTH_REVISION };
        answer!(self, request, Ok(Response::new(status)))
    }

    async fn authenticate(
        &self,
        request: Request<pb::AuthenticateRequest>,
    ) -> Result<Response<pb::AuthenticateResponse>, Status> {
        answer!(self, request, Err(Refusal::AuthNotEnabled.into()))
    }

    async fn user_add(
        &self,
        request: Request<pb::AuthUserAddRequest>,
    ) -> Result<Response<pb::AuthUserAddResponse>, Status> {
        let nameless = request.get_ref().name.is_empty();
        answer!(
            self,
            request,
            Err(if nameless { Refusal::UserEmpty.into() } else { error::missing(NO_USERS_YET) })
        )
    }

    async fn user_get(
        &self,
        request: Request<pb::AuthUserGetRequest>,
    ) -> Result<Response<pb::AuthUserGetResponse>, Status> {
        answer!(self, request, Err(Refusal::UserNotFound.into()))
    }

    async fn user_list(
        &self,
        request: Request<pb::AuthUserListRequest>,
    ) -> Result<Response<pb::AuthUserListResponse>, Status> {
        let header = convert::now(&self.member);
        answer!(self, request, Ok(Response::new(pb::AuthUserListResponse { header, users: Vec::new() })))
    }

    async fn user_delete(
        &self,
        request: Request<pb::AuthUserDeleteRequest>,
    ) -> Result<Response<pb::AuthUserDeleteResponse>, Status> {
        answer!(self, request, Err(Refusal::UserNotFound.into()))
    }

    async fn user_change_password(
        &self,
        request: Request<pb::AuthUserChangePasswordRequest>,
    ) -> Result<Response<pb::AuthUserChangePasswordResponse>, Status> {
        answer!(self, request, Err(Refusal::UserNotFound.into()))
    }

    async fn user_grant_role(
        &self,
        request: Request<pb::AuthUserGrantRoleRequest>,
    ) -> Result<Response<pb::AuthUserGrantRoleResponse>, Status> {
        answer!(self, request, Err(Refusal::UserNotFound.into()))
    }

    async fn user_revoke_role(
        &self,
        request: Request<pb::AuthUserRevokeRoleRequest>,
    ) -> Result<Response<pb::AuthUserRevokeRoleResponse>, Status> {
        answer!(self, request, Err(Refusal::UserNotFound.into()))
    }

    async fn role_add(
        &self,
        request: Request<pb::AuthRoleAddRequest>,
    ) -> Result<Response<pb::AuthRoleAddResponse>, Status> {
        let nameless = request.get_ref().name.is_empty();
        answer!(
            self,
            request,
            Err(if nameless { Refusal::RoleEmpty.into() } else { error::missing(NO_ROLES_YET) })
        )
    }

    async fn role_get(
        &self,
        request: Request<pb::AuthRoleGetRequest>,
    ) -> Result<Response<pb::AuthRoleGetResponse>, Status> {
        answer!(self, request, Err(Refusal::RoleNotFound.into()))
    }

    async fn role_list(
        &self,
        request: Request<pb::AuthRoleListRequest>,
    ) -> Result<Response<pb::AuthRoleListResponse>, Status> {
        let header = convert::now(&self.member);
        answer!(self, request, Ok(Response::new(pb::AuthRoleListResponse { header, roles: Vec::new() })))
    }

    async fn role_delete(
        &self,
        request: Request<pb::AuthRoleDeleteRequest>,
    ) -> Result<Response<pb::AuthRoleDeleteResponse>, Status> {
        answer!(self, request, Err(Refusal::RoleNotFound.into()))
    }

    async fn role_grant_permission(
        &self,
        request: Request<pb::AuthRoleGrantPermissionRequest>,
    ) -> Result<Response<pb::AuthRoleGrantPermissionResponse>, Status> {
        let refusal = match request.get_ref().perm {
            None => Refusal::PermissionNotGiven,
            Some(_) => Refusal::RoleNotFound,
        };
        answer!(self, request, Err(refusal.into()))
    }

    async fn role_revoke_permission(
        &self,
        request: Request<pb::AuthRoleRevokePermissionRequest>,
    ) -> Result<Response<pb::AuthRoleRevokePermissionResponse>, Status> {
        answer!(self, request, Err(Refusal::RoleNotFound.into()))
    }
}
