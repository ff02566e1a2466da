//! Customers' keys in the KMS of the Open Telekom Cloud or of Huawei Cloud, or in what speaks their API.
//!
//! # Guarantees
//! A data key reaches the KMS only inside a block of 64 bytes, the length that every provider takes, whose other half
//! says which blob and which master key it is for. What comes back is believed only where length, digest and that half
//! are right, compared in constant time: a KMS that mixes up keys, contexts or callers is found out. Every buffer with
//! key bytes is erased.
//!
//! # Authority
//! Wraps are made and opened with the service's own credential, because nobody is there with another when a job goes on
//! or an image is read later; a customer grants the service's user `describe-key`, `encrypt-datakey` and
//! `decrypt-datakey`. Whether the *caller* may use the key is asked with the caller's own token
//! ([`Authorize::Caller`]).
//!
//! # Crash consistency
//! A wrap whose answer was lost leaves nothing behind at the KMS.

mod status;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use calotype_core::id::{BlobId, KeyId, ProjectId};
use calotype_core::keys::{
    Authority, CallerToken, KeyFault, KeyPurpose, KeyResult, KeyUser, MasterKey,
};
use calotype_core::ports::{Clock, DataKey, Entropy, KeyService, WrappedKey};
use calotype_core::{Error, Result};
use calotype_remote::{
    Answer, Connection, Endpoint, Granted, Login, Request, Session, http_url, json_text,
};
use reqwest::Url;
use tokio::time::Instant;

use crate::remote::verdicts::Verdicts;
use crate::remote::{AccessKey, Authorize, names, unusable};

use status::{Asked, Verdict, judge};
use wire::{Block, Context, Sealed};

/// What a [`WrappedKey`]'s master key begins with.
pub(crate) const PREFIX: &str = "kms:";

/// The types of service that the KMS has in catalogs: the first with the project's id in its URL, the second without.
const SERVICE_TYPES: [&str; 2] = ["kmsv1", "kms"];

/// How long it is believed at most whether a key has grants: who is given one is to be heard soon.
const GRANTS: Duration = Duration::from_secs(5);

/// What binds a ciphertext to its use at the provider, beside what is in the block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContextField {
    /// OTC's `encryption_context`.
    EncryptionContext,
    /// Huawei's `additional_authenticated_data`.
    AdditionalData,
    /// Nothing.
    None,
}

/// Who the service is to the KMS.
#[derive(Debug, Clone)]
pub enum KmsCredential {
    /// A user at a Keystone.
    Login(Login),
    /// A signer of requests. Then the endpoint has to be configured: only a login brings a catalog.
    AccessKey(AccessKey),
}

/// A KMS.
#[derive(Debug, Clone)]
pub struct KmsOptions {
    /// Its URL without the project, with or without `/v1.0`. None: what the catalog says.
    pub endpoint: Option<String>,
    /// The service's credential.
    pub credential: KmsCredential,
    /// Who has to agree.
    pub authorize: Authorize,
    /// The field that new wraps are bound by. Older ones name theirs.
    pub context: ContextField,
    /// How long a permission is believed, at most five minutes.
    pub cache_life: Duration,
    /// How it is reached.
    pub connection: Connection,
}

enum Credential {
    Login(Box<Session>),
    AccessKey(AccessKey),
}

/// What one request of the service needs: the URL in front of the project, the project, and a credential.
struct Ticket<'a> {
    base: String,
    project: String,
    proof: Proof<'a>,
}

