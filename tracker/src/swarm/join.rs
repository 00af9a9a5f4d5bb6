//! Members: joining, saying what they hold and want, asking, leaving.

use std::time::Duration;

use icet::message::{
    ErrorCode, Focus, Have, InfoAnswer, InfoRequest, Intent, Join, Locate, MediaAnswer, Position, Slices,
    ToPeer,
};
use icet::{MediaId, Now, PageRanges};

use super::board::{MediaIx, PeerIx, Run};
use super::media::{Holds, Media, Playhead};
use super::peer::{LEAST_WINDOW, MOST_LEAST};
use super::schedule::Event;
use super::session::{Refused, quota, refuse};
use super::table::Found;
use super::{ConnId, Effect, Swarm};

/// What a player should hold before it begins, in milliseconds of media time.
pub(crate) const BUFFER_MS: u32 = 2000;
/// Most slices of the setup pages in an answer.
const SETUP_SLICES: u64 = 8;
/// No bulk is ordered for so long for a receiver whose assignments of an earlier epoch still run.
const EARLIER: Duration = Duration::from_secs(2);
/// When to ask again for a slice that was not uploaded yet.
const NOT_YET_MS: u32 = 1000;
/// Seconds of media that a player may have under way, however slowly pages came to it.
const CATCH_UP: u64 = 3;
/// Bytes a second, if a media has no duration.
const UNKNOWN_PLAY_RATE: u64 = 32 << 10;

/// Bytes a second that a player eats if it does not say.
fn mean_rate(m: &Media) -> u64 {
    let (bytes, us) = (u128::from(m.manifest.bytes), u128::from(m.manifest.duration));
    (bytes * 1_000_000)
        .checked_div(us)
        .map_or(UNKNOWN_PLAY_RATE, |r| u64::try_from(r).unwrap_or(u64::MAX).max(1))
}

impl Swarm {
    pub(crate) fn find_media(&self, id: &MediaId) -> Result<MediaIx, Refused> {
        self.board.ids.get(id).copied().ok_or_else(|| refuse(ErrorCode::NO_MEDIA, "no such media here"))
    }

    /// Makes a peer a member that holds nothing, or everything; what it was before is forgotten.
    pub(crate) fn enter(
        &mut self,
        now: Now,
        ix: MediaIx,
        peer: PeerIx,
        intent: Intent,
        full: bool,
    ) -> Result<(), Refused> {
        self.leave_swarm(ix, peer);
        let (Some(m), Some(p)) = (self.board.media.get_mut(&ix), self.board.peers.get_mut(&peer)) else {
            return Err(refuse(ErrorCode::NO_MEDIA, "no such media here"));
        };
        let quotas = &self.board.config.quotas;
        if p.media.len() >= quotas.memberships {
            return Err(quota("you are in too many swarms; leave one", Duration::from_secs(60)));
        }
        let full = full || m.live.is_some();
        let cost = if full { 0 } else { Holds::cost(m) };
        if cost > 0
            && (p.map_bytes.saturating_add(cost) > quotas.map_bytes_per_key as u64
                || self.board.totals.map_bytes.saturating_add(cost) > quotas.map_bytes as u64)
        {
            return Err(quota("page maps take too much memory; leave a swarm", Duration::from_secs(60)));
        }
        p.map_bytes += cost;
        self.board.totals.map_bytes += cost;
        let publisher = m.manifest.publisher == p.key;
        m.add(now, peer, intent, full, publisher);
        m.set_serves(peer, p.servable);
        p.media.insert(ix);
        self.board.totals.members += 1;
        Ok(())
    }

    /// Takes a peer out of a swarm. Its assignments may run on, nobody waits for them.
    pub(crate) fn leave_swarm(&mut self, ix: MediaIx, peer: PeerIx) {
        self.board.detach_all(ix, peer);
        self.board.decisions.forget(ix, peer);
        self.board.live_leave(ix, peer);
        let Some(m) = self.board.media.get_mut(&ix) else { return };
        let map = Holds::cost(m);
        let Some(member) = m.remove(peer) else { return };
        let cost = if member.holds.part().is_some() { map } else { 0 };
        self.board.totals.map_bytes = self.board.totals.map_bytes.saturating_sub(cost);
        self.board.totals.members = self.board.totals.members.saturating_sub(1);
        if let Some(p) = self.board.peers.get_mut(&peer) {
            p.map_bytes = p.map_bytes.saturating_sub(cost);
            p.media.remove(&ix);
            p.missed_up.remove(ix);
            p.missed_down.remove(ix);
        }
    }

