//! A client's streams of watches: several watches on one stream, canceled, asked for their progress, and resumed where
//! they were whenever the stream breaks.
//!
//! As etcd's client library does it, one watch of a stream is created at a time: the next request goes out when the
//! one before it is answered. So an answer says by its order which watch it is for, and by its id from then on.

use std::collections::{BTreeMap, VecDeque};

use kontiki::wire::etcdserverpb::{self as pb, watch_request::RequestUnion};
use tokio::sync::mpsc;

use crate::{
    check::kv::Kv,
    client::{CLIENTS, Client, asks_who},
    history::{self, WatchLog},
    host::{Host, Micros},
    net::Address,
    probe::Event,
    rng::Rng,
    world::World,
};

/// How long it takes until a stream that lost something is known to be broken.
const BREAK: Micros = 1_000_000;

/// How many responses of a stream a member may have ready.
const RESPONSES_MAX: usize = 8;

/// How many may be on their way.
const COMING_MAX: usize = 8;

/// How a stream is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// When it is left.
    pub until: Micros,
    /// How long each response takes its reader.
    pub slow: Micros,
    /// From then on it reads at once: what the network has given it, it has heard.
    pub slow_until: Micros,
    /// How often it asks for the progress; 0 for never.
    pub ask_progress: Micros,
}

/// A watch that a client wants, across all streams that it takes.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// What is asked for; its start moves on with what was heard.
    create: pb::WatchCreateRequest,
    /// How long after the one before it is asked for, the first time.
    wait: Micros,
    cancel: Option<Micros>,
    again: bool,
    phase: Phase,
    /// Its place in the history, on the stream before.
    before: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// To be asked for.
    Due(Micros),
    /// Asked for, with its place in the history.
    Asked(u64),
    /// There, with its place and its id, and when it is to be canceled.
    Live(u64, i64, Option<Micros>),
    /// Canceled by the client, who waits for the confirmation.
    Leaving(u64, i64),
    /// It is over.
    Done,
}

impl Wanted {
    /// One that is wanted from the start, for good.
    pub fn new(create: pb::WatchCreateRequest) -> Self {
        Self { create, wait: 0, cancel: None, again: false, phase: Phase::Due(0), before: None }
    }

    /// One that begins `wait` after the one before it, is canceled `cancel` later, and begins anew if a compaction ends
    /// it and `again`.
    pub fn later(create: pb::WatchCreateRequest, wait: Micros, cancel: Option<Micros>, again: bool) -> Self {
        Self { wait, cancel, again, ..Self::new(create) }
    }

    /// Its place in the history, while it is on the stream.
    const fn log(&self) -> Option<u64> {
        match self.phase {
            Phase::Asked(log) | Phase::Live(log, ..) | Phase::Leaving(log, _) => Some(log),
            Phase::Due(_) | Phase::Done => None,
        }
    }
}

/// Keeps watches until a time, resuming where they were whenever their stream breaks.
pub async fn keep_watching<H: Host>(
    world: World<H>,
    client: Client<H>,
    rng: Rng,
    mut member: Address,
    mut wanted: Vec<Wanted>,
    reading: Reading,
) {
    let mut at = world.host.now();
    for one in &mut wanted {
        at += one.wait;
        one.phase = Phase::Due(at);
    }
    while world.host.now() < reading.until {
        let mut stream = Stream::new(&world, &client, member, &mut wanted);
        let work = stream.run(reading);
        tokio::select! { biased; () = work => {}, () = world.host.sleep_until(reading.until) => {} }
        let asks = stream.asks_who;
        stream.end();
        if asks {
            client.log_in(member).await;
        }
        if wanted.iter().all(|one| one.phase == Phase::Done) {
            return;
        }
        let Some(other) = world.anywhere(&rng) else { return };
        member = other;
        world.host.sleep(rng.between(10_000, 500_000)).await;
    }
}

/// One stream, as long as it lives.
struct Stream<'a, H: Host> {
    world: &'a World<H>,
    client: &'a Client<H>,
    member: Address,
    wanted: &'a mut [Wanted],
    /// Its number: the place in the history of its first watch.
    number: Option<u64>,
    opened: history::Micros,
    token: Option<String>,
    user: Option<String>,
    /// All that was asked for on this stream, by place in the history.
    logs: Vec<u64>,
    /// The place in the history of each id.
    ids: BTreeMap<i64, u64>,
    /// Whether a watch was refused for want of a token.
    asks_who: bool,
}