enum Proof<'a> {
    Token(&'a Session, Arc<Granted>),
    Signature(&'a AccessKey),
}

/// The KMS as a [`KeyService`].
pub struct Kms {
    endpoint: Endpoint,
    configured: Option<String>,
    credential: Credential,
    authorize: Authorize,
    context: ContextField,
    clock: Arc<dyn Clock>,
    callers: Verdicts<(KeyId, String, [u8; 32])>,
    keys: Verdicts<KeyId>,
    /// Whether keys may let in others than the service.
    grants: Verdicts<(KeyId, bool)>,
}

impl Kms {
    /// The KMS. Nothing is asked of it yet.
    ///
    /// # Errors
    /// InvalidRequest where an option is none that can work.
    pub fn new(
        options: KmsOptions,
        entropy: &Arc<dyn Entropy>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        let endpoint = |name| Endpoint::new(names(name), &options.connection, Arc::clone(entropy));
        let configured = options.endpoint.map(|url| versioned(&url)).transpose()?;
        let credential = match options.credential {
            KmsCredential::Login(login) => {
                let session = Session::new(login, endpoint("Keystone")?, Arc::clone(&clock))?;
                Credential::Login(Box::new(session))
            }
            KmsCredential::AccessKey(_) if configured.is_none() => {
                return Err(Error::invalid(
                    "A KMS that is used with an access key needs its endpoint.",
                ));
            }
            KmsCredential::AccessKey(key) => Credential::AccessKey(key),
        };
        Ok(Self {
            endpoint: endpoint("the KMS")?,
            configured,
            credential,
            authorize: options.authorize,
            context: options.context,
            clock,
            callers: Verdicts::new(options.cache_life),
            keys: Verdicts::new(options.cache_life),
            grants: Verdicts::new(options.cache_life.min(GRANTS)),
        })
    }

    /// That the caller itself may use the key.
    async fn check_caller(
        &self,
        user: &KeyUser,
        token: &CallerToken,
        key: &KeyId,
        deadline: Instant,
    ) -> KeyResult<()> {
        let hash = sha256(token.expose().as_bytes());
        let what = (key.clone(), user.project.to_string(), hash);
        if self.callers.permits(&what) {
            return Ok(());
        }
        let since = Instant::now();
        let body = json_text(&wire::Describe { key_id: key })?;
        let asked = self.ask_as(user, token, "describe-key", body, deadline);
        wire::described(&asked.await?, key)?;
        self.callers.note(what, since);
        Ok(())
    }

    /// Asks the KMS with the caller's own credential, in its project.
    async fn ask_as(
        &self,
        user: &KeyUser,
        token: &CallerToken,
        call: &'static str,
        body: Bytes,
        deadline: Instant,
    ) -> KeyResult<Answer> {
        let ticket = self.ticket(deadline).await?;
        let url = address(&ticket.base, user.project.as_str(), call)?;
        let request = Request::post(url, body).secret("x-auth-token", token.expose())?;
        let answer = self.endpoint.call(&request, deadline).await?;
        match judge(&answer, Asked::Caller) {
            Verdict::Done => Ok(answer),
            Verdict::Stale => Err(status::stale(&answer, Asked::Caller)),
            Verdict::Refused(fault) => Err(fault),
        }
    }

    /// That the service's credential is taken. It is not asked for the right to list keys, which it does not need.
    ///
    /// # Errors
    /// What the KMS refuses, as a sentence for the operator; Unavailable where it is away.
    pub async fn probe(&self) -> Result<()> {
        let deadline = self.endpoint.deadline();
        let body = json_text(&wire::ListKeys { limit: "1" })?;
        match self.ask("list-keys", body, deadline).await {
            Ok(answer) => wire::listed(&answer),
            Err(KeyFault::Forbidden) => Ok(()),
            Err(fault) => Err(fault.into()),
        }
    }

    /// The service's user, where the KMS' own login says who that is.
    async fn service_user(&self, deadline: Instant) -> Result<Option<String>> {
        match &self.credential {
            Credential::AccessKey(_) => Ok(None),
            Credential::Login(session) => {
                let granted = session.granted(deadline).await?;
                Ok(Some(granted.user.clone()))
            }
        }
    }

    /// Whether a key may let in others than the service: it does where its grants may not be seen.
    async fn lets_in_others(
        &self,
        by: &KeyUser,
        key: &KeyId,
        deadline: Instant,
    ) -> KeyResult<bool> {
        let since = Instant::now();
        let body = json_text(&wire::ListGrants::of(key))?;
        let listed = match &by.authority {
            Authority::Token(token) => self.ask_as(by, token, "list-grants", body, deadline).await,
            Authority::Job | Authority::Signed => self.ask("list-grants", body, deadline).await,
        };
        let others = match listed {
            Ok(answer) => {
                let service = self.service_user(deadline).await?;
                wire::lets_others_read(&answer, service.as_deref())?
            }
            Err(KeyFault::Forbidden | KeyFault::Missing) => true,
            Err(fault) => return Err(fault),
        };
        self.grants.note((key.clone(), others), since);
        Ok(others)
    }

    /// What [`Kms::lets_in_others`] said a moment ago.
    fn known_grants(&self, key: &KeyId) -> Option<bool> {
        [true, false]
            .into_iter()
            .find(|others| self.grants.permits(&(key.clone(), *others)))
    }

    /// That the service may use the key, and that the key is one that can be used.
    async fn check_key(&self, key: &KeyId, deadline: Instant) -> KeyResult<()> {
        if self.keys.permits(key) {
            return Ok(());
        }
        let since = Instant::now();
        let body = json_text(&wire::Describe { key_id: key })?;
        let answer = self.ask("describe-key", body, deadline).await?;
        wire::described(&answer, key)?;
        self.keys.note(key.clone(), since);
        Ok(())
    }

    /// Asks the KMS with the service's credential, and once more with a fresh one where that has ended.
    async fn ask(&self, call: &'static str, body: Bytes, deadline: Instant) -> KeyResult<Answer> {
        let mut renewed = false;
        loop {
            let ticket = self.ticket(deadline).await?;
            let url = address(&ticket.base, &ticket.project, call)?;
            let unsigned = Request::post(url, body.clone());
            let ready = match &ticket.proof {
                Proof::Token(_, granted) => unsigned.secret("x-auth-token", &granted.token)?,
                Proof::Signature(key) => key.sign(unsigned, self.clock.now()),
            };
            let answer = self.endpoint.call(&ready, deadline).await?;
            match judge(&answer, Asked::Service) {
                Verdict::Done => return Ok(answer),
                Verdict::Refused(fault) => {
                    tracing::debug!(
                        kms.call = call,
                        http.status = answer.status,
                        kms.request_id = answer.request_id(),
                        "the KMS refuses"
                    );
                    return Err(fault);
                }
                Verdict::Stale => {}
            }
            match ticket.proof {
                Proof::Token(session, granted)
                    if !renewed && session.give_up(&granted, Duration::ZERO).await =>
                {
                    renewed = true;
                }
                _ => return Err(status::stale(&answer, Asked::Service)),
            }
        }
    }

    async fn ticket(&self, deadline: Instant) -> Result<Ticket<'_>> {
        match &self.credential {
            Credential::AccessKey(key) => Ok(Ticket {
                base: self.configured.clone().unwrap_or_default(),
                project: key.project.clone(),
                proof: Proof::Signature(key),
            }),
            Credential::Login(session) => {
                let granted = session.granted(deadline).await?;
                let base = match &self.configured {
                    Some(base) => base.clone(),
                    None => discovered(session, &granted)?,
                };
                Ok(Ticket {
                    base,
                    project: granted.project.clone(),
                    proof: Proof::Token(session, granted),
                })
            }
        }
    }
}

