//! The cluster's members with their ids, names and URLs: what etcd's servers replicate beside raft's
//! configuration.
//!
//! A [`Roster`] is a replicated state machine of its own: committed configuration changes go through
//! [`Roster::apply_change`], which decides the same on every member, and their effects go into the tables
//! `Members`, `MembersRemoved` and `Cluster` in etcd's form. Before a change is proposed, the leader asks
//! [`Roster::may_add`] and its like whether it is safe: that depends on who is reachable and may differ from
//! member to member, so it is never asked when applying.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use sha1::{Digest, Sha1};

use super::{Change, ChangeKind, ChangeStep, roster_json as json, urls};
use crate::{
    error::{Fault, Refusal},
    table::{Batch, Scan, Table, Tables},
    types::{ClusterId, NodeId},
};

/// The key of the cluster's version in [`Table::Cluster`].
const VERSION_KEY: &[u8] = b"clusterVersion";
/// What a removed member's id leads to in [`Table::MembersRemoved`].
const REMOVED_VALUE: &[u8] = b"removed";

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

impl Member {
    /// A member that is there from the cluster's start: its id follows from its URLs and the cluster's token,
    /// so that all members compute the same.
    pub fn initial(name: &str, peer_urls: &[String], token: &str) -> Self {
        let peer_urls = sorted(peer_urls);
        Self { id: member_id(&peer_urls, token), name: name.into(), peer_urls, ..Self::default() }
    }

    /// A member that is added to a running cluster at `unix_seconds`, which makes its id differ from that of an
    /// earlier member with the same URLs. It has no name before it has started.
    ///
    /// Fails with [`Refusal::BadMemberUrls`] unless `peer_urls` is a list of valid URLs.
    pub fn added(peer_urls: &[String], unix_seconds: u64, learner: bool) -> Result<Self, Refusal> {
        let peer_urls = urls::normalize(peer_urls).map_err(|_| Refusal::BadMemberUrls)?;
        let id = member_id(&peer_urls, &unix_seconds.to_string());
        Ok(Self { id, peer_urls, learner, ..Self::default() })
    }

    /// Whether it has ever started: only then it has a name.
    pub fn is_started(&self) -> bool {
        !self.name.is_empty()
    }

    /// The change that adds it to a running cluster.
    pub fn to_add(&self, request: u64) -> Change {
        let kind = if self.learner { ChangeKind::AddLearner } else { ChangeKind::AddVoter };
        self.change(request, kind)
    }

    fn change(&self, request: u64, kind: ChangeKind) -> Change {
        let context = json::context(self, false).into();
        Change::Single { id: request, step: ChangeStep { kind, node: self.id }, context }
    }
}

/// The change that takes a member out.
pub fn removal(request: u64, node: NodeId) -> Change {
    let step = ChangeStep { kind: ChangeKind::Remove, node };
    Change::Single { id: request, step, context: Bytes::new() }
}

/// The change that makes a learner a voter.
pub fn promotion(request: u64, node: NodeId) -> Change {
    let member = Member { id: node, ..Member::default() };
    let step = ChangeStep { kind: ChangeKind::AddVoter, node };
    Change::Single { id: request, step, context: json::context(&member, true).into() }
}

/// The change that gives a member other peer URLs. They are taken as they are: etcd does not look at them.
pub fn update(request: u64, node: NodeId, peer_urls: &[String]) -> Change {
    let member = Member { id: node, peer_urls: peer_urls.to_vec(), ..Member::default() };
    member.change(request, ChangeKind::Update)
}

fn sorted(urls: &[String]) -> Vec<String> {
    let mut urls = urls.to_vec();
    urls.sort();
    urls
}

/// etcd's id of a member: the first 8 bytes of SHA-1 over its sorted URLs and a salt, the cluster's token or
/// the second at which it was added.
fn member_id(sorted_urls: &[String], salt: &str) -> NodeId {
    let mut hash = Sha1::new();
    for url in sorted_urls {
        hash.update(url.as_bytes());
    }
    hash.update(salt.as_bytes());
    NodeId(first_u64(&hash.finalize()))
}

/// etcd's id of a cluster: the first 8 bytes of SHA-1 over its first members' ids in order.
fn cluster_id(members: &BTreeMap<NodeId, Member>) -> ClusterId {
    let mut hash = Sha1::new();
    for id in members.keys() {
        hash.update(id.0.to_be_bytes());
    }
    ClusterId(first_u64(&hash.finalize()))
}

fn first_u64(hash: &[u8]) -> u64 {
    hash.iter().take(8).fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

/// Why a new cluster can't be started with the members that were named.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BootstrapError {
    /// Two members have the same URLs.
    #[error("member exists with identical ID {0}")]
    SameId(NodeId),
    /// One would have the id that means nobody.
    #[error("cannot use 0 as member id")]
    NobodysId,
}

