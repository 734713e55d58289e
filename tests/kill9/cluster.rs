//! Members as processes.

use std::{
    env,
    fs::OpenOptions,
    io::Write as _,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use kontiki::wire::etcdserverpb::{
    self as pb, cluster_client::ClusterClient, kv_client::KvClient, lease_client::LeaseClient,
    maintenance_client::MaintenanceClient, watch_client::WatchClient,
};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    sync::watch,
    task::JoinHandle,
    time::timeout,
};
use tonic::transport::{Channel, Endpoint};

use super::{net::Net, record::Recorder};

/// How long anything may take on a busy machine before it counts as hanging.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Who is asked for a sign of life more often than every five seconds objects; without one, a connection on a line that
/// was cut seems to live.
const PING: Duration = Duration::from_secs(6);
const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// Whether a process serves clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Down,
    Starting,
    Ready,
}

/// How clients reach a member.
#[derive(Clone)]
pub struct Contact {
    pub name: String,
    pub client_url: String,
    pub peer_url: String,
    pub channel: Channel,
    pub state: watch::Receiver<State>,
}

impl Contact {
    /// The member's, from 0.
    pub fn number(&self) -> u32 {
        self.name.trim_start_matches('m').parse().expect("a member is called m and its number")
    }
    pub fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel.clone())
    }
    pub fn watch(&self) -> WatchClient<Channel> {
        WatchClient::new(self.channel.clone()).max_decoding_message_size(usize::MAX)
    }
    pub fn lease(&self) -> LeaseClient<Channel> {
        LeaseClient::new(self.channel.clone())
    }
    pub fn maintenance(&self) -> MaintenanceClient<Channel> {
        MaintenanceClient::new(self.channel.clone())
    }
    pub fn cluster(&self) -> ClusterClient<Channel> {
        ClusterClient::new(self.channel.clone())
    }

    /// Whether its process serves clients.
    pub fn is_ready(&self) -> bool {
        *self.state.borrow() == State::Ready
    }

    /// Waits until its process serves clients.
    pub async fn ready(&self) {
        let mut state = self.state.clone();
        timeout(PATIENCE, state.wait_for(|s| *s == State::Ready))
            .await
            .unwrap_or_else(|_| panic!("{} does not get ready", self.name))
            .expect("the cluster outlives its clients");
    }
}

/// A member, whether it runs or not.
pub struct Member {
    pub contact: Contact,
    pub dir: PathBuf,
    pub log: PathBuf,
    state: watch::Sender<State>,
    running: Option<(Child, JoinHandle<()>)>,
    /// How often it was started.
    starts: u32,
}

/// Members and where they live.
pub struct Cluster {
    pub members: Vec<Member>,
    pub options: Vec<String>,
    /// Is told of starts and ends.
    pub recorder: Arc<Recorder>,
    site: Site,
    dir: TempDir,
}

/// Where members run.
pub enum Site {
    /// On loopback, from a port on.
    Loopback(u16),
    /// Each in a namespace.
    Net(Arc<Net>),
}

impl Site {
    /// Tests that run at once have slots of 20 ports.
    pub fn loopback(slot: u16) -> Self {
        Self::Loopback(port_base() + 20 * slot)
    }

    /// Where a member listens for clients and for peers.
    fn urls(&self, at: usize) -> (String, String) {
        match self {
            Self::Loopback(base) => {
                let port = base + 2 * u16::try_from(at).expect("a few members");
                (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{}", port + 1))
            }
            Self::Net(net) => net.urls(at),
        }
    }

    fn command(&self, at: usize, program: &str) -> Command {
        match self {
            Self::Loopback(_) => Command::new(program),
            Self::Net(net) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", &net.space(at), program]);
                command
            }
        }
    }
}

/// What members run: the server under test, or what `KONTIKI_BIN` names.
fn program() -> String {
    env::var("KONTIKI_BIN").unwrap_or_else(|_| env!("CARGO_BIN_EXE_kontiki").to_owned())
}

