//! Progress bars, on a terminal only, and numbers for people.

use indicatif::{ProgressBar, ProgressStyle};

use crate::escape::printable;
use crate::output::BARS;

fn styled(template: &str, chars: &str) -> ProgressStyle {
    // The templates are ours; a mistake in one costs its looks.
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars(chars)
}

/// While a file is read: name, part, rate.
pub(crate) fn read_bar(name: &str) -> ProgressBar {
    let bar = BARS.add(ProgressBar::no_length());
    bar.set_style(styled(
        "{msg:20!} {wide_bar:.cyan/dim} {decimal_bytes:>9} {decimal_bytes_per_sec:>11}",
        "█▉▊▋▌▍▎▏·",
    ));
    bar.set_message(printable(name));
    bar
}

/// While a media arrives: the caller sets bytes, and a message with rate and hosts.
pub(crate) fn fetch_bar(total: u64) -> ProgressBar {
    let bar = BARS.add(ProgressBar::new(total));
    bar.set_style(styled(
        "{percent:>3} % {wide_bar:.cyan/dim} {decimal_bytes:>9} of {decimal_total_bytes}  {msg}",
        "█▉▊▋▌▍▎▏·",
    ));
    bar
}

/// Microseconds as `m:ss` or `h:mm:ss`.
pub(crate) fn clock(us: u64) -> String {
    let s = us / 1_000_000;
    if s >= 3600 {
        format!("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60)
    } else {
        format!("{}:{:02}", s / 60, s % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks() {
        for (s, text) in [(0, "0:00"), (59, "0:59"), (60, "1:00"), (3599, "59:59"), (3723, "1:02:03")] {
            assert_eq!(clock(s * 1_000_000 + 999_999), text);
        }
    }
}
