//! What comes from clients and operators: requests, options, connections.

use std::collections::BTreeMap;

use arbitrary::Result;
use bytes::Bytes;
use kontiki::{
    membership::urls::{Url, normalize},
    mvcc::{check_delete, check_put, check_range, check_txn},
    server::{config::Config, go_duration::parse_go_duration, repair_authority},
    state::{Command, Request},
    types::{Instant, Revision},
    watch::{self, Hub, WatchRequest},
    wire::{command, etcdserverpb as pb, kv, v3electionpb, v3lockpb},
};
use prost::Message;

use super::{
    arb::{self, Source, list, one, text, upto},
    watch_model::Model,
};

/// What went through the log comes out as it was.
fn through_the_log(u: &mut Source<'_>, command: Command) -> Result<()> {
    let request = Request { id: u.arbitrary()?, user: text(u, 3)?, auth_revision: u.arbitrary()?, command };
    assert_eq!(command::decode(&command::encode(&request)).expect("it was just written"), request);
    Ok(())
}

fn reads<M: Message + Default + PartialEq + std::fmt::Debug>(bytes: &[u8]) -> Option<M> {
    let message = M::decode(bytes).ok()?;
    assert_eq!(M::decode(&message.encode_to_vec()[..]).as_ref(), Ok(&message));
    Some(message)
}

/// Requests of any bytes, through the checks and the log.
pub fn requests(u: &mut Source<'_>) -> Result<()> {
    let kind = upto(u, 8)?;
    let (id, bytes) = (u.arbitrary()?, u.bytes(u.len())?);
    let mut rest = arb::Source::new(id);
    let u = &mut rest;
    match kind {
        0 => {
            let Some(request) = reads(bytes).map(kv::range) else { return Ok(()) };
            let _ = check_range(&request);
            through_the_log(u, Command::Range(request))
        }
        1 => {
            let Some(request) = reads(bytes).map(kv::put) else { return Ok(()) };
            let _ = check_put(&request);
            through_the_log(u, Command::Put(request))
        }
        2 => {
            let Some(request) = reads(bytes).map(kv::delete) else { return Ok(()) };
            let _ = check_delete(&request);
            through_the_log(u, Command::Delete(request))
        }
        3 | 4 => {
            let Some(request) = reads(bytes).map(kv::txn) else { return Ok(()) };
            let _ = check_txn(&request, 128);
            through_the_log(u, Command::Txn(request))
        }
        5 => watches(bytes),
        6 => {
            // What a log may hold: any bytes.
            let bytes = Bytes::copy_from_slice(bytes);
            let Ok(request) = command::decode(&bytes) else { return Ok(()) };
            assert_eq!(command::decode(&command::encode(&request)).expect("it was just written"), request);
            Ok(())
        }
        7 => through_the_log(u, arb::command(&mut arb::Source::new(bytes))?),
        _ => {
            reads::<pb::LeaseGrantRequest>(bytes);
            reads::<pb::LeaseKeepAliveRequest>(bytes);
            reads::<pb::CompactionRequest>(bytes);
            reads::<pb::AlarmRequest>(bytes);
            reads::<v3lockpb::LockRequest>(bytes);
            reads::<v3electionpb::CampaignRequest>(bytes);
            if let Some(request) = reads::<pb::MemberAddRequest>(bytes) {
                let _ = kontiki::membership::Member::added(&request.peer_ur_ls, 1, request.is_learner);
            }
            Ok(())
        }
    }
}

/// A stream of watch requests of any bytes, against a hub with some history.
fn watches(bytes: &[u8]) -> Result<()> {
    let mut model = Model::new();
    let mut hub = Hub::new(watch::Config::default(), model.revision());
    let stream = hub.open_stream();
    let mut rest = bytes;
    while let Some((len, more)) = rest.split_first() {
        let (message, more) = more.split_at(more.len().min((*len).into()));
        rest = more;
        let request = reads(message).and_then(kv::watch_request);
        if let Some(
            request @ (WatchRequest::Create(_) | WatchRequest::Cancel { .. } | WatchRequest::Progress),
        ) = request
        {
            hub.request(stream, request, model.revision(), Instant(0));
        }
        let key = Bytes::copy_from_slice(&message[..message.len().min(1)]);
        let events = model.write(&[super::watch_model::Change::Put(key, Bytes::new())]);
        hub.events(&events, model.revision());
        for (_, frame) in hub.poll(&model).expect("the model has no faults") {
            assert!(frame.revision <= model.revision() && frame.revision >= Revision(0));
            hub.drained(stream, 1);
        }
    }
    Ok(())
}

/// Options: flags and what stands behind them.
pub fn options(u: &mut Source<'_>) -> Result<()> {
    match upto(u, 4)? {
        0 => {
            let text = text(u, 30)?;
            if let Ok(url) = Url::parse(&text) {
                assert_eq!(Url::parse(&url.to_string()), Ok(url.clone()), "{text:?}");
                assert!(url.host_port().ends_with(url.port()));
            }
            if let Ok(urls) = normalize(std::slice::from_ref(&text)) {
                assert_eq!(normalize(&urls), Ok(urls), "{text:?}");
            }
            let _ = Url::parse_list(&text);
        }
        1 => durations(u)?,
        2 => {
            let parts = ["a", "b", "=", ",", "http://", "https://", "1.2.3.4", ":", "1", "/", "[::1]", ""];
            let cluster = list(u, 24, |u| one(u, &parts))?.concat();
            let mut config = Config { name: one(u, &["a", "b", "default"])?.into(), ..Config::default() };
            config.initial_cluster = cluster;
            let _ = config.check();
            if let Ok(roster) = config.initial_roster() {
                assert_eq!(
                    config.initial_members().map(|members| members.len()),
                    Ok(roster.members().count())
                );
            }
        }
        _ => flags(u)?,
    }
    Ok(())
}

