//! A client per stream that keeps its own books: each watch must hear of every event that it wants, once, in order,
//! in whole revisions; and what says how far a watch is must be true.

use std::collections::BTreeMap;

use bytes::Bytes;
use kontiki::{
    mvcc::Event,
    types::{Instant, KeyRange, RangeEnd, Revision},
    watch::{Config, Create, Frame, Hub, StreamId, WatchId, WatchRequest},
};

use super::model::{Change, Model};

/// What happens.
#[derive(Clone, Debug)]
pub enum Step {
    Open,
    Close(usize),
    Create { stream: usize, range: (u8, u8), start: Option<i64>, flags: u8, id: i64 },
    Cancel { stream: usize, pick: usize },
    Progress(usize),
    Write { changes: Vec<(u8, bool)>, publish: bool },
    Restore,
    Compact(i64),
    Tick(u64),
    Poll,
    Drain(usize, usize),
}

/// What the client knows of one of its watches.
struct Book {
    create: Create,
    /// The next revision that it has not heard the whole of.
    next: Revision,
    /// The events of a response of which more is to come.
    fragments: Vec<kontiki::watch::WatchEvent>,
}

#[derive(Default)]
struct Client {
    /// Creates that are not answered, in order.
    asked: Vec<Create>,
    books: BTreeMap<WatchId, Book>,
    taken: usize,
}

/// A hub, its model and its clients.
pub struct Storm {
    hub: Hub,
    model: Model,
    held: Vec<Event>,
    now: u64,
    clients: BTreeMap<StreamId, Client>,
}

fn wants(create: &Create, event: &Event) -> bool {
    if event.deleted { !create.no_delete } else { !create.no_put }
}

impl Storm {
    pub fn new() -> Self {
        let config = Config {
            progress_interval_ms: 500,
            fragment_bytes_max: 100,
            batch_revisions_max: 3,
            stream_queue_max: 3,
            poll_frames_max: 5,
            ..Config::default()
        };
        let model = Model::new();
        let hub = Hub::new(config, model.revision());
        Self { hub, model, held: Vec::new(), now: 0, clients: BTreeMap::new() }
    }

    fn stream(&self, pick: usize) -> StreamId {
        self.clients.keys().nth(pick).copied().unwrap_or(StreamId(0))
    }

    fn request(&mut self, stream: StreamId, request: WatchRequest) {
        self.hub.request(stream, request, self.model.revision(), Instant(self.now));
    }

    fn publish(&mut self) {
        self.hub.events(&std::mem::take(&mut self.held), self.model.revision());
    }

    pub fn step(&mut self, step: Step) {
        match step {
            Step::Open => {
                if self.clients.len() < 4 {
                    self.clients.insert(self.hub.open_stream(), Client::default());
                }
            }
            Step::Close(pick) => {
                let stream = self.stream(pick);
                self.hub.close_stream(stream);
                self.clients.remove(&stream);
            }
            Step::Create { stream, range, start, flags, id } => self.create(stream, range, start, flags, id),
            Step::Cancel { stream, pick } => {
                let stream = self.stream(stream);
                if let Some(client) = self.clients.get(&stream)
                    && !client.books.is_empty()
                {
                    let id = *client.books.keys().nth(pick % client.books.len()).unwrap();
                    self.request(stream, WatchRequest::Cancel { id });
                }
            }
            Step::Progress(pick) => self.request(self.stream(pick), WatchRequest::Progress),
            Step::Write { changes, publish } => {
                let key = |key: u8| Bytes::copy_from_slice(&[b'a' + key]);
                let mut changes: Vec<_> = changes;
                changes.sort_unstable();
                changes.dedup_by_key(|(key, _)| *key);
                let changes: Vec<Change> = changes
                    .into_iter()
                    .map(|(k, put)| match put {
                        true => Change::Put(key(k), Bytes::from_static(b"a value of some bytes")),
                        false => Change::Delete(key(k)),
                    })
                    .collect();
                let events = self.model.write(&changes);
                self.held.extend(events);
                if publish {
                    self.publish();
                }
            }
            Step::Restore => {
                self.held.clear();
                self.hub.restored(self.model.revision());
            }
            Step::Compact(back) => {
                // Compaction is published before anything is gone.
                let to = self.hub.revision().0 - back;
                if to > self.model.compacted && to > 0 {
                    self.model.compacted = to;
                }
            }
            Step::Tick(ms) => {
                self.now += ms;
                self.hub.tick(Instant(self.now));
            }
            Step::Poll => self.poll(),
            Step::Drain(pick, frames) => self.drain(self.stream(pick), frames),
        }
    }

