//! A media path means the same media on every protocol.

use iceshare::icet::{Identity, MediaId, PageSet};
use iceshare::protocol::ErrorKind;

use crate::media::{self, Media};
use crate::world::path;
use crate::{Failure, Subject, World};

/// Publishes a small media at each path, and fetches each.
async fn all_found(s: &Subject, paths: &[String]) -> Result<(), Failure> {
    let world = World::new(s).await?;
    let mut all: Vec<Media> = Vec::new();
    for (i, p) in paths.iter().enumerate() {
        let pages = media::pages(100 + i as u64, media::even(6, 500 + i));
        all.push(world.host.publish(&path(p)?, &pages)?);
    }
    for m in &all {
        let what = world.unit(m, PageSet::range(1, 6));
        world.whole(m, what).await.map_err(|e| e.when(format!("{:?}", m.store.path().as_str())))?;
    }
    world.end().await;
    Ok(())
}

pub(super) async fn odd_paths(s: &Subject) -> Result<(), Failure> {
    let long = |segment: &str| {
        let mut p = segment.repeat(1024 / segment.len());
        while p.len() < 1024 {
            p.push('x');
        }
        p.truncate(1024);
        p
    };
    let mut deep = "d/".repeat(511);
    deep.push_str("ab");
    let mut paths = vec![deep, long("long"), long("ä"), long("音"), long("%2F"), long(" x")];
    for p in [
        "a",
        "A",
        "music/Sirens of May.opus",
        "music/Sirens%20of%20May.opus",
        "music/Sirens+of+May.opus",
        "Mötley/Ünder/Zwölf.ogg",
        "Mo\u{308}tley/NFD.ogg",
        "音楽/さくら 🌸.opus",
        "שלום/عربي.ogg",
        "emoji/👩\u{200d}👩\u{200d}👧.ogg",
        "tabless but spaced   thrice",
        "quotes/'single' \"double\" `back`",
        "brackets/[a]{b}(c)<d>",
        "marks/!$&*,;=:@|^~#?",
        "trailing dot./and.dot.",
        "non\u{a0}breaking",
    ] {
        paths.push(p.to_owned());
    }
    all_found(s, &paths).await
}

pub(super) async fn hostile_paths(s: &Subject) -> Result<(), Failure> {
    let paths = [
        "%2e%2e/%2e%2e/etc/passwd",
        "a/%2e/b",
        "a/.../b",
        "..a/b..",
        "%",
        "%%",
        "%zz",
        "%00",
        "a%2Fb",
        "a/b",
        "%252e",
        "a?b=c#d",
        "a#b",
        "http:/example.org/a",
        "*",
        "-rf",
        "$HOME",
        "$(id)",
        "`id`",
        "con",
        "nul.ogg",
        "C:/x",
        "file:a",
        "{}{0}%s%n",
        "'; DROP TABLE media;--",
        "<script>alert(1)</script>",
        " leading and trailing ",
        "\u{feff}bom",
        "+",
        "&amp;",
        "a HTTP/1.1",
        "~root",
    ];
    all_found(s, &paths.map(str::to_owned)).await
}

pub(super) async fn what_is_not_there(s: &Subject) -> Result<(), Failure> {
    let world = World::new(s).await?;
    let media = world.music(20)?;
    let other = world.host.publish(&path("other")?, &media::pages(2, media::even(20, 900)))?;
    let good = world.request(&media, world.unit(&media, PageSet::range(0, 3)));
    let mut unknown = good.clone();
    unknown.path = path("music/unknown.opus")?;
    unknown.media = MediaId::of(&world.host.key(), &unknown.path);
    world.refused(unknown, ErrorKind::NoMedia).await?;
    for version in [good.version + 1, 0, u64::MAX] {
        let mut wrong = good.clone();
        wrong.version = version;
        world.refused(wrong, ErrorKind::NoMedia).await.map_err(|e| e.when(format!("version {version}")))?;
    }
    for id in [MediaId([0; 32]), other.store.id()] {
        let mut wrong = good.clone();
        wrong.media = id;
        world.refused(wrong, ErrorKind::NoMedia).await.map_err(|e| e.when("another media id"))?;
    }
    let mut prefix = good.clone();
    prefix.path = path("music")?;
    world.refused(prefix, ErrorKind::NoMedia).await?;
    world.host.shelf.remove(&media.store.id());
    world.refused(good, ErrorKind::NoMedia).await.map_err(|e| e.when("taken off the shelf"))?;
    world.end().await;
    Ok(())
}

pub(super) async fn two_publishers_at_one_path(s: &Subject) -> Result<(), Failure> {
    let world = World::new(s).await?;
    let mut all = Vec::new();
    for seed in [41, 42, 43] {
        let pages = media::pages(u64::from(seed), media::even(20, 700));
        let who = Identity::from_seed(&[seed; 32]);
        all.push(world.host.publish_as(&who, &path("charts/number one")?, &pages)?);
    }
    for m in &all {
        world.whole(m, world.unit(m, PageSet::range(0, 21))).await?;
    }
    world.end().await;
    Ok(())
}
