//! How much of their upload users give: when, to whom, of what, and up to what ceiling.

use std::fmt;
use std::str::FromStr;

use clap::{Args, ValueEnum};
use iceshare::icet::MediaPath;
use iceshare::shelf::{Giving, Share};
use indicatif::DecimalBytes;
use jiff::Zoned;
use jiff::tz::TimeZone;
use serde::Serialize;

use crate::failure::Failure;
use crate::rate::Rate;

mod keeper;
mod ledger;

pub(crate) use keeper::Keeper;
use ledger::Used;

/// Flags, and what stands in the configuration under the same names.
#[derive(Debug, Clone, Default, PartialEq, Args)]
#[command(next_help_heading = "What you give to others")]
pub(crate) struct Flags {
    /// Give only at these hours, local time; the others get nothing
    #[arg(long, global = true, value_name = "HH:MM-HH:MM[,…]")]
    pub(crate) give_hours: Option<Hours>,
    /// Give only to receivers in your own network
    #[arg(long, global = true)]
    pub(crate) give_lan: bool,
    /// Give of what you publish only what nobody else can: about one copy, however many fetch it, and who fetches may take a little longer
    #[arg(long, global = true)]
    pub(crate) give_once: bool,
    /// Whether to give on a metered link [default: yes]
    #[arg(long, global = true, value_name = "yes|no", value_enum)]
    pub(crate) give_metered: Option<YesNo>,
    /// Whether this link is metered [default: what NetworkManager says]
    #[arg(long, global = true, value_name = "yes|no|auto", value_enum)]
    pub(crate) metered: Option<Metered>,
    /// Give at most so much a day, all commands by one data folder together, as in 5GB
    #[arg(long, global = true, value_name = "SIZE")]
    pub(crate) give_day: Option<Size>,
    /// Give at most so much a month
    #[arg(long, global = true, value_name = "SIZE")]
    pub(crate) give_month: Option<Size>,
    /// Give nothing, or at most so much a second, of a media or a folder of media paths
    #[arg(long, global = true, value_name = "PATH=none|RATE")]
    pub(crate) give_media: Vec<OfMedia>,
}

/// A question that a user answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum YesNo {
    Yes,
    No,
}

/// Whether a link is metered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Metered {
    Yes,
    No,
    /// As NetworkManager says
    #[default]
    Auto,
}

/// Spans of a day, each from a minute (inclusive) to another (exclusive), perhaps over midnight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hours(Vec<(u16, u16)>);

fn minute(s: &str) -> Option<u16> {
    let (h, m) = s.trim().split_once(':')?;
    let two =
        |s: &str| (s.len() <= 2 && s.bytes().all(|b| b.is_ascii_digit())).then(|| s.parse::<u16>().ok())?;
    let (h, m) = (two(h)?, two(m).filter(|_| m.len() == 2)?);
    // 24:00 is the end of a day.
    (m < 60 && h * 60 + m <= 24 * 60).then_some(h * 60 + m)
}

fn written(minute: u16) -> String {
    format!("{:02}:{:02}", minute / 60, minute % 60)
}

impl FromStr for Hours {
    type Err = String;

    fn from_str(s: &str) -> Result<Hours, String> {
        let mut spans = Vec::new();
        for span in s.split(',') {
            let ends = span.split_once('-').and_then(|(a, b)| Some((minute(a)?, minute(b)?)));
            let Some((from, to)) = ends else {
                return Err(format!(
                    "{:?} is no span of a day: HH:MM-HH:MM, as in 22:00-07:00; several have commas between them",
                    span.trim()
                ));
            };
            if from % (24 * 60) == to % (24 * 60) && from != 0 || from == to {
                return Err(format!(
                    "{:?} begins where it ends: to give always, leave it out; to give nothing, share nothing",
                    span.trim()
                ));
            }
            spans.push((from, to));
        }
        Ok(Hours(spans))
    }
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let spans: Vec<_> = self.0.iter().map(|(a, b)| format!("{}-{}", written(*a), written(*b))).collect();
        f.write_str(&spans.join(","))
    }
}

impl Hours {
    fn has(&self, minute: u16) -> bool {
        self.0
            .iter()
            .any(|(a, b)| if a < b { (*a..*b).contains(&minute) } else { minute >= *a || minute < *b })
    }

    /// The next beginning of a span after `minute`.
    fn next(&self, minute: u16) -> u16 {
        let after = |from: u16| (from + 24 * 60 - minute) % (24 * 60);
        self.0.iter().map(|(from, _)| *from).min_by_key(|from| after(*from)).unwrap_or(0)
    }
}

/// Bytes, never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Size(pub(crate) u64);

impl FromStr for Size {
    type Err = String;

