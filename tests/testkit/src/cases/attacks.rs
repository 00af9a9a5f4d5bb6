//! Hosts and strangers that do not keep to the protocol.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::{join_all, try_join_all};
use futures_util::stream::{self, TryStreamExt};
use iceshare::icet::{Abilities, NetAddr, NetKind, PageSet, limits};
use iceshare::protocol::{ErrorKind, Request};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, timeout, timeout_at};

use crate::failure::ensure;
use crate::media::{Media, Random};
use crate::receive::Expected;
use crate::relay::{Direction, Plan, Relay, Tamper};
use crate::world::{anything, patience};
use crate::{Failure, Options, Peer, Subject, World, observe};

/// How long a fetch from a bad host may be silent: the driver ends it then.
const SILENCE: Duration = Duration::from_secs(3);
/// What bad hosts may cost in memory; and in room that is asked for, written to or not. That is more: connections have large
/// buffers, and some linger. A length of four bytes or more that is believed costs a multiple of it.
const MEMORY: u64 = 64 << 20;
const ROOM: u64 = 512 << 20;

/// Bytes of a direction of which bits are flipped, which ones, and how many requests run at once.
const FLIPPED: u64 = 96;
const BITS: [u8; 2] = [0xff, 0x41];
/// Bytes of a direction in which numbers in digits are raised, and how many of them at most.
const RAISED: (usize, usize) = (1024, 32);
const AT_ONCE: usize = 48;

/// The host's port of the kind that is dialled.
fn port(world: &World) -> Result<(NetKind, SocketAddr), Failure> {
    let kind = world.host.protocol.implementation.dials();
    let found = kind.and_then(|k| Some((k, world.host.port(k)?)));
    found.ok_or_else(|| Failure::new("the host has no such port"))
}

/// A request that goes through a relay.
fn through(relay: &Relay, kind: NetKind, mut request: Request) -> Request {
    request.host.addrs = vec![NetAddr { kind, at: relay.addr() }];
    request
}

pub(super) async fn nobody_is_there(s: &Subject) -> Result<(), Failure> {
    let world = World::new(s).await?;
    let media = world.music(20)?;
    let gone = Peer::start(s, Options::default()).await?;
    let mut request = world.request(&media, world.unit(&media, PageSet::range(0, 9)));
    request.host = gone.address();
    gone.net.shutdown().await;
    drop(gone);
    let (bytes, end) = world.anything(request, 0, patience()).await?;
    match end {
        Some(Err(e)) => ensure!(
            matches!(e.kind, ErrorKind::Unreachable | ErrorKind::Broken)
                // Tests run beside each other: a host of another may have its port by now, which says so.
                || matches!(e.kind, ErrorKind::WrongKey | ErrorKind::NoMedia | ErrorKind::Denied),
            "{:?} ({e}), not Unreachable",
            e.kind
        ),
        end => return Err(Failure::new(format!("{bytes} bytes from nobody, and {end:?} as the end"))),
    }
    world.end().await;
    Ok(())
}

pub(super) async fn host_breaks_off(s: &Subject) -> Result<(), Failure> {
    let world = World::new(s).await?;
    let media = world.music(200)?;
    let (kind, to) = port(&world)?;
    let what = world.unit(&media, PageSet::range(0, media.pages() - 1));
    let expected = Expected::of(&media, what.clone());
    let one = async |after: u64| {
        let plan = Plan { tamper: Tamper::Cut, after, direction: Direction::Down, seed: after };
        let relay = Relay::start(kind, to, plan).await?;
        let request = through(&relay, kind, world.request(&media, what.clone()));
        let visitor = world.visitor().await?;
        let fetch = world.fetch_as(&visitor, request, &expected);
        // Nobody is told when datagrams pass no more: that is a silence, which the driver ends.
        let limit = if kind == NetKind::Udp { 2 * SILENCE } else { 2 * patience() };
        let (came, end) = match timeout(limit, fetch).await {
            Ok(fetched) => fetched?,
            Err(_) if kind == NetKind::Udp => return Ok(()),
            Err(_) => return Err(Failure::new("it hangs")),
        };
        let all = expected.is_all(&came);
        ensure!(
            end.is_err() || all || !world.can(Abilities::ORDERED),
            "after {after} bytes the host vanished; {came:?} came, and it ended well"
        );
        Ok(())
    };
    try_join_all([0, 1, 100, 1500, 20_000, 150_000, 400_000].map(one)).await?;
    world.whole(&media, what.clone()).await.map_err(|e| e.when("afterwards"))?;
    world.end().await;
    Ok(())
}

