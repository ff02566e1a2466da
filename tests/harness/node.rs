//! One process that serves requests.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;

use rustix::process::{Pid, Signal, kill_process};

use crate::server::binary;
use crate::{PATIENCE, until};

/// What a process of a server's is started with.
#[derive(Debug, Clone, Default)]
pub(crate) struct Launch {
    /// The program; none: the one that is tested.
    pub(crate) program: Option<PathBuf>,
    /// The configuration file; none: there are only defaults.
    pub(crate) config: Option<PathBuf>,
    /// The data directory.
    pub(crate) data: PathBuf,
    /// Where it works, and where a core would appear.
    pub(crate) home: PathBuf,
    /// Who of several it is, also in the names of its files in `home`.
    pub(crate) name: String,
    /// Variables of its environment, beside those of the test.
    pub(crate) environment: Vec<(String, String)>,
}

impl Launch {
    /// The program with this command, its log in a file.
    pub(crate) fn command(&self, name: &str) -> Command {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.file("log"))
            .expect("the log");
        let mut command = Command::new(self.program.clone().unwrap_or_else(binary));
        command.arg(name).arg("--data-dir").arg(&self.data);
        if let Some(config) = &self.config {
            command.arg("--config").arg(config);
        }
        command
            .envs(self.environment.iter().cloned())
            .current_dir(&self.home)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log);
        command
    }

    /// What it has logged, over all its starts.
    pub(crate) fn log(&self) -> String {
        read(&self.file("log"))
    }

    /// What it printed on its standard output after it was ready.
    pub(crate) fn printed(&self) -> String {
        read(&self.file("printed"))
    }

    fn file(&self, kind: &str) -> PathBuf {
        let parts = [kind, self.name.as_str()];
        let parts = parts.into_iter().filter(|part| !part.is_empty());
        self.home.join(parts.collect::<Vec<_>>().join("-"))
    }
}

/// A node: a process that serves requests. It is killed when the value goes out of scope.
pub struct Node {
    launch: Launch,
    listen: String,
    process: Child,
    lines: mpsc::Receiver<String>,
    base: String,
    ready_lines: Vec<String>,
}

impl Node {
    /// Starts one that listens at an address, and does not wait for it.
    pub(crate) fn begin(launch: Launch, listen: &str) -> Self {
        let (process, lines) = begin(&launch, listen);
        Self {
            launch,
            listen: listen.to_owned(),
            process,
            lines,
            base: String::new(),
            ready_lines: Vec::new(),
        }
    }

    /// Waits until it is ready.
    ///
    /// # Errors
    /// The exit status and the log of one that ended before.
    pub(crate) fn wait(&mut self) -> Result<(), String> {
        self.ready_lines.clear();
        loop {
            let Ok(line) = self.lines.recv_timeout(PATIENCE) else {
                let _ = self.process.kill();
                let status = self.process.wait().expect("the process's end");
                let (printed, log) = (&self.ready_lines, self.launch.log());
                return Err(format!("not ready, {status}; printed {printed:?}\n{log}"));
            };
            let base = base_in(&line);
            self.ready_lines.push(line);
            if let Some(base) = base {
                self.base = base;
                return Ok(());
            }
        }
    }

    /// Starts it again after its end, and does not wait.
    pub(crate) fn begin_again(&mut self) {
        self.kill9();
        (self.process, self.lines) = begin(&self.launch, &self.listen);
    }

    /// Starts it again after its end, and waits until it is ready.
    pub fn restart(&mut self) {
        self.begin_again();
        self.wait().expect("a node that starts again");
    }

    /// Stops it, and starts the program that is tested in its place.
    pub fn replace(&mut self) {
        self.terminate();
        assert!(self.ended().success(), "a node that stops");
        self.launch.program = None;
        self.restart();
    }

    /// Where it answers, without a trailing slash.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The lines that it printed up to and with the one that says that it is ready.
    pub(crate) fn ready_lines(&self) -> &[String] {
        &self.ready_lines
    }

    /// What it was started with.
    pub(crate) fn launch(&self) -> &Launch {
        &self.launch
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Kills it as a power cut would end it.
    pub fn kill9(&mut self) {
        kill9(&mut self.process);
    }

    /// Asks it to stop, and does not wait.
    pub(crate) fn terminate(&self) {
        terminate(&self.process);
    }

    /// Waits for its end.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        until("the node to stop", || {
            self.process.try_wait().expect("the process's state")
        })
    }

    /// Makes it end as a process does that finds itself broken.
    pub(crate) fn abort(&mut self) -> ExitStatus {
        abort(&mut self.process)
    }

    /// Makes it stand still, until [`Node::go_on`].
    pub fn pause(&self) {
        send(&self.process, Signal::STOP);
    }

    /// Ends [`Node::pause`].
    pub fn go_on(&self) {
        send(&self.process, Signal::CONT);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill9();
    }
}

pub(crate) fn kill9(process: &mut Child) {
    // An error means that the process had ended already, which is what is wanted.
    let _ = process.kill();
    process.wait().expect("the process's end");
}

pub(crate) fn terminate(process: &Child) {
    // An error means that the process had ended already.
    let _ = kill_process(Pid::from_child(process), Signal::TERM);
}

pub(crate) fn abort(process: &mut Child) -> ExitStatus {
    send(process, Signal::ABORT);
    process.wait().expect("the process's end")
}

pub(crate) fn send(process: &Child, signal: Signal) {
    kill_process(Pid::from_child(process), signal).expect("a process that lives");
}

fn begin(launch: &Launch, listen: &str) -> (Child, mpsc::Receiver<String>) {
    let mut process = launch
        .command("serve")
        .args(["--listen", listen])
        .spawn()
        .expect("the calotype binary starts");
    let output = process.stdout.take().expect("the standard output");
    let lines = lines_of(output, launch.file("printed"));
    (process, lines)
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
