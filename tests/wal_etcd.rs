//! The log against a real etcd: one starts on a log that we wrote, and we open a log that one wrote.
//!
//! Ignored unless asked for: `ETCD_BIN=/path/to/etcd cargo test --test wal_etcd -- --ignored`, with an `etcd` of 3.5 that
//! has its `etcdctl` beside it. Set `ETCD_PORT` to the first of four free ports (21000 if unset).

#![allow(clippy::disallowed_methods, reason = "the processes under test have real files")]

use std::{
    env,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use bytes::Bytes;
use kontiki::{
    membership::{Change, ChangeKind, ChangeStep},
    raft::{Entry, HardState, Payload},
    storage::{
        OsDisk,
        wal::{Identity, Options, Wal},
    },
    types::{ClusterId, Index, NodeId, Term},
    wire::internalpb,
};
use prost::Message as _;

const IDENTITY: Identity =
    Identity { node: NodeId(0x1234_5678_9abc_def0), cluster: ClusterId(0x0fed_cba9_8765_4321) };

/// The directory of etcd's programs.
fn binaries() -> PathBuf {
    let etcd = env::var_os("ETCD_BIN").map(PathBuf::from).expect("ETCD_BIN has to name a real etcd");
    etcd.parent().expect("a program lies in a directory").to_path_buf()
}

struct Etcd {
    child: Child,
    bin: PathBuf,
    client: String,
}

impl Etcd {
    /// Starts one and waits until it serves clients.
    fn start(bin: &Path, data: &Path, at: u16) -> Self {
        let first: u16 =
            env::var("ETCD_PORT").map_or(21000, |port| port.parse().expect("ETCD_PORT is a port"));
        let client = format!("http://127.0.0.1:{}", first + at);
        let peer = format!("http://127.0.0.1:{}", first + at + 1);
        let mut child = Command::new(bin.join("etcd"))
            .args(["--name", "n1", "--logger", "zap", "--log-outputs", "stderr", "--data-dir"])
            .arg(data)
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("n1={peer}")])
            .stderr(Stdio::piped())
            .spawn()
            .expect("etcd starts");
        let mut log = BufReader::new(child.stderr.take().expect("its log"));
        let (mut line, mut all) = (String::new(), String::new());
        while !line.contains("ready to serve client requests") {
            line.clear();
            if log.read_line(&mut line).expect("its log") == 0 {
                panic!("etcd stopped:\n{all}");
            }
            all.push_str(&line);
        }
        // Drained, so that it never waits for us.
        #[allow(clippy::disallowed_methods, reason = "a test's pipe")]
        std::thread::spawn(move || log.lines().for_each(drop));
        Self { child, bin: bin.to_owned(), client }
    }

    fn ctl(&self, args: &[&str]) -> String {
        let out = Command::new(self.bin.join("etcdctl"))
            .env("ETCDCTL_API", "3")
            .arg("--endpoints")
            .arg(&self.client)
            .args(args)
            .output()
            .expect("etcdctl runs");
        assert!(out.status.success(), "etcdctl {args:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).into_owned()
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        // As a crash does: what it acknowledged is in its log.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// A put, as a byte string of an `InternalRaftRequest`: field 4, and a header with an id.
fn put(key: &str, value: &str, id: u64) -> Payload {
    let request = kontiki::wire::etcdserverpb::PutRequest {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Bytes::copy_from_slice(value.as_bytes()),
        ..Default::default()
    };
    let request = internalpb::InternalRaftRequest {
        put: Some(request),
        header: Some(internalpb::RequestHeader { id, ..Default::default() }),
        ..Default::default()
    };
    Payload::Command(request.encode_to_vec().into())
}

#[test]
#[ignore = "needs ETCD_BIN"]
fn etcd_starts_on_our_log() {
    let bin = binaries();
    let data = tempfile::tempdir().expect("a directory");
    let dir = data.path().join("member/wal");
    // Small segments, so that etcd crosses cuts of ours.
    let options = Options { segment_bytes: 4096, ..Options::default() };
    let mut wal = Wal::create(OsDisk, &dir, IDENTITY, options.clone()).expect("create");
    let context =
        format!(r#"{{"id":{},"peerURLs":["http://127.0.0.1:21001"],"name":"n1"}}"#, IDENTITY.node.0);
    let step = ChangeStep { kind: ChangeKind::AddVoter, node: IDENTITY.node };
    let bootstrap = Payload::Change(Change::Single { id: 0, step, context: context.into() });
    let entry = |term, index, payload| Entry { term: Term(term), index: Index(index), payload };
    let hard = |commit| HardState { term: Term(2), vote: Some(IDENTITY.node), commit: Index(commit) };
    wal.append(&[entry(1, 1, bootstrap)], None, true).expect("append");
    wal.append(&[entry(2, 2, Payload::Empty)], Some(hard(1)), true).expect("append");
    for i in 3..200 {
        let payload = put(&format!("k{i}"), &format!("v{i}"), i);
        wal.append(&[entry(2, i, payload)], Some(hard(i - 1)), true).expect("append");
    }
    drop(wal);
    let etcd = Etcd::start(&bin, data.path(), 0);
    for i in 3..200 {
        assert_eq!(etcd.ctl(&["get", &format!("k{i}"), "--print-value-only"]).trim_end(), format!("v{i}"));
    }
    etcd.ctl(&["put", "after", "takeover"]);
    drop(etcd);
    // And back: our records, then etcd's in the same segment.
    let (_, found) = Wal::open(OsDisk, &dir, options).expect("open");
    assert_eq!(found.identity, IDENTITY);
    let last = found.entries.last().expect("entries");
    assert!(
        matches!(&last.payload, Payload::Command(bytes) if bytes.windows(8).any(|part| part == b"takeover"))
    );
    assert!(last.term > Term(2));
    println!("etcd served 197 keys from our log; {} entries came back", found.entries.len());
}

#[test]
#[ignore = "needs ETCD_BIN"]
fn we_open_etcds_log() {
    let bin = binaries();
    let data = tempfile::tempdir().expect("a directory");
    let etcd = Etcd::start(&bin, data.path(), 2);
    for i in 0..50 {
        etcd.ctl(&["put", &format!("k{i}"), &format!("v{i}")]);
    }
    etcd.ctl(&["del", "k0"]);
    drop(etcd);
    let dir = data.path().join("member/wal");
    let (mut wal, found) = Wal::open(OsDisk, &dir, Options::default()).expect("open");
    assert_eq!(found.repaired, None);
    let puts = found.entries.iter().filter_map(|entry| match &entry.payload {
        Payload::Command(bytes) => internalpb::InternalRaftRequest::decode(bytes.clone()).ok()?.put,
        Payload::Empty | Payload::Change(_) => None,
    });
    let keys: Vec<_> = puts.map(|put| put.key).filter(|key| key.starts_with(b"k")).collect();
    assert_eq!(keys.len(), 50);
    assert!(matches!(found.entries[0].payload, Payload::Change(_)));
    // What we add, etcd takes: its own log goes on behind ours.
    let last = found.entries.last().expect("entries");
    let next = Entry { term: last.term, index: last.index.next(), payload: put("ours", "1", 7) };
    wal.append(&[next], Some(found.hard_state), true).expect("append");
    drop(wal);
    let etcd = Etcd::start(&bin, data.path(), 2);
    assert_eq!(etcd.ctl(&["get", "ours", "--print-value-only"]).trim_end(), "1");
    assert_eq!(etcd.ctl(&["get", "k49", "--print-value-only"]).trim_end(), "v49");
    println!("{} entries of etcd's log decoded; etcd went on behind ours", found.entries.len());
}
