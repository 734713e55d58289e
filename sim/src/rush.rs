//! Clients in a hurry: for a while they write and read a key or two, and renew a lease, at one member and elsewhere, and
//! wait for no answer before they ask again; some look at that member for what was just written at another.
//!
//! What a fault does to a member shows in the answers of those who stay with it, and in those who wrote elsewhere
//! meanwhile. A client that waits for each answer has one call under way when its member is cut off; of these there are
//! as many as fit.

use bytes::Bytes;
use kontiki::wire::etcdserverpb::{self as pb, request_op::Request};

use crate::{
    client::Client,
    history::{Call, Outcome},
    host::{Host, Micros, Process},
    net::Address,
    rng::Rng,
    workload,
    world::World,
};

/// Calls of one rush.
const CALLS_MAX: u64 = 60;

/// The clients' numbers begin here.
const NUMBERS: u32 = 1_000;

/// The leases' ids begin here.
const LEASES: i64 = 1_000_000;

/// How a rush is.
#[derive(Clone, Copy, Debug)]
pub struct Rush {
    /// Half of the calls go there, the others elsewhere.
    pub hit: Address,
    /// Some look there for what others were told to be written elsewhere.
    pub looks: bool,
    /// Above all they renew their lease.
    pub leases: bool,
    /// How far apart the calls are, on average.
    pub pause: Micros,
    /// When it ends.
    pub until: Micros,
}

/// Presses on.
pub async fn rush<H: Host>(world: World<H>, rng: Rng, Rush { hit, looks, leases, pause, until }: Rush) {
    let first = rng.below(4) as u8;
    let keys = [workload::key(first), workload::key(if rng.chance(500_000) { first } else { first + 1 })];
    // Of each pair of clients one stays with the member that is hit.
    let number = NUMBERS + world.probe.turn("rush") * 2;
    let patience = world.knobs.patience;
    let lease = (LEASES + i64::from(number), rng.between(1, 6) as i64);
    let clients = [number, number + 1].map(|number| Client::new(world.clone(), number, patience).as_root());
    for call in 0..CALLS_MAX {
        world.host.sleep(rng.below(pause * 2 + 1)).await;
        if world.host.now() >= until {
            return;
        }
        let others: Vec<Address> = world.living().into_iter().filter(|member| *member != hit).collect();
        let elsewhere = rng.chance(500_000) && !others.is_empty();
        let member = if elsewhere { *rng.pick(&others) } else { hit };
        let client = clients[usize::from(elsewhere)].clone();
        let value = format!("{}.{call}", client.number);
        let what = match call {
            0 => pb::LeaseGrantRequest { id: lease.0, ttl: lease.1 }.into(),
            _ if looks && elsewhere && rng.chance(400_000) => {
                let write =
                    pb::PutRequest { key: keys[0].clone(), value: value.into(), ..Default::default() };
                look(&world, (client, member, write), (clients[0].clone(), hit));
                continue;
            }
            _ if leases && rng.chance(600_000) => pb::LeaseKeepAliveRequest { id: lease.0 }.into(),
            _ => draw(&rng, rng.pick(&keys).clone(), value, lease.0),
        };
        world.host.spawn(Process::WORLD, Box::pin(async move { drop(client.call(member, what).await) }));
    }
}

/// As soon as somebody's write is answered, somebody else looks for it.
fn look<H: Host>(
    world: &World<H>,
    (writer, at, write): (Client<H>, Address, pb::PutRequest),
    (reader, there): (Client<H>, Address),
) {
    let read = pb::RangeRequest { key: write.key.clone(), ..Default::default() };
    let both = async move {
        if let Outcome::Ok(_) = writer.call(at, write).await {
            reader.call(there, read).await;
        }
    };
    world.host.spawn(Process::WORLD, Box::pin(both));
}

fn draw(rng: &Rng, key: Bytes, value: String, id: i64) -> Call {
    let get = pb::RangeRequest { key: key.clone(), ..Default::default() };
    let lease = if rng.chance(100_000) { id } else { 0 };
    let put = pb::PutRequest { key: key.clone(), value: value.into(), lease, ..Default::default() };
    match rng.below(40) {
        0..14 => put.into(),
        14..28 => get.into(),
        28..31 => pb::DeleteRangeRequest { key, ..Default::default() }.into(),
        31..35 => pb::LeaseKeepAliveRequest { id }.into(),
        35 => pb::LeaseRevokeRequest { id }.into(),
        36 => pb::LeaseTimeToLiveRequest { id, keys: false }.into(),
        _ => {
            let op = |request| pb::RequestOp { request: Some(request) };
            let success = vec![op(Request::RequestRange(get)), op(Request::RequestPut(put))];
            pb::TxnRequest { success, ..Default::default() }.into()
        }
    }
}
