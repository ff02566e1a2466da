//! Starting, stopping and being watched: what an operator meets first.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use calotype_tests::client::{begin_record, recorded, text};
use calotype_tests::{Client, Content, Digests, Options, Server, config, until};
use serde_json::json;
use sha2::Digest as _;

use crate::alerts::tells;
use crate::stopping::refuses_connections;

#[test]
fn the_first_start_gives_a_running_service_and_a_user_with_one_ready_line() {
    let server = Server::embedded();
    let lines = server.ready_lines();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(
        lines[0].starts_with("calotype is ready: http://127.0.0.1:"),
        "{lines:?}"
    );
    assert!(
        lines[0].contains(&*server.data().to_string_lossy()),
        "{lines:?}"
    );

    let path = server.data().join("clouds.yaml");
    let mode = path.metadata().expect("clouds.yaml").permissions().mode() & 0o777;
    assert_eq!(
        mode, 0o600,
        "only its owner reads the first user's password"
    );
    let clouds = server.clouds();
    let auth_url = clouds.get("auth_url");
    assert_eq!(auth_url, format!("{}/identity/v3", server.base()));
    assert!(clouds.get("password").len() >= 16);
    for caller in [server.user(), server.admin()] {
        assert_eq!(caller.project().len(), 32);
        caller.get("/v2/images").expect(200);
    }
    private(&server.data());
}

#[test]
fn a_restart_keeps_users_images_jobs_and_bytes() {
    let mut server = Server::with_defaults();
    let client = server.user();
    let image = client.image("kept", 1, 200_000);
    let accepted = client
        .copy(&image, json!({"name": "replica"}))
        .expect(200)
        .json();
    let id = accepted["job_id"].as_str().expect("a job_id");
    let job = client.job(id);
    let before = client.list();
    let password = server.clouds().get("password");
    assert!(server.stop().success());
    server.restart();
    let again = server.user();
    assert_eq!(server.clouds().get("password"), password);
    assert_eq!(again.project(), client.project());
    assert_eq!(again.list(), before);
    assert_eq!(again.show_job(id).expect(200).json(), job.document);
    assert_eq!(
        again.download(&job.image()),
        Digests::of(Content::new(1, 200_000))
    );
    let token = client.at(server.base());
    assert_eq!(
        token.show(&image)["id"],
        image,
        "a token outlives a restart"
    );
}

#[test]
fn ended_jobs_and_the_audit_trail_are_kept_for_their_time_and_deleted_images_ids_for_ever() {
    let mut server = Server::with_defaults();
    let client = server.user();
    let image = client.image("source", 1, 100);
    let body = json!({"name": "replica"});
    let accepted = client.copy(&image, body).expect(200).json();
    let job = accepted["job_id"].as_str().expect("a job_id");
    client.job(job);
    client.delete(&format!("/v2/images/{image}")).expect(204);
    let lines = |server: &Server| {
        let trail = server.admin().get("/admin/v1/audit").expect(200).json();
        trail["events"].as_array().expect("events").len()
    };
    assert!(lines(&server) >= 3);
    client.show_job(job).expect(200);
    assert!(server.stop().success());

    let kept = Options::config(config::kept(1));
    server.try_restart(kept).expect("a start");
    let client = server.user();
    until("the job and the trail to be purged", || {
        let gone = client.show_job(job).status == 404;
        (gone && lines(&server) == 0).then_some(())
    });
    let body = json!({"id": image, "name": "again"});
    client.post("/v2/images", body).expect(409);
    server.verify();
}

