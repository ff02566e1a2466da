//! `calotype doctor`: whether a service can run with this configuration here, and what to mend where it can't.
//!
//! It changes nothing: no schema is migrated and no key made. A check is a function in [`CHECKS`]; what is wrong to one
//! of them does not keep the others from looking.

mod bucket;
mod elsewhere;

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use calotype_catalog::{Examined, OLDEST_POSTGRES, examine};
use calotype_core::id::StoreName;
use calotype_core::ports::{Clock, Entropy};
use calotype_core::time::Timestamp;
use calotype_keys::SystemEntropy;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};

use super::identity::open_keystone;
use super::{ServeOptions, parts};
use crate::cli::DoctorArgs;
use crate::config::identity::IdentityType;
use crate::config::stores::{Store, StoreType};
use crate::config::{Config, Environment};
use crate::exit::Failure;
use crate::output::{Output, Rows};
use crate::system::{SystemClock, fresh_name, keep_memory_private};

/// How far apart two clocks may be before it is worth saying.
const CLOCK_SLACK: Duration = Duration::from_secs(2);

/// What to do about clocks that a store judges by.
const MEND_CLOCKS: &str = "synchronise the store's machines and the database's (on SQLite this one): a store takes no request \
     that is signed with another time than its own: docs/object-storage.md";

/// How long a login may take.
const LOGIN: Duration = Duration::from_secs(15);

/// How a thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Good,
    /// The service runs, and something is not as it should be.
    Warning,
    /// The service does not run, or loses something.
    Bad,
}

impl State {
    const fn word(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Warning => "warning",
            Self::Bad => "failed",
        }
    }
}

/// What a check has found.
struct Finding {
    state: State,
    says: String,
    /// What to do about it.
    mend: Option<&'static str>,
}

impl Finding {
    fn good(says: impl Into<String>) -> Self {
        Self {
            state: State::Good,
            says: says.into(),
            mend: None,
        }
    }

    fn warning(says: impl Into<String>, mend: &'static str) -> Self {
        Self {
            state: State::Warning,
            says: says.into(),
            mend: Some(mend),
        }
    }

    fn bad(says: impl Into<String>, mend: &'static str) -> Self {
        Self {
            state: State::Bad,
            says: says.into(),
            mend: Some(mend),
        }
    }
}

/// What is looked at.
struct Place {
    options: ServeOptions,
    /// None: there is no catalog yet.
    catalog: Result<Option<Examined>, Failure>,
}

impl Place {
    async fn new(options: ServeOptions) -> Self {
        let look = async {
            let url = parts::catalog_url(&options.config, &options.data_dir)?;
            let catalog_options = parts::catalog_options(&options.config)?;
            let found = examine(&url, &catalog_options, Arc::new(SystemClock)).await;
            found.map_err(parts::failed("the catalog"))
        };
        Self {
            catalog: look.await,
            options,
        }
    }

    /// The clock that the service would have: the database's, where there is one.
    fn clock(&self) -> Arc<dyn Clock> {
        match &self.catalog {
            Ok(Some(examined)) => Arc::new(Elsewhere {
                here: examined.asked,
                there: examined.time,
            }),
            _ => Arc::new(SystemClock),
        }
    }
}

/// A clock that has told `there` when this machine's told `here`.
struct Elsewhere {
    here: Timestamp,
    there: Timestamp,
}

impl Clock for Elsewhere {
    fn now(&self) -> Timestamp {
        self.there.plus(SystemClock.now().since(self.here))
    }
}

/// What is random in what other services are asked.
fn entropy() -> Arc<dyn Entropy> {
    Arc::new(SystemEntropy::new())
}

/// Something to look at.
struct Check {
    name: &'static str,
    run: for<'a> fn(&'a Place) -> BoxFuture<'a, Vec<Finding>>,
}

/// All that is looked at, in the order of a start.
const CHECKS: &[Check] = &[
    Check {
        name: "data directory",
        run: |place| async { vec![data_directory(&place.options.data_dir)] }.boxed(),
    },
    Check {
        name: "secrets",
        run: |place| async { secrets(&place.options.config) }.boxed(),
    },
    Check {
        name: "root keys",
        run: |place| async { vec![root_keys(&place.options)] }.boxed(),
    },
    Check {
        name: "catalog",
        run: |place| async { catalog(&place.catalog) }.boxed(),
    },
    Check {
        name: "store",
        run: |place| stores(place).boxed(),
    },
    Check {
        name: "objects",
        run: |place| elsewhere::buckets(place).boxed(),
    },
    Check {
        name: "kms",
        run: |place| elsewhere::customers_kms(place).boxed(),
    },
    Check {
        name: "barbican",
        run: |place| elsewhere::barbicans_keys(place).boxed(),
    },
    Check {
        name: "identity",
        run: |place| async { vec![identity(&place.options.config).await] }.boxed(),
    },
    Check {
        name: "exports",
        run: |place| async { vec![exports(&place.options).await] }.boxed(),
    },
];

