//! A web page that drives the gateway of a player's machine.

use std::net::SocketAddr;

use iceshare_tests::{Network, media};

use super::stranger::{ask, get, read};

#[test]
fn only_this_machines_programs_are_served() {
    let net = Network::new();
    let file = net.path("song.opus");
    media::opus_like(&file, 200_000, 4200, 91).expect("a file");
    let (_publisher, url) = net.publish("publisher", &file, &[]);
    let play = net.run("player", &["play", &url]);
    let link = play.line("a link", |l| l.starts_with("http://").then(|| l.trim().to_owned()));
    let rest = link.trim_start_matches("http://");
    let (authority, _) = rest.split_once('/').expect("a path");
    let at: SocketAddr = authority.parse().expect("an address");
    assert!(at.ip().is_loopback());
    let target = &rest[authority.len()..];
    let token = target.split('/').nth(1).expect("a token");
    assert!(token.len() >= 32, "{token} can be guessed");
    let port = at.port();

    let whole = get(at, target, &[]);
    assert_eq!(whole.status, 200, "{}", whole.head);
    assert!(whole.body == read(&file));
    assert!(!whole.head.to_ascii_lowercase().contains("access-control-allow"), "{}", whole.head);

    let refused = |what: &str, statuses: &[u16], target: &str, headers: &[&str]| {
        let answer = get(at, target, headers);
        assert!(statuses.contains(&answer.status), "{what}: {}", answer.head);
        assert!(answer.body.len() < 300, "{what}: {} bytes came", answer.body.len());
        let head = answer.head.to_ascii_lowercase();
        assert!(!head.contains("access-control-allow") && !head.contains("ogg"), "{what}: {head}");
        assert!(!head.contains(token), "{what} tells the token: {head}");
    };
    let page = format!("/{token}/");
    let table = format!("/{token}/table.json");
    for target in [target, page.as_str(), table.as_str()] {
        for origin in ["http://evil.example", "null", "https://127.0.0.1", "http://localhost:1"] {
            refused(origin, &[403], target, &[&format!("Origin: {origin}")]);
        }
        for site in ["cross-site", "same-site"] {
            refused(site, &[403], target, &[&format!("Sec-Fetch-Site: {site}"), "Sec-Fetch-Mode: no-cors"]);
        }
        // DNS rebinding: the attacker's name leads here.
        for host in
            ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "192.168.1.1", "0.0.0.0"]
        {
            refused(host, &[421], target, &[&format!("Host: {host}:{port}")]);
        }
        refused("another port", &[421], target, &["Host: 127.0.0.1:1"]);
    }
    let wrong = format!("/{}/song.opus", "0".repeat(token.len()));
    let near = format!("/{}/song.opus", &token[..token.len() - 1]);
    for target in ["/", "/song.opus", "//song.opus", &wrong, &near, "/../", "/favicon.ico", "/robots.txt"] {
        refused(target, &[404], target, &[]);
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let request = format!(
            "{method} {target} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        );
        let answer = ask(at, request.as_bytes());
        assert_eq!(answer.status, 405, "{method}: {}", answer.head);
        assert!(!answer.head.to_ascii_lowercase().contains("access-control-allow"), "{}", answer.head);
    }
    // It still plays.
    assert_eq!(get(at, target, &["Range: bytes=0-99"]).status, 206);
}

#[test]
fn no_gateway_opens_to_other_machines() {
    let net = Network::new();
    for addr in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0", "8.8.8.8:80", "224.0.0.1:0"] {
        let mut play = net.run("player", &["play", &format!("{}/x.ogg", net.tracker.url), "--gateway", addr]);
        play.ends_with(2);
        assert!(play.stderr().contains("not a loopback address"), "{addr}: {}", play.stderr());
        assert!(play.stdout().is_empty(), "{addr}: {}", play.stdout());
    }
}
