//! `member add`, `remove`, `update`, `list` and `promote`.

use super::{
    Context,
    client::Retry,
    fail::{Exit, Failure, Outcome},
    go,
    output::{Format, Reply},
};
use crate::wire::etcdserverpb::{self as pb, cluster_client::ClusterClient};

/// The first argument, a member.
fn member_id(context: &Context) -> Result<u64, Failure> {
    match context.flags.args.as_slice() {
        [id] => go::parse_uint(id, 16)
            .map_err(|why| Failure::args(format!("bad member ID arg ({why}), expecting ID in Hex"))),
        _ => Err(Failure::args("member ID is not provided")),
    }
}

/// Checks peer URLs as etcd does before it sends them.
fn peer_urls(text: &str) -> Result<Vec<String>, Failure> {
    if text.is_empty() {
        return Err(Failure::args("member peer urls not provided"));
    }
    let mut urls: Vec<String> = text.split(',').map(|url| url.trim().to_string()).collect();
    for url in &urls {
        check_url(url).map_err(|why| Failure::new(Exit::Error, why))?;
    }
    urls.sort();
    Ok(urls)
}

/// A peer URL is a scheme, a host and a port, no more.
fn check_url(url: &str) -> Result<(), String> {
    let no_colon =
        || format!("parse {}: first path segment in URL cannot contain colon", go::quote(url.as_bytes()));
    let (scheme, rest) = match url.split_once("://") {
        Some(parts) => parts,
        None if url.starts_with(|c: char| c.is_ascii_digit()) && url.contains(':') => return Err(no_colon()),
        None => ("", url),
    };
    match scheme {
        "http" | "https" => {}
        "unix" | "unixs" => return Ok(()),
        _ => return Err(format!("URL scheme must be http, https, unix, or unixs: {url}")),
    }
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && (!name.contains(':') || name.ends_with(']')) => {}
        _ => return Err(format!("URL address does not have the form \"host:port\": {url}")),
    }
    if !path.is_empty() {
        return Err(format!("URL must not contain a path: {url}"));
    }
    Ok(())
}

/// `member add`.
pub async fn add(context: Context) -> Outcome {
    let name = match context.flags.args.as_slice() {
        [] => return Err(Failure::args("member name not provided")),
        [name] => name.clone(),
        _ => return Err(Failure::args("too many arguments")),
    };
    let given = context.flags.text("peer-urls").to_string();
    if given.is_empty() {
        return Err(Failure::args("member peer urls not provided"));
    }
    let is_learner = context.flags.on("learner");
    let session = context.connect().await?;
    let request = pb::MemberAddRequest { peer_ur_ls: peer_urls(&given)?, is_learner };
    let response = session
        .call(Retry::Once, request, async |channel, request| {
            ClusterClient::new(channel).member_add(request).await
        })
        .await?;
    let id = response.member.as_ref().map_or(0, |member| member.id);
    let mut members = response.members.clone();
    session.print(&Reply::MemberAdd(response))?;
    if session.printer.format() != Format::Simple {
        return Ok(());
    }
    members.sort_by_key(|member| member.id);
    super::emit(start_up(&name, id, &members, &given).into())
}

/// What to set in the environment of the new member.
fn start_up(name: &str, id: u64, members: &[pb::Member], urls: &str) -> String {
    let cluster: Vec<String> = members
        .iter()
        .flat_map(|member| {
            let name = if member.id == id { name } else { &member.name };
            member.peer_ur_ls.iter().map(move |url| format!("{name}={url}"))
        })
        .collect();
    let quoted = |text: &str| go::quote(text.as_bytes());
    format!(
        "\nETCD_NAME={}\nETCD_INITIAL_CLUSTER={}\nETCD_INITIAL_ADVERTISE_PEER_URLS={}\n\
         ETCD_INITIAL_CLUSTER_STATE=\"existing\"\n",
        quoted(name),
        quoted(&cluster.join(",")),
        quoted(urls)
    )
}

/// `member remove`.
pub async fn remove(context: Context) -> Outcome {
    let id = member_id(&context)?;
    let session = context.connect().await?;
    let response = session
        .call(Retry::Once, pb::MemberRemoveRequest { id }, async |channel, request| {
            ClusterClient::new(channel).member_remove(request).await
        })
        .await?;
    session.print(&Reply::MemberRemove(id, response))
}

/// `member update`.
pub async fn update(context: Context) -> Outcome {
    let id = member_id(&context)?;
    let given = context.flags.text("peer-urls").to_string();
    if given.is_empty() {
        return Err(Failure::args("member peer urls not provided"));
    }
    let session = context.connect().await?;
    let request = pb::MemberUpdateRequest { id, peer_ur_ls: peer_urls(&given)? };
    let response = session
        .call(Retry::Once, request, async |channel, request| {
            ClusterClient::new(channel).member_update(request).await
        })
        .await?;
    session.print(&Reply::MemberUpdate(id, response))
}

/// `member promote`.
pub async fn promote(context: Context) -> Outcome {
    let id = member_id(&context)?;
    let session = context.connect().await?;
    let response = session
        .call(Retry::Once, pb::MemberPromoteRequest { id }, async |channel, request| {
            ClusterClient::new(channel).member_promote(request).await
        })
        .await?;
    session.print(&Reply::MemberPromote(id, response))
}

/// `member list`.
pub async fn list(context: Context) -> Outcome {
    let session = context.connect().await?;
    let response = session.member_list().await?;
    session.print(&Reply::MemberList(response))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peer_urls_are_checked_in_etcds_words() {
        for (url, expect) in [
            ("http://127.0.0.1:2380", Ok(())),
            ("https://[::1]:2380", Ok(())),
            ("bad", Err("URL scheme must be http, https, unix, or unixs: bad")),
            (
                "127.0.0.1:42380",
                Err("parse \"127.0.0.1:42380\": first path segment in URL cannot contain colon"),
            ),
            ("http://host", Err("URL address does not have the form \"host:port\": http://host")),
            ("http://host:1/path", Err("URL must not contain a path: http://host:1/path")),
        ] {
            assert_eq!(check_url(url), expect.map_err(String::from), "{url}");
        }
        assert_eq!(peer_urls("http://b:2,http://a:1"), Ok(vec!["http://a:1".into(), "http://b:2".into()]));
        assert_eq!(peer_urls(""), Err(Failure::args("member peer urls not provided")));
    }

    #[test]
    fn a_new_member_is_told_how_to_start() {
        let member = |id, name: &str, urls: &[&str]| pb::Member {
            id,
            name: name.into(),
            peer_ur_ls: urls.iter().map(|url| url.to_string()).collect(),
            ..Default::default()
        };
        let members = [member(1, "", &["http://y:1", "http://y:2"]), member(2, "m1", &["http://m:1"])];
        assert_eq!(
            start_up("y", 1, &members, "http://y:2,http://y:1"),
            "\nETCD_NAME=\"y\"\nETCD_INITIAL_CLUSTER=\"y=http://y:1,y=http://y:2,m1=http://m:1\"\n\
             ETCD_INITIAL_ADVERTISE_PEER_URLS=\"http://y:2,http://y:1\"\nETCD_INITIAL_CLUSTER_STATE=\"existing\"\n"
        );
    }
}
