//! The web page in a real browser, before a real tracker with a swarm.

use iceshare_tests::{Network, media, same};
use serde_json::Value;

use super::browser::Browser;

/// A title that would do something if it were not taken as text.
const TITLE: &str = "<img src=x onerror=\"document.title='owned'\"><b>Ünïcode & co</b>";
const TOKEN: &str = "0123456789abcdef-operator";

fn nothing_overflows(browser: &mut Browser, width: u32) {
    let wide = browser.eval("document.documentElement.scrollWidth");
    assert!(wide.as_u64() <= Some(u64::from(width)), "{wide} pixels on a screen of {width}");
}

/// Everything that can be used is reached with the Tab key, in the order of the page, and shows that it has the focus.
fn walk_by_keyboard(browser: &mut Browser) {
    // What is there to be used, while nothing comes that would change it.
    browser
        .eval("(async () => { window.live = round; round = async () => {}; await live(); await live(); })()");
    browser.eval("document.activeElement.blur(); document.querySelector('.skip').focus()");
    browser.eval(
        "window.wanted = [...document.querySelectorAll('a, button, input, textarea, summary')].filter((e) => e.checkVisibility())",
    );
    let all = browser.eval("wanted.length").as_u64().unwrap_or_default();
    assert!(all >= 10, "only {all}");
    let mut walked = vec![browser.eval("wanted.indexOf(document.activeElement)")];
    while walked.len() < 40 {
        browser.tab();
        let shown = "document.activeElement === document.body || getComputedStyle(document.activeElement).outlineStyle === 'solid'";
        let what = browser.eval("document.activeElement.outerHTML.slice(0, 120)");
        assert_eq!(browser.eval(shown), true, "no focus is seen on {what}");
        let at = browser.eval("wanted.indexOf(document.activeElement)");
        walked.push(at.clone());
        if at == all - 1 {
            break;
        }
    }
    let expected: Vec<Value> = (0..all).map(Value::from).collect();
    assert_eq!(walked, expected, "the way of the Tab key");
    browser.eval("document.activeElement.blur(); round = live");
}

/// Ninety members, of whom a part is drawn, do not lie over each other, and their names stay in the picture. Protocols have colours by
/// their names, whichever are there.
fn a_crowd_is_readable(browser: &mut Browser, width: u64) {
    let colours = browser.eval("['udp', 'libp2p', 'http', 'quic', 'carrier', 'carrier'].map(colour).join()");
    let colours = colours.as_str().unwrap_or_default();
    let (ours, others) = colours.split_at(colours.rfind("p1,").map_or(0, |i| i + 3));
    assert_eq!(ours, "p2,p3,p0,p1,", "{colours}");
    let same = others.split_once(',').is_some_and(|(a, b)| a == b && a > "p3");
    assert!(same, "a stranger's protocol has one colour, and none of ours: {colours}");
    let members = "Array.from({ length: 90 }, (_, i) => ({ peer: (i + 0x10000000).toString(16), publisher: i === 7, pages_held: i, intent: 'whole' }))";
    let drawn = browser.eval(&format!(
        "(() => {{ const swarm = {members}; const flows = swarm.slice(0, 30).map((x, i) => ({{ from: x.peer, to: swarm[(i * 7 + 1) % 90].peer, protocol: i % 2 ? 'udp' : 'http', assignments: i }})); \
         showPicture({{ swarm, flows, pages: 90, members: 200 }}); \
         const box = document.getElementById('picture').getBoundingClientRect(); \
         const inside = [...document.querySelectorAll('#picture text')].every((t) => {{ const b = t.getBoundingClientRect(); return b.left >= box.left - 1 && b.right <= box.right + 1 && b.top >= box.top - 1 && b.bottom <= box.bottom + 1; }}); \
         const nodes = [...document.querySelectorAll('#picture .node')].map((n) => ['cx', 'cy', 'r'].map((a) => Number(n.getAttribute(a)))); \
         const apart = nodes.every(([x, y, r], i) => {{ const [u, v, s] = nodes[(i + 1) % nodes.length]; return Math.hypot(x - u, y - v) >= r + s; }}); \
         return {{ inside, apart, nodes: nodes.length, publisher: document.querySelectorAll('#picture .publisher').length, \
           width: document.getElementById('picture').viewBox.baseVal.width, legend: document.getElementById('legend').textContent, words: document.querySelectorAll('#flow-list li').length }}; }})()"
    ));
    let nodes = if width == 640 { 60 } else { 36 };
    let expected = serde_json::json!({
        "inside": true, "apart": true, "nodes": nodes, "publisher": 1, "width": width, "legend": "httpudp", "words": 30,
    });
    assert_eq!(drawn, expected);
}

