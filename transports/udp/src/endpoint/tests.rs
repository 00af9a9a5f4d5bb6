use iceshare::icet::stream::EndCode;
use iceshare::icet::{PageSet, Stripe};

use super::sim::{Link, Net, limits, link, page_len};
use super::*;
use crate::wire::MIN_DATAGRAM;
use crate::wire::datagram::KNOCK_LEN;

const WINDOW: u64 = 4 << 20;

fn pages(first: u64, last: u64) -> PageSet {
    PageSet::range(first, last)
}

fn ended(of: usize, fetch: (AssocId, u64)) -> impl Fn(&Net) -> bool {
    move |net| net.sides[of].fetched.get(&fetch).is_some_and(|f| f.end.is_some() || f.over.is_some())
}

fn bytes(set: PageSet) -> u64 {
    set.iter(set.last.unwrap() + 1).map(|p| page_len(p) as u64).sum()
}

#[test]
fn pages_come_two_round_trips_after_the_knock_and_the_next_ones_after_one() {
    let mut net = Net::new(1, &[link(50), link(50)]);
    let set = pages(10, 60);
    let fetch = net.fetch(1, 0, set, WINDOW);
    assert!(net.run(5.0, ended(1, fetch)));
    assert_eq!(net.sides[1].fetched[&fetch].first, Some(Now(200_000)));
    net.fetched(1, fetch).check(set);
    let begun = net.now;
    let set = PageSet { first: 3, last: Some(90), stripe: Stripe::new(1, 3, 4) };
    let fetch = net.fetch(1, 0, set, WINDOW);
    assert!(net.run(5.0, ended(1, fetch)));
    assert_eq!(net.sides[1].fetched[&fetch].first.map(|f| f.since(begun)), Some(Duration::from_millis(100)));
    net.fetched(1, fetch).check(set);
    // The other way round, over the same association.
    let fetch = net.fetch(0, 1, pages(0, 30), WINDOW);
    assert!(net.run(5.0, ended(0, fetch)));
    net.fetched(0, fetch).check(pages(0, 30));
    assert_eq!((net.sides[0].endpoint.len(), net.sides[1].endpoint.len()), (1, 1));
}

#[test]
fn all_comes_whole_whatever_the_network_does() {
    for (seed, loss, disorder, twice) in [
        (1, 0.01, 0.0, 0.0),
        (2, 0.05, 0.0, 0.0),
        (3, 0.2, 0.0, 0.0),
        (4, 0.0, 0.3, 0.1),
        (5, 0.05, 0.1, 0.05),
        (6, 0.3, 0.2, 0.2),
        (7, 0.02, 0.0, 0.5),
    ] {
        let l = Link { loss, disorder, twice, ..link(15) };
        let mut net = Net::new(seed, &[l, l]);
        let sets = [
            pages(0, 99),
            pages(200, 260),
            PageSet { first: 0, last: Some(300), stripe: Stripe::new(2, 5, 7) },
        ];
        let fetches = sets.map(|set| net.fetch(1, 0, set, WINDOW));
        for (set, fetch) in sets.into_iter().zip(fetches) {
            assert!(net.run(200.0, ended(1, fetch)), "seed {seed}");
            net.fetched(1, fetch).check(set);
        }
        let asked: u64 = sets.map(bytes).iter().sum();
        let sent = net.sides[0].sent_bytes as f64;
        // Every lost byte is sent once more, and little else.
        let most = asked as f64 / (1.0 - loss) * (1.1 + 0.5 * disorder) + 20_000.0;
        assert!(sent < most, "seed {seed}: {sent} bytes sent for {asked}");
        net.run(5.0, |_| false);
        assert!(net.sides.iter_mut().all(|s| s.endpoint.associations.values().all(Association::is_idle)));
    }
}

#[test]
fn nothing_is_sent_again_unasked() {
    let mut net = Net::new(3, &[Link { loss: 0.2, ..link(20) }, link(20)]);
    let set = pages(0, 50);
    let fetch = net.fetch(1, 0, set, WINDOW);
    // The receiver never asks: its words after the request are lost, its acknowledgements too.
    assert!(net.run(9.0, |n| n.sides[1].fetched[&fetch].bytes > 20_000));
    net.sides[1].link.loss = 1.0;
    let sent = net.sides[0].sent_bytes;
    net.run(4.0, |_| false);
    let probes = net.sides[0].sent_bytes - sent;
    assert!(probes < 40_000, "{probes} bytes without an acknowledgement");
    net.sides[1].link.loss = 0.0;
    assert!(net.run(20.0, ended(1, fetch)));
    net.fetched(1, fetch).check(set);
}

