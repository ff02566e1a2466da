//! The tags of images through the IMS API.

use calotype_core::app::{Limits, Settings};
use calotype_core::image::{Image, ImageStatus, MemberStatus, Visibility};
use serde_json::{Value, json};

use crate::harness::{ADMIN, MEMBER, OTHER, OWN, READER, STRANGER, World};

const UNKNOWN: &str = "11111111-2222-4333-8444-555555555555";

fn tags_of(image: &Image) -> String {
    format!("/v2/{OWN}/images/{}/tags", image.id)
}

/// The tags that the record has.
async fn kept(world: &World, image: &Image) -> Vec<String> {
    world.record(image).await.tags
}

async fn tagged(world: &World, tags: &[&str]) -> Image {
    let tags: Vec<String> = tags.iter().map(|tag| (*tag).to_owned()).collect();
    world.image(|image| image.tags = tags).await
}

#[tokio::test]
async fn each_way_to_set_a_tag_replaces_what_has_its_key() {
    let world = World::new().await;
    let cases = [
        (json!({"tag": "env=dev"}), "env=dev"),
        (json!({"tag": "env.prod"}), "env=prod"),
        (json!({"tag": "env"}), "env"),
        (
            json!({"image_tag": {"key": " env ", "value": " a b "}}),
            "env=a b",
        ),
        (json!({"image_tag": {"key": "env", "value": ""}}), "env"),
    ];
    let image = tagged(&world, &["env=old", "env-2", "other"]).await;
    for (mut body, expected) in cases {
        body["image_id"] = json!(image.id.to_string());
        let answer = world
            .call("PUT", MEMBER, "/v1/cloudimages/tags", &body.to_string())
            .await;
        assert_eq!(
            (answer.status.as_u16(), answer.text.as_str()),
            (204, ""),
            "{body}"
        );
        assert_eq!(
            kept(&world, &image).await,
            ["env", "env-2", "other"]
                .map(|tag| { if tag == "env" { expected } else { tag } })
                .into_iter()
                .collect::<std::collections::BTreeSet<_>>()
                .into_iter()
                .collect::<Vec<_>>()
        );
    }
    let path = tags_of(&image);
    let body = json!({"tag": {"key": "env", "value": "one"}}).to_string();
    assert_eq!(world.post(MEMBER, &path, &body).await.status, 204);
    let body = json!({"action": "create", "tags": [
        {"key": "env", "value": "two"}, {"key": "Größe", "value": "1.5=x"},
    ]});
    let answer = world
        .post(MEMBER, &format!("{path}/action"), &body.to_string())
        .await;
    assert_eq!((answer.status.as_u16(), answer.text.as_str()), (204, ""));
    let shown = world.get(MEMBER, &path).await.json();
    let expected = json!([
        {"key": "Größe", "value": "1.5=x"}, {"key": "env", "value": "two"},
        {"key": "env-2", "value": ""}, {"key": "other", "value": ""},
    ]);
    assert_eq!(shown, json!({ "tags": expected }));
    // The Image API shows the same.
    let document = world
        .get(MEMBER, &format!("/v2/images/{}", image.id))
        .await
        .json();
    assert_eq!(
        document["tags"],
        json!(["Größe=1.5=x", "env-2", "env=two", "other"])
    );
}

#[tokio::test]
async fn what_is_there_already_is_not_written_again() {
    let world = World::new().await;
    let image = tagged(&world, &["env=dev"]).await;
    for body in [
        json!({"action": "create", "tags": [{"key": "env", "value": "dev"}]}),
        json!({"action": "delete", "tags": [{"key": "absent"}]}),
    ] {
        let path = format!("{}/action", tags_of(&image));
        assert_eq!(
            world.post(MEMBER, &path, &body.to_string()).await.status,
            204
        );
    }
    assert_eq!(world.record(&image).await, image);
}

