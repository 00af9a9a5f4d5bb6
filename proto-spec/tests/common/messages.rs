//! Strategies for every message of IceT.

use std::net::{IpAddr, SocketAddr};

use icet::key::{Hash, Signature};
use icet::media::Signed;
use icet::message::*;
use icet::ticket::Ticket;
use icet::{
    Abilities, HostAddr, Limits, NetAddr, NetKind, Offer, PageRanges, PeerKey, ProvenSlice, TicketKey, limits,
};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;

use super::common::{media, need, page_set, path, protocol};

type Bytes32 = [u8; 32];

pub(crate) fn key() -> impl Strategy<Value = PeerKey> {
    any::<Bytes32>().prop_map(PeerKey)
}

fn kind() -> impl Strategy<Value = NetKind> {
    prop_oneof![Just(NetKind::Udp), Just(NetKind::Tcp)]
}

pub(crate) fn addr() -> impl Strategy<Value = NetAddr> {
    (kind(), any::<IpAddr>(), any::<u16>())
        .prop_map(|(kind, ip, port)| NetAddr { kind, at: SocketAddr::new(ip.to_canonical(), port) })
}

pub(crate) fn ranges() -> impl Strategy<Value = PageRanges> {
    vec((0..limits::PAGES, 0u64..5000), 0..8)
        .prop_map(|runs| PageRanges::from_runs(runs.into_iter().map(|(a, n)| (a, a + n))))
}

fn position() -> impl Strategy<Value = Position> {
    let all = [Position::Page, Position::Byte, Position::Time];
    (0usize..3, any::<u64>()).prop_map(move |(i, n)| all[i](n))
}

fn text(max: usize) -> impl Strategy<Value = String> {
    any::<String>().prop_map(move |s| s.chars().take(max / 4).collect())
}

fn proven() -> impl Strategy<Value = ProvenSlice> {
    (vec(any::<u8>(), 0..100), vec(any::<Bytes32>(), 0..5)).prop_map(|(slice, proof)| ProvenSlice {
        slice: slice.into(),
        proof: proof.into_iter().map(Hash).collect(),
    })
}

fn head() -> impl Strategy<Value = Head> {
    let earlier = of(vec(signed(), 0..4));
    (media(), signed(), earlier, of(any::<i64>())).prop_map(|(media, head, earlier, time)| Head {
        media,
        head,
        earlier,
        time,
    })
}

fn signed() -> impl Strategy<Value = Signed> {
    (vec(any::<u8>(), 0..300), any::<Bytes32>(), any::<Bytes32>()).prop_map(|(body, a, b)| {
        let mut signature = [0; 64];
        signature[..32].copy_from_slice(&a);
        signature[32..].copy_from_slice(&b);
        Signed { body: body.into(), signature: Signature(signature) }
    })
}

fn ticket() -> impl Strategy<Value = Ticket> {
    (vec(any::<u8>(), 0..limits::TICKET), any::<Bytes32>())
        .prop_map(|(body, mac)| Ticket { body: body.into(), mac: Hash(mac) })
}

fn host() -> impl Strategy<Value = HostAddr> {
    (key(), protocol(), vec(addr(), 0..limits::REACH), text(limits::ENDPOINT), any::<u32>()).prop_map(
        |(key, protocol, addrs, endpoint, bits)| HostAddr {
            key,
            protocol,
            addrs,
            endpoint,
            abilities: Abilities(bits),
        },
    )
}

fn dial() -> impl Strategy<Value = Dial> {
    prop_oneof![Just(Dial::Receiver), Just(Dial::Host), Just(Dial::Both)]
}

fn intent() -> impl Strategy<Value = Intent> {
    prop_oneof![Just(Intent::Whole), Just(Intent::Play), Just(Intent::Share)]
}

fn source() -> impl Strategy<Value = Source> {
    (host(), dial(), ticket()).prop_map(|(host, dial, ticket)| Source { host, dial, ticket })
}

fn offer() -> impl Strategy<Value = Offer> {
    (protocol(), any::<u32>(), any::<bool>(), text(limits::ENDPOINT), of(kind())).prop_map(
        |(name, bits, serves, endpoint, dials)| Offer {
            name,
            abilities: Abilities(bits),
            serves,
            endpoint,
            dials,
        },
    )
}

