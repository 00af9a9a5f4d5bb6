//! Writes the golden vectors: `cargo run -p icet --example vectors`. Their format: `proto-spec/vectors/README.md`.
//!
//! Everything in them follows from fixed seeds, so that a second run changes nothing; `tests/vectors.rs` checks that.

use std::path::Path;

mod live;
mod meaning;
mod media;
mod messages;
mod names;
mod stream;
mod world;

fn main() -> std::io::Result<()> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors");
    for (name, file) in world::files() {
        std::fs::write(dir.join(name), file)?;
    }
    Ok(())
}
