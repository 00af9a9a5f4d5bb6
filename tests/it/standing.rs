//! A user sees their own standing with the tracker: in `info`, at the end of `get` and `play`, and at the gateway.

use std::time::Instant;

use iceshare_tests::process::http_get;
use iceshare_tests::{Network, PATIENCE, media, same};
use serde_json::Value;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

#[test]
fn what_was_given_and_received_is_told_with_what_it_is_worth() {
    let net = Network::new();
    let file = net.path("song.opus");
    media::opus_like(&file, 1_000_000, 4200, 21).unwrap_or_else(|e| panic!("{e}"));
    let size = std::fs::metadata(&file).map_or(0, |m| m.len());
    let (mut publisher, url) = net.publish("publisher", &file, &[]);
    // A newcomer who only took.
    let (mut first, out) = net.get("first", &url, &["--share-for", "10m", "--json"]);
    first.line("its figures", |l| (l == "}").then_some(()));
    assert!(same(&file, &out));
    let told = json(&first.stdout());
    let standing = &told["standing"];
    assert!(standing["given"].as_u64() == Some(0) && standing["peers"].as_u64() == Some(1), "{told}");
    assert!(standing["weight"].as_f64().is_some_and(|w| w <= 1.0), "{told}");
    assert!(standing["trust"].as_f64() == Some(1.0), "{told}");
    first.error_line("how it stands", |l| {
        (l.contains("the tracker counts") && l.contains("of the 1 other peer")).then_some(())
    });
    // Who publishes is told, too.
    publisher.error_line("what it gave", |l| l.contains("given to others since the start").then_some(()));
    publisher.error_line("how it stands", |l| l.contains("the tracker counts").then_some(()));
    // Another one, who plays what only the first one has any more.
    publisher.signal("INT");
    let _ = publisher.end();
    let mut play = net.run("second", &["play", &url]);
    let link = play.line("its http:// link", |l| l.starts_with("http://").then(|| l.trim().to_owned()));
    let (authority, path) = link.trim_start_matches("http://").split_once('/').expect("a link");
    assert!(!http_get(authority, &format!("/{path}")).is_empty());
    let folder = path.rsplit_once('/').map_or("", |(f, _)| f);
    let until = Instant::now() + PATIENCE;
    let table = loop {
        let table = json(&http_get(authority, &format!("/{folder}/table.json")));
        if table["standing"]["received"].as_u64().is_some_and(|n| n > 0) {
            break table;
        }
        assert!(Instant::now() < until, "the gateway never told how we stand: {table}");
        std::thread::park_timeout(std::time::Duration::from_millis(50));
    };
    let effect = table["standing"]["effect"].as_str().unwrap_or_default();
    assert!(effect.contains("where uploads are scarce we count"), "{table}");
    assert!(table["standing"]["doubts"].is_null(), "{table}");
    play.signal("INT");
    play.ends_with(130);
    let end = play.stderr();
    assert!(end.lines().any(|l| l.contains("the tracker counts") && l.contains("received")), "{end}");
    // What the first one gave is counted for it, when both ends have confirmed it.
    first.signal("INT");
    let _ = first.end();
    let told = loop {
        let mut info = net.run("first", &["info", &url, "--json"]);
        info.ends_with(0);
        let told = json(&info.stdout());
        if told["standing"]["given"].as_u64().is_some_and(|n| n > 0) {
            break told;
        }
        assert!(Instant::now() < until, "nothing was counted for it: {told}");
    };
    let count = |name: &str| told["standing"][name].as_u64().unwrap_or_default();
    assert_eq!((count("given"), count("received")), (count_of(&told, "sent"), count_of(&told, "received")));
    assert!(count("received") <= size && count("received") > size / 2, "{told}");
    let mut info = net.run("first", &["info", &url]);
    info.ends_with(0);
    let said = info.stdout();
    let line = |word: &str| said.lines().find(|l| l.starts_with(word)).unwrap_or_else(|| panic!("{said}"));
    assert!(line("we ").contains("gave") && line("standing ").contains("where uploads are scarce"), "{said}");
    assert!(!said.contains("trust "), "{said}");
}

fn count_of(told: &Value, name: &str) -> u64 {
    told[name].as_u64().unwrap_or_else(|| panic!("{told}"))
}