fn assignment() -> impl Strategy<Value = Assignment> {
    let stand_ins = vec(source(), 0..limits::STAND_INS);
    (1u64.., media(), page_set(), need(), source(), stand_ins, of(any::<u32>()), any::<u32>()).prop_map(
        |(id, media, pages, need, source, stand_ins, deadline, lapse)| Assignment {
            id,
            media,
            pages,
            need,
            source,
            stand_ins,
            deadline,
            lapse,
        },
    )
}

fn shortage() -> impl Strategy<Value = Shortage> {
    (media(), any::<[u32; 4]>(), vec(protocol(), 0..5), of(any::<u32>()), of(any::<u32>())).prop_map(
        |(media, [hosts, unshared, unreachable, failed], protocols, unwilling, silent)| Shortage {
            media,
            hosts,
            unshared,
            unreachable,
            failed,
            protocols,
            unwilling,
            silent,
        },
    )
}

fn hello() -> impl Strategy<Value = Hello> {
    let limits = (of(any::<u64>()), of(any::<u64>())).prop_map(|(up, down)| Limits { up, down });
    let offers = vec(offer(), 0..5).prop_map(|mut offers: Vec<Offer>| {
        offers.sort_by(|a, b| a.name.cmp(&b.name));
        offers.dedup_by(|a, b| a.name == b.name);
        offers
    });
    let rest = (of(any::<u64>()), of(any::<Bytes32>().prop_map(Hash)));
    (any::<u32>(), text(limits::TEXT), offers, vec(addr(), 0..limits::REACH), limits, rest).prop_map(
        |(version, agent, offers, reach, limits, (epoch, instance))| Hello {
            version,
            agent,
            proof: KeyProof::Channel,
            offers,
            reach,
            limits,
            epoch,
            instance,
        },
    )
}

fn join() -> impl Strategy<Value = Join> {
    let rest = (intent(), of(position()), vec(any::<u64>(), 0..5), of(any::<u32>()));
    (any::<u64>(), path(), of(key()), any::<u64>(), ranges(), rest).prop_map(
        |(request, path, publisher, version, have, (intent, at, running, back))| Join {
            request,
            path,
            publisher,
            version,
            have,
            intent,
            at,
            running,
            back,
        },
    )
}

fn report() -> impl Strategy<Value = Report> {
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
    let names = (media(), any::<u64>(), key(), protocol(), 0..outcomes.len());
    let figures = (any::<u64>(), any::<u64>(), any::<u64>(), of(any::<u32>()), any::<u32>(), any::<bool>());
    (names, figures).prop_map(
        move |((media, assignment, host, protocol, o), (bytes, pages, bad, first_byte, total, last))| {
            let outcome = outcomes[o];
            Report { media, assignment, host, protocol, outcome, bytes, pages, bad, first_byte, total, last }
        },
    )
}

fn slices() -> impl Strategy<Value = Slices> {
    (media(), any::<u64>(), vec(proven(), 0..4)).prop_map(|(media, request, slices)| Slices {
        media,
        request,
        slices,
    })
}

pub(crate) fn to_tracker() -> impl Strategy<Value = ToTracker> {
    let got = (any::<u64>(), ranges()).prop_map(|(assignment, pages)| Got { assignment, pages });
    let item = any::<[u64; 2]>().prop_map(|[assignment, bytes]| ServedItem { assignment, bytes });
    prop_oneof![
        hello().prop_map(ToTracker::from),
        (any::<u64>(), signed(), vec(proven(), 0..4))
            .prop_map(|(request, manifest, slices)| { Publish { request, manifest, slices }.into() }),
        join().prop_map(ToTracker::from),
        (media(), position(), of(any::<u64>()), any::<u64>(), intent())
            .prop_map(|(media, at, rate, urgent, intent)| Focus { media, at, rate, urgent, intent }.into()),
        (media(), vec(got, 0..4), ranges()).prop_map(|(media, got, lost)| Have { media, got, lost }.into()),
        report().prop_map(ToTracker::from),
        vec(item, 0..8).prop_map(|items| Served { items }.into()),
        media().prop_map(|media| Leave { media }.into()),
        slices().prop_map(ToTracker::Slices),
        (any::<u64>(), media(), position())
            .prop_map(|(request, media, at)| Locate { request, media, at }.into()),
        (media(), of(path()), any::<bool>()).prop_map(|(media, moved, release)| Withdraw {
            media,
            moved,
            release
        }
        .into()),
        (any::<u64>(), path()).prop_map(|(request, path)| InfoRequest { request, path }.into()),
        any::<u64>().prop_map(|nonce| Ping { nonce }.into()),
        vec(addr(), 0..limits::REACH).prop_map(|reach| Reach { reach }.into()),
        any::<u64>().prop_map(|request| StandingRequest { request }.into()),
        (of(any::<u64>()), of(any::<u64>()), any::<bool>(), vec(media(), 0..4), of(any::<bool>()))
            .prop_map(|(up, down, near, withheld, once)| Allow { up, down, near, withheld, once }.into()),
        head().prop_map(ToTracker::from),
    ]
}

