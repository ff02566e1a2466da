//! `Idempotency-Key` (decision D18): the same key, caller and body give the same answer for 24 hours; another body is
//! a conflict. The answer is written in the transaction of the change, so there is never one without the other.

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::response::{IntoResponse as _, Response};
use calotype_core::access::Principal;
use calotype_core::app::{Call, Service};
use calotype_core::ports::StoredAnswer;
use calotype_core::{Error, Result};
use http::request::Parts;
use http::{HeaderName, HeaderValue, StatusCode, header};

use crate::errors::{Failure, Reply};

/// The request header.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// The response header of an answer that was given before.
pub const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// A request's idempotency key, if it has one, with its method and path.
#[derive(Debug, Clone, Default)]
pub struct IdempotencyKey(Option<Keyed>);

#[derive(Debug, Clone)]
struct Keyed {
    key: String,
    target: String,
}

/// Where a key that came with a request stands: whose it is, and which body it came with.
#[derive(Debug, Clone)]
pub struct Slot {
    scope: String,
    key: String,
    fingerprint: String,
}

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Failure;

    async fn from_request_parts(
        parts: &mut Parts,
        _state: &S,
    ) -> std::result::Result<Self, Failure> {
        let Some(value) = parts.headers.get(IDEMPOTENCY_KEY) else {
            return Ok(Self(None));
        };
        let key = value
            .to_str()
            .ok()
            .filter(|key| (1..=255).contains(&key.len()));
        let key = key.ok_or_else(|| {
            Error::invalid("Idempotency-Key has 1 to 255 printable ASCII characters.")
        })?;
        let target = format!("{} {}", parts.method, parts.uri.path());
        Ok(Self(Some(Keyed {
            key: key.to_owned(),
            target,
        })))
    }
}

impl IdempotencyKey {
    /// The slot of this caller and body, if the request has a key.
    pub fn slot(&self, call: &Call, body: &[u8]) -> Option<Slot> {
        self.slot_of(&call.principal, body)
    }

    /// As [`IdempotencyKey::slot`].
    pub fn slot_of(&self, principal: &Principal, body: &[u8]) -> Option<Slot> {
        let keyed = self.0.as_ref()?;
        let project = principal
            .project()
            .map(calotype_core::id::ProjectId::as_str)
            .unwrap_or_default();
        Some(Slot {
            scope: format!("{} {project} {}", principal.user.id, keyed.target),
            key: keyed.key.clone(),
            fingerprint: calotype_identity::sha256_hex(body),
        })
    }
}

impl Slot {
    /// The answer to keep in this slot.
    pub fn answer(
        &self,
        service: &Service,
        status: StatusCode,
        body: String,
        location: Option<String>,
    ) -> StoredAnswer {
        StoredAnswer {
            scope: self.scope.clone(),
            key: self.key.clone(),
            fingerprint: self.fingerprint.clone(),
            status: status.as_u16(),
            body,
            location,
            created_at: service.clock().now(),
        }
    }

    /// The answer that was given before, if any.
    ///
    /// # Errors
    /// Conflict where the key came with another body.
    pub async fn replay(&self, service: &Service) -> Result<Option<Response>> {
        let Some(kept) = service.kept_answer(&self.scope, &self.key).await? else {
            return Ok(None);
        };
        if kept.fingerprint != self.fingerprint {
            return Err(Error::conflict(
                "The Idempotency-Key was used with another request.",
            ));
        }
        replayed(kept).map(Some)
    }
}

/// Makes the answer that is kept with what was made.
pub type Keeper<'a, T> = Box<dyn Fn(&T) -> StoredAnswer + Send + Sync + 'a>;

/// How the answer is kept in a request's slot, if it has one.
pub fn keeping<'a, T>(
    slot: Option<&'a Slot>,
    answer: impl Fn(&Slot, &T) -> StoredAnswer + Send + Sync + 'a,
) -> Option<Keeper<'a, T>> {
    slot.map(|slot| -> Keeper<'a, T> { Box::new(move |made| answer(slot, made)) })
}

/// An answer of this JSON text, as a kept one is given again.
pub fn json_answer(text: String) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

/// Runs `make` once for a slot: an answer that is there is given again, also where another request with the same key
/// made it while this one ran.
pub async fn once<F>(service: &Service, slot: Option<&Slot>, make: F) -> Reply
where
    F: Future<Output = Reply>,
{
    let Some(slot) = slot else { return make.await };
    if let Some(response) = slot.replay(service).await? {
        return Ok(response);
    }
    match make.await {
        Ok(response) => Ok(response),
        Err(failure) => match slot.replay(service).await? {
            Some(response) => Ok(response),
            None => Err(failure),
        },
    }
}

fn replayed(kept: StoredAnswer) -> Result<Response> {
    let status = StatusCode::from_u16(kept.status).map_err(Error::internal)?;
    let mut response = Response::new(Body::from(kept.body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    headers.insert(REPLAYED, HeaderValue::from_static("true"));
    if let Some(location) = kept.location {
        headers.insert(
            header::LOCATION,
            HeaderValue::from_str(&location).map_err(Error::internal)?,
        );
    }
    Ok(response)
}
