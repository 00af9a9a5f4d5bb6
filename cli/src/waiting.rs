//! Why nothing comes, and what to do about it, in a sentence.

use iceshare::icet::message::Shortage;
use iceshare::{FetchFailure, Media};

use crate::config::Settings;
use crate::escape::printable;
use crate::failure::whole;
use crate::transports;

/// Failures that are told.
const FAILURES: usize = 2;
/// Of a failure so much is told.
const LONG: usize = 400;

/// Payload protocols, by name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Protocols {
    /// Those that this run uses.
    mine: Vec<String>,
    /// Those of this build.
    linked: Vec<String>,
}

impl Protocols {
    pub(crate) fn of(settings: &Settings) -> Protocols {
        let linked =
            transports::registry().map(|r| r.registrations().iter().map(|r| r.name.to_owned()).collect());
        let linked: Vec<String> = linked.unwrap_or_default();
        let mine = if settings.transport.is_empty() { linked.clone() } else { settings.transport.clone() };
        Protocols { mine, linked }
    }
}

/// What is known when nothing comes.
#[derive(Debug, Default)]
struct Known {
    tracker_is_away: bool,
    /// Of live media: then nothing comes while nothing is on the air, too.
    live: bool,
    /// Fetches under way.
    active: usize,
    shortage: Option<Shortage>,
    failures: Vec<FetchFailure>,
}

/// What stands in the way of a media; whether it is more than that somebody who was asked is slow.
pub(crate) fn reason(media: &Media, protocols: &Protocols) -> (String, bool) {
    let known = Known {
        tracker_is_away: media.tracker_is_away(),
        live: media.is_live(),
        active: media.progress().flows.values().filter(|f| f.active > 0).count(),
        shortage: media.shortage(),
        failures: media.failures(),
    };
    (known.text(protocols), known.active == 0 || known.tracker_is_away)
}

/// The same after the end of all patience: what was tried last counts, though it may be tried once more just now.
pub(crate) fn last_reason(media: &Media, protocols: &Protocols) -> String {
    let live = media.is_live();
    Known { live, shortage: media.shortage(), failures: media.failures(), ..Known::default() }.text(protocols)
}

fn hosts(n: u32) -> String {
    if n == 1 { "1 host has".to_owned() } else { format!("{n} hosts have") }
}

fn list(names: &[String], last: &str) -> String {
    match names {
        [] => "nothing".to_owned(),
        [one] => one.clone(),
        [all @ .., one] => format!("{} {last} {one}", all.join(", ")),
    }
}

impl Known {
    fn text(&self, protocols: &Protocols) -> String {
        if self.tracker_is_away {
            return "there is no session with the tracker; trying again".to_owned();
        }
        let failures = self.failures();
        if self.active > 0 {
            let before = if failures.is_empty() { failures } else { format!("; before: {failures}") };
            if self.live {
                let host = if self.active == 1 { "host is" } else { "hosts are" };
                return format!(
                    "{} {host} asked, but nothing comes: perhaps the broadcast pauses{before}",
                    self.active
                );
            }
            return format!("{} asked, but nothing comes{before}", self.active);
        }
        match &self.shortage {
            None if failures.is_empty() && self.live => {
                "nothing is on the air yet: the tracker has heard nothing of the broadcaster".to_owned()
            }
            None if failures.is_empty() => {
                "the tracker has ordered nothing more for us yet, and has not said why".to_owned()
            }
            None => format!("who was asked could not send: {failures}"),
            Some(s) if s.hosts == 0 && self.live => {
                "neither the broadcaster nor anybody else who has it is connected to the tracker now"
                    .to_owned()
            }
            Some(s) if s.hosts == 0 => {
                "nobody who has the missing pages is connected to the tracker now".to_owned()
            }
            Some(s) => {
                let mut parts = vec![format!(
                    "{} {}",
                    hosts(s.hosts),
                    if self.live { "the broadcast" } else { "the missing pages" }
                )];
                if s.unshared > 0 {
                    parts.push(unshared(s, protocols));
                }
                if s.unreachable > 0 {
                    let n =
                        if s.unreachable == s.hosts { "none".to_owned() } else { s.unreachable.to_string() };
                    let (but, not) = if s.unreachable == s.hosts { ("but ", "") } else { ("", "not ") };
                    parts.push(format!(
                        "{but}{n} can {not}be reached from here: behind a NAT or a firewall a host needs an open port, or a \
                         relay that both ends have set (and IPv4 and IPv6 do not meet)"
                    ));
                }
                if s.failed > 0 {
                    parts.push(format!("{} failed just now and will be tried again", s.failed));
                }
                let (unwilling, silent) = (s.unwilling.unwrap_or(0), s.silent.unwrap_or(0));
                if unwilling > 0 {
                    let what = "now: their users set a rate, hours, ceilings, networks or media";
                    parts.push(match unwilling == s.hosts {
                        true => format!("but none of them gives us any {what}"),
                        false => format!("{unwilling} of them giving us none {what}"),
                    });
                }
                if silent > 0 {
                    parts.push(match silent == s.hosts {
                        true => "but none of them answers the tracker now".to_owned(),
                        false => format!("{silent} not answering the tracker now"),
                    });
                }
                let others = [s.unshared, s.unreachable, s.failed, unwilling, silent];
                let rest = others.into_iter().fold(s.hosts, u32::saturating_sub);
                if rest > 0 {
                    parts.push(match self.live {
                        // While the source is silent nobody has anything new, however idle.
                        true => format!("{rest} with nothing new to send just now (perhaps the broadcast pauses), or busy with others"),
                        false => format!("{rest} busy with others"),
                    });
                }
                let parts = parts.join(", ");
                if failures.is_empty() { parts } else { format!("{parts}; {failures}") }
            }
        }
    }

