//! The watch hub through its public interface: golden scripts, and a storm of random inputs against a client
//! that keeps its own books.
#![allow(clippy::unwrap_used)]

mod books;
mod golden;
mod model;
mod storm;
