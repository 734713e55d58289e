//! Accepting connections and serving HTTP on them, for the client port, the metrics port and the peer port.
//!
//! One task per connection; when the shutdown comes, a connection finishes the requests that it has
//! (HTTP/2 says GOAWAY) within a grace period and is cut after it.
//!
//! hyper offers no way to punish clients that ping too often (etcd's `--grpc-keepalive-min-time`), so they
//! are answered.

use std::{
    future::Future,
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use hyper::{
    Request, Response,
    body::{Body, Incoming},
    rt::{Read, ReadBufCursor, Write},
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::{Instant, Sleep},
};
use tower::Service;

use super::authority::Repaired;

/// How connections are served.
#[derive(Clone, Copy, Debug)]
pub struct ServeOptions {
    /// Requests at once on an HTTP/2 connection (`--max-concurrent-streams`).
    pub concurrent_streams_max: u32,
    /// How long an HTTP/2 connection may be silent before it is asked for life (`--grpc-keepalive-interval`);
    /// None never asks.
    pub keepalive_interval: Option<Duration>,
    /// How long the answer to that may take (`--grpc-keepalive-timeout`).
    pub keepalive_timeout: Duration,
    /// How long one write may wait for a peer that reads nothing; None for ever.
    pub write_timeout: Option<Duration>,
    /// How long requests may go on after the shutdown.
    pub grace: Duration,
    /// Connections at once; one more is closed at once.
    pub connections_max: usize,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self {
            concurrent_streams_max: u32::MAX,
            keepalive_interval: Some(Duration::from_secs(2 * 3600)),
            keepalive_timeout: Duration::from_secs(20),
            write_timeout: None,
            grace: Duration::from_secs(5),
            connections_max: 65_536,
        }
    }
}

/// An HTTP/2 stream's receive window; a connection's is four times that.
const WINDOW_BYTES: u32 = 1 << 20;

/// Requests that clients may give up before they were looked at. A busy client that gives up all it has under
/// way is not an attack; hyper's own limit, 20, would end its connection with all its watches.
const GIVEN_UP_MAX: usize = 4096;

/// The pause after the system had no socket to give (too many open files).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves HTTP/1.1 and HTTP/2 (without TLS, told apart by the preface) until `shutdown` ends.
pub async fn serve<S, B>(
    listener: TcpListener,
    service: S,
    options: ServeOptions,
    shutdown: impl Future<Output = ()>,
) where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let builder = Arc::new(builder(&options));
    let (stop, stopped) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "can't accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if connections.len() >= options.connections_max || stream.set_nodelay(true).is_err() {
            continue;
        }
        let io = TimedIo::new(stream, options.write_timeout);
        let builder = Arc::clone(&builder);
        connections.spawn(connection(builder, io, service.clone(), stopped.clone()));
    }
    drop(listener);
    stop.send_replace(true);
    let ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(options.grace, ended).await.is_err() {
        tracing::debug!("connections are cut after the grace period");
    }
}

fn builder(options: &ServeOptions) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // Go's spelling of header names, which scripts look for.
    builder.http1().title_case_headers(true).timer(TokioTimer::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(options.concurrent_streams_max)
        .max_pending_accept_reset_streams(GIVEN_UP_MAX)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(4 * WINDOW_BYTES)
        .keep_alive_interval(options.keepalive_interval)
        .keep_alive_timeout(options.keepalive_timeout);
    builder
}

async fn connection<S, B>(
    builder: Arc<auto::Builder<TokioExecutor>>,
    io: TimedIo,
    service: S,
    mut stopped: watch::Receiver<bool>,
) where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut serving = pin!(builder.serve_connection_with_upgrades(io, TowerToHyperService::new(service)));
    let result = tokio::select! {
        biased;
        result = &mut serving => result,
        () = async { drop(stopped.wait_for(|stopped| *stopped).await) } => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(error, "a connection ended early");
    }
}

/// A TCP stream that gathers what is written, and whose writes fail if the other end takes nothing for too long.
///
/// The runtime polls a connection right after the first of its requests has answered. Its write lets all other
/// tasks that can run go first, so that one call of the system carries their answers too.
///
/// It says that it takes one slice at a time, though it has no need to: asked for vectored writes, h2 writes each
/// DATA frame above 256 bytes by itself, which is each key-value of a usual size.
pub(super) struct TimedIo {
    io: TokioIo<Repaired<TcpStream>>,
    /// Taken, and not yet written up to `written`.
    held: Vec<u8>,
    written: usize,
    /// Whether the others have had their turn since the last flush.
    gathered: bool,
    timeout: Option<Duration>,
    deadline: Option<Pin<Box<Sleep>>>,
    waiting: bool,
}

/// What is held without a flush; past that it is written.
const HELD_BYTES_MAX: usize = 16 * 1024;

impl TimedIo {
    pub(super) fn new(stream: TcpStream, timeout: Option<Duration>) -> Self {
        let io = TokioIo::new(Repaired::new(stream));
        Self { io, held: Vec::new(), written: 0, gathered: false, timeout, deadline: None, waiting: false }
    }

    /// Writes what is held, then `more`; how much of `more` was taken, which is nothing only if there is nothing.
    fn write_on(&mut self, context: &mut Context<'_>, more: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let held = self.held.len() - self.written;
            if held + more.len() == 0 {
                return Poll::Ready(Ok(0));
            }
            ready!(self.gather(context));
            let slices = [io::IoSlice::new(&self.held[self.written..]), io::IoSlice::new(more)];
            let polled = Pin::new(&mut self.io).poll_write_vectored(context, &slices);
            let taken = ready!(self.watch(context, polled))?;
            if taken == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            if taken < held {
                self.written += taken;
                continue;
            }
            self.held.clear();
            self.written = 0;
            if taken > held || more.is_empty() {
                return Poll::Ready(Ok(taken - held));
            }
        }
    }

    /// Waits for one turn of the tasks that can run now.
    fn gather(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.gathered, true) {
            return Poll::Ready(());
        }
        // A task that wakes itself goes behind the others.
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Starts the clock at a write's first `Pending` and stops it at the first byte taken.
    fn watch<T>(&mut self, context: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let Some(timeout) = self.timeout else { return polled };
        if polled.is_ready() {
            self.waiting = false;
            return polled;
        }
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        if !self.waiting {
            self.waiting = true;
            deadline.as_mut().reset(Instant::now() + timeout);
        }
        match deadline.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::Error::from(io::ErrorKind::TimedOut))),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl Read for TimedIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl Write for TimedIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.held.len() + bytes.len() > HELD_BYTES_MAX {
            return self.write_on(context, bytes);
        }
        self.held.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.write_on(context, &[]))?;
        self.gathered = false;
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.write_on(context, &[]))?;
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}
