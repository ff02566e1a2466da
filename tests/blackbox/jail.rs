//! The converter's jail, tried from inside: programs that do what a hostile one would.

use std::fs::File;
use std::io::Read as _;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use calotype_tests::server::binary;
use calotype_tests::until;

const PYTHON: &str = "/usr/bin/python3";

/// `calotype jail`, with bounds that the tests change one by one.
struct Jail {
    memory: u64,
    cpu_seconds: u64,
    file_size: u64,
    parent: u32,
}

impl Default for Jail {
    fn default() -> Self {
        Self {
            memory: 2 << 30,
            cpu_seconds: 60,
            file_size: 1 << 20,
            parent: std::process::id(),
        }
    }
}

impl Jail {
    fn command(&self, program: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command
            .arg("jail")
            .args(["--parent", &self.parent.to_string()])
            .args(["--memory", &self.memory.to_string()])
            .args(["--cpu-seconds", &self.cpu_seconds.to_string()])
            .args(["--file-size", &self.file_size.to_string()])
            .arg("--")
            .args(program)
            .stdin(Stdio::null());
        command
    }

    fn run(&self, program: &[&str]) -> Output {
        self.command(program).output().expect("the jail")
    }

    fn python(&self, script: &str) -> Output {
        self.run(&[PYTHON, "-I", "-S", "-c", script])
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs a script that must go wrong in the way that `expected` tells.
fn refused(script: &str, expected: &str) {
    let output = Jail::default().python(script);
    let said = text(&output.stderr);
    assert!(!output.status.success(), "{script}");
    assert!(said.contains(expected), "{script}: {said}");
}

#[test]
fn a_program_in_the_jail_runs_and_computes() {
    let output = Jail::default().python(
        "import threading\nt = threading.Thread(target=lambda: print(6 * 7))\nt.start()\nt.join()",
    );
    assert_eq!(text(&output.stdout), "42\n", "{}", text(&output.stderr));
    let output = Jail::default().run(&["/usr/bin/qemu-img", "--version"]);
    assert!(text(&output.stdout).starts_with("qemu-img version"));
}

#[test]
fn no_file_but_the_systems_own_can_be_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "canary").expect("a file");
    let output = Jail::default().run(&["/usr/bin/cat", &secret.to_string_lossy()]);
    assert_eq!(output.stdout, b"");
    assert!(text(&output.stderr).contains("Permission denied"));
    for path in [
        "/etc/passwd",
        "/proc/self/environ",
        "/proc/1/maps",
        "/dev/zero",
    ] {
        refused(&format!("open({path:?})"), "Permission");
    }
    // What the jail is told from: the same is read where it is permitted.
    let output = Jail::default().run(&["/usr/bin/cat", "/usr/lib/os-release"]);
    assert!(text(&output.stdout).contains("ID="));
}

#[test]
fn no_file_can_be_made_changed_or_removed() {
    let folder = tempfile::tempdir().expect("a folder");
    let there = folder.path().join("there");
    std::fs::write(&there, "as it was").expect("a file");
    let (there, path) = (there.to_string_lossy(), folder.path().to_string_lossy());
    for (script, expected) in [
        (format!("open('{path}/new', 'a')"), "Permission"),
        // To be cut as it is opened is asked in a way of its own, which is closed to all files.
        (format!("open('{path}/new', 'w')"), "not implemented"),
        (
            format!("import os; os.open('{there}', os.O_RDONLY | os.O_TRUNC)"),
            "not implemented",
        ),
        (format!("open('{there}', 'r+')"), "Permission"),
        (format!("import os; os.unlink('{there}')"), "Error"),
        (
            format!("import os; os.rename('{there}', '{path}/b')"),
            "Error",
        ),
        (format!("import os; os.link('{there}', '/usr/b')"), "Error"),
        (
            format!("import os; os.symlink('{there}', '{path}/b')"),
            "Error",
        ),
        (format!("import os; os.mkdir('{path}/b')"), "Error"),
        (format!("import os; os.truncate('{there}', 0)"), "Error"),
        (
            format!("import os; os.chmod('{there}', 0o777)"),
            "not implemented",
        ),
        (
            format!("import os; os.chown('{there}', 1, 1)"),
            "not implemented",
        ),
        (
            format!("import os; os.utime('{there}', (1, 1))"),
            "not implemented",
        ),
        (
            format!("import os; os.setxattr('{there}', 'user.a', b'b')"),
            "not implemented",
        ),
    ] {
        refused(&script, expected);
    }
    assert_eq!(std::fs::read(&*there).expect("the file"), b"as it was");
    assert_eq!(
        std::fs::read_dir(folder.path())
            .expect("the folder")
            .count(),
        1
    );
}

#[test]
fn the_output_is_the_one_file_that_can_be_written_and_it_can_be_opened_again() {
    let mut output = tempfile::tempfile().expect("a file");
    let script = "f = open('/proc/self/fd/1', 'r+b'); f.write(b'written'); f.close()";
    let status = Jail::default()
        .command(&[PYTHON, "-I", "-S", "-c", script])
        .stdout(output.try_clone().expect("the file"))
        .status();
    assert!(status.expect("the jail").success());
    let mut written = String::new();
    std::io::Seek::rewind(&mut output).expect("the file");
    output.read_to_string(&mut written).expect("the file");
    assert_eq!(written, "written");
}

