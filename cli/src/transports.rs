//! The payload protocols of this binary. A Cargo dependency alone links nothing, silently: each crate is named here
//! once, and nowhere else in the command is a protocol known.

use iceshare_transport_http as _;
#[cfg(feature = "libp2p")]
use iceshare_transport_libp2p as _;
use iceshare_transport_quic as _;
use iceshare_transport_udp as _;

use iceshare::protocol::{Protocol, Registry};

use crate::config::Settings;
use crate::failure::{Failure, USAGE};

/// All that are linked.
pub(crate) fn registry() -> Result<Registry, Failure> {
    Registry::linked().map_err(|e| Failure::from_error(USAGE, &e))
}

/// Those that the settings choose, with their settings.
pub(crate) fn chosen(settings: &Settings) -> Result<Vec<Protocol>, Failure> {
    registry()?.build(&settings.transport, &settings.set).map_err(|e| settings.refused(&e))
}

/// Refuses settings by which nothing live could be sent or fetched.
pub(crate) fn for_live(settings: &Settings) -> Result<(), Failure> {
    let carry = |all: &[Protocol]| -> Vec<String> {
        let can = all.iter().filter(|p| p.implementation.abilities().carries_live());
        can.map(|p| p.name.to_string()).collect()
    };
    if !carry(&chosen(settings)?).is_empty() {
        return Ok(());
    }
    let all = registry()?.build(&[], &settings.set).map_err(|e| settings.refused(&e))?;
    let (mine, others) = (settings.transport.join(", "), carry(&all));
    Err(Failure::usage(match others.as_slice() {
        [] => "no payload protocol of this build carries live media".to_owned(),
        others => format!(
            "live media does not go over {mine}: choose {} with --transport, too",
            others.join(" or ")
        ),
    }))
}

/// The crates that bring them, as they stand in logs.
pub(crate) fn crates() -> Vec<String> {
    let registry = Registry::linked();
    let all = registry.as_ref().map(Registry::registrations).unwrap_or_default();
    all.iter().map(|r| r.krate.replace('-', "_")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_these_are_linked() {
        let registry = registry().expect("a sound registry");
        let names: Vec<_> = registry.registrations().iter().map(|r| r.name).collect();
        let all = [("http", true), ("libp2p", cfg!(feature = "libp2p")), ("quic", true), ("udp", true)];
        let wanted: Vec<_> = all.iter().filter(|(_, here)| *here).map(|(name, _)| *name).collect();
        assert_eq!(names, wanted);
    }
}
