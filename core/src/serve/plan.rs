//! What to answer: a part against what a media has, before anything is sent. No IO but looking records up.

use bytes::Bytes;
use icet::{PageNo, PageSet, limits};
use thiserror::Error;

use crate::protocol::{Span, What};
use crate::store::MediaStore;

/// Most slices in one answer; the receiver asks again for the rest.
const SLICES: u64 = 1024;
/// Most pages of a striped set that are looked up one by one before an answer begins.
const PAGES: u64 = 4096;

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What it delivers: what was asked for or a beginning of it, with its end. For the shelf.
    pub what: What,
    /// How much the media has of it: pages, bytes, microseconds or slices, as `what` counts.
    pub total: u64,
    /// Where the bytes come from.
    pub source: Source,
}

/// Where bytes come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Parts of known length.
    Parts {
        /// One after the other.
        parts: Vec<Part>,
        /// Whether pages that are not held yet are waited for.
        wait: bool,
    },
    /// Pages as they come.
    Pages(PageSet),
    /// Live media as a player wants it: setup pages, and pages as they come.
    Live {
        /// What is held of the current link's setup.
        setup: Part,
        /// What follows.
        pages: PageSet,
    },
    /// Batches of records of live media as they come, from that which has this page on.
    Batches(PageNo),
    /// Slices with their proofs, as far as they are known here.
    Slices {
        /// First.
        first: u64,
        /// Last, inclusive.
        last: u64,
    },
}

impl Source {
    /// Bytes, if that is known before they are read.
    #[must_use]
    pub fn length(&self) -> Option<u64> {
        match self {
            Source::Parts { parts, .. } => Some(parts.iter().map(Part::len).sum()),
            Source::Pages(_) | Source::Live { .. } | Source::Batches(_) | Source::Slices { .. } => None,
        }
    }
}

/// A part of known length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// These bytes, of the transport's own.
    Literal(Bytes),
    /// Bytes of the media.
    Span {
        /// Offset of the first.
        offset: u64,
        /// How many; never 0.
        len: u64,
        /// The page that begins at `offset`, if one does and is known.
        page: Option<PageNo>,
    },
}

impl Part {
    /// The bytes `first ..= last` of the media.
    #[must_use]
    pub fn bytes(first: u64, last: u64) -> Part {
        Part::Span { offset: first, len: last - first + 1, page: None }
    }

    /// The pages `first ..= last`.
    ///
    /// # Errors
    /// [`Unavailable::Missing`] where their records are not known here.
    pub fn pages(media: &MediaStore, first: PageNo, last: PageNo) -> Result<Part, Unavailable> {
        let span = |page| media.span(page).ok_or(Unavailable::Missing(page));
        let (a, b) = (span(first)?, span(last)?);
        Ok(Part::Span { offset: a.offset, len: b.end() - a.offset, page: Some(first) })
    }

    /// How many bytes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "no part is empty")]
    pub fn len(&self) -> u64 {
        match self {
            Part::Literal(bytes) => bytes.len() as u64,
            Part::Span { len, .. } => *len,
        }
    }
}

/// Why a part cannot be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Unavailable {
    /// The media has nothing there, now or later.
    #[error("nothing lies in that range")]
    Beyond {
        /// How much the media has: pages, bytes, microseconds or slices.
        total: u64,
    },
    /// This page is not held, perhaps later.
    #[error("this peer does not hold page {0} yet")]
    Missing(PageNo),
}

/// Plans the answer to a request for `what`.
///
/// # Errors
/// [`Unavailable`].
pub fn plan(media: &MediaStore, what: &What) -> Result<Plan, Unavailable> {
    match what {
        What::Pages(set) => pages(media, *set),
        What::Bytes { first, last } => bytes(media, *first, *last),
        What::Time { from, to } => {
            let (first, last) = pages_of_time(media, *from, *to)?;
            let total = media.manifest().duration;
            Ok(Plan {
                what: What::Time { from: *from, to: Some(to.unwrap_or(total).min(total)) },
                total,
                source: Source::Parts { parts: vec![Part::pages(media, first, last)?], wait: false },
            })
        }
        What::Spans(asked) => {
            let total = media.manifest().pages;
            let mut parts = Vec::new();
            for s in asked {
                match span(media, s) {
                    Ok(part) => parts.push(part),
                    // A beginning.
                    Err(Unavailable::Missing(_)) if !parts.is_empty() => break,
                    Err(e) => return Err(e),
                }
            }
            let what = What::Spans(asked.get(..parts.len()).unwrap_or_default().to_vec());
            if parts.is_empty() {
                return Err(Unavailable::Beyond { total });
            }
            Ok(Plan { what, total, source: Source::Parts { parts, wait: false } })
        }
        What::Proofs { first, last } if media.is_live() => batches(media, *first, *last),
        What::Proofs { first, last } => {
            let total = media.manifest().slices();
            if *first >= total || last < first {
                return Err(Unavailable::Beyond { total });
            }
            let (first, last) = (*first, (*last).min(total - 1).min(first + SLICES - 1));
            let (what, source) = (What::Proofs { first, last }, Source::Slices { first, last });
            Ok(Plan { what, total, source })
        }
    }
}

