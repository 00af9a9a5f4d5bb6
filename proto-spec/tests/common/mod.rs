//! Strategies of what most tests need.

use icet::message::Need;
use icet::{MediaId, MediaPath, PageSet, ProtocolName, Stripe, limits};
use proptest::option::of;
use proptest::prelude::*;

pub(crate) fn media() -> impl Strategy<Value = MediaId> {
    any::<[u8; 32]>().prop_map(MediaId)
}

pub(crate) fn need() -> impl Strategy<Value = Need> {
    prop_oneof![Just(Need::Urgent), Just(Need::Steady), Just(Need::Bulk), Just(Need::Spare)]
}

pub(crate) fn path() -> impl Strategy<Value = MediaPath> {
    "[a-zA-Z0-9 é№%?#~-]{1,12}(/[a-z0-9._ ]{1,8}x){0,3}"
        .prop_filter_map("a media path", |s| MediaPath::new(s).ok())
}

pub(crate) fn protocol() -> impl Strategy<Value = ProtocolName> {
    "[a-z][a-z0-9.-]{0,31}".prop_map(|s| s.parse().expect("a protocol name"))
}

pub(crate) fn page_set() -> impl Strategy<Value = PageSet> {
    let stripe = (1u16..=1024, 1u16..).prop_flat_map(|(of, group)| (0..of, Just(of), Just(group)));
    (0..limits::PAGES, of(0..limits::PAGES), of(stripe)).prop_map(|(first, len, stripe)| PageSet {
        first,
        last: len.map(|l| (first + l).min(limits::PAGES - 1)),
        stripe: stripe.and_then(|(i, of, group)| Stripe::new(i, of, group)),
    })
}
