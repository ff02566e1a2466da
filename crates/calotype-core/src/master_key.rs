//! Customers' master keys as the service's own key service keeps them: their states, what may be changed in which, and
//! who was granted what. Pure rules; the codes are those of the KMS API.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use crate::codes::KmsCode;
use crate::error::{Error, Result};
use crate::id::{DomainId, EnterpriseProjectId, MasterKeyId, ProjectId, UserId};
use crate::image::{UnknownWord, word_enum};
use crate::ports::Entropy;
use crate::time::Timestamp;

/// In how many days a deletion can be scheduled.
pub const PENDING_DAYS: RangeInclusive<u64> = 7..=1096;
/// After how many days a key can be rotated by itself.
pub const ROTATION_DAYS: RangeInclusive<u64> = 30..=365;
/// After how many days a key is rotated where nobody said.
pub const DEFAULT_ROTATION_DAYS: u16 = 365;
/// The most grants that a key may have.
pub const MAX_GRANTS: u64 = 100;
/// The most tags that a key may have.
pub const MAX_TAGS: u64 = 20;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

word_enum! {
    /// Where a master key is in its life.
    KeyState {
        /// It wraps and unwraps.
        Enabled = "enabled",
        /// It does nothing until it is enabled again.
        Disabled = "disabled",
        /// It does nothing, and goes with all its material when its time has come.
        PendingDeletion = "pending",
    }
}

impl KeyState {
    /// Refuses where the key may not be used.
    ///
    /// # Errors
    /// KMS.0209 where it is disabled, KMS.0210 where its deletion is scheduled.
    pub fn check_usable(self) -> Result<()> {
        match self {
            Self::Enabled => Ok(()),
            Self::Disabled => Err(Error::kms(KmsCode::KMS_0209)),
            Self::PendingDeletion => Err(Error::kms(KmsCode::KMS_0210)),
        }
    }
}

/// A key's alias, unique in its project among the keys that are not waiting to be deleted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyAlias(String);

impl KeyAlias {
    /// The alias.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyAlias {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for KeyAlias {
    type Err = Error;

    /// Accepts 1 to 255 letters, digits and `: / _ -`. Those that end in `/default` belong to services (KMS.1101).
    fn from_str(text: &str) -> Result<Self> {
        if is_name(text) && !text.ends_with("/default") {
            Ok(Self(text.to_owned()))
        } else {
            Err(Error::kms(KmsCode::KMS_1101))
        }
    }
}

/// Whether the text has the form of an alias or of a grant's name.
pub fn is_name(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b":/_-".contains(&b);
    (1..=255).contains(&text.len()) && text.bytes().all(plain)
}

/// A customer's master key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MasterKeyRecord {
    /// Its id: the API's `key_id`, and the image API's `cmk_id`.
    pub id: MasterKeyId,
    /// Whose it is.
    pub project: ProjectId,
    /// The project's domain.
    pub domain: DomainId,
    /// Its name for people.
    pub alias: KeyAlias,
    /// What it is for.
    pub description: String,
    /// The region that its maker named. It means nothing here, and is shown again.
    pub realm: String,
    /// The enterprise project that its maker named.
    pub enterprise_project: EnterpriseProjectId,
    /// Where it is in its life.
    pub state: KeyState,
    /// The newest version: the one that wraps. The older ones unwrap.
    pub version: u32,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it goes, where its deletion is scheduled.
    pub deletion_at: Option<Timestamp>,
    /// How it is rotated by itself, if it is.
    pub rotation: Option<Rotation>,
    /// When it was rotated last.
    pub rotated_at: Option<Timestamp>,
    /// How often it was rotated.
    pub rotations: u32,
}

/// How a key is rotated by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotation {
    /// Every so many days.
    pub days: u16,
    /// From when on they count: when rotation was switched on, or the last one.
    pub since: Timestamp,
}

/// Something to be changed of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyChange {
    /// It is to wrap and unwrap again.
    Enable,
    /// It is to do nothing until it is enabled.
    Disable,
    /// It is to go in so many days.
    ScheduleDeletion(u16),
    /// It is to stay.
    CancelDeletion,
    /// Another alias.
    Alias(KeyAlias),
    /// Another description.
    Description(String),
    /// It is to be rotated by itself.
    EnableRotation,
    /// It is not to be rotated by itself.
    DisableRotation,
    /// Every so many days.
    RotationDays(u16),
}

