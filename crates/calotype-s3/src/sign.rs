//! Signs requests with the time of a [`Clock`]: AWS Signature Version 4, in headers.
//!
//! The library signs with this machine's clock, and takes no other. A store judges signatures by its own clock; a node whose
//! clock is off, and that has the time from its database, would have all of them refused. So what the library has signed is
//! signed again here, of the same headers and with the hash of the body that it has made.
//!
//! Source: "Authenticating Requests: Using the Authorization Header" of the Amazon S3 API Reference; the tests have its examples.

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use calotype_core::ports::Clock;
use calotype_remote::authority;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue};
use reqwest::header::{HOST, USER_AGENT};
use reqwest::{Method, Url};

use crate::client::AccessKey;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const DATE: HeaderName = HeaderName::from_static("x-amz-date");
const HASH: HeaderName = HeaderName::from_static("x-amz-content-sha256");

/// SHA-256 of nothing, in hexadecimal.
const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// All but RFC 3986's unreserved characters.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// As whom, for which region, and by which clock requests are signed.
#[derive(Clone)]
pub(crate) struct Signer {
    pub(crate) access_key: AccessKey,
    pub(crate) region: String,
    pub(crate) clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer")
            .field("access_key", &self.access_key)
            .field("region", &self.region)
            .finish_non_exhaustive()
    }
}

impl Signer {
    /// Makes the headers those of a request that is signed now. All of them are signed, but for those that a client or a proxy
    /// may write anew. Where they do not tell the body's hash, there is none.
    pub(crate) fn sign(&self, method: &Method, url: &Url, headers: &mut HeaderMap) {
        let time = self.clock.now().to_seconds().replace(['-', ':'], "");
        let day = time.get(..8).unwrap_or_default();
        let scope = format!("{day}/{}/s3/aws4_request", self.region);
        headers.remove(AUTHORIZATION);
        set(headers, DATE, &time);
        headers
            .entry(HASH)
            .or_insert(const { HeaderValue::from_static(EMPTY) });
        let (names, signed) = canonical_headers(url, headers);
        let hash = headers.get(HASH).map_or(&b""[..], HeaderValue::as_bytes);
        let canonical = format!(
            "{method}\n{}\n{}\n{signed}\n{names}\n{}",
            url.path(),
            canonical_query(url),
            String::from_utf8_lossy(hash)
        );
        let canonical = hex::encode(digest(&SHA256, canonical.as_bytes()));
        let text = format!("{ALGORITHM}\n{time}\n{scope}\n{canonical}");
        let signature = hex::encode(mac(self.key_of(day).as_ref(), &text));
        let id = &self.access_key.id;
        let authorization = format!(
            "{ALGORITHM} Credential={id}/{scope}, SignedHeaders={names}, Signature={signature}"
        );
        set(headers, AUTHORIZATION, &authorization);
    }

    /// The key that signs for a day.
    fn key_of(&self, day: &str) -> hmac::Tag {
        let secret = zeroize::Zeroizing::new(format!("AWS4{}", self.access_key.secret.as_str()));
        let day = mac(secret.as_bytes(), day);
        let region = mac(day.as_ref(), &self.region);
        let service = mac(region.as_ref(), "s3");
        mac(service.as_ref(), "aws4_request")
    }
}

fn mac(key: &[u8], text: &str) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes())
}

/// What can't stand in a header is not sent, and then the signature does not fit: the store refuses it.
fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// The names of the headers that are signed, and a line for each.
fn canonical_headers(url: &Url, headers: &HeaderMap) -> (String, String) {
    let mut signed = BTreeMap::new();
    signed.insert(HOST.as_str(), authority(url));
    for name in headers.keys() {
        if [CONTENT_LENGTH, USER_AGENT, HOST].contains(name) {
            continue;
        }
        let values = headers.get_all(name).iter().map(canonical_value);
        signed.insert(name.as_str(), values.collect::<Vec<_>>().join(","));
    }
    let names: Vec<&str> = signed.keys().copied().collect();
    let lines = signed
        .iter()
        .map(|(name, value)| format!("{name}:{value}\n"));
    (names.join(";"), lines.collect())
}

fn canonical_value(value: &HeaderValue) -> String {
    let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
    let words: Vec<&str> = value.split_whitespace().collect();
    words.join(" ")
}

/// The query's pairs by name and value, as these are encoded.
fn canonical_query(url: &Url) -> String {
    let encode = |text: &str| utf8_percent_encode(text, RESERVED).to_string();
    let pairs = url.query_pairs();
    let mut pairs: Vec<(String, String)> = pairs
        .map(|(name, value)| (encode(&name), encode(&value)))
        .collect();
    pairs.sort_unstable();
    let pairs = pairs.iter().map(|(name, value)| format!("{name}={value}"));
    pairs.collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use calotype_core::time::Timestamp;

    use super::*;

    struct Stopped;

    impl Clock for Stopped {
        fn now(&self) -> Timestamp {
            Timestamp::parse("2013-05-24T00:00:00Z").unwrap()
        }
    }

    fn signature(method: &Method, url: &str, headers: &[(&'static str, &str)]) -> String {
        let signer = Signer {
            access_key: AccessKey {
                id: "AKIAIOSFODNN7EXAMPLE".to_owned(),
                secret: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".to_owned().into(),
            },
            region: "us-east-1".to_owned(),
            clock: Arc::new(Stopped),
        };
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        signer.sign(method, &url.parse().unwrap(), &mut map);
        assert_eq!(map["x-amz-date"], "20130524T000000Z");
        assert!(!format!("{signer:?}").contains("wJalr"));
        let authorization = map["authorization"].to_str().unwrap();
        let (_, signature) = authorization.rsplit_once("Signature=").unwrap();
        signature.to_owned()
    }

    #[test]
    fn the_examples_of_the_reference_have_its_signatures() {
        let get = signature(
            &Method::GET,
            "https://examplebucket.s3.amazonaws.com/test.txt",
            // As the library leaves it: of another time.
            &[
                ("range", "bytes=0-9"),
                ("x-amz-date", "20200101T000000Z"),
                ("authorization", "AWS4-HMAC-SHA256 of another time"),
                ("user-agent", "anything"),
            ],
        );
        assert_eq!(
            get,
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
        );
        let put = signature(
            &Method::PUT,
            "https://examplebucket.s3.amazonaws.com/test%24file.text",
            &[
                ("date", "Fri, 24 May 2013 00:00:00 GMT"),
                ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
                (
                    "x-amz-content-sha256",
                    "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072",
                ),
                ("content-length", "21"),
            ],
        );
        assert_eq!(
            put,
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"
        );
        let lifecycle = "https://examplebucket.s3.amazonaws.com/?lifecycle";
        assert_eq!(
            signature(&Method::GET, lifecycle, &[]),
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"
        );
        let listing = "https://examplebucket.s3.amazonaws.com/?prefix=J&max-keys=2";
        assert_eq!(
            signature(&Method::GET, listing, &[]),
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"
        );
    }
}
