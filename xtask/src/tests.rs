//! Chores that run the binary: its tests, its OpenAPI document, its measurements.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Instant;

use crate::ceph::Ceph;
use crate::garage::{self, Garage};
use crate::machine::{
    install_bench_packages, install_cargo_tool, install_ceph_packages, install_packages, python,
};
use crate::openstack::OpenStack;
use crate::postgres::{Fsync, Postgres};
use crate::process::{Failure, Outcome, cargo, command, output, root, run, target};

/// How the tests begin, in nextest's list, that need a Keystone and a Barbican.
const NEED_OPENSTACK: [&str; 4] = [
    "calotype-keys::barbican ",
    "calotype-tests::blackbox barbican::",
    "calotype-tests::blackbox doctor::",
    "calotype-tests::blackbox keystone::",
];

/// How those begin that need all of them.
const NEED_ALL: [&str; 4] = [
    "calotype-tests::blackbox engine_faults::",
    "calotype-tests::blackbox store_faults::",
    "calotype-tests::blackbox versions::",
    "calotype-tests::blackbox zombie::",
];

/// How those begin that need a Ceph.
const NEED_CEPH: [&str; 7] = [
    "calotype-blob::ceph ",
    "calotype-objects::ceph ",
    "calotype-tests::blackbox ceph::",
    "calotype-tests::blackbox doctor::",
    "calotype-tests::blackbox s3_moves::",
    "calotype-tests::blackbox s3_nodes::",
    "calotype-tests::blackbox s3_store::",
];

/// How many stores Ceph has where they are killed, or servers are on engines. One is enough for all else.
const STORES: usize = 3;

/// The variable that puts the servers of the black-box tests on engines.
const DEPLOYMENT: (&str, &str) = ("CALOTYPE_TEST_DEPLOYMENT", "engines");

/// The black-box tests, as nextest's filters have it.
const BLACK_BOX: &str = "package(calotype-tests)";

/// Of them those that would run again as they ran: they have no server (`coverage`, `workspace`, `jail`, `demo`, `alerts`), or one
/// of their own on what they are about: one process and its memory, directory and root keys, and that it is killed by the
/// hundred; SQLite and what becomes of it; or one engine, and its faults.
const OF_THEIR_OWN: &str = "test(/^(alerts|backup|balancers|barbican|ceph|coverage|crash_uploads|demo|disk_full|\
    doctor|jail|keystone|kms_elsewhere|migrate_catalog|nodes|reseal_kills|root_keys|s3_moves|s3_nodes|\
    s3_store|secrets|two_servers|workspace)::/)";

/// Those that have a dozen processes on all engines and kill these, or wait for ten minutes: with all else they would take longer
/// than anybody waits for a change to be tested. One of that kind, `versions`, is among all tests.
const ENGINES_KILLED: &str = "test(/^(engine_faults|store_faults|zombie)::/)";

/// Runs every test against real engines, but for [`ENGINES_KILLED`]; then those, and all of the service's black-box tests again with
/// each of their servers on engines. With `--once` the first half alone, with `--engines` the second. Other arguments go to nextest,
/// in the first half if none is named.
pub fn test(arguments: &[String]) -> Outcome {
    let named = arguments.split_first();
    let on_engines = of_environment(DEPLOYMENT.0, DEPLOYMENT.1);
    let (halves, arguments): (&[bool], _) = match named {
        Some((first, rest)) if first == "--engines" => (&[true], rest),
        Some((first, rest)) if first == "--once" => (&[false], rest),
        _ if on_engines => (&[true], arguments),
        None => (&[false, true], arguments),
        Some(_) => (&[false], arguments),
    };
    install_tools()?;
    // The second half too where the first has failed.
    let halves = halves.iter().map(|on| half(*on, arguments));
    halves.collect::<Vec<_>>().into_iter().collect()
}

fn of_environment(name: &str, value: &str) -> bool {
    std::env::var_os(name).is_some_and(|set| set == value)
}

