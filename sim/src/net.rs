//! The simulated network: encoded messages, snapshots and questions between members, each link with faults of its
//! own.
//!
//! A link is one direction between two addresses. What travels is what production sends: the encoded `raftpb`
//! message, and a snapshot's body beside it. A link may be cut, lose, duplicate, delay and so reorder; what is on
//! its way when a link is cut, or when its sender dies, still arrives or is lost with it. An *echo* is a copy that comes
//! in long after, whatever became of the link and of both ends meanwhile: what raft has to bear, though no connection
//! does it.
//!
//! Left out: HTTP, streams and their queues, which `tests/peer` tries on real sockets.

mod bulk;
mod peers;

use std::{
    collections::BTreeMap,
    future::Future,
    ops::Deref,
    path::PathBuf,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
};

use kontiki::{
    error::Refusal,
    membership::Member,
    raft::{Body, Message},
    runtime::{Local, PeerAnswer, PeerEvent, Question},
    storage::MemDisk,
    types::{ClusterId, NodeId},
    wire,
};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use bulk::Transfer;
pub use peers::SimPeers;

use crate::{
    clock::SimClock,
    host::{Host, Micros, Process},
    lock::lock,
    moments::Moments,
    plan::Moment,
    probe::Probe,
    rng::Rng,
};

/// Where a member is: 1 to n for members, in the order in which they were first started.
pub type Address = u32;

/// The peer URL of an address.
pub fn peer_url(address: Address) -> String {
    format!("http://10.0.0.{address}:2380")
}

/// The address in a peer URL.
pub fn address_of(url: &str) -> Option<Address> {
    url.strip_prefix("http://10.0.0.")?.strip_suffix(":2380")?.parse().ok()
}

/// How a link behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Nothing gets in.
    pub cut: bool,
    /// What gets in stays there until it is let go on.
    #[serde(default)]
    pub held: bool,
    /// So do snapshots.
    #[serde(default)]
    pub bulk: bool,
    /// Within what time it comes in then, in any order.
    #[serde(default)]
    pub spread: Micros,
    /// Messages lost, in a million.
    pub loss: u32,
    /// Messages that come twice, in a million.
    pub twice: u32,
    /// The shortest and the longest time on the way.
    pub delay: (Micros, Micros),
    /// Messages that take up to a hundred times as long, in a million.
    pub late: u32,
    /// Messages with an echo, in a million.
    #[serde(default)]
    pub echoes: u32,
    /// How long after its message an echo comes in, from and to.
    #[serde(default)]
    pub echo_after: (Micros, Micros),
}

impl Default for Link {
    fn default() -> Self {
        Self {
            cut: false,
            held: false,
            bulk: false,
            spread: 0,
            loss: 0,
            twice: 0,
            delay: (100, 1_000),
            late: 0,
            echoes: 0,
            echo_after: (0, 0),
        }
    }
}

/// What a member serves to its peers besides raft.
pub trait Served: Send + Sync {
    /// Answers what only a leader can.
    fn answer(&self, question: Question) -> Answering;
    /// Its cluster and who is in it.
    fn cluster(&self) -> (ClusterId, Vec<Member>);
    /// Whether a member was removed.
    fn is_removed(&self, id: NodeId) -> bool;
}

/// An answer on its way.
pub type Answering = Pin<Box<dyn Future<Output = Result<PeerAnswer, Refusal>> + Send>>;

struct Endpoint {
    process: Process,
    id: NodeId,
    since: Micros,
    inbox: mpsc::Sender<PeerEvent>,
    disk: MemDisk,
    snap_dir: PathBuf,
    /// Whom its links lead to.
    peers: Peers,
    served: Option<Arc<dyn Served>>,
}

type Peers = Arc<Mutex<BTreeMap<NodeId, Address>>>;

/// The network. Clones are the same one.
#[derive(Clone)]
pub struct Net<H: Host>(Arc<Shared<H>>);

/// Each message on its way holds it.
#[doc(hidden)]
pub struct Shared<H> {
    host: H,
    rng: Rng,
    probe: Probe,
    on_message: OnMessage,
    moments: Moments,
    inner: Mutex<Inner>,
}

impl<H: Host> Deref for Net<H> {
    type Target = Shared<H>;

    fn deref(&self) -> &Shared<H> {
        &self.0
    }
}

/// Hears of each message that a member sends.
pub type OnMessage = Arc<dyn Fn(&Message) + Send + Sync>;