#[tokio::test]
async fn tags_are_taken_away_by_their_keys() {
    let world = World::new().await;
    let all = [
        "action", "a.b=c", "env=dev", "flag", "k=v=w", "odd key", "web",
    ];
    let image = tagged(&world, &all).await;
    let path = tags_of(&image);
    for (key, left) in [
        ("flag", 6),
        ("env", 5),
        ("k", 4),
        ("a.b", 3),
        ("odd%20key", 2),
        // A key like the last part of another path.
        ("action", 1),
    ] {
        let answer = world
            .call("DELETE", MEMBER, &format!("{path}/{key}"), "")
            .await;
        assert_eq!(answer.status, 204, "{key}: {}", answer.text);
        assert_eq!(kept(&world, &image).await.len(), left, "{key}");
        let again = world
            .call("DELETE", MEMBER, &format!("{path}/{key}"), "")
            .await;
        assert_eq!(again.refusal(), (404, "IMG.0121".to_owned()), "{key}");
    }
    let batch = json!({"action": "delete", "tags": [
        {"key": "web", "value": "another"}, {"key": "k".repeat(127), "value": "v".repeat(255)}, {"key": "<>"},
    ]});
    assert_eq!(
        world
            .post(MEMBER, &format!("{path}/action"), &batch.to_string())
            .await
            .status,
        204
    );
    assert_eq!(kept(&world, &image).await, Vec::<String>::new());
    // As Huawei's SDK does it.
    let image = tagged(&world, &["a=1", "b=2"]).await;
    let path = format!("/v1/{OWN}/cloudimages/{}/tags/delete", image.id);
    let body = json!({"tags": [{"key": "a", "value": "1"}, {"key": "c"}]}).to_string();
    assert_eq!(world.call("DELETE", MEMBER, &path, &body).await.status, 204);
    assert_eq!(kept(&world, &image).await, ["b=2"]);
}

#[tokio::test]
async fn each_rule_of_a_tag_has_its_code() {
    let world = World::new().await;
    let image = tagged(&world, &["kept"]).await;
    let (key, value) = ("k".repeat(36), "v".repeat(43));
    let object = |key: &str, value: &str| json!({"key": key, "value": value});
    let bad_objects = [
        (json!(null), "IMG.0001"),
        (json!("a=b"), "IMG.0001"),
        (json!([]), "IMG.0001"),
        (json!({"key": 1, "value": "v"}), "IMG.0001"),
        (json!({"key": "k", "value": 1}), "IMG.0001"),
        (json!({}), "IMG.0115"),
        (json!({"key": "k"}), "IMG.0115"),
        (json!({"key": "k", "value": null}), "IMG.0115"),
        (json!({"value": "v"}), "IMG.0115"),
        (object("", "v"), "IMG.0115"),
        (object("  ", "v"), "IMG.0115"),
        (object("a=b", "v"), "IMG.0115"),
        (object("a\0b", "v"), "IMG.0115"),
        (object(&format!("{key}k"), "v"), "IMG.0115"),
        (object("k", &format!("{value}v")), "IMG.0115"),
    ];
    let path = tags_of(&image);
    let id = image.id.to_string();
    let put = "/v1/cloudimages/tags".to_owned();
    let mut cases: Vec<(&str, String, Value, &str)> = Vec::new();
    for (tag, code) in bad_objects {
        // Where there is no tag object at all, there may be the other form.
        if !tag.is_null() {
            cases.push((
                "PUT",
                put.clone(),
                json!({"image_id": id, "image_tag": tag}),
                code,
            ));
        }
        cases.push(("POST", path.clone(), json!({"tag": tag}), code));
        let body = json!({"action": "create", "tags": [tag]});
        cases.push(("POST", format!("{path}/action"), body, code));
    }
    let texts = ["", "=v", ".v", "a=b.c", "a b", "a/b", "ä", "a=b=c"].map(str::to_owned);
    for text in texts
        .into_iter()
        .chain([format!("{key}k=v"), format!("k={value}v")])
    {
        cases.push((
            "PUT",
            put.clone(),
            json!({"image_id": id, "tag": text}),
            "IMG.0115",
        ));
    }
    for body in [
        json!({"image_id": id}),
        json!({"image_id": id, "tag": "a", "image_tag": {"key": "a", "value": ""}}),
        json!({"image_id": id, "tag": 1}),
        json!({"image_id": 1, "tag": "a"}),
        json!([]),
    ] {
        cases.push(("PUT", put.clone(), body, "IMG.0001"));
    }
    for image in ["", "x", "11111111222243338444555555555555"] {
        cases.push((
            "PUT",
            put.clone(),
            json!({"image_id": image, "tag": "a"}),
            "IMG.0066",
        ));
    }
    let good = object("k", "v");
    for (body, code) in [
        (json!({}), "IMG.0001"),
        (json!({"tags": [good]}), "IMG.0001"),
        (json!({"action": "Create", "tags": [good]}), "IMG.0001"),
        (json!({"action": "update", "tags": [good]}), "IMG.0001"),
        (json!({"action": 1, "tags": [good]}), "IMG.0001"),
        (json!({"action": "create"}), "IMG.0001"),
        (json!({"action": "create", "tags": []}), "IMG.0001"),
        (json!({"action": "create", "tags": "a"}), "IMG.0001"),
        (
            json!({"action": "create", "tags": [good, object(" k", "w")]}),
            "IMG.0115",
        ),
        (json!({"action": "delete", "tags": []}), "IMG.0001"),
        (json!({"action": "delete", "tags": [{}]}), "IMG.0115"),
        (
            json!({"action": "delete", "tags": [{"key": ""}]}),
            "IMG.0115",
        ),
        (
            json!({"action": "delete", "tags": [{"key": "k".repeat(128)}]}),
            "IMG.0115",
        ),
        (
            json!({"action": "delete", "tags": [object("k", &"v".repeat(256))]}),
            "IMG.0115",
        ),
        (
            json!({"action": "delete", "tags": [{"key": "k", "value": 1}]}),
            "IMG.0001",
        ),
    ] {
        if body["action"] == "delete" {
            let path = format!("/v1/{OWN}/cloudimages/{id}/tags/delete");
            cases.push(("DELETE", path, body.clone(), code));
        }
        cases.push(("POST", format!("{path}/action"), body, code));
    }
    for (method, path, body, code) in cases {
        let answer = world.call(method, MEMBER, &path, &body.to_string()).await;
        assert_eq!(
            answer.refusal(),
            (400, code.to_owned()),
            "{method} {path} {body}"
        );
    }
    for (method, path) in [
        ("PUT", put),
        ("POST", path.clone()),
        ("POST", format!("{path}/action")),
        ("DELETE", format!("/v1/{OWN}/cloudimages/{id}/tags/delete")),
    ] {
        for (body, code) in [("", "IMG.0007"), ("{", "IMG.0001")] {
            let answer = world.call(method, MEMBER, &path, body).await;
            assert_eq!(answer.refusal(), (400, code.to_owned()), "{method} {path}");
        }
    }
    assert_eq!(
        world.record(&image).await,
        image,
        "a refusal changes nothing"
    );
    let longest = json!({"tag": object(&key, &value)}).to_string();
    assert_eq!(world.post(MEMBER, &path, &longest).await.status, 204);
}