#[test]
fn being_asked_to_stop_lets_a_running_upload_end_and_exits_with_zero() {
    let mut server = Server::with_defaults();
    let client = server.user();
    let image = client.create("in flight");
    let (started, start) = std::sync::mpsc::channel();
    let (go_on, wait) = std::sync::mpsc::channel::<()>();
    let wanted = Digests::of(Content::new(4, 8 << 20));
    let uploader = {
        let (client, image) = (client, image.clone());
        std::thread::spawn(move || {
            let body = Paused {
                content: Content::new(4, 8 << 20),
                left_before_pause: 1 << 20,
                started,
                wait,
            };
            client.upload_stream(&image, body, 8 << 20)
        })
    };
    start.recv().expect("the upload begins");
    until("the server to see the upload", || {
        (server.user().show(&image)["status"] == "saving").then_some(())
    });
    server.terminate();
    refuses_connections(&server);
    go_on.send(()).expect("the uploader waits");
    let answer = uploader.join().expect("the uploader").expect("an answer");
    answer.expect(204);
    assert!(
        server.stop().success(),
        "a stop that was asked for is no failure"
    );
    server.restart();
    assert_eq!(server.user().download(&image), wanted);
}

#[test]
fn a_second_server_on_the_same_data_is_refused_and_the_first_goes_on() {
    let server = Server::embedded();
    let second = Server::try_start(Options {
        data: Some(server.data()),
        ..Options::default()
    });
    let reason = second.err().expect("a refusal");
    assert!(
        reason.contains(&*server.data().to_string_lossy()),
        "{reason}"
    );
    server.user().get("/v2/images").expect(200);
}

#[test]
fn health_readiness_and_metrics_answer_without_a_token() {
    let server = Server::with_defaults();
    let user = server.user();
    let image = user.image("counted", 1, 1000);
    user.download(&image);
    let mut all = String::new();
    for node in server.bases() {
        let client = Client::anonymous(node);
        client.get("/healthz").expect(200);
        client.get("/readyz").expect(200);
        let metrics = client.get("/metrics").expect(200).text();
        tells(
            &metrics,
            &[
                "calotype_jobs_waiting 0",
                "calotype_damaged_blobs 0",
                "calotype_scrub_behind_seconds 0",
                "calotype_jobs_running 0",
            ],
        );
        assert!(metrics.contains("# TYPE "), "{metrics}");
        all += &metrics;
    }
    // By the one node that was asked.
    for line in [
        "calotype_image_bytes_uploaded_total 1000",
        "calotype_image_bytes_downloaded_total 1000",
        "calotype_http_requests_total{method=\"PUT\",route=\"/v2/images/{image_id}/file\",status=\"204\"} 1",
    ] {
        let told = all.lines().filter(|shown| *shown == line);
        assert_eq!(told.count(), 1, "{line}: {all}");
    }
    assert!(!all.contains(user.project()), "no project in a label");
}

#[test]
fn every_answer_has_a_request_id_and_an_unknown_path_or_verb_is_told_so() {
    let server = Server::with_defaults();
    let client = server.user();
    for (answer, status) in [
        (client.get("/v2/images"), 200),
        (client.get("/no/such/path"), 404),
        (client.delete("/v2/images"), 405),
        (client.post("/healthz", json!({})), 405),
    ] {
        assert_eq!(answer.status, status, "{answer}");
        assert!(
            !answer.header("x-openstack-request-id").is_empty(),
            "{answer}"
        );
    }
}

#[test]
fn a_field_that_the_configuration_does_not_know_is_refused_by_name() {
    let refused = Server::try_start(Options::config("[server]\nno_such_field = 1\n"));
    let reason = refused.err().expect("a refusal");
    assert!(reason.contains("no_such_field"), "{reason}");
}

