//! A host and a receiver with a pipe between them, and each against one that lies.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use icet::stream::{Accepted, EndCode, Ending, PagesAnswer, PagesRequest, Piece as Said, Span, What};
use icet::{Abilities, HostAddr, MediaId, PageSet, PeerKey, ProvenSlice, Stripe, frame};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, DuplexStream, ReadBuf, duplex};

use super::*;
use crate::protocol::{Piece, Request, TransportError};
use crate::serve::tests::Host;

const PATIENCE: Duration = Duration::from_secs(20);

fn server(host: &Host) -> Server {
    Server { shelf: host.shelf.clone(), protocol: host.protocol.clone(), timing: Timing::default() }
}

fn request(host: &Host, what: What) -> Request {
    Request {
        host: HostAddr {
            key: PeerKey([2; 32]),
            protocol: host.protocol.clone(),
            addrs: Vec::new(),
            endpoint: String::new(),
            abilities: Abilities(u32::MAX),
        },
        path: host.media.path().clone(),
        media: host.media.id(),
        version: 1,
        what,
        ticket: None,
    }
}

fn pages(first: u64, last: u64) -> What {
    What::Pages(PageSet::range(first, last))
}

/// The pieces, and how the stream ended.
async fn drain(stream: DuplexStream, request: &Request) -> (Vec<Piece>, Result<(), TransportError>) {
    let (inbound, outbound) = halves(stream);
    let mut pieces = match ask(inbound, outbound, request, PATIENCE).await {
        Ok(answer) => answer.into_stream(),
        Err(e) => return (Vec::new(), Err(e)),
    };
    let mut all = Vec::new();
    while let Some(piece) = pieces.next().await {
        match piece {
            Ok(piece) => all.push(piece),
            Err(e) => return (all, Err(e)),
        }
    }
    (all, Ok(()))
}

/// Through a pipe that holds so many bytes.
async fn fetch(host: &Host, what: What, room: usize) -> (Vec<Piece>, Result<(), ErrorKind>) {
    let (ours, theirs) = duplex(room);
    let server = server(host);
    let (inbound, outbound) = halves(theirs);
    let served = tokio::spawn(async move { server.answer(inbound, outbound, None).await });
    let request = request(host, what);
    let (pieces, end) = drain(ours, &request).await;
    assert!(served.await.unwrap().is_ok());
    (pieces, end.map_err(|e| e.kind))
}

fn bytes(pieces: &[Piece]) -> Vec<u8> {
    let bytes = pieces.iter().filter_map(|p| if let Piece::Bytes(b) = p { Some(&b[..]) } else { None });
    bytes.collect::<Vec<_>>().concat()
}

fn marks(pieces: &[Piece]) -> Vec<u64> {
    pieces.iter().filter_map(|p| if let Piece::Page(p) = p { Some(*p) } else { None }).collect()
}

#[tokio::test]
async fn spans_come_as_fragments_however_the_bytes_are_cut() {
    let host = Host::new(&[(0, 9)]);
    let span = |page, offset, len| Span { page, offset, len };
    let asked = vec![span(3, 5, 10), span(3, 20, 7), span(7, 0, 30), span(10, 0, 1)];
    for room in [1, 3, 1000] {
        let (pieces, end) = fetch(&host, What::Spans(asked.clone()), room).await;
        assert_eq!(end, Err(ErrorKind::NoRange), "page 10 is not held");
        let mut got = vec![Vec::new(); 3];
        for piece in pieces {
            let Piece::Fragment { page, offset, bytes } = piece else { panic!("{piece:?}") };
            let at =
                asked.iter().position(|s| s.page == page && (s.offset..s.offset + s.len).contains(&offset));
            let at = at.unwrap();
            assert_eq!(got[at].len(), (offset - asked[at].offset) as usize);
            got[at].extend_from_slice(&bytes);
        }
        for (s, got) in asked.iter().zip(got) {
            let page = &host.fixture.run(s.page, s.page)[0];
            assert_eq!(got, page[s.offset as usize..(s.offset + s.len) as usize]);
        }
    }
}

