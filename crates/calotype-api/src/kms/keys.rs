//! Keys: making, finding and changing them.

use axum::extract::Path;
use axum::extract::State;
use axum::extract::rejection::PathRejection;
use calotype_core::access::Action;
use calotype_core::codes::KmsCode;
use calotype_core::master_key::{
    KeyAlias, KeyChange, KeyState, MasterKeyRecord, PENDING_DAYS, ROTATION_DAYS,
};
use calotype_core::ports::Page;
use calotype_core::time::Timestamp;
use calotype_core::{Error, Result};
use calotype_keys::kms::{NewKey, Permitted};
use http::StatusCode;
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::bodies::{
    CreateKey, ListKeys, OneKey, ScheduleKeyDeletion, UpdateKeyAlias, UpdateKeyDescription,
    UpdateKeyRotationInterval,
};
use super::fields::Fields;
use super::{KmsState, enter, ok, paged, post, project};
use crate::caller::Caller;
use crate::errors::Reply;
use crate::idempotency::{json_answer, keeping, once};

const TAG: &str = "Keys";

pub(super) fn router() -> OpenApiRouter<KmsState> {
    OpenApiRouter::default()
        .routes(routes!(create_key))
        .routes(routes!(describe_key))
        .routes(routes!(list_keys))
        .routes(routes!(enable_key))
        .routes(routes!(disable_key))
        .routes(routes!(schedule_key_deletion))
        .routes(routes!(cancel_key_deletion))
        .routes(routes!(update_key_alias))
        .routes(routes!(update_key_description))
        .routes(routes!(enable_key_rotation))
        .routes(routes!(disable_key_rotation))
        .routes(routes!(update_key_rotation_interval))
        .routes(routes!(get_key_rotation_status))
        .routes(routes!(rotate_on_demand))
        .routes(routes!(show_user_quotas))
        .routes(routes!(show_user_instances))
}

post! {
    /// Makes a key. It is enabled at once.
    create_key, "/v1.0/{project_id}/kms/create-key", "createKey", "Keys",
    Action::KeysCreate, CreateKey, create
}
post! {
    /// Shows a key.
    describe_key, "/v1.0/{project_id}/kms/describe-key", "describeKey", "Keys",
    Action::KeysGet, OneKey, describe
}
post! {
    /// Lists the project's keys, newest first.
    list_keys, "/v1.0/{project_id}/kms/list-keys", "listKeys", "Keys",
    Action::KeysList, ListKeys, list
}
post! {
    /// Enables a disabled key.
    enable_key, "/v1.0/{project_id}/kms/enable-key", "enableKey", "Keys",
    Action::KeysEnable, OneKey, enable
}
post! {
    /// Disables a key: what it wrapped can't be opened until it is enabled again.
    disable_key, "/v1.0/{project_id}/kms/disable-key", "disableKey", "Keys",
    Action::KeysDisable, OneKey, disable
}
post! {
    /// Schedules a key's deletion. What it wrapped can't be opened any more, and never again when its time has come.
    schedule_key_deletion, "/v1.0/{project_id}/kms/schedule-key-deletion", "scheduleKeyDeletion", "Keys",
    Action::KeysUpdate, ScheduleKeyDeletion, schedule_deletion
}
post! {
    /// Cancels a key's deletion. The key is disabled then.
    cancel_key_deletion, "/v1.0/{project_id}/kms/cancel-key-deletion", "cancelKeyDeletion", "Keys",
    Action::KeysUpdate, OneKey, cancel_deletion
}
post! {
    /// Gives a key another alias.
    update_key_alias, "/v1.0/{project_id}/kms/update-key-alias", "updateKeyAlias", "Keys",
    Action::KeysUpdate, UpdateKeyAlias, update_alias
}
post! {
    /// Gives a key another description.
    update_key_description, "/v1.0/{project_id}/kms/update-key-description", "updateKeyDescription", "Keys",
    Action::KeysUpdate, UpdateKeyDescription, update_description
}
post! {
    /// Has a key rotated by itself, every 365 days.
    enable_key_rotation, "/v1.0/{project_id}/kms/enable-key-rotation", "enableKeyRotation", "Keys",
    Action::RotationEnable, OneKey, enable_rotation
}
post! {
    /// Has a key not rotated any more.
    disable_key_rotation, "/v1.0/{project_id}/kms/disable-key-rotation", "disableKeyRotation", "Keys",
    Action::RotationDisable, OneKey, disable_rotation
}
post! {
    /// Says how often a key is rotated.
    update_key_rotation_interval, "/v1.0/{project_id}/kms/update-key-rotation-interval", "updateKeyRotationInterval", "Keys",
    Action::RotationUpdate, UpdateKeyRotationInterval, update_interval
}
post! {
    /// Shows how a key is rotated.
    get_key_rotation_status, "/v1.0/{project_id}/kms/get-key-rotation-status", "getKeyRotationStatus", "Keys",
    Action::RotationGet, OneKey, rotation_status
}
post! {
    /// Rotates a key now. What its older versions wrapped still opens.
    rotate_on_demand, "/v1.0/{project_id}/kms/rotate-on-demand", "rotateKeyOnDemand", "Keys",
    Action::RotationUpdate, OneKey, rotate
}

