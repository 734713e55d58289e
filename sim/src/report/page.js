// ---- drawing

const diagram = $('diagram');
let width = 900, tops = new Map(), clientTops = new Map(), height = 400;
const x = at => GUTTER + (at - view.from) / (view.to - view.from) * (width - GUTTER - 10);
const timeAt = px => view.from + (px - GUTTER) / (width - GUTTER - 10) * (view.to - view.from);
const laneY = member => tops.get(member) + 44;
const visible = (from, to) => to >= view.from && from <= view.to;

function layout() {
  width = Math.max(480, diagram.clientWidth || 900);
  tops = new Map(); clientTops = new Map();
  let y = 34;
  for (const member of story.members) if (!hidden.members.has(member)) { tops.set(member, y); y += LANE; }
  y += 18;
  for (const [client] of story.clients) {
    if (hidden.clients.has(client)) continue;
    const rows = rowsOf(client);
    clientTops.set(client, { y, rows });
    y += 24 + 9 * Math.min(rows.length, 5);
  }
  height = y + 22;
}
// A client's watches in rows, so that those at the same time do not cover each other.
function rowsOf(client) {
  const rows = [];
  for (const watch of story.watches) {
    if (watch.client !== client || !visible(watch.from, watch.to ?? story.end)) continue;
    let row = rows.find(row => row[row.length - 1].to !== null && row[row.length - 1].to <= watch.from);
    if (!row) rows.push(row = []);
    row.push(watch);
  }
  return rows;
}
function clicks(node, item) {
  node.addEventListener('click', event => { event.stopPropagation(); choose(item, false); });
  node.append(make('title', {}, title(item)));
  return node;
}
const same = (a, b) => a && b && a.ref === b.ref && (a.kind !== 'heard' || a.at === b.at);

