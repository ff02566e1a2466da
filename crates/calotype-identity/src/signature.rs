//! Request signatures of access keys: the two schemes that call themselves `SDK-HMAC-SHA256`.
//!
//! Both sign method, path, query, some headers and a hash of the body. They differ in how they write those down
//! and in the key. Scheme A (current Huawei SDKs) signs with the secret itself; scheme B (gophertelekomcloud,
//! Terraform, golangsdk) with a key derived from it for a day. The header's form says which of them is meant, and
//! only that one is tried. Within a scheme clients disagree about details that lose nothing of what is signed (the
//! order of a repeated query key); each of those forms is accepted.
//!
//! Guarantees: what verifies was signed by the holder of the secret within 15 minutes of now; a signed header
//! occurs exactly once. Does not guarantee: that the body was signed (see [`Payload`] and [`Coverage`]), that
//! headers outside the signed list were (scheme B leaves `X-Project-Id` out), that scheme B signed the second and
//! later values of a repeated query key, or that a request comes only once.
//!
//! Source: the clients themselves; the wire facts are in `tests/vectors`.

mod canonical;
#[cfg(test)]
mod tests;

use std::time::Duration;

use aws_lc_rs::hmac;
use calotype_core::time::Timestamp;
use calotype_core::{Error, Result};
use http::{HeaderMap, Method, Uri, header};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::{refused, sha256_hex};
use canonical::Query;

/// How far `X-Sdk-Date` may be from now, to either side.
pub const MAX_SKEW: Duration = Duration::from_secs(15 * 60);

/// SHA-256 of nothing, in hexadecimal.
pub const EMPTY_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

const ALGORITHM: &str = "SDK-HMAC-SHA256";
const DATE_HEADER: &str = "x-sdk-date";
const CONTENT_HEADER: &str = "x-sdk-content-sha256";
const UNSIGNED: &str = "UNSIGNED-PAYLOAD";
/// Bounds on what an unknown client can make us parse.
const MAX_AUTHORIZATION: usize = 4096;
const MAX_SIGNED_HEADERS: usize = 64;
const MAX_QUERY_PAIRS: usize = 256;

/// What the signature says about the body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// The client declared that it does not sign the body (`UNSIGNED-PAYLOAD`).
    Unsigned,
    /// The client declared the body's SHA-256, here in lower-case hexadecimal. The caller must check it.
    Declared(String),
    /// The body's SHA-256 must be computed.
    Computed,
}

/// How far a signature that verified reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coverage {
    /// The hash that was handed in was signed.
    Body,
    /// An empty body was signed, though the client declared that it would not sign it: the caller must check
    /// that the body is empty.
    EmptyBody,
    /// The body was not signed, by the client's own word.
    HeadersOnly,
}

/// A request with a signature that was parsed and not yet verified.
#[derive(Debug, Clone)]
pub struct SignedRequest {
    scheme: Scheme,
    access: String,
    signature: [u8; 32],
    date: String,
    signed_at: Timestamp,
    method: Method,
    path: String,
    query: Query,
    headers: String,
    signed_headers: String,
    payload: Payload,
}

#[derive(Debug, Clone)]
enum Scheme {
    /// `Access=...`
    Direct,
    /// `Credential=.../YYYYMMDD/region/service/sdk_request`
    Derived { region: String, service: String },
}

impl SignedRequest {
    /// Whether a request claims to be signed.
    pub fn is_claimed(headers: &HeaderMap) -> bool {
        headers
            .get(header::AUTHORIZATION)
            .is_some_and(|value| value.as_bytes().starts_with(ALGORITHM.as_bytes()))
    }

