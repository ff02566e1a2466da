//! Identity elsewhere: users, projects and roles are a Keystone's, which is asked about each credential.
//!
//! # Guarantees
//! What Keystone said is believed for the cache's life and not longer ([`remembered`]): within it a revoked token, a
//! disabled user or a role that was taken away may still count, and while Keystone is away those who were known go on.
//! Everybody else then gets Unavailable: nobody is let in unasked. Nothing is written anywhere.
//!
//! # What is not read
//! `X-Service-Token`: a token that has ended is refused, whoever vouches for it. What only the middleware before other
//! services would set (`X-User-Id`, `X-Roles`). An application credential's access rules: Keystone itself refuses their
//! tokens to a service that does not say that it knows them.

mod access_key;
mod ask;
mod remembered;
mod token;

use std::sync::Arc;
use std::time::Duration;

use calotype_core::access::Principal;
use calotype_core::id::ProjectId;
use calotype_core::ports::{Clock, Entropy, Projects};
use calotype_core::{ErrorKind, Result};
use calotype_remote::{Connection, Login};
use http::HeaderMap;
use http::request::Parts;
use secrecy::ExposeSecret as _;
use serde::Deserialize;

use crate::authenticate::{BodyDigest, as_forbidden, the_only, verify};
use crate::refused;
use crate::signature::SignedRequest;

use access_key::KeyHolder;
use ask::{Asked, Found, Read};
use remembered::{Remembered, Told};

/// Credentials that Keystone was asked about, by what and by outcome.
const VALIDATIONS: &str = "calotype_keystone_validations_total";
/// How long that took.
const DURATION: &str = "calotype_keystone_validation_duration_seconds";
/// Credentials that were known.
const CACHE_HITS: &str = "calotype_keystone_cache_hits_total";

/// The longest token, in bytes. Keystone's own have a few hundred.
const LONGEST_TOKEN: usize = 4096;

/// How long readiness waits for the first login.
const FIRST_LOGIN: Duration = Duration::from_secs(2);

/// A Keystone, and how it is used.
#[derive(Debug, Clone)]
pub struct KeystoneOptions {
    /// The service's user there: it needs the role `service`; to look access keys and projects up, `admin` in its project
    /// or `reader` on the system.
    pub login: Login,
    /// How it is reached.
    pub connection: Connection,
    /// The URL that clients are told to log in at; none: that of the login.
    pub public_url: Option<String>,
    /// How long an answer is believed.
    pub cache_life: Duration,
    /// How many credentials are remembered, of each kind.
    pub cache_size: u64,
}

/// The identity of a Keystone.
pub struct Keystone {
    asked: Arc<Asked>,
    public_url: String,
    clock: Arc<dyn Clock>,
    tokens: Remembered<Principal>,
    access_keys: Remembered<KeyHolder>,
    projects: Remembered<bool>,
}

/// How the identity stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It answers.
    Whole,
    /// It did not when it was last asked: those who are known can work.
    KnownOnly,
}

impl Keystone {
    /// A Keystone. Nothing is asked of it yet.
    ///
    /// # Errors
    /// InvalidRequest where an option is none that can work.
    pub fn new(
        options: KeystoneOptions,
        entropy: &Arc<dyn Entropy>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        let (login, connection) = (options.login.clone(), &options.connection);
        let asked = Asked::new(login, connection, entropy, Arc::clone(&clock))?;
        Ok(Self::of(asked, options, entropy, clock))
    }

    fn of(
        asked: Asked,
        options: KeystoneOptions,
        entropy: &Arc<dyn Entropy>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let (life, room) = (options.cache_life, options.cache_size);
        let own = || asked.url().to_owned();
        Self {
            public_url: options.public_url.unwrap_or_else(own),
            asked: Arc::new(asked),
            tokens: remembered("token", life, room, entropy, &clock),
            access_keys: remembered("access_key", life, room, entropy, &clock),
            projects: remembered("project", life, room, entropy, &clock),
            clock,
        }
    }

    /// Where clients log in.
    pub fn public_url(&self) -> &str {
        &self.public_url
    }

    /// How the identity stands.
    ///
    /// # Errors
    /// Unavailable where Keystone has never let the service in: then nobody can be known.
    pub async fn standing(&self) -> Result<Standing> {
        self.standing_within(FIRST_LOGIN).await
    }

    /// As [`Keystone::standing`], where somebody waits so long for the first login.
    ///
    /// # Errors
    /// As there.
    pub async fn standing_within(&self, patience: Duration) -> Result<Standing> {
        self.asked.meet(patience).await?;
        Ok(match self.asked.is_away() {
            true => Standing::KnownOnly,
            false => Standing::Whole,
        })
    }

    /// Who is calling.
    ///
    /// # Errors
    /// Unauthenticated where the credential is missing or not good; Forbidden where a signed request asks for another
    /// scope than its key's; Unavailable where Keystone is away and the credential is not known.
    pub async fn authenticate(
        &self,
        parts: &Parts,
        body: &mut dyn BodyDigest,
    ) -> Result<Principal> {
        if let Some(token) = the_only(&parts.headers, "x-auth-token")? {
            return self.by_token(&token).await;
        }
        if SignedRequest::is_claimed(&parts.headers) {
            return self.by_signature(parts, body).await;
        }
        Err(refused("the request carries no credential"))
    }

