//! What golden scripts can say. Members are numbers; a script begins with `cluster`.
//!
//! ```text
//! cluster voters=N [apply_lag=..] [proposals=..] [reads=..] [checkpoint=ENTRIES] [checkpoint_bytes=..]
//!         [keep=ENTRIES] [uncommitted=BYTES] [marks=..] [lease_checkpoint=MILLISECONDS]
//! elect ID                  ticks it until it leads; the others on its side of a cut have long heard of no leader
//! tick ID|* [N]             100 ms each      run [N]    as `tick *` and `settle`, N times
//! propose ID W TEXT         read ID W        change ID W STEP     (W: who waits; steps: v4 l4 r4 u4)
//! renew ID W LEASE...       remaining ID W LEASE     progress ID W     transfer ID W to=ID
//! own ID term=T TEXT                         what it proposes only as that term's leader
//! deliver [from=ID] [to=ID] [kind=KIND]      settle     drop [..]     net     reverse
//! hold ID disk|applier|keeper      release ID ..     persist ID     apply ID     flushed ID INDEX
//! cut ID... / heal          join ID          spoil ID [N]    diverge ID from=ID
//! snapshot ID from=ID term=T index=N         a snapshot comes in, of whatever age
//! built ID to=ID [failed]                    a snapshot that a held keeper was asked for is there
//! checked ID [unfit]                         a held keeper has read a snapshot that came in
//! state ID                  waiting          who got no answer yet
//! ```

use std::{error::Error, fmt::Write as _};

use goldenscript::{ArgumentConsumer, Command};
use kontiki::{
    lease::ExpirerConfig,
    membership::{Change, ChangeKind, ChangeStep},
    node::{Config, Event, Report, Request},
    raft::{self, Body, LogId, Message, RoleKind, Snapshot, SnapshotMeta},
    types::{Index, Instant, LeaseId, NodeId, Term},
};

use crate::{
    members::{Members, TICK_MS},
    show::{Shown, kind, show_raft},
};

type Outcome<T> = Result<T, Box<dyn Error>>;

#[derive(Default)]
pub struct Runner {
    members: Members,
}

