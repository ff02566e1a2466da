//! The bodies of requests, for the API's description. Unknown fields are ignored. Numbers may be given as numbers, too.

use std::collections::BTreeMap;

use utoipa::ToSchema;

use crate::openapi::Decimal;

/// A key to be made.
#[derive(Debug, ToSchema)]
pub struct CreateKey {
    /// Unique in the project: 1 to 255 letters, digits and `: / _ -`, not ending in `/default`.
    pub key_alias: String,
    /// At most 255 characters.
    pub key_description: Option<String>,
    /// `AES_256`, and nothing else.
    pub key_spec: Option<String>,
    /// `ENCRYPT_DECRYPT`, and nothing else.
    pub key_usage: Option<String>,
    /// `kms`, and nothing else: no material is imported.
    pub origin: Option<String>,
    /// A region's name, which is shown again.
    pub realm: Option<String>,
    /// The enterprise project, which is shown again; absent, empty or `0`: the default one.
    pub enterprise_project_id: Option<String>,
    /// The client's own number of the request, for the audit trail: 36 characters.
    pub sequence: Option<String>,
}

/// A key.
#[derive(Debug, ToSchema)]
pub struct OneKey {
    /// Its id; where it is used or described also `alias/` and its alias, or a URN.
    pub key_id: String,
    /// The client's own number of the request.
    pub sequence: Option<String>,
}

/// A page of keys.
#[derive(Debug, ToSchema)]
pub struct ListKeys {
    /// 1 to 2000; 1000 where it is absent.
    pub limit: Option<String>,
    /// The `next_marker` of the page before.
    pub marker: Option<String>,
    /// `2` enabled, `3` disabled, `4` waiting to be deleted.
    pub key_state: Option<String>,
    /// The client's own number of the request.
    pub sequence: Option<String>,
}

/// A deletion to be scheduled.
#[derive(Debug, ToSchema)]
pub struct ScheduleKeyDeletion {
    /// The key's id.
    pub key_id: String,
    /// 7 to 1096.
    pub pending_days: String,
    /// The client's own number of the request.
    pub sequence: Option<String>,
}

/// Another alias.
#[derive(Debug, ToSchema)]
pub struct UpdateKeyAlias {
    /// The key's id.
    pub key_id: String,
    /// The new alias.
    pub key_alias: String,
    /// The client's own number of the request.
    pub sequence: Option<String>,
}

/// Another description.
#[derive(Debug, ToSchema)]
pub struct UpdateKeyDescription {
    /// The key's id.
    pub key_id: String,
    /// The new description.
    pub key_description: String,
    /// The client's own number of the request.
    pub sequence: Option<String>,
}

/// How often a key is rotated.
#[derive(Debug, ToSchema)]
pub struct UpdateKeyRotationInterval {
    /// The key's id.
    pub key_id: String,
    /// 30 to 365 days.
    pub rotation_interval: u16,
    /// The client's own number of the request.
    pub sequence: Option<String>,
}

/// A data key to be made.
#[derive(Debug, ToSchema)]
pub struct CreateDataKey {
    /// The master key.
    pub key_id: String,
    /// 8 to 8192 bits, a multiple of 8; under `profile = "otc"` 512.
    pub datakey_length: Option<String>,
    /// `AES_256` or `AES_128`, instead of a length.
    pub key_spec: Option<String>,
    /// What must be given again to decrypt it.
    pub encryption_context: Option<BTreeMap<String, String>>,
    /// Instead of a context: a text of at most 128 bytes.
    pub additional_authenticated_data: Option<String>,
    /// The client's own number of the request.
    pub sequence: Option<String>,
}

/// A data key to be encrypted.
#[derive(Debug, ToSchema)]
pub struct EncryptDataKey {
    /// The master key.
    pub key_id: String,
    /// In hexadecimal: the data key, and the SHA-256 of its bytes.
    pub plain_text: String,
    /// The data key's length: 1 to 1024 bytes; under `profile = "otc"` 64.
    pub datakey_plain_length: String,
    /// What must be given again to decrypt it.
    pub encryption_context: Option<BTreeMap<String, String>>,
    /// Instead of a context: a text of at most 128 bytes.
    pub additional_authenticated_data: Option<String>,
    /// The client's own number of the request.
    pub sequence: Option<String>,
}

/// A data key to be decrypted.
#[derive(Debug, ToSchema)]
pub struct DecryptDataKey {
    /// The master key.
    pub key_id: String,
    /// What encrypting or making it gave.
    pub cipher_text: String,
    /// The data key's length in bytes, in spite of the name.
    pub datakey_cipher_length: String,
    /// The context that it was encrypted in.
    pub encryption_context: Option<BTreeMap<String, String>>,
    /// Instead of a context: a text of at most 128 bytes.
    pub additional_authenticated_data: Option<String>,
    /// The client's own number of the request.
    pub sequence: Option<String>,
}

