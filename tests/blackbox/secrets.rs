//! Where keys are while they are used: in the memory that is locked and left out of dumps, and nowhere else.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;

use calotype_tests::client::{begin_record, recorded};
use calotype_tests::memory::{self, Search, Stored};
use calotype_tests::{Client, Options, Server, Worker, config, database, until};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;

#[test]
fn keys_are_in_the_vaults_memory_alone_and_in_no_log_answer_metric_or_file() {
    let store = tempfile::tempdir().expect("a directory");
    let (blobs, root_key) = (store.path().join("blobs"), store.path().join("root.key"));
    let url = database::fresh("secrets");
    let text = config::shared(&url, store.path()) + &config::log("trace");
    begin_record();
    let server = Server::start(Options::config(text.clone() + &config::jobs(0, 30)));
    let worker = Worker::start(&text);
    let client = server.user();
    let keys = ["first", "second"].map(|alias| client.create_key(alias));
    let source = client.image("source", 1, 3_000_000);
    let first = client.replicate_with(&source, json!({"name": "r", "cmk_id": keys[0]}));
    let second = client.replicate_with(&first, json!({"name": "r", "cmk_id": keys[1]}));
    client.key_call("rotate-on-demand", &keys[0]);
    let newer = client.replicate_with(&source, json!({"name": "r", "cmk_id": keys[0]}));
    for image in [&source, &first, &second, &newer] {
        client.download(image);
    }
    let stored = Stored {
        root_key: &root_key,
        database: &url,
        blobs: &blobs,
    };
    let password = server.clouds().get("password");
    // What works has keys at hand for as long as it works.
    until("both to be idle", || {
        let idle = |log: String| log.matches("job ended").count() >= 3;
        idle(worker.log()).then_some(())
    });
    for (process, pid) in [("server", server.pid()), ("worker", worker.pid())] {
        let search = memory::search(pid, &stored);
        // Root key, three versions of two customers' keys, the service's two, and four data keys with what comes of them.
        assert!(
            search.keys.len() >= 2 + 3 + 2 + 4 * 3,
            "{:?}",
            search.keys.keys()
        );
        in_the_vault_alone(process, &search);
    }

    let search = memory::search(server.pid(), &stored);
    let mut places: Vec<(String, Vec<u8>)> = vec![
        ("the server's log".to_owned(), server.log().into_bytes()),
        ("the worker's log".to_owned(), worker.log().into_bytes()),
        (
            "the metrics".to_owned(),
            Client::anonymous(server.base()).get("/metrics").bytes,
        ),
    ];
    for answer in recorded() {
        let mut bytes = format!("{:?}\n", answer.headers).into_bytes();
        bytes.extend_from_slice(&answer.bytes);
        places.push((answer.asked, bytes));
    }
    for directory in [&blobs, &server.data()] {
        files(directory, &mut places);
    }
    assert!(places[0].1.len() > 10_000 && places[1].1.len() > 10_000);
    // As texts of a character for each byte: they are searched faster.
    let text = |bytes: &[u8]| bytes.iter().copied().map(char::from).collect::<String>();
    let places: Vec<(String, String)> = places
        .into_iter()
        .map(|(place, bytes)| (place, text(&bytes)))
        .collect();
    for (name, digits) in &search.keys {
        let bytes: Vec<u8> = (0..digits.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).expect("digits"))
            .collect();
        let forms = [text(&bytes), digits.clone(), digits.to_uppercase()];
        for (place, text) in &places {
            for form in &forms {
                assert!(!text.contains(form), "{name} is in {place}");
            }
        }
    }
    for (place, text) in &places {
        let wanted = place.ends_with("clouds.yaml");
        assert_eq!(text.contains(&password), wanted, "{place}");
    }
}

/// Each key that is at hand is in memory that is locked and left out of dumps, and nowhere else.
fn in_the_vault_alone(process: &str, search: &Search) {
    if search.refused {
        // Whoever is not root may not even look.
        assert!(!rustix::process::geteuid().is_root());
        return;
    }
    let guarded = |found: &&memory::Found| found.form == "bytes" && found.is_guarded();
    let elsewhere: Vec<_> = search
        .found
        .iter()
        .filter(|found| !guarded(found))
        .collect();
    assert!(elsewhere.is_empty(), "the {process}: {elsewhere:#?}");
    for wanted in ["root key 0", "master key service 1", "master key secrets 1"] {
        let kept = search.found.iter().any(|found| found.name == wanted);
        assert!(kept, "the {process} has no {wanted}: {:#?}", search.found);
    }
    let data_key = |found: &memory::Found| found.name.starts_with("data key");
    assert!(search.found.iter().any(data_key), "{:#?}", search.found);
}

/// The files under a directory, but for the one whose purpose is to hold keys.
fn files(directory: &Path, places: &mut Vec<(String, Vec<u8>)>) {
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files(&path, places);
        } else if path.file_name().is_some_and(|name| name != "root.key") {
            let bytes = std::fs::read(&path).expect("a file");
            places.push((path.display().to_string(), bytes));
        }
    }
}

#[test]
fn a_process_that_is_broken_off_leaves_no_core_behind() {
    // What it inherits would let it.
    let limit = getrlimit(Resource::Core);
    let most = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Core, most).expect("the own limit");
    let core_limit = |pid: &str| {
        let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).expect("limits");
        let line = limits
            .lines()
            .find(|line| line.starts_with("Max core file size"));
        let words: Vec<String> = line
            .expect("a line")
            .split_whitespace()
            .skip(4)
            .map(str::to_owned)
            .collect();
        words
    };
    assert_ne!(core_limit("self")[0], "0");
    let mut server = Server::embedded();
    assert_eq!(core_limit(&server.pid().to_string())[..2], ["0", "0"]);
    let ended = server.abort();
    assert_eq!(ended.signal(), Some(6));
    assert!(!ended.core_dumped());
    let left = std::fs::read_dir(server.home()).expect("a directory");
    for entry in left {
        let name = entry.expect("an entry").file_name();
        assert!(!name.to_string_lossy().starts_with("core"), "{name:?}");
    }
}
