//! Identifiers. Each kind is its own type: an image id can't be passed where a job id belongs.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::ports::Entropy;

/// A text that is not an identifier of the wanted kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a valid {kind}")]
pub struct ParseIdError {
    kind: &'static str,
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(Uuid);

        impl $name {
            /// A fresh, random (version 4) identifier.
            pub fn random(entropy: &dyn Entropy) -> Self {
                Self(random_uuid(entropy))
            }

            /// The identifier as a UUID.
            pub const fn as_uuid(&self) -> &Uuid {
                &self.0
            }
        }

        impl From<Uuid> for $name {
            fn from(uuid: Uuid) -> Self {
                Self(uuid)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.as_hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0.as_hyphenated())
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            /// Accepts only the hyphenated form of 36 characters (spec, "General wire facts").
            fn from_str(text: &str) -> std::result::Result<Self, ParseIdError> {
                let error = ParseIdError { kind: $kind };
                if text.len() != 36 {
                    return Err(error);
                }
                Uuid::try_parse(text).map(Self).map_err(|_| error)
            }
        }
    };
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String")]
        pub struct $name(String);

        impl $name {
            /// A fresh identifier: 32 lower-case hexadecimal digits.
            pub fn random(entropy: &dyn Entropy) -> Self {
                Self(random_hex(entropy))
            }

            /// The identifier as it stands on the wire.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            /// Accepts 1 to 64 characters of `A-Z a-z 0-9 - _`.
            fn from_str(text: &str) -> std::result::Result<Self, ParseIdError> {
                if is_plain_token(text) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(ParseIdError { kind: $kind })
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = ParseIdError;

            fn try_from(text: String) -> std::result::Result<Self, ParseIdError> {
                text.parse()
            }
        }
    };
}

uuid_id! {
    /// The id of an image. Given once, never used again, not even after the image is deleted.
    ImageId, "image id"
}
uuid_id! {
    /// The id of a blob: the sealed bytes of one or more images.
    BlobId, "blob id"
}
uuid_id! {
    /// The id of a customer's master key in this service's own key service.
    MasterKeyId, "master key id"
}
text_id! {
    /// The id of a project (tenant). Keystone and OTC use 32 hexadecimal digits.
    ProjectId, "project id"
}
text_id! {
    /// The id of a user.
    UserId, "user id"
}
text_id! {
    /// The id of a domain, such as `default`.
    DomainId, "domain id"
}
text_id! {
    /// The id of a role.
    RoleId, "role id"
}
text_id! {
    /// The id of a customer's master key in a key service: the API's `cmk_id`.
    KeyId, "key id"
}

text_id! {
    /// The id of a server in the service that runs it.
    ServerId, "server id"
}
text_id! {
    /// The id of a disk in the service that keeps it.
    VolumeId, "volume id"
}
text_id! {
    /// The id of a backup in the service that keeps it.
    BackupId, "backup id"
}
text_id! {
    /// The id of a vault, which backups are in.
    VaultId, "vault id"
}

/// The name of a store of blobs, as the operator gave it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct StoreName(String);

impl StoreName {
    /// The store that there is where no other is configured.
    pub fn main() -> Self {
        Self("main".to_owned())
    }

    /// The name as it stands on the wire.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StoreName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for StoreName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreName({})", self.0)
    }
}

impl FromStr for StoreName {
    type Err = ParseIdError;

    /// Accepts a lower-case letter and up to 31 of `a-z 0-9 - _`.
    fn from_str(text: &str) -> std::result::Result<Self, ParseIdError> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
        let begins = text.starts_with(|first: char| first.is_ascii_lowercase());
        if begins && text.len() <= 32 && text.bytes().all(plain) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseIdError { kind: "store name" })
        }
    }
}

impl TryFrom<String> for StoreName {
    type Error = ParseIdError;

    fn try_from(text: String) -> std::result::Result<Self, ParseIdError> {
        text.parse()
    }
}

/// The id of a job: 32 lower-case hexadecimal digits (spec, "General wire facts").
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct JobId(String);

impl JobId {
    /// A fresh id.
    pub fn random(entropy: &dyn Entropy) -> Self {
        Self(random_hex(entropy))
    }

    /// The id as it stands on the wire.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JobId({})", self.0)
    }
}

impl FromStr for JobId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> std::result::Result<Self, ParseIdError> {
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if text.len() == 32 && text.bytes().all(hex) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseIdError { kind: "job id" })
        }
    }
}

impl TryFrom<String> for JobId {
    type Error = ParseIdError;

    fn try_from(text: String) -> std::result::Result<Self, ParseIdError> {
        text.parse()
    }
}

/// The enterprise project of an image: the default one, shown as `0`, or a UUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum EnterpriseProjectId {
    /// The default enterprise project; on the wire `0`, and on input also absent or empty.
    #[default]
    Default,
    /// One that an administrator made.
    Id(Uuid),
}

impl fmt::Display for EnterpriseProjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("0"),
            Self::Id(uuid) => uuid.as_hyphenated().fmt(f),
        }
    }
}

impl FromStr for EnterpriseProjectId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> std::result::Result<Self, ParseIdError> {
        if text.is_empty() || text == "0" {
            return Ok(Self::Default);
        }
        let error = ParseIdError {
            kind: "enterprise project id",
        };
        if text.len() != 36 {
            return Err(error);
        }
        Uuid::try_parse(text).map(Self::Id).map_err(|_| error)
    }
}

/// A random version 4 UUID (RFC 9562, section 5.4).
pub fn random_uuid(entropy: &dyn Entropy) -> Uuid {
    let mut bytes = [0; 16];
    entropy.fill(&mut bytes);
    uuid::Builder::from_random_bytes(bytes).into_uuid()
}

/// 128 random bits as 32 lower-case hexadecimal digits.
pub fn random_hex(entropy: &dyn Entropy) -> String {
    let mut bytes = [0; 16];
    entropy.fill(&mut bytes);
    hex::encode(bytes)
}

fn is_plain_token(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    (1..=64).contains(&text.len()) && text.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_id_is_a_hyphenated_uuid_and_nothing_else() {
        let text = "11111111-2222-3333-4444-555555555555";
        assert_eq!(text.parse::<ImageId>().unwrap().to_string(), text);
        for bad in [
            "",
            "0",
            "11111111222233334444555555555555",
            "{11111111-2222-3333-4444-555555555555}",
            "zzzzzzzz-2222-3333-4444-555555555555",
        ] {
            assert!(bad.parse::<ImageId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_job_id_is_32_lower_case_hex_digits() {
        assert!("0123456789abcdef0123456789abcdef".parse::<JobId>().is_ok());
        for bad in [
            "",
            "0123456789ABCDEF0123456789abcdef",
            "0123456789abcdef0123456789abcde",
            "../../../../../../../../etc/passw",
        ] {
            assert!(bad.parse::<JobId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_stores_name_is_a_short_word_that_leads_nowhere_else() {
        for good in ["main", "s3", "cold-store_2", &"a".repeat(32)] {
            assert_eq!(good.parse::<StoreName>().unwrap().as_str(), good);
        }
        for bad in ["", "2s", "Main", "a/b", "..", "a.b", "-a", &"a".repeat(33)] {
            assert!(bad.parse::<StoreName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_default_enterprise_project_is_empty_or_zero_and_is_shown_as_zero() {
        assert_eq!("".parse(), Ok(EnterpriseProjectId::Default));
        assert_eq!("0".parse(), Ok(EnterpriseProjectId::Default));
        assert_eq!(EnterpriseProjectId::Default.to_string(), "0");
        assert!("1".parse::<EnterpriseProjectId>().is_err());
    }
}
