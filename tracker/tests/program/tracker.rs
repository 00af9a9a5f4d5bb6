//! A running `icetracker`.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use icet::PeerKey;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

/// How long anything may take, on a machine that is busy with other things.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Tracker {
    child: Child,
    pub(crate) icet: SocketAddr,
    pub(crate) web: SocketAddr,
    pub(crate) key: PeerKey,
    _out: Lines<BufReader<ChildStdout>>,
}

pub(crate) fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_icetracker"));
    command.stdin(Stdio::null()).kill_on_drop(true).env_remove("RUST_LOG");
    command
}

impl Tracker {
    pub(crate) async fn start(data: &Path) -> Tracker {
        Tracker::run(command(), data).await
    }

    /// In a shell that first runs `limits`.
    pub(crate) async fn start_limited(data: &Path, limits: &str) -> Tracker {
        let mut shell = Command::new("sh");
        shell.stdin(Stdio::null()).kill_on_drop(true).env_remove("RUST_LOG");
        shell.args(["-c", &format!("{limits}; exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_icetracker")]);
        Tracker::run(shell, data).await
    }

    async fn run(mut command: Command, data: &Path) -> Tracker {
        command.args(["--listen", "127.0.0.1:0", "--web", "127.0.0.1:0", "--data"]).arg(data);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut line = async || {
            let line = timeout(PATIENCE, out.next_line()).await.expect("the tracker says nothing");
            line.unwrap().expect("the tracker ended")
        };
        let ready = line().await;
        let key = line().await;
        let rest = ready.strip_prefix("icetracker ready icet://").unwrap_or_else(|| panic!("{ready:?}"));
        let (icet, web) = rest.split_once(" web http://").unwrap_or_else(|| panic!("{ready:?}"));
        Tracker {
            child,
            icet: icet.parse().unwrap(),
            web: web.parse().unwrap(),
            key: key.strip_prefix("key ").unwrap().parse().unwrap(),
            _out: out,
        }
    }

    /// As a crash does: SIGKILL.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// SIGTERM; the exit code.
    pub(crate) async fn terminate(mut self) -> Option<i32> {
        let pid = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
        timeout(PATIENCE, self.child.wait()).await.expect("it does not stop").unwrap().code()
    }

    /// Status and body of a GET, and its headers.
    pub(crate) async fn request(&self, path: &str) -> (u16, String, hyper::HeaderMap) {
        let get = async {
            let io = TokioIo::new(TcpStream::connect(self.web).await.unwrap());
            let (mut send, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
            let connection = tokio::spawn(connection);
            let request = Request::get(path).header("host", self.web.to_string()).body(Empty::<Bytes>::new());
            let response = send.send_request(request.unwrap()).await.unwrap();
            let (head, body) = response.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            drop(send);
            connection.await.unwrap().unwrap();
            (head.status.as_u16(), String::from_utf8(body.to_vec()).unwrap(), head.headers)
        };
        timeout(PATIENCE, get).await.expect("the web does not answer")
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let (status, body, headers) = self.request(path).await;
        assert_eq!(status, 200, "{path}: {body}");
        assert_eq!(headers["content-type"], "application/json");
        serde_json::from_str(&body).unwrap()
    }

    /// Asks `path` until `wanted` is content, at most as long as our patience lasts.
    pub(crate) async fn until(&self, path: &str, wanted: impl Fn(&str) -> bool) -> String {
        let mut last = String::new();
        let ask = async {
            let mut pace = tokio::time::interval(Duration::from_millis(50));
            loop {
                pace.tick().await;
                last = self.request(path).await.1;
                if wanted(&last) {
                    break;
                }
            }
        };
        let in_time = timeout(PATIENCE, ask).await.is_ok();
        assert!(in_time, "{path} never said what was wanted; last: {last}");
        last
    }

    /// Waits until so many changes of a kind are durable.
    pub(crate) async fn until_written(&self, kind: &str, least: u64) {
        let metric = format!("icetracker_catalogue_writes_total{{kind=\"{kind}\"}} ");
        let count = |text: &str| text.lines().find_map(|l| l.strip_prefix(&metric)?.parse::<u64>().ok());
        self.until("/metrics", |text| count(text).is_some_and(|n| n >= least)).await;
    }
}