/// Who is reachable, as the leader's links see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Connectivity {
    /// This member.
    pub local: NodeId,
    /// The peers that are connected now.
    pub connected: BTreeSet<NodeId>,
    /// Those of them that have been so for [`HEALTHY_AFTER_MS`].
    pub healthy: BTreeSet<NodeId>,
}

/// How long a peer must have been connected before it counts as healthy.
pub const HEALTHY_AFTER_MS: u64 = 5_000;

impl Connectivity {
    /// How many of `members` are healthy; this one always is.
    fn healthy_among<'a>(&self, members: impl Iterator<Item = &'a Member>) -> usize {
        members.filter(|member| member.id == self.local || self.healthy.contains(&member.id)).count()
    }
}

/// The cluster's members, those that were removed, and the cluster's version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roster {
    pub(super) members: BTreeMap<NodeId, Member>,
    pub(super) removed: BTreeSet<NodeId>,
    pub(super) version: Option<String>,
}

impl Roster {
    /// The members of a new cluster: each name's peer URLs, and the cluster's token.
    pub fn initial(cluster: &BTreeMap<String, Vec<String>>, token: &str) -> Result<Self, BootstrapError> {
        let mut members = BTreeMap::new();
        for (name, peer_urls) in cluster {
            let member = Member::initial(name, peer_urls, token);
            if member.id == NodeId(0) {
                return Err(BootstrapError::NobodysId);
            }
            let id = member.id;
            if members.insert(id, member).is_some() {
                return Err(BootstrapError::SameId(id));
            }
        }
        Ok(Self { members, ..Self::default() })
    }

    /// The id of the cluster that starts with these members. It stays, whoever comes and goes.
    pub fn initial_cluster_id(&self) -> ClusterId {
        cluster_id(&self.members)
    }

    /// What a new cluster's log begins with: a change for each member in order of id. The first has index 1,
    /// all have term 1, and all are committed.
    pub fn bootstrap_changes(&self) -> Vec<Change> {
        self.members.values().map(|member| member.change(0, ChangeKind::AddVoter)).collect()
    }

    /// The roster that the tables hold.
    pub fn load(tables: &impl Tables) -> Result<Self, Fault> {
        let mut roster = Self::default();
        let mut broken = None;
        tables.scan(Table::Members, b"", None, &mut |key, value| match json::member(value) {
            Ok(member) if hex_key(member.id).as_bytes() == key => {
                roster.members.insert(member.id, member);
                Scan::Continue
            }
            Ok(_) | Err(_) => {
                broken = Some((Table::Members, String::from_utf8_lossy(key).into_owned()));
                Scan::Stop
            }
        })?;
        tables.scan(Table::MembersRemoved, b"", None, &mut |key, _| match parse_hex(key) {
            Some(id) => {
                roster.removed.insert(id);
                Scan::Continue
            }
            None => {
                broken = Some((Table::MembersRemoved, String::from_utf8_lossy(key).into_owned()));
                Scan::Stop
            }
        })?;
        if let Some((table, key)) = broken {
            return Err(Fault::corrupt(format!(
                "the table {} holds a member that can't be read, under {key:?}: take the tables away, so that \
                 they are rebuilt from the log or from the other members",
                table.name()
            )));
        }
        let version = tables.get(Table::Cluster, VERSION_KEY)?;
        roster.version = version.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        Ok(roster)
    }

    /// Puts all of it into a batch: for tables that hold nothing of it yet.
    pub fn store(&self, batch: &mut Batch) {
        for member in self.members.values() {
            put_member(member, batch);
        }
        for id in &self.removed {
            batch.put(Table::MembersRemoved, hex_key(*id), REMOVED_VALUE);
        }
        if let Some(version) = &self.version {
            batch.put(Table::Cluster, VERSION_KEY, version.clone());
        }
    }

    /// The members in order of id.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    /// A member.
    pub fn member(&self, id: NodeId) -> Option<&Member> {
        self.members.get(&id)
    }

    /// The member with exactly these peer URLs, in any order.
    pub fn member_by_peer_urls(&self, peer_urls: &[String]) -> Option<&Member> {
        let wanted = sorted(peer_urls);
        self.members.values().find(|member| sorted(&member.peer_urls) == wanted)
    }

    /// The members that vote, in order of id.
    pub fn voters(&self) -> impl Iterator<Item = &Member> {
        self.members.values().filter(|member| !member.learner)
    }

    /// Whether a member was removed. Its id never comes back.
    pub fn is_removed(&self, id: NodeId) -> bool {
        self.removed.contains(&id)
    }

    /// The ids that were removed.
    pub fn removed(&self) -> impl Iterator<Item = NodeId> {
        self.removed.iter().copied()
    }

