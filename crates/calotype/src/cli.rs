//! The command line's grammar. What each command does is in `commands`.

mod admin;
mod image;
mod image_sources;
mod keys;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::config::{Bytes, parse_bytes, parse_span};
use crate::output::Format;

pub(crate) use admin::{
    AccessKeyCommand, AdminCommand, AdminImageCommand, AdoptStoreArgs, EnterpriseProjectCommand,
    ProjectCommand, QuotaCommand, QuotaLimit, QuotaLimits, RoleCommand, RoleTarget, RootKeyCommand,
    UserCommand, VerifyArgs,
};
pub(crate) use image::{
    AcceptArgs, CreateArgs, DataDisk, DownloadArgs, ExportArgs, FindArgs, ImageCommand,
    ImageTagCommand, ImportArgs, ImportType, ListArgs, MadeArgs, RegisterArgs, RejectArgs,
    ReplicateArgs, SetArgs, ShareArgs, WaitArgs,
};
pub(crate) use image_sources::{BackupService, CaptureArgs};
pub(crate) use keys::{CreateKeyArgs, GrantArgs, KeyState, KeysCommand};

const EXIT_CODES: &str = "\
Exit codes:
  0    success
  1    failure: the network, the disk, the service's own fault
  2    usage: the command line, the configuration or clouds.yaml is wrong
  3    not found, or not visible to you
  4    not authorised: no, wrong or insufficient credentials
  5    refused: a conflict, a quota, a rule, an ambiguous name
  6    the job ended in FAIL
  7    timeout; what was waited for goes on
  8    damaged: bytes don't match their digest, or verify found a violation
  130  stopped by Ctrl-C

Results go to standard output, everything else to standard error.
The service and the user are chosen as by the OpenStack tools: --os-cloud or OS_CLOUD in
clouds.yaml, and OS_* variables. Without any, ./calotype-data/clouds.yaml is taken.";

/// An image management service, and its command line.
#[derive(Debug, Parser)]
#[command(name = "calotype", version, after_long_help = EXIT_CODES, max_term_width = 100)]
pub(crate) struct Cli {
    /// The form of results: a table for people, JSON for programs.
    #[arg(long, short, global = true, value_enum, default_value_t)]
    pub(crate) output: Format,

    #[command(flatten)]
    pub(crate) connection: Connection,

    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Which service, as whom.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Connection {
    /// The cloud in clouds.yaml. Also: OS_CLOUD.
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) os_cloud: Option<String>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the service: HTTP and workers.
    Serve(ServeArgs),
    /// Run workers only, on the catalog and store of a service.
    Worker(ServeArgs),
    /// Show the service at work on a real disk image, and measure it.
    Demo(DemoArgs),
    /// Look at the service's configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Look whether a service can run here, and say what to mend.
    Doctor(DoctorArgs),
    /// Move the catalog of a stopped service out of SQLite into the PostgreSQL of a configuration.
    MigrateCatalog(MigrateCatalogArgs),
    /// Have a running service move all bytes of one of its stores to another.
    MigrateStore(MigrateStoreArgs),
    /// Make, find, change, tag, fetch, delete and replicate images.
    #[command(subcommand)]
    Image(ImageCommand),
    /// Follow jobs, and cancel them.
    #[command(subcommand)]
    Job(JobCommand),
    /// Make, disable, delete and grant a project's master keys.
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Administer a service: its users, projects and integrity.
    #[command(subcommand)]
    Admin(AdminCommand),
    /// Print the API's OpenAPI document.
    #[command(hide = true)]
    Openapi,
    /// Become another program, locked in. The service starts its converter by this.
    #[command(hide = true)]
    Jail(JailArgs),
}

/// Flags of `jail`.
#[derive(Debug, Clone, Args)]
pub(crate) struct JailArgs {
    /// The process that starts it, and that it must not outlive.
    #[arg(long, value_name = "PID")]
    pub(crate) parent: u32,
    /// Bytes of address space.
    #[arg(long, value_name = "BYTES")]
    pub(crate) memory: u64,
    /// Seconds on a processor.
    #[arg(long, value_name = "SECONDS")]
    pub(crate) cpu_seconds: u64,
    /// Bytes of a file.
    #[arg(long, value_name = "BYTES")]
    pub(crate) file_size: u64,
    /// The program, with its arguments. It has no environment.
    #[arg(last = true, required = true, value_name = "PROGRAM")]
    pub(crate) program: Vec<String>,
}

