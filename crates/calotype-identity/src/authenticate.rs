//! From a request's credential to a principal.
//!
//! Only two headers say who is calling: `X-Auth-Token`, and `Authorization` with a signature. With a signature
//! `X-Project-Id` or `X-Domain-Id` *ask* for a scope, and the user must have a role there; with a token they are
//! not read. A signature under a temporary access key comes with its `X-Security-Token`, and is good for the key's
//! scope alone. `X-User-Id`, `X-Roles` and their like are never read.

use async_trait::async_trait;
use calotype_core::access::{Credential, Principal, Scope};
use calotype_core::codes::ImsCode;
use calotype_core::ports::AccessKey;
use calotype_core::{Error, ErrorKind, Result};
use http::HeaderMap;
use http::request::Parts;
use secrecy::SecretString;
use subtle::ConstantTimeEq as _;

use crate::embedded::Embedded;
use crate::signature::{Coverage, EMPTY_SHA256, Payload, SignedRequest};
use crate::{refused, sha256_hex};

/// The body of a request that may be signed.
#[async_trait]
pub trait BodyDigest: Send {
    /// SHA-256 of the whole body, in lower-case hexadecimal. Asked for only where a known access key signed the
    /// request in time; more than once gives the same answer.
    ///
    /// # Errors
    /// TooLarge over the limit of signed bodies.
    async fn sha256(&mut self) -> Result<String>;
}

impl Embedded {
    /// Who is calling.
    ///
    /// # Errors
    /// Unauthenticated where the credential is missing or not good; Forbidden where it is, but gives no rights in
    /// the project or domain that the request asks for.
    pub async fn authenticate(
        &self,
        parts: &Parts,
        body: &mut dyn BodyDigest,
    ) -> Result<Principal> {
        if let Some(token) = the_only(&parts.headers, "x-auth-token")? {
            let session = self.session(&SecretString::from(token)).await?;
            return Ok(session.principal.clone());
        }
        if SignedRequest::is_claimed(&parts.headers) {
            return self.authenticate_signed(parts, body).await;
        }
        Err(refused("the request carries no credential"))
    }

    async fn authenticate_signed(
        &self,
        parts: &Parts,
        body: &mut dyn BodyDigest,
    ) -> Result<Principal> {
        let signed = SignedRequest::parse(&parts.method, &parts.uri, &parts.headers)?;
        let now = self.clock.now();
        signed.check_time(now)?;
        let key = self.directory.access_key(signed.access()).await?;
        let good = |key: &AccessKey| {
            let temporary = key.temporary.as_ref();
            key.enabled && temporary.is_none_or(|temporary| now < temporary.expires_at)
        };
        let key = key
            .filter(good)
            .ok_or_else(|| refused("the access key is unknown, disabled or expired"))?;
        check_security_token(&parts.headers, &key)?;
        self.check_signature(&signed, &key, body).await?;
        let (user, domain) = self.live_user(&key.user).await?;
        let scope = self.signed_scope(&parts.headers, &key).await?;
        let credential = match &key.temporary {
            Some(temporary) => Credential::TemporaryKey(temporary.expires_at),
            None => Credential::AccessKey,
        };
        let (principal, _) = self
            .principal(user, domain, scope, credential)
            .await
            .map_err(as_forbidden)?;
        Ok(principal)
    }

    /// The scope of a signed request: of a permanent key what the request asks for, or else the key's project; of a
    /// temporary one the key's own, and no other may be asked for.
    async fn signed_scope(&self, headers: &HeaderMap, key: &AccessKey) -> Result<Scope> {
        let asked = self.asked_scope(headers).await.map_err(as_forbidden)?;
        match (&key.temporary, asked) {
            (Some(temporary), asked) => {
                let own = self.scope_now(&temporary.scope).await?;
                match asked {
                    Some(asked) if asked != own => {
                        Err(as_forbidden(refused("the key is good for another scope")))
                    }
                    _ => Ok(own),
                }
            }
            (None, Some(asked)) => Ok(asked),
            (None, None) => match &key.project {
                Some(project) => self.project_scope(project).await,
                None => Ok(Scope::Unscoped),
            },
        }
    }

