//! Packets on their way, what becomes of them, and when to probe (RFC 9002, section 6).

use std::collections::VecDeque;
use std::time::Duration;

use iceshare::icet::Now;

use super::control::Control;
use super::rtt::Rtt;
use crate::wire::Ack;

/// A packet is lost when so many later ones were acknowledged (section 6.1.1).
const THRESHOLD: u64 = 3;
/// Probe timeouts double at most so often.
const BACKOFF: u32 = 6;

/// A packet that was sent and wants an acknowledgement.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) at: Now,
    pub(crate) size: usize,
    /// What it carried that must arrive.
    pub(crate) carried: Vec<Control>,
}

/// What an acknowledgement, or a timeout, says.
#[derive(Debug, Default)]
pub(crate) struct Fate {
    /// Arrived.
    pub(crate) acked: Vec<(u64, Sent)>,
    /// Lost.
    pub(crate) lost: Vec<(u64, Sent)>,
    /// Sent and acknowledged times of the largest that is newly acknowledged, for a sample of the round-trip time.
    pub(crate) sample: Option<(Now, Duration)>,
}

/// Packets on their way.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    /// Number of the first of `packets`.
    base: u64,
    packets: VecDeque<Option<Sent>>,
    bytes: u64,
    count: usize,
    largest_acked: Option<u64>,
    /// When the next one is lost.
    loss_at: Option<Now>,
    last_sent: Now,
    /// Probe timeouts since the last acknowledgement.
    probes: u32,
}

impl InFlight {
    /// Bytes on their way.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether an acknowledgement is awaited.
    pub(crate) fn is_waiting(&self) -> bool {
        self.count > 0
    }

    /// When the oldest packet that has no fate yet was sent.
    pub(crate) fn oldest(&self) -> Option<Now> {
        self.packets.iter().flatten().next().map(|s| s.at)
    }

    /// A packet was sent; `None`: it wants no acknowledgement.
    pub(crate) fn sent(&mut self, number: u64, packet: Option<Sent>) {
        if self.packets.is_empty() {
            self.base = number;
            if packet.is_none() {
                return;
            }
        }
        if let Some(p) = &packet {
            self.bytes += p.size as u64;
            self.count += 1;
            self.last_sent = p.at;
        }
        self.packets.push_back(packet);
    }

    fn take(&mut self, number: u64) -> Option<Sent> {
        let at = usize::try_from(number.checked_sub(self.base)?).ok()?;
        let sent = self.packets.get_mut(at)?.take()?;
        self.bytes -= sent.size as u64;
        self.count -= 1;
        Some(sent)
    }

    fn shrink(&mut self) {
        while let Some(None) = self.packets.front() {
            self.packets.pop_front();
            self.base += 1;
        }
    }

    /// What an acknowledgement says. `next`: the number that was not sent yet; `Err`: it speaks of packets never sent.
    pub(crate) fn acked(&mut self, now: Now, ack: &Ack, rtt: &mut Rtt, next: u64) -> Result<Fate, ()> {
        let mut fate = Fate::default();
        let Some(&(_, largest)) = ack.ranges.first() else { return Err(()) };
        if largest >= next {
            return Err(());
        }
        let end = self.base + self.packets.len() as u64;
        for &(first, last) in &ack.ranges {
            for number in first.max(self.base)..(last + 1).min(end) {
                if let Some(sent) = self.take(number) {
                    if number == largest {
                        fate.sample = Some((sent.at, Duration::from_micros(ack.delay)));
                    }
                    fate.acked.push((number, sent));
                }
            }
        }
        if fate.acked.is_empty() {
            return Ok(fate);
        }
        fate.acked.sort_unstable_by_key(|(n, _)| *n);
        self.largest_acked = self.largest_acked.max(Some(largest));
        self.probes = 0;
        if let Some((at, delay)) = fate.sample {
            rtt.sample(now.since(at), delay);
        }
        self.shrink();
        fate.lost = self.lost(now, rtt);
        Ok(fate)
    }

    /// Takes out what is lost by now.
    pub(crate) fn lost(&mut self, now: Now, rtt: &Rtt) -> Vec<(u64, Sent)> {
        self.loss_at = None;
        let (Some(largest), delay) = (self.largest_acked, rtt.loss_delay()) else { return Vec::new() };
        let mut lost = Vec::new();
        // In order of sending: the first that is not lost ends the search.
        let mut at = 0;
        while let Some(packet) = self.packets.get(at) {
            let number = self.base + at as u64;
            at += 1;
            let Some(sent) = packet else { continue };
            if number > largest {
                break;
            }
            if number + THRESHOLD > largest && sent.at + delay > now {
                self.loss_at = Some(sent.at + delay);
                break;
            }
            if let Some(sent) = self.take(number) {
                lost.push((number, sent));
            }
        }
        self.shrink();
        lost
    }

