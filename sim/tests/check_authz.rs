//! The oracle for authorization.

mod support;

use kontiki::{
    error::Refusal,
    wire::{authpb, etcdserverpb as pb},
};
use sim::history::{Applied, Boot, Call, LogFact, Micros, Reply, Up};
use support::*;

/// A history whose calls come one after the other, ten microseconds each.
struct Story {
    tale: Tale,
    at: u64,
}

impl Story {
    fn step(&mut self) -> (u64, u64) {
        self.at += 20;
        (self.at, self.at + 10)
    }

    fn by(&mut self, user: Option<&str>) {
        self.tale.history.ops.last_mut().expect("there was a call").user = user.map(str::to_owned);
    }

    fn ok(&mut self, user: Option<&str>, call: impl Into<Call>, reply: impl Into<Reply>) -> &mut Self {
        let span = self.step();
        self.tale.ok(span, call, reply);
        self.by(user);
        self
    }

    fn refused(&mut self, user: Option<&str>, call: impl Into<Call>, why: Refusal) -> &mut Self {
        let span = self.step();
        self.tale.refused(span, call, why);
        self.by(user);
        self
    }

    fn open(&mut self, user: Option<&str>, call: impl Into<Call>) -> &mut Self {
        let (start, _) = self.step();
        self.tale.open(start, call);
        self.by(user);
        self
    }

    fn root(&mut self, call: impl Into<Call>, reply: impl Into<Reply>) -> &mut Self {
        self.ok(Some("root"), call, reply)
    }

    fn log_in(&mut self, user: &str, password: &str) -> &mut Self {
        let request = pb::AuthenticateRequest { name: user.to_owned(), password: password.to_owned() };
        let token = "abcdefghijklmnop.12".to_owned();
        self.ok(None, request, pb::AuthenticateResponse { header: header(1), token })
    }
}

fn add_user(name: &str, password: &str) -> pb::AuthUserAddRequest {
    let (name, password) = (name.to_owned(), password.to_owned());
    pb::AuthUserAddRequest { name, password, ..Default::default() }
}

fn grant_role(user: &str, role: &str) -> pb::AuthUserGrantRoleRequest {
    pb::AuthUserGrantRoleRequest { user: user.to_owned(), role: role.to_owned() }
}

fn permit(role: &str, (key, end): (&str, &str), access: i32) -> pb::AuthRoleGrantPermissionRequest {
    let perm = authpb::Permission { perm_type: access, key: bytes(key), range_end: bytes(end) };
    pb::AuthRoleGrantPermissionRequest { name: role.to_owned(), perm: Some(perm) }
}

fn forbid(role: &str, (key, end): (&str, &str)) -> pb::AuthRoleRevokePermissionRequest {
    pb::AuthRoleRevokePermissionRequest { role: role.to_owned(), key: bytes(key), range_end: bytes(end) }
}

fn status(revision: u64) -> pb::AuthStatusResponse {
    pb::AuthStatusResponse { header: header(1), enabled: true, auth_revision: revision }
}

/// Revision 8: root, and u1, who may write a to before c, and read a. It is on.
fn story() -> Story {
    let mut story = Story { tale: Tale::new(), at: 0 };
    story
        .ok(None, add_user("root", "r"), pb::AuthUserAddResponse::default())
        .ok(None, grant_role("root", "root"), pb::AuthUserGrantRoleResponse::default())
        .ok(None, pb::AuthRoleAddRequest { name: "r1".into() }, pb::AuthRoleAddResponse::default())
        .ok(None, permit("r1", ("a", "c"), 1), pb::AuthRoleGrantPermissionResponse::default())
        .ok(None, permit("r1", ("aa", ""), 2), pb::AuthRoleGrantPermissionResponse::default())
        .ok(None, add_user("u1", "p"), pb::AuthUserAddResponse::default())
        .ok(None, grant_role("u1", "r1"), pb::AuthUserGrantRoleResponse::default())
        .ok(None, pb::AuthEnableRequest {}, pb::AuthEnableResponse::default());
    story
}

