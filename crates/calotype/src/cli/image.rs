//! The grammar of `image`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::image_sources::CaptureArgs;
use super::{parse_duration, parse_pair};

/// `image`. An IMAGE is an id, or a name that only one image has.
#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Make an image, and upload its bytes.
    Create(Box<CreateArgs>),
    /// List the images that you may see.
    List(Box<ListArgs>),
    /// Show an image.
    Show {
        /// Id, or unique name.
        image: String,
    },
    /// Change an image.
    Set(Box<SetArgs>),
    /// Fetch an image's bytes, verified.
    Download(DownloadArgs),
    /// Delete images.
    Delete {
        /// Ids, or unique names.
        #[arg(required = true, value_name = "IMAGE")]
        images: Vec<String>,
    },
    /// Keep an image from being downloaded and replicated.
    Deactivate {
        /// Id, or unique name.
        image: String,
    },
    /// Let a deactivated image be used again.
    Reactivate {
        /// Id, or unique name.
        image: String,
    },
    /// Replicate an image within the region, or to another one.
    Replicate(ReplicateArgs),
    /// Share images with projects.
    Share(ShareArgs),
    /// End the sharing of images with projects.
    Unshare(ShareArgs),
    /// Accept images that are shared with your project.
    Accept(AcceptArgs),
    /// Reject images that are shared with your project, also after accepting them.
    Reject(RejectArgs),
    /// List the projects that an image is shared with, and their answers.
    Members {
        /// Id, or unique name.
        image: String,
        /// Only this project, by id.
        #[arg(long, value_name = "ID")]
        project: Option<String>,
    },
    /// Make images of a server, of its disks or of a backup.
    Capture(Box<CaptureArgs>),
    /// Make an image of an object in a bucket.
    Import(Box<ImportArgs>),
    /// Give an image without bytes those of an object in a bucket.
    Register(RegisterArgs),
    /// Write an image into a bucket.
    Export(ExportArgs),
    /// Show what your project may have of images, and has.
    Quota,
    /// List the operating systems that the service knows, as `__os_version` names them.
    OsVersions {
        /// Only those for this use.
        #[arg(long, value_parser = ["bms_otc", "uefi"])]
        tag: Option<String>,
    },
    /// Show what an image, a member or a list of them can have, as a JSON schema.
    Schema {
        /// Of what.
        #[arg(default_value = "image", value_parser = ["image", "images", "member", "members"])]
        of: String,
    },
    /// List the versions of the Image API that the service speaks.
    Versions,
    /// List the stores that images are kept in.
    Stores,
    /// Tag images, see their tags, and find images by them.
    #[command(subcommand)]
    Tag(ImageTagCommand),
}

/// `image tag`. A tag is a key with a value, which may be empty.
#[derive(Debug, Subcommand)]
pub(crate) enum ImageTagCommand {
    /// Tag an image. A tag takes the place of the one with the same key.
    Add {
        /// Id, or unique name.
        image: String,
        /// Tags.
        #[arg(required = true, value_name = "KEY[=VALUE]")]
        tags: Vec<String>,
    },
    /// Take tags from an image.
    Remove {
        /// Id, or unique name.
        image: String,
        /// Their keys.
        #[arg(required = true, value_name = "KEY")]
        keys: Vec<String>,
    },
    /// List an image's tags, or those of all images of the project.
    List {
        /// Id, or unique name.
        image: Option<String>,
    },
    /// List the images of the project that meet all of these conditions.
    Find(FindArgs),
}

