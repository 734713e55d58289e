//! Histories as files: one JSON object a line, each with one member that names its kind.
//!
//! ```json
//! {"settings":{"lease_late_max":10000000,"ended":5000000}}
//! {"op":{"id":1,"client":0,"member":2,"start":1000,"end":1900,"call":"Put","request":"CgFrEgF2","ok":"CgQYAiAB"}}
//! {"op":{"id":2,"client":0,"member":2,"start":2000,"end":9000,"call":"Put","request":"CgFrEgF3","unknown":"request timed out"}}
//! {"op":{"id":3,"client":1,"member":0,"start":2000,"end":2100,"call":"Range","request":"","refused":{"code":3,"message":"etcdserver: key is not provided"}}}
//! {"watch":{"id":7,"client":1,"member":0,"stream":3,"start":100,"create":"CgFr","resumes":null}}
//! {"response":{"watch":7,"at":1950,"bytes":"…"}}
//! {"watch_end":{"watch":7,"cancel":null,"ended":5000000}}
//! {"held":{"kind":"lock","name":"l/","key":"l/694d","created":4,"lease":77,"client":1,"from":100,"until":200}}
//! {"applied":{…}}  {"message":{…}}  {"config":{…}}  {"boot":{…}}  {"up":{…}}  {"crash":{…}}
//! ```
//!
//! - Times are microseconds of one clock since any start (`Micros`).
//! - `request`, `ok`, `create` and `bytes` are etcd's protobuf messages in base64 (with padding): the request of the
//!   method that `call` names (`history::Call` has the names), its response, a `WatchCreateRequest`, a `WatchResponse`.
//! - An op has one of `ok`, `refused` and `unknown`. One that never ended has no `end`, and is unknown.
//! - A watch comes before its responses, which are in order. `watch_end` may be missing.
//! - Members that are missing have the defaults of the types in [`crate::history`]; unknown ones are errors.
//! - The order of lines of different kinds is free, so a recorder can write as it goes.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, BufWriter, Write},
    path::Path,
};

use anyhow::{Context, Result, bail};
use base64::{Engine, prelude::BASE64_STANDARD as BASE64};
use bytes::Bytes;
use kontiki::wire::etcdserverpb as pb;
use prost::Message;
use serde::{Deserialize, Serialize};