#[tokio::test]
async fn what_is_asked_for_comes() {
    let host = Host::new(&[(0, 639)]);
    let run = |a, b| host.fixture.run(a, b).concat();
    let whole = host.fixture.bytes();
    for room in [1, 100, 1 << 20] {
        let (pieces, end) = fetch(&host, pages(10, 19), room).await;
        assert_eq!((marks(&pieces), end), (vec![10], Ok(())));
        assert!(bytes(&pieces) == run(10, 19), "through a pipe of {room} bytes");
    }
    let (pieces, end) = fetch(&host, pages(600, 700), 4096).await;
    assert_eq!((bytes(&pieces), end), (run(600, 639), Ok(())));
    let (pieces, end) = fetch(&host, What::Bytes { first: 5, last: None }, 1 << 16).await;
    assert!(bytes(&pieces) == whole[5..] && end.is_ok() && marks(&pieces).is_empty());
    let (pieces, end) = fetch(&host, What::Time { from: 40_000, to: Some(80_000) }, 4096).await;
    assert_eq!((marks(&pieces), bytes(&pieces), end), (vec![2], run(2, 3), Ok(())));
    let set = PageSet { first: 0, last: None, stripe: Stripe::new(1, 3, 2) };
    let (pieces, end) = fetch(&host, What::Pages(set), 4096).await;
    let want: Vec<u64> = set.iter(640).collect();
    assert!(bytes(&pieces) == want.iter().flat_map(|p| run(*p, *p)).collect::<Vec<u8>>() && end.is_ok());
    assert_eq!(marks(&pieces), want.iter().copied().step_by(2).collect::<Vec<u64>>());
    let (pieces, end) = fetch(&host, What::Proofs { first: 1, last: 3 }, 4096).await;
    let proofs: Vec<u8> =
        (1..=3).flat_map(|i| frame::encode::<ProvenSlice>(&host.fixture.proven(i))).collect();
    assert_eq!((bytes(&pieces), end), (proofs, Ok(())));
}

#[tokio::test]
async fn what_is_not_held_is_passed_over_and_told() {
    let host = Host::new(&[(10, 14), (17, 19)]);
    let run = |a, b| host.fixture.run(a, b).concat();
    let (pieces, end) = fetch(&host, pages(10, 25), 4096).await;
    assert_eq!((marks(&pieces), end), (vec![10, 17], Err(ErrorKind::NoRange)));
    assert_eq!(bytes(&pieces), [run(10, 14), run(17, 19)].concat());
    for what in [pages(0, 9), pages(640, 640), What::Bytes { first: 0, last: Some(9) }] {
        assert_eq!(fetch(&host, what, 4096).await, (Vec::new(), Err(ErrorKind::NoRange)));
    }
    let mut other = request(&host, pages(10, 10));
    other.version = 2;
    let (ours, theirs) = duplex(4096);
    let (inbound, outbound) = halves(theirs);
    let (server, asked) = (server(&host), drain(ours, &other));
    let (served, asked) = tokio::join!(server.answer(inbound, outbound, None), asked);
    assert!(served.is_ok() && asked.1.is_err_and(|e| e.kind == ErrorKind::NoMedia));
}

/// What a host answers to these bytes, if the sender ends after them; and how it ended.
async fn raw(host: &Host, sent: Vec<u8>, end: bool) -> (Vec<u8>, Result<(), Ended>) {
    let (mut ours, theirs) = duplex(1 << 16);
    let (inbound, outbound) = halves(theirs);
    let server = server(host);
    let served = tokio::spawn(async move { server.answer(inbound, outbound, None).await });
    let _ = ours.write_all(&sent).await;
    if end {
        ours.shutdown().await.unwrap();
    }
    let mut got = Vec::new();
    ours.read_to_end(&mut got).await.unwrap();
    (got, served.await.unwrap())
}

