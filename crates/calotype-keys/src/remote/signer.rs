//! Signs requests with an access key: the scheme of Huawei's current SDKs, `SDK-HMAC-SHA256` with the secret itself.
//!
//! `calotype-identity` has the side that verifies; the tests hold the two together.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use calotype_core::time::Timestamp;
use reqwest::header::HeaderValue;
use zeroize::Zeroizing;

use calotype_remote::{Request, authority};

const ALGORITHM: &str = "SDK-HMAC-SHA256";

/// An access key and its secret.
#[derive(Clone)]
pub struct AccessKey {
    /// The key's id.
    pub id: String,
    /// Its secret.
    pub secret: Zeroizing<String>,
    /// The project that requests are for.
    pub project: String,
}

impl fmt::Debug for AccessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessKey")
            .field("id", &self.id)
            .field("project", &self.project)
            .finish_non_exhaustive()
    }
}

impl AccessKey {
    /// The request, signed at `now`. Its path must need no escapes and its query must be empty, as all of ours are.
    pub(crate) fn sign(&self, mut request: Request, now: Timestamp) -> Request {
        let date = now.to_seconds().replace(['-', ':'], "");
        let host = authority(&request.url);
        let signed = [
            ("host", host.as_str()),
            ("x-project-id", self.project.as_str()),
            ("x-sdk-date", date.as_str()),
        ];
        let headers: String = signed
            .iter()
            .map(|(name, value)| format!("{name}:{value}\n"))
            .collect();
        let names = signed.map(|(name, _)| name).join(";");
        let path = format!("{}/", request.url.path().trim_end_matches('/'));
        let body = sha256_hex(request.body.as_deref().unwrap_or_default());
        let canonical = format!("{}\n{path}\n\n{headers}\n{names}\n{body}", request.method);
        let text = format!("{ALGORITHM}\n{date}\n{}", sha256_hex(canonical.as_bytes()));
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.secret.as_bytes());
        let signature = hex::encode(hmac::sign(&key, text.as_bytes()));
        let authorization = format!(
            "{ALGORITHM} Access={}, SignedHeaders={names}, Signature={signature}",
            self.id
        );
        for (name, value) in [
            ("x-project-id", self.project.as_str()),
            ("x-sdk-date", &date),
            ("authorization", &authorization),
        ] {
            // What can't stand in a header is not sent, and then the signature does not fit: the service refuses it.
            if let Ok(value) = HeaderValue::from_str(value) {
                request.headers.insert(name, value);
            }
        }
        request
    }
}

fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(digest(&SHA256, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use calotype_identity::signature::{EMPTY_SHA256, SignedRequest};

    fn key() -> AccessKey {
        AccessKey {
            id: "AKTEST".to_owned(),
            secret: Zeroizing::new("sk-test-not-a-secret".to_owned()),
            project: "0123456789abcdef0123456789abcdef".to_owned(),
        }
    }

    fn verify(url: &str, body: Option<&str>, secret: &str) -> calotype_core::Result<()> {
        let request = match body {
            Some(body) => Request::post(
                url.parse().unwrap(),
                bytes::Bytes::copy_from_slice(body.as_bytes()),
            ),
            None => Request::get(url.parse().unwrap()),
        };
        let now = Timestamp::parse("2026-11-23T20:15:00Z").unwrap();
        let mut request = key().sign(request, now);
        let host = authority(&request.url).parse().unwrap();
        request.headers.insert("host", host);
        let path: http::Uri = request.url.path().parse().unwrap();
        let signed = SignedRequest::parse(&request.method, &path, &request.headers)?;
        signed.check_time(now)?;
        assert_eq!(signed.access(), "AKTEST");
        let hash = body.map_or(EMPTY_SHA256.to_owned(), |body| sha256_hex(body.as_bytes()));
        signed.verify(secret.as_bytes(), Some(&hash)).map(drop)
    }

    #[test]
    fn what_is_signed_here_verifies_there() {
        for url in [
            "https://kms.example.com/v1.0/0123/kms/describe-key",
            "http://127.0.0.1:9292/kms/v1.0/0123/kms/encrypt-datakey",
            "http://[::1]:9292/",
        ] {
            for body in [Some("{\"key_id\":\"x\"}"), None] {
                verify(url, body, "sk-test-not-a-secret").unwrap();
                verify(url, body, "another").unwrap_err();
            }
        }
    }

    #[test]
    fn the_secret_is_not_shown() {
        assert!(!format!("{:?}", key()).contains("sk-test"));
    }
}
