//! Customers' keys in OpenStack Barbican: a master key is a secret there, of exactly 32 bytes.
//!
//! # Guarantees
//! Two conditions hold wherever a secret is used, and Barbican itself evaluates both, by giving the payload or not:
//! that the *service* may read it, whose user the owner has put on the secret's access list (ACL); and, at request time,
//! that the *caller* may, with the caller's own token ([`Authorize::Caller`]). The ACL's document is never interpreted:
//! the service may not read it, and it does not say whom a project's roles let in.
//!
//! A secret's bytes are in memory for at most the cache's life, never past the secret's expiration, at most [`ROOM`] of
//! them, and are erased. A data key is unwrapped only with a payload that Barbican gave within [`RECENT`]: with the five
//! minutes that a data key may be used for, that bounds how long a secret still opens what its owner has closed.
//!
//! An address is never taken from a secret's reference: what comes from there would get our tokens.
//!
//! # Not guaranteed
//! Barbican keeps a deleted secret's ciphertext until its database is cleaned.

mod masters;
mod secret;
mod wrap;

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use calotype_core::id::{BlobId, KeyId};
use calotype_core::keys::{
    Authority, CallerToken, KeyFault, KeyPurpose, KeyResult, KeyRole, KeyUser, MasterKey,
};
use calotype_core::ports::{Clock, DataKey, Entropy, KeyService, WrappedKey};
use calotype_core::{Error, ErrorKind, Result};
use calotype_remote::{Answer, Connection, Endpoint, Granted, Login, Request, Session, http_url};
use tokio::time::Instant;
use uuid::Uuid;

use crate::cipher::Material;
use crate::remote::verdicts::Verdicts;
use crate::remote::{Authorize, names, unavailable, unusable};

use masters::{Master, Masters};

/// What a [`WrappedKey`]'s master key begins with.
pub(crate) const PREFIX: &str = "barbican:";

/// The type of service that Barbican has in catalogs.
const SERVICE_TYPE: &str = "key-manager";

/// A payload as old as this still counts as given now.
const RECENT: Duration = Duration::from_secs(1);

/// A login as young as this is not given up because a caller's token was refused beside it.
const YOUNG: Duration = Duration::from_secs(5);

/// When a retry makes sense where a busy Barbican did not say.
const BUSY: Duration = Duration::from_secs(5);

/// A Barbican.
#[derive(Debug, Clone)]
pub struct BarbicanOptions {
    /// Its URL, with or without `/v1`. None: what the catalog says.
    pub endpoint: Option<String>,
    /// The service's user. It needs the role `service`, and nothing more.
    pub login: Login,
    /// Who has to agree.
    pub authorize: Authorize,
    /// How long a secret is kept in memory, and a permission believed: at most five minutes.
    pub cache_life: Duration,
    /// How it is reached.
    pub connection: Connection,
}

/// Barbican as a [`KeyService`].
pub struct Barbican {
    endpoint: Endpoint,
    configured: Option<String>,
    session: Session,
    authorize: Authorize,
    cache_life: Duration,
    entropy: Arc<dyn Entropy>,
    clock: Arc<dyn Clock>,
    callers: Verdicts<(Uuid, String, [u8; 32])>,
    masters: Arc<Masters>,
}

/// What keeps a Barbican from being asked.
#[derive(Debug)]
pub enum Unmet {
    /// The service's user can't log in.
    Login(Error),
    /// The catalog of services does not say where it is.
    Place(Error),
    /// What is there does not answer as Barbican does.
    Answer(Error),
}

/// Whose token a secret is asked for with.
#[derive(Clone, Copy)]
enum Asker<'a> {
    Service,
    Caller(&'a CallerToken),
}

impl Barbican {
    /// Barbican. Nothing is asked of it yet.
    ///
    /// # Errors
    /// InvalidRequest where an option is none that can work.
    pub fn new(
        options: BarbicanOptions,
        entropy: Arc<dyn Entropy>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        let endpoint = |name| Endpoint::new(names(name), &options.connection, Arc::clone(&entropy));
        Ok(Self {
            endpoint: endpoint("Barbican")?,
            configured: options.endpoint.map(|url| versioned(&url)).transpose()?,
            session: Session::new(options.login, endpoint("Keystone")?, Arc::clone(&clock))?,
            authorize: options.authorize,
            cache_life: options.cache_life,
            entropy,
            clock,
            callers: Verdicts::new(options.cache_life),
            masters: Arc::default(),
        })
    }

