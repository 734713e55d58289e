//! The members.

use tonic::{Request, Response, Status};

use super::{
    Api, Member,
    client::{Client, OnLearner},
    convert, error, urls,
};
use crate::{
    auth::Need,
    error::Refusal,
    types::NodeId,
    wire::etcdserverpb::{self as pb, ResponseHeader, cluster_server::Cluster},
};

impl<M: Member> Api<M> {
    fn cluster_header(&self) -> Option<ResponseHeader> {
        convert::without_revision(self.member.header())
    }
}

#[tonic::async_trait]
impl<M: Member> Cluster for Api<M> {
    async fn member_add(
        &self,
        request: Request<pb::MemberAddRequest>,
    ) -> Result<Response<pb::MemberAddResponse>, Status> {
        let client = Client::admit(&self.member, &request, OnLearner::Refuse)?;
        client.need(&[Need::Root]).await?;
        let request = request.into_inner();
        let urls = urls::parse(&request.peer_ur_ls).ok_or(Refusal::BadMemberUrls)?;
        let (added, members) = self.member.member_add(urls, request.is_learner).await?;
        let Some(added) = added else { return Err(error::internal("the member added is not named")) };
        Ok(Response::new(pb::MemberAddResponse {
            header: self.cluster_header(),
            member: Some(convert::member(added)),
            members: convert::members(members),
        }))
    }

    async fn member_remove(
        &self,
        request: Request<pb::MemberRemoveRequest>,
    ) -> Result<Response<pb::MemberRemoveResponse>, Status> {
        let client = Client::admit(&self.member, &request, OnLearner::Refuse)?;
        client.need(&[Need::Root]).await?;
        let (_, members) = self.member.member_remove(NodeId(request.get_ref().id)).await?;
        let members = convert::members(members);
        Ok(Response::new(pb::MemberRemoveResponse { header: self.cluster_header(), members }))
    }

    async fn member_update(
        &self,
        request: Request<pb::MemberUpdateRequest>,
    ) -> Result<Response<pb::MemberUpdateResponse>, Status> {
        let client = Client::admit(&self.member, &request, OnLearner::Refuse)?;
        client.need(&[Need::Root]).await?;
        let pb::MemberUpdateRequest { id, peer_ur_ls } = request.into_inner();
        let (_, members) = self.member.member_update(NodeId(id), peer_ur_ls).await?;
        let members = convert::members(members);
        Ok(Response::new(pb::MemberUpdateResponse { header: self.cluster_header(), members }))
    }

    async fn member_list(
        &self,
        request: Request<pb::MemberListRequest>,
    ) -> Result<Response<pb::MemberListResponse>, Status> {
        let client = Client::admit(&self.member, &request, OnLearner::Refuse)?;
        if request.get_ref().linearizable {
            self.member.read_barrier().await?;
        }
        client.need(&[Need::User]).await?;
        let members = convert::members(self.member.members());
        Ok(Response::new(pb::MemberListResponse { header: self.cluster_header(), members }))
    }

    async fn member_promote(
        &self,
        request: Request<pb::MemberPromoteRequest>,
    ) -> Result<Response<pb::MemberPromoteResponse>, Status> {
        let client = Client::admit(&self.member, &request, OnLearner::Refuse)?;
        client.need(&[Need::Root]).await?;
        let (_, members) = self.member.member_promote(NodeId(request.get_ref().id)).await?;
        let members = convert::members(members);
        Ok(Response::new(pb::MemberPromoteResponse { header: self.cluster_header(), members }))
    }
}
