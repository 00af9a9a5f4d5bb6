//! Who keeps a place at the server when places are short.
//!
//! Those stay who give in the swarm, who give most first; then those who have listened longest. As many listeners of one address count as
//! givers as there are peers that give from there, since many may stand behind it. Nobody is sent away as long as there are
//! places, nor when the tracker does not say who gives.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::time::Duration;

use icet::Now;
use icet::message::Guidance;
use serde::Serialize;

use crate::admin::Listener;

/// A newcomer has so long until it is looked at: the peer that gives for it may start at the same moment.
pub const GRACE: Duration = Duration::from_secs(5);
/// Who was sent away gets no grace again for so long.
pub const REMEMBERED: Duration = Duration::from_secs(60);
/// Addresses that are remembered.
const MOST: usize = 10_000;

/// What an address gives in the swarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Giver {
    /// Peers there.
    pub peers: u64,
    /// Bytes that they sent, as far as the tracker could confirm it.
    pub sent: u64,
    /// How much the one counts that counts most: thousandths of a newcomer.
    pub weight: u32,
}

/// What the tracker says of a media's swarm.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Swarm {
    /// Peers that listen there.
    pub listeners: u64,
    /// Joins so far.
    pub hits: u64,
    /// The addresses asked for.
    pub asked: HashSet<IpAddr>,
    /// Who gives, of them.
    pub givers: HashMap<IpAddr, Giver>,
}

impl Swarm {
    /// From the answer to a question about `addresses`.
    #[must_use]
    pub fn new(answer: &Guidance, addresses: &[IpAddr]) -> Swarm {
        let giver = |g: &icet::message::Givers| {
            let ip = addresses.get(usize::try_from(g.index).ok()?)?;
            Some((*ip, Giver { peers: g.peers, sent: g.sent, weight: g.weight }))
        };
        Swarm {
            listeners: answer.listeners,
            hits: answer.hits,
            asked: addresses.iter().copied().collect(),
            givers: answer.givers.iter().filter_map(giver).collect(),
        }
    }
}

/// What becomes of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It gives in the swarm, and has a place.
    Gives,
    /// There is a place for it.
    Place,
    /// It has just come.
    New,
    /// There is no place, but the tracker does not say who gives: nobody is sent away.
    Unguided,
    /// There is no place for it: others give, or give more, or were there before.
    Away,
}

impl Verdict {
    /// For people, as the end of a sentence about a listener.
    #[must_use]
    pub fn because(self) -> &'static str {
        match self {
            Verdict::Gives => "stays: gives in the swarm",
            Verdict::Place => "stays: there is a place",
            Verdict::New => "stays: has just come",
            Verdict::Unguided => "stays: the tracker does not say who gives",
            Verdict::Away => "is sent away: gives nothing in the swarm that would keep a place",
        }
    }
}

/// A listener and what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Who.
    pub listener: Listener,
    /// What the listener's address gives; none: nothing, or others of that address are counted for it.
    pub giver: Option<Giver>,
    /// What becomes of it.
    pub verdict: Verdict,
}

/// The decisions of one mount, and whom it sent away lately.
#[derive(Debug, Clone, Default)]
pub struct Guide {
    away: BTreeMap<IpAddr, Now>,
}

