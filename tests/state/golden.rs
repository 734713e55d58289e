//! Golden scripts: each command is an entry, applied at once.

use std::error::Error;

use bytes::Bytes;
use goldenscript::Command as Line;
use kontiki::{
    membership::{Member, promotion, removal, update},
    mvcc::{Compare, CompareResult, CompareTarget, DeleteRequest, Op, PutRequest, RangeRequest, TxnRequest},
    raft::{Entry, Payload},
    state::{Alarm, AlarmAction, AlarmKind, Applied, Command, Reply},
    table::{Scan, Table, Tables},
    types::{Index, KeyRange, LeaseId, NodeId, RangeEnd, Revision, Term},
};

use super::support::{Replica, change_entry, entry_of, only};

struct Runner {
    replica: Replica,
    log: Vec<Entry>,
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn range(text: &str) -> KeyRange {
    match text.split_once("..") {
        None => KeyRange::single(bytes(text)),
        Some((start, end)) => KeyRange { start: bytes(start), end: RangeEnd::Before(bytes(end)) },
    }
}

fn op(text: &str) -> Result<Op, Box<dyn Error>> {
    Ok(match text.split_once('/') {
        Some(("get", rest)) => Op::Range(RangeRequest::of(range(rest))),
        Some(("del", rest)) => Op::Delete(DeleteRequest { range: range(rest), prev_kv: false }),
        Some((key, value)) => {
            Op::Put(PutRequest { key: bytes(key), value: bytes(value), ..PutRequest::default() })
        }
        None => return Err(format!("operation {text}").into()),
    })
}

fn show_reply(reply: &Reply) -> String {
    match reply {
        Reply::Range(found) => format!("@{} {} keys", found.revision, found.count),
        Reply::Put(done) => format!("@{}", done.revision),
        Reply::Delete(done) => format!("@{} {} deleted", done.revision, done.deleted),
        Reply::Txn(done) => format!("@{} succeeded={}", done.revision, done.succeeded),
        Reply::Members(members) => {
            let show = |member: &Member| {
                let learner = if member.learner { " learner" } else { "" };
                let (peers, clients) = (member.peer_urls.join(","), member.client_urls.join(","));
                format!("[{} {:?} {peers} {clients}{learner}]", member.id, member.name)
            };
            members.iter().map(show).collect::<Vec<_>>().join(" ")
        }
        Reply::LeaseGrant { id, ttl } => format!("lease {id} ttl {ttl}"),
        Reply::Alarms(alarms) => format!("{alarms:?}"),
        Reply::Auth(outcome) => super::auth::show(outcome),
        Reply::Compact | Reply::LeaseRevoke | Reply::LeaseCheckpoint | Reply::Done => format!("{reply:?}"),
    }
}

fn show(applied: &Applied) -> String {
    let mut out = match only(applied) {
        Ok(reply) => show_reply(reply),
        Err(refusal) => format!("refused: {refusal}"),
    };
    for event in &applied.events {
        let kv = event.kv.decode().unwrap();
        let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
        let what = if event.deleted { "deleted".into() } else { format!("= {}", text(&kv.value)) };
        out.push_str(&format!("\n  {}.{} {} {what}", event.at.main, event.at.sub, text(&event.key)));
    }
    for change in &applied.leases {
        out.push_str(&format!("\n  {change:?}"));
    }
    for session in &applied.sessions {
        out.push_str(&format!("\n  {session:?}"));
    }
    for change in &applied.changes {
        out.push_str(&format!("\n  raft: {:?}", change.change));
    }
    out
}

impl Runner {
    fn apply(&mut self, entry: Entry) -> Result<String, Box<dyn Error>> {
        self.log.push(entry.clone());
        Ok(show(&self.replica.apply(&[entry])?))
    }

