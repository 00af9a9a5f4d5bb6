//! Who is believed and who is blamed: what a report says of a host, whom a receiver is not sent to for a while, and
//! accusations.

use std::time::Duration;

use icet::message::{Need, Outcome, Report};
use icet::{Abilities, Now, Scope};

use super::Nearness;
use super::board::{Board, MediaIx, PeerIx};
use super::conduct::{ACCUSATIONS, COMPLAINTS, MINUTE, REMEMBERED};
use super::learn::Sample;
use super::media::Voice;
use super::peer::{Avoided, DISTRUST};
use super::reach;

/// How long a receiver is not sent again to a host that failed it.
const AVOID: Duration = Duration::from_secs(10);
/// The same if it dripped, or failed again when it was tried anew.
const AVOID_DRIPS: Duration = Duration::from_secs(60);
/// Bytes a second below which a host drips, and seconds after which that can be told.
const DRIP: (f64, f64) = (512.0, 0.9);
/// Who was overtaken had so many seconds to send something.
const OVERTAKEN: f64 = 2.0;
/// The same of one that had not begun to send, nor sent anything to anybody else.
const MUTE: f64 = 0.6;
/// Carriers over which a host failed a receiver, and nothing came since, until it is left alone as a whole.
const DARK: usize = 2;
/// The same of a publisher, who may be the only one to have the pages.
const AVOID_PUBLISHER: Duration = Duration::from_secs(2);
/// The same if all that was sent may have been lost on the way.
const AVOID_LOSSY: Duration = Duration::from_secs(1);
/// The same after an altered page.
const AVOID_ALTERED: Duration = Duration::from_secs(3600);
/// Addresses that found less than a host said it had, if they are more than those that found it, until its map is not
/// believed; how long they are remembered, and how many.
const BLAMES: usize = 3;
const VOICE: Duration = Duration::from_secs(60);
const VOICES: usize = 32;
/// Who says of more than such a part of a media that it lost it is no witness of who sent it.
const DISOWNED: u64 = 32;
/// Bytes of a fetch from which on its rate says something, and seconds from which on it does however few they were.
const TELLS: (u64, f64) = (16 << 10, 1.0);

impl Board {
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn judge(
        &mut self,
        now: Now,
        by: PeerIx,
        host: PeerIx,
        proto: super::learn::ProtoIx,
        media: MediaIx,
        report: &Report,
        bytes: u64,
    ) {
        let drips = self.drips(now, media, host, report);
        let outcome =
            if drips || self.is_mute(now, host, report) { Outcome::Stalled } else { report.outcome };
        let failed = outcome.is_failure();
        let Some(reporter) = self.peers.get_mut(&by) else { return };
        reporter.told = now;
        let live = self.media.get(&media).is_none_or(|m| m.live.is_some());
        if !live && self.did_not_meet(now, media, (host, proto), by, report) {
            return;
        }
        let Some(reporter) = self.peers.get_mut(&by) else { return };
        let mut weight = reporter.trust(now);
        if failed && reporter.avoid.iter().any(|a| a.host == host && a.dark && a.proto != proto) {
            // It is the host: that says nothing of a further protocol, nor of who complains.
            weight = 0.0;
        } else if failed {
            if reporter.conduct.complaints.now(now, MINUTE) >= COMPLAINTS {
                weight = 0.0;
            }
            reporter.conduct.complaints.add(now, MINUTE, 1.0);
        }
        let seconds = f64::from(report.total.max(1)) / 1000.0;
        // Little that came in little time says nothing of a rate; what took long was slow, however little it was.
        let tells = bytes >= TELLS.0 || bytes > 0 && seconds >= TELLS.1;
        // Who was overtaken by somebody else did not fail, but if that took long it was slow.
        if (outcome != Outcome::Stopped || seconds >= TELLS.1 && tells) && weight > 0.0 {
            let sample = Sample {
                ok: (outcome != Outcome::Stopped).then_some(!failed),
                weight,
                rate: tells.then(|| bytes as f64 / seconds),
                first: report.first_byte.map(|ms| f64::from(ms) / 1000.0),
            };
            let near = self.nearness(host, by);
            let arm = self
                .peers
                .get_mut(&host)
                .and_then(|h| h.offers.iter_mut().find(|o| o.proto == proto))
                .map(|o| &mut o.arm);
            self.protocols.learn(now, proto, near, arm, sample);
        }
        if let Some(h) = self.peers.get_mut(&host).filter(|_| drips && weight > 0.1) {
            h.up.disappoint(now);
        }
        // A protocol without order loses some on the way, and that says little of what the host holds: the rest is
        // worth another request there, at once as long as each brings something.
        let lossy = report.outcome == Outcome::Incomplete && !self.is_ordered(host, proto);
        let pause = match report.outcome {
            Outcome::Altered => AVOID_ALTERED,
            _ if lossy && bytes > 0 => Duration::ZERO,
            _ if lossy => AVOID_LOSSY,
            _ => self.pause(media, host),
        };
        if matches!(outcome, Outcome::Unreachable | Outcome::Broken | Outcome::Stalled) {
            self.avoid_way(now, media, by, (host, proto), drips);
            self.suspect(now, host, by, outcome);
        } else if failed
            && !pause.is_zero()
            && let Some(m) = self.member_mut(media, by)
        {
            m.avoid(host, now, now + pause);
        }
        match report.outcome {
            Outcome::Altered => self.accuse(now, by, host),
            Outcome::Refused | Outcome::Incomplete if weight > 0.1 && !(lossy && bytes > 0) => {
                self.voice(now, media, by, host, false);
            }
            Outcome::Done if bytes > 0 && self.is_witness(media, by) => {
                self.voice(now, media, by, host, true)
            }
            _ => {}
        }
    }

