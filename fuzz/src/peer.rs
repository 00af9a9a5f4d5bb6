//! Targets of `iceshare::engine`.

use std::time::Duration;

use iceshare::engine::Engine;
use iceshare::engine::io::{Action, Command, Config, FetchEvent, FetchId, Handle};
use icet::message::{Focus, Hello, Intent, KeyProof, Outcome, Position, ToPeer, ToTracker};
use icet::{Identity, Limits, MediaId, MediaPath, Now, PageMap, PageRanges, PageSet, frame, limits};

struct World {
    engine: Engine,
    now: Now,
    fetches: Vec<(FetchId, PageSet)>,
    joined: bool,
}

/// Pages of the media that the driver accepts, whatever the tracker answers.
const PAGES: u64 = 130;

/// A peer's mind with a tracker and a driver that say and do anything. The input is a list of steps: a byte for what
/// happens, one for how much, and for a message its length (two bytes, little endian) and its body.
pub fn engine(data: &[u8]) {
    let hello = Hello {
        version: 1,
        agent: String::new(),
        proof: KeyProof::Channel,
        offers: Vec::new(),
        reach: Vec::new(),
        limits: Limits::default(),
        epoch: None,
        instance: None,
    };
    let config = Config {
        hello,
        fetches: 8,
        per_host: 2,
        connects_each: std::collections::BTreeSet::new(),
        stall: Duration::from_secs(5),
        stall_urgent: Duration::from_secs(1),
        silence: Duration::from_millis(500),
        ack_delay: Duration::from_millis(250),
        backoff: (Duration::from_millis(250), Duration::from_secs(30)),
        seed: 1,
    };
    let mut w =
        World { engine: Engine::new(config), now: Now(1_000_000), fetches: Vec::new(), joined: false };
    w.drain();
    w.command(Command::Join {
        handle: Handle(1),
        path: MediaPath::new("music/Søren – Étude №1.opus").expect("a path"),
        publisher: None,
        version: 0,
        held: PageRanges::new(),
        intent: Intent::Play,
        at: None,
        back: None,
    });
    let mut rest = data;
    for _ in 0..512 {
        let Some(([what, arg], more)) = rest.split_first_chunk::<2>() else { break };
        rest = more;
        match what % 8 {
            0..=2 => {
                let Some((len, more)) = rest.split_first_chunk::<2>() else { break };
                let (body, more) = more.split_at(more.len().min(usize::from(u16::from_le_bytes(*len))));
                rest = more;
                if let Ok(m) = ToPeer::from_body(body) {
                    w.engine.handle_message(w.now, m);
                    w.drain();
                }
            }
            3 => w.wait(u64::from(*arg) * u64::from(*arg) * 1000),
            4 => w.fetch(*arg),
            5 => {
                let tracker = Identity::from_seed(&[2 + arg % 2; 32]).key();
                w.engine.handle_connected(w.now, tracker);
                w.drain();
            }
            6 => {
                w.engine.handle_disconnected(w.now);
                w.drain();
            }
            _ => w.drive(*arg),
        }
    }
    for _ in 0..3 {
        w.wait(60_000_000);
    }
}

impl World {
    fn command(&mut self, c: Command) {
        self.engine.handle_command(self.now, c);
        self.drain();
    }

    fn wait(&mut self, micros: u64) {
        let end = Now(self.now.0 + micros);
        for _ in 0..10_000 {
            let Some(due) = self.engine.poll_timeout().filter(|t| *t <= end) else { break };
            self.now = self.now.max(due);
            self.engine.handle_timeout(self.now);
            assert!(self.engine.poll_timeout().is_none_or(|t| t > self.now), "a timer that stays due");
            self.drain();
        }
        self.now = end;
    }

    /// Something comes of a fetch; also of one that was stopped long ago.
    fn fetch(&mut self, arg: u8) {
        let n = self.fetches.len().max(1);
        let Some((fetch, set)) = self.fetches.get(usize::from(arg / 16) % n).copied() else { return };
        let page = set.next_from(set.first + u64::from(arg / 32)).unwrap_or(set.first);
        let outcomes = [
            Outcome::Done,
            Outcome::Incomplete,
            Outcome::Broken,
            Outcome::Refused,
            Outcome::Unreachable,
            Outcome::Stalled,
        ];
        let event = match arg % 8 {
            0 => FetchEvent::FirstByte,
            1 => FetchEvent::Progress { bytes: 1 << (arg / 16) },
            2 | 3 => FetchEvent::Page { page, len: 4000 },
            4 => FetchEvent::Duplicate { page },
            5 => FetchEvent::Altered,
            _ => FetchEvent::Ended(outcomes[usize::from(arg / 8) % outcomes.len()]),
        };
        self.engine.handle_fetch(self.now, fetch, event);
        self.drain();
    }

    /// The driver wants something.
    fn drive(&mut self, arg: u8) {
        let handle = Handle(1 + u64::from(arg & 1));
        let at = Position::Page(u64::from(arg));
        let focus = Focus { media: MediaId([0; 32]), at, rate: None, urgent: 1 << 16, intent: Intent::Play };
        let c = match arg / 2 % 8 {
            0 | 1 => Command::Focus { handle, focus },
            2 => Command::Locate { handle, at },
            3 => Command::Held { handle, got: PageRanges::one(u64::from(arg), 140), lost: PageRanges::new() },
            4 => Command::Held { handle, got: PageRanges::new(), lost: PageRanges::one(0, u64::from(arg)) },
            5 => Command::Served { items: vec![(u64::from(arg), 1000), (0, 5)] },
            6 => Command::Info { handle: Handle(9), path: MediaPath::new("b").expect("a path") },
            _ => Command::Leave { handle },
        };
        self.command(c);
    }

    /// Carries out what the engine wants, and looks at it.
    fn drain(&mut self) {
        while let Some(action) = self.engine.poll_action() {
            match action {
                Action::Send(m) => {
                    let body = frame::encode(&m);
                    assert!(body.len() <= limits::FRAME);
                    assert_eq!(ToTracker::from_body(&body), Ok(m), "the peer sends what trackers refuse");
                }
                Action::Start { fetch, pages, source, .. } => {
                    assert!(pages.first < limits::PAGES && pages.last.is_none_or(|l| l >= pages.first));
                    assert!(source.host.addrs.len() <= limits::REACH);
                    self.fetches.push((fetch, pages));
                    if self.fetches.len() > 64 {
                        self.fetches.remove(0);
                    }
                }
                Action::Joined { handle, .. } | Action::Newer { handle, .. } if !self.joined => {
                    self.joined = true;
                    let held = PageMap::new(PAGES);
                    self.engine.handle_command(
                        self.now,
                        Command::Accept { handle, held, bytes: PAGES * 4000, version: 3 },
                    );
                }
                Action::WantUpload { handle, .. } => {
                    self.engine.handle_command(self.now, Command::Upload { handle, slices: Vec::new() });
                }
                _ => {}
            }
        }
        let tally = self.engine.tally(Handle(1)).unwrap_or_default();
        assert!(tally.fetches <= 8, "more fetches at once than allowed");
    }
}
