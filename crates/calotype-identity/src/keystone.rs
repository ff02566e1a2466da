//! The documents of the Keystone v3 API (the Identity API's reference; the fields that clients demand are in the
//! compatibility notes). Pure functions: `base` is the service's public URL without a trailing slash.

use calotype_core::access::Scope;
use calotype_core::id::ProjectId;
use calotype_core::ports::{AccessKey, DomainRecord, ProjectRecord, RoleRecord, UserRecord};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use crate::access_keys::{NewAccessKey, NewTemporaryKey};
use crate::login::Session;

/// The versions document of `GET /identity/`.
pub fn versions(base: &str) -> Value {
    json!({ "versions": { "values": [v3(base)] } })
}

/// The version document of `GET /identity/v3`.
pub fn version(base: &str) -> Value {
    json!({ "version": v3(base) })
}

fn v3(base: &str) -> Value {
    json!({
        "id": "v3.14",
        "status": "stable",
        "updated": "2020-04-07T00:00:00Z",
        "links": [{ "rel": "self", "href": format!("{base}/identity/v3/") }],
        "media-types": [{
            "base": "application/json",
            "type": "application/vnd.openstack.identity-v3+json",
        }],
    })
}

/// The token document: the answer to a login and to a validation.
pub fn token(session: &Session, base: &str, region: &str, with_catalog: bool) -> Value {
    let principal = &session.principal;
    let mut token = json!({
        "methods": session.methods,
        "user": {
            "id": principal.user.id,
            "name": principal.user.name,
            "domain": principal.user_domain,
            "password_expires_at": null,
        },
        "audit_ids": [session.audit_id],
        "issued_at": session.issued_at.to_micros_text(),
        "expires_at": session.expires_at.to_micros_text(),
    });
    let Some(fields) = token.as_object_mut() else {
        return token;
    };
    match &principal.scope {
        Scope::Project(scope) => {
            let project = json!({
                "id": scope.project.id,
                "name": scope.project.name,
                "domain": scope.domain,
            });
            fields.insert("project".to_owned(), project);
            fields.insert("is_domain".to_owned(), json!(false));
        }
        Scope::Domain(domain) => {
            fields.insert("domain".to_owned(), json!(domain));
        }
        Scope::System => {
            fields.insert("system".to_owned(), json!({ "all": true }));
        }
        Scope::Unscoped => return json!({ "token": token }),
    }
    let roles: Vec<Value> = session
        .roles
        .iter()
        .map(|role| json!({ "id": role.id, "name": role.name }))
        .collect();
    fields.insert("roles".to_owned(), Value::Array(roles));
    if with_catalog {
        let services = services(base, region, principal.project());
        fields.insert("catalog".to_owned(), services);
    }
    json!({ "token": token })
}

/// The catalog document of `GET /identity/v3/auth/catalog`, for a caller who acts in a project, or in none.
pub fn catalog(base: &str, region: &str, project: Option<&ProjectId>) -> Value {
    json!({
        "catalog": services(base, region, project),
        "links": { "self": format!("{base}/identity/v3/auth/catalog"), "previous": null, "next": null },
    })
}

/// The services. The image endpoint is the root without a version and without a slash: clients append both. The key
/// management service stands there twice, as at OTC: some clients append the project's id, and some want it there.
fn services(base: &str, region: &str, project: Option<&ProjectId>) -> Value {
    let kms = format!("{base}/kms/v1.0");
    let mut services = vec![
        service(
            region,
            "identity",
            "keystone",
            &format!("{base}/identity/v3"),
        ),
        service(region, "image", "calotype", base),
        service(region, "kms", "kms", &kms),
    ];
    if let Some(project) = project {
        let url = format!("{kms}/{project}");
        services.push(service(region, "kmsv1", "kmsv1", &url));
    }
    Value::Array(services)
}

fn service(region: &str, kind: &str, name: &str, url: &str) -> Value {
    let endpoints: Vec<Value> = ["public", "internal", "admin"]
        .iter()
        .map(|interface| {
            json!({
                "id": stable_id(&[kind, interface]),
                "interface": interface,
                "region": region,
                "region_id": region,
                "url": url,
            })
        })
        .collect();
    json!({ "id": stable_id(&[kind]), "type": kind, "name": name, "endpoints": endpoints })
}

/// An id of 32 hexadecimal digits that is the same after every start and on every node.
fn stable_id(parts: &[&str]) -> String {
    let mut id = crate::sha256_hex(parts.join("/").as_bytes());
    id.truncate(32);
    id
}

/// One project.
pub fn project(project: &ProjectRecord, base: &str) -> Value {
    json!({ "project": project_fields(project, base) })
}

/// A list of projects; `path` is that of the request, below `/identity/v3/`.
pub fn projects(projects: &[ProjectRecord], base: &str, path: &str) -> Value {
    let projects = projects.iter().map(|project| project_fields(project, base));
    list("projects", projects.collect(), base, path)
}

