//! Vectors of messages and frames.

use icet::live::SignedHead;
use icet::message::{
    Allow, Assign, Assignment, Audience, Cancel, Dial, ErrorCode, ErrorMessage, Focus, Givers, Got, Guidance,
    Have, Head, Hello, InfoAnswer, InfoRequest, Intent, Invite, Join, KeyProof, Knock, Leave, Locate, Mark,
    MarkReason, MediaAnswer, Need, Newer, Outcome, Ping, Pong, Position, Publish, Reach, ReachResult, Report,
    Reserve, Served, ServedItem, Shortage, Slices, Standing, StandingRequest, ToPeer, ToTracker, Welcome,
    Withdraw, Withdrawn,
};
use icet::{
    Abilities, Ip, Limits, MediaPath, NetKind, Offer, PageRanges, PageSet, Stripe, TicketKey, frame, limits,
};
use minicbor::Encoder;
use serde_json::{Value, json};

use super::meaning;
use super::world::{addr, cbor, hex, http, id, identity, path, proven, raw, signed, source};

/// A message of either direction.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Message {
    Tracker(ToTracker),
    Peer(ToPeer),
}

impl Message {
    pub(crate) fn to(&self) -> &'static str {
        match self {
            Message::Tracker(_) => "tracker",
            Message::Peer(_) => "peer",
        }
    }

    pub(crate) fn body(&self) -> Vec<u8> {
        match self {
            Message::Tracker(m) => cbor(m),
            Message::Peer(m) => cbor(m),
        }
    }

    fn meaning(&self) -> (&'static str, Value) {
        match self {
            Message::Tracker(m) => meaning::to_tracker(m),
            Message::Peer(m) => meaning::to_peer(m),
        }
    }
}

fn t(name: &'static str, m: impl Into<ToTracker>) -> (&'static str, Message) {
    (name, Message::Tracker(m.into()))
}

fn p(name: &'static str, m: impl Into<ToPeer>) -> (&'static str, Message) {
    (name, Message::Peer(m.into()))
}

fn hello() -> Hello {
    let offer = Offer {
        name: http(),
        abilities: Abilities(0b0110_1111),
        serves: true,
        endpoint: String::new(),
        dials: Some(NetKind::Tcp),
    };
    let pigeon = Offer {
        name: "x-carrier.pigeon2".parse().expect("a protocol name"),
        abilities: Abilities::PAGES | Abilities(1 << 31),
        serves: false,
        endpoint: "loft=7".to_owned(),
        dials: None,
    };
    Hello {
        version: 1,
        agent: "iceshare/0.1.0".to_owned(),
        proof: KeyProof::Channel,
        offers: vec![offer, pigeon],
        reach: vec![
            addr(NetKind::Udp, "0.0.0.0:40001"),
            addr(NetKind::Tcp, "0.0.0.0:40001"),
            addr(NetKind::Udp, "[2001:db8::4]:40001"),
        ],
        limits: Limits { up: Some(1_250_000), down: None },
        epoch: Some(4),
        instance: None,
    }
}

fn join() -> Join {
    Join {
        request: 1,
        path: path(),
        publisher: Some(identity(1).key()),
        version: 3,
        have: PageRanges::from_runs([(0, 1), (64, 70), (129, 129)]),
        intent: Intent::Play,
        at: Some(Position::Time(90_500_000)),
        running: vec![75, 76],
        back: None,
    }
}

fn report() -> Report {
    Report {
        media: id(),
        assignment: 77,
        host: identity(3).key(),
        protocol: http(),
        outcome: Outcome::Done,
        bytes: 65_536,
        pages: 16,
        bad: 0,
        first_byte: Some(52),
        total: 310,
        last: true,
    }
}

pub(crate) fn assignment() -> Assignment {
    Assignment {
        id: 77,
        media: id(),
        pages: PageSet::range(64, 79),
        need: Need::Urgent,
        source: source(),
        stand_ins: vec![source()],
        deadline: Some(800),
        lapse: 15_000,
    }
}

fn shortage() -> Shortage {
    let protocols = ["quic", "udp"].map(|p| p.parse().expect("a name")).to_vec();
    let (unwilling, silent) = (None, None);
    Shortage { media: id(), hosts: 5, unshared: 2, unreachable: 1, failed: 1, protocols, unwilling, silent }
}

