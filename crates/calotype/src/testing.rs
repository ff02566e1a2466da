//! An image service in memory, just enough of one, with faults on demand.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::clouds::{Choice, Cloud, FirstUsers, find, write_clouds_yaml};
use crate::config::Environment;
use crate::demo::digests_of;

/// The id of every key that is made.
const KEY: &str = "0d0466b0-e727-4d9c-b35d-f84bb474a37f";

/// What the service holds and does wrong.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) images: HashMap<String, (Value, Bytes)>,
    pub(crate) requests: Vec<Seen>,
    /// 503 so many times, before anything else but logins.
    pub(crate) busy: u32,
    /// Downloads end after so many bytes, one after the other.
    pub(crate) breaks: Vec<usize>,
    pub(crate) refuse_tokens: u32,
    pub(crate) fail_jobs: bool,
    pub(crate) damage: bool,
    pub(crate) no_ranges: bool,
    pub(crate) answer: Option<(u16, &'static str)>,
    pub(crate) running_looks: u32,
}

/// A request that came.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) line: String,
    pub(crate) range: Option<String>,
    pub(crate) idempotency_key: Option<String>,
    pub(crate) size_hint: Option<String>,
}

/// A running one.
pub(crate) struct Service {
    pub(crate) url: String,
    state: Arc<Mutex<State>>,
}

impl Service {
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State::default()));
        let (shared, address) = (Arc::clone(&state), url.clone());
        let app = Router::new().fallback(move |request: Request| {
            let (state, address) = (Arc::clone(&shared), address.clone());
            async move { answer(&state, &address, request).await }
        });
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { url, state }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn fail_jobs(&self) {
        self.state().fail_jobs = true;
    }

    pub(crate) fn damage_downloads(&self) {
        self.state().damage = true;
    }

    /// Puts an active image there.
    pub(crate) fn hold(&self, id: &str, name: &str, bytes: &[u8]) {
        let document = with_digests(json!({"id": id, "name": name}), bytes);
        self.state()
            .images
            .insert(id.into(), (document, Bytes::copy_from_slice(bytes)));
    }

    pub(crate) fn write_clouds(&self, directory: &Path) -> PathBuf {
        let path = directory.join("clouds.yaml");
        let users = FirstUsers {
            url: self.url.clone(),
            region: "r".into(),
            demo_password: "p".to_owned().into(),
            admin_password: "p".to_owned().into(),
            demo_access_key: None,
        };
        write_clouds_yaml(&path, &users).unwrap();
        path
    }

    pub(crate) fn cloud(&self) -> Cloud {
        let directory = tempfile::tempdir().unwrap();
        self.write_clouds(directory.path());
        let choice = Choice {
            cloud: Some("calotype"),
        };
        find(&choice, &Environment::default(), directory.path()).unwrap()
    }
}

fn with_digests(mut image: Value, bytes: &[u8]) -> Value {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    let digests = digests_of(file.path()).unwrap();
    image["status"] = json!("active");
    image["size"] = json!(bytes.len());
    image["checksum"] = json!(digests.md5);
    image["os_hash_algo"] = json!("sha512");
    image["os_hash_value"] = json!(digests.sha512);
    image
}

fn reply(status: u16, document: &Value) -> Response {
    Response::builder()
        .status(status)
        .header("content-type", "application/json")
        .header("x-openstack-request-id", "req-7")
        .body(Body::from(document.to_string()))
        .unwrap()
}

