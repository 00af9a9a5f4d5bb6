//! Helpers of the integration tests: real binaries in processes of their own, real media, real players.
//!
//! Tests wait for what a process says or does, with a deadline; they never sleep and never use a fixed port.

pub mod media;
pub mod process;

pub use process::{Network, Proc, Tracker, same};

use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a test waits for anything before it fails: generous, since the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// The repository.
#[must_use]
pub fn repo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_owned).unwrap_or_default()
}

/// A committed fixture by its file name.
#[must_use]
pub fn fixture(name: &str) -> PathBuf {
    repo().join("tests/fixtures").join(name)
}

/// A program of this workspace, built by the same `cargo test --workspace`.
///
/// # Panics
/// If it was not built: then only part of the workspace is being tested.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    // target/<profile>/deps/it-… → target/<profile>/<name>
    let here = std::env::current_exe().unwrap_or_default();
    let path = here.parent().and_then(Path::parent).map(|d| d.join(name)).unwrap_or_default();
    assert!(
        path.exists(),
        "{} is not built; run `cargo build --workspace` or test the whole workspace",
        path.display()
    );
    path
}

/// Whether a program of the system is there. If not: says so and lets the test end, or (in CI, where everything is
/// installed) fails it.
///
/// # Panics
/// If the program is missing and `ICESHARE_REQUIRE_INTEROP=1`.
#[must_use]
pub fn have(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&path).any(|d| d.join(program).is_file()) {
        return true;
    }
    assert!(
        std::env::var_os("ICESHARE_REQUIRE_INTEROP").is_none_or(|v| v != "1"),
        "{program} is required here"
    );
    eprintln!("skipped: no {program}");
    false
}

/// Whether the long tests are wanted (`.ci/run --long`).
#[must_use]
pub fn long() -> bool {
    std::env::var_os("ICESHARE_LONG").is_some_and(|v| v == "1")
}
