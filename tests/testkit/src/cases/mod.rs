//! The cases.

mod arriving;
mod attacks;
mod cancel;
mod declared;
mod ending;
mod leaks;
mod live;
mod lookup;
mod network;
mod pace;
mod ranges;
mod tickets;

use futures_util::future::BoxFuture;
use iceshare::icet::Abilities;

use crate::{Failure, Subject};

/// What a case needs of [`dials`](iceshare::protocol::PayloadProtocol::dials).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dials {
    /// Nothing.
    Any,
    /// That receivers dial an address.
    Some,
    /// That it is a UDP address.
    Udp,
}

/// One thing that a transport must do.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// Its name, as in `cargo test NAME`.
    pub name: &'static str,
    /// What must hold.
    pub about: &'static str,
    /// What a transport must declare for it.
    pub needs: Abilities,
    /// What it must dial.
    pub dials: Dials,
    /// Whether it measures the process, so that no other case may run beside it.
    pub alone: bool,
    pub(crate) run: fn(Subject) -> BoxFuture<'static, Result<(), Failure>>,
}

impl Case {
    const fn new(
        name: &'static str,
        about: &'static str,
        run: fn(Subject) -> BoxFuture<'static, Result<(), Failure>>,
    ) -> Case {
        Case { name, about, needs: Abilities(0), dials: Dials::Any, alone: false, run }
    }

    const fn needs(mut self, abilities: Abilities) -> Case {
        self.needs = Abilities(self.needs.0 | abilities.0);
        self
    }

    const fn dials(mut self, dials: Dials) -> Case {
        self.dials = dials;
        self
    }

    const fn alone(mut self) -> Case {
        self.alone = true;
        self
    }
}

macro_rules! case {
    ($module:ident::$case:ident, $about:literal) => {
        Case::new(concat!(stringify!($module), "::", stringify!($case)), $about, |s| {
            Box::pin(async move { $module::$case(&s).await })
        })
    };
}