/// Shows how many keys and grants there may be.
#[utoipa::path(
    get,
    path = "/v1.0/{project_id}/kms/user-quotas",
    operation_id = "showKeyQuotas",
    tag = TAG,
    params(("project_id" = String, Path, description = "The project that the credential is scoped to.")),
    responses(
        (status = 200, description = "The quotas of keys, and of grants on a key."),
        (status = 401, description = "No credential, or not a good one (KMS.0301, KMS.0302)."),
        (status = 403, description = "Another project's path (KMS.0321), or too weak roles (KMS.0307)."),
    ),
    security(("token" = []), ("signature" = [])),
)]
pub(super) async fn show_user_quotas(
    State(state): State<KmsState>,
    Caller(call): Caller,
    path: Result<Path<String>, PathRejection>,
) -> Reply {
    let by = enter(&state, &call, &project(path)?, Action::KeysQuota)?;
    let quota = state.keys.key_quota(&by).await?;
    Ok(ok(json!({
        "quotas": {
            "resources": [
                { "type": "CMK", "used": quota.usage.keys, "quota": quota.keys },
                { "type": "grant_per_CMK", "used": quota.usage.most_grants, "quota": quota.grants },
            ],
        },
    })))
}

/// Shows how many keys there are.
#[utoipa::path(
    get,
    path = "/v1.0/{project_id}/kms/user-instances",
    operation_id = "countKeys",
    tag = TAG,
    params(("project_id" = String, Path, description = "The project that the credential is scoped to.")),
    responses(
        (status = 200, description = "The number of keys, in whatever state."),
        (status = 401, description = "No credential, or not a good one (KMS.0301, KMS.0302)."),
        (status = 403, description = "Another project's path (KMS.0321), or too weak roles (KMS.0307)."),
    ),
    security(("token" = []), ("signature" = [])),
)]
pub(super) async fn show_user_instances(
    State(state): State<KmsState>,
    Caller(call): Caller,
    path: Result<Path<String>, PathRejection>,
) -> Reply {
    let by = enter(&state, &call, &project(path)?, Action::KeysCount)?;
    let keys = state.keys.count_keys(&by).await?;
    Ok(ok(json!({ "instance_num": keys })))
}

async fn create(state: &KmsState, by: &Permitted<'_>, fields: &Fields) -> Reply {
    let new = new_key(fields)?;
    let region = state.keys.region().to_owned();
    let slot = fields.slot(by.principal());
    let service = &state.service;
    once(service, slot.as_ref(), async {
        let text = |key: &MasterKeyRecord| made_text(key, &region);
        let keep = keeping(slot.as_ref(), |slot, key: &MasterKeyRecord| {
            slot.answer(service, StatusCode::OK, text(key), None)
        });
        let key = state.keys.create_key(by, new, keep.as_deref()).await?;
        Ok(json_answer(text(&key)))
    })
    .await
}

fn made_text(key: &MasterKeyRecord, region: &str) -> String {
    let info = json!({
        "key_id": key.id.to_string(),
        "domain_id": key.domain,
        "region_id": region,
    });
    json!({ "key_info": info }).to_string()
}

