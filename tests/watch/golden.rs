//! Golden scripts. Ranges are `k`, `a..c`, `a..@`; the commands are in [`Runner::run`].

use std::{collections::BTreeSet, error::Error};

use bytes::Bytes;
use goldenscript::Command;
use kontiki::{
    error::Fault,
    mvcc::{Event, KvBytes},
    types::{Instant, KeyRange, RangeEnd, Revision},
    watch::{Chunk, Config, Create, Frame, History, Hub, StreamId, WatchId, WatchRequest},
};

use super::model::{Change, Model};

struct Runner {
    config: Config,
    hub: Hub,
    model: Model,
    /// Written and not yet published to the hub.
    held: Vec<Event>,
    now: u64,
}

impl Runner {
    fn new() -> Self {
        let config = Config { progress_interval_ms: 1000, ..Config::default() };
        let model = Model::new();
        Self { config, hub: Hub::new(config, model.revision()), model, held: Vec::new(), now: 0 }
    }

    fn publish(&mut self) {
        self.hub.events(&std::mem::take(&mut self.held), self.model.revision());
    }

    fn create(&mut self, command: &Command) -> Result<(), Box<dyn Error>> {
        let mut args = command.consume_args();
        let stream = stream(&args.next_pos().ok_or("stream")?.value)?;
        let range = range(&args.next_pos().ok_or("range")?.value);
        let mut create = Create::of(range, Revision(args.lookup_parse("start")?.unwrap_or(0)));
        create.watch_id = WatchId(args.lookup_parse("id")?.unwrap_or(0));
        for flag in args.rest_pos() {
            match flag.value.as_str() {
                "progress" => create.progress_notify = true,
                "prev_kv" => create.prev_kv = true,
                "fragment" => create.fragment = true,
                "no_put" => create.no_put = true,
                "no_delete" => create.no_delete = true,
                other => return Err(format!("flag {other}").into()),
            }
        }
        args.reject_rest()?;
        self.hub.request(stream, WatchRequest::Create(create), self.model.revision(), Instant(self.now));
        Ok(())
    }

    fn configure(&mut self, command: &Command) -> Result<(), Box<dyn Error>> {
        let mut args = command.consume_args();
        self.config = Config { progress_interval_ms: 1000, ..Config::default() };
        let config = &mut self.config;
        for (name, field) in [
            ("fragment_bytes_max", &mut config.fragment_bytes_max),
            ("batch_revisions_max", &mut config.batch_revisions_max),
            ("batch_bytes_max", &mut config.batch_bytes_max),
            ("stream_queue_max", &mut config.stream_queue_max),
            ("stream_bytes_max", &mut config.stream_bytes_max),
            ("stream_watches_max", &mut config.stream_watches_max),
            ("poll_frames_max", &mut config.poll_frames_max),
        ] {
            if let Some(value) = args.lookup_parse(name)? {
                *field = value;
            }
        }
        args.reject_rest()?;
        self.hub = Hub::new(self.config, self.model.revision());
        Ok(())
    }

    /// `k=v` puts, `k` deletes; `k=v/n` puts n bytes.
    fn write(&mut self, command: &Command) -> Result<(), Box<dyn Error>> {
        let changes: Vec<Change> = command
            .args
            .iter()
            .map(|arg| match &arg.key {
                Some(key) => {
                    let value = match arg.value.split_once('/') {
                        Some((text, times)) => text.repeat(times.parse()?),
                        None => arg.value.clone(),
                    };
                    Ok(Change::Put(key.clone().into(), value.into()))
                }
                None => Ok(Change::Delete(arg.value.to_owned().into())),
            })
            .collect::<Result<_, Box<dyn Error>>>()?;
        let events = self.model.write(&changes);
        self.held.extend(events);
        Ok(())
    }

    fn poll(&mut self) -> Result<String, Box<dyn Error>> {
        let mut out = String::new();
        for (stream, frame) in self.hub.poll(&self.model)? {
            out.push_str(&format!("s{} {}\n", stream.0, show(&frame)));
        }
        Ok(out)
    }
}

fn stream(text: &str) -> Result<StreamId, Box<dyn Error>> {
    Ok(StreamId(text.trim_start_matches('s').parse()?))
}

fn range(text: &str) -> KeyRange {
    let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    match text.split_once("..") {
        None => KeyRange::single(bytes(text)),
        Some((start, "@")) => KeyRange { start: bytes(start), end: RangeEnd::Unbounded },
        Some((start, end)) => KeyRange { start: bytes(start), end: RangeEnd::Before(bytes(end)) },
    }
}

fn kv(kv: &KvBytes) -> String {
    let kv = kv.decode().unwrap();
    let value = match kv.value.len() {
        0..=16 => String::from_utf8(kv.value.to_vec()).unwrap(),
        len => format!("<{len} bytes>"),
    };
    format!("{}={value} c{} v{}", String::from_utf8(kv.key.to_vec()).unwrap(), kv.created, kv.version)
}

fn show(frame: &Frame) -> String {
    let mut out = format!("w{} @{}", frame.watch_id.0, frame.revision);
    for (set, text) in
        [(frame.created, " created"), (frame.canceled, " canceled"), (frame.fragment, " fragment")]
    {
        if set {
            out.push_str(text);
        }
    }
    if frame.compact_revision != Revision(0) {
        out.push_str(&format!(" compact={}", frame.compact_revision));
    }
    if !frame.cancel_reason.is_empty() {
        out.push_str(&format!(" ({})", frame.cancel_reason));
    }
    for event in &frame.events {
        let modified = event.kv.decode().unwrap().modified;
        if event.deleted {
            let key = event.kv.decode().unwrap().key;
            out.push_str(&format!(" | {modified}: -{}", String::from_utf8(key.to_vec()).unwrap()));
        } else {
            out.push_str(&format!(" | {modified}: {}", kv(&event.kv)));
        }
        if let Some(prev) = &event.prev_kv {
            out.push_str(&format!(" was {}", kv(prev)));
        }
    }
    out
}

