//! `user add`, `delete`, `get`, `list`, `passwd`, `grant-role` and `revoke-role`.

use super::{
    Context, Session,
    client::Retry,
    fail::{Failure, Outcome},
    output::Reply,
    prompt,
};
use crate::wire::{authpb::UserAddOptions, etcdserverpb as pb};

fn only(context: &Context, missing: &str) -> Result<String, Failure> {
    match context.flags.args.as_slice() {
        [name] => Ok(name.clone()),
        _ => Err(Failure::args(missing)),
    }
}

/// The name and the password of a new user.
fn new_user(context: &Context, word: &str) -> Result<(String, String), Failure> {
    let flags = &context.flags;
    let given = flags.text("new-user-password");
    if flags.on("no-password") {
        return Ok((word.to_owned(), String::new()));
    }
    if !given.is_empty() {
        return Ok((word.to_owned(), given.to_owned()));
    }
    match word.split_once(':') {
        Some(("", _)) => Err(Failure::args("empty user name is not allowed")),
        Some((name, password)) => Ok((name.to_owned(), password.to_owned())),
        None if flags.on("interactive") => Ok((word.to_owned(), prompt::new_password(word)?)),
        None => Ok((word.to_owned(), prompt::piped_password())),
    }
}

/// `user add`.
pub async fn add(context: Context) -> Outcome {
    let word = only(&context, "user add command requires user name as its argument")?;
    let (name, password) = new_user(&context, &word)?;
    let options = Some(UserAddOptions { no_password: context.flags.on("no-password") });
    let session = context.connect().await?;
    let request = pb::AuthUserAddRequest { name: name.clone(), password, options, ..Default::default() };
    let response = session
        .ask(None, Retry::Once, request, async |mut auth, request| auth.user_add(request).await)
        .await?;
    session.print(&Reply::Changed(format!("User {name} created"), response.header))
}

/// `user delete`.
pub async fn delete(context: Context) -> Outcome {
    let name = only(&context, "user delete command requires user name as its argument")?;
    let session = context.connect().await?;
    let request = pb::AuthUserDeleteRequest { name: name.clone() };
    let response = session
        .ask(None, Retry::Once, request, async |mut auth, request| auth.user_delete(request).await)
        .await?;
    session.print(&Reply::Changed(format!("User {name} deleted"), response.header))
}

/// `user get`; with `--detail`, its roles one by one.
pub async fn get(context: Context) -> Outcome {
    let name = only(&context, "user get command requires user name as its argument")?;
    let detail = context.flags.on("detail");
    let session = context.connect().await?;
    let request = pb::AuthUserGetRequest { name: name.clone() };
    let response = session
        .ask(None, Retry::Repeatable, request, async |mut auth, request| auth.user_get(request).await)
        .await?;
    if !detail {
        return session.print(&Reply::UserGet(name, response));
    }
    super::emit(format!("User: {name}\n").into())?;
    for role in response.roles {
        super::emit("\n".to_owned().into())?;
        super::role::show(&session, role).await?;
    }
    Ok(())
}

/// `user list`.
pub async fn list(context: Context) -> Outcome {
    if !context.flags.args.is_empty() {
        return Err(Failure::args("user list command requires no arguments"));
    }
    let session = context.connect().await?;
    let response = session
        .ask(None, Retry::Repeatable, pb::AuthUserListRequest {}, async |mut auth, request| {
            auth.user_list(request).await
        })
        .await?;
    session.print(&Reply::UserList(response))
}

/// `user passwd`.
pub async fn passwd(context: Context) -> Outcome {
    let name = only(&context, "user passwd command requires user name as its argument")?;
    let password = match context.flags.on("interactive") {
        true => prompt::new_password(&name)?,
        false => prompt::piped_password(),
    };
    let session = context.connect().await?;
    let request = pb::AuthUserChangePasswordRequest { name, password, ..Default::default() };
    let response = session
        .ask(None, Retry::Once, request, async |mut auth, request| auth.user_change_password(request).await)
        .await?;
    session.print(&Reply::Changed("Password updated".to_owned(), response.header))
}

/// The arguments of a change of a user's roles.
async fn user_and_role(context: Context, missing: &str) -> Result<(Session, String, String), Failure> {
    let [user, role] = context.flags.args.as_slice() else { return Err(Failure::args(missing)) };
    let (user, role) = (user.clone(), role.clone());
    Ok((context.connect().await?, user, role))
}

/// `user grant-role`.
pub async fn grant_role(context: Context) -> Outcome {
    let missing = "user grant command requires user name and role name as its argument";
    let (session, user, role) = user_and_role(context, missing).await?;
    let text = format!("Role {role} is granted to user {user}");
    let request = pb::AuthUserGrantRoleRequest { user, role };
    let response = session
        .ask(None, Retry::Once, request, async |mut auth, request| auth.user_grant_role(request).await)
        .await?;
    session.print(&Reply::Changed(text, response.header))
}

/// `user revoke-role`.
pub async fn revoke_role(context: Context) -> Outcome {
    let missing = "user revoke-role requires user name and role name as its argument";
    let (session, name, role) = user_and_role(context, missing).await?;
    let text = format!("Role {role} is revoked from user {name}");
    let request = pb::AuthUserRevokeRoleRequest { name, role };
    let response = session
        .ask(None, Retry::Once, request, async |mut auth, request| auth.user_revoke_role(request).await)
        .await?;
    session.print(&Reply::Changed(text, response.header))
}
