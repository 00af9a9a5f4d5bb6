//! What to answer in terms of HTTP: a range against what a media has, before anything is sent.

use http::StatusCode;
use iceshare::icet::{PageNo, PageSet};
use iceshare::protocol::What;
use iceshare::serve::{self, Part, Source, Unavailable, first_missing};
use iceshare::store::{MediaStore, NoSetup};

use crate::wire::{ByteRange, ContentRange, Range, Unit, to_npt};

/// A player of live media begins so many microseconds before the newest page, so that it has something in hand.
const LIVE_BACK: u64 = 2_000_000;

/// An answer.
#[derive(Debug, PartialEq)]
pub(crate) struct Plan {
    pub(crate) status: StatusCode,
    /// For the shelf.
    pub(crate) what: What,
    pub(crate) content_type: String,
    pub(crate) content_range: Option<ContentRange>,
    /// `Content-Range-Mapping` of W3C Media Fragments.
    pub(crate) mapping: Option<String>,
    pub(crate) source: Source,
}

/// Why there is no answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// 416, with this `Content-Range`.
    Unsatisfiable(String),
    /// 503: this page is not held, perhaps later.
    Missing(PageNo),
}

/// Plans the answer to `range`. `boundary` separates parts, should there be several.
pub(crate) fn plan(media: &MediaStore, range: &Range, boundary: &str) -> Result<Plan, Refusal> {
    let m = media.manifest();
    let unsatisfiable = |unit, total| Refusal::Unsatisfiable(none_of(unit, total));
    match range {
        Range::Ignored if media.is_live() => live(media),
        // It has no bytes and no times: who asks for them is a player.
        Range::Bytes(_) | Range::Time { .. } | Range::LastPages(_) if media.is_live() => live(media),
        Range::Ignored => Ok(whole(media)),
        Range::Bytes(ranges) => bytes(media, ranges, boundary),
        Range::Pages(set) => pages(media, *set),
        Range::LastPages(n) => {
            if *n == 0 {
                return Err(unsatisfiable(Unit::Pages, m.pages));
            }
            pages(media, PageSet::range(m.pages.saturating_sub(*n), m.pages.saturating_sub(1)))
        }
        Range::Proofs { first, last } => {
            let what = What::Proofs { first: *first, last: *last };
            let serve::Plan { what, total, source } =
                serve::plan(media, &what).map_err(|e| refusal(Unit::Proofs, e))?;
            let span = if let What::Proofs { first, last } = what { Some((first, last)) } else { None };
            Ok(Plan {
                status: StatusCode::PARTIAL_CONTENT,
                what,
                content_type: crate::wire::PROOFS_TYPE.to_owned(),
                content_range: Some(ContentRange {
                    unit: Unit::Proofs,
                    span,
                    total: (!media.is_live()).then_some(total),
                    stripe: None,
                }),
                mapping: None,
                source,
            })
        }
        Range::Time { from, to, include_setup } => time(media, *from, *to, *include_setup, boundary),
        Range::Refused(Unit::Time) => Err(no_time(m.duration)),
        Range::Refused(unit) => {
            let total = if *unit == Unit::Proofs { m.slices() } else { m.pages };
            Err(unsatisfiable(*unit, total))
        }
    }
}

fn none_of(unit: Unit, total: u64) -> String {
    ContentRange { unit, span: None, total: Some(total), stripe: None }.to_string()
}

fn content_range(unit: Unit, first: u64, last: u64, total: u64) -> ContentRange {
    ContentRange { unit, span: Some((first, last)), total: Some(total), stripe: None }
}

fn refusal(unit: Unit, why: Unavailable) -> Refusal {
    match why {
        Unavailable::Beyond { total } => Refusal::Unsatisfiable(none_of(unit, total)),
        Unavailable::Missing(page) => Refusal::Missing(page),
    }
}

