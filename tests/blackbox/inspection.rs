//! Bytes that are uploaded: every format that qemu-img writes, and hostile ones, each refused with its reason before its
//! image is active.

#[path = "../../crates/calotype-core/tests/inspect/hostile.rs"]
mod hostile;
#[path = "../../crates/calotype-core/tests/inspect/samples.rs"]
mod samples;

use std::path::{Path, PathBuf};

use calotype_tests::client::try_send;
use calotype_tests::program::{python, run};
use calotype_tests::{Client, Content, Server, until};
use reqwest::Method;
use samples::Sample;
use serde_json::{Value, json};

/// The disk that all of qemu-img's images describe.
const DISK: u64 = 5 << 20;

/// What is uploaded of qemu-img's: its format and options, the disk format that it is declared as, and how the refusal begins.
type Written = (
    &'static str,
    &'static str,
    &'static str,
    Option<&'static str>,
);

const WRITTEN: [Written; 34] = [
    ("raw", "", "raw", None),
    ("qcow2", "compat=0.10", "qcow2", None),
    ("qcow2", "compat=1.1", "qcow2", None),
    ("qcow2", "lazy_refcounts=on", "qcow2", None),
    ("qcow2", "compression_type=zstd", "qcow2", None),
    ("qcow2", "cluster_size=512", "qcow2", None),
    ("qcow2", "cluster_size=2M", "qcow2", None),
    ("qcow2", "refcount_bits=1", "qcow2", None),
    ("qcow2", "preallocation=metadata", "qcow2", None),
    ("qcow2", "preallocation=falloc", "qcow2", None),
    ("qcow2", "preallocation=full", "qcow2", None),
    (
        "qcow2",
        "extended_l2=on,cluster_size=128k",
        "qcow2",
        Some("The qcow2 image needs unknown features."),
    ),
    (
        "qcow2",
        "data_file=DATA,data_file_raw=on",
        "qcow2",
        Some("The image refers to an external data file."),
    ),
    (
        "qcow2",
        "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10",
        "qcow2",
        Some("The qcow2 image is encrypted by itself"),
    ),
    (
        "qcow",
        "",
        "qcow",
        Some("Only versions 2 and 3 of qcow2 are accepted."),
    ),
    ("qed", "", "qed", Some("QED images are not accepted.")),
    ("vmdk", "subformat=monolithicSparse", "vmdk", None),
    ("vmdk", "subformat=streamOptimized", "vmdk", None),
    ("vmdk", "adapter_type=lsilogic,compat6=on", "vmdk", None),
    ("vmdk", "zeroed_grain=on", "vmdk", None),
    (
        "vmdk",
        "subformat=monolithicFlat",
        "vmdk",
        Some("The image refers to the extents"),
    ),
    (
        "vmdk",
        "subformat=twoGbMaxExtentSparse",
        "vmdk",
        Some("The image refers to the extents"),
    ),
    (
        "vmdk",
        "subformat=twoGbMaxExtentFlat",
        "vmdk",
        Some("The image refers to the extents"),
    ),
    ("vdi", "static=off", "vdi", None),
    ("vdi", "static=on", "vdi", None),
    ("vpc", "subformat=dynamic,force_size=on", "vhd", None),
    ("vpc", "subformat=fixed,force_size=on", "vhd", None),
    (
        "vpc",
        "subformat=fixed,force_size=on",
        "raw",
        Some("Image content (vhd) does not match its disk_format (raw)."),
    ),
    ("vhdx", "subformat=dynamic", "vhdx", None),
    ("vhdx", "subformat=fixed", "vhdx", None),
    ("vhdx", "subformat=dynamic,block_size=32M", "vhdx", None),
    ("luks", "key-secret=s,iter-time=10", "luks", None),
    ("parallels", "", "ploop", None),
    (
        "qcow2",
        "compat=1.1",
        "raw",
        Some("Image content (qcow2) does not match its disk_format (raw)."),
    ),
];

