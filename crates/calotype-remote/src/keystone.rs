//! The service's own login at a Keystone v3: a token for a project or the system, and the catalog of services that comes
//! with it.
//!
//! # Guarantees
//! One login at a time; who comes meanwhile gets its result. A token is renewed before it ends, and once where it is
//! refused. A login that was refused is not tried again for [`REFUSED`]: a wrong password must not close the account.
//! Passwords and tokens are erased when dropped.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use calotype_core::ports::Clock;
use calotype_core::time::Timestamp;
use calotype_core::{Error, Result};
use reqwest::Url;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::endpoint::Endpoint;
use crate::transport::Request;

/// The largest answer to a login, in bytes: the catalog of a large cloud is in it.
const ANSWER_LIMIT: usize = 1024 * 1024;

/// How long before its end a token is given up.
const MARGIN: Duration = Duration::from_secs(60);

/// How long a login that was refused is not tried again.
const REFUSED: Duration = Duration::from_secs(30);

/// The service's user at a Keystone, and the project that it acts in.
#[derive(Clone)]
pub struct Login {
    /// Keystone's URL, with or without `/v3`.
    pub auth_url: String,
    /// The user's name.
    pub user: String,
    /// The name of the user's domain.
    pub user_domain: String,
    /// The user's password.
    pub password: Zeroizing<String>,
    /// What the user acts in.
    pub scope: LoginScope,
    /// The region of the catalog's endpoints. None: any.
    pub region: Option<String>,
    /// The interface of the catalog's endpoints.
    pub interface: String,
}

/// What the service's user acts in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoginScope {
    /// A project, by its name and its domain's.
    Project(String, String),
    /// The whole system.
    System,
}

impl Login {
    /// Keystone's URL, with `/v3` and without a slash at its end.
    pub fn v3_url(&self) -> String {
        let base = self.auth_url.trim_end_matches('/');
        format!("{}/v3", base.strip_suffix("/v3").unwrap_or(base))
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login")
            .field("auth_url", &self.auth_url)
            .field("user", &self.user)
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}

/// What a login gave.
pub struct Granted {
    /// The token.
    pub token: Zeroizing<String>,
    /// The id of the project that the token is for; empty where it is for the system.
    pub project: String,
    /// The id of the service's user.
    pub user: String,
    catalog: Vec<Service>,
    since: Instant,
    /// How long it lasts since then, by Keystone's own time: ours may be wrong.
    life: Duration,
}

#[derive(Deserialize)]
struct Service {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    endpoints: Vec<Place>,
}

#[derive(Deserialize)]
struct Place {
    interface: String,
    region_id: Option<String>,
    region: Option<String>,
    url: String,
}

/// The login, kept alive.
pub struct Session {
    login: Login,
    url: Url,
    endpoint: Endpoint,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    granted: Option<Arc<Granted>>,
    refused: Option<Instant>,
}

impl Session {
    /// A login that happens when it is first needed.
    ///
    /// # Errors
    /// InvalidRequest where the URL is none.
    pub fn new(login: Login, endpoint: Endpoint, clock: Arc<dyn Clock>) -> Result<Self> {
        let url = http_url(&format!("{}/auth/tokens", login.v3_url()))?;
        Ok(Self {
            login,
            url,
            endpoint,
            clock,
            state: Mutex::default(),
        })
    }

    /// The login in force.
    ///
    /// # Errors
    /// Unavailable, also where the login is refused: the operator has to see to it, and callers can come again.
    pub async fn granted(&self, deadline: Instant) -> Result<Arc<Granted>> {
        let mut state = self.state.lock().await;
        if let Some(granted) = &state.granted
            && granted.since.elapsed() + MARGIN < granted.life
        {
            return Ok(Arc::clone(granted));
        }
        if let Some(refused) = state.refused
            && refused.elapsed() < REFUSED
        {
            let left = REFUSED.saturating_sub(refused.elapsed());
            return Err(self
                .endpoint
                .unavailable(left, "the login was refused a moment ago"));
        }
        let granted = Arc::new(self.log_in(&mut state, deadline).await?);
        state.granted = Some(Arc::clone(&granted));
        Ok(granted)
    }

    /// Gives up a login whose token was refused; false where it is younger than `age`, and another one would not be
    /// better.
    pub async fn give_up(&self, stale: &Arc<Granted>, age: Duration) -> bool {
        if stale.since.elapsed() < age {
            return false;
        }
        let mut state = self.state.lock().await;
        // Another may have renewed it meanwhile.
        if state
            .granted
            .as_ref()
            .is_some_and(|granted| Arc::ptr_eq(granted, stale))
        {
            state.granted = None;
        }
        true
    }

