//! What golden scripts can say. Members are numbers; a script begins with `cluster`.
//!
//! ```text
//! cluster voters=3 [learners=1] [pre_vote=false] [check_quorum=false] [election=10] [heartbeat=1]
//!         [append_max=..] [inflight_max=..] [inflight_bytes=..] [uncommitted_max=..] [reads_max=..]
//!         [persist_ticks=..] [snapshot_ticks=..]
//! join ID                   a member with nothing on its disk
//! tick ID|* [N]             campaign ID    propose ID TEXT...     read ID
//! change ID STEP... [joint|explicit|leave]     steps: v4 voter, l4 learner, r4 remove, u4 update
//! transfer ID to=ID         unreachable ID peer=ID     compact ID INDEX
//! deliver [N] [from=ID] [to=ID] [kind=KIND]    in order; all there are now, or N
//! settle                    deliver until nothing is under way
//! drop [from=ID] [to=ID] [kind=KIND]           repeat [..] (deliver and keep a copy)
//! net                       what is under way
//! hold ID / release ID      its disk stops / goes on and acknowledges; persist ID [N] acknowledges N writes
//! crash ID [survive=N]      start ID       cut ID... (from the rest)     heal
//! build ID                  builds the snapshots asked for; `manual ID` makes it wait for that
//! lost ID peer=ID           the snapshot's sending failed
//! state [ID]                log [ID]
//! ```

use std::{error::Error, fmt::Write as _};

use goldenscript::{ArgumentConsumer, Command};
use kontiki::{
    membership::{Change, ChangeKind, ChangeStep, Transition},
    raft::{Input, Message, Payload},
    types::{Index, NodeId},
};

use crate::{
    cluster::{Cluster, Stored},
    show::{Shown, kind, show_raft},
};

type Outcome<T> = Result<T, Box<dyn Error>>;

#[derive(Default)]
pub struct Runner {
    cluster: Cluster,
}

/// Which messages a command is about.
struct Filter {
    from: Option<NodeId>,
    to: Option<NodeId>,
    kind: Option<String>,
}

impl Filter {
    fn parse(args: &mut ArgumentConsumer<'_>) -> Outcome<Self> {
        let from = args.lookup_parse("from")?.map(NodeId);
        let to = args.lookup_parse("to")?.map(NodeId);
        let kind = args.lookup("kind").map(|arg| arg.value.clone());
        Ok(Self { from, to, kind })
    }

    fn takes(&self, message: &Message) -> bool {
        self.from.is_none_or(|from| from == message.from)
            && self.to.is_none_or(|to| to == message.to)
            && self.kind.as_ref().is_none_or(|wanted| wanted == kind(&message.body))
    }
}

fn id(args: &mut ArgumentConsumer<'_>) -> Outcome<NodeId> {
    Ok(NodeId(args.next_pos().ok_or("which member?")?.parse()?))
}

fn count(args: &mut ArgumentConsumer<'_>) -> Outcome<Option<usize>> {
    args.next_pos().map(|arg| arg.parse()).transpose()
}

impl goldenscript::Runner for Runner {
    fn run(&mut self, command: &Command) -> Outcome<String> {
        let mut args = command.consume_args();
        self.cluster.tracing = true;
        let output = match command.name.as_str() {
            "state" | "log" | "net" => self.show(&command.name, &mut args)?,
            "cluster" => self.begin(&mut args)?,
            "deliver" | "settle" | "drop" | "repeat" => self.network(&command.name, &mut args)?,
            "hold" | "release" | "persist" | "crash" | "start" | "build" | "manual" | "join" => {
                self.machine(&command.name, &mut args)?
            }
            "cut" | "heal" => self.links(&command.name, &mut args)?,
            name => self.input(name, &mut args)?,
        };
        args.reject_rest()?;
        let mut trace = std::mem::take(&mut self.cluster.trace).join("\n");
        if !trace.is_empty() && !output.is_empty() {
            trace.push('\n');
        }
        Ok(trace + &output)
    }

    fn end_command(&mut self, _: &Command) -> Outcome<String> {
        self.cluster.trace.clear();
        self.cluster.check_log_matching();
        Ok(String::new())
    }
}

