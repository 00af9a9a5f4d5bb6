//! What an operator may do behind the token, what peers hear of it, and that nobody else may.

use std::io::{Read as _, Write as _};
use std::path::PathBuf;

use iceshare_tests::{Network, Tracker, media, same};
use serde_json::{Value, json};

const TOKEN: &str = "0123456789abcdef-operator";

/// A request of the operator; the status and the JSON of the answer.
fn request(tracker: &Tracker, method: &str, path: &str, headers: &str, body: &str) -> (u16, Value, String) {
    let authority = tracker.web.trim_start_matches("http://");
    let mut stream = std::net::TcpStream::connect(authority).unwrap_or_else(|e| panic!("{authority}: {e}"));
    let request = format!(
        "{method} /api/operator{path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).unwrap_or_else(|e| panic!("{authority}: {e}"));
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap_or_else(|e| panic!("{authority}: {e}"));
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{path}: {answer}"));
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
    (status, serde_json::from_str(body).unwrap_or(Value::Null), head.to_ascii_lowercase())
}

fn operate(tracker: &Tracker, method: &str, path: &str, body: &str) -> Value {
    let auth = format!("Authorization: Bearer {TOKEN}\r\n");
    let (status, answer, _) = request(tracker, method, path, &auth, body);
    assert_eq!(status, 200, "{method} {path}: {answer}");
    answer
}

/// A tracker with a token, and a file to publish.
fn network(more: &[&str]) -> (Network, PathBuf, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap_or_else(|e| panic!("{e}"));
    let token = dir.path().join("token");
    std::fs::write(&token, TOKEN).unwrap_or_else(|e| panic!("{e}"));
    let net = Network::with(&[&["--web-token", &token.to_string_lossy()], more].concat());
    let file = net.path("song.opus");
    media::opus_like(&file, 300_000, 4200, 11).unwrap_or_else(|e| panic!("{e}"));
    (net, file, dir)
}

fn key_of(url: &str) -> String {
    let key = url.split("key=").nth(1).and_then(|k| k.split('&').next());
    key.unwrap_or_else(|| panic!("no key in {url}")).to_owned()
}

#[test]
fn nobody_without_the_token_may_do_anything() {
    let (net, ..) = network(&[]);
    let wrong = format!("Authorization: Bearer {TOKEN}x\r\n");
    let basic = format!("Authorization: Basic {TOKEN}\r\n");
    let cookie = format!("Cookie: token={TOKEN}\r\n");
    for (method, path) in
        [("GET", "/rules"), ("PUT", "/publishers"), ("DELETE", "/media/song.opus"), ("PUT", "/limits")]
    {
        for headers in ["", wrong.as_str(), basic.as_str(), cookie.as_str()] {
            let path = if headers.is_empty() { format!("{path}?token={TOKEN}") } else { path.to_owned() };
            let (status, answer, head) = request(&net.tracker, method, &path, headers, "{}");
            assert_eq!(status, 401, "{method} {path} {headers}: {answer}");
            assert!(!head.contains("access-control-allow-origin"), "{head}");
        }
    }
    // What a browser asks before it lets another origin's page send the header.
    let preflight = "Origin: http://evil.example\r\nAccess-Control-Request-Method: PUT\r\nAccess-Control-Request-Headers: authorization\r\n";
    let (status, _, head) = request(&net.tracker, "OPTIONS", "/publishers", preflight, "");
    assert!(status == 405 && !head.contains("access-control-allow"), "{status} {head}");
    // Without a token there is no such part.
    let plain = Network::new();
    let (status, answer, _) =
        request(&plain.tracker, "GET", "/rules", &format!("Authorization: Bearer {TOKEN}\r\n"), "");
    assert!(status == 404 && answer["error"].as_str().is_some_and(|e| e.contains("--web-token")), "{answer}");
}

#[test]
fn a_banned_key_is_out_with_what_it_published_also_after_a_restart() {
    let (mut net, file, dir) = network(&[]);
    let (publisher, url) = net.publish("bad", &file, &[]);
    let key = key_of(&url);
    let rules = operate(&net.tracker, "PUT", &format!("/bans/{key}"), "");
    assert_eq!(rules["banned"], json!([key]));
    let gone = net.tracker.get("/api/media/song.opus");
    assert!(gone.contains("no media"), "{gone}");
    publisher.error_line("why", |l| l.contains("operator of this tracker has banned this key").then_some(()));
    drop(publisher);
    // Also at the next start.
    net.tracker.proc.signal("TERM");
    net.tracker.proc.ends_with(0);
    let token = dir.path().join("token").to_string_lossy().into_owned();
    net.tracker = Tracker::start_with(&net.tracker.data, &net.tracker.listen(), &["--web-token", &token]);
    let again = net.run("bad", &["publish", &file.to_string_lossy(), "--tracker", &net.tracker.url]);
    again.error_line("why", |l| l.contains("banned this key").then_some(()));
    drop(again);
    let rules = operate(&net.tracker, "DELETE", &format!("/bans/{key}"), "");
    assert_eq!(rules["banned"], json!([]));
    let (_publisher, url) = net.publish("bad", &file, &[]);
    let (mut get, out) = net.get("receiver", &url, &[]);
    get.ends_with(0);
    assert!(same(&file, &out));
}

#[test]
fn who_may_publish_is_the_operators_choice() {
    let (net, file, _dir) = network(&["--publisher", &"ab".repeat(32)]);
    let name = file.to_string_lossy().into_owned();
    let args = ["publish", &name, "--tracker", &net.tracker.url];
    let mut refused = net.run("stranger", &args);
    refused.ends_with(1);
    let why = refused.stderr();
    assert!(why.contains("only listed keys may publish on this tracker"), "{why}");
    let key = why.split("to list ").nth(1).map(|k| k[..64].to_owned()).unwrap_or_else(|| panic!("{why}"));
    let policy = json!({ "publish": "listed", "allowed": [key] }).to_string();
    let rules = operate(&net.tracker, "PUT", "/publishers", &policy);
    assert_eq!((&rules["publish"], &rules["allowed"]), (&json!("listed"), &json!([key])));
    let (publisher, url) = net.publish("stranger", &file, &[]);
    let (mut get, _) = net.get("listener", &url, &["--down", "10kB"]);
    let running = "\"assignments_running\":";
    net.tracker.until("/api/media", "that it fetches", |m| {
        (m.contains(running) && !m.contains(&format!("{running}0"))).then_some(())
    });
    // Withdrawn it stays away, until it is allowed again. All are told by whom.
    operate(&net.tracker, "DELETE", "/media/song.opus", "");
    let by_operator = "withdrawn by the operator of the tracker";
    publisher.error_line("by whom", |l| l.contains(by_operator).then_some(()));
    get.ends_with(4);
    assert!(get.stderr().contains(by_operator), "{}", get.stderr());
    let mut late = net.run("late", &["info", &url]);
    late.ends_with(4);
    assert!(late.stderr().contains("the operator of this tracker has withdrawn it"), "{}", late.stderr());
    assert!(net.tracker.get("/api/media/song.opus").contains("no media"));
    drop(publisher);
    let mut refused = net.run("stranger", &args);
    refused.ends_with(1);
    assert!(refused.stderr().contains("has withdrawn song.opus"), "{}", refused.stderr());
    operate(&net.tracker, "PUT", "/media/song.opus", "");
    let (_publisher, _) = net.publish("stranger", &file, &[]);
    // Limits.
    let rules = operate(&net.tracker, "PUT", "/limits", r#"{"media_per_key": 1}"#);
    assert_eq!(rules["limits"]["media_per_key"], 1);
    let auth = format!("Authorization: Bearer {TOKEN}\r\n");
    for (path, body, word) in [
        ("/limits", r#"{"sessions": 0}"#, "keep everyone out"),
        ("/limits", r#"{"session": 5}"#, "unknown field"),
        ("/publishers", r#"{"publish": "nobody"}"#, "takes"),
        ("/publishers", r#"{"publish": "listed", "allowed": ["x"]}"#, "64 hexadecimal digits"),
        ("/bans/zz", "", "64 hexadecimal digits"),
    ] {
        let (status, answer, _) = request(&net.tracker, "PUT", path, &auth, body);
        assert!(
            status == 400 && answer["error"].as_str().is_some_and(|e| e.contains(word)),
            "{path}: {answer}"
        );
    }
}

#[test]
fn of_two_files_the_first_is_shared_while_the_second_waits() {
    let (net, file, _dir) = network(&[]);
    operate(&net.tracker, "PUT", "/limits", r#"{"media_per_key": 1}"#);
    let other = net.path("tail.opus");
    media::opus_like(&other, 30_000, 4200, 12).unwrap_or_else(|e| panic!("{e}"));
    let [first, second] = [&file, &other].map(|f| f.to_string_lossy().into_owned());
    let publisher = net.run("publisher", &["publish", &first, &second, "--tracker", &net.tracker.url]);
    publisher
        .error_line("that the second waits", |l| l.contains("it takes 1 media of one key").then_some(()));
    let url =
        publisher.line("the link of the first", |l| l.contains("/song.opus?").then(|| l.trim().to_owned()));
    let (mut get, out) = net.get("receiver", &url, &[]);
    get.ends_with(0);
    assert!(same(&file, &out));
}
