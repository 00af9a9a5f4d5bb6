//! Where the bytes of a request lie: places, and what follows what.

use iceshare::icet::{PageSet, limits};
use iceshare::protocol::{Span, What};

use crate::wire::{Places, UNIT};

/// Behind all places.
pub(crate) const END: u64 = u64::MAX;

/// What a request covers.
#[derive(Debug, Clone)]
pub(crate) enum Shape {
    /// Pages of a set.
    Pages(PageSet),
    /// Bytes of pages.
    Spans(Places),
    /// Any pages: the host knows which (media time).
    AnyPages,
    /// Bytes of the media, from and up to before.
    Bytes(u64, u64),
    /// Slices, both inclusive.
    Slices(u64, u64),
}

impl Shape {
    pub(crate) fn of(what: &What) -> Shape {
        match what {
            What::Pages(set) => Shape::Pages(*set),
            What::Spans(spans) => Shape::Spans(places(spans)),
            What::Time { .. } => Shape::AnyPages,
            What::Bytes { first, last } => Shape::Bytes(*first, last.map_or(END, |l| l.saturating_add(1))),
            What::Proofs { first, last } => Shape::Slices(*first, *last),
        }
    }

    /// Whether what comes is handed on in order only.
    pub(crate) fn is_ordered(&self) -> bool {
        matches!(self, Shape::Bytes(..) | Shape::Slices(..))
    }

    /// Whether `len` bytes at `place` were asked for.
    pub(crate) fn covers(&self, place: u64, len: u64) -> bool {
        let within_unit = |max: u64| place % UNIT + len <= max;
        let page = || within_unit(u64::from(*limits::PAGE_BYTES.end())) && place / UNIT < limits::PAGES;
        match self {
            Shape::Pages(set) => set.has(place / UNIT) && page(),
            Shape::Spans(places) => {
                let at = places.0.partition_point(|(start, _)| *start <= place);
                let before = at.checked_sub(1).and_then(|i| places.0.get(i));
                before.is_some_and(|(_, end)| place < *end && place + len <= *end)
            }
            Shape::AnyPages => page(),
            Shape::Bytes(first, end) => (*first..*end).contains(&place) && end - place >= len,
            Shape::Slices(first, last) => (*first..=*last).contains(&(place / UNIT)) && within_unit(UNIT - 1),
        }
    }

    /// The first place from `place` on that the request covers; [`END`] if there is none.
    pub(crate) fn next(&self, place: u64) -> u64 {
        match self {
            Shape::Pages(set) => match set.next_from(place / UNIT) {
                Some(page) if page == place / UNIT => place,
                Some(page) => page * UNIT,
                None => END,
            },
            Shape::Spans(places) => {
                let at = places.0.partition_point(|(_, end)| *end <= place);
                places.0.get(at).map_or(END, |(start, _)| place.max(*start))
            }
            Shape::AnyPages => place,
            Shape::Bytes(_, end) => {
                if place >= *end {
                    END
                } else {
                    place
                }
            }
            Shape::Slices(_, last) => {
                if place / UNIT > *last {
                    END
                } else {
                    place
                }
            }
        }
    }

    /// The place behind `len` bytes at `place`, which end their unit if `last`.
    pub(crate) fn after(&self, place: u64, len: u64, last: bool) -> u64 {
        if last { self.next((place / UNIT + 1) * UNIT) } else { self.next(place + len) }
    }
}

/// The places of spans, which are in order.
pub(crate) fn places(spans: &[Span]) -> Places {
    let mut places: Vec<(u64, u64)> = Vec::with_capacity(spans.len());
    for s in spans {
        let start = s.page * UNIT + u64::from(s.offset);
        let end = start + u64::from(s.len);
        match places.last_mut() {
            Some((_, before)) if *before >= start => *before = end.max(*before),
            _ => places.push((start, end)),
        }
    }
    Places(places)
}

#[cfg(test)]
mod tests {
    use iceshare::icet::Stripe;

    use super::*;

    const fn at(page: u64, offset: u64) -> u64 {
        page * UNIT + offset
    }

    #[test]
    fn places_of_a_stripe_follow_one_another() {
        let shape = Shape::Pages(PageSet { first: 2, last: Some(9), stripe: Stripe::new(1, 4, 1) });
        assert_eq!(shape.next(0), at(5, 0));
        assert_eq!(shape.after(at(5, 0), 100, false), at(5, 100));
        assert_eq!(shape.after(at(5, 100), 9, true), at(9, 0));
        assert_eq!(shape.after(at(9, 0), 9, true), END);
        assert!(
            shape.covers(at(5, 0), 65_307) && !shape.covers(at(5, 1), 65_307) && !shape.covers(at(6, 0), 1)
        );
    }

    #[test]
    fn spans_cover_what_was_asked_for_and_nothing_else() {
        let shape =
            Shape::Spans(Places(vec![(at(3, 5), at(3, 9)), (at(4, 0), at(4, 20)), (at(8, 1), at(8, 2))]));
        assert_eq!(
            [0, at(3, 7), at(3, 9), at(4, 20), at(8, 2)].map(|p| shape.next(p)),
            [at(3, 5), at(3, 7), at(4, 0), at(8, 1), END]
        );
        assert!(shape.covers(at(3, 5), 4) && !shape.covers(at(3, 5), 5) && !shape.covers(at(3, 4), 1));
        assert_eq!(shape.after(at(4, 0), 20, true), at(8, 1));
        assert_eq!(shape.after(at(4, 0), 10, false), at(4, 10));
    }

    #[test]
    fn spans_become_places() {
        let span = |page, offset, len| Span { page, offset, len };
        let spans = [span(3, 5, 10), span(3, 15, 5), span(3, 30, 65_000), span(9, 0, 1)];
        let want = vec![(at(3, 5), at(3, 20)), (at(3, 30), at(3, 65_030)), (at(9, 0), at(9, 1))];
        assert_eq!(places(&spans), Places(want));
    }

    #[test]
    fn bytes_and_slices_end() {
        let bytes = Shape::Bytes(10, 20);
        assert!(bytes.covers(10, 10) && !bytes.covers(10, 11) && !bytes.covers(9, 1) && !bytes.covers(20, 0));
        assert_eq!((bytes.after(10, 5, false), bytes.after(15, 5, false)), (15, END));
        let slices = Shape::Slices(1, 2);
        assert!(slices.covers(at(2, 0), 0) && !slices.covers(at(3, 0), 1));
        assert_eq!((slices.after(at(1, 0), 9, true), slices.after(at(2, 0), 9, true)), (at(2, 0), END));
    }
}
