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
