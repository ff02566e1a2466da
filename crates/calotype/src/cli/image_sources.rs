//! The grammar of `image capture`.

use clap::{ArgGroup, Args, ValueEnum};

use super::image::{MadeArgs, WaitArgs};
use super::parse_pair;

/// Which service made a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum BackupService {
    /// Cloud Backup and Recovery.
    #[default]
    Cbr,
    /// Cloud Server Backup Service, the older one.
    Csbs,
}

/// A disk of data that an image is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DataVolume {
    /// The disk, by id.
    pub(crate) volume: String,
    /// The image's name, where it is not that of all.
    pub(crate) name: Option<String>,
}

fn parse_data_volume(text: &str) -> Result<DataVolume, String> {
    let Some((volume, rest)) = text.split_once(',') else {
        return Ok(DataVolume {
            volume: text.to_owned(),
            name: None,
        });
    };
    match parse_pair(rest)? {
        (field, name) if field == "name" => Ok(DataVolume {
            volume: volume.to_owned(),
            name: Some(name),
        }),
        (field, _) => Err(format!("{field:?} is not name")),
    }
}

/// Flags of `image capture`. What an image is made of is one of a server, its disks and a backup.
#[derive(Debug, Clone, Args)]
#[command(group = ArgGroup::new("captured").required(true).multiple(false))]
pub(crate) struct CaptureArgs {
    /// The image's name.
    pub(crate) name: String,
    /// A server, by id: an image of its system disk, or with `--whole` of all its disks.
    #[arg(long, value_name = "ID", group = "captured")]
    pub(crate) server: Option<String>,
    /// Make one full-ECS image of all the server's disks.
    #[arg(long, conflicts_with_all = ["volume", "data_volume", "backup"])]
    pub(crate) whole: bool,
    /// The vault that the backup goes to, which a full-ECS image is made of.
    #[arg(long, value_name = "ID", requires = "whole")]
    pub(crate) vault: Option<String>,
    /// A disk with a system, by id.
    #[arg(long, value_name = "ID", group = "captured", requires = "os_version")]
    pub(crate) volume: Option<String>,
    /// The operating system's version on the disk, as `image os-versions` lists them.
    #[arg(long, value_name = "VERSION", conflicts_with_all = ["server", "data_volume", "backup"])]
    pub(crate) os_version: Option<String>,
    /// A disk of data, by id. May be repeated: an image of each is made.
    #[arg(
        long,
        value_name = "ID[,name=NAME]",
        group = "captured",
        value_parser = parse_data_volume
    )]
    pub(crate) data_volume: Vec<DataVolume>,
    /// A server's backup, by id: a full-ECS image.
    #[arg(long, value_name = "ID", group = "captured")]
    pub(crate) backup: Option<String>,
    /// The service that made the backup.
    #[arg(long, value_enum, default_value_t, conflicts_with_all = ["server", "volume", "data_volume"])]
    pub(crate) backup_service: BackupService,
    #[command(flatten)]
    pub(crate) made: MadeArgs,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}