#[tokio::test]
async fn an_image_gets_as_many_tags_as_it_may_have_and_keeps_what_it_has_beyond() {
    let world = World::with(Settings {
        limits: Limits {
            ims_tags_per_image: 2,
            ..Limits::default()
        },
        ..Settings::default()
    })
    .await;
    let set = async |image: &Image, tags: &[&str]| {
        let tags: Vec<Value> = tags
            .iter()
            .map(|key| json!({"key": key, "value": ""}))
            .collect();
        let body = json!({"action": "create", "tags": tags}).to_string();
        let answer = world
            .post(MEMBER, &format!("{}/action", tags_of(image)), &body)
            .await;
        if answer.status == 204 {
            None
        } else {
            Some(answer.refusal())
        }
    };
    let full = Some((400, "IMG.0116".to_owned()));
    let image = tagged(&world, &[]).await;
    assert_eq!(set(&image, &["a", "b", "c"]).await, full);
    assert_eq!(set(&image, &["a", "b"]).await, None);
    assert_eq!(set(&image, &["b"]).await, None);
    assert_eq!(set(&image, &["c"]).await, full);
    assert_eq!(kept(&world, &image).await, ["a", "b"]);
    let over = tagged(&world, &["a=1", "b=1", "c=1"]).await;
    assert_eq!(set(&over, &["a"]).await, None);
    assert_eq!(set(&over, &["d"]).await, full);
    assert_eq!(kept(&world, &over).await, ["a", "b=1", "c=1"]);
}

