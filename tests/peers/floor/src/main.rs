//! The floor under each payload protocol: the bytes of a file over one bare stream of its carrier, and at the other end
//! what nobody can do without: a CRC-32 and a BLAKE3 hash of every page, and the file written.
//!
//!     iceshare-floor serve CARRIER FILE            prints its address, and serves until stopped
//!     iceshare-floor fetch CARRIER ADDRESS OUT
//!
//! Carriers: `tcp`; `quic`, set up as well as we know how; `quic-defaults`, as quinn comes; `libp2p` (TCP, Noise, yamux);
//! `libp2p-quic`.

use std::error::Error;
use std::fs::File;
use std::io::{Read, Write};

use bytes::Bytes;
use tokio::task::JoinHandle;

mod carrier;
mod p2p;
mod quic;

use carrier::{Read as From, Write as To};

/// An average page.
const PAGE: usize = 4200;
/// Read and written at once: whole pages, about 256 KiB.
const CHUNK: usize = 62 * PAGE;

type Failure = Box<dyn Error + Send + Sync>;

/// Sends a file.
async fn send(file: &str, to: &mut impl To) -> Result<(), Failure> {
    let mut file = File::open(file)?;
    loop {
        let mut chunk = vec![0; CHUNK];
        let n = file.read(&mut chunk)?;
        if n == 0 {
            return to.finish().await;
        }
        chunk.truncate(n);
        to.write(Bytes::from(chunk)).await?;
    }
}

/// Takes a file. As a receiver of pages does: what came is checked and written while more comes.
async fn take(from: &mut impl From, out: &str) -> Result<(), Failure> {
    let mut idle = Some(File::create(out)?);
    let mut checked = 0_u64;
    let mut writing: Option<JoinHandle<std::io::Result<(File, u64)>>> = None;
    loop {
        let mut chunk = vec![0; CHUNK];
        let mut filled = 0;
        while filled < CHUNK {
            match from.read(chunk.get_mut(filled..).unwrap_or_default()).await? {
                0 => break,
                n => filled += n,
            }
        }
        if let Some(job) = writing.take() {
            let (back, sum) = job.await??;
            idle = Some(back);
            checked ^= sum;
        }
        if filled == 0 {
            break;
        }
        chunk.truncate(filled);
        let mut file = idle.take().ok_or("the file is in use")?;
        writing = Some(tokio::task::spawn_blocking(move || {
            let mut sum = 0;
            for page in chunk.chunks(PAGE) {
                let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Bzip2, page);
                sum ^= crc ^ u64::from(blake3::hash(page).as_bytes()[0]);
            }
            file.write_all(&chunk)?;
            Ok((file, sum))
        }));
    }
    writeln!(std::io::stdout(), "done {checked:x}")?;
    Ok(())
}

/// Says where it serves.
fn ready(address: impl std::fmt::Display) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{address}")?;
    Ok(out.flush()?)
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match &args[..] {
        ["serve", "tcp", file] => carrier::serve_tcp(file).await,
        ["serve", "quic", file] => quic::serve(file, true).await,
        ["serve", "quic-defaults", file] => quic::serve(file, false).await,
        ["serve", over @ ("libp2p" | "libp2p-quic"), file] => p2p::serve((*file).to_owned(), over).await,
        ["fetch", "tcp", from, out] => carrier::fetch_tcp(from, out).await,
        ["fetch", "quic", from, out] => quic::fetch(from.parse()?, out, true).await,
        ["fetch", "quic-defaults", from, out] => quic::fetch(from.parse()?, out, false).await,
        ["fetch", "libp2p" | "libp2p-quic", from, out] => p2p::fetch(from.parse()?, out).await,
        _ => Err("usage: iceshare-floor serve CARRIER FILE | fetch CARRIER ADDRESS OUT".into()),
    }
}
