//! The IMS error codes: one table, from which every code, status and message on the wire comes.
//!
//! Source: the API reference's error code page, as `docs/api/error-codes.tsv` in this repository has
//! it; a test holds the two together.

mod kms;

use std::fmt;

pub use kms::KmsCode;

/// A code of the IMS API's error envelope, such as `IMG.0027`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ImsCode(u16);

/// A row of the code table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImsCodeRow {
    /// The code.
    pub code: ImsCode,
    /// The HTTP status that the API reference binds it to.
    pub status: u16,
    /// The message that the API reference gives it.
    pub message: &'static str,
}

impl ImsCode {
    /// Every code, ascending.
    pub const ALL: &'static [ImsCodeRow] = TABLE;

    /// The code with this number, if the table has it.
    pub fn from_number(number: u16) -> Option<Self> {
        row(Self(number)).map(|row| row.code)
    }

    /// The number: 27 for `IMG.0027`.
    pub const fn number(self) -> u16 {
        self.0
    }

    /// The code's message.
    pub fn message(self) -> &'static str {
        row(self).map_or("", |row| row.message)
    }

    /// The code's HTTP status in the table. Decisions D1 and D2 raise two of them to 404.
    pub fn status(self) -> u16 {
        row(self).map_or(400, |row| row.status)
    }
}

fn row(code: ImsCode) -> Option<&'static ImsCodeRow> {
    let at = TABLE.binary_search_by_key(&code, |row| row.code).ok()?;
    TABLE.get(at)
}

impl fmt::Display for ImsCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IMG.{:04}", self.0)
    }
}

impl fmt::Debug for ImsCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for ImsCode {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let number = text.strip_prefix("IMG.").ok_or(())?;
        number.parse().ok().and_then(Self::from_number).ok_or(())
    }
}

impl serde::Serialize for ImsCode {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for ImsCode {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let unknown = |()| serde::de::Error::custom("not a code of the table");
        text.parse().map_err(unknown)
    }
}

