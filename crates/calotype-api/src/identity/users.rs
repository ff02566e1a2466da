//! Users.

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::IntoResponse;
use calotype_core::id::{DomainId, UserId};
use calotype_identity::{NewUser, keystone};
use http::{HeaderMap, StatusCode};
use secrecy::SecretString;
use serde::Deserialize;

use super::IdentityState;
use super::refusals::Refusals;
use super::request::{EnabledFilter, Filter, id, json, optional_id};
use crate::caller::Caller;
use crate::errors::Reply;

#[derive(Deserialize)]
struct NewUserBody {
    user: NewUserFields,
}

#[derive(Deserialize)]
struct NewUserFields {
    name: String,
    domain_id: Option<String>,
    password: Option<SecretString>,
    default_project_id: Option<String>,
    enabled: Option<bool>,
}

#[derive(Deserialize)]
struct ChangedUserBody {
    user: ChangedUserFields,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChangedUserFields {
    enabled: Option<bool>,
    password: Option<SecretString>,
}

/// The users that the caller may see.
#[utoipa::path(get, path = "/identity/v3/users", tag = "Identity", operation_id = "listUsers",
    security(("token" = []), ("signature" = [])),
    params(("name" = Option<String>, Query), ("domain_id" = Option<String>, Query),
        EnabledFilter),
    responses((status = 200, description = "The users"), Refusals))]
pub(super) async fn list_users(
    State(state): State<IdentityState>,
    Caller(call): Caller,
    headers: HeaderMap,
    filter: Filter,
) -> Reply {
    let domain = filter.domain_id.as_deref().map(str::parse::<DomainId>);
    let mut users = match domain.transpose() {
        Ok(domain) => {
            let (name, domain) = (filter.name.as_deref(), domain.as_ref());
            state
                .identity
                .visible_users(&call.principal, name, domain)
                .await?
        }
        Err(_) => Vec::new(),
    };
    users.retain(|user| filter.admits(user.enabled));
    Ok(Json(keystone::users(&users, &state.base_url(&headers))).into_response())
}

/// Makes a user.
#[utoipa::path(post, path = "/identity/v3/users", tag = "Identity", operation_id = "createUser",
    security(("token" = []), ("signature" = [])),
    responses((status = 201, description = "The user"), Refusals))]
pub(super) async fn create_user(
    State(state): State<IdentityState>,
    Caller(call): Caller,
    headers: HeaderMap,
    body: Body,
) -> Reply {
    let administrator = state.identity.administrator(&call)?;
    let fields = json::<NewUserBody>(body).await?.user;
    let new = NewUser {
        name: fields.name,
        domain: optional_id(fields.domain_id.as_deref())?
            .unwrap_or_else(|| call.principal.user_domain.id.clone()),
        password: fields.password,
        default_project: optional_id(fields.default_project_id.as_deref())?,
        enabled: fields.enabled.unwrap_or(true),
    };
    let user = state.identity.create_user(&administrator, new).await?;
    let document = keystone::user(&user, &state.base_url(&headers));
    Ok((StatusCode::CREATED, Json(document)).into_response())
}

/// A user.
#[utoipa::path(get, path = "/identity/v3/users/{user_id}", tag = "Identity", operation_id = "showUser",
    security(("token" = []), ("signature" = [])),
    params(("user_id" = String, Path)), responses((status = 200, description = "The user"), Refusals))]
pub(super) async fn show_user(
    State(state): State<IdentityState>,
    Caller(call): Caller,
    headers: HeaderMap,
    Path(user): Path<String>,
) -> Reply {
    let user = id::<UserId>(&user)?;
    let user = state.identity.visible_user(&call.principal, &user).await?;
    Ok(Json(keystone::user(&user, &state.base_url(&headers))).into_response())
}

/// Enables or disables a user, and sets its password.
#[utoipa::path(patch, path = "/identity/v3/users/{user_id}", tag = "Identity", operation_id = "updateUser",
    security(("token" = []), ("signature" = [])),
    params(("user_id" = String, Path)), responses((status = 200, description = "The user"), Refusals))]
pub(super) async fn update_user(
    State(state): State<IdentityState>,
    Caller(call): Caller,
    headers: HeaderMap,
    Path(user): Path<String>,
    body: Body,
) -> Reply {
    let administrator = state.identity.administrator(&call)?;
    let user = id::<UserId>(&user)?;
    let fields = json::<ChangedUserBody>(body).await?.user;
    if let Some(password) = &fields.password {
        state
            .identity
            .set_password(&administrator, &user, password)
            .await?;
    }
    if let Some(enabled) = fields.enabled {
        state
            .identity
            .set_user_enabled(&administrator, &user, enabled)
            .await?;
    }
    let user = state.identity.visible_user(&call.principal, &user).await?;
    Ok(Json(keystone::user(&user, &state.base_url(&headers))).into_response())
}

/// Removes a user.
#[utoipa::path(delete, path = "/identity/v3/users/{user_id}", tag = "Identity", operation_id = "deleteUser",
    security(("token" = []), ("signature" = [])),
    params(("user_id" = String, Path)), responses((status = 204, description = "Removed"), Refusals))]
pub(super) async fn delete_user(
    State(state): State<IdentityState>,
    Caller(call): Caller,
    Path(user): Path<String>,
) -> Reply {
    let administrator = state.identity.administrator(&call)?;
    let user = id::<UserId>(&user)?;
    state.identity.delete_user(&administrator, &user).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