/// Conditions of `image tag find`.
#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = true)]
pub(crate) struct FindArgs {
    /// Tags, of which an image has all: of one key, any; without a value, whatever it is. So it is in the other lists of tags.
    #[arg(value_name = "KEY[=VALUE]")]
    pub(crate) tags: Vec<String>,
    /// A tag, of which an image has one. May be repeated.
    #[arg(long, value_name = "KEY[=VALUE]")]
    pub(crate) any: Vec<String>,
    /// A tag, of which an image does not have all. May be repeated.
    #[arg(long, value_name = "KEY[=VALUE]")]
    pub(crate) not: Vec<String>,
    /// A tag, of which an image has none. May be repeated.
    #[arg(long, value_name = "KEY[=VALUE]")]
    pub(crate) not_any: Vec<String>,
    /// Only images without any tag.
    #[arg(long, conflicts_with_all = ["tags", "any", "not", "not_any"])]
    pub(crate) untagged: bool,
    /// Only images with this in their name.
    #[arg(long, value_name = "TEXT")]
    pub(crate) name: Option<String>,
    /// Only the image with this id.
    #[arg(long, value_name = "ID")]
    pub(crate) id: Option<String>,
}

/// Who sees an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Visibility {
    /// Its project.
    Private,
    /// Its project and the projects that it is shared with.
    Shared,
    /// All, where they know its id.
    Community,
    /// All.
    Public,
}

impl Visibility {
    /// The word of the API.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Private => "private",
            Self::Shared => "shared",
            Self::Community => "community",
            Self::Public => "public",
        }
    }
}

/// Flags of `image create`.
#[derive(Debug, Clone, Args)]
pub(crate) struct CreateArgs {
    /// The image's name.
    pub(crate) name: String,
    /// The bytes; "-" reads standard input. Without it a record without bytes is made.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// The bytes' format.
    #[arg(long, default_value = "raw", value_name = "FORMAT")]
    pub(crate) disk_format: String,
    /// The format around them.
    #[arg(long, default_value = "bare", value_name = "FORMAT")]
    pub(crate) container_format: String,
    /// A property. May be repeated.
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_pair)]
    pub(crate) property: Vec<(String, String)>,
    /// A tag. May be repeated.
    #[arg(long)]
    pub(crate) tag: Vec<String>,
    /// The least disk that a server needs, in GB.
    #[arg(long, value_name = "GB")]
    pub(crate) min_disk: Option<u32>,
    /// The least memory that a server needs, in MB.
    #[arg(long, value_name = "MB")]
    pub(crate) min_ram: Option<u32>,
    /// Who sees it.
    #[arg(long, value_enum)]
    pub(crate) visibility: Option<Visibility>,
    /// Refuse to delete it.
    #[arg(long)]
    pub(crate) protected: bool,
    /// The store for the bytes, as `image stores` lists them.
    #[arg(long, requires = "file", value_name = "NAME")]
    pub(crate) store: Option<String>,
    /// Compute the digest of the file here too, and compare it with the service's.
    #[arg(long, requires = "file")]
    pub(crate) verify: bool,
}

