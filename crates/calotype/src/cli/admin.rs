//! The grammar of `admin`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::WaitArgs;
use crate::config::parse_bytes;

/// `admin`. Needs the credentials of an administrator.
#[derive(Debug, Subcommand)]
pub(crate) enum AdminCommand {
    /// Check that every image is whole, and every invariant holds.
    Verify(VerifyArgs),
    /// List who did what, newest first: in your project, or in all for who runs the service.
    Audit {
        /// At most so many.
        #[arg(long, default_value_t = 100)]
        limit: u32,
        /// Only what is older than the event with this number.
        #[arg(long, value_name = "NUMBER")]
        before: Option<i64>,
    },
    /// List the stores of blobs, and what is in each.
    Stores,
    /// Images, whosever they are.
    #[command(subcommand)]
    Image(AdminImageCommand),
    /// The root keys, which wrap every other key.
    #[command(subcommand)]
    RootKey(RootKeyCommand),
    /// Give the stores of blobs to the catalog of a stopped system, though it is another's.
    AdoptStore(AdoptStoreArgs),
    /// Enterprise projects.
    #[command(subcommand)]
    EnterpriseProject(EnterpriseProjectCommand),
    /// Projects.
    #[command(subcommand)]
    Project(ProjectCommand),
    /// What projects may have and have.
    #[command(subcommand)]
    Quota(QuotaCommand),
    /// Users.
    #[command(subcommand)]
    User(UserCommand),
    /// Roles, and who has them.
    #[command(subcommand)]
    Role(RoleCommand),
    /// Access keys (AK/SK), for clients that sign their requests.
    #[command(subcommand)]
    AccessKey(AccessKeyCommand),
}

/// Flags of `admin verify`.
#[derive(Debug, Clone, Args)]
pub(crate) struct VerifyArgs {
    /// Read and authenticate every byte, not only every manifest.
    #[arg(long)]
    pub(crate) deep: bool,
    /// Check a stopped system in this directory, without HTTP.
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// The stopped system's configuration, in TOML.
    #[arg(
        long,
        value_name = "FILE",
        env = "CALOTYPE_CONFIG",
        requires = "data_dir"
    )]
    pub(crate) config: Option<PathBuf>,
}

/// `admin image`
#[derive(Debug, Subcommand)]
pub(crate) enum AdminImageCommand {
    /// Move an image's bytes to another store, with all images that share them. Who reads them meanwhile notices nothing.
    Move {
        /// Id, or unique name.
        image: String,
        /// The store.
        #[arg(long, value_name = "NAME")]
        store: String,
        #[command(flatten)]
        wait: WaitArgs,
    },
}

/// `admin root-key`
#[derive(Debug, Clone, Copy, Subcommand)]
pub(crate) enum RootKeyCommand {
    /// Show the root keys, and how much is wrapped under each.
    Status,
    /// Make a fresh root key in the service's own file. What the others wrap is rewrapped in the background.
    Rotate,
    /// Remove the root keys under which nothing is wrapped any more.
    Retire,
}

/// Flags of `admin adopt-store`.
#[derive(Debug, Clone, Args)]
pub(crate) struct AdoptStoreArgs {
    /// The service's data directory.
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: PathBuf,
    /// The configuration, in TOML.
    #[arg(long, value_name = "FILE", env = "CALOTYPE_CONFIG")]
    pub(crate) config: Option<PathBuf>,
}

/// `admin enterprise-project`
#[derive(Debug, Subcommand)]
pub(crate) enum EnterpriseProjectCommand {
    /// Make one.
    Create {
        /// Its name.
        name: String,
    },
    /// List all.
    List,
    /// Refuse new images in it.
    Disable {
        /// Its id.
        id: String,
    },
    /// Take new images in it again.
    Enable {
        /// Its id.
        id: String,
    },
}

/// `admin project`. A PROJECT is an id, or a name that only one has.
#[derive(Debug, Subcommand)]
pub(crate) enum ProjectCommand {
    /// Make one.
    Create {
        /// Its name.
        name: String,
        /// Its domain's id.
        #[arg(long, default_value = "default")]
        domain: String,
    },
    /// List all.
    List,
    /// Delete one.
    Delete {
        /// Id, or unique name.
        project: String,
    },
    /// Refuse logins to it.
    Disable {
        /// Id, or unique name.
        project: String,
    },
    /// Allow logins to it again.
    Enable {
        /// Id, or unique name.
        project: String,
    },
}

/// `admin quota`. A PROJECT is an id, or a name that only one has.
#[derive(Debug, Subcommand)]
pub(crate) enum QuotaCommand {
    /// Show what a project may have and has.
    Show {
        /// Id, or unique name.
        project: String,
    },
    /// Set limits of a project's own. Below what it has they take nothing away: it gets no more.
    Set {
        /// Id, or unique name.
        project: String,
        #[command(flatten)]
        limits: QuotaLimits,
    },
    /// Take a project's own limits away: the configuration's count again.
    Reset {
        /// Id, or unique name.
        project: String,
    },
}

