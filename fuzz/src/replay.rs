//! Runs a target over the inputs that are kept of it: for the tests of the crates whose targets these are.

use std::path::Path;

/// Runs `target` over its corpus.
///
/// # Panics
/// If the target does, after the name of the input; or if there is none.
pub fn replay(target: &str, run: fn(&[u8])) {
    let mut folders =
        Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(|d| d.join("fuzz/corpus").join(target));
    let corpus = folders.find(|d| d.is_dir()).unwrap_or_else(|| panic!("no corpus of {target}"));
    let mut inputs: Vec<_> = std::fs::read_dir(&corpus).unwrap().map(|e| e.unwrap().path()).collect();
    inputs.sort();
    assert!(!inputs.is_empty(), "no corpus in {}", corpus.display());
    for input in inputs {
        eprintln!("{}", input.display());
        run(&std::fs::read(&input).unwrap());
    }
}
