//! The answer to every asynchronous call: the job that was accepted.

use calotype_core::app::Service;
use calotype_core::id::JobId;
use http::StatusCode;
use serde::Serialize;

use crate::idempotency::{Keeper, Slot, keeping};

/// The answer to every asynchronous call.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct JobAccepted {
    /// The job's id: 32 lower-case hexadecimal digits.
    pub job_id: String,
    /// An extension: what to know of what was accepted, where there is something.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calotype: Option<AcceptedNotes>,
}

/// What to know of what was accepted.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct AcceptedNotes {
    /// What was asked for does not give: of a rewrapped replica, that the source's key and its former wrap still open the
    /// bytes.
    pub warning: String,
}

/// The answer's text.
pub(super) fn accepted_text(job: &JobId, warning: Option<&str>) -> String {
    let mut body = serde_json::json!({ "job_id": job.as_str() });
    if let Some(warning) = warning {
        body["calotype"] = serde_json::json!({ "warning": warning });
    }
    body.to_string()
}

/// Keeps that answer under the request's `Idempotency-Key`, if it had one.
pub(super) fn kept<'a>(
    service: &'a Service,
    slot: Option<&'a Slot>,
    warning: Option<&'static str>,
) -> Option<Keeper<'a, JobId>> {
    keeping(slot, move |slot, job: &JobId| {
        slot.answer(service, StatusCode::OK, accepted_text(job, warning), None)
    })
}