impl<'a, H: Host> Stream<'a, H> {
    fn new(world: &'a World<H>, client: &'a Client<H>, member: Address, wanted: &'a mut [Wanted]) -> Self {
        let (token, user) = client.shown();
        let opened = world.time();
        let (number, logs, ids, asks_who) = (None, Vec::new(), BTreeMap::new(), false);
        Self { world, client, member, wanted, number, opened, token, user, logs, ids, asks_who }
    }

    /// Runs it until it breaks, or nothing is left that is wanted.
    async fn run(&mut self, reading: Reading) {
        let world = self.world;
        match world.net.passage(CLIENTS, self.member) {
            Some(delay) => world.host.sleep(delay).await,
            None => return world.host.sleep(BREAK).await,
        }
        let Some((process, api)) = world.api(self.member) else { return };
        let (requests, asked) = mpsc::unbounded_channel();
        let (responses, mut answered) = mpsc::channel(RESPONSES_MAX);
        world.host.watch(process, self.member, api, self.token.clone(), asked, responses);
        // On their way, with the time when each comes in.
        let mut coming: VecDeque<(Micros, pb::WatchResponse)> = VecDeque::new();
        let mut ended = false;
        let mut ask_next = world.host.now() + reading.ask_progress;
        let mut ping_next = world.host.now() + BREAK;
        while !(ended && coming.is_empty()) {
            let now = world.host.now();
            while let Some(request) = self.due(now) {
                let _ = requests.send(pb::WatchRequest { request_union: Some(request) });
            }
            if reading.ask_progress > 0 && ask_next <= now {
                ask_next = now + reading.ask_progress;
                self.ask_progress();
                let ask = RequestUnion::ProgressRequest(pb::WatchProgressRequest {});
                let _ = requests.send(pb::WatchRequest { request_union: Some(ask) });
            }
            let next_ask = (reading.ask_progress > 0).then_some(ask_next);
            let wake = self.next_due().into_iter().chain(next_ask).min();
            let waiting = world.host.sleep_until(wake.unwrap_or(now));
            let first = coming.front().map_or(now, |(at, _)| *at);
            let sent = tokio::select! {
                biased;
                () = world.host.sleep_until(first), if !coming.is_empty() => None,
                sent = answered.recv(), if !ended && coming.len() < COMING_MAX => Some(sent),
                () = waiting, if wake.is_some() => continue,
                // As gRPC does: a connection on which nothing gets through is given up.
                () = world.host.sleep_until(ping_next) => {
                    if world.net.link(CLIENTS, self.member).cut || world.net.link(self.member, CLIENTS).cut {
                        return;
                    }
                    ping_next += BREAK;
                    continue;
                }
            };
            if let Some(sent) = sent {
                let Some(Ok(response)) = sent else {
                    ended = true;
                    continue;
                };
                // A stream has no holes: what gets lost breaks the connection.
                let Some(delay) = world.net.passage(self.member, CLIENTS) else {
                    return world.host.sleep(BREAK).await;
                };
                // They stay in order.
                let behind = coming.back().map_or(0, |(at, _)| *at);
                coming.push_back((behind.max(world.host.now() + delay), response));
                continue;
            }
            let Some((_, response)) = coming.pop_front() else { continue };
            self.hear(response);
            let over = self.wanted.iter().all(|one| one.phase == Phase::Done);
            if over || self.asks_who {
                return;
            }
            if reading.slow > 0 && world.host.now() < reading.slow_until {
                world.host.sleep(reading.slow).await;
            }
        }
    }