#[tokio::test]
async fn who_may_tag_which_image_is_checked_in_order() {
    type Change = fn(&mut Image);
    let tag = json!({"tag": {"key": "k", "value": "v"}}).to_string();
    let bad = json!({"tag": {}}).to_string();
    let world = World::new().await;
    let queued = world
        .image(|image| image.status = ImageStatus::Queued)
        .await;
    assert_eq!(
        world.post(MEMBER, &tags_of(&queued), &tag).await.status,
        204,
        "in any state"
    );
    let unknown = format!("/v2/{OWN}/images/{UNKNOWN}/tags");
    let elsewhere = format!("/v2/{OTHER}/images/{UNKNOWN}/tags");
    for (token, path, body, status, code) in [
        (
            "",
            format!("/v2/{OTHER}/images/x/tags"),
            "[",
            401,
            "IMG.0087",
        ),
        (
            READER,
            format!("/v2/{OTHER}/images/x/tags"),
            "[",
            403,
            "IMG.0026",
        ),
        (
            MEMBER,
            format!("/v2/{OTHER}/images/x/tags"),
            "[",
            400,
            "IMG.0001",
        ),
        (
            MEMBER,
            format!("/v2/{OTHER}/images/x/tags"),
            &bad,
            400,
            "IMG.0066",
        ),
        (MEMBER, elsewhere.clone(), &bad, 400, "IMG.0030"),
        (MEMBER, unknown.clone(), &bad, 400, "IMG.0115"),
        (MEMBER, unknown, &tag, 404, "IMG.0027"),
        (ADMIN, elsewhere, &tag, 404, "IMG.0027"),
    ] {
        let answer = world.post(token, &path, body).await;
        assert_eq!(
            answer.refusal(),
            (status, code.to_owned()),
            "{token} {path}"
        );
    }
    let cases: [(Change, Option<MemberStatus>, u16, &str); 3] = [
        (|i| i.owner = OTHER.parse().unwrap(), None, 404, "IMG.0027"),
        (|i| i.visibility = Visibility::Public, None, 400, "IMG.0083"),
        (
            |i| {
                i.owner = OTHER.parse().unwrap();
                i.visibility = Visibility::Shared;
                i.tags = vec!["theirs=1".to_owned()];
            },
            Some(MemberStatus::Accepted),
            400,
            "IMG.0047",
        ),
    ];
    for (change, membership, status, code) in cases {
        let image = world.image(change).await;
        if let Some(membership) = membership {
            world.share(&image, membership).await;
            // Recipients read the owner's tags.
            let shown = world.get(MEMBER, &tags_of(&image)).await.json();
            assert_eq!(shown["tags"], json!([{"key": "theirs", "value": "1"}]));
        }
        let body = json!({"image_id": image.id.to_string(), "tag": "k=v"}).to_string();
        let refused = (status, code.to_owned());
        let put = world
            .call("PUT", MEMBER, "/v1/cloudimages/tags", &body)
            .await;
        assert_eq!(put.refusal(), refused);
        assert_eq!(
            world.post(MEMBER, &tags_of(&image), &tag).await.refusal(),
            refused
        );
        let one = format!("{}/theirs", tags_of(&image));
        assert_eq!(
            world.call("DELETE", MEMBER, &one, "").await.refusal(),
            refused
        );
    }
    assert_eq!(
        world
            .call("PUT", READER, "/v1/cloudimages/tags", "")
            .await
            .status,
        403
    );
    let reads = world.get(READER, &tags_of(&queued)).await;
    assert_eq!(reads.status, 200);
    let paths =
        ["x/tags", &format!("{UNKNOWN}/tags")].map(|rest| format!("/v2/{OWN}/images/{rest}"));
    let codes = [(400, "IMG.0066".to_owned()), (404, "IMG.0027".to_owned())];
    for (path, refused) in paths.iter().zip(codes) {
        assert_eq!(world.get(MEMBER, path).await.refusal(), refused);
    }
}

