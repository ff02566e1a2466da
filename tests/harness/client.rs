//! A small HTTP client with a credential, and the answers that it gets.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::Method;
use reqwest::blocking::{Body, RequestBuilder, Response};
use reqwest::header::HeaderMap;
use serde_json::{Value, json};

use crate::keys::Barbican;

/// A caller: an address, a token and the project that it is scoped to.
#[derive(Clone)]
pub struct Client {
    http: reqwest::blocking::Client,
    base: String,
    /// What answers in place of the server's own identity: a Keystone's URL.
    identity: Option<String>,
    /// Where its keys are, unless the server has them.
    pub(crate) barbican: Option<Barbican>,
    token: Option<String>,
    project: String,
    project_name: String,
    user: String,
    /// The name and the password, where it logged in by these.
    login: (String, String),
}

/// What servers leave to a Keystone and to a Barbican, by the servers' addresses.
type Elsewhere = BTreeMap<String, (String, Option<Barbican>)>;

static ELSEWHERE: Mutex<Elsewhere> = Mutex::new(BTreeMap::new());

/// From now on, who is at this server asks the Keystone for what is the identity's, and makes keys in the Barbican.
pub(crate) fn log_in_at(base: &str, keystone: &str, barbican: Option<&Barbican>) {
    let mut elsewhere = ELSEWHERE.lock().unwrap_or_else(PoisonError::into_inner);
    elsewhere.insert(base.to_owned(), (keystone.to_owned(), barbican.cloned()));
}

fn elsewhere(base: &str) -> (Option<String>, Option<Barbican>) {
    let elsewhere = ELSEWHERE.lock().unwrap_or_else(PoisonError::into_inner);
    let found = elsewhere.get(base).cloned();
    found.map_or((None, None), |(keystone, barbican)| {
        (Some(keystone), barbican)
    })
}

/// What came back.
#[derive(Clone)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body's bytes.
    pub bytes: Vec<u8>,
    /// What was asked, for messages.
    pub asked: String,
}

impl Client {
    /// A caller without a credential.
    pub fn anonymous(base: &str) -> Self {
        let http = reqwest::blocking::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(None::<Duration>)
            .connect_timeout(Duration::from_secs(10))
            .build()
            .expect("an HTTP client");
        let (identity, barbican) = elsewhere(base);
        Self {
            http,
            base: base.to_owned(),
            identity,
            barbican,
            token: None,
            project: String::new(),
            project_name: String::new(),
            login: Default::default(),
            user: String::new(),
        }
    }

    /// A user of the default domain, with a token for one of its projects.
    pub fn login(base: &str, user: &str, password: &str, project: &str) -> Self {
        let client = Self::anonymous(base);
        let answer = client.post(
            "/identity/v3/auth/tokens",
            json!({"auth": {
                "identity": {"methods": ["password"], "password": {"user": {
                    "name": user, "domain": {"id": "default"}, "password": password}}},
                "scope": {"project": {"name": project, "domain": {"id": "default"}}},
            }}),
        );
        let answer = answer.expect(201);
        let token = answer.header("x-subject-token").to_owned();
        let body = answer.json();
        Self {
            token: Some(token),
            project: text(&body["token"]["project"]["id"]),
            project_name: project.to_owned(),
            user: text(&body["token"]["user"]["id"]),
            login: (user.to_owned(), password.to_owned()),
            ..client
        }
    }

    /// The same caller, logged in once more: with the roles of now.
    #[must_use]
    pub fn again(&self) -> Self {
        let (user, password) = &self.login;
        Self::login(&self.base, user, password, &self.project_name)
    }

    /// The same caller, who asks the server for the identity's too, whoever has it.
    pub fn direct(&self) -> Self {
        Self {
            identity: None,
            ..self.clone()
        }
    }

    /// The same caller with another token.
    pub fn with_token(&self, token: &str) -> Self {
        Self {
            token: Some(token.to_owned()),
            ..self.clone()
        }
    }

    /// The same caller, asking a server at another address.
    pub fn at(&self, base: &str) -> Self {
        Self {
            base: base.to_owned(),
            ..self.clone()
        }
    }

    /// Makes a project and a user that has `role` in it, and logs the user in. The caller administers.
    pub fn new_project(&self, name: &str, role: &str) -> Self {
        let name = &self.name_of(name);
        let project = self
            .post(
                "/identity/v3/projects",
                json!({"project": {"name": name, "domain_id": "default"}}),
            )
            .expect(201)
            .json();
        self.new_user(
            &format!("{name}-{role}"),
            &text(&project["project"]["id"]),
            name,
            role,
        )
    }

    /// Makes a user that has `role` in a project, and logs the user in. The caller administers.
    pub fn new_user(&self, user: &str, project: &str, project_name: &str, role: &str) -> Self {
        let user = &self.name_of(user);
        let password = format!("pass-{user}-phrase");
        let made = self
            .post(
                "/identity/v3/users",
                json!({"user": {"name": user, "domain_id": "default", "password": password}}),
            )
            .expect(201)
            .json();
        let roles = self
            .get(&format!("/identity/v3/roles?name={role}"))
            .expect(200)
            .json();
        let made = text(&made["user"]["id"]);
        let role = text(&roles["roles"][0]["id"]);
        self.put(
            &format!("/identity/v3/projects/{project}/users/{made}/roles/{role}"),
            Value::Null,
        )
        .expect(204);
        Self::login(&self.base, user, &password, project_name)
    }

