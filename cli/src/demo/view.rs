//! Where the demo is seen: the whole terminal, or lines where there is none.

use std::io::{self, IsTerminal, Stderr, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::crossterm::{cursor, execute};
use tokio::sync::mpsc;

use super::draw::draw;
use super::snapshot::{Snapshot, ratio};
use crate::output::{Hold, note};

/// Between two looks for keys.
const KEYS: Duration = Duration::from_millis(100);
/// Between two lines.
const LINE: Duration = Duration::from_secs(1);

pub(crate) enum View {
    Full(Full),
    Lines(Duration),
}

impl View {
    /// The whole terminal if there is one to see and to type in, else lines.
    pub(crate) fn open() -> View {
        if io::stderr().is_terminal() && io::stdin().is_terminal() {
            match Full::open() {
                Ok(full) => return View::Full(full),
                Err(error) => tracing::info!(%error, "the terminal cannot be drawn on"),
            }
        }
        View::Lines(Duration::ZERO)
    }

    pub(crate) fn show(&mut self, snapshot: &Snapshot) {
        match self {
            View::Full(full) => {
                if let Err(error) = full.terminal.draw(|frame| draw(frame, snapshot)) {
                    tracing::info!(%error, "the terminal cannot be drawn on");
                }
            }
            View::Lines(next) => {
                if snapshot.elapsed >= *next {
                    *next = snapshot.elapsed + LINE;
                    note(line(snapshot));
                }
            }
        }
    }

    /// Resolves when the user wants to leave, and says whether that was Ctrl-C.
    pub(crate) async fn quit(&mut self) -> bool {
        match self {
            View::Full(full) => match full.quit.recv().await {
                Some(control_c) => control_c,
                None => std::future::pending().await,
            },
            View::Lines(_) => std::future::pending().await,
        }
    }
}

fn line(s: &Snapshot) -> String {
    let held: Vec<_> =
        s.peers().iter().map(|p| format!("{:.0}", 100.0 * ratio(p.map.held(), p.map.pages()))).collect();
    let (origin, peers) = s.sources();
    format!(
        "{:5.1} s: the peers hold {} %; {:.2} copies left the origin; {:.0} % of the bytes came from peers",
        s.elapsed.as_secs_f64(),
        held.join(" "),
        s.copies(),
        100.0 * ratio(peers, origin + peers),
    )
}

/// The terminal in raw mode, on its other screen. Dropping it puts everything back.
pub(crate) struct Full {
    terminal: Terminal<CrosstermBackend<Stderr>>,
    quit: mpsc::Receiver<bool>,
    closed: Arc<AtomicBool>,
    _hold: Hold,
}

impl Full {
    fn open() -> io::Result<Full> {
        enable_raw_mode()?;
        let hold = Hold::new();
        let closed = Arc::new(AtomicBool::new(false));
        let (wants, quit) = mpsc::channel(1);
        let full = || {
            execute!(io::stderr(), EnterAlternateScreen, cursor::Hide)?;
            Terminal::new(CrosstermBackend::new(io::stderr()))
        };
        match full() {
            Ok(terminal) => {
                let stop = closed.clone();
                std::thread::spawn(move || keys(&wants, &stop));
                Ok(Full { terminal, quit, closed, _hold: hold })
            }
            Err(e) => {
                restore();
                Err(e)
            }
        }
    }
}

impl Drop for Full {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::Relaxed);
        restore();
    }
}

fn restore() {
    // The terminal may be gone; then there is nothing to put back.
    let _ = disable_raw_mode();
    let _ = execute!(io::stderr(), LeaveAlternateScreen, cursor::Show);
    let _ = io::stderr().flush();
}

/// In raw mode Ctrl-C is a key like others.
fn keys(wants: &mpsc::Sender<bool>, closed: &AtomicBool) {
    while !closed.load(Ordering::Relaxed) {
        match event::poll(KEYS) {
            Ok(false) => continue,
            Ok(true) => {}
            Err(_) => return,
        }
        let Ok(Event::Key(key)) = event::read() else { continue };
        let control_c = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
        let leave = control_c || matches!(key.code, KeyCode::Char('q' | 'Q') | KeyCode::Esc);
        if key.kind != KeyEventKind::Release && leave && wants.blocking_send(control_c).is_err() {
            return;
        }
    }
}