#[test]
fn every_image_that_qemu_img_writes_is_taken_with_its_size_or_refused_with_its_reason() {
    let server = Server::with_defaults();
    let client = server.user();
    let directory = tempfile::tempdir().expect("a directory");
    let disk = directory.path().join("disk.raw");
    let file = std::fs::File::create(&disk).expect("a file");
    file.set_len(DISK).expect("room");
    let noise = Content::bytes(1, 3 << 19);
    std::os::unix::fs::FileExt::write_all_at(&file, &noise, 70_000).expect("room");
    for (format, options, declared, refusal) in WRITTEN {
        let image = converted(directory.path(), &disk, format, options);
        let what = format!("{format} {options} as {declared}");
        let id = client.create_with(json!({
            "name": what, "disk_format": declared, "container_format": "bare"}));
        let answer = client.upload(&id, std::fs::read(&image).expect("the image"));
        match refusal {
            None => {
                assert_eq!(answer.status, 204, "{what}: {answer}");
                let size = client.show(&id)["virtual_size"].as_u64();
                assert_eq!(size, Some(DISK), "{what}");
            }
            Some(reason) => {
                assert_eq!(answer.status, 415, "{what}: {answer}");
                let message = answer.json()["message"].to_string();
                assert!(message.contains(reason), "{what}: {message}");
                assert_eq!(client.show(&id)["status"], "queued", "{what}");
            }
        }
        // The same bytes, cut in the middle of what they refer to.
        if refusal.is_none() && declared != "raw" && declared != "luks" {
            let mut bytes = std::fs::read(&image).expect("the image");
            bytes.truncate(bytes.len() / 4);
            let id = client.create_with(json!({
                "name": what, "disk_format": declared, "container_format": "bare"}));
            let answer = client.upload(&id, bytes);
            assert_eq!(answer.status, 415, "{what}, cut: {answer}");
        }
        std::fs::remove_file(image).expect("it was there");
    }
    server.verify();
}

fn converted(directory: &Path, disk: &Path, format: &str, options: &str) -> PathBuf {
    let image = directory.join("image");
    let secret = directory.join("secret");
    std::fs::write(&secret, "secret").expect("room");
    let secret = format!("secret,id=s,file={}", secret.display());
    let data = directory.join("data").display().to_string();
    let options = options.replace("DATA", &data);
    let (from, to) = (disk.to_string_lossy(), image.to_string_lossy());
    let mut arguments = vec![
        "convert", "-q", "--object", &secret, "-f", "raw", "-O", format,
    ];
    if options.contains("compression_type") {
        arguments.push("-c");
    }
    if !options.is_empty() {
        arguments.extend(["-o", &options]);
    }
    arguments.extend([&*from, &*to]);
    run("qemu-img", &arguments);
    image
}

#[test]
fn every_good_sample_is_taken_and_every_hostile_one_leaves_nothing_but_a_queued_image() {
    let mut server = Server::with_defaults();
    let client = server.user();
    let good = samples::good();
    for sample in &good {
        let (name, id) = (sample.name, create(&client, sample));
        let answer = client.upload(&id, sample.bytes.clone());
        assert_eq!(answer.status, 204, "{name}: {answer}");
        let shown = client.show(&id);
        let size = sample.outcome.expect("a good one");
        assert_eq!(shown["virtual_size"].as_u64(), size, "{name}");
    }
    let stored = server.stored();
    let before = resident_at_most(&mut server);
    for sample in hostile::hostile() {
        let what = format!("{} as {}", sample.name, sample.format);
        let reason = sample.outcome.expect_err("a reason");
        let id = create(&client, &sample);
        let length = sample.bytes.len() as u64;
        let path = format!("/v2/images/{id}/file");
        let request = client
            .request(Method::PUT, &path)
            .header("Content-Type", "application/octet-stream")
            .header("Accept", "application/json");
        match try_send(request.body(sample.bytes)) {
            Ok(answer) => {
                assert_eq!(answer.status, 415, "{what}: {answer}");
                let message = answer.json()["message"].to_string();
                assert!(message.contains(reason), "{what}: {message}");
            }
            // A client that still sends when it is refused may see the connection end instead.
            Err(error) => assert!(length > 1 << 20, "{what}: {error}"),
        }
        assert_eq!(client.show(&id)["status"], "queued", "{what}");
    }
    for (before, now) in before.into_iter().zip(resident_at_most(&mut server)) {
        let grown = now.saturating_sub(before);
        assert!(grown < 64 << 20, "the server grew by {grown} bytes");
    }
    if !server.is_on_engines() {
        assert_eq!((server.stored(), server.staged()), (stored, 0));
    }
    // A bucket is cleared behind the answers.
    until("nothing of them to be left", || {
        (server.stored() == stored && server.staged() == 0).then_some(())
    });
    server.verify_stopped();
}