function draw() {
  layout();
  diagram.textContent = '';
  diagram.setAttribute('height', height);
  diagram.setAttribute('viewBox', `0 0 ${width} ${height}`);
  diagram.append(patterns());
  drawAxis();
  for (const member of tops.keys()) drawLane(member);
  drawFaults();
  const left = drawMessages();
  for (const mark of story.marks) if (visible(mark.at, mark.at)) drawMark(mark);
  for (const client of clientTops.keys()) drawClient(client);
  drawMoments();
  drawOverview();
  const span = view.to - view.from;
  const width_ = span > 2e6 ? (span / 1e6).toFixed(1) + ' s' : (span / 1e3).toFixed(span > 2e4 ? 0 : 2) + ' ms';
  const gone = hidden.clients.size ? `${hidden.clients.size} clients hidden. ` : '';
  $('status').textContent = `${gone}${left}${width_} from ${brief(view.from)} on`;
}
function patterns() {
  const defs = make('defs', {});
  const pattern = (id, stroke, widthOf) => {
    const node = make('pattern', { id, width: 7, height: 7, patternUnits: 'userSpaceOnUse', patternTransform: 'rotate(45)' });
    node.append(make('line', { x1: 0, y1: 0, x2: 0, y2: 7, style: `stroke: var(${stroke})`, 'stroke-width': widthOf }));
    defs.append(node);
  };
  pattern('stripes', '--fault', 5);
  pattern('hatch', '--down', 1.5);
  return defs;
}
function drawAxis() {
  const group = make('g', { class: 'axis' });
  const rough = (view.to - view.from) / 8;
  const power = Math.pow(10, Math.floor(Math.log10(rough)));
  const step = power * [1, 2, 5, 10].find(n => n * power >= rough);
  for (let at = Math.ceil(view.from / step) * step; at <= view.to; at += step) {
    group.append(make('line', { x1: x(at), x2: x(at), y1: 16, y2: height }));
    const digits = Math.max(0, Math.min(6, 6 - Math.floor(Math.log10(step))));
    group.append(make('text', { x: x(at) + 3, y: 12, class: 'faint' }, (at / 1e6).toFixed(digits) + ' s'));
  }
  diagram.append(group);
  for (const [at, name] of story.phases) {
    if (!visible(at, at) || at === 0) continue;
    const words = { calm: 'faults end here', judged: 'all must be well from here on' }[name] || name;
    diagram.append(make('line', { x1: x(at), x2: x(at), y1: 16, y2: height, class: 'grid', 'stroke-width': 3 }));
    diagram.append(make('text', { x: x(at) + 5, y: height - 4, class: 'faint' }, words));
  }
}
function drawLane(member) {
  const y = laneY(member), { spans, applied, commits } = lives.get(member);
  const group = make('g', { class: 'lane', 'data-member': member });
  group.append(make('rect', { x: GUTTER, y: y - 5, width: width - GUTTER - 10, height: 10, fill: 'var(--lane)' }));
  for (let at = Math.max(0, lastBefore(spans, view.from)); at < spans.length && spans[at].at <= view.to; at++) {
    const span = spans[at], until = at + 1 < spans.length ? spans[at + 1].at : story.end;
    if (until < view.from) continue;
    const left = Math.max(GUTTER, x(span.at)), right = Math.min(width - 10, x(until));
    const tall = span.leads ? 18 : 10;
    const rect = make('rect', { x: left, y: y - tall / 2, width: Math.max(0.6, right - left), height: tall, rx: 2 });
    if (!span.up) rect.setAttribute('class', 'down');
    else rect.setAttribute('style', `fill: ${termColour(span.term)}; opacity: ${span.serving ? 1 : 0.45}`);
    group.append(rect);
    if (span.up && right - left > 60 && span.term) {
      group.append(make('text', { x: left + 4, y: y + 4 }, `${span.leads ? '★ ' : ''}term ${span.term}`));
    } else if (span.leads && right - left > 12) group.append(make('text', { x: left + 1, y: y + 4 }, '★'));
    if (!span.up && right - left > 60) group.append(make('text', { x: left + 5, y: y + 4 }, 'down'));
  }
  ticks(group, commits, y - 12, 'c', entry => entry.commit, y - 9, y - 5);
  ticks(group, applied, y + 20, 'a', entry => entry.index, y + 5, y + 10);
  group.append(make('text', { x: 8, y: y + 1, class: 'name' }, `member ${member}`));
  group.append(make('text', { x: 8, y: y + 14, class: 'faint' }, finding && finding.members.includes(member) ? '← named' : ''));
  diagram.append(group);
}
// Indices along a lane, as many as there is room for.
function ticks(group, list, y, letter, value, y1, y2) {
  let free = GUTTER;
  for (let at = Math.max(0, lastBefore(list, view.from)); at < list.length && list[at].at <= view.to; at++) {
    const px = x(list[at].at);
    if (px < GUTTER || (px < free - 20)) continue;
    group.append(make('line', { x1: px, x2: px, y1, y2, stroke: 'var(--faint)' }));
    if (px < free) continue;
    const text = letter + value(list[at]);
    group.append(make('text', { x: px + 2, y, class: 'faint', style: 'font-size: 9px' }, text));
    free = px + 8 + 6 * text.length;
  }
}
function termColour(term) {
  const dark = matchMedia('(prefers-color-scheme: dark)').matches;
  return term ? `hsl(${(term * 67 + 140) % 360} ${dark ? '38% 38%' : '52% 78%'})` : 'var(--lane)';
}
function drawFaults() {
  const rows = new Map();
  for (const fault of story.faults) {
    if (!visible(fault.from, fault.to)) continue;
    const whose = fault.member;
    if (hidden.members.has(whose)) continue;
    const row = rows.get(whose) || [];
    rows.set(whose, row);
    let level = row.findIndex(end => end < fault.from);
    if (level < 0) level = row.length;
    row[level] = Math.max(fault.to, fault.from + (view.to - view.from) / 14);
    const y = whose ? tops.get(whose) + 16 - 8 * Math.min(level, 2) : 26;
    const left = Math.max(GUTTER, x(fault.from)), right = Math.max(left + 4, Math.min(width - 10, x(fault.to)));
    const shape = make('rect', { class: 'fault', x: left, y, width: right - left, height: 6, rx: 2 });
    if (same(chosen, { ref: fault })) shape.classList.add('chosen');
    diagram.append(clicks(shape, { at: fault.from, kind: 'fault', ref: fault }));
    const text = right < width - 110 ? { x: right + 4, y: y + 7 } : { x: Math.min(left, width - 120), y: y - 2 };
    if (level === 0) diagram.append(make('text', { ...text, style: 'font-size: 10px; pointer-events: none' }, fault.name));
  }
}
function drawMessages() {
  const slack = 3e5;
  let shown = messages.filter(message => isShown({ kind: 'message', ref: message })
    && message.sent <= view.to && Math.max(message.sent, message.lost || 0, ...message.arrived) >= view.from
    && message.sent >= view.from - Math.max(slack, 5e6));
  const all = shown.length;
  if (shown.length > DRAWN_MAX) shown = shown.filter(message => message.family !== 'beat');
  if (shown.length > DRAWN_MAX) {
    const each = Math.ceil(shown.length / DRAWN_MAX);
    shown = shown.filter((_, at) => at % each === 0);
  }
  // Heartbeats below all else.
  shown.sort((a, b) => (a.family === 'beat' ? 0 : 1) - (b.family === 'beat' ? 0 : 1));
  for (const message of shown) drawMessage(message);
  return shown.length < all ? `${shown.length} of ${all} messages drawn: zoom in. ` : '';
}
function drawMessage(message) {
  if (!tops.has(message.from) || !tops.has(message.to)) return;
  const down = laneY(message.to) > laneY(message.from) ? 1 : -1;
  const y1 = laneY(message.from) + 6 * down, y2 = laneY(message.to) - 8 * down;
  const item = { at: message.sent, kind: 'message', ref: message };
  const is = same(chosen, item) ? ' chosen' : '';
  const line = (x2, y, extra) => {
    const path = `M${x(message.sent).toFixed(1)} ${y1}L${x2.toFixed(1)} ${y.toFixed(1)}`;
    diagram.append(make('path', { class: `message k-${message.family}${extra}${is}`, d: path }));
    diagram.append(clicks(make('path', { class: 'hit', d: path }), item));
  };
  for (const at of message.arrived) {
    line(x(at), y2, '');
    const angle = Math.atan2(y2 - y1, x(at) - x(message.sent)) * 180 / Math.PI;
    diagram.append(make('path', { class: `f-${message.family}`, d: 'M0 0L-7 -3L-7 3Z',
      transform: `translate(${x(at).toFixed(1)} ${y2}) rotate(${angle.toFixed(0)})` }));
  }
  if (message.lost !== null || !message.arrived.length) {
    const until = Math.max(message.lost ?? message.sent, message.sent + (view.to - view.from) / 200);
    const y = y1 + (y2 - y1) * 0.45;
    line(x(until), y, ' lost');
    diagram.append(make('text', { x: x(until) - 4, y: y + 4, class: 'lostmark', style: 'fill: var(--hot)' }, '✕'));
  }
}
const SIGNS = { start: '▷', up: '▶', exit: '■', crash: '✖', lead: '', follow: '', failure: '⚑' };
function drawMark(mark) {
  if (hidden.members.has(mark.member) || !SIGNS[mark.kind]) return;
  const y = mark.member ? laneY(mark.member) + 5 : 14;
  const hot = mark.kind === 'crash' || mark.kind === 'exit' || mark.kind === 'failure';
  const text = make('text', { x: x(mark.at) - 5, y, class: 'mark', style: `font-size: 14px; fill: var(${hot ? '--hot' : '--ink'})` },
    SIGNS[mark.kind]);
  diagram.append(clicks(text, { at: mark.at, kind: 'mark', ref: mark }));
}
function drawClient(client) {
  const { y, rows } = clientTops.get(client);
  const group = make('g', { class: 'client', 'data-client': client });
  group.append(make('text', { x: 8, y: y + 12, class: 'name' }, clientName.get(client)));
  group.append(make('line', { x1: GUTTER, x2: width - 10, y1: y + 8, y2: y + 8, class: 'grid' }));
  for (const call of story.calls) {
    const to = call.to ?? story.end;
    if (call.client !== client || !visible(call.from, to)) continue;
    const left = Math.max(GUTTER, x(call.from)), right = Math.min(width - 10, x(to));
    const item = { at: call.from, kind: 'call', ref: call };
    const hot = involvedCalls.has(call.id);
    const bar = make('rect', { class: `call ${call.how}${hot ? ' involved' : ''}${same(chosen, item) ? ' chosen' : ''}`,
      x: left, y: y + 2, width: Math.max(2.5, right - left), height: 12, 'data-call': call.id });
    group.append(clicks(bar, item));
    if (right - left > 90 || hot) {
      const label = make('text', { x: hot ? Math.min(left + 4, width - 470) : left + 4, y: hot ? y - 2 : y + 12, style: 'font-size: 10px; pointer-events: none' },
        hot ? `call ${call.id}: ${call.asks} → ${call.got}`.slice(0, 90) : call.asks.slice(0, Math.floor((right - left) / 6)));
      group.append(label);
    }
    if ((hot || same(chosen, item)) && tops.has(call.member)) {
      const up = laneY(call.member) + 8;
      for (const px of [x(call.from), x(to)]) {
        if (px >= GUTTER && px <= width) group.append(make('line', { class: 'tie', x1: px, x2: px, y1: up, y2: y + 2 }));
      }
    }
  }
  rows.slice(0, 5).forEach((row, at) => row.forEach(watch => drawWatch(group, watch, y + 20 + 9 * at)));
  diagram.append(group);
}
function drawWatch(group, watch, y) {
  const left = Math.max(GUTTER, x(watch.from)), right = Math.min(width - 10, x(watch.to ?? story.end));
  const item = { at: watch.from, kind: 'watch', ref: watch };
  const hot = involvedWatches.has(watch.id) || same(chosen, item);
  group.append(clicks(make('line', { class: `watch${hot ? ' involved' : ''}`, x1: left, x2: Math.max(left + 2, right), y1: y, y2: y,
    'data-watch': watch.id }), item));
  for (const [at, text] of watch.heard) {
    if (!visible(at, at)) continue;
    group.append(clicks(make('circle', { class: 'heard', cx: x(at), cy: y, r: /^\d/.test(text) ? 4 : 2 }),
      { at, kind: 'heard', ref: watch, text }));
  }
}
function drawMoments() {
  if (finding && visible(finding.at, finding.at)) {
    const px = x(finding.at);
    diagram.append(make('line', { class: 'moment', id: 'moment', x1: px, x2: px, y1: 14, y2: height }));
    const text = make('text', { x: px + 5, y: height - 16, style: 'fill: var(--hot); font-weight: 650' }, `${story.rule} seen here`);
    if (px > width - 190) { text.setAttribute('text-anchor', 'end'); text.setAttribute('x', px - 5); }
    diagram.append(text);
  }
  if (chosen && visible(chosen.at, chosen.at)) {
    diagram.append(make('line', { class: 'cursor', x1: x(chosen.at), x2: x(chosen.at), y1: 14, y2: height }));
  }
}
function drawOverview() {
  const box = $('overview'), wide = box.clientWidth || 900, px = at => at / Math.max(1, story.end) * wide;
  box.textContent = '';
  box.setAttribute('viewBox', `0 0 ${wide} 46`);
  const bins = new Array(240).fill(0);
  for (const message of messages) if (message.family !== 'beat') bins[Math.min(239, Math.floor(message.sent / (story.end + 1) * 240))]++;
  const most = Math.max(1, ...bins);
  bins.forEach((count, at) => {
    const tall = 22 * Math.sqrt(count / most);
    box.append(make('rect', { x: at * wide / 240, y: 40 - tall, width: wide / 240 - 0.5, height: tall, fill: 'var(--append)', opacity: 0.5 }));
  });
  for (const fault of story.faults) {
    box.append(make('rect', { x: px(fault.from), y: 4, width: Math.max(2, px(fault.to) - px(fault.from)), height: 5, fill: 'var(--fault)', opacity: 0.7 }));
  }
  for (const mark of story.marks) {
    if (mark.kind === 'crash' || mark.kind === 'exit') box.append(make('rect', { x: px(mark.at) - 1, y: 10, width: 2, height: 6, fill: 'var(--hot)' }));
    if (mark.kind === 'lead') box.append(make('text', { x: px(mark.at), y: 18, style: 'font-size: 9px' }, '★'));
  }
  for (const { at } of story.findings) box.append(make('line', { x1: px(at), x2: px(at), y1: 0, y2: 46, stroke: 'var(--hot)', 'stroke-width': 2 }));
  box.append(make('rect', { x: px(view.from), y: 1, width: Math.max(3, px(view.to) - px(view.from)), height: 44, fill: 'var(--ink)',
    'fill-opacity': 0.09, stroke: 'var(--ink)' }));
  for (const at of [0, 0.25, 0.5, 0.75]) box.append(make('text', { x: at * wide + 3, y: 45, class: 'faint', style: 'font-size: 9px' }, brief(at * story.end)));
}

