//! A client of several endpoints: calls go round robin over those that answer, wait for one to be ready, and
//! are tried again where etcdctl's client tries again.
//!
//! - Reads are tried up to a hundred times while the answer is Unavailable.
//! - Writes are tried again only if they can't have left this process.
//! - Each failed try is one JSON line on standard error.

use std::{
    error::Error,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use prost::Message;
use tokio::{sync::Notify, time::Instant};
use tonic::{
    Code, Request, Response, Status,
    metadata::AsciiMetadataValue,
    transport::{Channel, Endpoint},
};

use super::{
    fail::{Exit, Failure},
    globals::Settings,
    log::{self, Logger},
};
use crate::wire::etcdserverpb::{self as pb, auth_client::AuthClient};

/// Bytes that a request may have; etcdctl's limit.
const REQUEST_BYTES_MAX: usize = 2 << 20;
/// Tries of one call.
const TRIES_MAX: u32 = 100;
/// Pause between rounds of tries.
const TRY_PAUSE: Duration = Duration::from_millis(25);
/// First and longest pause between attempts to connect.
const CONNECT_PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// gRPC probes no more often than this, whatever is asked for.
const KEEPALIVE_MIN: Duration = Duration::from_secs(10);

/// Whether a call may be tried again after the server may have seen it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// A read, or something that can be repeated.
    Repeatable,
    /// A write.
    Once,
}

/// Why a call failed.
#[derive(Clone, Debug)]
pub enum CallError {
    /// The time for it ran out.
    Deadline,
    /// The server, or the connection, said so.
    Status(Status),
}

impl CallError {
    /// The gRPC code.
    pub fn code(&self) -> Code {
        match self {
            Self::Deadline => Code::DeadlineExceeded,
            Self::Status(status) => status.code(),
        }
    }
}

impl From<Status> for CallError {
    fn from(status: Status) -> Self {
        match status.code() {
            Code::DeadlineExceeded => Self::Deadline,
            // What tonic says when the deadline that we sent along has passed.
            Code::Cancelled if status.message() == "Timeout expired" => Self::Deadline,
            _ => Self::Status(status),
        }
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deadline => f.write_str("context deadline exceeded"),
            Self::Status(status) if status.message().starts_with("etcdserver: ") => {
                f.write_str(status.message())
            }
            Self::Status(status) => f.write_str(&rpc_text(status.code(), status.message())),
        }
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        Self::new(Exit::Error, error.to_string())
    }
}

/// An error as Go's gRPC writes it.
fn rpc_text(code: Code, message: &str) -> String {
    let code = match code {
        Code::Cancelled => "Canceled".into(),
        Code::Ok => "OK".into(),
        other => format!("{other:?}"),
    };
    format!("rpc error: code = {code} desc = {message}")
}

/// See the module.
#[derive(Clone)]
pub struct Client {
    pool: Arc<Pool>,
    token: Option<AsciiMetadataValue>,
    logger: Logger,
}

struct Pool {
    settings: Settings,
    state: Mutex<PoolState>,
    ready: Notify,
}

struct PoolState {
    channels: Vec<Option<Channel>>,
    /// Where the round robin stands.
    next: usize,
    /// Why the last attempt to connect failed.
    error: String,
}

/// A channel that was picked, and where it goes.
pub struct Picked {
    index: usize,
    /// The channel.
    pub channel: Channel,
}

impl Client {
    /// Starts to connect to all endpoints, and authenticates if there is a user. Must run inside a runtime.
    pub async fn connect(settings: &Settings, logger: Logger) -> Result<Self, Failure> {
        let count = settings.endpoints.len();
        let state = PoolState { channels: vec![None; count], next: 0, error: String::new() };
        let pool =
            Arc::new(Pool { settings: settings.clone(), state: Mutex::new(state), ready: Notify::new() });
        (0..count).for_each(|index| pool.clone().open(index));
        let mut client = Self { pool, token: None, logger };
        if let Some((name, password)) = settings.user.clone() {
            client.token = client.authenticate(name, password).await?;
        }
        Ok(client)
    }

    /// A client of one endpoint, with the same token.
    pub fn only(&self, endpoint: &str) -> Self {
        let settings = Settings { endpoints: vec![endpoint.into()], ..self.pool.settings.clone() };
        let state = PoolState { channels: vec![None], next: 0, error: String::new() };
        let pool = Arc::new(Pool { settings, state: Mutex::new(state), ready: Notify::new() });
        pool.clone().open(0);
        Self { pool, ..self.clone() }
    }

