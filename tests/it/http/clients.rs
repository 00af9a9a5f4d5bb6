//! Programs that everybody has fetch from a host: curl and aria2.

use std::path::Path;
use std::process::Stdio;

use iceshare::icet::NetKind;
use iceshare_tests::{PATIENCE, have};
use tokio::process::Command;
use tokio::time::timeout;

use super::{http, pair};
use crate::host::{Host, Made, content};

/// Runs a program to its end, off the runtime's threads; its standard output.
async fn run(program: &str, args: &[&str], dir: &Path) -> Vec<u8> {
    let child = Command::new(program)
        .args(args)
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let out = timeout(PATIENCE, child.wait_with_output()).await.unwrap().unwrap();
    assert!(out.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    out.stdout
}

fn url(host: &Host) -> String {
    format!("http://{}/music/a%20b.opus", host.addr(NetKind::Tcp))
}

#[tokio::test]
async fn curl_fetches_resumes_and_asks_for_ranges_and_pages() {
    if !have("curl") {
        return;
    }
    let (host, media, _) = pair(Made::of(http())).await;
    let (url, dir) = (url(&host), host.dir.path());
    let all = content(&media, 0..media.manifest().pages);
    let curl = async |args: &[&str]| run("curl", &[&["-sSf"], args, &[&url]].concat(), dir).await;
    assert!(curl(&[]).await == all);
    assert!(curl(&["-r", "1000-1999"]).await == all[1000..2000]);
    assert!(curl(&["-r", "-500"]).await == all[all.len() - 500..]);
    assert!(curl(&["-H", "Range: pages=10-19"]).await == content(&media, 10..20));
    assert!(
        curl(&["-H", "Range: pages=3-30;stripe=1/3"]).await
            == content(&media, (3..31).filter(|p| p % 3 == 1))
    );
    let head = String::from_utf8(curl(&["-I"]).await).unwrap().to_lowercase();
    assert!(head.contains("accept-ranges: bytes, pages, proofs, t"), "{head}");
    std::fs::write(dir.join("part"), &all[..123_456]).unwrap();
    curl(&["-C", "-", "-o", "part"]).await;
    assert!(std::fs::read(dir.join("part")).unwrap() == all);
    let several = curl(&["-r", "0-9,20-29"]).await;
    let has = |part: &[u8]| several.windows(part.len()).any(|w| w == part);
    assert!(has(&all[..10]) && has(&all[20..30]));
}

#[tokio::test]
async fn aria2_fetches_over_several_connections() {
    if !have("aria2c") {
        return;
    }
    let (host, media, _) = pair(Made::of(http())).await;
    let args = [
        "-x4",
        "-s4",
        "-k1M",
        "--min-split-size=1M",
        "--file-allocation=none",
        "--no-conf",
        "-q",
        "-o",
        "out",
    ];
    run("aria2c", &[&args, &[&url(&host)[..]][..]].concat(), host.dir.path()).await;
    let got = std::fs::read(host.dir.path().join("out")).unwrap();
    assert!(got == content(&media, 0..media.manifest().pages));
}
