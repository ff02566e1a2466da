//! Domains.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::IntoResponse;
use calotype_core::Error;
use calotype_core::id::DomainId;
use calotype_identity::keystone;
use http::HeaderMap;

use super::IdentityState;
use super::refusals::Refusals;
use super::request::{EnabledFilter, Filter, id};
use crate::caller::Caller;
use crate::errors::Reply;

/// The domains that the caller can ask a token for.
#[utoipa::path(get, path = "/identity/v3/auth/domains", tag = "Identity", operation_id = "listOwnDomains",
    security(("token" = []), ("signature" = [])),
    params(("name" = Option<String>, Query)), responses((status = 200, description = "The domains"), Refusals))]
pub(super) async fn own_domains(
    State(state): State<IdentityState>,
    Caller(call): Caller,
    headers: HeaderMap,
    filter: Filter,
) -> Reply {
    let mut domains = state.identity.own_domains(&call.principal).await?;
    // Keystone has no filter here; OTC's clients send one and take the first.
    domains.retain(|domain| filter.name.as_ref().is_none_or(|name| &domain.name == name));
    let base = state.base_url(&headers);
    Ok(Json(keystone::domains(&domains, &base, "auth/domains")).into_response())
}

/// The domains that the caller may see.
#[utoipa::path(get, path = "/identity/v3/domains", tag = "Identity", operation_id = "listDomains",
    security(("token" = []), ("signature" = [])),
    params(("name" = Option<String>, Query),
        EnabledFilter),
    responses((status = 200, description = "The domains"), Refusals))]
pub(super) async fn list_domains(
    State(state): State<IdentityState>,
    Caller(call): Caller,
    headers: HeaderMap,
    filter: Filter,
) -> Reply {
    let mut domains = state
        .identity
        .visible_domains(&call.principal, filter.name.as_deref())
        .await?;
    domains.retain(|domain| filter.admits(domain.enabled));
    let base = state.base_url(&headers);
    Ok(Json(keystone::domains(&domains, &base, "domains")).into_response())
}

/// A domain.
#[utoipa::path(get, path = "/identity/v3/domains/{domain_id}", tag = "Identity", operation_id = "showDomain",
    security(("token" = []), ("signature" = [])),
    params(("domain_id" = String, Path)), responses((status = 200, description = "The domain"), Refusals))]
pub(super) async fn show_domain(
    State(state): State<IdentityState>,
    Caller(call): Caller,
    headers: HeaderMap,
    Path(domain): Path<String>,
) -> Reply {
    let domain = id::<DomainId>(&domain)?;
    let domains = state
        .identity
        .visible_domains(&call.principal, None)
        .await?;
    let found = domains.into_iter().find(|seen| seen.id == domain);
    let found = found.ok_or_else(|| Error::not_found("There is no such domain."))?;
    Ok(Json(keystone::domain(&found, &state.base_url(&headers))).into_response())
}
