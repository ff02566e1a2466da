//! What a test's own servers need on this machine: time to start, a port, and a user that is not root.
//!
//! Also compiled into the tests of `calotype-catalog`, which need the same.

use std::ffi::OsStr;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
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
///
/// It is none of those that the system gives to who asks for any, so that it stays free until it is used; and tests that
/// run at the same time begin to look for theirs in different places.
pub fn free_port() -> u16 {
    const FIRST: u32 = 10_000;
    const PORTS: u32 = 20_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        assert!(next < PORTS, "no port is free");
        let place = std::process::id().wrapping_mul(61).wrapping_add(next);
        let port = u16::try_from(FIRST + place % PORTS).expect("less than 65,536");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
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