#[test]
fn no_password_token_or_secret_reaches_the_log_the_metrics_or_the_data() {
    begin_record();
    let server = Server::start(Options::config(config::log("trace")).embedded());
    let admin = server.admin();
    let member = admin.new_project("canary-project", "member");
    let image = member.image("canary-image", 1, 1000);
    member.replicate(&image, "replica");
    let secret = "PLAINTEXT-CANARY-0123456789-abcdefghijklmnopqrstuvwxyz".repeat(40);
    let sealed = member.create("sealed");
    member.upload(&sealed, secret.clone()).expect(204);
    let access_key = admin
        .post(
            &format!("/identity/v3/users/{}/credentials/OS-EC2", member.user()),
            json!({"tenant_id": member.project()}),
        )
        .json();
    let temporary = member
        .post(
            "/identity/v3.0/OS-CREDENTIAL/securitytokens",
            json!({"auth": {"identity": {"methods": ["token"]}}}),
        )
        .expect(201)
        .json();
    let temporary = |name: &str| temporary["credential"][name].as_str().expect("a text");
    let signed = Client::anonymous(server.base())
        .request(reqwest::Method::GET, "/v2/images")
        .header("X-Security-Token", temporary("securitytoken"))
        .header("X-Sdk-Date", "20261123T201500Z")
        .header(
            "Authorization",
            format!(
                "SDK-HMAC-SHA256 Access={}, SignedHeaders=x-sdk-date, Signature={}",
                temporary("access"),
                "0".repeat(64)
            ),
        );
    calotype_tests::client::send(signed).expect(401);
    let key = member.create_key("canary-key");
    member.replicate_with(&sealed, json!({"name": "replica", "cmk_id": key}));
    let data_key = member.kms(
        "create-datakey",
        json!({"key_id": key, "datakey_length": 512}),
    );
    let data_key = data_key.expect(200).json();
    let opened = json!({"key_id": key, "cipher_text": data_key["cipher_text"],
        "datakey_cipher_length": 64});
    member.kms("decrypt-datakey", opened).expect(200);
    let random = member.kms("gen-random", json!({})).expect(200).json();
    let text = json!({"key_id": key, "plain_text": "TEXT-CANARY-OF-ENCRYPT-DATA"});
    let text = member.kms("encrypt-data", text).expect(200).json();
    let text = json!({"cipher_text": text["cipher_text"]});
    member.kms("decrypt-data", text).expect(200);
    admin
        .post("/admin/v1/root-key/rotate", serde_json::Value::Null)
        .expect(200);
    let root_keys = std::fs::read_to_string(server.data().join("root.key")).expect("the root keys");
    let plain = |document: &serde_json::Value, name: &str| {
        document[name].as_str().expect("a text").to_owned()
    };
    Client::anonymous(server.base())
        .post(
            "/identity/v3/auth/tokens",
            json!({"auth": {"identity": {"methods": ["password"], "password": {"user": {
                "name": "nobody", "domain": {"id": "default"}, "password": "WRONG-CANARY-PASS"}}}}}),
        )
        .expect(401);
    let mut raw: Vec<Vec<u8>> = Vec::new();
    let mut canaries = vec![
        server.clouds().get("password"),
        server.clouds().cloud("calotype-admin").get("password"),
        server.clouds().get("secret_key"),
        "pass-canary-project-member-phrase".to_owned(),
        "WRONG-CANARY-PASS".to_owned(),
        admin.token().to_owned(),
        member.token().to_owned(),
        "PLAINTEXT-CANARY-0123456789".to_owned(),
        temporary("secret").to_owned(),
        temporary("securitytoken").to_owned(),
        "TEXT-CANARY-OF-ENCRYPT-DATA".to_owned(),
    ];
    let hex = root_keys
        .lines()
        .map(|line| line.rsplit(':').next().unwrap_or_default().to_owned())
        .chain([
            plain(&data_key, "plain_text"),
            plain(&random, "random_data"),
        ]);
    for hex in hex {
        // As digits in either case, and as the bytes that a file could hold.
        canaries.extend([hex.to_lowercase(), hex.to_uppercase()]);
        raw.push(bytes_of(&hex));
    }
    if let Some(secret) = access_key["credential"]["secret"].as_str() {
        canaries.push(secret.to_owned());
    }
    let metrics = Client::anonymous(server.base()).get("/metrics").text();
    let log = server.log() + &server.printed();
    assert!(log.len() > 1000, "the log is on");
    for canary in &canaries {
        assert!(!canary.is_empty());
        assert!(!log.contains(canary.as_str()), "{canary} is in the log");
        assert!(
            !metrics.contains(canary.as_str()),
            "{canary} is in the metrics"
        );
        raw.push(canary.clone().into_bytes());
    }
    // Passwords and root keys are in no answer either.
    let never = canaries[..2].iter().chain(&canaries[3..5]);
    let never: Vec<&str> = never
        .map(String::as_str)
        .chain(root_keys.lines().filter_map(|line| line.rsplit(':').next()))
        .collect();
    for answer in recorded() {
        let text = format!("{:?}{}", answer.headers, answer.text());
        for canary in &never {
            assert!(!text.contains(canary), "{canary} is in {}", answer.asked);
        }
    }
    for file in files(&server.data()) {
        if file
            .file_name()
            .is_some_and(|name| name == "clouds.yaml" || name == "root.key")
        {
            continue;
        }
        let bytes = std::fs::read(&file).unwrap_or_default();
        for canary in &raw {
            let found = bytes.windows(canary.len()).any(|part| part == canary);
            let text = String::from_utf8_lossy(canary);
            assert!(!found, "{text} is in {}", file.display());
        }
    }
}