    async fn check_signature(
        &self,
        signed: &SignedRequest,
        key: &AccessKey,
        body: &mut dyn BodyDigest,
    ) -> Result<()> {
        let secret = self
            .keys
            .open_secret(&sealing_context(&key.access), &key.sealed_secret)?;
        verify(signed, &secret, body).await
    }

    /// The scope that a signed request asks for.
    async fn asked_scope(&self, headers: &HeaderMap) -> Result<Option<Scope>> {
        let malformed = |_| refused("the scope's id is malformed");
        if let Some(project) = the_only(headers, "x-project-id")?.filter(|id| !id.is_empty()) {
            let project = project.parse().map_err(malformed)?;
            return self.project_scope(&project).await.map(Some);
        }
        if let Some(domain) = the_only(headers, "x-domain-id")?.filter(|id| !id.is_empty()) {
            let domain = self
                .live_domain(&domain.parse().map_err(malformed)?)
                .await?;
            return Ok(Some(Scope::Domain(crate::embedded::named_domain(domain))));
        }
        Ok(None)
    }
}

/// That the holder of `secret` signed the request, and the body that came with it.
///
/// # Errors
/// Unauthenticated; TooLarge over the limit of signed bodies.
pub(crate) async fn verify(
    signed: &SignedRequest,
    secret: &[u8],
    body: &mut dyn BodyDigest,
) -> Result<()> {
    let body_sha256 = match signed.payload() {
        Payload::Unsigned => None,
        Payload::Declared(_) | Payload::Computed => Some(body.sha256().await?),
    };
    match signed.verify(secret, body_sha256.as_deref())? {
        Coverage::Body | Coverage::HeadersOnly => Ok(()),
        Coverage::EmptyBody if body.sha256().await? == EMPTY_SHA256 => Ok(()),
        Coverage::EmptyBody => Err(refused("an empty body was signed and another came")),
    }
}

/// A temporary key comes with its security token. A permanent one has none: what comes with one was meant to end.
fn check_security_token(headers: &HeaderMap, key: &AccessKey) -> Result<()> {
    let token = the_only(headers, "x-security-token")?.filter(|token| !token.is_empty());
    match (&key.temporary, token) {
        (None, None) => Ok(()),
        (Some(temporary), Some(token)) => {
            let hash = sha256_hex(token.as_bytes());
            let wanted = temporary.security_token_hash.as_bytes();
            if hash.as_bytes().ct_eq(wanted).into() {
                Ok(())
            } else {
                Err(refused("the security token is not the access key's"))
            }
        }
        (Some(_), None) => Err(refused("a temporary access key came alone")),
        (None, Some(_)) => Err(refused("a permanent access key came with a security token")),
    }
}

/// What the secret of an access key is sealed under.
pub(crate) fn sealing_context(access: &str) -> String {
    format!("access-key:{access}")
}

/// A signature that is good in a scope that gives no rights. A scope that is not there looks the same.
pub(crate) fn as_forbidden(error: Error) -> Error {
    if error.kind() != ErrorKind::Unauthenticated {
        return error;
    }
    Error::forbidden("The credential gives no rights in the project or domain of the request.")
        .with_code(ImsCode::IMG_0026)
        .with_context(error)
}

/// A header's value, where there is one. Two are refused rather than chosen from.
pub(crate) fn the_only(headers: &HeaderMap, name: &str) -> Result<Option<String>> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => match value.to_str() {
            Ok(text) => Ok(Some(text.to_owned())),
            Err(_) => Err(refused("a credential's header is not plain text")),
        },
        (Some(_), Some(_)) => Err(refused("a credential's header is repeated")),
    }
}
