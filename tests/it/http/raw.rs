//! The HTTP transport's server as strangers see it: requests as text, answers as text.

use std::net::SocketAddr;

use iceshare::icet::{NetKind, SignedManifest, media::Signed};
use iceshare::store::MediaStore;
use iceshare_tests::{PATIENCE, fixture};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{http, pair};
use crate::host::{Host, Made, content, give};

/// An answer, taken apart.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (n, value) = line.split_once(':')?;
            n.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }
}

/// Sends text, reads until the other end closes.
pub(super) async fn say(addr: SocketAddr, request: &str) -> Answer {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut got = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut got)).await.unwrap().unwrap();
    let end = got.windows(4).position(|w| w == b"\r\n\r\n").unwrap_or_else(|| panic!("no head: {got:?}"));
    let head = String::from_utf8(got[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head, body: got[end + 4..].to_vec() }
}

/// GET with further header lines.
pub(super) async fn get(addr: SocketAddr, target: &str, headers: &str) -> Answer {
    say(addr, &format!("GET {target} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{headers}\r\n")).await
}

const A: &str = "/music/a%20b.opus";

#[tokio::test]
async fn headers_are_as_specified() {
    let (host, media, _) = pair(Made::of(http())).await;
    let addr = host.addr(NetKind::Tcp);
    let (n, len) = (media.manifest().pages, media.manifest().bytes);
    let etag = format!("\"{}-{}\"", media.id(), media.manifest().version);
    let all = media.read(0, usize::try_from(len).unwrap()).unwrap();

    let whole = get(addr, A, "").await;
    assert_eq!((whole.status, &whole.body[..]), (200, &all[..]));
    assert_eq!(whole.header("etag"), Some(&etag[..]));
    assert_eq!(whole.header("accept-ranges"), Some("bytes, pages, proofs, t"));
    assert_eq!(whole.header("content-type"), Some("audio/ogg"));
    assert_eq!(whole.header("content-length"), Some(&len.to_string()[..]));
    let head =
        say(addr, &format!("HEAD {A} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nRange: bytes=0-1\r\n\r\n"))
            .await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("content-length"), Some(&len.to_string()[..]));

    let mapping = |a: &Answer| a.header("content-range-mapping").map(str::to_owned);
    for (range, status, content_range, body) in [
        ("bytes=0-99", 206, Some(format!("bytes 0-99/{len}")), &all[..100]),
        ("bytes=-10", 206, Some(format!("bytes {}-{}/{len}", len - 10, len - 1)), &all[all.len() - 10..]),
        ("bytes=99999999-", 416, Some(format!("bytes */{len}")), b"nothing lies in that range\n"),
        ("bytes=9-5", 200, None, &all),
        ("seconds=1-2", 200, None, &all),
        ("pages=2-3", 206, Some(format!("pages 2-3/{n}")), &content(&media, 2..4)),
        ("pages=-2", 206, Some(format!("pages {}-{}/{n}", n - 2, n - 1)), &content(&media, n - 2..n)),
        (
            "pages=5-9;stripe=1/2",
            206,
            Some(format!("pages 5-9/{n};stripe=1/2/1")),
            &content(&media, [5, 7, 9]),
        ),
        (
            "pages=4-9;stripe=1/2",
            206,
            Some(format!("pages 5-9/{n};stripe=1/2/1")),
            &content(&media, [5, 7, 9]),
        ),
        ("pages=0-1,4-5", 416, Some(format!("pages */{n}")), b"nothing lies in that range\n"),
        (&format!("pages={n}-"), 416, Some(format!("pages */{n}")), b"nothing lies in that range\n"),
        (
            "proofs=9999-9999",
            416,
            Some(format!("proofs */{}", media.manifest().slices())),
            b"nothing lies in that range\n",
        ),
    ] {
        let answer = get(addr, A, &format!("Range: {range}\r\n")).await;
        assert_eq!(answer.status, status, "{range}");
        assert_eq!(answer.header("content-range").map(str::to_owned), content_range, "{range}");
        assert!(answer.body == body, "{range}: {} bytes", answer.body.len());
        assert_eq!(mapping(&answer), None);
    }

    let time = get(addr, A, "Range: t:npt=2-3\r\n").await;
    let (a, b) = (media.page_at_time(2_000_000).unwrap(), media.page_at_time(2_999_999).unwrap());
    let (first, last) = (media.span(a).unwrap().offset, media.span(b).unwrap().end() - 1);
    assert_eq!((time.status, time.body), (206, content(&media, a..=b)));
    let bytes = format!("{first}-{last}/{len}");
    assert!(time.head.contains(&format!("bytes {bytes}")), "{}", time.head);
    let mapping = time.head.lines().find(|l| l.starts_with("content-range-mapping: { t:npt ")).unwrap();
    assert!(mapping.ends_with(&format!("}} = {{ bytes {bytes} }}")), "{mapping}");
    let behind = get(addr, A, "Range: t:npt=99999-\r\n").await;
    assert_eq!(behind.status, 416);
    assert!(behind.header("content-range").unwrap().starts_with("t:npt */"));
}

