//! The formats of disks that images are exported from and to.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::image::{UnknownWord, word_enum};

word_enum! {
    /// A format that a disk's bytes are in, as `disk_format` names it.
    DiskFormat {
        /// The disk as it is.
        Raw = "raw",
        /// QEMU's.
        Qcow2 = "qcow2",
        /// Microsoft's older one.
        Vhd = "vhd",
        /// Microsoft's newer one.
        Vhdx = "vhdx",
        /// VMware's.
        Vmdk = "vmdk",
        /// VirtualBox's.
        Vdi = "vdi",
        /// Huawei's older one, which has no public description.
        Zvhd = "zvhd",
        /// Huawei's newer one, likewise.
        Zvhd2 = "zvhd2",
    }
}

impl DiskFormat {
    /// Whether there is a public description of it, and so a converter from and to it.
    pub const fn is_public(self) -> bool {
        !matches!(self, Self::Zvhd | Self::Zvhd2)
    }
}

impl Serialize for DiskFormat {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for DiskFormat {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
