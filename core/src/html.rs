//! Strangers' text in HTML, for the pages that programs built on this crate show.

pub use icet::path::is_bidi_control;

/// Text for an element or a quoted attribute. Control characters and those that turn the reading direction are left out.
#[must_use]
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c.is_control() || is_bidi_control(c) => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_stays_text() {
        let title = "</title><script>alert('x')</script>&\u{1b}[31m\u{202e}{{nonce}}\u{61c}\u{2069}";
        assert_eq!(
            escaped(title),
            "&lt;/title&gt;&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&amp;[31m{{nonce}}"
        );
    }
}
