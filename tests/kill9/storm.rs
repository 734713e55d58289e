//! Members are killed at random while clients write, keep leases and watch.

use std::{env, sync::Arc, time::Duration};

use kontiki::wire::etcdserverpb as pb;
use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

use super::{
    clients,
    cluster::{Cluster, Contact, PATIENCE, Site, retried},
    record::{Recorder, judge, settings},
    seen::Record,
    verify,
};

const WRITERS: usize = 6;

/// What ends the watches.
const END: &str = "the end";

fn number(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost() {
    storm(0, &[]).await;
}

/// Members fall so far behind, so often, that they need snapshots; and start from snapshots of their own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_with_snapshots_all_the_time() {
    storm(1, &["--snapshot-count", "50", "--experimental-snapshot-catchup-entries", "10"]).await;
}

async fn storm(slot: u16, options: &[&str]) {
    let seconds = number("KONTIKI_KILL9_SECONDS", 12);
    let seed = number("KONTIKI_KILL9_SEED", 1) + u64::from(slot);
    let recorder = Arc::new(Recorder::from_env("KONTIKI_KILL9_HISTORY", &slot.to_string()));
    let mut cluster = Cluster::new(Site::loopback(slot), 3, options, recorder.clone());
    cluster.start_all();
    cluster.ready().await;
    let contacts = cluster.contacts();
    let roster = published(&cluster).await;

    let record = Arc::new(Record::new(recorder.clone()));
    let (stop, stopped) = watch::channel(false);
    let kept = grant(&record, &contacts[0], 60).await;
    write_once(&record, &contacts[1], "kept", kept).await;
    let mut busy = Vec::new();
    for id in 0..WRITERS {
        let seed = seed.wrapping_mul(1_000) + id as u64;
        busy.push(tokio::spawn(clients::write(id, seed, contacts.clone(), record.clone(), stopped.clone())));
    }
    busy.push(tokio::spawn(clients::abandon(contacts.clone(), record.clone(), stopped.clone())));
    busy.push(tokio::spawn(clients::keep_alive(kept, contacts.clone(), record.clone(), stopped.clone())));
    let watch = |c: &Contact| tokio::spawn(clients::watch_all(c.clone(), recorder.clone(), END));
    let watching: Vec<_> = contacts.iter().map(watch).collect();

    let mut rng = StdRng::seed_from_u64(seed);
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut kills = 0;
    while Instant::now() < until {
        kills += fell_some(&mut cluster, &mut rng, &record).await;
    }
    stop.send_replace(true);
    for task in busy {
        timeout(PATIENCE, task)
            .await
            .expect("a client ends in time")
            .expect("a client that saw nothing wrong");
    }

    await_ends(&contacts[0], &record).await;
    let revision = write_once(&record, &contacts[2], END, 0).await;
    let mut watches = Vec::new();
    for task in watching {
        let seen = timeout(PATIENCE, task).await.expect("a watch sees the end in time");
        watches.push(seen.expect("a watch that saw nothing wrong"));
    }
    judge(&recorder.finish(settings()));
    let events = verify::same_events(&watches);
    verify::acknowledged_are_there(events, &record);
    verify::abandoned_have_ended(events, &record);
    verify::ranges_agree(events, &contacts).await;
    assert!(time_to_live(&contacts[1], kept).await > 0, "a lease that was kept alive has ended");
    let hash = verify::same_hash(&cluster, &[0, 1, 2], revision).await;

    // Once more from what is on the disks.
    for at in 0..3 {
        cluster.kill(at).await;
    }
    cluster.start_all();
    cluster.ready().await;
    assert_eq!(verify::same_hash(&cluster, &[0, 1, 2], revision).await, hash);
    assert!(time_to_live(&contacts[1], kept).await > 0, "a lease that was kept alive has ended");
    for at in 0..3 {
        assert_eq!(cluster.member_list(at).await, roster, "the members as {at} lists them");
    }
    cluster.assert_no_panic();
    println!(
        "seed {seed}: {kills} kills in {seconds} s; {} writes acknowledged, {} calls failed, {} reads, {} events, \
         {} leases ended",
        *record.count.borrow(),
        *record.failed.borrow(),
        *record.reads.borrow(),
        events.len(),
        record.abandoned.lock().expect("no client panics with it").len(),
    );
}

