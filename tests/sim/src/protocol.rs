//! Payload protocols of a simulation: what each does to a transfer, and what was asked for over each when.

use std::time::Duration;

use icet::Now;
use icet::message::Need;

/// Bytes of a packet.
const PACKET: f64 = 1460.0;
/// Least time, in seconds, after which a sender repeats what was not acknowledged.
const LEAST_TIMEOUT: f64 = 0.2;
/// How long the parts are in which requests are counted.
pub(crate) const PART: Duration = Duration::from_millis(500);

/// One payload protocol, as the network treats it.
#[derive(Debug, Clone, PartialEq)]
pub struct Protocol {
    /// Its name.
    pub name: String,
    /// Share of its packets that are lost, beside what lines lose: from the time on, in its order.
    pub loss: Vec<(Duration, f64)>,
    /// Bytes a second that a host's processor sends over it at most; 0: any.
    pub processor: f64,
    /// Round trips before the first request to a host.
    pub rounds: u32,
    /// Whether it comes over UDP instead of TCP.
    pub udp: bool,
    /// Share of pairs behind NATs that meet over it, by a relay that both use; 0: it needs addresses of hosts.
    pub punches: f64,
}

impl Protocol {
    /// One that loses nothing and costs nothing.
    #[must_use]
    pub fn named(name: &str) -> Protocol {
        Protocol {
            name: name.to_owned(),
            loss: Vec::new(),
            processor: 0.0,
            rounds: 1,
            udp: false,
            punches: 0.0,
        }
    }

    /// Share of its packets that are lost now.
    pub(crate) fn loss_at(&self, now: Now) -> f64 {
        let begun = |at: &Duration| Now::ZERO + *at <= now;
        self.loss.iter().rev().find(|(at, _)| begun(at)).map_or(0.0, |(_, loss)| *loss)
    }
}

/// Bytes a second of a connection with TCP's congestion control, with a round trip in seconds and a share of packets lost
/// (Padhye et al. 1998, equation 30, each packet acknowledged).
pub(crate) fn throughput(round: f64, loss: f64) -> f64 {
    let round = round.max(1e-4);
    let timeout = (2.0 * round).max(LEAST_TIMEOUT);
    let often = (3.0 * (3.0 * loss / 8.0).sqrt()).min(1.0);
    let repeats = timeout * often * loss * (1.0 + 32.0 * loss * loss);
    PACKET / (round * (2.0 * loss / 3.0).sqrt() + repeats)
}

/// Pages asked for in a part of a run over a protocol, and those that could have been.
#[derive(Debug, Clone, Copy, Default)]
struct Asked {
    over: u64,
    of: u64,
}

/// All that was asked for where there was a choice of protocols: by part, by protocol, urgent pages and others.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    parts: Vec<Vec<[Asked; 2]>>,
}

impl Requests {
    /// Pages are asked for over a protocol; `common`: those that both ends speak, a bit each.
    pub(crate) fn add(&mut self, now: Now, protocol: usize, common: u32, need: Need, pages: u64) {
        let part = usize::try_from(now.since(Now::ZERO).as_millis() / PART.as_millis()).unwrap_or(usize::MAX);
        if part >= self.parts.len() {
            self.parts.resize(part + 1, Vec::new());
        }
        let all = &mut self.parts[part];
        let kind = usize::from(need != Need::Urgent);
        for i in (0..32).filter(|i| common >> i & 1 == 1) {
            if i >= all.len() {
                all.resize(i + 1, [Asked::default(); 2]);
            }
            all[i][kind].of += pages;
            all[i][kind].over += if i == protocol { pages } else { 0 };
        }
    }

    /// Pages asked for over a protocol and those that could have been, urgent ones (0) or others (1), in `from .. to`.
    pub(crate) fn between(&self, from: Duration, to: Duration, protocol: usize, kind: usize) -> (u64, u64) {
        let index = |d: Duration| usize::try_from(d.as_millis() / PART.as_millis()).unwrap_or(usize::MAX);
        let to = index(to).min(self.parts.len());
        let some = self.parts.get(index(from).min(to)..to).unwrap_or_default();
        let of = some.iter().filter_map(|p| p.get(protocol)).map(|p| p[kind]);
        of.fold((0, 0), |(over, of), a| (over + a.over, of + a.of))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn throughput_falls_with_loss_as_that_of_tcp() {
        // Little loss: the formula of Mathis et al.
        let mathis = 1.2247 * PACKET / (0.05 * 0.0001_f64.sqrt());
        assert!((throughput(0.05, 0.0001) / mathis - 1.0).abs() < 0.01);
        // Much: time-outs.
        assert!((4e3..8e3).contains(&throughput(0.05, 0.3)), "{}", throughput(0.05, 0.3));
    }

    #[test]
    fn loss_changes_when_it_is_said_to() {
        let at = Duration::from_secs;
        let p = Protocol { loss: vec![(at(10), 0.3), (at(20), 0.0)], ..Protocol::named("a") };
        let losses = [0, 10, 19, 20].map(|s| p.loss_at(Now::ZERO + at(s)));
        assert_eq!(losses, [0.0, 0.3, 0.3, 0.0]);
    }
}
