//! The jail: what a process takes from itself before it becomes a converter.
//!
//! # Guarantees
//! When the program begins, and whatever it does from then on:
//! - It has its standard input, output and error, and no other file that its parent had open.
//! - It opens the system's programs and libraries for reading, and for writing the one regular file that is its standard
//!   output. No other file can be opened (but `/dev/null` and random bits), made, renamed or removed (Landlock).
//! - It asks the kernel only for what reading, writing and computing take (seccomp): no socket is made or connected, no process is
//!   made, looked at or signalled, no file's owner, mode or times are changed, no file is cut by its path.
//! - Its memory, its time on the processor, the length of what it writes and its open files are bounded. It leaves no core.
//! - It has no capability and can't get any. It dies with its parent.
//!
//! Where one of these can't be had the program is not begun.
//!
//! Not kept from it: that a path exists, and how large and how old what is there is.

mod syscalls;

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, CompatLevel, Compatible as _, PathBeneath, PathFd,
    Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetStatus, Scope,
};
use rustix::process::{Pid, Resource, Rlimit, Signal};
use rustix::thread::{CapabilitySet, CapabilitySets};

/// What the launcher exits with where the program was not begun: nothing that qemu-img exits with.
pub const NOT_BEGUN: u8 = 125;

/// As [`NOT_BEGUN`], because there is no such program.
pub const NO_PROGRAM: u8 = 127;

/// Where the system keeps programs and libraries.
const SYSTEM: [&str; 4] = ["/usr", "/lib", "/lib64", "/bin"];

/// Single files beside them that a program may read: where its libraries are, and random bits.
const READABLE: [&str; 2] = ["/etc/ld.so.cache", "/dev/urandom"];

/// What qemu-img tries locks on.
const NOWHERE: &str = "/dev/null";

/// Files that a converter may have open.
const OPEN_FILES: u64 = 64;

/// A program, and what bounds it.
#[derive(Debug, Clone)]
pub struct Cell {
    /// The process that it must not outlive: the launcher's parent.
    pub parent: u32,
    /// The most bytes of address space.
    pub memory: u64,
    /// The most seconds on a processor.
    pub cpu_seconds: u64,
    /// The most bytes that a file may grow to.
    pub file_size: u64,
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
}

impl Cell {
    /// Makes this process the program, locked in. It comes back only where that failed: with why, and with what to exit with.
    pub fn enter(&self) -> (io::Error, u8) {
        let Err(error) = self.lock() else {
            return self.begin();
        };
        (error, NOT_BEGUN)
    }

    fn lock(&self) -> io::Result<()> {
        close_fds::set_fds_cloexec(3, &[]);
        die_with(self.parent)?;
        restrict_files()?;
        // What is left to a program of root's is what any program may do. There is nothing to drop for anybody else.
        let none = CapabilitySets {
            effective: CapabilitySet::empty(),
            permitted: CapabilitySet::empty(),
            inheritable: CapabilitySet::empty(),
        };
        rustix::thread::set_capabilities(None, none)?;
        for (resource, most) in [
            (Resource::Core, 0),
            (Resource::Nofile, OPEN_FILES),
            (Resource::Fsize, self.file_size),
            (Resource::Cpu, self.cpu_seconds),
            (Resource::As, self.memory),
        ] {
            // With seconds more for the processor the kernel says which limit it was.
            let maximum = match resource {
                Resource::Cpu => most.saturating_add(5),
                _ => most,
            };
            let limit = Rlimit {
                current: Some(most),
                maximum: Some(maximum),
            };
            rustix::process::setrlimit(resource, limit)?;
        }
        syscalls::restrict()
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the one place where the service becomes another program"
    )]
    fn begin(&self) -> (io::Error, u8) {
        let error = Command::new(&self.program)
            .args(&self.arguments)
            .env_clear()
            .exec();
        let code = match error.kind() {
            io::ErrorKind::NotFound => NO_PROGRAM,
            _ => NOT_BEGUN,
        };
        let text = format!("{}: {error}", self.program.display());
        (io::Error::new(error.kind(), text), code)
    }
}

/// Asks the kernel to end this process when its parent ends, which it may have done already.
fn die_with(parent: u32) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let expected = i32::try_from(parent).ok().and_then(Pid::from_raw);
    match expected.is_some() && rustix::process::getppid() == expected {
        true => Ok(()),
        false => Err(io::Error::other("the parent is gone")),
    }
}

/// Leaves the process the system's files for reading, and its standard output.
fn restrict_files() -> io::Result<()> {
    let read = AccessFs::from_read(ABI::V1);
    let ruleset = Ruleset::default()
        // What a kernel does not know yet it can't forbid: the list of system calls holds there too.
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(ABI::V5))
        .and_then(|ruleset| ruleset.handle_access(AccessNet::from_all(ABI::V4)))
        .and_then(|ruleset| ruleset.scope(Scope::from_all(ABI::V6)))
        .and_then(Ruleset::create);
    let mut ruleset = ruleset.map_err(no_landlock)?;
    for path in SYSTEM {
        // Not every system has them all.
        if let Ok(directory) = PathFd::new(path) {
            let rule = PathBeneath::new(directory, read);
            ruleset = ruleset.add_rule(rule).map_err(no_landlock)?;
        }
    }
    for path in READABLE {
        if let Ok(file) = PathFd::new(path) {
            let rule = PathBeneath::new(file, AccessFs::ReadFile);
            ruleset = ruleset.add_rule(rule).map_err(no_landlock)?;
        }
    }
    if let Ok(file) = PathFd::new(NOWHERE) {
        let both = AccessFs::ReadFile | AccessFs::WriteFile;
        let rule = PathBeneath::new(file, both);
        ruleset = ruleset.add_rule(rule).map_err(no_landlock)?;
    }
    let output = io::stdout().as_fd().try_clone_to_owned()?;
    if File::from(output.try_clone()?).metadata()?.is_file() {
        let write = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::Truncate;
        let rule = PathBeneath::new(output, write);
        ruleset = ruleset.add_rule(rule).map_err(no_landlock)?;
    }
    let status = ruleset.restrict_self().map_err(no_landlock)?;
    match status.ruleset {
        RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced => Ok(()),
        RulesetStatus::NotEnforced => Err(io::Error::other("this kernel has no Landlock")),
    }
}

fn no_landlock(error: impl std::fmt::Display) -> io::Error {
    io::Error::other(format!("Landlock: {error}"))
}
