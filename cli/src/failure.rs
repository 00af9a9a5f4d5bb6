//! How a command ends when it does not succeed: one line, one exit code.

use std::fmt::Write as _;
use std::process::ExitCode;

use crate::escape::printable;

/// Failed.
pub(crate) const FAILED: u8 = 1;
/// The command line or the configuration is wrong.
pub(crate) const USAGE: u8 = 2;
/// Ended by the user.
pub(crate) const INTERRUPTED: u8 = 130;

/// Why a command ends, and its exit code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    code: u8,
    /// Escaped already; none if there is nothing to say.
    text: Option<String>,
}

pub(crate) type Outcome = Result<(), Failure>;

impl Failure {
    /// Exit code 1.
    pub(crate) fn failed(text: impl AsRef<str>) -> Failure {
        Failure::with(FAILED, text)
    }

    /// Exit code 2.
    pub(crate) fn usage(text: impl AsRef<str>) -> Failure {
        Failure::with(USAGE, text)
    }

    /// Exit code 130, silently.
    pub(crate) fn interrupted() -> Failure {
        Failure { code: INTERRUPTED, text: None }
    }

    pub(crate) fn with(code: u8, text: impl AsRef<str>) -> Failure {
        Failure { code, text: Some(printable(text.as_ref())) }
    }

    /// An error with its causes, those left out that its own text repeats.
    pub(crate) fn from_error(code: u8, error: &dyn std::error::Error) -> Failure {
        Failure::with(code, whole(error))
    }

    /// The same with something behind it.
    pub(crate) fn add(mut self, more: &str) -> Failure {
        if let Some(text) = &mut self.text {
            let _ = write!(text, "; {more}");
        }
        self
    }

    /// Whether who read our results went away (`| head`).
    pub(crate) fn is_unread(&self) -> bool {
        self.code == FAILED && self.text.is_none()
    }

    /// Whether the user ended it.
    pub(crate) fn is_interrupt(&self) -> bool {
        self.code == INTERRUPTED
    }

    pub(crate) fn text(&self) -> Option<&str> {
        self.text.as_deref()
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code)
    }
}

/// An error with its causes, those left out that its own text repeats. Not escaped.
pub(crate) fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(e) = cause {
        let more = e.to_string();
        if !text.contains(&more) {
            let _ = write!(text, ": {more}");
        }
        cause = e.source();
    }
    text
}

/// What standard output refused. A reader that went away (`| head`) needs no word.
impl From<std::io::Error> for Failure {
    fn from(e: std::io::Error) -> Failure {
        match e.kind() {
            std::io::ErrorKind::BrokenPipe => Failure { code: FAILED, text: None },
            _ => Failure::failed(format!("cannot write: {e}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] Inner);
    #[derive(Debug, thiserror::Error)]
    #[error("inner\u{1b}[2J")]
    struct Inner;

    #[test]
    fn causes_are_told_and_escaped() {
        let failure = Failure::from_error(4, &Outer(Inner));
        assert_eq!(failure.text(), Some("outer: inner\\u{1b}[2J"));
        assert_eq!(failure.code, 4);
    }
}