fn no_time(duration: u64) -> Refusal {
    Refusal::Unsatisfiable(format!("t:npt */{}", to_npt(duration)))
}

/// What a player hears that knows no pages: from now on, as from any server of live Ogg.
fn live(media: &MediaStore) -> Result<Plan, Refusal> {
    let plan = serve::plan_live(media, LIVE_BACK).map_err(|e| refusal(Unit::Pages, e))?;
    Ok(Plan {
        status: StatusCode::OK,
        what: plan.what,
        content_type: media.manifest().mime().to_owned(),
        content_range: None,
        mapping: None,
        source: plan.source,
    })
}

/// All of it; what is not held yet is waited for.
fn whole(media: &MediaStore) -> Plan {
    let m = media.manifest();
    Plan {
        status: StatusCode::OK,
        what: What::Bytes { first: 0, last: None },
        content_type: m.mime().to_owned(),
        content_range: None,
        mapping: None,
        source: Source::Parts {
            parts: vec![Part::Span { offset: 0, len: m.bytes, page: Some(0) }],
            wait: !media.is_complete(),
        },
    }
}

fn bytes(media: &MediaStore, ranges: &[ByteRange], boundary: &str) -> Result<Plan, Refusal> {
    let m = media.manifest();
    let mut spans: Vec<(u64, u64)> = ranges.iter().filter_map(|r| r.within(m.bytes)).collect();
    let Some(&(first, last)) = spans.first() else {
        return Err(Refusal::Unsatisfiable(none_of(Unit::Bytes, m.bytes)));
    };
    if spans.len() == 1 {
        let open = matches!(ranges, [ByteRange::From { last: None, .. }]);
        let asked = What::Bytes { first, last: (!open).then_some(last) };
        let serve::Plan { what, source, .. } =
            serve::plan(media, &asked).map_err(|e| refusal(Unit::Bytes, e))?;
        let to = if let What::Bytes { last: Some(to), .. } = what { to } else { last };
        return Ok(Plan {
            status: StatusCode::PARTIAL_CONTENT,
            what,
            content_type: m.mime().to_owned(),
            content_range: Some(content_range(Unit::Bytes, first, to, m.bytes)),
            mapping: None,
            source,
        });
    }
    // Overlapping ranges can ask for the same bytes many times over (RFC 9110, section 17.15).
    let asked = spans.clone();
    spans.sort_unstable();
    if spans.windows(2).any(|w| w[1].0 <= w[0].1) {
        return Ok(whole(media));
    }
    for &(first, last) in &asked {
        let part = serve::plan(media, &What::Bytes { first, last: Some(last) });
        if !part.is_ok_and(|p| p.what == What::Bytes { first, last: Some(last) }) {
            return Err(Refusal::Missing(media.first_missing(0).unwrap_or(0)));
        }
    }
    let (least, most) = (spans.first().map_or(0, |s| s.0), spans.last().map_or(0, |s| s.1));
    Ok(Plan {
        status: StatusCode::PARTIAL_CONTENT,
        what: What::Bytes { first: least, last: Some(most) },
        content_type: multipart_type(boundary),
        content_range: None,
        mapping: None,
        source: Source::Parts { parts: multipart(&asked, m.mime(), m.bytes, boundary), wait: false },
    })
}

fn multipart_type(boundary: &str) -> String {
    format!("multipart/byteranges; boundary={boundary}")
}

/// Several byte ranges in one body (RFC 9110, section 14.6).
fn multipart(spans: &[(u64, u64)], mime: &str, total: u64, boundary: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    for (i, &(first, last)) in spans.iter().enumerate() {
        let line = if i == 0 { "" } else { "\r\n" };
        let range = content_range(Unit::Bytes, first, last, total);
        let head = format!("{line}--{boundary}\r\nContent-Type: {mime}\r\nContent-Range: {range}\r\n\r\n");
        parts.push(Part::Literal(head.into()));
        parts.push(Part::bytes(first, last));
    }
    parts.push(Part::Literal(format!("\r\n--{boundary}--\r\n").into()));
    parts
}

