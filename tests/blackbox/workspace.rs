//! The source tree's own rules: which crate may depend on which, and that what is written for people is
//! true of the tree.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use calotype_tests::Server;
use serde_json::Value;

/// The crates of the project that each may depend on, beside itself.
const LAYERS: [(&str, &[&str]); 11] = [
    ("calotype-core", &[]),
    ("calotype-catalog", &["calotype-core"]),
    ("calotype-remote", &["calotype-core"]),
    ("calotype-s3", &["calotype-core", "calotype-remote"]),
    ("calotype-blob", &["calotype-core", "calotype-s3"]),
    ("calotype-keys", &["calotype-core", "calotype-remote"]),
    ("calotype-identity", &["calotype-core", "calotype-remote"]),
    ("calotype-objects", &["calotype-core", "calotype-s3"]),
    ("calotype-convert", &["calotype-core"]),
    (
        "calotype-api",
        &["calotype-core", "calotype-identity", "calotype-keys"],
    ),
    (
        "calotype",
        &[
            "calotype-api",
            "calotype-blob",
            "calotype-catalog",
            "calotype-convert",
            "calotype-core",
            "calotype-identity",
            "calotype-keys",
            "calotype-objects",
            "calotype-remote",
            "calotype-s3",
        ],
    ),
];

/// The crates that alone may depend on what a layer is about.
const CONFINED: [(&str, &[&str]); 8] = [
    ("sqlx", &["calotype-catalog"]),
    ("axum", &["calotype-api", "calotype"]),
    ("tower-http", &["calotype-api", "calotype"]),
    (
        "aws-lc-rs",
        &[
            "calotype-blob",
            "calotype-keys",
            "calotype-identity",
            "calotype-s3",
        ],
    ),
    ("fast-floe", &["calotype-blob"]),
    ("argon2", &["calotype-identity"]),
    ("object_store", &["calotype-objects", "calotype-s3"]),
    (
        "reqwest",
        &[
            "calotype",
            "calotype-keys",
            "calotype-remote",
            "calotype-s3",
            "calotype-tests",
        ],
    ),
];

/// Crates that are nowhere in what is built, at any depth.
const BANNED: [&str; 4] = ["native-tls", "openssl", "openssl-sys", "ring"];

#[test]
fn dependencies_point_downwards_only() {
    let packages = dependencies("normal");
    for (name, allowed) in LAYERS {
        let own = packages[name]
            .iter()
            .filter(|dependency| packages.contains_key(*dependency));
        for dependency in own {
            assert!(
                allowed.contains(&dependency.as_str()),
                "{name} depends on {dependency}"
            );
        }
    }
    let known = LAYERS.map(|(name, _)| name);
    for name in packages.keys().filter(|name| name.starts_with("calotype")) {
        assert!(
            known.contains(&name.as_str()) || name == "calotype-tests",
            "{name} has no layer"
        );
    }
    for name in known {
        assert!(
            !packages[name].contains("calotype-tests"),
            "{name} depends on its tests"
        );
    }
}

#[test]
fn tests_reach_upwards_only_where_they_need_a_real_neighbour() {
    for (name, dependencies) in dependencies("dev") {
        let upwards = dependencies
            .iter()
            .filter(|dependency| dependency.starts_with("calotype"));
        for dependency in upwards {
            // A suite may run against the real catalog; nothing tests itself with the API or the binary.
            let fine = matches!(
                dependency.as_str(),
                "calotype-core"
                    | "calotype-catalog"
                    | "calotype-blob"
                    | "calotype-keys"
                    | "calotype-identity"
                    | "calotype-remote"
            );
            assert!(fine, "the tests of {name} depend on {dependency}");
        }
    }
}

#[test]
fn databases_http_and_ciphers_are_each_in_their_own_crates_only() {
    let packages = dependencies("normal");
    for (dependency, allowed) in CONFINED {
        for (name, dependencies) in &packages {
            let may = allowed.contains(&name.as_str());
            assert!(
                may || !dependencies.contains(dependency),
                "{name} depends on {dependency}"
            );
        }
    }
}

#[test]
fn sql_is_written_in_the_catalog_only() {
    const STATEMENTS: [&str; 5] = [
        "SELECT ",
        "INSERT INTO ",
        "UPDATE ",
        "DELETE FROM ",
        "CREATE TABLE ",
    ];
    for (name, _) in LAYERS
        .iter()
        .filter(|(name, _)| *name != "calotype-catalog")
    {
        for file in sources(&root().join("crates").join(name).join("src")) {
            let text = std::fs::read_to_string(&file).expect("a source file");
            for (number, line) in text.lines().enumerate() {
                let found = STATEMENTS.iter().find(|statement| {
                    line.contains(&format!("\"{statement}")) && !line.trim_start().starts_with("//")
                });
                assert_eq!(found, None, "{}:{}", file.display(), number + 1);
            }
        }
    }
}

#[test]
fn no_second_cryptographic_library_is_built() {
    let tree = cargo(&[
        "tree",
        "--workspace",
        "--locked",
        "-e",
        "normal,build",
        "--prefix",
        "none",
        "--format",
        "{p}",
    ]);
    let built: BTreeSet<&str> = tree
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    assert!(built.contains("aws-lc-rs"));
    for banned in BANNED {
        assert!(!built.contains(banned), "{banned} is built");
    }
}