#[tokio::test(start_paused = true)]
async fn bad_requests_are_refused() {
    let host = Host::new(&[(0, 639)]);
    let r = request(&host, pages(10, 19));
    let wire = PagesRequest { path: r.path, media: r.media, version: 1, what: r.what, ticket: None };
    let mut good = Vec::new();
    frame::write(&wire, &mut good);
    let mut more = good.clone();
    more.push(0);
    for bad in [b"GET / HTTP/1.1\r\n\r\n".to_vec(), vec![0, 0, 0x10, 1], vec![0, 0, 0, 1, 0], more] {
        let (got, ended) = raw(&host, bad.clone(), true).await;
        assert!(matches!(ended, Err(Ended::Breach(_))), "{bad:?}");
        let answer = PagesAnswer::from_body(icet::stream::split(&got).unwrap().unwrap().0);
        assert!(matches!(answer, Ok(PagesAnswer::Refused(e)) if e.code == EndCode::BAD_REQUEST), "{bad:?}");
    }
    // Cut off, and silent.
    for cut in [0, 3, good.len() - 1] {
        let (got, ended) = raw(&host, good[..cut].to_vec(), true).await;
        assert!(matches!((&got[..], ended), ([], Err(Ended::Stopped))));
        let before = tokio::time::Instant::now();
        let (got, ended) = raw(&host, good[..cut].to_vec(), false).await;
        assert!(matches!((&got[..], ended), ([], Err(Ended::Slow))));
        assert_eq!(before.elapsed(), Timing::default().request);
    }
    assert!(raw(&host, good, false).await.1.is_ok(), "the end of the direction is not waited for");
}

#[tokio::test(start_paused = true)]
async fn who_does_not_read_is_given_up() {
    let host = Host::new(&[(0, 639)]);
    let (ours, theirs) = duplex(5000);
    let server = server(&host);
    let (inbound, outbound) = halves(theirs);
    let served = tokio::spawn(async move { server.answer(inbound, outbound, None).await });
    let (inbound, outbound) = halves(ours);
    let request = request(&host, What::Bytes { first: 0, last: None });
    let answer = ask(inbound, outbound, &request, PATIENCE).await;
    assert!(matches!(served.await.unwrap(), Err(Ended::Slow)));
    drop(answer);
}

#[tokio::test]
async fn a_dropped_answer_ends_the_request() {
    let host = Host::new(&[(0, 639)]);
    let (ours, theirs) = duplex(5000);
    let server = server(&host);
    let (inbound, outbound) = halves(theirs);
    let served = tokio::spawn(async move { server.answer(inbound, outbound, None).await });
    let (inbound, outbound) = halves(ours);
    let request = request(&host, What::Bytes { first: 0, last: None });
    drop(ask(inbound, outbound, &request, PATIENCE).await);
    assert!(matches!(served.await.unwrap(), Err(Ended::Lost(_))));
}

/// What a receiver makes of an answer with these pieces.
async fn against(what: What, accepted: What, total: u64, pieces: &[&[u8]]) -> (usize, Result<(), ErrorKind>) {
    let mut answer = Vec::new();
    frame::write(&PagesAnswer::Accepted(Accepted { what: accepted, total }), &mut answer);
    pieces.iter().for_each(|p| answer.extend_from_slice(p));
    heard(what, answer).await
}

async fn heard(what: What, answer: Vec<u8>) -> (usize, Result<(), ErrorKind>) {
    let (ours, mut theirs) = duplex(1 << 20);
    theirs.write_all(&answer).await.unwrap();
    theirs.shutdown().await.unwrap();
    let request = Request {
        host: HostAddr {
            key: PeerKey([2; 32]),
            protocol: "test".parse().unwrap(),
            addrs: Vec::new(),
            endpoint: String::new(),
            abilities: Abilities(0),
        },
        path: "a".parse().unwrap(),
        media: MediaId([1; 32]),
        version: 1,
        what,
        ticket: None,
    };
    let (pieces, end) = drain(ours, &request).await;
    (bytes(&pieces).len(), end.map_err(|e| e.kind))
}

