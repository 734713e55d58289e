//! Who may do what at the API, before anything reaches the log.

use kontiki::auth::{Access, Action, Password, Permission, Store, Who, password};
use kontiki::wire::etcdserverpb::{auth_client::AuthClient, cluster_client::ClusterClient};
use kontiki::{table::Batch, types::Index};

use super::*;

/// Turns authorization on: `root`, and `u` who may read `[a, c)`; each has a token of that name and `.1`.
fn enable_auth(fake: &Fake) {
    let password = || Password::hashed(&password::hash("pw", password::COST_MIN, [1; 16]));
    let add = |user: &str| Action::UserAdd { user: user.into(), password: password(), no_password: None };
    let grant = |user: &str, role: &str| Action::UserGrantRole { user: user.into(), role: role.into() };
    let permission = Permission { access: Access::Read, key: "a".into(), range_end: "c".into() };
    let actions = [
        add("root"),
        grant("root", "root"),
        add("u"),
        Action::RoleAdd { role: "r".into() },
        grant("u", "r"),
        Action::RoleGrant { role: "r".into(), permission: Some(permission) },
        Action::Enable,
    ];
    let mut users = fake.inner.users.lock().expect("no panic");
    for action in actions {
        Store::act(&mut users, &action, Index(1), &mut Batch::default()).expect("it is right");
    }
}

/// A message with a token, or without one.
fn by<T>(token: &'static str, message: T) -> Request<T> {
    if token.is_empty() { Request::new(message) } else { with("token", token, message) }
}

/// What an answer comes to, as text.
fn said<T>(answer: Result<T, tonic::Status>) -> String {
    answer.map_or_else(|status| format!("{:?}: {}", status.code(), status.message()), |_| "ok".into())
}

const EMPTY: &str = "InvalidArgument: etcdserver: user name is empty";
const BAD: &str = "Unauthenticated: etcdserver: invalid auth token";
const DENIED: &str = "PermissionDenied: etcdserver: permission denied";

/// Nobody, a token that is none, a user, root.
const TOKENS: [&str; 4] = ["", "bad", "u.1", "root.1"];

macro_rules! says {
    ($client:expr, $method:ident, $message:expr) => {{
        let mut said_to = Vec::new();
        for token in TOKENS {
            said_to.push(said($client.$method(by(token, $message)).await));
        }
        said_to
    }};
}

#[tokio::test]
async fn each_method_asks_for_what_it_needs() {
    let served = serve().await;
    enable_auth(&served.fake);
    let user = || [EMPTY, BAD, "ok", "ok"].map(str::to_owned);
    let root = || [EMPTY, BAD, DENIED, "ok"].map(str::to_owned);

    let mut kv = KvClient::new(served.channel.clone());
    assert_eq!(says!(kv, range, range_of("a")), user());
    assert_eq!(says!(kv, range, range_of("c")), root());
    let all = || pb::RangeRequest { key: "a".into(), range_end: (&b"\0"[..]).into(), ..Default::default() };
    assert_eq!(says!(kv, range, all()), root());
    assert_eq!(says!(kv, range, pb::RangeRequest { serializable: true, ..range_of("c") }), root());
    assert_eq!(says!(kv, range_stream, all()), root());
    let op = |request| pb::RequestOp { request: Some(request) };
    let reads = |key| pb::TxnRequest {
        success: vec![op(pb::request_op::Request::RequestRange(range_of(key)))],
        ..Default::default()
    };
    assert_eq!(says!(kv, txn, reads("b")), user());
    assert_eq!(says!(kv, txn, reads("c")), root());
    let compact = pb::CompactionRequest { revision: 1, physical: false };
    assert_eq!(says!(kv, compact, compact)[..3], root()[..3]);

    let mut lease = LeaseClient::new(served.channel.clone());
    assert_eq!(says!(lease, lease_grant, pb::LeaseGrantRequest { ttl: 10, id: 1 }), user());
    let ttl = |id, keys| pb::LeaseTimeToLiveRequest { id, keys };
    assert_eq!(says!(lease, lease_time_to_live, ttl(6, false)), user());
    assert_eq!(says!(lease, lease_time_to_live, ttl(5, true)), user());
    assert_eq!(says!(lease, lease_time_to_live, ttl(6, true)), root());
    assert_eq!(says!(lease, lease_time_to_live, ttl(7, true)), root());
    assert_eq!(says!(lease, lease_leases, pb::LeaseLeasesRequest {}), root());
    assert_eq!(says!(lease, lease_revoke, pb::LeaseRevokeRequest { id: 5 })[..2], user()[..2]);

    let mut cluster = ClusterClient::new(served.channel.clone());
    let list = pb::MemberListRequest { linearizable: true };
    assert_eq!(says!(cluster, member_list, list), user());
    let add = || pb::MemberAddRequest { peer_ur_ls: vec!["http://h:1".into()], is_learner: false };
    assert_eq!(says!(cluster, member_add, add())[..3], root()[..3]);
    assert_eq!(says!(cluster, member_remove, pb::MemberRemoveRequest { id: 1 })[..3], root()[..3]);
    assert_eq!(says!(cluster, member_update, pb::MemberUpdateRequest::default())[..3], root()[..3]);
    assert_eq!(says!(cluster, member_promote, pb::MemberPromoteRequest { id: 1 })[..3], root()[..3]);

    let mut maintenance = MaintenanceClient::new(served.channel.clone());
    assert_eq!(says!(maintenance, status, pb::StatusRequest {}), user());
    assert_eq!(says!(maintenance, alarm, pb::AlarmRequest::default())[..2], user()[..2]);
    let disarm = pb::AlarmRequest { action: 2, ..Default::default() };
    assert_eq!(says!(maintenance, alarm, disarm)[..3], root()[..3]);
    assert_eq!(says!(maintenance, downgrade, pb::DowngradeRequest::default())[..3], root()[..3]);
    let unknown = [
        "Unknown: auth: user name is empty",
        "Unknown: auth: invalid auth token",
        "Unknown: auth: permission denied",
        "ok",
    ]
    .map(str::to_owned);
    assert_eq!(says!(maintenance, defragment, pb::DefragmentRequest {}), unknown);
    assert_eq!(says!(maintenance, hash, pb::HashRequest {}), unknown);
    assert_eq!(says!(maintenance, hash_kv, pb::HashKvRequest { revision: 0 }), unknown);
    assert_eq!(says!(maintenance, snapshot, pb::SnapshotRequest {}), unknown);

    let mut auth = AuthClient::new(served.channel.clone());
    let add = || pb::AuthUserAddRequest { name: "w".into(), ..Default::default() };
    assert_eq!(says!(auth, user_add, add())[..3], root()[..3]);
}

