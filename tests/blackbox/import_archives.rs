//! Archives of a server's disks (OVA): an image of each disk, and what is refused before one is read.

use std::os::unix::fs::FileExt as _;
use std::path::Path;

use calotype_tests::{Content, Digests, Options, Server, client, config, program, until};
use serde_json::{Value, json};

const GIB: u64 = 1 << 30;

/// A disk as exporters write it: its content is `length` bytes.
fn stream_optimized(directory: &Path, name: &str, length: u64) {
    let raw = directory.join("raw");
    std::io::copy(
        &mut Content::new(length, length),
        &mut std::fs::File::create(&raw).expect("a file"),
    )
    .expect("a disk");
    let image = directory.join(name);
    let options = ["-O", "vmdk", "-o", "subformat=streamOptimized"];
    let command = ["convert", "-f", "raw"].iter().chain(&options);
    let command: Vec<_> = command.map(std::ffi::OsStr::new).collect();
    let places = [raw.as_os_str(), image.as_os_str()];
    program::run("qemu-img", &[&command[..], &places].concat());
    std::fs::remove_file(raw).expect("it goes");
}

/// A description of a server with these disks, which are said to be so large.
fn envelope(disks: &[(&str, u64)]) -> String {
    let mut sections = [String::new(), String::new(), String::new()];
    for (number, (file, capacity)) in disks.iter().enumerate() {
        sections[0].push_str(&format!(r#"<File ovf:id="f{number}" ovf:href="{file}"/>"#));
        sections[1].push_str(&format!(
            r#"<Disk ovf:diskId="d{number}" ovf:fileRef="f{number}" ovf:capacity="{capacity}"/>"#
        ));
        sections[2].push_str(&format!(
            "<Item><rasd:AddressOnParent>{number}</rasd:AddressOnParent>\
             <rasd:HostResource>ovf:/disk/d{number}</rasd:HostResource>\
             <rasd:ResourceType>17</rasd:ResourceType></Item>"
        ));
    }
    let [files, disks, items] = sections;
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"
 xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData">
<References>{files}</References><DiskSection><Info>Disks</Info>{disks}</DiskSection>
<VirtualSystem ovf:id="vm"><OperatingSystemSection ovf:id="107"><Info>Guest</Info>
<Description>CentOS 7.2 64bit</Description></OperatingSystemSection>
<VirtualHardwareSection>{items}</VirtualHardwareSection></VirtualSystem></Envelope>
"#
    )
}

/// Packs files of a directory as exporters do, the description first.
fn pack(server: &Server, directory: &Path, name: &str, members: &[&str]) -> String {
    let below = directory.to_str().expect("a path");
    server.make_object(name, |archive| {
        let archive = archive.to_str().expect("a path");
        let words = ["--format=ustar", "-cf", archive, "-C", below];
        program::run("tar", &[&words[..], members].concat());
    })
}

/// A place for the files of an archive.
fn place() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

/// An archive of members, made by hand.
fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, content) in members {
        bytes.extend(header(name, content.len() as u64));
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

/// The header of a plain file in an archive.
fn header(name: &str, length: u64) -> Vec<u8> {
    let mut header = vec![0; 512];
    let mut put = |at: usize, text: &str| {
        header[at..at + text.len()].copy_from_slice(text.as_bytes());
    };
    put(0, name);
    put(100, "0000644\0");
    put(124, &format!("{length:011o}\0"));
    put(148, "        0");
    put(257, "ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

fn parts(document: &Value) -> Vec<Value> {
    let parts = document["entities"]["sub_jobs_result"].as_array();
    parts.expect("parts").clone()
}

#[test]
fn each_disk_of_an_archive_becomes_an_image_with_the_disks_bytes() {
    let mut server = Server::with_defaults();
    let client = server.user();
    let key = client.create_key("k");
    let place = place();
    let sizes = [20 << 20, 3 << 20, 5 << 20];
    let names = ["box-disk1.vmdk", "box-disk2.vmdk", "box-disk3.vmdk"];
    for (name, size) in names.iter().zip(sizes) {
        stream_optimized(place.path(), name, size);
    }
    let wanted = names
        .map(|name| Digests::of(std::fs::File::open(place.path().join(name)).expect("a disk")));
    // The order of the members is not that of the server's disks.
    let described = envelope(&[
        (names[0], sizes[0]),
        (names[1], sizes[1]),
        (names[2], 3 * GIB),
    ]);
    std::fs::write(place.path().join("box.ovf"), described).expect("a description");
    std::fs::write(place.path().join("box.mf"), "SHA256(box.ovf)= 00\n").expect("a file");
    let members = ["box.ovf", "box.mf", names[2], names[0], names[1]];
    let object = pack(&server, place.path(), "box.ova", &members);
    let job = client.begin_import(
        &object,
        json!({"name": "web", "description": "a server", "tags": ["env=dev"], "cmk_id": key}),
    );
    let ended = client.job(&job).document;
    assert_eq!(ended["status"], "SUCCESS", "{ended}");
    assert_eq!(ended["job_type"], "imsImportOvaImageJob");
    let parts = parts(&ended);
    let shown: Vec<Value> = parts
        .iter()
        .map(|part| client.show(&client::text(&part["entities"]["image_id"])))
        .collect();
    for (number, shown) in shown.iter().enumerate() {
        let name = ["web", "web-1", "web-2"][number];
        for (field, value) in [
            ("name", json!(name)),
            ("disk_format", json!("vmdk")),
            ("container_format", json!("bare")),
            ("size", json!(wanted[number].length)),
            ("virtual_size", json!(sizes[number])),
            ("os_hash_value", json!(wanted[number].sha512)),
            ("min_disk", json!([40, 1, 3][number])),
            ("__os_type", json!("Linux")),
            ("__description", json!("a server")),
            ("__data_origin", json!("file,images:box.ova")),
            ("__system__cmkid", json!(key)),
            ("tags", json!(["env=dev"])),
        ] {
            assert_eq!(shown[field], value, "{name}: {field}");
        }
        assert_eq!(client.download(&client::text(&shown["id"])), wanted[number]);
    }
    assert_eq!(shown[0]["__os_version"], "CentOS 7.2 64bit");
    assert_eq!(shown[0]["virtual_env_type"], "FusionCompute");
    assert_eq!(shown[1]["virtual_env_type"], "DataImage");
    let bytes: u64 = wanted.iter().map(|wanted| wanted.length).sum();
    assert_eq!(ended["calotype"]["bytes_total"], bytes);
    server.restart();
    server.verify();
}

#[test]
fn an_archive_of_one_disk_is_a_job_with_one_part_and_the_caller_names_its_system() {
    let server = Server::with_defaults();
    let client = server.user();
    let place = place();
    stream_optimized(place.path(), "a.vmdk", 1 << 20);
    let described = envelope(&[("a.vmdk", 1 << 20)]);
    std::fs::write(place.path().join("a.ovf"), described).expect("a description");
    let object = pack(&server, place.path(), "a.ova", &["a.ovf", "a.vmdk"]);
    let version = "Windows Server 2016 Standard 64bit";
    let job = client.begin_import(&object, json!({"os_version": version, "type": "BMS"}));
    let ended = client.job(&job).document;
    assert_eq!(ended["job_type"], "imsImportOvaImageJob", "{ended}");
    let [part] = &parts(&ended)[..] else {
        panic!("not one part: {ended}");
    };
    let shown = client.show(&client::text(&part["entities"]["image_id"]));
    assert_eq!(shown["__os_version"], version);
    assert_eq!(shown["__os_type"], "Windows");
    assert_eq!(shown["virtual_env_type"], "Ironic");
    server.verify();
}

#[test]
fn what_is_no_archive_of_one_servers_disks_is_refused_at_once() {
    let server = Server::with_defaults();
    let client = server.user();
    let place = place();
    stream_optimized(place.path(), "a.vmdk", 1 << 20);
    let vmdk = std::fs::read(place.path().join("a.vmdk")).expect("a disk");
    let one = envelope(&[("a.vmdk", 1 << 20)]);
    let with = |from: &str, to: &str| one.replacen(from, to, 1);
    let whole = |described: &str, disk: &[u8]| {
        archive(&[("a.ovf", described.as_bytes()), ("a.vmdk", disk)])
    };
    let gzip = b"\x1f\x8b\x08\0 and more";
    let names: Vec<String> = (0..5).map(|number| format!("{number}.vmdk")).collect();
    let five: Vec<_> = names.iter().map(|name| (name.as_str(), GIB)).collect();
    let five = envelope(&five);
    let members = names.iter().map(|name| (name.as_str(), &vmdk[..]));
    let members = [("a.ovf", five.as_bytes())].into_iter().chain(members);
    let five = archive(&members.collect::<Vec<_>>());
    let nested = whole(&one, &vmdk);
    let before = client.state();
    for (name, bytes, more, code) in [
        ("gzip", whole(&one, gzip), json!({}), "IMG.0057"),
        (
            "gzip by its word",
            whole(
                &with("ovf:href", "ovf:compression=\"gzip\" ovf:href"),
                &vmdk,
            ),
            json!({}),
            "IMG.0057",
        ),
        (
            "an archive in it",
            whole(&one, &nested),
            json!({}),
            "IMG.0057",
        ),
        (
            "no such file",
            whole(&with("a.vmdk", "b.vmdk"), &vmdk),
            json!({}),
            "IMG.0057",
        ),
        (
            "a path",
            whole(&with("a.vmdk", "/etc/passwd"), &vmdk),
            json!({}),
            "IMG.0057",
        ),
        (
            "a link",
            whole(&with("a.vmdk", "http://127.0.0.1/a.vmdk"), &vmdk),
            json!({}),
            "IMG.0057",
        ),
        (
            "an entity",
            whole(
                &with(
                    "<Envelope",
                    "<!DOCTYPE a [<!ENTITY b SYSTEM \"file:///etc/passwd\">]><Envelope",
                ),
                &vmdk,
            ),
            json!({}),
            "IMG.0057",
        ),
        (
            "a member elsewhere",
            archive(&[("a.ovf", one.as_bytes()), ("../a.vmdk", &vmdk)]),
            json!({}),
            "IMG.0057",
        ),
        (
            "cut short",
            nested[..nested.len() - 1024].to_vec(),
            json!({}),
            "IMG.0057",
        ),
        ("too many disks", five, json!({}), "IMG.0194"),
        (
            "a larger disk",
            whole(&envelope(&[("a.vmdk", 41 * GIB)]), &vmdk),
            json!({}),
            "IMG.0055",
        ),
        (
            "quickly",
            nested.clone(),
            json!({"is_quick_import": true, "os_version": "CentOS 7.2 64bit"}),
            "IMG.0057",
        ),
        (
            "with other disks",
            nested.clone(),
            json!({"data_images": [{"image_url": "images:other", "min_disk": 1}]}),
            "IMG.0057",
        ),
        (
            "as a disc",
            nested.clone(),
            json!({"type": "IsoImage", "os_version": "CentOS 7.2 64bit"}),
            "IMG.0057",
        ),
    ] {
        server.put_object("other", Content::new(1, 5000));
        let object = server.put_object("a.ova", &bytes[..]);
        let answer = client.import(&object, more);
        assert_eq!(answer.status, 400, "{name}: {answer}");
        answer.refused(400, code);
    }
    let object = server.put_object("a.ova", &nested[..]);
    let data = "/v1/cloudimages/dataimages/action";
    client
        .import_at(data, &object, json!({}))
        .refused(400, "IMG.0057");
    assert_eq!(client.state(), before);
    let waiting = client.create("waiting");
    client
        .put(
            &format!("/v1/cloudimages/{waiting}/upload"),
            json!({"image_url": object}),
        )
        .refused(400, "IMG.0057");
}

#[test]
fn a_disk_that_is_larger_than_it_was_said_to_be_makes_no_image() {
    let server = Server::start(Options::config(config::deletion_grace(0)));
    let client = server.user();
    let place = place();
    let vast = place.path().join("b.vmdk");
    let vast = vast.to_str().expect("a path");
    program::run("qemu-img", &["create", "-q", "-f", "vmdk", vast, "3G"]);
    stream_optimized(place.path(), "a.vmdk", 1 << 20);
    let described = envelope(&[("a.vmdk", 1 << 20), ("b.vmdk", GIB)]);
    std::fs::write(place.path().join("a.ovf"), described).expect("a description");
    let members = ["a.ovf", "a.vmdk", "b.vmdk"];
    let object = pack(&server, place.path(), "a.ova", &members);
    let job = client.begin_import(&object, json!({}));
    let ended = client.job(&job).document;
    assert_eq!(ended["status"], "FAIL", "{ended}");
    assert_eq!(ended["error_code"], "IMG.0055");
    assert_eq!(parts(&ended)[0]["status"], "SUCCESS");
    assert_eq!(client.list().len(), 1);
    server.verify();
}

#[test]
fn an_archive_that_is_imported_while_its_server_is_killed_is_imported_by_the_next() {
    let mut server = Server::start(Options::config(config::jobs(4, 5)));
    let client = server.user();
    let length = 300 << 20;
    let described = envelope(&[("a.raw", length), ("b.raw", 4096)]);
    let small = Content::bytes(1, 4096);
    let front = archive(&[("a.ovf", described.as_bytes()), ("b.raw", &small)]);
    let front = &front[..front.len() - 1024];
    let at = front.len() as u64;
    let object = server.make_object("a.ova", |path| {
        let file = std::fs::File::create(path).expect("an object");
        file.set_len(at + 512 + length + 1024).expect("its length");
        file.write_all_at(front, 0).expect("a write");
        file.write_all_at(&header("a.raw", length), at)
            .expect("a write");
        file.write_all_at(&Content::bytes(3, 1 << 20), at + 512 + (length >> 1))
            .expect("a write");
    });
    let job = client.begin_import(&object, json!({}));
    for _ in 0..2 {
        let client = client.at(server.base());
        until("bytes to be done", || {
            let done = client.progress(&job)["bytes_done"].as_u64();
            (done > Some(4096)).then_some(())
        });
        server.restart();
    }
    let client = client.at(server.base());
    let ended = client.job(&job).document;
    assert_eq!(ended["status"], "SUCCESS", "{ended}");
    let images: Vec<_> = parts(&ended)
        .iter()
        .map(|part| client::text(&part["entities"]["image_id"]))
        .collect();
    assert_eq!(client.show(&images[0])["size"], length);
    assert_eq!(client.download(&images[1]), Digests::of(&small[..]));
    server.verify();
}
