//! Paths that would lead out of what is shared.

use iceshare_tests::{Network, media};

use super::stranger::{get, port_of_host, runtime};

const SECRET: &str = "OggS a secret beside the media";

#[test]
fn no_path_leads_out_of_what_is_shared() {
    let net = Network::new();
    let file = net.path("song.opus");
    media::opus_like(&file, 100_000, 4200, 81).expect("a file");
    std::fs::write(net.path("secret"), SECRET).expect("a secret");
    std::fs::write(net.path("secret.opus"), SECRET).expect("a secret");
    let (_publisher, url) = net.publish("publisher", &file, &["--as", "music/song.opus"]);
    let host = port_of_host(&runtime(), &net.tracker.url, "music/song.opus", 0xc1);
    assert_eq!(get(host, "/music/song.opus", &[]).status, 200);
    let key = net.path("publisher/key").to_string_lossy().into_owned();
    let long = format!("/{}", "a".repeat(5_000));
    let deep = format!("/{}secret", "%2e%2e/".repeat(200));
    let absolute = format!("/{}", net.path("secret").to_string_lossy());
    let targets = [
        "/../secret",
        "/music/../secret",
        "/music/../../secret",
        "/music/..%2fsecret",
        "/music/%2e%2e/secret",
        "/%2e%2e/%2e%2e/secret",
        "/%2e%2e%2fsecret",
        "/%252e%252e/secret",
        "/..%5csecret",
        "/music\\..\\secret",
        "/music/song.opus%00.txt",
        "/%00",
        "/music/song.opus/../../secret.opus",
        "/./music/song.opus",
        "/music//song.opus",
        "/music/",
        "/%",
        "/%zz",
        "/%c0%ae%c0%ae/secret",
        "//etc/passwd",
        "/etc/passwd",
        "/secret",
        "/secret.opus",
        "/",
        "/%ff%fe",
        "*",
        &key,
        &absolute,
        &long,
        &deep,
    ];
    for target in targets {
        let answer = get(host, target, &[]);
        assert!([400, 404, 414].contains(&answer.status), "{target}: {}", answer.head);
        let body = String::from_utf8_lossy(&answer.body);
        assert!(!body.contains("OggS") && !body.contains("root:") && body.len() < 300, "{target}: {body}");
        // The tracker's web port has the same targets under its API.
        let told = net.tracker.get(&format!("/api/media{target}"));
        assert!(!told.contains("OggS") && !told.contains("root:"), "{target}: {told}");
        // As a link.
        if target.contains("..") || target.contains("%2e%2e") || target.contains("%00") {
            let mut get = net.run("a", &["get", &format!("{}{target}", net.tracker.url), "-o", "-"]);
            let code = get.end();
            assert!([Some(2), Some(4)].contains(&code), "{target}: {code:?} {}", get.stderr());
            assert!(get.stdout().is_empty() && !get.stderr().contains("panicked"), "{}", get.stderr());
        }
    }
    for path in ["../song.opus", "a/../../b", "/../x", "a/./b", "a//b", "a\\b", "a\nb", "..", ".", "", "a/"] {
        let args = ["publish", &file.to_string_lossy(), "--tracker", &net.tracker.url, "--as", path];
        let mut publish = net.run("b", &args);
        publish.ends_with(2);
        assert!(!publish.stderr().contains("panicked"), "{path:?}: {}", publish.stderr());
    }
    // It is all still there.
    let (mut receiver, _) = net.get("receiver", &url, &[]);
    receiver.ends_with(0);
}
