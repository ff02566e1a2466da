//! Images of servers, disks and backups (spec 2.3, 2.6): what is checked of a request before other services are asked for
//! what it names.
//!
//! Nothing is made yet: no adapter of [`crate::ports::ComputeSource`] reads their bytes.

use super::os_version;
use super::{Call, Service, import};
use crate::access::Action;
use crate::codes::ImsCode;
use crate::error::{Error, Result};
use crate::id::{BackupId, JobId, ServerId, VaultId, VolumeId};
use crate::image_tag::Tag;
use crate::job::JobFamily;
use crate::name::{Description, ImageName};
use crate::ports::{BackupKind, ImageLimit};

/// What images are made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The system disk of a server: one image.
    Server(ServerId),
    /// A disk that holds a system: one image.
    SystemVolume {
        /// The disk.
        volume: VolumeId,
        /// The system's version, as the caller wrote it.
        os_version: String,
    },
    /// Disks that hold data: an image of each.
    DataVolumes(Vec<VolumeId>),
    /// All disks of a server: one full-ECS image.
    WholeServer {
        /// The server.
        server: ServerId,
        /// Where the backup goes that it is made of.
        vault: Option<VaultId>,
    },
    /// A server's backup: one full-ECS image.
    Backup {
        /// The backup.
        backup: BackupId,
        /// Which service made it.
        kind: BackupKind,
    },
}

impl Source {
    /// What the caller has to be permitted.
    pub const fn action(&self) -> Action {
        match self {
            Self::Server(_) | Self::SystemVolume { .. } | Self::DataVolumes(_) => {
                Action::ServerImagesCreate
            }
            Self::WholeServer { .. } | Self::Backup { .. } => Action::WholeImagesCreate,
        }
    }
}

/// What an image that is made of a source is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceImage {
    /// Its name.
    pub name: ImageName,
    /// Its description.
    pub description: Description,
    /// Its tags.
    pub tags: Vec<Tag>,
}

/// What a caller asks for.
#[derive(Debug, Clone)]
pub struct SourceOrder {
    /// What the images are made of.
    pub source: Source,
    /// The images.
    pub images: Vec<SourceImage>,
    /// MiB of memory that a server needs.
    pub min_ram: u32,
    /// MiB of memory that a server has at most; none: any.
    pub max_ram: Option<u32>,
    /// The enterprise project for the images, as the caller wrote it.
    pub enterprise_project: Option<String>,
}

impl Service {
    /// Makes images of a server, of disks or of a backup.
    ///
    /// # Errors
    /// IMG.0026; for the order itself IMG.0056, 0055, 0115, 0116, 0155; IMG.0015 and 0060 for the limits; what
    /// [`crate::ports::ComputeSource`] says of the source; and IMG.0105 where it has nothing against it.
    pub async fn image_of_source(&self, call: &Call, order: &SourceOrder) -> Result<JobId> {
        let allowed = self.authorize_within(call, order.source.action())?;
        let project = call.principal.require_project()?;
        if let Source::SystemVolume { os_version, .. } = &order.source
            && !os_version::is_known(os_version)
        {
            return Err(Error::ims(ImsCode::IMG_0056));
        }
        import::check_memory(order.min_ram, order.max_ram)?;
        for image in &order.images {
            self.tag_texts(&image.tags)?;
        }
        let wanted = order.enterprise_project.as_deref();
        let makes = std::slice::from_ref(&allowed);
        self.wanted_enterprise_project(makes, wanted).await?;
        let limits = &self.settings.limits;
        let limit = ImageLimit(limits.images_per_project);
        let concurrency = limits.concurrent_imports;
        self.catalog
            .check_room(project, Some(limit), JobFamily::Import, concurrency)
            .await?;
        let compute = &self.compute;
        match &order.source {
            Source::Server(server) => compute.check_server(project, server).await,
            Source::SystemVolume { volume, .. } => {
                let volumes = std::slice::from_ref(volume);
                compute.check_volumes(project, volumes).await
            }
            Source::DataVolumes(volumes) => compute.check_volumes(project, volumes).await,
            Source::WholeServer { server, vault } => {
                let vault = vault.as_ref();
                compute.check_whole_server(project, server, vault).await
            }
            Source::Backup { backup, kind } => compute.check_backup(project, backup, *kind).await,
        }?;
        Err(Error::ims(ImsCode::IMG_0105))
    }
}
