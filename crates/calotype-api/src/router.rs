//! The whole API as one service.
//!
//! A request passes, from the outside in: its id, its measurement, the rendering of failures, the catch for panics,
//! whether there is room for it ([`load`](crate::load)), authentication, whether its caller has had its share, and its
//! route. So every answer has an id and is counted; every failure, a panic's too, has its family's form; and a handler
//! finds the outcome of authentication already there.
//!
//! Paths are taken as they are: one with a trailing slash or a doubled slash is another path, as in Glance. Headers
//! that Keystone's middleware would set for a service behind it (`X-Roles`, `X-Project-Id`, `X-Identity-Status`) mean
//! nothing here: who is calling comes from the [`Authenticator`](crate::state::Authenticator) alone.

use std::any::Any;
use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use calotype_core::Error;
use calotype_core::ports::Entropy;
use calotype_keys::EmbeddedKeys;
use http::Uri;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use crate::caller::{Caller, authenticate};
use crate::errors::{Failure, Family, Reply, render};
use crate::identity::IdentityApi;
use crate::kms::KmsState;
use crate::load::{hold_rates, shed};
use crate::request_id::give_request_id;
use crate::state::ApiState;

/// The API over these parts.
pub fn app(
    state: ApiState,
    identity: impl Into<IdentityApi>,
    keys: Arc<EmbeddedKeys>,
    entropy: Arc<dyn Entropy>,
) -> Router {
    let routes =
        image_routes().merge(crate::admin::root_key::router().with_state(Arc::clone(&keys)));
    let kms = KmsState {
        keys,
        service: Arc::clone(&state.service),
        public_url: state.public_url.clone(),
        body_idle_timeout: state.body_idle_timeout,
    };
    // Huawei's SDKs drop the path of the endpoint that they are given: the same at the root, described once.
    let at_the_root = crate::kms::operations().with_state(kms.clone());
    let routes = routes.merge(crate::kms::described().with_state(kms));
    Router::from(routes)
        .merge(identity.into().router())
        .merge(Router::from(at_the_root))
        .with_state(state.clone())
        .fallback(unknown_path)
        .layer(DefaultBodyLimit::max(state.max_json_body))
        .layer(from_fn_with_state(Arc::clone(&state.admission), hold_rates))
        .layer(from_fn_with_state(state.clone(), authenticate))
        .layer(from_fn_with_state(Arc::clone(&state.admission), shed))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn_with_state(state, render))
        .layer(from_fn(crate::ops::measure))
        .layer(from_fn_with_state(entropy, give_request_id))
}

/// The description of all that is routed.
pub(crate) fn described() -> OpenApi {
    let mut described = image_routes().into_openapi();
    described.merge(crate::identity::routes().into_openapi());
    described.merge(crate::admin::root_key::router().into_openapi());
    described.merge(crate::kms::described().into_openapi());
    described
}

fn image_routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .merge(crate::image_v2::router())
        .merge(crate::image_v1::router())
        .merge(crate::ims::router())
        .merge(crate::native_list::router())
        .merge(crate::admin::router())
        .merge(crate::ops::router())
        .merge(crate::openapi::router())
}

/// Below the versioned APIs a stranger learns nothing, not even which paths there are: as with Glance behind
/// Keystone, a request without a credential is told so first.
async fn unknown_path(uri: Uri, caller: Result<Caller, Failure>) -> Reply {
    let path = uri.path();
    let versioned = matches!(Family::of(path), Family::Ims | Family::Kms);
    if versioned || path == "/v2" || path.starts_with("/v2/") {
        caller?;
    }
    Err(Error::not_found("The resource could not be found.").into())
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "the layer hands the panic over by value"
)]
fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without a text");
    Failure::from(Error::internal(format!("a handler panicked: {text}"))).into_response()
}
