//! A bounded number of places for connections that strangers open, in which nobody can keep others out.
//!
//! A limit by address alone would let one flooder shut out everyone behind its NAT (and on a machine of its own, all of
//! loopback); a limit on all alone would let it shut out the world. So a full table refuses no newcomer: somebody else
//! goes. Who that is, in this order: of the least [`Standing`]; of the prefix (/24, /48) that has most of those; its
//! oldest if it had its [`GRACE`], else any one, by chance. So whoever is quicker than the flood fills the table is safe,
//! and in any flood each newcomer has a chance, and another one with the next try.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use icet::{Now, Prefix};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio_util::sync::CancellationToken;

/// An honest newcomer has shown who it is after so long.
const GRACE: Duration = Duration::from_secs(1);

/// What speaks for a connection. The least goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Standing {
    /// It has said nothing of use yet.
    #[default]
    Stranger,
    /// It was served, and waits.
    Guest,
    /// It has shown a right to be served (a ticket, say), and waits.
    Friend,
    /// It is being served, and stays.
    Served,
}

/// Standings below [`Standing::Served`].
const LEVELS: usize = 3;

/// How many places there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotLimits {
    /// In all.
    pub all: usize,
    /// For one IP address; loopback aside, where a whole swarm may run.
    pub each: usize,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    ip: IpAddr,
    since: Now,
    taken: CancellationToken,
}

/// Who could be made to go, of one standing: by prefix, in the order of arrival.
type Level = HashMap<Prefix, VecDeque<Entry>>;

/// The table itself: time and chance as arguments.
#[derive(Debug)]
struct Table {
    limits: SlotLimits,
    levels: [Level; LEVELS],
    count: usize,
    by_ip: HashMap<IpAddr, usize>,
    last: u64,
}

impl Table {
    fn new(limits: SlotLimits) -> Table {
        Table { limits, levels: Default::default(), count: 0, by_ip: HashMap::new(), last: 0 }
    }

    /// None if all who are in the way are being served.
    fn enter(&mut self, now: Now, rng: &mut SmallRng, ip: IpAddr) -> Option<(u64, CancellationToken)> {
        let mine = self.by_ip.get(&ip).copied().unwrap_or(0);
        if mine >= self.limits.each && !ip.is_loopback() {
            self.push_out(now, rng, Some(ip))?;
        } else if self.count >= self.limits.all {
            self.push_out(now, rng, None)?;
        }
        self.count += 1;
        self.last += 1;
        *self.by_ip.entry(ip).or_default() += 1;
        let taken = CancellationToken::new();
        let entry = Entry { number: self.last, ip, since: now, taken: taken.clone() };
        self.levels[0].entry(Prefix::of(ip)).or_default().push_back(entry);
        Some((self.last, taken))
    }

    /// Makes somebody go: anybody, or one with this address.
    fn push_out(&mut self, now: Now, rng: &mut SmallRng, ip: Option<IpAddr>) -> Option<()> {
        let mut found = None;
        for (level, entries) in self.levels.iter().enumerate() {
            let group = match ip {
                Some(ip) => entries.get_key_value(&Prefix::of(ip)),
                // The order of a HashMap is arbitrary: equally many must not mean chance outside of `rng`.
                None => entries.iter().max_by_key(|(prefix, group)| (group.len(), **prefix)),
            };
            let Some((prefix, group)) = group else { continue };
            let fits = |e: &&Entry| ip.is_none_or(|ip| ip == e.ip);
            let Some(oldest) = group.iter().position(|e| fits(&e)) else { continue };
            let had_grace = group.get(oldest).is_some_and(|e| now.since(e.since) >= GRACE);
            let number = if had_grace {
                group.get(oldest)?.number
            } else {
                let n = group.iter().filter(fits).count();
                group.iter().filter(fits).nth(rng.random_range(0..n))?.number
            };
            found = Some((level, *prefix, number));
            break;
        }
        let (level, prefix, number) = found?;
        let entry = self.remove(level, prefix, number)?;
        self.forget(entry.ip);
        entry.taken.cancel();
        Some(())
    }

