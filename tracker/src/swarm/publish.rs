//! Publishers: who may call what how, new versions, slices, and taking media off.

use std::time::Duration;

use icet::media::MediaError;
use icet::message::{ErrorCode, Intent, MediaAnswer, Newer, Publish, Slices, Withdraw, Withdrawn};
use icet::{Now, ProvenSlice, SignedManifest};

use super::board::{MediaIx, PeerIx, State};
use super::media::Media;
use super::names::Names;
use super::schedule::Event;
use super::session::{Refused, quota, refuse};
use super::{ConnId, Effect, KnownName, SliceMark, Store, Swarm};

fn forged(e: MediaError) -> Refused {
    let code = match e {
        MediaError::Signature | MediaError::Proof(_) => ErrorCode::FORGED,
        MediaError::Malformed(_) | MediaError::Impossible(_) => ErrorCode::BAD_MESSAGE,
    };
    refuse(code, e.to_string())
}

/// Why a media goes off the tracker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Gone {
    /// Its publisher withdrew it, and says where it is now.
    Withdrawn(Option<icet::MediaPath>),
    /// The operator took it off.
    TakenOff,
    /// Its broadcaster is gone for too long.
    OffAir,
}

impl Swarm {
    pub(crate) fn publish(
        &mut self,
        now: Now,
        conn: ConnId,
        peer: PeerIx,
        m: Publish,
    ) -> Result<(), Refused> {
        let rate = self.board.config.quotas.publishes_per_minute;
        let Some(p) = self.board.peers.get_mut(&peer) else { return Ok(()) };
        p.publishes
            .take(now, rate / 60.0, rate, 1.0)
            .map_err(|wait| quota("too many manifests; publish more slowly", wait))?;
        let key = p.key;
        let manifest = SignedManifest::verify(m.manifest).map_err(forged)?;
        if manifest.publisher != key {
            return Err(refuse(ErrorCode::FORBIDDEN, "only a manifest's own publisher may publish it"));
        }
        self.check_publisher(&key, &manifest.path)?;
        let ix = self.accept(now, &manifest)?;
        self.enter(now, ix, peer, Intent::Share, true)?;
        let Some(media) = self.board.media.get(&ix) else { return Ok(()) };
        let answer = MediaAnswer {
            request: m.request,
            media: media.id,
            manifest: media.manifest.signed().clone(),
            slices: Vec::new(),
            listeners: media.listeners(),
            hits: media.hits,
            estimate: None,
            buffer: super::join::BUFFER_MS,
        };
        self.send(conn, answer);
        let result = self.put_slices(ix, &m.slices);
        self.board.live_join(now, ix, peer, &icet::PageRanges::new(), &[], None);
        self.board.events.push(Event::Joined { media: ix, peer });
        result
    }

