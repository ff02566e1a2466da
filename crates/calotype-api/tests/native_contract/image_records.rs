//! Making, showing, changing and deleting images.

use calotype_core::app::{Limits, Profile, Settings};
use http::Method;
use serde_json::{Value, json};

use crate::harness::{ADMIN, ALICE, BOB, OLD_PATCH, PATCH, Rig, UNKNOWN, pretty};

#[tokio::test]
async fn a_new_image_is_answered_with_its_document_and_its_location() {
    let rig = Rig::new().await;
    let body = json!({
        "name": "plate", "disk_format": "qcow2", "container_format": "bare", "tags": ["b", "a", "b"],
        "min_disk": 1, "min_ram": 2, "protected": true, "os_hidden": true, "hw_disk_bus": "scsi",
        "__os_version": "Ubuntu 18.04 server 64bit", "__description": "a plate", "enterprise_project_id": "",
    });
    let made = rig.post("alice", "/v2/images", &body).await.expect(201);
    let image = made.json();
    let id = image["id"].as_str().unwrap();
    assert_eq!(
        made.header("location"),
        format!("http://images.example:9292/v2/images/{id}")
    );
    assert_eq!(made.header("content-type"), "application/json");
    assert!(made.headers.get("openstack-image-import-methods").is_none());
    insta::assert_snapshot!("a_new_image", pretty(&image, id));
    assert_eq!(rig.show(id).await, image);
    assert_eq!(rig.traces().await, ["createImage"]);
}

#[tokio::test]
async fn a_bare_request_makes_a_shared_image_without_formats_or_under_otcs_profile_a_private_one_with_them()
 {
    let rig = Rig::new().await;
    let made = rig.post("alice", "/v2/images", &json!({})).await;
    let image = made.expect(201).json();
    assert_eq!(image["visibility"], "shared");
    assert_eq!(image["name"], Value::Null);
    assert_eq!(image["disk_format"], Value::Null);
    assert_eq!(image["owner"], ALICE);
    let id = image["id"].as_str().unwrap();
    rig.upload("alice", id, "bytes").await.expect(400);

    let settings = Settings {
        profile: Profile::Otc,
        ..Settings::default()
    };
    let rig = Rig::with(settings).await;
    let made = rig.post("alice", "/v2/images", &json!({})).await;
    let image = made.expect(201).json();
    assert_eq!(image["visibility"], "private");
    assert_eq!(image["disk_format"], "zvhd2");
    assert_eq!(image["container_format"], "bare");
    assert_eq!(image["__os_version"], "Other Linux(64 bit)");
    assert_eq!(image["__os_bit"], "64");
}

#[tokio::test]
async fn a_request_that_breaks_a_rule_makes_nothing() {
    let rig = Rig::new().await;
    let many: serde_json::Map<_, _> = (0..129).map(|n| (format!("p{n}"), json!("x"))).collect();
    let tags: Vec<_> = (0..129).map(|n| n.to_string()).collect();
    for (body, status) in [
        (json!([]), 400),
        (json!("x"), 400),
        (json!({"name": 7}), 400),
        (json!({"name": "x".repeat(256)}), 400),
        (json!({"name": "a\u{0}b"}), 400),
        (json!({"disk_format": "floppy"}), 400),
        (json!({"container_format": "box"}), 400),
        (json!({"min_disk": -1}), 400),
        (json!({"min_ram": 2_147_483_648_u64}), 400),
        (json!({"visibility": "secret"}), 400),
        (json!({"tags": [""]}), 400),
        (json!({"tags": ["x".repeat(256)]}), 400),
        (json!({"id": "1"}), 400),
        (json!({"x": 1}), 400),
        (json!({"": "x"}), 400),
        (json!({"x".repeat(256): "x"}), 400),
        (json!({"x": "y".repeat(65_536)}), 413),
        (json!({"virtual_env_type": "Mainframe"}), 400),
        (json!({"__description": "<b>"}), 400),
        (json!({"enterprise_project_id": UNKNOWN}), 400),
        (json!({"tags": tags}), 413),
        (Value::Object(many), 413),
        (json!({"visibility": "public"}), 403),
        (json!({"owner": BOB}), 403),
        (json!({"status": "active"}), 403),
        (json!({"size": 1}), 403),
        (
            json!({"locations": [{"url": "file:///etc/passwd", "metadata": {}}]}),
            403,
        ),
        (json!({"location": "file:///etc/passwd"}), 403),
        (json!({"__image_location": "x"}), 403),
        (json!({"__system__cmkid": "x"}), 403),
        (json!({"__isregistered": "false"}), 403),
        (json!({"os_glance_import_task": "x"}), 403),
    ] {
        let answer = rig.post("alice", "/v2/images", &body).await;
        assert_eq!(answer.status.as_u16(), status, "{body}");
        let error = answer.json();
        assert!(!error["message"].as_str().unwrap().is_empty(), "{body}");
    }
    let malformed = [("content-type", "application/json")];
    for body in ["", "{", "{\"a\":\"b\",}", "\u{1}", &"[".repeat(20_000)] {
        let answer = rig.send(
            "alice",
            Method::POST,
            "/v2/images",
            &malformed,
            body.to_owned(),
        );
        answer.await.expect(400);
    }
    let text = [("content-type", "text/plain")];
    let answer = rig.send("alice", Method::POST, "/v2/images", &text, "{}");
    answer.await.expect(415);
    let large = "x".repeat(65 << 10);
    let answer = rig.send("alice", Method::POST, "/v2/images", &malformed, large);
    answer.await.expect(413);
    rig.post("rita", "/v2/images", &json!({})).await.expect(403);
    rig.post("", "/v2/images", &json!({})).await.expect(401);
    rig.post("mallory", "/v2/images", &json!({}))
        .await
        .expect(401);
    assert_eq!(rig.traces().await, Vec::<String>::new());
}

