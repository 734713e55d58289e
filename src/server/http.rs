//! HTTP on the client port and on the metrics port: versions, health, metrics, and the way to gRPC.
//!
//! gRPC requests are told by their content type and go to their services before anything else looks at them.
//! All other requests pass the host check and the CORS rules, as etcd's do (`contract/http.md`), then an
//! endpoint answers, or the JSON gateway, or 404 in Go's words.
//!
//! ```text
//! request ─ application/grpc? ─ yes ─▶ gRPC services (counted)
//!              └─ no ─▶ host known? ─▶ CORS ─▶ OPTIONS? ─▶ /version /health /livez /readyz /metrics
//!                                                          /debug/vars  /v3/… (gateway)  404
//! ```

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::{Router, body::Body};
use bytes::Bytes;
use http_body_util::Either;
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::{Body as HttpBody, Incoming},
    header::{self, HeaderName, HeaderValue},
};
use serde_json::json;
use tower::Service;

use crate::{
    server::metrics::{self, Counted, Metrics},
    state::{Alarm, AlarmKind},
    types::{Index, NodeId, Term},
};

/// The versions that a member tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versions {
    /// Its own, `3.5.21` form.
    pub server: String,
    /// The cluster's, `3.5.0` form; None until it has been decided.
    pub cluster: Option<String>,
    /// The storage's, as 3.6 tells it; None leaves it out, as 3.5 does.
    pub storage: Option<String>,
}

impl Versions {
    /// The body of `/version`, on the client port and the peer port.
    pub fn to_json(&self) -> String {
        // By hand: etcd's order of the fields is part of the bytes.
        let cluster = self.cluster.as_deref().unwrap_or("not_decided");
        let mut text = format!("{{\"etcdserver\":{},\"etcdcluster\":{}", json!(self.server), json!(cluster));
        if let Some(storage) = &self.storage {
            text.push_str(&format!(",\"storage\":{}", json!(storage)));
        }
        text.push('}');
        text
    }
}

/// What `/debug/vars` shows of raft.
#[derive(Clone, Debug, Default)]
pub struct RaftVars {
    /// This member.
    pub id: NodeId,
    /// Its term.
    pub term: Term,
    /// Whom it voted for in it; 0 for nobody.
    pub vote: NodeId,
    /// Its commit index.
    pub commit: Index,
    /// Its applied index.
    pub applied: Index,
    /// The leader; 0 for none.
    pub lead: NodeId,
    /// Its role, `StateLeader` form.
    pub state: &'static str,
    /// The leader's view of the others: id, match, next, `StateReplicate` form.
    pub progress: Vec<(NodeId, Index, Index, &'static str)>,
}

/// The member behind the endpoints.
#[tonic::async_trait]
pub trait HttpService: Send + Sync + 'static {
    /// What `/version` says.
    fn versions(&self) -> Versions;

    /// The active alarms, by member.
    fn alarms(&self) -> Vec<Alarm>;

    /// Whether a leader is known.
    fn has_leader(&self) -> bool;

    /// Whether this member is a learner.
    fn is_learner(&self) -> bool;

    /// Reads one key as root, within the request timeout; the error's text says why it could not.
    async fn probe_read(&self, linearizable: bool) -> Result<(), String>;

    /// What `/debug/vars` shows of raft.
    fn raft_vars(&self) -> RaftVars;
}

/// Who may ask over HTTP.
#[derive(Clone, Debug)]
pub struct Access {
    /// Allowed origins (`--cors`); `*` is any.
    pub cors: Vec<String>,
    /// Known host names (`--host-whitelist`), without ports; `*` or none is any.
    pub hosts: Vec<String>,
    /// Whether the port speaks TLS, which makes the host check needless.
    pub tls: bool,
}

impl Default for Access {
    fn default() -> Self {
        Self { cors: vec!["*".into()], hosts: vec!["*".into()], tls: false }
    }
}

impl Access {
    fn host_known(&self, host: &str) -> bool {
        self.tls || self.hosts.is_empty() || self.hosts.iter().any(|known| known == "*" || known == host)
    }

