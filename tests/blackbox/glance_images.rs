//! One image through the OpenStack Image API v2: statuses, headers, bodies and refusals as Glance's
//! clients expect them (spec/clients.md 1.4).

use calotype_tests::client::send;
use calotype_tests::{Client, Options, Server, config};
use reqwest::Method;
use serde_json::{Value, json};

const PATCH_21: &str = "application/openstack-images-v2.1-json-patch";
const PATCH_20: &str = "application/openstack-images-v2.0-json-patch";
const UNKNOWN: &str = "11111111-2222-4333-8444-555555555555";

#[test]
fn versions_are_told_without_a_token_and_with_links_that_can_be_followed() {
    let server = Server::with_defaults();
    let client = Client::anonymous(server.base());
    let body = client.get("/").expect(300).json();
    for path in ["/v1", "/v3"] {
        assert_eq!(client.get(path).expect(300).json(), body);
    }
    client.get("/nonsense").expect(404);
    assert_eq!(client.get("/versions").expect(200).json(), body);
    for version in body["versions"].as_array().expect("versions") {
        let status = version["status"].as_str().expect("a status");
        assert!(["CURRENT", "SUPPORTED", "DEPRECATED", "EXPERIMENTAL"].contains(&status));
        let link = version["links"][0]["href"].as_str().expect("a link");
        assert!(link.starts_with(&format!("{}/v", server.base())), "{link}");
        assert_eq!(version["links"][0]["rel"], "self");
    }
}

#[test]
fn an_image_lives_from_queued_to_active_to_gone() {
    let server = Server::with_defaults();
    let client = server.user();
    let made = client.post(
        "/v2/images",
        json!({"name": "life", "disk_format": "raw", "container_format": "bare", "custom": "x"}),
    );
    let made = made.expect(201);
    let image = made.json();
    let id = image["id"].as_str().expect("an id");
    let location = made.header("location");
    assert!(
        location.ends_with(&format!("/v2/images/{id}")),
        "{location}"
    );
    assert_eq!(image["status"], "queued");
    for absent in [
        "size",
        "virtual_size",
        "checksum",
        "os_hash_algo",
        "os_hash_value",
    ] {
        assert_eq!(image.get(absent), Some(&Value::Null), "{absent} of {image}");
    }
    assert_eq!(image["custom"], "x");
    assert_eq!(image["self"], format!("/v2/images/{id}"));
    assert_eq!(image["file"], format!("/v2/images/{id}/file"));
    assert_eq!(image["schema"], "/v2/schemas/image");
    assert_eq!(image.get("properties"), None, "gophercloud can't decode it");
    assert_eq!(image.get("locations"), None, "tenants see no locations");
    assert_eq!(image.get("direct_url"), None, "tenants see no locations");

    client.get(&format!("/v2/images/{id}/file")).expect(204);
    let uploaded = client.upload(id, "bytes").expect(204);
    assert!(uploaded.bytes.is_empty());
    client.upload(id, "other").expect(409);
    let file = client.get(&format!("/v2/images/{id}/file")).expect(200);
    assert_eq!(file.text(), "bytes");
    assert_eq!(file.header("content-type"), "application/octet-stream");
    assert_eq!(
        file.header("content-md5"),
        client.show(id)["checksum"].as_str().expect("md5")
    );
    let gone = client.delete(&format!("/v2/images/{id}")).expect(204);
    assert!(gone.bytes.is_empty());
    client.get(&format!("/v2/images/{id}")).expect(404);
    client.delete(&format!("/v2/images/{id}")).expect(404);
    let again =
        json!({"id": id, "name": "again", "disk_format": "raw", "container_format": "bare"});
    client.post("/v2/images", again).expect(409);
}

