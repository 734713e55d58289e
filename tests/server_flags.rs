//! The server's flags, as a real etcd 3.5.1 takes and refuses them.
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use kontiki::{
    cli::{
        Role, role,
        server::{Note, Start, Stop, parse, rfc3339},
    },
    server::{
        config::{AutoCompaction, Config, ConfigError, InitialState},
        go_duration::parse_go_duration,
    },
};

/// Splits a command line at spaces; variables come first, as in a shell. `''` is an empty word.
fn run(line: &str) -> Result<Start, Stop> {
    let mut env = BTreeMap::new();
    let mut args = Vec::new();
    for word in line.split_whitespace() {
        match word.split_once('=') {
            Some((key, value)) if args.is_empty() && key.starts_with("ETCD") => {
                env.insert(key.to_owned(), value.to_owned());
            }
            Some(_) | None => args.push(if word == "''" { String::new() } else { word.to_owned() }),
        }
    }
    parse(&args, &env)
}

fn config(line: &str) -> Config {
    run(line).unwrap_or_else(|stop| panic!("{line}: {stop:?}")).config
}

fn field(note: &Note, name: &str) -> String {
    let field = note.fields.iter().find(|(field, _)| *field == name);
    field.and_then(|(_, value)| value.as_str()).unwrap_or_default().to_owned()
}

fn texts<T: ToString>(items: &[T]) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}

#[test]
fn defaults_are_etcds() {
    let config = config("");
    assert_eq!(config.name, "default");
    assert_eq!(config.data_dir, PathBuf::from("default.etcd"));
    assert_eq!(config.wal_dir, None);
    assert_eq!((config.heartbeat_ms, config.election_ms, config.election_ticks()), (100, 1_000, 10));
    assert_eq!((config.snapshot_count, config.snapshot_catchup_entries), (100_000, 5_000));
    assert_eq!(texts(&config.listen_peer), ["http://localhost:2380"]);
    assert_eq!(texts(&config.advertise_client), ["http://localhost:2379"]);
    assert_eq!(config.initial_cluster, "default=http://localhost:2380");
    assert_eq!(config.quota_bytes(), Some(2 << 30));
    assert_eq!(config.auto_compaction(), Ok(AutoCompaction::Off));
    assert_eq!(config.request_timeout(), Duration::from_secs(7));
    assert!(config.pre_vote && config.strict_reconfig_check && config.enable_grpc_gateway);
    let roster = config.initial_roster().unwrap();
    assert_eq!(roster.initial_cluster_id().to_string(), "cdf818194e3a8c32");
}

#[test]
fn each_spelling_is_one_flag() {
    for line in ["--name x", "-name x", "--name=x", "-name=x", "ETCD_NAME=x", "--name y --name x"] {
        let config = config(line);
        assert_eq!(config.name, "x", "{line}");
        assert_eq!(config.data_dir, PathBuf::from("x.etcd"), "{line}");
        assert_eq!(config.initial_cluster, "x=http://localhost:2380", "{line}");
    }
    for (line, on) in [
        ("--unsafe-no-fsync", true),
        ("-unsafe-no-fsync", true),
        ("--unsafe-no-fsync=T", true),
        ("--unsafe-no-fsync=0", false),
        ("ETCD_UNSAFE_NO_FSYNC=true", true),
        ("ETCD_UNSAFE_NO_FSYNC=", false),
    ] {
        assert_eq!(config(line).unsafe_no_fsync, on, "{line}");
    }
    assert_eq!(config("--heartbeat-interval 0x64 --election-timeout 0o1750").election_ms, 1_000);
    assert_eq!(config("--").name, "default");
}

