//! A running member, as the API's handlers use it.

use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{future::try_join_all, stream::BoxStream};
use tokio::sync::{mpsc, oneshot, watch};

use super::{
    api::{self, KvHash, Limits, MembersReply, SnapshotBody, WatchStream},
    applier::ApplyJob,
    handle::{Header, LeaseInfo, Status},
    hub::HubJob,
    keeper::KeepJob,
    sessions,
    shared::Shared,
    stats::During,
};
use crate::{
    auth::{self, Need, Who},
    error::Refusal,
    lease::Book,
    membership::{self, Change, Connectivity},
    mvcc::{self, RangeChunk, RangeRequest, RangeResponse, TxnRequest, TxnResponse},
    node::{Answer, Request},
    runtime::{Clock, Entropy, PeerAnswer, PeerNet, Question, Runtime},
    state::{Command, Machine, Reply},
    storage::Backend,
    types::{LeaseId, NodeId, Revision},
};

/// A running member. Cheap to clone.
pub struct Handle<R: Runtime> {
    pub(super) shared: Arc<Shared<R>>,
}

impl<R: Runtime> Clone for Handle<R> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<R: Runtime> Handle<R> {
    /// Waits until the cluster has a leader and knows where this member serves clients.
    pub async fn ready(&self) {
        let mut leader = self.shared.facts.leader.subscribe();
        // The sender lives as long as the member.
        let _ = leader.wait_for(Option::is_some).await;
        let me = self.shared.me;
        let mut views = self.shared.facts.views();
        let _ =
            views.wait_for(|view| view.roster.member(me).is_some_and(|m| !m.client_urls.is_empty())).await;
    }

    /// Whether the member `id` was removed from the cluster, as far as this member has applied.
    pub fn is_removed(&self, id: NodeId) -> bool {
        self.shared.facts.view().roster.is_removed(id)
    }

    /// Before a stop: a leader hands over to the peer that is connected the longest, so that nobody has to notice.
    pub async fn hand_over(&self) {
        let shared = &self.shared;
        let me = shared.me;
        if *shared.facts.leader.borrow() != Some(me) {
            return;
        }
        let view = shared.facts.view();
        let voters = view.roster.voters().map(|m| m.id).filter(|id| *id != me);
        let heir = voters.filter_map(|id| Some((shared.peers.active_since(id)?, id))).min();
        if let Some((_, heir)) = heir {
            let handed = shared.ask(|waiter| Request::Transfer { to: heir, waiter });
            // One that does not come about is what an election is for.
            tokio::select! { biased; _ = handed => {}, () = api::Member::sleep(self, HAND_OVER_MAX) => {} }
        }
    }