#[tokio::test]
async fn several_ranges_and_setup_pages_come_as_multipart() {
    let (host, media, _) = pair(Made::of(http())).await;
    let addr = host.addr(NetKind::Tcp);
    let len = media.manifest().bytes;
    let parts = |answer: &Answer, media: &MediaStore| {
        assert_eq!(answer.status, 206, "{}", answer.head);
        let boundary = answer.header("content-type").unwrap().split_once("boundary=").unwrap().1.to_owned();
        assert!(answer.body.ends_with(format!("\r\n--{boundary}--\r\n").as_bytes()));
        let mut out = Vec::new();
        let mut rest = &answer.body[..];
        let open = format!("--{boundary}\r\n");
        while let Some(at) = rest.windows(open.len()).position(|w| w == open.as_bytes()) {
            rest = &rest[at + open.len()..];
            let end = rest.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
            let head = String::from_utf8(rest[..end].to_vec()).unwrap();
            let range = head.lines().find_map(|l| l.strip_prefix("Content-Range: bytes ")).unwrap();
            let (first, last) = range.split_once('/').unwrap().0.split_once('-').unwrap();
            let (first, last): (u64, u64) = (first.parse().unwrap(), last.parse().unwrap());
            let n = usize::try_from(last - first + 1).unwrap();
            rest = &rest[end + 4..];
            assert!(rest[..n] == media.read(first, n).unwrap());
            out.push((first, last));
        }
        out
    };
    let several = get(addr, A, "Range: bytes=0-9, 100-199,-5\r\n").await;
    assert_eq!(parts(&several, &media), [(0, 9), (100, 199), (len - 5, len - 1)]);
    let overlapping = get(addr, A, "Range: bytes=0-9,5-12\r\n").await;
    assert_eq!((overlapping.status, overlapping.body.len() as u64), (200, len));
    let one_of_two = get(addr, A, "Range: bytes=0-9,99999999-\r\n").await;
    assert_eq!((one_of_two.status, one_of_two.body.len()), (206, 10));

    let setup_end = media.span(media.manifest().setup - 1).unwrap().end() - 1;
    let time = get(addr, A, "Range: t:npt=2-3;include-setup\r\n").await;
    let ranges = parts(&time, &media);
    assert_eq!((ranges.len(), ranges[0]), (2, (0, setup_end)));
    assert!(time.header("content-range-mapping").unwrap().contains(";include-setup } = { bytes 0-"));
    // From the beginning the setup pages adjoin: one range.
    let time = get(addr, A, "Range: t:npt=0-1;include-setup\r\n").await;
    assert_eq!(time.status, 206);
    assert!(time.header("content-range").unwrap().starts_with("bytes 0-"));

    // Of a chained file, those of the link that sounds then: the second one of four, with two setup pages from page 7 on.
    let chained = host.publish(&fixture("chained-codecs.ogg"), "chained.ogg");
    let at = |page| chained.span(page).unwrap().offset;
    let page = chained.page_at_time(4_000_000).unwrap();
    assert!(page > 9 && page < 19);
    let time = get(addr, "/chained.ogg", "Range: t:npt=4-4.1;include-setup\r\n").await;
    assert_eq!(parts(&time, &chained), [(at(7), at(9) - 1), (at(page), at(page + 1) - 1)]);
    let time = get(addr, "/chained.ogg", "Range: t:npt=3-4.1;include-setup\r\n").await;
    assert_eq!(
        time.header("content-range"),
        Some(&format!("bytes {}-{}/{}", at(7), at(page + 1) - 1, chained.manifest().bytes)[..])
    );
}

#[tokio::test]
async fn conditions_are_honoured() {
    let (host, media, _) = pair(Made::of(http())).await;
    let addr = host.addr(NetKind::Tcp);
    let etag = format!("\"{}-{}\"", media.id(), media.manifest().version);
    let range = "Range: bytes=0-9\r\n";
    for (condition, status) in [
        (format!("If-Range: {etag}\r\n{range}"), 206),
        (format!("If-Range: \"other\"\r\n{range}"), 200),
        (format!("If-Range: W/{etag}\r\n{range}"), 200),
        (format!("If-Range: Sun, 06 Nov 1994 08:49:37 GMT\r\n{range}"), 200),
        (format!("If-None-Match: \"x\", {etag}\r\n"), 304),
        (format!("If-None-Match: W/{etag}\r\n"), 304),
        ("If-None-Match: \"x\"\r\n".to_owned(), 200),
        (format!("If-Match: {etag}\r\n{range}"), 206),
        (format!("If-Match: W/{etag}\r\n"), 412),
        ("If-Match: \"x\"\r\n".to_owned(), 412),
        ("If-Match: *\r\n".to_owned(), 200),
    ] {
        let answer = get(addr, A, &condition).await;
        assert_eq!(answer.status, status, "{condition}");
        assert_eq!(answer.header("etag"), Some(&etag[..]), "{condition}");
        assert!(status != 304 || answer.body.is_empty());
    }
    let manifest = get(addr, A, "Accept: text/html, application/vnd.iceshare.manifest+cbor;q=0.9\r\n").await;
    let signed: Signed = iceshare::icet::frame::decode(&manifest.body).unwrap();
    assert_eq!(&SignedManifest::verify(signed).unwrap(), media.manifest());
    assert_ne!(manifest.header("etag"), Some(&etag[..]), "another representation");
}