#[test]
fn a_long_fat_path_is_filled() {
    // 50 Mbit/s, 200 ms there and back, a queue of half of that.
    let rate = 50_000_000 / 8;
    let host = Link { rate: Some(rate), queue: rate / 10, ..link(100) };
    let mut net = Net::new(1, &[host, link(100)]);
    let set = pages(0, 20_000);
    let fetch = net.fetch(1, 0, set, WINDOW);
    net.run(4.0, |_| false);
    let (begun, before) = (net.now, net.sides[1].fetched[&fetch].bytes);
    net.run(6.0, |_| false);
    let share = (net.sides[1].fetched[&fetch].bytes - before) as f64
        / (net.now.since(begun).as_secs_f64() * rate as f64);
    assert!(share > 0.85, "{share:.3} of the line, {:?}", net.sides[0].stats());
    let first = before as f64 / (4.0 * rate as f64);
    assert!(first > 0.5, "{first:.3} of the line in the first 4 seconds");
}

#[test]
fn flows_share_a_bottleneck() {
    let mut net = Net::new(1, &[link(20), link(20), link(20), link(20)]);
    net.shared = Some((2_000_000, 80_000));
    let set = pages(0, 1_000_000);
    let a = net.fetch(2, 0, set, WINDOW);
    net.run(5.0, |_| false);
    // The later one gets its share, and they do not fill the line with losses.
    let b = net.fetch(3, 1, set, WINDOW);
    net.run(20.0, |_| false);
    let count = |net: &Net| [net.sides[2].fetched[&a].bytes as f64, net.sides[3].fetched[&b].bytes as f64];
    let before = count(&net);
    net.run(30.0, |_| false);
    let after = count(&net);
    let [x, y] = [after[0] - before[0], after[1] - before[1]];
    let jain = (x + y).powi(2) / (2.0 * (x * x + y * y));
    assert!(jain > 0.9, "{x} and {y}: {jain:.3}");
    assert!((x + y) / 60_000_000.0 > 0.85, "{:.3} of the line", (x + y) / 60_000_000.0);
    let (sent, dropped) = net.sides[..2].iter().fold((0, 0), |(a, b), s| (a + s.sent, b + s.dropped));
    assert!(dropped * 50 < sent, "{dropped} of {sent} dropped");
}

#[test]
fn datagrams_grow_to_what_the_path_carries() {
    for (mtu, least) in [(1472, 1472), (1200, 1200), (1300, 1285), (8952, 8952), (5000, 1472)] {
        let l = Link { mtu, ..link(10) };
        let mut net = Net::new(1, &[l, l]);
        let set = pages(0, 1500);
        let fetch = net.fetch(1, 0, set, WINDOW);
        assert!(net.run(60.0, ended(1, fetch)));
        net.fetched(1, fetch).check(set);
        let found = net.sides[0].endpoint.associations.values().next().unwrap().path().2;
        assert!((least..=mtu).contains(&found), "{found} of {mtu}");
        assert_eq!(net.sides[0].stats().lost, 0, "probes are no losses");
    }
    // A path that becomes narrower.
    let mut net = Net::new(1, &[link(10), link(10)]);
    let set = pages(0, 3000);
    let fetch = net.fetch(1, 0, set, 200_000);
    assert!(net.run(5.0, |n| n.sides[1].fetched[&fetch].bytes > 2_000_000));
    net.sides[0].link.mtu = 1250;
    assert!(net.run(60.0, ended(1, fetch)));
    net.fetched(1, fetch).check(set);
}

