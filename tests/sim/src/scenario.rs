//! Scenarios: what is shared, who comes, and what they do. The defaults are the standard crowd.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use icet::message::Intent;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

use crate::media::Pages;
use crate::net::{Conduct, Line};
use crate::peer::Spec;
use crate::play::Buffers;

/// Time that the publisher has before the crowd comes.
pub(crate) const PUBLISH: Duration = Duration::from_secs(1);
/// Bytes a second of a Mbit a second.
const MBIT: f64 = 125_000.0;

/// A run: everything that its outcome follows from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scenario {
    /// Its name; that of the file if empty.
    pub name: String,
    /// What it shows.
    pub about: String,
    /// Seed of all randomness.
    pub seed: u64,
    /// Virtual time at most; with churn or players: all of it.
    pub seconds: f64,
    /// What is shared.
    pub media: Media,
    /// Who publishes it.
    pub origin: Origin,
    /// Who comes.
    pub crowd: Crowd,
    /// Who goes.
    pub churn: Churn,
    /// What players do.
    pub play: Play,
    /// Payload protocols; none: one that neither loses nor costs anything.
    pub protocol: Vec<Protocol>,
    /// A broadcast, instead of a file.
    pub live: Live,
    /// When the tracker is dead.
    pub outage: Outage,
    /// The local rarest-first swarm beside it.
    pub yardstick: Yardstick,
}

/// What is shared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Media {
    /// Size in bytes.
    pub bytes: u64,
    /// Mean length of a page in bytes.
    pub page: u32,
    /// Rate at which it plays, in Mbit/s.
    pub mbit: f64,
}

/// Who publishes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Origin {
    /// Upload in Mbit/s.
    pub up: f64,
    /// Whether it gives only what nobody else can.
    pub once: bool,
}

/// Who comes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Crowd {
    /// How many.
    pub peers: usize,
    /// Seconds over which they arrive, evenly spread at random; 0: all at once.
    pub arrive: f64,
    /// Whether they play; if not, they want all of it.
    pub plays: bool,
    /// Download of each in Mbit/s.
    pub down: f64,
    /// Least and greatest round trip between two of them, in milliseconds.
    pub rtt: [f64; 2],
    /// Share of packets that each line loses.
    pub loss: f64,
    /// Whether they tell the tracker how fast their lines are.
    pub declares: bool,
    /// What kinds there are.
    pub class: Vec<Class>,
}

/// One kind of peers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Class {
    /// Its name, for figures.
    pub name: String,
    /// Its part in the crowd, as a weight.
    pub share: f64,
    /// Upload of each in Mbit/s.
    pub up: f64,
    /// Whether others reach them: not those behind a NAT or firewall that lets nobody in, but by protocols that punch.
    pub open: bool,
    /// Whether they offer to serve; free-riders do not.
    pub serves: bool,
    /// How they answer requests: `honest`, `alters` (sends altered pages), `mute` (takes requests, sends nothing), `colludes`
    /// (serves nobody, but says so of others who collude, as they do of it).
    pub conduct: Answers,
    /// Keys that each of them joins with, on one machine with one line and one disk.
    pub keys: usize,
    /// Seconds that they come later than others.
    pub later: f64,
    /// Names of the protocols that they speak; none: all.
    pub protocols: Vec<String>,
    /// Names of those that their NAT or firewall drops, in both directions.
    pub blocked: Vec<String>,
}

/// One payload protocol.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Protocol {
    /// Its name.
    pub name: String,
    /// Share of its packets that are lost beside what lines lose, as pairs of a second from which it holds and the share.
    pub loss: Vec<[f64; 2]>,
    /// Mbit a second that a host's processor can send over it; 0: any.
    pub processor: f64,
    /// Round trips before the first request to a host.
    pub rounds: Option<u32>,
    /// Whether it comes over UDP instead of TCP.
    pub udp: bool,
    /// Share of pairs behind NATs that meet over it, by a relay that both use and that carries no pages; 0: it needs addresses of hosts.
    pub punches: f64,
}

/// A broadcast.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Live {
    /// Its rate in kbit/s; 0: there is none.
    pub kbit: f64,
    /// Media time of a page in milliseconds.
    pub page: f64,
    /// Media in milliseconds that a player holds before sound.
    pub buffer: f64,
    /// Delays, stalls and copies count from this second on.
    pub settles: f64,
    /// From when on nothing leaves the broadcaster's line, and for how many seconds.
    pub dark: [f64; 2],
}

/// When the tracker is dead. It starts again with what its catalogue holds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Outage {
    /// From this second on.
    pub at: f64,
    /// For so long; 0: never.
    pub seconds: f64,
}

