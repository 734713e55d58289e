//! Authorization: users, roles, and who may do what. Pure.
//!
//! - [`Store`] is replicated: users, roles, whether authorization is on, and the authorization revision, which goes
//!   up with each change. Only committed entries change it, and it is kept in etcd's tables, in etcd's bytes.
//! - [`Need`] is what a request needs; `Need::of_…` list those of each request, nested transactions included,
//!   and [`Store::permits`] decides. There is no other place where a permission is checked: the state machine
//!   asks when it applies an entry, the API before a read, a watch, or what no entry is made of.
//! - [`Tokens`] is one member's alone: the simple tokens that it has heard of, which stand for a user.
//!
//! ```text
//!   client ── token ──► Tokens ──► Who { user, revision } ──► entry's header ──┐
//!                                                                              ▼
//!   request ──► Need::of_… ─► [Write "a", WriteLeased 7, Read "a"] ──► Store::permits ──► Ok, or why not
//! ```
//!
//! Invariants:
//!
//! - What [`Store::permits`] says depends on its arguments alone, so that all members refuse the same entries. An
//!   entry that was proposed at an older authorization revision is refused: nobody uses a permission that was
//!   taken away before the entry's place in the log.
//! - A range is permitted only if each key that it can hold is; open-ended ones, too. Permissions of one
//!   user add up: `[a, c)` and `[c, e)` make `[a, e)`.
//! - Passwords are only ever kept hashed (bcrypt), and are not shown by `Debug`.
//!
//! Where etcd's versions differ, this is the late 3.5: permissions of ranges that hold no key are refused, puts
//! and nested transactions inside of transactions need what they need outside, and an open-ended watch needs all of
//! its range (GHSA-xg4h-6gfc-h4m8).
//!
//! Left out: how a client proves who it is (the API's shells: tokens from metadata, passwords compared by a worker).

mod action;
mod change;
mod codec;
mod needs;
pub mod password;
mod spans;
mod store;
mod tokens;

pub use action::{Access, Action, Outcome, Password, Permission, Role, User};
pub use change::Session;
pub use needs::Need;
pub use spans::Spans;
pub use store::{Store, Who};
pub use tokens::{Tokens, index_of};

/// The user that must be there, with the role of the same name, before authorization can be turned on.
pub const ROOT: &str = "root";