#[derive(Default)]
struct Inner {
    endpoints: BTreeMap<Address, Endpoint>,
    links: BTreeMap<(Address, Address), Link>,
    usual: Link,
    /// Since when a link that was cut is whole again.
    healed: BTreeMap<(Address, Address), Micros>,
    /// What stays on its way: by link, the messages with their numbers.
    held: BTreeMap<(Address, Address), Vec<Held>>,
    /// Echoes of what was sent until then come no more.
    silent: Option<Micros>,
    /// What was sent until then on a link is lost: it was cut.
    lost: BTreeMap<(Address, Address), Micros>,
    /// What was sent until then from an address is lost: its process ended.
    died: BTreeMap<Address, Micros>,
    /// Whether what is on its way now is lost with what ends now, and when that was drawn.
    drawn: (Micros, bool),
    /// Who has another state than all others from which index on, by what is told of state hashes.
    apart: Option<(Address, u64)>,
}

impl Inner {
    /// Whether what was sent at a moment is lost by now.
    fn has_lost(&self, from: Address, to: Address, sent: Micros) -> bool {
        let ends = self.lost.get(&(from, to)).into_iter().chain(self.died.get(&from));
        ends.into_iter().any(|until| sent <= *until)
    }
}

/// What stays on its way.
enum Held {
    /// A message with its number.
    Message(u64, Vec<u8>),
    /// A snapshot.
    Bulk(Transfer),
}

/// How long a question waits for its answer: the peers' own limit in production.
const ANSWER_MAX: Micros = 5_000_000;

/// How often a member whose peer does not answer dials it.
const DIAL_EVERY: Micros = 1_000_000;

impl<H: Host> Net<H> {
    /// A network without endpoints.
    pub fn new(
        host: H,
        rng: Rng,
        probe: Probe,
        usual: Link,
        on_message: OnMessage,
        moments: Moments,
    ) -> Self {
        let inner = Inner { usual, ..Inner::default() };
        Self(Arc::new(Shared { host, rng, probe, on_message, moments, inner: Mutex::new(inner) }))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }

    /// How the link from one address to another behaves now.
    pub fn link(&self, from: Address, to: Address) -> Link {
        let inner = self.lock();
        inner.links.get(&(from, to)).copied().unwrap_or(inner.usual)
    }

    /// Changes one link.
    pub fn set_link(&self, from: Address, to: Address, change: impl FnOnce(&mut Link)) {
        let now = self.host.now();
        let mut inner = self.lock();
        let usual = inner.usual;
        let link = inner.links.entry((from, to)).or_insert(usual);
        let was_cut = link.cut;
        change(link);
        let (healed, goes_on) = (was_cut && !link.cut, !link.held);
        let is_cut = !was_cut && link.cut;
        if healed {
            inner.healed.insert((from, to), now);
        }
        if is_cut && self.takes_along(&mut inner) {
            inner.lost.insert((from, to), now);
        }
        drop(inner);
        if goes_on {
            self.release(from, to);
        }
    }

    /// Whether what ends now takes along what is on its way: one draw for all that ends at a moment.
    fn takes_along(&self, inner: &mut Inner) -> bool {
        let now = self.host.now();
        if inner.drawn.0 != now {
            inner.drawn = (now, self.rng.chance(500_000));
        }
        inner.drawn.1
    }

    /// What was held on a link goes on, in any order.
    fn release(&self, from: Address, to: Address) {
        let held = self.lock().held.remove(&(from, to)).unwrap_or_default();
        let link = self.link(from, to);
        for held in held {
            let delay = self.delay(link) + self.rng.below(link.spread);
            match held {
                Held::Message(number, bytes) => self.carry(from, to, number, bytes, delay),
                Held::Bulk(transfer) => self.carry_bulk(transfer, delay),
            }
        }
    }

    fn carry(&self, from: Address, to: Address, number: u64, bytes: Vec<u8>, delay: Micros) {
        let (net, sent) = (self.clone(), self.host.now());
        let arrive = move || {
            if net.lock().has_lost(from, to, sent) {
                return net.probe.lost(number);
            }
            net.deliver(from, to, number, &bytes);
        };
        self.host.at(sent + delay, Box::new(arrive));
    }

    /// A copy of what was sent now comes in long after, if so drawn.
    fn echo(&self, link: Link, arrive: impl FnOnce(&Self) + Send + 'static) {
        if self.rng.chance(link.echoes) {
            let (net, sent) = (self.clone(), self.host.now());
            let again = move || {
                if net.lock().silent.is_none_or(|until| sent > until) {
                    arrive(&net);
                }
            };
            let after = self.rng.log_between(link.echo_after.0, link.echo_after.1);
            self.host.at(sent + after, Box::new(again));
        }
    }

