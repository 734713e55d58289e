//! The cluster's members with their ids, names and URLs.

use crate::types::NodeId;

/// A member of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: NodeId,
    /// Its name; empty until it has started and said so.
    pub name: String,
    /// Where its peers reach it, sorted.
    pub peer_urls: Vec<String>,
    /// Where clients reach it; empty until it has said so.
    pub client_urls: Vec<String>,
    /// Whether it is a learner.
    pub learner: bool,
}
