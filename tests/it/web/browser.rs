//! A headless Chromium, driven over its DevTools protocol: JSON, each message ended by a zero byte, on two of its files.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use iceshare_tests::{PATIENCE, have};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Its names on Debian and elsewhere.
const NAMES: [&str; 3] = ["chromium", "chromium-browser", "chrome-headless-shell"];

/// A browser with one page.
pub(super) struct Browser {
    child: Child,
    say: ChildStdin,
    heard: Receiver<Value>,
    later: VecDeque<Value>,
    session: String,
    last: u64,
    /// What the page wrote to the console as warnings or errors, and exceptions nobody caught.
    pub(super) complaints: Vec<String>,
    _profile: TempDir,
}

impl Browser {
    /// None, with a word, where there is no Chromium.
    pub(super) fn start() -> Option<Browser> {
        let name = NAMES.iter().find(|n| which(n)).or_else(|| NAMES.first().filter(|n| have(n)))?;
        let profile = tempfile::tempdir().unwrap_or_else(|e| panic!("{e}"));
        // The protocol is on files 3 and 4 of the browser.
        let mut command = Command::new("sh");
        command.args(["-c", r#"exec "$@" 3<&0 4>&1 0</dev/null 1>/dev/null 2>/dev/null"#, "sh", name]);
        command.args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            // Nobody is there who could press a button.
            "--autoplay-policy=no-user-gesture-required",
        ]);
        command.arg("--remote-debugging-pipe").arg(format!("--user-data-dir={}", profile.path().display()));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap_or_else(|e| panic!("{name}: {e}"));
        let (say, out) = child.stdin.take().zip(child.stdout.take()).expect("both are pipes");
        let (tell, heard) = channel();
        std::thread::spawn(move || {
            let mut out = BufReader::new(out);
            loop {
                let mut message = Vec::new();
                match out.read_until(0, &mut message) {
                    Ok(0) | Err(_) => break,
                    Ok(_) => {}
                }
                message.pop();
                if let Ok(message) = serde_json::from_slice(&message)
                    && tell.send(message).is_err()
                {
                    break;
                }
            }
        });
        let mut browser = Browser {
            child,
            say,
            heard,
            later: VecDeque::new(),
            session: String::new(),
            last: 0,
            complaints: Vec::new(),
            _profile: profile,
        };
        let target =
            browser.call("Target.createTarget", &json!({ "url": "about:blank" }))["targetId"].clone();
        let attach = json!({ "targetId": target, "flatten": true });
        let session = browser.call("Target.attachToTarget", &attach)["sessionId"].clone();
        browser.session = session.as_str().expect("a session").to_owned();
        for domain in ["Page", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), &json!({}));
        }
        Some(browser)
    }

    fn call(&mut self, method: &str, params: &Value) -> Value {
        self.last += 1;
        let id = self.last;
        let mut message = json!({ "id": id, "method": method, "params": params });
        if !self.session.is_empty() {
            message["sessionId"] = self.session.clone().into();
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        self.say.write_all(&bytes).unwrap_or_else(|e| panic!("{method}: {e}"));
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let answer = self.heard.recv_timeout(left).unwrap_or_else(|e| panic!("{method}: no answer: {e}"));
            if answer["id"] == id {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].clone();
            }
            self.notice(answer);
        }
    }

    fn notice(&mut self, event: Value) {
        let params = &event["params"];
        let complaint = match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => Some(params["exceptionDetails"].to_string()),
            Some("Runtime.consoleAPICalled") => ["error", "warning", "assert"]
                .iter()
                .any(|t| params["type"] == **t)
                .then(|| params["args"].to_string()),
            Some("Log.entryAdded") => ["error", "warning"]
                .iter()
                .any(|l| params["entry"]["level"] == **l)
                .then(|| params["entry"].to_string()),
            _ => None,
        };
        self.complaints.extend(complaint);
        self.later.push_back(event);
        self.later.truncate(64);
    }

    /// A screen of this many pixels, as a phone has or not.
    pub(super) fn screen(&mut self, width: u32, height: u32, phone: bool) {
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone });
        self.call("Emulation.setDeviceMetricsOverride", &metrics);
    }

    /// Dark or light, and whether its user wants less motion.
    pub(super) fn prefers(&mut self, scheme: &str, motion: &str) {
        let features = json!([
            { "name": "prefers-color-scheme", "value": scheme },
            { "name": "prefers-reduced-motion", "value": motion },
        ]);
        self.call("Emulation.setEmulatedMedia", &json!({ "features": features }));
    }

    /// Presses the Tab key.
    pub(super) fn tab(&mut self) {
        for kind in ["rawKeyDown", "keyUp"] {
            let key = json!({ "type": kind, "key": "Tab", "code": "Tab", "windowsVirtualKeyCode": 9 });
            self.call("Input.dispatchKeyEvent", &key);
        }
    }

    pub(super) fn open(&mut self, url: &str) {
        self.call("Page.navigate", &json!({ "url": url }));
    }

    /// What an expression of JavaScript is in the page; a promise is waited for.
    pub(super) fn eval(&mut self, expression: &str) -> Value {
        let params = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let result = self.call("Runtime.evaluate", &params);
        assert!(result["exceptionDetails"].is_null(), "{expression}: {result}");
        result["result"]["value"].clone()
    }

    /// Waits until an expression is true in the page.
    pub(super) fn until(&mut self, what: &str, expression: &str) {
        let deadline = Instant::now() + PATIENCE;
        // A page that is still loading has nothing yet.
        let safe =
            format!("(() => {{ try {{ return !!({expression}); }} catch (e) {{ return false; }} }})()");
        while self.eval(&safe) != true {
            if Instant::now() > deadline {
                let text = self.eval("document.body.innerText");
                panic!("the page never showed {what}; it shows {text}; complaints: {:?}", self.complaints);
            }
            self.eval("new Promise((go) => setTimeout(go, 100))");
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn which(name: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|p| std::env::split_paths(&p).any(|dir| dir.join(name).is_file()))
}
