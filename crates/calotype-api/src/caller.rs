//! Who is calling: the credential is looked at once, before routing, and its outcome kept until a handler asks.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequestParts, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use calotype_core::access::Principal;
use calotype_core::app::{Call, Surface};
use calotype_core::keys::CallerToken;
use calotype_core::{Error, ErrorKind, Result};
use http::request::Parts;
use http::{Extensions, HeaderMap};

use crate::errors::{Failure, Family};
use crate::json_body::collect;
use crate::load::is_exempt;
use crate::request_id::RequestId;
use crate::state::{ApiState, Authenticator, SignedBody};

/// The largest body that a signature may cover, in bytes (spec, "General wire facts").
const SIGNED_BODY_LIMIT: usize = 12_000_000;

/// The outcome of authentication, kept in the request's extensions.
#[derive(Clone)]
struct Authenticated(std::result::Result<Arc<Principal>, Arc<Error>>);

/// The caller of a request. As an extractor it refuses requests without a good credential.
#[derive(Debug, Clone)]
pub struct Caller(pub Call);

/// Authenticates every request that carries a credential. A refusal waits until a handler asks: public paths answer
/// whatever the credential.
pub async fn authenticate(State(state): State<ApiState>, request: Request, next: Next) -> Response {
    // Nothing bounds how often these are asked, and what they show is the same for everybody.
    if is_exempt(request.uri().path()) {
        return next.run(request).await;
    }
    let idle = state.body_idle_timeout;
    authenticate_with(state.authenticator.as_ref(), idle, request, next).await
}

/// [`authenticate`], by the authenticator alone.
pub(crate) async fn authenticate_with(
    authenticator: &dyn Authenticator,
    idle: Duration,
    request: Request,
    next: Next,
) -> Response {
    let (mut parts, body) = request.into_parts();
    let mut body = KeptBody {
        body: Some(body),
        bytes: None,
        idle,
    };
    let principal = authenticator.authenticate(&parts, &mut body).await;
    if let Ok(principal) = &principal {
        note_caller(principal);
    }
    let outcome = Authenticated(principal.map(Arc::new).map_err(Arc::new));
    parts.extensions.insert(outcome);
    next.run(Request::from_parts(parts, body.into_body())).await
}

/// Who is calling, or why that is not known; none before authentication.
pub(crate) fn outcome(extensions: &Extensions) -> Option<std::result::Result<&Principal, &Error>> {
    let Authenticated(outcome) = extensions.get()?;
    Some(outcome.as_deref().map_err(Arc::as_ref))
}

/// Lets the request's log lines name who calls.
fn note_caller(principal: &Principal) {
    let span = tracing::Span::current();
    span.record("user.id", tracing::field::display(&principal.user.id));
    if let Some(project) = principal.project() {
        span.record("project.id", tracing::field::display(project));
    }
}

impl Caller {
    /// A request, made by `principal`.
    pub(crate) fn by(principal: Principal, parts: &Parts) -> Call {
        let request_id = parts.extensions.get::<RequestId>();
        Call {
            principal,
            request_id: request_id.map(|id| id.0.to_string()).unwrap_or_default(),
            surface: match Family::of(parts.uri.path()) {
                Family::Ims => Surface::Ims,
                Family::Native | Family::Identity | Family::Kms => Surface::Native,
            },
            token: shown_token(&parts.headers),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Failure;

    async fn from_request_parts(
        parts: &mut Parts,
        _state: &S,
    ) -> std::result::Result<Self, Failure> {
        match parts.extensions.get::<Authenticated>() {
            Some(Authenticated(Ok(principal))) => {
                Ok(Self(Self::by(principal.as_ref().clone(), parts)))
            }
            Some(Authenticated(Err(error))) => Err(same_refusal(error).into()),
            None => Err(Error::new(
                ErrorKind::Unauthenticated,
                "The request you have made requires authentication.",
            )
            .into()),
        }
    }
}

/// The token that the caller showed, for the services that are asked on its behalf.
fn shown_token(headers: &HeaderMap) -> Option<CallerToken> {
    let token = headers.get("x-auth-token")?.to_str().ok()?;
    Some(CallerToken::new(token.to_owned()))
}

/// The refusal again, for the handler that asks. Its context was logged where it arose.
fn same_refusal(error: &Error) -> Error {
    let again = Error::new(error.kind(), error.message());
    match error.code() {
        Some(code) => again.with_code(code),
        None => again,
    }
}

/// A request's body that authentication may have read.
struct KeptBody {
    body: Option<Body>,
    bytes: Option<Bytes>,
    /// How long the body may stand still.
    idle: Duration,
}

impl KeptBody {
    fn into_body(self) -> Body {
        match (self.bytes, self.body) {
            (Some(bytes), _) => Body::from(bytes),
            (None, Some(body)) => body,
            (None, None) => Body::empty(),
        }
    }
}

#[async_trait::async_trait]
impl SignedBody for KeptBody {
    async fn bytes(&mut self) -> Result<Bytes> {
        if let Some(bytes) = &self.bytes {
            return Ok(bytes.clone());
        }
        let body = self.body.take().unwrap_or_default();
        let bytes = collect(body, SIGNED_BODY_LIMIT, self.idle).await?;
        self.bytes = Some(bytes.clone());
        Ok(bytes)
    }
}
