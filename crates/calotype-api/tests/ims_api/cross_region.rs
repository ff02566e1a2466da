//! Replicating to another region: what is checked before it is said that there is none.

use calotype_core::app::Settings;
use calotype_core::image::{Image, ImageStatus, MemberStatus, Visibility};
use serde_json::{Value, json};

use super::harness::{MEMBER, OTHER, READER, STRANGER, World};

const UNKNOWN: &str = "11111111-2222-4333-8444-555555555555";

fn body() -> Value {
    json!({
        "name": "there", "description": "d", "region": "eu-nl", "project_name": "eu-nl_team",
        "agency_name": "images", "vault_id": "",
    })
}

async fn ask(world: &World, token: &str, image: &str, body: &Value) -> (u16, String) {
    let path = format!("/v1/cloudimages/{image}/cross_region_copy");
    world.post(token, &path, &body.to_string()).await.refusal()
}

fn refused(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

#[tokio::test]
async fn each_wrong_field_has_its_code_and_a_right_request_is_told_of_the_one_region() {
    let world = World::new().await;
    let image = world.image(|_| ()).await.id.to_string();
    for (field, value, code) in [
        ("name", json!(""), "IMG.0013"),
        ("name", json!("a/b"), "IMG.0003"),
        ("name", json!(1), "IMG.0001"),
        ("description", json!("<"), "IMG.0054"),
        ("region", json!(null), "IMG.0001"),
        ("region", json!("a b"), "IMG.0001"),
        ("project_name", json!(null), "IMG.0104"),
        ("project_name", json!("a b"), "IMG.0145"),
        ("agency_name", json!(null), "IMG.0001"),
        ("vault_id", json!("a b"), "IMG.0184"),
    ] {
        let mut body = body();
        body[field] = value;
        let told = ask(&world, MEMBER, &image, &body).await;
        assert_eq!(told, refused(400, code), "{body}");
    }
    let path = format!("/v1/cloudimages/{image}/cross_region_copy");
    assert_eq!(world.post(MEMBER, &path, "").await.refusal().1, "IMG.0007");
    let told = world.post(MEMBER, &path, &body().to_string()).await;
    assert_eq!(told.refusal(), refused(400, "IMG.0105"));
    assert!(told.text.contains("one region"), "{}", told.text);
    for (token, image, wanted) in [
        (READER, image.as_str(), refused(403, "IMG.0026")),
        (MEMBER, "nope", refused(400, "IMG.0066")),
        (MEMBER, UNKNOWN, refused(404, "IMG.0027")),
        (STRANGER, image.as_str(), refused(404, "IMG.0027")),
    ] {
        assert_eq!(ask(&world, token, image, &body()).await, wanted);
    }
}

#[tokio::test]
async fn an_image_that_could_not_be_replicated_anywhere_has_the_code_for_that() {
    let world = World::new().await;
    let mark = |image: &mut Image, name: &str, value: &str| {
        image.properties.insert(name.to_owned(), value.to_owned());
    };
    let public = world.image(|i| i.visibility = Visibility::Public).await;
    let whole = world.image(|i| mark(i, "__whole_image", "true")).await;
    let iso = world
        .image(|i| mark(i, "virtual_env_type", "IsoImage"))
        .await;
    let waiting = world.image(|i| i.status = ImageStatus::Queued).await;
    let sealed = world
        .image(|i| i.cmk_id = Some("key-1".parse().unwrap()))
        .await;
    let shared = world
        .image(|i| {
            i.owner = OTHER.parse().unwrap();
            i.visibility = Visibility::Shared;
        })
        .await;
    world.share(&shared, MemberStatus::Pending).await;
    for (image, code) in [
        (&public, "IMG.0083"),
        (&whole, "IMG.0130"),
        (&iso, "IMG.0167"),
        (&waiting, "IMG.0046"),
        (&sealed, "IMG.0105"),
        (&shared, "IMG.0196"),
    ] {
        let told = ask(&world, MEMBER, &image.id.to_string(), &body()).await;
        assert_eq!(told, refused(400, code));
    }
    let mut settings = Settings::default();
    settings.limits.concurrent_replicas = 0;
    let world = World::with(settings).await;
    let image = world.image(|_| ()).await;
    let told = ask(&world, MEMBER, &image.id.to_string(), &body()).await;
    assert_eq!(told, refused(400, "IMG.0060"));
}