#[tokio::test]
async fn hosts_that_lie_are_found_out() {
    use ErrorKind::{Broken, Busy, Denied, NoRange, Protocol};
    let end = frame::encode(&Ending::new(EndCode::COMPLETE, ""));
    let late = frame::encode(&Ending::new(EndCode::DENIED, "spent"));
    let hello = [&Said::bytes_head(5)[..], b"hello"].concat();
    let mark = Said::page_mark;
    let (end, hello) = (&end[..], &hello[..]);
    let some = || What::Bytes { first: 0, last: Some(9) };
    let bytes = |first, last| What::Bytes { first, last: Some(last) };
    let open = || What::Bytes { first: 0, last: None };
    // Well done.
    assert_eq!(against(some(), some(), 99, &[hello, hello, end]).await, (10, Ok(())));
    assert_eq!(against(pages(1, 9), pages(1, 9), 99, &[&mark(1), hello, end]).await, (5, Ok(())));
    assert_eq!(against(pages(1, 9), pages(1, 5), 6, &[&mark(1), hello, end]).await, (5, Ok(())));
    assert_eq!(against(open(), some(), 10, &[hello, hello, end]).await, (10, Ok(())));
    assert_eq!(
        against(pages(1, 9), pages(1, 9), 99, &[&mark(1), hello, &[0xf6], hello, end]).await,
        (10, Ok(()))
    );
    // A part, and what breaks off.
    assert_eq!(against(pages(1, 9), pages(1, 5), 99, &[&mark(1), hello, end]).await, (5, Err(NoRange)));
    assert_eq!(against(some(), bytes(0, 4), 99, &[hello, end]).await, (5, Err(NoRange)));
    assert_eq!(against(some(), some(), 99, &[hello]).await, (5, Err(Broken)));
    assert_eq!(against(some(), some(), 99, &[hello, end]).await, (5, Err(Broken)));
    assert_eq!(against(some(), some(), 99, &[hello, &late]).await, (5, Err(Denied)));
    // What was not asked for.
    let striped = What::Pages(PageSet { first: 1, last: Some(9), stripe: Stripe::new(1, 4, 1) });
    for (asked, accepted, total) in [
        (some(), bytes(1, 9), 99),
        (some(), bytes(0, 10), 99),
        (some(), bytes(0, 9), 9),
        (some(), open(), 99),
        (some(), pages(0, 9), 99),
        (pages(1, 9), pages(0, 9), 99),
        (pages(1, 9), pages(1, 10), 99),
        (pages(1, 9), pages(1, 9), 9),
        (pages(1, 9), striped.clone(), 99),
        (striped, pages(1, 9), 99),
        (pages(1, 9), What::Pages(PageSet { first: 1, last: None, stripe: None }), 99),
        (What::Time { from: 5, to: Some(9) }, What::Time { from: 5, to: Some(10) }, 99),
        (What::Proofs { first: 1, last: 2 }, What::Proofs { first: 1, last: 3 }, 99),
    ] {
        let got = against(asked.clone(), accepted.clone(), total, &[end]).await;
        assert_eq!(got, (0, Err(Protocol)), "asked {asked:?}, accepted {accepted:?} of {total}");
    }
    // Pieces out of place, too many, none.
    let pieces: &[(&[&[u8]], usize)] = &[
        (&[hello, end], 0),
        (&[&mark(10), hello, end], 0),
        (&[&mark(0), hello, end], 0),
        (&[&mark(3), hello, &mark(3), hello, end], 5),
        (&[&mark(3), hello, &mark(2), hello, end], 5),
        (&[&mark(3), hello, end, end], 5),
        (&[&mark(3), hello, end, hello], 5),
        (&[&mark(3), &[0x60], end], 0),
    ];
    for (pieces, got) in pieces {
        assert_eq!(against(pages(1, 9), pages(1, 9), 99, pieces).await, (*got, Err(Protocol)), "{pieces:?}");
    }
    assert_eq!(against(some(), some(), 99, &[hello, hello, hello, end]).await, (10, Err(Protocol)));
    assert_eq!(against(some(), some(), 99, &[&mark(0), hello, hello, end]).await, (0, Err(Protocol)));
    let long = [&Said::bytes_head(65_308)[..], &[0; 65_308]].concat();
    assert_eq!(against(pages(1, 1), pages(1, 1), 99, &[&mark(1), &long, end]).await.1, Err(Protocol));
    // No answer at all.
    assert_eq!(heard(some(), Vec::new()).await, (0, Err(Broken)));
    assert_eq!(heard(some(), b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()).await, (0, Err(Protocol)));
    assert_eq!(heard(some(), vec![0, 0, 0, 3, 1, 2, 3]).await, (0, Err(Protocol)));
    let mut refused = Vec::new();
    frame::write(&PagesAnswer::Refused(Ending::new(EndCode::BUSY, "")), &mut refused);
    assert_eq!(heard(some(), refused).await, (0, Err(Busy)));
}

