//! Logging in, validating and revoking tokens, and the catalog of services.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use calotype_core::{Error, Result};
use calotype_identity::{Session, keystone};
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use secrecy::{ExposeSecret as _, SecretString};

use super::IdentityState;
use super::login::LoginBody;
use super::refusals::Refusals;
use super::request::{Filter, json};
use crate::caller::Caller;
use crate::errors::Reply;
use crate::load::ClientAddress;

const SUBJECT_TOKEN: HeaderName = HeaderName::from_static("x-subject-token");

/// Logs in.
#[utoipa::path(post, path = "/identity/v3/auth/tokens", tag = "Identity", operation_id = "createToken",
    params(("nocatalog" = Option<String>, Query, description = "Whatever it is, the answer has no catalog")),
    responses((status = 201, description = "The token's meaning; the token is in X-Subject-Token"), Refusals))]
pub(super) async fn create_token(
    State(state): State<IdentityState>,
    extensions: Extensions,
    headers: HeaderMap,
    filter: Filter,
    body: Body,
) -> Reply {
    let client = extensions.get::<ClientAddress>();
    let address = client.map(|ClientAddress(address)| *address);
    let login = json::<LoginBody>(body).await?.into_login(address)?;
    let issued = state.identity.login(login).await?;
    let document = token_document(&state, &headers, &issued.session, &filter);
    let mut response = (StatusCode::CREATED, Json(document)).into_response();
    name_subject(&mut response, &issued.token)?;
    Ok(response)
}

/// Says what a token means. Answers HEAD too.
#[utoipa::path(get, path = "/identity/v3/auth/tokens", tag = "Identity", operation_id = "validateToken",
    security(("token" = []), ("signature" = [])),
    params(("X-Subject-Token" = String, Header, description = "The token that the request is about"),
        ("nocatalog" = Option<String>, Query, description = "Whatever it is, the answer has no catalog")),
    responses((status = 200, description = "The token's meaning"), Refusals))]
pub(super) async fn validate_token(
    State(state): State<IdentityState>,
    Caller(call): Caller,
    headers: HeaderMap,
    filter: Filter,
) -> Reply {
    let token = subject(&headers)?;
    let session = state.identity.subject(&call, &token).await?;
    let mut response = Json(token_document(&state, &headers, &session, &filter)).into_response();
    name_subject(&mut response, &token)?;
    Ok(response)
}

/// Revokes a token.
#[utoipa::path(delete, path = "/identity/v3/auth/tokens", tag = "Identity", operation_id = "revokeToken",
    security(("token" = []), ("signature" = [])),
    params(("X-Subject-Token" = String, Header, description = "The token that the request is about")),
    responses((status = 204, description = "The token is revoked"), Refusals))]
pub(super) async fn revoke_token(
    State(state): State<IdentityState>,
    Caller(call): Caller,
    headers: HeaderMap,
) -> Reply {
    let token = subject(&headers)?;
    state.identity.revoke(&call, &token).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// The catalog of services.
#[utoipa::path(get, path = "/identity/v3/auth/catalog", tag = "Identity", operation_id = "showCatalog",
    security(("token" = []), ("signature" = [])),
    responses((status = 200, description = "The catalog"), Refusals))]
pub(super) async fn catalog(
    State(state): State<IdentityState>,
    Caller(call): Caller,
    headers: HeaderMap,
) -> Reply {
    let project = call.principal.project();
    let base = state.base_url(&headers);
    let document = keystone::catalog(&base, state.identity.region(), project);
    Ok(Json(document).into_response())
}

fn subject(headers: &HeaderMap) -> Result<SecretString> {
    let value = headers
        .get(SUBJECT_TOKEN)
        .and_then(|value| value.to_str().ok());
    let text = value.ok_or_else(|| Error::invalid("The header X-Subject-Token is missing."))?;
    Ok(SecretString::from(text))
}

fn token_document(
    state: &IdentityState,
    headers: &HeaderMap,
    session: &Session,
    filter: &Filter,
) -> serde_json::Value {
    let base = state.base_url(headers);
    keystone::token(session, &base, state.identity.region(), !filter.nocatalog)
}

fn name_subject(response: &mut Response, token: &SecretString) -> Result<()> {
    let mut value = HeaderValue::from_str(token.expose_secret()).map_err(Error::internal)?;
    value.set_sensitive(true);
    response.headers_mut().insert(SUBJECT_TOKEN, value);
    response
        .headers_mut()
        .insert(header::VARY, HeaderValue::from_static("X-Auth-Token"));
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(())
}