/// A text to be encrypted.
#[derive(Debug, ToSchema)]
pub struct EncryptData {
    /// The master key.
    pub key_id: String,
    /// 1 to 4096 bytes.
    pub plain_text: String,
    /// `SYMMETRIC_DEFAULT`, and nothing else.
    pub encryption_algorithm: Option<String>,
    /// What must be given again to decrypt it.
    pub encryption_context: Option<BTreeMap<String, String>>,
    /// Instead of a context: a text of at most 128 bytes.
    pub additional_authenticated_data: Option<String>,
    /// The client's own number of the request.
    pub sequence: Option<String>,
}

/// A text to be decrypted.
#[derive(Debug, ToSchema)]
pub struct DecryptData {
    /// The master key; the cipher text names it, too.
    pub key_id: Option<String>,
    /// What encrypting it gave.
    pub cipher_text: String,
    /// `SYMMETRIC_DEFAULT`, and nothing else.
    pub encryption_algorithm: Option<String>,
    /// The context that it was encrypted in.
    pub encryption_context: Option<BTreeMap<String, String>>,
    /// Instead of a context: a text of at most 128 bytes.
    pub additional_authenticated_data: Option<String>,
    /// The client's own number of the request.
    pub sequence: Option<String>,
}

/// Random bits to be made.
#[derive(Debug, ToSchema)]
pub struct GenRandom {
    /// 8 to 8192 bits, a multiple of 8; 512 where it is absent, and under `profile = "otc"`.
    pub random_data_length: Option<String>,
    /// The client's own number of the request.
    pub sequence: Option<String>,
}

/// A grant to be made.
#[derive(Debug, ToSchema)]
pub struct CreateGrant {
    /// The key's id.
    pub key_id: String,
    /// The id of a user, or of a domain.
    pub grantee_principal: String,
    /// `user` or `domain`.
    pub grantee_principal_type: Option<String>,
    /// `describe-key`, `create-datakey`, `create-datakey-without-plaintext`, `encrypt-datakey`, `decrypt-datakey`,
    /// `encrypt-data`, `decrypt-data`, `create-grant`, `retire-grant`.
    pub operations: Vec<String>,
    /// Its name.
    pub name: Option<String>,
    /// The id of a user who may give it back.
    pub retiring_principal: Option<String>,
    /// The client's own number of the request.
    pub sequence: Option<String>,
}

/// A page of the grants on a key.
#[derive(Debug, ToSchema)]
pub struct ListGrants {
    /// The key's id.
    pub key_id: String,
    /// 1 to 2000; 1000 where it is absent.
    pub limit: Option<String>,
    /// The `next_marker` of the page before.
    pub marker: Option<String>,
    /// The client's own number of the request.
    pub sequence: Option<String>,
}

/// A page of grants.
#[derive(Debug, ToSchema)]
pub struct ListRetirableGrants {
    /// 1 to 2000; 1000 where it is absent.
    pub limit: Option<String>,
    /// The `next_marker` of the page before.
    pub marker: Option<String>,
    /// The client's own number of the request.
    pub sequence: Option<String>,
}

/// A grant.
#[derive(Debug, ToSchema)]
pub struct OneGrant {
    /// The key's id.
    pub key_id: String,
    /// The grant's id: 64 hexadecimal digits.
    pub grant_id: String,
    /// The client's own number of the request.
    pub sequence: Option<String>,
}

/// A tag.
#[derive(Debug, ToSchema)]
pub struct Tag {
    /// 1 to 128 characters.
    pub key: String,
    /// At most 255 characters.
    pub value: Option<String>,
}

/// A tag to be added.
#[derive(Debug, ToSchema)]
pub struct AddTag {
    /// The tag.
    pub tag: Tag,
}

/// Tags to be added or removed.
#[derive(Debug, ToSchema)]
pub struct ChangeTags {
    /// `create` or `delete`.
    pub action: String,
    /// The tags.
    pub tags: Vec<Tag>,
}

/// A tag's key with values, of which one must be there; none: any.
#[derive(Debug, ToSchema)]
pub struct TagValues {
    /// The tag's key.
    pub key: String,
    /// The values.
    pub values: Option<Vec<String>>,
}

/// Keys to be found.
#[derive(Debug, ToSchema)]
pub struct FindKeys {
    /// `filter` or `count`.
    pub action: String,
    /// 1 to 1000; 10 where it is absent.
    pub limit: Option<Decimal>,
    /// How many are passed over.
    pub offset: Option<Decimal>,
    /// Tags that all must be there.
    pub tags: Option<Vec<TagValues>>,
    /// With the key `resource_name`: a part of the alias.
    pub matches: Option<Vec<Tag>>,
}
