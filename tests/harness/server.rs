//! A server: one process with everything in its data directory, or several on engines behind a balancer.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};

use tempfile::TempDir;

use crate::ceph::Ceph;
use crate::client::{Client, log_in_at};
use crate::deployment::{Deployment, Engines, Place, WORKERS, Way, engines};
use crate::keystone::Keystone;
use crate::node::{Launch, Node};
use crate::worker::Worker;
use crate::{program, until};

/// What a server is started with.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The configuration file's text; without one the server runs on its defaults.
    pub config: Option<String>,
    /// A data directory to share or to come back to; without one the server has its own.
    pub data: Option<PathBuf>,
    /// Variables of its environment, beside those of the test.
    pub environment: Vec<(String, String)>,
    /// Who answers for users and projects; none: the server itself, or whom `CALOTYPE_TEST_IDENTITY` names.
    pub keystone: Option<Keystone>,
    /// Where the server's parts are.
    pub place: Place,
    /// Whether customers' keys are the server's own, also where it is on engines: for tests of the KMS API.
    pub own_keys: bool,
}

impl Options {
    /// Options with a configuration file of this text.
    pub fn config(text: impl Into<String>) -> Self {
        Self {
            config: Some(text.into()),
            ..Self::default()
        }
    }

    /// The same with a Keystone's users and projects.
    #[must_use]
    pub fn with_keystone(self, keystone: &Keystone) -> Self {
        Self {
            keystone: Some(keystone.clone()),
            ..self
        }
    }

    /// The same with customers' keys of the server's own.
    #[must_use]
    pub fn with_own_keys(self) -> Self {
        Self {
            own_keys: true,
            ..self
        }
    }

    /// The same in one process and its data directory, whatever the run says.
    #[must_use]
    pub fn embedded(self) -> Self {
        Self {
            place: Place::Embedded,
            ..self
        }
    }

    /// The same on engines, whatever the run says.
    #[must_use]
    pub fn on(self, engines: Engines) -> Self {
        Self {
            place: Place::Engines(engines),
            ..self
        }
    }
}

/// A running server. It is killed when the value goes out of scope.
pub struct Server {
    nodes: Vec<Node>,
    workers: Vec<Worker>,
    deployment: Option<Deployment>,
    base: String,
    home: TempDir,
    options: Options,
}

impl Server {
    /// Starts a server on its defaults and waits until it is ready.
    pub fn with_defaults() -> Self {
        Self::start(Options::default())
    }

    /// Starts a server on its defaults, in one process and its data directory whatever the run says.
    pub fn embedded() -> Self {
        Self::start(Options::default().embedded())
    }

    /// Starts a server on its defaults, whose customers' keys are its own.
    pub fn with_own_keys() -> Self {
        Self::start(Options::default().with_own_keys())
    }

    /// Starts a server and waits until it is ready.
    pub fn start(options: Options) -> Self {
        match Self::try_start(options) {
            Ok(server) => server,
            Err(reason) => panic!("{reason}"),
        }
    }

    /// Starts a server; where it ends before it is ready, returns what it wrote.
    ///
    /// # Errors
    /// The exit status and the log of a server that did not become ready.
    pub fn try_start(mut options: Options) -> Result<Self, String> {
        let deployment = engines(&options).map(|on| Deployment::new(on, &options));
        options.keystone = match &deployment {
            Some(deployment) => Some(deployment.keystone().clone()),
            None => options.keystone.or_else(Keystone::of_environment),
        };
        let mut server = Self {
            nodes: Vec::new(),
            workers: Vec::new(),
            deployment,
            base: String::new(),
            home: TempDir::with_prefix("calotype-test-").expect("a temporary directory"),
            options,
        };
        server.launch()?;
        Ok(server)
    }

    /// Starts the server again on the same data with other options; where it ends before it is ready, returns what it
    /// wrote. The data directory stays.
    ///
    /// # Errors
    /// As [`Server::try_start`].
    pub fn try_restart(&mut self, options: Options) -> Result<(), String> {
        self.kill9();
        let data = self.data();
        let before = self.options.keystone.take();
        self.options = Options {
            data: Some(data),
            keystone: options.keystone.clone().or(before),
            ..options
        };
        self.launch()
    }