/// Limits of a project's own: a number, `unlimited`, or `default` for the configuration's.
#[derive(Debug, Clone, Copy, Args)]
#[group(required = true, multiple = true)]
pub(crate) struct QuotaLimits {
    /// Images: a number, "unlimited", or "default" for the configuration's limit.
    #[arg(long, value_name = "LIMIT", value_parser = parse_limit)]
    pub(crate) images: Option<QuotaLimit>,
    /// Projects that an image is shared with, in the same form.
    #[arg(long, value_name = "LIMIT", value_parser = parse_limit)]
    pub(crate) members: Option<QuotaLimit>,
    /// Bytes of the images: a size such as "500 GiB", or as above.
    #[arg(long, value_name = "LIMIT", value_parser = parse_byte_limit)]
    pub(crate) bytes: Option<QuotaLimit>,
}

/// A limit of a project's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum QuotaLimit {
    /// The configuration's.
    Default,
    /// None.
    Unlimited,
    /// So many.
    At(u64),
}

fn parse_limit(text: &str) -> Result<QuotaLimit, String> {
    parse_word(text).map_or_else(
        || {
            let number = text.parse().map(QuotaLimit::At);
            number.map_err(|_| format!("{text:?} is no number, \"unlimited\" or \"default\""))
        },
        Ok,
    )
}

fn parse_byte_limit(text: &str) -> Result<QuotaLimit, String> {
    parse_word(text).map_or_else(
        || parse_bytes(text).map(|bytes| QuotaLimit::At(bytes.0.bytes())),
        Ok,
    )
}

fn parse_word(text: &str) -> Option<QuotaLimit> {
    match text {
        "default" => Some(QuotaLimit::Default),
        "unlimited" => Some(QuotaLimit::Unlimited),
        _ => None,
    }
}

/// `admin user`. A USER is an id, or a name that only one has.
#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// Make one. Without a password file a password is made up and printed, once.
    Create {
        /// Its name.
        name: String,
        /// Its domain's id.
        #[arg(long, default_value = "default")]
        domain: String,
        /// A file with the password in its first line; "-" reads standard input.
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
    },
    /// List all.
    List,
    /// Delete one.
    Delete {
        /// Id, or unique name.
        user: String,
    },
    /// Refuse its logins.
    Disable {
        /// Id, or unique name.
        user: String,
    },
    /// Allow its logins again.
    Enable {
        /// Id, or unique name.
        user: String,
    },
}

/// Whose role, and where.
#[derive(Debug, Clone, Args)]
pub(crate) struct RoleTarget {
    /// The user: id, or unique name.
    #[arg(long)]
    pub(crate) user: String,
    /// The project: id, or unique name.
    #[arg(long)]
    pub(crate) project: String,
    /// Only for the project's images in this enterprise project: id, or name.
    #[arg(long)]
    pub(crate) enterprise_project: Option<String>,
}

/// `admin role`. A ROLE is an id or a name.
#[derive(Debug, Subcommand)]
pub(crate) enum RoleCommand {
    /// Make one.
    Create {
        /// Its name.
        name: String,
    },
    /// List all, or those of a user in a project.
    List {
        /// The user: id, or unique name.
        #[arg(long, requires = "project")]
        user: Option<String>,
        /// The project: id, or unique name.
        #[arg(long, requires = "user")]
        project: Option<String>,
        /// Those that the user has on this enterprise project alone: id, or name.
        #[arg(long, requires = "project")]
        enterprise_project: Option<String>,
    },
    /// Delete one.
    Delete {
        /// Id or name.
        role: String,
    },
    /// Give a role to a user in a project.
    Grant {
        /// Id or name.
        role: String,
        #[command(flatten)]
        target: RoleTarget,
    },
    /// Take it away.
    Revoke {
        /// Id or name.
        role: String,
        #[command(flatten)]
        target: RoleTarget,
    },
}

/// `admin access-key`
#[derive(Debug, Subcommand)]
pub(crate) enum AccessKeyCommand {
    /// Make one. The secret is printed once.
    Create {
        /// The user: id, or unique name.
        #[arg(long)]
        user: String,
        /// The project that it signs for. [default: the user's first]
        #[arg(long)]
        project: Option<String>,
    },
    /// List a user's, without their secrets.
    List {
        /// The user: id, or unique name.
        #[arg(long)]
        user: String,
    },
    /// Accept requests that it signs again.
    Enable {
        /// The access key.
        access: String,
        /// The user: id, or unique name.
        #[arg(long)]
        user: String,
    },
    /// Accept no request that it signs.
    Disable {
        /// The access key.
        access: String,
        /// The user: id, or unique name.
        #[arg(long)]
        user: String,
    },
    /// Delete one.
    Delete {
        /// The access key.
        access: String,
        /// The user: id, or unique name.
        #[arg(long)]
        user: String,
    },
}
