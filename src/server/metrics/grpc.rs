//! RPCs by method and code, under the names of Go's gRPC interceptors, which etcd's dashboards ask for.
//!
//! [`GrpcMetrics::begin`] finds a request's counters by its path, once; [`Counted`] wraps its body and its
//! response's, counts the messages as their frames go by, and takes the code from the trailers.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use hyper::{
    HeaderMap,
    body::{Body, Frame, SizeHint},
};
use prometheus::{Histogram, IntCounter, IntCounterVec};
use tokio::time::Instant;

use super::Builder;

/// gRPC's codes by number.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];
const CANCELED: usize = 1;
const UNKNOWN: usize = 2;

/// A service's unary methods, and those that stream with their type.
type Service = (&'static str, &'static [&'static str], &'static [(&'static str, &'static str)]);

const SERVICES: [Service; 7] = [
    (
        "etcdserverpb.KV",
        &["Range", "Put", "DeleteRange", "Txn", "Compact"],
        &[("RangeStream", "server_stream")],
    ),
    ("etcdserverpb.Watch", &[], &[("Watch", "bidi_stream")]),
    (
        "etcdserverpb.Lease",
        &["LeaseGrant", "LeaseRevoke", "LeaseTimeToLive", "LeaseLeases"],
        &[("LeaseKeepAlive", "bidi_stream")],
    ),
    (
        "etcdserverpb.Cluster",
        &["MemberAdd", "MemberRemove", "MemberUpdate", "MemberList", "MemberPromote"],
        &[],
    ),
    (
        "etcdserverpb.Maintenance",
        &["Alarm", "Status", "Defragment", "Hash", "HashKV", "MoveLeader", "Downgrade"],
        &[("Snapshot", "server_stream")],
    ),
    (
        "etcdserverpb.Auth",
        &[
            "AuthEnable",
            "AuthDisable",
            "AuthStatus",
            "Authenticate",
            "UserAdd",
            "UserGet",
            "UserList",
            "UserDelete",
            "UserChangePassword",
            "UserGrantRole",
            "UserRevokeRole",
            "RoleAdd",
            "RoleGet",
            "RoleList",
            "RoleDelete",
            "RoleGrantPermission",
            "RoleRevokePermission",
        ],
        &[],
    ),
    ("grpc.health.v1.Health", &["Check"], &[("Watch", "server_stream")]),
];

/// The most different values of the label `client_api_version`: clients choose them.
const CLIENT_VERSIONS_MAX: usize = 16;

/// One method's counters.
struct Method {
    started: IntCounter,
    handled: [IntCounter; 17],
    received: IntCounter,
    sent: IntCounter,
    seconds: Option<Histogram>,
    streams: bool,
}

/// The counters of all RPCs.
pub struct GrpcMetrics {
    methods: BTreeMap<String, Arc<Method>>,
    client_requests: IntCounterVec,
    client_versions: Mutex<BTreeSet<String>>,
    received_bytes: IntCounter,
    sent_bytes: IntCounter,
}

impl GrpcMetrics {
    pub(super) fn new(builder: &Builder<'_>, extensive: bool) -> Self {
        const LABELS: [&str; 3] = ["grpc_type", "grpc_service", "grpc_method"];
        let started = builder.counters("grpc_server_started_total", "RPCs started.", &LABELS);
        let received =
            builder.counters("grpc_server_msg_received_total", "Messages received from clients.", &LABELS);
        let sent = builder.counters("grpc_server_msg_sent_total", "Messages sent to clients.", &LABELS);
        let handled = builder.counters(
            "grpc_server_handled_total",
            "RPCs ended, by code.",
            &["grpc_type", "grpc_service", "grpc_method", "grpc_code"],
        );
        let seconds = extensive.then(|| {
            let buckets = vec![0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
            builder.histograms("grpc_server_handling_seconds", "Time of an RPC.", &LABELS, buckets)
        });
        let mut methods = BTreeMap::new();
        for (service, unary, streaming) in SERVICES {
            let unary = unary.iter().map(|method| (*method, "unary"));
            for (method, kind) in unary.chain(streaming.iter().copied()) {
                let labels = [kind, service, method];
                let counters = Method {
                    started: started.with_label_values(&labels),
                    handled: CODES.map(|code| handled.with_label_values(&[kind, service, method, code])),
                    received: received.with_label_values(&labels),
                    sent: sent.with_label_values(&labels),
                    seconds: seconds.as_ref().map(|family| family.with_label_values(&labels)),
                    streams: kind != "unary",
                };
                methods.insert(format!("/{service}/{method}"), Arc::new(counters));
            }
        }
        Self {
            methods,
            client_requests: builder.counters(
                "etcd_server_client_requests_total",
                "Requests by type and by the API version that the client names.",
                &["type", "client_api_version"],
            ),
            client_versions: Mutex::new(BTreeSet::new()),
            received_bytes: builder.counter(
                "etcd_network_client_grpc_received_bytes_total",
                "Bytes of messages received from clients.",
            ),
            sent_bytes: builder
                .counter("etcd_network_client_grpc_sent_bytes_total", "Bytes of messages sent to clients."),
        }
    }

    /// Counts a request as started. None for a method that is not counted.
    pub fn begin(&self, path: &str, headers: &HeaderMap) -> Option<Call> {
        let method = Arc::clone(self.methods.get(path)?);
        method.started.inc();
        let version = headers.get("client-api-version").and_then(|value| value.to_str().ok());
        let kind = if method.streams { "stream" } else { "unary" };
        self.client_requests.with_label_values(&[kind, self.version_label(version)]).inc();
        Some(Call {
            received_bytes: self.received_bytes.clone(),
            sent_bytes: self.sent_bytes.clone(),
            ending: Ending { method, started: Instant::now(), code: None },
        })
    }

    /// The label for what a client says its version is: `MAJOR.MINOR`, of which only so many are kept apart.
    fn version_label<'a>(&self, version: Option<&'a str>) -> &'a str {
        let Some(version) = version else { return "unknown" };
        match version {
            "3.4" | "3.5" | "3.6" => return version,
            _ => {}
        }
        if version.len() > 8 || !version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
            return "unknown";
        }
        let mut seen = self.client_versions.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.contains(version) || (seen.len() < CLIENT_VERSIONS_MAX && seen.insert(version.to_owned())) {
            version
        } else {
            "unknown"
        }
    }
}