#[test]
fn no_secret_that_the_service_was_given_is_in_a_log_a_metric_or_an_answer() {
    begin_record();
    let mut server = Server::start(Options::config(config::log("trace")));
    let client = server.user();
    let key = client.create_key("key");
    let source = client.image("source", 1, 100_000);
    let sealed = client.replicate_with(&source, json!({"name": "sealed", "cmk_id": key}));
    client.download(&sealed);
    // Its own root key, or what files its environment names.
    let pid = server.nodes()[0].pid();
    let environment = std::fs::read_to_string(format!("/proc/{pid}/environ")).expect("it runs");
    let named = environment.split('\0').filter_map(|variable| {
        let (name, path) = variable.split_once('=')?;
        let names_it = name.starts_with("CALOTYPE_") && name.ends_with("_FILE");
        names_it.then(|| PathBuf::from(path))
    });
    let mut files: Vec<PathBuf> = named.collect();
    files.extend(Some(server.data().join("root.key")).filter(|path| path.exists()));
    let wanted = if server.is_on_engines() { 4 } else { 1 };
    assert!(files.len() >= wanted, "{files:?}");
    let texts = files.iter().flat_map(|path| {
        let text = std::fs::read_to_string(path).expect("a secret");
        let lines = text
            .lines()
            .map(|line| line.rsplit(':').next().unwrap_or_default());
        lines.map(str::to_owned).collect::<Vec<_>>()
    });
    let secrets: Vec<String> = texts.collect();
    let mut places = vec![("the log".to_owned(), server.log() + &server.printed())];
    for node in server.bases() {
        let metrics = Client::anonymous(node).get("/metrics").text();
        places.push(("the metrics".to_owned(), metrics));
    }
    let answers = recorded().into_iter();
    places.extend(answers.map(|answer| {
        let text = format!("{:?}{}", answer.headers, answer.text());
        (answer.asked, text)
    }));
    assert!(places[0].1.len() > 10_000, "the log is on");
    for secret in &secrets {
        assert!(!secret.is_empty());
        for (place, text) in &places {
            assert!(!text.contains(secret.as_str()), "{secret} is in {place}");
        }
    }
}

fn bytes_of(hex: &str) -> Vec<u8> {
    let digits: Vec<u32> = hex.chars().filter_map(|c| c.to_digit(16)).collect();
    let byte = |pair: &[u32]| u8::try_from(pair[0] * 16 + pair[1]).expect("a byte");
    digits.chunks_exact(2).map(byte).collect()
}

