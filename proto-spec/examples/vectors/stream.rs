//! Vectors of requests, answers and pieces over a stream.

use icet::stream::{Accepted, EndCode, Ending, GAP, PagesAnswer, PagesRequest, Piece, Span, What};
use icet::{PageSet, Stripe, limits};
use minicbor::Encoder;
use serde_json::{Value, json};

use super::meaning;
use super::world::{cbor, hex, id, path, source};

pub(crate) fn request(what: What) -> PagesRequest {
    PagesRequest { path: path(), media: id(), version: 3, what, ticket: Some(source().ticket) }
}

pub(crate) fn requests() -> Vec<(&'static str, PagesRequest)> {
    let stripe = Stripe::new(1, 4, 16);
    vec![
        ("pages", request(What::Pages(PageSet::range(64, 79)))),
        ("pages-open", request(What::Pages(PageSet { first: 64, last: None, stripe: None }))),
        ("pages-striped", request(What::Pages(PageSet { first: 0, last: Some(129), stripe }))),
        ("bytes", request(What::Bytes { first: 100, last: Some(70_000) })),
        ("bytes-open", request(What::Bytes { first: 0, last: None })),
        ("time", request(What::Time { from: 0, to: Some(1_000_000) })),
        ("time-open", request(What::Time { from: 2_000_000, to: None })),
        ("proofs", request(What::Proofs { first: 1, last: 2 })),
        ("spans", request(What::Spans(vec![span(64, 1200, 700), span(64, 2400, 17), span(70, 0, 4200)]))),
        ("no-ticket", PagesRequest { ticket: None, ..request(What::Pages(PageSet::range(0, 0))) }),
    ]
}

fn span(page: u64, offset: u32, len: u32) -> Span {
    Span { page, offset, len }
}

fn ending(code: EndCode, text: &str, number: Option<u64>) -> Ending {
    Ending { number, ..Ending::new(code, text) }
}

pub(crate) fn answers() -> Vec<(&'static str, PagesAnswer)> {
    let accepted = |what, total| PagesAnswer::Accepted(Accepted { what, total });
    let refused = |code, text, number| PagesAnswer::Refused(ending(code, text, number));
    vec![
        ("pages", accepted(What::Pages(PageSet::range(64, 79)), 130)),
        ("bytes", accepted(What::Bytes { first: 100, last: Some(13_000) }, 13_099)),
        ("time", accepted(What::Time { from: 0, to: Some(1_000_000) }, 2_560_000)),
        ("proofs", accepted(What::Proofs { first: 1, last: 2 }, 3)),
        ("no-media", refused(EndCode::NO_MEDIA, "no such media here", None)),
        ("beyond", refused(EndCode::BEYOND, "nothing lies in that range", Some(130))),
        ("missing", refused(EndCode::MISSING, "page 64 is not held yet", Some(64))),
        ("denied", refused(EndCode::DENIED, "the ticket has expired", None)),
        ("busy", refused(EndCode::BUSY, "", None)),
        ("failed", refused(EndCode::FAILED, "", None)),
        ("bad-request", refused(EndCode::BAD_REQUEST, "", None)),
        ("later-code", refused(EndCode(1000), "a code of a later version", None)),
    ]
}

/// What a sequence of pieces says: adjoining byte strings count as one.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Said {
    Bytes(Vec<u8>),
    Piece(Piece),
}

