//! qemu-img: started, watched, and ended.
//!
//! # Guarantees
//! It is given a [`Verified`] disk and no other, and is told the format that was verified. Where it can't be locked in
//! ([`crate::jail`]) it is not begun.
//!
//! # Crash consistency
//! The output has no name, and the program dies with this process: a crash leaves neither. The folder that a link to the
//! output is in holds no data; the next start removes it.
//!
//! # Cancellation
//! Dropping the future kills the program.

use std::fs::File;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use calotype_core::codes::ImsCode;
use calotype_core::disk::DiskFormat;
use calotype_core::inspect::Verified;
use calotype_core::ports::{Conversion, Converter};
use calotype_core::size::ByteSize;
use calotype_core::{Error, ErrorKind, Result};
use rustix::fs::{CWD, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::Signal;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::sync::Semaphore;

use crate::jail::{NO_PROGRAM, NOT_BEGUN};
use crate::nbd;

/// What a program may say that is kept for the log.
const MOST_SAID: u64 = 4096;

/// What an output may be larger than its disk: tables, and a rounded end.
const MOST_TABLES: u64 = 64 << 20;

/// Room on the file system that is left to others.
const LEFT_FREE: u64 = 64 << 20;

/// How long an output grows before it is written to its disk.
const BEHIND: Duration = Duration::from_millis(100);

/// How long a conversion waits for others. Then it is put off, and its worker does something else.
const PATIENCE: Duration = Duration::from_secs(10);

/// How qemu-img is run.
#[derive(Debug, Clone)]
pub struct QemuOptions {
    /// The program.
    pub program: PathBuf,
    /// Where outputs are made: on the file system of the buckets they need no second copy.
    pub folder: PathBuf,
    /// Whether outputs are written to the disk as they come: they are to stay there.
    pub write_behind: bool,
    /// Conversions at once.
    pub at_once: usize,
    /// The longest that one may take.
    pub timeout: Duration,
    /// The most address space that one may have.
    pub memory: ByteSize,
}

/// Converts disks by qemu-img.
pub struct QemuImg {
    options: QemuOptions,
    turns: Semaphore,
    /// Bytes that the outputs that are on may still take.
    promised: Mutex<u64>,
}

/// Room for an output, until this is dropped.
struct Promise<'a> {
    promised: &'a Mutex<u64>,
    bytes: u64,
}

impl Drop for Promise<'_> {
    fn drop(&mut self) {
        *locked(self.promised) -= self.bytes;
    }
}

fn locked(promised: &Mutex<u64>) -> MutexGuard<'_, u64> {
    promised.lock().unwrap_or_else(PoisonError::into_inner)
}

impl QemuImg {
    /// A converter with these options. Its folder is made where it is missing; what dead processes left in it is removed.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(options: QemuOptions) -> io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt as _;
        let mut builder = std::fs::DirBuilder::new();
        builder
            .recursive(true)
            .mode(0o700)
            .create(&options.folder)?;
        sweep(&options.folder)?;
        Ok(Self {
            turns: Semaphore::new(options.at_once),
            promised: Mutex::new(0),
            options,
        })
    }

    /// What the program says that it is, asked in the jail.
    ///
    /// # Errors
    /// IMG.0071 where it can't be run, with the reason in its context.
    pub async fn version(&self) -> Result<String> {
        let bounds = Bounds {
            file_size: 0,
            cpu_seconds: 10,
        };
        let mut command = self.command(&bounds, &["--version"])?;
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(not_started)?;
        let said = said_by(child.stdout.take());
        let complained = said_by(child.stderr.take());
        let (said, complained, status) = tokio::join!(said, complained, child.wait());
        let status = status.map_err(Error::unavailable)?;
        if !status.success() {
            return Err(failed(status, &complained));
        }
        Ok(said.lines().next().unwrap_or_default().to_owned())
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the one place where the service starts a process"
    )]
    fn command(&self, bounds: &Bounds, arguments: &[&str]) -> Result<Command> {
        let program = self.options.program.to_str();
        let program = program.ok_or_else(|| Error::internal("a program's path is no text"))?;
        // This very program, also where its file was replaced meanwhile.
        let mut command = Command::new("/proc/self/exe");
        command
            .arg("jail")
            .args(["--parent", &std::process::id().to_string()])
            .args(["--memory", &self.options.memory.bytes().to_string()])
            .args(["--cpu-seconds", &bounds.cpu_seconds.to_string()])
            .args(["--file-size", &bounds.file_size.to_string()])
            .args(["--", program])
            .args(arguments)
            .current_dir("/")
            .env_clear()
            .stderr(Stdio::piped())
            // What a terminal sends to the service is the service's to act on.
            .process_group(0)
            .kill_on_drop(true);
        Ok(command)
    }

    /// What bounds a conversion: the room that there is, and what such an output can need.
    fn bounds(&self, source: &Verified) -> Result<(Bounds, Promise<'_>, bool)> {
        let disk = source.disk().unwrap_or_else(|| source.size()).bytes();
        let most = disk.saturating_add(disk / 64).saturating_add(MOST_TABLES);
        let space = rustix::fs::statvfs(&self.options.folder).map_err(io::Error::from);
        let space = space.map_err(|error| Error::storage(error, FULL))?;
        let free = space.f_bavail.saturating_mul(space.f_frsize);
        let mut promised = locked(&self.promised);
        let free = free.saturating_sub(LEFT_FREE).saturating_sub(*promised);
        let bytes = most.min(free);
        *promised += bytes;
        let promise = Promise {
            promised: &self.promised,
            bytes,
        };
        let bounds = Bounds {
            file_size: bytes,
            // A thread for each processor of a machine: the clock comes first.
            cpu_seconds: self
                .options
                .timeout
                .as_secs()
                .saturating_add(1)
                .saturating_mul(64),
        };
        Ok((bounds, promise, free < most))
    }
}