/// See [`Class::conduct`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answers {
    /// Sends what it holds.
    Honest,
    /// Sends altered pages.
    Alters,
    /// Takes requests, sends nothing.
    Mute,
    /// Says of others who collude what they say of it.
    Colludes,
}

/// Who goes. For each who goes another one comes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Churn {
    /// Share of the crowd that goes in a minute.
    pub minute: f64,
    /// Share of those who go without a word: half of them killed, half cut off.
    pub abrupt: f64,
}

/// What players do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Play {
    /// Milliseconds of media before sound, after a start or seek.
    pub start: u64,
    /// The same after it ran dry.
    pub again: u64,
    /// Share of players that seek.
    pub seekers: f64,
    /// Seconds between their seeks.
    pub every: f64,
}

/// The local rarest-first swarm beside it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Yardstick {
    /// Whether it runs: not with churn or players.
    pub run: bool,
    /// Neighbours of each peer.
    pub neighbours: usize,
    /// Transfers that each sends at once.
    pub slots: usize,
}

impl Default for Scenario {
    fn default() -> Scenario {
        Scenario {
            name: String::new(),
            about: String::new(),
            seed: 1,
            seconds: 3600.0,
            media: Media::default(),
            origin: Origin::default(),
            crowd: Crowd::default(),
            churn: Churn::default(),
            play: Play::default(),
            protocol: Vec::new(),
            live: Live::default(),
            outage: Outage::default(),
            yardstick: Yardstick::default(),
        }
    }
}

impl Default for Live {
    fn default() -> Live {
        Live { kbit: 0.0, page: 250.0, buffer: 250.0, settles: 0.0, dark: [0.0, 0.0] }
    }
}

impl Default for Media {
    fn default() -> Media {
        Media { bytes: 64 << 20, page: 4096, mbit: 1.0 }
    }
}

impl Default for Origin {
    fn default() -> Origin {
        Origin { up: 20.0, once: false }
    }
}

impl Default for Crowd {
    fn default() -> Crowd {
        let class = |name: &str, share, up| Class {
            name: name.to_owned(),
            share,
            up,
            open: up > 0.0,
            serves: up > 0.0,
            ..Class::default()
        };
        Crowd {
            peers: 50,
            arrive: 0.0,
            plays: false,
            down: 20.0,
            rtt: [20.0, 80.0],
            loss: 0.0,
            declares: false,
            class: vec![
                class("none", 30.0, 0.0),
                class("slow", 30.0, 0.5),
                class("middle", 30.0, 2.0),
                class("fast", 10.0, 10.0),
            ],
        }
    }
}

impl Default for Class {
    fn default() -> Class {
        let (name, conduct) = (String::new(), Answers::Honest);
        let (protocols, blocked) = (Vec::new(), Vec::new());
        let (share, up, open, serves, keys, later) = (1.0, 2.0, true, true, 1, 0.0);
        Class { name, share, up, open, serves, conduct, keys, later, protocols, blocked }
    }
}

impl Default for Play {
    fn default() -> Play {
        Play { start: 250, again: 1000, seekers: 0.0, every: 30.0 }
    }
}

impl Default for Yardstick {
    fn default() -> Yardstick {
        Yardstick { run: true, neighbours: 40, slots: 4 }
    }
}

impl Scenario {
    /// Reads one.
    ///
    /// # Errors
    /// If it is no TOML, names something unknown, or asks for what cannot be.
    pub fn parse(text: &str) -> Result<Scenario> {
        let s: Scenario = toml::from_str(text).context("not a scenario")?;
        s.check()?;
        Ok(s)
    }

