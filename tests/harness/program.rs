//! Other programs, run to their end.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, Output};

/// Runs a program that must be there and must succeed; returns what it printed.
pub fn run<A: AsRef<OsStr>>(name: &str, arguments: &[A]) -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    let output = Command::new(name)
        .args(arguments)
        .env("PATH", format!("{path}:/usr/sbin:/sbin"))
        .output()
        .unwrap_or_else(|error| {
            panic!("{name}: {error}; run `cargo xtask test`, which installs it")
        });
    succeeded(name, &output)
}

/// Proves that a program has succeeded; returns what it printed.
pub fn succeeded(name: &str, output: &Output) -> String {
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaints = String::from_utf8_lossy(&output.stderr);
    let status = output.status;
    assert!(status.success(), "{name}: {status}\n{printed}{complaints}");
    printed
}

/// The interpreter with the clients that the tests drive.
pub fn python() -> PathBuf {
    interpreter("CALOTYPE_TEST_PYTHON")
}

/// The interpreter with otcextensions, which wants an openstacksdk of its own.
pub fn otc_python() -> PathBuf {
    interpreter("CALOTYPE_TEST_OTC_PYTHON")
}

/// The Python interpreter that has schemathesis.
pub fn schemathesis_python() -> PathBuf {
    interpreter("CALOTYPE_TEST_SCHEMATHESIS_PYTHON")
}

fn interpreter(name: &str) -> PathBuf {
    let path = std::env::var_os(name);
    let path = path.unwrap_or_else(|| {
        panic!("no Python with the clients: {name} is not set; run `cargo xtask test`")
    });
    path.into()
}

/// The ISO image of memtest86+, a real one that Debian carries.
pub fn memtest_iso() -> PathBuf {
    let places = [
        "/usr/lib/memtest86+/memtest86+x64.iso",
        "/boot/memtest86+.iso",
    ];
    let iso = places.iter().map(PathBuf::from).find(|path| path.exists());
    iso.unwrap_or_else(|| panic!("no memtest86+ ISO: run `cargo xtask test`, which installs it"))
}

/// A qcow2 image without data, of a disk of this size as qemu-img writes it.
pub fn qcow2(size: &str) -> Vec<u8> {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("disk.qcow2");
    let path = path.to_string_lossy();
    run("qemu-img", &["create", "-q", "-f", "qcow2", &path, size]);
    std::fs::read(&*path).expect("the image")
}
