//! A client of simulated members: calls and watches through the shipped handlers, over links that may fail.
//!
//! How a request gets to its handler is the host's: `storm` calls the code behind tonic, `whole` goes through a client
//! and a server of gRPC. A request or an answer that is lost leaves the client waiting until it gives up.

use std::future::Future;

use kontiki::wire::etcdserverpb as pb;
use tokio::sync::mpsc;
use tonic::Status;

use crate::{
    history::{Call, Op, Outcome, Reply, WatchLog},
    host::{Host, Micros},
    net::Address,
    probe::Event,
    world::World,
};

/// The clients' address on the network.
pub const CLIENTS: Address = 0;

/// How long it takes until a stream that lost something is known to be broken.
const BREAK: Micros = 1_000_000;

/// How many responses of a watch may be on their way.
const RESPONSES_MAX: usize = 8;

/// A client. Clones are the same one.
#[derive(Clone)]
pub struct Client<H: Host> {
    world: World<H>,
    /// Its number.
    pub number: u32,
    /// How long it waits for an answer.
    pub patience: Micros,
}

impl<H: Host> Client<H> {
    /// A client with a number of its own.
    pub fn new(world: World<H>, number: u32, patience: Micros) -> Self {
        Self { world, number, patience }
    }

    /// Calls a member, and notes it in the history.
    pub async fn call(&self, member: Address, call: impl Into<Call>) -> Outcome {
        let (world, call) = (&self.world, call.into());
        let start = world.time();
        let place = world.record(|history| {
            let id = history.ops.len() as u64;
            history.ops.push(Op {
                id,
                client: self.number,
                member,
                user: None,
                start,
                end: None,
                call: call.clone(),
                outcome: Outcome::Unknown("the run ended".into()),
            });
            id
        });
        world.probe.event(|| Event::Call {
            op: place,
            client: self.number,
            member,
            text: format!("{call:?}"),
        });
        let name = call.name();
        let outcome = match self.within(self.exchange(member, call)).await {
            Some(Ok(reply)) => Outcome::Ok(reply),
            Some(Err(status)) => Outcome::from_status(status.code() as i32, status.message()),
            None => Outcome::Unknown("no answer".into()),
        };
        let end = world.time();
        match &outcome {
            Outcome::Ok(reply) => world.probe.fold(&reply.encode()),
            Outcome::Refused { message, .. } | Outcome::Unknown(message) => {
                world.probe.fold(message.as_bytes())
            }
        }
        world.probe.outcome(name, &outcome);
        world.probe.event(|| Event::Return { op: place, text: format!("{outcome:?}") });
        world.record(|history| {
            // Not any more, if the history was closed meanwhile.
            if let Some(op) = history.ops.get_mut(place as usize) {
                op.end = Some(end);
                op.outcome = outcome.clone();
            }
        });
        outcome
    }

    async fn within<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            done = work => Some(done),
            () = self.world.host.sleep(self.patience) => None,
        }
    }

    /// Request there, answer back. Never ends if one of them is lost.
    async fn exchange(&self, member: Address, call: Call) -> Result<Reply, Status> {
        let world = &self.world;
        self.travel(CLIENTS, member).await;
        let Some((process, api)) = world.api(member) else {
            return Err(Status::unavailable("connection refused"));
        };
        let answer = world.host.call(process, member, api, call).await;
        self.travel(member, CLIENTS).await;
        answer
    }

    /// A way over a link; without end if the link is cut or loses what travels.
    async fn travel(&self, from: Address, to: Address) {
        match self.world.net.passage(from, to) {
            Some(delay) => self.world.host.sleep(delay).await,
            None => std::future::pending().await,
        }
    }

    /// Opens a watch and reads it until `until`, taking `slow` for each response, and asking for its progress every
    /// `ask_progress` (0 for never). Gives the watch's number in the history.
    pub async fn watch(
        &self,
        member: Address,
        create: pb::WatchCreateRequest,
        until: Micros,
        slow: Micros,
        ask_progress: Micros,
        resumes: Option<u64>,
    ) -> u64 {
        let world = &self.world;
        let start = world.time();
        let id = world.record(|history| {
            let id = history.watches.len() as u64;
            history.watches.push(WatchLog {
                id,
                client: self.number,
                member,
                stream: id,
                create: create.clone(),
                start,
                responses: Vec::new(),
                cancel: None,
                ended: None,
                resumes,
            });
            id
        });
        world
            .probe
            .event(|| Event::Watch { client: self.number, text: format!("#{id} at {member}: {create:?}") });
        let reading = self.read(member, id, create, slow, ask_progress);
        tokio::select! { biased; () = reading => {}, () = world.host.sleep_until(until) => {} }
        let ended = world.time();
        world.record(|history| {
            if let Some(log) = history.watches.get_mut(id as usize) {
                log.ended = Some(ended);
            }
        });
        id
    }

    /// Reads a watch until its stream ends, or the watch is canceled.
    async fn read(
        &self,
        member: Address,
        id: u64,
        create: pb::WatchCreateRequest,
        slow: Micros,
        ask_progress: Micros,
    ) {
        let world = &self.world;
        self.travel(CLIENTS, member).await;
        let Some((process, api)) = world.api(member) else { return };
        let (requests, asked) = mpsc::unbounded_channel();
        let (responses, mut answered) = mpsc::channel(RESPONSES_MAX);
        let request = pb::watch_request::RequestUnion::CreateRequest(create);
        let _ = requests.send(pb::WatchRequest { request_union: Some(request) });
        world.host.watch(process, member, api, asked, responses);
        loop {
            let asking = async {
                if ask_progress == 0 {
                    std::future::pending::<()>().await;
                }
                world.host.sleep(ask_progress).await;
            };
            let response = tokio::select! {
                biased;
                response = answered.recv() => response,
                () = asking => {
                    let ask = pb::watch_request::RequestUnion::ProgressRequest(pb::WatchProgressRequest {});
                    let _ = requests.send(pb::WatchRequest { request_union: Some(ask) });
                    continue;
                }
            };
            let Some(Ok(response)) = response else { return };
            match world.net.passage(member, CLIENTS) {
                Some(delay) => world.host.sleep(delay).await,
                // A stream has no holes: what gets lost breaks the connection.
                None => return world.host.sleep(BREAK).await,
            }
            let at = world.time();
            world.probe.fold(&prost::Message::encode_to_vec(&response));
            world.probe.watch(&response);
            world
                .probe
                .event(|| Event::Watch { client: self.number, text: format!("#{id} hears {response:?}") });
            let canceled = response.canceled;
            world.record(|history| {
                if let Some(log) = history.watches.get_mut(id as usize) {
                    log.responses.push((at, response));
                }
            });
            if canceled {
                return;
            }
            if slow > 0 {
                world.host.sleep(slow).await;
            }
        }
    }
}
