//! What makes a secret a master key: 32 bytes for AES, active, not expired. Anything else is not used, rather than used
//! as what came.

use std::time::Duration;

use calotype_core::keys::{KeyFault, KeyResult};
use calotype_core::time::Timestamp;
use serde::Deserialize;

use crate::cipher::Material;
use crate::remote::unusable;
use calotype_remote::Answer;

#[derive(Deserialize)]
struct Metadata {
    status: String,
    secret_type: Option<String>,
    algorithm: Option<String>,
    bit_length: Option<u64>,
    expiration: Option<String>,
    // Absent where there is no payload.
    content_types: Option<ContentTypes>,
}

#[derive(Deserialize)]
struct ContentTypes {
    default: Option<String>,
}

/// Looks at a secret's metadata; returns how long it still lasts, where it ends.
pub(super) fn metadata(answer: &Answer, now: Timestamp) -> KeyResult<Option<Duration>> {
    let metadata: Metadata = serde_json::from_slice(&answer.body)
        .map_err(|_| unusable("Barbican's answer is not understood"))?;
    let kind = metadata.secret_type.as_deref();
    let content = metadata.content_types.and_then(|types| types.default);
    let aes = |algorithm: &str| algorithm.eq_ignore_ascii_case("aes");
    let usable = metadata.status == "ACTIVE"
        && matches!(kind, Some("symmetric" | "opaque"))
        && metadata.algorithm.as_deref().is_none_or(aes)
        && metadata.bit_length.is_none_or(|bits| bits == 256)
        && content.as_deref() == Some("application/octet-stream");
    if !usable {
        return Err(KeyFault::NotEnabled);
    }
    let Some(text) = metadata.expiration else {
        return Ok(None);
    };
    let expiration =
        Timestamp::parse(&text).ok_or_else(|| unusable("Barbican's answer has no such time"))?;
    if expiration <= now {
        return Err(KeyFault::Missing);
    }
    Ok(Some(expiration.since(now)))
}

/// The payload, if it is a key's.
pub(super) fn payload(answer: &Answer) -> KeyResult<Material> {
    Material::from_slice(&answer.body).ok_or(KeyFault::NotEnabled)
}

#[derive(Deserialize)]
struct Refusal {
    code: u16,
    title: String,
}

/// Whether a 404 is Barbican's word on a secret, and not a proxy's on an address.
pub(super) fn is_barbicans(body: &[u8]) -> bool {
    let refusal: Option<Refusal> = serde_json::from_slice(body).ok();
    refusal.is_some_and(|refusal| refusal.code == 404 && !refusal.title.is_empty())
}
