//! A calotype process.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;

use tempfile::TempDir;

use crate::client::{Client, log_in_at};
use crate::keystone::Keystone;
use crate::{PATIENCE, until};

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
}

/// A running server. It is killed when the value goes out of scope.
pub struct Server {
    process: Child,
    base: String,
    ready_lines: Vec<String>,
    home: TempDir,
    options: Options,
}

impl Server {
    /// Starts a server on its defaults and waits until it is ready.
    pub fn with_defaults() -> Self {
        Self::start(Options::default())
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
        options.keystone = options.keystone.or_else(Keystone::of_environment);
        let home = TempDir::with_prefix("calotype-test-").expect("a temporary directory");
        let data = data_of(&home, &options);
        if let Some(text) = &options.config {
            std::fs::write(home.path().join("calotype.toml"), text).expect("the configuration");
        }
        let (process, base, ready_lines) = launch(&home, &data, &options)?;
        Ok(Self {
            process,
            base,
            ready_lines,
            home,
            options,
        })
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
            data: Some(data.clone()),
            keystone: options.keystone.clone().or(before),
            ..options
        };
        if let Some(text) = &self.options.config {
            std::fs::write(self.home.path().join("calotype.toml"), text)
                .expect("the configuration");
        }
        (self.process, self.base, self.ready_lines) = launch(&self.home, &data, &self.options)?;
        Ok(())
    }

    /// Where the server answers, without a trailing slash.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        data_of(&self.home, &self.options)
    }

    /// The lines that the server printed on its standard output up to and with the one that says that it
    /// is ready.
    pub fn ready_lines(&self) -> &[String] {
        &self.ready_lines
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// What a metric counts: the sum of its series that have all of these labels, each as `name="value"`.
    pub fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let shown = Client::anonymous(self.base()).get("/metrics").expect(200);
        let shown = shown.text();
        let values = shown.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (of, labelled) = series.split_once('{').unwrap_or((series, ""));
            let is_meant = of == name && labels.iter().all(|label| labelled.contains(label));
            is_meant.then(|| value.parse::<f64>().expect("a number"))
        });
        values.sum()
    }

    /// What the server has logged, over all its starts.
    pub fn log(&self) -> String {
        read(&self.home.path().join("log"))
    }

    /// What the server printed on its standard output after it was ready.
    pub fn printed(&self) -> String {
        read(&self.home.path().join("printed"))
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

    /// Kills the process as a power cut would end it.
    pub fn kill9(&mut self) {
        // An error means that the process had ended already, which is what is wanted.
        let _ = self.process.kill();
        self.process.wait().expect("the process's end");
    }

    /// Asks the process to stop, and waits for its end.
    pub fn stop(&mut self) -> ExitStatus {
        self.terminate();
        until("the server to stop", || {
            self.process.try_wait().expect("the process's state")
        })
    }

    /// Asks the process to stop, and does not wait.
    pub fn terminate(&self) {
        terminate(&self.process);
    }

    /// Makes the process end as one does that finds itself broken.
    pub fn abort(&mut self) -> ExitStatus {
        abort(&mut self.process)
    }

    /// Where a core of the process would appear: its directory.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Makes the process stand still, until [`Server::go_on`].
    pub fn pause(&self) {
        self.signal(rustix::process::Signal::STOP);
    }

    /// Ends [`Server::pause`].
    pub fn go_on(&self) {
        self.signal(rustix::process::Signal::CONT);
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(pid, signal).expect("a process that lives");
    }

    /// Starts the server again on the same data, after its end.
    pub fn restart(&mut self) {
        self.kill9();
        let started = launch(&self.home, &self.data(), &self.options);
        (self.process, self.base, self.ready_lines) = match started {
            Ok(started) => started,
            Err(reason) => panic!("{reason}"),
        };
    }

    /// How many attempts at writing a blob lie in the store, unfinished or on their way out. For a store in
    /// the data directory.
    pub fn staged(&self) -> usize {
        let staged = self.data().join("blobs").join("staged");
        std::fs::read_dir(staged).expect("the store").count()
    }

    /// How many blobs the store holds. For a store in the data directory.
    pub fn stored(&self) -> usize {
        let list = |directory: PathBuf| std::fs::read_dir(directory).expect("the store").flatten();
        let prefixes = list(self.data().join("blobs").join("blobs"));
        prefixes.map(|prefix| list(prefix.path()).count()).sum()
    }

    /// Kills the server and proves that the invariants hold of what it left: `calotype admin verify`
    /// reads every byte and finds no violation. For a catalog in the data directory.
    pub fn verify_stopped(&mut self) {
        self.kill9();
        let output = Command::new(binary())
            .args(["admin", "verify", "--deep", "--data-dir"])
            .arg(self.data())
            .current_dir(self.home.path())
            .output()
            .expect("the calotype binary runs");
        assert!(
            output.status.success(),
            "admin verify: {}\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// Proves that the invariants hold, asking the running server.
    pub fn verify(&self) {
        self.admin().verify();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill9();
        if std::thread::panicking() {
            let log = self.log();
            let from = log.len().saturating_sub(16 * 1024);
            let tail = log.get(from..).unwrap_or(&log);
            eprintln!("--- the log of {} ---\n{tail}", self.base);
        }
    }
}

pub(crate) fn terminate(process: &Child) {
    let pid = rustix::process::Pid::from_child(process);
    // An error means that the process had ended already.
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
}

pub(crate) fn abort(process: &mut Child) -> ExitStatus {
    let pid = rustix::process::Pid::from_child(process);
    rustix::process::kill_process(pid, rustix::process::Signal::ABORT)
        .expect("a process that lives");
    process.wait().expect("the process's end")
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

fn data_of(home: &TempDir, options: &Options) -> PathBuf {
    let own = || home.path().join("data");
    options.data.clone().unwrap_or_else(own)
}

fn launch(
    home: &TempDir,
    data: &Path,
    options: &Options,
) -> Result<(Child, String, Vec<String>), String> {
    let log_path = home.path().join("log");
    let log = File::options()
        .create(true)
        .append(true)
        .open(&log_path)
        .expect("the log");
    let keystone = options.keystone.as_ref();
    let identity = keystone.map(Keystone::environment).unwrap_or_default();
    let mut command = Command::new(binary());
    command.args(["serve", "--listen", "127.0.0.1:0"]);
    command.arg("--data-dir").arg(data);
    if options.config.is_some() {
        command
            .arg("--config")
            .arg(home.path().join("calotype.toml"));
    }
    let mut process = command
        .envs(identity)
        .envs(options.environment.iter().cloned())
        .current_dir(home.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .expect("the calotype binary starts");
    let lines = lines_of(
        process.stdout.take().expect("the standard output"),
        home.path().join("printed"),
    );
    let mut seen = Vec::new();
    loop {
        match lines.recv_timeout(PATIENCE) {
            Ok(line) => {
                let base = base_in(&line);
                seen.push(line);
                if let Some(base) = base {
                    if let Some(keystone) = keystone {
                        log_in_at(&base, keystone.openstack().keystone());
                        keystone.lead_to(&base, data);
                    }
                    return Ok((process, base, seen));
                }
            }
            Err(_) => {
                let _ = process.kill();
                let status = process.wait().expect("the process's end");
                let log = read(&log_path);
                return Err(format!("not ready, {status}; printed {seen:?}\n{log}"));
            }
        }
    }
}

/// The lines of the standard output until the ready line; what comes after it goes into a file.
fn lines_of(output: impl Read + Send + 'static, rest: PathBuf) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut output = BufReader::new(output);
        let mut line = String::new();
        while output.read_line(&mut line).is_ok_and(|length| length > 0) {
            let ready = base_in(&line).is_some();
            if sender.send(line.trim_end().to_owned()).is_err() || ready {
                break;
            }
            line.clear();
        }
        drop(sender);
        if let Ok(mut rest) = File::create(rest) {
            let _ = std::io::copy(&mut output, &mut rest);
        }
    });
    receiver
}

fn base_in(line: &str) -> Option<String> {
    let start = line.find("http://")?;
    let url = line[start..].split_whitespace().next()?;
    Some(url.trim_end_matches(['/', ',', '.']).to_owned())
}

fn read(path: &Path) -> String {
    let bytes = std::fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}