    /// Checks that it can be run.
    ///
    /// # Errors
    /// If it asks for what cannot be.
    pub fn check(&self) -> Result<()> {
        ensure!((1..=100_000).contains(&self.crowd.peers), "crowd.peers: 1 to 100000");
        ensure!((64..=65_307).contains(&self.media.page), "media.page: 64 to 65307 bytes");
        ensure!(self.media.bytes >= u64::from(self.media.page), "media.bytes: at least a page");
        ensure!(self.media.bytes / u64::from(self.media.page) <= 4_000_000, "media: at most 4 million pages");
        ensure!(self.media.mbit > 0.0 && self.origin.up > 0.0, "media.mbit and origin.up: more than 0");
        let fine = |x: f64, least: f64| x.is_finite() && x >= least;
        ensure!(
            fine(self.live.kbit, 0.0) && fine(self.live.page, 10.0),
            "live: kbit is not negative, page at least 10"
        );
        ensure!(self.live.kbit * self.live.page < 400_000.0, "live: a page is at most 64 KiB");
        ensure!(fine(self.live.buffer, 0.0) && fine(self.live.settles, 0.0), "live: not negative");
        ensure!(self.live.dark.iter().all(|t| fine(*t, 0.0)), "live.dark: not negative");
        ensure!(self.live.kbit == 0.0 || self.seconds <= 100_000.0, "seconds: a broadcast of at most 100000");
        ensure!(self.crowd.down > 0.0, "crowd.down: more than 0");
        ensure!((0.0..0.9).contains(&self.crowd.loss), "crowd.loss: 0 to 0.9");
        ensure!(
            self.crowd.rtt[0] >= 0.0 && self.crowd.rtt[1] >= self.crowd.rtt[0],
            "crowd.rtt: least, greatest"
        );
        ensure!(self.crowd.arrive >= 0.0 && self.seconds > 0.0, "crowd.arrive and seconds: not negative");
        let fine = |c: &Class| c.share >= 0.0 && c.up >= 0.0;
        ensure!(self.crowd.class.iter().all(fine), "crowd.class: share and up are not negative");
        ensure!(self.crowd.class.iter().any(|c| c.share > 0.0), "crowd.class: somebody must be there");
        ensure!(
            self.churn.minute >= 0.0 && self.play.every > 0.0,
            "churn.minute and play.every: not negative"
        );
        ensure!(self.crowd.class.iter().all(|c| (1..=100).contains(&c.keys)), "crowd.class.keys: 1 to 100");
        ensure!(self.crowd.class.iter().all(|c| c.later >= 0.0), "crowd.class.later: not negative");
        ensure!(self.protocol.len() <= 32, "protocol: at most 32");
        for p in &self.protocol {
            ensure!(p.name.parse::<icet::ProtocolName>().is_ok(), "protocol.name: {:?} is none", p.name);
            ensure!(p.processor >= 0.0, "protocol.processor: not negative");
            ensure!((0.0..=1.0).contains(&p.punches), "protocol.punches: a share of 0 to 1");
            let fine = |[at, loss]: &[f64; 2]| *at >= 0.0 && (0.0..0.9).contains(loss);
            ensure!(p.loss.iter().all(fine), "protocol.loss: pairs of a second and a share of 0 to 0.9");
        }
        let known = |name: &String| self.protocol.iter().any(|p| p.name == *name);
        let named = self.crowd.class.iter().flat_map(|c| c.protocols.iter().chain(&c.blocked));
        ensure!(
            named.into_iter().all(known),
            "crowd.class: protocols and blocked name what protocol defines"
        );
        ensure!(self.outage.at >= 0.0 && self.outage.seconds >= 0.0, "outage: not negative");
        ensure!(self.yardstick.slots > 0 && self.yardstick.neighbours > 0, "yardstick: at least 1 of each");
        Ok(())
    }

    /// Whether it goes on for all of its time, instead of until all have all.
    #[must_use]
    pub fn is_open_ended(&self) -> bool {
        self.crowd.plays || self.churn.minute > 0.0 || self.live.kbit > 0.0
    }

    /// What is broadcast, if anything is.
    #[must_use]
    pub fn stream(&self) -> Option<crate::live::Stream> {
        let live = &self.live;
        let ms = |ms: f64| Duration::from_secs_f64(ms / 1000.0);
        let [at, lasts] = live.dark.map(Duration::from_secs_f64);
        (live.kbit > 0.0).then(|| crate::live::Stream {
            rate: live.kbit * MBIT / 1000.0,
            page: ms(live.page),
            lasts: Duration::from_secs_f64(self.seconds),
            buffer: ms(live.buffer),
            settles: Duration::from_secs_f64(live.settles),
            dark: (!lasts.is_zero()).then_some((at, lasts)),
        })
    }

    /// The pages of what is shared.
    #[must_use]
    pub fn pages(&self) -> Pages {
        let pages = u32::try_from(self.media.bytes / u64::from(self.media.page)).unwrap_or(u32::MAX).max(1);
        // In range: a page is at most 64 KiB.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let time = (f64::from(self.media.page) / (self.media.mbit * MBIT) * 1e6) as u64;
        Pages { pages, len: self.media.page, time: time.max(1) }
    }

    /// What players wait for.
    #[must_use]
    pub fn buffers(&self) -> Buffers {
        Buffers {
            start: Duration::from_millis(self.play.start),
            again: Duration::from_millis(self.play.again),
        }
    }