impl goldenscript::Runner for Runner {
    fn run(&mut self, command: &Command) -> Result<String, Box<dyn Error>> {
        let mut args = command.consume_args();
        let mut text = || args.next_pos().map(|arg| arg.value.clone()).ok_or("argument");
        match command.name.as_str() {
            // A new hub with other limits.
            "config" => self.configure(command)?,
            "open" => return Ok(format!("s{}", self.hub.open_stream().0)),
            "close" => self.hub.close_stream(stream(&text()?)?),
            "create" => self.create(command)?,
            "cancel" => {
                let (stream, id) = (stream(&text()?)?, WatchId(text()?.parse()?));
                self.hub.request(
                    stream,
                    WatchRequest::Cancel { id },
                    self.model.revision(),
                    Instant(self.now),
                );
            }
            "progress" => {
                let stream = stream(&text()?)?;
                self.hub.request(stream, WatchRequest::Progress, self.model.revision(), Instant(self.now));
            }
            "refuse" => self.hub.refuse(stream(&text()?)?, text()?, self.model.revision()),
            // Writes in one revision and publishes.
            "write" => {
                self.write(command)?;
                self.publish();
            }
            // Writes without publishing.
            "hold" => self.write(command)?,
            "publish" => self.publish(),
            // Writes come in with a snapshot: the hub hears of none of them.
            "restore" => {
                self.held.clear();
                self.hub.restored(self.model.revision());
            }
            "compact" => {
                self.model.compacted = text()?.parse()?;
                self.hub.compacted(Revision(self.model.compacted));
            }
            "tick" => {
                self.now += text()?.parse::<u64>()?;
                self.hub.tick(Instant(self.now));
            }
            "drain" => self.hub.drained(stream(&text()?)?, text()?.parse()?),
            // One poll, or as many as there is work for.
            "poll" => return self.poll(),
            "run" => {
                let mut out = String::new();
                while self.hub.has_work() {
                    out.push_str(&self.poll()?);
                }
                return Ok(out);
            }
            // Whether its client may ask for more.
            "accepts" => return Ok(self.hub.accepts(stream(&text()?)?).to_string()),
            "streams" => return Ok(self.hub.streams().to_string()),
            "watches" => {
                let (live, behind) = self.hub.watches();
                return Ok(format!("{live} live, {behind} behind"));
            }
            other => return Err(format!("command {other}").into()),
        }
        Ok(String::new())
    }
}

fn script(name: &str) {
    let path = format!("tests/watch/scripts/{name}");
    goldenscript::run(&mut Runner::new(), path).unwrap();
}

#[test]
fn etcds_records() {
    script("records");
}

#[test]
fn slow_streams() {
    script("slow");
}

#[test]
fn progress() {
    script("progress");
}

#[test]
fn history_and_compaction() {
    script("history");
}

#[test]
fn limits() {
    script("limits");
}

/// Progress comes when its interval is over, or up to a tenth of it later, not for all streams at once.
#[test]
fn the_next_tick_is_when_progress_is_due() {
    let mut waits = BTreeSet::new();
    for streams in 1..=20 {
        let config = Config { progress_interval_ms: 1000, ..Config::default() };
        let (mut hub, model) = (Hub::new(config, Revision(1)), Model::new());
        let last = (0..streams).map(|_| hub.open_stream()).last().unwrap();
        assert_eq!((hub.streams(), hub.next_tick()), (streams, None));
        let create = Create { progress_notify: true, ..Create::of(range("a"), Revision(0)) };
        hub.request(last, WatchRequest::Create(create), Revision(1), Instant(50));
        hub.poll(&model).unwrap();
        let due = hub.next_tick().unwrap();
        assert!((1050..=1150).contains(&due.0), "{due:?}");
        hub.tick(Instant(due.0 - 1));
        assert!(!hub.has_work());
        hub.tick(due);
        let progress = Frame { watch_id: WatchId(0), revision: Revision(1), ..Frame::default() };
        assert_eq!(hub.poll(&model).unwrap(), [(last, progress)]);
        waits.insert(due);
    }
    assert!(waits.len() > 5, "{waits:?}");
}

/// A store that reads further than it was asked to, or not at all.
struct Liar(Revision);

impl History for Liar {
    fn compacted(&self) -> Revision {
        Revision(-1)
    }

    fn events(&self, _: Revision, _: Revision, _: usize, _: usize) -> Result<Option<Chunk>, Fault> {
        Ok(Some(Chunk { events: Vec::new(), through: self.0 }))
    }

    fn prev_kv(&self, _: &Bytes, _: Revision) -> Result<Option<KvBytes>, Fault> {
        Ok(None)
    }
}

#[test]
fn history_that_makes_no_sense_is_a_fault() {
    for (through, sound) in [(4, false), (5, true), (7, true), (8, false)] {
        let mut hub = Hub::new(Config::default(), Revision(7));
        let stream = hub.open_stream();
        let create = Create::of(range("a"), Revision(5));
        hub.request(stream, WatchRequest::Create(create), Revision(7), Instant(0));
        let polled = (0..3).try_for_each(|_| hub.poll(&Liar(Revision(through))).map(drop));
        // The first poll sends that it is created; the last one asks from behind what was read.
        assert_eq!(polled.is_ok(), sound && through == 7, "through {through}");
    }
}
