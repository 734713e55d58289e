//! The peer port: streams that the others dial, their POSTs, and what members ask each other besides raft.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    response::Response,
    routing::any,
};
use hyper::{HeaderMap, Method, StatusCode, header::HeaderValue};
use prost::Message as _;
use serde_json::json;

use super::{
    HttpPeers, Shared, StreamKind,
    client::{MemberJson, internal},
    dial, snapshot,
};
use crate::{
    error::Refusal,
    membership::Member,
    raft::Message,
    runtime::PeerEvent,
    server::{
        LeaseInfo,
        http::{Versions, answer, go_error, not_allowed, not_found},
    },
    types::{LeaseId, NodeId, Revision},
    wire::{
        etcdserverpb::{
            LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseTimeToLiveResponse, ResponseHeader,
        },
        raft::WireError,
        raftpb,
    },
};

/// The largest body of a POST that is no snapshot.
const BODY_BYTES_MAX: usize = 64 << 20;

/// How long such a body may take to come.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a lease request waits for this member to apply what it has committed.
const APPLY_TIMEOUT: Duration = Duration::from_secs(1);

/// What `/members/hashkv` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct HashKv {
    pub hash: u32,
    /// The store's newest revision.
    pub revision: Revision,
    /// As the API tells it: -1 if nothing was compacted.
    pub compact_revision: Revision,
}

/// What members ask each other besides raft.
#[tonic::async_trait]
pub trait PeerService: Send + Sync + 'static {
    /// What `/version` says.
    fn versions(&self) -> Versions;

    /// The members.
    fn members(&self) -> Vec<Member>;

    /// Promotes a learner, on the leader; the members afterwards.
    async fn promote(&self, id: NodeId) -> Result<Vec<Member>, Refusal>;

    /// Renews leases, on the leader; the seconds that each has, None for one that is not there.
    async fn renew_leases(&self, ids: Vec<LeaseId>) -> Result<Vec<Option<i64>>, Refusal>;

    /// A lease's time to live, on the leader.
    async fn lease_info(&self, id: LeaseId, keys: bool) -> Result<LeaseInfo, Refusal>;

    /// The hash of the store up to a revision; 0 is the newest.
    async fn hash_kv(&self, revision: Revision) -> Result<HashKv, Refusal>;

    /// Whether a downgrade is under way, after a linearizable read.
    async fn downgrade_enabled(&self) -> Result<bool, Refusal>;
}

#[derive(Clone)]
struct Port {
    shared: Arc<Shared>,
    service: Arc<dyn PeerService>,
}

/// The service of the peer port, for [`crate::server::listen::serve`].
pub fn peer_router(peers: &HttpPeers, service: Arc<dyn PeerService>) -> Router {
    let port = Port { shared: Arc::clone(&peers.shared), service };
    Router::new()
        .route("/raft", any(post))
        .route("/raft/probing", any(probing))
        .route("/raft/snapshot", any(post_snapshot))
        .route("/raft/stream", any(stream))
        .route("/raft/stream/", any(stream))
        .route("/raft/stream/{*rest}", any(stream))
        .route("/members", any(members))
        .route("/members/promote/", any(promote))
        .route("/members/promote/{id}", any(promote))
        .route("/members/hashkv", any(hash_kv))
        .route("/downgrade/enabled", any(downgrade_enabled))
        .route("/leases", any(renew_lease))
        .route("/leases/internal", any(lease_info))
        .route("/kontiki/leases", any(renew_leases))
        .route("/version", any(version))
        .fallback(async || not_found())
        .with_state(port)
}

impl Port {
    /// Adds the header that all raft answers have.
    fn marked(&self, mut response: Response) -> Response {
        if let Ok(id) = HeaderValue::from_str(&self.shared.local.cluster.to_string()) {
            response.headers_mut().insert(dial::CLUSTER, id);
        }
        response
    }

    /// The checks that all of raft's requests go through; an unknown sender is remembered.
    fn admit(&self, headers: &HeaderMap) -> Result<(), (StatusCode, String)> {
        let refused = |text: &str| (StatusCode::PRECONDITION_FAILED, text.to_owned());
        dial::check(headers, &self.shared.local).map_err(refused)?;
        let Some(from) = sender(headers) else { return Ok(()) };
        if let Some(urls) = dial::text(headers, dial::URLS) {
            self.shared.add_remote(from, urls);
        }
        if let Some(peer) = self.shared.target(from) {
            peer.set_kontiki(headers.contains_key(dial::KONTIKI));
        }
        Ok(())
    }
}

