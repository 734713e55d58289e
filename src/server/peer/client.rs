//! What a member asks the others besides raft: who is in the cluster, and what only the leader may do.

use std::{io, time::Duration};

use axum::body::Body;
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::{HeaderMap, Method, StatusCode};
use prost::Message as _;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::dial::{self, Connection};
use crate::{
    error::Refusal,
    membership::Member,
    server::{LeaseInfo, http::Versions},
    types::{ClusterId, LeaseId, NodeId},
    wire::etcdserverpb::{LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseTimeToLiveRequest},
};

/// The largest answer.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// The messages of `/leases/internal` (etcd's `leasepb`), which wrap those of the API.
pub(super) mod internal {
    use crate::wire::etcdserverpb::{LeaseTimeToLiveRequest, LeaseTimeToLiveResponse};

    #[derive(Clone, PartialEq, prost::Message)]
    pub(in super::super) struct LeaseRequest {
        #[prost(message, optional, tag = "1")]
        pub(in super::super) time_to_live: Option<LeaseTimeToLiveRequest>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(in super::super) struct LeaseResponse {
        #[prost(message, optional, tag = "1")]
        pub(in super::super) time_to_live: Option<LeaseTimeToLiveResponse>,
    }

    /// Ours: leases to renew.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(in super::super) struct RenewRequest {
        #[prost(int64, repeated, tag = "1")]
        pub(in super::super) ids: Vec<i64>,
    }

    /// Ours: the seconds that each has now, 0 for one that is not there.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(in super::super) struct RenewResponse {
        #[prost(int64, repeated, tag = "1")]
        pub(in super::super) seconds: Vec<i64>,
    }
}

/// A member as `/members` shows it, in etcd's order of the fields.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct MemberJson {
    id: u64,
    #[serde(rename = "peerURLs")]
    peer_urls: Option<Vec<String>>,
    #[serde(rename = "isLearner", skip_serializing_if = "std::ops::Not::not")]
    learner: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(rename = "clientURLs", skip_serializing_if = "Option::is_none")]
    client_urls: Option<Vec<String>>,
}

impl From<Member> for MemberJson {
    fn from(member: Member) -> Self {
        Self {
            id: member.id.0,
            peer_urls: Some(member.peer_urls),
            learner: member.learner,
            name: member.name,
            client_urls: Some(member.client_urls).filter(|urls| !urls.is_empty()),
        }
    }
}

impl From<MemberJson> for Member {
    fn from(member: MemberJson) -> Self {
        Self {
            id: NodeId(member.id),
            name: member.name,
            peer_urls: member.peer_urls.unwrap_or_default(),
            client_urls: member.client_urls.unwrap_or_default(),
            learner: member.learner,
        }
    }
}

/// Why there was no good answer.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The member refuses.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// None of the URLs gave an answer that can be read; of the last one.
    #[error("{url}: {error}")]
    Unreachable {
        /// The last URL tried; empty if there was none.
        url: String,
        /// What went wrong there.
        error: io::Error,
    },
}

/// An existing cluster, as one of its members shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterView {
    /// Its id.
    pub cluster: ClusterId,
    /// Its members.
    pub members: Vec<Member>,
}

/// A whole answer.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    /// What is to be made of an answer that means nothing to us.
    fn unknown(&self) -> io::Error {
        let text = String::from_utf8_lossy(&self.body);
        io::Error::other(format!("{}: {}", self.status, text.trim_end()))
    }
}

async fn ask(url: &str, method: Method, path: &str, body: Bytes, timeout: Duration) -> io::Result<Answer> {
    let exchange = async {
        let mut connection = Connection::open_within(url, timeout, timeout).await?;
        ask_on(&mut connection, method, path, body, timeout).await
    };
    tokio::time::timeout(timeout, exchange).await?
}

/// Asks on a connection, which may be asked again once the whole answer has come.
async fn ask_on(
    connection: &mut Connection,
    method: Method,
    path: &str,
    body: Bytes,
    timeout: Duration,
) -> io::Result<Answer> {
    let kind = (!body.is_empty()).then_some("application/protobuf");
    let request = dial::request(method, path, HeaderMap::new(), kind, Body::from(body));
    let (head, body) = connection.send(request, timeout).await?.into_parts();
    let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(io::Error::other)?.to_bytes();
    Ok(Answer { status: head.status, headers: head.headers, body })
}

