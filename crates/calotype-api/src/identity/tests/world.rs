//! The identity API with its layers, on SQLite in a directory of the test's own.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use aws_lc_rs::hmac;
use axum::Router;
use axum::body::Body;
use calotype_blob::store::MemoryStore;
use calotype_blob::{SealOptions, SealedBlobs};
use calotype_catalog::SqlCatalog;
use calotype_core::access::Access;
use calotype_core::app::{self, Service, Settings};
use calotype_core::ports::{Catalog, Clock, Directory, Entropy, KeyService};
use calotype_core::time::Timestamp;
use calotype_identity::{Bootstrapped, Embedded, FirstUser, Options, Ports, Renewal, sha256_hex};
use calotype_keys::{ScriptedKeys, SystemEntropy};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::identity::IdentityState;
use crate::state::ApiState;

pub(super) const BASE: &str = "http://calotype.test:9292";
pub(super) const NOW: &str = "20261123T201500Z";

pub(super) struct World {
    app: Router,
    clock: Arc<FixedClock>,
    pub(super) first: Bootstrapped,
    _directory: tempfile::TempDir,
}

pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Value,
}

impl World {
    pub(super) async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let set_clock = Arc::new(FixedClock::default());
        let clock = Arc::clone(&set_clock) as Arc<dyn Clock>;
        let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy::new());
        let url = format!("sqlite://{}/catalog.db", directory.path().display());
        let options = calotype_catalog::Options::default();
        let catalog = SqlCatalog::open(&url, options, Arc::clone(&clock)).await;
        let catalog = Arc::new(catalog.unwrap());
        let key_service = key_service(&catalog, &clock, &entropy).await;
        let ports = Ports {
            directory: Arc::clone(&catalog) as Arc<dyn Directory>,
            clock: Arc::clone(&clock),
            entropy: Arc::clone(&entropy),
            keys: Arc::clone(&key_service) as _,
        };
        let access = Arc::new(Access::default());
        let identity = Arc::new(Embedded::new(ports, access, Options::default()));
        let first = identity.bootstrap(Renewal::UntilConfirmed).await.unwrap();
        let keys: Arc<dyn KeyService> = Arc::new(ScriptedKeys::new(Arc::clone(&entropy)));
        let blobs = SealedBlobs::new(
            Arc::new(MemoryStore::new(Arc::clone(&clock))),
            Arc::clone(&keys),
            Arc::clone(&entropy),
            Arc::clone(&clock),
            SealOptions::default(),
        );
        let ports = app::Ports {
            catalog: Arc::clone(&catalog) as Arc<dyn Catalog>,
            blobs: Arc::new(blobs),
            keys,
            objects: Arc::new(calotype_core::ports::NoBuckets),
            compute: Arc::new(calotype_core::ports::NoCompute),
            converter: Arc::new(calotype_core::ports::NoConverter),
            projects: catalog,
            clock,
            entropy: Arc::clone(&entropy),
        };
        let service = Service::new(ports, Access::default(), Settings::default());
        let state = ApiState {
            service: Arc::new(service),
            authenticator: Arc::clone(&identity) as _,
            public_url: Some(BASE.into()),
            render_metrics: Arc::new(String::new),
            max_json_body: 1 << 20,
            body_idle_timeout: Duration::from_secs(60),
            admission: Arc::default(),
            leaving: crate::state::Leaving::default(),
        };
        let public_url = state.public_url.clone();
        let identity = IdentityState {
            identity,
            public_url,
        };
        let app = crate::router::app(state, identity, key_service, entropy);
        Self {
            app,
            clock: set_clock,
            first: first.unwrap(),
            _directory: directory,
        }
    }

    /// So many seconds pass.
    pub(super) fn advance(&self, seconds: u64) {
        let later = self.clock.now().plus(Duration::from_secs(seconds));
        self.clock.0.store(later.as_micros(), Ordering::SeqCst);
    }

    pub(super) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.app.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let body = if bytes.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&bytes).unwrap()
        };
        Answer {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body,
        }
    }

    pub(super) async fn call(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Option<Value>,
    ) -> Answer {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("/identity{path}"));
        if let Some(token) = token {
            request = request.header("x-auth-token", token);
        }
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        self.send(request.body(body).unwrap()).await
    }

    pub(super) async fn get(&self, path: &str, token: &str) -> Answer {
        self.call(Method::GET, path, Some(token), None).await
    }

    pub(super) async fn login(&self, body: Value) -> Answer {
        self.call(Method::POST, "/v3/auth/tokens", None, Some(body))
            .await
    }

    /// A token for the user in its project.
    pub(super) async fn token(&self, user: &FirstUser) -> String {
        let scope = json!({ "project": { "id": user.project.id } });
        let password = user.password.expose_secret();
        let answer = self.login(login(&user.user.name, password, &scope)).await;
        assert_eq!(answer.status, 201);
        answer.token()
    }
}

impl Answer {
    pub(super) fn token(&self) -> String {
        let token = self.headers.get("x-subject-token").unwrap();
        token.to_str().unwrap().to_owned()
    }

