//! What becomes of assignments: acknowledgements, ends, lapses, and who is credited or blamed.

use std::time::Duration;

use icet::message::{Outcome, Report};
use icet::{Now, PageNo, PageRanges};

use super::board::{Board, LOOK, MediaIx, PeerIx, REMEMBER, Run, State, Timer, Tried};
use super::knock::HUSH;
use super::learn::Sample;
use super::media::Fetch;
use super::peer::DISTRUST;
use super::punch::Venture;
use super::schedule::Event;

/// An assignment of which something still comes, but that is not complete so long after it should have lapsed, is over.
const ENDLESS: Duration = Duration::from_secs(60);
/// Pause for a receiver that gave an order back.
const GIVEN_BACK: Duration = Duration::from_millis(500);

/// Of `acked` bytes that came: what each host said it sent of them, as far as it was not credited before.
pub(super) fn newly_due(hosts: &mut [Tried], acked: u64) -> Vec<(PeerIx, u64)> {
    let (mut left, mut given) = (acked, Vec::new());
    for t in hosts {
        let due = t.served.min(left);
        left -= due;
        if due > t.credited {
            given.push((t.peer, due - t.credited));
            t.credited = due;
        }
    }
    given
}

impl Board {
    /// A member holds pages now, which came by assignment `id` (0: by none that we know).
    pub(crate) fn got(&mut self, now: Now, media: MediaIx, peer: PeerIx, id: u64, pages: &PageRanges) {
        if self.media.get(&media).is_some_and(|m| m.live.is_some()) {
            return self.live_got(now, media, peer, id, pages);
        }
        let known = self.runs.get(&id).filter(|r| r.receiver == peer && r.media == media);
        let known = known.map(|r| (r.version, r.first, r.last));
        let set = known.map(|(_, first, last)| (first, last));
        if known.is_some() && pages.is_empty() {
            self.coming(now, peer, id);
        }
        let Some(m) = self.media.get_mut(&media) else { return };
        if known.is_some_and(|(version, ..)| version != m.manifest.version) {
            // It did not know yet that these are pages of an older version.
            return;
        }
        let mut of_assignment: Vec<(PageNo, PageNo)> = Vec::new();
        let (mut span, mut completed) = (None::<(PageNo, PageNo)>, false);
        for (a, b) in pages.runs() {
            completed |= m.insert(peer, a, b, |a, b| {
                span = Some(span.map_or((a, b), |(x, y)| (x.min(a), y.max(b))));
                if let Some((first, last)) = set.filter(|(f, l)| a <= *l && b >= *f) {
                    of_assignment.push((a.max(first), b.min(last)));
                }
            });
        }
        let bytes: u64 = of_assignment.iter().map(|(a, b)| m.table.bytes_of(*a, *b)).sum();
        let count: u64 = of_assignment.iter().map(|(a, b)| b - a + 1).sum();
        if completed {
            self.shrink(media, peer);
        }
        if count > 0 {
            self.acknowledged(now, id, bytes, count);
        }
        let Some((from, to)) = span else { return };
        // Whatever of its assignments brings nothing new any more is over.
        let over: Vec<u64> = self.member(media, peer).map_or_else(Vec::new, |m| {
            let touched = m.running.iter().filter(|f| f.first <= to && f.last >= from);
            touched.filter(|f| m.holds.all(f.first, f.last)).map(|f| f.id).collect()
        });
        for other in over {
            let done = self.runs.get(&other).is_some_and(|r| r.done.is_some());
            self.end(now, other);
            if other != id && !done {
                self.cancel(other);
            }
        }
        self.refresh(now, media, peer);
        self.events.push(Event::Got { media, peer });
    }

    /// Something of an assignment came, but no whole page.
    fn coming(&mut self, now: Now, peer: PeerIx, id: u64) {
        let run = self.runs.get_mut(&id);
        let host = run.map(|run| {
            run.coming = Some(now);
            run.host()
        });
        self.ventured(now, id);
        if let Some(h) = host.and_then(|h| self.peers.get_mut(&h)) {
            h.sent = Some(now);
        }
        if let Some(r) = self.peers.get_mut(&peer) {
            r.acked = now;
        }
    }