#[test]
fn a_record_that_breaks_a_rule_is_refused() {
    let server = Server::with_defaults();
    let client = server.user();
    let before = client.state();
    for (body, status) in [
        (json!({"disk_format": "nonsense"}), 400),
        (json!({"container_format": "nonsense"}), 400),
        (json!({"name": 7}), 400),
        (json!({"name": "x".repeat(256)}), 400),
        (json!({"min_disk": -1}), 400),
        (json!({"min_ram": "many"}), 400),
        (json!({"protected": "yes"}), 400),
        (json!({"visibility": "nonsense"}), 400),
        (json!({"id": "nonsense"}), 400),
        (json!({"tags": ["x".repeat(256)]}), 400),
        (json!({"custom": 7}), 400),
        (json!([]), 400),
        (json!({"visibility": "public"}), 403),
        (json!({"owner": "f".repeat(32)}), 403),
        (json!({"status": "active"}), 403),
        (json!({"size": 5}), 403),
        (json!({"checksum": "x"}), 403),
        (json!({"created_at": "2020-01-01T00:00:00Z"}), 403),
        (json!({"locations": []}), 403),
        (json!({"direct_url": "file:///etc/passwd"}), 403),
        (json!({"deleted": false}), 403),
    ] {
        let answer = client.post("/v2/images", body.clone());
        assert_eq!(answer.status, status, "{body}: {answer}");
    }
    client
        .raw(Method::POST, "/v2/images", "application/json", "{")
        .expect(400);
    assert_eq!(client.state(), before);
}

#[test]
fn a_patch_changes_what_may_change_in_both_media_types() {
    let server = Server::with_defaults();
    let client = server.user();
    let image = client.image("before", 1, 10);
    let path = format!("/v2/images/{image}");
    let changed = client
        .patch(
            &path,
            PATCH_21,
            json!([
                {"op": "replace", "path": "/name", "value": "after"},
                {"op": "add", "path": "/min_disk", "value": 3},
                {"op": "add", "path": "/fresh", "value": "x"},
                {"op": "add", "path": "/tags", "value": ["a", "b", "a"]},
                {"op": "replace", "path": "/protected", "value": true},
            ]),
        )
        .expect(200)
        .json();
    assert_eq!(changed["name"], "after");
    assert_eq!(changed["min_disk"], 3);
    assert_eq!(changed["fresh"], "x");
    assert_eq!(changed["protected"], true);
    let mut tags: Vec<_> = changed["tags"].as_array().expect("tags").clone();
    tags.sort_by_key(ToString::to_string);
    assert_eq!(tags, [json!("a"), json!("b")]);
    client.delete(&path).expect(403);

    let old = json!([{"replace": "/name", "value": "older"}, {"remove": "/fresh"}]);
    let changed = client.patch(&path, PATCH_20, old).expect(200).json();
    assert_eq!(changed["name"], "older");
    assert_eq!(changed.get("fresh"), None);
    client.patch(&path, PATCH_21, json!([])).expect(200);

    let before = client.show(&image);
    for (media, patch, status) in [
        ("application/json", json!([]), 415),
        ("text/plain", json!([]), 415),
        (PATCH_21, json!({}), 400),
        (PATCH_21, json!([{"op": "nonsense", "path": "/name"}]), 400),
        (
            PATCH_21,
            json!([{"op": "add", "path": "name", "value": "x"}]),
            400,
        ),
        (
            PATCH_21,
            json!([{"op": "add", "path": "/a/b/c", "value": "x"}]),
            400,
        ),
        (PATCH_21, json!([{"op": "add", "path": "/name"}]), 400),
        (
            PATCH_21,
            json!([{"op": "replace", "path": "/absent", "value": "x"}]),
            409,
        ),
        (PATCH_21, json!([{"op": "remove", "path": "/absent"}]), 409),
        (
            PATCH_21,
            json!([{"op": "replace", "path": "/id", "value": UNKNOWN}]),
            403,
        ),
        (
            PATCH_21,
            json!([{"op": "replace", "path": "/status", "value": "queued"}]),
            403,
        ),
        (
            PATCH_21,
            json!([{"op": "replace", "path": "/size", "value": 1}]),
            403,
        ),
        (
            PATCH_21,
            json!([{"op": "replace", "path": "/checksum", "value": "x"}]),
            403,
        ),
        (
            PATCH_21,
            json!([{"op": "replace", "path": "/os_hash_value", "value": "x"}]),
            403,
        ),
        (
            PATCH_21,
            json!([{"op": "replace", "path": "/owner", "value": "x"}]),
            403,
        ),
        (PATCH_21, json!([{"op": "remove", "path": "/name"}]), 403),
        (
            PATCH_21,
            json!([{"op": "replace", "path": "/visibility", "value": "public"}]),
            403,
        ),
        (
            PATCH_21,
            json!([{"op": "add", "path": "/locations/-",
            "value": {"url": "file:///etc/passwd", "metadata": {}}}]),
            403,
        ),
        (
            PATCH_21,
            json!([{"op": "replace", "path": "/name", "value": "kept out"},
            {"op": "replace", "path": "/absent", "value": "x"}]),
            409,
        ),
    ] {
        let answer = client.patch(&path, media, patch.clone());
        assert_eq!(answer.status, status, "{media} {patch}: {answer}");
        if status == 415 {
            assert!(answer.header("accept-patch").contains(PATCH_21), "{answer}");
        }
        assert_eq!(client.show(&image), before, "{patch}");
    }
}

