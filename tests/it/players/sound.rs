//! What a player plays, through a named pipe, so that a test can wait for sound.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Instant;

use iceshare_tests::PATIENCE;

use super::text;
use crate::tones::{FRAME, RATE, WINDOW, tone};

/// The end of a named pipe that a player writes to.
pub(super) struct Sound {
    chunks: Receiver<Vec<u8>>,
    kept: Vec<u8>,
    deadline: Instant,
}

impl Sound {
    /// Makes a pipe in `folder` that anybody may write to.
    pub(super) fn pipe(folder: &Path) -> (PathBuf, Sound) {
        let path = folder.join("sound");
        let _ = std::fs::remove_file(&path);
        super::output("mkfifo", &["-m", "666", &text(&path)]);
        let (tx, chunks) = channel();
        let pipe = path.clone();
        // Opening waits for the player.
        std::thread::spawn(move || {
            let Ok(mut pipe) = std::fs::File::open(pipe) else { return };
            let mut buffer = vec![0; WINDOW];
            while let Ok(n @ 1..) = pipe.read(&mut buffer) {
                if tx.send(buffer[..n].to_vec()).is_err() {
                    return;
                }
            }
        });
        (path, Sound { chunks, kept: Vec::new(), deadline: Instant::now() + PATIENCE })
    }

    /// The next `n` bytes; fewer where the sound ends.
    pub(super) fn take(&mut self, n: usize) -> Vec<u8> {
        while self.kept.len() < n {
            match self.chunks.recv_timeout(self.deadline.saturating_duration_since(Instant::now())) {
                Ok(chunk) => self.kept.extend(chunk),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("no sound, after {} bytes of it", self.kept.len()),
            }
        }
        let rest = self.kept.split_off(n.min(self.kept.len()));
        std::mem::replace(&mut self.kept, rest)
    }

    /// The next seconds.
    pub(super) fn seconds(&mut self, n: usize) -> Vec<u8> {
        self.take(n * RATE as usize * FRAME)
    }

    /// The next half second.
    pub(super) fn window(&mut self) -> Vec<u8> {
        self.take(WINDOW)
    }

    /// Waits until one of these tones is heard.
    pub(super) fn until(&mut self, tones: &[u32], what: &str) {
        let mut heard = Vec::new();
        loop {
            let window = self.window();
            assert!(window.len() == WINDOW, "the sound ended without {what}; heard were tones {heard:?}");
            let tone = tone(&window);
            if tone.is_some_and(|t| tones.contains(&t)) {
                return;
            }
            heard.extend(tone);
        }
    }
}
