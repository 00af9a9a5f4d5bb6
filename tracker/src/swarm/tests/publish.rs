//! Names, manifests, slices, lookups.

use std::time::Duration;

use icet::message::{
    ErrorCode, Focus, InfoRequest, Intent, Leave, Locate, Position, Publish, Slices, ToPeer, Withdraw,
};
use icet::{MediaPath, PageRanges};

use super::super::{KnownMedia, KnownName, SliceMark, Store};
use super::fixture::{identity, media};
use super::world::{World, have, join};

fn manifest_only(m: &icet::SignedManifest) -> Publish {
    Publish { request: 3, manifest: m.signed().clone(), slices: Vec::new() }
}

#[test]
fn a_published_media_is_stored_answered_and_found() {
    let mut w = World::new();
    let (p, m) = (w.peer(1), media(&identity(1), "a/b", 1, 300, 1000));
    w.publish(p, &m);
    let answer = w.answer(p).unwrap();
    assert_eq!((answer.request, answer.media, &answer.manifest), (1, m.0.id(), m.0.signed()));
    let kinds = |f: fn(&Store) -> bool| w.stores.iter().filter(|s| f(s)).count();
    assert_eq!(kinds(|s| matches!(s, Store::Manifest { .. })), 1);
    assert_eq!(kinds(|s| matches!(s, Store::Name(n) if n.version == 1 && n.owner == identity(1).key())), 1);
    // Each slice once, though two came twice.
    assert_eq!(kinds(|s| matches!(s, Store::Slice { .. })), 5);
    let listed = w.swarm.media_list(0, 10);
    assert_eq!((listed.len(), listed[0].slices, listed[0].complete, listed[0].listeners), (1, 5, 1, 0));
    assert_eq!(w.swarm.find(&m.0.path), Some(m.0.id()));

    let r = w.peer(2);
    w.say(r, InfoRequest { request: 8, path: m.0.path.clone() });
    let heard = w.heard(r);
    assert!(
        matches!(heard.as_slice(), [ToPeer::InfoAnswer(a)] if a.request == 8 && a.complete == 1 && a.hits == 0)
    );
    w.join(r, "a/b", Intent::Whole);
    let answer = w.answer(r).unwrap();
    // Setup, beginning and tail, each provable.
    let got: Vec<u64> = answer.slices.iter().map(|s| s.verify(&m.0).unwrap().index).collect();
    assert_eq!((got, answer.listeners, answer.hits), (vec![0, 1, 3, 4], 1, 1));
    assert!(!w.assigned(r).is_empty(), "first assignments come in the same flight");
}

#[test]
fn a_path_belongs_to_who_came_first() {
    let mut w = World::new();
    let (p, q) = (w.peer(1), w.peer(2));
    w.publish(p, &media(&identity(1), "film", 1, 100, 1000));
    let other = media(&identity(2), "film", 9, 100, 1000);
    w.say(q, manifest_only(&other.0));
    let e = w.error(q).unwrap();
    assert_eq!((e.code, e.request), (ErrorCode::OWNED, Some(3)));
    // Somebody else's manifest, however well signed, is not one's own.
    w.say(q, manifest_only(&media(&identity(1), "film", 2, 100, 1000).0));
    assert_eq!(w.error(q).unwrap().code, ErrorCode::FORBIDDEN);
    let mut forged = manifest_only(&media(&identity(2), "film2", 1, 100, 1000).0);
    forged.manifest.signature.0[5] ^= 1;
    w.say(q, forged);
    assert_eq!(w.error(q).unwrap().code, ErrorCode::FORGED);
    // After 90 days without use it is free, but not while somebody is there.
    w.pass(Duration::from_secs(100 * 24 * 3600));
    w.say(q, manifest_only(&other.0));
    assert_eq!(w.error(q).unwrap().code, ErrorCode::OWNED);
    w.disconnect(p);
    w.pass(Duration::from_secs(89 * 24 * 3600));
    w.say(q, manifest_only(&other.0));
    assert_eq!(w.error(q).unwrap().code, ErrorCode::OWNED);
    w.pass(Duration::from_secs(2 * 24 * 3600));
    w.say(q, manifest_only(&other.0));
    assert_eq!(w.error(q), None);
    let list = w.swarm.media_list(0, 10);
    assert_eq!((list.len(), list[0].id), (1, other.0.id()));
    assert!(w.stores.iter().any(|s| matches!(s, Store::Withdrawn { media } if *media != other.0.id())));
}