fn durations(u: &mut Source<'_>) -> Result<()> {
    let nanoseconds = u.arbitrary::<i64>()?.checked_abs().unwrap_or(0);
    assert_eq!(parse_go_duration(&format!("{nanoseconds}ns")), Some(nanoseconds));
    let (seconds, fraction) = (nanoseconds / 1_000_000_000, nanoseconds % 1_000_000_000);
    let split = format!("{}h{}m{}.{fraction:09}s", seconds / 3600, seconds / 60 % 60, seconds % 60);
    assert_eq!(parse_go_duration(&split), Some(nanoseconds), "{split}");
    let parts = ["1", "0", ".", "9223372036854775807", "h", "m", "s", "us", "µs", "ns", "-", "+", "a"];
    let text = list(u, 8, |u| one(u, &parts))?.concat();
    if let Some(found) = parse_go_duration(&text) {
        let positive = text.trim_start_matches(['-', '+']);
        assert_eq!(found.abs(), parse_go_duration(positive).expect("its sign alone is gone"));
    }
    Ok(())
}

fn flags(u: &mut Source<'_>) -> Result<()> {
    const NAMES: &[&str] = &[
        "name",
        "data-dir",
        "listen-client-urls",
        "advertise-client-urls",
        "listen-peer-urls",
        "initial-advertise-peer-urls",
        "initial-cluster",
        "initial-cluster-state",
        "heartbeat-interval",
        "election-timeout",
        "auto-compaction-retention",
        "auto-compaction-mode",
        "quota-backend-bytes",
        "max-request-bytes",
        "grpc-keepalive-timeout",
        "log-outputs",
        "cors",
        "host-whitelist",
        "pre-vote",
        "version",
        "config-file",
    ];
    let words =
        ["", "true", "0", "-1", "1h", "18446744073709551616", "http://a:1", "http://1.2.3.4:1,https://b:2"];
    let value = |u: &mut Source<'_>| if u.arbitrary()? { text(u, 8) } else { Ok(one(u, &words)?.to_owned()) };
    let arguments = list(u, 5, |u| {
        let (dashes, name) = (one(u, &["--", "-", "", "---"])?, one(u, NAMES)?);
        Ok(if u.arbitrary()? { format!("{dashes}{name}={}", value(u)?) } else { format!("{dashes}{name}") })
    })?;
    let environment: BTreeMap<String, String> = list(u, 2, |u| {
        let name = one(u, NAMES)?.replace('-', "_").to_uppercase();
        Ok((format!("ETCD_{name}"), text(u, 8)?))
    })?
    .into_iter()
    .collect();
    let _ = kontiki::cli::server::parse(&arguments, &environment);
    Ok(())
}

/// A connection whose authorities are repaired: nothing but HEADERS frames is touched, nothing moves, and what was
/// repaired needs no repair.
pub fn authority(u: &mut Source<'_>) -> Result<()> {
    let mut bytes = Vec::new();
    if upto(u, 9)? > 0 {
        bytes.extend(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    }
    let mut headers = vec![false; bytes.len()];
    for _ in 0..upto(u, 5)? {
        let mut payload = Vec::new();
        for _ in 0..upto(u, 6)? {
            match upto(u, 4)? {
                0 => payload
                    .extend(b"\x41\x90\x9d\x29\xae\xe3\x0c\x04\x4e\xae\x05\xc0\xb8\x6e\x32\x17\x19\x07"),
                1 => payload.extend(b"\x01\x08http://a"),
                2 => payload.extend(b"\x00\x01n\x01v"),
                _ => payload.extend(arb::bytes(u, 12)?),
            }
        }
        let kind = one(u, &[1, 1, 1, 0, 9])?;
        let said = if upto(u, 9)? == 9 { upto(u, 300)? as usize } else { payload.len() };
        bytes.extend(&(said as u32).to_be_bytes()[1..]);
        bytes.extend([kind, u.arbitrary()?, 0, 0, 0, 1]);
        headers.resize(bytes.len(), false);
        bytes.extend(&payload);
        headers.resize(bytes.len(), kind == 1);
        if said != payload.len() {
            // From here on frames are not where they seem.
            bytes.extend(arb::bytes(u, 60)?);
            headers.fill(true);
            headers.resize(bytes.len(), true);
            break;
        }
    }
    let part = one(u, &[usize::MAX, 1, 7, 40, 100])?;
    let mut once = bytes.clone();
    repair_authority(&mut once, part);
    for (at, (new, old)) in once.iter().zip(&bytes).enumerate() {
        assert!(new == old || headers[at], "byte {at} is in no frame of headers");
    }
    let mut twice = once.clone();
    repair_authority(&mut twice, part);
    assert_eq!(once, twice);
    Ok(())
}
