//! What the store is asked, and what it answers. `wire` turns etcd's messages into these and back.

use bytes::Bytes;

use crate::types::{KeyRange, LeaseId, Revision};

/// The order of a range's result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SortOrder {
    /// As stored, which is by key; by any other target it means [`SortOrder::Ascend`].
    #[default]
    None,
    /// Smallest first.
    Ascend,
    /// Largest first.
    Descend,
}

/// What a range's result is sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum SortTarget {
    #[default]
    Key,
    Version,
    Create,
    Mod,
    Value,
    /// One that etcd does not know, which [`super::check_range`] refuses; where it was not asked, the key.
    Unknown,
}

/// A read of a range of keys. Zero bounds and limits are off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeRequest {
    /// The keys.
    pub range: KeyRange,
    /// At most so many, after filters and sorting.
    pub limit: i64,
    /// At which revision; 0 or less for the newest.
    pub revision: Revision,
    /// Sorted how.
    pub sort_order: SortOrder,
    /// By what.
    pub sort_target: SortTarget,
    /// From this member as it is, without asking the quorum.
    pub serializable: bool,
    /// Without values.
    pub keys_only: bool,
    /// Only how many; filters and limit do not count.
    pub count_only: bool,
    /// Drops keys modified before it.
    pub min_mod_revision: Revision,
    /// Drops keys modified after it.
    pub max_mod_revision: Revision,
    /// Drops keys created before it.
    pub min_create_revision: Revision,
    /// Drops keys created after it.
    pub max_create_revision: Revision,
}

impl RangeRequest {
    /// A read of all of `range` as it is now, by key.
    pub fn of(range: KeyRange) -> Self {
        Self {
            range,
            limit: 0,
            revision: Revision(0),
            sort_order: SortOrder::None,
            sort_target: SortTarget::Key,
            serializable: false,
            keys_only: false,
            count_only: false,
            min_mod_revision: Revision(0),
            max_mod_revision: Revision(0),
            min_create_revision: Revision(0),
            max_create_revision: Revision(0),
        }
    }
}

/// A write of one key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PutRequest {
    /// The key.
    pub key: Bytes,
    /// The value.
    pub value: Bytes,
    /// The lease to attach it to; 0 for none.
    pub lease: LeaseId,
    /// Whether to return what was there.
    pub prev_kv: bool,
    /// Keep the value that is there.
    pub ignore_value: bool,
    /// Keep the lease that is there.
    pub ignore_lease: bool,
}

/// A deletion of a range of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteRequest {
    /// The keys.
    pub range: KeyRange,
    /// Whether to return what was there.
    pub prev_kv: bool,
}

/// How a compare's target relates to its operand. A number that etcd does not know is always true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum CompareResult {
    Equal,
    Greater,
    Less,
    NotEqual,
    Unknown,
}

/// What is compared, and with what. An operand of the wrong kind on the wire is 0 or empty.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum CompareTarget {
    Version(i64),
    Create(Revision),
    Mod(Revision),
    Value(Bytes),
    Lease(LeaseId),
    /// A target that etcd does not know: 0 against 0.
    Unknown,
}

/// A condition on each key of a range; an empty range counts as one missing key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    /// The keys.
    pub range: KeyRange,
    /// What about them.
    pub target: CompareTarget,
    /// In which relation to the operand.
    pub result: CompareResult,
}

/// One operation of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Op {
    Range(RangeRequest),
    Put(PutRequest),
    Delete(DeleteRequest),
    Txn(TxnRequest),
    /// An operation without a request; refused with `key not found`.
    Missing,
}

/// If all compares hold, the success operations; else the failure ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TxnRequest {
    /// The conditions.
    pub compare: Vec<Compare>,
    /// What to do if all hold.
    pub success: Vec<Op>,
    /// What to do otherwise.
    pub failure: Vec<Op>,
}

impl TxnRequest {
    /// Whether both branches hold nothing but ranges, which makes it a read. A nested transaction never is.
    pub fn is_read_only(&self) -> bool {
        self.success.iter().chain(&self.failure).all(|op| matches!(op, Op::Range(_)))
    }
}

/// The stored bytes of a `mvccpb.KeyValue`, which go into a response as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KvBytes(pub Bytes);

/// What a range found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeResponse {
    /// The store's revision when it was read.
    pub revision: Revision,
    /// The key-values, encoded.
    pub kvs: Vec<KvBytes>,
    /// Whether the limit cut it short.
    pub more: bool,
    /// How many keys the range holds, whatever filters and limit say.
    pub count: i64,
}

/// What a put did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PutResponse {
    /// The revision of the write.
    pub revision: Revision,
    /// What was there, if asked for and anything was.
    pub prev_kv: Option<KvBytes>,
}

/// What a deletion did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteResponse {
    /// The revision of the write, or the one before if nothing was deleted.
    pub revision: Revision,
    /// How many keys went.
    pub deleted: i64,
    /// What was there, if asked for, in key order.
    pub prev_kvs: Vec<KvBytes>,
}

/// What one operation of a transaction did. Its revision is the inner header's.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum OpResponse {
    Range(RangeResponse),
    Put(PutResponse),
    Delete(DeleteResponse),
    Txn(TxnResponse),
}

/// What a transaction did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TxnResponse {
    /// The store's revision after it; a nested one's is not sent.
    pub revision: Revision,
    /// Whether all compares held.
    pub succeeded: bool,
    /// What each operation of the branch taken did.
    pub responses: Vec<OpResponse>,
}

/// One change of one key, as watches hear of it. Its revision is `kv`'s mod revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The key, for matching.
    pub key: Bytes,
    /// Whether it was deleted.
    pub deleted: bool,
    /// When: the revision and the place in it.
    pub at: crate::types::SubRevision,
    /// The key-value, encoded as stored; a tombstone has key and mod revision only.
    pub kv: KvBytes,
}
