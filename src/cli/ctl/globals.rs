//! The settings that all commands share: global flags, then `ETCDCTL_*` for those that were not given.

use std::{fmt::Write, fs::File, time::Duration};

use super::{
    fail::{Exit, Failure},
    flags::Flags,
    log,
    output::{self, Format, Printer},
    prompt,
    tree::GLOBAL_FLAGS,
};

/// How to reach the servers.
#[derive(Clone, Debug)]
pub struct Settings {
    /// As given: `host:port`, `http://…` or `unix://…`.
    pub endpoints: Vec<String>,
    /// How long a connection may take to open.
    pub dial_timeout: Duration,
    /// How long a short command may take.
    pub command_timeout: Duration,
    /// Idle time after which a connection is probed.
    pub keepalive_time: Duration,
    /// How long a probe may go unanswered.
    pub keepalive_timeout: Duration,
    /// Name and password, if any.
    pub user: Option<(String, String)>,
}

/// Prefix of the environment variables.
const PREFIX: &str = "ETCDCTL_";

/// Variables that are no flags, and that only `watch` reads.
pub const WATCH_KEY: &str = "ETCDCTL_WATCH_KEY";
/// See [`WATCH_KEY`].
pub const WATCH_RANGE_END: &str = "ETCDCTL_WATCH_RANGE_END";

fn variable(flag: &str) -> String {
    format!("{PREFIX}{}", flag.to_uppercase().replace('-', "_"))
}

/// What is wrong with the environment, as far as flags go.
#[derive(Debug, PartialEq, Eq)]
enum Env {
    /// Fatal: the variable of a flag that was given too.
    Conflict(String),
    /// Only worth a line: a variable that means nothing.
    Unknown(String),
}

/// Takes over the variables of flags that were not given. A value of the wrong kind is passed over.
fn apply(flags: &mut Flags, environment: &[(String, String)], ignore: &[&str]) -> Vec<Env> {
    let names = || GLOBAL_FLAGS.iter().map(|flag| flag.name).chain(["cluster"]);
    let mut notes = Vec::new();
    let given: Vec<&str> = names().filter(|name| flags.given(name)).collect();
    for (key, value) in environment.iter().filter(|(key, _)| key.starts_with(PREFIX)) {
        match names().find(|name| variable(name) == *key) {
            Some(name) if given.contains(&name) => notes.push(Env::Conflict(key.clone())),
            Some(name) if !value.is_empty() => {
                flags.set_from(name, value);
            }
            Some(_) => {}
            None if key == "ETCDCTL_API" || ignore.contains(&key.as_str()) => {}
            None => notes.push(Env::Unknown(format!("{key}={value}"))),
        }
    }
    notes
}

/// Reads the environment, checks the output format and the security settings, in etcdctl's order.
/// `ignore` are variables that this command reads itself.
pub fn settle(flags: &mut Flags, ignore: &[&str]) -> Result<(Settings, Box<dyn Printer>), Failure> {
    let environment: Vec<(String, String)> = std::env::vars_os()
        .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
        .collect();
    for note in apply(flags, &environment, ignore) {
        match note {
            Env::Conflict(key) => {
                log::fatal_conflict(&key);
                return Err(Failure::silent(Exit::Error));
            }
            Env::Unknown(pair) => log::unknown_variable(&pair),
        }
    }
    if flags.on("debug") {
        eprint!("{}", debug_text(flags));
    }
    let format = Format::parse(flags.text("write-out"))
        .ok_or_else(|| Failure::new(Exit::BadFeature, "unsupported output format"))?;
    if !flags.text("discovery-srv").is_empty() {
        return Err(Failure::new(
            Exit::BadFeature,
            "--discovery-srv is not supported yet; name the --endpoints",
        ));
    }
    check_security(flags)?;
    let endpoints = flags.list("endpoints");
    if endpoints.is_empty() {
        return Err(Failure::new(Exit::BadConnection, "etcdclient: no available endpoints"));
    }
    let settings = Settings {
        endpoints,
        dial_timeout: flags.duration("dial-timeout"),
        command_timeout: flags.duration("command-timeout"),
        keepalive_time: flags.duration("keepalive-time"),
        keepalive_timeout: flags.duration("keepalive-timeout"),
        user: user(flags, || prompt::password("Password: "))?,
    };
    Ok((settings, output::printer(format, flags.on("hex"))))
}

/// TLS is not there yet: what asks for it is refused, bad files first, as etcdctl does.
#[allow(clippy::disallowed_methods)] // A certificate named on the command line, not a member's file.
fn check_security(flags: &Flags) -> Result<(), Failure> {
    let [cert, key, cacert] = ["cert", "key", "cacert"].map(|name| flags.text(name));
    if cert.is_empty() != key.is_empty() {
        return Err(Failure::args(format!(
            "KeyFile and CertFile must both be present[key: {key}, cert: {cert}]"
        )));
    }
    for path in [cert, key, cacert].into_iter().filter(|path| !path.is_empty()) {
        if let Err(error) = File::open(path) {
            let text = match error.kind() {
                std::io::ErrorKind::NotFound => "no such file or directory".into(),
                std::io::ErrorKind::PermissionDenied => "permission denied".into(),
                _ => error.to_string(),
            };
            return Err(Failure::args(format!("open {path}: {text}")));
        }
    }
    let asked = !cert.is_empty()
        || !cacert.is_empty()
        || !flags.on("insecure-transport")
        || flags.list("endpoints").iter().any(|e| e.starts_with("https://") || e.starts_with("unixs://"));
    if asked {
        return Err(Failure::new(
            Exit::BadFeature,
            "TLS is not supported yet; use http:// endpoints without certificates",
        ));
    }
    Ok(())
}

