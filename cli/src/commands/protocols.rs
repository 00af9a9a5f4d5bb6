//! `iceshare protocols`: what is linked in, and what each can do.

use iceshare::protocol::Abilities;
use serde::Serialize;

use crate::args;
use crate::config::Settings;
use crate::escape::printable;
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
    /// `udp` or `tcp`: the kind of a host's proved addresses that receivers begin with.
    dials: Option<String>,
    settings: Vec<Setting>,
}

#[derive(Serialize)]
struct Setting {
    key: &'static str,
    /// What holds in this run.
    value: String,
    default: &'static str,
    about: &'static str,
    /// What it takes, in words, if that is not any text.
    takes: Option<String>,
}

pub(crate) fn protocols(args: &args::Protocols, settings: &Settings) -> Outcome {
    // Built, and not only listed, so that the settings given are checked too.
    let built = transports::chosen(settings)?;
    settings.in_vain().iter().for_each(output::note);
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
                    .map(|s| {
                        let mine =
                            |(n, k, _): &&(String, String, String)| n == p.registration.name && k == s.key;
                        let given = settings.set.iter().rfind(mine);
                        Setting {
                            key: s.key,
                            value: given.map_or(s.default, |(_, _, v)| v).to_owned(),
                            default: s.default,
                            about: s.about,
                            takes: p.registration.takes(s.key),
                        }
                    })
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
        let found = e
            .dials
            .as_ref()
            .map(|kind| format!("finds hosts by their {kind} addresses; "))
            .unwrap_or_default();
        output::result(format!("{:<10} {found}from {} {}", "", e.krate, e.version))?;
        for s in &e.settings {
            let shown = |text: &str| if text.is_empty() { "none".to_owned() } else { printable(text) };
            let changed = shown(&s.value) != shown(s.default);
            let default = if changed { format!(" [default: {}]", shown(s.default)) } else { String::new() };
            let takes = s.takes.as_ref().map(|t| format!(" ({t})")).unwrap_or_default();
            let value = shown(&s.value);
            output::result(format!(
                "{:<10} --set {}.{}={value}{default}: {}{takes}",
                "", e.name, s.key, s.about
            ))?;
        }
    }
    Ok(())
}
