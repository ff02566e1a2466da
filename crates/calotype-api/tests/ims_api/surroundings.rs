//! What surrounds the operations: unknown paths, wrong methods, health, metrics, the description, administration.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use calotype_core::app::{Settings, StoreEntry};
use calotype_core::id::BlobId;
use calotype_core::ports::Images as _;
use http::header;
use serde_json::json;

use crate::harness::{ADMIN, MEMBER, READER, World, request};

#[tokio::test]
async fn an_unknown_path_is_not_found_in_its_familys_form() {
    let world = World::new().await;
    let ims = world
        .get(MEMBER, "/v1/cloudimages/nothing/here/at/all")
        .await;
    assert_eq!(ims.refusal(), (404, "IMG.0121".to_owned()));
    let mut native = request("GET", MEMBER, "/v2/images/", Body::empty());
    let json_alone = "application/json".parse().unwrap();
    native.headers_mut().insert(header::ACCEPT, json_alone);
    let native = world.send(native).await;
    assert_eq!(native.status, 404);
    assert_eq!(native.json()["title"], "Not Found");
    assert_eq!(world.get(MEMBER, "//v2/cloudimages").await.status, 404);
    assert_eq!(world.get("", "/nothing/here").await.status, 404);
}

#[tokio::test]
async fn a_stranger_learns_nothing_of_the_versioned_paths() {
    let world = World::new().await;
    for path in [
        "/v2/images/",
        "/v2/nothing/here/at/all",
        "/v1/cloudimages/x/y/z",
    ] {
        assert_eq!(world.get("", path).await.status, 401, "{path}");
    }
}

#[tokio::test]
async fn a_wrong_method_is_told_which_are_allowed() {
    let world = World::new().await;
    let wrong = request("DELETE", MEMBER, "/v2/cloudimages", Body::empty());
    let answer = world.send(wrong).await;
    assert_eq!(answer.refusal(), (405, "IMG.0105".to_owned()));
    let allowed = answer.headers[header::ALLOW].to_str().unwrap();
    assert!(allowed.contains("GET"), "{allowed}");
    let wrong = request("PUT", MEMBER, "/healthz", Body::empty());
    assert_eq!(world.send(wrong).await.status, 405);
}

#[tokio::test]
async fn every_answer_has_a_request_id_of_ours() {
    let world = World::new().await;
    for path in ["/healthz", "/v2/cloudimages", "/nothing"] {
        let mut request = request("GET", "", path, Body::empty());
        let forged = "req-forged".parse().unwrap();
        request.headers_mut().insert("x-request-id", forged);
        let answer = world.send(request).await;
        let id = answer.headers["x-openstack-request-id"].to_str().unwrap();
        assert!(id.starts_with("req-") && id != "req-forged", "{path}");
    }
}

#[tokio::test]
async fn health_metrics_and_description_are_public() {
    let world = World::new().await;
    assert_eq!(world.get("", "/healthz").await.status, 200);
    assert_eq!(world.get("", "/readyz").await.status, 200);
    let metrics = world.get("", "/metrics").await;
    assert_eq!(metrics.text, "calotype_up 1\n");
    let description = world.get("", "/openapi.json").await.json();
    assert_eq!(description["openapi"], "3.1.0");
    assert!(description["paths"]["/v1/cloudimages/{image_id}/copy"]["post"].is_object());
}

#[tokio::test]
async fn a_service_whose_catalog_is_away_lives_and_is_not_ready() {
    let world = World::new().await;
    world.catalog.close().await;
    assert_eq!(world.get("", "/healthz").await.status, 200);
    assert_eq!(world.get("", "/readyz").await.status, 503);
    assert_eq!(world.get("", "/metrics").await.status, 200);
    let list = world.get(MEMBER, "/v2/cloudimages").await;
    assert!(list.status.is_server_error());
    assert_eq!(list.refusal().1, "IMG.0061");
}

