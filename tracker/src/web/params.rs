//! What stands behind the `?` of a request, with a word of ours for each mistake.

use std::ops::RangeInclusive;

use axum::extract::{FromRequestParts, Query};
use axum::http::StatusCode;
use axum::http::request::Parts;

use super::api::Refusal;

/// Characters of a wrong value that are repeated.
const SHOWN: usize = 40;

/// The parameters of a request. Those that nobody asks for are ignored.
#[derive(Debug)]
pub(super) struct Params(Vec<(String, String)>);

fn bad(why: String) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, why)
}

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Params, Refusal> {
        match Query::try_from_uri(&parts.uri) {
            Ok(Query(all)) => Ok(Params(all)),
            Err(_) => Err(bad("what follows the ? cannot be read: write NAME=VALUE&NAME=VALUE".to_owned())),
        }
    }
}

impl Params {
    /// The parameter `name`, if it is given.
    pub(super) fn text(&self, name: &str) -> Result<Option<&str>, Refusal> {
        let mut given = self.0.iter().filter(|(n, _)| n == name).map(|(_, value)| value.as_str());
        match (given.next(), given.next()) {
            (_, Some(_)) => Err(bad(format!("{name} is given twice: give it once"))),
            (one, None) => Ok(one),
        }
    }

    /// Whether the parameter `name` is given.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(n, _)| n == name)
    }

    /// The number `name`, if it is given.
    pub(super) fn number(&self, name: &str, range: RangeInclusive<usize>) -> Result<Option<usize>, Refusal> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let number = text.parse().ok().filter(|n| range.contains(n));
        number.map(Some).ok_or_else(|| {
            let (first, last) = range.into_inner();
            let takes = if last == usize::MAX {
                format!("a number from {first} on")
            } else {
                format!("a number from {first} to {last}")
            };
            let mut shown: String = text.chars().take(SHOWN).collect();
            if shown.len() < text.len() {
                shown.push('…');
            }
            bad(format!("{name} takes {takes}, not {shown:?}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(query: &str) -> Params {
        let uri = format!("http://t/api?{query}").parse().unwrap();
        Params(Query::try_from_uri(&uri).unwrap().0)
    }

    #[test]
    fn mistakes_are_named() {
        let good = params("limit=7&q=a+%C3%BC&x=%ff&y");
        assert_eq!(good.number("limit", 1..=9).unwrap(), Some(7));
        assert_eq!(good.number("skip", 0..=usize::MAX).unwrap(), None);
        assert_eq!(good.text("q").unwrap(), Some("a ü"));
        for (query, word) in [
            ("limit=x", "limit takes a number from 1 to 9, not \"x\""),
            ("limit=0", "not \"0\""),
            ("limit=", "not \"\""),
            ("limit=-1", "not \"-1\""),
            ("limit=1&limit=2", "limit is given twice"),
            ("limit=%1b[2J", r"\u{1b}"),
        ] {
            let error = format!("{:?}", params(query).number("limit", 1..=9).unwrap_err());
            assert!(error.replace("\\\"", "\"").replace(r"\\", r"\").contains(word), "{query}: {error}");
        }
        let error = format!("{:?}", params("skip=x").number("skip", 0..=usize::MAX).unwrap_err());
        assert!(error.contains("a number from 0 on"), "{error}");
    }
}
