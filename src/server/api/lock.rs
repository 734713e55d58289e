//! Locks: who has the oldest key under a name holds it.

use tonic::{Request, Response, Status};

use super::{
    Api, Member,
    client::{Client, OnLearner},
    convert, error,
    turns::{self, Wish},
};
use crate::{
    error::Refusal,
    mvcc::DeleteRequest,
    state::{Command, Reply},
    types::{KeyRange, LeaseId},
    wire::v3lockpb::{self as pb, lock_server::Lock},
};

#[tonic::async_trait]
impl<M: Member> Lock for Api<M> {
    async fn lock(&self, request: Request<pb::LockRequest>) -> Result<Response<pb::LockResponse>, Status> {
        let client = Client::admit(&self.member, &request, OnLearner::Refuse)?;
        let pb::LockRequest { name, lease } = request.into_inner();
        let wish = Wish {
            name,
            lease: LeaseId(lease),
            value: bytes::Bytes::new(),
            overwrite: false,
            lost: Refusal::SessionExpired,
        };
        let turn = turns::take_turn(&client, wish).await.map_err(error::without_code)?;
        let header = Some(convert::full(turn.found_first));
        Ok(Response::new(pb::LockResponse { header, key: turn.place.key }))
    }

    async fn unlock(
        &self,
        request: Request<pb::UnlockRequest>,
    ) -> Result<Response<pb::UnlockResponse>, Status> {
        let client = Client::admit(&self.member, &request, OnLearner::Refuse)?;
        let key = request.into_inner().key;
        if key.is_empty() {
            return Err(error::without_code(Refusal::EmptyKey));
        }
        let delete = DeleteRequest { range: KeyRange::single(key), prev_kv: false };
        let answer = client.propose(Command::Delete(delete)).await;
        let (reply, header) = answer.map_err(error::without_code)?;
        let Reply::Delete(done) = reply else { return Err(error::internal(error::OTHER_REPLY)) };
        Ok(Response::new(pb::UnlockResponse { header: convert::at(header, done.revision) }))
    }
}