fn create(client: &Client, sample: &Sample) -> String {
    client.create_with(json!({
        "name": sample.name,
        "disk_format": sample.format,
        "container_format": sample.container}))
}

/// The most memory that each of the server's processes had, in bytes.
fn resident_at_most(server: &mut Server) -> Vec<u64> {
    let of = |pid: u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
        kib.and_then(|kib| kib.parse::<u64>().ok()).expect("kB") * 1024
    };
    let nodes = server.nodes().iter();
    nodes.map(|node| of(node.pid())).collect()
}

#[test]
fn a_disk_that_its_min_disk_has_no_room_for_is_refused_and_may_be_uploaded_once_it_has() {
    let server = Server::with_defaults();
    let client = server.user();
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("disk.qcow2");
    let size = ((1_u64 << 30) + 512).to_string();
    run(
        "qemu-img",
        &[
            "create",
            "-q",
            "-f",
            "qcow2",
            &path.to_string_lossy(),
            &size,
        ],
    );
    let bytes = std::fs::read(path).expect("the image");
    let id = client.create_with(json!({
        "name": "large", "disk_format": "qcow2", "container_format": "bare", "min_disk": 1}));
    let refused = client.upload(&id, bytes.clone()).expect(400);
    let message = refused.json()["message"].to_string();
    assert!(message.contains("min_disk"), "{message}");
    assert_eq!(client.show(&id)["status"], "queued");
    client.set(&id, "min_disk", 2);
    client.upload(&id, bytes.clone()).expect(204);
    assert_eq!(client.show(&id)["virtual_size"], (1_u64 << 30) + 512);
    // Without a min_disk there is nothing to fit on.
    let id = client.create_with(json!({
        "name": "any", "disk_format": "qcow2", "container_format": "bare"}));
    client.upload(&id, bytes).expect(204);
    // An ISO is a medium to install from, not the disk.
    let id = client.create_with(json!({
        "name": "medium", "disk_format": "iso", "container_format": "bare", "min_disk": 1}));
    client.upload(&id, samples::iso()).expect(204);
}

#[test]
fn what_is_accepted_here_is_accepted_by_the_openstack_services_too_and_has_the_same_size() {
    let directory = tempfile::tempdir().expect("a directory");
    let good = samples::good();
    for (number, sample) in good.iter().enumerate() {
        std::fs::write(directory.path().join(number.to_string()), &sample.bytes).expect("room");
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/oslo_verdicts.py");
    let python = python();
    let verdicts = run(&python.to_string_lossy(), &[&*script, directory.path()]);
    let verdicts: Value = serde_json::from_str(&verdicts).expect("a document");
    for (number, sample) in good.iter().enumerate() {
        let (name, verdict) = (sample.name, &verdicts[number.to_string()]);
        let size = sample.outcome.expect("a good one");
        let format = verdict["format"].as_str();
        let wanted: &[&str] = match sample.format {
            // It knows neither fixed VHDs nor ploop, and takes them for what is in front.
            "vhd" if name != "dynamic vhd" => &["raw", "gpt"],
            "ploop" => &["raw"],
            "raw" => &["raw", "gpt", "iso", "luks"],
            // These are opaque here.
            "zvhd" | "zvhd2" | "aki" => continue,
            own => &[own],
        };
        // Of LUKS it refuses what is declared as it, and here is a raw disk.
        if name == "LUKS 2" || sample.container != "bare" {
            continue;
        }
        let is_known = format.is_some_and(|format| wanted.contains(&format));
        assert!(is_known, "{name}: {verdict}");
        if format == Some(sample.format) {
            assert_eq!(verdict["size"].as_u64(), size, "{name}");
        }
    }
}
