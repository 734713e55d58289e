//! Multi-version keys and values.

mod request;

pub use request::*;
