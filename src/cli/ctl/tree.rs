//! The commands: a table of what there is, the search for what a line means, and the usage texts.

mod users;

use std::fmt::Write;

use super::flags::{Flag, Kind};

/// What a command does; `run` in the parent module matches on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Action {
    Get,
    Put,
    Del,
    Txn,
    Compaction,
    Watch,
    LeaseGrant,
    LeaseRevoke,
    LeaseTimeToLive,
    LeaseList,
    LeaseKeepAlive,
    MemberAdd,
    MemberRemove,
    MemberUpdate,
    MemberPromote,
    MemberList,
    EndpointHealth,
    EndpointStatus,
    EndpointHashKv,
    AlarmList,
    AlarmDisarm,
    Defrag,
    MoveLeader,
    AuthEnable,
    AuthDisable,
    AuthStatus,
    UserAdd,
    UserDelete,
    UserGet,
    UserList,
    UserPasswd,
    UserGrantRole,
    UserRevokeRole,
    RoleAdd,
    RoleDelete,
    RoleGet,
    RoleList,
    RoleGrantPermission,
    RoleRevokePermission,
    Version,
    Help,
}

/// A command or a group of commands.
#[derive(Debug)]
pub struct Command {
    /// Its word on the line.
    pub name: &'static str,
    /// What follows its name, for the usage.
    pub form: &'static str,
    /// One line about it.
    pub about: &'static str,
    /// More about it, if one line is not enough.
    pub more: &'static str,
    /// Its own flags.
    pub flags: &'static [Flag],
    /// Flags of its own that its subcommands know too.
    pub shared: &'static [Flag],
    /// Its subcommands, in the order in which suggestions name them.
    pub children: &'static [Command],
    /// What it does; a group does nothing but print its usage.
    pub action: Option<Action>,
}

const fn leaf(
    name: &'static str,
    form: &'static str,
    about: &'static str,
    flags: &'static [Flag],
    action: Action,
) -> Command {
    Command { name, form, about, more: "", flags, shared: &[], children: &[], action: Some(action) }
}

const fn group(
    name: &'static str,
    about: &'static str,
    shared: &'static [Flag],
    children: &'static [Command],
) -> Command {
    Command { name, form: "<subcommand>", about, more: "", flags: &[], shared, children, action: None }
}

/// Flags that each command knows; also settable as `ETCDCTL_<NAME>`.
pub const GLOBAL_FLAGS: &[Flag] = &[
    Flag::new("cacert", Kind::Text, "", "CA certificates to check the servers' certificates with"),
    Flag::new("cert", Kind::Text, "", "certificate to show to the servers"),
    Flag::new("command-timeout", Kind::Duration, "5s", "how long a command may take once connected"),
    Flag::switch("debug", "print the settings in force to standard error"),
    Flag::new("dial-timeout", Kind::Duration, "2s", "how long a connection may take to open"),
    Flag::new("discovery-srv", Kind::Text, "", "domain whose SRV records name the endpoints").short('d'),
    Flag::new("discovery-srv-name", Kind::Text, "", "service to ask for in those records"),
    Flag::new("endpoints", Kind::List, "127.0.0.1:2379", "members to talk to, separated by commas"),
    Flag::switch("hex", "print keys and values byte by byte, as \\xNN"),
    Flag::new("insecure-discovery", Kind::Bool, "true", "accept SRV records that name endpoints without TLS"),
    Flag::switch("insecure-skip-tls-verify", "take any server certificate (for tests only)"),
    Flag::new("insecure-transport", Kind::Bool, "true", "connect without TLS unless something asks for it"),
    Flag::new("keepalive-time", Kind::Duration, "2s", "idle time after which a connection is probed"),
    Flag::new("keepalive-timeout", Kind::Duration, "6s", "how long a probe may go unanswered"),
    Flag::new("key", Kind::Text, "", "private key of the certificate in --cert"),
    Flag::new("password", Kind::Text, "", "password of --user, which is then a name only"),
    Flag::new("user", Kind::Text, "", "user as name[:password]"),
    Flag::new("write-out", Kind::Text, "simple", "output format: simple, json, fields, protobuf or table")
        .short('w'),
];

