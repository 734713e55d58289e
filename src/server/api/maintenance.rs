//! Alarms, status, hashes, backups, leadership, downgrades.

use std::fmt::Write;

use async_stream::stream;
use bytes::{Bytes, BytesMut};
use futures_util::{
    Stream,
    stream::{BoxStream, StreamExt},
};
use sha2::{Digest, Sha256};
use tonic::{Request, Response, Status};

use super::{
    Api, Member, SnapshotBody,
    admit::{cut, wants_leader},
    client::{Client, OnLearner},
    convert, error,
    version::Version,
};
use crate::{
    auth::Need,
    error::Refusal,
    server::config::COMPAT_VERSION,
    state::{Alarm, AlarmAction, AlarmKind, Command, Reply},
    types::{NodeId, Revision},
    wire::etcdserverpb::{
        self as pb, AlarmType, alarm_request, downgrade_request::DowngradeAction,
        maintenance_server::Maintenance,
    },
};

/// The bytes of a snapshot's message.
const BLOB_BYTES: usize = 32 * 1024;

#[tonic::async_trait]
impl<M: Member> Maintenance for Api<M> {
    async fn alarm(&self, request: Request<pb::AlarmRequest>) -> Result<Response<pb::AlarmResponse>, Status> {
        let client = Client::admit(&self.member, &request, OnLearner::Refuse)?;
        let pb::AlarmRequest { action, member_id, alarm } = request.into_inner();
        let asks = action == alarm_request::AlarmAction::Get as i32;
        client.need(&[if asks { Need::User } else { Need::Root }]).await?;
        let kind = match AlarmType::try_from(alarm) {
            Ok(AlarmType::None) => AlarmKind::None,
            Ok(AlarmType::Nospace) => AlarmKind::NoSpace,
            Ok(AlarmType::Corrupt) => AlarmKind::Corrupt,
            Err(_) => return Err(Refusal::UnknownMethod.into()),
        };
        // An action that etcd 3.5 does not know takes it down.
        let action = match alarm_request::AlarmAction::try_from(action) {
            Ok(alarm_request::AlarmAction::Get) => AlarmAction::Get,
            Ok(alarm_request::AlarmAction::Activate) => AlarmAction::Activate,
            Ok(alarm_request::AlarmAction::Deactivate) => AlarmAction::Deactivate,
            Err(_) => return Err(Refusal::UnknownMethod.into()),
        };
        let alarm = Alarm { member: NodeId(member_id), kind };
        let (reply, header) = client.propose(Command::Alarm { action, alarm }).await?;
        let Reply::Alarms(alarms) = reply else { return Err(error::internal(error::OTHER_REPLY)) };
        let alarms = alarms
            .into_iter()
            .map(|alarm| pb::AlarmMember { member_id: alarm.member.0, alarm: wire_kind(alarm.kind) as i32 })
            .collect();
        Ok(Response::new(pb::AlarmResponse { header: Some(convert::full(header)), alarms }))
    }

    async fn status(
        &self,
        request: Request<pb::StatusRequest>,
    ) -> Result<Response<pb::StatusResponse>, Status> {
        let client = Client::admit(&self.member, &request, OnLearner::Serve)?;
        client.need(&[Need::User]).await?;
        let status = self.member.status();
        Ok(Response::new(pb::StatusResponse {
            header: convert::now(&self.member),
            version: COMPAT_VERSION.to_owned(),
            db_size: i64::try_from(status.db_size).unwrap_or(i64::MAX),
            leader: status.leader.unwrap_or_default().0,
            raft_index: status.committed.0,
            raft_term: status.term.0,
            raft_applied_index: status.applied.0,
            errors: errors(&status),
            db_size_in_use: i64::try_from(status.db_size_in_use).unwrap_or(i64::MAX),
            is_learner: status.learner,
            ..Default::default()
        }))
    }

    async fn defragment(
        &self,
        request: Request<pb::DefragmentRequest>,
    ) -> Result<Response<pb::DefragmentResponse>, Status> {
        let client = Client::admit(&self.member, &request, OnLearner::Refuse)?;
        client.need(&[Need::Root]).await.map_err(error::of_users)?;
        self.member.defragment().await?;
        Ok(Response::new(pb::DefragmentResponse { header: None }))
    }

