//! The `ctl` program as a process: exit codes and sentences without a server, and how it goes about a server that
//! fails, which here is a scripted one.
#![cfg(not(madsim))]

use std::{
    net::SocketAddr,
    process::{Output, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use kontiki::wire::etcdserverpb::{
    self as pb,
    kv_server::{Kv, KvServer},
    watch_request::RequestUnion,
    watch_server::{Watch, WatchServer},
};
use tokio::{io::AsyncReadExt, net::TcpListener, process::Command};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

fn ctl(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kontiki"));
    command.arg("ctl").args(words).stdin(Stdio::null()).kill_on_drop(true);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ETCDCTL_")) {
        command.env_remove(name);
    }
    command
}

async fn run(words: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = ctl(words).output().await.expect("the binary runs");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (status.code(), text(stdout), text(stderr))
}

#[tokio::test]
async fn lines_that_need_no_server() {
    assert_eq!(
        run(&["version"]).await,
        (Some(0), "etcdctl version: 3.5.1\nAPI version: 3.5\n".into(), "".into())
    );
    for (words, code, stderr) in [
        (
            &["nosuchcmd"][..],
            1,
            "Error: unknown command \"nosuchcmd\" for \"etcdctl\"\nRun 'etcdctl --help' for usage.\nError: unknown command \"nosuchcmd\" for \"etcdctl\"\n",
        ),
        (
            &["get"],
            128,
            "Error: get command needs one argument as key and an optional argument as range_end\n",
        ),
        (&["-w", "bogus", "get", "a"], 4, "Error: unsupported output format\n"),
        (&["--endpoints=", "get", "a"], 2, "Error: etcdclient: no available endpoints\n"),
        (&["txn"], 3, "Error: EOF\n"),
        (
            &["--endpoints=https://127.0.0.1:1", "get", "a"],
            4,
            "Error: TLS is not supported yet; use http:// endpoints without certificates\n",
        ),
    ] {
        assert_eq!(run(words).await, (Some(code), String::new(), stderr.into()), "{words:?}");
    }
    let (code, stdout, stderr) = run(&["put", "-k", "v"]).await;
    assert_eq!(
        (code, stderr.as_str()),
        (Some(1), "Error: unknown shorthand flag: 'k' in -k\n\nError: unknown shorthand flag: 'k' in -k\n")
    );
    assert!(stdout.starts_with("NAME:\n\tput - "));
    let (code, stdout, _) = run(&["lease", "nosuch"]).await;
    assert_eq!(code, Some(0));
    assert!(stdout.starts_with("NAME:\n\tlease - "));
}

#[tokio::test]
async fn a_variable_and_its_flag_conflict() {
    let output =
        ctl(&["--endpoints=127.0.0.1:1", "get", "a"]).env("ETCDCTL_ENDPOINTS", "127.0.0.1:2").output().await;
    let output = output.expect("the binary runs");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("\"environment-variable\":\"ETCDCTL_ENDPOINTS\"")
    );
}

/// A server that fails as it is told.
#[derive(Default)]
struct Script {
    /// Calls to refuse as unavailable before the first that is served.
    refuse: AtomicU32,
    ranges: AtomicU32,
    puts: AtomicU32,
    /// Start revisions of the watches that were created.
    watches: Mutex<Vec<i64>>,
}

impl Script {
    fn refused(&self) -> Result<(), Status> {
        let left = self.refuse.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if left.is_ok() { Err(Status::unavailable("etcdserver: no leader")) } else { Ok(()) }
    }
}

#[derive(Clone)]
struct Server(Arc<Script>);

#[tonic::async_trait]
impl Kv for Server {
    async fn range(&self, _: Request<pb::RangeRequest>) -> Result<Response<pb::RangeResponse>, Status> {
        self.0.ranges.fetch_add(1, Ordering::SeqCst);
        self.0.refused()?;
        Ok(Response::new(pb::RangeResponse::default()))
    }

    async fn put(&self, _: Request<pb::PutRequest>) -> Result<Response<pb::PutResponse>, Status> {
        self.0.puts.fetch_add(1, Ordering::SeqCst);
        self.0.refused()?;
        Ok(Response::new(pb::PutResponse::default()))
    }

    async fn delete_range(
        &self,
        _: Request<pb::DeleteRangeRequest>,
    ) -> Result<Response<pb::DeleteRangeResponse>, Status> {
        Err(Status::unimplemented("not in the script"))
    }

    async fn txn(&self, _: Request<pb::TxnRequest>) -> Result<Response<pb::TxnResponse>, Status> {
        Err(Status::unimplemented("not in the script"))
    }

