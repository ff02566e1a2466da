//! Nothing of the API reference is forgotten: each of its codes is the answer in some test or has a reason why it can't be
//! one, and each of its operations is among those that `probe.rs` tries.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// How many codes this service can't give. It may become less.
const UNREACHABLE: usize = 86;
/// How many operations there are.
const OPERATIONS: usize = 45;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the workspace")
}

fn read(path: &str) -> String {
    let text = fs::read_to_string(root().join(path));
    text.unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The rows of a table, without its comments.
fn table(path: &str) -> Vec<Vec<String>> {
    let text = read(path);
    let rows = text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    rows.map(|line| line.split('\t').map(str::to_owned).collect())
        .collect()
}

/// The reasons that the fixture's head explains.
fn reasons(text: &str) -> BTreeSet<&str> {
    let explained = text.lines().filter_map(|line| line.strip_prefix("#   "));
    explained
        .filter_map(|line| line.split_once(':').map(|(reason, _)| reason))
        .collect()
}

/// A test's text: from its name to the next test. A case of a conformance suite is one by its parameter.
fn test<'a>(source: &'a str, name: &str) -> Option<&'a str> {
    let start = source.find(&format!("fn {name}("))?;
    let before = source[..start].trim_end_matches("async ");
    let attribute = before.trim_end().lines().next_back()?.trim();
    let rest = &source[start..];
    let of_suite = rest.starts_with(&format!("fn {name}(world: World)"));
    let is_test = attribute.starts_with("#[test]") || attribute.starts_with("#[tokio::test");
    let is_test = is_test || of_suite;
    let end = match of_suite {
        true => rest.find("\n}\n"),
        false => rest.find("\n#[").or_else(|| rest.find("\n    #[")),
    };
    is_test.then(|| &rest[..end.unwrap_or(rest.len())])
}

#[test]
fn every_code_is_an_answer_in_a_test_or_has_a_reason_why_it_can_not_be() {
    const CODES: &str = "tests/fixtures/codes.tsv";
    let text = read(CODES);
    let reasons = reasons(&text);
    let mut held = BTreeMap::new();
    for row in table(CODES) {
        let before = held.insert(row[0].clone(), row[1].clone());
        assert!(before.is_none(), "{} comes twice", row[0]);
    }
    let all = table("docs/api/error-codes.tsv").into_iter().skip(1);
    let all: BTreeSet<String> = all.map(|row| row[1].clone()).collect();
    assert_eq!(all.len(), 177);
    assert_eq!(held.keys().cloned().collect::<BTreeSet<_>>(), all);
    let mut unreachable = 0;
    for (code, by) in &held {
        let Some((file, name)) = by.split_once('#') else {
            assert!(reasons.contains(by.as_str()), "{code}: no reason: {by}");
            unreachable += 1;
            continue;
        };
        let source = read(file);
        let test = test(&source, name);
        let test = test.unwrap_or_else(|| panic!("{code}: {file} has no test {name}"));
        let mentions = [code.clone(), code.replace('.', "_")];
        assert!(
            mentions.iter().any(|mention| test.contains(mention)),
            "{code} is not in {file}, {name}"
        );
    }
    // More are not allowed; where there are fewer, the number above goes down too.
    assert_eq!(unreachable, UNREACHABLE);
}

#[test]
fn a_code_that_can_not_be_given_is_given_nowhere() {
    let mut sources = String::new();
    for each in fs::read_dir(root().join("crates")).expect("the crates") {
        collect(&each.expect("a crate").path().join("src"), &mut sources);
    }
    for row in table("tests/fixtures/codes.tsv") {
        let (code, by) = (&row[0], row[1].as_str());
        // Through the Image API a refusal may know its code, which nobody sees.
        if by.contains('#') || by == "native" {
            continue;
        }
        let given = format!("ImsCode::{}", code.replace('.', "_"));
        assert!(!sources.contains(&given), "{code} is given, and said: {by}");
    }
}

/// The sources below a directory, but for the table of codes.
fn collect(directory: &PathBuf, sources: &mut String) {
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, sources);
        } else if path.extension().is_some_and(|kind| kind == "rs") && !path.ends_with("codes.rs") {
            sources.push_str(&fs::read_to_string(&path).expect("a source"));
        }
    }
}

#[test]
fn every_operation_of_the_reference_is_among_those_that_are_tried() {
    let tried: BTreeSet<(String, String)> = table("tests/fixtures/endpoints.tsv")
        .into_iter()
        .map(|row| (row[0].clone(), row[1].clone()))
        .collect();
    let operations = table("tests/fixtures/operations.tsv");
    assert_eq!(operations.len(), OPERATIONS);
    for (at, row) in operations.iter().enumerate() {
        assert_eq!(row[0], (at + 1).to_string());
        let operation = (row[1].clone(), row[2].clone());
        assert!(tried.contains(&operation), "{operation:?}");
    }
}

#[test]
fn what_every_operation_of_the_reference_does_a_command_does() {
    let operations = table("tests/fixtures/operations.tsv");
    let commands: BTreeSet<&str> = operations.iter().map(|row| row[3].as_str()).collect();
    let page = read("docs/cli.md");
    for command in commands {
        let mut help = std::process::Command::new(calotype_tests::server::binary());
        help.args(command.split(' ')).arg("--help");
        let answer = help.output().expect("the calotype binary runs");
        let text = String::from_utf8_lossy(&answer.stdout);
        let usage = format!("Usage: calotype {command} ");
        assert!(
            answer.status.success() && text.contains(&usage),
            "{command}: {text}"
        );
        let last = command.split(' ').next_back().expect("a word");
        assert!(page.contains(last), "{command}");
    }
}