/// The URL of the catalog, without the project.
fn discovered(session: &Session, granted: &Granted) -> Result<String> {
    let (_, url) = session
        .find(granted, &SERVICE_TYPES)
        .ok_or_else(|| unusable("the catalog of services has no KMS"))?;
    let url = url.trim_end_matches('/');
    let base = url.strip_suffix(granted.project.as_str()).unwrap_or(url);
    versioned(base)
}

/// The URL with the API's version at its end, without a slash.
fn versioned(url: &str) -> Result<String> {
    let url = http_url(url.trim_end_matches('/'))?;
    let text = url.as_str().trim_end_matches('/');
    Ok(match text.strip_suffix("/v1.0") {
        Some(_) => text.to_owned(),
        None => format!("{text}/v1.0"),
    })
}

fn address(base: &str, project: &str, call: &str) -> Result<Url> {
    http_url(&format!("{base}/{project}/kms/{call}"))
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}

/// A key's id as the KMS gives them out: 36 characters, with hyphens in the places of a UUID's.
fn check_id(key: &KeyId) -> KeyResult<()> {
    let text = key.as_str().as_bytes();
    let plain = |(place, byte): (usize, &u8)| match place {
        8 | 13 | 18 | 23 => *byte == b'-',
        _ => byte.is_ascii_digit() || byte.is_ascii_lowercase(),
    };
    if text.len() == 36 && text.iter().enumerate().all(plain) {
        Ok(())
    } else {
        Err(KeyFault::Missing)
    }
}

