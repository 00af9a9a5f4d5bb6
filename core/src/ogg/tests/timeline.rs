//! Timelines of bitstreams that no encoder makes: hostile, cut, badly chained.

use proptest::prelude::*;

use super::build::{PageBuilder, any_page};
use super::fixtures::{follow, read};
use crate::ogg::time::{MAX_LINKS, MAX_STREAMS, MAX_TIME};
use crate::ogg::*;

const OPUS_HEAD: &[u8] = b"OpusHead\x01\x02\x38\x01\x80\xbb\0\0\0\0\0";
const OPUS_TAGS: &[u8] = b"OpusTags\0\0\0\0\0\0\0\0";
/// 20 ms of Opus.
const OPUS_20_MS: &[u8] = &[0x78, 1, 2, 3];

fn places(pages: &[Vec<u8>]) -> (Timeline, Vec<PagePlace>) {
    let (timeline, places, damage) = follow(&pages.concat());
    assert_eq!(damage, []);
    (timeline, places.into_iter().map(|(_, place)| place).collect())
}

fn times(pages: &[Vec<u8>]) -> Vec<i64> {
    places(pages).1.iter().map(|place| place.time).collect()
}

fn head(serial: u32) -> Vec<u8> {
    PageBuilder::new(serial).bos().packet(OPUS_HEAD).build()
}

fn tags(serial: u32) -> Vec<u8> {
    PageBuilder::new(serial).packet(OPUS_TAGS).build()
}

/// A page of 20 ms packets that ends at a granule position.
fn data(serial: u32, granule: i64, packets: usize) -> Vec<u8> {
    let page = PageBuilder::new(serial).granule(granule);
    std::iter::repeat_n(OPUS_20_MS, packets).fold(page, PageBuilder::packet).build()
}

#[test]
fn a_page_starts_where_the_one_before_ends() {
    let pages = [head(1), tags(1), data(1, 960, 1), data(1, 960 * 3, 2), data(1, 960 * 4, 1)];
    // What is skipped at the beginning (312 samples, 6.5 ms) is missing from the first page.
    assert_eq!(times(&pages), [0, 0, 0, 13_500, 53_500]);
    assert_eq!(places(&pages).0.duration(), 73_500);
}

#[test]
fn positions_that_do_not_begin_at_zero_are_moved_back() {
    let hour = 48_000 * 3600;
    let pages = [head(1), tags(1), data(1, hour + 960, 1), data(1, hour + 1920, 1)];
    assert_eq!(times(&pages), [0, 0, 0, 13_500]);
    // A second link that counts on begins where the first ends all the same.
    let chain = [&pages[..], &[head(2), tags(2), data(2, 2 * hour, 1), data(2, 2 * hour + 960, 1)]].concat();
    assert_eq!(times(&chain)[4..], [33_500, 33_500, 33_500, 47_000]);
    // A bare beginning, without the packet that would tell how long the first page is.
    let pages =
        [head(1), tags(1), PageBuilder::new(1).granule(hour).packet(&[3]).build(), data(1, hour + 960, 1)];
    assert_eq!(times(&pages), [0, 0, 0, 0]);
    assert_eq!(places(&pages).0.duration(), 13_500);
}

#[test]
fn streams_cut_out_together_stay_together() {
    // Two streams an hour in, the one whose page comes second beginning 0.1 s earlier.
    let hour = 48_000 * 3600;
    let start = [head(1), head(2), tags(1), tags(2), data(1, hour + 5760, 1), data(2, hour + 960, 1)];
    let pages = [&start[..], &[data(1, hour + 6720, 1), data(2, hour + 1920, 1)]].concat();
    let (timeline, places) = places(&pages);
    assert_eq!(places[6].time, 13_500);
    assert_eq!(timeline.link().unwrap().streams[0].end, 133_500);
    assert_eq!(timeline.link().unwrap().streams[1].end, 33_500);
}

#[test]
fn pages_without_a_position_take_the_last_time() {
    let unfinished = PageBuilder::new(1).granule(-1).laces(&[255]).body(&[0x78; 255]).build();
    let rest = PageBuilder::new(1).continued().granule(1920).packet(&[0; 9]).build();
    let stranger = PageBuilder::new(77).granule(5).packet(&[0; 9]).build();
    let pages = [head(1), tags(1), data(1, 960, 1), unfinished, stranger, rest, data(1, 2880, 1)];
    let (timeline, places) = places(&pages);
    let times: Vec<_> = places.iter().map(|place| place.time).collect();
    assert_eq!(times, [0, 0, 0, 13_500, 13_500, 13_500, 33_500]);
    assert_eq!(places[4].stream, 1);
    assert!(places[3].keyframe && !places[5].keyframe);
    assert_eq!(timeline.link().unwrap().streams[1].format.codec, Codec::Unknown);
}