fn next<T: std::str::FromStr>(args: &mut ArgumentConsumer<'_>, what: &str) -> Outcome<T>
where
    T::Err: Error + 'static,
{
    args.next_pos().ok_or_else(|| format!("{what} is missing"))?.parse()
}

fn id(args: &mut ArgumentConsumer<'_>) -> Outcome<NodeId> {
    next(args, "the member").map(NodeId)
}

fn named(args: &mut ArgumentConsumer<'_>, name: &str) -> Outcome<u64> {
    args.lookup_parse(name)?.ok_or_else(|| format!("{name}= is missing").into())
}

impl goldenscript::Runner for Runner {
    fn run(&mut self, command: &Command) -> Outcome<String> {
        let mut args = command.consume_args();
        let output = match command.name.as_str() {
            "cluster" => self.begin(&mut args)?,
            "state" | "net" | "waiting" => self.show(&command.name, &mut args)?,
            "deliver" | "drop" | "settle" | "cut" | "heal" | "reverse" => {
                self.network(&command.name, &mut args)?
            }
            "tick" | "run" | "elect" => self.time(&command.name, &mut args)?,
            "propose" | "change" | "read" | "renew" | "remaining" | "progress" | "transfer" => {
                self.request(&command.name, &mut args)?
            }
            name => self.machine(name, &mut args)?,
        };
        args.reject_rest()?;
        let mut trace = std::mem::take(&mut self.members.trace).join("\n");
        if !trace.is_empty() && !output.is_empty() {
            trace.push('\n');
        }
        Ok(trace + &output)
    }
}

impl Runner {
    fn begin(&mut self, args: &mut ArgumentConsumer<'_>) -> Outcome<String> {
        let voters = named(args, "voters")?;
        let apply_lag_max = args.lookup_parse("apply_lag")?.unwrap_or(5_000);
        let proposals_max = args.lookup_parse("proposals")?.unwrap_or(100);
        let reads_max = args.lookup_parse("reads")?.unwrap_or(100);
        let snapshot_entries = args.lookup_parse("checkpoint")?.unwrap_or(1_000);
        let snapshot_bytes = args.lookup_parse("checkpoint_bytes")?.unwrap_or(1 << 20);
        let catchup_entries = args.lookup_parse("keep")?.unwrap_or(1_000);
        let uncommitted = args.lookup_parse("uncommitted")?.unwrap_or(1 << 20);
        let marks_max = args.lookup_parse("marks")?.unwrap_or(16);
        let checkpoint_ms = args.lookup_parse("lease_checkpoint")?;
        self.members = Members::new(voters, |id| Config {
            raft: raft::Config { uncommitted_bytes_max: uncommitted, ..raft::Config::new(id, 0) },
            tick_ms: TICK_MS,
            request_timeout_ms: 7_000,
            read_retry_ms: 500,
            apply_lag_max,
            proposals_max,
            reads_max,
            snapshot_entries,
            snapshot_bytes,
            catchup_entries,
            catchup_bytes: 1 << 20,
            marks_max,
            expirer: ExpirerConfig { checkpoint_ms, ..ExpirerConfig::default() },
        });
        Ok(String::new())
    }

    fn tick(&mut self, who: Option<NodeId>) {
        let members = &mut self.members;
        members.now = Instant(members.now.0 + TICK_MS);
        let all: Vec<NodeId> = members.all.keys().copied().collect();
        for id in all.into_iter().filter(|id| who.is_none_or(|who| who == *id)) {
            members.event(id, Event::Tick(members.now));
        }
    }

    fn time(&mut self, name: &str, args: &mut ArgumentConsumer<'_>) -> Outcome<String> {
        if name == "elect" {
            let id = id(args)?;
            let side = self.members.cut.contains(&id);
            let cut = &self.members.cut;
            let with = |other: &NodeId| *other != id && cut.contains(other) == side;
            let others: Vec<NodeId> = self.members.all.keys().copied().filter(with).collect();
            for other in others {
                for _ in 0..10 {
                    self.tick(Some(other));
                }
            }
            self.members.net.clear();
            for _ in 0..100 {
                if self.members.member(id).node.raft().role() == RoleKind::Leader {
                    break;
                }
                self.tick(Some(id));
                self.members.settle();
            }
            return Ok(String::new());
        }
        let who = if name == "tick" { Some(args.next_pos().ok_or("which member?")?) } else { None };
        let who = match who {
            Some(arg) if arg.value != "*" => Some(NodeId(arg.parse()?)),
            Some(_) | None => None,
        };
        let count: u64 = args.next_pos().map(|arg| arg.parse()).transpose()?.unwrap_or(1);
        for _ in 0..count {
            self.tick(who);
            if name == "run" {
                self.members.settle();
            }
        }
        Ok(String::new())
    }

    fn request(&mut self, name: &str, args: &mut ArgumentConsumer<'_>) -> Outcome<String> {
        let id = id(args)?;
        let waiter: u64 = next(args, "who waits")?;
        let request = match name {
            "propose" => {
                let words: Vec<&str> = args.rest_pos().iter().map(|arg| arg.value.as_str()).collect();
                let payload = format!("{waiter} {}", words.join(" ")).into();
                Request::Propose { id: waiter, payload, waiter }
            }
            "change" => {
                let step = next::<String>(args, "the step")?;
                let (sign, node) = step.split_at_checked(1).ok_or("an empty step")?;
                let kind = match sign {
                    "v" => ChangeKind::AddVoter,
                    "l" => ChangeKind::AddLearner,
                    "r" => ChangeKind::Remove,
                    "u" => ChangeKind::Update,
                    _ => return Err(format!("no step is {step}").into()),
                };
                let step = ChangeStep { kind, node: NodeId(node.parse()?) };
                let change = Change::Single { id: waiter, step, context: Default::default() };
                Request::Change { id: waiter, change, waiter }
            }
            "read" => Request::Read { waiter },
            "renew" => {
                let leases = args.rest_pos().into_iter().map(|arg| arg.parse().map(LeaseId));
                Request::RenewLeases { leases: leases.collect::<Result<_, _>>()?, waiter }
            }
            "remaining" => Request::LeaseRemaining { lease: LeaseId(next(args, "the lease")?), waiter },
            "progress" => Request::Progress { waiter },
            _ => Request::Transfer { to: NodeId(named(args, "to")?), waiter },
        };
        self.members.request(id, waiter, request);
        Ok(String::new())
    }

    fn network(&mut self, name: &str, args: &mut ArgumentConsumer<'_>) -> Outcome<String> {
        let members = &mut self.members;
        match name {
            "settle" => members.settle(),
            "heal" => members.cut.clear(),
            "reverse" => members.net.reverse(),
            "cut" => {
                members.cut =
                    args.rest_pos().into_iter().map(|a| a.parse().map(NodeId)).collect::<Result<_, _>>()?
            }
            _ => {
                let from = args.lookup_parse("from")?.map(NodeId);
                let to = args.lookup_parse("to")?.map(NodeId);
                let only = args.lookup("kind").map(|arg| arg.value.clone());
                let takes = |m: &Message| {
                    from.is_none_or(|from| from == m.from)
                        && to.is_none_or(|to| to == m.to)
                        && only.as_ref().is_none_or(|only| only == kind(&m.body))
                };
                let all = std::mem::take(&mut members.net);
                let (chosen, rest): (Vec<_>, Vec<_>) = all.into_iter().partition(takes);
                members.net = rest;
                for message in chosen.into_iter().filter(|_| name == "deliver") {
                    members.net.insert(0, message);
                    members.deliver(0);
                }
            }
        }
        Ok(String::new())
    }

    fn machine(&mut self, name: &str, args: &mut ArgumentConsumer<'_>) -> Outcome<String> {
        let id = id(args)?;
        let members = &mut self.members;
        match name {
            "hold" | "release" => {
                let held = name == "hold";
                let member = members.member(id);
                match next::<String>(args, "what")?.as_str() {
                    "disk" => member.disk_held = held,
                    "applier" => member.applier_held = held,
                    "keeper" => member.keeper_held = held,
                    what => return Err(format!("nothing is called {what}").into()),
                }
            }
            "persist" => drop(members.persist(id)),
            "apply" => drop(members.apply(id)),
            "built" => {
                let ok = !matches!(args.next_pos(), Some(arg) if arg.value == "failed");
                members.built(id, NodeId(named(args, "to")?), ok);
                members.drain(id);
            }
            "checked" => {
                let unfit = matches!(args.next_pos(), Some(arg) if arg.value == "unfit");
                members.checked(id, !unfit);
            }
            "flushed" => {
                let flushed = Some(Index(next(args, "the index")?));
                members.event(id, Event::Applied(Report { flushed, ..Report::default() }));
            }
            "join" => members.join(id),
            "spoil" => {
                let how = args.next_pos().map_or(Ok(1), |arg| arg.parse())?;
                members.member(id).state.spoiled = how;
            }
            "own" => {
                let term = Term(named(args, "term")?);
                let words: Vec<&str> = args.rest_pos().iter().map(|arg| arg.value.as_str()).collect();
                let payload = format!("0 {}", words.join(" ")).into();
                members.event(id, Event::Request(Request::AsLeader { term, payload }));
            }
            "snapshot" => {
                let last = LogId { term: Term(1), index: Index(named(args, "index")?) };
                let config = members.member(id).node.raft().conf_state();
                let snapshot = Snapshot { meta: SnapshotMeta { last, config }, data: Default::default() };
                let (from, term) = (NodeId(named(args, "from")?), Term(named(args, "term")?));
                members.event(id, Event::SnapshotReceived { from, term, snapshot });
            }
            "diverge" => {
                let raft = members.member(id).node.raft();
                let prev = LogId { term: Term(99), index: raft.commit() };
                let (from, term) = (NodeId(named(args, "from")?), raft.term());
                let body = Body::Append { prev, entries: Vec::new(), commit: prev.index };
                members.event(id, Event::Message(Message { from, to: id, term, body }));
            }
            name => return Err(format!("no command is called {name}").into()),
        }
        members.drain(id);
        Ok(String::new())
    }

    fn show(&mut self, name: &str, args: &mut ArgumentConsumer<'_>) -> Outcome<String> {
        let mut output = String::new();
        match name {
            "net" => {
                for message in &self.members.net {
                    writeln!(output, "{}", Shown(message))?;
                }
            }
            "waiting" => writeln!(output, "{:?}", self.members.waiting())?,
            _ => {
                let id = id(args)?;
                let node = &self.members.member(id).node;
                writeln!(output, "{}", show_raft(node.raft())[0])?;
                writeln!(output, "   first={} applied={}", node.raft().first_index(), node.applied())?;
            }
        }
        Ok(output)
    }
}
