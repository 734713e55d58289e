//! Elections: who has the oldest key under a name leads, and the key's value is what it proclaims.

use std::pin::pin;

use async_stream::try_stream;
use futures_util::stream::{BoxStream, StreamExt};
use tonic::{Request, Response, Status};

use super::{
    Api, Member,
    admit::{cut, wants_leader},
    client::{Client, Credentials, OnLearner},
    convert, error,
    turns::{self, Place, Wish},
};
use crate::{
    error::Refusal,
    server::Header,
    types::{KeyRange, KeyValue, LeaseId, Revision},
    watch::{Create, Frame},
    wire::{
        RawKeyValue,
        v3electionpb::{self as pb, election_server::Election},
    },
};

#[tonic::async_trait]
impl<M: Member> Election for Api<M> {
    async fn campaign(
        &self,
        request: Request<pb::CampaignRequest>,
    ) -> Result<Response<pb::CampaignResponse>, Status> {
        let client = Client::admit(&self.member, &request, OnLearner::Refuse)?;
        let pb::CampaignRequest { name, lease, value } = request.into_inner();
        let wish = Wish {
            name: name.clone(),
            lease: LeaseId(lease),
            value,
            overwrite: true,
            lost: Refusal::NotElected,
        };
        let turn = turns::take_turn(&client, wish).await.map_err(error::without_code)?;
        let Place { key, created, lease } = turn.place;
        let leader = Some(pb::LeaderKey { name, key, rev: created.0, lease: lease.0 });
        Ok(Response::new(pb::CampaignResponse { header: Some(convert::full(turn.taken)), leader }))
    }

    async fn proclaim(
        &self,
        request: Request<pb::ProclaimRequest>,
    ) -> Result<Response<pb::ProclaimResponse>, Status> {
        let client = Client::admit(&self.member, &request, OnLearner::Refuse)?;
        let pb::ProclaimRequest { leader, value } = request.into_inner();
        let proclaimed = async {
            let mut place = place_of(leader)?;
            if place.lease == LeaseId(0) {
                place.lease = turns::new_session(&client).await?;
            }
            match turns::put_at(&client, &place, value).await? {
                (true, header) => Ok(header),
                (false, _) => Err(Refusal::NotElected),
            }
        };
        let header = proclaimed.await.map_err(error::without_code)?;
        Ok(Response::new(pb::ProclaimResponse { header: Some(convert::full(header)) }))
    }

    async fn leader(
        &self,
        request: Request<pb::LeaderRequest>,
    ) -> Result<Response<pb::LeaderResponse>, Status> {
        let client = Client::admit(&self.member, &request, OnLearner::Refuse)?;
        let name = request.into_inner().name;
        match turns::first_of(&client, &name).await.map_err(error::without_code)? {
            (Some(kv), header) => Ok(Response::new(told(header, RawKeyValue::encode(&kv)))),
            (None, _) => Err(error::without_code(Refusal::NobodyElected)),
        }
    }

    type ObserveStream = BoxStream<'static, Result<pb::LeaderResponse, Status>>;

    async fn observe(
        &self,
        request: Request<pb::LeaderRequest>,
    ) -> Result<Response<Self::ObserveStream>, Status> {
        let client = Client::admit(&self.member, &request, OnLearner::Refuse)?;
        let cut = cut(&self.member, wants_leader(request.metadata()));
        let leaders = observe(self.member.clone(), client.credentials(), request.into_inner().name, cut);
        Ok(Response::new(leaders.boxed()))
    }

    async fn resign(
        &self,
        request: Request<pb::ResignRequest>,
    ) -> Result<Response<pb::ResignResponse>, Status> {
        let client = Client::admit(&self.member, &request, OnLearner::Refuse)?;
        let leader = request.into_inner().leader;
        let resigned = async { turns::leave(&client, &place_of(leader)?).await };
        let header = resigned.await.map_err(error::without_code)?;
        Ok(Response::new(pb::ResignResponse { header: Some(convert::full(header)) }))
    }
}

fn place_of(leader: Option<pb::LeaderKey>) -> Result<Place, Refusal> {
    let pb::LeaderKey { name: _, key, rev, lease } = leader.ok_or(Refusal::LeaderKeyMissing)?;
    Ok(Place { key, created: Revision(rev), lease: LeaseId(lease) })
}

fn told(header: Header, kv: RawKeyValue) -> pb::LeaderResponse {
    pb::LeaderResponse { header: Some(convert::full(header)), kv: Some(kv) }
}

/// The leader, each new value of it, then the next leader, until the client leaves or `cut` ends it.
fn observe<M: Member>(
    member: M,
    credentials: Credentials,
    name: bytes::Bytes,
    cut: impl Future<Output = Refusal> + Send + 'static,
) -> impl futures_util::Stream<Item = Result<pb::LeaderResponse, Status>> + Send {
    let leaders = try_stream! {
        let client = Client::new(&member, credentials);
        loop {
            let (header, leader) = elected(&client, &name).await.map_err(error::without_code)?;
            yield told(header, RawKeyValue::encode(&leader));
            let create = Create::of(KeyRange::single(leader.key), header.revision.next());
            let mut watch = turns::open(&client, create).await.map_err(error::without_code)?;
            'led: loop {
                let frame = watch.frame().await.ok_or_else(|| error::without_code(Refusal::Stopped))?;
                // A watch whose start was compacted misses values: the next look shows the newest.
                if frame.canceled {
                    break;
                }
                for event in frame.events {
                    if event.deleted {
                        break 'led;
                    }
                    let header = Header { revision: frame.revision, ..member.header() };
                    yield told(header, RawKeyValue(event.kv.0));
                }
            }
        }
    };
    async_stream::stream! {
        let (mut leaders, mut cut) = (pin!(leaders), pin!(cut));
        loop {
            let next = tokio::select! {
                biased;
                refusal = &mut cut => Some(Err(refusal.into())),
                next = leaders.next() => next,
            };
            let Some(next) = next else { return };
            let ended = next.is_err();
            yield next;
            if ended {
                return;
            }
        }
    }
}

/// The leader, or the first that there is. The header is of the moment at which it led.
async fn elected<M: Member>(client: &Client<'_, M>, name: &[u8]) -> Result<(Header, KeyValue), Refusal> {
    loop {
        let (found, header) = turns::first_of(client, name).await?;
        if let Some(leader) = found {
            return Ok((header, leader));
        }
        let create = Create { no_delete: true, ..Create::of(turns::line(name), header.revision.next()) };
        let mut watch = turns::open(client, create).await?;
        loop {
            let frame = watch.frame().await.ok_or(Refusal::Stopped)?;
            if frame.canceled {
                break;
            }
            if let Some(leader) = first_put(&frame)? {
                return Ok((Header { revision: leader.modified, ..client.member.header() }, leader));
            }
        }
    }
}

fn first_put(frame: &Frame) -> Result<Option<KeyValue>, Refusal> {
    let put = frame.events.iter().find(|event| !event.deleted);
    put.map(|event| event.kv.decode()).transpose().map_err(|_| Refusal::Corrupt)
}