#[test]
fn tags_are_added_once_and_deleted_once() {
    let server = Server::with_defaults();
    let client = server.user();
    let image = client.create("tagged");
    let tag = format!("/v2/images/{image}/tags/web");
    for _ in 0..2 {
        client.put(&tag, Value::Null).expect(204);
    }
    assert_eq!(client.show(&image)["tags"], json!(["web"]));
    client.delete(&tag).expect(204);
    client.delete(&tag).expect(404);
    client
        .put(
            &format!("/v2/images/{image}/tags/{}", "x".repeat(256)),
            Value::Null,
        )
        .expect(400);
    client
        .put(&format!("/v2/images/{UNKNOWN}/tags/web"), Value::Null)
        .expect(404);
}

#[test]
fn a_member_sees_an_image_when_it_was_shared_and_lists_it_when_it_has_accepted() {
    let server = Server::with_defaults();
    let admin = server.admin();
    let owner = server.user();
    let (friend, stranger) = (
        admin.new_project("friend", "member"),
        admin.new_project("stranger", "member"),
    );
    let image = owner.image("shared", 1, 10);
    let members = format!("/v2/images/{image}/members");
    friend.get(&format!("/v2/images/{image}")).expect(404);
    friend
        .post(&members, json!({"member": friend.project()}))
        .expect(404);
    let member = owner
        .post(&members, json!({"member": friend.project()}))
        .expect(200)
        .json();
    assert_eq!(member["status"], "pending");
    assert_eq!(member["image_id"], image);
    assert_eq!(member["member_id"], friend.project());
    assert_eq!(member["schema"], "/v2/schemas/member");
    owner
        .post(&members, json!({"member": friend.project()}))
        .expect(409);
    owner.post(&members, json!({"nonsense": 1})).expect(400);
    owner.post(&members, json!({"member": ""})).expect(400);
    let listed = |client: &Client, query: &str| {
        let list = client
            .get(&format!("/v2/images?{query}"))
            .expect(200)
            .json();
        let images = list["images"].as_array().expect("images").clone();
        images.iter().any(|found| found["id"] == image)
    };
    assert!(!listed(&friend, ""), "pending");
    assert!(listed(&friend, "visibility=shared&member_status=pending"));
    assert_eq!(friend.show(&image)["id"], image, "by its id it can be seen");
    let mine = format!("{members}/{}", friend.project());
    owner.put(&mine, json!({"status": "accepted"})).expect(403);
    friend.put(&mine, json!({"status": "nonsense"})).expect(400);
    friend.put(&mine, json!({"status": "accepted"})).expect(200);
    assert!(listed(&friend, ""));
    assert_eq!(friend.download(&image).length, 10);
    let theirs = json!([{"op": "replace", "path": "/name", "value": "mine"}]);
    friend
        .patch(&format!("/v2/images/{image}"), PATCH_21, theirs)
        .expect(403);
    friend.delete(&format!("/v2/images/{image}")).expect(403);
    friend.delete(&mine).expect(403);
    for path in [format!("/v2/images/{image}"), members.clone(), mine.clone()] {
        stranger.get(&path).expect(404);
    }
    friend.put(&mine, json!({"status": "rejected"})).expect(200);
    assert!(!listed(&friend, ""));
    owner.delete(&mine).expect(204);
    owner.delete(&mine).expect(404);
    friend.get(&format!("/v2/images/{image}")).expect(404);
}