    pub(crate) fn join(&mut self, now: Now, conn: ConnId, peer: PeerIx, m: Join) -> Result<(), Refused> {
        let rate = self.board.config.quotas.joins_per_minute;
        let wall = self.board.wall(now);
        if let Some(p) = self.board.peers.get_mut(&peer) {
            p.joins
                .take(now, rate / 60.0, rate, 1.0)
                .map_err(|wait| quota("too many joins; join more slowly", wait))?;
        }
        let Some(ix) = self.names.media(&m.path) else {
            return Err(self.absent(&m.path));
        };
        let Some(media) = self.board.media.get(&ix) else {
            return Err(refuse(ErrorCode::INTERNAL, "the catalogue contradicts itself"));
        };
        if m.publisher.is_some_and(|p| p != media.manifest.publisher) {
            let text = format!(
                "the media at this path is published by key {}, not by the key asked for",
                media.manifest.publisher
            );
            return Err(refuse(ErrorCode::OTHER_PUBLISHER, text));
        }
        let known = m.version == media.manifest.version;
        let have = if known { m.have } else { PageRanges::new() };
        let full = have.runs().next().is_some_and(|(a, b)| a == 0 && b + 1 >= media.pages());
        let again = media.members.contains_key(&peer);
        self.enter(now, ix, peer, m.intent, full)?;
        self.used(&m.path, wall);
        let Some(media) = self.board.media.get_mut(&ix) else { return Ok(()) };
        // Who holds something of it comes back, or goes on.
        if !again && have.runs().next().is_none() && m.intent != Intent::Share {
            media.hits += 1;
        }
        if media.live.is_some() {
            self.answer_media(conn, ix, m.request, None);
            self.send_head(conn, ix, None);
            let back = m.back.map(|ms| i64::from(ms) * 1000);
            self.board.live_join(now, ix, peer, &have, &m.running, back);
            self.board.events.push(Event::Joined { media: ix, peer });
            return Ok(());
        }
        if m.intent == Intent::Play || m.at.is_some() {
            let rate = mean_rate(media);
            let page = media.table.page_at(m.at.unwrap_or(Position::Page(0)));
            let urgent = rate.saturating_mul(u64::from(BUFFER_MS) * 2) / 1000;
            if let Some(x) = media.members.get_mut(&peer) {
                x.playhead = Some(Playhead { page, rate, urgent, since: now });
            }
        }
        self.answer_media(conn, ix, m.request, m.at.or(Some(Position::Page(0))));
        if !full {
            self.board.got(now, ix, peer, 0, &have);
        }
        // Assignments of this epoch go on where they were. Of those of an earlier epoch we know only that they run: what
        // they bring comes as a map, and bulk waits a little so that little comes twice.
        let mut unknown = false;
        for id in &m.running {
            if known && self.board.reattach(now, ix, peer, *id) {
                continue;
            }
            // One that is over to us was taken back, or reported, in a session that did not pass any more.
            let over = |r: &Run| r.receiver == peer && r.media == ix;
            if self.board.runs.get(id).is_some_and(over) {
                self.board.cancel(*id);
            } else {
                unknown = true;
            }
        }
        self.board.end_detached(now, ix, peer);
        if !again && m.intent != Intent::Share {
            self.board.look_after_newcomer(now, ix, peer, now, 0);
        }
        if unknown && let Some(x) = self.board.member_mut(ix, peer) {
            x.hold_until = now + EARLIER;
            self.board.at(now + EARLIER, super::board::Timer::Tick(ix));
        }
        self.board.events.push(Event::Joined { media: ix, peer });
        Ok(())
    }

    fn answer_media(&mut self, conn: ConnId, ix: MediaIx, request: u64, at: Option<Position>) {
        let Some(m) = self.board.media.get(&ix) else { return };
        let last = m.manifest.slices().saturating_sub(1);
        let setup = m.manifest.setup.div_ceil(icet::media::SLICE_PAGES).min(SETUP_SLICES);
        let focus = at.map(|at| m.table.page_at(at) / icet::media::SLICE_PAGES);
        let mut slices: Vec<u64> = (0..setup).chain(focus.into_iter().flat_map(|f| [f, f + 1])).collect();
        slices.extend([last.saturating_sub(1), last]);
        slices.retain(|s| m.table.has(*s));
        slices.sort_unstable();
        slices.dedup();
        let answer = MediaAnswer {
            request,
            media: m.id,
            manifest: m.manifest.signed().clone(),
            slices: Vec::new(),
            listeners: m.listeners(),
            hits: m.hits,
            estimate: self.estimate(m),
            buffer: BUFFER_MS,
        };
        let (media, version) = (m.id, m.manifest.version);
        let message = ToPeer::from(answer);
        self.effects.push_back(Effect::Answer { conn, message, media, version, slices });
    }

    /// About how long all of it takes a newcomer, in milliseconds, going by the publisher's rate and those of a few others.
    fn estimate(&self, m: &Media) -> Option<u64> {
        let up = |p: &PeerIx| self.board.peers.get(p).and_then(|p| p.up.known_rate());
        let some: Vec<f64> = m.members.keys().take(64).chain(&m.publisher).filter_map(up).collect();
        let total: f64 = some.iter().sum::<f64>() / (m.listeners().max(1) as f64 / 64.0).max(1.0);
        let rate = total / m.listeners().max(1) as f64;
        // In range: a float to integer cast saturates.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        (rate > 1.0).then(|| (m.manifest.bytes as f64 / rate * 1000.0) as u64)
    }

