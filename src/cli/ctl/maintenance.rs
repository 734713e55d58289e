//! `alarm`, `defrag` and `move-leader`.

use super::{
    Context, Session,
    client::{CallError, Client, Retry},
    endpoint,
    fail::{Exit, Failure, Outcome},
    go,
    output::Reply,
};
use crate::wire::etcdserverpb::{
    self as pb, alarm_request::AlarmAction, maintenance_client::MaintenanceClient,
};

/// Sends one request about alarms.
pub async fn alarm(
    session: &Session,
    client: &Client,
    action: AlarmAction,
    retry: Retry,
    alarm: pb::AlarmMember,
) -> Result<pb::AlarmResponse, CallError> {
    let request = pb::AlarmRequest { action: action as i32, member_id: alarm.member_id, alarm: alarm.alarm };
    client
        .call(Some(session.settings.command_timeout), retry, request, async |channel, request| {
            MaintenanceClient::new(channel).alarm(request).await
        })
        .await
}

fn no_args(context: &Context, command: &str) -> Outcome {
    match context.flags.args.as_slice() {
        [] => Ok(()),
        _ => Err(Failure::args(format!("alarm {command} command accepts no arguments"))),
    }
}

/// `alarm list`.
pub async fn alarm_list(context: Context) -> Outcome {
    no_args(&context, "list")?;
    let session = context.connect().await?;
    let any = pb::AlarmMember::default();
    let response = alarm(&session, &session.client, AlarmAction::Get, Retry::Repeatable, any).await?;
    session.print(&Reply::Alarms(response))
}

/// `alarm disarm`: one by one those that there are.
pub async fn alarm_disarm(context: Context) -> Outcome {
    no_args(&context, "disarm")?;
    let session = context.connect().await?;
    let any = pb::AlarmMember::default();
    let listed = alarm(&session, &session.client, AlarmAction::Get, Retry::Repeatable, any).await?;
    let mut gone = pb::AlarmResponse::default();
    for one in listed.alarms {
        let answer =
            alarm(&session, &session.client, AlarmAction::Deactivate, Retry::Repeatable, one).await?;
        gone.alarms.extend(answer.alarms);
    }
    session.print(&Reply::Alarms(gone))
}

/// `defrag`: one endpoint after the other, in the same words whatever the format.
pub async fn defrag(context: Context) -> Outcome {
    if !context.flags.text("data-dir").is_empty() {
        let text = "--data-dir is not supported: a stopped member's directory needs no defragmentation";
        return Err(Failure::new(Exit::BadFeature, text));
    }
    let cluster = context.flags.on("cluster");
    let session = context.connect().await?;
    let mut failed = false;
    for endpoint in endpoint::endpoints(&session, cluster).await? {
        let client = session.client.only(&endpoint);
        let answer = client
            .call(
                Some(session.settings.command_timeout),
                Retry::Once,
                pb::DefragmentRequest {},
                async |channel, request| MaintenanceClient::new(channel).defragment(request).await,
            )
            .await;
        match answer {
            Ok(_) => super::emit(format!("Finished defragmenting etcd member[{endpoint}]\n").into())?,
            Err(error) => {
                eprintln!("Failed to defragment etcd member[{endpoint}] ({error})");
                failed = true;
            }
        }
    }
    if failed { Err(Failure::silent(Exit::Error)) } else { Ok(()) }
}

/// `move-leader`: asks each endpoint until one says that it leads, and tells that one.
pub async fn move_leader(context: Context) -> Outcome {
    let [target] = context.flags.args.as_slice() else {
        return Err(Failure::args("move-leader command needs 1 argument"));
    };
    let target_id = go::parse_uint(target, 16).map_err(Failure::args)?;
    let session = context.connect().await?;
    for endpoint in &session.settings.endpoints {
        let client = session.client.only(endpoint);
        let status = endpoint::status_of(&session, &client).await?;
        let id = status.header.as_ref().map_or(0, |header| header.member_id);
        if id != status.leader {
            continue;
        }
        client
            .call(
                Some(session.settings.command_timeout),
                Retry::Once,
                pb::MoveLeaderRequest { target_id },
                async |channel, request| MaintenanceClient::new(channel).move_leader(request).await,
            )
            .await?;
        // etcdctl's answer has no header; its JSON is `{}`.
        return session.print(&Reply::MoveLeader(id, target_id, pb::MoveLeaderResponse::default()));
    }
    Err(Failure::args(format!("no leader endpoint given at [{}]", session.settings.endpoints.join(" "))))
}
