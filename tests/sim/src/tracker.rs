//! The tracker of a simulation: the real swarm, and a catalogue in memory that survives its restarts.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use icet::message::{ToPeer, ToTracker};
use icet::{Identity, MediaId, MediaPath, NetKind, Now, PeerKey, ProtocolName, ProvenSlice, SignedManifest};
use icetracker::swarm::{
    ConnId, Contribution, DialId, Effect, KnownMedia, KnownName, KnownProtocol, SliceMark, Store, Swarm,
    SwarmConfig,
};

/// Wall clock at the beginning, milliseconds since 1970.
const WALL: u64 = 1_800_000_000_000;

/// What leaves the tracker in a session.
pub(super) enum Out {
    Message(ToPeer),
    Close,
}

#[derive(Debug, Default)]
struct Catalogue {
    names: BTreeMap<MediaPath, KnownName>,
    manifests: BTreeMap<MediaId, SignedManifest>,
    slices: BTreeMap<(MediaId, u64), (SliceMark, ProvenSlice)>,
    hits: BTreeMap<MediaId, u64>,
    contributions: BTreeMap<PeerKey, Contribution>,
    protocols: BTreeMap<ProtocolName, KnownProtocol>,
}

#[derive(Debug)]
pub(super) struct Tracker {
    /// None: it is down.
    swarm: Option<Swarm>,
    catalogue: Catalogue,
    seed: u64,
    epoch: u64,
    identity: Identity,
    next_conn: u64,
    dials: Vec<(DialId, PeerKey)>,
}

fn wall(now: Now) -> u64 {
    WALL + now.0 / 1000
}

impl Tracker {
    pub(super) fn new(seed: u64) -> Tracker {
        let mut tracker = Tracker {
            swarm: None,
            catalogue: Catalogue::default(),
            seed,
            epoch: 0,
            identity: Identity::from_seed(&[0x77; 32]),
            next_conn: 0,
            dials: Vec::new(),
        };
        tracker.start();
        tracker
    }

    pub(super) fn key(&self) -> PeerKey {
        self.identity.key()
    }

    pub(super) fn stop(&mut self) {
        self.swarm = None;
        self.dials.clear();
    }

    pub(super) fn start(&mut self) {
        self.epoch += 1;
        let config = SwarmConfig::new(self.key(), [3; 32], self.epoch, self.seed + self.epoch);
        let mut swarm = Swarm::new(config);
        let c = &self.catalogue;
        for name in c.names.values() {
            swarm.restore_name(name.clone());
        }
        for (id, manifest) in &c.manifests {
            let slices = c.slices.range((*id, 0)..=(*id, u64::MAX)).map(|((_, i), (mark, _))| (*i, *mark));
            swarm.restore_media(KnownMedia {
                manifest: manifest.clone(),
                slices: slices.collect(),
                hits: c.hits.get(id).copied().unwrap_or(0),
            });
        }
        c.protocols.values().for_each(|known| swarm.restore_protocol(known));
        self.swarm = Some(swarm);
    }

    pub(super) fn connect(&mut self, now: Now, key: PeerKey, from: SocketAddr) -> Option<ConnId> {
        let swarm = self.swarm.as_mut()?;
        self.next_conn += 1;
        let conn = ConnId(self.next_conn);
        let contribution = self.catalogue.contributions.get(&key).copied().unwrap_or_default();
        swarm.handle_connect(now, conn, key, from, NetKind::Tcp, contribution);
        Some(conn)
    }

    pub(super) fn gone(&mut self, now: Now, conn: ConnId) {
        if let Some(s) = &mut self.swarm {
            s.handle_disconnect(now, conn);
        }
    }

    pub(super) fn message(&mut self, now: Now, conn: ConnId, m: ToTracker) {
        if let Some(s) = &mut self.swarm {
            s.handle_message(now, wall(now), conn, m);
        }
    }

    pub(super) fn dialed(&mut self, now: Now, id: DialId, ok: bool) {
        if let Some(s) = &mut self.swarm {
            s.handle_dialed(now, id, if ok { Ok(()) } else { Err("nobody there".to_owned()) });
        }
    }

    pub(super) fn timeout(&mut self, now: Now) {
        if let Some(s) = &mut self.swarm {
            s.handle_timeout(now, wall(now));
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Now> {
        self.swarm.as_ref()?.poll_timeout()
    }

    pub(super) fn contributions(&self) -> BTreeMap<PeerKey, Contribution> {
        self.catalogue.contributions.clone()
    }

    pub(super) fn protocols(&self) -> Vec<icetracker::swarm::ProtocolView> {
        self.swarm.as_ref().map(Swarm::protocols).unwrap_or_default()
    }

    pub(super) fn dials(&mut self) -> Vec<(DialId, PeerKey)> {
        std::mem::take(&mut self.dials)
    }

    /// Carries effects out; what is to be sent, in order.
    pub(super) fn drain(&mut self) -> Vec<(ConnId, Out)> {
        let mut out = Vec::new();
        let Some(swarm) = &mut self.swarm else { return out };
        let c = &mut self.catalogue;
        while let Some(effect) = swarm.poll_effect() {
            match effect {
                Effect::Send { conn, message } => out.push((conn, Out::Message(message))),
                Effect::Answer { conn, mut message, media, slices, .. } => {
                    let found =
                        slices.iter().filter_map(|i| c.slices.get(&(media, *i)).map(|(_, s)| s.clone()));
                    match &mut message {
                        ToPeer::MediaAnswer(a) => a.slices = found.collect(),
                        ToPeer::Slices(a) => a.slices = found.collect(),
                        _ => {}
                    }
                    out.push((conn, Out::Message(message)));
                }
                Effect::Close { conn, .. } => out.push((conn, Out::Close)),
                Effect::Dial { id, key, .. } => self.dials.push((id, key)),
                Effect::Store(store) => match store {
                    Store::Name(name) => {
                        c.names.insert(name.path.clone(), name);
                    }
                    Store::Forget { path } => {
                        c.names.remove(&path);
                    }
                    Store::Manifest { manifest } => {
                        c.manifests.insert(manifest.id(), manifest);
                    }
                    Store::Slice { media, index, mark, slice, .. } => {
                        c.slices.insert((media, index), (mark, slice));
                    }
                    Store::Withdrawn { media } => {
                        c.manifests.remove(&media);
                        c.slices.retain(|(id, _), _| *id != media);
                    }
                    Store::Hits { media, hits } => {
                        c.hits.insert(media, hits);
                    }
                    // There is no operator here.
                    Store::Rules(_) => {}
                    Store::Protocol(known) => {
                        c.protocols.insert(known.name.clone(), known);
                    }
                    Store::Contribution { peer, contribution } => {
                        c.contributions.insert(peer, contribution);
                    }
                },
            }
        }
        out
    }
}
