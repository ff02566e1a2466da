//! The clients that people use, run against the real server: each script of `tests/clients` is one test.

use std::path::Path;
use std::process::{Command, Stdio};

use calotype_tests::{Options, Server, config, program};

#[test]
fn openstacksdk_works() {
    script("openstacksdk_images.py");
}

#[test]
fn the_openstack_command_works() {
    script("openstack_command.py");
}

#[test]
fn glanceclient_works() {
    script("glanceclient_images.py");
}

#[test]
fn the_huawei_sdk_makes_each_of_its_calls_with_signed_requests() {
    let directory = tempfile::tempdir().expect("a directory");
    let calls = directory.path().join("calls");
    // The last one compares what was called with what the SDK has.
    for name in [
        "huawei_sdk_images.py",
        "huawei_sdk_imports.py",
        "huawei_sdk_rest.py",
    ] {
        script_with(&program::python(), name, &[("CALOTYPE_CALLS", &calls)]);
    }
}

#[test]
fn the_huawei_sdk_with_signed_requests_manages_keys() {
    script("huawei_sdk_keys.py");
}

#[test]
fn otcextensions_imports_images() {
    script_by(&program::otc_python(), "otcextensions_imports.py");
}

#[test]
fn otcextensions_makes_each_of_its_calls_for_images() {
    script_by(&program::otc_python(), "otcextensions_images.py");
}

#[test]
fn otcextensions_manages_keys() {
    script_by(&program::otc_python(), "otcextensions_keys.py");
}

#[test]
fn curl_works_as_the_readme_says() {
    let server = Server::with_defaults();
    let client = server.user();
    let listed = program::run(
        "curl",
        &[
            "-fsS",
            "-H",
            &format!("X-Auth-Token: {}", client.token()),
            &format!("{}/v2/cloudimages", server.base()),
        ],
    );
    assert_eq!(listed.trim(), r#"{"images":[]}"#);
}

/// Runs a script with its server's address and `clouds.yaml` in the environment.
fn script(name: &str) {
    script_by(&program::python(), name);
}

fn script_by(python: &Path, name: &str) {
    script_with(python, name, &[]);
}

fn script_with(python: &Path, name: &str, environment: &[(&str, &Path)]) {
    // Scripts write their objects as files.
    let server = Server::start(Options::config(config::DIRECTORY_OF_BUCKETS));
    script_at(&server, python, name, environment);
}

/// Runs a script against a server.
pub(crate) fn script_at(server: &Server, python: &Path, name: &str, environment: &[(&str, &Path)]) {
    server.make_bucket("images");
    let clouds = server.clouds();
    let client = server.user();
    let directory = tempfile::tempdir().expect("a directory");
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("clients")
        .join(name);
    let output = Command::new(python)
        .arg("-B")
        .arg(path)
        .env("OS_CLIENT_CONFIG_FILE", server.data().join("clouds.yaml"))
        .env("OS_CLOUD", "calotype")
        .env("CALOTYPE_URL", server.base())
        .env("CALOTYPE_PROJECT", client.project())
        .env("CALOTYPE_BUCKET", server.bucket("images"))
        .env("CALOTYPE_ACCESS_KEY", clouds.get("access_key"))
        .env("CALOTYPE_SECRET_KEY", clouds.get("secret_key"))
        .envs(environment.iter().copied())
        .env("HOME", directory.path())
        .env("NO_PROXY", "127.0.0.1")
        .current_dir(directory.path())
        .stdin(Stdio::null())
        .output()
        .expect("the interpreter runs");
    program::succeeded(name, &output);
}