fn new_key(fields: &Fields) -> Result<NewKey> {
    let alias = fields.required("key_alias", KmsCode::KMS_1101)?;
    let alias: KeyAlias = alias.parse()?;
    let is = |name: &str, wanted: &str, code: KmsCode| -> Result<()> {
        match fields.word(name, code)? {
            Some(word) if !word.eq_ignore_ascii_case(wanted) => Err(Error::kms(code)),
            _ => Ok(()),
        }
    };
    is("key_spec", "AES_256", KmsCode::KMS_1110)?;
    is("key_usage", "ENCRYPT_DECRYPT", KmsCode::KMS_0308)?;
    let description = fields.text("key_description", KmsCode::KMS_1103)?;
    let description = check_description(description.unwrap_or_default())?;
    is("origin", "kms", KmsCode::KMS_0340)?;
    is("keystore_id", "0", KmsCode::KMS_0340)?;
    let realm = fields.word("realm", KmsCode::KMS_1102)?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    if realm.is_some_and(|realm| realm.len() > 64 || !realm.bytes().all(plain)) {
        return Err(Error::kms(KmsCode::KMS_1102));
    }
    let enterprise_project = fields.word("enterprise_project_id", KmsCode::KMS_0308)?;
    let enterprise_project = enterprise_project.unwrap_or_default().parse();
    Ok(NewKey {
        alias,
        description,
        realm: realm.map(str::to_owned),
        enterprise_project: enterprise_project.map_err(|_| Error::kms(KmsCode::KMS_0308))?,
    })
}

fn check_description(text: &str) -> Result<String> {
    // One of the catalog's engines can't keep a NUL.
    if text.chars().count() > 255 || text.contains('\0') {
        return Err(Error::kms(KmsCode::KMS_1103));
    }
    Ok(text.to_owned())
}

async fn describe(state: &KmsState, by: &Permitted<'_>, fields: &Fields) -> Reply {
    let key = state.keys.describe_key(by, &fields.key()?).await?;
    Ok(ok(json!({ "key_info": key_info(&key) })))
}

async fn list(state: &KmsState, by: &Permitted<'_>, fields: &Fields) -> Reply {
    let window = fields.window()?;
    let spec = fields.word("key_spec", KmsCode::KMS_0308)?;
    // Keys of other kinds, and keys that wait for something, are none that there could be.
    let (state_wanted, none) = match fields.number("key_state", KmsCode::KMS_0308)? {
        None => (None, false),
        Some(2) => (Some(KeyState::Enabled), false),
        Some(3) => (Some(KeyState::Disabled), false),
        Some(4) => (Some(KeyState::PendingDeletion), false),
        Some(1 | 5) => (None, true),
        Some(_) => return Err(Error::kms(KmsCode::KMS_0308).into()),
    };
    let none = none || spec.is_some_and(|spec| !["ALL", "AES_256"].contains(&spec));
    let page = if none {
        Page {
            items: Vec::new(),
            total: 0,
        }
    } else {
        state.keys.list_keys(by, state_wanted, window).await?
    };
    let ids: Vec<String> = page.items.iter().map(|key| key.id.to_string()).collect();
    let details: Vec<Value> = page.items.iter().map(key_info).collect();
    let mut document = json!({ "keys": ids, "key_details": details });
    paged(&mut document, &page, window);
    Ok(ok(document))
}

async fn change(
    state: &KmsState,
    by: &Permitted<'_>,
    fields: &Fields,
    change: KeyChange,
) -> Result<MasterKeyRecord> {
    let key = fields.key_id()?;
    state.keys.change_key(by, &key, &change).await
}

async fn enable(state: &KmsState, by: &Permitted<'_>, fields: &Fields) -> Reply {
    let key = change(state, by, fields, KeyChange::Enable).await?;
    Ok(ok(json!({ "key_info": key_and_state(&key) })))
}

async fn disable(state: &KmsState, by: &Permitted<'_>, fields: &Fields) -> Reply {
    let key = change(state, by, fields, KeyChange::Disable).await?;
    Ok(ok(json!({ "key_info": key_and_state(&key) })))
}

async fn schedule_deletion(state: &KmsState, by: &Permitted<'_>, fields: &Fields) -> Reply {
    let id = fields.key_id()?;
    let days = fields.number("pending_days", KmsCode::KMS_1401)?;
    let days = days.ok_or_else(|| super::fields::missing("pending_days"))?;
    let days = u16::try_from(days).ok();
    let days = days.filter(|days| PENDING_DAYS.contains(&u64::from(*days)));
    let days = days.ok_or_else(|| Error::kms(KmsCode::KMS_1401))?;
    let change = KeyChange::ScheduleDeletion(days);
    let key = state.keys.change_key(by, &id, &change).await?;
    Ok(ok(key_and_state(&key)))
}

async fn cancel_deletion(state: &KmsState, by: &Permitted<'_>, fields: &Fields) -> Reply {
    let key = change(state, by, fields, KeyChange::CancelDeletion).await?;
    Ok(ok(key_and_state(&key)))
}

