//! What operators do: members join, are replaced, updated and removed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::MutexGuard,
};

use kontiki::{types::NodeId, wire::etcdserverpb as pb};

use super::{Nemesis, OPERATOR_MAX};
use crate::{
    history::{Call, Outcome, Reply},
    host::{Host, Micros},
    lock::lock,
    net::{Address, peer_url},
    plan::{Fault, Moment},
    world::{End, name},
};

/// How often a change of the members is tried.
const TRIES_MAX: usize = 12;

/// How often a new member is started until it has joined.
const JOIN_TRIES_MAX: usize = 40;

/// By when a member that was removed has stopped by itself.
const LEAVES_WITHIN: Micros = 3_000_000;

/// How large a cluster grows.
const MEMBERS_MAX: usize = 7;

/// Refusals after which an operator tries again.
const RETRIED: [&str; 6] = [
    "unhealthy",
    "not enough started members",
    "too many",
    "in sync with leader",
    // It has logged in anew meanwhile.
    "user name is empty",
    "invalid auth token",
];

/// Refusals that tell how things are, whoever made them so.
const TELLING: [&str; 2] = ["already exist", "not found"];

impl<H: Host> Nemesis<H> {
    fn changing(&self) -> MutexGuard<'_, BTreeSet<Address>> {
        lock(&self.changing)
    }

    /// Changes a member, unless somebody else does.
    pub(super) async fn alone(&self, member: Address, change: impl Future<Output = ()>) {
        {
            let mut changing = self.changing();
            if self.world.knobs.one_operator && !changing.is_empty() || !changing.insert(member) {
                return;
            }
        }
        change.await;
        self.changing().remove(&member);
    }

    /// Sets a member's peer URLs to what they are.
    pub(super) async fn update(&self, member: Address) {
        if let Some(NodeId(id)) = self.world.id(member) {
            self.ask(pb::MemberUpdateRequest { id, peer_ur_ls: vec![peer_url(member)] }).await;
        }
    }

    /// Asks members until one says something certain, and gives what it says.
    async fn ask(&self, call: impl Into<Call>) -> Option<Outcome> {
        let call = call.into();
        let mut open = false;
        for _ in 0..TRIES_MAX {
            if self.world.host.now() > self.calm_from + OPERATOR_MAX {
                break;
            }
            // Anybody can pass it on.
            let leader = self.world.leader().filter(|_| self.rng.chance(750_000));
            let member = leader.unwrap_or_else(|| *self.rng.pick(&self.world.living()));
            let outcome = self.operator.call(member, call.clone()).await;
            let refused = |texts: &[&str]| matches!(&outcome, Outcome::Refused { message, .. } if texts.iter().any(|text| message.contains(text)));
            if outcome.is_unknown() {
                open = true;
            } else if !refused(&RETRIED) {
                let says = outcome.reply().is_some() || !open || refused(&TELLING);
                return says.then_some(outcome);
            }
            self.world.host.sleep(500_000).await;
        }
        None
    }

    /// Takes a member out of the cluster; true if it is certain that it is out.
    async fn remove(&self, member: Address, id: NodeId) -> bool {
        if self.world.voters().len() < 3 {
            self.world.doom();
        }
        let leaving = || lock(&self.leaving);
        leaving().insert(id);
        self.world.moments.come(Moment::Asked, member);
        match self.ask(pb::MemberRemoveRequest { id: id.0 }).await {
            Some(Outcome::Ok(_)) => true,
            Some(Outcome::Refused { message, .. }) => message.contains("not found"),
            Some(Outcome::Unknown(_)) | None => false,
        }
    }

    /// Adds a member at an address and starts it there, on an empty disk, until it has joined.
    async fn add(&self, address: Address, learner: bool) -> Option<NodeId> {
        let url = peer_url(address);
        let added =
            self.ask(pb::MemberAddRequest { peer_ur_ls: vec![url.clone()], is_learner: learner }).await;
        if matches!(&added, Some(Outcome::Refused { message, .. }) if !message.contains("already exist")) {
            return None;
        }
        // Nobody may be there to ask for more, where the new member is needed for a quorum.
        let told = match added {
            Some(Outcome::Ok(Reply::MemberAdd(reply))) => {
                Some((reply.header.map_or(0, |header| header.member_id), reply.members))
            }
            _ => None,
        };
        for turn in 0..JOIN_TRIES_MAX {
            if self.world.host.now() > self.calm_from + 2 * OPERATOR_MAX {
                break;
            }
            // As it is now: a change that was not answered may have been made later.
            let (mut teller, mut members) = self.members().await;
            // It may have come up meanwhile, whoever started it: then its disk holds promises.
            if let Some(id) = self.world.id(address) {
                return Some(id);
            }
            if members.is_empty() {
                (teller, members) = told.clone().unwrap_or_else(|| (0, self.assumed(address, turn % 2 == 1)));
            }
            let joining = members.iter().find(|m| m.peer_ur_ls.contains(&url)).map(|m| NodeId(m.id));
            if let (Some(id), false) = (joining, self.world.runs(address)) {
                // It asks the others in the order of their names, and believes the first. One that is behind, and stays
                // so until there is a quorum, must not be the first for ever.
                let own = |m: &pb::Member| match m.id {
                    own if own == id.0 => name(address),
                    first if first == teller && turn % 2 == 1 => format!("a{first:x}"),
                    other => format!("x{other:x}"),
                };
                let cluster = members.iter().map(|m| (own(m), m.peer_ur_ls.clone())).collect();
                self.world.wipe(address, cluster);
                self.world.start(address);
            }
            self.world.host.sleep(1_000_000).await;
        }
        None
    }

    /// The members as they are if the one at `address` was added, and if those were that never started, or not.
    fn assumed(&self, address: Address, all: bool) -> Vec<pb::Member> {
        let others = self.world.living().into_iter();
        let others = others.filter(|other| *other != address && (all || self.world.id(*other).is_some()));
        let member = |at: Address| pb::Member {
            // Any number does for one that nobody knows.
            id: self.world.id(at).map_or(at.into(), |id| id.0),
            peer_ur_ls: vec![peer_url(at)],
            ..Default::default()
        };
        others.chain([address]).map(member).collect()
    }

    /// The members as anybody who answers knows them, and who that is.
    async fn members(&self) -> (u64, Vec<pb::Member>) {
        let member = self.world.leader().unwrap_or_else(|| *self.rng.pick(&self.world.living()));
        match self.operator.call(member, pb::MemberListRequest { linearizable: false }).await {
            Outcome::Ok(Reply::MemberList(reply)) => {
                (reply.header.map_or(0, |header| header.member_id), reply.members)
            }
            _ => (0, Vec::new()),
        }
    }

    async fn promote(&self, member: Address, id: NodeId) {
        if self.world.excused().contains(&member) {
            // Its disk is damaged, which may not have shown yet.
            return;
        }
        self.world.moments.come(Moment::Asked, member);
        lock(&self.promoting).insert(id);
        let refused =
            matches!(self.ask(pb::MemberPromoteRequest { id: id.0 }).await, Some(Outcome::Refused { .. }));
        if refused {
            lock(&self.promoting).remove(&id);
        }
    }

    pub(super) async fn replace(&self, member: Address, learner: bool, down: Micros) {
        let Some(id) = self.world.id(member) else { return };
        if !self.may_lose(member) || self.world.living().len() < 3 {
            return;
        }
        self.world.crash(member, End::Power);
        self.world.give_up(member);
        if !self.remove(member, id).await {
            // It may be out or not: as it is, it can come back and find out.
            self.world.take_back(member);
            self.world.start(member);
            return;
        }
        self.wait(down).await;
        // Whoever starts here from now on is not who was removed.
        self.world.wipe(member, BTreeMap::new());
        self.world.give_up(member);
        match self.add(member, learner).await {
            Some(id) if learner => self.promote(member, id).await,
            Some(_) => {}
            None => self.world.give_up(member),
        }
    }

    pub(super) async fn join(&self, fault: &Fault, address: Address, learner: bool, promote: bool) {
        if self.world.living().len() >= MEMBERS_MAX {
            return;
        }
        self.note(0, fault);
        self.world.add_slot(address, BTreeMap::new(), true);
        self.world.give_up(address);
        let Some(id) = self.add(address, learner).await else { return };
        if self.rng.chance(300_000) {
            self.update(address).await;
        }
        if learner && promote {
            self.promote(address, id).await;
        }
    }

    pub(super) async fn leave(&self, member: Address, linger: Micros) {
        // Until the others know that it is out they count on it.
        let stays = if self.may_lose(member) { 0 } else { LEAVES_WITHIN };
        if let Some(id) = self.world.id(member)
            && self.world.living().len() > 1
            && self.may_remove(member)
            && self.remove(member, id).await
        {
            self.world.give_up(member);
            self.wait(linger.max(stays)).await;
            self.world.crash(member, End::Kill);
        }
    }
}
