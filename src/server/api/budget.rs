//! How much memory the answers to ranges may take together, until their clients have taken them.
//!
//! A range is read a chunk at a time, and each chunk is charged before the next is read; the charge goes along with
//! the answer ([`Charge::attach`]) and ends when its bytes have been sent or given up (`edge`). So clients that read
//! slowly, or many that read much, cost themselves: what does not fit is refused with etcd's `too many requests`.
//! One answer alone always fits, however large, for etcd would give it.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tonic::Response;

use crate::error::Refusal;

/// Bytes of answers under way, and how many there may be.
#[derive(Debug)]
pub(super) struct Budget {
    used: AtomicUsize,
    bytes_max: usize,
}

impl Budget {
    pub fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { used: AtomicUsize::new(0), bytes_max })
    }

    /// An answer that has nothing yet.
    pub fn open(self: &Arc<Self>) -> Charge {
        Charge { budget: Arc::clone(self), bytes: 0 }
    }
}

/// What one answer takes of the budget, given back when it is dropped.
pub struct Charge {
    budget: Arc<Budget>,
    bytes: usize,
}

impl fmt::Debug for Charge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Charge").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl Charge {
    /// For what is known to be a single key: it is not counted.
    pub fn of_little() -> Self {
        Budget::new(usize::MAX).open()
    }

    /// Takes so many bytes more.
    ///
    /// # Errors
    /// [`Refusal::TooManyRequests`] if other answers leave no room for them.
    pub fn grow(&mut self, bytes: usize) -> Result<(), Refusal> {
        let used = self.budget.used.fetch_add(bytes, Ordering::Relaxed);
        self.bytes += bytes;
        let others = used + bytes > self.bytes;
        if others && used + bytes > self.budget.bytes_max { Err(Refusal::TooManyRequests) } else { Ok(()) }
    }

    /// An answer that keeps the charge until it is sent.
    pub(super) fn attach<T>(self, message: T) -> Response<T> {
        let mut response = Response::new(message);
        if self.bytes > 0 {
            response.extensions_mut().insert(Arc::new(self));
        }
        response
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_share_a_budget_and_one_alone_may_pass_it() {
        let budget = Budget::new(100);
        let mut large = budget.open();
        assert_eq!(large.grow(90), Ok(()));
        assert_eq!(large.grow(90), Ok(()), "alone, it gets what it needs");
        let mut small = budget.open();
        assert_eq!(small.grow(1), Err(Refusal::TooManyRequests));
        drop(small);
        drop(large);
        let (mut one, mut other) = (budget.open(), budget.open());
        assert_eq!(one.grow(50), Ok(()));
        assert_eq!(other.grow(50), Ok(()));
        assert_eq!(one.grow(1), Err(Refusal::TooManyRequests));
        drop((one, other));
        assert_eq!(budget.used.load(Ordering::Relaxed), 0);
    }
}
