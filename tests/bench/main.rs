//! The measurements behind `docs/performance.md`: `cargo xtask bench [--machine | --engines | NAME...]`.
//!
//! Everything runs on this machine, over loopback, against the release binary. A number alone says as much
//! about the machine as about the program; so wherever there is something to measure against, it is measured
//! in the same run, and the ratio is what counts.

mod bytes;
mod engines;
mod exports;
mod filters;
mod glance;
mod imports;
mod lists;
mod machine;
mod memory;
mod migration;
mod nodes;
mod page;
mod replicas;
mod report;
mod reseal;
mod wire;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use report::Report;

/// A name on the command line, and the measurements behind it.
type Part = (&'static str, fn(&mut Report));

/// A section of the page, and what is in it.
struct Section {
    title: &'static str,
    parts: &'static [Part],
}

/// What the embedded default does.
const ONE_MACHINE: Section = Section {
    title: "One machine",
    parts: &[
        ("replicas", replicas::measure),
        ("reseal", reseal::measure),
        ("beside", reseal::five_at_once),
        ("bytes", bytes::measure),
        ("imports", imports::measure),
        ("exports", exports::measure),
        ("memory", memory::measure),
        ("lists", lists::measure),
    ],
};

/// What PostgreSQL and Ceph make of it.
const ENGINES: Section = Section {
    title: "PostgreSQL and Ceph",
    parts: &[
        ("nodes", nodes::measure),
        ("migration", migration::measure),
        ("engines", engines::measure),
    ],
};

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let section = match wanted.as_slice() {
        [only] if only == "--machine" => Some(&ONE_MACHINE),
        [only] if only == "--engines" => Some(&ENGINES),
        _ => None,
    };
    // A run of some parts is for the one who looks at it; the page is of whole sections.
    if let Some(section) = section {
        let report = measured(section.parts.iter());
        return page::put(section.title, &report.text());
    }
    let parts = || ONE_MACHINE.parts.iter().chain(ENGINES.parts);
    let known = |name: &String| parts().any(|(part, _)| part == name);
    if let Some(unknown) = wanted.iter().find(|name| !known(name)) {
        let names: Vec<_> = parts().map(|(name, _)| *name).collect();
        let names = names.join(", ");
        panic!("nothing is measured as {unknown}; there are: --machine, --engines, {names}");
    }
    let chosen = parts().filter(|(name, _)| wanted.iter().any(|want| want == name));
    println!("{}", measured(chosen).text());
}

fn measured<'a>(parts: impl Iterator<Item = &'a Part>) -> Report {
    let mut report = Report::default();
    for (name, measure) in parts {
        eprintln!("measuring: {name}");
        measure(&mut report);
    }
    report
}

/// The time that a crate's example prints of what it does with an argument.
pub(crate) fn example(name: &str, argument: &str) -> Duration {
    let examples = std::env::var_os("CALOTYPE_BENCH_EXAMPLES");
    let examples = examples.expect("examples: `cargo xtask bench` builds them");
    let program = Path::new(&examples).join(name);
    let output = Command::new(program).arg(argument).output();
    let output = output.expect("the example runs");
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stdout);
    Duration::from_secs_f64(said.trim().parse().expect("seconds"))
}
