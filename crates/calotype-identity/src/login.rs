//! Logging in, and tokens.
//!
//! A token is 256 random bits; only its SHA-256 is stored. It holds nothing: user, project and roles are read anew
//! when it is used, so a disabled user or project or a role that was taken away ends it at once, or, on another
//! node, within the few seconds for which a good token is believed. A crash leaves a token stored whose answer
//! never arrived: nobody knows it, and it is purged when it expires.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use calotype_core::access::{Credential, Principal, Scope};
use calotype_core::app::Call;
use calotype_core::id::{DomainId, ProjectId, UserId, random_hex};
use calotype_core::ports::{DomainRecord, RoleRecord, TokenRecord, UserRecord};
use calotype_core::time::Timestamp;
use calotype_core::{Error, ErrorKind, Result};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;

use crate::embedded::{Embedded, named_domain};
use crate::throttle::Network;
use crate::{refused, sha256_hex};

/// What every token starts with, for those who search leaked text for secrets.
const PREFIX: &str = "calo_";
/// The prefix and 64 hexadecimal digits.
const TOKEN_LENGTH: usize = 69;

/// A domain, as a login names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DomainRef {
    /// By its id.
    Id(DomainId),
    /// By its name.
    Name(String),
}

/// A user, as a login names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserRef {
    /// By its id.
    Id(UserId),
    /// By its name in a domain.
    Name(String, DomainRef),
}

/// A project, as a login names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProjectRef {
    /// By its id.
    Id(ProjectId),
    /// By its name in a domain.
    Name(String, DomainRef),
}

/// What a login shows.
#[derive(Debug, Clone)]
pub enum Proof {
    /// A user's password.
    Password(UserRef, SecretString),
    /// A token that was given before.
    Token(SecretString),
}

/// What a login asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestedScope {
    /// Nothing said: the user's default project where it has one and a role in it, else no scope.
    Default,
    /// No scope.
    Unscoped,
    /// A project.
    Project(ProjectRef),
    /// A domain.
    Domain(DomainRef),
    /// The system.
    System,
}

/// A login.
#[derive(Debug, Clone)]
pub struct Login {
    /// What it shows.
    pub proof: Proof,
    /// What it asks for.
    pub scope: RequestedScope,
    /// Where it comes from, where that is known: wrong passwords are held against the address.
    pub address: Option<IpAddr>,
}

/// A token's meaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Who holds it.
    pub principal: Principal,
    /// The principal's roles.
    pub roles: Vec<RoleRecord>,
    /// The methods it was given for.
    pub methods: Vec<String>,
    /// When it was given.
    pub issued_at: Timestamp,
    /// When it ends.
    pub expires_at: Timestamp,
    /// An identifier that may be shown and logged.
    pub audit_id: String,
}

/// A token that was just given. The only time that its text is known.
pub struct Issued {
    /// The token.
    pub token: SecretString,
    /// Its meaning.
    pub session: Arc<Session>,
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued")
            .field("session", &self.session)
            .finish_non_exhaustive()
    }
}

impl Embedded {
    /// Logs in.
    ///
    /// # Errors
    /// Unauthenticated, in the same words whatever was wrong; Unavailable where too many log in at once.
    pub async fn login(&self, login: Login) -> Result<Issued> {
        let now = self.clock.now();
        let (user, domain, methods, expires_at) = match login.proof {
            Proof::Password(user, password) => {
                let network = Network::from(login.address);
                let (user, domain) = self.check_password(&user, &password, network).await?;
                let expires_at = now.plus(self.options.token_lifetime);
                (user, domain, vec!["password".to_owned()], expires_at)
            }
            Proof::Token(token) => {
                let session = self.session(&token).await?;
                let (user, domain) = self.live_user(&session.principal.user.id).await?;
                let mut methods = session.methods.clone();
                if !methods.iter().any(|method| method == "token") {
                    methods.push("token".to_owned());
                }
                // A token that was got for a token ends with it: nobody stays logged in for ever.
                (user, domain, methods, session.expires_at)
            }
        };
        let scope = self.resolve_scope(&user, login.scope).await?;
        let (principal, roles) = self
            .principal(user, domain, scope, Credential::Token(expires_at))
            .await?;
        let session = Arc::new(Session {
            principal,
            roles,
            methods,
            issued_at: now,
            expires_at,
            audit_id: random_hex(self.entropy.as_ref()),
        });
        let token = self.fresh_token(PREFIX);
        let record = TokenRecord {
            hash: sha256_hex(token.expose_secret().as_bytes()),
            user: session.principal.user.id.clone(),
            scope: session.principal.scope.clone(),
            methods: session.methods.clone(),
            issued_at: now,
            expires_at,
            audit_id: session.audit_id.clone(),
        };
        self.directory.insert_token(&record).await?;
        Ok(Issued { token, session })
    }

    /// What a token means now.
    ///
    /// # Errors
    /// Unauthenticated where it means nothing (any more).
    pub async fn session(&self, token: &SecretString) -> Result<Arc<Session>> {
        let hash = token_hash(token)?;
        let read_at = self.read_at();
        if let Some(session) = self.believed(&hash, read_at) {
            return Ok(session);
        }
        let record = self.directory.token(&hash).await?;
        let record = record
            .filter(|record| self.clock.now() < record.expires_at)
            .ok_or_else(|| refused("the token is unknown or expired"))?;
        let (user, domain) = self.live_user(&record.user).await?;
        let scope = self.scope_now(&record.scope).await?;
        let credential = Credential::Token(record.expires_at);
        let (principal, roles) = self.principal(user, domain, scope, credential).await?;
        let session = Arc::new(Session {
            principal,
            roles,
            methods: record.methods,
            issued_at: record.issued_at,
            expires_at: record.expires_at,
            audit_id: record.audit_id,
        });
        self.believe(&hash, read_at, &session);
        Ok(session)
    }