#[tokio::test]
async fn an_enterprise_project_is_made_listed_disabled_and_enabled() {
    let world = World::new().await;
    let base = "/admin/v1/enterprise-projects";
    let made = world.post(ADMIN, base, r#"{"name":"press"}"#).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let project = made.json();
    assert_eq!(project["enabled"], true);
    let id = project["id"].as_str().unwrap();
    let taken = world.post(ADMIN, base, r#"{"name":"press"}"#).await;
    assert_eq!(taken.status, 409);
    let listed = world.get(ADMIN, base).await.json();
    let listed = listed["enterprise_projects"].as_array().unwrap().clone();
    assert!(listed.contains(&project));

    let source = world.image(|_| ()).await.id;
    let body = json!({ "name": "a", "enterprise_project_id": id }).to_string();
    let path = format!("/v1/cloudimages/{source}/copy");
    for (verb, status) in [("disable", 400), ("enable", 200)] {
        let switched = world.post(ADMIN, &format!("{base}/{id}/{verb}"), "").await;
        assert_eq!(
            (switched.status.as_u16(), switched.text.as_str()),
            (204, "")
        );
        let copied = world.post(MEMBER, &path, &body).await;
        assert_eq!(copied.status, status, "{verb}: {}", copied.text);
    }
    for (id, status) in [
        ("0", 409),
        ("nonsense", 404),
        ("aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee", 404),
    ] {
        let answer = world.post(ADMIN, &format!("{base}/{id}/disable"), "").await;
        assert_eq!(answer.status, status, "{id}");
    }
}

#[tokio::test]
async fn administration_is_for_administrators() {
    let world = World::new().await;
    let cases = [
        ("GET", "/admin/v1/enterprise-projects"),
        ("POST", "/admin/v1/enterprise-projects"),
        ("POST", "/admin/v1/enterprise-projects/x/disable"),
        ("POST", "/admin/v1/enterprise-projects/x/enable"),
        ("GET", "/admin/v1/verify"),
    ];
    for (method, path) in cases {
        for (token, expected) in [("", (401, "IMG.0087")), (MEMBER, (403, "IMG.0026"))] {
            let answer = world
                .send(request(method, token, path, Body::empty()))
                .await;
            let (status, code) = answer.refusal();
            assert_eq!((status, code.as_str()), expected, "{method} {path}");
        }
    }
    assert_eq!(world.get("", "/admin/v1/audit").await.status, 401);
    assert_eq!(world.get("", "/admin/v1/jobs").await.status, 401);
}

#[tokio::test]
async fn the_verifier_answers_what_it_checked() {
    let world = World::new().await;
    world.image(|_| ()).await;
    for path in ["/admin/v1/verify", "/admin/v1/verify?deep=true"] {
        let seen = world.get(ADMIN, path).await.json();
        assert_eq!(
            seen,
            json!({ "blobs_checked": 1, "closed": 0, "orphans": 0, "leftovers": 0, "violations": [] })
        );
    }
    let bad = world.get(ADMIN, "/admin/v1/verify?deep=very").await;
    assert_eq!(bad.refusal(), (400, "IMG.0001".to_owned()));
}

#[tokio::test]
async fn staged_bytes_of_a_stored_blob_are_told_of_and_removed_after_the_grace() {
    use calotype_core::ports::{Blobs as _, DigestChoice, WriteOptions};
    let world = World::new().await;
    let blob = world.image(|_| ()).await.blob.unwrap();
    let master = calotype_core::keys::MasterKey::Service;
    let key = world.blobs.fresh_key(blob, &master).await.unwrap();
    let options = WriteOptions {
        digests: DigestChoice::default(),
        max_size: calotype_core::size::ByteSize::mib(1),
        expected_size: None,
        progress: std::sync::Arc::default(),
    };
    // An attempt that another overtook, and that died.
    let (fed, source) = tokio::sync::mpsc::channel(1);
    let source = futures_util::stream::unfold(source, |mut source| async {
        source.recv().await.map(|bytes| (bytes, source))
    });
    let write = world.blobs.write(blob, &key, Box::pin(source), options);
    let dies = async {
        fed.send(Ok(bytes::Bytes::from_static(b"late")))
            .await
            .unwrap();
        while world.staged().await.is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        _ = write => panic!("its source has no end"),
        () = dies => {}
    }
    let verify = async || world.get(ADMIN, "/admin/v1/verify").await.json();
    let seen = verify().await;
    assert_eq!(
        (&seen["leftovers"], &seen["violations"]),
        (&json!(1), &json!([]))
    );
    let done = world.service.reconcile().await.unwrap();
    assert_eq!(done.orphans_deleted, 0, "younger than the grace");

    let grace = calotype_core::app::Settings::default().deletion_grace;
    world.clock.advance(grace * 3);
    let seen = verify().await;
    assert_eq!(seen["violations"][0]["invariant"], 3, "{seen}");
    let done = world.service.reconcile().await.unwrap();
    assert_eq!(done.orphans_deleted, 1);
    let seen = verify().await;
    assert_eq!(
        (&seen["leftovers"], &seen["violations"]),
        (&json!(0), &json!([]))
    );
    assert_eq!(seen["orphans"], 0);
    assert_eq!(world.stored().await.len(), 1);
}

#[tokio::test]
async fn what_is_collected_while_the_verifier_looks_is_no_fault() {
    let world = Arc::new(World::new().await);
    let image = world.image(|_| ()).await;
    let orphan: BlobId = "00000000-0000-4000-8000-00000000000f".parse().unwrap();
    world.write(orphan, None).await;
    world.clock.advance(Settings::default().deletion_grace * 3);
    let there = Arc::clone(&world);
    world.blobs.meanwhile(async move {
        let gone = there
            .catalog
            .delete_image(&image, Duration::ZERO, there.trail());
        gone.await.unwrap();
        let done = there.service.reconcile().await.unwrap();
        assert_eq!((done.blobs_deleted, done.orphans_deleted), (1, 1));
    });
    let seen = world.get(ADMIN, "/admin/v1/verify").await.json();
    assert_eq!(
        (&seen["orphans"], &seen["violations"]),
        (&json!(0), &json!([]))
    );
}

#[tokio::test]
async fn a_store_that_does_not_answer_holds_up_no_other() {
    let mut settings = Settings::default();
    // In the order in which they are looked through; this process can't reach the first.
    let away = StoreEntry {
        name: "away".parse().unwrap(),
        ..settings.stores.stores[0].clone()
    };
    settings.stores.stores.insert(0, away);
    let grace = settings.deletion_grace;
    let world = World::with(settings).await;
    let kept = world.image(|_| ()).await.blob.unwrap();
    let orphan: BlobId = "00000000-0000-4000-8000-00000000000f".parse().unwrap();
    world.write(orphan, None).await;
    world.clock.advance(grace * 3);
    let done = world.service.reconcile().await.unwrap();
    assert_eq!(done.orphans_deleted, 1);
    let left: Vec<_> = world.stored().await.into_iter().map(|(id, _)| id).collect();
    assert_eq!(left, [kept]);
    // Who verifies is told that not all was looked at.
    assert_eq!(world.get(ADMIN, "/admin/v1/verify").await.status, 503);
}

#[tokio::test]
async fn a_store_that_removes_nothing_is_asked_once_a_round() {
    let world = World::new().await;
    for _ in 0..3 {
        let image = world.image(|_| ()).await;
        let gone = world
            .catalog
            .delete_image(&image, Duration::ZERO, world.trail());
        gone.await.unwrap();
    }
    *world.blobs.keeps.lock().unwrap() = Some(0);
    for round in 1..=2 {
        let done = world.service.reconcile().await.unwrap();
        assert_eq!(done.blobs_deleted, 0);
        assert_eq!(*world.blobs.keeps.lock().unwrap(), Some(round));
    }
    *world.blobs.keeps.lock().unwrap() = None;
    let done = world.service.reconcile().await.unwrap();
    assert_eq!(done.blobs_deleted, 3);
    assert_eq!(world.stored().await, []);
}

#[tokio::test]
async fn the_audit_trail_tells_who_replicated_what_newest_first() {
    let world = World::new().await;
    let source = world.image(|_| ()).await.id;
    let path = format!("/v1/cloudimages/{source}/copy");
    assert_eq!(
        world.post(MEMBER, &path, r#"{"name":"a"}"#).await.status,
        200
    );
    let newest = world.get(READER, "/admin/v1/audit?limit=1").await.json();
    let event = &newest["events"][0];
    assert_eq!(event["trace_name"], "copyImage");
    assert_eq!(event["resource_type"], "ims");
    assert_eq!(event["resource_id"], source.to_string());
    assert_eq!(event["user_id"], "alice");
    let before = newest["next_before"].as_i64().unwrap();
    let older = world
        .get(READER, &format!("/admin/v1/audit?before={before}"))
        .await;
    let older = older.json();
    let older = older["events"].as_array().unwrap();
    assert!(!older.is_empty() && older.iter().all(|event| event["trace_name"] != "copyImage"));
}
