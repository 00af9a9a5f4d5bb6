//! Whether others can fetch from here: said once, where the tracker cannot reach this computer, with what to do about it.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::time::{Duration, Instant};

use iceshare::icet::message::ReachResult;
use iceshare::icet::{Abilities, NetKind, Offer, Scope};
use iceshare::{Peer, PeerStats};

use crate::escape::printable;
use crate::output::note;

/// How often it is looked, and how long it must have been so: several addresses are tried, each for up to five seconds.
const LOOK: Duration = Duration::from_secs(2);
const SETTLED: Duration = Duration::from_secs(8);

/// Says it when it is so, and when it is over; never ends by itself.
pub(crate) async fn watch(peer: &Peer) -> Infallible {
    let mut doors = Doors::default();
    loop {
        tokio::time::sleep(LOOK).await;
        if let Some(news) = doors.look(&peer.stats(), Instant::now()) {
            note(format!("iceshare: {news}"));
        }
    }
}

/// What was found, and said.
#[derive(Debug, Default)]
struct Doors {
    found: Option<(String, Instant)>,
    said: Option<String>,
}

impl Doors {
    /// What there is to be said.
    fn look(&mut self, stats: &PeerStats, now: Instant) -> Option<String> {
        let Some(shut) = shut(&stats.offers, &stats.reach) else {
            self.found = None;
            let open = stats.reach.iter().any(|r| r.proved);
            return (open && self.said.take().is_some())
                .then(|| "the tracker reaches this computer now".to_owned());
        };
        let since = match &self.found {
            Some((before, since)) if *before == shut => *since,
            _ => now,
        };
        self.found = Some((shut.clone(), since));
        let news = now.duration_since(since) >= SETTLED && self.said.as_ref() != Some(&shut);
        news.then(|| self.said.insert(shut).clone())
    }
}

fn name(kind: NetKind) -> &'static str {
    match kind {
        NetKind::Tcp => "TCP",
        NetKind::Udp => "UDP",
    }
}

/// What nobody can fetch over, and why; none if there is nothing of that kind.
fn shut(offers: &[Offer], reach: &[ReachResult]) -> Option<String> {
    let serving = || offers.iter().filter(|o| o.serves);
    let is_shut = |kind| {
        let results = || reach.iter().filter(move |r| r.addr.kind == kind);
        results().next().is_some() && !results().any(|r| r.proved)
    };
    let passes = |o: &&Offer| o.abilities.has(Abilities::RELAYED) || !o.dials.is_some_and(is_shut);
    let kinds: BTreeSet<_> =
        serving().filter(|o| !passes(o)).filter_map(|o| o.dials).map(|k| (name(k), k)).collect();
    if kinds.is_empty() {
        return None;
    }
    // The address that strangers would come to says most.
    let rank = |r: &&ReachResult| match Scope::of(r.addr.at.ip()) {
        Scope::Public => 0,
        Scope::Private => 1,
        _ => 2,
    };
    let of = |kind| reach.iter().filter(move |r| r.addr.kind == kind).min_by_key(rank);
    let why: Vec<_> =
        kinds.iter().filter_map(|(name, kind)| Some((name, printable(&of(*kind)?.why)))).collect();
    let why = match why.as_slice() {
        [(_, all), rest @ ..] if rest.iter().all(|(_, why)| why == all) => all.clone(),
        all => all.iter().map(|(name, why)| format!("{name}: {why}")).collect::<Vec<_>>().join("; "),
    };
    let port = kinds.iter().find_map(|(_, kind)| of(*kind)).map_or(0, |r| r.addr.at.port());
    let names: Vec<_> = kinds.iter().map(|(name, _)| *name).collect();
    let names = names.join(" and ");
    let open: Vec<_> = serving().filter(passes).map(|o| o.name.as_str()).collect();
    let gives = if open.is_empty() {
        "so nobody can have anything from here".to_owned()
    } else {
        format!("so others can fetch from here only over {}", open.join(", "))
    };
    let relay = if serving().any(|o| o.abilities.has(Abilities::RELAYED)) {
        ""
    } else {
        "; or name a relay (README, Behind a NAT)"
    };
    Some(format!(
        "the tracker cannot reach port {port} of this computer over {names} ({why}), {gives}. To change that, let {names} in at \
         a fixed port (--listen 0.0.0.0:{port}), which the router forwards to this computer and the firewall lets in (it is \
         tried again after two minutes, and then ever more seldom){relay}"
    ))
}

