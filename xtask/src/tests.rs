//! Chores that run the binary: its tests, its OpenAPI document, its measurements.

use std::time::Instant;

use crate::ceph::Ceph;
use crate::machine::{
    install_bench_packages, install_cargo_tool, install_ceph_packages, install_packages, python,
};
use crate::openstack::OpenStack;
use crate::postgres::{Fsync, Postgres};
use crate::process::{Failure, Outcome, cargo, command, output, root, run, target};

/// How the tests begin, in nextest's list, that need a Keystone and a Barbican.
const NEED_OPENSTACK: [&str; 3] = [
    "calotype-keys::barbican ",
    "calotype-tests::blackbox barbican::",
    "calotype-tests::blackbox keystone::",
];

/// How those begin that need a Ceph.
const NEED_CEPH: [&str; 5] = [
    "calotype-blob::ceph ",
    "calotype-objects::ceph ",
    "calotype-tests::blackbox ceph::",
    "calotype-tests::blackbox s3_nodes::",
    "calotype-tests::blackbox s3_store::",
];

/// Runs every test against real engines; `arguments` go to nextest.
pub fn test(arguments: &[String]) -> Outcome {
    install_packages()?;
    install_cargo_tool("nextest", "cargo-nextest")?;
    let clients = python("test-python", "tests/clients/requirements.txt")?;
    let otc_clients = python("test-otc-python", "tests/clients/requirements-otc.txt")?;
    let schemathesis = python("schemathesis-python", "tests/schemathesis/requirements.txt")?;
    // One build for the binary and for every test, so that nothing is built twice.
    let build = || run(cargo().args(["build", "--workspace", "--all-targets", "--locked"]));
    let slow = if arguments.is_empty() {
        std::thread::scope(|scope| {
            let starting = scope.spawn(|| Slow::start(true, true));
            let built = build();
            built.and(joined(starting))
        })?
    } else {
        build()?;
        let listed = listed(arguments);
        let need = |starts: &[&str]| need(listed.as_deref(), starts);
        let identity = std::env::var_os("CALOTYPE_TEST_IDENTITY");
        let openstack = identity.is_some_and(|identity| identity == "keystone");
        Slow::start(openstack || need(&NEED_OPENSTACK), need(&NEED_CEPH))?
    };
    let postgres = Postgres::start(Fsync::Off)?;
    let engines = [
        (
            "CALOTYPE_BIN",
            target().join("debug/calotype").into_os_string(),
        ),
        ("CALOTYPE_TEST_POSTGRES_URL", postgres.url().into()),
        ("CALOTYPE_TEST_PYTHON", clients.into_os_string()),
        ("CALOTYPE_TEST_OTC_PYTHON", otc_clients.into_os_string()),
        (
            "CALOTYPE_TEST_SCHEMATHESIS_PYTHON",
            schemathesis.into_os_string(),
        ),
    ];
    run(cargo()
        .args(["nextest", "run", "--workspace", "--locked"])
        .args(arguments)
        .envs(engines)
        .envs(slow.environment()))
}

/// The engines that take long to install and to start, where there is a need for them.
struct Slow {
    openstack: Option<OpenStack>,
    ceph: Option<Ceph>,
}

impl Slow {
    fn start(openstack: bool, ceph: bool) -> Outcome<Self> {
        std::thread::scope(|scope| {
            let starting = scope.spawn(|| ceph.then(start_ceph).transpose());
            let openstack = openstack.then(start_openstack).transpose();
            let ceph = joined(starting);
            Ok(Self {
                openstack: openstack?,
                ceph: ceph?,
            })
        })
    }

    fn environment(&self) -> impl Iterator<Item = (&'static str, String)> {
        let openstack = self.openstack.iter().flat_map(OpenStack::environment);
        openstack.chain(self.ceph.iter().flat_map(Ceph::environment))
    }
}