    async fn by_token(&self, token: &str) -> Result<Principal> {
        let is_plain = token.bytes().all(|byte| byte.is_ascii_graphic());
        if token.is_empty() || token.len() > LONGEST_TOKEN || !is_plain {
            return Err(refused("the token has not the form of one"));
        }
        let principal = self.tokens.get(token, self.validate(token)).await?;
        Ok(principal.as_ref().clone())
    }

    async fn validate(&self, token: &str) -> Result<Told<Principal>> {
        let path = "auth/tokens?nocatalog";
        let deadline = self.asked.deadline();
        let answer = match self.asked.get(path, Some(token), deadline).await? {
            Found::Document(answer) => answer,
            Found::Missing => return Ok(Told::Refused("Keystone knows no such token")),
            Found::NotPermitted => {
                tracing::error!(
                    "Keystone does not let the service's user validate tokens: it lacks the role service"
                );
                return Err(self.asked.not_understood());
            }
        };
        let document: token::Document = self.asked.parsed(&answer)?;
        match document.meaning() {
            Ok(meaning) => {
                let left = meaning.expires_at.since(self.asked.time_of(&answer));
                Ok(Told::Good(meaning.principal, Some(left)))
            }
            Err(reason) => {
                tracing::warn!(reason, "a token that is good to Keystone is not taken");
                Ok(Told::Refused(reason))
            }
        }
    }

    async fn by_signature(&self, parts: &Parts, body: &mut dyn BodyDigest) -> Result<Principal> {
        let signed = SignedRequest::parse(&parts.method, &parts.uri, &parts.headers)?;
        signed.check_time(self.clock.now())?;
        if asked_for(&parts.headers, "x-security-token")?.is_some() {
            return Err(refused("a security token came where there are none"));
        }
        let access = signed.access();
        let look_up = access_key::look_up(&self.asked, access, self.asked.deadline());
        let holder = self.access_keys.get(access, look_up).await?;
        verify(&signed, holder.secret.expose_secret().as_bytes(), body).await?;
        check_scope(&parts.headers, &holder.principal)?;
        Ok(holder.principal.clone())
    }

    /// Whether there is such a project. Where the service's user may not know, there is: an id that nobody has shares an
    /// image with nobody.
    async fn look_at_project(&self, project: &ProjectId) -> Result<Told<bool>> {
        #[derive(Deserialize)]
        struct Document {
            project: Body,
        }
        #[derive(Deserialize)]
        struct Body {
            enabled: bool,
        }
        let path = format!("projects/{project}");
        let deadline = self.asked.deadline();
        let is_live = match self.asked.read::<Document>(&path, deadline).await? {
            Read::Document(document) => document.project.enabled,
            Read::Missing => return Ok(Told::Refused("there is no such project")),
            Read::NotPermitted => true,
        };
        Ok(Told::Good(is_live, None))
    }
}

#[async_trait::async_trait]
impl Projects for Keystone {
    async fn is_live(&self, project: &ProjectId) -> Result<bool> {
        let look = self.look_at_project(project);
        match self.projects.get(project.as_str(), look).await {
            Ok(is_live) => Ok(*is_live),
            Err(error) if error.kind() == ErrorKind::Unauthenticated => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Tells the metrics' meaning to the recorder that is installed. Called once, after it is.
pub fn describe_metrics() {
    for what in ["token", "access_key", "project"] {
        metrics::counter!(VALIDATIONS, "what" => what, "outcome" => "away").increment(0);
    }
    metrics::describe_counter!(VALIDATIONS, "Credentials that Keystone was asked about.");
    metrics::describe_histogram!(
        DURATION,
        metrics::Unit::Seconds,
        "Time that asking Keystone about a credential took."
    );
    metrics::describe_counter!(
        CACHE_HITS,
        "Credentials that were known, so that Keystone was not asked."
    );
}

fn remembered<T: Send + Sync + 'static>(
    kind: &'static str,
    life: Duration,
    room: u64,
    entropy: &Arc<dyn Entropy>,
    clock: &Arc<dyn Clock>,
) -> Remembered<T> {
    Remembered::new(kind, life, room, entropy.as_ref(), Arc::clone(clock))
}

/// A key of Keystone's is good in its own project alone, as there: another scope that is asked for is refused. The
/// headers that ask may be unsigned.
fn check_scope(headers: &HeaderMap, principal: &Principal) -> Result<()> {
    let own = principal.project().map(ProjectId::as_str);
    let project = asked_for(headers, "x-project-id")?;
    let elsewhere = project.is_some_and(|project| Some(project.as_str()) != own)
        || asked_for(headers, "x-domain-id")?.is_some();
    match elsewhere {
        true => Err(as_forbidden(refused("the key is good for its own project"))),
        false => Ok(()),
    }
}

/// A header's value, where there is one that is not empty.
fn asked_for(headers: &HeaderMap, name: &str) -> Result<Option<String>> {
    Ok(the_only(headers, name)?.filter(|text| !text.is_empty()))
}

#[cfg(test)]
mod tests;
