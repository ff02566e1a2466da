//! What an export makes: the same disk in another format, or the very bytes; and what it tells.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use calotype_tests::exports::{converted, driver, real_disk, same_disk};
use calotype_tests::program::run;
use calotype_tests::{Client, Digests, Options, S3Store, Server, client, config, until};
use serde_json::{Value, json};

/// A server with a real disk among its objects, and where that is.
struct Place {
    server: Server,
    client: Client,
}

impl Place {
    fn new() -> Self {
        let server = Server::with_defaults();
        server.make_object("disk.raw", real_disk);
        let client = server.user();
        Self { server, client }
    }

    /// The disk as an image, stored in this format.
    fn image(&self, format: &str, more: Value) -> String {
        let disk = self.server.object("disk.raw");
        let object = match format {
            "raw" => "images:disk.raw".to_owned(),
            _ => self.server.make_object(&format!("disk.{format}"), |to| {
                converted((&disk, "raw"), (to, driver(format)));
            }),
        };
        let image = self.client.imported(&object, more);
        assert_eq!(self.client.show(&image)["disk_format"], format);
        image
    }

    fn is_the_disk(&self, key: &str, format: &str) {
        let disk = self.server.object("disk.raw");
        same_disk((&disk, "raw"), (&self.server.object(key), driver(format)));
    }
}

#[test]
fn each_format_holds_the_same_disk_again_also_of_an_encrypted_image() {
    let place = Place::new();
    let key = place.client.create_key("k");
    for (name, more) in [("plain", json!({})), ("sealed", json!({"cmk_id": key}))] {
        let image = place.image("raw", more);
        for format in ["qcow2", "vhd", "vmdk", "raw"] {
            let file = format!("out/{name}.{format}");
            place
                .client
                .exported(&image, &format!("images:{file}"), format);
            place.is_the_disk(&file, format);
        }
        let line = &place.client.audit("exportImage")[0];
        let used = if name == "sealed" {
            json!(key)
        } else {
            json!(null)
        };
        assert_eq!(line["resource_id"], image);
        assert_eq!(line["detail"]["source_key"], used);
        assert_eq!(line["detail"]["protection"] == "lowered", name == "sealed");
    }
    let qcow2 = place.server.object("out/plain.qcow2");
    let check = run(
        "qemu-img",
        &["check", "-f", "qcow2", &qcow2.to_string_lossy()],
    );
    assert!(check.contains("No errors"), "{check}");
    let shown = run(
        "qemu-img",
        &[
            "info",
            "-f",
            "vpc",
            &place.server.object("out/plain.vhd").to_string_lossy(),
        ],
    );
    assert!(shown.contains("67108864 bytes"), "just as large: {shown}");
    assert_eq!(place.server.converting(), 0);
    place.server.verify();
}

#[test]
fn a_file_that_is_exported_is_for_its_owner_and_its_group() {
    let server = Server::start(Options::config(config::DIRECTORY_OF_BUCKETS));
    let client = server.user();
    let image = client.image("disk", 1, 5120);
    server.make_bucket("images");
    client.exported(&image, "images:out.qcow2", "qcow2");
    let file = server.object("out.qcow2").metadata().expect("the object");
    assert_eq!(file.permissions().mode() & 0o777, 0o640);
}

#[test]
fn each_format_that_an_image_is_stored_in_can_be_exported() {
    let place = Place::new();
    for (stored, wanted) in [
        ("qcow2", "raw"),
        ("vhd", "qcow2"),
        ("vhdx", "qcow2"),
        ("vmdk", "vhd"),
        ("vdi", "raw"),
    ] {
        let image = place.image(stored, json!({}));
        let file = format!("from-{stored}.{wanted}");
        place
            .client
            .exported(&image, &format!("images:{file}"), wanted);
        place.is_the_disk(&file, wanted);
    }
}

#[test]
fn a_vhd_is_as_long_as_its_footer_says_whatever_its_cylinders_are() {
    let place = Place::new();
    let disk = place.server.object("disk.raw");
    let object = place.server.make_object("old.vhd", |vhd| {
        let (from, to) = (disk.to_string_lossy(), vhd.to_string_lossy());
        let options = "subformat=fixed,force_size=on";
        run(
            "qemu-img",
            &[
                "convert", "-f", "raw", "-O", "vpc", "-o", options, &from, &to,
            ],
        );
        // Made by Virtual PC, as it says: of those qemu-img believes the cylinders.
        let mut bytes = std::fs::read(vhd).expect("the file");
        let footer = bytes.len() - 512;
        let footer = &mut bytes[footer..];
        footer[28..32].copy_from_slice(b"vpc ");
        footer[64..68].fill(0);
        let sum: u32 = footer.iter().map(|byte| u32::from(*byte)).sum();
        footer[64..68].copy_from_slice(&(!sum).to_be_bytes());
        std::fs::write(vhd, &bytes).expect("room");
    });
    let image = place.client.imported(&object, json!({}));
    place.client.exported(&image, "images:old.raw", "raw");
    place.is_the_disk("old.raw", "raw");
}