/// Flags of `image list`.
#[derive(Debug, Clone, Args)]
pub(crate) struct ListArgs {
    /// Only images with this name.
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Only images in this status.
    #[arg(long)]
    pub(crate) status: Option<String>,
    /// Only images seen this way.
    #[arg(long, value_enum)]
    pub(crate) visibility: Option<Visibility>,
    /// Only images with this tag. May be repeated.
    #[arg(long)]
    pub(crate) tag: Vec<String>,
    /// Only images with this property, such as __os_type=Linux, __imagetype=gold or virtual_env_type=DataImage. May be
    /// repeated.
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_pair)]
    pub(crate) property: Vec<(String, String)>,
    /// Only images of this project, by id.
    #[arg(long, value_name = "ID")]
    pub(crate) owner: Option<String>,
    /// Of images that other projects share with yours, those that it answered so. [default: accepted]
    #[arg(long, value_name = "ANSWER", value_parser = ["accepted", "pending", "rejected", "all"])]
    pub(crate) member_status: Option<String>,
    /// Only images that can't be deleted.
    #[arg(long, conflicts_with = "unprotected")]
    pub(crate) protected: bool,
    /// Only images that can be deleted.
    #[arg(long)]
    pub(crate) unprotected: bool,
    /// Only images whose bytes are in this format.
    #[arg(long, value_name = "FORMAT")]
    pub(crate) disk_format: Option<String>,
    /// Only images with this format around their bytes.
    #[arg(long, value_name = "FORMAT")]
    pub(crate) container_format: Option<String>,
    /// Only images that need exactly this disk, in GB.
    #[arg(long, value_name = "GB")]
    pub(crate) min_disk: Option<u32>,
    /// Only images that need exactly this memory, in MB.
    #[arg(long, value_name = "MB")]
    pub(crate) min_ram: Option<u32>,
    /// Only images under this master key, by id.
    #[arg(long, value_name = "ID")]
    pub(crate) key: Option<String>,
    /// Only images in this enterprise project, by id; 0 is the default one.
    #[arg(long, value_name = "ID")]
    pub(crate) enterprise_project: Option<String>,
    /// Only images that were made then: lt, lte, gt, gte, eq or neq, and a time, as in gte:2024-01-02T03:04:05Z. May be
    /// repeated.
    #[arg(long, value_name = "OPERATOR:TIME")]
    pub(crate) created: Vec<String>,
    /// Only images that last changed then. May be repeated.
    #[arg(long, value_name = "OPERATOR:TIME")]
    pub(crate) updated: Vec<String>,
    /// What they are sorted by, the largest or newest first. [default: created_at]
    #[arg(long, value_name = "FIELD")]
    pub(crate) sort: Option<String>,
    /// Sort the smallest or oldest first.
    #[arg(long)]
    pub(crate) ascending: bool,
    /// At most so many. [default: all]
    #[arg(long)]
    pub(crate) limit: Option<usize>,
}

/// Flags of `image set`.
#[derive(Debug, Clone, Args)]
pub(crate) struct SetArgs {
    /// Id, or unique name.
    pub(crate) image: String,
    /// A new name.
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Set a property. May be repeated.
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_pair)]
    pub(crate) property: Vec<(String, String)>,
    /// Remove a property. May be repeated.
    #[arg(long, value_name = "NAME")]
    pub(crate) remove_property: Vec<String>,
    /// Add a tag. May be repeated.
    #[arg(long)]
    pub(crate) tag: Vec<String>,
    /// Remove a tag. May be repeated.
    #[arg(long, value_name = "TAG")]
    pub(crate) remove_tag: Vec<String>,
    /// The least disk that a server needs, in GB.
    #[arg(long, value_name = "GB")]
    pub(crate) min_disk: Option<u32>,
    /// The least memory that a server needs, in MB.
    #[arg(long, value_name = "MB")]
    pub(crate) min_ram: Option<u32>,
    /// Who sees it.
    #[arg(long, value_enum)]
    pub(crate) visibility: Option<Visibility>,
    /// Refuse to delete it.
    #[arg(long, conflicts_with = "unprotected")]
    pub(crate) protected: bool,
    /// Allow to delete it.
    #[arg(long)]
    pub(crate) unprotected: bool,
}

/// Flags of `image download`.
#[derive(Debug, Clone, Args)]
pub(crate) struct DownloadArgs {
    /// Id, or unique name.
    pub(crate) image: String,
    /// Where to; without it, or with "-", standard output. A file has its name once it is verified.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Replace the file where it exists.
    #[arg(long)]
    pub(crate) force: bool,
}