    /// After a stop: leaves what makes the next start quick.
    pub async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.shared.keeper.send(KeepJob::Close(done)).is_ok() {
            // A fault there has been told, and changes nothing any more.
            let _ = closed.await;
        }
    }

    fn unix_seconds(&self) -> u64 {
        self.shared.runtime.clock().unix_millis() / 1000
    }

    /// Reads of the store: a refusal is the client's, a fault stops the member.
    fn checked<T>(&self, result: Result<T, mvcc::Error>) -> Result<T, Refusal> {
        self.shared.exits.check(mvcc::Error::split(result)).ok_or(Refusal::Stopped)?
    }

    /// Runs `look` on the applier, between two runs of entries.
    async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Machine<R::Backend>) -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let (sender, receiver) = oneshot::channel();
        let look = Box::new(move |machine: &Machine<R::Backend>| drop(sender.send(look(machine))));
        self.shared.applier.send(ApplyJob::Look(look)).map_err(|_| Refusal::Stopped)?;
        receiver.await.map_err(|_| Refusal::Stopped)
    }

    /// Asks the leader, wherever it is; a question that meets no leader is asked again until the time is up.
    async fn ask_leader(&self, question: Question) -> Result<PeerAnswer, Refusal> {
        let shared = &self.shared;
        let deadline = shared.runtime.clock().now().after(shared.settings.request_timeout_ms);
        let mut leader = shared.facts.leader.subscribe();
        loop {
            let known = *leader.borrow_and_update();
            let refusal = match known {
                None => Refusal::NoLeader,
                Some(id) if id == shared.me => match self.answer_as_leader(&question).await {
                    Err(Refusal::NotLeader) => Refusal::NoLeader,
                    answer => return answer,
                },
                Some(id) => match shared.peers.ask(id, question.clone()).await {
                    Some(Err(Refusal::NotLeader | Refusal::NoLeader)) | None => Refusal::NoLeader,
                    Some(answer) => return answer,
                },
            };
            let left = deadline.since(shared.runtime.clock().now());
            if left == 0 || refusal == Refusal::NoLeader && leader.borrow().is_none() {
                return Err(refusal);
            }
            let pause = api::Member::sleep(self, Duration::from_millis(left.min(LEADER_RETRY_MS)));
            tokio::select! { biased; _ = leader.changed() => {}, () = pause => {} }
        }
    }

    /// What only a leader can do, for clients of any member.
    pub async fn answer_as_leader(&self, question: &Question) -> Result<PeerAnswer, Refusal> {
        match question {
            Question::RenewLease(id) => {
                let renewed = self.renew_here(vec![*id]).await?;
                Ok(PeerAnswer::Renewed(renewed.into_iter().next().flatten()))
            }
            Question::LeaseInfo(id, keys) => self.lease_info_here(*id, *keys).await.map(PeerAnswer::Lease),
            Question::Promote(id) => self.promote_here(*id).await.map(PeerAnswer::Members),
        }
    }

    /// Renews leases as the leader; the seconds that each has, None for one that is not there.
    pub(super) async fn renew_here(&self, leases: Vec<LeaseId>) -> Result<Vec<Option<i64>>, Refusal> {
        match self.shared.ask(|waiter| Request::RenewLeases { leases, waiter }).await? {
            Answer::Leases(seconds) => {
                self.shared.stats.leases_renewed.add(seconds.iter().flatten().count() as u64);
                Ok(seconds)
            }
            _ => Err(Refusal::Stopped),
        }
    }

    async fn lease_info_here(&self, id: LeaseId, keys: bool) -> Result<Option<LeaseInfo>, Refusal> {
        let left = match self.shared.ask(|waiter| Request::LeaseRemaining { lease: id, waiter }).await? {
            Answer::Lease(left) => left,
            _ => return Err(Refusal::Stopped),
        };
        let Some(ttl) = left else { return Ok(None) };
        let found = self.look(move |machine| {
            let lease = machine.leases().get(id)?;
            let keys = if keys { lease.keys().cloned().collect() } else { Vec::new() };
            Some((lease.ttl, keys))
        });
        Ok(found.await?.map(|(granted, keys)| LeaseInfo { ttl, granted, keys }))
    }

    async fn promote_here(&self, id: NodeId) -> Result<Vec<membership::Member>, Refusal> {
        let Answer::Progress(matched) = self.shared.ask(|waiter| Request::Progress { waiter }).await? else {
            return Err(Refusal::Stopped);
        };
        let roster = &self.shared.facts.view().roster;
        let change = membership::promotion(self.shared.facts.new_request_id(), id);
        roster.check(&change, self.shared.settings.learners_max)?;
        // etcd's rule: a learner is ready at nine tenths of the leader's log.
        let of = |id: NodeId| matched.get(&id).map_or(0, |index| index.0);
        if of(id) * 10 < of(self.shared.me) * 9 {
            return Err(Refusal::LearnerNotReady);
        }
        if self.shared.settings.strict_reconfig_check {
            roster.may_promote()?;
        }
        let members = self.change(change).await?;
        self.shared.stats.promotions.add(1);
        Ok(members)
    }

    async fn change(&self, change: Change) -> Result<Vec<membership::Member>, Refusal> {
        let id = match &change {
            Change::Single { id, .. } => *id,
            Change::Joint { .. } => 0,
        };
        match self.shared.ask(|waiter| Request::Change { id, change, waiter }).await? {
            Answer::Applied(Reply::Members(members)) => Ok(members),
            _ => Err(Refusal::Stopped),
        }
    }

    /// Who is connected, for the checks of `--strict-reconfig-check`.
    fn connectivity(&self) -> Connectivity {
        let shared = &self.shared;
        let now = shared.runtime.clock().now();
        let since = |id: &NodeId| shared.peers.active_since(*id);
        let ids = || shared.facts.view().roster.members().map(|m| m.id).collect::<Vec<_>>();
        Connectivity {
            local: shared.me,
            connected: ids().into_iter().filter(|id| since(id).is_some()).collect(),
            healthy: ids()
                .into_iter()
                .filter(|id| since(id).is_some_and(|then| now.since(then) >= membership::HEALTHY_AFTER_MS))
                .collect(),
        }
    }
}

