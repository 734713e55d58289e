//! `auth enable`, `disable` and `status`, and the calls that `user` and `role` share with them.

use std::time::Duration;

use prost::Message;
use tonic::{Request, Response, Status, transport::Channel};

use super::{
    Context, Session,
    client::{CallError, Retry},
    fail::{Failure, Outcome},
    output::Reply,
};
use crate::wire::etcdserverpb::{self as pb, auth_client::AuthClient};

/// What the server says while user root lacks role root.
const NO_ROOT_ROLE: &str = "etcdserver: root user does not have root role";

impl Session {
    /// Makes a call to the authorization service, with a client of it. As in etcdctl, `user` and `role` have no
    /// timeout.
    pub(super) async fn ask<M: Message + Clone, R>(
        &self,
        timeout: Option<Duration>,
        retry: Retry,
        message: M,
        method: impl AsyncFn(AuthClient<Channel>, Request<M>) -> Result<Response<R>, Status>,
    ) -> Result<R, CallError> {
        let method = async |channel, request| method(AuthClient::new(channel), request).await;
        self.client.call(timeout, retry, message, method).await
    }
}

fn none(context: &Context, command: &str) -> Result<(), Failure> {
    match context.flags.args.as_slice() {
        [] => Ok(()),
        _ => Err(Failure::args(format!("{command} command does not accept any arguments"))),
    }
}

/// `auth enable`. What user root lacks for it is given to it.
pub async fn enable(context: Context) -> Outcome {
    none(&context, "auth enable")?;
    let session = context.connect().await?;
    let timeout = Some(session.settings.command_timeout);
    loop {
        let enabled = session
            .ask(timeout, Retry::Once, pb::AuthEnableRequest {}, async |mut auth, request| {
                auth.auth_enable(request).await
            })
            .await;
        match enabled {
            Ok(_) => return super::emit("Authentication Enabled\n".to_owned().into()),
            Err(CallError::Status(status)) if status.message() == NO_ROOT_ROLE => {}
            Err(error) => return Err(error.into()),
        }
        let root = || "root".to_owned();
        session
            .ask(timeout, Retry::Once, pb::AuthRoleAddRequest { name: root() }, async |mut auth, request| {
                auth.role_add(request).await
            })
            .await?;
        let grant = pb::AuthUserGrantRoleRequest { user: root(), role: root() };
        session
            .ask(timeout, Retry::Once, grant, async |mut auth, request| auth.user_grant_role(request).await)
            .await?;
    }
}

/// `auth disable`.
pub async fn disable(context: Context) -> Outcome {
    none(&context, "auth disable")?;
    let session = context.connect().await?;
    let timeout = Some(session.settings.command_timeout);
    session
        .ask(timeout, Retry::Once, pb::AuthDisableRequest {}, async |mut auth, request| {
            auth.auth_disable(request).await
        })
        .await?;
    super::emit("Authentication Disabled\n".to_owned().into())
}

/// `auth status`.
pub async fn status(context: Context) -> Outcome {
    none(&context, "auth status")?;
    let session = context.connect().await?;
    let timeout = Some(session.settings.command_timeout);
    let response = session
        .ask(timeout, Retry::Repeatable, pb::AuthStatusRequest {}, async |mut auth, request| {
            auth.auth_status(request).await
        })
        .await?;
    session.print(&Reply::AuthStatus(response))
}
