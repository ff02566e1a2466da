//! What was uploaded is what is downloaded, from the image and from its replicas, byte for byte.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use calotype_tests::{Answer, Client, Content, Digests, Server, program};
use serde_json::json;

const SEGMENT: u64 = 64 << 20;

/// Uploads, shows, replicates and downloads; the bytes must be the ones that `open` reads each time.
fn survives<R: Read + Send + 'static>(client: &Client, format: &str, open: impl Fn() -> R) {
    let wanted = Digests::of(open());
    let source = client.create_with(json!({
        "name": "source", "disk_format": format, "container_format": "bare"}));
    let uploaded = client.upload_stream(&source, open(), wanted.length);
    uploaded.expect("an answer").expect(204);

    let replica = client.replicate(&source, "replica");
    assert_ne!(source, replica);
    for image in [&source, &replica] {
        let shown = client.show(image);
        assert_eq!(shown["status"], "active", "{shown}");
        assert_eq!(shown["size"], wanted.length, "{shown}");
        assert_eq!(shown["checksum"], wanted.md5, "{shown}");
        assert_eq!(shown["os_hash_algo"], "sha512", "{shown}");
        assert_eq!(shown["os_hash_value"], wanted.sha512, "{shown}");
        assert_eq!(shown["disk_format"], format, "{shown}");
        assert_eq!(client.download(image), wanted);
    }
    client.delete(&format!("/v2/images/{source}")).expect(204);
    assert_eq!(
        client.download(&replica),
        wanted,
        "the source is gone, the replica stays"
    );
    let second = client.replicate(&replica, "second");
    client.delete(&format!("/v2/images/{replica}")).expect(204);
    assert_eq!(
        client.download(&second),
        wanted,
        "a replica's source can go too"
    );
    client.delete(&format!("/v2/images/{second}")).expect(204);
}

#[test]
fn bytes_survive_at_every_edge_of_page_and_segment() {
    let mut server = Server::with_defaults();
    let client = server.user();
    let edges = [
        0,
        1,
        65_535,
        65_536,
        65_537,
        SEGMENT - 1,
        SEGMENT,
        SEGMENT + 1,
    ];
    for (seed, length) in (1..).zip(edges) {
        survives(&client, "raw", move || Content::new(seed, length));
    }
    server.verify_stopped();
}

#[test]
fn the_first_image_survives_the_deletion_of_its_replica() {
    let server = Server::with_defaults();
    let client = server.user();
    let source = client.image("source", 7, SEGMENT + 4096);
    let wanted = Digests::of(Content::new(7, SEGMENT + 4096));
    let replica = client.replicate(&source, "replica");
    client.delete(&format!("/v2/images/{replica}")).expect(204);
    client.get(&format!("/v2/images/{replica}")).expect(404);
    assert_eq!(client.download(&source), wanted);
}

#[test]
fn a_sparse_image_of_four_gibibytes_survives_and_takes_little_room() {
    let mut server = Server::with_defaults();
    let client = server.user();
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("sparse.raw");
    let length = 4 << 30;
    sparse(&path, length);
    let source = client.create("sparse");
    let answer = client.upload_stream(&source, open(&path), length);
    answer.expect("an answer").expect(204);
    let said = program::run("sha512sum", &[&path]);
    let shown = client.show(&source);
    assert_eq!(shown["os_hash_value"].as_str(), said.split(' ').next());
    let replica = client.replicate(&source, "replica");
    client.delete(&format!("/v2/images/{source}")).expect(204);
    client.download_same(&replica, open(&path));
    let used = program::run("du", &["-s", "-B1", &server.data().to_string_lossy()]);
    let used: u64 = used
        .split_whitespace()
        .next()
        .and_then(|bytes| bytes.parse().ok())
        .expect("what du says");
    assert!(used < 1 << 30, "{used} bytes are stored for a sparse image");
    server.verify_stopped();
}

