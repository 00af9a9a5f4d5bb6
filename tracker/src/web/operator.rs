//! The operator's part: behind a token that travels in the `Authorization` header only. A page of another origin cannot send
//! that header: its preflight is refused, since nothing here allows it.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use icet::{MediaPath, PeerKey};
use serde::{Deserialize, Serialize};

use super::Shared;
use super::api::Refusal;
use crate::server::{OperateError, Operator};
use crate::swarm::rules::{Limits, Operation, OperationError, Rules};

/// Path of all of it.
pub(super) const PREFIX: &str = "/api/operator/";

/// What only the operator has: to be an argument of a handler is to be let in.
pub(super) struct Admitted(Operator);

fn unauthorized(why: &str) -> Refusal {
    Refusal::new(StatusCode::UNAUTHORIZED, why)
}

impl FromRequestParts<Arc<Shared>> for Admitted {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, shared: &Arc<Shared>) -> Result<Admitted, Refusal> {
        let none = || {
            let why = "this tracker has no operator's part: start it with --web-token FILE";
            Refusal::new(StatusCode::NOT_FOUND, why)
        };
        let operator = shared.site.operator.as_ref().ok_or_else(none)?;
        let given = parts.headers.get(header::AUTHORIZATION);
        let given = given
            .ok_or_else(|| unauthorized("this needs the operator's token: Authorization: Bearer TOKEN"))?;
        let token = given.as_bytes().strip_prefix(b"Bearer ").map(<[u8]>::trim_ascii);
        match token {
            Some(token) if operator.knows(token) => Ok(Admitted(operator.clone())),
            _ => Err(unauthorized("this is not the operator's token")),
        }
    }
}

#[derive(Serialize)]
struct Shown {
    publish: &'static str,
    allowed: Vec<String>,
    banned: Vec<String>,
    withdrawn: Vec<String>,
    limits: Limits,
}

impl Shown {
    fn of(r: &Rules) -> Shown {
        let texts = |keys: &[PeerKey]| keys.iter().map(ToString::to_string).collect();
        Shown {
            publish: if r.listed_only { "listed" } else { "everyone" },
            allowed: texts(&r.publishers),
            banned: texts(&r.banned),
            withdrawn: r.withdrawn.iter().map(ToString::to_string).collect(),
            limits: r.limits.clone(),
        }
    }
}

fn bad(why: impl Into<String>) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, why)
}

async fn shown(shared: &Shared) -> Result<Response, Refusal> {
    let rules = shared.site.observer.ask(|swarm| swarm.rules().clone()).await?;
    Ok(Json(Shown::of(&rules)).into_response())
}

async fn operate(shared: &Shared, operator: &Operator, operation: Operation) -> Result<Response, Refusal> {
    operator.operate(operation).await.map_err(|e| {
        let status = match e {
            OperateError::Refused(OperationError::NoMedia | OperationError::NotBanned) => {
                StatusCode::NOT_FOUND
            }
            OperateError::Refused(OperationError::TooMany | OperationError::Zero) => StatusCode::BAD_REQUEST,
            OperateError::Busy(_) | OperateError::NotKept(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Refusal::new(status, e.to_string())
    })?;
    shown(shared).await
}

fn body<'a, T: Deserialize<'a>>(bytes: &'a Bytes, example: &str) -> Result<T, Refusal> {
    serde_json::from_slice(bytes).map_err(|e| bad(format!("the body must be JSON as {example}: {e}")))
}

fn key(text: &str) -> Result<PeerKey, Refusal> {
    text.parse().map_err(|_| bad("a key has 64 hexadecimal digits"))
}

pub(super) async fn rules(
    Admitted(_): Admitted,
    State(shared): State<Arc<Shared>>,
) -> Result<Response, Refusal> {
    shown(&shared).await
}

pub(super) async fn ban(
    Admitted(operator): Admitted,
    State(shared): State<Arc<Shared>>,
    Path(text): Path<String>,
) -> Result<Response, Refusal> {
    operate(&shared, &operator, Operation::Ban(key(&text)?)).await
}

pub(super) async fn lift(
    Admitted(operator): Admitted,
    State(shared): State<Arc<Shared>>,
    Path(text): Path<String>,
) -> Result<Response, Refusal> {
    operate(&shared, &operator, Operation::Lift(key(&text)?)).await
}

fn path(uri: &Uri) -> Result<MediaPath, Refusal> {
    let path = uri.path().strip_prefix(PREFIX).and_then(|p| p.strip_prefix("media/")).unwrap_or_default();
    MediaPath::from_url_path(path).map_err(|e| bad(e.to_string()))
}

pub(super) async fn withdraw(
    Admitted(operator): Admitted,
    State(shared): State<Arc<Shared>>,
    uri: Uri,
) -> Result<Response, Refusal> {
    operate(&shared, &operator, Operation::Withdraw(path(&uri)?)).await
}

pub(super) async fn allow(
    Admitted(operator): Admitted,
    State(shared): State<Arc<Shared>>,
    uri: Uri,
) -> Result<Response, Refusal> {
    operate(&shared, &operator, Operation::Allow(path(&uri)?)).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Publishers {
    publish: String,
    #[serde(default)]
    allowed: Vec<String>,
}

pub(super) async fn publishers(
    Admitted(operator): Admitted,
    State(shared): State<Arc<Shared>>,
    bytes: Bytes,
) -> Result<Response, Refusal> {
    let p: Publishers = body(&bytes, r#"{"publish": "everyone" or "listed", "allowed": [KEY, …]}"#)?;
    let listed_only = match p.publish.as_str() {
        "everyone" => false,
        "listed" => true,
        _ => return Err(bad("publish takes \"everyone\" or \"listed\"")),
    };
    let publishers = p.allowed.iter().map(|k| key(k)).collect::<Result<_, _>>()?;
    operate(&shared, &operator, Operation::Publishers { listed_only, publishers }).await
}

pub(super) async fn limits(
    Admitted(operator): Admitted,
    State(shared): State<Arc<Shared>>,
    bytes: Bytes,
) -> Result<Response, Refusal> {
    let limits: Limits = body(&bytes, r#"{"media_per_key": 100, …}"#)?;
    operate(&shared, &operator, Operation::Limits(limits)).await
}
