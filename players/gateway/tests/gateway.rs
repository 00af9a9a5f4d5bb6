//! The gateway over real sockets, with media that arrives when the test says so.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use iceshare_gateway::{Gateway, Offered, Playable, Reader, Sender, Stats, Table};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncSeek, AsyncWriteExt, BufReader, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;

/// Media in memory: bytes before `there` can be read, a read of later ones waits.
struct Memory {
    data: Vec<u8>,
    there: Mutex<(u64, bool, Vec<Waker>)>,
    /// Bytes that readers gave out.
    read: AtomicU64,
    /// Readers opened and dropped so far.
    closed: watch::Sender<u64>,
}

#[derive(Clone)]
struct Handle(Arc<Memory>);

impl Handle {
    fn new(length: usize, there: u64) -> Handle {
        let data = (0..length).map(|i| u8::try_from((i * 7 + i / 251) % 256).expect("below 256")).collect();
        let there = Mutex::new((there, false, vec![]));
        Handle(Arc::new(Memory { data, there, read: AtomicU64::new(0), closed: watch::channel(0).0 }))
    }

    fn arrive(&self, there: u64) {
        let mut state = self.0.there.lock().expect("lock");
        state.0 = there;
        state.2.drain(..).for_each(Waker::wake);
    }

    fn fail(&self) {
        let mut state = self.0.there.lock().expect("lock");
        state.1 = true;
        state.2.drain(..).for_each(Waker::wake);
    }

    fn bytes(&self, first: usize, last: usize) -> &[u8] {
        &self.0.data[first..=last]
    }
}

struct MemoryReader {
    media: Handle,
    at: u64,
}

impl AsyncRead for MemoryReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let mut state = this.media.0.there.lock().expect("lock");
        if state.1 {
            return Poll::Ready(Err(io::Error::other("nobody has it any more")));
        }
        if this.at >= state.0 && this.at < this.media.0.data.len() as u64 {
            state.2.push(cx.waker().clone());
            return Poll::Pending;
        }
        let from = usize::try_from(this.at).expect("fits");
        let to = usize::try_from(state.0).expect("fits").min(from + buf.remaining());
        drop(state);
        buf.put_slice(&this.media.0.data[from..to]);
        this.at += (to - from) as u64;
        this.media.0.read.fetch_add((to - from) as u64, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl AsyncSeek for MemoryReader {
    fn start_seek(mut self: Pin<&mut Self>, position: io::SeekFrom) -> io::Result<()> {
        let io::SeekFrom::Start(at) = position else { return Err(io::ErrorKind::Unsupported.into()) };
        self.at = at;
        Ok(())
    }
    fn poll_complete(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<u64>> {
        Poll::Ready(Ok(self.at))
    }
}

impl Drop for MemoryReader {
    fn drop(&mut self) {
        self.media.0.closed.send_modify(|n| *n += 1);
    }
}

impl Playable for Handle {
    fn length(&self) -> u64 {
        self.0.data.len() as u64
    }
    fn mime(&self) -> &str {
        "audio/ogg"
    }
    fn etag(&self) -> String {
        "etag-1".into()
    }
    fn name(&self) -> String {
        "a song?.ogg".into()
    }
    fn title(&self) -> String {
        "<b>Song</b>".into()
    }
    fn open_reader(&self) -> Box<dyn Reader> {
        Box::new(MemoryReader { media: self.clone(), at: 0 })
    }
    fn table(&self) -> Table {
        Table { pages: 10, held: 3, duration_us: 5_000_000, runs: vec![] }
    }
    fn stats(&self) -> Stats {
        let host = Sender { host: "0123abcd".into(), protocol: "http".into(), bytes: 9 };
        Stats { hosts: vec![host], ..Stats::default() }
    }
}

struct Client {
    stream: BufReader<TcpStream>,
    addr: SocketAddr,
}

struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
    fn length(&self) -> usize {
        self.header("content-length").expect("a length").parse().expect("a number")
    }
}

impl Client {
    async fn connect(addr: SocketAddr) -> Client {
        let socket = TcpSocket::new_v4().expect("socket");
        socket.set_recv_buffer_size(64 * 1024).expect("buffer");
        Client { stream: BufReader::new(socket.connect(addr).await.expect("connect")), addr }
    }

    async fn send(&mut self, method: &str, path: &str, headers: &[&str]) -> Answer {
        let extra: String = headers.iter().map(|h| format!("{h}\r\n")).collect();
        let own = headers.iter().any(|h| h.to_ascii_lowercase().starts_with("host:"));
        let host = if own { String::new() } else { format!("Host: {}\r\n", self.addr) };
        let request = format!("{method} {path} HTTP/1.1\r\n{host}{extra}\r\n");
        self.stream.get_mut().write_all(request.as_bytes()).await.expect("request");
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            assert!(self.stream.read_line(&mut line).await.expect("head") > 0, "closed in the head");
            let line = line.trim_end().to_owned();
            if line.is_empty() {
                break;
            }
            lines.push(line);
        }
        let status = lines[0].split(' ').nth(1).expect("status").parse().expect("a number");
        let split = |l: &String| l.split_once(": ").map(|(n, v)| (n.to_ascii_lowercase(), v.to_owned()));
        Answer { status, headers: lines[1..].iter().filter_map(split).collect() }
    }

    async fn read(&mut self, n: usize) -> Vec<u8> {
        let mut out = vec![0; n];
        self.stream.read_exact(&mut out).await.expect("body");
        out
    }

    async fn get(&mut self, path: &str, headers: &[&str]) -> (Answer, Vec<u8>) {
        let answer = self.send("GET", path, headers).await;
        let length = if answer.status == 304 { 0 } else { answer.length() };
        let body = self.read(length).await;
        (answer, body)
    }
}