    /// Reads the signature of a request, and writes down what it should have signed.
    ///
    /// # Errors
    /// Unauthenticated where the header or what it points to is malformed, missing or ambiguous.
    pub fn parse(method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<Self> {
        let authorization = single(headers, header::AUTHORIZATION.as_str())?;
        if authorization.len() > MAX_AUTHORIZATION {
            return Err(refused("the Authorization header is too long"));
        }
        let fields = Fields::parse(authorization)?;
        let signature = decode_signature(fields.signature)?;
        let date = single(headers, DATE_HEADER)?.trim().to_owned();
        let signed_at =
            parse_date(&date).ok_or_else(|| refused("X-Sdk-Date is not YYYYMMDDTHHMMSSZ"))?;
        let (scheme, access) = fields.scheme(&date)?;
        let names = signed_names(fields.signed_headers)?;
        let headers_text = canonical_headers(&scheme, &names, headers, uri)?;
        let query = Query::parse(uri.query().unwrap_or_default());
        if query.len() > MAX_QUERY_PAIRS {
            return Err(refused("the query has too many parts"));
        }
        Ok(Self {
            scheme,
            access,
            signature,
            date,
            signed_at,
            method: method.clone(),
            path: canonical::path(uri.path()),
            query,
            headers: headers_text,
            signed_headers: fields.signed_headers.to_owned(),
            payload: payload(headers)?,
        })
    }

    /// The access key that the request names: whose secret to verify with.
    pub fn access(&self) -> &str {
        &self.access
    }

    /// What the signature says about the body: whether its hash has to be known to verify.
    pub fn payload(&self) -> &Payload {
        &self.payload
    }

    /// Checks that the request was signed within [`MAX_SKEW`] of `now`.
    ///
    /// # Errors
    /// Unauthenticated where it was not.
    pub fn check_time(&self, now: Timestamp) -> Result<()> {
        if now.since(self.signed_at) > MAX_SKEW || self.signed_at.since(now) > MAX_SKEW {
            return Err(Error::new(
                calotype_core::ErrorKind::Unauthenticated,
                "X-Sdk-Date is more than 15 minutes away from the service's time.",
            ));
        }
        Ok(())
    }

    /// Verifies the signature. `body_sha256` is the hash of the body that was received, in lower-case
    /// hexadecimal; it may be none only where [`Self::payload`] is [`Payload::Unsigned`].
    ///
    /// # Errors
    /// Unauthenticated where no admissible form of the request carries this signature.
    pub fn verify(&self, secret: &[u8], body_sha256: Option<&str>) -> Result<Coverage> {
        let key = self.key(secret);
        let forms = match (&self.payload, body_sha256) {
            (Payload::Unsigned, _) => self
                .with_payload(UNSIGNED, Coverage::HeadersOnly)
                .chain(self.with_payload(EMPTY_SHA256, Coverage::EmptyBody))
                .collect::<Vec<_>>(),
            (Payload::Declared(declared), Some(body)) if declared != body => Vec::new(),
            (Payload::Declared(_) | Payload::Computed, Some(body)) => self
                .with_payload(body, Coverage::Body)
                .chain(self.query_as_payload(body))
                .collect(),
            (Payload::Declared(_) | Payload::Computed, None) => Vec::new(),
        };
        let matches = |text: &str| {
            let tag = hmac::sign(&key, self.string_to_sign(text).as_bytes());
            bool::from(tag.as_ref().ct_eq(&self.signature))
        };
        forms
            .into_iter()
            .find(|(text, _)| matches(text))
            .map(|(_, coverage)| coverage)
            .ok_or_else(|| refused("the signature does not match"))
    }

    fn with_payload<'a>(
        &'a self,
        payload: &'a str,
        coverage: Coverage,
    ) -> impl Iterator<Item = (String, Coverage)> + 'a {
        let queries = match self.scheme {
            Scheme::Direct => self.query.forms_of_scheme_a(),
            Scheme::Derived { .. } => self.query.forms_of_scheme_b(),
        };
        queries
            .into_iter()
            .map(move |query| (self.canonical_request(&query, payload), coverage))
    }

    /// Scheme B signs a POST without a body with an empty query, and the query's hash in place of the body's.
    fn query_as_payload(&self, body_sha256: &str) -> Option<(String, Coverage)> {
        let applies = matches!(self.scheme, Scheme::Derived { .. })
            && self.method == Method::POST
            && body_sha256 == EMPTY_SHA256;
        applies.then(|| {
            let payload = sha256_hex(self.query.as_form().as_bytes());
            (self.canonical_request("", &payload), Coverage::Body)
        })
    }

    fn canonical_request(&self, query: &str, payload: &str) -> String {
        format!(
            "{}\n{}\n{query}\n{}\n{}\n{payload}",
            self.method, self.path, self.headers, self.signed_headers
        )
    }

    fn string_to_sign(&self, canonical_request: &str) -> String {
        let hash = sha256_hex(canonical_request.as_bytes());
        match &self.scheme {
            Scheme::Direct => format!("{ALGORITHM}\n{}\n{hash}", self.date),
            Scheme::Derived { region, service } => format!(
                "{ALGORITHM}\n{}\n{}/{region}/{service}/sdk_request\n{hash}",
                self.date,
                self.day()
            ),
        }
    }

    fn key(&self, secret: &[u8]) -> hmac::Key {
        match &self.scheme {
            Scheme::Direct => hmac::Key::new(hmac::HMAC_SHA256, secret),
            Scheme::Derived { region, service } => {
                let mut first = Zeroizing::new(Vec::with_capacity(secret.len() + 3));
                first.extend_from_slice(b"SDK");
                first.extend_from_slice(secret);
                let mut key = hmac::Key::new(hmac::HMAC_SHA256, &first);
                for part in [self.day(), region, service, "sdk_request"] {
                    let tag = hmac::sign(&key, part.as_bytes());
                    key = hmac::Key::new(hmac::HMAC_SHA256, tag.as_ref());
                }
                key
            }
        }
    }

    fn day(&self) -> &str {
        self.date.get(..8).unwrap_or_default()
    }
}

/// The parts of the Authorization header.
struct Fields<'a> {
    access: Option<&'a str>,
    credential: Option<&'a str>,
    signed_headers: &'a str,
    signature: &'a str,
}

