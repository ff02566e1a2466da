//! The variable parts of the IMS API's paths.

use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use calotype_core::access::Action;
use calotype_core::app::Call;
use calotype_core::codes::ImsCode;
use calotype_core::id::{ImageId, ProjectId};
use calotype_core::{Error, Result};

use crate::state::ApiState;

/// The image that a path with no other variable names.
///
/// # Errors
/// IMG.0066 for what is no image's id.
pub(super) fn image(path: Result<Path<String>, PathRejection>) -> Result<ImageId> {
    image_id(&path.map(|Path(id)| id).unwrap_or_default())
}

/// The image's id that a text is.
///
/// # Errors
/// IMG.0066.
pub(super) fn image_id(text: &str) -> Result<ImageId> {
    text.parse().map_err(|_| Error::ims(ImsCode::IMG_0066))
}

/// Checks that a path names the project that the credential is scoped to. An administrator may name any.
///
/// # Errors
/// IMG.0030.
pub(super) fn check_project(state: &ApiState, call: &Call, project: &str) -> Result<()> {
    let own = call.principal.project().map(ProjectId::as_str);
    let access = state.service.access();
    if own != Some(project) && !access.permits(&call.principal, Action::ImagesAdminister) {
        return Err(Error::ims(ImsCode::IMG_0030));
    }
    Ok(())
}
