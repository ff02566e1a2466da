//! The measurements behind `docs/performance.md`: `cargo xtask bench [replicas|reseal|beside|bytes|imports|exports|memory|lists|engines]...`.
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
mod replicas;
mod report;
mod reseal;
mod wire;

use std::path::Path;

use report::Report;

/// A name on the command line, and the measurements behind it.
type Part = (&'static str, fn(&mut Report));

const PARTS: [Part; 9] = [
    ("replicas", replicas::measure),
    ("reseal", reseal::measure),
    ("beside", reseal::five_at_once),
    ("bytes", bytes::measure),
    ("imports", imports::measure),
    ("exports", exports::measure),
    ("memory", memory::measure),
    ("lists", lists::measure),
    ("engines", engines::measure),
];

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let known = |name: &String| PARTS.iter().any(|(part, _)| part == name);
    if let Some(unknown) = wanted.iter().find(|name| !known(name)) {
        let names = PARTS.map(|(name, _)| name).join(", ");
        panic!("nothing is measured under the name {unknown}; there are: {names}");
    }
    let mut report = Report::default();
    for (name, measure) in PARTS {
        if wanted.is_empty() || wanted.iter().any(|want| want == name) {
            eprintln!("measuring: {name}");
            measure(&mut report);
        }
    }
    let text = report.text();
    println!("{text}");
    // A run of some parts is for the one who looks at it; the page is of a whole run.
    if wanted.is_empty() {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/performance.md");
        std::fs::write(&page, text).expect("docs/performance.md can be written");
    }
}
