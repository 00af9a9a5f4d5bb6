//! What of its upload a user gives: not always, not to all, not of everything.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use icet::{MediaId, MediaPath, Now};

use super::limiter::Bucket;
use super::{Denied, lock};

/// What was ordered before a host began to rest is served so much longer: its tracker has heard by then.
const GRACE: Duration = Duration::from_secs(5);

/// What a user gives.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Giving {
    /// Nothing at present.
    pub rests: bool,
    /// Only to receivers in the own network, as the tracker sees them; and so nothing without a ticket.
    pub near: bool,
    /// Of what is published here: only what nobody else can send, as far as the tracker knows.
    pub once: bool,
    /// Media, or folders of media, with what is given of them; the most exact one counts. The others: all.
    pub media: Vec<(MediaPath, Share)>,
}

/// What is given of one media.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// Nothing.
    Nothing,
    /// At most so many bytes a second, all requests for that media together.
    Rate(u64),
}

impl Giving {
    /// What is given of a media; none: as much as of others.
    #[must_use]
    pub fn share(&self, path: &MediaPath) -> Option<Share> {
        let holds = |rule: &&(MediaPath, Share)| {
            let rest = path.as_str().strip_prefix(rule.0.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        self.media.iter().filter(holds).max_by_key(|(rule, _)| rule.as_str().len()).map(|(_, share)| *share)
    }
}

/// The same at work.
#[derive(Debug, Default)]
pub(super) struct Given(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    giving: Giving,
    /// Since when it rests, or of when on it rests whatever was ordered before.
    until: Option<Now>,
    /// Bytes that may still be given, if there is a ceiling.
    left: Option<u64>,
    /// Of media with a rate of their own.
    rates: HashMap<MediaId, (u64, Arc<Mutex<Bucket>>)>,
}

impl State {
    /// Whether anything is given now, of what was ordered or not. A ceiling holds for both.
    fn may(&self, now: Now, ticketed: bool) -> Result<(), Denied> {
        let late = self.until.is_none_or(|until| now >= until);
        let rests = self.giving.rests && (!ticketed || late);
        if rests || self.left == Some(0) { Err(Denied::Rests) } else { Ok(()) }
    }
}

impl Given {
    /// Changes what is given.
    pub(super) fn set(&self, giving: Giving, now: Now) {
        let mut state = lock(&self.0);
        if giving.rests && !state.giving.rests {
            state.until = Some(now + GRACE);
        }
        state.giving = giving;
    }

    pub(super) fn get(&self) -> Giving {
        lock(&self.0).giving.clone()
    }

    /// How many bytes may still be given; none: there is no ceiling.
    pub(super) fn set_left(&self, left: Option<u64>) {
        lock(&self.0).left = left;
    }

    /// Takes `bytes` of what may be given: all that is left, if that is less.
    pub(super) fn spend(&self, now: Now, bytes: u64, ticketed: bool) -> Result<(), Denied> {
        let mut state = lock(&self.0);
        state.may(now, ticketed)?;
        state.left = state.left.map(|left| left.saturating_sub(bytes));
        Ok(())
    }

    /// Whether a request may be served, and the rate that it shares with others of its media.
    pub(super) fn admit(
        &self,
        now: Now,
        media: MediaId,
        path: &MediaPath,
        ticketed: bool,
    ) -> Result<Option<Arc<Mutex<Bucket>>>, Denied> {
        let mut state = lock(&self.0);
        state.may(now, ticketed)?;
        if state.giving.near && !ticketed {
            return Err(Denied::NoTicket);
        }
        match state.giving.share(path) {
            None => Ok(None),
            Some(Share::Nothing) => Err(Denied::Withheld),
            Some(Share::Rate(rate)) => {
                let known = state.rates.get(&media).filter(|(r, _)| *r == rate).map(|(_, b)| b.clone());
                Ok(Some(known.unwrap_or_else(|| {
                    let bucket = Arc::new(Mutex::new(Bucket::new(rate, now)));
                    state.rates.insert(media, (rate, bucket.clone()));
                    bucket
                })))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(s: &str) -> MediaPath {
        MediaPath::new(s).unwrap()
    }

    #[test]
    fn the_most_exact_rule_counts_and_folders_are_whole_segments() {
        let media = vec![
            (path("talks"), Share::Nothing),
            (path("talks/open"), Share::Rate(5)),
            (path("talks/open/a.ogg"), Share::Nothing),
        ];
        let giving = Giving { media, ..Giving::default() };
        assert_eq!(giving.share(&path("talks/x.ogg")), Some(Share::Nothing));
        assert_eq!(giving.share(&path("talks/open/b.ogg")), Some(Share::Rate(5)));
        assert_eq!(giving.share(&path("talks/open/a.ogg")), Some(Share::Nothing));
        assert_eq!(giving.share(&path("talks.ogg")), None);
        assert_eq!(giving.share(&path("music/talks")), None);
    }

    #[test]
    fn what_was_ordered_before_a_rest_is_served_for_some_seconds() {
        let (given, m, p) = (Given::default(), MediaId([1; 32]), path("a"));
        let may = |now, ticketed| given.admit(now, m, &p, ticketed).map(drop);
        let start = Now::ZERO + Duration::from_secs(100);
        assert_eq!((may(start, true), may(start, false)), (Ok(()), Ok(())));
        let rest = Giving { rests: true, ..Giving::default() };
        given.set(rest.clone(), start);
        assert_eq!((may(start, true), may(start, false)), (Ok(()), Err(Denied::Rests)));
        // To say it again makes it no longer.
        given.set(rest, start + GRACE / 2);
        assert_eq!(may(start + GRACE, true), Err(Denied::Rests));
        given.set(Giving { near: true, ..Giving::default() }, start + GRACE);
        assert_eq!((may(start + GRACE, true), may(start + GRACE, false)), (Ok(()), Err(Denied::NoTicket)));
    }

    #[test]
    fn requests_for_one_media_share_its_rate() {
        let (given, m) = (Given::default(), MediaId([1; 32]));
        let media = vec![(path("a"), Share::Rate(1000)), (path("b"), Share::Nothing)];
        given.set(Giving { media, ..Giving::default() }, Now::ZERO);
        let one = given.admit(Now::ZERO, m, &path("a"), true).unwrap().unwrap();
        let other = given.admit(Now::ZERO, m, &path("a"), false).unwrap().unwrap();
        assert!(Arc::ptr_eq(&one, &other));
        assert_eq!(given.admit(Now::ZERO, m, &path("b"), true).map(drop), Err(Denied::Withheld));
        assert!(given.admit(Now::ZERO, m, &path("c"), true).unwrap().is_none());
    }

    #[test]
    fn what_is_under_way_ends_with_what_is_given() {
        let (given, m, p) = (Given::default(), MediaId([1; 32]), path("a"));
        let spend = |now, bytes, ticketed| given.spend(now, bytes, ticketed);
        assert_eq!(spend(Now::ZERO, u64::MAX, false), Ok(()), "no ceiling");
        given.set_left(Some(1000));
        assert_eq!((spend(Now::ZERO, 600, false), spend(Now::ZERO, 600, true)), (Ok(()), Ok(())));
        assert_eq!(
            (spend(Now::ZERO, 1, false), spend(Now::ZERO, 1, true)),
            (Err(Denied::Rests), Err(Denied::Rests))
        );
        assert_eq!(given.admit(Now::ZERO, m, &p, true).map(drop), Err(Denied::Rests));
        given.set_left(Some(1));
        assert_eq!(given.admit(Now::ZERO, m, &p, true).map(drop), Ok(()));
        let start = Now::ZERO + GRACE;
        given.set_left(None);
        given.set(Giving { rests: true, ..Giving::default() }, start);
        assert_eq!((spend(start, 9, true), spend(start, 9, false)), (Ok(()), Err(Denied::Rests)));
        assert_eq!(spend(start + GRACE, 9, true), Err(Denied::Rests));
    }
}