/// Whether the program has a flag: some of etcd's versions lack what others have.
pub fn has_flag(flag: &str) -> bool {
    let help = std::process::Command::new(program()).arg("--help").output().expect("the program runs");
    [help.stdout, help.stderr].iter().any(|text| String::from_utf8_lossy(text).contains(flag))
}

fn port_base() -> u16 {
    env::var("KONTIKI_KILL9_PORTS").map_or(24_300, |text| text.parse().expect("a port"))
}

impl Cluster {
    /// Members that have not been started.
    pub fn new(site: Site, count: usize, options: &[&str], recorder: Arc<Recorder>) -> Self {
        let dir = tempfile::tempdir().expect("a directory for the data");
        let options = options.iter().map(|o| (*o).to_owned()).collect();
        let mut cluster = Self { members: Vec::new(), options, recorder, site, dir };
        for _ in 0..count {
            cluster.add_member();
        }
        cluster
    }

    /// One more, not started; its place.
    pub fn add_member(&mut self) -> usize {
        let at = self.members.len();
        let name = format!("m{at}");
        let (client_url, peer_url) = self.site.urls(at);
        let channel = Endpoint::from_shared(client_url.clone())
            .expect("a URL")
            .connect_timeout(Duration::from_secs(1))
            .http2_keep_alive_interval(PING)
            .keep_alive_timeout(PING_TIMEOUT)
            .connect_lazy();
        let (sender, state) = watch::channel(State::Down);
        let contact = Contact { name: name.clone(), client_url, peer_url, channel, state };
        let (dir, log) = (self.dir.path().join(&name), self.dir.path().join(format!("{name}.log")));
        self.members.push(Member { contact, dir, log, state: sender, running: None, starts: 0 });
        at
    }

    pub fn contacts(&self) -> Vec<Contact> {
        self.members.iter().map(|m| m.contact.clone()).collect()
    }

    /// The value of `--initial-cluster` for these.
    pub fn initial(&self, members: &[usize]) -> String {
        let one = |at: &usize| {
            let contact = &self.members[*at].contact;
            format!("{}={}", contact.name, contact.peer_url)
        };
        members.iter().map(one).collect::<Vec<_>>().join(",")
    }

    pub fn start_all(&mut self) {
        let all: Vec<usize> = (0..self.members.len()).collect();
        for at in &all {
            self.start(*at, &all, &[]);
        }
    }

    /// Starts a member of the cluster that `initial` make up.
    pub fn start(&mut self, at: usize, initial: &[usize], more: &[&str]) {
        let initial = self.initial(initial);
        let member = &mut self.members[at];
        assert!(member.running.is_none(), "{} runs already", member.contact.name);
        let Contact { name, client_url, peer_url, .. } = &member.contact;
        self.recorder.booted(member.contact.number(), member.starts);
        member.starts += 1;
        let mut child = self
            .site
            .command(at, &program())
            .args(["--name", name, "--initial-cluster", &initial, "--data-dir"])
            .arg(&member.dir)
            .args(["--listen-client-urls", client_url, "--advertise-client-urls", client_url])
            .args(["--listen-peer-urls", peer_url, "--initial-advertise-peer-urls", peer_url])
            .args(&self.options)
            .args(more)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the server's program is built");
        let lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        member.state.send_replace(State::Starting);
        let listening = tokio::spawn(listen(lines, member.log.clone(), member.state.clone()));
        member.running = Some((child, listening));
    }

    /// `SIGKILL`, and until it is gone.
    pub async fn kill(&mut self, at: usize) {
        let member = &mut self.members[at];
        let Some((mut child, listening)) = member.running.take() else { return };
        if let Some(status) = child.try_wait().expect("it is our child") {
            panic!("{} ended by itself: {status}\n{}", member.contact.name, tail(&member.log));
        }
        child.start_kill().expect("it is our child");
        child.wait().await.expect("it is our child");
        self.recorder.crashed(member.contact.number(), member.starts - 1);
        listening.await.expect("reading lines does not panic");
        member.state.send_replace(State::Down);
    }

