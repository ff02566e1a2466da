//! What clients ask first.

use serde_json::json;

use crate::harness::Rig;

#[tokio::test]
async fn versions_are_told_to_everybody() {
    let rig = Rig::new().await;
    let root = rig.get("", "/").await.expect(300);
    insta::assert_json_snapshot!("versions", root.json());
    for path in ["/v1", "/v3", "/v2.18"] {
        assert_eq!(
            rig.get("", path).await.expect(300).body,
            root.body,
            "{path}"
        );
    }
    assert_eq!(
        rig.get("alice", "/versions").await.expect(200).body,
        root.body
    );
    let one = rig.get("", "/v2.0").await.expect(300).json();
    assert_eq!(one["versions"].as_array().unwrap().len(), 1);
    assert_eq!(one["versions"][0]["id"], "v2.0");
    rig.get("", "/nonsense").await.expect(404);
}

#[tokio::test]
async fn the_second_version_itself_is_behind_a_credential() {
    let rig = Rig::new().await;
    rig.get("", "/v2").await.expect(401);
    let moved = rig.get("alice", "/v2").await.expect(302);
    assert_eq!(moved.header("location"), "http://images.example:9292/v2/");
    rig.get("", "/v2/").await.expect(401);
    let versions = rig.get("alice", "/v2/").await.expect(300);
    assert_eq!(versions.body, rig.get("", "/").await.body);
    for path in ["/v2/images/", "/v2/nonsense"] {
        rig.get("", path).await.expect(401);
        rig.get("alice", path).await.expect(404);
    }
}

#[tokio::test]
async fn the_schemas_are_those_that_glances_clients_check_against() {
    let rig = Rig::new().await;
    for name in ["image", "images", "member", "members"] {
        let path = format!("/v2/schemas/{name}");
        let schema = rig.get("rita", &path).await.expect(200).json();
        assert_eq!(schema["name"], name);
        rig.get("", &path).await.expect(401);
    }
    let image = rig.get("alice", "/v2/schemas/image").await.json();
    insta::assert_json_snapshot!("image_schema", image);
    let member = rig.get("alice", "/v2/schemas/member").await.json();
    insta::assert_json_snapshot!("member_schema", member);
}

#[tokio::test]
async fn there_is_no_import_and_one_store() {
    let rig = Rig::new().await;
    let import = rig.get("alice", "/v2/info/import").await.expect(200).json();
    assert_eq!(import["import-methods"]["value"], json!([]));
    let stores = rig.get("alice", "/v2/info/stores").await.expect(200).json();
    assert_eq!(stores["stores"][0]["default"], "true");
}
