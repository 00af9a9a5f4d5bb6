//! The yardstick: a swarm without a tracker's orders, in the same network.
//!
//! Each peer has some random neighbours and knows at once what they hold (no tracker, no messages, no delay of them). An uplink
//! has a few slots; a free one takes a random neighbour that lacks something, and sends it the unit (about 64 KB) that is
//! rarest among that one's neighbours. The origin is everyone's neighbour. No tit-for-tat, no unreachable receivers, no unit
//! sent twice: kinder than a real swarm.

use std::time::Duration;

use iceshare::engine::io::FetchEvent;
use icet::{Now, PageMap, PageSet};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::media::SimMedia;
use crate::net::{Net, NetEvent};
use crate::queue::Queue;
use crate::scenario::Scenario;

/// Units that may be on their way to one peer.
const INCOMING: u32 = 8;
/// Neighbours that a host looks at.
const LOOK: usize = 8;
/// About how many bytes a unit has.
const UNIT: u64 = 64 << 10;

#[derive(Debug)]
enum Event {
    Net(NetEvent),
    Join(usize),
}

impl From<NetEvent> for Event {
    fn from(e: NetEvent) -> Event {
        Event::Net(e)
    }
}

#[derive(Debug, Default)]
struct Node {
    joined: bool,
    /// Whether others can fetch from it.
    serves: bool,
    neighbours: Vec<usize>,
    /// Units held, and units held or on their way, a bit each.
    held: Vec<u64>,
    claimed: Vec<u64>,
    units: usize,
    /// How many neighbours hold each unit.
    copies: Vec<u16>,
    active: usize,
    incoming: u32,
    idle: bool,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Local {
    /// Seconds from the start until each had everything, by order of arrival.
    pub done: Vec<Option<f64>>,
    /// Bytes that the origin sent.
    pub origin: u64,
}

struct World {
    net: Net,
    queue: Queue<Event>,
    nodes: Vec<Node>,
    rng: SmallRng,
    now: Now,
    slots: usize,
    pages: u64,
    unit: u64,
    /// Host, receiver and unit of each transfer.
    transfers: Vec<(usize, usize, usize)>,
}

/// Runs it.
#[must_use]
pub(crate) fn run(scenario: &Scenario, media: &SimMedia) -> Local {
    let pages = media.manifest.pages;
    let unit = (UNIT * pages / media.manifest.bytes.max(1)).clamp(1, pages);
    let units = usize::try_from(pages.div_ceil(unit)).unwrap_or(usize::MAX);
    let crowd = scenario.crowd();
    let mut w = World {
        net: Net::new(media.lens.clone(), Vec::new()),
        queue: Queue::new(),
        nodes: Vec::new(),
        rng: SmallRng::seed_from_u64(scenario.seed),
        now: Now::ZERO,
        slots: scenario.yardstick.slots,
        pages,
        unit,
        transfers: Vec::new(),
    };
    let words = units.div_ceil(64);
    let publisher = scenario.publisher();
    w.net.add(publisher.line, publisher.conduct);
    w.net.nodes[0].held = Some(PageMap::full(pages));
    w.nodes.push(Node {
        joined: true,
        serves: true,
        neighbours: (1..=crowd.len()).collect(),
        held: vec![u64::MAX; words],
        units,
        ..Node::default()
    });
    for (at, spec) in &crowd {
        let n = w.net.add(spec.line, spec.conduct);
        w.net.nodes[n].held = Some(PageMap::new(pages));
        let serves = spec.serves && spec.open && spec.line.up > 0.0;
        w.nodes.push(Node {
            serves,
            held: vec![0; words],
            claimed: vec![0; words],
            copies: vec![0; units],
            ..Node::default()
        });
        w.queue.push(Now::ZERO + *at, Event::Join(n));
    }
    w.acquaint(scenario.yardstick.neighbours);
    let end = Now::from_origin(Duration::from_secs_f64(scenario.seconds));
    let mut left = crowd.len();
    while left > 0 && w.queue.next_at().is_some_and(|t| t <= end) {
        w.now = w.queue.next_at().unwrap_or(end);
        match w.queue.pop() {
            Some(Event::Join(n)) => w.join(n),
            Some(Event::Net(e)) => left -= usize::from(w.happen(e)),
            None => {}
        }
    }
    let done = w.net.nodes[1..].iter().map(|n| n.done.map(|t| t.since(Now::ZERO).as_secs_f64())).collect();
    Local { done, origin: w.net.nodes[0].sent }
}

impl World {
    /// Random neighbours, mutual.
    fn acquaint(&mut self, degree: usize) {
        let n = self.nodes.len();
        let degree = degree.min(n.saturating_sub(2));
        for a in 1..n {
            while self.nodes[a].neighbours.len() < degree {
                let b = self.rng.random_range(1..n);
                if a != b && !self.nodes[a].neighbours.contains(&b) {
                    self.nodes[a].neighbours.push(b);
                    self.nodes[b].neighbours.push(a);
                }
            }
        }
    }

