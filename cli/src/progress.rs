//! Progress bars, on a terminal only, and numbers for people.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use iceshare::{Media, Progress};
use indicatif::{DecimalBytes, ProgressBar, ProgressStyle};

use crate::escape::printable;
use crate::output::{BARS, note};
use crate::waiting::{Protocols, reason};

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

const TICK: Duration = Duration::from_millis(200);

/// Hosts that send just now, each once, over however many protocols.
fn hosts(p: &Progress) -> usize {
    let active = p.flows.iter().filter(|(_, f)| f.active > 0);
    active.map(|((host, _), _)| host).collect::<BTreeSet<_>>().len()
}

/// Tells in lines how a media arrives; never ends by itself.
pub(crate) async fn tell(media: &Media) {
    let mut tick = tokio::time::interval(TICK);
    let mut told = None;
    let live = media.is_live();
    loop {
        tick.tick().await;
        let p = media.progress();
        if told.replace((p.held, p.bytes)) != Some((p.held, p.bytes)) {
            let hosts = hosts(&p);
            let mut over: BTreeMap<&str, u64> = BTreeMap::new();
            p.flows.iter().for_each(|((_, by), f)| *over.entry(by.as_str()).or_default() += f.pages);
            let over: Vec<_> = over.iter().map(|(by, pages)| format!("{by}:{pages}")).collect();
            let (held, over) = (p.held, over.join(","));
            // Of live media nobody knows how many pages there will be.
            let pages = if live { String::new() } else { format!(" held={held} pages={}", p.pages) };
            note(format!("progress{pages} bytes={} hosts={hosts} over={over}", p.bytes));
        }
    }
}

/// So long without a page, and people want to know why; and so much later again, if it is something else by then.
const QUIET: Duration = Duration::from_secs(5);
const AGAIN: Duration = Duration::from_secs(15);

/// Says why if nobody sends anything for a while, and when it goes on; never ends by itself. Who fetches along with a player
/// (`all`: false) may have all that is wanted, and is told only what is wrong.
pub(crate) async fn say_when_quiet(media: &Media, protocols: &Protocols, all: bool) {
    let mut tick = tokio::time::interval(TICK);
    let live = media.is_live();
    let came = |p: &Progress| if live { p.bytes } else { p.held };
    let (mut held, mut since) = (came(&media.progress()), Instant::now());
    let mut said: Option<(String, Instant)> = None;
    loop {
        tick.tick().await;
        let p = media.progress();
        if came(&p) != held {
            if said.take().is_some() {
                note("pages come again");
            }
            (held, since) = (came(&p), Instant::now());
            continue;
        }
        let told = said.as_ref().is_some_and(|(_, at)| at.elapsed() < AGAIN);
        let wants = all || media.tracker_is_away() || media.shortage().is_some();
        // All of a broadcast came that will.
        if live && (media.failure().is_some() || media.store().came_to_the_end()) {
            continue;
        }
        if told || since.elapsed() < QUIET || !live && p.held >= p.pages || !wants {
            continue;
        }
        let (why, certain) = reason(media, protocols);
        // That somebody is asked once more is no news.
        if said.as_ref().is_none_or(|(before, _)| certain && *before != why) {
            let count = format!(" ({} of {} pages are here)", p.held, p.pages);
            note(format!("waiting: {why}{}", if live { "" } else { &count }));
            said = Some((why, Instant::now()));
        }
    }
}

/// Moves the bar of a media that arrives; never ends by itself.
pub(crate) async fn watch(media: &Media, bar: &ProgressBar) {
    let total = media.manifest().bytes;
    let mut rate = Rate::default();
    let mut tick = tokio::time::interval(TICK);
    loop {
        tick.tick().await;
        let p = media.progress();
        // Pages are told exactly; bytes that were here before this run are not.
        let share = u128::from(total) * u128::from(p.held) / u128::from(p.pages.max(1));
        bar.set_position(u64::try_from(share).unwrap_or(total));
        let now = rate.update(p.bytes, Instant::now());
        let hosts = hosts(&p);
        let bad = if p.bad > 0 { format!(", {} bad pages refused", p.bad) } else { String::new() };
        let s = if hosts == 1 { "" } else { "s" };
        bar.set_message(format!("{}/s from {hosts} host{s}{bad}", DecimalBytes(now)));
    }
}

/// Bytes a second over the last two seconds or so.
#[derive(Debug, Default)]
pub(crate) struct Rate {
    samples: VecDeque<(Instant, u64)>,
}

impl Rate {
    const WINDOW: Duration = Duration::from_secs(2);

    /// `bytes` is the sum since the start.
    pub(crate) fn update(&mut self, bytes: u64, now: Instant) -> u64 {
        self.samples.push_back((now, bytes));
        while self.samples.len() > 2 && self.samples.get(1).is_some_and(|(t, _)| now - *t >= Rate::WINDOW) {
            self.samples.pop_front();
        }
        let Some((since, before)) = self.samples.front() else { return 0 };
        let ms = u64::try_from((now - *since).as_millis()).unwrap_or(u64::MAX);
        bytes.saturating_sub(*before).saturating_mul(1000).checked_div(ms).unwrap_or(0)
    }
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

    #[test]
    fn rates_look_back_two_seconds() {
        let (mut rate, start) = (Rate::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(rate.update(0, at(0)), 0);
        assert_eq!(rate.update(1000, at(1000)), 1000);
        assert_eq!(rate.update(5000, at(2000)), 2500);
        assert_eq!(rate.update(5000, at(3000)), 2000);
        assert_eq!(rate.update(5000, at(4000)), 0);
        assert_eq!(rate.update(5000, at(9000)), 0);
    }
}