fn pages(media: &MediaStore, asked: PageSet) -> Result<Plan, Refusal> {
    let m = media.manifest();
    let serve::Plan { what, total, source } =
        serve::plan(media, &What::Pages(asked)).map_err(|e| refusal(Unit::Pages, e))?;
    let set = if let What::Pages(set) = what { set } else { asked };
    let (first, last) = (set.next_from(0).unwrap_or(set.first), set.last.unwrap_or(total - 1));
    Ok(Plan {
        status: StatusCode::PARTIAL_CONTENT,
        what,
        content_type: m.mime().to_owned(),
        content_range: Some(ContentRange {
            stripe: set.stripe,
            // What goes on has no total (RFC 9110, section 14.4).
            total: (!media.is_live()).then_some(total),
            ..content_range(Unit::Pages, first, last, total)
        }),
        mapping: None,
        source,
    })
}

/// W3C Media Fragments: the pages that sound from `from` to before `to`, told as bytes.
fn time(
    media: &MediaStore,
    from: u64,
    to: Option<u64>,
    include_setup: bool,
    boundary: &str,
) -> Result<Plan, Refusal> {
    let m = media.manifest();
    let unavailable = |e| match e {
        Unavailable::Beyond { total } => no_time(total),
        Unavailable::Missing(page) => Refusal::Missing(page),
    };
    let (a, b) = serve::pages_of_time(media, from, to).map_err(unavailable)?;
    let to = to.unwrap_or(m.duration).min(m.duration);
    let missing = || Refusal::Missing(media.first_missing(0).unwrap_or(0));
    let (start, end) = (media.span(a).ok_or_else(missing)?, media.span(b).ok_or_else(missing)?);
    let mut spans = vec![(start.offset, end.end() - 1)];
    if include_setup {
        let setup = media.setup_before(a).map_err(|e| match e {
            NoSetup::Unknown(page) => Refusal::Missing(page),
            NoSetup::Far => no_time(m.duration),
        })?;
        if let Some(last) = setup.clone().next_back() {
            if let Some(page) = first_missing(media, setup.start, last) {
                return Err(Refusal::Missing(page));
            }
            let (first, last) =
                (media.span(setup.start).ok_or_else(missing)?, media.span(last).ok_or_else(missing)?);
            if last.end() == start.offset {
                spans = vec![(first.offset, end.end() - 1)];
            } else {
                spans.insert(0, (first.offset, last.end() - 1));
            }
        }
    }
    let clamp = |t: i64| u64::try_from(t).unwrap_or(0);
    let sounds_from = clamp(start.time);
    let sounds_to =
        if b + 1 < m.pages { media.span(b + 1).map_or(to, |s| clamp(s.time)) } else { m.duration };
    let list: Vec<String> = spans.iter().map(|(first, last)| format!("{first}-{last}")).collect();
    let mapping = format!(
        "{{ t:npt {}-{}/0.0-{}{} }} = {{ bytes {}/{} }}",
        to_npt(sounds_from),
        to_npt(sounds_to.max(sounds_from)),
        to_npt(m.duration),
        if include_setup { ";include-setup" } else { "" },
        list.join(","),
        m.bytes
    );
    let (content_type, range, parts) = match spans[..] {
        [(first, last)] => {
            let range = content_range(Unit::Bytes, first, last, m.bytes);
            (m.mime().to_owned(), Some(range), vec![Part::bytes(first, last)])
        }
        _ => (multipart_type(boundary), None, multipart(&spans, m.mime(), m.bytes, boundary)),
    };
    Ok(Plan {
        status: StatusCode::PARTIAL_CONTENT,
        what: What::Time { from, to: Some(to) },
        content_type,
        content_range: range,
        mapping: Some(mapping),
        source: Source::Parts { parts, wait: false },
    })
}