const GET: &[Flag] = &[
    Flag::new("consistency", Kind::Text, "l", "linearizable (l) or serializable (s)"),
    Flag::switch("count-only", "answer with the number of keys only"),
    Flag::switch("from-key", "all keys from the given one on, in byte order"),
    Flag::switch("keys-only", "leave the values out"),
    Flag::new("limit", Kind::Int, "0", "the most keys to return; 0 for all"),
    Flag::new("order", Kind::Text, "", "ASCEND or DESCEND"),
    Flag::switch("prefix", "all keys that start with the given one"),
    Flag::switch("print-value-only", "print values without their keys (simple output only)"),
    Flag::new("rev", Kind::Int, "0", "read as of this revision; 0 for now"),
    Flag::new("sort-by", Kind::Text, "", "CREATE, KEY, MODIFY, VALUE or VERSION"),
];

const PUT: &[Flag] = &[
    Flag::switch("ignore-lease", "keep the key's lease as it is"),
    Flag::switch("ignore-value", "keep the key's value as it is"),
    Flag::new("lease", Kind::Text, "0", "lease to attach, in hexadecimal"),
    Flag::switch("prev-kv", "return what the key held before"),
];

const DEL: &[Flag] = &[
    Flag::switch("from-key", "all keys from the given one on, in byte order"),
    Flag::switch("prefix", "all keys that start with the given one"),
    Flag::switch("prev-kv", "return what was deleted"),
];

const WATCH: &[Flag] = &[
    Flag::switch("interactive", "read watch requests from standard input").short('i'),
    Flag::switch("prefix", "all keys that start with the given one"),
    Flag::switch("prev-kv", "show what each key held before its event"),
    Flag::switch("progress-notify", "ask the server for progress now and then"),
    Flag::new("rev", Kind::Int, "0", "first revision to see; 0 for what is to come"),
];

const PEER_URLS: Flag = Flag::new("peer-urls", Kind::Text, "", "the member's peer URLs, separated by commas");

const DEFRAG: &[Flag] = &[
    Flag::switch("cluster", "all endpoints of the cluster's member list"),
    Flag::new("data-dir", Kind::Text, "", "directory of a stopped member"),
];

const LEASES: &[Command] = &[
    leaf("grant", "<ttl>", "Grants a lease of so many seconds", &[], Action::LeaseGrant),
    leaf("revoke", "<leaseID>", "Revokes a lease and deletes its keys", &[], Action::LeaseRevoke),
    leaf(
        "timetolive",
        "<leaseID> [options]",
        "Shows how long a lease has left",
        &[Flag::switch("keys", "show the keys that are attached to it too")],
        Action::LeaseTimeToLive,
    ),
    leaf("list", "", "Lists the leases", &[], Action::LeaseList),
    leaf(
        "keep-alive",
        "[options] <leaseID>",
        "Renews a lease for as long as this runs",
        &[Flag::switch("once", "renew it once only")],
        Action::LeaseKeepAlive,
    ),
];

const MEMBERS: &[Command] = &[
    leaf(
        "add",
        "<memberName> [options]",
        "Adds a member to the cluster",
        &[Flag::switch("learner", "add it as a learner, which does not vote"), PEER_URLS],
        Action::MemberAdd,
    ),
    leaf("remove", "<memberID>", "Removes a member from the cluster", &[], Action::MemberRemove),
    leaf(
        "update",
        "<memberID> [options]",
        "Changes a member's peer URLs",
        &[PEER_URLS],
        Action::MemberUpdate,
    ),
    leaf("list", "", "Lists the members", &[], Action::MemberList),
    leaf("promote", "<memberID>", "Lets a learner vote", &[], Action::MemberPromote),
];

const ENDPOINTS: &[Command] = &[
    leaf("health", "", "Checks that each endpoint commits and has no alarm", &[], Action::EndpointHealth),
    Command {
        more: "The simple format has one line for each endpoint: endpoint, ID, version, size of the store,\n\
               is leader, is learner, raft term, raft index, raft applied index, errors.",
        ..leaf("status", "", "Shows each endpoint's status", &[], Action::EndpointStatus)
    },
    leaf(
        "hashkv",
        "",
        "Shows the hash of each endpoint's key history",
        &[Flag::new("rev", Kind::Int, "0", "hash up to this revision; 0 for the newest")],
        Action::EndpointHashKv,
    ),
];

const ALARMS: &[Command] = &[
    leaf("disarm", "", "Clears all alarms", &[], Action::AlarmDisarm),
    leaf("list", "", "Lists the alarms", &[], Action::AlarmList),
];