#[test]
fn versions_only_grow() {
    let mut w = World::new();
    let p = w.peer(1);
    let m5 = media(&identity(1), "film", 5, 100, 1000);
    w.publish(p, &m5);
    w.heard(p);
    // The same again is fine.
    w.say(p, manifest_only(&m5.0));
    assert!(w.answer(p).is_some() && w.error(p).is_none());
    w.say(p, manifest_only(&media(&identity(1), "film", 4, 100, 1000).0));
    assert_eq!(w.error(p).unwrap().code, ErrorCode::ROLLBACK);
    w.say(p, manifest_only(&media(&identity(1), "film", 5, 101, 1000).0));
    assert_eq!(w.error(p).unwrap().code, ErrorCode::ROLLBACK);
    // Nor after it was withdrawn.
    w.say(p, Withdraw { media: m5.0.id(), moved: None, release: false });
    w.say(p, manifest_only(&media(&identity(1), "film", 4, 100, 1000).0));
    assert_eq!(w.error(p).unwrap().code, ErrorCode::ROLLBACK);
    w.say(p, manifest_only(&media(&identity(1), "film", 6, 100, 1000).0));
    assert_eq!(w.error(p), None);
}

#[test]
fn members_hear_of_a_newer_version_and_begin_anew() {
    let mut w = World::new();
    let (p, r) = (w.peer(1), w.peer(2));
    w.publish(p, &media(&identity(1), "film", 1, 100, 1000));
    w.join(r, "film", Intent::Whole);
    let first = w.assigned(r);
    assert!(!first.is_empty());
    let newer = media(&identity(1), "film", 2, 200, 1000);
    w.publish(p, &newer);
    let heard = w.heard(r);
    assert!(heard.iter().any(|m| matches!(m, ToPeer::Newer(n) if &n.manifest == newer.0.signed())));
    let cancelled =
        heard.iter().any(|m| matches!(m, ToPeer::Cancel(c) if c.assignments.contains(&first[0].id)));
    assert!(cancelled);
    let again: Vec<_> = heard
        .iter()
        .filter_map(|m| if let ToPeer::Assign(a) = m { Some(&a.assignments) } else { None })
        .collect();
    assert!(!again.is_empty());
    // Acknowledgements of the old one's assignments are worth nothing.
    w.done(r, &first[0]);
    assert_eq!(w.swarm.totals().acked_pages, 0);
    assert_eq!(w.swarm.media_list(0, 1)[0].slices, 4);
}

