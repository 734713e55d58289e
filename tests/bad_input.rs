//! What an operator can get wrong, or a disk: one clear sentence, etcd's exit code, and nothing damaged.

// These are processes and files in earnest.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)]

use std::{
    collections::BTreeMap,
    env, fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use kontiki::wire::etcdserverpb::{self as pb, kv_client::KvClient};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStderr, Command},
    time::timeout,
};
use tonic::transport::{Channel, Endpoint};

const PATIENCE: Duration = Duration::from_secs(60);

/// How many keys a member gets before it is mistreated.
const KEYS: usize = 40;

/// A directory and the flags of a member that may run on it.
struct Site {
    dir: TempDir,
    port: u16,
    options: &'static [&'static str],
}

struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStderr>>,
    log: String,
}

impl Site {
    /// Tests run at once, so each has its slot of ports.
    fn new(slot: u16) -> Self {
        let base = env::var("KONTIKI_BAD_INPUT_PORTS").map_or(24_500, |text| text.parse().expect("a port"));
        Self { dir: tempfile::tempdir().expect("a directory"), port: base + 4 * slot, options: &[] }
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn wal(&self) -> PathBuf {
        self.data().join("member/wal")
    }

    fn segment(&self) -> PathBuf {
        self.wal().join("0000000000000000-0000000000000000.wal")
    }

    fn peer_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port + 1)
    }

    fn client_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn flags(&self) -> Vec<String> {
        let (client, peer) = (self.client_url(), self.peer_url());
        let mut flags =
            vec!["--name".into(), "one".into(), "--data-dir".into(), self.data().display().to_string()];
        for (flag, value) in [
            ("--listen-client-urls", &client),
            ("--advertise-client-urls", &client),
            ("--listen-peer-urls", &peer),
            ("--initial-advertise-peer-urls", &peer),
            ("--initial-cluster", &format!("one={peer}")),
        ] {
            flags.extend([flag.to_owned(), value.clone()]);
        }
        flags.extend(self.options.iter().map(|o| (*o).to_owned()));
        flags
    }

    /// The flags with some values replaced or added.
    fn flags_but(&self, changes: &[(&str, &str)]) -> Vec<String> {
        let mut flags = self.flags();
        for (flag, value) in changes {
            match flags.iter().position(|f| f == flag) {
                Some(at) => flags[at + 1] = (*value).to_owned(),
                None => flags.extend([(*flag).to_owned(), (*value).to_owned()]),
            }
        }
        flags
    }

    async fn start(&self) -> Running {
        start(&self.flags()).await
    }

    fn kv(&self) -> KvClient<Channel> {
        KvClient::new(Endpoint::from_shared(self.client_url()).expect("a URL").connect_lazy())
    }

    async fn put(&self, number: usize) {
        let (key, value) = (format!("key-{number:03}"), format!("value-{number:03}"));
        let request = pb::PutRequest { key: key.into(), value: value.into(), ..Default::default() };
        self.kv().put(request).await.expect("a member that runs takes a write");
    }

    async fn count(&self) -> i64 {
        let request = pb::RangeRequest {
            key: "key-".into(),
            range_end: "key.".into(),
            count_only: true,
            ..Default::default()
        };
        self.kv().range(request).await.expect("a member that runs is read").into_inner().count
    }

    /// A member with [`KEYS`] keys, killed.
    async fn filled(slot: u16, options: &'static [&'static str]) -> Self {
        let site = Self { options, ..Self::new(slot) };
        let running = site.start().await;
        for number in 0..KEYS {
            site.put(number).await;
        }
        running.kill().await;
        site
    }

    /// It starts, has its keys, and takes another.
    async fn is_whole(&self) {
        let running = self.start().await;
        assert_eq!(self.count().await, KEYS as i64, "{}", running.log);
        self.put(KEYS - 1).await;
        running.kill().await;
    }
}

fn command(flags: &[String]) -> Command {
    let program = env::var("KONTIKI_BIN").unwrap_or_else(|_| env!("CARGO_BIN_EXE_kontiki").to_owned());
    let mut command = Command::new(program);
    command.args(flags).env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command.kill_on_drop(true);
    command
}

fn spawn(flags: &[String]) -> Running {
    let mut child = command(flags).spawn().expect("the server's program is built");
    let lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
    Running { child, lines, log: String::new() }
}

/// Runs until it serves clients.
async fn start(flags: &[String]) -> Running {
    let mut running = spawn(flags);
    timeout(PATIENCE, running.line_with("ready to serve client requests")).await.expect("it starts in time");
    running
}

