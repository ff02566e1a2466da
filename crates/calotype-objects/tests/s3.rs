//! Buckets in a store that speaks S3: one in this process.

#![expect(
    clippy::unwrap_used,
    reason = "the tests' own helpers: what fails here fails the test"
)]

#[expect(
    clippy::expect_used,
    unreachable_pub,
    reason = "shared with the black-box tests"
)]
#[path = "../../../tests/harness"]
mod harness {
    pub(crate) mod clock;
    pub(crate) mod s3_files;
}

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use calotype_core::codes::ImsCode;
use calotype_core::object::ObjectAddress;
use calotype_core::ports::Objects;
use calotype_core::{Error, ErrorKind, Result};
use calotype_objects::{AccessKey, Connection, S3, S3Options, conformance};
use futures_util::{StreamExt as _, TryStreamExt as _};
use harness::clock::WallClock;
use harness::s3_files;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use zeroize::Zeroizing;

const ID: &str = "AKTEST";
const SECRET: &str = "a secret of forty characters, or as many";

/// A store over the files below a directory; its URL.
async fn serve(directory: &Path) -> String {
    s3_files::serve(directory, (ID, SECRET)).await
}

fn options(endpoint: &str) -> S3Options {
    S3Options {
        endpoint: endpoint.to_owned(),
        region: "us-east-1".to_owned(),
        access_key: AccessKey {
            id: ID.to_owned(),
            secret: Zeroizing::new(SECRET.to_owned()),
        },
        path_style: true,
        allow_http: true,
        connection: Connection {
            ca_file: None,
            proxy: None,
            connect_timeout: Duration::from_secs(2),
            idle_timeout: Duration::from_secs(10),
            time_limit: Duration::ZERO,
        },
    }
}

fn wall_clock(ahead: i64) -> Arc<WallClock> {
    Arc::new(WallClock { ahead })
}

fn connect(options: S3Options) -> S3 {
    S3::new(options, wall_clock(0)).unwrap()
}

fn at(text: &str) -> ObjectAddress {
    ObjectAddress::parse(text).unwrap()
}

