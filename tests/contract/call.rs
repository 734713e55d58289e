//! One call: how it is made, and what of its answer is compared.

use std::{
    fmt::Debug,
    time::{Duration, Instant},
};

use kontiki::wire::etcdserverpb::{
    self as pb, ResponseHeader, cluster_client::ClusterClient, kv_client::KvClient,
    lease_client::LeaseClient, maintenance_client::MaintenanceClient, response_op::Response,
};
use tokio_stream::StreamExt;
use tonic::Status;

use crate::{
    auth::{self, AuthAsk},
    lock::{self, Turns},
    server::Server,
};

/// Stands for the member's own id in a request and in what is compared.
pub const SELF: u64 = u64::MAX;

/// Stands for an id that the server picked.
pub const PICKED: i64 = i64::MAX;

/// What is asked.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)]
pub enum Ask {
    Range(pb::RangeRequest),
    Put(pb::PutRequest),
    Delete(pb::DeleteRangeRequest),
    Txn(pb::TxnRequest),
    Compact(pb::CompactionRequest),
    Grant(pb::LeaseGrantRequest),
    Revoke(i64),
    /// All on one stream.
    KeepAlive(Vec<i64>),
    TimeToLive(pb::LeaseTimeToLiveRequest),
    Leases,
    /// Waits until the key is gone, then reads it.
    Expired(&'static str),
    Alarm(pb::AlarmRequest),
    Status,
    Defragment,
    Hash,
    HashKv(i64),
    Snapshot,
    MoveLeader(u64),
    Downgrade(pb::DowngradeRequest),
    MemberList(bool),
    MemberAdd(Vec<&'static str>),
    MemberRemove(u64),
    MemberUpdate(u64, Vec<&'static str>),
    MemberPromote(u64),
    Auth(AuthAsk),
    /// What comes after is asked by this user; it answers what kind of token there is.
    Login(&'static str, &'static str),
    /// What comes after has this token; none if it is empty.
    Token(&'static str),
    /// Locks and elections.
    Turns(Turns),
    /// One after the other.
    Both(Box<[Ask; 2]>),
}

/// A call and what it is about.
#[derive(Clone, Debug)]
pub struct Call {
    pub ask: Ask,
    pub note: &'static str,
    /// What a late 3.5 answers where 3.5.1 does something else.
    pub late: Option<&'static str>,
}

impl From<Ask> for Call {
    fn from(ask: Ask) -> Self {
        Self { ask, note: "", late: None }
    }
}

impl Ask {
    /// With what it is about.
    pub fn note(self, note: &'static str) -> Call {
        Call { ask: self, note, late: None }
    }

    /// With what it is about, and what is to be answered instead of what 3.5.1 does.
    pub fn late(self, note: &'static str, late: &'static str) -> Call {
        Call { ask: self, note, late: Some(late) }
    }
}

/// The first characters of a long text.
pub fn short(text: &str) -> String {
    const CHARS_MAX: usize = 1_500;
    match text.char_indices().nth(CHARS_MAX) {
        Some((at, _)) => format!("{}… ({} bytes)", &text[..at], text.len()),
        None => text.to_owned(),
    }
}

pub fn told<T: Debug>(answer: Result<T, Status>) -> String {
    match answer {
        Ok(answer) => format!("OK {answer:?}"),
        Err(status) => format!("ERR {:?} {:?}", status.code(), status.message()),
    }
}

/// Ids and terms are there or not; the revision stays.
pub fn plain(server: &Server, header: &mut Option<ResponseHeader>) {
    if let Some(header) = header {
        header.cluster_id = u64::from(header.cluster_id != 0);
        header.member_id = own(server, header.member_id);
        header.raft_term = u64::from(header.raft_term != 0);
    }
}

fn own(server: &Server, id: u64) -> u64 {
    if id == server.member { SELF } else { id }
}

fn asked(server: &Server, id: u64) -> u64 {
    if id == SELF { server.member } else { id }
}

fn plain_members(server: &Server, members: &mut [pb::Member]) {
    for member in members {
        member.id = own(server, member.id);
        for url in member.peer_ur_ls.iter_mut().chain(&mut member.client_ur_ls) {
            *url = url.replace(&server.client_url, "CLIENT").replace(&server.peer_url, "PEER");
        }
    }
}

/// Inner headers have no ids, which is compared as it is; only the outer one is made plain.
fn plain_txn(server: &Server, response: &mut pb::TxnResponse) {
    plain(server, &mut response.header);
    for op in &response.responses {
        assert!(!matches!(op.response, Some(Response::ResponseTxn(ref txn)) if txn.header.is_none()));
    }
}

macro_rules! unary {
    ($server:ident, $client:ident, $method:ident, $request:expr, |$answer:ident| $plain:expr) => {{
        let answer = $client::new($server.channel.clone())
            .max_decoding_message_size(64 << 20)
            .$method($server.request($request))
            .await
            .map(|answer| {
                let mut $answer = answer.into_inner();
                plain($server, &mut $answer.header);
                $plain;
                $answer
            });
        told(answer)
    }};
    ($server:ident, $client:ident, $method:ident, $request:expr) => {
        unary!($server, $client, $method, $request, |_answer| ())
    };
}

pub(crate) use unary;

/// How long a call may take.
const CALL_WAIT: Duration = Duration::from_secs(15);

/// Makes the call; gives what is compared.
pub async fn run(server: &mut Server, ask: &Ask) -> String {
    match tokio::time::timeout(CALL_WAIT, make(server, ask)).await {
        Ok(answer) => answer,
        Err(_) => "no answer".to_owned(),
    }
}

async fn make(server: &mut Server, ask: &Ask) -> String {
    match ask.clone() {
        Ask::Range(request) => unary!(server, KvClient, range, request),
        Ask::Put(request) => unary!(server, KvClient, put, request),
        Ask::Delete(request) => unary!(server, KvClient, delete_range, request),
        Ask::Txn(request) => unary!(server, KvClient, txn, request, |txn| plain_txn(server, &mut txn)),
        Ask::Compact(request) => unary!(server, KvClient, compact, request),
        Ask::Grant(request) => {
            let picked = request.id == 0;
            unary!(server, LeaseClient, lease_grant, request, |lease| if picked && lease.id > 0 {
                lease.id = PICKED;
            })
        }
        Ask::Revoke(id) => unary!(server, LeaseClient, lease_revoke, pb::LeaseRevokeRequest { id }),
        Ask::KeepAlive(ids) => keep_alive(server, ids).await,
        Ask::TimeToLive(request) => {
            // A second may pass between the two sides: to within one of what was granted is the same.
            unary!(server, LeaseClient, lease_time_to_live, request, |lease| {
                if lease.granted_ttl > 0 && (1..=4).contains(&(lease.granted_ttl - lease.ttl)) {
                    lease.ttl = lease.granted_ttl - 1;
                }
            })
        }
        Ask::Leases => {
            unary!(server, LeaseClient, lease_leases, pb::LeaseLeasesRequest {}, |leases| {
                for lease in &mut leases.leases {
                    // Only what the server picked is that large.
                    lease.id = if lease.id > 1 << 40 { PICKED } else { lease.id };
                }
            })
        }
        Ask::Expired(key) => expired(server, key).await,
        Ask::Alarm(mut request) => {
            request.member_id = asked(server, request.member_id);
            unary!(server, MaintenanceClient, alarm, request, |alarms| {
                for alarm in &mut alarms.alarms {
                    alarm.member_id = own(server, alarm.member_id);
                }
                alarms.alarms.sort_by_key(|alarm| (alarm.member_id, alarm.alarm));
            })
        }
        Ask::Status => unary!(server, MaintenanceClient, status, pb::StatusRequest {}, |status| {
            status.leader = own(server, status.leader);
            status.version = status.version.split('.').next().unwrap_or_default().to_owned();
            status.db_size = i64::from(status.db_size > 0);
            status.db_size_in_use = i64::from(status.db_size_in_use > 0);
            status.raft_term = u64::from(status.raft_term > 0);
            let applied = status.raft_applied_index == status.raft_index;
            (status.raft_index, status.raft_applied_index) = (0, u64::from(applied));
            for error in &mut status.errors {
                *error = error.replace(&server.member.to_string(), "SELF");
            }
            // By a hash of their ids.
            status.errors.sort();
        }),
        Ask::Defragment => unary!(server, MaintenanceClient, defragment, pb::DefragmentRequest {}),
        Ask::Hash => unary!(server, MaintenanceClient, hash, pb::HashRequest {}, |hash| hash.hash = 0),
        Ask::HashKv(revision) => {
            unary!(server, MaintenanceClient, hash_kv, pb::HashKvRequest { revision }, |hash| {
                // Of 3.6.
                hash.hash_revision = 0;
            })
        }
        Ask::Snapshot => snapshot(server).await,
        Ask::MoveLeader(target_id) => {
            let request = pb::MoveLeaderRequest { target_id: asked(server, target_id) };
            unary!(server, MaintenanceClient, move_leader, request)
        }
        Ask::Downgrade(request) => unary!(server, MaintenanceClient, downgrade, request),
        Ask::MemberList(_)
        | Ask::MemberAdd(_)
        | Ask::MemberRemove(_)
        | Ask::MemberUpdate(..)
        | Ask::MemberPromote(_) => members(server, ask).await,
        Ask::Login(name, password) => auth::login(server, name, password).await,
        Ask::Token(token) => {
            server.token = token.to_owned();
            String::new()
        }
        Ask::Auth(ask) => auth::run(server, ask).await,
        Ask::Turns(ask) => Box::pin(lock::run(server, ask)).await,
        Ask::Both(asks) => {
            let [first, second] = &*asks;
            let first = Box::pin(make(server, first)).await;
            format!("{first}; {}", Box::pin(make(server, second)).await)
        }
    }
}

fn owned(urls: Vec<&'static str>) -> Vec<String> {
    urls.into_iter().map(str::to_owned).collect()
}

async fn members(server: &mut Server, ask: &Ask) -> String {
    macro_rules! members {
        ($method:ident, $request:expr) => {
            unary!(server, ClusterClient, $method, $request, |answer| plain_members(
                server,
                &mut answer.members
            ))
        };
    }
    match ask.clone() {
        Ask::MemberList(linearizable) => members!(member_list, pb::MemberListRequest { linearizable }),
        Ask::MemberAdd(urls) => {
            members!(member_add, pb::MemberAddRequest { peer_ur_ls: owned(urls), is_learner: false })
        }
        Ask::MemberRemove(id) => {
            members!(member_remove, pb::MemberRemoveRequest { id: asked(server, id) })
        }
        Ask::MemberUpdate(id, urls) => {
            let request = pb::MemberUpdateRequest { id: asked(server, id), peer_ur_ls: owned(urls) };
            members!(member_update, request)
        }
        Ask::MemberPromote(id) => {
            members!(member_promote, pb::MemberPromoteRequest { id: asked(server, id) })
        }
        other => unreachable!("{other:?} is not about members"),
    }
}

async fn keep_alive(server: &mut Server, ids: Vec<i64>) -> String {
    let requests = ids.into_iter().map(|id| pb::LeaseKeepAliveRequest { id });
    let stream = LeaseClient::new(server.channel.clone())
        .lease_keep_alive(server.request(tokio_stream::iter(requests.collect::<Vec<_>>())))
        .await;
    let mut stream = match stream {
        Ok(stream) => stream.into_inner(),
        Err(status) => return told::<()>(Err(status)),
    };
    let mut answers = Vec::new();
    while let Some(answer) = stream.next().await {
        answers.push(told(answer.map(|mut answer| {
            plain(server, &mut answer.header);
            answer
        })));
    }
    answers.join("; ")
}

async fn expired(server: &mut Server, key: &str) -> String {
    let request = pb::RangeRequest { key: key.to_owned().into(), ..Default::default() };
    let mut client = KvClient::new(server.channel.clone());
    let until = Instant::now() + Duration::from_secs(10);
    while Instant::now() < until {
        match client.range(request.clone()).await {
            Ok(found) if found.get_ref().count > 0 => {}
            Ok(_) | Err(_) => break,
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    unary!(server, KvClient, range, request)
}

/// The shape of a snapshot: equal blobs, remaining bytes that count down, the right hash at the end.
async fn snapshot(server: &mut Server) -> String {
    use sha2::{Digest, Sha256};
    let client = MaintenanceClient::new(server.channel.clone());
    let mut stream = match client
        .max_decoding_message_size(64 << 20)
        .snapshot(server.request(pb::SnapshotRequest {}))
        .await
    {
        Ok(stream) => stream.into_inner(),
        Err(status) => return told::<()>(Err(status)),
    };
    let mut messages = Vec::new();
    while let Some(message) = stream.next().await {
        match message {
            Ok(message) => messages.push(message),
            Err(status) => return told::<()>(Err(status)),
        }
    }
    let Some((hash, blobs)) = messages.split_last() else {
        return "no message".to_owned();
    };
    let mut sha = Sha256::new();
    let mut left: u64 = blobs.iter().map(|m| m.blob.len() as u64).sum();
    let mut sound = true;
    for (i, message) in blobs.iter().enumerate() {
        left -= message.blob.len() as u64;
        sha.update(&message.blob);
        sound &= message.remaining_bytes == left;
        sound &= message.blob.len() == 32_768 || i + 1 == blobs.len();
    }
    let magic = blobs.first().and_then(|m| m.blob.get(16..20).map(<[u8]>::to_vec));
    let headers = messages.iter().any(|m| m.header.is_some());
    let hash = hash.blob.as_ref() == sha.finalize().as_slice();
    format!("OK sound {sound} hash {hash} headers {headers} bbolt magic {magic:x?}")
}
