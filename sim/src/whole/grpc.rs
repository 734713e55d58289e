//! gRPC over madsim's network: the generated clients and servers around the shipped handlers.

use std::{
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};

use futures_util::{Stream, StreamExt, stream};
use kontiki::{
    server::api::{Api, Member},
    wire::etcdserverpb::{
        self as pb, auth_client::AuthClient, auth_server::AuthServer, cluster_client::ClusterClient,
        cluster_server::ClusterServer, kv_client::KvClient, kv_server::KvServer, lease_client::LeaseClient,
        lease_server::LeaseServer, maintenance_client::MaintenanceClient,
        maintenance_server::MaintenanceServer, watch_client::WatchClient, watch_server::WatchServer,
    },
    wire::{
        v3electionpb::{election_client::ElectionClient, election_server::ElectionServer},
        v3lockpb::{lock_client::LockClient, lock_server::LockServer},
    },
};
use tokio::sync::mpsc;
use tonic::{
    Status, Streaming,
    transport::{Channel, Endpoint, Server},
};

use crate::{
    history::{Call, Reply},
    host::with_token,
    net::Address,
    storm::forward,
};

const PORT: u16 = 2379;

/// Serves clients at an address until the node dies.
pub(super) async fn serve<M: Member>(address: Address, api: Api<M>) {
    let at = SocketAddr::from(([10, 0, 0, address as u8], PORT));
    let served = Server::builder()
        .add_service(KvServer::new(api.clone()))
        .add_service(WatchServer::new(api.clone()))
        .add_service(LeaseServer::new(api.clone()))
        .add_service(ClusterServer::new(api.clone()))
        .add_service(AuthServer::new(api.clone()))
        .add_service(LockServer::new(api.clone()))
        .add_service(ElectionServer::new(api.clone()))
        .add_service(MaintenanceServer::new(api))
        .serve(at)
        .await;
    // Without it nobody could call the member, which says nothing about the member.
    served.expect("an address is free once the node that had it was killed");
}

fn unavailable(error: tonic::transport::Error) -> Status {
    Status::unavailable(error.to_string())
}

fn channel(address: Address) -> Result<Channel, Status> {
    let endpoint = Endpoint::from_shared(format!("http://10.0.0.{address}:{PORT}")).map_err(unavailable)?;
    Ok(endpoint.connect_lazy())
}

macro_rules! remote {
    ($channel:ident, $call:ident, $token:ident; $($name:ident => $client:ident::$method:ident;)*) => {
        match $call {
            $(Call::$name(request) => $client::new($channel)
                .$method(with_token(request, $token.as_deref()))
                .await
                .map(|response| Reply::from(response.into_inner())),)*
            Call::LeaseKeepAlive(request) => {
                // Left open: a stream that ends would end the renewal with it.
                let requests = stream::iter([request]).chain(stream::pending());
                let requests = with_token(requests, $token.as_deref());
                let mut renewed = LeaseClient::new($channel).lease_keep_alive(requests).await?.into_inner();
                match renewed.next().await {
                    Some(response) => response.map(Reply::from),
                    None => Err(Status::unavailable("connection reset")),
                }
            }
        }
    };
}

/// Calls the member at an address.
pub(super) async fn call(address: Address, call: Call, token: Option<String>) -> Result<Reply, Status> {
    let channel = channel(address)?;
    remote! { channel, call, token;
        Range => KvClient::range;
        Put => KvClient::put;
        DeleteRange => KvClient::delete_range;
        Txn => KvClient::txn;
        Compact => KvClient::compact;
        LeaseGrant => LeaseClient::lease_grant;
        LeaseRevoke => LeaseClient::lease_revoke;
        LeaseTimeToLive => LeaseClient::lease_time_to_live;
        LeaseLeases => LeaseClient::lease_leases;
        MemberAdd => ClusterClient::member_add;
        MemberRemove => ClusterClient::member_remove;
        MemberUpdate => ClusterClient::member_update;
        MemberList => ClusterClient::member_list;
        MemberPromote => ClusterClient::member_promote;
        Alarm => MaintenanceClient::alarm;
        Status => MaintenanceClient::status;
        Defragment => MaintenanceClient::defragment;
        Hash => MaintenanceClient::hash;
        HashKv => MaintenanceClient::hash_kv;
        MoveLeader => MaintenanceClient::move_leader;
        Downgrade => MaintenanceClient::downgrade;
        AuthEnable => AuthClient::auth_enable;
        AuthDisable => AuthClient::auth_disable;
        AuthStatus => AuthClient::auth_status;
        Authenticate => AuthClient::authenticate;
        UserAdd => AuthClient::user_add;
        UserGet => AuthClient::user_get;
        UserList => AuthClient::user_list;
        UserDelete => AuthClient::user_delete;
        UserChangePassword => AuthClient::user_change_password;
        UserGrantRole => AuthClient::user_grant_role;
        UserRevokeRole => AuthClient::user_revoke_role;
        RoleAdd => AuthClient::role_add;
        RoleGet => AuthClient::role_get;
        RoleList => AuthClient::role_list;
        RoleDelete => AuthClient::role_delete;
        RoleGrantPermission => AuthClient::role_grant_permission;
        RoleRevokePermission => AuthClient::role_revoke_permission;
        Lock => LockClient::lock;
        Unlock => LockClient::unlock;
        Campaign => ElectionClient::campaign;
        Proclaim => ElectionClient::proclaim;
        Leader => ElectionClient::leader;
        Resign => ElectionClient::resign;
    }
}

/// Watches over a stream with the member at an address.
pub(super) async fn watch(
    address: Address,
    token: Option<String>,
    requests: mpsc::UnboundedReceiver<pb::WatchRequest>,
    responses: mpsc::Sender<Result<pb::WatchResponse, Status>>,
) {
    match open_watch(channel(address), token, Requests(requests)).await {
        // Who drops the responses drops the requests too, and their end is the stream's.
        Ok(stream) => forward(stream, responses).await,
        Err(status) => forward(stream::iter([Err(status)]), responses).await,
    }
}

async fn open_watch(
    channel: Result<Channel, Status>,
    token: Option<String>,
    requests: Requests,
) -> Result<Streaming<pb::WatchResponse>, Status> {
    Ok(WatchClient::new(channel?).watch(with_token(requests, token.as_deref())).await?.into_inner())
}

/// Requests as they come.
struct Requests(mpsc::UnboundedReceiver<pb::WatchRequest>);

impl Stream for Requests {
    type Item = pb::WatchRequest;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context)
    }
}
