//! Images found by their tags: `POST /v2/{project_id}/images/resource_instances/action`.

use calotype_core::image::Visibility;
use serde_json::{Value, json};

use crate::harness::{MEMBER, OTHER, OWN, READER, STRANGER, World};

fn resources() -> String {
    format!("/v2/{OWN}/images/resource_instances/action")
}

/// The names of the images that are found, and how many there are said to be.
async fn found(world: &World, mut body: Value) -> (Vec<String>, u64) {
    body["action"] = json!("filter");
    let answer = world.post(MEMBER, &resources(), &body.to_string()).await;
    assert_eq!(answer.status, 200, "{body}: {}", answer.text);
    let answer = answer.json();
    let resources = answer["resources"].as_array().unwrap().iter();
    let name = |resource: &Value| resource["resource_name"].as_str().unwrap().to_owned();
    (
        resources.map(name).collect(),
        answer["total_count"].as_u64().unwrap(),
    )
}

#[tokio::test]
async fn images_are_found_by_what_is_asked_of_their_tags() {
    let world = World::new().await;
    let make = async |name: &str, tags: &[&str]| {
        world.clock.advance(std::time::Duration::from_secs(1));
        let tags: Vec<String> = tags.iter().map(|tag| (*tag).to_owned()).collect();
        let name = (!name.is_empty()).then(|| name.to_owned());
        world
            .image(|image| {
                image.name = name;
                image.tags = tags;
            })
            .await
    };
    make("both", &["env=dev", "team=blue"]).await;
    make("prod", &["env=prod", "environment=dev"]).await;
    make("alone", &["env", "env-2=x"]).await;
    let bare = make("bare", &[]).await;
    make("", &["team=red"]).await;
    world
        .image(|image| {
            image.owner = OTHER.parse().unwrap();
            image.visibility = Visibility::Public;
            image.name = Some("foreign".to_owned());
            image.tags = vec!["env=dev".to_owned()];
        })
        .await;
    let tag = |key: &str, values: &[&str]| json!({"key": key, "values": values});
    let id = bare.id.to_string();
    let cases: [(Value, &[&str]); 24] = [
        (json!({}), &["", "bare", "alone", "prod", "both"]),
        (json!({"tags": []}), &["", "bare", "alone", "prod", "both"]),
        (
            json!({"tags": [tag("env", &[])]}),
            &["alone", "prod", "both"],
        ),
        (json!({"tags": [tag("env", &["dev"])]}), &["both"]),
        (
            json!({"tags": [tag("env", &["dev", "prod"])]}),
            &["prod", "both"],
        ),
        (json!({"tags": [tag("env", &[""])]}), &["alone"]),
        (
            json!({"tags": [tag("env", &["dev"]), tag("team", &[])]}),
            &["both"],
        ),
        (
            json!({"tags": [tag("env", &["prod"]), tag("team", &[])]}),
            &[],
        ),
        (json!({"tags": [tag("ENV", &[])]}), &[]),
        (json!({"tags": [tag("env=dev", &[])]}), &[]),
        (
            json!({"tags_any": [tag("env", &["prod"]), tag("team", &[])]}),
            &["", "prod", "both"],
        ),
        (
            json!({"not_tags": [tag("env", &[]), tag("team", &[])]}),
            &["", "bare", "alone", "prod"],
        ),
        (
            json!({"not_tags": [tag("env", &["dev"])]}),
            &["", "bare", "alone", "prod"],
        ),
        (
            json!({"not_tags_any": [tag("env", &[]), tag("team", &["red"])]}),
            &["bare"],
        ),
        (
            json!({"tags": [tag("env", &[])], "not_tags_any": [tag("team", &[])]}),
            &["alone", "prod"],
        ),
        (json!({"without_any_tag": true}), &["bare"]),
        (
            json!({"without_any_tag": true, "tags": [tag("env", &[])]}),
            &["bare"],
        ),
        (
            json!({"without_any_tag": false, "tags": [tag("team", &[])]}),
            &["", "both"],
        ),
        (
            json!({"matches": [{"key": "resource_name", "value": "o"}]}),
            &["alone", "prod", "both"],
        ),
        (
            json!({"matches": [{"key": "resource_name", "value": "O"}]}),
            &[],
        ),
        (
            json!({"matches": [{"key": "resource_name", "value": "%"}]}),
            &[],
        ),
        (
            json!({"matches": [{"key": "resource_name", "value": ""}]}),
            &[""],
        ),
        (
            json!({"matches": [{"key": "resource_id", "value": id}, {"key": "resource_name", "value": "a"}]}),
            &["bare"],
        ),
        (
            json!({"matches": [{"key": "resource_id", "value": "bare"}]}),
            &[],
        ),
    ];
    for (body, expected) in cases {
        let (names, total) = found(&world, body.clone()).await;
        assert_eq!(names, expected, "{body}");
        assert_eq!(total, expected.len() as u64, "{body}");
        let mut counted = body.clone();
        counted["action"] = json!("count");
        let answer = world.post(MEMBER, &resources(), &counted.to_string()).await;
        assert_eq!(answer.json(), json!({ "total_count": total }), "{body}");
    }
    let body = json!({"action": "filter", "tags": [tag("team", &["blue"])]}).to_string();
    let answer = world.post(READER, &resources(), &body).await.json();
    let resource = &answer["resources"][0];
    assert_eq!(resource["resource_detail"], json!({"status": "active"}));
    assert_eq!(resource["resource_id"].as_str().map(str::len), Some(36));
    let tags = json!([{"key": "env", "value": "dev"}, {"key": "team", "value": "blue"}]);
    assert_eq!(resource["tags"], tags);
}

