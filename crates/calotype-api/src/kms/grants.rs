//! Grants.

use calotype_core::access::Action;
use calotype_core::codes::KmsCode;
use calotype_core::master_key::{Grant, GrantId, GranteeType, granted_operations, is_name};
use calotype_core::ports::{Page, Window};
use calotype_core::{Error, Result};
use calotype_keys::kms::{NewGrant, Permitted};
use http::StatusCode;
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::bodies::{CreateGrant, ListGrants, ListRetirableGrants, OneGrant};
use super::fields::{Fields, missing};
use super::keys::millis;
use super::{KmsState, ok, paged, post};
use crate::errors::Reply;
use crate::idempotency::{json_answer, keeping, once};

pub(super) fn router() -> OpenApiRouter<KmsState> {
    OpenApiRouter::default()
        .routes(routes!(create_grant))
        .routes(routes!(list_grants))
        .routes(routes!(list_retirable_grants))
        .routes(routes!(revoke_grant))
        .routes(routes!(retire_grant))
}

post! {
    /// Grants a user or a domain the use of a key.
    create_grant, "/v1.0/{project_id}/kms/create-grant", "createGrant", "Grants",
    Action::GrantsCreate, CreateGrant, create
}
post! {
    /// Lists the grants on a key, oldest first.
    list_grants, "/v1.0/{project_id}/kms/list-grants", "listGrants", "Grants",
    Action::GrantsList, ListGrants, list
}
post! {
    /// Lists the grants that the caller is named to give back, oldest first.
    list_retirable_grants, "/v1.0/{project_id}/kms/list-retirable-grants", "listRetirableGrants", "Grants",
    Action::GrantsList, ListRetirableGrants, list_retirable
}
post! {
    /// Takes a grant away.
    revoke_grant, "/v1.0/{project_id}/kms/revoke-grant", "revokeGrant", "Grants",
    Action::GrantsRevoke, OneGrant, revoke
}
post! {
    /// Gives a grant back.
    retire_grant, "/v1.0/{project_id}/kms/retire-grant", "retireGrant", "Grants",
    Action::GrantsRetire, OneGrant, retire
}

async fn create(state: &KmsState, by: &Permitted<'_>, fields: &Fields) -> Reply {
    let key = fields.key_id()?;
    let new = new_grant(fields)?;
    let slot = fields.slot(by.principal());
    let service = &state.service;
    let text = |grant: &GrantId| json!({ "grant_id": grant.as_str() }).to_string();
    once(service, slot.as_ref(), async {
        let keep = keeping(slot.as_ref(), |slot, grant: &GrantId| {
            slot.answer(service, StatusCode::OK, text(grant), None)
        });
        let grant = state
            .keys
            .create_grant(by, &key, new, keep.as_deref())
            .await?;
        Ok(json_answer(text(&grant)))
    })
    .await
}

fn new_grant(fields: &Fields) -> Result<NewGrant> {
    let grantee = fields.required("grantee_principal", KmsCode::KMS_2402)?;
    let operations = fields.list("operations", KmsCode::KMS_0308)?;
    let operations = operations.ok_or_else(|| missing("operations"))?;
    let words = operations
        .iter()
        .map(|word| word.as_str().unwrap_or_default());
    let operations = granted_operations(words)?;
    let name = fields.word("name", KmsCode::KMS_0308)?;
    if name.is_some_and(|name| !is_name(name)) {
        return Err(Error::kms(KmsCode::KMS_0308));
    }
    let retiring = fields.word("retiring_principal", KmsCode::KMS_2402)?;
    let kind = fields.word("grantee_principal_type", KmsCode::KMS_0308)?;
    let grantee_type = kind.map_or(Ok(GranteeType::User), str::parse);
    Ok(NewGrant {
        grantee: principal(grantee)?,
        grantee_type: grantee_type.map_err(|_| Error::kms(KmsCode::KMS_0308))?,
        operations,
        name: name.map(str::to_owned),
        retiring: retiring.map(principal).transpose()?,
    })
}

/// The id of a user or a domain.
fn principal(text: &str) -> Result<String> {
    let plain = text.bytes().all(|b| b.is_ascii_alphanumeric());
    if plain && (1..=64).contains(&text.len()) {
        Ok(text.to_owned())
    } else {
        Err(Error::kms(KmsCode::KMS_2402))
    }
}

async fn list(state: &KmsState, by: &Permitted<'_>, fields: &Fields) -> Reply {
    let key = fields.key_id()?;
    let window = fields.window()?;
    let page = state.keys.list_grants(by, &key, window).await?;
    Ok(ok(document(&page, window)))
}

async fn list_retirable(state: &KmsState, by: &Permitted<'_>, fields: &Fields) -> Reply {
    let window = fields.window()?;
    let page = state.keys.list_retirable_grants(by, window).await?;
    Ok(ok(document(&page, window)))
}

fn document(page: &Page<Grant>, window: Window) -> Value {
    let grants = page.items.iter().map(|grant| {
        let operations: Vec<&str> = grant.operations.iter().map(|word| word.as_str()).collect();
        json!({
            "key_id": grant.key.to_string(),
            "grant_id": grant.id.as_str(),
            "grantee_principal": grant.grantee,
            "grantee_principal_type": grant.grantee_type.as_str(),
            "operations": operations,
            "issuing_principal": grant.issuer,
            "creation_date": millis(Some(grant.created_at)),
            "name": grant.name.as_deref().unwrap_or_default(),
            "retiring_principal": grant.retiring.as_deref().unwrap_or_default(),
        })
    });
    let mut document = json!({ "grants": grants.collect::<Vec<_>>() });
    paged(&mut document, page, window);
    document
}

fn grant_id(fields: &Fields) -> Result<GrantId> {
    fields.required("grant_id", KmsCode::KMS_2501)?.parse()
}

async fn revoke(state: &KmsState, by: &Permitted<'_>, fields: &Fields) -> Reply {
    let (key, grant) = (fields.key_id()?, grant_id(fields)?);
    state.keys.revoke_grant(by, &key, &grant).await?;
    Ok(ok(json!({})))
}

async fn retire(state: &KmsState, by: &Permitted<'_>, fields: &Fields) -> Reply {
    let (key, grant) = (fields.key_id()?, grant_id(fields)?);
    state.keys.retire_grant(by, &key, &grant).await?;
    Ok(ok(json!({})))
}
