//! Flags as Go's flag package reads them, which is what etcd's server does.
//!
//! `-x v`, `--x v`, `-x=v` and `--x=v` are one; a bool takes no word behind it (`--x`, `--x=false`); the first
//! word that is no flag ends them. Numbers may be `0x10`, durations are `1h30m`. What is refused is refused in
//! Go's sentences.

use std::time::Duration;

use thiserror::Error;

use crate::{membership::urls::Url, server::go_duration::parse_go_duration};

/// A flag of a command whose options are a `T`.
pub struct Flag<T: 'static> {
    /// Its name, without dashes.
    pub name: &'static str,
    /// What values it takes, and where they go.
    pub value: Value<T>,
    /// What it is for; empty for what needs no mention.
    pub help: &'static str,
}

/// What values a flag takes, and where they go.
#[allow(missing_docs)]
pub enum Value<T: 'static> {
    Bool(fn(&mut T, bool)),
    Uint(fn(&mut T, u64)),
    Int(fn(&mut T, i64)),
    /// A negative one arrives as zero.
    Duration(fn(&mut T, Duration)),
    Text(fn(&mut T, &str)),
    /// URLs with commas between them, without repetitions. An empty value leaves the default.
    Urls(fn(&mut T, Vec<Url>)),
    /// URLs, or `*`.
    Origins(fn(&mut T, Vec<String>)),
    /// Words with commas between them.
    List(fn(&mut T, Vec<String>)),
    Choice(&'static [&'static str], fn(&mut T, &str)),
    /// Read, and then forgotten.
    Ignored(Shape),
    /// Read, and refused unless it is one of these values, which change nothing.
    Unsupported(Shape, &'static [&'static str]),
}

/// How a value that goes nowhere is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Shape {
    Bool,
    Uint,
    Int,
    Duration,
    Text,
    /// Anything, and nothing at all: no word behind it belongs to it.
    Anything,
}

/// Why an argument is no flag. The command's usage goes with it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[allow(missing_docs)]
pub enum FlagError {
    #[error("flag provided but not defined: -{0}")]
    Unknown(String),
    #[error("flag needs an argument: -{0}")]
    NoValue(String),
    #[error("bad flag syntax: {0}")]
    Syntax(String),
    #[error("invalid value {value:?} for flag -{flag}: {why}")]
    Value { flag: String, value: String, why: String },
    #[error("invalid boolean value {value:?} for -{flag}: {why}")]
    Bool { flag: String, value: String, why: String },
    /// Asked for help, which is no error.
    #[error("help requested")]
    Help,
}

/// Why a value is none for its flag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueError {
    /// It is malformed, and this is how.
    Malformed(String),
    /// It asks for what is not there yet.
    Unsupported,
}

impl<T> Value<T> {
    fn is_bool(&self) -> bool {
        match self {
            Self::Bool(_) => true,
            Self::Ignored(shape) | Self::Unsupported(shape, _) => {
                matches!(shape, Shape::Bool | Shape::Anything)
            }
            Self::Uint(_)
            | Self::Int(_)
            | Self::Duration(_)
            | Self::Text(_)
            | Self::Urls(_)
            | Self::Origins(_)
            | Self::List(_)
            | Self::Choice(..) => false,
        }
    }

    /// Reads a value and puts it into the options.
    pub fn set(&self, options: &mut T, text: &str) -> Result<(), ValueError> {
        match self {
            Self::Bool(set) => set(options, read_bool(text)?),
            Self::Uint(set) => set(options, read_uint(text)?),
            Self::Int(set) => set(options, read_int(text)?),
            Self::Duration(set) => set(options, read_duration(text)?),
            Self::Text(set) => set(options, text),
            Self::Urls(set) => {
                if !text.is_empty() {
                    set(options, read_urls(text)?);
                }
            }
            Self::Origins(set) => match text {
                "" | "*" => set(options, vec!["*".into()]),
                _ => set(options, read_urls(text)?.iter().map(Url::to_string).collect()),
            },
            Self::List(set) => set(options, read_list(text)),
            Self::Choice(choices, set) if choices.contains(&text) => set(options, text),
            Self::Choice(..) => return Err(malformed("invalid value")),
            Self::Ignored(shape) => shape.read(text)?,
            Self::Unsupported(shape, harmless) => {
                shape.read(text)?;
                let off = *shape == Shape::Bool && read_bool(text) == Ok(false);
                if !off && !harmless.contains(&text) {
                    return Err(ValueError::Unsupported);
                }
            }
        }
        Ok(())
    }
}