    fn from_str(s: &str) -> Result<Size, String> {
        let bits = s.to_ascii_lowercase().contains("bit") || s.contains('/');
        match s.parse::<Rate>() {
            Ok(Rate(bytes)) if !bits => Ok(Size(bytes)),
            _ => Err("a size is a number of bytes above 0 and a unit, as in 500MB, 5GB or 1TB (B, kB, MB, GB, TB, KiB, MiB, GiB, TiB)".to_owned()),
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", DecimalBytes(self.0))
    }
}

/// What is given of a media, or of a folder of media paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OfMedia {
    pub(crate) path: MediaPath,
    pub(crate) share: Share,
}

impl OfMedia {
    pub(crate) fn new(path: &str, share: &str) -> Result<OfMedia, String> {
        let path = MediaPath::new(path.strip_suffix('/').unwrap_or(path)).map_err(|e| e.to_string())?;
        let share = match share.trim() {
            "none" => Share::Nothing,
            rate => Share::Rate(rate.parse::<Rate>().map_err(|e| format!("it is none or a rate; {e}"))?.0),
        };
        Ok(OfMedia { path, share })
    }
}

impl FromStr for OfMedia {
    type Err = String;

    fn from_str(s: &str) -> Result<OfMedia, String> {
        match s.rsplit_once('=') {
            Some((path, share)) => OfMedia::new(path, share),
            None => Err("it is PATH=none or PATH=RATE: talks=none, music/live.ogg=500kB".to_owned()),
        }
    }
}

/// What a user wants to give.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Rules {
    hours: Option<Hours>,
    lan: bool,
    once: bool,
    /// Whether nothing is given on metered links.
    spares_metered: bool,
    metered: Metered,
    day: Option<Size>,
    month: Option<Size>,
    media: Vec<OfMedia>,
}

/// Why nothing is given just now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Why {
    Hours { until: u16 },
    Metered,
    Day(Size),
    Month(Size),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Hours { until } => write!(f, "until {}, as --give-hours says", written(*until)),
            Why::Metered => f.write_str("as long as this link is metered (--give-metered no)"),
            Why::Day(most) => write!(f, "until tomorrow: {most} were given today, which is all (--give-day)"),
            Why::Month(most) => {
                write!(f, "until next month: {most} were given in this one, which is all (--give-month)")
            }
        }
    }
}

impl Rules {
    /// Flags over the configuration.
    pub(crate) fn new(flags: &Flags, file: Flags) -> Result<Rules, Failure> {
        let said = &flags.give_media;
        for rules in [said, &file.give_media] {
            for (i, rule) in rules.iter().enumerate() {
                if rules.iter().take(i).any(|other| other.path == rule.path) {
                    let path = crate::escape::printable(rule.path.as_str());
                    return Err(Failure::usage(format!("--give-media {path} is given twice: say it once")));
                }
            }
        }
        // Of what it says nothing, the configuration holds: to withhold something is not lost by saying something else.
        let other = |rule: &OfMedia| said.iter().all(|s| s.path != rule.path);
        let media = said.iter().cloned().chain(file.give_media.into_iter().filter(other)).collect();
        let (day, month) = (flags.give_day.or(file.give_day), flags.give_month.or(file.give_month));
        if let (Some(day), Some(month)) = (day, month)
            && day > month
        {
            return Err(Failure::usage(format!(
                "--give-day {day} is more than --give-month {month}: a day would never be used up"
            )));
        }
        Ok(Rules {
            hours: flags.give_hours.clone().or(file.give_hours),
            lan: flags.give_lan || file.give_lan,
            once: flags.give_once || file.give_once,
            spares_metered: flags.give_metered.or(file.give_metered) == Some(YesNo::No),
            metered: flags.metered.or(file.metered).unwrap_or_default(),
            day,
            month,
            media,
        })
    }

    /// Looks whether there is a clock for them to go by.
    ///
    /// # Errors
    /// A time zone that is not known: hours and days would be those of another place.
    pub(crate) fn check_clock(self) -> Result<Rules, Failure> {
        let named = std::env::var_os("TZ").filter(|tz| !tz.is_empty());
        match named {
            Some(tz) if (self.hours.is_some() || self.counts()) && TimeZone::try_system().is_err() => {
                let tz = crate::escape::printable(&tz.to_string_lossy());
                Err(Failure::usage(format!(
                    "TZ={tz} in the environment is no time zone that this system knows, and what is given by hours, days \
                     and months goes by local time: set TZ to one as Europe/Berlin or UTC, or unset it"
                )))
            }
            _ => Ok(self),
        }
    }

    /// Whether they may change their mind as time goes by.
    fn change(&self) -> bool {
        self.hours.is_some() || self.spares_metered || self.counts()
    }

    /// Whether it is to be counted what is given.
    fn counts(&self) -> bool {
        self.day.is_some() || self.month.is_some()
    }

