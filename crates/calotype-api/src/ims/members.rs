//! `/v1/cloudimages/members`: shares many images with many projects, ends that, and answers to it (spec 2.17 to 2.19).
//!
//! What a request is made of is checked here, what becomes of each pair of image and project by the job, whose results
//! show it. The answer is sent after the transaction that wrote the job and (with an `Idempotency-Key`) the answer
//! itself.

use axum::body::Body;
use axum::extract::State;
use calotype_core::access::Action;
use calotype_core::app::{Call, MembersOrder};
use calotype_core::codes::ImsCode;
use calotype_core::id::{ImageId, ProjectId};
use calotype_core::job::MembersVerb;
use calotype_core::{Error, Result};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::accepted::{JobAccepted, accepted_text, kept};
use super::path::image_id;
use crate::caller::Caller;
use crate::errors::{Failure, Reply};
use crate::idempotency::{IdempotencyKey, json_answer, once};
use crate::json_body::{json_object, malformed, optional_list, optional_text, read_body};
use crate::state::ApiState;

/// Images and projects, for the API's description: every image with every project, 1000 pairs at most. Unknown fields
/// are ignored.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
pub struct MembersRequest {
    /// The images' ids.
    pub images: Vec<String>,
    /// The projects' ids.
    pub projects: Vec<String>,
}

/// A project's answer, for the API's description. Unknown fields are ignored.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
pub struct AnswerMembersRequest {
    /// The images' ids.
    pub images: Vec<String>,
    /// The project that answers: the credential's.
    pub project_id: String,
    /// `accepted` or `rejected`.
    pub status: String,
    /// The vault for the backups of full-ECS images; needed to accept one.
    pub vault_id: Option<String>,
}

/// Shares images with projects.
#[utoipa::path(
    post,
    path = "/v1/cloudimages/members",
    operation_id = "batchAddMembers",
    tag = "Image members",
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "The same key, caller and body give the same answer for 24 hours."),
    ),
    request_body(content = MembersRequest, content_type = "application/json"),
    responses(
        (status = 200, description = "The job was accepted.", body = JobAccepted),
        (status = 400, description = "The request breaks a rule; the code says which."),
        (status = 401, description = "No credential, or not a good one (IMG.0087)."),
        (status = 403, description = "The caller may not share images (IMG.0026)."),
        (status = 409, description = "The Idempotency-Key was used with another body."),
        (status = 503, description = "The service can't do it now (IMG.0061)."),
    ),
    security(("token" = []), ("signature" = [])),
)]
pub async fn add_members(
    State(state): State<ApiState>,
    Caller(call): Caller,
    key: Result<IdempotencyKey, Failure>,
    body: Body,
) -> Reply {
    let service = &state.service;
    service.admit(&call, Action::ImagesShare)?;
    let body = read_body(&state, body).await?;
    let slot = key?.slot(&call, &body);
    once(service, slot.as_ref(), async {
        let order = order(&body, MembersVerb::Add)?;
        let keep = kept(service, slot.as_ref(), None);
        let job = service.order_members(&call, order, keep.as_deref()).await?;
        Ok(json_answer(accepted_text(&job, None)))
    })
    .await
}

/// Ends the sharing of images with projects.
#[utoipa::path(
    delete,
    path = "/v1/cloudimages/members",
    operation_id = "batchDeleteMembers",
    tag = "Image members",
    request_body(content = MembersRequest, content_type = "application/json"),
    responses(
        (status = 200, description = "The job was accepted.", body = JobAccepted),
        (status = 400, description = "The request breaks a rule; the code says which."),
        (status = 401, description = "No credential, or not a good one (IMG.0087)."),
        (status = 403, description = "The caller may not share images (IMG.0026)."),
        (status = 503, description = "The service can't do it now (IMG.0061)."),
    ),
    security(("token" = []), ("signature" = [])),
)]
pub async fn remove_members(
    State(state): State<ApiState>,
    Caller(call): Caller,
    body: Body,
) -> Reply {
    change(&state, &call, body, |body| order(body, MembersVerb::Remove)).await
}

/// Accepts or rejects images that are shared with the caller's project.
#[utoipa::path(
    put,
    path = "/v1/cloudimages/members",
    operation_id = "batchUpdateMembers",
    tag = "Image members",
    request_body(content = AnswerMembersRequest, content_type = "application/json"),
    responses(
        (status = 200, description = "The job was accepted.", body = JobAccepted),
        (status = 400, description = "The request breaks a rule; the code says which. Another project's answer is IMG.0030."),
        (status = 401, description = "No credential, or not a good one (IMG.0087)."),
        (status = 403, description = "The caller may not share images (IMG.0026)."),
        (status = 503, description = "The service can't do it now (IMG.0061)."),
    ),
    security(("token" = []), ("signature" = [])),
)]
pub async fn answer_members(
    State(state): State<ApiState>,
    Caller(call): Caller,
    body: Body,
) -> Reply {
    change(&state, &call, body, answer).await
}

async fn change(
    state: &ApiState,
    call: &Call,
    body: Body,
    parse: impl FnOnce(&[u8]) -> Result<MembersOrder>,
) -> Reply {
    let service = &state.service;
    service.admit(call, Action::ImagesShare)?;
    let order = parse(&read_body(state, body).await?)?;
    let job = service.order_members(call, order, None).await?;
    Ok(json_answer(accepted_text(&job, None)))
}

/// What a request to share or to end that asks for.
fn order(body: &[u8], verb: MembersVerb) -> Result<MembersOrder> {
    let mut body = json_object(body)?;
    let projects = texts(&mut body, "projects")?;
    Ok(MembersOrder {
        images: images(&mut body)?,
        projects: projects
            .iter()
            .map(|id| project(id))
            .collect::<Result<_>>()?,
        verb,
    })
}

/// What an answer asks for.
fn answer(body: &[u8]) -> Result<MembersOrder> {
    let mut body = json_object(body)?;
    let id = optional_text(&mut body, "project_id")?;
    let id = id.ok_or_else(|| malformed("The field 'project_id' must be there."))?;
    let vault = optional_text(&mut body, "vault_id")?;
    let with_vault = vault.is_some_and(|vault| !vault.trim().is_empty());
    let verb = match optional_text(&mut body, "status")?.as_deref() {
        Some("accepted") => MembersVerb::Accept { with_vault },
        Some("rejected") => MembersVerb::Reject,
        _ => return Err(malformed("The field 'status' is accepted or rejected.")),
    };
    Ok(MembersOrder {
        images: images(&mut body)?,
        projects: vec![project(&id)?],
        verb,
    })
}

fn images(body: &mut Map<String, Value>) -> Result<Vec<ImageId>> {
    let ids = texts(body, "images")?;
    ids.iter().map(|id| image_id(id)).collect()
}

fn project(id: &str) -> Result<ProjectId> {
    id.parse().map_err(|_| Error::ims(ImsCode::IMG_0067))
}

/// A list of texts that must be there and have one.
fn texts(body: &mut Map<String, Value>, name: &str) -> Result<Vec<String>> {
    let list = optional_list(body, name)?.unwrap_or_default();
    let texts = list.into_iter().map(|text| match text {
        Value::String(text) => Some(text),
        _ => None,
    });
    let texts: Option<Vec<String>> = texts.collect();
    texts.filter(|texts| !texts.is_empty()).ok_or_else(|| {
        malformed(&format!(
            "The field '{name}' must be a list of strings that is not empty."
        ))
    })
}
