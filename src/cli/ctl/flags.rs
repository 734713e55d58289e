//! Flags in the GNU manner that etcdctl's users know: anywhere on the line, `--x=v` or `--x v`, short ones
//! bundled, `--` ends them; unknown flags and bad values are refused in the words that scripts look for.
//!
//! clap parses by another grammar (no bundled value after `=`, other texts, other exit codes), so this does
//! it: a table of [`Flag`]s, and [`Flags`] that holds what was given.

use std::{collections::BTreeMap, time::Duration};

use super::go;

/// What a flag's value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Alone, or `=true` / `=false`.
    Bool,
    /// Any text.
    Text,
    /// A 64-bit integer.
    Int,
    /// A duration with its unit, such as `5s`.
    Duration,
    /// Texts separated by commas.
    List,
}

/// A flag that a command knows.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// The long name, without its dashes.
    pub name: &'static str,
    /// The short name, if there is one.
    pub short: Option<char>,
    /// What its value is.
    pub kind: Kind,
    /// The value when it isn't given, as text.
    pub default: &'static str,
    /// One line for the usage.
    pub about: &'static str,
}

impl Flag {
    /// A flag with a long name only.
    pub const fn new(name: &'static str, kind: Kind, default: &'static str, about: &'static str) -> Self {
        Self { name, short: None, kind, default, about }
    }

    /// A switch that is off unless given.
    pub const fn switch(name: &'static str, about: &'static str) -> Self {
        Self::new(name, Kind::Bool, "false", about)
    }

    /// The same flag with a short name too.
    pub const fn short(self, short: char) -> Self {
        Self { short: Some(short), ..self }
    }

    /// Checks that `value` is of its kind; the error is Go's text.
    fn check(&self, value: &str) -> Result<(), String> {
        let checked = match self.kind {
            Kind::Bool => go::parse_bool(value).map(drop),
            Kind::Int => go::parse_int(value, 0).map(drop),
            Kind::Duration => go::parse_duration(value).map(drop),
            Kind::Text | Kind::List => Ok(()),
        };
        checked.map_err(|why| {
            let shown = match self.short {
                Some(short) => format!("-{short}, --{}", self.name),
                None => format!("--{}", self.name),
            };
            format!(
                "invalid argument {} for {} flag: {why}",
                go::quote(value.as_bytes()),
                go::quote(shown.as_bytes())
            )
        })
    }
}

/// Why a command line was not understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// `-h` or `--help` was given.
    Help,
    /// The sentence to print.
    Text(String),
}

/// The flags and arguments of one command line.
#[derive(Debug, Default)]
pub struct Flags {
    known: Vec<Flag>,
    given: BTreeMap<&'static str, String>,
    /// Arguments that are not flags, in order.
    pub args: Vec<String>,
    /// How many of `args` came before `--`, if there was one.
    pub before_dash: Option<usize>,
}

impl Flags {
    /// Parses `line` against the flags that the command knows.
    pub fn parse(known: impl IntoIterator<Item = Flag>, line: &[String]) -> Result<Self, Refused> {
        let mut flags = Self { known: known.into_iter().collect(), ..Self::default() };
        let mut rest = line.iter();
        while let Some(word) = rest.next() {
            if word == "--" {
                flags.before_dash = Some(flags.args.len());
                flags.args.extend(rest.by_ref().cloned());
            } else if let Some(long) = word.strip_prefix("--") {
                flags.long(long, &mut rest)?;
            } else if word.len() > 1 && word.starts_with('-') {
                flags.shorts(&word[1..], &mut rest)?;
            } else {
                flags.args.push(word.clone());
            }
        }
        Ok(flags)
    }