/// All cases, in the order in which a transport is best written.
pub static CASES: &[Case] = &[
    case!(declared::registration_is_sound, "name, settings and their defaults are as registered"),
    case!(declared::every_ability_works, "whatever it declares was made use of"),
    case!(declared::what_is_not_declared_is_refused, "a request of another kind ends with an error"),
    case!(lookup::odd_paths, "deep, long and odd paths are found, each its own media"),
    case!(lookup::hostile_paths, "paths that look like escapes, queries or files are plain names"),
    case!(lookup::what_is_not_there, "an unknown path, media or version is NoMedia"),
    case!(lookup::two_publishers_at_one_path, "the media that is asked for comes, not its namesake"),
    case!(ranges::pages, "ranges of pages").needs(Abilities::PAGES),
    case!(ranges::bytes, "ranges of bytes").needs(Abilities::BYTES),
    case!(ranges::time, "ranges of time").needs(Abilities::TIME),
    case!(ranges::without_an_end, "ranges without an end go to the media's end").needs(Abilities::OPEN),
    case!(ranges::stripes, "stripes of pages").needs(Abilities::STRIPES),
    case!(ranges::proofs, "slices with their proofs").needs(Abilities::PROOFS),
    case!(ranges::spans, "spans of pages").needs(Abilities::SPANS),
    case!(ranges::past_the_end, "what lies behind the end is NoRange, what reaches beyond it ends there"),
    case!(ranges::smallest_and_largest_pages, "pages of 27 and of 65,307 bytes"),
    case!(ranges::repeated_pages, "pages that are the same byte for byte"),
    case!(ranges::one_page, "a media of one page"),
    case!(arriving::what_is_missing, "of media that is still arriving, what is not held is NoRange"),
    case!(arriving::open_ends_wait, "an open-ended request waits for pages as they come")
        .needs(Abilities(Abilities::OPEN.0 | Abilities::PAGES.0)),
    case!(arriving::open_stripes_wait, "so does one of a stripe")
        .needs(Abilities(Abilities::OPEN.0 | Abilities::STRIPES.0)),
    case!(cancel::nothing_before_the_first_poll, "a request that is never polled is never sent"),
    case!(cancel::dropping_stops_the_host, "dropping the stream ends the request at the host, soon"),
    case!(cancel::dropping_while_the_host_waits, "also while the host waits for pages")
        .needs(Abilities(Abilities::OPEN.0 | Abilities::PAGES.0)),
    case!(pace::one_limit_over_two_transports, "--up holds over all protocols together"),
    case!(pace::a_slow_host, "a host with a thin uplink sends evenly, and nothing times out"),
    case!(pace::a_slow_reader, "a reader that pauses bounds what the host has sent, and its memory").alone(),
    case!(pace::a_reader_that_never_reads, "a host gives up a reader that takes nothing, in time"),
    case!(tickets::needed, "without a ticket nothing is sent where one is needed"),
    case!(tickets::refused, "forged, expired and foreign tickets are Denied"),
    case!(tickets::used_up, "a ticket buys its bytes once, and one request at a time"),
    case!(tickets::of_another_receiver, "where keys are proved a ticket serves its receiver only")
        .needs(Abilities::PROVES_KEY),
    case!(
        tickets::another_host_answers,
        "where keys are proved another host is WrongKey, and gets no ticket"
    )
    .needs(Abilities::PROVES_KEY),
    case!(attacks::nobody_is_there, "a host that is gone is an error, soon"),
    case!(attacks::host_breaks_off, "a host that vanishes in the middle").dials(Dials::Some),
    case!(attacks::host_sends_garbage, "a host that alters, adds or swallows bytes")
        .dials(Dials::Some)
        .alone(),
    case!(attacks::host_never_stops, "a host that sends more and more").dials(Dials::Some).alone(),
    case!(attacks::requests_are_garbage, "requests that arrive altered do the host no harm")
        .dials(Dials::Some)
        .alone(),
    case!(attacks::half_a_request, "who sends a part of a request and then nothing is not kept for ever")
        .dials(Dials::Some)
        .alone(),
    case!(attacks::strangers_at_the_port, "garbage at the host's ports stops nobody")
        .dials(Dials::Some)
        .alone(),
    case!(attacks::no_amplifier, "who only claims an address draws no more than three times what he sends")
        .dials(Dials::Udp),
    case!(leaks::a_thousand_requests, "1,000 requests in turn leave no memory, task or descriptor behind")
        .alone(),
    case!(leaks::a_hundred_at_once, "100 requests at once").alone(),
    case!(ending::host_shuts_down, "a host's shutdown ends what it serves, soon"),
    case!(ending::receiver_shuts_down, "a receiver's shutdown ends what it fetches, soon"),
    case!(ending::nothing_holds_a_peer_up, "a peer that has nothing to do any more shuts down at once"),
    case!(network::long_way, "a long way: 40 ms of delay").dials(Dials::Udp),
    case!(network::disorder, "datagrams that overtake each other, and come twice").dials(Dials::Udp),
    case!(network::losses, "1, 5 and 20 of 100 datagrams lost").dials(Dials::Udp),
];

#[doc(hidden)]
#[macro_export]
macro_rules! __cases {
    ([$($callback:tt)*]) => {
        $($callback)*! {
            declared { registration_is_sound every_ability_works what_is_not_declared_is_refused }
            lookup { odd_paths hostile_paths what_is_not_there two_publishers_at_one_path }
            ranges {
                pages bytes time without_an_end stripes proofs spans past_the_end smallest_and_largest_pages repeated_pages
                one_page
            }
            arriving { what_is_missing open_ends_wait open_stripes_wait }
            cancel { nothing_before_the_first_poll dropping_stops_the_host dropping_while_the_host_waits }
            pace { one_limit_over_two_transports a_slow_host a_slow_reader a_reader_that_never_reads }
            tickets { needed refused used_up of_another_receiver another_host_answers }
            attacks {
                nobody_is_there host_breaks_off host_sends_garbage host_never_stops requests_are_garbage half_a_request
                strangers_at_the_port no_amplifier
            }
            leaks { a_thousand_requests a_hundred_at_once }
            ending { host_shuts_down receiver_shuts_down nothing_holds_a_peer_up }
            network { long_way disorder losses }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    macro_rules! names {
        ($($module:ident { $($case:ident)* })*) => {
            [$($(concat!(stringify!($module), "::", stringify!($case)),)*)*]
        };
    }

    #[test]
    fn the_macro_makes_a_test_of_each_case() {
        let in_macro = crate::__cases! { [names] };
        let in_table: Vec<_> = CASES.iter().map(|c| c.name).collect();
        assert_eq!(in_macro.to_vec(), in_table);
    }
}
