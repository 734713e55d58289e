//! What the handlers ask of a running member.

use std::{future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::stream::BoxStream;
use tokio::sync::{mpsc, watch};

use super::WatchStream;
use crate::{
    auth::{Need, Store, Who},
    error::Refusal,
    membership,
    mvcc::{RangeChunk, RangeRequest, RangeResponse, TxnRequest, TxnResponse},
    server::{Header, LeaseInfo, Status},
    state::{Command, Reply},
    types::{LeaseId, NodeId, Revision},
};

/// Limits of the API. The sizes are bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest proposal, encoded; [`Member::propose`] refuses a larger one with `request is too large`.
    pub request_bytes_max: usize,
    /// The most operations of one level of a transaction.
    pub txn_ops_max: usize,
    /// How far the store may grow before writes are refused; `u64::MAX` for no limit.
    pub quota_bytes_max: u64,
    /// Seconds that every lease gets at least.
    pub lease_ttl_min: i64,
    /// How many keep-alives of one stream are renewed together.
    pub keep_alive_batch_max: usize,
    /// How many bytes the answers to ranges may take together until they are sent.
    pub range_bytes_max: usize,
    /// After how long without a leader a stream that asked for one is cut.
    pub leaderless_max: Duration,
}

impl Limits {
    /// What gRPC takes on top of [`Limits::request_bytes_max`].
    pub const GRPC_OVERHEAD_BYTES: usize = 512 * 1024;

    /// The largest message that is taken from a client, and the size from which watch responses are split.
    pub const fn message_bytes_max(&self) -> usize {
        self.request_bytes_max.saturating_add(Self::GRPC_OVERHEAD_BYTES)
    }
}

impl Default for Limits {
    /// etcd's, at its default election timeout of 1 s.
    fn default() -> Self {
        Self {
            request_bytes_max: 1_572_864,
            txn_ops_max: 128,
            quota_bytes_max: 2 * 1024 * 1024 * 1024,
            lease_ttl_min: 2,
            keep_alive_batch_max: 1_000,
            range_bytes_max: 512 << 20,
            leaderless_max: Duration::from_secs(3),
        }
    }
}

/// The hash of the key-values up to a revision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KvHash {
    /// CRC-32C as etcd computes it.
    pub hash: u32,
    /// Up to which revision.
    pub revision: Revision,
    /// The revision compacted to; -1 if the store never was.
    pub compacted: Revision,
}

/// A backup on its way out: etcd's database file, without the hash behind it.
#[derive(Debug)]
pub struct SnapshotBody {
    /// How many bytes it has.
    pub bytes: u64,
    /// The bytes, in pieces of any size. An end before [`SnapshotBody::bytes`] is a failure of the member.
    pub pieces: mpsc::Receiver<Bytes>,
}

/// What a change of the members answers: the member it added, if it did, and all members by id.
pub type MembersReply = Result<(Option<membership::Member>, Vec<membership::Member>), Refusal>;

