//! The signatures of real clients verify, and nothing else does. The vectors are made by `tests/vectors/generate.py`.

use std::time::Duration;

use super::{Coverage, MAX_SKEW, Payload, SignedRequest};
use crate::sha256_hex;
use calotype_core::ErrorKind;
use calotype_core::time::Timestamp;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use proptest::prelude::*;
use serde::Deserialize;

#[derive(Deserialize)]
struct Vectors {
    access: String,
    secret: String,
    vectors: Vec<Vector>,
}

#[derive(Deserialize, Clone)]
struct Vector {
    name: String,
    method: String,
    target: String,
    headers: serde_json::Map<String, serde_json::Value>,
    body: String,
}

fn vectors() -> Vectors {
    serde_json::from_str(include_str!("../../tests/vectors/signatures.json")).unwrap()
}

fn vector(name: &str) -> Vector {
    let found = vectors().vectors.into_iter().find(|v| v.name == name);
    found.unwrap_or_else(|| panic!("no vector {name}"))
}

impl Vector {
    fn headers(&self) -> HeaderMap {
        self.headers
            .iter()
            .map(|(name, value)| {
                let name: HeaderName = name.parse().unwrap();
                let value = HeaderValue::from_str(value.as_str().unwrap().trim()).unwrap();
                (name, value)
            })
            .collect()
    }

    fn verify_with(&self, headers: &HeaderMap, secret: &str) -> calotype_core::Result<Coverage> {
        let method: Method = self.method.parse().unwrap();
        let uri: Uri = self.target.parse().unwrap();
        let signed = SignedRequest::parse(&method, &uri, headers)?;
        let hash = sha256_hex(self.body.as_bytes());
        let hash = (*signed.payload() != Payload::Unsigned).then_some(hash.as_str());
        signed.verify(secret.as_bytes(), hash)
    }

    fn verify(&self) -> calotype_core::Result<Coverage> {
        self.verify_with(&self.headers(), "sk-test-not-a-secret")
    }

    fn signed_names(&self) -> Vec<String> {
        let text = self.headers["Authorization"].as_str().unwrap();
        let (_, rest) = text.split_once("SignedHeaders=").unwrap();
        let (list, _) = rest.split_once(',').unwrap();
        list.split(';').map(str::to_owned).collect()
    }
}

fn assert_refused(what: &str, result: calotype_core::Result<Coverage>) {
    let error = result.expect_err(what);
    assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{what}");
}

#[test]
fn the_requests_of_real_clients_verify() {
    let vectors = vectors();
    assert!(vectors.vectors.len() >= 27);
    for vector in &vectors.vectors {
        let coverage = vector
            .verify()
            .unwrap_or_else(|error| panic!("{}: {error:?}", vector.name));
        let expected = match vector.name.as_str() {
            "A: PATCH json-patch leaves the body out" => Coverage::HeadersOnly,
            "A: DELETE of another media type without a body" => Coverage::EmptyBody,
            _ => Coverage::Body,
        };
        assert_eq!(coverage, expected, "{}", vector.name);
        let uri: Uri = vector.target.parse().unwrap();
        let method: Method = vector.method.parse().unwrap();
        let signed = SignedRequest::parse(&method, &uri, &vector.headers()).unwrap();
        assert_eq!(signed.access(), vectors.access);
    }
    assert_eq!(vectors.secret, "sk-test-not-a-secret");
}

#[test]
fn another_secret_is_refused() {
    for vector in vectors().vectors {
        for secret in ["", "sk-test-not-a-secreT", "sk-test-not-a-secret "] {
            let result = vector.verify_with(&vector.headers(), secret);
            assert_refused(&vector.name, result);
        }
    }
}

#[test]
fn another_method_path_query_or_body_is_refused() {
    for vector in vectors().vectors {
        let mut altered = vector.clone();
        altered.method = if vector.method == "PUT" { "GET" } else { "PUT" }.to_owned();
        assert_refused(&vector.name, altered.verify());

        let mut altered = vector.clone();
        altered.target = vector.target.replacen("/v", "/w", 1);
        if altered.target == vector.target {
            altered.target = vector.target.replacen("/identity", "/identitz", 1);
        }
        assert_ne!(altered.target, vector.target);
        assert_refused(&vector.name, altered.verify());

        let mut altered = vector.clone();
        let join = if vector.target.contains('?') {
            '&'
        } else {
            '?'
        };
        altered.target = format!("{}{join}zzz=1", vector.target);
        assert_refused(&vector.name, altered.verify());

        let mut altered = vector.clone();
        altered.body.push(' ');
        match vector.verify().unwrap() {
            Coverage::Body => assert_refused(&vector.name, altered.verify()),
            // The caller is told that the body was not, or not yet, checked.
            told => assert_eq!(altered.verify().unwrap(), told),
        }
    }
}

