//! Taking turns: what locks and elections have in common.
//!
//! Who wants a name puts a key of its own under it, `name/lease`. The oldest key has the name; each other waits
//! for the one just before its own to go, so that a release wakes one, not all. A key lives as long as its
//! lease, so who is gone is passed over.
//!
//! Where we are stricter than etcd: the server keeps a lease that it granted alive for as long as the call waits
//! (etcd's runs out), a call that ends without its turn gives up no place that an earlier call took, and a
//! candidate, like a lock, is asked after its wait whether its key is still there.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::{
    Charge, Member, WatchStream,
    client::{Client, Credentials},
    quota,
};
use crate::{
    auth::Need,
    error::Refusal,
    mvcc::{
        Compare, CompareResult, CompareTarget, DeleteRequest, Op, OpResponse, PutRequest, RangeRequest,
        SortOrder, SortTarget, TxnRequest, TxnResponse,
    },
    server::Header,
    state::{Command, Reply},
    types::{KeyRange, KeyValue, LeaseId, RangeEnd, Revision},
    watch::{Create, WatchRequest},
};

/// Seconds that a lease lives which a call without one gets; etcd's.
const SESSION_SECONDS: i64 = 60;

/// How often it is renewed while the call waits.
const SESSION_RENEWAL: Duration = Duration::from_secs(SESSION_SECONDS as u64 / 3);

/// A place in the line for a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Its key.
    pub key: Bytes,
    /// The revision that made the key: the older is served first.
    pub created: Revision,
    /// What it lives by.
    pub lease: LeaseId,
}

/// A turn: the place is the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Turn {
    pub place: Place,
    /// The header of the transaction that took the place.
    pub taken: Header,
    /// The header of what found it to be the first.
    pub found_first: Header,
}

/// All keys under `name`.
pub(super) fn line(name: &[u8]) -> KeyRange {
    // '0' is the character after '/'.
    let with = |last: u8| [name, &[last]].concat().into();
    KeyRange { start: with(b'/'), end: RangeEnd::Before(with(b'0')) }
}

/// The key of a lease under `name`: its number as Go prints it in hex.
fn key_of(name: &[u8], lease: LeaseId) -> Bytes {
    let sign = if lease.0 < 0 { "-" } else { "" };
    [name, format!("/{sign}{:x}", lease.0.unsigned_abs()).as_bytes()].concat().into()
}

/// The oldest (or the youngest) key of a line, of those made at `made_max` or before if that is not 0.
fn one_of(line: KeyRange, order: SortOrder, made_max: Revision) -> RangeRequest {
    RangeRequest {
        limit: 1,
        sort_order: order,
        sort_target: SortTarget::Create,
        max_create_revision: made_max,
        ..RangeRequest::of(line)
    }
}

/// Reads what is committed: the first key found, and the header of that moment.
async fn read_one<M: Member>(
    client: &Client<'_, M>,
    request: &RangeRequest,
) -> Result<(Option<KeyValue>, Header), Refusal> {
    client.member.read_barrier().await?;
    let mut charge = Charge::of_little();
    let read = client.member.range(request, &mut charge);
    let found = client.read(|| Need::of_range(request), read).await?;
    let header = Header { revision: found.revision, ..client.member.header() };
    Ok((found.kvs.first().map(|kv| kv.decode()).transpose().map_err(|_| Refusal::Corrupt)?, header))
}

/// The oldest key under `name`.
pub(super) async fn first_of<M: Member>(
    client: &Client<'_, M>,
    name: &[u8],
) -> Result<(Option<KeyValue>, Header), Refusal> {
    read_one(client, &one_of(line(name), SortOrder::Ascend, Revision(0))).await
}

/// Grants a lease for a call that came without one.
pub(super) async fn new_session<M: Member>(client: &Client<'_, M>) -> Result<LeaseId, Refusal> {
    let member = client.member;
    client.need(&[Need::User]).await?;
    quota::check(member, quota::LEASE_BYTES).await?;
    let ttl = SESSION_SECONDS.max(member.limits().lease_ttl_min);
    let command = Command::LeaseGrant { id: member.new_lease_id(), ttl };
    match client.propose(command).await? {
        (Reply::LeaseGrant { id, .. }, _) => Ok(id),
        _ => Err(Refusal::Stopped),
    }
}

