//! Processes under test: their lines as they come, their end, their figures.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::{PATIENCE, binary};

/// What of two files is compared at once.
const BLOCK: usize = 1 << 20;

/// Between two questions to a tracker that is asked until it says something.
const PACE: Duration = Duration::from_millis(50);

/// What a process has said on one of its outputs.
#[derive(Debug, Default)]
struct Said {
    text: Mutex<(String, bool)>,
    more: Condvar,
}

impl Said {
    fn wait(&self, deadline: Instant, mut found: impl FnMut(&str) -> bool) -> bool {
        let mut text = self.text.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        loop {
            if found(&text.0) {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if text.1 || left.is_zero() {
                return false;
            }
            text = match self.more.wait_timeout(text, left) {
                Ok((t, _)) => t,
                Err(e) => e.into_inner().0,
            };
        }
    }
}

/// A running process. Killed when dropped.
#[derive(Debug)]
pub struct Proc {
    name: String,
    child: Child,
    out: Arc<Said>,
    err: Arc<Said>,
    ended: Receiver<()>,
    status: Option<ExitStatus>,
}

impl Proc {
    /// Starts it, with both outputs read in the background.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn start(command: Command) -> Proc {
        Proc::fed(command, Stdio::null())
    }

    /// The same, with this as its standard input.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn fed(mut command: Command, input: impl Into<Stdio>) -> Proc {
        let name =
            Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
        command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|e| panic!("cannot start {name}: {e}"));
        let (tx, ended) = channel();
        let (out, err) = (Arc::<Said>::default(), Arc::<Said>::default());
        if let Some(pipe) = child.stdout.take() {
            collect(pipe, out.clone(), tx.clone());
        }
        if let Some(pipe) = child.stderr.take() {
            collect(pipe, err.clone(), tx);
        }
        Proc { name, child, out, err, ended, status: None }
    }

    /// Waits for a line on stdout for which `f` gives something.
    ///
    /// # Panics
    /// If the process ends or the patience does, with all that it said.
    pub fn line<T>(&self, what: &str, f: impl Fn(&str) -> Option<T>) -> T {
        self.find(&self.out, what, f)
    }

    /// The same on stderr.
    ///
    /// # Panics
    /// As [`Proc::line`].
    pub fn error_line<T>(&self, what: &str, f: impl Fn(&str) -> Option<T>) -> T {
        self.find(&self.err, what, f)
    }

    /// The same with another deadline.
    ///
    /// # Panics
    /// As [`Proc::line`].
    pub fn error_line_within<T>(&self, patience: Duration, what: &str, f: impl Fn(&str) -> Option<T>) -> T {
        self.find_within(patience, &self.err, what, f)
    }

    fn find<T>(&self, said: &Said, what: &str, f: impl Fn(&str) -> Option<T>) -> T {
        self.find_within(PATIENCE, said, what, f)
    }

    fn find_within<T>(
        &self,
        patience: Duration,
        said: &Said,
        what: &str,
        f: impl Fn(&str) -> Option<T>,
    ) -> T {
        let mut found = None;
        said.wait(Instant::now() + patience, |text| {
            // Only whole lines.
            let whole = text.rfind('\n').map_or("", |i| &text[..i]);
            found = whole.lines().find_map(&f);
            found.is_some()
        });
        found.unwrap_or_else(|| panic!("{} never said {what}\n{}", self.name, self.dump()))
    }

    /// Waits for the end and gives the exit code (`None`: killed by a signal).
    ///
    /// # Panics
    /// If it does not end in time.
    pub fn end(&mut self) -> Option<i32> {
        self.end_within(PATIENCE)
    }

    /// The same with another deadline.
    ///
    /// # Panics
    /// If it does not end in time.
    pub fn end_within(&mut self, patience: Duration) -> Option<i32> {
        // Both outputs close when the process ends; only then it is waited for.
        let deadline = Instant::now() + patience;
        for _ in 0..2 {
            let left = deadline.saturating_duration_since(Instant::now());
            if self.ended.recv_timeout(left) == Err(RecvTimeoutError::Timeout) {
                panic!("{} did not end within {patience:?}\n{}", self.name, self.dump());
            }
        }
        let status = self.child.wait().unwrap_or_else(|e| panic!("{}: {e}", self.name));
        self.status = Some(status);
        status.code()
    }

    /// Waits for the end and expects this exit code.
    ///
    /// # Panics
    /// If it is another.
    pub fn ends_with(&mut self, code: i32) {
        let got = self.end();
        assert_eq!(got, Some(code), "{} ended with {got:?}, not {code}\n{}", self.name, self.dump());
    }

    /// SIGKILL: no last words.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Sends a signal by its name (`INT`, `TERM`, `STOP`, `CONT`).
    ///
    /// # Panics
    /// If `kill` cannot be run.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status();
        assert!(status.is_ok_and(|s| s.success()), "cannot signal {}", self.name);
    }

    /// Process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The most memory that it has had resident at once so far, in bytes (Linux).
    ///
    /// # Panics
    /// If it has ended.
    #[must_use]
    pub fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id()));
        let status = status.unwrap_or_else(|e| panic!("{}: {e}", self.name));
        let kilobytes = status.lines().find_map(|l| l.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
        let kilobytes: Option<u64> = kilobytes.and_then(|n| n.parse().ok());
        kilobytes.unwrap_or_else(|| panic!("{}: no peak in\n{status}", self.name)) * 1024
    }

    /// All that it said so far on stdout.
    #[must_use]
    pub fn stdout(&self) -> String {
        self.out.text.lock().map(|t| t.0.clone()).unwrap_or_default()
    }

    /// All that it said so far on stderr.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.err.text.lock().map(|t| t.0.clone()).unwrap_or_default()
    }

    fn dump(&self) -> String {
        let mut s = String::new();
        let _ = write!(s, "--- stdout\n{}\n--- stderr\n{}", self.stdout(), self.stderr());
        s
    }
}