    /// The value of `Access-Control-Allow-Origin`, if the origin is allowed.
    fn origin(&self, origin: Option<&HeaderValue>) -> Option<HeaderValue> {
        if self.cors.is_empty() || self.cors.iter().any(|allowed| allowed == "*") {
            return Some(HeaderValue::from_static("*"));
        }
        let origin = origin?;
        self.cors.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes()).then(|| origin.clone())
    }
}

/// The endpoints of one port.
pub struct Endpoints {
    /// The member.
    pub service: Arc<dyn HttpService>,
    /// What `/metrics` shows, and where RPCs are counted.
    pub metrics: Arc<Metrics>,
    /// Who may ask.
    pub access: Access,
    /// The JSON gateway, for `/v3/` and what else it knows; None answers 404.
    pub gateway: Option<Router>,
    /// A metrics port serves `/metrics` and the health checks alone.
    pub metrics_only: bool,
}

/// The client port's service: `grpc`, which may be a router or the services themselves, and HTTP.
pub fn client_router<G>(grpc: G, endpoints: Arc<Endpoints>) -> PortService<G> {
    PortService { grpc: Some(grpc), endpoints }
}

/// The service of a port without gRPC: a metrics port, or `--listen-client-http-urls`.
pub fn http_router<G>(endpoints: Arc<Endpoints>) -> PortService<G> {
    PortService { grpc: None, endpoints }
}

/// A port's service, for [`crate::server::listen::serve`].
#[derive(Clone)]
pub struct PortService<G> {
    grpc: Option<G>,
    endpoints: Arc<Endpoints>,
}

type Answer<B> = Result<Response<Counted<Either<B, Body>>>, Infallible>;

impl<G, B> Service<Request<Incoming>> for PortService<G>
where
    G: Service<Request<Counted<Incoming>>, Response = Response<B>, Error = Infallible>,
    G::Future: Send + 'static,
    B: HttpBody<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<Counted<Either<B, Body>>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Answer<B>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        match &mut self.grpc {
            Some(grpc) if is_grpc(request.headers()) => {
                let call = self.endpoints.metrics.grpc.begin(request.uri().path(), request.headers());
                let Some(call) = call else {
                    let answer = grpc.call(request.map(Counted::plain));
                    return Box::pin(async move {
                        Ok(answer.await?.map(|body| Counted::plain(Either::Left(body))))
                    });
                };
                let answer = grpc.call(request.map(|body| call.request(body)));
                Box::pin(async move {
                    let (head, body) = answer.await?.into_parts();
                    let body = call.response(&head.headers, Either::Left(body));
                    Ok(Response::from_parts(head, body))
                })
            }
            _ => {
                let endpoints = Arc::clone(&self.endpoints);
                Box::pin(async move {
                    let answer = endpoints.answer(request.map(Body::new)).await;
                    Ok(answer.map(|body| Counted::plain(Either::Right(body))))
                })
            }
        }
    }
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

/// An answer with a body.
pub(super) fn answer(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::from(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// An error as Go's library writes one: the text and a newline, not to be sniffed.
pub(super) fn go_error(status: StatusCode, text: &str) -> Response<Body> {
    let mut response = answer(status, TEXT, format!("{text}\n"));
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// 404 as Go's library says it.
pub(super) fn not_found() -> Response<Body> {
    go_error(StatusCode::NOT_FOUND, "404 page not found")
}

/// 405, with the method that is allowed.
pub(super) fn not_allowed(allowed: &'static str) -> Response<Body> {
    let mut response = go_error(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    response
}

/// The values of a query's parameter `name`, percent-decoded.
fn query_values(query: Option<&str>, name: &str) -> Vec<String> {
    let parts = query.unwrap_or_default().split('&').filter(|part| !part.is_empty());
    let pairs = parts.map(|part| part.split_once('=').unwrap_or((part, "")));
    pairs.filter(|(key, _)| unescape(key) == name).map(|(_, value)| unescape(value)).collect()
}

/// Decodes a form's escapes; what is no escape stays as it is.
fn unescape(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).and_then(|hex| std::str::from_utf8(hex).ok());
        match (bytes[at], hex.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'%', Some(byte)) => {
                plain.push(byte);
                at += 3;
                continue;
            }
            (b'+', _) => plain.push(b' '),
            (byte, _) => plain.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&plain).into_owned()
}

/// What the livez and readyz checks look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    DataCorruption,
    SerializableRead,
    LinearizableRead,
    NonLearner,
}

const LIVEZ: &[Check] = &[Check::SerializableRead];
const READYZ: &[Check] =
    &[Check::DataCorruption, Check::SerializableRead, Check::LinearizableRead, Check::NonLearner];

impl Check {
    fn name(self) -> &'static str {
        match self {
            Self::DataCorruption => "data_corruption",
            Self::SerializableRead => "serializable_read",
            Self::LinearizableRead => "linearizable_read",
            Self::NonLearner => "non_learner",
        }
    }
}