    /// What is to be asked now.
    fn due(&mut self, now: Micros) -> Option<RequestUnion> {
        let leaving = |one: &Wanted| matches!(one.phase, Phase::Live(_, _, Some(at)) if at <= now);
        if let Some(one) = self.wanted.iter_mut().find(|one| leaving(one)) {
            let Phase::Live(log, watch_id, _) = one.phase else { return None };
            one.phase = Phase::Leaving(log, watch_id);
            let at = self.world.time();
            self.world.record(|history| {
                if let Some(log) = history.watches.get_mut(log as usize) {
                    log.cancel = Some(at);
                }
            });
            return Some(RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id }));
        }
        if self.wanted.iter().any(|one| matches!(one.phase, Phase::Asked(_))) {
            return None;
        }
        let place = self.wanted.iter().position(|one| matches!(one.phase, Phase::Due(at) if at <= now))?;
        let log = self.note(place);
        self.wanted[place].phase = Phase::Asked(log);
        Some(RequestUnion::CreateRequest(self.wanted[place].create.clone()))
    }

    /// When something is to be asked next.
    fn next_due(&self) -> Option<Micros> {
        let asking = self.wanted.iter().any(|one| matches!(one.phase, Phase::Asked(_)));
        let at = |one: &Wanted| match one.phase {
            Phase::Due(at) if !asking => Some(at),
            Phase::Live(_, _, cancel) => cancel,
            Phase::Due(_) | Phase::Asked(_) | Phase::Leaving(..) | Phase::Done => None,
        };
        self.wanted.iter().filter_map(at).min()
    }

    /// Makes a place in the history for a watch that is asked for.
    fn note(&mut self, place: usize) -> u64 {
        let (world, one) = (self.world, &self.wanted[place]);
        let start = if self.number.is_none() { self.opened } else { world.time() };
        let (client, member) = (self.client.number, self.member);
        // A watch from now that has heard nothing is another one.
        let resumes = one.before.filter(|_| one.create.start_revision > 0);
        let log = world.record(|history| {
            let id = history.watches.len() as u64;
            history.watches.push(WatchLog {
                user: self.user.clone(),
                stream: self.number.unwrap_or(id),
                resumes,
                ..WatchLog::new(id, client, member, one.create.clone(), start)
            });
            id
        });
        world.probe.event(|| Event::Watch { client, text: format!("#{log} at {member}: {:?}", one.create) });
        self.number.get_or_insert(log);
        self.logs.push(log);
        log
    }

    fn ask_progress(&self) {
        let at = self.world.time();
        let live: Vec<u64> = self.wanted.iter().filter_map(Wanted::log).collect();
        self.world.record(|history| {
            for log in live {
                if let Some(log) = history.watches.get_mut(log as usize) {
                    log.asked.push(at);
                }
            }
        });
    }

    fn hear(&mut self, response: pb::WatchResponse) {
        let world = self.world;
        world.probe.fold(&prost::Message::encode_to_vec(&response));
        world.probe.watch(&response);
        let heard: Vec<u64> = if response.created {
            self.created(&response)
        } else if response.watch_id == -1 && !response.canceled {
            // A progress request is answered for the whole stream.
            let live = |one: &&Wanted| matches!(one.phase, Phase::Live(..) | Phase::Leaving(..));
            self.wanted.iter().filter(live).filter_map(Wanted::log).collect()
        } else {
            let known = self.ids.get(&response.watch_id).copied();
            if known.is_none() {
                world.fail(format!(
                    "watch/stray: client {} heard of watch {}, which it never had, on a stream of member {}",
                    self.client.number, response.watch_id, self.member
                ));
            }
            known.into_iter().collect()
        };
        let at = world.time();
        let client = self.client.number;
        world.probe.event(|| Event::Watch { client, text: format!("#{heard:?} hears {response:?}") });
        if response.canceled && !response.created {
            self.canceled(&response);
        }
        for one in self.wanted.iter_mut() {
            if one.log().is_some_and(|log| heard.contains(&log)) {
                let from_now = one.create.start_revision == 0;
                let next = next_revision(&response, from_now).unwrap_or(0);
                one.create.start_revision = one.create.start_revision.max(next);
            }
        }
        world.record(|history| {
            for log in heard {
                if let Some(log) = history.watches.get_mut(log as usize) {
                    log.responses.push((at, response.clone()));
                }
            }
        });
    }

    /// A watch was created, or refused.
    fn created(&mut self, response: &pb::WatchResponse) -> Vec<u64> {
        let now = self.world.host.now();
        let Some(one) = self.wanted.iter_mut().find(|one| matches!(one.phase, Phase::Asked(_))) else {
            self.world.fail(format!(
                "watch/stray: member {} created a watch for client {}, which had not asked for one",
                self.member, self.client.number
            ));
            return Vec::new();
        };
        let Phase::Asked(log) = one.phase else { return Vec::new() };
        if response.canceled {
            one.phase = Phase::Done;
            if asks_who(&response.cancel_reason) && self.client.is_somebody() {
                one.phase = Phase::Due(now);
                self.asks_who = true;
            }
        } else {
            let cancel = one.cancel.map(|after| now + after);
            one.phase = Phase::Live(log, response.watch_id, cancel);
            self.ids.insert(response.watch_id, log);
        }
        vec![log]
    }

    /// A watch is over.
    fn canceled(&mut self, response: &pb::WatchResponse) {
        let now = self.world.host.now();
        let ours = |one: &&mut Wanted| match one.phase {
            Phase::Live(_, id, _) | Phase::Leaving(_, id) => id == response.watch_id,
            Phase::Due(_) | Phase::Asked(_) | Phase::Done => false,
        };
        let Some(one) = self.wanted.iter_mut().find(ours) else { return };
        let left = matches!(one.phase, Phase::Leaving(..));
        one.phase = Phase::Done;
        if !left && one.again && response.compact_revision > 0 {
            one.create.start_revision = response.compact_revision;
            one.before = None;
            one.phase = Phase::Due(now);
        }
    }

    /// What is to be had again on another stream.
    fn end(self) {
        let (world, ended) = (self.world, self.world.time());
        let now = world.host.now();
        world.record(|history| {
            for log in &self.logs {
                if let Some(log) = history.watches.get_mut(*log as usize) {
                    log.ended = Some(ended);
                }
            }
        });
        for one in self.wanted.iter_mut() {
            match one.phase {
                Phase::Asked(log) | Phase::Live(log, ..) => {
                    one.before = Some(log);
                    one.phase = Phase::Due(now);
                }
                Phase::Leaving(..) => one.phase = Phase::Done,
                Phase::Due(_) | Phase::Done => {}
            }
        }
    }
}

