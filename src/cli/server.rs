//! The server's command line: flags and `ETCD_` variables in, a checked [`Config`] or the reason to stop out.
//!
//! As with etcd, a flag and its variable together are an error; an unknown variable is a warning; a malformed
//! flag ends with 2 and the usage, anything else that is wrong with 1 and a line of the log.

use std::{
    collections::BTreeMap,
    env::consts::{ARCH, OS},
    fmt::Write as _,
};

use serde_json::{Value as Json, json};

use super::{
    flags::{Flag, FlagError, Shape, Value, ValueError, split, wrong_value},
    server_flags::FLAGS,
};
use crate::server::config::{COMPAT_VERSION, Config, ConfigError, VERSION};

/// Prefix of the environment's variables.
const PREFIX: &str = "ETCD_";

/// A note for the log, from before there was one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// `info`, `warn` or `fatal`.
    pub level: &'static str,
    /// What happened.
    pub message: String,
    /// The details, in order.
    pub fields: Vec<(&'static str, Json)>,
}

impl Note {
    fn new(level: &'static str, message: &str, fields: Vec<(&'static str, Json)>) -> Self {
        Self { level, message: message.into(), fields }
    }

    /// A line of etcd's log. `time` is RFC 3339.
    pub fn line(&self, time: &str) -> String {
        let mut line = String::new();
        let mut put = |name: &str, value: &Json| {
            let comma = if line.is_empty() { '{' } else { ',' };
            write!(line, "{comma}{}:{value}", json!(name)).expect("a string takes all that is written to it");
        };
        put("level", &json!(self.level));
        put("ts", &json!(time));
        put("msg", &json!(self.message));
        for (name, value) in &self.fields {
            put(name, value);
        }
        line + "}"
    }
}

/// A server to be run.
#[derive(Debug)]
pub struct Start {
    /// Its options.
    pub config: Config,
    /// What is to be logged first.
    pub notes: Vec<Note>,
}

/// Why there is no server to be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// What was asked for is this text on stdout; all is well.
    Say(String),
    /// The arguments are no flags: text for stderr, code 2.
    Usage(String),
    /// The options are wrong: lines for the log, code 1.
    Refuse(Vec<Note>),
}

impl Stop {
    /// What the process ends with.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Say(_) => 0,
            Self::Usage(_) => 2,
            Self::Refuse(_) => 1,
        }
    }

    /// What goes to stdout, and what to stderr, at a wall-clock time in milliseconds since 1970.
    pub fn output(&self, unix_millis: u64) -> (String, String) {
        match self {
            Self::Say(text) => (text.clone(), String::new()),
            Self::Usage(text) => (String::new(), text.clone()),
            Self::Refuse(notes) => {
                let time = rfc3339(unix_millis);
                (String::new(), notes.iter().map(|note| note.line(&time) + "\n").collect())
            }
        }
    }
}