    /// The origin.
    #[must_use]
    pub fn publisher(&self) -> Spec {
        let delay = Duration::from_secs_f64((self.crowd.rtt[0] + self.crowd.rtt[1]) / 8000.0);
        let line = Line { up: self.origin.up * MBIT, down: self.crowd.down * MBIT, delay, loss: 0.0 };
        Spec {
            line,
            intent: Intent::Share,
            declares: self.crowd.declares,
            class: usize::MAX,
            ..Spec::of(1.0)
        }
    }

    /// The payload protocols.
    #[must_use]
    pub fn protocols(&self) -> Vec<crate::protocol::Protocol> {
        let known = |p: &Protocol| crate::protocol::Protocol {
            name: p.name.clone(),
            loss: p.loss.iter().map(|[at, loss]| (PUBLISH + Duration::from_secs_f64(*at), *loss)).collect(),
            processor: p.processor * MBIT,
            rounds: p.rounds.unwrap_or(1),
            udp: p.udp,
            punches: p.punches,
        };
        let all: Vec<_> = self.protocol.iter().map(known).collect();
        if all.is_empty() { vec![crate::protocol::Protocol::named("http")] } else { all }
    }

    /// Some protocols, a bit each.
    fn bits(&self, names: &[String]) -> u32 {
        let number = |name: &String| self.protocol.iter().position(|p| p.name == *name);
        names.iter().filter_map(number).fold(0, |bits, i| bits | 1 << i)
    }

    /// A peer of a class.
    #[must_use]
    pub fn member(&self, class: usize, rng: &mut SmallRng) -> Spec {
        let kind = self.crowd.class.get(class).cloned().unwrap_or_default();
        let [a, b] = self.crowd.rtt;
        // A round trip crosses both ends' lines twice.
        let delay = Duration::from_secs_f64(rng.random_range(a..=b) / 4000.0);
        Spec {
            line: Line { up: kind.up * MBIT, down: self.crowd.down * MBIT, delay, loss: self.crowd.loss },
            intent: if self.crowd.plays || self.live.kbit > 0.0 { Intent::Play } else { Intent::Whole },
            conduct: match kind.conduct {
                Answers::Honest => Conduct::Honest,
                Answers::Alters => Conduct::Alters,
                Answers::Mute => Conduct::Mute,
                Answers::Colludes => Conduct::Colludes,
            },
            speaks: if kind.protocols.is_empty() { u32::MAX } else { self.bits(&kind.protocols) },
            blocked: self.bits(&kind.blocked),
            on: None,
            open: kind.open,
            serves: kind.serves,
            declares: self.crowd.declares,
            class,
        }
    }

    /// The crowd with the time of each arrival: as many of each class as its share says, in random order.
    #[must_use]
    pub fn crowd(&self) -> Vec<(Duration, Spec)> {
        let mut rng = SmallRng::seed_from_u64(self.seed ^ 0xc0ffee);
        let all: f64 = self.crowd.class.iter().map(|c| c.share).sum();
        let mut classes = Vec::with_capacity(self.crowd.peers);
        let mut before = 0.0;
        for (i, c) in self.crowd.class.iter().enumerate() {
            before += c.share;
            // In range: at most the number of peers.
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let to = (before / all * self.crowd.peers as f64).round() as usize;
            classes.resize(to.min(self.crowd.peers).max(classes.len()), i);
        }
        classes.shuffle(&mut rng);
        let mut crowd: Vec<_> = classes
            .into_iter()
            .map(|class| {
                let at = rng.random_range(0.0..=self.crowd.arrive);
                let at = at + self.crowd.class.get(class).map_or(0.0, |c| c.later);
                (Duration::from_secs_f64(at), self.member(class, &mut rng))
            })
            .collect();
        crowd.sort_by_key(|(at, _)| *at);
        crowd
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_standard_crowd_is_the_default() {
        let s = Scenario::parse("").unwrap();
        let crowd = s.crowd();
        let of = |class| crowd.iter().filter(|(_, s)| s.class == class).count();
        assert_eq!((of(0), of(1), of(2), of(3)), (15, 15, 15, 5));
        let up: f64 = crowd.iter().map(|(_, s)| s.line.up).sum();
        assert!((up - 50.0 * 1.75 * MBIT).abs() < 1.0);
        assert_eq!(Scenario::parse("[crowd]\npeers = 7").unwrap().crowd().len(), 7);
        assert_eq!(s.pages(), Pages { pages: 16_384, len: 4096, time: 32_768 });
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for bad in
            ["seeds = 1", "[crowd]\npeers = 0", "[media]\npage = 100000", "[[crowd.class]]\nshare = -1.0"]
        {
            assert!(Scenario::parse(bad).is_err(), "{bad}");
        }
    }
}
