//! Users choose what they give: hosts keep to it, and trackers order nothing from them in vain.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use iceshare_tests::{Network, Proc, media, same};
use serde_json::Value;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

fn says(proc: &Proc, what: &str) {
    proc.error_line(what, |l| l.contains(what).then_some(()));
}

/// A publisher with further arguments and variables of its environment; its link.
fn publish(net: &Network, files: &[&Path], more: &[&str], env: &[(&str, &str)]) -> (Proc, Vec<String>) {
    let files: Vec<_> = files.iter().map(|f| f.to_string_lossy().into_owned()).collect();
    let mut args = vec!["publish"];
    args.extend(files.iter().map(String::as_str));
    args.extend(["--tracker", &net.tracker.url]);
    args.extend(more);
    let mut command = net.command("publisher", &args);
    command.envs(env.iter().copied());
    let proc = Proc::start(command);
    let links = files.iter().map(|file| {
        let name = Path::new(file).file_name().unwrap_or_default().to_string_lossy().into_owned();
        proc.line("its link", |l| l.contains(&format!("/{name}?")).then(|| l.trim().to_owned()))
    });
    let links = links.collect();
    (proc, links)
}

fn end(mut proc: Proc) {
    proc.signal("INT");
    let _ = proc.end();
}

/// Assignments that the tracker has made.
fn assigned(net: &Network) -> u64 {
    let all = json(&net.tracker.get("/api/protocols"));
    let all = all.as_array().or(all["protocols"].as_array()).cloned().unwrap_or_else(|| panic!("{all}"));
    all.iter().map(|p| p["assigned"].as_u64().unwrap_or_else(|| panic!("{p}"))).sum()
}

#[test]
fn outside_of_its_hours_a_host_gives_nothing_and_is_ordered_nothing() {
    let net = Network::new();
    let file = net.path("song.opus");
    media::opus_like(&file, 300_000, 4200, 31).unwrap_or_else(|e| panic!("{e}"));
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let hour = |later: u64| (seconds / 3600 + later) % 24;
    let hours = format!("{:02}:00-{:02}:00", hour(3), hour(5));
    let (publisher, urls) = publish(&net, &[&file], &["--give-hours", &hours], &[("TZ", "UTC")]);
    says(&publisher, &format!("giving nothing to others until {:02}:00", hour(3)));
    let (mut get, out) = net.get("receiver", &urls[0], &[]);
    says(&get, "none of them gives us any now");
    assert_eq!(assigned(&net), 0, "it was ordered in vain");
    // Asked what it gives, it says so.
    let mut info = net.command("other", &["info", &urls[0], "--json", "--give-hours", &hours]);
    info.env("TZ", "UTC");
    let mut info = Proc::start(info);
    info.ends_with(0);
    let told = json(&info.stdout());
    assert_eq!(
        (told["giving"]["now"].as_bool(), told["giving"]["hours"].as_str()),
        (Some(false), Some(&*hours))
    );
    end(publisher);
    let _again = publish(&net, &[&file], &["--give-hours", "0:00-24:00"], &[]);
    get.ends_with(0);
    assert!(same(&file, &out));
}

#[test]
fn a_ceiling_a_day_holds_over_restarts() {
    let net = Network::new();
    let file = net.path("song.opus");
    media::opus_like(&file, 4_000_000, 4200, 32).unwrap_or_else(|e| panic!("{e}"));
    let limits = ["--give-day", "400kB", "--up", "200kB"];
    let (publisher, urls) = publish(&net, &[&file], &limits, &[]);
    let (mut get, out) = net.get("receiver", &urls[0], &[]);
    says(&publisher, "giving nothing to others until tomorrow");
    // What was under way ended with it.
    says(&get, "waiting:");
    end(publisher);
    let given =
        json(&std::fs::read_to_string(net.path("publisher/given.json")).unwrap_or_else(|e| panic!("{e}")));
    let today = given["bytes_today"].as_u64().unwrap_or_else(|| panic!("{given}"));
    eprintln!("{today} bytes were given of 400000");
    // At most one write more.
    assert!((400_000..700_000).contains(&today), "{given}");
    let (publisher, _) = publish(&net, &[&file], &limits, &[]);
    says(&publisher, "giving nothing to others until tomorrow");
    end(publisher);
    let _publisher = publish(&net, &[&file], &["--give-day", "100MB"], &[]);
    get.ends_with(0);
    assert!(same(&file, &out));
}

#[test]
fn what_was_given_is_counted_though_its_giver_is_killed() {
    let net = Network::new();
    let file = net.path("song.opus");
    media::opus_like(&file, 1_000_000, 4200, 37).unwrap_or_else(|e| panic!("{e}"));
    let limits = ["--give-day", "100MB", "--up", "250kB"];
    let (mut publisher, urls) = publish(&net, &[&file], &limits, &[]);
    let (mut get, out) = net.get("receiver", &urls[0], &[]);
    get.ends_with(0);
    publisher.kill();
    assert!(same(&file, &out));
    let given =
        json(&std::fs::read_to_string(net.path("publisher/given.json")).unwrap_or_else(|e| panic!("{e}")));
    let today = given["bytes_today"].as_u64().unwrap_or_else(|| panic!("{given}"));
    eprintln!("{today} bytes of 1000000 were counted");
    assert!(today >= 250_000, "{given}");
}