/// Where a client that saw this response goes on.
fn next_revision(response: &pb::WatchResponse, from_now: bool) -> Option<i64> {
    let header = response.header.as_ref()?;
    if response.created || response.canceled {
        // A watch from now begins behind what its member had then.
        return (response.created && from_now).then_some(header.revision + 1);
    }
    match response.events.last() {
        // The rest of a revision that was cut may still be missing.
        Some(event) if response.fragment => event.kv.as_ref().map(|kv| decoded(kv).mod_revision),
        Some(event) => event.kv.as_ref().map(|kv| decoded(kv).mod_revision + 1),
        None => Some(header.revision + 1),
    }
}

/// A key-value. Bytes that are none are the oracles' to object to.
fn decoded(raw: &kontiki::wire::RawKeyValue) -> Kv {
    Kv::from_raw(raw).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{storm::Executor, swarm::Swarm};

    fn failures(act: impl FnOnce(&mut Stream<'_, Executor>)) -> Vec<String> {
        let knobs = Swarm::default().plan(1).knobs;
        let world = World::new(Executor::new(), knobs, 1, false);
        let client = Client::new(world.clone(), 5, 1);
        let mut wanted = [Wanted::new(pb::WatchCreateRequest::default())];
        let mut stream = Stream::new(&world, &client, 3, &mut wanted);
        act(&mut stream);
        world.failures()
    }

    fn about(watch_id: i64) -> pb::WatchResponse {
        pb::WatchResponse { watch_id, ..Default::default() }
    }

    #[test]
    fn what_is_heard_is_of_a_watch_that_was_asked_for() {
        let created = pb::WatchResponse { created: true, ..about(7) };
        let right = failures(|stream| {
            assert!(stream.due(0).is_some());
            stream.hear(created.clone());
            stream.hear(about(7));
            stream.hear(about(-1));
        });
        assert!(right.is_empty(), "{right:?}");
        let unknown = failures(|stream| {
            assert!(stream.due(0).is_some());
            stream.hear(created.clone());
            stream.hear(about(8));
        });
        assert_eq!(
            unknown,
            ["watch/stray: client 5 heard of watch 8, which it never had, on a stream of member 3"]
        );
        let unasked = failures(|stream| stream.hear(created.clone()));
        assert_eq!(
            unasked,
            ["watch/stray: member 3 created a watch for client 5, which had not asked for one"]
        );
    }
}
