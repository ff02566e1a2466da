//! The Keystone and the Barbican that `cargo xtask test` started, and what one test makes in them for itself.
//!
//! Also compiled into the tests of `calotype-keys`, which need the same.

use reqwest::Method;
use reqwest::blocking::Response;
use serde_json::{Value, json};

use super::engines::{engine, fresh_name};

/// 32 bytes, in Base64.
const PAYLOAD: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// The services, with the administrator's token.
pub struct OpenStack {
    http: reqwest::blocking::Client,
    keystone: String,
    barbican: String,
    admin: String,
}

/// A user with a role in a project, logged in.
pub struct User {
    /// The user's id.
    pub id: String,
    /// The user's name.
    pub name: String,
    /// The user's password.
    pub password: String,
    /// The project's id.
    pub project: String,
    /// The project's name.
    pub project_name: String,
    /// A token for the project.
    pub token: String,
}

impl OpenStack {
    /// The services of this run.
    pub fn connect() -> Self {
        let http = reqwest::blocking::Client::builder().no_proxy();
        let mut services = Self {
            http: http.build().expect("an HTTP client"),
            keystone: engine("CALOTYPE_TEST_KEYSTONE_URL"),
            barbican: engine("CALOTYPE_TEST_BARBICAN_URL"),
            admin: String::new(),
        };
        let password = engine("CALOTYPE_TEST_KEYSTONE_PASSWORD");
        services.admin = services.login("admin", &password, "admin");
        services
    }

    /// Where Keystone answers.
    pub fn keystone(&self) -> &str {
        &self.keystone
    }

    /// Where Barbican answers.
    pub fn barbican(&self) -> &str {
        &self.barbican
    }

    /// A token for a project.
    pub fn login(&self, user: &str, password: &str, project: &str) -> String {
        let domain = json!({"id": "default"});
        let identity = json!({"methods": ["password"], "password": {"user": {
            "name": user, "domain": domain, "password": password}}});
        let scope = json!({"project": {"name": project, "domain": domain}});
        self.token(&identity, Some(&scope))
    }

    /// A token by whatever proves an identity.
    pub fn token(&self, identity: &Value, scope: Option<&Value>) -> String {
        let mut auth = json!({"identity": identity});
        if let Some(scope) = scope {
            auth["scope"] = scope.clone();
        }
        let url = format!("{}/v3/auth/tokens", self.keystone);
        let answer = self.send(Method::POST, &url, "", Some(&json!({"auth": auth})));
        let token = answer.headers().get("x-subject-token");
        let token = token.unwrap_or_else(|| panic!("no token: {}", answer.status()));
        token.to_str().expect("a token").to_owned()
    }

    /// A token of a user's that ends at a time, which is written in UTC and without an offset.
    pub fn short_token(&self, user: &User, ends: &str) -> String {
        let body =
            json!({"application_credential": {"name": fresh_name("short"), "expires_at": ends}});
        let path = format!("users/{}/application_credentials", user.id);
        let made = self.keystone_as(&user.token, Method::POST, &path, Some(&body));
        let made = &made["application_credential"];
        let proof = json!({"id": made["id"], "secret": made["secret"]});
        let identity =
            json!({"methods": ["application_credential"], "application_credential": proof});
        self.token(&identity, None)
    }

    /// What Barbican answers to a token that asks for a secret's payload.
    pub fn payload_status(&self, token: &str, secret: &str) -> u16 {
        let url = format!("{}/v1/secrets/{secret}/payload", self.barbican);
        let request = self.http.get(url).header("X-Auth-Token", token);
        let request = request.header("Accept", "application/octet-stream");
        request.send().expect("an answer").status().as_u16()
    }

    /// A project of its own, and a user with a role in it.
    pub fn user(&self, role: &str) -> User {
        let project_name = fresh_name("project");
        let project = json!({"project": {"name": project_name, "domain_id": "default"}});
        let project = self.admin(Method::POST, "projects", Some(&project));
        let id = text(&project["project"]["id"]);
        self.user_in(&id, &project_name, role)
    }

