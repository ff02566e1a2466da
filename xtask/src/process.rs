//! Running programs: each is echoed, and a failure names the program and its exit code.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// What a chore ends with.
pub type Outcome<T = ()> = Result<T, Failure>;

/// Why a chore failed, and the exit code that it ends with.
#[derive(Debug)]
pub struct Failure {
    pub code: u8,
    message: String,
}

impl Failure {
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            code: 1,
            message: message.into(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(error.to_string())
    }
}

/// The root of the workspace.
pub fn root() -> PathBuf {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask).to_owned()
}

/// Where cargo puts what it builds.
pub fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(path) => root().join(path),
        None => root().join("target"),
    }
}

/// The cargo that runs this chore.
pub fn cargo() -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    command(program)
}

/// A program that runs in the workspace's root.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root());
    command
}

/// Runs a program to its end with the terminal as its output.
///
/// # Errors
/// Where it can't start, or ends with anything but 0: its own code is the failure's.
pub fn run(command: &mut Command) -> Outcome {
    let line = text(command);
    eprintln!("$ {line}");
    let status = command
        .status()
        .map_err(|error| Failure::new(format!("can't start `{line}`: {error}")))?;
    if status.success() {
        return Ok(());
    }
    Err(Failure {
        code: status
            .code()
            .and_then(|code| u8::try_from(code).ok())
            .unwrap_or(1),
        message: format!("`{line}` ended with {status}"),
    })
}

/// Runs a program to its end and returns what it printed.
pub fn output(command: &mut Command) -> Outcome<Vec<u8>> {
    let line = text(command);
    let output = command
        .output()
        .map_err(|error| Failure::new(format!("can't start `{line}`: {error}")))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(Failure::new(format!(
        "`{line}` ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    )))
}

/// Whether a program runs and ends well; it prints nothing.
pub fn succeeds(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

/// Ends a server by its process id: asks it with a signal, and kills it where it does not end.
pub fn stop(server: &mut Child, signal: &str) {
    if matches!(server.try_wait(), Ok(Some(_))) {
        return;
    }
    let pid = server.id().to_string();
    let asked = Command::new("kill").args(["-s", signal, &pid]).status();
    let deadline = Instant::now() + Duration::from_secs(20);
    while asked.is_ok() && Instant::now() < deadline {
        if matches!(server.try_wait(), Ok(Some(_))) {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let _ = server.kill();
    let _ = server.wait();
}

fn text(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}
