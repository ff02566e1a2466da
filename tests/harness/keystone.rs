//! A Keystone as a server's identity, and what one test has in it: a region, the service's user, and the two users that
//! a server on its own would have made.
//!
//! Every test can be run on it: `CALOTYPE_TEST_IDENTITY=keystone` gives one to each server that has no other.

use std::path::Path;
use std::sync::Arc;

use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client::text;
use crate::openstack::{OpenStack, User};

/// A Keystone for a server. Cheap to clone: the clones are one.
#[derive(Clone)]
pub struct Keystone(Arc<Parts>);

struct Parts {
    openstack: OpenStack,
    /// Where the server reaches it.
    url: String,
    region: String,
    service: User,
    scope: &'static str,
    demo: User,
    admin: User,
    access_key: (String, String),
    cache_life: String,
    secrets: TempDir,
}

/// How a server uses a Keystone.
#[derive(Debug, Clone)]
pub struct Use {
    /// Where the server reaches it; none: where it is.
    pub through: Option<String>,
    /// How long answers are believed.
    pub cache_life: String,
    /// The role of the service's user: `reader` on the system, or another one in a project.
    pub role: &'static str,
}

impl Default for Use {
    fn default() -> Self {
        Self {
            through: None,
            cache_life: "60s".to_owned(),
            role: "reader",
        }
    }
}

impl std::fmt::Debug for Keystone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Keystone").field(&self.0.region).finish()
    }
}

impl Keystone {
    /// The Keystone of this run, with users of its own.
    pub fn new() -> Self {
        Self::used(Use::default())
    }

    /// The same, used otherwise.
    pub fn used(how: Use) -> Self {
        let openstack = OpenStack::connect();
        let (demo, admin) = (openstack.user("member"), openstack.user("admin"));
        let on_system = how.role == "reader";
        let service = openstack.user(match on_system {
            true => "member",
            false => how.role,
        });
        if on_system {
            let role = openstack.role(how.role);
            let path = format!("system/users/{}/roles/{role}", service.id);
            openstack.admin(Method::PUT, &path, None);
        }
        let secrets = tempfile::tempdir().expect("a directory");
        let password = secrets.path().join("password");
        std::fs::write(password, format!("{}\n", service.password)).expect("the password");
        Self(Arc::new(Parts {
            url: how
                .through
                .unwrap_or_else(|| openstack.keystone().to_owned()),
            region: openstack.new_region(),
            access_key: openstack.access_key(&demo),
            service,
            scope: if on_system { "system" } else { "project" },
            demo,
            admin,
            cache_life: how.cache_life,
            openstack,
            secrets,
        }))
    }

    /// One for every server, where the environment says so.
    pub(crate) fn of_environment() -> Option<Self> {
        let identity = std::env::var("CALOTYPE_TEST_IDENTITY").ok()?;
        match identity.as_str() {
            "keystone" => Some(Self::new()),
            "embedded" => None,
            other => panic!("CALOTYPE_TEST_IDENTITY is {other:?}"),
        }
    }

    /// Keystone itself, with its administrator.
    pub fn openstack(&self) -> &OpenStack {
        &self.0.openstack
    }

    /// The user that stands for `demo`.
    pub fn demo(&self) -> &User {
        &self.0.demo
    }

    /// The user that stands for `admin`.
    pub fn administrator(&self) -> &User {
        &self.0.admin
    }

    /// The service's own user.
    pub fn service(&self) -> &User {
        &self.0.service
    }

    /// The access key of `demo`: its id and its secret.
    pub fn access_key(&self) -> (&str, &str) {
        (&self.0.access_key.0, &self.0.access_key.1)
    }

    /// The region of the server's endpoints.
    pub fn region(&self) -> &str {
        &self.0.region
    }

    /// The configuration, as variables: a test's own file stays as it is.
    pub fn environment(&self) -> Vec<(String, String)> {
        let parts = &self.0;
        let password = parts.secrets.path().join("password").display().to_string();
        let own = |name: &str| format!("CALOTYPE_IDENTITY__KEYSTONE__{name}");
        vec![
            ("CALOTYPE_IDENTITY__TYPE".to_owned(), "keystone".to_owned()),
            ("CALOTYPE_IDENTITY__REGION".to_owned(), parts.region.clone()),
            (own("AUTH_URL"), parts.url.clone()),
            (
                own("PUBLIC_URL"),
                format!("{}/v3", parts.openstack.keystone()),
            ),
            (own("USER"), parts.service.name.clone()),
            (own("PASSWORD_FILE"), password),
            (own("SCOPE"), parts.scope.to_owned()),
            (own("PROJECT"), parts.service.project_name.clone()),
            (own("CACHE_LIFE"), parts.cache_life.clone()),
        ]
    }