fn info() -> impl Strategy<Value = InfoAnswer> {
    (any::<[u64; 6]>(), signed(), vec(path(), 0..3), of(signed())).prop_map(
        |([request, listeners, hits, complete, sent, received], manifest, alternatives, head)| InfoAnswer {
            request,
            manifest,
            listeners,
            hits,
            complete,
            sent,
            received,
            alternatives,
            head: head.map(Box::new),
        },
    )
}

fn standing() -> impl Strategy<Value = Standing> {
    let mark = (any::<u16>(), any::<u64>());
    let mark = mark.prop_map(|(reason, count)| Mark { reason: MarkReason(reason), count });
    (any::<[u64; 5]>(), any::<[u32; 2]>(), vec(mark, 0..limits::MARKS)).prop_map(
        |([request, sent, received, peers, ahead], [weight, trust], marks)| Standing {
            request,
            sent,
            received,
            weight,
            peers,
            ahead,
            trust,
            marks,
        },
    )
}

pub(crate) fn to_peer() -> impl Strategy<Value = ToPeer> {
    prop_oneof![
        (1u32.., any::<[u64; 2]>(), addr(), any::<Bytes32>(), any::<u32>()).prop_map(
            |(version, [epoch, time], observed, ticket_key, ack_delay)| Welcome {
                version,
                epoch,
                time,
                observed,
                ticket_key: TicketKey(ticket_key),
                ack_delay
            }
            .into()
        ),
        (any::<[u64; 3]>(), media(), signed(), vec(proven(), 0..4), of(any::<u64>()), any::<u32>()).prop_map(
            |([request, listeners, hits], media, manifest, slices, estimate, buffer)| MediaAnswer {
                request,
                media,
                manifest,
                slices,
                listeners,
                hits,
                estimate,
                buffer
            }
            .into()
        ),
        (vec(assignment(), 0..3), of(vec(shortage(), 0..3))).prop_map(|(assignments, shortages)| Assign {
            assignments,
            shortages
        }
        .into()),
        vec(assignment(), 0..3).prop_map(|mut assignments| {
            assignments.iter_mut().for_each(|a| a.need = Need::Reserve);
            Reserve { assignments }.into()
        }),
        vec(any::<u64>(), 0..9).prop_map(|assignments| Cancel { assignments }.into()),
        slices().prop_map(ToPeer::Slices),
        info().prop_map(ToPeer::from),
        (any::<u16>(), of(any::<u64>()), of(media()), text(limits::TEXT), of(any::<u32>())).prop_map(
            |(code, request, media, text, retry)| ErrorMessage {
                code: ErrorCode(code),
                request,
                media,
                text,
                retry
            }
            .into()
        ),
        (media(), of(path()), of(any::<bool>()), of(any::<bool>())).prop_map(
            |(media, moved, operator, off_air)| Withdrawn { media, moved, operator, off_air }.into()
        ),
        any::<[u64; 2]>().prop_map(|[nonce, time]| Pong { nonce, time }.into()),
        (addr(), any::<bool>(), text(limits::TEXT)).prop_map(|(addr, proved, why)| ReachResult {
            addr,
            proved,
            why
        }
        .into()),
        (any::<u64>(), media(), host(), dial(), any::<u32>()).prop_map(
            |(assignment, media, receiver, dial, lapse)| Invite { assignment, media, receiver, dial, lapse }
                .into()
        ),
        signed().prop_map(|manifest| Newer { manifest }.into()),
        standing().prop_map(ToPeer::from),
        Just(ToPeer::from(Knock {})),
        head().prop_map(ToPeer::from),
    ]
}
