//! What a ticket's pages allow, and how many bytes they are.

use icet::PageSet;

use crate::protocol::What;
use crate::store::MediaStore;

/// Pages that are looked at one by one; larger sets are compared and estimated as a whole.
const ONE_BY_ONE: u64 = 4096;
/// Pages by which times may be off where logical streams are interleaved.
const INTERLEAVED: u64 = 64;

/// Whether `what` asks for nothing beyond `pages`. Proofs of any part of the media are fine: they are paid for apart. So is what
/// is not known here: it cannot be served anyway.
pub(super) fn within(media: &MediaStore, what: &What, pages: &PageSet) -> bool {
    let m = media.manifest().manifest();
    match what {
        What::Proofs { .. } => true,
        What::Pages(asked) => is_subset(asked, pages, media.page_end()),
        What::Spans(spans) => spans.iter().all(|s| pages.has(s.page)),
        What::Bytes { first, last } => {
            let end = m.bytes.saturating_sub(1);
            let last = last.unwrap_or(end).min(end);
            match (media.page_at_byte(*first), media.page_at_byte(last)) {
                (Some(first), Some(last)) => {
                    first > last || is_subset(&PageSet::range(first, last), pages, m.pages)
                }
                _ => true,
            }
        }
        // Pages of one time cannot be told apart by it: the ticket's bytes limit what comes in between.
        What::Time { from, to } => {
            let last = pages.last.unwrap_or(u64::MAX).saturating_add(INTERLEAVED);
            let first = pages.first.saturating_sub(INTERLEAVED);
            let end = to.map(|to| media.page_at_time(to.saturating_sub(1)));
            media.page_at_time(*from).is_none_or(|p| (first..=last).contains(&p))
                && end.flatten().is_none_or(|p| p <= last)
        }
    }
}

fn is_subset(asked: &PageSet, pages: &PageSet, end: u64) -> bool {
    let last = |set: &PageSet| set.last.unwrap_or(u64::MAX).min(end.saturating_sub(1));
    let inside = asked.first >= pages.first && last(asked) <= last(pages);
    let one_by_one = || asked.count(end) <= ONE_BY_ONE && asked.iter(end).all(|p| pages.has(p));
    inside && (pages.stripe.is_none() || asked.stripe == pages.stripe) || one_by_one()
}

/// About how many bytes an answer takes of a ticket for pages: exact where [`bytes_of`] is.
pub(super) fn bytes_asked(media: &MediaStore, what: &What) -> u64 {
    let m = media.manifest().manifest();
    match what {
        What::Pages(pages) => bytes_of(media, pages),
        What::Bytes { first, last } => {
            let end = last.unwrap_or(u64::MAX).min(m.bytes.saturating_sub(1));
            (end + 1).saturating_sub(*first)
        }
        // Each stands for itself: some of them are of use too.
        What::Spans(spans) => spans.iter().map(|s| u64::from(s.len)).min().unwrap_or(0),
        // Pages of one time cannot be told apart by it, and proofs are paid for apart.
        What::Time { .. } | What::Proofs { .. } => 0,
    }
}

/// Bytes of a page set: exact where records are known (a host knows those of what it holds) and the set is contiguous or small.
pub(super) fn bytes_of(media: &MediaStore, pages: &PageSet) -> u64 {
    let m = media.manifest().manifest();
    if media.is_live() {
        let set = pages.last.map(|last| pages.iter(last.saturating_add(1)).take(icet::limits::RECORDS));
        let bytes = |page| media.span(page).map_or(0, |s| u64::from(s.record.len));
        return set.map_or(0, |set| set.map(bytes).sum());
    }
    let count = pages.count(m.pages);
    let mean = m.bytes.div_ceil(m.pages.max(1));
    if count > ONE_BY_ONE || pages.stripe.is_none() {
        let last = pages.last.unwrap_or(u64::MAX).min(m.pages.saturating_sub(1));
        if let (None, Some(bytes)) = (pages.stripe, media.bytes_between(pages.first, last)) {
            return bytes;
        }
        return count.saturating_mul(mean).saturating_add(u64::from(*icet::limits::PAGE_BYTES.end()));
    }
    let bytes = |page| media.span(page).map_or(mean, |s| u64::from(s.record.len));
    pages.iter(m.pages).map(bytes).sum()
}
