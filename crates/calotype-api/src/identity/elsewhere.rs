//! The identity API where users and projects are a Keystone's: nothing is answered here, and what asks is told where to ask.

use std::sync::Arc;

use axum::Router;
use axum::routing::any;
use calotype_core::Error;

use crate::caller::Caller;
use crate::errors::{Failure, Reply};

/// Every path of the identity API. Logging in is for everybody, so is to hear where; only who is known hears it of roles.
pub(crate) fn router<S: Clone + Send + Sync + 'static>(url: &Arc<str>) -> Router<S> {
    let (here, known) = (Arc::clone(url), Arc::clone(url));
    let told = any(move || answer(Arc::clone(&here)));
    let told_if_known = any(move |caller: Result<Caller, Failure>| async move {
        caller?;
        answer(known).await
    });
    Router::new()
        .route("/identity", told.clone())
        .route("/identity/", told.clone())
        .route("/identity/{*rest}", told)
        .route(
            "/admin/v1/enterprise-projects/{id}/projects/{*rest}",
            told_if_known,
        )
}

async fn answer(url: Arc<str>) -> Reply {
    let text = format!("Users, projects, roles and access keys are in Keystone: ask at {url}.");
    Err(Error::not_found(text).into())
}