impl<'a> Fields<'a> {
    fn parse(text: &'a str) -> Result<Self> {
        let malformed = || refused("the Authorization header is malformed");
        let rest = text.strip_prefix(ALGORITHM).ok_or_else(malformed)?;
        let rest = rest.strip_prefix(' ').ok_or_else(malformed)?;
        let (mut access, mut credential, mut signed_headers, mut signature) =
            (None, None, None, None);
        for part in rest.split(',') {
            let (name, value) = part.trim().split_once('=').ok_or_else(malformed)?;
            let slot = match name {
                "Access" => &mut access,
                "Credential" => &mut credential,
                "SignedHeaders" => &mut signed_headers,
                "Signature" => &mut signature,
                _ => return Err(malformed()),
            };
            if slot.replace(value).is_some() {
                return Err(malformed());
            }
        }
        Ok(Self {
            access,
            credential,
            signed_headers: signed_headers.ok_or_else(malformed)?,
            signature: signature.ok_or_else(malformed)?,
        })
    }

    fn scheme(&self, date: &str) -> Result<(Scheme, String)> {
        let malformed = || refused("the signature's credential is malformed");
        let (scheme, access) = match (self.access, self.credential) {
            (Some(access), None) => (Scheme::Direct, access),
            (None, Some(credential)) => {
                let parts: Vec<&str> = credential.split('/').collect();
                let [access, day, region, service, "sdk_request"] = parts.as_slice() else {
                    return Err(malformed());
                };
                if date.get(..8) != Some(*day) {
                    return Err(refused("the credential's day is not that of X-Sdk-Date"));
                }
                let scheme = Scheme::Derived {
                    region: (*region).to_owned(),
                    service: (*service).to_owned(),
                };
                (scheme, *access)
            }
            _ => return Err(malformed()),
        };
        if access.is_empty() || access.len() > 128 {
            return Err(malformed());
        }
        Ok((scheme, access.to_owned()))
    }
}

fn decode_signature(text: &str) -> Result<[u8; 32]> {
    let mut signature = [0; 32];
    hex::decode_to_slice(text, &mut signature)
        .map_err(|_| refused("the signature is not 64 hexadecimal digits"))?;
    Ok(signature)
}

/// The names of the signed headers, as listed. `X-Sdk-Date` is one of them: otherwise a signature would be good
/// for ever in scheme B's unsigned headers.
fn signed_names(list: &str) -> Result<Vec<&str>> {
    let names: Vec<&str> = list.split(';').collect();
    let plain = |name: &&str| {
        !name.is_empty()
            && name
                .bytes()
                .all(|b| b.is_ascii_graphic() && !b.is_ascii_uppercase())
    };
    let distinct: std::collections::BTreeSet<&str> = names.iter().copied().collect();
    if names.len() > MAX_SIGNED_HEADERS
        || distinct.len() != names.len()
        || !names.iter().all(plain)
        || !distinct.contains(DATE_HEADER)
    {
        return Err(refused("the list of signed headers is not admissible"));
    }
    Ok(names)
}

fn canonical_headers(
    scheme: &Scheme,
    names: &[&str],
    headers: &HeaderMap,
    uri: &Uri,
) -> Result<String> {
    let mut text = String::new();
    for name in names {
        let authority = uri.authority().map(http::uri::Authority::as_str);
        let value = match (*name, authority) {
            ("host", Some(authority)) if !headers.contains_key(header::HOST) => authority,
            _ => single(headers, name)?,
        };
        let value = match scheme {
            Scheme::Direct => value.trim().to_owned(),
            Scheme::Derived { .. } => canonical::collapse_whitespace(value),
        };
        text.push_str(name);
        text.push(':');
        text.push_str(&value);
        text.push('\n');
    }
    Ok(text)
}

/// The one value of a header. Two of them are refused: the handler might read the one that was not signed.
fn single<'a>(headers: &'a HeaderMap, name: &str) -> Result<&'a str> {
    let mut values = headers.get_all(name).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(refused("a signed header is missing or repeated"));
    };
    std::str::from_utf8(value.as_bytes()).map_err(|_| refused("a signed header is not UTF-8"))
}

fn payload(headers: &HeaderMap) -> Result<Payload> {
    if !headers.contains_key(CONTENT_HEADER) {
        return Ok(Payload::Computed);
    }
    let value = single(headers, CONTENT_HEADER)?.trim();
    let is_hash = value.len() == 64
        && value
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    match value {
        UNSIGNED => Ok(Payload::Unsigned),
        _ if is_hash => Ok(Payload::Declared(value.to_owned())),
        _ => Err(refused(
            "X-Sdk-Content-Sha256 is neither a hash nor UNSIGNED-PAYLOAD",
        )),
    }
}

/// Reads `YYYYMMDDTHHMMSSZ`.
fn parse_date(text: &str) -> Option<Timestamp> {
    let digits = |from: usize, to: usize| {
        let part = text.get(from..to)?;
        part.bytes().all(|b| b.is_ascii_digit()).then_some(part)
    };
    if text.len() != 16 || text.get(8..9) != Some("T") || text.get(15..) != Some("Z") {
        return None;
    }
    Timestamp::parse(&format!(
        "{}-{}-{}T{}:{}:{}Z",
        digits(0, 4)?,
        digits(4, 6)?,
        digits(6, 8)?,
        digits(9, 11)?,
        digits(11, 13)?,
        digits(13, 15)?
    ))
}