fn sender(headers: &HeaderMap) -> Option<NodeId> {
    u64::from_str_radix(dial::text(headers, dial::FROM)?, 16).ok().map(NodeId)
}

fn no_content() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

async fn stream(State(port): State<Port>, request: Request) -> Response {
    if request.method() != Method::GET {
        return not_allowed("GET");
    }
    let mut response = match open_stream(&port, &request) {
        Ok(response) => response,
        Err((status, text)) => go_error(status, &text),
    };
    let headers = response.headers_mut();
    if let Ok(version) = HeaderValue::from_str(&port.shared.local.server_version) {
        headers.insert(dial::VERSION, version);
    }
    headers.insert(dial::KONTIKI, HeaderValue::from_static("1"));
    port.marked(response)
}

fn open_stream(port: &Port, request: &Request) -> Result<Response, (StatusCode, String)> {
    let shared = &port.shared;
    port.admit(request.headers())?;
    let not_found = |text: &str| (StatusCode::NOT_FOUND, text.to_owned());
    let (path, id) = request.uri().path().rsplit_once('/').unwrap_or_default();
    let name = path.strip_prefix("/raft/stream/").unwrap_or_default();
    let kind = StreamKind::ALL.into_iter().find(|kind| kind.name() == name);
    let kind = kind.ok_or_else(|| not_found("invalid path"))?;
    let from = u64::from_str_radix(id, 16).map(NodeId).map_err(|_| not_found("invalid from"))?;
    if shared.is_removed(from) {
        return Err((StatusCode::GONE, "removed member".into()));
    }
    let peer = shared.peer(from).ok_or_else(|| not_found("error sender not found"))?;
    if dial::text(request.headers(), dial::TO) != Some(shared.local.id.to_string().as_str()) {
        return Err((StatusCode::PRECONDITION_FAILED, "to field mismatch".into()));
    }
    Ok(Response::new(Body::new(peer.attach(shared, kind))))
}

async fn post(State(port): State<Port>, request: Request) -> Response {
    if request.method() != Method::POST {
        return not_allowed("POST");
    }
    let (head, body) = request.into_parts();
    let response = match take_post(&port, &head.headers, body).await {
        Ok(()) => no_content(),
        Err((status, text)) => go_error(status, &text),
    };
    port.marked(response)
}

async fn take_post(port: &Port, headers: &HeaderMap, body: Body) -> Result<(), (StatusCode, String)> {
    port.admit(headers)?;
    let bad = |text: &str| (StatusCode::BAD_REQUEST, text.to_owned());
    let body = read(body).await.ok_or_else(|| bad("error reading raft message"))?;
    let size = body.len();
    let wire = raftpb::Message::decode(body).map_err(|_| bad("error unmarshalling raft message"))?;
    let message = match Message::try_from(wire) {
        Ok(message) => message,
        // As etcd: what is no member's to send is dropped without a word.
        Err(WireError::Local(_) | WireError::Unknown { .. }) => return Ok(()),
        Err(_) => return Err(bad("error unmarshalling raft message")),
    };
    let shared = &port.shared;
    if let Some(peer) = shared.target(message.from) {
        peer.counters.received_bytes.inc_by(size as u64);
    }
    if shared.is_removed(message.from) {
        let text = json!({"message": "cannot process message from removed member"}).to_string();
        return Err((StatusCode::FORBIDDEN, text));
    }
    // Newer etcd says 403 here, which its senders take for "you were removed" and stop for good.
    if message.to != shared.local.id {
        return Err((StatusCode::PRECONDITION_FAILED, "to field mismatch".into()));
    }
    shared.deliver(PeerEvent::Message(message)).await;
    Ok(())
}

async fn post_snapshot(State(port): State<Port>, request: Request) -> Response {
    if request.method() != Method::POST {
        return not_allowed("POST");
    }
    let (head, body) = request.into_parts();
    let response = match port.admit(&head.headers) {
        Err((status, text)) => go_error(status, &text),
        Ok(()) => match snapshot::receive(&port.shared, &head.headers, body).await {
            Ok(()) => no_content(),
            Err((status, text)) => go_error(status, &text),
        },
    };
    port.marked(response)
}

#[allow(clippy::disallowed_types)] // shown to whoever looks; nothing is decided by it
async fn probing() -> Response {
    let now = prost_types::Timestamp::from(std::time::SystemTime::now()).to_string();
    answer(StatusCode::OK, "text/plain; charset=utf-8", format!("{{\"OK\":true,\"Now\":\"{now}\"}}\n"))
}

