//! The golden vectors: the files are what the example writes, and this crate takes and refuses what they say.

#[path = "../examples/vectors/live.rs"]
mod live;
#[path = "../examples/vectors/meaning.rs"]
mod meaning;
#[path = "../examples/vectors/media.rs"]
mod media;
#[path = "../examples/vectors/messages.rs"]
mod messages;
#[path = "../examples/vectors/names.rs"]
mod names;
#[path = "../examples/vectors/stream.rs"]
mod stream;
#[path = "../examples/vectors/world.rs"]
mod world;

use icet::frame::{self, FrameError};
use icet::media::Signed;
use icet::message::{ToPeer, ToTracker};
use icet::stream::{PagesAnswer, PagesRequest, Piece, PieceReader};
use icet::ticket::TicketError;
use icet::{
    IcetUrl, MediaPath, PageRanges, PageSet, ProtocolName, ProvenSlice, SignedManifest, Ticket, TicketKey,
};
use messages::Message;
use serde_json::Value;

fn unhex(s: &str) -> Vec<u8> {
    let digit = |c: u8| u8::try_from(char::from(c).to_digit(16).expect("a hex digit")).expect("below 16");
    s.as_bytes().chunks_exact(2).map(|p| digit(p[0]) << 4 | digit(p[1])).collect()
}

fn load(name: &str) -> Value {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors").join(name);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn bytes(v: &Value) -> Vec<u8> {
    unhex(v.as_str().unwrap())
}

fn list(v: &Value) -> &[Value] {
    v.as_array().unwrap()
}

fn parse(to: &Value, body: &[u8]) -> Result<Message, FrameError> {
    match to.as_str() {
        Some("tracker") => ToTracker::from_body(body).map(Message::Tracker),
        _ => ToPeer::from_body(body).map(Message::Peer),
    }
}

#[test]
fn files_are_what_the_example_writes() {
    for (name, content) in world::files() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors").join(name);
        let there = std::fs::read_to_string(&path).unwrap();
        assert!(there == content, "{name} is not what the code makes: `cargo run -p icet --example vectors`");
    }
}

#[test]
fn valid_messages_decode_to_what_they_mean_and_encode_back() {
    let file = load("messages.json");
    let valid = messages::valid();
    assert_eq!(list(&file["valid"]).len(), valid.len());
    for (v, (name, expected)) in list(&file["valid"]).iter().zip(valid) {
        let body = bytes(&v["hex"]);
        assert_eq!(parse(&v["to"], &body).as_ref(), Ok(&expected), "{name}");
        assert_eq!(expected.body(), body, "{name}");
    }
}

#[test]
fn every_message_has_a_vector() {
    let numbers = |to: &str| {
        let all = messages::valid().into_iter().filter(|(_, m)| m.to() == to);
        let mut numbers: Vec<u64> = all
            .map(|(_, m)| match m {
                Message::Tracker(m) => m.number(),
                Message::Peer(m) => m.number(),
            })
            .collect();
        numbers.dedup();
        numbers
    };
    assert_eq!(numbers("tracker"), (0..=17).collect::<Vec<_>>());
    assert_eq!(numbers("peer"), (100..=116).collect::<Vec<_>>());
    // The numbers after them are free: nobody added a message without a vector.
    for body in [[0x82, 18, 0xa0].as_slice(), &[0x82, 0x18, 99, 0xa0]] {
        assert!(matches!(ToTracker::from_body(body), Ok(ToTracker::Unknown(_))));
    }
    for body in [[0x82, 0x18, 117, 0xa0].as_slice(), &[0x82, 0, 0xa0]] {
        assert!(matches!(ToPeer::from_body(body), Ok(ToPeer::Unknown(_))));
    }
}

#[test]
fn tolerated_messages_decode_to_what_they_mean() {
    let file = load("messages.json");
    for (v, (name, _, expected, _)) in list(&file["tolerated"]).iter().zip(messages::loose()) {
        let body = bytes(&v["hex"]);
        assert_eq!(parse(&v["to"], &body).as_ref(), Ok(&expected), "{name}");
        assert_eq!(expected.body(), bytes(&v["encoded"]), "{name}");
        assert_ne!(expected.body(), body, "{name} is nothing special");
    }
}

