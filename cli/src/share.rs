//! Keeps files published as they are: scans, announces, and follows what changes on disk.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use iceshare::icet::{IcetUrl, Identity, MediaPath};
use iceshare::publish::{Prepared, Publish, scan};
use iceshare::{Media, Peer};
use indicatif::DecimalBytes;
use tokio_util::sync::CancellationToken;

use crate::doors;
use crate::escape::printable;
use crate::failure::{FAILED, Failure, Outcome};
use crate::figures;
use crate::output::{self, note};
use crate::peer;
use crate::progress::read_bar;
use crate::tree::Stamp;

/// A link is held back for so long while the next file is published: that may fail. Longer it may wait for the tracker, and the
/// first is shared already.
const HOLD: Duration = Duration::from_secs(2);
/// How often files are looked at.
const POLL: Duration = Duration::from_secs(2);
/// How often it is told at most what was given, if that became more.
const TELL: Duration = Duration::from_secs(60);
/// Longest wait for the tracker's word on how we stand.
const STANDING: Duration = Duration::from_secs(1);

/// A file to be shared under a name.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) file: PathBuf,
    pub(crate) title: Option<String>,
    pub(crate) repair_to: Option<PathBuf>,
}

/// What becomes of mistakes: all files must do (`publish`), or those that do not are skipped with a word (`serve`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Strictness {
    All,
    Skip,
}

struct Item {
    file: PathBuf,
    stamp: Option<Stamp>,
    state: State,
}

enum State {
    /// Seen with this stamp; published once it has not changed from one look to the next.
    Settling,
    Shared(Media),
    /// Told once; tried again when it changes.
    Refused,
    /// Tried again at every look: the tracker was away.
    Retry,
}

/// What went wrong in the last round: it is told once, and so is its end.
#[derive(Debug, Default)]
struct Trouble(Option<String>);

impl Trouble {
    /// What there is to be told after a round in which `now` went wrong.
    fn round(&mut self, now: Option<String>) -> Option<String> {
        let before = std::mem::replace(&mut self.0, now);
        match (&before, &self.0) {
            (Some(_), None) => Some("that is over, all is looked at again".to_owned()),
            (_, Some(text)) if before != self.0 => {
                Some(format!("{text}; looking again every {} s", POLL.as_secs()))
            }
            _ => None,
        }
    }
}

/// What was told of what was given.
#[derive(Debug, Default)]
struct Told {
    bytes: u64,
    at: Option<Instant>,
}

impl Told {
    /// Whether it is to be told that so many bytes were given by now; it counts as told then.
    fn is_news(&mut self, bytes: u64, now: Instant, end: bool) -> bool {
        let due = end || self.at.is_none_or(|at| now.duration_since(at) >= TELL);
        let news = due && bytes > self.bytes;
        if news {
            (self.bytes, self.at) = (bytes, Some(now));
        }
        news
    }
}

/// Shares files until it is stopped.
pub(crate) struct Sharer<'a> {
    pub(crate) peer: &'a Peer,
    pub(crate) identity: &'a Identity,
    pub(crate) tracker: IcetUrl,
    pub(crate) strictness: Strictness,
    items: BTreeMap<MediaPath, Item>,
    /// Links that were printed: once each.
    printed: HashSet<MediaPath>,
}

