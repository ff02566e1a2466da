//! Data keys, short texts and random bits.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use calotype_core::access::Action;
use calotype_core::codes::KmsCode;
use calotype_core::{Error, Result};
use calotype_identity::sha256_hex;
use calotype_keys::kms::{KeyRef, Permitted};
use serde_json::json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use zeroize::Zeroizing;

use super::bodies::{
    CreateDataKey, DecryptData, DecryptDataKey, EncryptData, EncryptDataKey, GenRandom,
};
use super::fields::{Fields, missing};
use super::{KmsState, ok, post};
use crate::errors::Reply;

/// The length of a data key at OTC, in bits.
const OTC_BITS: u64 = 512;
/// The lengths of data keys that are encrypted, in bytes.
const BYTES: std::ops::RangeInclusive<u64> = 1..=1024;
/// The most bytes of a text that is encrypted.
const MAX_TEXT: usize = 4096;
/// A digest's length, in hexadecimal digits.
const DIGEST: usize = 64;

pub(super) fn router() -> OpenApiRouter<KmsState> {
    OpenApiRouter::default()
        .routes(routes!(create_datakey))
        .routes(routes!(create_datakey_without_plaintext))
        .routes(routes!(encrypt_datakey))
        .routes(routes!(decrypt_datakey))
        .routes(routes!(encrypt_data))
        .routes(routes!(decrypt_data))
        .routes(routes!(gen_random))
}

post! {
    /// Makes a data key, and shows it plain and encrypted.
    create_datakey, "/v1.0/{project_id}/kms/create-datakey", "createDataKey", "Data keys",
    Action::DataKeysSeal, CreateDataKey, create_visible
}
post! {
    /// Makes a data key, and shows it encrypted only.
    create_datakey_without_plaintext, "/v1.0/{project_id}/kms/create-datakey-without-plaintext",
    "createDataKeyWithoutPlaintext", "Data keys",
    Action::DataKeysSeal, CreateDataKey, create_hidden
}
post! {
    /// Encrypts a data key.
    encrypt_datakey, "/v1.0/{project_id}/kms/encrypt-datakey", "encryptDataKey", "Data keys",
    Action::DataKeysOpen, EncryptDataKey, encrypt_key
}
post! {
    /// Decrypts a data key.
    decrypt_datakey, "/v1.0/{project_id}/kms/decrypt-datakey", "decryptDataKey", "Data keys",
    Action::DataKeysOpen, DecryptDataKey, decrypt_key
}
post! {
    /// Encrypts a short text.
    encrypt_data, "/v1.0/{project_id}/kms/encrypt-data", "encryptData", "Data keys",
    Action::DataCrypto, EncryptData, encrypt_text
}
post! {
    /// Decrypts a short text.
    decrypt_data, "/v1.0/{project_id}/kms/decrypt-data", "decryptData", "Data keys",
    Action::DataCrypto, DecryptData, decrypt_text
}
post! {
    /// Makes random bits.
    gen_random, "/v1.0/{project_id}/kms/gen-random", "generateRandom", "Data keys",
    Action::RandomGenerate, GenRandom, random
}

/// Bytes in upper case, as the documents have them. Erased when dropped.
fn upper_hex(bytes: &[u8]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(hex::encode(bytes));
    text.make_ascii_uppercase();
    text
}

/// Hexadecimal digits in either case, also mixed.
fn bytes_of(text: &str, code: KmsCode) -> Result<Zeroizing<Vec<u8>>> {
    let bytes = hex::decode(text).map_err(|_| Error::kms(code))?;
    Ok(Zeroizing::new(bytes))
}

/// How many bytes a data key is to have.
fn data_key_bytes(strict: bool, fields: &Fields) -> Result<usize> {
    let bits = fields.number("datakey_length", KmsCode::KMS_1901)?;
    if strict {
        return match bits {
            Some(OTC_BITS) => Ok(64),
            Some(_) => Err(Error::kms(KmsCode::KMS_2001)),
            None => Err(missing("datakey_length")),
        };
    }
    let spec = fields.word("key_spec", KmsCode::KMS_1902)?;
    let of_spec = match spec {
        None | Some("AES_256") => 256,
        Some("AES_128") => 128,
        Some(_) => return Err(Error::kms(KmsCode::KMS_1902)),
    };
    let bits = bits.unwrap_or(of_spec);
    if !(8..=8192).contains(&bits) {
        return Err(Error::kms(KmsCode::KMS_1901));
    }
    if !bits.is_multiple_of(8) {
        return Err(Error::kms(KmsCode::KMS_1903));
    }
    usize::try_from(bits / 8).map_err(Error::internal)
}

async fn create(state: &KmsState, by: &Permitted<'_>, fields: &Fields, visible: bool) -> Reply {
    let key = fields.key()?;
    let bytes = data_key_bytes(state.is_strict(), fields)?;
    let context = fields.context()?;
    let made = state
        .keys
        .create_data_key(by, &key, bytes, &context, visible)
        .await?;
    let mut document = json!({ "key_id": made.key.to_string() });
    if let Some(plain) = &made.plain {
        document["plain_text"] = upper_hex(plain).as_str().into();
    }
    document["cipher_text"] = upper_hex(&made.cipher).as_str().into();
    Ok(ok(document))
}

async fn create_visible(state: &KmsState, by: &Permitted<'_>, fields: &Fields) -> Reply {
    create(state, by, fields, true).await
}