    fn join(&mut self, n: usize) {
        self.nodes[n].joined = true;
        self.serve(0);
        for h in self.nodes[n].neighbours.clone() {
            self.serve(h);
        }
    }

    /// Whether somebody has everything now.
    fn happen(&mut self, e: NetEvent) -> bool {
        let Some(told) = self.net.handle(self.now, &mut self.queue, e) else { return false };
        let FetchEvent::Ended(_) = told.event else { return false };
        let Ok(i) = usize::try_from(told.fetch) else { return false };
        let (host, n, unit) = self.transfers[i];
        let (word, bit) = (unit / 64, 1u64 << (unit % 64));
        self.nodes[n].incoming -= 1;
        self.nodes[n].held[word] |= bit;
        self.nodes[n].units += 1;
        self.nodes[host].active -= 1;
        let neighbours = self.nodes[n].neighbours.clone();
        for h in &neighbours {
            self.nodes[*h].copies[unit] += 1;
        }
        self.serve(host);
        self.serve(n);
        self.serve_idle(0);
        for h in neighbours {
            self.serve_idle(h);
        }
        self.nodes[n].units == self.nodes[n].copies.len()
    }

    fn serve_idle(&mut self, h: usize) {
        if self.nodes[h].idle {
            self.serve(h);
        }
    }

    /// Fills a host's slots.
    fn serve(&mut self, h: usize) {
        if !self.nodes[h].serves || !self.nodes[h].joined {
            return;
        }
        self.nodes[h].idle = false;
        while self.nodes[h].active < self.slots {
            let Some((n, unit)) = self.choose(h) else {
                self.nodes[h].idle = true;
                return;
            };
            let fetch = self.transfers.len() as u64;
            self.transfers.push((h, n, unit));
            self.nodes[h].active += 1;
            self.nodes[n].incoming += 1;
            self.nodes[n].claimed[unit / 64] |= 1 << (unit % 64);
            let first = unit as u64 * self.unit;
            let set = PageSet::range(first, (first + self.unit - 1).min(self.pages - 1));
            self.net.push(self.now, &mut self.queue, (n, h), fetch, set);
        }
    }

    /// A random neighbour in need among a few, and the unit that is rarest where it is.
    fn choose(&mut self, h: usize) -> Option<(usize, usize)> {
        let all = self.nodes[h].neighbours.len();
        let (mut looked, mut step) = (0, 0);
        let start = self.rng.random_range(0..all.max(1));
        while looked < LOOK && step < all {
            let n = self.nodes[h].neighbours[(start + step) % all];
            step += 1;
            let x = &self.nodes[n];
            if !x.joined || x.incoming >= INCOMING || x.units == x.copies.len() {
                continue;
            }
            looked += 1;
            if let Some(unit) = self.rarest(h, n) {
                return Some((n, unit));
            }
        }
        None
    }

    fn rarest(&mut self, h: usize, n: usize) -> Option<usize> {
        let (from, to) = (&self.nodes[h], &self.nodes[n]);
        let units = to.copies.len();
        let (mut best, mut same) = (None, 0u32);
        for (w, (held, claimed)) in from.held.iter().zip(&to.claimed).enumerate() {
            let mut word = held & !claimed;
            while word != 0 {
                let unit = w * 64 + word.trailing_zeros() as usize;
                word &= word - 1;
                if unit >= units {
                    break;
                }
                let copies = to.copies[unit];
                match best {
                    Some((least, _)) if copies > least => continue,
                    Some((least, _)) if copies == least => same += 1,
                    _ => same = 1,
                }
                // One of equals, each as likely.
                if same == 1 || self.rng.random_ratio(1, same) {
                    best = Some((copies, unit));
                }
            }
        }
        best.map(|(_, unit)| unit)
    }
}