struct Setup {
    gateway: Gateway,
    media: Handle,
    offered: Offered,
}

impl Setup {
    async fn new(length: usize, there: u64) -> Setup {
        let gateway = Gateway::start("127.0.0.1:0".parse().expect("address")).await.expect("gateway");
        let media = Handle::new(length, there);
        let offered = gateway.offer(media.clone()).expect("offer");
        Setup { gateway, media, offered }
    }
    async fn client(&self) -> Client {
        Client::connect(self.gateway.addr()).await
    }
    fn path(&self) -> &str {
        self.path_of(&self.offered.media)
    }
    fn path_of<'a>(&self, url: &'a str) -> &'a str {
        url.strip_prefix(&format!("http://{}", self.gateway.addr())).expect("our address")
    }
}

#[tokio::test]
async fn a_file_is_served_with_its_true_length_and_ranges() {
    let s = Setup::new(100_000, 100_000).await;
    assert!(s.path().ends_with("/a%20song%3F.ogg"), "{}", s.path());
    let mut c = s.client().await;
    let (whole, body) = c.get(s.path(), &[]).await;
    assert_eq!((whole.status, whole.length()), (200, 100_000));
    assert_eq!(whole.header("content-type"), Some("audio/ogg"));
    assert_eq!(whole.header("accept-ranges"), Some("bytes"));
    assert_eq!(whole.header("etag"), Some("\"etag-1\""));
    assert_eq!(whole.header("access-control-allow-origin"), None);
    assert_eq!(body, s.media.0.data);
    let cases = [
        ("bytes=0-0", 0, 0),
        ("bytes=10-19", 10, 19),
        ("bytes=99990-", 99_990, 99_999),
        ("bytes=-7", 99_993, 99_999),
        ("bytes=0-", 0, 99_999),
        ("bytes=5-1000000", 5, 99_999),
    ];
    for (range, first, last) in cases {
        let (part, body) = c.get(s.path(), &[&format!("Range: {range}")]).await;
        assert_eq!(part.status, 206, "{range}");
        assert_eq!(part.header("content-range"), Some(format!("bytes {first}-{last}/100000").as_str()));
        assert_eq!(body, s.media.bytes(first, last), "{range}");
    }
    let (beyond, body) = c.get(s.path(), &["Range: bytes=100000-"]).await;
    assert_eq!((beyond.status, beyond.header("content-range")), (416, Some("bytes */100000")));
    assert!(body.is_empty());
    let (changed, _) = c.get(s.path(), &["Range: bytes=1-2", "If-Range: \"etag-0\""]).await;
    assert_eq!((changed.status, changed.length()), (200, 100_000));
    let (same, _) = c.get(s.path(), &["If-None-Match: \"etag-1\""]).await;
    assert_eq!(same.status, 304);
    let head = c.send("HEAD", s.path(), &["Range: bytes=1-2"]).await;
    assert_eq!((head.status, head.length()), (200, 100_000));
    let (after_head, body) = c.get(s.path(), &["Range: bytes=3-4"]).await;
    assert_eq!((after_head.status, body.as_slice()), (206, s.media.bytes(3, 4)));
}

#[tokio::test]
async fn what_is_late_makes_the_response_wait() {
    let s = Setup::new(50_000, 1000).await;
    let mut c = s.client().await;
    let answer = c.send("GET", s.path(), &["Range: bytes=500-"]).await;
    assert_eq!((answer.status, answer.length()), (206, 49_500));
    assert_eq!(c.read(500).await, s.media.bytes(500, 999));
    // What is there is served to others meanwhile.
    let (_, other) = s.client().await.get(s.path(), &["Range: bytes=0-9"]).await;
    assert_eq!(other, s.media.bytes(0, 9));
    s.media.arrive(2000);
    assert_eq!(c.read(1000).await, s.media.bytes(1000, 1999));
    s.media.arrive(50_000);
    assert_eq!(c.read(48_000).await, s.media.bytes(2000, 49_999));
}

