// The page asks the JSON API every two seconds. What strangers wrote (paths, titles) only ever becomes text nodes.
'use strict';

const $ = (id) => document.getElementById(id);
const number = new Intl.NumberFormat('en');
const state = { q: '', pages: 1, port: null };

function element(tag, className, ...children) {
  const e = document.createElement(tag);
  if (className) e.className = className;
  e.append(...children);
  return e;
}

// Only what changed: a screen reader announces every change of a status.
function say(id, text) {
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
  $('key').textContent = s.key;
  state.port = s.port;
  const figures = [
    ['Peers', s.peers], ['Media', s.media], ['Listeners', s.listeners],
    ['Running assignments', s.assignments.running], ['Pages delivered', s.acknowledged.pages],
  ];
  $('figures').replaceChildren(...figures.map(([name, n]) =>
    element('div', '', element('dt', '', name), element('dd', '', number.format(n)))));
  const { bytes_by_peers: peers, bytes_by_publishers: publishers } = s.acknowledged;
  const all = peers + publishers;
  if (all > 0) {
    const text = `${bytes(all)} delivered since the tracker started: ${percent(peers, all)} from peer to peer, `
      + `${bytes(publishers)} by publishers.`;
    $('bar-peers').style.width = `${100 * peers / all}%`;
    $('bar').setAttribute('aria-label', text);
    $('share').textContent = text;
  }
}

function mediaRow(m) {
  const name = element('td', '', element('div', 'title', element('bdi', '', m.title || m.path)));
  const host = location.hostname.includes(':') ? `[${location.hostname.replace(/[[\]]/g, '')}]` : location.hostname;
  const url = `icet://${host}:${state.port}${m.link}`;
  const link = element('a', 'link', element('bdi', '', m.path));
  link.href = url;
  link.title = 'Link for iceshare play or iceshare get';
  name.append(link);
  const d = m.bytes_delivered || { by_peers: 0, by_publisher: 0 };
  const cell = (text) => element('td', 'n', text);
  const figure = (n) => cell(n === undefined ? '–' : number.format(n));
  return element('tr', '', name,
    element('td', '', m.streams.map((s) => s.codec).join(' + ') || '–'),
    cell(duration(m.duration_us)), cell(bytes(m.bytes)), figure(m.listeners), figure(m.complete_holders),
    figure(m.hits), cell(percent(d.by_peers, d.by_peers + d.by_publisher)));
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
}

function protocolRow(p) {
  const cell = (text) => element('td', 'n', text);
  const th = element('th', '', p.name);
  th.scope = 'row';
  return element('tr', '', th, cell(number.format(p.hosts)), cell(number.format(p.assigned)),
    cell(number.format(p.failed)), cell(bytes(p.bytes)), cell(p.goodput === null ? '–' : `${bytes(p.goodput)}/s`),
    cell(p.first_byte_ms === null ? '–' : `${Math.round(p.first_byte_ms)} ms`));
}

async function round() {
  try {
    showStatus(await get('api/status'));
    await showMedia();
    $('protocols').replaceChildren(...(await get('api/protocols')).protocols.map(protocolRow));
    $('trouble').hidden = true;
  } catch (e) {
    say('trouble', `No news: ${e.message}. Trying again.`);
    $('trouble').hidden = false;
  }
}

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
$('more').addEventListener('click', () => { state.pages++; round(); });
document.addEventListener('visibilitychange', () => { if (!document.hidden) round(); });
loop();
