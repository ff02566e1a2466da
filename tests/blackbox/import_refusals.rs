//! Every refusal of an import, with its code, and that it changes nothing.

use calotype_tests::{Client, Content, Options, Server, config};
use serde_json::{Value, json};

const V2: &str = "/v2/cloudimages/action";
const QUICK: &str = "/v2/cloudimages/quickimport/action";
const DATA: &str = "/v1/cloudimages/dataimages/action";

fn place() -> (Server, Client) {
    place_on(Server::with_defaults())
}

fn place_on(server: Server) -> (Server, Client) {
    let client = server.user();
    server.put_object("disk.raw", Content::new(1, 5000));
    server.put_object("empty", &b""[..]);
    server.put_object("first.qcow", &b"QFI\xfb\0\0\0\x01and more"[..]);
    server.put_object("disk.qed", &b"QED\0and more"[..]);
    server.put_object(
        "disk.vmdk",
        &b"# Disk DescriptorFile\nRW 1 FLAT \"/etc/passwd\""[..],
    );
    let mut tar = vec![0; 1024];
    tar[257..262].copy_from_slice(b"ustar");
    server.put_object("disk.ova", &tar[..]);
    (server, client)
}

#[test]
fn what_is_wrong_with_a_request_has_its_code_and_changes_nothing() {
    let (_server, client) = place();
    let before = client.state();
    let object = "images:disk.raw";
    let cases: [(&str, &str, Value, &str); 36] = [
        (V2, object, json!({"name": ""}), "IMG.0013"),
        (V2, object, json!({"name": "x".repeat(129)}), "IMG.0002"),
        (V2, object, json!({"name": "a/b"}), "IMG.0003"),
        (V2, object, json!({"name": 7}), "IMG.0001"),
        (
            V2,
            object,
            json!({"description": "x".repeat(1025)}),
            "IMG.0004",
        ),
        (V2, object, json!({"description": "<b>"}), "IMG.0054"),
        (V2, "disk.raw", json!({}), "IMG.0017"),
        (V2, "images:../secret", json!({}), "IMG.0017"),
        (V2, ":disk.raw", json!({}), "IMG.0068"),
        (V2, "Images:disk.raw", json!({}), "IMG.0109"),
        (V2, "images:a disk.raw", json!({}), "IMG.0175"),
        (V2, "elsewhere:disk.raw", json!({}), "IMG.0069"),
        (V2, "images:nothing", json!({}), "IMG.0057"),
        (V2, "images:empty", json!({}), "IMG.0057"),
        (V2, "images:first.qcow", json!({}), "IMG.0057"),
        (V2, "images:disk.qed", json!({}), "IMG.0057"),
        (V2, "images:disk.vmdk", json!({}), "IMG.0057"),
        (V2, "images:disk.ova", json!({}), "IMG.0057"),
        (V2, object, json!({"min_disk": null}), "IMG.0055"),
        (V2, object, json!({"min_disk": 1025}), "IMG.0111"),
        (V2, object, json!({"min_ram": 2, "max_ram": 1}), "IMG.0055"),
        (V2, object, json!({"type": "Amiga"}), "IMG.0024"),
        (V2, object, json!({"type": "IsoImage"}), "IMG.0166"),
        (
            V2,
            object,
            json!({"type": "IsoImage", "os_version": "CentOS 7.2 64bit"}),
            "IMG.0057",
        ),
        (V2, object, json!({"os_version": "Amiga 3"}), "IMG.0056"),
        (V2, object, json!({"os_type": "Amiga"}), "IMG.0122"),
        (
            V2,
            object,
            json!({"hw_firmware_type": "coreboot"}),
            "IMG.0141",
        ),
        (V2, object, json!({"architecture": "mips"}), "IMG.0212"),
        (V2, object, json!({"tags": ["a b"]}), "IMG.0115"),
        (
            V2,
            object,
            json!({"enterprise_project_id": "nope"}),
            "IMG.0155",
        ),
        (
            V2,
            object,
            json!({"cmk_id": "0d0466b0-e727-4d9c-b35d-f84bb474a37f"}),
            "IMG.0095",
        ),
        (V2, object, json!({"instance_id": "x"}), "IMG.0005"),
        (
            V2,
            object,
            json!({"data_images": [{"image_url": object}]}),
            "IMG.0123",
        ),
        (QUICK, object, json!({}), "IMG.0056"),
        (QUICK, object, json!({"type": "IsoImage"}), "IMG.0024"),
        (DATA, object, json!({"min_disk": 2049}), "IMG.0055"),
    ];
    for (path, object, more, code) in cases {
        let answer = client.import_at(path, object, more.clone());
        assert_eq!(answer.status, 400, "{path} {object} {more}: {answer}");
        answer.refused(400, code);
    }
    let tags: Vec<String> = (0..11).map(|number| format!("tag{number}")).collect();
    client
        .import(object, json!({"tags": tags}))
        .refused(400, "IMG.0116");
    let key = client.create_key("k");
    client
        .import(object, json!({"type": "BMS", "cmk_id": key}))
        .refused(400, "IMG.0118");
    for path in [V2, QUICK, DATA, "/v1/cloudimages/action"] {
        client.post(path, Value::Null).refused(400, "IMG.0007");
        client.post(path, json!([])).refused(400, "IMG.0001");
    }
    client
        .post(
            V2,
            json!({"name": "x", "volume_id": "v", "os_version": "CentOS 7.2 64bit"}),
        )
        .refused(400, "IMG.0120");
    assert_eq!(client.state(), before);
}