impl Guide {
    /// Decides on all listeners of a mount, the most deserving first. `limit`: places; none: as many as come. `swarm`: what the tracker says; none: it
    /// says nothing.
    pub fn decide(
        &mut self,
        now: Now,
        limit: Option<usize>,
        swarm: Option<&Swarm>,
        listeners: &[Listener],
    ) -> Vec<Decision> {
        self.away.retain(|_, at| now.since(*at) < REMEMBERED);
        let mut all = listeners.to_vec();
        // Of one address, who came first counts first.
        all.sort_by_key(|l| (std::cmp::Reverse(l.connected), l.id));
        let mut left: HashMap<IpAddr, u64> =
            swarm.iter().flat_map(|s| &s.givers).map(|(ip, g)| (*ip, g.peers)).collect();
        let mut decisions: Vec<Decision> = all
            .into_iter()
            .map(|listener| {
                let giver = swarm.and_then(|s| s.givers.get(&listener.ip).copied());
                let giver = giver.filter(|_| {
                    let left = left.entry(listener.ip).or_default();
                    let counts = *left > 0;
                    *left = left.saturating_sub(1);
                    counts
                });
                Decision { listener, giver, verdict: Verdict::Away }
            })
            .collect();
        // Weights in coarse steps, so that nobody loses a place over a hair.
        let merit = |d: &Decision| d.giver.map_or((0, 0), |g| (1, g.weight / 250));
        decisions.sort_by_key(|d| std::cmp::Reverse(merit(d)));
        let short = limit.is_some_and(|n| decisions.len() > n);
        for (i, d) in decisions.iter_mut().enumerate() {
            let has_place = limit.is_none_or(|n| i < n);
            d.verdict = if swarm.is_none() && short {
                Verdict::Unguided
            } else if has_place {
                if d.giver.is_some() { Verdict::Gives } else { Verdict::Place }
            } else if d.listener.connected < GRACE && !self.away.contains_key(&d.listener.ip) {
                Verdict::New
            } else {
                Verdict::Away
            };
        }
        for d in decisions.iter().filter(|d| d.verdict == Verdict::Away) {
            if self.away.len() < MOST || self.away.contains_key(&d.listener.ip) {
                self.away.insert(d.listener.ip, now);
            }
        }
        decisions
    }

    /// Whether somebody who comes from `ip` would find a place, after the last `decisions`: one is free, or who stands there gives and another one does not.
    #[must_use]
    pub fn has_place(
        &self,
        ip: IpAddr,
        limit: Option<usize>,
        swarm: Option<&Swarm>,
        decisions: &[Decision],
    ) -> bool {
        let Some(limit) = limit else { return true };
        let stay = decisions.iter().filter(|d| d.verdict != Verdict::Away);
        let (taken, give) = stay.fold((0, 0), |(n, g), d| (n + 1, g + usize::from(d.giver.is_some())));
        let Some(swarm) = swarm else { return true };
        let counted = decisions.iter().filter(|d| d.listener.ip == ip && d.giver.is_some()).count();
        let gives = swarm.givers.get(&ip).is_some_and(|g| g.peers > counted as u64);
        taken < limit || (gives && give < limit)
    }
}

/// The addresses of listeners, each once, in the order in which they stand.
#[must_use]
pub fn addresses(listeners: &[Listener]) -> Vec<IpAddr> {
    let mut seen = HashSet::new();
    listeners.iter().map(|l| l.ip).filter(|ip| seen.insert(*ip)).collect()
}

#[cfg(test)]
mod tests {
    use icet::message::Givers;

    use super::*;