async fn version(State(port): State<Port>, request: Request) -> Response {
    if request.method() != Method::GET {
        return not_allowed("GET");
    }
    answer(StatusCode::OK, "application/json", port.service.versions().to_json())
}

fn members_json(mut members: Vec<Member>) -> String {
    members.sort_by_key(|member| member.id);
    let list: Vec<MemberJson> = members.into_iter().map(Into::into).collect();
    let mut text = json!([]).to_string();
    if let Ok(json) = serde_json::to_string(&list) {
        text = json;
    }
    text.push('\n');
    text
}

async fn members(State(port): State<Port>, request: Request) -> Response {
    if request.method() != Method::GET {
        return not_allowed("GET");
    }
    let body = members_json(port.service.members());
    port.marked(answer(StatusCode::OK, "application/json", body))
}

async fn promote(State(port): State<Port>, request: Request) -> Response {
    if request.method() != Method::POST {
        return not_allowed("POST");
    }
    let id = request.uri().path().trim_start_matches("/members/promote/").to_owned();
    let Ok(id) = id.parse::<u64>() else {
        let text = format!("member {id} not found in cluster");
        return port.marked(go_error(StatusCode::NOT_FOUND, &text));
    };
    let response = match port.service.promote(NodeId(id)).await {
        Ok(members) => answer(StatusCode::OK, "application/json", members_json(members)),
        Err(refusal) => {
            let (status, text) = promote_refusal(refusal);
            go_error(status, &text)
        }
    };
    port.marked(response)
}

/// etcd's own words between members, which its clients look for.
fn promote_refusal(refusal: Refusal) -> (StatusCode, String) {
    if refusal == Refusal::MemberNotFound {
        return (StatusCode::NOT_FOUND, "membership: ID not found".into());
    }
    if refusal == Refusal::MemberNotLearner {
        return (StatusCode::PRECONDITION_FAILED, "membership: can only promote a learner member".into());
    }
    if refusal == Refusal::LearnerNotReady {
        return (StatusCode::PRECONDITION_FAILED, refusal.to_string());
    }
    (StatusCode::INTERNAL_SERVER_ERROR, json!({"message": "Internal Server Error"}).to_string())
}

async fn hash_kv(State(port): State<Port>, request: Request) -> Response {
    if request.method() != Method::GET {
        return not_allowed("GET");
    }
    let bad = |text| go_error(StatusCode::BAD_REQUEST, text);
    let Some(body) = read(request.into_body()).await else { return bad("error reading body") };
    let Ok(question) = serde_json::from_slice::<serde_json::Value>(&body) else {
        return bad("error unmarshalling request");
    };
    let revision = question.get("revision").and_then(serde_json::Value::as_i64).unwrap_or(0);
    match port.service.hash_kv(Revision(revision)).await {
        Ok(found) => port.marked(answer(StatusCode::OK, "application/json", hash_json(&found))),
        // The store's own words, which etcd's members look for, are those of the API without their origin.
        Err(refusal) => bad(refusal.to_string().trim_start_matches("etcdserver: ")),
    }
}

/// Go's JSON of the response: no zeros, and of the header what the store knows.
fn hash_json(found: &HashKv) -> String {
    let field = |name: &str, value: i64| (value != 0).then(|| format!("\"{name}\":{value}"));
    let header = field("revision", found.revision.0).unwrap_or_default();
    let fields = [
        Some(format!("\"header\":{{{header}}}")),
        field("hash", found.hash.into()),
        field("compact_revision", found.compact_revision.0),
    ];
    format!("{{{}}}", fields.into_iter().flatten().collect::<Vec<_>>().join(","))
}

async fn downgrade_enabled(State(port): State<Port>, request: Request) -> Response {
    if request.method() != Method::GET {
        return not_allowed("GET");
    }
    let response = match port.service.downgrade_enabled().await {
        Ok(enabled) => answer(StatusCode::OK, "text/plain", enabled.to_string()),
        Err(refusal) => go_error(StatusCode::INTERNAL_SERVER_ERROR, &refusal.to_string()),
    };
    port.marked(response)
}