// ---- moving and choosing

function show(from, to) {
  const span = Math.min(Math.max(to - from, 200), story.end * 1.02 + 1);
  view.from = Math.max(-span * 0.02, Math.min(from, story.end * 1.02 - span));
  view.to = view.from + span;
  draw();
}
function zoom(by, around) {
  const at = around ?? (chosen && visible(chosen.at, chosen.at) ? chosen.at : (view.from + view.to) / 2);
  show(at - (at - view.from) * by, at + (view.to - at) * by);
}
function choose(item, move) {
  chosen = item;
  describe(item);
  showState(item.at);
  const span = view.to - view.from;
  if (move && (item.at < view.from + span * 0.05 || item.at > view.to - span * 0.05)) show(item.at - span / 2, item.at + span / 2);
  else draw();
  for (const line of $('tale').children) line.classList.toggle('is-here', same(line.item, item) && line.item.at === item.at);
}
function step(by) {
  const at = chosen ? chosen.at : by > 0 ? view.from : view.to;
  let place = chosen ? items.findIndex(item => same(item, chosen) && item.at === at) : -1;
  if (place < 0) place = lastBefore(items, at) + (by > 0 ? 0 : 1);
  for (place += by; place >= 0 && place < items.length; place += by) if (isShown(items[place])) return choose(items[place], true);
}
const toViolation = () => show(...story.window);
$('b-violation').onclick = toViolation;
$('b-all').onclick = () => show(0, story.end);
$('b-in').onclick = () => zoom(0.5);
$('b-out').onclick = () => zoom(2);
$('b-prev').onclick = () => step(-1);
$('b-next').onclick = () => step(1);
document.addEventListener('keydown', event => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const act = { ArrowRight: () => step(1), ArrowLeft: () => step(-1), '+': () => zoom(0.5), '=': () => zoom(0.5), '-': () => zoom(2),
    v: toViolation, f: () => show(0, story.end) }[event.key];
  if (act) { event.preventDefault(); act(); }
});
diagram.addEventListener('wheel', event => {
  event.preventDefault();
  const span = view.to - view.from;
  if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
    const by = (event.deltaX || event.deltaY) / width * span;
    show(view.from + by, view.to + by);
  } else zoom(event.deltaY > 0 ? 1.25 : 0.8, timeAt(event.clientX - diagram.getBoundingClientRect().left));
}, { passive: false });
let drag = null;
diagram.addEventListener('pointerdown', event => { drag = { at: event.clientX, from: view.from, to: view.to, moved: false }; });
window.addEventListener('pointermove', event => {
  if (!drag) return;
  const by = (drag.at - event.clientX) / (width - GUTTER) * (drag.to - drag.from);
  if (Math.abs(drag.at - event.clientX) < 4 && !drag.moved) return;
  drag.moved = true;
  diagram.classList.add('dragging');
  show(drag.from + by, drag.to + by);
});
window.addEventListener('pointerup', () => { drag = null; diagram.classList.remove('dragging'); });
$('overview').addEventListener('click', event => {
  const box = $('overview').getBoundingClientRect();
  const at = (event.clientX - box.left) / box.width * story.end, span = view.to - view.from;
  show(at - span / 2, at + span / 2);
});
window.addEventListener('resize', draw);
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', draw);

