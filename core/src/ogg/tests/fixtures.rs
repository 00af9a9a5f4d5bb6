//! What is known of the files in `tests/fixtures` (its README tells how they were made).

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use crate::ogg::Codec::{Flac, Opus, Skeleton, Speex, Theora, Unknown, Vorbis};
use crate::ogg::*;

pub(super) fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(name)
}

pub(crate) fn read(name: &str) -> Vec<u8> {
    std::fs::read(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// What a file must turn out to be.
pub(super) struct Fixture {
    pub(super) name: &'static str,
    pub(super) pages: usize,
    /// The codecs of each link.
    pub(super) links: &'static [&'static [Codec]],
    /// In microseconds.
    pub(super) duration: i64,
    /// Pages at its beginning up to the last with setup.
    pub(super) setup_span: u64,
    pub(super) title: Option<&'static str>,
    pub(super) damage: &'static [Damage],
}

const fn sound(
    name: &'static str,
    pages: usize,
    links: &'static [&'static [Codec]],
    duration: i64,
    setup_span: u64,
    title: Option<&'static str>,
) -> Fixture {
    Fixture { name, pages, links, duration, setup_span, title, damage: &[] }
}

#[rustfmt::skip]
pub(super) const FIXTURES: &[Fixture] = &[
    sound("vorbis.ogg", 7, &[&[Vorbis]], 3_000_000, 2, Some("Vorbis fixture")),
    sound("opus.opus", 13, &[&[Opus]], 2_000_000, 2, Some("Opus fixture")),
    sound("flac.oga", 6, &[&[Flac]], 2_000_000, 4, Some("FLAC fixture")),
    sound("speex.spx", 3, &[&[Speex]], 2_000_000, 2, Some("Speex fixture")),
    sound("vorbis-ffmpeg.ogg", 5, &[&[Vorbis]], 2_500_000, 2, Some("Vorbis by ffmpeg")),
    sound("opus-ffmpeg.opus", 5, &[&[Opus]], 2_000_000, 2, Some("Opus by ffmpeg")),
    sound("flac-ffmpeg.oga", 4, &[&[Flac]], 2_000_000, 2, Some("FLAC by ffmpeg")),
    sound("speex-ffmpeg.spx", 4, &[&[Speex]], 1_991_062, 2, Some("Speex by ffmpeg")),
    sound("theora-vorbis.ogv", 17, &[&[Theora, Vorbis]], 3_000_000, 4, Some("Theora fixture")),
    sound("skeleton.ogv", 20, &[&[Skeleton, Theora, Vorbis]], 3_000_000, 7, Some("Theora fixture")),
    sound("chained-vorbis.ogg", 12, &[&[Vorbis], &[Vorbis]], 5_500_000, 2, Some("Vorbis fixture")),
    sound("chained-opus.opus", 18, &[&[Opus], &[Opus]], 4_000_000, 2, Some("Opus fixture")),
    sound("chained-same-serial.opus", 26, &[&[Opus], &[Opus]], 4_000_000, 2, Some("Opus fixture")),
    sound("chained-codecs.ogg", 29, &[&[Vorbis], &[Opus], &[Flac], &[Speex]], 9_000_000, 2, Some("Vorbis fixture")),
    sound("cut-out-vorbis.ogg", 5, &[&[Vorbis]], 2_918_667, 2, None),
    sound("cut-out-opus.opus", 6, &[&[Opus]], 3_000_000, 2, None),
    sound("cut-out-flac.oga", 5, &[&[Flac]], 2_864_000, 2, None),
    sound("cut-out-speex.spx", 5, &[&[Speex]], 3_000_000, 2, None),
    sound("cut-out-theora.ogv", 25, &[&[Theora]], 11_900_000, 2, None),
    sound("one-page.ogg", 1, &[&[Opus]], 0, 1, None),
    sound("tiny-pages.ogg", 300, &[&[Unknown]], 0, 1, None),
    sound("huge-pages.ogg", 5, &[&[Unknown]], 0, 1, None),
    Fixture {
        damage: &[Damage::Junk { offset: 2879, len: 280 }],
        ..sound("damaged-junk.opus", 13, &[&[Opus]], 2_000_000, 2, Some("Opus fixture"))
    },
    Fixture {
        damage: &[Damage::BadCrc { offset: 3579, len: 654 }],
        ..sound("damaged-crc.opus", 12, &[&[Opus]], 2_000_000, 2, Some("Opus fixture"))
    },
    Fixture {
        damage: &[Damage::Truncated { offset: 7504, len: 65, expected: 131 }],
        ..sound("damaged-cut-off.opus", 12, &[&[Opus]], 1_993_500, 2, Some("Opus fixture"))
    },
];

/// Scans leniently, and follows with a timeline.
pub(super) fn follow(file: &[u8]) -> (Timeline, Vec<(PageHeader, PagePlace)>, Vec<Damage>) {
    let (mut timeline, mut places, mut damage) = (Timeline::new(), Vec::new(), Vec::new());
    let result = scan_slice(file, ScanMode::Lenient, |event| {
        match event {
            ScanEvent::Page(page) => places.push((page.header, timeline.page(&page.header, page.bytes))),
            ScanEvent::Damage(found) => damage.push(found),
        }
        ControlFlow::<Infallible>::Continue(())
    });
    damage.extend(result.err());
    (timeline, places, damage)
}