#[cfg(test)]
mod tests {
    use iceshare::icet::NetAddr;

    use super::*;

    fn offer(name: &str, dials: NetKind, abilities: Abilities) -> Offer {
        let (name, endpoint) = (name.parse().expect("a name"), String::new());
        Offer { name, abilities, serves: true, endpoint, dials: Some(dials) }
    }

    fn result(kind: NetKind, at: &str, proved: bool, why: &str) -> ReachResult {
        ReachResult { addr: NetAddr { kind, at: at.parse().expect("an address") }, proved, why: why.into() }
    }

    #[test]
    fn what_is_shut_is_told_with_what_to_do() {
        use NetKind::{Tcp, Udp};
        let offers = [offer("http", Tcp, Abilities::PAGES), offer("quic", Udp, Abilities::PAGES)];
        let refused = |kind, why| result(kind, "203.0.113.7:4238", false, why);
        let private = |kind| result(kind, "192.168.1.2:4238", false, "a private address");
        assert_eq!(shut(&offers, &[]), None, "nothing is known yet");
        let both = [private(Tcp), private(Udp), refused(Tcp, "refused\x1b[1m"), refused(Udp, "no answer")];
        let said = shut(&offers, &both).expect("both are shut");
        assert!(said.contains("port 4238") && said.contains("over TCP and UDP"), "{said}");
        assert!(said.contains("TCP: refused\\u{1b}[1m; UDP: no answer"), "{said}");
        assert!(
            said.contains("nobody can have anything") && said.contains("--listen 0.0.0.0:4238"),
            "{said}"
        );
        let same = [refused(Tcp, "no answer"), refused(Udp, "no answer")];
        let said = shut(&offers, &same).expect("both are shut");
        assert!(said.contains("over TCP and UDP (no answer), so nobody"), "{said}");
        // In one network they may be reached.
        let near = result(Tcp, "192.168.1.2:4238", true, "");
        let said = shut(&offers, &[refused(Tcp, "refused"), near, refused(Udp, "no answer")]);
        let said = said.expect("UDP is shut");
        assert!(
            said.contains("over UDP (no answer), so others can fetch from here only over http."),
            "{said}"
        );
        let relayed = [offer("libp2p", Tcp, Abilities::PAGES | Abilities::RELAYED)];
        assert_eq!(shut(&relayed, &both), None, "a relay is enough");
        assert_eq!(shut(&[], &both), None, "it serves nothing");
        let both_ways = [offers.as_slice(), relayed.as_slice()].concat();
        let said = shut(&both_ways, &both).expect("http and quic are shut");
        assert!(said.contains("only over libp2p.") && !said.contains("name a relay"), "{said}");
        assert!(
            shut(&offers, &both).is_some_and(|said| said.ends_with("or name a relay (README, Behind a NAT)"))
        );
    }

    #[test]
    fn it_is_told_once_and_so_is_its_end() {
        let stats = |proved| PeerStats {
            key: iceshare::icet::Identity::from_seed(&[1; 32]).key(),
            local: Vec::new(),
            offers: vec![offer("http", NetKind::Tcp, Abilities::PAGES)],
            reach: vec![result(NetKind::Tcp, "203.0.113.7:4238", proved, "refused")],
            observed: None,
            sessions: 1,
            served: iceshare::shelf::ServedTotals::default(),
        };
        let (mut doors, start) = (Doors::default(), Instant::now());
        let mut said = |proved, s| doors.look(&stats(proved), start + Duration::from_secs(s)).is_some();
        assert!(!said(false, 0) && !said(false, 4), "it may yet be reached");
        assert!(said(false, 8) && !said(false, 10));
        assert!(said(true, 12) && !said(true, 14));
    }
}
