//! `GET /v2/images`: a page of images with links to the first and the next (spec 2.24, 8.4).
//!
//! Links are relative and keep every parameter in its order. `next` is there whenever the page is full, as in
//! Glance, so that a full last page is followed by an empty one.

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::response::IntoResponse as _;
use calotype_core::id::ImageId;
use calotype_core::{Error, ErrorKind};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::caller::Caller;
use crate::errors::Reply;
use crate::image_document::ImageDocument;
use crate::image_page::Page;
use crate::list_query::described::{AttributeFilters, RecordFilters};
use crate::list_query::{Params, native};
use crate::state::ApiState;

/// What may stand in a query as it is: RFC 3986's unreserved characters.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// The operation of this module.
pub fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default().routes(routes!(list_images))
}

/// Lists the images that the caller may see.
#[utoipa::path(
    get,
    path = "/v2/images",
    operation_id = "listImages",
    tag = "Images",
    params(
        ("id" = Option<String>, Query, description = "An id, or in:id,id,..."),
        ("name" = Option<String>, Query, description = "A name, or in:name,\"name, with comma\",..."),
        ("status" = Option<String>, Query, description = "A status, or in:status,..."),
        ("visibility" = Option<String>, Query, description = "public, private, shared, community or all."),
        ("container_format" = Option<String>, Query, description = "A format, or in:format,..."),
        ("disk_format" = Option<String>, Query, description = "A format, or in:format,..."),
        ("os_hidden" = Option<String>, Query, description = "true for hidden images, false (default) for the others."),
        ("checksum" = Option<String>, Query, description = "Images whose bytes have this MD5."),
        ("os_hash_value" = Option<String>, Query, description = "Images whose bytes have this SHA-512, or SHA-256."),
        ("size" = Option<String>, Query, description = "Images of exactly so many bytes."),
        RecordFilters,
        AttributeFilters,
        ("enterprise_project_id" = Option<String>, Query, description = "0, or a UUID."),
        ("limit" = Option<u32>, Query, description = "25 by default, at most 1000."),
    ),
    responses(
        (status = 200, description = "A page of images."),
        (status = 400, description = "A parameter that can't be understood, or an unknown marker."),
        (status = 401, description = "No credential, or not a good one."),
        (status = 403, description = "The caller may not list images."),
        (status = 503, description = "The service can't do it now."),
    ),
    security(("token" = []), ("signature" = [])),
)]
pub async fn list_images(
    State(state): State<ApiState>,
    Caller(call): Caller,
    RawQuery(query): RawQuery,
) -> Reply {
    let params = Params::parse(query.as_deref()).map_err(|bad| Error::invalid(bad.0))?;
    let listing = native::listing(&params).map_err(|bad| Error::invalid(bad.0))?;
    let page = Page::read(&state, &call, listing)
        .await
        .map_err(unknown_marker)?;
    let stores = state.service.stores_of(page.images()).await?;
    let documents = page.documents(state.service.settings());
    let body = Images {
        images: documents
            .map(|document| document.listed().in_stores(&stores))
            .collect(),
        first: link(&params, None),
        schema: "/v2/schemas/images",
        next: page.last.map(|last| link(&params, Some(last))),
    };
    Ok(Json(body).into_response())
}

#[derive(Serialize)]
struct Images<'a> {
    images: Vec<ImageDocument<'a>>,
    first: String,
    schema: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// The same list from its beginning, or from behind `marker`.
fn link(params: &Params, marker: Option<ImageId>) -> String {
    let marker = marker.map(|id| id.to_string());
    let pairs = params.iter().filter(|(name, _)| *name != "marker");
    let pairs = pairs.chain(marker.as_deref().map(|marker| ("marker", marker)));
    let query: Vec<_> = pairs
        .map(|(name, value)| format!("{}={}", encoded(name), encoded(value)))
        .collect();
    if query.is_empty() {
        "/v2/images".to_owned()
    } else {
        format!("/v2/images?{}", query.join("&"))
    }
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, PLAIN).to_string()
}

/// Glance answers 400 for a marker that is no image.
fn unknown_marker(error: Error) -> Error {
    match error.kind() {
        ErrorKind::NotFound => Error::invalid("The marker is not an image's id."),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LAST: &str = "11111111-2222-3333-4444-555555555555";

    fn links(query: &str) -> (String, String) {
        let params = Params::parse(Some(query)).unwrap();
        let last = LAST.parse().unwrap();
        (link(&params, None), link(&params, Some(last)))
    }

    #[test]
    fn links_keep_every_filter_and_the_limit_and_replace_the_marker() {
        let query =
            "tag=a%3Db&limit=2&marker=00000000-0000-0000-0000-000000000000&tag=c+d&name=%26";
        let (first, next) = links(query);
        assert_eq!(first, "/v2/images?tag=a%3Db&limit=2&tag=c%20d&name=%26");
        assert_eq!(next, format!("{first}&marker={LAST}"));
        assert_eq!(links("").0, "/v2/images");
        assert_eq!(links("").1, format!("/v2/images?marker={LAST}"));
    }

    proptest! {
        #[test]
        fn a_link_is_read_back_as_what_it_was_made_from(
            pairs in prop::collection::vec(("[^\0]{0,12}", "[^\0]{0,24}"), 0..8),
        ) {
            let wanted: Vec<_> = pairs
                .iter()
                .filter(|(name, _)| name != "marker")
                .map(|(name, value)| (name.as_str(), value.as_str()))
                .collect();
            let query: Vec<_> = wanted
                .iter()
                .map(|(name, value)| format!("{}={}", encoded(name), encoded(value)))
                .collect();
            let params = Params::parse(Some(&query.join("&"))).unwrap();
            prop_assert_eq!(params.iter().collect::<Vec<_>>(), wanted.clone());
            let next = link(&params, Some(LAST.parse().unwrap()));
            prop_assert!(next.is_ascii() && next.starts_with("/v2/images?"));
            let again = Params::parse(next.split_once('?').map(|(_, query)| query)).unwrap();
            prop_assert_eq!(again.last("marker"), Some(LAST));
            prop_assert_eq!(link(&again, None), link(&params, None));
        }
    }
}
