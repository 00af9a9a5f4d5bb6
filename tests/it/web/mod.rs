//! The tracker's web port with real binaries behind it: what it tells, and what an operator may do there.

mod browser;
mod operator;
mod page;
mod protocols;
mod radio;
mod replay;
mod why;

use serde_json::Value;

use iceshare_tests::Network;

/// The JSON at a path.
fn json(net: &Network, path: &str) -> Value {
    let text = net.tracker.get(path);
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{path}: {e}: {text}"))
}