#[test]
fn the_page_shows_the_swarm_and_does_what_its_operator_says() {
    let Some(mut browser) = Browser::start() else { return };
    let dir = tempfile::tempdir().unwrap_or_else(|e| panic!("{e}"));
    let token = dir.path().join("token");
    std::fs::write(&token, format!("{TOKEN}\n")).unwrap_or_else(|e| panic!("{e}"));
    let net = Network::with(&["--web-token", &token.to_string_lossy()]);
    let (file, slow) = (net.path("song one.opus"), net.path("slow.opus"));
    for (file, seed, bytes) in [(&file, 10, 2_000_000), (&slow, 12, 4_000_000)] {
        media::opus_like(file, bytes, 4200, seed).unwrap_or_else(|e| panic!("{e}"));
    }
    let (_publisher, url) = net.publish("publisher", &file, &["--title", &format!("{TITLE}\u{202e}\u{61c}")]);
    // So slow that it is under way until the end of the test.
    let (_slow, slow_url) = net.publish("slow", &slow, &["--up", "15kB"]);
    let (_never, _) = net.get("never", &slow_url, &[]);
    let share = ["--share-for", "10m"];
    let (first, out) = net.get("first", &url, &share);
    let (second, _) = net.get("second", &url, &share);

    browser.screen(1280, 900, false);
    browser.prefers("light", "no-preference");
    browser.open(&net.tracker.web);
    browser.until("both media", "document.querySelectorAll('#list tr').length === 2");
    let row = |path: &str| {
        format!(
            "[...document.querySelectorAll('#list tr')].find((r) => r.querySelector('.link').textContent === '{path}')"
        )
    };
    let title = browser.eval(&format!("{}.querySelector('.name').textContent", row("song one.opus")));
    assert_eq!(title, TITLE, "a title is text, and turns nothing");
    browser.eval(&format!("{}.querySelector('.name').click()", row("slow.opus")));
    browser
        .until("that swarm", "document.getElementById('swarm-title').textContent === 'Swarm of slow.opus'");
    browser.until("who sends to whom", "document.querySelectorAll('#picture .flow').length > 0");
    browser.until("page maps", "document.querySelectorAll('#maps li').length === 2");
    browser.until(
        "a peer that holds a part",
        "[...document.querySelectorAll('#maps .n')].some((n) => /^[1-9]\\d? %$/.test(n.textContent))",
    );
    for get in [&first, &second] {
        get.error_line("that it is complete and shares", |l| l.contains("sharing").then_some(()));
    }
    assert!(same(&file, &out));
    browser.until(
        "a protocol with a rate",
        "[...document.querySelectorAll('#protocols [data-label=Rate]')].some((td) => td.textContent.includes('B/s'))",
    );
    browser.until(
        "what was delivered",
        "/\\d % from peer to peer/.test(document.getElementById('share').textContent)",
    );
    // Rows are not changed under somebody's focus.
    browser.eval("document.activeElement.blur()");
    let copies = format!(
        "{}.querySelector('[data-label=\"Whole copies\"]').textContent === '3'",
        row("song one.opus")
    );
    browser.until("whole copies", &copies);
    browser.eval(&format!("{}.querySelector('.name').click()", row("song one.opus")));
    browser.until("the other swarm", "document.querySelectorAll('#maps li').length === 3");
    browser.until("that nobody sends there", "document.querySelectorAll('#picture .flow').length === 0");
    nothing_overflows(&mut browser, 1280);

    walk_by_keyboard(&mut browser);
    a_crowd_is_readable(&mut browser, 640);
    // A search that finds nothing, and one that does.
    let search = |text: &str| {
        format!(
            "(() => {{ const q = document.getElementById('q'); q.value = '{text}'; q.dispatchEvent(new Event('input')); }})()"
        )
    };
    browser.eval(&search("nothing like this"));
    browser.until(
        "that nothing matches",
        "document.getElementById('count').textContent.startsWith('0 media match')",
    );
    browser.eval(&search(""));
    browser.until("the media again", "document.querySelectorAll('#list tr').length === 2");

    // On a phone, in the dark, without motion.
    browser.prefers("dark", "reduce");
    browser.screen(360, 800, true);
    nothing_overflows(&mut browser, 360);
    a_crowd_is_readable(&mut browser, 340);
    let animation = browser.eval("getComputedStyle(document.getElementById('bar-peers')).transitionDuration");
    assert_eq!(animation, "0s");
    let ground = browser.eval("getComputedStyle(document.body).backgroundColor");
    assert_eq!(ground, "rgb(16, 22, 28)", "dark");
    let landmarks = browser
        .eval("['header', 'main', 'footer', 'h1', '[role=search]'].every((s) => document.querySelector(s))");
    assert_eq!(landmarks, true);
    let unnamed = browser.eval(
        "[...document.querySelectorAll('input, textarea')].filter((i) => !i.labels.length).map((i) => i.id)",
    );
    assert_eq!(unnamed, Value::Array(Vec::new()), "fields without a label");
    let unnamed = browser.eval("[...document.querySelectorAll('button, svg[role=img]')].filter((b) => !(b.textContent.trim() || b.getAttribute('aria-label') || b.getAttribute('aria-labelledby'))).length");
    assert_eq!(unnamed, 0, "buttons and pictures without a name");
    assert_eq!(browser.complaints, Vec::<String>::new(), "the console is clean");
    assert_eq!(browser.eval("document.title"), "IceShare tracker", "no stranger's script ran");
    let kept = browser.eval("document.cookie + localStorage.length + sessionStorage.length");
    assert_eq!(kept, "00", "nothing is kept in the browser");

    // The operator: a wrong token, the right one, and a withdrawal.
    let unlock = |token: &str| {
        format!(
            "document.getElementById('token').value = '{token}'; document.getElementById('unlock').requestSubmit()"
        )
    };
    browser.eval(&unlock("wrong-wrong-wrong-wrong"));
    browser.until(
        "that it is wrong",
        "document.getElementById('answer').textContent.includes('not the operator')",
    );
    browser.complaints.clear(); // the browser itself notes the 401
    browser.eval(&unlock(TOKEN));
    browser.until("the controls", "!document.getElementById('controls').hidden");
    nothing_overflows(&mut browser, 360);
    browser.eval("document.getElementById('path').value = 'song one.opus'; document.getElementById('withdraw').requestSubmit()");
    browser.until("that it is withdrawn", "document.getElementById('answer').textContent === 'Withdrawn.'");
    browser.until("that it is gone", "document.querySelectorAll('#list tr').length === 1");
    browser.until(
        "what is withdrawn",
        "document.querySelector('#withdrawn li').textContent.startsWith('song one.opus')",
    );
    browser.eval("document.querySelector('[name=media_per_key]').value = '7'; document.getElementById('limits').requestSubmit()");
    browser.until(
        "that limits are set",
        "document.getElementById('answer').textContent === 'The limits are set.'",
    );
    assert_eq!(browser.eval("document.querySelector('[name=media_per_key]').value"), "7");
    nothing_overflows(&mut browser, 360);
    // The page may have asked for it just when it went.
    browser.complaints.retain(|c| !(c.contains("status of 404") && c.contains("/api/media/song%20one.opus")));
    assert_eq!(browser.complaints, Vec::<String>::new(), "the console is clean");
    assert!(browser.eval("location.href").as_str().is_some_and(|u| !u.contains(TOKEN)));
}
