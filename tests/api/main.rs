//! The API over real gRPC connections, in front of a member that answers by script.

#![cfg(not(madsim))]

mod auth;
mod budget;

use std::{
    collections::BTreeMap,
    future::{Future, pending},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt, stream, stream::BoxStream};
use kontiki::{
    auth::{Need, Store, Who, password},
    error::Refusal,
    lease::Book,
    membership,
    mvcc::{
        KvBytes, OpResponse, PutResponse, RangeChunk, RangeRequest, RangeResponse, RangeTail, TxnRequest,
        TxnResponse,
    },
    server::{
        Header, LeaseInfo, Status,
        api::{Charge, Grpc, KvHash, Limits, Member, MembersReply, SnapshotBody, WatchInput, WatchStream},
    },
    state::{Alarm, AlarmKind, Command, Reply},
    table::Batch,
    types::{ClusterId, Index, LeaseId, NodeId, Revision, Term},
    watch::{Frame, StreamId, WatchId, WatchRequest},
    wire::etcdserverpb::{
        self as pb, kv_client::KvClient, lease_client::LeaseClient, maintenance_client::MaintenanceClient,
        watch_client::WatchClient,
    },
};
use tokio::{
    net::TcpListener,
    sync::{Notify, mpsc, watch},
};
use tokio_stream::wrappers::{TcpListenerStream, UnboundedReceiverStream};
use tonic::{
    Code, Request,
    codegen::http::uri::PathAndQuery,
    service::Routes,
    transport::{Channel, Endpoint},
};

/// A member that answers by script and remembers what it was asked.
#[derive(Clone)]
struct Fake {
    inner: Arc<Inner>,
}

struct Inner {
    limits: Limits,
    learner: AtomicBool,
    db_size: AtomicU64,
    leader: watch::Sender<Option<NodeId>>,
    leader_seen: watch::Receiver<Option<NodeId>>,
    proposed: Mutex<Vec<Command>>,
    barriers: AtomicU64,
    alarms: Mutex<Vec<Alarm>>,
    renewed: Mutex<Vec<Vec<LeaseId>>>,
    /// Renewals wait for it, once for each permit.
    renew: tokio::sync::Semaphore,
    /// Ends every sleep.
    wake: Notify,
    users: Mutex<Arc<Store>>,
    leases: Book,
    asked_by: Mutex<Vec<Who>>,
    hub: mpsc::UnboundedSender<WatchInput>,
    /// The ends into which the test pushes frames.
    frames: Mutex<BTreeMap<StreamId, mpsc::UnboundedSender<Frame>>>,
}

const ME: NodeId = NodeId(7);
/// A key with a value that takes all that ranges may take together.
const LARGE: &str = "large";
const LARGE_BYTES: usize = 8 << 20;

impl Member for Fake {
    fn header(&self) -> Header {
        Header { cluster: ClusterId(3), member: ME, revision: Revision(40), term: Term(2) }
    }

    fn limits(&self) -> &Limits {
        &self.inner.limits
    }

    fn status(&self) -> Status {
        let alarms = self.inner.alarms.lock().expect("no panic").clone();
        Status { leader: *self.leader().borrow(), alarms, ..Default::default() }
    }

    fn db_size(&self) -> u64 {
        self.inner.db_size.load(Ordering::Relaxed)
    }

    fn is_learner(&self) -> bool {
        self.inner.learner.load(Ordering::Relaxed)
    }

    fn leader(&self) -> &watch::Receiver<Option<NodeId>> {
        &self.inner.leader_seen
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(task);
    }

