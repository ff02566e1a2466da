//! Bytes in and out: against the digests that must be computed, a copy on the same disk, and nginx.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use calotype_tests::{Client, Content, Server, program, until};
use sha2::{Digest, Sha512};

use crate::glance::Glance;
use crate::report::Report;
use crate::wire::Wire;

const LENGTH: u64 = 1 << 30;
const ROUNDS: usize = 3;

pub(crate) fn measure(report: &mut Report) {
    let content = Content::bytes(1, LENGTH);
    let home = tempfile::tempdir().expect("a directory");
    let file = home.path().join("content");
    File::create(&file)
        .and_then(|mut file| file.write_all(&content))
        .expect("room");

    let md5 = best(|| digest_speed(|bytes| hex::encode(fast_md5::digest(bytes)), &content));
    let sha512 = best(|| digest_speed(|bytes| hex::encode(Sha512::digest(bytes)), &content));
    let server = Server::with_defaults();
    let client = server.user();
    let (image, ours) = best_upload(&client, &content);
    let copied = best(|| copy(&file, &home.path().join("copy")));
    let glance = best_upload_to_glance(home.path(), &content);
    let what = "upload of 1 GiB of random bytes";
    let slower = "slower of MD5 and SHA-512 on one core";
    report.speeds(what, ours, slower, md5.min(sha512));
    report.speeds(what, ours, "OpenStack Glance", glance);
    report.speeds(what, ours, "cp and fsync", copied);
    drop(content);

    let nginx = Nginx::start(home.path());
    let ours = format!("{}/v2/images/{image}/file", client.base());
    let token = format!("X-Auth-Token: {}", client.token());
    let downloaded = best(|| curl(&ours, &token));
    let served = best(|| curl(&nginx.url("content"), &token));
    report.speeds(
        "download of 1 GiB",
        downloaded,
        "the file from nginx",
        served,
    );
}

fn digest_speed(digest: impl Fn(&[u8]) -> String, content: &[u8]) -> f64 {
    let begin = Instant::now();
    std::hint::black_box(digest(content));
    speed(begin.elapsed())
}

/// The id of the last image, and the best speed.
fn best_upload(client: &Client, content: &[u8]) -> (String, f64) {
    let mut image = String::new();
    let speed = best(|| {
        if !image.is_empty() {
            client.delete(&format!("/v2/images/{image}")).expect(204);
        }
        image = client.create("measured");
        let begin = Instant::now();
        let path = format!("/v2/images/{image}/file");
        Wire::open(client).put_bytes(&path, LENGTH, content.chunks(1 << 20));
        speed(begin.elapsed())
    });
    (image, speed)
}

fn best_upload_to_glance(home: &Path, content: &[u8]) -> f64 {
    let glance = Glance::start(&home.join("glance"));
    best(|| {
        let image = glance.create();
        let begin = Instant::now();
        let path = format!("/v2/images/{image}/file");
        glance
            .wire()
            .put_bytes(&path, LENGTH, content.chunks(1 << 20));
        let speed = speed(begin.elapsed());
        glance.delete(&image);
        speed
    })
}

fn copy(from: &Path, to: &Path) -> f64 {
    let begin = Instant::now();
    let (source, target) = (from.to_string_lossy(), to.to_string_lossy());
    program::run("cp", &["--reflink=never", &source, &target]);
    let synced = File::open(to).and_then(|file| file.sync_all());
    synced.expect("the disk keeps it");
    let speed = speed(begin.elapsed());
    std::fs::remove_file(to).expect("the copy");
    speed
}

fn curl(url: &str, header: &str) -> f64 {
    let said = program::run(
        "curl",
        &[
            "-fsS",
            "-o",
            "/dev/null",
            "-w",
            "%{speed_download} %{size_download}",
            "-H",
            header,
            url,
        ],
    );
    let (speed, size) = said.split_once(' ').expect("two numbers");
    assert_eq!(size.trim().parse(), Ok(LENGTH), "all of it came");
    speed.parse().expect("a speed")
}

fn best(measure: impl FnMut() -> f64) -> f64 {
    std::iter::repeat_with(measure)
        .take(ROUNDS)
        .fold(0.0, f64::max)
}

fn speed(time: Duration) -> f64 {
    LENGTH as f64 / time.as_secs_f64()
}

/// An nginx that serves a directory's files on loopback. It is killed when the value goes out of scope.
struct Nginx {
    process: Child,
    port: u16,
}

impl Nginx {
    fn start(directory: &Path) -> Self {
        let port = calotype_tests::free_port();
        let root = directory.display();
        let text = format!(
            "daemon off; master_process off; pid {root}/nginx.pid; error_log {root}/error.log;\n\
             events {{ }}\nhttp {{ access_log off; sendfile on; client_body_temp_path {root}/b;\n\
             proxy_temp_path {root}/p; fastcgi_temp_path {root}/f; uwsgi_temp_path {root}/u;\n\
             scgi_temp_path {root}/s; server {{ listen 127.0.0.1:{port}; root {root}; }} }}\n"
        );
        let file: PathBuf = directory.join("nginx.conf");
        std::fs::write(&file, text).expect("room");
        let process = Command::new("/usr/sbin/nginx")
            .arg("-c")
            .arg(&file)
            .stdout(Stdio::null())
            .spawn()
            .expect("nginx starts; `cargo xtask bench` installs it");
        until("nginx to accept", || {
            std::net::TcpStream::connect(("127.0.0.1", port)).ok()
        });
        Self { process, port }
    }

    fn url(&self, file: &str) -> String {
        format!("http://127.0.0.1:{}/{file}", self.port)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // An error means that it had ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
