//! Sessions about watches: what is sent on one stream, what is done beside it, and all frames that come.
//!
//! A session ends with a write that a last watch must hear of: what came before it is all there is.

use std::time::Duration;

use kontiki::wire::etcdserverpb::{
    self as pb, PutRequest, WatchCancelRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest,
    WatchResponse, kv_client::KvClient, watch_client::WatchClient, watch_request::RequestUnion,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Streaming;

use crate::{
    call::{self, Ask, SELF},
    kv::{bytes, compact, d, delete, p, put, put_of, then},
    server::{Pair, Server},
};

/// One step of a session.
#[derive(Clone, Debug)]
enum Step {
    Send(WatchRequest),
    Do(Ask),
    /// Waits for so many frames.
    Receive(usize),
}

use Step::{Do, Receive, Send};

/// A session, and what a late 3.5 sends where 3.5.1 sends something else.
struct Session {
    note: &'static str,
    steps: Vec<Step>,
    late: Option<Vec<String>>,
}

fn session(note: &'static str, steps: Vec<Step>) -> Session {
    Session { note, steps, late: None }
}

fn create(key: &str, end: &str, f: fn(&mut WatchCreateRequest)) -> Step {
    let mut request = WatchCreateRequest { key: bytes(key), range_end: bytes(end), ..Default::default() };
    f(&mut request);
    Send(WatchRequest { request_union: Some(RequestUnion::CreateRequest(request)) })
}

fn cancel(watch_id: i64) -> Step {
    Send(WatchRequest { request_union: Some(RequestUnion::CancelRequest(WatchCancelRequest { watch_id })) })
}

fn progress() -> Step {
    Send(WatchRequest { request_union: Some(RequestUnion::ProgressRequest(WatchProgressRequest {})) })
}

const BARRIER_KEY: &str = "~barrier";
const BARRIER_ID: i64 = 7_777;
const FRAME_WAIT: Duration = Duration::from_secs(8);

fn told(server: &Server, mut frame: WatchResponse) -> String {
    if let Some(header) = &mut frame.header {
        header.cluster_id = u64::from(header.cluster_id != 0);
        header.member_id = if header.member_id == server.member { SELF } else { header.member_id };
        header.raft_term = u64::from(header.raft_term != 0);
    }
    format!("{frame:?}")
}

/// The key of an event's key-value.
fn key_of(event: &kontiki::wire::mvccpb::Event) -> Option<bytes::Bytes> {
    event.kv.as_ref()?.decode_kv().ok().map(|kv| kv.key)
}

async fn next(frames: &mut Streaming<WatchResponse>) -> Result<WatchResponse, String> {
    match tokio::time::timeout(FRAME_WAIT, frames.message()).await {
        Err(_) => Err("nothing came".to_owned()),
        Ok(Err(status)) => Err(format!("ERR {:?} {:?}", status.code(), status.message())),
        Ok(Ok(None)) => Err("the stream ended".to_owned()),
        Ok(Ok(Some(frame))) => Ok(frame),
    }
}

/// All that a session gets, answers to what is done beside it included.
async fn play(server: &mut Server, steps: &[Step]) -> Vec<String> {
    let (sender, receiver) = mpsc::unbounded_channel();
    let mut client = WatchClient::new(server.channel.clone()).max_decoding_message_size(64 << 20);
    // The stream's own headers come with its first frame.
    let opening = tokio::spawn(async move { client.watch(UnboundedReceiverStream::new(receiver)).await });
    let mut opening = Some(opening);
    let mut frames = None;
    let mut got = Vec::new();
    let send = |request| sender.send(request).expect("the stream is open");
    let barrier = [Receive(usize::MAX)];
    for step in steps.iter().chain(&barrier) {
        match step {
            Send(request) => send(request.clone()),
            Do(ask) => got.push(call::run(server, ask).await),
            Receive(count) => {
                let mut barrier_at = None;
                if *count == usize::MAX {
                    let put = KvClient::new(server.channel.clone()).put(put_of(BARRIER_KEY, "")).await;
                    let revision = put.expect("a put").into_inner().header.expect("a header").revision;
                    barrier_at = Some(revision);
                    send(WatchRequest {
                        request_union: Some(RequestUnion::CreateRequest(WatchCreateRequest {
                            key: bytes(BARRIER_KEY),
                            start_revision: revision,
                            watch_id: BARRIER_ID,
                            ..Default::default()
                        })),
                    });
                }
                if let Some(opening) = opening.take() {
                    match opening.await.expect("opening does not panic") {
                        Ok(stream) => frames = Some(stream.into_inner()),
                        Err(status) => {
                            got.push(format!("ERR {:?} {:?}", status.code(), status.message()));
                            return got;
                        }
                    }
                }
                let frames = frames.as_mut().expect("it is open by now");
                match barrier_at {
                    None => {
                        for _ in 0..*count {
                            match next(frames).await {
                                Ok(frame) => got.push(told(server, frame)),
                                Err(error) => {
                                    got.push(error);
                                    return got;
                                }
                            }
                        }
                    }
                    Some(revision) => until(server, frames, revision, &mut got).await,
                }
            }
        }
    }
    got
}

/// Takes what comes until the barrier's own event.
async fn until(server: &Server, frames: &mut Streaming<WatchResponse>, revision: i64, got: &mut Vec<String>) {
    loop {
        match next(frames).await {
            Err(error) => return got.push(error),
            Ok(frame) if frame.watch_id == BARRIER_ID && frame.events.is_empty() => {}
            Ok(frame) if frame.watch_id == BARRIER_ID => return,
            // Other watches may cover the barrier's key.
            Ok(frame)
                if frame.header.is_some_and(|header| header.revision >= revision)
                    && !frame.events.is_empty()
                    && frame.events.iter().all(|e| key_of(e).as_deref() == Some(BARRIER_KEY.as_bytes())) => {}
            Ok(frame) => got.push(told(server, frame)),
        }
    }
}

async fn compare(test: u16, sessions: Vec<Session>) {
    let mut pair = Pair::start(test).await;
    let mut differences = Vec::new();
    for session in &sessions {
        let etcd = play(&mut pair.etcd, &session.steps).await;
        let ours = play(&mut pair.kontiki, &session.steps).await;
        let wanted = session.late.as_ref().unwrap_or(&etcd);
        if &ours == wanted || (pair.self_check && ours == etcd) {
            continue;
        }
        let mut text = format!("{}:", session.note);
        for i in 0..wanted.len().max(ours.len()) {
            let (a, b) = (wanted.get(i), ours.get(i));
            if a != b {
                let show = |s: Option<&String>| s.map_or("-".to_owned(), |s| call::short(s));
                text += &format!("\n   #{i} etcd    {}\n   #{i} kontiki {}", show(a), show(b));
            }
        }
        if session.late.is_some() {
            text += &format!("\n   3.5.1 says {}", call::short(&etcd.join("\n              ")));
        }
        differences.push(text);
    }
    println!("{} sessions compared, {} differ", sessions.len(), differences.len());
    assert!(differences.is_empty(), "\n{}\n", differences.join("\n"));
}

fn puts(key: &str, values: &[&str]) -> Vec<Step> {
    values.iter().map(|value| Do(put(key, value))).collect()
}

fn steps(parts: impl IntoIterator<Item = Vec<Step>>) -> Vec<Step> {
    parts.into_iter().flatten().collect()
}

#[tokio::test]
#[ignore = "needs a real etcd to compare with: set ETCD_BIN"]
async fn watches() {
    let sessions = vec![
        session(
            "ids: picked, asked for, taken, canceled, unknown",
            vec![
                create("a", "", |_| ()),
                Receive(1),
                create("b", "", |w| w.watch_id = 1),
                Receive(1),
                create("d", "", |_| ()),
                Receive(1),
                create("e", "", |w| w.watch_id = 1),
                Receive(1),
                cancel(1),
                Receive(1),
                create("f", "", |_| ()),
                Receive(1),
                cancel(99),
                Do(put("b", "0")),
                Do(put("d", "1")),
                Receive(1),
            ],
        ),
        session(
            "previous values; a revision in one frame, in the order of its operations",
            steps([
                vec![create("p", "q", |w| w.prev_kv = true), Receive(1)],
                puts("p1", &["1", "2"]),
                vec![Receive(2)],
                vec![Do(then(vec![p("p2", "1"), p("p3", "1"), d("p1", "")])), Receive(1)],
                vec![Do(delete("p", "q")), Receive(1)],
                vec![Do(then(vec![d("p", "\0"), p("p7", "1")])), Receive(1)],
                vec![Do(then(vec![p("p8", "1"), d("p", "\0")])), Receive(1)],
            ]),
        ),
        session(
            "all history",
            vec![create("\0", "\0", |w| (w.start_revision, w.prev_kv) = (2, true)), Receive(2)],
        ),
        session(
            "a start in the future",
            steps([
                vec![Do(put("fut", "0")), create("fut", "", |w| w.start_revision = 20), Receive(1)],
                puts("fut", &["1", "2", "3", "4", "5", "6", "7", "8"]),
            ]),
        ),
        session(
            "no puts",
            vec![
                create("a", "", |w| w.filters = vec![0]),
                Receive(1),
                Do(put("a", "1")),
                Do(delete("a", "")),
                Receive(1),
            ],
        ),
        session(
            "no deletions",
            vec![
                create("a", "", |w| w.filters = vec![1]),
                Receive(1),
                Do(put("a", "1")),
                Do(delete("a", "")),
                Receive(1),
            ],
        ),
        session(
            "neither",
            vec![
                create("a", "", |w| w.filters = vec![1, 0]),
                Receive(1),
                Do(put("a", "1")),
                Do(delete("a", "")),
            ],
        ),
        session("progress without a watch", vec![progress(), Receive(1)]),
        session(
            "progress",
            vec![
                create("a", "", |_| ()),
                Receive(1),
                create("b", "", |_| ()),
                Receive(1),
                progress(),
                Receive(1),
                Do(put("a", "1")),
                Receive(1),
                progress(),
                Receive(1),
            ],
        ),
        session(
            "progress when idle",
            vec![create("idle", "", |w| w.progress_notify = true), Receive(2), cancel(0), Receive(1)],
        ),
        session(
            "an empty key and an open end is all",
            vec![create("", "\0", |_| ()), Receive(1), Do(put("zz", "v")), Receive(1)],
        ),
        session(
            "an empty key is the least one",
            vec![create("", "", |_| ()), Receive(1), Do(put("zz", "v"))],
        ),
        session("an inverted range", vec![create("b", "a", |_| ()), Receive(1)]),
        session("an empty range", vec![create("b", "b", |_| ()), Receive(1)]),
        session("nothing asked", vec![Send(WatchRequest { request_union: None })]),
        session("a cancel without a watch", vec![cancel(0)]),
        session("id -1", vec![create("a", "", |w| w.watch_id = -1), Receive(1)]),
        session("id -2", vec![create("a", "", |w| w.watch_id = -2), Receive(1), cancel(-2), Receive(1)]),
        session(
            "a lease's keys go together",
            vec![
                Do(Ask::Grant(pb::LeaseGrantRequest { id: 50, ttl: 100 })),
                Do(Ask::Put(PutRequest { lease: 50, ..put_of("lz", "v") })),
                Do(Ask::Put(PutRequest { lease: 50, ..put_of("la", "v") })),
                create("l", "m", |w| w.prev_kv = true),
                Receive(1),
                Do(Ask::Revoke(50)),
                Receive(1),
            ],
        ),
        session(
            "a lease expires",
            vec![
                Do(Ask::Grant(pb::LeaseGrantRequest { id: 51, ttl: 2 })),
                Do(Ask::Put(PutRequest { lease: 51, ..put_of("lx", "v") })),
                create("l", "m", |_| ()),
                Receive(2),
            ],
        ),
    ];
    compare(12, sessions).await;
}

#[tokio::test]
#[ignore = "needs a real etcd to compare with: set ETCD_BIN"]
async fn compacted() {
    let header =
        "Some(ResponseHeader { cluster_id: 1, member_id: 18446744073709551615, revision: 8, raft_term: 1 })";
    let negative = format!(
        "WatchResponse {{ header: {header}, watch_id: -1, created: true, canceled: true, compact_revision: 0, \
         cancel_reason: \"etcdserver: mvcc: required revision has been compacted\", fragment: false, events: [] }}"
    );
    let setup = steps([puts("comp", &["1", "2", "3", "4", "5"]), vec![Do(compact(4, true))]]);
    let sessions = vec![
        session("compact", setup),
        session(
            "from the compacted revision on",
            vec![create("comp", "", |w| (w.start_revision, w.prev_kv) = (4, true)), Receive(2)],
        ),
        Session {
            note: "a negative start",
            steps: vec![create("a", "", |w| w.start_revision = -1), Receive(1)],
            late: Some(vec![negative]),
        },
        session("below it", vec![create("comp", "", |w| w.start_revision = 3), Receive(2)]),
        session("at the beginning", vec![create("comp", "", |w| w.start_revision = 1), Receive(2)]),
        session(
            "a cancel afterwards",
            vec![
                create("comp", "", |w| (w.start_revision, w.watch_id) = (1, 9)),
                Receive(2),
                cancel(9),
                Receive(1),
            ],
        ),
    ];
    compare(13, sessions).await;
}

#[tokio::test]
#[ignore = "needs a real etcd to compare with: set ETCD_BIN"]
async fn fragments() {
    let large = "x".repeat(700_000);
    let mut setup = Vec::new();
    for i in 0..5 {
        setup.push(Do(put(&format!("f{i}"), &large)));
    }
    let sessions = vec![
        session("large values", setup),
        session("whole", vec![create("f", "g", |w| w.start_revision = 2), Receive(2)]),
        session(
            "in fragments",
            vec![create("f", "g", |w| (w.start_revision, w.fragment) = (2, true)), Receive(4)],
        ),
        session(
            "nothing to split",
            vec![create("f", "g", |w| w.fragment = true), Receive(1), Do(delete("f", "g")), Receive(1)],
        ),
        session(
            "one revision in fragments",
            vec![
                create("g", "h", |w| w.fragment = true),
                Receive(1),
                Do(put("g0", &large)),
                Receive(1),
                cancel(0),
                Receive(1),
                create("g", "h", |w| (w.fragment, w.prev_kv, w.watch_id) = (true, true, 5)),
                Receive(1),
                Do(then(vec![p("g0", &large), p("g1", &large)])),
                Receive(2),
            ],
        ),
    ];
    compare(14, sessions).await;
}
