//! What stands in a process's memory, searched for from outside. `tests/memory/search.py` works out every key that there
//! is from what is stored, and looks for it.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::client::text;
use crate::{database, program};

/// What a search found.
pub struct Search {
    /// The digits of every key, by its name.
    pub keys: BTreeMap<String, String>,
    /// Each place where a key was found.
    pub found: Vec<Found>,
    /// Whether this process may not read that one's memory.
    pub refused: bool,
}

/// A place where a key was found.
#[derive(Debug)]
pub struct Found {
    /// The key's name.
    pub name: String,
    /// `bytes` or `digits`.
    pub form: String,
    /// The mapped region.
    pub region: String,
    /// The region's flags, as `/proc/PID/smaps` has them.
    pub flags: Vec<String>,
}

impl Found {
    /// Whether the memory is locked, and left out of dumps.
    pub fn is_guarded(&self) -> bool {
        ["dd", "lo"]
            .iter()
            .all(|wanted| self.flags.iter().any(|flag| flag == wanted))
    }
}

/// Where the keys are stored.
pub struct Stored<'a> {
    /// The file of root keys.
    pub root_key: &'a Path,
    /// The catalog's PostgreSQL.
    pub database: &'a str,
    /// The directory of blobs.
    pub blobs: &'a Path,
}

/// Searches a process's memory for keys of these digits, and for what is derived from them as from root keys.
pub fn search_for(pid: u32, keys: &[String]) -> Search {
    searched(&json!({"pid": pid, "root_keys": keys, "versions": [], "blobs": "/nowhere"}))
}

/// Searches a process's memory for every key that is stored.
pub fn search(pid: u32, stored: &Stored<'_>) -> Search {
    let root_keys = std::fs::read_to_string(stored.root_key).expect("the root keys");
    let digits = |line: &str| line.rsplit(':').next().unwrap_or_default().to_owned();
    let root_keys: Vec<String> = root_keys.lines().map(digits).collect();
    let versions = database::sql(
        stored.database,
        "select key_id, version, encode(wrapped, 'hex') from master_key_versions",
    );
    let version = |line: &str| {
        let mut fields = line.split('|');
        let mut next = || fields.next().expect("a field").to_owned();
        let (key, version, wrapped) = (next(), next(), next());
        json!([key, version.parse::<u32>().expect("a number"), wrapped])
    };
    let versions: Vec<Value> = versions.lines().map(version).collect();
    searched(
        &json!({"pid": pid, "root_keys": root_keys, "versions": versions,
        "blobs": stored.blobs}),
    )
}

fn searched(given: &Value) -> Search {
    let answer = ask(given);
    let found = answer["found"].as_array().expect("what was found").iter();
    let keys = answer["keys"].as_object().expect("the keys").iter();
    Search {
        keys: keys
            .map(|(name, digits)| (name.clone(), text(digits)))
            .collect(),
        found: found
            .map(|found| Found {
                name: text(&found[0]),
                form: text(&found[1]),
                region: text(&found[2]),
                flags: found[3]
                    .as_array()
                    .expect("flags")
                    .iter()
                    .map(text)
                    .collect(),
            })
            .collect(),
        refused: answer["refused"] == true,
    }
}

fn ask(given: &Value) -> Value {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("memory/search.py");
    let mut process = Command::new(program::python())
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the interpreter starts");
    let mut input = process.stdin.take().expect("its input");
    input
        .write_all(given.to_string().as_bytes())
        .expect("it reads");
    drop(input);
    let output = process.wait_with_output().expect("it ends");
    assert!(
        output.status.success(),
        "the search failed: {}",
        output.status
    );
    serde_json::from_slice(&output.stdout).expect("a document")
}
