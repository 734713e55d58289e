//! From what the disk holds to a member that can start: a new cluster, a join, a restart.

use std::path::Path;

use bytes::Bytes;

use super::{index_file, log::SnapshotFiles, options::Options, paths::Paths, snapshot};
use crate::{
    error::Fault,
    membership::{Change, ChangeKind, ChangeStep, Configuration, Member, Roster},
    mvcc::CheckpointName,
    node::Start,
    raft::{ConfState, Entry, HardState, Payload, Restored, SnapshotMeta},
    runtime::{Clock, Runtime},
    state::{self, Machine},
    storage::{
        Backend, Disk, OpenMode, snapshot_file,
        wal::{self, Recovered, Wal},
    },
    types::{ClusterId, Index, NodeId, Term},
};

/// A member, ready to start.
pub(super) struct Booted<R: Runtime> {
    pub me: NodeId,
    pub cluster: ClusterId,
    pub wal: Wal<R::Disk>,
    pub files: SnapshotFiles<R::Disk>,
    pub backend: R::Backend,
    pub machine: Machine<R::Backend>,
    pub restored: Restored,
    pub start: Start,
    /// Members that the log does not know of yet: where to reach them until it does.
    pub remotes: Vec<Member>,
}

/// Boots.
pub(super) async fn boot<R: Runtime>(
    runtime: &R,
    options: &Options,
    paths: &Paths,
) -> Result<Booted<R>, Fault> {
    prepare_dirs(&runtime.disk(), paths)?;
    if wal::exists(&runtime.disk(), &paths.wal)? {
        return restart(runtime, options, paths);
    }
    refuse_leftovers(&runtime.disk(), paths)?;
    let (me, cluster, first, remotes) = if options.existing {
        let (me, cluster, remotes) = join(runtime, options).await?;
        (me, cluster, Vec::new(), remotes)
    } else {
        let (me, cluster, changes) = found(options)?;
        (me, cluster, changes, Vec::new())
    };
    let mut wal =
        Wal::create(runtime.disk(), &paths.wal, wal::Identity { node: me, cluster }, wal_options(options))?;
    let entries: Vec<Entry> = first
        .into_iter()
        .zip(1..)
        .map(|(change, index)| Entry { term: Term(1), index: Index(index), payload: Payload::Change(change) })
        .collect();
    let mut hard = HardState::default();
    if let Some(last) = entries.last() {
        hard = HardState { term: last.term, vote: None, commit: last.index };
        wal.append(&entries, Some(hard), true)?;
    }
    let start = SnapshotMeta::default();
    let backend = runtime.open_backend(&paths.backend)?;
    let found = Found { backend, hard, start, entries };
    finish(runtime, options, paths, Identity { me, cluster, remotes }, wal, found)
}

/// What the disk holds.
struct Found<B> {
    backend: B,
    hard: HardState,
    start: SnapshotMeta,
    entries: Vec<Entry>,
}

struct Identity {
    me: NodeId,
    cluster: ClusterId,
    remotes: Vec<Member>,
}

fn wal_options(options: &Options) -> wal::Options {
    wal::Options {
        segment_bytes: options.segment_bytes,
        wals_max: options.wals_max,
        ..wal::Options::default()
    }
}

/// Makes the directories, and finds out whether they can be written to.
fn prepare_dirs(disk: &impl Disk, paths: &Paths) -> Result<(), Fault> {
    for dir in [&paths.data, &paths.member, &paths.snap] {
        let fault = |e| Fault::io(format!("cannot access data directory {}", dir.display()), e);
        disk.create_dir_all(dir).map_err(fault)?;
        let touch = dir.join(".touch");
        drop(disk.open(&touch, OpenMode::Truncate).map_err(fault)?);
        disk.remove_file(&touch).map_err(fault)?;
    }
    snapshot_file::remove_leftovers(disk, &paths.snap)
}

