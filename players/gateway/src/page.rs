//! The page with a player and the page table as a seek bar: one file, nothing from elsewhere.

use iceshare::html::escaped;
use percent_encoding::utf8_percent_encode;

use crate::SEGMENT;
use crate::playable::Playable;

const TEMPLATE: &str = include_str!("page.html");

pub(crate) struct Page {
    pub(crate) html: String,
    /// Its content security policy: nothing but its own script and style, and this gateway's media and table.
    pub(crate) policy: String,
}

/// `file` is the last segment of the media's URL, decoded.
pub(crate) fn render(media: &dyn Playable, file: &str) -> Page {
    // Of no use to a stranger who cannot read the page: the title, the one foreign text in it, is escaped.
    let mut random = [0u8; 16];
    let nonce = match getrandom::fill(&mut random) {
        Ok(()) => random.iter().fold(String::new(), |t, b| t + &format!("{b:02x}")),
        Err(_) => String::new(), // then the script does not run, and the player still does
    };
    let title = media.title();
    let title = if title.is_empty() { file } else { &title };
    let element = if media.mime().starts_with("video/") { "video" } else { "audio" };
    // One pass over the template, so that no value is taken for a placeholder.
    let mut html = String::with_capacity(TEMPLATE.len() + 256);
    let mut rest = TEMPLATE;
    while let Some((before, (name, after))) =
        rest.split_once("{{").and_then(|(before, tail)| Some((before, tail.split_once("}}")?)))
    {
        html.push_str(before);
        match name {
            "title" => html.push_str(&escaped(title)),
            "element" => html.push_str(element),
            "source" => {
                html.push_str(&utf8_percent_encode(file, SEGMENT).to_string());
                // A browser stops where a link of a chain ends.
                html.push_str(if media.is_live() { "?chain=flat" } else { "" });
            }
            "nonce" => html.push_str(&nonce),
            _ => {}
        }
        rest = after;
    }
    html.push_str(rest);
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; media-src 'self'; \
         connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    Page { html, policy }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_uses_known_placeholders_only() {
        let names: Vec<_> =
            TEMPLATE.split("{{").skip(1).filter_map(|t| t.split_once("}}")).map(|(n, _)| n).collect();
        assert!(names.iter().all(|n| ["title", "element", "source", "nonce"].contains(n)), "{names:?}");
        assert!(!TEMPLATE.contains("http://") && !TEMPLATE.contains("https://"), "nothing from elsewhere");
    }
}
