//! The API's description in OpenAPI 3.1, made from the handlers themselves: what is not described is not routed, but for
//! the calls of the KMS API at the root, which are described under `/kms`, and the removal of the tag `action`, which
//! is described as that of any tag.

mod shapes;

use std::sync::OnceLock;

use axum::response::IntoResponse as _;
use http::header;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, SecurityScheme};
use utoipa::openapi::{Components, Info, OpenApi, RefOr, Response};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use calotype_core::Error;

use crate::errors::Reply;
use crate::state::ApiState;

/// A number, or its digits as a text: what bodies call a limit and an offset.
#[derive(Debug, serde::Deserialize, utoipa::ToSchema)]
#[serde(untagged)]
pub enum Decimal {
    /// As this service takes it too.
    Number(u32),
    /// As the reference has it.
    Text(String),
}

/// The operation of this module.
pub fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default().routes(routes!(show_description))
}

/// The description of every operation that [`crate::app`] answers.
pub fn document() -> OpenApi {
    let mut document = crate::router::described();
    if let Err(error) = shapes::add(&mut document) {
        tracing::error!(%error, "the shapes of answers can't be read");
    }
    add_refusals(&mut document);
    document.info = Info::new("Calotype", env!("CARGO_PKG_VERSION"));
    document.info.description = Some(
        "An image management service: the OpenStack Image API v2, and the Open Telekom Cloud's IMS and KMS APIs."
            .to_owned(),
    );
    let components = document.components.get_or_insert_with(Components::new);
    let header = |name, text| {
        SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::with_description(name, text)))
    };
    components.add_security_scheme(
        "token",
        header("X-Auth-Token", "A token of the identity service."),
    );
    components.add_security_scheme(
        "signature",
        header(
            "Authorization",
            "An SDK-HMAC-SHA256 signature under an access key, with X-Sdk-Date, and X-Security-Token for a temporary key.",
        ),
    );
    document
}

/// What every operation can answer under load, but those that are always answered ([`load`](crate::load)).
fn add_refusals(document: &mut OpenApi) {
    for (path, item) in &mut document.paths.paths {
        if crate::load::is_exempt(path) {
            continue;
        }
        let operations = [
            &mut item.get,
            &mut item.head,
            &mut item.post,
            &mut item.put,
            &mut item.patch,
            &mut item.delete,
        ];
        for operation in operations.into_iter().flatten() {
            let answers = &mut operation.responses.responses;
            for (status, text) in [
                (
                    "429",
                    "The project or the address makes too many requests; Retry-After says when to come again.",
                ),
                (
                    "503",
                    "The service can't do it now, or has too much to do; Retry-After says when to come again.",
                ),
            ] {
                let known = answers.entry(status.to_owned());
                known.or_insert_with(|| RefOr::T(Response::new(text)));
            }
        }
    }
}

/// Shows the API's description.
#[utoipa::path(
    get,
    path = "/openapi.json",
    operation_id = "showDescription",
    tag = "Operations",
    responses((status = 200, description = "The API's description in OpenAPI 3.1.")),
)]
pub async fn show_description() -> Reply {
    static TEXT: OnceLock<Option<String>> = OnceLock::new();
    let text = TEXT.get_or_init(|| serde_json::to_string(&document()).ok());
    let text = text
        .as_deref()
        .ok_or_else(|| Error::internal("the API's description can't be written"))?;
    Ok(([(header::CONTENT_TYPE, "application/json")], text).into_response())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn operations() -> Vec<(String, String, serde_json::Value)> {
        let document = serde_json::to_value(document()).unwrap();
        let paths = document["paths"].as_object().unwrap().clone();
        let mut operations = Vec::new();
        for (path, item) in paths {
            for (method, operation) in item.as_object().unwrap() {
                operations.push((path.clone(), method.clone(), operation.clone()));
            }
        }
        operations
    }

    #[test]
    fn the_document_is_openapi_3_1_with_the_workspaces_version() {
        let document = serde_json::to_value(document()).unwrap();
        assert_eq!(document["openapi"], "3.1.0");
        assert_eq!(document["info"]["title"], "Calotype");
        assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
        for scheme in ["token", "signature"] {
            assert!(document["components"]["securitySchemes"][scheme].is_object());
        }
    }

    #[test]
    fn every_operation_has_an_id_of_its_own_and_a_tag() {
        let mut seen = BTreeSet::new();
        for (path, method, operation) in operations() {
            let id = operation["operationId"].as_str().unwrap().to_owned();
            assert!(seen.insert(id.clone()), "{id} of {method} {path} is taken");
            assert!(operation["tags"][0].is_string(), "{method} {path}");
        }
        assert!(seen.contains("copyImageInRegion") && seen.contains("listImages"));
    }

    #[test]
    fn every_variable_of_a_path_is_described() {
        for (path, method, operation) in operations() {
            let described: BTreeSet<_> = operation["parameters"]
                .as_array()
                .into_iter()
                .flatten()
                .filter(|parameter| parameter["in"] == "path")
                .filter_map(|parameter| parameter["name"].as_str().map(str::to_owned))
                .collect();
            let variables: BTreeSet<_> = path
                .split('/')
                .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
                .map(str::to_owned)
                .collect();
            assert_eq!(described, variables, "{method} {path}");
        }
    }

    #[test]
    fn the_operations_that_need_no_credential_are_these() {
        let public: Vec<_> = operations()
            .into_iter()
            .filter(|(_, _, operation)| operation.get("security").is_none())
            .map(|(path, method, _)| format!("{method} {path}"))
            .collect();
        insta::assert_json_snapshot!(public);
    }
}
