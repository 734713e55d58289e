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
        self as pb, cluster_client::ClusterClient, cluster_server::ClusterServer, kv_client::KvClient,
        kv_server::KvServer, lease_client::LeaseClient, lease_server::LeaseServer,
        maintenance_client::MaintenanceClient, maintenance_server::MaintenanceServer,
        watch_client::WatchClient, watch_server::WatchServer,
    },
};
use tokio::sync::mpsc;
use tonic::{
    Request, Status, Streaming,
    transport::{Channel, Endpoint, Server},
};

use crate::{
    history::{Call, Reply},
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
    ($channel:ident, $call:ident; $($name:ident => $client:ident::$method:ident;)*) => {
        match $call {
            $(Call::$name(request) => $client::new($channel)
                .$method(Request::new(request))
                .await
                .map(|response| Reply::from(response.into_inner())),)*
            Call::LeaseKeepAlive(request) => {
                // Left open: a stream that ends would end the renewal with it.
                let requests = stream::iter([request]).chain(stream::pending());
                let mut renewed = LeaseClient::new($channel).lease_keep_alive(requests).await?.into_inner();
                match renewed.next().await {
                    Some(response) => response.map(Reply::from),
                    None => Err(Status::unavailable("connection reset")),
                }
            }
            other => Err(Status::unimplemented(other.name())),
        }
    };
}

/// Calls the member at an address.
pub(super) async fn call(address: Address, call: Call) -> Result<Reply, Status> {
    let channel = channel(address)?;
    remote! { channel, call;
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
    }
}

/// Watches over a stream with the member at an address.
pub(super) async fn watch(
    address: Address,
    requests: mpsc::UnboundedReceiver<pb::WatchRequest>,
    responses: mpsc::Sender<Result<pb::WatchResponse, Status>>,
) {
    match open_watch(channel(address), Requests(requests)).await {
        // Who drops the responses drops the requests too, and their end is the stream's.
        Ok(stream) => forward(stream, responses).await,
        Err(status) => forward(stream::iter([Err(status)]), responses).await,
    }
}

async fn open_watch(
    channel: Result<Channel, Status>,
    requests: Requests,
) -> Result<Streaming<pb::WatchResponse>, Status> {
    Ok(WatchClient::new(channel?).watch(requests).await?.into_inner())
}

/// Requests as they come.
struct Requests(mpsc::UnboundedReceiver<pb::WatchRequest>);

impl Stream for Requests {
    type Item = pb::WatchRequest;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context)
    }
}
