//! The command line: which command is meant, and the server's flags.
//!
//! `kontiki [flags]` is the server, `kontiki ctl …` and `kontiki utl …` are etcdctl and etcdutl, `kontiki bench …`
//! is the load generator; called through a link named `etcd`, `etcdctl` or `etcdutl`, the binary is that
//! command. [`server::parse`] reads the server's flags without starting anything.

pub mod bench;
pub mod ctl;
pub mod flags;
pub mod logging;
pub mod server;
mod server_flags;

/// What the binary was called to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The server.
    Server,
    /// etcdctl.
    Ctl,
    /// etcdutl.
    Utl,
    /// The load generator.
    Bench,
}

/// The role that a command line means, and the arguments that are left for it.
pub fn role(args: &[String]) -> (Role, &[String]) {
    let Some((program, rest)) = args.split_first() else { return (Role::Server, args) };
    match (program.rsplit('/').next(), rest.first().map(String::as_str)) {
        (Some("etcdctl"), _) => (Role::Ctl, rest),
        (Some("etcdutl"), _) => (Role::Utl, rest),
        (Some("etcd"), _) => (Role::Server, rest),
        (_, Some("ctl")) => (Role::Ctl, &rest[1..]),
        (_, Some("utl")) => (Role::Utl, &rest[1..]),
        (_, Some("bench")) => (Role::Bench, &rest[1..]),
        (_, _) => (Role::Server, rest),
    }
}

/// Runs the server until it ends; what its process is to end with.
#[cfg(not(any(madsim, fuzzing)))]
#[allow(clippy::disallowed_types)]
pub fn run_server(args: &[String]) -> i32 {
    use std::time::{SystemTime, UNIX_EPOCH};

    let start = match server::parse(args, &std::env::vars().collect()) {
        Ok(start) => start,
        Err(stop) => {
            let now =
                SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
            let (out, err) = stop.output(now);
            print!("{out}");
            eprint!("{err}");
            return stop.exit_code().into();
        }
    };
    if let Err(error) = logging::start(&start.config.logging) {
        eprintln!("cannot open the log of events: {error}");
        return 1;
    }
    for note in &start.notes {
        let fields: Vec<String> = note.fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
        match note.level {
            "warn" => tracing::warn!(details = fields.join(" "), "{}", note.message),
            _ => tracing::info!(details = fields.join(" "), "{}", note.message),
        }
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "cannot start the runtime");
            return 1;
        }
    };
    match runtime.block_on(crate::server::serve(start.config)) {
        crate::server::Ended::Exit(crate::server::Exit::Fault(fault)) => {
            tracing::error!(error = %fault, "stopped");
            1
        }
        crate::server::Ended::Exit(crate::server::Exit::Removed) => {
            tracing::info!("this member was removed from its cluster");
            0
        }
        crate::server::Ended::Exit(crate::server::Exit::Stopped) => 0,
        crate::server::Ended::Signal(number) => {
            // As etcd does: who waits for the process sees that the signal ended it.
            let _ = signal_hook::low_level::emulate_default_handler(number);
            128 + number
        }
    }
}