async fn create_hidden(state: &KmsState, by: &Permitted<'_>, fields: &Fields) -> Reply {
    create(state, by, fields, false).await
}

/// A data key's length in bytes, as a field says it.
fn length(strict: bool, fields: &Fields, name: &str, code: KmsCode) -> Result<usize> {
    let length = fields.number(name, code)?;
    let length = length.ok_or_else(|| missing(name))?;
    let fits = if strict {
        length == OTC_BITS / 8
    } else {
        BYTES.contains(&length)
    };
    let length = usize::try_from(length).ok().filter(|_| fits);
    length.ok_or_else(|| Error::kms(code))
}

async fn encrypt_key(state: &KmsState, by: &Permitted<'_>, fields: &Fields) -> Reply {
    let key = fields.key()?;
    let text = fields.required("plain_text", KmsCode::KMS_2101)?;
    bytes_of(text, KmsCode::KMS_2101)?;
    let code = KmsCode::KMS_2102;
    let length = length(state.is_strict(), fields, "datakey_plain_length", code)?;
    let context = fields.context()?;
    let (plain, digest) = text
        .split_at_checked(2 * length)
        .filter(|(_, digest)| digest.len() == DIGEST)
        .ok_or_else(|| Error::kms(KmsCode::KMS_2104))?;
    let plain = bytes_of(plain, KmsCode::KMS_2101)?;
    // Of the bytes, not of their digits.
    if !sha256_hex(&plain).eq_ignore_ascii_case(digest) {
        return Err(Error::kms(KmsCode::KMS_2103).into());
    }
    let made = state.keys.encrypt_data_key(by, &key, &context, &plain);
    let (key, cipher) = made.await?;
    Ok(ok(json!({
        "key_id": key.to_string(),
        "cipher_text": upper_hex(&cipher).as_str(),
        "datakey_length": length.to_string(),
    })))
}

async fn decrypt_key(state: &KmsState, by: &Permitted<'_>, fields: &Fields) -> Reply {
    let key = fields.key()?;
    let cipher = fields.required("cipher_text", KmsCode::KMS_2201)?;
    let cipher = bytes_of(cipher, KmsCode::KMS_2201)?;
    let code = KmsCode::KMS_2202;
    let length = length(state.is_strict(), fields, "datakey_cipher_length", code)?;
    let context = fields.context()?;
    let plain = state.keys.decrypt_data_key(by, &key, &context, &cipher);
    let plain = plain.await?;
    if plain.len() != length {
        return Err(Error::kms(KmsCode::KMS_2204).into());
    }
    Ok(ok(json!({
        "data_key": upper_hex(&plain).as_str(),
        "datakey_length": length.to_string(),
        "datakey_dgst": sha256_hex(&plain).to_ascii_uppercase(),
    })))
}

fn check_algorithm(fields: &Fields) -> Result<()> {
    match fields.word("encryption_algorithm", KmsCode::KMS_0308)? {
        None | Some("SYMMETRIC_DEFAULT") => Ok(()),
        Some(_) => Err(Error::kms(KmsCode::KMS_0308)),
    }
}

async fn encrypt_text(state: &KmsState, by: &Permitted<'_>, fields: &Fields) -> Reply {
    let key = fields.key()?;
    let text = fields.required("plain_text", KmsCode::KMS_2101)?;
    if !(1..=MAX_TEXT).contains(&text.len()) {
        return Err(Error::kms(KmsCode::KMS_2101).into());
    }
    check_algorithm(fields)?;
    let context = fields.context()?;
    let made = state.keys.encrypt_data(by, &key, &context, text.as_bytes());
    let (key, cipher) = made.await?;
    Ok(ok(json!({
        "key_id": key.to_string(),
        "cipher_text": BASE64.encode(cipher),
    })))
}

async fn decrypt_text(state: &KmsState, by: &Permitted<'_>, fields: &Fields) -> Reply {
    let key = fields.word("key_id", KmsCode::KMS_0205)?;
    let key = key.map(KeyRef::parse).transpose()?;
    let cipher = fields.required("cipher_text", KmsCode::KMS_2201)?;
    let cipher = BASE64.decode(cipher);
    let cipher = cipher.map_err(|_| Error::kms(KmsCode::KMS_2201))?;
    check_algorithm(fields)?;
    let context = fields.context()?;
    let opened = state.keys.decrypt_data(by, key.as_ref(), &context, &cipher);
    let (key, plain) = opened.await?;
    let text = std::str::from_utf8(&plain).map_err(Error::internal)?;
    Ok(ok(json!({
        "key_id": key.to_string(),
        "plain_text": text,
        "plain_text_base64": BASE64.encode(text),
    })))
}

async fn random(state: &KmsState, by: &Permitted<'_>, fields: &Fields) -> Reply {
    let bits = fields.number("random_data_length", KmsCode::KMS_1801)?;
    let bits = bits.unwrap_or(OTC_BITS);
    let fits = if state.is_strict() {
        bits == OTC_BITS
    } else {
        (8..=8192).contains(&bits)
    };
    if !fits {
        return Err(Error::kms(KmsCode::KMS_1801).into());
    }
    if !bits.is_multiple_of(8) {
        return Err(Error::kms(KmsCode::KMS_1802).into());
    }
    let bytes = usize::try_from(bits / 8).map_err(Error::internal)?;
    let random = state.keys.random(by, bytes)?;
    Ok(ok(json!({ "random_data": upper_hex(&random).as_str() })))
}