async fn answer(state: &Mutex<State>, url: &str, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
    let header = |name: &str| {
        parts
            .headers
            .get(name)
            .and_then(|v| v.to_str().ok())
            .map(str::to_owned)
    };
    let path = parts.uri.path().to_owned();
    let line = format!("{} {}", parts.method, parts.uri);
    let mut state = state.lock().unwrap();
    state.requests.push(Seen {
        line: line.clone(),
        range: header("range"),
        idempotency_key: header("idempotency-key"),
        size_hint: header("x-openstack-image-size"),
    });
    if path.ends_with("/auth/tokens") {
        let document = json!({"token": {
            "project": {"id": "pid"},
            "catalog": [
                {"type": "image", "endpoints": [
                    {"interface": "public", "region": "r", "url": url},
                ]},
                {"type": "kms", "endpoints": [
                    {"interface": "public", "region": "r", "url": format!("{url}/kms/v1.0/pid")},
                ]},
            ],
        }});
        let mut response = reply(201, &document);
        response
            .headers_mut()
            .insert("x-subject-token", "t".parse().unwrap());
        return response;
    }
    if state.busy > 0 {
        state.busy -= 1;
        let mut response = reply(
            503,
            &json!({"error": {"code": "IMG.0061", "message": "busy"}}),
        );
        response
            .headers_mut()
            .insert("retry-after", "0".parse().unwrap());
        return response;
    }
    if state.refuse_tokens > 0 {
        state.refuse_tokens -= 1;
        return reply(
            401,
            &json!({"error": {"code": "IMG.0087", "message": "token expired"}}),
        );
    }
    if let Some((status, text)) = state.answer {
        let mut response =
            (axum::http::StatusCode::from_u16(status).unwrap(), text).into_response();
        response
            .headers_mut()
            .insert("x-openstack-request-id", "req-7".parse().unwrap());
        return response;
    }
    let words: Vec<&str> = path.trim_matches('/').split('/').collect();
    match (parts.method.as_str(), words.as_slice()) {
        ("POST", ["v2", "images"]) => {
            let mut image: Value = serde_json::from_slice(&body).unwrap();
            let id = uuid::Uuid::from_u128(state.images.len() as u128 + 1).to_string();
            image["id"] = json!(id);
            image["status"] = json!("queued");
            state.images.insert(id, (image.clone(), Bytes::new()));
            reply(201, &image)
        }
        ("GET", ["v2", "images"]) => {
            let query = parts.uri.query().unwrap_or_default().to_owned();
            let mut all: Vec<&Value> = state.images.values().map(|(image, _)| image).collect();
            all.sort_by_key(|image| image["id"].as_str().map(str::to_owned));
            // Pages of one.
            let at = query
                .split("marker=")
                .nth(1)
                .map_or(0, |n| n.parse::<usize>().unwrap());
            let next = (at + 1 < all.len()).then(|| format!("/v2/images?marker={}", at + 1));
            reply(
                200,
                &json!({"images": all.get(at).into_iter().collect::<Vec<_>>(), "next": next}),
            )
        }
        ("PUT", ["v2", "images", id, "file"]) => {
            let held = state.images.get_mut(*id).unwrap();
            held.0 = with_digests(held.0.take(), &body);
            held.1 = body;
            Response::builder().status(204).body(Body::empty()).unwrap()
        }
        ("GET", ["v2", "images", id, "file"]) => file(&mut state, id, header("range")),
        (_, ["v2", "images", id]) => match state.images.get(*id) {
            Some((image, _)) => reply(200, image),
            None => reply(
                404,
                &json!({"code": "404 Not Found", "title": "Not Found",
                                       "message": format!("No image found with ID {id}")}),
            ),
        },
        ("POST", ["kms", "v1.0", "pid", "kms", "create-key"]) => {
            reply(200, &json!({"key_info": {"key_id": KEY}}))
        }
        ("POST", ["v1", "cloudimages", id, "copy"]) => {
            let (mut image, bytes) = state.images[*id].clone();
            let copy = uuid::Uuid::from_u128(0xc0).to_string();
            image["id"] = json!(copy);
            let order: Value = serde_json::from_slice(&body).unwrap();
            if let Some(key) = order.get("cmk_id") {
                image["__system__cmkid"] = key.clone();
            }
            state.images.insert(copy, (image, bytes));
            reply(200, &json!({"job_id": "j1"}))
        }
        ("GET", ["v1", "pid", "jobs", "j1"]) => {
            let status = if state.fail_jobs {
                "FAIL"
            } else if state.running_looks > 0 {
                state.running_looks -= 1;
                "RUNNING"
            } else {
                "SUCCESS"
            };
            reply(
                200,
                &json!({
                    "status": status, "job_id": "j1",
                    "error_code": (status == "FAIL").then_some("IMG.0144"),
                    "fail_reason": (status == "FAIL").then_some("the source is gone"),
                    "entities": {"image_id": uuid::Uuid::from_u128(0xc0).to_string()},
                    "calotype": {"bytes_total": 10, "bytes_done": 4},
                }),
            )
        }
        _ => reply(
            404,
            &json!({"error": {"code": "APIGW.0101", "message": "no such path"}}),
        ),
    }
}

fn file(state: &mut State, id: &str, range: Option<String>) -> Response {
    let bytes = state.images[id].1.clone();
    let start = range.filter(|_| !state.no_ranges).and_then(|text| {
        text.strip_prefix("bytes=")?
            .strip_suffix('-')?
            .parse::<usize>()
            .ok()
    });
    let mut rest = bytes.slice(start.unwrap_or(0)..);
    if state.damage && !rest.is_empty() {
        let mut other = rest.to_vec();
        other[0] ^= 1;
        rest = other.into();
    }
    let response = Response::builder()
        .status(if start.is_some() { 206 } else { 200 })
        .header(
            "content-range",
            format!("bytes {}-/{}", start.unwrap_or(0), bytes.len()),
        );
    if state.breaks.is_empty() {
        return response.body(Body::from(rest)).unwrap();
    }
    let cut = state.breaks.remove(0).min(rest.len());
    // Chunked, and ended as if it were whole: unlike a reset, this can't lose what was sent.
    let frames = futures_util::stream::iter([Ok::<_, std::io::Error>(rest.slice(..cut))]);
    response.body(Body::from_stream(frames)).unwrap()
}