#[async_trait::async_trait]
impl Converter for QemuImg {
    async fn convert(&self, source: Verified, wanted: Conversion) -> Result<Arc<File>> {
        let turn = tokio::time::timeout(PATIENCE, self.turns.acquire()).await;
        let Ok(turn) = turn else {
            return Err(Error::unavailable("other conversions are on"));
        };
        let _turn = turn.map_err(Error::internal)?;
        let output = Output::new(&self.options.folder, &wanted.name)?;
        let (bounds, _promise, is_short) = self.bounds(&source)?;
        let (ours, theirs) = UnixStream::pair().map_err(Error::unavailable)?;
        let theirs = theirs.into_std().map_err(Error::internal)?;
        theirs.set_nonblocking(false).map_err(Error::internal)?;
        let input = input(source.format()).to_string();
        let mut arguments = vec!["convert", "-q", "-O", driver(wanted.format)];
        if let Some(options) = format_options(wanted.format) {
            arguments.extend(["-o", options]);
        }
        let link = output.link.to_string_lossy();
        arguments.extend([&*input, &*link]);
        let mut command = self.command(&bounds, &arguments)?;
        command
            .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)))
            .stdout(Stdio::from(output.handle()?));
        let child = command.spawn().map_err(not_started)?;
        // It holds the client's end of the connection, which must end with the program.
        drop(command);
        let run = run(child, ours, &source, &wanted);
        let run = tokio::time::timeout(self.options.timeout, run);
        let ended = match self.options.write_behind {
            true => beside(run, &output.file).await?,
            false => run.await,
        };
        let (status, said) = ended.map_err(|_| too_long())??;
        if status.success() {
            return Ok(output.file);
        }
        let full = said.contains("No space left") || said.contains("Disk quota exceeded");
        if full || is_short && hit_the_bound(status, &said) {
            let error = Error::new(ErrorKind::StorageFull, FULL);
            return Err(error.with_context(said));
        }
        Err(failed(status, &said))
    }
}

const FULL: &str = "There is no room to convert the image.";

struct Bounds {
    file_size: u64,
    cpu_seconds: u64,
}

/// Has what is in a file written to its disk while something else goes on, so that little is left to wait for at the end.
///
/// # Errors
/// What the disk says: nobody is told it a second time.
async fn beside<T>(work: impl Future<Output = T>, file: &Arc<File>) -> Result<T> {
    let mut work = std::pin::pin!(work);
    loop {
        if let Ok(done) = tokio::time::timeout(BEHIND, &mut work).await {
            return Ok(done);
        }
        let file = Arc::clone(file);
        let mut written = tokio::task::spawn_blocking(move || file.sync_data());
        let (done, written) = tokio::select! {
            done = &mut work => (Some(done), written.await),
            result = &mut written => (None, result),
        };
        let written = written.map_err(Error::internal)?;
        written.map_err(|error| Error::storage(error, FULL))?;
        if let Some(done) = done {
            return Ok(done);
        }
    }
}

/// Serves the disk to the program until that has ended: how, and what it said.
async fn run(
    mut child: Child,
    socket: UnixStream,
    source: &Verified,
    wanted: &Conversion,
) -> Result<(ExitStatus, String)> {
    let said = said_by(child.stderr.take());
    let serve = nbd::serve(socket, source, &wanted.progress);
    let (served, said, status) = tokio::join!(serve, said, child.wait());
    // What the disk said explains what the program made of it.
    served?;
    Ok((status.map_err(Error::unavailable)?, said))
}

/// The beginning of what a program says, once it says no more.
async fn said_by(stream: Option<impl AsyncRead + Unpin>) -> String {
    let Some(mut stream) = stream else {
        return String::new();
    };
    let mut said = Vec::new();
    let _ = (&mut stream).take(MOST_SAID).read_to_end(&mut said).await;
    // The rest too, so that it does not wait for a reader.
    let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    let text = String::from_utf8_lossy(&said);
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    text.trim().chars().map(plain).collect()
}

/// QEMU's word for a format.
const fn driver(format: DiskFormat) -> &'static str {
    match format {
        DiskFormat::Vhd => "vpc",
        other => other.as_str(),
    }
}