    fn sleep(&self, _: Duration) -> impl Future<Output = ()> + Send + 'static {
        let inner = self.inner.clone();
        async move { inner.wake.notified().await }
    }

    fn new_lease_id(&self) -> LeaseId {
        LeaseId(4711)
    }

    fn downgrade_target(&self) -> Option<String> {
        None
    }

    async fn read_barrier(&self) -> Result<(), Refusal> {
        self.inner.barriers.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    async fn range(&self, request: &RangeRequest, charge: &mut Charge) -> Result<RangeResponse, Refusal> {
        if request.revision > Revision(40) {
            return Err(Refusal::FutureRevision);
        }
        let kvs = if request.range.start == LARGE {
            vec![KvBytes(vec![0; LARGE_BYTES].into())]
        } else {
            vec![KvBytes((&b"\x0a\x01k"[..]).into())]
        };
        charge.grow(kvs[0].0.len())?;
        Ok(RangeResponse { revision: Revision(41), kvs, more: true, count: 9 })
    }

    async fn range_chunks(
        &self,
        _: RangeRequest,
    ) -> Result<BoxStream<'static, Result<RangeChunk, Refusal>>, Refusal> {
        let kvs = |n: u8| vec![KvBytes(vec![10, 1, n].into())];
        let tail = Some(RangeTail { revision: Revision(39), more: false, count: 2 });
        let chunks = [RangeChunk { kvs: kvs(1), tail: None }, RangeChunk { kvs: kvs(2), tail }];
        Ok(stream::iter(chunks.map(Ok)).boxed())
    }

    async fn read_txn(&self, _: &TxnRequest) -> Result<TxnResponse, Refusal> {
        let nested = TxnResponse { revision: Revision(5), succeeded: true, responses: vec![] };
        let found = RangeResponse { revision: Revision(40), ..Default::default() };
        let responses = vec![OpResponse::Range(found), OpResponse::Txn(nested)];
        Ok(TxnResponse { revision: Revision(40), succeeded: true, responses })
    }

    fn auth_revision(&self) -> Option<u64> {
        let users = self.inner.users.lock().expect("no panic");
        users.enabled().then(|| users.revision())
    }

    async fn users(&self) -> Arc<Store> {
        self.inner.users.lock().expect("no panic").clone()
    }

    async fn who(&self, token: &str) -> Result<Who, Refusal> {
        let user = token.strip_suffix(".1").ok_or(Refusal::InvalidAuthToken)?;
        Ok(Who { user: user.into(), revision: self.users().await.revision() })
    }

    async fn permits(&self, who: &Who, needs: &[Need]) -> Result<(), Refusal> {
        self.users().await.permits(who, needs, &self.inner.leases)
    }

    async fn hash_password(&self, password: String) -> Result<String, Refusal> {
        Ok(password::hash(&password, password::COST_MIN, [1; 16]))
    }

    async fn compare_password(&self, password: String, hash: Bytes) -> Result<bool, Refusal> {
        Ok(password::matches(&password, &hash))
    }

    fn new_nonce(&self) -> String {
        "abcdefghijklmnop".into()
    }

    fn token(&self, simple: String, _: &str, _: u64) -> Result<String, Refusal> {
        Ok(simple)
    }

    async fn propose(&self, who: Who, command: Command) -> Result<(Reply, Header), Refusal> {
        self.inner.asked_by.lock().expect("no panic").push(who);
        let reply = match &command {
            Command::Put(put) if put.key == "large" => return Err(Refusal::RequestTooLarge),
            Command::Put(_) => Reply::Put(PutResponse { revision: Revision(42), prev_kv: None }),
            Command::LeaseGrant { id, ttl } => Reply::LeaseGrant { id: *id, ttl: *ttl },
            Command::Auth(action) => {
                let mut users = self.users().await;
                let done = Store::act(&mut users, action, Index(1), &mut Batch::default());
                let (outcome, _) = done?;
                Reply::Auth(outcome)
            }
            _ => Reply::Done,
        };
        self.inner.proposed.lock().expect("no panic").push(command);
        Ok((reply, self.header()))
    }

    async fn compaction_finished(&self, _: Revision) -> Result<(), Refusal> {
        Ok(())
    }

    async fn open_watch(&self) -> Result<WatchStream, Refusal> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut frames = self.inner.frames.lock().expect("no panic");
        let id = StreamId(frames.len() as u64);
        frames.insert(id, sender);
        let hub = self.inner.hub.clone();
        Ok(WatchStream::new(id, move |input| drop(hub.send(input)), receiver))
    }

    async fn lease_renew(&self, ids: &[LeaseId]) -> Result<Vec<i64>, Refusal> {
        self.inner.renewed.lock().expect("no panic").push(ids.to_vec());
        self.inner.renew.acquire().await.map_err(|_| Refusal::Stopped)?.forget();
        Ok(ids.iter().map(|id| if id.0 > 100 { 0 } else { id.0 * 10 }).collect())
    }

    /// Lease 7 gets a key just after it was looked at who may see its keys.
    async fn lease_info(&self, id: LeaseId, _: bool) -> Result<Option<LeaseInfo>, Refusal> {
        Ok((id == LeaseId(7)).then(|| LeaseInfo { ttl: 9, granted: 10, keys: vec!["z".into()] }))
    }

    async fn lease_list(&self) -> Result<Vec<LeaseId>, Refusal> {
        Ok(vec![LeaseId(2), LeaseId(1)])
    }

    fn members(&self) -> Vec<membership::Member> {
        Vec::new()
    }

    async fn member_add(&self, _: Vec<String>, _: bool) -> MembersReply {
        Err(Refusal::TooManyLearners)
    }

    async fn member_remove(&self, _: NodeId) -> MembersReply {
        Err(Refusal::MemberNotFound)
    }

    async fn member_update(&self, _: NodeId, _: Vec<String>) -> MembersReply {
        Err(Refusal::MemberNotFound)
    }

    async fn member_promote(&self, _: NodeId) -> MembersReply {
        Err(Refusal::LearnerNotReady)
    }

    async fn move_leader(&self, _: NodeId) -> Result<(), Refusal> {
        pending().await
    }

    async fn defragment(&self) -> Result<(), Refusal> {
        Ok(())
    }

    async fn hash(&self) -> Result<u32, Refusal> {
        Ok(1)
    }

    async fn hash_kv(&self, revision: Revision) -> Result<KvHash, Refusal> {
        Ok(KvHash { hash: 1, revision, compacted: Revision(-1) })
    }

    async fn snapshot(&self) -> Result<SnapshotBody, Refusal> {
        let (sender, pieces) = mpsc::channel(1);
        sender.try_send(vec![1; 10].into()).expect("there is room");
        Ok(SnapshotBody { bytes: 10, pieces })
    }
}