impl Running {
    async fn line_with(&mut self, text: &str) {
        while let Some(line) = self.lines.next_line().await.expect("its log is text") {
            self.log += &format!("{line}\n");
            if line.contains(text) {
                return;
            }
        }
        panic!("it ended instead\n{}", self.log);
    }

    /// Asks it to stop, as a service manager does.
    async fn stop(mut self) {
        let id = self.child.id().and_then(|id| rustix::process::Pid::from_raw(id as i32)).expect("it runs");
        rustix::process::kill_process(id, rustix::process::Signal::TERM).expect("it is our child");
        // It writes its log until the end.
        let ended = async {
            while let Some(line) = self.lines.next_line().await.expect("its log is text") {
                self.log += &format!("{line}\n");
            }
            self.child.wait().await.expect("it is our child");
        };
        timeout(PATIENCE, ended).await.expect("it stops when it is asked to, be it right behind its start");
    }

    async fn kill(mut self) {
        self.child.start_kill().expect("it is our child");
        self.child.wait().await.expect("it is our child");
    }
}

/// Runs a server that must end by itself with `code`, and with one line of a log or of usage that says `text`.
async fn refused(flags: &[String], code: i32, text: &str) {
    let child = command(flags).spawn().expect("the server's program is built");
    let output =
        timeout(PATIENCE, child.wait_with_output()).await.expect("it ends in time").expect("its output");
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{log}");
    let said = log.lines().filter(|line| line.contains(text)).count();
    assert_eq!(said, 1, "once: {text}\n{log}");
    assert!(!log.contains("panicked"), "{log}");
}

/// All files below a directory, with what is in them.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let Ok(entries) = fs::read_dir(dir) else { return files };
    for entry in entries {
        let path = entry.expect("it can be listed").path();
        if path.is_dir() {
            files.extend(contents(&path));
        } else {
            let bytes = fs::read(&path).expect("it can be read");
            files.insert(path, bytes);
        }
    }
    files
}

fn words(flags: &[&str]) -> Vec<String> {
    flags.iter().map(|f| (*f).to_owned()).collect()
}

#[tokio::test]
async fn flags_that_are_wrong_write_nothing() {
    let site = Site::new(0);
    refused(&words(&["--nonsense=1"]), 2, "nonsense").await;
    for (flag, value, code, text) in [
        ("--listen-client-urls", "nothing:1", 2, "nothing:1"),
        ("--listen-client-urls", "http://example.com:1234", 1, "expected IP in URL for binding"),
        ("--listen-peer-urls", "http://127.0.0.1", 2, "http://127.0.0.1"),
        ("--initial-cluster", "two=http://127.0.0.1:1", 1, "couldn't find local name"),
        ("--initial-cluster", "one=http://127.0.0.1:1", 1, "missing from --initial-advertise-peer-urls"),
        ("--election-timeout", "10", 1, "election"),
    ] {
        refused(&site.flags_but(&[(flag, value)]), code, text).await;
        assert!(contents(&site.data()).is_empty(), "{flag} {value}");
    }
}

#[tokio::test]
async fn ports_in_use_write_nothing() {
    let site = Site::new(1);
    for port in [site.port, site.port + 1] {
        let _taken = TcpListener::bind(("127.0.0.1", port)).expect("a free port");
        refused(&site.flags(), 1, &format!("listen tcp 127.0.0.1:{port}: bind: address already in use"))
            .await;
        assert!(contents(&site.data()).is_empty());
    }
}

/// Like etcd, it goes on as the member that the directory is of; unlike etcd, it says so.
#[tokio::test]
async fn flags_of_another_cluster_do_not_count_but_are_warned_of() {
    let site = Site::filled(2, &[]).await;
    let running = start(&site.flags_but(&[("--initial-cluster-token", "other")])).await;
    assert!(running.log.contains("the data directory is of another cluster than"), "{}", running.log);
    assert_eq!(site.count().await, KEYS as i64);
    running.kill().await;
    site.is_whole().await;
}

/// Two members of one cluster, their directories mixed up.
#[tokio::test]
async fn the_directory_of_another_member_is_warned_of() {
    let (one, two) = (Site::new(12), Site::new(13));
    let cluster = format!("one={},two={}", one.peer_url(), two.peer_url());
    let mut flags = [
        one.flags_but(&[("--initial-cluster", &cluster)]),
        two.flags_but(&[("--initial-cluster", &cluster), ("--name", "two")]),
    ];
    let (first, second) = tokio::join!(start(&flags[0]), start(&flags[1]));
    first.kill().await;
    second.kill().await;
    let other = one.data().display().to_string();
    let at = flags[1].iter().position(|f| f == "--data-dir").expect("it is given");
    flags[1][at + 1] = other;
    let mut mixed_up = spawn(&flags[1]);
    let told = mixed_up.line_with("the data directory is of another member of the cluster than --name says");
    timeout(PATIENCE, told).await.expect("it warns in time");
    mixed_up.kill().await;
}

