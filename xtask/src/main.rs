//! The project's chores: `cargo xtask <chore>`.
//!
//! A chore does the whole of its work on a fresh Debian machine, or fails and says what is missing: none
//! passes because something was not there. What a chore starts (a PostgreSQL, a Keystone, a Barbican, a Ceph) it also stops.

mod ceph;
mod checks;
mod fuzz;
mod garage;
mod machine;
mod openstack;
mod postgres;
mod process;
mod service;
mod tests;

use std::process::ExitCode;

/// A chore: its name, what it does in one line, and the function that does it.
struct Chore {
    name: &'static str,
    about: &'static str,
    run: fn(&[String]) -> process::Outcome,
}

const CHORES: &[Chore] = &[
    Chore {
        name: "test",
        about: "install what is missing, start the engines, run every test, and those of the service again on engines; --once, --engines: the first, the second alone; other arguments go to nextest",
        run: tests::test,
    },
    Chore {
        name: "check",
        about: "formatting, clippy, documentation, licences, bans and sources of dependencies",
        run: checks::check,
    },
    Chore {
        name: "ci",
        about: "check, then test --once: what the continuous integration runs",
        run: ci,
    },
    Chore {
        name: "openapi",
        about: "write openapi/calotype.json from the binary",
        run: tests::openapi,
    },
    Chore {
        name: "versions",
        about: "upgrade the nodes and workers of an older COMMIT to this version's, under load",
        run: tests::versions,
    },
    Chore {
        name: "garage",
        about: "build Garage, and try images and objects in buckets of a cluster of it",
        run: tests::garage,
    },
    Chore {
        name: "fuzz",
        about: "inspect ten million mutated images of each format; --executions N, --seed N, --format NAME",
        run: fuzz::fuzz,
    },
    Chore {
        name: "bench",
        about: "measure the release binary on this machine, write docs/performance.md",
        run: tests::bench,
    },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let name = arguments.first().map_or("help", String::as_str);
    let Some(chore) = CHORES.iter().find(|chore| chore.name == name) else {
        return help(name);
    };
    if matches!(arguments.get(1).map(String::as_str), Some("--help" | "-h")) {
        println!("cargo xtask {name}: {}", chore.about);
        return ExitCode::SUCCESS;
    }
    match (chore.run)(&arguments[1..]) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("xtask {name}: {failure}");
            ExitCode::from(failure.code)
        }
    }
}

fn help(name: &str) -> ExitCode {
    println!("cargo xtask <chore>\n");
    for Chore { name, about, .. } in CHORES {
        println!("  {name:<8} {about}");
    }
    println!("  {:<8} this list", "help");
    if matches!(name, "help" | "--help" | "-h") {
        return ExitCode::SUCCESS;
    }
    eprintln!("\nxtask: there is no chore named {name}");
    ExitCode::from(2)
}

fn ci(arguments: &[String]) -> process::Outcome {
    checks::check(&[])?;
    let once = std::iter::once("--once".to_owned());
    tests::test(&once.chain(arguments.iter().cloned()).collect::<Vec<_>>())
}
