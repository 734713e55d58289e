//! `watch`: one stream for all watches of this process, opened again where it left off when it breaks.
//!
//! ```text
//! arguments, or lines of standard input ──▶ Watcher… ──▶ one stream ──▶ events: print, then run the command
//! ```
//!
//! Each watcher knows the next revision that it has not seen; that is what a new stream starts from.

use std::{collections::VecDeque, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
    sync::mpsc,
};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Code, Status, Streaming, metadata::AsciiMetadataValue};

use super::{
    Context, Session,
    client::Picked,
    fail::{Exit, Failure, Outcome},
    flags::{Flags, Refused},
    globals::{WATCH_KEY, WATCH_RANGE_END},
    go, kv,
    output::Reply,
    tree, txn,
};
use crate::wire::{
    etcdserverpb::{
        self as pb, WatchCreateRequest, WatchProgressRequest, WatchRequest, watch_client::WatchClient,
        watch_request::RequestUnion,
    },
    mvccpb,
};

/// Pause before a broken stream is opened again.
const REOPEN_PAUSE: Duration = Duration::from_millis(100);
/// The watch id of answers that are for all watches of a stream.
const EVERY_WATCH: i64 = -1;

/// What one `watch` line asks for.
#[derive(Clone, Debug, PartialEq)]
struct Ask {
    request: WatchCreateRequest,
    /// Run for each event; empty for none.
    command: Vec<String>,
}

/// One watch, and how far it has come.
struct Watcher {
    ask: Ask,
    /// The server's id for it on the stream of now.
    id: Option<i64>,
}

/// Reads key, range end and command from a line's words, or the key from the environment.
fn ask(flags: &Flags, key: &str, range_end: &str) -> Result<Ask, String> {
    let split = flags.before_dash.unwrap_or(flags.args.len());
    let (words, command) = flags.args.split_at(split);
    if key.is_empty() && !range_end.is_empty() {
        return Err(format!(
            "{WATCH_KEY} is empty but got {WATCH_RANGE_END}={}",
            go::quote(range_end.as_bytes())
        ));
    }
    if flags.before_dash.is_some() && command.is_empty() {
        return Err("bad number of arguments (found separator --, but no commands)".into());
    }
    let (key, end) = match (words, key) {
        ([], "") => return Err("bad number of arguments".into()),
        ([], key) => (key, Some(range_end).filter(|end| !end.is_empty())),
        ([key, rest @ ..], "") => (key.as_str(), rest.first().map(String::as_str)),
        ([_, ..], _) => return Err("bad number of arguments (found conflicting environment key)".into()),
    };
    let (key, range_end) = match (end, flags.on("prefix")) {
        (Some(_), true) => return Err("`range_end` and `--prefix` are mutually exclusive".into()),
        (Some(end), false) => (key.as_bytes(), end.to_string().into()),
        (None, true) => (key.as_bytes(), kv::prefix_end(key.as_bytes())),
        (None, false) => (key.as_bytes(), Default::default()),
    };
    let key = if key.is_empty() { &b"\0"[..] } else { key };
    let request = WatchCreateRequest {
        key: bytes::Bytes::copy_from_slice(key),
        range_end,
        start_revision: flags.int("rev"),
        progress_notify: flags.on("progress-notify"),
        prev_kv: flags.on("prev-kv"),
        ..Default::default()
    };
    Ok(Ask { request, command: command.to_vec() })
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

/// `watch`.
pub async fn watch(context: Context) -> Outcome {
    let ignore = [WATCH_KEY, WATCH_RANGE_END];
    if context.flags.on("interactive") {
        let session = context.connect_ignoring(&ignore).await?;
        return interactive(session).await;
    }
    let ask = ask(&context.flags, &variable(WATCH_KEY), &variable(WATCH_RANGE_END)).map_err(Failure::args)?;
    let session = context.connect_ignoring(&ignore).await?;
    let mut hub = Hub::new(session);
    hub.watch(ask);
    while !hub.watchers.is_empty() {
        hub.step().await?;
    }
    Err(Failure::new(Exit::Interrupted, "watch is canceled by the server"))
}

/// Takes `watch …` and `progress` from standard input until it ends.
async fn interactive(session: Session) -> Outcome {
    let (sender, mut lines) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut input = BufReader::new(tokio::io::stdin()).lines();
        while let Ok(Some(line)) = input.next_line().await {
            if sender.send(line).await.is_err() {
                return;
            }
        }
    });
    let mut hub = Hub::new(session);
    loop {
        let line = tokio::select! {
            biased;
            line = lines.recv() => line,
            done = hub.step(), if !hub.watchers.is_empty() => {
                done?;
                continue;
            }
        };
        let Some(line) = line else {
            return Err(Failure::new(Exit::BadInput, "error reading watch request line: EOF"));
        };
        match read_line(&line)? {
            Line::Watch(ask) => hub.watch(*ask),
            Line::Progress => hub.progress(),
            Line::Bad(text) => eprintln!("Invalid command{text}"),
        }
    }
}

