//! A calotype process that does jobs and serves no requests.

use std::io::{BufRead, BufReader};
use std::process::{Child, ExitStatus};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::keystone::Keystone;
use crate::node::{Launch, abort, kill9, send, terminate};
use crate::until;

/// A running worker. It is killed when the value goes out of scope.
pub struct Worker {
    launch: Launch,
    process: Child,
    /// What goes with it, where it is on its own.
    own: Option<(TempDir, Option<Keystone>)>,
}

impl Worker {
    /// Starts a worker with a configuration file of this text, and waits until it is ready.
    pub fn start(config: &str) -> Self {
        let home = TempDir::with_prefix("calotype-worker-").expect("a temporary directory");
        let file = home.path().join("calotype.toml");
        std::fs::write(&file, config).expect("the configuration");
        let keystone = Keystone::of_environment();
        let identity = keystone.as_ref().map(Keystone::environment);
        let mut worker = Self::begin(Launch {
            program: None,
            config: Some(file),
            data: home.path().join("data"),
            home: home.path().to_owned(),
            name: String::new(),
            environment: identity.unwrap_or_default(),
        });
        worker.own = Some((home, keystone));
        worker.wait().expect("a worker that starts");
        worker
    }

    /// Starts one, and does not wait for it.
    pub(crate) fn begin(launch: Launch) -> Self {
        Self {
            process: spawn(&launch),
            launch,
            own: None,
        }
    }

    /// Waits until it is ready.
    ///
    /// # Errors
    /// The log of one that ended before.
    pub(crate) fn wait(&mut self) -> Result<(), String> {
        let output = self.process.stdout.take().expect("the standard output");
        let mut line = String::new();
        let read = BufReader::new(output).read_line(&mut line);
        read.expect("the worker's output");
        if line.trim_end() == "calotype worker is ready" {
            return Ok(());
        }
        self.kill9();
        Err(format!("a worker printed {line:?}\n{}", self.log()))
    }

    /// Starts it again after its end, and does not wait.
    pub(crate) fn begin_again(&mut self) {
        self.kill9();
        self.process = spawn(&self.launch);
    }

    /// Starts it again after its end, and waits until it is ready.
    pub fn restart(&mut self) {
        self.begin_again();
        self.wait().expect("a worker that starts again");
    }

    /// Stops it, and starts the program that is tested in its place.
    pub fn replace(&mut self) {
        assert!(self.stop().success(), "a worker that stops");
        self.launch.program = None;
        self.restart();
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// What the worker has logged, over all its starts.
    pub fn log(&self) -> String {
        self.launch.log()
    }

    /// Makes the process end as one does that finds itself broken.
    pub fn abort(&mut self) -> ExitStatus {
        abort(&mut self.process)
    }

    /// Asks the worker to stop, and waits for its end.
    pub fn stop(&mut self) -> ExitStatus {
        self.terminate();
        until("the worker to stop", || {
            self.process.try_wait().expect("the process's state")
        })
    }

    /// Asks the worker to stop, and does not wait.
    pub(crate) fn terminate(&self) {
        terminate(&self.process);
    }

    /// Makes the process stand still, until [`Worker::go_on`].
    pub fn pause(&self) {
        send(&self.process, Signal::STOP);
    }

    /// Ends [`Worker::pause`].
    pub fn go_on(&self) {
        send(&self.process, Signal::CONT);
    }

    /// Kills the worker as a power cut would end it.
    pub fn kill9(&mut self) {
        kill9(&mut self.process);
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.kill9();
    }
}

fn spawn(launch: &Launch) -> Child {
    let mut command = launch.command("worker");
    command.spawn().expect("the calotype binary starts")
}