/// How a format's files are made: a VHD of just the disk's size, and not of the next that old computers could address.
const fn format_options(format: DiskFormat) -> Option<&'static str> {
    match format {
        DiskFormat::Vhd => Some("subformat=dynamic,force_size=on"),
        DiskFormat::Vmdk => Some("subformat=monolithicSparse"),
        _ => None,
    }
}

/// The disk as QEMU's block layer takes it, in full: nothing is guessed, and no other file is opened, whatever a header says.
fn input(format: DiskFormat) -> impl std::fmt::Display {
    let server = json!({"type": "fd", "str": "0"});
    let file = json!({"driver": "nbd", "server": server, "read-only": true});
    let mut disk = json!({"driver": driver(format), "file": file, "read-only": true});
    if format == DiskFormat::Qcow2 {
        disk["backing"] = serde_json::Value::Null;
    }
    if format == DiskFormat::Vhd {
        // As long as its footer says, and was verified: what it says of cylinders may be less.
        disk["force_size_calc"] = "current_size".into();
    }
    format!("json:{disk}")
}

/// A file without a name, and a link to it that has one.
struct Output {
    file: Arc<File>,
    link: PathBuf,
    /// Locked as long as it is in use.
    _folder: File,
    /// Removed when dropped.
    _name: tempfile::TempDir,
}

impl Output {
    /// The link is to the standard output of whoever opens it: the file there is the only one that the program may write. Some
    /// formats keep the name in the file, so it is the object's.
    fn new(folder: &Path, name: &str) -> Result<Self> {
        let here = |error: io::Error| Error::storage(error, FULL);
        let file = nameless(folder).map_err(here)?;
        let made = tempfile::tempdir_in(folder).map_err(here)?;
        let locked = File::open(made.path()).map_err(here)?;
        rustix::fs::flock(&locked, FlockOperation::NonBlockingLockExclusive)
            .map_err(Error::unavailable)?;
        let link = made.path().join(name);
        std::os::unix::fs::symlink("/proc/self/fd/1", &link).map_err(here)?;
        Ok(Self {
            file: Arc::new(file),
            link,
            _folder: locked,
            _name: made,
        })
    }

    fn handle(&self) -> Result<File> {
        self.file.try_clone().map_err(Error::unavailable)
    }
}

/// A file in a folder that nobody can name. Where the file system has no such files, it is one whose name is gone.
fn nameless(folder: &Path) -> io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    match rustix::fs::openat(CWD, folder, flags, Mode::RUSR | Mode::WUSR) {
        Ok(file) => Ok(file.into()),
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT) => tempfile::tempfile_in(folder),
        Err(error) => Err(error.into()),
    }
}

/// Removes the folders of processes that are gone.
fn sweep(folder: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Ok(opened) = rustix::fs::open(&path, flags, Mode::empty()) else {
            continue;
        };
        if rustix::fs::flock(&opened, FlockOperation::NonBlockingLockExclusive).is_ok() {
            match std::fs::remove_dir_all(&path) {
                // Whoever had it removed it meanwhile.
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}

fn hit_the_bound(status: ExitStatus, said: &str) -> bool {
    status.signal() == Some(Signal::XFSZ.as_raw()) || said.contains("File too large")
}

/// Why the image can't be exported, for its owner; what the program said is for the log alone.
fn refusal(reason: &str, said: String) -> Error {
    let error = Error::invalid(format!("The image can't be exported: {reason}."));
    error.with_code(ImsCode::IMG_0071).with_context(said)
}

fn failed(status: ExitStatus, said: &str) -> Error {
    let said = format!("{status}: {said}");
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    match (code, status.signal()) {
        (Some(NOT_BEGUN), _) => refusal("this service can't isolate what converts it", said),
        (Some(NO_PROGRAM), _) => refusal("this service has no qemu-img", said),
        // Somebody, or the kernel when memory is short, ended it: another attempt may do better.
        (_, Some(signal)) if signal == Signal::KILL.as_raw() || signal == Signal::TERM.as_raw() => {
            Error::unavailable(said)
        }
        (_, Some(signal)) if signal == Signal::XCPU.as_raw() => too_long().with_context(said),
        _ => refusal("it could not be converted", said),
    }
}

fn too_long() -> Error {
    refusal("its conversion takes too long", "a timeout".to_owned())
}

fn not_started(error: io::Error) -> Error {
    Error::unavailable(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_disk_says_of_bytes_that_are_written_behind_ends_the_work() {
        // What can't be written to a disk at all.
        let (_reader, pipe) = io::pipe().unwrap();
        let pipe = Arc::new(File::from(std::os::fd::OwnedFd::from(pipe)));
        let ended = beside(std::future::pending::<()>(), &pipe).await;
        assert!(ended.is_err());
    }

    #[tokio::test]
    async fn work_ends_as_it_does_however_often_its_file_is_written_behind() {
        let file = Arc::new(tempfile::tempfile().unwrap());
        let work = async {
            for _ in 0..4 {
                tokio::time::sleep(BEHIND).await;
            }
            7
        };
        assert_eq!(beside(work, &file).await.unwrap(), 7);
    }
}
