//! The command line: which command is meant, and the server's flags.
//!
//! `kontiki [flags]` is the server, `kontiki ctl …` and `kontiki utl …` are etcdctl and etcdutl, `kontiki bench …`
//! is the load generator; called through a link named `etcd`, `etcdctl` or `etcdutl`, the binary is that
//! command. [`server::parse`] reads the server's flags without starting anything.

pub mod bench;
pub mod ctl;
pub mod flags;
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
