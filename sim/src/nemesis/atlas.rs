//! The fault atlas: who holds a good copy of what is committed, and so what may be lost.

use super::Nemesis;
use crate::{host::Host, lock::lock, net::Address};

impl<H: Host> Nemesis<H> {
    /// Whether the others hold all that is committed, now and when this member has lost everything.
    pub(super) fn may_lose(&self, member: Address) -> bool {
        // Who does not know yet that a member is out goes on asking it for its vote.
        let living =
            self.world.living().into_iter().filter(|other| *other != member && self.is_sound(*other));
        let views = living.map(|other| (other, self.world.voters_known_to(other)));
        let views = views.filter(|(other, voters)| voters.contains(other)).map(|(_, voters)| voters);
        views.chain([self.world.voters()]).all(|voters| self.do_without(member, &voters))
    }

    /// Whether most of these voters are sound, and another one than this.
    fn do_without(&self, member: Address, voters: &[Address]) -> bool {
        // Who may become a voter at any time takes part in a majority, and may not be there to make one.
        let promoting = lock(&self.promoting).clone();
        let coming = |address: &Address| {
            !voters.contains(address) && self.world.id(*address).is_some_and(|id| promoting.contains(&id))
        };
        let coming = self.world.living().into_iter().filter(coming).count();
        let sound = |voter: &&Address| **voter != member && self.is_sound(**voter);
        voters.iter().filter(sound).count() * 2 > voters.len() + coming
    }

    /// Whether those who vote then hold all that is committed, now and when this member is gone.
    pub(super) fn may_remove(&self, member: Address) -> bool {
        let voters = self.world.voters();
        let left: Vec<_> = voters.into_iter().filter(|voter| *voter != member).collect();
        left.iter().filter(|voter| self.is_sound(**voter)).count() * 2 > left.len()
    }

    /// Whether a member is counted on: it runs on a sound disk, and nobody has asked for its removal.
    fn is_sound(&self, member: Address) -> bool {
        let leaving = lock(&self.leaving).clone();
        self.world.runs(member)
            && self.world.living().contains(&member)
            && !self.world.excused().contains(&member)
            && self.world.id(member).is_none_or(|id| !leaving.contains(&id))
    }
}
