//! Leases.

use std::pin::pin;

use async_stream::stream;
use futures_util::{
    FutureExt, Stream,
    stream::{BoxStream, StreamExt},
};
use tonic::{Request, Response, Status, Streaming};

use super::{
    Api, Member,
    admit::{cut, wants_leader},
    client::{Client, Credentials, OnLearner},
    convert, error, quota,
};
use crate::{
    auth::Need,
    state::{Command, Reply},
    types::{KeyRange, LeaseId},
    wire::etcdserverpb::{self as pb, lease_server::Lease},
};

#[tonic::async_trait]
impl<M: Member> Lease for Api<M> {
    async fn lease_grant(
        &self,
        request: Request<pb::LeaseGrantRequest>,
    ) -> Result<Response<pb::LeaseGrantResponse>, Status> {
        let client = Client::admit(&self.member, &request, OnLearner::Refuse)?;
        let pb::LeaseGrantRequest { ttl, id } = request.into_inner();
        client.need(&[Need::User]).await?;
        quota::check(&self.member, quota::LEASE_BYTES).await?;
        let id = if id == 0 { self.member.new_lease_id() } else { LeaseId(id) };
        let ttl = ttl.max(self.member.limits().lease_ttl_min);
        let (reply, header) = client.propose(Command::LeaseGrant { id, ttl }).await?;
        let Reply::LeaseGrant { id, ttl } = reply else { return Err(error::internal(error::OTHER_REPLY)) };
        let header = Some(convert::full(header));
        Ok(Response::new(pb::LeaseGrantResponse { header, id: id.0, ttl, error: String::new() }))
    }

    async fn lease_revoke(
        &self,
        request: Request<pb::LeaseRevokeRequest>,
    ) -> Result<Response<pb::LeaseRevokeResponse>, Status> {
        let client = Client::admit(&self.member, &request, OnLearner::Refuse)?;
        client.need(&[Need::User]).await?;
        let id = LeaseId(request.get_ref().id);
        let (reply, header) = client.propose(Command::LeaseRevoke { id }).await?;
        let Reply::LeaseRevoke = reply else { return Err(error::internal(error::OTHER_REPLY)) };
        Ok(Response::new(pb::LeaseRevokeResponse { header: Some(convert::full(header)) }))
    }

    type LeaseKeepAliveStream = BoxStream<'static, Result<pb::LeaseKeepAliveResponse, Status>>;

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<pb::LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        self.keep_alive_over(request).await
    }

    async fn lease_time_to_live(
        &self,
        request: Request<pb::LeaseTimeToLiveRequest>,
    ) -> Result<Response<pb::LeaseTimeToLiveResponse>, Status> {
        let client = Client::admit(&self.member, &request, OnLearner::Refuse)?;
        let pb::LeaseTimeToLiveRequest { id, keys } = request.into_inner();
        client.need(&[Need::User]).await?;
        let info = self.member.lease_info(LeaseId(id), keys);
        // To know how long it lives takes no permission; to know what does.
        let needs = || if keys { vec![Need::ReadLeased(LeaseId(id))] } else { Vec::new() };
        let info = client.read(needs, info).await?;
        // Keys may have come to it since; etcd shows them.
        if let (Some(info), Some(_)) = (&info, self.member.auth_revision()) {
            let shown = info.keys.iter().map(|key| Need::Read(KeyRange::single(key.clone())));
            client.need(&shown.collect::<Vec<_>>()).await?;
        }
        let header = convert::now(&self.member);
        Ok(Response::new(match info {
            Some(info) => pb::LeaseTimeToLiveResponse {
                header,
                id,
                ttl: info.ttl,
                granted_ttl: info.granted,
                keys: info.keys,
            },
            None => pb::LeaseTimeToLiveResponse { header, id, ttl: -1, granted_ttl: 0, keys: Vec::new() },
        }))
    }

    async fn lease_leases(
        &self,
        request: Request<pb::LeaseLeasesRequest>,
    ) -> Result<Response<pb::LeaseLeasesResponse>, Status> {
        let client = Client::admit(&self.member, &request, OnLearner::Refuse)?;
        let needs = || vec![Need::User, Need::ReadAllLeased];
        let leases = client.read(needs, self.member.lease_list()).await?;
        let leases = leases.into_iter().map(|id| pb::LeaseStatus { id: id.0 }).collect();
        Ok(Response::new(pb::LeaseLeasesResponse { header: convert::now(&self.member), leases }))
    }
}

impl<M: Member> Api<M> {
    /// [`Lease::lease_keep_alive`] over whatever carries the requests.
    pub async fn keep_alive_over<R>(
        &self,
        request: Request<R>,
    ) -> Result<Response<<Self as Lease>::LeaseKeepAliveStream>, Status>
    where
        R: Stream<Item = Result<pb::LeaseKeepAliveRequest, Status>> + Send + Unpin + 'static,
    {
        let credentials = Client::admit_long(&self.member, &request)?;
        let cut = cut(&self.member, wants_leader(request.metadata()));
        let answers = keep_alives(self.member.clone(), credentials, request.into_inner(), cut);
        Ok(Response::new(answers.boxed()))
    }
}

/// Answers each request in order. What has come in meanwhile is renewed together: one wait for all of it.
fn keep_alives<M, R>(
    member: M,
    credentials: Credentials,
    mut requests: R,
    cut: impl Future<Output = crate::error::Refusal> + Send + 'static,
) -> impl Stream<Item = Result<pb::LeaseKeepAliveResponse, Status>> + Send
where
    M: Member,
    R: Stream<Item = Result<pb::LeaseKeepAliveRequest, Status>> + Send + Unpin,
{
    stream! {
        let mut cut = pin!(cut);
        let mut ids = Vec::new();
        let client = Client::new(&member, credentials);
        loop {
            let first = tokio::select! {
                biased;
                refusal = &mut cut => Some(Err(refusal.into())),
                request = requests.next() => request,
            };
            let mut next = first;
            ids.clear();
            // Whatever ends the requests ends the stream once those before it are answered.
            let end = loop {
                match next {
                    Some(Ok(request)) => ids.push(LeaseId(request.id)),
                    Some(Err(status)) => break Some(Err(status)),
                    None => break Some(Ok(())),
                }
                if ids.len() >= member.limits().keep_alive_batch_max {
                    break None;
                }
                match requests.next().now_or_never() {
                    Some(request) => next = request,
                    None => break None,
                }
            };
            if !ids.is_empty() {
                // Of before the renewal, so that what the client may take for renewed is never newer.
                let header = convert::now(&member);
                let renewed = async {
                    let needs = ids.iter().map(|id| Need::WriteLeased(*id));
                    client.need(&[Need::User].into_iter().chain(needs).collect::<Vec<_>>()).await?;
                    member.lease_renew(&ids).await
                };
                match renewed.await {
                    Ok(ttls) => {
                        for (id, ttl) in ids.iter().zip(ttls) {
                            yield Ok(pb::LeaseKeepAliveResponse { header, id: id.0, ttl });
                        }
                    }
                    Err(refusal) => {
                        yield Err(refusal.into());
                        return;
                    }
                }
            }
            match end {
                None => {}
                Some(Ok(())) => return,
                Some(Err(status)) => {
                    yield Err(error::from_transport(status, member.limits().message_bytes_max()));
                    return;
                }
            }
        }
    }
}