    /// Asks for a secret that nobody has, as for any other, and returns the URL that was asked.
    ///
    /// # Errors
    /// What is in the way.
    pub async fn meet(&self) -> std::result::Result<String, Unmet> {
        let deadline = self.endpoint.deadline();
        let granted = self.session.granted(deadline).await;
        let granted = granted.map_err(Unmet::Login)?;
        let base = self.base(&granted).map_err(Unmet::Place)?;
        let path = format!("secrets/{}", Uuid::nil());
        match self.fetch(&path, Asker::Service, deadline).await {
            Ok(_) | Err(KeyFault::Missing | KeyFault::NotEnabled | KeyFault::Forbidden) => Ok(base),
            Err(fault) => Err(Unmet::Answer(fault.into_error(KeyRole::Target))),
        }
    }

    /// That the caller itself may read the secret. Metadata prove nothing: foreign administrators see them.
    async fn check_caller(
        &self,
        user: &KeyUser,
        token: &CallerToken,
        id: Uuid,
        deadline: Instant,
    ) -> KeyResult<()> {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, token.expose().as_bytes()).as_ref());
        let what = (id, user.project.to_string(), hash);
        if self.callers.permits(&what) {
            return Ok(());
        }
        let since = Instant::now();
        let answer = self
            .fetch(&payload_of(id), Asker::Caller(token), deadline)
            .await?;
        let seen = secret::payload(&answer)?;
        if let Some(master) = self.masters.find(id, since_ago(self.cache_life))
            && !seen.is(master.key())
        {
            return Err(unusable("Barbican gave two payloads for one secret").into());
        }
        self.callers.note(what, since);
        Ok(())
    }

    /// The secret's bytes, given to the service not before `since`.
    async fn master(&self, id: Uuid, since: Instant, deadline: Instant) -> KeyResult<Arc<Master>> {
        if let Some(master) = self.masters.find(id, since) {
            return Ok(master);
        }
        // One at a time: who waited finds what the first one brought.
        let turn = self.masters.turn(id);
        let _turn = turn.lock().await;
        if let Some(master) = self.masters.find(id, since) {
            return Ok(master);
        }
        let asked = Instant::now();
        let given = self.given(id, deadline).await;
        if matches!(
            given,
            Err(KeyFault::Missing | KeyFault::NotEnabled | KeyFault::Forbidden)
        ) {
            self.masters.forget(id);
        }
        let (key, left) = given?;
        let master = Arc::new(Master::new(key, asked));
        let life = left.map_or(self.cache_life, |left| left.min(self.cache_life));
        self.masters.keep(id, Arc::clone(&master), asked + life);
        Ok(master)
    }

    /// A secret's bytes, and how long it still lasts.
    async fn given(&self, id: Uuid, deadline: Instant) -> KeyResult<(Material, Option<Duration>)> {
        let path = format!("secrets/{id}");
        let metadata = self.fetch(&path, Asker::Service, deadline).await?;
        let left = secret::metadata(&metadata, self.clock.now())?;
        let path = payload_of(id);
        let payload = self.fetch(&path, Asker::Service, deadline).await?;
        Ok((secret::payload(&payload)?, left))
    }

    /// Asks Barbican; the answer is a 200. A service token that was refused is renewed once.
    async fn fetch(&self, path: &str, asker: Asker<'_>, deadline: Instant) -> KeyResult<Answer> {
        let mut renewed = false;
        loop {
            let granted = self.session.granted(deadline).await?;
            let base = self.base(&granted)?;
            let request = Request::get(http_url(&format!("{base}/{path}"))?);
            let request = if path.ends_with("/payload") {
                request.header("accept", "application/octet-stream")
            } else {
                request.header("accept", "application/json")
            };
            let request = match asker {
                Asker::Service => request.secret("x-auth-token", &granted.token)?,
                // The second one lets a token through that ended a moment ago.
                Asker::Caller(token) => request
                    .secret("x-auth-token", token.expose())?
                    .secret("x-service-token", &granted.token)?,
            };
            let answer = self.endpoint.call(&request, deadline).await?;
            // Of two tokens nobody knows which one was refused.
            let age = match asker {
                Asker::Service => Duration::ZERO,
                Asker::Caller(_) => YOUNG,
            };
            if answer.status == 401 && !renewed && self.session.give_up(&granted, age).await {
                renewed = true;
                continue;
            }
            return judge(answer, asker, &granted);
        }
    }

    fn base(&self, granted: &Granted) -> Result<String> {
        if let Some(base) = &self.configured {
            return Ok(base.clone());
        }
        let (_, url) = self
            .session
            .find(granted, &[SERVICE_TYPE])
            .ok_or_else(|| unusable("the catalog of services has no key-manager"))?;
        versioned(url)
    }
}