    async fn hash(&self, request: Request<pb::HashRequest>) -> Result<Response<pb::HashResponse>, Status> {
        let client = Client::admit(&self.member, &request, OnLearner::Refuse)?;
        client.need(&[Need::Root]).await.map_err(error::of_users)?;
        let hash = self.member.hash().await?;
        Ok(Response::new(pb::HashResponse { header: convert::now(&self.member), hash }))
    }

    async fn hash_kv(
        &self,
        request: Request<pb::HashKvRequest>,
    ) -> Result<Response<pb::HashKvResponse>, Status> {
        let client = Client::admit(&self.member, &request, OnLearner::Refuse)?;
        client.need(&[Need::Root]).await.map_err(error::of_users)?;
        let hash = self.member.hash_kv(Revision(request.get_ref().revision)).await?;
        Ok(Response::new(pb::HashKvResponse {
            header: convert::now(&self.member),
            hash: hash.hash,
            compact_revision: hash.compacted.0,
            hash_revision: hash.revision.0,
        }))
    }

    type SnapshotStream = BoxStream<'static, Result<pb::SnapshotResponse, Status>>;

    async fn snapshot(
        &self,
        request: Request<pb::SnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        let client = Client::admit(&self.member, &request, OnLearner::Serve)?;
        client.need(&[Need::Root]).await.map_err(error::of_users)?;
        let cut = cut(&self.member, wants_leader(request.metadata()));
        let body = self.member.snapshot().await?;
        Ok(Response::new(blobs(body).take_until(cut).boxed()))
    }

    async fn move_leader(
        &self,
        request: Request<pb::MoveLeaderRequest>,
    ) -> Result<Response<pb::MoveLeaderResponse>, Status> {
        let client = Client::admit(&self.member, &request, OnLearner::Refuse)?;
        client.need(&[Need::Root]).await?;
        if self.member.status().leader != Some(self.member.header().member) {
            return Err(Refusal::NotLeader.into());
        }
        self.member.move_leader(NodeId(request.get_ref().target_id)).await?;
        Ok(Response::new(pb::MoveLeaderResponse { header: None }))
    }

    async fn downgrade(
        &self,
        request: Request<pb::DowngradeRequest>,
    ) -> Result<Response<pb::DowngradeResponse>, Status> {
        let client = Client::admit(&self.member, &request, OnLearner::Refuse)?;
        client.need(&[Need::Root]).await?;
        let pb::DowngradeRequest { action, version } = request.into_inner();
        let command = match DowngradeAction::try_from(action) {
            Ok(DowngradeAction::Validate) => {
                self.downgrade_to(&version).await?;
                None
            }
            Ok(DowngradeAction::Enable) => {
                let version = self.downgrade_to(&version).await?.to_string();
                Some(Command::SetDowngrade { enabled: true, version })
            }
            Ok(DowngradeAction::Cancel) => {
                self.member.read_barrier().await?;
                self.member.downgrade_target().ok_or(Refusal::NoDowngrade)?;
                Some(Command::SetDowngrade { enabled: false, version: String::new() })
            }
            Err(_) => return Err(Refusal::UnknownMethod.into()),
        };
        if let Some(command) = command {
            client.propose(command).await?;
        }
        let version = self.member.status().cluster_version.ok_or(Refusal::ClusterVersionUnavailable)?;
        Ok(Response::new(pb::DowngradeResponse { header: convert::now(&self.member), version }))
    }
}

impl<M: Member> Api<M> {
    /// The version to go down to, if that is one minor below the cluster's and no other downgrade is under way.
    async fn downgrade_to(&self, target: &str) -> Result<Version, Refusal> {
        self.member.read_barrier().await?;
        let target = Version::of_target(target).ok_or(Refusal::WrongDowngradeFormat)?;
        let cluster = self.member.status().cluster_version.as_deref().and_then(Version::of_target);
        let cluster = cluster.ok_or(Refusal::ClusterVersionUnavailable)?;
        if Some(target) != cluster.one_minor_down() {
            return Err(Refusal::InvalidDowngradeTarget);
        }
        if self.member.downgrade_target().is_some() {
            return Err(Refusal::DowngradeInProgress);
        }
        Ok(target)
    }
}