#[tokio::test(start_paused = true)]
async fn a_silent_host_is_given_up() {
    let (ours, _theirs) = duplex(1 << 16);
    let host = Host::new(&[]);
    let end = drain(ours, &request(&host, pages(0, 1))).await.1;
    assert!(end.is_err_and(|e| e.kind == ErrorKind::Broken));
}

/// Counts what is written in one go.
#[derive(Default)]
struct Writes(Vec<usize>);

impl tokio::io::AsyncWrite for Writes {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        buf: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        self.0.push(buf.len());
        std::task::Poll::Ready(Ok(buf.len()))
    }
    fn poll_flush(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }
    fn poll_shutdown(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn small_chunks_do_not_travel_alone() {
    let mut out = IoWrite::new(Writes::default());
    let mut chunks = [Bytes::from_static(b"head"), Bytes::from(vec![0; 100_000])];
    while chunks.iter().any(|c| !c.is_empty()) {
        out.write(&mut chunks).await.unwrap();
    }
    let writes = &out.get_ref().0;
    assert_eq!(writes.iter().sum::<usize>(), 100_004);
    assert!(writes[0] > 4 && writes.len() == 2, "{writes:?}");
}

/// Gives what stands in it, one after the other; none: nothing is there now.
struct Script(VecDeque<Option<io::Result<Vec<u8>>>>);

impl AsyncRead for Script {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.0.pop_front() {
            Some(Some(Ok(bytes))) => into.put_slice(&bytes),
            Some(Some(Err(e))) => return Poll::Ready(Err(e)),
            Some(None) => {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            None => {}
        }
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn all_that_is_there_comes_at_once_and_an_error_behind_it() {
    let some = |n: usize, b: u8| Some(Ok(vec![b; n]));
    let broken = Some(Err(io::ErrorKind::ConnectionReset.into()));
    let script = [None, some(3000, 1), some(3000, 2), None, some(5, 3), some(6, 4), broken];
    let mut read = IoRead::new(Script(script.into()));
    let first = read.read().await.unwrap().unwrap();
    assert_eq!(first.len(), 6000);
    assert!(first[..3000].iter().all(|b| *b == 1) && first[3000..].iter().all(|b| *b == 2));
    assert_eq!(read.read().await.unwrap().unwrap(), &[3, 3, 3, 3, 3, 4, 4, 4, 4, 4, 4][..]);
    assert!(matches!(read.read().await, Err(Lost::Broken(e)) if e.kind() == io::ErrorKind::ConnectionReset));
    assert!(read.read().await.unwrap().is_none());
}

#[tokio::test]
async fn a_buffer_comes_back_when_nobody_holds_its_bytes() {
    let mut read =
        IoRead::new(Script((0..5).map(|i| Some(Ok(vec![i; 8000]))).flat_map(|s| [s, None]).collect()));
    let first = read.read().await.unwrap().unwrap();
    let at = first.as_ptr();
    let second = read.read().await.unwrap().unwrap();
    assert_ne!(second.as_ptr(), at, "it is still held");
    drop(first);
    let third = read.read().await.unwrap().unwrap();
    assert_eq!((third.as_ptr(), &third[..]), (at, &[2; 8000][..]));
    assert_eq!(second, &[1; 8000][..]);
    drop(read);
    assert_eq!(third, &[2; 8000][..], "it outlives its reader");
}
