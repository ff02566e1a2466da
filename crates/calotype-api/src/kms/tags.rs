//! The tags of keys.

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::IntoResponse as _;
use calotype_core::access::Action;
use calotype_core::codes::KmsCode;
use calotype_core::ports::{TagChange, Window};
use calotype_core::{Error, Result};
use calotype_keys::kms::{KeyRef, Permitted, TagFilter};
use http::StatusCode;
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::bodies::{AddTag, ChangeTags, FindKeys};
use super::fields::{Fields, missing};
use super::keys::key_info;
use super::{KmsState, enter, ok, post, project};
use crate::caller::Caller;
use crate::errors::{Failure, Reply};
use crate::idempotency::IdempotencyKey;

/// The longest key of a tag, in characters: the console's limit, which is above the API's.
const MAX_KEY: usize = 128;
/// The longest value.
const MAX_VALUE: usize = 255;
/// The page that comes where no limit is given, and the largest.
const FOUND: (u64, u64) = (10, 1000);

pub(super) fn router() -> OpenApiRouter<KmsState> {
    OpenApiRouter::default()
        .routes(routes!(list_key_tags, add_key_tag))
        .routes(routes!(change_key_tags))
        .routes(routes!(delete_key_tag))
        .routes(routes!(list_project_tags))
        .routes(routes!(find_keys))
}

type KeyPath = Result<Path<(String, String)>, PathRejection>;

/// The project and the key in a path.
fn project_and_key(path: KeyPath) -> Result<(String, String)> {
    let Path(both) = path.map_err(|_| Error::kms(KmsCode::KMS_0205))?;
    Ok(both)
}

/// Shows a key's tags.
#[utoipa::path(
    get,
    path = "/v1.0/{project_id}/kms/{key_id}/tags",
    operation_id = "listKeyTags",
    tag = "Key tags",
    params(
        ("project_id" = String, Path, description = "The project that the credential is scoped to."),
        ("key_id" = String, Path, description = "The key's id."),
    ),
    responses(
        (status = 200, description = "The tags."),
        (status = 400, description = "The key's id is malformed (KMS.0205)."),
        (status = 401, description = "No credential, or not a good one (KMS.0301, KMS.0302)."),
        (status = 403, description = "Another project's path (KMS.0321), too weak roles (KMS.0307), or not the caller's key (KMS.0306)."),
        (status = 404, description = "There is no such key (KMS.0207)."),
    ),
    security(("token" = []), ("signature" = [])),
)]
pub(super) async fn list_key_tags(
    State(state): State<KmsState>,
    Caller(call): Caller,
    path: KeyPath,
) -> Reply {
    let (project, key) = project_and_key(path)?;
    let by = enter(&state, &call, &project, Action::KeyTagsList)?;
    let tags = state.keys.key_tags(&by, &KeyRef::parse_id(&key)?).await?;
    let count = tags.len();
    let tags: Vec<Value> = tags.iter().map(tag_document).collect();
    Ok(ok(
        json!({ "tags": tags, "sys_tags": [], "existTagsNum": count }),
    ))
}

