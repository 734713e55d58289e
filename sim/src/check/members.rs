//! Members are what was asked for, and whoever lists them names those by which raft counts.

use std::collections::BTreeSet;

use kontiki::wire::etcdserverpb as pb;

use super::{
    Violation,
    linear::{LISTED_MAX, violation},
};
use crate::history::{Call, History, Op, Outcome, Reply};

/// The members that an answer lists.
fn listed(op: &Op) -> Option<&[pb::Member]> {
    match &op.outcome {
        Outcome::Ok(Reply::MemberAdd(reply)) => Some(&reply.members),
        Outcome::Ok(Reply::MemberRemove(reply)) => Some(&reply.members),
        Outcome::Ok(Reply::MemberUpdate(reply)) => Some(&reply.members),
        Outcome::Ok(Reply::MemberList(reply)) => Some(&reply.members),
        Outcome::Ok(Reply::MemberPromote(reply)) => Some(&reply.members),
        Outcome::Ok(_) | Outcome::Refused { .. } | Outcome::Unknown(_) => None,
    }
}

/// Who is added is added as what it was asked for.
fn added(op: &Op) -> Option<Violation> {
    let (Call::MemberAdd(asked), Outcome::Ok(Reply::MemberAdd(reply))) = (&op.call, &op.outcome) else {
        return None;
    };
    let member = reply.member.as_ref()?;
    let kind = |learner| if learner { "learner" } else { "voter" };
    (member.is_learner != asked.is_learner).then(|| {
        let text = format!(
            "a {} was asked for, and {:x} was added as a {}",
            kind(asked.is_learner),
            member.id,
            kind(member.is_learner)
        );
        violation("members/added", text, &[op])
    })
}

/// A member stopped because it was removed, by what it says: somebody has asked for that.
pub fn removed(history: &History, member: u32, id: u64) -> Option<String> {
    let removes = |op: &Op| matches!(&op.call, Call::MemberRemove(asked) if asked.id == id);
    (!history.ops.iter().any(removes))
        .then(|| format!("member {member} stopped as removed, and nobody had removed it"))
}

/// Checks what is said of members.
pub fn check(history: &History) -> Vec<Violation> {
    let ids = |ids: &[u64]| ids.iter().copied().collect::<BTreeSet<u64>>();
    let known: BTreeSet<_> =
        history.configs.iter().map(|config| (ids(&config.voters), ids(&config.learners))).collect();
    let mut violations: Vec<Violation> = history.ops.iter().filter_map(added).collect();
    if known.is_empty() {
        return violations;
    }
    for op in &history.ops {
        let Some(members) = listed(op) else { continue };
        let of = |learner| {
            let some = members.iter().filter(|member| member.is_learner == learner);
            some.map(|member| member.id).collect::<BTreeSet<u64>>()
        };
        let said = (of(false), of(true));
        if !known.contains(&said) {
            let text = format!(
                "member {} lists the voters {:x?} and the learners {:x?}, by which raft has never counted",
                op.member, said.0, said.1
            );
            violations.push(violation("members/listed", text, &[op]));
        }
    }
    violations.truncate(LISTED_MAX);
    violations
}