fn live_assignment() -> Assignment {
    let stripe = Stripe::new(1, 4, 8).expect("a stripe");
    Assignment {
        id: 78,
        pages: PageSet { first: 1_000_000, last: None, stripe: Some(stripe) },
        need: Need::Steady,
        stand_ins: Vec::new(),
        deadline: None,
        ..assignment()
    }
}

fn reserve() -> Assignment {
    Assignment { id: 80, need: Need::Reserve, stand_ins: Vec::new(), deadline: None, ..assignment() }
}

fn invite() -> Invite {
    Invite { assignment: 79, media: id(), receiver: source().host, dial: Dial::Both, lapse: 2_000 }
}

fn media_answer() -> MediaAnswer {
    MediaAnswer {
        request: 1,
        media: id(),
        manifest: signed().signed().clone(),
        slices: vec![proven(2)],
        listeners: 12,
        hits: 3_456,
        estimate: Some(4_200),
        buffer: 1_500,
    }
}

fn to_tracker() -> Vec<(&'static str, Message)> {
    let empty_hello = Hello {
        version: 7,
        agent: String::new(),
        proof: KeyProof::Channel,
        offers: Vec::new(),
        reach: Vec::new(),
        limits: Limits::default(),
        epoch: None,
        instance: None,
    };
    let fresh = Join {
        publisher: None,
        version: 0,
        have: PageRanges::new(),
        intent: Intent::Whole,
        at: None,
        running: Vec::new(),
        ..join()
    };
    let shifted = Join { back: Some(600_000), ..fresh.clone() };
    let slices = Slices { media: id(), request: 0, slices: vec![proven(2)] };
    let focus = |at, rate| Focus { media: id(), at, rate, urgent: 131_072, intent: Intent::Play };
    let got = vec![
        Got { assignment: 77, pages: PageRanges::one(64, 79) },
        Got { assignment: 0, pages: PageRanges::from_runs([(3, 3), (5, 9)]) },
    ];
    let failed = Report {
        outcome: Outcome::Altered,
        bytes: 0,
        pages: 0,
        bad: 1,
        first_byte: None,
        last: false,
        ..report()
    };
    let moved = Some(MediaPath::new("archive/étude.opus").expect("a media path"));
    vec![
        t("hello", hello()),
        t("hello-empty", empty_hello),
        t("hello-instance", Hello { instance: Some(icet::key::Hash([9; 32])), ..hello() }),
        t("publish", Publish { request: 2, manifest: signed().signed().clone(), slices: vec![proven(2)] }),
        t("join", join()),
        t("join-fresh", fresh),
        t("join-back", shifted),
        t("focus-page", focus(Position::Page(64), Some(16_000))),
        t("focus-byte", focus(Position::Byte(u64::MAX), None)),
        t("have", Have { media: id(), got, lost: PageRanges::one(10, 20) }),
        t("have-nothing", Have { media: id(), got: Vec::new(), lost: PageRanges::new() }),
        t("report-done", report()),
        t("report-altered", failed),
        t(
            "served",
            Served {
                items: vec![
                    ServedItem { assignment: 77, bytes: 65_536 },
                    ServedItem { assignment: 0, bytes: 9 },
                ],
            },
        ),
        t("leave", Leave { media: id() }),
        ("slices", Message::Tracker(ToTracker::Slices(slices))),
        t("locate", Locate { request: 9, media: id(), at: Position::Time(2_000_000) }),
        t("withdraw", Withdraw { media: id(), moved: None, release: true }),
        t("withdraw-moved", Withdraw { media: id(), moved, release: false }),
        t("info-request", InfoRequest { request: 10, path: path() }),
        t("ping", Ping { nonce: u64::MAX }),
        t("reach", Reach { reach: vec![addr(NetKind::Tcp, "198.51.100.4:8080")] }),
        t("standing-request", StandingRequest { request: 11 }),
        t("allow", Allow { up: Some(1_250_000), down: None, near: true, withheld: vec![id()], once: None }),
        t("allow-nothing", Allow { up: Some(0), down: None, near: false, withheld: Vec::new(), once: None }),
        t("allow-once", Allow { up: None, down: None, near: false, withheld: Vec::new(), once: Some(true) }),
        t("head", head()),
        t("head-earlier", head_with_earlier()),
        t(
            "audience",
            Audience {
                request: 12,
                media: id(),
                addresses: ["203.0.113.9", "2001:db8::4"].map(place).to_vec(),
            },
        ),
    ]
}

