//! The roster as the JSON of etcd's v2 store, which `.snap` files and raft's snapshot messages carry.
//!
//! ```text
//! /0/members/<hex id>/raftAttributes   {"peerURLs":[…],"isLearner":true}
//! /0/members/<hex id>/attributes       {"name":"n1","clientURLs":[…]}     once it has started
//! /0/removed_members/<hex id>
//! /0/version                           3.5.0
//! /1                                   empty: the v2 API's keys
//! ```
//!
//! Events and statistics of the v2 API are left out; etcd starts without them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    Member, Roster,
    roster_json::{encode, filled},
};
use crate::types::NodeId;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Store {
    root: Node,
    #[serde(default)]
    current_version: u32,
}

/// A file (no children) or a directory. The indices count the v2 API's requests and mean nothing here.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    #[serde(default)]
    path: String,
    #[serde(default)]
    created_index: u64,
    #[serde(default)]
    modified_index: u64,
    #[serde(default = "never")]
    expire_time: String,
    #[serde(default)]
    value: String,
    #[serde(default)]
    children: Option<BTreeMap<String, Node>>,
}

#[derive(Serialize, Deserialize)]
struct RaftAttributes {
    #[serde(rename = "peerURLs", default)]
    peer_urls: Option<Vec<String>>,
    #[serde(rename = "isLearner", default, skip_serializing_if = "std::ops::Not::not")]
    learner: bool,
}

#[derive(Default, Serialize, Deserialize)]
struct Attributes {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(rename = "clientURLs", default, skip_serializing_if = "Option::is_none")]
    client_urls: Option<Vec<String>>,
}

/// The zero time of Go.
fn never() -> String {
    "0001-01-01T00:00:00Z".into()
}

impl Node {
    fn file(path: String, value: String) -> Self {
        Self { path, value, expire_time: never(), ..Self::default() }
    }

    fn dir(path: &str, children: impl IntoIterator<Item = Self>) -> Self {
        let named = |node: Self| (node.path.rsplit('/').next().unwrap_or_default().to_owned(), node);
        let children = Some(children.into_iter().map(named).collect());
        Self { path: path.into(), expire_time: never(), children, ..Self::default() }
    }

    fn child(&self, name: &str) -> Option<&Self> {
        self.children.as_ref()?.get(name)
    }

    fn children(&self) -> impl Iterator<Item = (&String, &Self)> {
        self.children.iter().flatten()
    }
}

impl Roster {
    /// The roster as a snapshot of etcd's v2 store.
    pub fn to_snapshot(&self) -> Vec<u8> {
        let members = self.members.values().map(member_node);
        let mut tree = vec![Node::dir("/0/members", members)];
        if !self.removed.is_empty() {
            let removed = self.removed.iter();
            let removed = removed.map(|id| Node::file(format!("/0/removed_members/{id}"), String::new()));
            tree.push(Node::dir("/0/removed_members", removed));
        }
        if let Some(version) = &self.version {
            tree.push(Node::file("/0/version".into(), version.clone()));
        }
        let root = Node::dir("/", [Node::dir("/0", tree), Node::dir("/1", [])]);
        encode(&Store { root, current_version: 2 }).into_bytes()
    }

    /// The roster from a snapshot of etcd's v2 store; an error says what is wrong with it.
    pub fn from_snapshot(bytes: &[u8]) -> Result<Self, String> {
        let store: Store = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let tree = store.root.child("0").ok_or("it has no /0")?;
        let mut roster = Self::default();
        for (name, node) in tree.child("members").iter().flat_map(|dir| dir.children()) {
            let member = read_member(name, node)?;
            roster.members.insert(member.id, member);
        }
        for (name, _) in tree.child("removed_members").iter().flat_map(|dir| dir.children()) {
            roster.removed.insert(read_id(name)?);
        }
        roster.version = tree.child("version").map(|node| node.value.clone());
        Ok(roster)
    }
}

fn member_node(member: &Member) -> Node {
    let path = format!("/0/members/{}", member.id);
    let raft = RaftAttributes { peer_urls: filled(&member.peer_urls), learner: member.learner };
    let mut files = vec![Node::file(format!("{path}/raftAttributes"), encode(&raft))];
    if member.is_started() || !member.client_urls.is_empty() {
        let attributes = Attributes { name: member.name.clone(), client_urls: filled(&member.client_urls) };
        files.push(Node::file(format!("{path}/attributes"), encode(&attributes)));
    }
    Node::dir(&path, files)
}

fn read_member(name: &str, node: &Node) -> Result<Member, String> {
    let wrong = |error: serde_json::Error| format!("member {name}: {error}");
    let raft = node.child("raftAttributes").ok_or_else(|| format!("member {name} has no raftAttributes"))?;
    let raft: RaftAttributes = serde_json::from_str(&raft.value).map_err(wrong)?;
    let attributes: Attributes = match node.child("attributes") {
        Some(node) => serde_json::from_str(&node.value).map_err(wrong)?,
        None => Attributes::default(),
    };
    Ok(Member {
        id: read_id(name)?,
        name: attributes.name,
        peer_urls: raft.peer_urls.unwrap_or_default(),
        client_urls: attributes.client_urls.unwrap_or_default(),
        learner: raft.learner,
    })
}

fn read_id(name: &str) -> Result<NodeId, String> {
    u64::from_str_radix(name, 16).map(NodeId).map_err(|error| format!("member id {name:?}: {error}"))
}
