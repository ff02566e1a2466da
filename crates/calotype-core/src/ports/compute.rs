//! The port to servers, disks and backups, which are other services': what images can be made of.
//!
//! Nothing reads their bytes yet. An adapter brings that with it.

use crate::codes::ImsCode;
use crate::error::{Error, Result};
use crate::id::{BackupId, ProjectId, ServerId, VaultId, VolumeId};

/// Which service made a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackupKind {
    /// A backup of CBR (Cloud Backup and Recovery).
    Cbr,
    /// A backup of CSBS (Cloud Server Backup Service), which is the older one.
    Csbs,
}

/// Servers, disks and backups, and whether an image can be made of one now. What another project has is not there.
///
/// # Errors
/// Of each method, besides those that it names: Unavailable where the service that keeps them is away.
#[async_trait::async_trait]
pub trait ComputeSource: Send + Sync {
    /// Whether an image can be made of a server's system disk.
    ///
    /// # Errors
    /// IMG.0005 for one that is not there; IMG.0010, 0063, 0164 for one that can't have an image made now; IMG.0006, 0110,
    /// 0111, 0119 for its system disk.
    async fn check_server(&self, project: &ProjectId, server: &ServerId) -> Result<()>;

    /// Whether images can be made of these disks together.
    ///
    /// # Errors
    /// IMG.0120 for one that is not there, IMG.0022, 0153 for one that can't have an image made, IMG.0140 where they are of
    /// different servers.
    async fn check_volumes(&self, project: &ProjectId, volumes: &[VolumeId]) -> Result<()>;

    /// Whether an image can be made of all of a server, by way of a backup in this vault where one is named.
    ///
    /// # Errors
    /// IMG.0005 for one that is not there; IMG.0126, 0136 for its state; IMG.0184, 0193, 0182, 0188 for the vault.
    async fn check_whole_server(
        &self,
        project: &ProjectId,
        server: &ServerId,
        vault: Option<&VaultId>,
    ) -> Result<()>;

    /// Whether an image can be made of a backup.
    ///
    /// # Errors
    /// IMG.0020 for one that is not there; IMG.0198 where it is of another kind; IMG.0032, 0029, 0033 for its state and what
    /// is in it.
    async fn check_backup(
        &self,
        project: &ProjectId,
        backup: &BackupId,
        kind: BackupKind,
    ) -> Result<()>;
}

/// No servers, no disks and no backups.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoCompute;

#[async_trait::async_trait]
impl ComputeSource for NoCompute {
    async fn check_server(&self, _: &ProjectId, _: &ServerId) -> Result<()> {
        Err(Error::ims(ImsCode::IMG_0005))
    }

    async fn check_volumes(&self, _: &ProjectId, _: &[VolumeId]) -> Result<()> {
        Err(Error::ims(ImsCode::IMG_0120))
    }

    async fn check_whole_server(
        &self,
        _: &ProjectId,
        _: &ServerId,
        _: Option<&VaultId>,
    ) -> Result<()> {
        Err(Error::ims(ImsCode::IMG_0005))
    }

    async fn check_backup(&self, _: &ProjectId, _: &BackupId, _: BackupKind) -> Result<()> {
        Err(Error::ims(ImsCode::IMG_0020))
    }
}