#[tokio::test]
async fn a_second_server_on_a_directory_is_refused() {
    let site = Site::filled(3, &[]).await;
    let running = site.start().await;
    let (client, peer) =
        (format!("http://127.0.0.1:{}", site.port + 2), format!("http://127.0.0.1:{}", site.port + 3));
    let second = [("--listen-client-urls", client.as_str()), ("--listen-peer-urls", peer.as_str())];
    refused(&site.flags_but(&second), 1, "in use by another process").await;
    assert_eq!(site.count().await, KEYS as i64);
    site.put(0).await;
    running.kill().await;
    site.is_whole().await;
}

#[tokio::test]
async fn a_rotten_byte_of_the_log_is_told_and_nothing_is_cut_off() {
    let site = Site::filled(4, &[]).await;
    let good = fs::read(site.segment()).expect("the log is there");
    let needle = b"value-010";
    let at = good.windows(needle.len()).position(|w| w == needle).expect("the value is in the log");
    let mut rotten = good.clone();
    rotten[at + 4] ^= 0x10;
    fs::write(site.segment(), &rotten).expect("it can be written");
    let before = contents(&site.wal());
    refused(&site.flags(), 1, "the log is corrupt").await;
    assert_eq!(contents(&site.wal()), before);
    fs::write(site.segment(), &good).expect("it can be written");
    site.is_whole().await;
}

/// A write that a crash cut short was never acknowledged.
#[tokio::test]
async fn a_torn_end_of_the_log_is_cut_off() {
    for (slot, cut_file) in [(5, false), (6, true)] {
        let site = Site::filled(slot, &[]).await;
        let mut bytes = fs::read(site.segment()).expect("the log is there");
        let used = bytes.iter().rposition(|b| *b != 0).expect("it has records") + 1;
        // In the last record: what comes after the last key is a commit index at most.
        bytes[used - 3..used].fill(0);
        if cut_file {
            bytes.truncate(used - 3);
        }
        fs::write(site.segment(), &bytes).expect("it can be written");
        let running = site.start().await;
        let count = site.count().await;
        assert!(count >= KEYS as i64 - 1, "{count} keys\n{}", running.log);
        assert!(running.log.contains("torn end"), "{}", running.log);
        for number in 0..KEYS {
            site.put(number).await;
        }
        running.kill().await;
        site.is_whole().await;
    }
}

fn tables(site: &Site, extension: &str) -> Vec<PathBuf> {
    let of = |path: &PathBuf| path.extension().is_some_and(|e| e == extension);
    contents(&site.data().join("member/kontiki")).into_keys().filter(of).collect()
}

#[tokio::test]
async fn a_rotten_table_is_told() {
    let site = Site::filled(7, &["--snapshot-count", "10"]).await;
    // One that had just been begun when the member was killed is empty, and none of the tables.
    let written = |file: &PathBuf| fs::metadata(file).is_ok_and(|file| file.len() > 0);
    let files: Vec<PathBuf> = tables(&site, "sst").into_iter().filter(written).collect();
    assert!(!files.is_empty(), "checkpoints write tables");
    let good: Vec<Vec<u8>> = files.iter().map(|f| fs::read(f).expect("it can be read")).collect();
    let log = contents(&site.wal());
    for (file, bytes) in files.iter().zip(&good) {
        let mut rotten = bytes.clone();
        rotten[10] ^= 0x10;
        fs::write(file, rotten).expect("it can be written");
    }
    refused(&site.flags(), 1, "the tables are damaged").await;
    assert_eq!(contents(&site.wal()), log);
    for (file, bytes) in files.iter().zip(&good) {
        fs::write(file, bytes).expect("it can be written");
    }
    site.is_whole().await;
}

