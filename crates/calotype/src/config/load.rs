//! From the file and the environment to a checked [`Config`].

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::{Table, Value};

use super::sections::{Catalog, Config, Digest, Limits, Pooler, Profile};
use crate::exit::Failure;

/// The environment's variables, read once: tests give their own.
#[derive(Clone, Default)]
pub(crate) struct Environment(BTreeMap<String, String>);

impl fmt::Debug for Environment {
    /// The names alone: passwords and root keys may be among the values.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Environment {
    /// The process's own. Variables that are not UTF-8 are left out.
    pub(crate) fn of_process() -> Self {
        Self(
            std::env::vars_os()
                .filter_map(|(name, value)| {
                    Some((name.into_string().ok()?, value.into_string().ok()?))
                })
                .collect(),
        )
    }

    /// The variable's value; none where it is empty, as shells and the OpenStack tools have it.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    /// `CALOTYPE_SECTION__FIELD` variables, as paths of names.
    fn overrides(&self) -> impl Iterator<Item = (&str, Vec<String>, &str)> {
        self.0.iter().filter_map(|(name, value)| {
            let rest = name.strip_prefix("CALOTYPE_")?;
            let path: Vec<String> = rest.split("__").map(str::to_ascii_lowercase).collect();
            (path.len() > 1).then_some((name.as_str(), path, value.as_str()))
        })
    }
}

impl<const N: usize> From<[(&str, &str); N]> for Environment {
    fn from(pairs: [(&str, &str); N]) -> Self {
        Self(
            pairs
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
        )
    }
}

/// Why there is no configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConfigError {
    /// The file, or the environment's variable.
    source: String,
    /// What is wrong there; for a file with its line, column and field.
    problem: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.source, self.problem)
    }
}

impl std::error::Error for ConfigError {}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::usage(error.to_string())
    }
}

impl Config {
    /// Reads `file` (none: only defaults) and the environment.
    ///
    /// # Errors
    /// A [`ConfigError`] that names the file's line and field, or the variable.
    pub(crate) fn load(
        file: Option<&Path>,
        environment: &Environment,
    ) -> Result<Self, ConfigError> {
        let Some(path) = file else {
            return Self::from_text("", &PathBuf::from("defaults"), environment);
        };
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError {
            source: path.display().to_string(),
            problem: error.to_string(),
        })?;
        Self::from_text(&text, path, environment)
    }

    /// As [`Config::load`], of a file's `text`.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub(crate) fn from_text(
        text: &str,
        path: &Path,
        environment: &Environment,
    ) -> Result<Self, ConfigError> {
        let in_file = |problem: String| ConfigError {
            source: path.display().to_string(),
            problem,
        };
        // First by itself, so that an error has its line.
        let alone: Self = toml::from_str(text).map_err(|error| in_file(with_line(&error)))?;
        check(&alone).map_err(in_file)?;
        let mut table: Table = toml::from_str(text).map_err(|error| in_file(with_line(&error)))?;
        for (name, path, value) in environment.overrides() {
            table = set_one(&table, &path, value).map_err(|problem| ConfigError {
                source: name.to_owned(),
                problem,
            })?;
        }
        let chosen: Self = typed(&table).map_err(in_file)?;
        chosen.identity.check_whole().map_err(&in_file)?;
        chosen.keys.check_whole().map_err(&in_file)?;
        chosen.objects.check_whole().map_err(&in_file)?;
        chosen.store.check_whole(&chosen.stores).map_err(in_file)?;
        if chosen.images.profile == Profile::Calotype {
            return Ok(chosen);
        }
        let mut limits = Table::try_from(Limits::of(chosen.images.profile))
            .map_err(|error| in_file(error.to_string()))?;
        if let Some(Value::Table(given)) = table.get("limits") {
            limits.extend(given.clone());
        }
        table.insert("limits".to_owned(), Value::Table(limits));
        typed(&table).map_err(in_file)
    }
}

/// The table with one value set from the environment: as TOML where that fits the field, else as
/// plain text.
fn set_one(table: &Table, path: &[String], text: &str) -> Result<Table, String> {
    let as_toml = toml::from_str::<Table>(&format!("value = {text}"))
        .ok()
        .filter(|parsed| parsed.len() == 1)
        .and_then(|mut parsed| parsed.remove("value"));
    let mut problem = String::new();
    for value in as_toml.into_iter().chain([Value::String(text.to_owned())]) {
        let mut candidate = table.clone();
        insert(&mut candidate, path, value)?;
        match typed(&candidate).and_then(|config| check(&config)) {
            Ok(()) => return Ok(candidate),
            Err(error) if problem.is_empty() => problem = error,
            Err(_) => {}
        }
    }
    Err(problem)
}

