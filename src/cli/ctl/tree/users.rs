//! `auth`, `user` and `role`.

use super::{Action, Command, leaf};
use crate::cli::ctl::flags::{Flag, Kind};

pub(super) const AUTH: &[Command] = &[
    leaf("enable", "", "Turns authorization on", &[], Action::AuthEnable),
    leaf("disable", "", "Turns authorization off", &[], Action::AuthDisable),
    leaf("status", "", "Shows whether authorization is on", &[], Action::AuthStatus),
];

const INTERACTIVE: Flag =
    Flag::new("interactive", Kind::Bool, "true", "ask for the password; else take it from standard input");

pub(super) const USERS: &[Command] = &[
    leaf(
        "add",
        "<user name or user:password> [options]",
        "Adds a user",
        &[
            INTERACTIVE,
            Flag::new("new-user-password", Kind::Text, "", "the user's password"),
            Flag::switch("no-password", "a user without a password, known by its certificate's common name"),
        ],
        Action::UserAdd,
    ),
    leaf("delete", "<user name>", "Deletes a user", &[], Action::UserDelete),
    leaf(
        "get",
        "<user name> [options]",
        "Shows a user's roles",
        &[Flag::switch("detail", "show what the roles permit, too")],
        Action::UserGet,
    ),
    leaf("list", "", "Lists the users", &[], Action::UserList),
    leaf("passwd", "<user name> [options]", "Changes a user's password", &[INTERACTIVE], Action::UserPasswd),
    leaf("grant-role", "<user name> <role name>", "Gives a user a role", &[], Action::UserGrantRole),
    leaf("revoke-role", "<user name> <role name>", "Takes a role from a user", &[], Action::UserRevokeRole),
];

const PERMISSION: &[Flag] = &[
    Flag::switch("from-key", "all keys from the given one on, in byte order"),
    Flag::switch("prefix", "all keys that start with the given one"),
];

pub(super) const ROLES: &[Command] = &[
    leaf("add", "<role name>", "Adds a role", &[], Action::RoleAdd),
    leaf("delete", "<role name>", "Deletes a role", &[], Action::RoleDelete),
    leaf("get", "<role name>", "Shows what a role permits", &[], Action::RoleGet),
    leaf("list", "", "Lists the roles", &[], Action::RoleList),
    leaf(
        "grant-permission",
        "[options] <role name> <permission type> <key> [endkey]",
        "Lets a role read, write or readwrite keys",
        PERMISSION,
        Action::RoleGrantPermission,
    ),
    leaf(
        "revoke-permission",
        "<role name> <key> [endkey]",
        "Takes a permission from a role",
        PERMISSION,
        Action::RoleRevokePermission,
    ),
];