    fn remove(&mut self, level: usize, prefix: Prefix, number: u64) -> Option<Entry> {
        let entries = self.levels.get_mut(level)?;
        let group = entries.get_mut(&prefix)?;
        let entry = group.iter().position(|e| e.number == number).and_then(|i| group.remove(i));
        if group.is_empty() {
            entries.remove(&prefix);
        }
        entry
    }

    fn forget(&mut self, ip: IpAddr) {
        self.count -= 1;
        if let Some(n) = self.by_ip.get_mut(&ip) {
            *n -= 1;
            if *n == 0 {
                self.by_ip.remove(&ip);
            }
        }
    }
}

#[derive(Debug)]
struct Shared {
    origin: Instant,
    table: Mutex<(Table, SmallRng)>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, (Table, SmallRng)> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See the module. Clones share the places.
#[derive(Debug, Clone)]
pub struct Slots(Arc<Shared>);

/// One connection's place; given back when dropped.
#[derive(Debug)]
pub struct Slot {
    slots: Arc<Shared>,
    number: u64,
    ip: IpAddr,
    taken: CancellationToken,
    /// Where it stands, and its entry while it is being served.
    standing: Mutex<(Standing, Option<Entry>)>,
}

impl Slots {
    /// Places for so many.
    #[must_use]
    pub fn new(limits: SlotLimits) -> Slots {
        let mut seed = [0; 8];
        // Without randomness of the system a flooder could foresee who goes: no more than that.
        let _ = getrandom::fill(&mut seed);
        let table = (Table::new(limits), SmallRng::seed_from_u64(u64::from_le_bytes(seed)));
        Slots(Arc::new(Shared { origin: Instant::now(), table: Mutex::new(table) }))
    }

    /// A place for a connection from `ip`, if need be somebody else's. None only if all others are being served.
    #[must_use]
    pub fn enter(&self, ip: IpAddr) -> Option<Slot> {
        let ip = ip.to_canonical();
        let now = Now::from_origin(self.0.origin.elapsed());
        let (table, rng) = &mut *self.0.lock();
        let (number, taken) = table.enter(now, rng, ip)?;
        let standing = Mutex::new((Standing::Stranger, None));
        Some(Slot { slots: self.0.clone(), number, ip, taken, standing })
    }

    /// Makes one go, as if a newcomer had come.
    pub(super) fn push_out(&self) {
        let now = Now::from_origin(self.0.origin.elapsed());
        let (table, rng) = &mut *self.0.lock();
        let _ = table.push_out(now, rng, None);
    }

    /// Places taken.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.lock().0.count
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Slot {
    /// Says how the connection stands from now on. Who stands anew counts as having just come.
    pub fn stand(&self, standing: Standing) {
        let mut mine = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        if mine.0 == standing {
            return;
        }
        let now = Now::from_origin(self.slots.origin.elapsed());
        let (table, _) = &mut *self.slots.lock();
        let prefix = Prefix::of(self.ip);
        let entry = match mine.1.take() {
            Some(entry) => entry,
            None => match table.remove(mine.0 as usize, prefix, self.number) {
                Some(entry) => entry,
                // It was made to go.
                None => return,
            },
        };
        let entry = Entry { since: now, ..entry };
        mine.0 = standing;
        match table.levels.get_mut(standing as usize) {
            Some(level) => level.entry(prefix).or_default().push_back(entry),
            None => mine.1 = Some(entry),
        }
    }

    /// It is being served until the guard is dropped, and stands as `after` says then.
    #[must_use]
    pub fn serve(self: &Arc<Slot>, after: Standing) -> Serving {
        self.stand(Standing::Served);
        Serving { slot: self.clone(), after }
    }

    /// Waits until somebody else has its place: then the connection is to be closed.
    pub async fn taken(&self) {
        self.taken.cancelled().await;
    }

    /// Runs `f` as long as the place is its own.
    pub async fn hold<T>(&self, f: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.taken() => None,
            out = f => Some(out),
        }
    }
}

/// See [`Slot::serve`].
#[derive(Debug)]
pub struct Serving {
    slot: Arc<Slot>,
    after: Standing,
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.slot.stand(self.after);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mine = self.standing.get_mut().unwrap_or_else(PoisonError::into_inner);
        let (table, _) = &mut *self.slots.lock();
        let entry = mine.1.take().or_else(|| table.remove(mine.0 as usize, Prefix::of(self.ip), self.number));
        if entry.is_some() {
            table.forget(self.ip);
        }
    }
}

