//! The links between members and the HTTP ports, over real sockets on the loopback interface.
#![cfg(not(madsim))]
#![allow(missing_docs, clippy::disallowed_methods, clippy::disallowed_types)] // real time, real files

mod etcd;
mod http;
mod links;
mod port;
mod support;