#[tokio::test]
async fn what_is_found_comes_in_pages_of_ten() {
    let world = World::new().await;
    for n in 0..12 {
        world.clock.advance(std::time::Duration::from_secs(1));
        world
            .image(|image| image.name = Some(format!("{n:02}")))
            .await;
    }
    let page = async |body: Value| found(&world, body).await;
    let (first, total) = page(json!({})).await;
    assert_eq!((first.len(), first[0].as_str(), total), (10, "11", 12));
    // As Terraform's provider sends them; numbers are taken too.
    assert_eq!(
        page(json!({"limit": "10", "offset": "10"})).await.0,
        ["01", "00"]
    );
    assert_eq!(page(json!({"limit": 2, "offset": 3})).await.0, ["08", "07"]);
    assert_eq!(page(json!({"offset": "12"})).await, (Vec::new(), 12));
    assert_eq!(
        page(json!({"limit": "1000", "offset": null})).await.0.len(),
        12
    );
}

#[tokio::test]
async fn each_rule_of_a_search_by_tags_has_its_code() {
    let world = World::new().await;
    let tag = |key: &str, values: Vec<String>| json!({"key": key, "values": values});
    let many = |n: usize| (0..n).map(|n| format!("v{n}")).collect::<Vec<String>>();
    let mut cases = vec![
        (json!({}), "IMG.0001"),
        (json!({"action": "Filter"}), "IMG.0001"),
        (json!({"action": 1}), "IMG.0001"),
        (json!({"action": "filter", "limit": "0"}), "IMG.0001"),
        (json!({"action": "filter", "limit": "1001"}), "IMG.0001"),
        (json!({"action": "filter", "limit": "x"}), "IMG.0001"),
        (json!({"action": "filter", "limit": 1.5}), "IMG.0001"),
        (json!({"action": "filter", "offset": "-1"}), "IMG.0001"),
        (json!({"action": "filter", "offset": []}), "IMG.0001"),
        (
            json!({"action": "count", "without_any_tag": "true"}),
            "IMG.0001",
        ),
        (json!({"action": "count", "matches": []}), "IMG.0001"),
        (json!({"action": "count", "matches": {}}), "IMG.0001"),
        (json!({"action": "count", "matches": [1]}), "IMG.0001"),
        (
            json!({"action": "count", "matches": [{"key": "resource_name"}]}),
            "IMG.0001",
        ),
        (
            json!({"action": "count", "matches": [{"key": "name", "value": "x"}]}),
            "IMG.0001",
        ),
        (
            json!({"action": "count", "matches": [{"key": "resource_name", "value": "v".repeat(256)}]}),
            "IMG.0001",
        ),
        (
            json!({"action": "count", "matches": [
                {"key": "resource_name", "value": "x"}, {"key": "resource_name", "value": "y"},
            ]}),
            "IMG.0001",
        ),
    ];
    for list in ["tags", "tags_any", "not_tags", "not_tags_any"] {
        let keys: Vec<Value> = many(11).iter().map(|key| tag(key, Vec::new())).collect();
        for (value, code) in [
            (json!("x"), "IMG.0001"),
            (json!([1]), "IMG.0001"),
            (json!([{"key": 1}]), "IMG.0001"),
            (json!([{"key": "k", "values": "v"}]), "IMG.0001"),
            (json!([{"key": "k", "values": [1]}]), "IMG.0001"),
            (json!([{}]), "IMG.0115"),
            (json!([tag("", Vec::new())]), "IMG.0115"),
            (json!([tag("  ", Vec::new())]), "IMG.0115"),
            (json!([tag("a\0", Vec::new())]), "IMG.0115"),
            (json!([tag(&"k".repeat(129), Vec::new())]), "IMG.0115"),
            (json!([tag("k", vec!["v".repeat(256)])]), "IMG.0115"),
            (json!([tag("k", many(11))]), "IMG.0115"),
            (
                json!([tag("k", vec!["v".to_owned(), "v".to_owned()])]),
                "IMG.0115",
            ),
            (json!([tag("k", Vec::new()), tag("k", many(1))]), "IMG.0115"),
            (json!(keys), "IMG.0115"),
        ] {
            cases.push((json!({"action": "filter", list: value}), code));
        }
        let longest = [tag(
            &"ä".repeat(128),
            many(9).into_iter().chain(["ß".repeat(255)]).collect(),
        )];
        assert_eq!(found(&world, json!({ list: longest })).await.1, 0);
    }
    for (body, code) in cases {
        let answer = world.post(MEMBER, &resources(), &body.to_string()).await;
        assert_eq!(answer.refusal(), (400, code.to_owned()), "{body}");
    }
    for (token, body, status, code) in [
        ("", "[", 401, "IMG.0087"),
        (
            "nobody 0123456789abcdef0123456789abcdef none",
            "[",
            403,
            "IMG.0026",
        ),
        (STRANGER, "", 400, "IMG.0007"),
        (STRANGER, "[", 400, "IMG.0001"),
        (STRANGER, "{}", 400, "IMG.0030"),
    ] {
        let answer = world.post(token, &resources(), body).await;
        assert_eq!(
            answer.refusal(),
            (status, code.to_owned()),
            "{token} {body}"
        );
    }
}