/// A running member, as the API sees it. Cheap to clone.
///
/// Facts are answered at once from what the member last knew. What waits returns a future, and dropping
/// that future never undoes a proposal. Waits end with etcd's refusals when the request timeout is over.
pub trait Member: Clone + Send + Sync + 'static {
    /// The header of a response made now.
    fn header(&self) -> Header;

    /// The limits.
    fn limits(&self) -> &Limits;

    /// How it does.
    fn status(&self) -> Status;

    /// Bytes that the store takes; asked before each write.
    fn db_size(&self) -> u64;

    /// Whether it is a learner, which serves little.
    fn is_learner(&self) -> bool;

    /// The leader that it knows of, as it changes.
    fn leader(&self) -> &watch::Receiver<Option<NodeId>>;

    /// Waits, on the member's clock.
    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send + 'static;

    /// Starts a task that goes on after its caller is gone.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static);

    /// A fresh positive lease id.
    fn new_lease_id(&self) -> LeaseId;

    /// The version that a downgrade under way goes to.
    fn downgrade_target(&self) -> Option<String>;

    /// Returns once what is applied here is at least what was committed in the cluster at the call.
    fn read_barrier(&self) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// Reads a range as it is applied here. What it reads is charged as it comes.
    fn range(
        &self,
        request: &RangeRequest,
        charge: &mut super::Charge,
    ) -> impl Future<Output = Result<RangeResponse, Refusal>> + Send;

    /// Reads a range as it is applied here, part by part, all of one moment.
    fn range_chunks(
        &self,
        request: RangeRequest,
    ) -> impl Future<Output = Result<BoxStream<'static, Result<RangeChunk, Refusal>>, Refusal>> + Send;

    /// Runs a transaction of nothing but reads on what is applied here.
    fn read_txn(&self, request: &TxnRequest) -> impl Future<Output = Result<TxnResponse, Refusal>> + Send;

    /// Takes a command of `who` through the log and waits until it is applied here. The header is of that moment.
    /// Refuses what is larger than [`Limits::request_bytes_max`] when encoded.
    fn propose(
        &self,
        who: Who,
        command: Command,
    ) -> impl Future<Output = Result<(Reply, Header), Refusal>> + Send;

    /// The authorization revision as applied here, which changes with what is permitted; None while authorization
    /// is off. Asked for each request.
    fn auth_revision(&self) -> Option<u64>;

    /// The users and roles as applied here.
    fn users(&self) -> impl Future<Output = Arc<Store>> + Send;

    /// Who a token stands for, at the revision of now. Its life begins anew.
    fn who(&self, token: &str) -> impl Future<Output = Result<Who, Refusal>> + Send;

    /// Refuses, unless `who` may do all of `needs` by what is applied here.
    fn permits(&self, who: &Who, needs: &[Need]) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// The hash of a password, with a new salt.
    fn hash_password(&self, password: String) -> impl Future<Output = Result<String, Refusal>> + Send;

    /// Whether a password is the one that was hashed.
    fn compare_password(
        &self,
        password: String,
        hash: Bytes,
    ) -> impl Future<Output = Result<bool, Refusal>> + Send;

    /// The random letters that a new simple token begins with; none if tokens are signed.
    fn new_nonce(&self) -> String;

    /// The token of a user whose password was right at a revision: `simple`, unless tokens are signed.
    fn token(&self, simple: String, user: &str, revision: u64) -> Result<String, Refusal>;

    /// Returns when what a compaction to `revision` drops has been removed.
    fn compaction_finished(&self, revision: Revision) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// Opens a stream of the watch hub.
    fn open_watch(&self) -> impl Future<Output = Result<WatchStream, Refusal>> + Send;

    /// Renews leases, on the leader, wherever it is: the TTL granted for each, or 0 if it is not there.
    fn lease_renew(&self, ids: &[LeaseId]) -> impl Future<Output = Result<Vec<i64>, Refusal>> + Send;

    /// A lease as the leader knows it, with its keys if asked for; None if it is not there.
    fn lease_info(
        &self,
        id: LeaseId,
        keys: bool,
    ) -> impl Future<Output = Result<Option<LeaseInfo>, Refusal>> + Send;

    /// All leases that are applied here, the soonest to expire first.
    fn lease_list(&self) -> impl Future<Output = Result<Vec<LeaseId>, Refusal>> + Send;

    /// The members as applied here, by id.
    fn members(&self) -> Vec<membership::Member>;

    /// Adds a member. The URLs are valid and sorted.
    fn member_add(&self, peer_urls: Vec<String>, learner: bool) -> impl Future<Output = MembersReply> + Send;

    /// Removes a member.
    fn member_remove(&self, id: NodeId) -> impl Future<Output = MembersReply> + Send;

    /// Replaces a member's peer URLs, which etcd does not check.
    fn member_update(&self, id: NodeId, peer_urls: Vec<String>) -> impl Future<Output = MembersReply> + Send;

    /// Makes a learner a voter.
    fn member_promote(&self, id: NodeId) -> impl Future<Output = MembersReply> + Send;

    /// Hands leadership over; only the leader does.
    fn move_leader(&self, to: NodeId) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// Starts to give unused space back.
    fn defragment(&self) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// The hash of all tables.
    fn hash(&self) -> impl Future<Output = Result<u32, Refusal>> + Send;

    /// The hash of the key-values up to `revision`; 0 for the newest.
    fn hash_kv(&self, revision: Revision) -> impl Future<Output = Result<KvHash, Refusal>> + Send;

    /// A backup of what is applied here.
    fn snapshot(&self) -> impl Future<Output = Result<SnapshotBody, Refusal>> + Send;
}