/// The place of a connection that carries several requests at once.
#[derive(Debug)]
pub struct Place {
    slot: Slot,
    /// Requests that are served, and whether any came with a ticket.
    served: Mutex<(usize, bool)>,
}

impl Place {
    /// Of a connection that has its slot.
    #[must_use]
    pub fn new(slot: Slot) -> Arc<Place> {
        Arc::new(Place { slot, served: Mutex::default() })
    }

    /// It is of use as long as any of the guards lives, and is not made to go; afterwards a ticket still speaks for it.
    #[must_use]
    pub fn serve(self: &Arc<Place>, ticket: bool) -> Served {
        {
            let mut served = self.served();
            *served = (served.0 + 1, served.1 | ticket);
            self.slot.stand(Standing::Served);
        }
        Served(self.clone())
    }

    /// As [`Slot::taken`].
    pub async fn taken(&self) {
        self.slot.taken().await;
    }

    fn served(&self) -> MutexGuard<'_, (usize, bool)> {
        self.served.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See [`Place::serve`].
#[derive(Debug)]
pub struct Served(Arc<Place>);

impl Drop for Served {
    fn drop(&mut self) {
        let mut served = self.0.served();
        served.0 -= 1;
        if served.0 == 0 {
            self.0.slot.stand(if served.1 { Standing::Friend } else { Standing::Guest });
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FEW: SlotLimits = SlotLimits { all: 4, each: 4 };

    fn ip(s: &str) -> IpAddr {
        s.parse().expect("an address")
    }

    fn slots(limits: SlotLimits) -> Slots {
        Slots::new(limits)
    }

    fn gone(slot: &Slot) -> bool {
        slot.taken.is_cancelled()
    }

    #[test]
    fn a_flood_from_ones_own_address_pushes_nobody_out_who_is_quicker() {
        let mut rng = SmallRng::seed_from_u64(1);
        let mut table = Table::new(SlotLimits { all: 64, each: 64 });
        let at = |ms: u64| Now(ms * 1000);
        // 40 a second, of which none ever goes: each place is a stranger's for 1.6 seconds.
        let mut honest = Vec::new();
        for i in 0..1000 {
            let (_, taken) = table.enter(at(i * 25), &mut rng, ip("192.0.2.7")).expect("a place");
            if i > 64 && i % 10 == 0 {
                honest.push((at(i * 25), taken));
            }
            // All who came within the last second are still there.
            honest.retain(|(since, _)| at(i * 25).since(*since) <= Duration::from_secs(1));
            assert!(honest.iter().all(|(_, t)| !t.is_cancelled()));
        }
        assert_eq!(table.count, 64);
    }

    #[test]
    fn in_any_flood_a_newcomer_has_a_chance() {
        let mut rng = SmallRng::seed_from_u64(2);
        let mut table = Table::new(SlotLimits { all: 64, each: 64 });
        let mut stayed = 0;
        for round in 0..1000_u64 {
            let now = Now(round * 100);
            let (_, mine) = table.enter(now, &mut rng, ip("192.0.2.7")).expect("a place");
            // As many again as there are places come before it has shown who it is.
            for _ in 0..64 {
                assert!(table.enter(now, &mut rng, ip("192.0.2.7")).is_some());
            }
            stayed += u32::from(!mine.is_cancelled());
        }
        // (1 - 1/64)^64 of them.
        assert!((300..440).contains(&stayed), "{stayed} of 1000");
    }

    #[test]
    fn the_prefix_with_most_makes_room_for_others() {
        let slots = slots(FEW);
        let quiet = slots.enter(ip("198.51.100.1")).expect("a place");
        let crowd: Vec<_> =
            (1..4).map(|i| slots.enter(ip(&format!("192.0.2.{i}"))).expect("a place")).collect();
        let other = slots.enter(ip("203.0.113.1")).expect("a place");
        assert!(!gone(&quiet) && !gone(&other));
        assert_eq!(crowd.iter().filter(|s| gone(s)).count(), 1);
        assert_eq!(slots.len(), 4);
        drop(crowd);
        assert_eq!(slots.len(), 2);
    }

    #[test]
    fn who_stands_higher_stays_longer() {
        let slots = slots(FEW);
        let enter = || slots.enter(ip("192.0.2.1"));
        let all: Vec<_> = (0..4).map(|_| enter().expect("a place")).collect();
        for (slot, s) in
            all.iter().zip([Standing::Served, Standing::Friend, Standing::Guest, Standing::Stranger])
        {
            slot.stand(s);
        }
        let mut kept = Vec::new();
        for left in (1..4).rev() {
            let new = enter().expect("a place");
            new.stand(Standing::Served);
            kept.push(new);
            assert_eq!(all.iter().filter(|s| !gone(s)).count(), left);
            assert!(all.iter().take(left).all(|s| !gone(s)));
        }
        assert!(enter().is_none(), "all are being served");
        // Who was served and waits may go; who was made to go comes not back.
        all[0].stand(Standing::Guest);
        all[1].stand(Standing::Served);
        assert!(enter().is_some() && gone(&all[0]));
        drop((all, kept));
        assert!(slots.is_empty());
    }

    #[test]
    fn one_address_has_its_share_except_on_loopback() {
        let slots = slots(SlotLimits { all: 4, each: 2 });
        let other = slots.enter(ip("192.0.2.2")).expect("a place");
        let mine: Vec<_> = (0..3).map(|_| slots.enter(ip("192.0.2.1")).expect("a place")).collect();
        assert!(!gone(&other));
        assert_eq!((mine.iter().filter(|s| gone(s)).count(), slots.len()), (1, 3));
        mine.iter().for_each(|s| s.stand(Standing::Served));
        assert!(slots.enter(ip("192.0.2.1")).is_none());
        drop((mine, other));
        let mine: Vec<_> = (0..4).map(|_| slots.enter(ip("127.0.0.1")).expect("a place")).collect();
        assert!(mine.iter().all(|s| !gone(s)));
    }

    #[test]
    fn neighbours_share_a_prefix() {
        assert_eq!(Prefix::of(ip("192.0.2.1")), Prefix::of(ip("::ffff:192.0.2.200")));
        assert_ne!(Prefix::of(ip("192.0.2.1")), Prefix::of(ip("192.0.3.1")));
        assert_eq!(Prefix::of(ip("2001:db8:1:2::1")), Prefix::of(ip("2001:db8:1:3::1")));
        assert_ne!(Prefix::of(ip("2001:db8:1::1")), Prefix::of(ip("2001:db8:2::1")));
    }

    proptest! {
        /// Whatever comes, stands and goes: the limits hold and nothing is left.
        #[test]
        fn limits_hold(steps in prop::collection::vec((0..3u8, 0..8u8, 0..8usize), 0..200)) {
            let limits = SlotLimits { all: 8, each: 3 };
            let slots = slots(limits);
            let mut open: Vec<Slot> = Vec::new();
            for (what, host, which) in steps {
                match what {
                    0 => open.extend(slots.enter(ip(&format!("192.0.{}.{host}", host % 2)))),
                    1 if !open.is_empty() => drop(open.swap_remove(which % open.len())),
                    2 if !open.is_empty() => {
                        let s = [Standing::Stranger, Standing::Guest, Standing::Friend, Standing::Served];
                        open[which % open.len()].stand(s[usize::from(host) % 4]);
                    }
                    _ => {}
                }
                open.retain(|s| !gone(s));
                prop_assert_eq!(slots.len(), open.len());
                prop_assert!(open.len() <= limits.all);
                prop_assert!(slots.0.lock().0.by_ip.values().all(|n| *n <= limits.each));
            }
            drop(open);
            prop_assert!(slots.is_empty() && slots.0.lock().0.by_ip.is_empty());
            prop_assert!(slots.0.lock().0.levels.iter().all(HashMap::is_empty));
        }
    }
}
