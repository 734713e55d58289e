//! The answers as messages. Requests are turned into ours by `wire`.

use super::Member;
use crate::{
    membership,
    mvcc::{
        DeleteResponse, KvBytes, OpResponse, PutResponse, RangeChunk, RangeResponse, RangeTail, TxnResponse,
    },
    server::Header,
    types::Revision,
    wire::{
        RawKeyValue,
        etcdserverpb::{self as pb, ResponseHeader, ResponseOp, response_op::Response},
    },
};

/// The header of a response made now.
pub(super) fn now<M: Member>(member: &M) -> Option<ResponseHeader> {
    Some(full(member.header()))
}

/// A header as it is.
pub(super) fn full(header: Header) -> ResponseHeader {
    ResponseHeader {
        cluster_id: header.cluster.0,
        member_id: header.member.0,
        revision: header.revision.0,
        raft_term: header.term.0,
    }
}

/// A header with the revision that the answer is of.
pub(super) fn at(header: Header, revision: Revision) -> Option<ResponseHeader> {
    Some(full(Header { revision, ..header }))
}

/// A header as the cluster service sends it, which is without a revision.
pub(super) fn without_revision(header: Header) -> Option<ResponseHeader> {
    at(header, Revision(0))
}

/// The header of an operation inside a transaction.
fn inner(revision: Revision) -> Option<ResponseHeader> {
    Some(ResponseHeader { revision: revision.0, ..Default::default() })
}

fn raw(kv: KvBytes) -> RawKeyValue {
    RawKeyValue(kv.0)
}

// Collecting into the same layout reuses the vector's memory.
fn raws(kvs: Vec<KvBytes>) -> Vec<RawKeyValue> {
    kvs.into_iter().map(raw).collect()
}

pub(super) fn range(header: Option<ResponseHeader>, found: RangeResponse) -> pb::RangeResponse {
    pb::RangeResponse { header, kvs: raws(found.kvs), more: found.more, count: found.count }
}

/// A part of a range. What is not a key-value comes with the last.
pub(super) fn range_chunk(header: Header, chunk: RangeChunk) -> pb::RangeResponse {
    let kvs = raws(chunk.kvs);
    match chunk.tail {
        Some(RangeTail { revision, more, count }) => {
            pb::RangeResponse { header: at(header, revision), kvs, more, count }
        }
        None => pb::RangeResponse { kvs, ..Default::default() },
    }
}

pub(super) fn put(header: Option<ResponseHeader>, done: PutResponse) -> pb::PutResponse {
    pb::PutResponse { header, prev_kv: done.prev_kv.map(raw) }
}

pub(super) fn delete(header: Option<ResponseHeader>, done: DeleteResponse) -> pb::DeleteRangeResponse {
    pb::DeleteRangeResponse { header, deleted: done.deleted, prev_kvs: raws(done.prev_kvs) }
}

/// A nested transaction's header is there, but empty.
pub(super) fn txn(header: Option<ResponseHeader>, done: TxnResponse) -> pb::TxnResponse {
    let responses = done
        .responses
        .into_iter()
        .map(|response| {
            let response = match response {
                OpResponse::Range(found) => Response::ResponseRange(range(inner(found.revision), found)),
                OpResponse::Put(done) => Response::ResponsePut(put(inner(done.revision), done)),
                OpResponse::Delete(done) => Response::ResponseDeleteRange(delete(inner(done.revision), done)),
                OpResponse::Txn(done) => Response::ResponseTxn(txn(inner(Revision(0)), done)),
            };
            ResponseOp { response: Some(response) }
        })
        .collect();
    pb::TxnResponse { header, succeeded: done.succeeded, responses }
}

pub(super) fn member(member: membership::Member) -> pb::Member {
    pb::Member {
        id: member.id.0,
        name: member.name,
        peer_ur_ls: member.peer_urls,
        client_ur_ls: member.client_urls,
        is_learner: member.learner,
    }
}

pub(super) fn members(members: Vec<membership::Member>) -> Vec<pb::Member> {
    members.into_iter().map(member).collect()
}