#[test]
fn on_a_metered_link_a_host_rests_until_it_is_none() {
    let net = Network::new();
    let file = net.path("song.opus");
    media::opus_like(&file, 300_000, 4200, 33).unwrap_or_else(|e| panic!("{e}"));
    // No NetworkManager runs here: a program of its client's name says what it would.
    let (bin, answer) = (net.path("bin"), net.path("metered"));
    let script = format!(
        "#!/bin/sh\n[ \"$6\" = Metered ] || [ \"$5\" = Metered ] && exec cat '{}'\n",
        answer.display()
    );
    std::fs::create_dir(&bin)
        .and_then(|()| std::fs::write(bin.join("busctl"), script))
        .unwrap_or_else(|e| panic!("{e}"));
    std::fs::set_permissions(bin.join("busctl"), PermissionsExt::from_mode(0o755))
        .unwrap_or_else(|e| panic!("{e}"));
    let say = |text: &str| std::fs::write(&answer, text).unwrap_or_else(|e| panic!("{e}"));
    say("u 1\n");
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
    let (publisher, urls) = publish(&net, &[&file], &["--give-metered", "no"], &[("PATH", &path)]);
    says(&publisher, "as long as this link is metered");
    let (mut get, out) = net.get("receiver", &urls[0], &[]);
    says(&get, "waiting:");
    assert_eq!(assigned(&net), 0, "it was ordered in vain");
    say("u 2\n");
    says(&publisher, "giving to others again");
    get.ends_with(0);
    assert!(same(&file, &out));
}

#[test]
fn of_one_media_a_host_gives_nothing_of_another_little_and_of_the_rest_all() {
    let net = Network::new();
    let files = ["mine.opus", "slow.opus", "free.opus"].map(|name| net.path(name));
    for (file, seed) in files.iter().zip(34..) {
        media::opus_like(file, 300_000, 4200, seed).unwrap_or_else(|e| panic!("{e}"));
    }
    let rules = ["--give-media", "mine.opus=none", "--give-media", "slow.opus=100kB", "--give-lan"];
    let [mine, slow, free] = &files;
    let (_publisher, urls) = publish(&net, &[mine, slow, free], &rules, &[]);
    let (get, _) = net.get("mine", &urls[0], &[]);
    let (mut free_get, out) = net.get("free", &urls[2], &["--json"]);
    free_get.ends_with(0);
    assert!(same(free, &out));
    let (mut slow_get, out) = net.get("slow", &urls[1], &["--json"]);
    slow_get.ends_with(0);
    assert!(same(slow, &out));
    let elapsed = json(&slow_get.stdout())["elapsed_ms"].as_u64().unwrap_or_default();
    assert!(elapsed >= 2000, "{elapsed} ms for 300 kB at 100 kB/s");
    says(&get, "waiting:");
    let view = json(&net.tracker.get("/api/media/mine.opus"));
    let delivered = &view["bytes_delivered"];
    assert_eq!(
        (delivered["by_publisher"].as_u64(), delivered["by_peers"].as_u64()),
        (Some(0), Some(0)),
        "{view}"
    );
}

/// Where one has it and sends, the publisher is asked for nothing; its own first copy it gives.
#[test]
fn a_publisher_that_gives_once_sends_one_copy() {
    let net = Network::new();
    let file = net.path("song.opus");
    media::opus_like(&file, 1_000_000, 4200, 35).unwrap_or_else(|e| panic!("{e}"));
    let (publisher, urls) = publish(&net, &[&file], &["--give-once", "--up", "4MB"], &[]);
    let of_publisher = |get: &Proc| {
        let figures = json(&get.stdout());
        let hosts = figures["by_host"].as_object().cloned().unwrap_or_default();
        let key = |host: &str| urls[0].contains(&format!("key={host}"));
        hosts.iter().filter(|(host, _)| key(host)).filter_map(|(_, bytes)| bytes.as_u64()).sum::<u64>()
    };
    let (first, out) = net.get("first", &urls[0], &["--share-for", "10m", "--up", "2MB", "--json"]);
    first.line("its report", |l| (l == "}").then_some(()));
    assert!(same(&file, &out));
    let (mut second, out) = net.get("second", &urls[0], &["--json"]);
    second.ends_with(0);
    assert!(same(&file, &out));
    assert_eq!(of_publisher(&second), 0, "{}", second.stdout());
    let served = json(&net.tracker.get("/api/media/song.opus"))["bytes_delivered"].clone();
    assert!(served["by_publisher"].as_u64() >= Some(1_000_000), "{served}");
    end(first);
    end(publisher);
}

#[test]
fn nonsense_about_what_to_give_is_a_mistake_in_usage() {
    let net = Network::new();
    for (flags, word) in [
        (["--give-hours", "22-7"].as_slice(), "22:00-07:00"),
        (&["--give-day", "5Mbit"], "500MB"),
        (&["--give-day", "5GB", "--give-month", "1GB"], "never be used up"),
        (&["--give-media", "talks"], "PATH=none"),
        (&["--give-metered", "sometimes"], "yes"),
        (&["--give-day", "1PB"], "as in 500MB, 5GB or 1TB"),
        (&["--listen", "foo"], "an IP address and a port"),
    ] {
        let url = format!("{}/x.ogg", net.tracker.url);
        let mut info = net.run("a", &[&["info", url.as_str()], flags].concat());
        info.ends_with(2);
        assert!(info.stderr().contains(word), "{flags:?}: {}", info.stderr());
    }
    let mut nowhere = net.command("a", &["protocols", "--give-hours", "22:00-07:00"]);
    nowhere.env("TZ", "Mars/Base");
    let mut nowhere = Proc::start(nowhere);
    nowhere.ends_with(2);
    assert!(
        nowhere.stderr().contains("TZ=Mars/Base in the environment is no time zone"),
        "{}",
        nowhere.stderr()
    );
}