#[test]
fn a_stream_without_times_does_not_go_back_between_others() {
    // One of two streams is far ahead; a stranger's pages follow one of each.
    let stranger = |granule| PageBuilder::new(77).granule(granule).packet(&[0; 9]).build();
    let start = [head(1), head(2), tags(1), tags(2), data(1, 960, 1), data(2, 960, 1)];
    let ahead = [data(1, 9600, 1), data(1, 10_560, 1), stranger(1)];
    let pages = [&start[..], &ahead, &[data(2, 1920, 1), stranger(2), data(2, 2880, 1)]].concat();
    let times = times(&pages);
    assert!(times[8] > times[9], "the other stream is behind: {times:?}");
    assert_eq!((times[8], times[10]), (times[7], times[7]));
}

#[test]
fn hostile_positions_are_clamped() {
    let cases = [i64::MAX, i64::MIN, -2, 0, 1, 1 << 62, -1];
    let pages: Vec<_> = [head(1), tags(1), data(1, 960, 1)]
        .into_iter()
        .chain(cases.iter().map(|&granule| data(1, granule, 1)))
        .collect();
    let (timeline, places) = places(&pages);
    assert!(places.is_sorted_by_key(|place| place.time));
    assert_eq!(timeline.duration(), MAX_TIME);
    // The next link can't begin later.
    let more = [&pages[..], &[head(2), tags(2), data(2, 960, 1), data(2, i64::MAX, 1)]].concat();
    assert!(times(&more).iter().all(|time| (0..=MAX_TIME).contains(time)));
    // Backwards, as after a source has connected again: time waits.
    let back = [head(1), tags(1), data(1, 9600, 10), data(1, 960, 1), data(1, 10_560, 1)];
    assert_eq!(times(&back), [0, 0, 0, 193_500, 193_500]);
}

#[test]
fn links_are_told_apart() {
    let links = |pages: &[Vec<u8>]| places(pages).1.iter().map(|place| place.link).collect::<Vec<_>>();
    let one = |serial| PageBuilder::new(serial).bos().eos().packet(OPUS_HEAD).build();
    // Streams that begin together; links of one page each; no EOS before the next link; the same serial again.
    assert_eq!(links(&[head(1), head(2), tags(1), tags(2)]), [0; 4]);
    assert_eq!(links(&[one(1), one(2), one(2)]), [0, 1, 2]);
    assert_eq!(links(&[head(1), tags(1), head(2), tags(2)]), [0, 0, 1, 1]);
    assert_eq!(links(&[head(1), head(1), tags(1)]), [0, 1, 1]);
    // Without any BOS.
    assert_eq!(links(&[data(1, 960, 1), data(1, 1920, 1), head(2)]), [0, 0, 1]);
}

#[test]
fn setup_ends_where_the_headers_do() {
    let setup = |pages: &[Vec<u8>]| places(pages).1.iter().map(|place| place.setup).collect::<Vec<_>>();
    // Tags over two pages.
    let long = [OPUS_TAGS, &[0; 300]].concat();
    let first = PageBuilder::new(1).granule(-1).laces(&[255]).body(&long[..255]).build();
    let second = PageBuilder::new(1).continued().packet(&long[255..]).build();
    let pages = [head(1), first, second, data(1, 960, 1)];
    assert_eq!(setup(&pages), [true, true, true, false]);
    assert_eq!(places(&pages).0.link().unwrap().setup_span, 3);
    // Without tags, which some live servers lose.
    let pages = [head(1), data(1, 960, 1), data(1, 1920, 1)];
    assert_eq!(setup(&pages), [true, false, false]);
    assert_eq!(times(&pages), [0, 0, 13_500]);
    // Headers and sound on one page.
    let mixed = PageBuilder::new(1).granule(960).packet(OPUS_TAGS).packet(OPUS_20_MS).build();
    let pages = [head(1), mixed, data(1, 1920, 1)];
    assert_eq!(setup(&pages), [true, true, false]);
    assert_eq!(times(&pages), [0, 0, 13_500]);
}

#[test]
fn an_empty_last_page_of_skeleton_is_setup() {
    let bos = PageBuilder::new(9).bos().packet(b"fishead\0 and more").build();
    let eos = PageBuilder::new(9).eos().granule(-1).build();
    let late = PageBuilder::new(9).packet(b"late").build();
    let pages = [bos, head(1), tags(1), eos, data(1, 960, 1), late];
    let setup: Vec<_> = places(&pages).1.iter().map(|place| place.setup).collect();
    assert_eq!(setup, [true, true, true, true, false, false]);
}