#[tokio::test]
async fn what_is_proposed_says_who_asked() {
    let served = serve().await;
    let mut kv = KvClient::new(served.channel.clone());
    // While it is off, a token is nothing.
    kv.put(by("bad", put_of("k"))).await.expect("it is off");
    enable_auth(&served.fake);
    kv.put(by("u.1", put_of("k"))).await.expect("it is the state machine's to refuse");
    kv.put(with("authorization", "root.1", put_of("k"))).await.expect("put");
    assert_eq!(said(kv.put(by("bad", put_of("k"))).await), BAD);
    let who = |user: &str, revision| Who { user: user.into(), revision };
    let asked = served.fake.inner.asked_by.lock().expect("no panic").clone();
    assert_eq!(asked, [Who::default(), who("u", 7), who("root", 7)]);
}

#[tokio::test]
async fn a_watch_that_is_not_permitted_is_created_and_canceled() {
    let mut served = serve().await;
    enable_auth(&served.fake);
    let mut client = WatchClient::new(served.channel.clone());
    let create = |key: &'static str, end: &'static [u8]| {
        let create = pb::WatchCreateRequest { key: key.into(), range_end: end.into(), ..Default::default() };
        pb::WatchRequest { request_union: Some(pb::watch_request::RequestUnion::CreateRequest(create)) }
    };
    // All from `a` on is more than what `u` may read, though `a` is not.
    let requests = [create("z", b""), create("a", b"\0"), create("a", b"c")];
    let requests = stream::iter(requests).chain(stream::pending());
    let mut answers = client.watch(by("u.1", requests)).await.expect("a stream").into_inner();
    for _ in 0..2 {
        let answer = answers.next().await.expect("an answer").expect("no error");
        assert!(answer.created && answer.canceled);
        assert_eq!(answer.watch_id, -1);
        assert_eq!(
            answer.cancel_reason,
            "rpc error: code = PermissionDenied desc = etcdserver: permission denied"
        );
    }
    let Some(WatchInput::Asked { request: WatchRequest::Create(create), .. }) = served.hub.recv().await
    else {
        panic!("the hub is asked for the third");
    };
    assert_eq!(create.range.start, "a");
}

#[tokio::test]
async fn keep_alives_are_for_who_may_write_the_keys() {
    let served = serve().await;
    enable_auth(&served.fake);
    served.fake.inner.renew.add_permits(10);
    let mut client = LeaseClient::new(served.channel.clone());
    let mut first = async |token, id| {
        let requests = stream::iter([pb::LeaseKeepAliveRequest { id }]).chain(stream::pending());
        let answers = client.lease_keep_alive(by(token, requests)).await.expect("a stream");
        said(answers.into_inner().next().await.expect("an answer"))
    };
    assert_eq!(first("", 5).await, EMPTY);
    assert_eq!(first("u.1", 5).await, DENIED);
    assert_eq!(first("u.1", 9).await, "ok");
    assert_eq!(first("root.1", 6).await, "ok");
}

#[tokio::test]
async fn a_password_is_compared_and_a_token_given() {
    let served = serve().await;
    let mut auth = AuthClient::new(served.channel.clone());
    let login =
        |name: &str, password: &str| pb::AuthenticateRequest { name: name.into(), password: password.into() };
    let off = "FailedPrecondition: etcdserver: authentication is not enabled";
    assert_eq!(said(auth.authenticate(login("u", "pw")).await), off);
    enable_auth(&served.fake);
    let wrong = "InvalidArgument: etcdserver: authentication failed, invalid user ID or password";
    assert_eq!(said(auth.authenticate(login("u", "pW")).await), wrong);
    assert_eq!(said(auth.authenticate(login("w", "pw")).await), wrong);
    assert!(served.fake.inner.proposed.lock().expect("no panic").is_empty());
    let token = auth.authenticate(login("u", "pw")).await.expect("a token").into_inner().token;
    assert_eq!(token, "abcdefghijklmnop.1");
}
