//! A member behind the HTTP endpoints and the peer port.

use std::sync::Arc;

use super::{
    api::{self, Charge, Member as _},
    config::COMPAT_VERSION,
    handle::LeaseInfo,
    http::{HttpService, RaftVars, Versions},
    member::Handle,
    metrics::Metrics,
    peer::{HashKv, HttpPeers, PeerService},
};
use crate::{
    error::Refusal,
    membership::Member,
    mvcc::RangeRequest,
    runtime::{PeerAnswer, Production, Question},
    state::Alarm,
    types::{KeyRange, LeaseId, NodeId, Revision},
};

/// The key that health checks read; etcd's.
const HEALTH_KEY: &[u8] = b"health";

impl Handle<Production> {
    /// The links.
    pub fn peers(&self) -> &HttpPeers {
        &self.shared.peers
    }

    /// What is counted.
    pub fn metrics(&self) -> Arc<Metrics> {
        self.shared.runtime.metrics(self.shared.me)
    }

    fn told_versions(&self) -> Versions {
        let cluster = self.shared.facts.view().roster.version().map(str::to_owned);
        Versions { server: COMPAT_VERSION.to_owned(), cluster, storage: None }
    }
}

#[tonic::async_trait]
impl HttpService for Handle<Production> {
    fn versions(&self) -> Versions {
        self.told_versions()
    }

    fn alarms(&self) -> Vec<Alarm> {
        self.shared.facts.view().alarms.clone()
    }

    fn has_leader(&self) -> bool {
        self.shared.facts.leader.borrow().is_some()
    }

    fn is_learner(&self) -> bool {
        self.shared.is_learner()
    }

    async fn probe_read(&self, linearizable: bool) -> Result<(), String> {
        let text = |refusal: Refusal| refusal.to_string();
        if linearizable {
            self.read_barrier().await.map_err(text)?;
        }
        let key = KeyRange::single(HEALTH_KEY.into());
        self.range(&RangeRequest::of(key), &mut Charge::of_little()).await.map(drop).map_err(text)
    }

    fn raft_vars(&self) -> RaftVars {
        let facts = &self.shared.facts;
        let lead = *facts.leader.borrow();
        RaftVars {
            id: self.shared.me,
            term: facts.term(),
            commit: facts.committed(),
            applied: facts.applied(),
            lead: lead.unwrap_or_default(),
            state: if lead == Some(self.shared.me) { "StateLeader" } else { "StateFollower" },
            ..RaftVars::default()
        }
    }
}

#[tonic::async_trait]
impl PeerService for Handle<Production> {
    fn versions(&self) -> Versions {
        self.told_versions()
    }

    fn members(&self) -> Vec<Member> {
        api::Member::members(self)
    }

    async fn promote(&self, id: NodeId) -> Result<Vec<Member>, Refusal> {
        match self.answer_as_leader(&Question::Promote(id)).await? {
            PeerAnswer::Members(members) => Ok(members),
            PeerAnswer::Renewed(_) | PeerAnswer::Lease(_) => Err(Refusal::Stopped),
        }
    }

    async fn renew_leases(&self, ids: Vec<LeaseId>) -> Result<Vec<Option<i64>>, Refusal> {
        self.renew_here(ids).await
    }

    async fn lease_info(&self, id: LeaseId, keys: bool) -> Result<LeaseInfo, Refusal> {
        match self.answer_as_leader(&Question::LeaseInfo(id, keys)).await? {
            PeerAnswer::Lease(info) => info.ok_or(Refusal::LeaseNotFound),
            PeerAnswer::Renewed(_) | PeerAnswer::Members(_) => Err(Refusal::Stopped),
        }
    }

    async fn hash_kv(&self, revision: Revision) -> Result<HashKv, Refusal> {
        let hash = api::Member::hash_kv(self, revision).await?;
        Ok(HashKv { revision: self.header().revision, hash: hash.hash, compact_revision: hash.compacted })
    }

    async fn downgrade_enabled(&self) -> Result<bool, Refusal> {
        self.read_barrier().await?;
        Ok(self.downgrade_target().is_some())
    }
}
