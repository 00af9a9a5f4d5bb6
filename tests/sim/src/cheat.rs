//! What cheats do beyond what the network knows: keys of one machine that share what they hold, and peers that collude.

use std::time::Duration;

use iceshare::engine::io::{Command, FetchEvent, FetchId};
use icet::message::Outcome;
use icet::{PageMap, PageRanges, PageSet};

use crate::net::Conduct;
use crate::peer::MEDIA;
use crate::world::{Event, Sim};

/// When pages that never came are said to be lost.
const DISOWNED: Duration = Duration::from_secs(1);

impl Sim {
    /// Keys of one machine have one disk.
    pub(crate) fn share(&mut self, n: usize) {
        let Some(on) = self.peers[n].spec.on else { return };
        let end = self.media.manifest.pages;
        for (a, b) in [(n, on), (on, n)] {
            let (Some(has), Some(lacks)) = (&self.net.nodes[a].held, &self.net.nodes[b].held) else {
                continue;
            };
            let mut got = PageRanges::new();
            (0..end).filter(|p| has.has(*p) && !lacks.has(*p)).for_each(|p| got.insert(p, p));
            if got.is_empty() || !self.lives(b) {
                continue;
            }
            let done = self.net.took(self.now, b, &got);
            self.completed(b, done);
            self.command(b, Command::Held { handle: MEDIA, got, lost: PageRanges::new() });
        }
    }

    /// Whether a receiver and a host say of each other what is not true.
    pub(crate) fn collude(&self, receiver: usize, host: usize) -> bool {
        let one = |n: usize| self.net.nodes[n].conduct == Conduct::Colludes;
        one(receiver) && one(host) && self.net.nodes[receiver].machine != self.net.nodes[host].machine
    }

    /// The host says that it sent pages.
    pub(crate) fn feign(
        &mut self,
        (n, host): (usize, usize),
        fetch: FetchId,
        pages: PageSet,
        assignment: u64,
    ) {
        let bytes: u64 = pages.iter(self.media.manifest.pages).map(|p| u64::from(self.net.len_of(p))).sum();
        *self.net.nodes[host].served.entry(assignment).or_default() += bytes;
        let way = self.net.between(n, host);
        self.after(2 * way, Event::Feigned(n, fetch, pages));
    }

    /// The receiver says that they came.
    pub(crate) fn feigned(&mut self, n: usize, fetch: FetchId, pages: PageSet) {
        if !self.lives(n) {
            return;
        }
        let mut lost = PageRanges::new();
        let engine = &mut self.peers[n].engine;
        engine.handle_fetch(self.now, fetch, FetchEvent::FirstByte);
        for page in pages.iter(self.media.manifest.pages) {
            if !self.net.nodes[n].held.as_ref().is_some_and(|h| h.has(page)) {
                lost.insert(page, page);
            }
            let len = self.net.len_of(page);
            engine.handle_fetch(self.now, fetch, FetchEvent::Page { page, len });
        }
        engine.handle_fetch(self.now, fetch, FetchEvent::Ended(Outcome::Done));
        self.after(DISOWNED, Event::Disowned(n, lost));
        self.command(n, Command::Served { items: Vec::new() });
    }

    /// Bytes of pages that the keys of a machine hold between them.
    #[must_use]
    pub fn of_machine(&self, machine: usize) -> u64 {
        let mut keys = (0..self.peers.len()).filter(|n| self.net.nodes[*n].machine == machine);
        let Some(first) = keys.next() else { return 0 };
        let others: Vec<&PageMap> = keys.filter_map(|n| self.net.nodes[n].held.as_ref()).collect();
        let Some(own) = &self.net.nodes[first].held else { return 0 };
        let held = |p: &u64| own.has(*p) || others.iter().any(|o| o.has(*p));
        (0..self.media.manifest.pages).filter(held).map(|p| u64::from(self.net.len_of(p))).sum()
    }
}
