//! The service key as it comes from a root key: its wraps and its secrets.
#![expect(
    clippy::expect_used,
    reason = "clippy does not see that a test's own functions are tests"
)]

use std::sync::Arc;

use calotype_core::id::BlobId;
use calotype_core::keys::MasterKey;
use calotype_core::ports::{DataKey, Entropy, KeyService, Secrets, WrappedKey};
use calotype_core::{Error, ErrorKind};
use calotype_keys::{ServiceKey, SystemEntropy};

fn entropy() -> Arc<dyn Entropy> {
    Arc::new(SystemEntropy::new())
}

#[test]
fn a_key_is_taken_from_64_hexadecimal_digits_only() {
    let text = "0123456789abcdefABCDEF".repeat(3);
    for good in [&text[..64], &format!(" {}\n", &text[..64])] {
        ServiceKey::from_hex(good, entropy()).expect("good");
    }
    for bad in ["", &text[..63], &text[..66], &"x".repeat(64)] {
        let error = ServiceKey::from_hex(bad, entropy()).expect_err("bad");
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    }
}

fn key(digit: char) -> ServiceKey {
    ServiceKey::from_hex(&digit.to_string().repeat(64), entropy()).expect("good")
}

#[tokio::test]
async fn a_wrap_opens_for_its_own_blob_under_its_own_key_unchanged() {
    let service = key('a');
    let (blob, other) = (
        BlobId::random(&SystemEntropy::new()),
        BlobId::random(&SystemEntropy::new()),
    );
    let wrapped = service
        .wrap(&MasterKey::Service, blob, &DataKey::new([9; 32]))
        .await
        .expect("wrapped");
    assert_eq!(wrapped.master_key, "service");
    service.unwrap(blob, &wrapped).await.expect("unwrapped");

    let damaged = async |service: &ServiceKey, blob, wrapped: &WrappedKey| {
        let error = service
            .unwrap(blob, wrapped)
            .await
            .map(|_| ())
            .expect_err("refused");
        assert_eq!(Error::from(error).kind(), ErrorKind::Damaged);
    };
    damaged(&service, other, &wrapped).await;
    damaged(&key('b'), blob, &wrapped).await;
    for byte in 0..wrapped.sealed.len() {
        let mut flipped = wrapped.clone();
        flipped.sealed[byte] ^= 1;
        damaged(&service, blob, &flipped).await;
        let mut cut = wrapped.clone();
        cut.sealed.truncate(byte);
        damaged(&service, blob, &cut).await;
    }
    let mut renamed = wrapped.clone();
    renamed.master_key = "other".to_owned();
    damaged(&service, blob, &renamed).await;
    let mut reversioned = wrapped.clone();
    reversioned.version = 2;
    damaged(&service, blob, &reversioned).await;
    let again = service
        .wrap(&MasterKey::Service, blob, &DataKey::new([9; 32]))
        .await
        .expect("wrapped");
    assert_ne!(again, wrapped, "each wrap has a nonce of its own");
}

#[tokio::test]
async fn a_secret_opens_in_its_own_context_and_is_no_wrap() {
    let service = key('a');
    for secret in [&b""[..], b"s", &[7; 1000]] {
        let sealed = service.seal_secret("access-key:A", secret).expect("sealed");
        let opened = service
            .open_secret("access-key:A", &sealed)
            .expect("opened");
        assert_eq!(opened.as_slice(), secret);
        assert!(service.open_secret("access-key:B", &sealed).is_err());
        assert!(key('b').open_secret("access-key:A", &sealed).is_err());
        for byte in 0..sealed.len() {
            let mut flipped = sealed.clone();
            flipped[byte] ^= 0x80;
            assert!(service.open_secret("access-key:A", &flipped).is_err());
        }
    }
    let blob = BlobId::random(&SystemEntropy::new());
    let mut wrapped = service
        .wrap(&MasterKey::Service, blob, &DataKey::new([1; 32]))
        .await
        .expect("wrapped");
    assert!(service.open_secret("", &wrapped.sealed).is_err());
    wrapped.sealed = service.seal_secret("", &[1; 32]).expect("sealed");
    assert!(service.unwrap(blob, &wrapped).await.is_err());
}

#[test]
fn nothing_of_a_key_is_shown() {
    assert_eq!(format!("{:?}", key('a')), "ServiceKey(..)");
    assert_eq!(format!("{:?}", DataKey::new([0xaa; 32])), "DataKey(..)");
}