    fn create(&mut self, stream: usize, range: (u8, u8), start: Option<i64>, flags: u8, id: i64) {
        let stream = self.stream(stream);
        let key = |key: u8| Bytes::copy_from_slice(&[b'a' + key]);
        let end = match range.1 {
            0..=3 => RangeEnd::Single,
            4 => RangeEnd::Unbounded,
            end => RangeEnd::Before(key(range.0 + end - 4)),
        };
        // Around the newest revision, a little before or behind.
        let start = start.map_or(0, |back| (self.model.revision().0 + 3 - back).max(1));
        let create = Create {
            progress_notify: flags & 1 != 0,
            no_put: flags & 6 == 6,
            no_delete: flags & 24 == 24,
            prev_kv: flags & 32 != 0,
            fragment: flags & 64 != 0,
            watch_id: WatchId(id),
            ..Create::of(KeyRange { start: key(range.0), end }, Revision(start))
        };
        if let Some(client) = self.clients.get_mut(&stream) {
            client.asked.push(create.clone());
            self.request(stream, WatchRequest::Create(create));
        }
    }

    fn drain(&mut self, stream: StreamId, frames: usize) {
        if let Some(client) = self.clients.get_mut(&stream) {
            let frames = frames.min(client.taken);
            client.taken -= frames;
            self.hub.drained(stream, frames);
        }
    }

    fn poll(&mut self) {
        for (stream, frame) in self.hub.poll(&self.model).unwrap() {
            self.receive(stream, frame);
        }
    }

    fn receive(&mut self, stream: StreamId, frame: Frame) {
        let (model, published) = (&self.model, self.hub.revision());
        let client = self.clients.get_mut(&stream).expect("frames go to open streams");
        client.taken += 1;
        if frame.created {
            let create = client.asked.remove(0);
            if frame.canceled {
                assert_eq!(frame.watch_id, WatchId::NONE);
                return;
            }
            let next = if create.start == Revision(0) { frame.revision.next() } else { create.start };
            let book = Book { create, next, fragments: Vec::new() };
            assert!(client.books.insert(frame.watch_id, book).is_none(), "an id is not given twice");
            return;
        }
        if frame.canceled {
            let book = client.books.remove(&frame.watch_id);
            if frame.compact_revision != Revision(0) {
                let book = book.expect("compaction ends a watch that is there");
                assert!(book.next < frame.compact_revision && frame.compact_revision.0 <= model.compacted);
                assert_eq!(frame.revision, Revision(0));
            }
            return;
        }
        if frame.events.is_empty() {
            assert!(frame.revision <= published);
            // Progress: of a watch, or of all of them.
            let all = frame.watch_id == WatchId::NONE;
            for (_, book) in client.books.iter_mut().filter(|(id, _)| all || **id == frame.watch_id) {
                let missed = model
                    .wanted(&book.create.range, book.next, frame.revision)
                    .find(|event| wants(&book.create, event));
                assert!(missed.is_none(), "progress at {} before {missed:?}", frame.revision);
                assert!(book.next <= frame.revision.next());
                book.next = frame.revision.next();
            }
            return;
        }
        let book = client.books.get_mut(&frame.watch_id).expect("events go to live watches");
        book.fragments.extend(frame.events);
        if frame.fragment {
            assert!(book.create.fragment);
            return;
        }
        let got = std::mem::take(&mut book.fragments);
        let through = got.last().unwrap().kv.decode().unwrap().modified;
        assert!(frame.revision >= through && frame.revision <= published);
        let wanted: Vec<&Event> = model
            .wanted(&book.create.range, book.next, through)
            .filter(|event| wants(&book.create, event))
            .collect();
        assert_eq!(got.len(), wanted.len(), "{got:?} for {wanted:?}");
        for (got, wanted) in got.iter().zip(wanted) {
            assert_eq!((&got.kv, got.deleted), (&wanted.kv, wanted.deleted));
            let before = model.before(&wanted.key, wanted.at.main);
            let compacted = wanted.at.main.0 - 1 < model.compacted;
            match book.create.prev_kv {
                true => assert!(got.prev_kv == before || (compacted && got.prev_kv.is_none())),
                false => assert_eq!(got.prev_kv, None),
            }
        }
        book.next = through.next();
    }

    /// Lets everything run out: then each watch has all there is for it, and each request its answer.
    pub fn settle(&mut self) {
        self.publish();
        let mut polls = 0;
        loop {
            for stream in self.clients.keys().copied().collect::<Vec<_>>() {
                self.drain(stream, usize::MAX);
            }
            if !self.hub.has_work() {
                break;
            }
            self.poll();
            polls += 1;
            assert!(polls < 10_000, "it never ends");
        }
        assert_eq!(self.hub.watches().1, 0, "nobody is behind");
        for client in self.clients.values() {
            assert!(client.asked.is_empty());
            for book in client.books.values() {
                let missed = self
                    .model
                    .wanted(&book.create.range, book.next, self.model.revision())
                    .find(|event| wants(&book.create, event));
                assert!(missed.is_none(), "{missed:?} never came");
            }
        }
    }
}