fn place(text: &str) -> Ip {
    Ip(text.parse().expect("an address"))
}

fn to_peer() -> Vec<(&'static str, Message)> {
    let welcome = Welcome {
        version: 1,
        epoch: 5,
        time: 1_767_225_600_123,
        observed: addr(NetKind::Udp, "203.0.113.9:40001"),
        ticket_key: TicketKey::derive(&super::world::SECRET, &identity(4).key()),
        ack_delay: 250,
    };
    let unknown_estimate = MediaAnswer { estimate: None, slices: Vec::new(), ..media_answer() };
    let slices = Slices { media: id(), request: 9, slices: vec![proven(2)] };
    let info = InfoAnswer {
        request: 10,
        manifest: signed().signed().clone(),
        listeners: 12,
        hits: 3_456,
        complete: 2,
        sent: 5_000_000_000,
        received: 1_000_000,
        alternatives: vec![MediaPath::new("music/étude.flac").expect("a media path")],
        head: None,
    };
    let error = ErrorMessage {
        code: ErrorCode::QUOTA,
        request: Some(1),
        media: Some(id()),
        text: "too many joins from your network; try again in a minute".to_owned(),
        retry: Some(60_000),
    };
    let givers = |index, peers, sent, weight| Givers { index, peers, sent, weight };
    let guidance = Guidance {
        request: 12,
        listeners: 41,
        hits: 1_700,
        givers: vec![givers(0, 1, 80_000_000, 1_900), givers(3, 2, 0, 1_000)],
    };
    let unwilling = Shortage { unwilling: Some(1), silent: Some(1), hosts: 7, ..shortage() };
    let bare = ErrorMessage {
        code: ErrorCode(65_000),
        request: None,
        media: None,
        text: String::new(),
        retry: None,
    };
    let refused = ReachResult {
        addr: addr(NetKind::Tcp, "203.0.113.9:40001"),
        proved: false,
        why: "connection refused".to_owned(),
    };
    let proved =
        ReachResult { addr: addr(NetKind::Udp, "[2001:db8::4]:40001"), proved: true, why: String::new() };
    vec![
        p("welcome", welcome),
        p("media-answer", media_answer()),
        p("media-answer-no-estimate", unknown_estimate),
        p("assign", Assign::from(vec![assignment(), live_assignment()])),
        p("assign-shortage", Assign { assignments: Vec::new(), shortages: Some(vec![shortage()]) }),
        p("assign-shortage-of-will", Assign { assignments: Vec::new(), shortages: Some(vec![unwilling]) }),
        p("cancel", Cancel { assignments: vec![77, 78] }),
        ("slices", Message::Peer(ToPeer::Slices(slices))),
        p("info-answer", info),
        p("error-quota", error),
        p("error-of-a-later-version", bare),
        p("withdrawn", Withdrawn { media: id(), moved: Some(path()), operator: None, off_air: None }),
        p(
            "withdrawn-by-the-operator",
            Withdrawn { media: id(), moved: None, operator: Some(true), off_air: None },
        ),
        p(
            "withdrawn-off-the-air",
            Withdrawn { media: id(), moved: None, operator: None, off_air: Some(true) },
        ),
        p("pong", Pong { nonce: 1, time: 1_767_225_600_123 }),
        p("reach-refused", refused),
        p("reach-proved", proved),
        p("invite", invite()),
        p("newer", Newer { manifest: signed().signed().clone() }),
        p("reserve", Reserve { assignments: vec![reserve()] }),
        p("standing", standing()),
        p("knock", Knock {}),
        p("head", head()),
        p("head-later", Head { time: Some(-20_000), ..head() }),
        p("guidance", guidance),
    ]
}

fn head() -> Head {
    let head = SignedHead::sign(super::live::head(), &identity(1)).expect("a good head");
    Head { media: id(), head: head.signed().clone(), earlier: None, time: None }
}

/// The first of a session, of a broadcast that was on before.
fn head_with_earlier() -> Head {
    let earlier = super::live::earlier_head();
    let earlier = SignedHead::sign(earlier, &identity(1)).expect("a good head").signed().clone();
    Head { earlier: Some(vec![earlier]), ..head() }
}

