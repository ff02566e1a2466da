//! A service in memory, callers whose token is their name, and requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use calotype_api::identity::IdentityState;
use calotype_api::state::{ApiState, Authenticator, SignedBody};
use calotype_blob::store::{Faults, FaultyStore, MemoryStore};
use calotype_blob::{SealOptions, SealedBlobs};
use calotype_catalog::{Options, SqlCatalog};
use calotype_core::access::{Access, Credential, Named, Principal, ProjectScope, Scope};
use calotype_core::app::{Call, Service, Settings, Surface};
use calotype_core::ports::{Clock, Entropy};
use calotype_core::time::Timestamp;
use calotype_core::{Error, ErrorKind, Result};
use calotype_keys::ServiceKey;
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::Value;
use tower::ServiceExt as _;

pub(crate) const PATCH: &str = "application/openstack-images-v2.1-json-patch";
pub(crate) const OLD_PATCH: &str = "application/openstack-images-v2.0-json-patch";
pub(crate) const OCTETS: &str = "application/octet-stream";
pub(crate) const UNKNOWN: &str = "99999999-2222-4333-8444-555555555555";

/// The project of alice, a member of it, and of rita, who only reads.
pub(crate) const ALICE: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
/// The project of bob.
pub(crate) const BOB: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
/// The project of carol.
pub(crate) const CAROL: &str = "cccccccccccccccccccccccccccccccc";
/// The project of admin.
pub(crate) const ADMIN: &str = "dddddddddddddddddddddddddddddddd";

/// A service with its API.
pub(crate) struct Rig {
    app: Router,
    pub(crate) service: Arc<Service>,
    pub(crate) faults: Faults,
    _directory: tempfile::TempDir,
}

/// An answer, read to its end.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

struct Still;

impl Clock for Still {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(1_704_164_645_678_901)
    }
}

/// Counts, so that every id is another and each run has the same.
#[derive(Default)]
struct Counted(AtomicU64);

impl Entropy for Counted {
    fn fill(&self, bytes: &mut [u8]) {
        let number = self.0.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        bytes.fill(0);
        let at = bytes.len().saturating_sub(number.len());
        let tail = &mut bytes[at..];
        let skipped = number.len() - tail.len();
        tail.copy_from_slice(&number[skipped..]);
    }
}

struct ByName;

#[async_trait]
impl Authenticator for ByName {
    async fn authenticate(&self, parts: &Parts, _body: &mut dyn SignedBody) -> Result<Principal> {
        let token = parts.headers.get("x-auth-token");
        let token = token.and_then(|token| token.to_str().ok());
        principal(token.unwrap_or_default()).ok_or_else(|| {
            Error::new(
                ErrorKind::Unauthenticated,
                "The request you have made requires authentication.",
            )
        })
    }
}

fn principal(name: &str) -> Option<Principal> {
    let (project, role) = match name {
        "alice" => (ALICE, "member"),
        "rita" => (ALICE, "reader"),
        "bob" => (BOB, "member"),
        "carol" => (CAROL, "member"),
        "admin" => (ADMIN, "admin"),
        _ => return None,
    };
    let domain = Named {
        id: "default".parse().unwrap(),
        name: "Default".to_owned(),
    };
    Some(Principal {
        user: Named {
            id: name.parse().unwrap(),
            name: name.to_owned(),
        },
        user_domain: domain.clone(),
        scope: Scope::Project(ProjectScope {
            project: Named {
                id: project.parse().unwrap(),
                name: project.to_owned(),
            },
            domain,
        }),
        roles: vec![role.to_owned()],
        enterprise_roles: std::collections::BTreeMap::new(),
        credential: Credential::AccessKey,
    })
}

impl Rig {
    pub(crate) async fn new() -> Self {
        Self::with(Settings::default()).await
    }