const U1: Option<&str> = Some("u1");

#[test]
fn right_decisions_pass() {
    let mut story = story();
    story
        .root(pb::AuthStatusRequest {}, status(8))
        .log_in("u1", "p")
        .ok(U1, put("a", "1"), done_put(2))
        .ok(U1, put("b", "1"), done_put(3))
        .ok(U1, put("aa", "1"), done_put(4))
        .ok(U1, get("aa"), found(4, vec![kv("aa", "1", (4, 4, 1))]))
        .refused(U1, put("c", "1"), Refusal::PermissionDenied)
        .refused(U1, get("a"), Refusal::PermissionDenied)
        .refused(U1, all(), Refusal::PermissionDenied)
        .refused(U1, pb::AuthUserListRequest {}, Refusal::PermissionDenied)
        .refused(None, get("a"), Refusal::UserEmpty)
        .root(forbid("r1", ("a", "c")), pb::AuthRoleRevokePermissionResponse::default())
        .refused(U1, put("a", "2"), Refusal::AuthOldRevision)
        .refused(U1, put("a", "2"), Refusal::PermissionDenied)
        .root(pb::AuthStatusRequest {}, status(9))
        // Nobody knows whether it was done, until the revision says that it was not.
        .open(Some("root"), permit("r1", ("a", "c"), 1))
        .refused(U1, put("a", "2"), Refusal::PermissionDenied)
        .root(pb::AuthStatusRequest {}, status(9))
        .root(pb::AuthStatusRequest {}, status(10))
        .ok(U1, put("a", "2"), done_put(5))
        .root(pb::AuthUserDeleteRequest { name: "u1".into() }, pb::AuthUserDeleteResponse::default())
        .refused(U1, get("aa"), Refusal::InvalidAuthToken)
        .root(pb::AuthDisableRequest {}, pb::AuthDisableResponse::default())
        .ok(None, get("zz"), found(5, vec![]));
    right(&story.tale);
}

#[test]
fn nobody_gets_what_is_not_permitted() {
    let mut ahead = story();
    ahead.ok(U1, put("c", "1"), done_put(2));
    wrong(&ahead.tale, "authz/permitted", "u1 was not permitted to write \"c\"");
    let mut over = story();
    over.ok(U1, get("a"), found(1, vec![]));
    wrong(&over.tale, "authz/permitted", "to read \"a\"");
    let mut nobody = story();
    nobody.ok(None, get("aa"), found(1, vec![]));
    wrong(&nobody.tale, "authz/permitted", "nobody was not permitted");
    let mut admin = story();
    admin.ok(U1, add_user("u2", "x"), pb::AuthUserAddResponse::default());
    wrong(&admin.tale, "authz/permitted", "to act as root");
    let mut nested = story();
    let inner = pb::TxnRequest {
        success: vec![pb::RequestOp { request: Some(pb::request_op::Request::RequestPut(put("z", "1"))) }],
        ..Default::default()
    };
    let outer = pb::TxnRequest {
        failure: vec![pb::RequestOp { request: Some(pb::request_op::Request::RequestTxn(inner)) }],
        ..Default::default()
    };
    nested.ok(U1, outer, pb::TxnResponse { header: header(1), succeeded: true, responses: vec![] });
    wrong(&nested.tale, "authz/permitted", "to write \"z\"");
    let mut before = story();
    before.ok(U1, pb::PutRequest { prev_kv: true, ..put("b", "1") }, done_put(2));
    wrong(&before.tale, "authz/permitted", "to read \"b\"");
}

#[test]
fn what_was_taken_away_is_gone() {
    let mut story = story();
    story.root(forbid("r1", ("a", "c")), pb::AuthRoleRevokePermissionResponse::default()).ok(
        U1,
        put("a", "1"),
        done_put(2),
    );
    wrong(&story.tale, "authz/permitted", "to write \"a\"");
}

