//! The body of a login, parsed into the identity's types.

use std::net::IpAddr;

use calotype_core::id::DomainId;
use calotype_core::{Error, ErrorKind, Result};
use calotype_identity::{DomainRef, Login, ProjectRef, Proof, RequestedScope, UserRef};
use secrecy::SecretString;
use serde::Deserialize;

use super::request::body_id;

/// The domain of a user or project whose login names none.
const DEFAULT_DOMAIN: &str = "default";

#[derive(Deserialize)]
pub(super) struct LoginBody {
    auth: Auth,
}

#[derive(Deserialize)]
struct Auth {
    identity: Identity,
    scope: Option<ScopeBody>,
}

#[derive(Deserialize)]
struct Identity {
    methods: Vec<String>,
    password: Option<PasswordBody>,
    token: Option<TokenBody>,
}

#[derive(Deserialize)]
struct PasswordBody {
    user: UserBody,
}

#[derive(Deserialize)]
struct UserBody {
    id: Option<String>,
    name: Option<String>,
    domain: Option<DomainBody>,
    password: SecretString,
}

#[derive(Deserialize)]
struct TokenBody {
    id: SecretString,
}

#[derive(Deserialize)]
struct DomainBody {
    id: Option<String>,
    name: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ScopeBody {
    Word(String),
    Object(Box<ScopeObject>),
}

#[derive(Deserialize)]
struct ScopeObject {
    project: Option<ProjectBody>,
    domain: Option<DomainBody>,
    system: Option<SystemBody>,
    unscoped: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct ProjectBody {
    id: Option<String>,
    name: Option<String>,
    domain: Option<DomainBody>,
}

#[derive(Deserialize)]
struct SystemBody {
    all: bool,
}

impl LoginBody {
    pub(super) fn into_login(self, address: Option<IpAddr>) -> Result<Login> {
        let Auth { identity, scope } = self.auth;
        Ok(Login {
            proof: identity.into_proof()?,
            scope: match scope {
                None => RequestedScope::Default,
                Some(scope) => scope.into_scope()?,
            },
            address,
        })
    }
}

impl Identity {
    /// One method, and what it needs. Two would both have to hold, and nothing here asks for that.
    fn into_proof(self) -> Result<Proof> {
        let methods: Vec<&str> = self.methods.iter().map(String::as_str).collect();
        match (methods.as_slice(), self.password, self.token) {
            (["password"], Some(password), _) => {
                let user = password.user;
                let named = match (user.id, user.name) {
                    (Some(id), _) => UserRef::Id(credential_id(&id)?),
                    (None, Some(name)) => UserRef::Name(name, domain_or_default(user.domain)?),
                    (None, None) => return Err(malformed()),
                };
                Ok(Proof::Password(named, user.password))
            }
            (["token"], _, Some(token)) => Ok(Proof::Token(token.id)),
            (["password" | "token"], ..) => Err(malformed()),
            _ => Err(Error::new(
                ErrorKind::Unauthenticated,
                "Only one of the methods password and token is supported at a time.",
            )),
        }
    }
}

impl ScopeBody {
    fn into_scope(self) -> Result<RequestedScope> {
        let scope = match self {
            Self::Word(word) if word == "unscoped" => return Ok(RequestedScope::Unscoped),
            Self::Word(_) => return Err(malformed()),
            Self::Object(scope) => *scope,
        };
        match (scope.project, scope.domain, scope.system, scope.unscoped) {
            (Some(project), None, None, None) => {
                let project = match (project.id, project.name) {
                    (Some(id), _) => ProjectRef::Id(credential_id(&id)?),
                    (None, Some(name)) => {
                        ProjectRef::Name(name, domain_or_default(project.domain)?)
                    }
                    (None, None) => return Err(malformed()),
                };
                Ok(RequestedScope::Project(project))
            }
            (None, Some(domain), None, None) => Ok(RequestedScope::Domain(domain.into_ref()?)),
            (None, None, Some(SystemBody { all: true }), None) => Ok(RequestedScope::System),
            (None, None, None, Some(_)) => Ok(RequestedScope::Unscoped),
            _ => Err(malformed()),
        }
    }
}

impl DomainBody {
    fn into_ref(self) -> Result<DomainRef> {
        match (self.id, self.name) {
            (Some(id), _) => Ok(DomainRef::Id(credential_id(&id)?)),
            (None, Some(name)) => Ok(DomainRef::Name(name)),
            (None, None) => Err(malformed()),
        }
    }
}

fn domain_or_default(domain: Option<DomainBody>) -> Result<DomainRef> {
    match domain {
        Some(domain) => domain.into_ref(),
        None => Ok(DomainRef::Id(body_id::<DomainId>(DEFAULT_DOMAIN)?)),
    }
}

/// An id that can't be one is that of nobody: the login fails as every other.
fn credential_id<T: std::str::FromStr>(text: &str) -> Result<T> {
    text.parse().map_err(|_| {
        Error::new(
            ErrorKind::Unauthenticated,
            "The request you have made requires authentication.",
        )
    })
}

fn malformed() -> Error {
    Error::invalid("The login is incomplete or contradicts itself.")
}
