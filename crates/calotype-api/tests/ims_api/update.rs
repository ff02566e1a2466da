//! `PATCH /v2/cloudimages/{image_id}`.

use calotype_core::id::EnterpriseProjectId;
use calotype_core::image::{Image, ImageStatus, MemberStatus, Visibility};
use calotype_core::ports::{EnterpriseProject, Ledger as _};
use serde_json::{Value, json};

use crate::harness::{ADMIN, Answer, MEMBER, OTHER, READER, World};

const UNKNOWN: &str = "11111111-2222-4333-8444-555555555555";
const ENTERPRISE: &str = "22222222-3333-4444-8555-666666666666";

fn path(image: &Image) -> String {
    format!("/v2/cloudimages/{}", image.id)
}

async fn patch(world: &World, image: &Image, operations: &Value) -> Answer {
    let body = operations.to_string();
    world.call("PATCH", MEMBER, &path(image), &body).await
}

fn replace(name: &str, value: impl Into<Value>) -> Value {
    let value = value.into();
    json!([{"op": "replace", "path": format!("/{name}"), "value": value}])
}

fn add(name: &str, value: impl Into<Value>) -> Value {
    let value = value.into();
    json!([{"op": "add", "path": format!("/{name}"), "value": value}])
}

fn remove(name: &str) -> Value {
    json!([{"op": "remove", "path": format!("/{name}")}])
}

fn set(image: &mut Image, name: &str, value: &str) {
    image.properties.insert(name.to_owned(), value.to_owned());
}

#[tokio::test]
async fn what_an_update_says_is_in_the_document_that_comes_back_and_in_the_record() {
    let world = World::new().await;
    let image = world
        .image(|image| {
            set(image, "__description", "old");
            set(image, "x", "1");
        })
        .await;
    let cases = [
        (
            replace("name", json!("a new.name_1-")),
            "name",
            json!("a new.name_1-"),
        ),
        (
            replace("__description", json!("new")),
            "__description",
            json!("new"),
        ),
        (
            replace("__description", json!("")),
            "__description",
            json!(""),
        ),
        (
            add("__support_xen", json!("true")),
            "__support_xen",
            json!("true"),
        ),
        (remove("__support_xen"), "__support_xen", Value::Null),
        (
            add("__support_largememory", json!("true")),
            "__support_largememory",
            json!("true"),
        ),
        (
            add("__support_diskintensive", json!("true")),
            "__support_diskintensive",
            json!("true"),
        ),
        (
            add("__support_highperformance", json!("true")),
            "__support_highperformance",
            json!("true"),
        ),
        (
            add("__support_xen_gpu_type", json!("M60_vGPU")),
            "__support_xen_gpu_type",
            json!("M60_vGPU"),
        ),
        (
            add("__support_kvm_gpu_type", json!("P2V_V100")),
            "__support_kvm_gpu_type",
            json!("P2V_V100"),
        ),
        (
            add("__support_xen_hana", json!("true")),
            "__support_xen_hana",
            json!("true"),
        ),
        (
            add("__support_kvm_infiniband", json!("true")),
            "__support_kvm_infiniband",
            json!("true"),
        ),
        (
            add("__support_fc_inject", json!("false")),
            "__support_fc_inject",
            json!("false"),
        ),
        (
            add("__support_amd", json!("true")),
            "__support_amd",
            json!("true"),
        ),
        (
            add("__support_kvm_hi1822_hisriov", json!("true")),
            "__support_kvm_hi1822_hisriov",
            json!("true"),
        ),
        (
            add("__support_kvm_hi1822_hivirtionet", json!("true")),
            "__support_kvm_hi1822_hivirtionet",
            json!("true"),
        ),
        (
            add("__is_config_init", json!("true")),
            "__is_config_init",
            json!("true"),
        ),
        (
            add("hw_vif_multiqueue_enabled", json!("true")),
            "hw_vif_multiqueue_enabled",
            json!("true"),
        ),
        (
            add("hw_firmware_type", json!("uefi")),
            "hw_firmware_type",
            json!("uefi"),
        ),
        (
            replace("hw_firmware_type", json!("bios")),
            "hw_firmware_type",
            json!("bios"),
        ),
        // Numbers come either way; `max_ram` goes out as a text, as Go's clients decode it.
        (replace("min_ram", json!(1024)), "min_ram", json!(1024)),
        (replace("min_ram", json!("2048")), "min_ram", json!(2048)),
        (replace("max_ram", json!(4096)), "max_ram", json!("4096")),
        (replace("max_ram", json!("8192")), "max_ram", json!("8192")),
        (replace("max_ram", json!(0)), "max_ram", json!("0")),
        (remove("max_ram"), "max_ram", Value::Null),
        (remove("min_ram"), "min_ram", json!(0)),
        (add("x", json!(7)), "x", json!("7")),
        (replace("x", json!("8")), "x", json!("8")),
        (remove("x"), "x", Value::Null),
        (
            add("tags", json!(["web", "env.dev", "b=c"])),
            "tags",
            json!(["b=c", "env=dev", "web"]),
        ),
        (remove("tags"), "tags", json!([])),
        (
            replace("visibility", json!("private")),
            "visibility",
            json!("private"),
        ),
        (
            remove("enterprise_project_id"),
            "enterprise_project_id",
            json!("0"),
        ),
    ];
    for (operations, name, expected) in cases {
        let answer = patch(&world, &image, &operations).await;
        assert_eq!(answer.status, 200, "{operations}: {}", answer.text);
        assert_eq!(answer.json()[name], expected, "{operations}");
        let listed = world
            .get(MEMBER, &format!("/v2/cloudimages?id={}", image.id))
            .await;
        assert_eq!(listed.json()["images"][0], answer.json(), "{operations}");
    }
}

