//! A client of simulated members: calls and watches through the shipped handlers, over links that may fail.
//!
//! What it calls is the code behind tonic: the same handlers, checks and texts, without a connection between. A
//! request or an answer that is lost leaves the client waiting until it gives up.

use std::future::Future;

use futures_util::{Stream, StreamExt, stream};
use kontiki::{
    server::api::{Api, Member},
    wire::etcdserverpb::{
        self as pb, cluster_server::Cluster, kv_server::Kv, lease_server::Lease,
        maintenance_server::Maintenance,
    },
};
use tokio::sync::{mpsc, oneshot};
use tonic::{Request, Status};

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
            let op = &mut history.ops[place as usize];
            op.end = Some(end);
            op.outcome = outcome.clone();
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
        let (mut reply, answered) = oneshot::channel();
        world.host.spawn(
            process,
            Box::pin(async move {
                // As behind a connection: a client that has gone takes its handler along.
                let answer = tokio::select! {
                    biased;
                    () = reply.closed() => return,
                    answer = dispatch(&api, call) => answer,
                };
                drop(reply.send(answer));
            }),
        );
        let Ok(answer) = answered.await else {
            return Err(Status::unavailable("connection reset"));
        };
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
        world.record(|history| history.watches[id as usize].ended = Some(ended));
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
        world.host.spawn(process, Box::pin(serve_watch(api, asked, responses)));
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
            world.record(|history| history.watches[id as usize].responses.push((at, response)));
            if canceled {
                return;
            }
            if slow > 0 {
                world.host.sleep(slow).await;
            }
        }
    }
}

/// The member's end of a watch's stream.
async fn serve_watch<M: Member>(
    api: Api<M>,
    asked: mpsc::UnboundedReceiver<pb::WatchRequest>,
    responses: mpsc::Sender<Result<pb::WatchResponse, Status>>,
) {
    let requests = stream::unfold(asked, |mut asked| async { Some((Ok(asked.recv().await?), asked)) });
    match api.watch_over(Request::new(Box::pin(requests))).await {
        Ok(served) => forward(served.into_inner(), responses).await,
        Err(status) => drop(responses.send(Err(status)).await),
    }
}

async fn forward<T>(mut from: impl Stream<Item = T> + Unpin, to: mpsc::Sender<T>) {
    while let Some(next) = from.next().await {
        if to.send(next).await.is_err() {
            return;
        }
    }
}

macro_rules! dispatch {
    ($api:ident, $call:ident; $($name:ident => $service:ident::$method:ident;)* ; $($other:pat => $other_body:expr,)*) => {
        match $call {
            $(Call::$name(request) => {
                $service::$method($api, Request::new(request)).await.map(|r| Reply::from(r.into_inner()))
            })*
            $($other => $other_body,)*
        }
    };
}

/// Runs a call in its handler.
async fn dispatch<M: Member>(api: &Api<M>, call: Call) -> Result<Reply, Status> {
    dispatch! { api, call;
        Range => Kv::range;
        Put => Kv::put;
        DeleteRange => Kv::delete_range;
        Txn => Kv::txn;
        Compact => Kv::compact;
        LeaseGrant => Lease::lease_grant;
        LeaseRevoke => Lease::lease_revoke;
        LeaseTimeToLive => Lease::lease_time_to_live;
        LeaseLeases => Lease::lease_leases;
        MemberAdd => Cluster::member_add;
        MemberRemove => Cluster::member_remove;
        MemberUpdate => Cluster::member_update;
        MemberList => Cluster::member_list;
        MemberPromote => Cluster::member_promote;
        Alarm => Maintenance::alarm;
        Status => Maintenance::status;
        Defragment => Maintenance::defragment;
        Hash => Maintenance::hash;
        HashKv => Maintenance::hash_kv;
        MoveLeader => Maintenance::move_leader;
        Downgrade => Maintenance::downgrade;
        ;
        Call::LeaseKeepAlive(request) => {
            // Left open: a stream that ends would end the renewal with it.
            let requests = stream::iter([Ok(request)]).chain(stream::pending());
            let mut renewed = api.keep_alive_over(Request::new(requests.boxed())).await?.into_inner();
            match renewed.next().await {
                Some(response) => response.map(Reply::from),
                None => Err(Status::unavailable("connection reset")),
            }
        },
        other => Err(Status::unimplemented(other.name())),
    }
}