/// Fetches through relays that tamper; whatever comes, it is not too much, and the next good request works.
async fn tampered(
    s: &Subject,
    direction: Direction,
    tampers: &[Tamper],
    afters: &[u64],
) -> Result<(), Failure> {
    let world = World::new(s).await?;
    let media = world.music(60)?;
    let (kind, to) = port(&world)?;
    let what = world.unit(&media, PageSet::range(0, media.pages() - 1));
    let little = world.unit(&media, PageSet::range(2, 4));
    world.whole(&media, what.clone()).await?;
    let (memory, heap) = (observe::Peak::watch(), observe::Heap::watch());
    // What is resident, and what was asked for, though nothing was written there.
    let growth = || [memory.as_ref().map_or(0, observe::Peak::growth), heap.growth()];
    // The most that a receiver can know: so many pages, each of the largest size.
    let most = |pages: u64| pages * u64::from(*limits::PAGE_BYTES.end());
    let as_visitor = async |visitor: &Peer, (tamper, after): (Tamper, u64)| {
        let plan = Plan { tamper, after, direction, seed: after ^ 0x5eed };
        let relay = Relay::start(kind, to, plan).await?;
        // An end, or a silence that the driver ends.
        let (what, most, silence) = match tamper {
            Tamper::Flip(_) | Tamper::Raise => (&little, most(3), SILENCE / 2),
            _ => (&what, most(media.pages()), SILENCE),
        };
        let request = through(&relay, kind, world.request(&media, what.clone()));
        let shown = |e: Failure| e.when(format!("{tamper:?} after {after} bytes"));
        anything(visitor.fetch(request), most, silence).await.map_err(shown)?;
        Ok::<_, Failure>(())
    };
    // What so many receivers take in any case: some of those below wait for each other.
    let visitors = try_join_all((0..AT_ONCE).map(|_| world.visitor())).await?;
    try_join_all((0..).zip(&visitors).map(|(number, v)| as_visitor(v, (Tamper::Nothing, number)))).await?;
    let usual = growth();
    join_all(visitors.into_iter().map(async |v| v.net.shutdown().await)).await;
    let checked = async |(tamper, after): (Tamper, u64)| {
        let visitor = world.visitor().await?;
        as_visitor(&visitor, (tamper, after)).await?;
        visitor.net.shutdown().await;
        let [resident, room] = growth();
        let (resident, room) = (resident.saturating_sub(usual[0]), room.saturating_sub(usual[1]));
        ensure!(resident <= MEMORY, "{tamper:?} after {after} bytes: memory has grown by {resident} bytes");
        ensure!(room <= ROOM, "{tamper:?} after {after} bytes: room was made in memory for {room} bytes");
        Ok(())
    };
    let mut all = Vec::new();
    for tamper in tampers {
        all.extend(afters.iter().map(|after| Ok((*tamper, *after))));
    }
    stream::iter(all).try_for_each_concurrent(AT_ONCE, &checked).await?;
    world.whole(&media, what.clone()).await.map_err(|e| e.when(format!("after {tampers:?}")))?;
    // Where lengths and kinds stand: each of the first bytes.
    if tampers.len() > 1 {
        let flips = (0..FLIPPED).flat_map(|at| BITS.map(|bits| (Tamper::Flip(bits), at)));
        let (heard, told) = said(&world, &media).await?;
        let bytes = if direction == Direction::Up { heard } else { told }.concat();
        let raised = numbers(&bytes).into_iter().map(|at| (Tamper::Raise, at));
        stream::iter(flips.chain(raised).map(Ok)).try_for_each_concurrent(AT_ONCE, &checked).await?;
        world.whole(&media, what).await.map_err(|e| e.when("after flipped bits and raised lengths"))?;
    }
    world.end().await;
    Ok(())
}

pub(super) async fn host_sends_garbage(s: &Subject) -> Result<(), Failure> {
    let tampers = [
        Tamper::Garble,
        Tamper::Insert(1),
        Tamper::Insert(100_000),
        Tamper::Swallow(1),
        Tamper::Swallow(70_000),
        Tamper::Replace,
    ];
    tampered(s, Direction::Down, &tampers, &[0, 1, 60, 300, 2000, 60_000]).await
}