#[test]
fn invalid_messages_are_refused() {
    let file = load("messages.json");
    for v in list(&file["invalid"]) {
        let name = v["name"].as_str().unwrap();
        match parse(&v["to"], &bytes(&v["hex"])) {
            Ok(m) => panic!("{name} was taken: {m:?}"),
            Err(e) => assert_eq!(Some(e.answer()), v["answer"].as_bool(), "{name}: {e}"),
        }
    }
}

#[test]
fn frames_split() {
    let file = load("frames.json");
    for v in list(&file["valid"]) {
        let stream = bytes(&v["hex"]);
        let (mut rest, mut bodies) = (&stream[..], Vec::new());
        while let Some((body, taken)) = frame::split(rest).unwrap() {
            bodies.push(world::hex(body));
            rest = &rest[taken..];
        }
        assert_eq!(serde_json::json!(bodies), v["bodies"], "{}", v["name"]);
        assert_eq!(Some(rest.len() as u64), v["rest"].as_u64(), "{}", v["name"]);
    }
    for v in list(&file["invalid"]) {
        assert!(matches!(frame::split(&bytes(&v["hex"])), Err(FrameError::TooLong(_))), "{}", v["name"]);
    }
}

fn signed(v: &Value) -> Signed {
    let signature = bytes(&v["signature"]).try_into().unwrap();
    Signed { body: bytes(&v["body"]).into(), signature: icet::key::Signature(signature) }
}

fn proven(v: &Value) -> ProvenSlice {
    let hash = |h: &Value| icet::key::Hash(bytes(h).try_into().unwrap());
    ProvenSlice { slice: bytes(&v["slice"]).into(), proof: list(&v["proof"]).iter().map(hash).collect() }
}

#[test]
fn manifests_and_slices() {
    let file = load("media.json");
    for v in list(&file["manifests"]["valid"]) {
        let m = SignedManifest::verify(signed(&v["signed"])).unwrap();
        assert_eq!(meaning::manifest(m.manifest()), v["fields"]);
        assert_eq!(m.id().to_string(), v["media"]);
        assert_eq!(world::cbor(m.manifest()), bytes(&v["signed"]["body"]));
    }
    let refused = media::bad_manifests();
    assert_eq!(list(&file["manifests"]["invalid"]).len(), refused.len());
    for (v, (name, _, error, _)) in list(&file["manifests"]["invalid"]).iter().zip(refused) {
        assert_eq!(SignedManifest::verify(signed(&v["signed"])), Err(error), "{name}");
    }
    let manifest = world::manifest();
    for v in list(&file["slices"]["valid"]) {
        let slice = proven(&v["proven"]).verify(&manifest).unwrap();
        assert_eq!(meaning::slice(&slice), v["fields"]);
        assert_eq!(slice.to_bytes(), bytes(&v["proven"]["slice"]));
    }
    let refused = media::bad_slices();
    assert_eq!(list(&file["slices"]["invalid"]).len(), refused.len());
    for (v, (name, _, error, _)) in list(&file["slices"]["invalid"]).iter().zip(refused) {
        assert_eq!(proven(&v["proven"]).verify(&manifest), Err(error), "{name}");
    }
    for v in list(&file["pages"]) {
        let page = v["page"].as_u64().unwrap();
        let slice = world::slice(page / 64);
        let (record, _) = slice.page(page).unwrap();
        assert_eq!(record.hash.0, *blake3::hash(&bytes(&v["hex"])).as_bytes());
    }
}

