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
//! *What patience costs.* Two cases look whether a host gives up who keeps it waiting: with a part of a request, or with a reader
//! that takes nothing. They take as long as the transport's deadlines, 45 seconds at most; shorter ones for these cases alone go
//! like this: `Subject::linked("carrier").hurried("patience", "3")`.
//!
//! *What it cannot see.* The suite knows no wire format: it flips bits of what passes, puts digits behind digits, and cuts it
//! off. Where a carrier encrypts, that reaches the handshake and the frames around, but no length inside: what is read there
//! wants a fuzz target of its own. Over datagrams there is no connection whose end could be seen: of a host that gets a part of a
//! request only its tasks are looked at, not what a single task keeps for many. A length of less than four bytes that is believed
//! costs too little to be told from buffers.
//!
//! Cases that measure the memory and the descriptors of the process run in one of their own ([`isolated`]). The suite brings
//! the global allocator of such a test, which counts; a test that needs another one cannot link it.

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