    /// A name, or one of its own where other tests name things in the same place.
    fn name_of(&self, name: &str) -> String {
        match &self.identity {
            Some(_) => crate::engines::fresh_name(name),
            None => name.to_owned(),
        }
    }

    /// Where the server answers.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The token, empty for an anonymous caller.
    pub fn token(&self) -> &str {
        self.token.as_deref().unwrap_or_default()
    }

    /// The id of the project that the token is scoped to.
    pub fn project(&self) -> &str {
        &self.project
    }

    /// That project's name.
    pub fn project_name(&self) -> &str {
        &self.project_name
    }

    /// The id of the user.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// A request to build further.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = match (&self.identity, path.strip_prefix("/identity")) {
            (Some(keystone), Some(path)) => format!("{keystone}{path}"),
            _ => format!("{}{path}", self.base),
        };
        self.http(method, &url)
    }

    /// A request to any service that knows the caller.
    pub(crate) fn http(&self, method: Method, url: &str) -> RequestBuilder {
        let request = self.http.request(method, url);
        match &self.token {
            Some(token) => request.header("X-Auth-Token", token),
            None => request,
        }
    }

    /// GET.
    pub fn get(&self, path: &str) -> Answer {
        send(
            self.request(Method::GET, path)
                .header("Accept", "application/json"),
        )
    }

    /// HEAD.
    pub fn head(&self, path: &str) -> Answer {
        send(self.request(Method::HEAD, path))
    }

    /// DELETE.
    pub fn delete(&self, path: &str) -> Answer {
        send(
            self.request(Method::DELETE, path)
                .header("Accept", "application/json"),
        )
    }

    /// POST of a JSON body; `null` sends none.
    pub fn post(&self, path: &str, body: impl Into<Value>) -> Answer {
        self.json(Method::POST, path, &body.into())
    }

    /// PUT of a JSON body; `null` sends none.
    pub fn put(&self, path: &str, body: impl Into<Value>) -> Answer {
        self.json(Method::PUT, path, &body.into())
    }

    /// PATCH of a JSON body under a media type.
    pub fn patch(&self, path: &str, media_type: &str, body: impl Into<Value>) -> Answer {
        let request = self
            .request(Method::PATCH, path)
            .header("Accept", "application/json")
            .header("Content-Type", media_type);
        send(request.body(body.into().to_string()))
    }

    /// A body under a media type, as it is.
    pub fn raw(
        &self,
        method: Method,
        path: &str,
        media_type: &str,
        body: impl Into<Body>,
    ) -> Answer {
        let request = self
            .request(method, path)
            .header("Accept", "application/json")
            .header("Content-Type", media_type);
        send(request.body(body))
    }

    fn json(&self, method: Method, path: &str, body: &Value) -> Answer {
        let request = self
            .request(method, path)
            .header("Accept", "application/json");
        if body.is_null() {
            return send(request);
        }
        send(
            request
                .header("Content-Type", "application/json")
                .body(body.to_string()),
        )
    }
}

/// Sends a request and reads the whole answer.
pub fn send(request: RequestBuilder) -> Answer {
    match try_send(request) {
        Ok(answer) => answer,
        Err(error) => panic!("no answer: {error:?}"),
    }
}

static RECORD: Mutex<Option<Vec<Answer>>> = Mutex::new(None);

fn record() -> MutexGuard<'static, Option<Vec<Answer>>> {
    RECORD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps every answer from now on, whoever asks.
pub fn begin_record() {
    *record() = Some(Vec::new());
}

/// The answers since [`begin_record`].
pub fn recorded() -> Vec<Answer> {
    record().clone().expect("a record was begun")
}

/// Sends a request and reads the whole answer.
///
/// # Errors
/// Where the connection ends before the answer does: the server is gone.
pub fn try_send(request: RequestBuilder) -> Result<Answer, reqwest::Error> {
    let (http, request) = request.build_split();
    let request = request?;
    let asked = format!("{} {}", request.method(), request.url());
    let response: Response = http.execute(request)?;
    let status = response.status().as_u16();
    let headers = response.headers().clone();
    let bytes = response.bytes()?.to_vec();
    let answer = Answer {
        status,
        headers,
        bytes,
        asked,
    };
    if let Some(record) = record().as_mut() {
        record.push(answer.clone());
    }
    Ok(answer)
}

impl Answer {
    /// The answer, which must have this status.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self}");
        self
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        match serde_json::from_slice(&self.bytes) {
            Ok(body) => body,
            Err(error) => panic!("not JSON ({error}): {self}"),
        }
    }

    /// A header's text, empty where there is none.
    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    /// The refusal in the IMS envelope: this status and this code, with a message.
    #[track_caller]
    pub fn refused(&self, status: u16, code: &str) {
        assert_eq!(self.status, status, "{self}");
        let body = self.json();
        assert_eq!(body["error"]["code"], code, "{self}");
        let message = body["error"]["message"].as_str().unwrap_or_default();
        assert!(!message.is_empty(), "no message: {self}");
        assert!(
            !self.header("x-request-id").is_empty()
                || !self.header("x-openstack-request-id").is_empty()
        );
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body = self.text();
        let shown: String = body.chars().take(2000).collect();
        write!(f, "{} -> {} {shown}", self.asked, self.status)
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A JSON string's text; anything else is empty.
pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