    fn acknowledged(&mut self, now: Now, id: u64, bytes: u64, pages: u64) {
        self.ventured(now, id);
        self.put_together(now, id);
        let Some(run) = self.runs.get_mut(&id) else { return };
        let bytes = bytes.min(run.left());
        run.acked += bytes;
        // How long it took two to come together says nothing of their lines.
        let first = run.progress.replace(now).is_none() && !std::mem::take(&mut run.met);
        let first = first.then(|| (now.since(run.made), run.behind));
        let (host, receiver, media, state) = (run.host(), run.receiver, run.media, run.state);
        let need = run.need;
        let proto = run.hosts.get(run.with).map(|t| t.proto);
        if let Some(proto) = proto {
            self.met(now, host, receiver, proto);
        }
        if let (Some(r), Some(proto)) = (self.peers.get_mut(&receiver), proto) {
            r.got_from(now, host, proto);
        }
        self.totals.acked_pages += pages;
        self.totals.acked_bytes += bytes;
        if let Some(h) = self.peers.get_mut(&host) {
            h.sent = Some(now);
        }
        if state != State::Ended
            && let Some(h) = self.peers.get_mut(&host)
        {
            first.into_iter().for_each(|(lag, behind)| h.up.heard(lag, behind));
            h.up.progress(now, bytes, need);
        }
        if let Some(r) = self.peers.get_mut(&receiver) {
            r.acked = now;
            if state != State::Ended {
                first.into_iter().for_each(|(lag, behind)| r.down.heard(lag, behind));
                r.down.progress(now, bytes, need);
            }
        }
        if let Some(p) = proto.and_then(|p| self.protocols.get_mut(p)) {
            p.delivered(now, bytes, pages);
        }
        if let Some(m) = self.media.get_mut(&media) {
            m.delivered += bytes;
            if m.is_publisher(host) {
                m.delivered_by_publisher += bytes;
                self.totals.acked_from_publisher += bytes;
            }
        }
        self.credit(now, id);
        self.events.push(Event::Room { media, host, receiver });
    }

