//! The shapes of answers and refusals, and of the identity API's bodies: what the handlers' own descriptions leave out.
//!
//! The documents are made as JSON values, so their schemas are written down here, in `shapes.json`, and held to the
//! truth by the black-box test that compares what the server answers with its description. A refusal has the form of
//! the family of its path, as [`crate::errors`] renders it.

use std::collections::BTreeMap;

use serde::Deserialize;
use utoipa::openapi::path::{HttpMethod, Operation};
use utoipa::openapi::request_body::RequestBody;
use utoipa::openapi::{Components, Content, Object, OpenApi, Ref, RefOr, Response, Schema};

use crate::errors::Family;
use crate::idempotency::IDEMPOTENCY_KEY;

/// What `shapes.json` holds.
#[derive(Deserialize)]
struct Shapes {
    /// Schemas by their names.
    schemas: BTreeMap<String, RefOr<Schema>>,
    /// Of an operation, the schema of what it answers when it succeeds.
    answers: BTreeMap<String, String>,
    /// Of an operation, what it takes.
    requests: BTreeMap<String, Body>,
}

/// The schema of a body: of JSON, or of each media type.
#[derive(Deserialize)]
#[serde(untagged)]
enum Body {
    Json(String),
    Of(BTreeMap<String, String>),
}

impl Body {
    /// The media types, and the schema of each.
    fn schemas(&self) -> Vec<(&str, &str)> {
        match self {
            Self::Json(name) => vec![("application/json", name)],
            Self::Of(names) => {
                let names = names.iter();
                names
                    .map(|(media_type, name)| (media_type.as_str(), name.as_str()))
                    .collect()
            }
        }
    }
}

/// The description with the shapes.
///
/// # Errors
/// Where `shapes.json` can't be read, which a test rules out.
pub(super) fn add(document: &mut OpenApi) -> serde_json::Result<()> {
    let shapes: Shapes = serde_json::from_str(include_str!("shapes.json"))?;
    for (path, item) in &mut document.paths.paths {
        let family = Family::of(path);
        let operations = [
            (HttpMethod::Get, &mut item.get),
            (HttpMethod::Head, &mut item.head),
            (HttpMethod::Post, &mut item.post),
            (HttpMethod::Put, &mut item.put),
            (HttpMethod::Patch, &mut item.patch),
            (HttpMethod::Delete, &mut item.delete),
        ];
        for (method, operation) in operations {
            if let Some(operation) = operation {
                describe(operation, &method, family, &shapes);
            }
        }
    }
    let components = document.components.get_or_insert_with(Components::new);
    components.schemas.extend(shapes.schemas);
    Ok(())
}

/// Numbers that may be larger than any type's: what is over the largest page, or image, stands for that.
const UNBOUNDED: [&str; 3] = ["limit", "size_max", "size_min"];

fn owned<T>(value: &mut RefOr<T>) -> Option<&mut T> {
    match value {
        RefOr::T(value) => Some(value),
        RefOr::Ref(_) => None,
    }
}

fn describe(operation: &mut Operation, method: &HttpMethod, family: Family, shapes: &Shapes) {
    let id = operation.operation_id.as_deref().unwrap_or_default();
    if let Some(body) = shapes.requests.get(id) {
        let described = operation
            .request_body
            .get_or_insert(RefOr::T(RequestBody::default()));
        if let Some(described) = owned(described) {
            described.content.clear();
            for (media_type, name) in body.schemas() {
                let content = content(name).into();
                described.content.insert(media_type.to_owned(), content);
            }
        }
    }
    let parameters = operation.parameters.iter_mut().flatten();
    for parameter in parameters.filter_map(owned) {
        if let Some(RefOr::T(Schema::Object(schema))) = &mut parameter.schema {
            bound(&parameter.name, schema);
        }
    }
    let answer = shapes.answers.get(id);
    for (status, response) in &mut operation.responses.responses {
        let Some(response) = owned(response) else {
            continue;
        };
        let bare = *method == HttpMethod::Head || !response.content.is_empty();
        match status.as_bytes() {
            _ if bare => {}
            [b'4' | b'5', ..] => refusal(response, family),
            b"200" | b"201" | b"202" | b"300" => {
                if let Some(name) = answer {
                    put(response, "application/json", content(name));
                }
            }
            _ => {}
        }
    }
}

/// Says of a parameter's value what its type does not.
fn bound(parameter: &str, schema: &mut Object) {
    if UNBOUNDED.contains(&parameter) {
        schema.format = None;
    }
    if parameter.eq_ignore_ascii_case(IDEMPOTENCY_KEY.as_str()) {
        schema.min_length = Some(1);
        schema.max_length = Some(255);
        schema.pattern = Some("^[\\t -~]+$".to_owned());
    }
}

/// Glance's refusals come as the client accepts them, the others as JSON alone.
fn refusal(response: &mut Response, family: Family) {
    let name = match family {
        Family::Ims => "ImsError",
        Family::Native => "NativeError",
        Family::Identity => "IdentityError",
        Family::Kms => "KmsError",
    };
    put(response, "application/json", content(name));
    if family == Family::Native {
        put(response, "text/html", Content::default());
        put(response, "text/plain", Content::default());
    }
}

fn put(response: &mut Response, media_type: &str, content: Content) {
    response
        .content
        .insert(media_type.to_owned(), content.into());
}

fn content(name: &str) -> Content {
    Content::new(Some(Ref::from_schema_name(name)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    fn shapes() -> Value {
        serde_json::from_str(include_str!("shapes.json")).unwrap()
    }

    #[test]
    fn every_shape_is_in_the_document_as_it_was_written_down() {
        let document = serde_json::to_value(crate::openapi::document()).unwrap();
        let described = &document["components"]["schemas"];
        for (name, schema) in shapes()["schemas"].as_object().unwrap() {
            assert_eq!(&described[name], schema, "{name}");
        }
    }

    #[test]
    fn what_the_shapes_speak_of_is_there() {
        let shapes = shapes();
        let document = serde_json::to_value(crate::openapi::document()).unwrap();
        let items = document["paths"].as_object().unwrap().values();
        let operations: BTreeSet<&str> = items
            .flat_map(|item| item.as_object().unwrap().values())
            .filter_map(|operation| operation["operationId"].as_str())
            .collect();
        for kind in ["answers", "requests"] {
            for (operation, name) in shapes[kind].as_object().unwrap() {
                assert!(operations.contains(operation.as_str()), "{operation}");
                let of_media_types = name.as_object().into_iter().flat_map(|each| each.values());
                for name in name
                    .is_string()
                    .then_some(name)
                    .into_iter()
                    .chain(of_media_types)
                {
                    assert!(
                        shapes["schemas"][name.as_str().unwrap()].is_object(),
                        "{name}"
                    );
                }
            }
        }
    }

    #[test]
    fn every_refusal_has_the_form_of_its_paths_family() {
        let document = serde_json::to_value(crate::openapi::document()).unwrap();
        for (path, family) in [
            ("/v1/cloudimages/{image_id}/copy", "ImsError"),
            ("/v2/images/{image_id}", "NativeError"),
            ("/identity/v3/users", "IdentityError"),
            ("/kms/v1.0/{project_id}/kms/create-key", "KmsError"),
        ] {
            let item = document["paths"][path].as_object().unwrap();
            let operation = item.values().next().unwrap();
            let schema = &operation["responses"]["401"]["content"]["application/json"]["schema"];
            let name = format!("#/components/schemas/{family}");
            assert_eq!(schema["$ref"], name.as_str(), "{path}");
        }
    }
}
