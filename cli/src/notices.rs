//! What readers of live media could not give, in words.

use std::time::Duration;

use iceshare::{Notice, Notices};
use jiff::{SignedDuration, Zoned};

use crate::output::note;

/// From so long ago on a time alone does not say which day is meant.
const DAY: Duration = Duration::from_secs(20 * 3600);

/// Says what comes; never ends.
pub(crate) async fn tell(mut notices: Notices) {
    while let Some(notice) = notices.next().await {
        note(text(notice, &Zoned::now()));
    }
    std::future::pending().await
}

/// Whole seconds.
fn long(time: Duration) -> String {
    humantime::format_duration(Duration::from_secs(time.as_secs())).to_string()
}

/// What the clock showed so long ago.
fn clock(now: &Zoned, ago: Duration) -> String {
    let then = SignedDuration::try_from(ago).ok().and_then(|ago| now.checked_sub(ago).ok());
    let form = if ago >= DAY { "%F %T" } else { "%T" };
    then.map_or_else(|| "that time".to_owned(), |then| then.strftime(form).to_string())
}

fn text(notice: Notice, now: &Zoned) -> String {
    match notice {
        Notice::BeginsLater { back, later } => {
            let begins = back.saturating_sub(later);
            format!(
                "nobody keeps what was on at {} ({} ago), if anything was; beginning with the oldest there is, of {} ({} ago). How much is kept \
                 is up to the --window of the broadcaster and of those who listen",
                clock(now, back),
                long(back),
                clock(now, begins),
                long(begins)
            )
        }
        Notice::FellBehind { pages, lost } => format!(
            "fell too far behind the broadcast: {} ({pages} pages) are left out; going on with what the others still have. To pause for longer, \
             keep more: --window {}",
            long(lost),
            long((lost * 2).max(Duration::from_secs(3600)))
        ),
        Notice::LeftOut { first, pages: Some(1) } => {
            format!("page {first} of the broadcast did not come in time, and is left out")
        }
        Notice::LeftOut { first, pages: Some(pages) } => {
            format!(
                "{pages} pages of the broadcast, from page {first} on, did not come in time, and are left out"
            )
        }
        Notice::LeftOut { first, .. } => {
            format!(
                "page {first} of the broadcast, and those behind it, did not come in time, and are left out"
            )
        }
        _ => "something of the broadcast is left out".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_are_told_what_the_clock_showed() {
        let now: Zoned = "2026-11-28T20:00:30[UTC]".parse().expect("a time");
        let seconds = Duration::from_secs;
        let said = text(Notice::BeginsLater { back: seconds(3600), later: seconds(3300) }, &now);
        assert!(
            said.starts_with("nobody keeps what was on at 19:00:30 (1h ago), if anything was;"),
            "{said}"
        );
        assert!(said.contains("the oldest there is, of 19:55:30 (5m ago). "), "{said}");
        let said = text(Notice::BeginsLater { back: seconds(90_000), later: seconds(89_000) }, &now);
        assert!(said.contains("at 2026-11-27 19:00:30 (1day 1h ago)"), "{said}");
        let said = text(Notice::FellBehind { pages: 115, lost: Duration::from_millis(23_400) }, &now);
        assert!(said.contains("23s (115 pages) are left out") && said.ends_with("--window 1h"), "{said}");
        let said = text(Notice::LeftOut { first: 7, pages: Some(1) }, &now);
        assert_eq!(said, "page 7 of the broadcast did not come in time, and is left out");
    }
}
