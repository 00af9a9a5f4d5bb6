//! The conformance suite for payload protocols: whoever writes a transport runs it from one test.
//!
//! ```ignore
//! // tests/conformance.rs of your crate; `iceshare-testkit` is a dev-dependency.
//! use iceshare_transport_carrier as _; // links it, and so registers it
//! iceshare_testkit::conformance!("carrier");
//! ```
//!
//! Each [case](CASES) is a `#[test]` of its own, so that a failure has a name. [`run`] runs them all and gives a table
//! instead. Settings that the tests need go like this: `conformance!(Subject::linked("carrier").set("dir", "…"))`.
//!
//! *What it is made of.* Nothing is simulated: host and receiver are two [`Net`](iceshare::net::Net)s on loopback with
//! ports of their own, a [`Shelf`](iceshare::shelf::Shelf), a store, and media that core published. The bytes of each
//! fetch are compared with the media, whatever the pieces say ([`receive`]); bytes that the shelf did not permit are an
//! error in every case. Where a receiver dials, hosts that break off, send garbage, too much or too little are made by
//! a relay between the two ([`relay`]), and where it dials UDP, cases run again over a network that loses, reorders,
//! repeats and delays ([`emulator`]), from a seed.
//!
//! *What is asked* follows from [`PayloadProtocol::abilities`](iceshare::protocol::PayloadProtocol::abilities): cases that
//! need more are not applicable and pass; an ability that is declared and that the suite could not make use of fails.
//!
//! Cases that measure the memory and the descriptors of the process run in one of their own ([`isolated`]).

mod cases;
pub mod emulator;
mod failure;
pub mod media;
pub mod observe;
pub mod receive;
mod reference;
pub mod relay;
mod report;
mod run;
mod subject;
pub mod world;

pub use cases::{CASES, Case, Dials};
pub use failure::Failure;
pub use report::{Report, Verdict};
pub use run::{check, isolated, run, verdict};
pub use subject::Subject;
pub use world::{Options, Peer, World, set_patience};

/// Makes a `#[test]` of each case, for the transport that the expression names: a protocol's name, or a [`Subject`].
#[macro_export]
macro_rules! conformance {
    ($subject:expr) => {
        fn subject() -> $crate::Subject {
            $crate::Subject::from($subject)
        }
        $crate::__cases! { [$crate::__as_tests] }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __as_tests {
    ($($module:ident { $($case:ident)* })*) => {
        $(mod $module {
            $(
                #[test]
                fn $case() {
                    $crate::check(&super::subject(), concat!(stringify!($module), "::", stringify!($case)));
                }
            )*
        })*
    };
}
