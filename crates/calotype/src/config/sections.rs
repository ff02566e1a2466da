//! The sections and fields, and their defaults. What each means is in `default.toml`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;

use calotype_core::app::ScrubOptions;
use calotype_core::size::ByteSize;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::identity::Identity;
use super::key_services::Keys;
use super::objects::Objects;
use super::stores::{StoreChoice, Stores};
use super::values::{Bytes, Span};

/// The configuration in force.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// HTTP.
    pub(crate) server: Server,
    /// The catalog's database.
    pub(crate) catalog: Catalog,
    /// Where blobs are kept.
    pub(crate) store: Stores,
    /// Which of the stores is for new blobs.
    pub(crate) stores: StoreChoice,
    /// Buckets.
    pub(crate) objects: Objects,
    /// Exports.
    pub(crate) export: Export,
    /// Root keys and master keys.
    pub(crate) keys: Keys,
    /// Users, projects and tokens.
    pub(crate) identity: Identity,
    /// Limits on projects and images.
    pub(crate) limits: Limits,
    /// Rules for images.
    pub(crate) images: Images,
    /// Rules for replicas.
    pub(crate) replication: Replication,
    /// Workers.
    pub(crate) jobs: Jobs,
    /// The audit trail.
    pub(crate) audit: Audit,
    /// Reading stored bytes again.
    pub(crate) scrub: Scrub,
    /// Log lines.
    pub(crate) log: Log,
}

/// `[server]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Server {
    /// The address that HTTP is served on.
    pub(crate) listen: SocketAddr,
    /// The address that clients use, without a slash at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) public_url: Option<String>,
    /// How long work may go on after the signal to stop.
    pub(crate) shutdown_grace: Span,
    /// How long new requests are still taken after the signal to stop.
    pub(crate) drain_delay: Span,
    /// A body without progress for this long is ended.
    pub(crate) body_idle_timeout: Span,
    /// The largest JSON body.
    pub(crate) max_json_body: Bytes,
    /// How long a request's head may take.
    pub(crate) header_timeout: Span,
    /// How long a connection may be silent between two requests.
    pub(crate) keep_alive: Span,
    /// Bytes a second that an upload has at least. 0: any.
    pub(crate) min_upload_rate: Bytes,
    /// How long an upload is waited for before that is looked at.
    pub(crate) min_upload_rate_after: Span,
    /// Connections at once.
    pub(crate) max_connections: u32,
    /// Requests at once, without the bytes of images.
    pub(crate) max_requests: u32,
    /// Uploads at once.
    pub(crate) concurrent_uploads: u32,
    /// The proxies whose `X-Forwarded-For` is believed.
    pub(crate) trusted_proxies: Vec<IpNet>,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9292),
            public_url: None,
            shutdown_grace: Span::seconds(30),
            drain_delay: Span::seconds(0),
            body_idle_timeout: Span::seconds(60),
            max_json_body: Bytes(ByteSize::mib(1)),
            header_timeout: Span::seconds(30),
            keep_alive: Span::seconds(75),
            min_upload_rate: Bytes(ByteSize::new(16 << 10)),
            min_upload_rate_after: Span::seconds(30),
            max_connections: 4096,
            max_requests: 1024,
            concurrent_uploads: 512,
            trusted_proxies: Vec::new(),
        }
    }
}

/// `[catalog]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Catalog {
    /// `sqlite:PATH` or `postgres://...`, without a password. None: SQLite in the data directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) url: Option<String>,
    /// The file that holds the database user's password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) password_file: Option<PathBuf>,
    /// The most connections of a process.
    pub(crate) connections: u32,
    /// How long a call waits for a connection.
    pub(crate) acquire_timeout: Span,
    /// After how long PostgreSQL gives a statement up.
    pub(crate) statement_timeout: Span,
    /// What is between the service and PostgreSQL.
    pub(crate) pooler: Pooler,
    /// The database itself, past a pooler.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) direct_url: Option<String>,
}

impl Default for Catalog {
    fn default() -> Self {
        Self {
            url: None,
            password_file: None,
            connections: 16,
            acquire_timeout: Span::seconds(10),
            statement_timeout: Span::seconds(15),
            pooler: Pooler::None,
            direct_url: None,
        }
    }
}

