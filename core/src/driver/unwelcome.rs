//! What a user is told while the tracker has no place for this program's key.

use icet::message::{ErrorCode, ErrorMessage, ToPeer};

/// Most different words that are shown.
const SHOWN: usize = 4;

/// What is said again and again is shown once, and its end too.
#[derive(Debug, Default)]
pub(super) struct Unwelcome {
    /// Whether a session was ever welcome.
    welcomed: bool,
    /// What was shown since one was.
    shown: Vec<String>,
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
        if self.shown.len() >= SHOWN || self.shown.contains(text) {
            return None;
        }
        let ends = self.welcomed && self.shown.is_empty();
        self.shown.push(text.clone());
        let text = text.escape_debug();
        Some(if ends {
            format!(
                "the tracker ends the session: {text} (nothing is shared through it meanwhile; it is asked again and again)"
            )
        } else {
            format!("the tracker does not let this program in yet: {text}")
        })
    }

    /// The session is welcome; what is to be shown of that.
    pub(super) fn welcome(&mut self) -> Option<&'static str> {
        self.welcomed = true;
        let was_kept_out = !std::mem::take(&mut self.shown).is_empty();
        was_kept_out.then_some("the tracker has let this program in")
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
        assert_eq!(
            ends(&mut u, "asked").as_deref(),
            Some("the tracker does not let this program in yet: asked")
        );
        assert_eq!(ends(&mut u, "asked"), None);
        assert!(u.welcome().is_some());
        assert!(u.welcome().is_none());
        assert!(ends(&mut u, "a newer\n").is_some_and(|t| t.contains("a newer\\n (nothing is shared")));
        assert_eq!(
            ends(&mut u, "there").as_deref(),
            Some("the tracker does not let this program in yet: there")
        );
        assert_eq!(ends(&mut u, "there"), None);
        assert_eq!(ends(&mut u, "a newer\n"), None);
        assert!(u.welcome().is_some());
        assert_eq!(u.hear(&error(ErrorCode::QUOTA, "slow down")), None);
    }
}
