//! Which cloud the command line speaks to: `clouds.yaml`, `secure.yaml` and `OS_*` variables, as the
//! OpenStack tools read them; and the file that the service writes for its first user.
//!
//! Order, later wins: the cloud of the file, the same cloud of `secure.yaml` beside it, `OS_*`
//! variables. Where no file is found, `./calotype-data/clouds.yaml` is taken.

mod write;

use std::path::{Path, PathBuf};

use secrecy::SecretString;
use serde_json::{Map, Value};

use crate::config::Environment;
use crate::exit::{Exit, Failure};

pub(crate) use write::{FirstUsers, write_clouds_yaml};

/// How to reach a service, and as whom.
#[derive(Debug, Clone)]
pub(crate) struct Cloud {
    /// Keystone's address, with or without `/v3`.
    pub(crate) auth_url: String,
    /// Who calls.
    pub(crate) login: Login,
    /// What the token is for.
    pub(crate) scope: Scope,
    /// The region whose endpoint is taken. None: the catalog's first.
    pub(crate) region: Option<String>,
    /// `public`, `internal` or `admin`.
    pub(crate) interface: String,
    /// The image service's address, instead of the catalog's.
    pub(crate) image_endpoint: Option<String>,
    /// Certificates to trust, in PEM.
    pub(crate) ca_file: Option<PathBuf>,
    /// Whether the server's certificate is checked.
    pub(crate) verify: bool,
}

/// Who calls.
#[derive(Debug, Clone)]
pub(crate) enum Login {
    /// A user and its password.
    Password {
        /// The user.
        user: Named,
        /// The password.
        password: SecretString,
    },
    /// A token that exists.
    Token(SecretString),
}

/// A user or project by id, or by name within a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Named {
    /// By id.
    Id(String),
    /// By name.
    Name {
        /// The name.
        name: String,
        /// The domain.
        domain: Domain,
    },
}

/// A domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Domain {
    /// By id.
    Id(String),
    /// By name.
    Name(String),
}

/// What a token is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Scope {
    /// A project.
    Project(Named),
    /// Whatever the user's default is, or the given token's own.
    Unsaid,
}

/// Flags that choose the cloud.
#[derive(Debug, Clone, Default)]
pub(crate) struct Choice<'a> {
    /// `--os-cloud`.
    pub(crate) cloud: Option<&'a str>,
}

/// Finds the cloud that `choice`, `environment` and the files under `here` (the working directory)
/// name.
///
/// # Errors
/// A usage failure: no cloud is configured, the one that is named does not exist, or it lacks
/// something. Never shows a secret.
pub(crate) fn find(
    choice: &Choice<'_>,
    environment: &Environment,
    here: &Path,
) -> Result<Cloud, Failure> {
    let name = choice.cloud.or_else(|| environment.get("OS_CLOUD"));
    let mut settings = Map::new();
    match config_file(environment, here) {
        Some((path, fallback)) => {
            // Variables alone are enough to log in: then the service's own file stays out of it.
            let variables_suffice = name.is_none() && environment.get("OS_AUTH_URL").is_some();
            if !variables_suffice {
                settings = cloud_of(&path, environment, name, fallback)?;
            }
        }
        None if name.is_some() => {
            return Err(Failure::usage(format!(
                "cloud {:?} is asked for, but there is no clouds.yaml",
                name.unwrap_or_default()
            ))
            .with_hint("set OS_CLIENT_CONFIG_FILE, or run where ./clouds.yaml is"));
        }
        None => {}
    }
    overlay(&mut settings, environment);
    cloud(&settings)
}

