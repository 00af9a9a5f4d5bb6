//! `iceshare protocols`: what is linked in, and what each can do.

use iceshare::protocol::Abilities;
use serde::Serialize;

use crate::args;
use crate::config::Settings;
use crate::failure::Outcome;
use crate::{output, transports};

#[derive(Serialize)]
struct Entry {
    name: &'static str,
    about: &'static str,
    #[serde(rename = "crate")]
    krate: &'static str,
    version: &'static str,
    /// What it can do.
    abilities: Vec<&'static str>,
    /// `udp` or `tcp`, where receivers dial an address.
    dials: Option<String>,
    settings: Vec<Setting>,
}

#[derive(Serialize)]
struct Setting {
    key: &'static str,
    default: &'static str,
    about: &'static str,
}

pub(crate) fn protocols(args: &args::Protocols, settings: &Settings) -> Outcome {
    // Built, and not only listed, so that the settings given are checked too.
    let built = transports::chosen(settings)?;
    let entries: Vec<Entry> = built
        .iter()
        .map(|p| {
            let abilities = p.implementation.abilities();
            let has = |(a, _): &&(Abilities, &str)| abilities.has(*a);
            Entry {
                name: p.registration.name,
                about: p.registration.about,
                krate: p.registration.krate,
                version: p.registration.version,
                abilities: Abilities::NAMES.iter().filter(has).map(|(_, n)| *n).collect(),
                dials: p.implementation.dials().map(|d| d.to_string()),
                settings: p
                    .registration
                    .settings
                    .iter()
                    .map(|s| Setting { key: s.key, default: s.default, about: s.about })
                    .collect(),
            }
        })
        .collect();
    if args.json {
        output::json(&entries)?;
        return Ok(());
    }
    for e in &entries {
        output::result(format!("{:<10} {}", e.name, e.about))?;
        output::result(format!("{:<10} can: {}", "", e.abilities.join(", ")))?;
        let dials = e.dials.as_deref().unwrap_or("no network address");
        output::result(format!("{:<10} dials {dials}; from {} {}", "", e.krate, e.version))?;
        for s in &e.settings {
            let default = if s.default.is_empty() { "none" } else { s.default };
            output::result(format!("{:<10} --set {}.{}={default}: {}", "", e.name, s.key, s.about))?;
        }
    }
    Ok(())
}