#[test]
fn fixtures_are_what_they_should_be() {
    for fixture in FIXTURES {
        let name = fixture.name;
        let (timeline, places, damage) = follow(&read(name));
        assert_eq!(damage, fixture.damage, "{name}");
        assert_eq!(places.len(), fixture.pages, "{name}");
        let codecs: Vec<Vec<_>> = timeline
            .links()
            .map(|link| link.streams.iter().map(|stream| stream.format.codec).collect())
            .collect();
        assert_eq!(codecs, fixture.links, "{name}");
        assert_eq!(timeline.link_count(), fixture.links.len() as u64, "{name}");
        assert_eq!(timeline.duration(), fixture.duration, "{name}");
        assert_eq!(timeline.links().next().unwrap().setup_span, fixture.setup_span, "{name}");
        assert_eq!(timeline.comments().title(), fixture.title, "{name}");
    }
}

#[test]
fn every_fixture_is_in_the_table() {
    let known: BTreeSet<_> = FIXTURES.iter().map(|fixture| fixture.name.to_owned()).collect();
    let media = ["ogg", "oga", "ogv", "opus", "spx"];
    let files: BTreeSet<_> = std::fs::read_dir(path(""))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.rsplit_once('.').is_some_and(|(_, extension)| media.contains(&extension)))
        .collect();
    assert_eq!(files, known);
    let bytes: u64 = files.iter().map(|name| std::fs::metadata(path(name)).unwrap().len()).sum();
    assert!(bytes < 1_500_000, "{bytes}");
}

#[test]
fn files_and_slices_are_scanned_alike() {
    for fixture in FIXTURES {
        let mut pages = 0;
        let file = std::fs::File::open(path(fixture.name)).unwrap();
        let result = scan_reader(file, ScanMode::Strict, |_| {
            pages += 1;
            ControlFlow::<Infallible>::Continue(())
        });
        match (result, fixture.damage.first()) {
            (Ok(ControlFlow::Continue(stats)), None) => {
                let len = std::fs::metadata(path(fixture.name)).unwrap().len();
                assert_eq!(stats, ScanStats { pages, bytes: len, damaged: 0 });
                assert_eq!(pages, fixture.pages as u64);
            }
            (Err(ScanError::Damage(damage)), Some(expected)) => assert_eq!(damage, *expected),
            (result, _) => panic!("{}: {result:?}", fixture.name),
        }
    }
}

#[test]
fn streams_say_what_they_hold() {
    let (timeline, places, _) = follow(&read("skeleton.ogv"));
    let streams = &timeline.link().unwrap().streams;
    let [skeleton, theora, vorbis] = &streams[..] else { panic!("{streams:?}") };
    assert!(!skeleton.has_times() && skeleton.setup_pages == 3 && skeleton.ended);
    assert_eq!((theora.format.size, theora.setup_pages), (Some((160, 120)), 2));
    assert_eq!(theora.format.frame_rate.map(|(units, seconds)| (units.get(), seconds.get())), Some((25, 1)));
    assert_eq!((vorbis.format.sample_rate.unwrap().get(), vorbis.format.channels), (44_100, Some(2)));
    assert_eq!((theora.end, vorbis.end), (3_000_000, 3_000_000));

    // -g 16 at 25 frames a second: a keyframe each 640 ms.
    let keyframes: Vec<_> =
        places.iter().filter(|(_, p)| p.stream == 1 && p.keyframe).map(|(_, p)| p.time / 1000).collect();
    assert_eq!(keyframes, [0, 640, 1280, 1920, 2560]);
    let flags = |place: &PagePlace| (place.bos, place.eos, place.continued);
    assert!(places.iter().all(|(header, place)| flags(place) == (header.bos, header.eos, header.continued)));
}

#[test]
fn links_follow_each_other_in_time() {
    let (timeline, places, _) = follow(&read("chained-codecs.ogg"));
    let starts: Vec<_> = timeline.links().map(|link| (link.first_page, link.start)).collect();
    assert_eq!(starts, [(0, 0), (7, 3_000_000), (20, 5_000_000), (26, 7_000_000)]);
    // One logical stream after the other: times only grow.
    assert!(places.is_sorted_by_key(|(_, place)| (place.link, place.time)));
    assert_eq!(timeline.link_comments().unwrap().title(), Some("Speex fixture"));

    let (timeline, ..) = follow(&read("chained-vorbis.ogg"));
    let rates: Vec<_> =
        timeline.links().map(|link| link.streams[0].format.sample_rate.unwrap().get()).collect();
    assert_eq!(rates, [44_100, 32_000]);
}

#[test]
fn tags_are_found() {
    for (name, tag, value) in [
        ("vorbis.ogg", "GENRE", "Test"),
        ("opus.opus", "ARTIST", "IceShare"),
        ("flac.oga", "ARTIST", "IceShare"),
        ("speex.spx", "AUTHOR", "IceShare"),
    ] {
        assert_eq!(follow(&read(name)).0.comments().get(tag), Some(value), "{name}");
    }
}

#[test]
fn a_cut_out_begins_at_zero() {
    for name in ["vorbis.ogg", "opus.opus", "flac.oga", "speex.spx", "theora.ogv"] {
        let name = format!("cut-out-{name}");
        let (_, places, _) = follow(&read(&name));
        let data: Vec<_> = places.iter().filter(|(_, place)| !place.setup).collect();
        assert!(data[0].0.granule.unwrap() > 0 && data[0].1.time == 0, "{name}");
        // Pages of a second each (Theora: of a frame and of nine).
        assert!((890_000..1_010_000).contains(&data[1].1.time), "{name}: {}", data[1].1.time);
    }
}
