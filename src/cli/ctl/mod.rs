//! `kontiki ctl`: etcdctl 3.5's commands, flags, formats, exit codes and sentences, for any etcd endpoint.
//!
//! ```text
//! line ── tree::find ──▶ command ── Flags::parse ──▶ Context ── connect ──▶ Session ── call ──▶ Reply
//!                                                                                                 │
//!                                      exit code ◀── Failure or nothing ◀── emit ◀── Printer::print
//! ```
//!
//! - A command checks its arguments first, then the environment and the format, then it connects: what is
//!   wrong with a line is said in etcdctl's order.
//! - A command ends in an [`Outcome`]; only [`main`] exits.
//! - `contract/cli.md` is the specification, `tests/compare_ctl.py` the judge.
//!
//! Left out so far: locks and elections, `make-mirror`, `check`,
//! `snapshot`, TLS, discovery by DNS. Kept different on purpose: `alarm disarm -w fields` and comparing leases
//! do not crash, and single quotes in `txn` keep the whole word.

mod auth;
mod client;
mod endpoint;
mod fail;
mod flags;
mod globals;
mod go;
mod kv;
mod lease;
mod log;
mod maintenance;
mod member;
mod output;
mod prompt;
mod role;
mod tree;
mod txn;
mod user;
mod watch;

use std::io::Write;

use prost::Message;
use tonic::{Request, Response, Status, transport::Channel};

pub use self::go::parse_duration;
use self::{
    client::{CallError, Client, Retry},
    fail::{Exit, Failure, Outcome},
    flags::{Flags, Refused},
    globals::Settings,
    log::Logger,
    output::{Printed, Printer, Reply},
    tree::{Action, Found},
};
use crate::wire::etcdserverpb::{self as pb, cluster_client::ClusterClient};

/// The etcdctl whose behaviour this is.
pub const VERSION: &str = "3.5.1";
/// The API that it speaks.
pub const API_VERSION: &str = "3.5";

/// Runs a line, without the program's name; returns the exit code.
pub fn main(line: &[String]) -> i32 {
    let outcome = match std::env::var("ETCDCTL_API").unwrap_or_default().as_str() {
        "" | "3" => run(line),
        other => {
            eprintln!("unsupported API version: {other}");
            Err(Failure::silent(Exit::Error))
        }
    };
    match outcome {
        Ok(()) => Exit::Success as i32,
        Err(failure) => {
            if let Some(text) = failure.text {
                eprintln!("Error: {text}");
            }
            failure.exit as i32
        }
    }
}

fn run(line: &[String]) -> Outcome {
    let found = match tree::find(line) {
        Ok(found) => found,
        Err(text) => {
            eprintln!("Error: {text}\nRun 'etcdctl --help' for usage.");
            return Err(Failure::new(Exit::Error, text));
        }
    };
    let flags = match Flags::parse(found.flags(), &found.line) {
        Ok(flags) => flags,
        Err(Refused::Help) => return usage(&found),
        Err(Refused::Text(text)) => {
            usage(&found)?;
            eprintln!("Error: {text}\n");
            return Err(Failure::new(Exit::Error, text));
        }
    };
    match found.command().action {
        None => usage(&found),
        Some(Action::Help) => help(&flags),
        Some(Action::Version) => {
            emit(format!("etcdctl version: {VERSION}\nAPI version: {API_VERSION}\n").into())
        }
        Some(action) => {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|error| Failure::new(Exit::Io, error.to_string()))?;
            let outcome = runtime.block_on(act(action, Context { flags }));
            // Reads of standard input can't be cancelled; nobody waits for them.
            runtime.shutdown_background();
            outcome
        }
    }
}