/// Tables without a log are not a member: its vote is lost, and with it what it may do.
fn refuse_leftovers(disk: &impl Disk, paths: &Paths) -> Result<(), Fault> {
    let has =
        |path: &Path| disk.exists(path).map_err(|e| Fault::io(format!("look at {}", path.display()), e));
    if has(&paths.backend)? || has(&paths.snap.join("db"))? {
        return Err(Fault::Refused(format!(
            "{} holds a member's tables, but {} holds no log: put the log back, or move the data directory away \
             and add the member to the cluster anew",
            paths.data.display(),
            paths.wal.display()
        )));
    }
    Ok(())
}

/// A new cluster: who this member is, and the entries that its log begins with.
fn found(options: &Options) -> Result<(NodeId, ClusterId, Vec<Change>), Fault> {
    let roster =
        Roster::initial(&options.cluster, &options.token).map_err(|e| Fault::Refused(e.to_string()))?;
    let me = roster.members().find(|m| m.name == options.name).map(|m| m.id).ok_or_else(|| {
        Fault::Refused(format!(
            "couldn't find local name \"{}\" in the initial cluster configuration",
            options.name
        ))
    })?;
    Ok((me, roster.initial_cluster_id(), roster.bootstrap_changes()))
}

/// A cluster that runs: the peers tell who is in it, and which of them this member is. One that lags may not know of
/// this member yet, and learn of it only once this member is there to vote: then another is asked. (etcd takes what the
/// first says.)
async fn join<R: Runtime>(runtime: &R, options: &Options) -> Result<(NodeId, ClusterId, Vec<Member>), Fault> {
    let others = options.cluster.iter().filter(|(name, _)| **name != options.name);
    let mut refused = None;
    for url in others.flat_map(|(_, urls)| urls) {
        let Some((cluster, members)) = runtime.fetch_cluster(vec![url.clone()]).await else { continue };
        match own_id(options, &members) {
            Ok(me) => return Ok((me, cluster, members.into_iter().filter(|m| m.id != me).collect())),
            // Whoever has been a member promised things that an empty log does not know: nobody who has not heard of
            // that may let it in.
            Err(why) if own(options, &members).is_some_and(Member::is_started) => return Err(why),
            Err(why) => drop(refused.get_or_insert(why)),
        }
    }
    Err(refused.unwrap_or_else(|| {
        Fault::Refused("cannot fetch cluster info from peer urls: could not retrieve cluster information from the given URLs".into())
    }))
}

fn sorted(urls: &[String]) -> Vec<String> {
    let mut urls = urls.to_vec();
    urls.sort();
    urls
}

/// The member that this one is to be, among those that a peer told.
fn own<'a>(options: &Options, members: &'a [Member]) -> Option<&'a Member> {
    let mine = sorted(options.cluster.get(&options.name).map_or(&[], Vec::as_slice));
    members.iter().find(|m| sorted(&m.peer_urls) == mine)
}

/// Who this member is in a cluster that a peer told, if it is the one that the flags tell.
fn own_id(options: &Options, members: &[Member]) -> Result<NodeId, Fault> {
    let refused = |text: String| Err(Fault::Refused(text));
    if members.len() != options.cluster.len() {
        return refused(format!(
            "error validating peerURLs: member count is unequal: --initial-cluster has {}, the cluster has {}",
            options.cluster.len(),
            members.len()
        ));
    }
    for (name, urls) in &options.cluster {
        if !members.iter().any(|m| sorted(&m.peer_urls) == sorted(urls)) {
            return refused(format!(
                "error validating peerURLs: unmatched member while checking PeerURLs: {name} at {}",
                urls.join(",")
            ));
        }
    }
    match own(options, members) {
        Some(me) if me.is_started() => refused(format!("member {} has already been bootstrapped", me.id)),
        Some(me) => Ok(me.id),
        None => refused(format!(
            "the cluster has no member at {}: add it first (member add)",
            options.cluster.get(&options.name).map(|urls| sorted(urls).join(",")).unwrap_or_default()
        )),
    }
}