#[test]
fn only_proved_slices_are_kept() {
    let mut w = World::new();
    let (p, stranger) = (w.peer(1), w.peer(2));
    let m = media(&identity(1), "film", 1, 300, 1000);
    w.say(p, manifest_only(&m.0));
    w.heard(p);
    let mut bad = m.1[1].clone();
    let at = bad.slice.len() - 9;
    bad.slice[at] ^= 1;
    w.say(p, Slices { media: m.0.id(), request: 0, slices: vec![m.1[0].clone(), bad] });
    assert!(matches!(w.error(p).unwrap().code, ErrorCode::FORGED | ErrorCode::BAD_MESSAGE));
    assert_eq!(w.swarm.media_list(0, 1)[0].slices, 1);
    w.say(stranger, Slices { media: m.0.id(), request: 0, slices: m.1.clone() });
    assert_eq!(w.error(stranger).unwrap().code, ErrorCode::FORBIDDEN);
    assert_eq!(w.swarm.media_list(0, 1)[0].slices, 1);

    // What is not known yet is known later.
    let locate = |at| Locate { request: 4, media: m.0.id(), at };
    w.say(stranger, locate(Position::Page(70)));
    let e = w.error(stranger).unwrap();
    assert_eq!((e.code, e.request, e.retry.is_some()), (ErrorCode::NOT_YET, Some(4), true));
    w.say(p, Slices { media: m.0.id(), request: 0, slices: m.1.clone() });
    for (at, index) in
        [(Position::Page(70), 1), (Position::Byte(299_999), 4), (Position::Time(12_900_000), 2)]
    {
        w.say(stranger, locate(at));
        let heard = w.heard(stranger);
        let [ToPeer::Slices(s)] = heard.as_slice() else { panic!("{heard:?}") };
        assert_eq!((s.request, s.slices[0].verify(&m.0).unwrap().index), (4, index), "{at:?}");
    }
    w.say(stranger, locate(Position::Page(300)));
    assert_eq!(w.error(stranger).unwrap().code, ErrorCode::BAD_MESSAGE);
}

#[test]
fn joining_what_is_not_there() {
    let mut w = World::new();
    let (p, r) = (w.peer(1), w.peer(2));
    let m = media(&identity(1), "film", 1, 100, 1000);
    w.join(r, "film", Intent::Whole);
    let e = w.error(r).unwrap();
    assert_eq!((e.code, e.request), (ErrorCode::NO_MEDIA, Some(5)));
    w.publish(p, &m);
    w.say(r, icet::message::Join { publisher: Some(identity(9).key()), ..join("film", Intent::Whole) });
    assert_eq!(w.error(r).unwrap().code, ErrorCode::OTHER_PUBLISHER);
    let id = m.0.id();
    w.say(r, have(id, 0, 5));
    assert_eq!(w.error(r).unwrap().code, ErrorCode::FORBIDDEN);
    let focus = Focus { media: id, at: Position::Page(1), rate: None, urgent: 1, intent: Intent::Play };
    w.say(r, focus);
    assert_eq!(w.error(r).unwrap().code, ErrorCode::FORBIDDEN);
    w.say(r, Leave { media: id });
    assert_eq!(w.error(r), None);
}

#[test]
fn withdrawn_media_are_gone_and_moved_ones_say_where() {
    let mut w = World::new();
    let (p, r) = (w.peer(1), w.peer(2));
    let (a, b) = (media(&identity(1), "a", 1, 100, 1000), media(&identity(1), "b", 1, 100, 1000));
    w.publish(p, &a);
    w.join(r, "a", Intent::Whole);
    w.heard(r);
    let to_b = Some(MediaPath::new("b").unwrap());
    w.say(r, Withdraw { media: a.0.id(), moved: None, release: true });
    assert_eq!(w.error(r).unwrap().code, ErrorCode::FORBIDDEN);
    w.say(p, Withdraw { media: a.0.id(), moved: to_b.clone(), release: false });
    assert_eq!(w.error(p).unwrap().code, ErrorCode::NO_MEDIA, "it must be there before it moves there");
    w.publish(p, &b);
    w.heard(p);
    w.say(p, Withdraw { media: a.0.id(), moved: to_b.clone(), release: false });
    assert_eq!(w.error(p), None);
    let heard = w.heard(r);
    assert!(
        heard.iter().any(|m| matches!(m, ToPeer::Withdrawn(x) if x.media == a.0.id() && x.moved == to_b))
    );
    w.join(r, "a", Intent::Whole);
    assert!(w.error(r).unwrap().text.contains('b'));
    // The path is kept for its owner, unless given up.
    let other = media(&identity(2), "a", 1, 100, 1000);
    w.say(r, manifest_only(&other.0));
    assert_eq!(w.error(r).unwrap().code, ErrorCode::OWNED);
    w.publish(p, &media(&identity(1), "a", 2, 100, 1000));
    w.say(p, Withdraw { media: a.0.id(), moved: None, release: true });
    w.say(r, manifest_only(&other.0));
    assert_eq!(w.error(r), None);
    w.pass(Duration::from_secs(100));
    assert_eq!((w.swarm.board.runs.len(), w.swarm.totals().running), (0, 0));
}

