//! Publishers who take what is not theirs, or write what steers a terminal.

use std::time::{SystemTime, UNIX_EPOCH};

use iceshare_tests::{Network, media, same};

use super::stranger::eventually;

#[test]
fn a_path_stays_its_owners() {
    let net = Network::new();
    let (mine, theirs) = (net.path("mine.opus"), net.path("theirs.opus"));
    media::opus_like(&mine, 200_000, 4200, 61).expect("a file");
    media::opus_like(&theirs, 200_000, 4200, 62).expect("a file");
    let (_owner, url) = net.publish("owner", &mine, &["--as", "music/song.opus"]);
    let args =
        ["publish", &theirs.to_string_lossy(), "--tracker", &net.tracker.url, "--as", "music/song.opus"];
    let mut thief = net.run("thief", &args);
    thief.ends_with(6);
    let said = thief.stderr();
    assert!(said.contains("another key owns") && said.contains("--as"), "{said}");
    assert!(!thief.stdout().contains("icet://"), "{}", thief.stdout());
    // With the owner's key in the link and without.
    for (who, url) in [("a", url.as_str()), ("b", url.split('?').next().unwrap_or_default())] {
        let (mut get, out) = net.get(who, url, &[]);
        get.ends_with(0);
        assert!(same(&mine, &out));
    }
}

/// The command ends for one of its files: no link of another is told, since it would lead nowhere.
#[test]
fn where_one_of_several_files_is_refused_no_link_is_told() {
    let net = Network::new();
    let (free, mine) = (net.path("free.opus"), net.path("mine.opus"));
    media::opus_like(&free, 100_000, 4200, 65).expect("a file");
    media::opus_like(&mine, 100_000, 4200, 66).expect("a file");
    let (_owner, _) = net.publish("owner", &mine, &[]);
    let (free, mine) = (free.to_string_lossy(), mine.to_string_lossy());
    let mut thief = net.run("thief", &["publish", &free, &mine, "--tracker", &net.tracker.url]);
    thief.ends_with(6);
    assert!(thief.stderr().contains("another key owns mine.opus"), "{}", thief.stderr());
    assert_eq!(thief.stdout(), "");
}

/// All that a publisher remembers is lost but its key. What it publishes then is newer than what receivers have seen.
#[test]
fn a_publisher_that_lost_its_folder_is_not_taken_for_a_rollback() {
    let net = Network::new();
    let file = net.path("song.opus");
    media::opus_like(&file, 200_000, 4200, 63).expect("a file");
    let (mut publisher, url) = net.publish("publisher", &file, &[]);
    let (mut get, out) = net.get("receiver", &url, &[]);
    get.ends_with(0);
    assert!(same(&file, &out));
    publisher.kill();
    let (folder, key) = (net.path("publisher"), net.path("key"));
    std::fs::rename(folder.join("key"), &key).expect("a key");
    std::fs::remove_dir_all(&folder).expect("a folder");
    std::fs::create_dir(&folder).expect("a folder");
    std::fs::rename(&key, folder.join("key")).expect("a key");
    // Versions are seconds: nobody loses a folder and publishes again within one.
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let before = now();
    eventually("the next second", || (now() > before).then_some(()));
    media::opus_like(&file, 210_000, 4200, 64).expect("another file");
    let (_publisher, again) = net.publish("publisher", &file, &[]);
    assert_eq!(url, again);
    std::fs::remove_file(&out).expect("to be fetched again");
    for who in ["receiver", "newcomer"] {
        let (mut get, out) = net.get(who, &url, &[]);
        get.ends_with(0);
        assert!(same(&file, &out), "{who}");
    }
}

/// Sets a window's title, clears the screen, turns the reading direction, adds lines.
const TITLE: &str =
    "\u{1b}]0;owned\u{7}\u{1b}[2Jgpj\u{202e}ggo\nsecond line\r\u{9b}31m<script>alert(1)</script>";

/// Whether somebody's terminal would obey.
fn steers(text: &str) -> bool {
    text.chars().any(|c| (c.is_control() && c != '\n') || ('\u{202a}'..='\u{202e}').contains(&c))
}

#[test]
fn a_title_steers_no_terminal_and_no_page() {
    let net = Network::new();
    let file = net.path("song.opus");
    media::opus_like(&file, 200_000, 4200, 63).expect("a file");
    let (publisher, url) = net.publish("publisher", &file, &["--title", TITLE]);
    assert!(!steers(&publisher.stderr()) && !steers(&publisher.stdout()), "publish: {}", publisher.stderr());
    let (mut get, out) = net.get("receiver", &url, &["--progress", "lines"]);
    get.ends_with(0);
    assert!(same(&file, &out));
    assert!(!steers(&get.stderr()) && !steers(&get.stdout()), "get: {:?}", get.stderr());
    let mut info = net.run("receiver", &["info", &url]);
    info.ends_with(0);
    let told = info.stdout();
    assert!(told.contains("owned"), "the title is not shown at all: {told}");
    assert!(!steers(&told) && !steers(&info.stderr()), "info: {told:?}");
    assert!(!told.lines().any(|l| l.starts_with("second line")), "a line of its own: {told}");
    let mut info = net.run("receiver", &["info", "--json", &url]);
    info.ends_with(0);
    let json: serde_json::Value = serde_json::from_str(&info.stdout()).expect("JSON");
    assert_eq!(json["title"], TITLE, "JSON has the title as it is");
    assert!(!info.stdout().contains('\u{1b}'), "but escaped");
    let mut verify = net.run("receiver", &["verify", &out.to_string_lossy()]);
    verify.ends_with(0);
    assert!(!steers(&verify.stdout()) && !steers(&verify.stderr()));
    // The tracker's API and its page.
    for path in ["/api/media", "/api/media/song.opus", "/", "/metrics"] {
        let body = net.tracker.get(path);
        assert!(!body.contains('\u{1b}') && !body.contains('\u{7}'), "{path}: {body:?}");
        assert!(path.starts_with("/api") || !body.contains("<script>alert"), "{path}: {body}");
    }
}