    /// What links are like of which nobody has said anything else.
    pub fn usual(&self) -> Link {
        self.lock().usual
    }

    /// Makes all links what they usually are, and that something else from now on.
    pub fn heal(&self, usual: Link) {
        for (from, to) in self.mend(usual) {
            self.release(from, to);
        }
    }

    /// Makes all links what they are to be; gives those on which something is held.
    fn mend(&self, usual: Link) -> Vec<(Address, Address)> {
        let now = self.host.now();
        let mut inner = self.lock();
        let inner = &mut *inner;
        for (ends, _) in std::mem::take(&mut inner.links).into_iter().filter(|(_, link)| link.cut) {
            inner.healed.insert(ends, now);
        }
        inner.usual = usual;
        inner.silent = Some(now);
        inner.held.keys().copied().collect()
    }

    /// A member's process has an address now; gives its links.
    pub fn open(
        &self,
        address: Address,
        process: Process,
        local: &Local,
        inbox: mpsc::Sender<PeerEvent>,
        disk: MemDisk,
        clock: SimClock<H>,
    ) -> SimPeers<H> {
        let peers = Peers::default();
        let endpoint = Endpoint {
            process,
            id: local.id,
            since: self.host.now(),
            inbox,
            disk: disk.clone(),
            snap_dir: local.snap_dir.clone(),
            peers: peers.clone(),
            served: None,
        };
        self.lock().endpoints.insert(address, endpoint);
        let (net, known, id) = (self.clone(), peers.clone(), local.id);
        self.host.spawn(process, Box::pin(async move { net.dial(address, id, known).await }));
        SimPeers { net: self.clone(), me: address, disk, clock, peers }
    }

    /// As a member's streams do: it dials its peers again and again, and one that has removed it says so.
    async fn dial(self, address: Address, id: NodeId, peers: Peers) {
        loop {
            self.host.sleep(DIAL_EVERY).await;
            let known: Vec<Address> = lock(&peers).values().copied().collect();
            let reached = |peer: &Address| !self.link(address, *peer).cut && !self.link(*peer, address).cut;
            for peer in known.into_iter().filter(reached) {
                let served = self.lock().endpoints.get(&peer).and_then(|e| e.served.clone());
                if served.is_some_and(|served| served.is_removed(id)) {
                    self.tell(address, PeerEvent::Removed);
                }
            }
        }
    }

    /// The member at an address serves its peers.
    pub fn serve(&self, address: Address, served: Arc<dyn Served>) {
        if let Some(endpoint) = self.lock().endpoints.get_mut(&address) {
            endpoint.served = Some(served);
        }
    }

    /// Nobody is at an address any more.
    pub fn close(&self, address: Address) {
        let mut inner = self.lock();
        let endpoint = inner.endpoints.remove(&address);
        if endpoint.is_some() && self.takes_along(&mut inner) {
            inner.died.insert(address, self.host.now());
        }
        drop(inner);
        drop(endpoint);
    }

    /// The cluster as the first that answers among some members' URLs tells it.
    pub async fn fetch_cluster(&self, from: Address, urls: Vec<String>) -> Option<(ClusterId, Vec<Member>)> {
        for address in urls.iter().filter_map(|url| address_of(url)) {
            self.host.sleep(self.delay(self.link(from, address))).await;
            if self.link(from, address).cut || self.link(address, from).cut {
                continue;
            }
            let served = self.lock().endpoints.get(&address).and_then(|e| e.served.clone());
            if let Some(served) = served {
                return Some(served.cluster());
            }
        }
        None
    }

    fn delay(&self, link: Link) -> Micros {
        let (low, high) = link.delay;
        let usual = self.rng.between(low, high);
        if self.rng.chance(link.late) { usual * self.rng.between(2, 100) } else { usual }
    }

    /// How long one thing is on its way over a link now; None if it never arrives.
    pub fn passage(&self, from: Address, to: Address) -> Option<Micros> {
        let link = self.link(from, to);
        (!link.cut && !self.rng.chance(link.loss)).then(|| self.delay(link))
    }

    /// All hashes of states beyond an index say from now on that this member's is another than that of the others.
    pub fn set_apart(&self, member: Address, beyond: u64) {
        self.lock().apart = Some((member, beyond));
    }

