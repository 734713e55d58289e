//! `endpoint health`, `status` and `hashkv`: each endpoint is asked on its own.

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::time::Instant;
use tonic::Code;

use super::{
    Context, Session,
    client::{CallError, Client, Retry},
    fail::{Exit, Failure, Outcome},
    log::Logger,
    maintenance,
    output::{Health, Reply, alarm_text},
};
use crate::wire::etcdserverpb::{
    self as pb, alarm_request::AlarmAction, kv_client::KvClient, maintenance_client::MaintenanceClient,
};

/// The endpoints that were given, or with `--cluster` those that the members advertise.
pub async fn endpoints(session: &Session, cluster: bool) -> Result<Vec<String>, Failure> {
    if !cluster {
        return Ok(session.settings.endpoints.clone());
    }
    let response = session.member_list().await.map_err(|error| {
        let text = format!("failed to fetch endpoints from etcd cluster member list: {error}");
        Failure::new(Exit::Error, text)
    })?;
    Ok(response.members.into_iter().flat_map(|member| member.client_ur_ls).collect())
}

/// Asks one endpoint for its status.
pub async fn status_of(session: &Session, client: &Client) -> Result<pb::StatusResponse, CallError> {
    let timeout = Some(session.settings.command_timeout);
    client
        .call(timeout, Retry::Repeatable, pb::StatusRequest {}, async |channel, request| {
            MaintenanceClient::new(channel).status(request).await
        })
        .await
}

/// `endpoint status`.
pub async fn status(context: Context) -> Outcome {
    let cluster = context.flags.on("cluster");
    let session = context.connect().await?;
    let mut answers = Vec::new();
    let mut failed = false;
    for endpoint in endpoints(&session, cluster).await? {
        match status_of(&session, &session.client.only(&endpoint)).await {
            Ok(status) => answers.push((endpoint, status)),
            Err(error) => {
                eprintln!("Failed to get the status of endpoint {endpoint} ({error})");
                failed = true;
            }
        }
    }
    session.print(&Reply::Status(answers))?;
    if failed { Err(Failure::silent(Exit::Error)) } else { Ok(()) }
}

/// `endpoint hashkv`.
pub async fn hash_kv(context: Context) -> Outcome {
    let cluster = context.flags.on("cluster");
    let revision = context.flags.int("rev");
    let session = context.connect().await?;
    let mut answers = Vec::new();
    let mut last = Ok(());
    for endpoint in endpoints(&session, cluster).await? {
        let timeout = Some(session.settings.command_timeout);
        let client = session.client.only(&endpoint);
        let request = pb::HashKvRequest { revision };
        let answer = client
            .call(timeout, Retry::Repeatable, request, async |channel, request| {
                MaintenanceClient::new(channel).hash_kv(request).await
            })
            .await;
        match answer {
            Ok(hash) => answers.push((endpoint, hash)),
            Err(error) => {
                eprintln!("Failed to get the hash of endpoint {endpoint} ({error})");
                last = Err(error.into());
            }
        }
    }
    session.print(&Reply::HashKv(answers))?;
    last
}

/// `endpoint health`: all at once, printed in the order in which they answer.
pub async fn health(context: Context) -> Outcome {
    let cluster = context.flags.on("cluster");
    let session = context.connect().await?;
    let endpoints = endpoints(&session, cluster).await?;
    let mut checks: FuturesUnordered<_> =
        endpoints.into_iter().map(|endpoint| check(&session, endpoint)).collect();
    let mut answers = Vec::new();
    while let Some(health) = checks.next().await {
        answers.push(health);
    }
    let well = answers.iter().all(|health| health.error.is_none());
    session.print(&Reply::Health(answers))?;
    if well { Ok(()) } else { Err(Failure::new(Exit::Error, "unhealthy cluster")) }
}

/// An endpoint is healthy if it serves a linearizable read and no alarm is on.
async fn check(session: &Session, endpoint: String) -> Health {
    let client = session.client.only(&endpoint).logged_as(Logger::Single);
    let start = Instant::now();
    let request = pb::RangeRequest { key: "health".into(), ..Default::default() };
    let timeout = Some(session.settings.command_timeout);
    let read = client
        .call(timeout, Retry::Repeatable, request, async |channel, request| {
            KvClient::new(channel).range(request).await
        })
        .await;
    let took = start.elapsed();
    let error = match read {
        // Who may not read the key has still had an answer.
        Err(error) if error.code() != Code::PermissionDenied => Some(error.to_string()),
        Ok(_) | Err(_) => {
            let any = pb::AlarmMember::default();
            match maintenance::alarm(session, &client, AlarmAction::Get, Retry::Repeatable, any).await {
                Ok(response) if response.alarms.is_empty() => None,
                Ok(response) => {
                    let names = response.alarms.iter().map(|alarm| {
                        // The type alone, with its space.
                        alarm_text(alarm).rsplit_once("alarm:").map_or(String::new(), |(_, name)| name.into())
                    });
                    Some(format!("Active Alarm(s): {}", names.collect::<String>()))
                }
                Err(_) => Some("Unable to fetch the alarm list".into()),
            }
        }
    };
    Health { endpoint, took, error }
}
