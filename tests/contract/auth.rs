//! Sessions about users and roles: while authorization is off, and who may do what while it is on.

use kontiki::wire::{
    authpb::{Permission, UserAddOptions},
    etcdserverpb::{
        self as pb, LeaseGrantRequest, LeaseTimeToLiveRequest, RangeRequest, RequestOp, TxnRequest,
        auth_client::AuthClient, request_op::Request as Op, watch_client::WatchClient,
        watch_request::RequestUnion,
    },
};
use tokio_stream::StreamExt;

use crate::{
    call::{Ask, Call, plain, told, unary},
    kv::{bytes, compact, delete, delete_of, get, p, put, put_of, range, then},
    lock::Turns,
    replay,
    server::Server,
};

/// What is asked of the authorization service.
#[derive(Clone, Copy, Debug)]
pub enum AuthAsk {
    Status,
    Enable,
    Disable,
    Authenticate(&'static str, &'static str),
    UserAdd(&'static str, &'static str),
    /// Without a password.
    UserAddBare(&'static str),
    UserGet(&'static str),
    UserList,
    UserDelete(&'static str),
    UserChangePassword(&'static str, &'static str),
    UserGrantRole(&'static str, &'static str),
    UserRevokeRole(&'static str, &'static str),
    RoleAdd(&'static str),
    RoleGet(&'static str),
    RoleList,
    RoleDelete(&'static str),
    RoleGrant(&'static str, i32, &'static str, &'static str),
    RoleGrantNothing(&'static str),
    RoleRevoke(&'static str, &'static str, &'static str),
    /// A watch's first frame.
    Watch(&'static str, &'static str),
}

const READ: i32 = 0;
const WRITE: i32 = 1;
const READ_WRITE: i32 = 2;

pub async fn run(server: &mut Server, ask: AuthAsk) -> String {
    macro_rules! auth {
        ($method:ident, $request:expr) => {
            unary!(server, AuthClient, $method, $request)
        };
    }
    let own = str::to_owned;
    match ask {
        AuthAsk::Status => auth!(auth_status, pb::AuthStatusRequest {}),
        AuthAsk::Enable => auth!(auth_enable, pb::AuthEnableRequest {}),
        AuthAsk::Disable => auth!(auth_disable, pb::AuthDisableRequest {}),
        AuthAsk::Authenticate(name, password) => {
            let request = pb::AuthenticateRequest { name: own(name), password: own(password) };
            unary!(server, AuthClient, authenticate, request, |answer| answer.token = shape(&answer.token))
        }
        AuthAsk::UserAdd(name, password) => {
            let request =
                pb::AuthUserAddRequest { name: own(name), password: own(password), ..Default::default() };
            auth!(user_add, request)
        }
        AuthAsk::UserAddBare(name) => {
            let options = Some(UserAddOptions { no_password: true });
            auth!(user_add, pb::AuthUserAddRequest { name: own(name), options, ..Default::default() })
        }
        AuthAsk::UserGet(name) => auth!(user_get, pb::AuthUserGetRequest { name: own(name) }),
        AuthAsk::UserList => auth!(user_list, pb::AuthUserListRequest {}),
        AuthAsk::UserDelete(name) => auth!(user_delete, pb::AuthUserDeleteRequest { name: own(name) }),
        AuthAsk::UserChangePassword(name, password) => {
            let (name, password) = (own(name), own(password));
            let request = pb::AuthUserChangePasswordRequest { name, password, ..Default::default() };
            auth!(user_change_password, request)
        }
        AuthAsk::UserGrantRole(user, role) => {
            auth!(user_grant_role, pb::AuthUserGrantRoleRequest { user: own(user), role: own(role) })
        }
        AuthAsk::UserRevokeRole(name, role) => {
            auth!(user_revoke_role, pb::AuthUserRevokeRoleRequest { name: own(name), role: own(role) })
        }
        AuthAsk::RoleAdd(name) => auth!(role_add, pb::AuthRoleAddRequest { name: own(name) }),
        AuthAsk::RoleGet(role) => auth!(role_get, pb::AuthRoleGetRequest { role: own(role) }),
        AuthAsk::RoleList => auth!(role_list, pb::AuthRoleListRequest {}),
        AuthAsk::RoleDelete(role) => auth!(role_delete, pb::AuthRoleDeleteRequest { role: own(role) }),
        AuthAsk::RoleGrant(name, perm_type, key, end) => {
            let perm = Some(Permission { perm_type, key: bytes(key), range_end: bytes(end) });
            auth!(role_grant_permission, pb::AuthRoleGrantPermissionRequest { name: own(name), perm })
        }
        AuthAsk::RoleGrantNothing(name) => {
            auth!(role_grant_permission, pb::AuthRoleGrantPermissionRequest { name: own(name), perm: None })
        }
        AuthAsk::RoleRevoke(role, key, end) => {
            let (key, range_end) = (bytes(key), bytes(end));
            auth!(
                role_revoke_permission,
                pb::AuthRoleRevokePermissionRequest { role: own(role), key, range_end }
            )
        }
        AuthAsk::Watch(key, end) => watch(server, key, end).await,
    }
}

/// Letters, a dot, digits: the rest is chance.
fn shape(token: &str) -> String {
    let (letters, digits) = token.split_once('.').unwrap_or_default();
    let sound =
        letters.bytes().all(|b| b.is_ascii_alphabetic()) && digits.bytes().all(|b| b.is_ascii_digit());
    format!("{} letters, sound {sound}", letters.len())
}

pub async fn login(server: &mut Server, name: &str, password: &str) -> String {
    let request = pb::AuthenticateRequest { name: name.to_owned(), password: password.to_owned() };
    server.token.clear();
    match AuthClient::new(server.channel.clone()).authenticate(request).await {
        Ok(answer) => {
            server.token = answer.into_inner().token;
            shape(&server.token)
        }
        Err(status) => told::<()>(Err(status)),
    }
}

async fn watch(server: &mut Server, key: &str, end: &str) -> String {
    let create = pb::WatchCreateRequest { key: bytes(key), range_end: bytes(end), ..Default::default() };
    let request = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    let requests = tokio_stream::iter([request]).chain(tokio_stream::pending());
    let frames = WatchClient::new(server.channel.clone()).watch(server.request(requests)).await;
    match frames {
        Err(status) => told::<()>(Err(status)),
        Ok(frames) => {
            let first = frames.into_inner().next().await.expect("a frame");
            told(first.map(|mut frame| {
                plain(server, &mut frame.header);
                frame
            }))
        }
    }
}

#[tokio::test]
#[ignore = "needs a real etcd to compare with: set ETCD_BIN"]
async fn authorization_off() {
    use AuthAsk::*;
    let asks = [
        Status,
        Enable,
        Disable,
        Authenticate("u", "p"),
        UserAdd("", "p"),
        UserGet("u"),
        UserList,
        UserDelete("u"),
        UserChangePassword("u", "p"),
        UserGrantRole("u", "r"),
        UserRevokeRole("u", "r"),
        RoleAdd(""),
        RoleGet("r"),
        RoleList,
        RoleDelete("r"),
        RoleGrant("r", READ, "k", ""),
        RoleGrantNothing("r"),
        RoleRevoke("r", "k", ""),
        Status,
        UserAdd("root", "pw"),
        UserAdd("root", "pw"),
        Status,
        Enable,
        RoleAdd("root"),
        RoleAdd("root"),
        RoleGet("root"),
        UserGrantRole("root", "root"),
        UserGrantRole("root", "root"),
        UserAddBare("n"),
        UserGrantRole("n", "nosuch"),
        UserGet("root"),
        UserGet("n"),
        UserChangePassword("n", "now"),
        RoleAdd("r"),
        RoleGrant("r", READ, "b", ""),
        RoleGrant("r", WRITE, "a", "c"),
        RoleGrant("r", READ, "b", "d"),
        RoleGrant("r", READ_WRITE, "b", "d"),
        RoleGrant("r", READ_WRITE, "b", ""),
        RoleGrant("r", WRITE, "x", "\0"),
        RoleGrant("r", 7, "y", ""),
        RoleGet("r"),
        RoleRevoke("r", "b", "d"),
        RoleRevoke("r", "b", "d"),
        RoleGet("r"),
        UserGrantRole("n", "r"),
        UserRevokeRole("n", "root"),
        RoleDelete("r"),
        UserGet("n"),
        UserList,
        RoleList,
        UserDelete("n"),
        UserDelete("root"),
        Enable,
        Status,
    ];
    replay(10, asks.map(|ask| Ask::Auth(ask).into()).to_vec()).await;
}

fn reads(key: &str, end: &str) -> Ask {
    Ask::Range(range(key, end))
}

fn op(request: Op) -> RequestOp {
    RequestOp { request: Some(request) }
}

/// `root`, and `u` who reads [a, e) and from z on, writes [b, d), and has k; authorization is on.
fn users() -> Vec<Call> {
    use AuthAsk::*;
    let asks = [
        UserAdd("root", "pw"),
        UserGrantRole("root", "root"),
        UserAdd("u", "p"),
        UserAdd("e", ""),
        UserAddBare("n"),
        RoleAdd("r"),
        UserGrantRole("u", "r"),
        RoleGrant("r", READ, "a", "c"),
        RoleGrant("r", READ, "c", "e"),
        RoleGrant("r", WRITE, "b", "d"),
        RoleGrant("r", READ, "z", "\0"),
        RoleGrant("r", READ_WRITE, "k", ""),
        Enable,
    ];
    let puts = [put("a", "1"), put("q", "1"), put("z", "1")].map(Call::from);
    puts.into_iter().chain(asks.map(|ask| Ask::Auth(ask).into())).collect()
}

#[tokio::test]
#[ignore = "needs a real etcd to compare with: set ETCD_BIN"]
async fn what_users_may_do_with_keys() {
    let prev = |key: &str| Ask::Put(pb::PutRequest { prev_kv: true, ..put_of(key, "2") });
    let prev_delete =
        |key: &str, end: &str| Ask::Delete(pb::DeleteRangeRequest { prev_kv: true, ..delete_of(key, end) });
    let leased = |key: &str, lease| Ask::Put(pb::PutRequest { lease, ..put_of(key, "2") });
    let serializable = |key: &str| Ask::Range(RangeRequest { serializable: true, ..range(key, "") });
    let denied = "ERR PermissionDenied \"etcdserver: permission denied\"";
    let nested = |key: &str| {
        let inner = TxnRequest { success: vec![p(key, "5")], ..Default::default() };
        then(vec![op(Op::RequestTxn(inner))])
    };
    let txn = |success, failure| Ask::Txn(TxnRequest { success, failure, ..Default::default() });
    let read = |key: &str| op(Op::RequestRange(range(key, "")));
    let mut calls = users();
    calls.extend([
        get("a").note("nobody"),
        put("a", "2").note("nobody"),
        serializable("a").note("nobody"),
        Ask::Login("u", "wrong").into(),
        Ask::Login("u", "p").into(),
        reads("a", "e").note("two that touch"),
        reads("a", "f").into(),
        reads("zz", "").into(),
        reads("z", "\0").note("open"),
        reads("y", "\0").into(),
        reads("\0", "\0").note("everything"),
        reads("c", "b").note("no key at all"),
        serializable("q").into(),
        put("b", "1").into(),
        put("a", "1").note("read only"),
        prev("k").into(),
        prev("bz").into(),
        prev_delete("b", "d").into(),
        delete("b", "e").into(),
        then(vec![p("b", "3"), read("a")]).into(),
        then(vec![p("b", "3"), read("q")]).into(),
        txn(vec![p("b", "3")], vec![p("q", "3")]).note("the branch that is not taken"),
        txn(vec![read("a")], vec![read("q")]).note("reads alone"),
        nested("b").into(),
        Ask::Auth(AuthAsk::Watch("a", "e")).into(),
        Ask::Auth(AuthAsk::Watch("z", "\0")).into(),
        Ask::Grant(LeaseGrantRequest { id: 7, ttl: 100 }).into(),
        leased("b", 7).into(),
        Ask::TimeToLive(LeaseTimeToLiveRequest { id: 7, keys: true }).into(),
        Ask::KeepAlive(vec![7]).into(),
        Ask::Login("root", "pw").into(),
        leased("q", 7).into(),
        Ask::Leases.into(),
        Ask::Login("u", "p").into(),
        leased("b", 7).note("it holds q"),
        Ask::Revoke(7).into(),
        Ask::TimeToLive(LeaseTimeToLiveRequest { id: 7, keys: false }).into(),
        Ask::TimeToLive(LeaseTimeToLiveRequest { id: 7, keys: true }).late("since 3.5.8", denied),
        Ask::KeepAlive(vec![7]).late("since 3.5.29", denied),
        Ask::Turns(Turns::Lock("k", 7)).note("a key beside k"),
        Ask::Token("nonsense").into(),
        get("a").into(),
        put("b", "1").into(),
        Ask::Login("root", "pw").into(),
        Ask::Revoke(7).into(),
        reads("\0", "\0").into(),
        Ask::Auth(AuthAsk::Watch("\0", "\0")).into(),
        compact(3, false).into(),
    ]);
    replay(17, calls).await;
}

#[tokio::test]
#[ignore = "needs a real etcd to compare with: set ETCD_BIN"]
async fn what_users_may_do_with_users() {
    use AuthAsk::*;
    let unnamed = "ERR InvalidArgument \"etcdserver: user name is empty\"";
    let denied = "ERR PermissionDenied \"etcdserver: permission denied\"";
    let alarm = |action| Ask::Alarm(pb::AlarmRequest { action, ..Default::default() });
    let mut calls = users();
    let by_nobody =
        [Enable, Status, UserGet("u"), RoleGet("r"), UserList, RoleList, UserAdd("x", "x"), Disable];
    calls.extend(by_nobody.map(|ask| Ask::Auth(ask).into()));
    calls.extend([
        Ask::Status.late("since 3.5.29", unnamed),
        Ask::MemberList(true).late("since 3.5.28", unnamed),
        alarm(0).late("since 3.5.29", unnamed),
        Ask::Grant(LeaseGrantRequest { id: 9, ttl: 100 }).late("since 3.5.28", unnamed),
        Ask::Leases.late("since 3.5.28", unnamed),
        Ask::HashKv(0).into(),
        Ask::Hash.into(),
        Ask::Defragment.into(),
        Ask::Snapshot.into(),
        Ask::MemberAdd(vec!["http://1.2.3.4:5"]).into(),
        Ask::Login("u", "p").into(),
        Ask::Status.into(),
        Ask::MemberList(false).into(),
        alarm(0).into(),
        alarm(2).late("since 3.5.29", denied),
        Ask::HashKv(0).into(),
        Ask::Hash.into(),
        Ask::Defragment.into(),
        Ask::Snapshot.into(),
        Ask::MemberAdd(vec!["http://1.2.3.4:5"]).into(),
        Ask::MemberRemove(5).into(),
        Ask::MemberUpdate(5, vec!["http://1.2.3.4:5"]).into(),
        Ask::MemberPromote(5).into(),
    ]);
    let by_user = [
        Enable,
        Status,
        UserGet("u"),
        UserGet("root"),
        UserGet("nosuch"),
        RoleGet("r"),
        RoleGet("root"),
        UserList,
        RoleList,
        UserAdd("x", "x"),
        UserChangePassword("u", "p2"),
        RoleGrant("r", WRITE, "q", ""),
        Authenticate("e", ""),
        Authenticate("e", "x"),
        Authenticate("n", ""),
        Authenticate("nosuch", "x"),
        Authenticate("", ""),
    ];
    calls.extend(by_user.map(|ask| Ask::Auth(ask).into()));
    calls.push(Ask::Login("root", "pw").into());
    let by_root = [
        Enable,
        Status,
        UserGet("u"),
        UserGet("nosuch"),
        RoleGet("root"),
        UserDelete("root"),
        UserRevokeRole("root", "root"),
        RoleDelete("root"),
        RoleRevoke("r", "zz", ""),
        RoleGrantNothing("r"),
        UserAdd("later", "x"),
        Status,
    ];
    calls.extend(by_root.map(|ask| Ask::Auth(ask).into()));
    let invalid = "ERR InvalidArgument \"etcdserver: invalid auth management\"";
    calls.extend([
        get("a").note("the token outlives a change"),
        Ask::Login("u", "p").into(),
        get("q").note("not yet"),
        Ask::Auth(UserChangePassword("u", "p2")).into(),
        Ask::Login("root", "pw").into(),
        Ask::Auth(RoleGrant("r", READ, "q", "")).into(),
        Ask::Auth(UserChangePassword("u", "p3")).into(),
        Ask::Login("u", "p").note("its old password"),
        Ask::Login("u", "p3").into(),
        get("q").note("since it was granted"),
        Ask::Login("root", "pw").into(),
        Ask::Auth(RoleDelete("r")).into(),
        Ask::Auth(UserGet("u")).into(),
        Ask::Login("u", "p3").into(),
        get("q").into(),
        Ask::Login("root", "pw").into(),
        Ask::Auth(UserDelete("u")).into(),
        Ask::Auth(Status).into(),
        Ask::Auth(Disable).into(),
        Ask::Token("").into(),
        Ask::Auth(Disable).into(),
        Ask::Auth(Status).into(),
        Ask::Auth(Authenticate("u", "p")).into(),
        get("q").into(),
        Ask::Auth(RoleAdd("s")).into(),
        Ask::Auth(RoleGrant("s", READ, "b", "a")).late("since 3.5.8", invalid),
        Ask::Auth(RoleGrant("s", READ, "", "")).late("since 3.5.8", invalid),
    ]);
    replay(18, calls).await;
}
