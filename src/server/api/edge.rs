//! All services behind one dispatch by path, and what tonic answers before any handler in etcd's words.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};
use http_body_util::BodyExt;
use tonic::{
    Code, Request, Response, Status,
    body::Body,
    codegen::{Body as HttpBody, BoxFuture, Service, StdError, http},
};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse,
    health_check_response::ServingStatus,
    health_server::{Health, HealthServer},
};

use super::{Api, Member, admit::cut, budget::Charge, error};
use crate::wire::{
    etcdserverpb::{
        auth_server::AuthServer, cluster_server::ClusterServer, kv_server::KvServer,
        lease_server::LeaseServer, maintenance_server::MaintenanceServer, watch_server::WatchServer,
    },
    v3electionpb::election_server::ElectionServer,
    v3lockpb::lock_server::LockServer,
};

/// All services of a member, as one HTTP/2 service for any listener. A message over
/// [`super::Limits::message_bytes_max`] is refused; what is sent has no limit.
#[derive(Clone, Debug)]
pub struct Grpc<M> {
    services: Arc<Services<M>>,
}

/// Cloned for each request as a whole, they would cost more than to find the one that is asked.
#[derive(Debug)]
struct Services<M> {
    kv: KvServer<Api<M>>,
    watch: WatchServer<Api<M>>,
    lease: LeaseServer<Api<M>>,
    cluster: ClusterServer<Api<M>>,
    maintenance: MaintenanceServer<Api<M>>,
    auth: AuthServer<Api<M>>,
    lock: LockServer<Api<M>>,
    election: ElectionServer<Api<M>>,
    health: HealthServer<Serving<M>>,
    message_bytes_max: usize,
}

impl<M: Member> Grpc<M> {
    /// The services of `member`.
    pub fn new(member: M) -> Self {
        let max = member.limits().message_bytes_max();
        let health = Serving { member: member.clone() };
        let api = Arc::new(Api::new(member));
        let services = Services {
            kv: KvServer::from_arc(api.clone()).max_decoding_message_size(max),
            watch: WatchServer::from_arc(api.clone()).max_decoding_message_size(max),
            lease: LeaseServer::from_arc(api.clone()).max_decoding_message_size(max),
            cluster: ClusterServer::from_arc(api.clone()).max_decoding_message_size(max),
            maintenance: MaintenanceServer::from_arc(api.clone()).max_decoding_message_size(max),
            lock: LockServer::from_arc(api.clone()).max_decoding_message_size(max),
            election: ElectionServer::from_arc(api.clone()).max_decoding_message_size(max),
            auth: AuthServer::from_arc(api).max_decoding_message_size(max),
            health: HealthServer::new(health).max_decoding_message_size(max),
            message_bytes_max: max,
        };
        Self { services: Arc::new(services) }
    }

    /// The same as a router's only route, for what takes routers.
    pub fn into_router(self) -> axum::Router {
        axum::Router::new().fallback_service(self)
    }
}

impl<M, B> Service<http::Request<B>> for Grpc<M>
where
    M: Member,
    B: HttpBody + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Answer {
        let services = &*self.services;
        let uri = request.uri().clone();
        let inner = match split(uri.path()).0 {
            "etcdserverpb.KV" => services.kv.clone().call(request),
            "etcdserverpb.Watch" => services.watch.clone().call(request),
            "etcdserverpb.Lease" => services.lease.clone().call(request),
            "etcdserverpb.Cluster" => services.cluster.clone().call(request),
            "etcdserverpb.Maintenance" => services.maintenance.clone().call(request),
            "etcdserverpb.Auth" => services.auth.clone().call(request),
            "v3lockpb.Lock" => services.lock.clone().call(request),
            "v3electionpb.Election" => services.election.clone().call(request),
            "grpc.health.v1.Health" => services.health.clone().call(request),
            service => {
                let status = Status::unimplemented(format!("unknown service {service}"));
                Box::pin(std::future::ready(Ok(status.into_http())))
            }
        };
        Answer { inner, uri, message_bytes_max: services.message_bytes_max }
    }
}

/// A path's service and method.
fn split(path: &str) -> (&str, &str) {
    path.strip_prefix('/').unwrap_or(path).rsplit_once('/').unwrap_or((path, ""))
}

/// A handler's answer, or tonic's own with its words replaced.
pub struct Answer {
    inner: BoxFuture<http::Response<Body>, Infallible>,
    uri: http::Uri,
    message_bytes_max: usize,
}

impl Future for Answer {
    type Output = Result<http::Response<Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Ok(mut response) = ready!(self.inner.as_mut().poll(cx));
        // A status among the headers means that there was no message: a refusal, by a handler or by tonic.
        if let Some(status) = Status::from_header_map(response.headers()) {
            let reworded = if status.code() == Code::Unimplemented && status.message().is_empty() {
                let (service, method) = split(self.uri.path());
                Some((Code::Unimplemented, format!("unknown method {method} for service {service}")))
            } else {
                error::reworded(status.code(), status.message(), self.message_bytes_max)
            };
            if let Some((code, text)) = reworded {
                response = Status::new(code, text).into_http();
            }
        }
        Poll::Ready(Ok(hold(response)))
    }
}

/// Has the bytes of an answer hold the charge that was attached to it: the body itself may be gone long before they
/// are sent.
fn hold(mut response: http::Response<Body>) -> http::Response<Body> {
    match response.extensions_mut().remove::<Arc<Charge>>() {
        Some(charge) => response.map(|body| {
            Body::new(body.map_frame(move |frame| {
                let charge = Arc::clone(&charge);
                frame.map_data(|bytes| Bytes::from_owner(Charged { bytes, _charge: charge }))
            }))
        }),
        None => response,
    }
}

struct Charged {
    bytes: Bytes,
    _charge: Arc<Charge>,
}

impl AsRef<[u8]> for Charged {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// gRPC's health service: the server as a whole is serving, and nothing else has a health of its own.
#[derive(Clone, Debug)]
struct Serving<M> {
    member: M,
}

fn health_of(service: &str) -> Option<ServingStatus> {
    service.is_empty().then_some(ServingStatus::Serving)
}

#[tonic::async_trait]
impl<M: Member> Health for Serving<M> {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let status =
            health_of(&request.get_ref().service).ok_or_else(|| Status::not_found("unknown service"))?;
        Ok(Response::new(HealthCheckResponse { status: status as i32 }))
    }

    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let status = health_of(&request.get_ref().service).unwrap_or(ServingStatus::ServiceUnknown);
        let first = HealthCheckResponse { status: status as i32 };
        let stopped = cut(&self.member, false);
        let statuses = stream::iter([Ok(first)]).chain(stream::pending()).take_until(stopped);
        Ok(Response::new(statuses.boxed()))
    }
}
