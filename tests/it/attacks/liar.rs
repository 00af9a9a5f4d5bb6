//! A host that lies: it says that it holds a file, and serves over HTTP something else.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use iceshare::net::Net;
use iceshare::ogg::page;
use icet::message::{Intent, ToPeer};
use icet::{PageRanges, PeerKey};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::stranger::{self, Stranger, read};

/// How it lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lie {
    /// Alters a byte of every third page.
    Alter,
    /// The same, and mends the page's checksum.
    AlterAndMend,
    /// Alters the beginning of the second page that it is asked for, and breaks off in the middle of it.
    BreakOff,
    /// Holds nothing at all.
    Absent,
    /// Sends what it is asked for, unaltered, by drops.
    Drip(Drops),
}

/// How a host drips.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Drops {
    /// Bytes of pages that it sends at once.
    pub(super) free: usize,
    /// Then so many at a time, so often.
    pub(super) each: usize,
    pub(super) every: Duration,
    /// Whether the head of the answer drips, too.
    pub(super) head: bool,
}

/// What it serves, and what it was asked for.
pub(super) struct Wares {
    file: Vec<u8>,
    pages: Vec<Range<usize>>,
    lie: Lie,
    /// Requests for pages.
    pub(super) asked: AtomicU64,
    /// Altered pages that went out.
    pub(super) altered: AtomicU64,
}

pub(super) struct Liar {
    pub(super) wares: Arc<Wares>,
    pub(super) key: PeerKey,
    _net: Net,
    _session: tokio::task::JoinHandle<()>,
}

/// Where the pages of a sound file lie.
pub(super) fn pages(file: &[u8]) -> Vec<Range<usize>> {
    let (mut at, mut out) = (0, Vec::new());
    while at < file.len() {
        let len = page::PageHeader::parse(&file[at..]).expect("a page").total_len();
        out.push(at..at + len);
        at += len;
    }
    out
}

impl Liar {
    /// Joins the swarm of `path` at the tracker, with a full page map, and waits until its address is proved.
    pub(super) async fn join(tracker: &str, path: &str, file: &Path, lie: Lie) -> Liar {
        Liar::join_as(0xbb, tracker, path, file, lie).await
    }

    /// The same with a key made of `seed`.
    pub(super) async fn join_as(seed: u8, tracker: &str, path: &str, file: &Path, lie: Lie) -> Liar {
        let net = stranger::net(seed).await;
        let file = read(file);
        let pages = pages(&file);
        let wares =
            Arc::new(Wares { file, pages, lie, asked: AtomicU64::new(0), altered: AtomicU64::new(0) });
        let cx = net.context(stranger::http());
        let mut incoming = cx.accept_tcp(|first| first.first().is_some_and(u8::is_ascii_uppercase));
        let serving = wares.clone();
        tokio::spawn(async move {
            while let Some((stream, _)) = incoming.recv().await {
                tokio::spawn(serve(serving.clone(), stream));
            }
        });
        let mut session = Stranger::meet(&net, tracker, net.local_addrs()).await;
        let tcp = net.local_addrs().into_iter().find(|a| a.kind == icet::NetKind::Tcp).expect("a TCP port");
        session
            .until("a proof of the address", |m| {
                matches!(m, ToPeer::ReachResult(r) if r.addr == tcp && r.proved).then_some(())
            })
            .await;
        let last = wares.pages.len() as u64 - 1;
        session.join(path, PageRanges::one(0, last), Intent::Share).await;
        let key = net.key();
        // It listens to nothing that the tracker says.
        let session = tokio::spawn(async move {
            session.linger().await;
        });
        Liar { wares, key, _net: net, _session: session }
    }

    pub(super) fn asked(&self) -> u64 {
        self.wares.asked.load(Ordering::Relaxed)
    }

    pub(super) fn altered(&self) -> u64 {
        self.wares.altered.load(Ordering::Relaxed)
    }
}

/// Answers requests for pages until the other end goes.
async fn serve(wares: Arc<Wares>, mut stream: TcpStream) -> Option<()> {
    let mut buffer = Vec::new();
    loop {
        let end = loop {
            if let Some(i) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                break i + 4;
            }
            if stream.read_buf(&mut buffer).await.ok()? == 0 {
                return None;
            }
        };
        let head = String::from_utf8_lossy(&buffer[..end]).to_ascii_lowercase();
        buffer.drain(..end);
        wares.asked.fetch_add(1, Ordering::Relaxed);
        let answer = wares.answer(&head);
        let Lie::Drip(drops) = wares.lie else {
            stream.write_all(&answer).await.ok()?;
            if wares.lie == Lie::BreakOff {
                return None;
            }
            continue;
        };
        let body = answer.windows(4).position(|w| w == b"\r\n\r\n").map_or(0, |i| i + 4);
        let (free, rest) =
            answer.split_at(if drops.head { 0 } else { (body + drops.free).min(answer.len()) });
        stream.write_all(free).await.ok()?;
        let mut pace = tokio::time::interval(drops.every);
        for drop in rest.chunks(drops.each) {
            pace.tick().await;
            stream.write_all(drop).await.ok()?;
        }
    }
}

impl Wares {
    fn answer(&self, head: &str) -> Vec<u8> {
        let range = head.split("range: pages=").nth(1).and_then(|r| r.lines().next());
        let range = range.and_then(|r| r.trim().split_once('-'));
        let ends = range.and_then(|(a, b)| Some((a.parse().ok()?, b.parse().unwrap_or(usize::MAX))));
        let Some((first, last)) = ends.filter(|_| self.lie != Lie::Absent) else {
            return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec();
        };
        let last = last.min(self.pages.len() - 1);
        let whole: usize = self.pages[first..=last].iter().map(Range::len).sum();
        let mut body = Vec::new();
        if self.lie == Lie::BreakOff && first < last {
            self.altered.fetch_add(1, Ordering::Relaxed);
            body.extend(&self.file[self.pages[first].clone()]);
            let second = &self.file[self.pages[first + 1].clone()];
            body.extend(&second[..second.len() / 2]);
            let end = body.len() - 1;
            body[end] ^= 1;
            let head = format!(
                "HTTP/1.1 206 Partial Content\r\nContent-Range: pages {first}-{last}/{}\r\nContent-Length: {whole}\r\n\r\n",
                self.pages.len()
            );
            return [head.into_bytes(), body].concat();
        }
        for (n, range) in self.pages.iter().enumerate().take(last + 1).skip(first) {
            let mut page = self.file[range.clone()].to_vec();
            if n % 3 == 1 && !matches!(self.lie, Lie::Drip(_)) {
                self.altered.fetch_add(1, Ordering::Relaxed);
                let end = page.len() - 1;
                page[end] ^= 1;
                if self.lie == Lie::AlterAndMend {
                    page[22..26].fill(0);
                    let crc = page::crc(&page).to_le_bytes();
                    page[22..26].copy_from_slice(&crc);
                    assert!(page::verify(&page));
                }
            }
            body.extend(page);
        }
        let mut answer = format!(
            "HTTP/1.1 206 Partial Content\r\nContent-Range: pages {first}-{last}/{}\r\nContent-Length: {}\r\n\r\n",
            self.pages.len(),
            body.len()
        )
        .into_bytes();
        answer.extend(body);
        answer
    }
}
