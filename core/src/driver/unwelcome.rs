//! What a user is told while the tracker has no place for this program's key.

use icet::message::{ErrorCode, ErrorMessage, ToPeer};

/// What is said again and again is shown once, and its end too.
#[derive(Debug, Default)]
pub(super) struct Unwelcome {
    /// Whether a session was ever welcome.
    welcomed: bool,
    /// What was last shown since one was.
    shown: Option<String>,
}

impl Unwelcome {
    /// What is to be shown of a message.
    pub(super) fn hear(&mut self, m: &ToPeer) -> Option<String> {
        // Of nothing that we asked for: the session is about to end.
        let ToPeer::ErrorMessage(ErrorMessage {
            code: ErrorCode::FORBIDDEN,
            request: None,
            media: None,
            text,
            ..
        }) = m
        else {
            return None;
        };
        let first = self.shown.is_none();
        if self.shown.as_ref() == Some(text) {
            return None;
        }
        self.shown = Some(text.clone());
        let meanwhile = if self.welcomed && first {
            " (nothing is shared through it meanwhile; it is asked again and again)"
        } else {
            ""
        };
        Some(format!("the tracker ends the session: {}{meanwhile}", text.escape_debug()))
    }

    /// The session is welcome; what is to be shown of that.
    pub(super) fn welcome(&mut self) -> Option<&'static str> {
        self.welcomed = true;
        self.shown.take().map(|_| "the tracker has this program in its place: sharing goes on")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_again_is_shown_once_and_so_is_its_end() {
        let mut u = Unwelcome::default();
        let error = |code, text: &str| {
            ToPeer::from(ErrorMessage {
                code,
                request: None,
                media: None,
                text: text.to_owned(),
                retry: None,
            })
        };
        let ends = |u: &mut Unwelcome, text: &str| u.hear(&error(ErrorCode::FORBIDDEN, text));
        // Who never had a session has nothing to lose.
        assert_eq!(ends(&mut u, "asked").as_deref(), Some("the tracker ends the session: asked"));
        assert_eq!(ends(&mut u, "asked"), None);
        assert!(u.welcome().is_some());
        assert!(u.welcome().is_none());
        assert!(ends(&mut u, "a newer\n").is_some_and(|t| t.contains("a newer\\n (nothing is shared")));
        assert_eq!(ends(&mut u, "there").as_deref(), Some("the tracker ends the session: there"));
        assert_eq!(ends(&mut u, "there"), None);
        assert!(u.welcome().is_some());
        assert_eq!(u.hear(&error(ErrorCode::QUOTA, "slow down")), None);
    }
}