/// One half of [`test()`], with engines of its own.
fn half(on_engines: bool, arguments: &[String]) -> Outcome {
    // One build for the binary and for every test, so that nothing is built twice.
    let build = || run(cargo().args(["build", "--workspace", "--all-targets", "--locked"]));
    let beside = if arguments.is_empty() || on_engines {
        let stores = if on_engines { STORES } else { 1 };
        std::thread::scope(|scope| {
            let starting = scope.spawn(|| Beside::start(true, stores));
            let built = build();
            built.and(joined(starting))
        })?
    } else {
        build()?;
        let listed = listed(arguments);
        let need = |starts: &[&str]| need(listed.as_deref(), starts);
        let openstack = of_environment("CALOTYPE_TEST_IDENTITY", "keystone");
        let all = need(&NEED_ALL);
        let stores = match (all, need(&NEED_CEPH)) {
            (true, _) => STORES,
            (false, true) => 1,
            (false, false) => 0,
        };
        Beside::start(all || openstack || need(&NEED_OPENSTACK), stores)?
    };
    let postgres = Postgres::start(Fsync::Off)?;
    let mut nextest = cargo();
    nextest
        .args(["nextest", "run", "--workspace", "--locked"])
        .args(arguments)
        .envs(beside.environment(&postgres));
    if on_engines {
        nextest.env(DEPLOYMENT.0, DEPLOYMENT.1);
    }
    if arguments.is_empty() {
        nextest.arg("-E").arg(match on_engines {
            true => format!("{BLACK_BOX} - {OF_THEIR_OWN}"),
            false => format!("not ({BLACK_BOX} & {ENGINES_KILLED})"),
        });
    }
    run(&mut nextest)
}

/// Builds an older commit beside this one, and replaces its nodes and workers by this one's, under load.
pub fn versions(arguments: &[String]) -> Outcome {
    let [commit] = arguments else {
        return Err(Failure::new("say which commit is the older version"));
    };
    install_tools()?;
    let home = target().join("versions");
    let source = home.join("source");
    // What a run before left: another commit's, perhaps.
    if source.exists() {
        run(command("git")
            .args(["worktree", "remove", "--force"])
            .arg(&source))?;
    }
    run(command("git")
        .args(["worktree", "add", "--detach"])
        .arg(&source)
        .arg(commit))?;
    let built = run(cargo()
        .args([
            "build",
            "--locked",
            "--package",
            "calotype",
            "--manifest-path",
        ])
        .arg(source.join("Cargo.toml"))
        .env("CARGO_TARGET_DIR", home.join("target")));
    run(command("git")
        .args(["worktree", "remove", "--force"])
        .arg(&source))?;
    built?;
    run(cargo().args(["build", "--workspace", "--all-targets", "--locked"]))?;
    let beside = Beside::start(true, STORES)?;
    let postgres = Postgres::start(Fsync::Off)?;
    run(cargo()
        .args(["nextest", "run", "--workspace", "--locked"])
        .args(["-E", "package(calotype-tests) & test(/^versions::/)"])
        .envs(beside.environment(&postgres))
        .env("CALOTYPE_TEST_OLD_BIN", home.join("target/debug/calotype")))
}

/// The tests of buckets that take any store that speaks S3, and no Ceph's gateway or user of their own.
const ANY_S3: &str = "package(calotype-objects) & test(ceph_does_what_every_store_must) \
    | package(calotype-blob) & binary(ceph) \
    | package(calotype-tests) & test(/^(s3_moves|s3_nodes|s3_store|ceph)::/) \
    - test(/gateway|stands_still|missing_or_closed|between_two_parts/)";

/// Builds Garage, and runs the tests of buckets on a cluster of it. Other arguments go to nextest.
pub fn garage(arguments: &[String]) -> Outcome {
    install_tools()?;
    garage::install()?;
    run(cargo().args(["build", "--workspace", "--all-targets", "--locked"]))?;
    let beside = Beside::start(false, 0)?;
    let garage = Garage::start()?;
    let postgres = Postgres::start(Fsync::Off)?;
    run(cargo()
        .args(["nextest", "run", "--workspace", "--locked", "-E", ANY_S3])
        .args(arguments)
        .envs(beside.environment(&postgres))
        .envs(garage.environment()))
}

/// Installs what is missing of what builds and runs the tests.
fn install_tools() -> Outcome {
    install_packages()?;
    install_cargo_tool("nextest", "cargo-nextest")
}

