//! Chores that run the binary: its tests, its OpenAPI document, its measurements.

use crate::machine::{install_bench_packages, install_cargo_tool, install_packages, python};
use crate::postgres::Postgres;
use crate::process::{Failure, Outcome, cargo, command, output, root, run, target};

/// Runs every test against real engines; `arguments` go to nextest.
pub fn test(arguments: &[String]) -> Outcome {
    install_packages()?;
    install_cargo_tool("nextest", "cargo-nextest")?;
    let python = python("test-python", "tests/clients/requirements.txt")?;
    // One build for the binary and for every test, so that nothing is built twice.
    run(cargo().args(["build", "--workspace", "--all-targets", "--locked"]))?;
    let postgres = Postgres::start()?;
    let engines = [
        (
            "CALOTYPE_BIN",
            target().join("debug/calotype").into_os_string(),
        ),
        ("CALOTYPE_TEST_POSTGRES_URL", postgres.url().into()),
        ("CALOTYPE_TEST_PYTHON", python.into_os_string()),
    ];
    run(cargo()
        .args(["nextest", "run", "--workspace", "--locked"])
        .args(arguments)
        .envs(engines))
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