pub(super) async fn host_never_stops(s: &Subject) -> Result<(), Failure> {
    tampered(s, Direction::Down, &[Tamper::Endless], &[0, 300, 20_000]).await
}

pub(super) async fn requests_are_garbage(s: &Subject) -> Result<(), Failure> {
    let tampers = [
        Tamper::Garble,
        Tamper::Insert(1000),
        Tamper::Swallow(10),
        Tamper::Replace,
        Tamper::Endless,
        Tamper::Cut,
    ];
    tampered(s, Direction::Up, &tampers, &[0, 1, 20, 60, 200]).await
}

/// Where numbers in digits end.
fn numbers(bytes: &[u8]) -> Vec<u64> {
    let digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    let ends = (0..bytes.len().min(RAISED.0)).filter(|at| digit(*at) && !digit(at + 1));
    ends.take(RAISED.1).map(|at| at as u64).collect()
}

/// What a receiver says to get a little of a media, and what the host answers, as it goes over the wire.
async fn said(world: &World, media: &Media) -> Result<(Vec<Vec<u8>>, Vec<Vec<u8>>), Failure> {
    let (kind, to) = port(world)?;
    let plan = Plan { tamper: Tamper::Nothing, after: 0, direction: Direction::Up, seed: 0 };
    let relay = Relay::start(kind, to, plan).await?;
    let what = world.unit(media, PageSet::range(2, 4));
    let expected = Expected::of(media, what.clone());
    let (visitor, request) = (world.visitor().await?, through(&relay, kind, world.request(media, what)));
    let (_, end) = world.fetch_as(&visitor, request, &expected).await?;
    end?;
    Ok((relay.heard(), relay.told()))
}

/// Connections that say the beginning of something and then nothing, or nonsense. They stay open.
async fn callers(at: SocketAddr, said: &[u8]) -> Result<Vec<TcpStream>, Failure> {
    let (mut random, mut open) = (Random(5), Vec::new());
    let mut begin = async |bytes: &[u8]| {
        let mut stream = TcpStream::connect(at).await?;
        // It may be closed at once.
        let _ = stream.write_all(bytes).await;
        open.push(stream);
        Ok::<_, Failure>(())
    };
    for i in 0..32_u64 {
        begin(&random.bytes(usize::try_from(i * i * 16).unwrap_or(0))).await?;
    }
    for len in (0..said.len()).step_by((said.len() / 48).max(1)) {
        let beginning = said.get(..len).unwrap_or_default();
        begin(beginning).await?;
        begin(&[beginning, &random.bytes(2000)].concat()).await?;
    }
    Ok(open)
}

/// Datagrams of nonsense, and ones that look right at first.
async fn senders(at: SocketAddr, said: &[Vec<u8>]) -> Result<(), Failure> {
    let mut random = Random(6);
    let socket = UdpSocket::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    for i in 0..10_000_u32 {
        let len = usize::try_from(random.within(0..1400)).unwrap_or(0);
        let mut datagram = random.bytes(len);
        if let Some(first) = datagram.first_mut() {
            *first = i.to_le_bytes()[0];
        }
        let known = usize::try_from(random.bits()).ok().and_then(|n| said.get(n % said.len().max(1)));
        if let (Some(known), 1..=3) = (known, i % 4) {
            datagram.clone_from(known);
            let at = usize::try_from(random.within(0..known.len().max(1) as u64)).unwrap_or(0);
            match i % 4 {
                1 => datagram.truncate(at),
                2 => datagram.get_mut(at..).unwrap_or_default().fill(0xff),
                _ => {}
            }
        }
        // A full buffer, or nobody there: all the same.
        let _ = socket.send_to(&datagram, at).await;
    }
    Ok(())
}

pub(super) async fn strangers_at_the_port(s: &Subject) -> Result<(), Failure> {
    let world = World::new(s).await?;
    let media = world.music(300)?;
    let (said, _) = said(&world, &media).await?;
    let what = world.unit(&media, PageSet::range(0, media.pages() - 1));
    world.whole(&media, what.clone()).await?;
    let memory = observe::Peak::watch();
    let noise = async {
        let mut open = Vec::new();
        if let Some(tcp) = world.host.port(NetKind::Tcp) {
            open = callers(tcp, &said.concat()).await?;
        }
        if let Some(udp) = world.host.port(NetKind::Udp) {
            senders(udp, &said).await?;
        }
        Ok::<_, Failure>(open)
    };
    let fetches = async {
        for _ in 0..5 {
            world.whole(&media, what.clone()).await?;
        }
        Ok(())
    };
    let (open, ()) = tokio::try_join!(noise, fetches)?;
    world.whole(&media, what.clone()).await.map_err(|e| e.when("beside callers that fell silent"))?;
    let grown = memory.as_ref().map_or(0, observe::Peak::growth);
    ensure!(grown <= MEMORY, "memory has grown by {grown} bytes");
    drop::<Vec<TcpStream>>(open);
    world.whole(&media, what).await?;
    world.end().await;
    Ok(())
}