/// Plans what a player without page numbers is given of live media: the setup pages of the current link, and all pages from
/// `back` microseconds before the newest one on, without an end.
///
/// # Errors
/// [`Unavailable::Missing`], where the setup pages or what follows them are not held (yet).
pub fn plan_live(media: &MediaStore, back: u64) -> Result<Plan, Unavailable> {
    let (first, end) = media.live_setup().ok_or(Unavailable::Missing(0))?;
    let last = end.checked_sub(1).ok_or(Unavailable::Missing(0))?;
    if let Some(page) = media.first_missing(first).filter(|p| *p <= last) {
        return Err(Unavailable::Missing(page));
    }
    let newest = media.last_held().ok_or(Unavailable::Missing(end))?;
    let time = media.span(newest).map_or(0, |s| u64::try_from(s.time).unwrap_or(0));
    let from = media.page_at_time(time.saturating_sub(back)).unwrap_or(newest).max(end);
    let from = media.first_held(from).unwrap_or(from);
    let pages = PageSet { first: from, last: Some(limits::PAGES - 1), stripe: None };
    let setup = Part::pages(media, first, last)?;
    Ok(Plan { what: What::Pages(pages), total: limits::PAGES, source: Source::Live { setup, pages } })
}

/// As [`plan`], but of a page set with an end, pages that are not held are passed over instead of ending the answer; says
/// also which is the first of them.
///
/// # Errors
/// [`Unavailable`], if nothing of it is held.
pub fn plan_around_holes(media: &MediaStore, what: &What) -> Result<(Plan, Option<PageNo>), Unavailable> {
    let total = media.page_end();
    let set = match what {
        What::Pages(set @ PageSet { last: Some(last), .. }) if *last < limits::PAGES - 1 => *set,
        _ => return Ok((plan(media, what)?, None)),
    };
    let mut set = PageSet { last: set.last.map(|l| l.min(total.saturating_sub(1))), ..set };
    let (mut parts, mut left_out, mut seen) = (Vec::new(), None, 0);
    let mut at = set.next_from(0).filter(|p| *p < total);
    let Some(mut last) = at else { return Err(Unavailable::Beyond { total }) };
    while let Some(page) = at {
        if seen == PAGES {
            // The rest is for another request.
            set.last = Some(last);
            break;
        }
        seen += 1;
        // The end of the run of held or missing pages that begins here.
        let held = media.has(page);
        let end = if held { media.first_missing(page) } else { media.first_held(page) };
        let run = end.unwrap_or(total).min(set.last.map_or(total, |l| l + 1)) - 1;
        last = if set.stripe.is_some() { page } else { run };
        if held {
            push(&mut parts, Part::pages(media, page, last)?);
        } else {
            left_out.get_or_insert(page);
        }
        at = set.next_from(last + 1);
    }
    match (left_out, parts.is_empty()) {
        (Some(page), true) => Err(Unavailable::Missing(page)),
        _ => {
            let source = Source::Parts { parts, wait: false };
            Ok((Plan { what: What::Pages(set), total, source }, left_out))
        }
    }
}

/// Bytes of a page that is held.
fn span(media: &MediaStore, asked: &Span) -> Result<Part, Unavailable> {
    let total = media.manifest().pages;
    if asked.page >= total {
        return Err(Unavailable::Beyond { total });
    }
    let page = media.span(asked.page).filter(|_| media.has(asked.page));
    let page = page.ok_or(Unavailable::Missing(asked.page))?;
    let (offset, len) = (u64::from(asked.offset), u64::from(asked.len));
    if len == 0 || offset + len > u64::from(page.record.len) {
        return Err(Unavailable::Beyond { total });
    }
    Ok(Part::Span { offset: page.offset + offset, len, page: None })
}

/// The first page from `first` to `last` (inclusive) that is not held.
#[must_use]
pub fn first_missing(media: &MediaStore, first: PageNo, last: PageNo) -> Option<PageNo> {
    if media.is_complete() {
        return None;
    }
    media.first_missing(first).filter(|p| *p <= last)
}

/// The last byte of `first ..= last` up to which all is held.
fn held(media: &MediaStore, first: u64, last: u64) -> Result<u64, Unavailable> {
    if media.is_complete() {
        return Ok(last);
    }
    // An unknown slice has no held pages; which page it would be is not known either.
    let page = media.page_at_byte(first).ok_or(Unavailable::Missing(0))?;
    match media.first_missing(page) {
        None => Ok(last),
        Some(missing) if missing == page => Err(Unavailable::Missing(missing)),
        Some(missing) => {
            let end = media.span(missing - 1).ok_or(Unavailable::Missing(missing))?.end();
            if end > first { Ok(last.min(end - 1)) } else { Err(Unavailable::Missing(missing)) }
        }
    }
}

