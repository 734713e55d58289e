//! The fast driver: the shipped server on an event loop of our own, in one thread, on virtual time.
//!
//! `server::start` boots unchanged: its driver, its workers and its handlers are tasks of the [`Executor`], its seams
//! are [`crate::runtime`]. Between a client and a handler there is no gRPC, between members no HTTP; all else that
//! decides or stores is what ships.

mod executor;
mod handlers;

pub use executor::{Executor, Order};
pub use handlers::forward;
