//! Makes a run's trace and history into what the page shows.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    data::{Applied, Band, Call, Finding, Mark, MarkKind, Message, Story, Watch},
    words,
};
use crate::{
    check,
    host::Micros,
    plan::{Fault, Plan, Timed},
    probe::{Event, Traced},
    rule,
    run::Verdict,
};

/// How many violations are told of.
const FINDINGS_MAX: usize = 20;

/// The window that the page opens on: at least and at most this wide.
const WINDOW: (Micros, Micros) = (100_000, 3_000_000);

/// The run for the page.
pub fn story(plan: &Plan, verdict: &Verdict, again: &str, events_max: usize) -> Story {
    let history = &verdict.history;
    let findings = findings(verdict);
    let first = findings.first();
    let rule = first.map(|finding| finding.rule.clone()).unwrap_or_default();
    let mut story = Story {
        title: match first {
            Some(_) => format!("{rule} is broken: seed {}", plan.seed),
            None => format!("seed {}: nothing is wrong", plan.seed),
        },
        words: if rule.is_empty() { String::new() } else { rule::in_plain_words(&rule).to_owned() },
        rule,
        replay: format!("sim replay {again}"),
        knobs: words::knobs(&plan.knobs),
        end: verdict.trace.last().map_or(0, |traced| traced.at),
        calls: history.ops.iter().map(call).collect(),
        watches: history.watches.iter().map(watch).collect(),
        ..Story::default()
    };
    story.findings = findings;
    take_trace(&mut story, &verdict.trace, plan);
    shorten_exits(&mut story);
    name_members(&mut story, &verdict.trace);
    story.clients = clients(&story);
    story.window = window(&story);
    limit(&mut story, events_max);
    story
}

fn call(op: &crate::history::Op) -> Call {
    let (how, got) = words::got(op);
    Call {
        id: op.id,
        client: op.client,
        member: op.member,
        from: op.start.0,
        to: op.end.map(|end| end.0),
        asks: words::asks(op),
        how,
        got,
        full: words::full(op),
    }
}

fn watch(log: &crate::history::WatchLog) -> Watch {
    Watch {
        id: log.id,
        client: log.client,
        member: log.member,
        from: log.start.0,
        to: log.ended.map(|end| end.0),
        asks: words::watches(log),
        resumes: log.resumes,
        heard: log.responses.iter().map(|(at, response)| (at.0, words::hears(response))).collect(),
    }
}

/// What is wrong, with all that the oracles know of it.
fn findings(verdict: &Verdict) -> Vec<Finding> {
    let judged: BTreeMap<String, check::Violation> = check::all(&verdict.history)
        .violations
        .into_iter()
        .map(|violation| (violation.to_string(), violation))
        .collect();
    let find = |text: &String| match judged.get(text) {
        Some(violation) => Finding {
            rule: rule::of(text),
            text: words::cut(violation.text.clone(), 2_000),
            at: violation.at.0,
            calls: violation.ops.clone(),
            watches: violation.watches.clone(),
            members: Vec::new(),
        },
        None => Finding {
            rule: rule::of(text),
            text: words::cut(text.clone(), 2_000),
            at: failed_at(&verdict.trace, text),
            ..Finding::default()
        },
    };
    let mut findings: Vec<Finding> = verdict.violations.iter().take(FINDINGS_MAX).map(find).collect();
    // What could be seen first is nearest to the cause. What is seen at once stays in the oracles' order.
    findings.sort_by_key(|finding| finding.at);
    findings
}

/// Why a member ended by itself is not told twice in nearly the same words.
fn shorten_exits(story: &mut Story) {
    for at in 1..story.marks.len() {
        let (exit, failure) = (&story.marks[at - 1], &story.marks[at]);
        if (exit.kind, failure.kind, exit.at) == (MarkKind::Exit, MarkKind::Failure, failure.at) {
            story.marks[at - 1].text = "ends by itself".to_owned();
        }
    }
}