/// Adds a tag to a key, or gives it another value.
#[utoipa::path(
    post,
    path = "/v1.0/{project_id}/kms/{key_id}/tags",
    operation_id = "addKeyTag",
    tag = "Key tags",
    params(
        ("project_id" = String, Path, description = "The project that the credential is scoped to."),
        ("key_id" = String, Path, description = "The key's id."),
    ),
    request_body(content = AddTag, content_type = "application/json"),
    responses(
        (status = 204, description = "Done."),
        (status = 400, description = "The tag breaks a rule; the code says which."),
        (status = 401, description = "No credential, or not a good one (KMS.0301, KMS.0302)."),
        (status = 403, description = "Another project's path (KMS.0321), too weak roles (KMS.0307), or not the caller's key (KMS.0306)."),
        (status = 404, description = "There is no such key (KMS.0207)."),
    ),
    security(("token" = []), ("signature" = [])),
)]
pub(super) async fn add_key_tag(
    State(state): State<KmsState>,
    Caller(call): Caller,
    path: KeyPath,
    key: Result<IdempotencyKey, Failure>,
    body: Body,
) -> Reply {
    let (project, id) = project_and_key(path)?;
    let by = enter(&state, &call, &project, Action::KeyTagsCreate)?;
    let fields = Fields::read(&state, key, body).await?;
    let by = by.with_sequence(fields.sequence()?);
    let id = KeyRef::parse_id(&id)?;
    let tag = fields.value("tag").ok_or_else(|| missing("tag"))?;
    let change = TagChange {
        set: vec![tag_of(tag)?],
        remove: Vec::new(),
    };
    state.keys.change_tags(&by, &id, &change).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Adds tags to a key, or removes them.
#[utoipa::path(
    post,
    path = "/v1.0/{project_id}/kms/{key_id}/tags/action",
    operation_id = "changeKeyTags",
    tag = "Key tags",
    params(
        ("project_id" = String, Path, description = "The project that the credential is scoped to."),
        ("key_id" = String, Path, description = "The key's id."),
    ),
    request_body(content = ChangeTags, content_type = "application/json"),
    responses(
        (status = 204, description = "Done."),
        (status = 400, description = "A tag breaks a rule; the code says which."),
        (status = 401, description = "No credential, or not a good one (KMS.0301, KMS.0302)."),
        (status = 403, description = "Another project's path (KMS.0321), too weak roles (KMS.0307), or not the caller's key (KMS.0306)."),
        (status = 404, description = "There is no such key (KMS.0207)."),
    ),
    security(("token" = []), ("signature" = [])),
)]
pub(super) async fn change_key_tags(
    State(state): State<KmsState>,
    Caller(call): Caller,
    path: KeyPath,
    key: Result<IdempotencyKey, Failure>,
    body: Body,
) -> Reply {
    let (project, id) = project_and_key(path)?;
    let by = enter(&state, &call, &project, Action::KeyTagsBatch)?;
    let fields = Fields::read(&state, key, body).await?;
    let by = by.with_sequence(fields.sequence()?);
    let id = KeyRef::parse_id(&id)?;
    let create = match fields.required("action", KmsCode::KMS_0404)? {
        "create" => true,
        "delete" => false,
        _ => return Err(Error::kms(KmsCode::KMS_0404).into()),
    };
    let tags = fields.list("tags", KmsCode::KMS_0412)?.unwrap_or_default();
    if tags.is_empty() {
        return Err(Error::kms(KmsCode::KMS_0401).into());
    }
    if tags.len() as u64 > calotype_core::master_key::MAX_TAGS {
        return Err(Error::kms(KmsCode::KMS_0409).into());
    }
    let tags: Result<Vec<_>> = tags.iter().map(tag_of).collect();
    let (set, remove) = if create {
        (tags?, Vec::new())
    } else {
        (Vec::new(), tags?.into_iter().map(|(key, _)| key).collect())
    };
    let change = TagChange { set, remove };
    state.keys.change_tags(&by, &id, &change).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Removes a tag from a key.
#[utoipa::path(
    delete,
    path = "/v1.0/{project_id}/kms/{key_id}/tags/{tag}",
    operation_id = "deleteKeyTag",
    tag = "Key tags",
    params(
        ("project_id" = String, Path, description = "The project that the credential is scoped to."),
        ("key_id" = String, Path, description = "The key's id."),
        ("tag" = String, Path, description = "The tag's key."),
    ),
    responses(
        (status = 204, description = "Done."),
        (status = 400, description = "The key's id is malformed (KMS.0205)."),
        (status = 401, description = "No credential, or not a good one (KMS.0301, KMS.0302)."),
        (status = 403, description = "Another project's path (KMS.0321), too weak roles (KMS.0307), or not the caller's key (KMS.0306)."),
        (status = 404, description = "There is no such key (KMS.0207), or no such tag (KMS.0416)."),
    ),
    security(("token" = []), ("signature" = [])),
)]
pub(super) async fn delete_key_tag(
    State(state): State<KmsState>,
    Caller(call): Caller,
    path: Result<Path<(String, String, String)>, PathRejection>,
) -> Reply {
    let Path((project, id, tag)) = path.map_err(|_| Error::kms(KmsCode::KMS_0205))?;
    let by = enter(&state, &call, &project, Action::KeyTagsDelete)?;
    let id = KeyRef::parse_id(&id)?;
    state.keys.delete_tag(&by, &id, tag).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Shows the tags of all keys of the project.
#[utoipa::path(
    get,
    path = "/v1.0/{project_id}/kms/tags",
    operation_id = "listProjectKeyTags",
    tag = "Key tags",
    params(("project_id" = String, Path, description = "The project that the credential is scoped to.")),
    responses(
        (status = 200, description = "The tags, each with the values that it has."),
        (status = 401, description = "No credential, or not a good one (KMS.0301, KMS.0302)."),
        (status = 403, description = "Another project's path (KMS.0321), or too weak roles (KMS.0307)."),
    ),
    security(("token" = []), ("signature" = [])),
)]
pub(super) async fn list_project_tags(
    State(state): State<KmsState>,
    Caller(call): Caller,
    path: Result<Path<String>, PathRejection>,
) -> Reply {
    let by = enter(&state, &call, &project(path)?, Action::KeyTagsList)?;
    let tags = state.keys.project_tags(&by).await?;
    let tags = tags
        .iter()
        .map(|(key, values)| json!({ "key": key, "values": values }));
    Ok(ok(json!({ "tags": tags.collect::<Vec<_>>() })))
}