#[tokio::test]
async fn an_id_is_used_once_and_never_again() {
    let rig = Rig::new().await;
    let body = json!({"id": UNKNOWN});
    let path = format!("/v2/images/{UNKNOWN}");
    let made = rig.post("alice", "/v2/images", &body).await.expect(201);
    assert_eq!(made.json()["id"], UNKNOWN);
    rig.post("bob", "/v2/images", &body).await.expect(409);
    rig.delete("alice", &path).await.expect(204);
    rig.delete("alice", &path).await.expect(404);
    rig.get("alice", &path).await.expect(404);
    rig.post("alice", "/v2/images", &body).await.expect(409);
}

#[tokio::test]
async fn an_administrator_makes_images_for_others_and_makes_them_public() {
    let rig = Rig::new().await;
    let body = json!({"owner": BOB, "visibility": "public"});
    let made = rig.post("admin", "/v2/images", &body).await.expect(201);
    let image = made.json();
    assert_eq!(
        (&image["owner"], &image["__imagetype"]),
        (&json!(BOB), &json!("gold"))
    );
    let path = format!("/v2/images/{}", image["id"].as_str().unwrap());
    rig.get("alice", &path).await.expect(200);
    rig.delete("alice", &path).await.expect(403);
    let own = rig
        .post("admin", "/v2/images", &json!({"owner": null}))
        .await;
    assert_eq!(own.expect(201).json()["owner"], ADMIN);
}

