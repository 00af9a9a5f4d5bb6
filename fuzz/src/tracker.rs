//! Targets of `icetracker`.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use icet::frame;
use icet::message::{Assignment, Got, Have, Outcome, Report, ToPeer, ToTracker};
use icet::{Identity, NetKind, Now, PageRanges, limits};
use icetracker::swarm::record::{Record, Replay};
use icetracker::swarm::{ConnId, Contribution, DialId, Effect, Swarm, SwarmConfig};

/// Keys with sessions: those of the golden vectors (publisher 1, tracker 2, host 3, receiver 4), and where they come from.
const PEERS: [(u8, &str); 4] =
    [(1, "127.0.0.1:5001"), (3, "127.0.0.1:5003"), (4, "192.0.2.4:5004"), (5, "[2001:db8::5]:5005")];

struct Session {
    conn: ConnId,
    open: bool,
    assignments: Vec<Assignment>,
}

struct World {
    swarm: Swarm,
    now: Now,
    sessions: Vec<Session>,
    by_conn: BTreeMap<ConnId, usize>,
    last_conn: u64,
    dials: Vec<DialId>,
}

/// A tracker's mind among four peers that say and do anything. The input is a list of steps: a byte for what happens, one
/// for whom or how much, and for a message its length (two bytes, little endian) and its body.
pub fn swarm(data: &[u8]) {
    let config = SwarmConfig::new(Identity::from_seed(&[2; 32]).key(), [9; 32], 5, 1);
    let mut w = World {
        swarm: Swarm::new(config),
        now: Now(1_000_000),
        sessions: Vec::new(),
        by_conn: BTreeMap::new(),
        last_conn: 0,
        dials: Vec::new(),
    };
    for i in 0..PEERS.len() {
        w.sessions.push(Session { conn: ConnId(0), open: false, assignments: Vec::new() });
        w.connect(i);
    }
    let mut rest = data;
    for _ in 0..512 {
        let Some(([what, arg], more)) = rest.split_first_chunk::<2>() else { break };
        rest = more;
        let who = usize::from(*arg) % PEERS.len();
        match what % 8 {
            0..=2 => {
                let Some((len, more)) = rest.split_first_chunk::<2>() else { break };
                let (body, more) = more.split_at(more.len().min(usize::from(u16::from_le_bytes(*len))));
                rest = more;
                match ToTracker::from_body(body) {
                    Ok(m) => w.say(who, m),
                    Err(e) if e.answer() => {
                        let conn = w.sessions[who].conn;
                        w.swarm.handle_malformed(w.now, conn, Some(1), &e.to_string());
                        w.drain();
                    }
                    Err(_) => {}
                }
            }
            3 => w.wait(u64::from(*arg) * u64::from(*arg) * 1000),
            4 => w.acknowledge(who, *arg),
            5 => w.report(who, *arg),
            6 => {
                if let Some(dial) = w.dials.pop() {
                    let outcome = if arg % 4 == 0 { Err("refused".to_owned()) } else { Ok(()) };
                    w.swarm.handle_dialed(w.now, dial, outcome);
                    w.drain();
                }
            }
            _ => {
                let conn = w.sessions[who].conn;
                if w.sessions[who].open {
                    w.swarm.handle_disconnect(w.now, conn);
                    w.sessions[who].open = false;
                    w.drain();
                } else {
                    w.connect(who);
                }
            }
        }
    }
    // Whatever was said, everything lapses: the swarm comes to rest.
    for _ in 0..3 {
        w.wait(60_000_000);
    }
    let totals = w.swarm.totals();
    assert!(totals.listeners <= totals.members);
}

impl World {
    fn connect(&mut self, who: usize) {
        let (seed, from) = PEERS[who];
        self.last_conn += 1;
        let conn = ConnId(self.last_conn);
        let from: SocketAddr = from.parse().expect("an address");
        let key = Identity::from_seed(&[seed; 32]).key();
        self.sessions[who] = Session { conn, open: true, assignments: Vec::new() };
        self.by_conn.insert(conn, who);
        self.swarm.handle_connect(self.now, conn, key, from, NetKind::Udp, Contribution::default());
        self.drain();
    }

    fn say(&mut self, who: usize, m: ToTracker) {
        let conn = self.sessions[who].conn;
        if self.sessions[who].open {
            self.swarm.handle_message(self.now, 1_767_225_600_000 + self.now.0 / 1000, conn, m);
            self.drain();
        }
    }

