//! Results go to standard output, line by line; everything else to standard error, without spoiling what is drawn
//! there.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{LazyLock, Mutex, PoisonError};

use indicatif::MultiProgress;

/// All progress bars of the process.
pub(crate) static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// While a full-screen view is up, the last lines that would have gone to standard error.
static HELD: Mutex<Option<VecDeque<String>>> = Mutex::new(None);
const HELD_LINES: usize = 200;

/// One line of results, at once.
pub(crate) fn result(line: impl AsRef<str>) -> io::Result<()> {
    BARS.suspend(|| {
        let mut out = io::stdout().lock();
        writeln!(out, "{}", line.as_ref())?;
        out.flush()
    })
}

/// The same as JSON.
pub(crate) fn json(value: &impl serde::Serialize) -> io::Result<()> {
    result(serde_json::to_string_pretty(value)?)
}

/// One line for the user on standard error. The caller has escaped what strangers wrote.
pub(crate) fn note(line: impl AsRef<str>) {
    write_error(format!("{}\n", line.as_ref()).as_bytes());
}

fn write_error(bytes: &[u8]) {
    let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(lines) = held.as_mut() {
        lines.extend(String::from_utf8_lossy(bytes).lines().map(str::to_owned));
        while lines.len() > HELD_LINES {
            lines.pop_front();
        }
    } else {
        drop(held);
        // Nobody is left to be told when standard error is gone.
        BARS.suspend(|| drop(io::stderr().lock().write_all(bytes)));
    }
}

/// Keeps lines back until it is dropped, then writes them.
pub(crate) struct Hold(());

impl Hold {
    pub(crate) fn new() -> Hold {
        *HELD.lock().unwrap_or_else(PoisonError::into_inner) = Some(VecDeque::new());
        Hold(())
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let lines = HELD.lock().unwrap_or_else(PoisonError::into_inner).take();
        for line in lines.into_iter().flatten() {
            note(line);
        }
    }
}

/// Where logs go: as [`note`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct LogWriter;

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        write_error(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
