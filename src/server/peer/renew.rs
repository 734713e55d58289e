//! Renewals by the leader, for clients of this member.
//!
//! Between members of Kontiki a question carries all that has come in during the one before it. etcd's leader takes
//! one lease a question, so that a few are asked at once.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Mutex, mpsc, oneshot},
    task::AbortHandle,
};

use super::{
    Shared,
    client::{ClientError, Renewer},
    link::Peer,
};
use crate::{error::Refusal, types::LeaseId};

/// Questions at once to one leader that takes one lease each.
const WORKERS: usize = 4;
/// Renewals that wait for one leader.
pub(super) const QUEUE_MAX: usize = 64 * 1024;
/// Renewals in one question.
const BATCH_MAX: usize = 4096;
/// How long the leader may take to answer.
const TIMEOUT: Duration = super::ASK_TIMEOUT;

/// A lease, and who waits for the seconds that it has after its renewal, None if it is not there. Dropped if no
/// answer came.
pub(super) type Renewal = (LeaseId, oneshot::Sender<Result<Option<i64>, Refusal>>);

type Queue = Arc<Mutex<mpsc::Receiver<Renewal>>>;

/// Starts the workers, which end when they are aborted.
pub(super) fn start(
    shared: &Arc<Shared>,
    peer: &Arc<Peer>,
    renewals: mpsc::Receiver<Renewal>,
) -> Vec<AbortHandle> {
    let renewals = Arc::new(Mutex::new(renewals));
    let worker = || work(Arc::clone(peer), Arc::clone(&renewals));
    (0..WORKERS).map(|_| shared.runtime.spawn(worker()).abort_handle()).collect()
}

async fn work(peer: Arc<Peer>, renewals: Queue) {
    let mut renewer = Renewer::default();
    let mut batch: Vec<Renewal> = Vec::new();
    loop {
        let mut queue = renewals.lock().await;
        let together = peer.is_kontiki();
        if queue.recv_many(&mut batch, if together { BATCH_MAX } else { 1 }).await == 0 {
            return;
        }
        // While it is held, what comes in forms the next question.
        let _held = together.then_some(queue);
        let ids: Vec<LeaseId> = batch.iter().map(|(id, _)| *id).collect();
        let url = peer.url();
        match renewer.renew(&url, &ids, TIMEOUT).await {
            Ok(renewed) => {
                // Who asked may have gone.
                for ((_, waiter), seconds) in batch.drain(..).zip(renewed) {
                    let _ = waiter.send(Ok(seconds));
                }
            }
            Err(ClientError::Refused(refusal)) => {
                for (_, waiter) in batch.drain(..) {
                    let _ = waiter.send(Err(refusal));
                }
            }
            Err(ClientError::Unreachable { url, error }) => {
                tracing::debug!(peer = %peer.id, url, %error, "the leader renewed no lease");
                peer.url_failed(&url);
                batch.clear();
            }
        }
    }
}
