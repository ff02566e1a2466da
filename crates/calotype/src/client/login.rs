//! Keystone v3: from credentials to a token, a project and the image service's address.

use reqwest::{Response, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use tokio::sync::RwLock;

use super::transport::{Call, RetryPolicy, Transport, document, success};
use crate::clouds::{Cloud, Domain, Login, Named, Scope};
use crate::exit::{Exit, Failure};

/// A logged-in caller.
#[derive(Debug)]
pub(crate) struct Session {
    pub(super) transport: Transport,
    cloud: Cloud,
    token: RwLock<SecretString>,
    endpoint: String,
    keys: Option<String>,
    project_id: Option<String>,
}

/// What a login gives.
struct Granted {
    token: SecretString,
    body: Value,
}

impl Session {
    /// Logs in and finds the image service.
    ///
    /// # Errors
    /// Not authorised where the credentials are wrong; not found where the catalog has no image
    /// service; a failure where nothing answers.
    pub(crate) async fn open(cloud: Cloud, retry: RetryPolicy) -> Result<Self, Failure> {
        let transport = Transport::new(cloud.ca_file.as_deref(), cloud.verify, retry)?;
        let granted = login(&transport, &cloud).await?;
        let token = &granted.body["token"];
        let endpoint = match &cloud.image_endpoint {
            Some(address) => root(address),
            None => endpoint(&token["catalog"], cloud.region.as_deref(), &cloud.interface)?,
        };
        let project_id = token["project"]["id"].as_str().map(str::to_owned);
        let keys = key_endpoint(
            &token["catalog"],
            project_id.as_deref(),
            cloud.region.as_deref(),
            &cloud.interface,
        );
        Ok(Self {
            transport,
            cloud,
            token: RwLock::new(granted.token),
            endpoint,
            keys,
            project_id,
        })
    }

    /// The image service's address, without a version or a slash.
    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Keystone's address with its version.
    pub(crate) fn identity(&self) -> String {
        versioned(&self.cloud.auth_url)
    }

    /// The project that the token is for.
    ///
    /// # Errors
    /// Usage: the token is for no project.
    pub(crate) fn project_id(&self) -> Result<&str, Failure> {
        self.project_id
            .as_deref()
            .ok_or_else(|| Failure::usage("the login is for no project: set OS_PROJECT_NAME"))
    }

    /// Sends `call` to the image service; a success comes back.
    ///
    /// # Errors
    /// What the service said, or that it did not answer.
    pub(crate) async fn image(&self, call: Call) -> Result<Response, Failure> {
        let base = self.endpoint.clone();
        self.send(&base, call).await
    }

    /// Sends `call` to the key management service; a success comes back.
    ///
    /// # Errors
    /// Not found where the catalog has none; what the service said, or that it did not answer.
    pub(crate) async fn kms(&self, call: Call) -> Result<Response, Failure> {
        let base = self.keys.clone().ok_or_else(|| {
            Failure::new("the catalog has no key management service for a project")
                .with_exit(Exit::NotFound)
        })?;
        self.send(&base, call).await
    }

    /// Sends `call` to Keystone; a success comes back.
    ///
    /// # Errors
    /// What the service said, or that it did not answer.
    pub(crate) async fn keystone(&self, call: Call) -> Result<Response, Failure> {
        let base = self.identity();
        self.send(&base, call).await
    }

    async fn send(&self, base: &str, call: Call) -> Result<Response, Failure> {
        let token = self.token().await;
        let response = self
            .transport
            .send(base, &call, Some(token.expose_secret()))
            .await?;
        if response.status() != StatusCode::UNAUTHORIZED || !self.renew().await? {
            return success(response).await;
        }
        let token = self.token().await;
        success(
            self.transport
                .send(base, &call, Some(token.expose_secret()))
                .await?,
        )
        .await
    }

    /// The token in use.
    pub(super) async fn token(&self) -> SecretString {
        self.token.read().await.clone()
    }

    /// Logs in again; says whether that was possible: not with a token as the only credential.
    pub(super) async fn renew(&self) -> Result<bool, Failure> {
        if matches!(self.cloud.login, Login::Token(_)) {
            return Ok(false);
        }
        *self.token.write().await = login(&self.transport, &self.cloud).await?.token;
        Ok(true)
    }
}

async fn login(transport: &Transport, cloud: &Cloud) -> Result<Granted, Failure> {
    let base = versioned(&cloud.auth_url);
    // Asking twice makes a second token and nothing worse, so it may be repeated.
    let call = Call::post("/auth/tokens", &request(cloud));
    let answered = transport.send(&base, &call, None).await?;
    let response = success(answered)
        .await
        .map_err(|failure| failure.during("login"))?;
    let token = response
        .headers()
        .get("x-subject-token")
        .and_then(|value| value.to_str().ok())
        .map(|value| SecretString::from(value.to_owned()))
        .ok_or_else(|| Failure::new(format!("{base} is no Keystone: it gave no token")))?;
    Ok(Granted {
        token,
        body: document(response).await?,
    })
}

fn request(cloud: &Cloud) -> Value {
    let identity = match &cloud.login {
        Login::Password { user, password } => {
            let mut user = named(user);
            user["password"] = json!(password.expose_secret());
            json!({"methods": ["password"], "password": {"user": user}})
        }
        Login::Token(token) => {
            json!({"methods": ["token"], "token": {"id": token.expose_secret()}})
        }
    };
    match &cloud.scope {
        Scope::Project(project) => {
            json!({"auth": {"identity": identity, "scope": {"project": named(project)}}})
        }
        Scope::Unsaid => json!({"auth": {"identity": identity}}),
    }
}

fn named(who: &Named) -> Value {
    match who {
        Named::Id(id) => json!({"id": id}),
        Named::Name {
            name,
            domain: Domain::Id(id),
        } => json!({"name": name, "domain": {"id": id}}),
        Named::Name {
            name,
            domain: Domain::Name(domain),
        } => {
            json!({"name": name, "domain": {"name": domain}})
        }
    }
}

fn versioned(auth_url: &str) -> String {
    let base = auth_url.trim_end_matches('/');
    if base.ends_with("/v3") {
        base.to_owned()
    } else {
        format!("{base}/v3")
    }
}

/// The image service's address in a catalog.
fn endpoint(catalog: &Value, region: Option<&str>, interface: &str) -> Result<String, Failure> {
    let url = find(catalog, "image", region, interface);
    url.as_deref().map(root).ok_or_else(|| {
        let place = region
            .map(|region| format!(" in region {region}"))
            .unwrap_or_default();
        Failure::new(format!(
            "the catalog has no {interface} image service{place}"
        ))
        .with_exit(Exit::NotFound)
    })
}

/// The key management service's address for a project: OTC's catalog has one with the project's id in it, and one to
/// which the id is appended.
fn key_endpoint(
    catalog: &Value,
    project: Option<&str>,
    region: Option<&str>,
    interface: &str,
) -> Option<String> {
    let project = project?;
    let trimmed = |url: String| url.trim_end_matches('/').to_owned();
    if let Some(url) = find(catalog, "kmsv1", region, interface) {
        return Some(trimmed(url));
    }
    let url = trimmed(find(catalog, "kms", region, interface)?);
    if url.ends_with(project) {
        return Some(url);
    }
    Some(format!("{url}/{project}"))
}

/// The address of a service in a catalog.
fn find(catalog: &Value, kind: &str, region: Option<&str>, interface: &str) -> Option<String> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let found = list(catalog)
        .iter()
        .filter(|service| service["type"] == kind)
        .flat_map(|service| list(&service["endpoints"]))
        .find(|endpoint| {
            endpoint["interface"] == interface
                && region.is_none_or(|region| {
                    endpoint["region"] == region || endpoint["region_id"] == region
                })
        });
    found?["url"].as_str().map(str::to_owned)
}

