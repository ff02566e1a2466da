//! What stands around a server's processes where it is deployed as production has it: a database of its own on PostgreSQL,
//! a bucket of its own on Ceph, users of its own at Keystone, customers' keys in Barbican, workers beside the nodes, and
//! HAProxy before them.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::balancer::Balancer;
use crate::ceph::Ceph;
use crate::database;
use crate::engines::fresh_name;
use crate::keys::Barbican;
use crate::keystone::{Keystone, Use};
use crate::local::free_port;
use crate::openstack::User;
use crate::server::Options;
use crate::wire::Wire;

/// How many nodes serve requests.
pub(crate) const NODES: usize = 3;
/// How many workers do jobs.
pub(crate) const WORKERS: usize = 2;

/// Where a server's parts are.
#[derive(Debug, Clone, Default)]
pub enum Place {
    /// On engines where `CALOTYPE_TEST_DEPLOYMENT` says so, and else embedded. A test whose own configuration says where
    /// catalog, blobs, keys or users are has it as it says.
    #[default]
    OfTheRun,
    /// In the one process and its data directory, whatever the run says: for tests that are about that.
    Embedded,
    /// On engines, whatever the run says.
    Engines(Engines),
}

/// Where the engines are reached.
#[derive(Debug, Clone, Default)]
pub struct Engines {
    /// An empty database's URL; none: one of its own on the run's PostgreSQL.
    pub database: Option<String>,
    /// The gateway's URL; none: where the run's is.
    pub store: Option<String>,
    /// Keystone's, likewise.
    pub keystone: Option<String>,
    /// Barbican's, likewise.
    pub barbican: Option<String>,
    /// The program that all processes begin with; none: the one that is tested.
    pub program: Option<PathBuf>,
    /// Variables for all processes, beside those that say where the engines are.
    pub environment: Vec<(String, String)>,
    /// Whether there is a wire between each two parts that speak with each other: [`crate::Server::ways`].
    pub wired: bool,
}

/// A wire between two parts of a deployment.
pub struct Way {
    /// Who asks: `balancer`, `node-1`, `worker-2`.
    pub from: String,
    /// Who is asked: a node, or `PostgreSQL`, `Ceph`, `Keystone`, `Barbican`.
    pub to: String,
    /// What is between them.
    pub wire: Wire,
}

/// What stands around a server's processes.
pub(crate) struct Deployment {
    keystone: Keystone,
    barbican: Option<Barbican>,
    balancer: Balancer,
    addresses: Vec<String>,
    environment: Vec<(String, String)>,
    program: Option<PathBuf>,
    database: String,
    bucket: String,
    ceph: Ceph,
    objects: Option<Ceph>,
    ways: Vec<Way>,
    secrets: TempDir,
}

/// The engines that a server is to be on, if it is.
pub(crate) fn engines(options: &Options) -> Option<Engines> {
    match &options.place {
        Place::Embedded => None,
        Place::Engines(engines) => Some(engines.clone()),
        Place::OfTheRun if says_where(options) => None,
        Place::OfTheRun => {
            let deployment = std::env::var("CALOTYPE_TEST_DEPLOYMENT").ok()?;
            match deployment.as_str() {
                "engines" => Some(Engines::default()),
                "embedded" => None,
                other => panic!("CALOTYPE_TEST_DEPLOYMENT is {other:?}"),
            }
        }
    }
}

/// Whether a test's own configuration says where a part of the server is.
fn says_where(options: &Options) -> bool {
    let text = options.config.as_deref().unwrap_or_default();
    let sections = ["[catalog]", "[store.", "[keys", "[identity.keystone"];
    let named = sections.iter().any(|section| text.contains(section));
    let mut variables = options.environment.iter();
    let set = variables.any(|(name, _)| {
        let parts = ["CATALOG__", "STORE__", "KEYS__", "IDENTITY__", "ROOT_KEY"];
        let part = name.strip_prefix("CALOTYPE_").unwrap_or_default();
        parts.iter().any(|own| part.starts_with(own))
    });
    named || set || options.data.is_some() || options.keystone.is_some()
}