fn wire_kind(kind: AlarmKind) -> AlarmType {
    match kind {
        AlarmKind::None => AlarmType::None,
        AlarmKind::NoSpace => AlarmType::Nospace,
        AlarmKind::Corrupt => AlarmType::Corrupt,
    }
}

/// What is wrong, one text each. An alarm reads as etcd's does, with its space at the end.
fn errors(status: &crate::server::Status) -> Vec<String> {
    let mut errors = Vec::new();
    if status.leader.is_none() {
        errors.push(Refusal::NoLeader.to_string());
    }
    for alarm in &status.alarms {
        let mut text = String::new();
        // Fields that are zero are left out of the text; writing to a string cannot fail.
        if alarm.member != NodeId(0) {
            let _ = write!(text, "memberID:{} ", alarm.member.0);
        }
        if alarm.kind != AlarmKind::None {
            let _ = write!(text, "alarm:{} ", wire_kind(alarm.kind).as_str_name());
        }
        errors.push(text);
    }
    errors
}

/// The body in blobs of one size, then the SHA-256 of all of it. The remaining bytes leave out the hash.
fn blobs(body: SnapshotBody) -> impl Stream<Item = Result<pb::SnapshotResponse, Status>> + Send {
    let SnapshotBody { bytes: mut remaining_bytes, mut pieces } = body;
    let message =
        |remaining_bytes, blob| pb::SnapshotResponse { remaining_bytes, blob, ..Default::default() };
    stream! {
        let mut hash = Sha256::new();
        let mut held = BytesMut::new();
        while remaining_bytes > 0 {
            let blob_bytes = BLOB_BYTES.min(usize::try_from(remaining_bytes).unwrap_or(BLOB_BYTES));
            if held.len() < blob_bytes {
                let Some(piece) = pieces.recv().await else {
                    yield Err(error::internal("the snapshot broke off"));
                    return;
                };
                held.extend_from_slice(&piece);
                continue;
            }
            let blob = held.split_to(blob_bytes).freeze();
            hash.update(&blob);
            remaining_bytes -= blob_bytes as u64;
            yield Ok(message(remaining_bytes, blob));
        }
        yield Ok(message(0, Bytes::copy_from_slice(&hash.finalize())));
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    async fn sent(bytes: u64, pieces: Vec<Vec<u8>>) -> Vec<Result<pb::SnapshotResponse, Status>> {
        let (sender, receiver) = mpsc::channel(pieces.len().max(1));
        for piece in pieces {
            sender.send(piece.into()).await.expect("the receiver is held");
        }
        drop(sender);
        blobs(SnapshotBody { bytes, pieces: receiver }).collect().await
    }

    #[tokio::test]
    async fn a_snapshot_is_cut_into_blobs_and_ends_with_its_hash() {
        let body: Vec<u8> = (0..70_000u32).map(|i| i as u8).collect();
        let pieces = body.chunks(9_999).map(<[u8]>::to_vec).collect();
        let sent = sent(70_000, pieces).await;
        let sent: Vec<_> = sent.into_iter().map(|m| m.expect("no piece is missing")).collect();
        let shape: Vec<_> = sent.iter().map(|m| (m.blob.len(), m.remaining_bytes)).collect();
        assert_eq!(shape, [(32_768, 37_232), (32_768, 4_464), (4_464, 0), (32, 0)]);
        let (hash, blobs) = sent.split_last().expect("there is a hash");
        assert_eq!(blobs.iter().flat_map(|m| m.blob.to_vec()).collect::<Vec<_>>(), body);
        assert_eq!(hash.blob.as_ref(), Sha256::digest(&body).as_slice());
    }

    #[tokio::test]
    async fn a_snapshot_that_breaks_off_says_so() {
        let sent = sent(40_000, vec![vec![1; 35_000]]).await;
        assert_eq!(sent.len(), 2);
        assert!(sent[1].is_err());
    }

    #[test]
    fn errors_read_as_etcds() {
        let alarm = |member, kind| Alarm { member: NodeId(member), kind };
        let status = crate::server::Status {
            alarms: vec![alarm(77, AlarmKind::NoSpace), alarm(0, AlarmKind::Corrupt)],
            ..Default::default()
        };
        assert_eq!(
            errors(&status),
            ["etcdserver: no leader", "memberID:77 alarm:NOSPACE ", "alarm:CORRUPT "]
        );
    }
}