/// The members, once each has told where it serves clients; that comes after its start.
async fn published(cluster: &Cluster) -> Vec<pb::Member> {
    let until = Instant::now() + PATIENCE;
    loop {
        let members = cluster.member_list(0).await;
        if members.iter().all(|m| !m.client_ur_ls.is_empty()) {
            return members;
        }
        assert!(Instant::now() < until, "not all members tell where they serve: {members:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// Kills one member, two or all, and starts them again; how many.
async fn fell_some(cluster: &mut Cluster, rng: &mut StdRng, record: &Record) -> usize {
    let mut victims = vec![0, 1, 2];
    victims.shuffle(rng);
    victims.truncate(match rng.random_range(0..10) {
        0..6 => 1,
        6..8 => 2,
        _ => 3,
    });
    for at in &victims {
        cluster.kill(*at).await;
    }
    // How long they are away is part of the fault.
    sleep(Duration::from_millis(rng.random_range(0..1_500))).await;
    for at in &victims {
        cluster.start(*at, &[0, 1, 2], &[]);
    }
    if rng.random_range(0..4) == 0 {
        // Killed again while it starts.
        sleep(Duration::from_millis(rng.random_range(0..300))).await;
        cluster.kill(victims[0]).await;
        cluster.start(victims[0], &[0, 1, 2], &[]);
    }
    cluster.ready().await;
    // It goes on: writes are acknowledged again.
    let mut count = record.count.subscribe();
    let goal = *count.borrow() + rng.random_range(1..300);
    let written = timeout(PATIENCE, count.wait_for(|n| *n >= goal)).await;
    assert!(written.is_ok(), "no writes get through any more\n{}", cluster.tails());
    victims.len()
}

async fn grant(record: &Record, contact: &Contact, ttl: i64) -> i64 {
    let grant = pb::LeaseGrantRequest { ttl, id: 0 };
    let call = |request| {
        let mut client = contact.lease();
        async move { client.lease_grant(request).await }
    };
    clients::persist(record, contact, grant, call).await.id
}

async fn time_to_live(contact: &Contact, id: i64) -> i64 {
    let request = pb::LeaseTimeToLiveRequest { id, keys: false };
    retried(|| {
        let mut client = contact.lease();
        async move { client.lease_time_to_live(request).await }
    })
    .await
    .ttl
}

async fn write_once(record: &Record, contact: &Contact, key: &'static str, lease: i64) -> i64 {
    let request = pb::PutRequest { key: key.into(), value: key.into(), lease, ..Default::default() };
    let call = |request| {
        let mut client = contact.kv();
        async move { client.put(request).await }
    };
    let answer = clients::persist(record, contact, request, call).await;
    answer.header.expect("an answer has a header").revision
}

/// Waits until the leases that nobody keeps have ended.
async fn await_ends(contact: &Contact, record: &Record) {
    let keys: Vec<String> =
        record.abandoned.lock().expect("no client panics with it").iter().map(|l| l.key.clone()).collect();
    let until = Instant::now() + PATIENCE;
    for key in keys {
        loop {
            let request = pb::RangeRequest { key: key.clone().into(), ..Default::default() };
            let answer = retried(|| {
                let mut client = contact.kv();
                let request = request.clone();
                async move { client.range(request).await }
            })
            .await;
            if answer.kvs.is_empty() {
                break;
            }
            assert!(Instant::now() < until, "{key} is still there, long after its lease's time");
            sleep(Duration::from_millis(100)).await;
        }
    }
}
