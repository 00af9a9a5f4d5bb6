//! `iceshare verify`: checks Ogg files page by page.

use iceshare::ogg::{Codec, Damage};
use iceshare::verify::{DAMAGES, VerifyReport, verify_file};
use indicatif::DecimalBytes;
use serde::Serialize;

use crate::args;
use crate::escape::printable;
use crate::failure::{FAILED, Failure, Outcome};
use crate::output::{self, note};
use crate::progress::{clock, read_bar};

#[derive(Serialize)]
struct Report {
    file: String,
    /// No damages and no gaps.
    sound: bool,
    pages: u64,
    bytes: u64,
    /// Microseconds; 0 if no logical stream has times.
    duration_us: u64,
    links: u64,
    /// Of the first link, and of later ones that have others than the link before.
    codecs: Vec<String>,
    damaged_bytes: u64,
    damage_count: u64,
    damages: Vec<Bad>,
    gap_count: u64,
    gaps: Vec<Gap>,
    /// It is a recording of a broadcast that was joined in the middle: behind its setup pages a logical stream goes on further ahead.
    begins_in_the_middle: bool,
}

/// Where sound pages of a logical stream do not follow one another.
#[derive(Serialize)]
struct Gap {
    serial: u32,
    offset: u64,
    expected: u32,
    found: u32,
}

#[derive(Serialize)]
struct Bad {
    what: &'static str,
    offset: u64,
    bytes: u64,
}

impl Bad {
    fn of(damage: &Damage) -> Option<Bad> {
        let (what, offset, bytes) = match *damage {
            Damage::Junk { offset, len } => ("junk", offset, len),
            Damage::BadCrc { offset, len } => ("bad-crc", offset, len),
            Damage::Truncated { offset, len, .. } => ("cut-off", offset, len),
            Damage::NotOgg { .. } => return None,
        };
        Some(Bad { what, offset, bytes })
    }
}

/// Blocking.
pub(crate) fn verify(args: &args::Verify) -> Outcome {
    let mut reports = Vec::new();
    let mut failure = None;
    for file in &args.files {
        let bar = read_bar(&file.display().to_string());
        let verified = verify_file(file, &mut |at, of| {
            bar.set_length(of);
            bar.set_position(at);
        });
        bar.finish_and_clear();
        let name = file.display().to_string();
        match verified {
            Ok(report) => {
                if !args.json {
                    show(&name, &report)?;
                }
                if !report.is_sound() {
                    failure = Some(Failure::failed(format!("{name} is damaged")));
                } else if !report.is_gapless() {
                    failure = Some(Failure::failed(format!("{name} lacks pages, or has some twice")));
                }
                reports.push(json(name, &report));
            }
            Err(e) => {
                if args.files.len() > 1 {
                    note(format!("iceshare: {}", Failure::from_error(FAILED, &e).text().unwrap_or_default()));
                }
                failure = Some(Failure::from_error(FAILED, &e));
            }
        }
    }
    if args.json {
        output::json(&reports)?;
    }
    match failure {
        Some(_) if args.files.len() > 1 => Err(Failure::failed("not all files are sound")),
        Some(failure) => Err(failure),
        None => Ok(()),
    }
}

/// The codecs of the first link, and of each that has others than the one before.
fn codecs(report: &VerifyReport) -> Vec<Vec<String>> {
    let names = |all: &mut dyn Iterator<Item = Codec>| all.map(|c| c.name().to_owned()).collect();
    if report.codecs.is_empty() {
        // Setup pages and nothing else.
        return report.first.iter().map(|l| names(&mut l.streams.iter().map(|s| s.format.codec))).collect();
    }
    report.codecs.iter().map(|link| names(&mut link.iter().copied())).collect()
}

/// The same in words.
fn codec_text(report: &VerifyReport) -> String {
    codecs(report).iter().map(|link| link.join(" + ")).collect::<Vec<_>>().join(", then ")
}

fn show(name: &str, report: &VerifyReport) -> Outcome {
    let name = printable(name);
    for damage in &report.damages {
        output::result(format!("{name}: {damage}"))?;
    }
    if report.damage_count > DAMAGES as u64 {
        output::result(format!("{name}: and {} more", report.damage_count - DAMAGES as u64))?;
    }
    for gap in &report.gaps {
        output::result(format!("{name}: {gap}"))?;
    }
    if report.gap_count > report.gaps.len() as u64 {
        output::result(format!("{name}: and {} more", report.gap_count - report.gaps.len() as u64))?;
    }
    let gaps = match report.gap_count {
        1 => "1 gap between pages".to_owned(),
        n => format!("{n} gaps between pages"),
    };
    let state = match (report.is_sound(), report.is_gapless()) {
        (true, true) if !report.joins.is_empty() => {
            "sound, recorded from the middle of a broadcast".to_owned()
        }
        (true, true) => "sound".to_owned(),
        (true, false) => gaps,
        (false, true) => format!("{} bytes are bad", report.damaged_bytes),
        (false, false) => format!("{} bytes are bad, {gaps}", report.damaged_bytes),
    };
    let chain = if report.links > 1 { format!(", {} links", report.links) } else { String::new() };
    output::result(format!(
        "{name}: {state}: {} pages, {}, {}, {}{chain}",
        report.pages,
        DecimalBytes(report.bytes),
        if report.duration > 0 { clock(report.duration) } else { "no times".to_owned() },
        codec_text(report),
    ))?;
    Ok(())
}

fn json(file: String, report: &VerifyReport) -> Report {
    Report {
        file,
        sound: report.is_sound() && report.is_gapless(),
        pages: report.pages,
        bytes: report.bytes,
        duration_us: report.duration,
        links: report.links,
        codecs: codecs(report).concat(),
        damaged_bytes: report.damaged_bytes,
        damage_count: report.damage_count,
        damages: report.damages.iter().filter_map(Bad::of).collect(),
        gap_count: report.gap_count,
        gaps: report
            .gaps
            .iter()
            .map(|g| Gap { serial: g.serial, offset: g.offset, expected: g.expected, found: g.found })
            .collect(),
        begins_in_the_middle: !report.joins.is_empty(),
    }
}
