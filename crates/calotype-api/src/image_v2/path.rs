//! The variable parts of paths. One that can't name anything is answered as one that names nothing: 404.

use std::collections::HashMap;

use axum::extract::{FromRequestParts, Path};
use calotype_core::Error;
use calotype_core::id::{ImageId, ProjectId};
use http::request::Parts;

use crate::errors::Failure;

/// The image that a path names.
pub(crate) struct ImagePath(pub(crate) ImageId);

/// The image and the member that a path names.
pub(super) struct MemberPath(pub(super) ImageId, pub(super) ProjectId);

/// The image and the tag that a path names.
pub(super) struct TagPath(pub(super) ImageId, pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for ImagePath {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        image(&variables(parts, state).await?).map(Self)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for MemberPath {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let variables = variables(parts, state).await?;
        let id = image(&variables)?;
        let member = variables.get("member_id").map(String::as_str);
        let member = member.unwrap_or_default();
        let project = member.parse().map_err(|_| {
            Error::not_found(format!(
                "{member} not found in the member list of the image {id}."
            ))
        })?;
        Ok(Self(id, project))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for TagPath {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let mut variables = variables(parts, state).await?;
        let id = image(&variables)?;
        Ok(Self(id, variables.remove("tag").unwrap_or_default()))
    }
}

async fn variables<S: Send + Sync>(
    parts: &mut Parts,
    state: &S,
) -> Result<HashMap<String, String>, Failure> {
    let variables = Path::<HashMap<String, String>>::from_request_parts(parts, state).await;
    variables
        .map(|Path(variables)| variables)
        .map_err(|_| Error::not_found("The resource could not be found.").into())
}

fn image(variables: &HashMap<String, String>) -> Result<ImageId, Failure> {
    let text = variables.get("image_id").map(String::as_str);
    let text = text.unwrap_or_default();
    text.parse()
        .map_err(|_| Error::not_found(format!("No image found with ID {text}")).into())
}