#[tokio::test]
async fn hostile_requests_get_short_answers() {
    let (host, _media, _) = pair(Made::of(http())).await;
    let addr = host.addr(NetKind::Tcp);
    for (target, status) in [
        ("/", 404),
        ("/music/none.opus", 404),
        ("/../../etc/passwd", 400),
        ("/music/%2e%2e/%2e%2e/etc/passwd", 400),
        ("/music%2F..%2Fa", 400),
        ("//music/a%20b.opus", 400),
        ("/music/a%20b.opus/", 400),
        ("/music/%00", 400),
        ("/music/%0d%0aX:%20y", 400),
        ("/music/%ff", 400),
        ("/music/%2", 400),
        ("/music/a%5cb", 400),
        // Decoded once, not twice.
        ("/music/a%2520b.opus", 404),
        ("/music/a%20b.opus?token=x", 200),
    ] {
        let answer = get(addr, target, "Range: pages=0-0,1-1, garbage\r\n").await;
        let status = if status == 200 { 416 } else { status };
        assert_eq!(answer.status, status, "{target}");
        assert!(answer.body.len() < 200, "{target}");
    }
    let long = format!("/{}", "a".repeat(5000));
    assert_eq!(get(addr, &long, "").await.status, 400);
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"] {
        let answer =
            say(addr, &format!("{method} {A} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")).await;
        assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD")), "{method}");
    }
    for token in ["Bearer", "Bearer !!", "Basic eDp5", "Bearer gA"] {
        let answer = get(addr, A, &format!("Authorization: {token}\r\n")).await;
        assert_eq!(answer.status, 401, "{token}");
        assert!(answer.header("www-authenticate").unwrap().contains("invalid_token"));
    }
    // Which of two is meant, nobody knows.
    for twice in ["Range: bytes=0-1\r\nRange: bytes=3-4\r\n", "Host: other\r\n"] {
        assert_eq!(get(addr, A, twice).await.status, 400, "{twice}");
    }
    // RFC 9112, section 3.2; HTTP/1.0 knows no Host.
    for (version, status) in [("1.1", 400), ("1.0", 200)] {
        let request = format!("GET {A} HTTP/{version}\r\nConnection: close\r\n\r\n");
        assert_eq!(say(addr, &request).await.status, status, "HTTP/{version}");
    }
}

#[tokio::test]
async fn what_is_not_held_is_told_or_waited_for() {
    let (_host, media, _) = pair(Made::of(http())).await;
    let partial = Host::start(3, Made { settings: vec![("stall-timeout", "1")], ..Made::of(http()) }).await;
    let part = partial.join(&media);
    give(&media, &part, 0, 4);
    let addr = partial.addr(NetKind::Tcp);
    let (n, len) = (media.manifest().pages, media.manifest().bytes);
    let missing = get(addr, A, "Range: pages=7-9\r\n").await;
    assert_eq!((missing.status, missing.header("iceshare-missing-page")), (503, Some("7")));
    assert!(missing.header("retry-after").is_some());
    let some = get(addr, A, "Range: pages=3-9\r\n").await;
    assert_eq!(some.header("content-range"), Some(&format!("pages 3-4/{n}")[..]));
    let some = get(addr, A, &format!("Range: bytes=0-{}\r\n", len - 1)).await;
    let end = media.span(4).unwrap().end();
    assert_eq!(some.header("content-range"), Some(&format!("bytes 0-{}/{len}", end - 1)[..]));
    assert!(some.body == content(&media, 0..5));
    // An open end is promised whole, and broken off when nothing comes for the time set.
    let open = get(addr, A, "Range: bytes=0-\r\n").await;
    assert_eq!(open.header("content-range"), Some(&format!("bytes 0-{}/{len}", len - 1)[..]));
    assert!(open.body == content(&media, 0..5));
    let open = get(addr, A, "Range: pages=0-\r\n").await;
    assert_eq!(open.header("content-range"), Some(&format!("pages 0-{}/{n}", n - 1)[..]));
    assert!(open.header("content-length").is_none() && !open.body.ends_with(b"0\r\n\r\n"), "no last chunk");
}
