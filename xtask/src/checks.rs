//! What can be said of the source without running it.

use crate::machine::install_cargo_tool;
use crate::process::{Outcome, cargo, run};

/// Formatting, lints, documentation, and the dependencies' licences, bans and sources.
///
/// Advisories are checked where `CALOTYPE_ADVISORIES=1`: their database is fetched from the network, and
/// a change to it must not turn an unchanged source red.
pub fn check(_: &[String]) -> Outcome {
    run(cargo().args(["fmt", "--all", "--check"]))?;
    run(cargo()
        .args(["clippy", "--workspace", "--all-targets", "--locked"])
        .args(["--", "-D", "warnings"]))?;
    run(cargo()
        .args(["doc", "--workspace", "--no-deps", "--locked"])
        .env("RUSTDOCFLAGS", "-D warnings"))?;
    install_cargo_tool("deny", "cargo-deny")?;
    run(cargo().args([
        "deny",
        "check",
        "--hide-inclusion-graph",
        "bans",
        "licenses",
        "sources",
    ]))?;
    if std::env::var_os("CALOTYPE_ADVISORIES").is_some_and(|value| value == "1") {
        run(cargo().args(["deny", "check", "advisories"]))?;
    }
    Ok(())
}
