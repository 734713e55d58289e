//! What runs the tasks of a simulated cluster: the seam between the two drivers.

use std::{future::Future, pin::Pin};

use kontiki::{
    server::api::{Api, Member},
    wire::etcdserverpb as pb,
};
use tokio::sync::mpsc;
use tonic::Status;

use crate::{
    history::{Call, Reply},
    net::Address,
};

/// A point of virtual time: microseconds since the run began.
pub type Micros = u64;

/// A task.
pub type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Whose task it is: 0 is the world's own, each member's process has one of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process(pub u32);

impl Process {
    /// The world's own, which nothing ever stops.
    pub const WORLD: Self = Self(0);
}

/// A request with a client's token, as etcd's clients send it.
pub fn with_token<T>(message: T, token: Option<&str>) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    if let Some(token) = token.and_then(|token| token.parse().ok()) {
        request.metadata_mut().insert("token", token);
    }
    request
}

/// Runs tasks on virtual time, all in one thread.
pub trait Host: Clone + Send + Sync + 'static {
    /// The time.
    fn now(&self) -> Micros;

    /// Waits until a moment.
    fn sleep_until(&self, at: Micros) -> impl Future<Output = ()> + Send + 'static;

    /// Does something at a moment, whatever else is then paused or dead.
    fn at(&self, at: Micros, act: Box<dyn FnOnce() + Send>);

    /// Starts a process at an address, where none runs.
    fn start(&self, address: Address) -> Process;

    /// Starts a task in a process; one that has ended drops it.
    fn spawn(&self, process: Process, work: Work);

    /// Ends a process: its tasks are dropped where they are.
    fn kill(&self, process: Process);

    /// Stops a process, which knows nothing of it, or lets it go on.
    fn pause(&self, process: Process, paused: bool);

    /// A member's process serves clients from now on.
    fn serve<M: Member>(&self, process: Process, address: Address, api: Api<M>);

    /// Has the member at an address answer a call, of whoever the token stands for. Dropping this is what a client
    /// does that gives up.
    fn call<M: Member>(
        &self,
        process: Process,
        address: Address,
        api: Api<M>,
        call: Call,
        token: Option<String>,
    ) -> impl Future<Output = Result<Reply, Status>> + Send;

    /// Opens a stream of watches with the member at an address: what comes goes to `responses`, until the stream ends.
    fn watch<M: Member>(
        &self,
        process: Process,
        address: Address,
        api: Api<M>,
        token: Option<String>,
        requests: mpsc::UnboundedReceiver<pb::WatchRequest>,
        responses: mpsc::Sender<Result<pb::WatchResponse, Status>>,
    );

    /// Waits.
    fn sleep(&self, micros: Micros) -> impl Future<Output = ()> + Send + 'static {
        self.sleep_until(self.now() + micros)
    }
}