pub(crate) fn sequences() -> Vec<(&'static str, Vec<u8>, Vec<Said>)> {
    let complete = || ending(EndCode::COMPLETE, "", None);
    let bytes = |b: &[u8]| [&Piece::bytes_head(u32::try_from(b.len()).expect("small"))[..], b].concat();
    let end = |e: &Ending| Said::Piece(Piece::Ending(e.clone()));
    let page = |n| Said::Piece(Piece::Page(n));
    let said = |b: &[u8]| Said::Bytes(b.to_vec());
    let long = vec![7; 300];
    let missing = ending(EndCode::MISSING, "page 67 is not held", Some(67));
    let mut padded = vec![0x5b, 0, 0, 0, 0, 0, 0, 0, 5];
    padded.extend_from_slice(b"hello");
    let mut later = Encoder::new(Vec::new());
    let _ = later.map(3).and_then(|e| e.u8(1)?.u8(0)?.u8(2)?.str("")?.u8(99)?.array(1)?.u8(1));
    vec![
        (
            "pages",
            [Piece::page_mark(64), bytes(b"hello"), bytes(&long), cbor(&complete())].concat(),
            vec![page(64), said(&[b"hello", &long[..]].concat()), end(&complete())],
        ),
        (
            "jump",
            [Piece::page_mark(64), bytes(&long), Piece::page_mark(68), bytes(b"x"), cbor(&missing)].concat(),
            vec![page(64), said(&long), page(68), said(b"x"), end(&missing)],
        ),
        (
            "gap",
            [&bytes(b"abc")[..], &[GAP], &bytes(b"def"), &cbor(&complete())].concat(),
            vec![said(b"abc"), Said::Piece(Piece::Gap), said(b"def"), end(&complete())],
        ),
        (
            "broken-off",
            [Piece::page_mark((1 << 40) - 1), bytes(&long)].concat(),
            vec![page((1 << 40) - 1), said(&long)],
        ),
        ("length-in-8-bytes", [padded, cbor(&complete())].concat(), vec![said(b"hello"), end(&complete())]),
        ("later-field", later.into_writer(), vec![end(&complete())]),
    ]
}

pub(crate) struct Invalid {
    pub(crate) name: &'static str,
    /// `request`, `answer` or `pieces`.
    pub(crate) what: &'static str,
    pub(crate) bytes: Vec<u8>,
    pub(crate) why: &'static str,
    /// Whether the grammar alone refuses it (of pieces: any of them).
    pub(crate) grammar: bool,
}

