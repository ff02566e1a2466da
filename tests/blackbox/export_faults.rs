//! Exports whose server is killed or stopped, that are cancelled, or whose converter fails: no half object, and nothing is left.

use std::path::Path;

use calotype_tests::exports::same_disk;
use calotype_tests::{Client, Content, Options, Server, config, until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

/// So large that a conversion is met on its way.
const LARGE: u64 = 256 << 20;

struct Place {
    server: Server,
    client: Client,
    image: String,
}

impl Place {
    fn new(text: &str, length: u64) -> Self {
        let text = format!("{}{}{text}", config::deletion_grace(0), config::jobs(4, 5));
        let server = Server::start(Options::config(text));
        let client = server.user();
        let object = server.put_object("disk.raw", Content::new(1, length));
        let image = client.imported(&object, json!({}));
        Self {
            server,
            client,
            image,
        }
    }

    /// Begins an export, and holds its converter still.
    fn held(&self) -> (String, u32) {
        let job = self
            .client
            .begin_export(&self.image, "images:out.qcow2", "qcow2");
        (job, self.hold())
    }

    fn hold(&self) -> u32 {
        until("the converter to run, and to stand still", || {
            let id = self.server.converter()?;
            signal(id, Signal::STOP);
            Some(id)
        })
    }

    fn nothing_is_left(&self, converter: u32) {
        until("the converter to be gone", || {
            is_gone(converter).then_some(())
        });
        until("what it made to be gone", || {
            (self.server.converting() == 0).then_some(())
        });
    }

    fn is_whole(&self) {
        same_disk(
            (&self.server.object("disk.raw"), "raw"),
            (&self.server.object("out.qcow2"), "qcow2"),
        );
    }
}

fn signal(id: u32, signal: Signal) {
    let id = i32::try_from(id).ok().and_then(Pid::from_raw);
    // One that has just ended can't be signalled: what is asked of it next tells.
    let _ = kill_process(id.expect("a process"), signal);
}

fn is_gone(id: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_none_or(|(_, rest)| rest.starts_with('Z'))
}

/// The names of files that a process has open and that have none.
fn nameless(id: u32) -> usize {
    let open = std::fs::read_dir(format!("/proc/{id}/fd")).expect("a process");
    let targets = open.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    targets
        .filter(|target| target.to_string_lossy().contains("/exports/"))
        .count()
}

fn files_below(path: &Path) -> usize {
    let entries = std::fs::read_dir(path).expect("a directory");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths
        .map(|path| if path.is_dir() { files_below(&path) } else { 1 })
        .sum()
}

#[test]
fn an_export_whose_server_is_killed_is_made_by_the_next() {
    let mut place = Place::new("", LARGE);
    let (job, converter) = place.held();
    // What is being written has no name, so a crash leaves no plaintext: a link to it is all that there is.
    assert!(nameless(converter) > 0);
    assert_eq!(files_below(&place.server.data().join("exports")), 1);
    assert!(!place.server.has_object("out.qcow2"));
    place.server.kill9();
    until("the converter to die with its server", || {
        is_gone(converter).then_some(())
    });
    place.server.restart();
    let client = place.client.at(place.server.base());
    let ended = client.job(&job);
    assert_eq!(ended.status(), "SUCCESS", "{}", ended.document);
    place.is_whole();
    place.nothing_is_left(converter);
    place.server.verify();
}

#[test]
fn an_export_that_is_cancelled_leaves_nothing() {
    let place = Place::new("", LARGE);
    let (job, converter) = place.held();
    let cancelled = place.client.delete(&format!("/admin/v1/jobs/{job}"));
    assert!(cancelled.status < 300, "{}", cancelled.text());
    let ended = place.client.job(&job).document;
    assert_eq!(ended["status"], "FAIL", "{ended}");
    assert_eq!(ended["error_code"], "IMG.0014", "{ended}");
    place.nothing_is_left(converter);
    assert!(!place.server.has_object("out.qcow2"));
    // The image is free again.
    place
        .client
        .exported(&place.image, "images:out.qcow2", "qcow2");
    place.is_whole();
    place.server.verify();
}

#[test]
fn a_server_that_is_asked_to_stop_ends_its_converters_and_hands_the_jobs_back() {
    let mut place = Place::new("", LARGE);
    let (job, converter) = place.held();
    assert!(place.server.stop().success());
    until("the converter to end with the server", || {
        is_gone(converter).then_some(())
    });
    assert!(!place.server.has_object("out.qcow2"));
    place.server.restart();
    let ended = place.client.at(place.server.base()).job(&job);
    assert_eq!(ended.status(), "SUCCESS", "{}", ended.document);
    place.is_whole();
}

#[test]
fn an_object_that_comes_meanwhile_stays_and_the_export_fails() {
    let place = Place::new("", LARGE);
    let (job, converter) = place.held();
    place.server.put_object("out.qcow2", &b"somebody's"[..]);
    signal(converter, Signal::CONT);
    let ended = place.client.job(&job).document;
    assert_eq!(ended["status"], "FAIL", "{ended}");
    assert_eq!(ended["error_code"], "IMG.0070", "{ended}");
    let there = std::fs::read(place.server.object("out.qcow2")).expect("the object");
    assert_eq!(there, b"somebody's");
    place.nothing_is_left(converter);
}

#[test]
fn an_object_that_the_job_had_made_when_its_server_died_is_not_made_again() {
    let mut place = Place::new(config::DIRECTORY_OF_BUCKETS, LARGE);
    let (job, _) = place.held();
    place.server.kill9();
    // As if the server had died a moment later than it did.
    place.server.put_object("out.qcow2", &b"whole"[..]);
    let made = std::fs::File::open(place.server.object("out.qcow2")).expect("the object");
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::fsetxattr(&made, "user.calotype.job", job.as_bytes(), flags).expect("a mark");
    place.server.restart();
    let ended = place.client.at(place.server.base()).job(&job);
    assert_eq!(ended.status(), "SUCCESS", "{}", ended.document);
    let there = std::fs::read(place.server.object("out.qcow2")).expect("the object");
    assert_eq!(there, b"whole");
}

#[test]
fn a_conversion_that_takes_too_long_or_all_memory_fails() {
    for (text, reason) in [
        ("[export]\ntimeout = \"5s\"\n", "takes too long"),
        ("[export]\nmemory = \"20 MiB\"\n", "could not be converted"),
    ] {
        let place = Place::new(text, LARGE);
        let job = place
            .client
            .begin_export(&place.image, "images:out.qcow2", "qcow2");
        if text.contains("timeout") {
            place.hold();
        }
        let ended = place.client.job(&job).document;
        assert_eq!(ended["status"], "FAIL", "{ended}");
        assert_eq!(ended["error_code"], "IMG.0071", "{ended}");
        let said = ended["fail_reason"].as_str().unwrap_or_default();
        assert!(said.contains(reason), "{ended}");
        assert!(!place.server.has_object("out.qcow2"));
        assert_eq!(place.server.converting(), 0);
    }
}

#[test]
fn without_qemu_img_what_needs_it_fails_with_the_reason_and_the_rest_works() {
    let place = Place::new(
        "[export]\nqemu_img = \"/usr/bin/no-such-program\"\n",
        1 << 20,
    );
    let client = &place.client;
    let job = client.begin_export(&place.image, "images:out.qcow2", "qcow2");
    let ended = client.job(&job).document;
    assert_eq!(ended["status"], "FAIL", "{ended}");
    assert_eq!(ended["error_code"], "IMG.0071", "{ended}");
    assert_eq!(
        ended["fail_reason"],
        "The image can't be exported: this service has no qemu-img."
    );
    client.exported(&place.image, "images:out.raw", "raw");
}

#[test]
fn a_damaged_image_is_found_and_not_exported() {
    let place = Place::new("", 8 << 20);
    crate::damage::flip(&crate::damage::body(&place.server), 5 << 20);
    let job = place
        .client
        .begin_export(&place.image, "images:out.qcow2", "qcow2");
    let ended = place.client.job(&job).document;
    assert_eq!(ended["status"], "FAIL", "{ended}");
    assert_eq!(ended["error_code"], "IMG.0057", "{ended}");
    assert!(!place.server.has_object("out.qcow2"));
    let again = json!({"bucket_url": "images:again.qcow2", "file_format": "qcow2"});
    place
        .client
        .export(&place.image, again)
        .refused(400, "IMG.0057");
}