    /// When to look for losses.
    pub(crate) fn loss_at(&self) -> Option<Now> {
        self.loss_at
    }

    /// When to probe.
    pub(crate) fn probe_at(&self, rtt: &Rtt) -> Option<Now> {
        let timeout = rtt.probe_timeout() * 2u32.pow(self.probes.min(BACKOFF));
        (self.count > 0 && self.loss_at.is_none()).then(|| self.last_sent + timeout)
    }

    /// A probe timeout passed: what the packets on their way carry, so that it is said again.
    pub(crate) fn probe(&mut self) -> Vec<Control> {
        self.probes += 1;
        self.packets.iter().flatten().flat_map(|s| s.carried.iter().copied()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ack(ranges: &[(u64, u64)]) -> Ack {
        Ack { ranges: ranges.to_vec(), delay: 0 }
    }

    fn numbers(list: &[(u64, Sent)]) -> Vec<u64> {
        list.iter().map(|(n, _)| *n).collect()
    }

    fn flight(n: u64) -> InFlight {
        let mut f = InFlight::default();
        for number in 0..n {
            f.sent(
                number,
                Some(Sent { at: Now(number * 1000), size: 100, carried: vec![Control::Stop(number)] }),
            );
        }
        f
    }

    #[test]
    fn three_later_ones_make_a_packet_lost_and_time_does_too() {
        let (mut f, mut rtt) = (flight(10), Rtt::default());
        let fate = f.acked(Now(100_000), &ack(&[(4, 4), (0, 0)]), &mut rtt, 10).unwrap();
        assert_eq!((numbers(&fate.acked), numbers(&fate.lost)), (vec![0, 4], vec![1]));
        assert_eq!(f.bytes(), 700);
        assert_eq!(rtt.smoothed(), Duration::from_micros(96_000));
        // Packet 2, sent at 2 ms, is lost 9/8 of 96 ms later.
        assert_eq!(f.loss_at(), Some(Now(110_000)));
        assert_eq!(numbers(&f.lost(Now(110_000), &rtt)), [2]);
        assert_eq!(numbers(&f.lost(Now(111_000), &rtt)), [3]);
        assert_eq!((f.loss_at(), f.is_waiting()), (None, true));
        let fate = f.acked(Now(120_000), &ack(&[(0, 9)]), &mut rtt, 10).unwrap();
        assert_eq!(numbers(&fate.acked), [5, 6, 7, 8, 9]);
        assert_eq!((f.bytes(), f.is_waiting(), f.packets.len()), (0, false, 0));
    }

    #[test]
    fn nobody_can_acknowledge_what_was_not_sent() {
        let (mut f, mut rtt) = (flight(3), Rtt::default());
        assert!(f.acked(Now(5000), &ack(&[(0, 3)]), &mut rtt, 3).is_err());
        assert!(f.acked(Now(5000), &ack(&[(0, 2)]), &mut rtt, 3).is_ok_and(|f| f.acked.len() == 3));
        assert!(f.acked(Now(5000), &ack(&[(0, 2)]), &mut rtt, 3).is_ok_and(|f| f.acked.is_empty()));
    }

    #[test]
    fn probes_back_off_and_say_again_what_is_on_its_way() {
        let (mut f, rtt) = (flight(2), Rtt::default());
        let first = f.probe_at(&rtt).unwrap();
        assert_eq!(f.probe(), [Control::Stop(0), Control::Stop(1)]);
        let second = f.probe_at(&rtt).unwrap();
        assert_eq!(second.since(Now(1000)), first.since(Now(1000)) * 2);
        for _ in 0..20 {
            f.probe();
        }
        assert!(f.probe_at(&rtt).unwrap().since(Now(0)) < Duration::from_secs(70));
    }

    #[test]
    fn acknowledgements_alone_leave_nothing_behind() {
        let mut f = InFlight::default();
        for number in 0..10_000 {
            f.sent(number, None);
        }
        assert_eq!((f.packets.len(), f.is_waiting()), (0, false));
        f.sent(10_000, Some(Sent { at: Now(5), size: 50, carried: Vec::new() }));
        let fate = f.acked(Now(9), &ack(&[(10_000, 10_000)]), &mut Rtt::default(), 10_001).unwrap();
        assert_eq!(numbers(&fate.acked), [10_000]);
    }
}