/// A reader knows members by their lanes, not by their raft ids.
fn name_members(story: &mut Story, trace: &[Traced]) {
    let ids: BTreeMap<&str, u32> = trace
        .iter()
        .filter_map(|traced| match &traced.event {
            Event::Up { member, id } => Some((id.as_str(), *member)),
            _ => None,
        })
        .collect();
    let texts = story.findings.iter_mut().map(|finding| &mut finding.text);
    let marks = story.marks.iter_mut().filter(|mark| mark.kind != MarkKind::Up).map(|mark| &mut mark.text);
    for text in texts.chain(marks) {
        for (id, member) in &ids {
            if text.contains(id) {
                *text = text.replace(id, &format!("member {member}"));
            }
        }
    }
    for finding in &mut story.findings {
        finding.members = named_members(&finding.text);
    }
}

/// When the run itself noticed a failure.
fn failed_at(trace: &[Traced], text: &str) -> Micros {
    let noted = trace.iter().find(
        |traced| matches!(&traced.event, Event::Fault { text: t, .. } if t.strip_prefix("FAILURE: ") == Some(text)),
    );
    noted.or(trace.last()).map_or(0, |traced| traced.at)
}

/// The members that a text names.
fn named_members(text: &str) -> Vec<u32> {
    let number = |behind: &str| behind.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok();
    text.split("member ").skip(1).filter_map(number).collect()
}

/// A trace being read.
#[derive(Default)]
struct Reading {
    /// Where a message's number is.
    places: BTreeMap<u64, usize>,
    kinds: BTreeMap<String, usize>,
    members: BTreeSet<u32>,
    /// Faults of the plan that have not begun yet.
    due: Vec<Timed<Fault>>,
}

fn take_trace(story: &mut Story, trace: &[Traced], plan: &Plan) {
    let mut reading = Reading {
        due: plan.faults.clone(),
        members: (1..=plan.knobs.members).collect(),
        ..Reading::default()
    };
    for traced in trace {
        take_event(story, &mut reading, traced, plan.calm_from);
    }
    let mut kinds: Vec<(String, usize)> = reading.kinds.into_iter().collect();
    kinds.sort_by_key(|(_, place)| *place);
    story.kinds = kinds.into_iter().map(|(kind, _)| kind).collect();
    story.members = reading.members.into_iter().collect();
}

fn take_event(story: &mut Story, reading: &mut Reading, traced: &Traced, calm_from: Micros) {
    let at = traced.at;
    let mut mark = |member: u32, kind, term, text: &str| {
        reading.members.extend((member > 0).then_some(member));
        story.marks.push(Mark { at, member, kind, term, text: text.to_owned() });
    };
    match &traced.event {
        Event::Start { member } => mark(*member, MarkKind::Start, 0, "starts"),
        Event::Up { member, id } => mark(*member, MarkKind::Up, 0, &format!("serves, as {id}")),
        Event::Exit { member, why } => mark(*member, MarkKind::Exit, 0, &format!("ends by itself: {why}")),
        Event::Crash { member, how } => mark(*member, MarkKind::Crash, 0, ended(how)),
        Event::Lead { member, term, leads: true } => {
            mark(*member, MarkKind::Lead, *term, &format!("leads term {term}"));
        }
        Event::Lead { member, term, leads: false } => {
            mark(*member, MarkKind::Follow, *term, &format!("follows in term {term}"));
        }
        Event::Fault { member, text } => match text.strip_prefix("FAILURE: ") {
            Some(failure) => mark(*member, MarkKind::Failure, 0, failure),
            None => take_fault(story, reading, at, *member, text, calm_from),
        },
        Event::Send { number, from, to, kind, term, detail } => {
            let known = reading.kinds.len();
            let kind = *reading.kinds.entry(kind.clone()).or_insert(known);
            reading.places.insert(*number, story.messages.len());
            story.messages.push(Message {
                number: *number,
                from: *from,
                to: *to,
                kind,
                term: *term,
                detail: detail.clone(),
                sent: at,
                ..Message::default()
            });
        }
        Event::Deliver { number } => {
            if let Some(place) = reading.places.get(number) {
                story.messages[*place].arrived.push(at);
            }
        }
        Event::Lose { number } => {
            if let Some(place) = reading.places.get(number) {
                story.messages[*place].lost = Some(at);
            }
        }
        Event::Applied { member, index, term, hash } => {
            story.applied.push(Applied(at, *member, *index, *term, format!("{hash:016x}")));
        }
        Event::Phase { name } => story.phases.push((at, name.clone())),
        // The history has them.
        Event::Call { .. } | Event::Return { .. } | Event::Watch { .. } => {}
    }
}