    fn command(&self, line: &Line) -> Result<Option<Command>, Box<dyn Error>> {
        let mut args = line.consume_args();
        let lease = LeaseId(args.lookup_parse("lease")?.unwrap_or(0));
        let member = NodeId(args.lookup_parse("member")?.unwrap_or(0));
        let prev_kv = args.lookup("prev").is_some();
        let mut text = || args.next_pos().map(|arg| arg.value.clone()).ok_or("argument");
        Ok(Some(match line.name.as_str() {
            "put" => Command::Put(PutRequest {
                key: bytes(&text()?),
                value: bytes(&text()?),
                lease,
                prev_kv,
                ..PutRequest::default()
            }),
            "get" => Command::Range(RangeRequest::of(range(&text()?))),
            "del" => Command::Delete(DeleteRequest { range: range(&text()?), prev_kv }),
            // txn KEY OP ELSE: if KEY exists, OP, else ELSE.
            "txn" => {
                let compare = Compare {
                    range: range(&text()?),
                    target: CompareTarget::Version(0),
                    result: CompareResult::Greater,
                };
                let (success, failure) = (vec![op(&text()?)?], vec![op(&text()?)?]);
                Command::Txn(TxnRequest { compare: vec![compare], success, failure })
            }
            // The same in a transaction around it.
            "nested" => {
                let inner = TxnRequest { success: vec![op(&text()?)?], ..TxnRequest::default() };
                Command::Txn(TxnRequest { success: vec![Op::Txn(inner)], ..TxnRequest::default() })
            }
            "compact" => Command::Compact { revision: Revision(text()?.parse()?) },
            "grant" => Command::LeaseGrant { id: LeaseId(text()?.parse()?), ttl: text()?.parse()? },
            "revoke" => Command::LeaseRevoke { id: LeaseId(text()?.parse()?) },
            "checkpoint" => Command::LeaseCheckpoint(vec![(LeaseId(text()?.parse()?), text()?.parse()?)]),
            "raise" | "clear" | "alarms" => {
                let action = match line.name.as_str() {
                    "raise" => AlarmAction::Activate,
                    "clear" => AlarmAction::Deactivate,
                    _ => AlarmAction::Get,
                };
                let kind = match text()?.as_str() {
                    "nospace" => AlarmKind::NoSpace,
                    "corrupt" => AlarmKind::Corrupt,
                    _ => AlarmKind::None,
                };
                Command::Alarm { action, alarm: Alarm { member, kind } }
            }
            "version" => Command::SetClusterVersion(text()?),
            "publish" => Command::SetMemberAttributes {
                id: NodeId(text()?.parse()?),
                name: text()?,
                client_urls: vec![text()?],
            },
            "downgrade" => Command::SetDowngrade { enabled: true, version: text()? },
            "nothing" => Command::Nothing,
            _ => return Ok(None),
        }))
    }

    fn rows(&self, table: &str) -> Result<String, Box<dyn Error>> {
        let table = Table::ALL.into_iter().find(|known| known.name() == table).ok_or("table")?;
        let mut out = String::new();
        let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
        self.replica.tables.scan(table, b"", None, &mut |key, value| {
            // The hash is compared by the replicas' test.
            if key != b"kontiki_state_hash" {
                out.push_str(&format!("{} = {}\n", text(key), text(value)));
            }
            Scan::Continue
        })?;
        Ok(out)
    }
}

impl goldenscript::Runner for Runner {
    fn run(&mut self, line: &Line) -> Result<String, Box<dyn Error>> {
        let index = self.log.len() as u64 + 1;
        let action = super::auth::action(line)?.map(Command::Auth);
        if let Some(command) = action.map_or_else(|| self.command(line), |action| Ok(Some(action)))? {
            return self.apply(entry_of(index, super::auth::who(line)?, command));
        }
        let mut args = line.consume_args();
        let learner = args.lookup("learner").is_some();
        let mut text = || args.next_pos().map(|arg| arg.value.clone()).ok_or("argument");
        match line.name.as_str() {
            "add" => {
                let (id, url) = (NodeId(text()?.parse()?), text()?);
                let member = Member { id, peer_urls: vec![url], learner, ..Member::default() };
                self.apply(change_entry(index, member.to_add(index)))
            }
            "remove" => self.apply(change_entry(index, removal(index, NodeId(text()?.parse()?)))),
            "promote" => self.apply(change_entry(index, promotion(index, NodeId(text()?.parse()?)))),
            "update" => {
                let (id, url) = (NodeId(text()?.parse()?), text()?);
                self.apply(change_entry(index, update(index, id, &[url])))
            }
            // An entry of these bytes, in hex; it is not kept if it stops the node.
            "bytes" => {
                let hex = text()?;
                let bytes: Result<Vec<u8>, _> =
                    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16)).collect();
                let payload = Payload::Command(bytes?.into());
                let entry = Entry { term: Term(1), index: Index(index), payload };
                let out = match self.replica.apply(std::slice::from_ref(&entry)) {
                    Ok(applied) => format!("{:?}", applied.replies),
                    Err(fault) => return Ok(format!("stops: {fault}")),
                };
                self.log.push(entry);
                Ok(out)
            }
            // All entries again: nothing is to come of it.
            "again" => {
                let applied = self.replica.apply(&self.log)?;
                Ok(format!("{} replies, {} events", applied.replies.len(), applied.events.len()))
            }
            "restart" => {
                self.replica.restart();
                Ok(String::new())
            }
            "rows" => self.rows(&text()?),
            "keys" => {
                let lease = self.replica.machine.leases().get(LeaseId(text()?.parse()?)).ok_or("no lease")?;
                let keys: Vec<String> = lease.keys().map(|key| key.escape_ascii().to_string()).collect();
                Ok(format!("ttl {} left {}: {}", lease.ttl, lease.left(), keys.join(" ")))
            }
            other => Err(format!("command {other}").into()),
        }
    }
}

fn script(name: &str) {
    let mut runner = Runner { replica: Replica::new(), log: Vec::new() };
    goldenscript::run(&mut runner, format!("tests/state/scripts/{name}")).unwrap();
}

#[test]
fn leases() {
    script("leases");
}

#[test]
fn alarms() {
    script("alarms");
}

#[test]
fn auth() {
    script("auth");
}

#[test]
fn members() {
    script("members");
}

#[test]
fn entries() {
    script("entries");
}