const COMMANDS: &[Command] = &[
    leaf("get", "[options] <key> [range_end]", "Reads a key or a range of keys", GET, Action::Get),
    Command {
        more: "Without <value> and without --ignore-value, the value is read from standard input.\n\
               A key or value that begins with '-' needs '--' before it:\n\n\
               $ put -- <key> <value>",
        ..leaf("put", "[options] <key> <value>", "Writes a key", PUT, Action::Put)
    },
    leaf("del", "[options] <key> [range_end]", "Deletes a key or a range of keys", DEL, Action::Del),
    leaf(
        "txn",
        "[options]",
        "Runs one transaction, read from standard input",
        &[Flag::switch("interactive", "prompt for each part").short('i')],
        Action::Txn,
    ),
    leaf(
        "compaction",
        "[options] <revision>",
        "Drops the history before a revision",
        &[Flag::switch("physical", "wait until it is gone from the store")],
        Action::Compaction,
    ),
    group("alarm", "Commands about alarms", &[], ALARMS),
    leaf("defrag", "", "Gives free space in the endpoints' stores back", DEFRAG, Action::Defrag),
    group(
        "endpoint",
        "Commands about single endpoints",
        &[Flag::switch("cluster", "all endpoints of the cluster's member list")],
        ENDPOINTS,
    ),
    leaf("move-leader", "<memberID>", "Hands leadership to another member", &[], Action::MoveLeader),
    leaf(
        "watch",
        "[options] [key or prefix] [range_end] [--] [exec-command arg1 arg2 ...]",
        "Shows changes as they happen",
        WATCH,
        Action::Watch,
    ),
    leaf("version", "", "Prints the version", &[], Action::Version),
    group("lease", "Commands about leases", &[], LEASES),
    group("member", "Commands about the cluster's members", &[], MEMBERS),
    Command {
        form: "<enable or disable>",
        ..group("auth", "Turns authorization on or off", &[], users::AUTH)
    },
    group("user", "Commands about users", &[], users::USERS),
    group("role", "Commands about roles", &[], users::ROLES),
    leaf("help", "[command]", "Shows how a command is used", &[], Action::Help),
];

/// The root of all commands.
pub const ROOT: Command = Command {
    name: "etcdctl",
    form: "",
    about: "A client of etcd's v3 API",
    more: "",
    flags: &[],
    shared: GLOBAL_FLAGS,
    children: COMMANDS,
    action: None,
};

/// Commands that etcdctl has and this one does not, yet.
pub const NOT_YET: [&str; 5] = ["lock", "elect", "make-mirror", "check", "snapshot"];

/// A command that was found: the way to it from the root, and the rest of the line.
#[derive(Debug)]
pub struct Found {
    /// From the root to the command itself.
    pub path: Vec<&'static Command>,
    /// The line without the commands' words.
    pub line: Vec<String>,
}

impl Found {
    /// The command itself.
    pub fn command(&self) -> &'static Command {
        self.path.last().copied().unwrap_or(&ROOT)
    }

    /// All flags that it knows, its own and its parents'.
    pub fn flags(&self) -> impl Iterator<Item = Flag> + '_ {
        let own = self.command().flags.iter();
        own.chain(self.path.iter().flat_map(|command| command.shared)).copied()
    }

    /// Its words, without the root's.
    pub fn name(&self) -> String {
        self.path.iter().skip(1).map(|command| command.name).collect::<Vec<_>>().join(" ")
    }
}

/// Finds the command of `line`. An error is the whole text for a word that means nothing at the root.
pub fn find(line: &[String]) -> Result<Found, String> {
    let mut found = Found { path: vec![&ROOT], line: line.to_vec() };
    loop {
        let command = found.command();
        if command.children.is_empty() {
            return Ok(found);
        }
        let Some(at) = first_word(&found) else { return Ok(found) };
        let word = found.line[at].clone();
        match child(command, &word) {
            Some(next) => {
                found.line.remove(at);
                found.path.push(next);
            }
            // A group answers a word it does not know with its usage.
            None if found.path.len() > 1 => return Ok(found),
            None => return Err(unknown(&word)),
        }
    }
}