impl Deployment {
    /// Makes what a server needs on these engines, and starts the balancer.
    pub(crate) fn new(engines: Engines, options: &Options) -> Self {
        static DEPLOYMENTS: AtomicUsize = AtomicUsize::new(0);
        let number = DEPLOYMENTS.fetch_add(1, Ordering::Relaxed);
        let secrets = tempfile::tempdir().expect("a directory");
        let ceph = Ceph::connect();
        let text = options.config.as_deref().unwrap_or_default();
        let objects = (!text.contains("[objects]")).then(|| ceph.tenant());
        let (bucket, database) = std::thread::scope(|scope| {
            let bucket = scope.spawn(|| ceph.bucket());
            let database = engines.database.clone();
            let database =
                database.unwrap_or_else(|| database::fresh(&format!("deployment_{number}")));
            (bucket.join().expect("a bucket"), database)
        });
        let keystone = Keystone::used(Use {
            through: engines.keystone.clone(),
            ..Use::default()
        });
        let addresses: Vec<String> = (0..NODES).map(|node| address(number, node)).collect();
        let ways = engines.wired.then(|| ways_to(&addresses));
        let ways = ways.unwrap_or_default();
        let reached = addresses
            .iter()
            .map(|address| led(&ways, "balancer", address));
        let reached: Vec<String> = reached.collect();
        let balancer = Balancer::haproxy(free_port(), &reached, None);
        let mut deployment = Self {
            barbican: None,
            environment: Vec::new(),
            program: engines.program.clone(),
            keystone,
            balancer,
            addresses,
            database,
            bucket,
            ceph,
            objects,
            ways,
            secrets,
        };
        deployment.environment = deployment.settings(&engines);
        if !options.own_keys {
            deployment.keep_keys_in_barbican(&engines);
        }
        if engines.wired {
            deployment.lead_to_engines_apart();
        }
        deployment.environment.extend(engines.environment);
        deployment
    }

    /// Lets each process reach each engine by a wire of its own.
    fn lead_to_engines_apart(&mut self) {
        let openstack = self.keystone.openstack();
        let engines = [
            ("PostgreSQL", self.database.as_str()),
            ("Ceph", self.ceph.url()),
            ("Keystone", openstack.keystone()),
            ("Barbican", openstack.barbican()),
        ];
        let nodes = (1..=NODES).map(|node| format!("node-{node}"));
        let processes = nodes.chain((1..=WORKERS).map(|worker| format!("worker-{worker}")));
        let ways = processes.flat_map(|process| {
            engines.map(|(engine, url)| Way {
                from: process.clone(),
                to: engine.to_owned(),
                wire: Wire::before(url),
            })
        });
        self.ways.extend(ways.collect::<Vec<_>>());
    }

    /// The configuration, as variables: a test's own file stays as it is.
    fn settings(&self, engines: &Engines) -> Vec<(String, String)> {
        let random = hex::encode(Sha256::digest(fresh_name(&self.bucket)));
        // Older versions want what stands before it, too.
        let root_key = self.write("root.key", &format!("calotype-service-key-1:{random}"));
        let secret = self.write("store-secret", self.ceph.secret_key());
        let store = engines.store.as_deref().unwrap_or(self.ceph.url());
        let url = self.balancer.url();
        let nodes = NODES.to_string();
        let (url_of_catalog, password) = database::apart(&self.database);
        let password = password.map(|password| self.write("catalog-password", password));
        let password = password.map(|file| ("CATALOG__PASSWORD_FILE", file));
        let variables = [
            ("CATALOG__URL", url_of_catalog.as_str()),
            // Two processors run some ten processes, of several tests.
            ("CATALOG__CONNECTIONS", "8"),
            ("CATALOG__ACQUIRE_TIMEOUT", "30s"),
            ("STORE__MAIN__TYPE", "s3"),
            ("STORE__MAIN__ENDPOINT", store),
            ("STORE__MAIN__ALLOW_HTTP", "true"),
            ("STORE__MAIN__BUCKET", &self.bucket),
            ("STORE__MAIN__ACCESS_KEY", self.ceph.access_key()),
            ("STORE__MAIN__SECRET_FILE", &secret),
            ("KEYS__ROOT_KEY_FILE", &root_key),
            ("SERVER__PUBLIC_URL", url),
            ("SERVER__TRUSTED_PROXIES", "[\"127.0.0.0/8\"]"),
            ("LIMITS__NODES", &nodes),
            ("IDENTITY__KEYSTONE__CONNECTION__ATTEMPT_TIMEOUT", "30s"),
            ("IDENTITY__KEYSTONE__CONNECTION__TIME_LIMIT", "60s"),
        ];
        let objects = self.objects.as_ref().map(|user| {
            [
                ("OBJECTS__TYPE", "s3".to_owned()),
                ("OBJECTS__ENDPOINT", store.to_owned()),
                ("OBJECTS__ALLOW_HTTP", "true".to_owned()),
                ("OBJECTS__UNLISTED_BUCKETS", "allow".to_owned()),
                ("OBJECTS__ACCESS_KEY", user.access_key().to_owned()),
                (
                    "OBJECTS__SECRET_FILE",
                    user.secret_file().display().to_string(),
                ),
            ]
        });
        let mut all = self.keystone.environment();
        let variables = variables.map(|(name, value)| (name, value.to_owned()));
        let variables = variables.into_iter().chain(objects.into_iter().flatten());
        let named = |(name, value)| (format!("CALOTYPE_{name}"), value);
        all.extend(variables.chain(password).map(named));
        all
    }

