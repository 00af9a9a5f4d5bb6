//! The media that the driver opened: joining, publishing, accepting, leaving, focus.

use std::sync::Arc;
use std::time::Duration;

use icet::media::Signed;
use icet::message::{
    ErrorCode, ErrorMessage, Focus, Got, Have, Head, Intent, Join, Leave, MediaAnswer, Newer, Position,
    Publish, Withdraw, Withdrawn,
};
use icet::{
    Manifest, MediaId, MediaPath, Now, PageMap, PageNo, PageRanges, PeerKey, ProvenSlice, SignedManifest,
    limits,
};

use super::Engine;
use super::acks::Acks;
use super::assignments::Parked;
use super::io::{Action, Handle, Refusal, Tally};
use super::pages::Pages;
use super::reserve::Held;
use super::session::Link;
use super::timers::Timer;
use super::upload::Upload;

/// Of a storm of seeks the first is told at once, and then one in this time.
const FOCUS: Duration = Duration::from_millis(100);
/// Most bytes of slices in a message, so that it stays well within a frame.
pub(super) const MESSAGE: usize = 512 * 1024;
/// Held pages that are fetched again rather than cutting a request in two: at most so many bytes.
const BRIDGE: u64 = 4096;

#[derive(Debug)]
pub(super) struct JoinWish {
    pub(super) path: MediaPath,
    pub(super) publisher: Option<PeerKey>,
    pub(super) intent: Intent,
    pub(super) at: Option<Position>,
    pub(super) back: Option<Duration>,
}

#[derive(Debug)]
pub(super) enum Role {
    Join(JoinWish),
    Publish { manifest: Box<SignedManifest>, slices: Vec<ProvenSlice>, upload: Upload },
}

#[derive(Debug)]
pub(super) struct Media {
    pub(super) role: Role,
    /// Known from the start if the publisher is.
    pub(super) id: Option<MediaId>,
    /// The manifest that the driver was shown last.
    manifest: Option<Signed>,
    /// The version that the pages held are of.
    version: u64,
    /// Pages held before the media was accepted.
    held: PageRanges,
    /// Pages held; none until the driver accepts.
    pub(super) pages: Option<Pages>,
    /// A newer manifest waits for the driver: assignments are of its version.
    pub(super) undecided: bool,
    /// Held pages that may be fetched along with their neighbours.
    pub(super) bridge: u64,
    /// Mean length of a page in bytes; 0: not known.
    pub(super) mean: u64,
    pub(super) rejoins: u32,
    pub(super) focus: Option<Focus>,
    /// What of `focus` the tracker has not been told.
    focus_due: bool,
    focus_sent: Option<Now>,
    /// Ranges of what is held that did not fit the join, while the media's id was not known.
    rest: Vec<PageRanges>,
    /// Assignments that came before the driver accepted.
    pub(super) parked: Vec<Parked>,
    pub(super) reserve: Held,
    pub(super) acks: Acks,
    pub(super) tally: Tally,
    /// The last head of a live media that is published here, until it is told.
    head: Option<Signed>,
    /// Heads before it, and whether the tracker is to be told.
    earlier: Arc<[Signed]>,
    earlier_due: bool,
}

impl Media {
    fn new(role: Role, id: Option<MediaId>, version: u64, held: PageRanges) -> Media {
        Media {
            role,
            id,
            manifest: None,
            version,
            held,
            pages: None,
            undecided: false,
            bridge: 0,
            mean: 0,
            rejoins: 0,
            focus: None,
            focus_due: false,
            focus_sent: None,
            rest: Vec::new(),
            parked: Vec::new(),
            reserve: Held::default(),
            acks: Acks::default(),
            tally: Tally::default(),
            head: None,
            earlier: Arc::default(),
            earlier_due: true,
        }
    }

    pub(super) fn publishes(&self) -> bool {
        matches!(self.role, Role::Publish { .. })
    }

    /// Whether the tracker should assign pages without being asked.
    pub(super) fn wants(&self) -> bool {
        let whole = matches!(&self.role, Role::Join(wish) if wish.intent == Intent::Whole);
        whole && self.pages.as_ref().is_none_or(|p| p.first_missing(0).is_some())
    }

    /// Whether assignments can be taken up.
    pub(super) fn accepts(&self) -> bool {
        self.pages.is_some() && !self.undecided
    }

    fn held_now(&self) -> PageRanges {
        self.pages.as_ref().map_or_else(|| self.held.clone(), Pages::to_ranges)
    }
}

