'use strict';
// The run as data is in #data. Everything is drawn anew for each view: only what the view shows, so it stays quick.
window.onerror = message => { document.documentElement.dataset.error = message; };
const story = JSON.parse(document.getElementById('data').textContent);
const $ = id => document.getElementById(id);
const NS = 'http://www.w3.org/2000/svg';
const GUTTER = 104, LANE = 72, DRAWN_MAX = 1600, TALE_MAX = 50;
const finding = story.findings[0];
const involvedCalls = new Set(finding ? finding.calls : []);
const involvedWatches = new Set(finding ? finding.watches : []);
const view = { from: story.window[0], to: story.window[1] };
const hidden = { members: new Set(), families: new Set(), clients: new Set() };
let chosen = null;

// ---- helpers

function make(name, attributes, text) {
  const node = document.createElementNS(NS, name);
  for (const key in attributes) node.setAttribute(key, attributes[key]);
  if (text !== undefined) node.textContent = text;
  return node;
}
function html(name, text, className) {
  const node = document.createElement(name);
  if (text !== undefined) node.textContent = text;
  if (className) node.className = className;
  return node;
}
const seconds = at => (at / 1e6).toFixed(6).replace(/(\.\d{3})(\d{3})$/, '$1 $2') + ' s';
const brief = at => (at / 1e6).toFixed(3) + ' s';
function family(kind) {
  if (/^Heartbeat/.test(kind)) return 'beat';
  if (/Vote|TimeoutNow|TransferLeader/.test(kind)) return 'vote';
  if (kind === 'Snapshot') return 'snapshot';
  if (/^(Append|Accepted|Rejected)/.test(kind)) return 'append';
  return 'other';
}
const FAMILIES = {
  append: 'entries and their acknowledgements', vote: 'elections', snapshot: 'snapshots', beat: 'heartbeats',
  other: 'proposals and reads',
};
const families = story.kinds.map(family);
const messages = story.messages.map(([number, from, to, kind, term, detail, sent, arrived, lost]) =>
  ({ number, from, to, kind: story.kinds[kind], family: families[kind], term, detail, sent, arrived, lost }));
const clientName = new Map(story.clients);
// The last place in a list sorted by `at` that is not after a moment; -1 if there is none.
function lastBefore(list, at, key = 'at') {
  let low = 0, high = list.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (list[middle][key] <= at) low = middle + 1; else high = middle;
  }
  return low - 1;
}

// ---- what members were when: spans of one state, applied and commit indices

const lives = new Map();
for (const member of story.members) {
  const events = story.marks.filter(mark => mark.member === member && mark.kind !== 'failure')
    .map(mark => ({ at: mark.at, kind: mark.kind, term: mark.term }));
  for (const message of messages) {
    if (message.from === member && !/^PreVote/.test(message.kind)) {
      events.push({ at: message.sent, kind: 'term', term: message.term });
    }
  }
  events.sort((a, b) => a.at - b.at);
  const spans = [];
  let now = { up: false, serving: false, term: 0, leads: false };
  const push = (at, next) => {
    if (spans.length && spans[spans.length - 1].at === at) spans.pop();
    spans.push({ at, ...next });
    now = next;
  };
  push(0, now);
  for (const event of events) {
    const term = Math.max(now.term, event.term);
    if (event.kind === 'start') push(event.at, { ...now, up: true, serving: false, leads: false });
    else if (event.kind === 'up') push(event.at, { ...now, up: true, serving: true });
    else if (event.kind === 'crash' || event.kind === 'exit') push(event.at, { ...now, up: false, serving: false, leads: false });
    else if (event.kind === 'lead') push(event.at, { ...now, term, leads: true });
    else if (event.kind === 'follow') push(event.at, { ...now, term, leads: false });
    else if (term > now.term) push(event.at, { ...now, term, leads: false });
  }
  lives.set(member, { spans, applied: [], commits: [] });
}
for (const [at, member, index, term, hash] of story.applied) {
  const life = lives.get(member);
  if (life) life.applied.push({ at, index, term, hash });
}
const told = [];
for (const message of messages) {
  const match = /commit (\d+)/.exec(message.detail);
  if (!match) continue;
  told.push({ at: message.sent, member: message.from, commit: +match[1] });
  for (const at of message.arrived) told.push({ at, member: message.to, commit: +match[1] });
}
told.sort((a, b) => a.at - b.at);
for (const { at, member, commit } of told) {
  const life = lives.get(member);
  if (!life) continue;
  const last = life.commits[life.commits.length - 1];
  if (!last || last.commit < commit) life.commits.push({ at, commit });
}