    /// The URL of the first of these types of service in the catalog.
    pub fn find<'a>(&self, granted: &'a Granted, kinds: &[&str]) -> Option<(usize, &'a str)> {
        let wanted = |place: &&Place| {
            let region = place.region_id.as_ref().or(place.region.as_ref());
            place.interface == self.login.interface
                && (self.login.region.is_none() || region == self.login.region.as_ref())
        };
        kinds.iter().enumerate().find_map(|(index, kind)| {
            let mut services = granted.catalog.iter();
            let url = services.find_map(|service| {
                let places = (service.kind == *kind).then_some(&service.endpoints)?;
                places.iter().find(wanted).map(|place| place.url.as_str())
            })?;
            Some((index, url))
        })
    }

    async fn log_in(&self, state: &mut State, deadline: Instant) -> Result<Granted> {
        let since = Instant::now();
        let mut request = Request::post(self.url.clone(), self.body()?);
        request.limit = ANSWER_LIMIT;
        let answer = self.endpoint.call(&request, deadline).await?;
        match answer.status {
            200 | 201 => {}
            429 => {
                let wait = answer.retry_after().unwrap_or(REFUSED);
                return Err(self
                    .endpoint
                    .unavailable(wait, "Keystone takes no logins for now"));
            }
            status => {
                tracing::error!(
                    http.status = status, user.name = %self.login.user, login.scope = ?self.login.scope,
                    "Keystone refuses the service's login"
                );
                state.refused = Some(since);
                return Err(self
                    .endpoint
                    .unavailable(REFUSED, format!("Keystone answered {status}")));
            }
        }
        let token = answer.headers.get("x-subject-token");
        let token = token.and_then(|token| token.to_str().ok());
        let token = token.ok_or_else(|| self.endpoint.unusable("Keystone gave no token"))?;
        let document: Document = serde_json::from_slice(&answer.body).map_err(|_| {
            self.endpoint
                .unusable("Keystone's answer to the login is not understood")
        })?;
        let body = document.token;
        let expires_at = Timestamp::parse(&body.expires_at).ok_or_else(|| {
            self.endpoint
                .unusable("Keystone gave a token without an end")
        })?;
        let project = match (&self.login.scope, body.project) {
            (LoginScope::Project(..), Some(project)) => project.id,
            (LoginScope::Project(..), None) => {
                return Err(self
                    .endpoint
                    .unusable("Keystone gave a token without a project"));
            }
            (LoginScope::System, _) => String::new(),
        };
        Ok(Granted {
            token: Zeroizing::new(token.to_owned()),
            project,
            user: body.user.id,
            catalog: body.catalog,
            since,
            life: expires_at.since(answer.date().unwrap_or_else(|| self.clock.now())),
        })
    }

    fn body(&self) -> Result<Bytes> {
        let login = &self.login;
        let domain = |name| Domain { name };
        let auth = Auth {
            identity: Identity {
                methods: ["password"],
                password: Password {
                    user: User {
                        name: &login.user,
                        domain: domain(&login.user_domain),
                        password: &login.password,
                    },
                },
            },
            scope: match &login.scope {
                LoginScope::Project(name, project_domain) => Scope::Project(Project {
                    name,
                    domain: domain(project_domain),
                }),
                LoginScope::System => Scope::System(System { all: true }),
            },
        };
        json_text(&AuthDocument { auth })
    }
}

/// A JSON text in a buffer that is erased with its last holder, and has its full size from the start: one that grows
/// leaves copies behind.
pub fn json_text(document: &impl Serialize) -> Result<Bytes> {
    let mut text = Zeroizing::new(Vec::with_capacity(16 * 1024));
    serde_json::to_writer(&mut *text, document).map_err(Error::internal)?;
    Ok(Bytes::from_owner(text))
}

/// The `Host` header that a client will send.
pub fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

/// An http or https URL.
///
/// # Errors
/// InvalidRequest.
pub fn http_url(text: &str) -> Result<Url> {
    Url::parse(text)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
        .ok_or_else(|| Error::invalid(format!("{text:?} is no http or https URL")))
}

#[derive(Serialize)]
struct AuthDocument<'a> {
    auth: Auth<'a>,
}

#[derive(Serialize)]
struct Auth<'a> {
    identity: Identity<'a>,
    scope: Scope<'a>,
}

#[derive(Serialize)]
struct Identity<'a> {
    methods: [&'static str; 1],
    password: Password<'a>,
}

#[derive(Serialize)]
struct Password<'a> {
    user: User<'a>,
}

#[derive(Serialize)]
struct User<'a> {
    name: &'a str,
    domain: Domain<'a>,
    password: &'a str,
}

#[derive(Serialize)]
struct Domain<'a> {
    name: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Scope<'a> {
    Project(Project<'a>),
    System(System),
}

#[derive(Serialize)]
struct System {
    all: bool,
}

#[derive(Serialize)]
struct Project<'a> {
    name: &'a str,
    domain: Domain<'a>,
}

#[derive(Deserialize)]
struct Document {
    token: TokenBody,
}

#[derive(Deserialize)]
struct TokenBody {
    expires_at: String,
    user: Id,
    project: Option<Id>,
    #[serde(default)]
    catalog: Vec<Service>,
}

#[derive(Deserialize)]
struct Id {
    id: String,
}

#[cfg(test)]
mod tests;