    /// Lets customers' keys be secrets, which the service reads as a user of its own.
    fn keep_keys_in_barbican(&mut self, engines: &Engines) {
        let openstack = self.keystone.openstack();
        let user: User = openstack.user("service");
        let password = self.write("barbican-password", &user.password);
        let keystone = engines.keystone.as_deref().unwrap_or(openstack.keystone());
        let barbican = engines.barbican.as_deref().unwrap_or(openstack.barbican());
        let variables = [
            ("CUSTOMERS", "barbican"),
            ("BARBICAN__ENDPOINT", barbican),
            ("BARBICAN__CACHE_LIFE", "1s"),
            ("BARBICAN__LOGIN__AUTH_URL", keystone),
            ("BARBICAN__LOGIN__USER", &user.name),
            ("BARBICAN__LOGIN__PROJECT", &user.project_name),
            ("BARBICAN__LOGIN__PASSWORD_FILE", &password),
            ("BARBICAN__CONNECTION__ATTEMPT_TIMEOUT", "30s"),
            ("BARBICAN__CONNECTION__TIME_LIMIT", "60s"),
        ];
        let variables = variables.map(|(name, value)| {
            let name = format!("CALOTYPE_KEYS__{name}");
            (name, value.to_owned())
        });
        self.barbican = Some(Barbican {
            url: openstack.barbican().to_owned(),
            reader: user.id.clone(),
        });
        self.environment.extend(variables);
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.secrets.path().join(name);
        std::fs::write(&path, format!("{text}\n")).expect("a secret");
        let private = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(&path, private).expect("a secret of its owner's");
        path.display().to_string()
    }

    /// Where clients reach the server.
    pub(crate) fn url(&self) -> &str {
        self.balancer.url()
    }

    /// Where each node listens.
    pub(crate) fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// The variables of a process.
    pub(crate) fn environment(&self, process: &str) -> Vec<(String, String)> {
        let variables = self.environment.iter().map(|(name, value)| {
            // What clients are told is where they reach it.
            let value = match name.ends_with("PUBLIC_URL") {
                true => value.clone(),
                false => led(&self.ways, process, value),
            };
            (name.clone(), value)
        });
        variables.collect()
    }

    /// The wires between its parts.
    pub(crate) fn ways(&self) -> &[Way] {
        &self.ways
    }

    /// The program that all processes begin with, unless it is the one that is tested.
    pub(crate) fn program(&self) -> Option<PathBuf> {
        self.program.clone()
    }

    /// The users.
    pub(crate) fn keystone(&self) -> &Keystone {
        &self.keystone
    }

    /// Where customers' keys are, unless the service has them itself.
    pub(crate) fn barbican(&self) -> Option<&Barbican> {
        self.barbican.as_ref()
    }

    /// The database's URL.
    pub(crate) fn database(&self) -> &str {
        &self.database
    }

    /// The bucket of its blobs.
    pub(crate) fn bucket(&self) -> &str {
        &self.bucket
    }

    /// Whose the buckets of others are, unless they are below a directory.
    pub(crate) fn buckets(&self) -> Option<&Ceph> {
        self.objects.as_ref()
    }

    /// The keys of the bucket's objects that begin so, past the store's own prefix.
    pub(crate) fn objects(&self, under: &str) -> Vec<String> {
        let prefix = format!("calotype/{under}");
        let keys = self.ceph.keys(&self.bucket).into_iter();
        keys.filter_map(|key| Some(key.strip_prefix(&prefix)?.to_owned()))
            .collect()
    }
}

/// A text with the wires of one part in the place of what they lead to.
fn led(ways: &[Way], from: &str, text: &str) -> String {
    let own = ways.iter().filter(|way| way.from == from);
    own.fold(text.to_owned(), |text, way| way.wire.url(&text))
}

/// The balancer's ways to nodes.
fn ways_to(nodes: &[String]) -> Vec<Way> {
    let ways = (1..).zip(nodes).map(|(node, address)| Way {
        from: "balancer".to_owned(),
        to: format!("node-{node}"),
        wire: Wire::before(address),
    });
    ways.collect()
}

/// Where a node listens: at addresses of this test's own, of which no connection ever takes a port away while the node is
/// down.
fn address(deployment: usize, node: usize) -> String {
    let number = (std::process::id() as usize) << 2 | node;
    let [.., a, b, c] = number.to_be_bytes();
    format!("127.{a}.{b}.{c}:{}", 9292 + deployment)
}