async fn update_alias(state: &KmsState, by: &Permitted<'_>, fields: &Fields) -> Reply {
    let id = fields.key_id()?;
    let alias = fields.required("key_alias", KmsCode::KMS_1101)?.parse()?;
    let change = KeyChange::Alias(alias);
    let key = state.keys.change_key(by, &id, &change).await?;
    let info = json!({ "key_id": key.id.to_string(), "key_alias": key.alias.as_str() });
    Ok(ok(json!({ "key_info": info })))
}

async fn update_description(state: &KmsState, by: &Permitted<'_>, fields: &Fields) -> Reply {
    let id = fields.key_id()?;
    let text = fields.required("key_description", KmsCode::KMS_1103)?;
    let change = KeyChange::Description(check_description(text)?);
    let key = state.keys.change_key(by, &id, &change).await?;
    let info = json!({ "key_id": key.id.to_string(), "key_description": key.description });
    Ok(ok(json!({ "key_info": info })))
}

async fn enable_rotation(state: &KmsState, by: &Permitted<'_>, fields: &Fields) -> Reply {
    change(state, by, fields, KeyChange::EnableRotation).await?;
    Ok(ok(json!({})))
}

async fn disable_rotation(state: &KmsState, by: &Permitted<'_>, fields: &Fields) -> Reply {
    change(state, by, fields, KeyChange::DisableRotation).await?;
    Ok(ok(json!({})))
}

async fn update_interval(state: &KmsState, by: &Permitted<'_>, fields: &Fields) -> Reply {
    let id = fields.key_id()?;
    let days = fields.number("rotation_interval", KmsCode::KMS_3001)?;
    let days = days.ok_or_else(|| super::fields::missing("rotation_interval"))?;
    let days = u16::try_from(days).ok();
    let days = days.filter(|days| ROTATION_DAYS.contains(&u64::from(*days)));
    let days = days.ok_or_else(|| Error::kms(KmsCode::KMS_3001))?;
    let change = KeyChange::RotationDays(days);
    state.keys.change_key(by, &id, &change).await?;
    Ok(ok(json!({})))
}

async fn rotation_status(state: &KmsState, by: &Permitted<'_>, fields: &Fields) -> Reply {
    let key = state.keys.key_rotation(by, &fields.key_id()?).await?;
    let document = match key.rotation {
        Some(rotation) => json!({
            "key_rotation_enabled": true,
            "rotation_interval": rotation.days,
            "last_rotation_time": millis(key.rotated_at),
            "number_of_rotations": key.rotations,
        }),
        None => json!({
            "key_rotation_enabled": false,
            "rotation_interval": calotype_core::master_key::DEFAULT_ROTATION_DAYS,
            "last_rotation_time": "",
            "number_of_rotations": 0,
        }),
    };
    Ok(ok(document))
}

async fn rotate(state: &KmsState, by: &Permitted<'_>, fields: &Fields) -> Reply {
    let key = state.keys.rotate_key(by, &fields.key_id()?).await?;
    Ok(ok(json!({ "key_id": key.id.to_string() })))
}

fn key_and_state(key: &MasterKeyRecord) -> Value {
    json!({ "key_id": key.id.to_string(), "key_state": state_number(key.state) })
}

/// A key's document. Everything in it is a text: clients of typed languages fail on anything else.
pub(super) fn key_info(key: &MasterKeyRecord) -> Value {
    json!({
        "key_id": key.id.to_string(),
        "domain_id": key.domain,
        "key_alias": key.alias.as_str(),
        "realm": key.realm,
        "key_description": key.description,
        "key_spec": "AES_256",
        "key_usage": "ENCRYPT_DECRYPT",
        "creation_date": millis(Some(key.created_at)),
        "scheduled_deletion_date": millis(key.deletion_at),
        "key_state": state_number(key.state),
        "default_key_flag": "0",
        "key_type": "1",
        "expiration_time": "",
        "origin": "kms",
        "key_rotation_enabled": if key.rotation.is_some() { "true" } else { "false" },
        "sys_enterprise_project_id": key.enterprise_project.to_string(),
        "keystore_id": "0",
    })
}

const fn state_number(state: KeyState) -> &'static str {
    match state {
        KeyState::Enabled => "2",
        KeyState::Disabled => "3",
        KeyState::PendingDeletion => "4",
    }
}

/// Milliseconds since 1970, as clients read them; empty where there is no time.
pub(super) fn millis(at: Option<Timestamp>) -> String {
    at.map(|at| (at.as_micros() / 1000).to_string())
        .unwrap_or_default()
}