/// 405 of the lease paths names no method.
fn post_only() -> Response {
    go_error(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed")
}

fn protobuf(message: &impl prost::Message) -> Response {
    answer(StatusCode::OK, "application/protobuf", message.encode_to_vec())
}

fn lease_refusal(refusal: Refusal) -> Response {
    if refusal == Refusal::LeaseNotFound {
        return go_error(StatusCode::NOT_FOUND, "lease not found");
    }
    go_error(StatusCode::BAD_REQUEST, &refusal.to_string())
}

fn lease_timeout() -> Response {
    go_error(StatusCode::REQUEST_TIMEOUT, "waiting for node to catch up its applied index has timed out")
}

async fn renew_lease(State(port): State<Port>, request: Request) -> Response {
    if request.method() != Method::POST {
        return post_only();
    }
    let bad = |text| go_error(StatusCode::BAD_REQUEST, text);
    let Some(body) = read(request.into_body()).await else { return bad("error reading body") };
    let Ok(question) = LeaseKeepAliveRequest::decode(body) else { return bad("error unmarshalling request") };
    let renewed = port.service.renew_leases(vec![LeaseId(question.id)]);
    match tokio::time::timeout(APPLY_TIMEOUT, renewed).await {
        Err(_) | Ok(Err(Refusal::Timeout)) => lease_timeout(),
        Ok(Err(refusal)) => lease_refusal(refusal),
        Ok(Ok(renewed)) => match renewed[..] {
            [Some(ttl)] => protobuf(&LeaseKeepAliveResponse { id: question.id, ttl, ..Default::default() }),
            _ => lease_refusal(Refusal::LeaseNotFound),
        },
    }
}

/// Ours: many leases in one question.
async fn renew_leases(State(port): State<Port>, request: Request) -> Response {
    if request.method() != Method::POST {
        return post_only();
    }
    let bad = |text| go_error(StatusCode::BAD_REQUEST, text);
    let Some(body) = read(request.into_body()).await else { return bad("error reading body") };
    let Ok(question) = internal::RenewRequest::decode(body) else {
        return bad("error unmarshalling request");
    };
    let renewed = port.service.renew_leases(question.ids.into_iter().map(LeaseId).collect());
    match tokio::time::timeout(APPLY_TIMEOUT, renewed).await {
        Err(_) | Ok(Err(Refusal::Timeout)) => lease_timeout(),
        Ok(Err(refusal)) => lease_refusal(refusal),
        Ok(Ok(renewed)) => {
            let seconds = renewed.into_iter().map(Option::unwrap_or_default).collect();
            protobuf(&internal::RenewResponse { seconds })
        }
    }
}

async fn lease_info(State(port): State<Port>, request: Request) -> Response {
    if request.method() != Method::POST {
        return post_only();
    }
    let bad = |text| go_error(StatusCode::BAD_REQUEST, text);
    let Some(body) = read(request.into_body()).await else { return bad("error reading body") };
    let question = internal::LeaseRequest::decode(body).ok().and_then(|question| question.time_to_live);
    let Some(question) = question else { return bad("error unmarshalling request") };
    let asked = port.service.lease_info(LeaseId(question.id), question.keys);
    match tokio::time::timeout(APPLY_TIMEOUT, asked).await {
        Err(_) | Ok(Err(Refusal::Timeout)) => lease_timeout(),
        Ok(Err(refusal)) => lease_refusal(refusal),
        Ok(Ok(info)) => {
            let found = LeaseTimeToLiveResponse {
                header: Some(ResponseHeader::default()),
                id: question.id,
                ttl: info.ttl,
                granted_ttl: info.granted,
                keys: info.keys,
            };
            protobuf(&internal::LeaseResponse { time_to_live: Some(found) })
        }
    }
}

/// A whole body of a request; None if it breaks off, stands still or is too long.
async fn read(body: Body) -> Option<bytes::Bytes> {
    let reading = axum::body::to_bytes(body, BODY_BYTES_MAX);
    tokio::time::timeout(BODY_TIMEOUT, reading).await.ok()?.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_told_as_etcd_tells_them() {
        let member = |id, name: &str, learner| Member {
            id: NodeId(id),
            name: name.into(),
            peer_urls: vec!["http://127.0.0.1:2580".into()],
            client_urls: if name.is_empty() { vec![] } else { vec!["http://127.0.0.1:2579".into()] },
            learner,
        };
        let text = members_json(vec![member(7, "", true), member(3_290_535_873_941_082_471, "h1", false)]);
        let expected = concat!(
            r#"[{"id":7,"peerURLs":["http://127.0.0.1:2580"],"isLearner":true},"#,
            r#"{"id":3290535873941082471,"peerURLs":["http://127.0.0.1:2580"],"name":"h1","#,
            r#""clientURLs":["http://127.0.0.1:2579"]}]"#,
            "\n"
        );
        assert_eq!(text, expected);
    }

    #[test]
    fn no_members_are_an_empty_list() {
        assert_eq!(members_json(vec![]), "[]\n");
    }
}