#[tokio::test]
async fn each_line_of_the_specifications_table_has_its_code() {
    let world = World::new().await;
    let image = world
        .image(|image| {
            set(image, "__support_xen", "true");
            set(image, "max_ram", "4096");
            image.tags = vec!["kept".to_owned()];
        })
        .await;
    let long = "x".repeat(129);
    let cases = [
        // The form of the request.
        (json!({}), "IMG.0001"),
        (json!("x"), "IMG.0001"),
        (json!([]), "IMG.0001"),
        (json!([1]), "IMG.0001"),
        (json!([{}]), "IMG.0001"),
        (
            json!([{"op": "move", "path": "/name", "value": "x"}]),
            "IMG.0001",
        ),
        (
            json!([{"op": "Replace", "path": "/name", "value": "x"}]),
            "IMG.0001",
        ),
        (
            json!([{"op": "replace", "path": "name", "value": "x"}]),
            "IMG.0001",
        ),
        (
            json!([{"op": "replace", "path": 1, "value": "x"}]),
            "IMG.0001",
        ),
        (json!([{"op": "replace", "path": "/name"}]), "IMG.0001"),
        (json!([{"op": "add", "path": "/x"}]), "IMG.0001"),
        (add("Upper", json!("x")), "IMG.0001"),
        (add("x", json!(null)), "IMG.0001"),
        (add("x", json!(true)), "IMG.0001"),
        (add("x", json!(1.5)), "IMG.0001"),
        (replace("name", json!(1)), "IMG.0001"),
        // What it can't change.
        (replace("visibility", json!("public")), "IMG.0001"),
        (replace("visibility", json!("secret")), "IMG.0001"),
        (remove("visibility"), "IMG.0001"),
        (replace("protected", json!(true)), "IMG.0001"),
        (replace("min_disk", json!(50)), "IMG.0001"),
        (replace("disk_format", json!("raw")), "IMG.0001"),
        (replace("status", json!("queued")), "IMG.0001"),
        (replace("owner", json!(OTHER)), "IMG.0001"),
        (add("__imagetype", json!("gold")), "IMG.0001"),
        (add("__os_version", json!("Fedora 30 64bit")), "IMG.0001"),
        (add("__support_kvm", json!("true")), "IMG.0001"),
        (add("__whole_image", json!("true")), "IMG.0001"),
        (add("__system__cmkid", json!("key-1")), "IMG.0001"),
        (add("virtual_env_type", json!("Ironic")), "IMG.0001"),
        // Its values.
        (remove("name"), "IMG.0013"),
        (replace("name", json!("")), "IMG.0013"),
        (replace("name", json!(long)), "IMG.0002"),
        (replace("name", json!(" x")), "IMG.0003"),
        (replace("name", json!("a/b")), "IMG.0003"),
        (add("__description", json!("x".repeat(1025))), "IMG.0004"),
        (add("__description", json!("a<b")), "IMG.0054"),
        (add("hw_firmware_type", json!("UEFI")), "IMG.0141"),
        (add("hw_firmware_type", json!("")), "IMG.0141"),
        (add("hw_vif_multiqueue_enabled", json!("yes")), "IMG.0001"),
        (add("__support_amd", json!("1")), "IMG.0001"),
        (add("__support_largememory", json!("false")), "IMG.0001"),
        (add("__support_kvm_gpu_type", json!("A100")), "IMG.0001"),
        (replace("min_ram", json!(-1)), "IMG.0055"),
        (replace("min_ram", json!("much")), "IMG.0055"),
        (replace("min_ram", json!("")), "IMG.0055"),
        (replace("min_ram", json!(2_147_483_648_u64)), "IMG.0055"),
        (replace("max_ram", json!(-1)), "IMG.0055"),
        (replace("max_ram", json!(1.5)), "IMG.0055"),
        (replace("max_ram", json!([])), "IMG.0001"),
        (replace("min_ram", json!(4097)), "IMG.0055"),
        (
            json!([{"op": "replace", "path": "/min_ram", "value": 8}, {"op": "replace", "path": "/max_ram", "value": 7}]),
            "IMG.0055",
        ),
        (add("tags", json!("web")), "IMG.0001"),
        (add("tags", json!([1])), "IMG.0001"),
        (add("tags", json!(["a=b.c"])), "IMG.0115"),
        (add("tags", json!(["a=1", "a=2"])), "IMG.0115"),
        (
            add(
                "tags",
                json!((0..11).map(|n| format!("k{n}")).collect::<Vec<_>>()),
            ),
            "IMG.0116",
        ),
        (replace("enterprise_project_id", json!("x")), "IMG.0155"),
        (replace("enterprise_project_id", json!(UNKNOWN)), "IMG.0155"),
        // Terraform's provider adds what it could not replace on this code.
        (replace("__description", json!("x")), "IMG.0035"),
        (replace("hw_firmware_type", json!("uefi")), "IMG.0035"),
        (replace("x", json!("y")), "IMG.0035"),
        (remove("x"), "IMG.0035"),
        (add("__support_xen_gpu_type", json!("M60_vGPU")), "IMG.0035"),
        (add("__support_kvm_gpu_type", json!("M60")), "IMG.0035"),
        (add("__support_xen_hana", json!("true")), "IMG.0035"),
        (add("__support_kvm_infiniband", json!("true")), "IMG.0035"),
        // One bad operation spoils the others.
        (
            json!([{"op": "replace", "path": "/name", "value": "n"}, {"op": "remove", "path": "/x"}]),
            "IMG.0035",
        ),
    ];
    for (operations, code) in cases {
        let refused = patch(&world, &image, &operations).await.refusal();
        assert_eq!(refused, (400, code.to_owned()), "{operations}");
    }
    for (body, code) in [("", "IMG.0007"), ("  ", "IMG.0007"), ("[", "IMG.0001")] {
        let answer = world.call("PATCH", MEMBER, &path(&image), body).await;
        assert_eq!(answer.refusal(), (400, code.to_owned()), "{body:?}");
    }
    let after = world.record(&image).await;
    assert_eq!(after, image, "a refusal changes nothing");
}

