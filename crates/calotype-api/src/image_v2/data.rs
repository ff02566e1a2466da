//! Images' bytes, in and out.
//!
//! Bytes are streamed: a request holds some of them at a time, whatever the image's size. A download whose source
//! fails on the way is broken off, so that the client sees fewer bytes than `Content-Length` says and no clean end.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use calotype_core::app::{Download, Upload};
use calotype_core::{Error, ErrorKind, Result};
use futures_util::TryStreamExt as _;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use super::path::ImagePath;
use super::{bodies, byte_range, unread};
use crate::caller::Caller;
use crate::errors::{Failure, Reply};
use crate::load::{Pace, RequestTurn};
use crate::ops::{BYTES_DOWNLOADED, BYTES_UPLOADED, damaged};
use crate::state::ApiState;

const OCTETS: &str = "application/octet-stream";
/// The MD5 of the image, in hexadecimal as Glance gives it and not in Base64 as RFC 1864 has it.
const CONTENT_MD5: HeaderName = HeaderName::from_static("content-md5");

/// Gives a queued image its bytes. Once answered, they are safe and the image is active.
#[utoipa::path(
    put,
    path = "/v2/images/{image_id}/file",
    operation_id = "uploadImage",
    tag = "Image data",
    params(
        ("image_id" = String, Path, description = "The image's id."),
        ("x-openstack-image-size" = Option<u64>, Header, description = "How many bytes there will be."),
        ("x-image-meta-store" = Option<String>, Header, description = "The store that they are to be in, of those that `/v2/info/stores` lists."),
    ),
    request_body(content_type = "application/octet-stream", description = "The bytes."),
    responses(
        (status = 204, description = "The image is active."),
        (status = 400, description = "The image has no formats, the bytes are not as many as declared, or there is no such store."),
        (status = 401, description = "No credential, or not a good one."),
        (status = 403, description = "Another project's image."),
        (status = 404, description = "There is no such image that the caller may see."),
        (status = 408, description = "The body stood still for too long."),
        (status = 409, description = "The image is not queued."),
        (status = 410, description = "The image was deleted meanwhile."),
        (status = 413, description = "The image is too large."),
        (status = 415, description = "The body is not application/octet-stream, the bytes are not in the image's disk_format, or they refer to other files."),
        (status = 429, description = "The project has too many uploads running, or makes too many requests."),
        (status = 503, description = "The service can't do it now."),
        (status = 507, description = "The store is full."),
    ),
    security(("token" = [])),
)]
pub(super) async fn upload(
    State(state): State<ApiState>,
    Caller(call): Caller,
    ImagePath(id): ImagePath,
    request: Request,
) -> Reply {
    if bodies::media_type(request.headers()) != OCTETS {
        return Err(Error::new(
            ErrorKind::UnsupportedMediaType,
            "The body of this request is application/octet-stream.",
        )
        .into());
    }
    let (head, body) = request.into_parts();
    // From here on it is one of the uploads.
    if let Some(turn) = head.extensions.get::<RequestTurn>() {
        turn.give_back();
    }
    let admission = &state.admission;
    let pace = Pace::new(state.body_idle_timeout, admission.slowest_upload());
    let (source, unread) = unread::lend(&head.headers, body, pace);
    let turn = match call.principal.require_project() {
        Ok(project) => admission.upload(project).map(Some),
        // Without a project it is refused below, with its own words.
        Err(_) => Ok(None),
    };
    let turn = match turn {
        Ok(turn) => turn,
        Err(error) => {
            drop(source);
            unread.throw_away().await;
            return Err(error.into());
        }
    };
    let upload = Upload {
        expected_size: bodies::declared_size(&head.headers)?,
        source,
        store: chosen_store(&head.headers),
    };
    let uploaded = state.service.upload(&call, id, upload).await;
    drop(turn);
    match uploaded {
        Ok(image) => {
            let size = image.size.unwrap_or_default().bytes();
            metrics::counter!(BYTES_UPLOADED).increment(size);
            Ok(StatusCode::NO_CONTENT.into_response())
        }
        Err(error) => {
            unread.throw_away().await;
            Err(error.into())
        }
    }
}