    async fn compact(
        &self,
        _: Request<pb::CompactionRequest>,
    ) -> Result<Response<pb::CompactionResponse>, Status> {
        // Never answers.
        std::future::pending().await
    }

    type RangeStreamStream = ReceiverStream<Result<pb::RangeStreamResponse, Status>>;

    async fn range_stream(
        &self,
        _: Request<pb::RangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        Err(Status::unimplemented("not in the script"))
    }
}

#[tonic::async_trait]
impl Watch for Server {
    type WatchStream = ReceiverStream<Result<pb::WatchResponse, Status>>;

    /// Answers each stream with one progress notice, ten revisions further each time, and then breaks it.
    async fn watch(
        &self,
        request: Request<Streaming<pb::WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        assert_eq!(request.metadata().get("hasleader").map(|value| value.as_bytes()), Some(&b"true"[..]));
        let first = request.into_inner().message().await?.and_then(|request| request.request_union);
        let Some(RequestUnion::CreateRequest(create)) = first else {
            return Err(Status::invalid_argument("no watch"));
        };
        let count = {
            let mut watches = self.0.watches.lock().expect("no test panics with it");
            watches.push(create.start_revision);
            watches.len() as i64
        };
        let header = |revision| Some(pb::ResponseHeader { revision, ..Default::default() });
        let created = pb::WatchResponse { header: header(5), created: true, ..Default::default() };
        let progress = pb::WatchResponse { header: header(10 * count), ..Default::default() };
        let (sender, receiver) = tokio::sync::mpsc::channel(3);
        for answer in [Ok(created), Ok(progress), Err(Status::unavailable("etcdserver: no leader"))] {
            sender.send(answer).await.expect("there is room");
        }
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

/// Starts a scripted server; it ends with the test.
async fn serve(refuse: u32) -> (Arc<Script>, SocketAddr) {
    let script = Arc::new(Script { refuse: refuse.into(), ..Script::default() });
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let server = Server(script.clone());
    tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(KvServer::new(server.clone()))
            .add_service(WatchServer::new(server))
            .serve_with_incoming(TcpListenerStream::new(listener)),
    );
    (script, address)
}

#[tokio::test]
async fn reads_are_tried_again_and_writes_are_not() {
    let (script, address) = serve(3).await;
    let endpoints = format!("--endpoints={address}");
    let (code, _, stderr) = run(&[&endpoints, "get", "a"]).await;
    assert_eq!((code, script.ranges.load(Ordering::SeqCst)), (Some(0), 4));
    assert_eq!(stderr.lines().filter(|line| line.contains("retrying of unary invoker failed")).count(), 3);

    let (script, address) = serve(1).await;
    let endpoints = format!("--endpoints={address}");
    let (code, _, stderr) = run(&[&endpoints, "put", "a", "b"]).await;
    assert_eq!((code, script.puts.load(Ordering::SeqCst)), (Some(1), 1));
    assert!(stderr.ends_with("Error: etcdserver: no leader\n"), "{stderr}");
}

#[tokio::test]
async fn an_endpoint_that_is_down_is_passed_over() {
    let (script, address) = serve(0).await;
    let (code, stdout, _) = run(&[&format!("--endpoints=127.0.0.1:1,{address}"), "put", "a", "b"]).await;
    assert_eq!((code, stdout.as_str(), script.puts.load(Ordering::SeqCst)), (Some(0), "OK\n", 1));
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_given_up_in_time() {
    let (_, address) = serve(0).await;
    let (code, _, stderr) =
        run(&[&format!("--endpoints={address}"), "--command-timeout=300ms", "compaction", "5"]).await;
    assert_eq!(code, Some(1));
    assert!(stderr.ends_with("Error: context deadline exceeded\n"), "{stderr}");
}

#[tokio::test]
async fn a_watch_goes_on_where_it_broke_off() {
    let (script, address) = serve(0).await;
    let mut child = ctl(&[&format!("--endpoints={address}"), "watch", "a"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary runs");
    let mut stdout = child.stdout.take().expect("it is piped");
    let expect = "progress notify: 10\nprogress notify: 20\nprogress notify: 30\n";
    let mut seen = vec![0; expect.len()];
    let read = tokio::time::timeout(Duration::from_secs(20), stdout.read_exact(&mut seen)).await;
    read.expect("in time").expect("three notices");
    assert_eq!(String::from_utf8_lossy(&seen), expect);
    child.kill().await.expect("it runs");
    // Created at 5 when it was first made; each new stream starts after the last notice.
    assert_eq!(script.watches.lock().expect("no test panics with it")[..3], [0, 11, 21]);
}