/// The first word that is neither a flag nor a flag's value.
fn first_word(found: &Found) -> Option<usize> {
    let mut skip = false;
    for (at, word) in found.line.iter().enumerate() {
        if std::mem::take(&mut skip) {
            continue;
        }
        if word == "--" {
            return None;
        }
        let known =
            |test: &dyn Fn(&Flag) -> bool| found.flags().find(|flag| test(flag)).map(|flag| flag.kind);
        if let Some(long) = word.strip_prefix("--") {
            // An unknown flag counts as one that takes a value.
            skip =
                !long.contains('=') && long != "help" && known(&|flag| flag.name == long) != Some(Kind::Bool);
        } else if word.len() > 1 && word.starts_with('-') {
            let letter = word.chars().nth(1);
            skip = word.len() == 2
                && letter != Some('h')
                && known(&|flag| flag.short == letter) != Some(Kind::Bool);
        } else if !word.is_empty() {
            return Some(at);
        }
    }
    None
}

/// The subcommand that `word` names: by its whole name, or by the start of just one.
fn child(command: &Command, word: &str) -> Option<&'static Command> {
    let children: &'static [Command] = command.children;
    if let Some(exact) = children.iter().find(|child| child.name == word) {
        return Some(exact);
    }
    let mut starting = children.iter().filter(|child| child.name.starts_with(word));
    // What is ambiguous for etcdctl stays so here.
    let root = std::ptr::eq(children, COMMANDS);
    let missing = root && NOT_YET.iter().any(|name| name.starts_with(word));
    match (starting.next(), starting.next()) {
        (Some(only), None) if !missing => Some(only),
        _ => None,
    }
}

fn unknown(word: &str) -> String {
    if NOT_YET.contains(&word) {
        return format!(
            "{word:?} is not supported yet by this etcdctl; the one of etcd works against this server"
        );
    }
    let mut text = format!("unknown command {} for \"etcdctl\"", super::go::quote(word.as_bytes()));
    let lower = word.to_lowercase();
    let close: Vec<_> = COMMANDS
        .iter()
        .map(|command| command.name)
        .chain(NOT_YET)
        .filter(|name| distance(name, &lower) <= 2 || name.starts_with(&lower))
        .collect();
    if !close.is_empty() {
        text.push_str("\n\nDid you mean this?\n");
        for name in close {
            let _ = writeln!(text, "\t{name}");
        }
    }
    text
}