#[tokio::test]
async fn what_excludes_what_and_the_bounds_of_memory_are_judged_by_what_the_image_would_be() {
    let world = World::new().await;
    let image = world
        .image(|image| set(image, "__support_xen", "true"))
        .await;
    let swap = json!([
        {"op": "add", "path": "/__support_xen_hana", "value": "true"},
        {"op": "remove", "path": "/__support_xen"},
    ]);
    assert_eq!(patch(&world, &image, &swap).await.status, 200);
    let back = add("__support_xen", json!("true"));
    let refused = patch(&world, &image, &back).await.refusal();
    assert_eq!(refused, (400, "IMG.0035".to_owned()));
    let raise = json!([
        {"op": "replace", "path": "/max_ram", "value": 64},
        {"op": "replace", "path": "/min_ram", "value": 128},
        {"op": "replace", "path": "/max_ram", "value": 256},
    ]);
    assert_eq!(patch(&world, &image, &raise).await.status, 200);
    // What the Image API let be otherwise stays, and does not hold up another change.
    let odd = world
        .image(|image| {
            image.min_ram = 2;
            set(image, "max_ram", "1");
            set(image, "__support_kvm", "true");
            set(image, "__support_kvm_gpu_type", "M60");
        })
        .await;
    let renamed = patch(&world, &odd, &replace("name", json!("other"))).await;
    assert_eq!(renamed.status, 200, "{}", renamed.text);
}