#[tokio::test]
async fn an_idempotency_key_makes_one_image_however_often_it_is_sent() {
    let rig = Rig::new().await;
    let send = async |who: &str, body: &str| {
        let headers = [
            ("content-type", "application/json"),
            ("idempotency-key", "once"),
        ];
        rig.send(who, Method::POST, "/v2/images", &headers, body.to_owned())
            .await
    };
    let first = send("alice", r#"{"name":"x"}"#).await.expect(201);
    let again = send("alice", r#"{"name":"x"}"#).await.expect(201);
    assert_eq!(again.body, first.body);
    assert_eq!(again.header("location"), first.header("location"));
    assert_eq!(again.header("idempotency-replayed"), "true");
    send("alice", r#"{"name":"y"}"#).await.expect(409);
    let bobs = send("bob", r#"{"name":"x"}"#).await.expect(201);
    assert_ne!(bobs.body, first.body);
    assert_eq!(rig.traces().await, ["createImage"; 2]);
}

#[tokio::test]
async fn who_may_not_see_an_image_learns_nothing_of_it() {
    let rig = Rig::new().await;
    let id = rig.active(b"bytes").await;
    for path in ["", "/file", "/members", &format!("/members/{BOB}")] {
        let path = format!("/v2/images/{id}{path}");
        let hidden = rig.get("bob", &path).await.expect(404);
        let absent = rig
            .get("bob", &path.replace(&id, UNKNOWN))
            .await
            .expect(404);
        let text = String::from_utf8(hidden.body.to_vec()).unwrap();
        assert_eq!(text.replace(&id, UNKNOWN).as_bytes(), absent.body, "{path}");
    }
    rig.get("alice", "/v2/images/plate").await.expect(404);
    rig.get("alice", "/v2/images/%FF").await.expect(404);
    rig.get("", &format!("/v2/images/{id}")).await.expect(401);
}

#[tokio::test]
async fn a_patch_changes_all_that_it_names_or_nothing() {
    let rig = Rig::new().await;
    let path = format!("/v2/images/{}", rig.active(b"bytes").await);
    let body = json!([
        {"op": "add", "path": "/name", "value": "new"},
        {"op": "add", "path": "/a~1b~0c", "value": "x"},
        {"op": "replace", "path": "/a~1b~0c", "value": "y"},
        {"op": "replace", "path": "/tags", "value": ["z", "a"]},
        {"op": "replace", "path": "/visibility", "value": "private"},
        {"op": "replace", "path": "/min_ram", "value": 7},
        {"op": "add", "path": "/__os_version", "value": "Windows 7 Professional 32bit"},
        {"op": "replace", "path": "/owner", "value": ALICE},
        {"op": "replace", "path": "/disk_format", "value": "raw"},
    ]);
    let image = rig.patch("alice", &path, &body).await.expect(200).json();
    assert_eq!(image["name"], "new");
    assert_eq!(image["a/b~c"], "y");
    assert_eq!(image["tags"], json!(["a", "z"]));
    assert_eq!(image["visibility"], "private");
    assert_eq!(image["min_ram"], 7);
    assert_eq!(image["__os_type"], "Windows");
    assert_eq!(image["size"], 5);
    for (body, status) in [
        (json!({}), 400),
        (json!([{"op": "add", "path": "/name", "value": 1}]), 400),
        (
            json!([{"op": "replace", "path": "/absent", "value": "x"}]),
            409,
        ),
        (json!([{"op": "remove", "path": "/absent"}]), 409),
        (json!([{"op": "remove", "path": "/name"}]), 403),
        (json!([{"op": "remove", "path": "/tags"}]), 403),
        (
            json!([{"op": "replace", "path": "/disk_format", "value": "iso"}]),
            403,
        ),
        (
            json!([{"op": "replace", "path": "/container_format", "value": "ova"}]),
            403,
        ),
        (
            json!([{"op": "replace", "path": "/visibility", "value": "public"}]),
            403,
        ),
        (
            json!([{"op": "replace", "path": "/owner", "value": BOB}]),
            403,
        ),
        (
            json!([{"op": "replace", "path": "/status", "value": "queued"}]),
            403,
        ),
        (
            json!([{"op": "add", "path": "/enterprise_project_id", "value": UNKNOWN}]),
            400,
        ),
        (
            json!([{"op": "add", "path": "/name", "value": "kept out"}, {"op": "remove", "path": "/absent"}]),
            409,
        ),
    ] {
        let answer = rig.patch("alice", &path, &body).await;
        assert_eq!(answer.status.as_u16(), status, "{body}");
        assert_eq!(rig.get("alice", &path).await.json(), image, "{body}");
    }
    let refused = rig.patch("rita", &path, &json!([])).await;
    refused.expect(403);
    let removed = rig
        .patch(
            "alice",
            &path,
            &json!([{"op": "remove", "path": "/a~1b~0c"}]),
        )
        .await;
    assert_eq!(removed.expect(200).json().get("a/b~c"), None);
    assert_eq!(
        rig.traces().await,
        ["createImage", "uploadImage", "updateImage", "updateImage"]
    );
}

#[tokio::test]
async fn an_empty_patch_and_one_to_what_is_there_write_nothing() {
    let rig = Rig::new().await;
    let id = rig.queued().await;
    let path = format!("/v2/images/{id}");
    for body in [
        json!([]),
        json!([{"op": "replace", "path": "/visibility", "value": "shared"}]),
        json!([{"op": "replace", "path": "/name", "value": "plate"}]),
    ] {
        rig.patch("alice", &path, &body).await.expect(200);
    }
    assert_eq!(rig.traces().await, ["createImage"]);
}

#[tokio::test]
async fn the_old_form_of_a_patch_adds_only_what_is_not_there() {
    let rig = Rig::new().await;
    let path = format!("/v2/images/{}", rig.queued().await);
    let send = async |body: Value| {
        let media = [("content-type", OLD_PATCH)];
        rig.send("alice", Method::PATCH, &path, &media, body.to_string())
            .await
    };
    send(json!([{"add": "/x", "value": "1"}])).await.expect(200);
    send(json!([{"add": "/x", "value": "2"}])).await.expect(409);
    send(json!([{"add": "/name", "value": "2"}]))
        .await
        .expect(409);
    send(json!([{"replace": "/x", "value": "2"}]))
        .await
        .expect(200);
    send(json!([{"remove": "/x"}])).await.expect(200);
    send(json!([{"op": "remove", "path": "/x"}]))
        .await
        .expect(400);
}

#[tokio::test]
async fn a_patch_of_another_media_type_is_told_which_there_are() {
    let rig = Rig::new().await;
    let path = format!("/v2/images/{}", rig.queued().await);
    for media in ["application/json", "application/json-patch+json", ""] {
        let headers = [("content-type", media)];
        let answer = rig
            .send("alice", Method::PATCH, &path, &headers, "[]")
            .await;
        let answer = answer.expect(415);
        let accepted = answer.header("accept-patch");
        assert!(accepted.contains(PATCH) && accepted.contains(OLD_PATCH));
    }
}

#[tokio::test]
async fn changes_made_at_once_are_all_made() {
    let rig = Rig::new().await;
    let id = rig.queued().await;
    let tags: Vec<_> = (0..6)
        .map(|n| format!("/v2/images/{id}/tags/t{n}"))
        .collect();
    let adding = tags.iter().map(|path| rig.put("alice", path, &Value::Null));
    for answer in futures_util::future::join_all(adding).await {
        answer.expect(204);
    }
    assert_eq!(
        rig.show(&id).await["tags"],
        json!(["t0", "t1", "t2", "t3", "t4", "t5"])
    );
}

#[tokio::test]
async fn a_protected_image_stays_until_it_is_no_longer_protected() {
    let rig = Rig::new().await;
    let path = format!("/v2/images/{}", rig.queued().await);
    let protect = |value: bool| json!([{"op": "replace", "path": "/protected", "value": value}]);
    rig.patch("alice", &path, &protect(true)).await.expect(200);
    rig.delete("alice", &path).await.expect(403);
    rig.delete("admin", &path).await.expect(403);
    rig.patch("alice", &path, &protect(false)).await.expect(200);
    rig.delete("rita", &path).await.expect(403);
    let json = [("content-type", "application/json")];
    let body = r#"{"delete_backup":true}"#;
    let answer = rig.send("alice", Method::DELETE, &path, &json, body).await;
    answer.expect(204);
    assert_eq!(rig.traces().await.last().unwrap(), "deleteImage");
}

#[tokio::test]
async fn tags_come_and_go_one_at_a_time() {
    let settings = Settings {
        limits: Limits {
            tags_per_image: 1,
            ..Limits::default()
        },
        ..Settings::default()
    };
    let rig = Rig::with(settings).await;
    let id = rig.queued().await;
    let tag = |name: &str| format!("/v2/images/{id}/tags/{name}");
    for _ in 0..2 {
        rig.put("alice", &tag("k%3Dv"), &Value::Null)
            .await
            .expect(204);
    }
    assert_eq!(rig.show(&id).await["tags"], json!(["k=v"]));
    rig.put("alice", &tag("more"), &Value::Null)
        .await
        .expect(413);
    let long = tag(&"x".repeat(256));
    rig.put("alice", &long, &Value::Null).await.expect(400);
    rig.put("rita", &tag("more"), &Value::Null)
        .await
        .expect(403);
    rig.put("bob", &tag("more"), &Value::Null).await.expect(404);
    rig.delete("alice", &tag("k=v")).await.expect(204);
    rig.delete("alice", &tag("k=v")).await.expect(404);
    assert_eq!(rig.traces().await, ["createImage", "addTag", "deleteTag"]);
}

#[tokio::test]
async fn a_project_has_as_many_images_as_it_may_have() {
    let settings = Settings {
        limits: Limits {
            images_per_project: 1,
            ..Limits::default()
        },
        ..Settings::default()
    };
    let rig = Rig::with(settings).await;
    let id = rig.queued().await;
    rig.post("alice", "/v2/images", &json!({}))
        .await
        .expect(413);
    rig.post("bob", "/v2/images", &json!({})).await.expect(201);
    let path = format!("/v2/images/{id}");
    rig.delete("alice", &path).await.expect(204);
    rig.post("alice", "/v2/images", &json!({}))
        .await
        .expect(201);
}

#[tokio::test]
async fn patches_made_at_once_are_each_made_whole() {
    let rig = Rig::new().await;
    let id = rig.queued().await;
    let path = format!("/v2/images/{id}");
    let pair = |value: &str| {
        json!([
            {"op": "add", "path": "/left", "value": value},
            {"op": "add", "path": "/right", "value": value},
        ])
    };
    let bodies: Vec<_> = ["a", "b", "c", "d"].map(pair).into();
    let changing = bodies.iter().map(|body| rig.patch("alice", &path, body));
    for answer in futures_util::future::join_all(changing).await {
        let image = answer.expect(200).json();
        assert_eq!(image["left"], image["right"]);
    }
    let image = rig.show(&id).await;
    assert_eq!(image["left"], image["right"]);
}
