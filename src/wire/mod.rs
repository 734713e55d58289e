//! etcd's encodings: the generated messages, and the way between them and our own types.

pub mod auth;
#[cfg(not(madsim))]
pub mod codec;
pub mod command;
pub mod kv;
pub mod raft;
mod raw;

pub use raw::RawKeyValue;

/// Raft's messages and entries.
#[allow(missing_docs, clippy::all)]
pub mod raftpb {
    tonic::include_proto!("raftpb");
}

/// Records of the log and snapshot files.
#[allow(missing_docs, clippy::all)]
pub mod walpb {
    tonic::include_proto!("walpb");
}

/// The payloads of the log's entries.
#[allow(missing_docs, clippy::all)]
pub mod internalpb {
    tonic::include_proto!("internalpb");
}

/// Key-values and events.
#[allow(missing_docs, clippy::all)]
pub mod mvccpb {
    tonic::include_proto!("mvccpb");
}

/// Users and roles.
#[allow(missing_docs, clippy::all)]
pub mod authpb {
    tonic::include_proto!("authpb");
}

/// etcd's API.
#[allow(missing_docs, clippy::all, clippy::unwrap_used)]
pub mod etcdserverpb {
    tonic::include_proto!("etcdserverpb");
}

/// The lock service.
#[allow(missing_docs, clippy::all, clippy::unwrap_used)]
pub mod v3lockpb {
    tonic::include_proto!("v3lockpb");
}

/// The election service.
#[allow(missing_docs, clippy::all, clippy::unwrap_used)]
pub mod v3electionpb {
    tonic::include_proto!("v3electionpb");
}