#[test]
fn what_the_catalogue_kept_is_there_after_a_restart() {
    let m = media(&identity(1), "film", 3, 300, 1000);
    let mut w = World::new();
    w.swarm.restore_name(KnownName {
        path: m.0.path.clone(),
        owner: identity(1).key(),
        version: 3,
        used_ms: w.wall(),
        moved: None,
    });
    let mark = |i: u64| SliceMark { offset: i * 64_000, time: i64::try_from(i * 6_400_000).unwrap() };
    let slices = (0..5).map(|i| (i, mark(i))).collect();
    w.swarm.restore_media(KnownMedia { manifest: m.0.clone(), slices, hits: 7 });
    let view = w.swarm.media_view(&m.0.id()).unwrap();
    assert_eq!((view.hits, view.slices, view.complete), (7, 5, 0));
    let p = w.peer(2);
    w.say(p, manifest_only(&media(&identity(2), "film", 9, 300, 1000).0));
    assert_eq!(w.error(p).unwrap().code, ErrorCode::OWNED);
    let p = w.peer(1);
    w.say(p, manifest_only(&media(&identity(1), "film", 2, 300, 1000).0));
    assert_eq!(w.error(p).unwrap().code, ErrorCode::ROLLBACK);
    w.say(p, manifest_only(&m.0));
    assert_eq!(w.swarm.media_view(&m.0.id()).unwrap().complete, 1);
}

#[test]
fn quotas_of_joins_media_and_maps() {
    let mut w = World::with(|c| {
        c.quotas.media_per_key = 2;
        c.quotas.joins_per_minute = 3.0;
        c.quotas.map_bytes_per_key = 60_000;
    });
    let (p, r) = (w.peer(1), w.peer(2));
    for name in ["a", "b"] {
        w.publish(p, &media(&identity(1), name, 1, 10_000, 27));
    }
    assert!(w.error(p).is_none());
    w.say(p, manifest_only(&media(&identity(1), "c", 1, 100, 1000).0));
    let e = w.error(p).unwrap();
    assert!(e.code == ErrorCode::QUOTA && e.retry.is_some());
    // A new version of one's own is not another media.
    w.say(p, manifest_only(&media(&identity(1), "b", 2, 10_000, 27).0));
    assert_eq!(w.error(p), None);
    // Maps: 10,000 pages take about 2.8 KB each.
    w.join(r, "a", Intent::Whole);
    assert!(w.answer(r).is_some());
    let before = w.swarm.totals().map_bytes;
    w.say(r, Leave { media: w.swarm.media_list(0, 1)[0].id });
    assert!(w.swarm.totals().map_bytes < before);
    w.join(r, "b", Intent::Whole);
    w.join(r, "b", Intent::Whole);
    w.heard(r);
    w.join(r, "b", Intent::Whole);
    assert_eq!(w.error(r).unwrap().code, ErrorCode::QUOTA);
    w.pass(Duration::from_secs(21));
    w.join(r, "b", Intent::Whole);
    assert!(w.answer(r).is_some());

    let mut w = World::with(|c| c.quotas.map_bytes_per_key = 1000);
    let (p, r) = (w.peer(1), w.peer(2));
    w.publish(p, &media(&identity(1), "a", 1, 300, 1000));
    assert!(w.error(p).is_none());
    w.say(p, manifest_only(&media(&identity(1), "b", 1, 10_000, 27).0));
    assert_eq!(w.error(p).unwrap().code, ErrorCode::QUOTA);
    // Holding everything takes no map; losing a page does.
    let full = PageRanges::one(0, 299);
    w.say(r, icet::message::Join { version: 1, have: full, ..join("a", Intent::Share) });
    assert_eq!(w.swarm.media_list(0, 1)[0].complete, 2);
}