#[test]
fn there_is_no_network_and_no_socket_of_this_host() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let port = listener.local_addr().expect("an address").port();
    let folder = tempfile::tempdir().expect("a folder");
    let local = folder.path().join("socket");
    let _local = UnixListener::bind(&local).expect("a socket");
    let local = local.to_string_lossy();
    for script in [
        format!("import socket; socket.create_connection(('127.0.0.1', {port}))"),
        "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM)".to_owned(),
        "import socket; socket.socket(socket.AF_INET6)".to_owned(),
        format!("import socket; socket.socket(socket.AF_UNIX).connect('{local}')"),
        "import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)".to_owned(),
        "import socket; socket.socketpair()".to_owned(),
    ] {
        refused(&script, "not implemented");
    }
    listener.set_nonblocking(true).expect("the listener");
    assert!(listener.accept().is_err(), "nobody came");
}

#[test]
fn other_processes_can_not_be_made_or_signalled() {
    let parent = std::process::id();
    for script in [
        "import os; os.fork()".to_owned(),
        format!("import os; os.kill({parent}, 0)"),
        "import os; os.setpriority(os.PRIO_PROCESS, 0, 5)".to_owned(),
        format!("import os; os.pidfd_open({parent})"),
        "import os; os.unshare(os.CLONE_NEWUSER)".to_owned(),
        "import os; os.setuid(1)".to_owned(),
    ] {
        // Python's older releases don't know every call: what is not there can't be called either.
        let output = Jail::default().python(&script);
        let said = text(&output.stderr);
        assert!(!output.status.success(), "{script}");
        assert!(
            said.contains("not implemented") || said.contains("AttributeError"),
            "{script}: {said}"
        );
    }
}

#[test]
fn what_is_written_ends_at_the_bound() {
    let output = tempfile::tempfile().expect("a file");
    let status = Jail::default()
        .command(&["/usr/bin/head", "-c", "8000000", "/dev/urandom"])
        .stdout(output.try_clone().expect("the file"))
        .status()
        .expect("the jail");
    assert!(!status.success());
    assert_eq!(length(&output), 1 << 20);
    let sparse = tempfile::tempfile().expect("a file");
    let status = Jail::default()
        .command(&[
            PYTHON,
            "-I",
            "-S",
            "-c",
            "import os; os.ftruncate(1, 1 << 40)",
        ])
        .stdout(sparse.try_clone().expect("the file"))
        .status();
    assert!(!status.expect("the jail").success());
    assert_eq!(length(&sparse), 0);
}

fn length(file: &File) -> u64 {
    file.metadata().expect("the file").len()
}

#[test]
fn time_on_the_processor_and_memory_end_at_their_bounds() {
    let short = Jail {
        cpu_seconds: 1,
        ..Jail::default()
    };
    let output = short.python("while True: pass");
    let signal = output.status.signal();
    assert!(matches!(signal, Some(9 | 24)), "{:?}", output.status);
    refused("b'x' * (4 << 30)", "MemoryError");
}

#[test]
fn a_program_has_no_environment_no_core_and_no_privileges() {
    let mut command = Jail::default().command(&[
        PYTHON,
        "-I",
        "-S",
        "-c",
        "import os; print(dict(os.environ))",
    ]);
    let output = command.env("SECRET", "canary").output().expect("the jail");
    assert!(!text(&output.stdout).contains("canary"));
    let script =
        "import resource as r; print(r.getrlimit(r.RLIMIT_CORE), r.getrlimit(r.RLIMIT_NOFILE)[0])";
    let output = Jail::default().run(&[PYTHON, "-I", "-c", script]);
    assert_eq!(
        text(&output.stdout),
        "(0, 0) 64\n",
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn a_program_that_can_not_be_locked_in_or_is_not_there_is_not_begun() {
    let orphan = Jail {
        parent: 1,
        ..Jail::default()
    };
    let output = orphan.run(&["/usr/bin/cat", "/usr/lib/os-release"]);
    assert_eq!(output.status.code(), Some(125));
    assert_eq!(output.stdout, b"");
    let output = Jail::default().run(&["/usr/bin/no-such-program"]);
    assert_eq!(output.status.code(), Some(127));
    assert!(text(&output.stderr).contains("No such file"));
}

#[test]
fn a_program_dies_with_its_parent() {
    let script = "import subprocess, sys, os\np = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)\nprint(p.pid, flush=True)\nsys.stdin.read()";
    // The parent's own id is not known before it runs, so a shell of it puts it in.
    let launch = "exec \"$0\" jail --parent $PPID --memory 2147483648 --cpu-seconds 600 --file-size 1 -- /usr/bin/sleep 600";
    let mut parent = Command::new(PYTHON)
        .args(["-c", script, "/bin/sh", "-c", launch])
        .arg(binary())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a parent");
    let mut pid = String::new();
    let mut said = std::io::BufReader::new(parent.stdout.take().expect("its output"));
    std::io::BufRead::read_line(&mut said, &mut pid).expect("a line");
    let proc = Path::new("/proc").join(pid.trim());
    until("the program begins", || {
        let command = std::fs::read_to_string(proc.join("cmdline")).unwrap_or_default();
        command.starts_with("/usr/bin/sleep").then_some(())
    });
    parent.kill().expect("the parent");
    parent.wait().expect("the parent");
    until("the program is gone", || is_gone(&proc).then_some(()));
}

/// Whether a process has ended; somebody may have yet to ask how.
fn is_gone(proc: &Path) -> bool {
    let stat = std::fs::read_to_string(proc.join("stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_none_or(|(_, rest)| rest.starts_with('Z'))
}