    /// Credits what both ends said: the receiver that it came, the host that it was sent.
    pub(crate) fn credit(&mut self, now: Now, id: u64) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        let (media, receiver) = (run.media, run.receiver);
        if !self.is_witness(media, receiver) {
            return;
        }
        let Some(run) = self.runs.get_mut(&id) else { return };
        for (host, bytes) in newly_due(&mut run.hosts, run.acked) {
            self.confirm(now, host, receiver, bytes);
        }
        self.settle(now, id);
    }

    /// Both ends said that so much came from `host` to `receiver`.
    pub(crate) fn confirm(&mut self, now: Now, host: PeerIx, receiver: PeerIx, bytes: u64) {
        if self.are_neighbours(host, receiver) {
            return;
        }
        self.enter_account(now, host, receiver, bytes as f64);
        if let Some(h) = self.peers.get_mut(&host) {
            h.contribution.sent = h.contribution.sent.saturating_add(bytes);
        }
        if let Some(r) = self.peers.get_mut(&receiver) {
            r.contribution.received = r.contribution.received.saturating_add(bytes);
        }
    }

    /// A host says that it sent `bytes` for assignment `id`.
    pub(crate) fn served(&mut self, now: Now, peer: PeerIx, id: u64, bytes: u64) {
        if self.live_served(now, peer, id, bytes) {
            return;
        }
        let Some(run) = self.runs.get_mut(&id) else { return };
        let most = run.bytes;
        let Some(t) = run.hosts.iter_mut().find(|t| t.peer == peer) else { return };
        t.served = t.served.saturating_add(bytes).min(most);
        self.credit(now, id);
    }

    /// An assignment is over: its pages are free for others, its bytes no longer under way.
    pub(crate) fn end(&mut self, now: Now, id: u64) {
        let Some(run) = self.runs.get_mut(&id).filter(|r| r.state != State::Ended) else { return };
        let attached = run.state == State::Runs;
        let detached = run.state == State::Detached;
        let (aside, apart) = (std::mem::take(&mut run.aside), std::mem::take(&mut run.apart));
        let venture = run.venture.take();
        run.state = State::Ended;
        let (media, host, receiver) = (run.media, run.host(), run.receiver);
        let (first, last, left, need) = (run.first, run.last, run.left(), run.need);
        // What was taken back in time says nothing.
        let met = run.deadline.map(|d| now <= d).filter(|in_time| left == 0 || !in_time);
        let with = run.hosts.get(run.with).map(|t| t.proto);
        if let (Some(met), Some(proto)) = (met, with) {
            let offers = self.peers.get_mut(&host).map(|h| &mut h.offers);
            let arm = offers.and_then(|all| all.iter_mut().find(|o| o.proto == proto)).map(|o| &mut o.arm);
            self.protocols.deadline(now, proto, arm, met);
        }
        if attached {
            self.detach(media, receiver, id, first, last);
        }
        if let Some(of) = venture {
            self.count_venture(host, receiver, of, false);
        }
        self.give(now, receiver, -(left as f64));
        if let Some(h) = self.peers.get_mut(&host) {
            if !aside {
                h.up.end(now, left, need);
            }
            h.serving.retain(|r| *r != id);
        }
        if let Some(r) = self.peers.get_mut(&receiver) {
            if !apart {
                r.down.end(now, left, need);
            }
            if detached {
                r.detached.retain(|d| *d != id);
            }
        }
        self.totals.running = self.totals.running.saturating_sub(1);
        self.at(now + REMEMBER, Timer::Forget(id));
        self.refresh(now, media, receiver);
        self.refresh(now, media, host);
        self.events.push(Event::Room { media, host, receiver });
        self.settle(now, id);
    }

    fn detach(&mut self, media: MediaIx, receiver: PeerIx, id: u64, first: PageNo, last: PageNo) {
        let Some(m) = self.media.get_mut(&media) else { return };
        m.unclaim(receiver, id, first, last);
        m.running = m.running.saturating_sub(1);
    }

    /// Assignments by which a member fetches.
    fn running(&self, media: MediaIx, receiver: PeerIx) -> Vec<u64> {
        self.member(media, receiver).map(|m| m.running.iter().map(|f| f.id).collect()).unwrap_or_default()
    }

    /// Tells the receiver that an assignment is wanted no longer.
    pub(crate) fn cancel(&mut self, id: u64) {
        let Some(conn) = self.runs.get(&id).and_then(|r| self.peers.get(&r.receiver)).and_then(|p| p.conn)
        else {
            return;
        };
        // One that was not sent yet need not be.
        if let Some(queued) = self.assign.get_mut(&conn) {
            let before = queued.len();
            queued.retain(|a| a.id != id);
            if queued.len() < before {
                return;
            }
        }
        self.cancel.entry(conn).or_default().push(id);
    }

    /// The receiver's session is gone or it left the media: its assignments may run on, but nothing waits for them.
    pub(crate) fn detach_all(&mut self, media: MediaIx, receiver: PeerIx) {
        for id in self.running(media, receiver) {
            if let Some(run) = self.runs.get_mut(&id).filter(|r| r.state == State::Runs) {
                run.state = State::Detached;
                let (first, last) = (run.first, run.last);
                self.detach(media, receiver, id, first, last);
                if let Some(r) = self.peers.get_mut(&receiver) {
                    r.detached.push(id);
                }
            }
        }
    }

    /// The receiver wants nothing of the media any more: its assignments are over.
    pub(crate) fn end_all(&mut self, now: Now, media: MediaIx, receiver: PeerIx) {
        for id in self.running(media, receiver) {
            self.end(now, id);
        }
    }

    /// Nothing is heard of a host: what was ordered from it counts for its receivers no longer, so that others may send them
    /// something, but may run on.
    pub(crate) fn set_apart(&mut self, now: Now, host: PeerIx) {
        for id in self.peers.get(&host).map(|h| h.serving.clone()).unwrap_or_default() {
            let Some(run) = self.runs.get_mut(&id).filter(|r| !r.apart) else { continue };
            run.apart = true;
            let (media, receiver, left, need) = (run.media, run.receiver, run.left(), run.need);
            if let Some(r) = self.peers.get_mut(&receiver) {
                r.down.excuse(now, left, need);
            }
            self.refresh(now, media, receiver);
            self.events.push(Event::Slow { run: id });
            self.events.push(Event::Room { media, host, receiver });
        }
    }

    /// The ends of an order came together, or it went on to somebody else: from now on it counts at both.
    fn ventured(&mut self, now: Now, id: u64) {
        let Some(run) = self.runs.get_mut(&id).filter(|r| r.state != State::Ended) else { return };
        let Some(of) = run.venture.take() else { return };
        run.met = true;
        let free = of == Venture::Free;
        if free {
            (run.aside, run.apart) = (false, false);
        }
        let (host, receiver, left, need) = (run.host(), run.receiver, run.left(), run.need);
        self.count_venture(host, receiver, of, false);
        if let Some(h) = self.peers.get_mut(&host).filter(|_| free) {
            h.up.begin(now, left, need);
        }
        if let Some(r) = self.peers.get_mut(&receiver).filter(|_| free) {
            r.down.begin(now, left, need);
        }
    }

    /// Something comes by it, or somebody else sends it now: it counts.
    fn put_together(&mut self, now: Now, id: u64) {
        let counts = |r: &&mut Run| r.apart && r.venture != Some(Venture::Free) && r.state != State::Ended;
        let Some(run) = self.runs.get_mut(&id).filter(counts) else { return };
        run.apart = false;
        let (receiver, left, need) = (run.receiver, run.left(), run.need);
        if let Some(r) = self.peers.get_mut(&receiver) {
            r.down.begin(now, left, need);
        }
    }

    /// A host speaks again.
    pub(crate) fn put_all_together(&mut self, now: Now, host: PeerIx) {
        for id in self.peers.get(&host).map(|h| h.serving.clone()).unwrap_or_default() {
            self.put_together(now, id);
        }
    }

    /// Nothing is heard of a receiver: what it was ordered counts for its hosts no longer, but may run on.
    pub(crate) fn set_aside(&mut self, now: Now, receiver: PeerIx) {
        for media in self.peers.get(&receiver).map(|r| r.media.clone()).unwrap_or_default() {
            self.detach_all(media, receiver);
            self.refresh(now, media, receiver);
        }
        for id in self.peers.get(&receiver).map(|r| r.detached.clone()).unwrap_or_default() {
            let Some(run) = self.runs.get_mut(&id).filter(|r| !r.aside) else { continue };
            run.aside = true;
            let (media, host, left, need) = (run.media, run.host(), run.left(), run.need);
            if let Some(h) = self.peers.get_mut(&host) {
                h.up.excuse(now, left, need);
            }
            self.refresh(now, media, host);
            self.events.push(Event::Room { media, host, receiver });
        }
    }

    /// It speaks again: what was set aside goes on.
    pub(crate) fn take_up(&mut self, now: Now, receiver: PeerIx) {
        for id in self.peers.get(&receiver).map(|r| r.detached.clone()).unwrap_or_default() {
            let Some(media) = self.runs.get(&id).filter(|r| r.aside).map(|r| r.media) else { continue };
            if self.member(media, receiver).is_some() {
                self.reattach(now, media, receiver, id);
            } else {
                self.end(now, id);
            }
        }
    }

    /// A receiver that came back says that `id` still runs. False if we know nothing of it.
    pub(crate) fn reattach(&mut self, now: Now, media: MediaIx, receiver: PeerIx, id: u64) -> bool {
        let Some(run) = self.runs.get_mut(&id) else { return false };
        if run.receiver != receiver || run.media != media || run.state != State::Detached {
            return false;
        }
        run.state = State::Runs;
        run.progress = Some(now);
        let aside = std::mem::take(&mut run.aside);
        let (host, left, need) = (run.host(), run.left(), run.need);
        let (first, last) = (run.first, run.last);
        if let Some(h) = self.peers.get_mut(&host).filter(|_| aside) {
            h.up.begin(now, left, need);
            self.refresh(now, media, host);
        }
        if let Some(r) = self.peers.get_mut(&receiver) {
            r.detached.retain(|d| *d != id);
        }
        if let Some(m) = self.media.get_mut(&media) {
            m.claim(receiver, first, last);
            m.running += 1;
            if let Some(member) = m.members.get_mut(&receiver) {
                member.running.push(Fetch { id, host, first, last });
            }
        }
        if !aside {
            self.at(now + LOOK, Timer::Look(id));
        }
        true
    }

    /// A receiver that came back has said what of a media still runs: the rest is over, though nothing was heard of its end.
    pub(crate) fn end_detached(&mut self, now: Now, media: MediaIx, receiver: PeerIx) {
        let detached = self.peers.get(&receiver).map(|r| r.detached.clone()).unwrap_or_default();
        for id in detached {
            if self.runs.get(&id).is_some_and(|r| r.media == media) {
                self.end(now, id);
            }
        }
    }

    /// A receiver says how one host did with an assignment.
    pub(crate) fn report(&mut self, now: Now, peer: PeerIx, report: &Report) {
        if self.live_report(now, peer, report) {
            return;
        }
        let Some(run) = self.runs.get_mut(&report.assignment).filter(|r| r.receiver == peer) else { return };
        let proto = self.protocols.find(&report.protocol);
        let named = |t: &Tried| t.key == report.host && Some(t.proto) == proto && !t.reported;
        let Some(i) = run.hosts.iter().position(named) else { return };
        // With the last one it goes on all the same.
        let warns = !report.last && i + 1 == run.hosts.len();
        if warns && std::mem::replace(&mut run.drips, true) {
            return;
        }
        run.hosts[i].reported = !warns;
        let (host, proto, media) = (run.hosts[i].peer, run.hosts[i].proto, run.media);
        let (believable, state) = (report.bytes.min(run.bytes + run.bytes / 4), run.state);
        let id = report.assignment;
        self.judge(now, peer, host, proto, media, report, believable);
        if state != State::Runs {
            self.settle(now, id);
            return;
        }
        if report.last {
            self.reported_end(now, id, report.outcome);
        } else if warns {
            self.events.push(Event::Slow { run: id });
        } else {
            self.pass_on(now, id, i + 1);
        }
    }

    fn reported_end(&mut self, now: Now, id: u64, outcome: Outcome) {
        if outcome == Outcome::Done
            && let Some(run) = self.runs.get_mut(&id)
        {
            // Acknowledgements that are held back may follow.
            let until = now + Duration::from_millis(2 * u64::from(self.config.ack_delay_ms) + 100);
            run.done = Some(until);
            self.at(until, Timer::Look(id));
            return;
        }
        let run = self.runs.get(&id).filter(|r| outcome == Outcome::Stopped && r.acked == 0);
        if let Some((media, receiver)) = run.map(|r| (r.media, r.receiver)) {
            // It has more than it can take up: the same order at once would come back at once.
            if let Some(m) = self.member_mut(media, receiver) {
                m.refuses_until = now + GIVEN_BACK;
            }
            self.at(now + GIVEN_BACK, Timer::Tick(media));
        }
        self.end(now, id);
    }

    /// The stand-in number `to` has the assignment now.
    fn pass_on(&mut self, now: Now, id: u64, to: usize) {
        self.ventured(now, id);
        let Some(run) = self.runs.get_mut(&id).filter(|r| to < r.hosts.len() && to > r.with) else { return };
        let (media, before, left, receiver, need) =
            (run.media, run.host(), run.left(), run.receiver, run.need);
        run.with = to;
        run.progress = Some(now);
        let after = run.host();
        if let Some(m) = self.member_mut(media, receiver) {
            m.running.iter_mut().filter(|f| f.id == id).for_each(|f| f.host = after);
        }
        if let Some(h) = self.peers.get_mut(&before) {
            h.up.end(now, left, need);
            h.serving.retain(|r| *r != id);
        }
        if let Some(h) = self.peers.get_mut(&after) {
            h.up.begin(now, left, need);
            h.serving.push(id);
            if self.media.get(&media).is_some_and(|m| m.is_publisher(after)) {
                h.rely(now, left);
            }
        }
        if self.peers.get(&after).is_some_and(super::peer::Peer::is_there) {
            self.put_together(now, id);
        }
        self.refresh(now, media, before);
        self.refresh(now, media, after);
        self.events.push(Event::Room { media, host: before, receiver });
    }

    /// Looks at a running assignment: it may have lapsed, or be late.
    pub(crate) fn look(&mut self, now: Now, id: u64) {
        let Some(run) = self.runs.get(&id).filter(|r| r.state != State::Ended) else { return };
        let (media, receiver, host) = (run.media, run.receiver, run.host());
        let (made, lapse) = (run.made, run.lapse);
        if run.aside && self.peers.get(&receiver).is_some_and(|r| r.conn.is_some() && !r.is_there()) {
            // It is decided when its receiver is: see `knock`.
            self.at(now + LOOK, Timer::Look(id));
            return;
        }
        if run.done.is_some_and(|d| d <= now)
            || (run.state == State::Detached && now.since(run.made) > run.lapse)
        {
            self.end(now, id);
            return;
        }
        let mut moved = run.progress.max(run.coming).unwrap_or(made);
        let slow = if run.coming.is_some() { ENDLESS } else { Duration::from_secs(10) };
        let old = now.since(made) > 4 * lapse + slow;
        if old || now.since(moved) >= lapse {
            // One that waits behind others of the same host is not idle while those move.
            let running = self.member(media, receiver).map(|m| m.running.as_slice()).unwrap_or_default();
            let siblings = running.iter().filter(|f| f.host == host).filter_map(|f| self.runs.get(&f.id));
            moved = siblings.filter_map(|r| r.progress.max(r.coming)).chain([moved]).max().unwrap_or(moved);
        }
        if old || now.since(moved) >= lapse {
            if self.is_unheard(now, receiver) {
                // Who may be gone says nothing of the host.
                self.at(now + HUSH, Timer::Look(id));
            } else {
                self.lapsed(now, id, moved);
            }
            return;
        }
        self.at(now + LOOK, Timer::Look(id));
        self.events.push(Event::Slow { run: id });
    }

    /// Nothing came by an assignment, or by others from the same host, since `moved`.
    fn lapsed(&mut self, now: Now, id: u64, moved: Now) {
        let Some(run) = self.runs.get(&id) else { return };
        let (media, receiver, host, made) = (run.media, run.receiver, run.host(), run.made);
        let proto = run.hosts.get(run.with).map(|t| t.proto);
        let dead = now.since(moved) >= run.lapse;
        let venture = proto.is_some_and(|proto| self.is_venture(host, receiver, proto));
        let ignored = self.peers.get(&receiver).is_none_or(|r| r.acked.max(r.told) < made);
        if ignored && let Some(r) = self.peers.get_mut(&receiver) {
            // It took nothing up, from nobody: that is its own doing, or its line is dead.
            r.conduct.distrust.add(now, DISTRUST, 0.02);
            r.conduct.unheeded.add(now, DISTRUST, 1.0);
        }
        if !ignored
            && !venture
            && let Some(proto) = proto
        {
            let near = self.nearness(host, receiver);
            let arm = self
                .peers
                .get_mut(&host)
                .and_then(|h| h.offers.iter_mut().find(|o| o.proto == proto))
                .map(|o| &mut o.arm);
            let sample = Sample { ok: Some(false), weight: 0.5, rate: None, first: None };
            self.protocols.learn(now, proto, near, arm, sample);
            if let Some(h) = self.peers.get_mut(&host) {
                h.up.disappoint(now);
            }
            self.suspect(now, host, receiver, Outcome::Stalled);
        }
        if let Some(proto) = proto.filter(|_| venture && !ignored) {
            self.part(now, media, (host, proto), receiver);
        } else if let Some(proto) = proto {
            self.avoid_way(now, media, receiver, (host, proto), false);
        }
        // Nothing came by the others of the same way either: they would fare no better.
        let running = self.running(media, receiver);
        let fares_so = |r: &Run| r.host() == host && r.hosts.get(r.with).map(|t| t.proto) == proto;
        let others = running.into_iter().filter(|r| self.runs.get(r).is_some_and(fares_so));
        let all: Vec<_> = if dead { others.chain([id]).collect() } else { vec![id] };
        for id in all {
            self.cancel(id);
            self.end(now, id);
        }
    }

    /// A member completed its copy: its map takes no memory any more.
    pub(crate) fn shrink(&mut self, media: MediaIx, peer: PeerIx) {
        let Some(m) = self.media.get(&media) else { return };
        let cost = super::media::Holds::cost(m);
        if let Some(p) = self.peers.get_mut(&peer) {
            p.map_bytes = p.map_bytes.saturating_sub(cost);
        }
        self.totals.map_bytes = self.totals.map_bytes.saturating_sub(cost);
    }
}