/// What may be between the service and PostgreSQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Pooler {
    /// Nothing, or what gives each client a session.
    #[default]
    None,
    /// What lends a server for one transaction.
    Transaction,
}

/// `[export]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Export {
    /// The program that converts.
    pub(crate) qemu_img: PathBuf,
    /// Where it writes. None: `exports` in the data directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) folder: Option<PathBuf>,
    /// Conversions that one process runs at once.
    pub(crate) conversions: u32,
    /// The longest that one may take.
    pub(crate) timeout: Span,
    /// The most memory that one may have.
    pub(crate) memory: Bytes,
}

impl Default for Export {
    fn default() -> Self {
        Self {
            qemu_img: PathBuf::from("/usr/bin/qemu-img"),
            folder: None,
            conversions: 2,
            timeout: Span::seconds(12 * 3600),
            memory: Bytes(ByteSize::gib(4)),
        }
    }
}

/// `[limits]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Limits {
    /// Images in a project.
    pub(crate) images_per_project: u32,
    /// Replicas being made at once, in a project. 0 refuses every one.
    pub(crate) concurrent_replicas: u32,
    /// Jobs about members that are not done, in a project. 0 refuses every one.
    pub(crate) concurrent_member_jobs: u32,
    /// Imports being made at once, in a project. 0 refuses every one.
    pub(crate) concurrent_imports: u32,
    /// Exports being made at once, in a project. 0 refuses every one.
    pub(crate) concurrent_exports: u32,
    /// Uploads at once, of a project. None: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) concurrent_uploads: Option<NonZeroU32>,
    /// Requests a second, of a project. None: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) requests_per_second: Option<NonZeroU32>,
    /// Requests at once after a pause, of a project.
    pub(crate) burst: NonZeroU32,
    /// Requests a second without a good credential, from an address. None: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) anonymous_requests_per_second: Option<NonZeroU32>,
    /// Requests without a good credential at once after a pause, from an address.
    pub(crate) anonymous_burst: NonZeroU32,
    /// Nodes that share these limits.
    pub(crate) nodes: NonZeroU32,
    /// Tags on an image.
    pub(crate) tags_per_image: u32,
    /// Tags on an image that is tagged by the IMS API.
    pub(crate) ims_tags_per_image: u32,
    /// Projects that an image is shared with.
    pub(crate) members_per_image: u32,
    /// Properties of an image.
    pub(crate) properties_per_image: u32,
    /// Master keys of a project.
    pub(crate) keys_per_project: u32,
    /// Bytes of the images of a project. None: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bytes_per_project: Option<Bytes>,
    /// Whether a project pays for bytes that its images share once for each of them.
    pub(crate) charge_shared: bool,
    /// The largest image. None: the store's own limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_image_size: Option<Bytes>,
    /// The largest image that can be replicated. None: as `max_image_size`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_replica_size: Option<Bytes>,
    /// The largest object that can be imported, but for a quick import. None: as `max_image_size`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_import_size: Option<Bytes>,
    /// The largest image that can be exported, but for a quick export. None: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_export_size: Option<Bytes>,
    /// The smallest image that is too large for any export. None: none is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_quick_export_size: Option<Bytes>,
}

/// Requests at once after a pause.
const HUNDRED: NonZeroU32 = NonZeroU32::MIN.saturating_add(99);

impl Default for Limits {
    fn default() -> Self {
        Self::of(Profile::Calotype)
    }
}

impl Limits {
    /// The limits that `profile` sets (decision D14; OTC's as its documents give them).
    pub(crate) const fn of(profile: Profile) -> Self {
        let calotype = Self {
            images_per_project: 1000,
            concurrent_replicas: 5,
            concurrent_member_jobs: 20,
            concurrent_imports: 40,
            concurrent_exports: 20,
            concurrent_uploads: None,
            requests_per_second: None,
            burst: HUNDRED,
            anonymous_requests_per_second: None,
            anonymous_burst: HUNDRED,
            nodes: NonZeroU32::MIN,
            tags_per_image: 128,
            ims_tags_per_image: 10,
            members_per_image: 256,
            properties_per_image: 128,
            keys_per_project: 100,
            bytes_per_project: None,
            charge_shared: false,
            max_image_size: None,
            max_replica_size: None,
            max_import_size: None,
            max_export_size: None,
            max_quick_export_size: None,
        };
        match profile {
            Profile::Calotype => calotype,
            Profile::Otc => Self {
                images_per_project: 50,
                tags_per_image: 10,
                max_image_size: Some(Bytes(ByteSize::gib(1024))),
                max_replica_size: Some(Bytes(ByteSize::gib(128))),
                max_import_size: Some(Bytes(ByteSize::gib(128))),
                max_export_size: Some(Bytes(ByteSize::gib(128))),
                max_quick_export_size: Some(Bytes(ByteSize::gib(1024))),
                ..calotype
            },
        }
    }
}

