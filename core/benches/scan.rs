//! How fast files are scanned, beside the `ogg` crate. `tests/bench/scan/run.sh` runs it, and libogg beside it.
//!
//! Prints a line for each method: name, MB (10^6 bytes) per second of CPU time, the best of three, and pages found; tabs between. CPU time, because
//! other programs on the machine would count otherwise.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::convert::Infallible;
use std::fs::File;
use std::hint::black_box;
use std::io::{Cursor, Error, Read};
use std::ops::ControlFlow;

use iceshare::ogg::{ScanEvent, ScanMode, Scanner, Timeline, scan_reader, scan_slice};
use rustix::time::{ClockId, clock_gettime};

/// CPU time of this process, in seconds.
fn now() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let seconds = time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9;
    seconds
}

fn measure(name: &str, bytes: usize, mut run: impl FnMut() -> Result<u64, Error>) -> Result<(), Error> {
    let mut best = f64::INFINITY;
    let mut pages = 0;
    for _ in 0..3 {
        let start = now();
        pages = run()?;
        best = best.min(now() - start);
    }
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let speed = bytes as f64 / best / 1e6;
    println!("{name}\t{speed:.0}\t{pages}");
    Ok(())
}

fn main() -> Result<(), Error> {
    // cargo adds flags of its own.
    let Some(path) = std::env::args().skip(1).find(|argument| !argument.starts_with('-')) else {
        println!("usage: scan FILE (see tests/bench/scan/run.sh)");
        return Ok(());
    };
    let file = std::fs::read(&path)?;
    let len = file.len();

    measure("iceshare, slice in memory", len, || {
        let mut pages = 0;
        let _ = scan_slice(&file, ScanMode::Strict, |event| {
            black_box(&event);
            pages += 1;
            ControlFlow::<Infallible>::Continue(())
        })
        .map_err(Error::other)?;
        Ok(pages)
    })?;
    measure("iceshare, blocks copied from memory", len, || {
        let (mut scanner, mut rest, mut pages) = (Scanner::default(), &file[..], 0);
        while !rest.is_empty() {
            let copied = rest.read(scanner.space())?;
            scanner.filled(copied);
            while let Some(event) = scanner.next() {
                pages += u64::from(matches!(black_box(event), ScanEvent::Page(_)));
            }
        }
        Ok(pages)
    })?;
    measure("iceshare, file", len, || {
        let mut pages = 0;
        let _ = scan_reader(File::open(&path)?, ScanMode::Strict, |event| {
            black_box(&event);
            pages += 1;
            ControlFlow::<Infallible>::Continue(())
        })
        .map_err(Error::other)?;
        Ok(pages)
    })?;
    measure("iceshare, file, with times", len, || {
        let mut timeline = Timeline::new();
        let _ = scan_reader(File::open(&path)?, ScanMode::Strict, |event| {
            if let ScanEvent::Page(page) = event {
                black_box(timeline.page(&page.header, page.bytes));
            }
            ControlFlow::<Infallible>::Continue(())
        })
        .map_err(Error::other)?;
        Ok(timeline.pages())
    })?;
    measure("ogg crate, PageParser in memory", len, || {
        let (mut at, mut pages) = (0, 0);
        while let Some(header) = file[at..].first_chunk::<27>() {
            let (mut parser, segments) = ogg::reading::PageParser::new(*header).map_err(Error::other)?;
            at += 27;
            let body = parser.parse_segments(file[at..at + segments].to_vec());
            at += segments;
            black_box(parser.parse_packet_data(file[at..at + body].to_vec()).map_err(Error::other)?);
            at += body;
            pages += 1;
        }
        Ok(pages)
    })?;
    measure("ogg crate, PacketReader in memory (packets)", len, || {
        let (mut reader, mut packets) = (ogg::PacketReader::new(Cursor::new(&file)), 0);
        while let Some(packet) = reader.read_packet().map_err(Error::other)? {
            black_box(packet);
            packets += 1;
        }
        Ok(packets)
    })
}
