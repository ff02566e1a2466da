//! Every refusal of an export, with its code, and that it changes nothing.

use calotype_tests::{Client, Content, Options, Server, client, config, until};
use serde_json::{Value, json};

struct Place {
    server: Server,
    client: Client,
    image: String,
}

impl Place {
    fn new(text: impl Into<String>) -> Self {
        let server = Server::start(Options::config(text).with_own_keys());
        let client = server.user();
        server.put_object("taken.qcow2", &b"somebody's"[..]);
        let object = server.put_object("disk.raw", Content::new(1, 1 << 20));
        let image = client.imported(&object, json!({}));
        Self {
            server,
            client,
            image,
        }
    }
}

fn body(object: &str, format: &str) -> Value {
    json!({"bucket_url": object, "file_format": format})
}

#[test]
fn what_is_wrong_with_a_request_has_its_code_and_changes_nothing() {
    let place = Place::new("");
    let (client, image) = (&place.client, &place.image);
    let before = client.state();
    let long = format!("images:{}", "x".repeat(129));
    let new = "images:new.qcow2";
    let cases: [(Value, &str); 21] = [
        (body("new.qcow2", "qcow2"), "IMG.0017"),
        (json!({"file_format": "qcow2"}), "IMG.0017"),
        (body("images:../x", "qcow2"), "IMG.0017"),
        (body("images:", "qcow2"), "IMG.0073"),
        (body("images:folder/", "qcow2"), "IMG.0073"),
        (body(&long, "qcow2"), "IMG.0074"),
        (body("images:a%b", "qcow2"), "IMG.0075"),
        (body("images:a b", "qcow2"), "IMG.0175"),
        (body(":a", "qcow2"), "IMG.0068"),
        (body("IMAGES:a", "qcow2"), "IMG.0109"),
        (body("elsewhere:a", "qcow2"), "IMG.0069"),
        (body("images:taken.qcow2", "qcow2"), "IMG.0070"),
        (body("images:taken.qcow2", "raw"), "IMG.0070"),
        (body(new, "vdi"), "IMG.0072"),
        (body(new, "zvhd"), "IMG.0072"),
        (body(new, "zvhd2"), "IMG.0072"),
        (json!({"bucket_url": new}), "IMG.0072"),
        (
            json!({"bucket_url": new, "is_quick_export": true, "file_format": "zvhd2"}),
            "IMG.0072",
        ),
        (
            json!({"bucket_url": new, "is_quick_export": true}),
            "IMG.0072",
        ),
        (json!({"bucket_url": 7}), "IMG.0001"),
        (
            json!({"bucket_url": new, "is_quick_export": "yes"}),
            "IMG.0001",
        ),
    ];
    for (body, code) in cases {
        let answer = client.export(image, body.clone());
        assert_eq!(
            (answer.status, &*answer.text().contains(code).to_string()),
            (400, "true"),
            "{body}: {}",
            answer.text()
        );
        answer.refused(400, code);
    }
    let said = client.export(image, body(new, "zvhd2")).text();
    assert!(said.contains("no public description"), "{said}");
    client
        .post("/v1/cloudimages/nope/file", body(new, "qcow2"))
        .refused(400, "IMG.0066");
    let unknown = "11111111-2222-3333-4444-555555555555";
    client
        .export(unknown, body(new, "qcow2"))
        .refused(404, "IMG.0027");
    assert_eq!(client.state(), before);
    assert!(!place.server.has_object("new.qcow2"));
    let taken = std::fs::read(place.server.object("taken.qcow2")).expect("the object");
    assert_eq!(taken, b"somebody's");
}

#[test]
fn what_an_image_is_can_forbid_its_export() {
    let place = Place::new("");
    let client = &place.client;
    let key = client.create_key("k");
    let sealed = client.imported("images:disk.raw", json!({"cmk_id": key}));
    place.server.put_object("opaque.zvhd2", &b"opaque"[..]);
    let opaque = client.imported("images:opaque.zvhd2", json!({}));
    let waiting = client.create("waiting");
    let admin = place.server.admin();
    let marked = |name: &str, value: &str| {
        let mut image = json!({"name": "marked", "disk_format": "raw", "container_format": "bare"});
        image[name] = json!(value);
        admin.create_with(image)
    };
    let whole = marked("__whole_image", "true");
    let backup = marked("__backup_id", "b");
    let charged = marked("__productcode", "p");
    let iso = marked("virtual_env_type", "IsoImage");
    // The lasting reasons come before the state: these have no bytes yet.
    for (image, code) in [
        (&whole, "IMG.0128"),
        (&backup, "IMG.0080"),
        (&charged, "IMG.0079"),
        (&iso, "IMG.0167"),
    ] {
        admin
            .export(image, body("images:new", "qcow2"))
            .refused(400, code);
    }
    let new = "images:new";
    for (image, body, code) in [
        (&waiting, body(new, "qcow2"), "IMG.0046"),
        (&opaque, body(new, "qcow2"), "IMG.0072"),
        (
            &sealed,
            json!({"bucket_url": new, "is_quick_export": true}),
            "IMG.0071",
        ),
    ] {
        let answer = client.export(image, body);
        answer.refused(400, code);
    }
    client.key_call("disable-key", &key);
    client
        .export(&sealed, body(new, "qcow2"))
        .refused(400, "IMG.0102");
    client.key_call("enable-key", &key);
    client.exported(&sealed, new, "qcow2");
}