/// Flags of `image replicate`.
#[derive(Debug, Clone, Args)]
pub(crate) struct ReplicateArgs {
    /// Id, or unique name.
    pub(crate) image: String,
    /// The replica's name.
    #[arg(long)]
    pub(crate) name: String,
    /// The replica's description.
    #[arg(long)]
    pub(crate) description: Option<String>,
    /// The replica's enterprise project, by id.
    #[arg(long, value_name = "ID")]
    pub(crate) enterprise_project: Option<String>,
    /// The master key that seals the replica. Without it: the service's own.
    #[arg(long, value_name = "ID")]
    pub(crate) key: Option<String>,
    /// How a replica under another key gets its bytes: rewrap shares the source's, where the service allows it.
    #[arg(long, value_name = "MODE", value_parser = ["reseal", "rewrap"])]
    pub(crate) encryption_mode: Option<String>,
    /// The store for a replica under another key, as `image stores` lists them.
    #[arg(long, value_name = "NAME")]
    pub(crate) store: Option<String>,
    /// The region that the replica is to be in, where it is another one.
    #[arg(
        long,
        requires_all = ["project_name", "agency"],
        conflicts_with_all = ["enterprise_project", "key", "encryption_mode", "store"]
    )]
    pub(crate) region: Option<String>,
    /// The project there, by name.
    #[arg(long, value_name = "NAME", requires = "region")]
    pub(crate) project_name: Option<String>,
    /// The agency that lets the service act there.
    #[arg(long, value_name = "NAME", requires = "region")]
    pub(crate) agency: Option<String>,
    /// The vault there, for the backup of a full-ECS image.
    #[arg(long, value_name = "ID", requires = "region")]
    pub(crate) vault: Option<String>,
    /// Wait until the replica is there.
    #[arg(long)]
    pub(crate) wait: bool,
    /// Stop waiting after this long. The job goes on.
    #[arg(long, requires = "wait", value_parser = parse_duration)]
    pub(crate) timeout: Option<Duration>,
}

/// Flags of `image share` and `image unshare`.
#[derive(Debug, Clone, Args)]
pub(crate) struct ShareArgs {
    /// Ids, or unique names.
    #[arg(required = true, value_name = "IMAGE")]
    pub(crate) images: Vec<String>,
    /// A project, by id. May be repeated.
    #[arg(long, required = true, value_name = "ID")]
    pub(crate) project: Vec<String>,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

/// Flags of `image accept`.
#[derive(Debug, Clone, Args)]
pub(crate) struct AcceptArgs {
    /// Ids: a list has no image that was not accepted yet.
    #[arg(required = true, value_name = "IMAGE")]
    pub(crate) images: Vec<String>,
    /// The vault for the backups of full-ECS images.
    #[arg(long, value_name = "ID")]
    pub(crate) vault: Option<String>,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

/// Flags of `image reject`.
#[derive(Debug, Clone, Args)]
pub(crate) struct RejectArgs {
    /// Ids, or unique names of images that were accepted.
    #[arg(required = true, value_name = "IMAGE")]
    pub(crate) images: Vec<String>,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

/// How a command's job is waited for.
#[derive(Debug, Clone, Args)]
pub(crate) struct WaitArgs {
    /// Wait until it is done.
    #[arg(long)]
    pub(crate) wait: bool,
    /// Stop waiting after this long. The job goes on.
    #[arg(long, requires = "wait", value_parser = parse_duration)]
    pub(crate) timeout: Option<Duration>,
}

/// What an import makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ImportType {
    /// An image of a system disk.
    Ecs,
    /// An image of a bare-metal server's system disk.
    Bms,
    /// An ISO file's.
    Iso,
    /// An image of a data disk.
    Data,
}

/// A disk of data that is imported with the system's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DataDisk {
    pub(crate) object: String,
    pub(crate) min_disk: Option<u32>,
    pub(crate) name: Option<String>,
}

fn parse_data_disk(text: &str) -> Result<DataDisk, String> {
    let mut parts = text.split(',');
    let mut disk = DataDisk {
        object: parts.next().unwrap_or_default().to_owned(),
        min_disk: None,
        name: None,
    };
    for part in parts {
        let (name, value) = parse_pair(part)?;
        match name.as_str() {
            "min-disk" => {
                let size = value.parse();
                disk.min_disk = Some(size.map_err(|_| format!("{value:?} is no size in GB"))?);
            }
            "name" => disk.name = Some(value),
            _ => return Err(format!("{name:?} is neither min-disk nor name")),
        }
    }
    Ok(disk)
}

/// Flags of `image import`.
#[derive(Debug, Clone, Args)]
pub(crate) struct ImportArgs {
    /// The image's name.
    pub(crate) name: String,
    /// The object.
    #[arg(long, value_name = "BUCKET:OBJECT")]
    pub(crate) bucket_object: String,
    /// The least disk that a server needs, in GB.
    #[arg(long, value_name = "GB")]
    pub(crate) min_disk: u32,
    /// A disk of data that belongs to the system's, of which an image is made too; `--min-disk` holds for it where it says
    /// nothing else. At most three.
    #[arg(
        long,
        value_name = "BUCKET:OBJECT[,min-disk=GB][,name=NAME]",
        value_parser = parse_data_disk
    )]
    pub(crate) data_disk: Vec<DataDisk>,
    /// What is made.
    #[arg(long = "type", value_enum, default_value = "ecs")]
    pub(crate) kind: ImportType,
    /// The operating system's version, as `image os-versions` lists them.
    #[arg(long, value_name = "VERSION")]
    pub(crate) os_version: Option<String>,
    /// The operating system's type.
    #[arg(long, value_parser = ["Linux", "Windows", "Other"])]
    pub(crate) os_type: Option<String>,
    /// What a server starts the image with.
    #[arg(long, value_parser = ["bios", "uefi"])]
    pub(crate) firmware: Option<String>,
    /// The processor's architecture.
    #[arg(long, value_parser = ["x86", "arm"])]
    pub(crate) architecture: Option<String>,
    /// Let the service configure the system for its servers.
    #[arg(long)]
    pub(crate) configure: bool,
    /// Take the object as it is, of any size: raw or ZVHD2.
    #[arg(long, conflicts_with = "data_disk")]
    pub(crate) quick: bool,
    /// The master key that seals the image. Without it: the service's own.
    #[arg(long, value_name = "ID")]
    pub(crate) key: Option<String>,
    /// The store for the bytes, as `image stores` lists them.
    #[arg(long, value_name = "NAME")]
    pub(crate) store: Option<String>,
    #[command(flatten)]
    pub(crate) made: MadeArgs,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