fn restart<R: Runtime>(runtime: &R, options: &Options, paths: &Paths) -> Result<Booted<R>, Fault> {
    let disk = runtime.disk();
    let backend = runtime.open_backend(&paths.backend)?;
    let applied = snapshot::applied_index(&backend)?;
    let snapshots = snapshot_file::list_snapshots(&disk, &paths.snap)?;
    let from = snapshots.iter().map(|last| last.index).find(|index| *index <= applied).unwrap_or_default();
    let wal_options = wal::Options { from, ..wal_options(options) };
    let (mut wal, mut recovered) = Wal::open(disk.clone(), &paths.wal, wal_options.clone())?;
    if let Some(repaired) = &recovered.repaired {
        tracing::warn!(repaired, "a crash left a torn end of the log; it was cut off");
    }
    let base = recovered.start.last.index;
    if applied < base && !snapshot::is_received(&disk, paths, base)? {
        let why = || snapshot::tables_missing(&disk, paths, base);
        // What the tables lack may still be in the log, behind an older mark.
        let older = recovered.marks.iter().map(|mark| mark.last).filter(|last| last.index <= applied).max();
        let start = older.ok_or_else(why)?;
        drop(wal);
        let wal_options = wal::Options { start: Some(start), ..wal_options };
        (wal, recovered) = Wal::open(disk.clone(), &paths.wal, wal_options).map_err(|_| why())?;
        tracing::warn!(%applied, "the tables are older than the newest snapshot; they are rebuilt from the log");
    }
    let Recovered { identity, hard_state: hard, start, entries, .. } = recovered;
    let wal::Identity { node: me, cluster } = identity;
    let found = Found { backend, hard, start, entries };
    let booted = finish(runtime, options, paths, Identity { me, cluster, remotes: Vec::new() }, wal, found)?;
    warn_of_ignored(options, &booted);
    Ok(booted)
}

/// As with etcd, what a directory is of counts, whatever the flags say; but not in silence.
fn warn_of_ignored<R: Runtime>(options: &Options, booted: &Booted<R>) {
    if options.existing {
        // Such flags list the cluster as it was at the join, which has nothing to do with its id.
        return;
    }
    let Booted { me, cluster, .. } = booted;
    match found(options) {
        Ok((meant, of, _)) if of == *cluster && meant == *me => {}
        Ok((meant, of, _)) if of == *cluster => tracing::warn!(
            member = %me, name = options.name, meant = %meant,
            "the data directory is of another member of the cluster than --name says; it goes on as that one"
        ),
        Ok(_) | Err(_) => tracing::warn!(
            member = %me, cluster = %cluster,
            "the data directory is of another cluster than --initial-cluster and --initial-cluster-token make up; \
             its own counts and the flags do not"
        ),
    }
}

/// Brings the tables to where the log can go on from.
fn finish<R: Runtime>(
    runtime: &R,
    options: &Options,
    paths: &Paths,
    identity: Identity,
    mut wal: Wal<R::Disk>,
    found: Found<R::Backend>,
) -> Result<Booted<R>, Fault> {
    let Found { backend, mut hard, start: snapshot, mut entries } = found;
    let base = snapshot.last.index;
    if snapshot::applied_index(&backend)? < base {
        snapshot::install(&runtime.disk(), paths, &backend, base)?;
    }
    let machine = open_machine(&runtime.disk(), options, paths, &backend)?;
    let applied = machine.applied();
    let config = ConfState::from(machine.configuration());
    // A commit index alone is not synced, so the tables may know more.
    hard.commit = hard.commit.max(applied);
    if options.force_new_cluster {
        let removals = force_alone(&mut entries, &mut hard, &config, identity.me)?;
        wal.append(&removals, Some(hard), true)?;
    }
    let start = Start {
        now: runtime.clock().now(),
        leases: machine.leases().seconds().collect(),
        checkpointed: base,
    };
    let restored = Restored { hard, snapshot, entries, applied, config };
    let files = SnapshotFiles { disk: runtime.disk(), dir: paths.snap.clone(), max: options.snapshots_max };
    let Identity { me, cluster, remotes } = identity;
    Ok(Booted { me, cluster, wal, files, backend, machine, restored, start, remotes })
}