#[tokio::test]
async fn an_update_is_refused_in_the_order_of_the_checks() {
    let world = World::new().await;
    let own = world.image(|_| ()).await;
    let good = replace("name", json!("x")).to_string();
    let bad = replace("name", json!("")).to_string();
    let unknown = format!("/v2/cloudimages/{UNKNOWN}");
    for (token, path, body, status, code) in [
        ("", "/v2/cloudimages/x", "[", 401, "IMG.0087"),
        (READER, "/v2/cloudimages/x", "[", 403, "IMG.0026"),
        (MEMBER, "/v2/cloudimages/x", "{}", 400, "IMG.0001"),
        (MEMBER, "/v2/cloudimages/x", &bad, 400, "IMG.0066"),
        (MEMBER, &unknown, &bad, 400, "IMG.0013"),
        (MEMBER, &unknown, &good, 404, "IMG.0027"),
        (READER, &path(&own), &good, 403, "IMG.0026"),
    ] {
        let answer = world.call("PATCH", token, path, body).await;
        assert_eq!(
            answer.refusal(),
            (status, code.to_owned()),
            "{token} {path} {body}"
        );
    }
}

#[tokio::test]
async fn whose_image_it_is_and_in_which_state_have_codes_of_their_own() {
    type Change = fn(&mut Image);
    let foreign: Change = |image| image.owner = OTHER.parse().unwrap();
    let cases: [(Change, Option<MemberStatus>, u16, &str); 7] = [
        (foreign, None, 404, "IMG.0027"),
        (|i| i.visibility = Visibility::Public, None, 400, "IMG.0083"),
        (
            |i| {
                i.owner = OTHER.parse().unwrap();
                i.visibility = Visibility::Public;
                i.status = ImageStatus::Queued;
            },
            None,
            400,
            "IMG.0083",
        ),
        (
            |i| {
                i.owner = OTHER.parse().unwrap();
                i.visibility = Visibility::Community;
            },
            None,
            400,
            "IMG.0083",
        ),
        (
            |i| {
                i.owner = OTHER.parse().unwrap();
                i.visibility = Visibility::Shared;
            },
            Some(MemberStatus::Accepted),
            400,
            "IMG.0047",
        ),
        (|i| i.status = ImageStatus::Queued, None, 400, "IMG.0046"),
        (|i| i.status = ImageStatus::Saving, None, 400, "IMG.0046"),
    ];
    for (change, membership, status, code) in cases {
        let world = World::new().await;
        let image = world.image(change).await;
        if let Some(membership) = membership {
            world.share(&image, membership).await;
        }
        let answer = patch(&world, &image, &replace("name", json!("x"))).await;
        assert_eq!(answer.refusal(), (status, code.to_owned()));
    }
    let world = World::new().await;
    let public = world.image(|i| i.visibility = Visibility::Public).await;
    let body = replace("name", json!("golden")).to_string();
    let changed = world.call("PATCH", ADMIN, &path(&public), &body).await;
    assert_eq!(changed.json()["name"], "golden", "an administrator may");
    let community = world.image(|i| i.visibility = Visibility::Community).await;
    let changed = patch(&world, &community, &replace("name", json!("mine"))).await;
    assert_eq!(changed.json()["name"], "mine", "its owner may");
    // Renaming a data disk image works, whatever IMG.0168 says.
    let data = world
        .image(|i| set(i, "virtual_env_type", "DataImage"))
        .await;
    let changed = patch(&world, &data, &replace("name", json!("data"))).await;
    assert_eq!(changed.json()["name"], "data");
}