/// The answer where it is a success.
fn judge(answer: Answer, asker: Asker<'_>, granted: &Granted) -> KeyResult<Answer> {
    let said = format!(
        "Barbican answered {} ({})",
        answer.status,
        answer.request_id()
    );
    Err(match (answer.status, asker) {
        (200, _) => return Ok(answer),
        // A secret without a payload, or with one of another type.
        (204 | 406, _) => KeyFault::NotEnabled,
        (401, Asker::Caller(_)) => Error::new(
            ErrorKind::Unauthenticated,
            "The key service does not take the request's token.",
        )
        .into(),
        (401, Asker::Service) => {
            tracing::error!(
                barbican.request_id = answer.request_id(),
                "Barbican does not take the service's token"
            );
            unavailable(BUSY, said).into()
        }
        (403, Asker::Caller(_)) => KeyFault::Forbidden,
        (403, Asker::Service) => {
            tracing::info!(
                user.id = %granted.user, barbican.request_id = answer.request_id(),
                "a secret is closed to the service: its owner can let the service's user read it"
            );
            KeyFault::Forbidden
        }
        (404, _) if secret::is_barbicans(&answer.body) => KeyFault::Missing,
        (429, _) => KeyFault::Throttled {
            retry_after: answer.retry_after().unwrap_or(BUSY),
        },
        // Not Barbican's own words: a proxy, or an address where there is none.
        (404, _) => unusable(said).into(),
        _ => Error::internal(said).into(),
    })
}

/// The URL with the API's version at its end, without a slash.
fn versioned(url: &str) -> Result<String> {
    let url = http_url(url.trim_end_matches('/'))?;
    let text = url.as_str().trim_end_matches('/');
    Ok(match text.strip_suffix("/v1") {
        Some(_) => text.to_owned(),
        None => format!("{text}/v1"),
    })
}

/// The moment so long ago.
fn since_ago(age: Duration) -> Instant {
    let now = Instant::now();
    now.checked_sub(age).unwrap_or(now)
}

fn payload_of(id: Uuid) -> String {
    format!("secrets/{id}/payload")
}

/// A secret's id. One form only: two spellings of one key would pass for two keys.
fn secret_id(key: &KeyId) -> KeyResult<Uuid> {
    let text = key.as_str();
    match Uuid::try_parse(text) {
        Ok(id) if text.len() == 36 => Ok(id),
        _ => Err(KeyFault::Missing),
    }
}

#[async_trait::async_trait]
impl KeyService for Barbican {
    async fn check(&self, user: &KeyUser, key: &KeyId, _: KeyPurpose) -> KeyResult<()> {
        let id = secret_id(key)?;
        let deadline = self.endpoint.deadline();
        // The caller first: a stranger learns nothing of whether the service is on the ACL.
        match (self.authorize, &user.authority) {
            (Authorize::Service, _) | (Authorize::Caller, Authority::Job) => {}
            (Authorize::Caller, Authority::Token(token)) => {
                self.check_caller(user, token, id, deadline).await?;
            }
            (Authorize::Caller, Authority::Signed) => return Err(KeyFault::Forbidden),
        }
        let since = since_ago(self.cache_life);
        self.master(id, since, deadline).await.map(drop)
    }

    /// Barbican does not say which project a secret is of.
    async fn is_own(&self, user: &KeyUser, key: &KeyId) -> KeyResult<Option<bool>> {
        self.check(user, key, KeyPurpose::Seal).await?;
        Ok(None)
    }

    async fn wrap(&self, master: &MasterKey, blob: BlobId, key: &DataKey) -> KeyResult<WrappedKey> {
        let MasterKey::Customer(id, _) = master else {
            return Err(Error::internal("the service's own key is not in Barbican").into());
        };
        let id = secret_id(id)?;
        let deadline = self.endpoint.deadline();
        let since = since_ago(self.cache_life);
        let master = self.master(id, since, deadline).await?;
        Ok(WrappedKey {
            master_key: format!("{PREFIX}{id}"),
            version: wrap::VERSION,
            sealed: wrap::seal(master.key(), id, blob, key, self.entropy.as_ref())?,
        })
    }

    async fn unwrap(&self, blob: BlobId, wrapped: &WrappedKey) -> KeyResult<DataKey> {
        let damaged = || Error::damaged("the wrapped data key is none of Barbican's");
        let id = wrapped
            .master_key
            .strip_prefix(PREFIX)
            .ok_or_else(damaged)?;
        let id = Uuid::try_parse(id).map_err(|_| damaged())?;
        let deadline = self.endpoint.deadline();
        let master = self
            .master(id, since_ago(self.cache_life.min(RECENT)), deadline)
            .await?;
        Ok(wrap::open(master.key(), id, blob, wrapped)?)
    }
}
