// The page asks the JSON API every two seconds. What strangers wrote (paths, titles, names of protocols) only ever becomes
// text nodes and attributes' values.
'use strict';

const $ = (id) => document.getElementById(id);
const number = new Intl.NumberFormat('en');
// The media whose swarm is shown, by its API path; the token is kept nowhere else than here.
const state = { q: '', pages: 1, port: null, shown: null, token: null };
// The name of SVG, as the page's own picture has it.
const SVG = $('picture').namespaceURI;

// Without what turns the reading direction, or a title could look like another one.
const plain = (x) => (typeof x === 'string' ? x.replace(/\p{Bidi_Control}/gu, '') : x);

function element(tag, className, ...children) {
  const e = document.createElement(tag);
  if (className) e.className = className;
  e.append(...children.map(plain));
  return e;
}

function drawn(tag, attributes, ...children) {
  const e = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) e.setAttribute(name, plain(value));
  e.append(...children.map(plain));
  return e;
}

// Only what changed: a screen reader announces every change of a status.
function say(id, words) {
  const text = plain(words);
  if ($(id).textContent !== text) $(id).textContent = text;
}

function bytes(n) {
  if (n === null || n === undefined) return '–';
  const units = ['B', 'kB', 'MB', 'GB', 'TB', 'PB'];
  let i = 0;
  while (n >= 1000 && i < units.length - 1) { n /= 1000; i++; }
  return `${n >= 100 || i === 0 ? Math.round(n) : n.toFixed(1)} ${units[i]}`;
}

function duration(us) {
  if (!us) return '–';
  const s = Math.round(us / 1e6), two = (n) => String(n).padStart(2, '0');
  const [h, m] = [Math.floor(s / 3600), Math.floor(s / 60) % 60];
  return h ? `${h}:${two(m)}:${two(s % 60)}` : `${m}:${two(s % 60)}`;
}

function percent(part, whole) {
  return whole > 0 ? `${Math.round(100 * part / whole)} %` : '–';
}

async function get(path) {
  const response = await fetch(path);
  if (!response.ok) throw new Error(`the tracker answers ${response.status}`);
  return response.json();
}

function showStatus(s) {
  say('key', s.key);
  state.port = s.port;
  const figures = [
    ['Peers', number.format(s.peers)], ['Media', number.format(s.media)], ['Listeners', number.format(s.listeners)],
    ['Running assignments', number.format(s.assignments.running)],
    ['Pages delivered', number.format(s.acknowledged.pages)],
    ['Saved for publishers', bytes(s.acknowledged.bytes_by_peers)],
  ];
  $('figures').replaceChildren(...figures.map(([name, text]) =>
    element('div', '', element('dt', '', name), element('dd', '', text))));
  const { bytes_by_peers: peers, bytes_by_publishers: publishers } = s.acknowledged;
  const all = peers + publishers;
  if (all > 0) {
    const text = `${bytes(all)} delivered since the tracker started: ${percent(peers, all)} from peer to peer, `
      + `${bytes(publishers)} by publishers.`;
    $('bar-peers').style.width = `${100 * peers / all}%`;
    $('bar').setAttribute('aria-label', text);
    say('share', text);
  }
  if ($('operator').hidden === s.operator) $('operator').hidden = !s.operator;
}

// A cell that says what it is where the table has no head.
function cell(label, text) {
  const td = element('td', 'n', text);
  td.dataset.label = label;
  return td;
}

// The path in the API: each segment escaped.
const apiPath = (path) => path.split('/').map(encodeURIComponent).join('/');

function mediaRow(m) {
  const name = element('th', '');
  name.scope = 'row';
  const show = element('button', 'name', element('bdi', '', m.title || m.path));
  show.type = 'button';
  show.title = 'Show its swarm';
  show.addEventListener('click', () => { state.shown = m.path; round().then(() => $('swarm').focus()); });
  const host = location.hostname.includes(':') ? `[${location.hostname.replace(/[[\]]/g, '')}]` : location.hostname;
  const link = element('a', 'link', element('bdi', '', m.path));
  link.href = `icet://${host}:${state.port}${m.link}`;
  link.title = 'Link for iceshare play or iceshare get';
  if (m.now) name.append(show, element('br'), element('bdi', 'now', `♪ ${m.now}`), element('br'), link);
  else name.append(show, element('br'), link);
  const d = m.bytes_delivered || { by_peers: 0, by_publisher: 0 };
  const figure = (n) => (n === undefined ? '–' : number.format(n));
  const codec = cell('Codec', m.streams.map((s) => s.codec).join(' + ') || '–');
  codec.className = '';
  const live = m.kind === 'live';
  return element('tr', '', name, codec,
    cell('Length', live ? 'live' : duration(m.duration_us)), cell('Size', live ? '–' : bytes(m.bytes)),
    cell('Listeners', figure(m.listeners)), cell('Whole copies', live ? '–' : figure(m.complete_holders)), cell('Hits', figure(m.hits)),
    cell('From peers', percent(d.by_peers, d.by_peers + d.by_publisher)));
}

