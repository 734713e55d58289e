//! What the page is given: the run as plain data. Times are microseconds since the run's start.

use serde::{Serialize, Serializer, ser::SerializeSeq};

use crate::host::Micros;

/// A run for the page.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Story {
    /// The page's title.
    pub title: String,
    /// The first violation's rule; empty if nothing is wrong.
    pub rule: String,
    /// What the rule promises.
    pub words: String,
    /// What is wrong, by the time at which it could be seen.
    pub findings: Vec<Finding>,
    /// The command that runs it again.
    pub replay: String,
    /// The cluster's knobs, for a reader.
    pub knobs: Vec<(String, String)>,
    /// Addresses of members.
    pub members: Vec<u32>,
    /// Clients by number and name.
    pub clients: Vec<(u32, String)>,
    /// When the run ended.
    pub end: Micros,
    /// What is shown first.
    pub window: (Micros, Micros),
    /// Phases by their begin.
    pub phases: Vec<(Micros, String)>,
    /// Kinds of messages, which messages name by place.
    pub kinds: Vec<String>,
    /// Messages between members.
    pub messages: Vec<Message>,
    /// What a member did or suffered.
    pub marks: Vec<Mark>,
    /// Batches that members' tables took.
    pub applied: Vec<Applied>,
    /// Faults.
    pub faults: Vec<Band>,
    /// Clients' calls.
    pub calls: Vec<Call>,
    /// Clients' watches.
    pub watches: Vec<Watch>,
    /// What was left out for the page's size, one sentence each.
    pub left_out: Vec<String>,
}

/// Something wrong.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Finding {
    /// The rule.
    pub rule: String,
    /// What was seen.
    pub text: String,
    /// When it could first be seen.
    pub at: Micros,
    /// Calls involved.
    pub calls: Vec<u64>,
    /// Watches involved.
    pub watches: Vec<u64>,
    /// Members named.
    pub members: Vec<u32>,
}

/// A message. Written as an array, since there are many.
#[derive(Clone, Debug, Default)]
pub struct Message {
    /// Its number in the run.
    pub number: u64,
    /// Who sent it.
    pub from: u32,
    /// To whom.
    pub to: u32,
    /// Its kind, by place.
    pub kind: usize,
    /// The sender's term.
    pub term: u64,
    /// What it says.
    pub detail: String,
    /// When it was sent.
    pub sent: Micros,
    /// When it arrived; more than once if it came twice.
    pub arrived: Vec<Micros>,
    /// When it was lost, if it was.
    pub lost: Option<Micros>,
}

impl Serialize for Message {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut seq = to.serialize_seq(Some(9))?;
        seq.serialize_element(&self.number)?;
        seq.serialize_element(&self.from)?;
        seq.serialize_element(&self.to)?;
        seq.serialize_element(&self.kind)?;
        seq.serialize_element(&self.term)?;
        seq.serialize_element(&self.detail)?;
        seq.serialize_element(&self.sent)?;
        seq.serialize_element(&self.arrived)?;
        seq.serialize_element(&self.lost)?;
        seq.end()
    }
}

/// What kind of thing a member did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MarkKind {
    /// Its process starts.
    Start,
    /// It serves.
    Up,
    /// It ended by itself.
    Exit,
    /// It was ended.
    Crash,
    /// It leads from now on.
    Lead,
    /// It follows from now on.
    Follow,
    /// A check of the run itself failed.
    Failure,
}

/// Something at a moment on a member's lane; member 0 is the whole cluster.
#[derive(Clone, Debug, Serialize)]
pub struct Mark {
    /// When.
    pub at: Micros,
    /// Whose.
    pub member: u32,
    /// What.
    pub kind: MarkKind,
    /// The term, where it has one.
    pub term: u64,
    /// In words.
    pub text: String,
}

/// A batch that tables took: when, whose, the index, its term, the state hash.
#[derive(Clone, Debug, Serialize)]
pub struct Applied(pub Micros, pub u32, pub u64, pub u64, pub String);

/// A fault from its begin to its end.
#[derive(Clone, Debug, Serialize)]
pub struct Band {
    /// When it began.
    pub from: Micros,
    /// When it ended.
    pub to: Micros,
    /// Whose; 0 for one of the network or of all.
    pub member: u32,
    /// Its kind.
    pub name: String,
    /// All of it.
    pub text: String,
}

/// What came of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// It was answered.
    Ok,
    /// It was refused and did nothing.
    Refused,
    /// Nobody knows.
    Unknown,
}

/// A client's call.
#[derive(Clone, Debug, Serialize)]
pub struct Call {
    /// Its number.
    pub id: u64,
    /// Whose.
    pub client: u32,
    /// To which member.
    pub member: u32,
    /// When it began.
    pub from: Micros,
    /// When it ended; none if it never did.
    pub to: Option<Micros>,
    /// What it asks, in a few words.
    pub asks: String,
    /// What came of it.
    pub how: How,
    /// In a few words.
    pub got: String,
    /// Request and answer in full, up to a limit.
    pub full: String,
}

/// A watch on one stream.
#[derive(Clone, Debug, Serialize)]
pub struct Watch {
    /// Its number.
    pub id: u64,
    /// Whose.
    pub client: u32,
    /// At which member.
    pub member: u32,
    /// When it began.
    pub from: Micros,
    /// When its stream ended, if it did.
    pub to: Option<Micros>,
    /// What it asks.
    pub asks: String,
    /// The watch that it carries on.
    pub resumes: Option<u64>,
    /// What came: when, and what.
    pub heard: Vec<(Micros, String)>,
}