/// How long a stop waits for leadership to move.
const HAND_OVER_MAX: Duration = Duration::from_secs(1);

/// How soon a question is asked again when its leader did not answer.
const LEADER_RETRY_MS: u64 = 100;

impl<R: Runtime> api::Member for Handle<R> {
    fn header(&self) -> Header {
        self.shared.header()
    }

    fn limits(&self) -> &Limits {
        &self.shared.settings.limits
    }

    fn status(&self) -> Status {
        let shared = &self.shared;
        let view = shared.facts.view();
        let size = self.db_size();
        let used = shared.exits.check(shared.backend.size_in_use()).unwrap_or(0);
        Status {
            leader: *shared.facts.leader.borrow(),
            term: shared.facts.term(),
            last_index: shared.facts.last_index(),
            committed: shared.facts.committed(),
            applied: shared.facts.applied(),
            learner: shared.is_learner(),
            db_size: size,
            db_size_in_use: used,
            alarms: view.alarms.clone(),
            cluster_version: view.roster.version().map(str::to_owned),
        }
    }

    fn db_size(&self) -> u64 {
        self.shared.exits.check(self.shared.backend.size()).unwrap_or(0)
    }

    fn is_learner(&self) -> bool {
        self.shared.is_learner()
    }

    fn leader(&self) -> &watch::Receiver<Option<NodeId>> {
        &self.shared.facts.leader_seen
    }

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send + 'static {
        let clock = self.shared.runtime.clock();
        async move { clock.sleep(duration).await }
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.shared.runtime.spawn(task);
    }

    fn new_lease_id(&self) -> LeaseId {
        // Positive, and never 0.
        LeaseId((self.shared.runtime.entropy().next_u64() >> 1).max(1) as i64)
    }

    fn downgrade_target(&self) -> Option<String> {
        None
    }

    async fn read_barrier(&self) -> Result<(), Refusal> {
        let answer = self.shared.ask(|waiter| Request::Read { waiter }).await;
        match answer {
            Ok(_) => {}
            Err(Refusal::Timeout) => self.shared.stats.slow_reads.add(1),
            Err(_) => self.shared.stats.failed_reads.add(1),
        }
        answer.map(drop)
    }

    async fn range(
        &self,
        request: &RangeRequest,
        charge: &mut api::Charge,
    ) -> Result<RangeResponse, Refusal> {
        self.shared.stats.ranges.add(1);
        self.checked(self.shared.store.range_within(request, &mut |bytes| charge.grow(bytes)))
    }

    async fn range_chunks(
        &self,
        request: RangeRequest,
    ) -> Result<BoxStream<'static, Result<RangeChunk, Refusal>>, Refusal> {
        self.shared.stats.ranges.add(1);
        let mut cursor = self.checked(self.shared.store.range_cursor(&request))?;
        let handle = self.clone();
        let chunks = async_stream::stream! {
            while let Some(chunk) = handle.checked(cursor.next_chunk()).transpose() {
                yield chunk;
            }
        };
        Ok(Box::pin(chunks))
    }

    async fn open_watch(&self) -> Result<WatchStream, Refusal> {
        let (reply, opened) = oneshot::channel();
        let (frames, received) = mpsc::unbounded_channel();
        self.shared.hub.send(HubJob::Open(reply, frames)).map_err(|_| Refusal::Stopped)?;
        let stream = opened.await.map_err(|_| Refusal::Stopped)?;
        let hub = self.shared.hub.clone();
        // A hub that is gone drops the frames' other end too, which ends the stream.
        Ok(WatchStream::new(stream, move |input| drop(hub.send(HubJob::Input(input))), received))
    }

    async fn read_txn(&self, request: &TxnRequest) -> Result<TxnResponse, Refusal> {
        let done = self.checked(self.shared.store.txn_readonly(request))?;
        self.shared.stats.note_txn(&done);
        Ok(done)
    }

    async fn propose(&self, who: Who, command: Command) -> Result<(Reply, Header), Refusal> {
        let (id, payload) = self.shared.encode(who, command);
        if payload.len() > self.shared.settings.limits.request_bytes_max {
            return Err(Refusal::RequestTooLarge);
        }
        let stats = &self.shared.stats;
        let _pending = During::of(&stats.proposals_pending);
        let answer = self.shared.ask(|waiter| Request::Propose { id, payload, waiter }).await;
        // What was applied and refused there did not fail.
        if let Err(Refusal::Timeout | Refusal::DeadlineExceeded | Refusal::Stopped) = answer {
            stats.proposals_failed.add(1);
        }
        match answer? {
            Answer::Applied(reply) => Ok((reply, self.shared.header())),
            _ => Err(Refusal::Stopped),
        }
    }

    fn auth_revision(&self) -> Option<u64> {
        self.shared.sessions.revision()
    }

    async fn users(&self) -> Arc<auth::Store> {
        self.shared.sessions.settled().await
    }

    async fn who(&self, token: &str) -> Result<Who, Refusal> {
        let shared = &self.shared;
        if let Some(signer) = shared.sessions.signer() {
            let signed = signer.verify(token, self.unix_seconds());
            let (user, revision) = signed.ok_or(Refusal::InvalidAuthToken)?;
            return Ok(Who { user, revision });
        }
        let given = auth::index_of(token).ok_or(Refusal::InvalidAuthToken)?;
        // Given by an entry that this member is yet to apply: it was committed before the client had the token.
        if given > shared.facts.applied() {
            self.read_barrier().await?;
        }
        // In this order: whoever the token stands for now, it did so at that revision.
        let revision = self.users().await.revision();
        let user = shared.sessions.user_of(token, shared.runtime.clock().now());
        Ok(Who { user: user.ok_or(Refusal::InvalidAuthToken)?, revision })
    }

    async fn permits(&self, who: &Who, needs: &[Need]) -> Result<(), Refusal> {
        if needs.iter().any(Need::asks_leases) {
            let (who, needs) = (who.clone(), needs.to_vec());
            return self.look(move |machine| machine.auth().permits(&who, &needs, machine.leases())).await?;
        }
        self.users().await.permits(who, needs, &Book::default())
    }

    async fn hash_password(&self, password: String) -> Result<String, Refusal> {
        self.shared.sessions.hash(password, &self.shared.runtime.entropy()).await
    }

    async fn compare_password(&self, password: String, hash: Bytes) -> Result<bool, Refusal> {
        self.shared.sessions.matches(password, hash).await
    }

    fn token(&self, simple: String, user: &str, revision: u64) -> Result<String, Refusal> {
        match self.shared.sessions.signer() {
            None => Ok(simple),
            Some(signer) => signer.sign(user, revision, self.unix_seconds()).ok_or(Refusal::VerifyOnly),
        }
    }

    fn new_nonce(&self) -> String {
        if self.shared.sessions.signer().is_some() {
            return String::new();
        }
        sessions::new_nonce(&self.shared.runtime.entropy())
    }

    async fn compaction_finished(&self, revision: Revision) -> Result<(), Refusal> {
        let mut compacted = self.shared.facts.compacted.subscribe();
        compacted.wait_for(|done| *done >= revision).await.map(drop).map_err(|_| Refusal::Stopped)
    }

    async fn lease_renew(&self, ids: &[LeaseId]) -> Result<Vec<i64>, Refusal> {
        if *self.shared.facts.leader.borrow() == Some(self.shared.me) {
            match self.renew_here(ids.to_vec()).await {
                Err(Refusal::NotLeader) => {}
                renewed => return Ok(renewed?.into_iter().map(|ttl| ttl.unwrap_or(0)).collect()),
            }
        }
        let asked = ids.iter().map(|&id| self.ask_leader(Question::RenewLease(id)));
        let answers = try_join_all(asked).await?;
        let seconds = answers.into_iter().map(|answer| match answer {
            PeerAnswer::Renewed(ttl) => Ok(ttl.unwrap_or(0)),
            PeerAnswer::Lease(_) | PeerAnswer::Members(_) => Err(Refusal::Stopped),
        });
        seconds.collect()
    }

    async fn lease_info(&self, id: LeaseId, keys: bool) -> Result<Option<LeaseInfo>, Refusal> {
        match self.ask_leader(Question::LeaseInfo(id, keys)).await? {
            PeerAnswer::Lease(info) => Ok(info),
            PeerAnswer::Renewed(_) | PeerAnswer::Members(_) => Err(Refusal::Stopped),
        }
    }

    async fn lease_list(&self) -> Result<Vec<LeaseId>, Refusal> {
        let order = match self.shared.ask(|waiter| Request::LeaseOrder { waiter }).await {
            Ok(Answer::LeaseOrder(order)) => order,
            Err(Refusal::NotLeader) => Vec::new(),
            Err(refusal) => return Err(refusal),
            Ok(_) => return Err(Refusal::Stopped),
        };
        let places: BTreeMap<_, _> = order.into_iter().zip(0..).collect();
        let leases =
            self.look(|machine| machine.leases().iter().map(|(id, lease)| (id, lease.left())).collect());
        let mut leases: Vec<(LeaseId, i64)> = leases.await?;
        // What was granted since has no place yet; a follower goes by what the leader said last.
        leases.sort_by_key(|(id, left)| (places.get(id).copied().unwrap_or(usize::MAX), *left, *id));
        Ok(leases.into_iter().map(|(id, _)| id).collect())
    }

    fn members(&self) -> Vec<membership::Member> {
        self.shared.facts.view().roster.members().cloned().collect()
    }

    async fn member_add(&self, peer_urls: Vec<String>, learner: bool) -> MembersReply {
        let seconds = self.shared.runtime.clock().unix_millis() / 1000;
        let member = membership::Member::added(&peer_urls, seconds, learner)?;
        if self.shared.settings.strict_reconfig_check {
            self.shared.facts.view().roster.may_add(learner, &self.connectivity())?;
        }
        let members = self.change(member.to_add(self.shared.facts.new_request_id())).await?;
        Ok((Some(member), members))
    }

    async fn member_remove(&self, id: NodeId) -> MembersReply {
        let roster = &self.shared.facts.view().roster;
        let change = membership::removal(self.shared.facts.new_request_id(), id);
        if self.shared.settings.strict_reconfig_check {
            roster.may_remove(id, &self.connectivity())?;
        }
        Ok((None, self.change(change).await?))
    }

    async fn member_update(&self, id: NodeId, peer_urls: Vec<String>) -> MembersReply {
        let change = membership::update(self.shared.facts.new_request_id(), id, &peer_urls);
        Ok((None, self.change(change).await?))
    }

    async fn member_promote(&self, id: NodeId) -> MembersReply {
        match self.ask_leader(Question::Promote(id)).await? {
            PeerAnswer::Members(members) => Ok((None, members)),
            PeerAnswer::Renewed(_) | PeerAnswer::Lease(_) => Err(Refusal::Stopped),
        }
    }

    async fn move_leader(&self, to: NodeId) -> Result<(), Refusal> {
        self.shared.ask(|waiter| Request::Transfer { to, waiter }).await.map(drop)
    }

    async fn defragment(&self) -> Result<(), Refusal> {
        let shared = &self.shared;
        let _under_way = During::of(&shared.stats.defrags);
        let done = shared.stats.defrag_time.time(&shared.runtime.clock(), || shared.backend.defragment());
        shared.exits.check(done).ok_or(Refusal::Stopped)
    }

    async fn hash(&self) -> Result<u32, Refusal> {
        self.shared.keep(KeepJob::Hash).await
    }

    async fn hash_kv(&self, revision: Revision) -> Result<KvHash, Refusal> {
        let shared = &self.shared;
        let hashed =
            shared.stats.hash_kv_time.time(&shared.runtime.clock(), || shared.store.hash_kv(revision));
        let mvcc::Hash { hash, compacted, revision, .. } = self.checked(hashed)?;
        Ok(KvHash { hash, revision, compacted })
    }

    async fn snapshot(&self) -> Result<SnapshotBody, Refusal> {
        let backup = self.shared.keep(KeepJob::Backup).await?;
        let (sender, pieces) = mpsc::channel(BACKUP_PIECES_MAX);
        let bytes = backup.bytes;
        let shared = self.shared.clone();
        self.shared.runtime.spawn(async move {
            // An error ends the pieces early, which the receiver takes for what it is.
            let mut offset = 0;
            while let Ok(piece) = backup.read(offset) {
                offset += piece.len() as u64;
                if piece.is_empty() || sender.send(piece).await.is_err() {
                    break;
                }
            }
            let _ = shared.keeper.send(KeepJob::Remove(backup.path));
        });
        Ok(SnapshotBody { bytes, pieces })
    }
}

/// How many pieces of a backup are read ahead of the client.
const BACKUP_PIECES_MAX: usize = 4;