#[tokio::test]
async fn moving_to_another_enterprise_project_takes_a_second_permission_and_an_enabled_one() {
    let mut access = calotype_core::access::Access::default();
    let policy = |actions: &str| {
        let text = format!(
            r#"{{"Version":"1.1","Statement":[{{"Effect":"Allow","Action":[{actions}]}}]}}"#
        );
        serde_json::from_str(&text).unwrap()
    };
    access.set_role("editor", policy(r#""ims:images:update""#));
    let world = World::with_access(access).await;
    let project = EnterpriseProject {
        id: ENTERPRISE.parse::<EnterpriseProjectId>().unwrap(),
        name: "one".to_owned(),
        enabled: true,
        created_at: calotype_core::time::Timestamp::from_micros(0),
    };
    world
        .catalog
        .insert_enterprise_project(&project, world.trail())
        .await
        .unwrap();
    let image = world.image(|_| ()).await;
    let editor = "eve 0123456789abcdef0123456789abcdef editor";
    let to = |id: &str| replace("enterprise_project_id", json!(id)).to_string();
    for (token, id, status) in [
        (editor, "0", 200),
        (editor, "", 200),
        (editor, ENTERPRISE, 403),
        (editor, UNKNOWN, 403),
        (MEMBER, UNKNOWN, 400),
        (MEMBER, ENTERPRISE, 200),
        (editor, ENTERPRISE, 200),
        (editor, "0", 403),
    ] {
        let answer = world.call("PATCH", token, &path(&image), &to(id)).await;
        assert_eq!(answer.status, status, "{token} {id}: {}", answer.text);
    }
    let path_of_list = format!("/v2/cloudimages?enterprise_project_id={ENTERPRISE}");
    let listed = world.get(MEMBER, &path_of_list).await;
    assert_eq!(listed.json()["images"][0]["id"], image.id.to_string());
    let line = world.trail().event;
    let changed = world
        .catalog
        .set_enterprise_project_enabled(project.id, false, &line);
    assert!(changed.await.unwrap());
    let other = world.image(|_| ()).await;
    let answer = world
        .call("PATCH", MEMBER, &path(&other), &to(ENTERPRISE))
        .await;
    assert_eq!(answer.refusal(), (400, "IMG.0155".to_owned()));
}

#[tokio::test]
async fn glances_older_form_is_read_where_it_is_named() {
    let world = World::new().await;
    let image = world.image(|_| ()).await;
    let media = "application/openstack-images-v2.0-json-patch";
    let body = r#"[{"replace": "/name", "value": "older"}]"#;
    let request = http::Request::builder()
        .method("PATCH")
        .uri(path(&image))
        .header("X-Auth-Token", MEMBER)
        .header("Content-Type", media)
        .body(axum::body::Body::from(body))
        .unwrap();
    let answer = world.send(request).await;
    assert_eq!(answer.json()["name"], "older", "{}", answer.text);
}

#[tokio::test]
async fn only_an_administrator_makes_a_full_ecs_image() {
    let world = World::new().await;
    let body = r#"{"name": "whole", "__whole_image": "true"}"#;
    assert_eq!(world.post(MEMBER, "/v2/images", body).await.status, 403);
    assert_eq!(world.post(ADMIN, "/v2/images", body).await.status, 201);
}
