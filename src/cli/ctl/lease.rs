//! `lease grant`, `revoke`, `timetolive`, `list` and `keep-alive`. As in etcdctl, the last three have no timeout.

use std::time::Duration;

use tokio::{sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{
    Context, Session,
    client::{CallError, Retry},
    fail::{Exit, Failure, Outcome},
    go,
    output::Reply,
};
use crate::wire::etcdserverpb::{self as pb, lease_client::LeaseClient};

/// How long to wait for the first renewal, when no lifetime is known yet.
const FIRST_RENEWAL: Duration = Duration::from_secs(6);
/// Pause before a broken stream of renewals is opened again.
const REOPEN_PAUSE: Duration = Duration::from_millis(500);

fn lease_id(text: &str) -> Result<i64, Failure> {
    go::parse_int(text, 16)
        .map_err(|why| Failure::args(format!("bad lease ID arg ({why}), expecting ID in Hex")))
}

/// The only argument, a lease.
fn only_id(context: &Context, missing: &str) -> Result<i64, Failure> {
    match context.flags.args.as_slice() {
        [id] => lease_id(id),
        _ => Err(Failure::args(missing)),
    }
}

/// Failures of the reading commands count as bad connections.
fn bad_connection(error: CallError) -> Failure {
    Failure::new(Exit::BadConnection, error.to_string())
}

/// `lease grant`.
pub async fn grant(context: Context) -> Outcome {
    let [ttl] = context.flags.args.as_slice() else {
        return Err(Failure::args("lease grant command needs TTL argument"));
    };
    let ttl = go::parse_int(ttl, 10).map_err(|why| Failure::args(format!("bad TTL ({why})")))?;
    let session = context.connect().await?;
    let response = session
        .call(Retry::Repeatable, pb::LeaseGrantRequest { ttl, id: 0 }, async |channel, request| {
            LeaseClient::new(channel).lease_grant(request).await
        })
        .await
        .map_err(|error| Failure::new(Exit::Error, format!("failed to grant lease ({error})")))?;
    session.print(&Reply::Grant(response))
}

/// `lease revoke`.
pub async fn revoke(context: Context) -> Outcome {
    let id = only_id(&context, "lease revoke command needs 1 argument")?;
    let session = context.connect().await?;
    let response = session
        .call(Retry::Repeatable, pb::LeaseRevokeRequest { id }, async |channel, request| {
            LeaseClient::new(channel).lease_revoke(request).await
        })
        .await
        .map_err(|error| Failure::new(Exit::Error, format!("failed to revoke lease ({error})")))?;
    session.print(&Reply::Revoke(id, response))
}

/// `lease timetolive`.
pub async fn time_to_live(context: Context) -> Outcome {
    let id = only_id(&context, "lease timetolive command needs lease ID as argument")?;
    let keys = context.flags.on("keys");
    let session = context.connect().await?;
    let response = session
        .client
        .call(None, Retry::Repeatable, pb::LeaseTimeToLiveRequest { id, keys }, async |channel, request| {
            LeaseClient::new(channel).max_decoding_message_size(usize::MAX).lease_time_to_live(request).await
        })
        .await
        .map_err(bad_connection)?;
    session.print(&Reply::TimeToLive(response, keys))
}

/// `lease list`.
pub async fn list(context: Context) -> Outcome {
    let session = context.connect().await?;
    let response = session
        .client
        .call(None, Retry::Repeatable, pb::LeaseLeasesRequest {}, async |channel, request| {
            LeaseClient::new(channel).max_decoding_message_size(usize::MAX).lease_leases(request).await
        })
        .await
        .map_err(bad_connection)?;
    session.print(&Reply::Leases(response))
}

/// `lease keep-alive`.
pub async fn keep_alive(context: Context) -> Outcome {
    let id = only_id(&context, "lease keep-alive command needs lease ID as argument")?;
    let once = context.flags.on("once");
    let session = context.connect().await?;
    if once {
        let response = renew_once(&session, id).await.map_err(bad_connection)?;
        return session.print(&Reply::KeepAlive(response));
    }
    renew(&session, id).await?;
    super::emit(format!("lease {id:016x} expired or revoked.\n").into())
}

/// One renewal on a stream of its own.
async fn renew_once(session: &Session, id: i64) -> Result<pb::LeaseKeepAliveResponse, CallError> {
    loop {
        let picked = session.client.pick().await;
        let request = session.client.request(tokio_stream::once(pb::LeaseKeepAliveRequest { id }));
        let answer = match LeaseClient::new(picked.channel.clone()).lease_keep_alive(request).await {
            Ok(stream) => stream.into_inner().message().await,
            Err(status) => Err(status),
        };
        match answer {
            Ok(Some(response)) if response.ttl > 0 => return Ok(response),
            Ok(Some(_)) => return Err(Status::not_found("etcdserver: requested lease not found").into()),
            Ok(None) => {}
            Err(status) if status.code() == tonic::Code::Unavailable => session.client.broken(&picked),
            Err(status) => return Err(status.into()),
        }
        tokio::time::sleep(REOPEN_PAUSE).await;
    }
}

/// Renews until the lease is gone: every third of its lifetime, over streams that are opened again.
async fn renew(session: &Session, id: i64) -> Outcome {
    let mut deadline = Instant::now() + FIRST_RENEWAL;
    while let Ok(picked) = tokio::time::timeout_at(deadline, session.client.pick()).await {
        let (sender, receiver) = mpsc::channel(1);
        // The stream has just been made, so there is room.
        let _ = sender.try_send(pb::LeaseKeepAliveRequest { id });
        let request = session.client.request(ReceiverStream::new(receiver));
        let mut client = LeaseClient::new(picked.channel.clone());
        if let Ok(Ok(stream)) = tokio::time::timeout_at(deadline, client.lease_keep_alive(request)).await {
            let mut stream = stream.into_inner();
            while let Ok(Ok(Some(response))) = tokio::time::timeout_at(deadline, stream.message()).await {
                if response.ttl <= 0 {
                    return Ok(());
                }
                let ttl = Duration::from_secs(response.ttl.unsigned_abs());
                deadline = Instant::now() + ttl;
                session.print(&Reply::KeepAlive(response))?;
                tokio::time::sleep(ttl / 3).await;
                if sender.send(pb::LeaseKeepAliveRequest { id }).await.is_err() {
                    break;
                }
            }
        }
        session.client.broken(&picked);
        tokio::time::sleep(REOPEN_PAUSE).await;
    }
    Ok(())
}