/// A renewal is judged by what its member has applied: it may not know of the newest keys.
#[test]
fn keys_of_leases_that_are_renewed_are_those_that_the_member_knew() {
    let granted = || pb::LeaseGrantResponse { header: header(1), id: 7, ttl: 9, error: String::new() };
    let renewed = || pb::LeaseKeepAliveResponse { header: header(1), id: 7, ttl: 9 };
    let renew = pb::LeaseKeepAliveRequest { id: 7 };
    let mut since = story();
    since.root(pb::LeaseGrantRequest { id: 7, ttl: 9 }, granted()).log_in("u1", "p");
    since.root(leased("z", "1", 7), done_put(2)).ok(U1, renew, renewed());
    right(&since.tale);
    let mut before = story();
    before.root(pb::LeaseGrantRequest { id: 7, ttl: 9 }, granted());
    before.root(leased("z", "1", 7), done_put(2));
    before.log_in("u1", "p").ok(U1, renew, renewed());
    wrong(&before.tale, "authz/permitted", "u1 was not permitted to write \"z\"");
}

#[test]
fn keys_of_leases_are_keys() {
    let mut story = story();
    let granted = pb::LeaseGrantResponse { header: header(1), id: 7, ttl: 9, error: String::new() };
    story
        .root(pb::LeaseGrantRequest { id: 7, ttl: 9 }, granted)
        .root(leased("z", "1", 7), done_put(2))
        .log_in("u1", "p")
        .refused(U1, pb::LeaseRevokeRequest { id: 7 }, Refusal::PermissionDenied);
    right(&story.tale);
    let told = pb::LeaseTimeToLiveResponse {
        header: header(2),
        id: 7,
        ttl: 9,
        granted_ttl: 9,
        keys: vec![bytes("z")],
    };
    let mut asked = Story { tale: story.tale.clone(), at: story.at };
    asked.ok(U1, pb::LeaseTimeToLiveRequest { id: 7, keys: true }, told);
    wrong(&asked.tale, "authz/permitted", "to read \"z\"");
    let mut hung = Story { tale: story.tale.clone(), at: story.at };
    hung.ok(U1, leased("a", "1", 7), done_put(3));
    wrong(&hung.tale, "authz/permitted", "to write \"z\"");
}

/// The member has applied up to an index.
fn applied(at: u64, index: u64) -> Applied {
    let (node, incarnation, term) = (1, 0, 1);
    Applied { at: Micros(at), node, incarnation, index, term, hash: None, revision: None, snapshot: false }
}

#[test]
fn nobody_is_denied_what_is_permitted() {
    let mut story = story();
    story.refused(U1, put("b", "1"), Refusal::PermissionDenied);
    wrong(&story.tale, "authz/denied", "u1 was permitted all of it");
    let mut root = self::story();
    root.log_in("root", "r");
    root.refused(Some("root"), pb::MemberPromoteRequest { id: 3 }, Refusal::PermissionDenied);
    wrong(&root.tale, "authz/denied", "root was permitted");
    let mut old = self::story();
    old.refused(U1, put("b", "1"), Refusal::AuthOldRevision);
    right(&old.tale);
    let mut never = Story { tale: Tale::new(), at: 0 };
    never.refused(None, put("b", "1"), Refusal::AuthOldRevision).ok(
        None,
        pb::AuthEnableRequest {},
        pb::AuthEnableResponse::default(),
    );
    wrong(&never.tale, "authz/denied", "and there was none");
    let mut token = self::story();
    token.log_in("root", "r").root(get("a"), found(1, vec![]));
    token.refused(Some("root"), get("a"), Refusal::InvalidAuthToken);
    right(&token.tale);
    token.tale.history.boots.push(Boot::new(Micros(1), 1, 0));
    token.tale.history.applied.push(applied(2, 20));
    wrong(&token.tale, "authz/token", "nothing had ended");
    // It may have come with one that was given long before, and that its client got in this moment.
    let now = token.tale.history.ops.last().expect("it is refused").start.0;
    let request = pb::AuthenticateRequest { name: "root".to_owned(), password: "r".to_owned() };
    let reply = pb::AuthenticateResponse { header: header(1), token: "abcdefghijklmnop.11".to_owned() };
    let mut new = token.tale.clone();
    new.ok((0, now), request, reply);
    right(&new);
    // Another member has taken the place of who knew the token, and answers nothing else.
    let mut replaced = token.tale.clone();
    replaced.history.ups.push(Up { at: Micros(token.at - 5), member: 0, node: 2 });
    right(&replaced);
    token.refused(Some("root"), pb::MemberPromoteRequest { id: 3 }, Refusal::UserEmpty);
    wrong(&token.tale, "authz/nobody", "came from root");
}

