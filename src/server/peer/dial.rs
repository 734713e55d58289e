//! Connections that this member opens, and the headers that it shows.

use std::{io, time::Duration};

use axum::body::Body;
use hyper::{
    HeaderMap, Method, Request, Response, Uri,
    body::Incoming,
    client::conn::http1,
    header::{self, HeaderName, HeaderValue},
};
use tokio::{net::TcpStream, task::AbortHandle};

use super::Local;
use crate::{server::listen::TimedIo, types::ClusterId};

pub(super) const FROM: HeaderName = HeaderName::from_static("x-server-from");
pub(super) const VERSION: HeaderName = HeaderName::from_static("x-server-version");
pub(super) const MIN_VERSION: HeaderName = HeaderName::from_static("x-min-cluster-version");
pub(super) const CLUSTER: HeaderName = HeaderName::from_static("x-etcd-cluster-id");
pub(super) const URLS: HeaderName = HeaderName::from_static("x-peerurls");
pub(super) const TO: HeaderName = HeaderName::from_static("x-raft-to");
/// Ours: this end takes Kontiki's snapshot bodies, or this body is one.
pub(super) const KONTIKI: HeaderName = HeaderName::from_static("x-kontiki-snapshot");

/// The oldest cluster that this version can be part of.
pub(super) const MIN_CLUSTER_VERSION: &str = "3.0.0";

/// What this member shows in each request.
pub(super) fn own_headers(local: &Local) -> HeaderMap {
    let value = |text: &str| HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""));
    HeaderMap::from_iter([
        (FROM, value(&local.id.to_string())),
        (VERSION, value(&local.server_version)),
        (MIN_VERSION, HeaderValue::from_static(MIN_CLUSTER_VERSION)),
        (CLUSTER, value(&local.cluster.to_string())),
        (URLS, value(&local.peer_urls.join(","))),
        (KONTIKI, HeaderValue::from_static("1")),
    ])
}

/// A header's text.
pub(super) fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// Whether a request comes from a member of this cluster that this version can talk to; else the body of the 412.
pub(super) fn check(headers: &HeaderMap, local: &Local) -> Result<(), &'static str> {
    let theirs = version(text(headers, VERSION).unwrap_or("2.0.0"));
    let their_min = version(text(headers, MIN_VERSION).unwrap_or("2.0.0"));
    if theirs < version(MIN_CLUSTER_VERSION) || their_min > version(&local.server_version) {
        return Err("incompatible version");
    }
    let cluster = text(headers, CLUSTER).and_then(|id| u64::from_str_radix(id, 16).ok());
    if cluster.map(ClusterId) != Some(local.cluster) {
        return Err("cluster ID mismatch");
    }
    Ok(())
}

/// Major and minor version; what is no version is older than all.
fn version(text: &str) -> (u32, u32) {
    let mut parts = text.split('.').map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

/// A connection for one request at a time. Dropping it closes it.
pub(super) struct Connection {
    sender: http1::SendRequest<Body>,
    authority: HeaderValue,
    task: AbortHandle,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn invalid(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

impl Connection {
    /// Opens one to a peer URL, for a link.
    pub(super) async fn open(url: &str, local: &Local) -> io::Result<Self> {
        Self::open_within(url, local.dial_timeout, local.link_timeout).await
    }

    /// Opens one to a peer URL within `timeout`; a write may then wait for `write_timeout`.
    pub(super) async fn open_within(
        url: &str,
        timeout: Duration,
        write_timeout: Duration,
    ) -> io::Result<Self> {
        let uri: Uri = url.parse().map_err(|error| invalid(format!("{url}: {error}")))?;
        if uri.scheme_str() != Some("http") {
            return Err(invalid(format!("{url}: peers are reached over http alone")));
        }
        let authority = uri.authority().ok_or_else(|| invalid(format!("{url}: no host")))?;
        let host = authority.host().trim_matches(['[', ']']);
        let connecting = TcpStream::connect((host, authority.port_u16().unwrap_or(80)));
        let stream = tokio::time::timeout(timeout, connecting).await??;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::Builder::new()
            .title_case_headers(true)
            .handshake(TimedIo::new(stream, Some(write_timeout)))
            .await
            .map_err(io::Error::other)?;
        let authority = HeaderValue::from_str(authority.as_str()).map_err(io::Error::other)?;
        // Its errors come out of the request that it carries.
        let task = tokio::spawn(async { drop(connection.await) }).abort_handle();
        Ok(Self { sender, authority, task })
    }

    /// Sends a request and waits for its response's head, `timeout` at most.
    pub(super) async fn send(
        &mut self,
        mut request: Request<Body>,
        timeout: Duration,
    ) -> io::Result<Response<Incoming>> {
        request.headers_mut().insert(header::HOST, self.authority.clone());
        let exchange = async {
            self.sender.ready().await?;
            self.sender.send_request(request).await
        };
        tokio::time::timeout(timeout, exchange).await?.map_err(io::Error::other)
    }
}

/// A request with `headers`.
pub(super) fn request(
    method: Method,
    path: &str,
    headers: HeaderMap,
    kind: Option<&'static str>,
    body: Body,
) -> Request<Body> {
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().unwrap_or_default();
    *request.headers_mut() = headers;
    if let Some(kind) = kind {
        request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    }
    request
}
