//! The log of the swarm's inputs as a file: written beside the tracker's work, read back by `icetracker replay`.
//!
//! The file begins with [`MAGIC`]; each record is its length (four bytes, big endian) and its CBOR
//! ([`Record`]).

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use thiserror::Error;

use crate::swarm::record::{Digest, Input, Record, RecordError, Replay, ReplayError};
use crate::swarm::{Effect, SwarmConfig};

/// How a log begins.
const MAGIC: &[u8] = b"IceShare swarm log\n";
/// Bytes that are handed to the disk at once, and how many such pieces may wait for it.
const PIECE: usize = 64 << 10;
const WAITING: usize = 256;
/// Longest record, in bytes: that of a media with very many slices.
const RECORD: u64 = 64 << 20;
/// How long the disk may take for what is left at the end.
const LAST: Duration = Duration::from_secs(3);

/// How a log is kept.
#[derive(Debug, Clone)]
pub struct RecordOptions {
    /// Its file, which must not be there yet.
    pub file: PathBuf,
    /// Bytes at which it ends.
    pub limit: u64,
}

/// Writes a log. It never makes the swarm wait: if the disk is too slow, the log ends.
#[derive(Debug)]
pub(super) struct Recorder {
    pieces: Option<SyncSender<Vec<u8>>>,
    done: Receiver<()>,
    piece: Vec<u8>,
    written: u64,
    options: RecordOptions,
    digest: Digest,
    /// Whether effects came since the last check.
    effects: bool,
}

impl Recorder {
    /// Makes the file, readable by its owner only, and a thread that writes to it.
    ///
    /// # Errors
    /// If the file is there already or cannot be made.
    pub(super) fn start(options: RecordOptions, config: &SwarmConfig) -> io::Result<Recorder> {
        let mut open = std::fs::OpenOptions::new();
        open.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut open, 0o600);
        let file = open.open(&options.file)?;
        let (pieces, more) = sync_channel(WAITING);
        let (tell, done) = sync_channel(1);
        let name = options.file.clone();
        std::thread::Builder::new().name("record".into()).spawn(move || {
            if let Err(e) = write(file, &more) {
                tracing::error!("the log {} ends here: {e}", name.display());
            }
            let _ = tell.send(());
        })?;
        let mut recorder = Recorder {
            pieces: Some(pieces),
            done,
            piece: MAGIC.to_vec(),
            written: MAGIC.len() as u64,
            options,
            digest: Digest::default(),
            effects: false,
        };
        recorder.put(&Record::Made(config.clone()).to_bytes());
        Ok(recorder)
    }

    /// Before the swarm is given an input.
    pub(super) fn input(&mut self, input: &Input) {
        if self.pieces.is_some() {
            self.put(&input.to_bytes());
        }
    }

    /// What came of it.
    pub(super) fn effect(&mut self, effect: &Effect) {
        if self.pieces.is_some() {
            self.digest.add(effect);
            self.effects = true;
        }
    }

    /// After all effects of an input.
    pub(super) fn check(&mut self) {
        if self.pieces.is_some() && std::mem::take(&mut self.effects) {
            let record = Record::Check(self.digest.check());
            self.put(&record.to_bytes());
        }
    }

    fn put(&mut self, record: &[u8]) {
        let end = Record::End { full: true }.to_bytes();
        let with = self.written + (8 + record.len() + end.len()) as u64;
        if with > self.options.limit {
            let file = self.options.file.display();
            tracing::warn!("the log {file} ends here, at its limit of {} bytes", self.options.limit);
            self.append(&end);
            self.flush();
            self.pieces = None;
            return;
        }
        self.append(record);
        if self.piece.len() >= PIECE {
            self.flush();
        }
    }

    fn append(&mut self, record: &[u8]) {
        let len = u32::try_from(record.len()).unwrap_or(u32::MAX);
        self.piece.extend(len.to_be_bytes());
        self.piece.extend(record);
        self.written += 4 + record.len() as u64;
    }

    /// Hands what there is to the disk.
    pub(super) fn flush(&mut self) {
        let Some(pieces) = self.pieces.as_ref().filter(|_| !self.piece.is_empty()) else { return };
        if pieces.try_send(std::mem::take(&mut self.piece)).is_err() {
            let file = self.options.file.display();
            tracing::error!("the log {file} ends here: the disk does not take it, or not quickly enough");
            self.pieces = None;
        }
    }

    /// The tracker stops.
    pub(super) fn finish(mut self) {
        if self.pieces.is_some() {
            self.append(&Record::End { full: false }.to_bytes());
            self.flush();
        }
        self.pieces = None;
        if let Err(RecvTimeoutError::Timeout) = self.done.recv_timeout(LAST) {
            tracing::error!("the disk did not take the end of the log {}", self.options.file.display());
        }
    }
}

impl Drop for Recorder {
    /// Also where the swarm panicked: what led to it is what a log is for.
    fn drop(&mut self) {
        self.flush();
    }
}

fn write(mut file: File, pieces: &Receiver<Vec<u8>>) -> io::Result<()> {
    while let Ok(piece) = pieces.recv() {
        file.write_all(&piece)?;
    }
    file.sync_all()
}

/// What a replay saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replayed {
    /// Inputs that the swarm was given.
    pub inputs: u64,
    /// Times that the hash of its effects was compared, and was the same.
    pub checks: u64,
    /// How the log ends.
    pub end: LogEnd,
}