    /// What a token means now, for its own user or an administrator.
    ///
    /// # Errors
    /// NotFound where it means nothing (any more); Forbidden where it is another's and the caller administers nothing.
    pub async fn subject(&self, call: &Call, token: &SecretString) -> Result<Arc<Session>> {
        let session = self.session(token).await.map_err(|error| {
            if error.kind() == ErrorKind::Unauthenticated {
                Error::not_found("The token could not be found.")
            } else {
                error
            }
        })?;
        if session.principal.user.id != call.principal.user.id {
            self.administrator(call)?;
        }
        Ok(session)
    }

    /// Revokes a token of the caller's own, or, by an administrator, another's. Only the latter is in the audit trail:
    /// the former is a logout.
    ///
    /// # Errors
    /// As [`Self::subject`].
    pub async fn revoke(&self, call: &Call, token: &SecretString) -> Result<()> {
        let session = self.subject(call, token).await?;
        let user = &session.principal.user.id;
        let line = (user != &call.principal.user.id).then(|| {
            self.line(
                call,
                "revokeToken",
                &session.audit_id,
                json!({ "user": user }),
            )
        });
        self.directory
            .revoke_token(&token_hash(token)?, line.as_ref())
            .await?;
        self.doubt_all();
        Ok(())
    }

    /// 256 random bits, behind a prefix.
    pub(crate) fn fresh_token(&self, prefix: &str) -> SecretString {
        let mut bits = zeroize::Zeroizing::new([0; 32]);
        self.entropy.fill(bits.as_mut_slice());
        let digits = zeroize::Zeroizing::new(hex::encode(bits.as_slice()));
        SecretString::from([prefix, &digits].concat())
    }

    async fn check_password(
        &self,
        user: &UserRef,
        password: &SecretString,
        network: Network,
    ) -> Result<(UserRecord, DomainRecord)> {
        let record = self.find_user(user).await?;
        // Unknown users are throttled too, by what was asked for: a closed door does not tell who exists.
        let door = match (&record, user) {
            (Some(record), _) => record.id.as_str().to_owned(),
            (None, user) => sha256_hex(format!("{user:?}").as_bytes()),
        };
        if self.throttle.is_closed(&door, network, self.clock.now()) {
            return Err(refused("too many wrong passwords"));
        }
        let hash = record
            .as_ref()
            .and_then(|record| record.password_hash.as_deref());
        let right = self.passwords.verify(password, hash).await?;
        let now = self.clock.now();
        // Again: others may have guessed wrong while this one waited for its turn.
        if self.throttle.is_closed(&door, network, now) {
            return Err(refused("too many wrong passwords"));
        }
        match record {
            Some(record) if right => {
                self.throttle.succeeded(&door, network);
                self.live_user(&record.id).await
            }
            _ => {
                self.throttle.failed(&door, network, now);
                Err(refused("unknown user or wrong password"))
            }
        }
    }

    async fn find_user(&self, user: &UserRef) -> Result<Option<UserRecord>> {
        match user {
            UserRef::Id(id) => self.directory.user(id).await,
            UserRef::Name(name, domain) => {
                let Some(domain) = self.find_domain(domain).await? else {
                    return Ok(None);
                };
                let users = self.directory.users(Some(name), Some(&domain.id)).await?;
                Ok(users.into_iter().next())
            }
        }
    }

    async fn find_domain(&self, domain: &DomainRef) -> Result<Option<DomainRecord>> {
        match domain {
            DomainRef::Id(id) => self.directory.domain(id).await,
            DomainRef::Name(name) => {
                let domains = self.directory.domains(Some(name)).await?;
                Ok(domains.into_iter().next())
            }
        }
    }

    async fn resolve_scope(&self, user: &UserRecord, wanted: RequestedScope) -> Result<Scope> {
        match wanted {
            RequestedScope::Unscoped => Ok(Scope::Unscoped),
            RequestedScope::System => Ok(Scope::System),
            RequestedScope::Domain(domain) => {
                let domain = self.find_domain(&domain).await?;
                let domain = domain.ok_or_else(|| refused("the domain is unknown"))?;
                let domain = self.live_domain(&domain.id).await?;
                Ok(Scope::Domain(named_domain(domain)))
            }
            RequestedScope::Project(ProjectRef::Id(id)) => self.project_scope(&id).await,
            RequestedScope::Project(ProjectRef::Name(name, domain)) => {
                let domain = self.find_domain(&domain).await?;
                let domain = domain.ok_or_else(|| refused("the project's domain is unknown"))?;
                let projects = self
                    .directory
                    .projects(Some(&name), Some(&domain.id))
                    .await?;
                let project = projects.into_iter().next();
                let project = project.ok_or_else(|| refused("the project is unknown"))?;
                self.project_scope(&project.id).await
            }
            RequestedScope::Default => self.default_scope(user).await,
        }
    }

    /// The default project, where the user can work in it.
    async fn default_scope(&self, user: &UserRecord) -> Result<Scope> {
        let Some(wanted) = &user.default_project else {
            return Ok(Scope::Unscoped);
        };
        let projects = self.directory.projects_of(&user.id).await?;
        if projects.iter().any(|project| &project.id == wanted) {
            self.project_scope(wanted).await
        } else {
            Ok(Scope::Unscoped)
        }
    }
}

/// The hash under which a token is stored. What can't be a token is refused before it is hashed.
pub(crate) fn token_hash(token: &SecretString) -> Result<String> {
    let text = token.expose_secret();
    if text.len() != TOKEN_LENGTH || !text.starts_with(PREFIX) {
        return Err(refused("the token has not the form of one"));
    }
    Ok(sha256_hex(text.as_bytes()))
}