/// A served member, a connection to it, and what its hub hears.
struct Served {
    fake: Fake,
    channel: Channel,
    hub: mpsc::UnboundedReceiver<WatchInput>,
}

async fn serve() -> Served {
    let (hub, hub_inputs) = mpsc::unbounded_channel();
    let (leader, leader_seen) = watch::channel(Some(ME));
    let inner = Inner {
        limits: Limits { request_bytes_max: 1_000_000, range_bytes_max: LARGE_BYTES, ..Default::default() },
        learner: AtomicBool::new(false),
        db_size: AtomicU64::new(0),
        leader,
        leader_seen,
        proposed: Mutex::default(),
        barriers: AtomicU64::new(0),
        alarms: Mutex::default(),
        renewed: Mutex::default(),
        renew: tokio::sync::Semaphore::new(0),
        wake: Notify::new(),
        users: Mutex::default(),
        leases: leases(),
        asked_by: Mutex::default(),
        hub,
        frames: Mutex::default(),
    };
    let fake = Fake { inner: Arc::new(inner) };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let routes = Routes::from(Grpc::new(fake.clone()).into_router());
    let server = tonic::transport::Server::builder().add_routes(routes);
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    let channel = Endpoint::from_shared(format!("http://{address}")).expect("a URL").connect_lazy();
    Served { fake, channel, hub: hub_inputs }
}

/// Lease 5 holds `a`, which `u` may read; lease 6 holds `z`, which `u` may not.
fn leases() -> Book {
    let mut leases = Book::default();
    for (id, key) in [(5, "a"), (6, "z")] {
        leases.grant(LeaseId(id), 60, &mut Batch::default()).expect("it is new");
        leases.bind(LeaseId(id), key.into());
    }
    leases
}

fn range_of(key: &'static str) -> pb::RangeRequest {
    pb::RangeRequest { key: key.into(), ..Default::default() }
}

fn put_of(key: &'static str) -> pb::PutRequest {
    pb::PutRequest { key: key.into(), ..Default::default() }
}

fn with<T>(key: &'static str, value: &'static str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(key, value.parse().expect("a value"));
    request
}

/// Code and text of what must have been refused.
fn refused<T: std::fmt::Debug>(answer: Result<T, tonic::Status>) -> (Code, String) {
    let status = answer.expect_err("it is refused");
    (status.code(), status.message().to_owned())
}

