//! The log of events, in the form of etcd's: one JSON object a line, or plain text for a console.
#![allow(clippy::disallowed_types)]

use std::{
    fmt::{self, Write as _},
    fs::OpenOptions,
    io,
    sync::Mutex,
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    filter::LevelFilter,
    fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter, format::Writer},
    registry::LookupSpan,
};

use super::server::rfc3339;
use crate::server::config::Logging;

/// Starts the log; once a process.
///
/// # Errors
/// A file that can't be opened.
pub fn start(logging: &Logging) -> io::Result<()> {
    let level = match logging.level.as_str() {
        "debug" => LevelFilter::DEBUG,
        "warn" => LevelFilter::WARN,
        "error" | "panic" | "fatal" => LevelFilter::ERROR,
        _ => LevelFilter::INFO,
    };
    let outputs = logging.outputs.iter().map(|name| Output::open(name)).collect::<io::Result<_>>()?;
    tracing_subscriber::fmt()
        .with_max_level(level)
        .event_format(EtcdFormat { json: logging.format != "console" })
        .with_writer(SharedOutputs(Mutex::new(Outputs(outputs))))
        .init();
    Ok(())
}

/// Where lines go.
enum Output {
    Stdout,
    Stderr,
    File(std::fs::File),
}

impl Output {
    fn open(name: &str) -> io::Result<Self> {
        match name {
            "stdout" => Ok(Self::Stdout),
            "default" | "stderr" => Ok(Self::Stderr),
            path => Ok(Self::File(OpenOptions::new().create(true).append(true).open(path)?)),
        }
    }

    fn write_all(&mut self, line: &[u8]) -> io::Result<()> {
        use io::Write as _;
        match self {
            Self::Stdout => io::stdout().write_all(line),
            Self::Stderr => io::stderr().write_all(line),
            Self::File(file) => file.write_all(line),
        }
    }
}

struct Outputs(Vec<Output>);

impl Outputs {
    fn write_all(&mut self, line: &[u8]) -> io::Result<()> {
        self.0.iter_mut().try_for_each(|output| output.write_all(line))
    }
}

/// A line is written whole.
struct Line<'a>(&'a Mutex<Outputs>);

impl io::Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).write_all(line)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for SharedOutputs {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(&self.0)
    }
}

struct SharedOutputs(Mutex<Outputs>);

struct EtcdFormat {
    json: bool,
}

impl<S, N> FormatEvent<S, N> for EtcdFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let level = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warn",
            Level::INFO => "info",
            Level::DEBUG | Level::TRACE => "debug",
        };
        let millis = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        let time = rfc3339(millis);
        if !self.json {
            write!(out, "{time}\t{}\t{}", level.to_uppercase(), fields.message)?;
            if !fields.others.is_empty() {
                write!(out, "\t{}", object(&fields.others))?;
            }
            return writeln!(out);
        }
        let mut all = vec![
            ("level", json!(level)),
            ("ts", json!(time)),
            ("caller", json!(event.metadata().target())),
            ("msg", json!(fields.message)),
        ];
        all.append(&mut fields.others);
        writeln!(out, "{}", object(&all))
    }
}

/// A JSON object with its fields in order.
fn object(fields: &[(&'static str, Value)]) -> String {
    let mut text = String::from("{");
    for (i, (name, value)) in fields.iter().enumerate() {
        let comma = if i == 0 { "" } else { "," };
        write!(text, "{comma}{}:{value}", json!(name)).expect("a string takes all that is written to it");
    }
    text + "}"
}

#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, Value)>,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        } else {
            self.others.push((field.name(), json!(format!("{value:?}"))));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.others.push((field.name(), json!(value)));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.others.push((field.name(), json!(value)));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.others.push((field.name(), json!(value)));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.others.push((field.name(), json!(value)));
    }
}
