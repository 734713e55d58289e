//! Members that come back by a snapshot, are replaced, join as learners, or are left alone.

use std::{fs, path::Path, sync::Arc};

use kontiki::wire::etcdserverpb as pb;

use super::{
    cluster::{Cluster, Contact, Site, retried},
    verify,
};

/// Snapshots come so early that a member that was away for [`MANY`] writes needs one.
const OPTIONS: [&str; 4] = ["--snapshot-count", "50", "--experimental-snapshot-catchup-entries", "10"];
const MANY: usize = 120;

/// Many writes through one member; the last one's revision.
async fn write_many(contact: &Contact, prefix: &str) -> i64 {
    let mut revision = 0;
    for number in 0..MANY {
        let key = format!("{prefix}/{number}");
        let request = pb::PutRequest { key: key.into(), value: "v".into(), ..Default::default() };
        let answer = retried(|| {
            let mut client = contact.kv();
            let request = request.clone();
            async move { client.put(request).await }
        });
        revision = answer.await.header.expect("an answer has a header").revision;
    }
    revision
}

/// How many keys a linearizable read counts.
async fn count(contact: &Contact) -> i64 {
    let request = pb::RangeRequest {
        key: b"\0".as_slice().into(),
        range_end: b"\0".as_slice().into(),
        count_only: true,
        ..Default::default()
    };
    retried(|| {
        let mut client = contact.kv();
        let request = request.clone();
        async move { client.range(request).await }
    })
    .await
    .count
}

async fn add(contact: &Contact, peer_url: &str, is_learner: bool) -> u64 {
    let request = pb::MemberAddRequest { peer_ur_ls: vec![peer_url.to_owned()], is_learner };
    let answer = retried(|| {
        let mut client = contact.cluster();
        let request = request.clone();
        async move { client.member_add(request).await }
    });
    answer.await.member.expect("an answer has the member").id
}

async fn remove(contact: &Contact, id: u64) {
    retried(|| {
        let mut client = contact.cluster();
        async move { client.member_remove(pb::MemberRemoveRequest { id }).await }
    })
    .await;
}

/// Waits until a member has applied a revision.
async fn caught_up(contact: &Contact, revision: i64) {
    let answer = retried(|| {
        let mut client = contact.kv();
        async move { client.range(pb::RangeRequest { key: "none".into(), ..Default::default() }).await }
    });
    assert!(answer.await.header.expect("an answer has a header").revision >= revision);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_fall_behind_are_replaced_and_promoted() {
    let mut cluster = Cluster::new(Site::loopback(2), 3, &OPTIONS, Arc::default());
    cluster.start_all();
    cluster.ready().await;
    let contacts = cluster.contacts();
    write_many(&contacts[0], "first").await;

    // Away for so long that the others' logs no longer reach back.
    cluster.kill(2).await;
    let revision = write_many(&contacts[1], "second").await;
    cluster.start(2, &[0, 1, 2], &[]);
    cluster.ready().await;
    caught_up(&contacts[2], revision).await;
    verify::same_hash(&cluster, &[0, 1, 2], revision).await;

    // Its disk is lost: it is removed and joins anew.
    let old = cluster.member_list(0).await.into_iter().find(|m| m.name == "m2").expect("it is a member");
    cluster.kill(2).await;
    fs::remove_dir_all(&cluster.members[2].dir).expect("its directory can be removed");
    remove(&contacts[0], old.id).await;
    let revision = write_many(&contacts[0], "third").await;
    let new = add(&contacts[0], &contacts[2].peer_url, false).await;
    assert_ne!(new, old.id);
    cluster.start(2, &[0, 1, 2], &["--initial-cluster-state", "existing"]);
    cluster.ready().await;
    caught_up(&contacts[2], revision).await;
    verify::same_hash(&cluster, &[0, 1, 2], revision).await;

    without_tables(&mut cluster).await;
    learn(&mut cluster).await;
    cluster.kill(0).await;
    let revision = write_many(&contacts[2], "fifth").await;
    cluster.start(0, &[0, 1, 2], &[]);
    cluster.ready().await;
    caught_up(&contacts[0], revision).await;
    verify::same_hash(&cluster, &[0, 1, 2, 3], revision).await;
    assert_eq!(count(&contacts[0]).await, 5 * MANY as i64);
    left_alone(&mut cluster).await;
    cluster.assert_no_panic();
}

/// A member that joined by a snapshot has a log that begins there: lost tables can't be rebuilt from it.
async fn without_tables(cluster: &mut Cluster) {
    cluster.kill(2).await;
    let dir = cluster.members[2].dir.clone();
    let (tables, aside) = (dir.join("member/kontiki"), dir.join("aside"));
    fs::rename(&tables, &aside).expect("it can be moved");
    cluster.start(2, &[0, 1, 2], &[]);
    let (code, log) = cluster.ended(2).await;
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("put the tables back, or remove this member from the cluster"), "{log}");
    fs::remove_dir_all(&tables).expect("it can be removed");
    fs::rename(&aside, &tables).expect("it can be moved");
    cluster.start(2, &[0, 1, 2], &[]);
    cluster.ready().await;
}