fn project_fields(project: &ProjectRecord, base: &str) -> Value {
    json!({
        "id": project.id,
        "name": project.name,
        "domain_id": project.domain,
        "description": project.description,
        "enabled": project.enabled,
        "parent_id": project.domain,
        "is_domain": false,
        "tags": [],
        "options": {},
        "links": self_link(base, "projects", project.id.as_str()),
    })
}

/// One domain.
pub fn domain(domain: &DomainRecord, base: &str) -> Value {
    json!({ "domain": domain_fields(domain, base) })
}

/// A list of domains; `path` is that of the request, below `/identity/v3/`.
pub fn domains(domains: &[DomainRecord], base: &str, path: &str) -> Value {
    let domains = domains.iter().map(|domain| domain_fields(domain, base));
    list("domains", domains.collect(), base, path)
}

fn domain_fields(domain: &DomainRecord, base: &str) -> Value {
    json!({
        "id": domain.id,
        "name": domain.name,
        "description": "",
        "enabled": domain.enabled,
        "tags": [],
        "options": {},
        "links": self_link(base, "domains", domain.id.as_str()),
    })
}

/// One user.
pub fn user(user: &UserRecord, base: &str) -> Value {
    json!({ "user": user_fields(user, base) })
}

/// A list of users.
pub fn users(users: &[UserRecord], base: &str) -> Value {
    let users = users.iter().map(|user| user_fields(user, base));
    list("users", users.collect(), base, "users")
}

fn user_fields(user: &UserRecord, base: &str) -> Value {
    let mut fields = json!({
        "id": user.id,
        "name": user.name,
        "domain_id": user.domain,
        "enabled": user.enabled,
        "password_expires_at": null,
        "options": {},
        "links": self_link(base, "users", user.id.as_str()),
    });
    if let (Some(project), Some(fields)) = (&user.default_project, fields.as_object_mut()) {
        fields.insert("default_project_id".to_owned(), json!(project));
    }
    fields
}

/// A role.
pub fn role(role: &RoleRecord, base: &str) -> Value {
    json!({ "role": role_fields(role, base) })
}

/// A list of roles, which stands at `path`.
pub fn roles(roles: &[RoleRecord], base: &str, path: &str) -> Value {
    let roles = roles.iter().map(|role| role_fields(role, base));
    list("roles", roles.collect(), base, path)
}

fn role_fields(role: &RoleRecord, base: &str) -> Value {
    json!({
        "id": role.id,
        "name": role.name,
        "domain_id": null,
        "description": null,
        "options": {},
        "links": self_link(base, "roles", role.id.as_str()),
    })
}

/// An access key that was just made, in the form of EC2 credentials, with its secret.
pub fn new_credential(key: &NewAccessKey, base: &str) -> Value {
    let credential = credential_fields(
        &key.access,
        Some(key.secret.expose_secret()),
        key.user.as_str(),
        key.project.as_ref(),
        true,
        base,
    );
    json!({ "credential": credential })
}

/// A temporary access key that was just made, in OTC's form, with its secrets.
pub fn temporary_credential(key: &NewTemporaryKey) -> Value {
    json!({
        "credential": {
            "access": key.access,
            "secret": key.secret.expose_secret(),
            "securitytoken": key.security_token.expose_secret(),
            "expires_at": key.expires_at.to_micros_text(),
        },
    })
}

/// One access key, in the form of EC2 credentials. Its secret is not shown again.
pub fn credential(key: &AccessKey, base: &str) -> Value {
    json!({ "credential": known_credential(key, base) })
}

/// Access keys, in the form of EC2 credentials. Their secrets are not shown again.
pub fn credentials(keys: &[AccessKey], base: &str, user: &str) -> Value {
    let path = format!("users/{user}/credentials/OS-EC2");
    let credentials = keys.iter().map(|key| known_credential(key, base)).collect();
    list("credentials", credentials, base, &path)
}

fn known_credential(key: &AccessKey, base: &str) -> Value {
    credential_fields(
        &key.access,
        None,
        key.user.as_str(),
        key.project.as_ref(),
        key.enabled,
        base,
    )
}

fn credential_fields(
    access: &str,
    secret: Option<&str>,
    user: &str,
    project: Option<&ProjectId>,
    enabled: bool,
    base: &str,
) -> Value {
    let link = format!("{base}/identity/v3/users/{user}/credentials/OS-EC2/{access}");
    json!({
        "access": access,
        "secret": secret,
        "user_id": user,
        "tenant_id": project,
        "trust_id": null,
        "enabled": enabled,
        "links": { "self": link },
    })
}

fn self_link(base: &str, collection: &str, id: &str) -> Value {
    json!({ "self": format!("{base}/identity/v3/{collection}/{id}") })
}

fn list(name: &str, items: Vec<Value>, base: &str, path: &str) -> Value {
    let links = json!({
        "self": format!("{base}/identity/v3/{path}"),
        "previous": null,
        "next": null,
    });
    let mut document = serde_json::Map::new();
    document.insert(name.to_owned(), Value::Array(items));
    document.insert("links".to_owned(), links);
    Value::Object(document)
}