fn ended(how: &str) -> &'static str {
    if how == "Power" { "loses its power: what was not synced may be gone" } else { "is killed" }
}

/// A fault begins; how long it lasts is in the plan.
fn take_fault(
    story: &mut Story,
    reading: &mut Reading,
    at: Micros,
    member: u32,
    text: &str,
    calm_from: Micros,
) {
    let begun = reading.due.iter().position(|due| due.at <= at && format!("{:?}", due.what) == text);
    let Some(place) = begun else { return };
    let fault = reading.due.remove(place).what;
    let to = (at + fault.span()).min(calm_from.max(at));
    let name = fault.name().to_owned();
    story.faults.push(Band { from: at, to, member, name, text: text.to_owned() });
}

/// Those who called or watched, with names for the simulator's own.
fn clients(story: &Story) -> Vec<(u32, String)> {
    let calls = story.calls.iter().map(|call| call.client);
    let all: BTreeSet<u32> = calls.chain(story.watches.iter().map(|watch| watch.client)).collect();
    let name = |client| match client {
        0 => "witness".to_owned(),
        900 => "prober".to_owned(),
        u32::MAX => "operator".to_owned(),
        client => format!("client {client}"),
    };
    all.into_iter().map(|client| (client, name(client))).collect()
}

/// From the first call involved to the moment of the violation, with something around it.
fn window(story: &Story) -> (Micros, Micros) {
    let Some(finding) = story.findings.first() else {
        return (0, story.end.min(WINDOW.1));
    };
    let calls = story.calls.iter().filter(|call| finding.calls.contains(&call.id));
    let begin = calls.map(|call| call.from).min().unwrap_or(finding.at).min(finding.at);
    let width = (finding.at - begin).clamp(WINDOW.0, WINDOW.1);
    let end = finding.at + width / 4;
    ((finding.at.saturating_sub(width)).saturating_sub(width / 4), end.max(WINDOW.0))
}

/// Leaves out what is too much: heartbeats first, then what is far from the window.
fn limit(story: &mut Story, events_max: usize) {
    let (from, to) = story.window;
    let far = |at: Micros| if at < from { from - at } else { at.saturating_sub(to) };
    let heard: usize = story.watches.iter().map(|watch| watch.heard.len()).sum();
    let mut over = (story.messages.len() + story.applied.len() + heard).saturating_sub(events_max);
    let beats: Vec<bool> = story.kinds.iter().map(|kind| kind.starts_with("Heartbeat")).collect();
    for heartbeats in [true, false] {
        let mut distances: Vec<Micros> = story
            .messages
            .iter()
            .filter(|message| beats[message.kind] == heartbeats)
            .map(|message| far(message.sent))
            .collect();
        distances.sort_unstable_by(|a, b| b.cmp(a));
        if over == 0 || distances.is_empty() {
            continue;
        }
        let limit = distances[over.min(distances.len()) - 1];
        let before = story.messages.len();
        story.messages.retain(|message| beats[message.kind] != heartbeats || far(message.sent) < limit);
        let gone = before - story.messages.len();
        over = over.saturating_sub(gone);
        let what = if heartbeats { "heartbeats and their answers" } else { "other messages" };
        let behind = limit as f64 / 1e6;
        story.left_out.push(format!(
            "{gone} {what}, from {behind:.1} s away from the first window on, are left out to keep this page small."
        ));
    }
    if over > 0 {
        let before = story.applied.len();
        let mut distances: Vec<Micros> = story.applied.iter().map(|applied| far(applied.0)).collect();
        distances.sort_unstable_by(|a, b| b.cmp(a));
        if let Some(limit) = distances.get(over.min(distances.len()).saturating_sub(1)).copied() {
            story.applied.retain(|applied| far(applied.0) < limit);
        }
        story.left_out.push(format!("{} applied batches are left out too.", before - story.applied.len()));
    }
}