/// A body that tells when it has been read so far, and then waits to be allowed to go on.
pub(crate) struct Paused {
    pub(crate) content: Content,
    pub(crate) left_before_pause: usize,
    pub(crate) started: std::sync::mpsc::Sender<()>,
    pub(crate) wait: std::sync::mpsc::Receiver<()>,
}

impl std::io::Read for Paused {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.left_before_pause == 0 {
            return self.content.read(buffer);
        }
        let length = buffer.len().min(self.left_before_pause);
        let read = self.content.read(&mut buffer[..length])?;
        self.left_before_pause -= read;
        if self.left_before_pause == 0 {
            self.started.send(()).expect("the test waits");
            self.wait.recv().expect("the test goes on");
        }
        Ok(read)
    }
}

/// Nothing under the data directory may be read by others.
fn private(directory: &Path) {
    let mode = directory
        .metadata()
        .expect("a directory")
        .permissions()
        .mode();
    assert_eq!(mode & 0o077, 0, "{} is open to others", directory.display());
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}

#[test]
fn the_lines_of_a_request_name_it_its_project_its_user_and_its_image() {
    let server = Server::start(Options::config("[log]\nformat = \"json\"\n".to_owned()));
    let client = server.user();
    let fields = json!({"name": "named", "disk_format": "raw", "container_format": "bare"});
    let made = client.post("/v2/images", fields).expect(201);
    let image = text(&made.json()["id"]);
    let shown = client.get(&format!("/v2/images/{image}")).expect(200);
    let log = server.log();
    let lines: Vec<serde_json::Value> = log
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    for (answer, method) in [(made, "POST"), (shown, "GET")] {
        let request = answer.header("x-request-id");
        let found = lines.iter().find(|line| {
            line["message"] == "request answered" && line["span"]["request.id"] == request
        });
        let line = &found.unwrap_or_else(|| panic!("no {request}: {log}"))["span"];
        assert_eq!(line["http.method"], method, "{line}");
        assert_eq!(line["project.id"], client.project(), "{line}");
        assert_eq!(line["user.id"], client.user(), "{line}");
        assert_eq!(line["image.id"], image, "{line}");
    }
}

#[test]
fn the_lines_of_a_job_name_it_its_project_and_its_image() {
    let server = Server::start(Options::config("[log]\nformat = \"json\"\n".to_owned()));
    let client = server.user();
    let source = client.image("source", 1, 1000);
    let job = client.begin_copy(&source, json!({"name": "named"}));
    let made = client.job(&job).image();
    let line = until("the job's last line", || {
        let log = server.log();
        let mut lines = log
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        lines.find(|line| line["message"] == "job ended")
    });
    let span = &line["span"];
    assert_eq!(span["job.id"], job, "{line}");
    assert_eq!(span["job.attempt"], 1, "{line}");
    assert_eq!(span["project.id"], client.project(), "{line}");
    assert_eq!(span["image.id"], made, "{line}");
}

#[test]
fn the_digests_that_are_configured_are_computed_and_shown() {
    let digests = Digests::of(Content::new(1, 100_000));
    for (configured, algorithm) in [
        (r#"["md5", "sha256"]"#, "sha256"),
        (r#"["md5", "sha256", "sha512"]"#, "sha512"),
    ] {
        let config = format!("[images]\ndigests = {configured}\n");
        let server = Server::start(Options::config(config));
        let client = server.user();
        let id = client.image("digested", 1, 100_000);
        let image = client.get(&format!("/v2/images/{id}")).expect(200).json();
        assert_eq!(image["checksum"], digests.md5);
        assert_eq!(image["os_hash_algo"], algorithm);
        let hash = match algorithm {
            "sha256" => hex::encode(sha2::Sha256::digest(Content::bytes(1, 100_000))),
            _ => digests.sha512.clone(),
        };
        assert_eq!(image["os_hash_value"], hash);
    }
}
