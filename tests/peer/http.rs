//! The client port: gRPC and HTTP side by side, and each answer as etcd 3.5 gives it.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use kontiki::{
    server::{
        http::{Access, Endpoints, HttpService, RaftVars, Versions, client_router, http_router},
        listen::{ServeOptions, serve},
        metrics::Metrics,
    },
    state::{Alarm, AlarmKind},
    types::NodeId,
};

use crate::support::{Raw, listen, raw};

/// What the member is to be like.
#[derive(Clone, Default)]
struct Mood {
    alarms: Vec<AlarmKind>,
    leader: bool,
    learner: bool,
    linearizable: Option<&'static str>,
    serializable: Option<&'static str>,
}

struct Moody(Mutex<Mood>);

impl Moody {
    fn mood(&self) -> Mood {
        self.0.lock().expect("no test panics with it").clone()
    }
}

#[tonic::async_trait]
impl HttpService for Moody {
    fn versions(&self) -> Versions {
        Versions { server: "3.5.1".into(), cluster: Some("3.5.0".into()), storage: None }
    }

    fn alarms(&self) -> Vec<Alarm> {
        self.mood().alarms.into_iter().map(|kind| Alarm { member: NodeId(1), kind }).collect()
    }

    fn has_leader(&self) -> bool {
        self.mood().leader
    }

    fn is_learner(&self) -> bool {
        self.mood().learner
    }

    async fn probe_read(&self, linearizable: bool) -> Result<(), String> {
        let mood = self.mood();
        let error = if linearizable { mood.linearizable } else { mood.serializable };
        error.map_or(Ok(()), |error| Err(error.to_owned()))
    }

    fn raft_vars(&self) -> RaftVars {
        RaftVars { id: NodeId(0x2d), state: "StateLeader", ..Default::default() }
    }
}

struct Port {
    address: SocketAddr,
    moody: Arc<Moody>,
    metrics: Arc<Metrics>,
}

impl Port {
    async fn start(access: Access, metrics_only: bool) -> Self {
        let listener = listen(0).await;
        let address = listener.local_addr().expect("it is bound");
        let moody = Arc::new(Moody(Mutex::new(Mood { leader: true, ..Default::default() })));
        let metrics = Arc::new(Metrics::new(NodeId(0x2d), "3.5.1", true));
        let service: Arc<dyn HttpService> = Arc::clone(&moody) as _;
        let metrics_ = Arc::clone(&metrics);
        let endpoints =
            Arc::new(Endpoints { service, metrics: metrics_, access, gateway: None, metrics_only });
        let service = if metrics_only {
            http_router(endpoints)
        } else {
            let (_, health) = tonic_health::server::health_reporter();
            client_router(tonic::service::Routes::new(health).prepare().into_axum_router(), endpoints)
        };
        tokio::spawn(serve(listener, service, ServeOptions::default(), std::future::pending()));
        Self { address, moody, metrics }
    }

    fn set(&self, mood: Mood) {
        *self.moody.0.lock().expect("no test panics with it") = mood;
    }

    async fn get(&self, path: &str) -> Raw {
        raw(self.address, &format!("GET {path}"), &[], "").await
    }

    fn page(&self) -> String {
        String::from_utf8(self.metrics.render()).expect("text")
    }
}