/// Asks one URL after the other until `read` can make something of an answer. A refusal ends the search.
async fn ask_any<T>(
    urls: &[String],
    method: Method,
    path: &str,
    body: Bytes,
    timeout: Duration,
    read: impl Fn(&Answer) -> Result<io::Result<T>, Refusal>,
) -> Result<T, ClientError> {
    let none = io::Error::from(io::ErrorKind::NotFound);
    let mut last = ClientError::Unreachable { url: String::new(), error: none };
    for url in urls {
        let error = match ask(url, method.clone(), path, body.clone(), timeout).await {
            Err(error) => error,
            Ok(answer) => match read(&answer)? {
                Ok(found) => return Ok(found),
                Err(error) => error,
            },
        };
        last = ClientError::Unreachable { url: url.clone(), error };
    }
    Err(last)
}

/// Asks peers, by their URLs, who is in their cluster; the first answer counts. `timeout` is for each URL.
pub async fn cluster_members(urls: &[String], timeout: Duration) -> Result<ClusterView, ClientError> {
    ask_any(urls, Method::GET, "/members", Bytes::new(), timeout, |answer| Ok(view(answer))).await
}

fn view(answer: &Answer) -> io::Result<ClusterView> {
    if answer.status != StatusCode::OK {
        return Err(answer.unknown());
    }
    let id = dial::text(&answer.headers, dial::CLUSTER).and_then(|id| u64::from_str_radix(id, 16).ok());
    let cluster = id.map(ClusterId).ok_or_else(|| io::Error::other("the answer names no cluster"))?;
    let members: Vec<MemberJson> = serde_json::from_slice(&answer.body)?;
    Ok(ClusterView { cluster, members: members.into_iter().map(Into::into).collect() })
}

/// Asks a peer, by its URLs, for its versions.
pub async fn version_of(urls: &[String], timeout: Duration) -> Result<Versions, ClientError> {
    #[derive(Deserialize)]
    struct Json {
        etcdserver: String,
        #[serde(default)]
        etcdcluster: String,
        storage: Option<String>,
    }
    ask_any(urls, Method::GET, "/version", Bytes::new(), timeout, |answer| {
        if answer.status != StatusCode::OK {
            return Ok(Err(answer.unknown()));
        }
        let json = serde_json::from_slice::<Json>(&answer.body).map_err(io::Error::from);
        Ok(json.map(|json| Versions {
            server: json.etcdserver,
            cluster: Some(json.etcdcluster).filter(|version| !version.is_empty() && version != "not_decided"),
            storage: json.storage,
        }))
    })
    .await
}

/// Has the leader, by its peer URLs, promote a learner; the members afterwards.
pub async fn promote_on(urls: &[String], id: NodeId, timeout: Duration) -> Result<Vec<Member>, ClientError> {
    let path = format!("/members/promote/{}", id.0);
    ask_any(urls, Method::POST, &path, Bytes::new(), timeout, |answer| {
        let text = String::from_utf8_lossy(&answer.body);
        match answer.status {
            StatusCode::OK => {
                let list = serde_json::from_slice::<Vec<MemberJson>>(&answer.body).map_err(io::Error::from);
                Ok(list.map(|list| list.into_iter().map(Into::into).collect()))
            }
            StatusCode::NOT_FOUND => Err(Refusal::MemberNotFound),
            StatusCode::REQUEST_TIMEOUT => Err(Refusal::Timeout),
            StatusCode::PRECONDITION_FAILED if text.contains("in sync with leader") => {
                Err(Refusal::LearnerNotReady)
            }
            StatusCode::PRECONDITION_FAILED if text.contains("can only promote a learner") => {
                Err(Refusal::MemberNotLearner)
            }
            _ => Ok(Err(answer.unknown())),
        }
    })
    .await
}

/// A connection to a leader that renews leases, kept from one question to the next.
#[derive(Default)]
pub struct Renewer {
    kept: Option<(String, Connection)>,
}

