//! What to answer: a range against what a media has, before anything is sent. No IO but looking records up.

use bytes::Bytes;
use http::StatusCode;
use iceshare::icet::{PageNo, PageSet, limits};
use iceshare::protocol::What;
use iceshare::store::MediaStore;

use crate::wire::{ByteRange, ContentRange, Range, Unit, to_npt};

/// Most slices in one answer; the receiver asks again for the rest.
const SLICES: u64 = 1024;
/// Most pages of a set that are looked up one by one before an answer begins.
const PAGES: u64 = 4096;

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

/// Where the body comes from.
#[derive(Debug, PartialEq)]
pub(crate) enum Source {
    /// Parts of known length.
    Parts {
        /// One after the other.
        parts: Vec<Part>,
        /// Whether pages that are not held yet are waited for.
        wait: bool,
    },
    /// Pages as they come.
    Pages(PageSet),
    /// Slices with their proofs, as far as they are known here.
    Slices {
        /// First.
        first: u64,
        /// Last, inclusive.
        last: u64,
    },
}

/// A part of a body.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Part {
    /// These bytes.
    Literal(Bytes),
    /// Bytes of the file.
    Span {
        /// Offset of the first.
        offset: u64,
        /// How many; never 0.
        len: u64,
    },
}

impl Part {
    fn span(first: u64, last: u64) -> Part {
        Part::Span { offset: first, len: last - first + 1 }
    }

