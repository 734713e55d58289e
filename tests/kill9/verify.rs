//! What must hold once the storm is over.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use kontiki::wire::{RawKeyValue, etcdserverpb as pb};

use super::{
    cluster::{Cluster, Contact, retried},
    seen::{Record, Seen, State, replay},
};

/// How many moments of the past are read back.
const MOMENTS: usize = 40;

/// Each member's watch saw the same; the first one's.
pub fn same_events(watches: &[Vec<Seen>]) -> &[Seen] {
    let (first, others) = watches.split_first().expect("there are watches");
    for (at, other) in (1..).zip(others) {
        let differs = first.iter().zip(other).find(|(a, b)| !a.same(b));
        assert!(differs.is_none(), "the watches at 0 and {at} differ: {differs:?}");
        assert_eq!(first.len(), other.len(), "the watches at 0 and {at} saw as many events");
    }
    first
}

/// Each acknowledged write is in the history at its revision, whole, and no value is there twice.
pub fn acknowledged_are_there(events: &[Seen], record: &Record) {
    let mut by_revision: BTreeMap<i64, Vec<&Seen>> = BTreeMap::new();
    let mut values = BTreeSet::new();
    for seen in events {
        by_revision.entry(seen.revision()).or_default().push(seen);
        if !seen.deletes {
            assert!(values.insert((&seen.kv.key, &seen.kv.value)), "written twice: {seen:?}");
        }
    }
    let acknowledged = record.acknowledged.lock().expect("no client panics with it");
    assert!(!acknowledged.is_empty(), "nothing was acknowledged");
    for (revision, writes) in acknowledged.iter() {
        let found: Vec<(String, Option<String>)> = by_revision
            .get(revision)
            .unwrap_or_else(|| panic!("revision {revision} was acknowledged for {writes:?} and is not there"))
            .iter()
            .map(|seen| {
                let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
                (text(&seen.kv.key), (!seen.deletes).then(|| text(&seen.kv.value)))
            })
            .collect();
        assert_eq!(&found, writes, "acknowledged at revision {revision}");
    }
}

/// What the events make is what ranges read, at the end and at moments of the past.
pub async fn ranges_agree(events: &[Seen], contacts: &[Contact]) {
    let step = events.len().div_ceil(MOMENTS).max(1);
    let mut state = State::new();
    let mut moment = 0;
    for (at, seen) in events.iter().enumerate() {
        replay(&mut state, seen);
        let revision = seen.revision();
        let whole = events.get(at + 1).is_none_or(|next| next.revision() > revision);
        let due = at >= moment * step || at + 1 == events.len();
        if whole && due {
            let contact = &contacts[moment % contacts.len()];
            assert_eq!(read_all(contact, revision).await, state, "{} at revision {revision}", contact.name);
            moment += 1;
        }
    }
}

async fn read_all(contact: &Contact, revision: i64) -> State {
    let request = pb::RangeRequest {
        key: Bytes::from_static(b"\0"),
        range_end: Bytes::from_static(b"\0"),
        revision,
        ..Default::default()
    };
    let answer = retried(|| {
        let mut client = contact.kv().max_decoding_message_size(usize::MAX);
        let request = request.clone();
        async move { client.range(request).await }
    })
    .await;
    let decode = |kv: RawKeyValue| kv.decode_kv().expect("a key-value decodes");
    answer.kvs.into_iter().map(decode).map(|kv| (kv.key.clone(), kv)).collect()
}

/// Leases that nobody kept have ended, and not before their time.
pub fn abandoned_have_ended(events: &[Seen], record: &Record) {
    let ends: BTreeMap<&[u8], &Seen> =
        events.iter().filter(|s| s.deletes).map(|s| (s.kv.key.as_ref(), s)).collect();
    for lease in record.abandoned.lock().expect("no client panics with it").iter() {
        let end = ends.get(lease.key.as_bytes()).unwrap_or_else(|| panic!("{lease:?} has not ended"));
        let lived = end.at - lease.asked;
        assert!(lived >= Duration::from_secs(lease.seconds), "{lease:?} ended after {lived:?}");
    }
}

/// The members agree on everything up to `revision`; the hash.
pub async fn same_hash(cluster: &Cluster, members: &[usize], revision: i64) -> u32 {
    let mut hashes = Vec::new();
    for at in members {
        let contact = &cluster.members[*at].contact;
        let answer = retried(|| {
            let mut client = contact.maintenance();
            async move { client.hash_kv(pb::HashKvRequest { revision }).await }
        })
        .await;
        // etcd 3.5.1 does not tell.
        assert!([0, revision].contains(&answer.hash_revision), "{answer:?}");
        hashes.push(answer.hash);
    }
    let first = hashes[0];
    assert!(hashes.iter().all(|hash| *hash == first), "the members differ at {revision}: {hashes:?}");
    first
}