    pub(crate) fn focus(&mut self, now: Now, peer: PeerIx, f: &Focus) -> Result<(), Refused> {
        let ix = self.find_media(&f.media)?;
        let Some(m) = self.board.media.get_mut(&ix) else { return Ok(()) };
        if !m.members.contains_key(&peer) {
            return Err(refuse(ErrorCode::FORBIDDEN, "join a media before you focus on it"));
        }
        if m.live.is_some() {
            // Everybody is at the same place.
            return Ok(());
        }
        let page = m.table.page_at(f.at);
        let rate = f.rate.unwrap_or_else(|| mean_rate(m)).max(1);
        m.set_intent(peer, f.intent);
        if let Some(x) = m.members.get_mut(&peer) {
            x.playhead = Some(Playhead { page, rate, urgent: f.urgent, since: now });
        }
        if let Some(p) = self.board.peers.get_mut(&peer) {
            let plays = f.intent == Intent::Play;
            let least = rate.saturating_mul(CATCH_UP).clamp(LEAST_WINDOW, MOST_LEAST);
            p.down.least = if plays { least } else { LEAST_WINDOW };
        }
        self.board.events.push(Event::Wants { media: ix, peer });
        Ok(())
    }

    pub(crate) fn have(&mut self, now: Now, peer: PeerIx, m: &Have) -> Result<(), Refused> {
        let ix = self.find_media(&m.media)?;
        if self.board.member(ix, peer).is_none() {
            return Err(refuse(ErrorCode::FORBIDDEN, "join a media before you say what you hold of it"));
        }
        for got in &m.got {
            self.board.got(now, ix, peer, got.assignment, &got.pages);
        }
        if m.lost.is_empty() || self.board.media.get(&ix).is_some_and(|m| m.live.is_some()) {
            return Ok(());
        }
        let full = self.board.member(ix, peer).is_some_and(|m| m.holds.part().is_none());
        let cost = self.board.media.get(&ix).map_or(0, Holds::cost);
        let used = self.board.peers.get(&peer).map_or(0, |p| p.map_bytes);
        if full && used.saturating_add(cost) > self.board.config.quotas.map_bytes_per_key as u64 {
            self.leave_swarm(ix, peer);
            return Err(quota("page maps take too much memory; join again later", Duration::from_secs(60)));
        }
        let running = self.board.member(ix, peer).map(|m| m.running.as_slice()).unwrap_or_default();
        let still: Vec<_> = running.iter().map(|f| (f.first, f.last)).collect();
        if let Some(media) = self.board.media.get_mut(&ix)
            && media.lose(peer, &m.lost, &still)
        {
            self.board.totals.map_bytes += cost;
            if let Some(p) = self.board.peers.get_mut(&peer) {
                p.map_bytes += cost;
            }
        }
        self.board.events.push(Event::Wants { media: ix, peer });
        Ok(())
    }

    pub(crate) fn locate(&mut self, conn: ConnId, m: &Locate) -> Result<(), Refused> {
        let ix = self.find_media(&m.media)?;
        let Some(media) = self.board.media.get(&ix) else { return Ok(()) };
        if media.live.is_some() {
            return Err(refuse(ErrorCode::BAD_MESSAGE, "live media have no slices"));
        }
        match media.table.locate(m.at) {
            Found::Slice(s) => {
                let message =
                    ToPeer::from(Slices { media: media.id, request: m.request, slices: Vec::new() });
                let (media, version) = (media.id, media.manifest.version);
                self.effects.push_back(Effect::Answer { conn, message, media, version, slices: vec![s] });
                Ok(())
            }
            Found::NotYet => Err(Refused {
                retry: Some(NOT_YET_MS),
                ..refuse(ErrorCode::NOT_YET, "the publisher has not uploaded this part of the page table yet")
            }),
            Found::Beyond => Err(refuse(ErrorCode::BAD_MESSAGE, "beyond the end of the media")),
        }
    }

    pub(crate) fn info(&mut self, conn: ConnId, peer: PeerIx, m: &InfoRequest) -> Result<(), Refused> {
        let media = self.names.media(&m.path).and_then(|ix| self.board.media.get(&ix));
        let Some(media) = media else { return Err(self.absent(&m.path)) };
        let contribution = self.board.peers.get(&peer).map(|p| p.contribution).unwrap_or_default();
        let answer = InfoAnswer {
            request: m.request,
            manifest: media.manifest.signed().clone(),
            listeners: media.listeners(),
            hits: media.hits,
            complete: media.holders(),
            sent: contribution.sent,
            received: contribution.received,
            alternatives: Vec::new(),
            head: media.live.as_ref().and_then(|l| l.head()).map(|h| Box::new(h.signed().clone())),
        };
        self.send(conn, answer);
        Ok(())
    }
}

/// Cuts a text at the limit of texts on the wire.
pub(crate) fn truncated(mut text: String) -> String {
    if text.len() > icet::limits::TEXT {
        let end = (0..=icet::limits::TEXT).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
        text.truncate(end);
    }
    text
}