#[test]
fn batches_and_heads() {
    use icet::live::{SignedBatch, SignedHead};
    let file = load("live.json");
    let manifest = live::live();
    let chain: Vec<_> = list(&file["batches"]["chain"])
        .iter()
        .map(|v| {
            let batch = SignedBatch::verify(signed(&v["signed"]), &manifest).unwrap();
            assert_eq!(meaning::batch(&batch), v["fields"]);
            assert_eq!(batch.hash().0.to_vec(), bytes(&v["hash"]));
            batch
        })
        .collect();
    assert!(chain.windows(2).all(|w| w[1].follows(&w[0]) && !w[0].follows(&w[1])));
    assert!(!chain[2].follows(&chain[0]) && !chain[1].follows(&chain[1]));
    let refused = live::bad_batches();
    assert_eq!(list(&file["batches"]["invalid"]).len(), refused.len());
    for (v, (name, _, error)) in list(&file["batches"]["invalid"]).iter().zip(refused) {
        assert_eq!(SignedBatch::verify(signed(&v["signed"]), &manifest), Err(error), "{name}");
    }
    for v in list(&file["heads"]["valid"]) {
        let head = SignedHead::verify(signed(&v["signed"]), &manifest).unwrap();
        assert_eq!(meaning::head(&head), v["fields"]);
    }
    let refused = live::bad_heads();
    assert_eq!(list(&file["heads"]["invalid"]).len(), refused.len());
    for (v, (name, _, error)) in list(&file["heads"]["invalid"]).iter().zip(refused) {
        assert_eq!(SignedHead::verify(signed(&v["signed"]), &manifest), Err(error), "{name}");
    }
    // Whatever bit is flipped, and under a file's manifest.
    let good = chain[1].signed();
    for bit in 0..8 * good.body.len() {
        let mut bad = good.clone();
        bad.body[bit / 8] ^= 1 << (bit % 8);
        assert!(SignedBatch::verify(bad, &manifest).is_err(), "bit {bit}");
    }
    assert!(SignedBatch::verify(good.clone(), &world::manifest()).is_err());
}

#[test]
fn trees() {
    let file = load("media.json");
    for v in list(&file["trees"]["trees"]) {
        let count = v["leaves"].as_u64().unwrap();
        let root = icet::key::Hash(bytes(&v["root"]).try_into().unwrap());
        for p in list(&v["proofs"]) {
            let index = p["index"].as_u64().unwrap();
            let leaf = icet::merkle::leaf(&index.to_be_bytes());
            let proof: Vec<_> =
                list(&p["proof"]).iter().map(|h| icet::key::Hash(bytes(h).try_into().unwrap())).collect();
            assert!(icet::merkle::verify(&root, count, index, leaf, &proof));
        }
    }
}

#[test]
fn tickets() {
    let file = load("tickets.json");
    let ticket = |v: &Value| Ticket {
        body: bytes(&v["body"]).into(),
        mac: icet::key::Hash(bytes(&v["mac"]).try_into().unwrap()),
    };
    let key = TicketKey(bytes(&file["key"]).try_into().unwrap());
    let secret: [u8; 32] = bytes(&file["secret"]).try_into().unwrap();
    assert_eq!(TicketKey::derive(&secret, &file["host"].as_str().unwrap().parse().unwrap()), key);
    for v in list(&file["valid"]) {
        let good = ticket(&v["ticket"]);
        assert_eq!(frame::decode::<Ticket>(&bytes(&v["hex"])).unwrap(), good);
        assert_eq!(meaning::ticket_body(&key.check(&good).unwrap()), v["fields"]);
    }
    assert_eq!(list(&file["invalid"]).len(), media::bad_tickets().len());
    for v in list(&file["invalid"]) {
        let error = match v["error"].as_str() {
            Some("forged") => TicketError::Forged,
            _ => TicketError::Malformed,
        };
        assert_eq!(key.check(&ticket(&v["ticket"])), Err(error), "{}", v["name"]);
    }
}

#[test]
fn names_and_links() {
    let file = load("names.json");
    for v in list(&file["paths"]["valid"]) {
        let (text, url) = (v["path"].as_str().unwrap(), v["url"].as_str().unwrap());
        let path = MediaPath::new(text).unwrap();
        assert_eq!(path.to_url_path(), url);
        assert_eq!(MediaPath::from_url_path(url), Ok(path));
    }
    for v in list(&file["paths"]["other_spellings"]) {
        let path = MediaPath::from_url_path(v["url"].as_str().unwrap()).unwrap();
        assert_eq!(path.as_str(), v["path"]);
    }
    for v in list(&file["paths"]["invalid"]) {
        assert!(MediaPath::from_url_path(v["url"].as_str().unwrap()).is_err(), "{v}");
    }
    let urls = names::urls();
    assert_eq!(list(&file["urls"]["valid"]).len(), urls.len());
    for (v, (_, expected)) in list(&file["urls"]["valid"]).iter().zip(urls) {
        assert_eq!(v["url"].as_str().unwrap().parse(), Ok(expected.clone()), "{v}");
        assert_eq!(v["canonical"].as_str().unwrap().parse(), Ok(expected), "{v}");
    }
    for v in list(&file["urls"]["invalid"]) {
        assert!(v["url"].as_str().unwrap().parse::<IcetUrl>().is_err(), "{v}");
    }
    for v in list(&file["protocol_names"]["valid"]) {
        assert!(v.as_str().unwrap().parse::<ProtocolName>().is_ok(), "{v}");
    }
    for v in list(&file["protocol_names"]["invalid"]) {
        assert!(v.as_str().unwrap().parse::<ProtocolName>().is_err(), "{v}");
    }
}