/// What to do about a store's refusal.
fn mend_of(says: &str, otherwise: &'static str) -> &'static str {
    match says.contains("RequestTimeTooSkewed") {
        true => MEND_CLOCKS,
        false => otherwise,
    }
}

/// Looks at everything, and says what it found.
///
/// # Errors
/// Usage where the configuration is refused; a failure where the service would not run, or would lose something.
pub(crate) async fn run(
    args: &DoctorArgs,
    environment: &Environment,
    output: &Output,
) -> Result<(), Failure> {
    let config = Config::load(args.config.as_deref(), environment)?;
    let options = ServeOptions::new(args.data_dir.clone(), config, environment)?;
    keep_memory_private();
    let place = Place::new(options).await;
    let mut found = Vec::new();
    for check in CHECKS {
        for finding in (check.run)(&place).await {
            found.push((check.name, finding));
        }
    }
    output.result(&document_of(&found), |_| rows_of(&found))?;
    let bad = found
        .iter()
        .filter(|(_, finding)| finding.state == State::Bad);
    match bad.count() {
        0 => Ok(()),
        1 => Err(Failure::new("one check failed")),
        bad => Err(Failure::new(format!("{bad} checks failed"))),
    }
}

fn document_of(found: &[(&str, Finding)]) -> Value {
    let checks = found.iter().map(|(check, finding)| {
        json!({
            "check": check,
            "state": finding.state.word(),
            "says": finding.says,
            "mend": finding.mend,
        })
    });
    let well = found.iter().all(|(_, finding)| finding.state != State::Bad);
    json!({"ok": well, "checks": checks.collect::<Vec<_>>()})
}

fn rows_of(found: &[(&str, Finding)]) -> Rows {
    let mut rows = Rows::new(&["CHECK", "STATE", "SAYS", "MEND"]);
    for (check, finding) in found {
        rows.push([
            *check,
            finding.state.word(),
            &finding.says,
            finding.mend.unwrap_or_default(),
        ]);
    }
    rows
}

fn data_directory(path: &Path) -> Finding {
    let shown = path.display();
    let Ok(facts) = std::fs::metadata(path) else {
        return Finding::good(format!(
            "{shown} is not there yet: the first start makes it"
        ));
    };
    if !facts.is_dir() {
        return Finding::bad(
            format!("{shown} is no directory"),
            "name another --data-dir",
        );
    }
    let mode = facts.permissions().mode() & 0o777;
    let user = rustix::process::geteuid().as_raw();
    if facts.uid() != user && user != 0 {
        return Finding::bad(
            format!(
                "{shown} belongs to user {}, and this is user {user}",
                facts.uid()
            ),
            "run as the service's user, or give it the directory (chown)",
        );
    }
    if mode & 0o077 != 0 {
        return Finding::warning(
            format!("{shown} can be entered by others (mode {mode:o})"),
            "chmod 700",
        );
    }
    Finding::good(format!("{shown}, mode {mode:o}"))
}

/// The files that hold secrets, as the configuration names them.
fn secrets(config: &Config) -> Vec<Finding> {
    let written = serde_json::to_value(config).unwrap_or_default();
    let mut files = Vec::new();
    files_of(&written, "", &mut files);
    files
        .iter()
        .filter_map(|(field, path)| secret(field, path))
        .collect()
}

/// Fields that end in `_file` name files with secrets, but for certificates.
fn files_of(value: &Value, at: &str, files: &mut Vec<(String, PathBuf)>) {
    for (name, value) in value.as_object().into_iter().flatten() {
        let field = match at {
            "" => name.clone(),
            at => format!("{at}.{name}"),
        };
        match value.as_str() {
            Some(path)
                if name.ends_with("_file") && name != "ca_file" && name != "root_key_file" =>
            {
                files.push((field, PathBuf::from(path)));
            }
            _ => files_of(value, &field, files),
        }
    }
}

fn secret(field: &str, path: &Path) -> Option<Finding> {
    let shown = path.display();
    let facts = match std::fs::File::open(path).and_then(|file| file.metadata()) {
        Ok(facts) => facts,
        Err(error) => {
            return Some(Finding::bad(
                format!("{field}: {shown} can't be read: {error}"),
                "write the secret into the file, and give it to the service's user",
            ));
        }
    };
    let mode = facts.permissions().mode() & 0o777;
    if mode & 0o077 == 0 {
        return Some(Finding::good(format!("{field}: {shown}, mode {mode:o}")));
    }
    Some(Finding::warning(
        format!("{field}: others may read {shown} (mode {mode:o})"),
        "chmod 600",
    ))
}

fn root_keys(options: &ServeOptions) -> Finding {
    let source = &options.root_keys;
    match source.check() {
        Ok(true) => Finding::good(source.to_string()),
        Ok(false) => Finding::good(format!(
            "{source} is not there yet: the first start makes it"
        )),
        Err(error) => Finding::bad(
            error.chain().to_string(),
            "restore the root keys from their backup: docs/keys.md",
        ),
    }
}

fn catalog(examined: &Result<Option<Examined>, Failure>) -> Vec<Finding> {
    match examined {
        Ok(None) => vec![Finding::good("there is none yet: the first start makes it")],
        Ok(Some(examined)) => catalog_findings(examined),
        Err(failure) => vec![Finding::bad(
            failure.to_string(),
            "mend [catalog] in the configuration, or the database: docs/postgresql.md",
        )],
    }
}

fn catalog_findings(examined: &Examined) -> Vec<Finding> {
    let Examined {
        engine,
        schema,
        known,
        ..
    } = examined;
    let mut findings = Vec::new();
    findings.push(if let Some(away) = &examined.away {
        Finding::bad(
            away.as_str(),
            "run `calotype migrate-catalog`, or name the database that it is in",
        )
    } else if !examined.usable {
        Finding::bad(
            format!("{engine}, schema {schema}, of which this program knows {known} at most"),
            "run the newer version that has been here",
        )
    } else if schema < known {
        Finding::good(format!(
            "{engine}, schema {schema}: the next start brings it to {known}"
        ))
    } else {
        Finding::good(format!("{engine}, schema {schema}"))
    });
    if examined.outdated {
        findings.push(Finding::bad(
            format!("{engine} is older than {OLDEST_POSTGRES}"),
            "upgrade PostgreSQL: docs/postgresql.md",
        ));
    }
    findings.extend(examined.faults.iter().map(|fault| {
        Finding::bad(
            fault.as_str(),
            "change the database's settings: docs/postgresql.md",
        )
    }));
    let (here, there) = (examined.asked, examined.time);
    let off = here.since(there).max(there.since(here));
    findings.push(if off > CLOCK_SLACK {
        Finding::warning(
            format!(
                "this machine's clock is {} s off the database's",
                off.as_secs()
            ),
            "synchronise it: the service has the database's time, and its log lines this machine's",
        )
    } else {
        Finding::good("the clock is the database's")
    });
    findings
}

async fn stores(place: &Place) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (name, section) in place.options.config.store.iter() {
        let found = match section.kind {
            StoreType::File => vec![directory(place, name, section)],
            StoreType::S3 => bucket::bucket(name, section, &place.clock()).await,
        };
        for mut found in found {
            if *name != StoreName::main() {
                found.says = format!("{name}: {}", found.says);
            }
            findings.push(found);
        }
    }
    findings
}

