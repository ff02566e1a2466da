//! The identities as the API's authenticators.

use async_trait::async_trait;
use calotype_core::Result;
use calotype_core::access::Principal;
use calotype_identity::{BodyDigest, Embedded, Keystone, Standing, sha256_hex};
use http::request::Parts;

use crate::state::{Authenticator, SignedBody};

#[async_trait]
impl Authenticator for Embedded {
    async fn authenticate(&self, parts: &Parts, body: &mut dyn SignedBody) -> Result<Principal> {
        let mut digest = Digest { body, sha256: None };
        Embedded::authenticate(self, parts, &mut digest).await
    }
}

#[async_trait]
impl Authenticator for Keystone {
    async fn authenticate(&self, parts: &Parts, body: &mut dyn SignedBody) -> Result<Principal> {
        let mut digest = Digest { body, sha256: None };
        Keystone::authenticate(self, parts, &mut digest).await
    }

    async fn standing(&self) -> Result<Standing> {
        Keystone::standing(self).await
    }

    fn login_url(&self) -> Option<&str> {
        Some(self.public_url())
    }
}

/// The digest of a body that may be read once.
struct Digest<'a> {
    body: &'a mut dyn SignedBody,
    sha256: Option<String>,
}

#[async_trait]
impl BodyDigest for Digest<'_> {
    async fn sha256(&mut self) -> Result<String> {
        if let Some(sha256) = &self.sha256 {
            return Ok(sha256.clone());
        }
        let sha256 = sha256_hex(&self.body.bytes().await?);
        self.sha256 = Some(sha256.clone());
        Ok(sha256)
    }
}