    /// The same client with another name in its log lines.
    pub fn logged_as(self, logger: Logger) -> Self {
        Self { logger, ..self }
    }

    /// Fetches a token. A server without authentication is fine: there is none then.
    async fn authenticate(
        &self,
        name: String,
        password: String,
    ) -> Result<Option<AsciiMetadataValue>, Failure> {
        let request = pb::AuthenticateRequest { name, password };
        let timeout = Some(self.pool.settings.dial_timeout);
        let answer = self
            .call(timeout, Retry::Once, request, async |channel, request| {
                AuthClient::new(channel).authenticate(request).await
            })
            .await;
        match answer {
            Ok(response) => Ok(AsciiMetadataValue::try_from(response.token).ok()),
            Err(CallError::Status(status))
                if status.message() == "etcdserver: authentication is not enabled" =>
            {
                Ok(None)
            }
            Err(error) => Err(Failure::new(Exit::BadConnection, error.to_string())),
        }
    }

    /// Waits for an endpoint that is connected: the next in turn.
    pub async fn pick(&self) -> Picked {
        loop {
            let ready = self.pool.ready.notified();
            if let Some(picked) = self.pool.next() {
                return picked;
            }
            ready.await;
        }
    }

    /// Says that a picked channel broke, so that it is opened again before it is next used.
    pub fn broken(&self, picked: &Picked) {
        self.pool.lock().channels[picked.index] = None;
        self.pool.clone().open(picked.index);
    }

    /// A request with this client's metadata.
    pub fn request<M>(&self, message: M) -> Request<M> {
        let mut request = Request::new(message);
        let metadata = request.metadata_mut();
        metadata.insert("client-api-version", AsciiMetadataValue::from_static("3.5"));
        if let Some(token) = &self.token {
            metadata.insert("token", token.clone());
        }
        request
    }

    /// Makes a call, and again where that is safe, for as long as `timeout` allows.
    pub async fn call<M: Message + Clone, R>(
        &self,
        timeout: Option<Duration>,
        retry: Retry,
        message: M,
        method: impl AsyncFn(Channel, Request<M>) -> Result<Response<R>, Status>,
    ) -> Result<R, CallError> {
        let size = message.encoded_len();
        if size > REQUEST_BYTES_MAX {
            let text = format!("trying to send message larger than max ({size} vs. {REQUEST_BYTES_MAX})");
            let error = CallError::Status(Status::resource_exhausted(text));
            self.log_failure(0, &error);
            return Err(error);
        }
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        let mut attempt = 0;
        loop {
            let error = match self.attempt(deadline, message.clone(), &method).await {
                Ok(response) => return Ok(response),
                Err((error, unsent)) => {
                    if unsent && error.code() == Code::Unavailable {
                        continue;
                    }
                    error
                }
            };
            self.log_failure(attempt, &error);
            attempt += 1;
            let again = retry == Retry::Repeatable && error.code() == Code::Unavailable;
            if !again || attempt == TRIES_MAX {
                return Err(error);
            }
            // One quick try at each of a quorum, then a pause.
            let quorum = self.pool.settings.endpoints.len() as u32 / 2 + 1;
            if attempt % quorum == 0 {
                tokio::time::sleep(TRY_PAUSE).await;
            }
        }
    }

    /// One try: waits for a channel, calls. The error says whether the request stayed here.
    async fn attempt<M, R>(
        &self,
        deadline: Option<Instant>,
        message: M,
        method: &impl AsyncFn(Channel, Request<M>) -> Result<Response<R>, Status>,
    ) -> Result<R, (CallError, bool)> {
        let mut request = self.request(message);
        if let Some(deadline) = deadline {
            request.set_timeout(deadline.saturating_duration_since(Instant::now()));
        }
        let call = async {
            let picked = self.pick().await;
            let answer = method(picked.channel.clone(), request).await;
            answer.map_err(|status| {
                let transport = is_transport(&status);
                if transport {
                    self.broken(&picked);
                }
                let unsent = transport && is_unsent(&status);
                let error = match CallError::from(status) {
                    // tonic has several codes for a connection that broke; gRPC has one.
                    CallError::Status(status) if transport => Status::unavailable(status.message()).into(),
                    error => error,
                };
                (error, unsent)
            })
        };
        let answer = match deadline {
            Some(deadline) => match tokio::time::timeout_at(deadline, call).await {
                Ok(answer) => answer,
                Err(_) => Err((CallError::Deadline, false)),
            },
            None => call.await,
        };
        answer.map(Response::into_inner)
    }

