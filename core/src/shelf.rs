//! To come.

/// To come.
#[derive(Debug)]
pub struct Shelf;

/// To come.
#[derive(Debug)]
pub struct Admission;

impl Admission {
    /// To come.
    pub async fn permit(&self, _bytes: usize) {}
}
