//! What speaks against a peer, remembered for a while after it has left: to leave and come back clears nobody.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use icet::{Now, PeerKey};

use super::peer::{DISTRUST, Fading};

/// Less distrust than this is not worth remembering of somebody who is gone: what is decisive fades so far in an hour.
const WORTH: f64 = 0.05;
/// Keys that are remembered; beyond, those are forgotten of whom least is to be said.
const MOST: usize = 16_384;
/// How often those are forgotten of whom nothing is left to be said.
const SWEEP: Duration = Duration::from_secs(60);

/// How long an accusation is remembered of whom it was made.
pub(crate) const REMEMBERED: Duration = DISTRUST.saturating_mul(3);
/// Accusations that a reporter may make, as they fade, before they weigh nothing.
pub(crate) const ACCUSATIONS: f64 = 3.0;
/// Failures that a reporter may report a minute before they weigh nothing.
pub(crate) const COMPLAINTS: f64 = 60.0;
/// Half-life of complaints.
pub(crate) const MINUTE: Duration = Duration::from_secs(60);

/// What speaks against one peer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Conduct {
    /// Sum of what speaks against it as a host; see [`super::peer::Peer::trust`].
    pub(crate) distrust: Fading,
    /// Who accused it of altering pages lately, and from where.
    pub(crate) accusers: Vec<(PeerKey, IpAddr, Now)>,
    /// Accusations of that kind that it made lately.
    pub(crate) accused: Fading,
    /// Failures that it reported lately.
    pub(crate) complaints: Fading,
    /// Orders to it that lapsed lately while it took up nothing from anybody.
    pub(crate) unheeded: Fading,
}

impl Conduct {
    /// How much there is to remember.
    fn weight(&self, now: Now) -> f64 {
        // An accusation that a peer made is held against it only if there are more.
        self.distrust.now(now, DISTRUST) + self.accused.now(now, DISTRUST) / 10.0
    }
}

/// Peers that are gone.
#[derive(Debug, Default)]
pub(crate) struct Absent {
    all: HashMap<PeerKey, Conduct>,
    swept: Now,
}

impl Absent {
    /// Remembers somebody who goes, if there is something to remember.
    pub(crate) fn keep(&mut self, now: Now, key: PeerKey, conduct: Conduct) {
        if conduct.weight(now) < WORTH {
            return;
        }
        self.all.insert(key, conduct);
        if self.all.len() > MOST {
            let mut weights: Vec<f64> = self.all.values().map(|c| c.weight(now)).collect();
            let (_, quarter, _) = weights.select_nth_unstable_by(MOST / 4, f64::total_cmp);
            let least = *quarter;
            self.all.retain(|_, c| c.weight(now) > least);
        }
    }

    /// What is remembered of somebody who comes back.
    pub(crate) fn take(&mut self, key: &PeerKey) -> Conduct {
        self.all.remove(key).unwrap_or_default()
    }

    /// Forgets what has faded.
    pub(crate) fn sweep(&mut self, now: Now) {
        if now.since(self.swept) >= SWEEP {
            self.swept = now;
            self.all.retain(|_, c| c.weight(now) >= WORTH);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u32) -> PeerKey {
        let mut key = [0; 32];
        key[..4].copy_from_slice(&n.to_be_bytes());
        PeerKey(key)
    }

    fn guilty(weight: f64) -> Conduct {
        let mut conduct = Conduct::default();
        conduct.distrust.add(Now(0), DISTRUST, weight);
        conduct
    }

    #[test]
    fn memory_is_bounded_and_the_worst_are_remembered_longest() {
        let mut absent = Absent::default();
        absent.keep(Now(0), key(0), Conduct::default());
        assert!(absent.all.is_empty(), "nothing speaks against it");
        absent.keep(Now(0), key(0), guilty(2.5));
        for n in 1..100_000 {
            absent.keep(Now(0), key(n), guilty(0.1 + f64::from(n % 7) / 10.0));
            assert!(absent.all.len() <= MOST);
        }
        assert!(absent.take(&key(0)).distrust.now(Now(0), DISTRUST) > 2.0);
        // All alike: none can be told from another, and nothing grows.
        let mut absent = Absent::default();
        for n in 0..40_000 {
            absent.keep(Now(0), key(n), guilty(1.0));
            assert!(absent.all.len() <= MOST);
        }
        absent.sweep(Now(0) + 10 * DISTRUST);
        assert!(absent.all.is_empty(), "it fades");
    }
}