#[test]
fn each_signed_header_altered_missing_or_repeated_is_refused() {
    for vector in vectors().vectors {
        for name in vector.signed_names() {
            let name: HeaderName = name.parse().unwrap();
            let what = format!("{}: {name}", vector.name);

            let mut altered = vector.headers();
            let value = altered[&name].as_bytes().to_vec();
            let mut other = value.clone();
            other[0] = if other[0] == b'1' { b'2' } else { b'1' };
            altered.insert(&name, HeaderValue::from_bytes(&other).unwrap());
            assert_refused(&what, vector.verify_with(&altered, "sk-test-not-a-secret"));

            let mut missing = vector.headers();
            missing.remove(&name);
            assert_refused(&what, vector.verify_with(&missing, "sk-test-not-a-secret"));

            let mut repeated = vector.headers();
            repeated.append(&name, HeaderValue::from_bytes(&value).unwrap());
            assert_refused(&what, vector.verify_with(&repeated, "sk-test-not-a-secret"));
        }
    }
}

#[test]
fn a_query_that_is_only_ordered_otherwise_verifies() {
    let mut vector = vector("A: GET with query");
    vector.target = "/v2/cloudimages?protected=true&limit=5&__imagetype=gold".to_owned();
    assert_eq!(vector.verify().unwrap(), Coverage::Body);
}

#[test]
fn a_value_of_a_repeated_key_that_was_signed_can_not_be_exchanged() {
    let mut a = vector("A: GET with repeated key");
    a.target = a.target.replace("tag=c", "tag=d");
    assert_refused("scheme A signs every value", a.verify());
    let mut b = vector("B: GET with repeated key");
    b.target = b.target.replace("tag=b", "tag=d");
    assert_refused("scheme B signs the first value", b.verify());
}

#[test]
fn the_date_may_be_fifteen_minutes_away_and_no_more() {
    let vector = vector("A: GET without query");
    let uri: Uri = vector.target.parse().unwrap();
    let signed = SignedRequest::parse(&Method::GET, &uri, &vector.headers()).unwrap();
    let date = Timestamp::parse("2026-11-23T20:15:00Z").unwrap();
    let tick = Duration::from_micros(1);
    for near in [date, date.plus(MAX_SKEW), date.minus(MAX_SKEW)] {
        assert!(signed.check_time(near).is_ok());
    }
    for far in [date.plus(MAX_SKEW + tick), date.minus(MAX_SKEW + tick)] {
        let refused = signed.check_time(far).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unauthenticated);
    }
}

#[test]
fn hostile_authorization_headers_are_refused() {
    let vector = vector("A: GET without query");
    let good = vector.headers["Authorization"].as_str().unwrap().to_owned();
    let many: Vec<String> = (0..65).map(|n| format!("h{n}")).collect();
    let cases = [
        String::new(),
        "SDK-HMAC-SHA256".to_owned(),
        "SDK-HMAC-SHA256 ".to_owned(),
        "SDK-HMAC-SHA256x Access=AKTEST".to_owned(),
        format!("{good}, Signature={}", "0".repeat(64)),
        format!("{good}, Credential=AKTEST/20261123///sdk_request"),
        good.replace("Access=AKTEST", "Access="),
        good.replace("Access=AKTEST", "Credential=AKTEST/20261122///sdk_request"),
        good.replace("Access=AKTEST", "Credential=AKTEST/20261123//sdk_request"),
        good.replace("host;user-agent;x-sdk-date", "host;user-agent"),
        good.replace(
            "host;user-agent;x-sdk-date",
            "host;host;user-agent;x-sdk-date",
        ),
        good.replace("host;user-agent;x-sdk-date", "host;;user-agent;x-sdk-date"),
        good.replace("host;user-agent;x-sdk-date", "Host;user-agent;x-sdk-date"),
        good.replace("host;user-agent", &many.join(";")),
        good.get(..good.len() - 1).unwrap().to_owned(),
        format!("{good}{}", "0".repeat(5000)),
    ];
    for case in cases {
        let mut headers = vector.headers();
        headers.insert("authorization", HeaderValue::from_str(&case).unwrap());
        let result = vector.verify_with(&headers, "sk-test-not-a-secret");
        assert_refused(&case, result);
    }
}

#[test]
fn a_declared_hash_that_is_not_the_bodys_is_refused() {
    let mut vector = vector("B: a declared hash");
    assert_eq!(vector.verify().unwrap(), Coverage::Body);
    vector.body = "[]".to_owned();
    assert_refused("declared hash", vector.verify());
}

proptest! {
    #[test]
    fn no_header_of_a_stranger_is_more_than_refused(
        fields in "(Access|Credential|SignedHeaders|Signature)=[ -~]{0,80}(, ?(Access|Credential|SignedHeaders|Signature)=[ -~]{0,80}){0,4}",
        date in "[0-9TZ]{14,17}",
    ) {
        let mut headers = HeaderMap::new();
        let authorization = HeaderValue::from_str(&format!("SDK-HMAC-SHA256 {fields}")).unwrap();
        headers.insert("authorization", authorization);
        headers.insert("x-sdk-date", HeaderValue::from_str(&date).unwrap());
        let uri = Uri::from_static("/v2/images?a=1");
        if let Ok(signed) = SignedRequest::parse(&Method::GET, &uri, &headers) {
            let hash = sha256_hex(b"");
            prop_assert!(signed.verify(b"sk-test-not-a-secret", Some(&hash)).is_err());
        }
    }
}