#[tokio::test]
async fn the_tags_of_a_list_of_images_come_sorted_and_each_once() {
    let world = World::new().await;
    tagged(&world, &["env=dev", "owner"]).await;
    let named = world
        .image(|image| {
            image.name = Some("named".to_owned());
            image.tags = vec!["env=dev".to_owned(), "k=".to_owned(), "z".to_owned()];
        })
        .await;
    world
        .image(|image| {
            image.owner = OTHER.parse().unwrap();
            image.visibility = Visibility::Public;
            image.tags = vec!["gold".to_owned()];
        })
        .await;
    world
        .image(|image| {
            image.owner = OTHER.parse().unwrap();
            image.tags = vec!["foreign".to_owned()];
        })
        .await;
    let own = format!("owner={OWN}");
    let none: [&str; 0] = [];
    let cases: [(&str, &[&str]); 12] = [
        ("", &["env=dev", "gold", "k", "owner", "z"]),
        (&own, &["env=dev", "k", "owner", "z"]),
        ("name=named", &["env=dev", "k", "z"]),
        ("visibility=public", &["gold"]),
        ("__imagetype=gold&page=1", &["gold"]),
        ("tag=owner", &["env=dev", "owner"]),
        ("tag=env=dev&tag=z", &["env=dev", "k", "z"]),
        ("tag=absent", &none),
        ("limit=2", &["env=dev", "gold"]),
        ("limit=0", &none),
        (
            "enterprise_project_id=0&limit=1&sort_key=name&sort_dir=asc",
            &["env=dev"],
        ),
        ("status=deleted", &none),
    ];
    for (query, expected) in cases {
        let answer = world
            .get(MEMBER, &format!("/v1/cloudimages/tags?{query}"))
            .await;
        assert_eq!(answer.status, 200, "{query}: {}", answer.text);
        assert_eq!(answer.json(), json!({ "tags": expected }), "{query}");
    }
    let after = format!(
        "/v1/cloudimages/tags?sort_key=id&sort_dir=asc&id={0}&marker={0}",
        named.id
    );
    assert_eq!(world.get(MEMBER, &after).await.json(), json!({"tags": []}));
    let marker = format!("marker={UNKNOWN}");
    for (query, code) in [
        ("enterprise_project_id=all_granted_eps", "IMG.0001"),
        ("status=broken", "IMG.0001"),
        ("limit=-1", "IMG.0001"),
        ("created_at=gte:never", "IMG.0001"),
        (&marker, "IMG.0027"),
    ] {
        let answer = world
            .get(MEMBER, &format!("/v1/cloudimages/tags?{query}"))
            .await;
        assert_eq!(answer.refusal(), (400, code.to_owned()), "{query}");
    }
}

#[tokio::test]
async fn the_tags_of_a_project_are_its_own_images_keys_with_their_values() {
    let world = World::new().await;
    tagged(&world, &["env=dev", "flag"]).await;
    tagged(&world, &["env=prod", "env=dev", "flag="]).await;
    world
        .image(|image| {
            image.owner = OTHER.parse().unwrap();
            image.visibility = Visibility::Public;
            image.tags = vec!["gold".to_owned()];
        })
        .await;
    let path = format!("/v2/{OWN}/images/tags");
    let expected = json!({"tags": [
        {"key": "env", "values": ["dev", "prod"]}, {"key": "flag", "values": [""]},
    ]});
    for token in [MEMBER, READER, ADMIN] {
        assert_eq!(world.get(token, &path).await.json(), expected, "{token}");
    }
    let refused = world.get(STRANGER, &path).await.refusal();
    assert_eq!(refused, (400, "IMG.0030".to_owned()));
    let theirs = world
        .get(ADMIN, &format!("/v2/{OTHER}/images/tags"))
        .await
        .json();
    assert_eq!(theirs, json!({"tags": [{"key": "gold", "values": [""]}]}));
}

#[tokio::test]
async fn the_paths_of_tags_are_told_from_the_image_apis() {
    let world = World::new().await;
    let image = tagged(&world, &["a"]).await;
    // The Image API's own: a bare tag.
    let native = format!("/v2/images/{}/tags/b", image.id);
    assert_eq!(world.call("PUT", MEMBER, &native, "").await.status, 204);
    assert_eq!(kept(&world, &image).await, ["a", "b"]);
    assert_eq!(world.call("DELETE", MEMBER, &native, "").await.status, 204);
    // There is no list of tags there.
    let list = world
        .get(MEMBER, &format!("/v2/images/{}/tags", image.id))
        .await;
    assert_eq!(list.status, 404);
    for (method, path, status) in [
        ("GET", format!("{}/action", tags_of(&image)), 405),
        (
            "GET",
            format!("/v2/{OWN}/images/resource_instances/action"),
            405,
        ),
        ("POST", format!("/v2/{OWN}/images/tags"), 405),
    ] {
        assert_eq!(
            world.call(method, MEMBER, &path, "{}").await.status,
            status,
            "{path}"
        );
    }
}