/// What the tests meet beside Calotype and a PostgreSQL.
struct Beside {
    interpreters: Interpreters,
    slow: Slow,
}

impl Beside {
    /// Installs what is missing, and starts the engines: see [`Slow::start`].
    fn start(openstack: bool, stores: usize) -> Outcome<Self> {
        std::thread::scope(|scope| {
            let installing = scope.spawn(Interpreters::install);
            let slow = Slow::start(openstack, stores);
            Ok(Self {
                interpreters: joined(installing)?,
                slow: slow?,
            })
        })
    }

    /// What the tests find all of it by.
    fn environment(&self, postgres: &Postgres) -> impl Iterator<Item = (&'static str, OsString)> {
        let binary = target().join("debug/calotype").into_os_string();
        let own = [
            ("CALOTYPE_BIN", binary),
            ("CALOTYPE_TEST_POSTGRES_URL", postgres.url().into()),
        ];
        let slow = self.slow.environment();
        own.into_iter()
            .chain(self.interpreters.environment())
            .chain(slow.map(|(name, value)| (name, value.into())))
    }
}

/// The interpreters that the tests drive.
struct Interpreters {
    clients: PathBuf,
    otc_clients: PathBuf,
    schemathesis: PathBuf,
}

impl Interpreters {
    /// Installs what is missing.
    fn install() -> Outcome<Self> {
        Ok(Self {
            clients: python("test-python", "tests/clients/requirements.txt")?,
            otc_clients: python("test-otc-python", "tests/clients/requirements-otc.txt")?,
            schemathesis: python("schemathesis-python", "tests/schemathesis/requirements.txt")?,
        })
    }

    fn environment(&self) -> [(&'static str, OsString); 3] {
        [
            ("CALOTYPE_TEST_PYTHON", &self.clients),
            ("CALOTYPE_TEST_OTC_PYTHON", &self.otc_clients),
            ("CALOTYPE_TEST_SCHEMATHESIS_PYTHON", &self.schemathesis),
        ]
        .map(|(name, interpreter)| (name, interpreter.clone().into()))
    }
}

/// The engines that take long to install and to start, where there is a need for them.
struct Slow {
    openstack: Option<OpenStack>,
    ceph: Option<Ceph>,
}

impl Slow {
    /// Starts them; `stores` are Ceph's, none is none.
    fn start(openstack: bool, stores: usize) -> Outcome<Self> {
        std::thread::scope(|scope| {
            let ceph = || (stores > 0).then(|| start_ceph(stores)).transpose();
            let starting = scope.spawn(ceph);
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
    started.map_err(|_| Failure::new("what was started beside has panicked"))?
}

fn start_openstack() -> Outcome<OpenStack> {
    let python = python("engines-python", "tests/engines/requirements.txt")?;
    let begin = Instant::now();
    let openstack = OpenStack::start(&python)?;
    let seconds = begin.elapsed().as_secs_f64();
    eprintln!("Keystone and Barbican answer after {seconds:.1} s");
    Ok(openstack)
}

fn start_ceph(stores: usize) -> Outcome<Ceph> {
    install_ceph_packages()?;
    let begin = Instant::now();
    let ceph = Ceph::start(stores)?;
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
    for (package, example) in [
        ("calotype-core", "inspect_speed"),
        ("calotype-blob", "reseal_speed"),
    ] {
        run(cargo()
            .args(["build", "--release", "--locked", "--package", package])
            .args(["--example", example]))?;
    }
    let measure = |names: &[String]| {
        let wants = |known: &[&str]| names.iter().any(|name| known.contains(&name.as_str()));
        let ceph = Slow::start(false, usize::from(wants(&["--engines", "engines"])))?;
        let postgres =
            wants(&["--engines", "nodes", "migration"]).then(|| Postgres::start(Fsync::On));
        let postgres = postgres.transpose()?;
        let url = postgres.iter().map(Postgres::url);
        run(command(target().join("release/calotype-bench"))
            .args(names)
            .envs(ceph.environment())
            .envs(url.map(|url| ("CALOTYPE_TEST_POSTGRES_URL", url)))
            .env("CALOTYPE_BENCH_EXAMPLES", target().join("release/examples"))
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