    /// Makes clients find the server at this address, and writes their `clouds.yaml`.
    pub(crate) fn lead_to(&self, base: &str, data: &Path) {
        let parts = &self.0;
        let catalog = &parts.openstack;
        let endpoints = catalog.admin(
            Method::GET,
            &format!("endpoints?region_id={}", parts.region),
            None,
        );
        for endpoint in endpoints["endpoints"].as_array().into_iter().flatten() {
            let path = format!("endpoints/{}", text(&endpoint["id"]));
            catalog.admin(Method::DELETE, &path, None);
        }
        catalog.endpoint(&parts.region, "image", base);
        catalog.endpoint(&parts.region, "kms", &format!("{base}/kms/v1.0"));
        let with_project = format!("{base}/kms/v1.0/$(project_id)s");
        catalog.endpoint(&parts.region, "kmsv1", &with_project);
        // Clients that look for it here want it in their region.
        let identity = format!("{}/v3", catalog.keystone());
        catalog.endpoint(&parts.region, "identity", &identity);
        let path = data.join("clouds.yaml");
        std::fs::write(path, self.clouds()).expect("clouds.yaml");
    }

    fn clouds(&self) -> String {
        let parts = &self.0;
        let cloud = |name: &str, user: &User| {
            format!(
                "  {name}:\n    auth_type: password\n    auth:\n      auth_url: \"{}/v3\"\n      \
                 username: {}\n      password: \"{}\"\n      project_name: {}\n      \
                 user_domain_id: default\n      project_domain_id: default\n    \
                 region_name: {}\n    interface: public\n    identity_api_version: 3\n    \
                 image_api_version: 2\n",
                parts.openstack.keystone(),
                user.name,
                user.password,
                user.project_name,
                parts.region,
            )
        };
        format!(
            "clouds:\n{}{}# access_key: {}\n# secret_key: {}\n",
            cloud("calotype", &parts.demo),
            cloud("calotype-admin", &parts.admin),
            parts.access_key.0,
            parts.access_key.1
        )
    }
}

impl Default for Keystone {
    fn default() -> Self {
        Self::new()
    }
}

impl OpenStack {
    /// A role's id.
    pub fn role(&self, name: &str) -> String {
        let roles = self.admin(Method::GET, &format!("roles?name={name}"), None);
        text(&roles["roles"][0]["id"])
    }

    /// A region of its own; the result is its id.
    fn new_region(&self) -> String {
        let region = crate::engines::fresh_name("region");
        let body = json!({"region": {"id": region}});
        self.admin(Method::POST, "regions", Some(&body));
        region
    }

    /// An endpoint of a service of its own.
    fn endpoint(&self, region: &str, kind: &str, url: &str) {
        let body = json!({"service": {"type": kind, "name": kind}});
        let service = self.admin(Method::POST, "services", Some(&body));
        let body = json!({"endpoint": {"service_id": service["service"]["id"],
            "interface": "public", "region_id": region, "url": url}});
        self.admin(Method::POST, "endpoints", Some(&body));
    }

    /// So many seconds from now by Keystone's time, in UTC and without an offset.
    pub fn now_plus(&self, seconds: u64) -> String {
        let now = std::time::SystemTime::now();
        let since = now.duration_since(std::time::UNIX_EPOCH);
        let at = since.expect("a time after 1970").as_secs() + seconds;
        let date = crate::program::run("date", &["-u", "-d", &format!("@{at}"), "+%FT%T.000000"]);
        date.trim().to_owned()
    }

    /// An access key of a user's in its project: its id and its secret.
    pub fn access_key(&self, user: &User) -> (String, String) {
        let path = format!("users/{}/credentials/OS-EC2", user.id);
        let body = json!({"tenant_id": user.project});
        let made: Value = self.admin(Method::POST, &path, Some(&body));
        let made = &made["credential"];
        (text(&made["access"]), text(&made["secret"]))
    }
}
