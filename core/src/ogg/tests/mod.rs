//! Tests of the whole module: over fixtures, over arbitrary input, and beside other programs.

pub(crate) mod build;
pub(crate) mod fixtures;
mod oracle;
mod timeline;