impl MasterKeyRecord {
    /// Makes a change, where the key's state allows it.
    ///
    /// # Errors
    /// The code that the KMS API has for what is in the way.
    pub fn apply(&mut self, change: &KeyChange, now: Timestamp) -> Result<()> {
        let refused = |code| Err(Error::kms(code));
        match (change, self.state) {
            (KeyChange::Enable, KeyState::Disabled) => self.state = KeyState::Enabled,
            (KeyChange::Enable, _) => return refused(KmsCode::KMS_1201),
            (KeyChange::Disable, KeyState::Enabled) => self.state = KeyState::Disabled,
            (KeyChange::Disable, _) => return refused(KmsCode::KMS_1301),
            (KeyChange::ScheduleDeletion(_), KeyState::PendingDeletion) => {
                return refused(KmsCode::KMS_1402);
            }
            (KeyChange::ScheduleDeletion(days), _) => {
                self.state = KeyState::PendingDeletion;
                self.deletion_at = Some(now.plus(DAY * u32::from(*days)));
            }
            (KeyChange::CancelDeletion, KeyState::PendingDeletion) => {
                self.state = KeyState::Disabled;
                self.deletion_at = None;
            }
            (KeyChange::CancelDeletion, _) => return refused(KmsCode::KMS_1501),
            (KeyChange::DisableRotation, _) => {
                if self.rotation.take().is_none() {
                    return refused(KmsCode::KMS_0313);
                }
            }
            (_, KeyState::PendingDeletion) => return refused(KmsCode::KMS_0210),
            (KeyChange::Alias(alias), _) => self.alias = alias.clone(),
            (KeyChange::Description(text), _) => self.description.clone_from(text),
            (KeyChange::EnableRotation, _) => {
                if self.rotation.is_some() {
                    return refused(KmsCode::KMS_2901);
                }
                self.rotation = Some(Rotation {
                    days: DEFAULT_ROTATION_DAYS,
                    since: now,
                });
            }
            (KeyChange::RotationDays(days), _) => match &mut self.rotation {
                Some(rotation) => rotation.days = *days,
                None => return refused(KmsCode::KMS_0313),
            },
        }
        Ok(())
    }
}

word_enum! {
    /// Something that can be done with a key, and granted.
    KeyOperation {
        /// Make a data key, and see it.
        CreateDataKey = "create-datakey",
        /// Make a data key, and see it only wrapped.
        CreateDataKeyWithoutPlaintext = "create-datakey-without-plaintext",
        /// Wrap a data key.
        EncryptDataKey = "encrypt-datakey",
        /// Unwrap a data key.
        DecryptDataKey = "decrypt-datakey",
        /// See what the key is.
        DescribeKey = "describe-key",
        /// Grant what one was granted.
        CreateGrant = "create-grant",
        /// Give one's own grant back.
        RetireGrant = "retire-grant",
        /// Encrypt a short text.
        EncryptData = "encrypt-data",
        /// Decrypt a short text.
        DecryptData = "decrypt-data",
    }
}

word_enum! {
    /// Whom a grant is for.
    GranteeType {
        /// A user, in whatever project.
        User = "user",
        /// All users of a domain.
        Domain = "domain",
    }
}

/// The id of a grant: 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct GrantId(String);

impl GrantId {
    /// A fresh id.
    pub fn random(entropy: &dyn Entropy) -> Self {
        let mut bytes = [0; 32];
        entropy.fill(&mut bytes);
        Self(hex::encode(bytes))
    }

    /// The id as it stands on the wire.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for GrantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for GrantId {
    type Err = Error;

    /// Accepts 64 hexadecimal digits in either case (KMS.2501).
    fn from_str(text: &str) -> Result<Self> {
        if text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
            Ok(Self(text.to_ascii_lowercase()))
        } else {
            Err(Error::kms(KmsCode::KMS_2501))
        }
    }
}

/// That somebody outside a key's project may do something with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Its id.
    pub id: GrantId,
    /// The key.
    pub key: MasterKeyId,
    /// Who may: a user's id, or a domain's.
    pub grantee: String,
    /// Which of the two.
    pub grantee_type: GranteeType,
    /// What.
    pub operations: Vec<KeyOperation>,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// The user who may give it back beside its issuer.
    pub retiring: Option<String>,
    /// The user who made it.
    pub issuer: UserId,
    /// When it was made.
    pub created_at: Timestamp,
}

/// What a grant may be for: not nothing, and not `create-grant` alone. Each operation stands once, in its place.
///
/// # Errors
/// KMS.0204 for none, KMS.0308 for an unknown word, KMS.2401 for `create-grant` alone.
pub fn granted_operations<'a>(
    words: impl IntoIterator<Item = &'a str>,
) -> Result<Vec<KeyOperation>> {
    let mut operations = Vec::new();
    for word in words {
        let operation: KeyOperation = word.parse().map_err(|_| Error::kms(KmsCode::KMS_0308))?;
        if !operations.contains(&operation) {
            operations.push(operation);
        }
    }
    match operations.as_slice() {
        [] => Err(Error::kms(KmsCode::KMS_0204)),
        [KeyOperation::CreateGrant] => Err(Error::kms(KmsCode::KMS_2401)),
        _ => Ok(operations),
    }
}

/// A key as a user sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenKey {
    /// The key.
    pub key: MasterKeyRecord,
    /// What was granted to the user, or to the user's domain.
    pub granted: BTreeSet<KeyOperation>,
}

impl SeenKey {
    /// Whether a user who acts in this project may do something with the key.
    pub fn permits(&self, project: &ProjectId, operation: KeyOperation) -> bool {
        self.key.project == *project || self.granted.contains(&operation)
    }

    /// Refuses where a user who acts in this project may not.
    ///
    /// # Errors
    /// KMS.0306.
    pub fn check(&self, project: &ProjectId, operation: KeyOperation) -> Result<()> {
        if self.permits(project, operation) {
            Ok(())
        } else {
            Err(Error::kms(KmsCode::KMS_0306))
        }
    }
}

#[cfg(test)]
mod tests;