/// Whether blobs can be written where they are kept.
fn directory(place: &Place, name: &StoreName, section: &Store) -> Finding {
    let path = section.directory(name, &place.options.data_dir);
    let shown = path.display();
    if !path.exists() {
        return Finding::good(format!(
            "{shown} is not there yet: the first start makes it"
        ));
    }
    let probe = path.join(format!("doctor-{}", fresh_name()));
    let written = std::fs::write(&probe, b"calotype doctor")
        .and_then(|()| std::fs::File::open(&probe)?.sync_all());
    let removed = std::fs::remove_file(&probe);
    match written.and(removed) {
        Ok(()) => Finding::good(format!("{shown} can be written")),
        Err(error) => Finding::bad(
            format!("{shown} can't be written: {error}"),
            "give the directory to the service's user, or make room",
        ),
    }
}

/// Whether the service can log in where its users are.
async fn identity(config: &Config) -> Finding {
    if config.identity.kind == IdentityType::Embedded {
        return Finding::good("users are in the catalog");
    }
    let (clock, entropy): (Arc<dyn Clock>, _) = (Arc::new(SystemClock), entropy());
    let standing = async {
        let keystone = open_keystone(config, (&clock, &entropy))?;
        let standing = keystone.standing_within(LOGIN).await;
        standing.map_err(parts::failed("Keystone does not know the service"))?;
        Ok::<_, Failure>(keystone.public_url().to_owned())
    };
    match standing.await {
        Ok(url) => Finding::good(format!("the service is known to the Keystone at {url}")),
        Err(failure) => Finding::bad(
            failure.to_string(),
            "mend [identity.keystone], or the service's user: docs/keystone.md",
        ),
    }
}

async fn exports(options: &ServeOptions) -> Finding {
    let version = async {
        // Not the service's own folder: opening that removes what a process has left in it, or is writing.
        let folder = tempfile::tempdir()?;
        let mut config = options.config.clone();
        config.export.folder = Some(folder.path().to_owned());
        let converter = parts::converter(&config, &options.data_dir)?;
        converter.version().await.map_err(parts::failed("qemu-img"))
    };
    match version.await {
        Ok(version) => Finding::good(format!("qemu-img {version}")),
        Err(failure) => Finding::warning(
            failure.to_string(),
            "install qemu-utils, or export images only in the format that they are stored in",
        ),
    }
}
