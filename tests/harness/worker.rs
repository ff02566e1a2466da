//! A calotype process that does jobs and serves no requests.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};

use tempfile::TempDir;

use crate::keystone::Keystone;
use crate::server::{abort, binary, terminate};
use crate::until;

/// A running worker. It is killed when the value goes out of scope.
pub struct Worker {
    process: Child,
    home: TempDir,
    _keystone: Option<Keystone>,
}

impl Worker {
    /// Starts a worker with a configuration file of this text, and waits until it is ready.
    pub fn start(config: &str) -> Self {
        let home = TempDir::with_prefix("calotype-worker-").expect("a temporary directory");
        let file = home.path().join("calotype.toml");
        std::fs::write(&file, config).expect("the configuration");
        let keystone = Keystone::of_environment();
        let identity = keystone.as_ref().map(Keystone::environment);
        let mut process = Command::new(binary())
            .envs(identity.unwrap_or_default())
            .arg("worker")
            .arg("--config")
            .arg(&file)
            .arg("--data-dir")
            .arg(home.path().join("data"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(home.path().join("log")).expect("the log"))
            .spawn()
            .expect("the calotype binary starts");
        let output = process.stdout.take().expect("the standard output");
        let mut line = String::new();
        let read = BufReader::new(output).read_line(&mut line);
        read.expect("the worker's output");
        assert_eq!(line.trim_end(), "calotype worker is ready");
        Self {
            process,
            home,
            _keystone: keystone,
        }
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// What the worker has logged.
    pub fn log(&self) -> String {
        let bytes = std::fs::read(self.home.path().join("log"));
        String::from_utf8_lossy(&bytes.expect("the log")).into_owned()
    }

    /// Makes the process end as one does that finds itself broken.
    pub fn abort(&mut self) -> ExitStatus {
        abort(&mut self.process)
    }

    /// Asks the worker to stop, and waits for its end.
    pub fn stop(&mut self) -> ExitStatus {
        terminate(&self.process);
        until("the worker to stop", || {
            self.process.try_wait().expect("the process's state")
        })
    }

    /// Makes the process stand still, until [`Worker::go_on`].
    pub fn pause(&self) {
        self.signal(rustix::process::Signal::STOP);
    }

    /// Ends [`Worker::pause`].
    pub fn go_on(&self) {
        self.signal(rustix::process::Signal::CONT);
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(pid, signal).expect("a process that lives");
    }

    /// Kills the worker as a power cut would end it.
    pub fn kill9(&mut self) {
        // An error means that the process had ended already, which is what is wanted.
        let _ = self.process.kill();
        self.process.wait().expect("the process's end");
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.kill9();
    }
}