/// An address without slash and version: some catalogs have `/v2` in it.
fn root(address: &str) -> String {
    let address = address.trim_end_matches('/');
    let cut = ["/v1", "/v2", "/v2.1"]
        .iter()
        .find_map(|version| address.strip_suffix(version));
    cut.unwrap_or(address).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_endpoint_is_found_by_interface_and_region() {
        let catalog = json!([
            {"type": "identity", "endpoints": [{"interface": "public", "region": "a", "url": "x"}]},
            {"type": "image", "endpoints": [
                {"interface": "admin", "region": "a", "url": "http://admin"},
                {"interface": "public", "region": "a", "url": "http://a:1/"},
                {"interface": "public", "region_id": "b", "url": "http://b:1/v2/"},
            ]},
        ]);
        assert_eq!(endpoint(&catalog, None, "public").unwrap(), "http://a:1");
        assert_eq!(
            endpoint(&catalog, Some("b"), "public").unwrap(),
            "http://b:1"
        );
        let failure = endpoint(&catalog, Some("c"), "public").unwrap_err();
        assert_eq!(failure.exit, Exit::NotFound);
    }

    #[test]
    fn the_key_endpoint_has_the_projects_id_once() {
        let catalog = |kind: &str, url: &str| json!([{"type": kind, "endpoints": [{"interface": "public", "region": "a", "url": url}]}]);
        let found = |catalog: &Value| key_endpoint(catalog, Some("p1"), Some("a"), "public");
        for (kind, url) in [
            ("kmsv1", "http://k/v1.0/p1"),
            ("kms", "http://k/v1.0"),
            ("kms", "http://k/v1.0/"),
            ("kms", "http://k/v1.0/p1"),
        ] {
            let catalog = catalog(kind, url);
            assert_eq!(
                found(&catalog).as_deref(),
                Some("http://k/v1.0/p1"),
                "{kind} {url}"
            );
            assert_eq!(key_endpoint(&catalog, None, None, "public"), None);
        }
        assert_eq!(found(&catalog("image", "http://i")), None);
    }

    #[test]
    fn keystone_is_found_with_and_without_its_version() {
        assert_eq!(versioned("http://k/identity"), "http://k/identity/v3");
        assert_eq!(versioned("http://k/v3/"), "http://k/v3");
    }
}