/// How many single-letter edits lead from `a` to `b`.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let cost = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = cost.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// The usage of a command: blocks with a header each, aligned by tabs.
pub fn usage(found: &Found, version: &str, api_version: &str) -> String {
    let command = found.command();
    let root = found.path.len() == 1;
    let mut out = String::new();
    let mut block = |header: &str, lines: &[String]| {
        let _ = writeln!(out, "{header}:");
        for line in lines {
            let _ = writeln!(out, "\t{line}");
        }
        out.push('\n');
    };
    let name = if root { ROOT.name.to_string() } else { found.name() };
    block("NAME", &[format!("{name} - {}", command.about)]);
    let words = ["etcdctl", &found.name(), command.form, "[flags]"].map(str::to_string);
    block("USAGE", &[words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")]);
    if root {
        block("VERSION", &[version.into()]);
    }
    if command.action.is_none() {
        block("API VERSION", &[api_version.into()]);
        let rows = if root {
            leaves()
        } else {
            rows(command.children.iter().map(|child| (child.name, child.about)))
        };
        block("COMMANDS", &columns(&rows));
    }
    if !command.more.is_empty() {
        block("DESCRIPTION", &command.more.lines().map(String::from).collect::<Vec<_>>());
    }
    let flag_lines = |title: &str, flags: Vec<Flag>, out: &mut String| {
        let _ = writeln!(out, "{title}:");
        let rows: Vec<_> = flags.iter().map(|flag| (flag_form(flag), flag.about.to_string())).collect();
        for line in columns(&rows) {
            let _ = writeln!(out, "{line}");
        }
        out.push('\n');
    };
    let help = Flag::switch("help", "show this").short('h');
    let mut own: Vec<Flag> = command.flags.iter().chain(command.shared).copied().chain([help]).collect();
    own.sort_by_key(|flag| flag.name);
    flag_lines("OPTIONS", own, &mut out);
    if !root {
        let mut inherited: Vec<Flag> =
            found.path[..found.path.len() - 1].iter().flat_map(|command| command.shared).copied().collect();
        inherited.sort_by_key(|flag| flag.name);
        flag_lines("GLOBAL OPTIONS", inherited, &mut out);
    }
    out
}

/// Each command that does something, with its group's name before its own, sorted.
fn leaves() -> Vec<(String, String)> {
    let mut rows = Vec::new();
    for command in COMMANDS {
        match command.children {
            [] => rows.push((command.name.to_string(), command.about.to_string())),
            children => rows.extend(
                children
                    .iter()
                    .map(|child| (format!("{} {}", command.name, child.name), child.about.to_string())),
            ),
        }
    }
    rows.sort();
    rows
}

fn rows(pairs: impl Iterator<Item = (&'static str, &'static str)>) -> Vec<(String, String)> {
    let mut rows: Vec<_> = pairs.map(|(name, about)| (name.to_string(), about.to_string())).collect();
    rows.sort();
    rows
}

fn flag_form(flag: &Flag) -> String {
    let short = flag.short.map_or_else(|| "     ".into(), |short| format!(" -{short},"));
    let value = match flag.kind {
        Kind::Bool => format!("[={}]", flag.default),
        Kind::Text => format!("=\"{}\"", flag.default),
        Kind::Int | Kind::Duration => format!("={}", flag.default),
        Kind::List => format!("=[{}]", flag.default),
    };
    format!(" {short} --{}{value}", flag.name)
}

/// Two columns; the first is filled up with tabs, as wide as its widest cell asks.
fn columns(rows: &[(String, String)]) -> Vec<String> {
    const TAB: usize = 8;
    let width = rows.iter().map(|(first, _)| first.len() + 1).max().unwrap_or(0).div_ceil(TAB) * TAB;
    let fill = |first: &str| "\t".repeat((width - first.len()).div_ceil(TAB));
    rows.iter().map(|(first, second)| format!("{first}{}{second}", fill(first))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Vec<String> {
        text.split_whitespace().map(String::from).collect()
    }

    #[test]
    fn commands_are_found_by_unambiguous_starts_between_flags() {
        for (text, name, rest) in [
            ("put a b", "put", "a b"),
            ("vers", "version", ""),
            ("-w json --endpoints x --hex lease gr 10", "lease grant", "-w json --endpoints x --hex 10"),
            ("lease --hex list", "lease list", "--hex"),
            ("endpoint --cluster status", "endpoint status", "--cluster"),
            ("endpoint h", "endpoint", "h"),
            ("lease nosuch", "lease", "nosuch"),
            ("compact 5", "compaction", "5"),
            ("-- get", "", "-- get"),
            ("", "", ""),
        ] {
            let found = find(&line(text)).expect(text);
            assert_eq!((found.name().as_str(), found.line), (name, line(rest)), "{text}");
        }
    }

    #[test]
    fn unknown_words_get_suggestions() {
        let refused = |text: &str| find(&line(text)).expect_err(text);
        assert_eq!(
            refused("versoin"),
            "unknown command \"versoin\" for \"etcdctl\"\n\nDid you mean this?\n\tversion\n"
        );
        assert_eq!(refused("nosuchcmd"), "unknown command \"nosuchcmd\" for \"etcdctl\"");
        // An unknown flag swallows the word after it.
        assert_eq!(refused("--nosuchflag get foo"), "unknown command \"foo\" for \"etcdctl\"");
        assert!(refused("e").ends_with("Did you mean this?\n\tget\n\tdel\n\tendpoint\n\telect\n"));
        assert!(refused("lock a").contains("not supported yet"));
    }

    #[test]
    fn usages_have_their_blocks_in_order() {
        let headers = |text: &str| -> Vec<String> {
            let found = find(&line(text)).expect("a command");
            let usage = usage(&found, "3.5.1", "3.5");
            usage.lines().filter(|l| !l.starts_with(['\t', ' ']) && !l.is_empty()).map(String::from).collect()
        };
        assert_eq!(headers(""), ["NAME:", "USAGE:", "VERSION:", "API VERSION:", "COMMANDS:", "OPTIONS:"]);
        assert_eq!(
            headers("lease"),
            ["NAME:", "USAGE:", "API VERSION:", "COMMANDS:", "OPTIONS:", "GLOBAL OPTIONS:"]
        );
        assert_eq!(headers("put"), ["NAME:", "USAGE:", "DESCRIPTION:", "OPTIONS:", "GLOBAL OPTIONS:"]);
    }
}
