//! Bytes in and out.

use std::task::Poll;

use axum::body::Body;
use bytes::Bytes;
use calotype_blob::store::{Fault, Operation};
use calotype_core::app::{Limits, Settings};
use calotype_core::size::ByteSize;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use http::Method;
use serde_json::{Value, json};

use crate::harness::{OCTETS, Rig};

const HELLO_MD5: &str = "5d41402abc4b2a76b9719d911017c592";

#[tokio::test]
async fn what_goes_in_comes_out_and_the_record_tells_of_it() {
    let rig = Rig::new().await;
    let id = rig.queued().await;
    let path = format!("/v2/images/{id}/file");
    rig.get("alice", &path).await.expect(204);
    rig.upload("alice", &id, "hello").await.expect(204);
    let image = rig.show(&id).await;
    assert_eq!(image["status"], "active");
    assert_eq!(image["size"], 5);
    assert_eq!(image["__image_size"], "5");
    assert_eq!(image["checksum"], HELLO_MD5);
    assert_eq!(image["os_hash_algo"], "sha512");
    assert_eq!(image["active_at"], "2024-01-02T03:04:05Z");
    let file = rig.get("alice", &path).await.expect(200);
    assert_eq!(file.body, "hello");
    assert_eq!(file.header("content-type"), OCTETS);
    assert_eq!(file.header("content-length"), "5");
    assert_eq!(file.header("content-md5"), HELLO_MD5);
    assert_eq!(file.header("accept-ranges"), "bytes");
    let head = rig.send("alice", Method::HEAD, &path, &[], Body::empty());
    let head = head.await.expect(200);
    assert_eq!((head.header("content-length"), head.body.len()), ("5", 0));
    rig.upload("alice", &id, "other").await.expect(409);
    assert_eq!(rig.get("rita", &path).await.expect(200).body, "hello");
}

#[tokio::test]
async fn an_image_may_have_no_bytes_at_all() {
    let rig = Rig::new().await;
    let id = rig.active(b"").await;
    let image = rig.show(&id).await;
    assert_eq!(
        (&image["status"], &image["size"]),
        (&json!("active"), &json!(0))
    );
    let path = format!("/v2/images/{id}/file");
    let file = rig.get("alice", &path).await.expect(200);
    assert_eq!(file.header("content-length"), "0");
    let range = [("range", "bytes=0-")];
    let answer = rig.send("alice", Method::GET, &path, &range, Body::empty());
    answer.await.expect(416);
}

#[tokio::test]
async fn a_range_is_answered_with_its_bytes_and_its_place() {
    let rig = Rig::new().await;
    let path = format!("/v2/images/{}/file", rig.active(b"0123456789").await);
    let ask = async |name: &str, value: &str| {
        let headers = [(name, value)];
        rig.send("alice", Method::GET, &path, &headers, Body::empty())
            .await
    };
    for (name, value, place, bytes) in [
        ("range", "bytes=0-4", "bytes 0-4/10", "01234"),
        ("range", "bytes=5-", "bytes 5-9/10", "56789"),
        ("range", "bytes=-3", "bytes 7-9/10", "789"),
        ("range", "bytes=0-99", "bytes 0-9/10", "0123456789"),
        ("content-range", "bytes 2-3/10", "bytes 2-3/10", "23"),
        ("content-range", "bytes 2-3/*", "bytes 2-3/10", "23"),
    ] {
        let answer = ask(name, value).await.expect(206);
        assert_eq!(answer.header("content-range"), place, "{value}");
        assert_eq!(answer.header("content-length"), bytes.len().to_string());
        assert_eq!(answer.body, bytes, "{value}");
        assert!(
            answer.headers.get("content-md5").is_none(),
            "not of the whole"
        );
    }
    for (name, value) in [
        ("range", "bytes=10-"),
        ("range", "bytes=4-3"),
        ("range", "nonsense"),
        ("content-range", "bytes 9-10/*"),
    ] {
        let answer = ask(name, value).await.expect(416);
        assert_eq!(answer.header("content-range"), "bytes */10", "{value}");
    }
    ask("range", "bytes=0-1,4-5").await.expect(400);
}

#[tokio::test]
async fn a_download_of_damaged_bytes_is_broken_off_and_does_not_end() {
    let rig = Rig::new().await;
    let path = format!("/v2/images/{}/file", rig.active(b"hello").await);
    rig.faults.inject(Some(Operation::Read), 0, Fault::Flip(9));
    let response = rig
        .open("alice", Method::GET, &path, &[], Body::empty())
        .await;
    let read: Result<Vec<Bytes>, _> = response.into_body().into_data_stream().try_collect().await;
    assert!(read.is_err(), "{read:?}");
    assert!(rig.faults.clear(), "the fault struck");
    assert_eq!(rig.get("alice", &path).await.expect(200).body, "hello");
}

#[tokio::test]
async fn a_full_store_refuses_the_upload_and_the_image_stays_queued() {
    let rig = Rig::new().await;
    let id = rig.queued().await;
    rig.faults.inject(Some(Operation::Append), 0, Fault::Full);
    rig.upload("alice", &id, "hello").await.expect(507);
    assert_eq!(rig.show(&id).await["status"], "queued");
    rig.upload("alice", &id, "hello").await.expect(204);
}

