//! Looks at clock, link and counters, and tells the peer what it gives.

use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use iceshare::Peer;
use iceshare::shelf::Shelf;
use jiff::Zoned;
use tokio_util::task::AbortOnDropHandle;

use super::ledger::{Ledger, Used};
use super::{Metered, Rules, Told, Why};
use crate::failure::Failure;
use crate::output::note;
use crate::rate::Rate;

/// How often it looks at the hours, and counts what was given: a kill loses no more than is given in that time.
const LOOK: Duration = Duration::from_millis(500);
/// How often NetworkManager is asked.
const ASK: Duration = Duration::from_secs(10);
/// How long it may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Keeps a peer to the rules as long as it is there, and writes what was given at the end.
#[derive(Debug)]
pub(crate) struct Keeper {
    state: Arc<Mutex<State>>,
    up: Option<Rate>,
    _task: Option<AbortOnDropHandle<()>>,
}

#[derive(Debug)]
struct State {
    rules: Rules,
    shelf: Arc<Shelf>,
    ledger: Option<Ledger>,
    /// Bytes served that are in the ledger.
    written: u64,
    /// As of the last writing, what came since not counted.
    used: Used,
    metered: bool,
    why: Option<Why>,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    /// Bytes served that are not in the ledger yet, and all that was given with them.
    fn given(&self) -> (u64, Used) {
        let fresh = self.shelf.served_totals().bytes.saturating_sub(self.written);
        let add = |n: u64| n.saturating_add(fresh);
        (fresh, Used { day: add(self.used.day), month: add(self.used.month) })
    }

    fn write(&mut self, now: &Zoned) -> std::io::Result<()> {
        let Some(ledger) = &self.ledger else { return Ok(()) };
        let (fresh, _) = self.given();
        self.used = ledger.add(now, fresh)?;
        self.written += fresh;
        Ok(())
    }

    /// Looks anew; whether what is given has changed.
    fn look(&mut self, now: &Zoned) -> std::io::Result<bool> {
        self.write(now)?;
        let used = self.given().1;
        self.shelf.allow(self.rules.left(used));
        let why = self.rules.rest(now, self.metered, used);
        let changed = why.is_some() != self.why.is_some();
        self.why = why;
        Ok(changed)
    }
}

impl Keeper {
    /// Begins to keep a peer to the rules.
    pub(crate) async fn start(
        rules: &Rules,
        up: Option<Rate>,
        data: &Path,
        peer: &Peer,
    ) -> Result<Keeper, Failure> {
        let known = if rules.spares_metered { metered(rules.metered).await } else { Some(false) };
        if known.is_none() {
            note(
                "iceshare: it cannot be told whether this link is metered (NetworkManager does not answer), and it is taken \
                 for one that is not; --metered yes or --metered no says so",
            );
        }
        let mut state = State {
            rules: rules.clone(),
            shelf: peer.shelf().clone(),
            ledger: rules.counts().then(|| Ledger::new(data)),
            written: 0,
            used: Used::default(),
            metered: known.unwrap_or(false),
            why: None,
        };
        state
            .look(&Zoned::now())
            .map_err(|e| Failure::failed(format!("what was given cannot be counted: {e}")))?;
        peer.give(rules.giving(state.why.is_some()));
        if let Some(why) = &state.why {
            note(format!("giving nothing to others {why}"));
        }
        let state = Arc::new(Mutex::new(state));
        let task = rules.change().then(|| {
            let (state, giver) = (state.clone(), peer.giver());
            AbortOnDropHandle::new(tokio::spawn(keep(state, giver)))
        });
        Ok(Keeper { state, up, _task: task })
    }

    /// What is given now.
    pub(crate) fn told(&self) -> Told {
        let state = lock(&self.state);
        Told::new(&state.rules, self.up, state.why.as_ref(), state.given().1)
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if let Err(e) = lock(&self.state).write(&Zoned::now()) {
            note(format!("iceshare: what was given was not counted: {e}"));
        }
    }
}

async fn keep(state: Arc<Mutex<State>>, giver: iceshare::Giver) {
    let mut tick = tokio::time::interval(LOOK);
    let mut asked = Instant::now();
    let mut failed = false;
    loop {
        tick.tick().await;
        let rules = lock(&state).rules.clone();
        if rules.spares_metered && rules.metered == Metered::Auto && asked.elapsed() >= ASK {
            asked = Instant::now();
            if let Some(known) = metered(Metered::Auto).await {
                lock(&state).metered = known;
            }
        }
        let by = state.clone();
        // The ledger is a file that others write to as well.
        let looked = tokio::task::spawn_blocking(move || lock(&by).look(&Zoned::now())).await;
        match looked {
            Ok(Ok(false)) => failed = false,
            Ok(Ok(true)) => {
                let why = lock(&state).why.clone();
                giver.give(rules.giving(why.is_some()));
                note(match why {
                    Some(why) => format!("giving nothing to others {why}"),
                    None => "giving to others again".to_owned(),
                });
            }
            Ok(Err(e)) => {
                // What cannot be counted is not given.
                giver.give(rules.giving(true));
                if !std::mem::replace(&mut failed, true) {
                    note(format!("iceshare: what was given cannot be counted, and so nothing is given: {e}"));
                }
            }
            Err(_) => return,
        }
    }
}

/// Whether the link is metered; none: nobody knows.
async fn metered(said: Metered) -> Option<bool> {
    match said {
        Metered::Yes => Some(true),
        Metered::No => Some(false),
        Metered::Auto => {
            const NAME: &str = "org.freedesktop.NetworkManager";
            let asked = tokio::process::Command::new("busctl")
                .args(["--system", "get-property", NAME, "/org/freedesktop/NetworkManager", NAME, "Metered"])
                .stdin(Stdio::null())
                .stderr(Stdio::null())
                .kill_on_drop(true)
                .output();
            let answer = tokio::time::timeout(PATIENCE, asked).await.ok()?.ok()?;
            meant(&String::from_utf8_lossy(&answer.stdout))
        }
    }
}

/// `NMMetered` as busctl writes it: 1 yes, 2 no, 3 and 4 guessed so; 0 unknown.
fn meant(answer: &str) -> Option<bool> {
    match answer.trim() {
        "u 1" | "u 3" => Some(true),
        "u 2" | "u 4" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_network_manager_says_is_understood() {
        let all = ["u 1\n", "u 2\n", "u 3\n", "u 4\n", "u 0\n", "", "Failed to get property"].map(meant);
        assert_eq!(all, [Some(true), Some(false), Some(true), Some(false), None, None, None]);
    }
}
