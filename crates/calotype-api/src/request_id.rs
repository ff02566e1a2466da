//! The id of a request: on every response, in every log line, in the audit trail.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use calotype_core::id::random_uuid;
use calotype_core::ports::Entropy;
use http::{HeaderName, HeaderValue};
use tracing::Instrument as _;
use tracing::field::Empty;

/// Glance's header.
pub const OPENSTACK_REQUEST_ID: HeaderName = HeaderName::from_static("x-openstack-request-id");
/// Huawei's header.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The id of the request at hand: `req-` and a UUID, as OpenStack's services have it.
#[derive(Debug, Clone)]
pub struct RequestId(pub Arc<str>);

/// Gives each request an id, a span for its log lines, and the id's headers to its response. An id that the client
/// sends is not taken over: clients can't write into our logs. What else the lines name, the project and the image, is
/// noted in the span when it is known.
pub async fn give_request_id(
    State(entropy): State<Arc<dyn Entropy>>,
    mut request: Request,
    next: Next,
) -> Response {
    let id: Arc<str> = format!("req-{}", random_uuid(entropy.as_ref())).into();
    request.extensions_mut().insert(RequestId(Arc::clone(&id)));
    let span = tracing::info_span!(
        "request",
        request.id = %id,
        http.method = %request.method(),
        http.path = %request.uri().path(),
        project.id = Empty,
        user.id = Empty,
        image.id = Empty,
    );
    let mut response = next.run(request).instrument(span).await;
    if let Ok(value) = HeaderValue::from_str(&id) {
        response
            .headers_mut()
            .insert(OPENSTACK_REQUEST_ID, value.clone());
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}
