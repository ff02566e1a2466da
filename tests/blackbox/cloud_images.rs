//! The IMS API beside replication: images as OTC's and Huawei's clients change and tag them. What each field may be is
//! tested in the API's own crate; here it is what clients do in a row, and what is left after a restart.

use calotype_tests::Server;
use serde_json::{Value, json};

fn listed(client: &calotype_tests::Client, image: &str) -> Value {
    let found = client.get(&format!("/v2/cloudimages?id={image}"));
    found.expect(200).json()["images"][0].clone()
}

#[test]
fn a_replica_is_updated_as_terraform_does_it_right_after_its_job() {
    let mut server = Server::with_defaults();
    let client = server.user();
    let source = client.image("source", 1, 1000);
    let replica = client.replicate(&source, "replica");
    let path = format!("/v2/cloudimages/{replica}");
    let patch = |body: Value| client.patch(&path, "application/json", body);

    // Numbers, of attributes that the replica may not have.
    let changed = patch(json!([
        {"op": "replace", "path": "/min_ram", "value": 1024},
        {"op": "replace", "path": "/max_ram", "value": 4096},
    ]));
    let changed = changed.expect(200).json();
    assert_eq!(
        (&changed["min_ram"], &changed["max_ram"]),
        (&json!(1024), &json!("4096"))
    );

    // What can't be replaced says so by this code, and is added.
    let firmware = |op: &str| json!([{"op": op, "path": "/hw_firmware_type", "value": "uefi"}]);
    let before = client.state();
    patch(firmware("replace")).refused(400, "IMG.0035");
    assert_eq!(client.state(), before);
    let added = patch(firmware("add")).expect(200).json();
    assert_eq!(added["hw_firmware_type"], "uefi");
    assert_eq!(listed(&client, &replica), added);

    // Its bytes and those of its source are what they were.
    for image in [&source, &replica] {
        let bytes = client
            .get(&format!("/v2/images/{image}/file"))
            .expect(200)
            .bytes;
        assert_eq!(bytes.len(), 1000);
    }
    server.restart();
    assert_eq!(listed(&client.at(server.base()), &replica), added);
}

#[test]
fn tags_are_changed_as_terraform_does_it_and_survive_a_restart() {
    let mut server = Server::with_defaults();
    let client = server.user();
    // Terraform tags an image whose bytes are still to come.
    let image = client.create("image");
    let tags = format!("/v2/{}/images/{image}/tags", client.project());
    let action = format!("{tags}/action");
    let tag = |key: &str, value: &str| json!({"key": key, "value": value});
    let batch = |action: &str, tags: Value| json!({"action": action, "tags": tags});
    let first = batch("create", json!([tag("env", "dev"), tag("owner", "")]));
    client.post(&action, first).expect(204);
    // Its update takes away all that was there, and then adds.
    let shown = client.get(&tags).expect(200).json()["tags"].clone();
    assert_eq!(shown, json!([tag("env", "dev"), tag("owner", "")]));
    client.post(&action, batch("delete", shown)).expect(204);
    assert_eq!(client.get(&tags).expect(200).json(), json!({"tags": []}));
    let second = batch("create", json!([tag("env", "prod"), tag("web", "")]));
    client.post(&action, second).expect(204);
    let before = client.state();
    let many: Vec<Value> = (0..9).map(|n| tag(&format!("k{n}"), "")).collect();
    client
        .post(&action, batch("create", json!(many)))
        .refused(400, "IMG.0116");
    client
        .delete(&format!("{tags}/owner"))
        .refused(404, "IMG.0121");
    assert_eq!(client.state(), before);

    server.restart();
    let client = client.at(server.base());
    assert_eq!(listed(&client, &image)["tags"], json!(["env=prod", "web"]));
    let query = json!({"action": "filter", "tags": [{"key": "env", "values": ["prod"]}]});
    let path = format!("/v2/{}/images/resource_instances/action", client.project());
    let found = client.post(&path, query).expect(200).json();
    assert_eq!(found["total_count"], 1, "{found}");
    assert_eq!(found["resources"][0]["resource_id"], image, "{found}");
    let all = client.get("/v1/cloudimages/tags").expect(200).json();
    assert_eq!(all, json!({"tags": ["env=prod", "web"]}));
}

#[test]
fn tags_that_many_clients_set_at_once_are_all_there() {
    let server = Server::with_defaults();
    let client = server.user();
    let image = client.create("image");
    std::thread::scope(|scope| {
        for n in 0..8 {
            let (client, image) = (&client, &image);
            scope.spawn(move || {
                let body = json!({"image_id": image, "tag": format!("k{n}=v")});
                client.put("/v1/cloudimages/tags", body).expect(204);
            });
        }
    });
    let expected: Vec<String> = (0..8).map(|n| format!("k{n}=v")).collect();
    assert_eq!(listed(&client, &image)["tags"], json!(expected));
}

#[test]
fn an_image_is_listed_shown_and_deleted_by_the_calls_of_the_first_version() {
    let server = Server::with_defaults();
    let client = server.user();
    let image = client.image("image", 1, 1000);
    let images = client
        .get("/v1.1/images/detail?name=image")
        .expect(200)
        .json();
    assert_eq!(images["images"][0]["id"], image, "{images}");
    assert_eq!(images["images"][0]["size"], 1000, "{images}");
    let shown = client.head(&format!("/v1/images/{image}")).expect(200);
    assert_eq!(shown.header("x-image-meta-size"), "1000");
    assert_eq!(shown.header("etag"), images["images"][0]["checksum"]);
    client.delete(&format!("/v1.1/images/{image}")).expect(204);
    client.get(&format!("/v2/images/{image}")).expect(404);
    client.head(&format!("/v1/images/{image}")).expect(404);
}

#[test]
fn an_update_is_in_the_audit_trail_with_the_attributes_that_it_named() {
    let server = Server::with_defaults();
    let client = server.user();
    let image = client.image("image", 1, 10);
    let body = json!([{"op": "replace", "path": "/name", "value": "renamed"}]);
    let path = format!("/v2/cloudimages/{image}");
    client.patch(&path, "application/json", body).expect(200);
    let trail = client.get("/admin/v1/audit").expect(200).json();
    let line = &trail["events"][0];
    assert_eq!(line["trace_name"], "updateImage", "{line}");
    assert_eq!(
        (&line["resource_type"], &line["resource_id"]),
        (&json!("ims"), &json!(image))
    );
    assert_eq!(line["detail"]["attributes"], json!(["name"]), "{line}");
}
