//! Starts a member of each kind and ends it again.

use std::{
    env,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use kontiki::wire::etcdserverpb::{self as pb, maintenance_client::MaintenanceClient};
use tempfile::TempDir;
use tonic::{
    Request,
    transport::{Channel, Endpoint},
};

/// A running member.
pub struct Server {
    child: Child,
    _dir: TempDir,
    pub channel: Channel,
    pub member: u64,
    pub client_url: String,
    pub peer_url: String,
    /// What requests carry; empty for none.
    pub token: String,
}

/// The judge and the judged.
pub struct Pair {
    pub etcd: Server,
    pub kontiki: Server,
    /// Both sides are the same program.
    pub self_check: bool,
}

impl Pair {
    pub async fn start(test: u16) -> Self {
        let etcd = env::var("ETCD_BIN").expect("ETCD_BIN has to name a real etcd");
        let kontiki = env::var("KONTIKI_BIN").unwrap_or_else(|_| env!("CARGO_BIN_EXE_kontiki").to_owned());
        let base = env::var("CONTRACT_PORTS").map_or(25_100, |text| text.parse::<u16>().expect("a port"));
        let port = base + 4 * test;
        let self_check = etcd == kontiki;
        let (etcd, kontiki) = tokio::join!(Server::start(&etcd, port), Server::start(&kontiki, port + 2));
        Self { etcd, kontiki, self_check }
    }
}

impl Server {
    async fn start(program: &str, port: u16) -> Self {
        let dir = tempfile::tempdir().expect("a directory for the data");
        let client_url = format!("http://127.0.0.1:{port}");
        let peer_url = format!("http://127.0.0.1:{}", port + 1);
        let log = std::fs::File::create(dir.path().join("log")).expect("a file for the log");
        let child = Command::new(program)
            .args(["--name", "contract", "--data-dir"])
            .arg(dir.path().join("data"))
            .args(["--listen-client-urls", &client_url, "--advertise-client-urls", &client_url])
            .args(["--listen-peer-urls", &peer_url, "--initial-advertise-peer-urls", &peer_url])
            .args(["--initial-cluster", &format!("contract={peer_url}")])
            .args(["--experimental-watch-progress-notify-interval", "1s"])
            .env_clear()
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log's handle"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{program}: {error}"));
        let channel = Endpoint::from_shared(client_url.clone()).expect("a URL").connect_lazy();
        let token = String::new();
        let mut server = Self { child, _dir: dir, channel, member: 0, client_url, peer_url, token };
        server.member = server.ready(program).await;
        server
    }

    /// A message as a request, with the token that there is.
    pub fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if !self.token.is_empty() {
            let token = self.token.parse().expect("a token is plain text");
            request.metadata_mut().insert("token", token);
        }
        request
    }

    /// Waits until it leads and knows its cluster's version, which the leader decides after a while.
    async fn ready(&mut self, program: &str) -> u64 {
        let mut client = MaintenanceClient::new(self.channel.clone());
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            if let Ok(Some(exit)) = self.child.try_wait() {
                let log = std::fs::read_to_string(self._dir.path().join("log")).unwrap_or_default();
                panic!("{program} ended: {exit}\n{log}");
            }
            let validate = pb::DowngradeRequest { action: 0, version: "3.4.0".to_owned() };
            if client.downgrade(validate).await.is_ok()
                && let Ok(status) = client.status(pb::StatusRequest {}).await
                && status.get_ref().leader != 0
            {
                return status.into_inner().leader;
            }
            assert!(Instant::now() < until, "{program} was not ready in time");
            // Another process: there is no event to wait for.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
