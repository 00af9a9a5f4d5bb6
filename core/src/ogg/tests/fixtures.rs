use std::convert::Infallible;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use crate::ogg::*;

pub(super) fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(name)
}

#[test]
fn show() {
    for e in std::fs::read_dir(path("")).unwrap() {
        let n = e.unwrap().path();
        if !["ogg", "opus", "oga", "ogv", "spx"].iter().any(|x| n.extension().is_some_and(|e| e == *x)) { continue }
        let data = std::fs::read(&n).unwrap();
        let mut t = Timeline::new();
        let mut places = vec![];
        let r = scan_slice::<Infallible>(&data, ScanMode::Lenient, |e| {
            match e { ScanEvent::Page(p) => places.push(t.page(&p.header, p.bytes)), ScanEvent::Damage(d) => eprintln!("{d:?}") }
            ControlFlow::Continue(())
        });
        eprintln!("{} {r:?} dur {} links {} {:?}", n.file_name().unwrap().display(), t.duration(), t.link_count(), t.comments());
        for l in t.links() { eprintln!("   {l:?}"); }
        for p in &places { eprint!(" {}{}{}{}@{}", p.stream, if p.setup {"s"} else {""}, if p.keyframe {"k"} else {""}, if p.continued {"c"} else {""}, p.time/1000); }
        eprintln!();
    }
}