    /// Why nothing is given at this moment; none: something is.
    fn rest(&self, now: &Zoned, metered: bool, used: Used) -> Option<Why> {
        let time = now.time();
        // In range: a day has 1440 minutes.
        let minute = u16::try_from(i32::from(time.hour()) * 60 + i32::from(time.minute())).unwrap_or(0);
        if let Some(hours) = self.hours.as_ref().filter(|h| !h.has(minute)) {
            return Some(Why::Hours { until: hours.next(minute) });
        }
        if self.spares_metered && metered {
            return Some(Why::Metered);
        }
        let month = self.month.filter(|m| used.month >= m.0).map(Why::Month);
        month.or(self.day.filter(|d| used.day >= d.0).map(Why::Day))
    }

    /// Bytes up to the nearest ceiling.
    fn left(&self, used: Used) -> Option<u64> {
        let day = self.day.map(|d| d.0.saturating_sub(used.day));
        let month = self.month.map(|m| m.0.saturating_sub(used.month));
        day.into_iter().chain(month).min()
    }

    fn giving(&self, rests: bool) -> Giving {
        let media = self.media.iter().map(|m| (m.path.clone(), m.share)).collect();
        Giving { rests, near: self.lan, once: self.once, media }
    }
}

/// What is given, for people and programs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Told {
    /// Whether anything is given now.
    pub(crate) now: bool,
    /// Why not.
    pub(crate) why: Option<String>,
    /// Bytes a second over all protocols together; null: unlimited.
    up: Option<u64>,
    hours: Option<String>,
    lan_only: bool,
    once: bool,
    on_metered: bool,
    /// Ceilings, and bytes given of them.
    day: Option<(u64, u64)>,
    month: Option<(u64, u64)>,
    /// Bytes a second of media that have rules of their own.
    media: Vec<(String, u64)>,
}

impl Told {
    fn new(rules: &Rules, up: Option<Rate>, why: Option<&Why>, used: Used) -> Told {
        let rate = |share| if let Share::Rate(rate) = share { rate } else { 0 };
        Told {
            now: why.is_none(),
            why: why.map(Why::to_string),
            up: up.map(|r| r.0),
            hours: rules.hours.as_ref().map(Hours::to_string),
            lan_only: rules.lan,
            once: rules.once,
            on_metered: !rules.spares_metered,
            day: rules.day.map(|most| (most.0, used.day)),
            month: rules.month.map(|most| (most.0, used.month)),
            media: rules.media.iter().map(|m| (m.path.to_string(), rate(m.share))).collect(),
        }
    }