/// A request under way; dropped before its response is there, it counts as canceled.
pub struct Call {
    received_bytes: IntCounter,
    sent_bytes: IntCounter,
    ending: Ending,
}

impl Call {
    /// Wraps the request's body.
    pub fn request<B>(&self, body: B) -> Counted<B> {
        let messages = Messages {
            count: self.ending.method.received.clone(),
            bytes: self.received_bytes.clone(),
            state: Lengths::default(),
        };
        Counted { body, messages: Some(messages), ending: None }
    }

    /// Wraps the response's body; `headers` are the response's, which hold the code if there is no body.
    pub fn response<B>(mut self, headers: &HeaderMap, body: B) -> Counted<B> {
        let messages = Messages {
            count: self.ending.method.sent.clone(),
            bytes: self.sent_bytes.clone(),
            state: Lengths::default(),
        };
        self.ending.code = code_of(headers);
        Counted { body, messages: Some(messages), ending: Some(self.ending) }
    }
}

/// The code that headers or trailers carry.
fn code_of(headers: &HeaderMap) -> Option<usize> {
    let code = headers.get("grpc-status")?.to_str().ok()?.parse::<usize>().ok()?;
    Some(if code < CODES.len() { code } else { UNKNOWN })
}

/// Counts the RPC as ended when it is dropped; without a code it was given up by the client.
struct Ending {
    method: Arc<Method>,
    started: Instant,
    code: Option<usize>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.method.handled[self.code.unwrap_or(CANCELED)].inc();
        if let Some(seconds) = &self.method.seconds {
            seconds.observe(self.started.elapsed().as_secs_f64());
        }
    }
}

struct Messages {
    count: IntCounter,
    bytes: IntCounter,
    state: Lengths,
}

/// Follows the length prefixes of gRPC's messages (a flag and 4 bytes) through chunks of any size.
#[derive(Default)]
struct Lengths {
    prefix: [u8; 5],
    prefix_len: usize,
    rest: usize,
}

impl Lengths {
    /// How many messages end in this chunk.
    fn feed(&mut self, mut chunk: &[u8]) -> u64 {
        let mut ended = 0;
        loop {
            if self.prefix_len < self.prefix.len() {
                let take = chunk.len().min(self.prefix.len() - self.prefix_len);
                self.prefix[self.prefix_len..self.prefix_len + take].copy_from_slice(&chunk[..take]);
                self.prefix_len += take;
                chunk = &chunk[take..];
                if self.prefix_len < self.prefix.len() {
                    return ended;
                }
                let [_, a, b, c, d] = self.prefix;
                self.rest = u32::from_be_bytes([a, b, c, d]) as usize;
            }
            let take = chunk.len().min(self.rest);
            self.rest -= take;
            chunk = &chunk[take..];
            if self.rest > 0 {
                return ended;
            }
            ended += 1;
            self.prefix_len = 0;
        }
    }
}

/// A body whose messages are counted; without a [`Call`] ([`Counted::plain`]) it only passes on.
pub struct Counted<B> {
    body: B,
    messages: Option<Messages>,
    ending: Option<Ending>,
}

impl<B> Counted<B> {
    /// A body that is not counted.
    pub fn plain(body: B) -> Self {
        Self { body, messages: None, ending: None }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Counted<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = &mut *self;
        let next = ready!(Pin::new(&mut this.body).poll_frame(context));
        if let Some(Ok(frame)) = &next {
            if let (Some(data), Some(messages)) = (frame.data_ref(), &mut this.messages) {
                messages.bytes.inc_by(data.len() as u64);
                messages.count.inc_by(messages.state.feed(data));
            }
            if let (Some(trailers), Some(ending)) = (frame.trailers_ref(), &mut this.ending) {
                ending.code = Some(code_of(trailers).unwrap_or(UNKNOWN));
            }
        }
        Poll::Ready(next)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(len: usize) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend_from_slice(&(len as u32).to_be_bytes());
        bytes.resize(5 + len, 7);
        bytes
    }

    #[test]
    fn messages_are_counted_however_they_are_cut() {
        let mut all = Vec::new();
        for len in [0, 1, 4, 5, 300, 0, 0, 70_000] {
            all.extend(message(len));
        }
        for size in [1, 2, 3, 7, 64, 100_000] {
            let mut lengths = Lengths::default();
            let count: u64 = all.chunks(size).map(|chunk| lengths.feed(chunk)).sum();
            assert_eq!(count, 8, "in chunks of {size}");
        }
    }

    #[test]
    fn a_message_that_is_not_whole_does_not_count() {
        let mut lengths = Lengths::default();
        assert_eq!(lengths.feed(&message(10)[..14]), 0);
        assert_eq!(lengths.feed(&[7]), 1);
    }
}
