//! Targets of crate `icet`.

use icet::frame;
use icet::live::{Batch, Head, SignedBatch, SignedHead};
use icet::media::{Manifest, Signed, Slice};
use icet::message::{ToPeer, ToTracker};
use icet::stream::{self, PagesAnswer, PagesRequest, Piece, PieceReader, What};
use icet::ticket::{Ticket, TicketBody};
use icet::{
    IcetUrl, Identity, MediaPath, PageMap, PageRanges, PageSet, ProtocolName, ProvenSlice, SignedManifest,
    TicketKey, limits, merkle,
};

/// A stream of frames, read by a tracker and by a peer. What is taken can be sent on unchanged.
pub fn message(data: &[u8]) {
    let mut rest = data;
    while let Ok(Some((body, taken))) = frame::split(rest) {
        one_message(body);
        rest = &rest[taken..];
    }
    // Without a frame around it, too: a header is hard to guess.
    one_message(data);
}

fn one_message(body: &[u8]) {
    match ToTracker::from_body(body) {
        Ok(ToTracker::Unknown(_)) => {}
        Ok(m) => assert_eq!(ToTracker::from_body(&frame::encode(&m)), Ok(m)),
        Err(e) => assert!(!e.to_string().is_empty()),
    }
    match ToPeer::from_body(body) {
        Ok(ToPeer::Unknown(_)) => {}
        Ok(m) => assert_eq!(ToPeer::from_body(&frame::encode(&m)), Ok(m)),
        Err(e) => assert!(!e.to_string().is_empty()),
    }
}

/// Manifests, slices and tickets: as they are, and again after a signature, a root or a MAC was made for them, so that
/// what lies behind those checks is reached.
pub fn media(data: &[u8]) {
    if let Ok(signed) = frame::decode::<Signed>(data) {
        let _ = SignedManifest::verify(signed);
    }
    let identity = Identity::from_seed(&[1; 32]);
    if let Ok(mut m) = frame::decode::<Manifest>(data) {
        m.publisher = identity.key();
        let _ = m.mime();
        if let Ok(signed) = SignedManifest::sign(m, &identity) {
            assert_eq!(SignedManifest::verify(signed.signed().clone()).as_ref(), Ok(&signed));
            let proven = ProvenSlice { slice: vec![0].into(), proof: Vec::new() };
            assert!(proven.verify(&signed).is_err());
        }
    }
    live(data);
    if let Ok(s) = Slice::from_bytes(data) {
        slice(&s, data);
    }
    if let Ok(proven) = frame::decode::<ProvenSlice>(data)
        && let Ok(s) = Slice::from_bytes(&proven.slice)
    {
        slice(&s, &proven.slice);
    }
    let key = TicketKey([7; 32]);
    if let Ok(ticket) = frame::decode::<Ticket>(data) {
        let _ = key.check(&ticket);
    }
    if let Ok(body) = frame::decode::<TicketBody>(data) {
        assert_eq!(key.check(&key.issue(&body)), Ok(body));
    }
}

/// Batches and heads of live media, as they are and signed.
fn live(data: &[u8]) {
    let identity = Identity::from_seed(&[1; 32]);
    let manifest =
        |broadcast| Manifest::live(MediaPath::new("a").expect("a path"), identity.key(), broadcast);
    if let Ok(signed) = frame::decode::<Signed>(data) {
        let m = manifest(icet::live::NO_BATCH);
        assert!(SignedBatch::verify(signed.clone(), &m).is_err() || SignedHead::verify(signed, &m).is_err());
    }
    if let Ok(batch) = frame::decode::<Batch>(data) {
        let m = manifest(batch.broadcast);
        if let Ok(signed) = SignedBatch::sign(batch, &identity) {
            assert_eq!(SignedBatch::verify(signed.signed().clone(), &m).as_ref(), Ok(&signed));
            let sum: u64 = (signed.first..signed.next())
                .filter_map(|p| signed.page(p))
                .map(|(r, _)| u64::from(r.len))
                .sum();
            assert_eq!(signed.offset + sum, signed.end());
            assert!(signed.page(signed.next()).is_none() && !signed.follows(&signed));
        }
    }
    if let Ok(head) = frame::decode::<Head>(data) {
        let m = manifest(head.broadcast);
        if let Ok(signed) = SignedHead::sign(head, &identity) {
            assert!(signed.after_setup() <= signed.key);
            assert_eq!(SignedHead::verify(signed.signed().clone(), &m).as_ref(), Ok(&signed));
        }
    }
}

/// A slice of a stranger, also as the only one of a media that its records would make.
fn slice(s: &Slice, bytes: &[u8]) {
    let first = s.first_page();
    assert_eq!(s.page(first).map(|(_, offset)| offset), Some(s.offset));
    assert_eq!(s.page(first + s.records.len() as u64), None);
    if let Some((last, offset)) = s.page(first + s.records.len() as u64 - 1) {
        assert_eq!(offset + u64::from(last.len), s.offset + s.bytes());
    }
    let manifest = Manifest {
        kind: icet::Kind::File,
        path: MediaPath::new("a").expect("a path"),
        publisher: icet::PeerKey([0; 32]),
        version: 0,
        pages: s.records.len() as u64,
        bytes: s.bytes(),
        duration: 0,
        root: merkle::leaf(bytes),
        setup: 0,
        links: 1,
        streams: Vec::new(),
        title: String::new(),
        tags: Vec::new(),
        signed_at: 0,
        group: None,
    };
    let proven = ProvenSlice { slice: bytes.to_vec().into(), proof: Vec::new() };
    assert_eq!(proven.verify(&manifest).is_ok(), s.index == 0 && s.offset == 0);
}

