//! `role add`, `delete`, `get`, `list`, `grant-permission` and `revoke-permission`.

use bytes::Bytes;

use super::{
    Context, Session,
    client::Retry,
    fail::{Failure, Outcome},
    flags::Flags,
    kv,
    output::Reply,
};
use crate::wire::{
    authpb::{Permission, permission::Type},
    etcdserverpb as pb,
};

/// The range_end of all keys from the key on.
const OPEN: &[u8] = b"\0";

fn only(context: &Context, missing: &str) -> Result<String, Failure> {
    match context.flags.args.as_slice() {
        [name] => Ok(name.clone()),
        _ => Err(Failure::args(missing)),
    }
}

/// `role add`.
pub async fn add(context: Context) -> Outcome {
    let name = only(&context, "role add command requires role name as its argument")?;
    let session = context.connect().await?;
    let text = format!("Role {name} created");
    let response = session
        .ask(None, Retry::Once, pb::AuthRoleAddRequest { name }, async |mut auth, request| {
            auth.role_add(request).await
        })
        .await?;
    session.print(&Reply::Changed(text, response.header))
}

/// `role delete`.
pub async fn delete(context: Context) -> Outcome {
    let role = only(&context, "role delete command requires role name as its argument")?;
    let session = context.connect().await?;
    let text = format!("Role {role} deleted");
    let response = session
        .ask(None, Retry::Once, pb::AuthRoleDeleteRequest { role }, async |mut auth, request| {
            auth.role_delete(request).await
        })
        .await?;
    session.print(&Reply::Changed(text, response.header))
}

/// `role get`.
pub async fn get(context: Context) -> Outcome {
    let role = only(&context, "role get command requires role name as its argument")?;
    show(&context.connect().await?, role).await
}

/// Shows a role.
pub async fn show(session: &Session, role: String) -> Outcome {
    let request = pb::AuthRoleGetRequest { role: role.clone() };
    let response = session
        .ask(None, Retry::Repeatable, request, async |mut auth, request| auth.role_get(request).await)
        .await?;
    session.print(&Reply::RoleGet(role, response))
}

/// `role list`.
pub async fn list(context: Context) -> Outcome {
    if !context.flags.args.is_empty() {
        return Err(Failure::args("role list command requires no arguments"));
    }
    let session = context.connect().await?;
    let response = session
        .ask(None, Retry::Repeatable, pb::AuthRoleListRequest {}, async |mut auth, request| {
            auth.role_list(request).await
        })
        .await?;
    session.print(&Reply::RoleList(response))
}

/// Key and range end of a permission. Words behind an empty key are not looked at.
fn range_of(flags: &Flags, words: &[String]) -> Result<(Bytes, Bytes), Failure> {
    let (prefix, from_key) = (flags.on("prefix"), flags.on("from-key"));
    let both = || Err(Failure::args("--from-key and --prefix flags are mutually exclusive"));
    let key = Bytes::from(words[0].clone());
    let end = match (words.get(1), prefix, from_key) {
        (_, true, true) if key.is_empty() => return both(),
        // The first of all keys stands for none.
        (_, prefix, from_key) if key.is_empty() => {
            let end = if prefix || from_key { OPEN } else { b"" };
            return Ok((Bytes::from_static(OPEN), Bytes::from_static(end)));
        }
        (None, true, true) => return both(),
        (None, true, false) => kv::prefix_end(&key),
        (None, false, true) => Bytes::from_static(OPEN),
        (None, false, false) => Bytes::new(),
        (Some(_), true, _) => return Err(Failure::args("unexpected endkey argument with --prefix flag")),
        (Some(_), false, true) => {
            return Err(Failure::args("unexpected endkey argument with --from-key flag"));
        }
        (Some(end), false, false) => Bytes::from(end.clone()),
    };
    Ok((key, end))
}

/// `role grant-permission`.
pub async fn grant_permission(context: Context) -> Outcome {
    let [name, access, words @ ..] = context.flags.args.as_slice() else {
        return Err(Failure::args(GRANT_ARGS));
    };
    if words.is_empty() {
        return Err(Failure::args(GRANT_ARGS));
    }
    let perm_type = match access.to_uppercase().as_str() {
        "READ" => Type::Read,
        "WRITE" => Type::Write,
        "READWRITE" => Type::Readwrite,
        _ => return Err(Failure::args(format!("invalid permission type: {access}"))),
    };
    let (key, range_end) = range_of(&context.flags, words)?;
    let perm = Some(Permission { perm_type: perm_type.into(), key, range_end });
    let request = pb::AuthRoleGrantPermissionRequest { name: name.clone(), perm };
    let text = format!("Role {name} updated");
    let session = context.connect().await?;
    let response = session
        .ask(None, Retry::Once, request, async |mut auth, request| auth.role_grant_permission(request).await)
        .await?;
    session.print(&Reply::Changed(text, response.header))
}

const GRANT_ARGS: &str =
    "role grant command requires role name, permission type, and key [endkey] as its argument";

/// `role revoke-permission`.
pub async fn revoke_permission(context: Context) -> Outcome {
    let missing = "role revoke-permission command requires role name and key [endkey] as its argument";
    let [role, words @ ..] = context.flags.args.as_slice() else { return Err(Failure::args(missing)) };
    let Some(named) = words.first() else { return Err(Failure::args(missing)) };
    let (key, range_end) = range_of(&context.flags, words)?;
    let what = match range_end.as_ref() {
        b"" => format!("key {named}"),
        OPEN => format!("range [{named}, <open ended>"),
        end => format!("range [{named}, {})", String::from_utf8_lossy(end)),
    };
    let text = format!("Permission of {what} is revoked from role {role}");
    let request = pb::AuthRoleRevokePermissionRequest { role: role.clone(), key, range_end };
    let session = context.connect().await?;
    let response = session
        .ask(None, Retry::Once, request, async |mut auth, request| auth.role_revoke_permission(request).await)
        .await?;
    session.print(&Reply::Changed(text, response.header))
}
