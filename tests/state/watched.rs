//! A hub over a machine's store: what a watch reads from the tables is what was published.

use kontiki::{
    mvcc::{DeleteRequest, Event, PutRequest},
    state::Command,
    types::{Instant, KeyRange, RangeEnd, Revision},
    watch::{Config, Create, Frame, Hub, StreamId, WatchEvent, WatchRequest},
    wire::{RawKeyValue, etcdserverpb as pb, kv},
};

use super::support::{Replica, command_entry};

struct Watched {
    replica: Replica,
    hub: Hub,
    events: Vec<Event>,
    index: u64,
}

impl Watched {
    fn apply(&mut self, command: Command) {
        self.index += 1;
        let applied = self.replica.apply(&[command_entry(self.index, command)]).unwrap();
        self.hub.events(&applied.events, applied.revision);
        self.events.extend(applied.events);
    }

    fn put(&mut self, key: &str, value: &str) {
        let (key, value) = (key.to_owned().into(), value.to_owned().into());
        self.apply(Command::Put(PutRequest { key, value, ..PutRequest::default() }));
    }

    /// A new stream with a watch of everything from `start`.
    fn watch(&mut self, start: i64) -> StreamId {
        let stream = self.hub.open_stream();
        let range = KeyRange { start: "".into(), end: RangeEnd::Unbounded };
        let create = Create { prev_kv: true, ..Create::of(range, Revision(start)) };
        let current = self.replica.machine.store().revision();
        self.hub.request(stream, WatchRequest::Create(create), current, Instant(0));
        stream
    }

    fn frames(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        while self.hub.has_work() {
            let store = self.replica.machine.store();
            frames.extend(self.hub.poll(store.as_ref()).unwrap().into_iter().map(|(_, frame)| frame));
        }
        frames
    }
}

fn events(frames: &[Frame]) -> Vec<&WatchEvent> {
    frames.iter().flat_map(|frame| &frame.events).collect()
}

#[test]
fn history_of_the_store_is_what_was_published() {
    let replica = Replica::new();
    let config = Config { batch_revisions_max: 3, ..Config::default() };
    let hub = Hub::new(config, replica.machine.store().revision());
    let mut watched = Watched { replica, hub, events: Vec::new(), index: 0 };
    watched.watch(2);
    for round in 0..4 {
        watched.put("a", &round.to_string());
        watched.put("b", &round.to_string());
        let range = KeyRange { start: "a".into(), end: RangeEnd::Unbounded };
        watched.apply(Command::Delete(DeleteRequest { range, prev_kv: false }));
    }
    let live = watched.frames();
    watched.watch(2);
    let read = watched.frames();
    assert_eq!(events(&live), events(&read));
    let kvs: Vec<_> = watched.events.iter().map(|event| (event.deleted, &event.kv)).collect();
    assert_eq!(kvs, events(&live).iter().map(|event| (event.deleted, &event.kv)).collect::<Vec<_>>());
    assert_eq!(kvs.len(), 16);
    for (at, event) in events(&live).into_iter().enumerate() {
        let (before, key) = (&watched.events[..at], &watched.events[at].key);
        let last = before.iter().rfind(|event| event.key == key);
        assert_eq!(
            event.prev_kv.as_ref(),
            last.filter(|event| !event.deleted).map(|event| &event.kv),
            "{at}"
        );
    }

    // From the compacted revision on there is the same, but for what was before it.
    watched.apply(Command::Compact { revision: Revision(6) });
    watched.replica.compact();
    watched.watch(6);
    watched.watch(5);
    let late = watched.frames();
    let from = read
        .iter()
        .flat_map(|frame| &frame.events)
        .skip_while(|event| event.kv.decode().unwrap().modified < Revision(6));
    let wanted: Vec<WatchEvent> = from
        .map(|event| {
            let at_edge = event.kv.decode().unwrap().modified == Revision(6);
            WatchEvent { prev_kv: if at_edge { None } else { event.prev_kv.clone() }, ..event.clone() }
        })
        .collect();
    assert_eq!(events(&late), wanted.iter().collect::<Vec<_>>());
    let ended: Vec<_> = late.iter().filter(|frame| frame.canceled).map(|f| f.compact_revision).collect();
    assert_eq!(ended, [Revision(6)]);
}

#[test]
fn requests_and_frames_on_the_wire() {
    let create = pb::WatchCreateRequest {
        range_end: vec![0].into(),
        start_revision: 5,
        filters: vec![pb::watch_create_request::FilterType::Nodelete.into(), 77],
        watch_id: -3,
        prev_kv: true,
        ..Default::default()
    };
    let request = |union| kv::watch_request(pb::WatchRequest { request_union: union });
    let range = KeyRange { start: vec![0].into(), end: RangeEnd::Unbounded };
    assert_eq!(
        request(Some(pb::watch_request::RequestUnion::CreateRequest(create))),
        Some(WatchRequest::Create(Create {
            no_delete: true,
            prev_kv: true,
            watch_id: kontiki::watch::WatchId(-3),
            ..Create::of(range, Revision(5))
        }))
    );
    let progress = pb::watch_request::RequestUnion::ProgressRequest(pb::WatchProgressRequest {});
    assert_eq!(request(Some(progress)), Some(WatchRequest::Progress));
    assert_eq!(request(None), None);

    let kv_bytes = kontiki::mvcc::KvBytes("kv".into());
    let event = WatchEvent { deleted: true, kv: kv_bytes.clone(), prev_kv: Some(kv_bytes) };
    let frame = Frame { revision: Revision(7), fragment: true, events: vec![event], ..Frame::default() };
    let header = pb::ResponseHeader { cluster_id: 1, member_id: 2, revision: 99, raft_term: 3 };
    let response = kv::watch_response(frame, header);
    assert_eq!(response.header.unwrap().revision, 7);
    assert!(response.fragment && !response.created);
    assert_eq!(response.events[0].r#type, 1);
    assert_eq!(response.events[0].kv, Some(RawKeyValue("kv".into())));
    assert_eq!(response.events[0].prev_kv, Some(RawKeyValue("kv".into())));
}