#[test]
fn a_reader_that_pauses_bounds_both_ends() {
    let mut net = Net::new(1, &[link(5), link(5)]);
    let set = pages(0, 2000);
    let window = 300_000;
    let fetch = net.fetch(1, 0, set, window);
    assert!(net.run(5.0, |n| n.sides[1].fetched[&fetch].bytes > 100_000));
    net.sides[1].fetched.get_mut(&fetch).unwrap().paused = true;
    net.run(3.0, |_| false);
    let sent = net.sides[0].sent_bytes;
    net.run(20.0, |_| false);
    let more = net.sides[0].sent_bytes - sent;
    assert!(more < 10_000, "{more} bytes while nobody reads");
    let read = net.sides[1].fetched[&fetch].bytes as u64;
    assert!(sent < read + window + 50_000, "{sent} sent, {read} read");
    net.sides[1].fetched.get_mut(&fetch).unwrap().paused = false;
    let now = net.now;
    net.sides[1].read(now, fetch.0, fetch.1);
    assert!(net.run(20.0, ended(1, fetch)));
    net.fetched(1, fetch).check(set);
    // One that never goes on is told so after 30 seconds.
    let fetch = net.fetch(1, 0, set, window);
    assert!(net.run(5.0, |n| n.sides[1].fetched[&fetch].bytes > 100_000));
    net.sides[1].fetched.get_mut(&fetch).unwrap().paused = true;
    net.run(40.0, |_| false);
    net.sides[1].fetched.get_mut(&fetch).unwrap().paused = false;
    let now = net.now;
    net.sides[1].read(now, fetch.0, fetch.1);
    assert_eq!(net.sides[1].fetched[&fetch].end, Some(EndCode::FAILED));
}

#[test]
fn a_host_stops_a_round_trip_after_it_was_told() {
    let mut net = Net::new(1, &[Link { rate: Some(1_000_000), ..link(50) }, link(50)]);
    let fetch = net.fetch(1, 0, pages(0, 100_000), WINDOW);
    assert!(net.run(5.0, |n| n.sides[1].fetched[&fetch].bytes > 100_000));
    net.sides[1].stop(fetch);
    net.run(0.06, |_| false);
    let sent = net.sides[0].sent;
    net.run(2.0, |_| false);
    assert!(net.sides[0].sent - sent <= 10, "{} datagrams more", net.sides[0].sent - sent);
    assert!(net.sides.iter().all(|s| s.endpoint.associations.values().all(Association::is_idle)));
    // The association is still good.
    let fetch = net.fetch(1, 0, pages(0, 5), WINDOW);
    assert!(net.run(2.0, ended(1, fetch)));
    net.fetched(1, fetch).check(pages(0, 5));
}

#[test]
fn a_host_that_falls_silent_is_noticed_and_one_that_is_not_there_is_unreachable() {
    let mut net = Net::new(1, &[link(20), link(20)]);
    let fetch = net.fetch(1, 0, pages(0, 100_000), WINDOW);
    assert!(net.run(5.0, |n| n.sides[1].fetched[&fetch].bytes > 100_000));
    net.sides[0].link.loss = 1.0;
    let begun = net.now;
    assert!(net.run(10.0, ended(1, fetch)));
    assert_eq!(net.sides[1].fetched[&fetch].over, Some(Over::Silent));
    let took = net.now.since(begun);
    assert!((5.0..7.5).contains(&took.as_secs_f64()), "{took:?}");
    net.run(40.0, |_| false);
    assert!(net.sides.iter().all(|s| s.endpoint.is_empty()), "and nothing is left of it");
    let fetch = net.fetch(1, 0, pages(0, 5), WINDOW);
    assert!(net.run(3.1, ended(1, fetch)));
    assert_eq!(net.sides[1].fetched[&fetch].over, Some(Over::Unreachable));
}

#[test]
fn another_host_at_the_address_is_noticed_at_once() {
    let mut net = Net::new(1, &[link(20), link(20), link(20)]);
    net.sides[0].key = net.sides[2].key;
    let fetch = net.fetch(1, 0, pages(0, 5), WINDOW);
    assert!(net.run(3.1, ended(1, fetch)));
    assert_eq!(net.sides[1].fetched[&fetch].over, Some(Over::WrongKey));
    assert_eq!(net.now, Now(40_000));
    assert!(net.sides[0].endpoint.is_empty(), "it never saw a HELLO");
}