impl Drop for Proc {
    fn drop(&mut self) {
        if self.status.is_none() {
            self.kill();
        }
        // A task that panics may leave a program that still ends well.
        let panicked = self.stderr().lines().find(|l| l.contains("panicked at")).map(str::to_owned);
        if let Some(line) = panicked.filter(|_| !std::thread::panicking()) {
            panic!("a part of it failed: {line}");
        }
    }
}

fn collect(pipe: impl std::io::Read + Send + 'static, said: Arc<Said>, ended: std::sync::mpsc::Sender<()>) {
    std::thread::spawn(move || {
        let mut reader = BufReader::new(pipe);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            if let Ok(mut text) = said.text.lock() {
                text.0.push_str(&String::from_utf8_lossy(&line));
            }
            said.more.notify_all();
            line.clear();
        }
        if let Ok(mut text) = said.text.lock() {
            text.1 = true;
        }
        said.more.notify_all();
        let _ = ended.send(());
    });
}

/// A running `icetracker` on loopback.
#[derive(Debug)]
pub struct Tracker {
    /// Its process.
    pub proc: Proc,
    /// `icet://127.0.0.1:PORT`.
    pub url: String,
    /// `http://127.0.0.1:PORT`.
    pub web: String,
    /// Its data directory.
    pub data: PathBuf,
}

impl Tracker {
    /// Starts one with its data in `data`; `listen` is `127.0.0.1:0`, or where an earlier one was.
    ///
    /// # Panics
    /// If it does not get ready.
    #[must_use]
    pub fn start(data: &Path, listen: &str) -> Tracker {
        Tracker::start_with(data, listen, &[])
    }

    /// The same with further arguments.
    ///
    /// # Panics
    /// If it does not get ready.
    #[must_use]
    pub fn start_with(data: &Path, listen: &str, more: &[&str]) -> Tracker {
        let mut command = Command::new(binary("icetracker"));
        command.args(["--listen", listen, "--web", "127.0.0.1:0", "--data"]).arg(data).args(more);
        let proc = Proc::start(command);
        let (url, web) = proc.line("icetracker ready", |l| {
            let mut words = l.strip_prefix("icetracker ready ")?.split(' ');
            Some((words.next()?.to_owned(), words.nth(1)?.to_owned()))
        });
        Tracker { proc, url, web, data: data.to_owned() }
    }

    /// `ADDR:PORT` where it listens, to start it there again.
    #[must_use]
    pub fn listen(&self) -> String {
        self.url.trim_start_matches("icet://").to_owned()
    }

    /// GETs a path of its web port with `curl`-free means: a plain HTTP/1.1 request; the body.
    ///
    /// # Panics
    /// If it does not answer.
    #[must_use]
    pub fn get(&self, path: &str) -> String {
        http_get(self.web.trim_start_matches("http://"), path)
    }