/// How a log ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogEnd {
    /// With the tracker.
    Stopped,
    /// At its limit.
    Full,
    /// In the middle: the tracker was killed, or the disk did not take more.
    Cut,
}

/// Why a log is not replayed to its end.
#[derive(Debug, Error)]
pub enum ReplayFailure {
    /// The file cannot be read.
    #[error("cannot read {}: {why}", .file.display())]
    Io {
        /// Which.
        file: PathBuf,
        /// What the system said.
        why: io::Error,
    },
    /// It is something else.
    #[error("{} is no log of a swarm", .0.display())]
    NotALog(PathBuf),
    /// A record is no record.
    #[error("record {number} of the log: {why}")]
    Record {
        /// Its number, from 1.
        number: u64,
        /// What is wrong.
        why: RecordError,
    },
    /// A record makes no sense there, or the swarm did something else than the log says.
    #[error("record {number} of the log: {why}")]
    Replay {
        /// Its number, from 1.
        number: u64,
        /// What is wrong.
        why: ReplayError,
    },
}

/// Gives a fresh swarm what is in a log, and compares what comes out.
///
/// # Errors
/// [`ReplayFailure`]. A log that was cut off is no failure.
pub fn replay(file: &Path) -> Result<Replayed, ReplayFailure> {
    let io = |why| ReplayFailure::Io { file: file.to_owned(), why };
    let mut from = BufReader::new(File::open(file).map_err(io)?);
    let mut magic = Vec::new();
    from.by_ref().take(MAGIC.len() as u64).read_to_end(&mut magic).map_err(io)?;
    if magic != MAGIC {
        return Err(ReplayFailure::NotALog(file.to_owned()));
    }
    let mut replay = Replay::default();
    let mut number = 0;
    let end = loop {
        let mut head = Vec::new();
        from.by_ref().take(4).read_to_end(&mut head).map_err(io)?;
        let Ok(head) = <[u8; 4]>::try_from(head) else { break LogEnd::Cut };
        number += 1;
        let len = u64::from(u32::from_be_bytes(head));
        if len > RECORD {
            let why = RecordError::Malformed(format!("{len} bytes are too many"));
            return Err(ReplayFailure::Record { number, why });
        }
        let mut body = Vec::new();
        from.by_ref().take(len).read_to_end(&mut body).map_err(io)?;
        if (body.len() as u64) < len {
            break LogEnd::Cut;
        }
        let record = Record::from_bytes(&body).map_err(|why| ReplayFailure::Record { number, why })?;
        replay.take(record).map_err(|why| ReplayFailure::Replay { number, why })?;
        match replay.ended() {
            Some(true) => break LogEnd::Full,
            Some(false) => break LogEnd::Stopped,
            None => {}
        }
    };
    let (inputs, checks) = replay.counts();
    Ok(Replayed { inputs, checks, end })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::samples;
    use icet::Now;

    fn recorder(dir: &Path, limit: u64) -> Recorder {
        let key = samples::identity(9).key();
        let config = SwarmConfig::new(key, [0xab; 32], 1, 2);
        Recorder::start(RecordOptions { file: dir.join("log"), limit }, &config).unwrap()
    }

    fn timeout(ms: u64) -> Input {
        Input::Timeout { now: Now(ms * 1000), wall_ms: ms }
    }

    #[test]
    fn a_log_ends_at_its_limit_and_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let mut r = recorder(dir.path(), 2000);
        for i in 0..1000 {
            r.input(&timeout(i));
            r.check();
        }
        r.finish();
        let file = dir.path().join("log");
        let size = std::fs::metadata(&file).unwrap().len();
        assert!((1900..=2000).contains(&size), "{size}");
        let seen = replay(&file).unwrap();
        assert!(seen.inputs > 50 && seen.end == LogEnd::Full, "{seen:?}");
        // Never over something that is there.
        let key = samples::identity(9).key();
        let config = SwarmConfig::new(key, [0; 32], 1, 2);
        let again = Recorder::start(RecordOptions { file: file.clone(), limit: 2000 }, &config);
        assert_eq!(again.unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        let bytes = std::fs::read(&file).unwrap();
        assert!(!bytes.windows(8).any(|w| w == [0xab; 8]), "the secret is in the log");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(&file).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn garbage_is_an_error_and_a_cut_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let mut r = recorder(dir.path(), 1 << 20);
        for i in 0..10 {
            r.input(&timeout(i));
            r.check();
        }
        r.finish();
        let file = dir.path().join("log");
        let whole = std::fs::read(&file).unwrap();
        assert_eq!(replay(&file).unwrap(), Replayed { inputs: 10, checks: 0, end: LogEnd::Stopped });
        for cut in 0..whole.len() {
            std::fs::write(&file, &whole[..cut]).unwrap();
            match replay(&file) {
                Ok(seen) => assert!(seen.end == LogEnd::Cut && cut >= MAGIC.len(), "{cut}: {seen:?}"),
                Err(e) => assert!(matches!(e, ReplayFailure::NotALog(_)) && cut < MAGIC.len(), "{cut}: {e}"),
            }
        }
        for (i, _) in whole.iter().enumerate() {
            let mut changed = whole.clone();
            changed[i] ^= 0x5a;
            std::fs::write(&file, &changed).unwrap();
            let _ = replay(&file);
        }
        assert!(matches!(replay(&dir.path().join("none")), Err(ReplayFailure::Io { .. })));
    }
}
