//! A task that can be ended and waited for, on any runtime.

use std::future::Future;

use futures_util::future::{AbortHandle, abortable};
use tokio::sync::oneshot;

use super::Runtime;

/// A task that was started. Dropping this leaves it running.
#[derive(Debug)]
pub struct Task {
    abort: AbortHandle,
    ended: oneshot::Receiver<()>,
}

impl Task {
    /// Starts `work` on `runtime`.
    pub fn start(runtime: &impl Runtime, work: impl Future<Output = ()> + Send + 'static) -> Self {
        let (work, abort) = abortable(work);
        let (done, ended) = oneshot::channel();
        runtime.spawn(async move {
            // Whether it was ended or came to its end is the same to who waits.
            let _ = work.await;
            let _ = done.send(());
        });
        Self { abort, ended }
    }

    /// Ends it where it next waits.
    pub fn abort(&self) {
        self.abort.abort();
    }

    /// Waits for its end.
    pub async fn ended(self) {
        let _ = self.ended.await;
    }
}
