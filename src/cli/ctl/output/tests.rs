//! Printers against etcdctl 3.5.1's recorded output: the reply is decoded from the recorded protobuf.

use prost::Message;

use super::*;

/// A recorded answer of `-w protobuf`.
fn decode<M: Message + Default>(base64: &str) -> M {
    use base64::{Engine, engine::general_purpose::STANDARD};
    M::decode(STANDARD.decode(base64).expect("base64").as_slice()).expect("a message")
}

fn text(format: Format, reply: &Reply) -> String {
    String::from_utf8(printer(format, false).print(reply).expect("a form").out).expect("text")
}

const RANGE: &str = "ChkIlq+HnZ+N6KIcEOzUge6gpt2PtwEYGiACEhEKBS9hL2sxEBQYFCABKgJ2MRIRCgUvYS9rMhAVGBUgASoCdjISEQoFL2EvazMQFhgWIAEqAnYzEhEKBS9hL2s0EBcYFyABKgJ2NBIRCgUvYS9rNRAYGBggASoCdjUgBQ==";
const PUT: &str = "ChkIlq+HnZ+N6KIcEOzUge6gpt2PtwEYCiACEhEKA2ZvbxACGAkgCCoEYmFyOA==";
const TXN: &str = "ChkIlq+HnZ+N6KIcEOzUge6gpt2PtwEYDiACEAEaBgoECgIYDRoWEhQKAhgOEg4KAnkxEAsYDSADKgJ2MRoGEgQKAhgOGgYaBAoCGA4aIAoeCgIYDhIKCgJ5MRALGA4gBBIKCgJ5MhALGA4gBCAC";
const MEMBERS: &str = "ChgI3Obs7di59KuaARDHvNP0z/aA/b4BIAISQgiKwOGRr67o1w0SBmluZnJhMxoWaHR0cDovLzEyNy4wLjAuMTozMjM4MCIWaHR0cDovLzEyNy4wLjAuMTozMjM3ORJCCOv35vyTgertYxIGaW5mcmEyGhZodHRwOi8vMTI3LjAuMC4xOjIyMzgwIhZodHRwOi8vMTI3LjAuMC4xOjIyMzc5EkMIx7zT9M/2gP2+ARIGaW5mcmExGhZodHRwOi8vMTI3LjAuMC4xOjEyMzgwIhZodHRwOi8vMTI3LjAuMC4xOjEyMzc5";
const ALARMS: &str = "ChkIlq+HnZ+N6KIcEOzUge6gpt2PtwEYCyACEg0I7NSB7qCm3Y+3ARAB";
const DELETED: &str = "ChkIlq+HnZ+N6KIcEOzUge6gpt2PtwEYPCACWhkIARIGCgJ3MRg8Gg0KAncxEDkYOiACKgFi";

fn get() -> Reply {
    Reply::Get { response: decode(RANGE), value_only: false }
}

#[test]
fn protobuf_is_what_came() {
    use base64::{Engine, engine::general_purpose::STANDARD};
    for (recorded, reply) in [
        (RANGE, get()),
        (PUT, Reply::Put(decode(PUT))),
        (TXN, Reply::Txn(decode(TXN))),
        (MEMBERS, Reply::MemberList(decode(MEMBERS))),
        (ALARMS, Reply::Alarms(decode(ALARMS))),
        (DELETED, Reply::Watch(decode(DELETED))),
    ] {
        let printed = printer(Format::Protobuf, false).print(&reply).expect("bytes");
        assert_eq!(STANDARD.encode(printed.out), recorded);
    }
}

#[test]
fn simple_ranges() {
    assert_eq!(text(Format::Simple, &get()), "/a/k1\nv1\n/a/k2\nv2\n/a/k3\nv3\n/a/k4\nv4\n/a/k5\nv5\n");
    let values = Reply::Get { response: decode(RANGE), value_only: true };
    assert_eq!(text(Format::Simple, &values), "v1\nv2\nv3\nv4\nv5\n");
    let hex = printer(Format::Simple, true).print(&get()).expect("a form").out;
    assert!(hex.starts_with(b"\\x2f\\x61\\x2f\\x6b\\x31\n\\x76\\x31\n"));
}