macro_rules! codes {
    ($($name:ident = $number:literal, $status:literal, $message:literal;)*) => {
        impl ImsCode {
            $(#[doc = $message] pub const $name: Self = Self($number);)*
        }

        const TABLE: &[ImsCodeRow] = &[
            $(ImsCodeRow { code: ImsCode::$name, status: $status, message: $message },)*
        ];
    };
}

codes! {
    IMG_0001 = 1, 400, "The request message format is invalid.";
    IMG_0002 = 2, 400, "The image name contains more than 128 characters.";
    IMG_0003 = 3, 400, "The image name format is invalid.";
    IMG_0004 = 4, 400, "The description contains more than 1024 characters.";
    IMG_0005 = 5, 400, "The ECS does not exist.";
    IMG_0006 = 6, 400, "The ECS system disk cannot be used to create an image.";
    IMG_0007 = 7, 400, "The request body is empty.";
    IMG_0008 = 8, 400, "The ECS cannot be used to create images because it is not in stopped state.";
    IMG_0009 = 9, 400, "The image name already exists.";
    IMG_0010 = 10, 400, "The ECS cannot be used to create an image because it has in-progress tasks.";
    IMG_0011 = 11, 400, "forceCreate must be set to true.";
    IMG_0012 = 12, 400, "The ECS ID is not specified.";
    IMG_0013 = 13, 400, "The image name is not specified.";
    IMG_0014 = 14, 400, "An exception occurred when IaaS OpenStack was executing the task.";
    IMG_0015 = 15, 400, "The number of private images has reached the maximum allowed.";
    IMG_0016 = 16, 400, "An error occurred when the request body was deleted.";
    IMG_0017 = 17, 400, "The URL format is incorrect.";
    IMG_0018 = 18, 400, "An error occurred when the job was submitted.";
    IMG_0019 = 19, 400, "The backup ID is not specified.";
    IMG_0020 = 20, 400, "The backup does not exist.";
    IMG_0021 = 21, 400, "The resource type is unknown.";
    IMG_0022 = 22, 400, "The disk in the current state cannot be used to create images.";
    IMG_0023 = 23, 400, "An exception occurred during task query.";
    IMG_0024 = 24, 400, "The image type in the request is incorrect.";
    IMG_0025 = 25, 400, "The user type in the request is incorrect.";
    IMG_0026 = 26, 403, "The role is invalid. You need to apply for the required permissions or pass the real-name authentication.";
    IMG_0027 = 27, 400, "The image ID in the request does not exist.";
    IMG_0028 = 28, 400, "The image in the request is protected.";
    IMG_0029 = 29, 400, "The backup in the request has already been used to create an image.";
    IMG_0030 = 30, 400, "The project ID and token in the request are invalid.";
    IMG_0031 = 31, 400, "The resource ID in the request is incorrect.";
    IMG_0032 = 32, 400, "The backup is unavailable.";
    IMG_0033 = 33, 400, "The backup is not a system disk backup.";
    IMG_0034 = 34, 400, "The number of images cannot be modified.";
    IMG_0035 = 35, 400, "An attribute conflict occurred during the modification.";
    IMG_0036 = 36, 400, "An error occurred when the value of asumeToken was obtained.";
    IMG_0037 = 37, 400, "An error occurred in the AK/SK was obtained.";
    IMG_0038 = 38, 400, "An error occurred when the bucket was created.";
    IMG_0039 = 39, 400, "An error occurred when read and write permissions of the bucket were granted to a specified user.";
    IMG_0040 = 40, 400, "An error occurred in the object storage address was obtained.";
    IMG_0041 = 41, 400, "The authorized account is empty.";
    IMG_0045 = 45, 400, "Failed to generate the image product code.";
    IMG_0046 = 46, 400, "The image is unavailable.";
    IMG_0047 = 47, 400, "This operation can be performed only by the image owner.";
    IMG_0053 = 53, 400, "An error occurred when the domain information of the shadow account was obtained.";
    IMG_0054 = 54, 400, "The image description format is invalid.";
    IMG_0055 = 55, 400, "The memory or disk size is invalid.";
    IMG_0056 = 56, 400, "Invalid OS version.";
    IMG_0057 = 57, 400, "The image file is empty, not found, or in incorrect format, or you do not have enough permission to access the file.";
    IMG_0058 = 58, 400, "The region of the bucket where the image file is stored is inconsistent with that of the user.";
    IMG_0059 = 59, 400, "The size of the image file exceeds the maximum allowed.";
    IMG_0060 = 60, 400, "The number of tasks exceeds the flow control limit.";
    IMG_0061 = 61, 400, "Unknown system error.";
    IMG_0062 = 62, 400, "The image name is incorrect.";
    IMG_0063 = 63, 400, "The VM type does not support image creation.";
    IMG_0064 = 64, 400, "Failed to obtain tenant information from IAM.";
    IMG_0065 = 65, 400, "Failed to obtain the tenant domain from IAM.";
    IMG_0066 = 66, 400, "The image ID is incorrect.";
    IMG_0067 = 67, 400, "The project ID is incorrect.";
    IMG_0068 = 68, 400, "The specified bucket name is empty.";
    IMG_0069 = 69, 400, "The specified bucket cannot be accessed.";
    IMG_0070 = 70, 400, "The image file already exists. Confirm the file in the corresponding directory of the OBS bucket or in the OBS bucket.";
    IMG_0071 = 71, 400, "The image cannot be exported.";
    IMG_0072 = 72, 400, "The specified image format is not supported.";
    IMG_0073 = 73, 400, "The name of the exported file is empty.";
    IMG_0074 = 74, 400, "The file name length exceeds the limit.";
    IMG_0075 = 75, 400, "The file name contains invalid characters.";
    IMG_0076 = 76, 400, "You cannot share an image with yourself.";
    IMG_0077 = 77, 400, "The public image cannot be exported.";
    IMG_0079 = 79, 400, "The system disk image created from a charged image cannot be exported.";
    IMG_0080 = 80, 400, "The image created from a CSBS or CBR backup cannot be exported.";
    IMG_0081 = 81, 400, "The image cannot be exported because it is created from an image file.";
    IMG_0083 = 83, 400, "The image is a public image.";
    IMG_0084 = 84, 400, "The image is a private image.";
    IMG_0085 = 85, 400, "The publishing mode is incorrect.";
    IMG_0086 = 86, 400, "No image was found.";
    IMG_0087 = 87, 400, "The token is incorrect.";
    IMG_0088 = 88, 400, "The number of shared images has reached the maximum allowed.";
    IMG_0089 = 89, 400, "The public image cannot be shared.";
    IMG_0090 = 90, 400, "The image being created cannot be deleted.";
    IMG_0092 = 92, 400, "The image can only be deleted by the owner.";
    IMG_0094 = 94, 400, "The public image cannot be deleted.";
    IMG_0095 = 95, 400, "The KMS key does not exist.";
    IMG_0096 = 96, 400, "The specified KMS key ID must be different from the image key ID.";
    IMG_0097 = 97, 400, "The key is not enabled.";
    IMG_0098 = 98, 400, "The encrypted image cannot be shared.";
    IMG_0099 = 99, 400, "You do not have the permission to access the key.";
    IMG_0100 = 100, 400, "You do not have OBT permission for KMS.";
    IMG_0101 = 101, 400, "The original key does not exist.";
    IMG_0102 = 102, 400, "The original key is not enabled.";
    IMG_0103 = 103, 400, "You do not have the permission to access the original key.";
    IMG_0104 = 104, 400, "Enter the project name if there are multiple projects in the same region.";
    IMG_0105 = 105, 400, "The operation is not supported.";
    IMG_0106 = 106, 400, "The image owner is another tenant.";
    IMG_0108 = 108, 400, "The tenant ID was not found in the current region.";
    IMG_0109 = 109, 400, "The bucket name contains invalid characters.";
    IMG_0110 = 110, 400, "The system disk is unavailable and cannot be used to create images.";
    IMG_0111 = 111, 400, "The size of the system disk exceeds the maximum allowed.";
    IMG_0112 = 112, 400, "Failed to add the tenant.";
    IMG_0113 = 113, 400, "Failed to delete the tenant.";
    IMG_0114 = 114, 400, "Failed to query the tenant details.";
    IMG_0115 = 115, 400, "The image tag is invalid.";
    IMG_0116 = 116, 400, "The number of image tags exceeds the quota.";
    IMG_0117 = 117, 400, "The image source can only be BMS or ECS.";
    IMG_0118 = 118, 400, "The BMS image does not support KMS encryption.";
    IMG_0119 = 119, 400, "The VM does not have a system disk.";
    IMG_0120 = 120, 400, "The specified data disk ID is unavailable.";
    IMG_0121 = 121, 400, "The object cannot be found.";
    IMG_0122 = 122, 400, "The OS type is invalid.";
    IMG_0123 = 123, 400, "The image file address in the request is duplicate.";
    IMG_0125 = 125, 400, "The data disk image cannot be converted to a public image.";
    IMG_0126 = 126, 400, "The VM in the current stage cannot be used to create a full-ECS image.";
    IMG_0127 = 127, 400, "The CSBS backup does not exist.";
    IMG_0128 = 128, 400, "The full-ECS image cannot be exported.";
    IMG_0130 = 130, 400, "The full-ECS image cannot be exported or replicated.";
    IMG_0132 = 132, 400, "The CSBS backup in the current state cannot be used to create a full-ECS image.";
    IMG_0133 = 133, 400, "You are not allowed to access the CSBS backup.";
    IMG_0134 = 134, 400, "The CSBS backup has been registered as an image.";
    IMG_0135 = 135, 400, "The full-ECS image cannot be shared.";
    IMG_0136 = 136, 400, "Failed to create a full-ECS image because the ECS is being backed up.";
    IMG_0137 = 137, 400, "Failed to obtain the VM information.";
    IMG_0138 = 138, 400, "Failed to obtain the OS type information.";
    IMG_0139 = 139, 400, "Other disks on the VM are being used to created VMs.";
    IMG_0140 = 140, 400, "The disks in the request come from different ECSs.";
    IMG_0141 = 141, 400, "The value of hw_firmware_type is not uefi or bios.";
    IMG_0144 = 144, 400, "The image does not exist.";
    IMG_0145 = 145, 400, "The project name is incorrect.";
    IMG_0148 = 148, 400, "The image is being exported.";
    IMG_0153 = 153, 400, "DESS or DSS disks cannot be used to create images.";
    IMG_0154 = 154, 400, "Failed to communicate with Enterprise Project Management Service (EPS).";
    IMG_0155 = 155, 400, "Failed to check the enterprise project ID validity.";
    IMG_0156 = 156, 400, "Failed to associate the image with the enterprise project ID.";
    IMG_0160 = 160, 400, "Only images less than 128 GB can be exported.";
    IMG_0161 = 161, 400, "You do not have permission.";
    IMG_0162 = 162, 400, "The value contains a maximum of 12 characters that consist of letters and spaces, and cannot start or end with a space";
    IMG_0163 = 163, 400, "This image cannot be titled by vendors. Only images running a Windows OS booted in BIOS mode can be titled by vendors.";
    IMG_0164 = 164, 400, "Failed to create an image because the spot ECS is being reclaimed.";
    IMG_0165 = 165, 400, "You do not have permission to access the CSBS backup.";
    IMG_0166 = 166, 400, "OS information must be contained in the ISO files used to create images.";
    IMG_0167 = 167, 400, "This operation cannot be performed for ISO images.";
    IMG_0168 = 168, 400, "Data disk images cannot be updated.";
    IMG_0169 = 169, 400, "Failed to update the image because the OS versions are different.";
    IMG_0170 = 170, 400, "Failed to update the image because the image formats are different.";
    IMG_0171 = 171, 400, "Failed to update the image because the minimum disk space is less than that of the source image.";
    IMG_0172 = 172, 400, "Failed to update the image because the minimum memory is less than that of the source image.";
    IMG_0173 = 173, 400, "Failed to update the image because the image environment types are different.";
    IMG_0174 = 174, 400, "Failed to update the image because the name of the source image is different from that of the target image.";
    IMG_0175 = 175, 400, "The folder name and image file name cannot contain spaces.";
    IMG_0176 = 176, 400, "Failed to delete the full-ECS backup.";
    IMG_0177 = 177, 400, "The source and target tenants reside in different regions.";
    IMG_0178 = 178, 400, "The target tenant is the same as the source tenant.";
    IMG_0179 = 179, 400, "The token of the source image agency is invalid.";
    IMG_0180 = 180, 400, "CBR does not support full-ECS image creation.";
    IMG_0181 = 181, 400, "Failed to obtain ECSs that can be protected.";
    IMG_0182 = 182, 400, "Insufficient vault capacity. Please expand the capacity.";
    IMG_0183 = 183, 400, "The ECS can only be associated with one vault.";
    IMG_0184 = 184, 400, "Failed to obtain the vault.";
    IMG_0185 = 185, 400, "The number of ECSs associated with the vault has reached the upper limit.";
    IMG_0186 = 186, 400, "The ECS is associated with the CSBS service.";
    IMG_0187 = 187, 400, "KMS access traffic has reached the upper limit.";
    IMG_0188 = 188, 400, "Vault is unavailable.";
    IMG_0189 = 189, 400, "The target CBR vault does not support image replication.";
    IMG_0190 = 190, 400, "Full-ECS images can be created only from CBR backups.";
    IMG_0191 = 191, 400, "Failed to query ECS flavors.";
    IMG_0192 = 192, 400, "The flavor used to query images is invalid.";
    IMG_0193 = 193, 400, "The vault is not a cloud server backup vault.";
    IMG_0194 = 194, 400, "The maximum number of images that can be imported at one time has been reached.";
    IMG_0195 = 195, 400, "Full-ECS images created from CBR backups must contain an OS.";
    IMG_0196 = 196, 400, "The image cannot be replicated because it is not accepted by the recipient.";
    IMG_0197 = 197, 400, "Failed to replicate the shared image because it is encrypted using KMS.";
    IMG_0198 = 198, 400, "Backup ID does not match the backup type or does not exist.";
    IMG_0212 = 212, 400, "The value of Architecture must be x86 or Arm.";
    IMG_0238 = 238, 400, "Not real-name authentication.";
    IMG_0239 = 239, 400, "Insufficient balance.";
    IMG_0241 = 241, 400, "Incomplete payment information.";
    IMG_0242 = 242, 400, "Insufficient budget of enterprise department.";
    IMG_1075 = 1075, 400, "Failed to register the image file.";
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUBLISHED: &str = include_str!("../../../docs/api/error-codes.tsv");

    #[test]
    fn the_table_is_the_published_one_row_for_row() {
        let published: Vec<_> = PUBLISHED
            .lines()
            .skip(1)
            .map(|line| {
                let mut fields = line.split('\t');
                let mut next = || fields.next().unwrap();
                (
                    next().parse::<u16>().unwrap(),
                    next().to_owned(),
                    next().to_owned(),
                )
            })
            .collect();
        let ours: Vec<_> = ImsCode::ALL
            .iter()
            .map(|row| (row.status, row.code.to_string(), row.message.to_owned()))
            .collect();
        assert_eq!(ours.len(), 177);
        assert_eq!(ours, published);
    }

    #[test]
    fn a_code_is_read_back_from_its_text_and_an_unassigned_one_is_not() {
        assert_eq!("IMG.0027".parse(), Ok(ImsCode::IMG_0027));
        assert_eq!("IMG.1075".parse(), Ok(ImsCode::IMG_1075));
        assert_eq!("IMG.0042".parse::<ImsCode>(), Err(()));
        assert_eq!("27".parse::<ImsCode>(), Err(()));
    }
}
