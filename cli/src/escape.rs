//! Text of strangers (titles, tags, paths, what a tracker says) on its way to a terminal.

/// The text with everything made visible that could steer a terminal or turn the reading direction: control
/// characters, line breaks, bidirectional marks and overrides, invisible characters. One line comes out.
pub(crate) fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() || is_deceptive(c) => out.push_str(&format!("\\u{{{:x}}}", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}

/// The same of its beginning, if it is longer than a line.
pub(crate) fn brief(text: &str) -> String {
    let mut chars = text.chars();
    let mut out: String = chars.by_ref().take(LINE).collect();
    if chars.next().is_some() {
        out.push('…');
    }
    printable(&out)
}

/// Characters of a line.
const LINE: usize = 120;

/// Not a control character by its class, and yet no text. Joiners (U+200C, U+200D) stay: scripts need them.
fn is_deceptive(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_text_is_cut() {
        assert_eq!(brief(&"ü".repeat(120)), "ü".repeat(120));
        assert_eq!(brief(&"ü\n".repeat(70)), "ü\\n".repeat(60) + "…");
    }

    #[test]
    fn what_steers_a_terminal_is_made_visible() {
        let cases = [
            ("Plain – Ünïcödé 日本語 🎵", "Plain – Ünïcödé 日本語 🎵"),
            ("\u{1b}[31mred\u{1b}[0m", "\\u{1b}[31mred\\u{1b}[0m"),
            ("\u{1b}]0;title\u{7}", "\\u{1b}]0;title\\u{7}"),
            ("\u{9b}2J", "\\u{9b}2J"),
            ("two\nlines\r\n\tand a tab", "two\\nlines\\r\\n\\tand a tab"),
            ("gpj.\u{202e}ogg", "gpj.\\u{202e}ogg"),
            ("\u{2066}x\u{2069}\u{200f}\u{61c}", "\\u{2066}x\\u{2069}\\u{200f}\\u{61c}"),
            ("a\u{200b}b\u{feff}c\u{2028}d\u{7f}", "a\\u{200b}b\\u{feff}c\\u{2028}d\\u{7f}"),
            ("क्\u{200d}ष", "क्\u{200d}ष"),
        ];
        for (text, expected) in cases {
            assert_eq!(printable(text), expected);
        }
    }
}