/// A fourth member learns, is killed, learns on, and votes.
async fn learn(cluster: &mut Cluster) {
    let at = cluster.add_member();
    let contact = cluster.members[at].contact.clone();
    let id = add(&cluster.members[0].contact, &contact.peer_url, true).await;
    cluster.start(at, &[0, 1, 2, at], &["--initial-cluster-state", "existing"]);
    cluster.ready().await;
    cluster.kill(at).await;
    let revision = write_many(&cluster.members[1].contact, "fourth").await;
    cluster.start(at, &[0, 1, 2, at], &[]);
    cluster.ready().await;
    let promoted = retried(|| {
        let mut client = cluster.members[1].contact.cluster();
        async move { client.member_promote(pb::MemberPromoteRequest { id }).await }
    })
    .await;
    assert!(promoted.members.iter().all(|m| !m.is_learner), "{promoted:?}");
    caught_up(&contact, revision).await;
    verify::same_hash(cluster, &[0, 1, 2, at], revision).await;
}

/// Which of the members leads.
async fn leader(cluster: &Cluster) -> usize {
    let answer = retried(|| {
        let mut client = cluster.members[0].contact.maintenance();
        async move { client.status(pb::StatusRequest {}).await }
    });
    let id = answer.await.leader;
    let members = cluster.member_list(0).await;
    let name = &members.iter().find(|m| m.id == id).expect("somebody leads").name;
    cluster.members.iter().position(|m| m.contact.name == *name).expect("it is one of them")
}

/// All but a copy of the leader's directory is lost.
async fn left_alone(cluster: &mut Cluster) {
    let leader = leader(cluster).await;
    write_many(&cluster.members[leader].contact, "last").await;
    // Before its next tick, with which the commit index goes to the disk.
    cluster.kill(leader).await;
    for at in (0..cluster.members.len()).filter(|at| *at != leader) {
        cluster.kill(at).await;
    }
    let at = cluster.add_member();
    copy(&cluster.members[leader].dir, &cluster.members[at].dir);
    let contact = cluster.members[at].contact.clone();
    for options in [&["--force-new-cluster"][..], &[]] {
        cluster.start(at, &[at], options);
        cluster.ready().await;
        let members = cluster.member_list(at).await;
        assert_eq!(members.len(), 1, "{members:?}");
        let before = count(&contact).await;
        // The leader's log has all that was acknowledged, a moment before the end too.
        assert!(before >= 6 * MANY as i64, "{before} keys are left");
        write_many(&contact, &format!("alone/{}", options.len())).await;
        assert_eq!(count(&contact).await, before + MANY as i64);
        cluster.kill(at).await;
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory can be made");
    for entry in fs::read_dir(from).expect("it can be listed") {
        let entry = entry.expect("it can be listed");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("it has a type").is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a file can be copied");
        }
    }
}