#[test]
fn what_is_stored_in_the_wanted_format_is_written_byte_for_byte() {
    let place = Place::new();
    let client = &place.client;
    place
        .server
        .put_object("opaque.zvhd2", &b"nobody knows what this is"[..]);
    place.server.put_object("opaque.zvhd", &b"nor this"[..]);
    let qcow2 = place.image("qcow2", json!({}));
    let newer = client.imported("images:opaque.zvhd2", json!({}));
    let older = client.imported("images:opaque.zvhd", json!({}));
    client.exported(&qcow2, "images:again.qcow2", "qcow2");
    client.exported(&older, "images:again.zvhd", "zvhd");
    client.exported(&newer, "images:again.zvhd2", "zvhd2");
    let quick = json!({"bucket_url": "images:quick.zvhd2", "is_quick_export": true});
    let quick = client.export(&newer, quick).expect(200).json();
    let job = client.job(&client::text(&quick["job_id"]));
    assert_eq!(job.status(), "SUCCESS", "{}", job.document);
    let bytes = |key: &str| std::fs::read(place.server.object(key)).expect("an object");
    for (stored, exported) in [
        ("disk.qcow2", "again.qcow2"),
        ("opaque.zvhd", "again.zvhd"),
        ("opaque.zvhd2", "again.zvhd2"),
        ("opaque.zvhd2", "quick.zvhd2"),
    ] {
        assert!(bytes(stored) == bytes(exported), "{exported}");
    }
}

#[test]
fn an_export_tells_what_it_is_about_and_leaves_the_image_alone() {
    let place = Place::new();
    let client = &place.client;
    let image = place.image("raw", json!({}));
    let before = client.show(&image);
    let job = client.begin_export(&image, "images:out.vmdk", "vmdk");
    let ended = client.job(&job).document;
    assert_eq!(ended["status"], "SUCCESS", "{ended}");
    assert_eq!(ended["job_type"], "imsNativeExportImageJob");
    assert_eq!(ended["entities"]["image_id"], image);
    assert_eq!(ended["entities"].get("image_name"), None);
    assert_eq!(ended["entities"]["process_percent"], 1.0);
    assert_eq!(ended["calotype"]["bytes_total"], before["size"]);
    assert_eq!(client.show(&image), before);
    let line = &client.audit("exportImage")[0];
    assert_eq!(line["resource_id"], image);
    assert_eq!(line["resource_type"], "ims");
    assert_eq!(line["detail"]["object"], "images:out.vmdk");
    assert_eq!(line["detail"]["file_format"], "vmdk");
    assert_eq!(line["detail"]["job_id"], job);
    // A VMDK names its own file.
    let described = std::fs::read(place.server.object("out.vmdk")).expect("the object");
    let described = String::from_utf8_lossy(&described[..8192]).into_owned();
    assert!(described.contains("SPARSE \"out.vmdk\""), "{described}");
}

#[test]
fn the_same_request_with_the_same_key_is_one_export() {
    let place = Place::new();
    let client = &place.client;
    let image = place.image("raw", json!({}));
    let ask = |format: &str| {
        let request = client.request(
            reqwest::Method::POST,
            &format!("/v1/cloudimages/{image}/file"),
        );
        let body = json!({"bucket_url": "images:once.qcow2", "file_format": format});
        let request = request.header("Idempotency-Key", "once");
        client::send(request.json(&body))
    };
    let first = ask("qcow2").expect(200).json();
    let job = client.job(&client::text(&first["job_id"]));
    assert_eq!(job.status(), "SUCCESS", "{}", job.document);
    // The object is there by now: only the kept answer is no refusal.
    assert_eq!(ask("qcow2").expect(200).json(), first);
    ask("vhd").expect(409);
}

#[test]
fn an_image_that_is_deleted_meanwhile_is_exported_whole() {
    let place = Place::new();
    let client = &place.client;
    let image = place.image("raw", json!({}));
    let job = client.begin_export(&image, "images:last.qcow2", "qcow2");
    client.delete(&format!("/v2/images/{image}")).expect(204);
    let ended = client.job(&job);
    assert_eq!(ended.status(), "SUCCESS", "{}", ended.document);
    place.is_the_disk("last.qcow2", "qcow2");
    place.server.verify();
}

#[test]
fn images_are_exported_to_a_store_that_speaks_s3() {
    let store = S3Store::start();
    let server = Server::start(Options::config(store.config()));
    let client = server.user();
    real_disk(&store.file("disk.raw"));
    let image = client.imported("images:disk.raw", json!({}));
    client.exported(&image, "images:out.qcow2", "qcow2");
    same_disk(
        (&store.file("disk.raw"), "raw"),
        (&store.file("out.qcow2"), "qcow2"),
    );
    client.exported(&image, "images:out.raw", "raw");
    assert_eq!(
        digests(&store.file("out.raw")),
        digests(&store.file("disk.raw"))
    );
    let body = json!({"bucket_url": "images:out.raw", "file_format": "raw"});
    client.export(&image, body).refused(400, "IMG.0070");
    assert_eq!(server.converting(), 0);
}

fn digests(path: &Path) -> Digests {
    Digests::of(std::fs::File::open(path).expect("an object"))
}

#[test]
fn who_runs_the_service_reads_in_its_log_what_converts() {
    let server = Server::with_defaults();
    until("the line", || {
        server
            .log()
            .contains("exports are converted by qemu-img")
            .then_some(())
    });
    let missing = Server::start(Options::config(
        "[export]\nqemu_img = \"/usr/bin/no-such\"\n",
    ));
    until("the line", || {
        let log = missing.log();
        (log.contains("only in the format that they are stored in") && log.contains("no-such"))
            .then_some(())
    });
}
