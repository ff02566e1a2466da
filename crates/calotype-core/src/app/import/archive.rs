//! An archive of a server's disks (OVA): each becomes an image, as one that lies in an object by itself.
//!
//! The headers and the description are read before the caller has its answer, each by a request for a few bytes, and there
//! are at most some dozens of them. The disks are read by the jobs, each its own part of the object.

use super::format::{of_member, read};
use super::order::{check_format, check_order};
use super::{Disk, ImportOrder};
use crate::app::Service;
use crate::codes::ImsCode;
use crate::error::{Error, Result};
use crate::ova::{Description, Directory};
use crate::ports::ObjectFacts;
use crate::size::ByteSize;

impl Service {
    /// The disks of an archive. All have the order's tags.
    ///
    /// # Errors
    /// IMG.0057 for an archive that is hostile or broken, IMG.0194 for one of too many disks; IMG.0055 where a disk is larger
    /// than it may be, or the system's than `min_disk`.
    pub(super) async fn open_archive(
        &self,
        order: ImportOrder,
        tags: &[String],
        facts: &ObjectFacts,
    ) -> Result<Vec<Disk>> {
        let (objects, at) = (self.objects.as_ref(), order.object.clone());
        let mut directory = Directory::new(facts.size);
        while let Some(header) = directory.next_header()? {
            directory.take(&read(objects, &at, facts, header).await?)?;
        }
        let description = read(objects, &at, facts, directory.description()?).await?;
        let description = Description::parse(&description)?;
        let found = directory.disks(&description)?;
        let orders = order.of_archive(&found, &description.system).disks()?;
        let mut disks = Vec::with_capacity(found.len());
        for (order, disk) in orders.into_iter().zip(found) {
            check_order(&order)?;
            if disk.capacity > ByteSize::gib(u64::from(order.min_disk)) {
                return Err(Error::ims(ImsCode::IMG_0055));
            }
            let format = of_member(objects, &at, facts, &disk).await?;
            check_format(&order, format)?;
            disks.push(Disk {
                order,
                tags: tags.to_vec(),
                facts: facts.clone(),
                part: Some(disk.bytes),
                format,
            });
        }
        Ok(disks)
    }
}
