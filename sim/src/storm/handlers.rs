//! Clients without a connection: the code behind tonic is called as it is, with its checks and texts.

use futures_util::{Stream, StreamExt, stream};
use kontiki::{
    server::api::{Api, Member},
    wire::etcdserverpb::{
        self as pb, auth_server::Auth, cluster_server::Cluster, kv_server::Kv, lease_server::Lease,
        maintenance_server::Maintenance,
    },
    wire::{v3electionpb::election_server::Election, v3lockpb::lock_server::Lock},
};
use tokio::sync::{mpsc, oneshot};
use tonic::Status;

use crate::{
    history::{Call, Reply},
    host::{Host, Process, with_token},
};

/// Has a process answer a call.
pub(super) async fn call<H: Host, M: Member>(
    host: &H,
    process: Process,
    api: Api<M>,
    call: Call,
    token: Option<String>,
) -> Result<Reply, Status> {
    let (mut reply, answered) = oneshot::channel();
    let answering = async move {
        // As behind a connection: a client that has gone takes its handler along.
        let answer = tokio::select! {
            biased;
            () = reply.closed() => return,
            answer = dispatch(&api, call, token.as_deref()) => answer,
        };
        drop(reply.send(answer));
    };
    host.spawn(process, Box::pin(answering));
    answered.await.unwrap_or_else(|_| Err(Status::unavailable("connection reset")))
}

/// The member's end of a watch's stream.
pub(super) async fn serve_watch<M: Member>(
    api: Api<M>,
    token: Option<String>,
    asked: mpsc::UnboundedReceiver<pb::WatchRequest>,
    responses: mpsc::Sender<Result<pb::WatchResponse, Status>>,
) {
    let requests = stream::unfold(asked, |mut asked| async { Some((Ok(asked.recv().await?), asked)) });
    match api.watch_over(with_token(Box::pin(requests), token.as_deref())).await {
        Ok(served) => forward(served.into_inner(), responses).await,
        Err(status) => drop(responses.send(Err(status)).await),
    }
}

/// Hands on what comes, until one of the two ends is gone.
pub async fn forward<T>(mut from: impl Stream<Item = T> + Unpin, to: mpsc::Sender<T>) {
    while let Some(next) = from.next().await {
        if to.send(next).await.is_err() {
            return;
        }
    }
}

macro_rules! dispatch {
    ($api:ident, $call:ident, $token:ident; $($name:ident => $service:ident::$method:ident;)* ; $($other:pat => $other_body:expr,)*) => {
        match $call {
            $(Call::$name(request) => {
                $service::$method($api, with_token(request, $token)).await.map(|r| Reply::from(r.into_inner()))
            })*
            $($other => $other_body,)*
        }
    };
}

/// Runs a call in its handler.
async fn dispatch<M: Member>(api: &Api<M>, call: Call, token: Option<&str>) -> Result<Reply, Status> {
    dispatch! { api, call, token;
        Range => Kv::range;
        Put => Kv::put;
        DeleteRange => Kv::delete_range;
        Txn => Kv::txn;
        Compact => Kv::compact;
        LeaseGrant => Lease::lease_grant;
        LeaseRevoke => Lease::lease_revoke;
        LeaseTimeToLive => Lease::lease_time_to_live;
        LeaseLeases => Lease::lease_leases;
        MemberAdd => Cluster::member_add;
        MemberRemove => Cluster::member_remove;
        MemberUpdate => Cluster::member_update;
        MemberList => Cluster::member_list;
        MemberPromote => Cluster::member_promote;
        Alarm => Maintenance::alarm;
        Status => Maintenance::status;
        Defragment => Maintenance::defragment;
        Hash => Maintenance::hash;
        HashKv => Maintenance::hash_kv;
        MoveLeader => Maintenance::move_leader;
        Downgrade => Maintenance::downgrade;
        AuthEnable => Auth::auth_enable;
        AuthDisable => Auth::auth_disable;
        AuthStatus => Auth::auth_status;
        Authenticate => Auth::authenticate;
        UserAdd => Auth::user_add;
        UserGet => Auth::user_get;
        UserList => Auth::user_list;
        UserDelete => Auth::user_delete;
        UserChangePassword => Auth::user_change_password;
        UserGrantRole => Auth::user_grant_role;
        UserRevokeRole => Auth::user_revoke_role;
        RoleAdd => Auth::role_add;
        RoleGet => Auth::role_get;
        RoleList => Auth::role_list;
        RoleDelete => Auth::role_delete;
        RoleGrantPermission => Auth::role_grant_permission;
        RoleRevokePermission => Auth::role_revoke_permission;
        Lock => Lock::lock;
        Unlock => Lock::unlock;
        Campaign => Election::campaign;
        Proclaim => Election::proclaim;
        Leader => Election::leader;
        Resign => Election::resign;
        ;
        Call::LeaseKeepAlive(request) => {
            // Left open: a stream that ends would end the renewal with it.
            let requests = stream::iter([Ok(request)]).chain(stream::pending());
            let mut renewed = api.keep_alive_over(with_token(requests.boxed(), token)).await?.into_inner();
            match renewed.next().await {
                Some(response) => response.map(Reply::from),
                None => Err(Status::unavailable("connection reset")),
            }
        },
    }
}
