//! Writes an Ogg Opus file of a given size: `make_media FILE BYTES [PAGE_BYTES]`.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize| args.get(i).and_then(|a| a.parse::<u64>().ok());
    let (Some(file), Some(bytes)) = (args.first(), number(1)) else {
        eprintln!("usage: make_media FILE BYTES [PAGE_BYTES]");
        return ExitCode::from(2);
    };
    let page = number(2).and_then(|p| usize::try_from(p).ok()).unwrap_or(4200);
    match iceshare_tests::media::opus_like(Path::new(file), bytes, page, 1) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{file}: {e}");
            ExitCode::FAILURE
        }
    }
}