    pub(crate) async fn with(settings: Settings) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let clock: Arc<dyn Clock> = Arc::new(Still);
        let entropy: Arc<dyn Entropy> = Arc::new(Counted::default());
        let url = format!("sqlite://{}", directory.path().join("catalog.db").display());
        let catalog = SqlCatalog::open(&url, Options::default(), Arc::clone(&clock)).await;
        let catalog = Arc::new(catalog.unwrap());
        let keys = ServiceKey::from_hex(&"5a".repeat(32), Arc::clone(&entropy)).unwrap();
        let keys = Arc::new(keys);
        let ports = calotype_identity::Ports {
            directory: catalog.clone(),
            clock: Arc::clone(&clock),
            entropy: Arc::clone(&entropy),
            keys: keys.clone(),
        };
        let key_service = key_service(&catalog, &clock).await;
        let faults = Faults::default();
        let blobs = SealedBlobs::new(
            Arc::new(FaultyStore::new(
                MemoryStore::new(Arc::clone(&clock)),
                faults.clone(),
            )),
            keys.clone(),
            Arc::clone(&entropy),
            Arc::clone(&clock),
            SealOptions::default(),
        );
        let service_ports = calotype_core::app::Ports {
            catalog: Arc::clone(&catalog) as _,
            blobs: Arc::new(blobs),
            keys,
            objects: Arc::new(calotype_core::ports::NoBuckets),
            compute: Arc::new(calotype_core::ports::NoCompute),
            converter: Arc::new(calotype_core::ports::NoConverter),
            projects: catalog,
            clock,
            entropy: Arc::clone(&entropy),
        };
        let service = Arc::new(Service::new(service_ports, Access::default(), settings));
        let state = ApiState {
            service: Arc::clone(&service),
            authenticator: Arc::new(ByName),
            public_url: Some("http://images.example:9292".into()),
            render_metrics: Arc::new(String::new),
            max_json_body: 64 << 10,
            body_idle_timeout: Duration::from_secs(60),
            admission: Arc::default(),
            leaving: calotype_api::Leaving::default(),
        };
        let identity = calotype_identity::Embedded::new(
            ports,
            Arc::default(),
            calotype_identity::Options::default(),
        );
        let identity = IdentityState {
            identity: Arc::new(identity),
            public_url: None,
        };
        Self {
            app: calotype_api::app(state, identity, key_service, entropy),
            service,
            faults,
            _directory: directory,
        }
    }

    /// Sends a request with a body of a media type.
    pub(crate) async fn send(
        &self,
        who: &str,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Answer {
        let body = body.into();
        Answer::read(self.open(who, method, path, headers, body).await).await
    }

    /// Sends a request; the answer's body is not read yet.
    pub(crate) async fn open(
        &self,
        who: &str,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Body,
    ) -> Response<Body> {
        let mut request = Request::builder().method(method).uri(path);
        request = request.header("accept", "application/json");
        if !who.is_empty() {
            request = request.header("x-auth-token", who);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body).unwrap();
        self.app.clone().oneshot(request).await.unwrap()
    }

    pub(crate) async fn get(&self, who: &str, path: &str) -> Answer {
        self.send(who, Method::GET, path, &[], Body::empty()).await
    }

    pub(crate) async fn delete(&self, who: &str, path: &str) -> Answer {
        self.send(who, Method::DELETE, path, &[], Body::empty())
            .await
    }

    pub(crate) async fn post(&self, who: &str, path: &str, body: &Value) -> Answer {
        let json = [("content-type", "application/json")];
        self.send(who, Method::POST, path, &json, body.to_string())
            .await
    }

    pub(crate) async fn put(&self, who: &str, path: &str, body: &Value) -> Answer {
        let json = [("content-type", "application/json")];
        self.send(who, Method::PUT, path, &json, body.to_string())
            .await
    }

    pub(crate) async fn patch(&self, who: &str, path: &str, body: &Value) -> Answer {
        let media = [("content-type", PATCH)];
        self.send(who, Method::PATCH, path, &media, body.to_string())
            .await
    }

    pub(crate) async fn upload(&self, who: &str, id: &str, body: impl Into<Body>) -> Answer {
        let media = [("content-type", OCTETS)];
        let path = format!("/v2/images/{id}/file");
        self.send(who, Method::PUT, &path, &media, body).await
    }

    /// Makes a raw image of alice's; the result is its id.
    pub(crate) async fn queued(&self) -> String {
        let body =
            serde_json::json!({"name": "plate", "disk_format": "raw", "container_format": "bare"});
        let made = self.post("alice", "/v2/images", &body).await.expect(201);
        made.json()["id"].as_str().unwrap().to_owned()
    }

    /// Makes an image of alice's with these bytes; the result is its id.
    pub(crate) async fn active(&self, bytes: &'static [u8]) -> String {
        let id = self.queued().await;
        self.upload("alice", &id, bytes).await.expect(204);
        id
    }

    pub(crate) async fn show(&self, id: &str) -> Value {
        let shown = self.get("admin", &format!("/v2/images/{id}")).await;
        shown.expect(200).json()
    }

    /// The names in the audit trail, oldest first.
    pub(crate) async fn traces(&self) -> Vec<String> {
        let call = Call {
            principal: principal("admin").unwrap(),
            request_id: "req-test".to_owned(),
            surface: Surface::Native,
            token: None,
        };
        let lines = self.service.audit_trail(&call, None, 1000).await.unwrap();
        let names = lines.into_iter().map(|(_, event)| event.trace);
        names.rev().collect()
    }
}

impl Answer {
    async fn read(response: Response<Body>) -> Self {
        let (parts, body) = response.into_parts();
        Self {
            status: parts.status,
            headers: parts.headers,
            body: body.collect().await.unwrap().to_bytes(),
        }
    }

    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(
            self.status.as_u16(),
            status,
            "{}",
            String::from_utf8_lossy(&self.body)
        );
        if status == 204 {
            assert!(self.body.is_empty(), "204 has no body");
        }
        self
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap().to_str().unwrap()
    }
}

/// A document as text, with the image's id replaced.
pub(crate) fn pretty(document: &Value, id: &str) -> String {
    serde_json::to_string_pretty(document)
        .unwrap()
        .replace(id, "[id]")
}

/// A key service over the catalog, which these tests do not ask. It draws no randomness of theirs.
async fn key_service(
    catalog: &Arc<SqlCatalog>,
    clock: &Arc<dyn Clock>,
) -> Arc<calotype_keys::EmbeddedKeys> {
    let labels = calotype_blob::Stores::one(Arc::new(MemoryStore::new(Arc::clone(clock))));
    let ports = calotype_keys::Ports {
        catalog: Arc::clone(catalog) as _,
        labels: Arc::new(labels),
        clock: Arc::clone(clock),
        entropy: Arc::new(calotype_keys::SystemEntropy::new()),
    };
    let text = "07".repeat(32).into();
    let root = calotype_keys::RootSource::Environment("ROOT".to_owned(), text);
    let keys = calotype_keys::EmbeddedKeys::open(
        ports,
        root,
        Access::default(),
        calotype_keys::Options::default(),
    );
    Arc::new(keys.await.unwrap())
}
