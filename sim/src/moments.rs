//! Moments of members that a fault waits for: where two steps of a member have to be one, a crash right behind the
//! first shows whether they are.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use tokio::sync::oneshot;

use crate::{lock::lock, net::Address, plan::Moment};

/// Who waits for which moment. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct Moments(Arc<Mutex<BTreeMap<Moment, Vec<Waiting>>>>);

#[derive(Debug)]
struct Waiting {
    /// How many come before the one that is waited for.
    skip: u64,
    tell: oneshot::Sender<Address>,
}

impl Moments {
    /// Tells at which member the next moment of a kind comes, but for the first `skip`.
    pub fn next(&self, moment: Moment, skip: u64) -> oneshot::Receiver<Address> {
        let (tell, told) = oneshot::channel();
        let mut waiting = lock(&self.0);
        waiting.entry(moment).or_default().push(Waiting { skip, tell });
        told
    }

    /// It has come at a member.
    pub fn come(&self, moment: Moment, member: Address) {
        let mut all = lock(&self.0);
        let Some(waiting) = all.get_mut(&moment) else { return };
        for one in std::mem::take(waiting) {
            if one.skip > 0 {
                waiting.push(Waiting { skip: one.skip - 1, ..one });
            } else {
                // Whoever waited may be gone.
                let _ = one.tell.send(member);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_told_once_to_who_waits_for_it() {
        let moments = Moments::default();
        let (mut first, mut third) = (moments.next(Moment::Leads, 0), moments.next(Moment::Leads, 2));
        moments.come(Moment::Votes, 9);
        assert!(first.try_recv().is_err());
        for member in 1..=3 {
            moments.come(Moment::Leads, member);
        }
        assert_eq!((first.try_recv(), third.try_recv()), (Ok(1), Ok(3)));
    }
}
