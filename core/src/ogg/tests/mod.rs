//! Tests of the whole module: over fixtures, over arbitrary input, and beside other programs.

pub(crate) mod build;
mod fixtures;
mod oracle;
mod timeline;
