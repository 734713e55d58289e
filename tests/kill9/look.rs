//! Clients of a chaos run that watch.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use kontiki::wire::etcdserverpb::{
    self as pb, watch_create_request::FilterType, watch_request::RequestUnion,
};
use rand::{Rng, rngs::StdRng};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, timeout},
};
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::{cluster::Contact, record::Recorder, work::prefix};

/// How long a watch may take to be created.
const CREATED: Duration = Duration::from_secs(3);

/// A client that watches, on one stream at a time.
pub struct Watcher {
    pub number: u32,
    pub recorder: Arc<Recorder>,
    pub rng: StdRng,
    /// Whether it asks for progress now and then.
    pub asks: bool,
}

/// Why a stream was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Broken,
    /// The watch wanted more than there is; where that begins.
    Compacted(i64),
    Done,
}

/// Where a watch is.
#[derive(Default)]
struct Place {
    /// The revision to go on from; none for a watch from now that was not created yet.
    next: Option<i64>,
    /// The watch before this one, which it carries on.
    last: Option<u64>,
}

/// Where a client that saw this response goes on.
fn next_revision(response: &pb::WatchResponse, from_now: bool) -> Option<i64> {
    let header = response.header.as_ref()?.revision;
    if response.created {
        return from_now.then_some(header + 1);
    }
    match response.events.last() {
        Some(event) => {
            let kv = event.kv.as_ref()?.decode_kv().expect("a key-value decodes");
            // The rest of a revision that was cut may still be missing.
            Some(kv.modified.0 + i64::from(!response.fragment))
        }
        None => Some(header + 1),
    }
}

fn request(union: RequestUnion) -> pb::WatchRequest {
    pb::WatchRequest { request_union: Some(union) }
}

impl Watcher {
    /// Watches all keys at one member, from the first revision on, until `last` is put.
    pub async fn witness(mut self, home: Contact, last: &'static str) {
        let all = Bytes::from_static(b"\0");
        let create =
            pb::WatchCreateRequest { key: all.clone(), range_end: all, prev_kv: true, ..Default::default() };
        let mut place = Place { next: Some(1), last: None };
        let is_last = |response: &pb::WatchResponse| {
            response.events.iter().any(|event| {
                event.kv.as_ref().is_some_and(|kv| kv.decode_kv().is_ok_and(|kv| kv.key == last))
            })
        };
        loop {
            home.ready().await;
            match self.stream(&home, &create, &mut place, is_last).await {
                End::Done => return,
                End::Compacted(to) => place.next = Some(to),
                End::Broken => {}
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Watches this and that for a while, from now or from a while ago, until it is told to stop.
    pub async fn browse(mut self, contacts: Vec<Contact>, stop: watch::Receiver<bool>) {
        while !*stop.borrow() {
            let create = self.draw();
            let until = Instant::now() + Duration::from_millis(self.rng.random_range(500..8_000));
            let mut place = Place::default();
            while Instant::now() < until && !*stop.borrow() {
                let contact = &contacts[self.rng.random_range(0..contacts.len())];
                let left = until.saturating_duration_since(Instant::now());
                let reading = self.stream(contact, &create, &mut place, |_| false);
                match timeout(left, reading).await {
                    Err(_) => break,
                    Ok(End::Compacted(to)) => place.next = Some(to),
                    Ok(End::Done | End::Broken) => {}
                }
                sleep(Duration::from_millis(50)).await;
            }
            if let Some(watch) = place.last {
                self.recorder.watched(watch);
            }
        }
    }

    fn draw(&mut self) -> pb::WatchCreateRequest {
        let (key, range_end) = match self.rng.random_range(0..4) {
            0 => (format!("k/{:02}", self.rng.random_range(0..12)).into(), Bytes::new()),
            1 => prefix("l/"),
            2 => prefix("lock/"),
            _ => prefix("k/"),
        };
        let filters = match self.rng.random_range(0..6) {
            0 => vec![FilterType::Noput as i32],
            1 => vec![FilterType::Nodelete as i32],
            _ => Vec::new(),
        };
        let (prev_kv, fragment) = (self.rng.random_bool(0.5), self.rng.random_bool(0.2));
        pb::WatchCreateRequest { key, range_end, filters, prev_kv, fragment, ..Default::default() }
    }

    /// One watch on one stream, until it is over.
    async fn stream(
        &mut self,
        contact: &Contact,
        create: &pb::WatchCreateRequest,
        place: &mut Place,
        done: impl Fn(&pb::WatchResponse) -> bool,
    ) -> End {
        let from_now = place.next.is_none();
        let create = pb::WatchCreateRequest { start_revision: place.next.unwrap_or(0), ..create.clone() };
        let resumes = if from_now { None } else { place.last };
        let watch = self.recorder.watching(self.number, contact, &create, resumes);
        place.last = Some(watch);
        let (requests, asked) = mpsc::unbounded_channel();
        let _ = requests.send(request(RequestUnion::CreateRequest(create)));
        let mut client = contact.watch();
        let opened = timeout(CREATED, client.watch(UnboundedReceiverStream::new(asked))).await;
        let end = match opened {
            Ok(Ok(stream)) => {
                let progress = move || {
                    let ask = RequestUnion::ProgressRequest(pb::WatchProgressRequest {});
                    let _ = requests.send(request(ask));
                };
                self.read(watch, stream.into_inner(), (place, from_now), progress, done).await
            }
            Ok(Err(_)) | Err(_) => End::Broken,
        };
        self.recorder.watched(watch);
        end
    }

    async fn read(
        &mut self,
        watch: u64,
        mut stream: tonic::Streaming<pb::WatchResponse>,
        (place, from_now): (&mut Place, bool),
        progress: impl Fn(),
        done: impl Fn(&pb::WatchResponse) -> bool,
    ) -> End {
        loop {
            let pause = Duration::from_millis(self.rng.random_range(300..1_500));
            let response = match timeout(pause, stream.message()).await {
                Ok(Ok(Some(response))) => response,
                Ok(Ok(None) | Err(_)) => return End::Broken,
                Err(_) => {
                    if self.asks {
                        progress();
                    }
                    continue;
                }
            };
            self.recorder.told(watch, &response);
            if response.canceled {
                return match response.compact_revision {
                    0 => End::Broken,
                    to => End::Compacted(to),
                };
            }
            if let Some(next) = next_revision(&response, from_now) {
                place.next = Some(place.next.map_or(next, |before| before.max(next)));
            }
            if done(&response) {
                return End::Done;
            }
        }
    }
}