    fn log_failure(&self, attempt: u32, error: &CallError) {
        let text = match error {
            CallError::Status(status) => rpc_text(status.code(), status.message()),
            CallError::Deadline => match self.pool.lock().error.as_str() {
                "" => rpc_text(Code::DeadlineExceeded, "context deadline exceeded"),
                error => rpc_text(
                    Code::DeadlineExceeded,
                    &format!(
                        "latest balancer error: last connection error: connection error: desc = \"{error}\""
                    ),
                ),
            },
        };
        log::call_failed(self.logger, &host(&self.pool.settings.endpoints[0]), attempt, &text);
    }
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, PoolState> {
        // What is in there is whole at any time.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> Option<Picked> {
        let mut state = self.lock();
        let count = state.channels.len();
        for step in 0..count {
            let index = (state.next + step) % count;
            if let Some(channel) = state.channels[index].clone() {
                state.next = index + 1;
                return Some(Picked { index, channel });
            }
        }
        None
    }

    /// Connects to an endpoint, again and again until it works.
    fn open(self: Arc<Self>, index: usize) {
        tokio::spawn(async move {
            let mut pause = CONNECT_PAUSE.0;
            loop {
                match dial(&self.settings.endpoints[index], &self.settings).await {
                    Ok(channel) => {
                        self.lock().channels[index] = Some(channel);
                        self.ready.notify_waiters();
                        return;
                    }
                    Err(text) => self.lock().error = text,
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(CONNECT_PAUSE.1);
            }
        });
    }
}

/// An endpoint without its scheme.
fn host(endpoint: &str) -> String {
    endpoint.trim_start_matches("http://").into()
}

/// Connects to one endpoint; the error is its text.
pub async fn dial(endpoint: &str, settings: &Settings) -> Result<Channel, String> {
    let uri = if endpoint.contains("://") { endpoint.to_string() } else { format!("http://{endpoint}") };
    // A path after the host means nothing to gRPC.
    let uri = match uri.strip_prefix("http://").and_then(|rest| rest.split_once('/')) {
        Some((host, _)) => format!("http://{host}"),
        None => uri,
    };
    let bad = |error: tonic::transport::Error| {
        format!("transport: Error while dialing dial tcp: address {endpoint}: {error}")
    };
    Endpoint::from_shared(uri)
        .map_err(bad)?
        .connect_timeout(settings.dial_timeout)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(settings.keepalive_time.max(KEEPALIVE_MIN))
        .keep_alive_timeout(settings.keepalive_timeout)
        .connect()
        .await
        .map_err(|error| {
            let mut cause: &dyn Error = &error;
            while let Some(source) = cause.source() {
                cause = source;
            }
            let text = cause.to_string().to_lowercase();
            let text = text.split(" (os error").next().unwrap_or_default();
            format!("transport: Error while dialing dial tcp {}: connect: {text}", host(endpoint))
        })
}

/// True if the connection failed, rather than the server refused.
fn is_transport(status: &Status) -> bool {
    status.source().is_some()
}

/// True if the request can't have reached the server, since there was no connection.
fn is_unsent(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error
            .downcast_ref::<std::io::Error>()
            .is_some_and(|e| e.kind() == std::io::ErrorKind::ConnectionRefused)
        {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_read_as_etcdctl_writes_them() {
        let text = |status: Status| CallError::from(status).to_string();
        assert_eq!(
            text(Status::not_found("etcdserver: requested lease not found")),
            "etcdserver: requested lease not found"
        );
        assert_eq!(text(Status::unavailable("gone")), "rpc error: code = Unavailable desc = gone");
        assert_eq!(text(Status::cancelled("so")), "rpc error: code = Canceled desc = so");
        assert_eq!(text(Status::cancelled("Timeout expired")), "context deadline exceeded");
        assert_eq!(text(Status::deadline_exceeded("x")), "context deadline exceeded");
    }
}