/// Parts of a request that arrive, and then nothing.
const PARTS: u64 = 8;
/// Tasks that may come and go.
const FEW: usize = 8;

pub(super) async fn half_a_request(s: &Subject) -> Result<(), Failure> {
    let s = &s.in_a_hurry();
    let world = World::new(s).await?;
    let media = world.music(60)?;
    let (kind, to) = port(&world)?;
    let all = said(&world, &media).await?.0.iter().map(|b| b.len() as u64).sum::<u64>();
    let what = world.unit(&media, PageSet::range(2, 4));
    let tasks = observe::settled(SILENCE / 6, patience(), || observe::tasks() as u64).await?;
    let one = async |part: u64| {
        let after = (all * part / PARTS).min(all - 1);
        let plan = Plan { tamper: Tamper::Stall, after, direction: Direction::Up, seed: part };
        let relay = Relay::start(kind, to, plan).await?;
        let visitor = world.visitor().await?;
        let mut stream = visitor.fetch(through(&relay, kind, world.request(&media, what.clone())));
        let heard = || relay.heard().iter().map(|b| b.len() as u64).sum::<u64>();
        // Whatever the receiver makes of it: it is there until its part has passed.
        let begun = Instant::now();
        let mut ticks = tokio::time::interval(SILENCE / 60);
        while heard() <= after && begun.elapsed() < SILENCE {
            tokio::select! {
                piece = stream.next() => if piece.is_none() { break },
                _ = ticks.tick() => {}
            }
        }
        drop(stream);
        visitor.net.shutdown().await;
        Ok::<_, Failure>(relay)
    };
    let relays = try_join_all((1..=PARTS).map(one)).await?;
    observe::until(patience(), || match relays.iter().map(Relay::open).sum::<usize>() {
        0 => Ok(()),
        open => Err(format!("{open} connections are still open by which a part of a request came")),
    })
    .await?;
    // Where there are no connections to be seen, what works for them: the relays have a task each.
    let most = usize::try_from(tasks).unwrap_or(0) + relays.len() + FEW;
    observe::until(patience(), || match observe::tasks() {
        now if now <= most => Ok(()),
        now => Err(format!("{now} tasks live, at most {most} should after parts of requests")),
    })
    .await?;
    let what = world.unit(&media, PageSet::range(0, media.pages() - 1));
    world.whole(&media, what).await.map_err(|e| e.when("after parts of requests"))?;
    world.end().await;
    Ok(())
}

/// Bytes that an address gets for each one that was sent in its name, at most (RFC 9000, section 8.1).
const AMPLIFIED: u64 = 3;

pub(super) async fn no_amplifier(s: &Subject) -> Result<(), Failure> {
    let world = World::new(s).await?;
    let media = world.music(300)?;
    let (said, _) = said(&world, &media).await?;
    let udp = world.host.port(NetKind::Udp).ok_or_else(|| Failure::new("the host has no UDP port"))?;
    // What a good receiver says, from where nobody ever hears the answers: its first word again and again, and all of it.
    let first: Vec<_> = said.iter().take(1).cycle().take(20).cloned().collect();
    let draw = async |words: Vec<Vec<u8>>| {
        let victim = UdpSocket::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        let mut sent = 0;
        for datagram in &words {
            sent += victim.send_to(datagram, udp).await? as u64;
        }
        let (mut buf, mut drawn) = (vec![0; 65_535], 0);
        // Also what is sent again for want of an answer.
        let end = Instant::now() + Duration::from_secs(4);
        while let Ok(got) = timeout_at(end, victim.recv(&mut buf)).await {
            drawn += got? as u64;
        }
        ensure!(
            drawn <= AMPLIFIED * sent,
            "{sent} bytes in {} datagrams, from an address where nobody listens, drew {drawn} bytes",
            words.len()
        );
        Ok(())
    };
    try_join_all([first, said].map(draw)).await?;
    world.end().await;
    Ok(())
}