impl Engine {
    pub(super) fn join(&mut self, now: Now, handle: Handle, wish: JoinWish, version: u64, held: PageRanges) {
        if self.media.contains_key(&handle) {
            self.leave(now, handle);
        }
        let id = wish.publisher.map(|p| MediaId::of(&p, &wish.path));
        self.add(now, handle, Media::new(Role::Join(wish), id, version, held));
    }

    pub(super) fn publish(
        &mut self,
        now: Now,
        handle: Handle,
        manifest: Box<SignedManifest>,
        slices: Vec<ProvenSlice>,
    ) {
        let id = manifest.id();
        let mut bytes = 0;
        // What does not fit follows with the upload.
        let fits = |s: &ProvenSlice| {
            bytes += slice_bytes(s);
            bytes <= MESSAGE
        };
        let slices: Vec<_> = slices.into_iter().take(limits::SLICES).take_while(fits).collect();
        let version = manifest.version;
        let role = Role::Publish { manifest, slices, upload: Upload::default() };
        match self.media.get_mut(&handle) {
            // A newer version of what this handle publishes already.
            Some(m) if m.publishes() && m.id == Some(id) => {
                m.role = role;
                m.version = version;
                self.forget_requests(now, handle);
                self.open(now, handle);
            }
            known => {
                if known.is_some() {
                    self.leave(now, handle);
                }
                self.add(now, handle, Media::new(role, Some(id), version, PageRanges::new()));
            }
        }
    }

    fn add(&mut self, now: Now, handle: Handle, m: Media) {
        let id = m.id;
        self.media.insert(handle, m);
        if self.claim(now, handle, id) {
            self.open(now, handle);
        }
    }

    /// Takes the media's id for this handle; a second handle for one media is refused.
    fn claim(&mut self, now: Now, handle: Handle, id: Option<MediaId>) -> bool {
        let Some(id) = id else { return true };
        let owner = *self.ids.entry(id).or_insert(handle);
        if owner == handle {
            return true;
        }
        let text = "this media is open already, under another handle".to_owned();
        self.refuse(now, handle, refusal(ErrorCode::BAD_MESSAGE, id, text));
        false
    }

    /// Says that a handle failed, and forgets it.
    pub(super) fn refuse(&mut self, now: Now, handle: Handle, why: Refusal) {
        self.close(now, handle);
        self.actions.push_back(Action::Refused { handle, why });
    }

    /// Ends all that belongs to a handle.
    fn close(&mut self, now: Now, handle: Handle) {
        self.end_all(now, handle);
        self.flush_acks(handle);
        self.forget_requests(now, handle);
        if let Some(m) = self.media.remove(&handle)
            && let Some(id) = m.id
            && self.ids.get(&id) == Some(&handle)
        {
            self.ids.remove(&id);
        }
        for timer in [Timer::Focus(handle), Timer::Ack(handle), Timer::Upload(handle)] {
            self.timers.cancel(timer);
        }
    }

    pub(super) fn leave(&mut self, now: Now, handle: Handle) {
        let Some(m) = self.media.get(&handle) else { return self.forget_requests(now, handle) };
        let known = m.id.filter(|id| self.ids.get(id) == Some(&handle));
        // It may be the last that the tracker hears in this session.
        self.flush_served(now);
        self.close(now, handle);
        if let Some(media) = known
            && self.session.is_up()
        {
            self.send(Leave { media });
        }
    }

    pub(super) fn withdraw(&mut self, now: Now, handle: Handle, moved: Option<MediaPath>, release: bool) {
        let Some(id) = self.media.get(&handle).and_then(|m| m.id) else { return };
        self.close(now, handle);
        let message = Withdraw { media: id, moved, release };
        if self.session.is_up() {
            self.send(message);
        } else {
            self.session.withdraw_later(message);
        }
    }

    pub(super) fn withdrawn(&mut self, now: Now, m: Withdrawn) {
        if let Some(handle) = self.ids.get(&m.media).copied() {
            // What is published under the same path right after a withdrawal is not what was withdrawn: its own answer says what becomes of it.
            if self.media.get(&handle).is_some_and(Media::publishes) && self.session.is_opening(handle) {
                return;
            }
            let why = match (m.operator, m.off_air) {
                (Some(true), _) => Refusal::TakenOff,
                (_, Some(true)) => Refusal::OffAir,
                _ => Refusal::Withdrawn(m.moved),
            };
            self.refuse(now, handle, why);
        }
    }