impl Renewer {
    /// Has the leader at a peer URL renew leases, and returns the seconds that each has now, None for one that is
    /// not there. Members of Kontiki take all in one question (`/kontiki/leases`); etcd's take one.
    ///
    /// # Errors
    /// As those of all questions. What is asked may have been done.
    pub async fn renew(
        &mut self,
        url: &str,
        ids: &[LeaseId],
        timeout: Duration,
    ) -> Result<Vec<Option<i64>>, ClientError> {
        let (path, body) = match ids {
            [id] => ("/leases", LeaseKeepAliveRequest { id: id.0 }.encode_to_vec()),
            ids => {
                let ids = ids.iter().map(|id| id.0).collect();
                ("/kontiki/leases", internal::RenewRequest { ids }.encode_to_vec())
            }
        };
        let answered = tokio::time::timeout(timeout, self.ask(url, path, body.into(), timeout)).await;
        let unreachable = |error| ClientError::Unreachable { url: url.into(), error };
        let answer = answered.map_err(io::Error::from).flatten().map_err(unreachable)?;
        match lease_status(&answer) {
            Err(Refusal::LeaseNotFound) if ids.len() == 1 => return Ok(vec![None]),
            status => status?,
        }
        renewed(&answer, ids).map_err(unreachable)
    }

    async fn ask(&mut self, url: &str, path: &str, body: Bytes, timeout: Duration) -> io::Result<Answer> {
        if let Some((to, mut connection)) = self.kept.take()
            && to == url
            // It may have been closed since: a renewal can be asked twice.
            && let Ok(answer) = ask_on(&mut connection, Method::POST, path, body.clone(), timeout).await
        {
            self.kept = Some((to, connection));
            return Ok(answer);
        }
        let mut connection = Connection::open_within(url, timeout, timeout).await?;
        let answer = ask_on(&mut connection, Method::POST, path, body, timeout).await?;
        self.kept = Some((url.into(), connection));
        Ok(answer)
    }
}

/// The seconds that an answer gives to each lease.
fn renewed(answer: &Answer, ids: &[LeaseId]) -> io::Result<Vec<Option<i64>>> {
    if answer.status != StatusCode::OK {
        return Err(answer.unknown());
    }
    if let [id] = ids {
        let found = LeaseKeepAliveResponse::decode(answer.body.clone()).map_err(io::Error::other)?;
        return match found.id == id.0 {
            true => Ok(vec![Some(found.ttl)]),
            false => Err(io::Error::other("the answer is about another lease")),
        };
    }
    let found = internal::RenewResponse::decode(answer.body.clone()).map_err(io::Error::other)?;
    if found.seconds.len() != ids.len() {
        return Err(io::Error::other("the answer is about other leases"));
    }
    Ok(found.seconds.into_iter().map(|seconds| (seconds > 0).then_some(seconds)).collect())
}

/// Asks the leader, by its peer URLs, for a lease's time to live.
pub async fn lease_info_on(
    urls: &[String],
    id: LeaseId,
    keys: bool,
    timeout: Duration,
) -> Result<LeaseInfo, ClientError> {
    let question = internal::LeaseRequest { time_to_live: Some(LeaseTimeToLiveRequest { id: id.0, keys }) };
    let body = question.encode_to_vec().into();
    ask_any(urls, Method::POST, "/leases/internal", body, timeout, |answer| {
        lease_status(answer)?;
        if answer.status != StatusCode::OK {
            return Ok(Err(answer.unknown()));
        }
        let found = internal::LeaseResponse::decode(answer.body.clone()).map_err(io::Error::other);
        Ok(found.and_then(|found| match found.time_to_live {
            Some(found) if found.id == id.0 => {
                Ok(LeaseInfo { ttl: found.ttl, granted: found.granted_ttl, keys: found.keys })
            }
            _ => Err(io::Error::other("the answer is about another lease")),
        }))
    })
    .await
}

/// The refusals that the lease paths know.
fn lease_status(answer: &Answer) -> Result<(), Refusal> {
    match answer.status {
        StatusCode::NOT_FOUND => Err(Refusal::LeaseNotFound),
        StatusCode::REQUEST_TIMEOUT => Err(Refusal::Timeout),
        _ => Ok(()),
    }
}