fn code<T>(outcome: Result<T>) -> Option<ImsCode> {
    outcome.err().as_ref().and_then(Error::code)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_does_what_every_one_must() {
    let place = tempfile::tempdir().unwrap();
    std::fs::create_dir(place.path().join("images")).unwrap();
    let store = connect(options(&serve(place.path()).await));
    conformance::all(&store, "images").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_opens_no_bucket() {
    let place = tempfile::tempdir().unwrap();
    std::fs::create_dir(place.path().join("images")).unwrap();
    std::fs::write(place.path().join("images/one"), b"one").unwrap();
    let mut wrong = options(&serve(place.path()).await);
    wrong.access_key.secret = Zeroizing::new("another".to_owned());
    let store = connect(wrong);
    let found = store.look(&at("images:one")).await;
    assert!(found.unwrap_err().is_transient(), "an operator mends it");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_signed_with_the_given_clocks_time() {
    const DAY: i64 = 24 * 60 * 60;
    let place = tempfile::tempdir().unwrap();
    std::fs::create_dir(place.path().join("images")).unwrap();
    std::fs::write(place.path().join("images/one"), b"one").unwrap();
    let url = serve(place.path()).await;
    // The store judges by this machine's clock.
    for (ahead, taken) in [(-DAY, false), (0, true), (DAY, false)] {
        let store = S3::new(options(&url), wall_clock(ahead)).unwrap();
        let found = store.look(&at("images:one")).await;
        assert_eq!(found.is_ok(), taken, "{ahead} s: {found:?}");
        let waits = found.err().is_none_or(|error| error.is_transient());
        assert!(waits, "an operator mends it");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_is_replaced_while_it_is_read_ends_the_read() {
    let place = tempfile::tempdir().unwrap();
    std::fs::create_dir(place.path().join("images")).unwrap();
    let store = connect(options(&serve(place.path()).await));
    let path = place.path().join("images/disk");
    std::fs::write(&path, vec![1; 24 << 20]).unwrap();
    let address = at("images:disk");
    let facts = store.look(&address).await.unwrap();
    let size = facts.size.bytes();
    let mut bytes = store.read(&address, &facts, 0..size);
    assert!(bytes.next().await.unwrap().is_ok());
    // At one instant, as in a store of objects: who reads sees the one or the other, and none that is half written.
    let other = place.path().join("other");
    std::fs::write(&other, vec![2; 24 << 20]).unwrap();
    std::fs::rename(&other, &path).unwrap();
    let rest: Result<Vec<Bytes>> = bytes.try_collect().await;
    assert_eq!(code(rest), Some(ImsCode::IMG_0057));
    std::fs::remove_file(&path).unwrap();
    let gone: Result<Vec<Bytes>> = store.read(&address, &facts, 0..size).try_collect().await;
    assert_eq!(code(gone), Some(ImsCode::IMG_0057));
}

/// Answers a list with `listing`, and every other request with `answer`.
async fn parrot(answer: String, listing: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let (answer, listing) = (answer.clone(), listing.clone());
            tokio::spawn(async move {
                let mut request = [0; 4096];
                let length = socket.read(&mut request).await.unwrap();
                let request = String::from_utf8_lossy(&request[..length]);
                let words = match request.contains("list-type") {
                    true => listing,
                    false => answer,
                };
                socket.write_all(words.as_bytes()).await.unwrap();
            });
        }
    });
    format!("http://{address}")
}

#[tokio::test(flavor = "multi_thread")]
async fn each_refusal_of_a_store_has_its_code() {
    let of = |status: &str, body: &str| {
        let length = body.len();
        format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")
    };
    let empty = of(
        "200 OK",
        "<ListBucketResult><Name>images</Name><KeyCount>0</KeyCount></ListBucketResult>",
    );
    for (status, s3, open, expected) in [
        (
            "404 Not Found",
            "NoSuchBucket",
            false,
            Some(ImsCode::IMG_0069),
        ),
        ("404 Not Found", "NoSuchKey", true, Some(ImsCode::IMG_0057)),
        ("404 Not Found", "NoSuchKey", false, Some(ImsCode::IMG_0069)),
        (
            "403 Forbidden",
            "AccessDenied",
            true,
            Some(ImsCode::IMG_0057),
        ),
        (
            "403 Forbidden",
            "AccessDenied",
            false,
            Some(ImsCode::IMG_0069),
        ),
        ("403 Forbidden", "InvalidAccessKeyId", false, None),
        (
            "301 Moved",
            "PermanentRedirect",
            false,
            Some(ImsCode::IMG_0058),
        ),
        (
            "400 Bad Request",
            "AuthorizationHeaderMalformed",
            false,
            Some(ImsCode::IMG_0058),
        ),
        ("416 Range", "InvalidRange", true, Some(ImsCode::IMG_0057)),
        (
            "412 Precondition",
            "PreconditionFailed",
            true,
            Some(ImsCode::IMG_0057),
        ),
        ("503 Slow Down", "SlowDown", true, None),
        ("500 Oh", "InternalError", true, None),
    ] {
        let refusal = of(status, &format!("<Error><Code>{s3}</Code></Error>"));
        let listing = match open {
            true => empty.clone(),
            false => refusal.clone(),
        };
        let store = connect(options(&parrot(refusal, listing).await));
        let refused = store.look(&at("images:one")).await.unwrap_err();
        assert_eq!(refused.code(), expected, "{s3}: {refused:?}");
        assert_eq!(refused.is_transient(), expected.is_none(), "{s3}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_away_or_silent_is_told_as_that() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = closed.local_addr().unwrap();
    drop(closed);
    let store = connect(options(&format!("http://{address}")));
    let refused = store.look(&at("images:one")).await.unwrap_err();
    assert!(refused.is_transient(), "{refused:?}");

    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut options = options(&format!("http://{}", silent.local_addr().unwrap()));
    options.connection.idle_timeout = Duration::from_millis(200);
    let store = connect(options);
    let refused = store.look(&at("images:one")).await.unwrap_err();
    assert!(refused.is_transient(), "{refused:?}");
}

#[test]
fn options_that_can_not_work_are_refused() {
    let of = |endpoint: &str, allow_http: bool| {
        let options = S3Options {
            allow_http,
            ..options(endpoint)
        };
        S3::new(options, wall_clock(0))
            .err()
            .map(|error| error.kind())
    };
    assert_eq!(of("http://store.example", true), None);
    assert_eq!(of("https://store.example:8443/prefix", false), None);
    for endpoint in [
        "http://store.example",
        "store.example",
        "ftp://store.example",
        "https://",
        "https://store.example/?x",
    ] {
        assert_eq!(
            of(endpoint, false),
            Some(ErrorKind::InvalidRequest),
            "{endpoint}"
        );
    }
}
