//! Keys and values.

use futures_util::stream::{BoxStream, StreamExt};
use tonic::{Request, Response, Status};

use super::{
    Api, Member,
    client::{Client, OnLearner},
    convert, error, quota,
};
use crate::{
    auth::Need,
    error::Refusal,
    mvcc,
    state::{Command, Reply},
    types::Revision,
    wire::{
        etcdserverpb::{self as pb, kv_server::Kv, request_op},
        kv as requests,
    },
};

impl<M: Member> Api<M> {
    /// Admits and checks a range, and makes sure that what is applied here may answer it.
    async fn ready(
        &self,
        request: Request<pb::RangeRequest>,
    ) -> Result<(Client<'_, M>, mvcc::RangeRequest), Refusal> {
        let serializable = request.get_ref().serializable;
        let learner = if serializable { OnLearner::Serve } else { OnLearner::Refuse };
        let client = Client::admit(&self.member, &request, learner)?;
        let request = requests::range(request.into_inner());
        mvcc::check_range(&request)?;
        if !serializable {
            self.member.read_barrier().await?;
        }
        Ok((client, request))
    }
}

#[tonic::async_trait]
impl<M: Member> Kv for Api<M> {
    async fn range(&self, request: Request<pb::RangeRequest>) -> Result<Response<pb::RangeResponse>, Status> {
        let (client, request) = self.ready(request).await?;
        let mut charge = self.budget.open();
        let read = self.member.range(&request, &mut charge);
        let found = client.read(|| Need::of_range(&request), read).await?;
        let header = convert::at(self.member.header(), found.revision);
        Ok(charge.attach(convert::range(header, found)))
    }

    async fn put(&self, request: Request<pb::PutRequest>) -> Result<Response<pb::PutResponse>, Status> {
        let client = Client::admit(&self.member, &request, OnLearner::Refuse)?;
        let request = request.into_inner();
        quota::check(&self.member, quota::put(&request)).await?;
        let request = requests::put(request);
        mvcc::check_put(&request)?;
        let (reply, header) = client.propose(Command::Put(request)).await?;
        let Reply::Put(done) = reply else { return Err(error::internal(error::OTHER_REPLY)) };
        Ok(Response::new(convert::put(convert::at(header, done.revision), done)))
    }

    async fn delete_range(
        &self,
        request: Request<pb::DeleteRangeRequest>,
    ) -> Result<Response<pb::DeleteRangeResponse>, Status> {
        let client = Client::admit(&self.member, &request, OnLearner::Refuse)?;
        let request = requests::delete(request.into_inner());
        mvcc::check_delete(&request)?;
        let (reply, header) = client.propose(Command::Delete(request)).await?;
        let Reply::Delete(done) = reply else { return Err(error::internal(error::OTHER_REPLY)) };
        Ok(Response::new(convert::delete(convert::at(header, done.revision), done)))
    }

    async fn txn(&self, request: Request<pb::TxnRequest>) -> Result<Response<pb::TxnResponse>, Status> {
        let client = Client::admit(&self.member, &request, OnLearner::Refuse)?;
        let request = request.into_inner();
        // A transaction that puts nothing passes whatever the quota, as since etcd 3.5.7.
        if let Some(cost) = quota::txn(&request) {
            quota::check(&self.member, cost).await?;
        }
        let kind = kind(&request);
        let request = requests::txn(request);
        mvcc::check_txn(&request, self.member.limits().txn_ops_max)?;
        let needs = || Need::of_txn(&request);
        let (done, header) = match kind {
            Kind::Write => {
                let (reply, header) = client.propose(Command::Txn(request)).await?;
                let Reply::Txn(done) = reply else { return Err(error::internal(error::OTHER_REPLY)) };
                (done, header)
            }
            Kind::Read => {
                self.member.read_barrier().await?;
                (client.read(needs, self.member.read_txn(&request)).await?, self.member.header())
            }
            Kind::SerializableRead => {
                (client.read(needs, self.member.read_txn(&request)).await?, self.member.header())
            }
        };
        Ok(Response::new(convert::txn(convert::at(header, done.revision), done)))
    }

    async fn compact(
        &self,
        request: Request<pb::CompactionRequest>,
    ) -> Result<Response<pb::CompactionResponse>, Status> {
        let client = Client::admit(&self.member, &request, OnLearner::Refuse)?;
        client.need(&[Need::Root]).await?;
        let pb::CompactionRequest { revision, physical } = request.into_inner();
        let revision = Revision(revision);
        let (reply, header) = client.propose(Command::Compact { revision }).await?;
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
        let (client, request) = self.ready(request).await?;
        // The chunks are all of the moment at which they are asked for.
        let chunks =
            client.read(|| Need::of_range(&request), self.member.range_chunks(request.clone())).await?;
        let member = self.member.clone();
        let messages = chunks.map(move |chunk| {
            let range_response = Some(convert::range_chunk(member.header(), chunk?));
            Ok(pb::RangeStreamResponse { range_response })
        });
        Ok(Response::new(messages.boxed()))
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