#[test]
fn watches_are_permitted_as_a_whole() {
    let open = pb::WatchCreateRequest { key: bytes("aa"), range_end: bytes("\0"), ..Default::default() };
    let one = pb::WatchCreateRequest { key: bytes("aa"), ..Default::default() };
    let with = |create: &pb::WatchCreateRequest, response: pb::WatchResponse| {
        let mut story = story();
        story.log_in("u1", "p");
        let at = story.at + 20;
        story.tale.watch(at, create.clone(), vec![(at + 5, response)]);
        story.tale.history.watches[0].user = Some("u1".to_owned());
        story.tale
    };
    let denied = pb::WatchResponse {
        canceled: true,
        cancel_reason: format!("rpc error: code = PermissionDenied desc = {}", Refusal::PermissionDenied),
        ..created(1)
    };
    right(&with(&one, created(1)));
    right(&with(&open, denied.clone()));
    wrong(&with(&open, created(1)), "authz/watch", "was not permitted to read \"aa\" and all behind it");
    wrong(&with(&one, denied), "authz/watch", "was permitted it all the time");
    // A member that knows that authorization is on, and one that a crash has taken back to before it was.
    let mut known = with(&open, created(1));
    known.history.applied = vec![applied(100, 5), applied(171, 10), applied(172, 11)];
    wrong(&known, "authz/watch", "was not permitted");
    let mut crashed = known.clone();
    let mut boot = Boot::new(Micros(190), 1, 1);
    boot.last = LogFact { term: 1, index: 11 };
    crashed.history.boots.push(boot.clone());
    right(&crashed);
    // The same while the request is on its way.
    boot.at = Micros(known.history.watches[0].start.0 + 2);
    known.history.boots.push(boot);
    right(&known);
}

#[test]
fn passwords_and_answers() {
    let mut wrong_word = story();
    wrong_word.log_in("u1", "q");
    wrong(&wrong_word.tale, "authz/password", "a token for a wrong password");
    let mut right_word = story();
    let request = pb::AuthenticateRequest { name: "u1".into(), password: "p".into() };
    right_word.refused(None, request, Refusal::AuthFailed);
    wrong(&right_word.tale, "authz/password", "refused u1's password");
    let mut off = story();
    let request = pb::AuthenticateRequest { name: "u1".into(), password: "p".into() };
    off.refused(None, request.clone(), Refusal::AuthNotEnabled);
    wrong(&off.tale, "authz/enabled", "as if authorization were off");
    let mut off = story();
    off.root(pb::AuthDisableRequest {}, pb::AuthDisableResponse::default());
    off.refused(None, request, Refusal::AuthNotEnabled);
    right(&off.tale);
    let mut twice = story();
    twice.root(add_user("u1", "p"), pb::AuthUserAddResponse::default());
    wrong(&twice.tale, "authz/answer", "could not be");
    let mut count = story();
    count.root(pb::AuthStatusRequest {}, status(10));
    wrong(&count.tale, "authz/revision", "make it 6 to 9");
    let mut list = story();
    let users = vec!["root".to_owned()];
    list.root(pb::AuthUserListRequest {}, pb::AuthUserListResponse { header: header(1), users });
    wrong(&list.tale, "authz/answer", "does not list u1");
}