impl Shape {
    fn read(self, text: &str) -> Result<(), ValueError> {
        match self {
            Self::Bool => read_bool(text).map(|_| ()),
            Self::Uint => read_uint(text).map(|_| ()),
            Self::Int => read_int(text).map(|_| ()),
            Self::Duration => read_duration(text).map(|_| ()),
            Self::Text | Self::Anything => Ok(()),
        }
    }
}

/// What takes the flags that are found, each with its value.
pub type Found<'f, 'a, T> = dyn FnMut(&'a Flag<T>, &str) -> Result<(), FlagError> + 'f;

/// Takes the flags off `args`: what each is called, and its value as a text. Values are not read yet.
/// Returns the words behind them.
pub fn split<'a, T>(
    flags: &[&'a Flag<T>],
    args: &[String],
    found: &mut Found<'_, 'a, T>,
) -> Result<Vec<String>, FlagError> {
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        let name = match arg.strip_prefix("--").or_else(|| arg.strip_prefix('-')) {
            Some("") if arg == "--" => break,
            Some(name) if !name.is_empty() => name,
            Some(_) | None => {
                let mut words = vec![arg.clone()];
                words.extend(rest.cloned());
                return Ok(words);
            }
        };
        if name.starts_with(['-', '=']) {
            return Err(FlagError::Syntax(arg.clone()));
        }
        let (name, value) = match name.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (name, None),
        };
        let Some(flag) = flags.iter().copied().find(|flag| flag.name == name) else {
            let help = matches!(name, "h" | "help");
            return Err(if help { FlagError::Help } else { FlagError::Unknown(name.into()) });
        };
        match value {
            Some(value) => found(flag, value)?,
            None if flag.value.is_bool() => found(flag, "true")?,
            None => found(flag, rest.next().ok_or_else(|| FlagError::NoValue(name.into()))?)?,
        }
    }
    Ok(rest.cloned().collect())
}

/// The error of a flag's malformed value.
pub fn wrong_value<T>(flag: &Flag<T>, value: &str, why: String) -> FlagError {
    let (name, value) = (flag.name.into(), value.into());
    if flag.value.is_bool() {
        FlagError::Bool { flag: name, value, why }
    } else {
        FlagError::Value { flag: name, value, why }
    }
}

fn malformed(why: impl ToString) -> ValueError {
    ValueError::Malformed(why.to_string())
}

fn read_bool(text: &str) -> Result<bool, ValueError> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(malformed("parse error")),
    }
}

fn read_uint(text: &str) -> Result<u64, ValueError> {
    let lower = text.to_ascii_lowercase();
    let (digits, radix) = match lower.as_bytes() {
        [b'0', b'x', ..] => (&lower[2..], 16),
        [b'0', b'b', ..] => (&lower[2..], 2),
        [b'0', b'o', ..] => (&lower[2..], 8),
        [b'0', _, ..] => (&lower[1..], 8),
        _ => (lower.as_str(), 10),
    };
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return Err(malformed("parse error"));
    }
    u64::from_str_radix(digits, radix).map_err(|_| malformed("value out of range"))
}

fn read_int(text: &str) -> Result<i64, ValueError> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let number = i128::from(read_uint(digits)?);
    i64::try_from(if negative { -number } else { number }).map_err(|_| malformed("value out of range"))
}

fn read_duration(text: &str) -> Result<Duration, ValueError> {
    let nanos = parse_go_duration(text).ok_or_else(|| malformed("parse error"))?;
    Ok(Duration::from_nanos(nanos.max(0).unsigned_abs()))
}

fn read_urls(text: &str) -> Result<Vec<Url>, ValueError> {
    let mut urls = Url::parse_list(text).map_err(malformed)?;
    urls.dedup();
    Ok(urls)
}

fn read_list(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        if !words.iter().any(|known| known == word) {
            words.push(word.into());
        }
    }
    words
}