    fn as_told(&self, from: Address, to: Address, mut message: Message) -> Message {
        let Some((apart, beyond)) = self.lock().apart else { return message };
        if let Body::Heartbeat { state: Some(mark), .. } | Body::HeartbeatReply { state: Some(mark), .. } =
            &mut message.body
            && (from == apart || to == apart)
            && mark.index.0 > beyond
        {
            mark.hash = !mark.hash;
        }
        message
    }

    /// One message goes into a link.
    fn send(&self, from: Address, to: Address, message: &Message, bytes: Vec<u8>) {
        let link = self.link(from, to);
        let number = self.probe.sent(from, to, message);
        (self.on_message)(message);
        match message.body {
            Body::Vote { pre: false, .. } => self.moments.come(Moment::Campaigns, from),
            Body::VoteReply { pre: false, granted: true } => self.moments.come(Moment::Votes, from),
            Body::TimeoutNow => self.moments.come(Moment::HandsOver, from),
            _ => {}
        }
        // A connection never delivers twice. What raft promises to bear comes twice all the same; a proposal that did
        // would be two.
        let once = matches!(message.body, Body::Propose { .. });
        if !link.cut && !once {
            // Also of what is lost: then it is a message that takes very long.
            let bytes = bytes.clone();
            self.echo(link, move |net| net.deliver(from, to, number, &bytes));
        }
        if link.cut || self.rng.chance(link.loss) {
            self.probe.lost(number);
            // A link that is down is noticed, if not at once.
            if link.cut && self.rng.chance(500_000) {
                self.tell(from, PeerEvent::Unreachable(message.to));
            }
            return;
        }
        let put = |bytes| {
            if link.held {
                self.lock().held.entry((from, to)).or_default().push(Held::Message(number, bytes));
            } else {
                self.carry(from, to, number, bytes, self.delay(link));
            }
        };
        if !once && self.rng.chance(link.twice) {
            put(bytes.clone());
        }
        put(bytes);
    }

    fn deliver(&self, from: Address, to: Address, number: u64, bytes: &[u8]) {
        // What can't be decoded is dropped, as a real link drops it.
        let Ok(message) = wire::raft::decode_message(bytes) else { return self.probe.lost(number) };
        let (id, peers, served) = match self.lock().endpoints.get(&to) {
            Some(endpoint) => (endpoint.id, endpoint.peers.clone(), endpoint.served.clone()),
            None => return self.probe.lost(number),
        };
        if served.is_some_and(|served| served.is_removed(message.from)) {
            self.probe.lost(number);
            // Who sent it may be gone, and another be at its address.
            let there = self.lock().endpoints.get(&from).map(|endpoint| endpoint.id);
            if there == Some(message.from) {
                self.tell(from, PeerEvent::Removed);
            }
            return;
        }
        if message.to != id {
            return self.probe.lost(number);
        }
        // As the peer port does by the sender's `X-PeerURLs`: one that is not known yet can be answered.
        lock(&peers).entry(message.from).or_insert(from);
        self.probe.delivered(number, to, bytes);
        self.tell(to, PeerEvent::Message(self.as_told(from, to, message)));
    }

    /// A message comes in at an address, whoever sent it.
    pub fn bring(&self, to: Address, message: Message) {
        self.tell(to, PeerEvent::Message(message));
    }

    /// A full inbox drops.
    fn tell(&self, to: Address, event: PeerEvent) {
        let inbox = self.lock().endpoints.get(&to).map(|endpoint| endpoint.inbox.clone());
        if let Some(inbox) = inbox {
            let _ = inbox.try_send(event);
        }
    }

    async fn ask(
        &self,
        from: Address,
        to: Address,
        question: Question,
    ) -> Option<Result<PeerAnswer, Refusal>> {
        let there = self.link(from, to);
        self.host.sleep(self.delay(there)).await;
        if there.cut || self.rng.chance(there.loss) {
            return None;
        }
        let (process, served) = {
            let inner = self.lock();
            let endpoint = inner.endpoints.get(&to)?;
            (endpoint.process, endpoint.served.clone()?)
        };
        let (reply, answered) = oneshot::channel();
        let answering = served.answer(question);
        self.host.spawn(process, Box::pin(async move { drop(reply.send(answering.await)) }));
        let answer = tokio::select! {
            biased;
            answer = answered => answer.ok()?,
            () = self.host.sleep(ANSWER_MAX) => return None,
        };
        let back = self.link(to, from);
        self.host.sleep(self.delay(back)).await;
        (!back.cut && !self.rng.chance(back.loss)).then_some(answer)
    }
}
