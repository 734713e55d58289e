//! Leases as their clients count them: none ends before its client thinks so, and all end.

use std::collections::BTreeMap;

use kontiki::{
    lease::{Book, Expirer, ExpirerConfig, Renewal},
    state::LeaseChange,
    types::{Instant, LeaseId},
};

/// What happens, with ids, seconds and milliseconds.
#[derive(Clone, Debug)]
pub enum Step {
    Grant(i64, i64),
    Renew(i64),
    Revoke(i64),
    Wait(u64),
    Due(usize),
}

/// Goes through the steps, then to the end of all leases.
pub fn check(steps: impl IntoIterator<Item = Step>) {
    let mut expirer = Expirer::new(ExpirerConfig::default(), Book::default().seconds(), 1000, Instant(0));
    // When each lease is over, as its client counts.
    let mut ends: BTreeMap<i64, (u64, i64)> = BTreeMap::new();
    let mut now = 0;
    for step in steps {
        match step {
            Step::Grant(id, ttl) => {
                if let std::collections::btree_map::Entry::Vacant(lease) = ends.entry(id) {
                    lease.insert((now + ttl as u64 * 1000, ttl));
                    expirer.applied(LeaseChange::Granted(LeaseId(id), ttl), Instant(now));
                }
            }
            Step::Renew(id) => {
                let wanted = match ends.get_mut(&id) {
                    None => Renewal::NotFound,
                    Some((end, _)) if *end <= now => Renewal::Ending,
                    Some((end, ttl)) => {
                        *end = now + *ttl as u64 * 1000;
                        Renewal::Renewed(*ttl)
                    }
                };
                assert_eq!(expirer.renew(LeaseId(id), Instant(now)), wanted);
            }
            Step::Revoke(id) => {
                ends.remove(&id);
                expirer.applied(LeaseChange::Revoked(LeaseId(id)), Instant(now));
            }
            Step::Wait(ms) => now += ms,
            Step::Due(max) => {
                let due = expirer.due(Instant(now), max);
                assert!(due.len() <= max);
                assert!(due.iter().all(|id| ends[&id.0].0 <= now), "{due:?} of {ends:?} at {now}");
            }
        }
    }
    // All end, if what is due is revoked.
    for _ in 0..20 {
        if ends.is_empty() {
            break;
        }
        let wake = expirer.next_wake().unwrap();
        now = now.max(wake.0);
        for id in expirer.due(Instant(now), 9) {
            ends.remove(&id.0);
            expirer.applied(LeaseChange::Revoked(id), Instant(now));
        }
    }
    assert!(ends.is_empty());
    assert_eq!(expirer.next_wake(), None);
}