/// What is said of an image that a job makes.
#[derive(Debug, Clone, Args)]
pub(crate) struct MadeArgs {
    /// The image's description.
    #[arg(long)]
    pub(crate) description: Option<String>,
    /// The least memory that a server needs, in MB.
    #[arg(long, value_name = "MB")]
    pub(crate) min_ram: Option<u32>,
    /// The most memory that a server has, in MB.
    #[arg(long, value_name = "MB")]
    pub(crate) max_ram: Option<u32>,
    /// A tag. May be repeated.
    #[arg(long, value_name = "KEY[=VALUE]")]
    pub(crate) tag: Vec<String>,
    /// The image's enterprise project, by id.
    #[arg(long, value_name = "ID")]
    pub(crate) enterprise_project: Option<String>,
}

/// Flags of `image register`.
#[derive(Debug, Clone, Args)]
pub(crate) struct RegisterArgs {
    /// Id, or unique name.
    pub(crate) image: String,
    /// The object.
    #[arg(long, value_name = "BUCKET:OBJECT")]
    pub(crate) bucket_object: String,
    /// Seal the image under this master key.
    #[arg(long, value_name = "ID")]
    pub(crate) key: Option<String>,
    /// The store for the bytes, as `image stores` lists them.
    #[arg(long, value_name = "NAME")]
    pub(crate) store: Option<String>,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

/// Flags of `image export`.
#[derive(Debug, Clone, Args)]
pub(crate) struct ExportArgs {
    /// Id, or unique name.
    pub(crate) image: String,
    /// The object, which must not be there.
    #[arg(value_name = "BUCKET:FILE")]
    pub(crate) bucket_file: String,
    /// The object's format.
    #[arg(
        long,
        value_parser = ["qcow2", "vhd", "vmdk", "raw", "zvhd", "zvhd2"],
        required_unless_present = "quick",
        conflicts_with = "quick"
    )]
    pub(crate) format: Option<String>,
    /// Write an image that is stored as ZVHD2 as it is, of any size.
    #[arg(long)]
    pub(crate) quick: bool,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}
