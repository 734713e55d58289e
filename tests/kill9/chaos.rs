//! Members in a network of their own, under every fault that a machine allows, and the simulator's oracles over it.
//!
//! `make chaos MINUTES=5 MEMBERS=5 SEED=7` runs it for long, and with `ETCD=/path/to/etcd` against etcd, as a control. The
//! same seed draws the same faults and calls; what they meet is another matter on real clocks. Without root or iproute2,
//! members are on loopback, and only processes are killed and paused.

use std::{env, sync::Arc, time::Duration};

use bytes::Bytes;
use kontiki::wire::etcdserverpb as pb;
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::{
    runtime,
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use super::{
    clients::{self, caller},
    cluster::{Cluster, Contact, PATIENCE, Site, has_flag},
    doctor,
    faults::Nemesis,
    look::Watcher,
    net::Net,
    record::{Caller, Recorder, judge, settings},
    seen::Record,
    verify,
    work::Worker,
};
use crate::history::{History, Micros, Settings};

/// What ends the watches.
const END: &str = "the end";

/// How long a client waits for an answer: shorter than many a fault.
const PATIENCE_OF_CLIENTS: Duration = Duration::from_millis(2_500);

/// How long one waits that has only one member to ask.
const PATIENCE_OF_THE_FAITHFUL: Duration = Duration::from_secs(8);

/// What is run.
struct Chaos {
    slot: u16,
    seconds: u64,
    /// After the last fault, with clients at work.
    calm: u64,
    seed: u64,
    members: usize,
}

fn number(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

#[test]
fn chaos() {
    let chaos = Chaos {
        slot: 3,
        seconds: number("KONTIKI_CHAOS_SECONDS", 10),
        calm: number("KONTIKI_CHAOS_CALM", 1),
        seed: number("KONTIKI_CHAOS_SEED", 3),
        members: usize::try_from(number("KONTIKI_CHAOS_MEMBERS", 3)).expect("a few members"),
    };
    let history = chaos.run();
    judge(&history);
    doctor::try_all(&history);
}

/// Without a network of its own, kills and pauses are left.
#[test]
fn chaos_on_loopback() {
    let chaos = Chaos { slot: 4, seconds: 6, calm: 1, seed: number("KONTIKI_CHAOS_SEED", 1), members: 3 };
    judge(&chaos.on(None));
}

impl Chaos {
    /// In a network of its own, if there can be one.
    fn run(&self) -> History {
        let net = Net::new(self.slot, self.members).map(Arc::new);
        match &net {
            Ok(net) if net.netem => println!("a network of namespaces; tc's netem delays and loses"),
            Ok(_) => println!("a network of namespaces; this kernel has no netem: bad lines are htb's"),
            Err(why) => println!("no network of our own, so only kills and pauses ({why})"),
        }
        self.on(net.ok())
    }

    fn on(&self, net: Option<Arc<Net>>) -> History {
        let hub = net.clone();
        let enter = move || {
            if let Some(net) = &hub {
                net.enter().expect("a thread can move to a namespace of ours");
            }
        };
        enter();
        let mut builder = runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(2).enable_all().on_thread_start(enter).build();
        runtime.expect("a runtime can be made").block_on(self.storm(net))
    }

    /// Clients at work over all members.
    fn work(
        &self,
        contacts: &[Contact],
        recorder: &Arc<Recorder>,
        stop: &watch::Receiver<bool>,
    ) -> Vec<JoinHandle<()>> {
        const WRITERS: u32 = 8;
        const TENANTS: u32 = 6;
        const LOCKERS: u32 = 3;
        const BROWSERS: u32 = 4;
        let seed = |number: u32| StdRng::seed_from_u64(self.seed.wrapping_mul(1_000) + u64::from(number));
        let worker = |number: u32| {
            let caller = Caller { recorder: recorder.clone(), number, patience: PATIENCE_OF_CLIENTS };
            Worker::new(caller, contacts.to_vec(), seed(number), stop.clone())
        };
        let watcher = |number: u32| Watcher {
            number,
            recorder: recorder.clone(),
            rng: seed(number),
            asks: number.is_multiple_of(2) && env::var("KONTIKI_CHAOS_NO_PROGRESS").is_err(),
        };
        let mut tasks = Vec::new();
        for number in 0..WRITERS {
            tasks.push(tokio::spawn(worker(number).work()));
        }
        for number in 20..20 + TENANTS {
            tasks.push(tokio::spawn(worker(number).rent()));
        }
        for number in 40..40 + LOCKERS {
            tasks.push(tokio::spawn(worker(number).lock()));
        }
        for contact in contacts.iter().chain(contacts) {
            let mut worker = worker(100 + tasks.len() as u32);
            worker.caller.patience = PATIENCE_OF_THE_FAITHFUL;
            tasks.push(tokio::spawn(worker.stay(contact.clone())));
        }
        for number in 60..60 + BROWSERS {
            tasks.push(tokio::spawn(watcher(number).browse(contacts.to_vec(), stop.clone())));
        }
        tasks
    }

    async fn storm(&self, net: Option<Arc<Net>>) -> History {
        let recorder = Arc::new(Recorder::from_env("KONTIKI_CHAOS_HISTORY", &format!("seed{}", self.seed)));
        let site = net.clone().map_or_else(|| Site::loopback(self.slot), Site::Net);
        let mut rng = StdRng::seed_from_u64(self.seed);
        let options = options(&mut rng);
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        println!("seed {}, {} members: {}", self.seed, self.members, options.join(" "));
        let mut cluster = Cluster::new(site, self.members, &options, recorder.clone());
        cluster.start_all();
        cluster.ready().await;
        let contacts = cluster.contacts();
        let (stop, stopped) = watch::channel(false);
        let tasks = self.work(&contacts, &recorder, &stopped);
        let witness = |contact: &Contact| {
            let number = 80 + contact.number();
            let rng = StdRng::seed_from_u64(u64::from(number));
            let watcher = Watcher { number, recorder: recorder.clone(), rng, asks: false };
            tokio::spawn(watcher.witness(contact.clone(), END))
        };
        let witnesses: Vec<_> = contacts.iter().map(witness).collect();

        let mut nemesis = Nemesis::new(self.seed, net, self.members, Duration::from_secs(self.seconds) / 4);
        let until = Instant::now() + Duration::from_secs(self.seconds);
        let interrupted = tokio::signal::ctrl_c();
        tokio::pin!(interrupted);
        while Instant::now() < until && timeout(Duration::ZERO, &mut interrupted).await.is_err() {
            nemesis.round(&mut cluster, &contacts).await;
        }
        cluster.ready().await;
        let calm_from = recorder.now();
        sleep(Duration::from_secs(self.calm)).await;
        stop.send_replace(true);
        for task in tasks.into_iter() {
            timeout(PATIENCE, task)
                .await
                .expect("a client ends in time")
                .expect("a client that did not panic");
        }
        let record = Record::new(recorder.clone());
        let revision = last_words(&record, &contacts).await;
        for task in witnesses {
            timeout(PATIENCE, task).await.expect("a watch sees the end in time").expect("it did not panic");
        }
        let members: Vec<usize> = (0..self.members).collect();
        verify::same_hash(&cluster, &members, revision).await;
        cluster.assert_no_panic();
        println!("faults: {:?}, {} of them at the leader", nemesis.counts, nemesis.leaders);
        let settle_max = Micros::from_secs(10);
        recorder.finish(Settings { calm_from: Some(calm_from), settle_max, ..settings() })
    }
}

/// How the members are set up.
fn options(rng: &mut StdRng) -> Vec<String> {
    let (heartbeat, election) = if rng.random_bool(0.5) { (100, 1_000) } else { (50, 500) };
    let (count, kept) =
        *[(10_000, 5_000), (500, 100), (60, 20)].get(rng.random_range(0..3_usize)).expect("one of three");
    let mut options = vec![
        format!("--heartbeat-interval={heartbeat}"),
        format!("--election-timeout={election}"),
        format!("--snapshot-count={count}"),
    ];
    let catch_up = "--snapshot-catchup-entries";
    options.extend(has_flag(catch_up).then(|| format!("{catch_up}={kept}")));
    options
}

/// Each member reads all of the store, and lists the leases; then a last write, which the watches wait for.
async fn last_words(record: &Record, contacts: &[Contact]) -> i64 {
    let all = Bytes::from_static(b"\0");
    for serializable in [false, true] {
        for contact in contacts {
            let request = pb::RangeRequest {
                key: all.clone(),
                range_end: all.clone(),
                serializable,
                ..Default::default()
            };
            let call = |request| {
                let mut client = contact.kv();
                async move { client.range(request).await }
            };
            clients::persist(record, contact, request, call).await;
            let leases = pb::LeaseLeasesRequest {};
            caller(record, 0).call(contact, leases, contact.lease().lease_leases(leases)).await;
        }
    }
    let request = pb::PutRequest { key: END.into(), value: END.into(), ..Default::default() };
    let contact = &contacts[0];
    let call = |request| {
        let mut client = contact.kv();
        async move { client.put(request).await }
    };
    let answer = clients::persist(record, contact, request, call).await;
    answer.header.expect("an answer has a header").revision
}