    /// The version that all members speak, as `3.5.0`; None until the leader has decided.
    pub fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    /// Sets the version that all members speak.
    pub fn set_version(&mut self, version: &str, batch: &mut Batch) {
        self.version = Some(version.into());
        batch.put(Table::Cluster, VERSION_KEY, version.to_owned());
    }

    /// Takes in what a member says of itself. False, and nothing happens, if there is no such member: it may
    /// have been removed since it spoke.
    pub fn set_attributes(
        &mut self,
        id: NodeId,
        name: &str,
        client_urls: &[String],
        batch: &mut Batch,
    ) -> bool {
        let Some(member) = self.members.get_mut(&id) else { return false };
        name.clone_into(&mut member.name);
        member.client_urls = client_urls.to_vec();
        put_member(member, batch);
        true
    }

    /// Whether a committed change would be taken; the same on each member.
    ///
    /// `learners_max` must be the same on each member, too.
    pub fn check(&self, change: &Change, learners_max: usize) -> Result<(), Refusal> {
        self.action(change, learners_max).map(|_| ())
    }

    /// Applies a committed change, and returns the members after it, or why it was refused, and the change that
    /// raft is to apply: a refused one does nothing there, since its node is 0.
    pub fn apply_change(
        &mut self,
        change: &Change,
        learners_max: usize,
        batch: &mut Batch,
    ) -> (Result<Vec<Member>, Refusal>, Change) {
        match self.action(change, learners_max) {
            Ok(action) => {
                self.act(action, batch);
                (Ok(self.members.values().cloned().collect()), change.clone())
            }
            Err(refusal) => (Err(refusal), neutralized(change)),
        }
    }

    /// What a change does to the roster.
    fn action(&self, change: &Change, learners_max: usize) -> Result<Action, Refusal> {
        let (step, context) = match change {
            Change::Single { step, context, .. } => (*step, context),
            // etcd writes none, and its steps would each want a context. Raft may still leave a joint
            // configuration with one.
            Change::Joint { steps, .. } if steps.is_empty() => return Ok(Action::Nothing),
            Change::Joint { .. } => return Err(Refusal::NotCapable),
        };
        let id = step.node;
        if id == NodeId(0) {
            return Ok(Action::Nothing);
        }
        if self.removed.contains(&id) {
            return Err(Refusal::MemberNotFound);
        }
        match step.kind {
            ChangeKind::AddVoter | ChangeKind::AddLearner => {
                let (member, promote) = self.context(id, context)?;
                match (promote, step.kind) {
                    (false, kind) => self.addition(member, kind, learners_max),
                    (true, ChangeKind::AddVoter) => self.promotion(id),
                    // Raft would make a learner of who is a voter here.
                    (true, ChangeKind::AddLearner | ChangeKind::Remove | ChangeKind::Update) => {
                        Err(Refusal::MemberNotLearner)
                    }
                }
            }
            ChangeKind::Remove => {
                self.members.get(&id).ok_or(Refusal::MemberNotFound)?;
                Ok(Action::Remove(id))
            }
            ChangeKind::Update => {
                self.members.get(&id).ok_or(Refusal::MemberNotFound)?;
                let (member, _) = self.context(id, context)?;
                self.check_urls(&member, Some(id))?;
                Ok(Action::Update(id, member.peer_urls))
            }
        }
    }

    /// The member that a change carries. etcd panics on one that it can't read; we refuse the change.
    fn context(&self, id: NodeId, context: &[u8]) -> Result<(Member, bool), Refusal> {
        match json::parse_context(context) {
            Ok((member, promote)) if member.id == id => Ok((member, promote)),
            Ok(_) | Err(_) => Err(Refusal::BadMemberUrls),
        }
    }

    fn promotion(&self, id: NodeId) -> Result<Action, Refusal> {
        let member = self.members.get(&id).ok_or(Refusal::MemberNotFound)?;
        if member.learner { Ok(Action::Promote(id)) } else { Err(Refusal::MemberNotLearner) }
    }

    fn addition(&self, mut member: Member, kind: ChangeKind, learners_max: usize) -> Result<Action, Refusal> {
        if self.members.contains_key(&member.id) {
            return Err(Refusal::MemberExists);
        }
        self.check_urls(&member, None)?;
        // Raft's part decides; the two never differ in what etcd writes.
        member.learner = kind == ChangeKind::AddLearner;
        let learners = self.members.values().filter(|member| member.learner).count();
        if member.learner && learners >= learners_max {
            return Err(Refusal::TooManyLearners);
        }
        Ok(Action::Add(member))
    }

    /// No two members may share a peer URL.
    fn check_urls(&self, member: &Member, except: Option<NodeId>) -> Result<(), Refusal> {
        let others = self.members.values().filter(|other| Some(other.id) != except);
        let taken: BTreeSet<&String> = others.flat_map(|other| &other.peer_urls).collect();
        if member.peer_urls.iter().any(|url| taken.contains(url)) {
            return Err(Refusal::PeerUrlExists);
        }
        Ok(())
    }

