//! From the domain's error to the wire: one function to a status, one to the IMS envelope, one to the native
//! form. Each is total, and none can see more of the error than kind, code and message.
//!
//! A handler returns a [`Failure`]. What it looks like on the wire is decided by [`render`], the outermost layer,
//! which knows the request's path and what the client accepts. So an error from an extractor, an unknown path and
//! a handler's own refusal look alike.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use calotype_core::codes::{ImsCode, KmsCode};
use calotype_core::{Error, ErrorKind};
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde_json::json;

use crate::negotiate::{ErrorForm, error_form};
use crate::ops::{QUOTA_REFUSALS, damaged};
use crate::request_id::RequestId;
use crate::state::ApiState;

/// A handler's failure. `?` turns a domain error into one.
#[derive(Debug)]
pub struct Failure(Error);

/// What a handler returns.
pub type Reply = Result<Response, Failure>;

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

/// Carries the error from the handler to [`render`].
#[derive(Clone)]
struct Carried(Arc<Error>);

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = native_status(&self.0).into_response();
        response.extensions_mut().insert(Carried(Arc::new(self.0)));
        response
    }
}

/// Which API a path belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// The IMS API: errors in its envelope.
    Ims,
    /// The OpenStack Image API: errors as Glance's.
    Native,
    /// The identity API: errors as Keystone's.
    Identity,
    /// The KMS API: errors in its envelope.
    Kms,
}

impl Family {
    /// The family of a path.
    pub fn of(path: &str) -> Self {
        let mut segments = path.trim_start_matches('/').split('/');
        let (first, second, third) = (segments.next(), segments.next(), segments.next());
        match (first, second, third) {
            (Some("identity"), ..) => Self::Identity,
            (Some("kms"), ..) | (Some("v1.0"), Some(_), _) => Self::Kms,
            (Some("v1" | "v2" | "v2.1"), Some("cloudimages"), _) | (Some("admin" | "v2.1"), ..) => {
                Self::Ims
            }
            (Some("v1"), Some(_), Some("jobs" | "cloudimages")) => Self::Ims,
            (Some("v2"), Some(project), Some("images"))
                if project != "images" && project != "schemas" =>
            {
                Self::Ims
            }
            _ => Self::Native,
        }
    }
}

