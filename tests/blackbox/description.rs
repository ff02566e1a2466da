//! The server answers as its OpenAPI document says: schemathesis draws requests for every operation of the document that
//! the server serves, good and bad, and compares each answer with it. `tests/schemathesis/hooks.py` lets the requests meet
//! things that exist.
//!
//! `CALOTYPE_EXAMPLES` sets how many requests are drawn for each operation beside those at the edges of its fields,
//! `CALOTYPE_SEED` which; the seed is printed.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};

use calotype_tests::{Client, Content, Server, program};

use crate::probe::{ELSEWHERE, is_served, operations};

/// The calls that read objects of buckets or write them: of each, some request must be taken.
const OF_BUCKETS: [&str; 10] = [
    "POST /v2/cloudimages/action",
    "POST /v2.1/cloudimages/action",
    "POST /v1/cloudimages/action",
    "POST /v2/cloudimages/quickimport/action",
    "POST /v2.1/cloudimages/quickimport/action",
    "POST /v1/cloudimages/dataimages/action",
    "POST /v2.1/cloudimages/dataimages/action",
    "PUT /v1/cloudimages/{image_id}/upload",
    "POST /v1/cloudimages/{image_id}/file",
    "POST /v2.1/cloudimages/{image_id}/file",
];

/// An answer is no fault of ours, has a status and a media type of the document, and has the shape that it gives.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance";

#[test]
fn no_request_makes_a_server_error_or_gets_an_answer_that_the_document_does_not_describe() {
    let server = Server::with_defaults();
    let admin = server.admin();
    let mut options = vec!["--checks", CHECKS];
    let elsewhere = format!("^({})", ELSEWHERE.join("|").replace('{', r"\{"));
    if server.is_on_engines() {
        options.extend(["--exclude-path-regex", &elsewhere]);
    }
    let Run { said, answers } = schemathesis(&server, &admin, &options, 5);
    let described = admin.get("/openapi.json").expect(200).json();
    let described = operations(&described).into_iter();
    let tried = described.filter(|operation| {
        let (method, path) = operation.split_once(' ').expect("a method and a path");
        // Schemathesis leaves HEAD out.
        method != "HEAD" && is_served(&server, path)
    });
    let tested = format!("Tested: {}", tried.count());
    assert!(
        said.contains(&tested),
        "not every operation was tried:\n{said}"
    );
    for call in OF_BUCKETS {
        let taken = format!("{call} 200");
        let of_call = answers.lines().filter(|answer| answer.starts_with(call));
        assert!(
            of_call.clone().any(|answer| answer == taken),
            "no {call} was taken: {:?}",
            of_call.collect::<BTreeSet<_>>()
        );
    }
}

#[test]
fn what_the_document_forbids_is_refused_by_the_image_apis() {
    let server = Server::with_defaults();
    let admin = server.admin();
    let only = ["--include-path-regex", "^/v[0-9.]+/"];
    let check = ["--checks", "negative_data_rejection"];
    schemathesis(&server, &admin, &[check, only].concat(), 3);
}

/// What there is to know of a run.
struct Run {
    /// What schemathesis said.
    said: String,
    /// A line for each request: its method, the path in the document, the answer's status, and the code of a refusal.
    answers: String,
}

/// Runs it as the administrator. It must find no failure.
fn schemathesis(server: &Server, admin: &Client, options: &[&str], examples: u64) -> Run {
    let number = |name: &str, default: u64| {
        let given = std::env::var(name).ok().and_then(|text| text.parse().ok());
        given.unwrap_or(default).to_string()
    };
    let examples = number("CALOTYPE_EXAMPLES", examples);
    let seed = number("CALOTYPE_SEED", 1);
    println!("CALOTYPE_SEED={seed} CALOTYPE_EXAMPLES={examples}");
    let others = ["other", "another"].map(|name| admin.new_project(name, "member"));
    let of_others = |each: fn(&Client) -> &str| others.each_ref().map(each).join(" ");
    let keys = ["one", "two", "three"].map(|alias| admin.create_key(alias));
    let makes_keys = if server.is_on_engines() { "no" } else { "yes" };
    let object = server.put_object("disk.raw", Content::new(1, 5000));
    let (bucket, _) = object.split_once(':').expect("a bucket");
    let directory = tempfile::tempdir().expect("a directory");
    let answers = directory.path().join("answers");
    let hooks = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemathesis");
    let output = Command::new(program::schemathesis_python())
        .args(["-B", "-m", "schemathesis.cli", "run"])
        .arg(format!("{}/openapi.json", server.base()))
        .args(["--header", &format!("X-Auth-Token: {}", admin.token())])
        .args(["--phases", "coverage,fuzzing"])
        .args(options)
        .args(["--max-examples", &examples, "--seed", &seed])
        .args(["--generation-database", "none", "--no-shrink"])
        .args(["--continue-on-failure", "--no-color"])
        .env("SCHEMATHESIS_HOOKS", "hooks")
        .env("PYTHONPATH", hooks)
        .env("CALOTYPE_URL", server.base())
        .env("CALOTYPE_TOKEN", admin.token())
        .env("CALOTYPE_PROJECT", admin.project())
        .env("CALOTYPE_USER", admin.user())
        .env("CALOTYPE_OTHER_PROJECTS", of_others(Client::project))
        .env("CALOTYPE_OTHER_USERS", of_others(Client::user))
        .env("CALOTYPE_KEYS", keys.join(" "))
        .env("CALOTYPE_MAKES_KEYS", makes_keys)
        .env("CALOTYPE_BUCKET", bucket)
        .env("CALOTYPE_OBJECT", &object)
        .env("CALOTYPE_ANSWERS", &answers)
        .env("CALOTYPE_SEED", &seed)
        .env("HOME", directory.path())
        .env("NO_PROXY", "127.0.0.1")
        .current_dir(directory.path())
        .stdin(Stdio::null())
        .output()
        .expect("the interpreter runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{}\n{said}{complaints}",
        output.status
    );
    // Had a request taken the caller's rights away, the rest would have proved nothing.
    admin.get("/v2/info/stores/detail").expect(200);
    let failed = admin.get("/admin/v1/jobs?status=FAIL&limit=1000");
    let failed = failed.expect(200).json();
    for job in failed["jobs"].as_array().expect("jobs") {
        assert_ne!(job["error_code"], "IMG.0061", "a fault of ours: {job}");
    }
    server.verify();
    let answers = std::fs::read_to_string(answers).expect("the answers");
    Run { said, answers }
}