/// `name:password`, or the name alone with `--password`, or with what is asked for.
fn user(
    flags: &Flags,
    ask: impl FnOnce() -> Result<String, Failure>,
) -> Result<Option<(String, String)>, Failure> {
    let (user, password) = (flags.text("user"), flags.text("password"));
    Ok(match (user, password) {
        ("", _) => None,
        (user, "") => match user.split_once(':') {
            Some((_, "")) => None,
            Some((name, password)) => Some((name.into(), password.into())),
            None => match ask()? {
                // As on the line: an empty one is none.
                password if password.is_empty() => None,
                password => Some((user.into(), password)),
            },
        },
        (user, password) => Some((user.into(), password.into())),
    })
}

/// `ETCDCTL_<FLAG>=<value>` for each global flag, as `--debug` prints them.
fn debug_text(flags: &Flags) -> String {
    let mut out = String::new();
    for flag in GLOBAL_FLAGS {
        let value = match flag.kind {
            super::flags::Kind::List => format!("[{}]", flags.list(flag.name).join(",")),
            super::flags::Kind::Duration => super::go::format_duration(flags.duration(flag.name)),
            super::flags::Kind::Bool => flags.on(flag.name).to_string(),
            super::flags::Kind::Text | super::flags::Kind::Int => flags.text(flag.name).to_string(),
        };
        let _ = writeln!(out, "{}={value}", variable(flag.name));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(line: &[&str]) -> Flags {
        Flags::parse(GLOBAL_FLAGS.iter().copied(), &line.iter().map(|w| w.to_string()).collect::<Vec<_>>())
            .expect("a good line")
    }

    fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
    }

    #[test]
    fn the_environment_fills_in_what_was_not_given() {
        let mut flags = flags(&["--hex"]);
        let notes = apply(
            &mut flags,
            &env(&[
                ("ETCDCTL_WRITE_OUT", "json"),
                ("ETCDCTL_DIAL_TIMEOUT", "abc"),
                ("ETCDCTL_API", "3"),
                ("HOME", "/"),
            ]),
            &[],
        );
        assert_eq!(notes, []);
        assert_eq!(flags.text("write-out"), "json");
        assert_eq!(flags.duration("dial-timeout"), Duration::from_secs(2));
    }

    #[test]
    fn a_flag_and_its_variable_conflict() {
        let mut flags = flags(&["--endpoints=a:1"]);
        let notes = apply(&mut flags, &env(&[("ETCDCTL_ENDPOINTS", "b:2"), ("ETCDCTL_NOSUCH", "x")]), &[]);
        assert_eq!(
            notes,
            [Env::Conflict("ETCDCTL_ENDPOINTS".into()), Env::Unknown("ETCDCTL_NOSUCH=x".into())]
        );
        assert_eq!(apply(&mut flags, &env(&[(WATCH_KEY, "k")]), &[WATCH_KEY]), []);
    }

    #[test]
    fn users_are_split_at_the_first_colon() {
        let user = |flags: &Flags| super::user(flags, || unreachable!("it is given"));
        assert_eq!(user(&flags(&["--user=a:b:c"])), Ok(Some(("a".into(), "b:c".into()))));
        assert_eq!(user(&flags(&["--user=a:b", "--password=c"])), Ok(Some(("a:b".into(), "c".into()))));
        assert_eq!(user(&flags(&["--user=a:"])), Ok(None));
        assert_eq!(user(&flags(&[])), Ok(None));
        let asked = |line: &[&str], answer: &str| super::user(&flags(line), || Ok(answer.to_owned()));
        assert_eq!(asked(&["--user=a"], "b"), Ok(Some(("a".into(), "b".into()))));
        assert_eq!(asked(&["--user=a"], ""), Ok(None));
    }

    #[test]
    fn tls_is_refused_in_plain_words() {
        let exit = |line: &[&str]| check_security(&flags(line)).map_err(|failure| failure.exit);
        assert_eq!(exit(&["--endpoints=https://h:1"]), Err(Exit::BadFeature));
        assert_eq!(exit(&["--insecure-transport=false"]), Err(Exit::BadFeature));
        assert_eq!(exit(&["--insecure-skip-tls-verify"]), Ok(()));
        assert_eq!(exit(&["--cert=/nosuch"]), Err(Exit::BadArgs));
        assert_eq!(
            check_security(&flags(&["--cacert=/nosuch"])),
            Err(Failure::args("open /nosuch: no such file or directory"))
        );
    }
}