    /// Asks for a path of its web port until `f` finds something in the answer.
    ///
    /// # Panics
    /// If it does not within the patience.
    pub fn until<T>(&self, path: &str, what: &str, f: impl Fn(&str) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.get(path);
            if let Some(found) = f(&answer) {
                return found;
            }
            assert!(Instant::now() < deadline, "the tracker never said {what}; at last it said\n{answer}");
            std::thread::park_timeout(PACE);
        }
    }
}

/// One HTTP/1.1 GET on a connection of its own; the body (as it stands: no chunked coding is undone).
///
/// # Panics
/// If nobody answers.
#[must_use]
pub fn http_get(authority: &str, path: &str) -> String {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(authority).unwrap_or_else(|e| panic!("{authority}: {e}"));
    let request = format!("GET {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap_or_else(|e| panic!("{authority}: {e}"));
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap_or_else(|e| panic!("{authority}: {e}"));
    let answer = String::from_utf8_lossy(&answer).into_owned();
    answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default()
}

/// A folder for one test, a tracker in it, and commands with data folders of their own.
#[derive(Debug)]
pub struct Network {
    /// The tracker.
    pub tracker: Tracker,
    /// Everything of the test is in here.
    pub dir: TempDir,
}

impl Network {
    /// Starts a tracker in a fresh folder.
    ///
    /// # Panics
    /// If it does not get ready.
    #[must_use]
    pub fn new() -> Network {
        Network::with(&[])
    }

    /// The same with further arguments for the tracker.
    ///
    /// # Panics
    /// If it does not get ready.
    #[must_use]
    pub fn with(tracker: &[&str]) -> Network {
        let dir = tempfile::tempdir().unwrap_or_else(|e| panic!("no temporary folder: {e}"));
        let tracker = Tracker::start_with(&dir.path().join("tracker"), "127.0.0.1:0", tracker);
        Network { tracker, dir }
    }

    /// A path in the test's folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `iceshare` with data folder and key of peer `who`, listening on loopback.
    #[must_use]
    pub fn command(&self, who: &str, args: &[&str]) -> Command {
        let mut c = Command::new(binary("iceshare"));
        c.args(args).arg("--data").arg(self.path(who)).args(["--listen", "127.0.0.1:0"]);
        c
    }

    /// Starts [`Network::command`].
    #[must_use]
    pub fn run(&self, who: &str, args: &[&str]) -> Proc {
        Proc::start(self.command(who, args))
    }

    /// Publishes a file as peer `who` with further arguments; the process, and the link that it printed.
    #[must_use]
    pub fn publish(&self, who: &str, file: &Path, more: &[&str]) -> (Proc, String) {
        let file = file.to_string_lossy();
        let args = [&["publish", &file, "--tracker", &self.tracker.url], more].concat();
        let proc = self.run(who, &args);
        let url = proc.line("its link", |l| l.starts_with("icet://").then(|| l.trim().to_owned()));
        (proc, url)
    }

    /// Gets `url` as peer `who` into a file of that name with further arguments; where it will be.
    #[must_use]
    pub fn get(&self, who: &str, url: &str, more: &[&str]) -> (Proc, PathBuf) {
        let out = self.path(&format!("{who}.out"));
        let text = out.to_string_lossy().into_owned();
        (self.run(who, &[&["get", url, "-o", &text], more].concat()), out)
    }
}

impl Default for Network {
    fn default() -> Self {
        Network::new()
    }
}

/// Whether two files are the same, byte for byte, of any size.
///
/// # Panics
/// If one cannot be read.
#[must_use]
pub fn same(a: &Path, b: &Path) -> bool {
    let open = |p: &Path| std::fs::File::open(p).unwrap_or_else(|e| panic!("{}: {e}", p.display()));
    let (mut one, mut other) =
        (BufReader::with_capacity(BLOCK, open(a)), BufReader::with_capacity(BLOCK, open(b)));
    loop {
        let fill = |r: std::io::Result<&[u8]>, p: &Path| {
            r.map(<[u8]>::to_vec).unwrap_or_else(|e| panic!("{}: {e}", p.display()))
        };
        let (x, y) = (fill(one.fill_buf(), a), fill(other.fill_buf(), b));
        let n = x.len().min(y.len());
        if x[..n] != y[..n] || n == 0 {
            return x.is_empty() && y.is_empty();
        }
        one.consume(n);
        other.consume(n);
    }
}
