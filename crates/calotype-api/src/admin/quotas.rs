//! Quotas of projects: what each may have and has, and the limits of its own.

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::IntoResponse as _;
use calotype_core::access::Action;
use calotype_core::app::{LimitInForce, Quota};
use calotype_core::codes::ImsCode;
use calotype_core::id::ProjectId;
use calotype_core::ports::{LimitChange, OwnLimit};
use calotype_core::{Error, Result};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::bad;
use crate::caller::Caller;
use crate::errors::Reply;
use crate::ims::quota::bytes_of;
use crate::json_body::{json_object, read_body};
use crate::state::ApiState;

/// The body of a request to set limits of a project's own, for the API's description. What is absent stays as it is, null
/// is the configuration's limit, -1 is none.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
pub struct SetQuota {
    /// Images.
    pub images: Option<i64>,
    /// Members of an image.
    pub members: Option<i64>,
    /// Bytes of the images, as they are downloaded.
    pub bytes: Option<i64>,
}

/// Shows what a project may have and has.
#[utoipa::path(
    get,
    path = "/admin/v1/quotas/{project_id}",
    operation_id = "showQuota",
    tag = "Quotas",
    params(("project_id" = String, Path, description = "The project's id.")),
    responses(
        (status = 200, description = "Each limit, whether it is the project's own, and what there is."),
        (status = 401, description = "No credential, or not a good one (IMG.0087)."),
        (status = 403, description = "The caller does not run the service (IMG.0026)."),
        (status = 404, description = "That is no project's id."),
    ),
    security(("token" = []), ("signature" = [])),
)]
pub async fn show_quota(
    State(state): State<ApiState>,
    Caller(call): Caller,
    path: Result<Path<String>, PathRejection>,
) -> Reply {
    state.service.admit(&call, Action::ServiceAdminister)?;
    let project = project_of(path)?;
    let quota = state.service.quota_of(&call, &project).await?;
    Ok(Json(document(&project, &quota)).into_response())
}

/// Sets limits of a project's own. One that is below what the project has takes nothing away: it gets no more.
#[utoipa::path(
    put,
    path = "/admin/v1/quotas/{project_id}",
    operation_id = "setQuota",
    tag = "Quotas",
    params(("project_id" = String, Path, description = "The project's id.")),
    request_body(content = SetQuota, content_type = "application/json"),
    responses(
        (status = 200, description = "The quota as it now is."),
        (status = 400, description = "The body sets nothing, or something else (IMG.0001)."),
        (status = 401, description = "No credential, or not a good one (IMG.0087)."),
        (status = 403, description = "The caller does not run the service (IMG.0026)."),
        (status = 404, description = "That is no project's id."),
    ),
    security(("token" = []), ("signature" = [])),
)]
pub async fn set_quota(
    State(state): State<ApiState>,
    Caller(call): Caller,
    path: Result<Path<String>, PathRejection>,
    body: Body,
) -> Reply {
    state.service.admit(&call, Action::ServiceAdminister)?;
    let project = project_of(path)?;
    let change = change_of(&read_body(&state, body).await?)?;
    let quota = state.service.set_quota(&call, &project, &change).await?;
    Ok(Json(document(&project, &quota)).into_response())
}

/// Takes a project's own limits away: the configuration's count again.
#[utoipa::path(
    delete,
    path = "/admin/v1/quotas/{project_id}",
    operation_id = "resetQuota",
    tag = "Quotas",
    params(("project_id" = String, Path, description = "The project's id.")),
    responses(
        (status = 204, description = "The project has no limits of its own any more."),
        (status = 401, description = "No credential, or not a good one (IMG.0087)."),
        (status = 403, description = "The caller does not run the service (IMG.0026)."),
        (status = 404, description = "The project has none."),
    ),
    security(("token" = []), ("signature" = [])),
)]
pub async fn reset_quota(
    State(state): State<ApiState>,
    Caller(call): Caller,
    path: Result<Path<String>, PathRejection>,
) -> Reply {
    state.service.admit(&call, Action::ServiceAdminister)?;
    let project = project_of(path)?;
    state.service.reset_quota(&call, &project).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

fn project_of(path: Result<Path<String>, PathRejection>) -> Result<ProjectId> {
    let project = path.ok().and_then(|Path(id)| id.parse().ok());
    project.ok_or_else(|| Error::not_found("That is no project's id.").with_code(ImsCode::IMG_0121))
}

fn change_of(body: &[u8]) -> Result<LimitChange> {
    let mut change = LimitChange::default();
    for (name, value) in json_object(body)? {
        let limit = match name.as_str() {
            "images" => &mut change.images,
            "members" => &mut change.members,
            "bytes" => &mut change.bytes,
            _ => return Err(bad("A quota has the fields images, members and bytes.")),
        };
        *limit = Some(limit_of(&name, &value)?);
    }
    if change == LimitChange::default() {
        return Err(bad("None of images, members and bytes is set."));
    }
    Ok(change)
}

fn limit_of(name: &str, value: &Value) -> Result<OwnLimit> {
    if value.is_null() {
        return Ok(OwnLimit::Configured);
    }
    let limit = match value.as_i64() {
        Some(-1) => Some(OwnLimit::Unlimited),
        Some(most) => u64::try_from(most).ok().map(OwnLimit::At),
        None => None,
    };
    limit.ok_or_else(|| {
        bad(format!(
            "The field '{name}' must be a whole number, -1 for no limit, or null for the configuration's."
        ))
    })
}

fn document(project: &ProjectId, quota: &Quota) -> Value {
    let usage = &quota.project.usage;
    let limited = |limit: LimitInForce, mut of: Value| {
        of["quota"] = limit.most.into();
        of["own"] = limit.own.into();
        of
    };
    let mut bytes = bytes_of(quota);
    bytes["of_images"] = json!(usage.bytes);
    bytes["of_blobs"] = json!(usage.blob_bytes);
    let most_members = json!({ "used": quota.project.most_members });
    json!({
        "project_id": project.as_str(),
        "images": limited(quota.images, json!({ "used": usage.images })),
        "members": limited(quota.members, most_members),
        "bytes": limited(quota.bytes, bytes),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_names_numbers_no_limit_or_the_configurations() {
        let change = change_of(br#"{"images": 5, "members": -1, "bytes": null}"#).unwrap();
        let expected = LimitChange {
            images: Some(OwnLimit::At(5)),
            members: Some(OwnLimit::Unlimited),
            bytes: Some(OwnLimit::Configured),
        };
        assert_eq!(change, expected);
        assert_eq!(change_of(br#"{"bytes": 0}"#).unwrap().images, None);
        for bad in [
            "{}",
            "[]",
            r#"{"image": 1}"#,
            r#"{"images": -2}"#,
            r#"{"images": 1.5}"#,
            r#"{"images": "5"}"#,
            r#"{"bytes": 9223372036854775808}"#,
        ] {
            let refused = change_of(bad.as_bytes()).unwrap_err();
            assert_eq!(refused.code(), Some(ImsCode::IMG_0001), "{bad}");
        }
        assert_eq!(change_of(b"").unwrap_err().code(), Some(ImsCode::IMG_0007));
    }
}