#[test]
fn json_ranges_and_transactions() {
    assert!(text(Format::Json, &get()).starts_with(
        r#"{"header":{"cluster_id":2037210783374497686,"member_id":13195394291058371180,"revision":26,"raft_term":2},"kvs":[{"key":"L2EvazE=","create_revision":20,"mod_revision":20,"version":1,"value":"djE="},{"#
    ));
    assert_eq!(
        text(Format::Json, &Reply::Txn(decode(TXN))),
        concat!(
            r#"{"header":{"cluster_id":2037210783374497686,"member_id":13195394291058371180,"revision":14,"raft_term":2},"#,
            r#""succeeded":true,"responses":[{"Response":{"response_range":{"header":{"revision":13}}}},"#,
            r#"{"Response":{"response_put":{"header":{"revision":14},"prev_kv":{"key":"eTE=","create_revision":11,"mod_revision":13,"version":3,"value":"djE="}}}},"#,
            r#"{"Response":{"response_put":{"header":{"revision":14}}}},{"Response":{"response_delete_range":{"header":{"revision":14}}}},"#,
            r#"{"Response":{"response_range":{"header":{"revision":14},"kvs":[{"key":"eTE=","create_revision":11,"mod_revision":14,"version":4},"#,
            r#"{"key":"eTI=","create_revision":11,"mod_revision":14,"version":4}],"count":2}}}]}"#,
            "\n"
        )
    );
}

#[test]
fn transactions_and_previous_values() {
    assert_eq!(
        text(Format::Simple, &Reply::Txn(decode(TXN))),
        "SUCCESS\n\n\nOK\ny1\nv1\n\nOK\n\n0\n\ny1\n\ny2\n\n"
    );
    assert_eq!(
        text(Format::Fields, &Reply::Put(decode(PUT))),
        "\"ClusterID\" : 2037210783374497686\n\"MemberID\" : 13195394291058371180\n\"Revision\" : 10\n\"RaftTerm\" : 2\n\
         \"PrevKey\" : \"foo\"\n\"PrevCreateRevision\" : 2\n\"PrevModRevision\" : 9\n\"PrevVersion\" : 8\n\
         \"PrevValue\" : \"bar8\"\n\"PrevLease\" : 0\n"
    );
}

#[test]
fn events() {
    let reply = Reply::Watch(decode(DELETED));
    assert_eq!(text(Format::Simple, &reply), "DELETE\nw1\nb\nw1\n\n");
    assert_eq!(
        text(Format::Json, &reply),
        concat!(
            r#"{"Header":{"cluster_id":2037210783374497686,"member_id":13195394291058371180,"revision":60,"raft_term":2},"#,
            r#""Events":[{"type":1,"kv":{"key":"dzE=","mod_revision":60},"prev_kv":{"key":"dzE=","create_revision":57,"mod_revision":58,"version":2,"value":"Yg=="}}],"#,
            r#""CompactRevision":0,"Canceled":false,"Created":false}"#,
            "\n"
        )
    );
}

#[test]
fn members() {
    let reply = Reply::MemberList(decode(MEMBERS));
    assert_eq!(
        text(Format::Simple, &reply),
        "dafa172f238600a, started, infra3, http://127.0.0.1:32380, http://127.0.0.1:32379, false\n\
         63dba8093f99bbeb, started, infra2, http://127.0.0.1:22380, http://127.0.0.1:22379, false\n\
         befa03b4fe94de47, started, infra1, http://127.0.0.1:12380, http://127.0.0.1:12379, false\n"
    );
    assert_eq!(
        text(Format::Table, &reply),
        "\
+------------------+---------+--------+------------------------+------------------------+------------+
|        ID        | STATUS  |  NAME  |       PEER ADDRS       |      CLIENT ADDRS      | IS LEARNER |
+------------------+---------+--------+------------------------+------------------------+------------+
|  dafa172f238600a | started | infra3 | http://127.0.0.1:32380 | http://127.0.0.1:32379 |      false |
| 63dba8093f99bbeb | started | infra2 | http://127.0.0.1:22380 | http://127.0.0.1:22379 |      false |
| befa03b4fe94de47 | started | infra1 | http://127.0.0.1:12380 | http://127.0.0.1:12379 |      false |
+------------------+---------+--------+------------------------+------------------------+------------+
"
    );
    let hex = printer(Format::Json, true).print(&reply).expect("a form").out;
    assert!(hex.starts_with(
        br#"{"header":{"cluster_id":"9a57d1cd8dbb335c","member_id":"befa03b4fe94de47","raft_term":2},"members":[{"ID":"dafa172f238600a","name":"infra3","peerURLs":["http://127.0.0.1:32380"],"clientURLS":["http://127.0.0.1:32379"]},"#
    ));
}

#[test]
fn alarms() {
    let reply = Reply::Alarms(decode(ALARMS));
    assert_eq!(text(Format::Simple, &reply), "memberID:13195394291058371180 alarm:NOSPACE \n");
    assert!(
        text(Format::Json, &reply)
            .ends_with(",\"alarms\":[{\"memberID\":13195394291058371180,\"alarm\":1}]}\n")
    );
    assert!(
        text(Format::Fields, &reply)
            .ends_with("\"MemberID\" : 13195394291058371180\n\"AlarmType\" : NOSPACE\n\n")
    );
    assert_eq!(text(Format::Json, &Reply::Alarms(pb::AlarmResponse::default())), "{}\n");
}