    /// Starts the processes, and waits until all are ready.
    fn launch(&mut self) -> Result<(), String> {
        self.nodes.clear();
        self.workers.clear();
        // Once, before anybody reads it: a process that begins while it is written would find nothing, and run on the defaults.
        if let Some(text) = &self.options.config {
            std::fs::write(self.configuration(), text).expect("the configuration");
        }
        let listens = match &self.deployment {
            Some(deployment) => deployment.addresses().to_vec(),
            None => vec!["127.0.0.1:0".to_owned()],
        };
        for (number, listen) in (1..).zip(&listens) {
            let (name, more) = match &self.deployment {
                Some(_) => (
                    format!("node-{number}"),
                    Some(("CALOTYPE_JOBS__WORKERS", "0")),
                ),
                None => (String::new(), None),
            };
            let launch = self.one(name, more);
            self.nodes.push(Node::begin(launch, listen));
        }
        if self.deployment.is_some() && !self.does_no_jobs() {
            for number in 1..=WORKERS {
                let launch = self.one(format!("worker-{number}"), None);
                self.workers.push(Worker::begin(launch));
            }
        }
        self.wait()
    }

    /// What a process is started with.
    fn one(&self, name: String, more: Option<(&str, &str)>) -> Launch {
        let config = self.options.config.as_ref();
        let config = config.map(|_| self.configuration());
        let keystone = self.options.keystone.as_ref();
        let mut environment = keystone.map(Keystone::environment).unwrap_or_default();
        if let Some(deployment) = &self.deployment {
            environment.extend(deployment.environment(&name));
        }
        let more = more.map(|(name, value)| (name.to_owned(), value.to_owned()));
        environment.extend(more);
        environment.extend(self.options.environment.iter().cloned());
        Launch {
            program: self.deployment.as_ref().and_then(Deployment::program),
            config,
            data: self.data(),
            home: self.home.path().to_owned(),
            name,
            environment,
        }
    }

    fn configuration(&self) -> PathBuf {
        self.home.path().join("calotype.toml")
    }

    fn does_no_jobs(&self) -> bool {
        let text = self.options.config.as_deref().unwrap_or_default();
        text.contains("\nworkers = 0\n")
    }

    /// Waits until all processes are ready, and tells clients where the server is.
    fn wait(&mut self) -> Result<(), String> {
        for node in &mut self.nodes {
            node.wait()?;
        }
        for worker in &mut self.workers {
            worker.wait()?;
        }
        let Some(deployment) = &self.deployment else {
            self.nodes[0].base().clone_into(&mut self.base);
            self.tell_clients();
            return Ok(());
        };
        deployment.url().clone_into(&mut self.base);
        self.tell_clients();
        until("the balancer to lead to a node", || {
            let answer = Client::anonymous(&self.base).get("/healthz");
            (answer.status == 200).then_some(())
        });
        Ok(())
    }

    fn tell_clients(&self) {
        let Some(keystone) = &self.options.keystone else {
            return;
        };
        let barbican = self.deployment.as_ref().and_then(Deployment::barbican);
        let addresses = self.nodes.iter().map(Node::base);
        for base in addresses.chain([self.base.as_str()]) {
            log_in_at(base, keystone.openstack().keystone(), barbican);
        }
        keystone.lead_to(&self.base, &self.data());
    }

