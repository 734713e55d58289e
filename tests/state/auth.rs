//! Users and roles in the golden scripts.

use std::error::Error;

use bytes::Bytes;
use goldenscript::Command as Line;
use kontiki::auth::{Access, Action, Outcome, Password, Permission, Who};

type Parsed<T> = Result<T, Box<dyn Error>>;

/// Who a line is `as`, and at which `rev`ision: that of the member itself if it does not say.
pub fn who(line: &Line) -> Parsed<Who> {
    let mut args = line.consume_args();
    let revision = args.lookup_parse("rev")?;
    Ok(match args.lookup("as").map(|arg| arg.value.clone()) {
        Some(user) => Who { user, revision: revision.unwrap_or(u64::MAX) },
        None => Who::default(),
    })
}

/// The action of a line, if it is one.
pub fn action(line: &Line) -> Parsed<Option<Action>> {
    let mut args = line.consume_args();
    let no_password = args.lookup("no-password").map(|_| true);
    let mut text = || args.next_pos().map(|arg| arg.value.clone()).ok_or("argument");
    Ok(Some(match line.name.as_str() {
        "enable" => Action::Enable,
        "disable" => Action::Disable,
        "status" => Action::Status,
        "authenticate" => Action::Authenticate { user: text()?, nonce: text()? },
        "user-add" => {
            let user = text()?;
            // What is left out is an empty hash, which is no password's.
            let password = Password { plain: String::new(), hashed: text().unwrap_or_default() };
            Action::UserAdd { user, password, no_password }
        }
        "user-get" => Action::UserGet { user: text()? },
        "user-delete" => Action::UserDelete { user: text()? },
        "user-password" => {
            let user = text()?;
            Action::UserChangePassword { user, password: Password { plain: String::new(), hashed: text()? } }
        }
        "user-grant" => Action::UserGrantRole { user: text()?, role: text()? },
        "user-revoke" => Action::UserRevokeRole { user: text()?, role: text()? },
        "users" => Action::UserList,
        "role-add" => Action::RoleAdd { role: text()? },
        "role-get" => Action::RoleGet { role: text()? },
        "role-delete" => Action::RoleDelete { role: text()? },
        // role-grant ROLE r|w|rw KEY..END, where an end of 0 is the end of all keys.
        "role-grant" => {
            let role = text()?;
            let permission = match text() {
                Err(_) => None,
                Ok(access) => {
                    let access = match access.as_str() {
                        "r" => Access::Read,
                        "w" => Access::Write,
                        _ => Access::ReadWrite,
                    };
                    let (key, range_end) = keys(&text()?);
                    Some(Permission { access, key, range_end })
                }
            };
            Action::RoleGrant { role, permission }
        }
        "role-revoke" => {
            let role = text()?;
            let (key, range_end) = keys(&text()?);
            Action::RoleRevoke { role, key, range_end }
        }
        "roles" => Action::RoleList,
        _ => return Ok(None),
    }))
}

fn keys(text: &str) -> (Bytes, Bytes) {
    let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    match text.split_once("..") {
        None => (bytes(text), Bytes::new()),
        Some((key, "0")) => (bytes(key), Bytes::from_static(&[0])),
        Some((key, end)) => (bytes(key), bytes(end)),
    }
}

/// What came of an action.
pub fn show(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Done => "done".into(),
        Outcome::Status { enabled, revision } => {
            format!("{} at {revision}", if *enabled { "on" } else { "off" })
        }
        Outcome::Authenticated { token, revision } => format!("token {token} at {revision}"),
        Outcome::User(roles) => format!("user {roles:?}"),
        Outcome::Users(users) => format!("users {users:?}"),
        Outcome::Role(permissions) => {
            let show = |p: &Permission| {
                format!(
                    "{:?} {}..{}",
                    p.access,
                    p.key.escape_ascii(),
                    String::from_utf8_lossy(&p.range_end).escape_default()
                )
            };
            format!("role [{}]", permissions.iter().map(show).collect::<Vec<_>>().join(", "))
        }
        Outcome::Roles(roles) => format!("roles {roles:?}"),
    }
}