#[test]
fn only_its_owner_exports_an_image() {
    let place = Place::new("");
    let (client, image) = (&place.client, &place.image);
    let admin = place.server.admin();
    let other = admin.new_project("other", "member");
    let reader = admin.new_user("reader", client.project(), client.project_name(), "reader");
    let new = || body("images:new", "qcow2");
    reader.export(image, new()).refused(403, "IMG.0026");
    other.export(image, new()).refused(404, "IMG.0027");
    client.set(image, "visibility", "shared");
    let member = json!({"member": other.project()});
    client
        .post(&format!("/v2/images/{image}/members"), member)
        .expect(200);
    other.export(image, new()).refused(400, "IMG.0047");
    admin.set(image, "visibility", "public");
    for caller in [client, &other] {
        caller.export(image, new()).refused(400, "IMG.0077");
    }
}

#[test]
fn the_stricter_path_takes_the_permission_on_the_key_too() {
    let place = Place::new("");
    let client = &place.client;
    let key = client.create_key("k");
    let sealed = client.imported("images:disk.raw", json!({"cmk_id": key}));
    let admin = place.server.admin();
    let role = json!({"role": {"name": "IMS FullAccess"}});
    let made = admin.post("/identity/v3/roles", role);
    // A Keystone of several tests may have it.
    assert!(matches!(made.status, 201 | 409), "{made}");
    let images_only = admin.new_user(
        "images",
        client.project(),
        client.project_name(),
        "IMS FullAccess",
    );
    let path = |image: &str| format!("/v2.1/cloudimages/{image}/file");
    let refused = images_only.post(&path(&sealed), body("images:strict", "qcow2"));
    refused.refused(400, "IMG.0103");
    // Without a key there is nothing to be permitted.
    for (caller, image, object) in [
        (&images_only, &place.image, "images:plain"),
        (client, &sealed, "images:sealed"),
    ] {
        let accepted = caller.post(&path(image), body(object, "qcow2")).expect(200);
        let job = caller.job(&client::text(&accepted.json()["job_id"]));
        assert_eq!(job.status(), "SUCCESS", "{}", job.document);
    }
}

#[test]
fn sizes_and_numbers_are_limited() {
    let limits =
        "[limits]\nmax_export_size = 4096\nmax_quick_export_size = 8192\nconcurrent_exports = 0\n";
    let place = Place::new(limits);
    let client = &place.client;
    let too_large = client.export(&place.image, body("images:new", "qcow2"));
    too_large.refused(400, "IMG.0059");
    place.server.put_object("some.raw", Content::new(1, 5000));
    let some = client.imported("images:some.raw", json!({}));
    client
        .export(&some, body("images:new", "qcow2"))
        .refused(400, "IMG.0160");
    place.server.put_object("few.raw", Content::new(1, 4096));
    let few = client.imported("images:few.raw", json!({}));
    client
        .export(&few, body("images:new", "qcow2"))
        .refused(400, "IMG.0060");
}

#[test]
fn an_image_is_exported_once_at_a_time() {
    // Nobody takes the jobs, so the first one lasts.
    let mut place = Place::new("");
    assert!(place.server.stop().success());
    let none = Options::config(config::jobs(0, 30));
    place.server.try_restart(none).expect("a start");
    let client = place.client.at(place.server.base());
    let first = client.begin_export(&place.image, "images:one", "qcow2");
    client
        .export(&place.image, body("images:two", "raw"))
        .refused(400, "IMG.0148");
    let cancelled = place
        .server
        .admin()
        .delete(&format!("/admin/v1/jobs/{first}"));
    assert!(cancelled.status < 300, "{}", cancelled.text());
    until("the job to end", || {
        (client.show_job(&first).json()["status"] == "FAIL").then_some(())
    });
    client.begin_export(&place.image, "images:two", "raw");
}

#[test]
fn a_bucket_of_other_projects_looks_as_if_it_were_not_there() {
    let text = "[objects.buckets]\nclosed = [\"0123456789abcdef0123456789abcdef\"]\n";
    let place = Place::new(text);
    place.server.make_bucket("closed");
    let refused = place
        .client
        .export(&place.image, body("closed:new", "qcow2"));
    refused.refused(400, "IMG.0069");
}
