//! `calotype doctor`: what is well, what is not, and what to mend.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use calotype_tests::openstack::OpenStack;
use calotype_tests::server::binary;
use calotype_tests::{Ceph, Keystone, Server, config, database};
use serde_json::Value;

pub(crate) struct Report {
    code: Option<i32>,
    document: Value,
    told: String,
}

impl Report {
    pub(crate) fn finding(&self, check: &str, says: &str) -> &Value {
        let checks = self.document["checks"].as_array().expect("checks");
        let found = checks.iter().find(|finding| {
            finding["check"] == check
                && finding["says"]
                    .as_str()
                    .is_some_and(|text| text.contains(says))
        });
        found.unwrap_or_else(|| panic!("no {check} says {says:?}: {:#}", self.document))
    }

    /// The finding for which the service would not run.
    pub(crate) fn refuses(&self, check: &str, says: &str) -> &Value {
        let finding = self.finding(check, says);
        assert_eq!(finding["state"], "failed", "{finding}");
        assert_eq!(self.code, Some(1), "{:#}", self.document);
        finding
    }
}

pub(crate) fn doctor(data: &Path, config: &str, wrap: &[(&str, &str)]) -> Report {
    let home = tempfile::tempdir().expect("a directory");
    let file = home.path().join("calotype.toml");
    std::fs::write(&file, config).expect("the configuration");
    let output = Command::new(binary())
        .args(["doctor", "--output", "json", "--data-dir"])
        .arg(data)
        .arg("--config")
        .arg(&file)
        .envs(wrap.iter().copied())
        .output()
        .expect("calotype runs");
    Report {
        code: output.status.code(),
        document: serde_json::from_slice(&output.stdout).unwrap_or_default(),
        told: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

#[test]
fn a_place_where_a_service_runs_or_could_run_is_well() {
    let home = tempfile::tempdir().expect("a directory");
    let data = home.path().join("data");
    let fresh = doctor(&data, "", &[]);
    assert_eq!(fresh.code, Some(0), "{}", fresh.told);
    assert_eq!(fresh.document["ok"], true);
    fresh.finding("catalog", "there is none yet");
    assert!(!data.exists(), "it changes nothing");

    let server = Server::with_defaults();
    let running = doctor(&server.data(), "", &[]);
    assert_eq!(running.code, Some(0), "{:#}", running.document);
    assert_eq!(running.finding("catalog", "SQLite")["state"], "ok");
    assert_eq!(running.finding("store", "can be written")["state"], "ok");
    assert_eq!(running.finding("root keys", "root.key")["state"], "ok");
    assert_eq!(running.finding("exports", "qemu-img")["state"], "ok");
    server.user().image("still-at-work", 1, 1000);
    server.verify();
}

#[test]
fn what_is_wrong_is_said_with_what_to_do_about_it() {
    let server = Server::with_defaults();
    let data = server.data();
    let mode = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("a mode");
    };
    mode(&data.join("root.key"), 0o644);
    mode(&data, 0o755);
    let secret = data.join("secret");
    std::fs::write(&secret, "word").expect("a secret");
    mode(&secret, 0o640);
    let text = format!(
        "[catalog]\nurl = \"postgres://nobody@127.0.0.1:1/x\"\npassword_file = {secret:?}\n\
         acquire_timeout = \"200ms\"\n[export]\nqemu_img = \"/nowhere/qemu-img\"\n"
    );
    let report = doctor(&data, &text, &[]);
    assert_eq!(report.code, Some(1), "{:#}", report.document);
    assert_eq!(report.document["ok"], false);
    assert!(report.told.contains("2 checks failed"), "{}", report.told);
    for (check, says, state) in [
        ("data directory", "can be entered by others", "warning"),
        ("secrets", "catalog.password_file", "warning"),
        ("root keys", "refused", "failed"),
        ("catalog", "unavailable", "failed"),
        ("exports", "qemu-img", "warning"),
    ] {
        let finding = report.finding(check, says);
        assert_eq!(finding["state"], state, "{finding}");
        let mend = finding["mend"].as_str().expect("what to do");
        assert!(!mend.is_empty() && !mend.contains("word"), "{finding}");
    }
}

#[test]
fn a_database_is_looked_into_and_left_as_it_is() {
    let url = database::fresh("doctor");
    let home = tempfile::tempdir().expect("a directory");
    let report = doctor(home.path(), &config::postgres(&url), &[]);
    report.finding("catalog", "PostgreSQL");
    report.finding("catalog", "the next start brings it to");
    // The tests' server is made for speed.
    let fault = report.finding("catalog", "fsync is off");
    assert_eq!(fault["state"], "failed");
    assert_eq!(report.code, Some(1));
    let tables = database::sql(
        &url,
        "select count(*) from pg_tables where schemaname = 'public'",
    );
    assert_eq!(tables.trim(), "0");

    let off = crate::nodes::clock_off_by("+1d");
    let wrap: Vec<(&str, &str)> = off
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let report = doctor(home.path(), &config::postgres(&url), &wrap);
    let clock = report.finding("catalog", "off the database's");
    assert_eq!(clock["state"], "warning");

    // It asks a bucket by the database's clock, as the service does.
    let ceph = Ceph::connect();
    let key = (ceph.access_key(), &*ceph.secret_file());
    let store = config::s3_store(ceph.url(), &ceph.bucket(), key);
    let report = doctor(home.path(), &(config::postgres(&url) + &store), &wrap);
    let finding = report.finding("store", "can be written");
    assert_eq!(finding["state"], "ok", "{finding}");
}

#[test]
fn a_bucket_is_tried_as_the_service_would_use_it() {
    let ceph = Ceph::connect();
    let home = tempfile::tempdir().expect("a directory");
    let look = |bucket: &str, secret: &Path| {
        let store = config::s3_store(ceph.url(), bucket, (ceph.access_key(), secret));
        doctor(home.path(), &store, &[])
    };
    let bucket = ceph.bucket();
    let well = look(&bucket, &ceph.secret_file());
    for says in ["can be written", "in parts", "clock is the service's"] {
        let finding = well.finding("store", says);
        assert_eq!(finding["state"], "ok", "{finding}");
    }
    assert_eq!(ceph.keys(&bucket), [""; 0], "it leaves nothing");
    assert_eq!(ceph.uploads(&bucket), 0, "it leaves nothing");

    let wrong = home.path().join("wrong");
    std::fs::write(&wrong, "not the secret").expect("a secret");
    for report in [
        look(&bucket, &wrong),
        look("no-such-bucket", &ceph.secret_file()),
    ] {
        report.refuses("store", "an object can't be written");
        assert!(!report.document.to_string().contains("not the secret"));
    }
}

#[test]
fn an_access_key_that_may_not_give_up_what_it_began_in_parts_is_found() {
    const WHOLE: [&str; 4] = [
        "s3:GetObject",
        "s3:PutObject",
        "s3:DeleteObject",
        "s3:ListBucket",
    ];
    let (ceph, bucket) = (Ceph::connect(), Ceph::connect().bucket());
    let service = ceph.stranger();
    let home = tempfile::tempdir().expect("a directory");
    let secret = home.path().join("secret");
    std::fs::write(&secret, service.secret_key()).expect("the secret");
    let store = config::s3_store(ceph.url(), &bucket, (service.access_key(), &secret));
    let all = [
        &WHOLE[..],
        &["s3:AbortMultipartUpload", "s3:ListBucketMultipartUploads"],
    ]
    .concat();
    for (actions, state) in [(&WHOLE[..], "failed"), (&all, "ok")] {
        ceph.permit(&bucket, &service, actions);
        let report = doctor(home.path(), &store, &[]);
        let written = report.finding("store", "can be written");
        assert_eq!(written["state"], "ok", "{written}");
        let parts = report.finding("store", "in parts");
        assert_eq!(parts["state"], state, "{parts}");
    }
}

#[test]
fn buckets_of_others_are_looked_into() {
    const PROJECT: &str = "0123456789abcdef0123456789abcdef";
    let ceph = Ceph::connect();
    let home = tempfile::tempdir().expect("a directory");
    let look = |url: &str, secret: &Path, bucket: &str| {
        let objects = config::s3(url, (ceph.access_key(), secret));
        let buckets = format!("[objects.buckets]\n\"{bucket}\" = [\"{PROJECT}\"]\n");
        doctor(home.path(), &(objects + &buckets), &[])
    };
    let (secret, bucket) = (ceph.secret_file(), ceph.bucket());
    let well = look(ceph.url(), &secret, &bucket);
    for says in ["answers", "can be listed"] {
        let finding = well.finding("objects", says);
        assert_eq!(finding["state"], "ok", "{finding}");
    }
    assert_eq!(well.code, Some(0), "{:#}", well.document);
    assert_eq!(ceph.keys(&bucket), [""; 0], "it leaves nothing");
    for bucket in ["no-such-bucket", &ceph.stranger().bucket()] {
        let report = look(ceph.url(), &secret, bucket);
        assert_eq!(report.code, Some(1), "{:#}", report.document);
        let finding = report.finding("objects", "can't be listed");
        assert_eq!(finding["state"], "failed", "{finding}");
    }
    let wrong = home.path().join("wrong");
    std::fs::write(&wrong, "not the secret").expect("a secret");
    for (url, secret) in [(ceph.url(), &wrong), ("http://127.0.0.1:1", &secret)] {
        let report = look(url, secret, &bucket);
        report.refuses("objects", "the store at");
        assert!(!report.document.to_string().contains("not the secret"));
    }
}

#[test]
fn clocks_that_are_apart_from_the_stores_are_told() {
    let ceph = Ceph::connect();
    let home = tempfile::tempdir().expect("a directory");
    let key = (ceph.access_key(), &*ceph.secret_file());
    let config = config::s3_store(ceph.url(), &ceph.bucket(), key) + &config::s3(ceph.url(), key);
    // Without a database the service's clock is this machine's.
    let look = |offset: &str| {
        let off = crate::nodes::clock_off_by(offset);
        let wrap = off.iter().map(|(name, value)| (&**name, &**value));
        doctor(home.path(), &config, &wrap.collect::<Vec<_>>())
    };
    for offset in ["+5m", "-5m"] {
        let report = look(offset);
        let finding = report.finding("store", "s off the service's");
        assert_eq!(finding["state"], "warning", "{finding}");
        assert_eq!(report.code, Some(0), "{:#}", report.document);
    }
    for offset in ["+1d", "-1d"] {
        let report = look(offset);
        assert_eq!(report.code, Some(1), "{:#}", report.document);
        for (check, says) in [("store", "can't be written"), ("objects", "the store at")] {
            let finding = report.finding(check, says);
            assert_eq!(finding["state"], "failed", "{finding}");
            let mend = finding["mend"].as_str().expect("what to do");
            assert!(mend.starts_with("synchronise"), "{finding}");
        }
    }
}

#[test]
fn a_postgresql_that_is_too_old_is_refused() {
    let url = database::fresh("doctor_old");
    let name = url.rsplit('/').next().expect("a name");
    let name = name.split('?').next().expect("a name");
    // One that says that it is: what it is asked for is found here first.
    database::sql(
        &url,
        &format!(
            "create schema old; \
             create function old.current_setting(name text) returns text language sql as \
             $$ select case when name = 'server_version_num' then '140022' \
                else pg_catalog.current_setting(name) end $$; \
             alter database \"{name}\" set search_path = old, pg_catalog"
        ),
    );
    let home = tempfile::tempdir().expect("a directory");
    let report = doctor(home.path(), &config::postgres(&url), &[]);
    let finding = report.refuses("catalog", "is older than 15");
    let mend = finding["mend"].as_str().expect("what to do");
    assert!(mend.contains("upgrade"), "{finding}");
}

#[test]
fn barbican_is_asked_as_for_a_key() {
    let openstack = OpenStack::connect();
    let service = openstack.user("service");
    let home = tempfile::tempdir().expect("a directory");
    let password = home.path().join("password");
    std::fs::write(&password, &service.password).expect("the password");
    let look = |region: &str, user: &str, more: &[(&str, &str)]| {
        let login = (user, service.project_name.as_str(), &*password);
        let barbican = config::barbican(openstack.keystone(), region, login);
        doctor(home.path(), &barbican, more)
    };
    let region = openstack.region(openstack.barbican());
    let well = look(&region, &service.name, &[]);
    let finding = well.finding("barbican", openstack.barbican());
    assert_eq!(finding["state"], "ok", "{finding}");
    assert_eq!(well.code, Some(0), "{:#}", well.document);
    let elsewhere = ("CALOTYPE_KEYS__BARBICAN__ENDPOINT", openstack.keystone());
    for (report, says) in [
        (look(&region, "nobody-of-this-name", &[]), "can't log in"),
        (look("nowhere", &service.name, &[]), "is not found"),
        (
            look(&region, &service.name, &[elsewhere]),
            "does not answer",
        ),
    ] {
        report.refuses("barbican", says);
        assert!(!report.document.to_string().contains(&service.password));
    }
}

#[test]
fn the_services_user_is_tried_at_its_keystone() {
    let keystone = Keystone::new();
    let home = tempfile::tempdir().expect("a directory");
    let look = |more: &[(&str, &str)]| {
        let environment = keystone.environment();
        let wrap = environment.iter().map(|(name, value)| (&**name, &**value));
        let wrap: Vec<(&str, &str)> = wrap.chain(more.iter().copied()).collect();
        doctor(home.path(), "", &wrap)
    };
    let well = look(&[]);
    let finding = well.finding("identity", "is known to the Keystone");
    assert_eq!(finding["state"], "ok", "{finding}");

    let nobody = look(&[("CALOTYPE_IDENTITY__KEYSTONE__USER", "nobody-of-this-name")]);
    assert_eq!(nobody.code, Some(1), "{:#}", nobody.document);
    let finding = nobody.finding("identity", "");
    assert_eq!(finding["state"], "failed", "{finding}");
}
