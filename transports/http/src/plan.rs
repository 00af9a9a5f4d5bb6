//! What to answer: a range against what a media has, before anything is sent.

use iceshare::icet::PageSet;
use iceshare::protocol::What;
use iceshare::store::MediaStore;

use crate::wire::{self, Range};

/// Most slices in one answer.
const SLICES: u64 = iceshare::icet::limits::SLICES as u64;
/// Stripes are sent as they come when they have more parts than this.
const PARTS: u64 = 4096;

/// An answer's head and body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// Extents of the file.
    Extents {
        /// What it is, for the shelf.
        what: What,
        /// `(offset, length)`.
        extents: Vec<(u64, u64)>,
        /// 206 with these headers, or 200.
        partial: Option<Partial>,
    },
    /// Pages as they come, of unknown length.
    Coming {
        /// The pages.
        set: PageSet,
        /// `Content-Range`.
        content_range: String,
    },
    /// Slices with their proofs.
    Proofs {
        /// First and last slice.
        first: u64,
        /// See `first`.
        last: u64,
        /// `Content-Range`.
        content_range: String,
    },
    /// 416 with this `Content-Range`.
    Unsatisfiable(String),
    /// 503: the host does not hold it, perhaps later.
    Missing,
}

/// Headers of a 206.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Partial {
    /// `Content-Range`.
    Range(String),
    /// `Content-Range-Mapping` (W3C Media Fragments, section 5.2.2).
    Mapping(String),
}

/// Plans the answer to `range` (none: all of it).
pub(crate) fn plan(media: &MediaStore, range: Option<Range>) -> Plan {
    let m = media.manifest();
    match range {
        None => {
            if !media.is_complete() {
                return Plan::Missing;
            }
            Plan::Extents {
                what: What::Bytes { first: 0, last: None },
                extents: vec![(0, m.bytes)],
                partial: None,
            }
        }
        Some(Range::Bytes(bytes)) => match bytes.within(m.bytes) {
            None => Plan::Unsatisfiable(format!("bytes */{}", m.bytes)),
            Some((first, last)) => byte_range(media, first, last),
        },
        Some(Range::Pages(set)) => page_range(media, set),
        Some(Range::Proofs { first, last }) => {
            let slices = m.slices();
            if first >= slices {
                return Plan::Unsatisfiable(format!("proofs */{slices}"));
            }
            let last = last.min(slices - 1).min(first + SLICES - 1);
            Plan::Proofs { first, last, content_range: format!("proofs {first}-{last}/{slices}") }
        }
        Some(Range::Time { from, to, setup }) => time_range(media, from, to, setup),
    }
}

/// Where the held pages that follow `page` without a gap end (exclusive, in bytes), at most at `limit`.
fn held_until(media: &MediaStore, mut page: u64, limit: u64) -> Option<u64> {
    let mut end = None;
    while end.is_none_or(|e| e < limit) && media.has(page) {
        end = Some(media.span(page)?.end());
        page += 1;
    }
    end
}

fn byte_range(media: &MediaStore, first: u64, last: u64) -> Plan {
    let end = if media.is_complete() {
        Some(last + 1)
    } else {
        media.page_at_byte(first).and_then(|page| held_until(media, page, last + 1))
    };
    let Some(end) = end.filter(|e| *e > first) else { return Plan::Missing };
    let last = last.min(end - 1);
    Plan::Extents {
        what: What::Bytes { first, last: Some(last) },
        extents: vec![(first, last - first + 1)],
        partial: Some(Partial::Range(format!("bytes {first}-{last}/{}", media.manifest().bytes))),
    }
}

fn page_range(media: &MediaStore, mut set: PageSet) -> Plan {
    let pages = media.manifest().pages;
    let Some(first) = set.next_from(0).filter(|p| *p < pages) else {
        return Plan::Unsatisfiable(format!("pages */{pages}"));
    };
    let open = set.last.is_none();
    let last = set.last.unwrap_or(pages - 1).min(pages - 1);
    set.last = Some(last);
    let missing = set.iter(pages).find(|p| !media.has(*p));
    let range = |last: u64| {
        let stripe = set.stripe.map(|s| format!(";{}", stripe_text(s))).unwrap_or_default();
        format!("pages {}-{last}/{pages}{stripe}", set.first)
    };
    if open && missing.is_some() || set.stripe.is_some() && set.count(pages) > PARTS {
        return Plan::Coming { set, content_range: range(last) };
    }
    let last = match missing {
        Some(page) if page == first => return Plan::Missing,
        Some(page) => page - 1,
        None => last,
    };
    set.last = Some(last);
    let mut extents: Vec<(u64, u64)> = Vec::new();
    if set.stripe.is_none() {
        let (Some(a), Some(b)) = (media.span(first), media.span(last)) else { return Plan::Missing };
        extents.push((a.offset, b.end() - a.offset));
    } else {
        for page in set.iter(pages) {
            let Some(span) = media.span(page) else { return Plan::Missing };
            match extents.last_mut() {
                Some((offset, len)) if *offset + *len == span.offset => *len += u64::from(span.record.len),
                _ => extents.push((span.offset, u64::from(span.record.len))),
            }
        }
    }
    Plan::Extents { what: What::Pages(set), extents, partial: Some(Partial::Range(range(last))) }
}

fn stripe_text(s: iceshare::icet::Stripe) -> String {
    let group = if s.group == 1 { String::new() } else { format!("/{}", s.group) };
    format!("stripe={}/{}{group}", s.index, s.of)
}

fn time_range(media: &MediaStore, from: u64, to: Option<u64>, setup: bool) -> Plan {
    let m = media.manifest();
    let none = || Plan::Unsatisfiable(format!("t:npt */0.000000-{}", wire::npt_text(m.duration)));
    if from >= m.duration {
        return none();
    }
    let to = to.unwrap_or(m.duration).min(m.duration);
    // From the page that sounds at `from` to the last one that starts before `to`.
    let (Some(a), Some(b)) = (media.page_at_time(from), media.page_at_time(to.saturating_sub(1))) else {
        return Plan::Missing;
    };
    let (Some(first), Some(last)) = (media.span(a), media.span(b.max(a))) else { return Plan::Missing };
    let held = held_until(media, a, last.end());
    if held.is_none_or(|h| h < last.end()) {
        return Plan::Missing;
    }
    let mut extents = vec![(first.offset, last.end() - first.offset)];
    let mut ranges = format!("{}-{}", first.offset, last.end() - 1);
    if setup && m.setup > 0 && a > 0 {
        let Some(head) =
            media.span(m.setup.min(a) - 1).filter(|s| held_until(media, 0, s.end()) >= Some(s.end()))
        else {
            return Plan::Missing;
        };
        extents.insert(0, (0, head.end()));
        ranges = format!("0-{},{ranges}", head.end() - 1);
    }
    let clamp = |t: i64| u64::try_from(t).unwrap_or(0);
    let after = media.span(b.max(a) + 1).map_or(m.duration, |s| clamp(s.time));
    let mapping = format!(
        "{{ t:npt {}-{}/0.000000-{}{} }} = {{ bytes {ranges}/{} }}",
        wire::npt_text(clamp(first.time)),
        wire::npt_text(after.max(clamp(first.time))),
        wire::npt_text(m.duration),
        if setup { ";include-setup" } else { "" },
        m.bytes
    );
    Plan::Extents {
        what: What::Time { from, to: Some(to) },
        extents,
        partial: Some(Partial::Mapping(mapping)),
    }
}