#[test]
fn a_deactivated_image_gives_no_bytes_and_a_hidden_one_is_not_listed() {
    let server = Server::with_defaults();
    let client = server.user();
    let image = client.image("resting", 1, 10);
    let actions = format!("/v2/images/{image}/actions");
    client
        .post(&format!("{actions}/deactivate"), Value::Null)
        .expect(204);
    client.get(&format!("/v2/images/{image}/file")).expect(403);
    assert_eq!(client.show(&image)["status"], "deactivated");
    client
        .post(&format!("{actions}/reactivate"), Value::Null)
        .expect(204);
    client.get(&format!("/v2/images/{image}/file")).expect(200);
    let hide = json!([{"op": "replace", "path": "/os_hidden", "value": true}]);
    client
        .patch(&format!("/v2/images/{image}"), PATCH_21, hide)
        .expect(200);
    let count = |query: &str| {
        let list = client
            .get(&format!("/v2/images?name=resting{query}"))
            .expect(200)
            .json();
        list["images"].as_array().expect("images").len()
    };
    assert_eq!((count(""), count("&os_hidden=true")), (0, 1));
    let queued = client.create("queued");
    let path = format!("/v2/images/{queued}/actions/deactivate");
    client.post(&path, Value::Null).expect(403);
}

#[test]
fn an_upload_that_may_not_be_is_refused() {
    let server = Server::start(Options::config(config::image_size(1 << 20)));
    let client = server.user();
    let image = client.create("small");
    let path = format!("/v2/images/{image}/file");
    client
        .raw(Method::PUT, &path, "application/json", "bytes")
        .expect(415);
    client
        .raw(Method::PUT, &path, "text/plain", "bytes")
        .expect(415);
    client.upload(UNKNOWN, "bytes").expect(404);
    // A client that learns of the refusal while it sends may see the connection end instead.
    let large = client.upload_stream(&image, std::io::repeat(7), (1 << 20) + 1);
    if let Ok(answer) = large {
        answer.expect(413);
    }
    assert_eq!(client.show(&image)["status"], "queued");
    client.upload(&image, vec![7; 1 << 20]).expect(204);
    let bare = client.create_with(json!({"name": "no formats"}));
    client.upload(&bare, "bytes").expect(400);
}