async function showMedia() {
  const q = state.q;
  const items = [];
  let after = null, total = 0;
  for (let i = 0; i < state.pages; i++) {
    const query = new URLSearchParams({ q, limit: '50' });
    if (after !== null) query.set('after', after);
    const answer = await get(`api/media?${query}`);
    items.push(...answer.media);
    after = answer.next;
    total = answer.total;
    if (after === null) break;
  }
  if (q !== state.q) return; // a newer search is under way
  // Not under somebody's keyboard focus: the next round will do.
  if (!$('list').contains(document.activeElement)) $('list').replaceChildren(...items.map(mediaRow));
  $('more').hidden = after === null;
  say('count', q
    ? `${number.format(total)} media match${after === null ? '' : `, the first ${number.format(items.length)} are shown`}.`
    : total ? `${number.format(items.length)} of ${number.format(total)} media.`
      : 'Nothing is published here yet. Try: iceshare publish FILE');
  if (q === '' && after === null && !items.some((m) => m.path === state.shown)) state.shown = null;
  if (state.shown === null && items.length) {
    // The one where most is going on.
    const busy = (m) => (m.assignments_running || 0) * 1e6 + (m.members || 0);
    state.shown = items.reduce((a, b) => (busy(b) > busy(a) ? b : a)).path;
  }
}

// A protocol has the same colour and dashes at every tracker and at any time: they go by its name.
const OURS = ['http', 'quic', 'udp', 'libp2p'];
function colour(protocol) {
  const ours = OURS.indexOf(protocol);
  if (ours >= 0) return `p${ours}`;
  const sum = [...protocol].reduce((n, c) => (n * 31 + c.codePointAt(0)) >>> 0, 7);
  return `p${OURS.length + sum % 4}`;
}

function swatch(protocol) {
  return drawn('svg', { class: 'swatch', viewBox: '0 0 28 6', 'aria-hidden': 'true' },
    drawn('line', { x1: 0, y1: 3, x2: 28, y2: 3, class: `flow ${colour(protocol)}`, 'stroke-width': 4 }));
}

// Rows of page maps.
const MOST_MAPS = 24;
// Up to so many members stand on an ellipse, with their names below or above; more on a circle, with their names outwards.
const FEW = 10;

// Who is drawn where: width, height and centre of the picture, and of each member its place, size, and how its name stands.
function layout(m, narrow) {
  const [width, height, radius, most] = narrow ? [340, 340, 92, 36] : [640, 440, 138, 60];
  const sends = new Set(m.flows.flatMap((f) => [f.from, f.to]));
  const weight = (x) => (x.publisher ? 4 : 0) + (sends.has(x.peer) ? 2 : 0) + (m.pages ? x.pages_held / m.pages : 0);
  const drawnOnes = new Set([...m.swarm].sort((a, b) => weight(b) - weight(a)).slice(0, most));
  // In the tracker's order, so that nobody moves who stays.
  const members = m.swarm.filter((x) => drawnOnes.has(x));
  const n = members.length;
  const [x0, y0] = [width / 2, height / 2];
  const places = new Map();
  members.forEach((x, i) => {
    const angle = -Math.PI / 2 + 2 * Math.PI * i / Math.max(n, 1);
    const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
    if (n <= FEW) {
      const [cx, cy] = n === 1 ? [x0, y0] : [x0 + (narrow ? 118 : 235) * cos, y0 + (height / 2 - 55) * sin];
      places.set(x.peer, { cx, cy, r: 17, text: { x: cx, y: cy > y0 + 1 ? cy + 38 : cy - 28 } });
      return;
    }
    const r = Math.min(14, 0.36 * 2 * Math.PI * radius / n);
    const [cx, cy] = [x0 + radius * cos, y0 + radius * sin];
    const [out, turn] = cos >= -1e-9 ? [r + 6, 0] : [-(r + 6), 180];
    places.set(x.peer, { cx, cy, r, text: { x: cx + out, y: cy, class: out > 0 ? 'radial' : 'radial end',
      transform: `rotate(${angle * 180 / Math.PI + turn} ${cx} ${cy})` } });
  });
  return { width, height, members, places };
}

