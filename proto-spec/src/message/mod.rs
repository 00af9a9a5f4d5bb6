//! The messages of IceT. A body is `[number, map]`; numbers below 100 go to the tracker, from 100 on to the peer.

use minicbor::decode::Error;
use minicbor::{Decode, Encode};

use crate::frame::{self, FrameError};

mod client;
mod server;

pub use client::*;
pub use server::*;

/// Where a player is, or what a lookup asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Position {
    /// A page number.
    #[n(0)]
    Page(#[n(0)] u64),
    /// An offset in bytes.
    #[n(1)]
    Byte(#[n(0)] u64),
    /// A media time in microseconds.
    #[n(2)]
    Time(#[n(0)] u64),
}

/// Why pages are wanted; orders deadlines and the choice of protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Need {
    /// The playhead waits for them, or soon will.
    #[n(0)]
    Urgent,
    /// Live: one after the other, in time.
    #[n(1)]
    Steady,
    /// Ahead of the playhead, or a whole file.
    #[n(2)]
    Bulk,
    /// To be shared later; nobody waits.
    #[n(3)]
    Spare,
    /// Held in reserve, for when the tracker is silent (see [`Reserve`]).
    #[n(4)]
    Reserve,
}

/// Defines the message enum of one direction with its encoding; unknown numbers decode to `Unknown`.
macro_rules! messages {
    ($(#[$doc:meta])* $name:ident { $($n:literal => $variant:ident),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq)]
        #[non_exhaustive]
        pub enum $name {
            $(#[doc = concat!("Message ", stringify!($n), ", see [`", stringify!($variant), "`].")] $variant($variant),)+
            /// A message of a later version; the number. To be answered with [`ErrorCode::UNSUPPORTED`] or ignored.
            Unknown(u64),
        }

        impl $name {
            /// The message's number on the wire.
            #[must_use]
            pub fn number(&self) -> u64 {
                match self {
                    $($name::$variant(_) => $n,)+
                    $name::Unknown(n) => *n,
                }
            }

            /// Decodes and checks the body of a frame.
            ///
            /// # Errors
            /// [`FrameError::Malformed`], which names the message if its number could be read.
            pub fn from_body(body: &[u8]) -> Result<$name, FrameError> {
                let mut kind = None;
                Self::read(body, &mut kind).map_err(|e| FrameError::Malformed { kind, why: e.to_string() })
            }

            fn read(body: &[u8], kind: &mut Option<u64>) -> Result<$name, Error> {
                let mut d = minicbor::Decoder::new(body);
                if d.array()? != Some(2) {
                    return Err(crate::refuse("a message is an array of 2"));
                }
                let n = *kind.insert(d.u64()?);
                let message = match n {
                    $($n => {
                        let m: $variant = d.decode()?;
                        m.check().map_err(crate::refuse)?;
                        $name::$variant(m)
                    })+
                    _ => {
                        d.skip()?;
                        $name::Unknown(n)
                    }
                };
                if d.position() != body.len() {
                    return Err(crate::refuse("something follows the message"));
                }
                Ok(message)
            }

            /// Appends the message as a frame.
            pub fn write(&self, out: &mut Vec<u8>) {
                frame::write(self, out);
            }
        }

        impl<C> Encode<C> for $name {
            fn encode<W: minicbor::encode::Write>(
                &self,
                e: &mut minicbor::Encoder<W>,
                ctx: &mut C,
            ) -> Result<(), minicbor::encode::Error<W::Error>> {
                e.array(2)?.u64(self.number())?;
                match self {
                    $($name::$variant(m) => m.encode(e, ctx),)+
                    $name::Unknown(_) => e.map(0)?.ok(),
                }
            }
        }

        $(impl From<$variant> for $name {
            fn from(m: $variant) -> $name {
                $name::$variant(m)
            }
        })+
    };
}

messages! {
    /// What a peer says to a tracker.
    ToTracker {
        0 => Hello,
        1 => Publish,
        2 => Join,
        3 => Focus,
        4 => Have,
        5 => Report,
        6 => Served,
        7 => Leave,
        8 => Slices,
        9 => Locate,
        10 => Withdraw,
        11 => InfoRequest,
        12 => Ping,
        13 => Reach,
        14 => StandingRequest,
        15 => Allow,
        16 => Head,
        17 => Audience,
    }
}

messages! {
    /// What a tracker says to a peer.
    ToPeer {
        100 => Welcome,
        101 => MediaAnswer,
        102 => Assign,
        103 => Cancel,
        104 => Slices,
        105 => InfoAnswer,
        106 => ErrorMessage,
        107 => Withdrawn,
        108 => Pong,
        109 => ReachResult,
        110 => Invite,
        111 => Newer,
        112 => Reserve,
        113 => Standing,
        114 => Knock,
        115 => Head,
        116 => Guidance,
    }
}