/// Flags of `serve` and `worker`.
#[derive(Debug, Clone, Args)]
pub(crate) struct ServeArgs {
    /// The directory of the catalog, the blobs, the keys and clouds.yaml; made where it is not there.
    #[arg(long, value_name = "DIR", default_value = "./calotype-data")]
    pub(crate) data_dir: PathBuf,
    /// The address to listen on. [default: 127.0.0.1:9292, or what the configuration says]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<SocketAddr>,
    /// The configuration, in TOML.
    #[arg(long, value_name = "FILE", env = "CALOTYPE_CONFIG")]
    pub(crate) config: Option<PathBuf>,
}

/// Flags of `doctor`.
#[derive(Debug, Clone, Args)]
pub(crate) struct DoctorArgs {
    /// The service's directory.
    #[arg(long, value_name = "DIR", default_value = "./calotype-data")]
    pub(crate) data_dir: PathBuf,
    /// The configuration, in TOML.
    #[arg(long, value_name = "FILE", env = "CALOTYPE_CONFIG")]
    pub(crate) config: Option<PathBuf>,
}

/// Flags of `migrate-catalog`.
#[derive(Debug, Clone, Args)]
pub(crate) struct MigrateCatalogArgs {
    /// The service's directory.
    #[arg(long, value_name = "DIR", default_value = "./calotype-data")]
    pub(crate) data_dir: PathBuf,
    /// The configuration from now on, in TOML: its `[catalog]` is the PostgreSQL.
    #[arg(long, value_name = "FILE", env = "CALOTYPE_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// The catalog to move. [default: catalog.db in the service's directory]
    #[arg(long, value_name = "FILE")]
    pub(crate) from: Option<PathBuf>,
    /// Begin while the service runs: copy, go on copying what it changes, and end the move once it has been stopped.
    #[arg(long)]
    pub(crate) while_serving: bool,
    /// Give up a move that was begun while the service ran: what it notes for it is removed, and it stays where it is.
    #[arg(long, conflicts_with = "while_serving")]
    pub(crate) give_up: bool,
    /// How many rows are copied in one transaction.
    #[arg(long, value_name = "ROWS", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) rows_at_once: u32,
}

/// Flags of `migrate-store`.
#[derive(Debug, Clone, Args)]
pub(crate) struct MigrateStoreArgs {
    /// The store that is to be left.
    #[arg(long, value_name = "NAME")]
    pub(crate) from: String,
    /// The store that the bytes are to be in. New images go there already.
    #[arg(long, value_name = "NAME")]
    pub(crate) to: String,
    /// How many blobs are moved at once.
    #[arg(long, value_name = "BLOBS", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) at_once: u32,
    /// In the end read and authenticate every byte, not only every manifest.
    #[arg(long)]
    pub(crate) deep: bool,
}

/// Flags of `demo`.
#[derive(Debug, Clone, Args)]
pub(crate) struct DemoArgs {
    /// The disk image's size.
    #[arg(long, default_value = "1 GiB", value_parser = parse_bytes)]
    pub(crate) size: Bytes,
    /// Leave the service running, and say how to reach it, until Ctrl-C.
    #[arg(long)]
    pub(crate) keep: bool,
    /// Where to make the demo's own directory. [default: the system's temporary directory]
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}

/// `config`
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Check a configuration, and print what is in force.
    Check(ConfigArgs),
    /// Print the whole documented configuration, at its defaults.
    Default,
}

/// Flags of `config check`.
#[derive(Debug, Clone, Args)]
pub(crate) struct ConfigArgs {
    /// The configuration, in TOML.
    #[arg(long, value_name = "FILE", env = "CALOTYPE_CONFIG")]
    pub(crate) config: Option<PathBuf>,
}

/// `job`
#[derive(Debug, Subcommand)]
pub(crate) enum JobCommand {
    /// Show a job.
    Show {
        /// The job's id.
        id: String,
    },
    /// Wait until a job has ended.
    Wait {
        /// The job's id.
        id: String,
        /// Stop waiting after this long. The job goes on.
        #[arg(long, value_parser = parse_duration)]
        timeout: Option<Duration>,
    },
    /// Cancel a job: it ends as FAIL, and leaves nothing of what it was making.
    Cancel {
        /// The job's id.
        id: String,
    },
    /// List the project's jobs.
    List {
        /// Only jobs in this status.
        #[arg(long, value_parser = ["INIT", "RUNNING", "SUCCESS", "FAIL"], ignore_case = true)]
        status: Option<String>,
        /// At most so many.
        #[arg(long, default_value_t = 50)]
        limit: u32,
        /// Go on after this job.
        #[arg(long, value_name = "ID")]
        marker: Option<String>,
    },
}

/// A length of time on the command line.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    parse_span(text).map(crate::config::Span::duration)
}

/// `k=v` on the command line.
pub(crate) fn parse_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is not NAME=VALUE")),
    }
}

#[cfg(test)]
mod tests;