#[test]
fn an_image_that_pretends_to_be_another_format_is_refused() {
    let server = Server::with_defaults();
    let client = server.user();
    let directory = tempfile::tempdir().expect("a directory");
    let backing = directory.path().join("backing.qcow2");
    let arguments = [
        "create",
        "-q",
        "-f",
        "qcow2",
        "-u",
        "-b",
        "/etc/passwd",
        "-F",
        "raw",
        &backing.to_string_lossy(),
        "1M",
    ];
    calotype_tests::program::run("qemu-img", &arguments);
    let external = directory.path().join("external.qcow2");
    let data = format!(
        "data_file={},data_file_raw=on",
        directory.path().join("x.raw").display()
    );
    let arguments = [
        "create",
        "-q",
        "-f",
        "qcow2",
        "-o",
        &data,
        &external.to_string_lossy(),
        "1M",
    ];
    calotype_tests::program::run("qemu-img", &arguments);
    let descriptor = b"# Disk DescriptorFile\nversion=1\nCID=0\nparentCID=ffffffff\n\
        createType=\"monolithicFlat\"\nRW 2048 FLAT \"/etc/passwd\" 0\n"
        .to_vec();
    for (format, bytes) in [
        ("qcow2", std::fs::read(&backing).expect("the image")),
        ("raw", std::fs::read(&backing).expect("the image")),
        ("qcow2", std::fs::read(&external).expect("the image")),
        ("raw", std::fs::read(&external).expect("the image")),
        ("qcow2", b"not a qcow2 at all".to_vec()),
        ("vmdk", descriptor),
    ] {
        let image = client.create_with(json!({
            "name": format, "disk_format": format, "container_format": "bare"}));
        let answer = client.upload(&image, bytes);
        assert!(matches!(answer.status, 400 | 415), "{format}: {answer}");
        assert_ne!(client.show(&image)["status"], "active");
    }
}

#[test]
fn an_error_is_html_or_json_as_the_client_asks() {
    let server = Server::with_defaults();
    let client = server.user();
    let path = format!("/v2/images/{UNKNOWN}");
    let as_json = client.get(&path).expect(404);
    assert!(
        as_json
            .header("content-type")
            .starts_with("application/json"),
        "{as_json}"
    );
    let body = as_json.json();
    assert_eq!(body["code"], "404 Not Found");
    assert_eq!(body["title"], "Not Found");
    assert!(
        body["message"]
            .as_str()
            .is_some_and(|text| !text.is_empty())
    );
    for accept in ["text/html", "*/*"] {
        let answer = send(client.request(Method::GET, &path).header("Accept", accept)).expect(404);
        assert!(
            answer.header("content-type").starts_with("text/html"),
            "{accept}: {answer}"
        );
        assert!(answer.text().contains("404 Not Found"), "{answer}");
    }
    let markup = client.request(Method::GET, "/v2/images?sort_key=%3Cscript%3E");
    let answer = send(markup.header("Accept", "text/html")).expect(400);
    assert!(!answer.text().contains("<script>"), "{answer}");
}

#[test]
fn schemas_and_discovery_say_what_the_clients_need() {
    let server = Server::with_defaults();
    let client = server.user();
    let schema = client.get("/v2/schemas/image").expect(200).json();
    assert_eq!(schema["name"], "image");
    assert_eq!(schema["additionalProperties"], json!({"type": "string"}));
    let formats = schema["properties"]["disk_format"]["enum"].to_string();
    for format in ["raw", "qcow2", "iso", "zvhd2"] {
        assert!(formats.contains(&format!("\"{format}\"")), "{formats}");
    }
    for name in ["images", "member", "members"] {
        let schema = client
            .get(&format!("/v2/schemas/{name}"))
            .expect(200)
            .json();
        assert_eq!(schema["name"], name);
    }
    let anonymous = Client::anonymous(server.base());
    // `/{version}` is every word that could be a version.
    for path in ["/", "/v2.0", "/v1", "/v9"] {
        let versions = anonymous.get(path).expect(300).json();
        let listed = versions["versions"].as_array().expect("versions");
        assert!(
            listed
                .iter()
                .all(|version| version["links"][0]["href"] == format!("{}/v2/", server.base()))
        );
    }
    anonymous.get("/v2").expect(401);
    client.get("/v2").expect(302);
    anonymous.get("/v2/").expect(401);
    assert_eq!(
        client.get("/v2/").expect(300).json(),
        anonymous.get("/").json()
    );
    let import = client.get("/v2/info/import").expect(200).json();
    assert!(import["import-methods"]["value"].is_array(), "{import}");
    let stores = client.get("/v2/info/stores").expect(200).json();
    assert!(stores["stores"].is_array(), "{stores}");
}