#[test]
fn no_source_file_has_outgrown_its_room() {
    for directory in ["crates", "tests", "xtask"] {
        for file in sources(&root().join(directory)) {
            let text = std::fs::read_to_string(&file).expect("a source file");
            let lines = text.lines().count();
            assert!(lines <= 700, "{} has {lines} lines", file.display());
        }
    }
}

#[test]
fn every_chore_is_in_contributing_and_every_command_of_the_readme_is_real() {
    let contributing = read("CONTRIBUTING.md");
    let help = cargo(&[
        "run",
        "--quiet",
        "--locked",
        "--package",
        "xtask",
        "--",
        "help",
    ]);
    let chores: Vec<&str> = help
        .lines()
        .filter_map(|line| line.strip_prefix("  ")?.split_whitespace().next())
        .filter(|chore| *chore != "help")
        .collect();
    assert!(
        chores.contains(&"test") && chores.contains(&"ci"),
        "{chores:?}"
    );
    for chore in &chores {
        let line = format!("cargo xtask {chore}");
        assert!(
            contributing.contains(&line),
            "CONTRIBUTING.md does not name `{line}`"
        );
    }
    for file in ["README.md", "CONTRIBUTING.md", ".ci/run"] {
        for named in commands(&read(file), "cargo xtask ") {
            let known = chores.contains(&named.as_str()) || named == "help";
            assert!(known, "{file} names a chore {named}");
        }
    }
    let usage = Command::new(calotype_tests::server::binary())
        .arg("--help")
        .output()
        .expect("the binary runs");
    let usage = String::from_utf8_lossy(&usage.stdout).into_owned();
    for named in commands(&read("README.md"), "\ncalotype ") {
        assert!(
            usage.contains(&format!("  {named} ")),
            "README.md names `calotype {named}`"
        );
    }
    assert!(read(".ci/run").contains("cargo xtask test"));
}

#[test]
fn the_changelog_says_what_is_not_released_yet() {
    let changelog = read("CHANGELOG.md");
    assert!(
        changelog.contains("\n## Unreleased\n"),
        "CHANGELOG.md has no Unreleased section"
    );
    let version = env!("CARGO_PKG_VERSION");
    let unreleased = changelog
        .split("\n## Unreleased\n")
        .nth(1)
        .unwrap_or_default();
    let described = unreleased.lines().any(|line| line.starts_with("- "));
    let released = changelog.contains(&format!("\n## {version}"));
    assert!(described || released, "CHANGELOG.md describes nothing");
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut documents: Vec<PathBuf> = [
        "README.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "CHANGELOG.md",
        "ARCHITECTURE.md",
    ]
    .map(|name| root().join(name))
    .into_iter()
    .filter(|path| path.exists())
    .collect();
    documents.extend(files(&root().join("docs"), "md"));
    for document in documents {
        let text = std::fs::read_to_string(&document).expect("a document");
        for link in text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            let target = link.split('#').next().unwrap_or_default();
            if target.is_empty() || target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let path = document.parent().expect("a directory").join(target);
            assert!(path.exists(), "{} links to {link}", document.display());
        }
    }
}

#[test]
fn the_openapi_document_in_the_tree_is_the_one_that_is_served() {
    let server = Server::with_defaults();
    let served = calotype_tests::Client::anonymous(server.base()).get("/openapi.json");
    let kept: Value = serde_json::from_str(&read("openapi/calotype.json")).expect("JSON");
    assert!(
        served.expect(200).json() == kept,
        "run `cargo xtask openapi`"
    );
}

/// The crates of the workspace, and what each depends on in one way.
fn dependencies(kind: &str) -> BTreeMap<String, BTreeSet<String>> {
    let metadata = cargo(&["metadata", "--no-deps", "--locked", "--format-version", "1"]);
    let metadata: Value = serde_json::from_str(&metadata).expect("JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let of = |package: &Value| {
        let dependencies = package["dependencies"].as_array().expect("dependencies");
        let wanted = dependencies
            .iter()
            .filter(|dependency| dependency["kind"].as_str().unwrap_or("normal") == kind);
        wanted.map(|dependency| word(&dependency["name"])).collect()
    };
    packages
        .iter()
        .map(|package| (word(&package["name"]), of(package)))
        .collect()
}

fn word(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

/// The words that follow `before` in code spans and blocks of a document.
fn commands(text: &str, before: &str) -> BTreeSet<String> {
    let follows = text.split(before).skip(1);
    let word = |rest: &str| {
        let end = rest
            .find(|c: char| !c.is_ascii_lowercase() && c != '-')
            .unwrap_or(rest.len());
        rest[..end].to_owned()
    };
    follows.map(word).filter(|word| !word.is_empty()).collect()
}

fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("the workspace").to_owned()
}

fn read(file: &str) -> String {
    let path = root().join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn sources(directory: &Path) -> Vec<PathBuf> {
    files(directory, "rs")
}

fn files(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = std::fs::read_dir(directory) else {
        return found;
    };
    for entry in entries {
        let path = entry.expect("an entry").path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
    found
}

fn cargo(arguments: &[&str]) -> String {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(arguments)
        .current_dir(root())
        .output()
        .expect("cargo runs");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo {arguments:?}: {complaint}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