impl Endpoints {
    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        if self.metrics_only {
            return self.endpoint(request).await;
        }
        let host = host_of(&request);
        if !self.access.host_known(&host) {
            return go_error(StatusCode::MISDIRECTED_REQUEST, &unknown_host(&host));
        }
        let origin = self.access.origin(request.headers().get(header::ORIGIN));
        let mut response = if request.method() == Method::OPTIONS {
            Response::new(Body::empty())
        } else {
            self.endpoint(request).await
        };
        if let Some(origin) = origin {
            let allow = |name: HeaderName, value| (name, HeaderValue::from_static(value));
            response.headers_mut().extend([
                allow(header::ACCESS_CONTROL_ALLOW_METHODS, "POST, GET, OPTIONS, PUT, DELETE"),
                (header::ACCESS_CONTROL_ALLOW_ORIGIN, origin),
                allow(header::ACCESS_CONTROL_ALLOW_HEADERS, "accept, content-type, authorization"),
            ]);
        }
        response
    }

    async fn endpoint(&self, request: Request<Body>) -> Response<Body> {
        let path = request.uri().path();
        match path {
            "/metrics" => return answer(StatusCode::OK, metrics::CONTENT_TYPE, self.metrics.render()),
            "/health" if request.method() == Method::GET => return self.health(request.uri().query()).await,
            "/version" if !self.metrics_only && request.method() == Method::GET => {
                return answer(StatusCode::OK, JSON, self.service.versions().to_json());
            }
            "/health" => return not_allowed("GET"),
            "/version" if !self.metrics_only => return not_allowed("GET"),
            "/debug/vars" if !self.metrics_only => {
                return answer(StatusCode::OK, "application/json; charset=utf-8", self.debug_vars());
            }
            _ => {}
        }
        for (kind, checks) in [("livez", LIVEZ), ("readyz", READYZ)] {
            let Some(rest) = path.strip_prefix('/').and_then(|path| path.strip_prefix(kind)) else {
                continue;
            };
            let checks = match rest.strip_prefix('/') {
                None if rest.is_empty() => checks.to_vec(),
                Some(name) => checks.iter().copied().filter(|check| check.name() == name).collect(),
                None => continue,
            };
            if checks.is_empty() {
                return not_found();
            }
            if request.method() != Method::GET {
                return not_allowed("GET");
            }
            return self.run_checks(kind, checks, request.uri().query()).await;
        }
        match &self.gateway {
            Some(gateway) if !self.metrics_only && path.starts_with("/v3") => {
                let mut gateway = gateway.clone();
                match gateway.call(request).await {
                    Ok(response) => response,
                    Err(never) => match never {},
                }
            }
            _ => not_found(),
        }
    }

    /// `/health`: the alarms, then the leader, then a read.
    async fn health(&self, query: Option<&str>) -> Response<Body> {
        let excluded = query_values(query, "exclude");
        // etcd looks at the first value of a repeated parameter.
        let serializable = query_values(query, "serializable").first().is_some_and(|value| value == "true");
        let reason = self.unhealthy(&excluded, serializable).await;
        match reason {
            None => {
                self.metrics.server.health_success.inc();
                answer(StatusCode::OK, TEXT, &b"{\"health\":\"true\",\"reason\":\"\"}"[..])
            }
            Some(reason) => {
                self.metrics.server.health_failures.inc();
                let body = format!("{{\"health\":\"false\",\"reason\":{}}}", json!(reason));
                go_error(StatusCode::SERVICE_UNAVAILABLE, &body)
            }
        }
    }

    async fn unhealthy(&self, excluded: &[String], serializable: bool) -> Option<String> {
        for alarm in self.service.alarms() {
            let name = match alarm.kind {
                AlarmKind::None => continue,
                AlarmKind::NoSpace => "NOSPACE",
                AlarmKind::Corrupt => "CORRUPT",
            };
            if !excluded.iter().any(|excluded| excluded == name) {
                return Some(format!("ALARM {name}"));
            }
        }
        // As the later 3.5 versions: who asks for a serializable read does not need a leader.
        if !serializable && !self.service.has_leader() {
            return Some("RAFT NO LEADER".into());
        }
        let read = self.service.probe_read(!serializable).await;
        read.err().map(|error| format!("RANGE ERROR:{error}"))
    }

    async fn run_checks(&self, kind: &str, checks: Vec<Check>, query: Option<&str>) -> Response<Body> {
        let excluded = query_values(query, "exclude");
        let verbose = !query_values(query, "verbose").is_empty();
        let mut lines = String::new();
        let mut good = true;
        for check in checks.into_iter().filter(|check| !excluded.iter().any(|name| name == check.name())) {
            let name = check.name();
            let result = self.check(check).await;
            let status = if result.is_ok() { "success" } else { "error" };
            self.metrics.server.healthchecks.with_label_values(&[kind, name, status]).inc();
            self.metrics.server.healthcheck.with_label_values(&[kind, name]).set(result.is_ok().into());
            match result {
                Ok(()) => lines.push_str(&format!("[+]{name} ok\n")),
                Err(error) => {
                    good = false;
                    lines.push_str(&format!("[-]{name} failed: {error}\n"));
                }
            }
        }
        if !good {
            return go_error(StatusCode::SERVICE_UNAVAILABLE, &lines);
        }
        if !verbose {
            lines.clear();
        }
        lines.push_str("ok\n");
        answer(StatusCode::OK, TEXT, lines)
    }

    async fn check(&self, check: Check) -> Result<(), String> {
        match check {
            Check::DataCorruption => {
                let corrupt = self.service.alarms().iter().any(|alarm| alarm.kind == AlarmKind::Corrupt);
                if corrupt { Err("alarm activated: CORRUPT".into()) } else { Ok(()) }
            }
            Check::SerializableRead => self.service.probe_read(false).await,
            Check::LinearizableRead => self.service.probe_read(true).await,
            Check::NonLearner if self.service.is_learner() => Err("not supported for learner".into()),
            Check::NonLearner => Ok(()),
        }
    }

    /// Go's expvar page, with what of it a Rust process has.
    fn debug_vars(&self) -> String {
        let vars = self.service.raft_vars();
        let progress: serde_json::Map<_, _> = vars
            .progress
            .iter()
            .map(|(id, matched, next, state)| {
                (id.to_string(), json!({"match": matched.0, "next": next.0, "state": state}))
            })
            .collect();
        let status = json!({
            "id": vars.id.to_string(), "term": vars.term.0, "vote": vars.vote.to_string(),
            "commit": vars.commit.0, "lead": vars.lead.to_string(), "raftState": vars.state,
            "applied": vars.applied.0, "progress": progress, "leadtransferee": "0",
        });
        let command: Vec<String> = std::env::args().collect();
        let limit = metrics::file_descriptor_limit();
        format!(
            "{{\n\"cmdline\": {},\n\"file_descriptor_limit\": {limit},\n\"memstats\": {{}},\n\"raft.status\": {status}\n}}\n",
            json!(command)
        )
    }
}

/// The host that the client thinks it talks to, without its port.
fn host_of(request: &Request<Body>) -> String {
    let header = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let host = header.or(request.uri().authority().map(|authority| authority.as_str())).unwrap_or_default();
    match host.rsplit_once(':') {
        // `[::1]` without a port ends with its bracket.
        Some((name, port)) if !port.ends_with(']') => name.trim_matches(['[', ']']).to_owned(),
        _ => host.trim_matches(['[', ']']).to_owned(),
    }
}

fn unknown_host(host: &str) -> String {
    format!(
        "\netcd received your request, but the Host header was unrecognized.\n\n\
         Requests without TLS are served only under known host names, so that no web page can reach this \
         server by pointing its own name here (\"DNS rebinding\", CVE-2018-5702).\n\
         Either use https, or add the name: --host-whitelist {host:?}"
    )
}