fn insert(table: &mut Table, path: &[String], value: Value) -> Result<(), String> {
    let Some((last, sections)) = path.split_last() else {
        return Ok(());
    };
    let mut here = table;
    for section in sections {
        let next = here
            .entry(section.clone())
            .or_insert_with(|| Value::Table(Table::new()));
        let Value::Table(next) = next else {
            return Err(format!("{section} is no section"));
        };
        here = next;
    }
    here.insert(last.clone(), value);
    Ok(())
}

fn typed(table: &Table) -> Result<Config, String> {
    table
        .clone()
        .try_into::<Config>()
        .map_err(|error| error.to_string().trim().replace('\n', " "))
}

/// TOML's errors show line, column and the line itself.
fn with_line(error: &toml::de::Error) -> String {
    error.to_string().trim_end().to_owned()
}

/// Bounds that types don't hold.
fn check(config: &Config) -> Result<(), String> {
    let positive = [
        (
            "limits.images_per_project",
            u64::from(config.limits.images_per_project),
        ),
        (
            "server.max_json_body",
            config.server.max_json_body.0.bytes(),
        ),
        ("export.conversions", u64::from(config.export.conversions)),
        ("export.timeout", micros(config.export.timeout)),
        ("export.memory", config.export.memory.0.bytes()),
        ("jobs.lease", micros(config.jobs.lease)),
        ("jobs.poll_interval", micros(config.jobs.poll_interval)),
        ("jobs.kept", micros(config.jobs.kept)),
        ("audit.kept", micros(config.audit.kept)),
        (
            "server.body_idle_timeout",
            micros(config.server.body_idle_timeout),
        ),
        (
            "server.header_timeout",
            micros(config.server.header_timeout),
        ),
        ("server.keep_alive", micros(config.server.keep_alive)),
        (
            "server.min_upload_rate_after",
            micros(config.server.min_upload_rate_after),
        ),
        (
            "server.max_connections",
            u64::from(config.server.max_connections),
        ),
        ("server.max_requests", u64::from(config.server.max_requests)),
        (
            "server.concurrent_uploads",
            u64::from(config.server.concurrent_uploads),
        ),
        (
            "identity.token_lifetime",
            micros(config.identity.token_lifetime),
        ),
    ];
    if let Some((field, _)) = positive.iter().find(|(_, value)| *value == 0) {
        return Err(format!("{field} must be more than nothing"));
    }
    if config.jobs.lease.duration() < 3 * config.jobs.poll_interval.duration() {
        return Err("jobs.lease must be at least three times jobs.poll_interval".to_owned());
    }
    let every = config.scrub.every.duration();
    if !every.is_zero() && every < Duration::from_secs(1) {
        return Err("scrub.every must be at least 1s, or 0s for never".to_owned());
    }
    if let Some(url) = &config.server.public_url {
        let http = url.starts_with("http://") || url.starts_with("https://");
        if !http || url.ends_with('/') {
            return Err(format!(
                "server.public_url {url:?} must be an http or https URL without a slash at its end"
            ));
        }
    }
    check_catalog(&config.catalog)?;
    config.identity.check()?;
    config.keys.check()?;
    config.objects.check()?;
    config.store.check()?;
    let digests = &config.images.digests;
    if !digests.contains(&Digest::Md5) || digests.iter().all(|digest| *digest == Digest::Md5) {
        return Err("images.digests must have \"md5\" and a sha".to_owned());
    }
    let credential = &config.keys.root_key_credential;
    if credential.is_empty() || credential.contains('/') || credential.starts_with('.') {
        return Err(format!(
            "keys.root_key_credential {credential:?} must be a plain name"
        ));
    }
    crate::telemetry::filter(&config.log.level).map_err(|failure| failure.message)?;
    Ok(())
}

fn check_catalog(catalog: &Catalog) -> Result<(), String> {
    if catalog.connections == 0 {
        return Err("catalog.connections must be at least 1".to_owned());
    }
    for (name, span) in [
        ("acquire_timeout", catalog.acquire_timeout),
        ("statement_timeout", catalog.statement_timeout),
    ] {
        if span.duration() < Duration::from_millis(100) {
            return Err(format!("catalog.{name} must be at least 100ms"));
        }
    }
    let url = catalog.url.as_deref();
    let is_postgres = match url {
        Some(url) => check_url("catalog.url", url)?,
        None => false,
    };
    let is_direct = match &catalog.direct_url {
        Some(url) => check_url("catalog.direct_url", url)?,
        None => false,
    };
    if catalog.pooler == Pooler::Transaction && !(is_postgres && is_direct) {
        return Err(
            "catalog.pooler = \"transaction\" wants a PostgreSQL in catalog.url and in catalog.direct_url"
                .to_owned(),
        );
    }
    Ok(())
}