function showPicture(m) {
  // On a phone as high as wide, so that names can be read.
  const { width, height, members, places } = layout(m, $('picture').clientWidth < 480);
  $('picture').setAttribute('viewBox', `0 0 ${width} ${height}`);
  const flows = m.flows.filter((f) => places.has(f.from) && places.has(f.to));
  const between = new Map();
  const lines = flows.map((f) => {
    const [a, b] = [places.get(f.from), places.get(f.to)];
    // Bent, so that both directions are seen, and the more the more protocols there are between two.
    const beside = between.get(f.from + f.to) || 0;
    between.set(f.from + f.to, beside + 1);
    const bend = 0.15 + 0.1 * beside;
    const x = (a.cx + b.cx) / 2 + (b.cy - a.cy) * bend, y = (a.cy + b.cy) / 2 - (b.cx - a.cx) * bend;
    const line = drawn('path', { d: `M${a.cx},${a.cy} Q${x},${y} ${b.cx},${b.cy}`, class: `flow ${colour(f.protocol)}`,
      'stroke-width': Math.min(2 + Math.log2(1 + f.assignments), Math.max(1.5, 0.35 * a.r)) });
    line.append(drawn('title', {}, `${f.from} sends to ${f.to} over ${f.protocol}`));
    return line;
  });
  const nodes = members.flatMap((x) => {
    const { cx, cy, r, text } = places.get(x.peer);
    const share = m.pages ? x.pages_held / m.pages : 0;
    const round = 2 * Math.PI * r;
    const node = drawn('circle', { cx, cy, r, class: x.publisher ? 'node publisher' : 'node' });
    node.append(drawn('title', {}, m.pages ? `${x.peer}: ${percent(x.pages_held, m.pages)} of the pages` : x.peer));
    const held = drawn('circle', { cx, cy, r, class: 'held', 'stroke-dasharray': `${round * share} ${round}`,
      'stroke-width': 0.3 * r, transform: `rotate(-90 ${cx} ${cy})` });
    // Names stand outside, away from the lines.
    return [node, held, drawn('text', text, x.peer)];
  });
  $('picture').replaceChildren(...lines, ...nodes);
  const senders = new Set(m.flows.map((f) => f.from)).size;
  const receivers = new Set(m.flows.map((f) => f.to)).size;
  const left = m.members - members.length;
  say('picture-text', `${m.flows.length
    ? `${senders} ${senders === 1 ? 'peer sends' : 'peers send'} to ${receivers} now`
    : 'Nobody is sending now'}; the publisher is filled, a ring shows how much a peer holds.${
    left > 0 ? ` ${number.format(left)} more members are not drawn.` : ''}`);
  const names = [...new Set(flows.map((f) => f.protocol))].sort();
  $('legend').replaceChildren(...names.map((name) => element('li', '', swatch(name), element('bdi', '', name))));
  // The same in words, for whom a picture says nothing.
  $('flows').hidden = !m.flows.length;
  $('flow-list').replaceChildren(...m.flows.slice(0, 200).map((f) => element('li', '', element('code', '', f.from), ' sends to ',
    element('code', '', f.to), ' over ', element('bdi', '', f.protocol))));
}

