//! Sessions about members, with a cluster of one.

use crate::{
    call::{Ask, Call, SELF},
    replay,
};

#[tokio::test]
#[ignore = "needs a real etcd to compare with: set ETCD_BIN"]
async fn members() {
    let mut calls: Vec<Call> = vec![Ask::MemberList(false).into(), Ask::MemberList(true).into()];
    calls.push(Ask::MemberAdd(vec![]).into());
    calls.extend(
        [
            "x",
            "http://1.2.3.4",
            "http://1.2.3.4:1/path",
            "http://1.2.3.4:1/",
            "ftp://1.2.3.4:1",
            "http://1.2.3.4:x",
            "http://::1:1",
            "//1.2.3.4:1",
            "http//1.2.3.4:1",
            "http://a b:1",
        ]
        .map(|url| Ask::MemberAdd(vec![url]).note("not a peer URL")),
    );
    calls.push(Ask::MemberAdd(vec!["http://1.2.3.4:1", "x"]).into());
    calls.extend([
        Ask::MemberRemove(5).into(),
        Ask::MemberUpdate(5, vec!["http://1.2.3.4:5"]).into(),
        Ask::MemberPromote(5).into(),
        Ask::MemberPromote(SELF).late(
            "a voter: 3.5.1 leaves it unanswered here",
            "ERR FailedPrecondition \"etcdserver: can only promote a learner member\"",
        ),
        Ask::MemberRemove(SELF).note("the only one"),
        Ask::MemberList(true).into(),
        Ask::MemberUpdate(SELF, vec![]).note("without URLs"),
    ]);
    replay(7, calls).await;
}
