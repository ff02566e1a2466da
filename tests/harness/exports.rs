//! Exports: asked for, waited for, and looked at with qemu-img.

use std::path::Path;

use serde_json::{Value, json};

use crate::client::{Answer, Client, text};
use crate::program::run;
use crate::server::Server;

impl Client {
    /// Asks for an export of an image, with this body.
    pub fn export(&self, image: &str, body: impl Into<Value>) -> Answer {
        self.post(&format!("/v1/cloudimages/{image}/file"), body)
    }

    /// Asks for an export, which must be accepted; the result is the job's id.
    pub fn begin_export(&self, image: &str, object: &str, format: &str) -> String {
        let body = json!({"bucket_url": object, "file_format": format});
        let accepted = self.export(image, body).expect(200).json();
        text(&accepted["job_id"])
    }

    /// Exports an image, and waits for it.
    pub fn exported(&self, image: &str, object: &str, format: &str) {
        let job = self.job(&self.begin_export(image, object, format));
        assert_eq!(job.status(), "SUCCESS", "{}", job.document);
    }
}

impl Server {
    /// What lies in the folder of conversions.
    pub fn converting(&self) -> usize {
        let folder = std::fs::read_dir(self.data().join("exports"));
        folder.expect("the folder").count()
    }

    /// The process that converts for this server, where there is one.
    pub fn converter(&self) -> Option<u32> {
        let processes = std::fs::read_dir("/proc").expect("the processes");
        let mut ids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        ids.find(|id| {
            let read = |name: &str| std::fs::read_to_string(format!("/proc/{id}/{name}"));
            let parent = read("stat").ok().and_then(|stat| {
                let (_, rest) = stat.rsplit_once(") ")?;
                rest.split(' ').nth(1)?.parse().ok()
            });
            let command = read("cmdline").unwrap_or_default();
            let is_ours = parent.is_some_and(|parent| self.pids().contains(&parent));
            is_ours && command.starts_with("/usr/bin/qemu-img\0convert")
        })
    }
}

/// A disk with a real file system and real files on it, of 64 MiB, most of it holes.
pub fn real_disk(path: &Path) {
    let file = std::fs::File::create(path).expect("a disk");
    file.set_len(64 << 20).expect("its length");
    let path = path.to_string_lossy();
    let files = "/usr/share/perl5";
    let files = match Path::new(files).is_dir() {
        true => files,
        false => "/usr/share/doc",
    };
    run("mkfs.ext4", &["-q", "-F", "-d", files, &path]);
}

/// Makes a disk in another format, as by hand.
pub fn converted(from: (&Path, &str), to: (&Path, &str)) {
    let (source, target) = (from.0.to_string_lossy(), to.0.to_string_lossy());
    run(
        "qemu-img",
        &["convert", "-f", from.1, "-O", to.1, &source, &target],
    );
}

/// Proves that two files hold the same disk.
pub fn same_disk(one: (&Path, &str), other: (&Path, &str)) {
    let (first, second) = (one.0.to_string_lossy(), other.0.to_string_lossy());
    let compared = run(
        "qemu-img",
        &["compare", "-f", one.1, "-F", other.1, &first, &second],
    );
    assert!(compared.contains("identical"), "{compared}");
}

/// QEMU's word for a format.
pub fn driver(format: &str) -> &str {
    match format {
        "vhd" => "vpc",
        other => other,
    }
}
