//! Messages, entries and states as text.

use std::fmt;

use kontiki::{
    membership::{Change, ChangeKind, ChangeStep, Transition},
    raft::{Body, ConfState, Entry, HardState, LogId, Message, Payload, Raft, Ready, Standing},
    types::NodeId,
};

pub struct Shown<'a, T>(pub &'a T);

fn list<T>(items: impl IntoIterator<Item = T>, show: impl Fn(T) -> String) -> String {
    let shown: Vec<String> = items.into_iter().map(show).collect();
    shown.join(" ")
}

fn log_id(id: &LogId) -> String {
    format!("{}.{}", id.term, id.index)
}

impl fmt::Display for Shown<'_, ChangeStep> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.0.kind {
            ChangeKind::AddVoter => "v",
            ChangeKind::Remove => "r",
            ChangeKind::Update => "u",
            ChangeKind::AddLearner => "l",
        };
        write!(f, "{sign}{}", self.0.node)
    }
}

impl fmt::Display for Shown<'_, Payload> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Payload::Empty => write!(f, "()"),
            Payload::Command(bytes) => write!(f, "{}", String::from_utf8_lossy(bytes)),
            Payload::Change(Change::Single { step, .. }) => write!(f, "{}", Shown(step)),
            Payload::Change(Change::Joint { steps, .. }) if steps.is_empty() => write!(f, "leave"),
            Payload::Change(Change::Joint { transition, steps, .. }) => {
                let how = if *transition == Transition::JointExplicit { "explicit" } else { "joint" };
                write!(f, "{how}({})", list(steps, |step| Shown(step).to_string()))
            }
        }
    }
}

impl fmt::Display for Shown<'_, Entry> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}:{}", self.0.term, self.0.index, Shown(&self.0.payload))
    }
}

impl fmt::Display for Shown<'_, Vec<Entry>> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}]", list(self.0, |entry| Shown(entry).to_string()))
    }
}

impl fmt::Display for Shown<'_, HardState> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let vote = self.0.vote.map_or("none".into(), |id| id.to_string());
        write!(f, "term={} vote={vote} commit={}", self.0.term, self.0.commit)
    }
}

impl fmt::Display for Shown<'_, ConfState> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({})", list(&self.0.voters, NodeId::to_string))?;
        if !self.0.voters_outgoing.is_empty() {
            write!(f, "&({})", list(&self.0.voters_outgoing, NodeId::to_string))?;
        }
        if !self.0.learners.is_empty() {
            write!(f, " learners=({})", list(&self.0.learners, NodeId::to_string))?;
        }
        if !self.0.learners_next.is_empty() {
            write!(f, " learners_next=({})", list(&self.0.learners_next, NodeId::to_string))?;
        }
        if self.0.auto_leave { write!(f, " autoleave") } else { Ok(()) }
    }
}

/// The name of a message's kind, as scripts say it.
pub fn kind(body: &Body) -> &'static str {
    match body {
        Body::Propose { .. } => "propose",
        Body::Append { .. } => "append",
        Body::AppendAccepted { .. } => "accepted",
        Body::AppendRejected { .. } => "rejected",
        Body::Vote { pre: true, .. } => "prevote",
        Body::Vote { pre: false, .. } => "vote",
        Body::VoteReply { pre: true, .. } => "prevote_reply",
        Body::VoteReply { pre: false, .. } => "vote_reply",
        Body::Snapshot(_) => "snapshot",
        Body::Heartbeat { .. } => "heartbeat",
        Body::HeartbeatReply { .. } => "heartbeat_reply",
        Body::TransferLeader { .. } => "transfer",
        Body::TimeoutNow => "timeout_now",
        Body::ReadIndex { .. } => "read",
        Body::ReadIndexReply { .. } => "read_reply",
    }
}