post! {
    /// Finds keys by their tags and aliases, or counts them.
    find_keys, "/v1.0/{project_id}/kms/resource_instances/action", "findKeys", "Key tags",
    Action::KeyTagsFind, FindKeys, find
}

async fn find(state: &KmsState, by: &Permitted<'_>, fields: &Fields) -> Reply {
    let count = match fields.required("action", KmsCode::KMS_0404)? {
        "filter" => false,
        "count" => true,
        _ => return Err(Error::kms(KmsCode::KMS_0404).into()),
    };
    let offset = fields.number("offset", KmsCode::KMS_0417)?;
    if count && offset.is_some() {
        return Err(Error::kms(KmsCode::KMS_0418).into());
    }
    let limit = fields
        .number("limit", KmsCode::KMS_1601)?
        .unwrap_or(FOUND.0);
    if !(1..=FOUND.1).contains(&limit) {
        return Err(Error::kms(KmsCode::KMS_1601).into());
    }
    let filter = TagFilter {
        tags: wanted_tags(fields)?,
        names: wanted_names(fields)?,
    };
    let window = Window {
        offset: offset.unwrap_or(0),
        limit,
    };
    let found = state.keys.find_keys(by, &filter, window).await?;
    let keys = found.items.iter().filter(|_| !count).map(|found| {
        let tags = found
            .tags
            .iter()
            .map(|(key, value)| json!({ "key": key, "value": value }));
        json!({
            "resource_id": found.key.id.to_string(),
            "resource_name": found.key.alias.as_str(),
            "tags": tags.collect::<Vec<_>>(),
            "resource_detail": key_info(&found.key),
        })
    });
    let keys: Vec<Value> = keys.collect();
    Ok(ok(json!({ "resources": keys, "total_count": found.total })))
}

fn wanted_tags(fields: &Fields) -> Result<Vec<(String, Vec<String>)>> {
    let malformed = || Error::kms(KmsCode::KMS_0412);
    let tags = fields.list("tags", KmsCode::KMS_0412)?.unwrap_or_default();
    let wanted = tags.iter().map(|tag| {
        let key = tag["key"].as_str().ok_or_else(malformed)?;
        let values = match &tag["values"] {
            Value::Null => Vec::new(),
            Value::Array(values) => values
                .iter()
                .map(|value| value.as_str().map(str::to_owned).ok_or_else(malformed))
                .collect::<Result<_>>()?,
            _ => return Err(malformed()),
        };
        Ok((key.to_owned(), values))
    });
    wanted.collect()
}

fn wanted_names(fields: &Fields) -> Result<Vec<String>> {
    let malformed = || Error::kms(KmsCode::KMS_0415);
    let matches = fields
        .list("matches", KmsCode::KMS_0415)?
        .unwrap_or_default();
    let wanted = matches.iter().map(|wanted| {
        if wanted["key"] != "resource_name" {
            return Err(malformed());
        }
        let name = wanted["value"].as_str().ok_or_else(malformed)?;
        Ok(name.to_owned())
    });
    wanted.collect()
}

fn tag_document((key, value): &(String, String)) -> Value {
    json!({ "key": key, "value": value })
}

/// A tag; one without a value has an empty one.
fn tag_of(tag: &Value) -> Result<(String, String)> {
    if !tag.is_object() {
        return Err(Error::kms(KmsCode::KMS_0412));
    }
    let key = tag["key"].as_str();
    let key = key.ok_or_else(|| Error::kms(KmsCode::KMS_0406))?;
    let value = match &tag["value"] {
        Value::Null => "",
        Value::String(value) => value,
        _ => return Err(Error::kms(KmsCode::KMS_0405)),
    };
    let length = key.chars().count();
    if length == 0 || length > MAX_KEY {
        return Err(Error::kms(KmsCode::KMS_0411));
    }
    if value.chars().count() > MAX_VALUE {
        return Err(Error::kms(KmsCode::KMS_0410));
    }
    let odd = |c: char| c.is_control() || "*<>\\=".contains(c);
    if key.contains(odd) {
        return Err(Error::kms(KmsCode::KMS_0406));
    }
    if value.contains(odd) {
        return Err(Error::kms(KmsCode::KMS_0405));
    }
    Ok((key.to_owned(), value.to_owned()))
}