    /// Checks who owns the path and which version is newer, and keeps the manifest. Says which media it is.
    fn accept(&mut self, now: Now, manifest: &SignedManifest) -> Result<MediaIx, Refused> {
        let (wall, key) = (self.board.wall(now), manifest.publisher);
        let path = &manifest.path;
        let mut version = manifest.version;
        let quotas = &self.board.config.quotas;
        let cost = Media::cost(manifest);
        if let Some(name) = self.names.get(path) {
            let ours = name.known.owner == key;
            let in_use =
                name.media.and_then(|ix| self.board.media.get(&ix)).is_some_and(|m| !m.members.is_empty());
            if !ours && (in_use || !Names::expired(name, wall)) {
                return Err(refuse(
                    ErrorCode::OWNED,
                    format!("another key owns {path}: publish under another path (with --as)"),
                ));
            }
            if ours {
                let current = name.media.and_then(|ix| self.board.media.get(&ix));
                if version < name.known.version {
                    return Err(refuse(
                        ErrorCode::ROLLBACK,
                        format!(
                            "version {} was published here already, by another program with this key or with a clock that is \
                             ahead: begin again",
                            name.known.version
                        ),
                    ));
                }
                if let Some(media) = current.filter(|m| m.manifest.version == version) {
                    return if media.manifest.signed() == manifest.signed() {
                        let ix = media.ix;
                        self.used(path, wall);
                        Ok(ix)
                    } else {
                        Err(refuse(
                            ErrorCode::ROLLBACK,
                            format!(
                                "another manifest of version {version} was published here; use a higher one"
                            ),
                        ))
                    };
                }
                version = version.max(name.known.version);
            }
        }
        let known = self.names.get(path).filter(|n| n.known.owner == key).map(|n| n.cost);
        let (paths, bytes) = self.names.owned_by(&key);
        let hour = Duration::from_secs(3600);
        if known.is_none() && paths >= quotas.media_per_key {
            let most = quotas.media_per_key;
            return Err(quota(
                format!("it takes {most} media of one key; its operator can change that"),
                hour,
            ));
        }
        if known.is_none() && self.board.media.len() >= quotas.media {
            return Err(quota("this tracker has as many media as it can keep", hour));
        }
        if bytes.saturating_sub(known.unwrap_or(0)).saturating_add(cost) > quotas.map_bytes_per_key as u64 {
            return Err(quota("this media's page table is too large beside your others", hour));
        }
        let known = known.is_some();
        let old = self.names.get(path).and_then(|n| n.media);
        if let Some(old) = old.filter(|_| !known) {
            self.remove_media(now, old, &Gone::Withdrawn(None));
        }
        let known_name = KnownName { path: path.clone(), owner: key, version, used_ms: wall, moved: None };
        let ix = match old.filter(|_| known) {
            Some(ix) => {
                self.renew(now, ix, manifest);
                ix
            }
            None => self.add_media(manifest.clone(), 0),
        };
        self.board.live_begin(now, ix);
        self.names.put(known_name.clone(), Some(ix), cost);
        self.effects.push_back(Effect::Store(Store::Name(known_name)));
        self.effects.push_back(Effect::Store(Store::Manifest { manifest: manifest.clone() }));
        Ok(ix)
    }

    pub(crate) fn add_media(&mut self, manifest: SignedManifest, hits: u64) -> MediaIx {
        let ix = MediaIx(self.board.next_ix());
        self.board.ids.insert(manifest.id(), ix);
        self.board.media.insert(ix, Media::new(ix, manifest, hits));
        ix
    }

    /// A newer version of a media: what was held of the old one counts for nothing, and members are told.
    fn renew(&mut self, now: Now, ix: MediaIx, manifest: &SignedManifest) {
        let Some(m) = self.board.media.get(&ix) else { return };
        let members: Vec<_> = m.members.iter().map(|(p, m)| (*p, m.intent)).collect();
        let (hits, publisher) = (m.hits, m.publisher);
        self.drop_orders(now, ix);
        for (peer, _) in &members {
            self.leave_swarm(ix, *peer);
        }
        if let Some(m) = self.board.media.get_mut(&ix) {
            let (delivered, by_publisher) = (m.delivered, m.delivered_by_publisher);
            *m = Media::new(ix, manifest.clone(), hits);
            (m.delivered, m.delivered_by_publisher) = (delivered, by_publisher);
        }
        for (peer, intent) in members.into_iter().filter(|(p, _)| Some(*p) != publisher) {
            let conn = self.board.peers.get(&peer).and_then(|p| p.conn);
            match (conn, self.enter(now, ix, peer, intent, false)) {
                (Some(conn), Ok(())) => {
                    self.board.live_join(now, ix, peer, &icet::PageRanges::new(), &[], None);
                    self.send(conn, Newer { manifest: manifest.signed().clone() });
                    self.board.events.push(Event::Joined { media: ix, peer });
                }
                (Some(conn), Err(e)) => self.answer(conn, None, Some(manifest.id()), e),
                (None, _) => {}
            }
        }
    }