/// The state, with the index from its checkpoint if there is one.
fn open_machine<B: Backend>(
    disk: &impl Disk,
    options: &Options,
    paths: &Paths,
    backend: &B,
) -> Result<Machine<B>, Fault> {
    let config = state::Config { learners_max: options.learners_max, store: options.tuning.store() };
    let mut checkpoint = index_file::open(disk, paths, backend)?;
    let pieces = checkpoint.as_mut().map(|pieces| pieces as &mut dyn Iterator<Item = _>);
    let (machine, unusable) = Machine::open_from(backend.clone(), config, pieces)?;
    if let Some(why) = unusable {
        tracing::warn!(%why, "the index's checkpoint is of no use; the index was read from the tables");
        backend.write(CheckpointName::forget())?;
    }
    Ok(machine)
}

/// etcd's `--force-new-cluster`: entries that remove all others, which count as committed, as do those before them.
/// Nothing happens to a member that is alone already.
///
/// etcd drops what its log does not say to be committed. Here the commit index on disk may be a tick older than what
/// clients were told, so such entries are kept; only from the first change of the members on they go, for who counts
/// is what the flag decides.
fn force_alone(
    entries: &mut Vec<Entry>,
    hard: &mut HardState,
    config: &ConfState,
    me: NodeId,
) -> Result<Vec<Entry>, Fault> {
    let mut config = Configuration::try_from(config).unwrap_or_default();
    for entry in entries.iter().filter(|e| e.index <= hard.commit) {
        if let Payload::Change(change) = &entry.payload
            && let Ok(next) = config.apply(change)
        {
            config = next;
        }
    }
    if !config.is_voter(me) {
        return Err(Fault::Refused(format!("--force-new-cluster: this member, {me}, does not vote")));
    }
    let others: Vec<NodeId> = config.members().filter(|node| *node != me).collect();
    if others.is_empty() {
        return Ok(Vec::new());
    }
    let undecided = |entry: &Entry| entry.index > hard.commit && matches!(entry.payload, Payload::Change(_));
    if let Some(first) = entries.iter().position(undecided) {
        entries.truncate(first);
    }
    let last = entries.last().map_or(hard.commit, |entry| entry.index.max(hard.commit));
    let removals: Vec<Entry> = others
        .into_iter()
        .zip(last.0 + 1..)
        .map(|(node, index)| {
            let step = ChangeStep { kind: ChangeKind::Remove, node };
            let change = Change::Single { id: 0, step, context: Bytes::new() };
            Entry { term: hard.term, index: Index(index), payload: Payload::Change(change) }
        })
        .collect();
    hard.commit = Index(last.0 + removals.len() as u64);
    entries.extend(removals.iter().cloned());
    Ok(removals)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(number: u64) -> Vec<String> {
        vec![format!("http://10.0.0.{number}:2380")]
    }

    fn member(number: u64, started: bool) -> Member {
        let name = if started { format!("m{number}") } else { String::new() };
        Member { id: NodeId(number), name, peer_urls: url(number), ..Member::default() }
    }

    #[test]
    fn a_newcomer_finds_itself_only_in_the_cluster_that_it_was_told() {
        let cluster = (1..=3).map(|number| (format!("m{number}"), url(number))).collect();
        let options = Options { cluster, ..Options::new("m3", "/data".into()) };
        let told = |members: &[(u64, bool)]| {
            let members: Vec<Member> = members.iter().map(|(n, started)| member(*n, *started)).collect();
            own_id(&options, &members).map_err(|fault| fault.to_string())
        };
        assert_eq!(told(&[(1, true), (2, true), (3, false)]), Ok(NodeId(3)));
        let refused = |members: &[(u64, bool)], why: &str| {
            let text = told(members).expect_err("it is another cluster");
            assert!(text.contains(why), "{text}");
        };
        refused(&[(1, true), (2, true)], "--initial-cluster has 3, the cluster has 2");
        refused(&[(1, true), (2, true), (4, false)], "unmatched member");
        refused(&[(1, true), (2, true), (3, true)], "has already been bootstrapped");
    }
}