    /// Sends a join or publish with what belongs to it.
    pub(super) fn send_open(&mut self, now: Now, handle: Handle, request: u64) {
        let welcome = (self.session.link == Link::Welcome).then_some(self.session.epoch).flatten();
        let running = self.running(handle);
        let Some(m) = self.media.get_mut(&handle) else { return };
        m.focus_due = m.focus.is_some();
        match &m.role {
            Role::Publish { manifest, slices, .. } => {
                let message =
                    Publish { request, manifest: manifest.signed().clone(), slices: slices.clone() };
                self.send(message);
            }
            Role::Join(wish) => {
                let all = m.held_now();
                let mut chunks = all.chunks(limits::RANGES);
                let message = Join {
                    request,
                    path: wish.path.clone(),
                    publisher: wish.publisher,
                    version: m.version,
                    have: chunks.next().unwrap_or_default(),
                    intent: m.focus.as_ref().map_or(wish.intent, |f| f.intent),
                    at: m.focus.as_ref().map(|f| f.at).or(wish.at),
                    running,
                    back: wish.back.map(super::millis),
                };
                m.rest = chunks.collect();
                m.acks.stated(welcome);
                self.send(message);
                self.send_rest(handle);
            }
        }
        self.send_focus(now, handle);
    }

    /// Says again what a member says of itself.
    pub(super) fn restate_media(&mut self, now: Now, handle: Handle) {
        let Some(m) = self.media.get_mut(&handle) else { return };
        if !m.publishes() {
            m.rest = m.held_now().chunks(limits::RANGES).collect();
            m.focus_due = m.focus.is_some();
        }
        self.flush_acks(handle);
        self.send_rest(handle);
        self.send_focus(now, handle);
    }

    /// Sends the held pages that did not fit the join, as soon as the media's id is known.
    fn send_rest(&mut self, handle: Handle) {
        let Some(m) = self.media.get_mut(&handle) else { return };
        let Some(media) = m.id else { return };
        for pages in std::mem::take(&mut m.rest) {
            self.send(Have { media, got: vec![Got { assignment: 0, pages }], lost: PageRanges::new() });
        }
    }

    pub(super) fn media_answer(&mut self, now: Now, m: MediaAnswer) {
        let Some(handle) = self.answered_open(now, m.request) else { return };
        let Some(media) = self.media.get_mut(&handle) else { return };
        let (path, publisher) = match &media.role {
            Role::Join(wish) => (&wish.path, wish.publisher),
            Role::Publish { manifest, .. } => (&manifest.path, Some(manifest.publisher)),
        };
        let good = decode(&m.manifest).is_some_and(|manifest| {
            manifest.id() == m.media
                && manifest.path == *path
                && publisher.is_none_or(|p| p == manifest.publisher)
        });
        if !good {
            let text = "the tracker answered with another media than the one asked for".to_owned();
            return self.refuse(now, handle, refusal(ErrorCode::FORGED, m.media, text));
        }
        media.rejoins = 0;
        media.undecided = media.pages.is_some() && media.manifest.as_ref() != Some(&m.manifest);
        media.manifest = Some(m.manifest.clone());
        media.id = Some(m.media);
        if !self.claim(now, handle, Some(m.media)) {
            return;
        }
        self.allow();
        self.send_rest(handle);
        self.flush_acks(handle);
        self.send_focus(now, handle);
        self.ask_located(now, handle);
        self.actions.push_back(Action::Joined { handle, answer: m });
        self.want_upload(handle);
        if let Some(m) = self.media.get_mut(&handle) {
            m.earlier_due = true;
        }
        self.tell_head(handle, None);
    }

    /// Tells the head of a live media, or keeps it until it can be told.
    pub(super) fn tell_head(&mut self, handle: Handle, news: Option<(Signed, Arc<[Signed]>)>) {
        let up = self.session.link == Link::Welcome && !self.session.is_opening(handle);
        let Some(m) = self.media.get_mut(&handle) else { return };
        if let Some((head, earlier)) = news {
            (m.head, m.earlier) = (Some(head), earlier);
        }
        if up
            && let Some(media) = m.id
            && let Some(head) = m.head.take()
        {
            let due = std::mem::take(&mut m.earlier_due) && !m.earlier.is_empty();
            let earlier = due.then(|| m.earlier.to_vec());
            self.send(Head { media, head, earlier, time: None });
        }
    }

    /// The tracker hands out the head of a live media.
    pub(super) fn head(&mut self, m: Head) {
        if let Some(handle) = self.ids.get(&m.media).copied() {
            self.actions.push_back(Action::Head { handle, head: m.head, time: m.time });
        }
    }