    /// Whether a host began to send and then brought next to nothing, nor anything to anybody else meanwhile; also one that was
    /// overtaken before it was given up.
    fn drips(&self, now: Now, media: MediaIx, host: PeerIx, report: &Report) -> bool {
        // Live pages come at the pace of their source.
        if self.media.get(&media).is_none_or(|m| m.live.is_some()) {
            return false;
        }
        let Some(first) = report.first_byte else { return false };
        let seconds = f64::from(report.total.saturating_sub(first)) / 1000.0;
        let least = match report.outcome {
            Outcome::Stalled => DRIP.1,
            Outcome::Stopped => OVERTAKEN,
            _ => return false,
        };
        let sent = self.peers.get(&host).and_then(|h| h.sent);
        seconds >= least
            && (report.bytes as f64) < DRIP.0 * seconds
            && sent.is_none_or(|at| now.since(at).as_secs_f64() >= least)
    }

    /// Whether a host was overtaken before it said a word, and said none to anybody else.
    fn is_mute(&self, now: Now, host: PeerIx, report: &Report) -> bool {
        let sent = self.peers.get(&host).and_then(|h| h.sent);
        let overtaken = report.outcome == Outcome::Stopped && !report.last;
        overtaken
            && report.first_byte.is_none()
            && f64::from(report.total) / 1000.0 >= MUTE
            && sent.is_none_or(|at| now.since(at).as_secs_f64() >= MUTE)
    }

    pub(super) fn nearness(&self, a: PeerIx, b: PeerIx) -> Nearness {
        match (self.peers.get(&a), self.peers.get(&b)) {
            (Some(a), Some(b)) => Nearness::of(a.ip(), b.ip()),
            _ => Nearness::Elsewhere,
        }
    }

    /// Nothing came over one way to a host: others may pass.
    pub(super) fn avoid_way(
        &mut self,
        now: Now,
        media: MediaIx,
        receiver: PeerIx,
        (host, proto): (PeerIx, super::learn::ProtoIx),
        drips: bool,
    ) {
        let least = self.pause(media, host);
        let long = if least < AVOID { least } else { AVOID_DRIPS };
        let Some(r) = self.peers.get_mut(&receiver) else { return };
        r.avoid((host, proto), now, now + least, now + long, drips);
        // Over one carrier may not pass what does over another; over two it is the host.
        let dark: Vec<_> = self.peers.get(&receiver).map_or_else(Vec::new, |r| {
            r.avoid.iter().filter(|a| a.host == host && a.dark).map(|a| a.proto).collect()
        });
        let mut over: Vec<_> = dark.iter().map(|p| self.carrier(host, *p).ok_or(*p)).collect();
        over.sort_unstable();
        over.dedup();
        if over.len() >= DARK && least >= AVOID {
            let m = self.member_mut(media, receiver);
            m.into_iter().for_each(|m| m.avoid(host, now, now + AVOID));
        } else if self.route(now, host, receiver, Need::Urgent, 64 << 10).is_none() {
            self.try_again(now, receiver, host, proto);
        } else if least < AVOID {
            let r = self.peers.get_mut(&receiver);
            r.into_iter().for_each(|r| r.avoid((host, proto), now, now + AVOID, now + AVOID, drips));
        }
    }

