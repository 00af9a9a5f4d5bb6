//! `iceshare trust`: the keys that were trusted on first use.

use iceshare::keyring::TrustStore;
use serde::Serialize;

use crate::args;
use crate::config::Settings;
use crate::failure::{FAILED, Failure, Outcome};
use crate::output;

#[derive(Serialize)]
struct Entry {
    url: String,
    key: String,
    /// Highest version seen of a media; none for a tracker.
    version: Option<u64>,
}

pub(crate) fn trust(args: &args::Trust, settings: &Settings) -> Outcome {
    let failed = |e: iceshare::keyring::TrustError| Failure::from_error(FAILED, &e);
    let store = TrustStore::open(settings.data.join(iceshare::driver::TRUST_FILE)).map_err(failed)?;
    if let Some(url) = &args.forget {
        return if store.forget(url).map_err(failed)? {
            output::note(format!("{url} is forgotten; its key is trusted anew the next time"));
            Ok(())
        } else {
            Err(Failure::failed(format!(
                "no key of {url} was remembered; `iceshare trust` lists those that are"
            )))
        };
    }
    let entries: Vec<Entry> = store
        .remembered()
        .into_iter()
        .map(|r| Entry { url: r.url, key: r.key.to_string(), version: r.version })
        .collect();
    if args.json {
        output::json(&entries)?;
        return Ok(());
    }
    for e in &entries {
        let version = e.version.map(|v| format!("  version {v}")).unwrap_or_default();
        output::result(format!("{}  {}{version}", e.key, e.url))?;
    }
    if entries.is_empty() {
        output::note("no keys are remembered yet");
    }
    Ok(())
}