    /// Where the server answers, without a trailing slash.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        let own = || self.home.path().join("data");
        self.options.data.clone().unwrap_or_else(own)
    }

    /// The lines that the server printed on its standard output up to and with the one that says that it
    /// is ready.
    pub fn ready_lines(&self) -> &[String] {
        self.nodes[0].ready_lines()
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.only().pid()
    }

    /// The ids of all its processes.
    pub(crate) fn pids(&self) -> Vec<u32> {
        let nodes = self.nodes.iter().map(Node::pid);
        nodes.chain(self.workers.iter().map(Worker::pid)).collect()
    }

    /// The one process of a server that has no others.
    fn only(&self) -> &Node {
        assert!(self.deployment.is_none(), "one of several: {WHY_ONE}");
        &self.nodes[0]
    }

    /// Where each of its nodes answers, past the balancer.
    pub fn bases(&self) -> impl Iterator<Item = &str> {
        self.nodes.iter().map(Node::base)
    }

    /// Where one of its nodes answers: for what each has of its own, and where a balancer would answer in its place.
    pub fn one_base(&self) -> &str {
        self.nodes[0].base()
    }

    /// The processes that serve requests.
    pub fn nodes(&mut self) -> &mut [Node] {
        &mut self.nodes
    }

    /// The processes that only do jobs: of a server on engines.
    pub fn workers(&mut self) -> &mut [Worker] {
        &mut self.workers
    }

    /// Whether its catalog, store, identity and keys are other services.
    pub fn is_on_engines(&self) -> bool {
        self.deployment.is_some()
    }

    /// Whose the buckets are that images are imported from, where they are not below a directory.
    pub(crate) fn buckets(&self) -> Option<&Ceph> {
        self.deployment.as_ref().and_then(Deployment::buckets)
    }

    /// The database's URL, of a server on engines.
    pub fn database(&self) -> &str {
        self.deployment.as_ref().expect("engines").database()
    }

    /// The wires between the parts of a server whose [`Engines`] are `wired`.
    pub fn ways(&self) -> &[Way] {
        self.deployment.as_ref().expect("engines").ways()
    }

    /// The bucket that its blobs are in, of a server on engines.
    pub fn bucket_of_blobs(&self) -> &str {
        self.deployment.as_ref().expect("engines").bucket()
    }

    /// What a metric counts: the sum of its series that have all of these labels, each as `name="value"`, over all nodes.
    pub fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let nodes = self.nodes.iter();
        nodes.map(|node| metric_of(node, name, labels)).sum()
    }

    /// What the server has logged, over all its starts: each process's by itself.
    pub fn log(&self) -> String {
        let nodes = self.nodes.iter().map(|node| node.launch().log());
        nodes.chain(self.workers.iter().map(Worker::log)).collect()
    }

    /// What the server printed on its standard output after it was ready.
    pub fn printed(&self) -> String {
        let nodes = self.nodes.iter();
        nodes.map(|node| node.launch().printed()).collect()
    }

    /// The first administrator, with the credentials that the server wrote into `clouds.yaml`.
    pub fn admin(&self) -> Client {
        self.login("calotype-admin")
    }

    /// The first user, who may use images and administer nothing.
    pub fn user(&self) -> Client {
        self.login("calotype")
    }

    fn login(&self, cloud: &str) -> Client {
        let cloud = self.clouds().cloud(cloud);
        let (user, project) = (cloud.get("username"), cloud.get("project_name"));
        Client::login(&self.base, &user, &cloud.get("password"), &project)
    }

    /// What the server wrote into `clouds.yaml`.
    pub fn clouds(&self) -> Clouds {
        Clouds::read(&self.data().join("clouds.yaml"))
    }

    /// Kills all processes as a power cut would end them.
    pub fn kill9(&mut self) {
        self.nodes.iter_mut().for_each(Node::kill9);
        self.workers.iter_mut().for_each(Worker::kill9);
    }

    /// Asks all processes to stop, and waits for their end: the first status that is no success, or a success.
    pub fn stop(&mut self) -> ExitStatus {
        self.terminate();
        let nodes = self.nodes.iter_mut().map(Node::ended);
        let ends: Vec<ExitStatus> = nodes
            .chain(self.workers.iter_mut().map(Worker::stop))
            .collect();
        let failed = ends.iter().find(|status| !status.success());
        *failed.unwrap_or(&ends[0])
    }

    /// Asks all processes to stop, and does not wait.
    pub fn terminate(&self) {
        self.nodes.iter().for_each(Node::terminate);
        self.workers.iter().for_each(Worker::terminate);
    }

    /// Makes the process end as one does that finds itself broken.
    pub fn abort(&mut self) -> ExitStatus {
        assert!(self.deployment.is_none(), "one of several: {WHY_ONE}");
        self.nodes[0].abort()
    }

    /// Where a core of the process would appear: its directory.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Makes the process stand still, until [`Server::go_on`].
    pub fn pause(&self) {
        self.only().pause();
    }

    /// Ends [`Server::pause`].
    pub fn go_on(&self) {
        self.only().go_on();
    }

    /// Starts the server again on the same data, after its end.
    pub fn restart(&mut self) {
        self.nodes.iter_mut().for_each(Node::begin_again);
        self.workers.iter_mut().for_each(Worker::begin_again);
        if let Err(reason) = self.wait() {
            panic!("{reason}");
        }
    }

    /// How many attempts at writing a blob lie in the store, unfinished or on their way out.
    pub fn staged(&self) -> usize {
        if let Some(deployment) = &self.deployment {
            return deployment.objects("staged/").len();
        }
        let staged = self.data().join("blobs").join("staged");
        std::fs::read_dir(staged).expect("the store").count()
    }

    /// How many blobs the store holds.
    pub fn stored(&self) -> usize {
        if let Some(deployment) = &self.deployment {
            return deployment.objects("blobs/").len();
        }
        let list = |directory: PathBuf| std::fs::read_dir(directory).expect("the store").flatten();
        let prefixes = list(self.data().join("blobs").join("blobs"));
        prefixes.map(|prefix| list(prefix.path()).count()).sum()
    }

    /// Kills the server and proves that the invariants hold of what it left: `calotype admin verify`
    /// reads every byte and finds no violation.
    pub fn verify_stopped(&mut self) {
        program::succeeded("admin verify", &self.verified_stopped());
    }

    /// Kills the server; the result is what the verification says of what it left.
    pub fn verified_stopped(&mut self) -> Output {
        self.kill9();
        let node = self.nodes[0].launch();
        let mut command = Command::new(binary());
        command.args(["admin", "verify", "--deep", "--data-dir"]);
        command.arg(self.data());
        // What is in the data directory is found without a configuration.
        if self.deployment.is_some() {
            command.envs(node.environment.iter().cloned());
            if let Some(config) = &node.config {
                command.arg("--config").arg(config);
            }
        }
        let output = command.current_dir(self.home.path()).output();
        output.expect("the calotype binary runs")
    }

    /// Proves that the invariants hold, asking the running server.
    pub fn verify(&self) {
        self.admin().verify();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill9();
        if !std::thread::panicking() {
            return;
        }
        let nodes = self.nodes.iter().map(|node| node.launch().log());
        for log in nodes.chain(self.workers.iter().map(Worker::log)) {
            let from = log.len().saturating_sub(16 * 1024);
            let tail = log.get(from..).unwrap_or(&log);
            eprintln!("--- a log of {} ---\n{tail}", self.base);
        }
    }
}