/// Renews `lease` for ever. A renewal that fails is tried again; a lease that is gone is found out at the turn.
async fn keep_session<M: Member>(member: &M, lease: LeaseId) -> Infallible {
    loop {
        member.sleep(SESSION_RENEWAL).await;
        let _ = member.lease_renew(&[lease]).await;
    }
}

/// A transaction on one key, if it was made at `created`; 0 for "if it is not there".
fn guarded(key: &Bytes, created: Revision, success: Vec<Op>, failure: Vec<Op>) -> TxnRequest {
    let made = Compare {
        range: KeyRange::single(key.clone()),
        target: CompareTarget::Create(created),
        result: CompareResult::Equal,
    };
    TxnRequest { compare: vec![made], success, failure }
}

async fn propose_txn<M: Member>(
    client: &Client<'_, M>,
    txn: TxnRequest,
) -> Result<(TxnResponse, Header), Refusal> {
    match client.propose(Command::Txn(txn)).await? {
        (Reply::Txn(done), header) => {
            let header = Header { revision: done.revision, ..header };
            Ok((done, header))
        }
        _ => Err(Refusal::Stopped),
    }
}

/// Puts `value` at a place, if it still is one.
pub(super) async fn put_at<M: Member>(
    client: &Client<'_, M>,
    place: &Place,
    value: Bytes,
) -> Result<(bool, Header), Refusal> {
    if place.key.is_empty() {
        return Err(Refusal::EmptyKey);
    }
    let put = PutRequest { key: place.key.clone(), value, lease: place.lease, ..PutRequest::default() };
    quota::check(client.member, quota::put_of(&put)).await?;
    let txn = guarded(&place.key, place.created, vec![Op::Put(put)], Vec::new());
    let (done, header) = propose_txn(client, txn).await?;
    Ok((done.succeeded, header))
}

/// Gives a place up, if it still is one.
pub(super) async fn leave<M: Member>(client: &Client<'_, M>, place: &Place) -> Result<Header, Refusal> {
    if place.key.is_empty() {
        return Err(Refusal::EmptyKey);
    }
    let delete = DeleteRequest { range: KeyRange::single(place.key.clone()), prev_kv: false };
    let txn = guarded(&place.key, place.created, vec![Op::Delete(delete)], Vec::new());
    Ok(propose_txn(client, txn).await?.1)
}

/// What is wanted of a line.
#[derive(Clone, Debug)]
pub(super) struct Wish {
    /// Which line.
    pub name: Bytes,
    /// By which lease; 0 for one of its own.
    pub lease: LeaseId,
    /// The value of the key.
    pub value: Bytes,
    /// Whether an older key of the lease gets the value too.
    pub overwrite: bool,
    /// What a place is refused with that was lost in the wait.
    pub lost: Refusal,
}

/// Waits for a turn. Who drops this leaves the line.
pub(super) async fn take_turn<M: Member>(client: &Client<'_, M>, wish: Wish) -> Result<Turn, Refusal> {
    let (answer, turn) = oneshot::channel();
    // A task of its own, since it must clean up after a client that has left in the middle of anything.
    client.member.spawn(attend(client.member.clone(), client.credentials(), wish, answer));
    turn.await.map_err(|_| Refusal::Stopped)?
}

async fn attend<M: Member>(
    member: M,
    credentials: Credentials,
    wish: Wish,
    mut answer: oneshot::Sender<Result<Turn, Refusal>>,
) {
    let client = &Client::new(&member, credentials);
    let Joined { place, new, taken, first, own_lease } = match join(client, &wish).await {
        Ok(joined) => joined,
        Err(refusal) => return drop(answer.send(Err(refusal))),
    };
    let turn = async {
        let found_first = if first { taken } else { wait(client, &wish, &place).await? };
        Ok(Turn { place: place.clone(), taken, found_first })
    };
    let kept = async {
        if own_lease { keep_session(&member, place.lease).await } else { std::future::pending().await }
    };
    let outcome = tokio::select! {
        biased;
        () = answer.closed() => Err(Refusal::WatchCanceled),
        never = kept => match never {},
        outcome = turn => outcome,
    };
    // Before the answer, as in etcd: who hears of a failure is no longer in line.
    if new && outcome.is_err() {
        let _ = leave(client, &place).await;
    }
    if let Err(Ok(_)) = answer.send(outcome)
        && new
    {
        let _ = leave(client, &place).await;
    }
}

struct Joined {
    place: Place,
    /// Whether this call made the place.
    new: bool,
    taken: Header,
    /// Whether it is the first already.
    first: bool,
    own_lease: bool,
}