// `map` has a digit for each part: 0 none of its pages, 9 all.
function mapRow(m, x) {
  const parts = x.map.length || 1;
  const svg = drawn('svg', { viewBox: `0 0 ${parts} 1`, preserveAspectRatio: 'none', role: 'img',
    'aria-label': `${x.peer} holds ${percent(x.pages_held, m.pages)}` });
  for (let i = 0; i < x.map.length;) {
    let end = i;
    while (end < x.map.length && x.map[end] === x.map[i]) end++;
    if (x.map[i] !== '0') svg.append(drawn('rect', { x: i, y: 0, width: end - i, height: 1, opacity: (Number(x.map[i]) + 1) / 10 }));
    i = end;
  }
  if (x.at_page !== null && m.pages) {
    svg.append(drawn('rect', { class: 'head', x: Math.min(parts * x.at_page / m.pages, parts - 0.4), y: 0, width: 0.4, height: 1 }));
  }
  const does = x.publisher ? 'publishes' : { whole: 'fetches', play: 'plays', share: 'shares' }[x.intent];
  return element('li', '', element('span', '', element('code', '', x.peer), ` ${does}`), svg,
    element('span', 'n', percent(x.pages_held, m.pages)));
}

async function showSwarm() {
  const path = state.shown;
  if (path === null) { $('swarm').hidden = true; return; }
  const response = await fetch(`api/media/${apiPath(path)}`);
  if (response.status === 404) { state.shown = null; $('swarm').hidden = true; return; }
  if (!response.ok) throw new Error(`the tracker answers ${response.status}`);
  const m = await response.json();
  if (path !== state.shown || !m.swarm) return;
  say('swarm-title', `Swarm of ${m.title || m.path}`);
  say('swarm-facts', `Members: ${number.format(m.members)}; listeners among them: ${number.format(m.listeners)}; `
    + (m.kind === 'live' ? `${m.now ? `on now: ${m.now}; ` : ''}` : `whole copies: ${number.format(m.complete_holders)}. `) + `${bytes(m.bytes_delivered.by_publisher)} came from the publisher, `
    + `${bytes(m.bytes_delivered.by_peers)} from peers.`);
  $('swarm').hidden = false;
  showPicture(m);
  const rows = m.swarm.filter((x) => x.map).slice(0, MOST_MAPS);
  $('maps').replaceChildren(...rows.map((x) => mapRow(m, x)));
  const left = m.kind === 'live' ? 0 : m.members - rows.length;
  say('maps-more', left > 0 ? `And ${number.format(left)} more.` : '');
}

const CLASSES = { address: 'behind one address', network: 'within a network', elsewhere: 'across networks' };

function protocolRows(p) {
  const rate = (n) => (n === null ? '–' : `${bytes(n)}/s`);
  const ms = (n) => (n === null ? '–' : n < 10 ? `${n.toFixed(1)} ms` : `${Math.round(n)} ms`);
  const row = (className, name, cells) => {
    const th = element('th', '', name);
    th.scope = 'row';
    return element('tr', className, th, ...cells);
  };
  const late = p.deadlines ? `${percent(p.missed, p.deadlines)} of ${number.format(p.deadlines)}` : '–';
  const rows = [row('', element('span', '', swatch(p.name), element('bdi', '', p.name)), [
    cell('Hosts', number.format(p.hosts)), cell('Pages now', percent(p.share, 1)), cell('Rate', rate(p.goodput)),
    cell('First byte', ms(p.first_byte_ms)), cell('Ends well', percent(p.success, 1)), cell('Late', late),
    cell('Fetches', `${number.format(p.done + p.failed)}${p.failed ? `, ${number.format(p.failed)} failed` : ''}`),
    cell('Delivered', bytes(p.bytes))])];
  for (const c of p.classes) {
    rows.push(row('class', CLASSES[c.class] || c.class, [
      cell('Hosts', ''), cell('Pages now', ''), cell('Rate', rate(c.goodput)), cell('First byte', ms(c.first_byte_ms)),
      cell('Ends well', percent(c.success, 1)), cell('Late', ''), cell('Fetches', c.samples < 10 ? `about ${c.samples.toFixed(1)} lately` : `about ${Math.round(c.samples)} lately`),
      cell('Delivered', '')]));
  }
  rows.forEach((r) => r.querySelectorAll('td').forEach((td) => { if (!td.textContent) delete td.dataset.label; }));
  return rows;
}

async function showProtocols() {
  const { protocols } = await get('api/protocols');
  $('protocols').replaceChildren(...protocols.flatMap(protocolRows));
  $('no-protocols').hidden = protocols.length > 0;
}

async function round() {
  try {
    showStatus(await get('api/status'));
    await showMedia();
    await showSwarm();
    await showProtocols();
    $('trouble').hidden = true;
  } catch (e) {
    say('trouble', `No news: ${e.message}. Trying again.`);
    $('trouble').hidden = false;
  }
}