/// The first file that exists, and whether it is the fallback.
fn config_file(environment: &Environment, here: &Path) -> Option<(PathBuf, bool)> {
    if let Some(path) = environment.get("OS_CLIENT_CONFIG_FILE") {
        return Some((PathBuf::from(path), false));
    }
    let config_home = environment
        .get("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| {
            environment
                .get("HOME")
                .map(|home| Path::new(home).join(".config"))
        });
    let usual = [
        Some(here.to_path_buf()),
        config_home.map(|c| c.join("openstack")),
    ]
    .into_iter()
    .flatten()
    .chain([PathBuf::from("/etc/openstack")]);
    for directory in usual {
        for name in ["clouds.yaml", "clouds.yml"] {
            let path = directory.join(name);
            if path.is_file() {
                return Some((path, false));
            }
        }
    }
    let own = here.join("calotype-data").join("clouds.yaml");
    own.is_file().then_some((own, true))
}

fn cloud_of(
    path: &Path,
    environment: &Environment,
    name: Option<&str>,
    fallback: bool,
) -> Result<Map<String, Value>, Failure> {
    let clouds = clouds_in(path)?;
    let name = match name {
        Some(name) => name.to_owned(),
        None if fallback => "calotype".to_owned(),
        None if clouds.len() == 1 => clouds.keys().next().cloned().unwrap_or_default(),
        // As os-client-config: where none is named, the one called so.
        None if clouds.contains_key("openstack") => "openstack".to_owned(),
        None => {
            return Err(Failure::usage(format!(
                "{} has several clouds: {}",
                path.display(),
                names(&clouds)
            ))
            .with_hint("choose one with --os-cloud or OS_CLOUD"));
        }
    };
    let Some(Value::Object(mut settings)) = clouds.get(&name).cloned() else {
        return Err(Failure::usage(format!(
            "{} has no cloud {name:?}, only: {}",
            path.display(),
            names(&clouds)
        ))
        .with_exit(Exit::Usage));
    };
    let secure = environment
        .get("OS_CLIENT_SECURE_FILE")
        .map_or_else(|| path.with_file_name("secure.yaml"), PathBuf::from);
    if secure.is_file()
        && let Some(Value::Object(secret)) = clouds_in(&secure)?.remove(&name)
    {
        merge(&mut settings, secret);
    }
    Ok(settings)
}

fn clouds_in(path: &Path) -> Result<Map<String, Value>, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
    let mut document: Value = serde_saphyr::from_str(&text).map_err(|error| {
        // The parser's own text quotes the lines around: they can hold a password.
        let place = error
            .location()
            .map(|at| format!(" at line {}, column {}", at.line(), at.column()))
            .unwrap_or_default();
        Failure::usage(format!("{}: no valid YAML{place}", path.display()))
    })?;
    match document.get_mut("clouds").map(Value::take) {
        Some(Value::Object(clouds)) => Ok(clouds),
        _ => Err(Failure::usage(format!(
            "{}: no \"clouds\" in it",
            path.display()
        ))),
    }
}

fn names(clouds: &Map<String, Value>) -> String {
    clouds
        .keys()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(", ")
}

/// Puts `over` on `base`, section by section.
fn merge(base: &mut Map<String, Value>, over: Map<String, Value>) {
    for (name, value) in over {
        match (base.get_mut(&name), value) {
            (Some(Value::Object(old)), Value::Object(new)) => merge(old, new),
            (_, value) => {
                base.insert(name, value);
            }
        }
    }
}

/// The variables that the OpenStack tools know, and where each belongs.
const VARIABLES: [(&str, &str, bool); 18] = [
    ("OS_AUTH_URL", "auth_url", true),
    ("OS_USERNAME", "username", true),
    ("OS_USER_ID", "user_id", true),
    ("OS_PASSWORD", "password", true),
    ("OS_TOKEN", "token", true),
    ("OS_PROJECT_NAME", "project_name", true),
    ("OS_PROJECT_ID", "project_id", true),
    ("OS_USER_DOMAIN_NAME", "user_domain_name", true),
    ("OS_USER_DOMAIN_ID", "user_domain_id", true),
    ("OS_PROJECT_DOMAIN_NAME", "project_domain_name", true),
    ("OS_PROJECT_DOMAIN_ID", "project_domain_id", true),
    ("OS_REGION_NAME", "region_name", false),
    ("OS_INTERFACE", "interface", false),
    ("OS_ENDPOINT_TYPE", "interface", false),
    ("OS_CACERT", "cacert", false),
    ("OS_AUTH_TYPE", "auth_type", false),
    ("OS_ENDPOINT_OVERRIDE", "image_endpoint_override", false),
    (
        "OS_IMAGE_ENDPOINT_OVERRIDE",
        "image_endpoint_override",
        false,
    ),
];

