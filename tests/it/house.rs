//! The invariants of ARCHITECTURE.md that can be read off the sources: who depends on whom, and what logic may not touch.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The folder of the workspace.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// Files below `dir` whose names end in `ending`, as paths from the workspace.
fn files(dir: &str, ending: &str) -> Vec<PathBuf> {
    let (root, mut out) = (root(), Vec::new());
    let mut dirs = vec![root.join(dir)];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                if name != "target" && !name.starts_with('.') {
                    dirs.push(path);
                }
            } else if name.ends_with(ending) {
                out.push(path.strip_prefix(&root).unwrap().to_owned());
            }
        }
    }
    out.sort();
    out
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

fn manifest(krate: &str) -> toml::Table {
    read(&Path::new(krate).join("Cargo.toml")).parse().unwrap()
}

fn members() -> Vec<String> {
    let workspace = manifest(".");
    let members = workspace["workspace"]["members"].as_array().unwrap();
    members.iter().map(|m| m.as_str().unwrap().to_owned()).collect()
}

/// Names in `[dependencies]` and the target-specific ones; with `dev` those of tests and builds too.
fn dependencies(krate: &str, dev: bool) -> BTreeSet<String> {
    let manifest = manifest(krate);
    let mut tables = vec![&manifest];
    tables.extend(
        manifest
            .get("target")
            .and_then(|t| t.as_table())
            .into_iter()
            .flat_map(|t| t.values())
            .filter_map(|t| t.as_table()),
    );
    let kinds: &[&str] =
        if dev { &["dependencies", "dev-dependencies", "build-dependencies"] } else { &["dependencies"] };
    let named =
        |t: &&toml::Table, kind: &&str| t.get(*kind).and_then(|d| d.as_table()).cloned().unwrap_or_default();
    tables
        .iter()
        .flat_map(|t| kinds.iter().flat_map(move |k| named(t, k).into_iter().map(|(n, _)| n)))
        .collect()
}

/// The lines of a source with their numbers, without comments, and whether each belongs to unit tests.
fn code(path: &Path) -> Vec<(usize, String, bool)> {
    let mut out = Vec::new();
    // Crate iceshare-tests is tests as a whole; the laboratory's programs are not.
    let mut in_tests = path.components().any(|c| c.as_os_str() == "tests") && !path.starts_with("tests/lab")
        || path.file_stem().is_some_and(|s| s == "tests" || s.to_string_lossy().ends_with("_tests"));
    let text = read(path);
    let mut lines = text.lines().enumerate().peekable();
    while let Some((i, line)) = lines.next() {
        // `#[cfg(test)]` before an inline module: what follows is tests. (Before `mod tests;` it is another file.)
        if line.trim() == "#[cfg(test)]"
            && lines.peek().is_some_and(|(_, l)| l.trim_start().starts_with("mod ") && l.ends_with('{'))
        {
            in_tests = true;
        }
        let code = line.split("//").next().unwrap_or_default();
        if !code.trim().is_empty() {
            out.push((i + 1, code.to_owned(), in_tests));
        }
    }
    out
}

/// Where `words` stand in the code of `files`, unless `allowed` says otherwise.
fn find(files: &[PathBuf], words: &[&str], allowed: impl Fn(&Path, &str, bool) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for path in files {
        for (line, code, in_tests) in code(path) {
            if let Some(word) =
                words.iter().find(|w| code.contains(**w)).filter(|_| !allowed(path, &code, in_tests))
            {
                found.push(format!("{}:{line}: {word}", path.display()));
            }
        }
    }
    found
}

fn none(found: Vec<String>, why: &str) {
    assert!(found.is_empty(), "{why}:\n  {}", found.join("\n  "));
}

#[test]
fn the_protocol_crate_has_no_socket_runtime_or_clock() {
    let allowed: BTreeSet<String> =
        ["blake3", "ed25519-dalek", "minicbor", "thiserror"].map(str::to_owned).into();
    let there = dependencies("proto-spec", false);
    assert!(there.is_subset(&allowed), "crate icet depends on {:?}", there.difference(&allowed));
    let words = [
        "std::net::Udp",
        "std::net::Tcp",
        "UdpSocket",
        "TcpStream",
        "TcpListener",
        "Instant",
        "SystemTime",
        "std::fs",
        "std::thread",
        "std::env",
    ];
    none(
        find(&files("proto-spec/src", ".rs"), &words, |_, _, _| false),
        "crate icet does IO or reads a clock",
    );
}

#[test]
fn crates_depend_downwards_only() {
    let is_transport = |n: &String| n.starts_with("iceshare-transport-");
    let above_core = |n: &String| {
        is_transport(n) || ["icetracker", "iceshare-cli", "iceshare-gateway"].contains(&n.as_str())
    };
    let check = |krate: &str, bad: &dyn Fn(&String) -> bool| {
        let found: Vec<_> = dependencies(krate, false).into_iter().filter(bad).collect();
        assert!(found.is_empty(), "{krate} must not depend on {found:?}");
    };
    check("proto-spec", &|n| n.starts_with("ice"));
    check("core", &above_core);
    check("tracker", &|n| is_transport(n) || n == "iceshare-cli" || n == "iceshare-gateway");
    for member in members() {
        if member.starts_with("transports/") {
            check(&member, &above_core);
        }
        if member.starts_with("players/") {
            check(&member, &|n| is_transport(n) || n == "icetracker" || n == "iceshare-cli");
        }
    }
}