/// What a line of standard input means.
enum Line {
    Watch(Box<Ask>),
    Progress,
    /// What comes after `Invalid command`.
    Bad(String),
}

fn read_line(line: &str) -> Result<Line, Failure> {
    let words = txn::split_words(line);
    match words.first().map(String::as_str) {
        None => Ok(Line::Bad(format!(": {line} (watch and progress supported)"))),
        Some("progress") => Ok(Line::Progress),
        Some("watch") => {
            let key = variable(WATCH_KEY);
            if words.len() < 2 && key.is_empty() {
                return Ok(Line::Bad(format!(" {line} (command type or key is not provided)")));
            }
            let known: Vec<_> =
                tree::find(&["watch".to_string()]).map(|found| found.flags().collect()).unwrap_or_default();
            let flags = Flags::parse(known, &words[1..]).map_err(|refused| match refused {
                Refused::Text(text) => Failure::args(text),
                Refused::Help => Failure::args("pflag: help requested"),
            })?;
            Ok(match ask(&flags, &key, &variable(WATCH_RANGE_END)) {
                Ok(ask) => Line::Watch(Box::new(ask)),
                Err(why) => Line::Bad(format!(" {line} ({why})")),
            })
        }
        Some(_) => Ok(Line::Bad(format!(" {line} (only support watch)"))),
    }
}

/// All watches of this process and the stream that they share.
struct Hub {
    session: Session,
    watchers: Vec<Watcher>,
    stream: Stream,
}

/// The stream's state; kept outside of futures, since `step` may be dropped at any await.
enum Stream {
    Closed,
    Open {
        picked: Picked,
        requests: mpsc::UnboundedSender<WatchRequest>,
        /// Watchers whose creation has not been answered, by place; answers come in order.
        pending: VecDeque<usize>,
        answers: Answers,
    },
}

type Opening = std::pin::Pin<Box<dyn Future<Output = Result<Streaming<pb::WatchResponse>, Status>> + Send>>;

enum Answers {
    /// The call is under way: its answer starts with the first message.
    Opening(Opening),
    Open(Box<Streaming<pb::WatchResponse>>),
}

impl Answers {
    async fn next(&mut self) -> Result<Option<pb::WatchResponse>, Status> {
        if let Self::Opening(call) = self {
            *self = Self::Open(Box::new(call.await?));
        }
        match self {
            Self::Open(stream) => stream.message().await,
            Self::Opening(_) => Ok(None),
        }
    }
}

fn create(watcher: &Watcher) -> WatchRequest {
    WatchRequest { request_union: Some(RequestUnion::CreateRequest(watcher.ask.request.clone())) }
}

impl Hub {
    fn new(session: Session) -> Self {
        Self { session, watchers: Vec::new(), stream: Stream::Closed }
    }

    fn watch(&mut self, ask: Ask) {
        let watcher = Watcher { ask, id: None };
        if let Stream::Open { requests, pending, .. } = &mut self.stream {
            // A closed channel means a broken stream, which `step` opens again.
            let _ = requests.send(create(&watcher));
            pending.push_back(self.watchers.len());
        }
        self.watchers.push(watcher);
    }

    fn progress(&mut self) {
        if let Stream::Open { requests, .. } = &self.stream {
            let ask = RequestUnion::ProgressRequest(WatchProgressRequest {});
            let _ = requests.send(WatchRequest { request_union: Some(ask) });
        }
    }

