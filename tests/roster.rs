//! The roster through its public interface: ids, JSON, tables, the rules of changes.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use kontiki::{
    error::{Fault, Refusal},
    membership::{
        BootstrapError, Change, ChangeKind, ChangeStep, Connectivity, Member, Roster, Transition, promotion,
        removal, update,
        urls::{Scheme, Url},
    },
    storage::{Backend, MemBackend},
    table::{Batch, Table, Tables},
    types::{ClusterId, NodeId},
};

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).into()).collect()
}

fn cluster(members: &[(&str, &[&str])]) -> BTreeMap<String, Vec<String>> {
    members.iter().map(|(name, urls)| ((*name).into(), strings(urls))).collect()
}

/// Three voters a, b, c with URLs http://a:1 and so on.
fn three() -> Roster {
    Roster::initial(&cluster(&[("a", &["http://a:1"]), ("b", &["http://b:1"]), ("c", &["http://c:1"])]), "t")
        .unwrap()
}

fn id_of(roster: &Roster, name: &str) -> NodeId {
    roster.members().find(|member| member.name == name).unwrap().id
}

/// A roster with the tables that its batches made.
struct Store {
    roster: Roster,
    tables: MemBackend,
}

impl Store {
    fn new(roster: Roster) -> Self {
        let mut batch = Batch::default();
        roster.store(&mut batch);
        let tables = MemBackend::new();
        tables.write(batch).unwrap();
        Self { roster, tables }
    }

    /// Applies a change, and wants what is in memory to be what the tables and a snapshot hold.
    fn apply(&mut self, change: &Change) -> Result<Vec<Member>, Refusal> {
        let checked = self.roster.check(change, 1);
        let mut batch = Batch::default();
        let (result, to_raft) = self.roster.apply_change(change, 1, &mut batch);
        assert_eq!(checked, result.as_ref().map(|_| ()).map_err(|refusal| *refusal));
        match &result {
            Ok(members) => {
                assert_eq!(&to_raft, change);
                assert!(members.iter().eq(self.roster.members()));
            }
            Err(_) => {
                assert!(batch.is_empty(), "a refused change leaves no trace");
                let Change::Single { step, .. } = &to_raft else { panic!("{to_raft:?}") };
                assert_eq!(step.node, NodeId(0));
                assert_eq!(self.roster.check(&to_raft, 1), Ok(()), "raft's no-op is one here, too");
            }
        }
        self.tables.write(batch).unwrap();
        self.same();
        result
    }

    fn same(&self) {
        assert_eq!(Roster::load(&self.tables).unwrap(), self.roster);
        assert_eq!(Roster::from_snapshot(&self.roster.to_snapshot()).unwrap(), self.roster);
    }

    fn add(&mut self, url: &str, seconds: u64, learner: bool) -> Result<NodeId, Refusal> {
        let member = Member::added(&strings(&[url]), seconds, learner).unwrap();
        self.apply(&member.to_add(7)).map(|_| member.id)
    }

    fn text(&self, table: Table, key: &str) -> Option<String> {
        self.tables
            .get(table, key.as_bytes())
            .unwrap()
            .map(|bytes| String::from_utf8(bytes.to_vec()).unwrap())
    }
}

fn context(change: &Change) -> &str {
    match change {
        Change::Single { context, .. } | Change::Joint { context, .. } => {
            std::str::from_utf8(context).unwrap()
        }
    }
}