/// Who knows one transport finds the way in another: the same names, and the conformance suite.
#[test]
fn transports_are_of_one_shape() {
    let mut missing = Vec::new();
    for member in members().into_iter().filter(|m| m.starts_with("transports/")) {
        let there = |name: &str| root().join(&member).join(name).exists();
        for part in ["lib", "config", "wire", "serve", "fetch"] {
            if !there(&format!("src/{part}.rs")) && !there(&format!("src/{part}/mod.rs")) {
                missing.push(format!("{member}: src/{part}.rs"));
            }
        }
        if !there("tests/conformance.rs") {
            missing.push(format!("{member}: tests/conformance.rs"));
        }
    }
    none(missing, "a transport has the file names of the others");
}

#[test]
fn every_crate_takes_versions_and_lints_from_the_workspace() {
    for member in members() {
        let manifest = manifest(&member);
        assert_eq!(
            manifest["lints"]["workspace"].as_bool(),
            Some(true),
            "{member}: [lints] workspace = true"
        );
        for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
            for (name, d) in manifest.get(kind).and_then(|d| d.as_table()).into_iter().flatten() {
                let inherited = d.get("workspace").and_then(toml::Value::as_bool) == Some(true);
                assert!(inherited || d.get("path").is_some(), "{member}: {name} has a version of its own");
            }
        }
    }
}

/// What logic is given as an argument, or has no business with.
const OUTSIDE: [&str; 14] = [
    "tokio",
    "quinn",
    "hyper",
    "rustls",
    "UdpSocket",
    "TcpStream",
    "TcpListener",
    "Instant::now",
    "SystemTime",
    "thread_rng",
    "rand::rng(",
    "getrandom",
    "std::thread",
    "std::fs",
];

#[test]
fn engine_and_swarm_are_sans_io() {
    let mut sources = files("core/src/engine", ".rs");
    sources.extend(files("tracker/src/swarm", ".rs"));
    sources.extend(files("core/src/live", ".rs"));
    for folder in ["wire", "assoc", "endpoint"] {
        sources.extend(files(&format!("transports/udp/src/{folder}"), ".rs"));
    }
    assert!(!sources.is_empty());
    // A test may say how long it took.
    let measures = |_: &Path, code: &str, in_tests: bool| in_tests && code.contains("Instant::now");
    none(find(&sources, &OUTSIDE, measures), "logic takes time, randomness and messages as arguments");
}

#[test]
fn the_engine_never_sees_bytes() {
    let found =
        find(&files("core/src/engine", ".rs"), &["bytes::", "Bytes", "blake3"], |_, _, in_tests| in_tests);
    none(found, "splitting, hashing and storing are the driver's");
}

#[test]
fn the_tracker_knows_protocols_as_strings() {
    let found = find(
        &files("tracker/src", ".rs"),
        &["\"http\"", "\"libp2p\"", "iceshare_transport"],
        |_, _, in_tests| in_tests,
    );
    none(found, "a tracker must not tell protocols apart by name");
}

#[test]
fn core_names_no_transport() {
    let found = find(
        &files("core/src", ".rs"),
        &["\"http\"", "\"libp2p\"", "iceshare_transport"],
        |_, _, in_tests| in_tests,
    );
    none(found, "core must not name a transport");
}

#[test]
fn tests_wait_for_events_instead_of_sleeping() {
    let mut sources: Vec<PathBuf> = Vec::new();
    for member in members() {
        sources.extend(files(&member, ".rs"));
    }
    let words = ["thread::sleep(", "time::sleep(", " sleep("];
    let found = find(&sources, &words, |path, _, in_tests| !in_tests || path.ends_with("house.rs"));
    none(found, "a test that sleeps is slow or flaky");
}

#[test]
fn no_source_is_longer_than_800_lines() {
    let long: Vec<_> = files(".", ".rs")
        .into_iter()
        .map(|p| (read(&p).lines().count(), p))
        .filter(|(n, _)| *n > 800)
        .map(|(n, p)| format!("{}: {n} lines", p.display()))
        .collect();
    none(long, "cut it (500 lines are a sign to, 800 the end)");
}

#[test]
fn what_is_signed_is_of_one_kind_each() {
    let mut contexts = Vec::new();
    for path in files("proto-spec/src", ".rs") {
        for (_, code, _) in code(&path) {
            contexts.extend(
                code.split("b\"IceShare/1 ")
                    .skip(1)
                    .filter_map(|rest| rest.split('"').next().map(str::to_owned)),
            );
        }
    }
    let kinds: BTreeSet<_> = contexts.iter().collect();
    assert_eq!(kinds.len(), contexts.len(), "two uses of one context: {contexts:?}");
    assert!(contexts.iter().all(|c| c.ends_with("\\0") && c.matches("\\0").count() == 1), "{contexts:?}");
}

#[test]
fn nothing_tracked_speaks_of_one_machine() {
    // Put together here, so that this file does not name them.
    let words = [["/wo", "rk/"].concat(), ["/ro", "ot/"].concat(), ["/home", "/"].concat()];
    let mut found = Vec::new();
    for ending in [".rs", ".toml", ".md", ".sh", ".py", ".json", "run"] {
        for path in files(".", ending) {
            let Ok(text) = std::fs::read_to_string(root().join(&path)) else { continue };
            if words.iter().any(|w| text.contains(w.as_str())) {
                found.push(path.display().to_string());
            }
        }
    }
    none(found, "a path of somebody's machine");
}