#[test]
fn the_other_end_hears_of_an_end() {
    let mut net = Net::new(1, &[link(20), link(20)]);
    let fetch = net.fetch(1, 0, pages(0, 100_000), WINDOW);
    assert!(net.run(5.0, |n| n.sides[1].fetched[&fetch].bytes > 100_000));
    net.sides[0].endpoint.close(CloseReason::Shutdown);
    assert!(net.run(0.1, ended(1, fetch)));
    assert_eq!(net.sides[1].fetched[&fetch].over, Some(Over::Closed(CloseReason::Shutdown)));
    net.run(0.1, |_| false);
    assert!(net.sides.iter().all(|s| s.endpoint.is_empty()));
}

/// All that an endpoint keeps.
fn kept(e: &Endpoint) -> usize {
    let strangers = e.hellos.len() + e.taken.len() + e.knocks.len() + e.waiting.len();
    strangers + e.associations.len() + e.dials.len() + e.timers.len() + e.stirred.len()
}

#[test]
fn strangers_leave_nothing_behind_and_draw_less_than_they_send() {
    let identity = Identity::from_seed(&[1; 32]);
    let mut host = Endpoint::new(limits(), &identity, [1; 32]);
    let from = |i: u32| SocketAddr::new(std::net::Ipv4Addr::from(0x0a00_0000 + i).into(), 9);
    let mut answered = 0;
    for i in 0..100_000u32 {
        let (now, initiator) = (Now(u64::from(i) * 10), AssocId(u64::from(i)));
        let mut datagram = match i % 5 {
            0 => Datagram::Knock { initiator }.write(),
            1 => Datagram::Hello { initiator, cookie: [7; 32], noise: &[3; 300] }.write(),
            2 => Datagram::Answer { initiator, noise: &[3; 60] }.write(),
            3 => Datagram::Packet { to: initiator, number: i, ciphertext: &[9; 400] }.write(),
            _ => vec![u8::try_from(160 + i % 8).unwrap(); usize::try_from(i % 1500).unwrap()],
        };
        host.handle_datagram(now, from(i), &mut datagram);
        let mut out = Vec::new();
        while let Some(t) = host.poll_transmit(now, &mut out, 10) {
            answered += 1;
            assert!(t.to == from(i) && i % 5 == 0 && out.len() < datagram.len());
            out.clear();
        }
    }
    assert_eq!(kept(&host), 0);
    assert_eq!(answered, 20_000, "each KNOCK is answered");
}

/// A receiver's HELLO, and what the host said to it.
fn hello(
    host: &mut Endpoint,
    receiver: &mut Endpoint,
    at: SocketAddr,
    host_key: PeerKey,
) -> (Vec<u8>, Vec<u8>) {
    let (host_at, mut out) = (SocketAddr::from(([192, 0, 2, 9], 9)), Vec::new());
    let before = kept(host);
    receiver.connect(Now(0), host_key, &[host_at]);
    receiver.poll_transmit(Now(0), &mut out, 1).unwrap();
    assert_eq!(out.len(), KNOCK_LEN);
    host.handle_datagram(Now(0), at, &mut std::mem::take(&mut out));
    host.poll_transmit(Now(0), &mut out, 1).unwrap();
    receiver.handle_datagram(Now(0), host_at, &mut std::mem::take(&mut out));
    receiver.poll_transmit(Now(0), &mut out, 1).unwrap();
    let hello = std::mem::take(&mut out);
    assert_eq!(
        (hello.len(), kept(host)),
        (MIN_DATAGRAM, before),
        "nothing is kept before the cookie returns"
    );
    host.handle_datagram(Now(0), at, &mut hello.clone());
    host.poll_transmit(Now(0), &mut out, 1).unwrap();
    assert!(out.len() <= hello.len());
    (hello, out)
}