#[test]
fn leases() {
    let header = Some(pb::ResponseHeader { cluster_id: 1, member_id: 2, revision: 3, raft_term: 4 });
    let grant = Reply::Grant(pb::LeaseGrantResponse { header, id: 0x1234, ttl: 10, error: String::new() });
    assert_eq!(text(Format::Simple, &grant), "lease 0000000000001234 granted with TTL(10s)\n");
    assert_eq!(
        text(Format::Json, &grant),
        "{\"cluster_id\":1,\"member_id\":2,\"revision\":3,\"raft_term\":4,\"ID\":4660,\"TTL\":10,\"Error\":\"\"}\n"
    );
    let keys = vec!["lk1".into(), "lk2".into()];
    let left = pb::LeaseTimeToLiveResponse { header, id: 0x1234, ttl: 99, granted_ttl: 100, keys };
    let left = Reply::TimeToLive(left, true);
    assert_eq!(
        text(Format::Simple, &left),
        "lease 0000000000001234 granted with TTL(100s), remaining(99s), attached keys([lk1 lk2])\n"
    );
    assert!(
        text(Format::Json, &left)
            .ends_with("\"id\":4660,\"ttl\":99,\"granted-ttl\":100,\"keys\":[\"bGsx\",\"bGsy\"]}\n")
    );
    let gone = pb::LeaseTimeToLiveResponse { header, id: 0x1234, ttl: -1, ..Default::default() };
    let gone = Reply::TimeToLive(gone, false);
    assert_eq!(text(Format::Simple, &gone), "lease 0000000000001234 already expired\n");
    assert!(text(Format::Json, &gone).ends_with("\"ttl\":-1,\"granted-ttl\":0,\"keys\":null}\n"));
    let revoked = Reply::Revoke(0x1234, pb::LeaseRevokeResponse { header });
    assert_eq!(
        printer(Format::Protobuf, false).print(&revoked),
        Err(Unsupported(
            "marshal unsupported for type clientv3.LeaseRevokeResponse ({cluster_id:1 member_id:2 revision:3 raft_term:4  {} [] 0})"
                .into()
        ))
    );
}

#[test]
fn endpoints() {
    let header = Some(pb::ResponseHeader { cluster_id: 1, member_id: 0xb71f, revision: 45, raft_term: 2 });
    let status = pb::StatusResponse {
        header,
        version: "3.5.1".into(),
        db_size: 32_768,
        leader: 0xb71f,
        raft_index: 108,
        raft_term: 2,
        raft_applied_index: 108,
        db_size_in_use: 24_576,
        ..Default::default()
    };
    let reply = Reply::Status(vec![("127.0.0.1:2379".into(), status)]);
    assert_eq!(
        text(Format::Simple, &reply),
        "127.0.0.1:2379, b71f, 3.5.1, 33 kB, true, false, 2, 108, 108, \n"
    );
    assert!(text(Format::Json, &reply).contains(
        r#""version":"3.5.1","dbSize":32768,"leader":46879,"raftIndex":108,"raftTerm":2,"raftAppliedIndex":108,"dbSizeInUse":24576}}]"#
    ));
    assert!(text(Format::Fields, &reply).ends_with("\"Errors\" : []\n\"Endpoint\" : \"127.0.0.1:2379\"\n\n"));
    let took = Duration::from_nanos(2_390_185);
    let well = Health { endpoint: "a:1".into(), took, error: None };
    let ill = Health { endpoint: "b:1".into(), took, error: Some("context deadline exceeded".into()) };
    let reply = Reply::Health(vec![well, ill]);
    let printed = printer(Format::Simple, false).print(&reply).expect("a form");
    assert_eq!(printed.out, b"a:1 is healthy: successfully committed proposal: took = 2.390185ms\n");
    assert_eq!(printed.err, "b:1 is unhealthy: failed to commit proposal: context deadline exceeded\n");
    assert_eq!(
        text(Format::Json, &reply),
        concat!(
            r#"[{"endpoint":"a:1","health":true,"took":"2.390185ms"},"#,
            r#"{"endpoint":"b:1","health":false,"took":"2.390185ms","error":"context deadline exceeded"}]"#,
            "\n"
        )
    );
}

#[test]
fn what_a_format_has_no_form_for() {
    for (format, reply, name) in [
        (Format::Table, get(), "table"),
        (Format::Fields, Reply::MoveLeader(1, 2, pb::MoveLeaderResponse::default()), "fields"),
        (Format::Protobuf, Reply::Health(Vec::new()), "protobuf"),
    ] {
        let expect = Unsupported(format!("{name} not supported as output format"));
        assert_eq!(printer(format, false).print(&reply), Err(expect));
    }
}
