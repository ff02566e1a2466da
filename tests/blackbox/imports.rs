//! What an import from a bucket gives: the image's bytes and attributes, and the job's document.

use calotype_tests::{Content, Digests, Options, S3Store, Server, client, config};
use serde_json::{Value, json};

const LENGTH: u64 = 70_000_123;

fn wanted() -> Digests {
    Digests::of(Content::new(5, LENGTH))
}

#[test]
fn an_image_has_the_objects_bytes_plain_and_under_a_key() {
    let mut server = Server::with_own_keys();
    let client = server.user();
    let key = client.create_key("k");
    let object = server.put_object("deep/er/disk.raw", Content::new(5, LENGTH));
    let plain = client.imported(&object, json!({}));
    let sealed = client.imported(&object, json!({"cmk_id": key}));
    for image in [&plain, &sealed] {
        assert_eq!(client.download(image), wanted());
        let shown = client.show(image);
        assert_eq!(shown["status"], "active");
        assert_eq!(shown["size"], LENGTH);
        assert_eq!(shown["virtual_size"], LENGTH);
        assert_eq!(shown["checksum"], wanted().md5);
        assert_eq!(shown["os_hash_value"], wanted().sha512);
    }
    assert_eq!(client.show(&sealed)["__system__cmkid"], key);
    assert_eq!(client.show(&plain).get("__system__cmkid"), None);
    let lines = client.audit("createImage");
    for (image, used) in [(&plain, Value::Null), (&sealed, json!(key))] {
        let line = lines.iter().find(|line| line["resource_id"] == **image);
        assert_eq!(line.expect("a line")["detail"]["target_key"], used);
    }
    client.key_call("disable-key", &key);
    let closed = client.get(&format!("/v2/images/{sealed}/file"));
    assert_eq!(closed.status, 403);
    client.key_call("enable-key", &key);
    server.restart();
    let client = server.user();
    assert_eq!(client.download(&plain), wanted());
    assert_eq!(client.download(&sealed), wanted());
    server.verify();
}

#[test]
fn an_imported_image_tells_what_the_request_said_of_it() {
    let server = Server::with_defaults();
    let client = server.user();
    let object = server.put_object("disk.raw", Content::new(1, 5000));
    let image = client.imported(
        &object,
        json!({"name": "web server", "description": "from a file", "min_disk": "50",
            "os_version": "Ubuntu 16.04 server 64bit", "min_ram": 512, "max_ram": "4096",
            "hw_firmware_type": "uefi", "is_config": true, "image_tags": [{"key": "env", "value": "dev"}],
            "ignored": 1}),
    );
    let shown = client.show(&image);
    for (name, value) in [
        ("name", json!("web server")),
        ("__description", json!("from a file")),
        ("min_disk", json!(50)),
        ("min_ram", json!(512)),
        ("max_ram", json!("4096")),
        ("hw_firmware_type", json!("uefi")),
        ("__is_config_init", json!("true")),
        ("tags", json!(["env=dev"])),
        ("__os_version", json!("Ubuntu 16.04 server 64bit")),
        ("__os_type", json!("Linux")),
        ("__os_bit", json!("64")),
        ("__platform", json!("Ubuntu")),
        ("__root_origin", json!("file")),
        ("__data_origin", json!("file,images:disk.raw")),
        ("virtual_env_type", json!("FusionCompute")),
        ("disk_format", json!("raw")),
        ("container_format", json!("bare")),
        ("visibility", json!("private")),
        ("owner", json!(client.project())),
    ] {
        assert_eq!(shown[name], value, "{name}");
    }
    let line = &client.audit("createImage")[0];
    assert_eq!(line["resource_id"], image);
    assert_eq!(line["detail"]["object"], object);
}