// ---- what stands around the diagram

function menu(box, entries, set) {
  for (const [value, name] of entries) {
    const label = html('label'), input = html('input');
    input.type = 'checkbox';
    input.checked = !set.has(value);
    input.onchange = () => { if (input.checked) set.delete(value); else set.add(value); draw(); };
    label.append(input, ' ' + name);
    box.append(label);
  }
}
function fillHeader() {
  $('rule').textContent = story.rule ? `Broken: ${story.rule}` : 'Nothing is wrong in this run';
  $('words').textContent = story.words;
  if (!finding) { document.querySelector('header').className = 'clean'; return; }
  $('count').textContent = `seen at ${brief(finding.at)}${story.findings.length > 1 ? `, first of ${story.findings.length}` : ''}`;
  $('text').textContent = finding.text;
  const jump = (item, text) => {
    const button = html('button', text);
    button.onclick = () => {
      const { from, to } = item.ref, until = Math.min(to ?? from, from + 2e6), pad = Math.max(until - from, 2e4) * 1.5;
      if (from < view.from || until > view.to) show(from - pad, until + pad);
      choose(item, false);
    };
    $('involved').append(button);
  };
  for (const call of story.calls.filter(call => involvedCalls.has(call.id))) {
    jump({ at: call.from, kind: 'call', ref: call }, `call ${call.id} at ${brief(call.from)}: ${call.asks} → ${call.got}`.slice(0, 170));
  }
  const shown = new Set([story.rule]);
  for (const other of story.findings.slice(1)) {
    if (shown.has(other.rule)) continue;
    shown.add(other.rule);
    const line = html('li');
    line.append(html('time', brief(other.at)), html('b', `${other.rule}: `), other.text.slice(0, 260));
    line.onclick = () => show(other.at - 6e4, other.at + 6e4);
    $('others').append(line);
  }
  for (const watch of story.watches.filter(watch => involvedWatches.has(watch.id))) {
    jump({ at: watch.from, kind: 'watch', ref: watch }, `watch ${watch.id} at ${brief(watch.from)}: ${watch.asks}`);
  }
}
function fillTale() {
  const until = finding ? finding.at : story.end;
  const small = story.calls.filter(call => call.from <= until && call.client > 0).length <= 40;
  const tells = item => {
    if (item.at > until) return false;
    if (isHot(item)) return item.kind !== 'heard' || item.at > until - 2e6;
    if (item.kind === 'fault') return true;
    if (item.kind === 'mark') {
      const { kind, member, at } = item.ref;
      // That it serves is news if it has been down.
      const back = kind === 'up' && story.marks.some(mark => mark.member === member && mark.at < at && /crash|exit/.test(mark.kind));
      return back || /crash|exit|lead|failure/.test(kind);
    }
    return item.kind === 'call' && small && item.ref.client > 0;
  };
  const told = items.filter(tells);
  const skipped = told.length - TALE_MAX;
  if (skipped > 0) $('tale').append(html('li', `(${skipped} earlier events)`));
  for (const item of told.slice(-TALE_MAX)) {
    const line = html('li', undefined, isHot(item) ? 'is-hot' : item.kind === 'fault' || item.ref.kind === 'crash' ? 'is-fault'
      : item.ref.kind === 'lead' ? 'is-lead' : '');
    line.append(html('time', brief(item.at)), title(item));
    line.item = item;
    line.onclick = () => choose(item, true);
    $('tale').append(line);
  }
  if (finding) {
    const line = html('li', undefined, 'is-hot');
    line.append(html('time', brief(finding.at)), html('b', `${story.rule} is broken`));
    line.onclick = toViolation;
    $('tale').append(line);
  }
}
function fillLegend() {
  const entry = (draw, text) => {
    const span = html('span'), svg = make('svg', { width: 34, height: 14 });
    svg.append(...draw);
    span.append(svg, text);
    $('legend').append(span);
  };
  for (const name in FAMILIES) {
    entry([make('path', { class: `message k-${name}`, d: 'M2 7L26 7' }), make('path', { class: `f-${name}`, d: 'M32 7L25 4L25 10Z' })], FAMILIES[name]);
  }
  entry([make('rect', { x: 2, y: 2, width: 30, height: 10, fill: termColour(2) }), make('text', { x: 11, y: 11 }, '★')], 'leads');
  entry([make('rect', { x: 2, y: 3, width: 30, height: 8, class: 'down' })], 'down');
  entry([make('rect', { x: 2, y: 4, width: 30, height: 6, class: 'fault' })], 'fault');
  entry([make('text', { x: 12, y: 12, style: 'fill: var(--hot); font-size: 14px' }, '✖')], 'crash');
  entry([make('text', { x: 12, y: 12, style: 'font-size: 14px' }, '▶')], 'serves again');
  for (const how of ['ok', 'refused', 'unknown']) {
    entry([make('rect', { x: 2, y: 2, width: 30, height: 10, class: `call ${how}` })], `call, ${how === 'unknown' ? 'outcome unknown' : how}`);
  }
  entry([make('line', { x1: 2, x2: 32, y1: 7, y2: 7, class: 'watch' }), make('circle', { cx: 16, cy: 7, r: 4, class: 'heard' })], 'watch and what it hears');
  $('legend').append(html('span', 'c12: knows that index 12 is committed'), html('span', 'a12: has applied index 12'));
}
function fillMenus() {
  menu($('f-members'), story.members.map(member => [member, `member ${member}`]), hidden.members);
  menu($('f-kinds'), Object.entries(FAMILIES), hidden.families);
  // With many clients those that matter come first; the others are a click away.
  if (story.clients.length > 6) {
    const busy = new Set([...story.calls.filter(call => involvedCalls.has(call.id)), ...story.watches.filter(watch => involvedWatches.has(watch.id))]
      .map(ref => ref.client));
    for (const [client] of story.clients) if (!busy.has(client)) hidden.clients.add(client);
    if (!busy.size) story.clients.slice(0, 6).forEach(([client]) => hidden.clients.delete(client));
  }
  menu($('f-clients'), story.clients, hidden.clients);
  const run = $('f-run');
  run.append(html('div', `Again: ${story.replay}`));
  for (const [name, value] of story.knobs) run.append(html('div', `${name}: ${value}`));
  for (const line of story.left_out) run.append(html('div', line));
  if (story.left_out.length) $('count').textContent += '. Some messages are left out: see Run';
}
fillHeader();
fillMenus();
fillLegend();
fillTale();
draw();
// The last call involved is what there is to look at.
const last = items.filter(item => item.at <= (finding ? finding.at : -1) && isHot(item) && item.kind !== 'heard').pop();
if (last) choose(last, false);
showState(finding ? finding.at : view.to);
$('tale').scrollTop = $('tale').scrollHeight;
document.documentElement.dataset.ready = 'yes';