fn overlay(settings: &mut Map<String, Value>, environment: &Environment) {
    for (variable, name, in_auth) in VARIABLES {
        let Some(value) = environment.get(variable) else {
            continue;
        };
        let value = Value::String(value.to_owned());
        if in_auth {
            let auth = settings
                .entry("auth")
                .or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(auth) = auth {
                // A name takes the place of the file's id, and the other way round.
                if let Some(other) = other_form(name) {
                    auth.remove(other);
                }
                auth.insert(name.to_owned(), value);
            }
        } else {
            settings.insert(name.to_owned(), value);
        }
    }
}

fn other_form(name: &str) -> Option<&'static str> {
    Some(match name {
        "username" => "user_id",
        "project_name" => "project_id",
        "user_domain_name" => "user_domain_id",
        "project_domain_name" => "project_domain_id",
        _ => return None,
    })
}

fn cloud(settings: &Map<String, Value>) -> Result<Cloud, Failure> {
    let auth = settings.get("auth").and_then(Value::as_object);
    let in_auth = |name: &str| {
        auth.and_then(|auth| text(auth, name))
            .or_else(|| text(settings, name))
    };
    let auth_url = in_auth("auth_url").ok_or_else(|| {
        Failure::usage("no service is configured: no auth_url")
            .with_hint("give --os-cloud, OS_CLOUD or OS_AUTH_URL; `calotype serve` writes calotype-data/clouds.yaml")
    })?;
    let domain = |of: &str| {
        in_auth(&format!("{of}_domain_id"))
            .or_else(|| in_auth("domain_id"))
            .or_else(|| in_auth("default_domain_id"))
            .map(Domain::Id)
            .or_else(|| {
                in_auth(&format!("{of}_domain_name"))
                    .or_else(|| in_auth("domain_name"))
                    .map(Domain::Name)
            })
            .unwrap_or_else(|| Domain::Id("default".to_owned()))
    };
    let named = |id: Option<String>, name: Option<String>, of: &str| {
        id.map(Named::Id).or_else(|| {
            name.map(|name| Named::Name {
                name,
                domain: domain(of),
            })
        })
    };
    let login = match in_auth("token") {
        Some(token) => Login::Token(token.into()),
        None => {
            let user = named(in_auth("user_id"), in_auth("username"), "user");
            let user = user.ok_or_else(|| Failure::usage("no user: set OS_USERNAME"))?;
            let password = in_auth("password")
                .ok_or_else(|| Failure::usage("no password: set OS_PASSWORD"))?;
            Login::Password {
                user,
                password: password.into(),
            }
        }
    };
    let project = named(
        in_auth("project_id").or_else(|| in_auth("tenant_id")),
        in_auth("project_name").or_else(|| in_auth("tenant_name")),
        "project",
    );
    let setting = |name: &str| text(settings, name);
    Ok(Cloud {
        auth_url: auth_url.trim_end_matches('/').to_owned(),
        login,
        scope: project.map_or(Scope::Unsaid, Scope::Project),
        region: setting("region_name"),
        interface: setting("interface")
            .map(|name| name.trim_end_matches("URL").to_owned())
            .unwrap_or_else(|| "public".to_owned()),
        image_endpoint: setting("image_endpoint_override"),
        ca_file: setting("cacert").map(PathBuf::from),
        verify: settings
            .get("verify")
            .and_then(Value::as_bool)
            .unwrap_or(true),
    })
}

/// A scalar as text: YAML makes numbers of unquoted ids and passwords.
fn text(settings: &Map<String, Value>, name: &str) -> Option<String> {
    match settings.get(name)? {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