pub(crate) fn invalid() -> Vec<Invalid> {
    let mut all = Vec::new();
    let mut add = |name, what, bytes, why, grammar| all.push(Invalid { name, what, bytes, why, grammar });
    let good = cbor(&request(What::Pages(PageSet::range(64, 79))));
    add("empty", "request", Vec::new(), "no item at all", true);
    add("cut-off", "request", good[..good.len() - 1].to_vec(), "ends within the ticket", true);
    add("something-follows", "request", [&good[..], &[0]].concat(), "a second item in the frame", false);
    let raw = |what: &[u8]| {
        let ask = cbor(&request(What::Pages(PageSet::range(64, 79))));
        let old = cbor(&What::Pages(PageSet::range(64, 79)));
        let at = ask.windows(old.len()).position(|w| w == old).expect("it is there");
        [&ask[..at], what, &ask[at + old.len()..]].concat()
    };
    add("unknown-what", "request", raw(&[0xa1, 5, 0x82, 0, 0]), "a kind that version 1 does not have", true);
    add("two-whats", "request", raw(&[0xa2, 1, 0x82, 0, 0, 2, 0x82, 0, 1]), "bytes and time at once", false);
    add("slices-open", "request", raw(&[0xa1, 3, 0x82, 0, 0xf6]), "slices have an end", true);
    let bytes = raw(&cbor(&What::Bytes { first: 9, last: Some(8) }));
    add("bytes-backwards", "request", bytes, "ends before it begins", false);
    let time = raw(&cbor(&What::Time { from: 9, to: Some(9) }));
    add("time-empty", "request", time, "`to` is exclusive: nothing is asked for", false);
    let proofs = raw(&cbor(&What::Proofs { first: 2, last: 1 }));
    add("proofs-backwards", "request", proofs, "ends before it begins", false);
    let spans = |list| raw(&cbor(&What::Spans(list)));
    add("spans-none", "request", spans(vec![]), "no span at all", true);
    add("spans-overlap", "request", spans(vec![span(64, 0, 9), span(64, 8, 9)]), "they overlap", false);
    add("spans-backwards", "request", spans(vec![span(64, 0, 9), span(63, 8, 9)]), "not in order", false);
    add("span-empty", "request", spans(vec![span(64, 0, 0)]), "a span of 0 bytes", false);
    add("span-beyond", "request", spans(vec![span(64, 65_300, 8)]), "beyond the largest page", false);
    add("spans-too-many", "request", spans((0..129).map(|n| span(n, 0, 1)).collect()), "129 spans", true);
    add("spans-cut", "request", raw(&[0xa1, 4, 0x84, 1, 0, 1, 2]), "no multiple of three", false);
    let mut ask = request(What::Pages(PageSet::range(64, 79)));
    if let Some(ticket) = &mut ask.ticket {
        ticket.body = vec![0; limits::TICKET + 1].into();
    }
    add("ticket-too-long", "request", cbor(&ask), "a ticket body of 513 bytes", false);
    add("array", "answer", vec![0x82, 2, 0xa0], "neither accepted nor refused", true);
    let no_what = [&[0x82, 0, 0xa1, 2][..], &[0x18, 130]].concat();
    add("accepts-nothing", "answer", no_what, "it does not say what is delivered", true);
    let text = Ending { text: "x".repeat(limits::TEXT + 1), ..Ending::new(EndCode::BUSY, "") };
    add("text-too-long", "answer", cbor(&PagesAnswer::Refused(text.clone())), "a text of 1025 bytes", true);
    add("empty-string", "pieces", vec![0x40], "a byte string of 0 bytes", false);
    let long = [&Piece::bytes_head(1 << 20)[..], &[0; 8]].concat();
    let mut longer = long.clone();
    longer[4] = 1;
    add("string-too-long", "pieces", longer, "a byte string of 2^20 + 1 bytes", false);
    add(
        "length-bomb",
        "pieces",
        vec![0x5b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        "2^64 - 1 bytes",
        false,
    );
    add(
        "indefinite-string",
        "pieces",
        vec![0x5f, 0x41, 0, 0xff],
        "a byte string of indefinite length",
        false,
    );
    add("page-beyond", "pieces", cbor(&(1u64 << 40)), "a page beyond 2^40", false);
    add("text-piece", "pieces", cbor(&"hello"), "a text is no piece", true);
    add("negative", "pieces", vec![0x20], "a negative number is no piece", true);
    add("array-piece", "pieces", vec![0x80], "an array is no piece", true);
    add("ending-without-code", "pieces", vec![0xa1, 2, 0x60], "an ending without a code", true);
    add("ending-text-too-long", "pieces", cbor(&text), "a text of 1025 bytes", true);
    let twice = cbor(&Ending::new(EndCode::COMPLETE, "")).repeat(2);
    add("after-the-ending", "pieces", twice, "something follows the ending", false);
    all
}

pub(crate) fn file() -> Value {
    let one = |(name, bytes, fields): (&str, Vec<u8>, Value)| json!({ "name": name, "hex": hex(&bytes), "fields": fields });
    let piece = |said: &Said| match said {
        Said::Bytes(b) => json!({ "bytes": hex(b) }),
        Said::Piece(p) => meaning::piece(p),
    };
    let sequence = |(name, bytes, said): (&str, Vec<u8>, Vec<Said>)| json!({ "name": name, "hex": hex(&bytes), "pieces": said.iter().map(piece).collect::<Vec<_>>() });
    let refused = |i: Invalid| json!({ "name": i.name, "of": i.what, "hex": hex(&i.bytes), "why": i.why, "grammar": i.grammar });
    let requests = requests().into_iter().map(|(n, r)| one((n, cbor(&r), meaning::request(&r))));
    let answers = answers().into_iter().map(|(n, a)| one((n, cbor(&a), meaning::answer(&a))));
    json!({
        "requests": Value::Array(requests.collect()),
        "answers": Value::Array(answers.collect()),
        "sequences": Value::Array(sequences().into_iter().map(sequence).collect()),
        "invalid": Value::Array(invalid().into_iter().map(refused).collect()),
    })
}