    /// No way to a host is left, now that `proto` failed: what failed over another carrier before is as good again, unless that
    /// was just now.
    fn try_again(&mut self, now: Now, receiver: PeerIx, host: PeerIx, proto: super::learn::ProtoIx) {
        let carrier = self.carrier(host, proto);
        let Some(r) = self.peers.get(&receiver) else { return };
        let passes = |a: &Avoided| carrier.is_none() || self.carrier(host, a.proto) != carrier;
        let others = r.avoid.iter().filter(|a| a.host == host && now.since(a.since) >= AVOID_PUBLISHER);
        let again: Vec<_> = others.filter(|a| passes(a)).map(|a| a.proto).collect();
        if let Some(r) = self.peers.get_mut(&receiver) {
            r.avoid.retain(|a| a.host != host || !again.contains(&a.proto));
        }
    }

    /// How long a receiver is not sent again to a host that failed it.
    fn pause(&self, media: MediaIx, host: PeerIx) -> Duration {
        let publisher = self.media.get(&media).is_some_and(|m| m.is_publisher(host));
        if publisher { AVOID_PUBLISHER } else { AVOID }
    }

    fn is_ordered(&self, host: PeerIx, proto: super::learn::ProtoIx) -> bool {
        let offer = self.peers.get(&host).and_then(|h| h.offers.iter().find(|o| o.proto == proto));
        offer.is_none_or(|o| o.offer.abilities.has(Abilities::ORDERED))
    }

    /// Whether what a member says it got counts for who sent it: not if it says of much of it that it lost it.
    pub(super) fn is_witness(&self, media: MediaIx, receiver: PeerIx) -> bool {
        let most = self.media.get(&media).map_or(0, |m| m.pages() / DISOWNED);
        self.member(media, receiver).is_none_or(|m| m.disowned <= most)
    }

    /// `by` found at `host` what it said it had, or did not. Each address has one voice: else a few who praise each other would
    /// outvote all others.
    fn voice(&mut self, now: Now, media: MediaIx, by: PeerIx, host: PeerIx, good: bool) {
        let Some(from) = self.peers.get(&by).map(super::peer::Peer::ip) else { return };
        let Some(m) = self.media.get_mut(&media) else { return };
        let Some(member) = m.members.get_mut(&host) else { return };
        let public = Scope::of(from) == Scope::Public;
        let same = |v: &Voice| v.by == by || public && v.from == from;
        member.voices.retain(|v| !same(v) && now.since(v.at) < VOICE);
        if member.voices.len() >= VOICES {
            member.voices.remove(0);
        }
        member.voices.push(Voice { by, from, good, at: now });
        let bad = member.voices.iter().filter(|v| !v.good).count();
        if bad >= BLAMES && 2 * bad > member.voices.len() {
            m.distrust(host);
        }
    }

    /// `by` got an altered page from `host`. One voice weighs little: it may lie. Another one from elsewhere is decisive. Who
    /// accuses many weighs nothing.
    fn accuse(&mut self, now: Now, by: PeerIx, host: PeerIx) {
        let Some(reporter) = self.peers.get_mut(&by) else { return };
        let spent = reporter.conduct.accused.now(now, DISTRUST) >= ACCUSATIONS;
        reporter.conduct.accused.add(now, DISTRUST, 1.0);
        let (key, ip, trust) = (reporter.key, reporter.ip(), reporter.trust(now));
        let Some(h) = self.peers.get_mut(&host) else { return };
        h.conduct.accusers.retain(|(_, _, at)| now.since(*at) < REMEMBERED);
        let heard = h.conduct.accusers.iter().any(|(k, from, _)| *k == key || reach::neighbours(*from, ip));
        if spent || heard || h.conduct.accusers.len() >= 16 {
            return;
        }
        let alone = h.conduct.accusers.is_empty();
        h.conduct.accusers.push((key, ip, now));
        h.conduct.distrust.add(now, DISTRUST, trust * if alone { 0.5 } else { 2.0 });
        for media in h.media.iter().copied().take(64).collect::<Vec<_>>() {
            self.refresh(now, media, host);
        }
    }
}