    /// Whether its process is there; it may be paused.
    pub fn runs(&self, at: usize) -> bool {
        self.members[at].running.is_some()
    }

    /// `SIGSTOP`.
    pub fn pause(&self, at: usize) {
        self.signal(at, Signal::STOP);
    }

    /// `SIGCONT`; it need not have been paused.
    pub fn resume(&self, at: usize) {
        self.signal(at, Signal::CONT);
    }

    fn signal(&self, at: usize, signal: Signal) {
        let child = self.members[at].running.as_ref().map(|(child, _)| child);
        if let Some(id) = child.and_then(Child::id) {
            let pid = Pid::from_raw(id.try_into().expect("a process id")).expect("it is not 0");
            // It may have ended by itself: who waits for it will see.
            let _ = kill_process(pid, signal);
        }
    }

    /// Waits until a member ends by itself: its code and the end of its log.
    pub async fn ended(&mut self, at: usize) -> (Option<i32>, String) {
        let member = &mut self.members[at];
        let (mut child, listening) = member.running.take().expect("it runs");
        let status =
            timeout(PATIENCE, child.wait()).await.expect("it ends in time").expect("it is our child");
        listening.await.expect("reading lines does not panic");
        member.state.send_replace(State::Down);
        (status.code(), tail(&member.log))
    }

    /// Waits until all that were started serve clients.
    pub async fn ready(&mut self) {
        for member in self.members.iter_mut() {
            let Some((child, _)) = &mut member.running else { continue };
            let mut state = member.state.subscribe();
            tokio::select! {
                biased;
                up = timeout(PATIENCE, state.wait_for(|s| *s == State::Ready)) => {
                    assert!(up.is_ok(), "{} does not get ready\n{}", member.contact.name, tail(&member.log));
                }
                status = child.wait() => {
                    panic!("{} ended by itself: {status:?}\n{}", member.contact.name, tail(&member.log));
                }
            }
        }
    }

    /// The end of each member's log, for who has to find out what happened.
    pub fn tails(&self) -> String {
        self.members.iter().map(|m| format!("--- {}\n{}\n", m.contact.name, tail(&m.log))).collect()
    }

    /// All that was logged must be without a panic.
    pub fn assert_no_panic(&self) {
        for member in &self.members {
            let log = std::fs::read_to_string(&member.log).unwrap_or_default();
            assert!(!log.contains("panicked at"), "{}\n{log}", member.contact.name);
        }
    }

    /// Asks a member who is in the cluster, in order of their ids.
    pub async fn member_list(&self, at: usize) -> Vec<pb::Member> {
        let request = pb::MemberListRequest { linearizable: true };
        let mut members = retried(|| {
            let mut client = self.members[at].contact.cluster();
            async move { client.member_list(request).await }
        })
        .await
        .members;
        members.sort_by_key(|m| m.id);
        members
    }
}

/// Calls until it succeeds: for what must work some time after the last fault.
pub async fn retried<T, F>(mut call: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
{
    let until = tokio::time::Instant::now() + PATIENCE;
    loop {
        match timeout(PATIENCE, call()).await.expect("a call ends in time") {
            Ok(answer) => return answer.into_inner(),
            Err(status) => assert!(tokio::time::Instant::now() < until, "still refused: {status}"),
        }
        // Another process: there is no event to wait for.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn listen(
    mut lines: tokio::io::Lines<BufReader<tokio::process::ChildStderr>>,
    log: PathBuf,
    state: watch::Sender<State>,
) {
    let mut file = OpenOptions::new().create(true).append(true).open(&log).expect("a file for the log");
    writeln!(file, "=== started").expect("the log can be written");
    while let Ok(Some(line)) = lines.next_line().await {
        writeln!(file, "{line}").expect("the log can be written");
        if line.contains("ready to serve client requests") {
            state.send_replace(State::Ready);
        }
    }
}

fn tail(log: &Path) -> String {
    const LINES: usize = 40;
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}