#[test]
fn an_image_that_does_not_wait_for_bytes_gets_none() {
    let (server, client) = place_on(Server::with_own_keys());
    let active = client.image("active", 1, 100);
    let waiting = client.create("waiting");
    let before = client.state();
    let register = |client: &Client, image: &str, object: &str| {
        let path = format!("/v1/cloudimages/{image}/upload");
        client.put(&path, json!({"image_url": object}))
    };
    register(&client, &active, "images:disk.raw").refused(400, "IMG.0046");
    register(&client, "nope", "images:disk.raw").refused(400, "IMG.0066");
    register(
        &client,
        "11111111-2222-4333-8444-555555555555",
        "images:disk.raw",
    )
    .refused(404, "IMG.0027");
    register(&client, &waiting, "images:nothing").refused(400, "IMG.0057");
    register(&client, &waiting, "").refused(400, "IMG.0017");
    let disabled = client.create_key("disabled");
    client.key_call("disable-key", &disabled);
    for (key, code) in [
        (json!("11111111-2222-4333-8444-555555555555"), "IMG.0095"),
        (json!(disabled), "IMG.0097"),
        (json!(1), "IMG.0001"),
    ] {
        let body = json!({"image_url": "images:disk.raw", "cmk_id": key});
        let path = format!("/v1/cloudimages/{waiting}/upload");
        client.put(&path, body).refused(400, code);
    }
    let stranger = server.admin().new_project("stranger", "member");
    register(&stranger, &waiting, "images:disk.raw").refused(404, "IMG.0027");
    assert_eq!(client.state(), before);
}

#[test]
fn a_bucket_with_a_list_is_closed_to_other_projects() {
    let server = Server::with_defaults();
    let (owner, other) = (server.user(), server.admin().new_project("other", "member"));
    let text = format!("[objects.buckets]\nimages = [{:?}]\n", owner.project());
    let mut server = server;
    server
        .try_restart(Options::config(text))
        .expect("it starts");
    server.put_object("disk.raw", Content::new(1, 5000));
    let (owner, other) = (owner.at(server.base()), other.at(server.base()));
    other
        .import("images:disk.raw", json!({}))
        .refused(400, "IMG.0069");
    owner.imported("images:disk.raw", json!({}));
}

#[test]
fn limits_are_kept_with_their_codes() {
    let text = format!(
        "{}max_import_size = 4096\nconcurrent_imports = 1\n",
        config::limits(2, 5)
    );
    let server = Server::start(Options::config(text));
    let client = server.user();
    let large = server.put_object("large.raw", Content::new(1, 4097));
    let small = server.put_object("small.raw", Content::new(1, 4096));
    client.import(&large, json!({})).refused(400, "IMG.0059");
    let quick = json!({"os_version": "CentOS 7.2 64bit"});
    let accepted = client.import_at(QUICK, &large, quick).expect(200).json();
    client.job(&calotype_tests::client::text(&accepted["job_id"]));
    client.imported(&small, json!({}));
    client.import(&small, json!({})).refused(400, "IMG.0015");
    let text = "[limits]\nconcurrent_imports = 0\n";
    let server = Server::start(Options::config(text));
    let object = server.put_object("disk.raw", Content::new(1, 5000));
    server
        .user()
        .import(&object, json!({}))
        .refused(400, "IMG.0060");
}

#[test]
fn a_stores_bucket_is_closed_to_projects_that_nobody_named() {
    let store = calotype_tests::S3Store::start();
    let object = store.put("disk.raw", Content::new(1, 5000));
    let unlisted = store.config().replace("unlisted_buckets = \"allow\"\n", "");
    let mut server = Server::start(Options::config(unlisted.clone()));
    let client = server.user();
    client.import(&object, json!({})).refused(400, "IMG.0069");
    let named = format!(
        "{unlisted}[objects.buckets]\nimages = [{:?}]\n",
        client.project()
    );
    server.try_restart(Options::config(named)).expect("a start");
    let client = client.at(server.base());
    client.import(&object, json!({})).expect(200);
}

#[test]
fn a_store_that_is_away_is_told_as_that() {
    let mut store = calotype_tests::S3Store::start();
    let text = format!(
        "{}[objects.connection]\ntime_limit = \"0s\"\n",
        store.config()
    );
    let server = Server::start(Options::config(text));
    let client = server.user();
    store.stop();
    let away = client.import("images:disk.raw", json!({}));
    away.refused(503, "IMG.0061");
    assert!(client.list().is_empty());
}