fn standing() -> Standing {
    let mark = |reason, count| Mark { reason, count };
    Standing {
        request: 11,
        sent: 5_000_000_000,
        received: 1_000_000,
        weight: 2000,
        peers: 12,
        ahead: 3,
        trust: 607,
        // The last is a reason of a later version.
        marks: vec![
            mark(MarkReason::ALTERED, 1),
            mark(MarkReason::UNHEEDED, 12),
            mark(MarkReason(65_000), 1),
        ],
    }
}

/// Valid messages as an encoder writes them.
pub(crate) fn valid() -> Vec<(&'static str, Message)> {
    to_tracker().into_iter().chain(to_peer()).collect()
}

type E<'a> = &'a mut Encoder<Vec<u8>>;

fn write(
    n: u64,
    f: impl FnOnce(E) -> Result<(), minicbor::encode::Error<std::convert::Infallible>>,
) -> Vec<u8> {
    raw(n, |e| f(e).expect("a Vec takes all"))
}

/// Bodies that a decoder takes although no encoder of version 1 writes them: name, body, what they mean, why legal.
pub(crate) fn loose() -> Vec<(&'static str, Vec<u8>, Message, &'static str)> {
    let ping = || Message::Tracker(ToTracker::Ping(Ping { nonce: 5 }));
    let withdraw = Message::Tracker(Withdraw { media: id(), moved: None, release: true }.into());
    let later =
        write(12, |e| e.map(3)?.u8(1)?.u8(5)?.u8(40)?.array(2)?.str("later")?.null()?.u16(41)?.map(0)?.ok());
    let indefinite = write(12, |e| e.begin_map()?.u8(1)?.u8(5)?.end()?.ok());
    let null = write(10, |e| e.map(3)?.u8(1)?.bytes(&id().0)?.u8(2)?.null()?.u8(3)?.bool(true)?.ok());
    let unknown = write(42, |e| e.map(1)?.u8(1)?.begin_array()?.u8(1)?.end()?.ok());
    let order = write(10, |e| e.map(2)?.u8(3)?.bool(true)?.u8(1)?.bytes(&id().0)?.ok());
    let mut long = cbor(&ToTracker::Ping(Ping { nonce: 5 }));
    long.splice(4..5, [0x1b, 0, 0, 0, 0, 0, 0, 0, 5]);
    let mapped = raw(13, |e| {
        let ip: &[u8] = &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1];
        e.map(1)
            .and_then(|e| e.u8(1)?.array(1)?.array(3)?.u8(0)?.bytes(ip)?.u16(4237)?.ok())
            .expect("a Vec takes all");
    });
    let v4 = Message::Tracker(Reach { reach: vec![addr(NetKind::Udp, "192.0.2.1:4237")] }.into());
    vec![
        ("unknown-fields", later, ping(), "fields of a later version are ignored"),
        ("indefinite-map", indefinite, ping(), "a map may have an indefinite length"),
        ("long-integer", long, ping(), "an integer need not be in its shortest form"),
        ("null-for-absent", null, withdraw.clone(), "null stands for an absent field"),
        ("keys-out-of-order", order, withdraw, "map keys may come in any order"),
        ("ipv4-mapped", mapped, v4, "an IPv4-mapped IPv6 address is the IPv4 address"),
        (
            "unknown-message",
            unknown,
            Message::Tracker(ToTracker::Unknown(42)),
            "a message of a later version: answered with error 3, and the session goes on",
        ),
    ]
}

/// An invalid body.
pub(crate) struct Invalid {
    pub(crate) name: &'static str,
    pub(crate) to: &'static str,
    pub(crate) body: Vec<u8>,
    pub(crate) why: &'static str,
    /// Whether icet.cddl alone refuses it.
    pub(crate) grammar: bool,
    /// Whether it deserves error 1 and the session goes on; else the connection is closed.
    pub(crate) answer: bool,
}