    /// Time goes on for so many microseconds.
    fn wait(&mut self, micros: u64) {
        let end = Now(self.now.0 + micros);
        for _ in 0..10_000 {
            let Some(due) = self.swarm.poll_timeout().filter(|t| *t <= end) else { break };
            self.now = self.now.max(due);
            self.swarm.handle_timeout(self.now, 1_767_225_600_000 + self.now.0 / 1000);
            assert!(self.swarm.poll_timeout().is_none_or(|t| t > self.now), "a timer that stays due");
            self.drain();
        }
        self.now = end;
    }

    /// A receiver got (some of) what it was last ordered to fetch.
    fn acknowledge(&mut self, who: usize, arg: u8) {
        let Some(a) = self.sessions[who].assignments.last().cloned() else { return };
        let last = a.pages.last.unwrap_or(a.pages.first).min(a.pages.first + u64::from(arg / 4));
        let got = vec![Got { assignment: a.id, pages: PageRanges::one(a.pages.first, last) }];
        self.say(who, Have { media: a.media, got, lost: PageRanges::new() }.into());
    }

    fn report(&mut self, who: usize, arg: u8) {
        let Some(a) = self.sessions[who].assignments.pop() else { return };
        let outcomes = [
            Outcome::Done,
            Outcome::Stopped,
            Outcome::Unreachable,
            Outcome::Refused,
            Outcome::Broken,
            Outcome::Stalled,
            Outcome::Incomplete,
            Outcome::Altered,
        ];
        let report = Report {
            media: a.media,
            assignment: a.id,
            host: a.source.host.key,
            protocol: a.source.host.protocol.clone(),
            outcome: outcomes[usize::from(arg / 4) % outcomes.len()],
            bytes: u64::from(arg) << 10,
            pages: u64::from(arg),
            bad: 0,
            first_byte: (arg % 8 < 6).then_some(u32::from(arg)),
            total: u32::from(arg) * 10,
            last: arg < 128,
        };
        self.say(who, report.into());
    }

    /// Carries out what the swarm wants, and looks at it.
    fn drain(&mut self) {
        while let Some(effect) = self.swarm.poll_effect() {
            match effect {
                Effect::Send { conn, message } | Effect::Answer { conn, message, .. } => {
                    let body = frame::encode(&message);
                    assert!(body.len() <= limits::FRAME);
                    assert_eq!(
                        ToPeer::from_body(&body).as_ref(),
                        Ok(&message),
                        "the tracker sends what peers refuse"
                    );
                    if let (ToPeer::Assign(m), Some(who)) = (message, self.by_conn.get(&conn)) {
                        for a in m.assignments {
                            let ip = PEERS[*who].1.parse::<SocketAddr>().expect("an address").ip();
                            for source in a.stand_ins.iter().chain([&a.source]) {
                                let local = source.host.addrs.iter().any(|x| x.at.ip().is_loopback());
                                assert!(!local || ip.is_loopback(), "a loopback address for a stranger");
                            }
                            self.sessions[*who].assignments.push(a);
                        }
                    }
                }
                Effect::Dial { id, addr, .. } => {
                    let ip = addr.at.ip();
                    assert!(addr.at.port() != 0 && !ip.is_multicast() && !ip.is_unspecified());
                    self.dials.push(id);
                }
                Effect::Close { conn, .. } => {
                    let who = self.by_conn.get(&conn).copied();
                    if let Some(who) =
                        who.filter(|w| self.sessions[*w].conn == conn && self.sessions[*w].open)
                    {
                        self.sessions[who].open = false;
                    }
                    self.swarm.handle_disconnect(self.now, conn);
                }
                Effect::Store(_) => {}
            }
        }
    }
}

/// A log of a swarm's inputs: for each record its length (two bytes, little endian) and its body.
pub fn record(data: &[u8]) {
    let mut replay = Replay::default();
    let mut rest = data;
    while let Some((len, more)) = rest.split_first_chunk::<2>() {
        let (body, more) = more.split_at(more.len().min(usize::from(u16::from_le_bytes(*len))));
        rest = more;
        let Ok(record) = Record::from_bytes(body) else { continue };
        let bytes = record.to_bytes();
        let again = Record::from_bytes(&bytes).expect("what was written can be read");
        assert_eq!(again.to_bytes(), bytes);
        if replay.take(record).is_err() {
            break;
        }
    }
}