    /// Opens the stream if there is none, and handles one answer.
    async fn step(&mut self) -> Outcome {
        let answer = match &mut self.stream {
            Stream::Open { answers, .. } => answers.next().await,
            Stream::Closed => {
                let picked = self.session.client.pick().await;
                self.stream = self.open(picked);
                return Ok(());
            }
        };
        match answer {
            Ok(Some(response)) => self.answer(response).await,
            Ok(None) => self.reopen().await,
            Err(status)
                if matches!(status.code(), Code::Unavailable | Code::Internal) || is_broken(&status) =>
            {
                self.reopen().await
            }
            Err(status) => {
                let error = super::client::CallError::from(status);
                eprintln!("watch was canceled ({error})");
                self.watchers.clear();
                Ok(())
            }
        }
    }

    fn open(&mut self, picked: Picked) -> Stream {
        let (requests, receiver) = mpsc::unbounded_channel();
        let mut pending = VecDeque::new();
        for (at, watcher) in self.watchers.iter_mut().enumerate() {
            watcher.id = None;
            // The receiver is still here.
            let _ = requests.send(create(watcher));
            pending.push_back(at);
        }
        let mut request = self.session.client.request(UnboundedReceiverStream::new(receiver));
        request.metadata_mut().insert("hasleader", AsciiMetadataValue::from_static("true"));
        let mut client = WatchClient::new(picked.channel.clone()).max_decoding_message_size(usize::MAX);
        let call = Box::pin(async move { client.watch(request).await.map(tonic::Response::into_inner) });
        Stream::Open { picked, requests, pending, answers: Answers::Opening(call) }
    }

    async fn reopen(&mut self) -> Outcome {
        if let Stream::Open { picked, .. } = std::mem::replace(&mut self.stream, Stream::Closed) {
            self.session.client.broken(&picked);
        }
        tokio::time::sleep(REOPEN_PAUSE).await;
        Ok(())
    }

    /// Handles one answer, for the watches that it is for.
    async fn answer(&mut self, response: pb::WatchResponse) -> Outcome {
        let revision = response.header.as_ref().map_or(0, |header| header.revision);
        if response.created
            && let Stream::Open { pending, .. } = &mut self.stream
            && let Some(watcher) = pending.pop_front().and_then(|at| self.watchers.get_mut(at))
        {
            watcher.id = Some(response.watch_id);
            if watcher.ask.request.start_revision == 0 {
                // From here on; kept, so that a new stream misses nothing.
                watcher.ask.request.start_revision = revision + 1;
            }
            if !response.canceled {
                return Ok(());
            }
        }
        for at in 0..self.watchers.len() {
            let watcher = &self.watchers[at];
            if watcher.id != Some(response.watch_id) && response.watch_id != EVERY_WATCH {
                continue;
            }
            self.show(at, &response).await?;
        }
        if response.canceled {
            self.watchers.retain(|watcher| watcher.id != Some(response.watch_id));
            if let Stream::Open { pending, .. } = &mut self.stream {
                // Places have moved; those that are pending are the last ones.
                let count = pending.len();
                *pending = (self.watchers.len().saturating_sub(count)..self.watchers.len()).collect();
            }
        }
        Ok(())
    }

    /// Prints an answer, runs the command, and remembers how far this watch has come.
    async fn show(&mut self, at: usize, response: &pb::WatchResponse) -> Outcome {
        let revision = response.header.as_ref().map_or(0, |header| header.revision);
        if response.canceled {
            eprintln!("watch was canceled ({})", cancel_text(response));
        } else if response.events.is_empty() && revision != 0 {
            super::emit(format!("progress notify: {revision}\n").into())?;
        }
        self.session.print(&Reply::Watch(response.clone()))?;
        let request = &mut self.watchers[at].ask.request;
        if let Some(last) = response.events.last().and_then(|event| event.kv.as_ref()?.decode_kv().ok()) {
            request.start_revision = last.modified.0 + 1;
        } else if !response.canceled {
            request.start_revision = request.start_revision.max(revision + 1);
        }
        let command = &self.watchers[at].ask.command;
        for event in response.events.iter().filter(|_| !command.is_empty()) {
            run(command, revision, event).await?;
        }
        Ok(())
    }
}

/// True if the connection failed rather than the server refused.
fn is_broken(status: &Status) -> bool {
    std::error::Error::source(status).is_some()
}