#[tokio::test]
async fn reads_ask_the_quorum_unless_they_are_serializable() {
    let served = serve().await;
    let mut kv = KvClient::new(served.channel.clone());
    let barriers = || served.fake.inner.barriers.load(Ordering::Relaxed);
    // The member's bytes of a key-value come back as they were.
    let found = kv.range(range_of("k")).await.expect("found").into_inner();
    let header = found.header.expect("a header");
    assert_eq!((header.cluster_id, header.member_id, header.revision, header.raft_term), (3, 7, 41, 2));
    assert_eq!((found.kvs.len(), found.more, found.count), (1, true, 9));
    assert_eq!(found.kvs[0].0.as_ref(), b"\x0a\x01k");
    assert_eq!(barriers(), 1);
    kv.range(pb::RangeRequest { serializable: true, ..range_of("k") }).await.expect("found");
    assert_eq!(barriers(), 1);
    let future = pb::RangeRequest { revision: 99, ..range_of("k") };
    let future = refused(kv.range(future).await);
    assert_eq!(future, (Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision".into()));
    let txn = kv.txn(pb::TxnRequest::default()).await.expect("an empty one reads").into_inner();
    assert_eq!(barriers(), 2, "nothing in it asks the quorum");
    let [range, nested] = &txn.responses[..] else { panic!("two responses") };
    let Some(pb::response_op::Response::ResponseRange(range)) = &range.response else { panic!("a range") };
    let header = range.header.expect("a header");
    assert_eq!((header.member_id, header.revision), (0, 40), "inner headers have only a revision");
    let Some(pb::response_op::Response::ResponseTxn(nested)) = &nested.response else { panic!("a txn") };
    assert_eq!(nested.header, Some(pb::ResponseHeader::default()));
}

#[tokio::test]
async fn a_range_stream_ends_with_the_header() {
    let served = serve().await;
    let stream = KvClient::new(served.channel).range_stream(range_of("k")).await.expect("a stream");
    let chunks: Vec<_> =
        stream.into_inner().map(|c| c.expect("a chunk").range_response.expect("set")).collect().await;
    let shape: Vec<_> = chunks.iter().map(|c| (c.kvs.len(), c.header.map(|h| h.revision), c.count)).collect();
    assert_eq!(shape, [(1, None, 0), (1, Some(39), 2)]);
}

#[tokio::test]
async fn learners_serve_little() {
    let served = serve().await;
    served.fake.inner.learner.store(true, Ordering::Relaxed);
    let mut kv = KvClient::new(served.channel.clone());
    let unsupported = (Code::Unavailable, "etcdserver: rpc not supported for learner".to_owned());
    assert_eq!(refused(kv.range(range_of("k")).await), unsupported);
    assert_eq!(refused(kv.put(put_of("k")).await), unsupported);
    kv.range(pb::RangeRequest { serializable: true, ..range_of("k") }).await.expect("serializable");
    let mut maintenance = MaintenanceClient::new(served.channel.clone());
    maintenance.status(pb::StatusRequest {}).await.expect("a status");
    assert_eq!(refused(maintenance.hash(pb::HashRequest {}).await), unsupported);
    let snapshot = maintenance.snapshot(pb::SnapshotRequest {}).await.expect("a snapshot").into_inner();
    assert_eq!(snapshot.count().await, 2);
    let watch = WatchClient::new(served.channel.clone()).watch(tokio_stream::pending()).await;
    assert_eq!(refused(watch.map(|_| ())), unsupported);
}

#[tokio::test]
async fn who_asks_for_a_leader_is_refused_without_one() {
    let served = serve().await;
    let mut kv = KvClient::new(served.channel.clone());
    served.fake.inner.leader.send_replace(None);
    let no_leader = (Code::Unavailable, "etcdserver: no leader".to_owned());
    assert_eq!(refused(kv.put(with("hasleader", "true", put_of("k"))).await), no_leader);
    kv.put(with("hasleader", "false", put_of("k"))).await.expect("it does not ask");
    kv.put(put_of("k")).await.expect("it does not ask");
    served.fake.inner.leader.send_replace(Some(NodeId(9)));
    kv.put(with("hasleader", "true", put_of("k"))).await.expect("there is one again");
}

#[tokio::test]
async fn the_quota_refuses_writes_and_raises_the_alarm_once() {
    let served = serve().await;
    let inner = &served.fake.inner;
    let mut kv = KvClient::new(served.channel.clone());
    inner.db_size.store(inner.limits.quota_bytes_max - 256 - 2, Ordering::Relaxed);
    kv.put(put_of("k")).await.expect("it just fits");
    let no_space = (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded".to_owned());
    assert_eq!(refused(kv.put(put_of("kk")).await), no_space);
    let alarm = Alarm { member: ME, kind: AlarmKind::NoSpace };
    let proposals = || inner.proposed.lock().expect("no panic").len();
    assert_eq!(proposals(), 2, "the put that fitted, and the alarm");
    inner.alarms.lock().expect("no panic").push(alarm);
    assert_eq!(refused(kv.put(put_of("kk")).await), no_space);
    assert_eq!(proposals(), 2, "it is raised already");
    // The quota comes before the request itself is looked at.
    assert_eq!(refused(kv.put(pb::PutRequest { value: "vv".into(), ..put_of("") }).await), no_space);
    kv.txn(pb::TxnRequest::default()).await.expect("what puts nothing passes");
    let lease = LeaseClient::new(served.channel.clone()).lease_grant(pb::LeaseGrantRequest::default()).await;
    lease.expect("a lease takes less");
}

#[tokio::test]
async fn a_lease_gets_an_id_and_the_least_ttl() {
    let served = serve().await;
    let mut leases = LeaseClient::new(served.channel.clone());
    let lease =
        leases.lease_grant(pb::LeaseGrantRequest { ttl: 1, id: 0 }).await.expect("granted").into_inner();
    assert_eq!((lease.id, lease.ttl), (4711, 2));
    let lease =
        leases.lease_grant(pb::LeaseGrantRequest { ttl: 60, id: -3 }).await.expect("granted").into_inner();
    assert_eq!((lease.id, lease.ttl), (-3, 60));
    let request = pb::LeaseTimeToLiveRequest { id: 5, keys: true };
    let gone = leases.lease_time_to_live(request).await.expect("no error").into_inner();
    assert_eq!((gone.id, gone.ttl, gone.granted_ttl), (5, -1, 0));
}

#[tokio::test]
async fn keep_alives_that_wait_are_renewed_together_and_answered_in_order() {
    let served = serve().await;
    let (sender, receiver) = mpsc::unbounded_channel();
    let ask = |id| sender.send(pb::LeaseKeepAliveRequest { id }).expect("open");
    ask(1);
    let mut leases = LeaseClient::new(served.channel.clone());
    let inner = served.fake.inner.clone();
    inner.renew.add_permits(1);
    let mut answers =
        leases.lease_keep_alive(UnboundedReceiverStream::new(receiver)).await.expect("open").into_inner();
    let first = answers.message().await.expect("answered").expect("answered");
    assert_eq!((first.id, first.ttl, first.header.map(|h| h.revision)), (1, 10, Some(40)));
    for id in [2, 404, 2, 3] {
        ask(id);
    }
    drop(sender);
    inner.renew.add_permits(10);
    let rest: Vec<_> = answers.map(|a| a.map(|a| (a.id, a.ttl)).expect("answered")).collect().await;
    assert_eq!(rest, [(2, 20), (404, 0), (2, 20), (3, 30)]);
    let renewed: Vec<LeaseId> = inner.renewed.lock().expect("no panic").concat();
    assert_eq!(renewed, [1, 2, 404, 2, 3].map(LeaseId));
}

/// What the hub hears next of a stream, as text. Takes requests off its hands.
async fn heard(served: &mut Served) -> String {
    match served.hub.recv().await.expect("the hub is held by the member") {
        WatchInput::Asked { stream, request, .. } => match request {
            WatchRequest::Create(create) => format!("{} create {}", stream.0, create.watch_id.0),
            WatchRequest::Cancel { id } => format!("{} cancel {}", stream.0, id.0),
            WatchRequest::Progress => format!("{} progress", stream.0),
        },
        WatchInput::Drained(stream, frames) => format!("{} drained {frames}", stream.0),
        WatchInput::Closed(stream) => format!("{} closed", stream.0),
    }
}

fn creating(watch_id: i64) -> pb::WatchRequest {
    let create = pb::WatchCreateRequest { watch_id, key: "k".into(), ..Default::default() };
    pb::WatchRequest { request_union: Some(pb::watch_request::RequestUnion::CreateRequest(create)) }
}

#[tokio::test]
async fn a_watch_stream_carries_requests_and_frames_until_its_client_leaves() {
    let mut served = serve().await;
    let (sender, receiver) = mpsc::unbounded_channel();
    let mut client = WatchClient::new(served.channel.clone());
    let mut frames = client.watch(UnboundedReceiverStream::new(receiver)).await.expect("open").into_inner();
    sender.send(pb::WatchRequest { request_union: None }).expect("open");
    sender.send(creating(5)).expect("open");
    assert_eq!(heard(&mut served).await, "0 create 5", "what asks for nothing is not passed on");
    let push = |frame| {
        let frames = served.fake.inner.frames.lock().expect("no panic");
        frames[&StreamId(0)].send(frame).expect("open");
    };
    push(Frame { watch_id: WatchId(5), revision: Revision(33), created: true, ..Default::default() });
    let frame = frames.message().await.expect("a frame").expect("a frame");
    assert_eq!((frame.watch_id, frame.created), (5, true));
    assert_eq!(frame.header.map(|h| (h.member_id, h.revision)), Some((7, 33)));
    assert_eq!(heard(&mut served).await, "0 drained 1");
    // Its client leaves: it sends no more, and takes no more.
    drop((sender, frames));
    assert_eq!(heard(&mut served).await, "0 closed");
}

#[tokio::test]
async fn a_client_that_floods_waits_and_still_gets_its_frames() {
    let mut served = serve().await;
    let requests = tokio_stream::iter((1..=200).map(creating)).chain(tokio_stream::pending());
    let mut client = WatchClient::new(served.channel.clone());
    let mut frames = client.watch(requests).await.expect("open").into_inner();
    // The hub hears them but takes none: it holds what they come with.
    let mut held = Vec::new();
    for _ in 0..64 {
        held.push(served.hub.recv().await.expect("a request"));
    }
    let push = |revision| {
        let frames = served.fake.inner.frames.lock().expect("no panic");
        frames[&StreamId(0)]
            .send(Frame { revision: Revision(revision), ..Default::default() })
            .expect("open");
    };
    push(9);
    let frame = frames.message().await.expect("a frame").expect("a frame");
    assert_eq!(frame.header.map(|h| h.revision), Some(9));
    assert_eq!(heard(&mut served).await, "0 drained 1", "no further request came before it");
    drop(held);
    assert_eq!(heard(&mut served).await, "0 create 65");
}

#[tokio::test]
async fn a_watch_stream_that_asked_for_a_leader_is_cut_without_one() {
    let mut served = serve().await;
    let mut client = WatchClient::new(served.channel.clone());
    let mut asked =
        client.watch(with("hasleader", "true", tokio_stream::pending())).await.expect("open").into_inner();
    let mut other = client.watch(tokio_stream::pending()).await.expect("open").into_inner();
    served.fake.inner.leader.send_replace(None);
    // The wait for a leader is over as soon as it has begun.
    let cut = async {
        loop {
            served.fake.inner.wake.notify_waiters();
            tokio::task::yield_now().await;
        }
    };
    let status = tokio::select! {
        frame = asked.message() => frame.expect_err("it is cut"),
        () = cut => unreachable!("it does not end"),
    };
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "etcdserver: no leader"));
    assert_eq!(heard(&mut served).await, "0 closed");
    served.fake.inner.frames.lock().expect("no panic").remove(&StreamId(1));
    let status = other.message().await.expect_err("the hub is gone");
    assert_eq!(status.message(), "etcdserver: server stopped");
}

#[tokio::test]
async fn grpc_itself_answers_in_etcds_words() {
    let served = serve().await;
    let mut kv = KvClient::new(served.channel.clone());
    let max = served.fake.inner.limits.message_bytes_max();
    let over = pb::PutRequest { value: vec![0; max].into(), ..put_of("k") };
    let bytes = prost::Message::encoded_len(&over);
    let text = format!("grpc: received message larger than max ({bytes} vs. {max})");
    assert_eq!(refused(kv.put(over).await), (Code::ResourceExhausted, text));
    let large = refused(kv.put(put_of("large")).await);
    assert_eq!(large, (Code::InvalidArgument, "etcdserver: request is too large".to_owned()));
    let mut grpc = tonic::client::Grpc::new(served.channel.clone());
    grpc.ready().await.expect("connected");
    let path = PathAndQuery::from_static("/v3lockpb.Key/Lock");
    let codec = tonic_prost::ProstCodec::<pb::StatusRequest, pb::StatusResponse>::default();
    let unknown = refused(grpc.unary(Request::new(pb::StatusRequest {}), path, codec).await);
    assert_eq!(unknown, (Code::Unimplemented, "unknown service v3lockpb.Key".to_owned()));
}