#[test]
fn values_arrive() {
    let peers = "n1=http://127.0.0.1:1,n2=http://127.0.0.1:2";
    let config = config(&format!(
        "ETCD_SNAPSHOT_COUNT=7 --name n1 --data-dir d --wal-dir w --heartbeat-interval 50 --election-timeout 250 \
         --listen-peer-urls http://127.0.0.1:1,http://0.0.0.0:9,http://127.0.0.1:1 \
         --listen-client-urls http://[::1]:3 --listen-client-http-urls http://127.0.0.1:5 \
         --listen-metrics-urls http://127.0.0.1:4 --initial-advertise-peer-urls http://127.0.0.1:1 \
         --advertise-client-urls http://host:3 --initial-cluster {peers} --initial-cluster-state existing \
         --initial-cluster-token tok --strict-reconfig-check=false --pre-vote=false --max-learners 3 \
         --auto-compaction-mode revision --auto-compaction-retention 1000 --quota-backend-bytes -1 \
         --max-request-bytes 5 --max-txn-ops 6 --max-wals 7 --max-snapshots 8 --max-concurrent-streams 9 \
         --grpc-keepalive-min-time 1s --grpc-keepalive-interval 1h1m --grpc-keepalive-timeout 1.5s \
         --force-new-cluster --initial-election-tick-advance=false --log-level warn --log-outputs stdout,x \
         --log-format console --metrics extensive --enable-pprof --enable-grpc-gateway=false \
         --host-whitelist a,b --cors http://o:1 --watch-progress-notify-interval 2s \
         --compaction-batch-limit 11 --snapshot-catchup-entries 12 --experimental-initial-corrupt-check"
    ));
    assert_eq!(config.snapshot_count, 7);
    assert_eq!((config.data_dir.to_str(), config.wal_dir), (Some("d"), Some("w".into())));
    assert_eq!((config.heartbeat_ms, config.election_ms), (50, 250));
    assert_eq!(texts(&config.listen_peer), ["http://0.0.0.0:9", "http://127.0.0.1:1"]);
    assert_eq!(texts(&config.listen_client), ["http://[::1]:3"]);
    assert_eq!(texts(&config.listen_client_http), ["http://127.0.0.1:5"]);
    assert_eq!(texts(&config.listen_metrics), ["http://127.0.0.1:4"]);
    assert_eq!(texts(&config.advertise_peer), ["http://127.0.0.1:1"]);
    assert_eq!(texts(&config.advertise_client), ["http://host:3"]);
    assert_eq!(
        (config.initial_state, config.initial_cluster_token.as_str()),
        (InitialState::Existing, "tok")
    );
    assert!(!config.strict_reconfig_check && !config.pre_vote && !config.initial_election_tick_advance);
    assert!(config.force_new_cluster && config.enable_pprof && config.extensive_metrics);
    assert!(!config.enable_grpc_gateway && config.initial_corrupt_check);
    assert_eq!(config.learners_max, 3);
    assert_eq!(config.quota_backend_bytes, -1);
    assert_eq!((config.request_bytes_max, config.txn_ops_max, config.concurrent_streams_max), (5, 6, 9));
    assert_eq!((config.wals_max, config.snapshots_max), (7, 8));
    assert_eq!(config.keepalive.min_time, Duration::from_secs(1));
    assert_eq!(config.keepalive.interval, Duration::from_secs(3_660));
    assert_eq!(config.keepalive.timeout, Duration::from_millis(1_500));
    assert_eq!((config.logging.level.as_str(), config.logging.format.as_str()), ("warn", "console"));
    assert_eq!(config.logging.outputs, ["stdout", "x"]);
    assert_eq!(
        (config.host_whitelist, config.cors),
        (vec!["a".into(), "b".into()], vec!["http://o:1".to_owned()])
    );
    assert_eq!(config.watch_progress_interval, Duration::from_secs(2));
    assert_eq!((config.compaction_batch, config.snapshot_catchup_entries), (11, 12));
}