#[test]
fn a_hello_counts_once_and_from_one_address() {
    let keys = [1, 2].map(|i| Identity::from_seed(&[i; 32]));
    let mut host = Endpoint::new(limits(), &keys[0], [1; 32]);
    let mut receiver = Endpoint::new(limits(), &keys[1], [2; 32]);
    let at = SocketAddr::from(([192, 0, 2, 1], 7));
    let (first, answer) = hello(&mut host, &mut receiver, at, keys[0].key());
    assert_eq!((host.len(), host.hellos.len()), (1, 1));
    let say = |host: &mut Endpoint, now, from, hello: &[u8]| {
        let mut out = Vec::new();
        host.handle_datagram(now, from, &mut hello.to_vec());
        host.poll_transmit(now, &mut out, 1).map(|_| out)
    };
    assert_eq!(say(&mut host, Now(1000), at, &first), Some(answer), "the same answer, since it may be lost");
    assert_eq!(say(&mut host, Now(1000), SocketAddr::from(([192, 0, 2, 1], 8)), &first), None);
    assert_eq!(host.len(), 1);
    assert_eq!(say(&mut host, Now(10_000_000), at, &first), None, "its cookie is old");
    assert_eq!((host.len(), host.hellos.len()), (1, 0));
    // With the cookie of an honest knock but another content, it is taken up once, and comes to nothing.
    let (mut second, _) = hello(&mut host, &mut receiver, at, keys[0].key());
    assert_eq!(host.len(), 2);
    second[100] ^= 1;
    assert!(say(&mut host, Now(20), at, &second).is_some_and(|a| a.len() < MIN_DATAGRAM));
    assert_eq!(host.len(), 2);
}

#[test]
fn associations_are_bounded_and_unused_ones_make_room() {
    let keys: Vec<Identity> = (1..80).map(|i| Identity::from_seed(&[i; 32])).collect();
    let limits = Limits { associations: 10, per_ip: 4, ..limits() };
    let mut host = Endpoint::new(limits, &keys[0], [1; 32]);
    for (i, key) in keys.iter().enumerate().skip(1) {
        let i = u8::try_from(i).unwrap();
        let mut receiver = Endpoint::new(limits, key, [i; 32]);
        hello(&mut host, &mut receiver, SocketAddr::from(([10, 0, 0, i], 7)), keys[0].key());
        assert!(host.len() <= 10);
    }
    assert_eq!(host.len(), 10);
    let limits = Limits { associations: 64, ..limits };
    let mut host = Endpoint::new(limits, &keys[0], [1; 32]);
    let mut one = Endpoint::new(limits, &keys[1], [99; 32]);
    let at = SocketAddr::from(([10, 0, 1, 1], 7));
    for _ in 0..4 {
        hello(&mut host, &mut one, at, keys[0].key());
    }
    let mut out = Vec::new();
    let host_at = SocketAddr::from(([192, 0, 2, 9], 9));
    one.connect(Now(0), keys[0].key(), &[host_at]);
    one.poll_transmit(Now(0), &mut out, 1).unwrap();
    host.handle_datagram(Now(0), at, &mut std::mem::take(&mut out));
    host.poll_transmit(Now(0), &mut out, 1).unwrap();
    one.handle_datagram(Now(0), host_at, &mut std::mem::take(&mut out));
    one.poll_transmit(Now(0), &mut out, 1).unwrap();
    host.handle_datagram(Now(0), at, &mut std::mem::take(&mut out));
    assert!(host.poll_transmit(Now(0), &mut out, 1).is_some_and(|t| t.to == at), "a fifth from there");
    assert_eq!(host.len(), 4, "for one that nobody used");
}

/// How long a newcomer's handshake takes while `flood` comes: at a host that has the time to take 20
/// datagrams and to answer 10 strangers each millisecond; 10 ms away. None if its patience of 3 seconds ends.
fn delay_in(
    seed: u8,
    at: SocketAddr,
    flood: impl Fn(&mut Endpoint, Now, u64) -> (SocketAddr, Vec<u8>),
) -> Option<u64> {
    const DELAY: u64 = 10;
    // By then all places are taken.
    const FULL: u64 = 150;
    let keys = [1, 2].map(|i| Identity::from_seed(&[i; 32]));
    let mut host = Endpoint::new(limits(), &keys[0], [seed; 32]);
    let mut newcomer = Endpoint::new(limits(), &keys[1], [seed ^ 0xff; 32]);
    let host_at = SocketAddr::from(([192, 0, 2, 9], 9));
    let (mut to_host, mut back) = (VecDeque::new(), VecDeque::new());
    let mut id = None;
    for ms in 0..4000u64 {
        let now = Now(ms * 1000);
        if newcomer.poll_timeout().is_some_and(|t| t <= now) {
            newcomer.handle_timeout(now);
        }
        if ms == FULL {
            id = Some(newcomer.connect(now, keys[0].key(), &[host_at]));
        }
        let mut out = Vec::new();
        while newcomer.poll_transmit(now, &mut out, 1).is_some() {
            to_host.push_back((ms + DELAY, std::mem::take(&mut out)));
        }
        if host.poll_timeout().is_some_and(|t| t <= now) {
            host.handle_timeout(now);
        }
        let mut arrives = Vec::new();
        while to_host.front().is_some_and(|(due, _)| *due <= ms) {
            arrives.extend(to_host.pop_front());
        }
        for i in arrives.len() as u64..20 {
            let (from, mut datagram) = flood(&mut host, now, ms * 20 + i);
            host.handle_datagram(now, from, &mut datagram);
        }
        arrives.iter_mut().for_each(|(_, d)| host.handle_datagram(now, at, d));
        for _ in 0..10 {
            let Some(t) = host.poll_transmit(now, &mut out, 1) else { break };
            let datagram = std::mem::take(&mut out);
            if t.to == at {
                back.push_back((ms + DELAY, datagram));
            }
        }
        assert!(kept(&host) <= KNOCKS + WAITING + REPEATED + 5 * usize::try_from(HELLOS).unwrap() * 10);
        while back.front().is_some_and(|(due, _)| *due <= ms) {
            back.pop_front()
                .into_iter()
                .for_each(|(_, mut d)| newcomer.handle_datagram(now, host_at, &mut d));
        }
        if let Some(a) = id.and_then(|id| newcomer.association(id)) {
            if a.is_open() {
                return Some(ms - FULL);
            }
            if a.over().is_some() {
                return None;
            }
        }
    }
    None
}

