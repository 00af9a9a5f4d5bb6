//! A broadcast in a real browser, which stops where a link of a chain ends unless it gets one stream with titles beside it.

use std::process::Command;

use iceshare_tests::{Network, Proc, have};

use super::browser::Browser;
use crate::source::{SECRET, link, say, station};

/// An encoder of Opus that streams a tone as fast as it sounds.
fn encoder(door: &str) -> Proc {
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-v", "error", "-re", "-f", "lavfi", "-i", "sine=440:sample_rate=48000", "-c:a", "libopus"]);
    ffmpeg.args(["-page_duration", "200000", "-f", "ogg", "-content_type", "audio/ogg"]);
    Proc::start({
        ffmpeg.arg(format!("icecast://source:s3cret@{door}/live.opus"));
        ffmpeg
    })
}

#[test]
fn a_browser_plays_on_through_titles_and_another_encoder_and_shows_what_is_on() {
    if !have("ffmpeg") {
        return;
    }
    let Some(mut browser) = Browser::start() else { return };
    let network = Network::new();
    let (station, door) = station(&network);
    let mut first = encoder(&door);
    let play = network.run("listener", &["play", &link(&station)]);
    let page =
        play.error_line("its page", |l| l.split_once("figures: ").map(|(_, url)| url.trim().to_owned()));
    browser.open(&page);
    browser.until("a player", "document.getElementById('player').src.endsWith('?chain=flat')");
    browser.eval("player.muted = true; player.play().then(() => true)");
    browser.until("two seconds of sound", "player.currentTime > 2");
    let title = |song: &str| {
        let at = format!("GET /admin/metadata?mode=updinfo&mount=/live.opus&song={song} HTTP/1.0\n");
        let said = say(&door, &format!("{at}Authorization: Basic {SECRET}\n\n"), "</iceresponse>\n").1;
        assert!(said.contains("<return>1</return>"), "{said}");
    };
    browser.eval("window.mark = player.currentTime; window.loads = 0; player.addEventListener('loadstart', () => { loads++; })");
    for song in ["one+%3Cb%3E", "abc%E2%80%AEgpj.exe", "two"] {
        title(song);
        let shown = song.replace("+%3Cb%3E", " <b>").replace("%E2%80%AE", "");
        browser.until(&shown, &format!("document.getElementById('now').textContent === '{shown}' && !document.getElementById('now').hidden"));
    }
    browser.until("four seconds more", "player.currentTime > mark + 4");
    // Another encoder with the same setup: the stream goes on, too.
    first.signal("INT");
    first.end();
    browser.eval("window.mark = player.currentTime");
    let _second = encoder(&door);
    browser.until("the next encoder", "player.currentTime > mark + 5");
    assert_eq!(browser.eval("[player.ended, !!player.error, loads].join()"), "false,false,0");
    assert_eq!(browser.complaints, Vec::<String>::new());
}