impl Runner {
    fn begin(&mut self, args: &mut ArgumentConsumer<'_>) -> Outcome<String> {
        let voters = args.lookup_parse("voters")?.unwrap_or(3);
        let learners = args.lookup_parse("learners")?.unwrap_or(0);
        let pre_vote = args.lookup_parse("pre_vote")?.unwrap_or(true);
        let check_quorum = args.lookup_parse("check_quorum")?.unwrap_or(true);
        let election = args.lookup_parse("election")?.unwrap_or(10);
        let heartbeat = args.lookup_parse("heartbeat")?.unwrap_or(1);
        let append_max = args.lookup_parse("append_max")?;
        let inflight_max = args.lookup_parse("inflight_max")?;
        let inflight_bytes = args.lookup_parse("inflight_bytes")?;
        let uncommitted_max = args.lookup_parse("uncommitted_max")?;
        let reads_max = args.lookup_parse("reads_max")?;
        let persist_ticks = args.lookup_parse("persist_ticks")?;
        let snapshot_ticks = args.lookup_parse("snapshot_ticks")?;
        self.cluster = Cluster::new(voters, learners, |config| {
            config.pre_vote = pre_vote;
            config.check_quorum = check_quorum;
            config.election_ticks = election;
            config.heartbeat_ticks = heartbeat;
            config.append_bytes_max = append_max.unwrap_or(config.append_bytes_max);
            config.inflight_max = inflight_max.unwrap_or(config.inflight_max);
            config.inflight_bytes_max = inflight_bytes.unwrap_or(config.inflight_bytes_max);
            config.uncommitted_bytes_max = uncommitted_max.unwrap_or(config.uncommitted_bytes_max);
            config.reads_max = reads_max.unwrap_or(config.reads_max);
            config.persist_ticks_max = persist_ticks.unwrap_or(election);
            config.snapshot_ticks_max = snapshot_ticks.unwrap_or(config.snapshot_ticks_max);
        });
        Ok(String::new())
    }

    fn input(&mut self, name: &str, args: &mut ArgumentConsumer<'_>) -> Outcome<String> {
        if name == "tick" {
            return self.tick(args);
        }
        let member = id(args)?;
        let input = match name {
            "campaign" => Input::Campaign,
            "propose" => {
                let command = |arg: &goldenscript::Argument| Payload::Command(arg.value.clone().into());
                Input::Propose(args.rest_pos().into_iter().map(command).collect())
            }
            "change" => Input::Propose(vec![Payload::Change(parse_change(args)?)]),
            "transfer" => Input::Transfer(NodeId(args.lookup_parse("to")?.ok_or("to whom?")?)),
            "unreachable" => Input::Unreachable(NodeId(args.lookup_parse("peer")?.ok_or("which peer?")?)),
            "lost" => {
                let to = NodeId(args.lookup_parse("peer")?.ok_or("which peer?")?);
                Input::SnapshotSent { to, ok: false }
            }
            "compact" => Input::Compact(Index(args.next_pos().ok_or("up to where?")?.parse()?)),
            "read" => {
                self.cluster.read(member)?;
                return Ok(String::new());
            }
            name => return Err(format!("no command is called {name}").into()),
        };
        self.cluster.input(member, input)?;
        Ok(String::new())
    }

    fn tick(&mut self, args: &mut ArgumentConsumer<'_>) -> Outcome<String> {
        let who = args.next_pos().ok_or("which member?")?;
        let ids: Vec<NodeId> = match who.value.as_str() {
            "*" => self.cluster.nodes.keys().copied().collect(),
            _ => vec![NodeId(who.parse()?)],
        };
        for _ in 0..count(args)?.unwrap_or(1) {
            for id in &ids {
                self.cluster.input(*id, Input::Tick)?;
            }
        }
        Ok(String::new())
    }

    fn network(&mut self, name: &str, args: &mut ArgumentConsumer<'_>) -> Outcome<String> {
        let filter = Filter::parse(args)?;
        let max = count(args)?;
        let all = std::mem::take(&mut self.cluster.net);
        let (mut chosen, rest): (Vec<_>, Vec<_>) = all.into_iter().partition(|m| filter.takes(m));
        self.cluster.net = rest;
        if let Some(max) = max {
            let later = chosen.split_off(max.min(chosen.len()));
            self.cluster.net.splice(0..0, later);
        }
        let mut output = String::new();
        for message in chosen {
            if name == "drop" {
                writeln!(output, "lost: {}", Shown(&message))?;
                continue;
            }
            if name == "repeat" {
                self.cluster.net.push(message.clone());
            }
            self.cluster.net.insert(0, message);
            self.cluster.deliver(0);
        }
        for _ in 0..1000 {
            if name != "settle" || self.cluster.net.is_empty() {
                break;
            }
            self.cluster.deliver(0);
        }
        Ok(output)
    }

