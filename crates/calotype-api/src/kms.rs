//! The KMS API, as OTC documents it and its and Huawei's clients speak it: customers' master keys, over the service's own
//! key service.
//!
//! It is described and served under `/kms/v1.0`, and served a second time at the root, under `/v1.0`: Huawei's SDKs drop
//! the path of the endpoint that they are given. Almost every call is a POST of a JSON object that is answered with 200
//! and a JSON object.
//!
//! The checks of every call come in one order: the credential (401), the project in the path (KMS.0321), the caller's
//! roles (KMS.0307), the body (KMS.0203, 0202, 0206), its fields (KMS.0204 and the field's own), and then what the key
//! service says: the key, who may use it, its state.

pub mod bodies;
mod crypto;
mod fields;
mod grants;
mod keys;
mod tags;
mod versions;

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::response::{IntoResponse as _, Response};
use calotype_core::access::Action;
use calotype_core::app::{Call, Profile, Service};
use calotype_core::codes::KmsCode;
use calotype_core::ports::{Page, Window};
use calotype_core::{Error, Result};
use calotype_keys::EmbeddedKeys;
use calotype_keys::kms::Permitted;
use http::HeaderMap;
use serde_json::Value;
use utoipa_axum::router::OpenApiRouter;

/// What the handlers of the KMS API can reach.
#[derive(Clone)]
pub struct KmsState {
    /// The key service.
    pub keys: Arc<EmbeddedKeys>,
    /// Answers that were given before.
    pub service: Arc<Service>,
    /// The URL under which clients reach the service, without a trailing slash; none: as the request's `Host` says.
    pub public_url: Option<Arc<str>>,
    /// How long a body may stand still while it is received.
    pub body_idle_timeout: Duration,
}

impl KmsState {
    fn base_url(&self, headers: &HeaderMap) -> String {
        crate::state::base_url(self.public_url.as_deref(), headers)
    }

    /// Whether only what OTC takes is taken, where Huawei takes more.
    fn is_strict(&self) -> bool {
        self.service.settings().profile == Profile::Otc
    }
}

/// The operations, described under `/kms`.
pub(crate) fn described() -> OpenApiRouter<KmsState> {
    OpenApiRouter::default()
        .merge(versions::router())
        .nest("/kms", operations())
}

/// The operations below `/v1.0`.
pub(crate) fn operations() -> OpenApiRouter<KmsState> {
    OpenApiRouter::default()
        .merge(keys::router())
        .merge(crypto::router())
        .merge(grants::router())
        .merge(tags::router())
}

/// The checks before a body is read: the project in the path is the credential's, and the caller's roles permit the
/// action.
///
/// # Errors
/// KMS.0321, KMS.0307.
fn enter<'a>(
    state: &KmsState,
    call: &'a Call,
    project: &str,
    action: Action,
) -> Result<Permitted<'a>> {
    let own = call.principal.project();
    if own.is_none_or(|own| own.as_str() != project) {
        return Err(Error::kms(KmsCode::KMS_0321));
    }
    state.keys.permit(call, action)
}

/// The project in a path that has nothing else.
fn project(path: Result<Path<String>, PathRejection>) -> Result<String> {
    let Path(project) = path.map_err(|_| Error::kms(KmsCode::KMS_0321))?;
    Ok(project)
}

fn ok(document: Value) -> Response {
    Json(document).into_response()
}

/// The largest page, and the one that comes where no limit is given: clients of grants read one page.
const DEFAULT_LIMIT: u64 = 1000;
const MAX_LIMIT: u64 = 2000;

/// The fields that every list ends with. Clients look at one or another of them.
fn paged<T>(document: &mut Value, page: &Page<T>, window: Window) {
    let next = window.offset.saturating_add(page.items.len() as u64);
    let more = next < page.total && !page.items.is_empty();
    document["next_marker"] = if more {
        next.to_string()
    } else {
        String::new()
    }
    .into();
    document["truncated"] = if more { "true" } else { "false" }.into();
    document["total"] = page.total.into();
}

/// A POST of the KMS API: described, entered, its body read, and then run.
macro_rules! post {
    (
        $(#[doc = $doc:literal])+
        $name:ident, $path:tt, $id:tt, $tag:tt, $action:expr, $body:ty, $run:path
    ) => {
        $(#[doc = $doc])+
        #[utoipa::path(
            post,
            path = $path,
            operation_id = $id,
            tag = $tag,
            params(("project_id" = String, Path, description = "The project that the credential is scoped to.")),
            request_body(content = $body, content_type = "application/json"),
            responses(
                (status = 200, description = "Done."),
                (status = 400, description = "The request breaks a rule, or the key's state is in the way; the code says which."),
                (status = 401, description = "No credential, or not a good one (KMS.0301, KMS.0302)."),
                (status = 403, description = "Another project's path (KMS.0321), too weak roles (KMS.0307), or not the caller's key (KMS.0306)."),
                (status = 404, description = "There is no such key (KMS.0207)."),
                (status = 503, description = "The key service can't answer now (KMS.0104)."),
            ),
            security(("token" = []), ("signature" = [])),
        )]
        pub(super) async fn $name(
            axum::extract::State(state): axum::extract::State<$crate::kms::KmsState>,
            $crate::caller::Caller(call): $crate::caller::Caller,
            path: Result<axum::extract::Path<String>, axum::extract::rejection::PathRejection>,
            key: Result<$crate::idempotency::IdempotencyKey, $crate::errors::Failure>,
            body: axum::body::Body,
        ) -> $crate::errors::Reply {
            let by = $crate::kms::enter(&state, &call, &$crate::kms::project(path)?, $action)?;
            let fields = $crate::kms::fields::Fields::read(&state, key, body).await?;
            let by = by.with_sequence(fields.sequence()?);
            $run(&state, &by, &fields).await
        }
    };
}
use post;
