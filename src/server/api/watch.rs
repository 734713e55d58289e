//! Watches: one client's stream of requests and frames, between tonic and the hub.

use std::{pin::pin, sync::Arc};

use async_stream::stream;
use futures_util::{
    Stream,
    stream::{BoxStream, StreamExt},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tonic::{Request, Response, Status, Streaming};

use super::{
    Api, Member,
    admit::{cut, wants_leader},
    client::{Client, Credentials},
    convert, error,
};
use crate::{
    auth::Need,
    error::Refusal,
    watch::{Frame, StreamId, WatchRequest},
    wire::{
        etcdserverpb::{self as pb, watch_server::Watch},
        kv,
    },
};

/// How many requests of one stream may wait for the hub. Its client waits beyond that.
const REQUESTS_MAX: usize = 64;

/// How many frames are taken from the hub's queue at once.
const FRAMES_MAX: usize = 64;

/// What a stream tells the hub's task.
#[derive(Debug)]
pub enum WatchInput {
    /// Its client asks for something.
    Asked {
        /// Which stream.
        stream: StreamId,
        /// For what.
        request: WatchRequest,
        /// Held until the hub has taken the request: while too many are held, the client waits.
        taken: OwnedSemaphorePermit,
    },
    /// Its client took so many frames.
    Drained(StreamId, usize),
    /// It is gone; nothing of it follows.
    Closed(StreamId),
}

/// One client's stream, as [`Member::open_watch`] gives it. Dropping it tells the hub.
pub struct WatchStream {
    id: StreamId,
    tell: Box<dyn Fn(WatchInput) + Send + Sync>,
    frames: mpsc::UnboundedReceiver<Frame>,
    requests: Arc<Semaphore>,
}

impl WatchStream {
    /// The stream `id` of a hub that hears what is told to `tell` and sends this stream's frames to `frames`' other
    /// end. The hub's credit bounds what waits there, and dropping that end ends the stream.
    pub fn new(
        id: StreamId,
        tell: impl Fn(WatchInput) + Send + Sync + 'static,
        frames: mpsc::UnboundedReceiver<Frame>,
    ) -> Self {
        Self { id, tell: Box::new(tell), frames, requests: Arc::new(Semaphore::new(REQUESTS_MAX)) }
    }

    fn tell(&self, input: WatchInput) {
        (self.tell)(input);
    }

    /// Asks for something, once there is room for it.
    pub(super) async fn ask(&self, request: WatchRequest) {
        // The semaphore is never closed; if it were, nothing would be asked.
        if let Ok(taken) = self.requests.clone().acquire_owned().await {
            self.tell(WatchInput::Asked { stream: self.id, request, taken });
        }
    }

    /// The next frame; None when the hub is gone.
    pub(super) async fn frame(&mut self) -> Option<Frame> {
        let frame = self.frames.recv().await?;
        self.tell(WatchInput::Drained(self.id, 1));
        Some(frame)
    }
}

impl Drop for WatchStream {
    fn drop(&mut self) {
        self.tell(WatchInput::Closed(self.id));
    }
}

#[tonic::async_trait]
impl<M: Member> Watch for Api<M> {
    type WatchStream = BoxStream<'static, Result<pb::WatchResponse, Status>>;

    async fn watch(
        &self,
        request: Request<Streaming<pb::WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        self.watch_over(request).await
    }
}

impl<M: Member> Api<M> {
    /// [`Watch::watch`] over whatever carries the requests.
    pub async fn watch_over<R>(
        &self,
        request: Request<R>,
    ) -> Result<Response<<Self as Watch>::WatchStream>, Status>
    where
        R: Stream<Item = Result<pb::WatchRequest, Status>> + Send + Unpin + 'static,
    {
        let credentials = Client::admit_long(&self.member, &request)?;
        let cut = cut(&self.member, wants_leader(request.metadata()));
        let watches = self.member.open_watch().await?;
        Ok(Response::new(serve(self.member.clone(), credentials, watches, request.into_inner(), cut).boxed()))
    }
}

/// What comes first.
enum Step {
    Cut(Refusal),
    Asked(Option<Result<pb::WatchRequest, Status>>, OwnedSemaphorePermit),
    Frames(usize),
}

/// Serves a stream until its client ends it, or drops what this returns.
fn serve<M, R>(
    member: M,
    credentials: Credentials,
    mut watches: WatchStream,
    mut requests: R,
    cut: impl Future<Output = Refusal> + Send + 'static,
) -> impl Stream<Item = Result<pb::WatchResponse, Status>> + Send
where
    M: Member,
    R: Stream<Item = Result<pb::WatchRequest, Status>> + Send + Unpin,
{
    stream! {
        let mut cut = pin!(cut);
        let mut frames = Vec::new();
        let client = Client::new(&member, credentials);
        loop {
            let permits = watches.requests.clone();
            let asked = async {
                // The semaphore is never closed; if it were, no more requests would be read.
                let Ok(taken) = permits.acquire_owned().await else { return std::future::pending().await };
                Step::Asked(requests.next().await, taken)
            };
            let step = tokio::select! {
                biased;
                refusal = &mut cut => Step::Cut(refusal),
                asked = asked => asked,
                count = watches.frames.recv_many(&mut frames, FRAMES_MAX) => Step::Frames(count),
            };
            match step {
                Step::Cut(refusal) => {
                    yield Err(refusal.into());
                    return;
                }
                Step::Asked(Some(Ok(request)), taken) => {
                    if let Some(request) = kv::watch_request(request) {
                        if let WatchRequest::Create(create) = &request
                            && let Err(refusal) = client.need(&[Need::Read(create.range.clone())]).await
                        {
                            yield Ok(refused(&member, refusal));
                            continue;
                        }
                        watches.tell(WatchInput::Asked { stream: watches.id, request, taken });
                    }
                }
                Step::Asked(Some(Err(status)), _) => {
                    yield Err(error::from_transport(status, member.limits().message_bytes_max()));
                    return;
                }
                Step::Asked(None, _) => return,
                Step::Frames(0) => {
                    yield Err(Refusal::Stopped.into());
                    return;
                }
                Step::Frames(count) => {
                    for frame in frames.drain(..) {
                        yield Ok(kv::watch_response(frame, convert::full(member.header())));
                    }
                    watches.tell(WatchInput::Drained(watches.id, count));
                }
            }
        }
    }
}

/// The answer to a watch that its client may not have.
fn refused<M: Member>(member: &M, refusal: Refusal) -> pb::WatchResponse {
    pb::WatchResponse {
        header: convert::now(member),
        watch_id: -1,
        created: true,
        canceled: true,
        // As Go prints an error with its code.
        cancel_reason: format!("rpc error: code = {:?} desc = {refusal}", refusal.code()),
        ..Default::default()
    }
}