    /// A user with a role in a project.
    pub fn user_in(&self, project: &str, project_name: &str, role: &str) -> User {
        let (name, password) = (fresh_name("user"), fresh_name("a-password"));
        let made = json!({"user": {"name": name, "domain_id": "default", "password": password}});
        let made = self.admin(Method::POST, "users", Some(&made));
        let id = text(&made["user"]["id"]);
        let roles = self.admin(Method::GET, &format!("roles?name={role}"), None);
        let role = text(&roles["roles"][0]["id"]);
        let path = format!("projects/{project}/users/{id}/roles/{role}");
        self.admin(Method::PUT, &path, None);
        User {
            token: self.login(&name, &password, project_name),
            id,
            name,
            password,
            project: project.to_owned(),
            project_name: project_name.to_owned(),
        }
    }

    /// Sets a user's password to what it is: every token that the user has ends.
    pub fn end_tokens(&self, user: &User) {
        let body = json!({"user": {"password": user.password}});
        self.admin(Method::PATCH, &format!("users/{}", user.id), Some(&body));
    }

    /// A region of its own whose catalog has Barbican; the result is its id.
    pub fn region(&self, barbican: &str) -> String {
        let region = fresh_name("region");
        let body = json!({"region": {"id": region}});
        self.admin(Method::POST, "regions", Some(&body));
        let body = json!({"service": {"type": "key-manager", "name": "barbican"}});
        let service = self.admin(Method::POST, "services", Some(&body));
        let body = json!({"endpoint": {"service_id": service["service"]["id"],
            "interface": "public", "region_id": region, "url": barbican}});
        self.admin(Method::POST, "endpoints", Some(&body));
        region
    }

    /// Calls Keystone as the administrator.
    pub fn admin(&self, method: Method, path: &str, body: Option<&Value>) -> Value {
        self.keystone_as(&self.admin, method, path, body)
    }

    /// Calls Keystone with a token.
    pub fn keystone_as(
        &self,
        token: &str,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Value {
        let url = format!("{}/v3/{path}", self.keystone);
        done(self.send(method, &url, token, body))
    }

    /// A secret that is a master key: 256 bits for AES.
    pub fn key(&self, owner: &User) -> String {
        self.secret(owner, &json!({}))
    }

    /// A secret, as [`OpenStack::key`] makes one but for these fields; null leaves one out.
    pub fn secret(&self, owner: &User, fields: &Value) -> String {
        let mut body = json!({
            "name": "key", "secret_type": "symmetric", "algorithm": "aes", "bit_length": 256,
            "payload": PAYLOAD, "payload_content_type": "application/octet-stream",
            "payload_content_encoding": "base64",
        });
        for (name, value) in fields.as_object().expect("fields") {
            let fields = body.as_object_mut().expect("fields");
            if value.is_null() {
                fields.remove(name);
            } else {
                fields.insert(name.clone(), value.clone());
            }
        }
        let made = self.secrets(owner, Method::POST, "", Some(&body));
        let reference = text(&made["secret_ref"]);
        let id = reference.rsplit('/').next();
        id.expect("an id").to_owned()
    }

    /// Says who may read a secret, beside its project's members where `members` is true.
    pub fn let_read(&self, owner: &User, secret: &str, users: &[&User], members: bool) {
        let users: Vec<&str> = users.iter().map(|user| user.id.as_str()).collect();
        let body = json!({"read": {"users": users, "project-access": members}});
        self.secrets(owner, Method::PUT, &format!("/{secret}/acl"), Some(&body));
    }

    /// Deletes a secret.
    pub fn delete(&self, owner: &User, secret: &str) {
        self.secrets(owner, Method::DELETE, &format!("/{secret}"), None);
    }

    fn secrets(&self, user: &User, method: Method, path: &str, body: Option<&Value>) -> Value {
        let url = format!("{}/v1/secrets{path}", self.barbican);
        done(self.send(method, &url, &user.token, body))
    }

    fn send(&self, method: Method, url: &str, token: &str, body: Option<&Value>) -> Response {
        let mut request = self.http.request(method, url);
        if !token.is_empty() {
            request = request.header("X-Auth-Token", token);
        }
        if let Some(body) = body {
            request = request
                .header("Content-Type", "application/json")
                .body(body.to_string());
        }
        request.send().expect("an answer")
    }
}

/// The document of an answer that is a success; null where there is none.
fn done(answer: Response) -> Value {
    let (status, url) = (answer.status(), answer.url().clone());
    let text = answer.text().expect("a text");
    assert!(status.is_success(), "{url}: {status} {text}");
    serde_json::from_str(&text).unwrap_or_default()
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}