#[test]
fn page_sets_and_ranges() {
    let file = load("pages.json");
    let sets = names::sets();
    assert_eq!(list(&file["sets"]).len(), sets.len());
    for (v, (expected, end)) in list(&file["sets"]).iter().zip(sets) {
        let set: PageSet = frame::decode(&bytes(&v["hex"])).unwrap();
        assert_eq!(set, expected);
        assert_eq!(world::cbor(&set), bytes(&v["hex"]));
        assert_eq!(set.to_string(), v["text"]);
        assert_eq!(Some(set.count(end)), v["count"].as_u64());
    }
    for v in list(&file["ranges"]) {
        let ranges: PageRanges = frame::decode(&bytes(&v["hex"])).unwrap();
        assert_eq!(meaning::ranges(&ranges), v["runs"]);
        assert_eq!(world::cbor(&ranges), bytes(&v["hex"]));
    }
}

/// What pieces say when the stream comes in parts of `cut` bytes.
fn said(stream: &[u8], cut: usize) -> Result<Vec<stream::Said>, minicbor::decode::Error> {
    use stream::Said;
    let (mut reader, mut out) = (PieceReader::default(), Vec::new());
    for mut part in stream.chunks(cut) {
        while !part.is_empty() {
            let (piece, taken) = reader.read(part)?;
            match (piece, out.last_mut()) {
                (Some(Piece::Bytes(n)), Some(Said::Bytes(all))) => {
                    all.extend_from_slice(&part[taken - n..taken])
                }
                (Some(Piece::Bytes(n)), _) => out.push(Said::Bytes(part[taken - n..taken].to_vec())),
                (Some(piece), _) => out.push(Said::Piece(piece)),
                (None, _) => assert_eq!(taken, part.len(), "all is taken while it waits for more"),
            }
            part = &part[taken..];
        }
    }
    Ok(out)
}

#[test]
fn pages_over_a_stream() {
    let file = load("stream.json");
    let requests = stream::requests();
    assert_eq!(list(&file["requests"]).len(), requests.len());
    for (v, (name, expected)) in list(&file["requests"]).iter().zip(requests) {
        let body = bytes(&v["hex"]);
        assert_eq!(PagesRequest::from_body(&body).unwrap(), expected, "{name}");
        assert_eq!(world::cbor(&expected), body, "{name}");
    }
    let answers = stream::answers();
    assert_eq!(list(&file["answers"]).len(), answers.len());
    for (v, (name, expected)) in list(&file["answers"]).iter().zip(answers) {
        let body = bytes(&v["hex"]);
        assert_eq!(PagesAnswer::from_body(&body).unwrap(), expected, "{name}");
        assert_eq!(world::cbor(&expected), body, "{name}");
    }
    let sequences = stream::sequences();
    assert_eq!(list(&file["sequences"]).len(), sequences.len());
    for (v, (name, _, expected)) in list(&file["sequences"]).iter().zip(sequences) {
        let all = bytes(&v["hex"]);
        for cut in [1, 2, 3, 7, 100, all.len()] {
            assert_eq!(said(&all, cut).unwrap(), expected, "{name}, cut every {cut} bytes");
        }
    }
    for v in list(&file["invalid"]) {
        let (name, all) = (v["name"].as_str().unwrap(), bytes(&v["hex"]));
        match v["of"].as_str().unwrap() {
            "request" => assert!(PagesRequest::from_body(&all).is_err(), "{name}"),
            "answer" => assert!(PagesAnswer::from_body(&all).is_err(), "{name}"),
            _ => {
                for cut in [1, 4, all.len()] {
                    assert!(said(&all, cut).is_err(), "{name}, cut every {cut} bytes");
                }
            }
        }
    }
    // A piece that does not end is not collected without a bound.
    let endless = [&[0xa2, 1, 0, 2, 0x7b, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff][..], &[b'a'; 8192]].concat();
    assert!(said(&endless, 1).is_err() && said(&endless, 9000).is_err());
}
