//! The state machine through its public interface: golden scripts, and random logs on several replicas.
#![allow(clippy::unwrap_used)]

mod auth;
mod etcd_log;
mod golden;
mod replicas;
mod rows;
mod support;
mod watched;
