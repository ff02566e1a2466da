//! Access keys, in Keystone's form of EC2 credentials.

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::IntoResponse;
use calotype_core::Error;
use calotype_core::id::UserId;
use calotype_identity::keystone;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Deserialize;

use super::IdentityState;
use super::refusals::Refusals;
use super::request::{id, json, optional_id};
use crate::caller::Caller;
use crate::errors::Reply;

#[derive(Deserialize)]
struct NewCredentialBody {
    tenant_id: Option<String>,
}

#[derive(Deserialize)]
struct ChangedCredentialBody {
    credential: ChangedCredentialFields,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChangedCredentialFields {
    enabled: bool,
}

/// The access keys of a user, without their secrets.
#[utoipa::path(get, path = "/identity/v3/users/{user_id}/credentials/OS-EC2", tag = "Identity", operation_id = "listCredentials",
    security(("token" = []), ("signature" = [])),
    params(("user_id" = String, Path)), responses((status = 200, description = "The access keys"), Refusals))]
pub(super) async fn list_credentials(
    State(state): State<IdentityState>,
    Caller(call): Caller,
    headers: HeaderMap,
    Path(user): Path<String>,
) -> Reply {
    let user = id::<UserId>(&user)?;
    let keys = state.identity.access_keys(&call.principal, &user).await?;
    let base = state.base_url(&headers);
    Ok(Json(keystone::credentials(&keys, &base, user.as_str())).into_response())
}

/// Makes an access key. Its secret is shown this once.
#[utoipa::path(post, path = "/identity/v3/users/{user_id}/credentials/OS-EC2", tag = "Identity", operation_id = "createCredential",
    security(("token" = []), ("signature" = [])),
    params(("user_id" = String, Path)), responses((status = 201, description = "The access key"), Refusals))]
pub(super) async fn create_credential(
    State(state): State<IdentityState>,
    Caller(call): Caller,
    headers: HeaderMap,
    Path(user): Path<String>,
    body: Body,
) -> Reply {
    let user = id::<UserId>(&user)?;
    let project = json::<NewCredentialBody>(body).await?.tenant_id;
    let project = optional_id(project.as_deref())?;
    let key = state
        .identity
        .create_access_key(&call, &user, project.as_ref())
        .await?;
    let base = state.base_url(&headers);
    let document = keystone::new_credential(&key, &base);
    let no_store = [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    Ok((StatusCode::CREATED, no_store, Json(document)).into_response())
}

/// An access key, without its secret.
#[utoipa::path(get, path = "/identity/v3/users/{user_id}/credentials/OS-EC2/{access}", tag = "Identity", operation_id = "showCredential",
    security(("token" = []), ("signature" = [])),
    params(("user_id" = String, Path), ("access" = String, Path)),
    responses((status = 200, description = "The access key"), Refusals))]
pub(super) async fn show_credential(
    State(state): State<IdentityState>,
    Caller(call): Caller,
    headers: HeaderMap,
    Path((user, access)): Path<(String, String)>,
) -> Reply {
    let user = id::<UserId>(&user)?;
    let keys = state.identity.access_keys(&call.principal, &user).await?;
    let key = keys.iter().find(|key| key.access == access);
    let key = key.ok_or_else(|| Error::not_found("There is no such access key."))?;
    Ok(Json(keystone::credential(key, &state.base_url(&headers))).into_response())
}

/// Enables or disables an access key: a call of ours, in the form of the one for projects and users.
#[utoipa::path(patch, path = "/identity/v3/users/{user_id}/credentials/OS-EC2/{access}", tag = "Identity", operation_id = "updateCredential",
    security(("token" = []), ("signature" = [])),
    params(("user_id" = String, Path), ("access" = String, Path)),
    responses((status = 200, description = "The access key"), Refusals))]
pub(super) async fn update_credential(
    State(state): State<IdentityState>,
    Caller(call): Caller,
    headers: HeaderMap,
    Path((user, access)): Path<(String, String)>,
    body: Body,
) -> Reply {
    let user = id::<UserId>(&user)?;
    let enabled = json::<ChangedCredentialBody>(body)
        .await?
        .credential
        .enabled;
    let key = state
        .identity
        .set_access_key_enabled(&call, &user, &access, enabled)
        .await?;
    Ok(Json(keystone::credential(&key, &state.base_url(&headers))).into_response())
}

/// Removes an access key.
#[utoipa::path(delete, path = "/identity/v3/users/{user_id}/credentials/OS-EC2/{access}", tag = "Identity", operation_id = "deleteCredential",
    security(("token" = []), ("signature" = [])),
    params(("user_id" = String, Path), ("access" = String, Path)),
    responses((status = 204, description = "Removed"), Refusals))]
pub(super) async fn delete_credential(
    State(state): State<IdentityState>,
    Caller(call): Caller,
    Path((user, access)): Path<(String, String)>,
) -> Reply {
    let user = id::<UserId>(&user)?;
    state
        .identity
        .delete_access_key(&call, &user, &access)
        .await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