#[test]
fn real_disk_images_and_a_real_iso_survive() {
    let server = Server::with_defaults();
    let client = server.user();
    let directory = tempfile::tempdir().expect("a directory");
    let raw = file_system(directory.path());
    survives_file(&client, "raw", &raw);
    // By qemu-img's names, of which vpc is the one that is not the Image API's.
    for (maker, options, format) in [
        ("qcow2", "compat=1.1", "qcow2"),
        ("qcow2", "compat=0.10", "qcow2"),
        ("vmdk", "subformat=streamOptimized", "vmdk"),
        ("vmdk", "subformat=monolithicSparse", "vmdk"),
        ("vdi", "static=off", "vdi"),
        ("vpc", "subformat=dynamic,force_size=on", "vhd"),
        ("vpc", "subformat=fixed,force_size=on", "vhd"),
    ] {
        let path = directory.path().join(format);
        let (from, to) = (raw.to_string_lossy(), path.to_string_lossy());
        let convert = [
            "convert", "-f", "raw", "-O", maker, "-o", options, &from, &to,
        ];
        program::run("qemu-img", &convert);
        survives_file(&client, format, &path);
        let image = client.create_with(json!({
            "name": format, "disk_format": format, "container_format": "bare"}));
        let length = path.metadata().expect("the file").len();
        let answer = client.upload_stream(&image, open(&path), length);
        answer.expect("an answer").expect(204);
        let virtual_size = raw.metadata().expect("the file").len();
        assert_eq!(client.show(&image)["virtual_size"], virtual_size);
    }
    let iso = program::memtest_iso();
    let wanted = Digests::of(open(&iso));
    let image = client.create_with(json!({
        "name": "memtest", "disk_format": "iso", "container_format": "bare"}));
    let answer = client.upload_stream(&image, open(&iso), wanted.length);
    answer.expect("an answer").expect(204);
    assert_eq!(client.download(&image), wanted);
}

#[test]
fn a_range_is_exactly_the_bytes_that_were_asked_for() {
    let server = Server::with_defaults();
    let client = server.user();
    let length = SEGMENT + 100_000;
    let bytes = Content::bytes(3, length);
    let image = client.image("ranges", 3, length);
    let end = bytes.len();
    let segment = usize::try_from(SEGMENT).expect("a small number");
    let ranges = [
        (0, 1),
        (0, 65_536),
        (65_535, 65_537),
        (segment - 1, segment + 1),
        (segment, segment + 65_537),
        (end - 1, end),
        (12_345, 5_000_000),
    ];
    for (from, to) in ranges {
        let answer = client.range(&image, &format!("bytes={from}-{}", to - 1));
        assert_eq!(answer.status, 206, "{}", answer.asked);
        let said = format!("bytes {from}-{}/{end}", to - 1);
        assert_eq!(answer.header("content-range"), said);
        assert!(answer.bytes == bytes[from..to], "bytes {from}-{to}");
    }
    let tail = client.range(&image, &format!("bytes={}-", end - 777));
    assert_eq!(tail.status, 206);
    assert!(tail.bytes == bytes[end - 777..]);
    for beyond in [
        format!("bytes={end}-"),
        format!("bytes={}-{}", end + 5, end + 9),
    ] {
        let answer: Answer = client.range(&image, &beyond);
        assert_eq!(answer.status, 416, "{beyond}");
    }
}

#[test]
fn an_upload_that_breaks_off_leaves_no_active_image() {
    let mut server = Server::with_defaults();
    let client = server.user();
    let image = client.create("broken");
    let short = Content::new(5, 3 << 20);
    let answer = client.upload_stream(&image, short, 64 << 20);
    assert!(
        answer.is_err(),
        "a body that is shorter than it said: {answer:?}"
    );
    // The server may notice the upload, and its end, only after the client has gone.
    calotype_tests::until("the same image to take another upload", || {
        let again = client.upload(&image, "whole");
        if again.status == 204 {
            return Some(());
        }
        again.expect(409);
        None
    });
    assert_eq!(client.show(&image)["size"], 5);
    server.verify_stopped();
}

fn survives_file(client: &Client, format: &str, path: &Path) {
    survives(client, format, || open(path));
}

fn open(path: &Path) -> File {
    File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A file of `length` bytes with a little content at its start, in its middle and at its end.
fn sparse(path: &Path, length: u64) {
    use std::os::unix::fs::FileExt;
    let file = File::create(path).expect("a file");
    file.set_len(length).expect("a sparse file");
    for (seed, at) in [(1, 0), (2, length / 2 - 100), (3, length - 70_000)] {
        let bytes = Content::bytes(seed, 70_000);
        file.write_all_at(&bytes, at).expect("room");
    }
}

/// An ext4 file system in a file, with files in it.
fn file_system(directory: &Path) -> PathBuf {
    let tree = directory.join("tree/etc");
    std::fs::create_dir_all(&tree).expect("a directory");
    std::fs::write(tree.join("hostname"), "calotype\n").expect("room");
    std::fs::write(tree.join("noise"), Content::bytes(9, 3 << 20)).expect("room");
    let raw = directory.join("disk.raw");
    File::create(&raw)
        .and_then(|file| file.set_len(96 << 20))
        .expect("a sparse file");
    let (from, to) = (directory.join("tree"), raw.to_string_lossy());
    program::run(
        "mkfs.ext4",
        &["-q", "-F", "-d", &from.to_string_lossy(), &to],
    );
    raw
}