#[async_trait::async_trait]
impl KeyService for Kms {
    async fn check(&self, user: &KeyUser, key: &KeyId, _: KeyPurpose) -> KeyResult<()> {
        check_id(key)?;
        let deadline = self.endpoint.deadline();
        // The caller first: a stranger learns nothing of what the service was granted.
        match (self.authorize, &user.authority) {
            (Authorize::Service, _) | (Authorize::Caller, Authority::Job) => {}
            (Authorize::Caller, Authority::Token(token)) => {
                self.check_caller(user, token, key, deadline).await?;
            }
            (Authorize::Caller, Authority::Signed) => return Err(KeyFault::Forbidden),
        }
        self.check_key(key, deadline).await
    }

    /// A description does not say which project a key is of.
    async fn is_own(&self, user: &KeyUser, key: &KeyId) -> KeyResult<Option<bool>> {
        self.check(user, key, KeyPurpose::Seal).await?;
        Ok(None)
    }

    /// A grant names users and domains, and not projects: a key that lets in others than the service may let in the
    /// project too, or not; one that does not lets in nobody but its own. The caller's token is asked with where there
    /// is one, since who was granted a key may not see its grants, and the service seldom has more than a grant.
    async fn lets_read(&self, by: &KeyUser, key: &KeyId, _: &ProjectId) -> KeyResult<Option<bool>> {
        check_id(key)?;
        let deadline = self.endpoint.deadline();
        self.check_key(key, deadline).await?;
        if self.authorize == Authorize::Service {
            // The key service does not know those who would read.
            return Ok(None);
        }
        // A job about members asks for one project after the other.
        let known = match by.authority {
            Authority::Job => self.known_grants(key),
            Authority::Token(_) | Authority::Signed => None,
        };
        let others = match known {
            Some(others) => others,
            None => self.lets_in_others(by, key, deadline).await?,
        };
        Ok((!others).then_some(false))
    }

    async fn wrap(&self, master: &MasterKey, blob: BlobId, key: &DataKey) -> KeyResult<WrappedKey> {
        let MasterKey::Customer(id, _) = master else {
            return Err(Error::internal("the service's own key is not in the KMS").into());
        };
        check_id(id)?;
        let block = Block::new(key, blob, id);
        let context = Context::new(self.context, blob);
        let body = wire::encrypt(id, &block, &context)?;
        let deadline = self.endpoint.deadline();
        let answer = self.ask("encrypt-datakey", body, deadline).await?;
        let cipher_text = wire::encrypted(&answer, id)?;
        let sealed = Sealed::new(self.context, cipher_text);
        Ok(WrappedKey {
            master_key: format!("{PREFIX}{id}"),
            version: wire::VERSION,
            sealed: sealed.encode()?,
        })
    }

    async fn unwrap(&self, blob: BlobId, wrapped: &WrappedKey) -> KeyResult<DataKey> {
        let damaged = || Error::damaged("the wrapped data key is none of the KMS'");
        let id = wrapped
            .master_key
            .strip_prefix(PREFIX)
            .ok_or_else(damaged)?;
        let id: KeyId = id.parse().map_err(|_| damaged())?;
        let sealed = Sealed::decode(wrapped).ok_or_else(damaged)?;
        let context = Context::new(sealed.context(), blob);
        let body = wire::decrypt(&id, sealed.cipher_text(), &context)?;
        let deadline = self.endpoint.deadline();
        let answer = self.ask("decrypt-datakey", body, deadline).await?;
        Ok(wire::decrypted(&answer, blob, &id)?)
    }
}
