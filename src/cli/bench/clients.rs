//! Clients that read, write and renew leases: tasks with one operation under way each, over connections that they share.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, transport::Channel};

use super::{
    keys::{Keys, Random},
    options::{Common, Load, Options},
    raw,
    report::Tally,
};
use crate::wire::etcdserverpb::{
    self as pb, kv_client::KvClient, lease_client::LeaseClient, request_op::Request,
};

/// Pause after a failure, so that a server that is down is not flooded.
const FAILURE_PAUSE: Duration = Duration::from_millis(10);
/// Lifetime of the leases that are renewed, in seconds.
const LEASE_TTL: i64 = 600;

/// What all clients share: the clock, the work that is left, keys and value.
pub struct Shared {
    /// What to do.
    pub options: Options,
    /// All keys.
    pub keys: Arc<Keys>,
    /// What is written.
    pub value: Bytes,
    /// When the run began.
    pub start: Instant,
    /// Tickets that were given out.
    tickets: AtomicU64,
    /// Operations that have ended, for the progress bar.
    pub ended: AtomicU64,
}

impl Shared {
    /// The clock starts now.
    pub fn new(options: Options, keys: Arc<Keys>, value: Bytes) -> Self {
        let start = Instant::now();
        Self { options, keys, value, start, tickets: AtomicU64::new(0), ended: AtomicU64::new(0) }
    }

    fn common(&self) -> &Common {
        &self.options.common
    }

    /// The right to one more operation, and when it is due; waits until then.
    pub async fn ticket(&self) -> Option<Instant> {
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
        let due = match self.common().rate {
            0 => Instant::now(),
            rate => {
                let due = self.start + Duration::from_secs_f64(ticket as f64 / rate as f64);
                tokio::time::sleep_until(due).await;
                due
            }
        };
        let over = match self.common().duration {
            Some(duration) => due >= self.start + duration,
            None => ticket >= self.common().total,
        };
        (!over).then_some(due)
    }

    /// Notes how an operation went.
    async fn note(&self, tally: &mut Tally, kind: &'static str, due: Instant, outcome: Result<(), Status>) {
        self.ended.fetch_add(1, Ordering::Relaxed);
        match outcome {
            Ok(()) => tally.done(kind, due.elapsed()),
            Err(status) => {
                tally.failed(status.message().to_string());
                tokio::time::sleep(FAILURE_PAUSE).await;
            }
        }
    }
}

/// Reads and writes, as client number `number`.
pub async fn key_values(shared: Arc<Shared>, channel: Channel, number: u64) -> Tally {
    let shared = &*shared;
    let mut client = KvClient::new(channel.clone());
    let mut random = Random::new(number + 1);
    let mut tally = Tally::new();
    while let Some(due) = shared.ticket().await {
        let (kind, outcome) = match shared.options.load {
            Load::TxnPut { txn_ops } => ("txn-put", txn_put(shared, &mut client, txn_ops, &mut random).await),
            Load::Range { range_keys, serializable } => {
                ("range", range(shared, &channel, range_keys, serializable, &mut random).await)
            }
            Load::Mixed { read_percent, serializable } if random.below(100) < u64::from(read_percent) => {
                ("range", range(shared, &channel, 1, serializable, &mut random).await)
            }
            Load::Put | Load::Mixed { .. } | Load::Watch | Load::KeepAlive => {
                let key = shared.keys.get(shared.keys.choose(1, &mut random));
                ("put", put(&mut client, key, shared.value.clone()).await)
            }
        };
        shared.note(&mut tally, kind, due, outcome).await;
    }
    tally
}

async fn put(client: &mut KvClient<Channel>, key: Bytes, value: Bytes) -> Result<(), Status> {
    client.put(pb::PutRequest { key, value, ..Default::default() }).await.map(drop)
}

async fn txn_put(
    shared: &Shared,
    client: &mut KvClient<Channel>,
    ops: u64,
    random: &mut Random,
) -> Result<(), Status> {
    let first = shared.keys.choose(ops, random);
    let puts = (first..first + ops).map(|at| pb::RequestOp {
        request: Some(Request::RequestPut(pb::PutRequest {
            key: shared.keys.get(at),
            value: shared.value.clone(),
            ..Default::default()
        })),
    });
    client.txn(pb::TxnRequest { success: puts.collect(), ..Default::default() }).await.map(drop)
}

async fn range(
    shared: &Shared,
    channel: &Channel,
    count: u64,
    serializable: bool,
    random: &mut Random,
) -> Result<(), Status> {
    let first = shared.keys.choose(count, random);
    let range_end = if count == 1 { Bytes::new() } else { shared.keys.after(first + count - 1) };
    let request =
        pb::RangeRequest { key: shared.keys.get(first), range_end, serializable, ..Default::default() };
    match raw::range(channel.clone(), request).await? {
        came if came as u64 == count => Ok(()),
        // It would measure nothing.
        _ => Err(Status::not_found("not all keys are there; use --fill")),
    }
}

/// Writes every key once, a few at a time.
pub async fn fill(keys: Arc<Keys>, value: Bytes, channels: &[Channel]) -> Result<(), Status> {
    const WRITERS: u64 = 64;
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let (keys, value) = (keys.clone(), value.clone());
        let mut client = KvClient::new(channels[writer as usize % channels.len()].clone());
        writers.spawn(async move {
            for at in (writer..keys.count()).step_by(WRITERS as usize) {
                put(&mut client, keys.get(at), value.clone()).await?;
            }
            Ok(())
        });
    }
    while let Some(done) = writers.join_next().await {
        done.unwrap_or_else(|error| Err(Status::internal(error.to_string())))?;
    }
    Ok(())
}

/// Renews one lease, a request after each answer.
pub async fn keep_alive(shared: Arc<Shared>, channel: Channel) -> Tally {
    let mut tally = Tally::new();
    let mut client = LeaseClient::new(channel);
    if let Err(status) = renewals(&shared, &mut client, &mut tally).await {
        tally.failed(status.message().to_string());
    }
    tally
}

async fn renewals(
    shared: &Shared,
    client: &mut LeaseClient<Channel>,
    tally: &mut Tally,
) -> Result<(), Status> {
    let id = client.lease_grant(pb::LeaseGrantRequest { ttl: LEASE_TTL, id: 0 }).await?.into_inner().id;
    let (sender, receiver) = mpsc::channel(1);
    let request = pb::LeaseKeepAliveRequest { id };
    // The first answer opens the stream; it counts from the first ticket on.
    let mut stream = None;
    let mut waiting = Some(receiver);
    while let Some(due) = shared.ticket().await {
        let gone = || Status::unavailable("the stream of renewals ended");
        sender.send(request).await.map_err(|_| gone())?;
        if let Some(receiver) = waiting.take() {
            stream = Some(client.lease_keep_alive(ReceiverStream::new(receiver)).await?.into_inner());
        }
        let answer = match &mut stream {
            Some(stream) => stream.message().await?,
            None => None,
        };
        let outcome = match answer {
            Some(response) if response.ttl > 0 => Ok(()),
            Some(_) => Err(Status::not_found("the lease expired")),
            None => return Err(gone()),
        };
        shared.note(tally, "renewal", due, outcome).await;
    }
    client.lease_revoke(pb::LeaseRevokeRequest { id }).await.map(drop)
}