    fn act(&mut self, action: Action, batch: &mut Batch) {
        let changed = match action {
            Action::Nothing => return,
            Action::Add(member) => self.members.entry(member.id).or_insert(member),
            Action::Remove(id) => {
                self.members.remove(&id);
                self.removed.insert(id);
                batch.delete(Table::Members, hex_key(id));
                batch.put(Table::MembersRemoved, hex_key(id), REMOVED_VALUE);
                return;
            }
            Action::Promote(id) => {
                let member = self.members.get_mut(&id).expect("the check has seen it");
                member.learner = false;
                member
            }
            // etcd 3.5 up to .30 makes a voter of a learner here, in its list though not in raft.
            Action::Update(id, peer_urls) => {
                let member = self.members.get_mut(&id).expect("the check has seen it");
                member.peer_urls = peer_urls;
                member
            }
        };
        put_member(changed, batch);
    }
}

/// What a change that passed its checks does.
enum Action {
    Nothing,
    Add(Member),
    Remove(NodeId),
    Promote(NodeId),
    Update(NodeId, Vec<String>),
}

/// What the leader asks before it proposes a change, while `--strict-reconfig-check` is on.
impl Roster {
    /// Whether a member may be added: enough voters must have started for a quorum of the grown cluster, and
    /// all voters must be reachable.
    pub fn may_add(&self, learner: bool, connectivity: &Connectivity) -> Result<(), Refusal> {
        if !learner {
            let (voters, started) = self.count_voters(None);
            // One that grows to two is let through, or a restored cluster could never grow.
            let lone = voters == 1 && started == 1;
            if !lone && started < quorum(voters + 1) {
                return Err(Refusal::NotEnoughStartedMembers);
            }
        }
        if connectivity.healthy_among(self.voters()) < self.voters().count() {
            return Err(Refusal::Unhealthy);
        }
        Ok(())
    }

    /// Whether a member may be removed: what stays must have a quorum of started voters, and taking out a
    /// reachable voter must leave a reachable quorum. Learners may always go.
    pub fn may_remove(&self, id: NodeId, connectivity: &Connectivity) -> Result<(), Refusal> {
        if self.members.get(&id).is_some_and(|member| member.learner) {
            return Ok(());
        }
        let (voters, started) = self.count_voters(Some(id));
        if started < quorum(voters) {
            return Err(Refusal::NotEnoughStartedMembers);
        }
        // One that is down is in no quorum that its removal could break.
        if id != connectivity.local && !connectivity.connected.contains(&id) {
            return Ok(());
        }
        let healthy = connectivity.healthy_among(self.voters());
        let others = self.voters().count().saturating_sub(1);
        if healthy.saturating_sub(1) < quorum(others) {
            return Err(Refusal::Unhealthy);
        }
        Ok(())
    }

    /// Whether a learner may be promoted: counted as a started voter, there must be a quorum of such. That it
    /// has caught up is the leader's to know.
    pub fn may_promote(&self) -> Result<(), Refusal> {
        let (voters, started) = self.count_voters(None);
        if started + 1 < quorum(voters + 1) { Err(Refusal::NotEnoughStartedMembers) } else { Ok(()) }
    }

    /// How many voters there are beside `except`, and how many of them have started.
    fn count_voters(&self, except: Option<NodeId>) -> (usize, usize) {
        let voters = || self.voters().filter(|member| Some(member.id) != except);
        (voters().count(), voters().filter(|member| member.is_started()).count())
    }
}

/// The smallest number that is more than half of `members`.
fn quorum(members: usize) -> usize {
    members / 2 + 1
}

/// The change with its effects on raft taken out.
fn neutralized(change: &Change) -> Change {
    match change {
        Change::Single { id, step, context } => {
            let step = ChangeStep { kind: step.kind, node: NodeId(0) };
            Change::Single { id: *id, step, context: context.clone() }
        }
        // A joint change of no steps would leave a joint configuration, one of steps enter it.
        Change::Joint { .. } => {
            let step = ChangeStep { kind: ChangeKind::Update, node: NodeId(0) };
            Change::Single { id: 0, step, context: Bytes::new() }
        }
    }
}

fn put_member(member: &Member, batch: &mut Batch) {
    batch.put(Table::Members, hex_key(member.id), json::context(member, false));
}

/// etcd's key of a member: its id in lowercase hex, not padded.
fn hex_key(id: NodeId) -> String {
    id.to_string()
}

fn parse_hex(key: &[u8]) -> Option<NodeId> {
    let text = std::str::from_utf8(key).ok()?;
    u64::from_str_radix(text, 16).ok().map(NodeId)
}