/// Takes a place, or finds the one that the lease has.
async fn join<M: Member>(client: &Client<'_, M>, wish: &Wish) -> Result<Joined, Refusal> {
    let own_lease = wish.lease == LeaseId(0);
    let lease = if own_lease { new_session(client).await? } else { wish.lease };
    let key = key_of(&wish.name, lease);
    let put = PutRequest { key: key.clone(), value: wish.value.clone(), lease, ..PutRequest::default() };
    quota::check(client.member, quota::put_of(&put)).await?;
    let get = Op::Range(RangeRequest::of(KeyRange::single(key.clone())));
    let oldest = Op::Range(one_of(line(&wish.name), SortOrder::Ascend, Revision(0)));
    let txn = guarded(&key, Revision(0), vec![Op::Put(put), oldest.clone()], vec![get, oldest]);
    let (done, taken) = propose_txn(client, txn).await?;
    let [mine, oldest] = &done.responses[..] else { return Err(Refusal::Stopped) };
    let older = found(mine)?;
    let created = older.as_ref().map_or(done.revision, |kv| kv.created);
    let place = Place { key, created, lease };
    let first = found(oldest)?.is_some_and(|kv| kv.created == created);
    if let Some(older) = older
        && wish.overwrite
        && older.value != wish.value
        && !put_at(client, &place, wish.value.clone()).await?.0
    {
        return Err(wish.lost);
    }
    Ok(Joined { place, new: done.succeeded, taken, first, own_lease })
}

/// The key that a range in a transaction found.
fn found(response: &OpResponse) -> Result<Option<KeyValue>, Refusal> {
    match response {
        OpResponse::Range(found) => {
            found.kvs.first().map(|kv| kv.decode()).transpose().map_err(|_| Refusal::Corrupt)
        }
        OpResponse::Put(_) | OpResponse::Delete(_) | OpResponse::Txn(_) => Ok(None),
    }
}

/// Waits until no older key is left. The header is of the moment at which the place was seen to be the first.
async fn wait<M: Member>(client: &Client<'_, M>, wish: &Wish, place: &Place) -> Result<Header, Refusal> {
    let before = Revision(place.created.0 - 1);
    loop {
        let (ahead, header) = read_one(client, &one_of(line(&wish.name), SortOrder::Descend, before)).await?;
        let Some(ahead) = ahead else { break };
        gone(client, ahead.key, header.revision).await?;
    }
    // The session may have expired in the meantime, and with it the place.
    let (mine, header) = read_one(client, &RangeRequest::of(KeyRange::single(place.key.clone()))).await?;
    if mine.is_some_and(|kv| kv.created == place.created) { Ok(header) } else { Err(wish.lost) }
}

/// Waits until a key that was there at `seen` may be gone.
async fn gone<M: Member>(client: &Client<'_, M>, key: Bytes, seen: Revision) -> Result<(), Refusal> {
    let create = Create { no_put: true, ..Create::of(KeyRange::single(key), seen.next()) };
    let mut watch = open(client, create).await?;
    loop {
        match watch.frame().await {
            None => return Err(Refusal::Stopped),
            // Also if it can't go on, since that was compacted: who waits looks again.
            Some(frame) if frame.canceled || !frame.events.is_empty() => return Ok(()),
            Some(_) => {}
        }
    }
}

/// Opens a stream with one watch.
pub(super) async fn open<M: Member>(client: &Client<'_, M>, create: Create) -> Result<WatchStream, Refusal> {
    client.need(&[Need::Read(create.range.clone())]).await?;
    let watch = client.member.open_watch().await?;
    watch.ask(WatchRequest::Create(create)).await;
    Ok(watch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_named_as_go_prints_them() {
        assert_eq!(key_of(b"lock", LeaseId(100)), "lock/64");
        assert_eq!(key_of(b"", LeaseId(-7)), "/-7");
        assert_eq!(key_of(b"m", LeaseId(i64::MIN)), "m/-8000000000000000");
    }

    #[test]
    fn a_line_holds_the_keys_under_its_name_alone() {
        let line = line(b"a");
        let held: Vec<&str> = ["a", "a.", "a/", "a/1", "a/zz/1", "a0", "ab/1"]
            .into_iter()
            .filter(|k| line.contains(k.as_bytes()))
            .collect();
        assert_eq!(held, ["a/", "a/1", "a/zz/1"]);
    }
}
