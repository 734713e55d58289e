//! Locks of a run's shared state.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Takes a lock, whoever panicked with it: a panic ends the run, and what is left is dropped as it is.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a lock held, likewise.
pub fn unlock<T>(mutex: Mutex<T>) -> T {
    mutex.into_inner().unwrap_or_else(PoisonError::into_inner)
}