#[test]
fn ids_are_etcds() {
    let one = |name: &str, url: &str| Roster::initial(&cluster(&[(name, &[url])]), "etcd-cluster").unwrap();
    let localhost = one("default", "http://localhost:2380");
    assert_eq!(id_of(&localhost, "default"), NodeId(0x8e9e_05c5_2164_694d));
    assert_eq!(localhost.initial_cluster_id(), ClusterId(0xcdf8_1819_4e3a_8c32));
    let address = one("default", "http://127.0.0.1:2380");
    assert_eq!(id_of(&address, "default"), NodeId(0xb71f_7532_0dc0_6a6c));
    assert_eq!(address.initial_cluster_id(), ClusterId(0x1c45_a069_f3a1_d796));

    let urls =
        [("a", "http://127.0.0.1:12380"), ("b", "http://127.0.0.1:22380"), ("c", "http://127.0.0.1:32380")];
    let three = urls.map(|(name, url)| (name.to_owned(), strings(&[url])));
    let three = Roster::initial(&BTreeMap::from(three), "tok3").unwrap();
    assert_eq!(id_of(&three, "a"), NodeId(0xbefa_03b4_fe94_de47));
    assert_eq!(id_of(&three, "b"), NodeId(0x63db_a809_3f99_bbeb));
    assert_eq!(id_of(&three, "c"), NodeId(0x0daf_a172_f238_600a));
    assert_eq!(three.initial_cluster_id(), ClusterId(0x9a57_d1cd_8dbb_335c));
    assert_eq!(id_of(&three, "c").to_string(), "dafa172f238600a", "ids are written without padding");

    // The order of URLs does not matter, and a second does.
    let member = |urls: &[&str], seconds| Member::added(&strings(urls), seconds, false).unwrap();
    assert_eq!(member(&["http://b:1", "http://a:1"], 5), member(&["http://a:1", "http://b:1"], 5));
    assert_ne!(member(&["http://a:1"], 5).id, member(&["http://a:1"], 6).id);
}