// The operator's part. The token goes into a header only: never into an address, a cookie or the browser's store.
async function operate(method, path, body) {
  const headers = { Authorization: `Bearer ${state.token}` };
  if (body !== undefined) headers['Content-Type'] = 'application/json';
  const response = await fetch(`api/operator${path}`, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error || `the tracker answers ${response.status}`);
  return answer;
}

const LIMITS = {
  sessions: 'Sessions in all', sessions_per_prefix: 'Sessions from one network', media: 'Media in all',
  media_per_key: 'Media of one key', publishes_per_minute: 'Publications a minute of one key',
  joins_per_minute: 'Joins a minute of one key',
};

function showRules(rules) {
  $('limit-fields').replaceChildren(...Object.entries(LIMITS).map(([name, label]) => {
    const input = element('input', '');
    input.type = 'number';
    input.min = '0';
    input.name = name;
    input.value = rules.limits[name] ?? '';
    return element('label', '', label, input);
  }));
  $('withdrawn').replaceChildren(...rules.withdrawn.map((path) => {
    const allow = element('button', '', 'Allow');
    allow.type = 'button';
    allow.setAttribute('aria-label', `Allow ${path} again`);
    allow.addEventListener('click', () => act(async () => {
      showRules(await operate('PUT', `/media/${apiPath(path)}`));
      return 'It may be published again.';
    }));
    return element('li', '', element('bdi', '', path), allow);
  }));
  for (const radio of document.getElementsByName('publish')) radio.checked = radio.value === rules.publish;
  $('allowed').value = rules.allowed.join('\n');
  $('bans').replaceChildren(...rules.banned.map((key) => {
    const lift = element('button', '', 'Lift');
    lift.type = 'button';
    lift.setAttribute('aria-label', `Lift the ban of ${key}`);
    lift.addEventListener('click', () => act(async () => {
      showRules(await operate('DELETE', `/bans/${key}`));
      return 'The ban is lifted.';
    }));
    return element('li', '', element('code', '', key), lift);
  }));
  $('unlock').hidden = true;
  $('controls').hidden = false;
}

async function act(what) {
  try {
    say('answer', await what());
    $('answer').classList.remove('trouble');
  } catch (e) {
    $('answer').classList.add('trouble');
    say('answer', `Not done: ${e.message}`);
  }
  // Whose button is gone goes on from what became of it.
  if (document.activeElement === document.body) $('answer').focus();
}

function onSubmit(id, what) {
  $(id).addEventListener('submit', (e) => { e.preventDefault(); act(what); });
}

onSubmit('unlock', async () => {
  state.token = $('token').value.trim();
  $('token').value = '';
  showRules(await operate('GET', '/rules'));
  return 'Unlocked.';
});
onSubmit('policy', async () => {
  const publish = [...document.getElementsByName('publish')].find((r) => r.checked)?.value;
  const allowed = $('allowed').value.split(/\s+/).filter((k) => k);
  showRules(await operate('PUT', '/publishers', { publish, allowed }));
  return 'Who may publish is set.';
});
onSubmit('ban', async () => {
  showRules(await operate('PUT', `/bans/${encodeURIComponent($('banned').value.trim())}`));
  $('banned').value = '';
  return 'Banned.';
});
onSubmit('withdraw', async () => {
  showRules(await operate('DELETE', `/media/${apiPath($('path').value.trim())}`));
  $('path').value = '';
  round();
  return 'Withdrawn.';
});

onSubmit('limits', async () => {
  const filled = [...$('limit-fields').querySelectorAll('input')].filter((i) => i.value !== '');
  showRules(await operate('PUT', '/limits', Object.fromEntries(filled.map((i) => [i.name, Number(i.value)]))));
  return 'The limits are set.';
});

async function loop() {
  if (!document.hidden) await round();
  setTimeout(loop, 2000);
}

let typing;
$('q').addEventListener('input', () => {
  clearTimeout(typing);
  typing = setTimeout(() => { state.q = $('q').value.trim(); state.pages = 1; round(); }, 200);
});
$('search').addEventListener('submit', (e) => e.preventDefault());
$('more').addEventListener('click', async () => {
  state.pages++;
  await round();
  if (document.activeElement === document.body) $('count').focus();
});
document.addEventListener('visibilitychange', () => { if (!document.hidden) round(); });
loop();