#[test]
fn each_path_makes_the_kind_of_image_that_it_is_for() {
    let server = Server::with_defaults();
    let client = server.user();
    let raw = server.put_object("disk.raw", Content::new(1, 100_000));
    let iso = server.put_object("setup.iso", &disc()[..]);
    let system = json!({"os_version": "CentOS 7.2 64bit"});
    for (path, object, more, job_type, environment) in [
        (
            "/v2/cloudimages/action",
            &raw,
            json!({}),
            "imsImportImageJob",
            "FusionCompute",
        ),
        (
            "/v2/cloudimages/action",
            &raw,
            json!({"type": "BMS"}),
            "imsImportImageJob",
            "Ironic",
        ),
        (
            "/v2/cloudimages/action",
            &iso,
            json!({"type": "IsoImage", "os_version": "CentOS 7.2 64bit"}),
            "imsImportImageJob",
            "IsoImage",
        ),
        (
            "/v2/cloudimages/quickimport/action",
            &raw,
            system,
            "imsImportImageJob",
            "FusionCompute",
        ),
        (
            "/v2/cloudimages/quickimport/action",
            &raw,
            json!({"type": "DataImage"}),
            "imsImportDataImageJob",
            "DataImage",
        ),
        (
            "/v1/cloudimages/dataimages/action",
            &raw,
            json!({"min_disk": 2048}),
            "imsImportDataImageJob",
            "DataImage",
        ),
        (
            "/v1/cloudimages/action",
            &raw,
            json!({"os_type": "Windows"}),
            "imsImportDataImageJob",
            "DataImage",
        ),
    ] {
        let accepted = client
            .import_at(path, object, more.clone())
            .expect(200)
            .json();
        let fields: Vec<_> = accepted.as_object().expect("an object").keys().collect();
        assert_eq!(fields, ["job_id"]);
        let job = client.job(&client::text(&accepted["job_id"]));
        assert_eq!(job.status(), "SUCCESS", "{path} {more}: {}", job.document);
        assert_eq!(job.document["job_type"], job_type, "{path} {more}");
        assert_eq!(job.document["entities"]["image_name"], "imported");
        let shown = client.show(&job.image());
        assert_eq!(shown["virtual_env_type"], environment, "{path} {more}");
        // As Terraform reads it.
        if job_type == "imsImportDataImageJob" {
            let part = &job.document["entities"]["sub_jobs_result"][0];
            assert_eq!(part["entities"]["image_id"], job.image());
        }
    }
    server.verify();
}

/// An ISO 9660 disc with nothing on it: 20 blocks of 2 KiB.
fn disc() -> Vec<u8> {
    let mut disc = vec![0; 20 * 2048];
    disc[0x8000..0x8007].copy_from_slice(b"\x01CD001\x01");
    disc[0x8000 + 80..0x8000 + 84].copy_from_slice(&20_u32.to_le_bytes());
    disc[0x8000 + 84..0x8000 + 88].copy_from_slice(&20_u32.to_be_bytes());
    disc[0x8000 + 128..0x8000 + 130].copy_from_slice(&2048_u16.to_le_bytes());
    disc[0x8000 + 130..0x8000 + 132].copy_from_slice(&2048_u16.to_be_bytes());
    disc
}

#[test]
fn an_image_that_waits_for_its_bytes_gets_those_of_an_object() {
    let server = Server::with_defaults();
    let client = server.user();
    let object = server.put_object("disk.raw", Content::new(5, LENGTH));
    let waiting = client.create("waiting");
    let bare = client.create_with(json!({"name": "without formats"}));
    let sealed = client.create("to be sealed");
    let key = client.create_key("master");
    for (image, key) in [(&waiting, None), (&bare, None), (&sealed, Some(&key))] {
        let path = format!("/v1/cloudimages/{image}/upload");
        let accepted = client.put(&path, json!({"image_url": object, "cmk_id": key}));
        let job = client.job(&client::text(&accepted.expect(200).json()["job_id"]));
        assert_eq!(job.status(), "SUCCESS", "{}", job.document);
        assert_eq!(job.document["job_type"], "imsNativeImportImageJob");
        assert_eq!(job.image(), *image);
        assert_eq!(client.download(image), wanted());
        let shown = client.show(image);
        assert_eq!(shown["disk_format"], "raw");
        assert_eq!(shown["container_format"], "bare");
        assert_eq!(
            shown.get("__system__cmkid"),
            key.map(|key| json!(key)).as_ref()
        );
        client
            .put(&path, json!({"image_url": object}))
            .refused(400, "IMG.0046");
    }
    server.verify();
}