fn bytes(media: &MediaStore, first: u64, asked: Option<u64>) -> Result<Plan, Unavailable> {
    let total = media.manifest().bytes;
    let last = asked.unwrap_or(u64::MAX).min(total.saturating_sub(1));
    if first >= total || last < first {
        return Err(Unavailable::Beyond { total });
    }
    let to = held(media, first, last)?;
    // An open end means "go on": who plays while it arrives waits for the rest.
    let (to, wait) = if asked.is_none() { (last, to < last) } else { (to, false) };
    Ok(Plan {
        what: What::Bytes { first, last: Some(to) },
        total,
        source: Source::Parts { parts: vec![Part::bytes(first, to)], wait },
    })
}

/// Batches of live media have no last one: who asks says so by the highest number.
fn batches(media: &MediaStore, first: PageNo, last: PageNo) -> Result<Plan, Unavailable> {
    if last != limits::PAGES - 1 {
        return Err(Unavailable::Beyond { total: limits::PAGES });
    }
    if media.live_base().is_none_or(|base| first < base) {
        return Err(Unavailable::Missing(first));
    }
    let what = What::Proofs { first, last };
    Ok(Plan { what, total: limits::PAGES, source: Source::Batches(first) })
}

fn pages(media: &MediaStore, asked: PageSet) -> Result<Plan, Unavailable> {
    let total = media.page_end();
    let Some(first) = asked.next_from(0).filter(|p| *p < total) else {
        return Err(Unavailable::Beyond { total });
    };
    let open = asked.last.is_none_or(|l| l >= limits::PAGES - 1);
    let mut set = PageSet { last: Some(asked.last.unwrap_or(u64::MAX).min(total - 1)), ..asked };
    if media.is_live() && !media.has(first) && media.live_base().is_none_or(|base| first < base) {
        return Err(Unavailable::Missing(first));
    }
    if open && media.is_live() {
        let set = PageSet { last: Some(limits::PAGES - 1), ..asked };
        return Ok(Plan { what: What::Pages(set), total: limits::PAGES, source: Source::Pages(set) });
    }
    if open && !media.is_complete() {
        return Ok(Plan { what: What::Pages(set), total, source: Source::Pages(set) });
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
        Some(page) if page == first => return Err(Unavailable::Missing(page)),
        Some(page) => set.last = Some(page - 1),
        None => {}
    }
    let mut parts = Vec::new();
    if set.stripe.is_none() {
        parts.push(Part::pages(media, first, set.last.unwrap_or(total - 1))?);
    } else {
        for page in set.iter(total) {
            push(&mut parts, Part::pages(media, page, page)?);
        }
    }
    Ok(Plan { what: What::Pages(set), total, source: Source::Parts { parts, wait: false } })
}

/// Adds a part; joins it to the last one if it continues that.
fn push(parts: &mut Vec<Part>, part: Part) {
    if let Some(Part::Span { offset, len, .. }) = parts.last_mut()
        && let Part::Span { offset: next, len: more, .. } = &part
        && *offset + *len == *next
    {
        *len += more;
    } else {
        parts.push(part);
    }
}

/// The pages that sound from `from` to before `to` microseconds (to the end if none), first and last; all of them are held.
/// Pages that start at one time go together: a packet over several pages, and the setup pages with the first that sounds.
///
/// # Errors
/// [`Unavailable`].
pub fn pages_of_time(
    media: &MediaStore,
    from: u64,
    to: Option<u64>,
) -> Result<(PageNo, PageNo), Unavailable> {
    let total = media.manifest().duration;
    let to = to.unwrap_or(total).min(total);
    if from >= total || to <= from {
        return Err(Unavailable::Beyond { total });
    }
    let missing = || Unavailable::Missing(media.first_missing(0).unwrap_or(0));
    // From the page that sounds at `from` to the last one that starts before `to`.
    let sounds = media.page_at_time(from).ok_or_else(missing)?;
    let starts = media.span(sounds).ok_or(Unavailable::Missing(sounds))?.time;
    let before =
        u64::try_from(starts).ok().and_then(|t| t.checked_sub(1)).and_then(|t| media.page_at_time(t));
    let first = before.map_or(0, |p| p + 1).min(sounds);
    let last = media.page_at_time(to - 1).ok_or_else(missing)?.max(first);
    match first_missing(media, first, last) {
        Some(page) => Err(Unavailable::Missing(page)),
        None => Ok((first, last)),
    }
}