/// Why the server ended a watch.
fn cancel_text(response: &pb::WatchResponse) -> String {
    if response.compact_revision != 0 {
        return "etcdserver: mvcc: required revision has been compacted".into();
    }
    match response.cancel_reason.as_str() {
        "" => "etcdserver: mvcc: required revision is a future revision".into(),
        reason if reason.starts_with("etcdserver: ") => reason.into(),
        reason => format!("rpc error: code = FailedPrecondition desc = {reason}"),
    }
}

/// Runs the command for one event.
async fn run(command: &[String], revision: i64, event: &mvccpb::Event) -> Outcome {
    let kv = event.kv.as_ref().and_then(|raw| raw.decode_kv().ok()).unwrap_or_default();
    let delete = event.r#type == mvccpb::event::EventType::Delete as i32;
    let status = Command::new(&command[0])
        .args(&command[1..])
        .env("ETCD_WATCH_REVISION", revision.to_string())
        .env("ETCD_WATCH_EVENT_TYPE", if delete { "\"DELETE\"" } else { "\"PUT\"" })
        .env("ETCD_WATCH_KEY", go::quote(&kv.key))
        .env("ETCD_WATCH_VALUE", go::quote(&kv.value))
        .status()
        .await;
    let why = match status {
        Ok(status) if status.success() => return Ok(()),
        Ok(status) => match status.code() {
            Some(code) => format!("exit status {code}"),
            None => status.to_string(),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !command[0].contains('/') => {
            format!("exec: {}: executable file not found in $PATH", go::quote(command[0].as_bytes()))
        }
        Err(error) => error.to_string(),
    };
    let words: Vec<String> = command.iter().map(|word| go::quote(word.as_bytes())).collect();
    eprintln!("command [{}] error ({why})", words.join(" "));
    Err(Failure::silent(Exit::Error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(line: &str, key: &str, end: &str) -> Result<Ask, String> {
        let words: Vec<String> = line.split_whitespace().map(String::from).collect();
        let known: Vec<_> = tree::find(&["watch".to_string()]).expect("a command").flags().collect();
        ask(&Flags::parse(known, &words).expect("a good line"), key, end)
    }

    #[test]
    fn lines_say_what_to_watch() {
        let ask = asked("a b --rev=5 --prev-kv -- echo -n hi", "", "").expect("a good line");
        assert_eq!(ask.command, ["echo", "-n", "hi"]);
        assert_eq!((&ask.request.key[..], &ask.request.range_end[..]), (&b"a"[..], &b"b"[..]));
        assert_eq!((ask.request.start_revision, ask.request.prev_kv), (5, true));
        let ask = asked("-- echo hi", "k", "z").expect("a key from the environment");
        assert_eq!(
            (&ask.request.key[..], &ask.request.range_end[..], ask.command.len()),
            (&b"k"[..], &b"z"[..], 2)
        );
        let ask = asked("a --prefix", "", "").expect("a prefix");
        assert_eq!(&ask.request.range_end[..], b"b");
        let words: Vec<String> = vec!["".into(), "--prefix".into()];
        let known: Vec<_> = tree::find(&["watch".to_string()]).expect("a command").flags().collect();
        let all = super::ask(&Flags::parse(known, &words).expect("a line"), "", "").expect("all keys");
        assert_eq!((&all.request.key[..], &all.request.range_end[..]), (&b"\0"[..], &b"\0"[..]));
    }

    #[test]
    fn bad_lines_are_refused_as_etcdctl_refuses_them() {
        for (line, key, end, text) in [
            ("", "", "", "bad number of arguments"),
            ("-- echo", "", "", "bad number of arguments"),
            ("foo --", "", "", "bad number of arguments (found separator --, but no commands)"),
            ("a b --prefix", "", "", "`range_end` and `--prefix` are mutually exclusive"),
            ("foo", "h", "", "bad number of arguments (found conflicting environment key)"),
            ("", "", "h", "ETCDCTL_WATCH_KEY is empty but got ETCDCTL_WATCH_RANGE_END=\"h\""),
        ] {
            assert_eq!(asked(line, key, end), Err(text.into()), "{line:?}");
        }
        assert!(asked("a b c", "", "").is_ok());
    }
}
