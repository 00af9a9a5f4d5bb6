//! The payload protocols of this binary. A Cargo dependency alone links nothing, silently: each crate is named here
//! once, and nowhere else in the command is a protocol known.

use iceshare_transport_http as _;
