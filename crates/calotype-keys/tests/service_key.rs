//! The service key: its file, its wraps and its secrets.
#![expect(
    clippy::expect_used,
    reason = "clippy does not see that a test's own functions are tests"
)]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;

use calotype_core::id::BlobId;
use calotype_core::keys::MasterKey;
use calotype_core::ports::{DataKey, Entropy, KeyService, Secrets, WrappedKey};
use calotype_core::{Error, ErrorKind};
use calotype_keys::{ServiceKey, SystemEntropy};

fn entropy() -> Arc<dyn Entropy> {
    Arc::new(SystemEntropy::new())
}

fn open(path: &Path) -> calotype_core::Result<ServiceKey> {
    ServiceKey::open_or_create(path, entropy())
}

#[tokio::test]
async fn a_key_file_is_made_once_and_for_its_owner_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("service.key");
    let first = open(&path).expect("made");
    let text = fs::read_to_string(&path).expect("read");
    let mode = fs::metadata(&path).expect("there").permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);

    let blob = BlobId::random(&SystemEntropy::new());
    let key = DataKey::new([3; 32]);
    let wrapped = first
        .wrap(&MasterKey::Service, blob, &key)
        .await
        .expect("wrapped");
    let second = open(&path).expect("opened");
    let unwrapped = second.unwrap(blob, &wrapped).await.expect("unwrapped");
    assert_eq!(unwrapped.expose(), key.expose());
    assert_eq!(fs::read_to_string(&path).expect("read"), text);
    assert_eq!(fs::read_dir(directory.path()).expect("listed").count(), 1);
}

#[tokio::test]
async fn processes_that_start_at_once_agree_on_one_key() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("service.key");
    let start = Arc::new(std::sync::Barrier::new(8));
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let (path, start) = (path.clone(), Arc::clone(&start));
            std::thread::spawn(move || {
                start.wait();
                open(&path).expect("opened")
            })
        })
        .collect();
    let keys: Vec<_> = threads
        .into_iter()
        .map(|thread| thread.join().expect("no panic"))
        .collect();
    let sealed = keys[0].seal_secret("c", b"secret").expect("sealed");
    for key in &keys {
        assert_eq!(
            key.open_secret("c", &sealed).expect("opened").as_slice(),
            b"secret"
        );
    }
    assert_eq!(fs::read_dir(directory.path()).expect("listed").count(), 1);
}

#[test]
fn a_file_that_others_may_read_or_that_holds_no_key_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("service.key");
    open(&path).expect("made");
    let good = fs::read_to_string(&path).expect("read");
    let set_mode =
        |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set");
    for mode in [0o640, 0o604, 0o620, 0o602, 0o610, 0o644, 0o666] {
        set_mode(mode);
        let error = open(&path).expect_err("exposed");
        assert!(!error.is_transient());
        assert!(error.chain().contains("0600"), "{}", error.chain());
    }
    set_mode(0o600);
    let longer = format!("{good}0");
    let bad = [
        "",
        "\n",
        &good[..good.len() - 1],
        &good[..good.len() / 2],
        &good[1..],
        &longer,
        &good.replace("key-1", "key-2"),
        &format!("calotype-service-key-1:{}\n", "g".repeat(64)),
    ];
    for text in bad {
        fs::write(&path, text).expect("written");
        let error = open(&path).expect_err("malformed");
        assert!(!error.chain().contains(good[23..].trim()));
        assert_eq!(fs::read_to_string(&path).expect("read"), *text);
    }
    fs::write(&path, &good).expect("written");
    open(&path).expect("good again");
}

#[test]
fn a_key_in_the_place_of_something_else_is_not_made() {
    let directory = tempfile::tempdir().expect("a directory");
    open(directory.path()).expect_err("a directory");
    open(&directory.path().join("missing/service.key")).expect_err("no such directory");
    let dangling = directory.path().join("link");
    symlink(directory.path().join("nowhere"), &dangling).expect("linked");
    open(&dangling).expect_err("a link to nowhere is not replaced");
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