    fn machine(&mut self, name: &str, args: &mut ArgumentConsumer<'_>) -> Outcome<String> {
        let id = id(args)?;
        let cluster = &mut self.cluster;
        match name {
            "hold" => cluster.node(id).held = true,
            "release" => {
                cluster.node(id).held = false;
                while cluster.persist(id) {}
            }
            "persist" => {
                for _ in 0..count(args)?.unwrap_or(1) {
                    cluster.persist(id);
                }
            }
            "crash" => cluster.crash(id, args.lookup_parse("survive")?.unwrap_or(0), Index(u64::MAX)),
            "start" => cluster.start(id),
            "manual" => cluster.node(id).builds = false,
            "build" => {
                cluster.build_snapshots(id);
                cluster.drain(id);
            }
            "join" => cluster.add(id, Stored::default(), |_| {}),
            name => return Err(format!("no command is called {name}").into()),
        }
        Ok(String::new())
    }

    fn links(&mut self, name: &str, args: &mut ArgumentConsumer<'_>) -> Outcome<String> {
        self.cluster.cut.clear();
        if name == "heal" {
            return Ok(String::new());
        }
        let side: Vec<NodeId> =
            args.rest_pos().into_iter().map(|arg| arg.parse().map(NodeId)).collect::<Outcome<_>>()?;
        let all: Vec<NodeId> = self.cluster.nodes.keys().copied().collect();
        for other in all.into_iter().filter(|id| !side.contains(id)) {
            for id in &side {
                self.cluster.cut.extend([(*id, other), (other, *id)]);
            }
        }
        Ok(String::new())
    }

    fn show(&self, name: &str, args: &mut ArgumentConsumer<'_>) -> Outcome<String> {
        let mut output = String::new();
        if name == "net" {
            for message in &self.cluster.net {
                writeln!(output, "{}", Shown(message))?;
            }
            return Ok(output);
        }
        let only = count(args)?.map(|id| NodeId(id as u64));
        for (id, node) in self.cluster.nodes.iter().filter(|(id, _)| only.is_none_or(|only| only == **id)) {
            match &node.raft {
                None => writeln!(output, "{id}: crashed")?,
                Some(raft) if name == "state" => writeln!(output, "{}", show_raft(raft).join("\n"))?,
                Some(raft) => {
                    let base = raft.first_index().0 - 1;
                    write!(output, "{id}: after {base}")?;
                    for index in base + 1..=raft.last().index.0 {
                        let term = raft.term_at(Index(index)).ok_or("the log has a gap")?;
                        write!(
                            output,
                            " {term}.{index}{}",
                            if index == raft.commit().0 { " |" } else { "" }
                        )?;
                    }
                    writeln!(output)?;
                }
            }
        }
        Ok(output)
    }
}

fn parse_change(args: &mut ArgumentConsumer<'_>) -> Outcome<Change> {
    let mut steps = Vec::new();
    let mut how = None;
    for arg in args.rest_pos() {
        let (kind, node) = match arg.value.split_at_checked(1) {
            Some(("v", node)) => (ChangeKind::AddVoter, node),
            Some(("l", node)) if arg.value != "leave" => (ChangeKind::AddLearner, node),
            Some(("r", node)) => (ChangeKind::Remove, node),
            Some(("u", node)) => (ChangeKind::Update, node),
            _ => {
                how = Some(arg.value.as_str());
                continue;
            }
        };
        steps.push(ChangeStep { kind, node: NodeId(node.parse()?) });
    }
    let context = Default::default();
    Ok(match (how, &steps[..]) {
        (None, [step]) => Change::Single { id: 1, step: *step, context },
        (None | Some("leave"), _) => Change::Joint { transition: Transition::Auto, steps, context },
        (Some("joint"), _) => Change::Joint { transition: Transition::JointImplicit, steps, context },
        (Some("explicit"), _) => Change::Joint { transition: Transition::JointExplicit, steps, context },
        (Some(how), _) => return Err(format!("no change is {how}").into()),
    })
}