// ---- everything that can be chosen, by time

const items = [];
for (const message of messages) items.push({ at: message.sent, kind: 'message', ref: message });
for (const mark of story.marks) items.push({ at: mark.at, kind: 'mark', ref: mark });
for (const fault of story.faults) items.push({ at: fault.from, kind: 'fault', ref: fault });
for (const call of story.calls) {
  items.push({ at: call.from, kind: 'call', ref: call });
  if (call.to !== null) items.push({ at: call.to, kind: 'call', ref: call, end: true });
}
for (const watch of story.watches) {
  items.push({ at: watch.from, kind: 'watch', ref: watch });
  for (const heard of watch.heard) items.push({ at: heard[0], kind: 'heard', ref: watch, text: heard[1] });
}
items.sort((a, b) => a.at - b.at);
const isShown = item => {
  if (item.kind === 'message') {
    const { from, to, family } = item.ref;
    return !hidden.families.has(family) && !hidden.members.has(from) && !hidden.members.has(to);
  }
  if (item.kind === 'mark' || item.kind === 'fault') return !hidden.members.has(item.ref.member);
  return !hidden.clients.has(item.ref.client);
};
const isHot = item => (item.kind === 'call' && involvedCalls.has(item.ref.id))
  || ((item.kind === 'watch' || item.kind === 'heard') && involvedWatches.has(item.ref.id));

// ---- words

function title(item) {
  const { ref } = item;
  switch (item.kind) {
    case 'message': return `${ref.kind}: member ${ref.from} → member ${ref.to}`;
    case 'mark': return ref.member ? `member ${ref.member} ${ref.text}` : ref.text;
    case 'fault': return `${ref.name}${ref.member ? ` of member ${ref.member}` : ''}`;
    case 'call': return item.end ? `${clientName.get(ref.client)}'s ${ref.asks}: ${ref.got}`
      : `${clientName.get(ref.client)} asks member ${ref.member}: ${ref.asks}`;
    case 'watch': return `${clientName.get(ref.client)} opens a ${ref.asks} at member ${ref.member}`;
    default: return `${clientName.get(ref.client)}'s watch ${ref.id} hears ${item.text}`;
  }
}
function describe(item) {
  const box = $('detail');
  box.textContent = '';
  const { ref } = item;
  box.append(html('b', title(item)));
  const row = text => box.append(html('div', text));
  row(`at ${seconds(item.at)}`);
  if (item.kind === 'message') {
    row(`message ${ref.number}, term ${ref.term}${ref.detail ? ': ' + ref.detail : ''}`);
    for (const at of ref.arrived) row(`arrives at ${seconds(at)}, after ${((at - ref.sent) / 1000).toFixed(2)} ms`);
    if (ref.lost !== null) row(`lost at ${seconds(ref.lost)}`);
  } else if (item.kind === 'call') {
    row(`call ${ref.id}, from ${seconds(ref.from)} to ${ref.to === null ? 'the end, unanswered' : seconds(ref.to)}`);
    row(`${ref.asks} → ${ref.got}`);
    box.append(html('pre', ref.full));
  } else if (item.kind === 'fault') {
    row(`until ${seconds(ref.to)}`);
    box.append(html('pre', ref.text));
  } else if (item.kind === 'watch' || item.kind === 'heard') {
    row(`watch ${ref.id} of ${clientName.get(ref.client)} at member ${ref.member}: ${ref.asks}`);
    if (ref.resumes !== null) row(`carries on watch ${ref.resumes}`);
    const near = ref.heard.filter(([at]) => Math.abs(at - item.at) < 2e6).slice(0, 12);
    box.append(html('pre', near.map(([at, text]) => `${brief(at)}  ${text}`).join('\n')));
  } else if (ref.term) row(`term ${ref.term}`);
}
function showState(at) {
  $('now').textContent = brief(at);
  const table = $('state');
  table.textContent = '';
  const line = (cells, tag) => {
    const row = html('tr');
    for (const cell of cells) row.append(html(tag, cell));
    table.append(row);
  };
  line(['', 'is', 'term', 'committed', 'applied'], 'th');
  for (const member of story.members) {
    const { spans, applied, commits } = lives.get(member);
    const span = spans[lastBefore(spans, at)] || spans[0];
    const entry = applied[lastBefore(applied, at)], commit = commits[lastBefore(commits, at)];
    const is = !span.up ? 'down' : !span.serving ? 'starting' : span.leads ? '★ leader' : 'follower';
    line([`member ${member}`, is, span.term || '', commit ? `≥ ${commit.commit}` : '', entry ? entry.index : ''], 'td');
  }
}
