//! Keys and values.

use futures_util::stream::{self, BoxStream, StreamExt};
use tonic::{Request, Response, Status};

use super::{
    Api, Member,
    admit::{OnLearner, admit},
    check, convert, error, quota, requests,
};
use crate::{
    error::Refusal,
    mvcc,
    state::{Command, Reply},
    types::Revision,
    wire::etcdserverpb::{self as pb, kv_server::Kv, request_op},
};

impl<M: Member> Api<M> {
    /// Admits, checks and reads a range, through the quorum unless it says otherwise.
    async fn read(&self, request: Request<pb::RangeRequest>) -> Result<mvcc::RangeResponse, Refusal> {
        let serializable = request.get_ref().serializable;
        let learner = if serializable { OnLearner::Serve } else { OnLearner::Refuse };
        admit(&self.member, request.metadata(), learner)?;
        check::range(request.get_ref())?;
        if !serializable {
            self.member.read_barrier().await?;
        }
        self.member.range(&requests::range(request.into_inner())).await
    }
}

#[tonic::async_trait]
impl<M: Member> Kv for Api<M> {
    async fn range(&self, request: Request<pb::RangeRequest>) -> Result<Response<pb::RangeResponse>, Status> {
        let found = self.read(request).await?;
        let header = convert::at(self.member.header(), found.revision);
        Ok(Response::new(convert::range(header, found)))
    }

    async fn put(&self, request: Request<pb::PutRequest>) -> Result<Response<pb::PutResponse>, Status> {
        admit(&self.member, request.metadata(), OnLearner::Refuse)?;
        let request = request.into_inner();
        quota::check(&self.member, quota::put(&request)).await?;
        check::put(&request)?;
        let (reply, header) = self.member.propose(Command::Put(requests::put(request))).await?;
        let Reply::Put(done) = reply else { return Err(error::internal(error::OTHER_REPLY)) };
        Ok(Response::new(convert::put(convert::at(header, done.revision), done)))
    }

    async fn delete_range(
        &self,
        request: Request<pb::DeleteRangeRequest>,
    ) -> Result<Response<pb::DeleteRangeResponse>, Status> {
        admit(&self.member, request.metadata(), OnLearner::Refuse)?;
        let request = request.into_inner();
        check::delete(&request)?;
        let (reply, header) = self.member.propose(Command::Delete(requests::delete(request))).await?;
        let Reply::Delete(done) = reply else { return Err(error::internal(error::OTHER_REPLY)) };
        Ok(Response::new(convert::delete(convert::at(header, done.revision), done)))
    }

    async fn txn(&self, request: Request<pb::TxnRequest>) -> Result<Response<pb::TxnResponse>, Status> {
        admit(&self.member, request.metadata(), OnLearner::Refuse)?;
        let request = request.into_inner();
        // A transaction that puts nothing passes whatever the quota, as since etcd 3.5.7.
        if let Some(cost) = quota::txn(&request) {
            quota::check(&self.member, cost).await?;
        }
        check::txn(&request, self.member.limits().txn_ops_max)?;
        let kind = kind(&request);
        let request = requests::txn(request);
        let (done, header) = match kind {
            Kind::Write => {
                let (reply, header) = self.member.propose(Command::Txn(request)).await?;
                let Reply::Txn(done) = reply else { return Err(error::internal(error::OTHER_REPLY)) };
                (done, header)
            }
            Kind::Read => {
                self.member.read_barrier().await?;
                (self.member.read_txn(&request).await?, self.member.header())
            }
            Kind::SerializableRead => (self.member.read_txn(&request).await?, self.member.header()),
        };
        Ok(Response::new(convert::txn(convert::at(header, done.revision), done)))
    }

    async fn compact(
        &self,
        request: Request<pb::CompactionRequest>,
    ) -> Result<Response<pb::CompactionResponse>, Status> {
        admit(&self.member, request.metadata(), OnLearner::Refuse)?;
        let pb::CompactionRequest { revision, physical } = request.into_inner();
        let revision = Revision(revision);
        let (reply, header) = self.member.propose(Command::Compact { revision }).await?;
        let Reply::Compact = reply else { return Err(error::internal(error::OTHER_REPLY)) };
        if physical {
            self.member.compaction_finished(revision).await?;
        }
        Ok(Response::new(pb::CompactionResponse { header: Some(convert::full(header)) }))
    }

    type RangeStreamStream = BoxStream<'static, Result<pb::RangeStreamResponse, Status>>;