    pub(super) fn newer(&mut self, m: Newer) {
        let Some(manifest) = decode(&m.manifest) else { return };
        let Some(handle) = self.ids.get(&manifest.id()).copied() else { return };
        let Some(media) = self.media.get_mut(&handle) else { return };
        if media.publishes() || media.manifest.as_ref() == Some(&m.manifest) {
            return;
        }
        media.undecided = media.pages.is_some();
        media.manifest = Some(m.manifest.clone());
        self.actions.push_back(Action::Newer { handle, manifest: m.manifest });
    }

    pub(super) fn accept(&mut self, now: Now, handle: Handle, held: PageMap, bytes: u64, version: u64) {
        let Some(m) = self.media.get_mut(&handle) else { return };
        m.undecided = false;
        m.bridge = BRIDGE * held.pages() / bytes.max(1);
        m.mean = bytes / held.pages().max(1);
        let parked = std::mem::take(&mut m.parked);
        let same = m.version == version;
        if m.pages.is_none() {
            // The join could not know what stands on the disk of a media that it had no manifest of.
            let news = !m.publishes() && held.held() > 0 && !(same && held.held() == m.held.count());
            m.held = PageRanges::new();
            m.version = version;
            m.rest = if news { held.to_ranges().chunks(limits::RANGES).collect() } else { Vec::new() };
            m.pages = Some(Pages::new(held));
            if self.session.is_up() && !self.session.is_opening(handle) {
                self.send_rest(handle);
            }
        } else if !same {
            // What is held of the old version is nothing to the swarm of the new one, in which we hold nothing yet.
            self.forget_acks(handle);
            self.end_all(now, handle);
            if let Some(m) = self.media.get_mut(&handle) {
                m.version = version;
                m.rest = held.to_ranges().chunks(limits::RANGES).collect();
                m.pages = Some(Pages::new(held));
            }
            if self.session.is_up() && !self.session.is_opening(handle) {
                self.send_rest(handle);
            }
        }
        // Of a version that was accepted before, our own map is ahead of the driver's: its events are still to come.
        for parked in parked {
            self.take_up(now, handle, parked);
        }
    }

    pub(super) fn focus(&mut self, now: Now, handle: Handle, focus: Focus) {
        let Some(m) = self.media.get_mut(&handle) else { return };
        m.focus = Some(focus);
        m.focus_due = true;
        self.send_focus(now, handle);
    }

    /// Sends the focus unless the tracker was told one just now.
    pub(super) fn send_focus(&mut self, now: Now, handle: Handle) {
        let up = self.session.is_up() && !self.session.is_to_open(handle);
        let Some(m) = self.media.get_mut(&handle).filter(|m| m.focus_due && up) else { return };
        let (Some(media), Some(focus)) = (m.id, &m.focus) else { return };
        match m.focus_sent.map(|t| t + FOCUS).filter(|t| *t > now) {
            Some(t) => self.timers.set_sooner(Timer::Focus(handle), t),
            None => {
                let focus = Focus { media, ..focus.clone() };
                m.focus_sent = Some(now);
                m.focus_due = false;
                self.send(focus);
            }
        }
    }

    pub(super) fn held(&mut self, now: Now, handle: Handle, got: &PageRanges, lost: &PageRanges) {
        let Some(pages) = self.media.get_mut(&handle).and_then(|m| m.pages.as_mut()) else { return };
        let end = pages.last().unwrap_or(limits::PAGES - 1);
        let within = |r: &PageRanges| -> Vec<PageNo> { r.runs().flat_map(|(a, b)| a..=b.min(end)).collect() };
        let gone: Vec<_> = within(lost).into_iter().filter(|p| pages.remove(*p)).collect();
        let new: Vec<_> = within(got).into_iter().filter(|p| pages.insert(*p)).collect();
        if !gone.is_empty() {
            self.lost(handle, &gone);
            self.rewind(handle, &gone);
        }
        for page in new {
            self.arrived(handle, page, None);
            self.acknowledge(now, handle, (0, 0), page, icet::message::Need::Bulk);
        }
        self.wake(handle, None);
    }
}

/// The manifest in signed bytes that nobody has verified yet.
fn decode(signed: &Signed) -> Option<Manifest> {
    (signed.body.len() <= limits::MANIFEST).then(|| icet::frame::decode(&signed.body).ok()).flatten()
}

fn refusal(code: ErrorCode, media: MediaId, text: String) -> Refusal {
    Refusal::Error(ErrorMessage { code, request: None, media: Some(media), text, retry: None })
}

/// Bytes that a slice takes in a message, roughly.
pub(super) fn slice_bytes(s: &ProvenSlice) -> usize {
    s.slice.len() + s.proof.len() * 34 + 8
}
