//! What a test's own servers need on this machine: time to start, a port, and a user that is not root.
//!
//! Also compiled into the tests of `calotype-catalog`, which need the same.

use std::ffi::OsStr;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// How long anything that must happen is waited for. It bounds a test that would hang; nothing is
/// expected to take this long.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Asks until there is an answer, and panics with `what` where there is none in [`PATIENCE`].
pub fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(
            Instant::now() < deadline,
            "waited {PATIENCE:?} in vain: {what}"
        );
        std::thread::sleep(Duration::from_millis(15));
    }
}

/// A port of loopback that nothing listens at.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

/// A program that refuses to run as root: where we are root, it runs as the user `postgres`, to whom `home` is given.
pub(super) fn as_postgres(program: impl AsRef<OsStr>, home: &Path) -> Command {
    let mut command = if is_root() {
        let owned = Command::new("chown")
            .args(["-R", "postgres"])
            .arg(home)
            .status();
        assert!(owned.expect("chown runs").success());
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
        command.arg("--").arg(program);
        command
    } else {
        Command::new(program)
    };
    command.current_dir(home);
    command
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().expect("id runs");
    id.stdout.trim_ascii() == b"0"
}