impl fmt::Display for Shown<'_, Message> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Message { from, to, term, body } = self.0;
        write!(f, "{from}→{to} {}", kind(body))?;
        if term.0 > 0 {
            write!(f, " term={term}")?;
        }
        // The low half of a read's id is its counter; the high half differs from run to run.
        let round = |context: &[u8]| context.last().map_or(String::new(), |last| format!(" round={last}"));
        match body {
            Body::Propose { payloads } => write!(f, " {}", list(payloads, |p| Shown(p).to_string())),
            Body::Append { prev, entries, commit } => {
                write!(f, " prev={} {} commit={commit}", log_id(prev), Shown(entries))
            }
            Body::AppendAccepted { matched } => write!(f, " matched={matched}"),
            Body::AppendRejected { prev, hint } => write!(f, " prev={prev} hint={}", log_id(hint)),
            Body::Vote { pre: _, last, transfer } => {
                write!(f, " last={}{}", log_id(last), if *transfer { " transfer" } else { "" })
            }
            Body::VoteReply { pre: _, granted } => write!(f, " {}", if *granted { "yes" } else { "no" }),
            Body::Snapshot(snapshot) => {
                write!(f, " last={} {}", log_id(&snapshot.meta.last), Shown(&snapshot.meta.config))
            }
            Body::Heartbeat { commit, context, state: _ } => write!(f, " commit={commit}{}", round(context)),
            Body::HeartbeatReply { context, state: _ } => write!(f, "{}", round(context)),
            Body::TransferLeader { target } => write!(f, " to={target}"),
            Body::TimeoutNow => Ok(()),
            Body::ReadIndex { context } => write!(f, "{}", round(context)),
            Body::ReadIndexReply { index, context } => write!(f, " index={index}{}", round(context)),
        }
    }
}

impl fmt::Display for Shown<'_, Standing> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Standing { term, role, leader } = self.0;
        let leader = leader.map_or("none".into(), |id| id.to_string());
        write!(f, "{role:?} term={term} leader={leader}")
    }
}

/// What a member wants done, a line for each kind but messages: those show when they are delivered.
pub fn show_ready(id: NodeId, ready: &Ready) -> Vec<String> {
    let mut lines = Vec::new();
    let mut say = |line: String| lines.push(format!("{id}: {line}"));
    if let Some(standing) = &ready.standing {
        say(format!("is {}", Shown(standing)));
    }
    if let Some(snapshot) = &ready.snapshot {
        say(format!("installs snapshot {}", log_id(&snapshot.meta.last)));
    }
    if !ready.entries.is_empty() || ready.hard.is_some() {
        let entries =
            if ready.entries.is_empty() { String::new() } else { format!(" {}", Shown(&ready.entries)) };
        let hard = ready.hard.as_ref().map_or(String::new(), |hard| format!(" {}", Shown(hard)));
        let id = ready.persist.map_or(", unsynced".into(), |id| format!(" #{}", id.0));
        say(format!("writes{id}{entries}{hard}"));
    }
    for message in &ready.messages {
        say(format!("sends {}", Shown(message)));
    }
    if !ready.committed.is_empty() {
        say(format!("applies {}", Shown(&ready.committed)));
    }
    for (read, index) in &ready.reads {
        say(format!("read {} may be served at {index}", read.0));
    }
    for read in &ready.reads_dropped {
        say(format!("read {} is dropped", read.0));
    }
    for to in &ready.need_snapshot {
        say(format!("needs a snapshot for {to}"));
    }
    lines
}

/// A member in one line, and its peers if it leads.
pub fn show_raft(raft: &Raft) -> Vec<String> {
    let hard = raft.hard_state();
    let vote = hard.vote.map_or("none".into(), |id| id.to_string());
    let mut lines = vec![format!(
        "{}: {} vote={vote} last={} commit={} applied={} durable={} {}",
        raft.id(),
        Shown(&raft.standing()),
        log_id(&raft.last()),
        raft.commit(),
        raft.applied(),
        raft.durable(),
        Shown(&raft.conf_state()),
    )];
    for (id, peer) in raft.peers() {
        lines.push(format!(
            "   {id}: {:?} match={} next={} inflight={}{}",
            peer.state,
            peer.matched,
            peer.next,
            peer.inflight,
            if peer.recent_active { "" } else { " inactive" }
        ));
    }
    lines
}