    /// Proves slices and stores those that are new.
    fn put_slices(&mut self, ix: MediaIx, slices: &[ProvenSlice]) -> Result<(), Refused> {
        let Some(m) = self.board.media.get_mut(&ix) else { return Ok(()) };
        let (id, version) = (m.id, m.manifest.version);
        for proven in slices {
            let slice = proven.verify(m.manifest.manifest()).map_err(forged)?;
            if m.table.has(slice.index) {
                continue;
            }
            let mark = SliceMark { offset: slice.offset, time: slice.time };
            m.table.put(slice.index, mark);
            self.effects.push_back(Effect::Store(Store::Slice {
                media: id,
                version,
                index: slice.index,
                mark,
                slice: proven.clone(),
            }));
        }
        Ok(())
    }

    /// Slices from a member; they prove themselves.
    pub(crate) fn upload(&mut self, peer: PeerIx, m: &Slices) -> Result<(), Refused> {
        let ix = self.find_media(&m.media)?;
        if self.board.member(ix, peer).is_none() {
            return Err(refuse(ErrorCode::FORBIDDEN, "publish or join a media before sending its slices"));
        }
        self.put_slices(ix, &m.slices)
    }

    pub(crate) fn withdraw(&mut self, now: Now, peer: PeerIx, m: &Withdraw) -> Result<(), Refused> {
        let ix = self.find_media(&m.media)?;
        let key = self.board.peers.get(&peer).map(|p| p.key);
        let Some(media) = self.board.media.get(&ix).filter(|m| Some(m.manifest.publisher) == key) else {
            return Err(refuse(ErrorCode::FORBIDDEN, "only its publisher may withdraw a media"));
        };
        let path = media.manifest.path.clone();
        if let Some(moved) = &m.moved {
            let there =
                self.names.get(moved).is_some_and(|n| Some(n.known.owner) == key && n.media.is_some());
            if !there || *moved == path {
                return Err(refuse(
                    ErrorCode::NO_MEDIA,
                    "publish the media at its new path before it moves there",
                ));
            }
        }
        self.remove_media(now, ix, &Gone::Withdrawn(m.moved.clone()));
        if m.release {
            self.names.remove(&path);
            self.effects.push_back(Effect::Store(Store::Forget { path }));
        } else if let Some(name) = self.names.get(&path) {
            let known =
                KnownName { used_ms: self.board.wall(now), moved: m.moved.clone(), ..name.known.clone() };
            self.names.put(known.clone(), None, 0);
            self.effects.push_back(Effect::Store(Store::Name(known)));
        }
        Ok(())
    }

    /// Takes a media off: members are told, its assignments end.
    pub(crate) fn remove_media(&mut self, now: Now, ix: MediaIx, why: &Gone) {
        let Some(m) = self.board.media.get(&ix) else { return };
        let (id, members): (_, Vec<_>) = (m.id, m.members.keys().copied().collect());
        self.drop_orders(now, ix);
        for peer in members {
            self.leave_swarm(ix, peer);
            if let Some(conn) = self.board.peers.get(&peer).and_then(|p| p.conn) {
                let moved = if let Gone::Withdrawn(moved) = why { moved.clone() } else { None };
                let operator = (*why == Gone::TakenOff).then_some(true);
                let off_air = (*why == Gone::OffAir).then_some(true);
                self.send(conn, Withdrawn { media: id, moved, operator, off_air });
            }
        }
        self.board.media.remove(&ix);
        self.board.ids.remove(&id);
        self.effects.push_back(Effect::Store(Store::Withdrawn { media: id }));
    }

    /// Takes back all orders of a media, those of receivers that are gone too.
    fn drop_orders(&mut self, now: Now, ix: MediaIx) {
        let runs = self.board.runs.iter().filter(|(_, r)| r.media == ix && r.state != State::Ended);
        let mut runs: Vec<u64> = runs.map(|(id, _)| *id).collect();
        runs.sort_unstable();
        for id in runs {
            self.board.cancel(id);
            self.board.end(now, id);
        }
    }

    /// The path is in use.
    pub(crate) fn used(&mut self, path: &icet::MediaPath, wall_ms: u64) {
        if let Some(known) = self.names.touch(path, wall_ms) {
            self.effects.push_back(Effect::Store(Store::Name(known)));
        }
    }
}