/// The store that the caller chose. What is no text is the name of none.
fn chosen_store(headers: &HeaderMap) -> Option<String> {
    let value = headers.get("x-image-meta-store")?;
    Some(String::from_utf8_lossy(value.as_bytes()).trim().to_owned())
}

/// Gives out an image's bytes, or a range of them.
#[utoipa::path(
    get,
    path = "/v2/images/{image_id}/file",
    operation_id = "downloadImage",
    tag = "Image data",
    params(
        ("image_id" = String, Path, description = "The image's id."),
        ("Range" = Option<String>, Header, description = "One range of bytes."),
    ),
    responses(
        (status = 200, description = "All the bytes.", content_type = "application/octet-stream"),
        (status = 204, description = "The image has no bytes yet."),
        (status = 206, description = "The bytes of the range.", content_type = "application/octet-stream"),
        (status = 400, description = "More than one range."),
        (status = 401, description = "No credential, or not a good one."),
        (status = 403, description = "The image is deactivated."),
        (status = 404, description = "There is no such image that the caller may see."),
        (status = 416, description = "The range is malformed or lies outside the bytes."),
        (status = 503, description = "The service can't do it now."),
    ),
    security(("token" = []), ("signature" = [])),
)]
pub(super) async fn download(
    State(state): State<ApiState>,
    Caller(call): Caller,
    ImagePath(id): ImagePath,
    headers: HeaderMap,
) -> Reply {
    let download = match state.service.download(&call, id).await {
        Err(error) if error.kind() == ErrorKind::Conflict => {
            return Ok(StatusCode::NO_CONTENT.into_response());
        }
        download => download?,
    };
    let size = download.reader.facts().size.bytes();
    match byte_range::wanted(&headers, size) {
        Ok(None) => whole(&download, size),
        Ok(Some(range)) => part(&download, range, size),
        Err(error) => not_satisfiable(error, size),
    }
    .map_err(Failure::from)
}

fn whole(download: &Download, size: u64) -> Result<Response> {
    let mut response = bytes(download, 0..size);
    if let Some(md5) = &download.image.digests.md5 {
        let md5 = HeaderValue::from_str(md5).map_err(Error::internal)?;
        response.headers_mut().insert(CONTENT_MD5, md5);
    }
    Ok(response)
}

fn part(download: &Download, range: std::ops::Range<u64>, size: u64) -> Result<Response> {
    let content_range = format!("bytes {}-{}/{size}", range.start, range.end - 1);
    let content_range = HeaderValue::from_str(&content_range).map_err(Error::internal)?;
    let mut response = bytes(download, range);
    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_RANGE, content_range);
    Ok(response)
}

fn bytes(download: &Download, range: std::ops::Range<u64>) -> Response {
    let length = range.end - range.start;
    let id = download.image.id;
    let counter = metrics::counter!(BYTES_DOWNLOADED);
    let stream = download
        .reader
        .read(range)
        .inspect_ok(move |bytes| counter.increment(bytes.len() as u64))
        .inspect_err(move |error| {
            if error.kind() == ErrorKind::Damaged {
                damaged();
            }
            tracing::error!(image.id = %id, error.chain = %error.chain(), "download broken off");
        });
    let mut response = Response::new(Body::from_stream(stream));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(OCTETS));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    response
}

fn not_satisfiable(error: Error, size: u64) -> Result<Response> {
    if error.kind() != ErrorKind::RangeNotSatisfiable {
        return Err(error);
    }
    let content_range =
        HeaderValue::from_str(&format!("bytes */{size}")).map_err(Error::internal)?;
    let mut response = Failure::from(error).into_response();
    response
        .headers_mut()
        .insert(header::CONTENT_RANGE, content_range);
    Ok(response)
}