    fn failures(&self) -> String {
        let one = |f: &FetchFailure| {
            let why: String = whole(&*f.error).chars().take(LONG).collect();
            format!("host {} over {}: {}", f.host.short(), f.protocol, printable(&why))
        };
        self.failures.iter().take(FAILURES).map(one).collect::<Vec<_>>().join("; ")
    }
}

/// That hosts lack our protocols, and which to choose.
fn unshared(s: &Shortage, protocols: &Protocols) -> String {
    let theirs: Vec<String> = s.protocols.iter().map(ToString::to_string).collect();
    let n = if s.unshared == s.hosts { "but none of them".to_owned() } else { s.unshared.to_string() };
    let speaks = if s.unshared == s.hosts { "speaks" } else { "of them without" };
    let here: Vec<String> = theirs.iter().filter(|n| protocols.linked.contains(n)).cloned().collect();
    let hint = if here.is_empty() {
        "; this iceshare has none of these".to_owned()
    } else {
        let all: Vec<_> = protocols.mine.iter().chain(&here).map(String::as_str).collect();
        format!(": try --transport {}", all.join(","))
    };
    let mine = list(&protocols.mine, "or");
    format!("{n} {speaks} {mine} (they speak {}){hint}", list(&theirs, "and"))
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;
    use std::time::Instant;

    use iceshare::icet::{MediaId, PeerKey};
    use iceshare::protocol::{ErrorKind, TransportError};

    use super::*;

    fn shortage(
        hosts: u32,
        unshared: u32,
        unreachable: u32,
        failed: u32,
        names: &[&str],
    ) -> Option<Shortage> {
        let protocols = names.iter().map(|n| n.parse().expect("a name")).collect();
        let (media, unwilling, silent) = (MediaId([1; 32]), None, None);
        Some(Shortage { media, hosts, unshared, unreachable, failed, protocols, unwilling, silent })
    }

    fn said(shortage: Option<Shortage>, failures: Vec<FetchFailure>) -> String {
        let names = |all: &[&str]| all.iter().map(|n| (*n).to_owned()).collect();
        let protocols = Protocols { mine: names(&["http", "quic"]), linked: names(&["http", "quic", "udp"]) };
        Known { shortage, failures, ..Known::default() }.text(&protocols)
    }

    fn failure() -> FetchFailure {
        let error = TransportError::new(ErrorKind::Unreachable, "no connection to 192.0.2.1:5")
            .because(io::Error::other("refused\x1b[1m"));
        let (host, protocol) = (PeerKey([9; 32]), "http".parse().expect("a name"));
        FetchFailure { host, protocol, error: Arc::new(error), at: Instant::now() }
    }

    #[test]
    fn people_learn_what_is_wrong_and_what_to_do() {
        assert_eq!(
            said(shortage(2, 2, 0, 0, &["udp"]), vec![]),
            "2 hosts have the missing pages, but none of them speaks http or quic (they speak udp): try --transport \
             http,quic,udp"
        );
        assert_eq!(
            said(shortage(1, 1, 0, 0, &["carrier"]), vec![]),
            "1 host has the missing pages, but none of them speaks http or quic (they speak carrier); this iceshare has none \
             of these"
        );
        assert_eq!(
            said(shortage(4, 1, 1, 1, &["udp"]), vec![failure()]),
            "4 hosts have the missing pages, 1 of them without http or quic (they speak udp): try --transport http,quic,udp, \
             1 can not be reached from here: behind a NAT or a firewall a host needs an open port, or a relay that both \
             ends have set (and IPv4 and IPv6 do not meet), 1 failed just now and will be tried again, 1 busy with others; host 09090909 over http: no \
             connection to 192.0.2.1:5: refused\\u{1b}[1m"
        );
        let of = |hosts, unwilling, silent| {
            shortage(hosts, 0, 0, 0, &[]).map(|s| Shortage { unwilling, silent, ..s })
        };
        assert_eq!(
            said(of(1, Some(1), None), vec![]),
            "1 host has the missing pages, but none of them gives us any now: their users set a rate, hours, ceilings, \
             networks or media"
        );
        assert_eq!(
            said(of(1, None, Some(1)), vec![]),
            "1 host has the missing pages, but none of them answers the tracker now"
        );
        assert_eq!(
            said(of(4, Some(1), Some(2)), vec![]),
            "4 hosts have the missing pages, 1 of them giving us none now: their users set a rate, hours, ceilings, \
             networks or media, 2 not answering the tracker now, 1 busy with others"
        );
        assert_eq!(
            said(shortage(0, 0, 0, 0, &[]), vec![]),
            "nobody who has the missing pages is connected to the tracker now"
        );
        assert!(said(None, vec![]).contains("has not said why"));
        assert!(said(None, vec![failure()]).ends_with("refused\\u{1b}[1m"));
        let live = Known { live: true, shortage: shortage(1, 0, 0, 0, &[]), ..Known::default() };
        assert_eq!(
            live.text(&Protocols::default()),
            "1 host has the broadcast, 1 with nothing new to send just now (perhaps the broadcast pauses), or busy with others"
        );
        let away = Known { tracker_is_away: true, ..Known::default() };
        assert!(away.text(&Protocols::default()).contains("no session with the tracker"));
    }
}