/// A time as etcd's log has it: UTC, to the millisecond.
pub fn rfc3339(unix_millis: u64) -> String {
    let (seconds, millis) = (unix_millis / 1_000, unix_millis % 1_000);
    let (days, clock) = (seconds / 86_400, seconds % 86_400);
    // Years that begin in March, in eras of 400, so that a leap day is the last of its year.
    let day = days + 719_468;
    let (era, day) = (day / 146_097, day % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let march = (5 * day + 2) / 153;
    let (month, day) = (if march < 10 { march + 3 } else { march - 9 }, day - (153 * march + 2) / 5 + 1);
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute, second) = (clock / 3_600, clock / 60 % 60, clock % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// Reads the arguments (without the program's name) and the environment.
pub fn parse(args: &[String], env: &BTreeMap<String, String>) -> Result<Start, Stop> {
    let mut config = Config::default();
    let mut version = false;
    let mut unsupported = None;
    let words = split(&all_flags(), args, &mut |flag, value| {
        config.given.insert(flag.name);
        match flag.value.set(&mut config, value) {
            Ok(()) => {
                if flag.name == VERSION_FLAG {
                    version = value.starts_with(['1', 't', 'T']);
                }
                Ok(())
            }
            Err(ValueError::Malformed(why)) => Err(wrong_value(flag, value, why)),
            Err(ValueError::Unsupported) => {
                unsupported.get_or_insert(flag.name);
                Ok(())
            }
        }
    })
    .map_err(stop_at_flag)?;
    if let Some(word) = words.first() {
        return Err(refuse(Vec::new(), format!("'{word}' is not a valid flag")));
    }
    if version {
        return Err(Stop::Say(version_text()));
    }
    let mut notes = read_env(&mut config, env, &mut unsupported)?;
    let (first, second) =
        ("multiple discovery or bootstrap flags are set. Choose one of", "\"initial-cluster\"");
    let bootstraps = ["initial-cluster", "discovery", "discovery-srv"];
    if bootstraps.iter().filter(|flag| config.given.contains(**flag)).count() > 1 {
        let text = format!("{first} {second}, \"discovery\" or \"discovery-srv\"");
        return Err(refuse(notes, text));
    }
    if let Some(flag) = unsupported {
        return Err(refuse(notes, format!("--{flag} is not supported yet")));
    }
    match config.check() {
        Ok(()) => {}
        Err(error @ ConfigError::AdvertiseMissing) => {
            let mut stop = refuse(notes, error.to_string());
            if let Stop::Refuse(notes) = &mut stop {
                let fields = vec![("error", json!(error.to_string()))];
                notes.push(Note::new("warn", "advertise client URLs are not set", fields));
            }
            return Err(stop);
        }
        Err(error) => return Err(refuse(notes, error.to_string())),
    }
    notes.extend(config.warnings().iter().map(|warning| Note::new("warn", warning, Vec::new())));
    Ok(Start { config, notes })
}

const VERSION_FLAG: &str = "version";

static VERSION_FLAGS: &[Flag<Config>] =
    &[Flag { name: VERSION_FLAG, value: Value::Ignored(Shape::Bool), help: "print the version" }];

fn all_flags() -> Vec<&'static Flag<Config>> {
    FLAGS.iter().copied().flatten().chain(VERSION_FLAGS).collect()
}

fn stop_at_flag(error: FlagError) -> Stop {
    match error {
        FlagError::Help => Stop::Say(format!("{}\n{}", usage(), help())),
        FlagError::Unknown(_)
        | FlagError::NoValue(_)
        | FlagError::Syntax(_)
        | FlagError::Value { .. }
        | FlagError::Bool { .. } => Stop::Usage(format!("{error}\n{}", usage())),
    }
}

fn refuse(mut notes: Vec<Note>, error: String) -> Stop {
    notes.push(Note::new("warn", "failed to verify flags", vec![("error", json!(error))]));
    Stop::Refuse(notes)
}

/// Takes in the variables of those flags that were not given; an empty one says nothing.
fn read_env(
    config: &mut Config,
    env: &BTreeMap<String, String>,
    unsupported: &mut Option<&'static str>,
) -> Result<Vec<Note>, Stop> {
    let mut notes = Vec::new();
    for (key, value) in env.iter().filter(|(key, _)| key.starts_with(PREFIX)) {
        let known = all_flags().into_iter().find(|flag| *key == variable(flag.name));
        let Some(flag) = known else {
            let field = ("environment-variable", json!(format!("{key}={value}")));
            notes.push(Note::new("warn", "unrecognized environment variable", vec![field]));
            continue;
        };
        if flag.name == VERSION_FLAG {
            let fields = vec![("key", json!(key)), ("value", json!(value))];
            notes.push(Note::new("warn", "cannot set special environment variable", fields));
            continue;
        }
        if config.given.contains(flag.name) {
            let text = "conflicting environment variable is shadowed by corresponding command-line flag (either \
                        unset environment variable or disable flag))";
            notes.push(Note::new("fatal", text, vec![("environment-variable", json!(key))]));
            return Err(Stop::Refuse(notes));
        }
        if value.is_empty() {
            continue;
        }
        match flag.value.set(config, value) {
            Ok(()) => {}
            Err(ValueError::Malformed(why)) => {
                return Err(refuse(notes, format!("invalid value {value:?} for {key}: {why}")));
            }
            Err(ValueError::Unsupported) => {
                unsupported.get_or_insert(flag.name);
            }
        }
        config.given.insert(flag.name);
        let fields = vec![("variable-name", json!(key)), ("variable-value", json!(value))];
        notes.push(Note::new("info", "recognized and used environment variable", fields));
    }
    Ok(notes)
}

fn variable(flag: &str) -> String {
    format!("{PREFIX}{}", flag.to_ascii_uppercase().replace('-', "_"))
}

/// The lines that tools read etcd's version from, and our own behind them.
fn version_text() -> String {
    let arch = match ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!(
        "etcd Version: {COMPAT_VERSION}\nGit SHA: kontiki-{VERSION}\nGo Version: none (Rust)\n\
         Go OS/Arch: {OS}/{arch}\nKontiki Version: {VERSION}\n"
    )
}

fn usage() -> String {
    "Usage:\n\n  kontiki [flags]\n    Run a server. The flags and ETCD_ variables are etcd's.\n\n  \
     kontiki --version\n    Print the versions.\n\n  kontiki -h | --help\n    List the flags.\n\n  \
     kontiki ctl | kontiki utl\n    What etcdctl and etcdutl do.\n"
        .into()
}

/// The flags that have an effect, by section.
fn help() -> String {
    let titles = ["Member", "Clustering", "Serving", "Logging and profiles", "Checks and pace"];
    let mut text = String::new();
    for (title, flags) in titles.iter().zip(FLAGS) {
        write!(text, "{title}:\n\n").expect("a string takes all that is written to it");
        for flag in flags.iter().filter(|flag| !flag.help.is_empty()) {
            writeln!(text, "  --{}\n    {}", flag.name, flag.help)
                .expect("a string takes all that is written to it");
        }
        text.push('\n');
    }
    text
}