fn joined<T>(starting: std::thread::ScopedJoinHandle<'_, Outcome<T>>) -> Outcome<T> {
    let started = starting.join();
    started.map_err(|_| Failure::new("starting the engines panicked"))?
}

fn start_openstack() -> Outcome<OpenStack> {
    let python = python("engines-python", "tests/engines/requirements.txt")?;
    let begin = Instant::now();
    let openstack = OpenStack::start(&python)?;
    let seconds = begin.elapsed().as_secs_f64();
    eprintln!("Keystone and Barbican answer after {seconds:.1} s");
    Ok(openstack)
}

fn start_ceph() -> Outcome<Ceph> {
    install_ceph_packages()?;
    let begin = Instant::now();
    let ceph = Ceph::start()?;
    let seconds = begin.elapsed().as_secs_f64();
    eprintln!("Ceph answers after {seconds:.1} s");
    Ok(ceph)
}

/// The tests that the arguments choose; none where nextest can't list them by these arguments.
fn listed(arguments: &[String]) -> Option<String> {
    let listed = output(
        cargo()
            .args(["nextest", "list", "--workspace", "--locked"])
            .args(["--message-format", "oneline"])
            .args(arguments),
    );
    let list = listed.ok()?;
    Some(String::from_utf8_lossy(&list).into_owned())
}

/// Whether a test that begins so is among them. Yes where there is no list: a test that misses its engine fails.
fn need(listed: Option<&str>, starts: &[&str]) -> bool {
    listed.is_none_or(|list| {
        let mut lines = list.lines();
        lines.any(|line| starts.iter().any(|start| line.starts_with(start)))
    })
}

/// Writes the OpenAPI document that the binary serves to where people and generators find it.
pub fn openapi(_: &[String]) -> Outcome {
    let document =
        output(cargo().args(["run", "--quiet", "--package", "calotype", "--", "openapi"]))?;
    if document.is_empty() {
        return Err(Failure::new("`calotype openapi` printed nothing"));
    }
    let directory = root().join("openapi");
    std::fs::create_dir_all(&directory)?;
    std::fs::write(directory.join("calotype.json"), document)?;
    Ok(())
}

/// Measures the release binary; `arguments` name the measurements, none means all.
pub fn bench(arguments: &[String]) -> Outcome {
    install_bench_packages()?;
    let glance = python("bench-python", "tests/bench/requirements.txt")?;
    run(cargo().args(["build", "--release", "--locked", "--package", "calotype"]))?;
    run(cargo().args([
        "build",
        "--release",
        "--locked",
        "--package",
        "calotype-tests",
        "--bin",
        "calotype-bench",
    ]))?;
    run(cargo()
        .args([
            "build",
            "--release",
            "--locked",
            "--package",
            "calotype-core",
        ])
        .args(["--example", "inspect_speed"]))?;
    let measure = |names: &[String]| {
        let wants = |known: &[&str]| names.iter().any(|name| known.contains(&name.as_str()));
        let ceph = Slow::start(false, wants(&["--engines", "engines"]))?;
        let postgres = wants(&["--engines", "nodes"]).then(|| Postgres::start(Fsync::On));
        let postgres = postgres.transpose()?;
        let url = postgres.iter().map(Postgres::url);
        run(command(target().join("release/calotype-bench"))
            .args(names)
            .envs(ceph.environment())
            .envs(url.map(|url| ("CALOTYPE_TEST_POSTGRES_URL", url)))
            .env(
                "CALOTYPE_BENCH_INSPECTOR",
                target().join("release/examples/inspect_speed"),
            )
            .env("CALOTYPE_BIN", target().join("release/calotype"))
            .env("CALOTYPE_BENCH_PYTHON", &glance))
    };
    if !arguments.is_empty() {
        return measure(arguments);
    }
    // The engines run only while they are measured.
    measure(&["--machine".to_owned()])?;
    measure(&["--engines".to_owned()])
}