    pub(crate) fn len(&self) -> u64 {
        match self {
            Part::Literal(bytes) => bytes.len() as u64,
            Part::Span { len, .. } => *len,
        }
    }
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
            let slices = m.slices();
            if *first >= slices {
                return Err(unsatisfiable(Unit::Proofs, slices));
            }
            let last = (*last).min(slices - 1).min(first + SLICES - 1);
            Ok(Plan {
                status: StatusCode::PARTIAL_CONTENT,
                what: What::Proofs { first: *first, last },
                content_type: crate::wire::PROOFS_TYPE.to_owned(),
                content_range: Some(content_range(Unit::Proofs, *first, last, slices)),
                mapping: None,
                source: Source::Slices { first: *first, last },
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

fn no_time(duration: u64) -> Refusal {
    Refusal::Unsatisfiable(format!("t:npt */{}", to_npt(duration)))
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
            parts: vec![Part::Span { offset: 0, len: m.bytes }],
            wait: !media.is_complete(),
        },
    }
}

/// The first page from `first` to `last` (inclusive) that is not held.
fn first_missing(media: &MediaStore, first: PageNo, last: PageNo) -> Option<PageNo> {
    if media.is_complete() {
        return None;
    }
    media.first_missing(first).filter(|p| *p <= last)
}

/// The last byte of `first ..= last` up to which all is held.
fn held(media: &MediaStore, first: u64, last: u64) -> Result<u64, Refusal> {
    if media.is_complete() {
        return Ok(last);
    }
    // An unknown slice has no held pages; which page it would be is not known either.
    let page = media.page_at_byte(first).ok_or(Refusal::Missing(0))?;
    match media.first_missing(page) {
        None => Ok(last),
        Some(missing) if missing == page => Err(Refusal::Missing(missing)),
        Some(missing) => {
            let end = media.span(missing - 1).ok_or(Refusal::Missing(missing))?.end();
            if end > first { Ok(last.min(end - 1)) } else { Err(Refusal::Missing(missing)) }
        }
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
        let to = held(media, first, last)?;
        // An open end means "go on": who plays while it arrives waits for the rest.
        let (to, wait) = if open { (last, to < last) } else { (to, false) };
        return Ok(Plan {
            status: StatusCode::PARTIAL_CONTENT,
            what: What::Bytes { first, last: Some(to) },
            content_type: m.mime().to_owned(),
            content_range: Some(content_range(Unit::Bytes, first, to, m.bytes)),
            mapping: None,
            source: Source::Parts { parts: vec![Part::span(first, to)], wait },
        });
    }
    // Overlapping ranges can ask for the same bytes many times over (RFC 9110, section 17.15).
    let asked = spans.clone();
    spans.sort_unstable();
    if spans.windows(2).any(|w| w[1].0 <= w[0].1) {
        return Ok(whole(media));
    }
    for (first, last) in &asked {
        if held(media, *first, *last)? < *last {
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
        parts.push(Part::span(first, last));
    }
    parts.push(Part::Literal(format!("\r\n--{boundary}--\r\n").into()));
    parts
}

fn pages(media: &MediaStore, asked: PageSet) -> Result<Plan, Refusal> {
    let m = media.manifest();
    let total = m.pages;
    let Some(first) = asked.next_from(0).filter(|p| *p < total) else {
        return Err(Refusal::Unsatisfiable(none_of(Unit::Pages, total)));
    };
    let open = asked.last.is_none_or(|l| l >= limits::PAGES - 1);
    let mut set = PageSet { last: Some(asked.last.unwrap_or(u64::MAX).min(total - 1)), ..asked };
    let plan = |set: PageSet, source| Plan {
        status: StatusCode::PARTIAL_CONTENT,
        what: What::Pages(set),
        content_type: m.mime().to_owned(),
        content_range: Some(ContentRange {
            stripe: set.stripe,
            ..content_range(Unit::Pages, first, set.last.unwrap_or(total - 1), total)
        }),
        mapping: None,
        source,
    };
    if open && !media.is_complete() {
        return Ok(plan(set, Source::Pages(set)));
    }
    if set.stripe.is_some() && set.count(total) > PAGES {
        // The rest is for another request.
        set.last = set.iter(total).nth(usize::try_from(PAGES - 1).unwrap_or(usize::MAX));
    }
    let last = set.last.unwrap_or(total - 1);
    let missing = match set.stripe {
        None => first_missing(media, first, last),
        Some(_) if media.is_complete() => None,
        Some(_) => set.iter(total).find(|p| !media.has(*p)),
    };
    match missing {
        Some(page) if page == first => return Err(Refusal::Missing(page)),
        Some(page) => set.last = Some(page - 1),
        None => {}
    }
    let unknown = |page| move || Refusal::Missing(page);
    let mut parts: Vec<Part> = Vec::new();
    if set.stripe.is_none() {
        let last = set.last.unwrap_or(total - 1);
        let (a, b) = (media.span(first), media.span(last));
        let (a, b) = (a.ok_or_else(unknown(first))?, b.ok_or_else(unknown(last))?);
        parts.push(Part::span(a.offset, b.end() - 1));
    } else {
        for page in set.iter(total) {
            let span = media.span(page).ok_or_else(unknown(page))?;
            match parts.last_mut() {
                Some(Part::Span { offset, len }) if *offset + *len == span.offset => {
                    *len += u64::from(span.record.len);
                }
                _ => parts.push(Part::span(span.offset, span.end() - 1)),
            }
        }
    }
    Ok(plan(set, Source::Parts { parts, wait: false }))
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
    if from >= m.duration {
        return Err(no_time(m.duration));
    }
    let to = to.unwrap_or(m.duration).min(m.duration);
    let missing = || Refusal::Missing(media.first_missing(0).unwrap_or(0));
    // From the page that sounds at `from` to the last one that starts before `to`.
    let a = media.page_at_time(from).ok_or_else(missing)?;
    let b = media.page_at_time(to - 1).ok_or_else(missing)?.max(a);
    if let Some(page) = first_missing(media, a, b) {
        return Err(Refusal::Missing(page));
    }
    let (start, end) = (media.span(a).ok_or_else(missing)?, media.span(b).ok_or_else(missing)?);
    let mut spans = vec![(start.offset, end.end() - 1)];
    if include_setup && m.setup > 0 && a > 0 {
        let last = m.setup.min(a) - 1;
        if let Some(page) = first_missing(media, 0, last) {
            return Err(Refusal::Missing(page));
        }
        let setup = media.span(last).ok_or_else(missing)?;
        if setup.end() == start.offset {
            spans = vec![(0, end.end() - 1)];
        } else {
            spans.insert(0, (0, setup.end() - 1));
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
            (m.mime().to_owned(), Some(range), vec![Part::span(first, last)])
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
