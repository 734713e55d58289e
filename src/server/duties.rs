//! What a member does unasked: tells its name and client URLs, has the cluster's version decided, paces compaction.

use std::{sync::Arc, time::Duration};

use super::{api::Member as _, exit::Exit, keeper::KeepJob, member::Handle, shared::Shared};
use crate::{
    auth::Who,
    node::{Compactor, Retention},
    runtime::{Clock, Runtime},
    state::Command,
    storage::Backend,
    types::NodeId,
};

/// How long a duty waits before it tries again.
const RETRY: Duration = Duration::from_millis(500);

/// The version that members of this release agree on.
pub(super) const CLUSTER_VERSION: &str = "3.5.0";

/// How compaction is paced.
#[derive(Clone, Copy, Debug)]
pub(super) struct CompactionPace {
    /// Revisions that one step drops at most.
    pub revisions_max: usize,
    /// The pause after each.
    pub pause: Duration,
}

/// Tells the cluster this member's name and client URLs, until it knows.
pub(super) async fn publish<R: Runtime>(handle: Handle<R>, name: String, client_urls: Vec<String>) {
    let id = handle.shared.me;
    loop {
        let known = handle.shared.facts.view();
        if known.roster.member(id).is_some_and(|m| m.name == name && m.client_urls == client_urls) {
            return;
        }
        let command =
            Command::SetMemberAttributes { id, name: name.clone(), client_urls: client_urls.clone() };
        // What is refused now (no leader, a learner that is not known yet) is tried again.
        if handle.propose(Who::default(), command).await.is_err() {
            handle.sleep(RETRY).await;
        }
    }
}

/// Has the cluster's version decided whenever this member leads and there is none.
pub(super) async fn decide_version<R: Runtime>(handle: Handle<R>) {
    let mut leader = handle.shared.facts.leader.subscribe();
    let leads = |leader: &Option<NodeId>| *leader == Some(handle.shared.me);
    while leader.wait_for(leads).await.is_ok() {
        if handle.shared.facts.view().roster.version().is_some() {
            return;
        }
        let _ = handle.propose(Who::default(), Command::SetClusterVersion(CLUSTER_VERSION.into())).await;
        handle.sleep(RETRY).await;
    }
}

/// Compacts as `--auto-compaction-retention` says.
pub(super) async fn auto_compact<R: Runtime>(handle: Handle<R>, retention: Retention) {
    let clock = handle.shared.runtime.clock();
    let mut compactor = Compactor::new(retention, clock.now());
    let Some(every) = compactor.every() else { return };
    loop {
        clock.sleep(every).await;
        let leads = *handle.shared.facts.leader.borrow() == Some(handle.shared.me);
        if let Some(revision) = compactor.look(clock.now(), handle.shared.store.revision(), leads) {
            // One that is refused, or lost with its leader, is made up for by the next.
            if let Err(refusal) = handle.propose(Who::default(), Command::Compact { revision }).await {
                tracing::warn!(%revision, %refusal, "an automatic compaction was refused");
            }
        }
    }
}

/// Removes from the tables what compaction dropped, step by step.
pub(super) async fn compact<R: Runtime>(shared: Arc<Shared<R>>, pace: CompactionPace) {
    let mut asked = shared.facts.compact.subscribe();
    let clock = shared.runtime.clock();
    let mut began = clock.micros();
    loop {
        let start = clock.micros();
        let step = shared.store.compact_step(pace.revisions_max);
        let written = step.and_then(|batch| match batch {
            Some(batch) => {
                shared.stats.compaction_keys.add(batch.deletes());
                shared.backend.write(batch).map(|()| true)
            }
            None => Ok(false),
        });
        match written {
            Ok(true) => {
                shared.stats.compaction_pause_time.tell(clock.micros().saturating_sub(start) as f64);
                clock.sleep(pace.pause).await;
            }
            Ok(false) => {
                let finished = shared.store.compaction_finished();
                if shared.facts.compacted.send_replace(finished) < finished {
                    let took = clock.micros().saturating_sub(began);
                    shared.stats.compaction_total_time.tell(took as f64);
                    shared.stats.compaction_last.set(clock.unix_millis() / 1000);
                    let _ = shared.keeper.send(KeepJob::Compacted);
                }
                if asked.changed().await.is_err() {
                    return;
                }
                began = clock.micros();
            }
            Err(fault) => return shared.exits.tell(Exit::Fault(fault)),
        }
    }
}