use super::{
    Applied, Boot, Call, Config, Crash, Held, History, MessageFact, Micros, Op, Outcome, Reply, Settings, Up,
    WatchLog,
};

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Settings(Settings),
    Op(OpLine),
    Watch(WatchLine),
    Response(ResponseLine),
    WatchEnd(WatchEndLine),
    Held(Held),
    Applied(Applied),
    Message(MessageFact),
    Config(Config),
    Boot(Boot),
    Up(Up),
    Crash(Crash),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OpLine {
    id: u64,
    client: u32,
    member: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    start: Micros,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    end: Option<Micros>,
    call: String,
    request: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ok: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refused: Option<RefusedLine>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unknown: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RefusedLine {
    code: i32,
    message: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WatchLine {
    id: u64,
    client: u32,
    member: u32,
    stream: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    start: Micros,
    create: String,
    #[serde(default)]
    resumes: Option<u64>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ResponseLine {
    watch: u64,
    at: Micros,
    bytes: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WatchEndLine {
    watch: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    asked: Vec<Micros>,
    #[serde(default)]
    cancel: Option<Micros>,
    #[serde(default)]
    ended: Option<Micros>,
}

fn decode(text: &str) -> Result<Bytes> {
    Ok(BASE64.decode(text).context("not base64")?.into())
}

impl OpLine {
    fn of(op: &Op) -> Self {
        let (mut ok, mut refused, mut unknown) = (None, None, None);
        match &op.outcome {
            Outcome::Ok(reply) => ok = Some(BASE64.encode(reply.encode())),
            Outcome::Refused { code, message } => {
                refused = Some(RefusedLine { code: *code, message: message.clone() });
            }
            Outcome::Unknown(text) => unknown = Some(text.clone()),
        }
        Self {
            id: op.id,
            client: op.client,
            member: op.member,
            user: op.user.clone(),
            start: op.start,
            end: op.end,
            call: op.call.name().to_owned(),
            request: BASE64.encode(op.call.encode()),
            ok,
            refused,
            unknown,
        }
    }

    fn read(self) -> Result<Op> {
        let no_method = || format!("no method {}", self.call);
        let call = Call::decode(&self.call, decode(&self.request)?).with_context(no_method)?;
        let outcome = match (self.ok, self.refused, self.unknown) {
            (Some(reply), None, None) => {
                let reply = Reply::decode(&self.call, decode(&reply)?).with_context(no_method)?;
                Outcome::Ok(reply.context("not the method's response")?)
            }
            (None, Some(refused), None) => Outcome::Refused { code: refused.code, message: refused.message },
            (None, None, Some(text)) => Outcome::Unknown(text),
            (None, None, None) if self.end.is_none() => Outcome::Unknown("it never ended".to_owned()),
            (None, None, None) => bail!("it ended without an outcome"),
            _ => bail!("more than one of ok, refused and unknown"),
        };
        if self.end.is_none() && !outcome.is_unknown() {
            bail!("it has an outcome but did not end");
        }
        if self.end.is_some_and(|end| end < self.start) {
            bail!("it ended before it started");
        }
        let call = call.context("not the method's request")?;
        let Self { id, client, member, user, start, end, .. } = self;
        Ok(Op { id, client, member, user, start, end, call, outcome })
    }
}

impl WatchLine {
    fn read(self) -> Result<WatchLog> {
        let create =
            pb::WatchCreateRequest::decode(decode(&self.create)?).context("not a WatchCreateRequest")?;
        let Self { id, client, member, user, stream, start, resumes, .. } = self;
        Ok(WatchLog { user, stream, resumes, ..WatchLog::new(id, client, member, create, start) })
    }
}

/// Puts lines together.
#[derive(Default)]
struct Reader {
    history: History,
    /// Where each watch is.
    watches: BTreeMap<u64, usize>,
}

impl Reader {
    fn line(&mut self, text: &str) -> Result<()> {
        let history = &mut self.history;
        match serde_json::from_str(text)? {
            Line::Settings(settings) => history.settings = settings,
            Line::Op(op) => {
                let id = op.id;
                history.ops.push(op.read().with_context(|| format!("call {id}"))?);
            }
            Line::Watch(watch) => {
                let id = watch.id;
                if self.watches.insert(id, history.watches.len()).is_some() {
                    bail!("two watches {id}");
                }
                history.watches.push(watch.read().with_context(|| format!("watch {id}"))?);
            }
            Line::Response(response) => {
                let decoded = pb::WatchResponse::decode(decode(&response.bytes)?);
                let decoded = decoded.context("not a WatchResponse")?;
                self.watch(response.watch)?.responses.push((response.at, decoded));
            }
            Line::WatchEnd(end) => {
                let watch = self.watch(end.watch)?;
                (watch.asked, watch.cancel, watch.ended) = (end.asked, end.cancel, end.ended);
            }
            Line::Held(held) => history.held.push(held),
            Line::Applied(applied) => history.applied.push(applied),
            Line::Message(message) => history.messages.push(message),
            Line::Config(config) => history.configs.push(config),
            Line::Boot(boot) => history.boots.push(boot),
            Line::Up(up) => history.ups.push(up),
            Line::Crash(crash) => history.crashes.push(crash),
        }
        Ok(())
    }

    fn watch(&mut self, id: u64) -> Result<&mut WatchLog> {
        let at = self.watches.get(&id).with_context(|| format!("no watch {id} before this line"))?;
        Ok(&mut self.history.watches[*at])
    }
}

/// Reads a history.
pub fn read(from: impl BufRead) -> Result<History> {
    let mut reader = Reader::default();
    for (number, line) in from.lines().enumerate() {
        let line = line?;
        if !line.trim().is_empty() {
            reader.line(&line).with_context(|| format!("line {}", number + 1))?;
        }
    }
    Ok(reader.history)
}

fn watch_lines(watch: &WatchLog) -> Vec<Line> {
    let mut lines = vec![Line::Watch(WatchLine {
        id: watch.id,
        client: watch.client,
        member: watch.member,
        stream: watch.stream,
        user: watch.user.clone(),
        start: watch.start,
        create: BASE64.encode(watch.create.encode_to_vec()),
        resumes: watch.resumes,
    })];
    for (at, response) in &watch.responses {
        let bytes = BASE64.encode(response.encode_to_vec());
        lines.push(Line::Response(ResponseLine { watch: watch.id, at: *at, bytes }));
    }
    let WatchLog { id, asked, cancel, ended, .. } = watch.clone();
    lines.push(Line::WatchEnd(WatchEndLine { watch: id, asked, cancel, ended }));
    lines
}

/// Writes a history.
pub fn write(history: &History, mut to: impl Write) -> Result<()> {
    let mut line = |line: Line| -> Result<()> {
        serde_json::to_writer(&mut to, &line)?;
        Ok(to.write_all(b"\n")?)
    };
    line(Line::Settings(history.settings.clone()))?;
    history.ops.iter().map(|op| Line::Op(OpLine::of(op))).try_for_each(&mut line)?;
    history.watches.iter().flat_map(watch_lines).try_for_each(&mut line)?;
    history.held.iter().cloned().map(Line::Held).try_for_each(&mut line)?;
    history.configs.iter().cloned().map(Line::Config).try_for_each(&mut line)?;
    history.boots.iter().cloned().map(Line::Boot).try_for_each(&mut line)?;
    history.ups.iter().cloned().map(Line::Up).try_for_each(&mut line)?;
    history.crashes.iter().cloned().map(Line::Crash).try_for_each(&mut line)?;
    history.applied.iter().cloned().map(Line::Applied).try_for_each(&mut line)?;
    history.messages.iter().cloned().map(Line::Message).try_for_each(&mut line)?;
    Ok(to.flush()?)
}

#[allow(clippy::disallowed_methods, reason = "a tool's files; no member runs this")]
impl History {
    /// Reads a file of lines.
    pub fn load(path: &Path) -> Result<Self> {
        let file = std::fs::File::open(path).with_context(|| path.display().to_string())?;
        read(BufReader::new(file)).with_context(|| path.display().to_string())
    }

    /// Writes a file of lines.
    pub fn save(&self, path: &Path) -> Result<()> {
        let file = std::fs::File::create(path).with_context(|| path.display().to_string())?;
        write(self, BufWriter::new(file)).with_context(|| path.display().to_string())
    }
}