/// Bodies that a decoder must refuse.
pub(crate) fn invalid() -> Vec<Invalid> {
    let mut all = Vec::new();
    let mut add = |name, to, body, why, grammar, answer| {
        all.push(Invalid { name, to, body, why, grammar, answer });
    };
    let ping = cbor(&ToTracker::Ping(Ping { nonce: 5 }));
    add("empty", "tracker", vec![], "no item at all", true, false);
    add("not-cbor", "tracker", b"GET / HTTP/1.1".to_vec(), "not an array", true, false);
    add("number-only", "tracker", vec![0x81, 12], "an array of 1", true, false);
    add("array-of-3", "tracker", [&[0x83][..], &ping[1..], &[0][..]].concat(), "an array of 3", true, false);
    let indefinite = [&[0x9f][..], &ping[1..], &[0xff][..]].concat();
    add("indefinite-array", "tracker", indefinite, "the outer array has a definite length", false, false);
    add("number-is-text", "tracker", vec![0x82, 0x61, b'a', 0xa0], "the number is no uint", true, false);
    let cut = ping[..ping.len() - 1].to_vec();
    add("cut-off", "tracker", cut, "ends within the message", true, true);
    let more = [&ping[..], &[0][..]].concat();
    add("something-follows", "tracker", more, "a second item in the frame", false, true);
    let bomb = vec![0x82, 0x18, 42, 0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    add("length-bomb", "tracker", bomb, "an array of 2^64-1 items that are not there", true, true);
    add("field-missing", "tracker", vec![0x82, 12, 0xa0], "the nonce is missing", true, true);
    let text = write(12, |e| e.map(1)?.u8(1)?.str("5")?.ok());
    add("field-of-wrong-type", "tracker", text, "the nonce is a text", true, true);
    let key = write(7, |e| e.map(1)?.u8(1)?.bytes(&[7; 31])?.ok());
    add("short-media-id", "tracker", key, "a media id of 31 bytes", true, true);
    let paths = [
        ("path-empty", "", "an empty path", true),
        ("path-dots", "music/../secret", "a .. segment", false),
        ("path-leading-slash", "/music/a.ogg", "an empty segment", false),
        ("path-control", "music/\u{1b}[2J", "a control character", false),
        ("path-backslash", "music\\a.ogg", "a backslash", false),
        ("path-override", "music/\u{202e}ggo.a", "a bidirectional override", false),
    ];
    for (name, path, why, grammar) in paths {
        let body = write(11, |e| e.map(2)?.u8(1)?.u8(1)?.u8(2)?.str(path)?.ok());
        add(name, "tracker", body, why, grammar, true);
    }
    let long = write(11, |e| e.map(2)?.u8(1)?.u8(1)?.u8(2)?.str(&"a".repeat(1025))?.ok());
    add("path-too-long", "tracker", long, "a path of 1025 bytes", true, true);
    let utf8 = write(11, |e| e.map(2)?.u8(1)?.u8(1)?.u8(2)?.str("abcd")?.ok());
    let utf8: Vec<u8> = utf8.iter().map(|b| if *b == b'b' { 0xff } else { *b }).collect();
    add("path-not-utf8", "tracker", utf8, "text that is not UTF-8", true, true);

    let bad_hello = |edit: &dyn Fn(&mut Hello)| {
        let mut h = hello();
        edit(&mut h);
        cbor(&ToTracker::Hello(h))
    };
    let agent = bad_hello(&|h| h.agent = "x".repeat(limits::TEXT + 1));
    add("agent-too-long", "tracker", agent, "an agent of 1025 bytes", true, true);
    let twice = bad_hello(&|h| h.offers.push(h.offers[0].clone()));
    add("offer-twice", "tracker", twice, "one protocol name in two offers", false, true);
    let reach = bad_hello(&|h| h.reach = vec![h.reach[0]; limits::REACH + 1]);
    add("reach-too-many", "tracker", reach, "17 addresses", false, true);
    let endpoint = bad_hello(&|h| h.offers[0].endpoint = "x".repeat(limits::ENDPOINT + 1));
    add("endpoint-too-long", "tracker", endpoint, "an endpoint of 513 bytes", true, true);
    let name = cbor(&ToTracker::Hello(hello()));
    let name: Vec<u8> = name.iter().map(|b| if *b == b'h' { b'H' } else { *b }).collect();
    add("protocol-name", "tracker", name, "a protocol name with a capital", false, true);
    let ip = write(13, |e| e.map(1)?.u8(1)?.array(1)?.array(3)?.u8(0)?.bytes(&[1; 5])?.u16(1)?.ok());
    add("ip-of-5-bytes", "tracker", ip, "an IP address of 5 bytes", true, true);
    let port = write(13, |e| e.map(1)?.u8(1)?.array(1)?.array(3)?.u8(0)?.bytes(&[1; 4])?.u32(65_536)?.ok());
    add("port-too-large", "tracker", port, "port 65536", true, true);
    let intent =
        cbor(&ToTracker::Join(Join { at: None, running: Vec::new(), have: PageRanges::new(), ..join() }));
    let at = intent.windows(2).position(|w| w == [6, 1]).expect("the intent");
    let mut intent = intent;
    intent[at + 1] = 3;
    add("intent-unknown", "tracker", intent, "an intent that version 1 does not have", true, true);

    let have = |ranges: &[u64]| {
        write(4, |e| {
            e.map(3)?.u8(1)?.bytes(&id().0)?.u8(2)?.array(0)?.u8(3)?.array(ranges.len() as u64)?;
            ranges.iter().try_for_each(|n| e.u64(*n)?.ok())
        })
    };
    add("ranges-odd", "tracker", have(&[0, 1, 5]), "an odd number of items", false, true);
    add("ranges-empty-run", "tracker", have(&[0, 0]), "a run of 0 pages", false, true);
    add(
        "ranges-adjacent",
        "tracker",
        have(&[0, 1, 0, 1]),
        "a second run without a gap before it",
        false,
        true,
    );
    add("ranges-beyond", "tracker", have(&[1 << 40, 1]), "a page beyond 2^40", false, true);
    add("ranges-overflow", "tracker", have(&[5, u64::MAX]), "a run that overflows", false, true);
    let items = vec![ServedItem { assignment: 0, bytes: 0 }; limits::ITEMS + 1];
    let served = cbor(&ToTracker::Served(Served { items }));
    add("served-too-many", "tracker", served, "1025 items", false, true);

    let crowd = vec![place("192.0.2.1"); limits::ITEMS + 1];
    let crowd = cbor(&ToTracker::Audience(Audience { request: 1, media: id(), addresses: crowd }));
    add("audience-too-many", "tracker", crowd, "1025 addresses", false, true);
    let one = Givers { index: 3, peers: 1, sent: 0, weight: 1000 };
    let twice = Guidance { request: 1, listeners: 0, hits: 0, givers: vec![one; 2] };
    let twice = cbor(&ToPeer::Guidance(twice));
    add("guidance-out-of-order", "peer", twice, "an address that is there twice", false, true);

    let version = cbor(&ToPeer::Welcome(Welcome {
        version: 0,
        epoch: 0,
        time: 0,
        observed: addr(NetKind::Udp, "192.0.2.1:1"),
        ticket_key: TicketKey([0; 32]),
        ack_delay: 0,
    }));
    add("version-0", "peer", version, "version 0", false, true);
    let assign = |edit: &dyn Fn(&mut Assignment)| {
        let mut a = assignment();
        edit(&mut a);
        cbor(&ToPeer::Assign(vec![a].into()))
    };
    let reserve = assign(&|a| a.need = Need::Reserve);
    add("assignment-reserve", "peer", reserve, "a reserve among orders", false, true);
    let orders = cbor(&ToPeer::Reserve(Reserve { assignments: vec![assignment()] }));
    add("reserve-urgent", "peer", orders, "a reserve that is urgent", false, true);
    let names = |n: usize| (0..n).map(|i| format!("x{i}").parse().expect("a name")).collect();
    let wide = Shortage { protocols: names(limits::OFFERS + 1), ..shortage() };
    let wide = cbor(&ToPeer::Assign(Assign { assignments: Vec::new(), shortages: Some(vec![wide]) }));
    add("shortage-protocols", "peer", wide, "33 protocols of a shortage", false, true);
    add("assignment-0", "peer", assign(&|a| a.id = 0), "an assignment with number 0", false, true);
    let stand_ins = assign(&|a| a.stand_ins = vec![source(); limits::STAND_INS + 1]);
    add("stand-ins-too-many", "peer", stand_ins, "5 stand-ins", false, true);
    let ticket = assign(&|a| a.source.ticket.body = vec![0; limits::TICKET + 1].into());
    add("ticket-too-long", "peer", ticket, "a ticket body of 513 bytes", false, true);
    let backwards = assign(&|a| a.pages = PageSet::range(10, 9));
    add("set-backwards", "peer", backwards, "a page set that ends before it begins", false, true);
    let beyond = assign(&|a| a.pages = PageSet::range(1 << 40, 1 << 40));
    add("set-beyond", "peer", beyond, "a page set beyond 2^40", true, true);
    let stripe = |s| assign(&|a| a.pages.stripe = Some(s));
    let bad = Stripe { index: 4, of: 4, group: 1 };
    add("stripe-index", "peer", stripe(bad), "stripe 4 of 4", false, true);
    let bad = Stripe { index: 0, of: 1025, group: 1 };
    add("stripe-of", "peer", stripe(bad), "1025 stripes", true, true);
    let bad = Stripe { index: 0, of: 4, group: 0 };
    add("stripe-group", "peer", stripe(bad), "a group of 0 pages", true, true);
    let text = ErrorMessage {
        code: ErrorCode::INTERNAL,
        request: None,
        media: None,
        text: "x".repeat(limits::TEXT + 1),
        retry: None,
    };
    add("error-text-too-long", "peer", cbor(&ToPeer::ErrorMessage(text)), "a text of 1025 bytes", true, true);
    let withheld = vec![id(); limits::ITEMS + 1];
    let many = cbor(&ToTracker::Allow(Allow { up: None, down: None, near: false, withheld, once: None }));
    add("withheld-too-many", "tracker", many, "1025 withheld media", true, true);
    let marks = vec![Mark { reason: MarkReason::ALTERED, count: 1 }; limits::MARKS + 1];
    let marked = cbor(&ToPeer::Standing(Standing { marks, ..standing() }));
    add("marks-too-many", "peer", marked, "17 marks of a standing", false, true);
    all
}

pub(crate) fn file() -> Value {
    let message = |(name, m): (&str, Message)| {
        let (kind, fields) = m.meaning();
        json!({ "name": name, "to": m.to(), "message": kind, "hex": hex(&m.body()), "fields": fields })
    };
    let tolerated = |(name, body, m, why): (&str, Vec<u8>, Message, &str)| {
        let (kind, fields) = m.meaning();
        let again = hex(&m.body());
        json!({ "name": name, "to": m.to(), "message": kind, "hex": hex(&body), "fields": fields, "encoded": again, "why": why })
    };
    let refused = |i: Invalid| json!({ "name": i.name, "to": i.to, "hex": hex(&i.body), "why": i.why, "grammar": i.grammar, "answer": i.answer });
    json!({
        "valid": Value::Array(valid().into_iter().map(message).collect()),
        "tolerated": Value::Array(loose().into_iter().map(tolerated).collect()),
        "invalid": Value::Array(invalid().into_iter().map(refused).collect()),
    })
}

pub(crate) fn frames() -> Value {
    let mut two = Vec::new();
    ToTracker::Ping(Ping { nonce: 1 }).write(&mut two);
    ToTracker::Leave(Leave { media: id() }).write(&mut two);
    let bodies = [cbor(&ToTracker::Ping(Ping { nonce: 1 })), cbor(&ToTracker::Leave(Leave { media: id() }))];
    let mut empty = Vec::new();
    frame::write(&0u8, &mut empty);
    let mut partly = two.clone();
    partly.truncate(two.len() - 1);
    let case = |name, bytes: &[u8], bodies: &[Vec<u8>], rest: usize| json!({ "name": name, "hex": hex(bytes), "bodies": bodies.iter().map(|b| hex(b)).collect::<Vec<_>>(), "rest": rest });
    json!({
        "valid": [
            case("two", &two, &bodies, 0),
            case("second-incomplete", &partly, &bodies[..1], partly.len() - 4 - bodies[0].len()),
            case("header-incomplete", &[0, 0, 0], &[], 3),
            case("empty-body", &[0; 4], &[Vec::new()], 0),
            case("largest-incomplete", &[0, 0x10, 0, 0], &[], 4),
        ],
        "invalid": [
            { "name": "too-long", "hex": "00100001", "why": "a body of 2^20 + 1 bytes: close the connection" },
            { "name": "http", "hex": hex(b"GET / HTTP/1.1\r\n\r\n"), "why": "another protocol: the length is beyond the limit" },
        ],
    })
}