/// A member that was stopped leaves its index; one that was killed goes on from there. Without it, or with a broken one,
/// all is there as well.
#[tokio::test]
async fn a_broken_checkpoint_of_the_index_costs_nothing() {
    let site = Site::filled(16, &[]).await;
    let index = site.data().join("member/kontiki-index");
    site.start().await.stop().await;
    let files = contents(&index);
    assert_eq!(files.len(), 1, "a stop writes one");
    let of_no_use = "the index's checkpoint is of no use";
    for (change, warned) in [(None, false), (Some(40), true)] {
        for (path, bytes) in &files {
            let mut bytes = bytes.clone();
            if let Some(at) = change {
                bytes[at] ^= 0x10;
            }
            fs::write(path, bytes).expect("it can be written");
        }
        let running = site.start().await;
        assert_eq!(running.log.contains(of_no_use), warned, "{}", running.log);
        assert_eq!(site.count().await, KEYS as i64, "{}", running.log);
        site.put(0).await;
        running.kill().await;
    }
    site.start().await.stop().await;
    assert_ne!(contents(&index), files, "a new one, and the old one is gone");
    assert_eq!(contents(&index).len(), 1);
    fs::remove_dir_all(&index).expect("it can be removed");
    site.is_whole().await;
}

#[tokio::test]
async fn tables_without_a_log_are_refused() {
    let site = Site::filled(8, &[]).await;
    let aside = site.dir.path().join("aside");
    fs::rename(site.wal(), &aside).expect("it can be moved");
    let before = contents(&site.data());
    refused(&site.flags(), 1, "holds no log").await;
    assert_eq!(contents(&site.data()), before);
    fs::rename(&aside, site.wal()).expect("it can be moved");
    site.is_whole().await;
}

#[tokio::test]
async fn lost_tables_are_rebuilt_from_a_log_that_has_everything() {
    for (slot, options) in [(9, &[][..]), (10, &["--snapshot-count", "10"])] {
        let site = Site::filled(slot, options).await;
        fs::remove_dir_all(site.data().join("member/kontiki")).expect("it can be removed");
        site.is_whole().await;
    }
}

/// A disk of its own, where we may mount one.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path, megabytes: u32) -> Option<Self> {
        fs::create_dir_all(at).expect("a directory can be made");
        let size = format!("size={megabytes}m");
        let status = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "none"])
            .arg(at)
            .stderr(Stdio::null())
            .status();
        status.is_ok_and(|s| s.success()).then(|| Self(at.to_owned()))
    }

    fn grow(&self, megabytes: u32) {
        let size = format!("remount,size={megabytes}m");
        let status = std::process::Command::new("mount").args(["-o", &size]).arg(&self.0).status();
        assert!(status.is_ok_and(|s| s.success()), "a disk that was mounted can grow");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test]
async fn a_full_disk_stops_the_member_and_loses_nothing() {
    const VALUE: usize = 256 * 1024;
    let site = Site { options: &["--snapshot-count", "20"], ..Site::new(11) };
    let Some(disk) = SmallDisk::mount(&site.data(), 100) else {
        println!("skipped: no right to mount a small disk");
        return;
    };
    let mut running = site.start().await;
    let mut acknowledged = 0;
    let mut client = site.kv();
    loop {
        let key = format!("key-{acknowledged:03}");
        let value = vec![acknowledged as u8; VALUE];
        let request = pb::PutRequest { key: key.into(), value: value.into(), ..Default::default() };
        match timeout(PATIENCE, client.put(request)).await.expect("an answer or none in time") {
            Ok(_) => acknowledged += 1,
            Err(_) => break,
        }
        assert!(acknowledged < 1_000, "the disk does not fill");
    }
    let status = timeout(PATIENCE, running.child.wait()).await.expect("it stops").expect("it is our child");
    while let Some(line) = running.lines.next_line().await.expect("its log is text") {
        running.log += &format!("{line}\n");
    }
    assert_eq!(status.code(), Some(1), "{}", running.log);
    assert!(running.log.to_lowercase().contains("no space left"), "{}", running.log);
    assert!(!running.log.contains("panicked"), "{}", running.log);
    refused_or_ready(&site).await;
    disk.grow(400);
    running = site.start().await;
    let count = site.count().await;
    assert!((acknowledged..=acknowledged + 1).contains(&(count as usize)), "{count} of {acknowledged}");
    running.kill().await;
}

/// On a disk that is still full a start may fail, but says why.
async fn refused_or_ready(site: &Site) {
    let mut child = command(&site.flags()).spawn().expect("the server's program is built");
    let mut lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
    let mut log = String::new();
    while let Ok(Some(line)) = timeout(PATIENCE, lines.next_line()).await.expect("it starts or ends") {
        log += &format!("{line}\n");
        if line.contains("ready to serve client requests") {
            child.start_kill().expect("it is our child");
            child.wait().await.expect("it is our child");
            return;
        }
    }
    assert_eq!(child.wait().await.expect("it is our child").code(), Some(1), "{log}");
    assert!(log.to_lowercase().contains("no space left") && !log.contains("panicked"), "{log}");
}
