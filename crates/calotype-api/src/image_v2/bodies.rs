//! Requests' bodies: read with a limit where they are JSON, streamed where they are an image's bytes, and never
//! waited for longer than the idle timeout.

use axum::body::Body;
use axum::extract::Request;
use bytes::Bytes;
use calotype_core::size::ByteSize;
use calotype_core::{Error, ErrorKind, Result};
use http::{HeaderMap, HeaderName, header};
use serde_json::Value;

use crate::json_body::collect;
use crate::state::ApiState;

/// How many bytes an upload will have, as OpenStack's clients say it.
const IMAGE_SIZE: HeaderName = HeaderName::from_static("x-openstack-image-size");

/// The media type of a request, lower-case and without its parameters; empty where there is none.
pub(crate) fn media_type(headers: &HeaderMap) -> String {
    let value = headers.get(header::CONTENT_TYPE);
    let text = value.and_then(|value| value.to_str().ok());
    let essence = text.and_then(|text| text.split(';').next());
    essence.unwrap_or_default().trim().to_ascii_lowercase()
}

/// A JSON body, and its bytes.
///
/// # Errors
/// UnsupportedMediaType where the request says that it is something else; as [`whole`]; InvalidRequest where it is
/// no JSON.
pub(super) async fn json(state: &ApiState, request: Request) -> Result<(Value, Bytes)> {
    let media_type = media_type(request.headers());
    if !media_type.is_empty() && media_type != "application/json" {
        return Err(Error::new(
            ErrorKind::UnsupportedMediaType,
            "The body of this request is application/json.",
        ));
    }
    let bytes = whole(state, request.into_body()).await?;
    Ok((parse(&bytes)?, bytes))
}

/// The JSON value that a body is.
///
/// # Errors
/// InvalidRequest where it is none, or is nested more than 127 deep.
pub(super) fn parse(bytes: &[u8]) -> Result<Value> {
    if bytes.is_empty() {
        return Err(Error::invalid("Body expected in request."));
    }
    serde_json::from_slice(bytes)
        .map_err(|error| Error::invalid(format!("Malformed JSON in request body: {error}")))
}

/// A whole body of at most the configured size.
///
/// # Errors
/// As [`collect`].
pub(super) async fn whole(state: &ApiState, body: Body) -> Result<Bytes> {
    collect(body, state.max_json_body, state.body_idle_timeout).await
}

/// How many bytes the client says that its upload has: as `Content-Length`, `x-openstack-image-size`, or both.
///
/// # Errors
/// InvalidRequest where one is no number, or the two differ.
pub(super) fn declared_size(headers: &HeaderMap) -> Result<Option<ByteSize>> {
    let length = size_header(headers, &header::CONTENT_LENGTH)?;
    let size = size_header(headers, &IMAGE_SIZE)?;
    match (length, size) {
        (Some(length), Some(size)) if length != size => Err(Error::invalid(
            "Content-Length and x-openstack-image-size differ.",
        )),
        _ => Ok(size.or(length)),
    }
}

fn size_header(headers: &HeaderMap, name: &HeaderName) -> Result<Option<ByteSize>> {
    let Some(value) = headers.get(name) else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default();
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let bytes = digits.then(|| text.parse().ok()).flatten();
    let bytes = bytes.ok_or_else(|| Error::invalid(format!("{name} is not a number of bytes.")))?;
    Ok(Some(ByteSize::new(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_static(name),
                    http::HeaderValue::from_static(value),
                )
            })
            .collect()
    }

    #[test]
    fn the_media_type_is_compared_without_case_and_parameters() {
        let of = |value| media_type(&headers(&[("content-type", value)]));
        assert_eq!(of("Application/JSON; charset=UTF-8"), "application/json");
        assert_eq!(media_type(&HeaderMap::new()), "");
    }

    #[test]
    fn both_declarations_of_a_size_count_and_must_agree() {
        let of = |pairs: &[(&'static str, &'static str)]| declared_size(&headers(pairs));
        let size = Some(ByteSize::new(5));
        assert_eq!(of(&[]).unwrap(), None);
        assert_eq!(of(&[("content-length", "5")]).unwrap(), size);
        assert_eq!(of(&[("x-openstack-image-size", "5")]).unwrap(), size);
        let both = |other| of(&[("content-length", "5"), ("x-openstack-image-size", other)]);
        assert_eq!(both("5").unwrap(), size);
        for other in ["4", "0", "", "-5", "+5", "5.0", "18446744073709551616"] {
            assert!(both(other).is_err(), "{other}");
        }
    }

    #[test]
    fn json_nested_too_deeply_is_refused_and_not_followed() {
        let deep = "[".repeat(100_000);
        assert_eq!(
            parse(deep.as_bytes()).unwrap_err().kind(),
            ErrorKind::InvalidRequest
        );
    }
}