const METHODS: &str = "Access-Control-Allow-Methods: POST, GET, OPTIONS, PUT, DELETE";
const HEADERS: &str = "Access-Control-Allow-Headers: accept, content-type, authorization";
const ANY: &str = "Access-Control-Allow-Origin: *";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_answer_as_etcds_do() {
    let port = Port::start(Access::default(), false).await;
    let text = "Content-Type: text/plain; charset=utf-8";
    let json = "Content-Type: application/json";
    let not_found = "404 page not found\n";
    let not_allowed = "Method Not Allowed\n";
    let version = r#"{"etcdserver":"3.5.1","etcdcluster":"3.5.0"}"#;
    let healthy = r#"{"health":"true","reason":""}"#;
    let cases: &[(&str, u16, &str, &str)] = &[
        ("GET /version", 200, json, version),
        ("POST /version", 405, text, not_allowed),
        ("GET /version/", 404, text, not_found),
        ("GET /health", 200, text, healthy),
        ("GET /health?serializable=bogus", 200, text, healthy),
        ("POST /health", 405, text, not_allowed),
        ("HEAD /health", 405, text, ""),
        ("GET /", 404, text, not_found),
        ("GET /nosuch", 404, text, not_found),
        ("GET /members", 404, text, not_found),
        ("GET /raft", 404, text, not_found),
        ("GET /v2/keys", 404, text, not_found),
        ("POST /v3/kv/range", 404, text, not_found),
        ("GET /debug/pprof/", 404, text, not_found),
        ("GET /livez", 200, text, "ok\n"),
        ("GET /livez?verbose", 200, text, "[+]serializable_read ok\nok\n"),
        ("POST /livez", 405, text, not_allowed),
        ("GET /readyz", 200, text, "ok\n"),
        ("GET /readyz/linearizable_read?verbose", 200, text, "[+]linearizable_read ok\nok\n"),
        ("GET /livez/linearizable_read", 404, text, not_found),
        ("GET /livezoo", 404, text, not_found),
    ];
    for (start, status, kind, body) in cases {
        let answer = raw(port.address, start, &[], "").await;
        assert_eq!((answer.status, answer.body.as_str()), (*status, *body), "{start}");
        for line in [*kind, METHODS, HEADERS, ANY] {
            assert!(answer.has(line), "{start}: {line} is not in\n{}", answer.head);
        }
        assert_eq!(answer.has("X-Content-Type-Options: nosniff"), *status != 200, "{start}");
        assert_eq!(answer.has("Allow: GET"), *status == 405, "{start}");
    }
    let metrics = raw(port.address, "POST /metrics", &[], "").await;
    assert!(metrics.has("Content-Type: text/plain; version=0.0.4; charset=utf-8"));
    assert!(metrics.body.contains("# TYPE etcd_server_has_leader gauge"));
    let vars = port.get("/debug/vars").await;
    assert!(vars.has("Content-Type: application/json; charset=utf-8"));
    let vars: serde_json::Value = serde_json::from_str(&vars.body).expect("it is JSON");
    assert_eq!(vars["raft.status"]["raftState"], "StateLeader");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_looks_at_alarms_then_the_leader_then_a_read() {
    let port = Port::start(Access::default(), false).await;
    let sick = |reason: &str| (503, format!("{{\"health\":\"false\",\"reason\":\"{reason}\"}}\n"));
    let well = (200, r#"{"health":"true","reason":""}"#.to_owned());
    let alarmed =
        Mood { alarms: vec![AlarmKind::NoSpace, AlarmKind::Corrupt], leader: true, ..Default::default() };
    let orphan = Mood::default();
    let slow =
        Mood { leader: true, linearizable: Some("etcdserver: request timed out"), ..Default::default() };
    let cases = [
        (&alarmed, "/health", sick("ALARM NOSPACE")),
        (&alarmed, "/health?serializable=true", sick("ALARM NOSPACE")),
        (&alarmed, "/health?exclude=NOSPACE", sick("ALARM CORRUPT")),
        (&alarmed, "/health?exclude=CORRUPT", sick("ALARM NOSPACE")),
        (&alarmed, "/health?exclude=nospace&exclude=CORRUPT", sick("ALARM NOSPACE")),
        (&alarmed, "/health?exclude=NOSPACE&exclude=CORRUPT", well.clone()),
        (&orphan, "/health", sick("RAFT NO LEADER")),
        (&orphan, "/health?serializable=true", well.clone()),
        (&slow, "/health", sick("RANGE ERROR:etcdserver: request timed out")),
        (&slow, "/health?serializable=true", well.clone()),
    ];
    for (mood, path, expected) in cases {
        port.set(mood.clone());
        let answer = port.get(path).await;
        assert_eq!((answer.status, answer.body), expected, "{path}");
    }
    let page = port.page();
    assert!(
        page.contains("etcd_server_health_success 3\n") && page.contains("etcd_server_health_failures 7\n")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readiness_names_what_fails() {
    let port = Port::start(Access::default(), false).await;
    port.set(Mood {
        alarms: vec![AlarmKind::NoSpace, AlarmKind::Corrupt],
        leader: true,
        learner: true,
        linearizable: Some("etcdserver: no leader"),
        serializable: None,
    });
    let answer = port.get("/readyz").await;
    let expected = "[-]data_corruption failed: alarm activated: CORRUPT\n[+]serializable_read ok\n\
                    [-]linearizable_read failed: etcdserver: no leader\n\
                    [-]non_learner failed: not supported for learner\n\n";
    assert_eq!((answer.status, answer.body.as_str()), (503, expected));
    assert_eq!(port.get("/livez").await.status, 200);
    let excluded =
        "/readyz?exclude=data_corruption&exclude=linearizable%5Fread&exclude=non_learner&exclude=nonsense";
    assert_eq!(port.get(excluded).await.status, 200);
    assert!(port.page().contains("etcd_server_healthcheck{name=\"linearizable_read\",type=\"readyz\"} 0"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_and_origins_are_checked() {
    let access =
        Access { cors: vec!["http://a.example:80".into()], hosts: vec!["example.com".into()], tls: false };
    let port = Port::start(access, false).await;
    for host in ["example.com", "example.com:2379"] {
        let answer = raw(port.address, "GET /health", &[("Host", host)], "").await;
        assert_eq!(answer.status, 200);
        assert!(!answer.head.contains("Access-Control"));
    }
    for host in ["evil.com", "127.0.0.1:2579"] {
        let answer = raw(port.address, "GET /v3/kv/range", &[("Host", host)], "").await;
        assert!(answer.head.starts_with("HTTP/1.1 421 Misdirected Request\r\n"));
        assert!(
            answer.body.starts_with("\netcd received your request, but the Host header was unrecognized.\n")
        );
        assert!(!answer.head.contains("Access-Control"));
    }
    for (origin, allowed) in [("http://a.example:80", true), ("http://b.example:80", false)] {
        for start in ["GET /version", "OPTIONS /v3/kv/range"] {
            let answer = raw(port.address, start, &[("Host", "example.com"), ("Origin", origin)], "").await;
            assert_eq!(answer.status, 200);
            assert_eq!(
                answer.has(&format!("Access-Control-Allow-Origin: {origin}")),
                allowed,
                "{start} {origin}"
            );
            assert_eq!(answer.has(METHODS), allowed);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_metrics_port_has_metrics_and_health_alone() {
    let port = Port::start(Access::default(), true).await;
    for (path, status) in [
        ("/metrics", 200),
        ("/health", 200),
        ("/livez", 200),
        ("/version", 404),
        ("/debug/vars", 404),
        ("/", 404),
    ] {
        let answer = port.get(path).await;
        assert_eq!(answer.status, status, "{path}");
        assert!(!answer.head.contains("Access-Control"), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpc_is_served_and_counted_on_the_same_port() {
    let port = Port::start(Access { hosts: vec!["example.com".into()], ..Default::default() }, false).await;
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", port.address))
        .expect("a URL")
        .connect()
        .await
        .expect("it listens");
    let mut client = tonic_health::pb::health_client::HealthClient::new(channel);
    let known = tonic_health::pb::HealthCheckRequest { service: String::new() };
    client.check(known).await.expect("the host check is not gRPC's");
    let unknown = tonic_health::pb::HealthCheckRequest { service: "nonsense".into() };
    let status = client.check(unknown).await.expect_err("it is unknown");
    assert_eq!(status.code(), tonic::Code::NotFound);
    let labels = "grpc_method=\"Check\",grpc_service=\"grpc.health.v1.Health\",grpc_type=\"unary\"}";
    let page = port.page();
    for line in [
        format!("grpc_server_started_total{{{labels} 2"),
        format!("grpc_server_msg_received_total{{{labels} 2"),
        format!("grpc_server_msg_sent_total{{{labels} 1"),
        format!("grpc_server_handled_total{{grpc_code=\"OK\",{labels} 1"),
        format!("grpc_server_handled_total{{grpc_code=\"NotFound\",{labels} 1"),
        format!("grpc_server_handling_seconds_count{{{labels} 2"),
        "etcd_server_client_requests_total{client_api_version=\"unknown\",type=\"unary\"} 2".to_owned(),
    ] {
        assert!(page.lines().any(|l| l == line), "{line} is not in\n{page}");
    }
}
