//! Chores that run the binary: its tests, its OpenAPI document, its measurements.

use std::time::Instant;

use crate::machine::{install_bench_packages, install_cargo_tool, install_packages, python};
use crate::openstack::OpenStack;
use crate::postgres::Postgres;
use crate::process::{Failure, Outcome, cargo, command, output, root, run, target};

/// How the tests begin, in nextest's list, that need a Keystone and a Barbican.
const NEED_OPENSTACK: [&str; 2] = [
    "calotype-keys::barbican ",
    "calotype-tests::blackbox barbican::",
];

/// Runs every test against real engines; `arguments` go to nextest.
pub fn test(arguments: &[String]) -> Outcome {
    install_packages()?;
    install_cargo_tool("nextest", "cargo-nextest")?;
    let clients = python("test-python", "tests/clients/requirements.txt")?;
    let otc_clients = python("test-otc-python", "tests/clients/requirements-otc.txt")?;
    // One build for the binary and for every test, so that nothing is built twice.
    let build = || run(cargo().args(["build", "--workspace", "--all-targets", "--locked"]));
    let openstack = if arguments.is_empty() {
        std::thread::scope(|scope| {
            let starting = scope.spawn(start_openstack);
            let built = build();
            let started = starting.join();
            let started = started.map_err(|_| Failure::new("starting the engines panicked"))?;
            built.and(started.map(Some))
        })?
    } else {
        build()?;
        match need_openstack(arguments) {
            true => Some(start_openstack()?),
            false => None,
        }
    };
    let postgres = Postgres::start()?;
    let engines = [
        (
            "CALOTYPE_BIN",
            target().join("debug/calotype").into_os_string(),
        ),
        ("CALOTYPE_TEST_POSTGRES_URL", postgres.url().into()),
        ("CALOTYPE_TEST_PYTHON", clients.into_os_string()),
        ("CALOTYPE_TEST_OTC_PYTHON", otc_clients.into_os_string()),
    ];
    run(cargo()
        .args(["nextest", "run", "--workspace", "--locked"])
        .args(arguments)
        .envs(engines)
        .envs(openstack.iter().flat_map(OpenStack::environment)))
}

fn start_openstack() -> Outcome<OpenStack> {
    let python = python("engines-python", "tests/engines/requirements.txt")?;
    let begin = Instant::now();
    let openstack = OpenStack::start(&python)?;
    let seconds = begin.elapsed().as_secs_f64();
    eprintln!("Keystone and Barbican answer after {seconds:.1} s");
    Ok(openstack)
}

/// Whether a test that needs them is among those that the arguments choose; yes where nextest can't list them by these
/// arguments: a test that misses its engines fails.
fn need_openstack(arguments: &[String]) -> bool {
    let listed = output(
        cargo()
            .args(["nextest", "list", "--workspace", "--locked"])
            .args(["--message-format", "oneline"])
            .args(arguments),
    );
    listed.map_or(true, |list| {
        let list = String::from_utf8_lossy(&list).into_owned();
        list.lines()
            .any(|line| NEED_OPENSTACK.iter().any(|start| line.starts_with(start)))
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
    run(command(target().join("release/calotype-bench"))
        .args(arguments)
        .env("CALOTYPE_BIN", target().join("release/calotype"))
        .env("CALOTYPE_BENCH_PYTHON", glance))
}