    pub(super) fn names(&self, list: &str) -> Vec<&str> {
        let items = self.body[list].as_array().unwrap().iter();
        items.map(|item| item["name"].as_str().unwrap()).collect()
    }

    pub(super) fn assert_is_error(&self, status: StatusCode) {
        let error = &self.body["error"];
        assert_eq!(self.status, status.as_u16(), "{error}");
        assert_eq!(error["code"], status.as_u16());
        assert_eq!(error["title"], status.canonical_reason().unwrap());
        assert!(error["message"].is_string());
    }
}

pub(super) fn login(name: &str, password: &str, scope: &Value) -> Value {
    let user = json!({ "name": name, "domain": { "name": "Default" }, "password": password });
    let identity = json!({ "methods": ["password"], "password": { "user": user } });
    json!({ "auth": { "identity": identity, "scope": scope } })
}

/// What signs: an access key.
#[derive(Clone, Copy)]
pub(super) struct Key<'a> {
    pub(super) access: &'a str,
    pub(super) secret: &'a str,
}

impl<'a> From<&'a FirstUser> for Key<'a> {
    fn from(user: &'a FirstUser) -> Self {
        let key = &user.access_key;
        Self {
            access: &key.access,
            secret: key.secret.expose_secret(),
        }
    }
}

/// Signs as scheme A does: every header that is given, and the date.
pub(super) fn signed_a<'a>(
    key: impl Into<Key<'a>>,
    method: Method,
    target: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Request<Body> {
    let mut all = vec![("host", "calotype.test:9292"), ("x-sdk-date", NOW)];
    all.extend_from_slice(headers);
    all.sort_unstable();
    let names: Vec<&str> = all.iter().map(|(name, _)| *name).collect();
    let canonical = canonical(&method, target, &all, body);
    let text = format!(
        "SDK-HMAC-SHA256\n{NOW}\n{}",
        sha256_hex(canonical.as_bytes())
    );
    let Key { access, secret } = key.into();
    let signature = hex::encode(mac(secret.as_bytes(), &text));
    let authorization = format!(
        "SDK-HMAC-SHA256 Access={access}, SignedHeaders={}, Signature={signature}",
        names.join(";")
    );
    request(method, target, &all, &authorization, body)
}

/// Signs as scheme B does. `late` headers are added after signing.
pub(super) fn signed_b<'a>(
    key: impl Into<Key<'a>>,
    method: Method,
    target: &str,
    late: &[(&str, &str)],
    body: &str,
) -> Request<Body> {
    let all = [("host", "calotype.test:9292"), ("x-sdk-date", NOW)];
    let canonical = canonical(&method, target, &all, body);
    let scope = "20261123///sdk_request";
    let hash = sha256_hex(canonical.as_bytes());
    let text = format!("SDK-HMAC-SHA256\n{NOW}\n{scope}\n{hash}");
    let Key { access, secret } = key.into();
    let mut key = format!("SDK{secret}").into_bytes();
    for part in scope.split('/') {
        key = mac(&key, part);
    }
    let authorization = format!(
        "SDK-HMAC-SHA256 Credential={access}/{scope}, SignedHeaders=host;x-sdk-date, Signature={}",
        hex::encode(mac(&key, &text))
    );
    let all = [all.as_slice(), late].concat();
    request(method, target, &all, &authorization, body)
}

fn canonical(method: &Method, target: &str, headers: &[(&str, &str)], body: &str) -> String {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let names: Vec<&str> = headers.iter().map(|(name, _)| *name).collect();
    let lines: Vec<String> = headers
        .iter()
        .map(|(name, value)| format!("{name}:{value}\n"))
        .collect();
    let hash = sha256_hex(body.as_bytes());
    format!(
        "{method}\n{path}/\n{query}\n{}\n{}\n{hash}",
        lines.concat(),
        names.join(";")
    )
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    hmac::sign(&key, text.as_bytes()).as_ref().to_vec()
}

fn request(
    method: Method,
    target: &str,
    headers: &[(&str, &str)],
    authorization: &str,
    body: &str,
) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(target);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.header("authorization", authorization);
    request.body(Body::from(body.to_owned())).unwrap()
}

/// A key service over the catalog, with a root key that is the same every time.
async fn key_service(
    catalog: &Arc<SqlCatalog>,
    clock: &Arc<dyn Clock>,
    entropy: &Arc<dyn Entropy>,
) -> Arc<calotype_keys::EmbeddedKeys> {
    let labels = calotype_blob::Stores::one(Arc::new(MemoryStore::new(Arc::clone(clock))));
    let ports = calotype_keys::Ports {
        catalog: Arc::clone(catalog) as _,
        labels: Arc::new(labels),
        clock: Arc::clone(clock),
        entropy: Arc::clone(entropy),
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

struct FixedClock(AtomicI64);

impl Default for FixedClock {
    fn default() -> Self {
        let now = Timestamp::parse("2026-11-23T20:15:00Z").unwrap();
        Self(AtomicI64::new(now.as_micros()))
    }
}

impl Clock for FixedClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::SeqCst))
    }
}