#[test]
fn memory_is_bounded() {
    // More streams in a link than are told apart, and more links than are remembered.
    let many: Vec<_> = (0..100).map(head).chain((0..100).map(|serial| data(serial, 960, 1))).collect();
    let (timeline, seen) = places(&many);
    assert_eq!(timeline.link().unwrap().streams.len(), MAX_STREAMS);
    assert!(seen.iter().all(|place| place.stream <= MAX_STREAMS));
    let chain: Vec<_> = (0..3000).flat_map(|serial| [head(serial), data(serial, 960, 1)]).collect();
    let (timeline, seen) = places(&chain);
    assert_eq!((timeline.links().count(), timeline.link_count()), (MAX_LINKS + 1, 3000));
    assert_eq!(timeline.links().last().unwrap().start, seen.last().unwrap().time);
    assert_eq!(timeline.duration(), 3000 * 13_500);
}

/// Pages of codecs that are known, with packets that lie.
fn hostile_page() -> impl Strategy<Value = Vec<u8>> {
    let starts: Vec<&[u8]> = vec![
        b"\x01vorbis\0\0\0\0\x02\x44\xac\0\0\0\0\0\0\0\0\0\0\0\0\0\0\xb8\x01",
        b"\x03vorbis",
        b"\x05vorbis",
        OPUS_HEAD,
        b"OpusTags",
        b"\x7fFLAC\x01\0\0\x02fLaC\0\0\0\x22\x10\0\x10\0\0\0\0\0\0\0\x0a\xc4\x42",
        b"\x84",
        b"\xff\xf8\x69\xa8",
        b"Speex   ",
        b"\x80theora\x03\x02\x01\0\x14\0\x0f\0\x01\x36\0\0\xf0\0\0\0\0\x75\x30\0\0\x03\xe9\0\0\0\0\0\0\0\0\0\0\x03\xe0",
        b"\x81theora",
        b"fishead\0",
        b"",
    ];
    let packet = (proptest::sample::select(starts), proptest::collection::vec(any::<u8>(), 0..300))
        .prop_map(|(start, rest)| [start, &rest].concat());
    (any::<[bool; 4]>(), 0..3_u32, any::<i64>(), proptest::collection::vec(packet, 0..4), 0..3_u8).prop_map(
        |([bos, eos, continued, open], serial, granule, packets, near)| {
            let mut page = PageBuilder::new(serial).granule(if near > 0 { granule >> 40 } else { granule });
            for (flag, set) in [
                (bos, PageBuilder::bos as fn(_) -> _),
                (eos, PageBuilder::eos),
                (continued, PageBuilder::continued),
            ] {
                if flag {
                    page = set(page);
                }
            }
            page = packets.iter().fold(page, |page, packet| page.packet(packet));
            if open {
                page = page.laces(&[255]).body(&[7; 255]);
            }
            page.build()
        },
    )
}

proptest! {
    #[test]
    fn nothing_panics_and_time_never_goes_back(pages in proptest::collection::vec(prop_oneof![4 => hostile_page(), 1 => any_page()], 1..30)) {
        let (timeline, places, _) = follow(&pages.concat());
        prop_assert_eq!(places.len(), pages.len());
        let mut last = std::collections::BTreeMap::new();
        for (_, place) in &places {
            prop_assert!((0..=timeline.duration()).contains(&place.time));
            let before = last.insert((place.link, place.stream), place.time).unwrap_or(0);
            let timed = timeline.links().nth(usize::try_from(place.link).unwrap()).unwrap().streams[place.stream].has_times();
            prop_assert!(!timed || before <= place.time);
        }
        prop_assert_eq!(timeline.pages(), pages.len() as u64);
        prop_assert!(places.is_sorted_by_key(|(_, place)| place.link));
    }

    /// Whatever page a listener joins at: media time begins at zero, and lasts as long as what is left.
    #[test]
    fn any_cut_out_lasts_as_long_as_the_rest(skip in 0_usize..10) {
        let file = read("opus.opus");
        let (whole, all, _) = follow(&file);
        let mut pages = Vec::new();
        let mut rest = &file[..];
        for (header, _) in &all {
            let (page, behind) = rest.split_at(header.total_len());
            pages.push(page.to_vec());
            rest = behind;
        }
        pages.drain(2..2 + skip);
        let (timeline, places) = places(&pages);
        prop_assert_eq!(places[2].time, 0);
        // What is skipped at the beginning is skipped again.
        let skipped = if skip == 0 { 0 } else { all[2 + skip].1.time + 6_500 };
        prop_assert_eq!(timeline.duration(), whole.duration() - skipped);
    }
}