/// Page sets, ranges and maps.
pub fn pages(data: &[u8]) {
    if let Ok(set) = frame::decode::<PageSet>(data) {
        assert_eq!(frame::decode::<PageSet>(&frame::encode(&set)).expect("what was taken"), set);
        assert!(set.first < limits::PAGES && !set.to_string().is_empty());
        let mut at = set.first;
        for _ in 0..64 {
            let Some(page) = set.next_from(at) else { break };
            assert!(page >= at && set.has(page));
            assert_eq!(set.count(page), set.count(at));
            at = page + 1;
        }
        assert!(set.count(u64::MAX) <= u64::MAX - set.first);
    }
    if let Ok(ranges) = frame::decode::<PageRanges>(data) {
        let mut map = PageMap::new(10_000);
        let new = map.insert_all(&ranges);
        assert_eq!(new, map.held());
        assert!(ranges.runs().all(|(a, b)| ranges.has(a) && ranges.has(b) && !ranges.has(b + 1)));
        assert!(map.to_ranges().runs().all(|(a, b)| ranges.has(a) && ranges.has(b)));
        let again = PageRanges::from_runs(ranges.runs());
        assert_eq!(again, ranges);
        assert_eq!(frame::decode::<PageRanges>(&frame::encode(&ranges)).expect("what was taken"), ranges);
        let mut one_by_one = PageRanges::new();
        for (a, b) in ranges.runs().collect::<Vec<_>>().into_iter().rev().take(64) {
            one_by_one.insert(a, b);
        }
        assert!(one_by_one.count() <= ranges.count());
    }
}

/// Requests, answers and pieces of pages over a stream: what is taken can be sent on unchanged, and pieces say the same
/// wherever the stream is cut.
pub fn stream(data: &[u8]) {
    if let Ok(Some((body, taken))) = stream::split(data) {
        assert!(body.len() <= limits::STREAM_FRAME && taken == body.len() + frame::HEADER);
        one_request(body);
    }
    one_request(data);
    let whole = said(data, usize::MAX);
    for cut in [1, 2, 5, 64] {
        let parts = said(data, cut);
        assert_eq!(parts.1, whole.1, "refused, cut every {cut} bytes");
        assert!(parts.0 == whole.0, "cut every {cut} bytes");
    }
}

fn one_request(body: &[u8]) {
    if let Ok(request) = PagesRequest::from_body(body) {
        assert_eq!(PagesRequest::from_body(&frame::encode(&request)).expect("what was taken"), request);
        match request.what {
            What::Pages(set) => assert!(set.last.is_none_or(|l| l >= set.first)),
            What::Bytes { first, last } => assert!(last.is_none_or(|l| l >= first)),
            What::Time { from, to } => assert!(to.is_none_or(|to| to > from)),
            What::Proofs { first, last } => assert!(last >= first),
            What::Spans(spans) => {
                assert!((1..=limits::SPANS).contains(&spans.len()) && spans.iter().all(|s| s.is_sound()));
                assert!(spans.windows(2).all(|w| w[0].is_before(&w[1])));
            }
        }
    }
    if let Ok(answer) = PagesAnswer::from_body(body) {
        assert_eq!(PagesAnswer::from_body(&frame::encode(&answer)).expect("what was taken"), answer);
    }
}

/// What pieces say, adjoining byte strings as one (`Err`); and whether something was refused.
fn said(data: &[u8], cut: usize) -> (Vec<Result<Piece, Vec<u8>>>, bool) {
    let mut reader = PieceReader::default();
    let mut out: Vec<Result<Piece, Vec<u8>>> = Vec::new();
    for mut part in data.chunks(cut.min(data.len().max(1))) {
        while !part.is_empty() {
            match (reader.read(part), out.last_mut()) {
                (Ok((Some(Piece::Bytes(n)), taken)), last) => {
                    assert!(n > 0 && n <= taken);
                    match last {
                        Some(Err(bytes)) => bytes.extend_from_slice(&part[taken - n..taken]),
                        _ => out.push(Err(part[taken - n..taken].to_vec())),
                    }
                    part = &part[taken..];
                }
                (Ok((piece, taken)), _) => {
                    assert!(piece.is_some() || taken == part.len());
                    assert!(taken > 0, "it moves on");
                    out.extend(piece.map(Ok));
                    part = &part[taken..];
                }
                (Err(e), _) => {
                    assert!(!e.to_string().is_empty());
                    return (out, true);
                }
            }
        }
    }
    (out, false)
}

/// Links, media paths, names and keys.
pub fn names(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(url) = text.parse::<IcetUrl>() {
        assert!(url.port != 0 && !url.host.is_empty());
        assert_eq!(url.to_string().parse(), Ok(url));
    }
    for path in [MediaPath::new(text), MediaPath::from_url_path(text)].into_iter().flatten() {
        assert!(path.as_str().len() <= limits::PATH && !path.as_str().contains(char::is_control));
        assert!(path.as_str().split('/').all(|s| !["", ".", ".."].contains(&s)));
        assert_eq!(MediaPath::from_url_path(&path.to_url_path()), Ok(path));
    }
    if let Ok(name) = text.parse::<ProtocolName>() {
        assert_eq!(name.as_str(), text);
    }
    if let Ok(key) = text.parse::<icet::PeerKey>() {
        assert_eq!(key.to_string(), text.to_lowercase());
    }
}