    fn ip(n: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, n])
    }

    fn listener(id: u64, from: u8, connected: u64) -> Listener {
        Listener { id, ip: ip(from), agent: "player".to_owned(), connected: Duration::from_secs(connected) }
    }

    fn swarm(givers: &[(u8, u64, u32)]) -> Swarm {
        let giver =
            |(n, peers, weight): &(u8, u64, u32)| (ip(*n), Giver { peers: *peers, sent: 0, weight: *weight });
        Swarm { listeners: 3, hits: 9, asked: HashSet::new(), givers: givers.iter().map(giver).collect() }
    }

    fn at(s: u64) -> Now {
        Now::from_origin(Duration::from_secs(s))
    }

    fn away(decisions: &[Decision]) -> Vec<u64> {
        let mut ids: Vec<_> =
            decisions.iter().filter(|d| d.verdict == Verdict::Away).map(|d| d.listener.id).collect();
        ids.sort_unstable();
        ids
    }

    #[test]
    fn of_eight_for_five_places_those_stay_who_give_and_then_who_was_first() {
        let all: Vec<_> = (1..=8).map(|n| listener(n, u8::try_from(n).unwrap(), 100 - n)).collect();
        let s = swarm(&[(6, 1, 1000), (7, 1, 1000), (8, 1, 1900)]);
        let decisions = Guide::default().decide(at(0), Some(5), Some(&s), &all);
        assert_eq!(away(&decisions), [3, 4, 5]);
        assert_eq!(decisions[0].listener.id, 8, "who gives most comes first");
        assert_eq!(decisions.iter().filter(|d| d.verdict == Verdict::Gives).count(), 3);
        // With places for all, all stay, whatever they give.
        assert!(away(&Guide::default().decide(at(0), Some(8), Some(&s), &all)).is_empty());
        assert!(away(&Guide::default().decide(at(0), None, Some(&s), &all)).is_empty());
    }

    #[test]
    fn nobody_is_sent_away_while_the_tracker_is_silent() {
        let all: Vec<_> = (1..=8).map(|n| listener(n, 1, 100)).collect();
        let decisions = Guide::default().decide(at(0), Some(5), None, &all);
        assert!(decisions.iter().all(|d| d.verdict == Verdict::Unguided));
    }

    #[test]
    fn one_peer_behind_an_address_keeps_one_place() {
        let all = [listener(1, 9, 50), listener(2, 9, 60), listener(3, 9, 40), listener(4, 5, 99)];
        let decisions = Guide::default().decide(at(0), Some(2), Some(&swarm(&[(9, 1, 1000)])), &all);
        assert_eq!(
            away(&decisions),
            [1, 3],
            "the first of that address, and who was there before the others"
        );
        let decisions = Guide::default().decide(at(0), Some(2), Some(&swarm(&[(9, 2, 1000)])), &all);
        assert_eq!(away(&decisions), [3, 4]);
    }

    #[test]
    fn who_has_just_come_has_a_moment_but_not_each_time() {
        let mut guide = Guide::default();
        let s = swarm(&[]);
        let all = |c| [listener(1, 1, 50), listener(2, 2, c)];
        assert!(away(&guide.decide(at(0), Some(1), Some(&s), &all(0))).is_empty());
        assert_eq!(away(&guide.decide(at(5), Some(1), Some(&s), &all(5))), [2]);
        // It comes again at once, and a minute later.
        assert_eq!(away(&guide.decide(at(6), Some(1), Some(&s), &all(0))), [2]);
        assert!(away(&guide.decide(at(67), Some(1), Some(&s), &all(0))).is_empty());
    }

    #[test]
    fn weights_that_differ_by_a_hair_change_nothing() {
        let all = [listener(1, 1, 50), listener(2, 2, 40)];
        let s = swarm(&[(1, 1, 1010), (2, 1, 1060)]);
        assert_eq!(away(&Guide::default().decide(at(0), Some(1), Some(&s), &all)), [2]);
        let s = swarm(&[(1, 1, 1010), (2, 1, 1800)]);
        assert_eq!(away(&Guide::default().decide(at(0), Some(1), Some(&s), &all)), [1]);
    }

    #[test]
    fn a_giver_finds_a_place_where_another_one_gives_nothing() {
        let mut guide = Guide::default();
        let s = swarm(&[(1, 1, 1000), (3, 1, 1000)]);
        let all = [listener(1, 1, 50), listener(2, 2, 40)];
        let decisions = guide.decide(at(0), Some(2), Some(&s), &all);
        let has = |n, limit| guide.has_place(ip(n), limit, Some(&s), &decisions);
        assert!(has(3, Some(2)) && !has(4, Some(2)) && has(4, Some(3)) && has(4, None));
        assert!(!has(1, Some(2)), "its peer counts for who listens already");
        assert!(guide.has_place(ip(4), Some(2), None, &decisions), "nobody knows");
    }

    #[test]
    fn guidance_names_addresses_by_their_place_in_the_question() {
        let givers = |index| Givers { index, peers: 1, sent: 7, weight: 1000 };
        let answer = Guidance { request: 1, listeners: 4, hits: 6, givers: vec![givers(1), givers(5)] };
        let s = Swarm::new(&answer, &[ip(1), ip(2)]);
        assert_eq!(s.givers.keys().collect::<Vec<_>>(), [&ip(2)], "what was not asked for is nobody");
        assert_eq!(addresses(&[listener(1, 2, 0), listener(2, 1, 0), listener(3, 2, 0)]), [ip(2), ip(1)]);
    }
}