/// Whether a catalog's URL is a PostgreSQL's.
fn check_url(name: &str, url: &str) -> Result<bool, String> {
    let postgres = url
        .strip_prefix("postgres://")
        .or_else(|| url.strip_prefix("postgresql://"));
    let Some(rest) = postgres else {
        return if url.starts_with("sqlite:") {
            Ok(false)
        } else {
            // The URL itself could hold a password: it is not shown.
            Err(format!("{name} must start with sqlite: or postgres://"))
        };
    };
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let password = authority
        .rsplit_once('@')
        .is_some_and(|(user, _)| user.contains(':'))
        || rest.contains("password=");
    if password {
        return Err(format!(
            "{name} must not hold a password: use catalog.password_file"
        ));
    }
    Ok(true)
}

fn micros(span: super::values::Span) -> u64 {
    u64::try_from(span.duration().as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::stores::Store;
    use crate::config::{Bytes, DEFAULT_TOML};
    use calotype_core::id::StoreName;
    use calotype_core::size::ByteSize;

    fn load(text: &str, environment: &Environment) -> Result<Config, String> {
        Config::from_text(text, Path::new("calotype.toml"), environment)
            .map_err(|error| error.to_string())
    }

    fn main(config: &Config) -> &Store {
        let mut stores = config.store.iter();
        stores
            .find(|(name, _)| **name == StoreName::main())
            .unwrap()
            .1
    }

    #[test]
    fn the_default_file_is_the_defaults() {
        assert_eq!(
            load(DEFAULT_TOML, &Environment::default()).unwrap(),
            Config::default()
        );
        assert_eq!(
            load("", &Environment::default()).unwrap(),
            Config::default()
        );
    }

    #[test]
    fn every_field_is_in_the_default_file() {
        // A commented field is uncommented: what results must be every field that there is.
        let full: String = DEFAULT_TOML
            .lines()
            .map(|line| match line.strip_prefix("# ") {
                Some(rest)
                    if rest.starts_with('[')
                        || rest
                            .split_once(" = ")
                            .is_some_and(|(name, _)| !name.contains(' ')) =>
                {
                    format!("{rest}\n")
                }
                _ => format!("{line}\n"),
            })
            .collect();
        let config = load(&full, &Environment::default()).unwrap();
        let written = Table::try_from(&config).unwrap();
        let given: Table = toml::from_str(&full).unwrap();
        assert_eq!(paths(&given), paths(&written));
        for (field, present) in [
            ("server.public_url", config.server.public_url.is_some()),
            ("catalog.url", config.catalog.url.is_some()),
            (
                "catalog.password_file",
                config.catalog.password_file.is_some(),
            ),
            ("catalog.direct_url", config.catalog.direct_url.is_some()),
            ("store.main.path", main(&config).path.is_some()),
            ("stores.default", config.stores.default.is_some()),
            ("keys.root_key_file", config.keys.root_key_file.is_some()),
            (
                "limits.bytes_per_project",
                config.limits.bytes_per_project.is_some(),
            ),
            (
                "limits.max_image_size",
                config.limits.max_image_size.is_some(),
            ),
            (
                "limits.max_replica_size",
                config.limits.max_replica_size.is_some(),
            ),
            (
                "limits.max_import_size",
                config.limits.max_import_size.is_some(),
            ),
            (
                "limits.max_export_size",
                config.limits.max_export_size.is_some(),
            ),
            (
                "limits.max_quick_export_size",
                config.limits.max_quick_export_size.is_some(),
            ),
            ("export.folder", config.export.folder.is_some()),
        ] {
            assert!(present, "{field}");
        }
    }

    /// The paths of every field, in order.
    fn paths(table: &Table) -> std::collections::BTreeSet<String> {
        let below = |(name, value): (&String, &Value)| match value {
            Value::Table(table) => paths(table)
                .iter()
                .map(|path| format!("{name}.{path}"))
                .collect(),
            _ => vec![name.clone()],
        };
        table.iter().flat_map(below).collect()
    }

    #[test]
    fn key_services_are_whole_and_within_their_bounds() {
        let login = "auth_url = \"http://k/v3\"\nuser = \"svc\"\npassword_file = \"/p\"\n";
        let key = "id = \"AK\"\nsecret_file = \"/s\"\nproject_id = \"p\"\n";
        for text in [
            format!("[keys.barbican.login]\n{login}"),
            format!("[keys]\ncustomers = \"barbican\"\n[keys.barbican.login]\n{login}"),
            format!("[keys]\ncustomers = \"otc\"\n[keys.kms.login]\n{login}"),
            format!(
                "[keys.kms]\ncredential = \"access_key\"\nendpoint = \"https://kms\"\n[keys.kms.access_key]\n{key}"
            ),
        ] {
            assert!(load(&text, &Environment::default()).is_ok(), "{text}");
        }
        for (text, named) in [
            (
                "[keys]\ncustomers = \"barbican\"\n".to_owned(),
                "[keys.barbican]",
            ),
            ("[keys]\ncustomers = \"otc\"\n".to_owned(), "[keys.kms]"),
            ("[keys.kms]\n".to_owned(), "keys.kms.login.auth_url"),
            (
                format!("[keys.kms]\ncredential = \"access_key\"\n[keys.kms.access_key]\n{key}"),
                "keys.kms.endpoint",
            ),
            (
                format!("[keys.barbican]\ncache_life = \"6m\"\n[keys.barbican.login]\n{login}"),
                "cache_life",
            ),
            (
                format!(
                    "[keys.barbican.login]\n{login}[keys.barbican.connection]\ntime_limit = \"0s\"\n"
                ),
                "time_limit",
            ),
            (
                format!("[keys.barbican.login]\npassword = \"geheim\"\n{login}"),
                "password",
            ),
        ] {
            let error = load(&text, &Environment::default()).unwrap_err();
            assert!(error.contains(named), "{text}: {error}");
        }
    }

    #[test]
    fn a_key_service_can_be_set_from_the_environment_alone() {
        let environment = Environment::from([
            ("CALOTYPE_KEYS__CUSTOMERS", "barbican"),
            ("CALOTYPE_KEYS__BARBICAN__LOGIN__AUTH_URL", "http://k/v3"),
            ("CALOTYPE_KEYS__BARBICAN__LOGIN__USER", "svc"),
            ("CALOTYPE_KEYS__BARBICAN__LOGIN__PASSWORD_FILE", "/p"),
            ("CALOTYPE_KEYS__BARBICAN__AUTHORIZE", "service"),
        ]);
        let config = load("", &environment).unwrap();
        assert!(config.keys.barbican.is_some());
    }

    #[test]
    fn a_keystone_is_whole_and_within_its_bounds() {
        let login = "auth_url = \"http://k/v3\"\nuser = \"svc\"\npassword_file = \"/p\"\n";
        let of = |fields: &str| {
            format!("[identity]\ntype = \"keystone\"\n[identity.keystone]\n{fields}")
        };
        assert!(load(&of(login), &Environment::default()).is_ok());
        for (text, named) in [
            (
                "[identity]\ntype = \"keystone\"\n".to_owned(),
                "[identity.keystone]",
            ),
            (of("auth_url = \"http://k\"\n"), "identity.keystone.user"),
            (of(&format!("{login}cache_size = 0\n")), "cache_size"),
            (of(&format!("{login}cache_life = \"6m\"\n")), "cache_life"),
            (of(&format!("{login}password = \"geheim\"\n")), "password"),
        ] {
            let error = load(&text, &Environment::default()).unwrap_err();
            assert!(error.contains(named), "{text}: {error}");
        }
    }

    #[test]
    fn an_unknown_field_is_refused_with_its_line() {
        let error = load(
            "[server]\nlisten = \"[::1]:1\"\nlissten = 1\n",
            &Environment::default(),
        )
        .unwrap_err();
        insta::assert_snapshot!(error);
    }

    #[test]
    fn a_wrong_type_is_refused_with_its_line() {
        let error = load("[jobs]\nlease = 30\n", &Environment::default()).unwrap_err();
        insta::assert_snapshot!(error);
    }

    #[test]
    fn the_environment_overrides_the_file_whatever_the_type() {
        let config = load(
            "[server]\nlisten = \"127.0.0.1:1\"\n[jobs]\nworkers = 2\n",
            &Environment::from([
                ("CALOTYPE_SERVER__LISTEN", "0.0.0.0:80"),
                ("CALOTYPE_JOBS__WORKERS", "9"),
                ("CALOTYPE_REPLICATION__ALLOW_PUBLIC", "true"),
                ("CALOTYPE_IMAGES__DIGESTS", "[\"md5\", \"sha256\"]"),
                ("CALOTYPE_STORE__MAIN__PATH", "123"),
                ("CALOTYPE_LIMITS__MAX_IMAGE_SIZE", "2 GiB"),
                ("CALOTYPE_CONFIG", "not-a-field"),
                ("UNRELATED__THING", "x"),
            ]),
        )
        .unwrap();
        assert_eq!(config.server.listen.to_string(), "0.0.0.0:80");
        assert_eq!(config.jobs.workers, 9);
        assert!(config.replication.allow_public);
        assert_eq!(config.images.digests, [Digest::Md5, Digest::Sha256]);
        assert_eq!(main(&config).path, Some(PathBuf::from("123")));
        assert_eq!(config.limits.max_image_size, Some(Bytes(ByteSize::gib(2))));
    }

    #[test]
    fn a_wrong_override_names_its_variable() {
        let error = load("", &Environment::from([("CALOTYPE_JOBS__WORKERS", "many")])).unwrap_err();
        assert!(error.starts_with("CALOTYPE_JOBS__WORKERS: "), "{error}");
        let error = load("", &Environment::from([("CALOTYPE_JOBS__WROKERS", "1")])).unwrap_err();
        assert!(error.contains("wrokers"), "{error}");
    }

    #[test]
    fn the_otc_profile_sets_limits_that_the_file_may_set_again() {
        let text = "[images]\nprofile = \"otc\"\n[limits]\nimages_per_project = 70\n";
        let config = load(text, &Environment::default()).unwrap();
        assert_eq!(config.limits.images_per_project, 70);
        assert_eq!(
            config.limits.max_replica_size,
            Some(Bytes(ByteSize::gib(128)))
        );
        let config = load(
            "",
            &Environment::from([("CALOTYPE_IMAGES__PROFILE", "otc")]),
        )
        .unwrap();
        assert_eq!(config.limits, Limits::of(Profile::Otc));
    }

    #[test]
    fn a_password_in_the_catalog_url_is_refused_and_not_shown() {
        for url in [
            "postgres://me:geheim@db/x",
            "postgres://db/x?password=geheim",
        ] {
            let error = load(
                &format!("[catalog]\nurl = {url:?}\n"),
                &Environment::default(),
            )
            .unwrap_err();
            assert!(
                error.contains("password_file") && !error.contains("geheim"),
                "{error}"
            );
        }
        assert!(
            load(
                "[catalog]\nurl = \"postgres://me@db/x\"\n",
                &Environment::default()
            )
            .is_ok()
        );
    }

    #[test]
    fn values_out_of_bounds_are_refused() {
        for text in [
            "[limits]\nimages_per_project = 0\n",
            "[jobs]\nlease = \"2s\"\n",
            "[jobs]\nkept = \"0s\"\n",
            "[audit]\nkept = \"0s\"\n",
            "[scrub]\nevery = \"10ms\"\n",
            "[server]\npublic_url = \"https://x.example/\"\n",
            "[server]\npublic_url = \"x.example\"\n",
            "[images]\ndigests = [\"md5\"]\n",
            "[images]\ndigests = [\"sha512\"]\n",
            "[log]\nlevel = \"calotype=loud\"\n",
            "[catalog]\nurl = \"mysql://x\"\n",
            "[keys]\nroot_key_credential = \"../x\"\n",
        ] {
            assert!(load(text, &Environment::default()).is_err(), "{text}");
        }
    }

    #[test]
    fn a_pooler_wants_a_way_past_it() {
        let refused = |text: &str| load(text, &Environment::default()).unwrap_err();
        let pooled = "[catalog]\npooler = \"transaction\"\nurl = \"postgres://me@pool/x\"\n";
        assert!(refused(pooled).contains("catalog.direct_url"));
        let sqlite = format!("{pooled}direct_url = \"sqlite:x\"\n");
        assert!(refused(&sqlite).contains("wants a PostgreSQL"));
        let secret = format!("{pooled}direct_url = \"postgres://me:s3cret@db/x\"\n");
        let error = refused(&secret);
        assert!(error.contains("catalog.direct_url must not hold a password"));
        assert!(!error.contains("s3cret"), "{error}");
        let whole = format!("{pooled}direct_url = \"postgres://me@db/x\"\n");
        load(&whole, &Environment::default()).unwrap();
        for field in [
            "connections = 0",
            "acquire_timeout = \"0s\"",
            "statement_timeout = \"1ms\"",
        ] {
            assert!(refused(&format!("[catalog]\n{field}\n")).contains("at least"));
        }
    }
}