#[tokio::test]
async fn an_upload_that_is_not_as_declared_leaves_the_image_queued() {
    let rig = Rig::new().await;
    let id = rig.queued().await;
    let path = format!("/v2/images/{id}/file");
    let send = async |headers: &[(&str, &str)], body: Body| {
        rig.send("alice", Method::PUT, &path, headers, body).await
    };
    let octets = ("content-type", OCTETS);
    for (size, body) in [("4", "hello"), ("6", "hello"), ("0", "x"), ("1", "")] {
        let answer = send(&[octets, ("x-openstack-image-size", size)], body.into()).await;
        answer.expect(400);
        assert_eq!(rig.show(&id).await["status"], "queued", "{size}");
    }
    let both = [
        octets,
        ("content-length", "5"),
        ("x-openstack-image-size", "4"),
    ];
    send(&both, "hello".into()).await.expect(400);
    send(
        &[octets, ("x-openstack-image-size", "many")],
        "hello".into(),
    )
    .await
    .expect(400);
    send(&[("content-type", "application/json")], "hello".into())
        .await
        .expect(415);
    send(&[], "hello".into()).await.expect(415);
    let frames = stream::iter([Ok(Bytes::from_static(b"he"))]);
    let broken = frames.chain(stream::iter([Err(std::io::Error::other("gone"))]));
    send(&[octets], Body::from_stream(broken)).await.expect(400);
    assert_eq!(rig.show(&id).await["status"], "queued");
    send(&[octets, ("x-openstack-image-size", "5")], "hello".into())
        .await
        .expect(204);
}

#[tokio::test]
async fn an_upload_is_the_owners_and_no_larger_than_allowed() {
    let settings = Settings {
        limits: Limits {
            max_image_size: Some(ByteSize::new(5)),
            ..Limits::default()
        },
        ..Settings::default()
    };
    let rig = Rig::with(settings).await;
    let id = rig.queued().await;
    rig.upload("alice", &id, "larger").await.expect(413);
    let chunked =
        stream::iter(["lar", "ger"].map(|part| Ok::<_, std::io::Error>(Bytes::from(part))));
    rig.upload("alice", &id, Body::from_stream(chunked))
        .await
        .expect(413);
    assert_eq!(rig.show(&id).await["status"], "queued");
    rig.upload("rita", &id, "hello").await.expect(403);
    rig.upload("bob", &id, "hello").await.expect(404);
    rig.upload("", &id, "hello").await.expect(401);
    rig.upload("alice", &id, "hello").await.expect(204);
}

#[tokio::test]
async fn a_deactivated_image_keeps_its_bytes_to_itself() {
    let rig = Rig::new().await;
    let id = rig.active(b"hello").await;
    let file = format!("/v2/images/{id}/file");
    let action = |verb: &str| format!("/v2/images/{id}/actions/{verb}");
    for _ in 0..2 {
        rig.post("alice", &action("deactivate"), &Value::Null)
            .await
            .expect(204);
    }
    assert_eq!(rig.show(&id).await["status"], "deactivated");
    rig.get("alice", &file).await.expect(403);
    rig.get("admin", &file).await.expect(200);
    rig.post("rita", &action("reactivate"), &Value::Null)
        .await
        .expect(403);
    rig.post("bob", &action("reactivate"), &Value::Null)
        .await
        .expect(404);
    let octets = [("content-type", OCTETS)];
    let path = action("reactivate");
    let bare = rig.send("alice", Method::POST, &path, &octets, Body::empty());
    bare.await.expect(204);
    rig.get("alice", &file).await.expect(200);
    let traces = rig.traces().await;
    assert_eq!(traces[2..], ["deactivateImage", "reactivateImage"]);

    let queued = rig.queued().await;
    for verb in ["deactivate", "reactivate"] {
        let path = format!("/v2/images/{queued}/actions/{verb}");
        rig.post("alice", &path, &Value::Null).await.expect(403);
    }
}

/// A client may leave at any point: before its bytes are safe the image is queued again, and from the commit on it
/// is whole, also where the client left while the commit was on its way.
#[tokio::test]
async fn an_upload_that_is_left_at_any_point_leaves_a_queued_or_a_whole_image() {
    let rig = Rig::new().await;
    let mut polls = 0;
    loop {
        let id = rig.queued().await;
        let mut upload = Box::pin(rig.upload("alice", &id, "hello"));
        let mut left = polls;
        let answered = std::future::poll_fn(|context| {
            if left == 0 {
                return Poll::Ready(false);
            }
            left -= 1;
            upload.as_mut().poll(context).map(|_| true)
        })
        .await;
        drop(upload);
        let status = loop {
            let status = rig.show(&id).await["status"].clone();
            if status != "saving" {
                break status;
            }
            tokio::task::yield_now().await;
        };
        rig.service.reconcile().await.unwrap();
        let path = format!("/v2/images/{id}/file");
        let file = rig.get("alice", &path).await;
        match status.as_str().unwrap() {
            "queued" => assert_eq!(file.expect(204).body, ""),
            "active" => assert_eq!(file.expect(200).body, "hello"),
            other => panic!("the image is {other}"),
        }
        if answered {
            assert_eq!(status, "active");
            break;
        }
        polls += 1;
    }
}
