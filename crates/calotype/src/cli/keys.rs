//! The grammar of `keys`.

use clap::builder::PossibleValuesParser;
use clap::{ArgGroup, Args, Subcommand, ValueEnum};

/// What a grant can be for.
const OPERATIONS: [&str; 9] = [
    "describe-key",
    "create-datakey",
    "create-datakey-without-plaintext",
    "encrypt-datakey",
    "decrypt-datakey",
    "encrypt-data",
    "decrypt-data",
    "create-grant",
    "retire-grant",
];

/// `keys`. A KEY is an id, or an alias in the project.
#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Make a key, enabled at once.
    Create(CreateKeyArgs),
    /// List the project's keys, newest first.
    List {
        /// Only keys in this state.
        #[arg(long, value_enum)]
        state: Option<KeyState>,
    },
    /// Show a key.
    Show {
        /// Id or alias.
        key: String,
    },
    /// Let a key wrap and open again.
    Enable {
        /// Id or alias.
        key: String,
    },
    /// Let a key do nothing: what it sealed can't be read until it is enabled.
    Disable {
        /// Id or alias.
        key: String,
    },
    /// Make a new version wrap from now on. What older versions wrapped opens as before.
    Rotate {
        /// Id or alias.
        key: String,
    },
    /// Delete a key, and with it every image under it, in so many days. Until then it does nothing.
    ScheduleDeletion {
        /// Id or alias.
        key: String,
        /// In how many days: 7 to 1096.
        #[arg(long, value_parser = clap::value_parser!(u16).range(7..=1096))]
        days: u16,
    },
    /// Keep a key that was to be deleted. It is disabled then.
    CancelDeletion {
        /// Id or alias.
        key: String,
    },
    /// List the grants on a key.
    Grants {
        /// Id or alias.
        key: String,
    },
    /// Let a user, or all users of a domain, do something with a key. The grant's id is printed.
    Grant(GrantArgs),
    /// Take a grant away.
    RevokeGrant {
        /// Id or alias.
        key: String,
        /// The grant's id.
        grant: String,
    },
}

/// Flags of `keys create`.
#[derive(Debug, Clone, Args)]
pub(crate) struct CreateKeyArgs {
    /// Its name in the project: letters, digits and : / _ -
    pub(crate) alias: String,
    /// What it is for.
    #[arg(long, default_value = "")]
    pub(crate) description: String,
}

/// Flags of `keys grant`.
#[derive(Debug, Clone, Args)]
#[command(group(ArgGroup::new("grantee").required(true)))]
pub(crate) struct GrantArgs {
    /// Id or alias.
    pub(crate) key: String,
    /// The id of the user who may.
    #[arg(long, value_name = "ID", group = "grantee")]
    pub(crate) user: Option<String>,
    /// The id of the domain whose users may.
    #[arg(long, value_name = "ID", group = "grantee")]
    pub(crate) domain: Option<String>,
    /// What they may; can be given several times. To seal images: describe-key and encrypt-datakey; to read them:
    /// describe-key and decrypt-datakey.
    #[arg(long, value_name = "OPERATION", required = true, value_parser = PossibleValuesParser::new(OPERATIONS))]
    pub(crate) operation: Vec<String>,
    /// Its name.
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// The id of a user who may give it back.
    #[arg(long, value_name = "ID")]
    pub(crate) retiring_user: Option<String>,
}

/// The state of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum KeyState {
    /// It wraps and opens.
    Enabled,
    /// It does nothing until it is enabled.
    Disabled,
    /// It does nothing, and goes when its time has come.
    PendingDeletion,
}

impl KeyState {
    /// The KMS API's number for it.
    pub(crate) const fn number(self) -> &'static str {
        match self {
            Self::Enabled => "2",
            Self::Disabled => "3",
            Self::PendingDeletion => "4",
        }
    }
}