    fn long<'a>(&mut self, text: &str, rest: &mut impl Iterator<Item = &'a String>) -> Result<(), Refused> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_string())),
            None => (text, None),
        };
        if name.is_empty() || name.starts_with('-') {
            return Err(Refused::Text(format!("bad flag syntax: --{text}")));
        }
        let Some(flag) = self.known.iter().find(|flag| flag.name == name).copied() else {
            return Err(if name == "help" {
                Refused::Help
            } else {
                Refused::Text(format!("unknown flag: --{name}"))
            });
        };
        let value = match (value, flag.kind) {
            (Some(value), _) => value,
            (None, Kind::Bool) => "true".into(),
            (None, _) => match rest.next() {
                Some(value) => value.clone(),
                None => return Err(Refused::Text(format!("flag needs an argument: --{name}"))),
            },
        };
        self.set(flag, &value).map_err(Refused::Text)
    }

    fn shorts<'a>(
        &mut self,
        bundle: &str,
        rest: &mut impl Iterator<Item = &'a String>,
    ) -> Result<(), Refused> {
        let mut letters = bundle.chars();
        while let Some(letter) = letters.next() {
            let Some(flag) = self.known.iter().find(|flag| flag.short == Some(letter)).copied() else {
                return Err(match letter {
                    'h' => Refused::Help,
                    _ => Refused::Text(format!("unknown shorthand flag: '{letter}' in -{bundle}")),
                });
            };
            let tail = letters.as_str();
            let value = match (tail.strip_prefix('='), flag.kind) {
                (Some(value), _) => value.to_string(),
                (None, Kind::Bool) => {
                    self.set(flag, "true").map_err(Refused::Text)?;
                    continue;
                }
                (None, _) if !tail.is_empty() => tail.to_string(),
                (None, _) => match rest.next() {
                    Some(value) => value.clone(),
                    None => {
                        return Err(Refused::Text(format!(
                            "flag needs an argument: '{letter}' in -{bundle}"
                        )));
                    }
                },
            };
            return self.set(flag, &value).map_err(Refused::Text);
        }
        Ok(())
    }

    /// Sets a flag; a list grows from its second value on.
    fn set(&mut self, flag: Flag, value: &str) -> Result<(), String> {
        flag.check(value)?;
        match (flag.kind, self.given.get_mut(flag.name)) {
            (Kind::List, Some(list)) => {
                list.push(',');
                list.push_str(value);
            }
            _ => {
                self.given.insert(flag.name, value.to_string());
            }
        }
        Ok(())
    }

    /// Sets a flag from elsewhere (the environment); false if the value is not of its kind.
    pub fn set_from(&mut self, name: &str, value: &str) -> bool {
        match self.known.iter().find(|flag| flag.name == name).copied() {
            Some(flag) => self.set(flag, value).is_ok(),
            None => false,
        }
    }

    /// True if the flag was given.
    pub fn given(&self, name: &str) -> bool {
        self.given.contains_key(name)
    }

    /// The flag's value as text: what was given, or the default.
    pub fn text(&self, name: &str) -> &str {
        match self.given.get(name) {
            Some(value) => value,
            None => self.known.iter().find(|flag| flag.name == name).map_or("", |flag| flag.default),
        }
    }

    /// A switch.
    pub fn on(&self, name: &str) -> bool {
        go::parse_bool(self.text(name)).unwrap_or(false)
    }

    /// An integer.
    pub fn int(&self, name: &str) -> i64 {
        go::parse_int(self.text(name), 0).unwrap_or(0)
    }

    /// A duration.
    pub fn duration(&self, name: &str) -> Duration {
        go::parse_duration(self.text(name)).unwrap_or(Duration::ZERO)
    }

    /// A list; an empty text is an empty list.
    pub fn list(&self, name: &str) -> Vec<String> {
        match self.text(name) {
            "" => Vec::new(),
            text => text.split(',').map(String::from).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [Flag; 5] = [
        Flag::new("write-out", Kind::Text, "simple", "").short('w'),
        Flag::switch("interactive", "").short('i'),
        Flag::new("endpoints", Kind::List, "127.0.0.1:2379", ""),
        Flag::new("rev", Kind::Int, "0", ""),
        Flag::new("dial-timeout", Kind::Duration, "2s", ""),
    ];

    fn parse(line: &[&str]) -> Result<Flags, Refused> {
        Flags::parse(KNOWN, &line.iter().map(|word| word.to_string()).collect::<Vec<_>>())
    }

    fn refusal(line: &[&str]) -> String {
        match parse(line) {
            Err(Refused::Text(text)) => text,
            other => panic!("{line:?} gave {other:?}"),
        }
    }

    #[test]
    fn flags_stand_anywhere_until_the_dashes() {
        let flags = parse(&[
            "a",
            "-iw",
            "json",
            "--rev=0x10",
            "b",
            "--endpoints",
            "x,y",
            "--endpoints=z",
            "--",
            "-k",
        ])
        .expect("a good line");
        assert_eq!(flags.args, ["a", "b", "-k"]);
        assert_eq!(flags.before_dash, Some(2));
        assert!(flags.on("interactive"));
        assert_eq!((flags.text("write-out"), flags.int("rev")), ("json", 16));
        assert_eq!(flags.list("endpoints"), ["x", "y", "z"]);
        assert_eq!(flags.duration("dial-timeout"), Duration::from_secs(2));
        assert!(!flags.given("dial-timeout"));
    }

    #[test]
    fn a_short_flag_takes_its_value_in_three_ways() {
        for line in [&["-wjson"][..], &["-w=json"], &["-w", "json"]] {
            assert_eq!(parse(line).expect("a good line").text("write-out"), "json");
        }
    }

    #[test]
    fn an_empty_list_is_empty() {
        assert!(parse(&["--endpoints="]).expect("a good line").list("endpoints").is_empty());
    }

    #[test]
    fn refusals_have_the_known_words() {
        assert_eq!(refusal(&["--nosuch"]), "unknown flag: --nosuch");
        assert_eq!(refusal(&["-k"]), "unknown shorthand flag: 'k' in -k");
        assert_eq!(refusal(&["-ik"]), "unknown shorthand flag: 'k' in -ik");
        assert_eq!(refusal(&["--rev"]), "flag needs an argument: --rev");
        assert_eq!(refusal(&["-w"]), "flag needs an argument: 'w' in -w");
        assert_eq!(refusal(&["--=x"]), "bad flag syntax: --=x");
        assert_eq!(
            refusal(&["--rev=abc"]),
            "invalid argument \"abc\" for \"--rev\" flag: strconv.ParseInt: parsing \"abc\": invalid syntax"
        );
        assert_eq!(
            refusal(&["-i=maybe"]),
            "invalid argument \"maybe\" for \"-i, --interactive\" flag: strconv.ParseBool: parsing \"maybe\": invalid syntax"
        );
        assert_eq!(
            refusal(&["--dial-timeout=1"]),
            "invalid argument \"1\" for \"--dial-timeout\" flag: time: missing unit in duration \"1\""
        );
        assert_eq!(parse(&["-h"]).expect_err("help"), Refused::Help);
        assert_eq!(parse(&["x", "--help"]).expect_err("help"), Refused::Help);
    }
}