/// `[images]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Images {
    /// Whose rules apply.
    pub(crate) profile: Profile,
    /// The digests that are computed of every image.
    pub(crate) digests: Vec<Digest>,
    /// How long bytes without an image are kept.
    pub(crate) deletion_grace: Span,
}

impl Default for Images {
    fn default() -> Self {
        Self {
            profile: Profile::Calotype,
            digests: vec![Digest::Md5, Digest::Sha512],
            deletion_grace: Span::seconds(3600),
        }
    }
}

/// Whose rules apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Profile {
    /// The project's own.
    #[default]
    Calotype,
    /// The Open Telekom Cloud's.
    Otc,
}

/// A digest of an image's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Digest {
    /// The native API's `checksum`.
    Md5,
    /// The native API's `os_hash_value`.
    Sha256,
    /// The native API's `os_hash_value`, its usual algorithm.
    Sha512,
}

/// `[replication]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Replication {
    /// Whether another project's public image may be replicated (decision D8).
    pub(crate) allow_public: bool,
    /// Whether an encrypted image that is shared with a project may be replicated by it (decision D7).
    pub(crate) shared_encrypted: Permission,
    /// Whether a replica may share its source's bytes under another key.
    pub(crate) allow_rewrap: bool,
    /// Segments resealed at once. None: as many as the processors make sensible.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) segments_in_flight: Option<u32>,
    /// The most memory that they take together.
    pub(crate) memory: Bytes,
    /// Bytes resealed in a second, of all jobs together. None: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) node_rate: Option<Bytes>,
    /// Bytes resealed in a second, of one job. None: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) job_rate: Option<Bytes>,
}

impl Default for Replication {
    fn default() -> Self {
        Self {
            allow_public: false,
            shared_encrypted: Permission::Allow,
            allow_rewrap: false,
            segments_in_flight: None,
            memory: Bytes(ByteSize::mib(256)),
            node_rate: None,
            job_rate: None,
        }
    }
}

/// Whether something may be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Permission {
    /// It may.
    Allow,
    /// It may not.
    Deny,
}

/// `[jobs]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Jobs {
    /// Attempts that one process runs at once.
    pub(crate) workers: u32,
    /// How long a worker may be silent.
    pub(crate) lease: Span,
    /// How often the catalog is asked for due jobs.
    pub(crate) poll_interval: Span,
    /// How long a job is kept after its end.
    pub(crate) kept: Span,
    /// Where `calotype worker` tells its metrics. None: nowhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) metrics_listen: Option<SocketAddr>,
}

impl Default for Jobs {
    fn default() -> Self {
        Self {
            workers: 64,
            lease: Span::seconds(30),
            poll_interval: Span::seconds(1),
            kept: Span::days(90),
            metrics_listen: None,
        }
    }
}

/// `[audit]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Audit {
    /// How long a line is kept.
    pub(crate) kept: Span,
}

impl Default for Audit {
    fn default() -> Self {
        Self {
            kept: Span::days(400),
        }
    }
}

/// `[scrub]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Scrub {
    /// How long after they were written or read stored bytes are read again; zero: never.
    pub(crate) every: Span,
    /// How many are read a second at the most; zero: any number.
    pub(crate) rate: Bytes,
}

impl Default for Scrub {
    fn default() -> Self {
        let ScrubOptions { every, rate } = ScrubOptions::default();
        Self {
            every: Span::seconds(every.as_secs()),
            rate: Bytes(rate),
        }
    }
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Log {
    /// The form of a line.
    pub(crate) format: LogFormat,
    /// What is logged.
    pub(crate) level: String,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            format: LogFormat::Text,
            level: "info".to_owned(),
        }
    }
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}
