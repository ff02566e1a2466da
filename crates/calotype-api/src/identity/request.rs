//! What the identity's requests have in common: bodies, filters and ids, parsed into the domain's types.

use std::str::FromStr;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequestParts, Query};
use calotype_core::{Error, Result};
use http::request::Parts;
use serde::de::DeserializeOwned;

use crate::errors::Failure;
use crate::json_body::collect;

/// The largest body, in bytes.
const BODY_LIMIT: usize = 64 << 10;
/// How long a body may stand still: strangers may send one, to log in.
const BODY_IDLE: Duration = Duration::from_secs(15);

/// Reads a body of JSON. What serde says about it stays here: it may quote a password.
pub(super) async fn json<T: DeserializeOwned>(body: Body) -> Result<T> {
    let bytes = collect(body, BODY_LIMIT, BODY_IDLE).await?;
    serde_json::from_slice(&bytes).map_err(|_| {
        Error::invalid("The request's body is not a JSON document of the wanted form.")
    })
}

/// The filters of a list. Unknown ones are ignored, as Keystone does; of a repeated one the last counts.
#[derive(Debug, Default)]
pub(super) struct Filter {
    pub(super) name: Option<String>,
    pub(super) domain_id: Option<String>,
    pub(super) enabled: Option<bool>,
    pub(super) nocatalog: bool,
}

/// A parameter of [`Filter`] that the lists share, for the API's description.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct EnabledFilter {
    /// 0, false or False for those that are not; anything else for those that are.
    #[expect(dead_code, reason = "it is described, and read by `Filter`")]
    enabled: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for Filter {
    type Rejection = Failure;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &S,
    ) -> std::result::Result<Self, Failure> {
        let pairs = Query::<Vec<(String, String)>>::from_request_parts(parts, state).await;
        let Query(pairs) = pairs.map_err(|_| Error::invalid("The query is malformed."))?;
        let mut filter = Self::default();
        for (name, value) in pairs {
            match name.as_str() {
                "name" => filter.name = Some(value),
                "domain_id" => filter.domain_id = Some(value),
                "enabled" => {
                    filter.enabled = Some(!matches!(value.as_str(), "0" | "false" | "False"));
                }
                "nocatalog" => filter.nocatalog = true,
                _ => {}
            }
        }
        Ok(filter)
    }
}

impl Filter {
    /// Whether a record with this flag passes.
    pub(super) fn admits(&self, enabled: bool) -> bool {
        self.enabled.is_none_or(|wanted| wanted == enabled)
    }
}

/// An id of the path. A malformed one is the id of nothing.
pub(super) fn id<T: FromStr>(text: &str) -> Result<T> {
    text.parse()
        .map_err(|_| Error::not_found("The resource could not be found."))
}

/// An id of a body that may lack it.
pub(super) fn optional_id<T: FromStr>(text: Option<&str>) -> Result<Option<T>> {
    text.map(body_id).transpose()
}

/// An id of a body.
pub(super) fn body_id<T: FromStr>(text: &str) -> Result<T> {
    text.parse()
        .map_err(|_| Error::invalid("An id has 1 to 64 letters, digits, hyphens and underscores."))
}
