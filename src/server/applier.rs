//! Applies committed entries: state machine, then backend, then publication, then the report.

use std::sync::Arc;

use crate::{
    auth,
    error::Fault,
    membership::Change,
    node::{Event, Report},
    raft::{Entry, Snapshot},
    runtime::{Clock, PeerNet, Runtime},
    state::{AlarmKind, Applied, ConfChange, Machine},
    storage::Backend,
    types::NodeId,
    wire,
};

use super::{
    driver::{Reports, Way},
    exit::Exit,
    hub::HubJob,
    shared::{Shared, View},
    stats::During,
};

/// What the applier is asked to do.
pub(super) enum ApplyJob<R: Runtime> {
    /// Apply entries, which follow those before.
    Apply(Vec<Entry>),
    /// Replace all state by a snapshot, whose body has come in.
    Install(Snapshot),
    /// Let somebody look at the state between two runs.
    Look(Look<R>),
}

/// A look at the state.
pub(super) type Look<R> = Box<dyn FnOnce(&Machine<<R as Runtime>::Backend>) + Send>;

/// The state machine and what it feeds.
pub(super) struct Applier<R: Runtime> {
    pub machine: Machine<R::Backend>,
    pub shared: Arc<Shared<R>>,
    pub driver: Reports<R>,
    /// How many entries make one run, about, so that readers and waiters do not wait for all of a long backlog.
    pub run_entries_max: usize,
    /// After a fault nothing is applied any more.
    pub failed: bool,
}

impl<R: Runtime> Applier<R> {
    /// Does the jobs in order; entries that follow each other are one run.
    pub fn work(&mut self, jobs: Vec<ApplyJob<R>>) {
        let mut run = Vec::new();
        for job in jobs {
            match job {
                ApplyJob::Apply(entries) => {
                    run.extend(entries);
                    if run.len() < self.run_entries_max {
                        continue;
                    }
                    self.guarded(|a| a.apply(&std::mem::take(&mut run)));
                }
                ApplyJob::Install(snapshot) => {
                    self.guarded(|a| a.apply(&std::mem::take(&mut run)));
                    self.guarded(|a| a.install(&snapshot));
                }
                ApplyJob::Look(look) => {
                    self.guarded(|a| a.apply(&std::mem::take(&mut run)));
                    look(&self.machine);
                }
            }
        }
        self.guarded(|a| a.apply(&run));
    }

    fn guarded(&mut self, act: impl FnOnce(&mut Self) -> Result<(), Fault>) {
        if self.failed {
            return;
        }
        if let Err(fault) = act(self) {
            self.failed = true;
            self.shared.exits.tell(Exit::Fault(fault));
        }
    }

    /// Entries that change users and roles make runs by themselves: see [`Machine::apply_until_auth`].
    fn apply(&mut self, entries: &[Entry]) -> Result<(), Fault> {
        let Some(last) = entries.last() else { return Ok(()) };
        while self.machine.applied() < last.index {
            let (batch, applied) = self.machine.apply_until_auth(entries, &wire::command::decode)?;
            let shared = &self.shared;
            shared.stats.commit_time.time(&shared.runtime.clock(), || shared.backend.write(batch))?;
            self.machine.publish();
            self.report(applied);
        }
        Ok(())
    }

    fn report(&mut self, applied: Applied) {
        let Applied { index, mark, marks, replies, revision, events, leases, compacted, changes, .. } =
            applied;
        self.shared.sessions.note(applied.sessions, self.shared.runtime.clock().now());
        if applied.auth_changed {
            self.shared.sessions.set_store(self.machine.auth().clone());
        }
        let stats = &self.shared.stats;
        stats.note_run(replies.iter().filter_map(|(_, reply)| reply.as_ref().ok()), &events);
        stats.note_leases(&leases);
        if applied.members_changed || applied.alarms_changed {
            self.renew_view();
        }
        if applied.members_changed {
            self.point_links(&changes);
        }
        self.shared.facts.note_applied(index);
        // Those who hear of it may be gone, on the way down.
        if !events.is_empty() && self.shared.audience.is_there() {
            let _ = self.shared.hub.send(HubJob::Events(events, revision));
        }
        if let Some(revision) = compacted {
            let _ = self.shared.hub.send(HubJob::Compacted(revision));
            self.shared.facts.compact.send_replace(revision);
        }
        let changes = changes.into_iter().map(|c| (c.index, c.change)).collect();
        let way = Way::of(replies.len());
        let report = Report { index, mark, marks, replies, leases, changes, ..Report::default() };
        self.driver.tell(Event::Applied(report), way);
    }

    fn renew_view(&self) {
        self.shared.facts.set_view(View {
            roster: self.machine.roster().clone(),
            alarms: self.machine.alarms().get(AlarmKind::None),
        });
    }

    /// Makes the links follow the roster; a member that is no longer in it stops.
    fn point_links(&self, changes: &[ConfChange]) {
        let roster = self.machine.roster();
        for member in roster.members().filter(|m| m.id != self.shared.me) {
            self.shared.peers.add_peer(member.id, member.peer_urls.clone());
        }
        for id in changes.iter().flat_map(|c| removed(&c.change)) {
            self.shared.peers.remove_peer(id);
            if id == self.shared.me {
                self.shared.exits.tell(Exit::Removed);
            }
        }
    }

    fn install(&mut self, snapshot: &Snapshot) -> Result<(), Fault> {
        let index = snapshot.meta.last.index;
        let shared = self.shared.clone();
        let _under_way = During::of(&shared.stats.snapshot_applies);
        let _replacing = shared.replacing();
        super::snapshot::install(
            &self.shared.runtime.disk(),
            &self.shared.paths,
            &self.shared.backend,
            index,
        )?;
        // Keys and users are replaced one after the other: whoever asks in between waits, if it can matter.
        let users = auth::Store::load(&self.shared.backend)?;
        if users.enabled() || self.machine.auth().enabled() {
            self.shared.sessions.begin_replace();
        }
        self.machine.reload()?;
        self.shared.sessions.set_store(self.machine.auth().clone());
        self.shared.stats.keys.set(self.shared.count_keys()?);
        self.renew_view();
        self.point_links(&[]);
        self.shared.facts.note_applied(index);
        let _ = self.shared.hub.send(HubJob::Restored);
        let report = Report {
            index,
            leases_replaced: Some(self.machine.leases().seconds().collect()),
            ..Report::default()
        };
        self.driver.tell(Event::Applied(report), Way::Task);
        Ok(())
    }
}

fn removed(change: &Change) -> Vec<NodeId> {
    use crate::membership::ChangeKind::Remove;
    let steps = match change {
        Change::Single { step, .. } => std::slice::from_ref(step),
        Change::Joint { steps, .. } => steps,
    };
    steps.iter().filter(|s| s.kind == Remove && s.node != NodeId(0)).map(|s| s.node).collect()
}