/// The status of a native answer, which is also the status of the kind itself.
fn native_status(error: &Error) -> StatusCode {
    match error.kind() {
        ErrorKind::InvalidRequest => StatusCode::BAD_REQUEST,
        ErrorKind::Unauthenticated => StatusCode::UNAUTHORIZED,
        ErrorKind::Forbidden => StatusCode::FORBIDDEN,
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::Conflict => StatusCode::CONFLICT,
        ErrorKind::Gone => StatusCode::GONE,
        ErrorKind::TooLarge | ErrorKind::LimitReached => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorKind::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        ErrorKind::RangeNotSatisfiable => StatusCode::RANGE_NOT_SATISFIABLE,
        ErrorKind::TimedOut => StatusCode::REQUEST_TIMEOUT,
        ErrorKind::TooManyRequests { .. } => StatusCode::TOO_MANY_REQUESTS,
        ErrorKind::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::StorageFull => StatusCode::INSUFFICIENT_STORAGE,
        ErrorKind::Damaged | ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The status and code of an IMS answer (decisions D1 to D5).
fn ims_status_and_code(error: &Error) -> (StatusCode, ImsCode) {
    let fallback = match error.kind() {
        ErrorKind::Unauthenticated => ImsCode::IMG_0087,
        ErrorKind::Forbidden => ImsCode::IMG_0026,
        ErrorKind::Unavailable { .. } | ErrorKind::Internal | ErrorKind::StorageFull => {
            ImsCode::IMG_0061
        }
        ErrorKind::Damaged => ImsCode::IMG_0057,
        ErrorKind::NotFound | ErrorKind::Gone => ImsCode::IMG_0121,
        ErrorKind::TooLarge => ImsCode::IMG_0059,
        ErrorKind::LimitReached | ErrorKind::TooManyRequests { .. } => ImsCode::IMG_0060,
        ErrorKind::Conflict => ImsCode::IMG_0035,
        ErrorKind::InvalidRequest
        | ErrorKind::UnsupportedMediaType
        | ErrorKind::TimedOut
        | ErrorKind::RangeNotSatisfiable => ImsCode::IMG_0001,
    };
    let code = error.code().unwrap_or(fallback);
    let of_table = match error.kind() {
        // A code of the table brings its status, but for the two that decisions D1 and D2 raise to 404.
        ErrorKind::InvalidRequest | ErrorKind::LimitReached | ErrorKind::TooLarge => true,
        // A part that is away has a code of its own only where the table knows it: 503 is IMG.0061's (D3, D5).
        ErrorKind::Unavailable { .. } => error.code().is_some(),
        _ => false,
    };
    let status = match of_table {
        true => StatusCode::from_u16(code.status()).unwrap_or(StatusCode::BAD_REQUEST),
        false => native_status(error),
    };
    (status, code)
}

/// The status and code of an answer of the KMS API.
fn kms_status_and_code(error: &Error, anonymous: bool) -> (StatusCode, KmsCode) {
    if let Some(code) = error.kms_code() {
        let status = StatusCode::from_u16(code.status()).unwrap_or(StatusCode::BAD_REQUEST);
        return (status, code);
    }
    let code = match error.kind() {
        ErrorKind::Unauthenticated if anonymous => KmsCode::KMS_0301,
        ErrorKind::Unauthenticated => KmsCode::KMS_0302,
        ErrorKind::Forbidden => KmsCode::KMS_0307,
        ErrorKind::NotFound | ErrorKind::Gone => KmsCode::KMS_0201,
        ErrorKind::TooLarge => KmsCode::KMS_0203,
        ErrorKind::InvalidRequest
        | ErrorKind::LimitReached
        | ErrorKind::UnsupportedMediaType
        | ErrorKind::RangeNotSatisfiable => KmsCode::KMS_0308,
        ErrorKind::Conflict | ErrorKind::TimedOut => KmsCode::KMS_0214,
        ErrorKind::Unavailable { .. }
        | ErrorKind::StorageFull
        | ErrorKind::TooManyRequests { .. } => KmsCode::KMS_0104,
        ErrorKind::Damaged | ErrorKind::Internal => KmsCode::KMS_0101,
    };
    let status = match error.kind() {
        // The table knows none of them; an idempotency key that was used says 409 everywhere.
        ErrorKind::Conflict | ErrorKind::TimedOut | ErrorKind::TooManyRequests { .. } => {
            native_status(error)
        }
        _ => StatusCode::from_u16(code.status()).unwrap_or(StatusCode::BAD_REQUEST),
    };
    (status, code)
}

/// Renders failures, and gives bare error statuses (an unknown path, a wrong method) a body. Logs faults of ours,
/// here and nowhere else.
pub async fn render(State(state): State<ApiState>, request: Request, next: Next) -> Response {
    let family = Family::of(request.uri().path());
    let form = error_form(request.headers());
    let id = request
        .extensions()
        .get::<RequestId>()
        .map(|id| Arc::clone(&id.0))
        .unwrap_or_default();
    let base_url = state.base_url(request.headers());
    let headers = request.headers();
    let anonymous =
        !headers.contains_key("x-auth-token") && !headers.contains_key(header::AUTHORIZATION);
    let mut response = next.run(request).await;
    let carried = response.extensions_mut().remove::<Carried>();
    let error = match carried {
        Some(Carried(error)) => error,
        None => match bare_failure(&response) {
            Some(error) => Arc::new(error),
            None => return response,
        },
    };
    log(&error);
    count(&error);
    let bare_headers = std::mem::take(response.headers_mut());
    let mut rendered = match family {
        Family::Ims => ims(&error, &id, response.status()),
        Family::Native => native(&error, &id, response.status(), form),
        Family::Identity => identity(&error, &id, response.status()),
        Family::Kms => kms(&error, &id, response.status(), anonymous),
    };
    let accept_patch = HeaderName::from_static("accept-patch");
    for name in [
        header::ALLOW,
        header::CONTENT_RANGE,
        header::ACCEPT,
        accept_patch,
    ] {
        if let Some(value) = bare_headers.get(&name) {
            rendered.headers_mut().insert(name, value.clone());
        }
    }
    if rendered.status() == StatusCode::UNAUTHORIZED {
        let challenge = match state.authenticator.login_url() {
            Some(url) => format!("Keystone uri=\"{url}\""),
            None => format!("Keystone uri=\"{base_url}/identity\""),
        };
        if let Ok(value) = HeaderValue::from_str(&challenge) {
            rendered
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, value);
        }
    }
    if let ErrorKind::Unavailable { retry_after } | ErrorKind::TooManyRequests { retry_after } =
        error.kind()
    {
        // Whole seconds, and never too few.
        let seconds = retry_after.as_millis().div_ceil(1000).max(1);
        let seconds = u64::try_from(seconds).unwrap_or(u64::MAX);
        rendered
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    rendered
}

/// The failure that a bodiless answer of the router stands for.
fn bare_failure(response: &Response) -> Option<Error> {
    let status = response.status();
    if response.headers().contains_key(header::CONTENT_TYPE) {
        return None;
    }
    match status {
        StatusCode::NOT_FOUND => Some(Error::not_found("The resource could not be found.")),
        StatusCode::METHOD_NOT_ALLOWED => Some(
            Error::invalid("The method is not allowed for this resource.")
                .with_code(ImsCode::IMG_0105),
        ),
        _ => None,
    }
}

/// Counts the refusals of quotas, and damage.
fn count(error: &Error) {
    if error.kind() == ErrorKind::Damaged {
        damaged();
    }
    let resource = match (error.code(), error.kind()) {
        (Some(ImsCode::IMG_0015), _) => "images",
        (Some(ImsCode::IMG_0088), _) => "members",
        (Some(ImsCode::IMG_0059), ErrorKind::TooLarge) => "bytes",
        _ => return,
    };
    metrics::counter!(QUOTA_REFUSALS, "resource" => resource).increment(1);
}

fn log(error: &Error) {
    match error.kind() {
        ErrorKind::Internal | ErrorKind::Damaged | ErrorKind::StorageFull => {
            tracing::error!(error.chain = %error.chain(), error.kind = ?error.kind(), "request failed");
        }
        ErrorKind::Unavailable { .. } => {
            tracing::warn!(error.chain = %error.chain(), "request can't be served now");
        }
        _ => {
            tracing::debug!(error.chain = %error.chain(), error.kind = ?error.kind(), "request refused");
        }
    }
}

/// The message for the caller; of a fault of ours, a fixed sentence and the request's id.
fn message(error: &Error, status: StatusCode, id: &str) -> String {
    if status.is_server_error() {
        format!("{} (request {id})", error.message())
    } else {
        error.message().to_owned()
    }
}

/// The method-not-allowed status is the router's own; every other comes from the error.
fn effective(bare: StatusCode, of_error: StatusCode) -> StatusCode {
    if bare == StatusCode::METHOD_NOT_ALLOWED {
        bare
    } else {
        of_error
    }
}

fn ims(error: &Error, id: &str, bare: StatusCode) -> Response {
    let (status, code) = ims_status_and_code(error);
    let message = message(error, status, id);
    let body = json!({ "error": { "code": code.to_string(), "message": message } });
    (effective(bare, status), axum::Json(body)).into_response()
}

fn kms(error: &Error, id: &str, bare: StatusCode, anonymous: bool) -> Response {
    let (status, mut code) = kms_status_and_code(error, anonymous);
    if bare == StatusCode::METHOD_NOT_ALLOWED {
        code = KmsCode::KMS_0215;
    }
    let text = if status.is_server_error() {
        format!("{} (request {id})", code.message())
    } else {
        error.message().to_owned()
    };
    let body = json!({ "error": { "error_code": code.to_string(), "error_msg": text } });
    (effective(bare, status), axum::Json(body)).into_response()
}

fn identity(error: &Error, id: &str, bare: StatusCode) -> Response {
    let status = effective(bare, native_status(error));
    let title = status.canonical_reason().unwrap_or("Error");
    let message = message(error, status, id);
    let body = json!({ "error": { "code": status.as_u16(), "title": title, "message": message } });
    (status, axum::Json(body)).into_response()
}

/// Glance's three forms (spec 7.2, decision D20).
fn native(error: &Error, id: &str, bare: StatusCode, form: ErrorForm) -> Response {
    let status = effective(bare, native_status(error));
    let title = status.canonical_reason().unwrap_or("Error");
    let line = format!("{} {title}", status.as_u16());
    let text = message(error, status, id);
    match form {
        ErrorForm::Json => (
            status,
            axum::Json(json!({ "message": text, "code": line, "title": title })),
        )
            .into_response(),
        ErrorForm::Html => {
            let text = escape(&text);
            let page = format!(
                "<html>\n <head>\n  <title>{line}</title>\n </head>\n <body>\n  <h1>{line}</h1>\n  {text}<br /><br />\n </body>\n</html>\n"
            );
            typed(status, "text/html; charset=UTF-8", page)
        }
        ErrorForm::Text => typed(
            status,
            "text/plain; charset=UTF-8",
            format!("{line}\n\n{text}\n"),
        ),
    }
}

fn typed(status: StatusCode, content_type: &'static str, body: String) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_belongs_to_one_family() {
        for path in [
            "/v1/cloudimages/x/copy",
            "/v2/cloudimages",
            "/v2.1/cloudimages/x/copy",
            "/v1/0123456789abcdef0123456789abcdef/jobs/x",
            "/v1/0123456789abcdef0123456789abcdef/cloudimages/x/tags/delete",
            "/v1/cloudimages/job/x",
            "/v2/0123456789abcdef0123456789abcdef/images/tags",
            "/admin/v1/jobs",
        ] {
            assert_eq!(Family::of(path), Family::Ims, "{path}");
        }
        for path in [
            "/",
            "/v2/images",
            "/v2/images/x/tags/y",
            "/v2/schemas/image",
            "/v1/images/x",
            "/versions",
            "/v2",
        ] {
            assert_eq!(Family::of(path), Family::Native, "{path}");
        }
        assert_eq!(Family::of("/identity/v3/auth/tokens"), Family::Identity);
        for path in ["/kms", "/kms/v1.0/x/kms/tags", "/v1.0/x/kms/create-key"] {
            assert_eq!(Family::of(path), Family::Kms, "{path}");
        }
        assert_eq!(Family::of("/v1.0"), Family::Native);
    }

    #[test]
    fn codes_have_the_tables_status_but_for_the_two_that_the_decisions_raise() {
        let cases = [
            (ImsCode::IMG_0027, 404),
            (ImsCode::IMG_0023, 404),
            (ImsCode::IMG_0026, 403),
            (ImsCode::IMG_0066, 400),
            (ImsCode::IMG_0015, 400),
            (ImsCode::IMG_0060, 400),
            (ImsCode::IMG_0196, 400),
        ];
        for (code, status) in cases {
            let (got, same) = ims_status_and_code(&Error::ims(code));
            assert_eq!((got.as_u16(), same), (status, code));
        }
    }

    #[test]
    fn a_throttled_key_service_has_the_tables_status_where_a_part_that_is_away_has_503() {
        let retry_after = std::time::Duration::from_secs(7);
        let throttled = calotype_core::keys::KeyFault::Throttled { retry_after };
        let throttled = Error::from(throttled);
        let (status, code) = ims_status_and_code(&throttled);
        assert_eq!((status.as_u16(), code), (400, ImsCode::IMG_0187));
        assert_eq!(message(&throttled, status, "req-1"), code.message());
        assert_eq!(native_status(&throttled).as_u16(), 503);
        let (status, code) = ims_status_and_code(&Error::unavailable("away"));
        assert_eq!((status.as_u16(), code), (503, ImsCode::IMG_0061));
    }

    #[test]
    fn who_asks_too_much_is_told_so_with_one_status_by_every_api() {
        let retry_after = std::time::Duration::from_secs(7);
        let error = Error::new(ErrorKind::TooManyRequests { retry_after }, "too many");
        assert_eq!(native_status(&error).as_u16(), 429);
        let (status, code) = ims_status_and_code(&error);
        assert_eq!((status.as_u16(), code), (429, ImsCode::IMG_0060));
        let (status, code) = kms_status_and_code(&error, false);
        assert_eq!((status.as_u16(), code), (429, KmsCode::KMS_0104));
    }

    #[test]
    fn a_fault_of_ours_shows_its_request_and_nothing_else() {
        let error = Error::internal("canary at /srv/db");
        assert_eq!(
            message(&error, native_status(&error), "req-1"),
            "An internal error occurred. (request req-1)"
        );
    }
}