    /// One line for people.
    pub(crate) fn line(&self) -> String {
        let rate = |n: u64| format!("{}/s", DecimalBytes(n));
        let mut parts = vec![match (&self.why, self.up) {
            (Some(why), _) => format!("nothing {why}"),
            (None, Some(up)) => format!("at most {}", rate(up)),
            (None, None) => "as fast as it goes".to_owned(),
        }];
        parts.extend(self.hours.as_ref().map(|h| format!("at {h}")));
        if self.lan_only {
            parts.push("only in our own network".to_owned());
        }
        if self.once {
            parts.push("what we publish about once".to_owned());
        }
        if !self.on_metered {
            parts.push("not on metered links".to_owned());
        }
        let ceiling = |(most, used), span| format!("{} of {} {span}", DecimalBytes(used), DecimalBytes(most));
        parts.extend(self.day.map(|d| ceiling(d, "given today")));
        parts.extend(self.month.map(|m| ceiling(m, "given this month")));
        parts.extend(self.media.iter().map(|(path, most)| {
            let path = crate::escape::printable(path);
            if *most == 0 {
                format!("nothing of {path}")
            } else {
                format!("of {path} at most {}", rate(*most))
            }
        }));
        parts.join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(time: &str) -> Zoned {
        format!("2026-11-27T{time}:00[UTC]").parse().expect("a moment")
    }

    fn rules(flags: Flags) -> Rules {
        Rules::new(&flags, Flags::default()).expect("good rules")
    }

    #[test]
    fn hours_may_go_over_midnight_and_say_when_they_begin() {
        let r = rules(Flags {
            give_hours: Some("22:00-07:00, 12:30-13:00".parse().unwrap()),
            ..Flags::default()
        });
        let rest = |time| r.rest(&at(time), false, Used::default());
        for gives in ["22:00", "23:59", "00:00", "06:59", "12:30", "12:59"] {
            assert_eq!(rest(gives), None, "{gives}");
        }
        assert_eq!(rest("07:00"), Some(Why::Hours { until: 12 * 60 + 30 }));
        assert_eq!(rest("13:00"), Some(Why::Hours { until: 22 * 60 }));
        assert_eq!(rest("21:59").map(|w| w.to_string()), Some("until 22:00, as --give-hours says".into()));
        let all: Hours = "0:00-24:00".parse().unwrap();
        assert!((0..1440).all(|m| all.has(m)));
        assert_eq!(
            "22:00-07:00,12:30-13:00".parse::<Hours>().unwrap().to_string(),
            "22:00-07:00,12:30-13:00"
        );
    }

    #[test]
    fn nonsense_is_refused_with_a_word() {
        for bad in [
            "",
            "22-7",
            "22:00",
            "25:00-07:00",
            "22:00-07:60",
            "7:00-7:00",
            "22:0-23:00",
            "a:b-c:d",
            "0:01-24:30",
        ] {
            assert!(bad.parse::<Hours>().is_err(), "{bad}");
        }
        for bad in ["", "0", "5", "5Gbit", "5GB/s", "-1GB", "lots"] {
            let size = bad.parse::<Size>();
            assert!(size.is_err() || bad == "5", "{bad}: {size:?}");
        }
        assert_eq!("1.5GB".parse::<Size>(), Ok(Size(1_500_000_000)));
        for bad in ["talks", "=none", "talks=", "talks=all", "../x=none", "talks=1mb"] {
            assert!(bad.parse::<OfMedia>().is_err(), "{bad}");
        }
        let twice = vec!["a=none".parse().unwrap(), "a/=1MB".parse().unwrap()];
        let twice = Rules::new(&Flags { give_media: twice, ..Flags::default() }, Flags::default());
        assert!(twice.is_err_and(|e| e.text().is_some_and(|t| t.contains("twice"))));
        let flags = Flags { give_day: Some(Size(2)), give_month: Some(Size(1)), ..Flags::default() };
        assert!(
            Rules::new(&flags, Flags::default())
                .is_err_and(|e| e.text().is_some_and(|t| t.contains("never")))
        );
    }

    #[test]
    fn ceilings_and_metered_links_stop_it() {
        let used = |day, month| Used { day, month };
        let r = rules(Flags { give_day: Some(Size(100)), give_month: Some(Size(1000)), ..Flags::default() });
        assert_eq!(
            r.rest(&at("12:00"), true, used(99, 999)),
            None,
            "who did not say so gives on metered links"
        );
        assert_eq!(r.rest(&at("12:00"), false, used(100, 999)), Some(Why::Day(Size(100))));
        assert_eq!(r.rest(&at("12:00"), false, used(100, 1000)), Some(Why::Month(Size(1000))));
        let r = rules(Flags { give_metered: Some(YesNo::No), ..Flags::default() });
        assert_eq!(r.rest(&at("12:00"), true, Used::default()), Some(Why::Metered));
        assert_eq!(r.rest(&at("12:00"), false, Used::default()), None);
    }

    #[test]
    fn flags_go_over_the_configuration() {
        let file = Flags { give_day: Some(Size(7)), give_lan: true, ..Flags::default() };
        let both = Rules::new(&Flags { give_day: Some(Size(9)), ..Flags::default() }, file).unwrap();
        assert_eq!((both.day, both.lan), (Some(Size(9)), true));
    }

    #[test]
    fn it_is_told_in_one_line() {
        let r = rules(Flags {
            give_hours: Some("22:00-07:00".parse().unwrap()),
            give_lan: true,
            give_once: true,
            give_metered: Some(YesNo::No),
            give_day: Some(Size(5_000_000_000)),
            give_media: vec!["talks=none".parse().unwrap(), "a.ogg=500kB".parse().unwrap()],
            ..Flags::default()
        });
        let used = Used { day: 1_200_000_000, month: 0 };
        let told = Told::new(&r, Some(Rate(1_000_000)), None, used).line();
        assert_eq!(
            told,
            "at most 1.00 MB/s; at 22:00-07:00; only in our own network; what we publish about once; not on metered links; 1.20 GB of 5.00 GB given \
             today; nothing of talks; of a.ogg at most 500.00 kB/s"
        );
        let why = Why::Hours { until: 22 * 60 };
        assert!(
            Told::new(&r, None, Some(&why), used).line().starts_with("nothing until 22:00, as --give-hours")
        );
        assert_eq!(Told::new(&Rules::default(), None, None, used).line(), "as fast as it goes");
    }

    #[test]
    fn what_is_said_of_one_media_leaves_the_others_as_configured() {
        let of = |rules: &[&str]| Flags {
            give_media: rules.iter().map(|r| r.parse().expect("a good rule")).collect(),
            ..Flags::default()
        };
        let rules = Rules::new(&of(&["talks=500kB", "new=none"]), of(&["talks=none", "private=none"]));
        let media = rules.expect("good rules").media;
        assert_eq!(media, of(&["talks=500kB", "new=none", "private=none"]).give_media);
    }
}