/// Why a test that asks for one process is no test of several.
const WHY_ONE: &str = "a test of one process says `Server::embedded()` or `Options::embedded()`";

fn metric_of(node: &Node, name: &str, labels: &[&str]) -> f64 {
    let shown = Client::anonymous(node.base()).get("/metrics").expect(200);
    let shown = shown.text();
    let values = shown.lines().filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let (of, labelled) = series.split_once('{').unwrap_or((series, ""));
        let is_meant = of == name && labels.iter().all(|label| labelled.contains(label));
        is_meant.then(|| value.parse::<f64>().expect("a number"))
    });
    values.sum()
}

/// The binary under test: `CALOTYPE_BIN`, or the one that was built beside this test.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("CALOTYPE_BIN") {
        return path.into();
    }
    let test = std::env::current_exe().expect("the path of this test");
    let beside = test
        .ancestors()
        .skip(1)
        .take(2)
        .map(|directory| directory.join("calotype"))
        .find(|path| path.is_file());
    beside.unwrap_or_else(|| panic!("the binary is not built: run `cargo xtask test`"))
}

/// The values of a `clouds.yaml` that the server wrote, by their keys.
pub struct Clouds(String);

impl Clouds {
    /// Reads the file.
    pub fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path);
        Self(text.unwrap_or_else(|error| panic!("{}: {error}", path.display())))
    }

    /// The part from one cloud on.
    pub fn cloud(&self, name: &str) -> Self {
        let from = self.0.find(&format!("\n  {name}:\n"));
        let from = from.unwrap_or_else(|| panic!("clouds.yaml has no cloud {name}"));
        Self(self.0[from..].to_owned())
    }

    /// The first value that stands under `key`, also in a comment, without quotes.
    pub fn get(&self, key: &str) -> String {
        let value = self.0.lines().find_map(|line| {
            let line = line.trim_start_matches(['#', ' ']).trim_end();
            let (name, value) = line.split_once(':')?;
            (name == key).then(|| value.trim().trim_matches(['"', '\'']).to_owned())
        });
        value.unwrap_or_else(|| panic!("clouds.yaml has no {key}"))
    }
}