#[test]
fn a_flood_does_not_keep_newcomers_out() {
    let at = SocketAddr::from(([198, 51, 100, 7], 7));
    let knock = |from: std::net::Ipv4Addr, i| {
        (SocketAddr::new(from.into(), 9), Datagram::Knock { initiator: AssocId(i) }.write())
    };
    let some = |i: u64| u32::try_from(i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32).unwrap();
    // From one neighbourhood, forged: two round trips, and hardly more.
    for seed in 0..3 {
        let took = delay_in(seed, at, |_, _, i| knock((0xcb00_7100 + some(i) % 256).into(), i));
        assert!(took.is_some_and(|ms| ms <= 45), "{took:?}");
    }
    // Forged from everywhere, or from its own neighbourhood: half of what comes has its turn, and it knocks again.
    let everywhere = |seed| delay_in(seed, at, |_, _, i| knock(some(i).into(), i));
    let at_home = |seed| delay_in(seed, at, |_, _, i| knock((0xc633_6400 + some(i) % 256).into(), i));
    for all in [(0..10).map(everywhere).collect::<Vec<_>>(), (0..10).map(at_home).collect()] {
        let soon = all.iter().flatten().filter(|ms| **ms <= 1000).count();
        assert!(soon >= 6 && all.iter().flatten().count() >= 8, "{all:?}");
    }
    // HELLOs with good cookies, ten times as many as are taken up: a newcomer from elsewhere has the next turn.
    for seed in 0..3 {
        let took = delay_in(seed, at, |host, now, i| {
            let from = SocketAddr::from(([203, 0, 113, u8::try_from(i % 250).unwrap()], 9));
            if i % 4 > 0 {
                return (from, vec![164; 40]);
            }
            let cookie = host.cookies.issue(now, AssocId(i), from);
            (from, Datagram::Hello { initiator: AssocId(i), cookie, noise: &[3; 300] }.write())
        });
        assert!(took.is_some_and(|ms| ms <= 40 + 150), "{took:?}");
    }
}

#[test]
fn a_host_may_refuse() {
    let mut net = Net::new(1, &[Link { loss: 0.3, ..link(20) }, Link { loss: 0.3, ..link(20) }]);
    // More at once than are served: the rest is told to come later.
    let fetches: Vec<_> = (0..140).map(|i| net.fetch(1, 0, pages(i, i), WINDOW)).collect();
    for fetch in &fetches {
        assert!(net.run(60.0, ended(1, *fetch)));
    }
    let codes: Vec<_> = fetches.iter().map(|f| net.sides[1].fetched[f].end).collect();
    let busy = codes.iter().filter(|c| **c == Some(EndCode::BUSY)).count();
    let good = codes.iter().filter(|c| **c == Some(EndCode::COMPLETE)).count();
    assert!(good >= 128 && busy + good == 140, "{good} served, {busy} refused");
}