#[test]
fn a_request_with_an_idempotency_key_makes_one_image() {
    let server = Server::with_defaults();
    let client = server.user();
    let object = server.put_object("disk.raw", Content::new(1, 5000));
    let ask = |name: &str| {
        let request = client
            .request(reqwest::Method::POST, "/v2/cloudimages/action")
            .header("Idempotency-Key", "once")
            .header("Content-Type", "application/json")
            .body(json!({"name": name, "image_url": object, "min_disk": 40}).to_string());
        client::send(request)
    };
    let first = ask("one").expect(200).json();
    let again = ask("one").expect(200).json();
    assert_eq!(first, again);
    assert_eq!(ask("two").status, 409);
    client.job(&client::text(&first["job_id"]));
    assert_eq!(client.list().len(), 1);
}

#[test]
fn objects_are_read_from_a_store_that_speaks_s3() {
    let store = S3Store::start();
    let server = Server::start(Options::config(store.config()));
    let client = server.user();
    let object = store.put("deep/disk.raw", Content::new(5, LENGTH));
    let image = client.imported(&object, json!({}));
    assert_eq!(client.download(&image), wanted());
    let refused = |object: &str, code: &str| client.import(object, json!({})).refused(400, code);
    refused("images:nothing", "IMG.0057");
    refused("no-such-bucket:disk", "IMG.0069");
    let log = server.log();
    assert!(!log.contains("a secret that opens"), "the secret is logged");
    server.verify();
}

#[test]
fn an_image_file_keeps_its_format_and_tells_its_disk() {
    let server = Server::with_defaults();
    let client = server.user();
    for (format, options) in [
        ("qcow2", vec![]),
        ("vmdk", vec![]),
        ("vdi", vec![]),
        ("vhdx", vec![]),
        ("vpc", vec!["-o", "subformat=fixed,force_size=on"]),
        ("vpc", vec!["-o", "force_size=on"]),
    ] {
        let object = server.make_object("made", |file| {
            let made = std::process::Command::new("qemu-img")
                .args(["create", "-q", "-f", format])
                .args(&options)
                .arg(file)
                .arg("64M")
                .status();
            assert!(made.expect("qemu-img runs").success());
        });
        let image = client.imported(&object, json!({}));
        let shown = client.show(&image);
        let told = if format == "vpc" { "vhd" } else { format };
        assert_eq!(shown["disk_format"], told, "{format} {options:?}");
        if format != "vhdx" {
            assert_eq!(shown["virtual_size"], 64 << 20, "{format} {options:?}");
        }
    }
    let small = client.begin_import("images:made", json!({"min_disk": 1}));
    assert_eq!(client.job(&small).status(), "SUCCESS");
}

#[test]
fn a_running_import_shows_how_far_it_is() {
    let server = Server::start(Options::config(config::DIRECTORY_OF_BUCKETS));
    let client = server.user();
    let object = server.put_sparse_object("large", 6 << 30);
    let job = client.begin_import(&object, json!({}));
    let seen = calotype_tests::until("bytes to be done", || {
        let progress = client.progress(&job);
        (progress["bytes_done"].as_u64() > Some(0)).then_some(progress)
    });
    assert_eq!(seen["bytes_total"], 6_u64 << 30);
    let shown = client
        .get(&format!("/v1/cloudimages/job/{job}"))
        .expect(200)
        .json();
    assert_eq!(shown["entities"]["current_task"], "importing");
    assert_eq!(shown["status"], "RUNNING");
    let image = client::text(&shown["entities"]["image_id"]);
    assert_eq!(client.show(&image)["status"], "saving");
    client.delete(&format!("/admin/v1/jobs/{job}")).expect(202);
    let ended = client.job(&job).document;
    assert_eq!(ended["error_code"], "IMG.0014");
    assert_eq!(ended["entities"].get("image_id"), None::<&Value>);
    assert_eq!(client.get(&format!("/v2/images/{image}")).status, 404);
}
