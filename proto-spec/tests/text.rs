//! The specification's text names what the code has: every message, error code and limit.

use std::collections::BTreeMap;
use std::path::Path;

use icet::message::ErrorCode;
use icet::{DEFAULT_PORT, limits};

fn read(file: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap()
}

/// The part of the text under a heading of the second level.
fn section<'a>(text: &'a str, title: &str) -> &'a str {
    let (_, rest) = text.split_once(&format!("\n## {title}\n")).unwrap();
    rest.split("\n## ").next().unwrap()
}

#[test]
fn every_message_is_described_under_its_number() {
    let text = read("spec/icet.md");
    let mut described = BTreeMap::new();
    for part in section(&text, "9. Messages").split("\n**").skip(1) {
        let (head, _) = part.split_once("**").unwrap();
        let (number, name) = head.split_once(' ').unwrap();
        described.insert(number.parse::<u64>().unwrap(), name.to_owned());
    }
    let vectors: serde_json::Value = serde_json::from_str(&read("vectors/messages.json")).unwrap();
    let mut there = BTreeMap::new();
    for v in vectors["valid"].as_array().unwrap() {
        let body = v["hex"].as_str().unwrap();
        // After the array head: a uint below 24, or 0x18 and a byte.
        let byte = |i: usize| u64::from_str_radix(&body[2 * i..2 * i + 2], 16).unwrap();
        let number = if byte(1) == 0x18 { byte(2) } else { byte(1) };
        there.insert(number, v["message"].as_str().unwrap().to_owned());
    }
    assert_eq!(described, there);
    let grammar = read("spec/icet.cddl");
    for (number, name) in there {
        assert!(grammar.contains(&format!("[ {number}, {name} ]")), "{number} {name} is not in the grammar");
    }
}

#[test]
fn every_error_code_is_in_the_table() {
    let text = read("spec/icet.md");
    let rows = section(&text, "14. Error codes").lines().filter(|l| l.starts_with("| ")).count() - 2;
    assert_eq!(rows, usize::from(ErrorCode::NOT_YET.0));
    for code in 1..=ErrorCode::NOT_YET.0 {
        assert!(text.contains(&format!("\n| {code} | ")), "code {code}");
    }
}

#[test]
fn the_limits_are_those_of_the_code() {
    let text = read("spec/icet.md");
    let table = section(&text, "13. Limits");
    let rows = [
        format!("| frame body | {} bytes |", grouped(limits::FRAME)),
        format!("| media path | {} bytes |", limits::PATH),
        format!("| protocol name, codec | {} bytes |", limits::PROTOCOL),
        format!("| endpoint | {} bytes |", limits::ENDPOINT),
        format!("| {} bytes |", limits::TEXT),
        format!("| {} · {} |", limits::OFFERS, limits::REACH),
        format!("| {} · {} |", limits::TAGS, limits::STREAMS),
        format!("| manifest body | {} bytes |", grouped(limits::MANIFEST)),
        format!("| 2^{} · 2^{} |", limits::PAGES.ilog2(), limits::FILE_PAGES.ilog2()),
        format!("| {} |", grouped(limits::RANGES)),
        format!("| {} · {} · {} |", limits::SLICES, limits::SLICE, limits::PROOF),
        format!("| {} |", limits::ITEMS),
        format!("| stand-ins | {} |", limits::STAND_INS),
        format!("| marks of a standing | {} |", limits::MARKS),
        format!("| earlier heads in one message | {} |", limits::EARLIER),
        format!("| ticket body | {} bytes |", limits::TICKET),
        format!(
            "| records of a batch or head · bytes of its body · of a head's title | {} · {} · {} |",
            limits::RECORDS,
            limits::BATCH,
            limits::TITLE
        ),
    ];
    for row in rows {
        assert!(table.contains(&row), "{row:?}");
    }
    assert!(limits::PAGES.is_power_of_two() && limits::FILE_PAGES.is_power_of_two());
    assert!(text.contains(&format!("**{DEFAULT_PORT}**")));
    for alpn in [icet::ALPN, icet::ALPN_DIAL_BACK] {
        assert!(text.contains(&format!("`{}`", String::from_utf8_lossy(alpn))));
    }
}

#[test]
fn the_stream_protocol_is_that_of_the_code() {
    use icet::stream::{ALPN, EndCode, PROTOCOL, PagesRequest};
    let (text, grammar) = (read("spec/stream.md"), read("spec/stream.cddl"));
    for name in [&String::from_utf8_lossy(ALPN), PROTOCOL] {
        assert!(text.contains(&format!("`{name}`")), "{name}");
    }
    for code in EndCode::COMPLETE.0..=EndCode::BAD_REQUEST.0 {
        assert!(text.contains(&format!("\n| {code} | ")), "code {code}");
    }
    assert!(!text.contains(&format!("\n| {} | ", EndCode::BAD_REQUEST.0 + 1)));
    assert!(text.contains(&format!("at most {} bytes", limits::STREAM_FRAME)));
    assert!(grammar.contains(&format!("at most {} bytes", grouped(limits::STREAM_FRAME))));
    assert!(text.contains(&format!("1 to {} bytes", grouped(limits::FRAME))));
    // The largest request fits its frame.
    let largest = PagesRequest {
        path: "a".repeat(limits::PATH).parse().unwrap(),
        media: icet::MediaId([0; 32]),
        version: u64::MAX,
        what: icet::stream::What::Bytes { first: u64::MAX - 1, last: Some(u64::MAX) },
        ticket: Some(icet::Ticket { body: vec![0; limits::TICKET].into(), mac: icet::key::Hash([0; 32]) }),
    };
    assert!(icet::frame::encode(&largest).len() <= limits::STREAM_FRAME);
    let span = |n| icet::stream::Span { page: limits::PAGES - 1 - n, offset: 65_000, len: 300 };
    let spans = icet::stream::What::Spans((0..limits::SPANS as u64).map(span).collect());
    let largest = PagesRequest { what: spans, ..largest };
    assert!(icet::frame::encode(&largest).len() <= limits::STREAM_FRAME);
    assert!(text.contains(&format!("at most {} times", limits::SPANS)));
    assert!(grammar.contains(&format!("[ 3*{} uint ]", 3 * limits::SPANS)));
}

/// 1048576 as 1,048,576.
fn grouped(n: usize) -> String {
    let s = n.to_string();
    let mut out = String::new();
    for (i, c) in s.chars().enumerate() {
        if i > 0 && (s.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

#[test]
fn every_link_of_the_text_leads_somewhere() {
    for file in ["icet.md", "payload.md", "http.md", "stream.md", "udp.md"] {
        let text = read(&format!("spec/{file}"));
        for link in text.split("](").skip(1).filter_map(|l| l.split(')').next()) {
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            if path.is_empty() {
                let heading = |l: &&str| {
                    let slug: String = l
                        .trim_start_matches('#')
                        .trim()
                        .to_lowercase()
                        .chars()
                        .filter(|c| c.is_alphanumeric() || *c == ' ' || *c == '-')
                        .map(|c| if c == ' ' { '-' } else { c })
                        .collect();
                    l.starts_with('#') && slug == anchor
                };
                assert!(text.lines().any(|l| heading(&l)), "{file}: #{anchor}");
            } else {
                let there = Path::new(env!("CARGO_MANIFEST_DIR")).join("spec").join(path);
                assert!(there.exists(), "{file}: {path}");
            }
        }
    }
}