    async fn range_stream(
        &self,
        request: Request<pb::RangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        let found = self.read(request).await?;
        let header = convert::at(self.member.header(), found.revision);
        let found = convert::range(header, found);
        let chunks = Chunks { rest: Some(found), bytes_max: self.member.limits().range_chunk_bytes_max };
        Ok(Response::new(stream::iter(chunks.map(Ok)).boxed()))
    }
}

/// How a transaction is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Through the log.
    Write,
    /// Here, when what is applied is fresh.
    Read,
    /// Here, as it is.
    SerializableRead,
}

/// Both branches count, whichever is taken. A nested transaction makes it a write, whatever is in it.
fn kind(request: &pb::TxnRequest) -> Kind {
    let mut kind = Kind::SerializableRead;
    for op in request.success.iter().chain(&request.failure) {
        match &op.request {
            Some(request_op::Request::RequestRange(range)) if range.serializable => {}
            Some(request_op::Request::RequestRange(_)) => kind = Kind::Read,
            Some(request_op::Request::RequestPut(_))
            | Some(request_op::Request::RequestDeleteRange(_))
            | Some(request_op::Request::RequestTxn(_))
            | None => return Kind::Write,
        }
    }
    kind
}

/// Cuts a range's answer into parts whose sum it is. What is not a key-value is in the last.
struct Chunks {
    rest: Option<pb::RangeResponse>,
    bytes_max: usize,
}

impl Iterator for Chunks {
    type Item = pb::RangeStreamResponse;

    fn next(&mut self) -> Option<Self::Item> {
        let mut rest = self.rest.take()?;
        let mut bytes = 0;
        let whole = rest.kvs.iter().position(|kv| {
            bytes += kv.0.len();
            bytes > self.bytes_max
        });
        // A key-value that is larger than a chunk still makes one.
        let split = whole.map_or(rest.kvs.len(), |at| at.max(1));
        if split == rest.kvs.len() {
            return Some(pb::RangeStreamResponse { range_response: Some(rest) });
        }
        let later = rest.kvs.split_off(split);
        let chunk = pb::RangeResponse { kvs: std::mem::replace(&mut rest.kvs, later), ..Default::default() };
        self.rest = Some(rest);
        Some(pb::RangeStreamResponse { range_response: Some(chunk) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::RawKeyValue;

    fn op(request: request_op::Request) -> pb::RequestOp {
        pb::RequestOp { request: Some(request) }
    }

    fn read(serializable: bool) -> pb::RequestOp {
        op(request_op::Request::RequestRange(pb::RangeRequest { serializable, ..Default::default() }))
    }

    #[test]
    fn a_transaction_reads_only_if_all_of_it_does() {
        let of = |success, failure| kind(&pb::TxnRequest { compare: vec![], success, failure });
        assert_eq!(of(vec![], vec![]), Kind::SerializableRead);
        assert_eq!(of(vec![read(true)], vec![read(true)]), Kind::SerializableRead);
        assert_eq!(of(vec![read(true)], vec![read(false)]), Kind::Read);
        let put = || op(request_op::Request::RequestPut(pb::PutRequest::default()));
        assert_eq!(of(vec![read(true)], vec![put()]), Kind::Write);
        let nested = op(request_op::Request::RequestTxn(pb::TxnRequest::default()));
        assert_eq!(of(vec![nested], vec![]), Kind::Write);
    }

    #[test]
    fn chunks_add_up_and_end_with_the_rest() {
        let kv = |n: usize| RawKeyValue(vec![7; n].into());
        let sizes = [3, 3, 3, 20, 1];
        let whole = pb::RangeResponse {
            header: Some(pb::ResponseHeader::default()),
            kvs: sizes.map(kv).to_vec(),
            more: true,
            count: 9,
        };
        let chunks: Vec<_> = Chunks { rest: Some(whole), bytes_max: 7 }
            .map(|chunk| chunk.range_response.expect("each chunk has a response"))
            .collect();
        let lens: Vec<Vec<usize>> =
            chunks.iter().map(|c| c.kvs.iter().map(|kv| kv.0.len()).collect()).collect();
        assert_eq!(lens, [vec![3, 3], vec![3], vec![20], vec![1]]);
        let rest: Vec<_> = chunks.iter().map(|c| (c.header.is_some(), c.more, c.count)).collect();
        assert_eq!(rest, [(false, false, 0), (false, false, 0), (false, false, 0), (true, true, 9)]);
    }

    #[test]
    fn an_empty_range_is_one_chunk() {
        let chunks = Chunks { rest: Some(pb::RangeResponse::default()), bytes_max: 7 };
        assert_eq!(chunks.count(), 1);
    }
}
