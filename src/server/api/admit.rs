//! Who is served at all: learners serve little, and a client may ask for a leader to be known.

use std::future::Future;

use tonic::metadata::MetadataMap;

use super::Member;
use crate::error::Refusal;

/// Whether a learner serves a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnLearner {
    /// It does: a status, a read that asks no quorum, a snapshot.
    Serve,
    /// It does not.
    Refuse,
}

/// Refuses a call that this member may not serve now, in etcd's order.
pub(super) fn admit<M: Member>(
    member: &M,
    metadata: &MetadataMap,
    learner: OnLearner,
) -> Result<(), Refusal> {
    if learner == OnLearner::Refuse && member.is_learner() {
        return Err(Refusal::NotSupportedForLearner);
    }
    if let Some(version) = metadata.get("client-api-version")
        && std::str::from_utf8(version.as_bytes()).is_err()
    {
        return Err(Refusal::InvalidClientApiVersion);
    }
    if wants_leader(metadata) && member.leader().borrow().is_none() {
        return Err(Refusal::NoLeader);
    }
    Ok(())
}

/// Whether the client asked to be refused while there is no leader.
pub(super) fn wants_leader(metadata: &MetadataMap) -> bool {
    metadata.get("hasleader").is_some_and(|value| value.as_bytes() == b"true")
}

/// Why a stream is cut, when it is: the member stops, or `wants_leader` and there was none for too long.
pub(super) fn cut<M: Member>(
    member: &M,
    wants_leader: bool,
) -> impl Future<Output = Refusal> + Send + 'static {
    let member = member.clone();
    async move {
        let mut leader = member.leader().clone();
        loop {
            let stopped = leader.wait_for(|leader| leader.is_none() && wants_leader).await.is_err();
            if stopped {
                return Refusal::Stopped;
            }
            let lost = member.sleep(member.limits().leaderless_max);
            let found = async { leader.wait_for(Option::is_some).await.is_err() };
            tokio::select! {
                biased;
                stopped = found => if stopped { return Refusal::Stopped },
                () = lost => return Refusal::NoLeader,
            }
        }
    }
}