#[tokio::test]
async fn media_that_is_gone_closes_the_connection_short() {
    for by_withdrawal in [false, true] {
        let s = Setup::new(50_000, 1000).await;
        let mut c = s.client().await;
        let answer = c.send("GET", s.path(), &[]).await;
        assert_eq!((answer.status, answer.length()), (200, 50_000));
        assert_eq!(c.read(1000).await, s.media.bytes(0, 999));
        if by_withdrawal {
            s.gateway.withdraw(&s.offered);
            assert_eq!(s.client().await.get(s.path(), &[]).await.0.status, 404);
        } else {
            s.media.fail();
        }
        let mut rest = Vec::new();
        // A clean close before the promised length, or a reset: an error to every HTTP client.
        let _ = c.stream.read_to_end(&mut rest).await;
        assert!(rest.is_empty());
    }
}

#[tokio::test]
async fn an_open_range_is_read_no_further_than_its_client() {
    const LENGTH: usize = 64 << 20;
    let s = Setup::new(LENGTH, LENGTH as u64).await;
    let mut closed = s.media.0.closed.subscribe();
    let mut c = s.client().await;
    let answer = c.send("GET", s.path(), &["Range: bytes=0-"]).await;
    assert_eq!((answer.status, answer.length()), (206, LENGTH));
    let mut taken = 0;
    for _ in 0..64 {
        taken += c.read(16 * 1024).await.len() as u64;
        // The server has every chance to run ahead while others are served.
        let mut other = s.client().await;
        for _ in 0..4 {
            assert_eq!(other.send("HEAD", s.path(), &[]).await.status, 200);
        }
        let ahead = s.media.0.read.load(Ordering::Relaxed) - taken;
        assert!(ahead <= 1 << 20, "{ahead} bytes read ahead of the client");
    }
    drop(c);
    closed.wait_for(|n| *n == 1).await.expect("the reader goes with its connection");
}

#[tokio::test]
async fn a_client_that_leaves_while_it_waits_frees_its_reader() {
    let s = Setup::new(50_000, 0).await;
    let mut closed = s.media.0.closed.subscribe();
    let mut c = s.client().await;
    assert_eq!(c.send("GET", s.path(), &[]).await.status, 200);
    drop(c);
    closed.wait_for(|n| *n == 1).await.expect("the reader goes with its connection");
}

#[tokio::test]
async fn only_this_machine_and_only_what_is_on_offer() {
    let s = Setup::new(1000, 1000).await;
    let mut c = s.client().await;
    let page = s.path_of(&s.offered.page).to_owned();
    for path in ["/", "/x", "/x/y.ogg", "/0123456789abcdef0123456789abcdef/a%20song%3F.ogg", "/favicon.ico"] {
        assert_eq!(c.get(path, &[]).await.0.status, 404, "{path}");
    }
    for name in ["x", "a%20song%3F.ogg/", "../table.json", "%2e%2e/table.json", "%ff%fe"] {
        assert_eq!(c.get(&format!("{page}{name}"), &[]).await.0.status, 404, "{name}");
    }
    let denied = [
        ("Host: evil.example", 421),
        ("Host: 127.0.0.1", 421),
        ("Origin: http://evil.example", 403),
        ("Origin: null", 403),
        ("Sec-Fetch-Site: cross-site", 403),
        ("Sec-Fetch-Site: same-site", 403),
    ];
    for (header, status) in denied {
        // The answer is the same for a path that exists and one that does not.
        for path in [s.path(), "/x"] {
            let (answer, body) = s.client().await.get(path, &[header]).await;
            assert_eq!(answer.status, status, "{header} {path}");
            assert_eq!(answer.header("access-control-allow-origin"), None);
            assert!(!body.windows(4).any(|w| w == &s.media.0.data[..4]));
        }
    }
    let post = c.send("POST", s.path(), &["Content-Length: 0"]).await;
    assert_eq!((post.status, post.header("allow")), (405, Some("GET, HEAD")));
    let preflight = s.client().await.send("OPTIONS", s.path(), &["Origin: http://evil.example"]).await;
    assert_eq!(preflight.status, 403);
}

#[tokio::test]
async fn the_page_and_its_table() {
    let s = Setup::new(1000, 1000).await;
    let mut c = s.client().await;
    let page = s.path_of(&s.offered.page).to_owned();
    let (answer, html) = c.get(&page, &[]).await;
    let html = String::from_utf8(html).expect("UTF-8");
    assert_eq!(answer.status, 200);
    assert!(html.contains("&lt;b&gt;Song&lt;/b&gt;") && !html.contains("<b>Song"), "escaped title");
    assert!(html.contains("<audio id=\"player\" controls preload=\"metadata\" src=\"a%20song%3F.ogg\">"));
    let policy = answer.header("content-security-policy").expect("a policy");
    assert!(
        policy.starts_with("default-src 'none'") && policy.contains("frame-ancestors 'none'"),
        "{policy}"
    );
    assert_eq!(answer.header("referrer-policy"), Some("no-referrer"));
    let (answer, json) = c.get(&format!("{page}table.json"), &[]).await;
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let json: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
    assert_eq!(json["pages"], 10);
    assert_eq!(json["title"], "<b>Song</b>");
    assert_eq!(json["stats"]["hosts"][0]["host"], "0123abcd");
    let redirect = c.send("GET", page.trim_end_matches('/'), &[]).await;
    assert_eq!((redirect.status, redirect.header("location")), (308, Some(page.as_str())));
}
