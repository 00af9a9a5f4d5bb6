//! The table.

use std::fmt;
use std::time::Duration;

/// How a case ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Well.
    Passed,
    /// The transport does not declare what the case needs.
    NotApplicable(String),
    /// Not well, and why.
    Failed(String),
}

/// How all cases ended, in their order. `Display` makes a table of it.
#[derive(Debug, Clone, Default)]
pub struct Report {
    pub(crate) rows: Vec<(&'static str, Verdict, Duration)>,
}

impl Report {
    /// Name, verdict and time of each case.
    pub fn rows(&self) -> impl Iterator<Item = (&'static str, &Verdict, Duration)> {
        self.rows.iter().map(|(name, verdict, took)| (*name, verdict, *took))
    }

    /// Whether none failed.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.rows.iter().all(|(_, v, _)| !matches!(v, Verdict::Failed(_)))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.rows.iter().map(|(name, ..)| name.len()).max().unwrap_or(0);
        for (name, verdict, took) in &self.rows {
            let (word, why) = match verdict {
                Verdict::Passed => ("ok", ""),
                Verdict::NotApplicable(why) => ("-", why.as_str()),
                Verdict::Failed(why) => ("FAILED", why.as_str()),
            };
            writeln!(f, "{name:<width$}  {word:<6}  {:>7.2} s  {why}", took.as_secs_f64())?;
        }
        Ok(())
    }
}