#[test]
fn what_is_no_flag_ends_with_2_and_the_usage() {
    for (line, message) in [
        ("--bogus", "flag provided but not defined: -bogus"),
        ("-bogus", "flag provided but not defined: -bogus"),
        ("--name=a --bogus=x", "flag provided but not defined: -bogus"),
        ("--name", "flag needs an argument: -name"),
        ("---name", "bad flag syntax: ---name"),
        ("--=x", "bad flag syntax: --=x"),
        ("--snapshot-count=abc", r#"invalid value "abc" for flag -snapshot-count: parse error"#),
        ("--snapshot-count=-1", r#"invalid value "-1" for flag -snapshot-count: parse error"#),
        ("--max-txn-ops -1", r#"invalid value "-1" for flag -max-txn-ops: parse error"#),
        ("--quota-backend-bytes x", r#"invalid value "x" for flag -quota-backend-bytes: parse error"#),
        (
            "--quota-backend-bytes 9223372036854775808",
            r#"invalid value "9223372036854775808" for flag -quota-backend-bytes: value out of range"#,
        ),
        (
            "--grpc-keepalive-interval 5",
            r#"invalid value "5" for flag -grpc-keepalive-interval: parse error"#,
        ),
        (
            "--grpc-keepalive-interval 5x",
            r#"invalid value "5x" for flag -grpc-keepalive-interval: parse error"#,
        ),
        (
            "--strict-reconfig-check=maybe",
            r#"invalid boolean value "maybe" for -strict-reconfig-check: parse error"#,
        ),
        ("--version=x", r#"invalid boolean value "x" for -version: parse error"#),
        (
            "--initial-cluster-state foo",
            r#"invalid value "foo" for flag -initial-cluster-state: invalid value"#,
        ),
        (
            "--listen-client-urls foo",
            r#"invalid value "foo" for flag -listen-client-urls: URL scheme must be http, https, unix, or unixs: foo"#,
        ),
        (
            "--listen-client-urls ,",
            r#"invalid value "," for flag -listen-client-urls: URL scheme must be http, https, unix, or unixs: "#,
        ),
        (
            "--listen-peer-urls http://127.0.0.1",
            r#"invalid value "http://127.0.0.1" for flag -listen-peer-urls: URL address does not have the form "host:port": http://127.0.0.1"#,
        ),
        (
            "--cors foo",
            r#"invalid value "foo" for flag -cors: URL scheme must be http, https, unix, or unixs: foo"#,
        ),
    ] {
        let Err(stop @ Stop::Usage(_)) = run(line) else { panic!("{line}: {:?}", run(line)) };
        assert_eq!(stop.exit_code(), 2);
        let Stop::Usage(text) = stop else { unreachable!() };
        let (first, usage) = text.split_once('\n').unwrap();
        assert_eq!(first, message, "{line}");
        assert!(usage.starts_with("Usage:\n"), "{usage}");
    }
}

#[test]
fn what_makes_no_sense_ends_with_1_and_a_reason() {
    let client = "--listen-client-urls http://127.0.0.1:1";
    for (line, error) in [
        ("foo", "'foo' is not a valid flag"),
        ("--name x foo", "'foo' is not a valid flag"),
        ("--name x foo --bogus", "'foo' is not a valid flag"),
        ("-- --bogus", "'--bogus' is not a valid flag"),
        ("--initial-election-tick-advance false", "'false' is not a valid flag"),
        ("--version foo", "'foo' is not a valid flag"),
        ("--heartbeat-interval 0", "--heartbeat-interval must be >0 (set to 0ms)"),
        ("--election-timeout 0", "--election-timeout must be >0 (set to 0ms)"),
        (
            "--heartbeat-interval 300",
            "--election-timeout[1000ms] should be at least as 5 times as --heartbeat-interval[300ms]",
        ),
        (
            "--election-timeout 60000",
            "--election-timeout[60000ms] is too long, and should be set less than 50000ms",
        ),
        (
            "--listen-peer-urls http://foo.example:2380",
            "expected IP in URL for binding (http://foo.example:2380)",
        ),
        (
            "--listen-client-urls http://x.y:1 --heartbeat-interval 0",
            "expected IP in URL for binding (http://x.y:1)",
        ),
        (client, "--advertise-client-urls is required when --listen-client-urls is set explicitly"),
        (
            "ETCD_LISTEN_CLIENT_URLS=http://127.0.0.1:1",
            "--advertise-client-urls is required when --listen-client-urls is set explicitly",
        ),
        (
            "--initial-advertise-peer-urls http://:2380",
            r#"--initial-advertise-peer-urls "http://:2380" must be "host:port" (unexpected empty host (http://:2380))"#,
        ),
        ("--auto-compaction-mode foo", r#"unknown auto-compaction-mode "foo""#),
        (
            "--auto-compaction-retention foo",
            r#"error parsing CompactionRetention: time: invalid duration "foo""#,
        ),
        ("--logger foo", r#"unknown logger option "foo""#),
        ("--log-level foo", r#"unrecognized level: "foo""#),
        (
            "--listen-peer-urls https://127.0.0.1:2380",
            "cannot listen on TLS for 127.0.0.1:2380: KeyFile and CertFile are not presented",
        ),
        ("ETCD_HEARTBEAT_INTERVAL=abc", r#"invalid value "abc" for ETCD_HEARTBEAT_INTERVAL: parse error"#),
        (
            "ETCD_STRICT_RECONFIG_CHECK=maybe",
            r#"invalid value "maybe" for ETCD_STRICT_RECONFIG_CHECK: parse error"#,
        ),
        (
            "ETCD_LISTEN_PEER_URLS=foo",
            r#"invalid value "foo" for ETCD_LISTEN_PEER_URLS: URL scheme must be http, https, unix, or unixs: foo"#,
        ),
        (
            "--initial-cluster x=http://a:1 --discovery http://x",
            r#"multiple discovery or bootstrap flags are set. Choose one of "initial-cluster", "discovery" or "discovery-srv""#,
        ),
        // Ours: what is not there yet is said to be so, and not left undone in silence.
        ("--cert-file x", "--cert-file is not supported yet"),
        ("--client-cert-auth", "--client-cert-auth is not supported yet"),
        ("--discovery http://x", "--discovery is not supported yet"),
        ("--config-file x", "--config-file is not supported yet"),
        ("ETCD_PEER_AUTO_TLS=true", "--peer-auto-tls is not supported yet"),
        (
            "--log-outputs systemd/journal",
            r#"log output "systemd/journal" is not supported yet: use default, stderr, stdout or a file's path"#,
        ),
    ] {
        let Err(stop @ Stop::Refuse(_)) = run(line) else { panic!("{line}: {:?}", run(line)) };
        assert_eq!(stop.exit_code(), 1);
        let Stop::Refuse(notes) = stop else { unreachable!() };
        let note = notes.iter().find(|note| note.message == "failed to verify flags").unwrap();
        assert_eq!(field(note, "error"), error, "{line}");
    }
}

#[test]
fn what_is_off_may_be_said_to_be() {
    for line in [
        "--cert-file= --client-cert-auth=false --auth-token simple --proxy off --enable-v2=0",
        "ETCD_DISCOVERY= ETCD_AUTO_TLS=false --name x",
        "--force --v=3 --snapshot --backend-batch-interval 1s --v2-deprecation gone",
    ] {
        run(line).unwrap_or_else(|stop| panic!("{line}: {stop:?}"));
    }
}

#[test]
fn variables_are_noted() {
    let start = run("ETCD_NAME=x ETCD_FOO=y ETCD_VERSION=true ETCD_DATA_DIR= ETCDCTL_API=3").unwrap();
    let notes: Vec<_> = start.notes.iter().map(|note| note.line("T")).collect();
    assert_eq!(
        notes,
        [
            r#"{"level":"warn","ts":"T","msg":"unrecognized environment variable","environment-variable":"ETCD_FOO=y"}"#,
            r#"{"level":"info","ts":"T","msg":"recognized and used environment variable","variable-name":"ETCD_NAME","variable-value":"x"}"#,
            r#"{"level":"warn","ts":"T","msg":"cannot set special environment variable","key":"ETCD_VERSION","value":"true"}"#,
        ]
    );
    // A flag and its variable together are a mistake, even if the variable is empty.
    for line in ["ETCD_NAME=x --name y", "ETCD_NAME= --name y"] {
        let Err(Stop::Refuse(notes)) = run(line) else { panic!("{line}") };
        let [note] = notes.as_slice() else { panic!("{notes:?}") };
        assert_eq!((note.level, field(note, "environment-variable").as_str()), ("fatal", "ETCD_NAME"));
        assert!(
            note.message.starts_with("conflicting environment variable is shadowed by"),
            "{}",
            note.message
        );
    }
    let start = run("--quota-backend-bytes 9000000000 --max-request-bytes 20000000").unwrap();
    assert_eq!(start.notes.len(), 2, "{:?}", start.notes);
}

#[test]
fn version_and_help_end_well() {
    let Err(stop @ Stop::Say(_)) = run("--version") else { panic!("no version") };
    assert_eq!(stop.exit_code(), 0);
    let Stop::Say(text) = stop else { unreachable!() };
    let keys: Vec<_> = text.lines().map(|line| line.split_once(": ").unwrap().0).collect();
    assert_eq!(keys, ["etcd Version", "Git SHA", "Go Version", "Go OS/Arch", "Kontiki Version"]);
    assert!(text.starts_with("etcd Version: 3.5.33\n"), "{text}");
    assert!(run("--version=false").is_ok());
    for line in ["-h", "--help", "--name x -help"] {
        let Err(Stop::Say(text)) = run(line) else { panic!("{line}") };
        assert!(text.contains("--initial-cluster-state"), "{text}");
        assert!(!text.contains("--cert-file"), "help shows what has an effect");
    }
}

#[test]
fn a_new_cluster_must_fit_what_is_advertised() {
    let own = "--name x --initial-advertise-peer-urls http://127.0.0.1:1";
    let roster = |line: &str| config(&format!("{own} {line}")).initial_roster();
    for (line, error) in [
        (
            "--initial-cluster foo",
            "error setting up initial cluster: URL scheme must be http, https, unix, or unixs: ",
        ),
        (
            "--initial-cluster x=foo",
            "error setting up initial cluster: URL scheme must be http, https, unix, or unixs: foo",
        ),
        (
            "--initial-cluster x=127.0.0.1:1",
            "error setting up initial cluster: parse \"127.0.0.1:1\": first path segment in URL cannot contain colon",
        ),
        (
            "--initial-cluster y=http://127.0.0.1:1",
            "couldn't find local name \"x\" in the initial cluster configuration",
        ),
        (
            "--initial-cluster x=http://127.0.0.1:1,y=http://127.0.0.1:1",
            "initial cluster x=http://127.0.0.1:1,y=http://127.0.0.1:1 has duplicate url",
        ),
        (
            "--initial-cluster x=http://127.0.0.1:1,x=http://127.0.0.1:2",
            "--initial-cluster has x=http://127.0.0.1:2 but missing from --initial-advertise-peer-urls=\
             http://127.0.0.1:1 (len([\"http://127.0.0.1:1\"]) != len([\"http://127.0.0.1:1\" \
             \"http://127.0.0.1:2\"]))",
        ),
        (
            "--initial-cluster x=http://127.0.0.1:3",
            "--initial-cluster has x=http://127.0.0.1:3 but missing from --initial-advertise-peer-urls=\
             http://127.0.0.1:1 (\"http://127.0.0.1:1\"(resolved from \"http://127.0.0.1:1\") != \
             \"http://127.0.0.1:3\"(resolved from \"http://127.0.0.1:3\"))",
        ),
        (
            "--initial-advertise-peer-urls http://127.0.0.1:1,http://127.0.0.1:2 \
             --initial-cluster x=http://127.0.0.1:1",
            "--initial-advertise-peer-urls has http://127.0.0.1:2 but missing from --initial-cluster=\
             x=http://127.0.0.1:1,x=http://127.0.0.1:2",
        ),
    ] {
        assert_eq!(roster(line).unwrap_err().to_string(), error, "{line}");
    }
    let missing = config("--name ''").initial_roster();
    assert_eq!(missing.unwrap_err(), ConfigError::LocalName(String::new()));

    // The name alone makes a cluster of one; but not the default name, since etcd does not do that either.
    assert_eq!(roster("").unwrap().members().count(), 1);
    let unnamed = config("--initial-advertise-peer-urls http://127.0.0.1:1").initial_roster();
    assert!(matches!(unnamed, Err(ConfigError::NotAdvertised { .. })), "{unnamed:?}");

    let three = "--initial-cluster z=http://127.0.0.1:3,x=http://127.0.0.1:1,,y=http://127.0.0.1:2";
    let three = roster(&format!("{three} --initial-cluster-token tok3")).unwrap();
    let names: std::collections::BTreeSet<_> = three.members().map(|member| member.name.as_str()).collect();
    assert!(names.into_iter().eq(["x", "y", "z"]));
    // Who joins has announced its URLs before.
    let joining = "--initial-cluster x=http://127.0.0.1:3 --initial-cluster-state existing";
    assert_eq!(roster(joining).unwrap().members().count(), 1);
}

#[test]
fn retention_is_read_as_etcd_reads_it() {
    for (mode, retention, expected) in [
        ("periodic", "0", AutoCompaction::Off),
        ("periodic", "2", AutoCompaction::Periodic(Duration::from_secs(7_200))),
        ("periodic", "90m", AutoCompaction::Periodic(Duration::from_secs(5_400))),
        ("revision", "0", AutoCompaction::Off),
        ("revision", "1000", AutoCompaction::Revisions(1_000)),
        ("revision", "1us", AutoCompaction::Revisions(1_000)),
    ] {
        let line = format!("--auto-compaction-mode {mode} --auto-compaction-retention {retention}");
        assert_eq!(config(&line).auto_compaction(), Ok(expected), "{line}");
    }
    let quotas = [("0", Some(2 << 30)), ("5", Some(5)), ("-1", None)];
    for (flag, quota) in quotas {
        assert_eq!(config(&format!("--quota-backend-bytes {flag}")).quota_bytes(), quota);
    }
}

#[test]
fn durations_are_gos() {
    for (text, nanos) in [
        ("0", Some(0)),
        ("-0", Some(0)),
        ("5s", Some(5_000_000_000)),
        ("1h2m3s", Some(3_723_000_000_000)),
        ("1.5h", Some(5_400_000_000_000)),
        (".5s", Some(500_000_000)),
        ("1.s", Some(1_000_000_000)),
        ("-1.5us", Some(-1_500)),
        ("1µs", Some(1_000)),
        ("9223372036854775807ns", Some(i64::MAX)),
        ("9223372036854775808ns", None),
        ("3000000h", None),
        ("", None),
        ("-", None),
        ("5", None),
        ("s", None),
        (".s", None),
        ("1.1.1s", None),
        ("1d", None),
        ("1s5", None),
        ("1 s", None),
    ] {
        assert_eq!(parse_go_duration(text), nanos, "{text:?}");
    }
}

#[test]
fn the_name_decides_the_role() {
    for (line, expected, rest) in [
        ("kontiki", Role::Server, 0),
        ("kontiki --name ctl", Role::Server, 2),
        ("/usr/bin/kontiki ctl get a", Role::Ctl, 2),
        ("kontiki utl snapshot", Role::Utl, 1),
        ("/usr/bin/etcd ctl", Role::Server, 1),
        ("kontiki bench put", Role::Bench, 1),
        ("etcdctl get a", Role::Ctl, 2),
        ("./etcdutl utl", Role::Utl, 1),
        ("", Role::Server, 0),
    ] {
        let args: Vec<String> = line.split_whitespace().map(String::from).collect();
        let (role, left) = role(&args);
        assert_eq!((role, left.len()), (expected, rest), "{line}");
    }
}

#[test]
fn a_stop_says_so_where_etcd_does() {
    let output = |line: &str| run(line).unwrap_err().output(1_795_226_710_824);
    let (out, err) = output("--version");
    assert!(out.starts_with("etcd Version: ") && err.is_empty());
    let (out, err) = output("--bogus");
    assert!(out.is_empty() && err.starts_with("flag provided but not defined: -bogus\nUsage:\n"));
    let (out, err) = output("--election-timeout 0");
    assert_eq!(out, "");
    assert_eq!(
        err,
        concat!(
            r#"{"level":"warn","ts":"2026-11-21T02:05:10.824Z","msg":"failed to verify flags","#,
            r#""error":"--election-timeout must be >0 (set to 0ms)"}"#,
            "\n"
        )
    );
}

#[test]
fn times_are_utc() {
    for (seconds, text) in [
        (0, "1970-01-01T00:00:00.000Z"),
        (951_782_400, "2000-02-29T00:00:00.000Z"),
        (951_868_799, "2000-02-29T23:59:59.000Z"),
        (951_868_800, "2000-03-01T00:00:00.000Z"),
        (1_704_067_199, "2023-12-31T23:59:59.000Z"),
        (1_709_164_800, "2024-02-29T00:00:00.000Z"),
        (4_107_542_400, "2100-03-01T00:00:00.000Z"),
    ] {
        assert_eq!(rfc3339(seconds * 1_000), text);
    }
}