#[test]
fn a_new_cluster_starts_with_a_change_for_each_member() {
    let url = "http://127.0.0.1:33380";
    let fixture =
        Member { id: NodeId(13_766_589_838_651_673_404), ..Member::initial("n1", &strings(&[url]), "") };
    // The bytes that etcd 3.5.1 wrote for a member with this id.
    assert_eq!(
        context(&fixture.to_add(0)),
        r#"{"id":13766589838651673404,"peerURLs":["http://127.0.0.1:33380"],"name":"n1"}"#
    );

    let roster = three();
    let changes = roster.bootstrap_changes();
    let nodes: Vec<NodeId> = changes
        .iter()
        .map(|change| match change {
            Change::Single { id: 0, step: ChangeStep { kind: ChangeKind::AddVoter, node }, .. } => *node,
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(nodes.is_sorted() && nodes.len() == 3);
    // Applied to nothing, they give the roster that they came from.
    let mut store = Store::new(Roster::default());
    for change in &changes {
        store.roster.apply_change(change, 1, &mut Batch::default()).0.unwrap();
    }
    assert_eq!(store.roster, roster);

    let twins = cluster(&[("a", &["http://a:1"]), ("b", &["http://a:1"])]);
    let Err(BootstrapError::SameId(_)) = Roster::initial(&twins, "t") else { panic!("twins were let in") };
}

#[test]
fn a_member_lives_and_dies() {
    let mut store = Store::new(three());
    let id = store.add("http://d:1", 100, true).unwrap();
    let hex = id.to_string();
    let json = |rest: &str| Some(format!(r#"{{"id":{},"peerURLs":{rest}}}"#, id.0));
    assert_eq!(store.text(Table::Members, &hex), json(r#"["http://d:1"],"isLearner":true"#));
    assert!(!store.roster.member(id).unwrap().is_started());

    // An update changes its URLs and nothing else: a learner stays one.
    store.apply(&update(8, id, &strings(&["http://d:2"]))).unwrap();
    assert_eq!(store.text(Table::Members, &hex), json(r#"["http://d:2"],"isLearner":true"#));

    let mut batch = Batch::default();
    assert!(store.roster.set_attributes(id, "d<&>", &strings(&["http://d:3"]), &mut batch));
    store.tables.write(batch).unwrap();
    store.same();
    let name = r#""name":"d\u003c\u0026\u003e","clientURLs":["http://d:3"]"#;
    assert_eq!(store.text(Table::Members, &hex), json(&format!(r#"["http://d:2"],"isLearner":true,{name}"#)));

    store.apply(&promotion(9, id)).unwrap();
    assert_eq!(store.text(Table::Members, &hex), json(&format!(r#"["http://d:2"],{name}"#)));
    assert_eq!(store.roster.voters().count(), 4);

    store.apply(&removal(10, id)).unwrap();
    assert_eq!(store.text(Table::Members, &hex), None);
    assert_eq!(store.text(Table::MembersRemoved, &hex).as_deref(), Some("removed"));
    assert!(store.roster.is_removed(id) && store.roster.removed().eq([id]));
    assert!(!store.roster.set_attributes(id, "late", &[], &mut Batch::default()));

    let mut batch = Batch::default();
    store.roster.set_version("3.5.0", &mut batch);
    store.tables.write(batch).unwrap();
    store.same();
    assert_eq!(store.text(Table::Cluster, "clusterVersion").as_deref(), Some("3.5.0"));
}

#[test]
fn changes_carry_etcds_context() {
    // Written by etcd 3.5.1 for a learner's addition and promotion.
    let learner = Member {
        id: NodeId(16_906_565_937_697_036_494),
        peer_urls: strings(&["http://127.0.0.1:33390"]),
        learner: true,
        ..Member::default()
    };
    let added = r#"{"id":16906565937697036494,"peerURLs":["http://127.0.0.1:33390"],"isLearner":true}"#;
    assert_eq!(context(&learner.to_add(1)), added);
    let promoted = r#"{"id":16906565937697036494,"peerURLs":null,"isPromote":true}"#;
    assert_eq!(context(&promotion(1, learner.id)), promoted);
    let updated = r#"{"id":16906565937697036494,"peerURLs":["http://127.0.0.1:33391"]}"#;
    assert_eq!(context(&update(1, learner.id, &strings(&["http://127.0.0.1:33391"]))), updated);
    assert_eq!(context(&removal(1, learner.id)), "");
}

#[test]
fn each_refusal_has_its_reason() {
    let mut store = Store::new(three());
    let (a, b) = (id_of(&store.roster, "a"), id_of(&store.roster, "b"));
    let learner = store.add("http://l:1", 1, true).unwrap();
    let gone = store.add("http://g:1", 2, false).unwrap();
    store.apply(&removal(0, gone)).unwrap();
    let nobody = NodeId(77);
    let member = |id, url: &str| Member { id, peer_urls: strings(&[url]), ..Member::default() };
    let single = |kind, node, context: &str| Change::Single {
        id: 1,
        step: ChangeStep { kind, node },
        context: Bytes::copy_from_slice(context.as_bytes()),
    };
    let joint = Change::Joint {
        transition: Transition::Auto,
        steps: vec![ChangeStep { kind: ChangeKind::Remove, node: a }],
        context: Bytes::new(),
    };

    let cases = [
        ("add a removed id", member(gone, "http://g:1").to_add(1), Refusal::MemberNotFound),
        ("add an id again", member(a, "http://x:1").to_add(1), Refusal::MemberExists),
        ("add a taken URL", member(nobody, "http://l:1").to_add(1), Refusal::PeerUrlExists),
        (
            "a second learner",
            Member { learner: true, ..member(nobody, "http://x:1") }.to_add(1),
            Refusal::TooManyLearners,
        ),
        ("promote nobody", promotion(1, nobody), Refusal::MemberNotFound),
        ("promote a voter", promotion(1, a), Refusal::MemberNotLearner),
        ("promote a removed one", promotion(1, gone), Refusal::MemberNotFound),
        ("remove nobody", removal(1, nobody), Refusal::MemberNotFound),
        ("remove twice", removal(1, gone), Refusal::MemberNotFound),
        ("update nobody", update(1, nobody, &strings(&["http://x:1"])), Refusal::MemberNotFound),
        (
            "update to a taken URL",
            update(1, a, &strings(&["http://a:1", "http://b:1"])),
            Refusal::PeerUrlExists,
        ),
        (
            "a context of another id",
            single(ChangeKind::AddVoter, nobody, r#"{"id":78}"#),
            Refusal::BadMemberUrls,
        ),
        ("no context", single(ChangeKind::AddVoter, nobody, ""), Refusal::BadMemberUrls),
        ("not JSON", single(ChangeKind::Update, a, "{"), Refusal::BadMemberUrls),
        (
            "a promotion to learner",
            single(ChangeKind::AddLearner, learner, &format!(r#"{{"id":{},"isPromote":true}}"#, learner.0)),
            Refusal::MemberNotLearner,
        ),
        ("several steps", joint, Refusal::NotCapable),
    ];
    for (what, change, refusal) in cases {
        let before = store.roster.clone();
        assert_eq!(store.apply(&change), Err(refusal), "{what}");
        assert_eq!(store.roster, before, "{what}");
    }

    // What is allowed: its own URLs again, none at all, and no-ops.
    store.apply(&update(1, a, &strings(&["http://a:1", "http://a:2"]))).unwrap();
    store.apply(&update(1, b, &[])).unwrap();
    assert_eq!(store.roster.member(b).unwrap().peer_urls, strings(&[]));
    store.apply(&single(ChangeKind::AddVoter, NodeId(0), "")).unwrap();
    store
        .apply(&Change::Joint { transition: Transition::Auto, steps: vec![], context: Bytes::new() })
        .unwrap();
    store.apply(&promotion(1, learner)).unwrap();
    let two = member(nobody, "http://x:1");
    let two = Member { learner: true, ..two }.to_add(1);
    assert_eq!(store.roster.check(&two, 0), Err(Refusal::TooManyLearners));
    assert_eq!(store.roster.check(&two, 1), Ok(()));
}

/// A roster from a text: a name for a started voter, `-` before it for one that has not started, `*` for a
/// learner. With it who is connected: `+` behind it for a healthy one, `~` for one that is not for long.
/// The first is this member.
fn scene(text: &str) -> (Roster, Connectivity, Vec<NodeId>) {
    let mut roster = Roster::default();
    let mut connectivity = Connectivity::default();
    let mut ids = Vec::new();
    for (n, word) in text.split_whitespace().enumerate() {
        let member = Member {
            id: NodeId(n as u64 + 1),
            name: if word.contains('-') { String::new() } else { "started".into() },
            peer_urls: strings(&[&format!("http://m{n}:1")]),
            client_urls: Vec::new(),
            learner: word.contains('*'),
        };
        ids.push(member.id);
        if word.ends_with(['+', '~']) {
            connectivity.connected.insert(member.id);
        }
        if word.ends_with('+') {
            connectivity.healthy.insert(member.id);
        }
        let kind = if member.learner { ChangeKind::AddLearner } else { ChangeKind::AddVoter };
        let Change::Single { context, .. } = member.to_add(0) else { panic!("not a single change") };
        let change = Change::Single { id: 0, step: ChangeStep { kind, node: member.id }, context };
        roster.apply_change(&change, 9, &mut Batch::default()).0.unwrap();
    }
    connectivity.local = NodeId(1);
    (roster, connectivity, ids)
}

#[test]
fn additions_must_keep_a_quorum() {
    use Refusal::{NotEnoughStartedMembers as TooFew, Unhealthy};
    for (members, learner, expected) in [
        ("a", false, Ok(())),
        ("-a", false, Err(TooFew)),
        ("a b+", false, Ok(())),
        ("a -b+", false, Err(TooFew)),
        ("a b~", false, Err(Unhealthy)),
        ("a b", false, Err(Unhealthy)),
        ("a b+ c+", false, Ok(())),
        ("a b+ -c+", false, Err(TooFew)),
        ("a b+ c", false, Err(Unhealthy)),
        ("a b+ c+ -d+", false, Ok(())),
        // Learners count for nothing, and are added by reachability alone.
        ("a b+ -c+ d*+", false, Err(TooFew)),
        ("a b+ c+ -d*", false, Ok(())),
        ("a b+ -c+", true, Ok(())),
        ("a b+ -c", true, Err(Unhealthy)),
        ("a", true, Ok(())),
    ] {
        let (roster, connectivity, _) = scene(members);
        assert_eq!(roster.may_add(learner, &connectivity), expected, "{members}, learner {learner}");
    }
}

#[test]
fn removals_must_keep_a_quorum() {
    use Refusal::{NotEnoughStartedMembers as TooFew, Unhealthy};
    for (members, removed, expected) in [
        ("a", 0, Err(TooFew)),
        ("a b+", 1, Ok(())),
        ("a b+", 0, Ok(())),
        ("a -b+", 0, Err(TooFew)),
        ("a -b", 1, Ok(())),
        ("a b", 1, Ok(())),
        ("a b", 0, Err(Unhealthy)),
        ("a b+ c+", 2, Ok(())),
        ("a b+ c", 2, Ok(())),
        ("a b+ c", 1, Err(Unhealthy)),
        ("a b+ c~", 2, Err(Unhealthy)),
        ("a b+ c+ d", 2, Ok(())),
        ("a b+ c d", 1, Err(Unhealthy)),
        ("a -b+ -c+", 0, Err(TooFew)),
        ("a b d*", 2, Ok(())),
        ("a d*+", 0, Err(TooFew)),
    ] {
        let (roster, connectivity, ids) = scene(members);
        assert_eq!(roster.may_remove(ids[removed], &connectivity), expected, "{members}, removing {removed}");
    }
    // Nobody is let through: the change itself finds that there is no such member.
    let (roster, connectivity, _) = scene("a");
    assert_eq!(roster.may_remove(NodeId(77), &connectivity), Ok(()));
}

#[test]
fn promotions_must_keep_a_quorum() {
    for (members, expected) in [
        ("a l*", Ok(())),
        ("-a l*", Err(Refusal::NotEnoughStartedMembers)),
        ("a -b l*", Ok(())),
        ("a -b -c l*", Err(Refusal::NotEnoughStartedMembers)),
        ("a b -c l*", Ok(())),
    ] {
        assert_eq!(scene(members).0.may_promote(), expected, "{members}");
    }
}

#[test]
fn urls_are_read_as_etcd_reads_them() {
    for (text, expected) in [
        ("http://127.0.0.1:2380", Ok("http://127.0.0.1:2380")),
        (" HTTPS://[::1]:1 ", Ok("https://[::1]:1")),
        ("http://host:", Ok("http://host:")),
        ("http://:80", Ok("http://:80")),
        ("unix://sock:1", Ok("unix://sock:1")),
        ("foo", Err("URL scheme must be http, https, unix, or unixs: foo")),
        ("", Err("URL scheme must be http, https, unix, or unixs: ")),
        ("ftp://1.2.3.4:1", Err("URL scheme must be http, https, unix, or unixs: ftp://1.2.3.4:1")),
        ("http://127.0.0.1", Err("URL address does not have the form \"host:port\": http://127.0.0.1")),
        ("http:127.0.0.1:1", Err("URL address does not have the form \"host:port\": http:127.0.0.1:1")),
        ("http://::1:1", Err("URL address does not have the form \"host:port\": http://::1:1")),
        ("http://[::1]", Err("URL address does not have the form \"host:port\": http://[::1]")),
        ("unix://x", Err("URL address does not have the form \"host:port\": unix://x")),
        ("http://a:1/x", Err("URL must not contain a path: http://a:1/x")),
        ("http://a:1/", Err("URL must not contain a path: http://a:1/")),
        ("127.0.0.1:2380", Err("parse \"127.0.0.1:2380\": first path segment in URL cannot contain colon")),
        ("http://[::1", Err("parse \"http://[::1\": missing ']' in host")),
        ("http://a:b", Err("parse \"http://a:b\": invalid port \":b\" after host")),
        ("http://[::1]x:1", Err("parse \"http://[::1]x:1\": invalid port \"x:1\" after host")),
        ("http://%zz:1", Err("parse \"http://%zz:1\": invalid URL escape \"%zz\"")),
        ("http://a b:1", Err("parse \"http://a b:1\": invalid character \" \" in host name")),
        ("://a:1", Err("parse \"://a:1\": missing protocol scheme")),
    ] {
        let parsed = Url::parse(text);
        let shown = parsed.as_ref().map(ToString::to_string).map_err(ToString::to_string);
        assert_eq!(shown, expected.map(String::from).map_err(String::from), "{text:?}");
    }
    let url = Url::parse("http://[::1]:80").unwrap();
    assert_eq!((url.scheme(), url.host(), url.port()), (Scheme::Http, "::1", "80"));
    for (text, is_tls, is_unix) in
        [("http", false, false), ("https", true, false), ("unix", false, true), ("unixs", true, true)]
    {
        let scheme = Url::parse(&format!("{text}://a:1")).unwrap().scheme();
        assert_eq!((scheme.is_tls(), scheme.is_unix()), (is_tls, is_unix), "{text}");
    }
    let list = Url::parse_list("http://b:1, http://a:1").unwrap();
    assert_eq!(list.iter().map(Url::to_string).collect::<Vec<_>>(), ["http://a:1", "http://b:1"]);
    for bad in [&[][..], &["x"], &["http://1.2.3.4"], &["http://1.2.3.4:1/path"], &["ftp://1.2.3.4:1"]] {
        assert_eq!(Member::added(&strings(bad), 1, false), Err(Refusal::BadMemberUrls), "{bad:?}");
    }
}

#[test]
fn a_snapshot_of_etcd_is_read() {
    // The tree that etcd 3.5.1 wrote into a .snap file, without its events and statistics.
    let node = |path: &str, value: &str, children: &str| {
        let value = value.replace('"', "\\\"");
        format!(
            r#"{{"Path":"{path}","CreatedIndex":4,"ModifiedIndex":5,"ExpireTime":"0001-01-01T00:00:00Z","Value":"{value}","Children":{children}}}"#
        )
    };
    let (n1, learner) = ("/0/members/bf0cc0850d55cb3c", "/0/members/eaa03025402698ce");
    let n1_files = format!(
        r#"{{"attributes":{},"raftAttributes":{}}}"#,
        node(&format!("{n1}/attributes"), r#"{"name":"n1","clientURLs":["http://127.0.0.1:33379"]}"#, "null"),
        node(&format!("{n1}/raftAttributes"), r#"{"peerURLs":["http://127.0.0.1:33380"]}"#, "null")
    );
    let raft = r#"{"peerURLs":["http://127.0.0.1:33391"],"isLearner":true}"#;
    let learner_files =
        format!(r#"{{"raftAttributes":{}}}"#, node(&format!("{learner}/raftAttributes"), raft, "null"));
    let members = format!(
        r#"{{"bf0cc0850d55cb3c":{},"eaa03025402698ce":{}}}"#,
        node(n1, "", &n1_files),
        node(learner, "", &learner_files)
    );
    let removed =
        format!(r#"{{"dafa172f238600a":{}}}"#, node("/0/removed_members/dafa172f238600a", "", "null"));
    let zero = format!(
        r#"{{"members":{},"removed_members":{},"version":{}}}"#,
        node("/0/members", "", &members),
        node("/0/removed_members", "", &removed),
        node("/0/version", "3.5.0", "null")
    );
    let root = format!(r#"{{"0":{},"1":{}}}"#, node("/0", "", &zero), node("/1", "", "{}"));
    let json = format!(
        r#"{{"Root":{},"WatcherHub":{{}},"CurrentIndex":5,"CurrentVersion":2}}"#,
        node("/", "", &root)
    );

    let roster = Roster::from_snapshot(json.as_bytes()).unwrap();
    let expected = [
        Member {
            id: NodeId(0xbf0c_c085_0d55_cb3c),
            name: "n1".into(),
            peer_urls: strings(&["http://127.0.0.1:33380"]),
            client_urls: strings(&["http://127.0.0.1:33379"]),
            learner: false,
        },
        Member {
            id: NodeId(0xeaa0_3025_4026_98ce),
            peer_urls: strings(&["http://127.0.0.1:33391"]),
            learner: true,
            ..Member::default()
        },
    ];
    assert!(roster.members().eq(&expected));
    assert_eq!(roster.version(), Some("3.5.0"));
    assert!(roster.removed().eq([NodeId(0x0daf_a172_f238_600a)]));
    assert_eq!(Roster::from_snapshot(&roster.to_snapshot()).unwrap(), roster);

    for broken in [
        "",
        "{}",
        r#"{"Root":{}}"#,
        r#"{"Root":{"Children":{"0":{"Children":{"members":{"Children":{"x":{}}}}}}}}"#,
    ] {
        Roster::from_snapshot(broken.as_bytes()).unwrap_err();
    }
}

#[test]
fn a_snapshot_has_what_etcd_puts_there() {
    let mut roster = three();
    let mut batch = Batch::default();
    let [a, b] = ["a", "b"].map(|name| id_of(&roster, name));
    // Said where clients reach it, and no name; and neither.
    assert!(roster.set_attributes(a, "", &strings(&["http://c:1"]), &mut batch));
    assert!(roster.set_attributes(b, "", &[], &mut batch));
    let bytes = roster.to_snapshot();
    assert_eq!(Roster::from_snapshot(&bytes).unwrap(), roster);
    let text = String::from_utf8(bytes).unwrap();
    let nodes = text.matches(r#""Path":"#).count();
    assert_eq!(text.matches(r#""ExpireTime":"0001-01-01T00:00:00Z""#).count(), nodes);
    assert!(text.contains(&format!("/0/members/{a}/attributes")));
    assert!(!text.contains(&format!("/0/members/{b}/attributes")));
}

#[test]
fn members_are_found_by_their_urls_in_any_order() {
    let roster =
        Roster::initial(&cluster(&[("a", &["http://a:1", "http://a:2"]), ("b", &["http://b:1"])]), "t");
    let roster = roster.unwrap();
    let found = |urls: &[&str]| roster.member_by_peer_urls(&strings(urls)).map(|member| member.name.as_str());
    assert_eq!(found(&["http://a:2", "http://a:1"]), Some("a"));
    assert_eq!(found(&["http://b:1"]), Some("b"));
    assert_eq!(found(&["http://a:1"]), None);
    assert_eq!(found(&["http://b:1", "http://c:1"]), None);
}

#[test]
fn tables_that_make_no_sense_are_corrupt() {
    for (table, key, value) in [
        (Table::Members, "1", "not JSON"),
        (Table::Members, "2", r#"{"id":1,"peerURLs":[]}"#),
        (Table::Members, "01", r#"{"id":1,"peerURLs":[]}"#),
        (Table::MembersRemoved, "x", "removed"),
    ] {
        let tables = MemBackend::new();
        let mut batch = Batch::default();
        batch.put(table, key, value);
        tables.write(batch).unwrap();
        let Fault::Corrupt(text) = Roster::load(&tables).unwrap_err() else { panic!("{key}") };
        assert!(text.contains(table.name()) && text.contains(key), "{text}");
    }
    let nobody: BTreeSet<NodeId> = Roster::load(&MemBackend::new()).unwrap().removed().collect();
    assert!(nobody.is_empty());
}