impl<'a> Sharer<'a> {
    pub(crate) fn new(
        peer: &'a Peer,
        identity: &'a Identity,
        tracker: IcetUrl,
        strictness: Strictness,
    ) -> Sharer<'a> {
        Sharer { peer, identity, tracker, strictness, items: BTreeMap::new(), printed: HashSet::new() }
    }

    /// `list` tells, at each look, what is to be shared. Ends when it is stopped, with an error only before the first round is through.
    pub(crate) async fn run(
        self,
        list: impl FnMut() -> Result<BTreeMap<MediaPath, Wanted>, Failure>,
        stop: &CancellationToken,
    ) -> Outcome {
        let peer = self.peer;
        tokio::select! {
            end = self.share(list, stop) => end,
            never = doors::watch(peer) => match never {},
        }
    }

    async fn share(
        mut self,
        mut list: impl FnMut() -> Result<BTreeMap<MediaPath, Wanted>, Failure>,
        stop: &CancellationToken,
    ) -> Outcome {
        let first = async {
            let wanted = list()?;
            self.look(wanted, true).await
        };
        tokio::select! {
            () = stop.cancelled() => return Err(Failure::interrupted()),
            first = first => first?,
        }
        note(match self.shared() {
            1 => "sharing 1 file; Ctrl-C ends it".to_owned(),
            n => format!("sharing {n} files; Ctrl-C ends it"),
        });
        let (mut trouble, mut told) = (Trouble::default(), Told::default());
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(POLL) => {}
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.tell(&mut told, false) => {}
            }
            let round = async {
                match list() {
                    Ok(wanted) => self.look(wanted, false).await,
                    Err(failure) => Err(failure),
                }
            };
            tokio::select! {
                () = stop.cancelled() => break,
                round = round => {
                    let now = round.err().map(|failure| failure.text().unwrap_or_default().to_owned());
                    if let Some(news) = trouble.round(now) {
                        note(format!("iceshare: {news}"));
                    }
                }
            }
        }
        self.tell(&mut told, true).await;
        Ok(())
    }

    /// Tells what was given, and how we stand with the tracker, if there is something new.
    async fn tell(&self, told: &mut Told, end: bool) {
        let bytes = self.peer.stats().served.bytes;
        if !told.is_news(bytes, Instant::now(), end) {
            return;
        }
        let shared = |i: &Item| if let State::Shared(media) = &i.state { Some(media.clone()) } else { None };
        let standing = match self.items.values().find_map(shared) {
            Some(media) => media.ask_standing(STANDING).await,
            None => None,
        };
        note(format!("{} given to others since the start", DecimalBytes(bytes)));
        figures::standing_lines(standing.as_ref()).iter().for_each(note);
    }

    fn shared(&self) -> usize {
        self.items.values().filter(|i| matches!(i.state, State::Shared(_))).count()
    }

    /// Compares what is wanted with what is shared, and acts on the difference.
    async fn look(&mut self, wanted: BTreeMap<MediaPath, Wanted>, first: bool) -> Result<(), Failure> {
        let mut gone: HashMap<MediaPath, Item> = HashMap::new();
        let paths: Vec<MediaPath> = self.items.keys().filter(|p| !wanted.contains_key(p)).cloned().collect();
        for path in paths {
            if let Some(item) = self.items.remove(&path) {
                gone.insert(path, item);
            }
        }
        // Where all files must do, the command may still end for one of them, and then no link is of use.
        let mut held: Vec<String> = Vec::new();
        for (path, want) in wanted {
            let stamp = Stamp::of(&want.file);
            // A file that came whole, by a move within the tree, needs no time to settle.
            let moved_from = gone
                .iter()
                .find(|(_, i)| stamp.is_some() && i.stamp == stamp && matches!(i.state, State::Shared(_)))
                .map(|(p, _)| p.clone());
            let item = self.items.entry(path.clone()).or_insert_with(|| Item {
                file: want.file.clone(),
                stamp: None,
                state: State::Settling,
            });
            let settled = item.stamp == stamp;
            let ready = match item.state {
                State::Shared(ref media) => {
                    if settled && !media.store().is_stale() {
                        if let Some(why) = media.failure() {
                            note(format!(
                                "{}: {}; trying again",
                                printable(path.as_str()),
                                printable(&why.to_string())
                            ));
                            item.state = State::Retry;
                        }
                        continue;
                    }
                    media.withdraw(false);
                    let what = if stamp.is_some() { "changed" } else { "gone" };
                    note(format!("{} is {what}, and so withdrawn", printable(path.as_str())));
                    item.state = State::Settling;
                    false
                }
                State::Settling => first || settled || moved_from.is_some(),
                State::Refused => {
                    if !settled {
                        item.state = State::Settling;
                    }
                    false
                }
                State::Retry => true,
            };
            (item.stamp, item.file) = (stamp, want.file.clone());
            if !ready || stamp.is_none() && !first {
                continue;
            }
            let published = {
                let mut publish = std::pin::pin!(self.publish(&path, want));
                tokio::select! {
                    published = &mut publish => published,
                    () = tokio::time::sleep(HOLD), if !held.is_empty() => {
                        held.drain(..).try_for_each(output::result)?;
                        publish.await
                    }
                }
            };
            match published {
                Ok(media) => {
                    if let Some(old) = moved_from.and_then(|p| gone.remove_entry(&p)) {
                        self.move_away(&old.0, old.1, &path);
                    }
                    if self.printed.insert(path.clone()) {
                        held.push(media.url().to_string());
                        if !(first && self.strictness == Strictness::All) {
                            held.drain(..).try_for_each(output::result)?;
                        }
                    } else {
                        let version = media.manifest().version;
                        note(format!("{} is shared again, version {version}", printable(path.as_str())));
                    }
                    self.set(&path, State::Shared(media));
                }
                Err((failure, _)) if first && self.strictness == Strictness::All => return Err(failure),
                Err((failure, again)) => {
                    // Without the tracker nothing works, for no file.
                    if first && again {
                        return Err(failure);
                    }
                    let what = if again { "later" } else { "skipped" };
                    note(format!(
                        "{what} {}: {}",
                        printable(path.as_str()),
                        failure.text().unwrap_or_default()
                    ));
                    self.set(&path, if again { State::Retry } else { State::Refused });
                }
            }
        }
        held.drain(..).try_for_each(output::result)?;
        for (path, item) in gone {
            if let State::Shared(media) = item.state {
                media.withdraw(false);
                note(format!("{} is gone, and so withdrawn", printable(path.as_str())));
            }
        }
        Ok(())
    }

    fn set(&mut self, path: &MediaPath, state: State) {
        if let Some(item) = self.items.get_mut(path) {
            item.state = state;
        }
    }

    fn move_away(&self, from: &MediaPath, item: Item, to: &MediaPath) {
        if let State::Shared(media) = item.state {
            media.moved(to.clone());
            note(format!("{} is {} now", printable(from.as_str()), printable(to.as_str())));
        }
    }

    /// The error says if another try, with the same file, may succeed.
    async fn publish(&self, path: &MediaPath, want: Wanted) -> Result<Media, (Failure, bool)> {
        let failed = |e: iceshare::OpenError| {
            let again = matches!(e, iceshare::OpenError::Tracker { .. });
            (peer::opened(e), again)
        };
        let prepared = self.prepare(path, want.clone()).await?;
        match self.peer.publish(&self.tracker, &prepared).await {
            // Signed once more, above what the tracker knows of our key.
            Err(iceshare::OpenError::Outdated(_)) => {
                let prepared = self.prepare(path, want).await?;
                self.peer.publish(&self.tracker, &prepared).await.map_err(failed)
            }
            published => published.map_err(failed),
        }
    }

    async fn prepare(&self, path: &MediaPath, want: Wanted) -> Result<Prepared, (Failure, bool)> {
        let bar = read_bar(path.file_name());
        let name = printable(&want.file.display().to_string());
        let publish =
            Publish { file: want.file, path: path.clone(), title: want.title, repair_to: want.repair_to };
        let (store, identity, shown) = (self.peer.store().clone(), self.identity.clone(), bar.clone());
        let scanned = tokio::task::spawn_blocking(move || {
            scan(&store, &identity, &publish, &mut |p| {
                shown.set_length(p.total);
                shown.set_position(p.bytes);
            })
        })
        .await;
        bar.finish_and_clear();
        let prepared = scanned
            .map_err(|e| (Failure::failed(format!("internal error: {e}")), false))?
            .map_err(|e| (Failure::from_error(FAILED, &e), false))?;
        if let Some(repaired) = prepared.repaired() {
            note(format!(
                "{name} is damaged: its clean pages are in {}, which is shared instead ({} bytes were left out)",
                printable(&repaired.file.display().to_string()),
                repaired.left_out
            ));
        }
        Ok(prepared)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_is_told_when_it_grew_and_not_too_often() {
        let (mut told, start) = (Told::default(), Instant::now());
        let mut news = |bytes, seconds, end| told.is_news(bytes, start + Duration::from_secs(seconds), end);
        assert!(!news(0, 0, false) && !news(0, 0, true), "nothing was given");
        assert!(news(5, 2, false) && !news(9, 4, false), "not yet again");
        assert!(news(9, 62, false) && !news(9, 999, false), "no more than before");
        assert!(news(10, 1000, true) && !news(10, 1001, true), "at the end");
    }

    #[test]
    fn trouble_is_told_once_and_so_is_its_end() {
        let mut trouble = Trouble::default();
        let mut told = |now: Option<&str>| trouble.round(now.map(str::to_owned)).is_some();
        let rounds = [None, Some("a"), Some("a"), Some("b"), Some("b"), None, None, Some("b")];
        assert_eq!(rounds.map(&mut told), [false, true, false, true, false, true, false, true]);
    }
}
