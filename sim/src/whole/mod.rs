//! The thorough driver: the same world on madsim, with gRPC between clients and members.
//!
//! madsim gives tasks in a drawn order, virtual time and its own tonic: requests and answers pass through generated
//! clients and servers, streams are streams, and a client that goes away cancels its handler. Disks, tables, clocks and
//! the links between members are those of `storm`.

mod grpc;
mod host;

pub use host::{MadsimHost, run};