async fn act(action: Action, context: Context) -> Outcome {
    match action {
        Action::Get => kv::get(context).await,
        Action::Put => kv::put(context).await,
        Action::Del => kv::del(context).await,
        Action::Txn => txn::txn(context).await,
        Action::Compaction => kv::compaction(context).await,
        Action::Watch => watch::watch(context).await,
        Action::LeaseGrant => lease::grant(context).await,
        Action::LeaseRevoke => lease::revoke(context).await,
        Action::LeaseTimeToLive => lease::time_to_live(context).await,
        Action::LeaseList => lease::list(context).await,
        Action::LeaseKeepAlive => lease::keep_alive(context).await,
        Action::MemberAdd => member::add(context).await,
        Action::MemberRemove => member::remove(context).await,
        Action::MemberUpdate => member::update(context).await,
        Action::MemberPromote => member::promote(context).await,
        Action::MemberList => member::list(context).await,
        Action::EndpointHealth => endpoint::health(context).await,
        Action::EndpointStatus => endpoint::status(context).await,
        Action::EndpointHashKv => endpoint::hash_kv(context).await,
        Action::AlarmList => maintenance::alarm_list(context).await,
        Action::AlarmDisarm => maintenance::alarm_disarm(context).await,
        Action::Defrag => maintenance::defrag(context).await,
        Action::MoveLeader => maintenance::move_leader(context).await,
        Action::AuthEnable => auth::enable(context).await,
        Action::AuthDisable => auth::disable(context).await,
        Action::AuthStatus => auth::status(context).await,
        Action::UserAdd => user::add(context).await,
        Action::UserDelete => user::delete(context).await,
        Action::UserGet => user::get(context).await,
        Action::UserList => user::list(context).await,
        Action::UserPasswd => user::passwd(context).await,
        Action::UserGrantRole => user::grant_role(context).await,
        Action::UserRevokeRole => user::revoke_role(context).await,
        Action::RoleAdd => role::add(context).await,
        Action::RoleDelete => role::delete(context).await,
        Action::RoleGet => role::get(context).await,
        Action::RoleList => role::list(context).await,
        Action::RoleGrantPermission => role::grant_permission(context).await,
        Action::RoleRevokePermission => role::revoke_permission(context).await,
        // These need no server; `run` has done them.
        Action::Version | Action::Help => Ok(()),
    }
}

fn usage(found: &Found) -> Outcome {
    emit(tree::usage(found, VERSION, API_VERSION).into())
}

/// `help`, alone or about a command.
fn help(flags: &Flags) -> Outcome {
    match tree::find(&flags.args) {
        Ok(found) => usage(&found),
        Err(_) => {
            eprintln!("Unknown help topic [`{}`]", flags.args.join("` `"));
            usage(&Found { path: vec![&tree::ROOT], line: Vec::new() })
        }
    }
}

/// Writes what was printed. A reader that went away ends the command without a word, as SIGPIPE would.
fn emit(printed: Printed) -> Outcome {
    let mut out = std::io::stdout().lock();
    out.write_all(&printed.out).and_then(|()| out.flush()).map_err(|error| match error.kind() {
        std::io::ErrorKind::BrokenPipe => Failure::silent(Exit::BrokenPipe),
        _ => Failure::new(Exit::Io, error.to_string()),
    })?;
    eprint!("{}", printed.err);
    Ok(())
}

/// A command's flags and arguments, before anything else is known.
struct Context {
    flags: Flags,
}

impl Context {
    /// Settles the settings and connects.
    async fn connect(self) -> Result<Session, Failure> {
        self.connect_ignoring(&[]).await
    }

    /// The same, for a command that reads some variables itself.
    async fn connect_ignoring(mut self, variables: &[&str]) -> Result<Session, Failure> {
        let (settings, printer) = globals::settle(&mut self.flags, variables)?;
        let client = Client::connect(&settings, Logger::Command).await?;
        Ok(Session { client, settings, printer })
    }
}

/// What a command works with once it is connected.
struct Session {
    client: Client,
    settings: Settings,
    printer: Box<dyn Printer>,
}

impl Session {
    /// Makes a call within the command timeout.
    async fn call<M: Message + Clone, R>(
        &self,
        retry: Retry,
        message: M,
        method: impl AsyncFn(Channel, Request<M>) -> Result<Response<R>, Status>,
    ) -> Result<R, CallError> {
        self.client.call(Some(self.settings.command_timeout), retry, message, method).await
    }

    /// Prints a reply in the format that was asked for.
    fn print(&self, reply: &Reply) -> Outcome {
        emit(self.printer.print(reply).map_err(|unsupported| Failure::new(Exit::BadFeature, unsupported.0))?)
    }

    /// Asks for the members.
    async fn member_list(&self) -> Result<pb::MemberListResponse, CallError> {
        let request = pb::MemberListRequest { linearizable: true };
        self.call(Retry::Repeatable, request, async |channel, request| {
            ClusterClient::new(channel).member_list(request).await
        })
        .await
    }
}
